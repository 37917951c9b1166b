"""Lines of a submission, however a program stored them."""

from pathlib import Path

import pytest

from striate.errors import UserError
from striate.submission import lines
from striate.submission.lines import Defect


def found(defects: list[Defect]) -> list[tuple[int, str, str]]:
    return [(defect.line, defect.severity, defect.kind) for defect in defects]


@pytest.mark.parametrize(
    ("data", "rows", "defects"),
    [
        (b"a\nb\n", ["a", "b"], []),
        (b"a\nb", ["a", "b"], []),
        (b"\xef\xbb\xbfa\n", ["a"], [(1, "note", "byte-order mark")]),
        (b"a\r\nb\r\n", ["a", "b"], [(0, "note", "line ends")]),
        (b"a\n\nb\n", ["a", "", "b"], []),
        (b"a\nb\rc\n", ["a", "b", "c"], [(2, "error", "line ends")]),
        (b"a\n\xff\n", ["a", "\\xff"], [(2, "error", "encoding")]),
        ("a\n".encode("utf-16"), [], [(0, "error", "encoding")]),
        (b"", [], [(0, "error", "empty file")]),
        (b"\xef\xbb\xbf\r\n\r\n", [], [(1, "note", "byte-order mark"), (0, "note", "line ends"), (0, "error", "empty file")]),
        ("a\u2028b\x0bc\n".encode(), ["a\u2028b\x0bc"], []),  # only a line feed ends a line
    ],
)
def test_lines_and_what_is_odd_about_them(put, data, rows, defects):
    text_lines, odd = lines.read(put(data))
    assert text_lines == rows
    assert found(odd) == defects


def test_a_file_that_is_not_there_and_a_folder(tmp_path: Path):
    with pytest.raises(UserError, match=r"none\.csv: expected a text file to read, found no such file"):
        lines.read(tmp_path / "none.csv")
    with pytest.raises(UserError, match="found a folder"):
        lines.read(tmp_path)


def test_names_are_those_of_the_images_each_once():
    named = [(2, "a"), (3, "x"), (4, "b"), (5, "a"), (6, "a")]
    defects, place = lines.compare_names(named, ["a", "b", "c"], "ImageId")
    assert place == {"a": 0, "b": 1, "c": 2}
    assert found(defects) == [(3, "error", "unknown ImageId"), (0, "error", "missing ImageId")]
    assert defects[1].text == "1 of 3 test images have no row: 'c'; each needs one"
    repeated = lines.refuse_repeated(named, "ImageId")
    assert found(repeated) == [(5, "error", "repeated ImageId"), (6, "error", "repeated ImageId")]
    assert "line 2 already" in repeated[1].text


def test_errors_are_told_first_and_many_of_a_kind_are_counted():
    defects = [Defect(1, "note", "odd", "is odd"), *(Defect(line, "error", "bad", f"is bad {line}") for line in range(2, 9))]
    assert lines.describe(defects, most=2) == [
        "error: line 2: is bad 2",
        "error: line 3: is bad 3",
        "error: 5 more of this kind (bad)",
        "note: line 1: is odd",
    ]
    assert lines.describe(defects[:3], most=2)[:2] == ["error: line 2: is bad 2", "error: line 3: is bad 3"]

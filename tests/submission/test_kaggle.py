"""Kaggle's form: written as its page describes it, and every malformed row found."""

import csv

import numpy as np
import pytest

from striate.submission import kaggle
from striate.submission.labels import Numbering

HEADER = "ImageId,PredictionString\n"
THREE = Numbering(("n00000001", "n00000002", "n00000003"), "three")


def kinds(table: kaggle.Table) -> list[tuple[int, str, str]]:
    return [(defect.line, defect.severity, defect.kind) for defect in table.defects]


def test_the_example_of_the_challenges_page(put):
    """Six boxes of label 862, of which the first five count; see the data page of the challenge."""
    six = "862 42 24 178 186 862 292 28 438 198 862 168 24 292 198 862 299 238 443 374 862 168 195 294 357 862 3 214 135 356"
    table = kaggle.read(put(f"{HEADER}ILSVRC2012_test_00000001,{six}\n"))
    (row,) = table.rows
    assert row.image_id == "ILSVRC2012_test_00000001" and row.line == 2
    assert row.labels_5.tolist() == [862] * 5 and row.labels_5.dtype == np.int64
    expected = [[42, 24, 178, 186], [292, 28, 438, 198], [168, 24, 292, 198], [299, 238, 443, 374], [168, 195, 294, 357]]
    assert row.boxes_54.tolist() == expected
    assert kinds(table) == [(2, "note", "more than five predictions"), (2, "note", "repeated label")]


def test_the_garbled_copy_of_that_page_is_found_out(put):
    """A copy of the page says that 1880 is label 1000; labels end at 1000."""
    table = kaggle.read(put(f"{HEADER}a,1880 248 178 268 248\n"))
    assert kinds(table) == [(2, "error", "label outside")]
    assert "expected a label in 1..1000, found 1880" in table.defects[0].text


def test_written_and_read_again(put):
    whole = [(0, 0, 499, 374)] * 3
    answers = [("a", [3, 1, 2], whole), ("b", [2], [(0, 0, 0, 0)]), ("c", [1, 2, 3, 4, 5, 6], [(0, 0, 9, 9)] * 6)]
    path = put(kaggle.text(answers))
    plain = list(csv.DictReader(path.read_text().splitlines()))
    assert plain[0] == {"ImageId": "a", "PredictionString": "3 0 0 499 374 1 0 0 499 374 2 0 0 499 374"}
    table = kaggle.read(path)
    assert table.defects == []
    assert [row.labels_5.tolist() for row in table.rows] == [[3, 1, 2, 0, 0], [2, 0, 0, 0, 0], [1, 2, 3, 4, 5]]
    assert table.rows[0].boxes_54[:3].tolist() == [[0, 0, 499, 374]] * 3
    assert np.isnan(table.rows[0].boxes_54[3:]).all()


def test_each_label_has_its_own_box(put):
    path = put(kaggle.text([("a", [3, 1], [(1, 2, 3, 4), (5, 6, 7, 8)])]))
    assert path.read_text() == "ImageId,PredictionString\na,3 1 2 3 4 1 5 6 7 8\n"
    with pytest.raises(ValueError, match="shorter"):
        kaggle.text([("a", [3, 1], [(1, 2, 3, 4)])])


@pytest.mark.parametrize(
    ("prediction", "severity", "kind", "said"),
    [
        ("", "error", "empty prediction", "has no prediction; each image needs one"),
        ("   ", "error", "empty prediction", "has no prediction"),
        ("1 0 0 9", "error", "groups of five", "found 4 words"),
        ("1 0 0 9 9 2", "error", "groups of five", "found 6 words"),
        ("0 0 0 9 9", "error", "label 0", "were they counted from 0? Then add 1 to each"),
        ("4 0 0 9 9", "error", "label outside", "in 1..3, found 4"),
        ("-1 0 0 9 9", "error", "label outside", "found -1"),
        ("9999999999 0 0 9 9", "error", "label", "expected an integer label"),
        ("1.0 0 0 9 9", "error", "label", "expected an integer label in 1..3, found '1.0'"),
        ("cat 0 0 9 9", "error", "label", "found 'cat'"),
        ("² 0 0 9 9", "error", "label", "expected an integer"),
        ("n00000002 0 0 9 9", "error", "wnid", "LOC_synset_mapping.txt (2)"),
        ("n09999999 0 0 9 9", "error", "wnid", "n09999999 where a label belongs"),
        ("1 9 0 0 9", "error", "box inverted", "found 9 0 0 9"),
        ("1 0 9 9 0", "error", "box inverted", "y_min <= y_max"),
        ("1 -1 0 9 9", "error", "box negative", "found the box -1 0 9 9"),
        ("1 0 0 nan 9", "error", "box not finite", "0 0 nan 9"),
        ("1 0 0 inf 9", "error", "box not finite", "0 0 inf 9"),
        ("1 0 0 1e999 9", "error", "box not finite", "finite"),
        ("1 0 0 9 x", "error", "box", "expected a box of four numbers"),
        ("1 0 0 1_0 9", "error", "box", "four numbers"),
        ("1 0 0 9.5 9", "note", "decimals", "asks for integers"),
        ("1 0 0 9 9 1 0 0 5 5", "note", "repeated label", "names label 1 more than once"),
        (" ".join(["1 0 0 9 9", "2 0 0 9 9"] * 3), "note", "more than five predictions", "6 predictions"),
        ("1 0 0 9 9,2 0 0 9 9", "error", "columns", "expected two columns divided by ',', found 3"),
        ('"1 0 0 9 9', "error", "columns", "quotes do not close"),
        ('"1 0 0 9 9"x', "error", "columns", "quotes do not close, or stand within"),
    ],
)
def test_a_malformed_prediction(put, prediction, severity, kind, said):
    table = kaggle.read(put(f"{HEADER}a,{prediction}\nb,2 0 0 9 9\n"), THREE)
    assert (2, severity, kind) in kinds(table)
    assert said in next(defect.text for defect in table.defects if defect.kind == kind)
    assert not [defect for defect in table.defects if defect.line != 2]
    assert [row.image_id for row in table.rows] == ["a", "b"]  # the row counts, and the next one is read as usual
    assert table.rows[1].labels_5.tolist() == [2, 0, 0, 0, 0]


def test_what_is_right_in_a_row_with_a_defect_is_kept(put):
    (row,) = kaggle.read(put(f"{HEADER}a,0 0 0 9 9 3 0 0 5 5 2 9 0 0 9\n"), THREE).rows
    assert row.labels_5.tolist() == [0, 3, 2, 0, 0]
    assert row.boxes_54[1].tolist() == [0, 0, 5, 5]
    assert np.isnan(row.boxes_54[2]).all()


@pytest.mark.parametrize(
    ("text", "defects"),
    [
        ("ImageID,PredictionString\na,1 0 0 9 9\n", [(1, "error", "header")]),
        ("PredictionString,ImageId\na,1 0 0 9 9\n", [(1, "error", "header")]),
        ('"ImageId","PredictionString"\n"a","1 0 0 9 9"\n', [(1, "note", "header")]),
        ("ImageId;PredictionString\na;1 0 0 9 9\n", [(1, "error", "delimiter")]),
        ("ImageId\tPredictionString\na\t1 0 0 9 9\n", [(1, "error", "delimiter")]),
        ("a,1 0 0 9 9\n", [(1, "error", "header")]),
        (HEADER + "a,1 0 0 9 9\na,1 0 0 9 9\n", [(3, "error", "repeated ImageId")]),
        (HEADER + ",1 0 0 9 9\na,1 0 0 9 9\n", [(2, "error", "missing ImageId")]),
        (HEADER + "a.JPEG,1 0 0 9 9\n", [(2, "error", "ImageId")]),
        (HEADER + "test/a,1 0 0 9 9\n", [(2, "error", "ImageId")]),
        (HEADER + "a,1 0 0 9 9\n\nb,1 0 0 9 9\n", [(3, "note", "blank line")]),
        (HEADER + "a,1 0 0 9 9 \r\n", [(0, "note", "line ends")]),
    ],
)
def test_a_malformed_file(put, text, defects):
    if "\r" in text:
        text = text.replace("\n", "\r\n").replace("\r\r", "\r")
    table = kaggle.read(put(text))
    assert kinds(table) == defects
    assert len(table.rows) >= 1 and table.rows[0].labels_5[0] == 1  # what can be read is read


def test_nothing_and_a_header_alone_and_the_other_form(put):
    assert kinds(kaggle.read(put(""))) == [(0, "error", "empty file")]
    assert kinds(kaggle.read(put(HEADER))) == [(0, "error", "empty file")]
    table = kaggle.read(put("test_0.JPEG n00000001\n"))
    assert "--format tiny" in table.defects[0].text


def test_a_box_may_end_on_the_last_pixel_or_on_the_far_edge(put):
    rows = kaggle.read(put(f"{HEADER}a,1 0 0 499 374 2 0 0 500 375 3 0 0 501 375 4 0 0 500 375.5 5 600 0 700 9\n")).rows
    wrong = kaggle.outside(rows[0], 500, 375)
    assert [defect.text.split(":")[0] for defect in wrong] == ["prediction 3", "prediction 4", "prediction 5"]
    assert "0 0 501 375 goes beyond the photo, which is 500 x 375 pixels" in wrong[0].text


def test_any_bytes_at_all_give_rows_that_can_be_scored(put):
    numbers = np.random.default_rng(0)
    whole = (HEADER + "".join(f"image{n},{n + 1} 0 0 9 9 2 0 0.5 9 9\n" for n in range(5))).encode()
    for _ in range(300):
        spoilt = bytearray(whole)
        for place in numbers.integers(0, len(whole), 3).tolist():
            spoilt[place] = int(numbers.integers(0, 256))
        table = kaggle.read(put(bytes(spoilt)))
        for row in table.rows:
            assert ((row.labels_5 >= 0) & (row.labels_5 <= 1000)).all()
            is_box_5 = np.isfinite(row.boxes_54).all(axis=1)
            assert np.isnan(row.boxes_54[~is_box_5]).all() and (row.boxes_54[is_box_5] >= 0).all()
        assert len({row.image_id for row in table.rows}) == len(table.rows)

"""Tiny ImageNet's form: a file name, one blank, a wnid."""

from pathlib import Path

import pytest

from striate.submission import tiny


def kinds(defects):
    return [(defect.line, defect.severity, defect.kind) for defect in defects]


def test_written_and_read_again(put):
    path = put(tiny.text([("test_0.JPEG", "n01443537"), ("test_1.JPEG", "n01629819")]))
    assert path.read_text() == "test_0.JPEG n01443537\ntest_1.JPEG n01629819\n"
    guesses, defects = tiny.read(path, {"n01443537", "n01629819"})
    assert [(guess.name, guess.wnid, guess.line) for guess in guesses] == [
        ("test_0.JPEG", "n01443537", 1),
        ("test_1.JPEG", "n01629819", 2),
    ]
    assert defects == []
    assert tiny.misnamed(guesses) == []


@pytest.mark.parametrize(
    ("line", "defect", "said"),
    [
        ("test_0.JPEG", ("error", "columns"), "expected a file name, one blank and a wnid"),
        ("test_0.JPEG n01443537 n01629819", ("error", "columns"), "found 'test_0.JPEG n01443537 n01629819'"),
        ("test_0.JPEG\tn01443537", ("error", "columns"), "one blank"),
        ("test_0.JPEG,n01443537", ("error", "columns"), "one blank"),
        ("test_0.JPEG  n01443537", ("note", "blanks"), "more blanks"),
        ("test_0.JPEG 17", ("error", "unknown wnid"), "expected a wnid, as n01443537, found '17'"),
        ("test_0.JPEG n00000009", ("error", "unknown wnid"), "n00000009 is none of the 2 classes of wnids.txt"),
        ("", ("note", "blank line"), "is blank"),
        ("ImageId,PredictionString", ("error", "header"), "--format kaggle"),
    ],
)
def test_a_malformed_line(put, line, defect, said):
    guesses, defects = tiny.read(put(f"{line}\ntest_1.JPEG n01443537\n"), {"n01443537", "n01629819"})
    assert kinds(defects) == [(1, *defect)]
    assert said in defects[0].text
    assert guesses[-1] == tiny.Guess("test_1.JPEG", "n01443537", 2)
    if "test_0" in line:  # so that the image is not said to lack a row as well
        assert guesses[0].name == "test_0.JPEG"


def test_a_repeated_name_counts_once_and_an_empty_file_is_an_error(put):
    guesses, defects = tiny.read(put("test_0.JPEG n00000001\ntest_0.JPEG n00000002\n"))
    assert [guess.wnid for guess in guesses] == ["n00000001"]
    assert kinds(defects) == [(2, "error", "repeated name")]
    assert kinds(tiny.read(put(""))[1]) == [(0, "error", "empty file")]


def test_names_without_the_images(put):
    guesses, _ = tiny.read(put("test_0.jpg n00000001\nval_1.JPEG n00000001\ntest_2.JPEG n00000001\n"))
    assert [(defect.line, defect.kind) for defect in tiny.misnamed(guesses)] == [(1, "name"), (2, "name")]


def test_the_classes_of_the_real_set(real_data: Path):
    root = real_data / "tiny-imagenet-200"
    known = tiny.known_wnids(root / "test" / "images")
    assert known == {path.name for path in (root / "train").iterdir()}
    assert tiny.known_wnids(real_data / "imagenet-samples") is None

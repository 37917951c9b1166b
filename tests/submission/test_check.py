"""A submission against its test images: every image once, boxes within the photos."""

import json
from pathlib import Path

import pytest

from striate.data import synthetic
from striate.errors import DataError, UserError
from striate.files import to_json
from striate.submission.check import check

GOOD = """ImageId,PredictionString
ILSVRC2012_test_00000001,3 0 0 23 19
ILSVRC2012_test_00000002,1 0 0 23 20
ILSVRC2012_test_00000003,2 0 0 23 21
ILSVRC2012_test_00000004,1 0 0 23 22
"""


def kinds(checked):
    return [(defect.line, defect.severity, defect.kind) for defect in checked.defects]


def test_a_good_file_has_no_defect(put, kaggle_set):
    checked = check(put(GOOD), data=kaggle_set)
    assert (checked.rows, checked.errors, checked.defects, checked.notes) == (4, 0, (), ())
    assert checked.describe() == [f"{checked.path}: 4 rows, no error"]


def test_without_the_images_it_says_what_it_did_not_compare(put, kaggle_set):
    checked = check(put(GOOD))
    assert checked.errors == 0
    assert any("1..1,000" in note for note in checked.notes) and any("--data TESTDIR" in note for note in checked.notes)
    outside = check(put(GOOD.replace(",3 ", ",4 ")), mapping=kaggle_set.parents[3] / "LOC_synset_mapping.txt")
    assert kinds(outside) == [(2, "error", "label outside")]


def test_names_and_boxes_are_compared_with_the_photos(put, kaggle_set):
    text = GOOD.replace("00000002,", "00000009,").replace("2 0 0 23 21", "2 0 0 23 22").replace("1 0 0 23 22", "1 0 0 24 99")
    checked = check(put(text), data=kaggle_set)
    assert kinds(checked) == [
        (0, "error", "missing ImageId"),
        (3, "error", "unknown ImageId"),
        (5, "error", "box outside"),
    ]
    assert "'ILSVRC2012_test_00000002'" in checked.defects[0].text
    assert "24 x 23 pixels" in checked.defects[2].text
    plain = json.loads(to_json(checked.to_json(), indent=None))
    assert plain["errors"] == 3 and plain["kinds"]["box outside"] == 1 and plain["defects"][2]["line"] == 5


def test_rows_of_a_photo_that_cannot_be_read(put, kaggle_set):
    (kaggle_set / "ILSVRC2012_test_00000003.JPEG").write_bytes(b"nothing")
    assert kinds(check(put(GOOD), data=kaggle_set)) == [(4, "note", "unreadable photo")]


def test_the_sample_of_a_set_in_its_layout_is_good(tmp_path: Path):
    """LOC_sample_submission.csv repeats one guess and ends its rows in a blank, as the real one does."""
    synthetic.make(tmp_path / "set", layout="ilsvrc", classes=2, per_class=1, val_per_class=2)
    checked = check(tmp_path / "set" / "LOC_sample_submission.csv", data=tmp_path / "set")
    assert checked.errors == 0
    assert {kind for _, _, kind in kinds(checked)} == {"repeated label"}


def test_a_solution_is_no_submission(tmp_path: Path):
    synthetic.make(tmp_path / "set", layout="ilsvrc", classes=2, per_class=1, val_per_class=2)
    checked = check(tmp_path / "set" / "LOC_val_solution.csv", data=tmp_path / "set/ILSVRC/Data/CLS-LOC/val")
    assert checked.errors == 4
    assert all("LOC_synset_mapping.txt (" in defect.text for defect in checked.defects)


def test_tiny_imagenets_form(tmp_path: Path, put):
    synthetic.make(tmp_path / "tiny", layout="tiny", classes=2, per_class=1, val_per_class=2)
    wnid = (tmp_path / "tiny" / "wnids.txt").read_text().split()[0]
    good = "".join(f"test_{number}.JPEG {wnid}\n" for number in range(4))
    for place in (tmp_path / "tiny", tmp_path / "tiny" / "test", tmp_path / "tiny" / "test" / "images"):
        checked = check(put(good), "tiny", place)
        assert (checked.rows, checked.defects, checked.notes) == (4, (), ())
    bad = good.replace("test_3.JPEG", "test_3.jpg").replace(f"test_1.JPEG {wnid}", "test_1.JPEG n00000001")
    checked = check(put(bad), "tiny", tmp_path / "tiny")
    assert kinds(checked) == [(0, "error", "missing name"), (2, "error", "unknown wnid"), (4, "error", "unknown name")]
    assert kinds(check(put(bad), "tiny")) == [(4, "error", "name")]


def test_what_cannot_be_read_at_all(tmp_path: Path, put, kaggle_set):
    with pytest.raises(UserError, match=r"none\.csv: expected a text file"):
        check(tmp_path / "none.csv", data=kaggle_set)
    with pytest.raises(UserError, match="no such file or folder"):
        check(put(GOOD), data=tmp_path / "nowhere")
    (kaggle_set.parents[3] / "LOC_synset_mapping.txt").write_text("x\n")
    with pytest.raises(DataError, match=r"LOC_synset_mapping\.txt, line 1"):
        check(put(GOOD), data=kaggle_set)

"""Rows of the predict verb: input order, bad files with their reason, probabilities that are the network's."""

import csv
import io

import numpy as np
import pytest
import torch

from striate.classes import Classes
from striate.errors import DataError
from striate.evaluate.rows import prediction_rows, rows_csv
from striate.predictions import Predictions

CLASSES = Classes(("n1", "n2", "n3"), ("crane", "crane", "bee"))
SCORES = np.array([[1, 2, 3], [5, 5, 0]], np.float32)
SAID = Predictions(["b.jpg", "a.jpg"], np.array([-1, -1]), SCORES, "logits", CLASSES)
BAD = [("cut.jpg", "truncated, 20 of 40 bytes")]


def test_rows_stand_in_input_order_with_bad_files_in_place() -> None:
    rows = prediction_rows(SAID, BAD, ["a.jpg", "cut.jpg", "b.jpg", "a.jpg"], top=2)
    assert [(row.key, row.status) for row in rows] == [("a.jpg", "ok"), ("cut.jpg", "bad"), ("b.jpg", "ok"), ("a.jpg", "ok")]
    assert rows[1].reason == "truncated, 20 of 40 bytes"
    assert [rank.class_id for rank in rows[2].ranks] == ["n3", "n2"]
    assert [rank.name for rank in rows[0].ranks] == ["crane (n1)", "crane (n2)"]  # a tie: the lower class first


def test_probabilities_equal_torch_softmax() -> None:
    theirs = torch.from_numpy(SCORES).softmax(1)
    (row,) = prediction_rows(SAID, [], ["b.jpg"])
    assert [rank.probability for rank in row.ranks] == pytest.approx(theirs[0].flip(0).tolist(), abs=1e-6)


def test_csv_has_one_row_for_each_image() -> None:
    table = list(csv.DictReader(io.StringIO(rows_csv(prediction_rows(SAID, BAD, ["a.jpg", "cut.jpg"], top=5), top=5))))
    assert list(table[0]) == ["key", "status", "reason"] + [
        f"rank{i}_{what}" for i in (1, 2, 3) for what in ("id", "name", "probability")
    ]
    assert table[0]["rank1_id"] == "n1"
    assert table[1]["status"] == "bad"
    assert table[1]["reason"] == "truncated, 20 of 40 bytes"
    assert table[1]["rank1_id"] == ""


def test_csv_of_bad_files_only_and_of_nothing() -> None:
    nobody = SAID.select(np.array([], np.int64))
    only_bad = rows_csv(prediction_rows(nobody, BAD, ["cut.jpg"], top=2), top=2).splitlines()
    assert only_bad[0].endswith("rank2_id,rank2_name,rank2_probability")
    assert only_bad[1] == 'cut.jpg,bad,"truncated, 20 of 40 bytes",,,,,,'
    assert len(rows_csv([], top=1).splitlines()) == 1


def test_an_image_that_nobody_answered_for_is_an_error() -> None:
    with pytest.raises(DataError, match=r"new\.jpg"):
        prediction_rows(SAID, BAD, ["new.jpg"])

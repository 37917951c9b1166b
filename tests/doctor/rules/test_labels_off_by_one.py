"""Fires on labels that count from 1 or from -1; silent on labels in range and on those that torch leaves out."""

from __future__ import annotations

import numpy as np
import pytest

from striate.doctor.finding import NotJudged
from striate.doctor.rules import labels_off_by_one
from tests.doctor.rules import data_makers as made


def _check(labels, outputs):
    labels = np.asarray(labels)
    pixels = np.zeros((len(labels), 16, 16, 3), np.uint8)
    return labels_off_by_one.check(made.stranger(made.loader(pixels, labels), model=made.network(outputs)))


def test_labels_from_one():
    found = _check(made.labels(10, 8) + 1, 10)
    assert found is not None
    assert (found.severity, found.cause) == ("error", "labels-off-by-one")


def test_labels_from_minus_one():
    found = _check(made.labels(10, 8) - 1, 10)
    assert found is not None
    assert (found.severity, found.cause) == ("error", "labels-off-by-one")
    assert "Add 1" in found.remedies[0].advice


def test_labels_from_one_with_an_output_to_spare_are_a_note():
    found = _check(made.labels(9, 12) + 1, 10)
    assert found is not None
    assert (found.severity, found.cause) == ("note", "labels-off-by-one")


@pytest.mark.parametrize(
    ("labels", "outputs"),
    [
        (made.labels(10, 8), 10),
        (made.labels(10, 8), 1000),
        (np.where(made.labels(10, 8) == 3, -100, made.labels(10, 8)), 10),
        (made.labels(2, 30), 2),
    ],
)
def test_healthy(labels, outputs):
    assert _check(labels, outputs) is None


def test_too_few_to_miss_class_0():
    with pytest.raises(NotJudged, match="too few labels"):
        _check(made.labels(9, 2) + 1, 10)


def test_an_index_may_hold_images_without_a_label():
    labels = made.labels(4, 10)
    index = made.index(np.zeros((40, 16, 16, 3), np.uint8), labels)
    unlabelled = made.relabelled(index, np.where(labels == 2, -1, labels))
    assert labels_off_by_one.check(made.ours(unlabelled, model=made.network(4))) is None

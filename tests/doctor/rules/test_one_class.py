"""Fires where all labels are one, or batches hold one class; silent on few classes and on skewed ones."""

from __future__ import annotations

import numpy as np
import pytest

from striate.doctor.finding import NotJudged
from striate.doctor.rules import one_class
from tests.doctor.rules import data_makers as made


def _stranger(labels):
    labels = np.asarray(labels)
    return made.stranger(made.loader(made.pictures(labels), labels))


def test_one_label_in_an_index():
    labels = np.full(40, 2)
    found = one_class.check(made.ours(made.index(made.pictures(labels), labels)))
    assert found is not None
    assert (found.severity, found.cause) == ("error", "one-class")


def test_one_label_in_a_loader():
    found = one_class.check(_stranger(np.zeros(80, int)))
    assert found is not None
    assert found.cause == "one-class"
    assert "shuffle" in found.remedies[0].advice


def test_a_loader_that_is_sorted_by_class():
    found = one_class.check(_stranger(np.repeat(np.arange(4), 60)))
    assert found is not None
    assert "one class at a time" in found.sentence


@pytest.mark.parametrize("labels", [made.labels(2, 40), made.labels(10, 8), np.tile([0] * 19 + [1], 8)])
def test_healthy(labels):
    assert one_class.check(_stranger(labels)) is None
    assert one_class.check(made.ours(made.index(made.pictures(labels), labels))) is None or len(set(labels)) == 1


def test_few_labels_may_be_equal_by_chance():
    with pytest.raises(NotJudged, match="too few labels"):
        one_class.check(_stranger(np.zeros(6, int)))


def test_an_index_sorted_by_class_is_shuffled_by_striate():
    labels = np.repeat(np.arange(4), 60)
    patient = made.ours(made.index(made.pictures(labels), labels))
    patient.labels = patient.labels * 0
    assert one_class.check(patient) is None

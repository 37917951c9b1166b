"""Fires on classes of very unequal size and on empty ones; silent on ImageNet's, and where the recipe evens them out."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from striate.classes import Classes
from striate.doctor.finding import NotJudged
from striate.doctor.rules import unequal_classes
from tests.doctor.rules import data_makers as made


def _labels(counts):
    return np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))


def _ours(counts, **changes):
    labels = _labels(counts)
    index = made.index(np.zeros((len(labels), 4, 4, 3), np.uint8), labels)
    ids = Classes(tuple(map(str, range(len(counts)))), ("",) * len(counts))
    return made.ours(dataclasses.replace(index, classes=ids), **changes)


@pytest.mark.parametrize("counts", [[200, 20, 150], [300, 30], [500, 220, 90, 40, 17, 8], [95, 5]])
def test_ill(counts):
    found = unequal_classes.check(_ours(counts))
    assert found is not None
    assert (found.severity, found.cause) == ("warning", "unequal-classes")
    assert found.remedies[0].changes == {"loss.balance": True}
    assert found.remedies[1].changes == {"data.sampling": "classes"}


def test_a_class_without_images():
    found = unequal_classes.check(_ours([40, 0, 40]))
    assert found is not None
    assert found.severity == "warning"
    assert found.evidence["classes without images"] == 1


def test_a_factor_of_five_is_a_note():
    found = unequal_classes.check(_ours([100, 20, 60]))
    assert found is not None
    assert found.severity == "note"


@pytest.mark.parametrize("counts", [[1300, 732, 1100], [10, 10], [50, 20], [3, 2, 4, 3]])
def test_healthy(counts):
    assert unequal_classes.check(_ours(counts)) is None


@pytest.mark.parametrize("changes", [{"loss.balance": True}, {"data.sampling": "classes"}, {"loss.class_weights": (1.0, 9.0)}])
def test_evened_out_by_the_recipe(changes):
    assert unequal_classes.check(_ours([300, 20], **changes)) is None


def test_a_loader_is_judged_only_by_enough_labels_in_random_order():
    def check(labels):
        return unequal_classes.check(made.stranger(made.loader(made.pictures(labels, side=16), labels)))

    assert check(_labels([60, 4])) is not None
    assert check(_labels([50, 50])) is None
    # Too few; and sorted, so that only a part of the data was seen.
    for labels in (_labels([14, 2]), np.repeat([0, 1], [100, 4])):
        with pytest.raises(NotJudged, match="too few labels"):
            check(labels)

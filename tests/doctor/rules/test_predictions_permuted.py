"""Fires where a renaming makes the network much better, and says which; silent on right names and weak networks."""

from __future__ import annotations

import numpy as np
import pytest

from striate.doctor.finding import NotJudged
from striate.doctor.rules import predictions_permuted
from tests.doctor.rules import data_makers as made

NUMBERS = np.arange(12)
TEXT = np.argsort(sorted(range(12), key=str))
RENAMED = {
    "any": (np.random.default_rng(4).permutation(12), "class-order", "another order"),
    "reversed": (NUMBERS[::-1].copy(), "class-order", "the other way round"),
    "as text": (TEXT, "class-order", "numbers sorted as text"),
    "moved": ((NUMBERS + 1) % 12, "labels-off-by-one", "one too high"),
    "two": (np.array([0, 1, 7, 3, 4, 5, 6, 2, 8, 9, 10, 11]), "class-order", "another order"),
}


@pytest.mark.parametrize("name", RENAMED)
def test_renamed(name):
    rename, cause, order = RENAMED[name]
    right = made.predictions(1200, 12)
    found = predictions_permuted.check(made.of_scores(right.scores, rename[right.labels]), None)
    assert found is not None
    assert (found.severity, found.cause) == ("error", cause)
    assert found.evidence["order"] == order
    assert found.evidence["top-1 renamed"] > found.evidence["top-1"]


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 3.0])
def test_healthy_and_weak_networks(sharpness):
    assert predictions_permuted.check(made.predictions(1200, 12, sharpness), None) is None


def test_missing_facts():
    right = made.predictions(50, 12)
    with pytest.raises(NotJudged):
        predictions_permuted.check(right.select(np.arange(0)), None)
    with pytest.raises(NotJudged):
        predictions_permuted.check(made.of_scores(right.scores, np.full(50, -1)), None)

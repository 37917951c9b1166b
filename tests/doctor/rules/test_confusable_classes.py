"""Fires on pairs that are mistaken for each other; silent on even mistakes, on weak networks and on permuted labels."""

from __future__ import annotations

import math

import numpy as np
import pytest

from striate.doctor.finding import NotJudged
from striate.doctor.rules import confusable_classes
from tests.doctor.rules import data_makers as made


def _made(pair_share, classes=20, per_class=50, honest=0.3, pairs=((3, 11),), seed=0):
    """Said classes: right, or wrong anywhere; within a pair swapped besides, with that share."""
    draw = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), per_class)
    said = np.where(draw.random(len(labels)) < honest, draw.integers(0, classes, len(labels)), labels)
    for i, j in pairs:
        for a, b in ((i, j), (j, i)):
            said[(labels == a) & (draw.random(len(labels)) < pair_share)] = b
    return made.of_scores(5.0 * np.eye(classes)[said] + 0.01 * draw.normal(size=(len(labels), classes)), labels)


def test_one_class_under_two_names_is_a_warning():
    found = confusable_classes.check(_made(0.5), None)
    assert found is not None
    assert (found.severity, found.cause) == ("warning", "confusable-classes")
    pair = "class003 / class011"
    assert list(found.evidence["pairs"]) == [pair]
    assert len(found.evidence["pictures"][pair]) == 4
    assert all(key.startswith("val/") for key in found.evidence["pictures"][pair])


def test_a_pair_worth_naming_is_a_note():
    found = confusable_classes.check(_made(0.25), None)
    assert found is not None
    assert found.severity == "note"


def test_several_pairs_of_many_classes():
    found = confusable_classes.check(_made(0.5, classes=200, per_class=25, pairs=((0, 1), (5, 150))), None)
    assert found is not None
    assert found.evidence["pairs in all"] == 2
    assert found.evidence["top-1 if each pair were one class"] > found.evidence["top-1"]


@pytest.mark.parametrize("honest", [0.0, 0.3, 0.45])
@pytest.mark.parametrize("classes", [3, 20, 200])
def test_even_mistakes_are_silent(classes, honest):
    for seed in range(3):
        assert confusable_classes.check(_made(0.0, classes, honest=honest, seed=seed), None) is None


def test_one_direction_only_is_silent():
    draw = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), 50)
    said = np.where((labels == 2) & (draw.random(500) < 0.6), 7, labels)
    assert confusable_classes.check(made.of_scores(5.0 * np.eye(10)[said], labels), None) is None


def test_permuted_and_untrained_are_others_affair():
    labels = np.repeat(np.arange(10), 50)
    said = labels.copy()
    said[labels == 2], said[labels == 5] = 5, 2
    draw = np.random.default_rng(0)
    for scores, given in (
        (5.0 * np.eye(10)[said], labels),
        (draw.normal(size=(500, 10)), labels),
        (draw.normal(size=(5, 2)), np.array([0, 1, 0, 1, 0])),
        (draw.normal(size=(5, 3)), np.array([0, 1, 0, 1, 0])),
    ):
        with pytest.raises(NotJudged):
            confusable_classes.check(made.of_scores(scores, given), None)


@pytest.mark.parametrize(("count", "mean"), [(3, 1.0), (10, 2.5), (40, 12.0)])
def test_the_tail_of_poisson_is_bounded_from_above(count, mean):
    exact = 1 - sum(math.exp(-mean) * mean**k / math.factorial(k) for k in range(count))
    found = confusable_classes.poisson_tail(count, mean)
    assert exact <= found <= 1.5 * exact

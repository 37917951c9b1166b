"""Scored images are prepared otherwise."""

from __future__ import annotations

import pytest

from striate.doctor.finding import NotJudged
from striate.doctor.rules import preprocessing_gap


def apart(makers, **more):
    sample = makers.Scores(lambda t: 1.6, lambda t: 0.45)
    return makers.training(makers.falling(2.4, 0.4), sample=sample, val=makers.Scores(lambda t: 1.7, lambda t: 0.42), **more)


def test_steady_and_low(makers):
    found = preprocessing_gap.check(apart(makers))
    assert found.severity == "warning"
    assert found.cause == "preprocessing-mismatch"
    assert "45.0%" in found.sentence or "44." in found.sentence or "45." in found.sentence


def test_the_recipe_says_where_they_differ(makers):
    found = preprocessing_gap.check(apart(makers, changes={"augment.crop": "resize"}))
    assert "squeezed" in found.sentence
    assert found.remedies[0].changes == {"data.fit": "squash"}
    found = preprocessing_gap.check(apart(makers, changes={"augment.scale": (0.1, 0.3)}))
    assert found.remedies[0].changes == {"augment.scale": (0.1, 1.0)}


def test_without_batch_norm_it_is_surely_the_images(makers):
    sample = makers.Scores(lambda t: 9.0, lambda t: 0.1)
    history = makers.training(makers.falling(2.4, 0.4), sample=sample, changes={"model.name": "vgg16"})
    assert preprocessing_gap.check(history).cause == "preprocessing-mismatch"


def test_wild_scores_are_batch_norm(makers):
    history = makers.training(makers.falling(2.4, 0.4), sample=makers.Scores(lambda t: 9.0, lambda t: 0.1))
    assert preprocessing_gap.check(history) is None


def test_one_evaluation_is_not_enough(makers):
    history = makers.training(makers.falling(2.4, 0.4), sample=makers.Scores(lambda t: 1.6, lambda t: 0.4, evaluations=1))
    with pytest.raises(NotJudged, match="too few evaluations"):
        preprocessing_gap.check(history)


def test_silent_on_healthy_trainings(makers, healthy):
    assert makers.asked(preprocessing_gap, healthy) is None

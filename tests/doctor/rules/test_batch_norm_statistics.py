"""Training images score far below what training says."""

from __future__ import annotations

import pytest

from striate.doctor.finding import NotJudged
from striate.doctor.rules import batch_norm_statistics


def apart(makers, loss=4.0, top1=0.12, **more):
    sample = makers.Scores(lambda t: loss, lambda t: top1)
    return makers.training(makers.falling(2.4, 0.6), sample=sample, val=makers.Scores(lambda t: loss, lambda t: top1), **more)


def test_two_images_at_a_time(makers):
    found = batch_norm_statistics.check(apart(makers, batch_size=2))
    assert found.severity == "error"
    assert found.cause == "batch-norm-statistics"
    assert found.remedies[0].changes["optim.batch_size"] == 32


def test_micro_batches_of_two(makers):
    history = apart(makers, batch_size=32, changes={"optim.accumulate": 16, "optim.batch_size": 32})
    assert batch_norm_statistics.check(history).evidence["images for each normalisation"] == 2


def test_scores_worse_than_guessing(makers):
    found = batch_norm_statistics.check(apart(makers, loss=9.0))
    assert found.cause == "batch-norm-statistics"
    assert "above guessing" in found.causes[0].because


def test_steady_scores_with_large_batches_are_another_matter(makers):
    assert batch_norm_statistics.check(apart(makers, loss=1.6, top1=0.45)) is None


def test_without_batch_norm_it_is_none(makers):
    with pytest.raises(NotJudged):
        batch_norm_statistics.check(apart(makers, batch_size=2, changes={"model.name": "vgg16"}))


def test_the_first_steps_are_left_alone(makers):
    with pytest.raises(NotJudged, match="too few steps"):
        batch_norm_statistics.check(apart(makers, loss=9.0, steps=120, every=5))


def test_averaged_weights_that_lag_are_another_matter(makers):
    average, raw = makers.Scores(lambda t: 4.0, lambda t: 0.1), makers.Scores(lambda t: 0.8, lambda t: 0.75)
    history = makers.training(
        makers.falling(2.4, 0.5), val=raw, average=average, sample=makers.Scores(lambda t: 4.0, lambda t: 0.1), batch_size=4
    )
    with pytest.raises(NotJudged, match="lag"):
        batch_norm_statistics.check(history)


def test_silent_on_healthy_trainings(makers, healthy):
    assert makers.asked(batch_norm_statistics, healthy) is None

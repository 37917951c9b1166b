"""Averaged weights behind the raw ones."""

from __future__ import annotations

import pytest

from striate.doctor.finding import NotJudged
from striate.doctor.rules import ema_lag


def lagging(makers, average=0.2, **more):
    raw = makers.scored(2.2, 0.7, 0.2, 0.8)
    slow = makers.Scores(lambda t: 2.0, lambda t: 0.1 + (average - 0.1) * t)
    return makers.training(makers.falling(2.4, 0.3), val=raw, average=slow, changes={"optim.ema": 0.9999}, **more)


def test_it_lags(makers):
    found = ema_lag.check(lagging(makers))
    assert found.severity == "warning"
    assert found.cause == "ema-slow"
    assert "10,000 steps, of 2,000" in found.sentence
    assert found.remedies[0].changes == {"optim.ema": 0.99}


def test_at_the_start_it_is_a_note(makers):
    assert ema_lag.check(lagging(makers, until=0.3)).severity == "note"


def test_a_single_first_evaluation_says_nothing(makers):
    with pytest.raises(NotJudged, match="too few evaluations"):
        ema_lag.check(lagging(makers, until=0.1))


def test_an_average_that_caught_up_is_well(makers):
    raw = makers.scored(2.2, 0.7, 0.2, 0.8)
    average = makers.Scores(lambda t: 1.0, lambda t: 0.1 if t < 0.7 else 0.82)
    assert ema_lag.check(makers.training(makers.falling(2.4, 0.3), val=raw, average=average)) is None


def test_few_images_say_little(makers):
    raw, average = makers.Scores(lambda t: 1.0, lambda t: 0.56, images=60), makers.Scores(lambda t: 1.0, lambda t: 0.5, images=60)
    assert ema_lag.check(makers.training(makers.falling(2.4, 0.3), val=raw, average=average)) is None


def test_silent_on_healthy_trainings(makers, healthy):
    assert makers.asked(ema_lag, healthy) is None

"""A loss that rises and stays high."""

from __future__ import annotations

import math

import pytest

from striate.doctor.finding import NotJudged
from striate.doctor.rules import divergence


@pytest.mark.parametrize(
    "loss",
    [
        lambda t: 2.3 + 40 * t,
        lambda t: 1.0 + 1.3 * (1 - t) if t < 0.6 else 4.0,
        lambda t: 2.4 if t < 0.05 else 900.0,
        lambda t: 2.3 * math.exp(20 * min(t, 0.3)),
    ],
    ids=["from the start", "late", "at once", "by orders of magnitude"],
)
def test_it_rose(makers, loss):
    found = divergence.check(makers.training(loss))
    assert found.severity == "error"
    assert found.cause == "learning-rate-high"
    assert found.remedies[0].changes == {"optim.lr": 0.01}


def test_within_a_hundred_steps(makers):
    assert divergence.check(makers.training(lambda t: 2.4 + 6 * t, steps=100, every=5)) is not None


def test_a_first_step_as_large_as_the_weights_makes_it_sure(makers):
    history = makers.training(lambda t: 9.0, groups={"conv1": (0.3, 2.0), "fc": (0.3, 8.0)}, changes={"optim.lr": 10.0})
    history.steps.cut(0)
    with pytest.raises(NotJudged):
        divergence.check(history)
    history = makers.training(lambda t: 2.4 if t < 0.02 else 9.0, groups={"conv1": (0.3, 2.0), "fc": (0.3, 8.0)})
    assert divergence.check(history).causes[0].weight > 0.9


def test_small_batches_are_named(makers):
    found = divergence.check(makers.training(lambda t: 2.3 + 5 * t, batch_size=2))
    assert "batch-too-small" in [cause.name for cause in found.causes]


def test_a_table(makers):
    assert divergence.check(makers.table_of(loss=lambda t: 2.0 if t < 0.5 else 30.0)).cause == "learning-rate-high"
    assert divergence.check(makers.table_of(val_loss=lambda t: 2.0 if t < 0.5 else 30.0)) is not None


def test_a_head_that_starts_large_and_comes_down_is_none(makers):
    assert divergence.check(makers.training(makers.falling(30.0, 3.0, 8))) is None


def test_one_jump_is_none(makers):
    assert divergence.check(makers.training(lambda t: 9.0 if 0.5 < t < 0.53 else 2.4 - 2 * t)) is None


def test_a_loss_near_zero_may_double(makers):
    assert divergence.check(makers.training(lambda t: 0.02 if t < 0.8 else 0.05)) is None


def test_silent_on_healthy_trainings(makers, healthy):
    assert makers.asked(divergence, healthy) is None

"""The rate fell while the loss was falling."""

from __future__ import annotations

import math

import pytest

from striate.doctor.rules import decayed_early


def cut(makers, at=0.2, **more):
    """The loss falls along a line until the rate falls, and hardly after."""
    return makers.training(
        lambda t: 2.4 - 3 * min(t, at) - 0.02 * t, lr=lambda t: 0.1 if t < at else 0.0001, noise=0.01,
        **{"changes": {"optim.schedule": "step", "optim.drop_epochs": (10 * at,), "optim.drop_factor": 0.001}, **more},
    )  # fmt: skip


def test_a_step_too_early(makers):
    found = decayed_early.check(cut(makers))
    assert found.severity == "warning"
    assert found.cause == "schedule-early"
    assert found.remedies[0].changes == {"optim.schedule": "cosine"}
    assert found.remedies[1].changes == {"optim.drop_epochs": (6.0,)}
    assert found.curve.mark[0] == found.evidence.get("at step", found.curve.mark[0])


def test_within_a_hundred_steps(makers):
    assert decayed_early.check(cut(makers, steps=150, every=5, steps_per_epoch=46)).cause == "schedule-early"


def test_keras_decay(makers):
    rate = lambda t: 0.01 / (1 + 1e-2 * 40_000 * t)  # noqa: E731
    history = makers.table_of(loss=lambda t: 2.4 - 4 * min(t, 0.15) - 0.01 * t, lr=rate, epochs=60, top1=lambda t: 0.3)
    history.steps.append({"step": 60, "loss": 1.79, "lr": rate(1.0), "top1": 0.3})
    found = decayed_early.check(history)
    assert found is None or found.cause == "schedule-early"


def test_a_plateau_before_the_drop_is_the_right_time(makers):
    history = makers.training(
        lambda t: 1.4 + math.exp(-40 * t) if t < 0.5 else 1.0, lr=lambda t: 0.1 if t < 0.5 else 0.001, noise=0.02
    )
    assert decayed_early.check(history) is None


def test_a_loss_that_goes_on_falling_is_well(makers):
    history = makers.training(lambda t: 2.4 - 1.5 * t, lr=lambda t: 0.1 if t < 0.2 else 0.001, noise=0.01)
    assert decayed_early.check(history) is None


def test_nothing_left_to_learn_is_well(makers):
    history = makers.training(lambda t: max(0.02, 2.4 - 12 * t), lr=lambda t: 0.1 if t < 0.2 else 0.001, noise=0.01)
    assert decayed_early.check(history) is None


def test_silent_on_healthy_trainings(makers, healthy):
    assert makers.asked(decayed_early, healthy) is None


def test_a_rate_next_to_nothing_is_told_whatever_the_loss_did_before(makers):
    """A scheduler stepped for each batch: the rate is gone after a fifth, before the loss ever fell."""
    history = makers.table_of(loss=lambda t: 2.0 - 0.01 * t, lr=lambda t: 0.1 if t <= 0.2 else 1e-5, epochs=20)
    found = decayed_early.check(history)
    assert (found.cause, found.severity) == ("schedule-early", "warning")
    assert found.evidence["share of the training"] == pytest.approx(0.8)
    assert "From step 4 of 19" in found.sentence


@pytest.mark.parametrize(
    ("loss", "late"),
    [(lambda t: 2.0, 1.1e-4), (lambda t: 1.1, 1e-5), (lambda t: 2.3 - 2.2 * min(1.0, 5 * t), 1e-5)],
    ids=["a thousandth is left", "half of guessing", "learnt"],
)
def test_silent_where_something_is_left_of_the_rate_or_little_of_the_loss(makers, loss, late):
    history = makers.table_of(loss=loss, lr=lambda t: 0.1 if t <= 0.2 else late, epochs=20)
    assert makers.asked(decayed_early, history) is None


def test_a_rate_that_is_gone_at_the_very_end_is_well(makers):
    assert decayed_early.check(makers.table_of(loss=lambda t: 2.0, lr=lambda t: 0.1 if t <= 0.65 else 1e-5, epochs=20)) is None

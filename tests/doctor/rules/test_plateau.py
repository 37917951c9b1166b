"""A loss that stands still above guessing while the rate is high."""

from __future__ import annotations

import math

import pytest

from striate.doctor.rules import plateau


def stuck(makers, **more):
    loss = lambda t: 1.6 + 0.7 * math.exp(-30 * t)  # noqa: E731
    return makers.training(
        loss, **{"top1": lambda t: 0.42, "lr": lambda t: 0.1, "changes": {"optim.schedule": "constant"}, **more}
    )


def test_stuck(makers):
    found = plateau.check(stuck(makers))
    assert found.severity == "warning"
    assert found.cause == "underfitting"
    assert found.curve.mark[0] == pytest.approx(5, abs=1), "in epochs, as the curve has them"


@pytest.mark.parametrize(
    ("more", "cause"),
    [
        ({"groups": {"conv1": (0.3, 0.05), "fc": (0.5, 0.08)}}, "learning-rate-high"),
        ({"groups": {"conv1": (0.3, 2e-5), "fc": (0.5, 3e-5)}}, "learning-rate-low"),
        ({"noise": 0.15, "steps": 100_000}, "learning-rate-high"),
    ],
)
def test_why(makers, more, cause):
    assert plateau.check(stuck(makers, **more)).cause == cause


def test_what_helps_no_other_image_is_learnt_by_heart(makers):
    history = stuck(makers, val=makers.Scores(lambda t: 2.5, lambda t: 0.1))
    assert plateau.check(history).cause == "labels-shuffled"


def test_before_a_drop_that_is_to_come_it_is_a_note(makers):
    changes = {"optim.schedule": "step", "optim.drop_epochs": (9.0,)}
    assert plateau.check(stuck(makers, changes=changes, until=0.85)).severity == "note"


def test_a_drop_that_helped_makes_it_a_schedule(makers):
    history = makers.training(
        lambda t: (1.6 if t < 0.7 else 1.1) + 0.7 * math.exp(-30 * t), lr=lambda t: 0.1 if t < 0.7 else 0.01, top1=lambda t: 0.5
    )
    assert plateau.check(history) is None


def test_nothing_left_to_learn_is_no_plateau(makers):
    assert plateau.check(makers.training(lambda t: 0.02 + 2 * math.exp(-20 * t), lr=lambda t: 0.1)) is None


def test_a_table(makers):
    history = makers.table_of(loss=lambda t: 1.6, top1=lambda t: 0.4, epochs=20)
    assert plateau.check(history).code == "plateau"


def test_silent_on_healthy_trainings(makers, healthy):
    found = makers.asked(plateau, healthy)
    assert found is None or found.severity == "note", found.sentence

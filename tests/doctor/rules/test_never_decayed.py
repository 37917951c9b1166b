"""A constant rate to the end."""

from __future__ import annotations

import math

import pytest

from striate.doctor.finding import NotJudged
from striate.doctor.rules import never_decayed


def wandering(makers, **more):
    val = makers.Scores(lambda t: 1.2, lambda t: 0.6 + 0.05 * min(1.0, 3 * t), 20, 2000)
    more = {"lr": lambda t: 0.1, "changes": {"optim.schedule": "constant"}, "val": val, **more}
    return makers.training(lambda t: 0.9 + 1.5 * math.exp(-12 * t), noise=0.1, steps=4000, **more)


def test_it_wanders(makers):
    found = never_decayed.check(wandering(makers))
    assert found.severity == "warning"
    assert found.cause == "schedule-never"
    assert found.remedies[0].changes == {"optim.schedule": "cosine"}


def test_a_table(makers):
    history = makers.table_of(
        loss=lambda t: 0.9 + 1.4 * math.exp(-15 * t), val_top1=lambda t: 0.6, lr=lambda t: 0.1, epochs=40, noise=0.03
    )
    assert never_decayed.check(history).cause == "schedule-never"


def test_with_drops_still_to_come_it_is_a_note(makers):
    changes = {"optim.schedule": "step", "optim.drop_epochs": (18.0,)}
    assert never_decayed.check(wandering(makers, changes=changes, until=0.85)).severity == "note"


def test_validation_that_gets_better_is_well(makers):
    val = makers.Scores(lambda t: 1.2, lambda t: 0.4 + 0.3 * t, 20, 2000)
    assert never_decayed.check(wandering(makers, val=val)) is None


def test_short_trainings_are_left_alone(makers):
    with pytest.raises(NotJudged, match="too few epochs"):
        never_decayed.check(wandering(makers, until=0.3))


def test_a_rate_that_falls_is_well(makers):
    assert never_decayed.check(wandering(makers, lr=lambda t: 0.1 * (1 - t))) is None


def test_silent_on_healthy_trainings(makers, healthy):
    assert makers.asked(never_decayed, healthy) is None


@pytest.mark.parametrize(("points", "fires"), [(0.06, True), (0.0, False)])
def test_validation_that_swings_to_the_end_at_a_constant_rate(makers, points, fires):
    """The loss still falls; accuracy goes up and down from one evaluation to the next, or rises steadily."""
    val = makers.Scores(lambda t: 1.0, lambda t: 0.5 + 0.25 * t + points * (-1) ** round(20 * t), 20, 2000)
    history = makers.training(
        lambda t: 2.0 - 1.0 * t, lr=lambda t: 0.05, changes={"optim.schedule": "constant"}, val=val, sample=val
    )
    found = never_decayed.check(history)
    assert (found is not None) == fires
    assert found is None or (found.cause == "schedule-never" and "swings" in found.sentence)


@pytest.mark.parametrize(("points", "fires"), [(0.06, True), (0.02, False)])
def test_swings_of_a_table_that_does_not_count_its_images(makers, points, fires):
    """Of 500 images an accuracy near 0.7 is known to 0.02: swings of 0.06 are more than that, those of 0.02 are not."""
    history = makers.table_of(
        loss=lambda t: 2.0 - 1.0 * t, val_top1=lambda t: 0.5 + 0.25 * t + points * (-1) ** round(24 * t), lr=lambda t: 0.05,
        epochs=24,
    )  # fmt: skip
    found = never_decayed.check(history)
    assert (found is not None) == fires
    assert found is None or (found.cause == "schedule-never" and "swings" in found.sentence)

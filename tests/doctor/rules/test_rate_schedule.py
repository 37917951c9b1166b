"""Fires on rates that fall too early, too late or hardly rise, before the first step; silent on published schedules."""

from __future__ import annotations

import pytest

from striate import recipe as recipes
from striate.doctor.finding import NotJudged
from striate.doctor.rules import rate_schedule
from tests.doctor import makers


def _check(epochs, per_epoch=10, **changes):
    recipe = makers.recipe(**changes)
    patient = makers.patient(makers.small(), batch=4, recipe=recipe, total_steps=epochs * per_epoch, steps_per_epoch=per_epoch)
    return rate_schedule.check(patient)


def test_drops_of_a_far_shorter_training():
    found = _check(90, optim__schedule="step", optim__drop_epochs=(1.0, 2.0))
    assert (found.cause, found.severity) == ("schedule-early", "warning")
    assert found.evidence["share of the training above a hundredth"] == pytest.approx(2 / 90, abs=0.006)
    assert found.evidence["mean rate over the peak"] == pytest.approx((1 + 0.1 + 88 * 0.01) / 90, rel=0.2)
    assert found.remedies[0].changes == {"optim.schedule": "cosine"}
    assert len(found.curve.x) == len(found.curve.lines["rate"]) and found.curve.lines["rate"][0] == 1.0


def test_a_decay_for_each_step_that_was_meant_for_each_epoch():
    found = _check(30, optim__schedule="exponential", optim__decay_factor=0.9, optim__decay_epochs=0.1)
    assert found.cause == "schedule-early" and found.evidence["mean rate over the peak"] < 0.05


def test_drops_that_never_come():
    found = _check(20, optim__schedule="step", optim__drop_epochs=(60.0, 30.0))
    assert (found.cause, found.severity) == ("schedule-never", "warning")
    assert "after 30" in found.sentence


@pytest.mark.parametrize(("epochs", "severity"), [(10, "note"), (9, None)])
def test_a_constant_rate_is_a_note_in_ten_epochs_and_more(epochs, severity):
    found = _check(epochs, optim__schedule="constant")
    assert (found and found.severity) == severity
    assert found is None or found.cause == "schedule-never"


def test_a_warm_up_that_takes_the_whole_training():
    found = _check(4, optim__warmup_epochs=5.0)
    assert (found.cause, found.severity) == ("learning-rate-low", "warning")
    assert "100% of a training of 4 epochs" in found.sentence
    assert recipes.change(recipes.Recipe(), dict(found.remedies[0].changes)).optim.warmup_epochs == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("epochs", "changes"),
    [
        (90, {"optim__schedule": "step", "optim__drop_epochs": (30.0, 60.0, 80.0)}),
        (200, {"optim__schedule": "step", "optim__drop_epochs": (60.0, 120.0, 160.0), "optim__drop_factor": 0.2}),
        (30, {}),
        (3, {}),
        (300, {"optim__warmup_epochs": 5.0}),
        (4, {"optim__warmup_epochs": 2.0}),
        (100, {"optim__schedule": "exponential"}),
        (60, {"optim__schedule": "polynomial", "optim__power": 2.0}),
        (30, {"optim__schedule": "plateau"}),
        (70, {"optim__schedule": "cosine-restarts"}),
        (30, {"optim__schedule": "cosine-cycles"}),
        (40, {"optim__schedule": "constant", "optim__swa_from": 0.75}),
    ],
    ids=["step", "wide resnet", "cosine", "short", "long", "warm-up", "exponential", "polynomial", "plateau", "restarts",
         "cycles", "averaged"],
)  # fmt: skip
def test_silent_for_published_ones(epochs, changes):
    assert _check(epochs, **changes) is None


def test_nothing_to_judge_by():
    with pytest.raises(NotJudged, match="no recipe"):
        rate_schedule.check(makers.patient(makers.small(), batch=4))
    with pytest.raises(NotJudged):
        rate_schedule.check(makers.patient(makers.small(), batch=4, recipe=makers.recipe(), steps_per_epoch=10))

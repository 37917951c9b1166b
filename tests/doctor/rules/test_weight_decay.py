from __future__ import annotations

import pytest
import torch

from striate.doctor.finding import NotJudged
from striate.doctor.rules import weight_decay
from tests.doctor import makers


@pytest.mark.parametrize(
    "make",
    [
        lambda model: makers.sgd(model, 0.1, weight_decay=0.5),
        lambda model: torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=30.0),
        lambda model: torch.optim.Adam(model.parameters(), 1e-2, weight_decay=10.0),
    ],
    ids=["sgd", "adamw", "adam"],
)
def test_decay_that_forgets_within_steps(make):
    model = makers.small()
    found = weight_decay.check(makers.patient(model, optimizer=make(model)))
    assert found.cause == "weight-decay-high" and found.evidence["steps to a third"] < 150


def test_the_time_by_hand_and_the_override():
    recipe = makers.recipe(model__name="resnet20", optim__lr=0.1, optim__weight_decay=0.5)
    found = weight_decay.check(makers.patient(makers.network("resnet20"), recipe=recipe, total_steps=1000))
    assert found.evidence["steps to a third"] == pytest.approx((1 - 0.9) / (0.1 * 0.5))
    assert found.severity == "error"
    assert found.remedies[0].changes["optim.weight_decay"] == pytest.approx(0.5 * 2 / 5000, rel=0.5)


@pytest.mark.parametrize(
    "make",
    [
        lambda model: makers.sgd(model, 0.1, weight_decay=5e-4),
        lambda model: torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.05),
        lambda model: torch.optim.Adam(model.parameters(), 1e-3),
    ],
    ids=["sgd", "adamw", "none"],
)
def test_silent_for_usual_decay(make):
    model = makers.small()
    assert weight_decay.check(makers.patient(model, optimizer=make(model))) is None


def test_silent_for_the_reports_l2():
    recipe = makers.recipe(model__name="kth-e", loss__l2=1e-3, loss__l2_layers=["fc1"], optim__name="adam", optim__lr=0.01)
    assert weight_decay.check(makers.patient(makers.network("kth-e", size_px=32), 32, batch=8, recipe=recipe)) is None


def test_nothing_to_judge_by():
    with pytest.raises(NotJudged):
        weight_decay.check(makers.patient(makers.small()))


@pytest.mark.parametrize(("rate", "decay", "cause"), [(0.05, 0.01, "learning-rate-high"), (1e-3, 30.0, "weight-decay-high")])
def test_rmsprop_is_judged_by_the_usual_rate_of_adams_kin(rate, decay, cause):
    """0.05 is half of SGD's usual rate and 50 times RMSprop's; a decay of 0.01 is 20 times the usual one."""
    model = makers.small()
    patient = makers.patient(model, optimizer=torch.optim.RMSprop(model.parameters(), rate, weight_decay=decay))
    for weight in patient.signals.weights:
        object.__setattr__(weight, "gradient", 0.01 * decay * weight.scale)  # the decay outweighs it
    found = weight_decay.check(patient)
    assert found.cause == cause
    assert found.remedies[0].advice.startswith("Take a learning rate of about 0.0005" if rate > 0.01 else "Take a weight decay")

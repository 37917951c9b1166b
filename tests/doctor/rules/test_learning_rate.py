from __future__ import annotations

import math

import pytest
import torch

from striate.doctor.finding import NotJudged
from striate.doctor.rules import learning_rate
from tests.doctor import makers


def test_a_rate_that_bursts():
    model = makers.small()
    found = learning_rate.check(makers.patient(model, optimizer=makers.sgd(model, 300.0)))
    assert found.cause == "learning-rate-high" and found.severity == "error"
    assert found.curve.mark == (300.0, "the recipe's") and found.curve.is_log_x
    assert "300" in found.evidence["loss by rate"]


def test_a_rate_at_which_nothing_moves():
    model = makers.small()
    found = learning_rate.check(makers.patient(model, optimizer=makers.sgd(model, 1e-8)))
    assert found.cause == "learning-rate-low"


def test_a_recipe_gets_the_better_rate_as_an_override():
    recipe = makers.recipe(model__name="resnet20", optim__lr=500.0, optim__batch_size=32)
    found = learning_rate.check(makers.patient(makers.network("resnet20"), recipe=recipe, total_steps=100, steps_per_epoch=10))
    changes = found.remedies[0].changes
    assert changes["optim.lr"] < 500.0 and changes["optim.warmup_epochs"] == 1.0


@pytest.mark.parametrize(
    "make",
    [lambda model: makers.sgd(model, 0.05), lambda model: torch.optim.AdamW(model.parameters(), 1e-3)],
    ids=["sgd", "adamw"],
)
def test_silent_at_a_usual_rate(make):
    model = makers.small()
    assert learning_rate.check(makers.patient(model, optimizer=make(model))) is None


def test_silent_for_resnet18_with_momentum_at_a_tenth_although_its_loss_rises_at_first():
    model = makers.network("resnet18")
    assert learning_rate.check(makers.patient(model, optimizer=makers.sgd(model, 0.1))) is None


def test_a_warm_up_bears_a_higher_peak():
    recipe = makers.recipe(model__name="resnet20", optim__lr=0.4, optim__batch_size=32, optim__warmup_epochs=5.0)
    assert learning_rate.check(makers.patient(makers.network("resnet20"), recipe=recipe)) is None


def test_nothing_to_judge_by():
    with pytest.raises(NotJudged, match="no optimiser"):
        learning_rate.check(makers.patient(makers.small()))
    model = makers.small()
    hurried = makers.patient(model, optimizer=makers.sgd(model, 300.0), seconds=0.01)
    with pytest.raises(NotJudged, match="no time"):
        learning_rate.check(hurried)


def test_the_network_is_put_back():
    model = makers.small()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    patient = makers.patient(model, optimizer=makers.sgd(model, 1.0))
    assert math.isfinite(patient.rates.before)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not patient.optimizer.state


def test_sgds_rate_for_adam():
    model = makers.network("resnet20")
    patient = makers.patient(model, optimizer=torch.optim.AdamW(model.parameters(), 0.1))
    found = learning_rate.check(patient)
    assert found.cause == "learning-rate-high"

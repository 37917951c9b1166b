from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from striate.doctor import trials
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
    model = makers.network("resnet20", width=4)
    found = learning_rate.check(makers.patient(model, 16, batch=16, recipe=recipe, total_steps=100, steps_per_epoch=10))
    changes = found.remedies[0].changes
    assert changes["optim.lr"] < 500.0 and changes["optim.warmup_epochs"] == 1.0


@pytest.mark.parametrize(
    "make",
    [
        lambda model: makers.sgd(model, 0.05),
        lambda model: torch.optim.AdamW(model.parameters(), 1e-3),
        lambda model: torch.optim.Adam(model.parameters(), 1e-2),
    ],
    ids=["sgd", "adamw", "adam"],
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


def _plain():
    """Five convolutions without normalisation."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, 4, 1), nn.ReLU()]
    for _ in range(4):
        layers += [nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, 12)).train()


def test_a_rate_of_leaps_is_told_by_a_duel_with_a_tenth_of_it():
    """Ten steps of Adam at 0.05 lower the loss; sixty show that it gets nowhere, and 0.005 does."""
    model = _plain()
    patient = makers.patient(model, batch=8, optimizer=torch.optim.Adam(model.parameters(), 0.05))
    patient.train = lambda: (makers.images(8, seed=number) for number in range(24))
    found = learning_rate.check(patient)
    assert (found.cause, found.severity) == ("learning-rate-high", "error")
    assert "after 60 steps" in found.sentence and "10 times lower" in found.sentence
    here, tenth = patient.rates.duel
    assert tenth < 0.5 < here


def _with_curve(losses, duel=None, **recipe):
    """A patient whose rates were tried already: loss by rate, from 2.5, at a rate of 0.01."""
    model = makers.small()
    kind = {"recipe": makers.recipe(**recipe)} if recipe else {"optimizer": makers.sgd(model, 0.01)}
    patient = makers.patient(model, batch=8, **kind)
    patient.rates = trials.RateCurve(0.01, tuple(losses), tuple(losses.values()), 2.5, 10, duel)
    return patient


@pytest.mark.parametrize(
    ("duel", "fires"), [((2.4, 2.2), True), ((2.4, 2.35), False), ((1.5, 0.4), True), ((1.0, 0.01), False), ((0.4, 2.4), False)]
)
def test_a_duel_is_won_by_twice_the_fall(duel, fires):
    found = learning_rate.check(_with_curve({1e-3: 2.2, 1e-2: 2.45, 0.1: 9.0}, duel))
    assert (found is not None) == fires
    assert found is None or (found.cause == "learning-rate-high" and f"gives {duel[1]:.3g}" in found.sentence)


def test_a_warm_up_is_not_judged_by_a_duel_at_its_peak():
    losses = {1e-3: 2.2, 1e-2: 2.45, 0.1: 9.0}
    assert learning_rate.check(_with_curve(losses, (2.4, 1.0), optim__lr=0.01, optim__warmup_epochs=1.0)) is None


@pytest.mark.parametrize(
    ("here", "there", "severity"),
    [(2.49, 2.3, "warning"), (2.46, 2.25, "note"), (2.46, 2.27, None), (2.39, 0.5, None)],
    ids=["stands still", "a sixth of another", "not so far", "learns"],
)
def test_a_rate_that_moves_the_loss_little_is_a_note(here, there, severity):
    found = learning_rate.check(_with_curve({1e-3: 2.499, 1e-2: here, 0.1: 2.45, 1.0: there}))
    assert (found and found.severity) == severity
    assert found is None or found.cause == "learning-rate-low"

"""Updates far too large or far too small for the weights."""

from __future__ import annotations

import pytest

from striate.doctor.rules import update_ratio


def chance(makers, **more):
    return makers.training(lambda t: 2.3, **{"noise": 0.01, "top1": lambda t: 0.1, **more})


@pytest.mark.parametrize(
    "groups",
    [
        {"conv1": (0.3, 0.8), "layer1": (0.1, 0.7), "fc": (0.5, 1.4)},
        {"conv1": (0.3, 0.02), "layer1": (0.1, 0.02), "fc": (0.5, 3.0)},
        {"conv1": (0.3, 0.2), "layer1": (0.1, 0.15), "fc": (0.5, 0.3)},
    ],
    ids=["all", "the head alone", "all by a little"],
)
def test_too_large(makers, groups):
    found = update_ratio.check(chance(makers, groups=groups))
    assert found.severity == "warning"
    assert found.cause == "learning-rate-high"
    assert 0 < found.remedies[0].changes["optim.lr"] < 0.1


def test_too_small(makers):
    groups = {"conv1": (0.3, 3e-6), "fc": (0.5, 8e-6)}
    found = update_ratio.check(chance(makers, groups=groups, changes={"optim.lr": 1e-5}))
    assert found.cause == "learning-rate-low"
    assert found.remedies[0].changes["optim.lr"] == pytest.approx(3e-4)


def test_small_because_no_gradient_arrives(makers):
    groups = {"conv1": (1e-9, 1e-9), "layer1": (1e-9, 1e-9), "fc": (0.5, 1e-3)}
    assert update_ratio.check(chance(makers, groups=groups)).cause == "initialisation"


def test_large_because_of_weight_decay(makers):
    groups = {"conv1": (0.3, 0.3), "fc": (0.5, 0.3)}
    found = update_ratio.check(chance(makers, groups=groups, changes={"optim.weight_decay": 0.5}))
    assert found.cause == "weight-decay-high"
    assert found.remedies[0].changes == {"optim.weight_decay": 0.005}


def test_what_the_loss_does_not_mind_is_a_note(makers):
    groups = {"conv1": (0.3, 0.8), "fc": (0.5, 1.4)}
    assert update_ratio.check(makers.training(makers.falling(2.4, 0.2), groups=groups)).severity == "note"


def test_normalisation_is_left_out(makers):
    groups = {**makers.GROUPS, "bn1": (0.1, 3.0)}
    assert update_ratio.check(makers.training(makers.falling(2.4, 0.3), groups=groups)) is None


def test_silent_on_healthy_trainings(makers, healthy):
    found = makers.asked(update_ratio, healthy)
    assert found is None or found.severity == "note", found.sentence

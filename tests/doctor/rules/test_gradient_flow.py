"""Gradients that vanish or burst, by depth and over time."""

from __future__ import annotations

import pytest

from striate.doctor.rules import gradient_flow
from striate.run.log import Record

DEAD = {
    "conv1": {"weight": 10.0, "gradient": 0.0, "update": 0.0},
    "fc": {"weight": 10.0, "gradient": 0.1, "update": 0.01},
}


def chance(makers, **more):
    return makers.training(lambda t: 2.3, **{"noise": 0.01, "top1": lambda t: 0.1, **more})


@pytest.mark.parametrize(
    ("model", "cause"), [("vgg16", "initialisation"), ("se-googlenet-paths", "gates"), ("resnet18", "initialisation")]
)
def test_lost_from_the_first_step_on(makers, model, cause):
    groups = {"conv1": (1e-8, 1e-9), "conv2": (1e-5, 1e-6), "fc": (0.4, 0.01)}
    found = gradient_flow.check(chance(makers, groups=groups, changes={"model.name": model}))
    assert found.severity == "error"
    assert found.cause == cause
    assert found.layer == "conv1"
    assert found.curve.is_log


def test_lost_on_the_way(makers):
    history = chance(makers)
    for row in range(5):
        history.observe(Record("step", 2100 + row, {"gradient_norm": 0.1, "loss": 2.3, "losses": {"main": 2.3}, "norms": DEAD}))
    found = gradient_flow.check(history)
    assert found.cause == "learning-rate-high"
    assert "at first" in found.sentence


def test_burst(makers):
    history = chance(makers)
    for row in range(5):
        history.observe(Record("step", 2100 + row, {"gradient_norm": 1e6, "loss": 3.0, "losses": {"main": 3.0}}))
    assert "grew" in gradient_flow.check(history).sentence


def test_small_gradients_of_a_learnt_network_are_as_they_should_be(makers):
    history = makers.training(makers.falling(2.4, 0.001, 9))
    for row in range(5):
        history.observe(
            Record("step", 2100 + row, {"gradient_norm": 1e-7, "loss": 0.001, "losses": {"main": 0.001}, "norms": DEAD})
        )
    assert gradient_flow.check(history) is None


def test_silent_on_healthy_trainings(makers, healthy):
    assert makers.asked(gradient_flow, healthy) is None

from __future__ import annotations

import pytest
from torch import nn

from striate.doctor.rules import dead_units
from tests.doctor import makers


def test_biases_that_close_every_relu():
    model = makers.network("alexnet-one-tower")
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.constant_(layer.bias, -5.0)
    found = dead_units.check(makers.patient(model, 64, batch=8))
    assert found.cause == "dead-units" and found.severity == "error" and found.layer == "features.1"


@pytest.mark.parametrize("kind", [nn.Sigmoid, nn.Tanh])
def test_units_at_their_limits(kind):
    model = nn.Sequential(nn.Conv2d(3, 16, 3), kind(), nn.Conv2d(16, 16, 3), kind(), nn.Flatten(), nn.Linear(16 * 28 * 28, 12))
    nn.init.normal_(model[0].weight, std=5.0)
    found = dead_units.check(makers.patient(model))
    assert found.code == "saturated-units" and found.cause == "saturated-units" and found.layer == "1"


@pytest.mark.parametrize("name", ["alexnet", "vgg16-bn", "resnet18", "se-googlenet-bn-paths", "googlenet"])
def test_silent_for_networks_as_their_papers_start_them(name):
    assert dead_units.check(makers.patient(makers.network(name), 64, batch=16)) is None


def test_units_that_are_positive_in_a_few_places_only():
    """Batch norms whose shift is four deviations below zero: each channel is positive somewhere, and hardly anywhere."""
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 30 * 30, 12)).train()
    nn.init.constant_(model[1].bias, -4.0)
    found = dead_units.check(makers.patient(model))
    assert found is not None and found.cause == "dead-units" and found.layer == "2"


def test_the_inner_layers_of_any_gate_may_rest():
    class Gate(nn.Module):
        def __init__(self):
            super().__init__()
            inner = nn.Conv2d(16, 8, 1)
            nn.init.constant_(inner.bias, -9.0)
            self.inner = nn.Sequential(nn.AdaptiveAvgPool2d(1), inner, nn.ReLU(), nn.Conv2d(8, 16, 1), nn.Sigmoid())

        def forward(self, x):
            return x * self.inner(x)

    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), Gate(), nn.Flatten(), nn.Linear(16 * 30 * 30, 12)).train()
    assert dead_units.check(makers.patient(model)) is None


@pytest.mark.parametrize("name", ["resnet20", "resnet18-a"])
def test_branches_that_start_at_zero_leave_no_channel_without_gradient(name):
    """A shortcut that pads zeros, and a branch that is zero, would be zero for good: those channels start at 1."""
    model = makers.network(name, zero_gamma=True)
    patient = makers.patient(model)
    assert dead_units.check(patient) is None
    gradients = {one.name: one.gradient for one in patient.signals.weights}
    assert all(gradient for name, gradient in gradients.items() if name.endswith("bn2.weight"))

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

from __future__ import annotations

import pytest
import torch
from torch import nn

from striate.doctor.rules import vanishing_gradient
from tests.doctor import makers


def sigmoids(depth=10):
    layers = [nn.Conv2d(3, 16, 3, padding=1), nn.Sigmoid()]
    for _ in range(depth):
        layers += [nn.Conv2d(16, 16, 3, padding=1), nn.Sigmoid()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 12))


def test_sigmoids_in_a_row():
    found = vanishing_gradient.check(makers.patient(sigmoids()))
    assert found.code == "vanishing-gradient" and found.severity == "error"
    assert {"initialisation", "saturated-units"} <= {cause.name for cause in found.causes}
    assert found.layer is not None and found.curve.is_log


def test_an_exploding_one():
    torchs = [nn.Conv2d(3, 32, 3, padding=1)] + [nn.Conv2d(32, 32, 3, padding=1) for _ in range(12)]
    for layer in torchs:
        nn.init.kaiming_normal_(layer.weight)
        layer.weight.data *= 1.9
    model = nn.Sequential(*torchs, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 12))
    nn.init.normal_(model[-1].weight, std=1.0)
    assert vanishing_gradient.check(makers.patient(model)).code == "exploding-gradient"


@pytest.mark.parametrize("name", ["alexnet", "zfnet", "plain34", "googlenet", "se-resnet50"])
def test_silent_for_networks_as_their_papers_start_them(name):
    assert vanishing_gradient.check(makers.patient(makers.network(name), 64, batch=8)) is None


def test_silent_for_blocks_that_begin_as_nothing():
    assert vanishing_gradient.check(makers.patient(makers.network("resnet18", init="zero-gamma"))) is None


def test_silent_for_a_network_of_three_layers():
    assert vanishing_gradient.check(makers.patient(makers.small())) is None


class Scaled(nn.Module):
    """Residual blocks behind a factor that begins at a hundred-thousandth."""

    def __init__(self, depth=8):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.blocks = nn.ModuleList(nn.Conv2d(16, 16, 3, padding=1) for _ in range(depth))
        self.gammas = nn.ParameterList(nn.Parameter(torch.full((16, 1, 1), 1e-5)) for _ in range(depth))
        self.fc = nn.Linear(16, 12)

    def forward(self, x):
        x = self.stem(x)
        for block, gamma in zip(self.blocks, self.gammas, strict=True):
            x = x + gamma * block(x).relu()
        return self.fc(x.mean((2, 3)))


def test_silent_for_layer_scale():
    assert vanishing_gradient.check(makers.patient(Scaled())) is None

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from striate.taps import taps
from striate.train.vitals import DeadUnits, Vitals, groups, norm, peak_memory_bytes


def test_norms_by_hand() -> None:
    model = nn.Sequential()
    model.add_module("fc1", nn.Linear(2, 1, bias=False))
    model.add_module("fc2", nn.Linear(1, 1))
    with torch.no_grad():
        model.fc1.weight.copy_(torch.tensor([[3.0, 4.0]]))
        model.fc2.weight.fill_(1.0)
        model.fc2.bias.fill_(0.0)
    model(torch.tensor([[1.0, 2.0]])).sum().backward()
    vitals = Vitals(model)
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    found = vitals.after()
    assert found["fc1"] == pytest.approx({"weight": 5.0, "gradient": math.sqrt(5), "update": 0.1 * math.sqrt(5)}, rel=1e-5)
    assert found["fc2"] == pytest.approx(
        {"weight": 1.0, "gradient": math.sqrt(11**2 + 1), "update": 0.1 * math.sqrt(122)}, rel=1e-5
    )


def test_norm_of_several_tensors_and_of_none() -> None:
    assert norm([torch.tensor([3.0]), torch.tensor([[4.0]])]) == pytest.approx(5.0)
    assert norm([]) == 0.0
    assert norm([torch.full((100_000,), 0.01, dtype=torch.bfloat16)]) == pytest.approx(math.sqrt(10), rel=0.01)


def test_groups_are_the_first_part_of_names_and_trainable() -> None:
    model = nn.ModuleDict({"layer1": nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1)), "fc": nn.Linear(1, 1)})
    model["fc"].weight.requires_grad_(False)
    assert {name: len(inner) for name, inner in groups(model).items()} == {"layer1": 4, "fc": 1}


def test_dead_share_of_channels() -> None:
    model = nn.Sequential()
    model.add_module("conv", nn.Conv2d(1, 4, 1))
    model.add_module("relu1", nn.ReLU())
    model.add_module("flat", nn.Flatten())
    model.add_module("fc", nn.Linear(4 * 4, 2))
    model.add_module("relu2", nn.ReLU())
    with torch.no_grad():
        model.conv.weight.zero_()
        model.conv.bias.copy_(torch.tensor([1.0, -1.0, -1.0, -1.0]))
        model.fc.weight.zero_()
        model.fc.bias.copy_(torch.tensor([1.0, -1.0]))
    dead = DeadUnits()
    assert DeadUnits.layers(model) == ("relu1", "relu2")
    with taps(model, {name: dead.watch(name) for name in DeadUnits.layers(model)}):
        model(torch.zeros(3, 1, 2, 2))
    assert dead.shares == {"relu1": 0.75, "relu2": 0.5}
    assert not model.relu1._forward_hooks


def test_peak_memory_is_at_least_what_is_held() -> None:
    held = torch.zeros(10_000_000)
    assert peak_memory_bytes(torch.device("cpu")) > held.numel() * 4

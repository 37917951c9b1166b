from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from striate.errors import CheckpointError
from striate.train import optim

DEFAULTS: dict[str, Any] = {
    "lr": 0.05,
    "momentum": 0.9,
    "nesterov": False,
    "betas": (0.9, 0.99),
    "eps": 1e-8,
    "weight_decay": 0.1,
    "decay_all": True,
}


def _model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5))


def _train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, first: int = 0) -> None:
    for step in range(first, first + steps):
        images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), torch.arange(4)).backward()
        optimizer.step()


@pytest.mark.parametrize(
    ("name", "changes", "theirs"),
    [
        ("sgd", {}, lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.1)),
        ("sgd", {"nesterov": True}, lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.1, nesterov=True)),
        ("adam", {}, lambda p: torch.optim.Adam(p, lr=0.05, betas=(0.9, 0.99), weight_decay=0.1)),
        ("adamw", {}, lambda p: torch.optim.AdamW(p, lr=0.05, betas=(0.9, 0.99), weight_decay=0.1)),
    ],
)
def test_steps_are_torchs(name: Any, changes: dict[str, Any], theirs: Any) -> None:
    ours, reference = _model(), _model()
    _train(ours, optim.build(ours, name, **{**DEFAULTS, **changes}), 3)
    _train(reference, theirs(reference.parameters()), 3)
    for name_, tensor in reference.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name_], tensor)


def test_sgd_by_hand() -> None:
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, 2.0)
    optimizer = optim.build(layer, "sgd", **{**DEFAULTS, "lr": 0.5, "weight_decay": 0.1})
    for expected in (2.0 - 0.5 * (1 + 0.2), 1.4 - 0.5 * (0.9 * 1.2 + 1 + 0.14)):
        optimizer.zero_grad()
        layer(torch.ones(1, 1)).sum().backward()
        optimizer.step()
        assert layer.weight.item() == pytest.approx(expected)


def test_without_decay_all_biases_and_norms_are_spared() -> None:
    model = _model()
    names = {parameter: name for name, parameter in model.named_parameters()}
    optimizer = optim.build(model, "adamw", **{**DEFAULTS, "decay_all": False})
    found = {names[parameter]: group["weight_decay"] for group in optimizer.param_groups for parameter in group["params"]}
    assert found == {"0.weight": 0.1, "4.weight": 0.1, "0.bias": 0.0, "4.bias": 0.0, "1.weight": 0.0, "1.bias": 0.0}
    assert [group["weight_decay"] for group in optim.build(model, "sgd", **DEFAULTS).param_groups] == [0.1]


def test_set_rate_sets_every_group() -> None:
    optimizer = optim.build(_model(), "sgd", **{**DEFAULTS, "decay_all": False})
    optim.set_rate(optimizer, 0.7)
    assert [group["lr"] for group in optimizer.param_groups] == [0.7, 0.7]


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_state_goes_on_where_it_was(name: Any) -> None:
    model = _model().to(memory_format=torch.channels_last)
    optimizer = optim.build(model, name, **DEFAULTS)
    _train(model, optimizer, 2)
    saved = {key: value.clone() for key, value in optim.named_state(model, optimizer).items()}
    assert all("/" in key for key in saved)
    other = copy.deepcopy(model)
    restored = optim.build(other, name, **DEFAULTS)
    optim.restore_state(other, restored, saved, "here")
    _train(model, optimizer, 2, first=2)
    _train(other, restored, 2, first=2)
    for key, tensor in model.state_dict().items():
        assert torch.equal(other.state_dict()[key], tensor)
    assert optim.named_state(model, optimizer).keys() == optim.named_state(other, restored).keys()


def test_state_that_does_not_fit_is_refused() -> None:
    model = _model()
    optimizer = optim.build(model, "sgd", **DEFAULTS)
    _train(model, optimizer, 1)
    saved = optim.named_state(model, optimizer)
    for wrong, words in (
        ({**saved, "9.weight/momentum_buffer": torch.zeros(3)}, "'9.weight/momentum_buffer' .* fits no parameter"),
        ({**saved, "4.bias/momentum_buffer": torch.zeros(6)}, "'4.bias/momentum_buffer' .* fits no parameter"),
    ):
        with pytest.raises(CheckpointError, match=words):
            optim.restore_state(model, optim.build(model, "sgd", **DEFAULTS), wrong, "here")

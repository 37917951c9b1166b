"""Optimisers, and their state as named tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import nn

from striate.errors import CheckpointError, UserError
from striate.train import layers
from striate.train.lamb import Lamb
from striate.train.momentum import Momentum

Name = Literal["sgd", "sgd-alexnet", "rmsprop", "adam", "adamw", "lars", "lamb"]


def build(
    model: nn.Module,
    name: Name,
    *,
    lr: float,
    momentum: float,
    nesterov: bool,
    betas: tuple[float, float],
    eps: float,
    rms_decay: float,
    trust: float,
    weight_decay: float,
    decay_all: bool,
    rates: Mapping[str, float],
) -> torch.optim.Optimizer:
    """The optimiser over a model's trainable parameters.

    decay_all False: biases and the parameters of normalisation layers get no weight decay, and with lars and lamb no
    rate of their own either: their norms say little about the step they can take.
    rates: factor of the rate by parameter name, 1 for those that are not in it (`layers.rates`).
    rmsprop is torch's: eps is added to the root of the mean square, and the rate multiplies the momentum. TensorFlow
    adds eps under the root and lets the mean square start at 1, so that an eps of 1 means another thing there.
    Raises UserError for Nesterov's momentum with another optimiser than sgd.
    Source of the split: He et al. 2019, "Bag of Tricks", section 3.1; for lars and lamb it is timm's rule.
    """
    if nesterov and name != "sgd":
        raise UserError(f"optim.nesterov is a form of sgd's momentum and does nothing for {name}: add --optim.no-nesterov.")
    parts = _parts(model, set() if decay_all else _spared(model), rates)
    groups: list[dict[str, Any]] = [
        {"params": parameters, "weight_decay": 0.0 if is_spared else weight_decay, "scale": scale, "lr": lr * scale}
        | ({"trust": None if is_spared or name == "sgd-alexnet" else trust} if name in ("lars", "sgd-alexnet") else {})
        | ({"adapted": not is_spared} if name == "lamb" else {})
        for (is_spared, scale), parameters in parts.items()
    ]
    if name in ("lars", "sgd-alexnet"):
        return Momentum(groups, lr=lr, momentum=momentum)
    if name == "lamb":
        return Lamb(groups, lr=lr, betas=betas, eps=eps)
    if name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov)
    if name == "rmsprop":
        return torch.optim.RMSprop(groups, lr=lr, alpha=rms_decay, eps=eps, momentum=momentum)
    kind = torch.optim.Adam if name == "adam" else torch.optim.AdamW
    return kind(groups, lr=lr, betas=betas, eps=eps)


def _parts(
    model: nn.Module, spared: set[nn.Parameter], rates: Mapping[str, float]
) -> dict[tuple[bool, float], list[nn.Parameter]]:
    """What trains, by whether it is spared and by its factor of the rate: first what decays, then what is spared."""
    found: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            found.setdefault((parameter in spared, rates.get(name, 1.0)), []).append(parameter)
    return dict(sorted(found.items(), key=lambda part: part[0][0]))


def _spared(model: nn.Module) -> set[nn.Parameter]:
    """Biases and all parameters of normalisation layers."""
    found = {parameter for name, parameter in model.named_parameters() if name.endswith("bias")}
    for module in model.modules():
        if isinstance(module, layers.NORMS):
            found |= set(module.parameters(recurse=False))
    return found


def set_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Sets the learning rate of every group: lr times its own factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["scale"]


def named_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimiser's state as {"PARAMETER/ENTRY": tensor}, by name, so that no order is relied on."""
    names: dict[torch.Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    return {
        f"{names[parameter]}/{entry}": torch.as_tensor(value)
        for parameter, state in optimizer.state.items()
        for entry, value in state.items()
        if value is not None
    }


def restore_state(model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, torch.Tensor], where: str) -> None:
    """Puts named state back, in each parameter's own device and memory order.

    Raises CheckpointError for an entry that belongs to no parameter or has another shape. (That none is missing is
    for the caller to count: a parameter that never had a gradient has none.)
    """
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    for key, value in state.items():
        name, _, entry = key.rpartition("/")
        parameter = parameters.get(name)
        if parameter is None or (value.dim() > 0 and value.shape != parameter.shape):
            raise CheckpointError(f"{where}: the optimiser's '{key}' {list(value.shape)} fits no parameter of this network.")
        if value.dim() > 0:
            value = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        optimizer.state[parameter][entry] = value

"""Vital signs of a training: norms of weights, gradients and updates by layer group, and dead units."""

from __future__ import annotations

import resource
import sys
from typing import Any

import torch
from torch import nn

from striate.taps import Tap, layer_names


def groups(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Trainable parameters by layer group: the first part of their name (conv1, layer1, …)."""
    found: dict[str, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            found.setdefault(name.partition(".")[0], []).append(parameter)
    return found


def norm(tensors: list[torch.Tensor]) -> float:
    """Euclidean norm of all numbers in all tensors."""
    if not tensors:
        return 0.0
    return float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm([tensor.float() for tensor in tensors]))))


class Vitals:
    """Norms around one optimiser step. Copies the weights before it, so it is made only for steps that are logged."""

    def __init__(self, model: nn.Module) -> None:
        self._groups = groups(model)
        self._before = {name: [parameter.detach().clone() for parameter in inner] for name, inner in self._groups.items()}
        self._gradients = {
            name: norm([parameter.grad for parameter in inner if parameter.grad is not None])
            for name, inner in self._groups.items()
        }

    def after(self) -> dict[str, dict[str, float]]:
        """Call after the step. Returns {group: {weight, gradient, update}} as Euclidean norms."""
        result = {}
        for name, inner in self._groups.items():
            moved = torch._foreach_sub([parameter.detach() for parameter in inner], self._before[name])
            result[name] = {
                "weight": norm(self._before[name]),
                "gradient": self._gradients[name],
                "update": norm(list(moved)),
            }
        return result


class DeadUnits:
    """Share of channels that a ReLU sends out as zero for the whole batch."""

    def __init__(self) -> None:
        self.shares: dict[str, float] = {}

    def watch(self, name: str) -> Tap:
        """The function for `taps` at the ReLU layer `name`; outputs are [B, C] or [B, C, …]."""

        @torch.no_grad()
        def look(_layer: nn.Module, _inputs: tuple[Any, ...], output: torch.Tensor) -> None:
            others = [axis for axis in range(output.dim()) if axis != 1]
            self.shares[name] = 1.0 - float((output.amax(dim=others) > 0).float().mean())

        return look

    @staticmethod
    def layers(model: nn.Module) -> tuple[str, ...]:
        """Names of the ReLU layers of a model."""
        return layer_names(model, (nn.ReLU, nn.ReLU6))


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory held so far: on a GPU that of torch's allocator, else the process's resident set."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

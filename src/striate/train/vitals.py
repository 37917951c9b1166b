"""Vital signs of a training: norms of weights, gradients and updates by layer group, and dead units."""

from __future__ import annotations

import resource
import sys

import torch
from torch import nn


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
    """Share of channels that a ReLU sends out as zero for the whole batch. A hook for `taps`."""

    def __init__(self) -> None:
        self.shares: dict[str, float] = {}

    def watch(self, name: str):  # type: ignore[no-untyped-def]  # the hook's type is torch's
        """The forward hook for the layer `name`."""

        def hook(_module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
            with torch.no_grad():
                channels_last = output.dim() == 4
                alive = (
                    (output > 0).any(dim=0)
                    if output.dim() == 2
                    else (output.amax(dim=(0, 2, 3)) > 0 if channels_last else output.flatten(2).amax(dim=(0, 2)) > 0)
                )
                self.shares[name] = 1.0 - float(alive.float().mean())

        return hook

    @staticmethod
    def layers(model: nn.Module) -> list[str]:
        """Names of the ReLU layers of a model."""
        return [name for name, module in model.named_modules() if isinstance(module, (nn.ReLU, nn.ReLU6))]


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory held so far: on a GPU that of torch's allocator, else the process's resident set."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

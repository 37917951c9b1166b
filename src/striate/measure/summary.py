"""A network's size as the package torchsummary prints it, which many papers and notebooks copy.

Its rule is not ours: the outputs of every module but the containers Sequential and ModuleList and the network itself, so
that a block of one's own counts beside the layers in it; in training mode, so auxiliary heads count; twice, for the
backward pass; four bytes a number; and MB are MiB. A layer that is used again counts again, with its parameters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from striate.models import sizes
from striate.taps import taps

_MIB = 2**20


@dataclass(frozen=True)
class Summary:
    """The numbers at the foot of torchsummary's table; the sizes in MiB, which it calls MB."""

    parameters: int
    input_mib: float
    passes_mib: float
    parameters_mib: float

    @property
    def total_mib(self) -> float:
        """What it calls the estimated total size."""
        return self.input_mib + self.passes_mib + self.parameters_mib


def summary(model: nn.Module, size_px: int, channels: int = 3) -> Summary:
    """The summary of a network for one image of size_px x size_px pixels.

    Raises what the network raises where a training step cannot take the input.
    """
    numbers = parameters = 0

    def look(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal numbers, parameters
        tensors = output if isinstance(output, (tuple, list)) else [output]
        numbers += sum(math.prod(tensor.shape[1:]) for tensor in tensors if isinstance(tensor, torch.Tensor))
        own = (getattr(layer, "weight", None), getattr(layer, "bias", None))
        parameters += sum(weight.numel() for weight in own if isinstance(weight, torch.Tensor))

    containers = (nn.Sequential, nn.ModuleList)
    layers = {name: look for name, layer in model.named_modules() if name and not isinstance(layer, containers)}
    with taps(model, layers):
        sizes.outline(model, sizes.blank(model, size_px, channels, batch=2), training=True)
    return Summary(parameters, channels * size_px**2 * 4 / _MIB, 2 * numbers * 4 / _MIB, parameters * 4 / _MIB)

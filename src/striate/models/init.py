"""Initial weights as the papers and their frameworks draw them."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import nn

# What `init` of a network can be; paper: what its builder does.
Name = Literal["paper", "glorot", "he", "uniform"]

# Standard deviation of a unit normal distribution cut at two standard deviations.
_TRUNCATED_STD = 0.87962566103423978


def he_normal_fan_out(model: nn.Module) -> None:
    """Convolutions normal with variance 2 / (kernel area x output channels), batch norms the identity.

    Linear layers keep torch's own start (uniform, +-1/sqrt(inputs)), as in torchvision's ResNet.
    Source: He et al. 2015 (rectifiers), section 2.2, equation 14; torchvision models/resnet.py.
    """
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)


def he_normal_truncated(model: nn.Module) -> None:
    """Convolutions and linear layers normal with variance 2 / inputs, cut at two standard deviations; biases 0.

    What Keras calls he_normal. The cut lowers the deviation, so the uncut one is widened to end at sqrt(2 / inputs);
    Keras before 2.2.3 did not widen and gave 0.88 of it.
    Source: He et al. 2015 (rectifiers), section 2.2, equation 10; Keras initializers, VarianceScaling.
    """
    for layer in model.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            inputs = layer.weight[0].numel()
            std = math.sqrt(2 / inputs) / _TRUNCATED_STD
            nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
            _zero_bias(layer)


def glorot_uniform(model: nn.Module) -> None:
    """Convolutions and linear layers uniform with variance 2 / (inputs + outputs); biases 0. Keras' default.

    Source: Glorot and Bengio 2010, section 4.2.1, equation 16.
    """
    for layer in model.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.xavier_uniform_(layer.weight)
            _zero_bias(layer)


def uniform(model: nn.Module, bound: float) -> None:
    """Convolutions and linear layers uniform in -bound..bound, whatever their size; biases 0."""
    for layer in model.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.uniform_(layer.weight, -bound, bound)
            _zero_bias(layer)


def _zero_bias(layer: nn.Conv2d | nn.Linear) -> None:
    bias: torch.Tensor | None = layer.bias
    if bias is not None:
        nn.init.zeros_(bias)


def apply(model: nn.Module, name: str) -> None:
    """Draws the weights of convolutions and linear layers again; "paper" leaves them as the network's builder drew them."""
    if name == "glorot":
        glorot_uniform(model)
    elif name == "he":
        he_normal_truncated(model)
    elif name == "uniform":
        uniform(model, 0.05)

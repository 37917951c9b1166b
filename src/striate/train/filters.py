"""Convolution filters kept from growing, as ZFNet's authors found them to do in the first layer."""

from __future__ import annotations

import math

import torch
from torch import nn


@torch.no_grad()
def limit_rms(model: nn.Module, most: float) -> None:
    """Scales filters of convolutions whose root mean square is more than `most` down to it; the others keep their bits.

    A filter is all that one output channel sees: 7x7x3 numbers in ZFNet's first layer. Layers that are not trained stay.
    Source: Zeiler and Fergus 2014, section 3.1.
    """
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d) and layer.weight.requires_grad:
            norms = torch.linalg.vector_norm(layer.weight, dim=(1, 2, 3), keepdim=True)
            layer.weight.mul_((most * math.sqrt(layer.weight[0].numel()) / norms).clamp(max=1.0))

"""Six networks for Tiny ImageNet, A to F: a course report of KTH Stockholm (DD2424), tables 1 and 2.

A small VGG with kernels of 2x2, 2x1 and 1x2. The report used Keras, and leaves open what Keras decides; we take:
- `same` padding, which for an even kernel adds its row or column at the bottom and right only; the other of Keras' two, the
  option `padding valid`, has less than half the parameters;
- batch norm after the ReLU, as the tables are written, with Keras' constants;
- "RUI" (called random unit initialisation, defined nowhere) as Keras' random_uniform, -0.05..0.05 for every layer.
  Without batch norm (A, C) this starts as a constant function: logits of different images differ by some 1e-7, so it can
  hardly be what reached the reported 17 %. Keras' default for layers that name none, `--model.options.init glorot`, is the other
  reading. "He" is Keras' he_normal, which is cut at two deviations; the option `init he` draws it uncut.
The softmax of the tables is left to the loss. Which layers have L2 is the recipe's business: the third convolution
of each block and, in E, the hidden layers.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import nn
from torch.nn import functional

from striate.errors import UserError
from striate.models import init
from striate.models.blocks import check_share
from striate.models.entry import Entry

Padding = Literal["same", "valid"]

# Channels and kernels (height, width) of each block. Source: tables 1 and 2; the same in all six.
_BLOCKS = (
    (32, ((2, 2), (2, 1), (1, 2))),
    (48, ((2, 2), (2, 2), (2, 2))),
    (80, ((2, 2), (2, 2), (2, 2))),
)
# Keras' BatchNormalization: epsilon 1e-3, and a moving average that keeps 0.99, which torch writes as 0.01.
_BN_EPSILON = 1e-3
_BN_MOMENTUM = 0.01


class SameConv2d(nn.Conv2d):
    """Convolution of stride 1 whose output has the input's size; an even kernel pads at the bottom and right only.

    torch's padding="same" computes the same and warns at every even kernel.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """input: [B, C_in, H, W]. Returns [B, C_out, H, W]."""
        high, wide = self.kernel_size
        padded = functional.pad(input, (0, wide - 1, 0, high - 1))
        return functional.conv2d(padded, self.weight, self.bias)


class KTH(nn.Sequential):
    """Three blocks of three convolutions and a 2x2 max-pool, hidden linear layers, and the layer of the classes.

    Layers: block1.conv1 … block3.conv3 (with relu and bn of the same number, and pool), fc1, relu1, bn1 … and fc.
    Input [B, 3, size_px, size_px] normalised; returns logits [B, K].
    hidden: outputs of each hidden layer; dropout: share of the last hidden layer's outputs dropped, 0 for none.
    padding: same keeps a grid up to the pool, valid shrinks it by what a kernel exceeds 1. draw: draws the initial weights.
    Raises UserError for a size_px that leaves no grid, or with padding same is no multiple of 8, and for dropout not in 0..1.
    """

    def __init__(
        self,
        num_classes: int,
        size_px: int,
        hidden: Sequence[int],
        batch_norm: bool,
        dropout: float,
        padding: Padding,
        draw: Callable[[nn.Module], None],
    ) -> None:
        side = _last_side(size_px, padding)
        check_share("dropout", dropout)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        features = 3
        for number, (channels, kernels) in enumerate(_BLOCKS, start=1):
            layers[f"block{number}"] = _block(features, channels, kernels, padding, batch_norm)
            features = channels
        layers["flatten"] = nn.Flatten()
        features *= side**2
        for number, outputs in enumerate(hidden, start=1):
            layers[f"fc{number}"] = nn.Linear(features, outputs)
            layers[f"relu{number}"] = nn.ReLU()
            if batch_norm:
                layers[f"bn{number}"] = nn.BatchNorm1d(outputs, _BN_EPSILON, _BN_MOMENTUM)
            features = outputs
        if dropout:
            layers["dropout"] = nn.Dropout(dropout)
        layers["fc"] = nn.Linear(features, num_classes)
        super().__init__(layers)
        draw(self)


def _last_side(size_px: int, padding: Padding) -> int:
    """Side of the grid behind the third pool. Raises UserError for an input that does not give one."""
    if padding == "same":
        if size_px < 8 or size_px % 8:
            raise UserError(f"size_px: three 2x2 pools need an input side that is a multiple of 8, found {size_px}.")
        return size_px // 8
    side = size_px
    for _, kernels in _BLOCKS:
        side = (side - sum(high - 1 for high, _ in kernels)) // 2
    if side < 1:
        raise UserError(f"size_px: with padding valid the input side must be 28 or more, found {size_px}.")
    return side


def _block(
    in_channels: int, channels: int, kernels: Sequence[tuple[int, int]], padding: Padding, batch_norm: bool
) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    convolution = SameConv2d if padding == "same" else nn.Conv2d
    for number, kernel in enumerate(kernels, start=1):
        layers[f"conv{number}"] = convolution(in_channels, channels, kernel)
        layers[f"relu{number}"] = nn.ReLU()
        if batch_norm:
            layers[f"bn{number}"] = nn.BatchNorm2d(channels, _BN_EPSILON, _BN_MOMENTUM)
        in_channels = channels
    layers["pool"] = nn.MaxPool2d(2)
    return nn.Sequential(layers)


def kth_a(num_classes: int, size_px: int = 64, dropout: float = 0.0, padding: Padding = "same") -> KTH:
    """A: trained with SGD; no batch norm, no dropout. 10,993,704 parameters, 71.5 M MACs at 64 px, 200 classes."""
    return KTH(num_classes, size_px, (2048,), False, dropout, padding, init.uniform)


def kth_b(num_classes: int, size_px: int = 64, dropout: float = 0.0, padding: Padding = "same") -> KTH:
    """B: trained with Adam; batch norm. 10,998,760 parameters, 71.5 M MACs at 64 px, 200 classes."""
    return KTH(num_classes, size_px, (2048,), True, dropout, padding, init.uniform)


def kth_c(num_classes: int, size_px: int = 64, dropout: float = 0.3, padding: Padding = "same") -> KTH:
    """C: trained with Adam; A with dropout 0.3 after the hidden layer."""
    return KTH(num_classes, size_px, (2048,), False, dropout, padding, init.uniform)


def kth_d(num_classes: int, size_px: int = 64, dropout: float = 0.3, padding: Padding = "same") -> KTH:
    """D: trained with Adam, the report's best (29 % top-1); B with He's initialisation and dropout 0.3."""
    return KTH(num_classes, size_px, (2048,), True, dropout, padding, init.he_normal_truncated)


def kth_e(num_classes: int, size_px: int = 64, dropout: float = 0.0, padding: Padding = "same") -> KTH:
    """E: three hidden layers of 4,096, batch norm, L2. 55,479,272 parameters, 115.9 M MACs at 64 px, 200 classes."""
    return KTH(num_classes, size_px, (4096, 4096, 4096), True, dropout, padding, init.he_normal_truncated)


def kth_f(num_classes: int, size_px: int = 64, dropout: float = 0.0, padding: Padding = "same") -> KTH:
    """F: no hidden layer, batch norm, L2. 1,121,256 parameters, 61.6 M MACs at 64 px, 200 classes."""
    return KTH(num_classes, size_px, (), True, dropout, padding, init.he_normal_truncated)


_PAPER = "Skagerström, Price, Lindqvist 2018"

NETWORKS = {
    "kth-a": Entry(kth_a, _PAPER, 2018, 64, 200),
    "kth-b": Entry(kth_b, _PAPER, 2018, 64, 200),
    "kth-c": Entry(kth_c, _PAPER, 2018, 64, 200),
    "kth-d": Entry(kth_d, _PAPER, 2018, 64, 200),
    "kth-e": Entry(kth_e, _PAPER, 2018, 64, 200),
    "kth-f": Entry(kth_f, _PAPER, 2018, 64, 200),
}

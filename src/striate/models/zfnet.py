"""ZFNet: Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014, figure 3 and table 3.

AlexNet with smaller windows and strides in the first two layers, on one GPU. Two things are read out of the figure: 110 becomes
55 and 26 becomes 13 only where the pools round up, and the contrast normalisation across maps, whose constants the paper does not
give, is AlexNet's. Layer names are AlexNet's.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn

from striate.errors import UserError
from striate.models import init
from striate.models.alexnet import linear_layers
from striate.models.blocks import GridPool, LocalResponseNorm, at_least
from striate.models.entry import Entry

# Kernels, strides and paddings of the five convolutions. Source: figure 3.
_CONVOLUTIONS = ((7, 2, 1), (5, 2, 0), (3, 1, 1), (3, 1, 1), (3, 1, 1))


class ZFNet(nn.Sequential):
    """Five convolutions, pools behind 1, 2 and 5, normalisation behind the first two pools, and three linear layers.

    channels: of the five convolutions. hidden: outputs of fc6 and fc7. lrn: whether there is normalisation.
    """

    smallest_px = 47

    def __init__(self, num_classes: int, channels: Sequence[int], hidden: int, lrn: bool, dropout: float) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        seen = 3
        for number, (maps, (kernel, stride, padding)) in enumerate(zip(channels, _CONVOLUTIONS, strict=True), start=1):
            layers[f"conv{number}"] = nn.Conv2d(seen, maps, kernel, stride, padding)
            layers[f"relu{number}"] = nn.ReLU(inplace=True)
            if number in (1, 2, 5):
                layers[f"pool{number}"] = nn.MaxPool2d(3, 2, ceil_mode=True)
            if number in (1, 2) and lrn:
                layers[f"norm{number}"] = LocalResponseNorm(5, 1e-4, 0.75, 2.0)
            seen = maps
        layers["grid"] = GridPool(6)
        layers["flatten"] = nn.Flatten()
        layers.update(linear_layers(seen * 6 * 6, hidden, num_classes, dropout))
        super().__init__(layers)
        self.variant = "norm" if lrn else "no norm"
        init.gaussian(self)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """input: [B, 3, H, W] normalised. Returns logits [B, K]."""
        at_least(input, self.smallest_px, "zfnet")
        for layer in self:
            input = layer(input)
        return input


def zfnet(num_classes: int, lrn: bool = True, dropout: float = 0.5, width: int = 96) -> ZFNet:
    """ZFNet as in figure 3: 62,357,608 parameters and 1,168,032,896 MACs at 224 px with 1,000 classes.

    lrn: contrast normalisation across maps. dropout: share of the outputs of fc6 and fc7 dropped.
    width: channels of the first convolution, a multiple of 3; all layers but the classes' in proportion.
    Initial weights are normal with deviation 0.01, biases 0 (section 3.1).
    """
    return ZFNet(num_classes, _scaled((96, 256, 384, 384, 256), width), _scaled((4096,), width)[0], lrn, dropout)


def zfnet_b(num_classes: int, lrn: bool = True, dropout: float = 0.5, width: int = 96) -> ZFNet:
    """Model (b) of table 2, with 512, 1,024 and 512 maps in layers 3 to 5: 107,627,624 parameters, 2,476,704,896 MACs.

    Options as `zfnet`.
    """
    return ZFNet(num_classes, _scaled((96, 256, 512, 1024, 512), width), _scaled((4096,), width)[0], lrn, dropout)


def _scaled(channels: Sequence[int], width: int) -> list[int]:
    if width < 3 or width % 3:
        raise UserError(f"width: expected a multiple of 3, so that all layers are whole numbers, found {width}.")
    return [wide * width // 96 for wide in channels]


_PAPER = "Zeiler and Fergus 2014"

NETWORKS: dict[str, Entry] = {
    "zfnet": Entry(zfnet, _PAPER, 2013),
    "zfnet-b": Entry(zfnet_b, _PAPER, 2013),
}

"""ResNet-20 and -56 for CIFAR and their plain twins: He, Zhang, Ren, Sun, CVPR 2016, section 4.2.

6n + 2 layers: a 3x3 stem and three stages of 2n 3x3 convolutions, of 16, 32 and 64 channels on 32, 16 and 8 pixels. All
shortcuts are option A, so residual and plain networks have exactly the same weights; `variant` tells them apart. The lecture's
"deeper nets under-fit" is plain56 against plain20, and resnet56 against both (figure 6).
Layers are named as in `resnet`, without a fourth stage.
"""

from __future__ import annotations

from functools import partial

from striate.models.entry import Entry
from striate.models.resnet import BasicBlock, PlainBlock, ResNet

_OPTION_A = partial(BasicBlock, option="A")


def resnet20(num_classes: int, width: int = 16, zero_gamma: bool = False, stochastic_depth: float = 0.0) -> ResNet:
    """ResNet-20 for CIFAR: 269,722 parameters and 40.55 M MACs at 32 px with 10 classes.

    width: channels of the first stage; zero_gamma: the last batch norm of each block starts at 0.
    stochastic_depth: how often the last block is left out in training, 0..1, the earlier ones less often (see `ResNet`).
    """
    return ResNet(num_classes, _OPTION_A, (3, 3, 3), "option-a", "small", width, zero_gamma, stochastic_depth)


def resnet56(num_classes: int, width: int = 16, zero_gamma: bool = False, stochastic_depth: float = 0.0) -> ResNet:
    """ResNet-56 for CIFAR: 853,018 parameters and 125.5 M MACs at 32 px with 10 classes. Options as `resnet20`."""
    return ResNet(num_classes, _OPTION_A, (9, 9, 9), "option-a", "small", width, zero_gamma, stochastic_depth)


def plain20(num_classes: int, width: int = 16) -> ResNet:
    """The plain 20-layer network for CIFAR: ResNet-20 without shortcuts. width: as `resnet20`."""
    return ResNet(num_classes, PlainBlock, (3, 3, 3), "plain", "small", width)


def plain56(num_classes: int, width: int = 16) -> ResNet:
    """The plain 56-layer network for CIFAR: ResNet-56 without shortcuts. width: as `resnet20`."""
    return ResNet(num_classes, PlainBlock, (9, 9, 9), "plain", "small", width)


_PAPER = "He, Zhang, Ren, Sun 2016"

NETWORKS = {
    "resnet20": Entry(resnet20, _PAPER, 2015, 32, 10),
    "resnet56": Entry(resnet56, _PAPER, 2015, 32, 10),
    "plain20": Entry(plain20, _PAPER, 2015, 32, 10),
    "plain56": Entry(plain56, _PAPER, 2015, 32, 10),
}

"""AlexNet: Krizhevsky, Sutskever, Hinton, "ImageNet Classification with Deep Convolutional Neural Networks", NIPS 2012.

Three networks: `alexnet`, the paper's; `caffenet`, Caffe's, which pools before it normalises; and `alexnet-one-tower`, which
torchvision took from a later paper. State-dict names are Caffe's (conv1 … fc8) for the first two, which load each other's weights
without an error and compute something else, so each carries its `variant`; the third has torchvision's names.

The paper draws an input of 224 px and grids of 55, which no window of 11 with stride 4 gives without a border: the author's
code lets the last window hang over the edge (three columns of zeros at the right and bottom), Caffe takes 227 px. Here both work,
and any other size: the first convolution fills up to the next whole window, which at 227 px is nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

import torch
from torch import nn
from torch.nn import functional

from striate.errors import UserError
from striate.models import init
from striate.models.blocks import GridPool, LocalResponseNorm, at_least, check_share
from striate.models.entry import Entry

Activation = Literal["relu", "tanh"]
Groups = Literal[2, 1, "half"]

# Channels of the five convolutions, their kernels and paddings. Source: section 3.5, figure 2.
_CHANNELS = (96, 256, 384, 384, 256)
_KERNELS = ((11, 0), (5, 2), (3, 1), (3, 1), (3, 1))
# Convolutions that see one GPU's half of the channels before them.
_ON_ONE_GPU = (2, 4, 5)
_HIDDEN = 4096


class OverhangingConv2d(nn.Conv2d):
    """Convolution whose last window may hang over the right and bottom edge: sizes are rounded up, as in cuda-convnet."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """input: [B, C_in, H, W], of a window or more. Returns [B, C_out, ceil((H - kernel) / stride) + 1, …]."""
        high, wide = (
            (kernel - side) % stride for kernel, side, stride in zip(self.kernel_size, input.shape[2:], self.stride, strict=True)
        )
        return super().forward(functional.pad(input, (0, wide, 0, high)) if high or wide else input)


class AlexNet(nn.Sequential):
    """Five convolutions, three of them pooled and two normalised, and three linear layers. Caffe's layer names.

    norm: whether the response normalisation of layers 1 and 2 comes before their pool (paper), after it (Caffe), or not at all.
    k: its additive constant. The other arguments are options of `alexnet`, see there.
    The normalisation runs over all channels, as Caffe's does; on two GPUs each had the half of them for itself.
    """

    def __init__(
        self,
        num_classes: int,
        norm: Literal["before pool", "after pool", "none"],
        k: float,
        overlapping: bool,
        groups: Groups,
        dropout: float,
        activation: Activation,
        width: int,
    ) -> None:
        if width < 6 or width % 6:
            raise UserError(
                f"width: expected a multiple of 6, so that all layers are whole numbers in two halves, found {width}."
            )
        channels = [wide * width // 96 for wide in _CHANNELS]
        if groups == "half":
            channels[:4] = [wide // 2 for wide in channels[:4]]
        behind = {"before pool": ("norm", "pool"), "after pool": ("pool", "norm"), "none": ("pool",)}[norm]
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        seen = 3
        for number, (maps, (kernel, padding)) in enumerate(zip(channels, _KERNELS, strict=True), start=1):
            if number == 1:
                layers["conv1"] = OverhangingConv2d(seen, maps, kernel, stride=4)
            else:
                halves = 2 if groups == 2 and number in _ON_ONE_GPU else 1
                layers[f"conv{number}"] = nn.Conv2d(seen, maps, kernel, padding=padding, groups=halves)
            layers[f"{activation}{number}"] = nonlinearity(activation)
            for what in behind if number <= 2 else ("pool",) if number == 5 else ():
                layers[f"{what}{number}"] = pool(overlapping) if what == "pool" else LocalResponseNorm(5, 1e-4, 0.75, k)
            seen = maps
        layers["grid"] = GridPool(6)
        layers["flatten"] = nn.Flatten()
        layers.update(linear_layers(seen * 6 * 6, _HIDDEN * width // 96, num_classes, dropout, activation))
        super().__init__(layers)
        self.smallest_px = 64 if overlapping else 36
        self.variant = _variant(f"norm {norm}", overlapping, activation)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """input: [B, 3, H, W] normalised; 227 px and 224 px give the paper's grids. Returns logits [B, K]."""
        at_least(input, self.smallest_px, "alexnet")
        for layer in self:
            input = layer(input)
        return input


class OneTower(nn.Module):
    """torchvision's AlexNet, with its names: 64 channels at first, no groups, no normalisation, dropout before the linear layers.

    Source: Krizhevsky 2014, "One weird trick for parallelizing convolutional neural networks", footnote 1; torchvision
    models/alexnet.py. The paper's network has normalisation.
    """

    def __init__(self, num_classes: int, overlapping: bool, dropout: float, activation: Activation) -> None:
        super().__init__()
        check_share("dropout", dropout)
        self.smallest_px = 63 if overlapping else 35
        self.variant = _variant("basic", overlapping, activation)
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4, padding=2),
            nonlinearity(activation),
            pool(overlapping),
            nn.Conv2d(64, 192, 5, padding=2),
            nonlinearity(activation),
            pool(overlapping),
            nn.Conv2d(192, 384, 3, padding=1),
            nonlinearity(activation),
            nn.Conv2d(384, 256, 3, padding=1),
            nonlinearity(activation),
            nn.Conv2d(256, 256, 3, padding=1),
            nonlinearity(activation),
            pool(overlapping),
        )
        self.avgpool = GridPool(6)
        self.classifier = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(256 * 6 * 6, _HIDDEN),
            nonlinearity(activation),
            nn.Dropout(dropout),
            nn.Linear(_HIDDEN, _HIDDEN),
            nonlinearity(activation),
            nn.Linear(_HIDDEN, num_classes),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """images: [B, 3, H, W] normalised. Returns logits [B, K]."""
        at_least(images, self.smallest_px, "alexnet-one-tower")
        logits: torch.Tensor = self.classifier(torch.flatten(self.avgpool(self.features(images)), 1))
        return logits


def _variant(first: str, overlapping: bool, activation: Activation) -> str:
    """What tells networks apart that differ in layers without weights."""
    return ", ".join([first, *([] if overlapping else ["2x2 pools"]), *([] if activation == "relu" else [activation])])


def nonlinearity(activation: Activation) -> nn.Module:
    """The paper's, or the saturating one that it compares with (figure 1)."""
    return nn.ReLU(inplace=True) if activation == "relu" else nn.Tanh()


def pool(overlapping: bool) -> nn.MaxPool2d:
    """Windows of 3 with stride 2, or of 2: the same grids from 55, 27 and 13. Source: section 3.4."""
    return nn.MaxPool2d(3, 2) if overlapping else nn.MaxPool2d(2)


def linear_layers(
    features: int, hidden: int, num_classes: int, dropout: float, activation: Activation = "relu"
) -> OrderedDict[str, nn.Module]:
    """fc6 to fc8 with dropout on the outputs of the first two, as AlexNet and ZFNet have them. Source: sections 3.5 and 4.2."""
    check_share("dropout", dropout)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number in (6, 7):
        layers[f"fc{number}"] = nn.Linear(features, hidden)
        layers[f"{activation}{number}"] = nonlinearity(activation)
        layers[f"drop{number}"] = nn.Dropout(dropout)
        features = hidden
    layers["fc8"] = nn.Linear(features, num_classes)
    return layers


def alexnet(
    num_classes: int,
    lrn: bool = True,
    overlapping: bool = True,
    groups: Groups = 2,
    dropout: float = 0.5,
    activation: Activation = "relu",
    width: int = 96,
) -> AlexNet:
    """AlexNet as in the paper: 60,965,224 parameters and 724,406,816 MACs at 227 and 224 px with 1,000 classes.

    lrn: response normalisation (section 3.3). overlapping: pools of 3 with stride 2; else of 2 (section 3.4).
    groups: 2 as on two GPUs, where convolutions 2, 4 and 5 see half of the channels; 1, every convolution sees all
    (62,378,344 parameters, 1,135,256,096 MACs); half, the paper's network for one GPU with half the kernels in convolutions
    1 to 4 (section 3.2, footnote 2; 59,798,312 parameters, 391,514,384 MACs).
    dropout: share of the outputs of fc6 and fc7 dropped (section 4.2). activation: relu, or tanh (section 3.1).
    width: channels of the first convolution, a multiple of 6; all layers but the classes' in proportion.
    """
    norm: Literal["before pool", "none"] = "before pool" if lrn else "none"
    model = AlexNet(num_classes, norm, 2.0, overlapping, groups, dropout, activation, width)
    init.alexnet(model)
    return model


def caffenet(
    num_classes: int,
    lrn: bool = True,
    overlapping: bool = True,
    groups: Groups = 2,
    dropout: float = 0.5,
    activation: Activation = "relu",
    width: int = 96,
) -> AlexNet:
    """Caffe's reference network: AlexNet, pooled before it is normalised, with k = 1. Counts and options as `alexnet`.

    Initial weights of fc6 and fc7 have a deviation of 0.005. Source: Caffe models/bvlc_reference_caffenet/train_val.prototxt.
    """
    norm: Literal["after pool", "none"] = "after pool" if lrn else "none"
    model = AlexNet(num_classes, norm, 1.0, overlapping, groups, dropout, activation, width)
    init.alexnet(model)
    for name in ("fc6", "fc7"):
        nn.init.normal_(model.get_submodule(name).get_parameter("weight"), std=0.005)
    return model


def alexnet_one_tower(
    num_classes: int, overlapping: bool = True, dropout: float = 0.5, activation: Activation = "relu"
) -> OneTower:
    """torchvision's AlexNet: 61,100,840 parameters and 714,188,480 MACs at 224 px with 1,000 classes.

    Options as `alexnet`. Initial weights are torch's own.
    """
    return OneTower(num_classes, overlapping, dropout, activation)


_PAPER = "Krizhevsky, Sutskever, Hinton 2012"

NETWORKS: dict[str, Entry] = {
    "alexnet": Entry(alexnet, _PAPER, 2012, 227),
    "caffenet": Entry(caffenet, "Jia et al. 2014 (Caffe)", 2014, 227),
    "alexnet-one-tower": Entry(alexnet_one_tower, "Krizhevsky 2014", 2014),
}

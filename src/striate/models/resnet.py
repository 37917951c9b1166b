"""ResNet-18 to -152 and their plain twins: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016.

State-dict names are torchvision's, so its weight files load with no key map. Networks that have the same names and shapes of
weights can still be different functions. Either of v1 (the paper, Caffe: a bottleneck strides in its first 1x1) and v1.5
(fb.resnet.torch, torchvision: in its 3x3) loads the other's weights without an error and computes something else, and so do
option A and a plain network, and the stems "imagenet" and "caffe". So each network carries its `variant`, which travels in the
metadata of its weight files.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch
from torch import nn
from torch.nn import functional
from torchvision.ops import stochastic_depth as dropped

from striate.errors import UserError
from striate.models import init
from striate.models.blocks import at_least
from striate.models.entry import Entry

Stem = Literal["imagenet", "caffe", "small"]
# How a block's input gets past it. A: unchanged, with zeros where channels are added; B: a projection where the shape changes,
# else unchanged; C: always a projection. Source: sections 3.3 and 4.1 ("Identity vs. Projection Shortcuts").
Option = Literal["A", "B", "C"]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut. Source: figure 5 left."""

    def __init__(self, in_channels: int, width: int, stride: int, *, option: Option = "B") -> None:
        super().__init__()
        self.out_channels = width
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(option, in_channels, width, stride)
        self.drop = 0.0  # see `ResNet`
        self.relu2 = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [B, C_in, H, W]. Returns [B, width, H / stride, W / stride]; the shortcut is added in place."""
        y = self.relu1(self.bn1(self.conv1(x)))
        y = dropped(self.bn2(self.conv2(y)), self.drop, "row", self.training)
        y += x if self.downsample is None else self.downsample(x)
        output: torch.Tensor = self.relu2(y)
        return output


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut. Source: figure 5 right.

    stride_in_first: whether the first 1x1 strides (v1), or the 3x3 (v1.5).
    inner, groups: channels of the 3x3 over `width`, and into how many groups they are divided; see `resnext`.
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int,
        *,
        option: Option = "B",
        stride_in_first: bool = False,
        inner: int = 1,
        groups: int = 1,
    ) -> None:
        super().__init__()
        check_groups(inner, groups, width)
        first, second = (stride, 1) if stride_in_first else (1, stride)
        self.out_channels = 4 * width
        self.conv1 = nn.Conv2d(in_channels, inner * width, 1, first, bias=False)
        self.bn1 = nn.BatchNorm2d(inner * width)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(inner * width, inner * width, 3, second, padding=1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(inner * width)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv3 = nn.Conv2d(inner * width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = _shortcut(option, in_channels, 4 * width, stride)
        self.drop = 0.0
        self.relu3 = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [B, C_in, H, W]. Returns [B, 4 width, H / stride, W / stride]; the shortcut is added in place."""
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.relu2(self.bn2(self.conv2(y)))
        y = dropped(self.bn3(self.conv3(y)), self.drop, "row", self.training)
        y += x if self.downsample is None else self.downsample(x)
        output: torch.Tensor = self.relu3(y)
        return output


class PlainBlock(nn.Sequential):
    """A basic block without its shortcut: the names of its weights stay. Source: figure 3 middle."""

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.out_channels = width
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU(inplace=True)


class ZeroPadded(nn.Module):
    """Every `stride`-th pixel in both directions, and zeros as the channels that are missing: a shortcut without parameters.

    Source: section 3.3, option A.
    """

    def __init__(self, missing: int, stride: int) -> None:
        super().__init__()
        self.missing, self.stride = missing, stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [B, C, H, W]. Returns [B, C + missing, H / stride, W / stride]."""
        return functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.missing))

    def extra_repr(self) -> str:
        """What print(model) shows."""
        return f"missing={self.missing}, stride={self.stride}"


def _shortcut(option: Option, in_channels: int, out_channels: int, stride: int) -> nn.Module | None:
    """What the input of a block goes through on its way past the block; None: nothing."""
    if option != "C" and stride == 1 and in_channels == out_channels:
        return None
    if option == "A":
        return ZeroPadded(out_channels - in_channels, stride)
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))


def check_groups(inner: int, groups: int, width: int) -> None:
    """Raises UserError when the inner * width channels of a convolution cannot be divided into so many groups."""
    if inner * width % groups:
        least = groups // math.gcd(groups, inner)
        raise UserError(f"width: {groups} groups need a multiple of {least} channels, found {width}.")


# Behind the stem's convolution. Caffe's windows begin at the first pixel, torchvision's one before it; both halve an even side.
_POOLS: dict[Stem, Callable[[], nn.Module]] = {
    "imagenet": partial(nn.MaxPool2d, 3, 2, padding=1),
    "caffe": partial(nn.MaxPool2d, 3, 2, ceil_mode=True),
    "small": nn.Identity,
}

# From channels of the input, width of the stage and stride to a block.
Block = Callable[[int, int, int], BasicBlock | Bottleneck | PlainBlock]


class ResNet(nn.Module):
    """Stem, stages of one width each, global average, one linear layer.

    Every ReLU is a module of its own (torchvision shares one per block), so that a layer's name means one place.
    depths: blocks of each stage (`layer1`, …); each stage has twice the width of the one before, and half its side.
    variant: which networks understand each other's weights: "v1.5" and "v1" of bottlenecks, "basic" where the two are one,
    "option-a", "plain"; with ", stem caffe" behind it where the stem's pool is Caffe's.
    stochastic_depth: in training, a block's residual is left out of an image with this probability at the last block,
    and with l / L of it at block l of L. One that stays is divided by the probability that it does, where the paper
    multiplies in evaluation; so evaluation knows nothing of it.
    Source: Huang et al. 2016 (stochastic depth), section 3, with a linear decay.
    """

    def __init__(
        self,
        num_classes: int,
        block: Block,
        depths: Sequence[int],
        variant: str,
        stem: Stem,
        width: int,
        zero_gamma: bool = False,
        stochastic_depth: float = 0.0,
    ) -> None:
        super().__init__()
        if width < 1:
            raise UserError(f"width: expected 1 channel or more, found {width}.")
        if not 0 <= stochastic_depth < 1:
            raise UserError(f"stochastic_depth: expected a probability of 0 or more and below 1, found {stochastic_depth}.")
        self.variant = f"{variant}, stem caffe" if stem == "caffe" else variant
        self.smallest_px = 3 if stem == "caffe" else 1  # Caffe's pool needs 2 px, and the convolution before it halves
        if stem == "small":
            self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        else:
            self.conv1 = nn.Conv2d(3, width, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = _POOLS[stem]()
        self.stages = tuple(f"layer{number}" for number in range(1, len(depths) + 1))
        channels = width
        for number, (name, depth) in enumerate(zip(self.stages, depths, strict=True)):
            first = block(channels, width * 2**number, 1 if number == 0 else 2)
            channels = first.out_channels
            self.add_module(name, nn.Sequential(first, *(block(channels, width * 2**number, 1) for _ in range(depth - 1))))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, num_classes)
        init.he_normal_fan_out(self)
        blocks = [layer for layer in self.modules() if isinstance(layer, (BasicBlock, Bottleneck))]
        for place, layer in enumerate(blocks, start=1):
            layer.drop = stochastic_depth * place / len(blocks)
        if zero_gamma:
            init.zero_gamma(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """images: [B, 3, H, W] normalised, of any size (3 px or more with Caffe's stem). Returns logits [B, K]."""
        at_least(images, self.smallest_px, "ResNet")
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        for name in self.stages:
            x = self.get_submodule(name)(x)
        logits: torch.Tensor = self.fc(torch.flatten(self.avgpool(x), 1))
        return logits


# ---------------------------------------------------------------- builders


def builder(block: Block, depths: Sequence[int], variant: str, about: str) -> Callable[..., ResNet]:
    """A function that builds one network of the family, with the options that all of them have; about: its docstring's start."""

    def build(
        num_classes: int, stem: Stem = "imagenet", width: int = 64, zero_gamma: bool = False, stochastic_depth: float = 0.0
    ) -> ResNet:
        """
        stem: "imagenet" is 7x7 stride 2 and max-pool; "caffe" the same with the pool that the authors' released weights need,
        rounded up and without padding; "small" is 3x3 stride 1 without pool, for images of 32 to 96 px.
        width: channels of the first stage; zero_gamma: the last batch norm of each block starts at 0.
        stochastic_depth: how often the last block is left out in training, 0..1, the earlier ones less often (see `ResNet`).
        """
        return ResNet(num_classes, block, depths, variant, stem, width, zero_gamma, stochastic_depth)

    build.__doc__ = f"{about}\n\n{inspect.getdoc(build)}"
    return build


# Table 1.
_18, _34, _50, _101, _152 = (2, 2, 2, 2), (3, 4, 6, 3), (3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3)

# Counts are for 1,000 classes and 224 px.
resnet18 = builder(BasicBlock, _18, "basic", "ResNet-18: 11,689,512 parameters, 1.814 G MACs.")
resnet34 = builder(BasicBlock, _34, "basic", "ResNet-34: 21,797,672 parameters, 3.664 G MACs.")
resnet50 = builder(Bottleneck, _50, "v1.5", "ResNet-50 v1.5, torchvision's: 25,557,032 parameters, 4.089 G MACs.")
resnet101 = builder(Bottleneck, _101, "v1.5", "ResNet-101 v1.5, torchvision's: 44,549,160 parameters, 7.801 G MACs.")
resnet152 = builder(Bottleneck, _152, "v1.5", "ResNet-152 v1.5, torchvision's: 60,192,808 parameters, 11.514 G MACs.")

_V1 = partial(Bottleneck, stride_in_first=True)
resnet50_v1 = builder(_V1, _50, "v1", "ResNet-50 as in the paper, stride in the first 1x1 of stages 3 to 5: 3.858 G MACs.")
resnet101_v1 = builder(_V1, _101, "v1", "ResNet-101 as in the paper, stride in the first 1x1 of stages 3 to 5: 7.570 G MACs.")
resnet152_v1 = builder(_V1, _152, "v1", "ResNet-152 as in the paper, stride in the first 1x1 of stages 3 to 5: 11.282 G MACs.")

# The paper compares the options on ResNet-34 (table 3) and builds bottlenecks with B alone. Ours of A and C are v1.5, so that
# each differs from the network without a letter in its shortcuts only.
_BASIC_A, _BOTTLENECK_A = partial(BasicBlock, option="A"), partial(Bottleneck, option="A")
resnet18_a = builder(_BASIC_A, _18, "option-a", "ResNet-18 with shortcuts A: 11,515,688 parameters, 1.795 G MACs.")
resnet34_a = builder(_BASIC_A, _34, "option-a", "ResNet-34 with shortcuts A: 21,623,848 parameters, 3.644 G MACs.")
resnet50_a = builder(_BOTTLENECK_A, _50, "option-a", "ResNet-50 v1.5 with shortcuts A: 22,780,456 parameters, 3.730 G MACs.")
resnet101_a = builder(_BOTTLENECK_A, _101, "option-a", "ResNet-101 v1.5 with shortcuts A: 41,772,584 parameters, 7.442 G MACs.")
resnet152_a = builder(_BOTTLENECK_A, _152, "option-a", "ResNet-152 v1.5 with shortcuts A: 57,416,232 parameters, 11.154 G MACs.")

_BASIC_C, _BOTTLENECK_C = partial(BasicBlock, option="C"), partial(Bottleneck, option="C")
resnet18_c = builder(_BASIC_C, _18, "basic", "ResNet-18 with shortcuts C: 12,043,816 parameters, 1.878 G MACs.")
resnet34_c = builder(_BASIC_C, _34, "basic", "ResNet-34 with shortcuts C: 22,716,840 parameters, 3.831 G MACs.")
resnet50_c = builder(_BOTTLENECK_C, _50, "v1.5", "ResNet-50 v1.5 with shortcuts C: 40,128,552 parameters, 6.555 G MACs.")
resnet101_c = builder(_BOTTLENECK_C, _101, "v1.5", "ResNet-101 v1.5 with shortcuts C: 76,981,288 parameters, 13.762 G MACs.")
resnet152_c = builder(_BOTTLENECK_C, _152, "v1.5", "ResNet-152 v1.5 with shortcuts C: 107,335,720 parameters, 20.968 G MACs.")


def plain18(num_classes: int, stem: Stem = "imagenet", width: int = 64) -> ResNet:
    """The plain 18-layer network, ResNet-18 without shortcuts: 11,515,688 parameters. Options as `resnet18`.

    It has no `zero_gamma` and no `stochastic_depth`: with either, nothing would be left of a block.
    """
    return ResNet(num_classes, PlainBlock, _18, "plain", stem, width)


def plain34(num_classes: int, stem: Stem = "imagenet", width: int = 64) -> ResNet:
    """The plain 34-layer network, ResNet-34 without shortcuts: 21,623,848 parameters. Options as `plain18`."""
    return ResNet(num_classes, PlainBlock, _34, "plain", stem, width)


_PAPER = "He, Zhang, Ren, Sun 2016"

# Basic blocks stride in the same place in v1 and v1.5, so resnet18 and resnet34 answer to both names.
NETWORKS = {
    "resnet18": Entry(resnet18, _PAPER, 2015),
    "resnet34": Entry(resnet34, _PAPER, 2015),
    "resnet50": Entry(resnet50, _PAPER, 2015),
    "resnet101": Entry(resnet101, _PAPER, 2015),
    "resnet152": Entry(resnet152, _PAPER, 2015),
    "resnet18-v1": Entry(resnet18, _PAPER, 2015),
    "resnet34-v1": Entry(resnet34, _PAPER, 2015),
    "resnet50-v1": Entry(resnet50_v1, _PAPER, 2015),
    "resnet101-v1": Entry(resnet101_v1, _PAPER, 2015),
    "resnet152-v1": Entry(resnet152_v1, _PAPER, 2015),
    "resnet18-a": Entry(resnet18_a, _PAPER, 2015),
    "resnet34-a": Entry(resnet34_a, _PAPER, 2015),
    "resnet50-a": Entry(resnet50_a, _PAPER, 2015),
    "resnet101-a": Entry(resnet101_a, _PAPER, 2015),
    "resnet152-a": Entry(resnet152_a, _PAPER, 2015),
    "resnet18-c": Entry(resnet18_c, _PAPER, 2015),
    "resnet34-c": Entry(resnet34_c, _PAPER, 2015),
    "resnet50-c": Entry(resnet50_c, _PAPER, 2015),
    "resnet101-c": Entry(resnet101_c, _PAPER, 2015),
    "resnet152-c": Entry(resnet152_c, _PAPER, 2015),
    "plain18": Entry(plain18, _PAPER, 2015),
    "plain34": Entry(plain34, _PAPER, 2015),
}

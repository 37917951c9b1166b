"""GoogLeNet: Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, table 1 and figure 3, and torchvision's form of it.

Table 1's channel columns are followed; its parameter column does not add up (4a and 4c to 5b differ from the channels), and
its first row, 2.7K parameters, is a separable 7x7 convolution (`googlenet-separable-stem`), where Caffe and torchvision have a
whole one. Layers have torchvision's names in all forms, so `inception3a.branch2.1.conv` is the 3x3 convolution of 3a everywhere.
What the forms differ in is a `Trunk`; what stands in the places 3a to 5b is a function that builds a module.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Protocol

import torch
from torch import nn
from torch.nn import functional

from striate.errors import UserError, expect
from striate.models import init
from striate.models.blocks import ConvBNReLU, ConvReLU, LocalResponseNorm, at_least, grid_means
from striate.models.entry import Entry

Form = Literal["reduced", "naive"]


class Convolution(Protocol):
    """Builds a convolution with all that stands behind it before the next one."""

    def __call__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, padding: int = 0) -> nn.Module:
        """Channels, the side of the kernel, stride and padding."""


class Widths(NamedTuple):
    """Channels of one module, in table 1's order: 1x1, reduction to the 3x3, 3x3, reduction to the 5x5, 5x5, pool projection."""

    ones: int
    to_threes: int
    threes: int
    to_fives: int
    fives: int
    pooled: int


_WIDTHS = {
    "3a": Widths(64, 96, 128, 16, 32, 32),
    "3b": Widths(128, 128, 192, 32, 96, 64),
    "4a": Widths(192, 96, 208, 16, 48, 64),
    "4b": Widths(160, 112, 224, 24, 64, 64),
    "4c": Widths(128, 128, 256, 24, 64, 64),
    "4d": Widths(112, 144, 288, 32, 64, 64),
    "4e": Widths(256, 160, 320, 32, 128, 128),
    "5a": Widths(256, 160, 320, 32, 128, 128),
    "5b": Widths(384, 192, 384, 48, 128, 128),
}


def _conv_bn_relu(in_channels: int, out_channels: int, kernel: int, stride: int = 1, padding: int = 0) -> nn.Module:
    return ConvBNReLU(in_channels, out_channels, kernel, stride, padding, eps=1e-3)


def _whole_stem(conv: Convolution) -> nn.Module:
    return conv(3, 64, 7, 2, 3)


def _separable_stem(conv: Convolution) -> nn.Module:
    """Eight 7x7 kernels for each colour, then 1x1: with these, table 1's first row and its 1.5 billion operations are right."""
    return nn.Sequential(
        OrderedDict(
            depthwise=nn.Conv2d(3, 24, 7, 2, padding=3, groups=3, bias=False),
            conv=nn.Conv2d(24, 64, 1),
            relu=nn.ReLU(inplace=True),
        )
    )


@dataclass(frozen=True)
class Trunk:
    """What the forms of GoogLeNet differ in, apart from the modules.

    conv: a convolution with what follows it. stem: the first one. fives: side of the kernel in the place of the 5x5.
    lrn: local response normalisation before and after the second stage. last_pool: side of the fourth max-pool's window.
    aux_window: the auxiliary heads pool with a 5x5 window of stride 3 where that gives 4x4; else means over a 4x4 grid.
    dropout: before the main head. smallest_px: side of the smallest input.
    """

    conv: Convolution
    stem: Callable[[Convolution], nn.Module]
    fives: int
    lrn: bool
    last_pool: int
    aux_window: bool
    dropout: float
    smallest_px: int


PAPER = Trunk(ConvReLU, _whole_stem, 5, True, 3, True, 0.4, 31)
# torchvision's 3x3 in the place of the 5x5 is a slip that its weights were trained with; it stays.
BATCH_NORM = Trunk(_conv_bn_relu, _whole_stem, 3, False, 2, False, 0.2, 15)
_SEPARABLE = replace(PAPER, stem=_separable_stem)

# Builds what stands in one place from the channels that come in; returns it and the channels that go out.
ModuleBuilder = Callable[[int, Widths, Trunk], tuple[nn.Module, int]]
Branches = tuple[nn.Module, nn.Module, nn.Module, nn.Module]


def branches(in_channels: int, widths: Widths, trunk: Trunk) -> Branches:
    """The four paths of a module with reductions: 1x1; 1x1 and 3x3; 1x1 and 5x5; pool and 1x1. Source: figure 2 (b)."""
    conv, fives = trunk.conv, trunk.fives
    return (
        conv(in_channels, widths.ones, 1),
        nn.Sequential(conv(in_channels, widths.to_threes, 1), conv(widths.to_threes, widths.threes, 3, padding=1)),
        nn.Sequential(conv(in_channels, widths.to_fives, 1), conv(widths.to_fives, widths.fives, fives, padding=fives // 2)),
        nn.Sequential(nn.MaxPool2d(3, 1, padding=1), conv(in_channels, widths.pooled, 1)),
    )


class Inception(nn.Module):
    """Four paths over the same input, their channels one behind the other."""

    def __init__(self, paths: Branches) -> None:
        super().__init__()
        self.branch1, self.branch2, self.branch3, self.branch4 = paths

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [B, C, H, W]. Returns [B, sum of the paths' channels, H, W]."""
        return torch.cat((self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)), 1)


def reduced(in_channels: int, widths: Widths, trunk: Trunk) -> tuple[nn.Module, int]:
    """The module as the network has it, with 1x1 reductions. Source: figure 2 (b)."""
    return Inception(branches(in_channels, widths, trunk)), widths.ones + widths.threes + widths.fives + widths.pooled


def naive(in_channels: int, widths: Widths, trunk: Trunk) -> tuple[nn.Module, int]:
    """The module without reductions: the pooled path hands on all channels, so modules widen. Source: figure 2 (a)."""
    conv, fives = trunk.conv, trunk.fives
    paths = (
        conv(in_channels, widths.ones, 1),
        conv(in_channels, widths.threes, 3, padding=1),
        conv(in_channels, widths.fives, fives, padding=fives // 2),
        nn.MaxPool2d(3, 1, padding=1),
    )
    return Inception(paths), widths.ones + widths.threes + widths.fives + in_channels


class AuxiliaryHead(nn.Module):
    """A classifier on features in the middle: 4x4 means, 1x1 convolution, two linear layers, dropout 0.7. Source: section 5.

    features: outputs of the first linear layer; 1,024 in the paper.
    """

    def __init__(self, in_channels: int, num_classes: int, trunk: Trunk, features: int) -> None:
        super().__init__()
        if features < 1:
            raise UserError(f"aux_features: expected 1 or more, found {features}.")
        self.window = trunk.aux_window
        self.conv = trunk.conv(in_channels, 128, 1)
        self.fc1 = nn.Linear(128 * 4 * 4, features)
        self.fc2 = nn.Linear(features, num_classes)
        self.dropout = nn.Dropout(0.7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [B, C, H, W], 14x14 at the paper's input. Returns logits [B, K]."""
        has_window = self.window and all(14 <= side <= 16 for side in x.shape[2:])
        grid = functional.avg_pool2d(x, 5, 3) if has_window else grid_means(x, 4)
        hidden = functional.relu(self.fc1(torch.flatten(self.conv(grid), 1)), inplace=True)
        logits: torch.Tensor = self.fc2(self.dropout(hidden))
        return logits


class GoogLeNetOutputs(NamedTuple):
    """Logits [B, K] of the three heads in training, in torchvision's order: the auxiliary head of 4d before that of 4a."""

    logits: torch.Tensor
    aux_logits2: torch.Tensor
    aux_logits1: torch.Tensor


class GoogLeNet(nn.Module):
    """Two convolutional stages, nine modules with max-pools between them, the mean over the grid and one linear layer.

    trunk: `PAPER` or `BATCH_NORM`, see `Trunk`. module: builds each of the nine, as `reduced`.
    aux: whether there are auxiliary heads, which are computed in training mode only; aux_features: see `AuxiliaryHead`.
    transform_input: images come normalised as ImageNet's are and the weights want mean 0.5 and deviation 0.5, as
    torchvision's published ones do.
    """

    def __init__(
        self,
        num_classes: int,
        trunk: Trunk,
        module: ModuleBuilder,
        aux: bool,
        aux_features: int = 1024,
        transform_input: bool = False,
    ) -> None:
        super().__init__()
        self.variant = "transform-input" if transform_input else "plain"
        self.transform_input = transform_input
        self.smallest_px = trunk.smallest_px
        self.conv1 = trunk.stem(trunk.conv)
        self.maxpool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.norm1 = _local_response_norm() if trunk.lrn else None
        self.conv2 = trunk.conv(64, 64, 1)
        self.conv3 = trunk.conv(64, 192, 3, padding=1)
        self.norm2 = _local_response_norm() if trunk.lrn else None
        self.maxpool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.inception3a, channels = module(192, _WIDTHS["3a"], trunk)
        self.inception3b, channels = module(channels, _WIDTHS["3b"], trunk)
        self.maxpool3 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.inception4a, channels_4a = module(channels, _WIDTHS["4a"], trunk)
        self.inception4b, channels = module(channels_4a, _WIDTHS["4b"], trunk)
        self.inception4c, channels = module(channels, _WIDTHS["4c"], trunk)
        self.inception4d, channels_4d = module(channels, _WIDTHS["4d"], trunk)
        self.inception4e, channels = module(channels_4d, _WIDTHS["4e"], trunk)
        self.maxpool4 = nn.MaxPool2d(trunk.last_pool, 2, ceil_mode=True)
        self.inception5a, channels = module(channels, _WIDTHS["5a"], trunk)
        self.inception5b, channels = module(channels, _WIDTHS["5b"], trunk)
        self.aux1 = AuxiliaryHead(channels_4a, num_classes, trunk, aux_features) if aux else None
        self.aux2 = AuxiliaryHead(channels_4d, num_classes, trunk, aux_features) if aux else None
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(trunk.dropout)
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor | GoogLeNetOutputs:
        """images: [B, 3, H, W] normalised. Returns logits [B, K]; in training with auxiliary heads all three."""
        at_least(images, self.smallest_px, "GoogLeNet")
        x = self.maxpool1(self.conv1(_from_imagenet_to_half(images) if self.transform_input else images))
        x = x if self.norm1 is None else self.norm1(x)
        x = self.conv3(self.conv2(x))
        x = x if self.norm2 is None else self.norm2(x)
        x = self.inception3b(self.inception3a(self.maxpool2(x)))
        x_4a = self.inception4a(self.maxpool3(x))
        x_4d = self.inception4d(self.inception4c(self.inception4b(x_4a)))
        x = self.maxpool4(self.inception4e(x_4d))
        x = self.inception5b(self.inception5a(x))
        logits: torch.Tensor = self.fc(self.dropout(torch.flatten(self.avgpool(x), 1)))
        if self.aux1 is None or self.aux2 is None or not self.training:
            return logits
        return GoogLeNetOutputs(logits, self.aux2(x_4d), self.aux1(x_4a))


def _local_response_norm() -> LocalResponseNorm:
    """The paper names no constants; these are Caffe's GoogLeNet's, with Caffe's k of 1 (AlexNet's is 2)."""
    return LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)


def _from_imagenet_to_half(images: torch.Tensor) -> torch.Tensor:
    """Images [B, 3, H, W] less ImageNet's mean over its deviation, as images less 0.5 over 0.5."""
    expect(images, "B 3 H W")
    means, deviations = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    channels = zip(images.unbind(1), means, deviations, strict=True)
    return torch.stack([channel * (deviation / 0.5) + (mean - 0.5) / 0.5 for channel, mean, deviation in channels], 1)


def _start_as_caffe(model: nn.Module) -> None:
    """Weights uniform with variance 1 / inputs; biases 0.2, in the layers of the classes 0.

    The paper states no start. This is Caffe's replica's: "xavier" there counts the inputs alone, and the biases keep the
    ReLUs of a new network open. Source: Caffe models/bvlc_googlenet.
    """
    for name, layer in model.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            bound = math.sqrt(3 / layer.weight[0].numel())
            nn.init.uniform_(layer.weight, -bound, bound)
            if layer.bias is not None:
                nn.init.constant_(layer.bias, 0.0 if name in ("fc", "aux1.fc2", "aux2.fc2") else 0.2)


def googlenet(num_classes: int, inception: Form = "reduced", aux: bool = True, aux_features: int = 1024) -> GoogLeNet:
    """GoogLeNet as in the paper, with Caffe's whole first convolution: 13,378,280 parameters at 1,000 classes.

    Without auxiliary heads 6,998,552; 1,582,671,872 MACs at 224 px, with the heads 1,591,044,096. Receptive field 715 px.
    inception: "reduced" is the network; "naive" leaves out the 1x1 reductions and the pool projection, so that a pooled path
    hands on all channels: 104,274,376 parameters (97,526,008 without auxiliary heads) and 12,568,061,056 MACs.
    aux: the two auxiliary heads, which only training computes. aux_features: outputs of their first linear layer; 2,048 is a
    well-known implementation's slip, with which there are 19,622,632 parameters.
    """
    model = GoogLeNet(num_classes, PAPER, naive if inception == "naive" else reduced, aux, aux_features)
    _start_as_caffe(model)
    return model


def googlenet_separable_stem(num_classes: int, inception: Form = "reduced", aux: bool = True) -> GoogLeNet:
    """GoogLeNet with the first row of its table taken at its word, a separable 7x7 convolution: 13,371,584 parameters.

    Without auxiliary heads 6,991,856; 1,498,677,248 MACs at 224 px, the paper's 1.5 billion. That the row means this is an
    inference; BN-Inception's appendix says it of its own first convolution. inception, aux: as `googlenet`.
    """
    model = GoogLeNet(num_classes, _SEPARABLE, naive if inception == "naive" else reduced, aux)
    _start_as_caffe(model)
    return model


def googlenet_bn(num_classes: int, inception: Form = "reduced", aux: bool = True, transform_input: bool = False) -> GoogLeNet:
    """torchvision's GoogLeNet, with batch norm and other windows: 13,004,888 parameters at 1,000 classes.

    Without auxiliary heads 6,624,904; 1,498,376,192 MACs at 224 px. Receptive field 379 px.
    transform_input: images come normalised as ImageNet's are, and the weights want mean 0.5 and deviation 0.5, as torchvision's
    published ones do. inception, aux: as `googlenet`; with naive 77,049,496 parameters (70,300,872) and 9,022,825,600 MACs,
    the 5x5 being a 3x3 here.
    """
    model = GoogLeNet(num_classes, BATCH_NORM, naive if inception == "naive" else reduced, aux, transform_input=transform_input)
    init.truncated_normal(model, std=0.01)  # torchvision's; linear biases are 0 here, where it leaves torch's own
    return model


_PAPER = "Szegedy et al. 2015"

NETWORKS = {
    "googlenet": Entry(googlenet, _PAPER, 2014),
    "googlenet-separable-stem": Entry(googlenet_separable_stem, f"{_PAPER}, table 1 at its word", 2014),
    "googlenet-bn": Entry(googlenet_bn, f"{_PAPER}, torchvision's form", 2014),
}

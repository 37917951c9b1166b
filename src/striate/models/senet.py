"""SE-ResNet, SE-ResNeXt, SENet-154, SE-BN-Inception: Hu, Shen, Sun, "Squeeze-and-Excitation Networks", CVPR 2018.

A gate for each channel after the last batch norm of a residual branch, before the sum (figure 3), or after the concatenation
of an inception module (figure 2). As in the released Caffe models, SE-ResNet is built on ResNet v1 (stride in the first 1x1)
and the others stride in the 3x3; the stem's pool rounds up and has no padding: at 224 px it gives the sizes of torchvision's
padded one and sees other pixels. Weights are named as timm's legacy_seresnet*, legacy_seresnext*_32x4d and legacy_senet154.
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn

from striate.errors import UserError
from striate.models import init
from striate.models.blocks import SqueezeExcite, at_least
from striate.models.bn_inception import BNInception
from striate.models.entry import Entry
from striate.models.resnet import check_groups


class SEBottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions, a gate per channel, and a shortcut.

    first, second: channels of the first 1x1 and of the 3x3 over `width`; groups: of the 3x3.
    stride_in_first: whether the first 1x1 strides, or the 3x3. projection: kernel of the shortcut where the side halves.
    reduction, bias: of the gate, see `SqueezeExcite`.
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int,
        *,
        first: int,
        second: int,
        groups: int,
        stride_in_first: bool,
        projection: int,
        reduction: int,
        bias: bool,
    ) -> None:
        super().__init__()
        check_groups(first, groups, width)
        strides = (stride, 1) if stride_in_first else (1, stride)
        self.conv1 = nn.Conv2d(in_channels, first * width, 1, strides[0], bias=False)
        self.bn1 = nn.BatchNorm2d(first * width)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(first * width, second * width, 3, strides[1], padding=1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(second * width)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv3 = nn.Conv2d(second * width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.se_module = SqueezeExcite(4 * width, reduction, bias)
        self.downsample: nn.Sequential | None = None
        if stride > 1 or in_channels != 4 * width:
            kernel = projection if stride > 1 else 1
            conv = nn.Conv2d(in_channels, 4 * width, kernel, stride, padding=kernel // 2, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(4 * width))
        self.relu3 = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [B, C_in, H, W]. Returns [B, 4 width, H / stride, W / stride]; the shortcut is added in place."""
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.relu2(self.bn2(self.conv2(y)))
        y = self.se_module(self.bn3(self.conv3(y)))
        y += x if self.downsample is None else self.downsample(x)
        output: torch.Tensor = self.relu3(y)
        return output


class SENet(nn.Module):
    """Stem `layer0`, four stages of bottlenecks with gates, global average, one linear layer.

    block: from channels of the input, width of the stage and stride to a block. deep_stem: three 3x3 convolutions, the last
    with twice the width, instead of one 7x7. dropout: share of the averages dropped in training, 0 for no such layer.
    """

    smallest_px = 3  # the stem halves it to 2, which is what a 3x3 pool without padding takes when it rounds up

    def __init__(
        self,
        num_classes: int,
        block: Callable[[int, int, int], SEBottleneck],
        depths: Sequence[int],
        width: int,
        deep_stem: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        if width < 1:
            raise UserError(f"width: expected 1 channel or more, found {width}.")
        self.layer0 = _stem((3, width, width, 2 * width), 3) if deep_stem else _stem((3, width), 7)
        self.pool0 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.layer1 = _stage(block, depths[0], 2 * width if deep_stem else width, width, 1)
        self.layer2 = _stage(block, depths[1], 4 * width, 2 * width, 2)
        self.layer3 = _stage(block, depths[2], 8 * width, 4 * width, 2)
        self.layer4 = _stage(block, depths[3], 16 * width, 8 * width, 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.last_linear = nn.Linear(32 * width, num_classes)
        init.he_normal_fan_out(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """images: [B, 3, H, W] normalised, H and W of 3 pixels or more; the paper's is 224. Returns logits [B, K]."""
        at_least(images, self.smallest_px, "SENet")
        x = self.pool0(self.layer0(images))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: torch.Tensor = self.last_linear(self.dropout(torch.flatten(self.avgpool(x), 1)))
        return logits


def _stem(channels: Sequence[int], kernel: int) -> nn.Sequential:
    """Convolutions `conv1`, …, the first with stride 2, with batch norm and ReLU."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number in range(1, len(channels)):
        stride = 2 if number == 1 else 1
        layers[f"conv{number}"] = nn.Conv2d(
            channels[number - 1], channels[number], kernel, stride, padding=kernel // 2, bias=False
        )
        layers[f"bn{number}"] = nn.BatchNorm2d(channels[number])
        layers[f"relu{number}"] = nn.ReLU(inplace=True)
    return nn.Sequential(layers)


def _stage(
    block: Callable[[int, int, int], SEBottleneck], depth: int, in_channels: int, width: int, stride: int
) -> nn.Sequential:
    """`depth` blocks of one width; the first one strides and takes the channels of the stage before."""
    return nn.Sequential(block(in_channels, width, stride), *(block(4 * width, width, 1) for _ in range(depth - 1)))


# ---------------------------------------------------------------- builders


def _builder(
    block: Callable[..., SEBottleneck], depths: Sequence[int], about: str, deep_stem: bool = False, dropout: float = 0.0
) -> Callable[..., SENet]:
    """A function that builds one network of the family, with the options that all of them have; about: its docstring's start."""

    def build(num_classes: int, r: int = 16, bias: bool = True, width: int = 64) -> SENet:
        """
        r: by which the inner layer of a gate is smaller than the channels that it gates.
        bias: whether the two layers of a gate have biases; the released models have, the counts of section 6 leave them out.
        width: channels of the first stage, for small trials.
        """
        return SENet(num_classes, partial(block, reduction=r, bias=bias), depths, width, deep_stem, dropout)

    build.__doc__ = f"{about}\n\n{inspect.getdoc(build)}"
    return build


_RESNET = partial(SEBottleneck, first=1, second=1, groups=1, stride_in_first=True, projection=1)
_RESNEXT = partial(SEBottleneck, first=2, second=2, groups=32, stride_in_first=False, projection=1)
_154 = partial(SEBottleneck, first=2, second=4, groups=64, stride_in_first=False, projection=3)

# Table 1 and the appendix on SENet-154. Counts are for 1,000 classes and 224 px.
se_resnet50 = _builder(_RESNET, (3, 4, 6, 3), "SE-ResNet-50, on v1: 28,088,024 parameters, 3.860 G MACs.")
se_resnet101 = _builder(_RESNET, (3, 4, 23, 3), "SE-ResNet-101, on v1: 49,326,872 parameters, 7.575 G MACs.")
se_resnet152 = _builder(_RESNET, (3, 8, 36, 3), "SE-ResNet-152, on v1: 66,821,848 parameters, 11.289 G MACs.")
se_resnext50 = _builder(_RESNEXT, (3, 4, 6, 3), "SE-ResNeXt-50 32x4d: 27,559,896 parameters, 4.233 G MACs.")
se_resnext101 = _builder(_RESNEXT, (3, 4, 23, 3), "SE-ResNeXt-101 32x4d: 48,955,416 parameters, 7.975 G MACs.")
# 64 groups of ResNeXt-152 with half of its channels in the first 1x1, a stem and projections of 3x3, and dropout.
senet154 = _builder(_154, (3, 8, 36, 3), "SENet-154: 115,088,984 parameters, 20.688 G MACs.", deep_stem=True, dropout=0.2)


def se_bn_inception(num_classes: int, r: int = 16, bias: bool = True) -> BNInception:
    """SE-BN-Inception, a gate behind each of the ten modules: 11,931,622 parameters, 2.033 G MACs. Options as `se_resnet50`."""
    model = BNInception(num_classes, reduction=r, se_bias=bias)
    init.he_normal_fan_out(model)
    return model


_PAPER = "Hu, Shen, Sun 2018"

NETWORKS = {
    "se-resnet50": Entry(se_resnet50, _PAPER, 2017),
    "se-resnet101": Entry(se_resnet101, _PAPER, 2017),
    "se-resnet152": Entry(se_resnet152, _PAPER, 2017),
    "se-resnext50": Entry(se_resnext50, _PAPER, 2017),
    "se-resnext101": Entry(se_resnext101, _PAPER, 2017),
    "se-bn-inception": Entry(se_bn_inception, _PAPER, 2017),
    "senet154": Entry(senet154, _PAPER, 2017),
}

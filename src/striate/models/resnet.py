"""ResNet-18, -34 and -50: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, table 1.

State-dict names are torchvision's, so its weight files load with no key map. Two things differ between published
ResNet-50s that have the same weights' names and shapes: v1 (the paper, Caffe) strides in the first 1x1 of a stage,
v1.5 (fb.resnet.torch, torchvision) in its 3x3. Either loads the other's weights without an error and computes
something else, so each network carries its `variant`, which travels in the metadata of its weight files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn
from torchvision.ops import stochastic_depth as dropped

from striate.errors import UserError
from striate.models import init
from striate.models.entry import Entry

Stem = Literal["imagenet", "small"]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut. Source: figure 5 left; projection only where shapes change (option B)."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int, stride_in_first: bool) -> None:
        super().__init__()  # stride_in_first: no such choice here, both placements are the first 3x3
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _projection(in_channels, width, stride)
        self.drop = 0.0  # see `ResNet`
        self.relu2 = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [B, C_in, H, W]. Returns [B, width, H / stride, W / stride]."""
        residual = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        shortcut = x if self.downsample is None else self.downsample(x)
        output: torch.Tensor = self.relu2(dropped(residual, self.drop, "row", self.training) + shortcut)
        return output


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut. Source: figure 5 right."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int, stride_in_first: bool) -> None:
        super().__init__()
        first, second = (stride, 1) if stride_in_first else (1, stride)
        self.conv1 = nn.Conv2d(in_channels, width, 1, first, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, second, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = _projection(in_channels, 4 * width, stride)
        self.drop = 0.0
        self.relu3 = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [B, C_in, H, W]. Returns [B, 4 width, H / stride, W / stride]."""
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.relu2(self.bn2(self.conv2(y)))
        residual = self.bn3(self.conv3(y))
        shortcut = x if self.downsample is None else self.downsample(x)
        output: torch.Tensor = self.relu3(dropped(residual, self.drop, "row", self.training) + shortcut)
        return output


def _projection(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    """Shortcut option B: a strided 1x1 convolution where the shape changes, else none. Source: section 3.3."""
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))


class ResNet(nn.Module):
    """Stem, four stages, global average, one linear layer.

    Every ReLU is a module of its own (torchvision shares one per block), so that a layer's name means one place.
    variant: which networks understand each other's weights: "v1.5", "v1", or "basic" where the two are one.
    stochastic_depth: in training, a block's residual is left out of an image with this probability at the last block,
    and with l / L of it at block l of L. One that stays is divided by the probability that it does, where the paper
    multiplies in evaluation; so evaluation knows nothing of it.
    Source: Huang et al. 2016 (stochastic depth), section 3, with a linear decay.
    """

    def __init__(
        self,
        num_classes: int,
        block: type[BasicBlock] | type[Bottleneck],
        depths: Sequence[int],
        stem: Stem,
        width: int,
        stride_in_first: bool,
        zero_gamma: bool,
        stochastic_depth: float,
    ) -> None:
        super().__init__()
        if width < 1:
            raise UserError(f"width: expected 1 channel or more, found {width}.")
        if not 0 <= stochastic_depth < 1:
            raise UserError(f"stochastic_depth: expected a probability of 0 or more and below 1, found {stochastic_depth}.")
        self.variant = "basic" if block is BasicBlock else "v1" if stride_in_first else "v1.5"
        if stem == "imagenet":
            self.conv1 = nn.Conv2d(3, width, 7, 2, padding=3, bias=False)
        else:
            self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1) if stem == "imagenet" else nn.Identity()
        out = [width * 2**stage * block.expansion for stage in range(4)]
        self.layer1 = _stage(block, depths[0], width, width, 1, stride_in_first)
        self.layer2 = _stage(block, depths[1], out[0], 2 * width, 2, stride_in_first)
        self.layer3 = _stage(block, depths[2], out[1], 4 * width, 2, stride_in_first)
        self.layer4 = _stage(block, depths[3], out[2], 8 * width, 2, stride_in_first)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(out[3], num_classes)
        init.he_normal_fan_out(self)
        blocks = [layer for layer in self.modules() if isinstance(layer, (BasicBlock, Bottleneck))]
        for place, layer in enumerate(blocks, start=1):
            layer.drop = stochastic_depth * place / len(blocks)
            if zero_gamma:
                # The block starts as the identity. Source: Goyal et al. 2017 (one hour), section 5.1.
                nn.init.zeros_(layer.bn2.weight if isinstance(layer, BasicBlock) else layer.bn3.weight)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """images: [B, 3, H, W] normalised, H and W of 32 pixels or more for the imagenet stem. Returns logits [B, K]."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: torch.Tensor = self.fc(torch.flatten(self.avgpool(x), 1))
        return logits


def _stage(
    block: type[BasicBlock] | type[Bottleneck], depth: int, in_channels: int, width: int, stride: int, stride_in_first: bool
) -> nn.Sequential:
    """`depth` blocks of one width; the first one strides and takes the channels of the stage before."""
    first = block(in_channels, width, stride, stride_in_first)
    return nn.Sequential(first, *(block(width * block.expansion, width, 1, stride_in_first) for _ in range(depth - 1)))


def resnet18(
    num_classes: int, stem: Stem = "imagenet", width: int = 64, zero_gamma: bool = False, stochastic_depth: float = 0.0
) -> ResNet:
    """ResNet-18: 11,689,512 parameters and 1.814 G MACs at 224 px with 1,000 classes.

    stem: "imagenet" is 7x7 stride 2 and max-pool; "small" is 3x3 stride 1 without pool, for images of 32 to 96 px.
    width: channels of the first stage; zero_gamma: the last batch norm of each block starts at 0.
    stochastic_depth: how often the last block is left out in training, 0..1, the earlier ones less often (see `ResNet`).
    """
    return ResNet(num_classes, BasicBlock, (2, 2, 2, 2), stem, width, False, zero_gamma, stochastic_depth)


def resnet34(
    num_classes: int, stem: Stem = "imagenet", width: int = 64, zero_gamma: bool = False, stochastic_depth: float = 0.0
) -> ResNet:
    """ResNet-34: 21,797,672 parameters and 3.664 G MACs at 224 px with 1,000 classes. Options as `resnet18`."""
    return ResNet(num_classes, BasicBlock, (3, 4, 6, 3), stem, width, False, zero_gamma, stochastic_depth)


def resnet50(
    num_classes: int, stem: Stem = "imagenet", width: int = 64, zero_gamma: bool = False, stochastic_depth: float = 0.0
) -> ResNet:
    """ResNet-50 v1.5, torchvision's: 25,557,032 parameters and 4.089 G MACs at 224 px. Options as `resnet18`."""
    return ResNet(num_classes, Bottleneck, (3, 4, 6, 3), stem, width, False, zero_gamma, stochastic_depth)


def resnet50_v1(
    num_classes: int, stem: Stem = "imagenet", width: int = 64, zero_gamma: bool = False, stochastic_depth: float = 0.0
) -> ResNet:
    """ResNet-50 as in the paper, stride in the first 1x1 of stages 3 to 5: 3.858 G MACs. Options as `resnet18`."""
    return ResNet(num_classes, Bottleneck, (3, 4, 6, 3), stem, width, True, zero_gamma, stochastic_depth)


_PAPER = "He, Zhang, Ren, Sun 2016"

# Basic blocks stride in the same place in v1 and v1.5, so resnet18 and resnet34 answer to both names.
NETWORKS = {
    "resnet18": Entry(resnet18, _PAPER, 2015),
    "resnet18-v1": Entry(resnet18, _PAPER, 2015),
    "resnet34": Entry(resnet34, _PAPER, 2015),
    "resnet34-v1": Entry(resnet34, _PAPER, 2015),
    "resnet50": Entry(resnet50, _PAPER, 2015),
    "resnet50-v1": Entry(resnet50_v1, _PAPER, 2015),
}

"""DenseNet-121, -169, -201: Huang et al., "Densely Connected Convolutional Networks", CVPR 2017, sections 3 and 4.3, table 1.

State-dict names are torchvision's as it writes them now; its published files have `norm.1` where the network has `norm1`.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from striate.errors import UserError
from striate.models import init
from striate.models.blocks import at_least, check_share
from striate.models.entry import Entry


class DenseLayer(nn.Module):
    """Batch norm, ReLU, 1x1 convolution to four times the growth, batch norm, ReLU, 3x3 convolution to the growth.

    Source: section 3 (DenseNet-B).
    """

    def __init__(self, in_channels: int, growth: int, drop_rate: float) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(in_channels, 4 * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * growth)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)
        self.drop = nn.Dropout(drop_rate) if drop_rate > 0 else nn.Identity()

    def forward(self, *features: torch.Tensor) -> torch.Tensor:
        """features: what the layers before gave, or all of it as one, [B, C_i, H, W]. Returns [B, growth, H, W]."""
        x = features[0] if len(features) == 1 else torch.cat(features, 1)
        x = self.conv1(self.relu1(self.norm1(x)))
        output: torch.Tensor = self.drop(self.conv2(self.relu2(self.norm2(x))))
        return output


class DenseBlock(nn.ModuleDict):
    """Layers that each see the outputs of all before them.

    The outputs grow as one tensor, by each layer's channels: so there is one concatenation a layer, and its gradient is cut in
    two, where a list that is joined anew for each layer would cut it into as many pieces as there are layers.
    """

    def __init__(self, depth: int, in_channels: int, growth: int, drop_rate: float, memory_efficient: bool) -> None:
        super().__init__(
            {f"denselayer{place + 1}": DenseLayer(in_channels + place * growth, growth, drop_rate) for place in range(depth)}
        )
        self.memory_efficient = memory_efficient

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [B, C, H, W]. Returns [B, C + depth x growth, H, W]."""
        if self.memory_efficient and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            return self._recomputed(x)
        for layer in self.values():
            x = torch.cat((x, layer(x)), 1)
        return x

    def _recomputed(self, x: torch.Tensor) -> torch.Tensor:
        """The same with memory that grows with the depth and not with its square: the backward pass runs each layer again, as
        far as it needs its inner values, and keeps the outputs only.

        Not under torch.compile, which chooses itself what to compute again.
        Source: Pleiss et al. 2017 (memory-efficient DenseNets), section 3; there the convolutions keep their outputs.
        """
        features = [x]
        for layer in self.values():
            contexts = functools.partial(_contexts, layer)
            features.append(checkpoint(layer, *features, use_reentrant=False, context_fn=contexts))
        return torch.cat(features, 1)


def _contexts(layer: nn.Module) -> tuple[contextlib.AbstractContextManager[None], contextlib.AbstractContextManager[None]]:
    """Around the forward pass of a layer, and around its repetition."""
    return contextlib.nullcontext(), _statistics_kept(layer)


@contextlib.contextmanager
def _statistics_kept(layer: nn.Module) -> Iterator[None]:
    """Within the block batch norms leave their moving statistics alone: a batch must count once, not twice."""
    norms = [norm for norm in layer.children() if isinstance(norm, nn.BatchNorm2d)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, batches


class Transition(nn.Sequential):
    """Batch norm, ReLU, 1x1 convolution to half the channels, 2x2 average. Source: section 3 (DenseNet-C, theta 0.5)."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(in_channels, in_channels // 2, 1, bias=False)
        self.pool = nn.AvgPool2d(2, 2)


class DenseNet(nn.Module):
    """Stem of twice the growth, four dense blocks with transitions between them, batch norm, ReLU, global average, linear layer.

    depths: layers of each block. growth: channels that each layer adds. drop_rate: dropout behind each layer, 0..1.
    memory_efficient: dense layers are computed again in the backward pass and not kept from the forward pass.
    Initial weights: normal with variance 2 / inputs (He), the linear layer torch's with bias 0, as in torchvision's.
    """

    smallest_px = 29

    def __init__(self, num_classes: int, depths: Sequence[int], growth: int, drop_rate: float, memory_efficient: bool) -> None:
        super().__init__()
        if growth < 1:
            raise UserError(f"growth: expected 1 channel or more, found {growth}.")
        check_share("drop_rate", drop_rate)
        channels = 2 * growth
        self.features = nn.Sequential()
        self.features.conv0 = nn.Conv2d(3, channels, 7, 2, padding=3, bias=False)
        self.features.norm0 = nn.BatchNorm2d(channels)
        self.features.relu0 = nn.ReLU(inplace=True)
        self.features.pool0 = nn.MaxPool2d(3, 2, padding=1)
        for place, depth in enumerate(depths, start=1):
            block = DenseBlock(depth, channels, growth, drop_rate, memory_efficient)
            self.features.add_module(f"denseblock{place}", block)
            channels += depth * growth
            if place < len(depths):
                self.features.add_module(f"transition{place}", Transition(channels))
                channels //= 2
        self.features.norm5 = nn.BatchNorm2d(channels)
        self.features.relu5 = nn.ReLU(inplace=True)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)
        init.he_normal(self.features)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """images: [B, 3, H, W] normalised, H and W of 29 pixels or more. Returns logits [B, K]."""
        at_least(images, self.smallest_px, "densenet")
        logits: torch.Tensor = self.classifier(torch.flatten(self.avgpool(self.features(images)), 1))
        return logits


def densenet121(num_classes: int, growth: int = 32, drop_rate: float = 0.0, memory_efficient: bool = False) -> DenseNet:
    """DenseNet-121: 7,978,856 parameters and 2.834 G MACs at 224 px with 1,000 classes.

    growth: channels that each layer adds. drop_rate: dropout behind each layer, 0..1; the paper has none on ImageNet.
    memory_efficient: less memory in training, for more time: dense layers are computed again in the backward pass.
    """
    return DenseNet(num_classes, (6, 12, 24, 16), growth, drop_rate, memory_efficient)


def densenet169(num_classes: int, growth: int = 32, drop_rate: float = 0.0, memory_efficient: bool = False) -> DenseNet:
    """DenseNet-169: 14,149,480 parameters and 3.360 G MACs at 224 px with 1,000 classes. Options as `densenet121`."""
    return DenseNet(num_classes, (6, 12, 32, 32), growth, drop_rate, memory_efficient)


def densenet201(num_classes: int, growth: int = 32, drop_rate: float = 0.0, memory_efficient: bool = False) -> DenseNet:
    """DenseNet-201: 20,013,928 parameters and 4.291 G MACs at 224 px with 1,000 classes. Options as `densenet121`."""
    return DenseNet(num_classes, (6, 12, 48, 32), growth, drop_rate, memory_efficient)


_PAPER = "Huang, Liu, van der Maaten, Weinberger 2017"

NETWORKS: dict[str, Entry] = {
    "densenet121": Entry(densenet121, _PAPER, 2016),
    "densenet169": Entry(densenet169, _PAPER, 2016),
    "densenet201": Entry(densenet201, _PAPER, 2016),
}

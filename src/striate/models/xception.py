"""Xception: Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions", CVPR 2017, figure 5.

State-dict names are timm's (`legacy_xception`, from Cadene's port of Keras' weights), so those files load with no key map. Batch
norm's eps is torch's 1e-5, as there; Keras has 1e-3.
"""

from __future__ import annotations

import torch
from torch import nn

from striate.errors import UserError
from striate.models import init
from striate.models.blocks import at_least, check_share
from striate.models.entry import Entry


class SeparableConv2d(nn.Module):
    """A 3x3 convolution of each channel by itself, then a 1x1 over all of them, with nothing in between.

    Source: section 4.7 and figure 10: a ReLU in between makes it worse.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False)
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [B, C_in, H, W]. Returns [B, C_out, H, W]."""
        output: torch.Tensor = self.pointwise(self.conv1(x))
        return output


class Block(nn.Module):
    """ReLU, separable convolution, batch norm, once for each of `widths`; a strided block ends in a max-pool. And a shortcut.

    stride: 2 also has a strided 1x1 convolution and batch norm on the shortcut. relu_first: not in the first block, whose input
    has been through one. Source: figure 5.
    """

    def __init__(self, in_channels: int, widths: tuple[int, ...], stride: int, relu_first: bool = True) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = in_channels
        for place, width in enumerate(widths):
            if place > 0 or relu_first:
                # The first one must leave the block's input as it is, for the shortcut takes it too.
                layers.append(nn.ReLU(inplace=place > 0))
            layers += [SeparableConv2d(before, width), nn.BatchNorm2d(width)]
            before = width
        if stride == 2:
            layers.append(nn.MaxPool2d(3, 2, padding=1))
        self.skip = nn.Conv2d(in_channels, before, 1, 2, bias=False) if stride == 2 else None
        self.skipbn = nn.BatchNorm2d(before) if stride == 2 else None
        self.rep = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [B, C_in, H, W]. Returns [B, C_out, H / stride, W / stride], rounded up."""
        shortcut = x if self.skip is None or self.skipbn is None else self.skipbn(self.skip(x))
        output: torch.Tensor = self.rep(x)
        return output.add_(shortcut)


class Xception(nn.Module):
    """Entry flow (conv1 to block3), middle flow (eight blocks), exit flow (block12 to conv4), global average, one linear layer.

    width: channels of the middle flow, the paper's 728. dropout: share of the features before the linear layer, 0..1.
    The paper states no initial weights: they are Glorot's, Keras' default.
    """

    smallest_px = 7

    def __init__(self, num_classes: int, width: int, dropout: float) -> None:
        super().__init__()
        if width < 1:
            raise UserError(f"width: expected 1 channel or more, found {width}.")
        check_share("dropout", dropout)
        self.conv1 = nn.Conv2d(3, 32, 3, 2, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        self.act1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(32, 64, 3, bias=False)
        self.bn2 = nn.BatchNorm2d(64)
        self.act2 = nn.ReLU(inplace=True)
        self.block1 = Block(64, (128, 128), 2, relu_first=False)
        self.block2 = Block(128, (256, 256), 2)
        self.block3 = Block(256, (width, width), 2)
        self.block4 = Block(width, (width, width, width), 1)
        self.block5 = Block(width, (width, width, width), 1)
        self.block6 = Block(width, (width, width, width), 1)
        self.block7 = Block(width, (width, width, width), 1)
        self.block8 = Block(width, (width, width, width), 1)
        self.block9 = Block(width, (width, width, width), 1)
        self.block10 = Block(width, (width, width, width), 1)
        self.block11 = Block(width, (width, width, width), 1)
        self.block12 = Block(width, (width, 1024), 2)
        self.conv3 = SeparableConv2d(1024, 1536)
        self.bn3 = nn.BatchNorm2d(1536)
        self.act3 = nn.ReLU(inplace=True)
        self.conv4 = SeparableConv2d(1536, 2048)
        self.bn4 = nn.BatchNorm2d(2048)
        self.act4 = nn.ReLU(inplace=True)
        self.global_pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(2048, num_classes)
        init.glorot_uniform(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """images: [B, 3, H, W] normalised, H and W of 7 pixels or more. Returns logits [B, K]."""
        at_least(images, self.smallest_px, "xception")
        x = self.act1(self.bn1(self.conv1(images)))
        x = self.act2(self.bn2(self.conv2(x)))
        x = self.block3(self.block2(self.block1(x)))
        x = self.block7(self.block6(self.block5(self.block4(x))))
        x = self.block11(self.block10(self.block9(self.block8(x))))
        x = self.block12(x)
        x = self.act3(self.bn3(self.conv3(x)))
        x = self.act4(self.bn4(self.conv4(x)))
        logits: torch.Tensor = self.fc(self.dropout(torch.flatten(self.global_pool(x), 1)))
        return logits


def xception(num_classes: int, width: int = 728, dropout: float = 0.5) -> Xception:
    """Xception: 22,855,952 parameters and 8.357 G MACs at 299 px with 1,000 classes.

    width: channels of the eight middle blocks. dropout: share of the features before the linear layer, 0..1; the paper's 0.5.
    """
    return Xception(num_classes, width, dropout)


NETWORKS: dict[str, Entry] = {"xception": Entry(xception, "Chollet 2017", 2016, size_px=299)}

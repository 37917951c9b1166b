"""Inception-v3: Szegedy, Vanhoucke, Ioffe, Shlens, Wojna, "Rethinking the Inception Architecture", CVPR 2016, section 6.

The layers are those of the authors' code (TensorFlow's library), from which table 1 of the paper differs, and the names in the
state dict are torchvision's, so its weight files load with no key map. Batch norm's eps is 1e-3.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from striate.models import init
from striate.models.blocks import ConvBNReLU, at_least, check_share
from striate.models.entry import Entry

_EPS = 1e-3


class InceptionOutputs(NamedTuple):
    """What the network returns in training: logits [B, K] of the main head and of the auxiliary one."""

    logits: torch.Tensor
    aux_logits: torch.Tensor


class InceptionA(nn.Module):
    """1x1, 5x5, two 3x3, and pool paths. Source: figure 5, with a 5x5 where it has two 3x3, as the authors' code has it."""

    def __init__(self, in_channels: int, pool_features: int) -> None:
        super().__init__()
        self.branch1x1 = ConvBNReLU(in_channels, 64, 1, eps=_EPS)
        self.branch5x5_1 = ConvBNReLU(in_channels, 48, 1, eps=_EPS)
        self.branch5x5_2 = ConvBNReLU(48, 64, 5, padding=2, eps=_EPS)
        self.branch3x3dbl_1 = ConvBNReLU(in_channels, 64, 1, eps=_EPS)
        self.branch3x3dbl_2 = ConvBNReLU(64, 96, 3, padding=1, eps=_EPS)
        self.branch3x3dbl_3 = ConvBNReLU(96, 96, 3, padding=1, eps=_EPS)
        self.pool = nn.AvgPool2d(3, 1, padding=1)
        self.branch_pool = ConvBNReLU(in_channels, pool_features, 1, eps=_EPS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [B, C_in, H, W]. Returns [B, 224 + pool_features, H, W]."""
        branch5x5 = self.branch5x5_2(self.branch5x5_1(x))
        branch3x3dbl = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), branch5x5, branch3x3dbl, self.branch_pool(self.pool(x))], 1)


class InceptionB(nn.Module):
    """Halves the grid: a strided 3x3, two 3x3, and a pool that passes the input on. Source: figure 10."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.branch3x3 = ConvBNReLU(in_channels, 384, 3, 2, eps=_EPS)
        self.branch3x3dbl_1 = ConvBNReLU(in_channels, 64, 1, eps=_EPS)
        self.branch3x3dbl_2 = ConvBNReLU(64, 96, 3, padding=1, eps=_EPS)
        self.branch3x3dbl_3 = ConvBNReLU(96, 96, 3, 2, eps=_EPS)
        self.pool = nn.MaxPool2d(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [B, C_in, H, W]. Returns [B, 480 + C_in, (H - 1) / 2, (W - 1) / 2]."""
        branch3x3dbl = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), branch3x3dbl, self.pool(x)], 1)


class InceptionC(nn.Module):
    """7x7 convolutions as a 1x7 and a 7x1, once and twice, beside 1x1 and pool paths. Source: figure 6."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.branch1x1 = ConvBNReLU(in_channels, 192, 1, eps=_EPS)
        self.branch7x7_1 = ConvBNReLU(in_channels, width, 1, eps=_EPS)
        self.branch7x7_2 = _wide(width, width)
        self.branch7x7_3 = _tall(width, 192)
        self.branch7x7dbl_1 = ConvBNReLU(in_channels, width, 1, eps=_EPS)
        self.branch7x7dbl_2 = _tall(width, width)
        self.branch7x7dbl_3 = _wide(width, width)
        self.branch7x7dbl_4 = _tall(width, width)
        self.branch7x7dbl_5 = _wide(width, 192)
        self.pool = nn.AvgPool2d(3, 1, padding=1)
        self.branch_pool = ConvBNReLU(in_channels, 192, 1, eps=_EPS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [B, C_in, H, W]. Returns [B, 768, H, W]."""
        branch7x7 = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        branch7x7dbl = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        branch7x7dbl = self.branch7x7dbl_5(self.branch7x7dbl_4(branch7x7dbl))
        return torch.cat([self.branch1x1(x), branch7x7, branch7x7dbl, self.branch_pool(self.pool(x))], 1)


class InceptionD(nn.Module):
    """Halves the grid: a strided 3x3, a 7x7 in two and a strided 3x3, and a pool that passes the input on."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.branch3x3_1 = ConvBNReLU(in_channels, 192, 1, eps=_EPS)
        self.branch3x3_2 = ConvBNReLU(192, 320, 3, 2, eps=_EPS)
        self.branch7x7x3_1 = ConvBNReLU(in_channels, 192, 1, eps=_EPS)
        self.branch7x7x3_2 = _wide(192, 192)
        self.branch7x7x3_3 = _tall(192, 192)
        self.branch7x7x3_4 = ConvBNReLU(192, 192, 3, 2, eps=_EPS)
        self.pool = nn.MaxPool2d(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [B, C_in, H, W]. Returns [B, 512 + C_in, (H - 1) / 2, (W - 1) / 2]."""
        branch3x3 = self.branch3x3_2(self.branch3x3_1(x))
        branch7x7x3 = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return torch.cat([branch3x3, branch7x7x3, self.pool(x)], 1)


class InceptionE(nn.Module):
    """3x3 convolutions as a 1x3 beside a 3x1, for the coarsest grid. Source: figure 7."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.branch1x1 = ConvBNReLU(in_channels, 320, 1, eps=_EPS)
        self.branch3x3_1 = ConvBNReLU(in_channels, 384, 1, eps=_EPS)
        self.branch3x3_2a = ConvBNReLU(384, 384, (1, 3), padding=(0, 1), eps=_EPS)
        self.branch3x3_2b = ConvBNReLU(384, 384, (3, 1), padding=(1, 0), eps=_EPS)
        self.branch3x3dbl_1 = ConvBNReLU(in_channels, 448, 1, eps=_EPS)
        self.branch3x3dbl_2 = ConvBNReLU(448, 384, 3, padding=1, eps=_EPS)
        self.branch3x3dbl_3a = ConvBNReLU(384, 384, (1, 3), padding=(0, 1), eps=_EPS)
        self.branch3x3dbl_3b = ConvBNReLU(384, 384, (3, 1), padding=(1, 0), eps=_EPS)
        self.pool = nn.AvgPool2d(3, 1, padding=1)
        self.branch_pool = ConvBNReLU(in_channels, 192, 1, eps=_EPS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [B, C_in, H, W]. Returns [B, 2048, H, W]."""
        branch3x3 = self.branch3x3_1(x)
        branch3x3dbl = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        paths = [
            self.branch1x1(x),
            self.branch3x3_2a(branch3x3),
            self.branch3x3_2b(branch3x3),
            self.branch3x3dbl_3a(branch3x3dbl),
            self.branch3x3dbl_3b(branch3x3dbl),
            self.branch_pool(self.pool(x)),
        ]
        return torch.cat(paths, 1)


class InceptionAux(nn.Module):
    """A head on the last 17x17 grid, batch-normalised as all else. Source: figure 8 and section 4.

    Smaller grids are padded with zeros to 17x17, so that the 5x5 convolution has its 5x5.
    """

    grid_px = 17

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(5, 3)
        self.conv0 = ConvBNReLU(in_channels, 128, 1, eps=_EPS)
        self.conv1 = ConvBNReLU(128, 768, 5, eps=_EPS)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(768, num_classes)
        # Deviations of the initial weights, for `init.truncated_normal`. torchvision has the first one on its block, where its
        # initialisation does not look.
        for layer, std in ((self.conv1[0], 0.01), (self.fc, 0.001)):
            layer.stddev = std  # type: ignore[assignment]  # torch expects layers and tensors here

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [B, C, H, W]. Returns logits [B, K]."""
        rows, columns = (max(0, self.grid_px - side) for side in x.shape[2:])
        if rows or columns:
            x = functional.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
        logits: torch.Tensor = self.fc(torch.flatten(self.avgpool(self.conv1(self.conv0(self.pool(x)))), 1))
        return logits


def _wide(in_channels: int, channels: int) -> ConvBNReLU:
    return ConvBNReLU(in_channels, channels, (1, 7), padding=(0, 3), eps=_EPS)


def _tall(in_channels: int, channels: int) -> ConvBNReLU:
    return ConvBNReLU(in_channels, channels, (7, 1), padding=(3, 0), eps=_EPS)


class InceptionV3(nn.Module):
    """Stem, three modules A, B, four C, D, two E, global average, one linear layer; a second head behind the last C.

    Initial weights: normal with deviation 0.1, in the auxiliary head 0.01 and 0.001, as the authors' code has them; the paper
    states none.
    """

    smallest_px = 75
    shift: torch.Tensor
    scale: torch.Tensor

    def __init__(self, num_classes: int, aux: bool, transform_input: bool, dropout: float) -> None:
        super().__init__()
        check_share("dropout", dropout)
        self.variant = "transform-input" if transform_input else "plain"
        self.transform_input = transform_input
        if transform_input:  # from ImageNet's mean and deviation to 0.5 and 0.5; not in the state dict
            shift = [(mean - 0.5) / 0.5 for mean in (0.485, 0.456, 0.406)]
            scale = [std / 0.5 for std in (0.229, 0.224, 0.225)]
            self.register_buffer("shift", torch.tensor(shift).reshape(1, 3, 1, 1), persistent=False)
            self.register_buffer("scale", torch.tensor(scale).reshape(1, 3, 1, 1), persistent=False)
        self.Conv2d_1a_3x3 = ConvBNReLU(3, 32, 3, 2, eps=_EPS)
        self.Conv2d_2a_3x3 = ConvBNReLU(32, 32, 3, eps=_EPS)
        self.Conv2d_2b_3x3 = ConvBNReLU(32, 64, 3, padding=1, eps=_EPS)
        self.maxpool1 = nn.MaxPool2d(3, 2)
        self.Conv2d_3b_1x1 = ConvBNReLU(64, 80, 1, eps=_EPS)
        self.Conv2d_4a_3x3 = ConvBNReLU(80, 192, 3, eps=_EPS)
        self.maxpool2 = nn.MaxPool2d(3, 2)
        self.Mixed_5b = InceptionA(192, pool_features=32)
        self.Mixed_5c = InceptionA(256, pool_features=64)
        self.Mixed_5d = InceptionA(288, pool_features=64)
        self.Mixed_6a = InceptionB(288)
        self.Mixed_6b = InceptionC(768, width=128)
        self.Mixed_6c = InceptionC(768, width=160)
        self.Mixed_6d = InceptionC(768, width=160)
        self.Mixed_6e = InceptionC(768, width=192)
        self.AuxLogits = InceptionAux(768, num_classes) if aux else None
        self.Mixed_7a = InceptionD(768)
        self.Mixed_7b = InceptionE(1280)
        self.Mixed_7c = InceptionE(2048)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(2048, num_classes)
        init.truncated_normal(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor | InceptionOutputs:
        """images: [B, 3, H, W] normalised, H and W of 75 pixels or more. Returns logits [B, K]; in training of both heads."""
        at_least(images, self.smallest_px, "inception-v3")
        x = torch.addcmul(self.shift, images, self.scale) if self.transform_input else images
        x = self.maxpool1(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))))
        x = self.maxpool2(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        aux_logits = self.AuxLogits(x) if self.AuxLogits is not None and self.training else None
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        logits: torch.Tensor = self.fc(torch.flatten(self.dropout(self.avgpool(x)), 1))
        return logits if aux_logits is None else InceptionOutputs(logits, aux_logits)


def inception_v3(num_classes: int, aux: bool = True, transform_input: bool = False, dropout: float = 0.5) -> InceptionV3:
    """Inception-v3: 27,161,264 parameters (23,834,568 without the auxiliary head) and 5.713 G MACs at 299 px with 1,000 classes.

    aux: with the auxiliary head, which works in training only. dropout: share of the features before the linear layer, 0..1.
    transform_input: images come with ImageNet's mean and deviation and are brought to 0.5 and 0.5, which the published weights
    were trained with (torchvision's are loaded so).
    """
    return InceptionV3(num_classes, aux, transform_input, dropout)


NETWORKS: dict[str, Entry] = {
    "inception-v3": Entry(inception_v3, "Szegedy, Vanhoucke, Ioffe, Shlens, Wojna 2016", 2015, size_px=299),
}

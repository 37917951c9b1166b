"""BN-Inception: Ioffe and Szegedy, "Batch Normalization", ICML 2015, figure 5; called Inception-v2 in TensorFlow's library.

GoogLeNet with batch normalisation behind every convolution, two 3x3 in the place of each 5x5, and two modules that halve the
grid themselves, their pool passing its input on. The figure contradicts itself: 4c and 4d add up to 608 channels and are said to
have 576, 4e to 1056 and is said to have 1024. Caffe's networks follow the sums (table "caffe"), TensorFlow's made the pool
projections of 4c and 4d narrower, so that the stated widths come out (table "tf").

State-dict names are those of the PyTorch port of Caffe's weights (Cadene's), so that file loads with no key map; it has
convolution biases, which add nothing before a batch norm: option `bias`.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from striate.models import init
from striate.models.blocks import SqueezeExcite, at_least, check_share
from striate.models.entry import Entry

Table = Literal["caffe", "tf"]
Stem = Literal["full", "separable"]


class Row(NamedTuple):
    """One module: channels of each convolution. A module without 1x1 path halves the grid and passes the pool on."""

    name: str
    one: int
    three_reduce: int
    three: int
    double_reduce: int
    double: int
    pool: Literal["avg", "max"]
    projection: int

    @property
    def channels(self) -> int:
        """What the convolutions give together; a module that passes its input on has that many more."""
        return self.one + self.three + self.double + self.projection


# Source: figure 5; 4c and 4d as they add up.
_ROWS = (
    Row("3a", 64, 64, 64, 64, 96, "avg", 32),
    Row("3b", 64, 64, 96, 64, 96, "avg", 64),
    Row("3c", 0, 128, 160, 64, 96, "max", 0),
    Row("4a", 224, 64, 96, 96, 128, "avg", 128),
    Row("4b", 192, 96, 128, 96, 128, "avg", 128),
    Row("4c", 160, 128, 160, 128, 160, "avg", 128),
    Row("4d", 96, 128, 192, 160, 192, "avg", 128),
    Row("4e", 0, 128, 192, 192, 256, "max", 0),
    Row("5a", 352, 192, 320, 160, 224, "avg", 128),
    Row("5b", 352, 192, 320, 192, 224, "max", 128),
)
# Source: TensorFlow slim, nets/inception_v2.py.
_TF_ROWS = tuple(row._replace(projection=96) if row.name in ("4c", "4d") else row for row in _ROWS)


class Concat(nn.Module):
    """The end of a module: its paths one behind the other, under a name that a hook can take."""

    def forward(self, paths: list[torch.Tensor]) -> torch.Tensor:
        """paths: each [B, C_i, H, W]. Returns [B, sum of C_i, H, W]."""
        return torch.cat(paths, 1)


class HalvingMaxPool(nn.Module):
    """Caffe's 3x3 max-pool with stride 2, without padding, to half the grid rounded up: [B, C, H, W] to [B, C, H / 2, W / 2].

    Caffe gives one column less than the strided convolutions beside it where the side is odd, and fails. There is no odd side at
    224 px; elsewhere the last window has one column in it, and the others stand where they always do.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [B, C, H, W]. Returns [B, C, ceil(H / 2), ceil(W / 2)]."""
        height, width = x.shape[2:]
        if height % 2 or width % 2:
            x = functional.pad(x, (0, width % 2, 0, height % 2), value=float("-inf"))
        return functional.max_pool2d(x, 3, 2, ceil_mode=True)


class BNInception(nn.Module):
    """Stem, ten modules, global average, one linear layer.

    table: "caffe" is 608 and 1056 channels behind 4d and 4e with batch norm's eps 1e-5, "tf" 576 and 1024 with 1e-3; the grids
    and their alignment are Caffe's in both.
    stem: the first convolution full, or separable: 8 filters for each colour, then 1x1, with nothing in between (appendix).
    bias: whether convolutions have biases, as Caffe's weights do.
    reduction: r of a squeeze-and-excitation block behind the concatenation of all ten modules, `inception_3a_se` and so on,
    beside the layers that are there without it; None for none. se_bias: whether its two layers have biases.
    dropout: share of the features before the linear layer, 0..1. The paper removed it, but for some nets of its ensemble.
    The paper states no initial weights: they are Glorot's, Caffe's "xavier" being close to it.
    """

    smallest_px = 7

    def __init__(
        self,
        num_classes: int,
        *,
        table: Table = "caffe",
        stem: Stem = "full",
        bias: bool = False,
        reduction: int | None = None,
        se_bias: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_share("dropout", dropout)
        self._eps = 1e-5 if table == "caffe" else 1e-3
        self._bias = bias
        if stem == "full":
            first: nn.Module = nn.Conv2d(3, 64, 7, 2, padding=3, bias=bias)
        else:
            depthwise = nn.Conv2d(3, 24, 7, 2, padding=3, groups=3, bias=False)
            first = nn.Sequential(OrderedDict(depthwise=depthwise, pointwise=nn.Conv2d(24, 64, 1, bias=bias)))
        self._add("conv1", "7x7_s2", first, 64)
        self.pool1_3x3_s2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self._add_conv("conv2", "3x3_reduce", 64, 64)
        self._add_conv("conv2", "3x3", 64, 192, 3)
        self.pool2_3x3_s2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        channels = 192
        self.rows = _ROWS if table == "caffe" else _TF_ROWS
        for row in self.rows:
            channels = self._add_module(row, channels)
            if reduction is not None:
                self.add_module(f"inception_{row.name}_se", SqueezeExcite(channels, reduction, se_bias))
        self.global_pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.last_linear = nn.Linear(channels, num_classes)
        init.glorot_uniform(self)

    def _add_module(self, row: Row, in_channels: int) -> int:
        """Registers the layers of one module in Caffe's order; returns its channels."""
        name = f"inception_{row.name}"
        halves = row.one == 0
        stride = 2 if halves else 1
        if not halves:
            self._add_conv(name, "1x1", in_channels, row.one)
        self._add_conv(name, "3x3_reduce", in_channels, row.three_reduce)
        self._add_conv(name, "3x3", row.three_reduce, row.three, 3, stride)
        self._add_conv(name, "double_3x3_reduce", in_channels, row.double_reduce)
        self._add_conv(name, "double_3x3_1", row.double_reduce, row.double, 3)
        self._add_conv(name, "double_3x3_2", row.double, row.double, 3, stride)
        if halves:
            pool: nn.Module = HalvingMaxPool()
        else:
            # The average counts the padding as zeros, as Caffe's does.
            pool = nn.AvgPool2d(3, 1, padding=1) if row.pool == "avg" else nn.MaxPool2d(3, 1, padding=1)
        self.add_module(f"{name}_pool", pool)
        if not halves:
            self._add_conv(name, "pool_proj", in_channels, row.projection)
        self.add_module(f"{name}_output", Concat())
        return row.channels + (in_channels if halves else 0)

    def _add_conv(self, group: str, kind: str, in_channels: int, channels: int, kernel: int = 1, stride: int = 1) -> None:
        conv = nn.Conv2d(in_channels, channels, kernel, stride, padding=kernel // 2, bias=self._bias)
        self._add(group, kind, conv, channels)

    def _add(self, group: str, kind: str, conv: nn.Module, channels: int) -> None:
        """Registers a convolution, its batch norm and its ReLU under the names that Caffe's weights have."""
        self.add_module(f"{group}_{kind}", conv)
        self.add_module(f"{group}_{kind}_bn", nn.BatchNorm2d(channels, eps=self._eps))
        self.add_module(f"{group}_relu_{kind}", nn.ReLU(inplace=True))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """images: [B, 3, H, W] normalised, H and W of 7 pixels or more. Returns logits [B, K]."""
        at_least(images, self.smallest_px, "bn-inception")
        x = self.pool1_3x3_s2(self._conv("conv1", "7x7_s2", images))
        x = self.pool2_3x3_s2(self._conv("conv2", "3x3", self._conv("conv2", "3x3_reduce", x)))
        for row in self.rows:
            x = self._inception(row, x)
        logits: torch.Tensor = self.last_linear(self.dropout(torch.flatten(self.global_pool(x), 1)))
        return logits

    def _inception(self, row: Row, x: torch.Tensor) -> torch.Tensor:
        """x: [B, C_in, H, W]. Returns [B, C, H, W], or half of H and W, rounded up, from a module that halves the grid."""
        name = f"inception_{row.name}"
        three = self._conv(name, "3x3", self._conv(name, "3x3_reduce", x))
        double = self._conv(name, "double_3x3_1", self._conv(name, "double_3x3_reduce", x))
        double = self._conv(name, "double_3x3_2", double)
        pooled = getattr(self, f"{name}_pool")(x)
        if row.one == 0:
            paths = [three, double, pooled]
        else:
            paths = [self._conv(name, "1x1", x), three, double, self._conv(name, "pool_proj", pooled)]
        output: torch.Tensor = getattr(self, f"{name}_output")(paths)
        excite: nn.Module | None = getattr(self, f"{name}_se", None)
        return output if excite is None else excite(output)

    def _conv(self, group: str, kind: str, x: torch.Tensor) -> torch.Tensor:
        """Convolution, batch norm, ReLU."""
        conv, norm = getattr(self, f"{group}_{kind}"), getattr(self, f"{group}_{kind}_bn")
        output: torch.Tensor = getattr(self, f"{group}_relu_{kind}")(norm(conv(x)))
        return output


def bn_inception(
    num_classes: int, table: Table = "caffe", stem: Stem = "full", bias: bool = False, dropout: float = 0.0
) -> BNInception:
    """BN-Inception: 11,285,224 parameters and 2.033 G MACs at 224 px with 1,000 classes.

    table: "caffe" is 608 and 1056 channels in modules 4d and 4e; "tf" 576 and 1024, 11,194,984 parameters and 2.019 G MACs.
    stem: "separable" splits the first convolution into one for each colour and a 1x1; with "tf" 11,188,288 and 1.935 G.
    bias: convolutions have biases, as in Caffe's published weights: 11,295,240 parameters. dropout: before the last layer, 0..1.
    """
    return BNInception(num_classes, table=table, stem=stem, bias=bias, dropout=dropout)


NETWORKS: dict[str, Entry] = {"bn-inception": Entry(bn_inception, "Ioffe and Szegedy 2015", 2015)}

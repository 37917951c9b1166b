"""Parts that the networks of three papers or more are made of."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional

from striate.errors import UserError


class ConvBNReLU(nn.Sequential):
    """Convolution without bias, batch normalisation, ReLU: layers `conv`, `bn`, `relu`, as torchvision names the first two."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
        *,
        eps: float = 1e-5,
        bias: bool = False,
    ) -> None:
        super().__init__(
            OrderedDict(
                conv=nn.Conv2d(in_channels, out_channels, kernel, stride, padding, bias=bias),
                bn=nn.BatchNorm2d(out_channels, eps=eps),
                relu=nn.ReLU(inplace=True),
            )
        )


class ConvReLU(nn.Sequential):
    """Convolution with bias, ReLU: layers `conv` and `relu`."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, padding: int = 0, groups: int = 1
    ) -> None:
        conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, groups=groups)
        super().__init__(OrderedDict(conv=conv, relu=nn.ReLU(inplace=True)))


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate in 0..1 that is computed from the means of all channels.

    Layers `fc1`, `relu`, `fc2` as 1x1 convolutions, which is how the released weights hold them.
    reduction: r, by which the inner layer is smaller. bias: the released models have it, the counts of section 6 do not.
    Raises UserError unless the channels can be divided by r.
    Source: Hu, Shen, Sun 2018 (squeeze-and-excitation), section 3, equations 2 to 4.
    """

    def __init__(self, channels: int, reduction: int, bias: bool = True) -> None:
        super().__init__()
        if reduction < 1 or channels % reduction:
            raise UserError(f"r: expected a divisor of {channels}, the channels of a block, found {reduction}.")
        self.fc1 = nn.Conv2d(channels, channels // reduction, 1, bias=bias)
        self.relu = nn.ReLU(inplace=True)
        self.fc2 = nn.Conv2d(channels // reduction, channels, 1, bias=bias)
        self.gate_bias = 0.0

    def open(self, gate_bias: float) -> None:
        """Sets the bias before the sigmoid: at 0 half of the input passes, at 4 0.98 of it. Weights drawn again keep it.

        Raises UserError where the block has no biases.
        """
        if self.fc2.bias is None:
            raise UserError(f"gate_bias {gate_bias:g}: the blocks have no biases; leave out --model.options.bias no.")
        self.gate_bias = gate_bias
        nn.init.constant_(self.fc2.bias, gate_bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [B, C, H, W]. Returns the same shape."""
        gate_BC11: torch.Tensor = self.fc2(self.relu(self.fc1(x.mean((2, 3), keepdim=True)))).sigmoid()
        return x * gate_BC11


class GridPool(nn.Module):
    """Means over a grid of side x side cells, whatever the size of the input: [B, C, H, W] to [B, C, side, side].

    Nothing is computed where the grid has that size already, as it has at the paper's input: so a linear layer behind it is the
    paper's there, and has an input of the right length everywhere else (as torchvision does for AlexNet and VGG).
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [B, C, H, W]. Returns [B, C, side, side]."""
        return x if x.shape[2:] == (self.side, self.side) else grid_means(x, self.side)

    def extra_repr(self) -> str:
        """What print(model) shows."""
        return f"side={self.side}"


def grid_means(x: torch.Tensor, side: int) -> torch.Tensor:
    """Means over torch's adaptive cells: [B, C, H, W] to [B, C, side, side].

    CUDA's backward pass of the adaptive pool adds in any order, and torch refuses it where bits are to repeat: there the
    sums are products.
    """
    if x.is_cuda and torch.are_deterministic_algorithms_enabled():
        return _means_by_products(x, side)
    return functional.adaptive_avg_pool2d(x, side)


def _means_by_products(x: torch.Tensor, side: int) -> torch.Tensor:
    rows, columns = _cells(x.shape[2], side, x), _cells(x.shape[3], side, x)
    return (rows @ x @ columns.T) / (rows.sum(1)[:, None] * columns.sum(1))


def _cells(length: int, side: int, like: torch.Tensor) -> torch.Tensor:
    """1 where one of `length` pixels is in one of `side` adaptive cells, which may overlap, else 0: [side, length]."""
    cell, pixel = torch.arange(side, device=like.device)[:, None], torch.arange(length, device=like.device)
    within = (pixel >= cell * length // side) & (pixel < ((cell + 1) * length + side - 1) // side)
    return within.to(like.dtype)


class LocalResponseNorm(nn.LocalResponseNorm):
    """Each value over (k + alpha / n x sum of squares of the n channels around it) to the power beta.

    The author's code divides alpha by n, as torch and Caffe do; the paper's formula does not. torch computes the sum with a
    3-d pool, whose backward pass on CUDA is not deterministic; sums of shifted channels are. They are formed in float32, for
    the square of 256 is more than float16 can hold.
    Source: Krizhevsky et al. 2012, section 3.3; cuda-convnet2, layer type cmrnorm.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """input: [B, C, H, W]. Returns the same shape and type."""
        channels, before = input.shape[1], self.size // 2
        squares = functional.pad(input.float().square(), (0, 0, 0, 0, before, self.size - 1 - before))
        around = squares[:, :channels]
        for shift in range(1, self.size):
            around = around + squares[:, shift : shift + channels]
        return (input * (self.k + self.alpha / self.size * around).pow(-self.beta)).to(input.dtype)


def at_least(images: torch.Tensor, smallest_px: int, network: str) -> None:
    """Raises UserError naming the smallest input when images [B, C, H, W] are smaller than a network can take."""
    height, width = images.shape[-2:]
    if min(height, width) < smallest_px:
        raise UserError(f"{network}: an input of {height}x{width} px is too small; the smallest is {smallest_px}x{smallest_px}.")


def check_share(option: str, share: float) -> None:
    """Raises UserError when a share of dropped values is not 0 or more and below 1."""
    if not 0 <= share < 1:
        raise UserError(f"{option}: expected a share from 0 to below 1, found {share}.")

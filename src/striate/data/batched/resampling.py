"""Cuts and resizes a whole batch of photos on a device, as Pillow does one photo and bit for bit: two batched matrix products.

Each output pixel is a weighted mean of stored pixels along one axis and then along the other; the weights are zero outside
the photo's box, so photos of different sizes lie in one block. Pillow's weights are whole numbers of 22 bits. Their products
with levels add up without rounding: in float64, and cut into two halves of 11 bits in float32 too (also in TF32). So neither
the device nor the company in the batch changes a pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch

from striate.view import Interpolation

_CUBIC: Final = -0.5  # Keys' a: Pillow's bicubic
_LOBES: Final = 3  # of Pillow's Lanczos filter
_BITS: Final = 22  # of Pillow's weights
_HALF: Final = 1 << 11
_DOUBLE_DEVICES: Final = ("cpu",)
_CACHE_BYTES: Final = 1 << 20  # of levels in double precision


@dataclass(frozen=True, eq=False)
class Axis:
    """Where the pixels of a view lie along one axis of each photo. [B] int64 each, on one device.

    longest_px: the largest of `resized`. start, length: the box of the stored photo, in its pixels. resized: how many
    pixels the box is resized to. first: which of these is the view's first. moved: the view's content moves by so many
    pixels, and black comes in. mirrored: 0 or 1.
    """

    longest_px: int
    start: torch.Tensor
    length: torch.Tensor
    resized: torch.Tensor
    first: torch.Tensor
    moved: torch.Tensor
    mirrored: torch.Tensor

    def part(self, rows: torch.Tensor) -> Axis:
        """The same of some photos: rows [b] int64."""
        values = (self.start, self.length, self.resized, self.first, self.moved, self.mirrored)
        return Axis(self.longest_px, *(value[rows] for value in values))

    def positions(self, size_px: int) -> tuple[torch.Tensor, torch.Tensor]:
        """For each pixel of the view: which pixel of the resized box it is, and whether it is one at all. [B, S] each."""
        seen_S = torch.arange(size_px, device=self.start.device)
        seen_BS = torch.where(self.mirrored[:, None] == 1, size_px - 1 - seen_S, seen_S) - self.moved[:, None]
        is_inside_BS = (seen_BS >= 0) & (seen_BS < size_px)
        return self.first[:, None] + seen_BS.clamp(0, size_px - 1), is_inside_BS


def is_rows_first(width: int, height: int, resized_width: int, resized_height: int) -> bool:
    """Whether Pillow resizes along y before x: where that leaves clearly less to do along x."""
    return height > resized_height and height - resized_height > 2 * (width - resized_width)


def resize(
    images_BHW3: torch.Tensor, x: Axis, y: Axis, columns_first_b: torch.Tensor, rows_first_b: torch.Tensor, size_px: int,
    interpolation: Interpolation,
) -> torch.Tensor:  # fmt: skip
    """Views of a batch of stored photos: uint8 [B, H, W, 3] to whole levels 0..255, float32 [B, 3, S, S].

    H, W: of the largest; what lies outside a photo's box does not matter. columns_first_b, rows_first_b: every photo once,
    by `is_rows_first`.
    """
    if interpolation == "nearest":
        return _picked(images_BHW3, x, y, size_px)
    levels_B3SS = torch.empty((len(images_BHW3), 3, size_px, size_px), device=images_BHW3.device)
    step = _step(images_BHW3, size_px)
    for rows_b, rows_first in ((columns_first_b, False), (rows_first_b, True)):
        for first in range(0, len(rows_b), step):
            some_b = rows_b[first : first + step]
            some = images_BHW3.index_select(0, some_b)
            made = _resized(some, x.part(some_b), y.part(some_b), size_px, interpolation, rows_first)
            levels_B3SS.index_copy_(0, some_b, made)
    return levels_B3SS


def _step(images_BHW3: torch.Tensor, size_px: int) -> int:
    """Photos to be resized at a time: on a processor as many as its cache holds, so that the passes do not wait for memory."""
    count, height, width, _ = images_BHW3.shape
    if images_BHW3.device.type != "cpu":
        return max(1, count)
    return max(1, _CACHE_BYTES // max(1, 3 * 8 * max(height, size_px) * max(width, size_px)))


def _resized(
    images_bHW3: torch.Tensor, x: Axis, y: Axis, size_px: int, interpolation: Interpolation, rows_first: bool
) -> torch.Tensor:
    """The two passes. Channels stand between the axes, so that each pass is one product for each photo."""
    count, height, width, _ = images_bHW3.shape
    across_bSW = weights(x, size_px, width, interpolation)
    down_bSH = weights(y, size_px, height, interpolation)
    if rows_first:
        half_bSW3 = _from_left(down_bSH, images_bHW3.reshape(count, height, width * 3)).view(count, size_px, width, 3)
        views_bS3S = _from_right(half_bSW3.transpose(2, 3).reshape(count, size_px * 3, width), across_bSW)
    else:
        pixels_bPW = images_bHW3.transpose(2, 3).reshape(count, height * 3, width)
        views_bS3S = _from_left(down_bSH, _from_right(pixels_bPW, across_bSW).view(count, height, 3 * size_px))
    return views_bS3S.view(count, size_px, 3, size_px).transpose(1, 2).float()


def _from_left(weights_bSP: torch.Tensor, levels_bPN: torch.Tensor) -> torch.Tensor:
    """Weighted means along the middle axis: [b, S, N] whole levels."""
    if _is_double(weights_bSP):
        return _rounded(torch.bmm(weights_bSP, levels_bPN.double()))
    high, low = torch.bmm(_halves(weights_bSP, 1), levels_bPN.float()).chunk(2, 1)
    return _joined(high, low)


def _from_right(levels_bNP: torch.Tensor, weights_bSP: torch.Tensor) -> torch.Tensor:
    """Weighted means along the last axis: [b, N, S] whole levels."""
    if _is_double(weights_bSP):
        return _rounded(torch.bmm(levels_bNP.double(), weights_bSP.transpose(1, 2)))
    high, low = torch.bmm(levels_bNP.float(), _halves(weights_bSP, 1).transpose(1, 2)).chunk(2, 2)
    return _joined(high, low)


def _is_double(weights_bSP: torch.Tensor) -> bool:
    """Whether to multiply in double precision, which holds the sums exactly: processors do, most GPUs are slow at it."""
    return weights_bSP.device.type in _DOUBLE_DEVICES


def _rounded(sums: torch.Tensor) -> torch.Tensor:
    """Whole levels 0..255, halves up, from sums with whole weights: float64."""
    return sums.mul_(1 / (1 << _BITS)).add_(0.5).floor_().clamp_(0, 255)


def _halves(weights_bSP: torch.Tensor, axis: int) -> torch.Tensor:
    """Weights of 22 bits as their upper and their lower halves, one after the other along an axis: float32."""
    high = (weights_bSP / _HALF).round()
    return torch.cat([high, weights_bSP - high * _HALF], axis).float()


def _joined(high: torch.Tensor, low: torch.Tensor) -> torch.Tensor:
    """Whole levels 0..255, halves up, from sums with both halves of the weights: float32, contiguous."""
    sums = high.int().mul_(_HALF).add_(low.int())
    return (sums.add_(1 << (_BITS - 1)) >> _BITS).clamp_(0, 255).float()


def weights(axis: Axis, size_px: int, total_px: int, interpolation: Interpolation) -> torch.Tensor:
    """What each stored pixel counts in each pixel of the view, along one axis: [B, S, total_px] float64, whole numbers.

    Rows sum to about 2^22, or are zero where black moved in. The filter widens when the box shrinks (antialias).
    """
    position_BS, is_inside_BS = axis.positions(size_px)
    scale_B = axis.length.double() / axis.resized
    centre_BS = (position_BS + 0.5) * scale_B[:, None]
    # Counted from the box's own corner, as Pillow sees it, so that the last bit of a weight is Pillow's too.
    pixel_BP = torch.arange(total_px, device=position_BS.device) - axis.start[:, None]
    distance_BSP = (pixel_BP[:, None] - centre_BS[..., None] + 0.5) / scale_B.clamp(min=1)[:, None, None]
    value_BSP = _filtered(distance_BSP, interpolation)
    value_BSP *= ((pixel_BP >= 0) & (pixel_BP < axis.length[:, None]))[:, None]
    value_BSP *= ((1 << _BITS) / value_BSP.sum(-1) * is_inside_BS)[..., None]
    return value_BSP.round_()


def _filtered(distance: torch.Tensor, interpolation: Interpolation) -> torch.Tensor:
    """The filter at a distance in units of its scale. Source: Keys 1981, equation 4 (bicubic); Turkowski 1990 (Lanczos)."""
    x = distance.abs_()
    if interpolation == "bilinear":
        return (1 - x).clamp_(min=0)
    if interpolation == "bicubic":
        near = ((_CUBIC + 2) * x - (_CUBIC + 3)) * x * x + 1
        far = (((x - 5) * x + 8) * x - 4) * _CUBIC
        return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))
    return torch.where(x < _LOBES, torch.sinc(x) * torch.sinc(x / _LOBES), 0.0)


def _picked(images_BHW3: torch.Tensor, x: Axis, y: Axis, size_px: int) -> torch.Tensor:
    """Nearest pixels. Pillow adds the step up from pixel to pixel, and so do we: a centre on an edge falls the same way."""
    (column_BS, is_inside_x_BS), (row_BS, is_inside_y_BS) = (_nearest(axis, size_px) for axis in (x, y))
    photo_B11 = torch.arange(len(images_BHW3), device=images_BHW3.device)[:, None, None]
    picked_BSS3 = images_BHW3[photo_B11, row_BS[:, :, None], column_BS[:, None, :]]
    levels_BSS3 = picked_BSS3 * (is_inside_y_BS[:, :, None] & is_inside_x_BS[:, None, :])[..., None]
    return levels_BSS3.permute(0, 3, 1, 2).float().contiguous()


def _nearest(axis: Axis, size_px: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The stored pixel of each pixel of the view, and whether there is one: [B, S] each."""
    position_BS, is_inside_BS = axis.positions(size_px)
    scale_B1 = (axis.length.double() / axis.resized)[:, None]
    steps_BR = scale_B1.expand(-1, axis.longest_px).clone()
    steps_BR[:, 0] *= 0.5
    pixel_BS = steps_BR.cumsum(1).gather(1, position_BS).long()
    return axis.start[:, None] + torch.minimum(pixel_BS, axis.length[:, None] - 1), is_inside_BS

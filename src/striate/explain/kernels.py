"""The kernels of the first convolution, which alone look at pixels: as a picture, and what each of them answers to.

Figure 3 of the AlexNet paper shows kernels that differ by frequency, orientation and colour, and that a network of two halves
sorts them: those of one half are mostly grey, those of the other mostly coloured. `facts` puts numbers to it.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from striate.errors import UserError, expect
from striate.explain import passes
from striate.taps import layer_names, taps
from striate.view import Colour

_FINE = 64  # side of the spectrum, to which a kernel is filled up with zeros: frequencies are read to 1/64 cycle per pixel
_GAP_PX = 1
_BETWEEN_GROUPS_PX = 8
_GAP_LEVEL = 255


@dataclass(frozen=True)
class Kernel:
    """What one kernel answers to.

    number: its output channel. group: of the channels that a layer behind sees together, from 0; 0 where there is one group.
    orientation: in degrees, 0 to below 180, of the direction in which its strongest wave runs, counted anticlockwise as the
    picture is seen: 0 for upright stripes, 90 for level ones. frequency: of that wave in cycles per pixel, 0 to 0.71.
    colour: share of its energy (sum of squares) that is not the same in all channels, 0 (grey) to 1. contrast: root mean square
    of its weights about each channel's mean, in units of the weights.
    """

    number: int
    group: int
    orientation: float
    frequency: float
    colour: float
    contrast: float


def first_layer(model: nn.Module, images: torch.Tensor | None = None) -> tuple[str, torch.Tensor]:
    """The first convolution: its name, and a copy of its weights on the CPU, [C_out, C_in, k, k] float32.

    The first by definition; where `images` [B, C, S, S] are given, the first that runs.
    Raises UserError for a network without a 2-d convolution.
    """
    name = next(iter(_convolutions(model, images)), None)
    if name is None:
        raise UserError(f"kernels: {passes.kind(model)} has no 2-d convolution whose kernels could be shown.")
    weight = model.get_submodule(name).get_parameter("weight")
    return name, weight.detach().float().cpu().clone()


def groups(model: nn.Module, images: torch.Tensor | None = None) -> NDArray[np.int64]:
    """The group of each kernel of the first convolution, [C_out] int64 from 0.

    Its own groups where it has any, else those of the next convolution that takes its channels: in AlexNet's two halves the
    second convolution sees the first or the second 48 kernels. A convolution that sees each channel by itself makes no groups.
    """
    names = _convolutions(model, images)
    layers = [model.get_submodule(name) for name in names[:2]]
    found = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    if not found:
        return np.zeros(0, np.int64)
    first, count = found[0], 1
    if first.groups > 1:
        count = first.groups
    elif len(found) > 1 and found[1].in_channels == first.out_channels and found[1].groups < found[1].in_channels:
        count = found[1].groups
    return np.arange(first.out_channels) // (first.out_channels // count)


def facts(weights: torch.Tensor, groups_C: NDArray[np.int64] | None = None) -> tuple[Kernel, ...]:
    """What each kernel answers to, in the order of the channels. weights: [C_out, C_in, k, k]. groups_C: [C_out], see `groups`.

    The strongest wave is where the kernel's spectrum (summed over its channels, each less its mean) is largest.
    """
    sizes = expect(weights, "C_out C_in h w", "kernels")
    weights_OCkk = weights.detach().cpu().double().numpy()
    groups_C = np.zeros(sizes["C_out"], np.int64) if groups_C is None else groups_C
    about_OCkk = weights_OCkk - weights_OCkk.mean(axis=(2, 3), keepdims=True)
    fine = max(_FINE, sizes["h"], sizes["w"])
    spectrum_OFf = (np.abs(np.fft.rfft2(about_OCkk, (fine, fine))) ** 2).sum(axis=1)
    grey_O = sizes["C_in"] * (weights_OCkk.mean(axis=1) ** 2).sum(axis=(1, 2))
    energy_O = (weights_OCkk**2).sum(axis=(1, 2, 3))
    up_F, right_f = -np.fft.fftfreq(fine), np.fft.rfftfreq(fine)  # rows count downwards
    found = []
    for number, spectrum_Ff in enumerate(spectrum_OFf):
        row, column = np.unravel_index(int(spectrum_Ff.argmax()), spectrum_Ff.shape)
        up, right = float(up_F[row]), float(right_f[column])
        energy = float(energy_O[number])
        found.append(
            Kernel(
                number,
                int(groups_C[number]),
                math.degrees(math.atan2(up, right)) % 180,
                math.hypot(up, right),
                max(0.0, 1 - float(grey_O[number]) / energy) if energy else 0.0,
                float(np.sqrt((about_OCkk[number] ** 2).mean())),
            )
        )
    return tuple(found)


def picture(
    weights: torch.Tensor,
    groups_C: NDArray[np.int64] | None = None,
    is_sorted: bool = False,
    weight_px: int = 4,
    colour: Colour = "rgb",
) -> NDArray[np.uint8]:
    """All kernels in tiles, the groups side by side: [H, W, 3] uint8.

    weights: [C_out, C_in, k, k]; of three channels they show as colours, of one as grey, of others as the grey of their mean.
    Each kernel is scaled by itself, its least weight black and its largest white. is_sorted: within a group from grey to
    coloured, and from coarse to fine among equals; else in the order of the channels. weight_px: side of each weight.
    colour: the order of the channels, as the view of the network says.
    """
    sizes = expect(weights, "C_out C_in h w", "kernels")
    if weight_px < 1:
        raise UserError(f"kernels: expected weights of 1 px or more, found {weight_px}.")
    levels_OCkk = weights.detach().cpu().float().numpy()
    if sizes["C_in"] != 3:
        levels_OCkk = np.repeat(levels_OCkk.mean(axis=1, keepdims=True), 3, axis=1)
    elif colour == "bgr":
        levels_OCkk = levels_OCkk[:, ::-1]
    kernels = facts(weights, groups_C)
    tiles = levels(levels_OCkk)
    parts = []
    for group in sorted({kernel.group for kernel in kernels}):
        members = [kernel for kernel in kernels if kernel.group == group]
        if is_sorted:
            members.sort(key=lambda kernel: (round(kernel.colour, 1), kernel.frequency, kernel.number))
        parts.append(tiled(tiles[[kernel.number for kernel in members]], weight_px))
    high = max(part.shape[0] for part in parts)
    gap = np.full((high, _BETWEEN_GROUPS_PX, 3), _GAP_LEVEL, np.uint8)
    row: list[NDArray[np.uint8]] = []
    for part in parts:
        filled = np.full((high, part.shape[1], 3), _GAP_LEVEL, np.uint8)
        filled[: part.shape[0]] = part
        row += [filled, gap]
    return np.concatenate(row[:-1], axis=1)


def levels(values_NCHW: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Each array from 0 (its least value, of all channels) to 255 (its largest); one value everywhere is mid-grey.

    values_NCHW: [N, C, H, W]. Returns [N, H, W, C] uint8.
    """
    low_N = values_NCHW.min(axis=(1, 2, 3), keepdims=True)
    span_N = values_NCHW.max(axis=(1, 2, 3), keepdims=True) - low_N
    share = np.divide(values_NCHW - low_N, span_N, out=np.full(values_NCHW.shape, 0.5), where=span_N > 0, casting="unsafe")
    tiles_NHWC: NDArray[np.uint8] = np.round(255 * share).astype(np.uint8).transpose(0, 2, 3, 1)
    return tiles_NHWC


def tiled(tiles_NHW3: NDArray[np.uint8], pixel_px: int) -> NDArray[np.uint8]:
    """Tiles in rows, about as many rows as columns, white between them: [H, W, 3] uint8. pixel_px: side of each pixel."""
    large = tiles_NHW3.repeat(pixel_px, axis=1).repeat(pixel_px, axis=2)
    count, high, wide, _ = large.shape
    columns = math.ceil(math.sqrt(count * high / wide))
    rows = math.ceil(count / columns)
    step_y, step_x = high + _GAP_PX, wide + _GAP_PX
    sheet = np.full((rows * step_y - _GAP_PX, columns * step_x - _GAP_PX, 3), _GAP_LEVEL, np.uint8)
    for number, tile in enumerate(large):
        top, left = number // columns * step_y, number % columns * step_x
        sheet[top : top + high, left : left + wide] = tile
    return sheet


class _Enough(Exception):
    """Two convolutions have run: the rest of the pass is not needed."""


def _convolutions(model: nn.Module, images: torch.Tensor | None) -> list[str]:
    """Names of the convolutions in the order of definition, or of the first two in the order in which they run."""
    names = list(layer_names(model, nn.Conv2d))
    if images is None:
        return names
    ran: list[str] = []

    def watching(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def look(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
            ran.append(name)
            if len(ran) == 2:
                raise _Enough

        return look

    before = {name: watching(name) for name in names}
    with contextlib.suppress(_Enough), passes.still(model, images), torch.no_grad(), taps(model, {}, before=before):
        model(images.clone())
    return ran

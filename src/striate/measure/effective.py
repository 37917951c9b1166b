"""What a unit really looks at: its effective receptive field, the share of the image that its value hangs on.

The theoretical field (`receptive`) says which pixels can matter at all. Of those, the ones in the middle reach the unit
on far more paths, so that the gradient falls off from there like a Gaussian, and the field in effect is much smaller.
Source: Luo, Li, Urtasun, Zemel 2016 (effective receptive field), sections 2 and 3.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from striate import machine
from striate.data import decode, views
from striate.data.layouts import detect
from striate.errors import DataError, UserError, nearest
from striate.measure import receptive
from striate.measure.listing import Subject
from striate.measure.receptive import Field
from striate.models import pretrained, sizes
from striate.taps import taps
from striate.view import IMAGENET_GREY_MEAN, IMAGENET_GREY_STD, IMAGENET_MEAN, IMAGENET_STD, View

# Share of the gradient within the square whose side is given: two standard deviations of a Gaussian, as in the paper.
HELD = 0.9545
# Photos of a folder that are used, and images of one pass.
_PHOTOS, _AT_ONCE = 16, 4


@dataclass(frozen=True, eq=False)
class Effective:
    """The effective receptive field of the unit in the middle of a layer's grid.

    map_SS: [S, S] float64, sum 1: mean over images of the absolute gradient of the unit's channels' sum with respect to a pixel,
    summed over the pixel's channels. unit: (row, column) on the grid. theoretical: what the unit can see.
    side_px: of the smallest square around the unit's middle that holds HELD of the map; cut off where the image ends.
    std_px: standard deviations of the map along height and width, about its own middle.
    """

    layer: str
    unit: tuple[int, int]
    map_SS: NDArray[np.float64]
    theoretical: Field
    side_px: int
    std_px: tuple[float, float]
    images: int

    @property
    def middle_px(self) -> tuple[float, float]:
        """Where the theoretical window has its middle, row and column; that of the image where the window is all of it."""
        window = self.theoretical.window(*self.unit)
        if window is None:
            return (self.map_SS.shape[0] - 1) / 2, (self.map_SS.shape[1] - 1) / 2
        return (window[0] + window[2] - 1) / 2, (window[1] + window[3] - 1) / 2

    def describe(self) -> str:
        """In words."""
        can = f"{self.theoretical.size_px} px" if not self.theoretical.is_whole else "the whole image"
        return (
            f"{self.layer}: the unit at {self.unit} can see {can}; {HELD:.1%} of its gradient lies in a square of "
            f"{self.side_px} px (standard deviation {self.std_px[0]:.1f} x {self.std_px[1]:.1f} px), mean of {self.images} "
            + ("photo" if self.images == 1 else "photos")
        )

    def to_json(self) -> dict[str, Any]:
        """The numbers without the map."""
        return {
            "layer": self.layer,
            "unit": self.unit,
            "theoretical_px": self.theoretical.sizes_px,
            "side_px": self.side_px,
            "held": HELD,
            "std_px": self.std_px,
            "images": self.images,
        }


def effective(model: nn.Module, images: torch.Tensor, layer: str | None = None) -> Effective:
    """The effective field of a layer's middle unit, by gradients in evaluation mode; the network is as before afterwards.

    images: [B, C, S, S] float32, normalised. layer: by name; None takes `receptive.last_conv`.
    Raises UserError when there is none, when `layer` names no layer with a grid, and when no gradient reaches the image.
    """
    size_px, channels = images.shape[-1], images.shape[1]
    found = receptive.fields(model, size_px, channels)
    name = receptive.last_conv(model, found) if layer is None else layer
    if name is None:
        raise UserError(f"{type(model).__name__}: it has no convolution that sees a part of the image only; name a layer.")
    if name not in found:
        raise UserError(f"'{name}' is no layer of this {type(model).__name__} that runs.{nearest(name, found)}")
    unit = (0, 0)
    values: list[torch.Tensor] = []

    def look(module: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        nonlocal unit
        if output.dim() != 4:
            raise UserError(f"'{name}': expected a layer with a grid, its output has the shape {list(output.shape)}.")
        unit = (output.shape[-2] // 2, output.shape[-1] // 2)
        values.append(output[:, :, unit[0], unit[1]].sum())  # at once: an in-place successor would change the output

    total_SS = torch.zeros(images.shape[-2:], dtype=torch.float64)
    with sizes.in_mode(model, False), taps(model, {name: look}), torch.enable_grad():
        for part in torch.split(images, _AT_ONCE):
            pixels = part.clone().requires_grad_()
            model(pixels)
            (gradient,) = torch.autograd.grad(values[-1], pixels, allow_unused=True)
            values.clear()
            if gradient is not None:
                total_SS += gradient.abs().sum((0, 1)).double()
    mass = float(total_SS.sum())
    if not 0 < mass < math.inf:
        raise UserError(f"'{name}': no finite gradient reaches the image from its middle unit; take another layer.")
    map_SS = (total_SS / mass).numpy()
    result = Effective(name, unit, map_SS, found[name], 0, _deviations(map_SS), len(images))
    return Effective(name, unit, map_SS, found[name], _held_px(map_SS, result.middle_px), result.std_px, len(images))


def _deviations(map_SS: NDArray[np.float64]) -> tuple[float, float]:
    found = []
    for axis in (1, 0):
        share_S = map_SS.sum(axis)
        place_S = np.arange(len(share_S))
        mean = float((share_S * place_S).sum())
        found.append(math.sqrt(max(0.0, float((share_S * (place_S - mean) ** 2).sum()))))
    return found[0], found[1]


def _held_px(map_SS: NDArray[np.float64], middle: tuple[float, float]) -> int:
    """Side of the smallest square around `middle` that holds HELD of the map. Pixels on its border count whole."""
    rows, columns = np.indices(map_SS.shape)
    away_SS = np.maximum(np.abs(rows - middle[0]), np.abs(columns - middle[1]))
    order = np.argsort(away_SS, axis=None)
    held = np.cumsum(map_SS.ravel()[order])
    return round(2 * float(away_SS.ravel()[order[int(np.searchsorted(held, HELD))]])) + 1


# ---------------------------------------------------------------- photos


@dataclass(frozen=True, eq=False)
class Looked:
    """An effective field on photos: the first of them as the network sees it, uint8 [S, S, 3], and what is to be said aloud."""

    field: Effective
    photo_SS3: decode.Pixels
    notes: tuple[str, ...]


def on_photos(
    subject: Subject, photos: Sequence[str | Path], *, weights: str | Path | None = None, layer: str | None = None
) -> Looked:
    """The effective field of a network over photos: files, or folders and data sets of which up to 16 are taken, evenly spread.

    weights: as `pretrained.load_into`; a run has its own; else the network is untrained, and a note says so.
    Raises UserError, DataError for a photo that cannot be read, CheckpointError for weights that do not fit.
    """
    source = weights if weights is not None else subject.folder
    with torch.random.fork_rng(devices=[]):
        machine.reseed_torch(0)  # untrained weights are the same ones each time
        model = subject.build()
    view, notes = subject.view, ["untrained weights: give --weights, or a run"]
    if source is not None:
        loaded = pretrained.load_into(model, subject.network, source, fresh_head=False, options=subject.options)
        notes = list(loaded.notes)
        view = loaded.view.for_size(subject.size_px) if loaded.view is not None else view
    view = view or _usual(subject.size_px, subject.channels)
    seen = [_photo(photo, read, view) for photo, read in _found(photos)]
    pixels = torch.from_numpy(np.stack(seen)).permute(0, 3, 1, 2)
    return Looked(effective(model, view.normalise(pixels, torch.float32), layer), seen[0], tuple(notes))


def _usual(size_px: int, channels: int) -> View:
    """How ImageNet networks see photos."""
    resize_px = round(size_px * 256 / 224)
    if channels == 1:
        return View(size_px, "crop", resize_px, "bilinear", True, IMAGENET_GREY_MEAN, IMAGENET_GREY_STD, "grey")
    return View(size_px, "crop", resize_px, "bilinear", True, IMAGENET_MEAN, IMAGENET_STD)


_Read = Callable[[], bytes | decode.Pixels]


def _found(photos: Sequence[str | Path]) -> list[tuple[str, _Read]]:
    """Where each photo lies, and how to read it."""
    found: list[tuple[str, _Read]] = []
    for photo in map(Path, photos):
        if photo.is_dir() or detect.is_stored(photo):
            index = detect.open_photos(photo)
            rows = range(0, len(index), max(1, len(index) // _PHOTOS))[:_PHOTOS]
            found += [(index.where(row), functools.partial(index.content, row)) for row in rows]
        else:
            found.append((str(photo), functools.partial(decode.read, photo)))
    return found


def _photo(where: str, read: _Read, view: View) -> decode.Pixels:
    try:
        return views.apply(decode.pixels(read(), view.exif), view)
    except decode.BadImage as error:
        raise DataError(f"{where}: {error}") from error

"""Many views of one photo, all cut from one decode: the crops that test-time averaging is made of.

A crop is said in words of the paper that had it first: how large the photo is (its shorter side), which square of it is
taken, where in that square the network's window lies, and whether it is mirrored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from striate.data import views
from striate.data.decode import Pixels
from striate.view import Interpolation, View, scaled_sides

Square = Literal["whole", "first", "middle", "last"]


@dataclass(frozen=True)
class Crop:
    """One view of a photo, S by S pixels.

    shorter_px: shorter side of the photo before it is cut. square: the whole photo, or a square of it as wide as its shorter
    side: the left or upper one, the middle, the right or lower one.
    x, y: where the window lies between the edges of that part, 0..1 each, 0.5 the middle; None for both: the part itself is
    resized to S by S, and the whole photo straight from its own size, as a view that squashes does it.
    is_mirrored: left and right exchanged.
    """

    shorter_px: int
    square: Square = "middle"
    x: float | None = 0.5
    y: float | None = 0.5
    is_mirrored: bool = False


def cut(photo_HW3: Pixels, crops: Sequence[Crop], size_px: int, interpolation: Interpolation) -> Pixels:
    """The crops of a photo in their order. uint8 [H, W, 3] to [V, S, S, 3]; each size of the photo is made once.

    The EXIF rule is `decode`'s affair. Raises BadImage when a resized photo would be too large.
    """
    out_VSS3 = np.empty((len(crops), size_px, size_px, 3), np.uint8)
    resized: dict[int, Pixels] = {}
    for number, crop in enumerate(crops):
        if crop.square == "whole" and crop.x is None:  # resizing twice would not give the squashed view's pixels
            window = views.resize(photo_HW3, size_px, size_px, interpolation)
        else:
            if crop.shorter_px not in resized:
                resized[crop.shorter_px] = at_shorter_side(photo_HW3, crop.shorter_px, interpolation)
            window = _window(_square(resized[crop.shorter_px], crop.square), crop, size_px, interpolation)
        out_VSS3[number] = window[:, ::-1] if crop.is_mirrored else window
    return out_VSS3


def at_shorter_side(photo_HW3: Pixels, shorter_px: int, interpolation: Interpolation) -> Pixels:
    """The photo with its shorter side at `shorter_px`, the aspect kept. Raises BadImage when that is too large."""
    height, width, _ = photo_HW3.shape
    return views.resize(photo_HW3, *scaled_sides(width, height, shorter_px), interpolation)


def centre(view: View) -> Crop:
    """The crop that `View` describes, for a view that keeps the aspect."""
    return Crop(view.resize_px, "whole")


def _square(photo_HW3: Pixels, square: Square) -> Pixels:
    """A part of the photo. The middle is rounded as torchvision's CenterCrop rounds it."""
    height, width, _ = photo_HW3.shape
    if square == "whole" or height == width:
        return photo_HW3
    side = min(height, width)
    spare = max(height, width) - side
    first = {"first": 0, "middle": round(spare / 2), "last": spare}[square]
    return photo_HW3[:, first : first + side] if width > height else photo_HW3[first : first + side]


def _window(part_HW3: Pixels, crop: Crop, size_px: int, interpolation: Interpolation) -> Pixels:
    height, width, _ = part_HW3.shape
    if crop.x is None or crop.y is None:
        return views.resize(part_HW3, size_px, size_px, interpolation)
    left, top = round((width - size_px) * crop.x), round((height - size_px) * crop.y)
    return part_HW3[top : top + size_px, left : left + size_px]

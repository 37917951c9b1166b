"""Applies a `View` to one photo: resize and crop, in Pillow's resampling, which is the reference everywhere.

The pixels equal torchvision's `Resize` and `CenterCrop` on PIL images bit for bit. The whole photo is resized even where a
crop follows: Pillow's `box` argument, which could save a part of the work, rounds its corners to float32 and changes pixels.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from PIL import Image

from striate.data.decode import BadImage, Pixels
from striate.view import Interpolation, View, scaled_sides

# Of a resized image and of Pillow's half-way image (new width, old height), unless the photo itself is larger. An 84-byte
# file of 1 x 1000 pixels would become 65 million at shorter side 256; 1 x 50,000 squashed to 224 x 224 takes 11 million half-way.
MAX_RESIZED_PIXELS: Final = 20_000_000

_RESAMPLING: Final[dict[Interpolation, Image.Resampling]] = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "nearest": Image.Resampling.NEAREST,
    "lanczos": Image.Resampling.LANCZOS,
}


def resize(image_HW3: Pixels, width: int, height: int, interpolation: Interpolation) -> Pixels:
    """The image in another size, antialiased when it shrinks. uint8 [H, W, 3] to [height, width, 3].

    An image that already has the size is returned itself, not a copy.
    Raises BadImage where the work takes more than MAX_RESIZED_PIXELS.
    """
    height_before, width_before, _ = image_HW3.shape
    if (width_before, height_before) == (width, height):
        return image_HW3
    if width * max(height, height_before) > max(MAX_RESIZED_PIXELS, width_before * height_before):
        raise BadImage(
            f"too long and thin: resizing {width_before} x {height_before} pixels to {width} x {height} needs more than "
            f"the limit of {MAX_RESIZED_PIXELS:,} pixels"
        )
    return np.asarray(_pillow(image_HW3).resize((width, height), _RESAMPLING[interpolation]))


def _pillow(image_HW3: Pixels) -> Image.Image:
    """A Pillow image of the same pixels; rows may be part of a wider image."""
    height, width, _ = image_HW3.shape
    return Image.frombytes("RGB", (width, height), image_HW3.tobytes())


def apply(image_HW3: Pixels, view: View) -> Pixels:
    """The photo as the network sees it, before normalisation. uint8 [H, W, 3] to [S, S, 3], C-contiguous.

    The EXIF rule of the view is `decode`'s affair. May return the image itself when nothing has to be done.
    Raises BadImage when the resized photo would be too large (a strip of 1 by 1000 pixels).
    """
    height, width, _ = image_HW3.shape
    resized = resize(image_HW3, *view.resized_sides(width, height), view.interpolation)
    if view.fit == "squash":
        return resized
    placement = view.placement(width, height)
    top, left, side = placement.top_px, placement.left_px, view.size_px
    return np.ascontiguousarray(resized[top : top + side, left : left + side])


def shrink(image_HW3: Pixels, shorter_px: int) -> Pixels:
    """The photo with its shorter side reduced to `shorter_px`, the aspect kept (bicubic); to store photos in less room.

    Unchanged when the shorter side is already that small, or when shorter_px is 0.
    """
    height, width, _ = image_HW3.shape
    if shorter_px <= 0 or min(width, height) <= shorter_px:
        return image_HW3
    return resize(image_HW3, *shrunk_sides(width, height, shorter_px), "bicubic")


def shrunk_sides(width: int, height: int, shorter_px: int) -> tuple[int, int]:
    """Width and height after `shrink`."""
    if shorter_px <= 0 or min(width, height) <= shorter_px:
        return width, height
    return scaled_sides(width, height, shorter_px)

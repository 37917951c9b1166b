"""Applies a `View` to one photo: resize and crop, in Pillow's resampling, which is the reference everywhere.

The pixels equal torchvision's `Resize` and `CenterCrop` on PIL images bit for bit. The whole photo is resized even where a
crop follows: Pillow's `box` argument, which could save a part of the work, rounds its corners to float32 and changes pixels.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from striate.data.decode import BadImage, Pixels
from striate.view import Interpolation, View, scaled_sides

# Of a resized image and of Pillow's half-way image (new width, old height), unless the photo itself is larger. An 84-byte
# file of 1 x 1000 pixels would become 65 million at shorter side 256; 1 x 50,000 squashed to 224 x 224 takes 11 million half-way.
MAX_RESIZED_PIXELS: Final = 20_000_000

# Levels by which the channels of a grey pixel may differ: a grey photo in a colour JPEG comes back with each of its two colour
# planes up to two levels off, which is six between blue and green. With 0, 1937 of the 100,000 training images of Tiny ImageNet
# are grey; with 6, 2121; from about 11 on there are tinted ones among them.
GREY_TOLERANCE: Final = 6

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
    return np.asarray(resized(pillow(image_HW3), width, height, interpolation))


def resized(image: Image.Image, width: int, height: int, interpolation: Interpolation) -> Image.Image:
    """`resize` from Pillow to Pillow, for those who go on in Pillow."""
    if image.size == (width, height):
        return image
    refuse_strip(image.width, image.height, width, height)
    return image.resize((width, height), _RESAMPLING[interpolation])


def refuse_strip(width_before: int, height_before: int, width: int, height: int) -> None:
    """Raises BadImage where a resize would take more than MAX_RESIZED_PIXELS."""
    if width * max(height, height_before) > max(MAX_RESIZED_PIXELS, width_before * height_before):
        raise BadImage(
            f"too long and thin: resizing {width_before} x {height_before} pixels to {width} x {height} needs more than "
            f"the limit of {MAX_RESIZED_PIXELS:,} pixels"
        )


def pillow(image_HW3: Pixels) -> Image.Image:
    """A Pillow image of the same pixels; rows may be part of a wider image."""
    height, width, _ = image_HW3.shape
    return Image.frombytes("RGB", (width, height), np.ascontiguousarray(image_HW3).data)


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


def is_grey(images_BHW3: Pixels) -> NDArray[np.bool_]:
    """Which images show no colour: in every pixel the three channels differ by at most GREY_TOLERANCE. Returns [B].

    Decided on the pixels that a network sees, so a coloured frame beside the crop does not count.
    """

    def are_equal(part_BHW3: Pixels) -> NDArray[np.bool_]:
        red, green, blue = part_BHW3[..., 0], part_BHW3[..., 1], part_BHW3[..., 2]
        widest = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
        return np.asarray((widest <= GREY_TOLERANCE).all((1, 2)))

    found_B = are_equal(images_BHW3[:, ::8, ::8])  # nearly every colour image is told by these
    found_B[found_B] = are_equal(images_BHW3[found_B])
    return found_B

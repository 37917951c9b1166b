"""Where the pixels of a training image come from: a random part of the photo, a mirror image, one affine warp."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from striate.data import views
from striate.data.decode import Pixels
from striate.view import Interpolation


class Affine(NamedTuple):
    """A warp about the centre: sheared, turned, then moved.

    angle, shear: degrees, clockwise as seen; shear is along x. right, down: pixels.
    """

    angle: float
    right: int
    down: int
    shear: float


def random_sides(
    width: int, height: int, scale: tuple[float, float], ratio: tuple[float, float], uniforms: Sequence[float]
) -> tuple[int, int]:
    """Width and height of the first random box that fits into width by height, or (0, 0).

    Area uniform within `scale` of the whole, logarithm of width over height uniform within `ratio`; two uniforms a try.
    Source: Szegedy et al. 2015, section 6; the tries as torchvision's RandomResizedCrop.
    """
    area = width * height
    low_area, high_area = scale
    low_log, high_log = math.log(ratio[0]), math.log(ratio[1])
    for area_uniform, ratio_uniform in zip(uniforms[::2], uniforms[1::2], strict=True):
        target = area * (low_area + area_uniform * (high_area - low_area))
        wide = math.exp(low_log + ratio_uniform * (high_log - low_log))
        box_width = round(math.sqrt(target * wide))
        box_height = round(math.sqrt(target / wide))
        if 0 < box_width <= width and 0 < box_height <= height:
            return box_width, box_height
    return 0, 0


def largest_sides(width: int, height: int, ratio: tuple[float, float]) -> tuple[int, int]:
    """The whole photo, its longer side cut until the ratio is allowed."""
    found = width / height
    if found < ratio[0]:
        return width, max(1, min(height, round(width / ratio[0])))
    if found > ratio[1]:
        return max(1, min(width, round(height * ratio[1]))), height
    return width, height


def cut(
    image_HW3: Pixels,
    part: tuple[int, int, int, int],
    resized: tuple[int, int],
    offset: tuple[int, int],
    shift: tuple[int, int],
    flipped: bool,
    side: int,
    interpolation: Interpolation,
) -> Image.Image:
    """A square of the photo: a part of it (left, top, width, height), resized, cut, moved and mirrored.

    offset: where the square begins within the resized part. shift: how far its content then moves right and down;
    what comes in is black. Raises BadImage where the resized part would be too large.
    """
    left, top, width, height = part
    # The part is cut out first, so that pixels beside it do not shine in, as torchvision's resized_crop.
    part_HW3 = image_HW3[top : top + height, left : left + width]
    image = views.resized(views.pillow(part_HW3), *resized, interpolation)
    if image.size != (side, side):
        image = image.crop((offset[0], offset[1], offset[0] + side, offset[1] + side))
    if shift != (0, 0):
        image = image.crop((-shift[0], -shift[1], side - shift[0], side - shift[1]))
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flipped else image


def moved(image_SS3: Pixels, shift: tuple[int, int], flipped: bool) -> Pixels:
    """What `cut` makes of a photo that has its size already, without the way through Pillow: moved and mirrored."""
    if shift != (0, 0):
        side, (right, down) = image_SS3.shape[0], shift
        wide, tall = max(0, side - abs(right)), max(0, side - abs(down))
        from_x, from_y, to_x, to_y = max(0, -right), max(0, -down), max(0, right), max(0, down)
        moved_SS3 = np.zeros_like(image_SS3)
        moved_SS3[to_y : to_y + tall, to_x : to_x + wide] = image_SS3[from_y : from_y + tall, from_x : from_x + wide]
        image_SS3 = moved_SS3
    return mirrored(image_SS3) if flipped else image_SS3


def mirrored(images: Pixels) -> Pixels:
    """Left and right exchanged: uint8 [..., H, W, 3], a new array.

    Moved as units of three bytes: numpy copies reversed rows byte by byte otherwise, three to four times slower.
    """
    units = images.view("V3")[..., ::-1, :]
    return np.ascontiguousarray(units).view(np.uint8)


def inverse_matrix(affine: Affine, side: int) -> tuple[float, float, float, float, float, float]:
    """The warp of a side by side image as Pillow wants it: where each point of the result comes from.

    x = a x' + b y' + c, y = d x' + e y' + f in pixel edges: the centre of the first pixel is (0.5, 0.5).
    The matrix of torchvision's `affine`: rotation after shear [[1, -tan], [0, 1]], about the centre, inverted.
    """
    turn, slant = math.radians(affine.angle), math.tan(math.radians(affine.shear))
    cos, sin = math.cos(turn), math.sin(turn)
    a, b, d, e = cos - sin * slant, cos * slant + sin, -sin, cos
    centre = side / 2
    moved_x, moved_y = -centre - affine.right, -centre - affine.down
    return a, b, a * moved_x + b * moved_y + centre, d, e, d * moved_x + e * moved_y + centre


def warp(image: Image.Image, affine: Affine) -> Image.Image:
    """The square image after the warp, bilinear; black where nothing came from, as in torchvision."""
    matrix = inverse_matrix(affine, image.width)
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=(0, 0, 0))

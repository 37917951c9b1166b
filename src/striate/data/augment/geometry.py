"""Where the pixels of a training image come from: a random part of the photo, a mirror image, one affine warp."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from striate.data.decode import Pixels


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


def move(image_SS3: Pixels, right: int, down: int) -> None:
    """Moves the content of a square within it; what comes in is black."""
    side = image_SS3.shape[0]
    wide, tall = max(0, side - abs(right)), max(0, side - abs(down))
    from_x, from_y, to_x, to_y = max(0, -right), max(0, -down), max(0, right), max(0, down)
    moved_SS3 = np.zeros_like(image_SS3)
    moved_SS3[to_y : to_y + tall, to_x : to_x + wide] = image_SS3[from_y : from_y + tall, from_x : from_x + wide]
    np.copyto(image_SS3, moved_SS3)


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

"""Parts of a training image taken away: a random rectangle of noise, or a square of one colour."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from striate import machine
from striate.data.decode import Pixels


class Rectangle(NamedTuple):
    """Pixels of an image: from (left, top) on, width by height of them."""

    left: int
    top: int
    width: int
    height: int


def random_rectangle(
    side: int, area: tuple[float, float], ratio: tuple[float, float], uniforms: Sequence[float]
) -> Rectangle | None:
    """The first random rectangle that is smaller than the image both ways, or None where no try gives one.

    Area uniform within `area` of the whole, logarithm of height over width uniform within `ratio`. uniforms: two for the
    place, then two for each try.
    Source: Zhong et al. 2020, section 3, with the ratio's logarithm and the number of tries of torchvision's RandomErasing.
    """
    low_log, high_log = math.log(ratio[0]), math.log(ratio[1])
    for area_uniform, ratio_uniform in zip(uniforms[2::2], uniforms[3::2], strict=True):
        target = side * side * (area[0] + area_uniform * (area[1] - area[0]))
        tall = math.exp(low_log + ratio_uniform * (high_log - low_log))
        width, height = round(math.sqrt(target / tall)), round(math.sqrt(target * tall))
        if width < side and height < side:
            return Rectangle(int(uniforms[0] * (side - width + 1)), int(uniforms[1] * (side - height + 1)), width, height)
    return None


def square_about(x: int, y: int, size: int, side: int) -> Rectangle:
    """A square about a pixel, as far as it lies within the image. Source: DeVries and Taylor 2017, section 3."""
    left, top = x - size // 2, y - size // 2
    right, bottom = min(left + size, side), min(top + size, side)
    left, top = max(left, 0), max(top, 0)
    return Rectangle(left, top, right - left, bottom - top)


def noise(number: int, width: int, height: int) -> Pixels:
    """Random colours, a pure function of the number: uint8 [height, width, 3], every value equally likely.

    Byte k, row by row, is byte k of the little-endian words of `machine.bits(0, "erase", 0, [number], …)`.
    """
    count = height * width * 3
    words = machine.bits(0, "erase", 0, np.array([number]), -(-count // 8))[0]
    values: Pixels = words.astype("<u8", copy=False).view(np.uint8)[:count]
    return values.reshape(height, width, 3)


def fill(image_SS3: Pixels, rectangle: Rectangle, colours: Pixels | tuple[int, int, int]) -> None:
    """Writes the colours into the rectangle of the image itself."""
    left, top, width, height = rectangle
    image_SS3[top : top + height, left : left + width] = colours

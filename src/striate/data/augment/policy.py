"""RandAugment and TrivialAugment: random operations with torchvision's set, strengths and Pillow results.

Source: Cubuk et al. 2020, section 3; Mueller and Hutter 2021, section 3 (the wide set); torchvision's RandAugment and
TrivialAugmentWide for what the papers leave open: 31 strengths, nearest pixel, black where nothing came from.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Final, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageFilter

from striate.data.augment import colour

Kind = Literal["randaugment", "trivialaugment"]
STRENGTHS: Final = 31

_ASIS: Final = bytes(range(256))


class Operation(NamedTuple):
    """One operation with its magnitude, in the unit that it has: slope, pixels, degrees, factor less 1, bits or level."""

    name: str
    magnitude: float


class _Range(NamedTuple):
    """What one operation's magnitude can be: STRENGTHS of them, or one; whether either sign."""

    name: str
    magnitudes: tuple[float, ...]
    signed: bool


@functools.lru_cache(maxsize=8)
def ranges(kind: Kind, side: int) -> tuple[_Range, ...]:
    """The 14 operations of a policy on images of side by side pixels. Magnitudes are float32, as torchvision's."""
    wide = kind == "trivialaugment"

    def up_to(most: float) -> tuple[float, ...]:
        return tuple(torch.linspace(0.0, most, STRENGTHS).tolist())

    slope, factor = up_to(0.99 if wide else 0.3), up_to(0.99 if wide else 0.9)
    pixels, degrees = up_to(32.0 if wide else 150.0 / 331.0 * side), up_to(135.0 if wide else 30.0)
    steps = (STRENGTHS - 1) / (6 if wide else 4)
    bits = tuple((8 - (torch.arange(STRENGTHS) / steps).round().int()).tolist())
    return (
        _Range("Identity", (0.0,), False),
        _Range("ShearX", slope, True),
        _Range("ShearY", slope, True),
        _Range("TranslateX", pixels, True),
        _Range("TranslateY", pixels, True),
        _Range("Rotate", degrees, True),
        _Range("Brightness", factor, True),
        _Range("Color", factor, True),
        _Range("Contrast", factor, True),
        _Range("Sharpness", factor, True),
        _Range("Posterize", tuple(float(value) for value in bits), False),
        _Range("Solarize", tuple(torch.linspace(255.0, 0.0, STRENGTHS).tolist()), False),
        _Range("AutoContrast", (0.0,), False),
        _Range("Equalize", (0.0,), False),
    )


def choose(kind: Kind, strength: int, side: int, uniforms: Sequence[float]) -> tuple[Operation, ...]:
    """One operation for each uniform, all equally likely. strength: of RandAugment, 0..30; TrivialAugment draws it each time."""
    table = ranges(kind, side)
    chosen = []
    for uniform in uniforms:
        # One uniform of 53 bits decides operation, strength and sign, as digits of one number.
        number, negative = divmod(int(uniform * len(table) * STRENGTHS * 2), 2)
        which, drawn = divmod(number, STRENGTHS)
        name, magnitudes, signed = table[which]
        level = drawn if kind == "trivialaugment" else strength
        magnitude = magnitudes[level] if len(magnitudes) > 1 else magnitudes[0]
        chosen.append(Operation(name, -magnitude if signed and negative else magnitude))
    return tuple(chosen)


def apply(image: Image.Image, operations: Sequence[Operation]) -> Image.Image:
    """The operations one after another on an RGB image."""
    for name, magnitude in operations:
        image = _FUNCTIONS[name](image, magnitude)
    return image


# ---------------------------------------------------------------- the operations


def inverse_matrix(operation: Operation, side: int) -> tuple[float, float, float, float, float, float] | None:
    """Where each point of a moved image comes from, as `geometry.inverse_matrix`; None for operations on colours."""
    name, magnitude = operation
    if name == "ShearX":  # about the upper left corner, as AutoAugment did it
        return 1.0, magnitude, 0.0, 0.0, 1.0, 0.0
    if name == "ShearY":
        return 1.0, 0.0, 0.0, magnitude, 1.0, 0.0
    if name == "TranslateX":
        return 1.0, 0.0, float(-int(magnitude)), 0.0, 1.0, 0.0
    if name == "TranslateY":
        return 1.0, 0.0, 0.0, 0.0, 1.0, float(-int(magnitude))
    if name == "Rotate":  # counter-clockwise about the centre, as Pillow turns
        turn = -math.radians(magnitude)
        cos, sin, centre = round(math.cos(turn), 15), round(math.sin(turn), 15), side / 2
        return cos, sin, centre - cos * centre - sin * centre, -sin, cos, centre + sin * centre - cos * centre
    return None


def _moved(name: str) -> Callable[[Image.Image, float], Image.Image]:
    def move(image: Image.Image, magnitude: float) -> Image.Image:
        matrix = inverse_matrix(Operation(name, magnitude), image.width)
        assert matrix is not None
        return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST, fillcolor=(0, 0, 0))

    return move


def _rotate(image: Image.Image, degrees: float) -> Image.Image:
    return image.rotate(degrees, Image.Resampling.NEAREST, fillcolor=(0, 0, 0))


def _sharpness(image: Image.Image, more: float) -> Image.Image:
    return Image.blend(image.filter(ImageFilter.SMOOTH), image, 1 + more)


def _posterize(image: Image.Image, bits: float) -> Image.Image:
    return colour.mapped(image, bytes(value & ~(2 ** (8 - int(bits)) - 1) & 255 for value in _ASIS))


def _solarize(image: Image.Image, threshold: float) -> Image.Image:
    return colour.mapped(image, bytes(value if value < threshold else 255 - value for value in _ASIS))


def autocontrast_table(counts_256: Sequence[int]) -> bytes:
    """What a channel with this histogram is stretched by: its darkest value to 0, its lightest to 255."""
    present = [value for value, count in enumerate(counts_256) if count]
    if len(present) < 2:
        return _ASIS
    scale = 255 / (present[-1] - present[0])
    return np.clip((np.arange(256) * scale + -present[0] * scale).astype(np.int64), 0, 255).astype(np.uint8).tobytes()


def equalize_table(counts_256: Sequence[int]) -> bytes:
    """What makes the values of a channel with this histogram about equally frequent; Pillow's rule."""
    present = [count for count in counts_256 if count]
    step = (sum(present) - present[-1]) // 255
    if step == 0:
        return _ASIS
    below_256 = np.cumsum([step // 2, *counts_256[:-1]])
    return bytes(np.minimum(below_256 // step, 255).astype(np.uint8))


def _by_channel(table: Callable[[Sequence[int]], bytes]) -> Callable[[Image.Image, float], Image.Image]:
    def change(image: Image.Image, _magnitude: float) -> Image.Image:
        counts = image.histogram()
        return colour.mapped(image, table(counts[:256]) + table(counts[256:512]) + table(counts[512:]))

    return change


_FUNCTIONS: Final[dict[str, Callable[[Image.Image, float], Image.Image]]] = {
    "Identity": lambda image, _: image,
    "ShearX": _moved("ShearX"),
    "ShearY": _moved("ShearY"),
    "TranslateX": _moved("TranslateX"),
    "TranslateY": _moved("TranslateY"),
    "Rotate": _rotate,
    "Brightness": lambda image, more: colour.brightness(image, 1 + more),
    "Color": lambda image, more: colour.saturation(image, 1 + more),
    "Contrast": lambda image, more: colour.contrast(image, 1 + more),
    "Sharpness": _sharpness,
    "Posterize": _posterize,
    "Solarize": _solarize,
    "AutoContrast": _by_channel(autocontrast_table),
    "Equalize": _by_channel(equalize_table),
}

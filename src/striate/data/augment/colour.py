"""Colours of a training image: brightness, contrast, saturation, hue, and AlexNet's lighting.

The results equal torchvision's on PIL images bit for bit.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Name = Literal["brightness", "contrast", "saturation", "hue"]

NAMES: Final[tuple[Name, ...]] = ("brightness", "contrast", "saturation", "hue")
# The 24 orders in which the four can run.
ORDERS: Final = tuple(itertools.permutations(NAMES))

# Principal axes of ImageNet's pixel colours in 0..1, each times its variance, red, green and blue of the first axis first.
# Source: the published numbers of fb.resnet.torch, datasets/imagenet.lua (eigenvectors in columns times eigenvalues).
_IMAGENET_VARIANCES: Final = (0.2175, 0.0188, 0.0045)
_IMAGENET_VECTORS: Final = ((-0.5675, -0.5808, -0.5836), (0.7192, -0.0045, -0.6948), (0.4009, -0.8140, 0.4203))
IMAGENET_AXES: Final = tuple(
    variance * part for variance, vector in zip(_IMAGENET_VARIANCES, _IMAGENET_VECTORS, strict=True) for part in vector
)

_IDENTITY: Final = bytes(range(256))


def mapped(image: Image.Image, table: bytes) -> Image.Image:
    """Every value replaced by its entry; a table of 256 for all channels, or 768 for red, green and blue."""
    return image.point(table * 3 if len(table) == 256 else table)


def grey_mean(image: Image.Image) -> int:
    """Mean luminance (ITU-R 601), rounded half up."""
    return int(int(np.asarray(image.convert("L")).sum(dtype=np.int64)) / (image.width * image.height) + 0.5)


def brightness(image: Image.Image, factor: float) -> Image.Image:
    """Blended with black: 0 gives black, 1 the image itself."""
    return Image.blend(Image.new("RGB", image.size), image, factor)


def contrast(image: Image.Image, factor: float) -> Image.Image:
    """Blended with its mean luminance: 0 gives a plain grey, 1 the image itself."""
    return Image.blend(Image.new("RGB", image.size, (grey_mean(image),) * 3), image, factor)


def saturation(image: Image.Image, factor: float) -> Image.Image:
    """Blended with its luminance: 0 gives a grey photo, 1 the image itself."""
    return Image.blend(image.convert("L").convert("RGB"), image, factor)


def hue(image: Image.Image, turn: float) -> Image.Image:
    """Hue turned by a share of the full circle, -0.5 to 0.5; in Pillow's HSV, whose hue has 256 steps."""
    steps = int(turn * 255) % 256
    return mapped(image.convert("HSV"), _IDENTITY[steps:] + _IDENTITY[:steps] + _IDENTITY * 2).convert("RGB")


_FUNCTIONS: Final[dict[Name, Callable[[Image.Image, float], Image.Image]]] = {
    "brightness": brightness,
    "contrast": contrast,
    "saturation": saturation,
    "hue": hue,
}


def jitter(image: Image.Image, changes: Sequence[tuple[Name, float]]) -> Image.Image:
    """The changes of colour, one after another, each with its factor (or turn, for hue)."""
    for name, factor in changes:
        image = _FUNCTIONS[name](image, factor)
    return image


# ---------------------------------------------------------------- lighting


def normals(uniforms: Sequence[float]) -> tuple[float, float, float]:
    """Three standard normal numbers from four uniforms in [0, 1). Source: Box and Muller 1958."""
    radius, other = math.sqrt(-2 * math.log(1 - uniforms[0])), math.sqrt(-2 * math.log(1 - uniforms[2]))
    angle = 2 * math.pi * uniforms[1]
    return radius * math.cos(angle), radius * math.sin(angle), other * math.cos(2 * math.pi * uniforms[3])


def lighting_offset(axes: Sequence[float], alphas: Sequence[float]) -> tuple[float, float, float]:
    """What is added to red, green and blue of every pixel, in 0..1: the sum of each axis times its alpha.

    axes: nine numbers, each principal axis times its variance, axis by axis. alphas: three, one an axis.
    Source: Krizhevsky et al. 2012, section 4.1.
    """
    red, green, blue = (sum(alpha * axes[3 * axis + channel] for axis, alpha in enumerate(alphas)) for channel in range(3))
    return red, green, blue


def lighten(image: Image.Image, offset: tuple[float, float, float]) -> Image.Image:
    """The offset (in 0..1) added to red, green and blue, rounded and kept within 0..255."""
    table_C256 = np.arange(256) + 255 * np.asarray(offset)[:, None]
    return mapped(image, np.clip(np.rint(table_C256), 0, 255).astype(np.uint8).tobytes())


def principal_axes(covariance_33: NDArray[np.float64]) -> tuple[float, ...]:
    """Nine numbers from the covariance of red, green and blue: each axis times its variance, largest variance first.

    The sign of an axis is free, and made the one whose parts add up to at least 0.
    """
    variances_3, vectors_33 = np.linalg.eigh(covariance_33)
    axes_33 = (vectors_33 * np.maximum(variances_3, 0)).T[::-1]
    axes_33 = np.where(axes_33.sum(axis=1, keepdims=True) < 0, -axes_33, axes_33)
    return tuple(float(value) for value in axes_33.ravel())

"""Small pictures for the page, as the network sees them, and the confusion matrix of many classes as one picture."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from striate.data import decode, views
from striate.view import View

_QUALITY = 82
_BLUE = (0, 114, 178)  # Okabe and Ito 2008, "blue"; the page's --heat


def seen_by_network(content: bytes | decode.Pixels, view: View, shrink_px: int, most_px: int) -> str | None:
    """The evaluation view of one photo as a JPEG data URI, at most `most_px` wide; None if the photo cannot be decoded.

    content: a file's bytes, or pixels. shrink_px: what the recipe reduces the shorter side of every image to; 0 leaves it.
    """
    try:
        pixels_SS3 = views.apply(views.shrink(decode.pixels(content, view.exif), shrink_px), view)
    except (decode.BadImage, ValueError):
        return None
    picture = Image.fromarray(pixels_SS3)
    if view.colour == "grey":
        picture = picture.convert("L")
    if picture.width > most_px:
        picture = picture.resize((most_px, most_px), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=_QUALITY, subsampling=0 if picture.width <= 64 else 2, optimize=True)
    return _uri("image/jpeg", file.getvalue())


def heat_map(shares_KK: np.ndarray) -> str:
    """A matrix of shares 0..1 as a PNG data URI, one pixel per cell: clear at 0, full blue at 1, by square root.

    The picture is transparent, so that it stands on light and on dark paper.
    """
    levels_KK = np.round(255 * np.sqrt(np.clip(shares_KK, 0, 1))).astype(np.uint8)
    picture = Image.frombytes("P", levels_KK.shape[::-1], levels_KK.tobytes())
    picture.putpalette(bytes(_BLUE) * 256)
    file = io.BytesIO()
    picture.save(file, "PNG", transparency=bytes(range(256)), optimize=True)
    return _uri("image/png", file.getvalue())


def spread(labels_N: np.ndarray, most: int) -> list[int]:
    """At most `most` rows of a set, spread evenly over its classes and within each; ordered by class."""
    classes = [int(label) for label in np.unique(labels_N) if label >= 0]
    if not classes:
        return [int(row) for row in _even(np.arange(len(labels_N)), most)]
    chosen = [int(label) for label in _even(np.array(classes), most)]
    each = max(1, most // len(chosen))
    return [int(row) for label in chosen for row in _even(np.flatnonzero(labels_N == label), each)]


def _even(values_N: np.ndarray, most: int) -> Sequence[int]:
    """At most `most` of the values, at equal distances."""
    count = min(most, len(values_N))
    return [int(values_N[place * len(values_N) // count]) for place in range(count)]


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"

"""Letters of pictures: their font, and how wide a text comes out."""

from __future__ import annotations

import functools
from importlib import resources

from PIL import ImageFont


@functools.cache
def font(size_px: int, is_bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib and knows most alphabets."""
    fonts = resources.files("matplotlib") / "mpl-data" / "fonts" / "ttf"
    with resources.as_file(fonts / f"DejaVuSans{'-Bold' if is_bold else ''}.ttf") as path:
        return ImageFont.truetype(str(path), size_px)


def width(text: str, size_px: int, is_bold: bool = False) -> float:
    """Width of a text in this font, which is wider than those that a browser takes: so nothing grows out of its place."""
    return round(font(size_px, is_bold).getlength(text), 1)


def wrapped(text: str, size_px: int, wide: float) -> list[str]:
    """The words in lines of at most that width."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and width(longer, size_px) <= wide:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines

"""One picture of what training makes of some photos, to be looked at before anyone trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Final

from PIL import Image, ImageDraw, ImageFont

from striate.data.decode import Pixels
from striate.errors import printable

_LEAST_CELL: Final = 128  # smaller views are shown in whole multiples, each pixel a square
_GAP, _MARGIN, _LINE = 8, 16, 15
_PAPER, _INK, _QUIET, _EDGE = (255, 255, 255), (20, 20, 20), (110, 110, 110), (0, 114, 178)


@dataclass(frozen=True, eq=False)
class Cell:
    """One picture of the mosaic, uint8 [S, S, 3] or [S, S, 1], and a few words on how it came about."""

    pixels_SSC: Pixels
    words: str


@dataclass(frozen=True, eq=False)
class Photo:
    """One line of the mosaic: the photo as evaluation sees it, and as training gets it time after time."""

    title: str
    evaluated: Cell
    trained: Sequence[Cell]


def drawn(photos: Sequence[Photo], caption: Sequence[str]) -> Image.Image:
    """The picture: a caption, then a line for each photo. All cells have one size."""
    side = photos[0].evaluated.pixels_SSC.shape[0]
    times = max(1, -(-_LEAST_CELL // side))
    cell = side * times
    body, small, bold = _font(12), _font(10), _font(13, "-Bold")
    lines = [[_wrapped(one.words, small, cell) for one in (photo.evaluated, *photo.trained)] for photo in photos]
    heights = [_LINE + 5 + cell + 13 * max(map(len, words)) + 14 for words in lines]
    columns = 1 + max(len(photo.trained) for photo in photos)
    width = 2 * _MARGIN + columns * cell + columns * _GAP  # the evaluated view stands apart by one more gap
    told = [line for text in caption for line in _wrapped(text, body, width - 2 * _MARGIN)]
    top = _MARGIN + len(told) * (_LINE + 2) + 8
    picture = Image.new("RGB", (width, top + sum(heights) + _MARGIN - 14), _PAPER)
    pen = ImageDraw.Draw(picture)
    for number, line in enumerate(told):
        pen.text((_MARGIN, _MARGIN + number * (_LINE + 2)), line, _INK, bold if number == 0 else body)
    for photo, words, height in zip(photos, lines, heights, strict=True):
        pen.text((_MARGIN, top), _cut(printable(photo.title), body, width - 2 * _MARGIN), _INK, body)
        for column, (one, below) in enumerate(zip((photo.evaluated, *photo.trained), words, strict=True)):
            left, upper = _MARGIN + column * (cell + _GAP) + (_GAP if column else 0), top + _LINE + 5
            picture.paste(_enlarged(one.pixels_SSC, times), (left, upper))
            if column == 0:
                pen.rectangle((left - 2, upper - 2, left + cell + 1, upper + cell + 1), outline=_EDGE, width=2)
            for number, line in enumerate(below):
                pen.text((left, upper + cell + 3 + 13 * number), line, _QUIET, small)
        top += height
    return picture


def _enlarged(pixels_SSC: Pixels, times: int) -> Image.Image:
    """Every pixel as a square of times by times; nothing is smoothed."""
    side, _, channels = pixels_SSC.shape
    picture = Image.frombytes("RGB" if channels == 3 else "L", (side, side), pixels_SSC.tobytes())
    return picture.convert("RGB").resize((side * times, side * times), Image.Resampling.NEAREST)


def _font(size_px: int, style: str = "") -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib and knows most alphabets."""
    fonts = resources.files("matplotlib") / "mpl-data" / "fonts" / "ttf"
    with resources.as_file(fonts / f"DejaVuSans{style}.ttf") as path:
        return ImageFont.truetype(str(path), size_px)


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """The words in lines of at most that width; a longer word is cut."""
    lines: list[str] = []
    for word in printable(text).split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(_cut(word, font, width))
    return lines


def _cut(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"

"""One picture of what training makes of some photos, to be looked at before anyone trains: how it is drawn and written."""

from __future__ import annotations

import bisect
import io
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from striate.data.decode import Pixels
from striate.errors import UserError, printable
from striate.files import refuse, write_whole
from striate.report.augmented import Photo

_LEAST_CELL: Final = 128  # smaller views are shown in whole multiples, each pixel a square
_GAP, _MARGIN, _LINE = 8, 16, 15
_SOFTWARE: Final = "striate data show"
_PAPER, _INK, _QUIET, _EDGE = (255, 255, 255), (20, 20, 20), (110, 110, 110), (0, 114, 178)


def check_place(path: Path, data: str) -> None:
    """Raises UserError where the picture would lie among the data, or replace something that is not such a picture."""
    if Path(data).is_dir() and path.resolve().is_relative_to(Path(data).resolve()):
        raise UserError(f"{path}: lies in the data folder {data}, which is never written to. Name another place: --out FILE.png")
    if path.suffix.lower() != ".png":
        raise UserError(f"--out {path}: expected the name of a PNG file, as in --out {path.with_suffix('.png')}")
    if path.exists() and not _is_ours(path):
        raise UserError(f"{path}: exists, and is no picture of striate data show. Move it away, or name another: --out FILE.png")


def _is_ours(path: Path) -> bool:
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            return picture.info.get("Software") == _SOFTWARE
    except (OSError, ValueError, SyntaxError):
        return False


def write(path: Path, photos: Sequence[Photo], caption: Sequence[str]) -> None:
    """Writes the picture as a PNG, whole or not at all. Raises UserError or ResourceError where that fails."""
    signed = PngImagePlugin.PngInfo()
    signed.add_text("Software", _SOFTWARE)
    file = io.BytesIO()
    drawn(photos, caption).save(file, "PNG", pnginfo=signed)
    try:
        write_whole(path, file.getvalue())
    except OSError as error:
        raise refuse(error, path, "writing the picture") from error


def drawn(photos: Sequence[Photo], caption: Sequence[str]) -> Image.Image:
    """The picture: a caption, its first line in bold, then a line for each photo. All views have one size."""
    side = photos[0].evaluated.pixels_SSC.shape[0]
    times = max(1, -(-_LEAST_CELL // side))
    cell = side * times
    body, small, bold = _font(12), _font(10), _font(13, "-Bold")
    lines = [[_wrapped(one.words, small, cell) for one in (photo.evaluated, *photo.trained)] for photo in photos]
    heights = [_LINE + 5 + cell + 13 * max(map(len, words)) + 14 for words in lines]
    columns = 1 + max(len(photo.trained) for photo in photos)
    width = 2 * _MARGIN + columns * cell + columns * _GAP  # the evaluated view stands apart by one more gap
    told = [
        (line, font)
        for text, font in zip(caption, (bold, *(body for _ in caption[1:])), strict=True)
        for line in _wrapped(text, font, width - 2 * _MARGIN)
    ]
    top = _MARGIN + len(told) * (_LINE + 2) + 8
    picture = Image.new("RGB", (width, top + sum(heights) + _MARGIN - 14), _PAPER)
    pen = ImageDraw.Draw(picture)
    for number, (line, font) in enumerate(told):
        pen.text((_MARGIN, _MARGIN + number * (_LINE + 2)), line, _INK, font)
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
    letters = bisect.bisect_right(range(len(text)), width, key=lambda count: font.getlength(text[:count] + "…"))
    return text[: max(letters - 1, 0)] + "…"

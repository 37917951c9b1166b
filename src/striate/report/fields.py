"""Receptive fields over a photo: a frame around what a unit can see, and as heat what its value hangs on."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from striate import files
from striate.errors import UserError
from striate.measure.effective import HELD, Looked
from striate.report.letters import font, wrapped

_SIDE, _GAP, _MARGIN, _LINE = 420, 22, 24, 19  # pixels; a photo is enlarged to about _SIDE
_ABREAST = 3
_PAPER, _INK, _QUIET = "#ffffff", "#1b1f24", "#59626d"
_CAN, _HELD = "#0072b2", "#d55e00"  # Okabe and Ito 2008: blue and vermilion


def check_place(path: Path) -> None:
    """Raises UserError for a name that is not that of a PNG."""
    if path.suffix.lower() != ".png":
        raise UserError(f"--out {path}: the fields are drawn over a photo; give a name that ends in .png.")


def write_fields(path: Path, name: str, looked: Sequence[Looked]) -> Path:
    """Writes the fields of one or several layers of a network over the first photo, whole or not at all. Returns the path.

    Raises UserError for another ending than .png and where the file cannot be written.
    """
    check_place(path)
    file = io.BytesIO()
    drawn(name, looked).save(file, "PNG", optimize=True)
    files.write_whole(path, file.getvalue())
    return path


def drawn(name: str, looked: Sequence[Looked]) -> Image.Image:
    """A panel for each layer, below them what is to be read from them."""
    panels = [_panel(one) for one in looked]
    columns = min(_ABREAST, len(panels))
    rows = -(-len(panels) // columns)
    wide = max(columns * panels[0].width + (columns - 1) * _GAP, 520)
    lines = [line for one in _notes(looked) for line in wrapped(one, 14, wide)]
    cell = panels[0].height + 2 * _LINE + 14
    high = 46 + rows * (cell + _GAP) + _LINE * len(lines)
    picture = Image.new("RGB", (wide + 2 * _MARGIN, high + 2 * _MARGIN), _PAPER)
    draw = ImageDraw.Draw(picture)
    draw.text((_MARGIN, _MARGIN), f"{name}: what a unit sees", _INK, font(22, True))
    for place, (one, panel) in enumerate(zip(looked, panels, strict=True)):
        x = _MARGIN + place % columns * (panel.width + _GAP)
        y = _MARGIN + 46 + place // columns * (cell + _GAP)
        draw.text((x, y), one.field.layer, _INK, font(16, True))
        draw.text((x, y + _LINE + 2), _sizes(one), _QUIET, font(14))
        picture.paste(panel, (x, y + 2 * _LINE + 10))
    for row, line in enumerate(lines):
        draw.text((_MARGIN, high + _MARGIN - _LINE * (len(lines) - row)), line, _QUIET, font(14))
    return picture


def _panel(looked: Looked) -> Image.Image:
    """The photo with the heat over it, and the two frames where they lie within it."""
    photo_SS3 = looked.photo_SS3
    side = photo_SS3.shape[0]
    times = max(1, round(_SIDE / side))
    shape = (side * times, side * times)
    picture = (
        Image.fromarray(photo_SS3)
        .convert("RGB")
        .resize(shape, Image.Resampling.BICUBIC if times < 4 else Image.Resampling.NEAREST)
    )
    heat_SS = np.sqrt(
        looked.field.map_SS / looked.field.map_SS.max()
    )  # the tails are most of the map and hardly any of its height
    veil = Image.fromarray(np.round(230 * heat_SS).astype(np.uint8)).resize(shape, Image.Resampling.BICUBIC)
    grey = picture.convert("L").convert("RGB")
    picture = Image.composite(Image.fromarray(_coloured(np.asarray(veil))), Image.blend(picture, grey, 0.85), veil)
    draw = ImageDraw.Draw(picture)
    half = looked.field.side_px / 2
    middle = looked.field.middle_px
    _frame(draw, (middle[0] + 0.5 - half, middle[1] + 0.5 - half, middle[0] + 0.5 + half, middle[1] + 0.5 + half), times, _HELD)
    window = looked.field.theoretical.window(*looked.field.unit)
    if window is not None:
        _frame(draw, window, times, _CAN)
    return picture


def _coloured(levels_SS: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Heat from dark red over orange to pale yellow, which gets lighter all the way, so that it also reads in grey."""
    stops = np.array([[70, 0, 20], [213, 94, 0], [255, 190, 40], [255, 250, 200]], float)
    place_SS = levels_SS / 230 * (len(stops) - 1)
    return np.stack([np.interp(place_SS, range(len(stops)), stops[:, channel]) for channel in range(3)], -1).astype(np.uint8)


def _frame(draw: ImageDraw.ImageDraw, window: tuple[float, float, float, float], times: int, colour: str) -> None:
    """A frame around pixels top, left, bottom, right, in white and colour; the parts beyond the photo are not there."""
    top, left, bottom, right = (round(side * times) for side in window)
    for grow, ink, heavy in ((1, "#ffffff", 5), (0, colour, 3)):
        draw.rectangle((left - grow, top - grow, right - 1 + grow, bottom - 1 + grow), outline=ink, width=heavy)


def _sizes(looked: Looked) -> str:
    theoretical = looked.field.theoretical
    can = "the whole image" if theoretical.sizes_px is None else "×".join(map(str, theoretical.sizes_px)) + " px"
    return f"can see {can}; in effect {looked.field.side_px} px"


def _notes(looked: Sequence[Looked]) -> list[str]:
    """How to read the picture."""
    images = looked[0].field.images
    side = looked[0].field.map_SS.shape[0]
    lines = [
        "Blue: what the middle unit of the layer can see (theoretical receptive field). Orange: the square around its middle "
        f"that holds {HELD:.0%} of its gradient (effective field). Heat: the gradient at each pixel, by square root.",
        f"Input {side}×{side} px; mean over {images} photo{'s' if images > 1 else ''}, drawn over the first.",
    ]
    beyond = [one.field.layer for one in looked if _is_beyond(one)]
    lines += [f"The blue frame lies outside the photo, wholly or in part: {', '.join(beyond)}."] if beyond else []
    return lines + list(dict.fromkeys(note for one in looked for note in one.notes))


def _is_beyond(looked: Looked) -> bool:
    window = looked.field.theoretical.window(*looked.field.unit)
    side = looked.field.map_SS.shape[0]
    return window is not None and (min(window[:2]) < 0 or max(window[2:]) > side)

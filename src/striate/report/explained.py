"""The page of an explanation: photos, the heatmaps over them in the photo's own pixels, and how far each map is to be trusted.

A map is drawn from its least value, where the photo shows through, to its largest. The photo under it loses most of its colour,
so that the colours seen are the map's. What lies beside the network's view is darker, and the view has a frame.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Final

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from striate import files, geometry
from striate.classes import Classes
from striate.data.decode import Pixels
from striate.errors import expect, printable
from striate.explain.heatmap import Heatmap, scaled
from striate.explain.maps import METHODS
from striate.report import templates
from striate.view import View

MOST: Final = 200  # photos of a page; of more the pictures are files only
_SMALL_PX, _LARGE_PX = 224, 440  # longer side of a picture of the page: smaller photos are enlarged, larger ones reduced
_QUALITY: Final = 82
_FADED: Final = 0.7  # how much of its colour the photo loses under a map
_DARKER: Final = 0.45  # beside the view
_MOST_OPAQUE: Final = 0.8
# The values of a map of single pixels have long tails: a few bright ones would leave the rest of it black.
# Source of the percentile: Smilkov et al. 2017, section 3.1.
_PIXEL_PERCENTILE: Final = 99.0
_PIXEL_METHODS: Final = frozenset({"gradient", "smoothgrad", "integrated-gradients"})

# What is to be known of a method's maps beside what its entry in `maps.METHODS` says.
_REMARKS: Final = {
    "cam": "Drawn from the least value of the map to its largest, so what shows little may speak against the class.",
    "integrated-gradients": "The parts have a sign and are drawn by magnitude: what speaks for the class and what speaks against "
    "it look alike.",
    "occlusion": "Where hiding a place raises the score, the drop is negative and drawn as the least.",
}


@dataclass(frozen=True, eq=False)
class Map:
    """The heatmap of one class, as drawn. probability: of that class, 0..1. role: words before it, as "evidence for".

    sanity: how far the map is to be trusted, in a sentence, and numbers: the same for machines; empty where nobody looked.
    file: the PNG's name beside the page. uri: the same for the page; empty where the page does not show it.
    """

    heatmap: Heatmap
    probability: float
    role: str
    sanity: str
    numbers: Mapping[str, Any]
    file: str
    uri: str


@dataclass(frozen=True, eq=False)
class Item:
    """One photo: the class that the network named (in its order) with its probability, the true one or -1, and the maps.

    uri: of the photo itself. notes: what is to be known of it, such as that it was enlarged.
    """

    key: str
    predicted: int
    probability: float
    true: int
    maps: tuple[Map, ...]
    notes: tuple[str, ...]
    uri: str


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture of the network's insides. file: its PNG's name beside the page."""

    title: str
    words: str
    file: str
    pixels_HW3: Pixels


@dataclass(frozen=True, eq=False)
class Group:
    """Photos under one heading. intro: a sentence on how they were chosen."""

    title: str
    intro: str
    items: tuple[Item, ...]


@dataclass(frozen=True, eq=False)
class Page:
    """All that the page says. facts: names and values for its head. view: in words. bad: (key, reason) of unreadable photos."""

    title: str
    classes: Classes
    facts: tuple[tuple[str, str], ...]
    view: str
    method: str
    groups: tuple[Group, ...]
    pictures: tuple[Picture, ...] = ()
    notes: tuple[str, ...] = ()
    bad: Sequence[tuple[str, str]] = ()


def write(page: Page, path: Path) -> None:
    """Writes the page, complete in itself: no script, no network, at most `MOST` photos.

    Raises UserError or ResourceError where it cannot be written.
    """
    count = sum(len(group.items) for group in page.groups)
    groups, left = [], MOST
    for group in page.groups:
        groups.append(replace(group, items=group.items[:left]))
        left -= len(groups[-1].items)
    values = {
        "page": page,
        "groups": groups,
        "is_judged": len(page.groups) > 1,
        "title_of": page.classes.title,
        "unshown": max(0, count - MOST),
        "method": METHODS[page.method],
        "remark": _REMARKS.get(page.method, ""),
        "is_clipped": page.method in _PIXEL_METHODS,
        "is_checked": any(one.sanity for group in page.groups for item in group.items for one in item.maps),
        "legend": _uri("png", _png(Image.fromarray(_legend()))),
        "pictures": [(one, _uri("png", _png(Image.fromarray(one.pixels_HW3)))) for one in page.pictures],
        "bad": list(page.bad)[:MOST],
        "more_bad": max(0, len(page.bad) - MOST),
    }
    sheet = templates.style("chart.css", "report.css", "explained.css")
    text = templates.page(templates.templates(), "explained.html.jinja", sheet, values)
    files.write_whole(path, text.encode("utf-8", "backslashreplace"))  # a file name need not be UTF-8


def write_picture(path: Path, pixels_HW3: Pixels) -> None:
    """Writes a PNG, whole or not at all. Raises UserError or ResourceError where it cannot be written."""
    files.write_whole(path, _png(Image.fromarray(pixels_HW3)))


def file_name(key: str, suffix: str, taken: Collection[str]) -> str:
    """A PNG's name from a photo's key: its last two parts in plain letters, numbered where such a name is taken.

    taken: names in lower case, since some disks do not tell cases apart.
    """
    parts = [part for part in PurePosixPath(key).with_suffix("").parts[-2:] if part not in {"/", ".", ".."}]
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(parts)).strip(".-")[-80:] or "photo"
    name, number = f"{plain}{suffix}.png", 1
    while name.lower() in taken:
        number += 1
        name = f"{plain}{suffix}-{number}.png"
    return name


# ---------------------------------------------------------------- drawing


def overlay(photo_HW3: Pixels, heatmap: Heatmap, times: int = 1) -> Pixels:
    """The map over the whole photo, the network's view framed. uint8 [H, W, 3] to [times H, times W, 3].

    times: how many pixels wide each pixel of the photo is drawn. Raises UserError where the map is of a photo of other sides.
    """
    expect(photo_HW3, f"{heatmap.height} {heatmap.width} 3", f"photo {printable(heatmap.key)}".rstrip())
    size = (heatmap.width * times, heatmap.height * times)
    heat_HW = replace(heatmap, values_hw=drawn_values(heatmap)).on_photo()
    level_HW = np.round(255 * heat_HW.clip(0, 1)).astype(np.uint8)
    levels = Image.fromarray(level_HW)
    photo = Image.fromarray(photo_HW3)
    base = Image.blend(photo, photo.convert("L").convert("RGB"), _FADED)
    if times > 1:  # the photo's pixels are shown as they are; between the values of a map, values are known
        base, levels = base.resize(size, Image.Resampling.NEAREST), levels.resize(size, Image.Resampling.BILINEAR)
    seen_4 = seen_of(heatmap.view, heatmap.width, heatmap.height)
    is_whole = seen_4 == (0, 0, heatmap.width, heatmap.height)
    (left, right), (top, bottom) = (
        _edges(low * times, high * times, side) for low, high, side in zip(seen_4[:2], seen_4[2:], size, strict=True)
    )
    if not is_whole:
        beside = Image.new("L", size, round(255 * _DARKER))
        beside.paste(0, (left, top, right, bottom))
        base = Image.composite(Image.new("RGB", size), base, beside)
    colours_V3, opacity_V = _colours()
    at = np.asarray(levels)
    drawn = Image.composite(Image.fromarray(colours_V3[at]), base, Image.fromarray(opacity_V[at]))
    if not is_whole:
        narrow, white = min(right - left, bottom - top), (255, 255, 255)
        heavy = max(1, min(round(max(size) / 300), narrow // 2))
        pen = ImageDraw.Draw(drawn)
        # Filled where the frame leaves nothing within it: there Pillow draws an outline beyond its box.
        pen.rectangle((left, top, right - 1, bottom - 1), white if narrow <= 2 * heavy else None, white, heavy)
        if narrow > 8 * heavy:  # a dark line within the light one: one of them shows on every photo
            pen.rectangle((left + heavy, top + heavy, right - 1 - heavy, bottom - 1 - heavy), outline=(0, 0, 0), width=heavy)
    return np.asarray(drawn)


def seen_of(view: View, width: int, height: int) -> tuple[float, float, float, float]:
    """The part of a photo that the network saw: a box in pixels of the photo, clipped to it."""
    box_14 = view.placement(width, height).box_to_photo([[0, 0, view.size_px, view.size_px]])
    left, top, right, bottom = geometry.clip(box_14, width, height)[0].tolist()
    return left, top, right, bottom


def _edges(low: float, high: float, side: int) -> tuple[int, int]:
    """Two edges on whole pixels of a side, nearest to where they are and a pixel or more apart."""
    first, last = round(low), round(high)
    if first >= last:  # less than a pixel of a photo was seen
        first = min(int((low + high) / 2), side - 1)
        last = first + 1
    return first, last


def drawn_values(heatmap: Heatmap) -> NDArray[np.float32]:
    """The map's values as they are drawn, [h, w] float32 in 0..1, from the least to the largest.

    Of maps of single pixels, all values above the 99th percentile are drawn as the largest.
    """
    values_hw = heatmap.values_hw
    if heatmap.method in _PIXEL_METHODS:
        top = float(np.percentile(values_hw, _PIXEL_PERCENTILE))
        values_hw = values_hw.clip(None, top) if top > values_hw.min() else values_hw
    drawn_hw: NDArray[np.float32] = scaled(values_hw[None])[0]
    return drawn_hw


def on_page(photo_HW3: Pixels, heatmap: Heatmap | None = None) -> str:
    """The photo, with a map over it if there is one, as a JPEG data URI of a size for the page."""
    height, width, _ = photo_HW3.shape
    times = max(1, -(-_SMALL_PX // max(height, width)))
    if heatmap is not None:
        picture = Image.fromarray(overlay(photo_HW3, heatmap, times))
    else:
        picture = Image.fromarray(photo_HW3).resize((width * times, height * times), Image.Resampling.NEAREST)
    picture.thumbnail((_LARGE_PX, _LARGE_PX), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=_QUALITY, subsampling=0, optimize=True)
    return _uri("jpeg", file.getvalue())


def _colours() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Of each level 0..255 its colour, [256, 3], and its opacity, [256]: an even part of inferno, from purple to yellow."""
    level_V = np.linspace(0, 1, 256)
    colours_V4 = matplotlib.colormaps["inferno"](0.3 + 0.6 * level_V)
    return np.round(255 * colours_V4[:, :3]).astype(np.uint8), np.round(255 * _MOST_OPAQUE * level_V).astype(np.uint8)


def _legend() -> NDArray[np.uint8]:
    """The scale over middle grey: [1, 256, 3] uint8."""
    colours_V3, opacity_V = _colours()
    share_V1 = opacity_V[:, None] / 255
    return np.round(colours_V3 * share_V1 + 128 * (1 - share_V1)).astype(np.uint8)[None]


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=4)
    return file.getvalue()


def _uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"

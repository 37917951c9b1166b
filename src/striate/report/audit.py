"""`audit.html`: what an audit found, in one file that needs nothing else, and the same in a few words for a terminal."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from striate import files, geometry
from striate.data import decode
from striate.data.audit.audit import Audit, to_json
from striate.data.audit.checks import BOX_SLACK_PX, Defect
from striate.data.decode import BadImage
from striate.data.index import UNLABELLED
from striate.report import templates

PICTURES: Final = 24  # of one defect
GROUPS: Final = 12  # of duplicates, with at most OF_GROUP pictures each
OF_GROUP: Final = 4
LINES: Final = 50  # of things that have no picture
_PX: Final = 128  # longer side of a picture
_BOXED_PX: Final = 208
_QUALITY: Final = 80
_RIGHT, _WRONG, _BESIDE = (86, 180, 233), (213, 94, 0), (128, 128, 128)  # Okabe and Ito 2008: sky blue, vermilion
_BARS_WIDTH, _BARS_HEIGHT = 1000, 120  # user units of the class histogram


def write(found: Audit, path: Path) -> None:
    """Writes the page. Complete in itself: no script, no network; at most 24 pictures of each defect.

    Raises UserError or ResourceError where it cannot be written.
    """
    shown = [_shown(found, number, defect) for number, defect in enumerate(found.defects)]
    values = {
        "name": Path(found.data).name or found.data,
        "found": found,
        "verdict": verdict(found),
        "tiles": _tiles(found),
        "splits": _splits(found),
        "defects": shown,
        "classes": _class_bars(found),
    }
    sheet = templates.style("chart.css", "report.css", "audit.css")
    page = templates.page(templates.templates(), "audit.html.jinja", sheet, values)
    files.write_whole(path, page.encode("utf-8", "backslashreplace"))  # a file name need not be UTF-8


# ---------------------------------------------------------------- in a few words


def headline(found: Audit) -> str:
    """The set in one line: where, what layout, how many images and classes, and how fast they were looked at."""
    splits = ", ".join(f"{split} {len(facts):,}" for split, facts in found.facts.items())
    total = sum(map(len, found.facts.values()))
    return f"{found.data} ({found.layout}): {total:,} images ({splits}) of {_class_count(found):,} classes. {_speed(found)}"


def _speed(found: Audit) -> str:
    fresh = sum(map(len, found.facts.values())) - found.known
    known = f"{found.known:,} were known from an earlier audit" if found.known else ""
    looked = f"{fresh:,} looked at in {found.seconds:,.1f} s, {found.images_per_s:,.0f} a second" if fresh else ""
    return f"{'; '.join(filter(None, (looked, known)))}."


def _class_count(found: Audit) -> int:
    return max((len(facts.index.classes) for facts in found.facts.values()), default=0)


def verdict(found: Audit) -> str:
    """What it comes to, in one sentence."""
    counts = {word: sum(defect.severity == word for defect in found.defects) for word in ("error", "warning", "note")}
    told = ", ".join(f"{count} {word}{'s' if count > 1 else ''}" for word, count in counts.items() if count)
    if counts["error"]:
        return f"{told}: mend the errors before you trust a training or a score on these data."
    if counts["warning"]:
        return f"No errors; {told}: look at the warnings before you train."
    return f"Nothing is wrong with these data{f' ({told})' if told else ''}."


def examples(found: Audit, defect: Defect, most: int) -> list[str]:
    """The first images or things that a defect concerns, in words."""
    if defect.groups:
        named = [[_named(found, split, row) for split, row in group] for group in defect.groups[:most]]
        return [" = ".join(names[:3]) + (" = …" if len(names) > 3 else "") for names in named]
    if len(defect.rows):
        keys = found.facts[defect.split].index.keys
        details = defect.details or ("",) * len(defect.rows)
        some = zip(defect.rows[:most].tolist(), details[:most], strict=True)
        return [f"{keys[row]}{f' ({detail})' if detail else ''}" for row, detail in some]
    return [] if list(defect.details) == [defect.text] else list(defect.details[:most])


def _named(found: Audit, split: str, row: int) -> str:
    """An image by its key, with its split where the key does not begin with it."""
    key = found.facts[split].index.keys[row]
    return key if key.startswith(f"{split}/") else f"{split}: {key}"


def in_short(found: Audit) -> dict[str, Any]:
    """The audit as plain values, without the lists of images."""
    plain = to_json(found)
    plain["defects"] = [
        {name: defect[name] for name in ("kind", "severity", "split", "count", "text", "remedy")} for defect in plain["defects"]
    ]
    return plain


# ---------------------------------------------------------------- the parts of the page


def _tiles(found: Audit) -> list[tuple[str, str]]:
    total = sum(map(len, found.facts.values()))
    usable = sum(int(facts.is_good_N.sum()) for facts in found.facts.values())
    size_bytes = sum(int(facts.index.sizes_bytes.sum()) for facts in found.facts.values())
    fresh = total - found.known
    return [
        ("Images", f"{total:,}"),
        ("Usable", f"{usable:,}" if usable < total else "all"),
        ("Classes", f"{_class_count(found):,}"),
        ("Layout", found.layout),
        ("Size", f"{size_bytes / 1e9:,.2f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:,.1f} MB"),
        ("Looked at", f"{fresh:,} in {found.seconds:,.1f} s" if fresh else "all known from before"),
        *([("Speed", f"{found.images_per_s:,.0f} images/s")] if fresh else []),
    ]


@dataclass(frozen=True)
class _Split:
    name: str
    images: int
    usable: int
    labelled: int
    per_class: str
    sides: str
    formats: str
    fingerprint: str


def _splits(found: Audit) -> list[_Split]:
    rows = []
    plain = to_json(found)["splits"]
    for split, facts in found.facts.items():
        counts_K, good_M2 = facts.index.counts(), facts.sides_N2[facts.is_good_N]
        low, high = (int(counts_K.min()), int(counts_K.max())) if len(counts_K) else (0, 0)
        middle = " x ".join(f"{side:g}" for side in np.median(good_M2, axis=0)) if len(good_M2) else ""
        rows.append(
            _Split(
                name=split,
                images=len(facts),
                usable=plain[split]["usable"],
                labelled=int((facts.index.labels != UNLABELLED).sum()),
                per_class="" if not high else f"{low:,}" if low == high else f"{low:,} to {high:,}",
                sides=middle,
                formats=", ".join(f"{count:,} {name or 'unknown'}" for name, count in plain[split]["formats"].items()),
                fingerprint=plain[split]["fingerprint"][:16],
            )
        )
    return rows


@dataclass(frozen=True)
class _Bars:
    """Images of each class of one split, most first: an outline in user units, and the numbers to read it by."""

    split: str
    path: str
    most: int
    least: int
    middle: float
    first: str
    last: str
    classes: int


def _class_bars(found: Audit) -> list[_Bars]:
    bars = []
    for split, facts in found.facts.items():
        classes, counts_K = facts.index.classes, facts.index.counts()
        if not counts_K.any():
            continue
        order_K = np.argsort(-counts_K, kind="stable")
        width = _BARS_WIDTH / len(order_K)
        gap = width / 6 if len(order_K) <= 100 else 0.0
        tops = _BARS_HEIGHT * (1 - counts_K[order_K] / counts_K.max())
        path = "".join(
            f"M{at * width:.2f} {_BARS_HEIGHT}V{top:.1f}h{width - gap:.2f}V{_BARS_HEIGHT}z"
            for at, top in enumerate(tops.tolist())
        )
        first, last = classes.title(int(order_K[0])), classes.title(int(order_K[-1]))
        most, least, middle = int(counts_K.max()), int(counts_K.min()), float(np.median(counts_K))
        bars.append(_Bars(split, path, most, least, middle, first, last, len(order_K)))
    return bars


@dataclass(frozen=True)
class _Picture:
    """One image of the page. uri: None where it cannot be shown."""

    uri: str | None
    key: str
    label: str
    detail: str


@dataclass(frozen=True)
class _Shown:
    """One defect with its pictures, groups of pictures, or lines of (key, words)."""

    anchor: str
    defect: Defect
    count: int
    pictures: Sequence[_Picture]
    groups: Sequence[tuple[Sequence[_Picture], int]]  # and how many more
    lines: Sequence[tuple[str, str]]
    left: int


def _shown(found: Audit, number: int, defect: Defect) -> _Shown:
    pictures: list[_Picture] = []
    groups: list[tuple[Sequence[_Picture], int]] = []
    lines: list[tuple[str, str]] = []
    total = len(defect)
    if defect.groups:
        groups = [
            ([_picture(found, split, row) for split, row in _told_apart(group)], max(0, len(group) - OF_GROUP))
            for group in defect.groups[:GROUPS]
        ]
        shown = len(groups)
    elif len(defect.rows):
        facts = found.facts[defect.split]
        rows, details = _merged(defect)
        total = len(rows)
        if facts.is_good_N[defect.rows].any():
            is_boxed = "box" in defect.kind
            pictures = [
                _picture(found, defect.split, row, detail, is_boxed)
                for row, detail in zip(rows[:PICTURES], details[:PICTURES], strict=True)
            ]
        else:
            lines = [(facts.index.keys[row], detail) for row, detail in zip(rows[:LINES], details[:LINES], strict=True)]
        shown = len(pictures) or len(lines)
    else:
        lines = [(line, "") for line in examples(found, defect, LINES)]
        shown, total = len(lines), len(defect.details) if lines else 0
    return _Shown(f"defect-{number}", defect, len(defect), pictures, groups, lines, total - shown)


def _merged(defect: Defect) -> tuple[list[int], list[str]]:
    """Each image once, with all that is said of it: one may have several wrong boxes."""
    said: dict[int, list[str]] = {}
    for row, detail in zip(defect.rows.tolist(), defect.details or ("",) * len(defect.rows), strict=True):
        said.setdefault(row, []).append(detail)
    return list(said), [", ".join(details) for details in said.values()]


def _told_apart(group: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """Some images of a group of duplicates, the first of each split before the others."""
    firsts = list({split: (split, row) for split, row in reversed(group)}.values())[::-1]
    return (firsts + [one for one in group if one not in firsts])[:OF_GROUP]


# ---------------------------------------------------------------- pictures


def _picture(found: Audit, split: str, row: int, detail: str = "", is_boxed: bool = False) -> _Picture:
    index = found.facts[split].index
    label = index.classes.title(int(index.labels[row])) if index.labels[row] != UNLABELLED else ""
    try:
        pixels_HW3 = decode.pixels(index.content(row), exif=not is_boxed)  # boxes count in pixels as stored
    except BadImage:
        return _Picture(None, _named(found, split, row), label, detail)
    picture = Image.fromarray(pixels_HW3)
    if is_boxed and index.boxes is not None:
        picture = _with_boxes(picture, index.boxes.of(row))
    else:
        picture.thumbnail((_PX, _PX), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=_QUALITY, optimize=True)
    uri = f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
    return _Picture(uri, _named(found, split, row), label, detail)


def _with_boxes(picture: Image.Image, boxes_M4: NDArray[np.float32]) -> Image.Image:
    """A small picture with its boxes, wrong ones in vermilion, and at most half a side around it to see where they stand out."""
    size_2 = np.array(picture.size, dtype=np.float64)
    boxes_M4 = boxes_M4[np.isfinite(boxes_M4).all(axis=1)].astype(np.float64)
    is_inside_M2 = (boxes_M4[:, :2] >= -BOX_SLACK_PX) & (boxes_M4[:, 2:] <= size_2 + BOX_SLACK_PX)
    is_right_M = geometry.is_valid(boxes_M4) & is_inside_M2.all(axis=1)
    corners_M22 = np.sort(boxes_M4.reshape(-1, 2, 2), axis=1)
    low_2 = corners_M22.min(axis=(0, 1), initial=0).clip(-size_2 / 2, 0)
    high_2 = np.concatenate([corners_M22[:, 1], size_2[None]]).max(axis=0).clip(size_2, 1.5 * size_2)
    scale = _BOXED_PX / (high_2 - low_2).max()
    paper = Image.new("RGB", _whole((high_2 - low_2) * scale), _BESIDE)
    paper.paste(
        picture.resize(_whole(size_2 * scale), Image.Resampling.BICUBIC), (round(-low_2[0] * scale), round(-low_2[1] * scale))
    )
    pen = ImageDraw.Draw(paper)
    for corners_22, is_right in zip(corners_M22, is_right_M, strict=True):
        edges_22 = ((corners_22 - low_2) * scale).clip(0, np.array(paper.size) - 1)
        pen.rectangle(edges_22.round().ravel().tolist(), outline=_RIGHT if is_right else _WRONG, width=2)
    return paper


def _whole(size_2: NDArray[np.float64]) -> tuple[int, int]:
    """A size in whole pixels, at least one."""
    return max(1, round(float(size_2[0]))), max(1, round(float(size_2[1])))

"""The page of a localisation: its numbers beside those of boxes that look at nothing, and a gallery of photos with their boxes.

Photos are read again when the page is made. Boxes are drawn by the page itself, in pixels of the photo and at the very edges that
were scored; heat lies below them where boxes were cut from heatmaps.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from striate import files, geometry
from striate.data.decode import BadImage, Pixels
from striate.data.loader import Streaming
from striate.evaluate import metrics as scores
from striate.explain.heatmap import Heatmap
from striate.localize import metrics
from striate.localize.metrics import AT_LEAST, MaxBoxAccuracy
from striate.localize.score import Localised
from striate.predictions import UNLABELLED
from striate.report import charts, explained, templates
from striate.report.charts import Chart, Series
from striate.report.history import Curve

PAGE: Final = "index.html"
SHOWN: Final = 8  # photos of a group
_MOST_BAD: Final = 100  # unreadable files that the page lists
_BINS: Final = 20  # of IoU
_MOST_TICKS: Final = 4

Role = Literal["truth", "answer", "known"]


# ---------------------------------------------------------------- the page


def write(done: Localised) -> Path:
    """Writes index.html into the folder of a localisation, complete in itself: no script, no network. Returns its path.

    A photo that cannot be read any more, or has other sides than it had, is left out with a note.
    Raises UserError or ResourceError where the page cannot be written.
    """
    pages = templates.templates()
    notes: list[str] = list(done.summary["notes"])
    groups = [(choice, _items(done, choice, notes)) for choice in choices(done)]
    has_maps = done.found.maps_NMhw is not None
    curve = done.measured.max_box_accuracy
    bad = done.found.bad
    values = {
        "title": f"Where {done.folder.resolve().parents[1].name.removeprefix('evaluated-')} finds the object",
        "facts": _facts(done),
        "measured": done.measured,
        "rows": [(_OURS.get(done.found.method, done.found.method), done.measured), *done.by_nothing.items()],
        "protocol": done.summary["protocol"],
        "curve": None if curve is None else templates.svg(pages, charts.lay_out(threshold_chart(done, curve))),
        "curve_words": "" if curve is None else _curve_words(done, curve),
        "overlaps": lay_out(counted_iou(done)),
        "groups": groups,
        "legend": explained.on_page(*_scale(done)) if has_maps else "",
        "is_cropped": any(picture.seen for _, items in groups for item in items for picture in item.pictures),
        "bad": bad[:_MOST_BAD],
        "more_bad": max(0, len(bad) - _MOST_BAD),
        "notes": list(dict.fromkeys(notes)),
        "at_least": AT_LEAST,
    }
    sheet = templates.style("chart.css", "report.css", "explained.css", "localised.css")
    path = done.folder / PAGE
    text = templates.page(pages, "localised.html.jinja", sheet, values)
    files.write_whole(path, text.encode("utf-8", "backslashreplace"))  # a file name need not be UTF-8
    return path


_OURS: Final = {"head": "box head"}


def _facts(done: Localised) -> list[tuple[str, str]]:
    found, told = done.found, done.measured
    apart = [
        (name, f"{count:,}")
        for name, count in (
            ("Without a box", told.without_boxes),
            ("Without a label", told.unlabelled),
            ("Not readable", len(found.bad)),
        )
        if count
    ]
    return [
        ("Images", f"{told.counted:,}"),
        *apart,
        ("Split", str(done.summary["split"])),
        ("Boxes from", _OURS.get(found.method, found.method)),
        *([("Layer", found.layer)] if found.layer else []),
        *([("Cut", _cut_words(done))] if found.maps_NMhw is not None else []),
        ("Weights", f"{done.summary['weights']} of {done.summary['checkpoint']}"),
    ]


def _cut_words(done: Localised) -> str:
    """As "largest part above 0.19 and 0.21": of each way the thresholds of the halves."""
    parts = []
    for which, words in (("largest", "largest part above"), ("all", "all above")):
        levels = sorted({f"{cut.threshold:.2f}" for cut in done.cuts if cut.which == which})
        parts += [f"{words} {' and '.join(levels)}"] if levels else []
    return "; ".join(parts)


# ---------------------------------------------------------------- which photos


@dataclass(frozen=True, eq=False)
class Choice:
    """Photos under one heading. rows_M: [M] int64, of `Localised.found`."""

    title: str
    intro: str
    rows_M: NDArray[np.int64]


def choices(done: Localised, most: int = SHOWN) -> tuple[Choice, ...]:
    """The groups of the gallery, at most so many photos in each; only images with a true box and a label are in any."""
    found, iou_N = done.found, done.iou_N
    rows_N = np.flatnonzero(~np.isnan(iou_N) & (found.labels_N != UNLABELLED))
    answer_iou_N = metrics.best_iou(done.answers_NA4[:, 0], done.truth)
    has_class_N = found.answers_NA[:, 0] == found.labels_N
    has_box_N = answer_iou_N >= AT_LEAST
    right = rows_N[(has_class_N & has_box_N)[rows_N]]
    loose = rows_N[(has_class_N & ~has_box_N)[rows_N]]
    misnamed = rows_N[(~has_class_N & has_box_N)[rows_N]]
    median = float(np.median(iou_N[rows_N]))
    tight_M = _first_of_each_class(_sorted(right, -answer_iou_N), found.labels_N)[:most]
    middle_M = _sorted(_sorted(rows_N, np.abs(iou_N - median))[:most], -iou_N)
    loose_M = _sorted(loose, answer_iou_N)[:most]
    misnamed_M = _sorted(misnamed, -found.probabilities_NA[:, 0].astype(np.float64))[:most]
    total = f"of {len(rows_N):,} images"
    return (
        Choice(
            "Right and tight",
            f"{len(right):,} {total}: the class is right, and so is its box. Shown: the best boxes, of each class one before "
            "any class has a second.",
            tight_M,
        ),
        Choice(
            "In the middle",
            "Half of the images have a better box for the true class, half a worse one. Shown: those nearest to the median "
            f"IoU, {median:.2f}.",
            middle_M,
        ),
        Choice(
            "Right class, wrong box",
            f"{len(loose):,} {total}: the class is right, its box is not. Shown: the worst boxes.",
            loose_M,
        ),
        Choice(
            "Right box, wrong class",
            f"{len(misnamed):,} {total}: the box of the first answer fits, its class is wrong. Shown: the most confident "
            "answers.",
            misnamed_M,
        ),
    )


def counted_iou(done: Localised) -> NDArray[np.float64]:
    """IoU of the box for the true class, of the images that are scored: [M] float64."""
    return np.asarray(done.iou_N[~np.isnan(done.iou_N) & (done.found.labels_N != UNLABELLED)])


def _sorted(rows_M: NDArray[np.int64], value_N: NDArray[np.floating]) -> NDArray[np.int64]:
    """By rising value; of equal ones the earlier row first."""
    return rows_M[np.argsort(value_N[rows_M], kind="stable")]


def _first_of_each_class(rows_M: NDArray[np.int64], label_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """The first of each class, in their order, then the second of each, and so on."""
    seen: Counter[int] = Counter()
    turns = []
    for label in label_N[rows_M].tolist():
        turns.append(seen[label])
        seen[label] += 1
    return rows_M[np.argsort(np.array(turns, np.int64), kind="stable")]


# ---------------------------------------------------------------- a photo with its boxes


@dataclass(frozen=True)
class Box:
    """A box to be drawn: whose it is, and its edges and sides in pixels of the photo."""

    role: Role
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, eq=False)
class Picture:
    """A photo, or its heat, with boxes upon it. words: below it. seen: edges of the view, None where it is the whole photo or
    the picture shows it already."""

    uri: str
    words: str
    boxes: tuple[Box, ...]
    seen: tuple[float, float, float, float] | None


@dataclass(frozen=True)
class Line:
    """What one box of the network is: its class, the probability of that (None where it is not among the answers), its IoU."""

    role: Role
    title: str
    probability: float | None
    iou: float


@dataclass(frozen=True, eq=False)
class Item:
    """One photo of the gallery. lines: of its first answer, and of the true class where that is another."""

    key: str
    width: int
    height: int
    pictures: tuple[Picture, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...]


def _items(done: Localised, choice: Choice, notes: list[str]) -> list[Item]:
    source = Streaming(done.index, done.found.view.exif, 0)
    items = []
    for i in choice.rows_M.tolist():
        try:
            photo_HW3 = source.image(i)
        except BadImage as error:
            notes.append(f"{done.found.keys[i]}: not shown, as it can no longer be read ({error})")
            continue
        if photo_HW3.shape[1::-1] != tuple(done.found.sides_N2[i].tolist()):
            notes.append(f"{done.found.keys[i]}: not shown, as it has changed since its boxes were made")
            continue
        items.append(item(done, i, photo_HW3))
    return items


def item(done: Localised, i: int, photo_HW3: Pixels) -> Item:
    """Image i as the gallery shows it. photo_HW3: uint8 [H, W, 3], the photo after the view's EXIF rule."""
    found = done.found
    answer, label = int(found.answers_NA[i, 0]), int(found.labels_N[i])
    width, height = found.sides_N2[i].tolist()
    drawn = done.truth.of(i)
    answer_4, known_4 = done.answers_NA4[i, 0], done.known_N4[i]
    lines = [Line("answer", done.titles[answer], float(found.probabilities_NA[i, 0]), _iou(answer_4, drawn))]
    boxes = [*(_box("truth", one_4) for one_4 in drawn), *_boxes("answer", answer_4)]
    if answer != label:
        place = np.flatnonzero(found.answers_NA[i] == label)
        probability = float(found.probabilities_NA[i, place[0]]) if len(place) else None
        lines.append(Line("known", done.titles[label], probability, _iou(known_4, drawn)))
        boxes += _boxes("known", known_4)
    seen_4 = explained.seen_of(found.view, width, height)
    beside = None if seen_4 == (0, 0, width, height) else seen_4
    pictures = [Picture(explained.on_page(photo_HW3), "", tuple(boxes), beside)]
    if found.maps_NMhw is not None:
        shown: tuple[tuple[int, Role, str], ...] = ((0, "answer", "heat of its answer"),)
        shown += ((-1, "known", "heat of the true class"),) if answer != label else ()
        for place_of, role, words in shown:
            heat = explained.on_page(photo_HW3, found.heatmap(i, place_of))
            pictures.append(Picture(heat, words, tuple(box for box in boxes if box.role in {"truth", role}), None))
        pictures[0] = replace(pictures[0], words="the photo")
    notes = (f"{len(drawn)} boxes drawn by people; the best of them counts",) if len(drawn) > 1 else ()
    return Item(found.keys[i], width, height, tuple(pictures), tuple(lines), notes)


def _iou(box_4: NDArray[np.floating], drawn_M4: NDArray[np.floating]) -> float:
    return float(geometry.iou(box_4[None], drawn_M4).max(initial=0.0)) if np.isfinite(box_4).all() else 0.0


def _boxes(role: Role, box_4: NDArray[np.floating]) -> list[Box]:
    return [_box(role, box_4)] if np.isfinite(box_4).all() else []


def _box(role: Role, box_4: NDArray[np.floating]) -> Box:
    left, top, right, bottom = np.asarray(box_4, np.float64).tolist()
    return Box(role, round(left, 2), round(top, 2), round(right - left, 2), round(bottom - top, 2))


def _scale(done: Localised) -> tuple[Pixels, Heatmap]:
    """Middle grey, and a map over it that rises from left to right: together the scale of the heat."""
    view = replace(done.found.view, size_px=256, fit="squash", resize_px=256)
    ramp_1W = np.linspace(0, 1, 256, dtype=np.float32)[None]
    return np.full((1, 256, 3), 128, np.uint8), Heatmap(ramp_1W, view, 256, 1, done.found.method, "", 0)


# ---------------------------------------------------------------- the charts


def threshold_chart(done: Localised, found: MaxBoxAccuracy) -> Chart:
    """GT-known accuracy of these images for every threshold, largest component, with its 95 % interval and the cuts' places."""
    ends_T2 = np.array([scores.wilson(round(share * found.images), found.images) for share in found.v1_curve_T.tolist()])
    curve = Curve(found.thresholds_T, found.v1_curve_T, ends_T2[:, 0], ends_T2[:, 1])
    middle = done.by_nothing["centre box"].gt_known_accuracy.value
    return Chart(
        "threshold",
        "GT-known accuracy",
        "by threshold",
        [Series("", "val", curve, is_dotted=False)],
        "threshold, as a share of the map's range",
        1.0,
        charts.percent,
        marks=tuple(sorted({cut.threshold for cut in done.cuts})),
        mark_name="",  # two of them often lie side by side, and names would too: the words below say them
        reference=(middle, "centre box"),
        best=(found.v1_threshold, found.v1.value),
        whole=1.0,
    )


def _curve_words(done: Localised, found: MaxBoxAccuracy) -> str:
    cuts = f"Dotted upright: where the maps were cut ({_cut_words(done)})."
    return (
        f"Largest part above each threshold, 95\u202f% interval shaded. The ring is the best of these images: "
        f"{charts.rounded(found.v1.value)} at {found.v1_threshold:.2f}. {cuts}"
    )


@dataclass(frozen=True)
class Bar:
    """One bar in coordinates. is_right: whether boxes of such IoU count as right."""

    x: float
    y: float
    width: float
    height: float
    is_right: bool
    words: str


@dataclass(frozen=True)
class Histogram:
    """How many images have which IoU, turned into coordinates; what `overlaps.svg.jinja` needs. limit: place of AT_LEAST."""

    bars: list[Bar]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    limit: float
    words: str
    width: int = charts.WIDTH
    height: float = 230.0
    left: float = 50.0
    right: float = charts.WIDTH - 10.0
    top: float = 34.0
    bottom: float = 192.0


def lay_out(iou_M: NDArray[np.float64]) -> Histogram:
    """Places the bars of a histogram of IoU, 0..1. iou_M: [M], M at least 1."""
    edges_B = np.arange(_BINS + 1) / _BINS
    counts_B, _ = np.histogram(iou_M, edges_B)
    greatest = int(counts_B.max())
    empty = Histogram([], [], [], 0.0, "")

    def x_at(value: float) -> float:
        return round(empty.left + (empty.right - empty.left) * value, 1)

    def y_at(count: float) -> float:
        return round(empty.bottom - (empty.bottom - empty.top) * count / (1.06 * greatest), 1)

    bars = [
        Bar(
            x_at(low) + 0.5,
            y_at(count),
            round(x_at(high) - x_at(low) - 1, 1),
            round(empty.bottom - y_at(count), 1),
            low >= AT_LEAST,
            f"IoU {low:.2f} to {high:.2f}: {count:,} images",
        )
        for low, high, count in zip(edges_B[:-1].tolist(), edges_B[1:].tolist(), counts_B.tolist(), strict=True)
        if count
    ]
    right = int((iou_M >= AT_LEAST).sum())
    return replace(
        empty,
        bars=bars,
        x_ticks=[(x_at(value), charts.plain(value)) for value in charts.ticks(0, 1, 5)],
        y_ticks=[
            (y_at(value), charts.plain(value))
            for value in charts.ticks(0, 1.06 * greatest, _MOST_TICKS)
            if float(value).is_integer()
        ],
        limit=x_at(AT_LEAST),
        words=f"{right:,} of {len(iou_M):,} boxes have an IoU of {AT_LEAST:g} or more; the median is {np.median(iou_M):.2f}.",
    )

"""What the network's confidence is worth, as the page shows it: reliability, coverage, and top-1 by kinds of images.

All of it is read from what an evaluation left: its summary, reliability.csv and coverage.csv, and the run's calibration.json.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from striate.errors import CheckpointError
from striate.evaluate import metrics
from striate.evaluate.calibrate import Temperature
from striate.report import charts, gather
from striate.report.charts import Chart, Series
from striate.report.gather import Evaluation, Facts
from striate.report.history import Curve, interval, number

_WORTH_SAYING = 0.005  # between mean confidence and top-1; less is none to the reader

# ---------------------------------------------------------------- the section


@dataclass(frozen=True)
class StratumRow:
    """The images of one kind: what kind in words, how many, and their top-1 with its interval, 0..1."""

    words: str
    images: int
    top1: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Confidence:
    """The section of the page. diagram, coverage: what to draw, None where a file is missing.

    sentences: the calibration error and the temperature in words. marked: top-1 (0..1) of the surest images, by their share.
    strata: tables of top-1, by their title.
    """

    diagram: Diagram | None
    coverage: Chart | None
    sentences: list[str]
    marked: list[tuple[float, float]]
    strata: list[tuple[str, list[StratumRow]]]

    def __bool__(self) -> bool:
        return bool(self.title)

    @property
    def title(self) -> str:
        """What the section is about; empty where it has nothing to show."""
        parts = ["confidence"] if self.diagram or self.coverage or self.sentences or self.marked else []
        return " and ".join([*parts, *(["kinds of images"] if self.strata else [])]).capitalize()


def confidence(facts: Facts) -> Confidence:
    """What the main evaluation says of its confidence; what it lacks, because it is older or was broken, leaves a sentence."""
    main = facts.main
    if main is None:
        return Confidence(None, None, [], [], [])
    bins_M5 = gather.numbers_of(facts, main, "reliability.csv", ("from", "to", "images", "confidence", "top1"))
    curve_P2 = gather.numbers_of(facts, main, "coverage.csv", ("coverage", "top1"))
    missing = [name for name in ("reliability.csv", "coverage.csv") if not (main.folder / name).exists()]
    if missing and number(main.summary.get("top1")) is not None:
        facts.gaps.append(
            f"evaluation/{main.folder.name} has no {' and no '.join(missing)}, so a picture of its confidence is missing. "
            "Evaluate again to have it."
        )
    told = main.summary.get("coverage")
    shares = {share: top1 for name, top1 in told.items() if (share := _share(name))} if isinstance(told, dict) else {}
    marked = [(share, value) for share, top1 in sorted(shares.items()) if (value := number(top1)) is not None]
    diagram = lay_out(bins_M5) if bins_M5 is not None and np.nansum(bins_M5[:, 2]) > 0 else None
    return Confidence(
        diagram=diagram,
        coverage=coverage_chart(curve_P2, marked) if curve_P2 is not None else None,
        sentences=[*_error_in_words(main, bins_M5 if diagram else None), *_temperature_in_words(facts, main)],
        marked=marked,
        strata=strata(main.summary),
    )


def _share(name: Any) -> float | None:
    try:
        share = float(name)
    except (TypeError, ValueError):
        return None
    return share if 0 < share <= 1 else None


def _error_in_words(main: Evaluation, bins_M5: np.ndarray | None) -> list[str]:
    """The calibration error with its interval, and on which side the network errs, unless chance may have done it."""
    error, pair = number(main.summary.get("calibration_error")), interval(main.summary.get("calibration_error_interval"))
    said = []
    if error is not None:
        said.append(
            f"Calibration error {charts.rounded(error)}" + (f" (95\u202f% interval {charts.span(pair)})." if pair else ".")
        )
        if pair and pair[0] == 0:
            said.append("These images cannot tell the network from a calibrated one.")
    if bins_M5 is not None:
        _, _, images_M, confidence_M, top1_M = bins_M5.T
        mean, right = (float(np.nansum(images_M * value_M) / np.nansum(images_M)) for value_M in (confidence_M, top1_M))
        side = ""
        if not (pair and pair[0] == 0) and abs(mean - right) >= _WORTH_SAYING:
            side = ": too sure of itself" if mean > right else ": too modest"
        said.append(f"It says {charts.rounded(mean)} on average and is right for {charts.rounded(right)} of the images{side}.")
    return [" ".join(said)] if said else []


def _temperature_in_words(facts: Facts, main: Evaluation) -> list[str]:
    """The temperature that was fitted, where one was, and what it does to the images that did not choose it."""
    kept = gather.calibration_of(facts)
    if not kept:
        return []
    try:
        found = Temperature.from_json(kept.get("temperature"))
    except CheckpointError as error:
        facts.gaps.append(str(error))
        return []
    before, after = (number(kept.get(f"calibration_error_{when}")) for when in ("before", "after"))
    said = f"Temperature {found.value:.3g}, fitted on {found.fitted_on}."
    if before is not None and after is not None:
        said += f" On the others the calibration error goes from {charts.rounded(before)} to {charts.rounded(after)}."
    is_of_main = all(kept.get(name) == main.summary.get(name) for name in ("checkpoint", "weights", "views"))
    if not is_of_main:
        of = [f"{kept.get('weights') or 'some'} weights", kept.get("checkpoint"), kept.get("views")]
        said += f" It is of other scores than these: {', '.join(str(part) for part in of if part)}."
    elif kept.get("views") == "center":
        said += " It is not applied in the diagram; “striate predict” applies it."
    return [said, *([found.doubt] if found.doubt else [])]


# ---------------------------------------------------------------- the reliability diagram

WIDTH, HEIGHT = charts.WIDTH, 322
_LEFT, _RIGHT = 50.0, 370.0
_TOP, _BOTTOM = 30.0, 212.0  # of the accuracy
_SHARE_TOP, _SHARE_BOTTOM = 236.0, 284.0  # of the share of images


@dataclass(frozen=True)
class Bin:
    """One bin in coordinates. whisker: x, and the two ends of the 95 % interval of its accuracy."""

    x: float
    width: float
    accuracy_y: float
    share_y: float
    whisker: tuple[float, float, float]
    words: str


@dataclass(frozen=True)
class Diagram:
    """A reliability diagram turned into coordinates; what `reliability.svg.jinja` needs. most: the largest share, as written."""

    bins: list[Bin]
    ticks: list[tuple[float, float, str]]  # x, y, share as written: the same on both axes
    most: str
    words: str
    width: int = WIDTH
    height: int = HEIGHT
    left: float = _LEFT
    right: float = _RIGHT
    top: float = _TOP
    bottom: float = _BOTTOM
    share_top: float = _SHARE_TOP
    share_bottom: float = _SHARE_BOTTOM


def lay_out(bins_M5: np.ndarray) -> Diagram:
    """Places the bins that have images, the diagonal's axes, and below them the share of the images in each bin.

    bins_M5: [M, 5] float64: lower and upper edge, images, mean confidence, top-1 (NaN in a bin without images).
    """
    total, greatest = float(np.nansum(bins_M5[:, 2])), float(np.nanmax(bins_M5[:, 2]))
    bins = []
    for low, high, images, mean, top1 in bins_M5.tolist():
        if not images >= 1 or not math.isfinite(mean + top1):
            continue
        ends = metrics.wilson(min(round(top1 * images), round(images)), round(images))
        share = charts.percent(float(f"{images / total:.3g}"))
        bins.append(
            Bin(
                x=_x(low),
                width=round(_x(high) - _x(low), 1),
                accuracy_y=_y(top1),
                share_y=round(_SHARE_BOTTOM - (_SHARE_BOTTOM - _SHARE_TOP) * images / greatest, 1),
                whisker=(_x(mean), _y(ends[0]), _y(ends[1])),
                words=f"says {charts.rounded(mean)}, right {charts.rounded(top1)}: {images:,.0f} images ({share})",
            )
        )
    marks = (0, 0.2, 0.4, 0.6, 0.8, 1)
    return Diagram(
        bins=bins,
        ticks=[(_x(mark), _y(mark), charts.percent(mark)) for mark in marks],
        most=charts.percent(float(f"{greatest / total:.2g}")),
        words="Reliability diagram: " + "; ".join(one.words for one in bins) + ".",
    )


def _x(share: float) -> float:
    return round(_LEFT + (_RIGHT - _LEFT) * min(max(share, 0.0), 1.0), 1)


def _y(share: float) -> float:
    return round(_BOTTOM - (_BOTTOM - _TOP) * min(max(share, 0.0), 1.0), 1)


# ---------------------------------------------------------------- coverage


def coverage_chart(curve_P2: np.ndarray, marked: list[tuple[float, float]]) -> Chart | None:
    """Top-1 when only the surest images are answered. curve_P2: [P, 2] float64: share of the images answered, top-1 of these."""
    if not np.isfinite(curve_P2).all(axis=1).any():
        return None
    nothing_P = np.full(len(curve_P2), math.nan)
    curve = Curve(curve_P2[:, 0], curve_P2[:, 1], nothing_P, nothing_P)
    return Chart(
        "coverage",
        "Top-1 of the surest images",
        "",
        [Series("", "val", curve, is_dotted=False)],
        "share of the images answered",
        1.0,
        charts.percent,
        x_written=charts.percent,
        rings=marked,
        whole=1.0,
    )


# ---------------------------------------------------------------- kinds of images


def strata(summary: Mapping[str, Any]) -> list[tuple[str, list[StratumRow]]]:
    """Top-1 by brightness, by share of the photo that the object's box covers, and of grey and colour images, where known."""
    told, parts = summary.get("strata"), summary.get("parts")
    tables = []
    for name, bins in (told if isinstance(told, dict) else {}).items():
        write = _percent_edge if name == "box share" else "{:.2f}".format
        title = {"brightness": "Brightness, from 0 to 1", "box share": "Share of the photo that the box covers"}.get(name, name)
        rows = [
            _stratum(one, _range(number(one.get("low")), number(one.get("high")), write))
            for one in (bins if isinstance(bins, list) else [])
            if isinstance(one, dict)
        ]
        tables.append((str(title), [row for row in rows if row is not None]))
    rows = [
        _stratum(part, str(name)) for name, part in (parts if isinstance(parts, dict) else {}).items() if isinstance(part, dict)
    ]
    tables.append(("Grey and colour images", [row for row in rows if row is not None]))
    return [(title, rows) for title, rows in tables if rows]


def _stratum(told: Mapping[str, Any], words: str) -> StratumRow | None:
    images, top1 = number(told.get("images")), number(told.get("top1"))
    if images is None or top1 is None:
        return None
    return StratumRow(words, int(images), top1, interval(told.get("top1_interval")))


def _range(low: float | None, high: float | None, write: Any) -> str:
    if low is None and high is None:
        return "unknown"
    if low is None or high is None:
        return f"below {write(high)}" if low is None else f"{write(low)} and more"
    return f"{write(low)} to {write(high)}"


def _percent_edge(share: float) -> str:
    return charts.percent(round(share, 3))

"""Line charts and the confusion matrix: their geometry. The drawing itself is in `pages/*.svg.jinja`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from striate.report import letters
from striate.report.history import Curve

Look = str  # class names of chart.css: "train", "val", "ema", "sample", or "run run-N" of a run among several

WIDTH, PLOT_HEIGHT = 380, 158  # user units; text is 12 of them, so that a chart 340 px wide still reads well
_LEFT, _RIGHT, _BOTTOM = 50, 10, 38
_LETTER = 6.4  # width of a letter at 12 units, on the safe side


def plain(value: float) -> str:
    """A number for an axis: "0.05", "1 200", "3e-5"."""
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}".replace(",", "\u202f")
    if abs(value) < 0.001:
        digits, power = f"{value:.3g}".split("e") if "e" in f"{value:.3g}" else f"{value:.2e}".split("e")
        digits = digits.rstrip("0").rstrip(".") if "." in digits else digits
        return f"{digits}e{int(power)}".replace("-", "\u2212")
    return f"{value:.6g}"


@dataclass(frozen=True)
class Series:
    """A named curve; `look` decides colour, dash and marker, the same in all charts of a page."""

    name: str
    look: Look
    curve: Curve
    is_dotted: bool = True  # whether each value has a marker; curves of many values never do

    @property
    def has_points(self) -> bool:
        """Whether markers are drawn."""
        return self.is_dotted and self.look != "train" and len(self.curve.x_N) <= 60


@dataclass(frozen=True)
class Chart:
    """What one chart shows. `slug` is its file name; `marks` are vertical lines; `reference` is a level with its name."""

    slug: str
    title: str
    unit: str
    series: Sequence[Series]
    x_unit: str
    x_end: float
    written: Callable[[float], str]
    marks: Sequence[float] = ()
    mark_name: str = "resumed"
    reference: tuple[float, str] | None = None
    best: tuple[float, float] | None = None
    has_keys: bool = True  # whether the legend stands in the chart
    whole: float | None = None  # the greatest value that makes sense, such as 1 for a share
    x_written: Callable[[float], str] = plain
    rings: Sequence[tuple[float, float]] = ()  # places that are told elsewhere in numbers


def ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers from `low` to `high`, at most `most` + 1 of them, a step of 1, 2 or 5 times a power of ten apart."""
    span = high - low
    if not span > 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(power * factor for factor in (1, 2, 5, 10, 20) if span / (power * factor) <= most * (1 + 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def percent(value: float) -> str:
    """A share 0..1 as a percentage for an axis: "40 %"."""
    return f"{100 * value:.4g}\u202f%"


def rounded(share: float, digits: int = 1) -> str:
    """A share 0..1 as a percentage for text and tables, always with as many digits: "40.0 %"."""
    return f"{100 * share:.{digits}f}\u202f%"


def span(low_high: tuple[float, float]) -> str:
    """An interval of shares 0..1 as percentages: "38.1 to 42.0 %"."""
    return f"{100 * low_high[0]:.1f} to {rounded(low_high[1])}"


def in_words(chart: Chart) -> str:
    """What a chart shows, for those who cannot see it: title, and the last value of each curve."""
    ends = []
    for series in chart.series:
        value = series.curve.y_N[np.isfinite(series.curve.y_N)][-1]
        ends.append(f"{series.name + ' ' if series.name else ''}ends at {chart.written(float(f'{value:.3g}'))}")
    return f"{chart.title}{', ' + chart.unit if chart.unit else ''} over {chart.x_unit}: {'; '.join(ends)}."


@dataclass(frozen=True)
class Key:
    """One entry of the legend, with its place."""

    name: str
    look: str
    x: float
    y: float
    points: bool
    area: bool


@dataclass(frozen=True)
class Drawn:
    """A chart turned into coordinates; what `lines.svg.jinja` needs."""

    chart: Chart
    width: int
    height: float
    left: float
    right: float
    top: float
    bottom: float
    keys: list[Key]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    lines: list[tuple[Look, str]]  # look, path
    areas: list[tuple[Look, str]]  # look, path
    points: list[tuple[Look, float, float]]  # look, x, y
    marks: list[tuple[float, bool]]  # x, whether it is labelled
    reference: tuple[float, str] | None
    rings: list[tuple[float, float]]
    beyond: str


def lay_out(chart: Chart) -> Drawn:
    """Places a chart's axes, legend and curves.

    The vertical axis starts at zero. A few values far above all others are cut off, and said in `beyond`.
    """
    keys = _keys(chart)
    top = (keys[-1].y if keys else 20.0) + 14.0
    bottom = top + PLOT_HEIGHT
    y_high, beyond = _top_value(chart)
    x_end = chart.x_end if chart.x_end > 0 else 1.0
    right = WIDTH - _RIGHT

    def x_at(value: float) -> float:
        return round(float(_LEFT + (right - _LEFT) * value / x_end), 1)

    def y_at(value: float) -> float:
        return round(float(bottom - (bottom - top) * min(max(value, 0.0), y_high) / y_high), 1)

    lines: list[tuple[Look, str]] = []
    areas: list[tuple[Look, str]] = []
    points: list[tuple[Look, float, float]] = []
    for series in chart.series:
        lines += [(series.look, path) for path in _line(series.curve, x_at, y_at)]
        areas += [(series.look, path) for path in _area(series.curve, x_at, y_at)]
        if series.has_points:
            points += [
                (series.look, x_at(x), y_at(y))
                for x, y in zip(series.curve.x_N, series.curve.y_N, strict=True)
                if math.isfinite(y)
            ]
    labelled = chart.marks[:1] if len(chart.marks) > 4 else chart.marks
    reference = chart.reference
    return Drawn(
        chart=chart,
        width=WIDTH,
        height=bottom + _BOTTOM,
        left=_LEFT,
        right=right,
        top=top,
        bottom=bottom,
        keys=keys,
        x_ticks=[(x_at(value), chart.x_written(value)) for value in ticks(0, x_end, 6) if x_end < 4 or float(value).is_integer()],
        y_ticks=[(y_at(value), chart.written(value)) for value in ticks(0, y_high, 5)],
        lines=lines,
        areas=areas,
        points=points,
        marks=[(x_at(value), value in labelled) for value in chart.marks],
        reference=(y_at(reference[0]), reference[1]) if reference and reference[0] <= y_high else None,
        rings=[(x_at(x), y_at(y)) for x, y in (*([chart.best] if chart.best else []), *chart.rings)],
        beyond=beyond,
    )


def _keys(chart: Chart) -> list[Key]:
    """The legend, in as many rows as it takes."""
    keys: list[Key] = []
    x, y = 4.0, 38.0
    for series in chart.series if chart.has_keys else ():
        if not series.name:
            continue
        wide = 26 + _LETTER * len(series.name) + 16
        if keys and x + wide - 16 > WIDTH - _RIGHT:
            x, y = 4.0, y + 17
        keys.append(Key(series.name, series.look, x, y, series.has_points, bool(np.isfinite(series.curve.low_N).any())))
        x += wide
    return keys


def _top_value(chart: Chart) -> tuple[float, str]:
    """The upper end of the vertical axis, and a sentence if values lie beyond it."""
    pieces = [np.concatenate([series.curve.y_N, series.curve.high_N]) for series in chart.series] or [np.zeros(0)]
    values_N = np.concatenate(pieces)
    values_N = values_N[np.isfinite(values_N)]
    greatest = float(values_N.max()) if len(values_N) else 0.0
    if chart.reference and chart.reference[0] < 4 * greatest:
        greatest = max(greatest, chart.reference[0])
    if greatest <= 0:
        return chart.whole or 1.0, ""
    usual = float(np.quantile(values_N, 0.97))
    beyond = ""
    if usual > 0 and greatest > 3 * usual and not chart.whole:
        beyond = f"{int((values_N > 1.5 * usual).sum())} values lie above the axis, up to {plain(float(f'{greatest:.3g}'))}."
        greatest = 1.5 * usual
    high = greatest * 1.06
    return (min(high, chart.whole) if chart.whole and greatest <= chart.whole else high), beyond


def _line(curve: Curve, x_at: Callable[[float], float], y_at: Callable[[float], float]) -> list[str]:
    """SVG paths through the values, broken where one is missing."""
    paths, part = [], ""
    for x, y in zip(curve.x_N, curve.y_N, strict=True):
        if math.isfinite(y):
            part += f"{'L' if part else 'M'}{x_at(x):g} {y_at(y):g}"
        elif part:
            paths.append(part)
            part = ""
    return [*paths, part] if part else paths


def _area(curve: Curve, x_at: Callable[[float], float], y_at: Callable[[float], float]) -> list[str]:
    """One closed SVG path between low and high, where both are known."""
    known = [
        (x, low, high) for x, low, high in zip(curve.x_N, curve.low_N, curve.high_N, strict=True) if math.isfinite(low + high)
    ]
    if len(known) < 2:
        return []
    there = "L".join(f"{x_at(x):g} {y_at(high):g}" for x, _, high in known)
    back = "L".join(f"{x_at(x):g} {y_at(low):g}" for x, low, _ in reversed(known))
    return [f"M{there}L{back}Z"]


@dataclass(frozen=True)
class Cell:
    """One cell of a drawn matrix: its place, its count, its share of the true class (0..1) as written and as opacity."""

    x: float
    y: float
    count: int
    share: str
    strength: float
    row: int
    column: int


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix of few classes turned into coordinates; what `matrix.svg.jinja` needs."""

    names: list[str]
    titles: list[str]
    side: float
    left: float
    top: float
    width: float
    height: float
    text: int
    counted: bool
    cells: list[Cell]


def lay_out_matrix(confusion_KK: np.ndarray, titles: Sequence[str]) -> Matrix:
    """Places a matrix of at most about 30 classes: rows the true class, columns the predicted one, shaded by share of the row."""
    count = len(confusion_KK)
    side = 34.0 if count <= 14 else 22.0
    names = [title if len(title) <= 15 else title[:14] + "…" for title in titles]
    margin = 8 + max((letters.width(name, 12) for name in names), default=0.0)
    left, top = margin + 22, margin * 0.7 + 30
    cells = []
    for row in range(count):
        total = int(confusion_KK[row].sum())
        for column in range(count):
            images = int(confusion_KK[row, column])
            if images and total:
                share = images / total
                cells.append(
                    Cell(
                        left + column * side,
                        top + row * side,
                        images,
                        percent(round(share, 3)),
                        round(math.sqrt(share), 3),
                        row,
                        column,
                    )
                )
    return Matrix(
        names=names,
        titles=list(titles),
        side=side,
        left=left,
        top=top,
        width=left + count * side + margin * 0.6,
        height=top + count * side + 4,
        text=12,
        counted=count <= 20,
        cells=cells,
    )

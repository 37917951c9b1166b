"""The doctor's findings as the page shows them: causes with their weight, evidence, remedies, and a small plot each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from striate.doctor import page
from striate.doctor.finding import CAUSES, Curve, Finding
from striate.errors import CheckpointError
from striate.report import charts, sections
from striate.report.gather import Facts

WIDTH, HEIGHT = 420, 176
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 408, 22, 138
# Names of layers under a plot, and points that have a dot.
_MOST_NAMES, _MOST_DOTS = 4, 40
# Letters of a name: up to the first there is room for four beside each other; longer ones than the second are cut.
_SHORT, _LONG = 12, 17
# Letters of a title that fit over a plot.
_MOST_LETTERS = 54
# Pictures of a finding: of each pair of classes, or of single images; and their side.
_MOST_PICTURES, _PICTURE_PX = 8, 128
_LOOKS = ("val", "train", "ema", "sample")


@dataclass(frozen=True)
class Plot:
    """A small plot in user units of its SVG. lines: (name, look, path, dots)."""

    title: str
    x_label: str
    words: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    lines: list[tuple[str, str, str, list[tuple[float, float]]]]
    mark: tuple[float, str] | None
    width: int = WIDTH
    height: int = HEIGHT
    left: int = _LEFT
    right: int = _RIGHT
    top: int = _TOP
    bottom: int = _BOTTOM


@dataclass(frozen=True)
class Shown:
    """A finding for the page. causes: (words, weight in percent, because); remedies: (advice, flags); evidence: (what, value);
    pictures: (caption, [(data URI, key)])."""

    code: str
    severity: str
    sentence: str
    follows: str | None
    causes: list[tuple[str, int, str]]
    remedies: list[tuple[str, str]]
    evidence: list[tuple[str, str]]
    source: str
    plot: Plot | None
    pictures: list[tuple[str, list[tuple[str, str]]]]


@dataclass(frozen=True)
class Diagnosis:
    """What the doctor said: findings in their order, what was in order, and findings of another form as names and texts."""

    findings: list[Shown] = field(default_factory=list)
    in_order: list[str] = field(default_factory=list)
    foreign: list[list[tuple[str, str]]] = field(default_factory=list)


def diagnosis(facts: Facts) -> Diagnosis:
    """The findings of a run; those that this version cannot read are shown as they stand."""
    shown: list[Shown] = []
    foreign: list[list[tuple[str, str]]] = []
    codes = set()
    for plain in facts.findings:
        try:
            finding = Finding.from_json(plain, "findings.json")
            shown.append(_shown(finding, facts))
            codes.add(finding.rule or finding.code)
        except (CheckpointError, TypeError, ValueError):
            rows = plain.items() if isinstance(plain, dict) else [("finding", plain)]
            foreign.append([(str(name).replace("_", " "), page.value_in_words(value)) for name, value in rows])
    in_order = [str(words) for code, words in facts.checked.items() if code not in codes]
    return Diagnosis(shown, in_order, foreign)


def _shown(finding: Finding, facts: Facts) -> Shown:
    return Shown(
        finding.code,
        finding.severity,
        finding.sentence,
        finding.follows,
        [(CAUSES[cause.name], round(100 * cause.weight), cause.because) for cause in finding.causes],
        [(remedy.advice, remedy.flags) for remedy in finding.remedies],
        [(name, page.value_in_words(value)) for name, value in finding.evidence.items()],
        finding.source,
        plot(finding.curve) if finding.curve is not None else None,
        list(_pictures(finding, facts)),
    )


def _pictures(finding: Finding, facts: Facts) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """The images that a finding names by their keys in the validation set: of each pair of classes, or one by one."""
    split = facts.splits.get("val")
    groups = finding.evidence.get("pictures")
    if isinstance(groups, Mapping):
        for caption, keys in groups.items():
            found = [(sections.picture(facts, split, str(key), _PICTURE_PX), str(key)) for key in list(keys)[:_MOST_PICTURES]]
            if seen := [(uri, key) for uri, key in found if uri]:
                yield str(caption), seen
    worst = finding.evidence.get("worst")
    if isinstance(worst, Mapping):
        for key, words in list(worst.items())[:_MOST_PICTURES]:
            if uri := sections.picture(facts, split, str(key), _PICTURE_PX):
                yield str(words), [(uri, str(key))]


# ---------------------------------------------------------------- the plot


def plot(curve: Curve) -> Plot | None:
    """The geometry of a small plot; None where there is nothing to draw."""
    xs = _places(curve)
    values = [value for line in curve.lines.values() for value in map(_number, line) if _usable(value, curve.is_log)]
    if len(xs) < 2 or not values:
        return None
    low, high = _range(values, curve.is_log)

    def height(value: float) -> float:
        share = (_scaled(value, curve.is_log) - low) / (high - low)
        return round(_BOTTOM - share * (_BOTTOM - _TOP), 1)

    lines = []
    for number, (name, line) in enumerate(curve.lines.items()):
        points = [
            (x, height(value)) if _usable(value, curve.is_log) else None for x, value in zip(xs, map(_number, line), strict=False)
        ]
        dots = [point for point in points if point is not None] if len(points) <= _MOST_DOTS else []
        lines.append((name, _LOOKS[number % len(_LOOKS)], _path(points), dots))
    return Plot(
        _title(curve),
        curve.x_label,
        f"{curve.title}: {', '.join(curve.lines)} by {curve.x_label}",
        _x_ticks(curve, xs),
        [
            (height(_unscaled(tick, curve.is_log)), _written(_unscaled(tick, curve.is_log)))
            for tick in _ticks(low, high, curve.is_log)
        ],
        lines,
        _mark(curve, xs),
    )


def _title(curve: Curve) -> str:
    """The title with the unit of y, where there is room for both."""
    both = f"{curve.title}, {curve.y_label}"
    return both if curve.y_label and len(both) <= _MOST_LETTERS else curve.title


def _number(value: Any) -> float:
    """A value of a curve; what is no number (None, or a number that JSON cannot hold) is NaN."""
    return float(value) if isinstance(value, (int, float)) else math.nan


def _usable(value: float, is_log: bool) -> bool:
    return math.isfinite(value) and (value > 0 or not is_log)


def _scaled(value: float, is_log: bool) -> float:
    return math.log10(value) if is_log else value


def _unscaled(value: float, is_log: bool) -> float:
    return float(10**value) if is_log else value


def _range(values: Sequence[float], is_log: bool) -> tuple[float, float]:
    scaled = [_scaled(value, is_log) for value in values]
    low, high = min(scaled), max(scaled)
    if high - low < 1e-12:
        return low - 0.5, high + 0.5
    room = 0.06 * (high - low)
    return low - room, high + room


def _ticks(low: float, high: float, is_log: bool) -> list[float]:
    if not is_log:
        return charts.ticks(low, high, 4)
    whole = range(math.ceil(low), math.floor(high) + 1)
    if len(whole) < 2:
        return charts.ticks(low, high, 3)
    every = -(-len(whole) // 5)
    return [float(power) for power in whole if (power - whole[0]) % every == 0]


def _written(value: float) -> str:
    return charts.plain(float(f"{value:.3g}"))


def _places(curve: Curve) -> list[float]:
    """Where each x lies: numbers in proportion, names one behind the other."""
    count = len(curve.x)
    if count < 2:
        return []
    if any(isinstance(x, str) for x in curve.x):
        shares = [place / (count - 1) for place in range(count)]
    else:
        numbers = [_scaled(max(float(x), 1e-30), True) if curve.is_log_x else float(x) for x in curve.x]
        span = max(numbers) - min(numbers) or 1.0
        shares = [(number - min(numbers)) / span for number in numbers]
    return [round(_LEFT + share * (_RIGHT - _LEFT), 1) for share in shares]


def _x_ticks(curve: Curve, xs: Sequence[float]) -> list[tuple[float, str]]:
    count = len(xs)
    is_long = any(isinstance(name, str) and len(name) > _SHORT for name in curve.x)
    most = _MOST_NAMES - is_long  # so that they do not overlap
    chosen = sorted({round(place * (count - 1) / (most - 1)) for place in range(most)})
    names = [curve.x[place] for place in chosen]
    return [
        (xs[place], name[-_LONG:] if isinstance(name, str) else _written(float(name)))
        for place, name in zip(chosen, names, strict=True)
    ]


def _mark(curve: Curve, xs: Sequence[float]) -> tuple[float, str] | None:
    if curve.mark is None:
        return None
    at, words = curve.mark
    places = [
        place
        for place, x in enumerate(curve.x)
        if x == at or (not isinstance(x, str) and not isinstance(at, str) and math.isclose(float(x), float(at), rel_tol=1e-6))
    ]
    return (xs[places[0]], words) if places else None


def _path(points: Sequence[tuple[float, float] | None]) -> str:
    """The path through points; a missing one is a gap."""
    parts, is_drawn = [], False
    for point in points:
        if point is None:
            is_drawn = False
            continue
        parts.append(f"{'L' if is_drawn else 'M'}{point[0]:g} {point[1]:g}")
        is_drawn = True
    return " ".join(parts)

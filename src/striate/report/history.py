"""What happened during training: the records of the log, and the curves drawn from them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Line = Mapping[str, Any]


def number(value: Any) -> float | None:
    """The value as a finite float, or None for anything else (text, null, NaN, true)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


def interval(value: Any) -> tuple[float, float] | None:
    """Low and high of an interval as JSON holds it, or None for anything else."""
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        return None
    low, high = number(value[0]), number(value[1])
    return None if low is None or high is None else (low, high)


@dataclass(frozen=True)
class Curve:
    """One measured quantity over training. x_N in epochs (or steps), y_N in its unit; NaN where a value is missing."""

    x_N: np.ndarray
    y_N: np.ndarray
    low_N: np.ndarray
    high_N: np.ndarray

    def __bool__(self) -> bool:
        return bool(np.isfinite(self.y_N).any())


@dataclass(frozen=True)
class History:
    """The lines of a log, with their place on the horizontal axis."""

    lines: Sequence[Line]
    steps_N: np.ndarray
    epochs_N: np.ndarray

    @property
    def unit(self) -> str:
        """What the horizontal axis counts: "epochs", or "steps" where no line says its epoch."""
        return "epochs" if len(self.epochs_N) else "steps"

    def place(self, step: float) -> float:
        """A step's place on the horizontal axis, read between the lines that say both (and carried on beyond them)."""
        if not len(self.epochs_N):
            return step
        if step > self.steps_N[-1] and self.steps_N[-1] > 0:
            return float(step * self.epochs_N[-1] / self.steps_N[-1])
        return float(np.interp(step, self.steps_N, self.epochs_N))

    def of(self, kind: str, **where: str) -> list[Line]:
        """The lines of one kind whose values agree with `where`, oldest first."""
        return [
            line for line in self.lines if line["kind"] == kind and all(line.get(key) == value for key, value in where.items())
        ]

    def last(self, *kinds: str) -> Line:
        """The newest line of these kinds; empty when there is none."""
        return next((line for line in reversed(self.lines) if line["kind"] in kinds), {})

    def curve(self, kind: str, key: str, **where: str) -> Curve:
        """The values named `key` of all lines of a kind, with their interval where the line has one (`key`_interval)."""
        lines = [line for line in self.of(kind, **where) if key in line]
        nan = math.nan
        intervals = [interval(line.get(f"{key}_interval")) or (nan, nan) for line in lines]
        return Curve(
            np.array([self.place(line["step"]) for line in lines], float),
            np.array([nan if (value := number(line[key])) is None else value for line in lines], float),
            np.array([low for low, _ in intervals], float),
            np.array([high for _, high in intervals], float),
        )

    @property
    def heads(self) -> tuple[str, ...]:
        """Names of the heads that have losses of their own; none for a network with one head."""
        names = (name for line in self.of("step") for name in line if name.startswith("losses/"))
        return tuple(dict.fromkeys(name.removeprefix("losses/") for name in names))

    def places(self, kind: str) -> list[float]:
        """Where on the horizontal axis the lines of a kind stand."""
        return [self.place(line["step"]) for line in self.of(kind)]


def history(lines: Iterable[Line]) -> History:
    """Puts the lines of a log (as `run.log.read` gives them) on one horizontal axis: epochs where lines say them, else steps.

    Lines without a kind or a step are left out. Where a network has several heads, the loss of each gets a name of its own:
    "losses/HEAD".
    """
    lines = [line for line in lines if isinstance(line.get("kind"), str) and number(line.get("step")) is not None]
    lines = [line | {f"losses/{head}": loss for head, loss in _heads(line).items()} for line in map(dict, lines)]
    at = {0.0: 0.0}
    for line in lines:
        if (epoch := number(line.get("epoch"))) is not None:
            at[float(line["step"])] = epoch
    if len(at) < 2:
        return History(lines, np.zeros(0), np.zeros(0))
    steps = sorted(at)
    return History(lines, np.array(steps), np.array([at[step] for step in steps]))


def _heads(line: Line) -> Mapping[str, Any]:
    """The losses of a line by head, where there are several."""
    losses = line.get("losses")
    return losses if isinstance(losses, Mapping) and len(losses) > 1 else {}


def binned(curve: Curve, most: int = 120) -> Curve:
    """The curve in at most `most` equal parts of its axis: the mean of each as y, least and greatest as low and high.

    There are three points to a part or more, so a short curve gets fewer parts; one of under 30 points stays as it is.
    """
    finite = np.isfinite(curve.y_N)
    x_N, y_N = curve.x_N[finite], curve.y_N[finite]
    if len(x_N) < 30 or x_N[0] == x_N[-1]:
        return curve
    parts = min(most, len(x_N) // 3)
    which_N = np.minimum(((x_N - x_N.min()) / np.ptp(x_N) * parts).astype(int), parts - 1)
    rows = [np.flatnonzero(which_N == part) for part in range(parts)]
    rows = [row for row in rows if len(row)]
    return Curve(
        np.array([x_N[row].mean() for row in rows]),
        np.array([y_N[row].mean() for row in rows]),
        np.array([y_N[row].min() for row in rows]),
        np.array([y_N[row].max() for row in rows]),
    )

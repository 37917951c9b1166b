"""The averaged weights lag behind the raw ones.

Looks at: validation accuracy of averaged (EMA) and of raw weights in the same evaluations.
Why: an average over 1/(1 - decay) steps is as old as half of them. At the start it has to lag, and a warmed-up decay shortens
that; where it lags to the end, the decay is too near 1 for the number of steps, and the checkpoint that is chosen and reported
is worse than the network.
Source: Polyak and Juditsky 1992; TensorFlow's ExponentialMovingAverage (the warm-up).
"""

from __future__ import annotations

import math

import numpy as np

from striate.doctor.finding import Cause, Finding, NotJudged, Remedy
from striate.doctor.history import Columns, History, curve, finite

SOURCE = "Polyak and Juditsky 1992; TensorFlow's ExponentialMovingAverage"

# Behind: by these points, and by this many standard errors of the difference.
_POINTS, _DEVIATIONS = 0.05, 3.0
# In so many evaluations in a row, the last one included; a single one only at the end of a training.
_IN_A_ROW = 2
# Steps of the training that an average should span at most.
_SPAN = 0.1
# Images behind an accuracy where nobody says how many there were.
_GUESSED_IMAGES = 1000


def check(history: History) -> Finding | None:
    """A finding when averaged weights are well below raw ones in the last evaluations; before half of the training a note."""
    average, raw = history.scores("val", "EMA"), history.scores("val", "raw")
    if average is None:
        raise NotJudged("no averaged weights")
    if raw is None:
        raise NotJudged("no validation scores")
    steps = np.intersect1d(finite(average["step"], average["top1"])[0], finite(raw["step"], raw["top1"])[0])
    behind = np.array([_at(raw, step) - _at(average, step) for step in steps])
    bounds = np.array([_bound(_at(raw, step), _used(raw, step)) for step in steps])
    is_at_end = history.is_done and history.end is not None
    if len(steps) < (1 if is_at_end else _IN_A_ROW):
        raise NotJudged("too few evaluations")
    if not behind[-1] > bounds[-1]:
        return None
    streak = int(np.argmax(np.append((behind <= bounds)[::-1], True)))
    if streak < _IN_A_ROW and not is_at_end:
        return None
    total = history.total_steps or history.last_step
    is_early = not is_at_end and history.last_step < 0.5 * total
    decay = history.recipe.optim.ema if history.recipe is not None else math.nan
    span = 1 / (1 - decay) if decay < 1 else math.nan
    return Finding(
        code="ema-lag",
        severity="note" if is_early else "warning",
        sentence=(
            f"The averaged weights score {_at(average, steps[-1]):.1%}, the raw ones {_at(raw, steps[-1]):.1%}"
            + (f": an average over {span:,.0f} steps, of {total:,}." if math.isfinite(span) else ".")
        ),
        evidence={
            "accuracy, averaged weights": _at(average, steps[-1]),
            "accuracy, raw weights": _at(raw, steps[-1]),
            "evaluations in a row": streak,
            "decay": decay,
            "steps averaged over": span,
            "steps of the training": total,
        },
        causes=(
            Cause(
                "ema-slow",
                0.9 if not math.isfinite(span) or span > _SPAN * total else 0.7,
                f"behind in {streak} evaluations in a row",
            ),
            Cause("batch-norm-statistics", 0.25, "or the averaged statistics do not belong to the averaged weights"),
        ),
        remedies=_remedies(history, total),
        source=SOURCE,
        curve=curve(
            "Validation accuracy",
            "step",
            "top-1",
            {"raw": (raw["step"], raw["top1"]), "averaged": (average["step"], average["top1"])},
        ),
    )


def _at(scores: Columns, step: float) -> float:
    rows = scores["step"] == step
    return float(scores["top1"][rows][-1])


def _used(scores: Columns, step: float) -> float:
    used = float(scores["used"][scores["step"] == step][-1])
    return used if math.isfinite(used) else _GUESSED_IMAGES


def _bound(top1: float, images: float) -> float:
    return max(_POINTS, _DEVIATIONS * math.sqrt(2 * max(top1 * (1 - top1), 0.0) / images))


def _remedies(history: History, total: int) -> tuple[Remedy, ...]:
    # A twentieth of the training, in a round number.
    decay = float(f"{1 - 1 / max(10.0, total / 20):.3g}")
    return (
        Remedy("Average over a twentieth of the training at most.", history.set(optim_ema=decay)),
        Remedy("Use the raw weights: `striate evaluate RUN --raw`."),
    )

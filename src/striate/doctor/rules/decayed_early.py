"""The learning rate fell while the loss was still falling fast, and since then next to nothing happens.

Looks at: the learning rate over the steps, and the slope of the training loss before it fell to a tenth and after.
Why: a lower rate brings the last gain of what was found at a higher one. Lowered before anything was found, it only stops the
training. Keras' `decay` of 1e-6 is harmless and one of 1e-2 is not; step schedules for 90 epochs of ImageNet are too early
for a hundred epochs of a small set, and the other way round.
Source: He et al. 2016, section 3.4 (drops when the error plateaus); You et al. 2019, "How does learning rate decay help".
"""

from __future__ import annotations

import math

import numpy as np

from striate.doctor.finding import Cause, Finding, NotJudged, Remedy
from striate.doctor.history import History, Numbers, curve, level, slope
from striate.doctor.rules.plateau import is_learnt

SOURCE = "He et al. 2016, section 3.4; You et al. 2019, section 4"

# The rate counts as fallen below this share of its peak, and the time since then must be this share of the records.
_FALLEN, _SINCE = 0.1, 0.35
# Rows needed before and after.
_LEAST_BEFORE, _LEAST_AFTER = 4, 6
# A rate of so little of its peak moves nothing; for this share of the training, at a loss of so much of guessing.
_NOTHING, _MUCH, _STILL = 1e-3, 0.4, 0.5
# Before: the loss was falling by this share in the time that it was high. After: at most this share of that pace.
_FELL, _PACE = 0.03, 0.25


def check(history: History) -> Finding | None:
    """A finding when the pace of the loss broke down with the rate, and much was left to learn."""
    rows = np.isfinite(history.steps["lr"]) & np.isfinite(history.loss)
    lr, loss, step = history.steps["lr"][rows], history.loss[rows], history.steps["step"][rows]
    if not np.isfinite(history.loss).any():
        raise NotJudged("no training losses")
    if not len(lr) or lr.max() <= 0:
        raise NotJudged("no learning rates")
    if (gone := _gone(history, lr, loss, step)) is not None:
        return gone
    if len(lr) < _LEAST_BEFORE + _LEAST_AFTER:
        raise NotJudged("too few records")
    fallen = np.flatnonzero(lr >= _FALLEN * lr.max())[-1] + 1
    if len(lr) - fallen < max(_LEAST_AFTER, _SINCE * len(lr)):
        return None
    high = slice(int(np.argmax(lr)), int(fallen))
    late = slice(int(high.start + (high.stop - high.start) // 3), high.stop)
    if late.stop - late.start < _LEAST_BEFORE - 1:
        late = high
    pace, error = slope(step[late], loss[late])
    after, _ = slope(step[fallen:], loss[fallen:])
    left = level(loss[-5:])
    was_falling = -pace * (step[late][-1] - step[late][0]) > _FELL * left and -pace > 2 * error
    if math.isnan(pace) or math.isnan(after):
        raise NotJudged("too few records")
    if not was_falling or -after > _PACE * -pace or is_learnt(history, left):
        return None
    first = int(step[fallen])
    return Finding(
        code="decayed-early",
        severity="warning",
        sentence=(
            f"The learning rate fell to a tenth of its peak at step {first:,} of {int(step[-1]):,}, while the loss was falling; "
            f"since then it stays at {left:.4g}."
        ),
        evidence={
            "peak rate": float(lr.max()),
            "rate now": float(lr[-1]),
            "loss per 100 steps, before": 100 * pace,
            "loss per 100 steps, after": 100 * after,
            "loss now": left,
            "loss of guessing": history.chance,
        },
        causes=(
            Cause(
                "schedule-early",
                0.85,
                f"the loss fell by {-100 * pace:.2g} each 100 steps before, and by {-100 * after:.2g} after",
            ),
            Cause("underfitting", 0.2, "or what was found before was all this network can do"),
        ),
        remedies=_remedies(history),
        source=SOURCE,
        curve=curve(
            "Learning rate", "step", "rate", {"learning rate": (step, lr)}, is_log=bool(lr.min() > 0), mark=(first, "fell")
        ),
    )


def _gone(history: History, lr: Numbers, loss: Numbers, step: Numbers) -> Finding | None:
    """The finding where the rate is next to nothing for much of the training, and the loss high: whatever its shape before."""
    nothing = np.flatnonzero(lr >= _NOTHING * lr.max())[-1] + 1
    share, left = 1 - nothing / len(lr), level(loss[-5:])
    if len(lr) < _LEAST_AFTER or share < _MUCH or is_learnt(history, left) or not left > _STILL * history.chance_or_first:
        return None
    first = int(step[min(nothing, len(step) - 1)])
    return Finding(
        code="decayed-early",
        severity="warning",
        sentence=(
            f"From step {first:,} of {int(step[-1]):,} on the learning rate is below a thousandth of its peak: for {share:.0%} "
            f"of the training nothing moves, and the loss stays at {left:.4g}."
        ),
        evidence={"peak rate": float(lr.max()), "rate now": float(lr[-1]), "share of the training": share, "loss now": left},
        causes=(Cause("schedule-early", 0.9, f"the rate is {lr[-1]:.1g}, from {lr.max():.3g}"),),
        remedies=(
            *_remedies(history),
            Remedy("See how often the scheduler is stepped: once for each epoch, unless it counts in batches."),
        ),
        source=SOURCE,
        curve=curve("Learning rate", "step", "rate", {"learning rate": (step, lr)}, is_log=bool(lr.min() > 0)),
    )


def _remedies(history: History) -> tuple[Remedy, ...]:
    whole = Remedy("Let the rate fall over the whole training.", history.set(optim_schedule="cosine"))
    if history.recipe is None:
        return (whole,)
    o = history.recipe.optim
    if o.schedule == "step":
        later = tuple(round(3 * epoch, 2) for epoch in o.drop_epochs)
        return (whole, Remedy("Drop it three times as late.", {"optim.drop_epochs": later}))
    return (whole,) if whole.changes else (Remedy("Train longer, the schedule with it.", history.longer(3)),)

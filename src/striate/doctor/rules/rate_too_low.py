"""The learning rate is too low: the loss falls steadily, slowly, and is far from done at the end.

Looks at: updates over weights near the peak of the rate, and the shape of the training loss: near to a straight line, still
falling at the end at the pace of the beginning.
Why: far from a minimum, steps that are too short go straight on; a training at a good rate falls fast first and slowly later.
Source: Karpathy, notes of Stanford's CS231n, "Neural networks part 3" (loss curves by learning rate: a low one is linear).
"""

from __future__ import annotations

import math

import numpy as np

from striate.doctor.finding import Cause, Finding, NotJudged, Remedy
from striate.doctor.history import History, fall, level
from striate.doctor.rules.plateau_at_chance import is_starved

SOURCE = "Karpathy, notes of CS231n, 'Neural networks part 3', loss function and ratio of weights to updates"

# Updates over weights: below the first it is surely too low, below the second only with a loss that hardly fell.
_SURE, _SMALL = 5e-5, 3e-4
# Updates above it are those of a usual rate, whatever the loss looks like.
_USUAL = 1e-3
# Of the loss of guessing, what is left where it hardly fell; above the second it is not the rate that keeps it there.
_LEFT, _FAR = 0.8, 1.5
# The second half of the training fell by this share of what the first half did: a straight line has 1, a good rate 0.2 or less.
_STRAIGHT = 0.6
_LEAST_ROWS, _LEAST_EPOCHS, _LEAST_STEPS = 12, 5, 60
# Means of epochs that fall nearly every time and stay near the loss of guessing: steps too short to have any noise.
_EVERY_TIME, _NEAR_GUESSING = 0.85, 0.9


def check(history: History) -> Finding | None:
    """A finding when updates are tiny and little is learnt, or the loss falls along a straight line and is still high."""
    loss = history.loss[np.isfinite(history.loss)]
    if not len(loss):
        raise NotJudged("no training losses")
    if len(loss) < (_LEAST_EPOCHS if history.is_by_epoch else _LEAST_ROWS):
        raise NotJudged("too few records")
    chance = history.chance_or_first
    left = level(loss[-5:] if len(loss) >= 10 else loss[-2:]) / chance
    update = level(history.typical_update_ratio()[history.is_near_peak(0.5)])
    if left < _LEFT or left > _FAR or is_starved(history):
        return None
    halves = [fall(half) for half in np.array_split(loss, 2)]
    (first, first_error), (second, second_error) = halves
    is_straight = (
        first > 3 * first_error and second > 3 * second_error and second > _STRAIGHT * first and not _has_fallen(history)
    )
    if not _is_long(history) and (math.isnan(update) or history.last_step < _LEAST_STEPS):
        raise NotJudged("too few steps")
    is_tiny = update < _SMALL and history.last_step >= _LEAST_STEPS
    crawls = (
        history.is_by_epoch
        and left > _NEAR_GUESSING
        and min(first / max(first_error, 1e-12), second / max(second_error, 1e-12)) > 3
        and float((np.diff(loss) < 0).mean()) >= _EVERY_TIME
    )
    if not is_tiny and not ((is_straight or crawls) and _is_long(history)):
        return None
    if math.isfinite(update) and update > _USUAL:
        return None
    fell = max(float(loss[0]), chance) - level(loss[-5:])
    size = f"a step changes weights by {update:.0e} of their size" if is_tiny else "it falls along a straight line"
    if crawls and not is_tiny:
        size = "it falls in nearly every epoch, by next to nothing"
    return Finding(
        code="rate-too-low",
        severity="warning" if update < _SURE or is_straight or crawls else "note",
        sentence=f"After {history.last_step:,} steps the training loss is still {left:.0%} of guessing, and {size}.",
        evidence={
            "update over weight, typical": update,
            "loss now": level(loss[-5:]),
            "loss of guessing": chance,
            "fell by": fell,
            "first half fell by": first,
            "second half fell by": second,
        },
        causes=(
            Cause("learning-rate-low", 0.85 if update < _SURE else 0.65, size),
            Cause("underfitting", 0.25, "a network too small, or a training too short, looks alike"),
        ),
        remedies=(
            Remedy("Take ten times the learning rate, or thirty.", history.scaled("optim.lr", 30 if update < _SURE else 10)),
            Remedy("Train longer.", history.longer(3)),
        ),
        source=SOURCE,
        curve=history.loss_curve(),
    )


def _has_fallen(history: History) -> bool:
    """Whether the rate itself changed by much along the way: then the shape of the loss is that of the schedule."""
    lr = history.steps["lr"][np.isfinite(history.steps["lr"])]
    return len(lr) > 0 and float(lr.min()) < 0.3 * float(lr.max())


def _is_long(history: History) -> bool:
    epochs = level(history.steps["epoch"][-1:])
    return epochs >= _LEAST_EPOCHS - 1

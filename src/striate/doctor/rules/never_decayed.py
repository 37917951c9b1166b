"""The learning rate never falls, and the loss wanders about where it could still come down.

Looks at: the learning rate (the same to the end), the training loss (its noise exceeds its progress), validation (no better).
Why: at a constant rate the weights do not settle: they jitter about a minimum at a distance that the rate decides. The largest
single gain that is left in such a training is to lower it.
Source: Robbins and Monro 1951 (steps must shrink); He et al. 2016, figure 4 (what the first drop gains).
"""

from __future__ import annotations

import math

import numpy as np

from striate.doctor.finding import Cause, Finding, NotJudged, Remedy
from striate.doctor.history import History, curve, fall, jitter, level

SOURCE = "Robbins and Monro 1951; He et al. 2016, section 3.4 and figure 4"

# The rate is the same: its least over its largest, after the warm-up.
_SAME = 0.7
# Long enough to have settled.
_LEAST_EPOCHS, _LEAST_ROWS, _LEAST_EVALUATIONS = 8, 10, 4
# The last half of the training loss fell by at most so much of itself.
_PROGRESS = 0.06
# Loss of guessing that must be left for a drop to gain anything.
_LEFT = 0.03
# Validation: the best of the last half is at most so much better than the best of the first.
_GAIN = 0.01
# Or its accuracy swings about its own trend, from evaluation to evaluation, by so many times what its images explain.
_SWINGS, _LEAST_SWUNG = 1.5, 6
# Images behind an accuracy of which nobody says how many there were.
_GUESSED_IMAGES = 500


def check(history: History) -> Finding | None:
    """A finding at the end of a training at a constant rate whose loss and validation stand still; before the end a note."""
    rows = np.isfinite(history.steps["lr"]) & np.isfinite(history.loss) & (history.steps["step"] > history.warmup_steps)
    lr, loss, step = history.steps["lr"][rows], history.loss[rows], history.steps["step"][rows]
    epochs = level(history.steps["epoch"][-1:])
    if not np.isfinite(history.loss).any():
        raise NotJudged("no training losses")
    if not np.isfinite(history.steps["lr"]).any():
        raise NotJudged("no learning rates")
    if len(lr) < _LEAST_ROWS:
        raise NotJudged("too few records")
    if lr.min() < _SAME * lr.max():
        return None
    if not epochs >= _LEAST_EPOCHS - 1:
        raise NotJudged("too few epochs")
    half = loss[len(loss) // 2 :]
    down, error = fall(half)
    noise, height = jitter(half), level(half)
    stands = down < max(_PROGRESS * height, noise) and down < 5 * max(error, 1e-12) + _PROGRESS * height
    is_left = height > _LEFT * (history.chance or 1.0)
    gain = _validation_gain(history)
    swing, expected = _swing(history)
    swings = history.is_done and swing > _SWINGS * expected
    if not is_left or not (swings or (stands and gain <= _GAIN)):
        return None
    is_falling_later = history.recipe is not None and history.recipe.optim.schedule in ("step", "plateau") and not history.is_done
    return Finding(
        code="never-decayed",
        severity="note" if is_falling_later else "warning",
        sentence=(
            f"The learning rate is {lr[-1]:.3g} from the start to the end ({epochs:.0f} epochs); "
            + (
                f"the loss jitters by {noise:.2g} about {height:.4g} and no longer falls."
                if stands
                else f"validation still swings by {swing:.1%} between evaluations, where a falling rate would settle it."
            )
        ),
        evidence={
            "rate": float(lr[-1]),
            "epochs": epochs,
            "loss, last half": height,
            "fell by": down,
            "jitter": noise,
            "validation gained in the last half": gain,
            "swing of validation": swing,
            "swing that its images explain": expected,
        },
        causes=(
            Cause("schedule-never", 0.8, "a constant rate keeps the weights at a distance from every minimum"),
            Cause("learning-rate-high", 0.4, "the lower the rate, the nearer they come"),
        ),
        remedies=(
            Remedy("Let the rate fall to zero over the training.", history.set(optim_schedule="cosine")),
            Remedy("Average the weights along the way, which settles them too.", history.set(optim_ema=0.999)),
        ),
        source=SOURCE,
        curve=curve("Training loss", "step", "loss [nats]", {"training loss": (step, loss)}),
    )


def _swing(history: History) -> tuple[float, float]:
    """Deviation of the validation accuracy from a line through the last half of its evaluations, and what chance explains."""
    scores = history.scores("val", "raw")
    if scores is None:
        return 0.0, math.inf
    top1 = scores["top1"][np.isfinite(scores["top1"])]
    half, images = top1[len(top1) // 2 :], level(scores["used"])
    if len(half) < _LEAST_SWUNG:
        return 0.0, math.inf
    if not images > 0:
        images = _GUESSED_IMAGES
    place = np.arange(len(half))
    trend = np.polyval(np.polyfit(place, half, 1), place)
    swing = math.sqrt(float(((half - trend) ** 2).sum()) / (len(half) - 2))
    return swing, math.sqrt(float(half.mean() * (1 - half.mean())) / images)


def _validation_gain(history: History) -> float:
    """By how much the best validation accuracy of the last half exceeds that of the first; of losses, as a share."""
    scores = history.scores("val", "raw")
    if scores is None:
        raise NotJudged("no validation scores")
    top1 = scores["top1"][np.isfinite(scores["top1"])]
    if len(top1) >= _LEAST_EVALUATIONS:
        return float(top1[len(top1) // 2 :].max() - top1[: len(top1) // 2].max())
    loss = scores["loss"][np.isfinite(scores["loss"])]
    if len(loss) < _LEAST_EVALUATIONS:
        raise NotJudged("too few evaluations")
    return float(1 - loss[len(loss) // 2 :].min() / loss[: len(loss) // 2].min())

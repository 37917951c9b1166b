"""The loss stands still, above nothing learnt and below what is possible, although the learning rate is still high.

Looks at: the training loss while the rate is at least a fifth of its peak, accuracies, updates over weights.
Why: a loss that is flat at the end of a schedule is as it should be; one that is flat long before it has a reason. Which one, the
size of the updates and the noise of the loss say in part; `underfitting`, `regularisation`, `rate-too-high` and the others look
for one reason each.
Source: Goodfellow, Bengio and Courville 2016, section 11.4.1 (what to do when training error stays high).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from striate.doctor.finding import Cause, Finding, NotJudged, Remedy
from striate.doctor.history import History, fall, jitter, level
from striate.doctor.rules.plateau_at_chance import at_chance, is_validation_guessed

SOURCE = "Goodfellow, Bengio and Courville 2016, section 11.4.1"

# The rate counts as high above this share of its peak; below, a flat loss is what the schedule wants.
_HIGH = 0.2
# Rows of steps, or of epochs, in that time, and steps: with fewer nothing can be told from noise.
_LEAST_ROWS, _LEAST_EPOCHS, _LEAST_STEPS = 12, 6, 300
# Flat: over the second half of that time the loss falls by less than this share of itself, and by less than the other one surely.
_FLAT, _SURELY = 0.03, 0.1
# A later fall by this share, when the rate drops, says that the schedule was right.
_LATER = 0.05
# Of the loss of guessing, what is left where a training loss counts as learnt; and the accuracy.
_LEARNT_LOSS, _LEARNT_TOP1 = 0.25, 0.75


@dataclass(frozen=True)
class Stall:
    """The training loss flat at a high rate. down, error: by how much it fell in that time, and the standard error of it."""

    loss: float
    down: float
    error: float
    first_step: int
    last_step: int
    noise: float


def check(history: History) -> Finding | None:
    """A finding when the loss is flat at a high rate, and did not fall afterwards; a note where the rate is still to fall."""
    stalled = stall(history)
    if stalled is None:
        return None
    causes = _causes(history, stalled)
    return Finding(
        code="plateau",
        severity="note" if decay_is_ahead(history) else "warning",
        sentence=f"The loss stands at {stalled.loss:.4g} since step {stalled.first_step:,}: {_height(history, stalled)}.",
        evidence={
            "loss": stalled.loss,
            "fell by": stalled.down,
            "fell by, standard error": stalled.error,
            "from step": stalled.first_step,
            "to step": stalled.last_step,
            "loss of guessing": history.chance,
            "training accuracy": level(history.steps["top1"][-5:]),
            "update over weight, typical": level(history.typical_update_ratio()[history.is_near_peak(0.5)]),
        },
        causes=causes,
        remedies=_remedies(history, causes[0].name),
        source=SOURCE,
        curve=history.loss_curve((_place(history, stalled.first_step), "flat from here")),
    )


def stall(history: History) -> Stall | None:
    """Where the training loss stands still at a high rate, above what counts as learnt; None where it moves or is at ln K.

    Raises NotJudged where too little is told.
    """
    rows = history.is_near_peak(_HIGH) & np.isfinite(history.loss)
    if not np.isfinite(history.loss).any():
        raise NotJudged("no training losses")
    if rows.sum() < (_LEAST_EPOCHS if history.is_by_epoch else _LEAST_ROWS):
        raise NotJudged("too few records")
    loss, step = history.loss[rows], history.steps["step"][rows]
    half = slice(len(loss) // 2, None)
    if not history.is_by_epoch and step[-1] - step[half][0] < _LEAST_STEPS / 2:
        raise NotJudged("too few steps")
    height = level(loss[half])
    down, error = fall(loss[half])
    is_flat = abs(down) < _FLAT * height and abs(down) + 2 * error < _SURELY * height
    if not is_flat:
        return None
    if is_learnt(history, height) or level(history.loss[-3:]) < (1 - _LATER) * height:
        return None
    if at_chance(history) is not None or (history.chance is not None and height > 1.1 * history.chance):
        return None
    return Stall(height, down, error, int(step[half][0]), int(step[-1]), jitter(loss[half]))


def is_stalled(history: History) -> bool:
    """Whether the loss stands still, as far as can be told."""
    try:
        return stall(history) is not None
    except NotJudged:
        return False


def is_learnt(history: History, loss: float) -> bool:
    """Whether a training loss, or the accuracy that goes with it, leaves little to be learnt. Raises NotJudged if unknown."""
    accuracy = level(history.steps["top1"][-10:])
    if history.chance is not None:
        return loss < _LEARNT_LOSS * history.chance or accuracy > _LEARNT_TOP1
    if math.isnan(accuracy):
        raise NotJudged("number of classes unknown")
    return accuracy > _LEARNT_TOP1


def decay_is_ahead(history: History) -> bool:
    """Whether the schedule still lowers the rate by much."""
    if history.recipe is None or history.is_done or history.recipe.optim.schedule == "constant":
        return False
    lr = history.steps["lr"]
    return bool(np.isfinite(lr).any()) and bool(level(lr[-1:]) > 0.5 * np.nanmax(lr))


def _height(history: History, stalled: Stall) -> str:
    accuracy = level(history.steps["top1"][-10:])
    share = f"training accuracy is {accuracy:.1%}" if math.isfinite(accuracy) else "far from zero"
    return share if history.chance is None else f"{share}, and guessing has ln {history.classes} = {history.chance:.4g}"


def _place(history: History, step: int) -> float:
    """A step on the x axis of the loss curve, which shows epochs where they are known."""
    epochs = history.steps["epoch"]
    if not np.isfinite(epochs).any():
        return float(step)
    return float(epochs[int(np.nanargmin(np.abs(history.steps["step"] - step)))])


def _causes(history: History, stalled: Stall) -> tuple[Cause, ...]:
    update = level(history.typical_update_ratio()[history.is_near_peak(0.5)])
    causes = [Cause("underfitting", 0.4, "nothing in the records speaks for another cause")]
    if is_validation_guessed(history):
        causes.append(Cause("labels-shuffled", 0.65, "what little is learnt of the training images helps no other image"))
    if update > 1e-2:
        causes.append(Cause("learning-rate-high", 0.6, f"a step changes weights by {update:.1%} of their size"))
    elif stalled.noise > 0.1 * stalled.loss and not history.is_mixed:
        causes.append(Cause("learning-rate-high", 0.45, f"the loss jumps by {stalled.noise:.2g} from record to record"))
    else:
        causes.append(Cause("learning-rate-high", 0.25, "the loss of a rate that is too high is flat as well"))
    if update < 1e-4:
        causes.append(Cause("learning-rate-low", 0.6, f"a step changes weights by {update:.1e} of their size"))
    causes.append(Cause("label-noise", 0.15, "wrong labels cannot be learnt"))
    return tuple(sorted(causes, key=lambda cause: -cause.weight))


def _remedies(history: History, cause: str) -> tuple[Remedy, ...]:
    lower = Remedy("Take a third of the learning rate.", history.scaled("optim.lr", 0.3))
    higher = Remedy("Take ten times the learning rate.", history.scaled("optim.lr", 10))
    falling = Remedy("Let the rate fall to zero over the training.", history.set(optim_schedule="cosine"))
    larger = Remedy("Take a larger network, or one with residual connections and batch normalisation.")
    if cause == "learning-rate-low":
        return (higher, larger)
    if cause == "underfitting":
        return (larger, lower)
    return (lower, *((falling,) if falling.changes or history.recipe is None else ()), larger)

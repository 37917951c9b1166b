"""The loss rises far above where it was, or above an answer without knowledge, and stays there.

Looks at: the training loss (else the validation loss), gradient norms, updates over weights.
Why: a step that is too long lands higher than it began. Guessing has a loss of ln K, and no network is worse than that for long
unless its weights were thrown far away.
Source: Goodfellow, Bengio and Courville 2016, section 11.4.1; LeCun et al. 1998, "Efficient BackProp", section 5.1 (a rate above
twice the best one makes the error grow).
"""

from __future__ import annotations

import math

import numpy as np

from striate.doctor.finding import Cause, Finding, NotJudged, Remedy
from striate.doctor.history import History, Numbers, finite, level, parts
from striate.doctor.rules.plateau_at_chance import first_update, of_size

SOURCE = "LeCun et al. 1998, Efficient BackProp, section 5.1; Goodfellow, Bengio and Courville 2016, section 11.4.1"

# Rows below which nothing is said; of a table by epochs fewer, each being a mean.
_LEAST_ROWS, _LEAST_EPOCHS = 6, 4
# Far above: by this factor, of the level that the loss had reached before, or of guessing.
_FACTOR = 1.5
# A network starts above ln K where its head starts large; so much of its first loss must be left to speak of divergence.
_OF_THE_FIRST = 1.1


def check(history: History) -> Finding | None:
    """A finding when the last fifth of the loss is half as high again as before, or than the loss of guessing."""
    line, place, loss = _line(history)
    if len(loss) < (_LEAST_EPOCHS if history.is_by_epoch else _LEAST_ROWS):
        raise NotJudged("too few records")
    fifths = [value for value in parts(loss, 5) if math.isfinite(value)]
    lowest, now, first = min(fifths[:-1]), fifths[-1], float(loss[0])
    above_itself = now > _FACTOR * lowest and fifths[-2] > 1.15 * lowest and _is_high(history, now)
    is_guessed = history.chance is not None and now > _FACTOR * history.chance and now > _OF_THE_FIRST * first
    return _finding(history, line, place, loss, lowest, now) if above_itself or is_guessed else None


def _line(history: History) -> tuple[str, Numbers, Numbers]:
    """The training loss, main head; only where there is none, the validation loss, which overfitting raises as well."""
    step, loss = finite(history.steps["step"], history.loss)
    if len(loss):
        return "training", step, loss
    scores = history.scores("val")
    step, loss = finite(scores["step"], scores["loss"]) if scores is not None else (step, loss)
    if not len(loss):
        raise NotJudged("no losses")
    return "validation", step, loss


def _is_high(history: History, loss: float) -> bool:
    """Whether a loss is so high that its rise is no noise near zero: a third of guessing, or 0.5 where that is unknown."""
    return loss > (history.chance / 3 if history.chance is not None else 0.5)


def _finding(history: History, line: str, place: Numbers, loss: Numbers, lowest: float, now: float) -> Finding:
    since = int(place[int(np.argmin(loss[: max(1, len(loss) * 4 // 5)]))])
    guessing = f"; guessing has ln {history.classes} = {history.chance:.4g}" if history.chance is not None else ""
    return Finding(
        code="divergence",
        severity="error",
        sentence=f"The {line} loss rose from {min(lowest, float(loss[0])):.4g} to {now:.4g} and stays there{guessing}.",
        evidence={
            "loss now": now,
            "loss at its lowest": lowest,
            "at step": since,
            "highest loss": float(loss.max()),
            "loss of guessing": history.chance,
            "gradient norm now": level(history.steps["gradient_norm"][-5:]),
            "gradient norm at first": level(history.steps["gradient_norm"][:2]),
            "largest update over weight, first steps": first_update(history),
        },
        causes=_causes(history, loss),
        remedies=(
            Remedy("Take a tenth of the learning rate.", history.scaled("optim.lr", 0.1)),
            Remedy("Let the rate rise slowly, and bound the gradients.", _gently(history)),
        ),
        source=SOURCE,
        curve=history.loss_curve(),
    )


def _gently(history: History) -> dict[str, object]:
    if history.recipe is None:
        return {}
    return history.set(optim_warmup_epochs=max(1.0, history.recipe.optim.warmup_epochs), optim_clip_norm=1.0)


def _causes(history: History, loss: Numbers) -> tuple[Cause, ...]:
    update = first_update(history)
    causes = [Cause("learning-rate-high", 0.75, "a step too long is the usual reason for a loss that rises")]
    if update >= 0.3:
        causes = [Cause("learning-rate-high", 0.95, f"one of the first steps changed weights by {of_size(update)}")]
    if history.skips:
        causes.append(Cause("precision", 0.3, f"{len(history.skips)} steps had numbers that were not finite"))
    if history.batch_size is not None and history.batch_size <= 8:
        causes.append(Cause("batch-too-small", 0.5, f"a step sees {history.batch_size} images only"))
    rises_late = len(loss) >= 10 and int(np.argmin(loss)) > len(loss) // 2
    if rises_late and math.isfinite(update) and update < 0.1:
        causes.append(Cause("bad-batch", 0.3, "it rose late and not from the start, as after images far outside the others"))
    return tuple(causes)

"""The learning rate is too high for this network, though the training may live with it.

Looks at: a loss that rises in the first steps and takes long to come back; a first step as large as the weights; a loss that
stalls and is noisy, and falls at once when the rate drops; what is known to be too much for the optimiser.
Why: above the best rate the loss falls more slowly or not at all; above twice that rate it rises. Between the two lies a range
where a training looks alive and does not get on.
Source: LeCun et al. 1998, "Efficient BackProp", section 5.1; Smith 2017, section 3.3; Goyal et al. 2017, section 2.2 (warm-up).
"""

from __future__ import annotations

import numpy as np

from striate.doctor.finding import Cause, Finding, NotJudged, Remedy
from striate.doctor.history import History, level
from striate.doctor.rules.plateau import is_stalled
from striate.doctor.rules.plateau_at_chance import at_chance, first_update, of_size

SOURCE = "LeCun et al. 1998, Efficient BackProp, section 5.1; Smith 2017, section 3.3; Goyal et al. 2017, section 2.2"

_LEAST_ROWS = 6
# The loss rose by this share above where it began (or guessing), and was still above that for this share of the records.
_ROSE, _LONG = 0.3, 0.2
# A first step of this share of the weights.
_FIRST = 1.0
# After a drop of the rate by half or more, the loss falls at once by this share of itself, having stood still before.
_FELL = 0.15
# Rates that are high for the kind of optimiser, whatever the network.
_ADAM, _SGD_WITHOUT_NORM = 0.01, 0.1


def check(history: History) -> Finding | None:
    """A finding when two signs of a rate that is too high come together, or one that cannot be mistaken."""
    told = int(np.isfinite(history.loss).sum())
    if told < _LEAST_ROWS:
        raise NotJudged("too few records" if told else "no training losses")
    signs, evidence = _signs(history)
    if not signs:
        return None
    weight = min(0.95, sum(signs.values()))
    if weight < 0.6:
        return None
    is_harmful = _is_unlearnt(history) or is_stalled(history)
    lr = history.recipe.optim.lr if history.recipe is not None else level(history.steps["lr"])
    rate = f" ({lr:g})" if np.isfinite(lr) else ""
    return Finding(
        code="rate-too-high",
        severity="warning" if is_harmful else "note",
        sentence=f"The learning rate{rate} is too high: {'; '.join(signs)}.",
        evidence=evidence,
        causes=(
            Cause("learning-rate-high", weight, "; ".join(signs)),
            *_of_the_batch(history.batch_size),
        ),
        remedies=(
            Remedy("Take a tenth of the learning rate.", history.scaled("optim.lr", 0.1)),
            Remedy("Let it rise slowly.", _warmed(history)),
        ),
        source=SOURCE,
        curve=history.loss_curve(),
    )


def _of_the_batch(size: int | None) -> list[Cause]:
    return [] if size is None else [Cause("batch-too-small", 0.5 if size <= 8 else 0.1, f"for a batch of {size}")]


def _signs(history: History) -> tuple[dict[str, float], dict[str, float]]:
    """What speaks for it, with a weight; and the numbers."""
    loss = history.loss[np.isfinite(history.loss)]
    base = max(float(loss[0]), history.chance or 0.0)
    above = loss > (1 + _ROSE / 3) * base
    signs: dict[str, float] = {}
    evidence = {
        "first loss": float(loss[0]),
        "highest loss": float(loss.max()),
        "share of records above the first": float(above.mean()),
    }
    peak = int(np.argmax(loss))
    if loss.max() > (1 + _ROSE) * base and above.mean() >= _LONG and peak < 0.9 * len(loss):
        signs[f"the loss rose from {loss[0]:.4g} to {loss.max():.4g} and took long to come back"] = 0.8
    update = first_update(history)
    if update >= _FIRST:
        evidence["largest update over weight, first steps"] = update
        signs[f"one of the first steps changed weights by {of_size(update)}"] = 0.8
    if (drop := drop_of_the_rate(history)) is not None:
        before, after, step = drop
        if after < (1 - _FELL) * before:
            evidence |= {"loss before the rate dropped": before, "loss after": after, "at step": step}
            signs[f"the loss fell from {before:.4g} to {after:.4g} as soon as the rate dropped (step {step:,.0f})"] = 0.25
    if _is_high_for_its_kind(history) and (is_stalled(history) or at_chance(history) is not None):
        signs["it is high for this kind of optimiser and network, and the loss stands still"] = 0.6
    elif _is_high_for_its_kind(history):
        signs["it is high for this kind of optimiser and network"] = 0.3
    return signs, evidence


def drop_of_the_rate(history: History) -> tuple[float, float, float] | None:
    """Loss before and after the first drop of the rate by half or more from one record to the next, and its step."""
    rows = np.isfinite(history.steps["lr"]) & np.isfinite(history.loss)
    lr, loss, step = history.steps["lr"][rows], history.loss[rows], history.steps["step"][rows]
    drops = np.flatnonzero(lr[1:] < 0.5 * lr[:-1]) + 1
    width = 1 if history.is_by_epoch else 4
    usable = [int(place) for place in drops if width <= place <= len(loss) - width and lr[place] > 0]
    if not usable:
        return None
    place = usable[0]
    return level(loss[place - width : place]), level(loss[place : place + width]), float(step[place])


def _is_high_for_its_kind(history: History) -> bool:
    if history.recipe is None:
        return False
    o = history.recipe.optim
    if o.name in ("adam", "adamw", "rmsprop"):
        return o.lr > _ADAM
    return o.name == "sgd" and history.has_batch_norm is False and o.lr >= _SGD_WITHOUT_NORM


def _is_unlearnt(history: History) -> bool:
    loss = level(history.loss[-5:])
    return history.chance is not None and loss > 0.8 * history.chance


def _warmed(history: History) -> dict[str, object]:
    if history.recipe is None or history.recipe.optim.warmup_epochs >= 1:
        return {}
    return history.set(optim_warmup_epochs=1.0)

"""Gradients vanish or burst on their way through the depth, or over the time.

Looks at: gradient over weight by layer group in the first records and in the last ones, and the norm of the whole gradient.
Why: layers that get next to no gradient stay as they were drawn, and those behind them learn from noise. In a network that
learns, groups differ by less than a hundred times.
Source: Glorot and Bengio 2010, section 4; Pascanu, Mikolov and Bengio 2013, section 2 (vanishing and exploding).
"""

from __future__ import annotations

import math

import numpy as np

from striate.doctor.finding import Cause, Curve, Finding, NotJudged, Remedy
from striate.doctor.history import History, level
from striate.doctor.rules.plateau_at_chance import first_update, flow, is_starved, of_size

SOURCE = "Glorot and Bengio 2010, section 4; Pascanu, Mikolov and Bengio 2013, section 2"

# The first layer group's gradient over weight, over the largest of any group: below this, the first layers do not learn.
_VANISHED = 1e-4
# The norm of the whole gradient, now over at first: above the one it has burst, below the other it has gone.
_BURST, _GONE = 100.0, 1e-4
# Records below which nothing is said, and how many make "now".
_LEAST_ROWS, _NOW = 4, 5
# Of the loss of guessing: below it, gradients are small because little is left to learn.
_LEFT = 0.5


def check(history: History) -> Finding | None:
    """A finding when the gradients of the first layers are lost, or the whole gradient bursts or vanishes; else None."""
    told = int(np.isfinite(history.steps["gradient_norm"]).sum())
    if told < _LEAST_ROWS:
        raise NotJudged("too few records" if told else "no statistics of layers")
    if not _is_left(history):
        return None
    now, at_first = flow(history, slice(-_NOW, None)), flow(history, slice(0, 2))
    norm = history.steps["gradient_norm"]
    norm_now, norm_first = level(norm[-_NOW:]), level(norm[:2])
    grown = norm_now / norm_first if norm_first > 0 else math.nan
    if now < _VANISHED:
        when = "from the first step on" if at_first < _VANISHED else f"after {at_first:.0e} at first"
        much = f"{now:.0e}" if now > 0 else "nothing"
        sentence = f"The first layers get {much} of the gradient that the last ones get, relative to their weights, {when}."
        causes = _vanished(history, at_first)
    elif grown > _BURST:
        sentence = (
            f"Gradients grew {grown:,.0f} times, from a norm of {norm_first:.3g} to {norm_now:.3g}, and the loss did not fall."
        )
        causes = (
            Cause("learning-rate-high", 0.7, "they were ordinary at first"),
            Cause("initialisation", 0.3, "or almost too large"),
        )
    elif grown < _GONE:
        sentence = f"Gradients vanished, from a norm of {norm_first:.3g} to {norm_now:.3g}, and the loss did not fall."
        causes = _vanished(history, at_first)
    else:
        return None
    return Finding(
        code="gradient-flow",
        severity="error",
        sentence=sentence,
        evidence={
            "gradient of the first layers over the largest, now": now,
            "gradient of the first layers over the largest, first steps": at_first,
            "gradient norm now": norm_now,
            "gradient norm at first": norm_first,
            "loss": level(history.loss[-_NOW:]),
        },
        causes=causes,
        remedies=_remedies(history, causes[0].name),
        source=SOURCE,
        layer=next(iter(history.norms("gradient")), None) if now < _VANISHED else None,
        curve=_curve(history),
    )


def _is_left(history: History) -> bool:
    """Whether there is much left to learn, by the loss against guessing, or against where it began."""
    loss = history.loss[np.isfinite(history.loss)]
    if not len(loss):
        return True
    return level(loss[-_NOW:]) > _LEFT * (history.chance if history.chance is not None else float(loss[0]))


def _vanished(history: History, at_first: float) -> tuple[Cause, ...]:
    update = first_update(history)
    dead = max((level(share[-_NOW:]) for share in history.dead_share.values()), default=0.0)
    causes = []
    if at_first < _VANISHED or is_starved(history):
        name = history.recipe.model.name if history.recipe else str(history.start.get("model", ""))
        has_gates = name.startswith(("se-", "se_", "senet")) or "paths" in name
        causes.append(Cause("gates" if has_gates else "initialisation", 0.8, "it was so before anything was learnt"))
        causes.append(Cause("initialisation" if has_gates else "gates", 0.5, "it was so before anything was learnt"))
        if history.has_batch_norm is False:
            causes.append(Cause("no-normalisation", 0.5, "the network has no normalisation"))
    else:
        because = f"a first step changed weights by {of_size(update)}" if update > 0.3 else "it was well at first"
        causes.append(Cause("learning-rate-high", 0.8 if update > 0.3 else 0.6, because))
        if history.has_batch_norm is False:
            causes.append(
                Cause("initialisation", 0.5, "without normalisation there is little room between too small and too large")
            )
    if dead > 0.9:
        causes.append(Cause("dead-units", 0.7, f"in one layer {dead:.0%} of the units are zero for all images"))
    return tuple(sorted(causes, key=lambda cause: -cause.weight))


def _remedies(history: History, cause: str) -> tuple[Remedy, ...]:
    lower = Remedy("Take a tenth of the learning rate.", history.scaled("optim.lr", 0.1))
    start = Remedy("Draw the weights for ReLUs (He et al. 2015), add batch normalisation, or open gates at the start.")
    bound = Remedy("Bound the gradients.", history.set(optim_clip_norm=1.0))
    return (lower, bound, start) if cause in ("learning-rate-high", "dead-units") else (start, lower)


def _curve(history: History) -> Curve | None:
    """Gradient over weight by layer group, at first and now."""
    weights, gradients = history.norms("weight"), history.norms("gradient")
    lines: dict[str, list[float | None]] = {"first records": [], "now": []}
    for name, rows in (("first records", slice(0, 2)), ("now", slice(-_NOW, None))):
        for group, gradient in gradients.items():
            value = level(gradient[rows]) / max(level(weights[group][rows]), 1e-30)
            lines[name].append(value if math.isfinite(value) and value > 0 else None)
    if not gradients:
        return None
    return Curve("Gradient over weight", "layer group", "norm over norm", list(gradients), lines, is_log=True)

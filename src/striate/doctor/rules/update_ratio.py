"""A step changes the weights by far too much or far too little of their size.

Looks at: norm of the update over norm of the weights, by layer group, while the rate is near its peak; groups of normalisation
are left out. In the first records, and the median over all.
Why: about a thousandth of their size is what weights of a network that learns move in a step. A step of their own size forgets
what was drawn; a step of a millionth would need a million of them.
Source: Karpathy, notes of Stanford's CS231n, "Learning: ratio of weights:updates" (about 1e-3); the bounds are wider, as
measured on healthy trainings here: 2e-4 to 7e-2 for most groups, 0.3 for the head in its first step.
"""

from __future__ import annotations

import math

import numpy as np

from striate.doctor.finding import Cause, Finding, NotJudged, Remedy
from striate.doctor.history import History, curve, level
from striate.doctor.rules.plateau_at_chance import decay_of_a_step, is_starved, of_size

SOURCE = "Karpathy, notes of CS231n, 'Neural networks part 3', ratio of weights to updates"

# What healthy trainings have; a finding needs to be further out.
HEALTHY = (1e-4, 1e-2)
# In the first records: the median over the groups; or a group that is changed by more than its size.
_FIRST_TYPICAL, _FIRST_LARGEST = 0.12, 1.0
# The median over time and groups.
_TOO_LARGE, _TOO_SMALL = 0.1, 2e-5
_LEAST_ROWS = 6
# What the largest ratio of any group should come down to; the others are then far below it.
_AIM_LARGEST = 0.1
# The share of the weights that decay takes in a step, from which on it is decay that moves them.
_DECAY = 0.01


def check(history: History) -> Finding | None:
    """A finding when updates are far out of proportion; one that the loss does not mind is a note."""
    typical = history.typical_update_ratio()
    known = np.isfinite(typical)
    if not known.any():
        raise NotJudged("no statistics of layers")
    first_typical, (largest, group) = float(typical[known][0]), _largest(history)
    at_peak = level(typical[history.is_near_peak(0.5)]) if known.sum() >= _LEAST_ROWS else math.nan
    if first_typical > _FIRST_TYPICAL or largest > _FIRST_LARGEST or at_peak > _TOO_LARGE:
        size = max(largest, first_typical) if largest > _FIRST_LARGEST or first_typical > _FIRST_TYPICAL else at_peak
        where = f" of {group}" if size == largest else ""
        sentence = f"A step changed the weights{where} by {of_size(size)}; about 0.1% is usual, and at most some percent."
        factor = _factor(size / (_AIM_LARGEST if size == largest else HEALTHY[1]))
        remedies: tuple[Remedy, ...] = (
            Remedy(
                f"Take a {'tenth' if factor == 0.1 else 'hundredth'} of the learning rate.", history.scaled("optim.lr", factor)
            ),
        )
        causes = [
            Cause("learning-rate-high", 0.9, f"by {of_size(size)} in one step"),
            Cause("initialisation", 0.3, "or the weights were drawn very small"),
        ]
        if history.recipe is not None and (decay := decay_of_a_step(history.recipe)) > _DECAY:
            causes.append(Cause("weight-decay-high", 0.95, f"decay alone takes {decay:.1%} of the weights in one step"))
            remedies = (Remedy("Take a hundredth of the weight decay.", history.scaled("optim.weight_decay", 0.01)), *remedies)
        return _finding(history, sentence, tuple(causes), remedies, is_serious=_is_unlearnt(history))
    if at_peak < _TOO_SMALL and len(history.steps) >= 2 * _LEAST_ROWS:
        sentence = f"A step changes the weights by {at_peak:.0e} of their size; 1e-3 is usual."
        causes = [Cause("learning-rate-low", 0.85, f"{at_peak:.0e} of the weights in one step")]
        remedies = (Remedy("Take ten to a hundred times the learning rate.", history.scaled("optim.lr", 30)),)
        if is_starved(history):
            causes.append(Cause("initialisation", 0.9, "most layers get next to no gradient, from the first step on"))
            remedies = (Remedy("Draw the weights for ReLUs (He et al. 2015), or add batch normalisation."), *remedies)
        return _finding(history, sentence, tuple(causes), remedies, is_serious=_is_unlearnt(history))
    return None


def _largest(history: History) -> tuple[float, str]:
    """The largest ratio in the very first record, and its layer group; a head that starts at zero is left out there."""
    first = {name: float(ratio[0]) for name, ratio in history.update_ratios.items() if len(ratio) and np.isfinite(ratio[0])}
    return max(((ratio, name) for name, ratio in first.items()), default=(math.nan, ""))


def _is_unlearnt(history: History) -> bool:
    """Whether the loss is still near or above guessing (or where it began)."""
    loss = history.loss[np.isfinite(history.loss)]
    if not len(loss):
        return True
    return level(loss[-5:]) > 0.85 * (history.chance if history.chance is not None else float(loss[0]))


def _factor(excess: float) -> float:
    """A tenth or a hundredth, whichever is nearer to undoing an excess."""
    return 0.01 if excess > 30 else 0.1


def _finding(
    history: History, sentence: str, causes: tuple[Cause, ...], remedies: tuple[Remedy, ...], is_serious: bool
) -> Finding:
    ratios = history.update_ratios
    steps = history.steps["step"]
    return Finding(
        code="update-ratio",
        severity="warning" if is_serious else "note",
        sentence=sentence,
        evidence={
            **{f"update over weight, {name}": level(ratio[history.is_near_peak(0.5)]) for name, ratio in ratios.items()},
            **{f"in the first record, {name}": float(ratio[0]) for name, ratio in ratios.items() if np.isfinite(ratio[0])},
            "healthy": f"{HEALTHY[0]:g} to {HEALTHY[1]:g}",
        },
        causes=causes,
        remedies=remedies,
        source=SOURCE,
        curve=curve(
            "Update over weight", "step", "norm over norm", {name: (steps, one) for name, one in ratios.items()}, is_log=True
        ),
    )

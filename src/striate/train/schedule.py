"""Learning rates as pure functions of where the training stands."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Scaling = Literal["none", "linear", "square-root"]
Shape = Literal[
    "constant",
    "step",
    "plateau",
    "exponential",
    "inverse-time",
    "polynomial",
    "cosine",
    "cosine-restarts",
    "cosine-cycles",
]

# Of a restart: three times 0.1 epochs is a little more than 0.3, and the third restart must not come a step late for it.
_ROUNDING = 1e-9


def warmed(step: int, warmup_steps: int) -> float:
    """Linear warm-up: the share of the peak rate at a step counted from 0; 1 after `warmup_steps`.

    The first step already moves (1/warmup_steps). Source: Goyal et al. 2017, section 2.2.
    """
    return min(1.0, (step + 1) / warmup_steps) if warmup_steps > 0 else 1.0


def cosine(progress: float, final: float) -> float:
    """Half a cosine from 1 at progress 0 to `final` at progress 1. Source: Loshchilov and Hutter 2017, equation 5."""
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))


def stepwise(epoch: float, drop_epochs: tuple[float, ...], factor: float) -> float:
    """1, multiplied by `factor` at each of `drop_epochs` that is reached. Source: He et al. 2016, section 3.4."""
    return float(factor ** sum(epoch >= drop for drop in drop_epochs))


def inverse_time(step: int, decay: float) -> float:
    """1 / (1 + decay * step): the `decay` argument of Keras' optimisers up to version 2."""
    return 1.0 / (1.0 + decay * step)


def exponential(epoch: float, factor: float, epochs: float) -> float:
    """`factor` for every `epochs` that passed, falling at each step, not in stairs. Source: Szegedy et al. 2016, section 8."""
    return float(factor ** (epoch / epochs))


def polynomial(progress: float, power: float, final: float) -> float:
    """From 1 at progress 0 to `final` at progress 1: a straight line for power 1. Source: You et al. 2017, algorithm 1."""
    return float(final + (1 - final) * (1 - min(max(progress, 0.0), 1.0)) ** power)


def cosine_restarts(epoch: float, first_epochs: float, factor: float, final: float) -> float:
    """Half a cosine from 1 to `final` over `first_epochs`, then again, each time `factor` times as long.

    Source: Loshchilov and Hutter 2017, section 3.
    """
    length = first_epochs
    if factor == 1.0:
        epoch -= length * math.floor(epoch / length + _ROUNDING)
    else:
        while epoch >= length * (1 - _ROUNDING):
            epoch -= length
            length *= factor
    return cosine(epoch / length, final)


def cosine_cycles(progress: float, cycles: int, final: float) -> float:
    """Half a cosine from 1 to `final`, `cycles` times over the whole plan. progress: share of the plan done, 0..1.

    Source: Huang et al. 2017 (snapshot ensembles), section 3, equation 2.
    """
    within = progress * cycles - cycles_done(progress, cycles)
    return final if progress >= 1 else cosine(within, final)


def cycles_done(progress: float, cycles: int) -> int:
    """How many cycles of `cosine_cycles` have ended at a share of the plan."""
    return min(cycles, math.floor(progress * cycles + _ROUNDING))


@dataclass(frozen=True)
class Plateau:
    """What the plateau schedule knows of the evaluations so far; early stopping is another one, which ends at its first drop.

    best: highest top-1, 0..1; below 0 before the first. stale: evaluations since then, or since the last drop.
    drops: how often the rate was multiplied by drop_factor.
    """

    best: float = -1.0
    stale: int = 0
    drops: int = 0

    def seen(self, top1: float, patience: int) -> Plateau:
        """After one more evaluation: `patience` of them without a higher top-1 make a drop, and counting starts again.

        torch's ReduceLROnPlateau waits for one more: its patience of 2 is 3 here.
        Source: He et al. 2016, section 3.4 ("when the error plateaus").
        """
        if top1 > self.best:
            return Plateau(top1, 0, self.drops)
        if self.stale + 1 < patience:
            return Plateau(self.best, self.stale + 1, self.drops)
        return Plateau(self.best, 0, self.drops + 1)


def ends(shape: Shape) -> bool:
    """Whether the schedule is laid out to end with the budget; the others keep their rule whatever the budget."""
    return shape in {"cosine", "cosine-cycles", "polynomial"}


def share(
    shape: Shape,
    *,
    step: int,
    epoch: float,
    progress: float,
    warmup_steps: int,
    drop_epochs: tuple[float, ...],
    drop_factor: float,
    drops: int,
    decay_factor: float,
    decay_epochs: float,
    power: float,
    restart_epochs: float,
    restart_factor: float,
    cycles: int,
    inverse_decay: float,
    final: float,
) -> float:
    """Share of the peak learning rate, 0..1.

    step: steps done, from 0. epoch: steps over steps per epoch. progress: share of the plan done, 0..1.
    drops: of the plateau schedule so far, from `Plateau`.
    """
    falling = {
        "constant": lambda: 1.0,
        "step": lambda: stepwise(epoch, drop_epochs, drop_factor),
        "plateau": lambda: float(drop_factor**drops),
        "exponential": lambda: exponential(epoch, decay_factor, decay_epochs),
        "inverse-time": lambda: inverse_time(step, inverse_decay),
        "polynomial": lambda: polynomial(progress, power, final),
        "cosine": lambda: cosine(progress, final),
        "cosine-restarts": lambda: cosine_restarts(epoch, restart_epochs, restart_factor, final),
        "cosine-cycles": lambda: cosine_cycles(progress, cycles, final),
    }
    return warmed(step, warmup_steps) * falling[shape]()


def peak(lr: float, scaling: Scaling, batch_size: int, lr_batch_size: int) -> float:
    """The peak learning rate for `batch_size`, of a rate stated for `lr_batch_size`.

    Source: Goyal et al. 2017, section 2.1 (linear); Krizhevsky 2014, section 5 (square root).
    """
    growth = batch_size / lr_batch_size
    if scaling == "linear":
        return lr * growth
    return lr * math.sqrt(growth) if scaling == "square-root" else lr


def peak_in_words(lr: float, scaling: Scaling, batch_size: int, lr_batch_size: int) -> str:
    """The choice of `peak` in one line, to be printed."""
    if scaling == "none":
        return f"--lr {lr:g} for a batch of {batch_size}, not scaled."
    result = peak(lr, scaling, batch_size, lr_batch_size)
    return f"--lr {lr:g} stated for a batch of {lr_batch_size}, {scaling} scaling: {result:g} for {batch_size}."

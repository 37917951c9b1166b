"""Learning rates as pure functions of where the training stands."""

from __future__ import annotations

import math
from typing import Literal

Shape = Literal["constant", "step", "plateau", "exponential", "inverse-time", "polynomial", "cosine", "cosine-restarts"]


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


def ends(shape: Shape) -> bool:
    """Whether the schedule is laid out to end with the budget; the others keep their rule whatever the budget."""
    return shape == "cosine"


def share(
    shape: Shape,
    *,
    step: int,
    epoch: float,
    progress: float,
    warmup_steps: int,
    drop_epochs: tuple[float, ...],
    drop_factor: float,
    inverse_decay: float,
    final: float,
) -> float:
    """Share of the peak learning rate, 0..1.

    step: steps done, from 0. epoch: steps over steps per epoch. progress: share of the plan done, 0..1.
    """
    rising = warmed(step, warmup_steps)
    if shape == "cosine":
        return rising * cosine(progress, final)
    if shape == "step":
        return rising * stepwise(epoch, drop_epochs, drop_factor)
    if shape == "inverse-time":
        return rising * inverse_time(step, inverse_decay)
    return rising

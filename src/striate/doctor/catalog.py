"""The table of rules: what is checked, in which order, and what it needs.

Before a training the rules stand in the order of their worth and run until time is up. The rules over a history or over
predictions take milliseconds, and all of them run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from striate.data.index import Index
from striate.doctor.finding import Finding
from striate.doctor.history import History
from striate.doctor.patient import Patient
from striate.doctor.rules import (
    batch_norm_mode,
    batch_size,
    constant_function,
    dead_units,
    forward_pass,
    head_size,
    head_weights,
    initial_loss,
    learning_rate,
    one_batch,
    plan,
    signal_size,
    untrained_parameters,
    vanishing_gradient,
    weight_decay,
)

from striate.predictions import Predictions


@dataclass(frozen=True)
class Rule:
    """A rule before a training. checks: what is in order when it finds nothing. needs: data alone; a network that runs; or one
    whose labels fit its outputs, so that it has a loss. passes, seconds: about what it takes, in forward and backward passes and beside them."""

    check: Callable[[Patient], Finding | None]
    checks: str
    needs: Literal["data", "network", "loss"]
    passes: float = 0.0
    seconds: float = 0.0


BEFORE: dict[str, Rule] = {
    "forward-pass": Rule(forward_pass.check, "the network runs", "data"),
    "head-size": Rule(head_size.check, "outputs and classes", "network"),
    "constant-function": Rule(constant_function.check, "the output depends on the image", "loss", 1),
    "signal-size": Rule(signal_size.check, "size of the signal by depth", "loss"),
    "initial-loss": Rule(initial_loss.check, "the first loss", "loss"),
    "head-weights": Rule(head_weights.check, "heads in the loss", "loss"),
    "untrained-parameters": Rule(untrained_parameters.check, "all parameters learn", "loss"),
    "vanishing-gradient": Rule(vanishing_gradient.check, "gradients by depth", "loss"),
    "batch-norm-mode": Rule(batch_norm_mode.check, "batch normalisation", "network"),
    "dead-units": Rule(dead_units.check, "dead and saturated units", "loss"),
    "weight-decay": Rule(weight_decay.check, "weight decay", "loss"),
    "batch-size": Rule(batch_size.check, "batch and steps", "data"),
    "learning-rate": Rule(learning_rate.check, "learning rate", "loss", 12),
    "one-batch": Rule(one_batch.check, "one batch is learnt by heart", "loss", 10),
    "plan": Rule(plan.check, "memory, disk, time, speed of the images", "loss", seconds=20.0),
}


# Over what a training told; in the order of their worth.
DURING: dict[str, tuple[Callable[[History], Finding | None], str]] = {}

# Over what the network said about held-out images, with their index where it is there.
PREDICTED: dict[str, tuple[Callable[[Predictions, Index | None], Finding | None], str]] = {}

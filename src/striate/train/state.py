"""All that must survive a restart, in one place."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import torch
from torch import nn

from striate.errors import CheckpointError
from striate.models import weights
from striate.run.checkpoint import Checkpoint, Tensors
from striate.train import optim
from striate.train.average import Average
from striate.train.budget import Plan
from striate.train.schedule import Plateau


@dataclass
class State:
    """Where a training stands between two steps.

    step: optimiser steps done (skipped ones count). elapsed_s: training time over all sittings.
    evaluated_step: step of the last evaluation, -1 before the first. since_best: evaluations since the best one.
    plateau: what the schedule of that name counts. bad: images that could not be read, with
    reason. snapshots: steps of the checkpoints that stay because a cycle of the schedule ended there. best: step, top1,
    weights, checkpoint, loss of the best evaluation. skipped, skipped_in_row: steps not taken for
    non-finite numbers, in all and in a row. pace: measured durations, for the plan of the next sitting.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: Average | None
    scaler: torch.amp.GradScaler
    plan: Plan
    step: int = 0
    elapsed_s: float = 0.0
    evaluated_step: int = -1
    evaluations: int = 0
    skipped: int = 0
    skipped_in_row: int = 0
    since_best: int = 0
    plateau: Plateau = field(default_factory=Plateau)
    bad: dict[str, str] = field(default_factory=dict)
    best: dict[str, Any] | None = None
    pace: dict[str, float | None] = field(default_factory=dict)
    snapshots: list[int] = field(default_factory=list)

    NUMBERS = (
        "step",
        "elapsed_s",
        "evaluated_step",
        "evaluations",
        "skipped",
        "skipped_in_row",
        "since_best",
        "bad",
        "best",
        "pace",
        "snapshots",
    )
    # What checkpoints of older versions lack, and what it was then.
    ADDED: ClassVar[dict[str, Any]] = {"snapshots": []}

    def tensors(self) -> dict[str, Tensors]:
        """Tensors by file: model (weights and buffers), optimizer, and ema if one is kept."""
        parts = {"model": dict(self.model.state_dict()), "optimizer": optim.named_state(self.model, self.optimizer)}
        if self.average is not None:
            parts["ema"] = dict(self.average.model.state_dict())
        return parts

    def numbers(self) -> dict[str, Any]:
        """The rest, as JSON values that later steps do not change."""
        return {
            **{name: copy.deepcopy(getattr(self, name)) for name in self.NUMBERS},
            "plan": self.plan.to_plain(),
            "plateau": asdict(self.plateau),
            "optimizer_tensors": len(optim.named_state(self.model, self.optimizer)),
            "ema_updates": self.average.updates if self.average is not None else None,
            "scaler": self.scaler.state_dict() if self.scaler.is_enabled() else None,
        }

    def restore(self, saved: Checkpoint) -> None:
        """Takes over a checkpoint. Raises CheckpointError naming any part that is missing or does not fit."""
        where = str(saved.path)
        wanted = [*self.NUMBERS, "plan", "plateau", "optimizer_tensors", "ema_updates", "scaler"]
        missing = [name for name in wanted if name not in saved.state and name not in self.ADDED]
        if self.average is not None and (saved.ema is None or saved.state.get("ema_updates") is None):
            missing.append("ema.safetensors")
        if self.scaler.is_enabled() and not saved.state.get("scaler"):
            missing.append("scaler")
        if missing:
            raise CheckpointError(
                f"{where}: incomplete, these parts are missing: {', '.join(missing)}. Start beside it with --new."
            )
        weights.put(self.model, saved.model, where, saved.variant)
        if len(saved.optimizer) != saved.state["optimizer_tensors"]:
            raise CheckpointError(
                f"{where}: {len(saved.optimizer)} tensors of the optimiser instead of {saved.state['optimizer_tensors']}. "
                "Start beside it with --new."
            )
        optim.restore_state(self.model, self.optimizer, saved.optimizer, where)
        if self.average is not None and saved.ema is not None:
            weights.put(self.average.model, saved.ema, where, saved.variant)
            self.average.updates = saved.state["ema_updates"]
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(saved.state["scaler"])
        for name in self.NUMBERS:
            setattr(self, name, saved.state[name] if name in saved.state else copy.deepcopy(self.ADDED[name]))
        self.plan = Plan(**saved.state["plan"])
        self.plateau = Plateau(**saved.state["plateau"])

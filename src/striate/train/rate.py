"""The learning rate of a recipe, wherever its training stands."""

from __future__ import annotations

from striate.recipe import OptimGroup
from striate.train import schedule


def peak(o: OptimGroup) -> float:
    """The highest learning rate, its scaling with the batch counted in."""
    return schedule.peak(o.lr, o.lr_scaling, o.batch_size, o.lr_batch_size)


def share(o: OptimGroup, *, step: int, epoch: float, progress: float, warmup_steps: int, drops: int = 0) -> float:
    """Share of the peak for the next step, 0..1.

    step: steps done. epoch: the same in passes over the data. progress: share of the plan done, 0..1. drops: of the plateau
    schedule so far.
    """
    if o.swa_from:  # the schedule ends where the averaging begins
        progress = min(1.0, progress / o.swa_from)
        if o.schedule == "constant" and progress == 1:
            return o.swa_lr
    return schedule.share(
        o.schedule,
        step=step,
        epoch=epoch,
        progress=progress,
        warmup_steps=warmup_steps,
        drop_epochs=o.drop_epochs,
        drop_factor=o.drop_factor,
        inverse_decay=o.inverse_decay,
        final=o.swa_lr if o.swa_from else o.final_lr,
        drops=drops,
        decay_factor=o.decay_factor,
        decay_epochs=o.decay_epochs,
        power=o.power,
        restart_epochs=o.restart_epochs,
        restart_factor=o.restart_factor,
        cycles=o.cycles,
    )

"""From a recipe and a run folder to everything that the loop needs, at the newest valid checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from striate import machine
from striate.classes import Classes
from striate.data import augment, resident
from striate.data.index import Index
from striate.data.layouts.splits import Splits
from striate.data.loader import Source, Streaming, Workers
from striate.data.order import Order, steps_per_epoch
from striate.errors import UserError
from striate.files import write_json
from striate.recipe import Recipe, seconds
from striate.run import checkpoint
from striate.run.folder import Run, build_model
from striate.train import average, budget, optim
from striate.train.state import State
from striate.train.step import Step
from striate.view import View

Progress = Callable[[int, int], None] | None
# Training images that are scored in evaluation mode beside the validation set, to tell over- from underfitting.
TRAIN_SAMPLE = 1000


@dataclass(frozen=True)
class Images:
    """A set of images with where its pixels come from, ready to be scored."""

    index: Index
    source: Source
    split: str


@dataclass
class Training:
    """Everything that `build` put together from a recipe and a run folder."""

    recipe: Recipe
    run: Run
    classes: Classes
    view: View
    train: Index
    source: Source
    scored: list[Images]
    augmentation: augment.Augmentation
    order: Order
    step: Step
    state: State
    device: torch.device
    workers: Workers
    steps_per_epoch: int
    notes: list[str]


def build(
    recipe: Recipe, run: Run, splits: Splits, device: torch.device, workers: Workers, progress: Progress = None
) -> Training:
    """Puts a training together: data, network, optimiser, and the state of the newest valid checkpoint.

    recipe: resolved. run: with classes.json and view.json written. progress: called with (done, total) while
    images are decoded for memory. Raises UserError, DataError, CheckpointError.
    """
    o = recipe.optim
    view, classes = run.view, run.classes
    per_epoch = steps_per_epoch(len(splits.train), o.batch_size)
    machine.forget_global_randomness(machine.stream_seed(o.seed, "initial weights"))
    model = build_model(recipe, len(classes.ids))
    if o.batch_size // o.accumulate < 2 and any(
        isinstance(module, torch.nn.modules.batchnorm._BatchNorm) for module in model.modules()
    ):
        raise UserError("optim.batch_size: batch normalisation needs 2 images or more per micro-batch; raise --batch-size.")
    layout = torch.channels_last if o.channels_last else torch.contiguous_format
    model = model.to(device).to(memory_format=layout).train()
    optimizer = optim.build(
        model,
        o.name,
        lr=o.lr,
        momentum=o.momentum,
        nesterov=o.nesterov,
        betas=o.betas,
        eps=o.eps,
        weight_decay=o.weight_decay,
        decay_all=o.decay_all,
    )
    step = Step(
        model,
        optimizer,
        view=view,
        device=device,
        precision=machine.choose_precision(o.precision, device),
        channels_last=o.channels_last,
        compiled=o.compile,
        accumulate=o.accumulate,
        clip_norm=o.clip_norm,
        smoothing=recipe.loss.smoothing,
        aux_weight=recipe.loss.aux_weight,
        l2=recipe.loss.l2,
        l2_layers=recipe.loss.l2_layers,
        seed=o.seed,
    )
    b = recipe.budget
    total = b.steps if b.steps is not None else (round(b.epochs * per_epoch) if b.epochs is not None else None)
    if total == 0:
        raise UserError(f"budget.epochs: {b.epochs} epochs of {per_epoch} steps are less than one step.")
    plan = budget.first_plan(total, round(o.warmup_epochs * per_epoch))
    state = State(model, optimizer, average.Average(model, o.ema) if o.ema > 0 else None, step.scaler, plan)
    notes: list[str] = []
    if not o.deterministic:
        notes.append("Not deterministic (--no-deterministic): the same command may give other bits, also after a resume.")
    source, more = _source(recipe, splits.train, None, workers, progress)
    notes += more
    scored = []
    sample = machine.permutation(o.seed, "train sample", 0, len(splits.train))[
        : min(TRAIN_SAMPLE, len(splits.val or splits.train))
    ]
    if splits.val is not None:
        one, more = _source(recipe, splits.val, view, workers, progress)
        scored.append(Images(splits.val, one, "val"))
        notes += more
    part = splits.train.select(np.sort(sample), "train-sample")
    scored.append(Images(part, _source(recipe, part, view, workers, progress)[0], "train-sample"))
    training = Training(
        recipe,
        run,
        classes,
        view,
        splits.train,
        source,
        scored,
        augment.Augmentation(
            crop=recipe.augment.crop,
            scale=recipe.augment.scale,
            ratio=recipe.augment.ratio,
            shift_px=recipe.augment.shift_px,
            flip=recipe.augment.flip,
            size_px=recipe.data.size_px,
            interpolation=recipe.data.interpolation,
            fit=recipe.data.fit,
        ),
        Order(o.seed, len(splits.train), o.batch_size),
        step,
        state,
        device,
        workers,
        per_epoch,
        notes,
    )
    _resume(training, total)
    return training


def _source(recipe: Recipe, index: Index, view: View | None, workers: Workers, progress: Progress) -> tuple[Source, list[str]]:
    """Where an index's pixels come from: memory if the recipe says so, else the files. view: None for training."""
    if recipe.data.resident != "yes":
        return Streaming(index, recipe.data.exif == "on", 0 if view else recipe.data.shrink_px), []
    prepare = view or resident.Prepare(recipe.data.exif == "on", recipe.data.shrink_px)
    images = resident.build(index, prepare, max(machine.cores(), workers.count), progress=progress)
    return images, [f"{index.split}: {note}" for note in images.notes]


def _resume(training: Training, total: int | None) -> None:
    """Takes over the newest valid checkpoint, if there is one, and cleans up after a save that was killed."""
    folder = training.run.checkpoints
    swept = checkpoint.sweep(folder)
    found, complaints = checkpoint.newest(folder)
    training.notes += [f"Passed over: {complaint}" for complaint in complaints]
    training.notes += [f"Removed {name}, left by a save that was cut short." for name in swept]
    if found is None:
        return
    training.state.restore(found)
    state = training.state
    if state.best is not None and state.best != training.run.best:  # a kill between a save and its best.json
        write_json(training.run.path / "best.json", state.best)
    if training.recipe.budget.time is not None:
        share = state.elapsed_s / seconds(training.recipe.budget.time)
        if share < 0.9:  # ended, and then given more time: --override budget.time
            warmup = round(training.recipe.optim.warmup_epochs * training.steps_per_epoch)
            state.plan = budget.reopened(state.plan, state.step, share, warmup)
    if total is not None and state.plan.total_steps != total:
        training.notes.append(
            f"The schedule is laid anew over {total} steps instead of {state.plan.total_steps}, from step {state.step} on."
        )
        warmup = min(round(training.recipe.optim.warmup_epochs * training.steps_per_epoch), total)
        state.plan = budget.first_plan(total, warmup)

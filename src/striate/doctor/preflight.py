"""From a training that is about to begin to a patient: the very network, its first batches, and what is known about the data."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch

from striate.data.layouts.splits import Splits
from striate.data.loader import Streaming, Workers, ordered_batches, train_batches
from striate.doctor import passes
from striate.doctor.patient import Batches, Patient
from striate.errors import DataError, UserError
from striate.measure.plan import Forecast
from striate.models.heads import classifier_of
from striate.ranks import Ranks
from striate.recipe import Recipe
from striate.run.folder import Run
from striate.train.build import Training, begin_or_resume, total_steps

# Images of a batch that is looked at, batches that are made, and images of the validation set.
BATCH, BATCHES, SCORED = 32, 8, 256
# Before a training the examination takes at most this long, and at most this share of the training.
LIMIT_S, SHARE = 20.0, 0.05
# A pass that looks and what comes before it cost about five steps: a shorter training leaves no room for that.
FEWEST_STEPS = 100


def patient(
    recipe: Recipe,
    run: Run,
    splits: Splits,
    device: torch.device,
    workers: Workers,
    seconds: float,
    forecast: Callable[[], Forecast] | None = None,
) -> Patient:
    """The network of a training as it starts, on the device, with its first images as the recipe augments them.

    recipe: resolved. run: a folder with classes.json and view.json. seconds: most time for the examination, from now on.
    A box head is left out: what is judged is the classifier.
    Raises what `build` raises, DataError when no image of the first batches can be read, and as `refuse_box_head_alone`.
    """
    refuse_box_head_alone(recipe)
    began = time.monotonic()
    training = begin_or_resume(recipe, run, splits, device, workers, Ranks())
    train = _train_batches(training)
    first = next(train(), None)
    if first is None:
        raise DataError(
            f"{splits.train.root}: no image of the first {BATCHES} batches can be read; `striate data audit` says why."
        )
    loss = passes.summed(recipe.loss.aux_weight, recipe.loss.smoothing)
    return Patient(
        classifier_of(training.state.model),
        *first,
        train,
        loss,
        scored=None if splits.val is None else _scored_batches(training, splits),
        classes=len(training.classes.ids),
        recipe=recipe,
        view=training.view,
        train_index=splits.train,
        val_index=splits.val,
        total_steps=total_steps(recipe, training.steps_per_epoch),
        steps_per_epoch=training.steps_per_epoch,
        seconds=seconds,
        began=began,
        forecast=forecast,
    )


def refuse_box_head_alone(recipe: Recipe) -> None:
    """Raises UserError where the classifier is frozen: then nothing trains that a rule knows of."""
    if recipe.optim.freeze == "classifier":
        raise UserError(
            "doctor: with --freeze classifier only the box head is trained, and no rule looks at that. Ask about the run "
            "that the weights are from."
        )


def limit_s(patient: Patient, recipe: Recipe, budget_s: float | None) -> float:
    """Seconds that the examination before a training may take: 20, or 5 % of the training, whichever is less.

    budget_s: of a training that was given a time. Else its steps are counted with the time of a pass, which takes about as long
    as a step of as many images.
    """
    if budget_s is None:
        images = patient.signals.images  # first: it measures the time of a pass
        budget_s = (patient.total_steps or 0) * patient.pass_s * recipe.optim.batch_size / images
    return min(LIMIT_S, SHARE * budget_s)


def _train_batches(training: Training) -> Batches:
    """The first batches of the training, small ones; made once and kept."""
    order = replace(training.order, batch_size=max(2, min(BATCH, training.recipe.optim.batch_size)))
    kept: list[tuple[torch.Tensor, torch.Tensor]] = []

    def make() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        batches = train_batches(
            training.source, training.train, training.augmentation, order, len(kept), BATCHES, training.workers
        )
        with contextlib.closing(batches):
            for batch in batches:
                if len(batch):
                    yield _seen(training, batch.images, batch.labels)

    def begin() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        yield from kept
        for batch in make():
            kept.append(batch)
            yield batch

    return begin


def _scored_batches(training: Training, splits: Splits) -> Batches:
    """Some images of the validation set, evenly spread, as they are scored."""
    assert splits.val is not None
    index = splits.val
    rows = np.unique(np.linspace(0, len(index) - 1, min(SCORED, len(index))).astype(np.int64))

    def begin() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        source = Streaming(index, training.view.exif)
        batches = ordered_batches(source, index, training.view, rows, BATCH, training.workers)
        with contextlib.closing(batches):
            for batch in batches:
                if len(batch):
                    yield _seen(training, batch.images, batch.labels)

    return begin


def _seen(training: Training, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Images as the network gets them, with labels, on the training's device. The loader's memory is not kept."""
    copied = images.to(training.device, copy=True)
    pixels = training.view.normalise(copied, torch.float32).contiguous(memory_format=training.step.layout)
    return pixels, labels.to(training.device, copy=True)

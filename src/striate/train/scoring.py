"""Scores during a training: when they are due, how they are made, which checkpoint is the best."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from striate import machine
from striate.data.loader import Batch, ordered_batches
from striate.data.order import bounds
from striate.errors import DataError, Interrupted
from striate.evaluate import metrics
from striate.evaluate.predict import predict, scoring_batch_size
from striate.run.folder import averaging
from striate.run.log import Record
from striate.train import bad_images, schedule
from striate.train.average import Average, measure_statistics
from striate.train.budget import Clock, Stop
from striate.train.build import Images, Training
from striate.train.pace import Pace

# With a time budget, evaluations take at most this share of the training time.
EVALUATION_SHARE = 0.1


def evaluation_due(training: Training, finished: bool, limit_s: float | None, clock: Clock, pace: Pace) -> bool:
    """At each `evaluate_epochs`, and at the end; a time budget thins them out so that they stay a small share."""
    state = training.state
    if state.step == 0 or state.evaluated_step == state.step or not training.scored:
        return False
    if finished or snapshot_due(training, finished):
        return True
    every = max(1, round(training.recipe.budget.evaluate_epochs * training.steps_per_epoch))
    if state.step // every <= max(state.evaluated_step, 0) // every:
        return False
    if limit_s is None:
        return True
    affordable = EVALUATION_SHARE * clock.elapsed_s() >= (state.evaluations + 1) * pace.evaluation_s
    room = limit_s - clock.elapsed_s() > 4 * (pace.evaluation_s + pace.save_s)
    return affordable and room


def settle_average(training: Training) -> None:
    """Brings the averaged weights of SWA to what is to be scored and saved: the raw ones until the mean begins, then the mean
    with batch norm's statistics over the sample of training images, as they are scored.
    """
    state, images = training.state, training.scored[-1] if training.scored else None
    if state.average is None or state.average.decay is not None:
        return
    if not has_begun(state.average):
        state.average.follow(state.model)
        return
    assert images is not None and images.split == "train-sample"
    size = scoring_batch_size(training.view)
    batches = ordered_batches(images.source, images.index, training.view, None, size, training.workers)
    precision = machine.choose_precision(training.recipe.optim.precision, training.device)
    layout = torch.channels_last if training.recipe.optim.channels_last else torch.contiguous_format

    def normalised() -> Iterator[torch.Tensor]:
        for number, batch in enumerate(batches):
            if len(batch) == size or (number == 0 and len(batch) > 1):
                pixels = machine.copied(batch.images, training.device).contiguous(memory_format=layout)
                yield training.view.normalise(pixels, torch.float32)

    with contextlib.closing(batches), machine.autocast(training.device, precision):
        measure_statistics(state.average.model, normalised())


def has_begun(mean: Average) -> bool:
    """Whether there is an average to speak of: a moving one from the start, a plain one from its first update on."""
    return mean.decay is not None or mean.updates > 0


def snapshot_due(training: Training, finished: bool) -> bool:
    """Whether a cycle of the schedule has just ended, whose network stays and answers with the others."""
    state, o = training.state, training.recipe.optim
    if o.schedule != "cosine-cycles" or state.step == 0 or state.step in state.snapshots:
        return False
    return finished or schedule.cycles_done(state.plan.progress(state.step), o.cycles) > len(state.snapshots)


def cost_steps(training: Training) -> float:
    """About how many training steps one evaluation takes: a forward pass costs a third of a step for each image."""
    networks = 2 if training.state.average is not None else 1
    images = sum(len(one.index) * (networks if one.split == "val" else 1) for one in training.scored)
    return images / training.recipe.optim.batch_size / 3


def evaluate(training: Training, stop: Stop, pace: Pace) -> list[Record] | None:
    """Scores the validation set and the sample of training images; None when `stop` cut it short.

    The best checkpoint is chosen by the averaged weights where there are any, else by the raw ones; ties keep
    the first, and without a validation set the sample of training images decides. Where the classifier is frozen its score
    stays the same while the box head learns: then the last one is the best.
    """
    state = training.state
    networks = {"raw": state.model}
    if state.average is not None and has_begun(state.average):
        networks[averaging(training.recipe)] = state.average.model
    deciding = next(reversed(networks))
    records = []
    judged: dict[str, Any] = {}
    judge = training.scored[0].split
    for images in training.scored:
        for weights, model in networks.items():
            if images.split == "train-sample" and weights == "raw" and len(networks) > 1:
                continue
            facts = _score(training, images, model, stop, pace)
            if facts is None:
                return None
            facts |= {"split": images.split, "weights": weights, "epoch": state.step / training.steps_per_epoch}
            records.append(Record("evaluation", state.step, facts))
            if images.split == judge and weights == deciding:
                judged = facts
    # Only now, when nothing can interrupt it any more: what is done in part would count twice.
    state.plateau = state.plateau.seen(judged["top1"], training.recipe.optim.plateau)
    state.since_best += 1
    is_frozen = training.recipe.optim.freeze == "classifier"
    if state.best is None or is_frozen or judged["top1"] > state.best["top1"]:
        state.since_best = 0
        state.best = {
            "step": state.step,
            "checkpoint": f"step-{state.step}",
            "split": judge,
            "weights": deciding,
            "top1": judged["top1"],
            "top5": judged["top5"],
            "loss": judged["loss"],
        }
    state.evaluated_step = state.step
    state.evaluations += 1
    return records


def _score(training: Training, images: Images, model: torch.nn.Module, stop: Stop, pace: Pace) -> dict[str, Any] | None:
    """Scores a set, each process its part of the rows: every image once, whatever the number of processes."""
    began = time.monotonic()
    ranks, index = training.ranks, images.index
    bad: list[tuple[str, str]] = []
    try:
        with ranks.together():
            rows_N4, bad = _scored_rows(training, images, model, stop, pace)
    except Interrupted:
        return None
    bad = [(key, reason) for one in ranks.exchange(bad) for key, reason in one]
    rows_N4 = ranks.collect(rows_N4)
    used = len(rows_N4)
    if len(np.unique(rows_N4[:, 0])) != used or used + len(bad) != len(index):
        raise RuntimeError(
            f"{index.root}: {used} images scored and {len(bad)} bad of {len(index)}; some were counted twice or not."
        )
    bad_images.refuse(training, bad, len(index))
    if not used:
        raise DataError(f"{index.root}: none of the {len(index)} images of the {images.split} set can be read.")
    right = int(rows_N4[:, 1].sum())
    low, high = metrics.wilson(right, used)
    return {
        "top1": right / used,
        "top1_interval": [low, high],
        "top5_k": min(5, len(training.classes.ids)),
        "top5": int(rows_N4[:, 2].sum()) / used,
        "loss": float(rows_N4[:, 3].mean()),
        "expected": len(index),
        "used": used,
        "bad": len(bad),
        "seconds": time.monotonic() - began,
    }


def _scored_rows(
    training: Training, images: Images, model: torch.nn.Module, stop: Stop, pace: Pace
) -> tuple[NDArray[np.float64], list[tuple[str, str]]]:
    """This process' part of a set: [n, 4] row of the index, top-1 hit, top-5 hit, loss in nats; and its bad images.

    Raises Interrupted when `stop` asks.
    """
    ranks, o = training.ranks, training.recipe.optim
    first, last = bounds(len(images.index), ranks.world)[ranks.rank]
    size = scoring_batch_size(training.view)
    chosen, on_gpu = np.arange(first, last), training.device.type == "cuda"
    batches = ordered_batches(images.source, images.index, training.view, chosen, size, training.workers, pin_memory=on_gpu)
    rows: list[NDArray[np.int64]] = []

    def until_stopped() -> Iterator[Batch]:
        with contextlib.closing(batches):
            for batch in batches:
                if reason := stop.reason(pace.reserve_s()):
                    raise Interrupted(reason)
                rows.append(batch.indices.numpy())
                yield batch

    if first == last:
        return np.zeros((0, 4)), []
    precision = machine.choose_precision(o.precision, training.device)
    found, bad = predict(model, until_stopped(), training.view, training.device, precision, training.classes, o.channels_last)
    if not len(found.labels):
        return np.zeros((0, 4)), bad
    losses_n = -np.take_along_axis(metrics.log_probabilities(found.scores), found.labels[:, None], axis=1)[:, 0]
    hits = [metrics.hits(found.scores, found.labels, k) for k in (1, 5)]
    return np.column_stack([np.concatenate(rows), *hits, losses_n]).astype(np.float64), bad

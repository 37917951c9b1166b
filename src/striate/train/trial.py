"""A few real steps of a training, measured: what `striate train --plan` tells before it begins.

The network, the optimiser and the loader are those of the training. Of a set for the memory only a part is decoded, and
a network so slow that a step takes seconds is measured on fewer images at once; what is counted in images stays right.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from striate import files, machine
from striate.data import decode, resident
from striate.data.index import Index
from striate.data.layouts.splits import Splits
from striate.data.loader import Batch, Streaming, Workers, ordered_batches, train_batches
from striate.data.order import Order, steps_per_epoch
from striate.data.pack.store import PackStore
from striate.errors import DataError, ResourceError
from striate.evaluate.predict import predict, scoring_batch_size
from striate.measure import plan
from striate.ranks import Ranks
from striate.recipe import Recipe, seconds
from striate.run.folder import Run
from striate.run.log import Record
from striate.train import budget
from striate.train.build import TRAIN_SAMPLE, Training, build
from striate.train.scoring import EVALUATION_SHARE
from striate.train.step import Outcome
from striate.train.vitals import peak_memory_bytes
from striate.view import View

# Seconds for each thing that is looked at, and for one step of a slow network.
LOOK_S, STEP_S = 2.0, 1.0
# How often network alone and everything together take turns.
ROUNDS = 2
# Images that are decoded of a set that training would hold in memory.
DECODED = 1024
# What a record in log.jsonl holds beside what a step returns; and the records of an evaluation with its save.
FACTS_BYTES, EVALUATION_BYTES = 400, 1500


def forecast(
    recipe: Recipe, run: Run, splits: Splits, device: torch.device, workers: Workers, mirrored: bool, out: Path
) -> plan.Forecast:
    """Builds the training in `run`, takes some steps of it, and says what all of it will take.

    recipe: resolved. run: a folder that goes away, with classes.json and view.json written. mirrored: whether checkpoints
    are copied. out: where the runs lie. Takes ten to twenty seconds, longer where a single step does.
    Raises what `build` raises, DataError when nothing can be read, ResourceError when a step finds no memory.
    """
    free_bytes, before_bytes = _free_memory(device), _held_memory(device)
    is_resident = recipe.data.resident == "yes"
    with _nothing_cached():
        training = build(recipe, run, _part(splits) if is_resident else splits, device, workers, Ranks())
    stock = _stock(recipe, splits, run.view, workers)
    order = training.order
    try:
        trial = _settle(training)
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        raise ResourceError(
            f"Out of memory on {device} with {recipe.optim.batch_size // recipe.optim.accumulate} images at once. Use a smaller "
            "--batch-size, or --optim.accumulate 2 or more."
        ) from error
    speed = _speeds(training, trial.batch, order)
    size = len(trial.batch)
    parts = training.state.tensors()
    at_once = recipe.optim.batch_size // recipe.optim.accumulate
    memory = plan.Memory(
        {
            "parameters": plan.size_bytes(parts["model"].values()),
            "gradients": plan.size_bytes(one for one in training.state.model.parameters() if one.requires_grad),
            "optimiser": plan.size_bytes(parts["optimizer"].values()),
            "average": plan.size_bytes(parts.get("ema", {}).values()),
            "activations": trial.held_bytes * at_once // max(1, size // recipe.optim.accumulate),
            # With a GPU these two are in main memory, and not in its own.
            "images": stock.decoded_bytes if is_resident and device.type == "cpu" else 0,
            "copy for saving": sum(map(plan.size_bytes, map(dict.values, parts.values()))) if device.type == "cpu" else 0,
        },
        before_bytes,
        peak_memory_bytes(device),
        size,
        free_bytes,
    )
    duration = _duration(training, splits, speed, stock.seconds)
    disk = plan.Disk(
        plan.checkpoint_bytes(parts),
        plan.CHECKPOINTS,
        2 if mirrored else 1,
        stock.decoded_bytes if is_resident and stock.decoded_bytes <= resident.cap_bytes() else 0,
        int(trial.record_bytes * (duration.steps / recipe.budget.log_every + 1) + EVALUATION_BYTES * duration.evaluations),
        files.free_bytes(out),
    )
    setting = plan.Setting(
        model=recipe.model.name,
        device=device.type,
        precision=recipe.optim.precision,
        fast_bf16=machine.choose_precision("auto", device) == "bf16",
        channels_last=recipe.optim.channels_last,
        compiled=recipe.optim.compile,
        threads=torch.get_num_threads(),
        workers=workers.count,
        cores=machine.cores(),
        source=_kind(training),
        images=len(splits.train),
        size_px=recipe.data.size_px,
        batch_size=recipe.optim.batch_size,
        at_once=at_once,
        measured_batch=size,
        resident=is_resident,
        decoded=stock.decoded_bytes,
        shrunk_px=stock.shrunk_px,
        shrunk=stock.shrunk_bytes,
        may_keep=int(resident.MEMORY_SHARE * machine.free_memory_bytes()),
    )
    return plan.forecast(setting, speed, memory, disk, duration)


# ---------------------------------------------------------------- the images


@dataclass(frozen=True)
class _Stock:
    """Decoded images, as training would hold them: bytes, seconds to decode what the cache lacks, and a smaller choice."""

    decoded_bytes: int
    seconds: float
    shrunk_px: int
    shrunk_bytes: int


def _part(splits: Splits) -> Splits:
    """Some of the images of each split, evenly spread, with one of each class at least (weights by class need them all)."""

    def some(index: Index) -> Index:
        rows = np.linspace(0, len(index) - 1, min(DECODED, len(index))).astype(np.int64)
        return index.select(np.union1d(rows, np.unique(index.labels, return_index=True)[1]))

    return replace(splits, train=some(splits.train), val=None if splits.val is None else some(splits.val))


def _stock(recipe: Recipe, splits: Splits, view: View, workers: Workers) -> _Stock:
    photos = resident.Prepare(recipe.data.exif == "on", recipe.data.shrink_px)
    decoded = resident.estimate_bytes(splits.train, photos)
    if recipe.data.resident == "yes":
        scored = scored_images(splits, 1)
        is_there = (files.cache_folder() / "images" / resident.cache_key(splits.train, photos)).exists()
        source = Streaming(splits.train, photos.exif, photos.shrink_px)
        rows = np.unique(np.linspace(0, len(splits.train) - 1, min(DECODED, len(splits.train))).astype(np.int64))
        speed = 1.0 if is_there else _decoding_speed(source, rows, max(machine.cores(), workers.count))
        duration_s = 0.0 if is_there else (len(splits.train) + scored) / speed
        return _Stock(decoded + scored * view.size_px**2 * 3, duration_s, 0, 0)
    side = view.resize_px
    if recipe.data.shrink_px and recipe.data.shrink_px <= side:
        return _Stock(decoded, 0.0, 0, 0)
    shrunk = resident.estimate_bytes(splits.train, replace(photos, shrink_px=side))
    return _Stock(decoded, 0.0, side if resident.fits(shrunk) else 0, shrunk)


def _decoding_speed(source: Streaming, rows: np.ndarray, threads: int) -> float:
    """Images read and decoded per second by so many threads, and nothing else done with them. rows: those to take, as far as
    LOOK_S reaches."""
    began = time.perf_counter()

    def one(row: int) -> int:
        if time.perf_counter() - began > LOOK_S:
            return 0
        with contextlib.suppress(decode.BadImage):  # the training meets it, and names it
            source.image(row)
        return 1

    with ThreadPoolExecutor(max(1, threads)) as pool:
        count = sum(pool.map(one, rows.tolist()))
    return count / max(time.perf_counter() - began, 1e-9)


def scored_images(splits: Splits, networks: int) -> int:
    """Images of one evaluation: the validation set by each network, and the sample of training images."""
    if splits.val is None:
        return min(TRAIN_SAMPLE, len(splits.train))
    return networks * len(splits.val) + min(TRAIN_SAMPLE, len(splits.val), len(splits.train))


@contextlib.contextmanager
def _nothing_cached() -> Iterator[None]:
    """Within the block decoded images are not kept on disk: those of a part serve nobody."""
    before = os.environ.get("STRIATE_CACHE_GB")
    os.environ["STRIATE_CACHE_GB"] = "0"
    try:
        yield
    finally:
        del os.environ["STRIATE_CACHE_GB"]
        if before is not None:
            os.environ["STRIATE_CACHE_GB"] = before


# ---------------------------------------------------------------- steps


def _batches(training: Training) -> contextlib.closing[Generator[Batch]]:
    batches = train_batches(
        training.source,
        training.train,
        training.augmentation,
        training.order,
        0,
        None,
        training.workers,
        batched=training.is_batched,
        on_device=training.on_device,
        pin_memory=training.device.type == "cuda",
        boxes=training.boxes,
    )
    return contextlib.closing(batches)


def _step(training: Training, batch: Batch, look: bool) -> Outcome:
    """A step as the loop takes it, done when this returns; at a rate of 0, so that nothing can diverge."""
    state = training.state
    outcome = training.step(batch, state.step, 0.0, look, len(batch))
    state.step += 1
    if state.average is not None:
        state.average.update(state.model)
    if training.device.type != "cpu":
        torch.accelerator.synchronize(training.device)
    return outcome


def _take(training: Training, batch: Batch) -> int:
    """A step; the number of its images."""
    return _step(training, batch, False).images


def _weights(training: Training) -> list[torch.Tensor]:
    return [*training.state.model.parameters(), *training.state.model.buffers()]


def _first(batch: Batch, count: int) -> Batch:
    """The first images of a batch."""
    if count >= len(batch):
        return batch
    return replace(
        batch,
        images=batch.images[:count],
        labels=batch.labels[:count],
        indices=batch.indices[:count],
        keys=batch.keys[:count],
    )


@dataclass(frozen=True)
class _Trial:
    """A batch whose step takes about STEP_S at most; what autograd holds in that step; and the length of a step's record."""

    batch: Batch
    held_bytes: int
    record_bytes: int


def _settle(training: Training) -> _Trial:
    """Takes the first steps, and sets the training's order to batches that can be measured in a few seconds."""
    o = training.recipe.optim
    with _batches(training) as batches:
        batch = next(batches)
    if not len(batch):
        raise DataError(f"{training.train.root}: no image of the first batch can be read ({batch.bad[0][0]}: {batch.bad[0][1]}).")
    # A GPU is fast enough for whole batches, and photos that are cut on the device cannot be taken by halves.
    is_whole = training.device.type != "cpu" or training.is_batched
    size = len(batch) if is_whole else min(len(batch), max(8, 2 * o.accumulate))
    record = Record("step", 0, dataclasses.asdict(_step(training, _first(batch, size), True)))
    while size < len(batch) and _step_s(training, _first(batch, size)) < STEP_S / 2:
        size = min(2 * size, len(batch))
    batch = _first(batch, size)
    training.order = replace(training.order, batch_size=size)
    held_bytes = plan.held_bytes(lambda: _take(training, batch), _weights(training))
    return _Trial(batch, held_bytes, len(record.line()) + FACTS_BYTES)


def _step_s(training: Training, batch: Batch) -> float:
    began = time.perf_counter()
    _take(training, batch)
    return time.perf_counter() - began


def _kind(training: Training) -> str:
    """Where the loader finds images, as `plan.Setting` says it."""
    if not isinstance(training.source, Streaming):
        return "memory"
    return "pack" if isinstance(training.train.store, PackStore) else "files"


def _loader_speeds(training: Training, order: Order) -> tuple[float, float | None, float | None]:
    """Images per second of the training's own loader with nobody waiting for it, again, and of decoding alone."""
    alone = replace(training, order=order)  # whole batches, however few of their images the step was measured on
    with _batches(alone) as batches:
        loader = plan.drain(batches, LOOK_S)
    if not isinstance(training.source, Streaming):
        return loader, None, None
    with _batches(alone) as batches:
        again = plan.drain(batches, LOOK_S)
    if _kind(training) == "pack":
        return loader, again, None
    rows = np.concatenate([order.step(step).rows_b for step in range(-(-DECODED // order.batch_size))])
    return loader, again, _decoding_speed(training.source, rows, training.workers.count)


def _speeds(training: Training, batch: Batch, order: Order) -> plan.Speed:
    """order: that of the training, where `_settle` has set a shorter batch."""
    loader, again, decoding = _loader_speeds(training, order)
    found = []
    with _batches(training) as batches:
        for _ in range(ROUNDS):  # in turns, so that what else the machine does falls on both
            alone = plan.repeat(lambda: _take(training, batch), LOOK_S / ROUNDS)
            found.append((alone, plan.repeat(lambda: _take(training, next(batches)), 1.5 * LOOK_S / ROUNDS)))
    network, together = np.mean(found, axis=0).tolist()
    size, whole = len(batch), training.recipe.optim.batch_size
    if size < whole:  # the update costs the same for any batch: a smaller one pays it more often
        half = _first(batch, size // 2)
        update_s = 2 * min(_step_s(training, half) for _ in range(2)) - size / network
        update_s = min(max(0.0, update_s), 0.5 * size / network)
        network, together = (plan.of_larger(speed, update_s, size, whole) for speed in (network, together))
    return plan.Speed(loader, again, decoding, network, together, _scoring_speed(training))


def _scoring_speed(training: Training) -> float:
    """Images per second of an evaluation, its loader included."""
    images = training.scored[0]
    size = scoring_batch_size(training.view)

    def score(rows: np.ndarray) -> float:
        on_gpu = training.device.type == "cuda"
        batches = ordered_batches(images.source, images.index, training.view, rows, size, training.workers, pin_memory=on_gpu)
        began, count = time.perf_counter(), 0

        def for_a_while() -> Iterator[Batch]:
            nonlocal count
            for batch in batches:
                yield batch
                count += len(batch)
                if time.perf_counter() - began > LOOK_S:
                    return

        with contextlib.closing(batches):
            predict(
                training.state.model,
                for_a_while(),
                training.view,
                training.device,
                machine.choose_precision(training.recipe.optim.precision, training.device),
                training.classes,
                training.recipe.optim.channels_last,
            )
        return count / (time.perf_counter() - began)

    rows = np.arange(len(images.index))
    score(rows[:size])
    return score(rows)


# ---------------------------------------------------------------- sums


def _duration(training: Training, splits: Splits, speed: plan.Speed, decoding_s: float) -> plan.Duration:
    recipe, b = training.recipe, training.recipe.budget
    per_epoch = steps_per_epoch(len(splits.train), recipe.optim.batch_size)
    every = max(1, round(b.evaluate_epochs * per_epoch))
    step_s = recipe.optim.batch_size / speed.together
    evaluation_s = scored_images(splits, 1 if training.state.average is None else 2) / speed.scoring
    if b.time is not None:
        limit_s = seconds(b.time) * budget.AIM
        return plan.fitting(limit_s, EVALUATION_SHARE, per_epoch, step_s, every, evaluation_s, decoding_s)
    steps = b.steps if b.steps is not None else round((b.epochs or 0) * per_epoch)
    return plan.needed_s(steps, per_epoch, step_s, every, evaluation_s, decoding_s)


def _held_memory(device: torch.device) -> int:
    """Bytes that the process, or torch on the GPU, holds now."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return peak_memory_bytes(device)  # not Linux: the peak so far is the nearest that can be had


def _free_memory(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else machine.free_memory_bytes()

"""The training, told in order: a generator of records with its loop in it.

The caller draws bars, feeds the doctor, writes logs, or stops; nothing here calls back. Whatever must
survive a restart is in `State`; whatever stops a sitting asks through `Stop`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from striate import machine
from striate.classes import Classes
from striate.data import augment, order, resident
from striate.data.index import Index
from striate.data.layouts.detect import open_data
from striate.data.layouts.splits import Splits
from striate.data.loader import Batch, Source, Streaming, Workers, ordered_batches, train_batches
from striate.errors import DataError, NonFiniteError, ResourceError, StriateError, UserError
from striate.evaluate import metrics
from striate.evaluate.predict import predict
from striate.files import write_json
from striate.recipe import Recipe, seconds
from striate.run import checkpoint
from striate.run.folder import Run, build_model
from striate.run.log import Record
from striate.train import average, budget, optim, schedule
from striate.train.budget import Clock, Costs, Stop
from striate.train.state import State
from striate.train.step import Step
from striate.train.vitals import peak_memory_bytes
from striate.view import View

# Training images that are scored in evaluation mode beside the validation set, to tell over- from underfitting.
TRAIN_SAMPLE = 1000
# With a time budget, evaluations take at most this share of the training time.
EVALUATION_SHARE = 0.1


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
    step: Step
    state: State
    device: torch.device
    workers: Workers
    steps_per_epoch: int
    notes: list[str]


# ---------------------------------------------------------------- build


def build(recipe: Recipe, run: Run, splits: Splits, device: torch.device, workers: Workers, progress: Any = None) -> Training:
    """Puts a training together: data, network, optimiser, and the state of the newest valid checkpoint.

    recipe: resolved. run: with classes.json and view.json written. progress: called with (done, total) while
    images are decoded for memory. Raises UserError, DataError, CheckpointError.
    """
    o = recipe.optim
    view, classes = run.view, run.classes
    per_epoch = order.steps_per_epoch(len(splits.train), o.batch_size)
    machine.forget_global_randomness(machine.stream_seed(o.seed, "initial weights"))
    model = build_model(recipe, len(classes.ids))
    if o.batch_size // o.accumulate < 2 and any(isinstance(module, torch.nn.modules.batchnorm._BatchNorm) for module in model.modules()):
        raise UserError("optim.batch_size: batch normalisation needs 2 images or more per micro-batch; raise --batch-size.")
    model = model.to(device, memory_format=torch.channels_last if o.channels_last else torch.contiguous_format).train()
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
    source, more = _source(recipe, splits.train, None, workers, progress)
    notes += more
    scored = []
    sample = machine.permutation(o.seed, "train sample", 0, len(splits.train))[: min(TRAIN_SAMPLE, len(splits.val or splits.train))]
    for index, split in ((splits.val, "val"), (splits.train.select(np.sort(sample), "train"), "train-sample")):
        if index is not None:
            one, more = _source(recipe, index, view, workers, progress)
            scored.append(Images(index, one, split))
            notes += more
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
        step,
        state,
        device,
        workers,
        per_epoch,
        notes,
    )
    _resume(training, total)
    return training


def _source(recipe: Recipe, index: Index, view: View | None, workers: Workers, progress: Any) -> tuple[Source, list[str]]:
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
    if total is not None and state.plan.total_steps != total:
        training.notes.append(f"The schedule is laid anew over {total} steps instead of {state.plan.total_steps}; the run stands at step {state.step}.")
        warmup = min(round(training.recipe.optim.warmup_epochs * training.steps_per_epoch), total)
        state.plan = budget.first_plan(total, warmup)


# ---------------------------------------------------------------- the loop


def steps(
    recipe: Recipe,
    run: Run,
    *,
    splits: Splits | None = None,
    device: str = "auto",
    workers: str = "auto",
    stop: Stop | None = None,
    progress: Any = None,
) -> Iterator[Record]:
    """Trains to the end of the budget, or until `stop` asks; yields a Record whenever there is something to tell.

    recipe: resolved; run: a prepared run folder (see `sitting.prepare`), locked by the caller. The last record
    is of kind "end"; its `exit_code` is 0 (done) or 75 (saved, to be continued).
    Raises DataError (bad images under the policy "fail"), NonFiniteError, ResourceError, CheckpointError.
    """
    stop = stop or Stop()
    where = machine.choose_device(device)
    splits = splits or open_data(run.data["path"], recipe.data.val_share)
    with machine.determinism(recipe.optim.deterministic):
        training = build(recipe, run, splits, where, Workers.parse(workers), progress)
        state, b, o = training.state, recipe.budget, recipe.optim
        yield from _introduction(training)
        limit_s = seconds(b.time) if b.time is not None else None
        clock = Clock(state.elapsed_s)
        pace = Pace()
        saved_step, saved_at = (state.step if state.step else -1), time.monotonic()
        batches = train_batches(
            training.source, training.train, training.augmentation, o.seed, o.batch_size, state.step, None, training.workers
        )
        with contextlib.closing(batches):
            try:
                while True:
                    finished = state.step >= state.plan.total_steps or _time_is_up(limit_s, clock, pace)
                    reason = stop.reason(pace.reserve_s())

                    # ------------------------------------------------ score
                    if reason is None and _evaluation_due(training, finished, limit_s, clock, pace):
                        began = time.monotonic()
                        records = _evaluate(training, stop, pace)
                        if records is None:
                            reason = stop.reason(pace.reserve_s())
                        else:
                            yield from records
                            pace.evaluation_s = time.monotonic() - began

                    # ------------------------------------------------ save, and with a time budget plan anew
                    scored_now = state.evaluated_step == state.step
                    due = time.monotonic() - saved_at >= b.save_every_s or pace.replan_due(limit_s, clock.elapsed_s())
                    if state.step != saved_step and (finished or reason or scored_now or due):
                        if limit_s is not None and not finished:
                            pace.measure(state.step, clock.elapsed_s())
                            state.plan = _replanned(training, limit_s, clock, pace)
                            yield Record("plan", state.step, state.plan.to_plain())
                        state.elapsed_s = clock.elapsed_s()
                        saved = _save(training)
                        pace.save_s, saved_step, saved_at = saved.seconds, state.step, time.monotonic()
                        yield Record("checkpoint", state.step, {"name": saved.path.name, "seconds": saved.seconds, "bytes": saved.size_bytes})
                        yield from _rotated(training)
                        pace.forget(state.step, clock.elapsed_s())

                    # ------------------------------------------------ end
                    if finished or reason:
                        done = finished and reason is None
                        facts = {"reason": "done" if done else reason, "exit_code": 0 if done else 75, "elapsed_s": clock.elapsed_s()}
                        yield Record("end", state.step, facts)
                        return

                    # ------------------------------------------------ step
                    asked = time.monotonic()
                    batch = next(batches)
                    clock.start()
                    pace.waited(time.monotonic() - asked)
                    yield from _bad_images(training, batch.bad)
                    look = (state.step + 1) % b.log_every == 0 or state.step == 0
                    epoch = state.step / training.steps_per_epoch
                    lr = o.lr * schedule.share(
                        o.schedule,
                        step=state.step,
                        epoch=epoch,
                        progress=state.plan.progress(state.step),
                        warmup_steps=state.plan.warmup_steps,
                        drop_epochs=o.drop_epochs,
                        drop_factor=o.drop_factor,
                        inverse_decay=o.inverse_decay,
                        final=o.final_lr,
                    )
                    outcome = training.step(batch, state.step, lr, look)
                    state.step += 1
                    pace.stepped(len(batch.labels), time.monotonic() - asked)
                    if outcome.skipped is None:
                        state.skipped_in_row = 0
                        if state.average is not None:
                            state.average.update(state.model)
                    else:
                        yield _skipped(training, outcome)
                    if look and outcome.skipped is None:
                        facts = {
                            "epoch": state.step / training.steps_per_epoch,
                            "loss": outcome.loss,
                            "losses": outcome.losses,
                            "lr": lr,
                            "top1": outcome.hits / max(1, outcome.images),
                            "gradient_norm": outcome.gradient_norm,
                            "norms": outcome.norms,
                            "dead_share": outcome.dead_share,
                            "memory_bytes": peak_memory_bytes(where),
                            "loss_scale": training.step.scaler.get_scale() if training.step.scaler.is_enabled() else None,
                            "skipped": state.skipped,
                            "elapsed_s": clock.elapsed_s(),
                            "total_steps": state.plan.total_steps if limit_s is None or state.plan.start_step else None,
                        }
                        yield Record("step", state.step, facts | pace.speed())
            except torch.OutOfMemoryError as error:
                raise ResourceError(_out_of_memory(training)) from error
            except (DataError, ResourceError):
                if state.step > saved_step:  # what stops the run now must not cost the steps since the last save
                    with contextlib.suppress(StriateError):
                        state.elapsed_s = clock.elapsed_s()
                        _save(training)
                raise


# ---------------------------------------------------------------- parts of the loop, in its order


class Pace:
    """Measured durations of this sitting: of steps, of waiting, of evaluations and saves."""

    def __init__(self) -> None:
        self.evaluation_s = 0.0
        self.save_s = 0.5
        self.step_s = 0.0
        self._images, self._seconds, self._waiting, self._steps = 0, 0.0, 0.0, 0
        self._window_steps, self._window_s = 0, 0.0
        self._replans: set[float] = set()

    def waited(self, duration_s: float) -> None:
        """Time that a step waited for its batch."""
        self._waiting += duration_s

    def stepped(self, images: int, duration_s: float) -> None:
        """A step with its batch took that long."""
        self._images += images
        self._seconds += duration_s
        self._steps += 1
        self._window_steps += 1
        self._window_s += duration_s
        self.step_s = duration_s if self.step_s == 0 else 0.9 * self.step_s + 0.1 * duration_s

    def speed(self) -> dict[str, float]:
        """Images per second and the share of time spent waiting for data, since the last call."""
        facts = {
            "images_per_s": self._images / self._seconds if self._seconds > 0 else 0.0,
            "wait_share": min(1.0, self._waiting / self._seconds) if self._seconds > 0 else 0.0,
        }
        self._images, self._seconds, self._waiting, self._steps = 0, 0.0, 0.0, 0
        return facts

    def reserve_s(self) -> float:
        """What must be left of a sitting to finish a step and save, with a margin."""
        return 1.0 + 2 * self.step_s + 2 * self.save_s

    def replan_due(self, limit_s: float | None, elapsed_s: float) -> bool:
        """Whether the elapsed share of a time budget asks for a new plan (and so for a checkpoint)."""
        if limit_s is None or self._window_steps < 3:
            return False
        reached = {share for share in budget.REPLAN_SHARES if elapsed_s >= share * limit_s}
        new = not reached <= self._replans
        self._replans |= reached
        return new

    def measure(self, step: int, elapsed_s: float) -> None:
        """Sets the duration of a step to the mean since the last plan."""
        if self._window_steps:
            self.mean_step_s = self._window_s / self._window_steps

    def forget(self, step: int, elapsed_s: float) -> None:
        """Begins a new window of measuring."""
        if self._window_steps >= 20 or self._window_s > 5:
            self._window_steps, self._window_s = 0, 0.0

    mean_step_s: float = 0.0


def _introduction(training: Training) -> Iterator[Record]:
    state, o = training.state, training.recipe.optim
    facts = {
        "images": len(training.train),
        "val_images": next((len(one.index) for one in training.scored if one.split == "val"), 0),
        "classes": len(training.classes.ids),
        "model": training.recipe.model.name,
        "parameters": sum(parameter.numel() for parameter in state.model.parameters()),
        "device": str(training.device),
        "precision": o.precision,
        "threads": torch.get_num_threads(),
        "workers": str(training.workers),
        "resident": training.recipe.data.resident == "yes",
        "batch_size": o.batch_size,
        "steps_per_epoch": training.steps_per_epoch,
        "dropped_per_epoch": len(training.train) - training.steps_per_epoch * o.batch_size,
        "total_steps": state.plan.total_steps if training.recipe.budget.time is None else None,
        "seed": o.seed,
        "elapsed_s": state.elapsed_s,
    }
    yield Record("resume" if state.step else "start", state.step, facts)
    for note in training.notes:
        yield Record("note", state.step, {"text": note})
    if isinstance(training.source, resident.Resident):
        yield from _bad_images(training, [(training.train.keys[row], reason) for row, reason in sorted(training.source.bad.items())])


def _time_is_up(limit_s: float | None, clock: Clock, pace: Pace) -> bool:
    """Whether a time budget has only the last evaluation and the last save left."""
    if limit_s is None:
        return False
    return clock.elapsed_s() + pace.step_s + 1.2 * (pace.evaluation_s + pace.save_s) >= limit_s * 0.985


def _evaluation_due(training: Training, finished: bool, limit_s: float | None, clock: Clock, pace: Pace) -> bool:
    """At each `evaluate_epochs`, and at the end; a time budget thins them out so that they stay a small share."""
    state = training.state
    if state.step == 0 or state.evaluated_step == state.step or not training.scored:
        return False
    if finished:
        return True
    every = max(1, round(training.recipe.budget.evaluate_epochs * training.steps_per_epoch))
    if state.step // every <= max(state.evaluated_step, 0) // every:
        return False
    if limit_s is None:
        return True
    affordable = EVALUATION_SHARE * clock.elapsed_s() >= (state.evaluations + 1) * pace.evaluation_s
    room = limit_s - clock.elapsed_s() > 4 * (pace.evaluation_s + pace.save_s)
    return affordable and room


def _evaluate(training: Training, stop: Stop, pace: Pace) -> list[Record] | None:
    """Scores the validation set and the sample of training images; None when `stop` cut it short.

    The best checkpoint is chosen by the averaged weights where there are any, else by the raw ones; ties keep
    the first, and without a validation set the sample of training images decides.
    """
    state = training.state
    networks = {"raw": state.model} | ({"EMA": state.average.model} if state.average is not None else {})
    records = []
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
            deciding = weights == ("EMA" if state.average is not None else "raw")
            if images.split == judge and deciding and (state.best is None or facts["top1"] > state.best["top1"]):
                state.best = {
                    "step": state.step,
                    "checkpoint": f"step-{state.step}",
                    "split": judge,
                    "weights": weights,
                    "top1": facts["top1"],
                    "top5": facts["top5"],
                    "loss": facts["loss"],
                }
    state.evaluated_step = state.step
    state.evaluations += 1
    return records


def _score(training: Training, images: Images, model: torch.nn.Module, stop: Stop, pace: Pace) -> dict[str, Any] | None:
    began = time.monotonic()
    o = training.recipe.optim
    size = 256 if training.recipe.data.size_px <= 96 else 64
    batches = ordered_batches(images.source, images.index, training.view, np.arange(len(images.index)), size, training.workers)

    class Cut(Exception):
        """The sitting must end before this evaluation does."""

    def until_stopped() -> Iterator[Batch]:
        with contextlib.closing(batches):
            for batch in batches:
                if stop.reason(pace.reserve_s()):
                    raise Cut
                yield batch

    try:
        found, bad = predict(
            model, until_stopped(), training.view, training.device, machine.choose_precision(o.precision, training.device), training.classes, o.channels_last
        )
    except Cut:
        return None
    _refuse_bad(training, bad, len(images.index))
    if not len(found.labels):
        raise DataError(f"{images.index.root}: none of the {len(images.index)} images of the {images.split} set can be read.")
    right = int(metrics.hits(found.scores, found.labels, 1).sum())
    low, high = metrics.wilson(right, len(found.labels))
    return {
        "top1": right / len(found.labels),
        "top1_interval": [low, high],
        "top5": float(metrics.hits(found.scores, found.labels, 5).mean()),
        "loss": metrics.cross_entropy(found.scores, found.labels, "logits"),
        "expected": len(images.index),
        "used": len(found.labels),
        "bad": len(bad),
        "seconds": time.monotonic() - began,
    }


def _replanned(training: Training, limit_s: float, clock: Clock, pace: Pace) -> budget.Plan:
    """The plan that uses up the time budget from here on."""
    state = training.state
    every = max(1, round(training.recipe.budget.evaluate_epochs * training.steps_per_epoch))
    evaluation_s = pace.evaluation_s or _guessed_evaluation_s(training, pace)
    costs = Costs(pace.mean_step_s or pace.step_s, evaluation_s, pace.save_s)

    def evaluations_left(total: int) -> int:
        wanted = total // every - state.step // every + 1
        affordable = int(EVALUATION_SHARE * limit_s / max(evaluation_s, 1e-3)) - state.evaluations
        return max(1, min(wanted, affordable))

    remaining = limit_s * budget.AIM - clock.elapsed_s() - pace.save_s
    warmup = round(training.recipe.optim.warmup_epochs * training.steps_per_epoch)
    return budget.replan(state.plan, state.step, remaining, costs, evaluations_left, warmup)


def _guessed_evaluation_s(training: Training, pace: Pace) -> float:
    """Before the first evaluation: a forward pass costs about a third of a step per image."""
    images = sum(len(one.index) for one in training.scored) * (2 if training.state.average is not None else 1)
    return images * (pace.mean_step_s or pace.step_s) / training.recipe.optim.batch_size / 3


def _save(training: Training) -> checkpoint.Saved:
    """Writes a checkpoint and then best.json, so that the best one always exists when it is named."""
    state = training.state
    state.refuse_non_finite()
    facts = state.numbers() | {
        "recipe": training.recipe.hash,
        "classes": training.classes.hash,
        "data": training.train.fingerprint,
        "seed": training.recipe.optim.seed,
        "environment": machine.describe(training.device),
    }
    saved = checkpoint.save(training.run.checkpoints, state.step, state.tensors(), facts)
    if state.best is not None:
        write_json(training.run.path / "best.json", state.best)
    return saved


def _rotated(training: Training) -> Iterator[Record]:
    best = training.state.best
    for complaint in checkpoint.rotate(training.run.checkpoints, 2, best["step"] if best else None):
        yield Record("note", training.state.step, {"text": complaint})


def _bad_images(training: Training, bad: Sequence[tuple[str, str]]) -> Iterator[Record]:
    """Accounts for training images that could not be read. Raises DataError under the policy "fail", or past the budget."""
    state = training.state
    for key, reason in bad:
        if key not in state.bad:
            state.bad[key] = reason
            yield Record("bad", state.step, {"key": key, "reason": reason})
    _refuse_bad(training, bad, len(training.train), len(state.bad))


def _refuse_bad(training: Training, bad: Sequence[tuple[str, str]], images: int, count: int | None = None) -> None:
    data = training.recipe.data
    count = len(bad) if count is None else count
    if bad and data.on_bad == "fail":
        key, reason = bad[0]
        more = f" ({len(bad)} such images here)" if len(bad) > 1 else ""
        raise DataError(
            f"{training.train.root}: '{key}' cannot be used: {reason}{more}. Repair or remove it, or leave bad images out "
            "with --data.on-bad skip (they are counted in every report)."
        )
    if count > data.bad_share * images:
        raise DataError(
            f"{training.train.root}: {count} of {images} images cannot be read, more than --data.bad-share {data.bad_share} allows; "
            f"the last: '{bad[-1][0]}', {bad[-1][1]}." if bad else f"{training.train.root}: too many bad images ({count})."
        )


def _skipped(training: Training, outcome: Any) -> Record:
    """Counts a step that was not taken. Raises NonFiniteError after too many in a row."""
    state, o = training.state, training.recipe.optim
    state.skipped += 1
    state.skipped_in_row += 1
    facts = {
        "reason": outcome.skipped,
        "keys": list(outcome.bad_keys[:8]),
        "first_bad_layer": outcome.first_bad_layer,
        "in_row": state.skipped_in_row,
    }
    scale = training.step.scaler.get_scale() if training.step.scaler.is_enabled() else None
    searching = scale is not None and scale >= 1 and outcome.skipped.startswith("gradient")
    if (state.skipped_in_row >= o.max_skips and not searching) or (scale is not None and scale < 1):
        images = f" Images: {', '.join(outcome.bad_keys[:4])}." if outcome.bad_keys else ""
        layer = f" The first value that is not finite leaves layer '{outcome.first_bad_layer}'." if outcome.first_bad_layer else ""
        raise NonFiniteError(
            f"Step {state.step}: {outcome.skipped}, for {state.skipped_in_row} steps in a row"
            + (f" (loss scale {scale:g})" if scale is not None else "")
            + f".{layer}{images} Nothing of it was saved. Try a tenth of --lr, --optim.clip-norm 1, a longer --warmup-epochs, or --precision fp32."
        )
    return Record("skip", state.step, facts)


def _out_of_memory(training: Training) -> str:
    """Finds the largest batch that fits, by halving, and says it."""
    o = training.recipe.optim
    torch.cuda.empty_cache()
    size = o.batch_size // o.accumulate
    while size > 1:
        size //= 2
        try:
            side = training.recipe.data.size_px
            images = torch.zeros(size, 3, side, side, device=training.device)
            with torch.autocast(training.device.type, torch.bfloat16):
                outputs = training.state.model(images)
            (outputs if isinstance(outputs, torch.Tensor) else outputs[0]).sum().backward()
            training.state.optimizer.zero_grad(set_to_none=True)
            break
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
    return (
        f"Out of memory on {training.device} with {o.batch_size // o.accumulate} images at once; {size} fit. "
        f"Use --optim.accumulate {-(-o.batch_size // size)} to keep the batch of {o.batch_size}, or --batch-size {size}."
    )


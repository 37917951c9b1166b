"""The training, told in order: a generator of records with its loop in it.

The caller draws bars, feeds the doctor, writes logs, or stops; nothing here calls back. Whatever must
survive a restart is in `State`; whatever stops a sitting asks through `Stop`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from striate import machine
from striate.data import resident
from striate.data.layouts.detect import open_data
from striate.data.layouts.splits import Splits
from striate.data.loader import Batch, Workers, train_batches
from striate.errors import DONE, TO_BE_CONTINUED, DataError, Interrupted, NonFiniteError, ResourceError, StriateError
from striate.models import weights
from striate.ranks import Ranks, local_rank
from striate.recipe import Recipe, seconds
from striate.run.folder import Run
from striate.run.log import Record
from striate.run.writer import Copy, Writer, Written
from striate.train import bad_images, budget, rate, scoring
from striate.train.budget import Clock, Costs, Stop
from striate.train.build import Training, build
from striate.train.pace import Pace
from striate.train.step import Outcome
from striate.train.vitals import peak_memory_bytes

# The newest checkpoints that stay, beside the best one.
KEPT = 2


def steps(
    recipe: Recipe,
    run: Run,
    *,
    splits: Splits | None = None,
    device: str = "auto",
    workers: str = "auto",
    stop: Stop | None = None,
    progress: Callable[[int, int], None] | None = None,
    ranks: Ranks | None = None,
    copy: Copy | None = None,
) -> Generator[Record]:
    """Trains to the end of the budget, or until `stop` asks; yields a Record whenever there is something to tell.

    recipe: resolved; run: a prepared run folder (see `sitting.prepare`), locked by the caller. The last record
    is of kind "end"; its `exit_code` is 0 (done) or 75 (saved, to be continued).
    ranks: this process among those of the training; each runs this loop and yields the same records, the first one writes.
    copy: called with each checkpoint that is on the disk (see `run.writer`).
    Raises DataError (bad images under the policy "fail"), NonFiniteError, ResourceError, CheckpointError.
    """
    stop, ranks = stop or Stop(), ranks or Ranks()
    where = machine.choose_device(device, local_rank())
    splits = splits or open_data(run.data["path"], recipe.data.val_share)
    with machine.determinism(recipe.optim.deterministic), contextlib.ExitStack() as ending:
        try:
            with ranks.together():
                training = build(recipe, run, splits, where, Workers.parse(workers), ranks, stop.watching(progress))
        except Interrupted as error:
            cut = {"reason": f"{error} while reading images", "exit_code": TO_BE_CONTINUED, "elapsed_s": 0.0}
            yield Record("end", run.status["step"], cut)
            return
        state, b = training.state, recipe.budget
        yield from _introduction(training)
        limit_s = seconds(b.time) if b.time is not None else None
        clock = Clock(state.elapsed_s)
        pace = Pace(scoring.cost_steps(training))
        pace.remember(state.pace)
        lr = 0.0
        first_step = state.step
        saved_step, saved_at = (state.step if state.step else -1), time.monotonic()
        writer = Writer(run.checkpoints, KEPT, copy)
        ending.callback(writer.close)
        batches = train_batches(
            training.source,
            training.train,
            training.augmentation,
            training.order,
            state.step,
            None,
            training.workers,
            batched=training.is_batched,
            on_device=training.on_device,
            pin_memory=training.device.type == "cuda",
            boxes=training.boxes,
        )
        ending.callback(batches.close)
        is_between_steps = True
        try:
            while True:
                # ------------------------------------------------ what is due, in all processes alike
                on_disk, failed = _on_disk(writer)
                turn = _turn(training, stop, limit_s, clock, pace, saved_at, failed)
                yield from _told(on_disk, writer, pace)
                finished, reason = turn.finished, turn.reason

                # ------------------------------------------------ score
                scored_now = False
                is_snapshot = scoring.snapshot_due(training, finished)
                if turn.evaluate or turn.save or finished or reason:
                    scoring.settle_average(training)
                if reason is None and turn.evaluate:
                    began = time.monotonic()
                    records = scoring.evaluate(training, stop, pace)
                    if records is None:
                        reason = ranks.any_of(stop.reason(pace.reserve_s()))
                    else:
                        yield from records
                        pace.evaluated(time.monotonic() - began)
                        scored_now = True
                        finished = finished or _out_of_patience(training)

                # ------------------------------------------------ save, and with a time budget plan anew
                # A step that was saved without its evaluation, because the sitting had to end, is saved again with it.
                is_snapshot = is_snapshot and (scored_now or finished or not training.scored)
                if is_snapshot:
                    state.snapshots.append(state.step)
                if scored_now or is_snapshot or (state.step != saved_step and (finished or reason or turn.save)):
                    if limit_s is not None and not finished and turn.settled:  # else nothing is measured yet
                        state.plan = _replanned(training, limit_s, clock, pace)
                        pace.planned(clock.elapsed_s())
                        yield Record("plan", state.step, state.plan.to_plain())
                    if finished:
                        state.plan = budget.ended(state.plan, state.step)
                    state.elapsed_s, state.pace = clock.elapsed_s(), pace.measured()
                    saved_step, saved_at = state.step, time.monotonic()  # first: a save that fails is not tried again
                    pace.stood_still(_save(training, writer))

                # ------------------------------------------------ end
                if finished or reason:
                    on_disk, failed = _on_disk(writer, wait=True)
                    if ranks.most([failed is not None])[0]:
                        ranks.raise_any(failed)
                    yield from _told(on_disk, writer, pace)
                    done = finished and reason is None
                    facts: dict[str, Any] = {
                        "lr": lr,
                        "reason": _why_done(training) if done else reason,
                        "exit_code": DONE if done else TO_BE_CONTINUED,
                        "elapsed_s": clock.elapsed_s(),
                    }
                    yield Record("end", state.step, facts)
                    return

                # ------------------------------------------------ step
                asked = time.monotonic()
                batch, count = yield from _next(training, batches)
                clock.start()
                pace.waited(time.monotonic() - asked)
                look = (state.step + 1) % b.log_every == 0 or state.step == 0
                lr = _rate(training)
                is_between_steps = False
                outcome = training.step(batch, state.step, lr, look, count)
                state.step += 1
                pace.stepped(count, time.monotonic() - asked)
                if outcome.skipped is None:
                    state.skipped_in_row = 0
                    _average(training)
                else:
                    yield _skipped(training, outcome)
                is_between_steps = True
                if state.step == first_step + 1 and ranks.is_first:
                    writer.reserve(state.tensors())
                if look and outcome.skipped is None:
                    facts = _step_facts(training, outcome, lr) | pace.speed()
                    yield Record("step", state.step, facts | {"elapsed_s": clock.elapsed_s()})
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not _is_about_memory(error):
                raise
            raise ResourceError(_out_of_memory(training)) from error
        except (DataError, ResourceError):
            # What stops the run now must not cost the steps since the last save, unless it was a save that failed.
            if state.step > saved_step and is_between_steps and not writer.has_failed:
                with contextlib.suppress(StriateError):
                    state.elapsed_s = clock.elapsed_s()
                    _save(training, writer)
                    writer.poll(wait=True)
            raise


# ---------------------------------------------------------------- parts of the loop, in its order


@dataclass(frozen=True)
class Turn:
    """What is due before the next step. settled: whether the speed is known well enough to plan with."""

    finished: bool
    evaluate: bool
    save: bool
    settled: bool
    reason: str | None


def _turn(
    training: Training,
    stop: Stop,
    limit_s: float | None,
    clock: Clock,
    pace: Pace,
    saved_at: float,
    error: Exception | None,
) -> Turn:
    """What is due. The first process looks at the clock, any may be asked to stop, and all do the same.

    error: of a checkpoint; it is raised in all processes.
    """
    state, ranks = training.state, training.ranks
    reason = stop.reason(pace.reserve_s())
    finished = evaluate = save = False
    if ranks.is_first:
        finished = state.step >= state.plan.total_steps or _time_is_up(limit_s, clock, pace) or _out_of_patience(training)
        evaluate = scoring.evaluation_due(training, finished, limit_s, clock, pace)
        save = time.monotonic() - saved_at >= training.recipe.budget.save_every_s or _plan_due(training, limit_s, clock, pace)
    found = ranks.most([finished, evaluate, save, pace.step_s > 0 and ranks.is_first, reason is not None, error is not None])
    if found[5]:
        ranks.raise_any(error)
    if found[4]:
        reason = ranks.any_of(reason)
    return Turn(bool(found[0]), bool(found[1]), bool(found[2]), bool(found[3]), reason)


def _next(training: Training, batches: Iterator[Batch]) -> Generator[Record, None, tuple[Batch, int]]:
    """This process' part of the next batch, and how many images all parts have; bad images are accounted for.

    Trouble with it in one process is trouble in all.
    """
    ranks, error, batch = training.ranks, None, None
    try:
        batch = next(batches)
    except StriateError as caught:
        error = caught
    good, unread = (training.step.usable(len(batch)), len(batch.bad)) if batch is not None else (0, 0)
    count, bad, troubles = ranks.total([good, unread, error is not None])
    if troubles:
        ranks.raise_any(error)
    assert batch is not None
    if bad:
        found = [(key, reason) for one in ranks.exchange(list(batch.bad)) for key, reason in one]
        yield from bad_images.account(training, found)
    return batch, count


def _on_disk(writer: Writer, wait: bool = False) -> tuple[list[Written], Exception | None]:
    """The checkpoints that came to the disk meanwhile, and what went wrong with one; in all processes but the first nothing."""
    ended: list[Written] = []
    try:
        while (written := writer.poll(wait)) is not None:
            ended.append(written)
    except Exception as error:  # told to the other processes before it is raised
        return ended, error
    return ended, None


def _told(ended: list[Written], writer: Writer, pace: Pace) -> Iterator[Record]:
    for written in ended:
        saved = written.saved
        pace.saved(written.alone_s + writer.copy_s)
        facts = {"name": saved.path.name, "seconds": saved.seconds, "bytes": saved.size_bytes, "stall_s": pace.stall_s}
        yield Record("checkpoint", written.step, facts)
        for complaint in written.complaints:
            yield Record("note", written.step, {"text": complaint})


def _out_of_patience(training: Training) -> bool:
    """Whether so many evaluations brought nothing better that the training ends early."""
    patience = training.recipe.budget.patience
    return 0 < patience <= training.state.since_best


def _why_done(training: Training) -> str:
    since = training.state.since_best
    return f"no better top-1 in {since} evaluations (--patience)" if _out_of_patience(training) else "done"


def _introduction(training: Training) -> Iterator[Record]:
    state, o = training.state, training.recipe.optim
    facts = {
        "images": len(training.train),
        "val_images": next((len(one.index) for one in training.scored if one.split == "val"), 0),
        "classes": len(training.classes.ids),
        "model": training.recipe.model.name,
        "parameters": sum(parameter.numel() for parameter in state.model.parameters()),
        "trained_parameters": sum(one.numel() for one in state.model.parameters() if one.requires_grad),
        "device": str(training.device),
        "precision": o.precision,
        "threads": torch.get_num_threads(),
        "workers": str(training.workers),
        "processes": training.ranks.world,
        "resident": training.recipe.data.resident == "yes",
        "batch_size": o.batch_size,
        "steps_per_epoch": training.steps_per_epoch,
        "dropped_per_epoch": len(training.train) - training.steps_per_epoch * o.batch_size,
        "total_steps": state.plan.total_steps if training.recipe.budget.time is None else None,
        "seed": o.seed,
        "elapsed_s": state.elapsed_s,
        **(training.begun_with or {}),
    }
    yield Record("resume" if state.step else "start", state.step, facts)
    for note in training.notes:
        yield Record("note", state.step, {"text": note})
    if isinstance(training.source, resident.Resident):
        yield from bad_images.account(
            training, [(training.train.keys[row], reason) for row, reason in sorted(training.source.bad.items())]
        )


def _average(training: Training) -> None:
    """Lets the weights after a step enter their average: the moving one each time, the plain one every `swa_epochs`."""
    state, o = training.state, training.recipe.optim
    if state.average is None:
        return
    every = max(1, round(o.swa_epochs * training.steps_per_epoch)) if o.swa_from else 1
    if state.step % every == 0 and state.plan.progress(state.step) >= o.swa_from:
        state.average.update(state.model)


def _rate(training: Training) -> float:
    """The learning rate of the next step."""
    state, o = training.state, training.recipe.optim
    return rate.peak(o) * rate.share(
        o,
        step=state.step,
        epoch=state.step / training.steps_per_epoch,
        progress=state.plan.progress(state.step),
        warmup_steps=state.plan.warmup_steps,
        drops=state.plateau.drops,
    )


def _step_facts(training: Training, outcome: Outcome, lr: float) -> dict[str, Any]:
    """What a record tells of the step just taken."""
    state, scaler = training.state, training.step.scaler
    is_planned = training.recipe.budget.time is None or state.plan.start_step > 0
    return {
        "epoch": state.step / training.steps_per_epoch,
        "loss": outcome.loss,
        "losses": outcome.losses,
        "lr": lr,
        "top1": outcome.hits / max(1, outcome.images),
        "gradient_norm": outcome.gradient_norm,
        "norms": outcome.norms,
        "dead_share": outcome.dead_share,
        "memory_bytes": peak_memory_bytes(training.device),
        "loss_scale": scaler.get_scale() if scaler.is_enabled() else None,
        "skipped": state.skipped,
        "total_steps": state.plan.total_steps if is_planned else None,
    }


def _time_is_up(limit_s: float | None, clock: Clock, pace: Pace) -> bool:
    """Whether a time budget has only the last evaluation and the last save left."""
    if limit_s is None:
        return False
    return clock.elapsed_s() + pace.step_s + 1.1 * (pace.evaluation_s + pace.save_s) >= limit_s * budget.LAST_CALL


def _plan_due(training: Training, limit_s: float | None, clock: Clock, pace: Pace) -> bool:
    """Whether a time budget asks for a new plan; no sooner than five settled steps, for a plan on fewer would be a guess."""
    state = training.state
    return limit_s is not None and pace.plan_due(limit_s, clock.elapsed_s(), state.plan.total_steps - state.step)


def _replanned(training: Training, limit_s: float, clock: Clock, pace: Pace) -> budget.Plan:
    """The plan that uses up the time budget from here on."""
    state = training.state
    every = max(1, round(training.recipe.budget.evaluate_epochs * training.steps_per_epoch))
    costs = Costs(pace.step_s, pace.evaluation_s, pace.stall_s, pace.plans_left(limit_s, clock.elapsed_s()))

    def evaluations_left(total: int) -> int:
        wanted = total // every - state.step // every + 1
        affordable = int(scoring.EVALUATION_SHARE * limit_s / max(costs.evaluation_s, 1e-3)) - state.evaluations
        return max(1, min(wanted, affordable))

    remaining = limit_s * budget.AIM - clock.elapsed_s() - pace.save_s
    warmup = round(training.recipe.optim.warmup_epochs * training.steps_per_epoch)
    plan = budget.replan(state.plan, state.step, remaining, costs, evaluations_left, warmup)
    return budget.Plan(**training.ranks.share(plan.to_plain()))


def _save(training: Training, writer: Writer) -> float:
    """Begins a checkpoint, in the first process. Returns the seconds that the training stood still."""
    if not training.ranks.is_first:
        return 0.0
    began = time.monotonic()
    state = training.state
    facts = state.numbers() | {
        "recipe": training.recipe.hash,
        "classes": training.classes.hash,
        "data": training.train.fingerprint,
        "seed": training.recipe.optim.seed,
        "environment": machine.describe(training.device) | {"processes": training.ranks.world},
    }
    kept = tuple(state.snapshots)
    writer.begin(state.step, state.tensors(), facts, weights.variant_of(state.model), state.best, kept)
    return time.monotonic() - began


def _skipped(training: Training, outcome: Outcome) -> Record:
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
    searching = scale is not None and scale >= 1 and (outcome.skipped or "").startswith("gradient")
    if (state.skipped_in_row >= o.max_skips and not searching) or (scale is not None and scale < 1):
        images = f" Images: {', '.join(outcome.bad_keys[:4])}." if outcome.bad_keys else ""
        layer = (
            f" The first value that is not finite leaves layer '{outcome.first_bad_layer}'." if outcome.first_bad_layer else ""
        )
        raise NonFiniteError(
            f"Step {state.step}: {outcome.skipped}, for {state.skipped_in_row} steps in a row"
            + (f" (loss scale {scale:g})" if scale is not None else "")
            + f".{layer}{images} Nothing of it was saved. "
            "Try a tenth of --lr, --optim.clip-norm 1, a longer --warmup-epochs, or --precision fp32."
        )
    return Record("skip", state.step, facts)


def _is_about_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out; on the CPU torch says it with a plain RuntimeError."""
    return not isinstance(error, RuntimeError) or "allocate memory" in str(error) or "out of memory" in str(error).lower()


def _out_of_memory(training: Training) -> str:
    """Finds the largest batch that fits, by halving (on a GPU, where trying is safe), and says it."""
    o, device, part = training.recipe.optim, training.device, training.order.part_size
    at_once = -(-part // o.accumulate)
    size = at_once
    while size > 1:
        size //= 2
        if device.type != "cuda" or training.step.fits(size, training.recipe.data.size_px):
            break
    accumulate = next(parts for parts in range(1, o.batch_size + 1) if o.batch_size % parts == 0 and part <= size * parts)
    fits = f"; {size} fit" if device.type == "cuda" else ""
    return (
        f"Out of memory on {device} with {at_once} images at once{fits}. Use --optim.accumulate {accumulate} to keep the batch "
        f"of {o.batch_size}, or --batch-size {size * training.ranks.world}."
    )

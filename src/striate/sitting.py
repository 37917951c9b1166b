"""One sitting of a training, from the command as typed to the report.

Finds or makes the run, decides what the recipe left open, trains until the budget or the sitting ends,
then scores the best checkpoint and writes the report. `train` is what the command does.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from striate import machine, progress
from striate import recipe as recipes
from striate.data.index import Index, compare
from striate.data.layouts.detect import open_data
from striate.data.layouts.splits import AS_THEY_LIE, Splits
from striate.data.loader import Workers
from striate.data.order import steps_per_epoch
from striate.doctor import diagnosis, examination, page
from striate.doctor import preflight as examined
from striate.doctor.live import Live
from striate.errors import DONE, TO_BE_CONTINUED, CheckpointError, DataError, Interrupted, NonFiniteError, StriateError, UserError
from striate.evaluate import score
from striate.evaluate.open import evaluate_run, evaluate_snapshots
from striate.files import read_json, sha256_file, write_json
from striate.measure.plan import Forecast
from striate.ranks import Ranks, joined, local_rank
from striate.recipe import Recipe
from striate.recipes import catalog
from striate.report import augmented, mosaic
from striate.report.write import write_report
from striate.run import checkpoint, identity, mirror
from striate.run.folder import Run, Typed, open_run
from striate.run.lock import locked
from striate.run.log import Log, Record
from striate.track import trackers
from striate.train import loop, trial
from striate.train.budget import Stop
from striate.train.build import total_steps
from striate.train.resolve import Resolved, median_side_px, resolve

# Photos that `show` draws at most: a picture of more is too tall to look at.
MOST_SHOWN = 40
# Fields that the weights, the optimiser's state, the order or the view of a run were made with: no --override accepts them.
MADE_WITH = {
    *(
        f"data.{name}"
        for name in ("size_px", "shrink_px", "fit", "crop_share", "interpolation", "normalise", "exif", "val_share", "colour")
    ),
    *(f"optim.{name}" for name in ("name", "batch_size", "momentum", "ema", "precision", "seed", "freeze")),
}


@dataclass(frozen=True)
class Request:
    """A training as asked for. changes: {"group.field": value} on top of the recipe; the rest changes no number.

    doctor: whether it is examined, before and on its way.
    """

    data: str
    recipe: str | Recipe | None = None
    changes: Mapping[str, Any] | None = None
    out: Path = Path("runs")
    name: str | None = None
    new: bool = False
    override: tuple[str, ...] = ()
    accept_data_change: bool = False
    stop_after: str | None = None
    workers: str = "auto"
    device: str = "auto"
    command: str = ""
    mirror: Path | None = None
    track: tuple[str, ...] = ()
    doctor: bool = True


def train(
    data: str | Path,
    recipe: str | Path | Recipe | None = None,
    *,
    changes: Mapping[str, Any] | None = None,
    out: str | Path = "runs",
    name: str | None = None,
    new: bool = False,
    override: tuple[str, ...] = (),
    accept_data_change: bool = False,
    stop_after: str | None = None,
    workers: str = "auto",
    device: str = "auto",
    mirror: str | Path | None = None,
    track: tuple[str, ...] = (),
    doctor: bool = True,
    quiet: bool = False,
    **fields: Any,
) -> Run:
    """Trains a classifier, or goes on with one, and returns its run; the same as `striate train`.

    data: a folder, a list file, or "builtin". recipe: a name, a recipe.json, or a Recipe.
    changes and fields: recipe fields by either of their names: train("photos", model="resnet18", epochs=3,
    changes={"loss.smoothing": 0.1}). stop_after: as "11h30m"; the run is then saved, and the same call goes on.
    mirror: a folder on another disk that each checkpoint is copied to, and that a new machine goes on from.
    track: trackers that watch it, of "tensorboard", "wandb" and "mlflow". doctor: look for what keeps it from learning, before
    and on its way.
    Raises UserError, DataError, CheckpointError, NonFiniteError or ResourceError.
    """
    merged = {recipes.full_name(key): value for key, value in {**(changes or {}), **fields}.items()}
    base = str(recipe) if isinstance(recipe, Path) else recipe
    second = Path(mirror) if mirror is not None else None
    request = Request(
        str(data),
        base,
        merged,
        Path(out),
        name,
        new,
        override,
        accept_data_change,
        stop_after,
        workers,
        device,
        mirror=second,
        track=track,
        doctor=doctor,
    )
    with machine.as_found():
        run, _ = sit(request, quiet=quiet)
    return run


def sit(request: Request, quiet: bool = False, began: float | None = None) -> tuple[Run, int]:
    """One sitting. Returns the run and the exit code: 0 done, 75 saved and to be continued.

    began: when it began, by the monotonic clock, for `stop_after`; now if None. The command counts its imports in.
    """
    began = time.monotonic() if began is None else began
    limit_s = recipes.seconds(request.stop_after) if request.stop_after else None
    trackers.require(request.track)
    machine.keep_freed_memory()
    machine.use_threads(machine.threads_wanted())
    with contextlib.ExitStack() as stack:
        ranks = stack.enter_context(joined())
        stop = stack.enter_context(Stop(limit_s, began))
        display = stack.enter_context(progress.Display(quiet or not ranks.is_first))
        prepared = _prepared(request, ranks, display, stack)
        run = prepared.run
        if prepared.finished:
            for line in _finished(prepared):
                display.say(line)
            return run, DONE
        end = _train(prepared, request, ranks, stop, display)
        if prepared.mirror is not None and end.step > 0 and not prepared.mirror.has(end.step):
            display.say(f"{prepared.mirror.path}: has no copy of the last checkpoint, step {end.step:,}; see above.")
        if end.values["exit_code"] == TO_BE_CONTINUED:
            return run, TO_BE_CONTINUED
        if not ranks.is_first:
            return run, DONE  # the first process alone scores the best checkpoint and writes the report
        try:
            for line in _finish(prepared, request, stop):
                display.say(line)
        except Interrupted as error:
            display.say(f"Trained, but not scored yet ({error}). {display.again} to go on.")
            return run, TO_BE_CONTINUED
        return run, DONE


# ---------------------------------------------------------------- prepare


@dataclass(frozen=True)
class Prepared:
    """A run folder that is locked and complete up to its first step, and the images it trains on."""

    run: Run
    recipe: Recipe
    splits: Splits
    finished: bool
    mirror: mirror.Mirror | None = None


def _prepared(request: Request, ranks: Ranks, display: progress.Display, stack: contextlib.ExitStack) -> Prepared:
    """The run of a request in every process: the first one prepares it, the others open what it prepared."""
    with ranks.together():
        prepared = prepare(request, display, stack) if ranks.is_first else None
    path, finished = ranks.share([str(prepared.run.path), prepared.finished] if prepared else None)
    with ranks.together():
        if prepared is None:
            run = open_run(Path(path))
            prepared = Prepared(run, run.recipe, open_data(request.data, run.recipe.data.val_share), finished)
    return prepared


def prepare(request: Request, display: progress.Display, stack: contextlib.ExitStack) -> Prepared:
    """Finds or makes the run of a request, locks it (until `stack` closes), and decides what the recipe leaves open."""
    device = machine.choose_device(request.device, local_rank())
    _outside_the_data(request)
    splits, typed = _typed(request, device.type != "cpu", display)
    steps_per_epoch(len(splits.train), typed.recipe.optim.batch_size)  # raises before there is a folder
    name = _name(request, typed)
    if request.mirror is not None:
        mirror.check_place(request.mirror, Run(request.out / name))
    run, exists = identity.make_folder(request.out, name, request.new)
    stack.enter_context(locked(run.path))
    if exists and _is_complete(run):
        identity.reconcile(run, _as_begun(run, typed), request.override)
    if request.mirror is not None and not request.new:
        for note in mirror.restore(request.mirror, run, typed, request.override):
            display.say(f"  {note}")
        exists = (run.path / "recipe.json").is_file()
    if exists and _is_complete(run):
        return _existing(run, request, splits, typed, display)
    display.say(f"{run.path}: {splits.layout}, {len(splits.train):,} training images of {len(splits.train.classes.ids)} classes")
    for note in splits.notes:
        display.say(f"  {note}")
    resolved = resolve(typed.recipe, splits, device, splits.layout.startswith(AS_THEY_LIE))
    for note in resolved.notes:
        display.say(f"  {note}")
    _write_run(run, request, splits, typed, resolved.recipe, resolved.view.to_json(), device)
    return Prepared(run, resolved.recipe, splits, False, _opened_mirror(request, run))


def _outside_the_data(request: Request) -> None:
    """Raises UserError when the run or its mirror would be written into the folder of the data."""
    data = Path(request.data)
    for option, place in (("--out", request.out), ("--mirror", request.mirror)):
        if request.data != "builtin" and place is not None and data.is_dir() and place.resolve().is_relative_to(data.resolve()):
            raise UserError(f"{option} {place}: lies in the data, {data}, which is never written to. Choose another folder.")


def _name(request: Request, typed: Typed) -> str:
    return request.name or identity.default_name(request.data, typed.recipe.model.name, typed)


def _opened_mirror(request: Request, run: Run) -> mirror.Mirror | None:
    return mirror.open_mirror(request.mirror, run) if request.mirror is not None else None


def _as_begun(run: Run, typed: Typed) -> Typed:
    """What is typed now, on top of what the run began with: that stays, on another machine and in a later version."""
    return Typed(typed.base, run.typed.start, typed.changes) if typed.base == run.typed.base else typed


def _typed(request: Request, has_gpu: bool, display: progress.Display) -> tuple[Splits, Typed]:
    """The images, and the recipe as asked for. What can be wrong without opening the data is found first."""
    changes = dict(request.changes or {})
    if isinstance(request.recipe, Recipe):
        base, base_name = request.recipe, request.recipe.hash
    elif request.recipe is not None:
        base, base_name = catalog.find(request.recipe), request.recipe
        if Path(request.recipe).is_file():
            base_name = sha256_file(Path(request.recipe))
    else:  # a named network gets the defaults, as the help shows them; for those who name none one is chosen with its recipe
        base, base_name = Recipe(), "chosen" if "model.name" not in changes else "defaults"
    asked = recipes.check(recipes.change(base, changes))
    splits = open_data(request.data, asked.data.val_share)
    if base_name == "chosen":
        base, reason = catalog.choose(len(splits.train), median_side_px(splits.train), has_gpu)
        recipes.check(recipes.change(base, changes))
        display.say(f"Chosen: {reason}")
    elif asked.model.name == "auto":
        base = recipes.change(base, {"model.name": "resnet18"})
    return splits, Typed(base_name, base, {name: _plain(value) for name, value in changes.items()})


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _is_complete(run: Run) -> bool:
    """Whether a run got past its preparation to its training. One that did not, because a network's option was
    misspelt or a kill came early, is prepared anew with what is typed now."""
    began = bool(checkpoint.steps_in(run.checkpoints)) or any(record["kind"] in {"start", "resume"} for record in run.log())
    return began and (run.path / "recipe.json").is_file()


def _write_run(
    run: Run, request: Request, splits: Splits, typed: Typed, recipe: Recipe, view: dict[str, Any], device: Any
) -> None:
    splits.train.classes.write(run.path / "classes.json")
    write_json(run.path / "view.json", view)
    _write_data(run, request, splits)
    write_json(
        run.path / "environment.json",
        machine.describe(device) | {"command": request.command, "deterministic": recipe.optim.deterministic},
    )
    run.checkpoints.mkdir(exist_ok=True)
    run.write(typed, recipe)


def _write_data(run: Run, request: Request, splits: Splits) -> None:
    found: dict[str, Index] = {"train": splits.train} | ({"val": splits.val} if splits.val is not None else {})
    for split, index in found.items():
        index.write(run.path / f"index-{split}.parquet")
    facts = {
        split: {"images": len(index), "root": str(index.root), "fingerprint": index.fingerprint, "boxes": index.boxes is not None}
        for split, index in found.items()
    }
    path = request.data if request.data == "builtin" else str(Path(request.data).absolute())
    write_json(run.path / "data.json", {"path": path, "layout": splits.layout, "notes": list(splits.notes), "splits": facts})


def _existing(run: Run, request: Request, splits: Splits, typed: Typed, display: progress.Display) -> Prepared:
    """Goes on with a run: the same recipe and the same data, or differences that were accepted one by one."""
    typed = _as_begun(run, typed)
    accepted = identity.reconcile(run, typed, request.override)
    recipe = run.recipe
    _same_data(run, request, splits, display)
    fixed = [name for name in accepted if name in MADE_WITH or name.startswith("model.")]
    if fixed:
        raise UserError(
            f"{run.path}: {', '.join(fixed)} cannot change within a run, whose weights, state or view were "
            "made with it. Start beside it with --new."
        )
    _refuse_less(run, recipes.change(recipe, {name: new for name, (_, new) in accepted.items() if new is not None}), splits)
    second = _opened_mirror(request, run)  # whatever refuses the command does so before anything of the run is changed
    if accepted:
        if run.status["state"] == "done":  # first: a kill before the next line must not leave a longer run that counts as done
            run.write_status("saved", run.status["step"], reason="its recipe was changed")
        recipe = recipes.check(recipes.change(recipe, {name: new for name, (_, new) in accepted.items() if new is not None}))
        run.write(typed, recipe)
        for name, (old, new) in accepted.items():
            display.say(f"  accepted: {name} {old} → {new}")
    finished = run.status["state"] == "done" and not accepted
    return Prepared(run, recipe, splits, finished, second)


def _refuse_less(run: Run, recipe: Recipe, splits: Splits) -> None:
    """Raises UserError when a budget has fewer steps than the run has taken."""
    total = total_steps(recipe, steps_per_epoch(len(splits.train), recipe.optim.batch_size))
    if total is not None and total < run.status["step"]:
        raise UserError(
            f"{run.path}: has taken {run.status['step']:,} steps already, more than these {total:,}. Start beside it: --new."
        )


def _same_data(run: Run, request: Request, splits: Splits, display: progress.Display) -> None:
    """Raises CheckpointError with the differences when the images are not those the run began with."""
    stored = run.classes
    if stored.hash != splits.train.classes.hash:
        gone = sorted(set(stored.ids) - set(splits.train.classes.ids))
        more = sorted(set(splits.train.classes.ids) - set(stored.ids))
        raise CheckpointError(
            f"{request.data}: its classes are not those of {run.path} (missing: {', '.join(gone[:8]) or 'none'}; "
            f"new: {', '.join(more[:8]) or 'none'}). Give the data of this run, or start another with --new."
        )
    for split, index in (("train", splits.train), ("val", splits.val)):
        old = run.index(split)
        if old is None or index is None:
            continue
        found = compare(old, index)
        if found.remounted:
            display.say(f"  {split}: every file's time is new and no size is: taken for a copy of the same data.")
        if found and not request.accept_data_change:
            raise CheckpointError(
                f"{request.data}: the {split} images changed since {run.path} began.\n{found.describe()}\n"
                "Put them back, start another run with --new, or go on with the changed data: --accept-data-change."
            )
        if found:
            display.say(f"  accepted, so the end is not that of the run without it: {split} images changed. {found.describe()}")
            _write_data(run, request, splits)


# ---------------------------------------------------------------- train


def _train(prepared: Prepared, request: Request, ranks: Ranks, stop: Stop, display: progress.Display) -> Record:
    """Runs the loop, keeps its records, shows them, and leaves the run's status right however it ends."""
    run = prepared.run
    log, tracked, copy = None, None, None
    with ranks.together():
        if ranks.is_first:
            copy = prepared.mirror.copy if prepared.mirror is not None else None
            tracked = trackers.Trackers(run, request.track)
            log = Log(run.path / "log.jsonl")
    if log is None or tracked is None:
        *_, last = loop.steps(
            prepared.recipe, run, splits=prepared.splits, device=request.device, workers=request.workers, stop=stop, ranks=ranks
        )
        return last
    step = run.status["step"]
    run.write_status("running", step)
    is_judged = request.doctor and prepared.recipe.optim.freeze != "classifier"  # else nothing that the doctor knows of trains
    if is_judged and step == 0 and ranks.world == 1:
        preflight(prepared, request.device, request.workers, stop, display)
    live = Live(prepared.recipe, run.log()) if is_judged else None
    end = Record("end", step, {"reason": "nothing to do", "exit_code": DONE})

    def keep(record: Record) -> None:
        nonlocal step, end
        step = record.step
        log.append(record)
        display.show(record)
        if record.kind == "end":
            end = record
        for note in tracked.write(record):
            keep(Record("note", step, {"text": note}))
        if live is not None:
            for finding in live.observe(record):
                log.append(Record("finding", step, finding.to_json()))
                display.say(page.in_short(finding))

    try:
        for note in _not_bit_exact(run, request, ranks):
            keep(Record("note", step, {"text": note}))
        records = loop.steps(
            prepared.recipe,
            run,
            splits=prepared.splits,
            device=request.device,
            workers=request.workers,
            stop=stop,
            progress=display.decoding,
            ranks=ranks,
            copy=copy,
        )
        with contextlib.closing(records):
            for record in records:
                keep(record)
    except Exception as error:
        code = error.exit_code if isinstance(error, StriateError) else StriateError.exit_code
        reason = (str(error) or type(error).__name__).splitlines()[0]
        with contextlib.suppress(StriateError, OSError):
            keep(Record("end", step, {"reason": reason, "exit_code": code}))
            run.write_status("failed", step, reason=reason, exit_code=code)
        raise
    finally:
        with contextlib.suppress(StriateError, OSError):  # a full disk is told of already
            for note in tracked.close():
                keep(Record("note", step, {"text": note}))
        log.close()
    state = "saved" if end.values["exit_code"] == TO_BE_CONTINUED else "trained"
    run.write_status(state, end.step, reason=end.values["reason"])
    return end


def preflight(prepared: Prepared, device: str, workers: str, stop: Stop, display: progress.Display) -> None:
    """The doctor's quick rules before the first step. What they find is told and kept; the training is not changed by it.

    They take 20 s at most, or 5 % of the training where that is less; a training of a few steps is not examined. What is
    wrong with it the training says itself, a moment later.
    """
    recipe = prepared.recipe
    total = total_steps(recipe, steps_per_epoch(len(prepared.splits.train), recipe.optim.batch_size))
    if total is not None and total < examined.FEWEST_STEPS:
        return
    budget_s = recipes.seconds(recipe.budget.time) if recipe.budget.time is not None else None
    try:
        with machine.determinism(recipe.optim.deterministic), machine.as_found():
            _examined(prepared, device, workers, budget_s, stop, display)
    except StriateError:
        pass  # the training says it itself, a moment later
    except Exception as error:  # whatever the doctor stumbles over, the training begins
        display.say(f"The doctor failed ({type(error).__name__}: {error}); the training goes on without it.")


def _examined(
    prepared: Prepared, device: str, workers: str, budget_s: float | None, stop: Stop, display: progress.Display
) -> None:
    """Examines the training, says what was found, and keeps it in findings.json."""
    recipe, run = prepared.recipe, prepared.run
    where = machine.choose_device(device, local_rank())
    patient = examined.patient(recipe, run, prepared.splits, where, Workers.parse(workers), examined.LIMIT_S)
    patient.seconds = examined.limit_s(patient, recipe, budget_s)
    found = examination.before(patient, stopped=stop.reason)
    diagnosis.write(run, found, found)
    if found.is_ill:
        for line in page.lines(found.findings, found.in_order, found.unchecked):
            display.say(f"  {line}")
    elif found.checked:
        display.say(f"Doctor: nothing found in {len(found.checked)} checks, {found.seconds:.1f} s.")


def _not_bit_exact(run: Run, request: Request, ranks: Ranks) -> Iterator[str]:
    """What differs between this machine and the one that wrote the newest checkpoint, where bits may depend on it."""
    steps = checkpoint.steps_in(run.checkpoints)
    if not steps:
        return
    path = run.checkpoints / f"step-{steps[0]}" / "state.json"
    with contextlib.suppress(UserError):
        before = {"processes": 1} | read_json(path).get("environment", {})
        now = machine.describe(machine.choose_device(request.device, local_rank())) | {"processes": ranks.world}
        versions = ["striate", "torch", "cudnn", "numpy", "pillow", "simplejpeg"]
        versions += ["opencv"] if run.recipe.augment.resampler == "opencv" else []
        names = ("processes", "threads", "processor", "device", "gpu", *versions)
        changed = [f"{name} {before.get(name)} → {now.get(name)}" for name in names if before.get(name) != now.get(name)]
        if changed:
            yield f"From here on not bit-exact: {', '.join(changed)}."


# ---------------------------------------------------------------- finish


def _finished(prepared: Prepared) -> Iterator[str]:
    """What to say of a run that has nothing left to do; a mirror that is new to it gets its copy."""
    run, status = prepared.run, prepared.run.status
    yield f"{run.path}: this run is finished (step {status['step']:,}). Its report: {run.path / 'report.html'}"
    b = prepared.recipe.budget
    option, field = (
        ("--steps", "steps") if b.steps is not None else ("--for", "time") if b.time is not None else ("--epochs", "epochs")
    )
    if "patience" in (status.get("reason") or ""):
        option, field = "--patience", "patience"
    yield f"To train it longer: --name {run.name}, a larger {option}, and --override budget.{field}."
    steps = checkpoint.steps_in(run.checkpoints)
    if prepared.mirror is not None and steps and not prepared.mirror.has(steps[0]):
        best = run.best
        complaints = prepared.mirror.copy(
            run.checkpoints / f"step-{steps[0]}", steps[0], loop.KEPT, (*run.snapshots, *([best["step"]] if best else []))
        )
        yield from complaints or [f"{prepared.mirror.path}: has a copy now."]


def _finish(prepared: Prepared, request: Request, stop: Stop) -> Iterator[str]:
    """Scores the best checkpoint as `striate evaluate` does, writes the report, and calls the run done.

    Raises Interrupted when the sitting must end first; the next one comes here again.
    """
    run = prepared.run
    status = run.status
    if prepared.splits.val is not None:
        try:
            summary, folder = evaluate_run(
                run, index=prepared.splits.val, device=request.device, workers=request.workers, watch=stop.watching(None)
            )
        except (DataError, NonFiniteError) as error:
            yield f"Not scored: {error}"
        else:
            yield f"Best checkpoint ({run.best['checkpoint'] if run.best else 'last'}): {score.headline(summary)}"
            yield f"  {summary['protocol']}"
            for warning in summary["warnings"]:
                yield f"  Warning: {warning}"
            yield f"  {folder}"
            yield from _snapshots(prepared, request, stop)
    if request.doctor and run.recipe.optim.freeze != "classifier":
        yield from _diagnosed(run)
    run.write_status("done", status["step"], reason=status.get("reason") or "done")
    yield f"Report: {write_report(run.path)}"


def _snapshots(prepared: Prepared, request: Request, stop: Stop) -> Iterator[str]:
    """Scores the snapshots of a schedule with cycles, one by one and together."""
    run, val = prepared.run, prepared.splits.val
    if not run.snapshots or val is None:
        return
    watch = stop.watching(None)
    found, together = evaluate_snapshots(run, index=val, device=request.device, workers=request.workers, watch=watch)
    for step, (summary, _) in zip(run.snapshots, found, strict=True):
        yield f"Snapshot step-{step}: {score.headline(summary)}"
    if together is not None:
        yield f"{len(found)} snapshots together: {score.headline(together.summary)}"
        yield from together.lines()
        yield f"  {together.folder}"


def _diagnosed(run: Run) -> Iterator[str]:
    """What the doctor says of a training that has ended, kept in findings.json."""
    try:
        found = diagnosis.of_run(run)
        diagnosis.write(run, found, diagnosis.before(run))
    except Exception as error:  # the training has ended well, whatever the doctor stumbles over
        yield f"The doctor failed ({type(error).__name__}: {error})."
        return
    for finding in found:
        if finding.severity != "note":
            yield page.in_short(finding)
    if found.is_ill:
        yield f"  More: striate doctor {run.path}"


# ---------------------------------------------------------------- plan


@dataclass(frozen=True)
class Rehearsal:
    """What a training would begin with, in a run folder that goes away."""

    request: Request
    run: Run
    recipe: Recipe
    splits: Splits
    device: torch.device

    @property
    def workers(self) -> Workers:
        """Who makes batches."""
        return Workers.parse(self.request.workers)

    def forecast(self) -> Forecast:
        """What the training would take: real steps, measured for some seconds."""
        is_mirrored = self.request.mirror is not None
        return trial.forecast(self.recipe, self.run, self.splits, self.device, self.workers, is_mirrored, self.request.out)


def begun(request: Request, display: progress.Display) -> tuple[torch.device, Splits, Typed, Resolved]:
    """What the training of a request would begin with; no run is made."""
    device = machine.choose_device(request.device)
    splits, typed = _typed(request, device.type != "cpu", display)
    resolved = resolve(typed.recipe, splits, device, splits.layout.startswith(AS_THEY_LIE))
    for note in resolved.notes:
        display.say(f"  {note}")
    return device, splits, typed, resolved


@contextlib.contextmanager
def rehearsed(request: Request, what: str, display: progress.Display) -> Iterator[Rehearsal]:
    """Within the block: a training as it would begin, with its threads and flags, in a temporary folder. No run is made.

    what: the option that asks for it, for messages. Raises what training would raise before its first step.
    """
    machine.keep_freed_memory()
    with contextlib.ExitStack() as stack:
        if stack.enter_context(joined()).world > 1:
            raise UserError(f"{what} looks at one process: start it without torchrun.")
        stack.enter_context(machine.as_found())
        machine.use_threads(machine.threads_wanted())
        run = Run(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="striate-"))))
        trackers.require(request.track)
        _outside_the_data(request)
        if request.override:
            raise UserError(f"{what} looks at a training from its first step; leave out --override.")
        device, splits, typed, resolved = begun(request, display)
        if request.mirror is not None:
            mirror.check_place(request.mirror, Run(request.out / _name(request, typed)))
        _write_run(run, request, splits, typed, resolved.recipe, resolved.view.to_json(), device)
        stack.enter_context(machine.determinism(resolved.recipe.optim.deterministic))
        yield Rehearsal(request, run, resolved.recipe, splits, device)


def plan(request: Request, quiet: bool = False) -> Forecast:
    """What the training of a request would take: speed, memory, disk, hours, what holds it up, and what to change.

    Builds what training would build and takes real steps for some seconds, in a temporary folder: nothing is kept, and
    no run is made. Raises what training would raise before its first step, and ResourceError when a step finds no memory.
    """
    with progress.Display(quiet) as display, rehearsed(request, "--plan", display) as rehearsal:
        return rehearsal.forecast()


# ---------------------------------------------------------------- show


@dataclass(frozen=True)
class Shown:
    """The picture that `show` wrote: photos by key, and (key, reason) of bad ones that were passed over."""

    path: Path
    photos: tuple[str, ...]
    bad: tuple[tuple[str, str], ...]
    described: str


def show(request: Request, count: int, path: Path | None, quiet: bool = False) -> Shown:
    """Writes a picture of what the training of a request would make of `count` photos; no run is made.

    path: by default DATA-RECIPE-augmented.png in the current folder.
    Raises what training would raise before its first step, and UserError where the picture cannot stand there.
    """
    if not 1 <= count <= MOST_SHOWN:
        raise UserError(f"--rows {count}: expected 1 to {MOST_SHOWN}.")
    named = request.recipe if isinstance(request.recipe, str) else "chosen"
    path = path or Path(f"{identity.short_name(request.data)}-{Path(named).stem}-augmented.png")
    mosaic.check_place(path, request.data)
    with progress.Display(quiet) as display:
        _, splits, typed, resolved = begun(request, display)
        photos, bad = augmented.photos(splits.train, resolved.recipe, resolved.view, count)
        for key, reason in bad:
            display.say(f"  Bad, passed over: {key}: {reason}")
    described = augmented.described(resolved.recipe)
    changed = "".join(f", {name} {value}" for name, value in typed.changes.items())
    seed = resolved.recipe.optim.seed
    caption = (
        f"{request.data} · recipe {named}{changed}",
        f"Training, seed {seed}: {described}. The first {augmented.TIMES} times that each photo comes, as the network gets it.",
        f"Left, framed: as evaluated, {resolved.view.describe()}.",
    )
    mosaic.write(path, photos, caption)
    return Shown(path, tuple(photo.key for photo in photos), tuple(bad), described)

"""The doctor asked by hand: about data and a recipe before a training, about a run, about a stranger's table; and the fix.

`--fix` applies remedies one at a time. Each makes a run NAME-fix-N with a file fix.json that names its parent and what it
changed, and is examined before its first step; the first one that nothing more can be done for is trained. The data is never
touched.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from striate import machine, progress, sitting
from striate import recipe as recipes
from striate.data.loader import Workers
from striate.doctor import diagnosis, examination, preflight, table
from striate.doctor.examination import Examination
from striate.doctor.finding import Finding, Remedy
from striate.doctor.rules import batch_norm_mode
from striate.errors import BatchTooSmallError, StriateError, UserError
from striate.files import write_json
from striate.models import catalog
from striate.recipe import Recipe
from striate.recipes import catalog as named
from striate.run import identity
from striate.run.folder import Run, Typed, open_run
from striate.sitting import Request

# Seconds for an examination by hand, and remedies of one fix.
LIMIT_S, MOST_FIXES = 60.0, 6


def is_run(place: str) -> bool:
    """Whether a place is a run folder. Raises UserError for one whose recipe.json is missing, which is no data either."""
    folder = Path(place)
    if (folder / "recipe.json").is_file():
        return True
    if (folder / "log.jsonl").is_file() and (folder / "status.json").is_file():
        raise UserError(
            f"{folder}: a run folder whose recipe.json is missing. Put it back, or copy that of a run of the same recipe."
        )
    return False


def of_data(request: Request, limit_s: float = LIMIT_S, quiet: bool = False) -> Examination:
    """Examines the training of a request before its first step, in a temporary folder; no run is made.

    Raises what training would raise before its first step.
    """
    with progress.Display(quiet) as display, sitting.rehearsed(request, "doctor", display) as of:
        try:
            patient = preflight.patient(of.recipe, of.run, of.splits, of.device, of.workers, limit_s, of.forecast)
        except BatchTooSmallError as error:
            return examination.refused(batch_norm_mode.refused(error))
        return examination.before(patient)


def of_run(
    place: str | Path, limit_s: float = LIMIT_S, quiet: bool = False, *, workers: str = "auto", device: str = "auto"
) -> Examination:
    """Says what keeps a run from learning, from its records, its saved predictions and what was found before it began.

    A run that nobody looked at before its first step is looked at now, where its data is still there. Writes findings.json.
    Raises UserError when the folder holds no run, CheckpointError when its files are damaged.
    """
    run = open_run(place)
    preflight.refuse_box_head_alone(run.recipe)
    before = diagnosis.before(run)
    if before is None or not before.checked:
        with contextlib.suppress(StriateError, OSError):
            before = of_data(request_of(run, workers, device), limit_s, quiet)
            diagnosis.write(run, before, before)
    found = diagnosis.of_run(run)
    if not run.is_running():
        with contextlib.suppress(StriateError, OSError):  # a folder that cannot be written is still examined
            diagnosis.write(run, found, before)
    return found


def of_table(path: Path, classes: int | None = None) -> Examination:
    """Says what a table of epochs shows, of any framework. Raises UserError when it is no such table."""
    return examination.after(table.read(path, classes))


def request_of(run: Run, workers: str = "auto", device: str = "auto") -> Request:
    """The training of a run as it was asked for, with the workers and on the device that are named. Raises UserError for those
    that there are not."""
    Workers.parse(workers)
    machine.choose_device(device)
    typed, data = run.typed, str(run.data["path"])
    return Request(data, typed.start, dict(typed.changes), run.path.parent, run.name, workers=workers, device=device)


def named_as_run(request: Request) -> Request:
    """The request with the name that its run would have."""
    if request.name is not None:
        return request
    base = request.recipe.hash if isinstance(request.recipe, Recipe) else request.recipe or "defaults"
    recipe = _asked(request)
    typed = Typed(base, recipe, dict(request.changes or {}))
    return replace(request, name=identity.default_name(request.data, recipe.model.name, typed))


# ---------------------------------------------------------------- fix


@dataclass(frozen=True)
class Fix:
    """One remedy that was applied. parent: the run it starts from. found: the examination with it, before the first step.

    exit_code: of its training; None where it was not trained, as more remedies were at hand.
    """

    run: Path
    parent: str
    finding: str
    advice: str
    changes: Mapping[str, Any]
    found: Examination
    exit_code: int | None

    def to_json(self) -> dict[str, Any]:
        """As fix.json holds it, without the examination, which is in findings.json."""
        return {
            "parent": self.parent,
            "finding": self.finding,
            "advice": self.advice,
            "changes": dict(self.changes),
            "trained": self.exit_code is not None,
        }


def fix(
    request: Request, found: Examination, limit_s: float = LIMIT_S, quiet: bool = False, keep: Set[str] = frozenset()
) -> Iterator[Fix]:
    """Applies remedies one at a time, each on top of the one before, until nothing more is found; then trains.

    request: the parent, with its name. found: its examination. keep: fields that no remedy may change. Yields each remedy when it
    was examined, the last one when it was trained. Raises UserError when no finding has a remedy that a recipe can express, and
    what training raises.
    """
    root = re.sub(r"-fix-\d+$", "", request.name or "run")
    parent, tried = request.name or root, dict(request.changes or {})
    touched = set(keep)
    remedy = next_remedy(found, request, touched)
    if remedy is None:
        raise UserError(f"{parent}: no finding has a remedy that a recipe can express; read the advice of `striate doctor`.")
    for count in range(1, MOST_FIXES + 1):
        finding, change = remedy
        tried = applied(tried, change)
        touched |= change.changes.keys()
        name = _next_name(request.out, root)
        fixing = replace(request, changes=tried, name=name, new=False)
        found = of_data(fixing, limit_s, quiet=True)
        remedy = next_remedy(found, fixing, touched) if count < MOST_FIXES else None
        made = Fix(request.out / name, parent, finding.code, change.advice, change.changes, found, None)
        if remedy is not None:
            _keep(fixing, made)
            yield made
        else:
            _keep(fixing, made)
            _, exit_code = sitting.sit(fixing, quiet)
            made = replace(made, exit_code=exit_code)
            write_json(made.run / "fix.json", made.to_json())
            yield made
            return
        parent = name


def next_remedy(found: Examination, request: Request, touched: Set[str]) -> tuple[Finding, Remedy] | None:
    """The first remedy of the first finding that a recipe can express and that changes something.

    touched: fields that a fix changed already; none is changed twice, or a finding that stays would drive it on and on.
    """
    now = _asked(request)
    for finding in found:
        if finding.severity == "note":
            continue
        for remedy in finding.remedies:
            new = {name for name, value in remedy.changes.items() if recipes.get(now, name) != value}
            if new and not new & touched:
                return finding, remedy
    return None


def applied(changes: Mapping[str, Any], remedy: Remedy) -> dict[str, Any]:
    """Changes with those of a remedy on top; options that another network does not have are left behind."""
    merged = {**changes, **remedy.changes}
    name = remedy.changes.get("model.name")
    if name is None:
        return merged
    known = catalog.option_names(name)
    return {
        field: value
        for field, value in merged.items()
        if not field.startswith("model.options.") or field.removeprefix("model.options.") in known
    }


def _asked(request: Request) -> Recipe:
    """The recipe of a request, "auto" still in it."""
    if isinstance(request.recipe, Recipe):
        base = request.recipe
    else:
        base = named.find(request.recipe) if request.recipe is not None else Recipe()
    return recipes.change(base, dict(request.changes or {}))


def _next_name(out: Path, root: str) -> str:
    taken = [
        int(match[1]) for path in out.glob(f"{root}-fix-*") if (match := re.fullmatch(rf"{re.escape(root)}-fix-(\d+)", path.name))
    ]
    return f"{root}-fix-{max(taken, default=0) + 1}"


def _keep(request: Request, made: Fix) -> None:
    """Makes the run's folder, with its recipe, what it changed and what was found."""
    with contextlib.ExitStack() as stack, progress.Display(True) as display:
        prepared = sitting.prepare(request, display, stack)
        diagnosis.write(prepared.run, made.found, made.found)
        write_json(prepared.run.path / "fix.json", made.to_json())

"""Several trainings of one recipe that differ in their seed, and what their networks say together: `train --members`.

Each member is a run of its own, NAME-1 to NAME-M, which is resumed, evaluated and reported as any run is. With data.sampling
bootstrap each sees its own bootstrap sample, which makes it bagging.
Source: Breiman 1996 (bagging); Lakshminarayanan et al. 2017, section 2.4 (seeds alone).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from striate import recipe as recipes
from striate import sitting
from striate.consultation import named_as_run
from striate.errors import DONE, UserError
from striate.evaluate.saved import Saved, open_saved
from striate.evaluate.score import headline
from striate.evaluate.together import Combined, combined
from striate.files import read_json
from striate.recipe import Recipe
from striate.recipes import catalog
from striate.run.folder import Run
from striate.sitting import Request

MOST = 100


@dataclass(frozen=True, eq=False)
class Trained:
    """What came of it. exit_code: 0 where all members are trained, 75 where the same command goes on. together: None until then,
    and for data without validation images."""

    runs: tuple[Run, ...]
    exit_code: int
    together: Combined | None

    def lines(self) -> Iterator[str]:
        """For people."""
        if self.together is not None:
            yield f"{len(self.runs)} members together: {headline(self.together.summary)}"
            yield from self.together.lines()
            yield f"  {self.together.folder}"


def requests(request: Request, members: int) -> list[Request]:
    """One request for each member: the recipe's seed, and from there on each whole number.

    Raises UserError for fewer than two members, or more than 100.
    """
    if not 2 <= members <= MOST:
        raise UserError(f"--members {members}: expected 2 to {MOST}.")
    name = named_as_run(request).name
    seed = recipes.change(_base(request), dict(request.changes or {})).optim.seed
    return [
        replace(request, name=f"{name}-{number + 1}", changes={**(request.changes or {}), "optim.seed": seed + number})
        for number in range(members)
    ]


def sit(request: Request, members: int, quiet: bool = False, began: float | None = None) -> Trained:
    """Trains the members one after the other, or goes on where the same call stopped; then scores their mean.

    `request.stop_after` holds for all of them together.
    """
    began = time.monotonic() if began is None else began
    limit_s = recipes.seconds(request.stop_after) if request.stop_after else None
    runs: list[Run] = []
    for one in requests(request, members):
        left_s = None if limit_s is None else limit_s - (time.monotonic() - began)
        if left_s is not None:
            one = replace(one, stop_after=f"{max(1.0, left_s):.0f}s")
        run, exit_code = sitting.sit(one, quiet, None if runs else began)
        runs.append(run)
        if exit_code != DONE:
            return Trained(tuple(runs), exit_code, None)
    found = [evaluation for run in runs if (evaluation := _evaluation(run)) is not None]
    return Trained(tuple(runs), DONE, combined(found, "arithmetic") if len(found) == len(runs) else None)


def _base(request: Request) -> Recipe:
    if isinstance(request.recipe, Recipe):
        return request.recipe
    return catalog.find(request.recipe) if request.recipe is not None else Recipe()


def _evaluation(run: Run) -> Saved | None:
    """The evaluation that the training ended with: its best checkpoint, looked at once; None where there is none."""
    best = run.best
    for path in sorted((run.path / "evaluation").glob("val-center-*"), key=_written, reverse=True):
        summary = path / "summary.json"
        if best is not None and summary.is_file() and read_json(summary).get("checkpoint") == best["checkpoint"]:
            return open_saved(path)
    return None


def _written(path: Path) -> float:
    return path.stat().st_mtime

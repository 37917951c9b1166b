"""Every published recipe, at reduced size: it starts, is stopped half-way, and ends as if it had not been.

    python benchmarks/recipes.py [--only NAME ...] [--steps 20] [--write FILE.json]

For each recipe two real `striate train builtin` runs: one left alone for 20 steps, and one that gets a SIGTERM at step 10,
exits 75, and is started again. Both must end with the same last checkpoint, bit for bit (weights, BatchNorm's statistics,
optimiser, EMA, and the JSON state but for the clock), and with the same losses, rates and scores in the log.

Reduced, for all: images of 64 px (32 for all-cnn-2014, which is CIFAR's), 8 images a batch, the learning rate in
proportion to that (its linear scaling, where the recipe has none of its own). Networks, optimisers, schedules and
augmentation stay as published, a crop's shorter side apart. A first and a last loss say that numbers went through; that a
recipe learns is not shown by 20 steps.

Exit code 0 only when all of them did all of it.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STEPS = 20
BATCH_SIZE = 8
SIZE_PX = {"all-cnn-2014": 32}
SITTING_LIMIT_S = 900.0


@dataclass
class Result:
    """What was found of one recipe. differences: of the stopped run to the one left alone, in words; empty is good."""

    recipe: str
    network: str
    parameters: int
    size_px: int
    batch_size: int
    precision: str
    first_loss: float
    last_loss: float
    heads: list[str]
    stopped_at: int
    differences: list[str]
    seconds: float

    @property
    def is_good(self) -> bool:
        """Whether it ran to its end with finite losses, and went on where it was stopped to the same end."""
        return not self.differences and math.isfinite(self.first_loss) and math.isfinite(self.last_loss)


def reduced(name: str) -> dict[str, Any]:
    """What is changed in a recipe to make it small, as {"group.field": value}."""
    from striate.recipes import catalog

    recipe = catalog.find(name)
    changes: dict[str, Any] = {
        "data.size_px": SIZE_PX.get(name, 64),
        "data.shrink_px": 0,
        "data.resident": "no",
        "optim.batch_size": BATCH_SIZE,
        "optim.accumulate": 1,
        "budget.steps": STEPS,
        "budget.log_every": 1,
    }
    if recipe.augment.shorter_px != (0, 0):
        least, most = (round(side * changes["data.size_px"] / recipe.data.size_px) for side in recipe.augment.shorter_px)
        changes["augment.shorter_px"] = (max(least, changes["data.size_px"]), most)
    if recipe.optim.lr_scaling == "none":
        changes |= {"optim.lr_scaling": "linear", "optim.lr_batch_size": recipe.optim.batch_size}
    return changes


def check(name: str, home: Path, steps: int) -> Result:
    """Runs a recipe twice, once with a stop. home: an empty folder. Raises RuntimeError when a sitting ends as it should not."""
    from striate.run.folder import Run

    began = time.monotonic()
    whole, cut = home / "whole", home / "cut"
    _sit(name, whole, steps, None)
    _sit(name, cut, steps, steps // 2)
    stopped_at = Run(cut).status["step"]
    if not 0 < stopped_at < steps:
        raise RuntimeError(f"{name}: stopped at step {stopped_at}, which is not half-way.")
    _sit(name, cut, steps, None)
    records = Run(whole).log()
    start = next(record for record in records if record["kind"] == "start")
    taken = [record for record in records if record["kind"] == "step"]
    recipe = Run(whole).recipe
    return Result(
        name,
        recipe.model.name,
        start["parameters"],
        recipe.data.size_px,
        recipe.optim.batch_size,
        recipe.optim.precision,
        taken[0]["loss"],
        taken[-1]["loss"],
        list(taken[0]["losses"]),
        stopped_at,
        list(_differences(whole, cut)),
        time.monotonic() - began,
    )


def _sit(name: str, folder: Path, steps: int, stop_at: int | None) -> None:
    """One sitting; at step `stop_at` it gets a SIGTERM, and must then exit with 75, else with 0."""
    command = [sys.executable, "-m", "striate", "train", "builtin", "--recipe", name, "--device", "cpu", "--workers", "2"]
    command += ["--out", str(folder.parent), "--name", folder.name]
    for field, value in {**reduced(name), "budget.steps": steps}.items():
        command += [f"--{field.replace('_', '-')}", *map(str, value if isinstance(value, tuple) else (value,))]
    source = str(Path(__file__).resolve().parent.parent / "src")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (source, os.environ.get("PYTHONPATH"))))}
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, env=environment)
        deadline = time.monotonic() + SITTING_LIMIT_S
        is_stopped = False
        while process.poll() is None and time.monotonic() < deadline:
            if stop_at is not None and not is_stopped and _steps_in(folder / "log.jsonl") >= stop_at:
                process.send_signal(signal.SIGTERM)
                is_stopped = True
            time.sleep(0.005)
        if process.poll() is None:
            process.kill()
        code = process.wait()
        if code != (0 if stop_at is None else 75):
            said.seek(0)
            raise RuntimeError(f"{name}: exit code {code}\n" + said.read().decode(errors="replace")[-2000:])


def _steps_in(log: Path) -> int:
    """How many steps a log tells of."""
    try:
        return log.read_bytes().count(b'"kind": "step"')
    except FileNotFoundError:
        return 0


def _differences(whole: Path, cut: Path) -> Iterator[str]:
    """What differs at the end of two runs, in words."""
    import torch

    from striate.run import checkpoint
    from striate.run.folder import Run

    ends = [checkpoint.newest(folder / "checkpoints")[0] for folder in (whole, cut)]
    assert ends[0] is not None and ends[1] is not None
    for part in ("model", "optimizer", "ema"):
        ours, theirs = (getattr(end, part) or {} for end in ends)
        for key in sorted({*ours, *theirs}):
            if key not in ours or key not in theirs or not torch.equal(ours[key], theirs[key]):
                yield f"{part} {key}"
    for key in sorted({*ends[0].state, *ends[1].state} - {"elapsed_s", "pace"}):
        if ends[0].state.get(key) != ends[1].state.get(key):
            yield f"state {key}"
    facts = ("kind", "step", "loss", "losses", "lr", "gradient_norm", "top1", "split", "weights")
    logs = [
        [{fact: record.get(fact) for fact in facts} for record in Run(folder).log() if record["kind"] in {"step", "evaluation"}]
        for folder in (whole, cut)
    ]
    if logs[0] != logs[1]:
        yield "log"


def main() -> int:
    """The command."""
    from striate.recipes import catalog

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=sorted(catalog.RECIPES), help="these recipes; all if not given")
    parser.add_argument("--steps", type=int, default=STEPS, help="optimiser steps of each run")
    parser.add_argument("--write", type=Path, help="a JSON file for the result")
    given = parser.parse_args()
    results: list[Result] = []
    failed: list[str] = []
    for name in given.only or catalog.RECIPES:
        with tempfile.TemporaryDirectory(prefix="recipes-") as home:
            try:
                found = check(name, Path(home), given.steps)
            except RuntimeError as error:
                failed.append(str(error))
                print(f"{name:<24} FAILED: {error}", flush=True)
                continue
        results.append(found)
        print(
            f"{name:<24} {found.network:<20} {found.parameters:>11,} parameters  {found.size_px} px  loss {found.first_loss:.4f} "
            f"to {found.last_loss:.4f}  heads {len(found.heads)}  stopped at {found.stopped_at}, "
            + ("the same end" if not found.differences else f"NOT THE SAME: {', '.join(found.differences[:3])}")
            + f"  {found.seconds:.0f} s",
            flush=True,
        )
    is_good = not failed and all(one.is_good for one in results)
    print(f"{len(results)} recipes, {sum(one.is_good for one in results)} good, {len(failed)} failed")
    if given.write:
        import torch

        from striate import machine

        facts = {
            "command": " ".join(["python", *sys.argv]),
            "date": datetime.date.today().isoformat(),
            "data": "builtin",
            "steps": given.steps,
            "environment": machine.describe(torch.device("cpu")),
            "good": is_good,
            "failed": failed,
            "each": [dataclasses.asdict(one) for one in results],
        }
        given.write.parent.mkdir(parents=True, exist_ok=True)
        given.write.write_text(json.dumps(facts, indent=2) + "\n")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())

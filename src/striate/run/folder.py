"""Run: the folder `runs/NAME/` and what lies where in it.

recipe.json (resolved, valid as an input), classes.json, view.json, data.json, environment.json, log.jsonl,
status.json, index-train.parquet and index-val.parquet (which images, to tell what changed), best.json,
checkpoints/step-N/, evaluation/SPLIT-VIEWS-HASH6/, plots/, report.html.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from striate import recipe as recipes
from striate.classes import Classes
from striate.data.index import Index
from striate.errors import CheckpointError, UserError
from striate.files import read_json, write_json
from striate.models import catalog, grey, heads, weights
from striate.recipe import Recipe
from striate.run import checkpoint, lock, log
from striate.run.checkpoint import Checkpoint
from striate.view import View

# The trained weights as they are, or one of their averages.
WeightsName = Literal["raw", "EMA", "SWA"]

# What the preparation writes, in this order: the recipe makes a folder a run, so it comes after what a run needs.
PREPARED = (
    "classes.json",
    "view.json",
    "data.json",
    "environment.json",
    "index-train.parquet",
    "index-val.parquet",
    "recipe.json",
)


@dataclass(frozen=True)
class Typed:
    """What the user asked for, before anything was resolved: what makes two commands the same run.

    base: name of the recipe it starts from, a file's hash, or "chosen". start: that recipe, kept so that a later
    version of the name changes nothing for this run. changes: {"group.field": value}.
    """

    base: str
    start: Recipe
    changes: dict[str, Any]

    @property
    def recipe(self) -> Recipe:
        """What was asked for: the start with the changes, "auto" still in it."""
        return recipes.change(self.start, self.changes)


@dataclass(frozen=True)
class Run:
    """A run folder. Holds no open file and no state: every property reads the disk."""

    path: Path

    def __repr__(self) -> str:
        """The run in one line, as a cell of a notebook shows it."""
        try:
            status, best = self.status, self.best
        except CheckpointError as error:
            return f"Run({str(self.path)!r}: {error})"
        scored = f", best top-1 {best['top1']:.2%} ({best['weights']}, step {best['step']:,})" if best and "top1" in best else ""
        return f"Run({str(self.path)!r}: {status['state']} at step {status['step']:,}{scored})"

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints are."""
        return self.path / "checkpoints"

    @property
    def recipe(self) -> Recipe:
        """The resolved recipe."""
        return recipes.read(self.path / "recipe.json")

    @property
    def typed(self) -> Typed:
        """What the user asked for when the run was made."""
        plain = self._table("recipe.json").get("_typed")
        if not isinstance(plain, dict) or not {"base", "changes", "start"} <= plain.keys():
            raise CheckpointError(f"{self.path / 'recipe.json'}: the part '_typed' is missing, so this run cannot be resumed.")
        return Typed(plain["base"], recipes.from_plain(plain["start"], str(self.path / "recipe.json")), plain["changes"])

    @property
    def classes(self) -> Classes:
        """The classes, in the order of the network's outputs."""
        return Classes.read(self.path / "classes.json")

    @property
    def view(self) -> View:
        """How the network's pixels are made from a photo."""
        return View.from_json(self._table("view.json"))

    @property
    def data(self) -> dict[str, Any]:
        """data.json: path, layout, notes, splits (images, root, fingerprint, boxes)."""
        return self._table("data.json", "path", "splits")

    @property
    def best(self) -> dict[str, Any] | None:
        """best.json: step, top1, weights (raw or EMA), checkpoint name; None before the first evaluation."""
        return self._table("best.json", "step", "checkpoint") if (self.path / "best.json").exists() else None

    @property
    def snapshots(self) -> tuple[int, ...]:
        """Steps at which the cycles of the schedule ended so far, whose checkpoints stay; empty for other schedules."""
        steps = checkpoint.steps_in(self.checkpoints)
        if not steps:
            return ()
        state = read_json(self.checkpoints / f"step-{steps[0]}" / "state.json")
        return tuple(state.get("snapshots", ()))

    @property
    def status(self) -> dict[str, Any]:
        """status.json: state (running, saved, trained, done, failed), step, reason."""
        return (
            self._table("status.json", "state", "step") if (self.path / "status.json").exists() else {"state": "new", "step": 0}
        )

    def _table(self, name: str, *needed: str) -> dict[str, Any]:
        """A JSON file of the run. Raises CheckpointError when it is damaged or lacks one of the fields needed."""
        try:
            plain = read_json(self.path / name)
        except UserError as error:
            raise CheckpointError(str(error)) from error
        if not isinstance(plain, dict) or not all(field in plain for field in needed):
            raise CheckpointError(
                f"{self.path / name}: damaged; expected a table" + (f" with {', '.join(needed)}." if needed else ".")
            )
        return plain

    def log(self) -> list[dict[str, Any]]:
        """The records that count (see `log.read`)."""
        return log.read(self.path / "log.jsonl")

    def index(self, split: str) -> Index | None:
        """The images of a split as they were when the run began; None when there is no such split."""
        path = self.path / f"index-{split}.parquet"
        return Index.read(path, Path(self.data["splits"][split]["root"])) if path.exists() else None

    def write(self, typed: Typed, resolved: Recipe) -> None:
        """Writes recipe.json: the resolved recipe with what was typed beside it."""
        plain = recipes.to_plain(resolved)
        plain["_typed"] = {"base": typed.base, "changes": typed.changes, "start": recipes.to_plain(typed.start)}
        write_json(self.path / "recipe.json", plain)

    def write_status(self, state: str, step: int, **facts: Any) -> None:
        """Replaces status.json."""
        write_json(self.path / "status.json", {"state": state, "step": step, **facts})

    def is_running(self) -> bool:
        """Whether a living process trains in it."""
        return lock.is_locked(self.path)

    def checkpoint(self, which: Literal["best", "last"] | str = "best") -> Checkpoint:
        """A verified checkpoint: "best" (the last where nothing was evaluated), "last", or "step-N".

        Raises CheckpointError when it is missing or damaged; the message lists what there is.
        """
        best = self.best
        if which == "best" and best is not None:
            which = best["checkpoint"]
        if which in {"best", "last"}:
            found, _ = checkpoint.newest(self.checkpoints)
            if found is None:
                raise CheckpointError(f"{self.checkpoints}: no checkpoint yet. Train first: the run saves every few minutes.")
            return found
        path = self.checkpoints / which
        if not path.is_dir():
            there = ", ".join(f"step-{step}" for step in checkpoint.steps_in(self.checkpoints)) or "none"
            raise CheckpointError(f"{path}: no such checkpoint. There are: {there}.")
        return checkpoint.read(path)

    def model(self, which: str = "best", raw: bool = False) -> tuple[torch.nn.Module, WeightsName, Checkpoint]:
        """The trained network in evaluation mode on the CPU, which weights it holds, and the checkpoint that they are from."""
        found = self.checkpoint(which)
        model = build_model(self.recipe, len(self.classes.ids))
        use_ema = found.ema is not None and not raw
        weights.put(model, found.ema if use_ema and found.ema is not None else found.model, str(found.path), found.variant)
        return model.eval(), averaging(self.recipe) if use_ema else "raw", found


def averaging(recipe: Recipe) -> Literal["EMA", "SWA"]:
    """What the averaged weights of a training are called, which ema.safetensors holds."""
    return "SWA" if recipe.optim.swa_from > 0 else "EMA"


def build_model(recipe: Recipe, class_count: int) -> torch.nn.Module:
    """The network that a resolved recipe names, freshly initialised, with its box head if it is to have one."""
    return with_box_head(build_classifier(recipe, class_count), recipe, class_count)


def with_box_head(model: torch.nn.Module, recipe: Recipe, class_count: int) -> torch.nn.Module:
    """The network with the box head that the recipe asks for, or as it is. Raises UserError where it has no grid of features."""
    m, d = recipe.model, recipe.data
    if m.boxes == "none":
        return model
    return heads.with_boxes(model, m.boxes, class_count, d.size_px, 1 if d.colour == "grey" else 3, m.name)


def build_classifier(recipe: Recipe, class_count: int) -> torch.nn.Module:
    """The network that a resolved recipe names, freshly initialised, without a box head."""
    options = dict(recipe.model.options)
    if "size_px" in catalog.option_names(recipe.model.name):
        options.setdefault("size_px", recipe.data.size_px)  # networks with a flattened grid need the input's side
    if "in_channels" in catalog.option_names(recipe.model.name):
        options.setdefault("in_channels", 1 if recipe.data.colour == "grey" else 3)  # LeNet's paper has grey images
    model = catalog.build(recipe.model.name, class_count, options)
    return grey.one_channel(model, recipe.model.name) if recipe.data.colour == "grey" else model


def open_run(path: str | Path) -> Run:
    """The run in a folder. Raises UserError when the folder holds none."""
    folder = Path(path)
    if not folder.exists():
        raise UserError(f"{folder}: no such run. Runs lie in runs/NAME unless --out said otherwise.")
    if not folder.is_dir() or not (folder / "recipe.json").is_file():
        raise UserError(
            f"{folder}: not a run folder (it has no recipe.json). Give the folder that `striate train` wrote, such as runs/NAME."
        )
    return Run(folder)

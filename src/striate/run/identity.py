"""Which run a command means: its name, and whether an existing folder is that run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from striate import recipe as recipes
from striate.errors import UserError
from striate.files import refuse, sha256_bytes
from striate.run.checkpoint import steps_in
from striate.run.folder import PREPARED, Run, Typed, open_run

# What the preparation of a run writes before recipe.json.
BEGUN = {"lock", *PREPARED, "checkpoints"} - {"recipe.json"}


def default_name(data: str, model: str, typed: Typed) -> str:
    """Data, model and six hex digits of the recipe as typed, so that the same command finds its own run."""
    digest = sha256_bytes(json.dumps([typed.base, typed.changes], sort_keys=True, default=str).encode())[:6]
    return "-".join(filter(None, (short_name(data), _plain(model.rpartition(":")[2]), digest)))


def short_name(data: str) -> str:
    """DATA as part of a name: its last folder or file."""
    return _plain(data if data == "builtin" else Path(data).resolve().name)


def _plain(text: str) -> str:
    """`text` as part of a folder's name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")[:60]


def make_folder(out: Path, name: str, fresh: bool) -> tuple[Run, bool]:
    """The run folder OUT/NAME, and whether it holds a run already.

    fresh: start beside an existing run, as NAME-2, NAME-3, …
    Raises UserError when the place is a file, cannot be written, or is a folder of something else.
    """
    if not name or name in {".", ".."} or "/" in name or "\0" in name:
        raise UserError(f"--name '{name}': a run's name is one folder name, without '/'.")
    path = out / name
    number = 2
    while fresh and path.exists():
        path = out / f"{name}-{number}"
        number += 1
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".probe-{number}"
        probe.touch()
        probe.unlink()
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"{path}: is a file, or lies below one; a run needs a folder. Choose another --out or --name.") from error
    except OSError as error:
        raise refuse(error, path, "making the run folder") from error
    if (path / "recipe.json").exists():
        return open_run(path), True
    # A kill during the preparation leaves a run without its recipe.json, which comes last: the preparation begins again.
    foreign = [entry.name for entry in path.iterdir() if entry.name not in BEGUN and not entry.name.startswith(".")]
    foreign += [f"checkpoints/step-{step}" for step in steps_in(path / "checkpoints")]
    if foreign:
        raise UserError(
            f"{path}: holds other things ({', '.join(sorted(foreign)[:3])}) and no run. Choose another --name or --out."
        )
    return Run(path), False


def reconcile(run: Run, typed: Typed, override: tuple[str, ...]) -> dict[str, tuple[Any, Any]]:
    """Differences between an existing run's recipe and the one typed now that `override` accepts.

    Returns {"group.field": (old, new)}, empty for the same recipe.
    Raises UserError with a table of the differences that were not accepted.
    """
    accepted = {recipes.full_name(name) for name in override}
    found = recipes.differences(run.typed.recipe, typed.recipe)
    refused = {name: values for name, values in found.items() if name not in accepted}
    # Asking for a longer budget in another unit changes two fields at once; accepting one accepts the pair.
    budget = {"budget.epochs", "budget.steps", "budget.time"}
    if accepted & budget:
        refused = {name: values for name, values in refused.items() if name not in budget}
    if refused:
        width = max(map(len, refused))
        table = "\n".join(f"  {name:<{width}}  {_shown(old)} → {_shown(new)}" for name, (old, new) in refused.items())
        flags = " ".join(f"--override {name}" for name in refused)
        raise UserError(
            f"{run.path}: this run exists with another recipe. Differences (run → typed now):\n{table}\n"
            f"Take another --name, start beside it with --new, or accept each difference: {flags}"
        )
    return found


def _shown(value: Any) -> str:
    return "none" if value is None else str(value)

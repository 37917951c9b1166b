"""Which runs there are and how each stands, from their small files alone: no weight is read and no hash is made.

It answers for hundreds of runs at once, and loads no torch.
"""

from __future__ import annotations

import json
import mmap
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from striate.errors import DONE, UserError
from striate.files import read_json
from striate.recipe import seconds
from striate.run.lock import is_locked

State = Literal["running", "saved", "done", "broken"]
_END_BYTES = 64 * 1024  # read of either end of a log; a record has some thousand
GOES_ON = "the same command goes on"


@dataclass(frozen=True)
class Listed:
    """One run. reason: why it is saved, broken or done early, and what to do. None: not known, or not yet.

    share: of the training that is done, 0..1. left_s: seconds to the end, of a running one. top1: of the best evaluation, of
    `split` with `weights`; top1_interval: 95 %. changed_s: last change, seconds since 1970. size_bytes: of all files.
    """

    name: str
    state: State
    reason: str = ""
    step: int | None = None
    total_steps: int | None = None
    epoch: float | None = None
    share: float | None = None
    left_s: float | None = None
    top1: float | None = None
    top1_interval: tuple[float, float] | None = None
    split: str = ""
    weights: str = ""
    model: str = ""
    data: str = ""
    changed_s: float = 0.0
    size_bytes: int = 0


def listing(folder: Path) -> tuple[list[Listed], int]:
    """The runs in a folder, or the run that the folder is; the last changed first. Also how many other folders lie there.

    A damaged run is listed as broken, with what is damaged. Raises UserError when there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder. Runs lie in runs/ unless --out said otherwise: striate runs FOLDER")
    if os.path.isfile(folder / "recipe.json"):
        return [_listed(folder)], 0
    inner = [place for place in folder.iterdir() if not place.name.startswith(".") and os.path.isdir(place)]
    found = [_listed(place) for place in inner if os.path.isfile(place / "recipe.json")]
    return sorted(found, key=lambda one: (-one.changed_s, one.name)), len(inner) - len(found)


def _listed(folder: Path) -> Listed:
    name = folder.resolve().name
    changed_s = max((_changed_s(folder / name) for name in ("status.json", "log.jsonl", "recipe.json")), default=0.0)
    size_bytes = _size_bytes(folder)
    try:
        facts = _facts(folder)
    except (UserError, OSError, ValueError, TypeError, KeyError) as error:
        words = str(error) if isinstance(error, UserError) else f"{folder}: cannot be read ({type(error).__name__}: {error})"
        facts = {"state": "broken", "reason": words}
    return Listed(name, changed_s=changed_s, size_bytes=size_bytes, **facts)


def _changed_s(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _size_bytes(folder: Path) -> int:
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_size
            except OSError:  # taken away just now: a checkpoint that a newer one replaces
                continue
    return total


def _facts(folder: Path) -> dict[str, Any]:
    """All that a run's files say. What is damaged and needed raises; a number that is missing stays None."""
    recipe = _table(folder / "recipe.json")
    status: dict[str, Any] = {"state": "new", "step": 0}
    if (folder / "status.json").exists():
        status |= _table(folder / "status.json")
    data = _table(folder / "data.json") if (folder / "data.json").exists() else {}
    facts: dict[str, Any] = {"model": str(recipe["model"]["name"]), "data": Path(str(data.get("path", ""))).name}
    facts |= _best(folder)
    is_running = is_locked(folder)
    at, complaint = _newest(folder)
    state, reason = ("running", "") if is_running else _state(folder, status, at, complaint)
    # A status that says "running" is as old as its sitting; a run that was killed stands at its checkpoint.
    step = at or 0 if status["state"] == "running" else int(status["step"])
    ends = _ends(folder / "log.jsonl")
    if state == "done":
        reason = _early(ends[1])
    return facts | _progress(ends, recipe["budget"], step, is_running) | {"state": state, "reason": reason}


def _table(path: Path) -> dict[str, Any]:
    plain = read_json(path)
    if not isinstance(plain, dict):
        raise UserError(f"{path}: damaged; expected a table.")
    return plain


def _state(folder: Path, status: dict[str, Any], at: int | None, complaint: str) -> tuple[State, str]:
    """How a run stands that no process trains, and why. at, complaint: see `_newest`."""
    state, reason = status["state"], str(status.get("reason") or "")
    if state == "failed":
        return "broken", reason
    if state in {"new", "running"}:
        place = f"{GOES_ON} from step {at:,}" if at is not None else "the same command begins again"
        return "broken", f"killed; {place}" + (f" ({complaint})" if complaint else "")
    if at is None:
        return "broken", complaint or "no checkpoint"
    if state == "done":
        best = _table(folder / "best.json").get("checkpoint") if (folder / "best.json").exists() else None
        damage = _damage(folder / "checkpoints" / best) if isinstance(best, str) else ""
        return ("broken", damage) if damage else ("done", "")
    words = "trained, not scored yet" if state == "trained" else reason or "stopped"
    return "saved", f"{words}; {GOES_ON}"


def _newest(folder: Path) -> tuple[int | None, str]:
    """Step of the newest checkpoint that is complete by its manifest, and what is wrong with those after it."""
    place = folder / "checkpoints"
    complaints: list[str] = []
    names = os.listdir(place) if place.is_dir() else []
    steps = sorted((int(match[1]) for match in (re.fullmatch(r"step-(\d+)", name) for name in names) if match), reverse=True)
    for step in steps:
        damage = _damage(place / f"step-{step}")
        if not damage:
            return step, "; ".join(complaints)
        complaints.append(damage)
    return None, "; ".join(complaints)


def _damage(checkpoint: Path) -> str:
    """What a look at names and sizes shows to be wrong with a checkpoint; empty when nothing is."""
    if not checkpoint.is_dir():
        return f"{checkpoint.name} is missing"
    try:
        files = _table(checkpoint / "manifest.json")["files"]
        for name, wanted in files.items():
            size = (checkpoint / name).stat().st_size
            if size != wanted["bytes"]:
                return f"{checkpoint.name}/{name} has {size:,} bytes instead of {wanted['bytes']:,}"
    except FileNotFoundError as error:
        return f"{checkpoint.name}/{Path(error.filename).name} is missing"
    except (UserError, OSError, ValueError, TypeError, KeyError, AttributeError):
        return f"{checkpoint.name}/manifest.json is damaged or missing"
    return ""


# ---------------------------------------------------------------- the log


def _early(last: list[dict[str, Any]]) -> str:
    """Why a training that is done ended before its budget did; empty where it did not."""
    end: dict[str, Any] = next((line for line in reversed(last) if line["kind"] == "end"), {})
    reason = str(end.get("reason") or "done")
    return "" if reason == "done" or end.get("exit_code") != DONE else f"ended early: {reason}"


def _progress(
    ends: tuple[list[dict[str, Any]], list[dict[str, Any]]], budget: dict[str, Any], step: int, is_running: bool
) -> dict[str, Any]:
    """Where the training stands, from both ends of its log."""
    first, last = ends
    start: dict[str, Any] = next((line for line in first if line["kind"] == "start"), {})
    told: dict[str, Any] = next((line for line in reversed(last) if line["kind"] == "step"), {})
    if is_running and last:
        step = last[-1]["step"]
    total = told.get("total_steps") or start.get("total_steps")
    per_epoch, elapsed_s = start.get("steps_per_epoch"), told.get("elapsed_s")
    share = left_s = None
    if budget.get("time") is not None and elapsed_s is not None:
        whole_s = seconds(budget["time"])
        share, left_s = min(1.0, elapsed_s / whole_s), max(0.0, whole_s - elapsed_s)
        share = 1.0 if total == step else share
    elif total:
        share = min(1.0, step / total)
        left_s = elapsed_s / told["step"] * max(0, total - step) if elapsed_s and told["step"] else None
    return {
        "step": step,
        "total_steps": total,
        "epoch": step / per_epoch if per_epoch else None,
        "share": share,
        "left_s": left_s if is_running else None,
    }


def _ends(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The whole records within the first and the last bytes of a log."""
    try:
        with open(path, "rb") as file:
            head = file.read(_END_BYTES)
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - _END_BYTES))
            tail = file.read(_END_BYTES)
    except FileNotFoundError:
        return [], []
    return _records(head), _records(tail)


def _records(part: bytes) -> list[dict[str, Any]]:
    """The records among some lines; those that are cut are passed over, as in `log.read`."""
    found = []
    for line in part.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and "kind" in record and type(record.get("step")) is int:
            found.append(record)
    return found


# ---------------------------------------------------------------- the best score


def _best(folder: Path) -> dict[str, Any]:
    """The best evaluation: as `striate evaluate` scored that checkpoint, else as the training did."""
    path = folder / "best.json"
    if not path.exists():
        return {}
    best = _table(path)
    found = {"top1": best["top1"], "split": str(best.get("split", "")), "weights": str(best.get("weights", ""))}
    scores = [_table(place) for place in folder.glob(f"evaluation/{found['split']}-center-*/summary.json")]
    same = [one for one in scores if all(one.get(key) == best.get(key) for key in ("checkpoint", "split", "weights"))]
    record = same[0] if same else _evaluation(folder / "log.jsonl", best)
    if record and isinstance(record.get("top1_interval"), list):
        found |= {"top1": record["top1"], "top1_interval": tuple(record["top1_interval"])}
    return found


def _evaluation(path: Path, best: dict[str, Any]) -> dict[str, Any]:
    """The log's record of the best evaluation, sought from its end; empty where there is none."""
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            end = len(text)
            while (place := text.rfind(b'{"kind": "evaluation", "step": %d,' % best["step"], 0, end)) >= 0:
                stop = text.find(b"\n", place)
                for record in _records(text[place : stop if stop >= 0 else len(text)]):
                    if all(record.get(key) == best.get(key) for key in ("split", "weights")):
                        return record
                end = place
    except (FileNotFoundError, ValueError):  # no log, or an empty one
        return {}
    return {}

"""Checkpoints: written whole or not at all, checked by hash before anyone believes them.

A checkpoint is a folder `step-N` of safetensors and JSON files with a manifest of sizes and SHA-256.
Order of writing: a folder with a temporary name, each file and its fsync, the manifest and its fsync,
fsync of the folder, rename, fsync of the parent. So `step-N` exists only when all of it is on the disk.
Pickle is never read.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from striate.errors import CheckpointError, ResourceError
from striate.files import free_bytes, refuse, sha256_bytes, sync_folder, to_json, write_synced

FORMAT = 1
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as read: verified, tensors on the CPU.

    model, optimizer: tensors by name. ema: the averaged weights, or None. state: JSON values.
    """

    path: Path
    step: int
    model: Tensors
    optimizer: Tensors
    ema: Tensors | None
    state: dict[str, Any]


@dataclass(frozen=True)
class Saved:
    """What a save took. seconds until it was on the disk, bytes of all files."""

    path: Path
    seconds: float
    size_bytes: int


def save(folder: Path, step: int, parts: dict[str, Tensors], state: dict[str, Any]) -> Saved:
    """Writes `folder/step-N` and returns when the disk has it.

    parts: file stem to tensors ("model", "optimizer", "ema"). state: strict JSON values.
    Raises ResourceError when there is no room (the temporary folder is removed, older checkpoints stay),
    UserError without permission.
    """
    began = time.monotonic()
    final = folder / f"step-{step}"
    temporary = folder / f"step-{step}.tmp-{os.getpid()}"
    contents = {f"{name}.safetensors": safetensors.torch.save(_plain(tensors)) for name, tensors in parts.items()}
    contents["state.json"] = to_json({"format": FORMAT, "step": step, **state}).encode()
    size = sum(map(len, contents.values()))
    free = free_bytes(folder)
    if free < 1.2 * size:
        raise ResourceError(
            f"{folder}: a checkpoint needs {size / 1e6:.0f} MB (and a fifth to spare), {free / 1e6:.0f} MB are free. "
            "Older checkpoints are untouched. Free some disk, then run the same command again."
        )
    files = {name: {"bytes": len(data), "sha256": sha256_bytes(data)} for name, data in contents.items()}
    manifest = to_json({"format": FORMAT, "step": step, "files": files}).encode()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        for name, data in contents.items():
            write_synced(temporary / name, data)
        write_synced(temporary / "manifest.json", manifest)
        sync_folder(temporary)
        if final.exists():
            shutil.rmtree(final)  # only ever one that failed its check: see `newest`
        os.rename(temporary, final)
        sync_folder(folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise refuse(error, final, "saving a checkpoint; older checkpoints are untouched") from error
    return Saved(final, time.monotonic() - began, size + len(manifest))


def _plain(tensors: Tensors) -> Tensors:
    """Copies on the CPU in the standard memory order, each with memory of its own (safetensors wants no sharing)."""
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}


def steps_in(folder: Path) -> list[int]:
    """Steps of the checkpoints in a folder, newest first, by number (not by name or clock). Unchecked."""
    if not folder.is_dir():
        return []
    found = (re.fullmatch(r"step-(\d+)", entry.name) for entry in folder.iterdir() if (entry / "manifest.json").is_file())
    return sorted((int(match[1]) for match in found if match), reverse=True)


def read(path: Path) -> Checkpoint:
    """Reads and verifies one checkpoint folder.

    Raises CheckpointError saying which file is missing, cut, altered, or of a newer format.
    """
    manifest = _json(path / "manifest.json")
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise CheckpointError(f"{path / 'manifest.json'}: not a manifest.")
    if manifest.get("format", 0) > FORMAT:
        raise CheckpointError(
            f"{path}: written by a newer striate (format {manifest['format']}, this one reads up to {FORMAT}). Update striate."
        )
    tensors: dict[str, Tensors] = {}
    state: dict[str, Any] = {}
    for name, wanted in manifest["files"].items():
        try:
            data = (path / name).read_bytes()
        except OSError as error:
            raise CheckpointError(f"{path / name}: cannot be read ({error.strerror}).") from error
        if len(data) != wanted["bytes"]:
            raise CheckpointError(f"{path / name}: {len(data)} bytes instead of {wanted['bytes']}; the file was cut or changed.")
        if sha256_bytes(data) != wanted["sha256"]:
            raise CheckpointError(f"{path / name}: its SHA-256 differs from the manifest's; the file was changed or damaged.")
        if name.endswith(".safetensors"):
            tensors[name.removesuffix(".safetensors")] = safetensors.torch.load(data)
        elif name == "state.json":
            state = json.loads(data)
    missing = [f"{name}.safetensors" for name in ("model", "optimizer") if name not in tensors]
    missing += [] if state else ["state.json"]
    if missing:
        raise CheckpointError(f"{path}: {', '.join(missing)} missing from the manifest.")
    return Checkpoint(path, int(state["step"]), tensors["model"], tensors["optimizer"], tensors.get("ema"), state)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise CheckpointError(f"{path}: not valid JSON ({error}).") from error


def newest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that passes its check, and what was wrong with the newer ones.

    Returns (None, []) when there is no checkpoint at all.
    Raises CheckpointError when there are checkpoints and none is valid.
    """
    complaints: list[str] = []
    for step in steps_in(folder):
        try:
            return read(folder / f"step-{step}"), complaints
        except CheckpointError as error:
            complaints.append(str(error))
    if complaints:
        raise CheckpointError(
            f"{folder}: no checkpoint is usable.\n  "
            + "\n  ".join(complaints)
            + "\nRestore one from a copy, or start beside this run with --new."
        )
    return None, []


def sweep(folder: Path) -> list[str]:
    """Removes what a killed save left behind (temporary folders). Returns their names."""
    left = [entry for entry in folder.glob("step-*.tmp-*")] if folder.is_dir() else []
    for entry in left:
        shutil.rmtree(entry, ignore_errors=True)
    return [entry.name for entry in left]


def rotate(folder: Path, keep: int, best_step: int | None) -> list[str]:
    """Deletes all but the newest `keep` checkpoints and the best one. Returns complaints; a failed delete only warns.

    Call after a new checkpoint is on the disk, never before.
    """
    complaints = []
    for step in steps_in(folder)[keep:]:
        if step == best_step:
            continue
        path = folder / f"step-{step}"
        try:
            # Under another name first: a delete that is cut short must not leave half a checkpoint that looks whole.
            doomed = folder / f"step-{step}.tmp-gone"
            os.rename(path, doomed)
            shutil.rmtree(doomed)
        except OSError as error:
            complaints.append(f"{path}: an old checkpoint could not be deleted ({error.strerror}).")
    return complaints


def load_weights(model: torch.nn.Module, weights: Tensors, where: str) -> None:
    """Puts weights into a model, after removing wrappers' prefixes (`module.`, `_orig_mod.`) at any depth.

    Raises CheckpointError listing missing, unknown and misshapen names; nothing is loaded in part.
    """
    cleaned = {name.replace("_orig_mod.", "").removeprefix("module."): tensor for name, tensor in weights.items()}
    own = model.state_dict()
    problems = [f"missing: {name}" for name in own if name not in cleaned]
    problems += [f"unknown: {name}" for name in cleaned if name not in own]
    problems += [
        f"shape: {name} is {list(cleaned[name].shape)}, the network wants {list(own[name].shape)}"
        for name in own
        if name in cleaned and cleaned[name].shape != own[name].shape
    ]
    if problems:
        shown = "\n  ".join(problems[:12]) + (f"\n  … and {len(problems) - 12} more" if len(problems) > 12 else "")
        raise CheckpointError(f"{where}: these weights do not fit this network.\n  {shown}")
    model.load_state_dict(cleaned, strict=True)

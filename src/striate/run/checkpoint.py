"""Checkpoints: written whole or not at all, checked by hash before anyone believes them.

A checkpoint is a folder `step-N` of safetensors and JSON files with a manifest of sizes and SHA-256.
Order of writing: a folder with a temporary name, each file and its fsync, the manifest and its fsync,
fsync of the folder, rename, fsync of the parent. So `step-N` exists only when all of it is on the disk.
Pickle is never read.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import safetensors.torch
import torch

from striate.errors import CheckpointError, ResourceError, UserError
from striate.files import free_bytes, refuse, sha256_bytes, sync_folder, to_json, write_pieces, write_synced

FORMAT = 1
Tensors = dict[str, torch.Tensor]
_WEIGHTS = ("model", "ema")
ASIDE = ".tmp-aside"
_DTYPES: Final = {
    torch.float32: "F32",
    torch.float64: "F64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_FILE = re.compile(r"[a-z]+\.(safetensors|json)")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as read: verified, tensors on the CPU.

    model, optimizer: tensors by name. ema: the averaged weights, or None. state: JSON values.
    variant: what tells the network from others with the same names and shapes, or None (see `models.weights.put`).
    """

    path: Path
    step: int
    model: Tensors
    optimizer: Tensors
    ema: Tensors | None
    state: dict[str, Any]
    variant: str | None = None


@dataclass(frozen=True)
class Saved:
    """What a save took. seconds until it was on the disk, bytes of all files."""

    path: Path
    seconds: float
    size_bytes: int


def save(folder: Path, step: int, parts: dict[str, Tensors], state: dict[str, Any], variant: str | None = None) -> Saved:
    """Writes `folder/step-N` and returns when the disk has it.

    parts: file stem to tensors ("model", "optimizer", "ema"). state: strict JSON values. variant: of the network, kept
    with its weights.
    Raises ResourceError when there is no room (the temporary folder is removed, older checkpoints stay),
    UserError without permission.
    """
    began = time.monotonic()
    final = folder / f"step-{step}"
    temporary, aside = folder / f"step-{step}.tmp-{os.getpid()}", folder / f"step-{step}{ASIDE}"
    about = to_json({"format": FORMAT, "step": step, **state}).encode()
    headers = {name: _header(tensors, variant if name in _WEIGHTS else None) for name, tensors in parts.items()}
    size = len(about) + sum(map(len, headers.values()))
    size += sum(tensor.nbytes for tensors in parts.values() for tensor in tensors.values())
    free = free_bytes(folder)
    if free < 1.2 * size:
        raise ResourceError(
            f"{folder}: a checkpoint needs {size / 1e6:.0f} MB (and a fifth to spare), {free / 1e6:.0f} MB are free. "
            "Older checkpoints are untouched. Free some disk, then run the same command again."
        )
    files: dict[str, dict[str, Any]] = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        for name, tensors in parts.items():
            written = write_pieces(temporary / f"{name}.safetensors", _safetensors(headers[name], tensors))
            files[f"{name}.safetensors"] = dict(zip(("bytes", "sha256"), written, strict=True))
        files["state.json"] = {"bytes": len(about), "sha256": sha256_bytes(about)}
        write_synced(temporary / "state.json", about)
        manifest = to_json({"format": FORMAT, "step": step, "files": files}).encode()
        write_synced(temporary / "manifest.json", manifest)
        sync_folder(temporary)
        # The same step again: it was saved without its evaluation, or it failed its check. A folder cannot take another's
        # place in one go, so the old one steps aside; `sweep` brings it back when a kill falls between the two renames.
        if final.exists():
            shutil.rmtree(aside, ignore_errors=True)
            os.rename(final, aside)
        os.rename(temporary, final)
        sync_folder(folder)
        shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if aside.exists() and not final.exists():
            with contextlib.suppress(OSError):  # else `sweep` does it at the next start
                os.rename(aside, final)
        raise refuse(error, final, "saving a checkpoint; older checkpoints are untouched") from error
    return Saved(final, time.monotonic() - began, sum(file["bytes"] for file in files.values()) + len(manifest))


def _header(tensors: Tensors, variant: str | None) -> bytes:
    """How a safetensors file begins: the length of the header in 8 bytes, then the header in JSON."""
    header: dict[str, Any] = {"__metadata__": {"variant": variant}} if variant else {}
    place = 0
    for name, tensor in tensors.items():
        if tensor.dtype not in _DTYPES:
            raise UserError(f"'{name}' is of type {tensor.dtype}, which a checkpoint cannot hold. Use float or integer tensors.")
        offsets = [place, place + tensor.nbytes]
        header[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
        place = offsets[1]
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _safetensors(header: bytes, tensors: Tensors) -> Iterator[memoryview]:
    """The bytes of a safetensors file, tensor by tensor, so that no second copy of the weights is made.

    The library's own `save` copies everything while it holds the interpreter, and the training stands still meanwhile.
    """
    yield memoryview(header)
    for tensor in tensors.values():
        plain = tensor.detach().cpu().contiguous().reshape(-1)
        if len(plain):
            yield memoryview(plain.view(torch.uint8).numpy())  # type: ignore[arg-type]


def steps_in(folder: Path) -> list[int]:
    """Steps of the checkpoints in a folder, newest first, by number (not by name or clock). Unchecked."""
    if not folder.is_dir():
        return []
    found = (re.fullmatch(r"step-(\d+)", entry.name) for entry in folder.iterdir() if (entry / "manifest.json").is_file())
    return sorted((int(match[1]) for match in found if match), reverse=True)


def read(path: Path) -> Checkpoint:
    """Reads and verifies one checkpoint folder.

    Raises CheckpointError saying which file is missing, cut, altered, not in the manifest, or of a newer format.
    """
    contents = {name: _verified(path / name, wanted) for name, wanted in manifest_of(path).items()}
    unlisted = sorted(file.name for file in path.glob("*.safetensors") if file.name not in contents)
    if unlisted:
        raise CheckpointError(f"{path}: {', '.join(unlisted)} missing from the manifest; the manifest was changed.")
    missing = [name for name in ("model.safetensors", "optimizer.safetensors", "state.json") if name not in contents]
    if missing:
        raise CheckpointError(f"{path}: {', '.join(missing)} missing from the manifest.")
    try:
        state = json.loads(contents.pop("state.json"))
        tensors = {Path(name).stem: safetensors.torch.load(data) for name, data in contents.items()}
        step, variant = int(state["step"]), _variant(contents["model.safetensors"])
    except (ValueError, TypeError, KeyError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path}: as it was written, but not readable ({type(error).__name__}: {error}).") from error
    named = re.fullmatch(r"step-(\d+)", path.name)
    if named and int(named[1]) != step:
        raise CheckpointError(f"{path}: holds step {step}; the folder was renamed. Give it back its name, step-{step}.")
    return Checkpoint(path, step, tensors["model"], tensors["optimizer"], tensors.get("ema"), state, variant)


def manifest_of(path: Path) -> dict[str, dict[str, Any]]:
    """Files of a checkpoint with their "bytes" and "sha256"."""
    manifest = _json(path / "manifest.json")
    written = manifest.get("format") if isinstance(manifest, dict) else None
    files = manifest.get("files") if isinstance(manifest, dict) else None
    if type(written) is int and written > FORMAT:
        raise CheckpointError(
            f"{path}: written by a newer striate (format {written}, this one reads up to {FORMAT}). Update striate."
        )
    if type(written) is int and written < FORMAT:
        raise CheckpointError(
            f"{path}: of format {written}, older than this striate reads ({FORMAT}). The version that wrote it is in the run's "
            "environment.json; go on with that one: pip install striate==VERSION"
        )
    if written != FORMAT or not isinstance(files, dict) or not all(map(_FILE.fullmatch, files)):
        raise CheckpointError(f"{path / 'manifest.json'}: not a manifest of format {FORMAT}.")
    if not all(isinstance(wanted, dict) and {"bytes", "sha256"} <= wanted.keys() for wanted in files.values()):
        raise CheckpointError(f"{path / 'manifest.json'}: a file has no size or no SHA-256.")
    return files


def _verified(file: Path, wanted: dict[str, Any]) -> bytes:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror}).") from error
    if len(data) != wanted["bytes"]:
        raise CheckpointError(f"{file}: {len(data)} bytes instead of {wanted['bytes']}; the file was cut or changed.")
    if sha256_bytes(data) != wanted["sha256"]:
        raise CheckpointError(f"{file}: its SHA-256 differs from the manifest's; the file was changed or damaged.")
    return data


def _variant(data: bytes) -> str | None:
    """The network's variant in the header of a safetensors file (its length in 8 bytes, then JSON)."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    found = header.get("__metadata__", {}).get("variant")
    return found if isinstance(found, str) else None


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:
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
    """Removes what a killed save left behind (temporary folders), but for a checkpoint that was about to be replaced and
    was not: that one gets its name back. Returns the names of what is gone."""
    for old in folder.glob(f"step-*{ASIDE}"):
        whole = old.with_name(old.name.removesuffix(ASIDE))
        if not whole.exists():
            os.rename(old, whole)
    left = [entry for entry in folder.glob("step-*.tmp-*")] if folder.is_dir() else []
    for entry in left:
        shutil.rmtree(entry, ignore_errors=True)
    return [entry.name for entry in left]


def rotate(folder: Path, last_step: int, keep: int, spared: Collection[int]) -> list[str]:
    """Deletes all but the newest `keep` checkpoints up to `last_step` and the `spared` steps. Returns complaints; a failed
    delete only warns.

    Call after checkpoint `last_step` is on the disk, never before. Later ones were passed over as damaged when the run
    went on before them: they do not count as kept, or the new ones would go in their stead.
    """
    complaints = []
    for step in [step for step in steps_in(folder) if step <= last_step][keep:]:
        if step in spared:
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

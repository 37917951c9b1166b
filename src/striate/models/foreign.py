"""Weight files of other programs (.pth and its kin), opened by a child process with limits.

The child is `unpickle`. What it wrote lies in a temporary folder until it is read, and no longer.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from striate.errors import CheckpointError, ResourceError

SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".tar")
# Of the file. The largest networks with published ImageNet weights stay below it.
MOST_BYTES = 8 << 30
_WAIT_S = 900


def read(path: Path) -> tuple[dict[str, torch.Tensor], str | None]:
    """The named tensors of a pickled weight file, and the name that they were nested under ("state_dict"), if any.

    Raises CheckpointError when the file is too large, cut short, holds anything but dense tensors of numbers, or does more
    than that when opened; ResourceError when there is no room for the converted copy.
    """
    size_bytes = path.stat().st_size
    if size_bytes > MOST_BYTES:
        raise CheckpointError(f"{path}: {size_bytes:,} bytes are too large for a weight file; {MOST_BYTES:,} are taken.")
    if size_bytes == 0:
        raise CheckpointError(f"{path}: the file is empty.")
    try:
        with tempfile.TemporaryDirectory(prefix="striate-weights-", ignore_cleanup_errors=True) as folder:
            converted = Path(folder) / "weights.safetensors"
            said = _run(path, converted, 4 * size_bytes + (16 << 20))
            with safe_open(converted, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError) as error:
        raise ResourceError(
            f"{path}: cannot be converted in {tempfile.gettempdir()} ({error}). Free some disk, or name another folder with "
            "TMPDIR."
        ) from error
    return tensors, said


def _run(path: Path, converted: Path, most_bytes: int) -> str | None:
    """Has the child convert the file. Returns the name that the tensors were nested under."""
    # -P and these paths: the child finds what this process finds, but nothing in the current folder.
    here = os.getcwd()
    places = [place for place in sys.path if place and os.path.realpath(place) != os.path.realpath(here)]
    kept = {
        name: value for name, value in os.environ.items() if name in ("PATH", "LD_LIBRARY_PATH", "HOME", "LANG", "SYSTEMROOT")
    }
    command = [sys.executable, "-P", "-m", "striate.models.unpickle", str(path.absolute()), str(converted), str(most_bytes)]
    try:
        child = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_WAIT_S,
            cwd=converted.parent,
            env={**kept, "PYTHONPATH": os.pathsep.join(os.path.abspath(place) for place in places)},
        )
    except subprocess.TimeoutExpired as error:
        raise CheckpointError(f"{path}: was not read within {_WAIT_S} seconds, so it is no ordinary weight file.") from error
    said = _answer(child.stdout)
    if child.returncode == 0 and "nest" in said:
        return None if said["nest"] is None else str(said["nest"])
    if "refused" in said:
        raise CheckpointError(f"{path}: {said['refused']}.")
    if child.returncode in (-signal.SIGXCPU, -signal.SIGKILL, -signal.SIGXFSZ, -signal.SIGSEGV, -signal.SIGABRT):
        raise CheckpointError(
            f"{path}: the process that read it was ended by {signal.Signals(-child.returncode).name}: the file is damaged, or it "
            "asks for more memory, time or disk than a weight file of its size should."
        )
    last = child.stderr.strip().splitlines()[-1:] or ["it said nothing"]
    raise CheckpointError(f"{path}: the process that reads foreign weight files failed (exit {child.returncode}): {last[0]}")


def _answer(text: str) -> dict[str, Any]:
    """The last line of the child's output, as JSON; empty where it is none."""
    try:
        said = json.loads(text.strip().splitlines()[-1])
    except (json.JSONDecodeError, IndexError):
        return {}
    return said if isinstance(said, dict) else {}

"""The program that opens a foreign weight file, in a process of its own: `python -P -m striate.models.unpickle IN OUT BYTES`.

A .pth file is a pickle, a small program. Here torch's restricted reader takes it, which knows tensors and plain containers and
nothing else; and this process, which `foreign` starts and which holds nothing of the user's, is limited in memory, time and
file size, and may neither write a file besides OUT nor start a process nor open a connection. Only dense tensors of numbers
go into OUT, as safetensors. Nothing else in striate reads a pickle.
"""

from __future__ import annotations

import json
import os
import re
import resource
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

# Under which names frameworks keep the tensors, beside optimisers and counters; averaged weights first, as timm takes them.
NESTS = ("state_dict_ema", "model_ema", "state_dict", "model", "model_state_dict", "net", "network", "weights", "params")
_NUMBERS = {
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8),
}
# Seconds of computing for reading one file; a file of 1 GB takes a few.
_CPU_S = 300
# What Python reports of a process that does more than read; a part of a name stands for all that begin with it.
_REFUSED = (
    *("socket.", "subprocess.", "urllib.", "http.", "ftplib.", "smtplib.", "shutil.", "tempfile.", "sqlite3.", "ctypes.dlopen"),
    *("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.startfile", "os.kill", "pty.spawn"),
    *("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.chown"),
)


class Refused(Exception):
    """Why the file is not taken, as the end of a sentence that begins with its name."""


def main() -> int:
    """Reads IN, writes OUT. Prints one JSON object: {"nest": name or null} or {"refused": reason}."""
    source, target, most_bytes = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    _limit(most_bytes)
    sys.addaudithook(lambda event, arguments: _watch(event, arguments, target))
    try:
        nest, tensors = _tensors(_open(source))
        save_file(_dense(tensors, most_bytes), target)
    except Refused as reason:
        print(json.dumps({"refused": str(reason)}))
        return 1
    except MemoryError:
        print(json.dumps({"refused": "needs more memory than a weight file of its size should"}))
        return 1
    print(json.dumps({"nest": nest}))
    return 0


def _limit(most_bytes: int) -> None:
    """Memory: what this process has now, four times the result and a reserve for threads. Kept by Linux; macOS ignores it."""
    try:
        used_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:
        used_bytes = 64 << 30
    torch.set_num_threads(1)
    for kind, limit in (
        (resource.RLIMIT_AS, used_bytes + 4 * most_bytes + (1 << 30)),
        (resource.RLIMIT_CPU, _CPU_S),
        (resource.RLIMIT_FSIZE, most_bytes + (16 << 20)),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (limit, limit))


def _watch(event: str, arguments: tuple[Any, ...], target: Path) -> None:
    """Ends what is more than reading. The second line of defence: the restricted reader runs nothing in the first place."""
    writes = False
    if event == "open" and str(arguments[0]) != str(target):
        flags = arguments[2] if isinstance(arguments[2], int) else 0
        writes = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC))
    if writes or event.startswith(_REFUSED):
        raise Refused(f"tried to do more than hold tensors ({event} {str(arguments)[:200]})")


def _open(source: Path) -> object:
    if zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            inside = {name.rpartition("/")[2] for name in archive.namelist()}
        if "constants.pkl" in inside or "archive_format" in inside:
            raise Refused(
                "holds a program (TorchScript or torch.export), which is run to be read. Save the tensors where it is trusted: "
                "torch.save(model.state_dict(), FILE)"
            )
    with source.open("rb") as file:
        if file.read(64).lstrip().startswith(b"<"):
            raise Refused("is a web page, not weights: what a server answered instead of the file. Fetch it again")
    try:
        return torch.load(source, weights_only=True, map_location="cpu")
    except Refused:
        raise
    except MemoryError:
        raise
    except Exception as error:
        # The message advises to trust the file; only what was found in it is taken over.
        found = re.search(r"(?:GLOBAL|Trying to instantiate class) (\S+)", str(error))
        if found:
            raise Refused(
                f"holds more than tensors: opening it would run {found[1]}. Nothing was run. If it is a whole pickled network of "
                "yours, save its tensors where you made it: torch.save(model.state_dict(), FILE)"
            ) from error
        inner = re.search(r"WeightsUnpickler error:\s*(\S.*)", str(error))
        first = inner[1] if inner else str(error).strip().partition("\n")[0].partition(". ")[0]
        raise Refused(
            f"cannot be read: cut short, damaged, or no weight file of PyTorch ({type(error).__name__}: {first[:200]}). Fetch or "
            "save it again"
        ) from error


def _tensors(found: object) -> tuple[str | None, dict[str, object]]:
    """The named tensors, and the name that they were kept under."""
    if not isinstance(found, Mapping):
        raise Refused(f"holds a {type(found).__name__}; expected named tensors, as model.state_dict() gives them")
    for nest in NESTS:
        inside = found.get(nest)
        if isinstance(inside, Mapping) and any(isinstance(value, torch.Tensor) for value in inside.values()):
            return nest, {str(name): value for name, value in inside.items()}
    if not any(isinstance(value, torch.Tensor) for value in found.values()):
        raise Refused(f"holds no named tensors; it has: {', '.join(map(str, list(found)[:5])) or 'nothing'}")
    return None, {str(name): value for name, value in found.items()}


def _dense(tensors: dict[str, object], most_bytes: int) -> dict[str, torch.Tensor]:
    """Copies of their own. Raises Refused, naming it, for whatever is no dense tensor of numbers."""
    dense: dict[str, torch.Tensor] = {}
    total_bytes = 0
    for name, tensor in tensors.items():
        if type(tensor) not in (torch.Tensor, torch.nn.Parameter) or not isinstance(tensor, torch.Tensor):
            raise Refused(f"'{name}' is a {type(tensor).__name__}; expected a dense tensor")
        if tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            what = (
                "on no device" if tensor.device.type != "cpu" else str(tensor.layout if not tensor.is_quantized else "quantised")
            )
            raise Refused(f"'{name}' is not a dense tensor ({what.removeprefix('torch.')})")
        if tensor.dtype not in _NUMBERS:
            raise Refused(f"'{name}' holds {str(tensor.dtype).removeprefix('torch.')}; expected floating-point or whole numbers")
        total_bytes += tensor.numel() * tensor.element_size()
        if total_bytes > most_bytes:
            raise Refused(f"'{name}' makes its tensors larger than {most_bytes:,} bytes, far more than the file itself")
        dense[name] = tensor.detach().clone(memory_format=torch.contiguous_format)
    return dense


if __name__ == "__main__":
    sys.exit(main())

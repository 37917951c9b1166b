"""Weights going into a network, from a file or from a checkpoint: safetensors only, every tensor accounted for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from striate.errors import CheckpointError, UserError

_SHOWN = 5
# What DataParallel and torch.compile add to the names of the network that they wrap.
_WRAPPERS = ("module", "_orig_mod")


def load(model: nn.Module, source: Path | str) -> None:
    """Puts the weights and buffers of a safetensors file, or of a run's checkpoint folder, into `model`.

    Of a folder the raw weights (model.safetensors) are taken; name ema.safetensors for the averaged ones.
    Raises UserError when there is no such file or it is of another kind; CheckpointError when it is broken, or as `put`.
    """
    path = Path(source)
    path = path / "model.safetensors" if path.is_dir() else path
    if not path.is_file():
        raise UserError(f"{path}: no such weight file. Give a .safetensors file, or a checkpoint folder of a run.")
    if path.suffix != ".safetensors":
        raise UserError(f"{path}: only .safetensors files are read, because other kinds can run code when opened.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: cannot be read as safetensors ({error}).") from error
    put(model, tensors, str(path), metadata.get("variant"))


def put(model: nn.Module, tensors: Mapping[str, torch.Tensor], where: str, variant: str | None = None) -> None:
    """Copies named tensors into `model`: all of its weights and buffers, and nothing else.

    Wrappers' parts of a name ("module", "_orig_mod") are passed over at any depth, in the names of both sides. Batch
    norm's step counters may be missing, because old files have none. Nothing is copied unless everything fits.
    variant: what the weights' file says of its network (`variant_of`); one that is not the model's is refused, because
    its weights would load without an error and compute something else. None: it says nothing.
    Raises CheckpointError with `where`, listing the first tensors that are missing, unknown, of another shape, or twice there.
    """
    wanted = variant_of(model)
    if wanted and variant and wanted != variant:
        raise CheckpointError(
            f"{where}: these weights are of variant '{variant}', the network is '{wanted}'. They have the same names and shapes "
            f"and give other results; choose the network of the weights."
        )
    expected = {_plain(name): tensor for name, tensor in model.state_dict().items()}
    found: dict[str, torch.Tensor] = {}
    twice: list[str] = []
    for name, tensor in tensors.items():
        if _plain(name) in found:
            twice.append(name)
        found[_plain(name)] = tensor
    missing = [name for name in expected if name not in found and not name.endswith("num_batches_tracked")]
    unknown = [name for name in found if name not in expected]
    shapes = [
        f"{name} {list(tensor.shape)} for {list(expected[name].shape)}"
        for name, tensor in found.items()
        if name in expected and tensor.shape != expected[name].shape
    ]
    lists = (("missing", missing), ("unknown", unknown), ("of another shape (file, network)", shapes), ("twice", twice))
    parts = [f"{len(names)} {what}: {_first(names)}" for what, names in lists if names]
    if parts:
        raise CheckpointError(f"{where}: not weights of this {type(model).__name__}. " + "; ".join(parts) + ".")
    with torch.no_grad():
        for name, tensor in found.items():
            expected[name].copy_(tensor)


def variant_of(model: nn.Module) -> str | None:
    """What tells networks apart whose weights have the same names and shapes: their attribute `variant`, if they have one."""
    variant = getattr(model, "variant", None)
    return variant if isinstance(variant, str) else None


def _plain(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _first(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")

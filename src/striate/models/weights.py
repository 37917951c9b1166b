"""Weight files going into a network: safetensors only, every tensor accounted for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from striate.errors import CheckpointError, UserError

_SHOWN = 5


def load(model: nn.Module, source: Path | str) -> None:
    """Copies the weights and buffers of a safetensors file, or of a run's checkpoint folder, into `model`.

    Of a folder the raw weights (model.safetensors) are taken; name ema.safetensors for the averaged ones. A file whose
    metadata names another `variant` than the model's is refused: it would load without an error and compute something else.
    Raises UserError when there is no such file or it is of another kind; CheckpointError when it is broken, or as `copy`.
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
    wanted, variant = getattr(model, "variant", None), metadata.get("variant")
    if wanted and variant and wanted != variant:
        raise CheckpointError(
            f"{path}: these weights are of variant '{variant}', the network is '{wanted}'. They have the same names and shapes "
            f"and give other results; choose the network of the weights."
        )
    copy(model, tensors, str(path))


def copy(model: nn.Module, tensors: Mapping[str, torch.Tensor], where: str) -> None:
    """Copies named tensors into `model`: all of its weights and buffers, and nothing else.

    Prefixes of wrapped networks ("module.", "_orig_mod.") are dropped; batch norm's step counters may be missing, because
    old files have none. Nothing is copied unless everything fits.
    Raises CheckpointError with `where`, listing the first tensors that are missing, unknown or of another shape.
    """
    found = {_plain(name): tensor for name, tensor in tensors.items()}
    expected = model.state_dict()
    missing = [name for name in expected if name not in found and not name.endswith("num_batches_tracked")]
    unknown = [name for name in found if name not in expected]
    shapes = [
        f"{name} {list(tensor.shape)} for {list(expected[name].shape)}"
        for name, tensor in found.items()
        if name in expected and tensor.shape != expected[name].shape
    ]
    if missing or unknown or shapes:
        lists = (("missing", missing), ("unknown", unknown), ("of another shape (file, network)", shapes))
        parts = [f"{len(names)} {what}: {_first(names)}" for what, names in lists if names]
        raise CheckpointError(f"{where}: not weights of this {type(model).__name__}. " + "; ".join(parts) + ".")
    with torch.no_grad():
        for name, tensor in found.items():
            expected[name].copy_(tensor)


def _plain(name: str) -> str:
    while name.startswith(("module.", "_orig_mod.")):
        name = name.split(".", 1)[1]
    return name


def _first(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")

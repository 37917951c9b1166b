"""Weights going into a network, as named tensors: every one accounted for. Where they come from is `pretrained`'s affair."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from striate.errors import CheckpointError

_SHOWN = 5
# What DataParallel and torch.compile add to the names of the network that they wrap.
_WRAPPERS = ("module", "_orig_mod")


def read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The named tensors of a safetensors file, and its metadata. Raises CheckpointError when it is broken."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: cannot be read as safetensors ({error}).") from error


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
            f"and give other results; choose the network of the weights, or the option that makes it theirs."
        )
    expected = {plain(name): tensor for name, tensor in model.state_dict().items()}
    found: dict[str, torch.Tensor] = {}
    twice: list[str] = []
    for name, tensor in tensors.items():
        if plain(name) in found:
            twice.append(name)
        found[plain(name)] = tensor
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


def refuse_non_finite(tensors: Mapping[str, torch.Tensor], where: str) -> None:
    """Raises CheckpointError naming the first tensors that hold NaN or infinity."""
    wrong = [name for name, tensor in tensors.items() if tensor.is_floating_point() and not bool(tensor.isfinite().all())]
    if wrong:
        raise CheckpointError(
            f"{where}: {len(wrong)} of {len(tensors)} tensors hold NaN or infinity: {_first(wrong)}. The weights are damaged, or "
            "a part that was never trained is filled so (as the classifier of torchvision's vgg16 IMAGENET1K_FEATURES is). "
            "Take another file or set."
        )


def variant_of(model: nn.Module) -> str | None:
    """What tells networks apart whose weights have the same names and shapes: their attribute `variant`, if they have one."""
    variant = getattr(model, "variant", None)
    return variant if isinstance(variant, str) else None


def plain(name: str) -> str:
    """A tensor's name without the parts that wrappers of a network add."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _first(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")

"""The doctor for strangers: any network with any loader, in a notebook or a script."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import Any

import numpy as np
import torch
from torch import nn

from striate.doctor import examination, passes
from striate.doctor.examination import Examination
from striate.doctor.passes import Loss
from striate.doctor.patient import Patient
from striate.errors import DataError, StriateError, UserError

# What the parts of a batch are called where it is a dict.
IMAGES = ("image", "images", "pixel_values", "img", "x", "input", "inputs", "data")
# Of a loader, batches are kept up to this.
KEPT_BYTES = 500e6
LABELS = ("label", "labels", "target", "targets", "y", "class", "fine_label")


def examine(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    val_loader: Iterable[Any] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    loss: Loss | None = None,
    classes: int | None = None,
    seconds: float = 60.0,
) -> Examination:
    """Why this network will not learn from this loader, in words; an empty Examination where nothing is wrong.

    model: any network of images, on any device; it is left as it was, weights, statistics, modes and hooks. loader: what the
    training iterates over: (images, labels), or a dict of them; images [B, C, H, W] as the network gets them, labels [B] int64.
    val_loader: the same for validation. optimizer: its rate, decay and parameters are looked at. loss: a function of (outputs,
    labels); cross-entropy, with 0.3 for auxiliary heads, if None. classes: how many there are. seconds: most time to take.
    Raises DataError when the loader yields nothing, UserError when what it yields is no batch of images with labels.
    """
    _check(model, loader, val_loader, optimizer, loss, classes, seconds)
    model = getattr(model, "_orig_mod", model)  # what torch.compile wraps: the same weights, without compiling each pass
    began = time.monotonic()
    device = _device(model)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):  # a loader that shuffles draws from torch's generator
        return _examined(model, loader, val_loader, optimizer, loss, classes, seconds, device, began)


def _examined(
    model: nn.Module,
    loader: Iterable[Any],
    val_loader: Iterable[Any] | None,
    optimizer: torch.optim.Optimizer | None,
    loss: Loss | None,
    classes: int | None,
    seconds: float,
    device: torch.device,
    began: float,
) -> Examination:
    train = _Loading(loader, device, "the loader")
    scored = None if val_loader is None else _Loading(val_loader, device, "val_loader")
    try:
        first = next(train(), None)
    except StriateError:
        raise
    except Exception as error:  # whatever a stranger's data set raises is what is told
        raise DataError(f"examine: the loader fails at its first batch: {type(error).__name__}: {error}") from error
    if first is None:
        raise DataError("examine: the loader yields nothing. Give one that yields (images, labels) at least once.")
    patient = Patient(
        model,
        *first,
        train,
        loss or passes.summed(0.3),
        scored=scored,
        classes=classes,
        steps_per_epoch=len(loader) if isinstance(loader, Sized) else None,
        optimizer=optimizer,
        seconds=seconds,
        began=began,
        loading_s=train.seconds,
    )
    return examination.before(patient)


def _check(model: Any, loader: Any, val_loader: Any, optimizer: Any, loss: Any, classes: Any, seconds: Any) -> None:
    """Raises UserError for what cannot be examined, naming what was expected."""
    expected = (
        ("model", model, isinstance(model, nn.Module), "a torch.nn.Module"),
        ("loader", loader, hasattr(loader, "__iter__") or hasattr(loader, "__getitem__"), "something to iterate over"),
        ("val_loader", val_loader, val_loader is None or hasattr(val_loader, "__iter__"), "something to iterate over"),
        ("optimizer", optimizer, optimizer is None or isinstance(optimizer, torch.optim.Optimizer), "a torch.optim.Optimizer"),
        ("loss", loss, loss is None or callable(loss), "a function of (outputs, labels)"),
        ("classes", classes, classes is None or (type(classes) is int and classes > 0), "a whole number"),
        ("seconds", seconds, isinstance(seconds, (int, float)) and seconds > 0, "a number of seconds"),
    )
    for name, value, fits, wanted in expected:
        if not fits:
            found = repr(value) if isinstance(value, (str, int, float)) else type(value).__name__
            raise UserError(f"examine: {name} must be {wanted}, found {found}.")


def _device(model: nn.Module) -> torch.device:
    """Where the network is. Raises UserError for weights that are nowhere."""
    first = next(iter([*model.parameters(), *model.buffers()]), None)
    if first is None:
        return torch.device("cpu")
    if first.device.type == "meta":
        raise UserError(
            "examine: the network's weights are on the device 'meta', without memory. Call model.to_empty() and draw them."
        )
    return first.device


class _Loading:
    """A stranger's loader: each call begins a pass over it, as batches on the device.

    What was loaded is kept, so that every rule sees the same first batches and a slow loader is waited for once; all of a loader
    that can be iterated over once only, and of others so many bytes. seconds: what each batch took to come.
    """

    def __init__(self, loader: Iterable[Any], device: torch.device, name: str) -> None:
        self.seconds: list[float] = []
        self._loader, self._device, self._name = loader, device, name
        self._is_once = hasattr(loader, "__next__")
        self._kept: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._source: Iterator[Any] | None = None
        self._is_at_end = False
        self._bytes = 0

    def __call__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        place = 0
        while True:
            while place < len(self._kept):
                yield self._kept[place]
                place += 1
            if self._is_at_end:
                return
            if not self._is_once and self._bytes > KEPT_BYTES:
                rest = itertools.islice(self._loader, place, None)
                yield from filter(None, map(self._of, rest))
                return
            began = time.monotonic()
            if self._source is None:
                self._source = iter(self._loader)
            try:
                batch = next(self._source)
            except StopIteration:
                self._is_at_end = True
                return
            self.seconds.append(time.monotonic() - began)
            if (one := self._of(batch)) is not None:
                self._kept.append(one)
                self._bytes += one[0].numel() * one[0].element_size()

    def _of(self, batch: Any) -> tuple[torch.Tensor, torch.Tensor] | None:
        images, labels = _parts(batch, self._name)
        return (images.to(self._device), labels.to(self._device)) if len(images) else None


def _parts(batch: Any, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and labels, int64 [B], of whatever a loader yields. Raises UserError saying what was found."""
    if isinstance(batch, Mapping):
        keys = {str(key).lower(): key for key in batch}
        found = [next((keys[word] for word in words if word in keys), None) for words in (IMAGES, LABELS)]
        if None in found:
            raise UserError(
                f"examine: {name} yields a dict with {', '.join(map(str, batch))}; expected 'image' and 'label' in it."
            )
        images, labels = (batch[key] for key in found)
    elif isinstance(batch, (tuple, list)) and len(batch) >= 2:
        images, labels = batch[0], batch[1]
    elif hasattr(batch, "images") and hasattr(batch, "labels"):
        images, labels = batch.images, batch.labels
    else:
        raise UserError(f"examine: {name} yields {type(batch).__name__}; expected (images, labels), or a dict of them.")
    images, labels = _tensor(images, name, "images"), _tensor(labels, name, "labels")
    if labels.is_floating_point() and labels.dim() == 2 and labels.shape[1] > 1:
        labels = labels.argmax(1)  # one-hot, or shares of mixed images: the largest
    if labels.is_floating_point() and not bool((labels == labels.round()).all()):
        raise UserError(f"examine: the labels that {name} yields are no whole numbers, but {labels.flatten()[:3].tolist()} …")
    if images.dim() < 2 or labels.numel() != len(images):
        raise UserError(
            f"examine: {name} yields images {list(images.shape)} with {labels.numel()} labels; expected [B, C, H, W] and [B]."
        )
    # A network's own type is kept (half, double, indices of an embedding); bytes are pixels, which no network takes as they are.
    return images.float() if images.dtype in (torch.uint8, torch.bool) else images, labels.reshape(-1).long()


def _tensor(value: Any, name: str, what: str) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        return value.detach()
    try:
        return torch.from_numpy(np.asarray(value).copy())
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"examine: the {what} that {name} yields are no numbers ({type(value).__name__}).") from error

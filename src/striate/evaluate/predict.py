"""From a model and batches to Predictions: every image once, in order, and the model left as it was found."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

import numpy as np
import torch
from torch import nn

from striate import machine
from striate.classes import Classes
from striate.data.loader import Batch
from striate.errors import NonFiniteError, ResourceError, UserError
from striate.predictions import UNLABELLED, Predictions
from striate.view import View


def predict(
    model: nn.Module,
    batches: Iterable[Batch],
    view: View,
    device: torch.device,
    precision: Literal["bf16", "fp16", "fp32"],
    classes: Classes,
    channels_last: bool,
    class_map: np.ndarray | None = None,
) -> tuple[Predictions, list[tuple[str, str]]]:
    """What the network says about every image of `batches`, and the images that could not be read.

    model: on `device`; its modes come back as they were, also after an error.
    batches: uint8 images as `view` makes them; their labels count in the data's class list.
    classes: of the network, K of them. class_map: [K_data] int64, the place of each of the data's classes in
    `classes` (`Classes.match`); None where both lists are one.
    Returns the Predictions (scale "logits", labels in the network's numbering, rows in the order of the batches) and
    [(key, reason)] of bad images, which have no row.
    Raises NonFiniteError naming the first image whose logits are NaN or infinite, UserError when the network's
    output is not [B, K], ResourceError when a batch does not fit into memory.
    """
    keys: list[str] = []
    bad: list[tuple[str, str]] = []
    labels: list[np.ndarray] = []
    scores: list[np.ndarray] = []
    with evaluation_mode(model):
        for batch in batches:
            bad.extend(batch.bad)
            if not batch.keys:
                continue
            scores_BK = logits(model, batch.images, view, device, precision, channels_last).cpu().numpy()
            refuse_other_classes(scores_BK, len(batch.keys), classes)
            refuse_non_finite(scores_BK, batch.keys, precision)
            keys.extend(batch.keys)
            labels.append(batch.labels.cpu().numpy().astype(np.int64))
            scores.append(scores_BK)
    labels_N = np.concatenate([np.empty(0, np.int64), *labels])
    if class_map is not None:
        labels_N = renumber(labels_N, class_map)
    scores_NK = np.concatenate(scores) if scores else np.empty((0, len(classes)), np.float32)
    return Predictions(keys, labels_N, scores_NK, "logits", classes), bad


def scoring_batch_size(view: View) -> int:
    """Images of one forward pass in evaluation: many where they are small. Changes no count, and logits by rounding only."""
    return 256 if view.size_px <= 96 else 64


def logits(
    model: nn.Module,
    images: torch.Tensor,
    view: View,
    device: torch.device,
    precision: Literal["bf16", "fp16", "fp32"],
    channels_last: bool,
) -> torch.Tensor:
    """One forward pass without gradients; the model must be in `evaluation_mode`.

    images: [B, 3, S, S] uint8, as `view` cuts them; larger for a `models.dense.Dense`. Returns [B, K] float32 on `device`, the
    main head's raw outputs; of a Dense [B, K, h, w].
    """
    layout = torch.channels_last if channels_last else torch.contiguous_format
    # no_grad and not inference_mode: what a module caches in its forward pass must still serve the next training step.
    # The block is as short as possible, because a loader that makes tensors may run in this very thread.
    try:
        with torch.no_grad(), machine.autocast(device, precision):
            bytes_BCHW = machine.copied(images, device).contiguous(memory_format=layout)
            return main_logits(model(view.normalise(bytes_BCHW, torch.float32))).float()
    except torch.OutOfMemoryError as error:
        raise ResourceError(
            f"Out of memory on {device} with {len(images)} images of {images.shape[-1]} px at once. "
            "Free the device of other work, or score on the CPU with --device cpu."
        ) from error


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Within the block the model is in evaluation mode; afterwards every submodule has its own mode again.

    Raises UserError when a submodule stays in training mode, because it would use batch statistics or drop units.
    """
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        stubborn = [name or type(model).__name__ for name, module in model.named_modules() if module.training]
        if stubborn:
            raise UserError(
                f"After model.eval() these layers are still in training mode: {', '.join(stubborn[:5])}. "
                "Scores would depend on chance or on the other images of a batch."
            )
        yield
    finally:
        # First the public way, for modules that do more than set a flag (merged weights); then flag by flag,
        # because frozen parts may have been in evaluation mode inside a training model.
        model.train(before[0][1])
        for module, mode in before:
            module.training = mode


def main_logits(output: object) -> torch.Tensor:
    """The main head's logits [B, K], from whatever a network returns.

    A tensor is taken as it is; else the entry 'logits' of a dict, the attribute `.logits`, or the first element of a
    tuple or list. Raises UserError when there is none of these.
    """
    if isinstance(output, torch.Tensor):
        return output
    if isinstance(output, Mapping):
        if "logits" in output:
            return main_logits(output["logits"])
        found = ", ".join(map(str, output))
        raise UserError(f"The network returns a dict without 'logits' (it has: {found}). Name its main head 'logits'.")
    if hasattr(output, "logits"):
        return main_logits(output.logits)
    if isinstance(output, (tuple, list)) and output:
        return main_logits(output[0])
    raise UserError(
        f"The network returns {type(output).__name__}; expected logits [B, K], a tuple that starts with them, "
        "or a dict with 'logits'."
    )


def renumber(labels: np.ndarray, class_map: np.ndarray) -> np.ndarray:
    """Labels counted in another class list. labels: [N], -1 stays; class_map: [K_old] int64. Returns [N] int64."""
    if len(class_map) == 0:
        return np.full(labels.shape, UNLABELLED, np.int64)
    return np.where(labels == UNLABELLED, UNLABELLED, class_map[np.maximum(labels, 0)]).astype(np.int64)


def refuse_other_classes(scores_BK: np.ndarray, images: int, classes: Classes) -> None:
    """Raises UserError unless there is a score of each class for each image."""
    if scores_BK.shape != (images, len(classes)):
        raise UserError(
            f"Expected logits {[images, len(classes)]} (images, classes), found {list(scores_BK.shape)}: the network and the "
            "class list do not belong together."
        )


def refuse_non_finite(scores_BK: np.ndarray, keys: tuple[str, ...], precision: str) -> None:
    """Raises NonFiniteError naming the first image whose scores are NaN or infinite."""
    finite_B = np.isfinite(scores_BK).all(axis=1)
    if finite_B.all():
        return
    overflow = " fp16 overflows at 65504: try --precision fp32." if precision == "fp16" else ""
    raise NonFiniteError(
        f"The network's output for '{keys[int(np.argmin(finite_B))]}' is NaN or infinite (so are {int((~finite_B).sum())} of the "
        f"{len(keys)} images of this batch). No score is computed from it: the weights have diverged or are damaged; "
        f"take an earlier checkpoint.{overflow}"
    )

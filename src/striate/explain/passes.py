"""Passes through a network that is left as it was found: what every method of this room is made of.

Within `still` the network is in evaluation mode and none of its weights is differentiated, so a pass costs no more memory than
what is really asked of it: a graph begins where an input, or the copy of a layer's output, asks for a gradient. Everything comes
back afterwards: modes, flags, gradients that a training left there, random generators.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from striate import machine
from striate.errors import NonFiniteError, UserError, expect
from striate.models import heads

LogitsOf = Callable[[Any], torch.Tensor]


@contextlib.contextmanager
def still(model: nn.Module, images: torch.Tensor) -> Iterator[None]:
    """Within the block the model is in evaluation mode with frozen weights, and autograd is on, in float32.

    The modes of all modules, `requires_grad` of all weights and the global random generators are as before after it, also when it
    ends by an exception. images: anything on the device of the passes.
    """
    modes = [(module, module.training) for module in model.modules()]
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    with machine.as_found(), torch.inference_mode(False), torch.enable_grad(), machine.autocast(images.device, "fp32"):
        try:
            model.eval()
            for weight in trained:
                weight.requires_grad_(False)
            yield
        finally:
            for weight in trained:
                weight.requires_grad_(True)
            for module, mode in modes:
                module.training = mode


def check(images: torch.Tensor, labels: torch.Tensor) -> None:
    """Raises UserError unless images are [B, C, S, S] and labels whole numbers, one for each image or more: [B] or [B, M]."""
    sizes = expect(images, "B C S S", "images")
    expect(labels, "B" if labels.ndim == 1 else "B M", "labels")
    if len(labels) != sizes["B"] or not len(labels):
        raise UserError(
            f"labels: expected one for each of one image or more, found {sizes['B']} images and {len(labels)} labels."
        )
    if labels.dtype.is_floating_point or labels.dtype == torch.bool:
        raise UserError(f"labels: expected whole numbers (int64), found {labels.dtype}.")


def kind(model: nn.Module) -> str:
    """What a network is called in messages: the user's own class, also where a box head was put on it."""
    return type(heads.classifier_of(model)).__name__


def expect_name(option: str, layer: str | None) -> None:
    """Raises UserError for an empty name, which torch takes for the whole network. option: as typed, for the message."""
    if layer == "":
        raise UserError(f"{option} '': expected a layer's name, as `model.named_modules()` has it.")


def logits(model: nn.Module, images: torch.Tensor, logits_of: LogitsOf) -> torch.Tensor:
    """The main logits [B, K] of one pass; `images` stay as they are though the first layer work in place.

    Raises NonFiniteError where they are NaN or infinite.
    """
    found_BK = logits_of(model(images.clone()))
    expect(found_BK, "B K", "logits")
    if not found_BK.isfinite().all():
        raise NonFiniteError(
            f"{kind(model)} gives logits that are NaN or infinite: its weights have diverged or are damaged, or the "
            "images are not finite. Take an earlier checkpoint."
        )
    return found_BK


def chosen(logits_BK: torch.Tensor, labels_BM: torch.Tensor) -> torch.Tensor:
    """The logits of the labels, [B, M]. Raises UserError, which names K, for a label outside of 0..K-1."""
    classes = logits_BK.shape[1]
    # Looked at before it is used: on a GPU an index out of range ends the process.
    wrong = [int(label) for label in labels_BM.flatten().tolist() if not 0 <= label < classes]
    if wrong:
        raise UserError(f"label {wrong[0]}: the network has {classes} classes, so labels are 0 to {classes - 1}.")
    return logits_BK.gather(1, labels_BM.to(logits_BK.device, torch.int64))


def scores(
    model: nn.Module, images: torch.Tensor, labels_B: torch.Tensor, logits_of: LogitsOf, is_probability: bool
) -> torch.Tensor:
    """The logit, or the probability (softmax), of each image's label, without a graph: [B] float32."""
    with torch.no_grad():
        found_BK = logits(model, images, logits_of).float()
        return chosen(found_BK.softmax(1) if is_probability else found_BK, labels_B[:, None])[:, 0]

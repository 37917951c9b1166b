"""The network cannot be run on the images at all, or does not put out logits.

Looks at one forward pass in training mode: whether it ends, and whether what it puts out is [B, K], with finite numbers.
"""

from __future__ import annotations

import torch

from striate.doctor import passes
from striate.doctor.finding import Cause, Finding, Remedy
from striate.doctor.patient import Patient
from striate.errors import StriateError

SOURCE = "the network's own forward function"


def check(patient: Patient) -> Finding | None:
    """The finding with the error's own words, or None where logits come out."""
    images = patient.images[:4]
    try:
        with torch.no_grad(), passes.preserved(patient.model), passes.as_trained(patient.model):
            heads = passes.heads_of(patient.model(images))
    except Exception as error:  # whatever a stranger's network raises is what is told
        return _failed(patient, error)
    main = next(iter(heads.values()), None)
    if main is None or main.dim() != 2 or len(main) != len(images):
        found = "nothing" if main is None else f"a tensor {list(main.shape)}"
        words = f"The network puts out {found} for {len(images)} images; logits [images, classes] are expected."
        return _finding(words, {"output": found}, (), "Return the logits, before any softmax, as [images, classes].")
    shown = main.float()
    if not bool(torch.isfinite(shown).all()) and bool(torch.isfinite(images).all()):
        words = "The network puts out values that are not finite for finite images, before the first step."
        causes = (
            Cause("initialisation", 0.7, "weights so large that numbers overflow"),
            Cause("precision", 0.3, "or too few bits"),
        )
        return _finding(
            words, {"finite": float(torch.isfinite(shown).float().mean())}, causes, "Draw the weights again, smaller."
        )
    return _loss(patient, images, main.shape[1])


def _loss(patient: Patient, images: torch.Tensor, outputs: int) -> Finding | None:
    """Whether the loss can be computed, and is one number. Labels outside the outputs are another rule's."""
    labels = patient.labels[: len(images)]
    if int(labels.min()) < 0 or int(labels.max()) >= outputs:
        return None
    try:
        with torch.no_grad(), passes.preserved(patient.model), passes.as_trained(patient.model):
            value = patient.loss(patient.model(images), labels)
        if isinstance(value, torch.Tensor) and value.numel() == 1:
            return None
        text = f"it returns {f'a tensor {list(value.shape)}' if isinstance(value, torch.Tensor) else type(value).__name__}"
    except Exception as error:  # whatever a stranger's loss raises is what is told
        text = f"{type(error).__name__}: {(str(error) or '-').splitlines()[0]}"
    advice = "The loss is called with (outputs, labels), as the network returns them, and must give one number."
    return _finding(f"The loss cannot be computed: {text}", {"error": text}, (), advice)


def _failed(patient: Patient, error: Exception) -> Finding:
    text = (str(error) or type(error).__name__).splitlines()[0]
    shape = list(patient.images.shape)
    causes: tuple[Cause, ...] = ()
    advice = "Call model(images) on one batch, and mend what it says."
    if "more than 1 value per channel" in text:
        causes = (Cause("batch-norm-single", 0.9, f"a batch of {shape[0]} and a grid of 1x1 leave one value to average over"),)
        advice = "Use a batch of 16 or more; with little memory a network with group normalisation."
    elif "channels" in text and len(shape) == 4 and shape[-1] in (1, 3) and shape[1] not in (1, 3):
        causes = (Cause("channels-last", 0.9, f"the images are {shape}: the channels stand last"),)
        advice = "Turn the axes: images.permute(0, 3, 1, 2)."
    elif isinstance(error, TypeError) and "argument" in text:
        advice = "Wrap the network in one that takes the images alone, and gives the other inputs itself."
    elif isinstance(error, StriateError) and "return" in text:
        advice = "Return the logits [images, classes], or a tuple or dict that starts with them."
    elif any(word in text for word in ("mat1", "shape", "size", "too small", "Calculated padded input", "px")):
        causes = (Cause("image-size", 0.7, f"the images are {shape}"),)
        advice = "Give the size that the network was made for, or make its first linear layer fit this one."
    elif "device" in text:
        advice = "Bring the whole network to one device: model.to(device)."
    words = f"The network cannot be run on the images: {type(error).__name__}: {text}"
    return _finding(words, {"images": shape, "error": f"{type(error).__name__}: {text}"}, causes, advice)


def _finding(sentence: str, evidence: dict[str, object], causes: tuple[Cause, ...], advice: str) -> Finding:
    return Finding("forward-pass", "error", sentence, evidence, causes, (Remedy(advice),), SOURCE)

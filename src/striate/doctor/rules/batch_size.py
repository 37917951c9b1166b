"""The batch is too small for the rate, or so large that an epoch has hardly any steps, or that memory does not hold it.

Looks at the batch beside the steps of an epoch and in all; at the rate that each image gets: rate / (1 - momentum) / batch; and
at what one pass keeps for its backward pass, times the images of a step, beside the memory that is free.
"""

from __future__ import annotations

from striate import machine
from striate.doctor.finding import Cause, Finding, NotJudged, Remedy
from striate.doctor.patient import Patient
from striate.recipe import Recipe

SOURCE = "Goyal et al. 2017, section 2.1 (rate in proportion to the batch); Keskar et al. 2017; Shallue et al. 2019, section 4"
# Rate per image of SGD. ImageNet's usual 0.1 with momentum 0.9 for 256 images is 0.004.
LARGE_SHARE = 0.2
# SGD's usual rate for 256 images.
USUAL_RATE = 0.1
# Fewer images for a step of Adam than this: the gradient is mostly noise, and Adam takes steps of one size from it.
FEW = 4
# A reckoning, which is no measurement, must say that it takes so many times what is free.
FAR_BEYOND = 1.3
# Fewer steps in all than this, with fewer than that in an epoch, are too few to learn from.
FEW_STEPS, FEW_PER_EPOCH = 150, 6


def check(patient: Patient) -> Finding | None:
    """The finding, or None where batch, rate and schedule go together."""
    size = patient.batch_size
    if patient.recipe is None:
        raise NotJudged("no recipe is known")
    if (found := _memory(patient, patient.recipe)) is not None:
        return found
    o = patient.recipe.optim
    total, per_epoch = patient.total_steps, patient.steps_per_epoch
    if total is not None and per_epoch is not None and total < FEW_STEPS and per_epoch < FEW_PER_EPOCH and size >= 32:
        smaller = max(8, 2 ** ((size * per_epoch // 40).bit_length() - 1))
        changes: dict[str, object] = {"optim.batch_size": min(size, smaller)}
        if o.lr_scaling == "none":
            changes["optim.lr"] = float(f"{o.lr * smaller / size:.3g}") if o.name.startswith("sgd") else o.lr
        return Finding(
            "batch-size",
            "warning",
            f"A batch of {size} leaves {per_epoch} steps in an epoch and {total} in all: too few to learn from.",
            {"batch": size, "steps in an epoch": per_epoch, "steps in all": total},
            (
                Cause("batch-too-large", 0.9, f"{per_epoch} steps in an epoch"),
                Cause("time", 0.3, f"{total} steps in all"),
            ),
            (Remedy(f"Take a batch of {smaller}, with the rate in proportion.", changes), Remedy("Or train for more epochs.")),
            SOURCE,
        )
    is_sgd = o.name in ("sgd", "sgd-alexnet", "rmsprop")
    per_image = patient.peak_rate / (1 - o.momentum) / size
    if not ((is_sgd and o.name != "rmsprop" and per_image > LARGE_SHARE) or size < FEW):
        return None
    batch = 64
    is_rate = patient.peak_rate / USUAL_RATE > batch / size
    smaller, slower = (
        Remedy(f"Take a batch of {batch}.", {"optim.batch_size": batch}),
        Remedy("Take a rate in proportion to the batch.", {"optim.lr": float(f"{USUAL_RATE * size / 256:.2g}")}),
    )
    return Finding(
        "batch-size",
        "warning",
        f"A batch of {size} is too small for a rate of {patient.peak_rate:.3g}: its gradient is mostly noise"
        + (
            f", and each image moves the weights {per_image / 0.004:.0f} times as far as in ImageNet's usual training."
            if is_sgd
            else "."
        ),
        {"batch": size, "learning rate": patient.peak_rate, "rate / (1 - momentum) / batch": per_image},
        (
            # Whichever is further from what is usual, 64 images or a rate of 0.1.
            Cause("batch-too-small", 0.8, f"{size} images for a step"),
            Cause("learning-rate-high", 0.9 if is_sgd and is_rate else 0.5, f"{per_image:.2g} for each image"),
        ),
        (slower, smaller) if is_rate else (smaller, slower),
        SOURCE,
    )


def _memory(patient: Patient, recipe: Recipe) -> Finding | None:
    """Whether what a step keeps for its backward pass is far beyond memory, reckoned from the pass that was looked at."""
    if patient.device.type != "cpu" or not (seen := patient.signals).kept_bytes:
        return None
    o = recipe.optim
    images = o.batch_size // o.accumulate
    half = 1.0 if patient.precision == "fp32" else 0.5  # most of what is kept is then kept in 16 bits
    weights = sum(one.numel() * one.element_size() for one in patient.model.parameters())
    for_each = half * seen.kept_bytes / seen.images
    needed, free = for_each * images + 3 * weights, machine.free_memory_bytes()
    if needed < FAR_BEYOND * free:
        return None
    fitting = max(1, int((0.8 * free - 3 * weights) / for_each))
    parts = next(
        (parts for parts in range(1, o.batch_size + 1) if o.batch_size % parts == 0 and o.batch_size // parts <= fitting), 1
    )
    return Finding(
        "batch-size",
        "error",
        f"A step with {images} images at once needs about {needed / 1e9:.3g} GB of memory, and {free / 1e9:.3g} GB are free.",
        {"memory needed": needed, "memory free": free, "images at once": images, "memory for each image": for_each},
        (Cause("memory", 0.95, f"{needed / free:.2g} times what is free"),),
        (
            Remedy(f"Compute the batch in {parts} parts.", {"optim.accumulate": parts}),
            Remedy(f"Or take a batch of {fitting} and the rate in proportion.", {"optim.batch_size": fitting}),
        ),
        "reckoned from one forward pass; `striate train --plan` measures it",
    )

"""The batch is too small for the rate, or so large that an epoch has hardly any steps.

Looks at the batch beside the steps of an epoch and in all, and at the rate that each image gets: rate / (1 - momentum) / batch.
"""

from __future__ import annotations

from striate.doctor.finding import Cause, Finding, NotJudged, Remedy
from striate.doctor.patient import Patient

SOURCE = "Goyal et al. 2017, section 2.1 (rate in proportion to the batch); Keskar et al. 2017; Shallue et al. 2019, section 4"
# Rate per image of SGD. ImageNet's usual 0.1 with momentum 0.9 for 256 images is 0.004.
LARGE_SHARE = 0.2
# SGD's usual rate for 256 images.
USUAL_RATE = 0.1
# Fewer images for a step of Adam than this: the gradient is mostly noise, and Adam takes steps of one size from it.
FEW = 4
# A batch up to this is not large.
USUAL = 64
# Of a stranger's loader, images of a batch from which few steps in an epoch are worth a word.
LARGE = 128
# Fewer steps in all than this, with fewer than that in an epoch, are too few to learn from.
FEW_STEPS, FEW_PER_EPOCH = 150, 6


def check(patient: Patient) -> Finding | None:
    """The finding, or None where batch, rate and schedule go together."""
    size = patient.batch_size
    if patient.recipe is None:
        return _of_stranger(patient, size)
    o = patient.recipe.optim
    total, per_epoch = patient.total_steps, patient.steps_per_epoch
    if total is not None and per_epoch is not None and total < FEW_STEPS and per_epoch < FEW_PER_EPOCH and size >= 32:
        smaller = max(8, 2 ** ((size * per_epoch // 40).bit_length() - 1))
        changes: dict[str, object] = {"optim.batch_size": min(size, smaller)}
        if o.lr_scaling == "none":
            changes["optim.lr"] = float(f"{o.lr * smaller / size:.3g}") if o.name.startswith("sgd") else o.lr
        return Finding(
            "batch-size",
            "warning" if size > USUAL else "note",  # a usual batch: there are few images, or epochs
            f"A batch of {size} leaves {per_epoch} steps in an epoch and {total} in all: too few to learn from.",
            {"batch": size, "steps in an epoch": per_epoch, "steps in all": total},
            (
                Cause("batch-too-large", 0.9, f"{per_epoch} steps in an epoch"),
                Cause("time", 0.3 if size > USUAL else 0.5, f"{total} steps in all"),
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


def _of_stranger(patient: Patient, size: int) -> Finding | None:
    """Of a loader only its batch is known, and how many of them make an epoch: enough for a note at the far ends."""
    per_epoch = patient.steps_per_epoch
    if size >= LARGE and per_epoch is not None and per_epoch <= FEW_PER_EPOCH // 2:
        words = f"A batch of {size} leaves {per_epoch} step{'s' * (per_epoch > 1)} in an epoch."
        cause = Cause("batch-too-large", 0.8, f"{per_epoch} steps for a pass over all images")
        ways = (Remedy("Take batches of 32 to 128 images, with the rate in proportion."),)
    elif size < FEW and (per_epoch is None or per_epoch > 1):
        words = f"A batch of {size}: its gradient is mostly noise."
        cause = Cause("batch-too-small", 0.7, f"{size} images for a step")
        ways = (Remedy("Take batches of 32 images or more, or add up the gradients of several before each step."),)
    elif per_epoch is None:
        raise NotJudged("the loader does not say its length")
    else:
        return None
    return Finding("batch-size", "note", words, {"batch": size, "steps in an epoch": per_epoch}, (cause,), ways, SOURCE)

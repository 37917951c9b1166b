"""The training is far from fitting into memory, or into its time.

Looks at what one forward pass of two images keeps for its backward pass, times the images of a step, beside the memory that is
free; and at the time of one pass, times the images of an epoch, beside the time that is given. Both are reckoned within seconds
and say only what is far off; what is near is measured by the rule `plan`, when there is time for it.
"""

from __future__ import annotations

import torch

from striate import machine
from striate import recipe as recipes
from striate.doctor import passes
from striate.doctor.finding import Cause, Finding, NotJudged, Remedy
from striate.doctor.patient import Patient
from striate.recipe import Recipe

SOURCE = "reckoned from one pass; `striate train --plan` measures it"
# A reckoning must say that it takes so many times what is free, and that so little of an epoch fits.
FAR_BEYOND, FEW_EPOCHS = 1.3, 0.5
IMAGES = 2


def check(patient: Patient) -> Finding | None:
    """The finding, or None where nothing is far off. Raises NotJudged where no batch, or no time, is planned."""
    if patient.recipe is None:
        raise NotJudged("no recipe is known")
    return _memory(patient, patient.recipe) or _time(patient, patient.recipe)


def _time(patient: Patient, recipe: Recipe) -> Finding | None:
    if recipe.budget.time is None or patient.train_index is None:
        return None
    given_s, images = recipes.seconds(recipe.budget.time), len(patient.train_index)
    seen = patient.signals  # first: it measures the time of a pass, which takes about as long as a step
    epoch_s = images * patient.pass_s / max(1, seen.images)
    if given_s > FEW_EPOCHS * epoch_s:
        return None
    return Finding(
        "fits",
        "warning",
        f"Only about {given_s / epoch_s:.2g} epochs fit into {recipe.budget.time}: a pass over {images:,} images takes about "
        f"{epoch_s:,.0f} s.",
        {"seconds given": given_s, "seconds for an epoch": epoch_s, "images": images},
        (Cause("time", 0.9, f"{given_s / epoch_s:.2g} epochs"),),
        (Remedy("Give it more time, or take smaller images or a smaller network: `striate measure` lists what they cost."),),
        SOURCE,
    )


def _memory(patient: Patient, recipe: Recipe) -> Finding | None:
    if patient.device.type != "cpu":
        return None
    o = recipe.optim
    images = o.batch_size // o.accumulate
    half = 1.0 if patient.precision == "fp32" else 0.5  # most of what is kept is then kept in 16 bits
    weights = sum(one.numel() * one.element_size() for one in patient.model.parameters())
    for_each = half * _kept_bytes(patient)
    needed, free = for_each * images + 3 * weights, machine.free_memory_bytes()
    if needed < FAR_BEYOND * free:
        return None
    fitting = max(1, int((0.8 * free - 3 * weights) / for_each))
    parts = next(
        (parts for parts in range(1, o.batch_size + 1) if o.batch_size % parts == 0 and o.batch_size // parts <= fitting), 1
    )
    return Finding(
        "fits",
        "error",
        f"A step with {images} images at once needs about {needed / 1e9:.3g} GB of memory, and {free / 1e9:.3g} GB are free.",
        {"memory needed": needed, "memory free": free, "images at once": images, "memory for each image": for_each},
        (Cause("memory", 0.95, f"{needed / free:.2g} times what is free"),),
        (
            Remedy(f"Compute the batch in {parts} parts.", {"optim.accumulate": parts}),
            Remedy(f"Or take a batch of {fitting} and the rate in proportion.", {"optim.batch_size": fitting}),
        ),
        SOURCE,
    )


def _kept_bytes(patient: Patient) -> float:
    """Bytes that a forward pass of one image keeps for its backward pass, in float32; parameters are not counted."""
    own = {parameter.untyped_storage().data_ptr() for parameter in patient.model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    images = patient.images[:IMAGES]
    saved = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with passes.preserved(patient.model), passes.as_trained(patient.model), torch.enable_grad(), saved:
        outputs = patient.model(images)  # kept alive until here, or storages would be used again and counted once
        del outputs
    return sum(kept.values()) / max(1, len(images))

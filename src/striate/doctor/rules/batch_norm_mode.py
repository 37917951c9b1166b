"""Batch normalisation that normalises nothing: over a single value, or in evaluation mode while the network trains.

Looks at the modes of the batch norms as the network was given, and at the number of values that each one averages over in a
batch of this size: images times positions of its grid. Over one value the output is the shift, whatever comes in.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from striate.doctor import passes
from striate.doctor.finding import Cause, Finding, Remedy, Severity
from striate.doctor.patient import Patient
from striate.errors import BatchTooSmallError
from striate.taps import Tap, taps

SOURCE = "Ioffe and Szegedy 2015, algorithm 1; Wu and He 2018 (group normalization), section 1 (small batches)"
# Of the new value, what a step lets into the running statistics: with less they are those of hundreds of steps ago.
SLOW = 0.003
# Values to average over: with fewer the statistics are noise. Wu and He's figure 1 shows the loss of accuracy below 8 images.
FEW_IMAGES = 4
# A network knows its images when their loss in training mode is below this share of ln K; it guesses above the second share, if
# that is so many nats more.
KNOWN, GUESSED, FAR = 0.7, 0.9, 0.5


def check(patient: Patient) -> Finding | None:
    """The finding, or None where every batch norm has a batch to normalise by."""
    norms = {name: one for name, one in patient.model.named_modules() if isinstance(one, nn.modules.batchnorm._BatchNorm)}
    if not norms:
        return None
    size = patient.batch_size
    resting = [name for name, norm in norms.items() if not norm.training and norm.running_mean is not None]
    with passes.preserved(patient.model):
        patient.model.train()  # some networks keep their norms in evaluation mode even then
        stubborn = [name for name, norm in norms.items() if not norm.training and norm.running_mean is not None]
    if patient.model.training:  # forward() itself may put them there
        stubborn = list(dict.fromkeys([*stubborn, *patient.signals.resting_norms]))
    if patient.model.training or stubborn:
        resting = stubborn or resting
        frozen = {name for name in resting if all(not one.requires_grad for one in norms[name].parameters())}
        if set(resting) - frozen:
            return _resting(sorted(set(resting) - frozen), len(norms), "warning")
    if not patient.model.training and patient.recipe is None and len(resting) == len(norms):
        return _resting(resting, len(norms), "note")
    grids = _grids(patient)
    single = [name for name, cells in grids.items() if cells * size < 2]
    if single:
        words = f"{len(single)} of {len(norms)} batch norms average over a single value: a batch of {size} and a grid of 1x1."
        return _small(patient, words, single, "error")
    alone = [name for name, cells in grids.items() if size == 1]
    if alone:
        words = f"Batch normalisation over one image: {len(norms)} batch norms see each image apart, and never the batch."
        return _small(patient, words, alone, "error")
    slow = {name: norm.momentum for name, norm in norms.items() if norm.momentum is not None and norm.momentum < SLOW}
    if len(slow) > len(norms) / 2 and any(norms[name].track_running_stats for name in slow):
        return _slow(slow, len(norms))
    if (found := _stale(patient, norms)) is not None:
        return found
    if size < FEW_IMAGES:
        words = f"Batch normalisation over {size} images: its statistics are noise, and differ from those of evaluation."
        return _small(patient, words, list(norms), "warning")
    return None


@torch.no_grad()
def _stale(patient: Patient, norms: dict[str, nn.modules.batchnorm._BatchNorm]) -> Finding | None:
    """Whether a network that knows its training images in training mode guesses when the same images are evaluated."""
    kept = [name for name, norm in norms.items() if norm.running_mean is not None]
    main = patient.signals.main
    chance = math.log(max(2, main.outputs))
    if not kept or not main.loss < KNOWN * chance:
        return None
    count = patient.looked_at
    with passes.preserved(patient.model):
        patient.model.eval()
        logits = next(iter(passes.heads_of(patient.model(patient.images[:count])).values())).float()
    evaluated = float(torch.nn.functional.cross_entropy(logits, patient.labels[:count]))
    if evaluated < max(GUESSED * chance, main.loss + FAR):
        return None
    return Finding(
        "batch-norm-statistics",
        "error",
        f"In training mode the network knows its training images (loss {main.loss:.3g}), and in evaluation mode it guesses the "
        f"same ones (loss {evaluated:.3g}; guessing has {chance:.3g}): its running statistics are not those of the data.",
        {"loss in training mode": main.loss, "loss in evaluation mode": evaluated, "batch norms with statistics": len(kept)},
        (Cause("batch-norm-statistics", 0.9, f"the same weights and images, {evaluated - main.loss:.2g} apart"),),
        (
            Remedy("Copy buffers along with parameters (load_state_dict copies both), or average weights with use_buffers=True."),
            Remedy("Measure them anew: some hundred images in training mode without steps; torch.optim.swa_utils.update_bn."),
        ),
        "Ioffe and Szegedy 2015, section 3.1 (inference); Izmailov et al. 2018, section 3.2 (statistics of averaged weights)",
        layer=kept[0],
    )


def _grids(patient: Patient) -> dict[str, int]:
    """Positions of the grid that each batch norm averages over."""
    found: dict[str, int] = {}

    def watch(name: str) -> Tap:
        def note(_layer: nn.Module, inputs: tuple[torch.Tensor, ...], _output: torch.Tensor) -> None:
            found.setdefault(name, inputs[0][0, 0].numel() if inputs[0].dim() > 2 else 1)

        return note

    norms = [name for name, one in patient.model.named_modules() if isinstance(one, nn.modules.batchnorm._BatchNorm)]
    images = patient.images if len(patient.images) > 1 else torch.cat([patient.images, patient.images])
    watched = taps(patient.model, {name: watch(name) for name in norms})
    with torch.no_grad(), passes.preserved(patient.model), passes.as_trained(patient.model), watched:
        patient.model(images[:2])
    return found


def _resting(names: list[str], count: int, severity: Severity) -> Finding:
    which = (
        f"{len(names)} of {count} batch norms are" if severity == "warning" else "The network, and with it every batch norm, is"
    )
    return Finding(
        "batch-norm-mode",
        severity,
        f"{which} in evaluation mode: they scale by statistics from before the training instead of the batch's.",
        {"batch norms": count, "in evaluation mode": len(names), "names": names[:20]},
        (Cause("batch-norm-mode", 0.9, f"{len(names)} of {count} in evaluation mode, their scale and shift not frozen"),),
        (
            Remedy(
                "Call model.train() before each epoch, after an evaluation too. If it is meant, freeze scale and shift as well."
            ),
        ),
        SOURCE,
        layer=names[0],
    )


def _slow(slow: dict[str, float], count: int) -> Finding:
    momentum = max(slow.values())
    return Finding(
        "batch-norm-statistics",
        "warning",
        f"{len(slow)} of {count} batch norms let {momentum:.2g} of a step into their running statistics: after 1,000 steps "
        f"these are still to {(1 - momentum) ** 1000:.0%} what they started as, and evaluation uses them.",
        {"batch norms": count, "momentum": momentum, "names": list(slow)[:20]},
        (Cause("batch-norm-statistics", 0.9, f"a momentum of {momentum:.2g}, where 0.1 is usual and 0.01 is slow"),),
        (Remedy("Take a momentum of 0.1 (in TensorFlow's terms 0.9)."),),
        "Ioffe and Szegedy 2015, section 3.1 (inference); torch.nn.BatchNorm2d (momentum)",
        layer=next(iter(slow)),
    )


def refused(error: BatchTooSmallError) -> Finding:
    """The finding of a training that is refused, for its batches are too small for batch normalisation."""
    return Finding(
        "batch-norm-batch",
        "error",
        f"The training would not begin. {error}",
        {},
        (
            Cause("batch-norm-single", 0.95, "a batch normalisation would see one image at a time"),
            Cause("batch-too-small", 0.6, ""),
        ),
        (Remedy("Use a batch of 16 or more, in fewer parts.", {"optim.batch_size": 32, "optim.accumulate": 1}),),
        SOURCE,
    )


def _small(patient: Patient, sentence: str, names: list[str], severity: Severity) -> Finding:
    size = patient.batch_size
    changes = {"optim.batch_size": 32} if patient.recipe is not None else {}
    return Finding(
        "batch-norm-batch",
        severity,
        sentence,
        {"images of a batch": size, "batch norms": len(names)},
        (
            Cause("batch-norm-single" if size < 2 else "batch-too-small", 0.9, f"{size} images at once"),
            Cause("batch-too-small" if size < 2 else "batch-norm-single", 0.5, "batch normalisation wants 8 images or more"),
        ),
        (Remedy("Use a batch of 16 or more; with little memory a network with group normalisation.", changes),),
        SOURCE,
        layer=names[0] if names else None,
    )

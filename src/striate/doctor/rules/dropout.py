"""Dropout so strong that what the network says depends on the units that are left more than on the image.

Looks at two forward passes over the same images with other units dropped, and at how far the two agree about what differs between
the images. A gradient through such a network is mostly noise. torch's `p` is the share that is dropped; papers and older
libraries state the share that is kept, so 0.9 of one is 0.1 of the other.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from striate.doctor import passes
from striate.doctor.finding import Cause, Finding, NotJudged, Remedy
from striate.doctor.patient import Patient
from striate.machine import reseed_torch

SOURCE = "Srivastava et al. 2014, section 7.3 (0.5 to 0.8 of the units are kept); torch.nn.Dropout (p is what is dropped)"
# Of the networks as their papers train them the least that two passes agree is 0.3 (AlexNet, half of two layers dropped, at its
# start); five layers of which 0.9 is dropped leave 0.01.
AGREE = 0.1
# A layer that drops less than this is no reason by itself: GoogLeNet's auxiliary heads drop 0.7, and a network that starts with
# small weights says so little that any dropout is louder.
STRONG = 0.75


def check(patient: Patient) -> Finding | None:
    """The finding, or None where two passes with other units dropped say much the same. Raises NotJudged without dropout."""
    dropping = {
        name: layer.p
        for name, layer in patient.model.named_modules()
        if isinstance(layer, nn.modules.dropout._DropoutNd) and layer.p > 0
    }
    if not dropping:
        raise NotJudged("no dropout")
    strongest = max(dropping.values())
    if strongest < STRONG:
        return None
    agreement = _agreement(patient)
    if agreement >= AGREE:
        return None
    changes: dict[str, Any] = {}
    if patient.recipe is not None and "dropout" in patient.recipe.model.options:
        changes = {"model.options.dropout": 0.5}
    return Finding(
        "dropout",
        "warning",
        f"Dropout of up to {strongest:.0%} in {len(dropping)} layers drowns the signal: what two passes over the same images say "
        f"of the differences between them agrees to {max(0.0, agreement):.2g}, where 1 is the same.",
        {"agreement of two passes": agreement, "layers that drop": dropping},
        (
            Cause("regularisation-strong", 0.9, f"{strongest:.0%} dropped, in {len(dropping)} layers"),
            Cause("underfitting", 0.2, "a wider network bears more dropout"),
        ),
        (
            Remedy("Take 0.5 or less; if the number is a share that is kept, give torch one less it.", changes),
            Remedy("Drop behind one or two layers only, near the end."),
        ),
        SOURCE,
        layer=max(dropping, key=lambda name: dropping[name]),
    )


def _agreement(patient: Patient) -> float:
    """Correlation of the logits of two passes with other units dropped, over images and classes, each class less its mean."""
    images = patient.images[: patient.looked_at]
    said = []
    with torch.no_grad(), passes.preserved(patient.model), passes.as_trained(patient.model, dropout=True):
        for number in range(2):
            reseed_torch(0, 0, number)
            logits = next(iter(passes.heads_of(patient.model(images)).values())).double()
            said.append(logits - logits.mean(0, keepdim=True))
    first, second = said
    size = float((first.square().mean() * second.square().mean()).sqrt())
    return float((first * second).mean()) / size if size > 0 else 1.0

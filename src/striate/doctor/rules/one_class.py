"""All images have one label, or the training batches hold one class at a time.

Looks at the labels of the training set; of a stranger's loader at those of its first batches. A loss of nearly nothing after a
few steps is what one label gives. A loader that is not shuffled looks the same at first: its files are sorted by class.
"""

from __future__ import annotations

import torch

from striate.doctor.finding import Cause, Finding, NotJudged, Remedy
from striate.doctor.patient import Patient

SOURCE = "torch.utils.data.DataLoader (shuffle is off by default); torchvision's ImageFolder lists files class by class"
# So few labels may be equal by chance.
LEAST_IMAGES = 16
# Share of labels that equal the one before. Of a shuffled loader it is that of chance; of a sorted one nearly all do.
IN_A_ROW = 0.95


def check(patient: Patient) -> Finding | None:
    """The finding, or None where batches hold several classes."""
    batch = patient.labels.cpu()
    labels = patient.seen_labels
    labels = labels[labels >= 0]
    if len(labels) < LEAST_IMAGES:
        raise NotJudged("too few labels")
    present = torch.unique(labels)
    whose = "training images" if patient.train_index is not None else f"first {len(labels):,} training images"
    evidence = {"images": len(labels), "labels": len(present), "labels in the first batch": len(torch.unique(batch))}
    if len(present) == 1:
        is_certain = patient.train_index is not None
        because = f"of {len(labels):,} {'' if is_certain else 'first '}labels all are {int(present[0])}"
        return _finding(
            f"All {whose} have the label {int(present[0])}.",
            evidence,
            Cause("one-class", 0.95 if is_certain else 0.7, because),
            "Look at how labels are made: a folder too high, the wrong column, a comparison that is never true.",
            is_certain,
        )
    if len(present) > 1 and len(batch) >= LEAST_IMAGES and len(torch.unique(batch)) == 1 and _is_sorted(patient, labels):
        because = (
            f"the labels of {len(labels):,} images come in runs, and all {len(batch)} of the first batch are {int(batch[0])}"
        )
        return _finding(
            f"Training batches hold one class at a time: all {len(batch)} of the first one have the label {int(batch[0])}.",
            evidence,
            Cause("one-class", 0.7, because),
            "Shuffle the training images: DataLoader(..., shuffle=True).",
            True,
        )
    return None


def _finding(sentence: str, evidence: dict[str, int], cause: Cause, advice: str, is_certain: bool) -> Finding:
    remedies = [Remedy(advice)]
    if not is_certain:
        remedies.insert(0, Remedy("If the files are sorted by class, shuffle them: DataLoader(..., shuffle=True)."))
    return Finding("one-class", "error", sentence, evidence, (cause,), tuple(remedies), SOURCE)


def _is_sorted(patient: Patient, labels: torch.Tensor) -> bool:
    """Whether a stranger's loader gives the classes one after another. Striate's own order is always shuffled."""
    return patient.train_index is None and float((labels[1:] == labels[:-1]).float().mean()) >= IN_A_ROW

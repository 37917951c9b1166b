"""Some classes have many times the images of others, or none.

Looks at the number of training images of each class; of a stranger's loader at the labels of its first batches, where they are
enough. The loss counts images, so a network learns first to name the large classes. ImageNet's classes differ by less than a
factor of two, which nobody notices.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from striate.doctor.finding import Cause, Curve, Finding, NotJudged, Remedy, Severity
from striate.doctor.patient import Patient

SOURCE = "Buda, Maki and Mazurowski 2018 (class imbalance), sections 3 and 4; Cui et al. 2019, section 4 (factors from 10)"
# Images of the largest class over those of the smallest. Buda et al. see little harm at 2 and clear harm from 10 on.
RATIO, NOTED_RATIO = 10.0, 4.0
# Share of the largest class among two.
LARGEST_OF_TWO = 0.85
# Images of a class on average that labels of a loader must have for counts to mean something.
SEEN_PER_CLASS = 20
_SHOWN, _POINTS = 5, 100


def check(patient: Patient) -> Finding | None:
    """The finding, or None where classes are of like size, or where the training already evens them out."""
    counts_K = _counts(patient)
    if counts_K is None:
        raise NotJudged("too few labels")
    if (counts_K > 0).sum() < 2:
        raise NotJudged("fewer than two classes")
    largest, smallest = int(counts_K.max()), int(counts_K.min())
    empty = int((counts_K == 0).sum())
    least = int(counts_K[counts_K > 0].min())
    ratio = largest / least
    share = largest / int(counts_K.sum())
    is_even = ratio < NOTED_RATIO and not empty
    if is_even or (_is_evened(patient) and not empty):
        return None
    effective = _effective(counts_K)
    is_skewed = ratio >= RATIO or (len(counts_K) == 2 and share >= LARGEST_OF_TWO)
    severity: Severity = "warning" if empty or is_skewed else "note"
    evidence: dict[str, Any] = {
        "classes": len(counts_K),
        "images of the largest": largest,
        "images of the smallest": smallest,
        "largest over smallest": ratio,
        "share of the largest": share,
        "as good as so many equal classes": effective,
        "classes without images": empty,
        "smallest classes": _named(patient, np.argsort(counts_K, kind="stable")[:_SHOWN].tolist(), counts_K),
    }
    said = f"The largest class has {ratio:.0f} times the training images of the smallest ({largest:,} and {least:,})"
    if empty:
        said = f"{empty} of {len(counts_K)} classes have no training image"
    return Finding(
        "unequal-classes",
        severity,
        said + ".",
        evidence,
        (Cause("unequal-classes", 0.8 if severity == "warning" else 0.3, f"counts from {smallest:,} to {largest:,}"),),
        tuple(_remedies(patient, empty)),
        SOURCE,
        curve=_curve(counts_K),
    )


def _counts(patient: Patient) -> np.ndarray | None:
    """Images of each class; of a loader only where a fair sample of it was seen."""
    if patient.train_index is not None:
        return patient.train_index.counts()
    labels = patient.seen_labels.numpy()
    labels = labels[labels >= 0]
    classes = max(patient.classes or 0, int(labels.max(initial=-1)) + 1)
    if classes < 2 or len(labels) < SEEN_PER_CLASS * classes or (labels[1:] == labels[:-1]).mean() > 0.9:
        return None
    counts_K = np.bincount(labels, minlength=classes)
    if (counts_K == 0).any() and patient.classes is None:
        counts_K = counts_K[counts_K > 0]  # numbers that nobody said are classes
    return counts_K


def _effective(counts_K: np.ndarray) -> float:
    """The exponential of the entropy of the shares: K for equal classes, near 1 where one has nearly all images."""
    shares = counts_K[counts_K > 0] / counts_K.sum()
    return math.exp(-float((shares * np.log(shares)).sum()))


def _is_evened(patient: Patient) -> bool:
    recipe = patient.recipe
    return recipe is not None and (recipe.loss.balance or bool(recipe.loss.class_weights) or recipe.data.sampling == "classes")


def _remedies(patient: Patient, empty: int) -> list[Remedy]:
    if patient.recipe is None:
        found = [
            Remedy("Weigh classes in the loss: CrossEntropyLoss(weight=counts.sum() / (len(counts) * counts))."),
            Remedy("Or draw each class equally often: torch.utils.data.WeightedRandomSampler."),
        ]
    else:
        found = [
            Remedy("Weigh each class in the loss by the inverse of its images.", {"loss.balance": True}),
            Remedy("Or draw each class equally often.", {"data.sampling": "classes"}),
        ]
    if empty:
        found.insert(0, Remedy("Add images to the empty classes, or take these classes out: they can only be wrong answers."))
    return found


def _named(patient: Patient, numbers: list[int], counts_K: np.ndarray) -> dict[str, int]:
    index = patient.train_index
    return {index.classes.title(k) if index is not None else str(k): int(counts_K[k]) for k in numbers}


def _curve(counts_K: np.ndarray) -> Curve:
    ordered = np.sort(counts_K)[::-1]
    shown = np.unique(np.linspace(0, len(ordered) - 1, min(len(ordered), _POINTS)).astype(int))
    places = [float(place + 1) for place in shown]
    values = [float(count) for count in ordered[shown]]
    return Curve(
        "Training images of each class", "class, by size", "images", places, {"images": values}, is_log=bool(ordered.min() > 0)
    )

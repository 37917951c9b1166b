"""The validation set numbers its classes in another order than the training set.

Looks at thumbnails of both: what the training images that look like each validation image are called (`doctor.neighbours`). Where
that agrees with the validation labels no more than chance, but does so under another numbering, the two sets number their
classes differently. Orders that occur are tried by name: moved by one (labels from 1), the other way round, and numbers sorted as
text ("10" before "2"); then the best renaming is sought with one half of the validation images and judged by the other half.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from striate import machine
from striate.doctor import neighbours
from striate.doctor.finding import Cause, Curve, Finding, NotJudged, Remedy
from striate.doctor.neighbours import Known, Labels
from striate.doctor.patient import Patient

SOURCE = (
    "torchvision ImageFolder (classes by sorted folder name); vision issues 714 and 3429, ultralytics issue 13936 (class indices "
    "mixed up); better renamings judged on another half: striate.evaluate.metrics.better_permutation"
)
# The training labels must fit their own images by this many deviations of chance, or nothing can be said.
SURE = 6.0
# A renaming must hold for this many deviations more images than the labels as they are, and for twice as many.
BETTER, TIMES = 4.0, 2.0
# Of what the training images reach among themselves above chance: what a renaming must reach, and what labels that fit do not
# fall below, even where training images are augmented and validation images are not.
REACHED, FITS = 0.5, 0.2
LEAST_IMAGES = 60
# Of what the best renaming reaches, an order with a name must reach this much: classes that look alike lend it some hits.
AS_GOOD = 0.85


def check(patient: Patient) -> Finding | None:
    """The finding, or None where both sets number their classes alike, or nobody can tell."""
    train, scored = neighbours.of(patient, "train"), neighbours.of(patient, "scored")
    if patient.val_index is None and patient.scored is None:
        raise NotJudged("no validation images")
    if train is None or scored is None:
        raise NotJudged("too few labelled images")
    if train.agreement.above < SURE:
        raise NotJudged("looks do not tell the classes")
    is_shared_M = np.isin(scored.thumbnails.labels_N, train.numbers_K)
    if is_shared_M.sum() < max(LEAST_IMAGES, 2 * train.classes):
        raise NotJudged("too few labelled images")
    labels_M = np.searchsorted(train.numbers_K, scored.thumbnails.labels_N[is_shared_M]).astype(np.int64)
    scores_MK = train.probe.said(train.labels_N, train.classes, scored.probe.features_ND[is_shared_M])
    said_M = scores_MK.argmax(axis=1)
    now = float((said_M == labels_M).mean())
    order, name, renamed, judged = _best(train, labels_M, scores_MK)
    evidence: dict[str, Any] = {
        "images": int(is_shared_M.sum()),
        "agree as numbered": now,
        "agree renamed": renamed,
        "training images among themselves": train.agreement.share,
        "order": name,
    }
    if order is not None:
        return _renamed(patient, train, order, name, evidence, judged)
    return _unlike(train, scored, now, evidence)


def _best(train: Known, labels_M: Labels, scores_MK: NDArray[np.float32]) -> tuple[Labels | None, str, float, int]:
    """The renaming that is much better than the numbers as they are, its name, its share of hits, and images that judged it."""
    said_M = scores_MK.argmax(axis=1)
    images = len(labels_M)
    found: tuple[Labels | None, str, float, int] = (None, "none found", 0.0, 0)
    for name, order in _orders(train):
        is_known_M = order[labels_M] >= 0
        known, hits = int(is_known_M.sum()), int((said_M == order[labels_M])[is_known_M].sum())
        is_reached = hits > max(REACHED * train.agreement.share, found[2]) * known
        if is_reached and _is_better(hits, int((said_M == labels_M)[is_known_M].sum())):
            found = (order, name, hits / known, known)
    # A coin for each image, the same for every run: one half chooses, the other judges, and then the other way round.
    coin_M = machine.permutation(0, "doctor class order", 0, images) % 2 == 0
    hits = now = judged = 0
    for chooses_M in (coin_M, ~coin_M):
        order = _assigned(labels_M[chooses_M], scores_MK[chooses_M], train.classes)
        is_moved_M = ~chooses_M & (order[labels_M] != labels_M)
        hits += int((said_M == order[labels_M])[is_moved_M].sum())
        now += int((said_M == labels_M)[is_moved_M].sum())
        judged += int(is_moved_M.sum())
    if judged == 0 or not _is_better(hits, now) or hits / judged < REACHED * train.agreement.share:
        return found
    if found[0] is not None and found[2] >= AS_GOOD * hits / judged:
        return found
    order = _assigned(labels_M, scores_MK, train.classes)
    return order, "another order", hits / judged, judged


def _is_better(hits: int, now: int) -> bool:
    return hits >= TIMES * now and hits - now > BETTER * math.sqrt(hits + now)


def _assigned(labels_M: Labels, scores_MK: NDArray[np.float32], classes: int) -> Labels:
    """For each validation number the training number that its images look like, one to one, by mean score."""
    sums = np.zeros((classes, classes))
    np.add.at(sums, labels_M, scores_MK - scores_MK.mean(axis=0))
    counts = np.maximum(np.bincount(labels_M, minlength=classes), 1)
    return neighbours.best_assignment(sums / counts[:, None])


def _orders(train: Known) -> Iterator[tuple[str, Labels]]:
    """Orders that occur: for each number of a validation label the training number that it means, -1 where that has no images."""
    numbers_K = train.numbers_K
    whole = int(numbers_K.max()) + 1
    count = np.arange(whole)
    as_text = np.array(sorted(count.tolist(), key=str))
    orders = {
        "one too high": count - 1,
        "one too low": count + 1,
        "the other way round": whole - 1 - count,
        "numbers sorted as text": as_text,
        "numbers sorted as text in training": np.argsort(as_text),
    }
    for name, order in orders.items():
        meant_K = order[numbers_K]
        place_K = np.minimum(np.searchsorted(numbers_K, meant_K), len(numbers_K) - 1)
        found_K = np.where(numbers_K[place_K] == meant_K, place_K, -1).astype(np.int64)
        if (found_K != np.arange(len(numbers_K))).mean() > 0.3:
            yield name, found_K


def _renamed(patient: Patient, train: Known, order: Labels, name: str, evidence: dict[str, Any], judged: int) -> Finding:
    is_moved = name in ("one too high", "one too low")
    moved_K = np.flatnonzero((order >= 0) & (order != np.arange(len(order))))
    evidence |= {"classes renamed": len(moved_K)}
    evidence["renaming"] = {_title(patient, train, int(k)): _title(patient, train, int(order[k])) for k in moved_K[:5]}
    because = (
        f"of {judged} validation images {evidence['agree renamed']:.1%} look like the training images of the class in another "
        f"numbering ({name}), {evidence['agree as numbered']:.1%} as they are numbered"
    )
    first = "labels-off-by-one" if is_moved else "class-order"
    second = Cause("class-order", 0.4, "another order that moves every class by one, as a class more or less does")
    other = (second,) if is_moved else (Cause("labels-shuffled", 0.1, "classes are renamed one by one, not image by image"),)
    advice = (
        "Count the labels of both sets from 0, or from 1, but alike."
        if is_moved
        else "Make both sets with one list of classes: number validation labels by the training set's names, not by sorting anew."
    )
    return Finding(
        "class-order",
        "error",
        f"The validation set numbers its classes otherwise than the training set ({name}): {evidence['agree as numbered']:.0%} "
        f"of its images look like the training images of their class, and renamed {evidence['agree renamed']:.0%}.",
        evidence,
        (Cause(first, 0.9, because), *other),
        (Remedy(advice),),
        SOURCE,
        curve=_curve(evidence),
    )


def _unlike(train: Known, scored: Known, now: float, evidence: dict[str, Any]) -> Finding | None:
    """Both sets fit their own labels and not each other's, and no renaming was found: other classes, or cut otherwise."""
    chance = train.agreement.chance
    if now - chance > FITS * (train.agreement.share - chance):
        return None
    if scored.agreement.above < SURE:
        raise NotJudged("looks do not tell the classes")
    because = f"training and validation labels fit their own images, and {now:.1%} of the validation images those of the training"
    return Finding(
        "class-order",
        "warning",
        f"The validation labels do not mean what the training labels mean: {now:.1%} agree with what the images look like, "
        f"as by chance ({chance:.1%}), though each set fits its own images.",
        evidence,
        (
            Cause("class-order", 0.7, because),
            Cause("preprocessing-mismatch", 0.3, "images prepared in another way look otherwise, too"),
        ),
        (Remedy("Compare the class lists of both sets by name, and draw some validation images with their labels."),),
        SOURCE,
        curve=_curve(evidence),
    )


def _curve(evidence: dict[str, Any]) -> Curve:
    names = ["as numbered", "renamed", "training images"]
    values = [evidence["agree as numbered"], evidence["agree renamed"], evidence["training images among themselves"]]
    return Curve("Images that look like the training images of their class", "numbering", "share", names, {"share": values})


def _title(patient: Patient, train: Known, number: int) -> str:
    label = int(train.numbers_K[number])
    index = patient.train_index
    return index.classes.title(label) if index is not None and label < len(index.classes) else str(label)

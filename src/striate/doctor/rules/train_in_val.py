"""Validation images that are training images.

Looks at three things. Files of the validation set whose bytes are those of a training file, found by size first and then by
hash, in random order for as long as the time allows. Files that are one and the same by their path. And thumbnails that show
the same picture, saved again or resized, by the perceptual hash of `striate data audit`. A network is then scored on what it
has learnt by heart, and the score says nothing about other images.
"""

from __future__ import annotations

import hashlib
import time
from typing import Any

import numpy as np

from striate import machine
from striate.data.decode import BadImage
from striate.data.index import Index
from striate.doctor import thumbnails
from striate.doctor.finding import Cause, Finding, NotJudged, Remedy
from striate.doctor.patient import Patient
from striate.evaluate import metrics

SOURCE = (
    "Barz and Denzler 2020 (Do we train on test data?), sections 2 and 4: near-duplicates in CIFAR; Recht et al. 2019, section 2"
)
# Share of the validation images. Tiny ImageNet as shipped has 2 in 5,000, CIFAR-10 3 %.
WARNED, ERROR = 0.01, 0.1
LEAST = 3
# Time for reading files, and validation images that are compared.
_MOST_S, _SHARE_S = 0.7, 0.05
_MOST_IMAGES = 2000
_SHOWN = 5


def check(patient: Patient) -> Finding | None:
    """The finding, or None where no validation image was found among the training images."""
    train, val = patient.train_index, patient.val_index
    pairs: list[tuple[str, str]] = []
    looked, same = 0, 0
    if train is not None and val is not None:
        seconds = min(_MOST_S, _SHARE_S * max(0.0, patient.left_s))
        pairs, looked = equal_files(train, val, seconds)
        same = len({one for one, _ in pairs})
    share = same / looked if looked else 0.0
    alike, compared, covered = _alike(patient)
    near = len({one for one, _ in alike})
    # Only a part of the training images was compared, so most copies were missed.
    near_share = min(1.0, near / (compared * covered)) if compared else 0.0
    if not looked and not compared:
        raise NotJudged("no validation images" if val is None and patient.scored is None else "no images to compare")
    if not same and near < LEAST:
        return None
    shown = dict(pairs[:_SHOWN] or alike[:_SHOWN])
    worst = max(share, near_share)
    evidence: dict[str, Any] = {
        "validation images compared by bytes": looked,
        "of them also in training": same,
        "thumbnails compared": compared,
        "of them the same picture as one in training": near,
        "share of the training images compared with": covered,
        "estimated share": worst,
        "examples": shown,
    }
    count = max(same, near)
    is_many = count >= LEAST and _surely_above(same, looked, near, compared, covered)
    return Finding(
        "train-in-val",
        ("error" if worst >= ERROR else "warning") if is_many else "note",
        f"{_said(same, looked, near, compared)}: about {worst:.1%} of the validation set was seen in training.",
        evidence,
        (Cause("train-in-val", 0.9 if is_many else 0.3, f"{same} of {looked} by bytes, {near} of {compared} by looks"),),
        (
            Remedy("Take these images out of the training set, and score again: `striate data audit DATA` lists every pair."),
            Remedy(
                "Split before augmenting or copying images, and by what they show (scene, patient, video), not image by image."
            ),
        ),
        SOURCE,
    )


def _said(same: int, looked: int, near: int, compared: int) -> str:
    said = f"{same} of {looked:,} validation images are, byte for byte, training images" if same else ""
    if near >= LEAST:
        said += f"{', and ' if said else ''}{near} of {compared:,} show the same picture as one"
    return said


def _surely_above(same: int, looked: int, near: int, compared: int, covered: float) -> bool:
    """Whether the share is above the mark: for a part of the training images, above it even if those found were lucky."""
    by_bytes = same >= LEAST and same / looked >= WARNED
    by_looks = near >= LEAST and metrics.wilson(near, compared)[0] / covered >= WARNED / 2 and near / compared / covered >= WARNED
    return by_bytes or by_looks


def equal_files(train: Index, val: Index, seconds: float) -> tuple[list[tuple[str, str]], int]:
    """Validation images with the bytes of a training image, as (key, key), and how many validation images were compared.

    Only files of equal size are read. Where a store keeps no files, what it gives is hashed.
    """
    ends = time.monotonic() + seconds
    order = np.argsort(train.sizes_bytes, kind="stable")
    sizes = train.sizes_bytes[order]
    hashes: dict[int, bytes] = {}
    found: list[tuple[str, str]] = []
    looked = 0
    for row in machine.permutation(0, "doctor train in val", 0, len(val))[:_MOST_IMAGES].tolist():
        if looked and time.monotonic() > ends:
            break
        size = val.sizes_bytes[row]
        first, last = np.searchsorted(sizes, size, "left"), np.searchsorted(sizes, size, "right")
        looked += 1
        if first == last:
            continue
        own = _hash(val, row)
        if own is None:
            continue
        for other in order[first:last].tolist():
            if other not in hashes:
                hashes[other] = _hash(train, other) or b""
            if hashes[other] == own:
                found.append((val.keys[row], train.keys[other]))
                break
    return found, looked


def _hash(index: Index, row: int) -> bytes | None:
    try:
        content = index.content(row)
    except BadImage:
        return None
    return hashlib.blake2b(content if isinstance(content, bytes) else content.tobytes(), digest_size=16).digest()


def _alike(patient: Patient) -> tuple[list[tuple[str, str]], int, float]:
    """Validation thumbnails that show what a training thumbnail shows; how many were compared, and with which share."""
    train, scored = thumbnails.of(patient, "train"), thumbnails.of(patient, "scored")
    if train is None or scored is None:
        return [], 0, 1.0
    pairs_M2 = thumbnails.same_pictures(scored, train)
    covered = len(train) / train.total if train.total else 1.0
    return [(scored.keys[a], train.keys[b]) for a, b in pairs_M2.tolist()], len(scored), covered

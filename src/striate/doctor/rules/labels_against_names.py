"""File names that say another class than the label does.

Looks at the keys of the training and validation images, nothing else: whether the words that file names begin with (WordNet
ids, class names) stand for the labels one to one, save for some images. Then those are probably in the wrong folder, or in the
wrong row of a list. Names that say nothing of the class (IMG_0001, numbers, cameras) fit no label one to one, and are left
alone.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from striate import machine
from striate.data.index import Index
from striate.doctor.finding import Cause, Finding, NotJudged, Remedy
from striate.doctor.patient import Patient
from striate.doctor.rules.labels_shuffled import word_columns

SOURCE = (
    "pytorch/vision issue 714 and ultralytics issue 13936 (labels that do not go with the files); ILSVRC's names, WNID_number"
)
# Share of the images whose name says another class. One in a thousand may be named oddly; beyond three fifths words mean nothing.
LEAST_SHARE, MOST_SHARE = 0.002, 0.6
WARNED, LEAST_IMAGES = 0.01, 3
# Each label's word must name this share of its images, and the words of all labels together this share of all images.
OF_LABEL, OF_ALL = 0.35, 0.9
PER_CLASS = 5
_MOST_KEYS = 20_000
_SHOWN = 10


@dataclass(frozen=True)
class _Named:
    """Images of a split whose names were compared, and (key, class said by the name, label's class) of those that disagree."""

    images: int
    against: list[tuple[str, str, str]]


def check(patient: Patient) -> Finding | None:
    """The finding, or None where names agree with labels, or say nothing of classes."""
    splits = {"train": patient.train_index, "val": patient.val_index}
    found = {name: named for name, index in splits.items() if index is not None and (named := _compared(index)) is not None}
    if not found:
        has_index = any(index is not None for index in splits.values())
        raise NotJudged("file names say nothing of classes" if has_index else "no file names")
    images = sum(named.images for named in found.values())
    against = [one for named in found.values() for one in named.against]
    if len(against) < LEAST_IMAGES or len(against) < LEAST_SHARE * images:
        return None
    share = len(against) / images
    is_many = share >= WARNED
    evidence: dict[str, Any] = {
        "images compared": images,
        "named as another class": len(against),
        "share": share,
        "by split": {name: f"{len(named.against)} of {named.images:,}" for name, named in found.items()},
        "examples": {key: f"{label}, the name says {said}" for key, said, label in against[:_SHOWN]},
    }
    return Finding(
        "labels-against-names",
        "warning" if is_many else "note",
        f"The names of {share:.1%} of the images say another class than their labels do ({len(against):,} of {images:,}).",
        evidence,
        (
            Cause(
                "label-noise", 0.7 if is_many else 0.3, f"words in file names stand for classes one to one, save in {share:.1%}"
            ),
            Cause("labels-shuffled", 0.3 if share > 0.3 else 0.1, "rows of a list that slipped make such a share as well"),
        ),
        (
            Remedy("Look at these images: where the name is right, move the file or correct its row."),
            Remedy("Soften what is learnt from wrong labels until then.", {"loss.smoothing": 0.1} if patient.recipe else {}),
        ),
        SOURCE,
    )


def _compared(index: Index) -> _Named | None:
    """Names against labels; None where no word of the names stands for each label."""
    rows = machine.permutation(0, "doctor names", 0, len(index))[:_MOST_KEYS]
    rows = rows[np.asarray(index.labels)[rows] >= 0]
    labels = np.asarray(index.labels)[rows].tolist()
    counts = Counter(labels)
    if len(counts) < 2 or len(labels) < PER_CLASS * len(counts):
        return None
    # The last folder often is the label itself; the name of the file is what can contradict it.
    words = word_columns(tuple(index.keys[row] for row in rows.tolist()))[-1]
    together = Counter(zip(words, labels, strict=True))
    of_word: dict[str, Counter[int]] = {}
    for (word, label), count in together.items():
        of_word.setdefault(word, Counter())[label] = count
    meant = {word: counted.most_common(1)[0] for word, counted in of_word.items()}
    word_of: dict[int, str] = {}
    for word, (label, count) in sorted(meant.items(), key=lambda one: -one[1][1]):
        if label not in word_of and count >= OF_LABEL * counts[label]:
            word_of[label] = word
    covered = [place for place, word in enumerate(words) if meant[word][0] in word_of and word_of[meant[word][0]] == word]
    if len(word_of) < len(counts) or len(covered) < OF_ALL * len(words):
        return None
    against = []
    for place in covered:
        said = meant[words[place]][0]
        if said != labels[place]:
            row = int(rows[place])
            against.append((index.keys[row], index.classes.title(said), index.classes.title(labels[place])))
    return _Named(len(covered), against) if len(against) <= MOST_SHARE * len(covered) else None

"""Labels that do not belong to their images: a list sorted otherwise than the files, one shuffled without the other.

Looks at some hundred thumbnails: whether images that look alike have the same label, more often than with shuffled labels
(`doctor.neighbours`). Of 100 pairs of neighbouring classes of Tiny ImageNet (two breeds of dog, two kinds of bus), 300 images
each, the hardest lies 5.8 deviations of chance above it, the median pair 14; with shuffled labels none does. So chance says
much, but it is no proof: a task may be hard for the eye. Proofs are looked for beside it:

- words in the file names (a WordNet id, a folder) that go with the images' looks, while the labels do not go with the words;
- the labels fit when they are moved by some rows, so a row was lost or added between images and labels;
- images stand in the order of classes (neighbouring rows look alike), and the labels do not;
- the same picture stands there twice, with another label, as often as chance has it;
- the labels of the other split fit their images well.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections import Counter
from typing import Any

import numpy as np

from striate.doctor import neighbours, thumbnails
from striate.doctor.finding import Cause, Curve, Finding, NotJudged, Remedy, Severity
from striate.doctor.neighbours import Agreement, Known, Labels
from striate.doctor.patient import Patient
from striate.doctor.thumbnails import Split

SOURCE = (
    "Zhang et al. 2017 (Understanding deep learning requires rethinking generalization), section 2.1 (random labels are learnt "
    "by heart); Ojala and Garriga 2010, section 3 (labels against shuffled labels)"
)
# Deviations above chance that labels must stay below to be suspected.
CHANCE = 2.5
# Images that it takes to suspect them by this alone, and with a proof beside it.
LEAST_ALONE, LEAST = 400, 120
# Where one class has this share of the images, the others are too few to look alike.
ONE_CLASS = 0.8
# Deviations above chance that a proof needs.
PROOF = 6.0
# Of the agreement (Cohen's kappa) in validation, what training labels must have left.
PARTLY = 0.65
# Rows by which labels are moved, in search of a lost row.
MOVES = (-3, -2, -1, 1, 2, 3)
# Pairs of the same picture that it takes to judge by them.
LEAST_PAIRS = 8
_NAMES: dict[Split, str] = {"train": "training", "scored": "validation"}


def check(patient: Patient) -> Finding | None:
    """The finding for the training labels, else for those of the validation set, or None where they fit or nobody can tell."""
    train, scored = neighbours.of(patient, "train"), neighbours.of(patient, "scored")
    try:
        found = _judged(patient, "train", train, scored)
    except NotJudged:  # validation labels may tell all the same
        with contextlib.suppress(NotJudged):
            if (found := _judged(patient, "scored", scored, train)) is not None:
                return found
        raise
    with contextlib.suppress(NotJudged):
        found = found or _judged(patient, "scored", scored, train)
    return found or _partly(patient, train, scored)


def _partly(patient: Patient, train: Known | None, scored: Known | None) -> Finding | None:
    """A note where training labels fit their images far less than those of the validation set fit theirs.

    Random crops and colours of a stranger's loader make looks say less as well, so it is no more than a note.
    """
    if train is None or scored is None or len(scored.thumbnails) < LEAST:
        return None
    kappas = train.agreement.kappa, scored.agreement.kappa
    errors = [
        math.sqrt(one.share * (1 - one.share) / one.images) / (1 - one.chance) for one in (train.agreement, scored.agreement)
    ]
    if kappas[0] > PARTLY * kappas[1] or kappas[1] - kappas[0] < 2 * math.hypot(*errors):
        return None
    share = 1 - kappas[0] / kappas[1]
    return Finding(
        "labels-partly-wrong",
        "note",
        f"Training labels fit their images less than validation labels fit theirs: of what looks tell, {share:.0%} is missing. "
        f"A part of the training labels may be wrong.",
        {"agreement in training": kappas[0], "agreement in validation": kappas[1], "images": train.agreement.images},
        (
            Cause(
                "label-noise",
                0.7,
                f"kappa {kappas[0]:.2f} and {kappas[1]:.2f} with {errors[0]:.2f} and {errors[1]:.2f} of chance",
            ),
            Cause("augmentation-mismatch", 0.5, "or training images are changed so much that they no longer look their class"),
        ),
        (
            Remedy(
                "Look at a hundred training images with their labels, and at those that a trained network is sure to be others."
            ),
        ),
        SOURCE,
    )


def _judged(patient: Patient, split: Split, known: Known | None, other: Known | None) -> Finding | None:
    if known is None or len(known.thumbnails) < LEAST:
        raise NotJudged("too few labelled images")
    if known.agreement.above >= CHANCE:
        return None
    found = known.agreement
    largest = float(np.bincount(known.labels_N).max()) / len(known.labels_N)
    if found.share >= 0.5 * (1 + found.chance) or largest > ONE_CLASS:
        raise NotJudged("nearly all images of one class")  # chance cannot be told from right
    proofs = [
        *_by_names(known),
        *_by_moves(patient, split, known),
        *_by_order(known),
        *_by_pairs(known),
        *_by_other(split, other),
    ]
    if not proofs and len(known.thumbnails) < LEAST_ALONE:
        raise NotJudged("too few labelled images")
    severity: Severity = "error" if proofs else "warning"
    evidence: dict[str, Any] = {
        "split": _NAMES[split],
        "images": found.images,
        "like their neighbours": found.share,
        "by chance": found.chance,
        "deviations above chance": found.above,
    }
    for _, facts in proofs:
        evidence |= facts
    because = (
        f"images that look alike share a label in {found.share:.1%} of {found.images} cases, shuffled ones in {found.chance:.1%}"
    )
    causes = [Cause("labels-shuffled", 0.95 if proofs else 0.6, "; ".join([because, *(words for words, _ in proofs)]))]
    if not proofs:
        causes.append(Cause("underfitting", 0.2, "or the classes differ in nothing that edges and colours of a thumbnail show"))
    return Finding(
        "labels-shuffled",
        severity,
        f"The {_NAMES[split]} labels {'do not' if proofs else 'seem not to'} belong to their images: those that look alike share "
        f"a label no more often than chance has it ({found.share:.1%} against {found.chance:.1%}).",
        evidence,
        tuple(causes),
        (
            Remedy("Draw some images with their labels, and compare them with the files: `striate data show DATA`."),
            Remedy("Join labels to images by file name, never by position, and shuffle both together or neither."),
        ),
        SOURCE,
        curve=_curve(found, other),
    )


def _curve(found: Agreement, other: Known | None) -> Curve:
    names = ["these labels", "shuffled"]
    values: list[float | None] = [found.share, found.chance]
    if other is not None:
        names += ["the other split's", "shuffled again"]
        values += [other.agreement.share, other.agreement.chance]
    return Curve("Images that share the label of their likes", "labels", "share", names, {"share": values})


# ---------------------------------------------------------------- proofs

Proof = tuple[str, dict[str, Any]]


def _by_names(known: Known) -> list[Proof]:
    """Words of the file names that go with the looks, while the labels do not go with the words."""
    best: Proof | None = None
    above = PROOF
    for words in word_columns(known.thumbnails.keys):
        numbers_N, words_G = _numbered_words(words)
        if not 2 <= len(words_G) <= len(words) // 2:
            continue
        if _share_told(numbers_N, known.labels_N) > 0.5:  # the labels are made from them
            continue
        found = neighbours.agreement(known.probe, numbers_N, len(words_G))
        if found.above > above:
            above = found.above
            said = (
                f"words in their names ({words_G[0]}, {words_G[1]} …) go with the looks, {found.above:.0f} deviations off chance"
            )
            best = (said, {"words in names": list(words_G[:5]), "deviations above chance of the words": found.above})
    return [] if best is None else [best]


def word_columns(keys: tuple[str, ...]) -> list[list[str]]:
    """What file names may say of a class: each folder of the path, and the letters and WordNet id that the name begins with.

    One list for each place in the path, [N] words; only places that all keys have.
    """
    parts = [key.split("/") for key in keys]
    depth = min((len(part) for part in parts), default=0)
    columns = [[part[place] for part in parts] for place in range(depth - 1)]
    stems = [part[-1].rsplit(".", 1)[0] for part in parts]
    columns.append([_beginning(stem) for stem in stems])
    return columns


def _beginning(stem: str) -> str:
    wnid = re.match(r"n\d{8}", stem)
    return wnid.group() if wnid else re.split(r"[\d.]", stem, maxsplit=1)[0].rstrip("_- ") or stem.split("_")[0]


def _numbered_words(words: list[str]) -> tuple[Labels, tuple[str, ...]]:
    present, numbers = np.unique(np.array(words), return_inverse=True)
    return numbers.astype(np.int64), tuple(str(word) for word in present)


def _share_told(a_N: Labels, b_N: Labels) -> float:
    """The share of images whose b is the most frequent one for their a, less what one b for all would get, over the rest."""
    by_a: dict[int, Counter[int]] = {}
    for a, b in zip(a_N.tolist(), b_N.tolist(), strict=True):
        by_a.setdefault(a, Counter())[b] += 1
    told = sum(counts.most_common(1)[0][1] for counts in by_a.values()) / len(a_N)
    most = Counter(b_N.tolist()).most_common(1)[0][1] / len(b_N)
    return (told - most) / max(1 - most, 1e-12)


def _by_moves(patient: Patient, split: Split, known: Known) -> list[Proof]:
    """Labels that fit when they are taken from some rows further on."""
    index = patient.train_index if split == "train" else patient.val_index
    rows_N = known.thumbnails.rows_N
    if index is None and not (np.diff(rows_N) == 1).all():
        return []
    all_labels = np.asarray(index.labels, dtype=np.int64) if index is not None else known.thumbnails.labels_N
    places_N = rows_N if index is not None else np.arange(len(rows_N))
    for move in MOVES:
        labels_N, present = neighbours.numbered(np.roll(all_labels, -move)[places_N])
        if len(present) < 2 or len(present) > len(labels_N) // 2:
            continue
        found = neighbours.agreement(known.probe, labels_N, len(present))
        if found.above > PROOF:
            rows = "row" if abs(move) == 1 else "rows"
            where = f"{abs(move)} {rows} {'further on' if move > 0 else 'before'}"
            return [(f"the labels {where} do fit, {found.above:.0f} deviations above chance", {"labels moved by rows": move})]
    return []


def _by_order(known: Known) -> list[Proof]:
    """Rows in blocks of like images, under labels that come in no blocks."""
    rows_N = known.thumbnails.rows_N
    place_N = np.argsort(np.argsort(rows_N))
    blocks = max(2, min(known.classes, len(rows_N) // 20))
    block_N = (place_N * blocks // len(rows_N)).astype(np.int64)
    if _share_told(block_N, known.labels_N) > 0.3:
        return []
    found = neighbours.agreement(known.probe, block_N, blocks)
    if found.above <= PROOF:
        return []
    said = f"neighbouring rows look alike ({found.above:.0f} deviations above chance): images are in order, labels are not"
    return [(said, {"deviations above chance of blocks of rows": found.above})]


def _by_pairs(known: Known) -> list[Proof]:
    """The same picture with another label, as often as chance has it."""
    pairs_M2 = thumbnails.same_pictures(known.thumbnails, known.thumbnails)
    pairs_M2 = pairs_M2[pairs_M2[:, 0] < pairs_M2[:, 1]]
    if len(pairs_M2) < LEAST_PAIRS:
        return []
    agree = int((known.labels_N[pairs_M2[:, 0]] == known.labels_N[pairs_M2[:, 1]]).sum())
    shares_K = np.bincount(known.labels_N) / len(known.labels_N)
    chance = float(np.square(shares_K).sum())
    if agree > len(pairs_M2) * chance + 3 * math.sqrt(len(pairs_M2) * chance * (1 - chance)) or agree > 0.7 * len(pairs_M2):
        return []
    said = f"of {len(pairs_M2)} pairs of the same picture {agree} have one label"
    return [(said, {"pairs of the same picture": len(pairs_M2), "of them with one label": agree})]


def _by_other(split: Split, other: Known | None) -> list[Proof]:
    if other is None or other.agreement.above < PROOF or len(other.thumbnails) < LEAST:
        return []
    name = _NAMES["scored" if split == "train" else "train"]
    said = f"the {name} labels do fit their images, {other.agreement.above:.0f} deviations above chance"
    return [(said, {f"deviations above chance of the {name} labels": other.agreement.above})]

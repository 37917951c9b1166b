"""Pairs of classes that are mistaken for each other far more often than for others.

Looks at held-out predictions, at the mistakes of each pair in both directions. What is expected is that the mistakes of a class
go to the other classes as often as these are said at all when they are wrong; a pair must lie far beyond that, for as many
pairs as there are, and take a good part of both classes' images. Such pairs show the same things (two cranes, mug and cup), or
their folders are mixed. They are no fault of the training, and no training mends them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from striate.data.index import Index
from striate.doctor.finding import Cause, Curve, Finding, NotJudged, Remedy
from striate.evaluate import metrics
from striate.predictions import UNLABELLED, Predictions

SOURCE = "Beyer et al. 2020 (Are we done with ImageNet?), section 3; Stock and Cisse 2018, section 3 (classes that share images)"
# Mistakes over what is expected of the pair, and by chance among all pairs: one false pair in a thousand evaluations.
TIMES, BY_CHANCE = 3.0, 1e-3
# Share of the images of both classes that are mistaken within the pair: a pair worth naming, and one that is nearly one class.
SHARE, ONE_CLASS = 0.15, 0.35
LEAST_MISTAKES, LEAST_IMAGES = 6, 10
LEAST_TIMES = 2.0  # top-1 over chance
_SHOWN, _PICTURES = 5, 4


def check(predictions: Predictions, index: Index | None) -> Finding | None:
    """The finding, or None where no pair stands out."""
    scored = predictions.select(predictions.labels != UNLABELLED)
    count, classes = scored.scores.shape
    if classes < 3:
        raise NotJudged("fewer than three classes")
    table_KK = metrics.confusion(scored.scores, scored.labels)
    if (table_KK.sum(axis=1) >= LEAST_IMAGES).sum() < 2:
        raise NotJudged("too few labelled predictions")
    top1 = float(np.diagonal(table_KK).sum()) / count
    if top1 < LEAST_TIMES / classes:
        raise NotJudged("the network knows too little")
    if metrics.better_permutation(table_KK) is not None:
        raise NotJudged("classes are permuted")
    pairs = _pairs(table_KK)
    if not pairs:
        return None
    names = scored.classes
    said_N = scored.scores.argmax(axis=1)
    mistakes = int(table_KK.sum() - np.diagonal(table_KK).sum())
    gained = sum(found for _, _, found, _, _ in pairs) / count
    evidence: dict[str, Any] = {
        "pairs": {
            f"{names.title(i)} / {names.title(j)}": f"{found} mistakes, {share:.0%} of their images, {expected:.1f} expected"
            for i, j, found, share, expected in pairs[:_SHOWN]
        },
        "pairs in all": len(pairs),
        "mistakes within them": sum(found for _, _, found, _, _ in pairs),
        "mistakes": mistakes,
        "top-1": top1,
        "top-1 if each pair were one class": top1 + gained,
        "pictures": {f"{names.title(i)} / {names.title(j)}": _examples(scored, said_N, i, j) for i, j, *_ in pairs[:_SHOWN]},
    }
    i, j, found, share, _ = pairs[0]
    is_one = share >= ONE_CLASS
    more = f", and {len(pairs) - 1} more pairs like it" if len(pairs) > 1 else ""
    return Finding(
        "confusable-classes",
        "warning" if is_one else "note",
        f"{names.title(i)} and {names.title(j)} are mistaken for each other in {share:.0%} of their images{more}.",
        evidence,
        (
            Cause("confusable-classes", 0.8 if is_one else 0.5, f"{found} mistakes between these two of {mistakes} in all"),
            Cause("label-noise", 0.3, "folders that were mixed make such a pair as well"),
        ),
        (
            Remedy("Look at the pictures of the pair: one thing, or mixed labels? Merge the classes, or sort their images anew."),
            Remedy("If the eye tells them apart, show the network more detail: a larger side, and crops that keep the object."),
        ),
        SOURCE,
        curve=_curve(pairs, names.title),
    )


def _pairs(table_KK: NDArray[np.int64]) -> list[tuple[int, int, int, float, float]]:
    """Pairs that stand out, the worst first: (i, j, mistakes, share of both classes' images, mistakes expected)."""
    classes = len(table_KK)
    wrong_KK = table_KK - np.diag(np.diagonal(table_KK))
    images_K, errors_K, said_K = table_KK.sum(axis=1), wrong_KK.sum(axis=1), wrong_KK.sum(axis=0)
    # Mistakes of i spread over the other classes as the others' images are taken for these, one more for each class, so that a
    # class that nobody else is taken for still gets its part.
    elsewhere_KK = (said_K[None, :] - wrong_KK + 1) * (1 - np.eye(classes))
    expected_KK = errors_K[:, None] * elsewhere_KK / elsewhere_KK.sum(axis=1, keepdims=True)
    found = []
    tests = classes * (classes - 1) / 2
    for i, j in np.argwhere(np.triu(wrong_KK + wrong_KK.T, 1) >= LEAST_MISTAKES).tolist():
        both = int(images_K[i] + images_K[j])
        if min(images_K[i], images_K[j]) < LEAST_IMAGES:
            continue
        mistakes, expected = int(wrong_KK[i, j] + wrong_KK[j, i]), float(expected_KK[i, j] + expected_KK[j, i])
        share = mistakes / both
        if share < SHARE or mistakes < TIMES * expected or min(wrong_KK[i, j], wrong_KK[j, i]) == 0:
            continue
        if poisson_tail(mistakes, expected) * tests < BY_CHANCE:
            found.append((i, j, mistakes, share, expected))
    return sorted(found, key=lambda pair: -pair[3])


def poisson_tail(count: int, mean: float) -> float:
    """Chance of at least `count` where `mean` are expected (Poisson), from above: the first term over what the next ones add."""
    if count <= mean:
        return 1.0
    log_first = count * math.log(max(mean, 1e-300)) - mean - math.lgamma(count + 1)
    return min(1.0, math.exp(log_first) / (1 - mean / (count + 1)))


def _examples(scored: Predictions, said_N: NDArray[np.int64], i: int, j: int) -> list[str]:
    """Keys of up to four images that were mistaken within the pair, two of each class where there are."""
    keys: list[str] = []
    for true, said in ((i, j), (j, i)):
        rows = np.flatnonzero((scored.labels == true) & (said_N == said))
        keys += [scored.keys[int(row)] for row in rows[: _PICTURES // 2]]
    return keys


def _curve(pairs: list[tuple[int, int, int, float, float]], title: Any) -> Curve:
    shown = pairs[:_SHOWN]
    return Curve(
        "Pairs that are mistaken for each other",
        "pair",
        "share of their images",
        [f"{title(i)} / {title(j)}" for i, j, *_ in shown],
        {"mistaken": [share for _, _, _, share, _ in shown]},
    )

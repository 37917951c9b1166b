"""Numbers from scores: pure functions on numpy arrays, sums and integer counts, never means of means.

Scores are [N, K] float32, logits or log-probabilities, higher is better; labels are [N] integers in 0..K-1.
**Ties.** A class with the same score as another comes first when its number is lower. So every image has exactly one
class at each rank, a network with constant output gets what guessing one class would get, and results do not depend
on a sorting routine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from striate import machine
from striate.errors import NonFiniteError, UserError
from striate.predictions import Scale

Z_95 = 1.959963984540054  # the normal distribution's 97.5 % point: two-sided 95 %
_ROWS = 128  # rows worked on at once: their float64 copy for 1000 classes, 1 MB, stays in the cache of a core

# ---------------------------------------------------------------- ranks and hits


def check(scores: np.ndarray, labels: np.ndarray) -> None:
    """Raises UserError unless scores are [N, K] and labels [N] integers in 0..K-1."""
    if scores.ndim != 2 or labels.shape != (len(scores),):
        raise UserError(f"Expected scores [N, K] and labels [N], found {list(scores.shape)} and {list(labels.shape)}.")
    if len(labels) and not (labels.min() >= 0 and labels.max() < scores.shape[1]):
        found = f"{labels.min()}..{labels.max()}"
        raise UserError(f"Labels must be in 0..{scores.shape[1] - 1}; found {found}. Leave unlabelled images out.")


def ranks(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Place of the true class among the scores of its image: 0 is first. Returns [N] int64 in 0..K-1.

    Raises NonFiniteError when a score is NaN (a NaN would compare as if the true class were always first).
    """
    check(scores, labels)
    found_N = np.empty(len(labels), np.int64)
    number_K = np.arange(scores.shape[1])
    for rows in _chunks(len(labels)):
        part, label_n1 = scores[rows], labels[rows, None]
        if np.isnan(part).any():
            raise NonFiniteError("Scores contain NaN: no rank can be given.")
        own_n1 = np.take_along_axis(part, label_n1, axis=1)
        ahead = (part > own_n1) | ((part == own_n1) & (number_K < label_n1))
        found_N[rows] = ahead.sum(axis=1)
    return found_N


def hits(scores: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """Whether the true class is among the `k` best scores. k is cut to the number of classes. Returns [N] bool."""
    return np.asarray(ranks(scores, labels) < min(k, scores.shape[1]))


def top_k(scores: np.ndarray, k: int) -> np.ndarray:
    """The `k` best classes of each image, best first, ties by lower number. Returns [N, min(k, K)] int64."""
    best = np.empty((len(scores), min(k, scores.shape[1])), np.int64)
    for rows in _chunks(len(scores)):
        best[rows] = np.argsort(-scores[rows], axis=1, kind="stable")[:, : best.shape[1]]
    return best


def tied_first(scores: np.ndarray) -> int:
    """Images whose best score is shared by several classes, so that the tie rule decides top-1."""
    return int(_by_rows(lambda part: (part == part.max(axis=1, keepdims=True)).sum(axis=1) > 1, scores, bool).sum())


# ---------------------------------------------------------------- probabilities and loss


def log_probabilities(scores: np.ndarray) -> np.ndarray:
    """Natural log of the softmax over classes, in float64. Returns [N, K]."""
    wide = scores.astype(np.float64)
    shifted = wide - wide.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def best_probabilities(scores: np.ndarray) -> np.ndarray:
    """Probability of the best class of each image: the network's confidence. Returns [N] float64 in 0..1."""
    return np.asarray(np.exp(-_by_rows(_log_sums, scores, np.float64)))


def losses(scores: np.ndarray, labels: np.ndarray, scale: Scale) -> np.ndarray:
    """-log p(true class) of each image in nats. Returns [N] float64, zero or more.

    "log-probabilities" are taken as they stand, "logits" go through a softmax. Infinite where a true class has
    probability zero.
    """
    check(scores, labels)
    own_N = np.take_along_axis(scores, labels[:, None], axis=1)[:, 0].astype(np.float64)
    if scale == "log-probabilities":
        return np.asarray(-own_N)
    best_N = scores.max(axis=1, initial=-np.inf).astype(np.float64)
    return np.asarray(_by_rows(_log_sums, scores, np.float64) - (own_N - best_N))


def cross_entropy(scores: np.ndarray, labels: np.ndarray, scale: Scale) -> float:
    """Mean of `losses` over all images: one sum in float64, divided once by N. Raises UserError without images."""
    check(scores, labels)
    if not len(labels):
        raise UserError("A mean loss needs at least one image.")
    return float(losses(scores, labels, scale).sum()) / len(labels)


# ---------------------------------------------------------------- uncertainty


def wilson(count: int, total: int) -> tuple[float, float]:
    """95 % interval of a share `count` of `total`, which stays within 0..1 and is sensible at 0 and at 1.

    Raises UserError when total is 0 or count is not in 0..total.
    Source: Wilson 1927; the form of Brown, Cai and DasGupta 2001, equation 4.
    """
    if not 0 <= count <= total or total == 0:
        raise UserError(f"An interval needs 0 <= count <= total and total > 0; found {count} of {total}.")
    share, z2 = count / total, Z_95 * Z_95
    middle = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = Z_95 * math.sqrt(share * (1 - share) / total + z2 / (4 * total * total)) / (1 + z2 / total)
    low = 0.0 if count == 0 else middle - half
    high = 1.0 if count == total else middle + half
    return max(0.0, low), min(1.0, high)


def drawn_again(images: int, seed: int, name: str, resample: int) -> np.ndarray:
    """The rows of a bootstrap resample: as many images, drawn with replacement. Returns [N] int64.

    A pure function of (seed, name, resample). Each word of the stream gives two rows, of 32 bits each.
    """
    words = machine.bits(seed, name, resample, np.arange(-(-images // 2)), 1)
    halves_N = np.concatenate([words[:, 0] >> np.uint64(32), words[:, 0] & np.uint64(2**32 - 1)])[:images]
    return np.asarray((halves_N * np.uint64(images)) >> np.uint64(32)).astype(np.int64)


# ---------------------------------------------------------------- by class


def confusion(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many images of class i (row) were taken for class j (column). Returns [K, K] int64 with sum N."""
    check(scores, labels)
    classes = scores.shape[1]
    return np.bincount(labels * classes + scores.argmax(axis=1), minlength=classes * classes).reshape(classes, classes)


@dataclass(frozen=True, eq=False)
class PerClass:
    """One number for each class, arrays of [K]; NaN where a class has nothing to divide by.

    images: int64, images of the class. top1, top5: shares of them (top1 is the class's recall).
    precision: share of the images taken for this class that are of it. f1: harmonic mean of precision and recall, from
    counts: 0 where none is right, NaN only where the class has no image and is never said. confidence: mean probability
    that the network gave its first choice on images of this class. mistaken_for: int64, the class most often said
    instead, -1 without a mistake; mistakes: int64, how often.
    """

    images: np.ndarray
    top1: np.ndarray
    top5: np.ndarray
    precision: np.ndarray
    f1: np.ndarray
    confidence: np.ndarray
    mistaken_for: np.ndarray
    mistakes: np.ndarray


def per_class(scores: np.ndarray, labels: np.ndarray, k: int = 5) -> PerClass:
    """Counts and shares by class; `top5` is for the `k` best (at most K)."""
    classes = scores.shape[1]
    table = confusion(scores, labels)
    images, right, said = table.sum(axis=1), np.diagonal(table), table.sum(axis=0)
    near = np.bincount(labels, weights=hits(scores, labels, k), minlength=classes)
    confidence = np.bincount(labels, weights=best_probabilities(scores), minlength=classes)
    wrong = table - np.diag(right)
    mistakes = wrong.max(axis=1)
    with np.errstate(invalid="ignore"):
        return PerClass(
            images=images,
            top1=right / images,
            top5=near / images,
            precision=right / said,
            f1=2 * right / (images + said),
            confidence=confidence / images,
            mistaken_for=np.where(mistakes > 0, wrong.argmax(axis=1), -1),
            mistakes=mistakes,
        )


def macro_f1(table: PerClass) -> float:
    """Mean of F1 over the classes that have images, each class counting alike."""
    return float(table.f1[table.images > 0].mean()) if table.images.any() else math.nan


def weighted_f1(table: PerClass) -> float:
    """Mean of F1 over the classes that have images, each weighted by how many."""
    present_K = table.images > 0
    return float(np.average(table.f1[present_K], weights=table.images[present_K])) if present_K.any() else math.nan


@dataclass(frozen=True)
class Intervals:
    """95 % intervals of numbers that are no plain share of the images: percentiles of a bootstrap over images."""

    loss: tuple[float, float]
    mean_class_top1: tuple[float, float]
    macro_f1: tuple[float, float]


def bootstrap(losses_N: np.ndarray, labels_N: np.ndarray, said_N: np.ndarray, classes: int, resamples: int = 400) -> Intervals:
    """Intervals of the mean loss, of top-1 by class averaged over classes, and of macro-F1, from the same resamples.

    losses_N: [N] float64 in nats. labels_N, said_N: [N] integers in 0..K-1, the true class and the first choice. A class without
    an image in a resample does not count there. Always the same resamples (`drawn_again`).
    Source: Efron and Tibshirani 1993, section 13.3 (percentile interval).
    """
    is_right_N = labels_N == said_N
    found = np.empty((resamples, 3))
    for place in range(resamples):
        rows = drawn_again(len(labels_N), 0, "score", place)
        label_n = labels_N[rows]
        images_K = np.bincount(label_n, minlength=classes)
        said_K = np.bincount(said_N[rows], minlength=classes)
        right_K = np.bincount(label_n[is_right_N[rows]], minlength=classes)
        present_K = images_K > 0
        recall_K = right_K[present_K] / images_K[present_K]
        f1_K = 2 * right_K[present_K] / (images_K + said_K)[present_K]
        found[place] = losses_N[rows].mean(), recall_K.mean(), f1_K.mean()
    low, high = np.quantile(found, [0.025, 0.975], axis=0, method="nearest")  # a loss may be infinite
    return Intervals(*((float(one), float(other)) for one, other in zip(low, high, strict=True)))


# ---------------------------------------------------------------- what no honest network does


def constant_rows(scores: np.ndarray) -> np.ndarray:
    """Images for which all K classes have one score, so that only the tie rule decides. Returns [N] bool."""
    return np.asarray(scores.max(axis=1) == scores.min(axis=1)) if scores.shape[1] > 1 else np.zeros(len(scores), bool)


def constant_output(scores: np.ndarray) -> str | None:
    """A sentence when the network is a constant function over these images, else None.

    Either every class has the same score on some images, or all images have the same scores up to the last bits of
    float32 (a dead or unreached network; its accuracy is the share of one class, whatever it is called).
    """
    flat = int(constant_rows(scores).sum())
    if flat:
        return f"{flat:,} of {len(scores):,} images have the same score for all classes: the output says nothing about them."
    if len(scores) < 2:
        return None
    high_K, low_K = scores.max(axis=0).astype(np.float64), scores.min(axis=0).astype(np.float64)
    differs_K = high_K != low_K  # a class that has probability zero everywhere has no difference, though no number either
    spread = float((high_K[differs_K] - low_K[differs_K]).max(initial=0.0))
    ends_2K = np.abs([high_K, low_K])
    size = float(ends_2K[np.isfinite(ends_2K)].max(initial=0.0))
    if spread > 1e-6 * max(size, 1e-3):
        return None
    return (
        f"The network gives every image the same scores (largest difference {spread:.1g}): it does not look at the image. "
        "Its top-1 is the share of one class."
    )


@dataclass(frozen=True, eq=False)
class Permutation:
    """A renaming of classes under which the network would be much better.

    said_for: [K] int64, the class that the network says for images of class i. moved: classes with said_for[i] != i.
    top1, top1_renamed: shares of right answers as it stands, and with the renaming, on the half of the images that
    did not choose it.
    """

    said_for: np.ndarray
    moved: np.ndarray
    top1: float
    top1_renamed: float


def better_permutation(confusion_KK: np.ndarray) -> Permutation | None:
    """A much better naming of the classes, if there is one: then labels and network number them differently.

    One half of the counts chooses a renaming (largest cells first), the other half judges it, so that a weak
    network, whose largest cells are chance, stays silent. Reported when over the renamed classes the judging half has
    at least twice as many hits as now, by images and by the mean over classes (a rare class that is often said is no
    permutation), four standard deviations more than chance explains, and a twentieth of the images: an untrained network
    says much the same of images that look alike, which is more than chance and no numbering.
    """
    chosen_by, judged_by = _halves(confusion_KK)
    said_for = _assign(chosen_by)
    number_K = np.arange(len(said_for))
    moved = np.flatnonzero(said_for != number_K)
    now_M, renamed_M = judged_by[moved, moved], judged_by[moved, said_for[moved]]
    now, renamed = int(now_M.sum()), int(renamed_M.sum())
    images_M = np.maximum(judged_by[moved].sum(axis=1), 1)
    doubled = renamed >= 2 * now and (renamed_M / images_M).sum() >= 2 * (now_M / images_M).sum()
    if not doubled or renamed - now <= 4 * math.sqrt(renamed + now) or renamed < 0.05 * judged_by[moved].sum():
        return None
    total = int(judged_by.sum())
    top1 = int(judged_by[number_K, number_K].sum()) / total
    return Permutation(said_for, moved, top1, int(judged_by[number_K, said_for].sum()) / total)


def _halves(counts_KK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two tables that add up to the counts: each cell is cut in two, and a coin (always the same) places an odd one."""
    coin_KK = machine.bits(0, "better permutation", 0, np.arange(counts_KK.size), 1).reshape(counts_KK.shape) >> np.uint64(63)
    left = counts_KK // 2 + (counts_KK % 2) * coin_KK.astype(np.int64)
    return left, counts_KK - left


def _assign(counts_KK: np.ndarray) -> np.ndarray:
    """A one-to-one renaming made of the largest cells, greedily; classes left over keep their own number if they can.

    Greedy gets at least half of the best possible sum, and all of it where a true renaming stands out. Returns [K] int64.
    """
    classes = len(counts_KK)
    rows, columns = np.nonzero(counts_KK)
    # Among equal counts the diagonal goes first: a renaming must be better, not merely as good.
    order = np.lexsort((columns, rows, rows != columns, -counts_KK[rows, columns]))
    said_for = np.full(classes, -1, np.int64)
    taken = np.zeros(classes, bool)
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if said_for[row] < 0 and not taken[column]:
            said_for[row], taken[column] = column, True
    for row in np.flatnonzero(said_for < 0).tolist():
        if not taken[row]:
            said_for[row], taken[row] = row, True
    said_for[said_for < 0] = np.flatnonzero(~taken)
    return said_for


# ---------------------------------------------------------------- inside


def _log_sums(scores: np.ndarray) -> np.ndarray:
    """Natural log of the sum over classes of exp(score - best score): -log p(best class). Returns [N] float64."""
    wide = scores.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    return np.asarray(np.log(np.exp(wide, out=wide).sum(axis=1)))


def _chunks(count: int) -> Iterator[slice]:
    return (slice(first, first + _ROWS) for first in range(0, count, _ROWS))


def _by_rows(work: Callable[[np.ndarray], np.ndarray], scores: np.ndarray, dtype: type) -> np.ndarray:
    """`work` on a few thousand rows at a time, put together as [N]."""
    out: np.ndarray = np.empty(len(scores), dtype)
    for rows in _chunks(len(scores)):
        out[rows] = work(scores[rows])
    return out

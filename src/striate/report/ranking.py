"""Which classes go well and badly, which are mistaken for each other, and the mistakes the network was surest of."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np

from striate.doctor.rules.confusable_classes import poisson_tail
from striate.evaluate import metrics
from striate.predictions import Predictions

BY_CHANCE = 0.05
"""How likely chance may make one such pair or more among all pairs of an evaluation; beyond it a pair is not told."""


@dataclass(frozen=True)
class ClassScore:
    """One class on a scored set. said: how many images were taken for it, rightly or wrongly. taken_for: the class it is most
    often mistaken for (None without a mistake)."""

    label: int
    images: int
    hits: int
    said: int
    taken_for: int | None
    taken_for_images: int

    @property
    def top1(self) -> float:
        """Share of the class's images whose first guess is right."""
        return self.hits / self.images

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of `top1`."""
        return metrics.wilson(self.hits, self.images)

    @property
    def f1(self) -> float:
        """Harmonic mean of `top1` and of the share of `said` that is right, 0..1."""
        return 2 * self.hits / (self.images + self.said)


@dataclass(frozen=True)
class Pair:
    """Images of class `label` that were taken for class `predicted`, and how many images the class has."""

    label: int
    predicted: int
    images: int
    of: int


@dataclass(frozen=True)
class MutualPair:
    """Two classes that are mistaken for each other.

    first_as_second, second_as_first: mistakes in each direction. images: of both classes together. expected: mistakes between the
    two if each class's mistakes went to the others as often as these are said wrongly at all.
    """

    first: int
    second: int
    first_as_second: int
    second_as_first: int
    images: int
    expected: float

    @property
    def mistakes(self) -> int:
        """Images of either class that were taken for the other."""
        return self.first_as_second + self.second_as_first

    @property
    def share(self) -> float:
        """`mistakes` as a share of the images of both classes, 0..1."""
        return self.mistakes / self.images


@dataclass(frozen=True)
class Mistake:
    """One image whose first guess is wrong. Probabilities in 0..1."""

    key: str
    label: int
    predicted: int
    probability: float
    probability_of_label: float


def class_scores(confusion_KK: np.ndarray) -> list[ClassScore]:
    """Every class that has images, best first; among equals the one with more images, then the class order."""
    scores = []
    said_K = confusion_KK.sum(axis=0)
    for label, row_K in enumerate(confusion_KK):
        wrong_K = row_K.copy()
        wrong_K[label] = 0
        other = int(wrong_K.argmax())
        if row_K.sum() > 0:
            scores.append(
                ClassScore(
                    label=label,
                    images=int(row_K.sum()),
                    hits=int(row_K[label]),
                    said=int(said_K[label]),
                    taken_for=other if wrong_K[other] else None,
                    taken_for_images=int(wrong_K[other]),
                )
            )
    return sorted(scores, key=lambda score: (-score.top1, -score.images, score.label))


def confused_pairs(confusion_KK: np.ndarray, most: int) -> list[Pair]:
    """The `most` most frequent confusions, by share of the true class's images, then by count."""
    sums_K = confusion_KK.sum(axis=1)
    wrong_KK = confusion_KK * (1 - np.eye(len(confusion_KK), dtype=confusion_KK.dtype))
    labels, guesses = np.nonzero(wrong_KK)
    pairs = [
        Pair(int(one), int(other), int(wrong_KK[one, other]), int(sums_K[one]))
        for one, other in zip(labels, guesses, strict=True)
    ]
    return heapq.nsmallest(most, pairs, key=lambda pair: (-pair.images / pair.of, -pair.images, pair.label, pair.predicted))


def mutual_pairs(confusion_KK: np.ndarray, most: int) -> list[MutualPair]:
    """The `most` pairs of classes that are most often mistaken for each other, by share of the images of both.

    Left out is what chance explains: the mistakes of a pair must be so many more than expected (Poisson) that among all pairs of
    classes there would be one such pair by chance in fewer than `BY_CHANCE` of evaluations.
    """
    classes = len(confusion_KK)
    wrong_KK = confusion_KK * (1 - np.eye(classes, dtype=confusion_KK.dtype))
    images_K, errors_K, said_K = confusion_KK.sum(axis=1), wrong_KK.sum(axis=1), wrong_KK.sum(axis=0)
    # How often others are taken for j, without the images of i; one more for each class, so that a class that is never said
    # by mistake has its part in what is expected.
    weight_KK = (said_K[None, :] - wrong_KK + 1.0) * (1 - np.eye(classes))
    expected_KK = errors_K[:, None] * weight_KK / np.maximum(weight_KK.sum(axis=1, keepdims=True), 1)
    found = []
    for i, j in np.argwhere(np.triu(wrong_KK + wrong_KK.T, 1) >= 2).tolist():
        pair = MutualPair(
            first=i,
            second=j,
            first_as_second=int(wrong_KK[i, j]),
            second_as_first=int(wrong_KK[j, i]),
            images=int(images_K[i] + images_K[j]),
            expected=float(expected_KK[i, j] + expected_KK[j, i]),
        )
        if poisson_tail(pair.mistakes, pair.expected) * classes * (classes - 1) / 2 < BY_CHANCE:
            found.append(pair)
    return heapq.nsmallest(most, found, key=lambda pair: (-pair.share, -pair.mistakes, pair.first, pair.second))


def surest_mistakes(said: Predictions, most: int) -> list[Mistake]:
    """The `most` wrong first guesses with the highest probability, surest first."""
    guesses_N = said.scores.argmax(axis=1)
    return _surest(said, np.flatnonzero((guesses_N != said.labels) & (said.labels >= 0)), most)


def mistakes_between(said: Predictions, pair: MutualPair, most: int) -> list[Mistake]:
    """At most `most` mistakes within a pair, the surest of each direction; those of the first class come first.

    Each direction gets half of the room, and what the other one leaves.
    """
    guesses_N = said.scores.argmax(axis=1)
    there, back = (
        _surest(said, np.flatnonzero((said.labels == label) & (guesses_N == guess)), most)
        for label, guess in ((pair.first, pair.second), (pair.second, pair.first))
    )
    of_there = min(len(there), max(most - most // 2, most - len(back)))
    return there[:of_there] + back[: most - of_there]


def _surest(said: Predictions, wrong_M: np.ndarray, most: int) -> list[Mistake]:
    """At most `most` of the mistakes in these rows, the highest probability first.

    Probabilities are the softmax of the saved scores, which is right for logits and for log-probabilities.
    """
    if not len(wrong_M):
        return []
    shares_MK = np.exp(metrics.log_probabilities(said.scores[wrong_M]))
    mistakes = []
    for place in np.argsort(-shares_MK.max(axis=1), kind="stable")[:most]:
        row = int(wrong_M[place])
        label, guess = int(said.labels[row]), int(said.scores[row].argmax())
        mistakes.append(Mistake(said.keys[row], label, guess, float(shares_MK[place, guess]), float(shares_MK[place, label])))
    return mistakes

"""Which classes go well and badly, what they are taken for, and the mistakes the network was surest of."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np

from striate.evaluate import metrics
from striate.predictions import Predictions


@dataclass(frozen=True)
class ClassScore:
    """One class on a scored set. `taken_for` is the class it is most often mistaken for (None without a mistake)."""

    label: int
    images: int
    hits: int
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


@dataclass(frozen=True)
class Pair:
    """Images of class `label` that were taken for class `predicted`, and how many images the class has."""

    label: int
    predicted: int
    images: int
    of: int


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
    for label, row_K in enumerate(confusion_KK):
        wrong_K = row_K.copy()
        wrong_K[label] = 0
        other = int(wrong_K.argmax())
        if row_K.sum() > 0:
            scores.append(
                ClassScore(label, int(row_K.sum()), int(row_K[label]), other if wrong_K[other] else None, int(wrong_K[other]))
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


def surest_mistakes(said: Predictions, most: int) -> list[Mistake]:
    """The `most` wrong first guesses with the highest probability, surest first.

    Probabilities are the softmax of the saved scores, which is right for logits and for log-probabilities.
    """
    guesses_N = said.scores.argmax(axis=1)
    wrong_M = np.flatnonzero((guesses_N != said.labels) & (said.labels >= 0))
    if not len(wrong_M):
        return []
    shares_MK = np.exp(metrics.log_probabilities(said.scores[wrong_M]))
    mistakes = []
    for place in np.argsort(-shares_MK.max(axis=1), kind="stable")[:most]:
        row = int(wrong_M[place])
        label, guess = int(said.labels[row]), int(guesses_N[row])
        mistakes.append(Mistake(said.keys[row], label, guess, float(shares_MK[place, guess]), float(shares_MK[place, label])))
    return mistakes

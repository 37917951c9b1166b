"""A part of the labels is wrong: the network says otherwise with more confidence than its honest errors have.

Looks at held-out predictions. Two explanations of the same scores are compared: that every label was drawn from the network's
probabilities (at the temperature that fits best), and that besides a share of the labels was drawn from all classes alike. A
bad network errs where it is unsure, and the first explains it; an overconfident one is explained by its temperature. Wrong
labels leave errors at every confidence, and only the second explains those. The share is the estimate, its interval that of the
likelihood.

Images are listed by what wrong labels would explain, and counted as confident learning does: the network gives another class more
probability than it gives that class on average where the label says so.
Source of the second: Northcutt, Jiang and Chuang 2021.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from striate import machine
from striate.data.index import Index
from striate.doctor.finding import Cause, Curve, Finding, NotJudged, Remedy
from striate.evaluate import metrics
from striate.predictions import UNLABELLED, Predictions

SOURCE = (
    "Northcutt, Jiang and Chuang 2021 (Confident learning), sections 3 and 4; Guo et al. 2017, section 4.2 (temperature); "
    "Natarajan et al. 2013, section 2 (labels drawn from all classes)"
)
# Low end of the interval of the share. Of ten trainings with right labels (300 images and more, top-1 0.21 to 0.83) it was 0 to
# 0.5 %, of one with 20 % of wrong labels 8 %.
SURE_SHARE, NOTED_SHARE = 0.03, 0.015
# How much better the second explanation must be, in nats of log likelihood; 6 is one in two thousand by chance.
BETTER = 6.0
# Below this accuracy, or this many times chance, a network knows too little to contradict a label.
LEAST_TOP1, LEAST_TIMES = 0.33, 3.0
LEAST_IMAGES, LEAST_CLASSES = 200, 4
_MOST_SCORES = 2_000_000  # that the fit looks at
_SHOWN = 20
# What is tried: temperatures from 1/20 to 20, and shares up to a half.
_TEMPERATURES = np.exp(np.linspace(-3, 3, 49))
_SHARES = np.array([0, *np.linspace(0.0025, 0.1, 40), *np.linspace(0.11, 0.5, 40)])


@dataclass(frozen=True)
class Fit:
    """The share of labels that come from all classes alike, its 95 % interval, the temperature, and what it explains better.

    gained: log likelihood over that of the best temperature alone, in nats.
    """

    share: float
    low: float
    high: float
    temperature: float
    gained: float


def check(predictions: Predictions, index: Index | None) -> Finding | None:
    """The finding, or None where the network's honest errors explain what it says, or where it knows too little."""
    scored = predictions.select(predictions.labels != UNLABELLED)
    count, classes = scored.scores.shape
    if predictions.protocol.startswith("train"):
        raise NotJudged("predictions of training images")
    if classes < LEAST_CLASSES:
        raise NotJudged("fewer than four classes")
    if count < LEAST_IMAGES:
        raise NotJudged("too few labelled predictions")
    said_N = scored.scores.argmax(axis=1)
    top1 = float((said_N == scored.labels).mean())
    if top1 < max(LEAST_TOP1, LEAST_TIMES / classes):
        raise NotJudged("the network knows too little")
    fit = fitted(scored.scores, scored.labels)
    if fit.low < NOTED_SHARE or fit.gained < BETTER:
        return None
    if not 0.06 < fit.temperature < 19:
        raise NotJudged("no temperature fits the scores")
    odds_N, confident_N = _suspects(scored.scores, scored.labels, fit)
    worst = np.argsort(-odds_N, kind="stable")
    worst = worst[(said_N != scored.labels)[worst]][:_SHOWN]
    names = scored.classes
    errors, is_sure = _errors_by_confidence(scored.scores, scored.labels), fit.low >= SURE_SHARE
    evidence: dict[str, Any] = {
        "images": count,
        "top-1": top1,
        "share of wrong labels": fit.share,
        "interval": [fit.low, fit.high],
        "log likelihood gained": fit.gained,
        "confident in another class": int(confident_N.sum()),
        "wrong among the surest twentieth": errors[0][1],
        "worst": {
            scored.keys[int(row)]: f"{names.title(int(scored.labels[row]))}, the network says {names.title(int(said_N[row]))}"
            for row in worst
        },
    }
    return Finding(
        "label-noise",
        "warning" if is_sure else "note",
        f"About {fit.share:.0%} of the labels look wrong ({fit.low:.0%} to {fit.high:.0%}): where the network is surest it is "
        f"contradicted as often as elsewhere.",
        evidence,
        (
            Cause(
                "label-noise",
                0.85 if is_sure else 0.4,
                f"the network errs in {errors[0][1]:.0%} of the images that it is surest of; labels drawn at random explain "
                f"the errors better by {fit.gained:.0f} nats",
            ),
            Cause("confusable-classes", 0.2, "classes that share pictures make sure errors too"),
        ),
        (
            Remedy("Look at the images listed here first; most of them are wrong labels. Correct them, or take them out."),
            Remedy(
                "Soften what is learnt from wrong labels until then: label smoothing, and fewer epochs.", {"loss.smoothing": 0.1}
            ),
        ),
        SOURCE,
        curve=Curve(
            "Errors by confidence",
            "share of the images, the surest first",
            "wrong",
            [part for part, _ in errors],
            {"contradicted by the label": [wrong for _, wrong in errors]},
        ),
    )


def fitted(scores_NK: NDArray[np.float32], labels_N: NDArray[np.int64]) -> Fit:
    """The best share and temperature by maximum likelihood, over a grid of both."""
    count, classes = scores_NK.shape
    kept = machine.permutation(0, "doctor label noise", 0, count)[: max(1, _MOST_SCORES // classes)]
    z = scores_NK[kept].astype(np.float64)
    z = np.maximum(z - z.max(axis=1, keepdims=True), -1e4)
    own_N = z[np.arange(len(kept)), labels_N[kept]]
    best_TS = np.empty((len(_TEMPERATURES), len(_SHARES)))
    for number, temperature in enumerate(_TEMPERATURES):
        own_share_N = np.exp(own_N / temperature) / np.exp(z / temperature).sum(axis=1)
        for place, share in enumerate(_SHARES):
            best_TS[number, place] = np.log((1 - share) * own_share_N + share / classes + 1e-300).sum()
    profile_S = best_TS.max(axis=0)
    place = int(profile_S.argmax())
    inside = _SHARES[profile_S >= profile_S[place] - 1.92]
    temperature = float(_TEMPERATURES[int(best_TS[:, place].argmax())])
    gained = float(profile_S[place] - profile_S[0])
    # What came from all classes alike is right by chance in one of K.
    wrong = 1 - 1 / classes
    return Fit(float(_SHARES[place]) * wrong, float(inside[0]) * wrong, float(inside[-1]) * wrong, temperature, gained)


def _suspects(
    scores_NK: NDArray[np.float32], labels_N: NDArray[np.int64], fit: Fit
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Of each image: how likely its label is a random one; and whether the network is confident in another class."""
    count, classes = scores_NK.shape
    log_NK = metrics.log_probabilities(scores_NK / np.float32(fit.temperature))
    p_NK = np.exp(log_NK)
    own_N = p_NK[np.arange(count), labels_N]
    random = fit.share / classes
    odds_N = random / ((1 - fit.share) * own_N + random)
    sums_K = np.bincount(labels_N, weights=own_N, minlength=classes)
    counts_K = np.bincount(labels_N, minlength=classes)
    threshold_K = np.where(counts_K > 0, sums_K / np.maximum(counts_K, 1), np.inf)
    passed_NK = np.where(p_NK >= threshold_K, p_NK, 0)
    confident_N = (passed_NK.max(axis=1) > 0) & (passed_NK.argmax(axis=1) != labels_N)
    return odds_N, confident_N


def _errors_by_confidence(scores_NK: NDArray[np.float32], labels_N: NDArray[np.int64]) -> list[tuple[float, float]]:
    """(share of the images, share of them that is wrong), from the surest twentieth to all images."""
    order = np.argsort(-metrics.best_probabilities(scores_NK), kind="stable")
    wrong_N = (scores_NK.argmax(axis=1) != labels_N)[order]
    parts = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
    return [(part, float(wrong_N[: max(1, math.ceil(part * len(wrong_N)))].mean())) for part in parts]

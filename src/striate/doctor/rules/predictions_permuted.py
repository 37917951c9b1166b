"""The labels of a scored set number the classes in another order than the network.

Looks at the confusion of held-out predictions: whether another one-to-one naming of the classes would make the network much
better, chosen by one half of the images and judged by the other (`evaluate.metrics.better_permutation`, which also warns in the
summary of every evaluation). It tells what kind of order that is: moved by one, the other way round, numbers sorted as text.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from striate.data.index import Index
from striate.doctor.finding import Cause, Curve, Finding, NotJudged, Remedy
from striate.evaluate import metrics
from striate.predictions import UNLABELLED, Predictions

SOURCE = "striate.evaluate.metrics.better_permutation; timm issue 1081 (0.1 % accuracy: labels in another order)"
# With fewer, no renaming is better by four deviations in the half that judges.
LEAST_IMAGES = 34
# Share of the renamed classes that a named order must explain.
NAMED = 0.7
_SHOWN = 5


def check(predictions: Predictions, index: Index | None) -> Finding | None:
    """The finding, or None where no renaming is much better."""
    scored = predictions.select(predictions.labels != UNLABELLED)
    if scored.scores.shape[1] < 2:
        raise NotJudged("fewer than two classes")
    if len(scored) < LEAST_IMAGES:
        raise NotJudged("too few labelled predictions")
    better = metrics.better_permutation(metrics.confusion(scored.scores, scored.labels))
    if better is None:
        return None
    names, moved = scored.classes, better.moved.tolist()
    order = _named(better.said_for, better.moved)
    evidence: dict[str, Any] = {
        "top-1": better.top1,
        "top-1 renamed": better.top1_renamed,
        "classes renamed": len(moved),
        "order": order,
        "renaming": {names.title(k): names.title(int(better.said_for[k])) for k in moved[:_SHOWN]},
    }
    is_moved = order.startswith("one too")
    because = f"with {len(moved)} classes renamed ({order}) top-1 is {better.top1_renamed:.1%} instead of {better.top1:.1%}"
    causes = [Cause("labels-off-by-one" if is_moved else "class-order", 0.9, because)]
    causes.append(Cause("class-order" if is_moved else "labels-off-by-one", 0.2, "the other way for numbers to be mistaken"))
    return Finding(
        "predictions-permuted",
        "error",
        f"The labels look permuted ({order}): with {len(moved)} classes renamed top-1 would be {better.top1_renamed:.1%} instead "
        f"of {better.top1:.1%}.",
        evidence,
        tuple(causes),
        (Remedy("Compare the class list of the scored set with the network's, by name; the network need not be trained again."),),
        SOURCE,
        curve=Curve(
            "Top-1 under both namings", "naming", "top-1", ["as it is", "renamed"], {"top-1": [better.top1, better.top1_renamed]}
        ),
    )


def _named(said_for_K: NDArray[np.int64], moved: NDArray[np.int64]) -> str:
    """What kind of order it is, in words."""
    count = len(said_for_K)
    numbers = np.arange(count)
    as_text = np.array(sorted(range(count), key=str))
    orders = {
        "one too high": (numbers - 1) % count,
        "one too low": (numbers + 1) % count,
        "the other way round": count - 1 - numbers,
        "numbers sorted as text": as_text,
        "numbers sorted as text for the network": np.argsort(as_text),
    }
    fits = {name: float((order[moved] == said_for_K[moved]).mean()) for name, order in orders.items()}
    best = max(fits, key=lambda name: fits[name])
    if fits[best] < NAMED:
        return "another order"
    return "two classes exchanged" if len(moved) == 2 else best

"""Training learns, and validation is as good as guessing.

Looks at: validation accuracy against 1/K, running training accuracy in the first epoch and now, and training images scored as
validation images are.
Why: in the first epoch every image is new to the network, so what it gets right there it has not seen before. If that is well
above guessing and validation is not, what differs is the validation set: its labels, or how its images are prepared. If training
rose above guessing only when images came again, they are learnt by heart, as labels that belong to nothing can only be.
Source: Zhang et al. 2017, section 2 (random labels are learnt, and nothing of it generalises); timm's issues 131 and 291
(validation images of ImageNet in one flat folder).
"""

from __future__ import annotations

import math

import numpy as np

from striate.doctor.finding import Cause, Finding, NotJudged, Remedy
from striate.doctor.history import History, level

SOURCE = "Zhang et al. 2017, section 2"

# Training accuracy counts as learnt when it is so far above 1/K, and so many times it.
_ABOVE, _TIMES = 0.15, 3.0
# Standard errors of the validation accuracy within which it is that of guessing, and images where nobody says how many.
_DEVIATIONS, _GUESSED_IMAGES = 3.0, 1000
_LEAST_IMAGES = 200
# So far below guessing, validation is not guessed: what the network says is wrong in a way that chance is not.
_BELOW = 2.3
# Scored training images this far above validation say that scoring works.
_SCORED_WELL = 0.1


def check(history: History) -> Finding | None:
    """A finding when the last validation accuracy is that of guessing although training is far above it."""
    scores = history.scores("val", "raw") or history.scores("val")
    if scores is None or not np.isfinite(scores["top1"][-1]):
        raise NotJudged("no validation scores")
    if history.classes is None or history.classes < 2:
        raise NotJudged("number of classes unknown")
    guessed = 1 / history.classes
    top1, used = float(scores["top1"][-1]), float(scores["used"][-1])
    images = used if math.isfinite(used) else _GUESSED_IMAGES
    running = _running(history, float(scores["step"][-1]))
    if images < _LEAST_IMAGES:
        raise NotJudged("too few validation images")
    if math.isnan(running):
        raise NotJudged("no training accuracies")
    is_learnt = running > guessed + _ABOVE and running > min(0.9, _TIMES * guessed)
    # One evaluation may be bad luck, or an untrained batch norm; and of few images no accuracy is surely that of guessing.
    recent = float(np.nanmax(scores["top1"][-2:]))
    if not is_learnt or not recent < guessed + _DEVIATIONS * math.sqrt(guessed * (1 - guessed) / images):
        return None
    sample = history.scores("train-sample")
    scored = level(sample["top1"][-1:]) if sample is not None else math.nan
    if scored < top1 + _SCORED_WELL:
        return None  # training images score as badly: it is the scoring, which other rules look at
    first = _first_epoch(history)
    is_below = recent < guessed - _BELOW * math.sqrt(guessed * (1 - guessed) / images)
    causes = _causes(history, guessed, first, top1, is_below)
    return Finding(
        code="validation-at-chance",
        severity="error",
        sentence=(
            f"Training accuracy is {running:.1%}, and validation accuracy {top1:.1%}: "
            f"guessing among {history.classes} classes has {guessed:.1%}."
        ),
        evidence={
            "training accuracy": running,
            "training accuracy in the first epoch": first,
            "training images, scored": scored,
            "validation accuracy": top1,
            "accuracy of guessing": guessed,
            "validation loss": float(scores["loss"][-1]),
            "loss of guessing": history.chance,
        },
        causes=causes,
        remedies=(
            Remedy("Compare the class lists of training and validation, name by name: `striate data audit DATA`."),
            Remedy("Look at images with their labels: `striate data show DATA`."),
        ),
        source=SOURCE,
        curve=history.loss_curve(),
    )


def _running(history: History, step: float) -> float:
    """Training accuracy in the records before a step: the mean of the last ones."""
    before = history.steps["top1"][history.steps["step"] <= step]
    before = before[np.isfinite(before)]
    if not len(before):
        return math.nan
    return float(before[-1]) if history.is_by_epoch else float(before[-max(3, len(before) // 10) :].mean())


def _first_epoch(history: History) -> float:
    """Training accuracy in the second half of the first epoch; NaN where no record is from there."""
    epoch, top1 = history.steps["epoch"], history.steps["top1"]
    if history.is_by_epoch:
        return float(top1[0]) if len(top1) else math.nan
    rows = (epoch > 0.5) & (epoch <= 1.0) & np.isfinite(top1)
    return float(top1[rows].mean()) if rows.any() else math.nan


def _causes(history: History, guessed: float, first: float, top1: float, is_below: bool) -> tuple[Cause, ...]:
    scores = history.scores("val", "raw") or history.scores("val")
    loss = level(scores["loss"][-2:]) if scores else math.nan
    is_sure = history.chance is not None and loss > 1.3 * history.chance
    learns_new = first > max(1.5 * guessed, guessed + 0.03)
    if learns_new:
        because = f"images that it had never seen were right by {first:.1%} in the first epoch; only those of validation are not"
        return (
            Cause("class-order", 0.8 if is_sure or top1 < guessed else 0.7, because),
            Cause("preprocessing-mismatch", 0.4, "validation images may be prepared otherwise"),
            Cause("labels-shuffled", 0.2, "or the labels of validation belong to other images"),
        )
    if is_below:
        because = f"{top1:.1%} is surely below guessing: the network knows these images, and their classes have other numbers"
        return Cause("class-order", 0.8, because), Cause("labels-shuffled", 0.3, "shuffled labels would be guessed by chance")
    because = "training rose above guessing only when images came again: they are learnt by heart"
    if math.isnan(first):
        return (Cause("class-order", 0.5, "classes may be numbered otherwise"), Cause("labels-shuffled", 0.45, because))
    return (
        Cause("labels-shuffled", 0.75, because),
        Cause("overfitting", 0.4, "so are true labels, by a large network on few images"),
        Cause("class-order", 0.35, "or validation numbers its classes in another order"),
    )

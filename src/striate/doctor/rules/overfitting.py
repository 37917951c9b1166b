"""Validation gets worse while training gets better.

Looks at: validation loss and accuracy against their best, training loss (of scored training images where there are some).
Why: a gap between training and validation is no illness; every network that learns has one. When the validation loss turns and
rises while the training loss falls on, what is learnt from then on belongs to the training images only. Where accuracy still
rises, the network is only too sure of its mistakes, and this is a note.
Source: the report of Skagerström, Price and Lindqvist 2018 (KTH, Tiny ImageNet), figure 4: validation loss rises after 5 to 10
epochs; Prechelt 1998, section 2 (generalisation loss, the measure used here); Guo et al. 2017, section 3 (loss overfits first).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from striate.doctor.finding import Cause, Finding, NotJudged, Remedy
from striate.doctor.history import History, Numbers, finite, level

SOURCE = "Skagerström, Price and Lindqvist 2018, figure 4; Prechelt 1998, section 2 (generalisation loss)"

_LEAST_EVALUATIONS = 4
# The validation loss is over its lowest by this share, in the median of the last evaluations.
_RISEN = 0.10
# The training loss fell by this share since then: the two go apart.
_FELL = 0.10
# Accuracy counts as lost when it is so far below its best, and surely so: points and standard errors.
_LOST, _DEVIATIONS = 0.01, 2.0
# Points between training and validation accuracy from which on a risen loss is no matter of sureness alone.
_GAP = 0.3


@dataclass(frozen=True)
class _Apart:
    """Losses that went apart: validation at its lowest (where) and now, training then and now."""

    step: float
    epoch: float
    lowest: float
    now: float
    train_then: float
    train_now: float


def check(history: History) -> Finding | None:
    """A finding when validation turned while training went on; a note where only the loss did."""
    scores = history.scores("val")
    told = len(finite(scores["loss"])[0]) if scores is not None else 0
    if scores is None or not told:
        raise NotJudged("no validation losses" if scores is not None else "no validation scores")
    if told < _LEAST_EVALUATIONS:
        raise NotJudged("too few evaluations")
    if math.isnan(_training_loss(history, float(scores["step"][-1]))):
        raise NotJudged("no training losses")
    apart = _apart(history, scores["step"], scores["epoch"], scores["loss"])
    if apart is None:
        return None
    top1 = scores["top1"][np.isfinite(scores["top1"])]
    best, now = (float(top1.max()), level(top1[-2:])) if len(top1) else (math.nan, math.nan)
    gap = _training_top1(history) - now
    is_lost = best - now > max(_LOST, _DEVIATIONS * _deviation(best, level(scores["used"][-1:])))
    if not math.isnan(gap) and gap < 0.05:
        return None  # training images are no better known than others
    when = f"epoch {apart.epoch:g}" if math.isfinite(apart.epoch) else f"step {apart.step:,.0f}"
    accuracy = f" (accuracy {best:.1%} at best, {now:.1%} now)" if math.isfinite(now) else ""
    return Finding(
        code="overfitting",
        severity="warning" if is_lost or math.isnan(now) or gap > _GAP else "note",
        sentence=(
            f"Validation loss rose from {apart.lowest:.4g} ({when}) to {apart.now:.4g}{accuracy}, "
            f"while training loss fell from {apart.train_then:.4g} to {apart.train_now:.4g}."
        ),
        evidence={
            "lowest validation loss": apart.lowest,
            "at step": apart.step,
            "validation loss now": apart.now,
            "training loss then": apart.train_then,
            "training loss now": apart.train_now,
            "best validation accuracy": best,
            "validation accuracy now": now,
            "training accuracy": _training_top1(history),
            "training images": history.start.get("images"),
        },
        causes=_causes(history, apart, gap),
        remedies=_remedies(history, apart),
        source=SOURCE,
        curve=history.loss_curve((apart.epoch if math.isfinite(apart.epoch) else apart.step, "validation at its best")),
    )


def _apart(history: History, steps: Numbers, epochs: Numbers, losses: Numbers) -> _Apart | None:
    step, epoch, loss = finite(steps, np.nan_to_num(epochs, nan=-1.0), losses)
    if len(loss) < _LEAST_EVALUATIONS:
        return None
    lowest = int(np.argmin(loss))
    now = level(loss[-2:])
    if lowest >= len(loss) - 2 or now < (1 + _RISEN) * loss[lowest]:
        return None
    # It rose, and did not only jump: what came after the lowest is above it throughout the end.
    if float(np.min(loss[-2:])) < (1 + _RISEN / 2) * loss[lowest]:
        return None
    then, train_now = _training_loss(history, step[lowest]), _training_loss(history, step[-1])
    if not train_now < (1 - _FELL) * then or not train_now < now:
        return None
    where = float(epoch[lowest]) if epoch[lowest] >= 0 else math.nan
    return _Apart(float(step[lowest]), where, float(loss[lowest]), now, then, train_now)


def _training_loss(history: History, step: float) -> float:
    """Training loss about a step: of scored training images, else the median of the records around it."""
    sample = history.scores("train-sample")
    if sample is not None and len(sample) >= _LEAST_EVALUATIONS:
        return float(sample["loss"][int(np.nanargmin(np.abs(sample["step"] - step)))])
    steps, loss = finite(history.steps["step"], history.loss)
    if not len(loss):
        return math.nan
    near = np.argsort(np.abs(steps - step), kind="stable")[: 1 if history.is_by_epoch else max(3, len(loss) // 20)]
    return level(loss[near])


def _training_top1(history: History) -> float:
    sample = history.scores("train-sample")
    return level(sample["top1"][-2:]) if sample is not None else level(history.steps["top1"][-5:])


def _deviation(share: float, images: float) -> float:
    return math.sqrt(share * (1 - share) / images) if images > 0 and 0 <= share <= 1 else 0.01


def _causes(history: History, apart: _Apart, gap: float) -> tuple[Cause, ...]:
    because = f"training loss is {apart.train_now:.3g}, validation loss {apart.now:.3g}"
    if math.isfinite(gap):
        because += f"; accuracies are {gap * 100:.0f} points apart"
    return (
        Cause("overfitting", 0.85, because),
        Cause("label-noise", 0.2, "wrong labels are learnt by heart last, and cost validation most"),
        Cause("augmentation-mismatch", 0.1, "or validation images are unlike those of training"),
    )


def _remedies(history: History, apart: _Apart) -> tuple[Remedy, ...]:
    remedies = []
    recipe = history.recipe
    if recipe is None:
        remedies.append(Remedy("Augment: random crops, mirror images, RandAugment; then dropout, label smoothing, weight decay."))
    else:
        a = recipe.augment
        changes = history.set(augment_crop="random-resized", augment_policy="trivialaugment")
        if a.flip == 0:
            changes |= history.set(augment_flip=0.5)
        if recipe.loss.smoothing < 0.1:
            changes |= history.set(loss_smoothing=0.1)
        remedies.append(Remedy("Augment more, and smooth the labels.", changes))
        decay = 5e-4 if recipe.optim.name.startswith("sgd") else 0.05
        if recipe.optim.weight_decay < decay:
            remedies.append(Remedy("Take more weight decay.", history.set(optim_weight_decay=decay)))
    if math.isfinite(apart.epoch) and apart.epoch >= 1:
        shorter = {} if recipe is None else {"budget.epochs": float(math.ceil(1.2 * apart.epoch))}
        remedies.append(
            Remedy("Train less long, or end by itself: --patience; the best checkpoint is kept in any case.", shorter)
        )
    remedies.append(Remedy("Begin with trained weights, or take a smaller network; more images help most."))
    return tuple(remedies)

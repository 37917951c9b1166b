"""The network does not even learn the training images, with nothing to hold it back.

Looks at: a training loss that stands still at a high rate, and the accuracy of training images scored in evaluation mode, beside
that of validation.
Why: when training images are answered no better than new ones, and both poorly, neither more data nor more regularisation helps;
the network is too small for the data, or its training too short or too timid.
Source: Goodfellow, Bengio and Courville 2016, sections 5.2 and 11.4.1 (capacity, and high training error).
"""

from __future__ import annotations

import math

import numpy as np

from striate.doctor.finding import Cause, Finding, NotJudged, Remedy
from striate.doctor.history import History, fall, jitter, level
from striate.doctor.rules import regularisation
from striate.doctor.rules.plateau import Stall, decay_is_ahead, stall
from striate.doctor.rules.plateau_at_chance import is_validation_guessed, strong_settings

SOURCE = "Goodfellow, Bengio and Courville 2016, sections 5.2 and 11.4.1"

# Training images are known no better than new ones when the two accuracies differ by less; and by what chance explains.
_NO_GAP = 0.06
# Poor: with more than this, the network did learn.
_POOR = 0.7
_LEAST_EVALUATIONS = 2
# A training that has ended, its rate at less than the first share of its peak, need not stand still: it will learn no more. What
# it learnt of its own images is then poor when it is less than the second share of the way from guessing to all of them, and
# worth knowing when it is less than the third.
_ENDED, _LITTLE, _PARTLY = 0.1, 0.3, 0.6


def check(history: History) -> Finding | None:
    """A finding when the loss stalls and training images score as poorly as validation, with no strong regularisation set."""
    scores = history.scores("val")
    told = int(np.isfinite(scores["top1"]).sum()) if scores is not None else 0
    if scores is None or told < _LEAST_EVALUATIONS:
        raise NotJudged("too few evaluations" if told else "no validation scores")
    stalled = _ended(history)
    is_sure = stalled is not None and _learnt(history) < _LITTLE
    if not is_sure and (stands := stall(history)) is not None:
        stalled, is_sure = stands, True
    if stalled is None:
        return None
    train, val = _training(history), level(scores["top1"][-2:])
    if math.isnan(train):
        raise NotJudged("no training accuracies")
    if not (train < _POOR and train - val < _NO_GAP + _by_chance(history, train, val) and val - train < 2 * _NO_GAP):
        return None
    if is_validation_guessed(history):
        return None  # nothing that holds for other images is learnt: a larger network would learn by heart
    if (history.recipe is not None and strong_settings(history.recipe)) or regularisation.check(history) is not None:
        return None
    return Finding(
        code="underfitting",
        severity="warning" if is_sure and not decay_is_ahead(history) else "note",
        sentence=(
            f"Training images are answered no better than new ones ({train:.1%} and {val:.1%}), "
            f"and the training loss {'ends' if history.is_done else 'stands'} at {stalled.loss:.4g}."
        ),
        evidence={
            "training accuracy": train,
            "validation accuracy": val,
            "training loss": stalled.loss,
            "fell by": stalled.down,
            "from step": stalled.first_step,
            "parameters": history.start.get("trained_parameters"),
            "update over weight, typical": level(history.typical_update_ratio()[history.is_near_peak(0.5)]),
        },
        causes=_causes(history, stalled),
        remedies=(
            Remedy("Take a larger network: wider, or deeper with residual connections."),
            Remedy("Train longer.", history.longer(3)),
        ),
        source=SOURCE,
        curve=history.loss_curve(),
    )


def _ended(history: History) -> Stall | None:
    """Where a training ended whose rate has fallen and that hardly knows its own images; None for any other."""
    lr, rows = history.steps["lr"], np.isfinite(history.loss)
    known = np.isfinite(lr)
    if not history.is_done or not known.any() or rows.sum() < 4:
        return None
    has_fallen = lr[known][-1] < _ENDED * lr[known].max()
    if not has_fallen or not _learnt(history) < _PARTLY:
        return None
    step, loss = history.steps["step"][rows], history.loss[rows]
    last = slice(-max(2, len(loss) // 3), None)
    down, error = fall(loss[last])
    return Stall(level(loss[last]), down, error, int(step[last][0]), int(step[-1]), jitter(loss[last]))


def _learnt(history: History) -> float:
    """How far from guessing to all of its training images the training came; NaN where that cannot be told."""
    guessed = math.exp(-history.chance_or_first)
    return (_training(history) - guessed) / (1 - guessed) if 0 < guessed <= 0.5 else math.nan


def _by_chance(history: History, train: float, val: float) -> float:
    """Two standard errors of the difference of two accuracies, where it is known of how many images they are."""
    scores = [history.scores(split) for split in ("train-sample", "val")]
    counts = [level(one["used"][-1:]) if one is not None else math.nan for one in scores]
    if not all(count > 0 for count in counts):
        return 0.0
    return 2 * math.sqrt(sum(share * (1 - share) / count for share, count in zip((train, val), counts, strict=True)))


def _training(history: History) -> float:
    sample = history.scores("train-sample")
    return level(sample["top1"][-2:]) if sample is not None else level(history.steps["top1"][-5:])


def _causes(history: History, stalled: Stall) -> tuple[Cause, ...]:
    update = level(history.typical_update_ratio()[history.is_near_peak(0.5)])
    causes = [Cause("underfitting", 0.7, "training images are as little known as new ones, and the loss no longer falls")]
    if update < 1e-4:
        causes.append(Cause("learning-rate-low", 0.75, f"a step changes weights by {update:.1e} of their size"))
    elif update > 1e-2:
        causes.append(Cause("learning-rate-high", 0.55, f"a step changes weights by {update:.1%} of their size"))
    if math.isfinite(stalled.noise):
        causes.append(Cause("label-noise", 0.2, "labels that are wrong cannot be learnt either"))
    return tuple(causes)

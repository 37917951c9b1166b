"""Batch normalisation answers otherwise when it scores than when it trains.

Looks at: loss and accuracy of a fixed sample of training images, scored in evaluation mode with the raw weights, against those of
the training steps at that time; how many images each normalisation sees; how much the scores jump.
Why: in training, batch norm takes mean and variance of the batch; in scoring, running averages of them. With very few images at
a time, or weights that move fast, these are of another network. The same images then score far below what training says.
Nothing is said of the first 200 steps, in which the averages are still finding their place.
Source: Ioffe and Szegedy 2015, section 3.1; Wu and Johnson 2021, "Rethinking 'Batch' in BatchNorm", section 3; Ioffe 2017,
section 3 (small batches).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from striate.doctor.finding import Cause, Finding, NotJudged, Remedy
from striate.doctor.history import History, level

SOURCE = "Ioffe and Szegedy 2015, section 3.1; Wu and Johnson 2021, section 3"

# Steps that the running averages need (a momentum of 0.1 forgets in some tens), while the weights are moving fastest.
_SETTLED_STEPS = 150
# Scoring is worse: the loss by this factor and this much, or the accuracy by these points and this share.
_LOSS_FACTOR, _LOSS_ABOVE = 1.35, 0.3
_POINTS, _SHARE = 0.12, 0.7
# Or the accuracy by half, as a network that guesses when it is scored.
_HALF = 0.5
# So few images for each normalisation are too few.
_FEW = 8
# With EMA the sample is scored by averaged weights; they count as good as the raw ones within these points on validation.
_SAME_POINTS = 0.05


@dataclass(frozen=True)
class Gap:
    """Training images scored in evaluation mode, against training itself, at the last evaluations. worst: largest scored loss."""

    scored_loss: float
    training_loss: float
    scored_top1: float
    training_top1: float
    worst: float
    evaluations: int

    @property
    def evidence(self) -> dict[str, float]:
        """The numbers, as findings show them."""
        return {
            "loss of training images, scored": self.scored_loss,
            "loss in training": self.training_loss,
            "accuracy of training images, scored": self.scored_top1,
            "accuracy in training": self.training_top1,
            "largest scored loss": self.worst,
            "evaluations": self.evaluations,
        }


def check(history: History) -> Finding | None:
    """A finding when training images score far worse than they train, and batch norm is the likeliest reason."""
    if history.has_batch_norm is False:
        raise NotJudged("no batch normalisation")
    gap = scoring_gap(history)
    if gap is None or not is_batch_norm_likely(history, gap):
        return None
    few = images_at_once(history)
    return Finding(
        code="batch-norm-statistics",
        severity="error" if gap.scored_top1 < 0.3 * gap.training_top1 else "warning",
        sentence=(
            f"Training images score a loss of {gap.scored_loss:.4g} and {gap.scored_top1:.1%}, "
            f"while training has {gap.training_loss:.4g} and {gap.training_top1:.1%} with them."
        ),
        evidence={**gap.evidence, "images for each normalisation": few},
        causes=(
            Cause("batch-norm-statistics", 0.75 if few > _FEW else 0.9, _because(history, gap, few)),
            Cause("preprocessing-mismatch", 0.45, "or scored images are prepared otherwise"),
            *([Cause("batch-too-small", 0.8, f"{few:g} images for each normalisation")] if few <= _FEW else []),
        ),
        remedies=_remedies(history, few),
        source=SOURCE,
        curve=history.loss_curve(),
    )


def scoring_gap(history: History) -> Gap | None:
    """The gap where training images score far worse than they train, in the last evaluation and the one before; else None.

    Raises NotJudged where too little is told.
    """
    sample = history.scores("train-sample")
    if sample is None:
        raise NotJudged("no scored training images")
    if sample["step"][-1] < _SETTLED_STEPS:
        raise NotJudged("too few steps")
    if len(sample) < 2:
        raise NotJudged("too few evaluations")
    if _is_average_behind(history):
        raise NotJudged("averaged weights lag")
    gaps = [_gap(history, sample["step"][row], sample["loss"][row], sample["top1"][row]) for row in range(len(sample))][-2:]
    if not all(math.isfinite(loss) for gap in gaps for loss in gap[:2]):
        raise NotJudged("no training losses")
    if not all(_is_wide(*gap) for gap in gaps):
        return None
    scored_loss, training_loss, scored_top1, training_top1 = gaps[-1]
    return Gap(scored_loss, training_loss, scored_top1, training_top1, float(np.nanmax(sample["loss"])), len(sample))


def _gap(history: History, step: float, loss: float, top1: float) -> tuple[float, float, float, float]:
    """Scored loss, training loss, scored accuracy, training accuracy about a step."""
    before = history.steps["step"] <= step
    count = max(5, int(before.sum()) // 8)
    return (
        float(loss),
        level(history.loss[before][-count:]),
        float(top1),
        float(np.mean(_known(history.steps["top1"][before][-count:]))),
    )


def _known(values: np.ndarray) -> np.ndarray:
    known = values[np.isfinite(values)]
    return known if len(known) else np.array([math.nan])


def _is_wide(scored_loss: float, training_loss: float, scored_top1: float, training_top1: float) -> bool:
    by_loss = scored_loss > max(_LOSS_FACTOR * training_loss, training_loss + _LOSS_ABOVE)
    by_accuracy = scored_top1 < min(training_top1 - _POINTS, _SHARE * training_top1)
    # A loss alone may be high with few, very sure mistakes; an accuracy alone may be chance in small batches.
    is_guessing = scored_top1 < _HALF * training_top1 and scored_loss > 1.1 * training_loss
    return is_guessing or (by_loss and (by_accuracy or scored_loss > 1.2 * training_loss + _LOSS_ABOVE))


def _is_average_behind(history: History) -> bool:
    """Whether the sample is scored by averaged weights that are far behind the raw ones: that is another finding."""
    average, raw = history.scores("val", "EMA"), history.scores("val", "raw")
    return average is not None and raw is not None and bool(raw["top1"][-1] - average["top1"][-1] > _SAME_POINTS)


def images_at_once(history: History) -> float:
    """Images that one batch normalisation sees in training; infinite where that is unknown."""
    if history.batch_size is None:
        return math.inf
    parts = history.recipe.optim.accumulate if history.recipe is not None else 1
    return history.batch_size / parts / history.processes


def is_batch_norm_likely(history: History, gap: Gap) -> bool:
    """Whether batch norm explains a scoring gap better than another view of the images does.

    It is the likelier with few images at a time, and with scores that are worse than guessing or jump.
    """
    if history.has_batch_norm is False:
        return False
    is_wild = history.chance is not None and max(gap.scored_loss, gap.worst / 2) > 1.2 * history.chance
    is_guessing = history.classes is not None and gap.scored_top1 < 1.5 / history.classes
    return images_at_once(history) <= _FEW or is_wild or is_guessing


def _because(history: History, gap: Gap, few: float) -> str:
    if few <= _FEW:
        return f"each normalisation sees {few:g} images, too few for a mean and a variance"
    return f"scored losses go up to {gap.worst:.3g}, above guessing: the running statistics belong to another network"


def _remedies(history: History, few: float) -> tuple[Remedy, ...]:
    larger: dict[str, object] = {}
    if history.recipe is not None:
        larger = {"optim.batch_size": 32, **history.set(optim_accumulate=1)} if few <= _FEW else {}
    remedies = (
        [Remedy("Give each normalisation at least 16 images: a larger batch, fewer micro-batches.", larger)]
        if few <= _FEW
        else []
    )
    remedies.append(
        Remedy("Take a lower rate, or let it fall to zero: the averages follow weights that move slowly.", _slower(history))
    )
    remedies.append(
        Remedy("Take group normalisation in place of batch normalisation, or freeze the statistics when fine-tuning.")
    )
    return tuple(remedies)


def _slower(history: History) -> dict[str, object]:
    return {**history.scaled("optim.lr", 0.3), **history.set(optim_schedule="cosine")}

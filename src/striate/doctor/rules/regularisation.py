"""Regularisation so strong that the network cannot learn even the training images.

Looks at: the training loss and its part that is no cross-entropy (L2), accuracies with and without dropout and augmentation
(running, and of training images scored in evaluation mode), and what the recipe sets.
Why: dropout, L2, weight decay and augmentation are there to make learning by heart hard. Too much of them makes all learning
hard: training is no better than validation, both are poor, and neither improves.
Source: the report of Skagerström, Price and Lindqvist 2018 (KTH, Tiny ImageNet), section 4.1: dropout of 70 % with L2 of 0.001 in
each layer, and model C, where the network "had problems learning things".
"""

from __future__ import annotations

import math

from striate.doctor.finding import Cause, Finding, NotJudged, Remedy
from striate.doctor.history import History, level
from striate.doctor.rules.plateau import Stall, stall
from striate.doctor.rules.plateau_at_chance import decay_of_a_step, strong_settings

SOURCE = "Skagerström, Price and Lindqvist 2018, section 4.1 and table 3 (models C and E)"

# The L2 term is too large when it is more of the loss than the cross-entropy is.
_PENALTY_SHARE = 0.5
# Of a stranger's loss only the least share that it can have is known.
_LEAST_PENALTY_SHARE = 0.15
# Scored without dropout and augmentation, training images do so much better in top-1 than while they are trained on.
_HELD_BACK = 0.15
# In training the loss is so many times that of guessing, while the same images have about that when nothing is dropped.
_NOISED, _GUESSED = 1.5, 1.2
# Validation above training by so much, in the means of epochs: what is dropped or distorted in training costs that.
_VAL_AHEAD = 0.03


def check(history: History) -> Finding | None:
    """A finding when the training loss stalls high, and the recipe, the L2 term or the evaluation says that it is held down."""
    stalled, unknown = _stalled(history)
    penalty = penalty_share(history)
    limit = _PENALTY_SHARE if history.losses else _LEAST_PENALTY_SHARE
    too_large = math.isfinite(penalty) and penalty > limit and _is_poor(history)
    noised = _noised(history)
    if stalled is None and not too_large and noised is None:
        if unknown is not None:
            raise unknown
        return None
    strong = strong_settings(history.recipe) if history.recipe is not None else {}
    held_back = _held_back(history)
    because = [*strong.values()]
    if too_large:
        because.insert(
            0, f"{'at least ' * (not history.losses)}{penalty:.0%} of the loss is the L2 term, not what the network gets wrong"
        )
    if noised is not None:
        because.insert(0, f"the same images have a loss of {noised:.3g} when nothing is dropped or distorted")
    if held_back >= (_HELD_BACK if history.recipe is not None else _VAL_AHEAD):
        because.insert(
            0, f"scored without dropout and augmentation, top-1 is {held_back * 100:.0f} points higher than in training"
        )
    if not because or (not too_large and _is_overfitted(history)):
        return None
    height = stalled.loss if stalled is not None else level(history.steps["loss"][-5:])
    return Finding(
        code="regularisation",
        severity="warning" if too_large or noised is not None or len(because) > 1 or held_back >= _HELD_BACK else "note",
        sentence=f"The training loss {'stalls' if stalled is not None else 'is'} at {height:.4g}: {because[0]}.",
        evidence={
            "training loss": height,
            "share of the L2 term": penalty,
            "points that evaluation mode gains": held_back * 100,
            **{f"set: {name}": words for name, words in strong.items()},
            **_window(stalled),
        },
        causes=_causes(because, strong),
        remedies=_remedies(history, too_large),
        source=SOURCE,
        curve=history.loss_curve(),
    )


def _stalled(history: History) -> tuple[Stall | None, NotJudged | None]:
    """Where the loss stands still, or why that cannot be told: an L2 term that is too large is seen without it."""
    try:
        return stall(history), None
    except NotJudged as unknown:
        return None, unknown


def penalty_share(history: History) -> float:
    """The part of the whole loss that is no cross-entropy of any head; NaN where that cannot be told."""
    total = level(history.steps["loss"][-5:])
    if history.recipe is not None and history.losses:
        others = sum(level(values[-5:]) for head, values in history.losses.items() if head != "main")
        entropy = level(history.loss[-5:]) + history.recipe.loss.aux_weight * others
        return max(0.0, 1 - entropy / total) if total > 0 else math.nan
    # A stranger's: with an accuracy far above guessing the cross-entropy is below ln K; what is above that is added to it.
    accuracy = level(history.steps["top1"][-5:])
    if history.chance is None or history.classes is None or not accuracy > 3 / history.classes:
        return math.nan
    return max(0.0, 1 - history.chance / total) if total > 1.2 * history.chance else math.nan


def _noised(history: History) -> float | None:
    """The loss of training images in evaluation mode, where that is as of guessing and in training it is far above; else None.

    An untrained network has about the loss of guessing; only units that are dropped or images that are distorted bring it far
    above. An L2 term is not in it.
    """
    scores = history.scores("train-sample")
    if scores is None or history.chance is None or history.is_mixed:
        return None
    scored, trained = level(scores["loss"][-2:]), level(history.loss[-5:])
    return scored if trained > _NOISED * history.chance and scored < _GUESSED * history.chance else None


def _is_poor(history: History) -> bool:
    accuracy = level(history.steps["top1"][-5:])
    return not accuracy > 0.5


def _held_back(history: History) -> float:
    """By how much top-1 is higher where training images (else validation images) are scored than in training; NaN if unknown."""
    running = level(history.steps["top1"][-5:])
    scores = history.scores("train-sample") or history.scores("val")
    return level(scores["top1"][-3:]) - running if scores is not None else math.nan


def _is_overfitted(history: History) -> bool:
    """Training far better than validation: then there is too little regularisation, not too much."""
    running = level(history.steps["top1"][-5:])
    scores = history.scores("val")
    return scores is not None and running - level(scores["top1"][-3:]) > 0.1


def _window(stalled: Stall | None) -> dict[str, float]:
    return {"stalls since step": stalled.first_step, "fell by since then": stalled.down} if stalled is not None else {}


def _causes(because: list[str], strong: dict[str, str]) -> tuple[Cause, ...]:
    weight = min(0.9, 0.5 + 0.15 * len(because))
    causes = [Cause("regularisation-strong", weight, "; ".join(because))]
    if "optim.weight_decay" in strong:
        causes.append(Cause("weight-decay-high", weight + 0.05, strong["optim.weight_decay"]))
    if "augment.scale" in strong:
        causes.append(Cause("crop-loses-object", 0.4, strong["augment.scale"]))
    causes.append(Cause("underfitting", 0.3, "a larger network bears more regularisation"))
    return tuple(causes)


def _remedies(history: History, is_l2: bool) -> tuple[Remedy, ...]:
    remedies = []
    recipe = history.recipe
    if is_l2:
        remedies.append(Remedy("Take a hundredth of the L2 term.", history.scaled("loss.l2", 0.01)))
    if recipe is not None:
        changes = history.scaled("optim.weight_decay", 0.1) if decay_of_a_step(recipe) > 2e-3 else {}
        if "dropout" in recipe.model.options and float(recipe.model.options["dropout"]) > 0.3:
            changes["model.options.dropout"] = 0.3
        if recipe.augment.mixup > 0 or recipe.augment.cutmix > 0:
            changes |= history.set(augment_mixup=0.0, augment_cutmix=0.0)
        changes |= history.set(augment_policy="none")
        if recipe.augment.crop == "random-resized" and recipe.augment.scale[0] < 0.35:
            changes |= history.set(augment_scale=(0.35, 1.0))
        if recipe.loss.smoothing > 0.1:
            changes |= history.set(loss_smoothing=0.1)
        remedies.append(
            Remedy("Take most of it away until the training images are learnt; then add one thing at a time.", changes)
        )
    else:
        remedies.append(
            Remedy("Halve dropout and L2, and weaken augmentation, until the training images are learnt; then add one at a time.")
        )
    return tuple(remedies)

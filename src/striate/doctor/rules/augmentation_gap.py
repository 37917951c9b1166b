"""Training images are so distorted that training learns other images than are scored.

Looks at: training accuracy as it runs against the same images scored without augmentation, and whether validation moves.
Why: augmentation makes training images harder than scored ones; running accuracy below the scored one is as it should be, and by
much with MixUp. It is a finding where validation suffers: it stands still while the two are far apart.
Source: Touvron et al. 2019, section 3 (apparent object sizes); Cubuk et al. 2020, section 4 (strength by network and set).
"""

from __future__ import annotations

import numpy as np

from striate.doctor.finding import Cause, Finding, NotJudged, Remedy
from striate.doctor.history import History, fall, level
from striate.doctor.rules.plateau import decay_is_ahead
from striate.doctor.rules.plateau_at_chance import strong_settings

SOURCE = "Touvron et al. 2019, section 3; Cubuk et al. 2020, section 4"

# Points by which scored training images are above training, without mixing; blends cost about as much again.
_POINTS, _MIXED_POINTS = 0.25, 0.45
# Evaluations that validation is looked at over, and the points that it gains in them at most.
_EVALUATIONS, _GAIN = 4, 0.01
# Records of training accuracy that it takes.
_LEAST_ROWS = 5
# Above this, validation is well off whatever the gap.
_WELL = 0.8


def check(history: History) -> Finding | None:
    """A finding when training runs far below the same images scored, and validation has stopped getting better."""
    sample, val = history.scores("train-sample"), history.scores("val")
    running = history.steps["top1"][np.isfinite(history.steps["top1"])]
    if sample is None:
        raise NotJudged("no scored training images")
    known = val["top1"][np.isfinite(val["top1"])] if val is not None else np.zeros(0)
    if not len(known):
        raise NotJudged("no validation scores")
    if len(known) < _EVALUATIONS:
        raise NotJudged("too few evaluations")
    if len(running) < _LEAST_ROWS:
        raise NotJudged("too few records" if len(running) else "no training accuracies")
    training = float(running[-max(_LEAST_ROWS, len(running) // 10) :].mean())
    scored, best = level(sample["top1"][-2:]), float(known.max())
    if scored - training < (_MIXED_POINTS if history.is_mixed else _POINTS) or best > _WELL:
        return None
    recent = known[-_EVALUATIONS:]
    gained, error = fall(-recent)
    if gained > _GAIN + error or float(recent[-1]) >= best:
        return None
    strong = strong_settings(history.recipe) if history.recipe is not None else {}
    crops = {name: words for name, words in strong.items() if name == "augment.scale"}
    return Finding(
        code="augmentation-gap",
        severity="note" if decay_is_ahead(history) or not strong else "warning",
        sentence=(
            f"Training runs at {training:.1%} on images that score {scored:.1%} undistorted, and validation stands at {best:.1%}."
        ),
        evidence={
            "accuracy in training": training,
            "accuracy of training images, scored": scored,
            "best validation accuracy": best,
            "validation gained in the last evaluations": gained,
            **{f"set: {name}": words for name, words in strong.items()},
        },
        causes=(
            Cause(
                "augmentation-mismatch", 0.7, f"{(scored - training) * 100:.0f} points between distorted and undistorted images"
            ),
            Cause("regularisation-strong", 0.5, ", ".join(strong.values()) or "augmentation that the network cannot follow"),
            *([Cause("crop-loses-object", 0.6, words) for words in crops.values()]),
        ),
        remedies=(
            Remedy("Weaken augmentation.", _weaker(history)),
            Remedy("Look at what training sees: `striate data show DATA`."),
        ),
        source=SOURCE,
        curve=history.loss_curve(),
    )


def _weaker(history: History) -> dict[str, object]:
    if history.recipe is None:
        return {}
    a = history.recipe.augment
    changes = history.set(augment_policy="none", augment_erase=0.0)
    if history.is_mixed:
        changes |= history.set(augment_mixup=0.0, augment_cutmix=0.0)
    if a.crop == "random-resized" and a.scale[0] < 0.35:
        changes["augment.scale"] = (0.35, a.scale[1])
    return changes

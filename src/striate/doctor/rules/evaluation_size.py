"""The validation set is too small for the differences that are read from it.

Looks at: how many images were scored, the best accuracy and the others, and what the recipe decides by them.
Why: an accuracy over n images is known to about 1/sqrt(n): of 100 images to ten points, of 10,000 to one. The best of many
evaluations is the best in part by luck, and a rate that drops, or a training that ends, after evaluations "without progress"
then does so by luck as well.
Source: Wilson 1927 (the interval); Cawley and Talbot 2010, section 4 (choosing by a small validation set).
"""

from __future__ import annotations

import math

import numpy as np

from striate.doctor.finding import Cause, Finding, NotJudged, Remedy, Severity
from striate.doctor.history import History, level
from striate.doctor.rules.plateau_at_chance import is_validation_guessed

SOURCE = "Wilson 1927; Cawley and Talbot 2010, section 4"

# Half of the 95 % interval, in accuracy: from the first on it is worth a note, from the second on decisions by it are luck.
_NOTE, _LUCK = 0.02, 0.05
_LEAST_EVALUATIONS = 2


def check(history: History) -> Finding | None:
    """A note when the best evaluation cannot be told from others; a warning when the recipe decides by it."""
    scores = history.scores("val")
    top1 = scores["top1"][np.isfinite(scores["top1"])] if scores is not None else np.zeros(0)
    if scores is None or not len(top1):
        raise NotJudged("no validation scores")
    if len(top1) < _LEAST_EVALUATIONS:
        raise NotJudged("too few evaluations")
    used = level(scores["used"][-1:])
    if not math.isfinite(used):
        raise NotJudged("number of validation images unknown")
    if is_validation_guessed(history):
        raise NotJudged("validation is at chance")
    images = int(used)
    best = int(np.argmax(top1))
    half = _half_interval(float(top1[best]), images)
    if half < _NOTE:
        return None
    # Two accuracies over the same images differ by less luck than over different ones; how much less only predictions say.
    others = [row for row in range(len(top1)) if row != best and top1[best] - top1[row] < half]
    decides = _decides(history)
    if not others and not (decides and half > _LUCK):
        return None
    severity: Severity = "warning" if decides and half > _LUCK else "note"
    enough = math.ceil(images * (half / 0.01) ** 2)
    return Finding(
        code="evaluation-size",
        severity=severity,
        sentence=(
            f"{images:,} validation images tell accuracies to {half * 100:.1f} points: the best ({top1[best]:.1%}) "
            f"is not surely better than {len(others)} other{'s' * (len(others) != 1)} of {len(top1)}"
            + (f", and {decides} goes by it." if decides else ".")
        ),
        evidence={
            "validation images": images,
            "half of the 95 % interval": half,
            "best accuracy": float(top1[best]),
            "last accuracy": float(top1[-1]),
            "within the interval": len(others),
            "images for one point": enough,
        },
        causes=(Cause("evaluation-small", 0.9, f"with {images:,} images, one image is {100 / images:.2g} points"),),
        remedies=(
            Remedy(f"Hold out more images; about {enough:,} tell accuracies to a point.", _more(history)),
            Remedy(
                "Decide by several evaluations: average weights, or take the last checkpoint of a schedule that ends.",
                _steady(history),
            ),
        ),
        source=SOURCE,
    )


def _half_interval(share: float, images: int, z: float = 1.96) -> float:
    """Half of the width of Wilson's interval."""
    return z / (1 + z**2 / images) * math.sqrt(share * (1 - share) / images + z**2 / (4 * images**2))


def _decides(history: History) -> str:
    """What the recipe decides by the validation accuracy, beside the choice of the best checkpoint."""
    if history.recipe is None:
        return ""
    if history.recipe.budget.patience > 0:
        return f"the end of the training (--patience {history.recipe.budget.patience})"
    return "the learning rate (schedule plateau)" if history.recipe.optim.schedule == "plateau" else ""


def _more(history: History) -> dict[str, object]:
    """A larger share held out; it is only there for data without a validation set of their own, and does nothing else."""
    if history.recipe is None or history.recipe.data.val_share >= 0.2:
        return {}
    return {"data.val_share": 0.2}


def _steady(history: History) -> dict[str, object]:
    if history.recipe is None:
        return {}
    changes = history.set(budget_patience=0)
    return {**changes, **history.set(optim_schedule="cosine")} if history.recipe.optim.schedule == "plateau" else changes

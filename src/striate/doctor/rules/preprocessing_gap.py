"""Scored images are prepared otherwise than training images: the same photos score far below what training says.

Looks at: the same gap as `batch-norm-statistics`, where that is not the likelier reason; what the recipe says of crops.
Why: the sample that is scored is made of training images. What separates the two scores is the mode of the network (batch norm,
dropout) and the view: side, crop, resizing, normalisation, colour order. Augmentation makes training the harder one of the two,
so a score below training is not its doing, unless it shows objects at another size.
Source: Touvron et al. 2019, "Fixing the train-test resolution discrepancy", section 3.
"""

from __future__ import annotations

from striate.doctor.finding import Cause, Finding, Remedy
from striate.doctor.history import History
from striate.doctor.rules.batch_norm_statistics import is_batch_norm_likely, scoring_gap

SOURCE = "Touvron et al. 2019, Fixing the train-test resolution discrepancy, section 3"


def check(history: History) -> Finding | None:
    """A finding when training images score far worse than they train, and batch norm is not the likelier reason."""
    gap = scoring_gap(history)
    if gap is None or is_batch_norm_likely(history, gap):
        return None
    differences = _differences(history)
    return Finding(
        code="preprocessing-gap",
        severity="warning",
        sentence=(
            f"Training images score {gap.scored_top1:.1%} where training has {gap.training_top1:.1%}: "
            + (differences[0] if differences else "they are prepared otherwise, or the network acts otherwise, when scored")
            + "."
        ),
        evidence={**gap.evidence, **{f"differs ({number})": words for number, words in enumerate(differences, 1)}},
        causes=(
            Cause("preprocessing-mismatch", 0.8 if differences else 0.65, "; ".join(differences) or "scores are steady and low"),
            Cause(
                "batch-norm-statistics", 0.1 if history.has_batch_norm is False else 0.45, "or batch norm's running statistics"
            ),
            Cause("overfitting", 0.2, "a network that knows few images by heart knows them in one view only"),
        ),
        remedies=_remedies(history),
        source=SOURCE,
        curve=history.loss_curve(),
    )


def _differences(history: History) -> list[str]:
    """Where the recipe shows training another view than scoring."""
    if history.recipe is None:
        return []
    a, data = history.recipe.augment, history.recipe.data
    found = []
    if a.crop == "resize" and data.fit == "crop":
        found.append(
            f"training sees the whole photo squeezed to a square, scoring its centre ({data.crop_share:.0%} of the side)"
        )
    if a.crop == "random-resized" and a.scale[1] < 0.5:
        found.append(f"training sees at most {a.scale[1]:.0%} of a photo's area, so objects are larger than in scoring")
    if a.shorter_px[0] > 0 and data.size_px and a.shorter_px[0] > 1.6 * data.size_px / data.crop_share:
        found.append(f"training sees crops of photos of {a.shorter_px[0]} px, scoring of {data.size_px / data.crop_share:.0f} px")
    return found


def _remedies(history: History) -> tuple[Remedy, ...]:
    look = Remedy(
        "Compare both views of the same photos: `striate data show DATA`; outside striate, write out both batches as images."
    )
    if history.recipe is None:
        return (look, Remedy("Let one function prepare images for training without augmentation, scoring and use."))
    changes = history.set(data_fit="squash") if history.recipe.augment.crop == "resize" else {}
    if history.recipe.augment.crop == "random-resized" and history.recipe.augment.scale[1] < 1:
        changes |= {"augment.scale": (history.recipe.augment.scale[0], 1.0)}
    return (Remedy("Show training and scoring the same part of a photo.", changes), look) if changes else (look,)

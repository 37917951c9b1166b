"""The network cannot learn a single batch by heart.

Looks at up to 60 steps of Adam at 0.001 on the first 32 images alone, without dropout, on weights that are put back afterwards.
Every network that can learn anything can learn 32 images by heart, with right labels or wrong ones; so where it cannot, the
labels, the amount of data, the schedule and the augmentation are excluded, and what is left is the network, its input and its
loss.
"""

from __future__ import annotations

import math

from striate.doctor import passes
from striate.doctor.finding import Cause, Curve, Finding, NotJudged, Remedy
from striate.doctor.patient import Patient
from striate.doctor.remedies import initialised, normalised

SOURCE = "Karpathy 2019, A Recipe for Training Neural Networks (overfit one batch); Zhang et al. 2017 (random labels are learnt)"

# Of ln K: a loss that fell by more is on its way, one that fell by less stands still.
MOVING, STANDING = 0.25, 0.05
# A loss that was never so many times the first one, and then is no number, has not grown out of the numbers.
CALM = 1.5


def check(patient: Patient) -> Finding | None:
    """The finding, or None where the batch was learnt. Raises NotJudged where there was no time for it."""
    found = patient.learnt
    if found.is_learnt and math.isfinite(found.losses[-1]):
        return None
    if not found.is_finished:
        raise NotJudged(f"no time for more than {len(found.losses)} steps")
    if found.classes < 2:
        raise NotJudged("all images of the batch have one label")
    chance = math.log(found.classes)
    last = found.losses[-1]
    fell = min(found.losses[0], chance) - min(found.losses)  # from a bad start down to chance is no learning
    if fell > MOVING * chance and math.isfinite(last):
        return None
    causes = _causes(patient)
    return Finding(
        "one-batch",
        "warning" if fell > STANDING * chance and math.isfinite(last) else "error",
        f"The network does not learn {found.images} images by heart: after {len(found.losses)} steps on them alone the loss is "
        f"{last:.3g}, from {found.losses[0]:.3g}, and {found.top1:.0%} are right.",
        {
            "images": found.images,
            "steps": len(found.losses),
            "first loss": found.losses[0],
            "last loss": last,
            "right": found.top1,
            "excluded": "wrong labels, too little data, the schedule, augmentation, the learning rate of the recipe",
        },
        tuple(causes),
        (
            initialised(patient),
            normalised(patient),
            Remedy("Look at the other findings first: they say where the signal is lost."),
        ),
        SOURCE,
        curve=Curve("Loss on one batch", "step", "cross-entropy", list(range(len(found.losses))), {"loss": list(found.losses)}),
    )


def _causes(patient: Patient) -> list[Cause]:
    seen = patient.signals
    trained = sum(one.count for one in seen.weights if one.is_trained)
    share = trained / max(1, sum(one.count for one in seen.weights))
    initial = 0.2 if passes.starts_well(seen) else 0.4
    because = f"weights start at {seen.he_share:.2g} of He's deviation; labels and rate do not matter here"
    causes = [Cause("initialisation", initial, because)]
    losses = patient.learnt.losses
    if not math.isfinite(losses[-1]) and max(losses[:-1], default=math.inf) < CALM * losses[0]:
        because = f"the loss falls to {min(losses[:-1]):.3g} and the next one is no number: 0 / 0, or a root or logarithm of 0"
        causes.append(Cause("precision", 0.85, because))
    if share < 0.5:
        causes.append(Cause("frozen-parameters", 0.6, f"{share:.0%} of the parameters train"))
    if not seen.has_norms:
        causes.append(Cause("no-normalisation", 0.35, "no layer is normalised"))
    if seen.image_spread < 0.05:
        causes.append(Cause("pixel-range", 0.5, f"between images pixels differ by {seen.image_spread:.2g}, where 1 is usual"))
    return causes

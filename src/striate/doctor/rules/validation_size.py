"""The validation set is too small to tell one training from another.

Looks at the number of validation images: the 95 % interval of an accuracy, from it alone. With fewer than 93 it is wider than
10 points to either side, and the best checkpoint, early stopping and every comparison go by chance.
"""

from __future__ import annotations

from striate.doctor import thumbnails
from striate.doctor.finding import Cause, Finding, NotJudged, Remedy
from striate.doctor.patient import Patient
from striate.evaluate import metrics

SOURCE = "Wilson 1927; Brown, Cai and DasGupta 2001 (interval of a share)"
# Half the interval at an accuracy of one half.
WIDE = 0.1
# So few are no validation set, whoever gave them.
HANDFUL = 40


def check(patient: Patient) -> Finding | None:
    """The finding, or None where an accuracy is known to 10 points."""
    count = _images(patient)
    low, high = metrics.wilson(count // 2, count)
    half = (high - low) / 2
    if half <= WIDE:
        return None
    changes = {"data.val_share": 0.2} if patient.recipe is not None else {}
    per_class = count / max(1, patient.classes or 1)
    return Finding(
        "validation-size",
        "warning" if patient.recipe is not None or count < HANDFUL else "note",  # a stranger may have given a part of it
        f"{count} validation images tell an accuracy to {half:.0%} either way: too few to choose by.",
        {"validation images": count, "of each class": per_class, "interval, either way": half},
        (Cause("evaluation-small", 0.9, f"{count} images, {per_class:.2g} of each class"),),
        (
            Remedy("Hold out more images: 400 tell an accuracy to 5 points, 10,000 to 1.", changes),
            Remedy("Or compare several seeds, and say the interval beside every number."),
        ),
        SOURCE,
    )


def _images(patient: Patient) -> int:
    """Images of the validation set; of a stranger's loader only where it ends soon. Raises NotJudged where nobody knows."""
    if patient.val_index is not None:
        return len(patient.val_index)
    seen = thumbnails.of(patient, "scored")
    if seen is None or not seen.total or patient.recipe is not None:
        raise NotJudged("no validation images" if patient.scored is None else "number of validation images unknown")
    return seen.total

"""Label smoothing so strong that the right class hardly counts more than the others.

Looks at the recipe's smoothing; of a stranger's loss at what it does to the logits. With a smoothing of s a new network's loss is
ln K all the same, and its gradient is 1 - s of that of cross-entropy: where the height says that the head counts whole and the
gradient that it counts for a part, the rest is smoothing.
"""

from __future__ import annotations

import math

from striate.doctor.finding import Cause, Finding, NotJudged, Remedy
from striate.doctor.patient import Patient

SOURCE = "Szegedy et al. 2016, section 7 (smoothing of 0.1); Müller, Kornblith and Hinton 2019, section 3"
# Usual is 0.1, and no paper of the networks here has more than 0.2.
STRONG = 0.5
# A new network's loss and its gradient are read only where its logits are about those of guessing: nats from ln K.
NEW = 0.15


def check(patient: Patient) -> Finding | None:
    """The finding, or None for a usual smoothing. Raises NotJudged where a stranger's loss does not show it."""
    smoothing = patient.recipe.loss.smoothing if patient.recipe is not None else _of_gradient(patient)
    if smoothing < STRONG:
        return None
    changes = {"loss.smoothing": 0.1} if patient.recipe is not None else {}
    return Finding(
        "label-smoothing",
        "warning",
        f"Label smoothing of {smoothing:.2g}: the right class is wanted with only {1 - smoothing:.0%} more than each other one.",
        {"smoothing": smoothing},
        (Cause("regularisation-strong", 0.9, f"smoothing of {smoothing:.2g}, where 0.1 is usual"),),
        (Remedy("Take a label smoothing of 0.1, or none.", changes),),
        SOURCE,
    )


def _of_gradient(patient: Patient) -> float:
    """The smoothing that a new network's loss and gradient show."""
    seen = patient.signals
    main = seen.main
    chance = math.log(max(2, main.outputs))
    is_new = abs(main.loss - chance) < NEW and abs(seen.total - chance) < NEW
    if len(seen.heads) != 1 or not is_new or not 0 < main.weight <= 1:
        raise NotJudged("the loss does not show its smoothing")
    return 1 - main.weight

"""A head of the network is left out of the loss, or weighs more than the main one.

Looks at what one backward pass brings to each head's logits, in units of the gradient of their own cross-entropy: that is the
head's weight in the loss, whatever the loss is written as. GoogLeNet's paper gives its auxiliary heads 0.3 each.
"""

from __future__ import annotations

import math

from striate.doctor.finding import Cause, Finding, Remedy
from striate.doctor.patient import Patient

SOURCE = "Szegedy et al. 2015, section 5 (auxiliary heads weigh 0.3)"
# Less than this share of the largest weight is none; an auxiliary head with more than the main one's weight decides more than it.
NONE, TOO_MUCH = 1e-3, 1.0


def check(patient: Patient) -> Finding | None:
    """The finding, or None for one head, and for heads weighed sensibly."""
    weights = {name: head.weight for name, head in patient.signals.heads.items() if math.isfinite(head.weight)}
    most = max(map(abs, weights.values()), default=0.0)
    if len(weights) < 2 or most == 0.0:
        return None  # one head, or a loss that nothing comes back from, which is another rule's
    main = weights.get("main", 0.0)
    forgotten = [name for name, weight in weights.items() if abs(weight) < NONE * most]
    heavy = [name for name, weight in weights.items() if name != "main" and weight > TOO_MUCH * main and weight >= NONE * most]
    if not forgotten and not heavy:
        return None
    shown = ", ".join(f"{name} {weight:.2g}" for name, weight in weights.items())
    aux = {"loss.aux_weight": 0.3} if patient.recipe is not None else {}
    causes = [Cause("heads-forgotten", 0.9 if forgotten else 0.2, f"weights in the loss: {shown}")]
    if "main" in forgotten or heavy:
        sentence = f"The heads are weighed wrongly in the loss ({shown}): the head that is used is the main one."
        causes.append(Cause("head-weights", 0.85, f"weights in the loss: {shown}"))
        advice = Remedy("Give the main head the weight 1 and each auxiliary one 0.3.", aux)
    else:
        sentence = f"{_list(forgotten)} of the network is not in the loss ({shown}), so it learns nothing and helps nobody."
        advice = Remedy("Add 0.3 times each auxiliary head's cross-entropy to the loss, or build the network without it.", aux)
    return Finding(
        "head-weights",
        "error" if "main" in forgotten else "warning",
        sentence,
        {"weight in the loss, by head": weights},
        tuple(causes if forgotten else causes[1:]),
        (advice,),
        SOURCE,
    )


def _list(names: list[str]) -> str:
    return f"Head {names[0]}" if len(names) == 1 else f"Each of the heads {', '.join(names)}"

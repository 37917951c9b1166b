"""More and more units are zero for all images.

Looks at: the share of dead channels of each ReLU layer, in the first records and in the last ones.
Why: a ReLU that is never positive passes nothing on and gets no gradient, so it does not come back by itself. A step that is too
long kills many at once. Some dead channels in late layers of a well-trained network are no illness.
Source: Maas, Hannun and Ng 2013, section 2 (units that never activate); Glorot, Bordes and Bengio 2011, section 3.1.
"""

from __future__ import annotations

import math

import numpy as np

from striate.doctor.finding import Cause, Finding, NotJudged, Remedy
from striate.doctor.history import History, curve, level
from striate.doctor.rules.plateau_at_chance import decay_of_a_step, first_update, of_size

SOURCE = "Maas, Hannun and Ng 2013, section 2; Glorot, Bordes and Bengio 2011, section 3.1"

# A layer counts as dying when this share of it is dead and it has grown by that much; as dead when next to all is.
_DYING, _GROWN, _DEAD = 0.5, 0.25, 0.9
_LEAST_ROWS, _NOW = 5, 5
# Of the loss of guessing: above it, the network has not learnt what could make units superfluous.
_UNLEARNT = 0.7


def check(history: History) -> Finding | None:
    """A finding when a layer dies; a note where the network learns all the same."""
    shares = {name: share for name, share in history.dead_share.items() if np.isfinite(share).sum() >= _LEAST_ROWS}
    if not shares:
        raise NotJudged("too few records" if history.dead_share else "no statistics of layers")
    dying = {}
    for name, share in shares.items():
        known = share[np.isfinite(share)]
        now, at_first = level(known[-_NOW:]), level(known[:2])
        if now >= _DYING and (now - at_first >= _GROWN or now >= _DEAD):
            dying[name] = (at_first, now)
    if not dying:
        return None
    worst = max(dying, key=lambda name: dying[name][1])
    at_first, now = dying[worst]
    is_hurting = _is_unlearnt(history)
    steps = history.steps["step"]
    others = f", and {len(dying) - 1} more of {len(shares)} layers" if len(dying) > 1 else ""
    return Finding(
        code="dying-units",
        severity="error" if is_hurting and now >= _DEAD else "warning" if is_hurting else "note",
        sentence=f"In layer {worst} {now:.0%} of the units are zero for all images ({at_first:.0%} at first){others}.",
        evidence={
            **{f"dead in {name}": now for name, (_, now) in dying.items()},
            "layers": len(shares),
            "loss": level(history.loss[-_NOW:]),
        },
        causes=_causes(history, at_first),
        remedies=(
            Remedy("Take a tenth of the learning rate, with a slow rise to it.", _slower(history)),
            Remedy("Put batch normalisation before the ReLUs, or leaky ReLUs in their place."),
        ),
        source=SOURCE,
        layer=worst,
        curve=curve("Dead units", "step", "share of a layer", {name: (steps, shares[name]) for name in list(dying)[:5]}),
    )


def _is_unlearnt(history: History) -> bool:
    loss = level(history.loss[-_NOW:])
    if history.chance is None or math.isnan(loss):
        return False
    return loss > _UNLEARNT * history.chance


def _causes(history: History, at_first: float) -> tuple[Cause, ...]:
    update = first_update(history)
    causes = [Cause("dead-units", 0.6, "a dead unit gets no gradient and stays dead")]
    if history.recipe is not None and (decay := decay_of_a_step(history.recipe)) > 0.01:
        causes.append(Cause("weight-decay-high", 0.9, f"decay takes {decay:.1%} of the weights in each step"))
    if at_first >= _DYING:
        causes.append(Cause("initialisation", 0.7, f"{at_first:.0%} were dead before anything was learnt"))
    elif update > 0.3:
        causes.append(Cause("learning-rate-high", 0.85, f"a first step changed weights by {of_size(update)}"))
    else:
        causes.append(Cause("learning-rate-high", 0.65, "they were alive at first, and long steps are what kills units"))
    return tuple(causes)


def _slower(history: History) -> dict[str, object]:
    if history.recipe is None:
        return {}
    warmup = history.set(optim_warmup_epochs=max(1.0, history.recipe.optim.warmup_epochs))
    return {**history.scaled("optim.lr", 0.1), **warmup}

"""Weight decay is so strong that weights vanish faster than they can learn.

Looks at the time in which decay alone takes a weight to a third, in steps: (1 - momentum) / (rate x decay) for SGD, 1 / (rate x
decay) where the decay is applied apart (AdamW), and where it is added to Adam's gradient and outweighs it, the weight over the
rate. And at decay x weight beside the gradient of the loss: which of the two moves the weights at the start.
"""

from __future__ import annotations

import math
import statistics

from striate.doctor import passes
from striate.doctor.finding import Cause, Finding, NotJudged, Remedy
from striate.doctor.patient import Patient

SOURCE = "Krogh and Hertz 1992; Loshchilov and Hutter 2019 (decoupled weight decay), section 2; van Laarhoven 2017, section 3"
# Usual trainings take 1,000 steps and more (SGD 0.1, momentum 0.9, decay 1e-4: 10,000).
SHORT, VERY_SHORT = 150.0, 30.0
# The decay's share of what moves the weights, beside the gradient's.
OUTWEIGHS = 0.5


def check(patient: Patient) -> Finding | None:
    """The finding, or None where weights live long enough, or nothing decays."""
    strength = _strength(patient)
    if strength is None:
        raise NotJudged("no optimiser is known whose decay could be judged")
    name, rate, decay, keep, is_apart = strength
    weights = [one for one in passes.weighted(patient.signals) if one.is_trained and one.gradient is not None and one.scale > 0]
    if decay <= 0 or not weights or rate <= 0:
        return None
    shares = [decay * one.scale / (decay * one.scale + (one.gradient or 0.0)) for one in weights]
    share = statistics.median(shares)
    if is_apart:
        steps = 1 / (rate * decay)
    elif name in ("Adam", "RMSprop"):
        steps = statistics.median(one.scale for one in weights) / rate if share > OUTWEIGHS else math.inf
    else:
        steps = keep / (rate * decay)
    if steps >= SHORT or (share < OUTWEIGHS and not is_apart and steps >= VERY_SHORT):
        return None
    better = float(f"{decay * steps / 5000:.1g}")
    changes: dict[str, object] = {}
    if patient.recipe is not None:
        by_loss = patient.recipe.loss.l2 > patient.recipe.optim.weight_decay
        changes = {"loss.l2": better / 2} if by_loss else {"optim.weight_decay": better}
    causes = _causes(rate, decay, name, is_apart, steps)
    return Finding(
        "weight-decay",
        "error" if steps < VERY_SHORT else "warning",
        f"Weight decay {decay:.3g} takes every weight to a third within {steps:.0f} steps at the rate {rate:.3g}: "
        "what is learnt is forgotten faster than it comes.",
        {
            "weight decay": decay,
            "learning rate": rate,
            "steps to a third": steps,
            "decay's share of what moves the weights": share,
            "steps in all": patient.total_steps,
        },
        causes,
        _remedies(patient, rate, better, changes, causes[0].name == "learning-rate-high"),
        SOURCE,
    )


def _remedies(patient: Patient, rate: float, better: float, changes: dict[str, object], is_rate: bool) -> tuple[Remedy, ...]:
    weaker = Remedy(f"Take a weight decay of about {better:g}.", changes)
    if not is_rate:
        return (weaker,)
    lower = {"optim.lr": float(f"{patient.recipe.optim.lr / 100:.3g}")} if patient.recipe is not None else {}
    return Remedy(f"Take a learning rate of about {rate / 100:.2g}.", lower), weaker


def _causes(rate: float, decay: float, name: str, is_apart: bool, steps: float) -> tuple[Cause, ...]:
    """Decay or rate, whichever is further above what is usual: SGD's 0.1 and 5e-4, 0.001 of Adam's kin, AdamW's 0.1."""
    usual_rate = 1e-3 if is_apart or name in ("Adam", "RMSprop") else 0.1
    usual_decay = 0.1 if is_apart else 5e-4
    is_rate = rate / usual_rate > max(1.0, decay / usual_decay)
    high = Cause("weight-decay-high", 0.5 if is_rate else 0.9, f"{steps:.0f} steps to a third, where 1,000 and more are usual")
    return (Cause("learning-rate-high", 0.9, f"a rate of {rate:.3g}"), high) if is_rate else (high,)


def _strength(patient: Patient) -> tuple[str, float, float, float, bool] | None:
    """Optimiser, peak rate, decay, 1 - momentum, and whether the decay is applied apart; None where nothing is known."""
    if patient.recipe is not None:
        o = patient.recipe.optim
        kinds = {"adam": "Adam", "adamw": "AdamW", "rmsprop": "RMSprop", "sgd": "SGD", "sgd-alexnet": "SGD"}
        if o.name not in kinds:
            return None  # lars and lamb scale the decay with the step
        decay = max(o.weight_decay, 2 * patient.recipe.loss.l2)
        keep = 1 - o.momentum if o.name in ("sgd", "sgd-alexnet", "rmsprop") else 1.0
        return kinds[o.name], patient.peak_rate, decay, keep, o.name == "adamw"
    if patient.optimizer is None:
        return None
    kind = type(patient.optimizer).__name__
    group = max(patient.optimizer.param_groups, key=lambda one: float(one.get("weight_decay", 0.0) or 0.0))
    is_apart = kind == "AdamW" or bool(group.get("decoupled_weight_decay"))
    keep = 1 - float(group.get("momentum", 0.0) or 0.0)
    return (
        kind,
        float(group.get("initial_lr", 0.0)) or float(group["lr"]),
        float(group.get("weight_decay", 0.0) or 0.0),
        keep,
        is_apart,
    )

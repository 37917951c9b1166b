"""Gradients vanish or explode on their way back to the first layers.

Looks at the gradient of each convolution and linear layer over the size of its weights: what one step moves, at a rate of 1.
Where the first layers' is thousands of times smaller than the last ones', only the last layers learn; where
the weights are moved by more than their own size, and no layer is normalised, the first step throws them away.
"""

from __future__ import annotations

import math
import statistics

from striate.doctor import passes
from striate.doctor.finding import Cause, Curve, Finding
from striate.doctor.passes import Signals, Weight
from striate.doctor.patient import Patient
from striate.doctor.remedies import initialised, normalised, with_open_gates, with_slow_start

SOURCE = "Hochreiter 1991; Glorot and Bengio 2010, section 4.2.2; Pascanu, Mikolov and Bengio 2013, section 2"
# Of the 73 networks as their papers start them, the first third's is above 1e-3 over all, and above 3e-4 of the last layer's.
SMALL, SMALL_SHARE = 1e-5, 1e-3
# Behind factors that begin near zero, gradients below this open with them.
CLOSED = 1e-4
# Batch norm makes a layer's own gradient large without harm; without it a rate of 0.01 would move a third of such weights.
LARGE = 30.0


def check(patient: Patient) -> Finding | None:
    """The finding, or None where gradients reach the first layers in a size like that of the last ones."""
    seen = patient.signals
    weights = [one for one in passes.weighted(seen) if one.is_trained and one.gradient is not None and one.scale > 0]
    if passes.begins_closed(seen):
        weights = [one for one in weights if _relative(one) > CLOSED]
    if len(weights) < 4:
        return None
    third = max(1, len(weights) // 3)
    first = statistics.median(map(_relative, weights[:third]))
    last = statistics.median(map(_relative, weights[-third:]))
    strongest = max(map(_relative, weights))
    if first < SMALL and first < SMALL_SHARE * strongest:
        return _finding(patient, weights, first, strongest, True)
    if not seen.has_norms and first > LARGE:
        return _finding(patient, weights, first, last, False)
    return None


def _relative(weight: Weight) -> float:
    gradient = weight.gradient or 0.0
    return gradient / weight.scale if math.isfinite(gradient) else math.inf


def _finding(patient: Patient, weights: list[Weight], first: float, other: float, vanishes: bool) -> Finding:
    seen = patient.signals
    values = {weight.name.removesuffix(".weight"): _relative(weight) for weight in weights}
    # Coming from the head: the first layer whose gradient is out of bounds.
    layer = next(
        (name for name, value in reversed(values.items()) if (value < SMALL_SHARE * other if vanishes else value > LARGE)), None
    )
    causes = _causes(seen)
    word = "vanishes" if vanishes else "explodes"
    remedies = [initialised(patient), normalised(patient)]
    if any(cause.name == "gates" for cause in causes):
        remedies.insert(1, with_open_gates(patient))
    if not vanishes:
        remedies.append(with_slow_start(patient))
    return Finding(
        "vanishing-gradient" if vanishes else "exploding-gradient",
        "error" if vanishes and first < SMALL / 10 else "warning",
        f"The gradient {word} on its way back: {first:.1g} of the weights in the first third of the layers, {other:.1g} "
        f"{'where it is largest' if vanishes else 'in the last'}"
        + (f"; coming from the head, from {layer} on." if layer else "."),
        {"gradient over weight, first third": first, "gradient over weight, by layer": values},
        tuple(causes),
        tuple(remedies),
        SOURCE,
        layer=layer,
        curve=Curve(
            "Gradient over weight, by depth", "layer", "ratio", list(values), {"gradient / weight": list(values.values())}, True
        ),
    )


def _causes(seen: Signals) -> list[Cause]:
    sigmoids = [layer for layer in seen.layers if layer.saturated is not None]
    gates = [layer for layer in seen.layers if layer.gate is not None]
    initial = 0.3 if passes.starts_well(seen) else 0.6
    because = (
        f"weights start at {seen.he_share:.2g} of He's deviation, and what shrinks or grows the signal does so to the gradient"
    )
    causes = [Cause("initialisation", initial, because)]
    if len(sigmoids) >= 3:
        at_limit = statistics.fmean(layer.saturated or 0.0 for layer in sigmoids)
        causes.append(
            Cause(
                "saturated-units",
                0.4 + 0.5 * at_limit,
                f"{len(sigmoids)} layers of sigmoids or tanhs, {at_limit:.0%} of their outputs at the limits; a sigmoid's slope "
                "is 0.25 at most, a tanh's 1",
            )
        )
    if gates:
        mean = statistics.fmean(layer.gate or 1.0 for layer in gates)
        causes.append(Cause("gates", 0.5 if mean < 0.8 else 0.1, f"{len(gates)} gates with a mean factor of {mean:.2g}"))
    if not seen.has_norms:
        causes.append(Cause("no-normalisation", 0.45, "no layer is normalised"))
    return causes

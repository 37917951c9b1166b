"""The network is a constant function: what it puts out does not depend on the image.

Looks at what differs between the images of a batch, part by part, from the pixels to the last part before the head; at the
logits; and at the same network with its weights drawn again, to tell a bad start from gates and from missing normalisation.

One threshold on the logits is not enough. A head that starts at zero gives constant logits and learns at once, and a network
with batch norm that is looked at in evaluation mode before it has seen a batch has nearly constant ones. So the features decide,
in training mode: where they carry less than a hundred-thousandth of what the pixels carry, a step of any usual size changes
nothing but the biases of the head.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Literal

import torch

from striate.doctor import passes
from striate.doctor.finding import Cause, Curve, Finding, Remedy
from striate.doctor.passes import Signals
from striate.doctor.patient import DRAWN_IMAGES, Patient
from striate.doctor.remedies import (
    WITH_NORMS,
    in_training_mode,
    initialised,
    normalised,
    with_open_gates,
    with_slow_start,
)
from striate.models import catalog

SOURCE = (
    "Glorot and Bengio 2010, section 4.2 (variance from layer to layer); He et al. 2015 (rectifiers), section 2.2; "
    "the case: Salunkhe 2024, whose loss stayed at 1.6 ln 1000"
)
# Share of the pixels' spread that reaches the features. Of the 73 networks as their papers start them the least that learns
# has 8e-5 (ZFNet, deviation 0.01 in all layers); the source paper's has 2e-9, torch's start of GoogLeNet without gates 3e-7.
CONSTANT = 1e-5
# Logits that differ by more than this are no constant, whatever the features' size.
LOGITS = 1e-3
# Below this share a part is named as the place where the signal dies.
DYING = 1e-3
# A signal is weak where gates alone leave less than the second share, and of the pixels' spread less than the first is left.
WEAK, WEAK_GATES = 1e-2, 0.05
# A ReLU layer of fewer units may be silent by chance.
FEW = 8
# A sigmoid or tanh layer whose outputs are all but at its limits for this share.
SATURATED = 0.9
# What is measured with another start, and with batch norm, as the evidence calls it.
DRAWN_LEFT, TWIN_LEFT = "of it left with other initial weights", "of it left with batch norm"


def check(patient: Patient) -> Finding | None:
    """The finding, or None where the features depend on the images."""
    seen = patient.signals
    last = passes.features(seen)
    spread = seen.main.spread if last is None else last.spread
    share = spread / max(seen.image_spread, 1e-30)
    if seen.image_spread == 0 or not math.isfinite(share):
        return None
    if share >= CONSTANT or seen.main.spread >= LOGITS:
        return _weak(patient, share)
    dying = next((stage for stage in passes.trunk(seen) if stage.spread < DYING * seen.image_spread), last)
    inner = _innermost(seen, dying.name) if dying is not None else None
    causes, better = _causes(patient, share)
    where = f"; it dies in {inner or dying.name}" if dying is not None else ""
    evidence = {
        "spread of the pixels": seen.image_spread,
        "spread of the features": spread,
        "of it left": share,
        "spread of the logits": seen.main.spread,
        "the same with 1,000 classes": _standstill(seen, 1000),
        "spread by part": {stage.name: stage.spread for stage in passes.trunk(seen)},
    } | better
    return Finding(
        "constant-function",
        "error",
        f"The network is a constant function: between images its features differ by {share:.1g} of what the pixels do{where}. "
        "It can learn nothing but the biases of its last layer, and its loss will stand at "
        f"{_standstill(seen, seen.main.outputs)}.",
        evidence,
        tuple(causes),
        tuple(_remedies(patient, causes, better)),
        SOURCE,
        layer=inner or (dying.name if dying is not None else None),
        curve=curve(seen, dying.name if dying is not None else None),
    )


def _standstill(seen: Signals, outputs: int) -> str:
    """The loss of a network of so many outputs that does not look at its images, as a sum: 1.6 ln 12 = 3.98."""
    weight = sum(head.weight for head in seen.heads.values() if math.isfinite(head.weight))
    factor = "" if math.isclose(weight, 1.0, rel_tol=1e-3) else f"{weight:.3g} "
    return f"{factor}ln {outputs} = {weight * math.log(max(1, outputs)):.4g}"


def _weak(patient: Patient, share: float) -> Finding | None:
    """A signal that gates alone make weak, in a network without normalisation that could lift it again."""
    seen = patient.signals
    gates = gate_factors(seen)
    left = math.prod(gates.values())
    if seen.has_norms or share >= WEAK or left >= WEAK_GATES:
        return None
    return Finding(
        "weak-signal",
        "warning",
        f"Gates leave {left:.1g} of the signal on its way through {len(gates)} parts, and nothing lifts it again: between images "
        f"the features differ by {share:.1g} of what the pixels do.",
        {"factor of all gates": left, "factor by part": gates, "of the pixels' spread left": share},
        (
            Cause(
                "gates", 0.9, f"a mean factor of {sum(gates.values()) / len(gates):.2g} in each of {len(gates)} parts in a row"
            ),
            Cause("no-normalisation", 0.4, "no layer is normalised"),
        ),
        (with_open_gates(patient), normalised(patient)),
        SOURCE,
        layer=next(iter(gates)),
        curve=curve(seen, None),
    )


def curve(seen: Signals, mark: str | None) -> Curve:
    """Spread by depth, from the pixels to the main head."""
    parts = passes.trunk(seen)
    names = ["pixels", *(part.name for part in parts), "logits"]
    values = [seen.image_spread, *(part.spread for part in parts), seen.main.spread]
    return Curve(
        "What differs between images, by depth",
        "part of the network",
        "root mean square",
        names,
        {"spread": values},
        is_log=True,
        mark=(mark, "dies here") if mark is not None else None,
    )


def _innermost(seen: Signals, stage: str) -> str | None:
    """Of the layers inside a part, the first whose spread is below the mark and stays there to the part's end."""
    inside = [layer for layer in seen.layers if layer.name == stage or layer.name.startswith(stage + ".")]
    return next((layer.name for layer in inside if layer.spread < DYING * seen.image_spread), None)


def _causes(patient: Patient, share: float) -> tuple[list[Cause], dict[str, float]]:
    """Causes by how many powers of ten each takes, from the gates' factors and from the network with its weights drawn anew."""
    seen = patient.signals
    lost = -math.log10(max(share, 1e-30))
    evidence: dict[str, float] = {}
    causes = []
    gates = gate_factors(seen)
    by_gates = -sum(map(math.log10, gates.values()))
    if gates:
        evidence["factor of all gates"] = 10**-by_gates
        causes.append(
            Cause(
                "gates",
                min(1.0, by_gates / lost),
                f"{sum(layer.gate is not None for layer in seen.layers)} gates with a mean factor of "
                f"{sum(gates.values()) / len(gates):.2g} in {len(gates)} parts in a row leave {10**-by_gates:.1g}",
            )
        )
    drawn = max(_drawn_again(patient, "he"), _drawn_again(patient, "sigmoid"))
    by_weights = math.log10(max(drawn, 1e-30)) + lost
    evidence[DRAWN_LEFT] = drawn
    if by_weights > 0.5:
        share_of_it = min(0.9, by_weights / lost)
        causes.append(
            Cause("initialisation", share_of_it, f"drawn again, for its kind of units, {drawn:.1g} is left of {share:.1g}")
        )
    closed = [layer.name for layer in seen.layers if layer.dead == 1.0 and layer.values >= FEW]
    if closed:
        causes.append(Cause("dead-units", 1.0, f"no unit of {closed[0]} is positive, so nothing gets through it"))
    full = [layer.name for layer in seen.layers if (layer.saturated or 0.0) > SATURATED and layer.values >= FEW]
    if full:
        causes.append(Cause("saturated-units", 1.0, f"{full[0]} is at the limits of its range, where all images look alike"))
    if len(seen.resting_norms) > 1:
        because = f"{len(seen.resting_norms)} batch norms scale by statistics that no batch has set yet"
        causes.append(Cause("batch-norm-mode", 1.0, because))
    twin = _of_twin(patient) if not seen.has_norms else None
    if twin is not None:
        evidence[TWIN_LEFT] = twin
    if not seen.has_norms:
        layers = len(passes.weighted(seen))
        rest = max(0.1, 1 - (max(0.0, by_weights) + by_gates) / lost)
        causes.append(Cause("no-normalisation", min(0.5, rest), f"{layers} layers with weights, and none of them is normalised"))
    return causes, evidence


def _drawn_again(patient: Patient, way: Literal["he", "sigmoid"]) -> float:
    """Of the pixels' spread, what reaches the features when the weights are drawn again; the second way only among sigmoids."""
    if way == "sigmoid" and sum(layer.saturated is not None for layer in patient.signals.layers) < 2:
        return 0.0
    again = patient.drawn_again(way)
    last = passes.features(again)
    return (again.main.spread if last is None else last.spread) / max(again.image_spread, 1e-30)


def gate_factors(seen: Signals) -> dict[str, float]:
    """The mean factor of the gates in each part of the network that has some."""
    found = {}
    for stage in seen.stages:
        own = [one for one in seen.layers if one.name == stage.name or one.name.startswith(stage.name + ".")]
        factors = [one.gate for one in own if one.gate is not None]
        if factors:
            found[stage.name] = sum(factors) / len(factors)
    return found


def _remedies(patient: Patient, causes: list[Cause], evidence: Mapping[str, float]) -> Iterator[Remedy]:
    """First what brings back most of the signal, as far as that was measured here; then by the weight of the cause."""
    ways = {
        "initialisation": initialised,
        "dead-units": initialised,
        "saturated-units": initialised,
        "gates": with_open_gates,
        "no-normalisation": normalised,
        "batch-norm-mode": in_training_mode,
    }
    chosen = list(dict.fromkeys(ways[cause.name] for cause in sorted(causes, key=lambda one: -one.weight)))
    if evidence.get(TWIN_LEFT, 0.0) > evidence[DRAWN_LEFT]:
        chosen.sort(key=lambda way: way is not normalised)
    yield from (way(patient) for way in chosen)
    yield with_slow_start(patient)


def _of_twin(patient: Patient) -> float | None:
    """What is left in the same network with batch norm, where there is one."""
    recipe = patient.recipe
    name = WITH_NORMS.get(recipe.model.name) if recipe is not None else None
    if name is None or recipe is None:
        return None
    options: dict[str, object] = {"size_px": recipe.data.size_px} if "size_px" in catalog.option_names(name) else {}
    with torch.random.fork_rng([]):
        twin = catalog.build(name, patient.outputs, options).to(patient.device).train()
    count = min(DRAWN_IMAGES, patient.looked_at)
    seen = passes.look(twin, patient.images[:count], patient.labels[:count], patient.loss)
    last = passes.features(seen)
    return (seen.main.spread if last is None else last.spread) / max(seen.image_spread, 1e-30)

"""ReLUs that are never positive, and sigmoids or tanhs at their limits: units through which no gradient comes back.

Looks at each such layer's outputs over a batch. A ReLU whose channel is zero for all images of the batch at the start has weights
or a bias that will hardly ever bring it back.
"""

from __future__ import annotations

from striate.doctor.finding import Cause, Curve, Finding, Remedy
from striate.doctor.patient import Patient
from striate.doctor.remedies import initialised, with_slow_start

SOURCE = "Maas, Hannun and Ng 2013, section 2 (dead units); Glorot and Bengio 2010, section 3 (saturation)"
# Of the networks as their papers start them, the worst ReLU layer has 40 % dead channels for 16 images (AlexNet's last).
DEAD = 0.7
# Or so few of its outputs are positive; of normal inputs half are, of a layer's with a bias of two deviations below zero 2 %.
HARDLY = 1e-3
# Fewer channels say nothing: the inner layers of small squeeze-and-excitation blocks have two.
FEW = 8
# Outputs at the limits of a layer of sigmoids or tanhs; a unit normal input has 0.01 % (sigmoid) and 5 % (tanh) there.
SATURATED = 0.5


def _silent(active: float | None) -> float:
    """1 where hardly any output of a ReLU layer is positive, though every channel may be for some place in some image."""
    return 1.0 if active is not None and active < HARDLY else 0.0


def check(patient: Patient) -> Finding | None:
    """The finding, or None where units answer to their inputs."""
    layers = patient.signals.layers
    gates = tuple(f"{one.name}." for one in layers if one.gate is not None)  # their inner layers are small, and may rest
    seen = [one for one in layers if one.values >= FEW and not one.name.startswith(gates)]
    dead = {one.name: max(one.dead, _silent(one.active)) for one in seen if one.dead is not None}
    if dead and max(dead.values()) > DEAD:
        bad = {name: share for name, share in dead.items() if share > DEAD}
        first = next(iter(bad))
        return Finding(
            "dead-units",
            "error" if any(share >= 0.99 for share in bad.values()) else "warning",
            f"{max(bad.values()):.0%} of the channels of {first if len(bad) == 1 else f'{len(bad)} ReLU layers'} are never "
            f"positive: nothing comes back through them. The first is {first}.",
            {"dead share by layer": bad},
            (
                Cause("dead-units", 0.9, f"{len(bad)} of {len(dead)} ReLU layers with more than {DEAD:.0%} dead channels"),
                Cause("initialisation", 0.4, "biases below zero, or weights that make all inputs negative"),
            ),
            (
                initialised(patient),
                with_slow_start(patient),
                Remedy("Set the biases to 0 or slightly above, or use a leaky ReLU."),
            ),
            SOURCE,
            layer=first,
            curve=Curve("Dead channels, by depth", "ReLU layer", "share", list(dead), {"dead": list(dead.values())}),
        )
    full = {one.name: one.saturated for one in seen if one.saturated is not None}
    bad = {name: share for name, share in full.items() if share > SATURATED}
    if not bad:
        return None
    first = next(iter(bad))
    return Finding(
        "saturated-units",
        "error" if len(bad) > len(full) / 2 else "warning",
        f"{max(bad.values()):.0%} of the outputs of {first} are at the limits of its range, where the slope is near 0"
        + (f"; so are those of {len(bad) - 1} more layers." if len(bad) > 1 else "."),
        {"share at the limits, by layer": bad},
        (
            Cause("saturated-units", 0.9, f"{len(bad)} of {len(full)} such layers with more than {SATURATED:.0%} at the limits"),
            Cause("initialisation", 0.4, "weights too large for this kind of unit"),
        ),
        (Remedy("Use ReLUs, or start with Glorot's weights (nn.init.xavier_uniform_), which keep such units in their middle."),),
        SOURCE,
        layer=first,
        curve=Curve("At the limits, by depth", "layer", "share", list(full), {"saturated": list(full.values())}),
    )

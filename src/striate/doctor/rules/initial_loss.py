"""The first loss is not what it must be: ln K for each head, and for the sum each head's weight times that.

Looks at the cross-entropy of each head before the first step, beside ln K, the loss of a network that gives all K classes the
same probability. A new network is close to it, because it knows nothing. Far above, its head starts with weights so large that
it is sure of something wrong, and the first hundreds of steps only undo that.
"""

from __future__ import annotations

import math

from striate.doctor.finding import Cause, Finding, Remedy
from striate.doctor.patient import Patient
from striate.doctor.remedies import with_slow_start

SOURCE = "Shannon 1948 (entropy of K equal outcomes); Karpathy 2019, A Recipe for Training Neural Networks (verify loss at init)"
# Logits of deviation 1.5, as He's start gives the last layer, cost about 1.1 nats, and 2.3 for images of noise.
MORE = 3.0
# So much more is an error.
MUCH_MORE = 10.0


def check(patient: Patient) -> Finding | None:
    """The finding, or None where each head begins near ln K."""
    seen = patient.signals
    worst, head = max(((head.loss, name) for name, head in seen.heads.items() if math.isfinite(head.loss)), default=(0.0, ""))
    if not head:
        return None
    found = seen.heads[head]
    expected = math.log(max(1, found.outputs))
    if worst - expected < MORE:
        return None
    weights = " + ".join(f"{one.weight:.3g}" for one in seen.heads.values())
    in_all = math.log(max(1, seen.main.outputs)) * sum(one.weight for one in seen.heads.values())
    return Finding(
        "initial-loss",
        "error" if worst - expected > MUCH_MORE else "warning",
        f"The first loss{'' if head == 'main' else f' of head {head}'} is {worst:.3g}, where a new network of "
        f"{found.outputs} outputs has ln {found.outputs} = {expected:.3g}.",
        {
            "loss by head": {name: one.loss for name, one in seen.heads.items()},
            "ln K": expected,
            "loss in all": seen.total,
            f"({weights}) ln K": in_all,
            "size of the logits": found.scale,
        },
        (Cause("head-scale", 0.8, f"logits of size {found.scale:.3g}, where below 1 is usual"),),
        (
            Remedy("Start the last layer small: nn.init.normal_(head.weight, std=0.01), and zeros for its bias."),
            with_slow_start(patient),
        ),
        SOURCE,
        layer=None,
    )

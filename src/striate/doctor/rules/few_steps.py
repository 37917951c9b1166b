"""So few steps in all that little can be learnt, for the batch is large.

Looks at: images of a step, steps of an epoch, steps in all.
Why: each step moves the weights once, however many images it averages over. A batch that takes half of the data makes two steps
an epoch, and a budget of some epochs ends before the network has moved.
Source: Keskar et al. 2017, section 2; Shallue et al. 2019, section 4 (steps needed by batch size).
"""

from __future__ import annotations

from striate.doctor.finding import Cause, Finding, NotJudged, Remedy
from striate.doctor.history import History
from striate.doctor.rules.batch_size import FEW_PER_EPOCH, FEW_STEPS, USUAL

SOURCE = "Keskar et al. 2017, section 2; Shallue et al. 2019, section 4"


def check(history: History) -> Finding | None:
    """A finding for a training of few steps with a large batch; a note while it goes on."""
    size, per_epoch, total = history.batch_size, history.steps_per_epoch, history.total_steps
    if size is None or per_epoch is None or total is None:
        raise NotJudged("batch and steps unknown")
    if size <= USUAL or total >= FEW_STEPS or per_epoch >= FEW_PER_EPOCH:
        return None
    smaller = max(16, size // 8)
    return Finding(
        code="few-steps",
        severity="warning" if history.is_done else "note",
        sentence=f"Batches of {size} make {per_epoch} step{'s' * (per_epoch > 1)} an epoch and {total} in all.",
        evidence={"batch": size, "steps in an epoch": per_epoch, "steps in all": total},
        causes=(
            Cause("batch-too-large", 0.85, f"{per_epoch} steps for a pass over all images"),
            Cause("time", 0.3, f"{total} steps in all"),
        ),
        remedies=(
            Remedy(f"Take batches of {smaller}, with the rate in proportion.", history.set(optim_batch_size=smaller)),
            Remedy("Or train for more epochs.", history.longer(5)),
        ),
        source=SOURCE,
    )

"""Memory grows as long as the training runs.

Looks at: the most memory held so far, after the first epoch, in which everything takes its place.
Why: the most held so far never falls, but it settles. Where it keeps growing by the same amount, something is kept that should
be let go: in training loops most often losses with their graphs, or lists of outputs; in loaders copies of Python objects in
the workers.
Source: PyTorch documentation, "Frequently Asked Questions: My model reports cuda runtime error(2): out of memory".
"""

from __future__ import annotations

import numpy as np

from striate.doctor.finding import Cause, Finding, NotJudged, Remedy
from striate.doctor.history import History, parts

SOURCE = "PyTorch documentation, FAQ: out of memory (don't accumulate history across your training loop)"

_LEAST_ROWS, _LEAST_EPOCHS = 10, 6
# Grown since the first epoch: by this share, and by these bytes.
_GROWN, _GROWN_BYTES = 0.15, 200e6
# Each quarter of the time brings at least this share of a quarter of the growth: it goes on evenly.
_EVENLY = 0.4


def check(history: History) -> Finding | None:
    """A finding when memory grew in each quarter of the time since the first epoch, by about as much."""
    memory, step = history.steps["memory_bytes"], history.steps["step"]
    rows = np.isfinite(memory) & (step > _settled_step(history))
    for resumed in history.resumed_at:  # another process, with a memory of its own
        rows &= step > resumed
    memory, step = memory[rows], step[rows]
    if len(memory) < (_LEAST_EPOCHS if history.is_by_epoch else _LEAST_ROWS):
        raise NotJudged("too few records" if np.isfinite(history.steps["memory_bytes"]).any() else "no speed and memory")
    levels = [float(memory[0]), *parts(memory, 8)[1::2], float(memory[-1])]
    grown = levels[-1] - levels[0]
    pieces = np.diff([levels[0], *(float(memory[int(share * (len(memory) - 1))]) for share in (0.25, 0.5, 0.75, 1.0))])
    if grown < max(_GROWN * levels[0], _GROWN_BYTES) or pieces.min() < _EVENLY * grown / 4:
        return None
    per_step = grown / max(1.0, float(step[-1] - step[0]))
    total = history.total_steps
    at_end = levels[-1] + per_step * max(0, total - int(step[-1])) if total else None
    return Finding(
        code="memory-growth",
        severity="warning",
        sentence=(
            f"Memory grew from {levels[0] / 2**30:.2f} to {levels[-1] / 2**30:.2f} GiB since step {int(step[0]):,}, evenly"
            + (f"; at the last step it would be {at_end / 2**30:.1f} GiB." if at_end else ".")
        ),
        evidence={
            "memory then [bytes]": levels[0],
            "memory now [bytes]": levels[-1],
            "bytes per 1,000 steps": 1000 * per_step,
            "memory at the end [bytes]": at_end,
        },
        causes=(
            Cause("memory-growing", 0.9, f"{1000 * per_step / 1e6:,.0f} MB for each 1,000 steps, in every quarter of the time"),
            Cause("memory", 0.3, "until it is full"),
        ),
        remedies=(
            Remedy("Keep no tensor of a step with its graph: loss.item(), or detach(), for what is collected."),
            Remedy("Until that is found, save often and go on in a new process: --stop-after, and the same command again."),
        ),
        source=SOURCE,
        curve=history.column_curve("Memory", "memory_bytes", "bytes"),
    )


def _settled_step(history: History) -> int:
    """The end of the first epoch, or the tenth step where nobody knows how long an epoch is."""
    return 1 if history.is_by_epoch else history.steps_per_epoch or 10

"""Fewer images per second as time goes on.

Looks at: images per second over the steps, without the first records and those after a resume.
Why: a training has no reason to slow down by itself. A disk whose cache is full, a processor that gets hot, memory that is
swapped out, or another program on the machine are reasons.
Source: none but the arithmetic; the trend is that of Theil and Sen (Sen 1968).
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from striate.doctor.finding import Cause, Finding, NotJudged, Remedy
from striate.doctor.history import History, fall, level, parts

SOURCE = "Sen 1968 (the trend)"

_LEAST_ROWS, _SKIPPED = 20, 2
# The last fifth against the first one: slower by this share, step by step, and surely. In a training of some minutes other
# programs come and go, so it takes more there.
_SLOWER, _SLOWER_SOON = 0.3, 0.4
_SOON_S, _LEAST_S = 600.0, 120.0
_DEVIATIONS = 4.0


def check(history: History) -> Finding | None:
    """A finding when the speed falls by nearly a third, from fifth to fifth of the training."""
    rows = np.isfinite(history.steps["images_per_s"])
    rows[:_SKIPPED] = False
    for resumed in history.resumed_at:
        rows &= ~((history.steps["step"] > resumed) & (np.cumsum(history.steps["step"] > resumed) <= _SKIPPED))
    speed, step = history.steps["images_per_s"][rows], history.steps["step"][rows]
    if len(speed) < _LEAST_ROWS:
        raise NotJudged("too few records" if np.isfinite(history.steps["images_per_s"]).any() else "no speed and memory")
    fifths = parts(speed, 5)
    first, now = fifths[0], fifths[-1]
    falls = [later < 0.97 * earlier for earlier, later in pairwise(fifths)]
    is_steady = sum(falls) >= 3 and now == min(fifths) and max(fifths[2:]) < max(fifths[:2])
    elapsed = history.steps["elapsed_s"][rows]
    lasted = float(elapsed[-1] - elapsed[0]) if np.isfinite(elapsed[[0, -1]]).all() else math.inf
    slower = _SLOWER if lasted >= _SOON_S else _SLOWER_SOON
    down, error = fall(speed)
    if lasted < _LEAST_S:
        raise NotJudged("less than two minutes")
    if now > (1 - slower) * first or not is_steady or down < _DEVIATIONS * error:
        return None
    waited = parts(history.steps["wait_share"][rows], 5)
    is_loader = waited[-1] > waited[0] + 0.1
    return Finding(
        code="slowing",
        severity="warning",
        sentence=f"{first:,.0f} images per second at first, {now:,.0f} now: {1 - now / first:.0%} slower, and falling.",
        evidence={
            "images per second at first": first,
            "images per second now": now,
            "share of waiting at first": waited[0],
            "share of waiting now": waited[-1],
            "memory at first [bytes]": level(history.steps["memory_bytes"][rows][:3]),
            "memory now [bytes]": level(history.steps["memory_bytes"][rows][-3:]),
            "since step": int(step[0]),
        },
        causes=(
            Cause("throughput-falling", 0.8, f"from {first:,.0f} to {now:,.0f} images per second"),
            Cause(
                "waiting-for-data",
                0.85 if is_loader else 0.2,
                f"waiting went from {waited[0]:.0%} to {waited[-1]:.0%} of the time",
            ),
            Cause("memory-growing", 0.2, "a machine that runs out of memory swaps"),
        ),
        remedies=(
            Remedy("See what else runs on the machine, and whether it gets hot (the clock falls) or swaps."),
            Remedy("If it waits for images: a pack, or images in memory.", history.set(data_resident="yes") if is_loader else {}),
        ),
        source=SOURCE,
        curve=history.column_curve("Speed", "images_per_s", "images per second"),
    )

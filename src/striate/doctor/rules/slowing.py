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

_LEAST_ROWS, _LEAST_BY_FAR, _SKIPPED = 20, 8, 2
# The last fifth against the first one: slower by this share, step by step, and surely. In a training of some minutes other
# programs come and go, so it takes more there, and one of less than two minutes is only told of unless it falls by far.
_SLOWER, _SLOWER_SOON, _SLOWER_BY_FAR = 0.3, 0.4, 0.65
_SOON_S, _SHORT_S = 600.0, 120.0
_DEVIATIONS = 4.0


def check(history: History) -> Finding | None:
    """A finding when the speed falls by nearly a third, from fifth to fifth of the training."""
    name = "images_per_s" if np.isfinite(history.steps["images_per_s"]).any() else "epochs_per_s"
    rows = np.isfinite(history.steps[name])
    rows[:_SKIPPED] = False
    for resumed in history.resumed_at:
        rows &= ~((history.steps["step"] > resumed) & (np.cumsum(history.steps["step"] > resumed) <= _SKIPPED))
    speed, step = history.steps[name][rows], history.steps["step"][rows]
    least = _LEAST_ROWS if len(speed) and level(speed[-3:]) > (1 - _SLOWER_BY_FAR) * level(speed[:3]) else _LEAST_BY_FAR
    if len(speed) < least:
        raise NotJudged("too few records" if np.isfinite(history.steps[name]).any() else "no speed and memory")
    fifths = parts(speed, 5)
    first, now = fifths[0], fifths[-1]
    falls = [later < 0.97 * earlier for earlier, later in pairwise(fifths)]
    is_steady = sum(falls) >= 3 and now == min(fifths) and max(fifths[2:]) < max(fifths[:2])
    elapsed = history.steps["elapsed_s"][rows]
    lasted = float(elapsed[-1] - elapsed[0]) if np.isfinite(elapsed[[0, -1]]).all() else math.inf
    slower = _SLOWER if lasted >= _SOON_S else _SLOWER_SOON
    down, error = fall(speed)
    if now > (1 - slower) * first or not is_steady or down < _DEVIATIONS * error:
        return None
    what = "images" if name == "images_per_s" else "epochs"
    waited = parts(history.steps["wait_share"][rows], 5)
    is_loader = waited[-1] > waited[0] + 0.1
    return Finding(
        code="slowing",
        severity="warning" if lasted >= _SHORT_S or now < (1 - _SLOWER_BY_FAR) * first else "note",
        sentence=f"{first:,.3g} {what} per second at first, {now:,.3g} now: {1 - now / first:.0%} slower, and falling.",
        evidence={
            f"{what} per second at first": first,
            f"{what} per second now": now,
            "share of waiting at first": waited[0],
            "share of waiting now": waited[-1],
            "memory at first [bytes]": level(history.steps["memory_bytes"][rows][:3]),
            "memory now [bytes]": level(history.steps["memory_bytes"][rows][-3:]),
            "since step": int(step[0]),
        },
        causes=(
            Cause("throughput-falling", 0.8, f"from {first:,.3g} to {now:,.3g} {what} per second"),
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
        curve=history.column_curve("Speed", name, f"{what} per second"),
    )

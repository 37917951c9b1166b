"""The training does not fit: into memory, onto the disk, into the time; or its images come slower than the network takes them.

Looks at the forecast of `striate train --plan`: real steps, the real loader alone and together with them, and sums.
"""

from __future__ import annotations

from typing import Any

from striate.doctor.finding import Cause, Finding, NotJudged, Remedy
from striate.doctor.patient import Patient
from striate.measure.plan import Forecast, duration_words

SOURCE = "measured here, as `striate train --plan` does (docs/runs.md)"
# Of what is free, this much may be needed.
ROOM = 0.9
# The loader alone must make this share of the images that the network alone takes.
SLOWER = 0.7
# Fewer epochs than this in a given time are not worth beginning.
FEW_EPOCHS = 1.0


def check(patient: Patient) -> Finding | None:
    """The finding with the most urgent of the four, or None where all of it fits."""
    if patient.forecast is None:
        raise NotJudged("not asked for")
    plan = patient.plan
    memory, disk, duration, speed = plan.memory, plan.disk, plan.duration, plan.speed
    if memory.needed > ROOM * memory.free:
        words = f"A step needs {memory.needed / 1e9:.3g} GB of memory, and {memory.free / 1e9:.3g} GB are free."
        half = max(1, plan.setting.batch_size // 2)
        return _finding(
            plan, "error", words, "memory", f"{memory.needed / memory.free:.2g} of what is free", {"optim.batch_size": half}
        )
    if disk.needed > ROOM * disk.free:
        words = f"The run needs {disk.needed / 1e9:.3g} GB of disk, and {disk.free / 1e9:.3g} GB are free."
        return _finding(plan, "error", words, "disk", f"{disk.needed / disk.free:.2g} of what is free", {})
    if duration.is_limited and duration.epochs < FEW_EPOCHS:
        words = f"Only {duration.epochs:.2g} epochs fit into the time."
        return _finding(plan, "warning", words, "time", f"a step takes {duration.step_s:.2g} s", {})
    if speed.loader < SLOWER * speed.network and plan.bottleneck != "network":
        words = (
            f"Images come slower than the network takes them: {speed.loader:,.0f} a second from the loader, "
            f"{speed.network:,.0f} by the network, {speed.together:,.0f} together."
        )
        changes = {"data.resident": "yes"} if any("--data.resident yes" in line for line in plan.advice) else {}
        return _finding(plan, "warning", words, "waiting-for-data", f"{speed.network / speed.loader:.2g} times slower", changes)
    return None


def _finding(plan: Forecast, severity: str, sentence: str, cause: str, because: str, changes: dict[str, Any]) -> Finding:
    advice = [Remedy(line[0].upper() + line[1:] + ".") for line in plan.advice]
    return Finding(
        "plan",
        "error" if severity == "error" else "warning",
        sentence,
        {
            "memory needed": plan.memory.needed,
            "memory free": plan.memory.free,
            "disk needed": plan.disk.needed,
            "disk free": plan.disk.free,
            "time": duration_words(plan.duration),
            "images/s of the loader": plan.speed.loader,
            "images/s of the network": plan.speed.network,
            "images/s together": plan.speed.together,
        },
        (Cause(cause, 0.9, because),),
        (*([Remedy("Change this.", changes)] if changes else []), *advice) or (Remedy("No flag helps here."),),
        SOURCE,
    )

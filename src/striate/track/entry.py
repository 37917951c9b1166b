"""What a tracker is told: who the run is, and each record of its log as plain numbers and words."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Entry:
    """One record for a tracker. numbers: finite, by a name with "/" between its parts. note: words for people, or "".

    time_s: seconds since 1970. exit_code: of the sitting, in its last entry.
    """

    step: int
    time_s: float
    numbers: Mapping[str, float] = field(default_factory=dict)
    note: str = ""
    exit_code: int | None = None


@dataclass(frozen=True)
class Story:
    """A run as a tracker meets it.

    folder: the tracker's own, within the run folder. config: recipe fields as "group.field", and what the start of
    the training said as "run.NAME"; JSON values. past: all entries of the log that count, up to now: a tracker that
    has some of them already must not hold them twice. say: takes a sentence to the log.
    """

    name: str
    folder: Path
    config: Mapping[str, Any]
    past: tuple[Entry, ...]
    say: Callable[[str], None]


Write = Callable[[Entry], None]


def entry(kind: str, step: int, time_s: float, values: Mapping[str, Any]) -> Entry:
    """A record as an entry. Names: train/…, speed/…, norms/GROUP/…, dead_share/LAYER, and SPLIT/WEIGHTS/… for evaluations."""
    code = values.get("exit_code") if kind == "end" else None
    return Entry(step, time_s, _numbers(kind, values), _note(kind, step, values), code)


def _numbers(kind: str, values: Mapping[str, Any]) -> dict[str, float]:
    found: dict[str, Any] = {}
    if kind == "step":
        names = ("epoch", "loss", "lr", "top1", "gradient_norm", "loss_scale", "skipped", "memory_bytes")
        found = {f"train/{name}": values.get(name) for name in names}
        found |= {f"speed/{name}": values.get(name) for name in ("images_per_s", "wait_share")}
        heads = values.get("losses") or {}
        if len(heads) > 1:
            found |= {f"train/losses/{head}": loss for head, loss in heads.items()}
        for group, norms in (values.get("norms") or {}).items():
            found |= {f"norms/{group}/{name}": norm for name, norm in norms.items()}
        found |= {f"dead_share/{layer}": share for layer, share in (values.get("dead_share") or {}).items()}
    elif kind == "evaluation":
        # Raw and averaged weights are two networks: their scores never share a name.
        place = f"{values.get('split')}/{values.get('weights')}"
        low, high = values.get("top1_interval") or (None, None)
        found = {"top1": values.get("top1"), "top1_low": low, "top1_high": high, "loss": values.get("loss")}
        found |= {f"top{values.get('top5_k', 5)}": values.get("top5"), "bad": values.get("bad")}
        found = {f"{place}/{name}": value for name, value in found.items()}
    return {name: float(value) for name, value in found.items() if _is_finite(value)}


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _note(kind: str, step: int, values: Mapping[str, Any]) -> str:
    match kind:
        case "note":
            return str(values.get("text"))
        case "resume":
            return f"Went on at step {step:,}."
        case "skip":
            return f"Step {step:,} skipped: {values.get('reason')}."
        case "bad":
            return f"Bad image: {values.get('key')}: {values.get('reason')}."
        case "end":
            return f"Ended at step {step:,}: {values.get('reason')}."
    return ""

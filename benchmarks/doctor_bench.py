"""Does the doctor name the right cause? Ill set-ups, planted one at a time, and healthy ones that look ill.

    python benchmarks/doctor_bench.py [--half building|blind|both] [--only NAME ...] [--tiny DIR] [--write FILE.json]

A case is right when the first cause of the first finding is the illness that was planted; a healthy one when nothing of
severity warning or error is found. `doctor_cases_building.py` has the cases that the rules were tuned on,
`doctor_cases_blind.py` those that were planted by somebody who knew the list of illnesses and not the rules, and that are run
at the end only. Their results are recorded apart. `doctor_logs/` holds recorded runs of slow illnesses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LOGS = Path(__file__).parent / "doctor_logs"


@dataclass(frozen=True)
class Before:
    """What `striate doctor DATA --recipe … --changes …` is asked. data: a folder, a list file or "builtin"."""

    data: str | Path
    recipe: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class During:
    """The same, trained for at most 100 steps (changes must set budget.steps); then `striate doctor RUN` is asked."""

    data: str | Path
    recipe: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Examined:
    """What `striate.examine(model, loader, **options)` is asked.

    loader: any iterable of (images, labels); options: val_loader, optimizer, loss (a function of (outputs, labels)).
    """

    model: Any
    loader: Iterable[Any]
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Recorded:
    """A recorded run folder (`striate doctor RUN`), or a table of a stranger (`striate doctor --log FILE.csv`)."""

    path: Path


@dataclass(frozen=True)
class Bench:
    """What a case may use. builtin, tiny: class folders (train and val) of about 12 classes; work: an empty folder of its own."""

    builtin: Path
    tiny: Path
    work: Path


@dataclass(frozen=True)
class Case:
    """One set-up. illness: a name of `striate.doctor.finding.CAUSES`, or None for a healthy one.

    also: other names that would be as right, only where two of them describe the same thing. why: what was planted, or what
    makes a healthy one look ill.
    """

    name: str
    illness: str | None
    network: str
    data: str
    prepare: Callable[[Bench], Before | During | Examined | Recorded]
    why: str
    also: tuple[str, ...] = ()

"""What the doctor says of a run: what was found before its first step, joined with what its records and predictions show now.

`findings.json` in the run folder holds it: the examination as it stands, and under "before" the one from before the training.
"""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

import numpy as np

from striate import predictions
from striate.data.index import Index
from striate.doctor import examination
from striate.doctor.examination import Examination
from striate.doctor.finding import Finding
from striate.doctor.history import History
from striate.errors import CheckpointError, StriateError, UserError
from striate.files import read_json, write_json
from striate.predictions import Predictions
from striate.run.folder import Run

NAME = "findings.json"
# Findings before a training that say it cannot learn; a run that learnt has shown the contrary.
CANNOT_LEARN = (
    "constant-function",
    "weak-signal",
    "signal-size",
    "vanishing-gradient",
    "exploding-gradient",
    "one-batch",
    "learning-rate",
    "dead-units",
    "saturated-units",
    "initial-loss",
    "labels-shuffled",
    "weight-decay",
    "batch-size",
)
# A run has learnt when it is so many times as often right as by chance, and at least this much more.
TIMES, MORE = 2.5, 0.05


def of_run(run: Run) -> Examination:
    """Joins what was found before the training with what the run shows now; writes nothing.

    Raises CheckpointError when the run's files are damaged.
    """
    history = History.of_records(run.log(), run.recipe)
    found = examination.after(history, *_predictions(run))
    earlier = before(run)
    if earlier is None:
        return found
    if has_learnt(history):
        earlier = dataclasses.replace(earlier, findings=tuple(map(_outlived, earlier.findings)))
    return earlier.joined(found)


def before(run: Run) -> Examination | None:
    """What was found before the first step; None where nobody looked. Raises CheckpointError for a damaged file."""
    path = run.path / NAME
    if not path.is_file():
        return None
    try:
        plain = read_json(path)
    except UserError as error:
        raise CheckpointError(f"{error} Delete it: `striate doctor` writes it anew.") from error
    if not isinstance(plain, dict) or not isinstance(plain.get("before") or {}, dict):
        raise CheckpointError(f"{path}: damaged; expected a table. Delete it: `striate doctor` writes it anew.")
    return Examination.from_json(plain["before"], str(path)) if plain.get("before") else None


def write(run: Run, found: Examination, before: Examination | None) -> Path:
    """Writes findings.json and returns its path."""
    path = run.path / NAME
    write_json(path, found.to_json() | {"before": before.to_json() if before is not None else None})
    return path


def has_learnt(history: History) -> bool:
    """Whether the network was ever right clearly more often than by chance, on held-out images or on those it trained on."""
    classes = history.classes
    if not classes:
        return False
    found = [history.scores(split) for split in ("val", "train-sample")]
    best = max(
        (float(np.nanmax(one["top1"])) for one in found if one is not None and np.isfinite(one["top1"]).any()), default=0.0
    )
    return best > max(TIMES / classes, 1 / classes + MORE)


def _outlived(finding: Finding) -> Finding:
    if finding.code not in CANNOT_LEARN:
        return finding
    sentence = f"Before the first step: {finding.sentence} It has learnt all the same."
    return dataclasses.replace(finding, severity="note", sentence=sentence)


def _predictions(run: Run) -> tuple[Predictions | None, Index | None]:
    """The newest saved predictions on the validation set, with the index of it."""
    paths = sorted((run.path / "evaluation").glob("val-*/predictions.parquet"), key=lambda path: path.stat().st_mtime)
    for path in reversed(paths):
        with contextlib.suppress(StriateError):
            index = None
            with contextlib.suppress(StriateError, OSError, KeyError):
                index = run.index("val")
            return predictions.read(path), index
    return None, None

"""Everything the report needs from a run folder. What is missing or broken becomes a sentence, never an error."""

from __future__ import annotations

import csv
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from striate import predictions
from striate.classes import Classes
from striate.data import decode
from striate.data.index import Index
from striate.data.layouts import detect
from striate.errors import StriateError, UserError
from striate.files import read_json
from striate.predictions import Predictions
from striate.report.history import History, history
from striate.run import log
from striate.view import View

T = TypeVar("T")


@dataclass(frozen=True)
class Evaluation:
    """One folder of evaluation/: its summary, and the tables beside it (empty where a file is missing)."""

    folder: Path
    summary: dict[str, Any]
    confusion_KK: np.ndarray | None
    bad: list[dict[str, str]]
    written: float

    @property
    def split(self) -> str:
        """Which images were scored: the summary's word, else the first part of the folder's name."""
        return str(self.summary.get("split") or self.folder.name.split("-")[0])

    @property
    def views(self) -> str:
        """How many views of each image were taken, in the command's word ("center", "10crop")."""
        parts = self.folder.name.split("-")
        return str(self.summary.get("views") or "-".join(parts[1:-1]))

    @property
    def labels(self) -> str:
        """Whose labels were scored by; "original" are the data set's own, which the saved predictions keep."""
        return str(self.summary.get("labels") or "original")

    @property
    def answered_by(self) -> str:
        """Which networks answered together, in words; empty where it was one."""
        return str(self.summary.get("answered_by") or "")


@dataclass(frozen=True)
class Split:
    """One split of the data as the run saw it: what data.json says about it, and its index (None where the file is missing)."""

    name: str
    facts: dict[str, Any]
    index: Index | None

    def path(self, key: str) -> Path | None:
        """The file of an image of this split, if the run said where its folder is."""
        root = self.facts.get("root")
        return Path(root) / key if isinstance(root, str) and root else None


@dataclass
class Facts:
    """A run folder, read. `gaps` are the sentences about what could not be shown, and why."""

    folder: Path
    recipe: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    best: dict[str, Any] = field(default_factory=dict)
    findings: list[Any] = field(default_factory=list)
    checked: dict[str, Any] = field(default_factory=dict)
    classes: Classes | None = None
    view: View | None = None
    history: History = field(default_factory=lambda: history(()))
    evaluations: list[Evaluation] = field(default_factory=list)
    splits: dict[str, Split] = field(default_factory=dict)
    gaps: list[str] = field(default_factory=list)

    def title(self, label: int) -> str:
        """The name of a class for showing, or its number where classes.json is missing."""
        if self.classes is not None and 0 <= label < len(self.classes.ids):
            return self.classes.title(label)
        return f"class {label}"

    @functools.cached_property
    def stored(self) -> tuple[Index, dict[str, int]] | None:
        """The images of data that keep many in a file, and the row of each key; None where each image is a file."""
        path = self.data.get("path")
        try:
            if not isinstance(path, str) or not detect.is_stored(path):
                return None
            index = detect.open_photos(path)
        except StriateError as error:
            self.gaps.append(f"The images could not be opened: {error}")
            return None
        return index, {key: row for row, key in enumerate(index.keys)}

    def content(self, split: Split, key: str) -> bytes | decode.Pixels | None:
        """What is stored of an image of a split; None where it is not to be found, or cannot be read."""
        try:
            if self.stored is not None:
                index, row_of = self.stored
                return index.content(row_of[key]) if key in row_of else None
            path = split.path(key)
            return decode.read(path) if path is not None else None
        except decode.BadImage:
            return None

    @property
    def main(self) -> Evaluation | None:
        """What the report is about. The run's own validation set goes before others; one network before several that answer
        together or share the images; the data set's own labels before others; one view before many; the best checkpoint, with the
        weights that made it the best, before others. Only where all of this is equal does the newest go first."""
        told = self.data.get("splits")
        own = told.get("val") if isinstance(told, dict) else None
        val = own.get("fingerprint") if isinstance(own, dict) else None

        def rank(one: Evaluation) -> tuple[bool, bool, bool, bool, bool, bool, bool, float]:
            is_others = val is not None and one.summary.get("data_fingerprint") not in (None, "", val)
            return (
                one.split != "val",
                is_others,
                bool(one.answered_by) or "routed" in one.summary,
                one.labels != "original",
                one.views != "center",
                one.summary.get("checkpoint") != self.best.get("checkpoint"),
                one.summary.get("weights") != self.best.get("weights"),
                -one.written,
            )

        return min(self.evaluations, key=rank, default=None)


def gather(folder: Path) -> Facts:
    """Reads the files of a run folder.

    Raises UserError when the folder does not exist or holds none of the files of a run.
    """
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such run folder. `striate report RUN` takes the folder that `striate train` wrote, such as runs/demo."
        )
    if not any((folder / name).exists() for name in ("recipe.json", "log.jsonl", "evaluation")):
        raise UserError(f"{folder}: this is no run folder: it has neither recipe.json nor log.jsonl nor evaluation/.")
    facts = Facts(folder)
    facts.recipe = _table(facts, "recipe.json")
    facts.environment = _table(facts, "environment.json")
    facts.data = _table(facts, "data.json")
    facts.best = _table(facts, "best.json", needed=False)
    facts.findings, facts.checked = _findings(facts)
    facts.classes = _read(facts, "classes.json", Classes.read)
    facts.view = _read(facts, "view.json", lambda path: View.from_json(read_json(path)))
    facts.history = history(_read(facts, "log.jsonl", log.read) or ())
    for place in sorted((folder / "evaluation").glob("*/summary.json")):
        summary = _read(facts, place.relative_to(folder).as_posix(), read_json)
        if isinstance(summary, dict):
            facts.evaluations.append(_evaluation(facts, place.parent, summary, place.stat().st_mtime))
    if not facts.evaluations:
        facts.gaps.append(
            "No evaluation has been written yet, so there is no table of classes, no confusion matrix and no mistake to show."
        )
    told = facts.data.get("splits")
    for name, values in (told if isinstance(told, dict) else {}).items():
        if isinstance(values, dict):
            facts.splits[name] = _split(facts, name, values)
    return facts


def _read(facts: Facts, name: str, reader: Callable[[Path], T], needed: bool = True) -> T | None:
    """One file through its reader; a missing or broken one leaves a sentence."""
    path = facts.folder / name
    if not path.exists():
        if needed:
            facts.gaps.append(f"{name} is missing.")
        return None
    try:
        return reader(path)
    except StriateError as error:
        facts.gaps.append(f"{name} could not be used: {error}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        facts.gaps.append(f"{name} could not be used ({type(error).__name__}: {error}).")
    return None


def _table(facts: Facts, name: str, needed: bool = True) -> dict[str, Any]:
    value = _read(facts, name, read_json, needed)
    if value is None or isinstance(value, dict):
        return value or {}
    facts.gaps.append(f"{name} could not be used: it holds no table of names and values.")
    return {}


def _findings(facts: Facts) -> tuple[list[Any], dict[str, Any]]:
    """The doctor's findings, and what it checked, by rule."""
    value = _read(facts, "findings.json", read_json, needed=False)
    checked = value.get("checked") if isinstance(value, dict) else None
    if isinstance(value, dict):
        value = value.get("findings", [])
    return value if isinstance(value, list) else [], checked if isinstance(checked, dict) else {}


def _evaluation(facts: Facts, folder: Path, summary: dict[str, Any], written: float) -> Evaluation:
    place = folder.relative_to(facts.folder).as_posix()
    return Evaluation(
        folder=folder,
        summary=summary,
        confusion_KK=_read(facts, f"{place}/confusion.csv", _matrix, needed=False),
        bad=_read(facts, f"{place}/bad_files.csv", _rows, needed=False) or [],
        written=written,
    )


def _rows(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", errors="replace", newline="") as file:
        return [{str(key): str(value or "") for key, value in row.items()} for row in csv.DictReader(file)]


def _matrix(path: Path) -> np.ndarray:
    """confusion.csv as int64 [K, K], rows the true class; ids stand along both sides. Raises ValueError for what is no counts."""
    with open(path, encoding="utf-8", errors="replace", newline="") as file:
        rows = [row[1:] for row in csv.reader(file)][1:]
    counts_KK = np.array(rows, dtype=np.int64)
    if counts_KK.ndim != 2 or counts_KK.shape[0] != counts_KK.shape[1]:
        raise ValueError(f"{list(counts_KK.shape)} is no square matrix")
    if (counts_KK < 0).any():
        raise ValueError("a count below zero")
    return counts_KK


def _split(facts: Facts, name: str, values: dict[str, Any]) -> Split:
    root = Path(str(values.get("root") or "."))
    return Split(name, values, _read(facts, f"index-{name}.parquet", lambda path: Index.read(path, root), needed=False))


def predictions_of(facts: Facts, evaluation: Evaluation) -> Predictions | None:
    """The saved predictions of an evaluation; None where they are missing or broken, which leaves a sentence."""
    place = evaluation.folder.relative_to(facts.folder).as_posix()
    return _read(facts, f"{place}/predictions.parquet", predictions.read)


def numbers_of(facts: Facts, evaluation: Evaluation, name: str, columns: Sequence[str]) -> np.ndarray | None:
    """A table of numbers of an evaluation, [rows, columns] float64, NaN in empty cells.

    None where the file is missing, which evaluations of old are excused for, or broken, which leaves a sentence.
    """

    def read(path: Path) -> np.ndarray:
        rows = _rows(path)
        lacking = [column for column in columns if not rows or column not in rows[0]]
        if lacking:
            raise ValueError(f"expected rows with {', '.join(columns)}, found none of {', '.join(lacking)}")
        values = np.array([[float(row[column] or "nan") for column in columns] for row in rows])
        if np.isinf(values).any() or (values < 0).any():
            raise ValueError("expected finite numbers of zero or more")
        return values

    place = evaluation.folder.relative_to(facts.folder).as_posix()
    return _read(facts, f"{place}/{name}", read, needed=False)


def calibration_of(facts: Facts) -> dict[str, Any]:
    """What calibration.json says of the temperature that was fitted; empty where there is none."""
    return _table(facts, "calibration.json", needed=False)

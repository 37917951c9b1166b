"""Evaluations that lie on the disk, scored again, with other labels or for what older versions did not count; no network runs."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from striate import predictions
from striate.errors import CheckpointError, UserError
from striate.evaluate import labels, score
from striate.files import read_json
from striate.predictions import UNLABELLED, Predictions
from striate.view import View

PREDICTIONS = "predictions.parquet"

_RELABELLED = re.compile("-by-[0-9a-f]{6}$")  # what `score.relabelled_name` adds


@dataclass(frozen=True, eq=False)
class Saved:
    """An evaluation's folder as it was written.

    name: how messages call it. summary: None for a file of predictions without its folder. bad: (key, reason) of images that
    could not be read. numbers: of the images, by name, as images.csv has them.
    """

    name: str
    path: Path
    predictions: Predictions
    summary: dict[str, Any] | None
    bad: tuple[tuple[str, str], ...]
    numbers: dict[str, np.ndarray]

    @property
    def folder(self) -> Path:
        """Where its evaluation lies."""
        return self.path if self.path.is_dir() else self.path.parent


def is_saved(place: str | Path) -> bool:
    """Whether a place is an evaluation's folder or a file of predictions."""
    path = Path(place)
    return (path / PREDICTIONS).is_file() or (path.suffix == ".parquet" and path.is_file())


def open_saved(place: str | Path) -> Saved:
    """Reads an evaluation's folder, or a file of predictions alone. Raises CheckpointError where it is damaged."""
    path = Path(place).absolute()  # a name typed within the run's folder still has the run above it
    file = path / PREDICTIONS if path.is_dir() else path
    found = predictions.read(file)
    folder = file.parent
    is_whole = file.name == PREDICTIONS and (folder / "summary.json").is_file()
    summary = read_json(folder / "summary.json") if is_whole else None
    if is_whole and not isinstance(summary, dict):
        raise CheckpointError(f"{folder / 'summary.json'}: not a summary of striate ({summary!r:.60}). Evaluate again.")
    bad = tuple((row["key"], row["reason"]) for row in _rows(folder / "bad_files.csv", ("key", "reason"))) if is_whole else ()
    numbers = _numbers(folder / "images.csv", found.keys) if is_whole else {}
    name = path.name if path.is_dir() else path.stem if path.name != PREDICTIONS else folder.name
    return Saved(name, path, found, summary, bad, numbers)


def _numbers(path: Path, keys: Sequence[str]) -> dict[str, np.ndarray]:
    """The columns of images.csv: [N] float64, NaN for an empty cell; nothing where the file is of other images."""
    rows = _rows(path, ("key",))
    if [row["key"] for row in rows] != [score.shown(key) for key in keys]:
        return {}
    try:
        return {name: np.array([float(row[name] or "nan") for row in rows]) for name in rows[0] if name != "key"} if rows else {}
    except ValueError as error:
        raise CheckpointError(f"{path}: expected numbers ({error}). Evaluate again.") from error


def _rows(path: Path, needed: tuple[str, ...]) -> list[dict[str, str]]:
    """The rows of a table, which may be absent. Raises CheckpointError unless all have as many cells, and the columns needed."""
    if not path.is_file():
        return []
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}). Evaluate again.") from error
    for number, row in enumerate(rows, start=2):
        if any(name not in row for name in needed) or None in row or None in row.values():
            raise CheckpointError(f"{path}: row {number} is damaged: expected as many cells as columns. Evaluate again.")
    return rows


def rescore(saved: Saved, by: Sequence[str] = ()) -> tuple[score.Summary, Path]:
    """Scores saved predictions again, by other labels where `by` names some (`labels.judged`), and writes it beside.

    Without other labels the folder itself is written anew. Returns the summary and the folder.
    Raises UserError for predictions without their evaluation's folder, which say nothing of images that were bad, and where the
    folder's score is by other labels and none are named: the predictions keep the data set's own.
    """
    protocol = _protocol(saved)
    assert saved.summary is not None
    if not by and (known := saved.summary.get("labels", "original")) != "original":
        raise UserError(
            f"{saved.folder}: was scored by the labels {known}. Name their files again with --labels, or give the evaluation by "
            "the data set's own labels."
        )
    told = labels.judged(saved.predictions, by)
    # By other labels a class may be left without an image, as where the network prefers each time another label of the image.
    classes_scored = len(np.unique(told.predictions.labels[told.predictions.labels != UNLABELLED]))
    is_part = protocol.subset or (bool(by) and classes_scored < len(told.predictions.classes))
    protocol = replace(protocol, labels=told.words, left_out=told.left_out, subset=is_part)
    expected = len(saved.predictions) + len(saved.bad)
    summary = score.score(told.predictions, expected, saved.bad, protocol, None, saved.numbers)
    summary["parts"] = saved.summary.get("parts", {}) if not by else {}
    for kept in ("routed", "notes"):
        if kept in saved.summary:
            summary[kept] = saved.summary[kept]
    folder = saved.folder
    if by:
        folder = folder.with_name(score.relabelled_name(_RELABELLED.sub("", folder.name), protocol))
    return summary, score.write_evaluation(folder, summary, saved.predictions, saved.bad, told.predictions, saved.numbers)


def _protocol(saved: Saved) -> score.Protocol:
    if saved.summary is None:
        raise UserError(
            f"{saved.path}: predictions without the folder of their evaluation: nobody knows how they were made and which images "
            "were bad. Give the folder, or evaluate again."
        )
    known = saved.summary
    try:
        return score.Protocol(
            split=known["split"],
            view=View.from_json(known["view"]),
            weights=known["weights"],
            precision=known["precision"],
            views=known["views"],
            looking=known.get("looking", "1 view"),
            subset=known["classes_scored"] < known["classes"],
            checkpoint=known["checkpoint"],
            data_fingerprint=known["data_fingerprint"],
            stored=known.get("stored", ""),
            routing=known.get("routing", ""),
            answered_by=known.get("answered_by", ""),
        )
    except (KeyError, TypeError, UserError) as error:
        raise CheckpointError(f"{saved.folder / 'summary.json'}: not a summary of striate ({error}). Evaluate again.") from error

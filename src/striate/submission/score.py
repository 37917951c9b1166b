"""The challenge's own error of a submission, where the solution is at hand: offline, and per image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from striate.classes import listed
from striate.data.layouts import ilsvrc
from striate.errors import DataError, UserError
from striate.evaluate import metrics
from striate.submission import kaggle, labels


@dataclass(frozen=True)
class Score:
    """Classification error, shares 0..1 of the images of the solution; intervals are [low, high] at 95 % (Wilson).

    images: all of the solution. without_row: those that the submission does not name, without_label: those whose row has no label
    that can be used; both count as wrong. extra_rows: of images that the solution does not have; they count for nothing.
    """

    images: int
    top1_error: float
    top1_error_interval: tuple[float, float]
    top5_error: float
    top5_error_interval: tuple[float, float]
    without_row: int
    without_label: int
    extra_rows: int
    errors: int
    numbering: str
    notes: tuple[str, ...]

    def describe(self) -> list[str]:
        """Lines for people."""
        first, near = self.top1_error_interval, self.top5_error_interval
        head = (
            f"top-5 error {self.top5_error:.2%} ({near[0]:.2%} to {near[1]:.2%}), "
            f"top-1 error {self.top1_error:.2%} ({first[0]:.2%} to {first[1]:.2%})"
        )
        return [head, f"{self.images:,} images of the solution; labels as in {self.numbering}", *self.notes]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return vars(self) | {"notes": list(self.notes)}


def score(path: str | Path, solution: str | Path, mapping: str | Path | None = None) -> Score:
    """Top-1 and top-5 classification error of a submission; what `striate submit --score` does.

    solution: a LOC_*_solution.csv, read as the data set's reader does. mapping: LOC_synset_mapping.txt, if it does not lie beside
    or above the solution. An image counts as right in top-5 when any of its first five labels is the true class.
    Raises UserError where a file is not there, DataError where the solution cannot be used, its classes are not in the
    mapping, or the submission names none of its images.
    Source: Russakovsky et al. 2015 (ILSVRC), section 4.1; eval_clsloc.m of the development kit of 2013, which leaves its
    blacklisted images out of localisation only.
    """
    path, solution = Path(path), Path(solution)
    if not solution.is_file():
        raise UserError(f"--solution {solution}: no such file. Give a LOC_val_solution.csv.")
    truth = ilsvrc.read_table(solution)
    if not truth.wnids:
        raise DataError(f"{solution}: has no row, so there is nothing to score against.")
    notes = [f"{solution.name}: {count:,} {defect}" for defect, count in truth.defects.items()]
    numbering = labels.find_mapping(None if mapping is None else Path(mapping), solution.parent)
    if numbering is None:
        numbering = labels.by_order(truth.wnids, solution.name)
        notes.append(labels.assumed(numbering))
    unknown = sorted(set(truth.wnids) - set(numbering.ids))
    if unknown:
        raise DataError(
            f"{solution}: {len(unknown):,} of its classes have no line in {numbering.source}: {listed(unknown)}. "
            "Solution and mapping belong to different sets: give the right --mapping FILE."
        )
    table = kaggle.read(path, numbering)
    image_ids = list(truth.stems)
    row_of = {row.image_id: row for row in table.rows}
    found = [row_of.get(image_id) for image_id in image_ids]
    without_row = sum(row is None for row in found)
    if without_row == len(found):
        raise DataError(
            f"{path}: names none of the {len(found):,} images of {solution}, as {image_ids[0]!r}. Are they of one split?"
        )
    labels_N5 = np.stack([np.zeros(kaggle.MOST, np.int64) if row is None else row.labels_5 for row in found])
    truth_N = np.asarray([numbering.label[wnid] for wnid in truth.wnids], dtype=np.int64)
    is_right_N5 = labels_N5 == truth_N[:, None]
    top1_wrong, top5_wrong = int((~is_right_N5[:, 0]).sum()), int((~is_right_N5.any(axis=1)).sum())
    images = len(found)
    without_label = int((labels_N5 == 0).all(axis=1).sum()) - without_row
    extra_rows = len(table.rows) - (images - without_row)
    errors = sum(defect.severity == "error" for defect in table.defects)
    notes += [
        said
        for count, said in (
            (without_row, f"{without_row:,} images have no row, and count as wrong"),
            (without_label, f"{without_label:,} images have a row without a label that can be used, and count as wrong"),
            (extra_rows, f"{extra_rows:,} rows are of images that the solution does not have, and count for nothing"),
            (errors, f"{errors:,} errors in {path.name}: the server may refuse it; striate submit --check {path} lists them"),
        )
        if count
    ]
    return Score(
        images=images,
        top1_error=top1_wrong / images,
        top1_error_interval=metrics.wilson(top1_wrong, images),
        top5_error=top5_wrong / images,
        top5_error_interval=metrics.wilson(top5_wrong, images),
        without_row=without_row,
        without_label=without_label,
        extra_rows=extra_rows,
        errors=errors,
        numbering=numbering.source,
        notes=tuple(notes),
    )

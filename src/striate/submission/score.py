"""The challenge's own errors of a submission, of classes and of boxes, where the solution is at hand: offline, and per image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from striate import geometry
from striate.classes import listed
from striate.data.index import Boxes
from striate.data.layouts import ilsvrc
from striate.errors import DataError, UserError
from striate.evaluate import metrics
from striate.localize.metrics import edges, localisation_error
from striate.submission import kaggle, labels


@dataclass(frozen=True)
class Score:
    """Errors of classification and of localisation, shares 0..1 of the images of the solution; intervals are [low, high] at 95 %
    (Wilson).

    images: all of the solution. without_row: those that the submission does not name, without_label: those whose row has no label
    that can be used; both count as wrong. without_box: those whose row has labels and no box that can be used; wrong in
    localisation. extra_rows: of images that the solution does not have; they count for nothing.
    """

    images: int
    top1_error: float
    top1_error_interval: tuple[float, float]
    top5_error: float
    top5_error_interval: tuple[float, float]
    top1_localisation_error: float
    top1_localisation_error_interval: tuple[float, float]
    top5_localisation_error: float
    top5_localisation_error_interval: tuple[float, float]
    without_row: int
    without_label: int
    without_box: int
    extra_rows: int
    errors: int
    numbering: str
    notes: tuple[str, ...]

    def describe(self) -> list[str]:
        """Lines for people."""
        found = [
            f"top-5 {kind} {_shown(near, near_interval)}, top-1 {kind} {_shown(first, first_interval)}"
            for kind, near, near_interval, first, first_interval in (
                ("error", self.top5_error, self.top5_error_interval, self.top1_error, self.top1_error_interval),
                (
                    "localisation error",
                    self.top5_localisation_error,
                    self.top5_localisation_error_interval,
                    self.top1_localisation_error,
                    self.top1_localisation_error_interval,
                ),
            )
        ]
        return [*found, f"{self.images:,} images of the solution; labels as in {self.numbering}", *self.notes]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return vars(self) | {"notes": list(self.notes)}


def score(path: str | Path, solution: str | Path, mapping: str | Path | None = None) -> Score:
    """Top-1 and top-5 error of a submission, of classes and of boxes; what `striate submit --score` does.

    solution: a LOC_*_solution.csv, read as the data set's reader does. mapping: LOC_synset_mapping.txt, if it does not lie beside
    or above the solution. An image counts as right in top-5 when any of its first five labels is the true class; in localisation
    when the box of such a label, too, has an IoU of 0.5 or more with any of the image's boxes. Boxes of both files end on their
    last pixel, so that one is x_max - x_min + 1 pixels wide.
    Raises UserError where a file is not there, DataError where the solution cannot be used, its classes are not in the
    mapping, or the submission names none of its images.
    Source: Russakovsky et al. 2015 (ILSVRC), sections 4.1 and 4.2; eval_clsloc.m of the development kit of 2013, which leaves its
    blacklisted images out of localisation: here they count, for no solution file says which they are.
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
    boxes_N54 = np.stack([np.full((kaggle.MOST, 4), np.nan) if row is None else row.boxes_54 for row in found])
    true_M4 = edges(truth.xyxy_M4)
    truths = Boxes.of_images(len(found), truth.rows_M, true_M4)
    first, near = (localisation_error(labels_N5, edges(boxes_N54), truth_N, truths, count) for count in (1, kaggle.MOST))
    images = len(found)
    without_label = int((labels_N5 == 0).all(axis=1).sum()) - without_row
    without_box = int(((labels_N5 > 0).any(axis=1) & np.isnan(boxes_N54).any(axis=2).all(axis=1)).sum())
    lost_M = _is_lost(true_M4)
    extra_rows = len(table.rows) - (images - without_row)
    errors = sum(defect.severity == "error" for defect in table.defects)
    notes += [
        said
        for count, said in (
            (without_row, f"{without_row:,} images have no row, and count as wrong"),
            (without_label, f"{without_label:,} images have a row without a label that can be used, and count as wrong"),
            (
                without_box,
                f"{without_box:,} images have a row without a box that can be used, and count as wrong in localisation",
            ),
            (int(lost_M.sum()), _said_of_lost(lost_M, truth.rows_M, solution.name)),
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
        top1_localisation_error=first.value,
        top1_localisation_error_interval=first.interval,
        top5_localisation_error=near.value,
        top5_localisation_error_interval=near.interval,
        without_row=without_row,
        without_label=without_label,
        without_box=without_box,
        extra_rows=extra_rows,
        errors=errors,
        numbering=numbering.source,
        notes=tuple(notes),
    )


# ---------------------------------------------------------------- inside


def _shown(error: float, interval: tuple[float, float]) -> str:
    return f"{error:.2%} ({interval[0]:.2%} to {interval[1]:.2%})"


def _is_lost(true_M4: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which true boxes nothing can match: not finite, inside out, or on the far side of a photo's left or upper edge. [M] bool.

    true_M4: [M, 4] edges.
    """
    with np.errstate(invalid="ignore"):
        return np.asarray(~geometry.is_valid(true_M4) | (true_M4[:, 2:] <= 0).any(axis=1))


def _said_of_lost(lost_M: NDArray[np.bool_], rows_M: NDArray[np.int64], name: str) -> str:
    alone = len(set(rows_M[lost_M].tolist()) - set(rows_M[~lost_M].tolist()))
    images = f"; {alone:,} images have no other, and count as wrong in localisation" if alone else ""
    return f"{name}: {int(lost_M.sum()):,} boxes are not finite, inside out or outside of any photo, and match nothing{images}"

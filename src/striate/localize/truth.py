"""The boxes that people drew, checked and as the network's photos show them: what localisation is scored against."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from striate import geometry
from striate.data import boxes
from striate.data.index import Boxes, Index
from striate.data.layouts import listing
from striate.errors import DataError

SLACK_PX: Final = 1.0
"""By which a box may stand out of its photo, and is clipped: data sets differ in whether their numbers mean pixels or edges."""


@dataclass(frozen=True, eq=False)
class Truth:
    """boxes: of every image of an index, none, one or several, within the photo as seen.

    sides_N2: [N, 2] int64, width and height of the photos as seen; 0 for those without boxes, or that cannot be read.
    clipped: how many boxes stood out by up to SLACK_PX.
    """

    boxes: Boxes
    sides_N2: NDArray[np.int64]
    clipped: int

    @property
    def has_boxes_N(self) -> NDArray[np.bool_]:
        """Which images have a box: [N]."""
        return np.asarray(np.diff(self.boxes.rows) > 0)


def read(index: Index, exif: bool, shrink_px: int = 0, listed: Path | None = None) -> Truth:
    """The boxes of an index, checked against the headers of their photos, in the photos as `data.boxes.seen` speaks of them.

    exif: whether the orientation is applied, as in the view of the network. shrink_px: shorter side to which photos are stored; 0
    where they are not shrunk. listed: the file whose rows the boxes are, if there is one, to be named in messages. Boxes of a
    photo that cannot be read are checked for their numbers only.
    Raises DataError where there are no boxes, or naming the file and the box, where one is not finite, is inside out or without
    area, lies outside of its photo, or stands out by more than SLACK_PX.
    """
    drawn = boxes.required(index)
    facts = boxes.stored(index, drawn)
    row_M = np.repeat(np.arange(len(index)), np.diff(drawn.rows))
    _refuse(index, drawn.xyxy, row_M, facts.sides_N2[row_M], listed)
    # A photo of unknown sides has no edge to clip at.
    limit_M2 = np.where(facts.sides_N2[row_M] > 0, facts.sides_N2[row_M], np.inf)
    within_M4 = np.clip(drawn.xyxy, 0, np.concatenate([limit_M2, limit_M2], axis=1)).astype(np.float32)
    clipped = int((within_M4 != drawn.xyxy).any(axis=1).sum())
    within = Boxes(drawn.rows, within_M4)
    return Truth(boxes.as_seen(within, facts, exif, shrink_px), boxes.seen_sides(facts, exif, shrink_px), clipped)


def _refuse(
    index: Index, xyxy_M4: NDArray[np.float32], row_M: NDArray[np.int64], sides_M2: NDArray[np.int64], listed: Path | None
) -> None:
    """Raises DataError for the first box that cannot be right, saying how many there are and what to do."""
    low_M2, high_M2, is_known_M = xyxy_M4[:, :2], xyxy_M4[:, 2:], sides_M2[:, 0] > 0
    is_finite_M = np.isfinite(xyxy_M4).all(axis=1)
    is_inverted_M = is_finite_M & (high_M2 < low_M2).any(axis=1)
    is_flat_M = is_finite_M & ~is_inverted_M & ~geometry.is_valid(xyxy_M4)
    is_box_M = is_finite_M & ~is_inverted_M & ~is_flat_M
    is_away_M = is_box_M & is_known_M & ((low_M2 >= sides_M2) | (high_M2 <= 0)).any(axis=1)
    is_out_M = is_box_M & is_known_M & ~is_away_M & ((low_M2 < -SLACK_PX) | (high_M2 > sides_M2 + SLACK_PX)).any(axis=1)
    stored = "Boxes count in pixels of the file as stored, before EXIF rotation and resizing"
    judged = (
        (~is_finite_M, "is not four finite numbers", "Remove the row, or mend it."),
        (
            is_inverted_M,
            "is inside out",
            "Give the smaller edge first (swap x_min and x_max, or y_min and y_max), or remove the row.",
        ),
        (is_flat_M, "has no area", "Remove the row, or mend it."),
        (is_away_M, "lies outside of its photo", f"{stored}: mend the row, or remove it."),
        (
            is_out_M,
            f"stands out of its photo by more than {SLACK_PX:g} pixel",
            f"{stored}: clip the box to the photo, or mend it.",
        ),
    )
    for is_so_M, words, remedy in judged:
        at = np.flatnonzero(is_so_M)
        if len(at):
            first, (width, height) = int(at[0]), sides_M2[at[0]].tolist()
            image = int(row_M[first])
            edges = ", ".join(f"{edge:g}" for edge in xyxy_M4[first].tolist())
            photo = f" of {width} x {height} pixels" if width else ""
            others = f" The same is wrong with {len(at) - 1:,} more of '{index.split}'." if len(at) > 1 else ""
            raise DataError(
                f"{index.where(image)}{photo}: the box ({edges}) {words}; expected x_min, y_min, x_max, y_max as "
                f"edges within the photo.{_source(listed, index.keys.raw(image), xyxy_M4[first])} {remedy}{others}"
            )


def _source(listed: Path | None, key: bytes, xyxy_4: NDArray[np.float32]) -> str:
    """Where a box is written, as far as one can tell: a sentence."""
    if listed is None:
        return ""
    row = listing.row_of_box(listed, key, xyxy_4)
    return f" It is from {listed}{'' if row is None else f', row {row}'}."

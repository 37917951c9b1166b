"""Boxes of photos as they are seen: turned by the EXIF orientation and scaled where photos are stored smaller.

An index has the boxes of the photos as stored. A network that sees photos the right way up, or shrunk, needs its boxes changed
in the same way; `seen` does it, and looks into files only where something can change.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from striate.data import decode, resident, views
from striate.data.crew import Failed, Note, Stuck, threads_in_order
from striate.data.decode import BadImage
from striate.data.index import Boxes, Index
from striate.errors import DataError, UserError, expect

_WORKERS: Final = 4  # threads that wait for the disk
_TIMEOUT_S: Final = 120.0


@dataclass(frozen=True, eq=False)
class Stored:
    """What headers say of photos. sides_N2: [N, 2] int64, width and height as stored; 0 where nobody looked or it cannot be read.
    orientations_N: [N] int64, the EXIF orientation, 1 to 8; 1 where nobody looked."""

    sides_N2: NDArray[np.int64]
    orientations_N: NDArray[np.int64]


def turned(boxes_M4: NDArray[np.floating], orientation: int, width: int, height: int) -> NDArray[np.floating]:
    """Where boxes lie after `decode.turned`.

    boxes_M4: [M, 4] float, xyxy in pixels of the photo as stored; width, height: of that photo. Returns [M, 4], same dtype.
    Raises UserError for an orientation that is not in 1..8.
    Source: EXIF 2.32, tag Orientation.
    """
    expect(boxes_M4, "M 4", "boxes")
    if not 1 <= orientation <= 8:
        raise UserError(f"EXIF orientation: expected 1 to 8, found {orientation}.")
    found_M4 = np.array(boxes_M4)
    if orientation >= 5:  # stored by columns
        found_M4 = found_M4[:, [1, 0, 3, 2]]
        width, height = height, width
    if orientation in (2, 3, 6, 7):
        found_M4[:, [0, 2]] = width - found_M4[:, [2, 0]]
    if orientation in (3, 4, 7, 8):
        found_M4[:, [1, 3]] = height - found_M4[:, [3, 1]]
    return found_M4


def turned_sides(width: int, height: int, orientation: int) -> tuple[int, int]:
    """Width and height after `decode.turned`."""
    return (height, width) if orientation >= 5 else (width, height)


def seen(index: Index, exif: bool, shrink_px: int = 0) -> Boxes:
    """The boxes of an index in the photos that `resident.Prepare(exif, shrink_px)` leaves: turned, then scaled.

    exif: whether the orientation is applied. shrink_px: shorter side to which larger photos are shrunk; 0 for none. Each axis is
    scaled by its new side over its old one, as sides are rounded. Boxes of photos whose header cannot be read stay as they are.
    Raises DataError where the set has no boxes, ResourceError when reading hangs.
    """
    boxes = required(index)
    return as_seen(boxes, stored(index, boxes), exif, shrink_px) if exif or shrink_px > 0 else boxes


def as_seen(boxes: Boxes, facts: Stored, exif: bool, shrink_px: int) -> Boxes:
    """`seen` where the headers have been read. Keeps rows."""
    if not exif and shrink_px <= 0:
        return boxes
    xyxy_M4 = boxes.xyxy.copy()
    for row in np.flatnonzero(np.diff(boxes.rows) > 0).tolist():
        width, height = facts.sides_N2[row].tolist()
        if not width:
            continue
        part = slice(int(boxes.rows[row]), int(boxes.rows[row + 1]))
        if exif:
            orientation = int(facts.orientations_N[row])
            xyxy_M4[part] = turned(boxes.xyxy[part], orientation, width, height)
            width, height = turned_sides(width, height, orientation)
        new_width, new_height = views.shrunk_sides(width, height, shrink_px)
        xyxy_M4[part] *= np.array([new_width / width, new_height / height] * 2)
    return Boxes(boxes.rows, xyxy_M4)


def seen_sides(facts: Stored, exif: bool, shrink_px: int) -> NDArray[np.int64]:
    """Width and height of the photos that `as_seen` speaks of: [N, 2] int64, 0 where they are not known."""
    sides_N2 = np.where(exif & (facts.orientations_N >= 5)[:, None], facts.sides_N2[:, ::-1], facts.sides_N2)
    if shrink_px > 0:
        for row in np.flatnonzero(sides_N2.min(axis=1) > shrink_px).tolist():
            width, height = sides_N2[row].tolist()
            sides_N2[row] = views.shrunk_sides(width, height, shrink_px)
    return sides_N2


def stored(index: Index, boxes: Boxes) -> Stored:
    """Sides and orientation of the photos that have boxes, from their headers. Raises ResourceError when reading hangs."""
    rows = np.flatnonzero(np.diff(boxes.rows) > 0)
    sides_N2, orientations_N = np.zeros((len(index), 2), np.int64), np.ones(len(index), np.int64)

    def work(row: int, note: Note) -> tuple[int, int, int, int]:
        note(row)
        try:
            content = index.content(row)
            return row, *decode.sides(content), decode.orientation(content)
        except BadImage:
            return row, 0, 0, 1  # whoever needs the pixels says what is wrong with them

    found = threads_in_order(work, iter(rows.tolist()), _WORKERS, 8 * _WORKERS, _TIMEOUT_S)
    try:
        with contextlib.closing(found):
            for row, width, height, orientation in found:
                sides_N2[row], orientations_N[row] = (width, height), orientation
    except Stuck as error:
        raise resident.stuck_error(error, index) from error
    except Failed as error:
        raise resident.failed_error(error, index) from error
    return Stored(sides_N2, orientations_N)


def required(index: Index) -> Boxes:
    """The boxes of an index. Raises DataError, saying which data sets have boxes, where it has none."""
    if index.boxes is None or not len(index.boxes.xyxy):
        raise DataError(
            f"{index.root}: '{index.split}' ({index.layout}) has no boxes, and localisation is scored against boxes. Data "
            "with boxes: Tiny ImageNet as shipped (train and val), ILSVRC with its Annotations or LOC_*_solution.csv, class "
            "folders with a boxes.csv beside them, CSV and JSONL lists with x_min, y_min, x_max, y_max, packs of these, and the "
            "word builtin."
        )
    return index.boxes

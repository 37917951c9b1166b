"""Boxes that look at no pixel: what a localiser has to beat before it has found anything.

Objects are large and central in photos that people took of them, so the whole photo, or a box of the usual size in its middle, is
right surprisingly often. Neither depends on the network; quote them beside its boxes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from striate.data.index import Boxes
from striate.errors import DataError, UserError, expect


@dataclass(frozen=True)
class Shares:
    """Width and height of a box as shares of its photo's, above 0 and at most 1."""

    width: float
    height: float


def whole(sides_N2: NDArray[np.integer]) -> NDArray[np.float64]:
    """The whole photo as a box. sides_N2: [N, 2], width and height in pixels. Returns [N, 4] float64."""
    return centre(sides_N2, Shares(1.0, 1.0))


def mean_shares(truth: Boxes, sides_N2: NDArray[np.integer], rows: NDArray[np.bool_] | None = None) -> Shares:
    """Mean width and mean height of boxes relative to their photos, each box counting alike, whether alone in its photo or not.

    truth: boxes of N images. sides_N2: [N, 2], width and height. rows: [N] bool, the images to learn from (the fitting half,
    never those that are scored); None for all, as for the boxes of a training set. Images without boxes or of unknown sides do
    not count.
    Raises DataError where no box is left.
    """
    expect(sides_N2, f"{len(truth.rows) - 1} 2", "sides")
    row_M = np.repeat(np.arange(len(sides_N2)), np.diff(truth.rows))
    is_used_N = np.asarray((sides_N2 > 0).all(axis=1))
    if rows is not None:
        is_used_N = np.asarray(is_used_N & rows)
    is_used_M = is_used_N[row_M]
    if not is_used_M.any():
        raise DataError("A box of the usual size: expected a photo with a box to learn the size from, found none.")
    xyxy_M4, sides_M2 = truth.xyxy[is_used_M].astype(np.float64), sides_N2[row_M[is_used_M]]
    width, height = ((xyxy_M4[:, 2:] - xyxy_M4[:, :2]) / sides_M2).mean(axis=0).tolist()
    return Shares(width, height)


def centre(sides_N2: NDArray[np.integer], shares: Shares) -> NDArray[np.float64]:
    """A box in the middle of each photo. sides_N2: [N, 2], width and height. Returns [N, 4] float64.

    Raises UserError for shares that are not above 0 and at most 1.
    """
    expect(sides_N2, "N 2", "sides")
    if not (0 < shares.width <= 1 and 0 < shares.height <= 1):
        raise UserError(f"Shares of a photo: expected numbers above 0 and at most 1, found {shares.width} and {shares.height}.")
    shares_2 = np.array([shares.width, shares.height])
    low_N2, high_N2 = sides_N2 * (1 - shares_2) / 2, sides_N2 * (1 + shares_2) / 2
    return np.concatenate([low_N2, high_N2], axis=1)

"""Accuracy by a property of the images: how large the object is, how bright or colourful the picture.

Any number for each image sorts them into strata with `by_bins`; the others here make such numbers. NaN means that nobody knows.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from striate import geometry
from striate.data import decode
from striate.data.decode import BadImage
from striate.data.index import Index
from striate.errors import DataError, UserError, expect
from striate.evaluate import metrics
from striate.view import GREY_WEIGHTS

BOX_SHARES: Final = (0.0, 0.05, 0.15, 0.3, 0.6, 1.0)
"""Edges for `box_share_N`: from an object that covers less than a twentieth of the photo to one that fills it."""


@dataclass(frozen=True)
class Stratum:
    """The images whose number is at least `low` and below `high` (the last bin includes `high`), and how many were right.

    low, high: NaN for the images whose number is unknown. top1, top5: shares of `images`; intervals are [low, high] at 95 %
    (Wilson).
    """

    low: float
    high: float
    images: int
    top1: float
    top1_interval: tuple[float, float]
    top5: float
    top5_interval: tuple[float, float]


def by_bins(is_right_N: np.ndarray, is_near_N: np.ndarray, values_N: np.ndarray, edges: tuple[float, ...]) -> list[Stratum]:
    """Accuracy of the images sorted into bins of a number, lowest first; bins without images are left out.

    is_right_N, is_near_N: [N] bool, true class first, and among the five best. values_N: [N] float, NaN where unknown: such
    images come last, in a stratum of their own, so that the images of all strata add up to N.
    edges: two or more, increasing; minus infinity and infinity are allowed.
    Raises UserError where the edges do not increase, DataError naming the first value outside of them.
    """
    expect(values_N, "N", "values_N")
    expect(is_right_N, str(len(values_N)), "is_right_N")
    expect(is_near_N, str(len(values_N)), "is_near_N")
    if len(edges) < 2 or not all(low < high for low, high in itertools.pairwise(edges)):
        raise UserError(f"Edges of bins: expected two or more increasing numbers, found {list(edges)}.")
    is_known_N = ~np.isnan(values_N)
    is_outside_N = is_known_N & ((values_N < edges[0]) | (values_N > edges[-1]))
    if is_outside_N.any():
        row = int(is_outside_N.argmax())
        raise DataError(
            f"Image {row} has the value {values_N[row]:g}, which no bin of {edges[0]:g} to {edges[-1]:g} holds. "
            "Let the first and last edge be minus infinity and infinity."
        )
    bins = len(edges) - 1
    bin_N = np.minimum(np.searchsorted(edges, values_N, side="right") - 1, bins - 1)
    places = [(edges[place], edges[place + 1], is_known_N & (bin_N == place)) for place in range(bins)]
    places.append((math.nan, math.nan, ~is_known_N))
    return [_stratum(low, high, is_right_N[here_N], is_near_N[here_N]) for low, high, here_N in places if here_N.any()]


def _stratum(low: float, high: float, is_right_M: np.ndarray, is_near_M: np.ndarray) -> Stratum:
    images, right, near = len(is_right_M), int(is_right_M.sum()), int(is_near_M.sum())
    return Stratum(low, high, images, right / images, metrics.wilson(right, images), near / images, metrics.wilson(near, images))


def quartiles(values_N: np.ndarray) -> tuple[float, ...]:
    """Edges that cut the known values into four parts of about equal size, open at both ends.

    Fewer parts where many images share a value. Raises UserError when no value is known.
    """
    known_M = values_N[~np.isnan(values_N)]
    if not len(known_M):
        raise UserError(f"Quartiles: none of the {len(values_N):,} values is known.")
    inner = np.unique(np.quantile(known_M, [0.25, 0.5, 0.75]))
    return (-math.inf, *inner.tolist(), math.inf)


# ---------------------------------------------------------------- size of the object


def box_share_N(index: Index) -> np.ndarray:
    """Share of each photo that its boxes cover. Returns [N] float64 in 0..1, NaN where no box is known.

    Of several boxes the union counts, each clipped to the photo. The sides of the photo are read from the header of its
    file; NaN where that cannot be read, and where no box of the photo has an area in it.
    """
    share_N = np.full(len(index), np.nan)
    if index.boxes is None:
        return share_N
    for row in np.flatnonzero(np.diff(index.boxes.rows)).tolist():
        try:
            width, height = decode.sides(index.content(row))
        except BadImage:
            continue  # it has no score either: evaluation counts it as bad
        covered = covered_area(geometry.clip(index.boxes.of(row), width, height))
        share_N[row] = covered / (width * height) if covered else np.nan
    return share_N


def covered_area(boxes_M4: np.ndarray) -> float:
    """Area of the union of boxes, in square pixels. boxes_M4: [M, 4] float, xyxy; one that is inside out covers nothing."""
    boxes_M4 = boxes_M4[geometry.is_valid(boxes_M4)].astype(np.float64)
    if len(boxes_M4) < 2:
        return float(geometry.area(boxes_M4).sum())
    # The edges of all boxes cut the plane into cells that are covered wholly or not at all.
    x_U, y_V = np.unique(boxes_M4[:, 0::2]), np.unique(boxes_M4[:, 1::2])
    holds_MU = (boxes_M4[:, 0, None] <= x_U[:-1]) & (boxes_M4[:, 2, None] >= x_U[1:])
    holds_MV = (boxes_M4[:, 1, None] <= y_V[:-1]) & (boxes_M4[:, 3, None] >= y_V[1:])
    is_covered_UV = (holds_MU[:, :, None] & holds_MV[:, None, :]).any(axis=0)
    return float(np.diff(x_U) @ is_covered_UV @ np.diff(y_V))


# ---------------------------------------------------------------- look of the picture


def brightness_B(images_BHW3: np.ndarray) -> np.ndarray:
    """Mean grey level of each picture, 0 black to 1 white. images_BHW3: uint8, RGB. Returns [B] float64.

    Source: ITU-R BT.601 (weights of the channels).
    """
    _expect_pictures(images_BHW3)
    mean_B3 = images_BHW3.mean(axis=(1, 2), dtype=np.float64)
    return np.asarray(mean_B3 @ np.asarray(GREY_WEIGHTS) / sum(GREY_WEIGHTS) / 255)


def colourfulness_B(images_BHW3: np.ndarray) -> np.ndarray:
    """How colourful people would find each picture: 0 not at all, about 15 slightly, 33 moderately, 59 quite, 82 highly.

    images_BHW3: uint8, RGB. Returns [B] float64, zero or more.
    Source: Hasler and Suesstrunk 2003, the measure M^(3) in a simple opponent space, and its table of words.
    """
    _expect_pictures(images_BHW3)
    found_B = np.empty(len(images_BHW3))
    for place, image_HW3 in enumerate(images_BHW3):  # one at a time: a batch as float64 would take 8 times its memory, twice
        red_HW, green_HW, blue_HW = np.moveaxis(image_HW3.astype(np.float64), -1, 0)
        red_green_HW = red_HW - green_HW
        yellow_blue_HW = (red_HW + green_HW) / 2 - blue_HW
        spread = math.hypot(red_green_HW.std(), yellow_blue_HW.std())
        found_B[place] = spread + 0.3 * math.hypot(red_green_HW.mean(), yellow_blue_HW.mean())
    return found_B


def _expect_pictures(images_BHW3: np.ndarray) -> None:
    sizes = expect(images_BHW3, "B H W 3", "images")
    if images_BHW3.dtype != np.uint8 or not sizes["H"] * sizes["W"]:
        raise UserError(f"images: expected uint8 with at least one pixel, found {images_BHW3.dtype} {list(images_BHW3.shape)}.")

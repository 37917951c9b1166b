"""Boxes from heatmaps: the pixels above a threshold, and the threshold chosen on images that it does not score.

A map is scaled from 0 (its least value) to 1 (its largest) at the pixels of the view, cut at a threshold, and boxed in one of two
ways: "largest", the component of most pixels (two pixels hang together when they share an edge or a corner), as in the papers;
or "all", everything above the threshold. Of equal components the upper one counts, then the one on the left. Where no pixel lies
above the threshold, those of the largest value count, so every map has a box, and a map of one value has the whole view.

The accuracy hangs on the threshold, so it is never chosen on the images that are scored: `cross_fitted` fits one on each half and
scores the other half with it. The halves depend on the keys alone, not on the order of the images.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from striate import geometry
from striate.data.index import Boxes
from striate.errors import DataError, UserError, expect
from striate.evaluate.held_out import held_out
from striate.explain.heatmap import Heatmap, scaled
from striate.predictions import UNLABELLED

Which = Literal["largest", "all"]

WAYS: Final[tuple[Which, ...]] = ("largest", "all")
THRESHOLDS: Final = np.arange(100) / 100
"""Tried by default: 0.00 to 0.99."""
AT_LEAST: Final = 0.5
"""IoU from which a box counts as right."""


# ---------------------------------------------------------------- boxes of a map


def box_of(map_HW: NDArray[np.floating], threshold: float, which: Which = "largest") -> NDArray[np.float64]:
    """The box of what lies above the threshold, in pixels of the map.

    map_HW: [H, W] float in 0..1, as `explain.heatmap.scaled` leaves it. Returns [1, 4] float64.
    Raises UserError for another way than "largest" and "all", and for a map that is not finite.
    Source: Zhou et al. 2016 (CAM), section 3.2, for "largest".
    """
    return boxes_at(map_HW, np.array([threshold]), which)


def components(map_HW: NDArray[np.floating], threshold: float) -> NDArray[np.float64]:
    """The box of every component above the threshold, largest component first. As `box_of`; returns [M, 4], M at least 1."""
    return components_at(map_HW, np.array([threshold]))[0]


def boxes_at(map_HW: NDArray[np.floating], thresholds_T: NDArray[np.floating], which: Which = "largest") -> NDArray[np.float64]:
    """`box_of` for many thresholds at once. Returns [T, 4] float64."""
    if which not in WAYS:
        raise UserError(f"Boxes of a map: which is {which!r}; expected {' or '.join(WAYS)}.")
    if which == "largest":
        return np.stack([boxes_M4[0] for boxes_M4 in components_at(map_HW, thresholds_T)])
    cut_T = _cuts(map_HW, thresholds_T)
    left_T, right_T = _span(map_HW.max(axis=0), cut_T)
    top_T, bottom_T = _span(map_HW.max(axis=1), cut_T)
    return np.stack([left_T, top_T, right_T, bottom_T], axis=1).astype(np.float64)


def components_at(map_HW: NDArray[np.floating], thresholds_T: NDArray[np.floating]) -> list[NDArray[np.float64]]:
    """`components` for many thresholds at once, in their order. Thresholds that cut alike share the work."""
    found: dict[float, NDArray[np.float64]] = {}
    by_cut = []
    for cut, (left, top, right, bottom) in zip(
        _cuts(map_HW, thresholds_T).tolist(), boxes_at(map_HW, thresholds_T, "all").astype(int).tolist(), strict=True
    ):
        if cut not in found:
            # Nothing lies above the threshold outside of this box, and labelling is what takes the time.
            found[cut] = _components(map_HW[top:bottom, left:right] >= cut) + np.array([left, top, left, top], dtype=np.float64)
        by_cut.append(found[cut])
    return by_cut


def _cuts(map_HW: NDArray[np.floating], thresholds_T: NDArray[np.floating]) -> NDArray[np.floating]:
    """The least value of the map above each threshold: what is above the threshold is no less than this. Returns [T]."""
    expect(map_HW, "H W", "map")
    expect(thresholds_T, "T", "thresholds")
    values_V = np.unique(map_HW)
    if not len(values_V) or not np.isfinite(values_V[[0, -1]]).all():
        raise UserError(f"Boxes of a map: expected finite values, found {map_HW.shape[0]} x {map_HW.shape[1]} with others.")
    # In the map's own precision: a value of 0.3 is not above a threshold of 0.3.
    above_T = np.searchsorted(values_V, np.asarray(thresholds_T).astype(map_HW.dtype), side="right")
    return np.asarray(values_V[np.minimum(above_T, len(values_V) - 1)])


def _span(most_L: NDArray[np.floating], cut_T: NDArray[np.floating]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where along an axis the largest values reach each cut: the first place, and the one after the last."""
    forth_L, back_L = np.maximum.accumulate(most_L), np.maximum.accumulate(most_L[::-1])
    return np.searchsorted(forth_L, cut_T), len(most_L) - np.searchsorted(back_L, cut_T)


def _components(mask_HW: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Boxes of the components of a mask that touches all four of its sides, by falling area; [M, 4] float64."""
    if _opencv().connectedComponents(mask_HW.astype(np.uint8), connectivity=8)[0] == 2:  # itself and the rest: no need to measure
        return np.array([[0.0, 0.0, mask_HW.shape[1], mask_HW.shape[0]]])
    facts_M5 = _opencv().connectedComponentsWithStats(mask_HW.astype(np.uint8), connectivity=8)[2][1:]  # the first is the rest
    left_M, top_M, width_M, height_M, area_M = facts_M5.astype(np.int64).T
    order_M = np.lexsort((left_M, top_M, -area_M))
    return np.stack([left_M, top_M, left_M + width_M, top_M + height_M], axis=1)[order_M].astype(np.float64)


# ---------------------------------------------------------------- boxes of a photo


def from_heatmap(heatmap: Heatmap, threshold: float, which: Which = "largest") -> NDArray[np.float64]:
    """The box of a heatmap in pixels of its photo, after the EXIF rule of the view: [1, 4] float64, within the photo.

    Cut at the pixels of the view, and mapped by the view's own placement, so that nothing is rounded on the way. What the view
    does not show of the photo cannot be in a box.
    """
    return on_photo(box_of(on_view(heatmap), threshold, which), heatmap)


def on_view(heatmap: Heatmap) -> NDArray[np.float32]:
    """The map at the pixels of the view, from 0 to 1: [S, S] float32. What thresholds cut."""
    return np.asarray(scaled(heatmap.on_view()[None])[0])


def on_photo(boxes_M4: NDArray[np.float64], heatmap: Heatmap) -> NDArray[np.float64]:
    """Boxes in pixels of the view, in those of the heatmap's photo, clipped to it. Returns [M, 4] float64."""
    placed_M4 = heatmap.view.placement(heatmap.width, heatmap.height).box_to_photo(boxes_M4)
    return geometry.clip(placed_M4, heatmap.width, heatmap.height)


# ---------------------------------------------------------------- the threshold


@dataclass(frozen=True, eq=False)
class Sweep:
    """Every image's box at every threshold, both ways: what thresholds are chosen from, without the maps.

    keys, labels_N: of the maps. thresholds_T: [T] float64. boxes_NWT4: [N, 2, T, 4] float32, W in the order of WAYS, in pixels of
    each photo. iou_NWT: [N, 2, T] float64, with the best of the image's true boxes. has_truth_N: [N] bool.
    """

    keys: tuple[str, ...]
    labels_N: NDArray[np.int64]
    thresholds_T: NDArray[np.float64]
    boxes_NWT4: NDArray[np.float32]
    iou_NWT: NDArray[np.float64]
    has_truth_N: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Fitted:
    """The threshold and way of most right boxes.

    accuracy: share of right boxes (IoU of AT_LEAST or more) among the `images` that chose. thresholds_T, curve_WT: that share for
    every threshold, [T] and [2, T], W in the order of WAYS.
    """

    threshold: float
    which: Which
    accuracy: float
    images: int
    thresholds_T: NDArray[np.float64]
    curve_WT: NDArray[np.float64]

    def describe(self) -> str:
        """One line for people."""
        part = "largest component above" if self.which == "largest" else "all above"
        return (
            f"{part} {self.threshold:.2f} of the map's range, fitted on {self.images:,} images ({self.accuracy:.2%} right there)"
        )


@dataclass(frozen=True, eq=False)
class CrossFitted:
    """Every image's box by a threshold that it did not choose.

    halves: the fit on the first and on the second half. is_second_N: [N] bool, which images are scored by the second half's fit,
    as they are in the first. boxes_N4: [N, 4] float64, in pixels of each photo. iou_N: [N] float64, NaN without a true box.
    """

    halves: tuple[Fitted, Fitted]
    is_second_N: NDArray[np.bool_]
    boxes_N4: NDArray[np.float64]
    iou_N: NDArray[np.float64]

    def fit_of(self, i: int) -> Fitted:
        """The fit that boxes image i: for maps of other classes of the same photo."""
        return self.halves[int(self.is_second_N[i])]


def fit_threshold(maps: Iterable[Heatmap], truths: Boxes, thresholds_T: NDArray[np.float64] = THRESHOLDS) -> Fitted:
    """The threshold, and the way of boxing, that make most boxes right on these images.

    maps: one for each image, of its true class, in the order of `truths`; used once. truths: boxes in pixels of the photos as the
    maps' view sees them. Images without boxes do not count. As `fit`.
    """
    return fit(sweep(maps, truths, thresholds_T))


def cross_fitted(maps: Iterable[Heatmap], truths: Boxes, thresholds_T: NDArray[np.float64] = THRESHOLDS) -> CrossFitted:
    """Boxes for all images, each by the threshold of the half that it is not in.

    Arguments as `fit_threshold`; maps carry the key and the true label of their image. The halves are those of
    `evaluate.held_out`: by key, every class split evenly. Images without boxes choose nothing and are boxed by the first fit.
    Raises DataError where a key stands twice, or fewer than two images have boxes.
    """
    return crossed(sweep(maps, truths, thresholds_T))


def crossed(swept: Sweep) -> CrossFitted:
    """`cross_fitted` of maps that are boxed already."""
    is_first_N = held_out(swept.keys, np.where(swept.has_truth_N, swept.labels_N, UNLABELLED))
    is_second_N = swept.has_truth_N & ~is_first_N
    halves = fit(swept, is_first_N), fit(swept, is_second_N)
    boxes_N4 = np.empty((len(swept.keys), 4))
    iou_N = np.empty(len(swept.keys))
    for half, rows_N in zip(halves, (~is_first_N, is_first_N), strict=True):
        way, place = WAYS.index(half.which), int(np.searchsorted(swept.thresholds_T, half.threshold))
        boxes_N4[rows_N] = swept.boxes_NWT4[rows_N, way, place]
        iou_N[rows_N] = swept.iou_NWT[rows_N, way, place]
    iou_N[~swept.has_truth_N] = np.nan
    return CrossFitted(halves, is_first_N, boxes_N4, iou_N)


def sweep(maps: Iterable[Heatmap], truths: Boxes, thresholds_T: NDArray[np.float64] = THRESHOLDS) -> Sweep:
    """Boxes every map at every threshold. Arguments as `fit_threshold`.

    thresholds_T: [T], rising, in 0..1. Takes 5 kB of memory for an image at 100 thresholds.
    Raises UserError for other thresholds, or where maps and truths are not equally many.
    """
    expect(thresholds_T, "T", "thresholds")
    if not len(thresholds_T) or not (np.diff(thresholds_T) > 0).all() or thresholds_T[0] < 0 or thresholds_T[-1] > 1:
        raise UserError("Thresholds: expected rising numbers in 0..1.")
    keys: list[str] = []
    labels: list[int] = []
    boxes: list[NDArray[np.float32]] = []
    overlaps: list[NDArray[np.float64]] = []
    for heatmap, truth_m4 in _paired(maps, truths):
        map_SS = on_view(heatmap)
        in_view_R4 = np.concatenate([boxes_at(map_SS, thresholds_T, way) for way in WAYS])
        boxes_R4 = on_photo(in_view_R4, heatmap).astype(
            np.float32
        )  # rounded before they are judged: these are the boxes given out
        iou_R = geometry.iou(boxes_R4, truth_m4).max(axis=1, initial=0.0)
        keys.append(heatmap.key)
        labels.append(heatmap.label)
        boxes.append(boxes_R4.reshape(len(WAYS), -1, 4))
        overlaps.append(iou_R.reshape(len(WAYS), -1))
    count, sizes = len(keys), (len(WAYS), len(thresholds_T))
    return Sweep(
        tuple(keys),
        np.array(labels, np.int64),
        np.asarray(thresholds_T, np.float64),
        np.stack(boxes) if count else np.empty((0, *sizes, 4), np.float32),
        np.stack(overlaps) if count else np.empty((0, *sizes)),
        np.diff(truths.rows) > 0,
    )


def fit(swept: Sweep, rows: NDArray[np.bool_] | None = None, at_least: float = AT_LEAST) -> Fitted:
    """The threshold and way of most right boxes among some images; rows: [N] bool, None for all.

    Where neighbouring thresholds are equally good, the middle of the longest such stretch is taken, as the best on other images
    is likelier there than at an end; of two such stretches the one of the largest component, then of lower thresholds.
    Raises DataError where no image has a true box.
    """
    used_N = swept.has_truth_N if rows is None else swept.has_truth_N & rows
    images = int(used_N.sum())
    if not images:
        raise DataError("Fitting a threshold: expected images with true boxes, found none. Give boxes, or a threshold.")
    right_WT = (swept.iou_NWT[used_N] >= at_least).sum(axis=0)
    best: tuple[int, int, int] = (0, 0, 0)  # length, way, place
    for way in range(len(WAYS)):
        for start, end in _stretches(right_WT[way] == right_WT.max()):
            if end - start > best[0]:
                best = end - start, way, (start + end - 1) // 2
    _, way, place = best
    return Fitted(
        threshold=float(swept.thresholds_T[place]),
        which=WAYS[way],
        accuracy=int(right_WT.max()) / images,
        images=images,
        thresholds_T=swept.thresholds_T,
        curve_WT=right_WT / images,
    )


def _stretches(is_so_T: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Starts and ends (not in it) of the runs of True."""
    turns = np.flatnonzero(np.diff(np.concatenate([[False], is_so_T, [False]]).astype(np.int8)))
    yield from zip(turns[::2].tolist(), turns[1::2].tolist(), strict=True)


def _paired(maps: Iterable[Heatmap], truths: Boxes) -> Iterator[tuple[Heatmap, NDArray[np.float32]]]:
    count, number = len(truths.rows) - 1, 0
    for number, heatmap in enumerate(maps, start=1):
        if number > count:
            raise UserError(f"Heatmaps and true boxes: expected one map for each of {count:,} images, found more.")
        yield heatmap, truths.of(number - 1)
    if number < count:
        raise UserError(f"Heatmaps and true boxes: expected one map for each of {count:,} images, found {number:,}.")


@functools.cache
def _opencv() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise UserError("Boxes from heatmaps need OpenCV. Install it: pip install opencv-python-headless.") from error
    return cv2

"""The measures of localisation, each by its full name: published numbers differ more by the measure than by the method.

- **top-1 and top-5 localisation error** (ILSVRC): label and box together, against any of the image's true boxes.
- **GT-known localisation accuracy**: the box for the true class, whatever the network would have said.
- **MaxBoxAccV1 and V2**: the same of heatmaps, at the threshold that is best on the very images that are scored. An upper bound
  that compares methods; no number that anybody would get on new photos (see `boxes.cross_fitted`).
- **mean box IoU**: of the box for the true class with the true box that it meets best.

Boxes are xyxy edges in pixels of the photo. True boxes are ragged (`data.index.Boxes`); they are of the class of their image.
Images without a true box count nowhere, and are counted apart. A predicted box of NaN is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from striate import geometry
from striate.data.index import Boxes
from striate.errors import DataError, UserError, expect
from striate.evaluate import metrics
from striate.explain.heatmap import Heatmap
from striate.localize import boxes
from striate.predictions import UNLABELLED

AT_LEAST: Final = boxes.AT_LEAST
V2_AT_LEAST: Final = (0.3, 0.5, 0.7)
_ROWS_AT_ONCE: Final = 100_000


@dataclass(frozen=True)
class Share:
    """`count` of `total` images."""

    count: int
    total: int

    @property
    def value(self) -> float:
        """0..1."""
        return self.count / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """At 95 % (Wilson)."""
        return metrics.wilson(self.count, self.total)

    def describe(self) -> str:
        """As "43.21% (42.10% to 44.33%)"."""
        low, high = self.interval
        return f"{self.value:.2%} ({low:.2%} to {high:.2%})"

    def to_json(self) -> dict[str, Any]:
        return {"value": self.value, "interval": list(self.interval), "count": self.count, "total": self.total}


# ---------------------------------------------------------------- ILSVRC


def edges(pixels_N4: NDArray[Any]) -> NDArray[np.float64]:
    """Boxes whose numbers are pixels, the last ones counted in, as edges: x_max and y_max are one more.

    pixels_N4: [..., 4]. Returns float64. The development kit of ILSVRC measures x_max - x_min + 1 pixels of width; the IoU of the
    edges is exactly that of its pixels. Predicted and true boxes are both turned, or neither.
    """
    return np.asarray(np.asarray(pixels_N4, np.float64) + np.array([0.0, 0.0, 1.0, 1.0]))


def is_localised(
    labels_NK: NDArray[np.integer],
    boxes_NK4: NDArray[np.floating],
    label_N: NDArray[np.integer],
    truth: Boxes,
    first: int = 5,
    at_least: float = AT_LEAST,
) -> NDArray[np.bool_]:
    """Which images have, among their first few answers, one with the true label and a box on one of the true boxes. Returns [N].

    labels_NK, boxes_NK4: answers, surest first; labels in any numbering that has no true class at the number for "none" (-1, or 0
    where classes are 1 to 1000). label_N: [N], the true class; -1 where there is none. first: how many answers count (more are
    ignored). at_least: IoU. Images without a true box, or label, are False: `has_truth` tells them.
    Source: Russakovsky et al. 2015 (ILSVRC), section 4.2.
    """
    count = len(truth.rows) - 1
    answers = expect(labels_NK, f"{count} K", "predicted labels")["K"]
    expect(boxes_NK4, f"{count} {answers} 4", "predicted boxes")
    expect(label_N, f"{count}", "true labels")
    if first < 1:
        raise UserError(f"Localisation error: expected the first 1 answer or more, found {first}.")
    is_right_N = np.zeros(count, bool)
    for place in range(min(first, answers)):
        has_label_N = (labels_NK[:, place] == label_N) & (label_N != UNLABELLED)
        is_right_N |= has_label_N & (best_iou(boxes_NK4[:, place], truth) >= at_least)  # NaN is no hit
    return is_right_N


def localisation_error(
    labels_NK: NDArray[np.integer],
    boxes_NK4: NDArray[np.floating],
    label_N: NDArray[np.integer],
    truth: Boxes,
    first: int = 5,
    at_least: float = AT_LEAST,
) -> Share:
    """Top-1 (first=1) or top-5 localisation error: the images of which no answer is right. Arguments as `is_localised`.

    Raises DataError where no image has a true box and a label.
    """
    counted_N = _counted(label_N, truth)
    is_right_N = is_localised(labels_NK, boxes_NK4, label_N, truth, first, at_least)
    return Share(int((counted_N & ~is_right_N).sum()), int(counted_N.sum()))


def has_truth(truth: Boxes) -> NDArray[np.bool_]:
    """Which images have a true box. Returns [N] bool."""
    return np.asarray(np.diff(truth.rows) > 0)


def _counted(label_N: NDArray[np.integer], truth: Boxes) -> NDArray[np.bool_]:
    counted_N = np.asarray(has_truth(truth) & (label_N != UNLABELLED))
    if not counted_N.any():
        raise DataError(f"Localisation: none of {len(label_N):,} images has a true box and a label. Give images with boxes.")
    return counted_N


# ---------------------------------------------------------------- boxes for the true class


def best_iou(boxes_N4: NDArray[np.floating], truth: Boxes) -> NDArray[np.float64]:
    """IoU of each image's box with the true box that it meets best. boxes_N4: [N, 4], NaN for none, which has IoU 0.

    Returns [N] float64, NaN where there is no true box.
    """
    expect(boxes_N4, f"{len(truth.rows) - 1} 4", "boxes")
    counts_N = np.diff(truth.rows)
    row_M = np.repeat(np.arange(len(boxes_N4)), counts_N)
    found_M = np.empty(len(row_M))
    for start in range(0, len(row_M), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        found_M[part] = _paired_iou(np.asarray(boxes_N4, np.float64)[row_M[part]], truth.xyxy[part].astype(np.float64))
    best_N = np.full(len(boxes_N4), np.nan)
    has_N = counts_N > 0
    if has_N.any():
        best_N[has_N] = np.maximum.reduceat(found_M, truth.rows[:-1][has_N])
    return best_N


def gt_known_accuracy(boxes_N4: NDArray[np.floating], truth: Boxes, at_least: float = AT_LEAST) -> Share:
    """GT-known localisation accuracy: the images whose box, made for the true class, is on any of the true boxes.

    boxes_N4: [N, 4]. Raises DataError where no image has a true box.
    """
    iou_N = best_iou(boxes_N4, truth)[has_truth(truth)]
    if not len(iou_N):
        raise DataError("GT-known localisation accuracy: no image has a true box. Give images with boxes.")
    return Share(int((iou_N >= at_least).sum()), len(iou_N))


def mean_box_iou(boxes_N4: NDArray[np.floating], truth: Boxes, resamples: int = 400) -> tuple[float, tuple[float, float]]:
    """Mean IoU with the best true box over the images that have one, and its 95 % interval (bootstrap over images, percentiles).

    Always the same resamples (`evaluate.metrics.drawn_again`). Raises DataError where no image has a true box.
    Source: Efron and Tibshirani 1993, section 13.3.
    """
    iou_N = best_iou(boxes_N4, truth)[has_truth(truth)]
    if not len(iou_N):
        raise DataError("Mean box IoU: no image has a true box. Give images with boxes.")
    means = [float(iou_N[metrics.drawn_again(len(iou_N), 0, "box iou", place)].mean()) for place in range(resamples)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(iou_N.mean()), (float(low), float(high))


def _paired_iou(a_M4: NDArray[np.float64], b_M4: NDArray[np.float64]) -> NDArray[np.float64]:
    """IoU of pairs, [M]; 0 where one of the two is no box."""
    a_M4, b_M4 = (np.where(geometry.is_valid(one_M4)[:, None], one_M4, 0.0) for one_M4 in (a_M4, b_M4))
    sides_M2 = np.maximum(np.minimum(a_M4[:, 2:], b_M4[:, 2:]) - np.maximum(a_M4[:, :2], b_M4[:, :2]), 0)
    shared_M = sides_M2.prod(axis=1)
    union_M = geometry.area(a_M4) + geometry.area(b_M4) - shared_M
    return np.asarray(np.divide(shared_M, union_M, out=np.zeros_like(shared_M), where=union_M > 0))


# ---------------------------------------------------------------- MaxBoxAcc


@dataclass(frozen=True, eq=False)
class MaxBoxAccuracy:
    """MaxBoxAccV1 and V2, shares 0..1, over the `images` that have true boxes; `without_boxes` others were left out.

    v1_threshold: the best threshold of V1. v2_by_iou: of V2's three parts. thresholds_T, v1_curve_T, v2_curves_JT: shares of
    right images at every threshold, [T] and [J, T] for the J IoUs of V2_AT_LEAST.
    """

    v1: Share
    v1_threshold: float
    v2: float
    v2_by_iou: tuple[Share, ...]
    v2_thresholds: tuple[float, ...]
    images: int
    without_boxes: int
    thresholds_T: NDArray[np.float64]
    v1_curve_T: NDArray[np.float64]
    v2_curves_JT: NDArray[np.float64]

    def lines(self) -> list[str]:
        """Lines for people."""
        parts = ", ".join(
            f"IoU {at_least:g}: {share.value:.2%} at {threshold:.2f}"
            for at_least, share, threshold in zip(V2_AT_LEAST, self.v2_by_iou, self.v2_thresholds, strict=True)
        )
        return [
            f"MaxBoxAccV1 {self.v1.describe()}, largest component at {self.v1_threshold:.2f}, the best on these very images",
            f"MaxBoxAccV2 {self.v2:.2%}, any component, mean of {parts}",
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "v1": self.v1.to_json(),
            "v1_threshold": self.v1_threshold,
            "v2": self.v2,
            "v2_by_iou": {f"{at_least:g}": share.to_json() for at_least, share in zip(V2_AT_LEAST, self.v2_by_iou, strict=True)},
            "v2_thresholds": list(self.v2_thresholds),
            "images": self.images,
            "without_boxes": self.without_boxes,
        }


class BoxAccuracy:
    """Gathers MaxBoxAccV1 and V2 image by image, so that no map has to be kept.

    thresholds_T: [T], of the map's range. V1: IoU of a half, the largest component, any true box, the threshold that is best over
    all images. V2: mean over the IoUs 0.3, 0.5 and 0.7 of the accuracy at the threshold that is best for each; right when any
    component meets any true box.
    Here maps are cut as `boxes` does (a pixel counts when its value is above the threshold, in float32), the largest component
    is that of most pixels, and boxes are compared in pixels of the photo. The authors' code cuts maps of 8 bits, takes the
    component whose outline encloses most, and rounds all boxes to a grid of 224 pixels: expect small differences.
    Source: Choe et al. 2020 (Evaluating weakly supervised object localization methods right), section 3.2, for V1; Choe et al.
    2022, its longer version, for V2.
    """

    def __init__(self, thresholds_T: NDArray[np.float64] = boxes.THRESHOLDS) -> None:
        expect(thresholds_T, "T", "thresholds")
        if not len(thresholds_T):
            raise UserError("MaxBoxAcc: expected one threshold or more, found none.")
        self._thresholds_T = np.asarray(thresholds_T, np.float64)
        self._v1_T = np.zeros(len(thresholds_T), np.int64)
        self._v2_JT = np.zeros((len(V2_AT_LEAST), len(thresholds_T)), np.int64)
        self._images = self._without_boxes = 0

    def add(self, heatmap: Heatmap, truth_m4: NDArray[np.floating]) -> None:
        """One image. heatmap: of its true class. truth_m4: [m, 4], its boxes in pixels of the photo as the map's view sees it."""
        if not len(truth_m4):
            self.add_boxes([], truth_m4)
            return
        by_threshold = boxes.components_at(boxes.on_view(heatmap), self._thresholds_T)
        self.add_boxes([boxes.on_photo(boxes_M4, heatmap) for boxes_M4 in by_threshold], truth_m4)

    def add_boxes(self, by_threshold: Sequence[NDArray[np.float64]], truth_m4: NDArray[np.floating]) -> None:
        """One image by its boxes. by_threshold: [M, 4] for each threshold, M at least 1, the largest component's first."""
        expect(truth_m4, "m 4", "true boxes")
        if not len(truth_m4):
            self._without_boxes += 1
            return
        if len(by_threshold) != len(self._thresholds_T):
            raise UserError(f"MaxBoxAcc: expected boxes at {len(self._thresholds_T)} thresholds, found {len(by_threshold)}.")
        starts_T = np.cumsum([0, *(len(boxes_M4) for boxes_M4 in by_threshold[:-1])])
        iou_R = geometry.iou(np.concatenate(by_threshold), truth_m4).max(axis=1)
        self._v1_T += iou_R[starts_T] >= AT_LEAST
        self._v2_JT += np.maximum.reduceat(iou_R, starts_T) >= np.array(V2_AT_LEAST)[:, None]
        self._images += 1

    def result(self) -> MaxBoxAccuracy:
        """The measures so far. Of equally good thresholds the lowest is named. Raises DataError where no image had a true box."""
        total = self._images
        if not total:
            raise DataError("MaxBoxAcc: no image has a true box. Give images with boxes.")
        parts = tuple(Share(int(count), total) for count in self._v2_JT.max(axis=1))
        return MaxBoxAccuracy(
            v1=Share(int(self._v1_T.max()), total),
            v1_threshold=float(self._thresholds_T[self._v1_T.argmax()]),
            v2=sum(part.value for part in parts) / len(parts),
            v2_by_iou=parts,
            v2_thresholds=tuple(self._thresholds_T[self._v2_JT.argmax(axis=1)].tolist()),
            images=total,
            without_boxes=self._without_boxes,
            thresholds_T=self._thresholds_T,
            v1_curve_T=self._v1_T / total,
            v2_curves_JT=self._v2_JT / total,
        )


# ---------------------------------------------------------------- all together


@dataclass(frozen=True)
class Localisation:
    """Every measure of one localiser on one set of images. Shares 0..1; intervals are [low, high] at 95 %.

    images = counted + without_boxes + unlabelled. top1_error, top5_error: of localisation; top5_k: how many answers top-5 had.
    max_box_accuracy: None where boxes do not come from heatmaps.
    """

    images: int
    counted: int
    without_boxes: int
    unlabelled: int
    top1_error: Share
    top5_error: Share
    top5_k: int
    gt_known_accuracy: Share
    mean_box_iou: float
    mean_box_iou_interval: tuple[float, float]
    max_box_accuracy: MaxBoxAccuracy | None = None

    def lines(self) -> list[str]:
        """Lines for people."""
        low, high = self.mean_box_iou_interval
        apart = [
            f"{count:,} {words}"
            for count, words in ((self.without_boxes, "without a true box"), (self.unlabelled, "without a label"))
            if count
        ]
        return [
            f"top-1 localisation error {self.top1_error.describe()}",
            f"top-{self.top5_k} localisation error {self.top5_error.describe()}",
            f"GT-known localisation accuracy {self.gt_known_accuracy.describe()}",
            f"mean box IoU {self.mean_box_iou:.4f} ({low:.4f} to {high:.4f})",
            *(self.max_box_accuracy.lines() if self.max_box_accuracy else ()),
            f"{self.counted:,} of {self.images:,} images counted" + (f"; {', '.join(apart)}" if apart else ""),
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "images": self.images,
            "counted": self.counted,
            "without_boxes": self.without_boxes,
            "unlabelled": self.unlabelled,
            "top1_localisation_error": self.top1_error.to_json(),
            "top5_localisation_error": self.top5_error.to_json(),
            "top5_k": self.top5_k,
            "gt_known_accuracy": self.gt_known_accuracy.to_json(),
            "mean_box_iou": {"value": self.mean_box_iou, "interval": list(self.mean_box_iou_interval)},
            "max_box_accuracy": None if self.max_box_accuracy is None else self.max_box_accuracy.to_json(),
        }


def localisation(
    labels_NK: NDArray[np.integer],
    boxes_NK4: NDArray[np.floating],
    known_N4: NDArray[np.floating],
    label_N: NDArray[np.integer],
    truth: Boxes,
    max_box_accuracy: MaxBoxAccuracy | None = None,
) -> Localisation:
    """All measures of one set of images. As `is_localised`; known_N4: [N, 4], the boxes for the true class (GT-known).

    Images without a true box or without a label count in none of them. Raises DataError where none is left.
    """
    counted_N = _counted(label_N, truth)
    rows = np.flatnonzero(counted_N)
    labels_MK, boxes_MK4, label_M, known_M4 = labels_NK[rows], boxes_NK4[rows], label_N[rows], known_N4[rows]
    counted = truth.select(rows)
    iou, interval = mean_box_iou(known_M4, counted)
    without = int((~has_truth(truth)).sum())
    return Localisation(
        images=len(label_N),
        counted=len(rows),
        without_boxes=without,
        unlabelled=len(label_N) - len(rows) - without,
        top1_error=localisation_error(labels_MK, boxes_MK4, label_M, counted, first=1),
        top5_error=localisation_error(labels_MK, boxes_MK4, label_M, counted, first=5),
        top5_k=min(5, labels_NK.shape[1]),
        gt_known_accuracy=gt_known_accuracy(known_M4, counted),
        mean_box_iou=iou,
        mean_box_iou_interval=interval,
        max_box_accuracy=max_box_accuracy,
    )

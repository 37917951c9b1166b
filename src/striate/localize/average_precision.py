"""Average precision of a detector, by three rules that give three numbers for the same detections.

| rule         | a detection is right from                  | area under                                 |
|--------------|--------------------------------------------|--------------------------------------------|
| `all_points` | an IoU of a half                           | the curve as it is                         |
| `ilsvrc`     | an IoU of a half, less for small boxes     | its envelope, at every recall              |
| `coco`       | an IoU of 0.50, 0.55 … 0.95, averaged      | its envelope, at 101 recalls               |

All match greedily: the detections of a class go by falling score, and each takes the true box of its image and class that it
overlaps most among those that are free and overlapped enough. Detections of equal score keep the order in which they are given.

Some true boxes are to be ignored (VOC's difficult ones, COCO's crowds): they need not be found, and a detection that meets only
such a box counts neither way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from striate import geometry
from striate.errors import DataError, UserError, expect

COCO_IOU: Final = np.linspace(0.5, 0.95, 10)
COCO_RECALLS: Final = np.linspace(0.0, 1.0, 101)
COCO_MOST: Final = 100
"""Detections of one class in one image that COCO looks at."""
COCO_AREAS: Final = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
"""Areas in square pixels, both ends counted in."""


# ---------------------------------------------------------------- what goes in


@dataclass(frozen=True, eq=False)
class Detections:
    """What a detector said: D boxes in any order. images_D, labels_D: integers. scores_D: [D] float, higher is surer.
    boxes_D4: [D, 4] float, xyxy edges in pixels of the photo. Raises UserError for other shapes or scores that are NaN."""

    images_D: NDArray[np.integer]
    labels_D: NDArray[np.integer]
    scores_D: NDArray[np.floating]
    boxes_D4: NDArray[np.floating]

    def __post_init__(self) -> None:
        count = expect(self.boxes_D4, "D 4", "detected boxes")["D"]
        for name in ("images_D", "labels_D", "scores_D"):
            expect(getattr(self, name), f"{count}", f"Detections.{name}")
        if np.isnan(self.scores_D).any():
            raise UserError("Detections: scores contain NaN, so they have no order.")


@dataclass(frozen=True, eq=False)
class Truths:
    """What is there: M boxes in any order. images_M, labels_M: integers. boxes_M4: [M, 4] float, xyxy edges in photo pixels.

    is_ignored_M: [M] bool, difficult ones or crowds; None for none. areas_M: [M] float, of the objects in square pixels, by which
    COCO calls them small or large (its own are those of the outlines); None for those of the boxes.
    """

    images_M: NDArray[np.integer]
    labels_M: NDArray[np.integer]
    boxes_M4: NDArray[np.floating]
    is_ignored_M: NDArray[np.bool_] | None = None
    areas_M: NDArray[np.floating] | None = None

    def __post_init__(self) -> None:
        count = expect(self.boxes_M4, "M 4", "true boxes")["M"]
        for name in ("images_M", "labels_M", "is_ignored_M", "areas_M"):
            if getattr(self, name) is not None:
                expect(getattr(self, name), f"{count}", f"Truths.{name}")

    @property
    def is_counted_M(self) -> NDArray[np.bool_]:
        """Those that are to be found."""
        return np.ones(len(self.boxes_M4), bool) if self.is_ignored_M is None else ~self.is_ignored_M


# ---------------------------------------------------------------- what comes out


@dataclass(frozen=True, eq=False)
class Curve:
    """Precision and recall of one class after each of its counted detections, surest first.

    objects: true boxes that are to be found. recall_D, precision_D: [D] float64 in 0..1. average_precision: 0..1.
    """

    label: int
    objects: int
    recall_D: NDArray[np.float64]
    precision_D: NDArray[np.float64]
    average_precision: float


@dataclass(frozen=True, eq=False)
class AveragePrecision:
    """One rule's average precision, by class for the classes that have something to find; others are in no mean."""

    rule: str
    curves: tuple[Curve, ...]

    @property
    def mean(self) -> float:
        """Mean over classes (mAP), 0..1."""
        return float(np.mean([curve.average_precision for curve in self.curves]))

    def by_class(self) -> dict[int, float]:
        """Average precision by label."""
        return {curve.label: curve.average_precision for curve in self.curves}

    def describe(self) -> str:
        """One line for people."""
        return f"mean average precision ({self.rule}) {self.mean:.4f} over {len(self.curves):,} classes"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"rule": self.rule, "mean": self.mean, "by_class": {str(key): value for key, value in self.by_class().items()}}


@dataclass(frozen=True)
class Coco:
    """COCO's figures, 0..1: the mean over IoUs of 0.50 to 0.95, at 0.50 and 0.75 alone, and of objects by size.

    NaN where nothing of that size is to be found. by_class: the first figure by label.
    """

    average_precision: float
    at_50: float
    at_75: float
    small: float
    medium: float
    large: float
    by_class: dict[int, float]

    def describe(self) -> str:
        """One line for people."""
        sizes = ", ".join(f"{name} {getattr(self, name):.4f}" for name in ("small", "medium", "large"))
        return f"AP {self.average_precision:.4f}, AP50 {self.at_50:.4f}, AP75 {self.at_75:.4f}, {sizes} (COCO)"

    def to_json(self) -> dict[str, Any]:
        """Plain values; None for NaN."""
        named = {name: _plain(value) for name, value in vars(self).items() if name != "by_class"}
        return named | {"by_class": {str(key): value for key, value in self.by_class.items()}}


# ---------------------------------------------------------------- three rules


def all_points(detections: Detections, truths: Truths, at_least: float = 0.5) -> AveragePrecision:
    """Average precision as lectures define it: the mean, over the objects of a class, of the precision at which each is found.

    An object that is never found has 0. This is the sum of precision times the step of recall, with no interpolation.
    Raises DataError where there is nothing to find.
    Source: Manning et al. 2008 (Introduction to Information Retrieval), section 8.4.
    """

    def needed(boxes_m4: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.full((len(boxes_m4), 1), at_least)

    return _by_class(f"all points, IoU {at_least:g}", detections, truths, needed, _steps)


def ilsvrc(detections: Detections, truths: Truths) -> AveragePrecision:
    """Average precision as ILSVRC's detection task scored it from 2013 on.

    A box of w by h pixels is met at an IoU of min(0.5, w h / ((w + 10)(h + 10))), which lets a small box be wrong by five pixels
    on each side; precision is made to fall with recall (the best at that recall or above), and all of it is integrated.
    Raises DataError where there is nothing to find.
    Source: Russakovsky et al. 2015 (ILSVRC), section 4.3 and algorithm 1; the envelope is that of PASCAL VOC from 2010 on.
    """

    def needed(boxes_m4: NDArray[np.float64]) -> NDArray[np.float64]:
        width_m, height_m = boxes_m4[:, 2] - boxes_m4[:, 0], boxes_m4[:, 3] - boxes_m4[:, 1]
        return np.minimum(0.5, width_m * height_m / ((width_m + 10) * (height_m + 10)))[:, None]

    def area(recall_D: NDArray[np.float64], precision_D: NDArray[np.float64]) -> float:
        return _steps(recall_D, _envelope(precision_D))

    return _by_class("ILSVRC detection", detections, truths, needed, area)


def coco(detections: Detections, truths: Truths) -> Coco:
    """COCO's average precision, from boxes.

    At most COCO_MOST detections of a class in an image count, the surest. An ignored true box is a crowd: any number of
    detections may lie in it, and overlap there means the share of the detection. For a size, true boxes of other sizes are
    ignored, and so are detections of other sizes that meet nothing. Precision is the best at each of 101 recalls or above, and
    0 beyond the last.
    Raises DataError where there is nothing to find.
    Source: Lin et al. 2014 (Microsoft COCO) and the rules of its detection evaluation.
    """
    labels = _labels(truths)
    average_ALI = np.stack([_coco_class(detections, truths, label) for label in labels.tolist()], axis=1)
    by_size = dict(zip(COCO_AREAS, average_ALI, strict=True))
    whole_LI = by_size["all"]

    def mean(values: NDArray[np.float64]) -> float:
        return float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")

    return Coco(
        average_precision=mean(whole_LI),
        at_50=mean(whole_LI[:, 0]),
        at_75=mean(whole_LI[:, 5]),
        small=mean(by_size["small"]),
        medium=mean(by_size["medium"]),
        large=mean(by_size["large"]),
        by_class=dict(zip(labels.tolist(), whole_LI.mean(axis=1).tolist(), strict=True)),
    )


# ---------------------------------------------------------------- matching


@dataclass(frozen=True, eq=False)
class _Scene:
    """What is said and what is there of one class in one image; detections surest first.

    order_d: their rows in Detections. overlap_dm: IoU, of a crowd the share of the detection where `crowds` says so.
    """

    order_d: NDArray[np.int64]
    scores_d: NDArray[np.floating]
    boxes_d4: NDArray[np.float64]
    boxes_m4: NDArray[np.float64]
    is_ignored_m: NDArray[np.bool_]
    areas_m: NDArray[np.float64]
    overlap_dm: NDArray[np.float64]


def _scenes(detections: Detections, truths: Truths, label: int, crowds: bool, most: int | None = None) -> Iterator[_Scene]:
    """The images that have a detection or a true box of a class, by rising number."""
    rows_D, rows_M = np.flatnonzero(detections.labels_D == label), np.flatnonzero(truths.labels_M == label)
    rows_D = rows_D[np.lexsort((rows_D, -detections.scores_D[rows_D], detections.images_D[rows_D]))]
    rows_M = rows_M[np.argsort(truths.images_M[rows_M], kind="stable")]
    image_D, image_M = detections.images_D[rows_D], truths.images_M[rows_M]
    areas_M = geometry.area(truths.boxes_M4) if truths.areas_M is None else np.asarray(truths.areas_M, np.float64)
    for image in np.union1d(image_D, image_M).tolist():
        said = rows_D[np.searchsorted(image_D, image) : np.searchsorted(image_D, image, "right")][:most]
        there = rows_M[np.searchsorted(image_M, image) : np.searchsorted(image_M, image, "right")]
        boxes_d4 = np.asarray(detections.boxes_D4[said], np.float64)
        boxes_m4 = np.asarray(truths.boxes_M4[there], np.float64)
        is_ignored_m = ~truths.is_counted_M[there]
        overlap_dm = geometry.iou(boxes_d4, boxes_m4)
        if crowds and is_ignored_m.any():
            overlap_dm[:, is_ignored_m] = _share_within(boxes_d4, boxes_m4[is_ignored_m])
        yield _Scene(said, detections.scores_D[said], boxes_d4, boxes_m4, is_ignored_m, areas_M[there], overlap_dm)


def _share_within(a_N4: NDArray[np.float64], b_M4: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of each first box that lies in each second one. Returns [N, M] in 0..1."""
    low_NM2 = np.maximum(a_N4[:, None, :2], b_M4[None, :, :2])
    shared_NM = np.maximum(np.minimum(a_N4[:, None, 2:], b_M4[None, :, 2:]) - low_NM2, 0).prod(axis=2)
    area_N1 = geometry.area(a_N4)[:, None]
    return np.asarray(np.divide(shared_NM, area_N1, out=np.zeros_like(shared_NM), where=area_N1 > 0))


def _matched(
    overlap_dm: NDArray[np.float64],
    needed_mI: NDArray[np.float64],
    is_ignored_m: NDArray[np.bool_],
    is_reusable_m: NDArray[np.bool_],
    last_of_equals: bool,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which detections meet a true box, and which of them an ignored one: [I, d] each, for I rules of overlap at once.

    needed_mI: [m, I], overlap from which a true box is met. is_reusable_m: a crowd, which any number of detections may meet. A
    true box that counts is preferred to one that is ignored. last_of_equals: which of two equal overlaps is taken.
    """
    rules = np.arange(needed_mI.shape[1])
    met_Id, ignored_Id = np.zeros((len(rules), len(overlap_dm)), bool), np.zeros((len(rules), len(overlap_dm)), bool)
    free_Im = np.ones((len(rules), overlap_dm.shape[1]), bool)
    if not overlap_dm.size:
        return met_Id, ignored_Id
    for place, overlap_m in enumerate(overlap_dm):
        may_Im = (free_Im | is_reusable_m) & (overlap_m >= needed_mI.T)
        counts_I = (may_Im & ~is_ignored_m).any(axis=1)
        may_Im &= is_ignored_m ^ counts_I[:, None]
        value_Im = np.where(may_Im, overlap_m, -1.0)
        best_I = value_Im.shape[1] - 1 - value_Im[:, ::-1].argmax(axis=1) if last_of_equals else value_Im.argmax(axis=1)
        met_Id[:, place] = may_Im.any(axis=1)
        ignored_Id[:, place] = met_Id[:, place] & ~counts_I
        free_Im[rules[met_Id[:, place]], best_I[met_Id[:, place]]] = False
    return met_Id, ignored_Id


def _by_class(
    rule: str,
    detections: Detections,
    truths: Truths,
    needed: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    area: Callable[[NDArray[np.float64], NDArray[np.float64]], float],
) -> AveragePrecision:
    """A rule with one overlap for each true box. needed(boxes_m4): [m, 1]; area(recall_D, precision_D): the average precision."""
    curves = []
    for label in _labels(truths).tolist():
        is_right_D = np.zeros(len(detections.scores_D), bool)
        is_counted_D = np.zeros(len(detections.scores_D), bool)
        objects = 0
        for scene in _scenes(detections, truths, label, crowds=False):
            # An ignored box may be met again and again: none of these detections is a mistake.
            ignored_m = scene.is_ignored_m
            met_1d, ignored_1d = _matched(scene.overlap_dm, needed(scene.boxes_m4), ignored_m, ignored_m, last_of_equals=False)
            is_right_D[scene.order_d], is_counted_D[scene.order_d] = met_1d[0] & ~ignored_1d[0], ~ignored_1d[0]
            objects += int((~scene.is_ignored_m).sum())
        rows_D = np.flatnonzero(is_counted_D)
        right_D = is_right_D[rows_D[np.argsort(-detections.scores_D[rows_D], kind="stable")]]
        found_D = np.cumsum(right_D)
        recall_D, precision_D = found_D / objects, found_D / np.arange(1, len(right_D) + 1)
        curves.append(Curve(label, objects, recall_D, precision_D, area(recall_D, precision_D)))
    return AveragePrecision(rule, tuple(curves))


def _coco_class(detections: Detections, truths: Truths, label: int) -> NDArray[np.float64]:
    """Average precision of one class by size and IoU: [A, I] in the order of COCO_AREAS and COCO_IOU, NaN without an object."""
    scenes = list(_scenes(detections, truths, label, crowds=True, most=COCO_MOST))
    scores_D = np.concatenate([scene.scores_d for scene in scenes])
    order_D = np.argsort(-scores_D, kind="stable")
    found = np.full((len(COCO_AREAS), len(COCO_IOU)), np.nan)
    for place, (least, most) in enumerate(COCO_AREAS.values()):
        right, wrong, objects = [], [], 0
        for scene in scenes:
            is_ignored_m = scene.is_ignored_m | (scene.areas_m < least) | (scene.areas_m > most)
            # COCO sees the boxes that count first, which matters where two are overlapped equally.
            order_m = np.argsort(is_ignored_m, kind="stable")
            needed_mI = np.broadcast_to(np.minimum(COCO_IOU, 1 - 1e-10), (len(order_m), len(COCO_IOU)))
            met_Id, ignored_Id = _matched(
                scene.overlap_dm[:, order_m], needed_mI, is_ignored_m[order_m], scene.is_ignored_m[order_m], last_of_equals=True
            )
            area_d = geometry.area(scene.boxes_d4)
            is_other_size_d = (area_d < least) | (area_d > most)
            right.append(met_Id & ~ignored_Id)
            wrong.append(~met_Id & ~is_other_size_d)
            objects += int((~is_ignored_m).sum())
        if not objects:
            continue
        right_ID = np.cumsum(np.concatenate(right, axis=1)[:, order_D], axis=1)
        wrong_ID = np.cumsum(np.concatenate(wrong, axis=1)[:, order_D], axis=1)
        for rule in range(len(COCO_IOU)):
            precision_D = _envelope(right_ID[rule] / np.maximum(right_ID[rule] + wrong_ID[rule], 1))
            at_R = np.searchsorted(right_ID[rule] / objects, COCO_RECALLS)
            found[place, rule] = np.append(precision_D, 0.0)[at_R].mean()
    return found


# ---------------------------------------------------------------- inside


def _labels(truths: Truths) -> NDArray[np.integer]:
    """The classes of which there is something to find. Raises DataError where there is none."""
    labels = np.unique(truths.labels_M[truths.is_counted_M])
    if not len(labels):
        raise DataError("Average precision: there is no true box to find. Give images with boxes that are not ignored.")
    return labels


def _envelope(precision_D: NDArray[np.float64]) -> NDArray[np.float64]:
    """The best precision at each place or later."""
    return np.maximum.accumulate(precision_D[::-1])[::-1]


def _steps(recall_D: NDArray[np.float64], precision_D: NDArray[np.float64]) -> float:
    """Sum of precision times the step of recall before it."""
    return float((np.diff(recall_D, prepend=0.0) * precision_D).sum())


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else value

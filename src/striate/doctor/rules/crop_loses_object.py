"""The random crop of the training often misses the object.

Looks at the boxes of the data set, where it has some: draws the crops of several epochs for some hundred images, as the training
would, and counts those that keep less than a quarter of every box. Such a crop shows background under the name of the object. A
few of them do good (they are what random crops are for); many are wrong labels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from striate import machine
from striate.data import decode
from striate.data.augment import draw
from striate.data.augment.draw import Augmentation, Drawn
from striate.data.decode import BadImage
from striate.data.index import Index
from striate.doctor.finding import Cause, Curve, Finding, NotJudged, Remedy
from striate.doctor.patient import Patient
from striate.train.build import augmentation_of

SOURCE = "Szegedy et al. 2015, section 6 (crops of 8 to 100 % of the area); Touvron et al. 2019 (FixRes), section 3"
# A crop that keeps less than this of the object's box misses it.
KEPT = 0.25
# Share of crops that miss. Of Tiny ImageNet and of the built-in set, crops of 8 to 100 % of the area miss 17 to 18 %, of 35 to
# 100 % 2 to 3 %; of 5 to 30 % they miss 60 %, of 2 to 10 % more than 90 %.
MANY, MOST = 0.25, 0.4
_IMAGES, _EPOCHS = 200, 8
LEAST_IMAGES = 20


def check(patient: Patient) -> Finding | None:
    """The finding, or None where there are no boxes, or where the crops keep the objects."""
    index, recipe, view = patient.train_index, patient.recipe, patient.view
    if index is None or recipe is None or view is None or index.boxes is None:
        raise NotJudged("no boxes")
    augmentation = augmentation_of(recipe, view)
    kept = kept_shares(index, augmentation)
    if len(kept) < LEAST_IMAGES * _EPOCHS:
        raise NotJudged("too few images with boxes")
    missed = float((kept < KEPT).mean())
    if missed < MANY:
        return None
    evidence: dict[str, Any] = {
        "crops that miss": missed,
        "crops drawn": len(kept),
        "mean share kept": float(kept.mean()),
        "crop": augmentation.crop,
        "area": list(augmentation.scale) if augmentation.crop == "random-resized" else "fixed",
    }
    return Finding(
        "crop-loses-object",
        "warning" if missed >= MOST else "note",
        f"{missed:.0%} of the training crops keep less than a quarter of the object.",
        evidence,
        (Cause("crop-loses-object", min(0.9, 0.3 + missed), f"{missed:.0%} of {len(kept):,} crops drawn as the recipe says"),),
        tuple(_remedies(augmentation)),
        SOURCE,
        curve=_curve(kept),
    )


def kept_shares(index: Index, augmentation: Augmentation) -> NDArray[np.float64]:
    """Share of the best kept box in each crop of several epochs, for some images with boxes."""
    assert index.boxes is not None
    counts_N = np.diff(index.boxes.rows)
    mixed = machine.permutation(0, "doctor crops", 0, len(index))
    kept: list[float] = []
    used = 0
    for row in mixed[counts_N[mixed] > 0].tolist():
        try:
            width, height = decode.sides(index.content(row))
        except BadImage:
            continue
        boxes_M4 = index.boxes.of(row).astype(np.float64)
        areas_M = np.prod(np.maximum(boxes_M4[:, 2:] - boxes_M4[:, :2], 0), axis=1)
        if not (areas_M > 0).all():
            continue
        for epoch in range(_EPOCHS):
            uniforms = draw.draw(0, epoch, np.array([row]))[0]
            window = seen_window(draw.choose(width, height, augmentation, uniforms), augmentation.size_px)
            kept.append(_kept(boxes_M4, areas_M, window))
        used += 1
        if used == _IMAGES:
            break
    return np.array(kept)


def seen_window(drawn: Drawn, size_px: int) -> tuple[float, float, float, float]:
    """The part of the stored photo that the network sees: x_min, y_min, x_max, y_max in its pixels."""
    across, down = drawn.width / drawn.resized_width, drawn.height / drawn.resized_height
    left = drawn.left + (drawn.offset_x - drawn.shift_x) * across
    top = drawn.top + (drawn.offset_y - drawn.shift_y) * down
    return left, top, left + size_px * across, top + size_px * down


def _kept(boxes_M4: NDArray[np.float64], areas_M: NDArray[np.float64], window: tuple[float, float, float, float]) -> float:
    left, top, right, bottom = window
    wide = np.minimum(boxes_M4[:, 2], right) - np.maximum(boxes_M4[:, 0], left)
    tall = np.minimum(boxes_M4[:, 3], bottom) - np.maximum(boxes_M4[:, 1], top)
    return float((np.maximum(wide, 0) * np.maximum(tall, 0) / areas_M).max())


def _remedies(augmentation: Augmentation) -> list[Remedy]:
    """Milder crops."""
    if augmentation.crop == "random":
        side = augmentation.size_px
        return [
            Remedy(
                "Let the shorter side before the crop be nearer to the crop's, so that it holds the object.",
                {"augment.shorter_px": [side, max(side, round(side / 0.875))]},
            ),
            Remedy("Crop a random area instead.", {"augment.crop": "random-resized", "augment.scale": [0.35, 1.0]}),
        ]
    if augmentation.crop == "random-resized":
        return [Remedy("Crop a larger part of the photo.", {"augment.scale": [0.35, 1.0]})]
    return [Remedy("Show the whole photo, squashed to a square.", {"augment.crop": "resize", "data.fit": "squash"})]


def _curve(kept: NDArray[np.float64]) -> Curve:
    edges = np.linspace(0, 1, 11)
    counts, _ = np.histogram(np.minimum(kept, 1.0), edges)
    middles = [float(x) for x in (edges[:-1] + edges[1:]) / 2]
    shares = [float(count) / len(kept) for count in counts]
    return Curve("How much of the object the crops keep", "share of its box", "share of crops", middles, {"crops": shares})

"""Boxes: what they cover, how much two of them share, and which of them are boxes at all.

A box is (x_min, y_min, x_max, y_max) in pixels of its picture: edges, not pixel numbers. x grows to the
right and y downwards from the upper left corner, so the whole of a picture is (0, 0, width, height) and
the one pixel in its corner is (0, 0, 1, 1).
"""

from __future__ import annotations

import numpy as np

from striate.errors import expect


def is_valid(boxes_N4: np.ndarray) -> np.ndarray:
    """Which boxes have four finite numbers and some area.

    boxes_N4: [N, 4] float, xyxy. Returns [N] bool.
    """
    expect(boxes_N4, "N 4", "boxes")
    finite_N = np.isfinite(boxes_N4).all(axis=1)
    with np.errstate(invalid="ignore"):
        return np.asarray(finite_N & (boxes_N4[:, 2] > boxes_N4[:, 0]) & (boxes_N4[:, 3] > boxes_N4[:, 1]))


def area(boxes_N4: np.ndarray) -> np.ndarray:
    """Area of each box in square pixels; nothing where a box is inside out.

    boxes_N4: [N, 4] float, xyxy. Returns [N] float64, zero or more.
    """
    expect(boxes_N4, "N 4", "boxes")
    boxes_N4 = boxes_N4.astype(np.float64, copy=False)
    width_N = np.maximum(boxes_N4[:, 2] - boxes_N4[:, 0], 0)
    height_N = np.maximum(boxes_N4[:, 3] - boxes_N4[:, 1], 0)
    return np.asarray(width_N * height_N)


def clip(boxes_N4: np.ndarray, width: float, height: float) -> np.ndarray:
    """The part of each box that lies in the picture; a box outside of it becomes one without area.

    boxes_N4: [N, 4] float, xyxy; width, height: of the picture, in pixels. Returns [N, 4], same dtype.
    """
    expect(boxes_N4, "N 4", "boxes")
    limit_4 = np.asarray([width, height, width, height], dtype=boxes_N4.dtype)
    return np.asarray(np.minimum(np.maximum(boxes_N4, 0), limit_4))


def iou(a_N4: np.ndarray, b_M4: np.ndarray) -> np.ndarray:
    """Intersection over union of every box of one set with every box of another.

    a_N4: [N, 4], b_M4: [M, 4] float, xyxy. Returns [N, M] float64 in 0..1; 0 where neither has area.
    Source: Everingham et al. 2010 (the PASCAL VOC challenge), section 4.2, with edges instead of pixel counts.
    """
    expect(a_N4, "N 4", "first boxes")
    expect(b_M4, "M 4", "second boxes")
    a_N14 = a_N4.astype(np.float64, copy=False)[:, None, :]
    b_1M4 = b_M4.astype(np.float64, copy=False)[None, :, :]
    width_NM = np.maximum(np.minimum(a_N14[..., 2], b_1M4[..., 2]) - np.maximum(a_N14[..., 0], b_1M4[..., 0]), 0)
    height_NM = np.maximum(np.minimum(a_N14[..., 3], b_1M4[..., 3]) - np.maximum(a_N14[..., 1], b_1M4[..., 1]), 0)
    shared_NM = width_NM * height_NM
    union_NM = area(a_N4)[:, None] + area(b_M4)[None, :] - shared_NM
    return np.asarray(np.divide(shared_NM, union_NM, out=np.zeros_like(shared_NM), where=union_NM > 0))

"""Where the boxes of a photo are in its training view: they move as the pixels do."""

from __future__ import annotations

import functools
from typing import Final

import numpy as np
from numpy.typing import NDArray

from striate import geometry as boxes
from striate.data.augment import geometry, policy
from striate.data.augment.draw import Drawn

# A view that shows less of an object than this says nothing of where it ends.
# Source: Sermanet et al. 2014 (OverFeat), section 4.2: no box with less than half of it within the field of view is trained on.
LEAST_SEEN: Final = 0.5
_NONE: Final = (np.nan,) * 4


def target(boxes_M4: NDArray[np.floating], drawn: Drawn, size_px: int) -> NDArray[np.float32]:
    """The box that a box head is trained on for one view: of the boxes that show at least half, the one that shows most.

    boxes_M4: [M, 4] xyxy in pixels of the photo as the augmentation takes it; M may be 0. Returns [4] float32 in pixels of the
    S by S view, cut off at its edges; four NaN where no box shows enough.
    """
    seen_M4, share_M = seen(boxes_M4, drawn, size_px)
    area_M = np.where(share_M >= LEAST_SEEN, boxes.area(seen_M4), 0)
    best = int(area_M.argmax()) if len(area_M) else 0
    return (seen_M4[best] if len(area_M) and area_M[best] > 0 else np.array(_NONE)).astype(np.float32)


def seen(boxes_M4: NDArray[np.floating], drawn: Drawn, size_px: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Boxes of the photo in pixels of the view, cut off at its edges, [M, 4] float64; and the share of each that shows, [M].

    What an edge cuts off stays away, also where a later move brings in black. A box that is turned or sheared becomes the upright
    box around its four corners, which is larger than the object. What is erased or cut out of a box does not show, and leaves
    its edges where they are.
    """
    across, down = drawn.resized_width / drawn.width, drawn.resized_height / drawn.height
    placed_M4 = (boxes_M4 - np.array([drawn.left, drawn.top] * 2)) * np.array([across, down] * 2, np.float64)
    placed_M4 -= np.array([drawn.offset_x, drawn.offset_y] * 2)
    found_M4, share_M = _cut(placed_M4, size_px, np.ones(len(placed_M4)))
    found_M4, share_M = _cut(found_M4 + np.array([drawn.shift_x, drawn.shift_y] * 2), size_px, share_M)
    if drawn.flipped:
        found_M4[:, [0, 2]] = size_px - found_M4[:, [2, 0]]
    if warps := _warps(drawn, size_px):
        # Corners are enclosed once, behind all warps, as each enclosing adds to the box; what is cut off between two is told by
        # the looser box that goes through them one by one.
        around_M4 = _enclosed(found_M4, functools.reduce(lambda done, warp: warp @ done, warps))
        for warp_33 in warps:
            found_M4, share_M = _cut(_enclosed(found_M4, warp_33), size_px, share_M)
        found_M4 = np.concatenate(
            [np.maximum(found_M4[:, :2], around_M4[:, :2]), np.minimum(found_M4[:, 2:], around_M4[:, 2:])], axis=1
        )
    for hidden in filter(None, (drawn.erased, drawn.cutout)):
        edges = (hidden.left, hidden.top, hidden.left + hidden.width, hidden.top + hidden.height)
        covered_M4 = np.concatenate([np.maximum(found_M4[:, :2], edges[:2]), np.minimum(found_M4[:, 2:], edges[2:])], axis=1)
        share_M = share_M * (1 - _over(boxes.area(covered_M4), boxes.area(found_M4)))
    return found_M4, share_M


def _enclosed(boxes_M4: NDArray[np.float64], warp_33: NDArray[np.float64]) -> NDArray[np.float64]:
    """The upright boxes around the warped corners."""
    x_M4, y_M4 = boxes_M4[:, [0, 2, 2, 0]], boxes_M4[:, [1, 1, 3, 3]]
    corners_M43 = np.stack([x_M4, y_M4, np.ones_like(x_M4)], axis=-1) @ warp_33.T
    return np.concatenate([corners_M43[..., :2].min(axis=1), corners_M43[..., :2].max(axis=1)], axis=1)


def _cut(
    boxes_M4: NDArray[np.float64], size_px: int, share_M: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The boxes within the view, and the share of each that is left of the share that was."""
    within_M4 = boxes.clip(boxes_M4, size_px, size_px)
    return within_M4, share_M * _over(boxes.area(within_M4), boxes.area(boxes_M4))


def _over(part_M: NDArray[np.float64], whole_M: NDArray[np.float64]) -> NDArray[np.float64]:
    """Parts over wholes; nothing of a whole without area."""
    return np.divide(part_M, whole_M, out=np.zeros_like(whole_M), where=whole_M > 0)


def _warps(drawn: Drawn, size_px: int) -> list[NDArray[np.float64]]:
    """What moves pixels within the view, in its order: matrices from where a point was to where it is, [3, 3] each."""
    found = [policy.inverse_matrix(operation, size_px) for operation in drawn.operations]
    found += [geometry.inverse_matrix(drawn.affine, size_px)] if drawn.affine is not None else []
    return [np.linalg.inv(np.array([*matrix, 0.0, 0.0, 1.0]).reshape(3, 3)) for matrix in found if matrix is not None]

"""Heatmap: where a network looked in a photo, on its own grid, and exactly where that lies in the photo.

A grid of h by w cells covers the view evenly: cell (i, j) stands for the pixels from (j S/w, i S/h) to ((j + 1) S/w,
(i + 1) S/h), and its value for their centre. Between centres values are interpolated bilinearly, beyond the outermost ones they
stay as they are, which is how images are resized without antialiasing (OpenCV's INTER_LINEAR, torch's bilinear with
align_corners=False). The map of the photo is read off in one step, by the `Placement` of the view, so nothing is rounded on the
way.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from striate.errors import UserError, expect
from striate.view import View


@dataclass(frozen=True, eq=False)
class Heatmap:
    """Evidence for one class in one photo.

    values_hw: [h, w] float32; on the grid of a layer, or one value for each pixel of the view (h = w = S).
    view: how the network saw the photo. width, height: of the photo in pixels, after the EXIF rule of the view.
    method, layer: what made it; layer is empty for methods that look at pixels. label: the class, in the network's order.
    Raises UserError for values that are not finite or not [h, w].
    """

    values_hw: NDArray[np.float32]
    view: View
    width: int
    height: int
    method: str
    layer: str
    label: int
    key: str = ""

    def __post_init__(self) -> None:
        expect(self.values_hw, "h w", "heatmap")
        if not np.isfinite(self.values_hw).all():
            raise UserError(f"{self.key or 'heatmap'}: {self.method} gave values that are NaN or infinite.")

    def on_view(self) -> NDArray[np.float32]:
        """The map at every pixel of the view: [S, S] float32."""
        side = self.view.size_px
        at_S = np.arange(side) + 0.5
        return bilinear(self.values_hw, at_S * self.values_hw.shape[1] / side, at_S * self.values_hw.shape[0] / side)

    def on_photo(self, outside: float = 0.0) -> NDArray[np.float32]:
        """The map at every pixel of the photo: [height, width] float32; `outside` where the view does not reach."""
        placement, side = self.view.placement(self.width, self.height), self.view.size_px
        x_W = (np.arange(self.width) + 0.5) * placement.scale_x - placement.left_px
        y_H = (np.arange(self.height) + 0.5) * placement.scale_y - placement.top_px
        rows, columns = self.values_hw.shape
        seen_HW = bilinear(self.values_hw, x_W * columns / side, y_H * rows / side)
        is_inside_HW = ((y_H >= 0) & (y_H < side))[:, None] & ((x_W >= 0) & (x_W < side))[None, :]
        return np.where(is_inside_HW, seen_HW, np.float32(outside)).astype(np.float32)


def bilinear(values_hw: NDArray[np.floating], x_W: NDArray[np.float64], y_H: NDArray[np.float64]) -> NDArray[np.float32]:
    """The map at places given in cells from its upper left corner (the centre of the first cell is 0.5): [H, W] float32.

    values_hw: [h, w]. x_W, y_H: places along each axis; those outside of the centres take the outermost value.
    """

    def between(at_N: NDArray[np.float64], count: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        place_N = np.clip(at_N - 0.5, 0, count - 1)
        first_N = np.minimum(np.floor(place_N), count - 1).astype(np.int64)
        return first_N, np.minimum(first_N + 1, count - 1), place_N - first_N

    rows, columns = values_hw.shape
    left_W, right_W, share_W = between(x_W, columns)
    upper_H, lower_H, share_H = between(y_H, rows)
    wide_hW = values_hw[:, left_W] * (1 - share_W) + values_hw[:, right_W] * share_W
    found_HW = wide_hW[upper_H] * (1 - share_H)[:, None] + wide_hW[lower_H] * share_H[:, None]
    return found_HW.astype(np.float32)


def scaled(values_BHW: NDArray[np.floating]) -> NDArray[np.float32]:
    """Each map from 0 (its least value) to 1 (its largest), as it is drawn and thresholded; a map of one value becomes zeros.

    values_BHW: [B, H, W]. Returns [B, H, W] float32.
    """
    expect(values_BHW, "B H W", "maps")
    low_B11 = values_BHW.min(axis=(1, 2), keepdims=True)
    span_B11 = values_BHW.max(axis=(1, 2), keepdims=True) - low_B11
    scaled_BHW: NDArray[np.float32] = np.divide(
        values_BHW - low_B11, span_B11, out=np.zeros(values_BHW.shape, np.float32), where=span_B11 > 0, casting="unsafe"
    )
    return scaled_BHW

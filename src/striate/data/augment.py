"""Training views of one photo: a random part or a shift, and a mirror image.

Every function is pure: the random numbers come in as a row of uniforms, drawn for a whole batch from the counter stream
"augment" of (seed, epoch, index). So a sample's augmentation does not depend on workers, batch size or what came before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from striate import machine
from striate.data import views
from striate.data.decode import Pixels
from striate.errors import UserError
from striate.view import Fit, Interpolation, scaled_sides

Crop = Literal["random-resized", "resize", "shift"]

_TRIES: Final = 10  # as torchvision, after which the largest centred box of an allowed ratio is taken
DRAWS: Final = 2 * _TRIES + 3  # area and ratio of each try, place in x and y, mirror


@dataclass(frozen=True)
class Augmentation:
    """What is done to a photo on its way into a training batch."""

    crop: Crop  # "random-resized": a random box; "resize": the whole photo squashed; "shift": fitted, then moved a few pixels
    scale: tuple[float, float]  # share of the photo's area, for "random-resized"
    ratio: tuple[float, float]  # width over height of the box, for "random-resized"
    shift_px: int  # largest move in view pixels, for "shift"; what comes in from outside is black
    flip: float  # probability of a mirror image, 0..1
    size_px: int  # S
    interpolation: Interpolation
    fit: Fit  # how "shift" makes the photo square

    def __post_init__(self) -> None:
        if self.crop not in ("random-resized", "resize", "shift"):
            raise UserError(f"augment: crop is {self.crop!r}; expected random-resized, resize or shift.")
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise UserError(f"augment: scale is {self.scale}; expected 0 < low <= high <= 1 (share of the photo's area).")
        if not 0 < self.ratio[0] <= self.ratio[1] < math.inf:
            raise UserError(f"augment: ratio is {self.ratio}; expected 0 < low <= high (width over height).")
        if not 0 <= self.flip <= 1:
            raise UserError(f"augment: flip is {self.flip}; expected a probability, 0 to 1.")
        if self.size_px < 1 or self.shift_px < 0:
            raise UserError(f"augment: size_px is {self.size_px}, shift_px {self.shift_px}; expected at least 1 and 0.")


class Drawn(NamedTuple):
    """The parameters that one sample's uniforms led to.

    left, top, width, height: the box of the stored photo that was used, in its pixels; for "shift" the whole photo.
    shift_x, shift_y: how far the content moved right and down, in view pixels ("shift" only; before the mirror).
    """

    left: int
    top: int
    width: int
    height: int
    shift_x: int
    shift_y: int
    flipped: bool


def draw(seed: int, epoch: int, indices_B: NDArray[np.int64]) -> NDArray[np.float64]:
    """Uniforms for a batch, one row for each sample: [B, DRAWS] in [0, 1), a pure function of (seed, epoch, index)."""
    return machine.uniforms(seed, "augment", epoch, indices_B, DRAWS)


def is_flipped(augmentation: Augmentation, uniforms_BD: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which samples become mirror images: [B]."""
    return uniforms_BD[:, -1] < augmentation.flip


def choose(width: int, height: int, augmentation: Augmentation, uniforms_row: NDArray[np.float64]) -> Drawn:
    """The parameters for a photo of this size."""
    row = uniforms_row.tolist()
    flipped = row[-1] < augmentation.flip
    if augmentation.crop == "random-resized":
        box_width, box_height = _box_sides(width, height, augmentation, row)
        # As many places as there are, all equally likely; the fallback box is centred.
        if box_width > 0:
            left = int(row[-3] * (width - box_width + 1))
            top = int(row[-2] * (height - box_height + 1))
        else:
            box_width, box_height = _largest_box(width, height, augmentation.ratio)
            left, top = (width - box_width) // 2, (height - box_height) // 2
        return Drawn(left, top, box_width, box_height, 0, 0, flipped)
    if augmentation.crop == "shift":
        reach = 2 * augmentation.shift_px + 1
        shift_x = int(row[-3] * reach) - augmentation.shift_px
        shift_y = int(row[-2] * reach) - augmentation.shift_px
        return Drawn(0, 0, width, height, shift_x, shift_y, flipped)
    return Drawn(0, 0, width, height, 0, 0, flipped)


def _box_sides(width: int, height: int, augmentation: Augmentation, row: list[float]) -> tuple[int, int]:
    """Width and height of the first of ten random boxes that fits, or (0, 0).

    Area uniform within `scale`, logarithm of the ratio uniform within `ratio`.
    Source: Szegedy et al. 2014, section 6 (scale 0.08 to 1, ratio 3/4 to 4/3); the tries as torchvision's RandomResizedCrop.
    """
    area = width * height
    low_area, high_area = augmentation.scale
    low_log, high_log = math.log(augmentation.ratio[0]), math.log(augmentation.ratio[1])
    for attempt in range(_TRIES):
        target = area * (low_area + row[2 * attempt] * (high_area - low_area))
        ratio = math.exp(low_log + row[2 * attempt + 1] * (high_log - low_log))
        box_width = round(math.sqrt(target * ratio))
        box_height = round(math.sqrt(target / ratio))
        if 0 < box_width <= width and 0 < box_height <= height:
            return box_width, box_height
    return 0, 0


def _largest_box(width: int, height: int, ratio: tuple[float, float]) -> tuple[int, int]:
    """The whole photo, its longer side cut until the ratio is allowed."""
    found = width / height
    if found < ratio[0]:
        return width, max(1, min(height, round(width / ratio[0])))
    if found > ratio[1]:
        return max(1, min(width, round(height * ratio[1]))), height
    return width, height


def apply(image_HW3: Pixels, augmentation: Augmentation, uniforms_row: NDArray[np.float64]) -> tuple[Pixels, Drawn]:
    """One training view: uint8 [H, W, 3] to ([S, S, 3], the parameters used).

    uniforms_row: one row of `draw`. The result may be a view of the input's memory: copy it before writing.
    Raises BadImage when fitting would make the photo too large.
    """
    height, width, _ = image_HW3.shape
    drawn = choose(width, height, augmentation, uniforms_row)
    side = augmentation.size_px
    if augmentation.crop == "shift":
        view_SS3 = _shifted(_fitted(image_HW3, augmentation), drawn.shift_x, drawn.shift_y)
    else:
        # The box is cut out first, so that pixels beside it do not shine in, as torchvision's resized_crop.
        part_HW3 = image_HW3[drawn.top : drawn.top + drawn.height, drawn.left : drawn.left + drawn.width]
        view_SS3 = views.resize(part_HW3, side, side, augmentation.interpolation)
    return (mirrored(view_SS3) if drawn.flipped else view_SS3), drawn


def mirrored(images: Pixels) -> Pixels:
    """Left and right exchanged: uint8 [..., H, W, 3], a new array.

    Moved as units of three bytes: numpy copies reversed rows byte by byte otherwise, three to four times slower.
    """
    units = images.view("V3")[..., ::-1, :]
    return np.ascontiguousarray(units).view(np.uint8)


def _fitted(image_HW3: Pixels, augmentation: Augmentation) -> Pixels:
    height, width, _ = image_HW3.shape
    side = augmentation.size_px
    if augmentation.fit == "squash":
        return views.resize(image_HW3, side, side, augmentation.interpolation)
    sides = scaled_sides(width, height, side)
    resized = views.resize(image_HW3, *sides, augmentation.interpolation)
    left, top = round((sides[0] - side) / 2), round((sides[1] - side) / 2)
    return resized[top : top + side, left : left + side]


def _shifted(view_SS3: Pixels, shift_x: int, shift_y: int) -> Pixels:
    """The content moved right and down, black where nothing moved in."""
    side = view_SS3.shape[0]
    moved_SS3 = np.zeros_like(view_SS3)
    wide, tall = max(0, side - abs(shift_x)), max(0, side - abs(shift_y))
    from_x, from_y = max(0, -shift_x), max(0, -shift_y)
    to_x, to_y = max(0, shift_x), max(0, shift_y)
    moved_SS3[to_y : to_y + tall, to_x : to_x + wide] = view_SS3[from_y : from_y + tall, from_x : from_x + wide]
    return moved_SS3

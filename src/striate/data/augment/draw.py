"""What happens to one training image: from counters to uniforms, and from uniforms to parameters.

Every function is pure: the random numbers come in as a row of uniforms, drawn for a whole batch from the counter stream
"augment" of (seed, epoch, counter). So a sample's augmentation does not depend on workers, batch size or what came before.
Each parameter has its own columns in the row: switching one augmentation on leaves the draws of the others as they were.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from striate import machine
from striate.data import resample
from striate.data.augment import colour, erase, geometry, policy
from striate.data.augment.geometry import Affine
from striate.data.resample import Resampler
from striate.errors import UserError
from striate.view import Fit, Interpolation, scaled_sides

Crop = Literal["random-resized", "random", "resize", "shift"]

MOST_OPERATIONS: Final = 8
_TRIES: Final = 10  # of a box, as torchvision; then the largest centred box of an allowed ratio, or nothing erased


def _columns() -> dict[str, slice]:
    """Where each parameter's uniforms stand in a row: those that every image needs come first."""
    counts = {
        "box": 2 * _TRIES,
        "place": 2,
        "flip": 1,
        "shorter": 1,
        "policy": MOST_OPERATIONS,
        "affine": 4,
        "factors": 4,
        "order": 1,
        "lighting": 4,
        "erase": 1,
        "noise": 1,
        "rectangle": 2 + 2 * _TRIES,
        "cutout": 2,
    }
    ends = np.cumsum(list(counts.values())).tolist()
    return {name: slice(end - count, end) for (name, count), end in zip(counts.items(), ends, strict=True)}


_AT: Final = _columns()
_PLACING: Final = _AT["shorter"].stop  # columns of crop and mirror
DRAWS: Final = _AT["cutout"].stop


@dataclass(frozen=True)
class Augmentation:
    """What is done to a photo on its way into a training batch; everything after `fit` is left out where not named.

    Raises UserError at once when a field is out of range.
    """

    # "random-resized": a random box; "random": a square of the photo whose shorter side was drawn; "resize": the whole photo
    # squashed; "shift": fitted, then moved a few pixels.
    crop: Crop
    scale: tuple[float, float]  # share of the photo's area, for "random-resized"
    ratio: tuple[float, float]  # width over height of the box, for "random-resized"
    shift_px: int  # largest move in view pixels, for "shift"; what comes in from outside is black
    flip: float  # probability of a mirror image, 0..1
    size_px: int  # S
    interpolation: Interpolation
    fit: Fit  # how "shift" makes the photo square
    shorter_px: tuple[int, int] = (0, 0)  # of the photo before the crop, both included, for "random"
    rotate: float = 0.0  # most degrees, either way
    translate: float = 0.0  # most of the side, in each direction
    shear: float = 0.0  # most degrees along x, either way
    brightness: float = 0.0  # factor from 1 - this (at least 0) to 1 + this
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0  # most of the full circle, either way; at most 0.5
    lighting: float = 0.0  # deviation of the alphas
    lighting_axes: tuple[float, ...] = colour.IMAGENET_AXES  # nine numbers, see `colour.lighting_offset`
    policy: Literal["none", "randaugment", "trivialaugment"] = "none"
    policy_operations: int = 1  # of RandAugment, at most MOST_OPERATIONS
    policy_magnitude: int = 0  # of RandAugment, 0..30
    erase: float = 0.0  # probability, 0..1
    erase_area: tuple[float, float] = (0.0, 0.0)  # share of the image's area
    erase_ratio: tuple[float, float] = (1.0, 1.0)  # height over width
    cutout_px: int = 0  # side of the square; 0 for none
    cutout_colour: tuple[int, int, int] = (0, 0, 0)  # red, green, blue, 0..255: what the network sees as zero
    resampler: Resampler = "pillow"  # who resizes

    def __post_init__(self) -> None:
        if self.crop not in ("random-resized", "random", "resize", "shift"):
            raise UserError(f"augment: crop is {self.crop!r}; expected random-resized, random, resize or shift.")
        if self.policy not in ("none", "randaugment", "trivialaugment"):
            raise UserError(f"augment: policy is {self.policy!r}; expected none, randaugment or trivialaugment.")
        resample.check(self.resampler, self.interpolation)
        for name, holds, wanted in (
            ("scale", 0 < self.scale[0] <= self.scale[1] <= 1, "0 < low <= high <= 1 (share of the photo's area)"),
            ("ratio", 0 < self.ratio[0] <= self.ratio[1] < math.inf, "0 < low <= high (width over height)"),
            ("flip", 0 <= self.flip <= 1, "a probability, 0 to 1"),
            ("size_px", self.size_px >= 1, "at least 1"),
            ("shift_px", self.shift_px >= 0, "at least 0"),
            ("rotate", 0 <= self.rotate <= 180, "0 to 180 degrees"),
            ("translate", 0 <= self.translate <= 1, "0 to 1 (share of the side)"),
            ("shear", 0 <= self.shear < 90, "0 to 90 degrees, less than 90"),
            ("brightness", 0 <= self.brightness < math.inf, "at least 0"),
            ("contrast", 0 <= self.contrast < math.inf, "at least 0"),
            ("saturation", 0 <= self.saturation < math.inf, "at least 0"),
            ("hue", 0 <= self.hue <= 0.5, "0 to 0.5 (share of the circle)"),
            ("lighting", 0 <= self.lighting < math.inf, "at least 0"),
            ("lighting_axes", len(self.lighting_axes) == 9, "nine numbers"),
            ("policy_operations", 1 <= self.policy_operations <= MOST_OPERATIONS, f"1 to {MOST_OPERATIONS}"),
            ("policy_magnitude", 0 <= self.policy_magnitude < policy.STRENGTHS, f"0 to {policy.STRENGTHS - 1}"),
            ("erase", 0 <= self.erase <= 1, "a probability, 0 to 1"),
            ("cutout_px", self.cutout_px >= 0, "at least 0"),
        ):
            if not holds:
                raise UserError(f"augment: {name} is {getattr(self, name)}; expected {wanted}.")
        if self.crop == "random" and not self.size_px <= self.shorter_px[0] <= self.shorter_px[1]:
            raise UserError(f"augment: shorter_px is {self.shorter_px}; expected {self.size_px} <= low <= high (size_px on).")
        if self.erase > 0 and not 0 < self.erase_area[0] <= self.erase_area[1] <= 1:
            raise UserError(f"augment: erase_area is {self.erase_area}; expected 0 < low <= high <= 1 (share of the area).")
        if self.erase > 0 and not 0 < self.erase_ratio[0] <= self.erase_ratio[1] < math.inf:
            raise UserError(f"augment: erase_ratio is {self.erase_ratio}; expected 0 < low <= high (height over width).")

    @functools.cached_property
    def is_plain(self) -> bool:
        """Whether crop and mirror image are all there is."""
        amounts = (self.rotate, self.translate, self.shear, self.brightness, self.contrast, self.saturation, self.hue)
        return self.policy == "none" and not any((*amounts, self.lighting, self.erase, self.cutout_px))


class Drawn(NamedTuple):
    """The parameters that one sample's uniforms led to, in the order in which they are used.

    left, top, width, height: the part of the stored photo that is used, in its pixels.
    resized_width, resized_height: what that part is resized to. offset_x, offset_y: where the S by S view begins in it.
    shift_x, shift_y: how far the view's content then moves right and down, black coming in.
    flipped: whether it is then mirrored. What follows happens to the S by S view, in this order:
    operations: of the policy. affine: one warp. colour: changes by name, in the order in which they run, each with its
    factor (for hue: its turn). lighting: added to red, green and blue, in 0..1.
    erased: the rectangle of noise; noise: the number that the noise is made from. cutout: the square of one colour.
    """

    left: int
    top: int
    width: int
    height: int
    resized_width: int
    resized_height: int
    offset_x: int
    offset_y: int
    shift_x: int
    shift_y: int
    flipped: bool
    operations: tuple[policy.Operation, ...] = ()
    affine: Affine | None = None
    colour: tuple[tuple[colour.Name, float], ...] = ()
    lighting: tuple[float, float, float] | None = None
    erased: erase.Rectangle | None = None
    noise: int = 0
    cutout: erase.Rectangle | None = None


def draw(seed: int, epoch: int, counters_B: NDArray[np.int64]) -> NDArray[np.float64]:
    """Uniforms for a batch, one row for each sample: [B, DRAWS] in [0, 1), a pure function of (seed, epoch, counter)."""
    return machine.uniforms(seed, "augment", epoch, counters_B, DRAWS)


def is_flipped(augmentation: Augmentation, uniforms_BD: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which samples become mirror images: [B]."""
    return uniforms_BD[:, _AT["flip"].start] < augmentation.flip


def choose(width: int, height: int, augmentation: Augmentation, uniforms_row: NDArray[np.float64]) -> Drawn:
    """The parameters for a photo of this size. uniforms_row: one row of `draw`."""
    drawn = _placed(width, height, augmentation, uniforms_row[:_PLACING].tolist())
    return drawn if augmentation.is_plain else _changed(drawn, augmentation, uniforms_row.tolist())


def _placed(width: int, height: int, augmentation: Augmentation, row: list[float]) -> Drawn:
    """The part of the photo that is used, and whether it is mirrored."""
    side = augmentation.size_px
    x, y = row[_AT["place"]]
    flipped = row[_AT["flip"].start] < augmentation.flip
    if augmentation.crop == "random-resized":
        wide, tall = geometry.random_sides(width, height, augmentation.scale, augmentation.ratio, row[_AT["box"]])
        # As many places as there are, all equally likely; the fallback box is centred.
        if wide > 0:
            left, top = int(x * (width - wide + 1)), int(y * (height - tall + 1))
        else:
            wide, tall = geometry.largest_sides(width, height, augmentation.ratio)
            left, top = (width - wide) // 2, (height - tall) // 2
        return Drawn(left, top, wide, tall, side, side, 0, 0, 0, 0, flipped)
    if augmentation.crop == "random":
        low, high = augmentation.shorter_px
        wide, tall = scaled_sides(width, height, low + int(row[_AT["shorter"].start] * (high - low + 1)))
        offset_x, offset_y = int(x * (wide - side + 1)), int(y * (tall - side + 1))
        return Drawn(0, 0, width, height, wide, tall, offset_x, offset_y, 0, 0, flipped)
    if augmentation.crop == "shift":
        reach = 2 * augmentation.shift_px + 1
        shift_x, shift_y = int(x * reach) - augmentation.shift_px, int(y * reach) - augmentation.shift_px
        wide, tall = (side, side) if augmentation.fit == "squash" else scaled_sides(width, height, side)
        centre_x, centre_y = round((wide - side) / 2), round((tall - side) / 2)
        return Drawn(0, 0, width, height, wide, tall, centre_x, centre_y, shift_x, shift_y, flipped)
    return Drawn(0, 0, width, height, side, side, 0, 0, 0, 0, flipped)


def _changed(placed: Drawn, augmentation: Augmentation, row: list[float]) -> Drawn:
    """With everything that is done to the view itself."""
    side = augmentation.size_px
    erased = None
    if row[_AT["erase"].start] < augmentation.erase:
        erased = erase.random_rectangle(side, augmentation.erase_area, augmentation.erase_ratio, row[_AT["rectangle"]])
    cutout = None
    if augmentation.cutout_px > 0:
        x, y = row[_AT["cutout"]]
        cutout = erase.square_about(int(x * side), int(y * side), augmentation.cutout_px, side)
    return placed._replace(
        operations=_operations(augmentation, row[_AT["policy"]]),
        affine=_affine(augmentation, row[_AT["affine"]]),
        colour=_colour(augmentation, row[_AT["factors"]], row[_AT["order"].start]),
        lighting=_lighting(augmentation, row[_AT["lighting"]]),
        erased=erased,
        noise=int(row[_AT["noise"].start] * 2**53) if erased else 0,
        cutout=cutout,
    )


def _operations(augmentation: Augmentation, uniforms: list[float]) -> tuple[policy.Operation, ...]:
    if augmentation.policy == "none":
        return ()
    count = augmentation.policy_operations if augmentation.policy == "randaugment" else 1
    return policy.choose(augmentation.policy, augmentation.policy_magnitude, augmentation.size_px, uniforms[:count])


def _affine(augmentation: Augmentation, uniforms: list[float]) -> Affine | None:
    """Uniform within the ranges, moves rounded to pixels. Source: torchvision's RandomAffine."""
    if not (augmentation.rotate or augmentation.translate or augmentation.shear):
        return None
    turn, right, down, slant = (2 * uniform - 1 for uniform in uniforms)
    reach = augmentation.translate * augmentation.size_px
    return Affine(turn * augmentation.rotate, round(right * reach), round(down * reach), slant * augmentation.shear)


def _colour(augmentation: Augmentation, uniforms: list[float], order: float) -> tuple[tuple[colour.Name, float], ...]:
    """Factors uniform within the ranges, every order equally likely. Source: torchvision's ColorJitter."""
    reaches = (augmentation.brightness, augmentation.contrast, augmentation.saturation, augmentation.hue)
    if not any(reaches):
        return ()
    factors = {}
    for name, reach, uniform in zip(colour.NAMES, reaches, uniforms, strict=True):
        low, high = (-reach, reach) if name == "hue" else (max(0.0, 1 - reach), 1 + reach)
        if reach > 0:
            factors[name] = low + uniform * (high - low)
    names = colour.ORDERS[int(order * len(colour.ORDERS))]
    return tuple((name, factors[name]) for name in names if name in factors)


def _lighting(augmentation: Augmentation, uniforms: list[float]) -> tuple[float, float, float] | None:
    if augmentation.lighting == 0:
        return None
    alphas = [augmentation.lighting * normal for normal in colour.normals(uniforms)]
    return colour.lighting_offset(augmentation.lighting_axes, alphas)

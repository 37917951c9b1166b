"""How network pixels come from photo pixels: one value, shared by train, evaluate, serve and export.

photo ── EXIF rule ── resize ── crop ──> [S, S, 3] uint8 ── normalise ──> [3, S, S] float, or [1, S, S] for a grey view
The first half is done by `data.views` with Pillow's resampling, the second here. Pixels travel as red, green and blue up to
`normalise`, which alone makes one channel of them or turns their order. The way back (boxes, heatmaps) is `Placement`, exact to
the rounding of the resized sides.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from striate.errors import UserError, expect

if TYPE_CHECKING:
    import torch

# Of ImageNet's training pixels in 0..1, as torchvision states them for its weights.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# The same pixels as grey: the mean by GREY_WEIGHTS; the deviation from the three above and the correlations of the channels,
# which are those of the covariance in fb.resnet.torch's PCA lighting. It is 0.966 of the weighted mean of the three.
IMAGENET_GREY_MEAN = (0.459,)
IMAGENET_GREY_STD = (0.218,)
# Of red, green, blue in grey, over 65536. Source: ITU-R BT.601, in the integers of Pillow's convert("L").
GREY_WEIGHTS = (19595, 38470, 7471)

Colour = Literal["rgb", "grey", "bgr"]
Fit = Literal["crop", "squash"]
Interpolation = Literal["bilinear", "bicubic", "nearest", "lanczos"]

_CHANNELS: dict[Colour, int] = {"rgb": 3, "grey": 1, "bgr": 3}
_COLOURS: dict[Colour, str] = {"rgb": "RGB", "grey": "grey (BT.601)", "bgr": "BGR"}
_FITS = ("crop", "squash")
_INTERPOLATIONS = ("bilinear", "bicubic", "nearest", "lanczos")


@dataclass(frozen=True)
class Placement:
    """The exact map between a photo and its view: view = photo * scale - offset, along each axis.

    Coordinates are pixel edges (a box over the whole photo is 0, 0, width, height), in the photo as the EXIF rule of
    the view leaves it. left_px, top_px: where the crop begins within the resized photo.
    """

    scale_x: float
    scale_y: float
    left_px: int
    top_px: int

    def box_to_view(self, xyxy_M4: ArrayLike) -> NDArray[np.float64]:
        """Boxes of the photo in view pixels, not clipped. [M, 4] in x_min, y_min, x_max, y_max; returns [M, 4] float64."""
        return self._boxes(xyxy_M4) * self._scale() - self._offset()

    def box_to_photo(self, xyxy_M4: ArrayLike) -> NDArray[np.float64]:
        """Boxes of the view in photo pixels, not clipped: the inverse of `box_to_view`. Returns [M, 4] float64."""
        return (self._boxes(xyxy_M4) + self._offset()) / self._scale()

    @staticmethod
    def _boxes(xyxy_M4: ArrayLike) -> NDArray[np.float64]:
        boxes_M4 = np.asarray(xyxy_M4, dtype=np.float64)
        expect(boxes_M4, "M 4", "boxes")
        return boxes_M4

    def _scale(self) -> NDArray[np.float64]:
        return np.array([self.scale_x, self.scale_y, self.scale_x, self.scale_y])

    def _offset(self) -> NDArray[np.float64]:
        return np.array([self.left_px, self.top_px, self.left_px, self.top_px], dtype=np.float64)


def scaled_sides(width: int, height: int, shorter_px: int) -> tuple[int, int]:
    """Width and height with the shorter side at `shorter_px`; the longer one is rounded down, as in torchvision's Resize(int)."""
    if width <= height:
        return shorter_px, int(shorter_px * height / width)
    return int(shorter_px * width / height), shorter_px


@dataclass(frozen=True)
class View:
    """Preprocessing of an evaluated image, written as view.json beside the weights.

    Raises UserError at once when a field is out of range.
    """

    size_px: int  # S: the network's input is S by S
    fit: Fit  # "crop": shorter side to resize_px, centre S by S; "squash": both sides to S, the aspect ignored
    resize_px: int  # shorter side before the centre crop; S for "squash"
    interpolation: Interpolation  # Pillow's, which widens its support when shrinking (antialias)
    exif: bool  # whether the EXIF orientation is applied; off for parity with published ImageNet figures
    mean: tuple[float, ...]  # of each of the network's channels in their order, in 0..1; of grey: one number
    std: tuple[float, ...]  # in 0..1: x = (pixel / 255 - mean) / std; 1/255 leaves pixels at 0..255
    colour: Colour = "rgb"  # the network's channels: red, green, blue in this order, one of grey, or Caffe's blue, green, red

    def __post_init__(self) -> None:
        if self.fit not in _FITS:
            raise UserError(f"view: fit is {self.fit!r}; expected one of {', '.join(_FITS)}.")
        if self.interpolation not in _INTERPOLATIONS:
            raise UserError(f"view: interpolation is {self.interpolation!r}; expected one of {', '.join(_INTERPOLATIONS)}.")
        if self.colour not in _CHANNELS:
            raise UserError(f"view: colour is {self.colour!r}; expected one of {', '.join(_CHANNELS)}.")
        if self.size_px < 1 or self.resize_px < self.size_px:
            raise UserError(
                f"view: a crop of {self.size_px} px does not fit into a shorter side of {self.resize_px} px. "
                "Give 1 <= size_px <= resize_px."
            )
        if self.fit == "squash" and self.resize_px != self.size_px:
            raise UserError(f"view: with fit 'squash' resize_px must equal size_px ({self.size_px}), found {self.resize_px}.")
        count = self.channels
        counts_fit = len(self.mean) == count and len(self.std) == count
        if not counts_fit or not np.all(np.isfinite([*self.mean, *self.std])) or min(self.std) <= 0:
            raise UserError(
                f"view: mean and std need {count} finite number{'s' * (count > 1)} each for colour {self.colour!r}, std above 0; "
                f"found {self.mean} and {self.std}."
            )

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> View:
        """The view of `to_json`. Raises UserError naming fields that are unknown, missing or of the wrong type."""
        known = {field.name for field in fields(cls)}
        needed = known - {"colour"}
        if unknown := sorted(set(values) - known):
            raise UserError(f"view: unknown field {', '.join(unknown)}; this striate may be older than the file.")
        if missing := sorted(needed - set(values)):
            raise UserError(f"view: field {', '.join(missing)} is missing.")
        try:
            return cls(
                size_px=int(values["size_px"]),
                fit=values["fit"],
                resize_px=int(values["resize_px"]),
                interpolation=values["interpolation"],
                exif=bool(values["exif"]),
                mean=tuple(float(value) for value in values["mean"]),
                std=tuple(float(value) for value in values["std"]),
                colour=values.get("colour", "rgb"),
            )
        except (TypeError, ValueError) as error:
            raise UserError(f"view: a field has the wrong type ({error}).") from error

    @property
    def channels(self) -> int:
        """C of the network's input: 3, or 1 for grey."""
        return _CHANNELS[self.colour]

    @property
    def hash(self) -> str:
        """Twelve hex digits that differ when any field differs."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:12]

    def describe(self) -> str:
        """One line for the protocol that stands beside every accuracy."""
        if self.fit == "squash":
            shape = f"squashed to {self.size_px}x{self.size_px}"
        else:
            shape = f"shorter side {self.resize_px}, centre {self.size_px}x{self.size_px}"
        mean = ",".join(f"{value:.4g}" for value in self.mean)
        std = ",".join(f"{value:.4g}" for value in self.std)
        exif = "EXIF applied" if self.exif else "EXIF ignored"
        return f"{shape}, {self.interpolation}, {_COLOURS[self.colour]}, mean {mean}, std {std}, {exif}"

    @property
    def mean_rgb(self) -> tuple[float, float, float]:
        """The mean as a colour: red, green, blue in 0..1."""
        red, green, blue = self.mean[::-1] if self.colour == "bgr" else self.mean * (3 // self.channels)
        return red, green, blue

    def for_size(self, size_px: int) -> View:
        """The same view for another side of the input, the share of the photo that is cut out kept."""
        if size_px == self.size_px:
            return self
        return replace(self, size_px=size_px, resize_px=round(self.resize_px * size_px / self.size_px))

    def resized_sides(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of the photo after the resize, before the crop."""
        if self.fit == "squash":
            return self.size_px, self.size_px
        return scaled_sides(width, height, self.resize_px)

    def placement(self, width: int, height: int) -> Placement:
        """The map for a photo of this size (after the EXIF rule). The crop's offset is rounded as in torchvision's CenterCrop."""
        resized_width, resized_height = self.resized_sides(width, height)
        return Placement(
            scale_x=resized_width / width,
            scale_y=resized_height / height,
            left_px=round((resized_width - self.size_px) / 2),
            top_px=round((resized_height - self.size_px) / 2),
        )

    def normalise(self, images: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Network input from pixels: (pixel / 255 - mean) / std, on the device and in the memory format of `images`.

        images: [B, 3, H, W] uint8, of S by S pixels unless the network is slid over larger photos. Returns [B, C, H, W] in
        `dtype`; computed in float32.
        """
        x = self.levels(images)
        count = self.channels
        scale = x.new_tensor([1 / (255 * std) for std in self.std]).view(1, count, 1, 1)
        shift = x.new_tensor([-mean / std for mean, std in zip(self.mean, self.std, strict=True)]).view(1, count, 1, 1)
        return x.mul_(scale).add_(shift).to(dtype)

    def levels(self, images: torch.Tensor) -> torch.Tensor:
        """The network's channels, in its order, before they are scaled: whole numbers 0..255, for grey Pillow's convert("L").

        images: [B, 3, H, W] uint8. Returns a new tensor [B, C, H, W] float32.
        """
        expect(images, "B 3 H W", "images")
        x = images.float()
        if self.colour == "rgb":
            return x
        if self.colour == "bgr":
            return x.flip(1)
        # Sums stay below 2^24, where float32 holds every whole number: on every device the same grey, to the bit.
        red, green, blue = (weight * x[:, channel : channel + 1] for channel, weight in enumerate(GREY_WEIGHTS))
        return ((red + green + blue + 32768) / 65536).floor()

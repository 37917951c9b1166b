"""From one image of a source to what a pack stores of it."""

from __future__ import annotations

import hashlib
import io
import struct
from collections import Counter
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from striate.data import boxes, decode, views
from striate.data.decode import BadImage, Pixels
from striate.data.pack import slices
from striate.data.pack.format import How, Jpeg, Keep, Raw, Subsampling
from striate.view import IMAGENET_MEAN, IMAGENET_STD, View

_MOST_JPEG_PX: Final = 65_500  # of a side, for libjpeg
_UNIT_PX: Final[dict[Subsampling, int]] = {"4:2:0": 16, "4:2:2": 16, "4:4:4": 8}  # width of an MCU of a colour image


class Stored(NamedTuple):
    """One row of a pack, as far as it comes from the image; the names are those of the columns."""

    data: bytes
    width: int
    height: int
    orientation: int
    sha256: bytes
    boxes: NDArray[np.float32] | None
    restarts: bytes | None


def stored(content: bytes | Pixels, boxes_M4: NDArray[np.float32] | None, how: How, odd: Counter[str]) -> Stored:
    """What a pack stores of one image. boxes_M4: xyxy in pixels of the photo as stored. odd: counts, as `decode` does.

    The image is decoded in any case, so that whatever is in a pack can be used. Raises BadImage.
    """
    image_HW3, orientation = _pixels(content, odd)
    if orientation != 1:
        odd["exif-rotated"] += 1
    height, width, _ = image_HW3.shape
    if isinstance(how, Raw):
        data, boxes_M4 = _raw(image_HW3, orientation, boxes_M4, how)
        left = 1 if how.exif else orientation
        return Stored(data, how.size_px, how.size_px, left, hashlib.sha256(data).digest(), boxes_M4, None)
    if isinstance(how, Keep):
        data = content if isinstance(content, bytes) else png(image_HW3)
        return Stored(data, width, height, orientation, hashlib.sha256(data).digest(), boxes_M4, None)
    small_HW3 = views.shrink(image_HW3, how.shorter_px)
    data = jpeg(small_HW3, how, orientation)
    if boxes_M4 is not None:
        scale_4 = np.tile(np.asarray([small_HW3.shape[1] / width, small_HW3.shape[0] / height], dtype=np.float32), 2)
        boxes_M4 = boxes_M4 * scale_4
    restarts = slices.lengths(data) or None
    return Stored(data, small_HW3.shape[1], small_HW3.shape[0], orientation, hashlib.sha256(data).digest(), boxes_M4, restarts)


def exact(content: bytes | Pixels, how: How) -> Pixels:
    """The pixels that a pack would hold if JPEG lost nothing, not turned: uint8 [h, w, 3]. Raises BadImage."""
    image_HW3, orientation = _pixels(content, Counter())
    if isinstance(how, Raw):
        data, _ = _raw(image_HW3, orientation, None, how)
        return np.frombuffer(data, dtype=np.uint8).reshape(how.size_px, how.size_px, 3)
    return views.shrink(image_HW3, how.shorter_px) if isinstance(how, Jpeg) else image_HW3


def _pixels(content: bytes | Pixels, odd: Counter[str]) -> tuple[Pixels, int]:
    """The pixels as they lie, and the EXIF orientation."""
    if isinstance(content, bytes):
        return decode.as_stored(content, decode.MAX_PIXELS, odd)
    return content, 1


# ---------------------------------------------------------------- files


def jpeg(image_HW3: Pixels, how: Jpeg, orientation: int) -> bytes:
    """A JPEG file with restart markers for `slices` and no metadata but the orientation. Three equal channels become one.

    Raises BadImage for an image too long for the format.
    """
    height, width, _ = image_HW3.shape
    if max(width, height) > _MOST_JPEG_PX:
        raise BadImage(f"{width} x {height} pixels: a JPEG has at most {_MOST_JPEG_PX:,} in a side")
    is_grey = bool((image_HW3 == image_HW3[:, :, :1]).all())
    unit_px = 8 if is_grey else _UNIT_PX[how.subsampling]
    image = Image.fromarray(np.ascontiguousarray(image_HW3[:, :, 0])) if is_grey else views.pillow(image_HW3)
    file = io.BytesIO()
    image.save(
        file,
        "JPEG",
        quality=how.quality,
        subsampling=how.subsampling,
        restart_marker_blocks=slices.interval(-(-width // unit_px)),
        exif=_exif(orientation),
    )
    return file.getvalue()


def _exif(orientation: int) -> bytes:
    """An EXIF block that says nothing but the orientation; none where there is nothing to say."""
    if orientation == 1:
        return b""
    return b"Exif\0\0MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x112, 3, 1, orientation, 0, 0)


def png(image_HW3: Pixels) -> bytes:
    """A PNG file of the same pixels."""
    file = io.BytesIO()
    views.pillow(image_HW3).save(file, "PNG")
    return file.getvalue()


# ---------------------------------------------------------------- pixels


def _raw(
    image_HW3: Pixels, orientation: int, boxes_M4: NDArray[np.float32] | None, how: Raw
) -> tuple[bytes, NDArray[np.float32] | None]:
    """Pixels of a raw pack and the boxes in them; a box that the crop leaves nothing of is dropped."""
    height, width, _ = image_HW3.shape
    if how.exif:
        image_HW3 = decode.turned(image_HW3, orientation)
        boxes_M4 = None if boxes_M4 is None else boxes.turned(boxes_M4, orientation, width, height)
        height, width, _ = image_HW3.shape
    view = View(how.size_px, how.fit, how.size_px, "bicubic", bool(how.exif), IMAGENET_MEAN, IMAGENET_STD)
    data = np.ascontiguousarray(views.apply(image_HW3, view)).tobytes()
    if boxes_M4 is None:
        return data, None
    placed_M4 = view.placement(width, height).box_to_view(boxes_M4)
    if how.fit == "crop":
        clipped_M4 = placed_M4.clip(0, how.size_px)
        is_seen_M = (clipped_M4[:, 2] > clipped_M4[:, 0]) & (clipped_M4[:, 3] > clipped_M4[:, 1])
        placed_M4 = clipped_M4[is_seen_M]
    return data, placed_M4.astype(np.float32)

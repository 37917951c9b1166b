"""A window of a JPEG without decoding the rest: its restart markers cut the coded data into pieces that stand alone.

After every restart marker a decoder begins anew, so the pieces between two of them can be put together as one likes. A JPEG
that has a marker after every `interval` units, a divisor of the units in a row, is a grid of such pieces. `window` takes the
pieces under a window, numbers the markers between them anew, and sets the size in the header: a small JPEG, which any decoder
turns into the same pixels as that part of the whole, bit for bit. Where each piece ends is kept beside the file (`lengths`),
so nothing has to be searched.

A unit is an MCU: 8 x 8 pixels, or 16 in a direction where the colours are stored at half size.
Source: ITU-T T.81, sections A.2 (units), B.2.4.4 (restart interval), F.2.1.3 (what a restart resets).
"""

from __future__ import annotations

import functools
import struct
from typing import Final, NamedTuple

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from striate.data.decode import MAX_PIXELS, BadImage, Pixels

# Units of a piece. Files of shorter side 256 at quality 85 grow by 4.7 % with 1, 2.2 % with at most 4 and 0.2 % with a whole row;
# the window of a random resized crop is decoded equally fast with 2 to 6, and 0.15 ms slower with a whole row.
_MOST_UNITS: Final = 4

# Pixels around a window that decide its own: where the colours are stored at half size, a decoder mixes two neighbours.
_AROUND_PX: Final = 2
# Narrower images are enlarged without that mixing, so a window is never taken as one unless the whole is.
_LEAST_PX: Final = 5


class _Grid(NamedTuple):
    """What the header says about the pieces. frame_at: where the height stands; scan_at: where the coded data begins."""

    width: int
    height: int
    unit_width: int
    unit_height: int
    interval: int
    frame_at: int
    scan_at: int

    @property
    def columns(self) -> int:
        """Units in a row."""
        return -(-self.width // self.unit_width)

    @property
    def pieces(self) -> int:
        return self.columns * -(-self.height // self.unit_height) // self.interval


def interval(units_per_row: int) -> int:
    """After how many units a JPEG of a pack gets its restart markers: a divisor of those in a row, at most _MOST_UNITS."""
    return next(units for units in range(_MOST_UNITS, 0, -1) if units_per_row % units == 0)


def lengths(jpeg: bytes) -> bytes:
    """Bytes of coded data in each piece, uint16 little-endian; nothing where the file is no grid of pieces.

    A grid is a baseline JPEG of one scan with a marker after every piece and nothing behind the image.
    """
    try:
        grid = _grid(jpeg)
    except BadImage:
        return b""
    coded = np.frombuffer(jpeg, dtype=np.uint8)[grid.scan_at :]
    at = np.flatnonzero(coded[:-1] == 0xFF)
    marks = at[coded[at + 1] != 0]  # within coded data 0xFF is always followed by 0
    sizes = np.diff(marks, prepend=-2) - 2
    if len(marks) != grid.pieces or sizes.max() > 0xFFFF or not _fits(coded, marks):
        return b""
    stored: bytes = sizes.astype("<u2").tobytes()
    return stored


def window(jpeg: bytes, restarts: bytes, left: int, top: int, width: int, height: int) -> tuple[bytes, int, int]:
    """A JPEG of the pieces under a window, and where the window begins in it: (file, left_px, top_px).

    restarts: what `lengths` gave. The window lies within the image as stored (before any EXIF rotation).
    Raises BadImage where markers do not stand where `restarts` says, or the window is not within the image.
    """
    grid = _grid(jpeg)
    if len(restarts) != 2 * grid.pieces:
        raise BadImage(f"JPEG: {len(restarts) // 2} restart positions, its header says {grid.pieces}")
    if not (0 <= left < left + width <= grid.width and 0 <= top < top + height <= grid.height):
        raise BadImage(f"JPEG: {width} x {height} pixels at ({left}, {top}) are not within its {grid.width} x {grid.height}")
    per_row = grid.columns // grid.interval
    sizes_RP = np.frombuffer(restarts, dtype="<u2").reshape(-1, per_row) + np.int64(2)  # with the marker behind each piece
    ends_RP = np.cumsum(sizes_RP).reshape(-1, per_row)
    coded = np.frombuffer(jpeg, dtype=np.uint8)[grid.scan_at :]
    if not _fits(coded, ends_RP.ravel() - 2):
        raise BadImage("JPEG: its restart markers are not where they should be")

    piece_width = grid.unit_width * grid.interval
    first = max(0, min(left - _AROUND_PX, grid.width - _LEAST_PX)) // piece_width
    behind = min(per_row, (left + width + _AROUND_PX - 1) // piece_width + 1)
    first_row = max(0, top - _AROUND_PX) // grid.unit_height
    behind_row = min(len(sizes_RP), (top + height + _AROUND_PX - 1) // grid.unit_height + 1)
    wide = min(grid.width, behind * piece_width) - first * piece_width
    tall = min(grid.height, behind_row * grid.unit_height) - first_row * grid.unit_height

    sizes_rp, ends_rp = sizes_RP[first_row:behind_row, first:behind], ends_RP[first_row:behind_row, first:behind]
    begins, stops = (ends_rp[:, 0] - sizes_rp[:, 0]).tolist(), ends_rp[:, -1].tolist()
    pieces = memoryview(jpeg)[grid.scan_at :]
    small = bytearray().join([jpeg[: grid.scan_at], *(pieces[begin:stop] for begin, stop in zip(begins, stops, strict=True))])
    struct.pack_into(">HH", small, grid.frame_at, tall, wide)
    marks = np.cumsum(sizes_rp) + (grid.scan_at - 1)
    np.frombuffer(small, dtype=np.uint8)[marks] = _numbers(len(marks))
    return bytes(small), left - first * piece_width, top - first_row * grid.unit_height


def pixels(jpeg: bytes, restarts: bytes, left: int, top: int, width: int, height: int) -> Pixels:
    """A window of a JPEG, decoded: uint8 [height, width, 3], rows of a wider array; equal to that part of the whole.

    Raises BadImage as `window`, and where the strict decoder finds damage: then the whole image is to be decoded.
    """
    small, left_px, top_px = window(jpeg, restarts, left, top, width, height)
    try:
        image_HW3: Pixels = simplejpeg.decode_jpeg(small, "RGB", fastdct=False, fastupsample=False, strict=True)
    except ValueError as error:
        raise BadImage(f"JPEG: {error}") from error
    return image_HW3[top_px : top_px + height, left_px : left_px + width]


@functools.lru_cache(maxsize=1024)
def _numbers(count: int) -> NDArray[np.uint8]:
    """Second bytes of the markers behind `count` pieces: restarts 0 to 7 in turn, then the end of the image."""
    numbers = 0xD0 + (np.arange(count) & 7)
    numbers[-1:] = 0xD9
    found = numbers.astype(np.uint8)
    found.flags.writeable = False
    return found


def _fits(coded: NDArray[np.uint8], marks: NDArray[np.int64]) -> bool:
    """Whether exactly these are the markers: the right ones in the right order, the last one at the end of the file.

    A file without damage has no others: there would be one too many for its size.
    """
    if len(marks) == 0 or int(marks[-1]) + 2 != len(coded):
        return False
    return bool((coded[marks] == 0xFF).all() and (coded[marks + 1] == _numbers(len(marks))).all())


def _grid(jpeg: bytes) -> _Grid:
    """Walks the header up to the scan. Raises BadImage for a JPEG that is no grid of pieces, or none at all."""
    frame_at = units = 0
    width = height = unit_width = unit_height = 0
    at = 2
    try:
        while True:
            marker, length = struct.unpack_from(">HH", jpeg, at)
            if marker == 0xFFDA:
                scan_components = jpeg[at + 4]
                at += 2 + length
                break
            if marker in (0xFFC0, 0xFFC1):  # sequential, Huffman coded
                frame_at = at + 5
                bits, height, width, components = struct.unpack_from(">BHHB", jpeg, at + 4)
                factors = [jpeg[at + 11 + 3 * number] for number in range(components)]
                unit_width, unit_height = 8, 8
                if components > 1:
                    unit_width, unit_height = 8 * max(one >> 4 for one in factors), 8 * max(one & 15 for one in factors)
            elif marker == 0xFFDD:
                (units,) = struct.unpack_from(">H", jpeg, at + 4)
            elif not 0xFFC0 <= marker <= 0xFFFE or (0xFFC2 <= marker <= 0xFFCF and marker != 0xFFC4):
                raise BadImage("JPEG: not one that can be taken apart")
            at += 2 + length
    except (struct.error, IndexError, ValueError) as error:
        raise BadImage("JPEG: the file ends within its header") from error
    grid = _Grid(width, height, unit_width, unit_height, units, frame_at, at)
    is_known = frame_at > 0 and bits == 8 and components in (1, 3) and components == scan_components
    if not (is_known and unit_width and unit_height and 0 < width * height <= MAX_PIXELS):
        raise BadImage("JPEG: not one that can be taken apart")
    if units == 0 or grid.columns % units:
        raise BadImage("JPEG: no restart markers at the same place in every row")
    return grid

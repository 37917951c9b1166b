"""The images of a pack, by their place: what an index of one reads from.

Images are read by `os.pread`, so that memory stays flat for a pack larger than it, and a file that shrinks meanwhile is an error
and not a crash. Where they stand was found out when the pack was opened, by `read`.

The first reading of an image file compares its SHA-256: a window of a damaged one may look sound, and an image must be bad for
every crop of it and for every way of reading, or for none. Pixels cannot be bad; their damage is `read.verify`'s affair.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import weakref
from collections import deque
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from striate.data.decode import BadImage, Pixels
from striate.data.index import Index
from striate.data.pack import slices

_MARK_BITS: Final = 0x3FFFFFFFFFFFFFFF
_MOST_ASKED: Final = 1024  # blocks that are remembered as asked for: four windows of `order`


@dataclass(eq=False)
class PackStore:
    """The images of one split of a pack; a place is a row, counted over all shards.

    firsts_S1: [S + 1] int64, the row that each shard begins with, and the number of all rows.
    starts_N, lengths_N: [N] int64 and int32, where the bytes of each row stand in its shard.
    restarts_N, restart_lengths_N: the same of `restarts`, None where the pack has no such column.
    sides_N2: [N, 2] int32, width and height as stored. orientations_N: [N] int8, EXIF, still to be applied.
    marks_N: [N] int64, `marks` of the SHA-256 of each row's bytes.
    side_px: S where pixels are stored, else 0.
    block_rows: 0; or how many neighbours the system is asked to read as soon as one of them is read, for `order.block_order`.
    """

    paths: tuple[Path, ...]
    firsts_S1: NDArray[np.int64]
    starts_N: NDArray[np.int64]
    lengths_N: NDArray[np.int32]
    restarts_N: NDArray[np.int64] | None
    restart_lengths_N: NDArray[np.int32] | None
    sides_N2: NDArray[np.int32]
    orientations_N: NDArray[np.int8]
    marks_N: NDArray[np.int64]
    side_px: int
    block_rows: int = 0
    _is_known_N: NDArray[np.bool_] = field(init=False, repr=False)  # which files have been compared and are whole
    _asked: deque[int] = field(init=False, repr=False, default_factory=lambda: deque(maxlen=_MOST_ASKED))
    _handles: dict[int, int] = field(init=False, repr=False, default_factory=dict)
    _opening: threading.Lock = field(init=False, repr=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._is_known_N = np.zeros(len(self.marks_N), dtype=np.bool_)
        weakref.finalize(self, _close, self._handles)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if not name.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]  # files are opened anew, by whoever reads

    def read(self, place: int) -> bytes | Pixels:
        """The bytes of image `place`, or its pixels, uint8 [S, S, 3]. Raises BadImage."""
        if self.block_rows and hasattr(os, "posix_fadvise"):
            self._ask_ahead(place)
        if not self.side_px:
            return self._file(place)
        image_SS3 = np.empty((self.side_px, self.side_px, 3), dtype=np.uint8)
        self._fill(place, int(self.starts_N[place]), image_SS3.data.cast("B"))
        return image_SS3

    def sides(self, place: int, exif: bool) -> tuple[int, int] | None:
        """Width and height of an image of which `window` gives a part; None where it has to be decoded whole."""
        if self.side_px:
            return self.side_px, self.side_px
        has_restarts = self.restart_lengths_N is not None and self.restart_lengths_N[place] > 0
        if not has_restarts or (exif and self.orientations_N[place] != 1):
            return None
        width, height = self.sides_N2[place].tolist()
        return width, height

    def window(self, place: int, left: int, top: int, width: int, height: int) -> Pixels:
        """A part of image `place`: uint8 [height, width, 3], reading and decoding little beside it. Raises BadImage."""
        if not self.side_px:
            return slices.pixels(self._file(place), self.restarts(place), left, top, width, height)
        rows_hS3 = np.empty((height, self.side_px, 3), dtype=np.uint8)
        self._fill(place, int(self.starts_N[place]) + top * self.side_px * 3, rows_hS3.data.cast("B"))
        return rows_hS3[:, left : left + width]

    def _ask_ahead(self, place: int) -> None:
        """Has the system read the block of `place` in the background, unless it was asked for lately."""
        first = place - place % self.block_rows
        with self._opening:
            if first in self._asked:
                return
            self._asked.append(first)
        number = self._shard(place)
        last = min(first + self.block_rows, int(self.firsts_S1[number + 1])) - 1
        first = max(first, int(self.firsts_S1[number]))
        start, end = int(self.starts_N[first]), int(self.starts_N[last]) + int(self.lengths_N[last])
        with contextlib.suppress(OSError):  # advice only: who reads meets the error
            os.posix_fadvise(self._handle(number), start, end - start, os.POSIX_FADV_WILLNEED)

    def restarts(self, place: int) -> bytes:
        """`slices.lengths` of image `place`, nothing where it has none. Raises BadImage."""
        if self.restarts_N is None or self.restart_lengths_N is None:
            return b""
        return self._bytes(place, int(self.restarts_N[place]), int(self.restart_lengths_N[place]))

    def where(self, place: int) -> str:
        """The shard, and the row in it."""
        number = self._shard(place)
        return f"{self.paths[number]}, row {place - int(self.firsts_S1[number])}"

    def _shard(self, place: int) -> int:
        return int(np.searchsorted(self.firsts_S1, place, side="right")) - 1

    def _handle(self, number: int) -> int:
        handle = self._handles.get(number)
        if handle is None:
            with self._opening:
                handle = self._handles.get(number)
                if handle is None:
                    handle = self._handles[number] = os.open(self.paths[number], os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        return handle

    def _file(self, place: int) -> bytes:
        """The image file as it was packed."""
        data = self._bytes(place, int(self.starts_N[place]), int(self.lengths_N[place]))
        if not self._is_known_N[place]:
            digest = np.frombuffer(hashlib.sha256(data).digest(), dtype=np.uint8)
            if marks(digest[None])[0] != self.marks_N[place]:
                raise BadImage(f"{self.where(place)}: damaged, its bytes have changed since it was packed", lasting=False)
            self._is_known_N[place] = True
        return data

    def _bytes(self, place: int, start: int, length: int) -> bytes:
        try:
            data = os.pread(self._handle(self._shard(place)), length, start)
        except OSError as error:
            raise self._unreadable(place, error) from error
        if len(data) != length:
            raise self._cut(place)
        return data

    def _fill(self, place: int, start: int, room: memoryview) -> None:
        try:
            count = os.preadv(self._handle(self._shard(place)), [room], start)
        except OSError as error:
            raise self._unreadable(place, error) from error
        if count != len(room):
            raise self._cut(place)

    def _unreadable(self, place: int, error: OSError) -> BadImage:
        return BadImage(f"{self.where(place)}: cannot be read: {error.strerror or error}", lasting=False)

    def _cut(self, place: int) -> BadImage:
        return BadImage(f"{self.where(place)}: the file has become shorter since it was opened", lasting=False)


def marks(sha256_N32: NDArray[np.uint8]) -> NDArray[np.int64]:
    """A number below zero from 62 bits of each SHA-256: [N, 32] uint8 to [N] int64."""
    return np.asarray(-1 - (sha256_N32[:, :8].copy().view("<i8")[:, 0] & _MARK_BITS))


def in_blocks(index: Index, block_rows: int) -> Index:
    """The same images, where they are a pack's read ahead by blocks."""
    if not isinstance(index.store, PackStore):
        return index
    return replace(index, store=replace(index.store, block_rows=block_rows))


def _close(handles: dict[int, int]) -> None:
    for handle in handles.values():
        os.close(handle)
    handles.clear()

"""What an audit knows of every image: whether it decodes, its format, sides and oddities, and two hashes.

One pass over the stored bytes, each image decoded in full. What was found goes into a journal as it comes, so that an audit
that is killed loses at most a batch, and the next one of unchanged files decodes nothing.

The journal is a file that only grows: frames of (length, CRC-32, Arrow table). A frame that was torn
by a kill or changed since is where reading stops, and is overwritten. An image is known again by `_identity`: its key, size and
time of change, and the versions of the decoders; its row and split may be others.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import struct
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import simplejpeg
from numpy.typing import NDArray
from PIL import __version__ as pillow_version

from striate import files
from striate.data import decode, resident, views
from striate.data.audit import likeness
from striate.data.crew import Failed, Note, Stuck, threads_in_order
from striate.data.decode import BadImage, Pixels
from striate.data.index import Index
from striate.data.layouts.splits import SplitName
from striate.errors import UserError

JOURNAL: Final = "facts.journal"
WRONG_EXTENSION: Final = "wrong extension"
LOOKS_GREY: Final = "looks grey"  # stored in colour, and shows none; "grey" is stored without

_FORMAT: Final = 1  # of the facts: counts in every image's identity
_CHUNK: Final = 32  # images of one job
_BATCH: Final = 256  # jobs whose images make a frame at most
_FLUSH_S: Final = 2.0
_FRAME: Final = struct.Struct("<II")
_MOST_FRAME_BYTES: Final = 1 << 26
_TIMEOUT_S: Final = 120.0


@dataclass(frozen=True, eq=False)
class Facts:
    """What is known of the images of one split; entry i is row i of the index.

    reason: why an image cannot be used, or None. format: JPEG, PNG, WEBP, GIF, BMP, "pixels" (stored raw), or "" where not
    even that is known. sides_N2: [N, 2] int32, width and height as stored (boxes count in these), 0 where unknown.
    odd: what `decode` counts as odd, "wrong extension", and LOOKS_GREY. sha256_N32: [N, 32] uint8, of the stored bytes, 0
    where they could not be read. likeness_N: [N] uint64, the perceptual hash, 0 where there are no pixels.
    Texts and sets are shared between rows, so that an image takes about 80 bytes.
    """

    index: Index
    reason: list[str | None]
    format: list[str]
    sides_N2: NDArray[np.int32]
    odd: list[frozenset[str]]
    sha256_N32: NDArray[np.uint8]
    likeness_N: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.index)

    @property
    def is_good_N(self) -> NDArray[np.bool_]:
        """Which images can be used: [N] bool."""
        return np.fromiter((reason is None for reason in self.reason), dtype=bool, count=len(self))

    def rows_with(self, oddity: str) -> NDArray[np.int64]:
        """The rows that have one oddity: [n] int64."""
        return np.asarray([row for row, odd in enumerate(self.odd) if oddity in odd], dtype=np.int64)


# ---------------------------------------------------------------- some images


@dataclass(frozen=True, eq=False)
class _Part:
    """The facts of some rows, as in `Facts`; is_lasting: whether they would be the same another day (`BadImage.lasting`)."""

    rows: list[int]
    reason: list[str | None]
    format: list[str]
    sides_M2: NDArray[np.int32]
    odd: list[frozenset[str]]
    sha256_M32: NDArray[np.uint8]
    likeness_M: NDArray[np.uint64]
    is_lasting: list[bool]


def _look(index: Index, rows: list[int], note: Note) -> _Part:
    """Reads, hashes and decodes some images in full."""
    count = len(rows)
    reason: list[str | None] = [None] * count
    format_, odd, is_lasting = [""] * count, [_NOT_ODD] * count, [True] * count
    sides, sha256 = [(0, 0)] * count, [_NO_SHA256] * count
    with_pixels, samples, seen = list[int](), list[Pixels](), list[tuple[int, int]]()
    for place, row in enumerate(rows):
        note(row)
        content: bytes | Pixels = b""
        try:
            content = index.content(row)
            sha256[place] = hashlib.sha256(content).digest()  # type: ignore[arg-type]  # an array of bytes is a buffer
            image_HW3, sides[place], format_[place], odd[place] = _pixels(content)
        except BadImage as error:
            reason[place], is_lasting[place] = error.reason, error.lasting
            sides[place], format_[place] = _header(content)
            continue
        with_pixels.append(place)
        samples.append(likeness.sampled(image_HW3))
        seen.append(image_HW3.shape[:2])
    likeness_M = np.zeros(count, dtype=np.uint64)
    likeness_M[with_pixels] = likeness.likenesses(samples, seen)
    return _Part(
        rows,
        reason,
        format_,
        np.array(sides, dtype=np.int32),
        odd,
        np.frombuffer(b"".join(sha256), dtype=np.uint8).reshape(-1, 32),
        likeness_M,
        is_lasting,
    )


_NO_SHA256: Final = bytes(32)
_NOT_ODD: Final = frozenset[str]()


def _pixels(content: bytes | Pixels) -> tuple[Pixels, tuple[int, int], str, frozenset[str]]:
    """An image as a viewer shows it, its width and height as stored, its format, and what is odd. Raises BadImage."""
    odd = Counter[str]()
    if isinstance(content, np.ndarray):
        image_HW3, orientation, format_ = content, 1, "pixels"
    else:
        image_HW3, orientation = decode.as_stored(content, decode.MAX_PIXELS, odd)
        # Walking the header of a JPEG again would cost a tenth of decoding a small one.
        format_ = "JPEG" if content[:3] == b"\xff\xd8\xff" else decode.header(content).format
    height, width = image_HW3.shape[:2]
    if orientation != 1:
        odd["exif-rotated"] += 1
        image_HW3 = decode.turned(image_HW3, orientation)
    if "grey" not in odd and _looks_grey(image_HW3):
        odd[LOOKS_GREY] += 1
    return image_HW3, (width, height), format_, frozenset(odd) if odd else _NOT_ODD


def _header(content: bytes | Pixels) -> tuple[tuple[int, int], str]:
    """Sides and format of an image that cannot be used, as far as its header says them."""
    try:
        width, height, format_ = decode.header(content)  # type: ignore[arg-type]  # stored pixels can be used
    except BadImage:
        return (0, 0), ""
    return (width, height), format_


def _looks_grey(image_HW3: Pixels) -> bool:
    """`views.is_grey` of one image. A few pixels tell most colour images, in a tenth of its time."""
    height, width = image_HW3.shape[:2]
    for y, x in (
        (height // 2, width // 2),
        (height // 4, width // 4),
        (3 * height // 4, width // 2),
        (height // 3, 3 * width // 4),
    ):
        red, green, blue = image_HW3[y, x].tolist()
        if abs(red - green) > views.GREY_TOLERANCE or abs(green - blue) > views.GREY_TOLERANCE:
            return False
    return bool(views.is_grey(image_HW3[None])[0])


# ---------------------------------------------------------------- the pass over all images


@dataclass(frozen=True, eq=False)
class Gathered:
    """The facts of each split, how many images the journal knew, and the seconds that the others took."""

    facts: dict[str, Facts]
    known: int
    seconds: float


def gather(
    indexes: Mapping[SplitName, Index],
    out: Path,
    workers: int,
    progress: Callable[[int, int], None] | None = None,
    timeout_s: float = _TIMEOUT_S,
) -> Gathered:
    """The facts of every image of all splits, by `workers` threads (0: here and now).

    out: an existing folder for the journal. progress(done, total) may raise to stop; what was found by then is kept.
    Raises UserError when another process writes the journal, ResourceError when the disk is full or reading hangs.
    """
    tables: dict[str, _Table] = {split: _Table(index) for split, index in indexes.items()}
    total = sum(map(len, indexes.values()))
    with _opened(out / JOURNAL) as journal:
        for frame in journal.frames():
            for table in tables.values():
                table.recall(frame)
        known = done = sum(int(table.is_known_N.sum()) for table in tables.values())
        began = time.monotonic()
        if progress is not None:
            progress(done, total)
        for table in tables.values():
            for part in _looked_at(table.index, np.flatnonzero(~table.is_known_N), workers, timeout_s):
                table.put(part)
                journal.add(table.identity_N[part.rows], part)
                done += len(part.rows)
                if progress is not None:
                    progress(done, total)
        seconds = time.monotonic() - began
    return Gathered({split: table.facts() for split, table in tables.items()}, known, seconds)


def _looked_at(index: Index, rows_M: NDArray[np.int64], workers: int, timeout_s: float) -> Iterator[_Part]:
    """The facts of the given rows, in their order. Raises as the loader does, with file names."""

    def work(rows: list[int], note: Note) -> _Part:
        return _look(index, rows, note)

    jobs = (rows_M[start : start + _CHUNK].tolist() for start in range(0, len(rows_M), _CHUNK))
    with contextlib.closing(threads_in_order(work, jobs, workers, 4 * max(1, workers), timeout_s)) as results:
        try:
            yield from results
        except Stuck as error:
            raise resident.stuck_error(error, index) from error
        except Failed as error:
            raise resident.failed_error(error, index) from error


class _Table:
    """The facts of one split while they come in. identity_N: [N] 16 bytes each, see `_identities`."""

    def __init__(self, index: Index) -> None:
        count = len(index)
        self.index = index
        self.identity_N = _identities(index)
        self.is_known_N = np.zeros(count, dtype=bool)
        self._order_N = np.argsort(self.identity_N)
        self._reason: list[str | None] = [None] * count
        self._format = [""] * count
        self._odd = [frozenset[str]()] * count
        self._sides_N2 = np.zeros((count, 2), dtype=np.int32)
        self._sha256_N32 = np.zeros((count, 32), dtype=np.uint8)
        self._likeness_N = np.zeros(count, dtype=np.uint64)
        self._shared: dict[Any, Any] = {}

    def put(self, part: _Part) -> None:
        """Takes the facts of some images in."""
        self._sides_N2[part.rows] = part.sides_M2
        self._sha256_N32[part.rows] = part.sha256_M32
        self._likeness_N[part.rows] = part.likeness_M
        self._put_words(part.rows, part.reason, part.format, part.odd)

    def _put_words(
        self, rows: list[int], reasons: Iterable[str | None], formats: Iterable[str], odds: Iterable[frozenset[str]]
    ) -> None:
        share = self._shared.setdefault
        for row, reason, format_, odd in zip(rows, reasons, formats, odds, strict=True):
            self._reason[row] = share(reason, reason)
            self._format[row] = share(format_, format_)
            self._odd[row] = share(odd, odd)

    def recall(self, frame: pa.Table) -> None:
        """Takes in those facts of a frame of the journal that are of this split's images."""
        identity_M = _fixed(frame["identity"], 16).view("V16")[:, 0]
        if not len(self.index) or not len(identity_M):
            return
        place_M = np.searchsorted(self.identity_N, identity_M, sorter=self._order_N)
        row_M = self._order_N[np.minimum(place_M, len(self.index) - 1)]
        is_ours_M = self.identity_N[row_M] == identity_M
        ours, rows = np.flatnonzero(is_ours_M), row_M[is_ours_M]
        self.is_known_N[rows] = True
        self._sides_N2[rows, 0] = frame["width"].to_numpy()[ours]
        self._sides_N2[rows, 1] = frame["height"].to_numpy()[ours]
        self._sha256_N32[rows] = _fixed(frame["sha256"], 32)[ours]
        self._likeness_N[rows] = frame["likeness"].to_numpy()[ours]
        reasons, formats, odds = (frame[name].take(pa.array(ours)).to_pylist() for name in ("reason", "format", "odd"))
        self._put_words(rows.tolist(), reasons, formats, map(frozenset, odds))

    def facts(self) -> Facts:
        """The finished facts; the arrays are shared."""
        share, misnamed = self._shared.setdefault, dict[tuple[bytes, str], bool]()
        for row, key in enumerate(self.index.keys.raws()):
            about = key[key.rfind(b".") :], self._format[row]
            if about not in misnamed:
                misnamed[about] = self._is_misnamed(*about)
            if misnamed[about] and self._reason[row] is None:
                odd = self._odd[row] | {WRONG_EXTENSION}
                self._odd[row] = share(odd, odd)
        return Facts(self.index, self._reason, self._format, self._sides_N2, self._odd, self._sha256_N32, self._likeness_N)

    def _is_misnamed(self, ending: bytes, format_: str) -> bool:
        """Whether a name promises another format, or none; within an archive or a table, where names may lack, another."""
        extension = os.fsdecode(ending).lower()
        fits = format_ not in decode.EXTENSIONS or extension in decode.EXTENSIONS[format_]
        return not fits and (self.index.store is None or any(extension in known for known in decode.EXTENSIONS.values()))


def _identities(index: Index) -> NDArray[np.void]:
    """For each image 16 bytes, the same for the same file under the same decoders: [N] V16."""
    about = f"{_FORMAT} {pillow_version} {simplejpeg.__version__} {index.root}\n"
    begun = hashlib.blake2b(os.fsencode(about), digest_size=16)
    found = bytearray()
    for key, size, mtime in zip(index.keys.raws(), index.sizes_bytes, index.mtimes_ns, strict=True):
        one = begun.copy()
        one.update(b"%d %d %b" % (size, mtime, key))
        found += one.digest()
    return np.frombuffer(found, dtype="V16")


def _fixed(column: pa.ChunkedArray, width: int) -> NDArray[np.uint8]:
    """A column of fixed_size_binary as [rows, width] uint8."""
    joined = column.combine_chunks()
    start = joined.offset * width
    return np.frombuffer(joined.buffers()[1], dtype=np.uint8)[start : start + len(joined) * width].reshape(-1, width)


def _binary(values: NDArray[Any], width: int) -> pa.Array:
    """The inverse of `_fixed`: any array of `width` bytes for each row."""
    data = np.ascontiguousarray(values)
    return pa.Array.from_buffers(pa.binary(width), len(data), [None, pa.py_buffer(data.view(np.uint8).reshape(-1))])


# ---------------------------------------------------------------- the journal

_SCHEMA: Final = pa.schema(
    [
        ("identity", pa.binary(16)),
        ("reason", pa.string()),
        ("format", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("odd", pa.list_(pa.string())),
        ("sha256", pa.binary(32)),
        ("likeness", pa.uint64()),
    ]
)


class _Journal:
    """An open journal. All of `frames` must be read before anything is added."""

    def __init__(self, path: Path, handle: int) -> None:
        self._path, self._handle = path, handle
        self._waiting: list[tuple[NDArray[np.void], _Part]] = []
        self._flushed = time.monotonic()

    def frames(self) -> Iterator[pa.Table]:
        """What is known, in frames; what follows the last whole one is cut off."""
        at = 0
        while True:
            head = os.pread(self._handle, _FRAME.size, at)
            if len(head) < _FRAME.size:
                break
            length, crc = _FRAME.unpack(head)
            body = os.pread(self._handle, length, at + _FRAME.size) if length <= _MOST_FRAME_BYTES else b""
            if len(body) < length or not length or zlib.crc32(body) != crc:
                break
            table = pa.ipc.open_stream(body).read_all()
            if table.schema == _SCHEMA:
                yield table
            at += _FRAME.size + length
        os.ftruncate(self._handle, at)
        os.lseek(self._handle, at, os.SEEK_SET)

    def add(self, identity_M: NDArray[np.void], part: _Part) -> None:
        """The facts of some more images; written with others, after two seconds at the latest."""
        self._waiting.append((identity_M, part))
        if len(self._waiting) >= _BATCH or time.monotonic() - self._flushed >= _FLUSH_S:
            self.flush()

    def flush(self) -> None:
        """Writes what is waiting. What could not be read is left out: another day it may be.

        Raises ResourceError when there is no room.
        """
        self._flushed = time.monotonic()
        if not self._waiting:
            return
        parts = [part for _, part in self._waiting]
        sides_M2 = np.concatenate([part.sides_M2 for part in parts])
        words = {odd: list(odd) for part in parts for odd in set(part.odd)}
        columns = {
            "identity": _binary(np.concatenate([identity_M for identity_M, _ in self._waiting]), 16),
            "reason": [reason for part in parts for reason in part.reason],
            "format": [format_ for part in parts for format_ in part.format],
            "width": sides_M2[:, 0],
            "height": sides_M2[:, 1],
            "odd": [words[odd] for part in parts for odd in part.odd],
            "sha256": _binary(np.concatenate([part.sha256_M32 for part in parts]), 32),
            "likeness": np.concatenate([part.likeness_M for part in parts]),
        }
        is_lasting = pa.array([one for part in parts for one in part.is_lasting])
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, _SCHEMA) as writer:
            writer.write_table(pa.table(columns, _SCHEMA).filter(is_lasting))
        body = sink.getvalue().to_pybytes()
        rest = memoryview(_FRAME.pack(len(body), zlib.crc32(body)) + body)
        try:
            while len(rest):
                rest = rest[os.write(self._handle, rest) :]
        except OSError as error:
            raise files.refuse(error, self._path, "writing what the audit found") from error
        self._waiting.clear()


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[_Journal]:
    """The journal, for this process alone; what is waiting is written however the block ends."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise files.refuse(error, path, "keeping what the audit found") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"{path.parent}: another audit is writing here. Wait for it, or choose another --out.") from error
        except OSError as error:
            raise files.refuse(error, path, "locking it (the file system may have no locks)") from error
        journal = _Journal(path, handle)
        try:
            yield journal
        finally:
            journal.flush()
    finally:
        os.close(handle)

"""Which images exist: keys, labels, boxes and class names of one split, compact enough for ImageNet.

An index knows files by name, size and time of change; it opens none of them. It is the noun that the
loader, the cache, the predictions and the run folder agree on: row i is the same image everywhere.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, overload

import numpy as np

from striate import files
from striate.classes import Classes, listed
from striate.data import decode
from striate.data.decode import Pixels
from striate.errors import CheckpointError, expect

UNLABELLED = -1
_FORMAT = 1  # of the parquet file
_SECOND_NS = 1_000_000_000
_AT_ONCE = 65_536  # numbers that become Python objects at a time; a million at once would cost 40 MB


class Keys(Sequence[str]):
    """Many relative paths in one block of bytes: "n01440764/n01440764_10026.JPEG" and so on.

    Posix paths, bytes as the file system has them; a str shows bytes that are not UTF-8 as surrogates, as
    Python's own `os.fsdecode` does. 1.3 million keys of ImageNet take 60 MB instead of 130 MB as str.
    """

    def __init__(self, blob: np.ndarray, offsets: np.ndarray) -> None:
        """blob: [bytes] uint8; offsets: [N + 1] int64, key i is blob[offsets[i]:offsets[i + 1]]."""
        self.blob = blob
        self.offsets = offsets

    @classmethod
    def of(cls, keys: Iterable[str | bytes]) -> Keys:
        """Keys from plain strings."""
        blob, offsets = bytearray(), array("q", [0])
        for key in keys:
            blob += os.fsencode(key)
            offsets.append(len(blob))
        return cls(np.frombuffer(blob, dtype=np.uint8), np.frombuffer(offsets, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def raw(self, i: int) -> bytes:
        """Key i as bytes."""
        if not -len(self) <= i < len(self):
            raise IndexError(f"key {i} of {len(self)}")
        i %= len(self)
        return self.blob[self.offsets[i] : self.offsets[i + 1]].tobytes()

    @overload
    def __getitem__(self, i: int) -> str: ...
    @overload
    def __getitem__(self, i: slice) -> Keys: ...
    def __getitem__(self, i: int | slice) -> str | Keys:
        if isinstance(i, slice):
            return self.select(np.arange(len(self))[i])
        return os.fsdecode(self.raw(int(i)))

    def raws(self) -> Iterator[bytes]:
        """All keys as bytes, several times faster than one by one."""
        blob, start = self.blob.data, 0
        for first in range(1, len(self.offsets), _AT_ONCE):
            for end in self.offsets[first : first + _AT_ONCE].tolist():
                yield blob[start:end].tobytes()
                start = end

    def __iter__(self) -> Iterator[str]:
        return map(os.fsdecode, self.raws())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Keys):
            return np.array_equal(self.offsets, other.offsets) and np.array_equal(self.blob, other.blob)
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]  # equal by content, and too large to hash by it in passing

    def __repr__(self) -> str:
        return f"Keys({listed(self[:3])})" if len(self) <= 3 else f"Keys({self[0]!r} … {self[-1]!r}, {len(self):,})"

    def select(self, rows_M: np.ndarray) -> Keys:
        """The keys of some rows, in their order. rows_M: [M] int64."""
        lengths_M = (self.offsets[1:] - self.offsets[:-1])[rows_M]
        offsets = np.zeros(len(rows_M) + 1, dtype=np.int64)
        np.cumsum(lengths_M, out=offsets[1:])
        blob = np.empty(int(offsets[-1]), dtype=np.uint8)
        source, target, start = self.blob.data, blob.data, 0
        for part in range(0, len(rows_M), _AT_ONCE):
            rows = rows_M[part : part + _AT_ONCE]
            for first, length in zip(self.offsets[rows].tolist(), lengths_M[part : part + _AT_ONCE].tolist(), strict=True):
                target[start : start + length] = source[first : first + length]
                start += length
        return Keys(blob, offsets)


@dataclass(frozen=True, eq=False)
class Boxes:
    """Boxes of many images: none, one or several for each.

    rows: [N + 1] int64, the boxes of image i are xyxy[rows[i]:rows[i + 1]]; xyxy: [M, 4] float32, edges in
    pixels of the photo as stored (before any EXIF rotation), see `geometry`.
    """

    rows: np.ndarray
    xyxy: np.ndarray

    @classmethod
    def of_images(cls, count: int, image_M: np.ndarray, xyxy_M4: np.ndarray) -> Boxes:
        """Boxes gathered in any order: image_M [M] is the row of each one's image; an image's boxes keep their order."""
        order_M = np.argsort(image_M, kind="stable")
        rows = np.zeros(count + 1, dtype=np.int64)
        np.cumsum(np.bincount(image_M, minlength=count), out=rows[1:])
        return cls(rows, np.ascontiguousarray(xyxy_M4[order_M], dtype=np.float32))

    def of(self, i: int) -> np.ndarray:
        """The boxes of image i: [m, 4] float32, m may be 0."""
        return self.xyxy[self.rows[i] : self.rows[i + 1]]

    def select(self, rows_M: np.ndarray) -> Boxes:
        """The boxes of some images, in their order. rows_M: [M] int64."""
        counts_M = (self.rows[1:] - self.rows[:-1])[rows_M]
        rows = np.zeros(len(rows_M) + 1, dtype=np.int64)
        np.cumsum(counts_M, out=rows[1:])
        # Box j of image k stands at self.rows[k] + j, and j is its number among the chosen ones less rows[k].
        places = np.repeat(self.rows[:-1][rows_M] - rows[:-1], counts_M) + np.arange(rows[-1])
        return Boxes(rows, self.xyxy[places])


class Store(Protocol):
    """Where the images of a set lie that are not one file each: a pack, an archive, a table, a file of raw pixels.

    It travels to worker processes by pickling and is read by many threads, so it opens its files when it needs them.
    A place is the number of an image within the store.
    """

    def read(self, place: int) -> bytes | Pixels:
        """The bytes of an image file, for `decode`; or its pixels, uint8 [H, W, 3], where those are stored. Raises BadImage."""

    def where(self, place: int) -> str:
        """Where the image lies, for messages: the file, and what within it."""


@dataclass(frozen=True, eq=False)
class Index:
    """The images of one split.

    root: the folder that keys are relative to. labels: [N] int32, an index into `classes`, or -1 where an
    image has no label. sizes_bytes, mtimes_ns: [N] int64; a time below zero is none, but a hash of the content, where a store
    has one. notes: what was left out or is odd, for people.
    store, places: None where each image is the file root/key; else what holds them, and each one's place there, [N] int64.
    stored: in words how the images were changed when they were packed; empty where they are the originals.
    """

    root: Path
    split: str
    layout: str
    keys: Keys
    labels: np.ndarray
    classes: Classes
    boxes: Boxes | None
    sizes_bytes: np.ndarray
    mtimes_ns: np.ndarray
    notes: tuple[str, ...] = ()
    store: Store | None = None
    places: np.ndarray | None = None
    stored: str = ""

    def __post_init__(self) -> None:
        count = len(self.keys)
        for name in ("labels", "sizes_bytes", "mtimes_ns", *(["places"] if self.store is not None else [])):
            expect(getattr(self, name), f"{count}", f"Index.{name}")

    def __len__(self) -> int:
        return len(self.keys)

    def path(self, i: int) -> Path:
        """The file of image i, where each image is one."""
        return self.root / self.keys[i]

    def content(self, i: int) -> bytes | Pixels:
        """What is stored of image i: the bytes of a file, or pixels, uint8 [H, W, 3]. Raises BadImage."""
        if self.store is None or self.places is None:
            return decode.read(self.root / self.keys[i])
        return self.store.read(int(self.places[i]))

    def where(self, i: int) -> str:
        """Where image i lies, for messages: its file, or the store and the place in it."""
        if self.store is None or self.places is None:
            return str(self.root / self.keys[i])
        return self.store.where(int(self.places[i]))

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 (64 hex digits) of what is in the set: keys in order, sizes, labels and class ids, and how it was packed.

        Not of times, nor of the folder: a copy, or the same set mounted elsewhere, has the same fingerprint.
        """
        digest = hashlib.sha256(f"striate index {_FORMAT} {len(self)} {self.classes.hash}\n{self.stored}".encode())
        for part, kind in ((self.keys.offsets, "<i8"), (self.keys.blob, "u1"), (self.labels, "<i4"), (self.sizes_bytes, "<i8")):
            digest.update(np.ascontiguousarray(part, dtype=kind).data)
        return digest.hexdigest()

    def select(self, rows: np.ndarray, split: str | None = None) -> Index:
        """Some of the images, in the given order. rows: [M] integers, or [N] bool."""
        rows_M = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows.astype(np.int64, copy=False)
        return replace(
            self,
            split=self.split if split is None else split,
            keys=self.keys.select(rows_M),
            labels=self.labels[rows_M],
            boxes=None if self.boxes is None else self.boxes.select(rows_M),
            sizes_bytes=self.sizes_bytes[rows_M],
            mtimes_ns=self.mtimes_ns[rows_M],
            places=None if self.places is None else self.places[rows_M],
        )

    def counts(self) -> np.ndarray:
        """Number of images of each class: [K] int64. Images without a label count nowhere."""
        return np.bincount(self.labels[self.labels >= 0], minlength=len(self.classes)).astype(np.int64)

    def write(self, path: Path) -> None:
        """Writes the index as parquet (zstd), whole or not at all: key, label, size, mtime, and boxes if there are any.

        Keys are binary, since a file name need not be UTF-8. The folder is not written: it may differ at the next reading.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns: dict[str, Any] = {
            "key": pa.LargeBinaryArray.from_buffers(
                pa.large_binary(), len(self), [None, pa.py_buffer(self.keys.offsets.data), pa.py_buffer(self.keys.blob.data)]
            ),
            "label": pa.array(self.labels, pa.int32()),
            "size": pa.array(self.sizes_bytes, pa.int64()),
            "mtime": pa.array(self.mtimes_ns, pa.int64()),
        }
        if self.boxes is not None:
            four = pa.FixedSizeListArray.from_arrays(pa.array(self.boxes.xyxy.reshape(-1), pa.float32()), 4)
            columns["boxes"] = pa.LargeListArray.from_arrays(pa.array(self.boxes.rows, pa.int64()), four)
        about = {
            "format": _FORMAT,
            "split": self.split,
            "layout": self.layout,
            "notes": self.notes,
            "stored": self.stored,
            "classes": self.classes.to_json(),
        }
        table = pa.table(columns).replace_schema_metadata({"striate.index": json.dumps(about)})
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        files.write_whole(path, sink.getvalue().to_pybytes())

    @classmethod
    def read(cls, path: Path, root: Path) -> Index:
        """Reads what `write` wrote; `root` is where the images lie now.

        Raises CheckpointError when the file is missing, broken, or of a newer format.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(path).combine_chunks()
            about = json.loads(table.schema.metadata[b"striate.index"])
            if about["format"] > _FORMAT:
                raise CheckpointError(
                    f"{path}: index of format {about['format']}, this striate reads up to {_FORMAT}. Install a newer striate."
                )
            keys = table.column("key").cast(pa.large_binary())
            boxes = None
            if "boxes" in table.column_names:
                lists = table.column("boxes").combine_chunks()
                xyxy = np.asarray(lists.flatten().flatten(), dtype=np.float32).reshape(-1, 4)
                counts = np.asarray(lists.value_lengths(), dtype=np.int64)
                boxes = Boxes(np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts)]), xyxy)
            return cls(
                root=root,
                split=about["split"],
                layout=about["layout"],
                keys=Keys.of(value.as_py() for value in keys),
                labels=np.asarray(table.column("label"), dtype=np.int32),
                classes=Classes.from_json(about["classes"], str(path)),
                boxes=boxes,
                sizes_bytes=np.asarray(table.column("size"), dtype=np.int64),
                mtimes_ns=np.asarray(table.column("mtime"), dtype=np.int64),
                notes=tuple(about["notes"]),
                stored=about.get("stored", ""),
            )
        except FileNotFoundError as error:
            raise CheckpointError(f"{path}: the index is missing.") from error
        except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: not a readable index ({str(error).splitlines()[0]}).") from error


class Gathering:
    """Images as they are found, until they become an `Index`. Grows in place: no second copy of a large set."""

    def __init__(self) -> None:
        self._blob = bytearray()
        self._offsets = array("q", [0])
        self._labels = array("i")
        self._sizes = array("q")
        self._mtimes = array("q")

    def __len__(self) -> int:
        return len(self._labels)

    def add(self, key: bytes, label: int, size_bytes: int, mtime_ns: int) -> None:
        """One more image; key as in `Keys`, label as in `Index`."""
        self._blob += key
        self._offsets.append(len(self._blob))
        self._labels.append(label)
        self._sizes.append(size_bytes)
        self._mtimes.append(mtime_ns)

    def extend(self, found: Sequence[tuple[bytes, int, int]], label: int) -> None:
        """Several images of one label: (key, size in bytes, time of change in ns) of each."""
        ends = itertools.accumulate((len(key) for key, _, _ in found), initial=len(self._blob))
        next(ends)  # the start is the end of what was there
        self._offsets.extend(ends)
        self._blob += b"".join([key for key, _, _ in found])
        self._labels.extend([label] * len(found))
        self._sizes.extend([size for _, size, _ in found])
        self._mtimes.extend([mtime for _, _, mtime in found])

    def keys_since(self, row: int) -> list[bytes]:
        """The keys that were added as number `row` and later."""
        ends = self._offsets[row:].tolist()
        return [bytes(self._blob[start:end]) for start, end in itertools.pairwise(ends)]

    def index(
        self, root: Path, split: str, layout: str, classes: Classes, notes: Iterable[str] = (), boxes: Boxes | None = None
    ) -> Index:
        """The index of all that was added; the arrays are shared, so add nothing afterwards."""
        return Index(
            root=root,
            split=split,
            layout=layout,
            keys=Keys(np.frombuffer(self._blob, dtype=np.uint8), np.frombuffer(self._offsets, dtype=np.int64)),
            labels=np.frombuffer(self._labels, dtype=np.int32),
            classes=classes,
            boxes=boxes,
            sizes_bytes=np.frombuffer(self._sizes, dtype=np.int64),
            mtimes_ns=np.frombuffer(self._mtimes, dtype=np.int64),
            notes=tuple(notes),
        )


@dataclass(frozen=True)
class Difference:
    """How a set of images differs from what it was, as lists of keys.

    reordered: the same images in another order (rows of a list file moved), which another training order
    follows. remounted: every time of change differs and no size does, as after a copy; then nothing counts as edited.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    relabelled: tuple[str, ...]
    edited: tuple[str, ...]
    reordered: bool
    remounted: bool

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.relabelled or self.edited or self.reordered)

    def describe(self) -> str:
        """The difference in a few lines, with the first keys of each kind; "no difference" if there is none."""
        kinds = {"added": self.added, "removed": self.removed, "other label": self.relabelled, "edited": self.edited}
        lines = [f"{word}, {len(keys):,}: {listed(keys, 5)}" for word, keys in kinds.items() if keys]
        if self.reordered:
            lines.append("the same images stand in another order")
        return "\n".join(lines) or "no difference"


def compare(old: Index, new: Index) -> Difference:
    """What happened to a set of images between two readings of it.

    A file is edited when its size differs, or when its time of change does while others kept theirs. Labels
    are compared by class id.
    """
    if old.keys == new.keys:
        old_rows_C = new_rows_C = np.arange(len(old))
        added_rows, removed_rows = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    else:
        old_places = {key: row for row, key in enumerate(old.keys.raws())}
        found_N = np.fromiter((old_places.pop(key, -1) for key in new.keys.raws()), dtype=np.int64, count=len(new))
        new_rows_C = np.flatnonzero(found_N >= 0)
        old_rows_C = found_N[new_rows_C]
        added_rows = np.flatnonzero(found_N < 0)
        removed_rows = np.fromiter(old_places.values(), dtype=np.int64, count=len(old_places))

    new_names = {name: position for position, name in enumerate(new.classes.ids)}
    new_label_of_old = np.asarray([new_names.get(name, -2) for name in old.classes.ids] + [UNLABELLED], dtype=np.int64)
    is_relabelled_C = new_label_of_old[old.labels[old_rows_C]] != new.labels[new_rows_C]

    has_other_size_C = old.sizes_bytes[old_rows_C] != new.sizes_bytes[new_rows_C]
    has_other_time_C = ~_same_time(old.mtimes_ns[old_rows_C], new.mtimes_ns[new_rows_C])
    are_times = not bool((new.mtimes_ns[new_rows_C] < 0).all())  # copying changes times, but no hash of a content
    all_times_differ = len(old_rows_C) > 0 and are_times and bool(has_other_time_C.all())
    is_edited_C = has_other_size_C if all_times_differ else has_other_size_C | has_other_time_C

    def keys_of(rows: np.ndarray) -> tuple[str, ...]:
        return tuple(new.keys[int(row)] for row in rows)

    return Difference(
        added=keys_of(added_rows),
        removed=tuple(old.keys[int(row)] for row in removed_rows),
        relabelled=keys_of(new_rows_C[is_relabelled_C]),
        edited=keys_of(new_rows_C[is_edited_C]),
        reordered=bool((np.diff(old_rows_C) < 0).any()),
        remounted=all_times_differ and not bool(has_other_size_C.any()),
    )


def _same_time(a_N: np.ndarray, b_N: np.ndarray) -> np.ndarray:
    """Whether times of change agree, where a coarser file system or archive may have cut them to whole seconds."""
    is_cut_N = (a_N % _SECOND_NS == 0) | (b_N % _SECOND_NS == 0)
    return np.asarray((a_N == b_N) | (is_cut_N & (a_N // _SECOND_NS == b_N // _SECOND_NS)))

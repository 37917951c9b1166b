"""Reads packs: an index and a store for each split, and what the checksums say.

Opening maps each shard, notes where every image begins and ends, and lets go of it; images are then read by `store`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from striate.data.index import UNLABELLED, Boxes, Index, Keys
from striate.data.layouts.splits import SplitName
from striate.data.pack.format import SPLITS, Keep, Manifest, Raw, Shard
from striate.data.pack.store import PackStore, marks
from striate.errors import DataError

_PIECE_BYTES: Final = 8 * 1024**2  # bytes hashed at a time


# ---------------------------------------------------------------- opening


def open_pack(folder: Path, wanted: Collection[SplitName] = SPLITS) -> tuple[Manifest, dict[SplitName, Index]]:
    """The manifest of a pack and an index of each wanted split that it has.

    Keys, labels, classes and boxes are those of the source (boxes in pixels of the stored image). In place of a time of change
    each image has a negative number from its SHA-256, which tells `index.compare` the same and survives copying.
    Raises DataError naming the file for whatever is missing, cut, or not as the manifest says. Bits that flipped within an
    image are found when it is read, where it is a file, and by `verify`.
    """
    manifest = Manifest.read(folder)
    return manifest, {split: read_split(folder, manifest, split) for split in SPLITS if split in wanted and manifest.of(split)}


def read_split(folder: Path, manifest: Manifest, split: SplitName) -> Index:
    """The index of one split of a pack. Raises DataError as `open_pack`."""
    shards = manifest.of(split)
    batches: list[_Batch] = []
    firsts_S1 = np.zeros(len(shards) + 1, dtype=np.int64)
    for number, shard in enumerate(shards):
        found = _batches(folder / shard.name, shard, manifest)
        firsts_S1[number + 1] = firsts_S1[number] + shard.rows
        batches += found
    side_px = manifest.how.size_px if isinstance(manifest.how, Raw) else 0
    has_restarts = bool(batches) and batches[0].restarts_n is not None
    lengths_N = _joined([batch.lengths_n for batch in batches], np.int32)
    marks_N = _joined([batch.marks_n for batch in batches], np.int64)
    store = PackStore(
        paths=tuple(folder / shard.name for shard in shards),
        firsts_S1=firsts_S1,
        starts_N=_joined([batch.starts_n for batch in batches], np.int64),
        lengths_N=lengths_N,
        restarts_N=_joined([batch.restarts_n for batch in batches], np.int64) if has_restarts else None,
        restart_lengths_N=_joined([batch.restart_lengths_n for batch in batches], np.int32) if has_restarts else None,
        sides_N2=_joined([batch.sides_n2 for batch in batches], np.int32).reshape(-1, 2),
        orientations_N=_joined([batch.orientations_n for batch in batches], np.int8),
        marks_N=marks_N,
        side_px=side_px,
    )
    count = int(firsts_S1[-1])
    boxes = None
    if any(batch.has_boxes for batch in batches):
        rows = np.zeros(count + 1, dtype=np.int64)
        np.cumsum(_joined([batch.box_counts_n for batch in batches], np.int64), out=rows[1:])
        boxes = Boxes(rows, np.concatenate([batch.xyxy_m4 for batch in batches]))
    key_offsets = np.zeros(count + 1, dtype=np.int64)
    np.cumsum(_joined([np.diff(batch.key_offsets) for batch in batches], np.int64), out=key_offsets[1:])
    return Index(
        root=folder,
        split=split,
        layout=manifest.layout,
        keys=Keys(_joined([batch.key_blob for batch in batches], np.uint8), key_offsets),
        labels=_joined([batch.labels_n for batch in batches], np.int32),
        classes=manifest.classes,
        boxes=boxes,
        sizes_bytes=lengths_N.astype(np.int64),
        mtimes_ns=marks_N,
        notes=_notes(manifest, split),
        store=store,
        places=np.arange(count, dtype=np.int64),
        stored="" if isinstance(manifest.how, Keep) else manifest.how.describe(),
    )


def _notes(manifest: Manifest, split: SplitName) -> tuple[str, ...]:
    left_out = sum(bad["split"] == split for bad in manifest.bad)
    return (f"packed without {left_out:,} bad images of the source",) if left_out else ()


def _joined(parts: list[Any], kind: type[np.generic]) -> NDArray[Any]:
    return np.concatenate([part.ravel() for part in (np.zeros(0, dtype=kind), *parts)]).astype(kind, copy=False)


@dataclass(frozen=True, eq=False)
class _Batch:
    """What is kept of a record batch; nothing in it refers to the file."""

    starts_n: NDArray[np.int64]
    lengths_n: NDArray[np.int32]
    restarts_n: NDArray[np.int64] | None
    restart_lengths_n: NDArray[np.int32] | None
    sides_n2: NDArray[np.int32]
    orientations_n: NDArray[np.int8]
    labels_n: NDArray[np.int32]
    marks_n: NDArray[np.int64]
    key_blob: NDArray[np.uint8]
    key_offsets: NDArray[np.int64]
    has_boxes: bool
    box_counts_n: NDArray[np.int64]
    xyxy_m4: NDArray[np.float32]


def _batches(path: Path, shard: Shard, manifest: Manifest) -> list[_Batch]:
    """Where everything stands in one shard. Raises DataError."""
    advice = "Copy the pack again; or remove its folder, and pack the data again."
    try:
        size_bytes = path.stat().st_size
        if size_bytes != shard.size_bytes:
            raise DataError(f"{path}: {size_bytes:,} bytes, the manifest says {shard.size_bytes:,}. {advice}")
        whole, reader = _mapped(path)
        about = json.loads((reader.schema.metadata or {}).get(b"striate.pack", b"{}"))
        if not reader.schema.equals(manifest.schema(shard.split)) or about != manifest.about(shard.split):
            raise DataError(f"{path}: not a shard of this pack, its columns or its metadata are another's. {advice}")
        found = []
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            batch.validate(full=True)  # offsets within their buffers, and in order; looks at no image
            found.append(_looked_up(batch, whole, manifest))
        rows = sum(len(batch.labels_n) for batch in found)
        if rows != shard.rows:
            raise ValueError(f"{rows:,} rows, the manifest says {shard.rows:,}")
    except FileNotFoundError as error:
        raise DataError(f"{path}: this shard of the pack is missing. {advice}") from error
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, OverflowError, MemoryError) as error:
        text = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path}: not a readable shard of a pack ({text}). {advice}") from error
    return found


def _mapped(path: Path) -> tuple[pa.Buffer, pa.RecordBatchFileReader]:
    with pa.memory_map(str(path)) as source:
        whole = source.read_buffer()
    return whole, pa.ipc.open_file(pa.BufferReader(whole))


def _looked_up(batch: pa.RecordBatch, whole: pa.Buffer, manifest: Manifest) -> _Batch:
    """Raises ValueError for values that no pack has."""
    count = batch.num_rows
    for name in ("image", "pixels", "label", "key", "width", "height", "orientation", "sha256"):
        if name in batch.schema.names and batch.column(name).null_count:
            raise ValueError(f"an empty cell in column {name!r}")
    starts_n, lengths_n = _cells(images_of(batch), whole)
    if isinstance(manifest.how, Raw) and (lengths_n != manifest.how.size_bytes).any():
        raise ValueError(f"an image of another size than {manifest.how.size_bytes:,} bytes")
    restarts_n = restart_lengths_n = None
    if "restarts" in batch.schema.names:
        restarts_n, restart_lengths_n = _cells(batch.column("restarts"), whole)
    labels_n = np.asarray(batch.column("label"))
    if count and not (labels_n.min() >= UNLABELLED and labels_n.max() < len(manifest.classes)):
        raise ValueError(f"a label outside of -1..{len(manifest.classes) - 1}")
    keys = batch.column("key").cast(pa.binary())
    if "key_bytes" in batch.schema.names:
        keys = pc.coalesce(batch.column("key_bytes"), keys)
    key_offsets, key_blob = _binary(keys)
    hash_offsets, hashes = _binary(batch.column("sha256"))
    if (np.diff(hash_offsets) != 32).any():
        raise ValueError("a SHA-256 that has not 32 bytes")
    has_boxes, box_counts_n, xyxy_m4 = False, np.zeros(count, dtype=np.int64), np.zeros((0, 4), dtype=np.float32)
    if "boxes" in batch.schema.names:
        lists = batch.column("boxes")
        has_boxes = lists.null_count < count
        box_counts_n = np.asarray(lists.value_lengths().fill_null(0), dtype=np.int64)
        xyxy_m4 = np.array(lists.flatten().flatten(), dtype=np.float32).reshape(-1, 4)
        if len(xyxy_m4) != box_counts_n.sum():
            raise ValueError("a box without four numbers")
    return _Batch(
        starts_n=starts_n,
        lengths_n=lengths_n,
        restarts_n=restarts_n,
        restart_lengths_n=restart_lengths_n,
        sides_n2=np.stack([np.asarray(batch.column(name)) for name in ("width", "height")], axis=1),
        orientations_n=np.array(batch.column("orientation")),
        labels_n=labels_n.astype(np.int32),
        marks_n=marks(hashes.reshape(count, 32)),
        key_blob=key_blob,
        key_offsets=key_offsets,
        has_boxes=has_boxes,
        box_counts_n=box_counts_n,
        xyxy_m4=xyxy_m4,
    )


def images_of(batch: pa.RecordBatch) -> pa.Array:
    """The column of image files or pixels. Raises ValueError where one is missing."""
    images = batch.column("pixels") if "pixels" in batch.schema.names else batch.column("image").field("bytes")
    if images.null_count:
        raise ValueError("an image without bytes")
    return images


def _place(buffer: pa.Buffer | None, whole: pa.Buffer) -> int:
    """Where a buffer stands in its file. Raises ValueError where it is not a part of it (compressed, or damaged)."""
    if buffer is None:
        return 0
    start = int(buffer.address - whole.address)
    if not 0 <= start <= start + buffer.size <= whole.size:
        raise ValueError("its images are compressed, or do not lie where they should")
    return start


def _cells(column: pa.Array, whole: pa.Buffer) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Start in the file and length of each cell of a binary column; an empty cell has length 0."""
    _, offsets, data = column.buffers()
    if offsets is None or not len(column):
        return np.zeros(len(column), dtype=np.int64), np.zeros(len(column), dtype=np.int32)
    edges = np.frombuffer(offsets, dtype="<i4", count=column.offset + len(column) + 1)[column.offset :].astype(np.int64)
    return _place(data, whole) + edges[:-1], np.diff(edges).astype(np.int32)


def _binary(column: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Offsets, from 0, and bytes of a binary column, both copied."""
    _, offsets, data = column.buffers()
    if offsets is None or not len(column):
        return np.zeros(len(column) + 1, dtype=np.int64), np.zeros(0, dtype=np.uint8)
    edges = np.frombuffer(offsets, dtype="<i4", count=column.offset + len(column) + 1)[column.offset :].astype(np.int64)
    blob = np.frombuffer(data or b"", dtype=np.uint8)[edges[0] : edges[-1]].copy()
    return edges - edges[0], blob


# ---------------------------------------------------------------- checksums


@dataclass(frozen=True)
class Damage:
    """A shard that is not as it was written. rows: those whose image has another SHA-256; keys: theirs, where they can be read.

    Without rows, the damage lies outside of the images: text says what could be told.
    """

    path: Path
    rows: tuple[int, ...]
    keys: tuple[str, ...]
    text: str


def verify(folder: Path, progress: Callable[[int, int], None] | None = None) -> list[Damage]:
    """Compares every shard with the SHA-256 in the manifest; of one that differs, every image with its own.

    progress(done, total): bytes. Raises DataError where there is no readable manifest.
    """
    manifest = Manifest.read(folder)
    total, done, damages = sum(shard.size_bytes for shard in manifest.shards), 0, []
    for shard in manifest.shards:
        path, digest, size_bytes = folder / shard.name, hashlib.sha256(), 0
        try:
            with open(path, "rb", buffering=0) as file:
                while piece := file.read(_PIECE_BYTES):
                    digest.update(piece)
                    size_bytes += len(piece)
                    if progress is not None:
                        progress(min(done + size_bytes, total), total)
        except OSError as error:
            damages.append(Damage(path, (), (), error.strerror or str(error)))
            continue
        done += shard.size_bytes
        if size_bytes != shard.size_bytes:
            damages.append(Damage(path, (), (), f"{size_bytes:,} bytes, the manifest says {shard.size_bytes:,}"))
        elif digest.hexdigest() != shard.sha256:
            damages.append(_damage(path, shard, manifest))
    return damages


def _damage(path: Path, shard: Shard, manifest: Manifest) -> Damage:
    rows, keys, first = list[int](), list[str](), 0
    try:
        _batches(path, shard, manifest)
        _, reader = _mapped(path)
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            for row, (cell, expected) in enumerate(zip(images_of(batch), batch.column("sha256"), strict=True)):
                if hashlib.sha256(cell.as_buffer()).digest() != expected.as_py():
                    rows.append(first + row)
                    keys.append(batch.column("key")[row].as_py())
            first += batch.num_rows
    except (DataError, pa.ArrowException, ValueError) as error:
        return Damage(path, tuple(rows), tuple(keys), str(error))
    words = f"{len(rows):,} images have changed" if rows else "changed outside of its images"
    return Damage(path, tuple(rows), tuple(keys), words)

"""Parquet tables with an image column, as Hugging Face writes image sets: train-00000-of-00002.parquet and so on.

The image column is a struct with `bytes`, or plain binary; it and the label column are found by the features in the schema's
`huggingface` metadata, else by name and type. Classes are the names that the metadata gives to the labels, else the labels.

Parquet is read by row groups: one image costs its whole group, read and decompressed. The groups that were read last are kept in
memory. The length of an image is not known without reading it, so the index has the mean of its row group.
"""

from __future__ import annotations

import json
import os
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from striate.classes import Classes, listed
from striate.data.decode import MAX_FILE_BYTES, BadImage
from striate.data.index import UNLABELLED, Index, Keys
from striate.data.layouts.labels import Written, settle
from striate.data.layouts.shards import Shard, by_split, find
from striate.data.layouts.splits import Found, SplitName
from striate.data.layouts.walk import unreadable
from striate.errors import DataError

NAME: Final = "parquet"
MOST_KEPT_BYTES: Final = 256_000_000  # of row groups in memory, for each split and process
MOST_GROUP_BYTES: Final = 1_000_000_000
_IMAGE_NAMES: Final = ("image", "img", "jpg", "jpeg", "png", "webp", "picture", "photo")
_LABEL_NAMES: Final = ("label", "labels", "class", "cls", "target", "fine_label")


@dataclass(frozen=True, eq=False)
class _Groups:
    """The row groups of a set, in order. file_G, number_G: in which file, and its number there; firsts_G1: rows before each."""

    file_G: np.ndarray
    number_G: np.ndarray
    firsts_G1: np.ndarray


@dataclass(eq=False)
class Tables:
    """The store of such a set. A place is the number of the row among those of all files.

    paths: of the files; columns: of the images in each, "image.bytes" within a struct.
    """

    paths: tuple[str, ...]
    columns: tuple[str, ...]
    groups: _Groups
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)
    _kept: OrderedDict[int, Future[Any]] = field(init=False, default_factory=OrderedDict)
    _kept_bytes: int = field(init=False, default=0)

    def __reduce__(self) -> tuple[Any, ...]:
        return Tables, (self.paths, self.columns, self.groups)  # a process reads for itself

    def read(self, place: int) -> bytes:
        """As `Store`."""
        group = int(np.searchsorted(self.groups.firsts_G1, place, side="right")) - 1
        value = self._group(group)[place - int(self.groups.firsts_G1[group])].as_py()
        if value is None:
            raise BadImage("the table has no bytes of it, at most the path of a file elsewhere")
        if len(value) > MAX_FILE_BYTES:
            raise BadImage(f"{len(value):,} bytes are more than the limit of {MAX_FILE_BYTES:,}")
        return bytes(value)

    def where(self, place: int) -> str:
        """As `Store`."""
        group = int(np.searchsorted(self.groups.firsts_G1, place, side="right")) - 1
        file = self.groups.file_G[group]
        first = np.flatnonzero(self.groups.file_G == file)[0]
        return f"{self.paths[file]}, row {place - int(self.groups.firsts_G1[first]):,}"

    def _group(self, group: int) -> Any:
        """A row group's images, a binary array: from memory, or read by the first who asks while the others wait."""
        with self._lock:
            found = self._kept.get(group)
            if found is None:
                found = self._kept[group] = Future()
                is_mine = True
            else:
                self._kept.move_to_end(group)
                is_mine = False
        if is_mine:
            try:
                found.set_result(self._load(group))
            except BaseException as error:
                with self._lock:
                    del self._kept[group]
                found.set_exception(error)
                raise
            self._make_room(found)
        return found.result()

    def _make_room(self, newest: Future[Any]) -> None:
        with self._lock:
            self._kept_bytes += newest.result().nbytes
            for group, held in list(self._kept.items()):
                if self._kept_bytes <= MOST_KEPT_BYTES:
                    break
                if held.done() and held is not newest:
                    del self._kept[group]
                    self._kept_bytes -= held.result().nbytes

    def _load(self, group: int) -> Any:
        file = int(self.groups.file_G[group])
        column = self.columns[file]
        rows = int(self.groups.firsts_G1[group + 1] - self.groups.firsts_G1[group])
        try:
            with pa.OSFile(self.paths[file]) as source:
                table = _open(source).read_row_group(int(self.groups.number_G[group]), columns=[column], use_threads=False)
            array = _plain(table.column(0))
            if len(array) != rows:
                raise BadImage(f"its row group has {len(array):,} rows, not {rows:,} as when it was indexed", lasting=False)
        except (pa.ArrowException, OSError, ValueError, IndexError, MemoryError) as error:
            raise BadImage(f"its row group cannot be read: {_words(error)}", lasting=False) from error
        return array


def read(path: Path, wanted: Collection[SplitName]) -> Found:
    """The wanted splits, told by the names of the files or of their folders; without such names all is training.

    Raises DataError naming the file for damage, for a table without images or with their paths only, for row groups too large to
    be read one by one, and for labels that are missing, out of range, or differ between the splits.
    """
    root, shards = find(path, b"parquet")
    of_split, notes = by_split(shards)
    parts = {
        split: [_opened(root, shard, with_labels=True) for shard in found] for split, found in of_split.items() if split in wanted
    }
    keys = {split: _keys(part) for split, part in parts.items()}
    written = {split: Written.joined([table.labels for table in part]) for split, part in parts.items()}
    for split, part in parts.items():
        lacking = [table for table in part if table.label_column is None]
        if lacking and split != "test":
            raise DataError(
                f"{lacking[0].path}: no label column, as 'label' with whole numbers or text; it has {lacking[0].described}. "
                "`striate predict` names the classes of images without labels."
            )
    classes, labels_of, said = settle(path, written, keys)
    indexes = {split: _index(root, split, part, keys[split], labels_of[split], classes) for split, part in parts.items()}
    tables = [table for part in parts.values() for table in part]
    return Found(indexes, NAME, (*notes, *said, *_notes(tables)))


def photos(path: Path) -> Index:
    """All images of the set, in the order of the files, without labels. Raises DataError like `read`."""
    root, shards = find(path, b"parquet")
    tables = [_opened(root, shard, with_labels=False) for shard in shards]
    keys = _keys(tables)
    index = _index(root, "test", tables, keys, np.full(len(keys), UNLABELLED, dtype=np.int32), Classes((), ()))
    return replace(index, notes=tuple(_notes(tables)))


# ---------------------------------------------------------------- one file


@dataclass(frozen=True, eq=False)
class _Table:
    """What a file's footer says, and its labels. sizes_G, rows_G: of its row groups, bytes of images and rows."""

    path: Path
    shard: Shard
    image_column: str
    label_column: str | None
    passed_over: tuple[str, ...]  # other columns that might have been meant
    described: str
    labels: Written
    rows_G: np.ndarray
    sizes_G: np.ndarray


def _opened(root: Path, shard: Shard, with_labels: bool) -> _Table:
    path = root / os.fsdecode(shard.name)
    try:
        with pa.OSFile(str(path)) as source:
            return _read_table(path, shard, _open(source), with_labels)
    except (pa.ArrowException, ValueError, IndexError, KeyError, MemoryError, RecursionError) as error:
        raise DataError(f"{path}: no readable parquet file ({_words(error)}). Copy or make it again.") from error
    except OSError as error:  # pyarrow raises it for damage, too, then without a number
        if error.errno:
            raise unreadable(error, path) from error
        raise DataError(f"{path}: no readable parquet file ({_words(error)}). Copy or make it again.") from error


def _read_table(path: Path, shard: Shard, file: Any, with_labels: bool) -> _Table:
    schema = file.schema_arrow
    features = _features(schema)
    described = ", ".join(f"{name!r} ({kind})" for name, kind in zip(schema.names, schema.types, strict=True)) or "no columns"
    images = _image_columns(schema, features)
    if not images:
        raise DataError(
            f"{path}: no image column, a struct with `bytes` or plain binary; it has {described}. Name a table of images."
        )
    image, label = images[0], None
    labels = _label_columns(schema, features)
    rows, sizes = _groups_of(path, file, image)
    count = int(rows.sum())
    if labels:
        label = labels[0]
    written = Written([], np.full(count, UNLABELLED, dtype=np.int32))
    if label is not None and with_labels:
        written = _labels(path, file.read(columns=[label], use_threads=False).column(0), features.get(label))
        if len(written.codes_N) != count:
            raise DataError(f"{path}: damaged: {len(written.codes_N):,} labels for {count:,} images. Copy or make it again.")
    leaf = f"{image}.bytes" if _is_struct(schema.field(image).type) else image
    return _Table(path, shard, leaf, label, (*images[1:], *labels[1:]), described, written, rows, sizes)


def _open(source: Any) -> Any:
    return pq.ParquetFile(source)


def _features(schema: Any) -> dict[str, Any]:
    """What the `datasets` library wrote about the columns; empty where it did not write them, or not readably."""
    text = (schema.metadata or {}).get(b"huggingface")
    try:
        found = json.loads(text)["info"]["features"] if text else {}
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}  # the types of the columns tell as much
    return {name: about for name, about in found.items() if isinstance(about, dict)} if isinstance(found, dict) else {}


def _is_binary(kind: Any) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_struct(kind: Any) -> bool:
    """Whether a type is Hugging Face's storage of an image: a struct with the bytes of a file."""
    return bool(pa.types.is_struct(kind)) and any(part.name == "bytes" and _is_binary(part.type) for part in kind)


def _image_columns(schema: Any, features: dict[str, Any]) -> list[str]:
    """The columns that hold images, the likeliest first."""
    usable = [name for name in schema.names if _is_struct(schema.field(name).type) or _is_binary(schema.field(name).type)]
    told = [name for name in usable if features.get(name, {}).get("_type") == "Image"]
    structs = [name for name in usable if _is_struct(schema.field(name).type)]
    return sorted(told or structs or usable, key=lambda name: _rank(name, _IMAGE_NAMES))


def _label_columns(schema: Any, features: dict[str, Any]) -> list[str]:
    """The columns that may hold labels, the likeliest first."""

    def is_label(kind: Any) -> bool:
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        return bool(pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind))

    usable = [name for name in schema.names if is_label(schema.field(name).type)]
    told = [name for name in usable if features.get(name, {}).get("_type") == "ClassLabel"]
    return sorted(told or (name for name in usable if name in _LABEL_NAMES), key=lambda name: _rank(name, _LABEL_NAMES))


def _rank(name: str, known: Sequence[str]) -> int:
    return known.index(name) if name in known else len(known)


def _groups_of(path: Path, file: Any, image: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows and bytes of images of each row group, from the footer. Raises DataError for groups too large, or without bytes."""
    footer = file.metadata
    rows, sizes, without = [], [], 0
    for number in range(footer.num_row_groups):
        group = footer.row_group(number)
        chunks = [group.column(place) for place in range(group.num_columns)]
        chunk = next((chunk for chunk in chunks if chunk.path_in_schema in {image, f"{image}.bytes"}), None)
        if chunk is None:
            raise DataError(f"{path}: damaged: row group {number} lacks the column {image!r}. Copy or make it again.")
        if chunk.total_uncompressed_size > MOST_GROUP_BYTES:
            raise DataError(
                f"{path}: row group {number} has {chunk.total_uncompressed_size / 1e9:.1f} GB of images, and an image is read "
                "with its whole group. Write the table again in small ones: "
                "pyarrow.parquet.write_table(table, path, row_group_size=100)."
            )
        if group.num_rows < 0 or chunk.total_uncompressed_size < 0:
            raise DataError(f"{path}: damaged: row group {number} has a negative size. Copy or make it again.")
        rows.append(group.num_rows)
        sizes.append(chunk.total_uncompressed_size)
        told = chunk.statistics if chunk.is_stats_set else None
        without += told.null_count if told is not None and told.has_null_count else 0
    if without and without >= sum(rows):
        raise DataError(
            f"{path}: the column {image!r} has no bytes of images, at most paths of files elsewhere. Write them into the table "
            "(dataset.to_parquet does, where the files are there), or name the folder of the files."
        )
    return np.asarray(rows, dtype=np.int64), np.asarray(sizes, dtype=np.int64)


def _labels(path: Path, column: Any, feature: dict[str, Any] | None) -> Written:
    """The labels of a file. Raises DataError for a number beyond the names that the metadata give."""
    if not pa.types.is_integer(column.type):
        encoded = column.cast(pa.string()).combine_chunks().dictionary_encode()
        if isinstance(encoded, pa.ChunkedArray):
            encoded = encoded.combine_chunks()
        codes = encoded.indices.fill_null(UNLABELLED)
        return Written([word.strip() for word in encoded.dictionary.to_pylist()], np.asarray(codes, dtype=np.int32))
    values, codes = np.unique(np.asarray(column.cast(pa.int64()).fill_null(-1), dtype=np.int64), return_inverse=True)
    words = [str(value) for value in values.tolist()]
    names = _names(feature)
    if names:
        beyond = [value for value in values.tolist() if not -1 <= value < len(names)]
        if beyond:
            row = int(np.flatnonzero(values[codes] == beyond[0])[0])
            raise DataError(f"{path}, row {row:,}: label {beyond[0]}, where the table names {len(names):,} classes.")
        words = [names[value] if value >= 0 else "-1" for value in values.tolist()]
    return Written(words, codes.astype(np.int32))


def _names(feature: dict[str, Any] | None) -> list[str]:
    """The names of the classes by number; none where the metadata have none, or where two classes share one."""
    names = (feature or {}).get("names")
    if isinstance(names, list) and all(isinstance(name, str) for name in names) and len(set(names)) == len(names):
        return names
    return []


def _plain(column: Any) -> Any:
    """The bytes in a column, or in the structs of one, as one binary array."""
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks)
    return array.field("bytes") if pa.types.is_struct(array.type) else array


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


# ---------------------------------------------------------------- a split


def _keys(tables: Sequence[_Table]) -> Keys:
    """FILE.parquet/ROW, rows counted from 0."""
    return Keys.of(table.shard.name + b"/%d" % row for table in tables for row in range(int(table.rows_G.sum())))


def _index(root: Path, split: SplitName, tables: Sequence[_Table], keys: Keys, labels: np.ndarray, classes: Classes) -> Index:
    rows_G = np.concatenate([np.empty(0, dtype=np.int64), *(table.rows_G for table in tables)])
    sizes_G = np.concatenate([np.empty(0, dtype=np.int64), *(table.sizes_G for table in tables)])
    groups = _Groups(
        file_G=np.repeat(np.arange(len(tables)), [len(table.rows_G) for table in tables]),
        number_G=np.concatenate([np.empty(0, dtype=np.int64), *(np.arange(len(table.rows_G)) for table in tables)]),
        firsts_G1=np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(rows_G)]),
    )
    counts = [int(table.rows_G.sum()) for table in tables]
    return Index(
        root=root,
        split=split,
        layout=NAME,
        keys=keys,
        labels=labels,
        classes=classes,
        boxes=None,
        sizes_bytes=np.repeat(sizes_G // np.maximum(rows_G, 1), rows_G),
        mtimes_ns=np.repeat(np.asarray([table.shard.mtime_ns for table in tables], dtype=np.int64), counts),
        store=Tables(tuple(str(table.path) for table in tables), tuple(table.image_column for table in tables), groups),
        places=np.arange(len(keys), dtype=np.int64),
    )


def _notes(tables: Sequence[_Table]) -> Iterator[str]:
    columns = dict.fromkeys(
        (table.image_column.removesuffix(".bytes"), table.label_column, table.passed_over) for table in tables
    )
    for image, label, passed_over in columns:
        if passed_over:
            yield f"images are the column {image!r}, labels {label!r}; not used: {listed(passed_over)}"
    total = sum(int(table.sizes_G.sum()) for table in tables)
    if total > MOST_KEPT_BYTES:
        largest = max(int(table.sizes_G.max(initial=0)) for table in tables)
        rows = max(int(table.rows_G.max(initial=0)) for table in tables)
        yield (
            f"an image is read with its row group, here up to {rows:,} images and {largest / 1e6:,.0f} MB, and training takes "
            "images in random order: `striate data pack` makes a set whose images are read one by one"
        )

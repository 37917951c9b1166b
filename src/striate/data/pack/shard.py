"""One shard of a pack: written from rows of the source, or gone on with where it was cut off.

A shard is written under a temporary name and renamed when the disk has it. Of one that was cut off, the whole record batches are
copied (a file of Arrow is a stream up to its footer), and packing goes on behind them. With each batch stands how far it goes in
the source, and what was bad and odd on the way. Nothing depends on when a batch was written, so the file is the same, bit for
bit, as if it had been written at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from striate import files
from striate.data.decode import BadImage
from striate.data.index import Index
from striate.data.pack.encode import Stored
from striate.data.pack.format import BATCH_BYTES, BATCH_ROWS
from striate.data.pack.plan import shown

_FACTS: Final = b"striate.rows"  # the metadata of a record batch

Made = tuple[int, Stored | BadImage, Counter[str]]  # a row of the source, what is stored of it, what was odd about it


@dataclass
class Contents:
    """What a shard holds. next_row: of the source, behind its last one. found: rows that an earlier call had written."""

    next_row: int
    rows: int = 0
    found: int = 0
    bad: list[dict[str, Any]] = field(default_factory=list)
    odd: Counter[str] = field(default_factory=Counter)
    size_bytes: int = 0
    sha256: str = ""

    def add(self, facts: dict[str, Any]) -> None:
        """One more record batch, or bad rows behind the last."""
        self.next_row = facts["next_row"]
        self.rows += facts["rows"]
        self.bad += facts["bad"]
        self.odd.update(facts["odd"])


def write_shard(
    path: Path,
    schema: pa.Schema,
    index: Index,
    rows: range,
    make: Callable[[range], Iterable[Made]],
    tell: Callable[[int], None],
) -> Contents:
    """Writes the shard of some rows of a source, or the rest of it.

    make: what is to be stored of given rows, in order. tell: is told of rows that are dealt with, and may raise to stop.
    """
    part, before = path.with_name(f".{path.name}.part"), path.with_name(f".{path.name}.before")
    # An earlier call may have left a part; the one before it, not yet copied; the whole, not yet noted. All begin alike.
    longest = max((one for one in (before, part, path) if one.exists()), key=lambda one: one.stat().st_size, default=None)
    if longest is not None:
        os.replace(longest, before)
    for other in (part, path):
        other.unlink(missing_ok=True)

    contents = Contents(next_row=rows.start)
    with open(part, "wb", buffering=0) as file:
        sink = _Sink(file)
        with pa.ipc.new_file(sink, schema) as writer:
            for batch, facts in _whole_batches(before, schema):
                writer.write_batch(batch, custom_metadata={_FACTS: _sealed(batch, facts)})
                contents.add(facts)
            contents.found = contents.rows
            before.unlink(missing_ok=True)
            tell(contents.next_row - rows.start)
            for batch, facts in _new_batches(index, schema, make(rows[contents.next_row - rows.start :]), rows.stop, tell):
                if batch is not None:
                    writer.write_batch(batch, custom_metadata={_FACTS: _sealed(batch, facts)})
                contents.add(facts)
        os.fsync(file.fileno())
    os.replace(part, path)
    files.sync_folder(path.parent)
    contents.size_bytes, contents.sha256 = sink.size_bytes, sink.digest.hexdigest()
    return contents


class _Sink(io.RawIOBase):
    """A file that knows how long it is, and its SHA-256."""

    def __init__(self, file: io.FileIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.size_bytes = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.size_bytes

    def write(self, data: Any) -> int:
        rest = memoryview(data).cast("B")
        count = len(rest)
        self.digest.update(rest)
        self.size_bytes += count
        while len(rest):
            rest = rest[self._file.write(rest) :]
        return count


# ---------------------------------------------------------------- record batches


def _whole_batches(path: Path, schema: pa.Schema) -> Iterator[tuple[pa.RecordBatch, dict[str, Any]]]:
    """The record batches of a cut-off shard, up to the first that is not as it was written."""
    ends = (StopIteration, pa.ArrowException, OSError, ValueError, KeyError, TypeError, AttributeError)
    with contextlib.suppress(*ends), open(path, "rb") as file:
        file.seek(8)  # behind the first eight bytes, a file of Arrow is a stream
        with pa.ipc.open_stream(file) as reader:
            while reader.schema.equals(schema, check_metadata=True):
                batch, texts = reader.read_next_batch_with_custom_metadata()
                batch.validate(full=True)
                facts = json.loads(texts[_FACTS])
                facts.pop("sha256")
                if _sealed(batch, facts) != texts[_FACTS]:
                    return
                yield batch, facts


def _sealed(batch: pa.RecordBatch, facts: dict[str, Any]) -> bytes:
    """What stands with a batch: the facts, and a SHA-256 of both."""
    digest = hashlib.sha256(json.dumps(facts).encode())
    digest.update(batch.serialize())
    return json.dumps({**facts, "sha256": digest.hexdigest()}).encode()


def _new_batches(
    index: Index, schema: pa.Schema, made: Iterable[Made], stop: int, tell: Callable[[int], None]
) -> Iterator[tuple[pa.RecordBatch | None, dict[str, Any]]]:
    """Record batches of what was made, with what `Contents.add` takes; None for bad rows behind the last one."""
    gathered: list[tuple[int, Stored]] = []
    bad: list[dict[str, Any]] = []
    odd: Counter[str] = Counter()
    size_bytes = 0

    def facts(next_row: int) -> dict[str, Any]:
        counts = {kind: count for kind, count in sorted(odd.items()) if count}
        return {"next_row": next_row, "rows": len(gathered), "bad": bad, "odd": counts}

    for row, one, odd_here in made:
        if isinstance(one, BadImage):
            bad.append({"split": index.split, "row": row, "key": index.keys[row], "reason": one.reason})
        else:
            if gathered and (len(gathered) == BATCH_ROWS or size_bytes + len(one.data) > BATCH_BYTES):
                yield _batch(index, gathered, schema), facts(row)
                gathered, bad, odd, size_bytes = [], [], Counter(), 0
            gathered.append((row, one))
            size_bytes += len(one.data)
            odd.update(odd_here)
        tell(1)
    yield _batch(index, gathered, schema) if gathered else None, facts(stop)


def _batch(index: Index, gathered: list[tuple[int, Stored]], schema: pa.Schema) -> pa.RecordBatch:
    rows = [row for row, _ in gathered]
    stored = [one for _, one in gathered]
    raws = [index.keys.raw(row) for row in rows]
    keys = [shown(raw) for raw in raws]
    columns: dict[str, list[Any]] = {
        "image": [{"bytes": one.data, "path": key} for one, key in zip(stored, keys, strict=True)],
        "pixels": [one.data for one in stored],
        "label": index.labels[rows].tolist(),
        "key": keys,
        "key_bytes": [None if key.encode() == raw else raw for key, raw in zip(keys, raws, strict=True)],
        "width": [one.width for one in stored],
        "height": [one.height for one in stored],
        "orientation": [one.orientation for one in stored],
        "sha256": [one.sha256 for one in stored],
        "boxes": [None if one.boxes is None else one.boxes.tolist() for one in stored],
        "restarts": [one.restarts for one in stored],
    }
    return pa.record_batch([pa.array(columns[column.name], column.type) for column in schema], schema=schema)

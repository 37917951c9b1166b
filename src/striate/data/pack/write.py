"""Packs a data set: one pass over its images, in order, shard by shard; whatever ends it, the same call goes on.

Start reading in `pack`. The files of an unfinished pack are explained in `plan` and `shard`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from striate import files
from striate.classes import Classes
from striate.data import decode
from striate.data.crew import Failed, Job, Note, Result, Stuck, threads_in_order
from striate.data.decode import BadImage
from striate.data.index import Index
from striate.data.layouts import detect
from striate.data.layouts.splits import AS_THEY_LIE, SplitName, expect_classes
from striate.data.pack import encode, format, plan, read
from striate.data.pack.format import How, Manifest, Raw, Shard
from striate.data.pack.plan import Done, Plan
from striate.data.pack.shard import Made, write_shard
from striate.data.resident import failed_error, stuck_error
from striate.errors import DataError, UserError

_LOCK: Final = ".lock"
_COMPARED: Final = 500  # images whose pixels are compared with the exact ones
_CHUNK: Final = 8  # images of a job

OnBad = Literal["fail", "skip"]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Packed:
    """A finished pack. images: in it; written: those that this call stored, in `seconds`."""

    folder: Path
    manifest: Manifest
    written: int
    seconds: float
    notes: tuple[str, ...]

    @property
    def images(self) -> int:
        return sum(shard.rows for shard in self.manifest.shards)

    @property
    def bytes_before(self) -> int:
        """Of the source's images, those that were left out included."""
        return sum(int(split["bytes"]) for split in self.manifest.source["splits"].values())

    @property
    def bytes_after(self) -> int:
        """Of the shards."""
        return sum(shard.size_bytes for shard in self.manifest.shards)

    def to_json(self) -> dict[str, Any]:
        """Plain values for --json."""
        return {
            "pack": str(self.folder),
            "images": self.images,
            "written": self.written,
            "seconds": round(self.seconds, 3),
            "images_per_s": round(self.written / self.seconds, 1) if self.written else None,
            "shards": len(self.manifest.shards),
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
            "how": format.how_to_json(self.manifest.how),
            "difference": self.manifest.difference,
            "bad": list(self.manifest.bad),
            "odd": self.manifest.odd,
        }


def pack(
    data: str | Path,
    folder: Path,
    how: How,
    on_bad: OnBad = "fail",
    workers: int = 1,
    progress: Progress | None = None,
    command: str = "",
    timeout_s: float = 120.0,
) -> Packed:
    """Packs all splits of a data set into a folder, or goes on with it; a finished pack of the same is left as it is.

    on_bad: an image that cannot be decoded stops the packing, or is left out and listed. workers: threads. progress(done, total)
    is told of images and may raise to stop: nothing is lost but the images of an unfinished record batch. command: how a
    person goes on, kept for the message about an unfinished pack.
    Raises UserError where the folder lies in the data, holds something else, is in use, or was begun in another way;
    CheckpointError where the source has changed since; DataError naming a bad image; ResourceError when the disk is full.
    """
    check_place(detect.place_of(data), folder)
    found = detect.open_whole(data)
    if isinstance(how, Raw) and how.exif is None:
        how = replace(how, exif=not found.layout.startswith(AS_THEY_LIE))
    indexes = {split: found.indexes[split] for split in format.SPLITS if len(found.indexes.get(split, ()))}
    if "train" in indexes:
        expect_classes(indexes["train"].classes, str(data))  # a part of a larger set would lose its labels here
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            if (folder / format.MANIFEST).exists():
                manifest = Manifest.read(folder)
                plan.expect_same(folder, how, manifest.how, manifest.source, indexes)
                read.open_pack(folder)  # not called finished where a shard is missing or cut
                (folder / format.PLAN).unlink(missing_ok=True)
                return Packed(folder, manifest, 0, 0.0, ("it was finished before",))
            if (folder / format.PLAN).exists():
                begun = Plan.read(folder)
                plan.expect_same(folder, how, begun.how, begun.source, indexes)
            else:
                begun = plan.begin(folder, how, indexes, found.layout, command)
            return _finish(folder, begun, indexes, on_bad, _Threads(workers, timeout_s), progress)
    except OSError as error:
        raise files.refuse(error, folder, "packing", instead="another folder") from error


def check_place(data: Path, folder: Path) -> None:
    """Raises UserError unless a pack can be made in a folder: outside of the data, and where nothing else lies."""
    if data.is_dir() and folder.resolve().is_relative_to(data.resolve()):
        raise UserError(f"{folder}: lies in the data, {data}, which is never written to. Choose another folder.")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: a file, where the folder of a pack is expected. Choose another name.")
    names = sorted(set(os.listdir(folder)) - {_LOCK, plan.SOURCE}) if folder.is_dir() else []
    if names and format.PLAN not in names and format.MANIFEST not in names:
        raise UserError(
            f"{folder}: holds something else ({', '.join(names[:3])}). Name a folder that is empty or does not exist."
        )


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time packs into a folder; the system lets go of the lock however that process ends."""
    with open(folder / _LOCK, "a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read(200).decode(errors="replace").strip() or "another process"
            raise UserError(f"{folder}: being packed by {holder}. Wait for it, stop it, or name another folder.") from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        file.flush()
        yield


@dataclass(frozen=True)
class _Threads:
    """Who does the work, a little ahead of the one who writes; errors are told with names from an index."""

    count: int
    timeout_s: float

    def each(self, work: Callable[[Job, Note], Result], jobs: Iterator[Job], index: Index) -> Generator[Result]:
        results = threads_in_order(work, jobs, self.count, 4 * max(1, self.count), self.timeout_s)
        with contextlib.closing(results):
            try:
                yield from results
            except Stuck as error:
                raise stuck_error(error, index) from error
            except Failed as error:
                raise failed_error(error, index) from error


def _finish(
    folder: Path, begun: Plan, indexes: dict[SplitName, Index], on_bad: OnBad, threads: _Threads, progress: Progress | None
) -> Packed:
    """Writes all shards that are not done, and then the manifest."""
    total = sum(map(len, indexes.values()))
    done = written = 0
    notes: list[str] = []
    classes = next((index.classes for index in indexes.values() if len(index.classes)), Classes((), ()))
    manifest = Manifest(begun.how, begun.columns, classes, begun.source, (), made_with=format.versions())

    def tell(rows: int) -> None:
        nonlocal done
        done += rows
        if progress is not None:
            progress(done, total)

    began = time.monotonic()
    for split, name, rows in begun.shards():
        if name in begun.done:
            if _is_as_written(folder, begun.done[name].shard):
                tell(len(rows))
                continue
            notes.append(f"{folder / name}: not as it was written; packed again")
            (folder / name).unlink(missing_ok=True)
        index = indexes[split]

        def make(rows: range, index: Index = index) -> Iterator[Made]:
            return _made(index, rows, begun.how, on_bad, threads)

        contents = write_shard(folder / name, manifest.schema(split), index, rows, make, tell)
        written += contents.rows - contents.found
        shard = Shard(name, split, contents.rows, contents.size_bytes, contents.sha256)
        begun.done[name] = Done(shard, tuple(contents.bad), dict(contents.odd))
        begun.write(folder)
    seconds = time.monotonic() - began

    all_done = [begun.done[name] for _, name, _ in begun.shards()]
    bad = tuple(one for each in all_done for one in each.bad)
    if bad and on_bad == "fail":  # left out by an earlier call, which was told to
        raise _bad_error(str(bad[0]["key"]), str(bad[0]["reason"]))
    odd = sum((Counter(each.odd) for each in all_done), Counter[str]())
    manifest = replace(manifest, shards=tuple(each.shard for each in all_done), bad=bad, odd=dict(sorted(odd.items())))
    manifest = replace(manifest, difference=_difference(folder, manifest, indexes, threads))
    manifest.write(folder)
    (folder / format.PLAN).unlink()
    return Packed(folder, manifest, written, seconds, tuple(notes))


def _is_as_written(folder: Path, shard: Shard) -> bool:
    path = folder / shard.name
    return path.is_file() and path.stat().st_size == shard.size_bytes and files.sha256_file(path) == shard.sha256


def _made(index: Index, rows: range, how: How, on_bad: OnBad, threads: _Threads) -> Iterator[Made]:
    """What is to be stored of each row, in order."""

    def work(rows: range, note: Note) -> list[Made]:
        made: list[Made] = []
        for row in rows:
            note(row)
            odd: Counter[str] = Counter()
            try:
                content = index.content(row)
                stored = encode.stored(content, None if index.boxes is None else index.boxes.of(row), how, odd)
                odd["wrong extension"] += decode.has_wrong_extension(index.keys[row], content)
                made.append((row, stored, odd))
            except BadImage as error:
                made.append((row, error, Counter()))
        return made

    jobs = (rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK))
    for made in threads.each(work, jobs, index):
        for row, stored, odd in made:
            if isinstance(stored, BadImage) and on_bad == "fail":
                raise _bad_error(index.where(row), stored.reason)
            yield row, stored, odd


def _bad_error(where: str, reason: str) -> DataError:
    return DataError(f"{where}: {reason}. Repair or remove it and pack anew, or go on without such images with --on-bad skip.")


def _difference(folder: Path, manifest: Manifest, indexes: dict[SplitName, Index], threads: _Threads) -> dict[str, Any]:
    """How far the pack's pixels are from the exact ones, over every k-th image; see `format.Manifest`."""
    levels: list[float] = []
    keys: list[str] = []
    for split, source in indexes.items():
        packed = read.read_split(folder, manifest, split)
        left_out = np.asarray([bad["row"] for bad in manifest.bad if bad["split"] == split], dtype=np.int64)
        source_rows_N = np.setdiff1d(np.arange(len(source)), left_out)
        chosen = range(0, len(packed), max(1, len(packed) * len(indexes) // _COMPARED))
        pairs = iter([(row, int(source_rows_N[row])) for row in chosen])

        def compared(rows: tuple[int, int], note: Note, source: Index = source, packed: Index = packed) -> float:
            row, source_row = rows
            note(row)
            exact_HW3 = encode.exact(source.content(source_row), manifest.how)
            return float(np.abs(decode.pixels(packed.content(row), exif=False).astype(np.int16) - exact_HW3).mean())

        levels += threads.each(compared, pairs, packed)
        keys += [packed.keys[row] for row in chosen]
    if not levels:
        return {"images": 0, "mean": None, "worst": None, "key": None}
    worst = int(np.argmax(levels))
    mean = round(float(np.mean(levels)), 4)
    return {"images": len(levels), "mean": mean, "worst": round(levels[worst], 4), "key": keys[worst]}

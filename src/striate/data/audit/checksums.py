"""SHA-256 of every file of a data set, as sha256sum writes it, and what differs from that later.

Decoding cannot see most flipped bits (they change pixels and raise nothing), checksums see each. What is covered: every file
below DATA, lists and annotations included, but not what systems leave behind (hidden files, `walk.JUNK`); of a list file, the
list itself and the images that it names. Names are relative to DATA, or to the folder of the list.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from striate import files
from striate.data.audit.checks import Defect
from striate.data.audit.facts import Facts
from striate.data.crew import Note, Stuck, threads_in_order
from striate.data.layouts.walk import is_junk, shown, unreadable
from striate.data.pack import read
from striate.errors import CheckpointError, ResourceError, UserError

_CHUNK: Final = 64  # files of one job
_TIMEOUT_S: Final = 600.0  # in which some file must be finished: an archive of many GB is one file
_LINE: Final = re.compile(rb"(\\?)([0-9a-fA-F]{64}) [ *]([^\n]+)")
_ESCAPES: Final = {b"\\\\": b"\\", b"\\n": b"\n", b"\\r": b"\r"}

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Difference:
    """One file that is not as it was. name: relative to the data, bytes that are not UTF-8 as surrogates."""

    name: str
    what: Literal["changed", "missing", "unreadable", "extra"]


def write(data: Path, facts: Mapping[str, Facts], path: Path, workers: int, progress: Progress | None = None) -> int:
    """Writes the checksums of a data set's files to `path`, in the format of sha256sum. Returns how many there are.

    Images that are a file each have their hash in the facts; other files are hashed here, by `workers` threads, and
    progress(done, total), which may raise to stop, is told after each of them how many are in the list by then.
    Files that cannot be read are left out: the audit has named them. Raises ResourceError when there is no room.
    """
    root = os.fsencode(data if data.is_dir() else data.parent)
    lines, known = bytearray(), set[bytes]()
    for of_split in facts.values():
        index = of_split.index
        if index.store is None:
            prefix = os.path.relpath(os.fsencode(index.root), root)
            for key, sha256 in zip(index.keys.raws(), of_split.sha256_N32, strict=True):
                if sha256.any():
                    name = key if prefix == b"." else os.path.normpath(os.path.join(prefix, key))
                    known.add(name)
                    lines += _line(name, sha256.tobytes())
    count = len(known)
    others = (name for name in _names(data) if name not in known)
    for name, found in _hashed(root, others, workers):
        if isinstance(found, bytes):
            lines += _line(name, found)
            count += 1
        if progress is not None:
            progress(count, count)
    files.write_whole(path, bytes(lines))
    return count


def verify(path: Path, data: Path, workers: int, progress: Progress | None = None) -> list[Difference]:
    """What differs between a data set and the checksums that `write` (or sha256sum, run in its folder) made of it.

    workers: threads (0: here and now). progress(done, total) counts files and may raise to stop.
    Returns the differences by name, none when all is as it was; files that the checksums do not name are "extra".
    Raises UserError when `path` cannot be read, CheckpointError naming the row when it is no list of checksums.
    """
    wanted = _read(path)
    root = os.fsencode(data if data.is_dir() else data.parent)
    differences = []
    for done, ((name, found), sha256) in enumerate(
        zip(_hashed(root, iter(wanted), workers), wanted.values(), strict=True), start=1
    ):
        if isinstance(found, OSError):
            is_missing = isinstance(found, (FileNotFoundError, NotADirectoryError))
            differences.append(Difference(os.fsdecode(name), "missing" if is_missing else "unreadable"))
        elif found != sha256:
            differences.append(Difference(os.fsdecode(name), "changed"))
        if progress is not None and (done % _CHUNK == 0 or done == len(wanted)):
            progress(done, len(wanted))
    itself = os.path.realpath(os.fsencode(path))
    differences += [
        Difference(os.fsdecode(name), "extra")
        for name in _names(data)
        if name not in wanted and _has_content(place := os.path.join(root, name)) and os.path.realpath(place) != itself
    ]
    return sorted(differences, key=lambda difference: difference.name)


def _has_content(path: bytes) -> bool:
    """Whether `write` would have listed it: no pipe, no dangling link, nothing that must not be read."""
    return os.path.isfile(path) and os.access(path, os.R_OK)


def _names(data: Path) -> Iterator[bytes]:
    """Every file of a data set relative to its folder, sorted within each folder; of a list file only the list itself."""
    if not data.is_dir():
        yield os.fsencode(data.name)
        return
    root = os.fsencode(data)

    def refuse(error: OSError) -> None:
        raise unreadable(error, error.filename or data) from error

    for place, folders, names in os.walk(root, onerror=refuse):
        folders[:] = sorted(name for name in folders if not is_junk(name))
        start = os.path.relpath(place, root)
        for name in sorted(names):
            if not is_junk(name):
                yield name if start == b"." else os.path.join(start, name)


def of_pack(folder: Path, progress: Progress | None = None) -> list[Defect]:
    """What in a pack is not as its manifest says: every shard by its SHA-256, and in a damaged one every image by its own.

    progress(done, total) counts bytes and may raise to stop.
    """
    damages = read.verify(folder, progress)
    if not damages:
        return []
    details = tuple(f"{damage.path.name}: {damage.text}{_named(damage.keys)}" for damage in damages)
    text = f"{len(damages):,} shards are not as the pack's manifest says: {'; '.join(details[:3])}{'; …' * (len(details) > 3)}."
    return [Defect("damaged shard", "error", "", text, "Copy them again, or pack the set again.", details=details)]


def _named(keys: tuple[str, ...]) -> str:
    return f" ({', '.join(shown(key, quoted=False) for key in keys)})" if keys else ""


# ---------------------------------------------------------------- hashing


def _hashed(root: bytes, names: Iterator[bytes], workers: int) -> Iterator[tuple[bytes, bytes | OSError]]:
    """(name, SHA-256 of the file, or why it could not be read), in the order of the names."""

    def work(some: tuple[bytes, ...], note: Note) -> list[tuple[bytes, bytes | OSError]]:
        found: list[tuple[bytes, bytes | OSError]] = []
        for name in some:
            try:
                found.append((name, _sha256(os.path.join(root, name))))
            except OSError as error:
                found.append((name, error))
        return found

    jobs = iter(lambda: tuple(itertools.islice(names, _CHUNK)), ())
    with contextlib.closing(threads_in_order(work, jobs, workers, 4 * max(1, workers), _TIMEOUT_S)) as results:
        try:
            for found in results:
                yield from found
        except Stuck as error:
            raise ResourceError(f"{os.fsdecode(root)}: {error.reason} while files were hashed. Check the disk.") from error


def _sha256(path: bytes) -> bytes:
    """SHA-256 of a regular file. Never waits for a FIFO. Raises OSError."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0))
    with open(handle, "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(f"{os.fsdecode(path)}: no regular file")
        return hashlib.file_digest(file, "sha256").digest()


# ---------------------------------------------------------------- the format of sha256sum


def _line(name: bytes, sha256: bytes) -> bytes:
    """One line; a name with a line feed, a carriage return or a backslash is escaped, and the line then begins with one."""
    escaped = name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    return b"%b%b  %b\n" % (b"\\" if escaped != name else b"", sha256.hex().encode(), escaped)


def _read(path: Path) -> dict[bytes, bytes]:
    """SHA-256 by name. A name that leads out of the data is refused."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(f"{path}: the checksums cannot be read ({error.strerror}).") from error
    found: dict[bytes, bytes] = {}
    for row, line in enumerate(lines, start=1):
        if not line:
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise CheckpointError(f"{path}, row {row}: expected 64 hex digits, two blanks and a name, found {shown(line[:80])}.")
        name = match[3]
        if match[1]:
            name = re.sub(rb"\\.", lambda escape: _ESCAPES.get(escape[0], escape[0]), name)
        normal = os.path.normpath(name)
        if os.path.isabs(normal) or normal.split(b"/")[0] == b".." or b"\0" in name:
            raise CheckpointError(f"{path}, row {row}: {shown(name)} leads out of the data.")
        found[normal] = bytes.fromhex(match[2].decode())
    if not found:
        raise CheckpointError(f"{path}: there are no checksums in it.")
    return found

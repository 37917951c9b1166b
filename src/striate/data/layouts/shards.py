"""Files that hold many images each (tar, parquet): which there are in a folder, and which split each belongs to."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from striate.classes import listed
from striate.data.layouts.folder import SPLIT_FOLDERS
from striate.data.layouts.splits import SplitName
from striate.data.layouts.walk import extension, is_junk, shown, unreadable

_SPLIT_OF: dict[bytes, SplitName] = {word: split for split, words in SPLIT_FOLDERS.items() for word in words}
_FOLDERS = frozenset({b"data", *_SPLIT_OF})


@dataclass(frozen=True)
class Shard:
    """One file: its path relative to the set's root, its size and time of change."""

    name: bytes
    size_bytes: int
    mtime_ns: int


def find(path: Path, kind: bytes) -> tuple[Path, list[Shard]]:
    """The root of a set, and its files with the extension `kind`, sorted by name; none where there are none.

    path: a folder, where the files lie in itself, in data/, or in folders called as splits are; or one such file.
    """
    if not path.is_dir():
        root, names = path.parent, [os.fsencode(path.name)] if extension(os.fsencode(path.name)) == kind else []
    else:
        root, names = path, sorted(_below(os.fsencode(path), b"", kind, deeper=2))
    shards = []
    for name in names:
        try:
            found = os.stat(os.path.join(os.fsencode(root), name))
        except OSError as error:
            raise unreadable(error, root / os.fsdecode(name)) from error
        if stat.S_ISREG(found.st_mode):
            shards.append(Shard(name, found.st_size, found.st_mtime_ns))
    return root, shards


def _below(folder: bytes, prefix: bytes, kind: bytes, deeper: int) -> list[bytes]:
    names = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_junk(entry.name):
                continue
            if extension(entry.name) == kind:
                names.append(prefix + entry.name)
            elif deeper and entry.name.lower() in _FOLDERS and entry.is_dir():
                names += _below(entry.path, prefix + entry.name + b"/", kind, deeper - 1)
    return names


def split_of(name: bytes) -> SplitName | None:
    """The split that a path speaks of: the last such word of the file's name, else of its folders; None without one."""
    for part in reversed(name.lower().split(b"/")):
        for word in reversed(re.findall(rb"[a-z]+", part)):
            if word in _SPLIT_OF:
                return _SPLIT_OF[word]
    return None


def by_split(shards: Sequence[Shard]) -> tuple[dict[SplitName, list[Shard]], tuple[str, ...]]:
    """The files of each split, and notes. Files whose path names no split are training, unless others say that they are."""
    found: dict[SplitName, list[Shard]] = {}
    unnamed = []
    for shard in shards:
        split = split_of(shard.name)
        if split is None:
            unnamed.append(shard)
        else:
            found.setdefault(split, []).append(shard)
    if unnamed and "train" in found:
        few = listed([shown(shard.name, quoted=False) for shard in unnamed], 3)
        return found, (f"ignored {len(unnamed):,} files whose names tell no split, beside others that do: {few}",)
    if unnamed:
        found["train"] = unnamed
    return found, ()

"""WebDataset: tar files whose members are images, with their labels beside them (x.jpg and x.cls) or in their folders' names.

Members whose paths agree up to the first dot of the last part belong together. An image's label is the text of its .cls member,
else "label" or "cls" of its .json member; where no image of the set has either, the name of the folder that it lies in.
Headers are read once, in one pass; after that an image is one read at its place, and nothing is ever extracted.

The standard library reads headers at 54 microseconds of one core a member (Xeon, Sapphire Rapids; Python 3.11): 11 s for
100,000 images with a label each. So what a file of many members holds is kept in the cache folder, by its path, size and time.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
import zipfile
import zlib
from array import array
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from striate import files
from striate.classes import Classes
from striate.data import decode
from striate.data.index import UNLABELLED, Index, Keys
from striate.data.layouts.labels import Written, settle
from striate.data.layouts.shards import Shard, by_split, find
from striate.data.layouts.splits import Found, SplitName
from striate.data.layouts.walk import IMAGE_TYPES, OTHER_IMAGE_TYPES, Tally, extension, is_junk, shown, unreadable
from striate.errors import DataError, ResourceError, UserError

NAME: Final = "WebDataset (tar)"
_FORMAT: Final = 1  # of the kept tables
_KEPT_FROM: Final = 1_000  # members of a file
_BLOCK: Final = 512
_AT_ONCE: Final = 4_096  # bytes: a header, what extends it, and often a label
_MOST_HEADER_BYTES: Final = 1 << 20  # that a header may bring along: nothing longer is a name
_MOST_LABEL_BYTES: Final = {b"cls": 1 << 10, b"json": 1 << 20}
_NO_FILES: Final = {
    tarfile.LNKTYPE: "a link",
    tarfile.SYMTYPE: "a link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a named pipe",
}


@dataclass(frozen=True, eq=False)
class Tars:
    """The store of such a set: in which file each image begins where, and its length. Opens the file at each read.

    paths: of the files; file_M: [M] int32, an index into them; starts_M, sizes_M: [M] int64, bytes.
    """

    paths: tuple[str, ...]
    file_M: np.ndarray
    starts_M: np.ndarray
    sizes_M: np.ndarray

    def read(self, place: int) -> bytes:
        """As `Store`."""
        return decode.read_part(self.paths[self.file_M[place]], int(self.starts_M[place]), int(self.sizes_M[place]))

    def where(self, place: int) -> str:
        """As `Store`."""
        return f"{self.paths[self.file_M[place]]}, from byte {int(self.starts_M[place]):,}"


def read(path: Path, wanted: Collection[SplitName]) -> Found:
    """The wanted splits, told by the names of the files or of their folders; without such names all is training.

    Raises DataError naming file and member for damage, for members that are no plain files or whose names lead elsewhere,
    and for labels that are missing, unreadable, or differ between the splits.
    """
    root, shards = find(path, b"tar")
    of_split, notes = by_split(shards)
    parts = {split: _Part.of(root, found) for split, found in of_split.items() if split in wanted}
    is_by_folder = not any(table.words for part in parts.values() for table in part.tables)
    written = {split: part.folders() if is_by_folder else part.labels() for split, part in parts.items()}
    for split, part in parts.items():
        if split != "test" and not written[split].words and any(b"ILSVRC2012_" in key for key in part.keys[:1].raws()):
            raise DataError(
                f"{path}: images of ILSVRC in one heap, whose labels lie elsewhere. Unpack them into val/ beside train/, with "
                "LOC_val_solution.csv (from Kaggle) in the folder of both, and name that folder."
            )
    classes, labels_of, said = settle(path, written, {split: part.keys for split, part in parts.items()})
    if is_by_folder and len(classes):
        said.insert(0, "labels are the names of the folders within the tar files")
    indexes = {split: part.index(root, split, labels_of[split], classes) for split, part in parts.items()}
    return Found(indexes, NAME, (*notes, *said, *(note for part in parts.values() for note in part.notes())))


def photos(path: Path) -> Index:
    """All images of the set, in the order of the files, without labels. Raises DataError like `read`."""
    root, shards = find(path, b"tar")
    part = _Part.of(root, shards)
    index = part.index(root, "test", np.full(len(part.keys), UNLABELLED, dtype=np.int32), Classes((), ()))
    return replace(index, notes=tuple(part.notes()))


# ---------------------------------------------------------------- one file


@dataclass(eq=False)
class _Table:
    """What a tar file holds. words, codes: the labels that stand beside its images, as `Written` has them."""

    names: Keys
    starts: np.ndarray
    sizes: np.ndarray
    words: list[str]
    codes: np.ndarray
    lonely_labels: int
    others: dict[str, int]  # members of other kinds, by extension
    junk: dict[str, int]

    def to_bytes(self) -> bytes:
        file, keys = io.BytesIO(), self.names
        about = {"words": self.words, "lonely_labels": self.lonely_labels, "others": self.others, "junk": self.junk}
        text = np.frombuffer(json.dumps(about).encode(), dtype=np.uint8)
        np.savez_compressed(
            file, blob=keys.blob, ends=keys.offsets, starts=self.starts, sizes=self.sizes, codes=self.codes, about=text
        )
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> _Table:
        with np.load(io.BytesIO(data), allow_pickle=False) as kept:
            about = json.loads(kept["about"].tobytes())
            return cls(Keys(kept["blob"], kept["ends"]), kept["starts"], kept["sizes"], codes=kept["codes"], **about)


def _table(path: Path, shard: Shard) -> _Table:
    """What the file holds, from the cache folder where it was read before."""
    told = f"{_FORMAT}\0{os.path.abspath(path)}\0{shard.size_bytes}\0{shard.mtime_ns}"
    kept = files.cache_folder() / "tars" / f"{files.sha256_bytes(os.fsencode(told))[:32]}.npz"
    try:
        return _Table.from_bytes(kept.read_bytes())
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error):
        pass  # not kept, or damaged: it can be made again
    table, members = _scan(path, shard.size_bytes)
    if members >= _KEPT_FROM:
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            files.write_whole(kept, table.to_bytes())
        except (OSError, ResourceError, UserError):
            pass  # a full or read-only cache costs the next command time and nothing else
    return table


def _scan(path: Path, size_bytes: int) -> tuple[_Table, int]:
    """Reads all headers of a file: what it holds, and its number of members."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise unreadable(error, path) from error
    try:
        return _Scan(path, _Headers(path, handle, size_bytes)).run()
    except OSError as error:
        raise unreadable(error, path) from error
    finally:
        os.close(handle)


class _Headers:
    """The file as `tarfile` sees it: reads headers by `os.pread`, and refuses one that would fill the memory."""

    def __init__(self, path: Path, handle: int, size_bytes: int) -> None:
        self.path, self.handle, self.size_bytes = path, handle, size_bytes
        self._at = self._first = 0
        self._window = b""

    def tell(self) -> int:
        return self._at

    def seek(self, to: int) -> int:
        self._at = to
        return to

    def read(self, count: int) -> bytes:
        part = self.at(self._at, count)
        self._at += len(part)
        return part

    def at(self, start: int, count: int) -> bytes:
        """Bytes from `start`; fewer where the file ends."""
        if not 0 <= count <= _MOST_HEADER_BYTES or start < 0:
            raise DataError(f"{self.path}: damaged: a header near byte {self._at:,} says that it is {count:,} bytes long.")
        first = start - self._first
        if first < 0 or first + count > len(self._window):
            self._window = os.pread(self.handle, max(count, _AT_ONCE), start)
            self._first, first = start, 0
        return self._window[first : first + count]


@dataclass(eq=False)
class _Scan:
    """One pass over the headers of a file."""

    path: Path
    headers: _Headers
    names: list[bytes] = field(default_factory=list)  # of images, as they are found
    starts: array[int] = field(default_factory=lambda: array("q"))
    sizes: array[int] = field(default_factory=lambda: array("q"))
    labels: dict[bytes, str] = field(default_factory=dict)  # of .cls members, by the part before the first dot
    tables: dict[bytes, tuple[bytes, int, int]] = field(default_factory=dict)  # of .json members: name, place, size
    others: Counter[str] = field(default_factory=Counter)
    junk: Counter[str] = field(default_factory=Counter)

    def run(self) -> tuple[_Table, int]:
        members = 0
        for member in self._members():
            members += 1
            self._take(member)
        if len(set(self.names)) != len(self.names):
            twice = next(name for name, count in Counter(self.names).items() if count > 1)
            raise DataError(f"{self.path}: two members are called {shown(twice)}. Make the file again, with each image once.")
        stems = [_stem(name) for name in self.names]
        for stem in dict.fromkeys(stems):
            if stem not in self.labels and stem in self.tables:
                label = self._label_of_json(*self.tables[stem])
                if label:
                    self.labels[stem] = label
        code_of: dict[str, int] = {}
        codes = [
            code_of.setdefault(word, len(code_of)) if (word := self.labels.get(stem)) is not None else UNLABELLED
            for stem in stems
        ]
        table = _Table(
            names=Keys.of(self.names),
            starts=np.asarray(self.starts, dtype=np.int64),
            sizes=np.asarray(self.sizes, dtype=np.int64),
            words=list(code_of),
            codes=np.asarray(codes, dtype=np.int32),
            lonely_labels=len((self.labels.keys() | self.tables.keys()) - set(stems)),
            others=dict(self.others),
            junk=dict(self.junk),
        )
        return table, members

    def _members(self) -> Iterator[tarfile.TarInfo]:
        """Every member, or a DataError: `tarfile` itself takes damage after the first header for the end."""
        before = -1
        try:
            # tarfile asks of a file only what `headers` has: read, seek and tell.
            with tarfile.TarFile(fileobj=self.headers, mode="r", encoding="utf-8", errors="surrogateescape") as tar:  # type: ignore[arg-type]
                while (member := tar.next()) is not None:
                    tar.members.clear()  # type: ignore[attr-defined]  # it keeps all that it has seen
                    end = member.offset_data + member.size
                    if member.size < 0 or member.offset_data <= before:
                        raise DataError(f"{self.path}: damaged: the header of {shown(member.name)} leads backwards.")
                    if end > self.headers.size_bytes:
                        raise self._cut(f"within {shown(member.name)}")
                    before = member.offset_data
                    yield member
                self._expect_end(tar.offset)
        except (DataError, OSError):
            raise
        except Exception as error:  # on hostile headers it raises whatever comes up; each means the same here
            raise DataError(f"{self.path}: no readable tar file ({_words(error)}). {_MAKE_AGAIN}") from error

    def _expect_end(self, at: int) -> None:
        """An archive ends with blocks of zeros, and only zeros follow."""
        end = self.headers.at(at, _BLOCK)
        if len(end) < _BLOCK:
            raise self._cut("without the mark of its end")
        if end.strip(b"\0"):
            raise DataError(f"{self.path}: damaged: no header at byte {at:,}. {_MAKE_AGAIN}")
        if self.headers.at(at, _MOST_HEADER_BYTES).strip(b"\0"):
            raise DataError(
                f"{self.path}: more follows the mark of its end at byte {at:,}, as in files joined with cat. Keep them apart."
            )

    def _cut(self, where: str) -> DataError:
        return DataError(f"{self.path}: cut off: it ends at byte {self.headers.size_bytes:,}, {where}. {_MAKE_AGAIN}")

    def _take(self, member: tarfile.TarInfo) -> None:
        name = _checked(self.path, member)
        if member.isdir():
            return
        if any(is_junk(part) for part in name.split(b"/")):
            self.junk[os.fsdecode(name.rpartition(b"/")[2])] += 1
            return
        kind = extension(name)
        if kind in IMAGE_TYPES:
            self.names.append(name)
            self.starts.append(member.offset_data)
            self.sizes.append(member.size)
        elif kind == b"cls":
            self._take_label(name, member)
        elif kind == b"json":
            self.tables[_stem(name)] = (name, member.offset_data, member.size)
        elif kind == b"tar":
            raise DataError(
                f"{self.path}: it holds tar files ({shown(name)}), as ILSVRC2012_img_train.tar does. Unpack it, then each inner "
                "file into a folder that is called as the file, and name the folder of these folders."
            )
        else:
            self.others[os.fsdecode(kind)] += 1

    def _take_label(self, name: bytes, member: tarfile.TarInfo) -> None:
        text = self._text(name, member.offset_data, member.size).strip()
        if self.labels.setdefault(_stem(name), text) != text:
            raise DataError(
                f"{self.path}: {shown(name)} says {text!r}, another .cls of the same image {self.labels[_stem(name)]!r}."
            )

    def _label_of_json(self, name: bytes, start: int, size_bytes: int) -> str:
        """The label that a .json member states; empty where it states none."""
        try:
            value = json.loads(self._text(name, start, size_bytes))
        except (ValueError, RecursionError) as error:
            raise DataError(f"{self.path}: {shown(name)} is not valid JSON ({error}).") from error
        label: Any = None
        if isinstance(value, dict):
            label = value["label"] if value.get("label") is not None else value.get("cls")
        if label is None:
            return ""
        if isinstance(label, bool) or not isinstance(label, (str, int)):
            raise DataError(f"{self.path}: {shown(name)}: the label must be text or an integer, found {json.dumps(label)[:60]}.")
        return str(label).strip()

    def _text(self, name: bytes, start: int, size_bytes: int) -> str:
        most = _MOST_LABEL_BYTES[extension(name)]
        if size_bytes > most:
            raise DataError(f"{self.path}: {shown(name)} has {size_bytes:,} bytes; a label takes at most {most:,}.")
        try:
            return self.headers.at(start, size_bytes).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(f"{self.path}: {shown(name)} is no text ({error.reason}).") from error


_MAKE_AGAIN: Final = "Copy or make it again."


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _stem(name: bytes) -> bytes:
    """What members that belong together share: the path up to the first dot of its last part."""
    folder, slash, last = name.rpartition(b"/")
    return folder + slash + last.partition(b".")[0]


def _checked(path: Path, member: tarfile.TarInfo) -> bytes:
    """The member's name in its one spelling. Raises DataError for one that leads elsewhere, and for what is no file or folder."""
    name = member.name.encode("utf-8", "surrogateescape")
    parts = [part for part in name.split(b"/") if part not in {b"", b"."}]
    refused = "Nothing is extracted here, but such a file is not to be trusted: make it again from plain files."
    if name.startswith(b"/") or b".." in parts:
        raise DataError(f"{path}: the member {shown(name)} leads out of the archive. {refused}")
    if member.type in _NO_FILES:
        raise DataError(f"{path}: the member {shown(name)} is {_NO_FILES[member.type]}, no file. {refused}")
    is_plain = member.type in {tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE} and not member.issparse()
    if not (is_plain or member.isdir()) or not (parts or member.isdir()):
        raise DataError(f"{path}: the member {shown(name)} is no plain file (type {member.type!r}). {refused}")
    return b"/".join(parts)


# ---------------------------------------------------------------- a split


@dataclass(frozen=True, eq=False)
class _Part:
    """Files that are read together. keys: FILE.tar/MEMBER of their images."""

    shards: list[Shard]
    tables: list[_Table]
    keys: Keys

    @classmethod
    def of(cls, root: Path, shards: list[Shard]) -> _Part:
        tables = [_table(root / os.fsdecode(shard.name), shard) for shard in shards]
        both = zip(shards, tables, strict=True)
        return cls(shards, tables, Keys.of(shard.name + b"/" + name for shard, table in both for name in table.names.raws()))

    def labels(self) -> Written:
        """The labels that stand beside the images."""
        return Written.joined([Written(table.words, table.codes) for table in self.tables])

    def folders(self) -> Written:
        """The names of the folders that the images lie in."""
        code_of: dict[str, int] = {}
        codes = array("i")
        for name in (name for table in self.tables for name in table.names.raws()):
            folder = name.rpartition(b"/")[0].rpartition(b"/")[2]
            codes.append(code_of.setdefault(os.fsdecode(folder), len(code_of)) if folder else UNLABELLED)
        return Written(list(code_of), np.asarray(codes, dtype=np.int32))

    def index(self, root: Path, split: SplitName, labels: np.ndarray, classes: Classes) -> Index:
        counts = [len(table.starts) for table in self.tables]
        none = np.empty(0, dtype=np.int64)
        store = Tars(
            tuple(str(root / os.fsdecode(shard.name)) for shard in self.shards),
            np.repeat(np.arange(len(counts), dtype=np.int32), counts),
            np.concatenate([none, *(table.starts for table in self.tables)]),
            np.concatenate([none, *(table.sizes for table in self.tables)]),
        )
        return Index(
            root=root,
            split=split,
            layout=NAME,
            keys=self.keys,
            labels=labels,
            classes=classes,
            boxes=None,
            sizes_bytes=store.sizes_M,
            mtimes_ns=np.repeat(np.asarray([shard.mtime_ns for shard in self.shards], dtype=np.int64), counts),
            store=store,
            places=np.arange(len(self.keys), dtype=np.int64),
        )

    def notes(self) -> Iterator[str]:
        """What was left out."""
        tally, lonely = Tally(), 0
        for table in self.tables:
            lonely += table.lonely_labels
            tally.junk.update({os.fsencode(name): count for name, count in table.junk.items()})
            for name, count in table.others.items():
                kind = os.fsencode(name)
                (tally.other_images if kind in OTHER_IMAGE_TYPES else tally.other_files)[kind] += count
        if lonely:
            yield f"{lonely:,} labels (.cls, .json) belong to no image"
        yield from tally.notes()

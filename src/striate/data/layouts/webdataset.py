"""WebDataset: tar files whose members are images, with their labels beside them (x.jpg and x.cls) or in their folders' names.

Members whose paths agree up to the first dot of the last part belong together. An image's label is the text of its .cls member,
else "label" or "cls" of its .json member; where no image of the set has either, the name of the folder that it lies in.
Headers are read once, in one pass; after that an image is one read at its place, and nothing is ever extracted.

The standard library reads headers at 54 microseconds of one core a member (Xeon, Sapphire Rapids; Python 3.11): 11 s for
100,000 images with a label each. So what a file of many members holds is kept in the cache folder, by path, size and time of change.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import zipfile
import zlib
from array import array
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
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


def is_webdataset(path: Path) -> bool:
    """Whether a folder holds tar files (itself, or in data/, train/, val/, test/), or the path is one."""
    return bool(find(path, b"tar")[1])


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

"""CIFAR-10 and CIFAR-100 in their binary version: raw pixels of 32 by 32, behind one label byte or two.

The set has training and test images. The test images serve as the validation split, for the published accuracies are measured on
them. Source: Krizhevsky 2009 (Learning multiple layers of features from tiny images), and the set's home page for the format.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from striate.classes import Classes
from striate.data import decode
from striate.data.decode import Pixels
from striate.data.index import Index, Keys
from striate.data.layouts.labels import Written, settle
from striate.data.layouts.splits import Found, SplitName
from striate.data.layouts.walk import unreadable
from striate.errors import DataError

SIDE_PX: Final = 32
_IMAGE_BYTES: Final = 3 * SIDE_PX * SIDE_PX
_FOLDERS: Final = ("cifar-10-batches-bin", "cifar-100-binary")
_PICKLED: Final = {"cifar-10-batches-py": "cifar-10-binary.tar.gz", "cifar-100-python": "cifar-100-binary.tar.gz"}
_AT_ONCE: Final = 1_000  # records read at a time for their labels
NOTE: Final = "the test images serve as the validation split, as in published accuracies; choose nothing by them that you publish"


@dataclass(frozen=True)
class Place:
    """Where the files lie. header_bytes: the labels before each image (the last one counts); names: the file of class names."""

    root: Path
    layout: str
    header_bytes: int
    names: str
    classes: int
    files: dict[SplitName, tuple[str, ...]]


@dataclass(frozen=True)
class Records:
    """The store of such files: place n is record n, counted over all files. counts: records of each file."""

    paths: tuple[str, ...]
    counts: tuple[int, ...]
    header_bytes: int

    def read(self, place: int) -> Pixels:
        """As `Store`: uint8 [32, 32, 3], of the red, the green and the blue plane that follow each other in the file."""
        path, record = self._record(place)
        size = self.header_bytes + _IMAGE_BYTES
        data = decode.read_part(path, record * size + self.header_bytes, _IMAGE_BYTES)
        return np.ascontiguousarray(np.frombuffer(data, dtype=np.uint8).reshape(3, SIDE_PX, SIDE_PX).transpose(1, 2, 0))

    def where(self, place: int) -> str:
        """As `Store`."""
        path, record = self._record(place)
        return f"{path}, image {record:,}"

    def _record(self, place: int) -> tuple[str, int]:
        for path, count in zip(self.paths, self.counts, strict=True):
            if place < count:
                return path, place
            place -= count
        raise IndexError(f"no image {place} behind the last file")


def find(path: Path) -> Place | None:
    """The files of a folder, or of its cifar-10-batches-bin or cifar-100-binary; None where there are none.

    Raises DataError for the version for Python, whose pickles are never read, as they may hold code.
    """
    for root in (path, *(path / name for name in _FOLDERS)):
        names = set(os.listdir(root)) if root.is_dir() else set[str]()
        batches = tuple(sorted(name for name in names if re.fullmatch(r"data_batch_\d+\.bin", name)))
        if batches or "test_batch.bin" in names:
            files: dict[SplitName, tuple[str, ...]] = {"train": batches, "val": ("test_batch.bin",)}
            return Place(root, "CIFAR-10 (binary)", 1, "batches.meta.txt", 10, _there(files, names))
        if "train.bin" in names and names & {"test.bin", "fine_label_names.txt"}:
            files = {"train": ("train.bin",), "val": ("test.bin",)}
            return Place(root, "CIFAR-100 (binary)", 2, "fine_label_names.txt", 100, _there(files, names))
    for folder, archive in _PICKLED.items():
        for root in (path, path / folder):
            known = {"batches.meta", "data_batch_1"} if "10-" in folder else {"meta", "train", "test"}
            if root.is_dir() and known <= set(os.listdir(root)) and not any((root / name).is_dir() for name in known):
                raise DataError(
                    f"{root}: the version of CIFAR for Python, which are pickles; these can run code and are never read. "
                    f"Take the binary version: {archive} from https://www.cs.toronto.edu/~kriz/cifar.html"
                )
    return None


def _there(files: dict[SplitName, tuple[str, ...]], names: set[str]) -> dict[SplitName, tuple[str, ...]]:
    found = {split: tuple(name for name in wanted if name in names) for split, wanted in files.items()}
    return {split: wanted for split, wanted in found.items() if wanted}


def read(place: Place, wanted: Collection[SplitName]) -> Found:
    """The wanted splits. Classes are called as the file of names says, else by their numbers.

    Raises DataError for a file whose length is no multiple of a record's, and for a label out of range.
    """
    names = _names(place)
    chosen = {split: files for split, files in place.files.items() if split in wanted}
    labels_of = {split: [_labels(place, name) for name in files] for split, files in chosen.items()}
    keys = {
        split: Keys.of(
            f"{name}/{row}" for name, labels in zip(files, labels_of[split], strict=True) for row in range(len(labels))
        )
        for split, files in chosen.items()
    }
    written = {split: Written(names, np.concatenate(labels).astype(np.int32)) for split, labels in labels_of.items()}
    classes, placed, notes = settle(place.root, written, keys)
    if "val" in chosen:
        notes.append(NOTE)
    if place.header_bytes == 1 and 0 < len(place.files.get("train", ())) < 5:
        notes.append(f"only {len(place.files['train'])} of the 5 files of training images are there")
    indexes = {
        split: _index(place, split, files, [len(labels) for labels in labels_of[split]], keys[split], placed[split], classes)
        for split, files in chosen.items()
    }
    return Found(indexes, place.layout, tuple(notes))


def _names(place: Place) -> list[str]:
    """The classes' names by number; their numbers where there is no file of names."""
    path = place.root / place.names
    if not path.is_file():
        return [str(number) for number in range(place.classes)]
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise unreadable(error, path) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected the names of {place.classes} classes, found no text ({error.reason}).") from error
    if len(set(names)) != place.classes or len(names) != place.classes:
        raise DataError(
            f"{path}: expected the names of {place.classes} classes, found {len(names)} ({len(set(names))} distinct)."
        )
    return names


def _labels(place: Place, name: str) -> np.ndarray:
    """The labels of one file, [n] uint8; its pixels are read over."""
    path, size = place.root / name, place.header_bytes + _IMAGE_BYTES
    parts = []
    try:
        with open(path, "rb") as file:
            length = os.fstat(file.fileno()).st_size
            if length == 0 or length % size:
                raise DataError(
                    f"{path}: expected a multiple of {size:,} bytes ({place.header_bytes} of labels, {_IMAGE_BYTES:,} of pixels "
                    f"for each image), found {length:,}. Copy or unpack it again."
                )
            while data := file.read(_AT_ONCE * size):
                parts.append(
                    np.frombuffer(data[: len(data) // size * size], np.uint8).reshape(-1, size)[:, place.header_bytes - 1]
                )
    except OSError as error:
        raise unreadable(error, path) from error
    labels = np.concatenate([part.copy() for part in parts])
    if int(labels.max()) >= place.classes:
        row = int(np.flatnonzero(labels >= place.classes)[0])
        raise DataError(
            f"{path}, image {row:,}: label {int(labels[row])}, but classes count from 0 to {place.classes - 1}. Copy it again."
        )
    return labels


def _index(
    place: Place, split: SplitName, names: tuple[str, ...], counts: list[int], keys: Keys, labels: np.ndarray, classes: Classes
) -> Index:
    paths = tuple(str(place.root / name) for name in names)
    return Index(
        root=place.root,
        split=split,
        layout=place.layout,
        keys=keys,
        labels=labels,
        classes=classes,
        boxes=None,
        sizes_bytes=np.full(len(keys), _IMAGE_BYTES, dtype=np.int64),
        mtimes_ns=np.repeat(np.asarray([os.stat(path).st_mtime_ns for path in paths], dtype=np.int64), counts),
        store=Records(paths, tuple(counts), place.header_bytes),
        places=np.arange(len(keys), dtype=np.int64),
    )

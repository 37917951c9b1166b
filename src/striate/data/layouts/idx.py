"""MNIST and the sets in its format (Fashion-MNIST, KMNIST): idx files of grey images and of labels, plain or gzipped.

The set has training and test images (t10k). The test images serve as the validation split, for the published accuracies are
measured on them. Source: LeCun, Cortes, Burges, The MNIST database, section on file formats.
"""

from __future__ import annotations

import functools
import gzip
import math
import os
import struct
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from striate.classes import Classes
from striate.data import decode
from striate.data.decode import BadImage, Pixels
from striate.data.index import Index, Keys
from striate.data.layouts.cifar import NOTE
from striate.data.layouts.labels import Written, settle
from striate.data.layouts.splits import Found, SplitName
from striate.data.layouts.walk import unreadable
from striate.errors import DataError

NAME: Final = "MNIST (idx)"
_FOLDERS: Final = ("", "raw", "MNIST/raw", "FashionMNIST/raw", "KMNIST/raw")
_PREFIXES: Final[dict[SplitName, str]] = {"train": "train", "val": "t10k"}
_IMAGES, _LABELS = "images", "labels"
_DIMENSIONS: Final = {_IMAGES: 3, _LABELS: 1}
_MOST_UNPACKED_BYTES: Final = 1_000_000_000  # kept in memory; MNIST has 47 MB
_AT_ONCE: Final = 1 << 20


@dataclass(frozen=True)
class Place:
    """Where the files lie: of each split those of images and of labels."""

    root: Path
    files: dict[SplitName, tuple[Path, Path]]


@dataclass(frozen=True)
class Planes:
    """The store of one file of images: place n is image n. sides: height and width."""

    path: str
    sides: tuple[int, int]
    start: int
    mtime_ns: int

    def read(self, place: int) -> Pixels:
        """As `Store`: uint8 [H, W, 3], three equal channels."""
        size = math.prod(self.sides)
        start = self.start + place * size
        if self.path.endswith(".gz"):
            try:
                data = _unpacked(self.path, self.mtime_ns)[start : start + size]
            except DataError as error:
                raise BadImage(str(error), lasting=False) from error
        else:
            data = decode.read_part(self.path, start, size)
        return np.repeat(np.frombuffer(data, dtype=np.uint8).reshape(*self.sides, 1), 3, axis=2)

    def where(self, place: int) -> str:
        """As `Store`."""
        return f"{self.path}, image {place:,}"


def find(path: Path) -> Place | None:
    """The files in a folder, in its raw/ or in MNIST/raw/ as torchvision leaves them; None where no images are.

    Raises DataError where the labels of images are missing.
    """
    for folder in _FOLDERS:
        root = path / folder
        files: dict[SplitName, tuple[Path, Path]] = {}
        for split, prefix in _PREFIXES.items():
            images, labels = (_file(root, prefix, kind) for kind in (_IMAGES, _LABELS))
            if images is not None and labels is None:
                raise DataError(
                    f"{images}: its labels are missing; expected {prefix}-labels-idx1-ubyte beside it, or that name with .gz."
                )
            if images is not None and labels is not None:
                files[split] = (images, labels)
        if files:
            return Place(root, files)
    return None


def _file(root: Path, prefix: str, kind: str) -> Path | None:
    names = (f"{prefix}-{kind}{dot}idx{_DIMENSIONS[kind]}-ubyte{end}" for end in ("", ".gz") for dot in ("-", "."))
    return next((root / name for name in names if (root / name).is_file()), None)


def read(place: Place, wanted: Collection[SplitName]) -> Found:
    """The wanted splits; classes are called by their numbers.

    Raises DataError for a wrong magic number, a length that is not that of the header, and counts that differ.
    """
    chosen = {split: files for split, files in place.files.items() if split in wanted}
    shapes, labels_of = dict[SplitName, tuple[int, ...]](), dict[SplitName, np.ndarray]()
    for split, (images, labels) in chosen.items():
        shapes[split] = _shape(images, _IMAGES)
        count = _shape(labels, _LABELS)[0]
        if count != shapes[split][0]:
            raise DataError(f"{images}: {shapes[split][0]:,} images, but {count:,} labels in {labels.name}. Copy both again.")
        labels_of[split] = _labels(labels, count)
    keys = {split: Keys.of(f"{_PREFIXES[split]}-images/{row}" for row in range(shape[0])) for split, shape in shapes.items()}
    numbers = [str(number) for number in range(256)]
    written = {split: Written(numbers, labels.astype(np.int32)) for split, labels in labels_of.items()}
    classes, placed, notes = settle(place.root, written, keys)
    if "val" in chosen:
        notes.append(NOTE)
    indexes = {
        split: _index(place.root, split, images, shapes[split], keys[split], placed[split], classes)
        for split, (images, _) in chosen.items()
    }
    return Found(indexes, NAME, tuple(notes))


def _index(
    root: Path, split: SplitName, images: Path, shape: tuple[int, ...], keys: Keys, labels: np.ndarray, classes: Classes
) -> Index:
    count, height, width = shape
    mtime_ns = os.stat(images).st_mtime_ns
    return Index(
        root=root,
        split=split,
        layout=NAME,
        keys=keys,
        labels=labels,
        classes=classes,
        boxes=None,
        sizes_bytes=np.full(count, height * width, dtype=np.int64),
        mtimes_ns=np.full(count, mtime_ns, dtype=np.int64),
        store=Planes(str(images), (height, width), _header_bytes(_IMAGES), mtime_ns),
        places=np.arange(count, dtype=np.int64),
    )


# ---------------------------------------------------------------- one file


def _header_bytes(kind: str) -> int:
    return 4 + 4 * _DIMENSIONS[kind]


def _shape(path: Path, kind: str) -> tuple[int, ...]:
    """The shape that the header states, checked against the length of the file."""
    header, length = _header_and_length(path, kind)
    return _checked(path, kind, header, length)


def _header_and_length(path: Path, kind: str) -> tuple[bytes, int]:
    try:
        if path.suffix == ".gz":
            data = _unpacked(str(path), os.stat(path).st_mtime_ns)
            return data[: _header_bytes(kind)], len(data)
        with open(path, "rb") as file:
            return file.read(_header_bytes(kind)), os.fstat(file.fileno()).st_size
    except OSError as error:
        raise unreadable(error, path) from error


def _checked(path: Path, kind: str, header: bytes, length: int | None) -> tuple[int, ...]:
    """The shape in a header. length: of the whole, None where it is not known yet. Raises DataError."""
    dimensions = _DIMENSIONS[kind]
    magic = bytes((0, 0, 8, dimensions))  # 8 stands for unsigned bytes
    if len(header) < _header_bytes(kind) or header[:4] != magic:
        raise DataError(
            f"{path}: expected an idx file of {kind}, which begins with the bytes {magic.hex(' ')}; found "
            f"{header[:4].hex(' ') or 'nothing'}. Copy it again."
        )
    shape = struct.unpack_from(f">{dimensions}I", header, 4)
    expected = _header_bytes(kind) + math.prod(shape)
    if 0 in shape or math.prod(shape[1:]) > decode.MAX_PIXELS:
        raise DataError(f"{path}: its header says {' x '.join(map(str, shape))}, which is no set of {kind}. Copy it again.")
    if length is not None and length != expected:
        raise DataError(
            f"{path}: expected {expected:,} bytes for the {' x '.join(map(str, shape))} of its header, found {length:,}. "
            "Copy or unpack it again."
        )
    return shape


def _labels(path: Path, count: int) -> np.ndarray:
    """[n] uint8, of a file whose header was checked."""
    start = _header_bytes(_LABELS)
    if path.suffix == ".gz":
        data = _unpacked(str(path), os.stat(path).st_mtime_ns)[start:]
    else:
        try:
            data = path.read_bytes()[start:]
        except OSError as error:
            raise unreadable(error, path) from error
    if len(data) != count:
        raise DataError(f"{path}: changed while it was being read. Is something still writing to it?")
    return np.frombuffer(data, dtype=np.uint8)


@functools.lru_cache(maxsize=4)
def _unpacked(path: str, mtime_ns: int) -> bytes:
    """The content of a gzipped idx file, kept in memory: no image in it can be reached otherwise. mtime_ns: tells a changed file.

    No more is unpacked than the header promises. Raises DataError, also for a header that promises too much.
    """
    kind = _IMAGES if f"-{_IMAGES}" in os.path.basename(path) else _LABELS
    parts = []
    try:
        with gzip.open(path, "rb") as file:
            header = file.read(_header_bytes(kind))
            expected = _header_bytes(kind) + math.prod(_checked(Path(path), kind, header, None))
            if expected > _MOST_UNPACKED_BYTES:
                raise DataError(
                    f"{path}: its header says {expected / 1e9:,.1f} GB; at most {_MOST_UNPACKED_BYTES / 1e9:.0f} GB are unpacked "
                    "into memory. If that is true, unpack it with gunzip."
                )
            parts, total = [header], len(header)
            while part := file.read(min(_AT_ONCE, expected + 1 - total)):
                parts.append(part)
                total += len(part)
                if total > expected:
                    raise DataError(f"{path}: it holds more than the {expected:,} bytes that its header says. Copy it again.")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: damaged ({error}). Copy it again.") from error
    except OSError as error:
        raise unreadable(error, path) from error
    return b"".join(parts)

"""A list file: CSV with a header, or JSONL, with path, label, and optionally a box and a split in each row.

`path,label[,x_min,y_min,x_max,y_max][,split]`. Paths are relative to the list's folder and stay within it.
Several rows of one path are several boxes. Every label is checked, with its row, before anything else happens:
on a GPU a label out of range would be a device assert an hour later.
"""

from __future__ import annotations

import csv
import json
import math
import os
import posixpath
import re
import stat
from array import array
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from striate.classes import Classes, listed, ordered
from striate.data.index import UNLABELLED, Boxes, Gathering, Index
from striate.data.layouts.splits import Found, SplitName, expect_classes, expect_same, order_note
from striate.data.layouts.walk import shown, unreadable
from striate.errors import DataError, nearest

EXTENSIONS = {".csv": "CSV list", ".jsonl": "JSONL list"}
BOX = ("x_min", "y_min", "x_max", "y_max")
COLUMNS = ("path", "label", *BOX, "split")
SPLITS: dict[str, SplitName] = {
    "": "train", "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"
}  # fmt: skip
_INTEGER = re.compile(r"[0-9]{1,18}")  # with more digits a number counts no classes
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?(nan|inf(inity)?)", re.IGNORECASE)


@dataclass
class _Images:
    """The distinct images of a list, in the order of their first rows."""

    places: dict[bytes, int] = field(default_factory=dict)  # key → number
    first_rows: array[int] = field(default_factory=lambda: array("q"))
    labels: list[str] = field(default_factory=list)  # interned
    splits: list[SplitName] = field(default_factory=list)
    box_images: array[int] = field(default_factory=lambda: array("q"))
    box_values: array[float] = field(default_factory=lambda: array("f"))
    has_split: bool = False


def read(path: Path, wanted: Collection[SplitName], is_part: bool = False) -> Found:
    """The wanted splits of a list; without a split column everything is "train".

    is_part: the list may hold some classes of a larger set (scored alone), so gaps between integer labels are fine.
    Raises DataError naming the row when a label, box, split or path is wrong, or a file is not there.
    """
    layout, notes = EXTENSIONS[path.suffix.lower()], list[str]()
    images = _images(path, notes)
    if not images.labels:
        raise DataError(f"{path}: the list has no rows. Expected rows of {','.join(COLUMNS[:2])}[,{','.join(BOX)}][,split].")
    train_ids, kind = _label_ids(path, images, is_part)
    classes = Classes(train_ids, train_ids)
    if not is_part:
        expect_classes(classes, str(path))
    if kind == "text":
        notes += [note.replace("class folders", "classes") for note in order_note(classes)]
    splits = np.asarray(images.splits)
    if not is_part:
        held = sorted({images.labels[int(n)] for n in np.flatnonzero(splits == "val")})
        if held:
            expect_same(classes, tuple(held), f"{path}, rows of split val")
    whole = _stat_all(path, images, classes, layout)
    indexes = {split: whole.select(splits == split, split) for split in _present(images) if split in wanted}
    return Found(indexes, layout, tuple(notes))


def _present(images: _Images) -> list[SplitName]:
    names: tuple[SplitName, ...] = ("train", "val", "test")
    found = set(images.splits)
    return [split for split in names if split in found]


def read_boxes(path: Path) -> dict[bytes, list[list[float]]]:
    """The boxes of a CSV file that lies beside class folders (path,x_min,y_min,x_max,y_max), by key.

    Raises DataError naming the row when a box or path is wrong.
    """
    found: dict[bytes, list[list[float]]] = {}
    for row, fields in _rows(path, [], needed=("path", *BOX)):
        box = box_of(path, row, fields)
        if box:
            found.setdefault(key_of(path, row, fields["path"]), []).append(box)
    return found


def row_of_box(path: Path, key: bytes, xyxy_4: NDArray[np.float32]) -> int | None:
    """The row of a list, or of a boxes.csv, that has this box for this image; None where none has it (any more)."""
    try:
        for row, fields in _rows(path, [], needed=("path", *BOX)):
            box = box_of(path, row, fields)
            if box and key_of(path, row, fields["path"]) == key and np.array_equal(np.array(box, np.float32), xyxy_4):
                return row
    except DataError:  # changed since it was read; a row is only asked for on the way to another error
        return None
    return None


def _images(path: Path, notes: list[str]) -> _Images:
    images, words = _Images(), dict[str, str]()
    for row, fields in _rows(path, notes):
        key = key_of(path, row, fields["path"])
        label = words.setdefault(fields["label"], fields["label"])
        split_word = fields.get("split", "").strip().lower()
        images.has_split |= bool(split_word)
        if split_word not in SPLITS:
            raise DataError(f"{path}, row {row}: unknown split {fields['split']!r}; expected train, val or test.")
        split = SPLITS[split_word]
        if not label and split != "test":
            raise DataError(f"{path}, row {row}: the label is missing. Every image needs one, save those of split test.")
        place = images.places.setdefault(key, len(images.labels))
        if place == len(images.labels):
            images.first_rows.append(row)
            images.labels.append(label)
            images.splits.append(split)
        elif images.labels[place] != label or images.splits[place] != split:
            raise DataError(
                f"{path}, row {row}: {shown(key)} has label {label!r} and split {split} here, but {images.labels[place]!r} "
                f"and {images.splits[place]} in row {images.first_rows[place]}. Several rows of one image are boxes of one class."
            )
        box = box_of(path, row, fields)
        if box:
            images.box_images.append(place)
            images.box_values.extend(box)
    return images


def _rows(path: Path, notes: list[str], needed: tuple[str, ...] = ("path", "label")) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows of the list with their number (of the line, from 1) and known columns, all as text."""
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            if path.suffix.lower() == ".jsonl":
                yield from _jsonl_rows(path, file)
            else:
                yield from _csv_rows(path, file, notes, needed)
    except OSError as error:
        raise unreadable(error, path) from error
    except csv.Error as error:
        raise DataError(f"{path}: not a readable CSV file ({error}).") from error


def _csv_rows(
    path: Path, lines: Iterator[str], notes: list[str], needed: tuple[str, ...]
) -> Iterator[tuple[int, dict[str, str]]]:
    reader = csv.reader(lines)
    header = [word.strip().lower() for word in next(reader, [])]
    for name in needed:
        if name not in header:
            hint = nearest(name, header) or " Is the header missing?"
            raise DataError(
                f"{path}, row 1: expected a header with columns {', '.join(needed)}, found {listed(header)}: no {name!r}.{hint}"
            )
    if len(set(header)) != len(header):
        raise DataError(f"{path}, row 1: a column is named twice in {listed(header)}.")
    unknown = [word for word in header if word not in COLUMNS]
    if unknown:
        notes.append(f"ignored columns of {path.name}: {listed(unknown)}")
    row = reader.line_num + 1
    for values in reader:
        if values:
            if len(values) != len(header):
                raise DataError(f"{path}, row {row}: expected {len(header)} values as in the header, found {len(values)}.")
            yield row, dict(zip(header, values, strict=True))
        row = reader.line_num + 1


def _jsonl_rows(path: Path, lines: Iterator[str]) -> Iterator[tuple[int, dict[str, str]]]:
    for row, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, row {row}: not valid JSON ({error}).") from error
        if not isinstance(value, dict) or not isinstance(value.get("path"), str):
            raise DataError(
                f'{path}, row {row}: expected an object with path and label, as {{"path": "a/1.jpg", "label": "cat"}}.'
            )
        label = value.get("label")
        if isinstance(label, bool) or not (label is None or isinstance(label, (str, int, float))):
            raise DataError(f"{path}, row {row}: the label must be text or an integer, found {json.dumps(label)[:60]}.")
        fields = {name: "" if value.get(name) is None else str(value[name]) for name in COLUMNS if name in value}
        yield row, {"label": "", **fields}


def key_of(path: Path, row: int, text: str) -> bytes:
    """The path of a row in its one spelling. Raises DataError when it leaves the folder of the list."""
    if not text.strip():
        raise DataError(f"{path}, row {row}: the path is missing.")
    if "\0" in text:
        raise DataError(f"{path}, row {row}: a path cannot hold a NUL character.")
    key = posixpath.normpath(text)
    if posixpath.isabs(key) or key == ".." or key.startswith("../") or os.path.splitdrive(text)[0]:
        raise DataError(
            f"{path}, row {row}: {shown(text)} leads out of {path.parent}. "
            "Paths in a list are relative to its folder and stay in it."
        )
    try:
        return os.fsencode(key)
    except UnicodeEncodeError as error:
        raise DataError(f"{path}, row {row}: the path cannot be a file name ({error.reason}).") from error


def box_of(path: Path, row: int, fields: dict[str, str]) -> list[float] | None:
    """The box of a row; None where it has none. Raises DataError when it is half there, infinite, inside out or without area."""
    words = [fields.get(name, "").strip() for name in BOX]
    if not any(words):
        return None
    try:
        box = [float(word) for word in words]
    except ValueError as error:
        raise DataError(f"{path}, row {row}: a box needs four numbers ({', '.join(BOX)}), found {words}.") from error
    if not all(map(math.isfinite, box)):
        raise DataError(
            f"{path}, row {row}: the box {words} is not four finite numbers. Write x_min, y_min, x_max, y_max in pixels, or "
            "leave the four empty where nobody drew a box."
        )
    if box[2] < box[0] or box[3] < box[1]:
        raise DataError(
            f"{path}, row {row}: the box {words} is inside out. Give the smaller edge first (swap x_min and x_max, or y_min and "
            "y_max); boxes are x_min, y_min, x_max, y_max, not x, y, width, height."
        )
    if box[2] == box[0] or box[3] == box[1]:
        raise DataError(
            f"{path}, row {row}: the box {words} has no area. Boxes are edges, so one of a single pixel has x_max = x_min + 1; "
            "mend the row, or leave the four empty."
        )
    return box


def _label_ids(path: Path, images: _Images, is_part: bool) -> tuple[tuple[str, ...], str]:
    """The classes of the training rows, and whether labels are "integer" or "text". Puts integers into one spelling.

    Raises DataError with the row of the first label that does not belong: a number among words, a negative or
    broken number, an integer beyond a gap, or a class that training does not have.
    """
    first_row: dict[str, int] = {}
    for number, label in enumerate(images.labels):
        if label:
            first_row.setdefault(label, images.first_rows[number])
    integers = {label for label in first_row if _INTEGER.fullmatch(label)}
    numbers = {label for label in first_row if _NUMBER.fullmatch(label)}

    def refuse(odd: Collection[str], why: str) -> DataError:
        row, label = min((first_row[label], label) for label in odd)
        return DataError(f"{path}, row {row}: label {label!r} {why}.")

    if numbers and len(numbers) < len(first_row):
        # The fewer are the odd ones: one "cat" among integers, or one 7 among words.
        words = first_row.keys() - numbers
        if len(words) <= len(numbers):
            raise refuse(words, "is a word where the other labels are numbers; use one kind")
        raise refuse(numbers, "is a number where the other labels are words; use one kind")
    if numbers and numbers != integers:
        raise refuse(numbers - integers, "is no class number; expected integers of zero or more, or names")
    if numbers:
        images.labels = [str(int(label)) if label else "" for label in images.labels]
        first_row = {str(int(label)): row for label, row in sorted(first_row.items(), key=lambda item: -item[1])}
    train_only = is_part or "train" not in images.splits
    source = [
        label for label, split in zip(images.labels, images.splits, strict=True) if label and (train_only or split == "train")
    ]
    kind = "integer" if numbers else "text"
    ids = ordered(set(source), "integer" if numbers else "text")
    if not train_only:
        unknown = first_row.keys() - set(ids)
        if unknown:
            raise refuse(unknown, f"does not occur in split train, which has {len(ids):,} classes")
    if numbers and not is_part:
        values = [int(label) for label in ids]
        low = values[0] if values[0] in (0, 1) else 0
        beyond = {label for place, label in enumerate(ids, start=low) if int(label) != place}
        if beyond:
            place = next(n for n, value in enumerate(values, start=low) if value != n)
            why = (
                f"is out of range: integer labels count from 0 or 1 without a gap, and no image has {place}. "
                f"To keep such numbers, write them as names, e.g. 'c{values[-1]}'"
            )
            raise refuse(beyond, why)
    return ids, kind


def _stat_all(path: Path, images: _Images, classes: Classes, layout: str) -> Index:
    """Sizes and times of all files of the list. Raises DataError listing those that are not there."""
    root, gathering = os.fsencode(path.parent), Gathering()
    absent: list[str] = []
    for number, key in enumerate(images.places):
        try:
            found = os.stat(os.path.join(root, key))
            if not stat.S_ISREG(found.st_mode):
                absent.append(f"row {images.first_rows[number]} {shown(key)} (no file)")
                continue
        except OSError as error:
            absent.append(f"row {images.first_rows[number]} {shown(key)} ({os.strerror(error.errno or 0)})")
            continue
        label = images.labels[number]
        gathering.add(key, classes.index[label] if label else UNLABELLED, found.st_size, found.st_mtime_ns)
    if absent:
        more = f" and {len(absent) - 5:,} more" if len(absent) > 5 else ""
        raise DataError(f"{path}: {len(absent):,} of {len(images.labels):,} files cannot be used: {'; '.join(absent[:5])}{more}.")
    boxes = None
    if images.box_images:
        xyxy_M4 = np.frombuffer(images.box_values, dtype=np.float32).reshape(-1, 4)
        boxes = Boxes.of_images(len(gathering), np.frombuffer(images.box_images, dtype=np.int64), xyxy_M4)
    return gathering.index(path.parent, "train", layout, classes, boxes=boxes)

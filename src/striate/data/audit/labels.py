"""Labels against files: everything that does not fit, and what can be read all the same.

A layout's reader stops at the first thing that makes labels doubtful, for training must not begin then. An audit goes on: it
keeps the reader's words, compares names with names itself, and looks at whatever images there are.
"""

from __future__ import annotations

import csv
import json
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from striate import geometry
from striate.classes import Classes, listed, ordered
from striate.data.audit.checks import Defect, Severity
from striate.data.index import UNLABELLED, Boxes, Gathering
from striate.data.layouts import detect, folder, ilsvrc, listing, tiny
from striate.data.layouts.splits import Found, SplitName
from striate.data.layouts.walk import Tally, below, identity, look, reading, shown
from striate.errors import DataError

_UNREAD: Final = "labels are not compared further"
_JOIN: Final = "Restore the files, or remove the rows of those that you took out."


def read(data: str | Path) -> tuple[Found, list[Defect]]:
    """The splits as they lie on disk, and everything that is wrong with labels, lists and class names.

    Where the layout's reader refuses the set, its words are the first defect, and the splits are what can be read without it:
    every image, with the label that its folder or row gives it, or none.
    Raises UserError for a path that is no data, DataError where there is not a single image.
    """
    defects: list[Defect] = []
    path = detect.place_of(data)
    try:
        found = detect.open_whole(data)
    except DataError as error:
        remedy = "Until this is mended the set can be neither trained nor scored on; the audit looks at what can be read."
        defects.append(Defect("refused", "error", "", str(error), remedy, details=(str(error),)))
        with reading(path):
            found = _salvaged(path, defects)
        if not sum(map(len, found.indexes.values())):
            raise
    with reading(path):
        if _is_list(path):
            defects += _unlisted(path, found)
        elif path.is_dir():
            defects += _box_rows(path, found)
            defects += _other_orders(path)
    return found, defects


def _is_list(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in listing.EXTENSIONS


def _salvaged(path: Path, defects: list[Defect]) -> Found:
    if _is_list(path):
        return _list(path, defects)
    return _folders(path, defects) if path.is_dir() else Found({}, "")


def _things(kind: str, severity: Severity, split: str, things: Sequence[str], words: str, remedy: str) -> list[Defect]:
    """A defect about things that are no images of the index; nothing where there are none."""
    if not things:
        return []
    where = f" of {split}" if split else ""
    named = ", ".join(thing.rstrip(".") for thing in things[:3])
    text = f"{len(things):,} {words}{where}: {named}{', …' if len(things) > 3 else ''}."
    return [Defect(kind, severity, split, text, remedy, details=tuple(things))]


# ---------------------------------------------------------------- a list that its reader refuses


@dataclass
class _Rows:
    """The distinct images of a list, and what is wrong with its rows. labels, splits, first_rows: by number of the image."""

    numbers: dict[bytes, int] = field(default_factory=dict)  # key → number
    labels: list[str] = field(default_factory=list)
    splits: list[SplitName] = field(default_factory=list)
    first_rows: list[int] = field(default_factory=list)
    box_images: list[int] = field(default_factory=list)
    boxes: list[list[float]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    wrong_boxes: list[str] = field(default_factory=list)


def _list(path: Path, defects: list[Defect]) -> Found:
    """A list read row by row: what is wrong with one row costs only that row."""
    rows = _rows(path)
    words = f"rows of {path.name} cannot be read, or contradict others"
    defects += _things("wrong row", "error", "", rows.wrong, words, "Mend or remove these rows.")
    defects += _things("inverted box", "error", "", rows.wrong_boxes, f"rows of {path.name} have a wrong box", "Mend these rows.")
    labels = {label for label in rows.labels if label}
    is_integer = all(label.isascii() and label.isdecimal() for label in labels)
    ids = ordered(labels, "integer" if is_integer else "text")
    classes = Classes(ids, ids)
    gathering, numbers, absent = Gathering(), list[int](), list[str]()
    for key, number in rows.numbers.items():
        try:
            about = os.stat(os.path.join(os.fsencode(path.parent), key))
        except OSError as error:
            absent.append(f"row {rows.first_rows[number]} {shown(key)} ({os.strerror(error.errno or 0)})")
            continue
        if not stat.S_ISREG(about.st_mode):
            absent.append(f"row {rows.first_rows[number]} {shown(key)} (no file)")
            continue
        label = rows.labels[number]
        place = classes.index[str(int(label)) if is_integer else label] if label else UNLABELLED
        gathering.add(key, place, about.st_size, about.st_mtime_ns)
        numbers.append(number)
    defects += _things("missing file", "error", "", absent, f"images of {path.name} are not there", _JOIN)
    row_of = {number: row for row, number in enumerate(numbers)}
    pairs = [(row_of[number], box) for number, box in zip(rows.box_images, rows.boxes, strict=True) if number in row_of]
    whole = gathering.index(
        path.parent, "train", listing.EXTENSIONS[path.suffix.lower()], classes, boxes=_gathered(len(numbers), pairs)
    )
    splits = np.asarray([rows.splits[number] for number in numbers], dtype="U5")
    names: tuple[SplitName, ...] = ("train", "val", "test")
    indexes = {split: whole.select(splits == split, split) for split in names if (splits == split).any()}
    return Found(indexes, whole.layout)


def _gathered(count: int, pairs: Sequence[tuple[int, list[float]]]) -> Boxes | None:
    if not pairs:
        return None
    rows_M = np.asarray([row for row, _ in pairs], dtype=np.int64)
    return Boxes.of_images(count, rows_M, np.asarray([box for _, box in pairs], dtype=np.float32))


def _rows(path: Path) -> _Rows:
    rows = _Rows()
    for number, fields in _fields(path, rows.wrong):
        split = listing.SPLITS.get(fields.get("split", "").strip().lower())
        label = fields.get("label", "")
        try:
            key = listing.key_of(path, number, fields.get("path", ""))
        except DataError as error:
            rows.wrong.append(_without(path, error))
            continue
        if split is None or (not label and split != "test"):
            rows.wrong.append(f"row {number}: {'no label' if split else 'unknown split ' + repr(fields['split'])}")
            continue
        image = rows.numbers.setdefault(key, len(rows.labels))
        if image == len(rows.labels):
            rows.labels.append(label)
            rows.splits.append(split)
            rows.first_rows.append(number)
        elif (rows.labels[image], rows.splits[image]) != (label, split):
            rows.wrong.append(
                f"row {number}: {shown(key)} is {label!r} in {split} here, {rows.labels[image]!r} in {rows.splits[image]} "
                f"in row {rows.first_rows[image]}"
            )
            continue
        try:
            box = listing.box_of(path, number, fields)
        except DataError as error:
            rows.wrong_boxes.append(_without(path, error))
            continue
        if box is not None:
            rows.box_images.append(image)
            rows.boxes.append(box)
    return rows


def _without(path: Path, error: DataError) -> str:
    """The words of an error without the file's name, which the defect says once for all."""
    return str(error).removeprefix(f"{path}, ")


def _fields(path: Path, wrong: list[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a list with their numbers, as text; those that are broken are said in `wrong`."""
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        if path.suffix.lower() == ".jsonl":
            for number, line in enumerate(file, start=1):
                try:
                    value = json.loads(line) if line.strip() else {}
                    fields = {name: str(word) for name, word in value.items() if word is not None}
                except (ValueError, RecursionError, AttributeError) as error:
                    wrong.append(f"row {number}: no JSON object ({error})")
                    continue
                if fields:
                    yield number, fields
            return
        reader = csv.reader(file)
        header: list[str] = []
        number = 1
        while True:
            try:
                values = next(reader, None)
            except csv.Error as error:
                wrong.append(f"row {number}: {error}")
                return
            if values is None:
                return
            if not header:
                header = [word.strip().lower() for word in values]
            elif values and len(values) != len(header):
                wrong.append(f"row {number}: {len(values)} values where the header has {len(header)}")
            elif values:
                yield number, dict(zip(header, values, strict=True))
            number = reader.line_num + 1


def _unlisted(path: Path, found: Found) -> list[Defect]:
    """Images that lie in the folders of a list's images, and that no row names."""
    keys = {key for index in found.indexes.values() for key in index.keys.raws()}
    root = os.fsencode(path.parent)
    loose = any(b"/" not in key for key in keys)
    unlisted = [name for name, _, _ in look(root, Tally()).images if name not in keys] if loose else []
    for first in sorted({key.split(b"/", 1)[0] for key in keys if b"/" in key}):
        unlisted += [key for key, _, _ in below(root + b"/" + first, first + b"/", Tally()) if key not in keys]
    words = f"images lie beside those of {path.name} and have no row"
    remedy = "Add rows for them, or accept that they are not used."
    return _things("file without label", "warning", "", [shown(key, quoted=False) for key in unlisted], words, remedy)


# ---------------------------------------------------------------- folders that their reader refuses


@dataclass
class _Split:
    """What lies in a split's folder: images by class id, "" where there is none."""

    images: list[tuple[str, tuple[bytes, int, int]]]
    class_folders: set[str]


def _folders(path: Path, defects: list[Defect]) -> Found:
    """Every image below a folder, with the label that its class folder or a table beside it gives."""
    place = ilsvrc.find(path)
    root = path if place is None else place.images
    tally = Tally()
    top = look(root, tally, ancestors=(identity(root),))
    claims = {split: [name for name in top.folders if name.lower() in words] for split, words in folder.SPLIT_FOLDERS.items()}
    found: dict[SplitName, _Split] = {}
    for split, names in claims.items():
        if names:
            found[split] = _split(root, names[0] + b"/", _labels(path, place, split, defects), split, tally, defects)
    if not found:
        found["train"] = _split(root, b"", {}, "train", tally, defects)
    ids = ordered(
        (label for part in found.values() for label in (*part.class_folders, *(label for label, _ in part.images)) if label),
        "text",
    )
    classes = Classes(ids, ids)
    table = root / folder.BOXES
    boxes_of: dict[bytes, list[list[float]]] = {}
    if table.is_file():
        boxes_of = _boxes_csv(table, defects)
        tally.take_back(os.fsencode(folder.BOXES))
    indexes = {}
    for split, part in found.items():
        gathering, pairs = Gathering(), list[tuple[int, list[float]]]()
        for label, (key, size, mtime) in part.images:
            pairs += [(len(gathering), box) for box in boxes_of.get(key, ())]
            gathering.add(key, classes.index[label] if label else UNLABELLED, size, mtime)
        if len(gathering):
            indexes[split] = gathering.index(root, split, folder.NAME, classes, boxes=_gathered(len(gathering), pairs))
        if part.class_folders and split != "test":
            defects += _class_set(split, part, ids)
    return Found(indexes, folder.NAME, tally.notes())


def _stem(key: bytes) -> bytes:
    """The file name without folders and extension."""
    return os.path.splitext(os.path.basename(key))[0]


def _class_set(split: str, part: _Split, ids: tuple[str, ...]) -> list[Defect]:
    """Classes that other splits have and this one has no folder for; empty folders are `checks`' affair."""
    missing = [name for name in ids if name not in part.class_folders]
    return _things(
        "missing class",
        "error",
        split,
        missing,
        "classes of other splits have no folder in that",
        "Make the class folders of all splits equal.",
    )


def _split(root: Path, prefix: bytes, labels: dict[bytes, str], split: SplitName, tally: Tally, defects: list[Defect]) -> _Split:
    """A split's images. labels: of a flat folder, by file name without its extension."""
    start = os.fsencode(root) + b"/" + prefix
    top = look(start, Tally(), ancestors=(identity(root), identity(start)))  # what it leaves out, `below` counts
    if (top.images and not top.folders) or top.folders == [b"images"]:
        images = below(start.rstrip(b"/"), prefix, tally)
        names = [_stem(key) for key, _, _ in images]
        if labels:
            unlabelled = [shown(key, quoted=False) for (key, _, _), name in zip(images, names, strict=True) if name not in labels]
            absent = [shown(name, quoted=False) for name in sorted(labels.keys() - set(names))]
            defects += _things(
                "file without label", "error", split, unlabelled, "images have no label", "Add their labels, or remove them."
            )
            defects += _things("label without file", "error", split, absent, "labels have no image", _JOIN)
        return _Split([(labels.get(name, ""), image) for name, image in zip(names, images, strict=True)], set())
    found = []
    for name in top.folders:
        where = prefix + name + b"/"
        found += [(os.fsdecode(name), image) for image in below(os.fsencode(root) + b"/" + where.rstrip(b"/"), where, tally)]
    return _Split(found, {os.fsdecode(name) for name in top.folders})


def _labels(path: Path, place: ilsvrc.Place | None, split: SplitName, defects: list[Defect]) -> dict[bytes, str]:
    """The labels of a flat validation folder by file name without extension, from the table that ships with the set."""
    if split != "val":
        return {}
    if place is not None and (place.tables / ilsvrc.VAL_TABLE).is_file():
        try:
            truth = ilsvrc.read_table(place.tables / ilsvrc.VAL_TABLE)
        except DataError as error:
            defects.append(
                Defect("wrong row", "error", split, f"{error} {_UNREAD.capitalize()}.", "Mend this row.", details=(str(error),))
            )
            return {}
        return dict(zip(truth.stems.raws(), truth.wnids, strict=True))
    found: dict[bytes, str] = {}
    wrong = []
    if (path / tiny.ANNOTATIONS).is_file():
        for number, fields in _tabbed(path / tiny.ANNOTATIONS):
            name = _stem(os.fsencode(fields[0]))
            if len(fields) < 2:
                wrong.append(f"row {number}: no label")
            elif found.setdefault(name, fields[1]) != fields[1]:
                wrong.append(f"row {number}: {shown(fields[0])} is {fields[1]} here, {found[name]} in an earlier row")
    defects += _things(
        "wrong row", "error", split, wrong, f"rows of {tiny.ANNOTATIONS} cannot be read, or contradict others", "Mend these rows."
    )
    return found


def _boxes_csv(table: Path, defects: list[Defect]) -> dict[bytes, list[list[float]]]:
    """The boxes beside class folders, by key; those that are wrong are said."""
    found: dict[bytes, list[list[float]]] = {}
    wrong: list[str] = []
    for number, fields in _fields(table, wrong):
        try:
            key, box = listing.key_of(table, number, fields.get("path", "")), listing.box_of(table, number, fields)
        except DataError as error:
            wrong.append(_without(table, error))
            continue
        if box is not None:
            found.setdefault(key, []).append(box)
    defects += _things(
        "inverted box", "error", "", wrong, f"rows of {table.name} have no usable box", "Mend or remove these rows."
    )
    return found


# ---------------------------------------------------------------- boxes that readers leave out, and traps in the order


def _tabbed(path: Path) -> Iterator[tuple[int, list[str]]]:
    with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, line.rstrip("\r\n").split("\t")


def _box_rows(path: Path, found: Found) -> list[Defect]:
    """Rows of box files that have no area or no image, which readers leave out."""
    place = ilsvrc.find(path)
    table = path / folder.BOXES
    flat: list[str] = []
    absent: list[str] = []
    if place is not None:
        for name in (ilsvrc.TRAIN_TABLE, ilsvrc.VAL_TABLE):
            if (place.tables / name).is_file():
                try:
                    truth = ilsvrc.read_table(place.tables / name)
                except DataError:
                    continue  # the reader has refused it, with the row
                rows = truth.rows_M[~geometry.is_valid(truth.xyxy_M4)]
                flat += [f"{name}: {shown(truth.stems.raw(row), quoted=False)}" for row in rows.tolist()]
    elif tiny.is_tiny(path):
        for table in (*sorted((path / "train").glob("*/*_boxes.txt")), path / tiny.ANNOTATIONS):
            if table.is_file():
                images = table.parent / "images"
                with os.scandir(images if images.is_dir() else table.parent) as entries:
                    names = {entry.name for entry in entries}
                edges = slice(2, 6) if table.name == Path(tiny.ANNOTATIONS).name else slice(1, 5)
                for number, fields in _tabbed(table):
                    if fields[0] not in names and edges.start == 1:
                        absent.append(f"{table.name} row {number}: {shown(fields[0], quoted=False)}")
                    if len(fields) >= edges.stop and not _has_area(fields[edges]):
                        flat.append(f"{table.name} row {number}: {shown(fields[0], quoted=False)} {' '.join(fields[edges])}")
    elif found.layout == folder.NAME and table.is_file():
        keys = {key for index in found.indexes.values() for key in index.keys.raws()}
        absent = [shown(key, quoted=False) for key in _boxes_csv(table, []) if key not in keys]
    return [
        *_things("inverted box", "error", "", flat, "boxes have no area and are left out", "Mend or remove these rows."),
        *_things("label without file", "warning", "", absent, "rows of box files name images that are not there", _JOIN),
    ]


def _has_area(words: Iterable[str]) -> bool:
    """Whether four words are a box in Tiny ImageNet's way: the last pixel counts in."""
    try:
        x_min, y_min, x_max, y_max = map(float, words)
    except ValueError:
        return False
    return x_max + 1 > x_min and y_max + 1 > y_min


_DEVKIT: Final = ("ILSVRC2012_validation_ground_truth.txt", "meta.mat", "*devkit*")


def _other_orders(path: Path) -> list[Defect]:
    """Files whose numbers look like class indices and follow another order than the sorted ids."""
    found = []
    devkit = sorted(
        {shown(file.name, quoted=False) for pattern in _DEVKIT for place in (path, path / "data") for file in place.glob(pattern)}
    )
    if devkit:
        text = f"{', '.join(devkit)}: the development kit numbers classes in another order than the sorted wnids; it is not read."
        remedy = "Never use its numbers (1 to 1000) as labels: translate them to wnids with its meta.mat first."
        found.append(Defect("class order", "warning", "", text, remedy, details=tuple(devkit)))
    wnids = path / "wnids.txt"
    if wnids.is_file():
        lines = [fields[0].strip() for _, fields in _tabbed(wnids)]
        twice = [name for name, count in Counter(lines).items() if count > 1]
        if lines != sorted(lines):
            text = "wnids.txt is not in sorted order: its line numbers are not the class indices of striate, torchvision or timm."
            found.append(
                Defect("class order", "note", "", text, "Match classes by wnid, never by line number.", details=("wnids.txt",))
            )
        if twice:
            text = f"wnids.txt names {len(twice):,} classes more than once: {listed(twice, 5)}."
            found.append(Defect("class order", "warning", "", text, "Remove the repeated lines.", details=tuple(twice)))
    return found

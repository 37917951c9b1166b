"""Tiny ImageNet as it is shipped: train/WNID/images, a flat val with val_annotations.txt, boxes in both."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

from striate import geometry
from striate.classes import Classes, listed, ordered
from striate.data.index import Boxes, Gathering, Index
from striate.data.layouts import folder
from striate.data.layouts.splits import Found, SplitName, expect_classes, expect_one_label_each, expect_same
from striate.data.layouts.walk import Tally, below, identity, look, shown, unreadable
from striate.errors import DataError

NAME = "Tiny ImageNet"
ANNOTATIONS = "val/val_annotations.txt"


def is_tiny(root: Path) -> bool:
    """Whether a folder looks like Tiny ImageNet: its class list beside train/, or its validation labels."""
    return ((root / "wnids.txt").is_file() and (root / "train").is_dir()) or (root / ANNOTATIONS).is_file()


def read(root: Path, wanted: Collection[SplitName]) -> Found:
    """The wanted splits. Boxes become edges in pixels (the files number pixels 0..63 and include the last).

    Raises DataError when wnids.txt and the folders disagree, or when a validation image has no label or a label no image.
    """
    tally, notes = Tally(), list[str]()
    classes = _classes(root, tally, notes)
    indexes: dict[SplitName, Index] = {}
    if "train" in wanted and (root / "train").is_dir():
        indexes["train"] = _train(root, classes, tally, notes)
    if "val" in wanted and (root / "val").is_dir():
        if (root / ANNOTATIONS).is_file():
            indexes["val"] = _val(root, classes, tally, notes)
        elif folder.is_flat(root / "val"):
            raise DataError(folder.flat_message(root / "val", "val"))
        else:  # sorted into class folders by one of the scripts that go around
            names = look(root / "val", Tally(), ancestors=(identity(root),)).folders
            expect_same(classes, tuple(map(os.fsdecode, names)), str(root / "val"))
            indexes["val"] = folder.read_classes(root, b"val", "val", NAME, classes, tally)
    if "test" in wanted and (root / "test").is_dir():
        indexes["test"] = folder.read_flat(root, b"test", "test", NAME, classes, tally)
    return Found(indexes, NAME, (*notes, *tally.notes()))


def _classes(root: Path, tally: Tally, notes: list[str]) -> Classes:
    """Classes from the training folders, whatever the order of wnids.txt; names from words.txt."""
    listed_ids = (
        {line.strip() for line in _lines(root / "wnids.txt") if line.strip()} if (root / "wnids.txt").is_file() else set[str]()
    )
    if (root / "train").is_dir():
        found = {os.fsdecode(name) for name in look(root / "train", tally, ancestors=(identity(root),)).folders}
    else:
        found = listed_ids or {fields[1] for _, fields in _rows(root / ANNOTATIONS, 2)}
    if listed_ids and listed_ids != found:
        raise DataError(
            f"{root}: wnids.txt and the folders of train/ name different classes. "
            f"Only in wnids.txt: {listed(sorted(listed_ids - found)) or 'none'}. "
            f"Only folders: {listed(sorted(found - listed_ids)) or 'none'}. Restore the missing ones, or remove them from both."
        )
    ids = ordered(found, "text")
    expect_classes(Classes(ids, ids), str(root))
    names = dict.fromkeys(ids, "")
    if (root / "words.txt").is_file():
        for line in _lines(root / "words.txt"):
            wnid, _, words = line.rstrip("\r\n").partition("\t")
            if wnid in names:
                names[wnid] = words.split(",")[0].strip()
    nameless = [wnid for wnid, name in names.items() if not name]
    if nameless:
        notes.append(f"{len(nameless):,} classes have no name in words.txt and are shown by their wnid")
    return Classes(ids, tuple(names[wnid] for wnid in ids))


def _train(root: Path, classes: Classes, tally: Tally, notes: list[str]) -> Index:
    gathering, rows, values, empty = Gathering(), list[int](), list[list[str]](), list[str]()
    without_file = 0
    for label, wnid in enumerate(classes.ids):
        place = root / "train" / wnid
        inside = b"images/" if (place / "images").is_dir() else b""
        prefix = b"train/" + os.fsencode(wnid) + b"/" + inside
        first = len(gathering)
        # Only the box file lies beside images/, so what is in the class folder itself needs no count.
        gathering.extend(below(os.fsencode(root) + b"/" + prefix.rstrip(b"/"), prefix, tally), label)
        if len(gathering) == first:
            empty.append(wnid)
        boxes_file = place / f"{wnid}_boxes.txt"
        if boxes_file.is_file():
            row_of = {key[len(prefix) :]: first + n for n, key in enumerate(gathering.keys_since(first))}
            for _, fields in _rows(boxes_file, 5):
                row = row_of.get(os.fsencode(fields[0]))
                if row is None:
                    without_file += 1
                else:
                    rows.append(row)
                    values.append(fields[1:5])
    if empty:
        raise DataError(
            f"{root / 'train'}: {len(empty):,} class folders have no images: {listed(empty)}. Unpack it again, or remove them."
        )
    if without_file:
        notes.append(f"train: {without_file:,} rows of box files name images that are not there")
    boxes = _boxes(len(gathering), rows, values, "train", notes)
    return gathering.index(root, "train", NAME, classes, boxes=boxes)


def _val(root: Path, classes: Classes, tally: Tally, notes: list[str]) -> Index:
    """Labels by file name; as many rows as files, or it is an error (joining by position would shift all labels)."""
    annotations = root / ANNOTATIONS
    fields_of: dict[bytes, list[list[str]]] = {}
    for number, fields in _rows(annotations, 2):
        rows = fields_of.setdefault(os.fsencode(fields[0]), [])
        rows.append(fields)
        if fields[1] != rows[0][1]:
            raise DataError(
                f"{annotations}, row {number}: {shown(fields[0])} is {fields[1]} here and {rows[0][1]} in an earlier row."
            )
        if fields[1] not in classes.index:
            raise DataError(
                f"{annotations}, row {number}: unknown class {fields[1]!r}; expected one of {len(classes):,} training folders."
            )
    place = b"val/images" if (root / "val" / "images").is_dir() else b"val"
    found = below(os.fsencode(root) + b"/" + place, place + b"/", tally)
    names = [key[len(place) + 1 :] for key, _, _ in found]
    expect_one_label_each(root / os.fsdecode(place), annotations.name, names, fields_of)
    gathering, boxes_rows, values = Gathering(), list[int](), list[list[str]]()
    for row, ((key, size, mtime), name) in enumerate(zip(found, names, strict=True)):
        gathering.add(key, classes.index[fields_of[name][0][1]], size, mtime)
        for fields in fields_of[name]:
            if len(fields) >= 6:
                boxes_rows.append(row)
                values.append(fields[2:6])
    expect_same(classes, tuple({rows[0][1] for rows in fields_of.values()}), str(annotations))
    return gathering.index(root, "val", NAME, classes, boxes=_boxes(len(gathering), boxes_rows, values, "val", notes))


def _boxes(count: int, rows: list[int], values: list[list[str]], split: str, notes: list[str]) -> Boxes | None:
    """Boxes as edges: the last pixel of the files' inclusive numbers counts in."""
    if not rows:
        return None
    try:
        xyxy_M4 = np.asarray(values, dtype=np.float32)
    except ValueError as error:
        raise DataError(f"Boxes of {split}: expected four numbers for each, found text ({error}).") from error
    xyxy_M4[:, 2:] += 1
    is_good_M = geometry.is_valid(xyxy_M4)
    if not is_good_M.all():
        notes.append(f"{split}: {int((~is_good_M).sum()):,} boxes without area are left out")
    return Boxes.of_images(count, np.asarray(rows, dtype=np.int64)[is_good_M], xyxy_M4[is_good_M])


def _lines(path: Path) -> Iterator[str]:
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
            yield from file
    except OSError as error:
        raise unreadable(error, path) from error


def _rows(path: Path, fields_at_least: int) -> Iterator[tuple[int, list[str]]]:
    """Rows of a tab-separated file with their numbers from 1; blank lines are passed over."""
    for number, line in enumerate(_lines(path), start=1):
        fields = line.rstrip("\r\n").split("\t")
        if len(fields) < fields_at_least:
            if line.strip():
                raise DataError(
                    f"{path}, row {number}: expected at least {fields_at_least} fields between tabs, found {len(fields)}."
                )
            continue
        yield number, fields

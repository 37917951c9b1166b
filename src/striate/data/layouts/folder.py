"""Class folders: DIR/class/*.jpg, or DIR/train/class/*.jpg with DIR/val and DIR/test beside it."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np

from striate.classes import Classes, listed, ordered
from striate.data.index import UNLABELLED, Boxes, Gathering, Index
from striate.data.layouts import listing
from striate.data.layouts.splits import Found, SplitName, expect_classes, expect_same, order_note
from striate.data.layouts.walk import Listing, Tally, below, identity, look, shown
from striate.errors import DataError

NAME = "class folder"
BOXES = "boxes.csv"
NO_CLASSES = Classes((), ())
SPLIT_FOLDERS: dict[SplitName, tuple[bytes, ...]] = {
    "train": (b"train", b"training"),
    "val": (b"val", b"valid", b"validation"),
    "test": (b"test", b"testing"),
}


def split_folders(names: Collection[bytes]) -> dict[SplitName, bytes]:
    """Which of a folder's subfolders is which split. Raises DataError when two claim to be the same one."""
    found: dict[SplitName, bytes] = {}
    for split, words in SPLIT_FOLDERS.items():
        claims = sorted(name for name in names if name.lower() in words)
        if len(claims) > 1:
            raise DataError(
                f"Both {shown(claims[0])} and {shown(claims[1])} look like the split {split!r}: rename or move one of them."
            )
        if claims:
            found[split] = claims[0]
    return found


def read(root: Path, wanted: Collection[SplitName]) -> Found:
    """The wanted splits of DIR/train, DIR/val and DIR/test; a test folder without class folders is unlabelled.

    Boxes come from DIR/boxes.csv where there is one.
    Raises DataError when classes are empty, too few, or differ between splits, or when val is a flat heap of images.
    """
    tally = Tally()
    top = look(root, tally, ancestors=())
    places = split_folders(top.folders)
    extra = [os.fsdecode(name) for name in top.folders if name not in places.values()]
    notes = [f"ignored folders beside the splits: {listed(extra, 5)}"] if extra else []
    notes += _loose(top, root)

    # All splits are matched to the classes of training, so its folder names are needed even where its images are not.
    classes = None
    if "train" in places:
        folder = root / os.fsdecode(places["train"])
        classes = _classes(_class_folders(root, folder, Tally()))
        expect_classes(classes, str(folder))
        notes += order_note(classes)
    indexes: dict[SplitName, Index] = {}
    for split, place in places.items():
        if split not in wanted:
            continue
        folder = root / os.fsdecode(place)
        listing_ = _class_folders(root, folder, tally)
        if _is_heap(listing_):
            if split != "test":
                raise DataError(flat_message(folder, split))
            indexes[split] = read_flat(root, place, split, NAME, classes or NO_CLASSES, tally)
            continue
        notes += _loose(listing_, folder)
        own = _classes(listing_)
        if classes is not None:
            expect_same(classes, own.ids, str(folder))
        indexes[split] = read_classes(root, place, split, NAME, classes or own, tally)
    indexes = _with_boxes(root, indexes, tally, notes)
    return Found(indexes, NAME, (*notes, *tally.notes()))


def read_whole(root: Path, split: SplitName) -> Found:
    """All of DIR/class/*.jpg as one split. Raises DataError when a class folder is empty."""
    tally = Tally()
    top = _class_folders(root, root, tally)
    classes = _classes(top)
    notes = [*order_note(classes), *_loose(top, root)]
    indexes = {split: read_classes(root, b"", split, NAME, classes, tally)}
    indexes = _with_boxes(root, indexes, tally, notes)
    return Found(indexes, NAME, (*notes, *tally.notes()))


def _class_folders(root: Path, folder: Path, tally: Tally) -> Listing:
    """What a split's folder holds; a link back to a folder above is no class."""
    return look(folder, tally, ancestors=(identity(root), identity(folder)))


def _classes(listing_: Listing) -> Classes:
    """Classes that are called as their folders are."""
    ids = ordered(map(os.fsdecode, listing_.folders), "text")
    return Classes(ids, ids)


def _loose(listing_: Listing, folder: Path) -> list[str]:
    """The note about images that lie beside the folders they belong into."""
    if not listing_.images:
        return []
    return [f"ignored {len(listing_.images):,} images that lie in {shown(folder)} itself and so belong to no class"]


def _is_heap(listing_: Listing) -> bool:
    """Whether a split's folder holds images without class folders, itself or in one folder called images."""
    return (bool(listing_.images) and not listing_.folders) or listing_.folders == [b"images"]


def _with_boxes(root: Path, indexes: dict[SplitName, Index], tally: Tally, notes: list[str]) -> dict[SplitName, Index]:
    """Adds the boxes of DIR/boxes.csv (path,x_min,y_min,x_max,y_max), where there is one."""
    table = root / BOXES
    if not table.is_file():
        return indexes
    tally.take_back(os.fsencode(BOXES))
    boxes_of, boxed = listing.read_boxes(table), dict(indexes)
    for split, index in indexes.items():
        images, values = list[int](), list[list[float]]()
        for image, key in enumerate(index.keys.raws()):
            for box in boxes_of.get(key, ()):
                images.append(image)
                values.append(box)
        if images:
            xyxy_M4 = np.asarray(values, dtype=np.float32)
            boxed[split] = replace(index, boxes=Boxes.of_images(len(index), np.asarray(images, dtype=np.int64), xyxy_M4))
    return boxed


def read_classes(root: Path, place: bytes, split: SplitName, layout: str, classes: Classes, tally: Tally) -> Index:
    """All images of a split's class folders, by class and then by path.

    place: the split's folder relative to root, or empty.
    Raises DataError listing the classes that have no images.
    """
    start, gathering, empty = os.fsencode(root), Gathering(), []
    for label, name in enumerate(classes.ids):
        where = b"/".join(part for part in (place, os.fsencode(name)) if part)
        found = below(os.path.join(start, where), where + b"/", tally)
        gathering.extend(found, label)
        if not found:
            empty.append(name)
    if empty:
        folder = root / os.fsdecode(place)
        unread = f" ({tally.other_images.total():,} images of types that are not read)" if tally.other_images else ""
        raise DataError(
            f"{folder}: {len(empty):,} class folders have no images{unread}: {listed(empty)}. Remove them, or fill them."
        )
    return gathering.index(root, split, layout, classes)


def read_flat(root: Path, place: bytes, split: SplitName, layout: str, classes: Classes, tally: Tally) -> Index:
    """Images without labels: everything below a folder, sorted by path."""
    gathering = Gathering()
    folder = os.path.join(os.fsencode(root), place) if place else os.fsencode(root)
    for key, size, mtime in below(folder, place + b"/" if place else b"", tally):
        gathering.add(key, UNLABELLED, size, mtime)
    return gathering.index(root, split, layout, classes)


def is_flat(folder: Path) -> bool:
    """Whether a split's folder holds images without class folders."""
    return _is_heap(_class_folders(folder, folder, Tally()))


def flat_message(folder: Path, split: str) -> str:
    """What to do about images that lie in one heap without labels."""
    return (
        f"{folder}: a flat folder of images without labels, where class folders are expected ({split}/class/*.jpg). "
        "With another order of labels accuracy would be that of chance, so none is guessed. Sort the images into one folder "
        "per class with the same names as in train/, or write a list file (path,label,split), or put the labels back where "
        "the set has them: val/val_annotations.txt (Tiny ImageNet), LOC_val_solution.csv beside ILSVRC/ (ImageNet from Kaggle)."
    )

"""ILSVRC 2012 as Kaggle ships it: ILSVRC/Data/CLS-LOC with train folders and flat val and test, CSV files above.

The training set is the files of the folders; rows of LOC_train_solution.csv only bring boxes, and cover fewer
than half of them. Labels of the flat val come from LOC_val_solution.csv, else from the XML files, by file name.
Numbers of the development kit are never used as labels: their order is not that of the wnids.
"""

from __future__ import annotations

import csv
import os
import re
import xml.etree.ElementTree as ElementTree
from array import array
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from striate import geometry
from striate.classes import Classes, listed, ordered
from striate.data.index import Boxes, Gathering, Index, Keys
from striate.data.layouts import folder
from striate.data.layouts.splits import Found, SplitName, expect_classes, expect_one_label_each, expect_same
from striate.data.layouts.walk import Found as File
from striate.data.layouts.walk import Tally, below, identity, look, unreadable
from striate.errors import DataError

NAME = "ILSVRC (Kaggle)"
# SHA-256 of the 1,000 sorted wnids, as `Classes.hash` makes it.
CLASSES_OF_2012 = "385e0240499426c022b773be1ae4da780f057b89c9694c7f47199f62746b6edd"
_WNID = re.compile(rb"n\d{8}")
_MOST_XML_BYTES = 1_000_000


@dataclass(frozen=True)
class Place:
    """Where the parts lie. images: CLS-LOC; tables: folder of the LOC_*.csv; about: ILSVRC (Annotations, ImageSets)."""

    images: Path
    tables: Path
    about: Path


def find(root: Path) -> Place | None:
    """The parts of ILSVRC when `root` holds ILSVRC/, is ILSVRC, or is CLS-LOC; else None.

    A folder with wnid folders in train/ and a flat val/ of ILSVRC2012_val_* counts as CLS-LOC under any name.
    """
    root = Path(os.path.abspath(root))
    if (root / "ILSVRC/Data/CLS-LOC").is_dir():
        about = root / "ILSVRC"
    elif (root / "Data/CLS-LOC").is_dir():
        about = root
    elif root.name == "CLS-LOC" and root.parent.name == "Data":
        about = root.parent.parent
    elif _is_unpacked(root):
        return Place(root, root, root)
    else:
        return None
    tables = about.parent
    if not any((tables / name).is_file() for name in TABLES) and any((about / name).is_file() for name in TABLES):
        tables = about
    return Place(about / "Data/CLS-LOC", tables, about)


TRAIN_TABLE, VAL_TABLE, NAMES_TABLE = TABLES = ("LOC_train_solution.csv", "LOC_val_solution.csv", "LOC_synset_mapping.txt")


def _is_unpacked(root: Path) -> bool:
    if not (root / "train").is_dir() or not (root / "val").is_dir():
        return False
    try:
        with os.scandir(root / "val") as entries:
            return any(entry.name.startswith("ILSVRC2012_val_") for entry in entries)
    except OSError as error:
        raise unreadable(error, root / "val") from error


def read(place: Place, wanted: Collection[SplitName]) -> Found:
    """The wanted splits, with boxes where the set states them.

    Keys are relative to CLS-LOC. Raises DataError when validation images and labels do not match one to one, or
    when the classes of the splits differ.
    """
    tally, notes = Tally(), list[str]()
    root = place.images
    classes = _classes(place, tally, notes)
    indexes: dict[SplitName, Index] = {}
    if "train" in wanted and (root / "train").is_dir():
        train = folder.read_classes(root, b"train", "train", NAME, classes, tally)
        _compare_with_list(place, train, notes)
        indexes["train"] = replace(train, boxes=_train_boxes(place, train, notes))
    if "val" in wanted and (root / "val").is_dir():
        val_folders = [name for name in look(root / "val", Tally(), ancestors=(identity(root),)).folders if _WNID.fullmatch(name)]
        if val_folders:  # sorted into class folders by one of the scripts that go around
            expect_same(classes, tuple(map(os.fsdecode, val_folders)), str(root / "val"))
            val = folder.read_classes(root, b"val", "val", NAME, classes, tally)
            truth = _val_truth(place, notes)
            indexes["val"] = val if truth is None else replace(val, boxes=truth.boxes_of(val.keys, "val", notes))
        else:
            indexes["val"] = _flat_val(place, classes, tally, notes)
    if "test" in wanted and (root / "test").is_dir():
        indexes["test"] = folder.read_flat(root, b"test", "test", NAME, classes, tally)
    return Found(indexes, NAME, (*notes, *tally.notes()))


# ---------------------------------------------------------------- classes


def _classes(place: Place, tally: Tally, notes: list[str]) -> Classes:
    """Classes are the training folders; names come from LOC_synset_mapping.txt (up to the first comma)."""
    names: dict[str, str] = {}
    mapping = place.tables / NAMES_TABLE
    if mapping.is_file():
        for number, line in enumerate(_lines(mapping), start=1):
            wnid, _, words = line.strip().partition(" ")
            if wnid and not _WNID.fullmatch(os.fsencode(wnid)):
                raise DataError(
                    f"{mapping}, row {number}: expected a wnid and words, as 'n01440764 tench', found {line.strip()[:60]!r}."
                )
            if wnid:
                names[wnid] = words.split(",")[0].strip()
    if (place.images / "train").is_dir():
        folders = look(place.images / "train", tally, ancestors=(identity(place.images),)).folders
        ids = ordered(map(os.fsdecode, folders), "text")
    elif names:
        ids = ordered(names, "text")
    else:
        raise DataError(
            f"{place.images}: neither train/ nor {NAMES_TABLE} is there, so the classes are unknown. Restore one of them."
        )
    classes = Classes(ids, tuple(names.get(wnid, "") for wnid in ids))
    expect_classes(classes, str(place.images / "train"))
    if len(classes) == 1000 and classes.hash != CLASSES_OF_2012:
        notes.append(
            "there are 1,000 classes, but not the 1,000 of ILSVRC 2012: weights trained elsewhere do not fit by position"
        )
    without_folder = sorted(set(names) - set(ids))
    if without_folder:
        notes.append(
            f"{NAMES_TABLE} names {len(without_folder):,} classes that have no training folder: {listed(without_folder, 3)}"
        )
    nameless = [wnid for wnid in ids if wnid not in names]
    if nameless:
        notes.append(f"{len(nameless):,} classes have no name ({NAMES_TABLE}) and are shown by their wnid")
    return classes


# ---------------------------------------------------------------- what the tables and XML files state


@dataclass
class Truth:
    """Rows of a solution table, or XML files: for each image its wnid and boxes. Compact: no object per row."""

    source: str
    stems: Keys
    wnids: list[str]  # interned: one object for each class
    rows_M: np.ndarray  # [M] which of the stems a box belongs to
    xyxy_M4: np.ndarray
    defects: Counter[str] = field(default_factory=Counter)

    def boxes_of(self, keys: Keys, split: str, notes: list[str]) -> Boxes:
        """The boxes of the given images, by file name; what matches nothing is counted in the notes."""
        # One class (folder) at a time, so that no dict of a million names is ever made. A val folder is one or many.
        place_of_stem = np.full(len(self.stems), -1, dtype=np.int64)
        stems_of: dict[bytes, list[int]] = {}
        is_flat = len(keys) > 0 and keys.raw(0).count(b"/") == 1
        for row in range(len(self.stems)):
            stems_of.setdefault(b"" if is_flat else os.fsencode(self.wnids[row]), []).append(row)
        group: dict[bytes, int] = {}
        group_name: bytes | None = None

        def settle() -> None:
            for row in () if group_name is None else stems_of.get(group_name, ()):
                place_of_stem[row] = group.get(self.stems.raw(row), -1)

        for image, key in enumerate(keys.raws()):
            name = b"" if is_flat else key.split(b"/", 2)[1]
            if name != group_name:
                settle()
                group, group_name = {}, name
            group[_stem(key)] = image
        settle()
        unmatched = int((place_of_stem < 0).sum())
        if unmatched:
            notes.append(
                f"{split}: {unmatched:,} rows of {self.source} name images that are not there (in the folder of their class)"
            )
        is_good_M = geometry.is_valid(self.xyxy_M4)
        if not is_good_M.all():
            notes.append(f"{split}: {int((~is_good_M).sum()):,} boxes of {self.source} have no area and are left out")
        image_M = place_of_stem[self.rows_M]
        is_good_M &= image_M >= 0
        notes.extend(f"{split}: {count:,} {defect} in {self.source}" for defect, count in self.defects.items())
        return Boxes.of_images(len(keys), image_M[is_good_M], self.xyxy_M4[is_good_M])


def _stem(key: bytes) -> bytes:
    """The file name without folders and extension: the ImageId of the tables."""
    name = key[key.rfind(b"/") + 1 :]
    return name[: name.rfind(b".")]


def read_table(path: Path) -> Truth:
    """A LOC_*_solution.csv: ImageId,PredictionString with five words per box: wnid x_min y_min x_max y_max.

    Byte-order mark, CRLF, blanks and repeated rows are met in practice: repeated ImageIds are taken once and counted.
    Raises DataError with the row's number when a row is not of this form, or names two classes.
    """
    blob, offsets, wnids = bytearray(), array("q", [0]), list[str]()
    rows, values = array("q"), array("f")
    seen: set[str] = set()
    names: dict[str, str] = {}
    defects: Counter[str] = Counter()
    reader = csv.reader(_lines(path))
    header = [word.strip() for word in next(reader, [])]
    if header != ["ImageId", "PredictionString"]:
        raise DataError(f"{path}, row 1: expected the header 'ImageId,PredictionString', found {','.join(header)!r}.")
    for fields in reader:
        number = reader.line_num
        if not any(word.strip() for word in fields):
            continue
        image_id = fields[0].strip()
        words = fields[1].split() if len(fields) == 2 else []
        if not image_id or not words or len(words) % 5:
            raise DataError(
                f"{path}, row {number}: expected an ImageId and groups of 'wnid x_min y_min x_max y_max', "
                f"found {','.join(fields)[:80]!r}."
            )
        if len(set(words[::5])) > 1:
            raise DataError(
                f"{path}, row {number}: boxes of one image must be of one class, found {listed(sorted(set(words[::5])))}."
            )
        if image_id in seen:
            defects["repeated rows (the first counts)"] += 1
            continue
        seen.add(image_id)
        try:
            for start in range(0, len(words), 5):
                values.extend([float(word) for word in words[start + 1 : start + 5]])
                rows.append(len(wnids))
        except ValueError as error:
            raise DataError(f"{path}, row {number}: a box must be four numbers ({error}).") from error
        blob += os.fsencode(image_id)
        offsets.append(len(blob))
        wnids.append(names.setdefault(words[0], words[0]))
    return _truth(path.name, blob, offsets, wnids, rows, values, defects)


def read_xml(source: str, files: Iterator[Path]) -> Truth:
    """VOC annotations, one file for each image. Files that are broken, or name two classes, are counted and left out."""
    blob, offsets, wnids = bytearray(), array("q", [0]), list[str]()
    rows, values = array("q"), array("f")
    names: dict[str, str] = {}
    defects: Counter[str] = Counter()
    for path in files:
        try:
            wnid, boxes = _annotation(path)
        except (ElementTree.ParseError, ValueError, TypeError):
            defects["unreadable XML files"] += 1
            continue
        for box in boxes:
            values.extend(box)
            rows.append(len(wnids))
        blob += os.fsencode(path.stem)
        offsets.append(len(blob))
        wnids.append(names.setdefault(wnid, wnid))
    return _truth(source, blob, offsets, wnids, rows, values, defects)


def _truth(
    source: str,
    blob: bytearray,
    offsets: array[int],
    wnids: list[str],
    rows: array[int],
    values: array[float],
    defects: Counter[str],
) -> Truth:
    stems = Keys(np.frombuffer(blob, dtype=np.uint8), np.frombuffer(offsets, dtype=np.int64))
    xyxy_M4 = np.frombuffer(values, dtype=np.float32).reshape(-1, 4)
    return Truth(source, stems, wnids, np.frombuffer(rows, dtype=np.int64), xyxy_M4, defects)


def _annotation(path: Path) -> tuple[str, list[list[float]]]:
    """(wnid, boxes) of one VOC file. Raises ValueError when it is not of that form."""
    try:
        with open(path, "rb") as file:
            text = file.read(_MOST_XML_BYTES + 1)
    except OSError as error:
        raise unreadable(error, path) from error
    if len(text) > _MOST_XML_BYTES or b"<!" in text:
        raise ValueError("too long, or with a document type: entities could expand without end")
    objects = ElementTree.fromstring(text).findall("object")
    wnids = {thing.findtext("name", "").strip() for thing in objects}
    if len(wnids) != 1:
        raise ValueError(f"expected objects of one class, found {len(wnids)}")
    corners = ("xmin", "ymin", "xmax", "ymax")
    return wnids.pop(), [[float(thing.findtext(f"bndbox/{corner}", "")) for corner in corners] for thing in objects]


def _xml_files(place: Place, split: str, wnids: tuple[str, ...] | None) -> Iterator[Path]:
    """The annotation files of a split, sorted; by class folder where `wnids` are given."""
    for folder_ in (place.about / "Annotations/CLS-LOC" / split / wnid for wnid in wnids or ("",)):
        if folder_.is_dir():
            with os.scandir(folder_) as entries:
                names = sorted(entry.name for entry in entries if entry.name.endswith(".xml") and not entry.name.startswith("."))
            yield from (folder_ / name for name in names)


# ---------------------------------------------------------------- training and validation


def _train_boxes(place: Place, train: Index, notes: list[str]) -> Boxes | None:
    table = place.tables / TRAIN_TABLE
    if table.is_file():
        truth = read_table(table)
    elif (place.about / "Annotations/CLS-LOC/train").is_dir():
        notes.append(f"{TRAIN_TABLE} is missing: boxes of train are read from the XML files")
        truth = read_xml("Annotations/CLS-LOC/train", _xml_files(place, "train", train.classes.ids))
    else:
        notes.append(f"train has no boxes: neither {TRAIN_TABLE} nor Annotations/ is there")
        return None
    return truth.boxes_of(train.keys, "train", notes)


def _val_truth(place: Place, notes: list[str]) -> Truth | None:
    table = place.tables / VAL_TABLE
    if table.is_file():
        return read_table(table)
    if (place.about / "Annotations/CLS-LOC/val").is_dir():
        notes.append(f"{VAL_TABLE} is missing: labels and boxes of val are read from the XML files")
        return read_xml("Annotations/CLS-LOC/val", _xml_files(place, "val", None))
    return None


def _flat_val(place: Place, classes: Classes, tally: Tally, notes: list[str]) -> Index:
    """Labels by file name, one for each image; a count that differs is an error, not a shift."""
    where = place.images / "val"
    found: list[File] = below(os.fsencode(where), b"val/", tally)
    stems = [_stem(key) for key, _, _ in found]
    truth = _val_truth(place, notes)
    if truth is None:
        raise DataError(folder.flat_message(where, "val"))
    wnid_of = dict(zip(truth.stems.raws(), truth.wnids, strict=True))
    expect_one_label_each(where, truth.source, stems, wnid_of)
    expect_same(classes, tuple(set(truth.wnids)), f"{where} (labels in {truth.source})")
    gathering = Gathering()
    for (key, size, mtime), stem in zip(found, stems, strict=True):
        gathering.add(key, classes.index[wnid_of[stem]], size, mtime)
    index = gathering.index(place.images, "val", NAME, classes)
    return replace(index, boxes=truth.boxes_of(index.keys, "val", notes))


def _compare_with_list(place: Place, train: Index, notes: list[str]) -> None:
    """A note where ImageSets/CLS-LOC/train_cls.txt lists another number of images than the folders hold."""
    path = place.about / "ImageSets/CLS-LOC/train_cls.txt"
    if not path.is_file():
        return
    count = sum(1 for line in _lines(path) if line.strip())
    if count != len(train):
        notes.append(f"train: {path.name} lists {count:,} images, the folders hold {len(train):,}; the folders count")


def _lines(path: Path) -> Iterator[str]:
    """Lines of a text file without a byte-order mark, their ends as they are."""
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            yield from file
    except OSError as error:
        raise unreadable(error, path) from error

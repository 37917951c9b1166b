"""Which number stands for which class in a submission: the line of the class in LOC_synset_mapping.txt, from 1."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from striate.classes import Classes, listed, ordered
from striate.data.layouts.ilsvrc import NAMES_TABLE
from striate.errors import DataError, UserError
from striate.submission import lines

WNID = re.compile(r"n[0-9]{8}")
CHALLENGE_CLASSES = 1000  # of ILSVRC, where no mapping says otherwise
_LEVELS = 4  # ILSVRC/Data/CLS-LOC/test lies four folders below the tables


@dataclass(frozen=True)
class Numbering:
    """Class ids by their label: label n, from 1, is ids[n - 1]. source: where that stands, for people."""

    ids: tuple[str, ...]
    source: str

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def label(self) -> dict[str, int]:
        """The label of each class id, 1..K."""
        return {class_id: number for number, class_id in enumerate(self.ids, start=1)}

    def labels_of(self, classes: Classes) -> np.ndarray:
        """The labels of a network's classes: [K] int64. Raises UserError listing classes that have none."""
        unknown = [class_id for class_id in classes.ids if class_id not in self.label]
        if unknown:
            raise UserError(
                f"{self.source} has no line for {len(unknown):,} of the network's {len(classes):,} classes: {listed(unknown)}. "
                "A submission names classes by their line there: give a network for these classes, or their own --mapping FILE."
            )
        return np.asarray([self.label[class_id] for class_id in classes.ids], dtype=np.int64)


def read_mapping(path: Path) -> Numbering:
    """The classes of a LOC_synset_mapping.txt: a wnid and words on each line, the line's number is the label.

    Blank lines at the end are passed over. Raises DataError naming the line that is not of this form, or repeats a class.
    """
    rows, defects = lines.read(path)
    for defect in defects:
        if defect.severity == "error":
            raise DataError(f"{path}, {defect.where}: {defect.text}.")
    while rows and not rows[-1].strip():
        rows.pop()
    ids: list[str] = []
    for number, row in enumerate(rows, start=1):
        wnid = row.split(maxsplit=1)[0] if row.strip() else ""
        if not WNID.fullmatch(wnid):
            raise DataError(
                f"{path}, line {number}: expected a wnid and words, as 'n01440764 tench', found {lines.short(row)}. "
                "The number of the line is the label of the class, so no line may be left out."
            )
        ids.append(wnid)
    twice = [wnid for wnid, count in Counter(ids).items() if count > 1]
    if twice:
        raise DataError(f"{path}: a class has one line, found more for {listed(twice)}. Unpack the file again.")
    return Numbering(tuple(ids), str(path))


def above(place: Path, name: str) -> Path | None:
    """The file of that name in a folder, or in one of the four above it; the nearest one."""
    start = place.expanduser().absolute()
    for folder in (start, *start.parents[:_LEVELS]):
        if (folder / name).is_file():
            return folder / name
    return None


def find_mapping(given: Path | None, place: Path | None) -> Numbering | None:
    """The mapping that was named, or else lies beside or above `place`; None where there is none."""
    if given is not None:
        return read_mapping(given)
    path = None if place is None else above(place, NAMES_TABLE)
    return None if path is None else read_mapping(path)


def by_order(ids: Iterable[str], whose: str) -> Numbering:
    """Labels 1..K in the order of sorted ids: ImageNet's mapping is in this order, so that all of its classes get its numbers."""
    known = ordered(ids, "text")
    return Numbering(known, f"the sorted ids of {whose} ({len(known):,} classes)")


def assumed(numbering: Numbering) -> str:
    """What is said where no mapping was found."""
    return (
        f"No {NAMES_TABLE} was found: label n stands for the n-th of {numbering.source}. "
        "That is right only where these are all classes of the challenge; otherwise give --mapping FILE."
    )

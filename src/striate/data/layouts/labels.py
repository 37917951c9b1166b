"""From labels as files write them, numbers or names, to the class contract: one order, one spelling, the same in all splits."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from striate.classes import Classes, listed, ordered
from striate.data.index import UNLABELLED, Keys
from striate.data.layouts.splits import SplitName, expect_same, order_note
from striate.data.layouts.walk import shown
from striate.errors import DataError

_INTEGER = re.compile(r"[0-9]+")


@dataclass(eq=False)
class Written:
    """The labels of one split as its files have them: words[codes_N[i]] is that of image i, code -1 where it has none.

    The word "-1" means none, too: so unlabelled test images are often written.
    """

    words: list[str]
    codes_N: np.ndarray

    def __post_init__(self) -> None:
        nothing = [code for code, word in enumerate(self.words) if word == "-1"]
        self.codes_N = np.where(np.isin(self.codes_N, nothing), np.int32(UNLABELLED), self.codes_N)

    @classmethod
    def joined(cls, parts: Sequence[Written]) -> Written:
        """The labels of several files, one after the other."""
        code_of: dict[str, int] = {}
        codes = [np.empty(0, dtype=np.int32)]
        for part in parts:
            places = [code_of.setdefault(word, len(code_of)) for word in part.words]
            codes.append(np.asarray([*places, UNLABELLED], dtype=np.int32)[part.codes_N])
        return cls(list(code_of), np.concatenate(codes))

    def occurring(self) -> set[str]:
        """The words that stand at an image."""
        return {self.words[code] for code in np.unique(self.codes_N).tolist() if code >= 0}


def settle(
    path: Path, written: Mapping[SplitName, Written], keys: Mapping[SplitName, Keys]
) -> tuple[Classes, dict[SplitName, np.ndarray], list[str]]:
    """The classes, each split's labels as positions among them ([N] int32), and notes.

    Classes are those of the training images where these are given: whole numbers ordered as numbers, else words as text.
    Raises DataError for images of train or val without a label, for words among numbers, and for splits that differ.
    """
    for split, labels in written.items():
        if split != "test":
            _expect_all(path, split, labels, keys[split])
    found = {split: labels.occurring() for split, labels in written.items()}
    everything = set[str]().union(*found.values())
    are_numbers = _are_numbers(path, everything)
    spelt = {word: str(int(word)) if are_numbers else word for word in everything}
    leader: SplitName = next((split for split in written if split == "train"), "val" if "val" in written else "test")
    ids = ordered((spelt[word] for word in found.get(leader, ())), "integer" if are_numbers else "text")
    classes, notes = Classes(ids, ids), list[str]()
    for split, words in found.items():
        if split != leader:
            names = f"{path}, the images of {split}"
            expect_same(classes, tuple({spelt[word] for word in words}), names, lacking_is_fine=split == "test")
    if not are_numbers:
        notes += [note.replace("class folders", "classes") for note in order_note(classes)]
    elif ids and len(ids) <= int(ids[-1]) - int(ids[0]):
        notes.append(f"whole-number labels leave gaps: {len(ids):,} of those from {ids[0]} to {ids[-1]} occur")
    placed: dict[SplitName, np.ndarray] = {}
    for split, labels in written.items():
        place_of = [classes.index.get(spelt.get(word, ""), UNLABELLED) for word in labels.words]
        # The last place is that of the code -1.
        placed[split] = np.asarray([*place_of, UNLABELLED], dtype=np.int32)[labels.codes_N]
    return classes, placed, notes


def _expect_all(path: Path, split: SplitName, labels: Written, keys: Keys) -> None:
    rows = np.flatnonzero(labels.codes_N < 0)
    if not len(rows):
        return
    if len(rows) == len(labels.codes_N):
        raise DataError(
            f"{path}: none of the {len(rows):,} images of {split} has a label. "
            "`striate predict` names the classes of images without labels."
        )
    raise DataError(
        f"{path}: {len(rows):,} of the {len(labels.codes_N):,} images of {split} have no label: "
        f"{listed([shown(keys[int(row)], quoted=False) for row in rows[:5]], 5)}. Add their labels, or remove the images."
    )


def _are_numbers(path: Path, words: set[str]) -> bool:
    """Whether labels are whole numbers. Raises DataError where only some are, or where words cannot be ids."""
    numbers = {word for word in words if _INTEGER.fullmatch(word) and len(word) < 19}
    if numbers and len(numbers) < len(words):
        raise DataError(
            f"{path}: some labels are numbers and others words; use one kind. "
            f"Numbers: {listed(sorted(numbers), 3)}; words: {listed(sorted(words - numbers), 3)}."
        )
    odd = sorted(word for word in words if not word.strip() or len(word.splitlines()) > 1)
    if odd:
        raise DataError(f"{path}: labels must be one line of text, found {listed([shown(word) for word in odd], 3)}.")
    return bool(numbers)

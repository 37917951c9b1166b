"""What reading a data set gives: its splits, with one class order, and what is to be said about them."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from striate.classes import Classes, listed
from striate.data.index import Index
from striate.errors import DataError

SplitName = Literal["train", "val", "test"]
# Layouts whose published results ignore EXIF orientation; also where more is said behind the name.
AS_THEY_LIE = ("ILSVRC", "Tiny ImageNet")
ALL: frozenset[SplitName] = frozenset({"train", "val", "test"})


@dataclass(frozen=True)
class Splits:
    """The splits of one data set; all share one `Classes`.

    layout: its name, for people. notes: what was ignored, counted, or decided.
    """

    train: Index
    val: Index | None
    test: Index | None
    layout: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """The splits that a layout's reader was asked for and found."""

    indexes: dict[SplitName, Index]
    layout: str
    notes: tuple[str, ...] = ()


def by_hash(index: Index, val_share: float, seed: int) -> tuple[Index, Index, str]:
    """Splits one set in two, class by class: (train, val, the note that says so).

    Of each class the `val_share` with the smallest hash of (seed, key) goes to val: at least one image and at
    most all but one, none where the class has a single image. A file added later moves at most one other file per
    class across, and neither order nor place of the folder matters.
    """
    if not 0 < val_share < 1:
        raise DataError(f"Share of images to hold out for validation: expected more than 0 and less than 1, found {val_share}.")
    salt = f"striate split {seed}\n".encode()
    hash_N = np.empty(len(index), dtype="<u8")
    for row, key in enumerate(index.keys.raws()):
        hash_N[row] = int.from_bytes(hashlib.blake2b(salt + key, digest_size=8).digest(), "little")
    order_N = np.lexsort((hash_N, index.labels))  # by class, then by hash
    counts_K = index.counts()
    wanted_K = np.clip(np.rint(counts_K * val_share), 1, np.maximum(counts_K - 1, 0)).astype(np.int64)
    first_K = np.cumsum(counts_K) - counts_K
    sorted_labels_N = index.labels[order_N]
    rank_N = np.arange(len(index)) - first_K[sorted_labels_N]
    is_val = np.zeros(len(index), dtype=bool)
    is_val[order_N[rank_N < wanted_K[sorted_labels_N]]] = True
    part = "one" if wanted_K.max(initial=0) <= 1 else f"{100 * val_share:.3g}%"
    note = (
        f"no validation split on disk: {int(is_val.sum()):,} of {len(index):,} images ({part} of each class, "
        f"chosen by a hash of the file's path and seed {seed}) are held out"
    )
    single = [index.classes.title(int(k)) for k in np.flatnonzero(counts_K == 1)]
    if single:
        note += f"; {len(single):,} classes have a single image, which trains and is not validated: {listed(single, 5)}"
    return index.select(~is_val, "train"), index.select(is_val, "val"), note


def expect_classes(classes: Classes, where: str) -> None:
    """Raises DataError unless there are two classes or more to tell apart."""
    if len(classes) < 2:
        found = f"only one class, {classes.ids[0]!r}" if classes.ids else "no class"
        raise DataError(f"{where}: found {found}. A classifier needs images of at least two classes, one folder for each.")


def expect_same(train: Classes, other_ids: tuple[str, ...], where: str, lacking_is_fine: bool = False) -> None:
    """Raises DataError, listing both differences, unless a split has the classes of the training set."""
    unknown = sorted(set(other_ids) - set(train.ids))
    missing = [] if lacking_is_fine else sorted(set(train.ids) - set(other_ids))
    if not unknown and not missing:
        return
    said = [f"{where}: its classes are not those of the training set ({len(set(other_ids)):,} and {len(train):,})."]
    if unknown:
        said.append(f"Only here, {len(unknown):,}: {listed(unknown)}.")
    if missing:
        said.append(f"Without images here, {len(missing):,}: {listed(missing)}.")
    if {unicodedata.normalize("NFC", name) for name in unknown} & {unicodedata.normalize("NFC", name) for name in missing}:
        said.append("Some look alike and differ in how accents are encoded (NFC and NFD, as macOS writes them): rename one.")
    said.append("Classes are matched by id, and never renumbered for a split: make the folders equal.")
    raise DataError(" ".join(said))


def expect_one_label_each(where: Path, source: str, names: list[bytes], labelled: Collection[bytes]) -> None:
    """Raises DataError unless images and labels are the same names: joined by position, one lost file would shift all labels."""
    if len(set(names)) != len(names):
        twice = [os.fsdecode(name) for name, count in Counter(names).items() if count > 1]
        raise DataError(f"{where}: labels are joined by file name, and these names occur more than once: {listed(twice, 5)}.")
    unlabelled = [os.fsdecode(name) for name in names if name not in labelled]
    missing = [os.fsdecode(name) for name in sorted(set(labelled) - set(names))]
    if unlabelled or missing:
        raise DataError(
            f"{where}: expected one label for each image, found {len(labelled):,} labels in {source} and {len(names):,} images. "
            f"Images without a label, {len(unlabelled):,}: {listed(unlabelled, 5) or 'none'}. "
            f"Labels without an image, {len(missing):,}: {listed(missing, 5) or 'none'}. "
            "Unpack the images again, or remove the rows of those that you took out."
        )


def order_note(classes: Classes) -> tuple[str, ...]:
    """The warning where the text order of ids is not the order that their numbers suggest; else nothing."""
    last_of: dict[str, tuple[str, list[tuple[int, str]]]] = {}  # ids alike but for their numbers, in text order
    for later in classes.ids:
        # By length and then as text, without leading zeros: the order of numbers, of any length.
        digits = [number.lstrip("0") for number in re.findall(r"[0-9]+", later)]
        numbers = [(len(number), number) for number in digits]
        earlier, smaller = last_of.get(re.sub(r"[0-9]+", "0", later), (later, numbers))
        if numbers < smaller:
            break
        last_of[re.sub(r"[0-9]+", "0", later)] = (later, numbers)
    else:
        return ()
    kind = "are all numbers, and are" if all(name.isdecimal() for name in classes.ids) else "are"
    return (
        f"class folders {kind} ordered as text, so that {earlier!r} comes before {later!r}: an index from "
        "a tool that sorts them as numbers means another class; match by id",
    )

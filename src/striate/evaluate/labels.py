"""Other labels for the same images, and images that do not count: ImageNet ReaL, a blacklist, or labels of one's own.

An image may have several labels; an answer is right when it is any of them. An image with none is left out, and counted.

`read` takes these files:

    a JSON list      as ReaL is published: item i belongs to ILSVRC2012_val_0000000(i + 1), class positions
    a JSON object    {"val/cat/3.jpg": ["cat", "tabby"], …}
    CSV              key,label;label with one image in a row; a first row "key,labels" is taken for a heading

A key is the image's path as the predictions spell it, or its file name with or without the ending. A label is a class id, or
a position among the 1,000 classes of ImageNet in the order of their wnids, never another position: networks differ in those.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from striate import files
from striate.classes import Classes, imagenet, listed
from striate.errors import DataError, UserError, nearest
from striate.evaluate import metrics
from striate.predictions import UNLABELLED, Predictions

VALIDATION_IMAGES = 50_000
"""Of ILSVRC 2012 to 2017."""

_VALIDATION_NAME = re.compile(r"ILSVRC2012_val_(\d{8})")

# ---------------------------------------------------------------- label sets


@dataclass(frozen=True, eq=False)
class LabelSets:
    """The labels of many images, in the class positions of one network.

    labels: by key as the file spells it (or by number, "1" to "50000", where `by_number`) the positions in `classes`, sorted,
    each once; an empty tuple where the image has no label that counts.
    name: for protocols, as "ReaL". source: the file's name.
    """

    labels: Mapping[str, tuple[int, ...]]
    classes: Classes
    name: str
    source: str
    by_number: bool = False


def read(path: Path, classes: Classes, name: str = "") -> LabelSets:
    """Reads label sets for a network's classes from a file in one of the forms above.

    name: how protocols call these labels; without one the file's name, and "ReaL" for the published list.
    Raises UserError when the file cannot be read or its labels are positions and the classes are not the 1,000 of
    ImageNet; DataError naming the file and the image or row where the content is not as above.
    Source of ReaL: Beyer et al. 2020, section 3.
    """
    entries, by_number = _entries(path)
    if not any(entries.values()):
        raise DataError(f"{path}: expected labels of images, found none ({len(entries):,} images).")
    words = [label for labels in entries.values() for label in labels]
    # In a set whose ids are numbers, "7" is the class of that name: ids go before positions.
    are_ids = all(isinstance(word, str) for word in words) and any(word in classes.index for word in words)
    position_of = dict(classes.index) if are_ids else _positions(path, classes)
    found = {}
    for key, labels in entries.items():
        unknown = [label for label in labels if str(label) not in position_of]
        if unknown:
            expected = "an id of the network's classes" if are_ids else "a position in 0..999, or an id of the network's classes"
            hint = nearest(str(unknown[0]), classes.ids) if are_ids else ""
            raise DataError(f"{path}: label {unknown[0]!r} of image '{key}': expected {expected}.{hint}")
        found[key] = tuple(sorted({position_of[str(label)] for label in labels}))
    return LabelSets(found, classes, name or ("ReaL" if by_number else path.name), path.name, by_number)


def _positions(path: Path, classes: Classes) -> dict[str, int]:
    """Where each position of the published order stands in a network's classes, which must be the same thousand."""
    published = imagenet()
    if set(classes.ids) != set(published.ids):
        raise UserError(
            f"{path}: its labels are no ids of the network's classes. Positions are understood as those of ImageNet's 1,000 "
            f"classes only, and this network has {len(classes):,} others. Write class ids, as {listed(classes.ids, 2)}."
        )
    return {str(position): int(place) for position, place in enumerate(classes.match(published))}


def _entries(path: Path) -> tuple[dict[str, list[Any]], bool]:
    """Labels by key as the file has them, and whether the keys are numbers of validation images."""
    if path.suffix.lower() != ".json":
        return _csv_entries(path), False
    value = files.read_json(path)
    by_number = isinstance(value, list)
    if by_number:
        value = {str(number): labels for number, labels in enumerate(value, 1)}
    if not isinstance(value, dict):
        raise DataError(f"{path}: expected a list of lists or an object of lists, found {type(value).__name__}.")
    for key, labels in value.items():
        is_list = isinstance(labels, list)
        if not is_list or not all(isinstance(label, (int, str)) and not isinstance(label, bool) for label in labels):
            raise DataError(f"{path}: image '{key}': expected a list of class ids or positions, found {str(labels)[:60]}.")
    return value, by_number


def _csv_entries(path: Path) -> dict[str, list[Any]]:
    try:
        rows = list(csv.reader(io.StringIO(_text(path), newline="")))
    except csv.Error as error:
        raise DataError(f"{path}: not readable as CSV ({error}).") from error
    found: dict[str, list[Any]] = {}
    for number, row in enumerate(rows, 1):
        cells = [cell.strip() for cell in row]
        if not any(cells) or (number == 1 and len(cells) == 2 and cells[1].lower() in ("label", "labels")):
            continue
        if len(cells) != 2 or not cells[0]:
            raise DataError(f"{path}: row {number}: expected key,label;label, found {','.join(row)[:60]!r}.")
        if cells[0] in found:
            raise DataError(f"{path}: row {number}: image '{cells[0]}' has labels already. Join them with semicolons in one row.")
        found[cells[0]] = [label.strip() for label in cells[1].split(";") if label.strip()]
    return found


# ---------------------------------------------------------------- applied to predictions


@dataclass(frozen=True, eq=False)
class Relabelled:
    """Predictions judged by label sets.

    rows: [M] int64, the images kept: those with at least one label. labels: M tuples of class positions.
    best: [M] int64, of an image's labels the one that the network ranks first. ranks: [M] int64, its place among all classes,
    0 is first: an answer of the k best classes is right when this is below k.
    empty: images left out because they have no label. unused: images of the file that are not among the predictions.
    """

    rows: np.ndarray
    labels: Sequence[tuple[int, ...]]
    best: np.ndarray
    ranks: np.ndarray
    empty: int
    unused: int


def relabelled(predictions: Predictions, sets: LabelSets) -> Relabelled:
    """Joins predictions with label sets, by number or key, and ranks the best label of each image.

    The predictions' own labels do not matter. Ties between classes go to the lower number, as everywhere.
    Raises UserError when the label sets are for other classes; DataError naming images that the file does not mention or
    mentions ambiguously, and when no image has a label.
    """
    if sets.classes.ids != predictions.classes.ids:
        raise UserError(f"{sets.source}: was read for other classes than those of the predictions. Read it for these.")
    if sets.by_number:
        names = [None if number is None else str(number) for number in map(validation_number, predictions.keys)]
    else:
        names = _named(predictions.keys, sets.labels)
    unknown = [key for key, name in zip(predictions.keys, names, strict=True) if name not in sets.labels]
    if unknown:
        way_out = "The list goes by the number in ILSVRC2012_val_00000001" if sets.by_number else "Give them an empty list"
        raise DataError(
            f"{sets.source}: no labels for {len(unknown):,} of {len(names):,} images: {listed(unknown, 5)}. {way_out}."
        )
    _refuse_shared(sets.source, predictions.keys, names)
    labels_N = [sets.labels[name] for name in names if name is not None]
    rows_M = np.flatnonzero([bool(labels) for labels in labels_N])
    if not len(rows_M):
        raise DataError(f"{sets.source}: none of the {len(names):,} images has a label that counts.")
    labels_M = [labels_N[row] for row in rows_M.tolist()]
    best_M = _best_ranked(predictions.scores, rows_M, labels_M)
    kept = predictions.scores if len(rows_M) == len(names) else predictions.scores[rows_M]
    return Relabelled(
        rows=rows_M,
        labels=labels_M,
        best=best_M,
        ranks=metrics.ranks(kept, best_M),
        empty=len(names) - len(rows_M),
        unused=len(sets.labels) - len(names),
    )


def _best_ranked(scores: np.ndarray, rows_M: np.ndarray, labels_M: Sequence[tuple[int, ...]]) -> np.ndarray:
    """Of each image's labels the one with the highest score, the lower number among equals. Returns [M] int64."""
    place_L = np.repeat(np.arange(len(rows_M)), [len(labels) for labels in labels_M])
    label_L = np.asarray([label for labels in labels_M for label in labels], np.int64)
    order_L = np.lexsort((label_L, -scores[rows_M[place_L], label_L], place_L))
    is_first_L = np.diff(place_L[order_L], prepend=-1) > 0
    return np.asarray(label_L[order_L][is_first_L])


# ---------------------------------------------------------------- what --labels names


@dataclass(frozen=True)
class Judged:
    """Predictions with the labels that are to be scored by.

    predictions: all images; the label is that of their set that the network ranks first, or -1 where the image does not count.
    words: for the protocol. left_out: images that do not count, by an empty set or by a list.
    """

    predictions: Predictions
    words: str
    left_out: int


def refuse_unreadable(files: Sequence[str | Path], classes: Classes, keys: Sequence[str]) -> None:
    """Raises what `judged` would raise for these files, before there are predictions."""
    nothing = np.zeros((len(keys), len(classes)), np.float32)
    judged(Predictions(keys, np.zeros(len(keys), np.int64), nothing, "logits", classes), files)


def judged(predictions: Predictions, files: Sequence[str | Path]) -> Judged:
    """Predictions under other labels: `files` are label sets (.json, .csv) and lists of images to leave out (.txt), in any order.

    With several labels for an image an answer is right when it is any of them (Beyer et al. 2020, section 3). "original" stands
    for the labels as they are. Raises UserError for more than one file of label sets or another kind of file.
    """
    sets = [Path(one) for one in files if Path(one).suffix.lower() in (".json", ".csv")]
    lists = [Path(one) for one in files if Path(one).suffix.lower() == ".txt"]
    if strange := [str(one) for one in files if one != "original" and Path(one) not in (*sets, *lists)]:
        raise UserError(f"--labels {strange[0]}: expected original, a .json or .csv of labels, or a .txt of images to leave out.")
    if len(sets) > 1:
        raise UserError(f"--labels {sets[1]}: the labels are those of {sets[0]} already; give one file of labels.")
    labels_N, words = predictions.labels.copy(), ["original"]
    if sets:
        found = read(sets[0], predictions.classes)
        told = relabelled(predictions, found)
        labels_N[:] = UNLABELLED
        labels_N[told.rows] = told.best
        words = [f"{found.name} ({found.source})" if found.name != found.source else found.source]
    was_known_N = predictions.labels != UNLABELLED if not sets else np.ones(len(predictions), bool)
    for path in lists:
        out = left_out(predictions.keys, path)
        labels_N[out.is_out] = UNLABELLED
        words.append(f"less {out.images:,} of {out.source}")
    missing = int((was_known_N & (labels_N == UNLABELLED)).sum())
    return Judged(replace(predictions, labels=labels_N), " ".join(words), missing)


# ---------------------------------------------------------------- images that do not count


@dataclass(frozen=True, eq=False)
class LeftOut:
    """Which images a list leaves out.

    is_out: [N] bool. images: how many. unmatched: entries of the list whose image is not among these, as when a part of
    the validation set is scored. source: the list's file name.
    """

    is_out: np.ndarray
    images: int
    unmatched: int
    source: str


def left_out(keys: Sequence[str], path: Path) -> LeftOut:
    """Finds the images that a text file names: one number (of ImageNet's validation images) or name in a line, # comments.

    A name is a key, or a file name with or without its ending. A number that is not among the images is counted: published
    lists are for the whole set, and a part of it may be scored. A name that matches nothing is an error, for it was written
    for these images; so is a list that matches no image at all.
    Raises UserError when the file cannot be read, DataError naming the file and line. The published list is
    ILSVRC2014_clsloc_validation_blacklist.txt of the ILSVRC development kit, 1,762 numbers.
    """
    lines = [(number, line.split("#")[0].strip()) for number, line in enumerate(_text(path).splitlines(), 1)]
    entries = [(number, word) for number, word in lines if word]
    if not entries:
        raise DataError(f"{path}: expected names or numbers of images, one in a line, found none.")
    words = {word for _, word in entries}
    names_N = _named(keys, words)
    matched = set(names_N)
    _refuse_shared(path.name, keys, names_N)
    numbers_N = [validation_number(key) for key in keys]
    wanted = {int(word) for word in words.difference(matched) if _is_number(word)}
    for line, word in entries:
        if _is_number(word):
            if int(word) in wanted and not 1 <= int(word) <= VALIDATION_IMAGES:
                raise DataError(f"{path}: line {line}: expected a name, or a number in 1..{VALIDATION_IMAGES}, found {word}.")
        elif word not in matched:
            raise DataError(f"{path}: line {line}: no image is called '{word}'. Images are called as {listed(keys, 2)}.")
    is_out_N = np.array(
        [name is not None or number in wanted for name, number in zip(names_N, numbers_N, strict=True)], dtype=bool
    )
    if not is_out_N.any():
        raise DataError(
            f"{path}: none of its {len(words):,} entries is among the {len(keys):,} images, which are called as "
            f"{listed(keys, 2)}. Numbers are those of ILSVRC2012_val_00000001."
        )
    return LeftOut(is_out_N, int(is_out_N.sum()), len(wanted.difference(numbers_N)), path.name)


# ---------------------------------------------------------------- names of images


def validation_number(key: str) -> int | None:
    """The number in the name of an ImageNet validation image: 123 for "val/ILSVRC2012_val_00000123.JPEG"; else None."""
    match = _VALIDATION_NAME.fullmatch(PurePosixPath(key).stem)
    return int(match[1]) if match else None


def _named(keys: Sequence[str], entries: Container[str]) -> list[str | None]:
    """The entry that stands for each image: its key, else its file name, else that without the ending; None without any."""

    def entry(key: str) -> str | None:
        path = PurePosixPath(key)
        return next((name for name in (key, path.name, path.stem) if name in entries), None)

    return [entry(key) for key in keys]


def _refuse_shared(source: str, keys: Sequence[str], names_N: Sequence[str | None]) -> None:
    """An entry stands for one image: a bare file name may be that of several."""
    shared = [name for name, count in Counter(names_N).items() if name is not None and count > 1]
    if shared:
        several = [key for key, name in zip(keys, names_N, strict=True) if name == shared[0]]
        raise DataError(
            f"{source}: '{shared[0]}' stands for several images: {listed(several, 3)}. Write the whole key of each, and "
            "evaluate each image once."
        )


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdigit()


def _text(path: Path) -> str:
    """The file's text. Raises UserError when it cannot be read, DataError when it is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")  # spreadsheets put a mark at the beginning
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected UTF-8 text, found other bytes at {error.start:,}.") from error

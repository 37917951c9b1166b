"""Kaggle's form of the ILSVRC challenge: a CSV with the columns ImageId and PredictionString.

A PredictionString is up to five times `label x_min y_min x_max y_max`, best first, all divided by blanks. Labels are integers
1..K, the line of the class in LOC_synset_mapping.txt; only the solution files name classes by wnid. Boxes are in pixels of the
photo as stored. They are written as integers: that is what the challenge's page asks for and what its solutions hold.
Source: data page of Kaggle's ImageNet Object Localization Challenge; evaluation of the ILSVRC development kit.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from striate.submission import lines
from striate.submission.images import Box
from striate.submission.labels import CHALLENGE_CLASSES, WNID, Numbering
from striate.submission.lines import Defect, refuse_repeated, short

HEADER = "ImageId,PredictionString"
MOST = 5  # predictions of an image that count
FORBIDDEN = ',"'
_LABEL = re.compile(r"[+-]?[0-9]{1,9}")
_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,30}\.?[0-9]{0,30}|\.[0-9]{1,30})(?:[eE][+-]?[0-9]{1,3})?")
_INTEGER = re.compile(r"[+-]?[0-9]+")
_NO_NUMBER = {"nan", "inf", "infinity"}
_NO_BOX = [math.nan] * 4
_NOTES = {"more than five predictions", "decimals", "repeated label"}

_Problems = list[tuple[str, str]]
"""[(kind, what was found)]"""
_ENDINGS = (".jpeg", ".jpg", ".png")


@dataclass(frozen=True, eq=False)
class Row:
    """What a submission says about one image, best first.

    labels_5: [5] int64 in 1..K, 0 where there is none or it cannot be used. boxes_54: [5, 4] float64, x_min y_min x_max y_max as
    they stand in the file, NaN where there is none or it cannot be used. line: of the file, from 1.
    """

    image_id: str
    labels_5: np.ndarray
    boxes_54: np.ndarray
    line: int


@dataclass(frozen=True, eq=False)
class Table:
    """A submission as read: one row for each ImageId (the first of those that repeat), and all that is wrong with it."""

    rows: list[Row]
    defects: list[Defect]


# ---------------------------------------------------------------- writing


def text(answers: Iterable[tuple[str, Sequence[int], Sequence[Box]]]) -> str:
    """The whole file, from (ImageId, labels best first, a box for each of them) of each image."""
    said = [HEADER]
    for image_id, labels, boxes in answers:
        pairs = zip(labels, boxes, strict=True)
        said.append(f"{image_id}," + " ".join(f"{label} {x0} {y0} {x1} {y1}" for label, (x0, y0, x1, y1) in islice(pairs, MOST)))
    return "\n".join(said) + "\n"


# ---------------------------------------------------------------- reading


def read(path: Path, numbering: Numbering | None = None) -> Table:
    """Reads a submission, and finds every malformed row.

    numbering: which labels there are; without it 1..1000. A row that cannot be used is kept with labels 0, so that whoever scores
    counts its image as wrong. Raises as `lines.read`; nothing that stands in the file raises.
    """
    text_lines, defects = lines.read(path)
    if not text_lines:
        return Table([], defects)
    delimiter, found, first_row = _header(text_lines[0])
    defects += found
    named: list[tuple[int, str]] = []
    rows: dict[str, Row] = {}
    for number, line in enumerate(text_lines[first_row:], start=first_row + 1):
        if not line.strip():
            defects.append(Defect(number, "note", "blank line", "is blank; it is passed over"))
            continue
        fields, problem = _fields(line, delimiter)
        if problem:
            defects.append(Defect(number, "error", "columns", problem))
        image_id = fields[0].strip()
        if not image_id:
            defects.append(Defect(number, "error", "missing ImageId", f"has no ImageId: {short(line)}"))
            continue
        defects += _misnamed(number, image_id)
        named.append((number, image_id))
        labels, boxes, problems = _predictions(fields[1].split(), numbering) if not problem else ([], [], [])
        defects += [Defect(number, "note" if kind in _NOTES else "error", kind, said) for kind, said in problems]
        if image_id not in rows:
            lacking = MOST - len(labels)
            labels_5 = np.asarray(labels + [0] * lacking, dtype=np.int64)
            rows[image_id] = Row(image_id, labels_5, np.asarray(boxes + [_NO_BOX] * lacking), number)
    defects += refuse_repeated(named, "ImageId")
    if not named:
        defects.append(Defect(0, "error", "empty file", "there is no row under the header"))
    return Table(list(rows.values()), defects)


def _header(line: str) -> tuple[str, list[Defect], int]:
    """The delimiter of the columns, what is wrong with the header, and how many lines it takes (0 where there is none)."""
    if line == HEADER:
        return ",", [], 1
    words = [word.strip().strip('"') for word in re.split(r"[,;\t|]", line)]
    if words == HEADER.split(","):
        delimiter = next((mark for mark in ",;\t|" if mark in line), ",")
        if delimiter != ",":
            said = f"columns are divided by {delimiter!r}; expected a comma, as in {HEADER}"
            return delimiter, [Defect(1, "error", "delimiter", said)], 1
        return ",", [Defect(1, "note", "header", f"expected {HEADER}, found it with quotes or blanks: {short(line)}")], 1
    defect = Defect(1, "error", "header", f"expected the header {HEADER}, found {short(line)}")
    fields = line.split(",")
    values = fields[1].split() if len(fields) == 2 else []
    if values and all(_NUMBER.fullmatch(word) or WNID.fullmatch(word) for word in values):
        return ",", [defect], 0  # a row where the header should be
    if re.fullmatch(r"\S+\.\w+\s+n[0-9]{8}", line):
        defect = Defect(1, "error", "header", f"{defect.text}: this looks like Tiny ImageNet's form; check it with --format tiny")
    return ",", [defect], 1


def _fields(line: str, delimiter: str) -> tuple[list[str], str]:
    """The columns of a line, and what is wrong with them, or an empty string. A quote may not go over the end of a line."""
    fields = line.split(delimiter)
    if '"' in line:
        try:
            fields = next(csv.reader([line], delimiter=delimiter, strict=True))
        except csv.Error as error:
            return fields, f"its quotes do not close, or stand within a column ({error}): {short(line)}"
    if len(fields) != 2:
        return fields, f"expected two columns divided by {delimiter!r}, found {len(fields)}: {short(line)}"
    return fields, ""


def _misnamed(line: int, image_id: str) -> list[Defect]:
    if image_id.lower().endswith(_ENDINGS) or "/" in image_id:
        said = f"an ImageId is the file name without folder and ending, found {short(image_id)}"
        return [Defect(line, "error", "ImageId", said)]
    return []


def _predictions(words: list[str], numbering: Numbering | None) -> tuple[list[int], list[list[float]], _Problems]:
    """The first five predictions of a row, as far as they can be used: labels, boxes, and what is wrong with them.

    A kind of problem that is a note is one of `_NOTES`.
    """
    if not words:
        return [], [], [("empty prediction", "has no prediction; each image needs one")]
    if len(words) % 5:
        said = f"expected groups of five, 'label x_min y_min x_max y_max', found {len(words)} words: {short(' '.join(words))}"
        return [], [], [("groups of five", said)]
    labels, boxes, problems = list[int](), list[list[float]](), list[tuple[str, str]]()
    if len(words) > 5 * MOST:
        problems.append(("more than five predictions", f"{len(words) // 5} predictions; only the first {MOST} count"))
    for start in range(0, min(len(words), 5 * MOST), 5):
        corners = words[start + 1 : start + 5]
        label, problem = _label(words[start], numbering)
        box_4, wrong = _box(corners)
        labels.append(label)
        boxes.append(box_4)
        if problem or wrong:
            problems += [(kind, f"prediction {len(labels)}: {said}") for kind, said in (*problem, *wrong)]
        if not wrong and not all(map(_INTEGER.fullmatch, corners)):
            said = f"prediction {len(labels)}: the challenge's page asks for integers, found {' '.join(corners)}; round them"
            problems.append(("decimals", said))
    if len(set(labels)) < len(labels):
        twice = sorted({label for label in labels if label and labels.count(label) > 1})
        if twice:
            said = f"names label {', '.join(map(str, twice))} more than once, which helps no top-5 (several boxes of a class may)"
            problems.append(("repeated label", said))
    return labels, boxes, problems


def _label(word: str, numbering: Numbering | None) -> tuple[int, _Problems]:
    """A label, 0 where it cannot be used, and why."""
    most = CHALLENGE_CLASSES if numbering is None else len(numbering)
    if WNID.fullmatch(word):
        number = None if numbering is None else numbering.label.get(word)
        it_is = f" ({number})" if number else ""
        return 0, [("wnid", f"{word} where a label belongs; write the line of the class in LOC_synset_mapping.txt{it_is}")]
    if not _LABEL.fullmatch(word):
        return 0, [("label", f"expected an integer label in 1..{most}, found {short(word)}")]
    label = int(word)
    if label == 0:
        return 0, [("label 0", f"labels count from 1 to {most}, found 0: were they counted from 0? Then add 1 to each")]
    if not 1 <= label <= most:
        return 0, [("label outside", f"expected a label in 1..{most}, found {label}")]
    return label, []


def _box(corners: list[str]) -> tuple[list[float], _Problems]:
    """The four numbers of a box, NaN where it cannot be used, and why."""
    if not all(map(_NUMBER.fullmatch, corners)):
        shown = short(" ".join(corners))
        if any(corner.lower().lstrip("+-") in _NO_NUMBER for corner in corners):
            return _NO_BOX, [("box not finite", f"a box needs four numbers, found {shown}")]
        return _NO_BOX, [("box", f"expected a box of four numbers, found {shown}")]
    x_min, y_min, x_max, y_max = box_4 = [float(corner) for corner in corners]
    if max(box_4) == math.inf or min(box_4) == -math.inf:
        return _NO_BOX, [("box not finite", f"a box needs four finite numbers, found {short(' '.join(corners))}")]
    if min(box_4) < 0:
        return _NO_BOX, [("box negative", f"pixels count from 0, found the box {' '.join(corners)}")]
    if x_max < x_min or y_max < y_min:
        expected = "x_min y_min x_max y_max with x_min <= x_max and y_min <= y_max"
        return _NO_BOX, [("box inverted", f"expected {expected}, found {' '.join(corners)}")]
    return box_4, []


def outside(row: Row, width: int, height: int) -> list[Defect]:
    """An error for each box of a row that goes beyond its photo.

    A box may end on the last pixel (width - 1) or on its far edge (width): both ways of counting are met.
    """
    with np.errstate(invalid="ignore"):
        beyond_5 = (row.boxes_54[:, 2] > width) | (row.boxes_54[:, 3] > height)
    return [
        Defect(
            row.line,
            "error",
            "box outside",
            f"prediction {place + 1}: the box {' '.join(f'{corner:g}' for corner in row.boxes_54[place])} goes beyond the photo, "
            f"which is {width} x {height} pixels",
        )
        for place in np.flatnonzero(beyond_5).tolist()
    ]

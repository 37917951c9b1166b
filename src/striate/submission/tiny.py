"""Tiny ImageNet's form: the file name of a test image, one blank and a wnid on each line, without a header.

Source: the evaluation server of Stanford's course CS231n, for which the set was made.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from striate.classes import listed
from striate.submission import lines
from striate.submission.labels import WNID, above
from striate.submission.lines import Defect, refuse_repeated, short

FORBIDDEN = " ,"
_USUAL = re.compile(r"test_[0-9]+\.JPEG")


@dataclass(frozen=True)
class Guess:
    """What a submission says about one image. wnid: as it stands in the file. line: of the file, from 1."""

    name: str
    wnid: str
    line: int


def text(answers: Iterable[tuple[str, str]]) -> str:
    """The whole file, from (file name, wnid) of each image."""
    return "".join(f"{name} {wnid}\n" for name, wnid in answers)


def known_wnids(place: Path) -> frozenset[str] | None:
    """The classes that wnids.txt names, beside the images or above them; None where there is no such file."""
    path = above(place if place.is_dir() else place.parent, "wnids.txt")
    return None if path is None else frozenset(word for row in lines.read(path)[0] for word in row.split())


def read(path: Path, known: Collection[str] | None = None) -> tuple[list[Guess], list[Defect]]:
    """Reads a submission: one guess for each name (the first of those that repeat), and all that is wrong with it.

    known: the wnids there are; without them any wnid is taken. Raises as `lines.read`; nothing that stands in the file raises.
    """
    text_lines, defects = lines.read(path)
    guesses: list[Guess] = []
    for number, line in enumerate(text_lines, start=1):
        words = line.split()
        if not words:
            defects.append(Defect(number, "note", "blank line", "is blank; it is passed over"))
        elif number == 1 and line.startswith("ImageId"):
            defects.append(Defect(1, "error", "header", f"this form has no header, found {short(line)}: is it --format kaggle?"))
        elif len(words) != 2 or "\t" in line:
            said = f"expected a file name, one blank and a wnid, found {short(line)}"
            defects.append(Defect(number, "error", "columns", said))
            guesses.append(Guess(re.split(r"[\s,;]", line.strip())[0], "", number))
        else:
            if line != " ".join(words):
                defects.append(Defect(number, "note", "blanks", f"has more blanks than the one between: {short(line)}"))
            defects += _wrong_class(number, words[1], known)
            guesses.append(Guess(words[0], words[1], number))
    defects += refuse_repeated([(guess.line, guess.name) for guess in guesses], "name")
    return list({guess.name: guess for guess in reversed(guesses)}.values())[::-1], defects


def _wrong_class(line: int, wnid: str, known: Collection[str] | None) -> list[Defect]:
    if not WNID.fullmatch(wnid):
        said = f"expected a wnid, as n01443537, found {short(wnid)}"
    elif known is not None and wnid not in known:
        said = f"{wnid} is none of the {len(known):,} classes of wnids.txt (as {listed(sorted(known), 2)})"
    else:
        return []
    return [Defect(line, "error", "unknown wnid", said)]


def misnamed(guesses: Iterable[Guess]) -> list[Defect]:
    """An error for each name that is not one of Tiny ImageNet's test images; for a file that is checked without its images."""
    return [
        Defect(guess.line, "error", "name", f"expected a file name as test_0.JPEG, found {short(guess.name)}")
        for guess in guesses
        if not _USUAL.fullmatch(guess.name)
    ]

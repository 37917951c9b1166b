"""Is a submission what the server expects? Every malformed row, with its line."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from striate.data.layouts.detect import place_of
from striate.submission import images, kaggle, labels, lines, tiny
from striate.submission.lines import Defect

Format = Literal["kaggle", "tiny"]
_MOST_LISTED = 1000  # defects in the answer for machines; the counts are of all


@dataclass(frozen=True)
class Checked:
    """What was found in a submission. rows: images that have one; notes: what it was compared with."""

    path: Path
    format: Format
    rows: int
    defects: tuple[Defect, ...]
    notes: tuple[str, ...]

    @property
    def errors(self) -> int:
        """How many of the defects are errors."""
        return sum(defect.severity == "error" for defect in self.defects)

    def describe(self) -> list[str]:
        """Lines for people: the defects, the notes, and the verdict last."""
        found = f"{self.errors:,} errors" if self.errors else "no error"
        return [*lines.describe(self.defects), *self.notes, f"{self.path}: {self.rows:,} rows, {found}"]

    def to_json(self) -> dict[str, Any]:
        """Plain values: the counts of each kind, and the first thousand defects."""
        counts = Counter(defect.kind for defect in self.defects)
        listed = [vars(defect) for defect in self.defects[:_MOST_LISTED]]
        facts = {"file": str(self.path), "format": self.format, "rows": self.rows, "errors": self.errors}
        return {**facts, "kinds": dict(counts), "defects": listed, "notes": list(self.notes)}


def check(
    path: str | Path, format: Format = "kaggle", data: str | Path | None = None, mapping: str | Path | None = None
) -> Checked:
    """Checks a submission; what `striate submit --check` does.

    data: the test images it is for; without them names and the sides of photos are not compared. mapping: LOC_synset_mapping.txt,
    if it does not lie beside or above the images.
    Raises UserError or DataError where the file, the images or the mapping cannot be read at all.
    """
    path = Path(path)
    if format == "tiny":
        return _check_tiny(path, data)
    numbering = labels.find_mapping(None if mapping is None else Path(mapping), None if data is None else place_of(data))
    table = kaggle.read(path, numbering)
    defects, notes = list(table.defects), list[str]()
    if numbering is None:
        notes.append(f"Labels are compared with 1..{labels.CHALLENGE_CLASSES:,}, those of the challenge: no mapping was found.")
    if data is None:
        notes.append("Names and boxes are not compared with the photos: give --data TESTDIR for that.")
    else:
        index = images.open_test(data)
        expected = images.names(index, images.stem, kaggle.FORBIDDEN)
        wrong, place = lines.compare_names([(row.line, row.image_id) for row in table.rows], expected, "ImageId")
        defects += wrong
        for row in table.rows:
            found = images.sides(index, place[row.image_id]) if row.image_id in place else None
            if found is not None:
                defects += kaggle.outside(row, *found)
            elif row.image_id in place:
                said = f"the sides of {lines.short(row.image_id)} cannot be read, so its boxes are not compared"
                defects.append(Defect(row.line, "note", "unreadable photo", said))
    return Checked(path, format, len(table.rows), tuple(_sorted(defects)), tuple(notes))


def _check_tiny(path: Path, data: str | Path | None) -> Checked:
    known = None if data is None else tiny.known_wnids(place_of(data))
    guesses, defects = tiny.read(path, known)
    notes = [] if known is not None else ["Classes are not compared with wnids.txt: none was found."]
    if data is None:
        defects += tiny.misnamed(guesses)
        notes = ["Names and classes are not compared with the data: give --data TESTDIR for that."]
    else:
        expected = images.names(images.open_test(data), images.file_name, tiny.FORBIDDEN)
        defects += lines.compare_names([(guess.line, guess.name) for guess in guesses], expected, "name")[0]
    return Checked(path, "tiny", len(guesses), tuple(_sorted(defects)), tuple(notes))


def _sorted(defects: list[Defect]) -> list[Defect]:
    """In the order of the file; what is about the file as a whole comes first."""
    return sorted(defects, key=lambda defect: defect.line)

"""What the two forms have in common: lines of text, and what can be wrong with one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from striate.classes import listed
from striate.data.layouts.walk import unreadable
from striate.errors import UserError

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class Defect:
    """Something wrong or odd in a file.

    line: of the file, from 1; 0 where it is about the file as a whole. severity: whether the server would refuse or misread it
    ("error"), or takes it as it is ("note"). kind: a few words that are the same for all defects alike. text: what was found.
    """

    line: int
    severity: Literal["error", "note"]
    kind: str
    text: str

    @property
    def where(self) -> str:
        """'line 12', or 'file'."""
        return f"line {self.line:,}" if self.line else "file"


def read(path: Path) -> tuple[list[str], list[Defect]]:
    """The lines of a text file without their ends, and what is odd about how it is stored; line n of the file is at n - 1.

    Raises UserError where there is no such file or it may not be read, DataError where it cannot be.
    """
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise UserError(f"{path}: expected a text file to read, found {found}.")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise unreadable(error, path) from error
    defects: list[Defect] = []
    if data.startswith(_UTF_16):
        return [], [Defect(0, "error", "encoding", "is UTF-16 text; save it as UTF-8")]
    if data.startswith(BYTE_ORDER_MARK):
        defects.append(Defect(1, "note", "byte-order mark", "the file begins with a byte-order mark; it is passed over"))
        data = data.removeprefix(BYTE_ORDER_MARK)
    crlf = data.count(b"\r\n")
    if crlf:
        defects.append(Defect(0, "note", "line ends", f"{crlf:,} lines end in CRLF, as Windows writes them; taken as line ends"))
        data = data.replace(b"\r\n", b"\n")
    if b"\r" in data:
        line = data[: data.index(b"\r")].count(b"\n") + 1
        defects.append(Defect(line, "error", "line ends", "a carriage return without a line feed; end lines in a line feed"))
        data = data.replace(b"\r", b"\n")
    if not data.strip():
        defects.append(Defect(0, "error", "empty file", "there is nothing in it"))
        return [], defects
    raws = data.removesuffix(b"\n").split(b"\n")
    lines = []
    for number, raw in enumerate(raws, start=1):
        try:
            lines.append(raw.decode("utf-8"))
        except UnicodeDecodeError:
            lines.append(raw.decode("utf-8", "backslashreplace"))
            defects.append(Defect(number, "error", "encoding", f"is not UTF-8 text: {short(lines[-1])}"))
    return lines, defects


def short(text: str, most: int = 60) -> str:
    """The beginning of a text for a message, quoted, control characters escaped."""
    return repr(text if len(text) <= most else text[:most] + "…")


def compare_names(named: Sequence[tuple[int, str]], expected: Sequence[str], what: str) -> tuple[list[Defect], dict[str, int]]:
    """Whether the rows are those of the test images, each once.

    named: (line, name) of each row. expected: the names of all images. what: how such a name is called, as "ImageId".
    Returns what is wrong, and the number of each image by its name.
    """
    place = {name: number for number, name in enumerate(expected)}
    defects = [
        Defect(line, "error", f"unknown {what}", f"{short(name)} is none of the {len(place):,} test images")
        for line, name in named
        if name not in place
    ]
    rows = {name for _, name in named}
    missing = [name for name in expected if name not in rows]
    if missing:
        text = f"{len(missing):,} of {len(place):,} test images have no row: {listed(missing)}; each needs one"
        defects.append(Defect(0, "error", f"missing {what}", text))
    return defects, place


def refuse_repeated(named: Sequence[tuple[int, str]], what: str) -> list[Defect]:
    """An error for each row whose name an earlier row has. named, what: as in `compare_names`."""
    first: dict[str, int] = {}
    defects = []
    for line, name in named:
        earlier = first.setdefault(name, line)
        if earlier != line:
            text = f"{short(name)} stands in line {earlier:,} already; keep one of them"
            defects.append(Defect(line, "error", f"repeated {what}", text))
    return defects


def describe(defects: Sequence[Defect], most: int = 5) -> list[str]:
    """Sentences for people: errors first, of each kind the first few and how many more there are."""
    counts = Counter((defect.severity, defect.kind) for defect in defects)
    shown: Counter[tuple[str, str]] = Counter()
    said = []
    for defect in sorted(defects, key=lambda one: one.severity):  # "error" before "note"; lines keep their order
        group = defect.severity, defect.kind
        shown[group] += 1
        if shown[group] <= most:
            said.append(f"{defect.severity}: {defect.where}: {defect.text}")
        if shown[group] == counts[group] > most:
            said.append(f"{defect.severity}: {counts[group] - most:,} more of this kind ({defect.kind})")
    return said

"""What follows from the facts: defects of images, boxes and classes, each in one sentence and with its remedy.

The rules that need a number have it here, by name; each sentence says the number.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from striate.classes import Classes, listed
from striate.data import views
from striate.data.audit.facts import LOOKS_GREY, Facts
from striate.data.layouts.splits import order_note

Severity = Literal["error", "warning", "note"]

TINY_PX: Final = 32  # shorter side; where the whole set is of small images, half its median instead
LONGEST_ASPECT: Final = 5.0  # longer over shorter side
STRIP_ASPECT: Final = views.MAX_RESIZED_PIXELS / 256**2  # beyond, shorter side 256 takes more pixels than `views` allows
FEW_IMAGES: Final = 10  # of a class, for training
UNEQUAL: Final = 10.0  # images of the largest class over those of the smallest
BOX_SLACK_PX: Final = 1.0  # by which a box may stand out: sets differ in whether their numbers mean pixels or edges


def _no_rows() -> NDArray[np.int64]:
    return np.empty(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Defect:
    """One kind of thing that is wrong, or odd, in one split or in the whole set.

    severity: an error keeps images out of training or makes numbers wrong; a warning may; a note is only said.
    split: "" where it concerns the whole set. text: one sentence with the count. remedy: what to do.
    rows: [n] int64, the images of the split that it concerns. details: a word for each row, or none; without rows, one for
    each thing that is no image of the index (a missing file, a row of a list, a class).
    groups: for duplicates: images that are alike, each as (split, row).
    """

    kind: str
    severity: Severity
    split: str
    text: str
    remedy: str
    rows: NDArray[np.int64] = field(default_factory=_no_rows)
    details: tuple[str, ...] = ()
    groups: tuple[tuple[tuple[str, int], ...], ...] = ()

    def __len__(self) -> int:
        """How many images, groups or things it concerns."""
        return len(self.groups) or len(self.rows) or len(self.details)


def all_of(facts: Mapping[str, Facts]) -> list[Defect]:
    """Every defect of images, boxes and classes that follows from the facts of the splits."""
    found: list[Defect] = []
    for split, of_split in facts.items():
        found += _unusable(split, of_split)
        found += _odd(split, of_split)
        found += _shapes(split, of_split)
        found += _boxes(split, of_split)
        found += _balance(split, of_split)
    return found + _class_order(facts)


# ---------------------------------------------------------------- images that cannot be used

_BAD: Final[tuple[tuple[str, str, str], ...]] = (  # kind, pattern of its reasons, remedy; the first that fits counts
    ("empty", r"^empty file", "Download or unpack them again, or remove them."),
    ("bomb", r"the limit of|more than \d+ scans", "Shrink them with a tool that may take the memory, or remove them."),
    ("truncated", r"truncated|ends within", "Download or unpack them again: the end of the file is missing."),
    ("unsupported", r"^unsupported", "Convert them to JPEG or PNG."),
    ("not an image", r"not an image|NUL bytes", "Download them again, or remove them."),
    ("unreadable", r"^cannot be|^no permission|^no such file|^not a file|^a loop of", "Mend their rights, the link or the disk."),
    ("undecodable", r"", "Download them again, or remove them."),
)  # fmt: skip


def kind_of(reason: str) -> str:
    """The kind of defect that a `BadImage`'s reason tells of: empty, truncated, bomb and so on; "undecodable" in general."""
    return next(kind for kind, pattern, _ in _BAD if re.search(pattern, reason))


def _unusable(split: str, facts: Facts) -> list[Defect]:
    rows_of: dict[str, list[int]] = defaultdict(list)
    kinds: dict[str, str] = {}
    for row, reason in enumerate(facts.reason):
        if reason is not None:
            if reason not in kinds:
                kinds[reason] = kind_of(reason)
            rows_of[kinds[reason]].append(row)
    remedies = {kind: remedy for kind, _, remedy in _BAD}
    found = []
    for kind, rows in sorted(rows_of.items()):
        reasons = tuple(facts.reason[row] or "" for row in rows)
        text = f"{len(rows):,} of {len(facts):,} images of {split} cannot be used: {kind} ({listed(sorted(set(reasons)), 3)})."
        remedy = f"{remedies[kind]} To train without them: --data.on-bad skip."
        found.append(Defect(kind, "error", split, text, remedy, np.asarray(rows, dtype=np.int64), reasons))
    return found


# ---------------------------------------------------------------- images that are odd

_ODD: Final[tuple[tuple[str, Severity, str, str], ...]] = (  # as `decode` and `facts` call them
    ("wrong extension", "warning", "hold another format than their name says",
     "striate goes by content; rename them for tools that go by name."),
    ("damaged", "warning", "are JPEGs that only a lenient decoder accepts",
     "Look at them: their pixels may be wrong. Download them again where they are."),
    ("cmyk", "warning", "are CMYK, and are converted without a colour profile",
     "Convert them to RGB with their profile where colours matter."),
    ("alpha", "warning", "have transparency, and are laid on white", "Give them their background where white is wrong."),
    ("animated", "warning", "are animations, of which the first frame counts", "Save the frame that you mean as an image."),
    ("16-bit", "note", "have 16 bits for each channel, and are scaled to 8", "Nothing need be done."),
    ("palette", "note", "have a palette, which is looked up", "Nothing need be done."),
    ("exif-rotated", "note", "ask to be turned or mirrored for viewing (EXIF orientation)",
     "Keep one rule for training and use: --data.exif on turns them, off takes the pixels as stored. Boxes count as stored."),
    ("grey", "note", "are stored without colour", "Nothing need be done: they become three equal channels."),
    (LOOKS_GREY, "note", "are stored in colour and show none", "Nothing need be done."),
)  # fmt: skip


def _odd(split: str, facts: Facts) -> list[Defect]:
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, odd in enumerate(facts.odd):
        for word in odd:
            rows_of[word].append(row)
    found = []
    for kind, severity, words, remedy in _ODD:
        rows = rows_of.get(kind)
        if rows:
            text = f"{len(rows):,} of {len(facts):,} images of {split} {words}."
            found.append(Defect(kind, severity, split, text, remedy, np.asarray(rows, dtype=np.int64)))
    return found


def _shapes(split: str, facts: Facts) -> list[Defect]:
    """Images that are very small, or long and thin."""
    is_good_N = facts.is_good_N
    if not is_good_N.any():
        return []
    shorter_N, longer_N = facts.sides_N2.min(axis=1), facts.sides_N2.max(axis=1)
    limit_px = min(TINY_PX, float(np.median(shorter_N[is_good_N])) / 2)
    aspect_N = longer_N / np.maximum(shorter_N, 1)
    is_strip_N = is_good_N & (aspect_N > STRIP_ASPECT)
    judged: tuple[tuple[str, Severity, NDArray[np.bool_], str, str], ...] = (
        ("tiny", "warning", is_good_N & (shorter_N < limit_px), f"have a shorter side under {limit_px:g} pixels",
         "Look at them: thumbnails and placeholders teach nothing."),
        ("extreme aspect", "warning", is_good_N & (aspect_N > LONGEST_ASPECT) & ~is_strip_N,
         f"are more than {LONGEST_ASPECT:g} times as long as wide", "A square crop shows little of them."),
        ("strip", "error", is_strip_N, f"are more than {STRIP_ASPECT:.0f} times as long as wide, too long to resize",
         "Cut or remove them, or train without them: --data.on-bad skip."),
    )  # fmt: skip
    found = []
    for kind, severity, is_so_N, words, remedy in judged:
        rows = np.flatnonzero(is_so_N)
        if len(rows):
            sides = tuple(f"{width} x {height}" for width, height in facts.sides_N2[rows].tolist())
            text = f"{len(rows):,} of {len(facts):,} images of {split} {words}."
            found.append(Defect(kind, severity, split, text, remedy, rows, sides))
    return found


# ---------------------------------------------------------------- boxes


def _boxes(split: str, facts: Facts) -> list[Defect]:
    """Boxes against the sides of their images as stored. Images that are unusable are passed over."""
    boxes = facts.index.boxes
    if boxes is None or not len(boxes.xyxy):
        return []
    row_M = np.repeat(np.arange(len(facts)), np.diff(boxes.rows))
    low_M2, high_M2, sides_M2 = boxes.xyxy[:, :2], boxes.xyxy[:, 2:], facts.sides_N2[row_M].astype(np.float32)
    is_known_M = facts.is_good_N[row_M]
    is_flat_M = ~(np.isfinite(boxes.xyxy).all(axis=1) & (high_M2 > low_M2).all(axis=1))
    is_away_M = ~is_flat_M & is_known_M & ((low_M2 >= sides_M2) | (high_M2 <= 0)).any(axis=1)
    is_out_M = ((low_M2 < -BOX_SLACK_PX) | (high_M2 > sides_M2 + BOX_SLACK_PX)).any(axis=1) & is_known_M & ~is_flat_M & ~is_away_M
    judged: tuple[tuple[str, Severity, NDArray[np.bool_], str, str], ...] = (
        ("inverted box", "error", is_flat_M, "are inside out or have no area", "Mend or remove them in the file of boxes."),
        ("box outside", "error", is_away_M, "lie wholly outside their image",
         "Boxes count in pixels of the file as stored, before EXIF rotation and resizing: mend them, or remove them."),
        ("box beyond the edge", "warning", is_out_M, f"stand out of their image by more than {BOX_SLACK_PX:g} pixel",
         "Boxes count in pixels of the file as stored, before EXIF rotation and resizing: clip them, or mend them."),
    )  # fmt: skip
    found = []
    for kind, severity, is_so_M, words, remedy in judged:
        at = np.flatnonzero(is_so_M)
        if len(at):
            details = tuple(
                f"{_box(boxes.xyxy[box])} in {width} x {height}"
                for box, (width, height) in zip(at, facts.sides_N2[row_M[at]].tolist(), strict=True)
            )
            text = f"{len(at):,} of {len(row_M):,} boxes of {split} {words}."
            found.append(Defect(kind, severity, split, text, remedy, row_M[at], details))
    return found


def _box(xyxy_4: NDArray[np.float32]) -> str:
    return "(" + ", ".join(f"{edge:g}" for edge in xyxy_4.tolist()) + ")"


# ---------------------------------------------------------------- classes


def _balance(split: str, facts: Facts) -> list[Defect]:
    """Empty, small and very unequal classes."""
    classes, counts_K = facts.index.classes, facts.index.counts()
    if not counts_K.any():  # a split without labels
        return []
    found = []

    def classes_are(kind: str, severity: Severity, is_so_K: NDArray[np.bool_], words: str, remedy: str) -> None:
        places = np.flatnonzero(is_so_K).tolist()
        if places:
            details = tuple(f"{classes.ids[place]}: {counts_K[place]:,} images" for place in places)
            names = listed((classes.title(place) for place in places), 5)
            text = f"{len(places):,} of {len(classes):,} classes of {split} {words}: {names}."
            found.append(Defect(kind, severity, split, text, remedy, details=details))

    classes_are("empty class", "error", counts_K == 0, "have no images", "Fill them, or remove them from every split.")
    if split == "train":
        is_small_K = (counts_K > 0) & (counts_K < FEW_IMAGES)
        classes_are("small class", "warning", is_small_K, f"have fewer than {FEW_IMAGES} images", "Add images, or join classes.")
    least, most = int(counts_K[counts_K > 0].min()), int(counts_K.max())
    if most / least > UNEQUAL:
        places = np.flatnonzero(counts_K * UNEQUAL < most)
        text = (
            f"The largest class of {split} has {most:,} images, the smallest {least:,}: more than {UNEQUAL:g} times as many, "
            "so that top-1 says little about the small ones."
        )
        details = tuple(f"{classes.ids[place]}: {counts_K[place]:,} images" for place in places.tolist())
        remedy = "Look at the accuracy of each class, and add images to the small ones."
        found.append(Defect("unequal classes", "warning", split, text, remedy, details=details))
    return found


def _class_order(facts: Mapping[str, Facts]) -> list[Defect]:
    """Traps in ids and names: an order of text that is not that of numbers, and names that several ids share."""
    of_classes: dict[str, Classes] = {of_split.index.classes.hash: of_split.index.classes for of_split in facts.values()}
    found = []
    for classes in of_classes.values():
        found += [
            Defect(
                "class order", "warning", "", f"{note[0].upper()}{note[1:]}.", "Never match classes by position.", details=(note,)
            )
            for note in order_note(classes)
        ]
        ids_of: dict[str, list[str]] = defaultdict(list)
        for class_id, name in zip(classes.ids, classes.names, strict=True):
            ids_of[name].append(class_id)
        shared = tuple(f"{name}: {', '.join(ids)}" for name, ids in sorted(ids_of.items()) if name and len(ids) > 1)
        if shared:
            text = f"{len(shared):,} names stand for more than one class: {listed((line.split(':')[0] for line in shared), 5)}."
            found.append(Defect("shared class name", "note", "", text, "Use ids as keys, never names.", details=shared))
    return found

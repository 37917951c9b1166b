"""Thumbnails: some hundred images of a split, small, with their labels: what the rules over labels and splits look at.

Of a training with striate they come from the stored images, decoded once at a reduced size, the same number of each class
where there are enough. Of a stranger's loader they are its batches made small, as the network gets them, augmented or not.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from striate import machine
from striate.data import decode
from striate.data.audit import likeness
from striate.data.crew import Failed, Note, Stuck, threads_in_order
from striate.data.decode import BadImage, Pixels
from striate.data.index import Index
from striate.doctor.patient import Batches, Patient

SIDE: Final = 32  # of a thumbnail: the side that `likeness.are_copies` compares

# Images of a split that are looked at. Six hundred labels tell order from chance in every set that was tried (docs/doctor).
MOST_IMAGES: Final = 600
# Classes that they are taken from: with more, too few images of each are left. Half of them are the first ones and half the last
# ones, so that a shift and a reversal of the numbers both stay within them.
MOST_CLASSES: Final = 40
# Share of the remaining time that one split may take, and the most of it.
_SHARE: Final = 0.1
_MOST_S: Final = 3.0
# A JPEG is decoded at half, a quarter or an eighth of its size as long as its sides stay above this.
_DECODED_PX: Final = 96
_CHUNK: Final = 16
_TIMEOUT_S: Final = 60.0

Split = Literal["train", "scored"]


@dataclass(frozen=True, eq=False)
class Thumbnails:
    """Some images of a split.

    pixels_NSS3: [N, 32, 32, 3] float32, 0..255 where the images come from an index, else as the network gets them (one channel
    three times). labels_N: [N] int64. rows_N: [N] int64, rows of the index, or the number of the image in the loader's order.
    likeness_N: [N] uint64, see `data.audit.likeness`. sides_N2: [N, 2] width and height of the images. keys: their names, or
    their numbers. total: images in the split, None where nobody knows. is_whole: whether these are all of them.
    """

    pixels_NSS3: NDArray[np.float32]
    labels_N: NDArray[np.int64]
    rows_N: NDArray[np.int64]
    likeness_N: NDArray[np.uint64]
    sides_N2: NDArray[np.int64]
    keys: tuple[str, ...]
    total: int | None

    def __len__(self) -> int:
        return len(self.labels_N)

    def select(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Thumbnails:
        """Some of the thumbnails. rows: [N] bool, or [M] their places."""
        places = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        return Thumbnails(
            self.pixels_NSS3[places],
            self.labels_N[places],
            self.rows_N[places],
            self.likeness_N[places],
            self.sides_N2[places],
            tuple(self.keys[place] for place in places.tolist()),
            self.total,
        )

    @property
    def is_whole(self) -> bool:
        """Whether these are all images of the split."""
        return self.total is not None and len(self) >= self.total

    @property
    def levels_NSS3(self) -> NDArray[np.uint8]:
        """The pixels as 0..255, whatever they were."""
        low, high = float(self.pixels_NSS3.min(initial=0.0)), float(self.pixels_NSS3.max(initial=1.0))
        if low >= 0 and 2 < high <= 255:
            return np.round(self.pixels_NSS3).astype(np.uint8)
        return _levels(self.pixels_NSS3, low, high)

    @property
    def grey_NSS(self) -> NDArray[np.uint8]:
        """Small grey pictures, as `likeness.small` makes them."""
        weighed_NSS = self.levels_NSS3.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
        return np.round(weighed_NSS).astype(np.uint8)


def of(patient: Patient, split: Split) -> Thumbnails | None:
    """Thumbnails of a split, made once; None where it has no labelled images."""
    name = f"thumbnails {split}"
    if name not in patient.kept:
        index = patient.train_index if split == "train" else patient.val_index
        batches = patient.train if split == "train" else patient.scored
        seconds = min(_MOST_S, _SHARE * max(0.0, patient.left_s))
        found = None
        if index is not None:
            found = of_index(index, seconds)
        elif patient.train_index is None and batches is not None:
            found = of_batches(batches, seconds)
        patient.kept[name] = found if found is not None and len(found) else None
    kept = patient.kept[name]
    assert kept is None or isinstance(kept, Thumbnails)
    return kept


def same_pictures(a: Thumbnails, b: Thumbnails) -> NDArray[np.int64]:
    """Pairs of places in a and in b that show the same picture, as `data.audit` finds them: [M, 2] int64."""
    if not len(a) or not len(b):
        return np.zeros((0, 2), dtype=np.int64)
    differ_AB = np.bitwise_count(a.likeness_N[:, None] ^ b.likeness_N[None, :])
    is_near_AB = (differ_AB <= likeness.RADIUS) & (a.likeness_N != likeness.PLAIN)[:, None] & (b.likeness_N != likeness.PLAIN)
    pairs_M2 = np.argwhere(is_near_AB)
    if a is b:
        pairs_M2 = pairs_M2[pairs_M2[:, 0] != pairs_M2[:, 1]]
    if not len(pairs_M2):
        return pairs_M2
    return pairs_M2[likeness.are_copies(a.grey_NSS[pairs_M2[:, 0]], b.grey_NSS[pairs_M2[:, 1]])]


# ---------------------------------------------------------------- from stored images


def of_index(index: Index, seconds: float, most: int = MOST_IMAGES) -> Thumbnails:
    """Thumbnails of an index, as many as the time allows. Images that cannot be decoded are left out: the loader says so."""
    rows_M = chosen(np.asarray(index.labels, dtype=np.int64), most)
    ends = time.monotonic() + seconds
    kept: list[int] = []
    small: list[Pixels] = []
    samples: list[Pixels] = []
    sides: list[tuple[int, int]] = []
    for row, picture in zip(rows_M.tolist(), _pictures(index, rows_M, ends), strict=False):
        if picture is None:
            continue
        picture_HW3, side = picture
        kept.append(row)
        small.append(np.asarray(Image.fromarray(picture_HW3).resize((SIDE, SIDE), Image.Resampling.BOX)))
        samples.append(likeness.sampled(picture_HW3))
        sides.append(side)
    rows_N = np.array(kept, dtype=np.int64)
    pixels = np.stack(small).astype(np.float32) if small else np.zeros((0, SIDE, SIDE, 3), np.float32)
    shapes = [(sample.shape[0], sample.shape[1]) for sample in samples]
    return Thumbnails(
        pixels,
        np.asarray(index.labels, dtype=np.int64)[rows_N],
        rows_N,
        likeness.likenesses(samples, shapes) if samples else np.zeros(0, np.uint64),
        np.array(sides, dtype=np.int64).reshape(-1, 2),
        tuple(index.keys[row] for row in kept),
        len(index),
    )


def chosen(labels_N: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Rows of at most `most` labelled images, the same number of each class where there are enough, in a fixed random order.

    Any first part of them is such a choice itself, so that time may run out.
    """
    present = np.unique(labels_N[labels_N >= 0])
    if len(present) > MOST_CLASSES:
        half = MOST_CLASSES // 2
        present = np.concatenate([present[:half], present[-half:]])
    if not len(present):
        return np.zeros(0, dtype=np.int64)
    mixed = machine.permutation(0, "doctor thumbnails", 0, len(labels_N))
    mixed = mixed[np.isin(labels_N[mixed], present)]
    order = np.argsort(labels_N[mixed], kind="stable")
    counts = np.bincount(labels_N[mixed])
    starts = np.cumsum(counts) - counts
    turn = np.empty(len(mixed), dtype=np.int64)
    turn[order] = np.arange(len(mixed)) - starts[labels_N[mixed][order]]
    # One of each class, then another of each, and so on.
    return np.asarray(mixed[np.argsort(turn, kind="stable")][:most], dtype=np.int64)


def _pictures(index: Index, rows_M: NDArray[np.int64], ends: float) -> Iterator[tuple[Pixels, tuple[int, int]] | None]:
    """Each picture, small or whole, with the sides of the stored one; None for one that cannot be read."""

    def work(rows: list[int], note: Note) -> list[tuple[Pixels, tuple[int, int]] | None]:
        found: list[tuple[Pixels, tuple[int, int]] | None] = []
        for row in rows:
            note(row)
            try:
                found.append(reduced(index.content(row)))
            except BadImage:
                found.append(None)
        return found

    workers = machine.cores() if machine.cores() > 1 else 0
    jobs = (rows_M[start : start + _CHUNK].tolist() for start in range(0, len(rows_M), _CHUNK))
    with contextlib.closing(threads_in_order(work, jobs, workers, 4 * max(1, workers), _TIMEOUT_S)) as results:
        try:
            for found in results:
                yield from found
                if time.monotonic() > ends:
                    return
        except (Failed, Stuck):  # of a store that fails altogether; the loader says so in its own words
            return


def reduced(content: bytes | Pixels) -> tuple[Pixels, tuple[int, int]]:
    """A stored image, a JPEG at a fraction of its size where that is enough here, and the sides as stored. Raises BadImage.

    The EXIF orientation is not applied: every rule compares images that were treated alike.
    """
    if isinstance(content, bytes) and content[:2] == b"\xff\xd8":
        sides = decode.sides(content)
        if min(sides) >= 2 * _DECODED_PX:
            with contextlib.suppress(ValueError):  # what it does not like is decoded in full, which says why
                picture = simplejpeg.decode_jpeg(content, "RGB", min_height=_DECODED_PX, min_width=_DECODED_PX, min_factor=2)
                return picture, sides
    picture = decode.pixels(content, exif=False)
    return picture, (picture.shape[1], picture.shape[0])


# ---------------------------------------------------------------- from a loader


def of_batches(batches: Batches, seconds: float, most: int = MOST_IMAGES) -> Thumbnails | None:
    """Thumbnails of a loader's first images, as many as the time allows (at least one batch); None where it gives none."""
    ends = time.monotonic() + seconds
    pixels: list[torch.Tensor] = []
    labels: list[torch.Tensor] = []
    side = (0, 0)
    count, is_all = 0, True
    for images_BCHW, labels_B in batches():
        if images_BCHW.dim() != 4 or images_BCHW.shape[1] not in (1, 3) or labels_B.dim() != 1:
            return None
        side = (int(images_BCHW.shape[3]), int(images_BCHW.shape[2]))
        small = functional.interpolate(images_BCHW.detach().float(), (SIDE, SIDE), mode="area").cpu()
        pixels.append(small.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).contiguous())
        labels.append(labels_B.detach().cpu().long())
        count += len(labels_B)
        if count >= most or time.monotonic() > ends:
            is_all = False
            break
    if not count:
        return None
    pixels_NSS3 = torch.cat(pixels).numpy()
    is_finite_N = np.isfinite(pixels_NSS3).all(axis=(1, 2, 3))
    pixels_NSS3 = np.where(is_finite_N[:, None, None, None], pixels_NSS3, 0.0).astype(np.float32)
    low, high = float(pixels_NSS3.min()), float(pixels_NSS3.max())
    levels = list(_levels(pixels_NSS3, low, high))
    rows_N = np.arange(count, dtype=np.int64)
    return Thumbnails(
        pixels_NSS3,
        torch.cat(labels).numpy(),
        rows_N,
        likeness.likenesses(levels, [(SIDE, SIDE)] * count),
        np.tile(np.array(side, dtype=np.int64), (count, 1)),
        tuple(f"image {row:,} of the loader" for row in rows_N.tolist()),
        count if is_all else None,
    )


def _levels(pixels_NSS3: NDArray[np.float32], low: float, high: float) -> NDArray[np.uint8]:
    return np.round((pixels_NSS3 - low) * (255 / max(high - low, 1e-12))).astype(np.uint8)

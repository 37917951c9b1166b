"""The same picture twice: byte for byte by SHA-256, and by looks through an index of perceptual hashes.

What matters is where the copies lie. Across splits they make a score too good (leakage); under several classes at least one
label is wrong; within one class of one split they only count more than others.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from striate.data import decode, resident
from striate.data.audit import likeness
from striate.data.audit.checks import Defect
from striate.data.audit.facts import Facts
from striate.data.crew import Failed, Note, Stuck, threads_in_order
from striate.data.decode import BadImage, Pixels
from striate.data.index import Index

Group = tuple[tuple[str, int], ...]  # images as (split, row), in the order of the splits and their rows

_CHUNKS: Final = 4  # of 16 bits each
_AT_ONCE: Final = 1 << 20  # pairs in memory while they are compared
_MOST_COMPARISONS: Final = 5_000_000_000  # of likenesses; the 1.3 million of ImageNet take about half of it
_MOST_PAIRS: Final = 10_000_000  # of likenesses near each other
_STANDING: Final = 4  # images of one likeness that are compared with those of another
_NEXT: Final = 16  # images of one likeness that each of them is compared with
_CHUNK: Final = 32  # images of one job
_TIMEOUT_S: Final = 120.0


def exact(facts: Mapping[str, Facts]) -> list[Defect]:
    """Images whose stored bytes are the same, by SHA-256. Those that could not be read are left out."""
    images = _Images.of(facts)
    content_N = images.content_N
    return _defects([images.group(rows) for rows in _runs(content_N) if images.is_read_N[rows[0]]], facts, is_near=False)


def near(facts: Mapping[str, Facts], workers: int, progress: Callable[[int, int], None] | None = None) -> list[Defect]:
    """Images that look the same though their bytes differ: saved again, resized, a little brighter, made grey.

    Candidates are all pairs whose likenesses differ in at most `likeness.RADIUS` bits, found exactly (`pairs_within`). Their
    images are read once more by `workers` threads (0: here and now), and the pixels decide (`likeness.are_copies`). Plain
    pictures have no likeness and are not searched; where many images share one likeness, four of them stand for all against
    other likenesses. A crowded set is searched within a smaller radius, and a defect says so.
    progress(done, total) counts the images read again, is called between comparisons as well (with all images), and may raise
    to stop.
    """
    images = _Images.of(facts)
    _, alone_C = np.unique(images.content_N, return_index=True)  # one image stands for all with the same bytes
    alone_C = alone_C[images.likeness_N[alone_C] != likeness.PLAIN]
    count = len(images.row_N)
    pairs_M2, radius = _candidates(images.likeness_N[alone_C], None if progress is None else lambda: progress(count, count))
    pairs_M2 = alone_C[pairs_M2]
    seen_L = np.unique(pairs_M2)
    small_L = _looked_at(images, facts, seen_L, workers, progress)
    place_M2 = np.searchsorted(seen_L, pairs_M2)
    is_copy_M = np.zeros(len(pairs_M2), dtype=bool)
    for start in range(0, len(pairs_M2), 4096):
        part = slice(start, start + 4096)
        is_copy_M[part] = likeness.are_copies(small_L[place_M2[part, 0]], small_L[place_M2[part, 1]])
    copies_M2 = pairs_M2[is_copy_M]
    same_bytes = {int(images.content_N[rows[0]]): rows for rows in _runs(images.content_N)}
    groups = []
    for together in connected(copies_M2):
        whole = [same_bytes.get(int(images.content_N[row]), np.array([row])) for row in together]
        groups.append(images.group(np.sort(np.concatenate(whole))))
    defects = _defects(groups, facts, is_near=True)
    if radius < likeness.RADIUS:
        text = f"So many pictures are alike that near-duplicates were searched within {radius} bits, not {likeness.RADIUS}."
        remedy = "Remove the near-duplicates that were found, and audit again: others may remain."
        defects.append(Defect("near-duplicates limited", "note", "", text, remedy))
    return defects


# ---------------------------------------------------------------- the images of all splits in one line


@dataclass(frozen=True, eq=False)
class _Images:
    """All images, numbered through. content_N: [N] int64, the same number for the same bytes, another for each unread one."""

    splits: tuple[str, ...]
    split_N: NDArray[np.int64]
    row_N: NDArray[np.int64]
    is_read_N: NDArray[np.bool_]
    content_N: NDArray[np.int64]
    likeness_N: NDArray[np.uint64]

    @classmethod
    def of(cls, facts: Mapping[str, Facts]) -> _Images:
        counts = [len(of_split) for of_split in facts.values()]
        sha256_N32 = np.concatenate([np.zeros((0, 32), np.uint8), *(of_split.sha256_N32 for of_split in facts.values())])
        is_read_N = np.asarray(sha256_N32.any(axis=1))
        whole_N = np.ascontiguousarray(sha256_N32).view("V32")[:, 0]
        _, content_N = np.unique(whole_N, return_inverse=True)
        content_N = np.where(is_read_N, content_N, len(content_N) + np.arange(len(content_N)))
        return cls(
            splits=tuple(facts),
            split_N=np.repeat(np.arange(len(counts)), counts),
            row_N=np.concatenate([np.zeros(0, np.int64), *map(np.arange, counts)]),
            is_read_N=is_read_N,
            content_N=content_N,
            likeness_N=np.concatenate([np.zeros(0, np.uint64), *(of_split.likeness_N for of_split in facts.values())]),
        )

    def group(self, rows_M: NDArray[np.int64]) -> Group:
        """Images by their numbers, as (split, row)."""
        return tuple((self.splits[self.split_N[i]], int(self.row_N[i])) for i in rows_M.tolist())


def _runs(values_N: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """The places of each value that stands more than once: [m] int64, rising."""
    order_N = np.argsort(values_N, kind="stable")
    starts = np.flatnonzero(np.diff(values_N[order_N], prepend=-1))
    ends = np.append(starts[1:], len(order_N))
    for start, end in zip(starts[ends - starts > 1].tolist(), ends[ends - starts > 1].tolist(), strict=True):
        yield order_N[start:end]


def connected(pairs_M2: NDArray[np.int64]) -> list[list[int]]:
    """Numbers that pairs link, directly or through others: groups of two or more, each rising, by their first number."""
    parent: dict[int, int] = {}

    def root(one: int) -> int:
        while parent.setdefault(one, one) != one:
            parent[one] = one = parent[parent[one]]
        return one

    for a, b in pairs_M2.tolist():
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    groups: dict[int, list[int]] = {}
    for one in sorted(parent):
        groups.setdefault(root(one), []).append(one)
    return list(groups.values())


# ---------------------------------------------------------------- what it means


def _defects(groups: list[Group], facts: Mapping[str, Facts], is_near: bool) -> list[Defect]:
    """Groups of alike images as defects: in several splits, under several classes, or within one class of one split."""
    splits = list(facts)
    across: dict[tuple[str, str], list[Group]] = {}
    conflicts: list[Group] = []
    within: dict[str, list[Group]] = {}
    for group in sorted(groups, key=lambda group: (splits.index(group[0][0]), group[0][1])):
        present = [split for split in splits if any(split == one for one, _ in group)]
        labels = _labels(group, facts)
        for pair in itertools.combinations(present, 2):
            across.setdefault(pair, []).append(group)
        if len(set(labels)) > 1:
            conflicts.append(group)
        if len(present) == 1 and len(set(labels)) < 2:
            within.setdefault(present[0], []).append(group)
    near, how = ("near-", "look like") if is_near else ("", "are, byte for byte,")
    found = []
    for (first, second), shared in across.items():
        count = sum(split == second for group in shared for split, _ in group)
        found.append(
            Defect(
                kind=f"{near}duplicates across splits",
                severity="warning" if is_near else "error",
                split=second,
                text=f"{count:,} of {len(facts[second]):,} images of {second} {how} images of {first}: leakage.",
                remedy=f"Remove them from {first}, or from {second}: a network is scored on pictures it was trained on.",
                groups=tuple(shared),
            )
        )
    if conflicts:
        wrong = sum(_least_wrong(_labels(group, facts)) for group in conflicts)
        found.append(
            Defect(
                kind=f"{near}duplicates with other labels",
                severity="warning" if is_near else "error",
                split="",
                text=f"{len(conflicts):,} {_pictures(len(conflicts))} under several classes: "
                f"{'probably' if is_near else 'at least'} {wrong:,} wrong {'label' if wrong == 1 else 'labels'}.",
                remedy="Look at each, and keep it under the right class; where both are right, remove it.",
                groups=tuple(conflicts),
            )
        )
    for split, alike in within.items():
        extra = sum(map(len, alike)) - len(alike)
        found.append(
            Defect(
                kind=f"{near}duplicates within a class",
                severity="note" if is_near else "warning",
                split=split,
                text=f"{extra:,} of {len(facts[split]):,} images of {split} {how} others of their class.",
                remedy="Keep one of each, or leave them: such a picture only counts more than others.",
                groups=tuple(alike),
            )
        )
    return found


def _labels(group: Group, facts: Mapping[str, Facts]) -> list[str]:
    """The class ids of the group's labelled images; by id, since splits may number their classes differently."""
    indexes = [(facts[split].index, row) for split, row in group]
    return [index.classes.ids[index.labels[row]] for index, row in indexes if index.labels[row] >= 0]


def _least_wrong(labels: list[str]) -> int:
    """How many of the labels of one picture are wrong if the most frequent one is right."""
    return len(labels) - max(map(labels.count, labels))


def _pictures(count: int) -> str:
    return "picture stands" if count == 1 else "pictures stand"


# ---------------------------------------------------------------- candidates


def _candidates(likeness_C: NDArray[np.uint64], ask: Callable[[], None] | None) -> tuple[NDArray[np.int64], int]:
    """Pairs of images whose likenesses are near or equal, and the radius they were searched within: [M, 2] int64."""
    codes_U, inverse_C = np.unique(likeness_C, return_inverse=True)
    order_C = np.argsort(inverse_C, kind="stable")
    counts_U = np.bincount(inverse_C, minlength=len(codes_U))
    starts_U = np.cumsum(counts_U) - counts_U
    pairs_P2, radius = pairs_within(codes_U, ask=ask)
    found = [np.zeros((0, 2), dtype=np.int64)]
    for a, b in itertools.product(range(_STANDING), repeat=2):
        is_there_P = (counts_U[pairs_P2[:, 0]] > a) & (counts_U[pairs_P2[:, 1]] > b)
        found.append(order_C[starts_U[pairs_P2[is_there_P]] + np.array([a, b])])
    for ahead in range(1, _NEXT + 1):
        is_equal_C = inverse_C[order_C[:-ahead]] == inverse_C[order_C[ahead:]]
        found.append(np.stack([order_C[:-ahead][is_equal_C], order_C[ahead:][is_equal_C]], axis=1))
    return np.concatenate(found), radius


def pairs_within(
    codes_U: NDArray[np.uint64],
    radius: int = likeness.RADIUS,
    most_comparisons: int = _MOST_COMPARISONS,
    most_pairs: int = _MOST_PAIRS,
    ask: Callable[[], None] | None = None,
) -> tuple[NDArray[np.int64], int]:
    """All pairs of different 64-bit codes that differ in at most `radius` bits.

    codes_U: [U] uint64, each once. Returns places in it, [P, 2] int64 with the smaller first, each pair once, and the radius
    that was kept. That is `radius`, unless it would take more comparisons (known before the first) or give more pairs than
    allowed: then the largest that does not. Within it nothing is missed. ask: called after each million comparisons; may raise.
    Multi-index hashing: of two codes that differ in at most 4 q + a bits, one of the first a + 1 chunks of 16 bits differs in at
    most q, or one of the others in at most q - 1; so each chunk is a table, and only near entries of it are compared.
    Source: Norouzi, Punjani and Fleet 2012 (Fast search in Hamming space with multi-index hashing), section 3.
    """
    bits_U64 = np.unpackbits(codes_U.view(np.uint8).reshape(-1, 8), axis=1)
    tables = [_Table(codes_U, bits_U64, chunk) for chunk in range(_CHUNKS)]
    while radius > 0 and sum(table.comparisons(_within(radius, i)) for i, table in enumerate(tables)) > most_comparisons:
        radius -= 1
    chunk_radii = [_within(radius, chunk) for chunk in range(_CHUNKS)]
    found = [np.zeros((0, 2), dtype=np.int64)]
    total = 0
    for chunk, table in enumerate(tables):
        for near_M2 in table.near(chunk_radii[chunk], radius):
            if ask is not None:
                ask()
            differ_M = codes_U[near_M2[:, 0]] ^ codes_U[near_M2[:, 1]]
            is_new_M = np.bitwise_count(differ_M) <= radius  # which may have become smaller
            for earlier in range(chunk):  # what an earlier table gave is not given again
                is_new_M &= np.bitwise_count(differ_M & tables[earlier].mask).astype(np.int64) > chunk_radii[earlier]
            found.append(np.sort(near_M2[is_new_M], axis=1))
            total += len(found[-1])
            while total > most_pairs:
                radius -= 1
                found = [part[_distances(codes_U, part) <= radius] for part in found]
                total = sum(map(len, found))
    return np.concatenate(found), radius


def _distances(codes_U: NDArray[np.uint64], pairs_P2: NDArray[np.int64]) -> NDArray[np.uint8]:
    return np.asarray(np.bitwise_count(codes_U[pairs_P2[:, 0]] ^ codes_U[pairs_P2[:, 1]]))


def _within(radius: int, chunk: int) -> int:
    """The bits that may differ in one chunk, so that all together miss no pair within `radius`; -1 where none need."""
    each, rest = divmod(radius, _CHUNKS)
    return each if chunk <= rest else each - 1


class _Table:
    """The codes in the order of 16 of their bits, every fourth one: neighbouring bits, which go together, are dealt out.

    mask: these bits of a code.
    """

    def __init__(self, codes_U: NDArray[np.uint64], bits_U64: NDArray[np.uint8], chunk: int) -> None:
        is_ours_64 = np.arange(64) % _CHUNKS == chunk
        self.mask = np.packbits(is_ours_64).view(np.uint64)[0]
        key_U = np.ascontiguousarray(np.packbits(bits_U64[:, is_ours_64], axis=1)).view(np.uint16)[:, 0]
        self._order_U = np.argsort(key_U, kind="stable")
        self._codes_U = codes_U[self._order_U]
        self._key_U = key_U[self._order_U].astype(np.int64)
        self._count_B = np.bincount(key_U, minlength=1 << 16)
        self._start_B = np.cumsum(self._count_B) - self._count_B

    def comparisons(self, radius: int) -> int:
        """How many pairs of codes `near` compares."""
        if radius < 0:
            return 0
        buckets_B, count_B = np.arange(1 << 16), self._count_B
        same = int((count_B * (count_B - 1)).sum()) // 2
        return same + sum(int((count_B * count_B[buckets_B ^ flip]).sum()) // 2 for flip in _flips(radius))

    def near(self, radius: int, whole_radius: int) -> Iterator[NDArray[np.int64]]:
        """Pairs of codes, by place, that differ in at most `whole_radius` bits, of those here in at most `radius`.

        [M, 2] int64, of a million comparisons at a time, each pair once.
        """
        if radius < 0:
            return
        begin_U = np.arange(1, len(self._key_U) + 1)  # in its own bucket, a code meets those after it
        yield from self._compared(begin_U, (self._start_B + self._count_B)[self._key_U] - begin_U, whole_radius)
        for flip in _flips(radius):
            other_U = self._key_U ^ flip
            count_U = np.where(self._key_U < other_U, self._count_B[other_U], 0)
            yield from self._compared(self._start_B[other_U], count_U, whole_radius)

    def _compared(self, begin_U: NDArray[np.int64], count_U: NDArray[np.int64], radius: int) -> Iterator[NDArray[np.int64]]:
        """Compares each code, in this table's order, with `count` others from `begin` on."""
        met_S = np.flatnonzero(count_U)
        begin_S, count_S = begin_U[met_S], count_U[met_S]
        end_S = np.cumsum(count_S)
        total = int(end_S[-1]) if len(end_S) else 0
        for start in range(0, total, _AT_ONCE):
            stop = min(start + _AT_ONCE, total)
            part = slice(
                int(np.searchsorted(end_S, start, side="right")), int(np.searchsorted(end_S, stop - 1, side="right")) + 1
            )
            before_S = end_S[part] - count_S[part]
            now_S = np.minimum(end_S[part], stop) - np.maximum(before_S, start)
            first_M = np.repeat(met_S[part], now_S)
            second_M = np.arange(start, stop) + np.repeat(begin_S[part] - before_S, now_S)
            is_near_M = np.bitwise_count(self._codes_U[first_M] ^ self._codes_U[second_M]) <= radius
            yield np.stack([self._order_U[first_M[is_near_M]], self._order_U[second_M[is_near_M]]], axis=1)


def _flips(radius: int) -> Iterator[int]:
    """All 16-bit numbers with 1 to `radius` bits."""
    for count in range(1, radius + 1):
        for bits in itertools.combinations(range(16), count):
            yield sum(1 << bit for bit in bits)


# ---------------------------------------------------------------- a second look


def _looked_at(
    images: _Images,
    facts: Mapping[str, Facts],
    seen_L: NDArray[np.int64],
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> NDArray[np.uint8]:
    """The small pictures of some images, by number: [L, 32, 32] uint8; where one cannot be read now, black: a copy of none."""
    small_L = np.zeros((len(seen_L), likeness.SMALL, likeness.SMALL), dtype=np.uint8)
    done = 0
    for number, split in enumerate(images.splits):
        places = np.flatnonzero(images.split_N[seen_L] == number)
        pictures = _smalls(facts[split].index, images.row_N[seen_L[places]], workers)
        for place, picture in zip(places.tolist(), pictures, strict=True):
            if picture is not None:
                small_L[place] = picture
            done += 1
            if progress is not None and (done % _CHUNK == 0 or done == len(seen_L)):
                progress(done, len(seen_L))
    return small_L


def _smalls(index: Index, rows_M: NDArray[np.int64], workers: int) -> Iterator[Pixels | None]:
    """The small pictures of some rows, in their order. Raises as the loader does, with file names."""

    def work(rows: list[int], note: Note) -> list[Pixels | None]:
        found: list[Pixels | None] = []
        for row in rows:
            note(row)
            try:
                found.append(likeness.small(decode.pixels(index.content(row), exif=True)))
            except BadImage:
                found.append(None)
        return found

    jobs = (rows_M[start : start + _CHUNK].tolist() for start in range(0, len(rows_M), _CHUNK))
    with contextlib.closing(threads_in_order(work, jobs, workers, 4 * max(1, workers), _TIMEOUT_S)) as results:
        try:
            for found in results:
                yield from found
        except Stuck as error:
            raise resident.stuck_error(error, index) from error
        except Failed as error:
            raise resident.failed_error(error, index) from error

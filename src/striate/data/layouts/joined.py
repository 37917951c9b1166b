"""Several indexes as one: photos from files, archives and tables in one call, or all splits of a set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from striate.classes import Classes
from striate.data.decode import Pixels
from striate.data.index import UNLABELLED, Index, Keys


@dataclass(frozen=True, eq=False)
class Joined:
    """The store of several indexes: place n is image n, counted over all. firsts_P1: [P + 1] int64, images before each."""

    parts: tuple[Index, ...]
    firsts_P1: np.ndarray

    def read(self, place: int) -> bytes | Pixels:
        """As `Store`."""
        part, row = self._row(place)
        return part.content(row)

    def where(self, place: int) -> str:
        """As `Store`."""
        part, row = self._row(place)
        return part.where(row)

    def _row(self, place: int) -> tuple[Index, int]:
        number = int(np.searchsorted(self.firsts_P1, place, side="right")) - 1
        return self.parts[number], place - int(self.firsts_P1[number])


def joined(parts: Sequence[Index], keys: Keys, root: Path, layout: str, classes: Classes) -> Index:
    """All images of some indexes in their order, without labels, under the given keys."""
    counts = [len(part) for part in parts]
    return Index(
        root=root,
        split="photos",
        layout=layout,
        keys=keys,
        labels=np.full(len(keys), UNLABELLED, dtype=np.int32),
        classes=classes,
        boxes=None,
        sizes_bytes=np.concatenate([np.empty(0, dtype=np.int64), *(part.sizes_bytes for part in parts)]),
        mtimes_ns=np.concatenate([np.empty(0, dtype=np.int64), *(part.mtimes_ns for part in parts)]),
        store=Joined(tuple(parts), np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts, dtype=np.int64)])),
        places=np.arange(len(keys), dtype=np.int64),
    )

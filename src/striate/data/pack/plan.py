"""What is to be packed, and what of it is done: decided before the first image, kept beside the shards until the pack is whole.

Which rows go into which shard is a pure function of the source and of how it is stored, so that a pack does not depend on how
often its making was interrupted. The index of the source stays in the pack, to say later what has changed in it.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from striate import files
from striate.data.decode import BadImage
from striate.data.index import Index, compare
from striate.data.layouts.splits import SplitName
from striate.data.pack import encode, format
from striate.data.pack.format import Columns, How, Keep, Raw, Shard
from striate.errors import CheckpointError, ResourceError, StriateError, UserError

SOURCE: Final = ".source"  # hidden, so that nobody takes its tables for data
_SHARD_BYTES: Final = 256_000_000  # aimed at,
_MOST_SHARDS: Final = 100  # unless a split would have more than these: each is an open file while it is read
_SAMPLE: Final = 128  # images of a split whose stored size is measured beforehand
_SPARE_BYTES: Final = 64 * 1024**2  # that the disk keeps free


@dataclass(frozen=True)
class Done:
    """A finished shard; bad and odd as in `format.Manifest`."""

    shard: Shard
    bad: tuple[dict[str, Any], ...]
    odd: dict[str, int]


@dataclass
class Plan:
    """packing.json. edges: of each split the source rows that its shards begin with, and the number of all. done: by name."""

    how: How
    columns: Columns
    source: dict[str, Any]
    edges: dict[SplitName, list[int]]
    command: str
    done: dict[str, Done] = field(default_factory=dict)

    def shards(self) -> list[tuple[SplitName, str, range]]:
        """Split, name and source rows of every shard, in order."""
        return [
            (split, format.shard_name(split, number, len(edges) - 1), range(edges[number], edges[number + 1]))
            for split, edges in self.edges.items()
            for number in range(len(edges) - 1)
        ]

    def write(self, folder: Path) -> None:
        """Writes packing.json, whole or not at all."""
        values = {
            "format": format.VERSION,
            "how": format.how_to_json(self.how),
            "columns": asdict(self.columns),
            "source": self.source,
            "edges": self.edges,
            "command": self.command,
            "done": {name: asdict(done) for name, done in self.done.items()},
        }
        files.write_json(folder / format.PLAN, {**values, "seal": format.seal(values)})

    @classmethod
    def read(cls, folder: Path) -> Plan:
        """Raises CheckpointError where packing.json cannot be used."""
        try:
            values = files.read_json(folder / format.PLAN)
            if values["format"] != format.VERSION:
                raise ValueError(f"format {values['format']}, this striate writes {format.VERSION}")
            if values.pop("seal") != format.seal(values):
                raise ValueError("it is not as it was written: its seal does not fit")
            return cls(
                how=format.how_from_json(values["how"]),
                columns=Columns(**values["columns"]),
                source=values["source"],
                edges={split: [int(edge) for edge in edges] for split, edges in values["edges"].items()},
                command=values["command"],
                done={
                    name: Done(Shard(**done["shard"]), tuple(done["bad"]), dict(done["odd"]))
                    for name, done in values["done"].items()
                },
            )
        except (StriateError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(f"{folder / format.PLAN}: not readable ({error}). Remove {folder} and pack again.") from error


def begin(folder: Path, how: How, indexes: dict[SplitName, Index], layout: str, command: str) -> Plan:
    """The plan of a new pack, written. Raises ResourceError where the disk has no room for the pack."""
    edges: dict[SplitName, list[int]] = {}
    needed = 0.0
    for split, index in indexes.items():
        total = _estimated_bytes(index, how)
        shards = int(np.clip(-(-total // _SHARD_BYTES), 1, min(_MOST_SHARDS, len(index))))
        edges[split] = np.linspace(0, len(index), shards + 1).round().astype(int).tolist()
        needed += total
    free = files.free_bytes(folder)
    if needed + _SPARE_BYTES > free:
        raise ResourceError(
            f"{folder}: the pack needs about {needed / 1e9:,.2f} GB, and {free / 1e9:,.2f} GB are free. "
            "Free some disk, choose another disk, or store less (a smaller --shorter-px or --quality)."
        )
    (folder / SOURCE).mkdir(exist_ok=True)
    for split, index in indexes.items():
        index.write(folder / SOURCE / f"{split}.parquet")
    columns = Columns(
        boxes=any(index.boxes is not None for index in indexes.values()),
        key_bytes=any(shown(raw).encode() != raw for index in indexes.values() for raw in index.keys.raws()),
    )
    source = {
        "layout": layout.removesuffix(format.PACKED),
        "splits": {
            split: {"images": len(index), "bytes": int(index.sizes_bytes.sum()), "fingerprint": index.fingerprint}
            for split, index in indexes.items()
        },
    }
    plan = Plan(how, columns, source, edges, command)
    plan.write(folder)
    return plan


def shown(key: bytes) -> str:
    """A key as UTF-8 text, as predictions show it: bytes that are none appear as \\xNN."""
    return key.decode("utf-8", "backslashreplace")


def _estimated_bytes(index: Index, how: How) -> float:
    """Bytes of a split's shards, from a sample of its images; bad ones count nothing here, and are met again."""
    if isinstance(how, Raw):
        return float(len(index) * how.size_bytes)
    if isinstance(how, Keep) and index.store is None:
        return float(index.sizes_bytes.sum())
    sizes = []
    for row in range(0, len(index), max(1, -(-len(index) // _SAMPLE))):
        with contextlib.suppress(BadImage):
            sizes.append(len(encode.stored(index.content(row), None, how, Counter()).data))
    return float(np.mean(sizes) * len(index)) if sizes else 0.0


def expect_same(folder: Path, how: How, of: How, source: dict[str, Any], indexes: dict[SplitName, Index]) -> None:
    """Raises unless a pack that was begun as `of` from `source` is what would be made now.

    UserError where images are to be stored in another way, CheckpointError with the differences where they are others.
    """
    if how != of:
        raise UserError(
            f"{folder}: packed in another way. There: {of.describe()}. Asked for: {how.describe()}. "
            "Give the options of then, or name another folder."
        )
    differences = []
    for split in dict.fromkeys([*source["splits"], *indexes]):
        if split not in indexes or split not in source["splits"]:
            differences.append(f"{split}: {'is gone' if split not in indexes else 'is new'}")
        elif difference := compare(Index.read(folder / SOURCE / f"{split}.parquet", folder), indexes[split]):
            differences.append(f"{split}: {difference.describe()}")
    if differences:
        raise CheckpointError(
            f"{folder}: the source is not what it was when this pack was begun.\n" + "\n".join(differences) + "\n"
            "Pack it into another folder, or remove this one."
        )

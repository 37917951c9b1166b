"""Which classes there are, in which order: the value that ties a network's outputs to meanings.

Classes are ordered once, by sorted id, and travel from there with weights, predictions, exports and the
server. Every other data set is matched to them by id, never by position and never by name: names are for
showing only (ImageNet has two cranes and two maillots).
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from striate import files
from striate.errors import CheckpointError, DataError, UserError


def ordered(ids: Iterable[str], kind: Literal["text", "integer"]) -> tuple[str, ...]:
    """The one order of classes: each id once, sorted.

    kind: "text" sorts folder names and wnids by code point, as Python and torchvision do ("class10" before
    "class2"); "integer" sorts the integer labels of a list file as numbers, and takes "07" for "7".
    Raises DataError when an id of kind "integer" is no integer.
    """
    if kind == "text":
        return tuple(sorted(set(ids)))
    try:
        return tuple(str(number) for number in sorted({int(name) for name in ids}))
    except ValueError as error:
        raise DataError(f"Class labels: expected integers only, found {str(error).rsplit(': ', 1)[-1]}.") from error


def listed(words: Iterable[str], most: int = 10) -> str:
    """The first few of many words for a message: 'a', 'b', 'c' and 7 more."""
    words = list(words)
    shown = ", ".join(repr(word) for word in words[:most])
    return shown + (f" and {len(words) - most:,} more" if len(words) > most else "")


@dataclass(frozen=True)
class Classes:
    """Class ids in the order of the network's outputs, and their names for showing (same length, may be empty text)."""

    ids: tuple[str, ...]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.names):
            raise UserError(f"Classes: expected one name for each id, found {len(self.ids)} ids and {len(self.names)} names.")
        if len(set(self.ids)) != len(self.ids):
            twice = [name for name, count in Counter(self.ids).items() if count > 1]
            raise UserError(f"Classes: an id stands for one class only, found more than once: {listed(twice)}.")

    def __len__(self) -> int:
        return len(self.ids)

    @functools.cached_property
    def hash(self) -> str:
        """SHA-256 (64 hex digits) of the ids in order, joined by line feeds. Names do not count."""
        return hashlib.sha256("\n".join(self.ids).encode("utf-8", "surrogateescape")).hexdigest()

    @functools.cached_property
    def index(self) -> dict[str, int]:
        """Position of each class by its id."""
        return {name: position for position, name in enumerate(self.ids)}

    @functools.cached_property
    def _shared_names(self) -> frozenset[str]:
        return frozenset(name for name, count in Counter(self.names).items() if count > 1)

    def title(self, i: int) -> str:
        """How class i is shown: its name, with the id where two classes share the name, or the id where it has none."""
        name = self.names[i]
        if not name:
            return self.ids[i]
        return f"{name} ({self.ids[i]})" if name in self._shared_names else name

    def match(self, other: Classes, subset: bool = False) -> np.ndarray:
        """Where the classes of another data set stand in this one, by id: [K_other] int64, an index into self.

        subset: whether `other` may lack classes of self (it may never have more).
        Raises UserError listing the classes that are unknown here, and those that `other` lacks.
        """
        unknown = [name for name in other.ids if name not in self.index]
        missing = [] if subset else [name for name in self.ids if name not in other.index]
        if unknown or missing:
            said = [f"The classes do not match (expected {len(self):,}, found {len(other):,}; they are matched by id)."]
            if unknown:
                said.append(f"Unknown, {len(unknown):,}: {listed(unknown)}.")
            if missing:
                said.append(f"Missing, {len(missing):,}: {listed(missing)}.")
            way_out = "Use data with the same class ids"
            said.append(
                way_out + (", or score only the classes that are there with --subset." if missing and not unknown else ".")
            )
            raise UserError(" ".join(said))
        return np.asarray([self.index[name] for name in other.ids], dtype=np.int64)

    def to_json(self) -> dict[str, Any]:
        """Plain values for classes.json and for the metadata of other files."""
        return {"ids": list(self.ids), "names": list(self.names), "hash": self.hash}

    @classmethod
    def from_json(cls, value: Any, where: str = "classes") -> Classes:
        """The inverse of `to_json`. Raises CheckpointError, naming `where`, when fields or hash are not as written."""
        try:
            ids, names, written = value["ids"], value["names"], value["hash"]
            is_text = all(isinstance(word, str) for word in (*ids, *names))
            if not is_text:
                raise TypeError("ids and names must be text")
            classes = cls(tuple(ids), tuple(names))
        except (KeyError, TypeError, UserError) as error:
            raise CheckpointError(
                f"{where}: expected the fields ids, names and hash of equal classes, found: {error}."
            ) from error
        if classes.hash != written:
            raise CheckpointError(
                f"{where}: the hash of the class ids is {classes.hash[:12]}, but {str(written)[:12]} is written beside them. "
                "The file was changed after it was written; restore it, for the order of classes gives the weights their meaning."
            )
        return classes

    def write(self, path: Path) -> None:
        """Writes classes.json, whole or not at all."""
        # Folder names that are not UTF-8 live in str as lone surrogates, which only JSON's escapes can carry.
        is_utf8 = not any("\ud800" <= letter <= "\udfff" for word in (*self.ids, *self.names) for letter in word)
        files.write_whole(path, json.dumps(self.to_json(), indent=2, ensure_ascii=not is_utf8) + "\n")

    @classmethod
    def read(cls, path: Path) -> Classes:
        """Reads classes.json and checks its hash. Raises CheckpointError when it is missing, broken or changed."""
        try:
            value = files.read_json(path)
        except UserError as error:
            raise CheckpointError(str(error)) from error
        return cls.from_json(value, str(path))


@functools.cache
def imagenet() -> Classes:
    """The 1,000 classes of ILSVRC 2012 to 2017: wnids in order, n01440764 to n15075141, each with its first name in WordNet.

    The order is that of every published set of weights, and that of Kaggle's LOC_synset_mapping.txt.
    """
    rows = [
        line.split("\t") for line in (Path(__file__).parent / "imagenet_classes.tsv").read_text(encoding="utf-8").splitlines()
    ]
    return Classes(tuple(wnid for wnid, _ in rows), tuple(name for _, name in rows))

"""`Predictions`: what the network said about every image, kept with the classes that give the columns their meaning.

The file is parquet: `key`, `label` and `scores` (a fixed-size list of K float32), one row for each image in the
order of the index; scale, classes and protocol are in the metadata. Anything that reads parquet reads it.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from striate import files
from striate.classes import Classes
from striate.errors import CheckpointError, UserError

Scale = Literal["logits", "log-probabilities"]

UNLABELLED = -1
_FORMAT = "1"


@dataclass(frozen=True, eq=False)
class Predictions:
    """Scores of N images over K classes, in the order of the index.

    keys: N relative paths, as the index spells them (undecodable bytes as surrogate escapes).
    labels: [N] int64 in 0..K-1, positions in `classes`; -1 where there is none.
    scores: [N, K] float32, never NaN. "logits" are the raw outputs for one view of each image and finite;
    "log-probabilities" are the log of a mean probability, and may be minus infinity.
    protocol: how they were made, in one line.
    Raises UserError when sizes, labels or scores do not fit together.
    """

    keys: Sequence[str]
    labels: np.ndarray
    scores: np.ndarray
    scale: Scale
    classes: Classes
    protocol: str = ""

    def __post_init__(self) -> None:
        problem = _problem(self.keys, self.labels, self.scores, self.scale, len(self.classes))
        if problem:
            raise UserError(f"Predictions: {problem}.")

    def __len__(self) -> int:
        return len(self.keys)

    def select(self, rows: np.ndarray) -> Predictions:
        """The predictions of some images. rows: [M] positions or [N] bool."""
        positions = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        keys = [self.keys[int(row)] for row in positions]
        return Predictions(keys, self.labels[positions], self.scores[positions], self.scale, self.classes, self.protocol)

    def write(self, path: Path) -> None:
        """Writes the parquet file whole or not at all. Raises UserError or ResourceError when the disk refuses."""
        temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}-{uuid.uuid4().hex[:6]}")
        try:
            with open(temporary, "wb") as file:
                pq.write_table(self._table(), file, compression="zstd", use_dictionary=False)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            files.sync_folder(path.parent)
        except OSError as error:
            raise files.refuse(error, path, "writing the predictions") from error
        finally:
            temporary.unlink(missing_ok=True)

    def _table(self) -> Any:
        flat = pa.array(np.ascontiguousarray(self.scores, dtype=np.float32).reshape(-1))
        columns = {
            "key": pa.array(map(_shown, self.keys), pa.string()),
            "label": pa.array(self.labels.astype(np.int64)),
            "scores": pa.FixedSizeListArray.from_arrays(flat, self.scores.shape[1]),
        }
        if any(_shown(key) != key for key in self.keys):
            # A file name need not be text: its bytes stand beside what can be shown of it.
            columns["key_bytes"] = pa.array((os.fsencode(key) for key in self.keys), pa.binary())
        facts = {
            "format": _FORMAT,
            "scale": self.scale,
            "classes": json.dumps(self.classes.to_json()),  # ASCII: an odd folder name is no UTF-8
            "protocol": self.protocol,
            "versions": json.dumps(_versions()),
        }
        return pa.table(columns).replace_schema_metadata(facts)


def read(path: Path) -> Predictions:
    """Reads a predictions file back, equal to what was written.

    Raises CheckpointError naming the file when it is missing, damaged, of another format, or when its class list
    does not have the hash that was stored with it.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise CheckpointError(f"{path}: cannot be read as predictions ({_first_line(error)}). Evaluate again.") from error
    facts = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    missing = [name for name in ("key", "label", "scores") if name not in table.column_names]
    missing += [name for name in ("format", "scale", "classes") if name not in facts]
    if missing:
        raise CheckpointError(f"{path}: not a predictions file of striate (it has no {', '.join(missing)}).")
    if facts["format"] != _FORMAT:
        raise CheckpointError(f"{path}: predictions of format {facts['format']}; this striate reads {_FORMAT}. Update striate.")
    try:
        classes = Classes.from_json(json.loads(facts["classes"]), f"{path} (classes)")
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{path}: the class list is damaged ({_first_line(error)}). Evaluate again.") from error
    try:
        keys = _keys(table)
        labels = table.column("label").to_numpy().astype(np.int64)
        scores = _scores(table.column("scores"))
    except (pa.ArrowException, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: the columns are not those of predictions ({_first_line(error)}).") from error
    problem = _problem(keys, labels, scores, facts["scale"], len(classes))
    if problem:
        raise CheckpointError(f"{path}: {problem}.")
    return Predictions(keys, labels, scores, cast(Scale, facts["scale"]), classes, facts.get("protocol", ""))


def _problem(keys: Sequence[str], labels: np.ndarray, scores: np.ndarray, scale: str, classes: int) -> str | None:
    """What is wrong with the parts of a Predictions, or None."""
    if scale not in ("logits", "log-probabilities"):
        return f"scale '{scale}', expected logits or log-probabilities"
    if scores.shape != (len(keys), classes) or labels.shape != (len(keys),):
        return f"{len(keys)} keys and {classes} classes, but labels {list(labels.shape)} and scores {list(scores.shape)}"
    if scores.dtype != np.float32 or labels.dtype != np.int64:
        return f"expected float32 scores and int64 labels, found {scores.dtype} and {labels.dtype}"
    if len(labels) and not (labels.min() >= UNLABELLED and labels.max() < classes):
        row = int(np.flatnonzero((labels < UNLABELLED) | (labels >= classes))[0])
        return f"label {labels[row]} of '{keys[row]}' is outside 0..{classes - 1}"
    fits_N = np.isfinite(scores).all(axis=1) if scale == "logits" else (scores < np.inf).all(axis=1)
    if not fits_N.all():
        return f"the scores of '{keys[int(np.argmin(fits_N))]}' are NaN or infinite"
    return None


def _shown(key: str) -> str:
    """A key as UTF-8 text: bytes that are none appear as \\xNN."""
    return key if key.isascii() else os.fsencode(key).decode("utf-8", "backslashreplace")


def _keys(table: Any) -> list[str]:
    if "key_bytes" in table.column_names:
        return [os.fsdecode(key) for key in cast(Iterable[bytes], table.column("key_bytes").to_pylist())]
    return cast("list[str]", table.column("key").to_pylist())


def _scores(column: Any) -> np.ndarray:
    kind = column.type
    if not (pa.types.is_fixed_size_list(kind) and pa.types.is_float32(kind.value_type)) or column.null_count:
        raise ValueError(f"scores are {kind}")
    parts = [chunk.flatten().to_numpy(zero_copy_only=False).reshape(-1, kind.list_size) for chunk in column.chunks]
    if len(parts) == 1:  # 200 MB for ImageNet's validation set, which need not be copied
        return cast(np.ndarray, parts[0])
    return np.concatenate(parts) if parts else np.empty((0, kind.list_size), np.float32)


def _versions() -> dict[str, str]:
    """The version of striate that wrote the file, when it is installed (a source tree on the path has none)."""
    try:
        return {"striate": metadata.version("striate"), "pyarrow": pa.__version__}
    except metadata.PackageNotFoundError:
        return {"pyarrow": pa.__version__}


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]

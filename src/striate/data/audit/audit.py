"""The audit of a data set: facts about every image, what follows from them, and the files that say so.

In OUT: `facts.journal` (what was found so far), `audit.json` (everything but the facts), `defects.csv` (one line for each image
or thing that is odd), `images.parquet` (the facts of every image), and where asked for, `SHA256SUMS`. Nothing else is written.
"""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import PIL
import pyarrow as pa
import pyarrow.parquet as pq
import simplejpeg

from striate import files
from striate.data.audit import checks, checksums, duplicates, labels
from striate.data.audit.checks import Defect
from striate.data.audit.facts import JOURNAL, Facts, gather
from striate.data.layouts import detect
from striate.errors import UserError

SUMS: Final = "SHA256SUMS"
_SEVERITIES: Final = ("error", "warning", "note")
Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Audit:
    """What an audit found.

    data: what was audited, as typed. layout: its name. notes: what reading the layout said. facts: of each split on disk.
    defects: the errors first. known: how many images were known from an earlier audit's journal and not looked at again.
    seconds, images_per_s: of looking at the others.
    """

    data: str
    layout: str
    notes: tuple[str, ...]
    facts: dict[str, Facts]
    defects: tuple[Defect, ...]
    known: int
    seconds: float
    images_per_s: float

    @property
    def has_errors(self) -> bool:
        """Whether any defect is an error."""
        return any(defect.severity == "error" for defect in self.defects)


def audit(
    data: str | Path,
    out: Path,
    workers: int,
    progress: Progress | None = None,
    near: bool = True,
    manifest: bool = False,
) -> Audit:
    """Looks at every image of a data set and writes what it found to `out`.

    workers: threads; one for each core is best. progress(done, total) counts images, then those that the search for
    near-duplicates reads again, and may raise to stop (Interrupted): the journal keeps what was found, and the same call goes on
    from there. near: also search near-duplicates. manifest: also write SHA256SUMS of all files, for `checksums.verify`.
    What is wrong with the data is a defect and never raised.
    Raises UserError when there are no such data, or `out` lies within them or holds something else; ResourceError when the
    disk is full or reading hangs.
    """
    source = detect.place_of(data)
    refuse_place(source, out)
    found, defects = labels.read(data)
    if source.is_dir() and detect.is_pack(source):
        total = sum(map(len, found.indexes.values()))
        defects += checksums.of_pack(source, None if progress is None else lambda done, size_bytes: progress(0, total))
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise files.refuse(error, out, "making the folder of the audit") from error
    gathered = gather(found.indexes, out, workers, progress)
    looked_at = sum(map(len, gathered.facts.values())) - gathered.known
    defects += checks.all_of(gathered.facts)
    defects += duplicates.exact(gathered.facts)
    if near:
        defects += duplicates.near(gathered.facts, workers, progress)
    result = Audit(
        data=str(data),
        layout=found.layout,
        notes=found.notes,
        facts=gathered.facts,
        defects=tuple(sorted(defects, key=lambda defect: _SEVERITIES.index(defect.severity))),
        known=gathered.known,
        seconds=gathered.seconds,
        images_per_s=looked_at / gathered.seconds if looked_at else 0.0,
    )
    if manifest:
        checksums.write(source, gathered.facts, out / SUMS, workers, progress)
    files.write_whole(out / "defects.csv", _defects_csv(result))
    _write_images(out / "images.parquet", result.facts)
    files.write_json(out / "audit.json", to_json(result))
    return result


def refuse_place(source: Path, out: Path) -> None:
    """Raises UserError where an audit may not be written: within the data, or in a folder of something else."""
    target = Path(os.path.realpath(out))
    if source.is_dir() and target.is_relative_to(os.path.realpath(source)):
        raise UserError(f"--out {out}: lies within {source}, and the data are never written to. Choose a folder outside.")
    if target.is_dir() and any(target.iterdir()) and not (target / JOURNAL).exists():
        raise UserError(f"--out {out}: holds something that is no audit. Choose a new folder.")
    if target.exists() and not target.is_dir():
        raise UserError(f"--out {out}: is a file. Choose a new folder.")


def to_json(audit: Audit) -> dict[str, Any]:
    """An audit as plain values, without the facts of single images."""
    return {
        "data": audit.data,
        "layout": audit.layout,
        "notes": list(audit.notes),
        "splits": {split: _counts(facts) for split, facts in audit.facts.items()},
        "severities": {severity: sum(defect.severity == severity for defect in audit.defects) for severity in _SEVERITIES},
        "defects": [_defect_json(audit, defect) for defect in audit.defects],
        "known": audit.known,
        "seconds": round(audit.seconds, 3),
        "images_per_s": round(audit.images_per_s, 1),
        "versions": {
            "striate": metadata.version("striate"),
            "pillow": PIL.__version__,
            "simplejpeg": simplejpeg.__version__,
        },
    }


def _counts(facts: Facts) -> dict[str, Any]:
    odd = Counter(word for words in facts.odd for word in words)
    return {
        "images": len(facts),
        "usable": int(facts.is_good_N.sum()),
        "bytes": int(facts.index.sizes_bytes.sum()),
        "formats": dict(sorted(Counter(facts.format).items())),
        "odd": dict(sorted(odd.items())),
        "fingerprint": facts.index.fingerprint,
    }


def _defect_json(audit: Audit, defect: Defect) -> dict[str, Any]:
    value: dict[str, Any] = {
        "kind": defect.kind,
        "severity": defect.severity,
        "split": defect.split,
        "count": len(defect),
        "text": defect.text,
        "remedy": defect.remedy,
    }
    if len(defect.rows):
        value["images"] = [audit.facts[defect.split].index.keys[row] for row in defect.rows.tolist()]
    if defect.details:
        value["details"] = list(defect.details)
    if defect.groups:
        value["groups"] = [[f"{split}: {audit.facts[split].index.keys[row]}" for split, row in group] for group in defect.groups]
    return value


def _lines(audit: Audit) -> Iterator[tuple[str, str, str, str, str]]:
    """(split, key, kind, severity, detail) of every image or thing that a defect concerns."""
    for defect in audit.defects:
        about = defect.kind, defect.severity
        if defect.groups:
            for number, group in enumerate(defect.groups, start=1):
                for split, row in group:
                    yield split, audit.facts[split].index.keys[row], *about, f"group {number}"
        elif len(defect.rows):
            keys = audit.facts[defect.split].index.keys
            details = defect.details or ("",) * len(defect.rows)
            for row, detail in zip(defect.rows.tolist(), details, strict=True):
                yield defect.split, keys[row], *about, detail
        else:
            for detail in defect.details or (defect.text,):
                yield defect.split, "", *about, detail


def _defects_csv(audit: Audit) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("split", "key", "kind", "severity", "detail"))
    writer.writerows(_lines(audit))
    return text.getvalue().encode("utf-8", "backslashreplace").decode()


def _write_images(path: Path, facts: dict[str, Facts]) -> None:
    """The facts of all images as parquet. Keys are binary, since a file name need not be UTF-8."""
    schema = pa.schema(
        [
            ("split", pa.dictionary(pa.int8(), pa.string())),
            ("key", pa.binary()),
            ("label", pa.string()),
            ("reason", pa.string()),
            ("format", pa.string()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("odd", pa.list_(pa.string())),
            ("sha256", pa.binary(32)),
            ("likeness", pa.uint64()),
        ]
    )
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        for split, of_split in facts.items():
            for start in range(0, len(of_split), _ROWS):
                writer.write_table(_images(split, of_split, slice(start, start + _ROWS), schema))
    files.write_whole(path, sink.getvalue().to_pybytes())


_ROWS: Final = 65_536  # of one row group


def _images(split: str, facts: Facts, rows: slice, schema: pa.Schema) -> pa.Table:
    keys, ids = facts.index.keys[rows], facts.index.classes.ids
    columns = {
        "split": pa.array([split] * len(keys)).dictionary_encode().cast(schema.field("split").type),
        "key": list(keys.raws()),
        "label": [ids[label] if label >= 0 else None for label in facts.index.labels[rows].tolist()],
        "reason": facts.reason[rows],
        "format": facts.format[rows],
        "width": facts.sides_N2[rows, 0],
        "height": facts.sides_N2[rows, 1],
        "odd": [sorted(odd) for odd in facts.odd[rows]],
        "sha256": [sha256.tobytes() for sha256 in facts.sha256_N32[rows]],
        "likeness": facts.likeness_N[rows],
    }
    return pa.table(columns, schema)

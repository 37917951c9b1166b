"""The log of a run: one strict JSON object per line, appended, never rewritten."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from striate.errors import ResourceError
from striate.files import refuse, to_json

KINDS = ("start", "resume", "note", "plan", "step", "skip", "bad", "evaluation", "checkpoint", "finding", "end")


@dataclass(frozen=True)
class Record:
    """One thing that the training has to tell.

    kind: one of KINDS. step: optimiser steps done. values: JSON values; which ones, by kind:
    start, resume: images, classes, parameters, trained_parameters, device, precision, threads, resident, batch_size,
    steps_per_epoch, seed; and where trained weights went in just then: weights (where from), weights_digest (SHA-256).
    note: text.
    plan: total_steps, warmup_steps, start_step, start_progress.
    step: epoch, loss, losses by head, lr, top1 of the last batch, images_per_s, wait_share, gradient_norm,
    norms by layer group (weight, gradient, update), dead_share by layer, memory_bytes, loss_scale, elapsed_s.
    skip: reason, keys, first_bad_layer, in_row. bad: key, reason.
    evaluation: split, weights (raw or EMA), top1, top5, top5_k, loss, top1_interval, expected, used, bad, seconds, epoch.
    checkpoint: name, seconds, bytes. finding: what the doctor found on the way, as `Finding.to_json`.
    end: reason (done, or why it stopped), exit_code, elapsed_s.
    """

    kind: str
    step: int
    values: dict[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        """The record as one line of `log.jsonl`."""
        return to_json({"kind": self.kind, "step": self.step, "time": round(time.time(), 3), **self.values}, indent=None) + "\n"


class Log:
    """Appends records to `log.jsonl`; a line is written by one call, so a kill leaves at most one partial line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            if path.stat().st_size and not _ends_with_newline(path):
                os.write(self._handle, b"\n")  # the line that a kill cut short stays unreadable, the next one does not
        except OSError as error:
            raise refuse(error, path, "opening the log") from error

    def append(self, record: Record) -> None:
        """Writes one record. Raises ResourceError when the disk does not take it."""
        data = record.line().encode()
        try:
            written = os.write(self._handle, data)
        except OSError as error:
            raise refuse(error, self.path, "writing the log") from error
        if written != len(data):
            raise ResourceError(
                f"{self.path}: no room left while writing the log. Free some disk, then run the same command again."
            )

    def close(self) -> None:
        """Closes the file; the log can be opened again."""
        os.close(self._handle)


def _ends_with_newline(path: Path) -> bool:
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def read(path: Path) -> list[dict[str, Any]]:
    """The records of a log, in order, as they count.

    Lines that a kill cut short are passed over. After a start or a resume at step s, earlier records with a
    later step are superseded (the same steps were run again) and left out.
    """
    records: list[dict[str, Any]] = []
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return records
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if not isinstance(record, dict) or "kind" not in record or type(record.get("step")) is not int:
            continue
        if record["kind"] in {"start", "resume"}:
            records = [old for old in records if old["step"] <= record["step"]]
        records.append(record)
    return records

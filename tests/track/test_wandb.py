"""Weights & Biases without a network: what is written offline, read back record by record. Nothing is asked for."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from striate.run.log import Record

from .conftest import begins, steps

wandb = pytest.importorskip("wandb", reason="needs the extra track: pip install 'striate[track]'")
pytestmark = pytest.mark.filterwarnings("ignore")  # of theirs

END = Record("end", 12, {"reason": "done", "exit_code": 0})


def records(data: bytes) -> Iterator[bytes]:
    """The records of a .wandb file: LevelDB's log format, blocks of 32 KiB, after seven bytes of their own."""
    place, parts = 7, b""
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        size, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        if left < 7 or kind == 0:  # the rest of a block that took no further record
            place += left
            continue
        parts += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def ended(path: Path) -> list:
    """The records of a finished sitting; W&B's own process may still write them for a while when `finish` has returned."""
    from google.protobuf.message import DecodeError
    from wandb.proto.wandb_internal_pb2 import Record as Theirs

    until = time.monotonic() + 30.0
    while True:
        try:
            found = [Theirs.FromString(data) for data in records(path.read_bytes())]
        except DecodeError:  # cut off where it is being written
            found = []
        if any(record.WhichOneof("record_type") == "exit" for record in found):
            return found
        assert time.monotonic() < until, f"{path}: no end of the run in its {len(found)} records"
        time.sleep(0.05)


def read(run) -> tuple[list[dict], dict, str]:
    """The rows of the only offline folder, its configuration, and its id."""
    places = list((run.path / "track" / "wandb").glob("wandb/offline-run-*"))
    assert len(places) == 1, places
    rows: list[dict] = []
    config, name = {}, ""
    for record in ended(next(places[0].glob("*.wandb"))):
        if record.WhichOneof("record_type") == "history":
            row = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            rows.append(row | {"_step": record.history.step.num})
        for change in (record.run.config, record.config):
            config |= {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in change.update}
        name = record.run.run_id or name
    return rows, config, name


def column(rows: list[dict], key: str) -> list[tuple[int, float]]:
    return [(row["_step"], round(row[key], 6)) for row in rows if key in row]


def test_offline_where_there_is_no_login(run, sit, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked for a key"))
    said = sit(["wandb"], [begins(), *steps(1, 12), END])
    assert len(said) == 1 and said[0].startswith("W&B: no login here") and "wandb sync" in said[0]
    rows, config, _ = read(run)
    assert column(rows, "train/loss") == [(step, round(1 / step, 6)) for step in range(1, 13)]
    assert column(rows, "val/EMA/top1") == [(4, 0.16), (8, 0.32), (12, 0.48)]
    assert config["optim.lr"] == 0.25 and config["run.parameters"] == 176_000


def test_the_variable_that_asks_for_offline_is_heard(run, sit, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert sit(["wandb"], [begins(), *steps(1, 4), END]) == []
    assert len(read(run)[0]) == 4


def test_a_kill_and_a_resume_leave_one_run_with_each_step_once(run, sit):
    sit(["wandb"], [begins(), *steps(1, 7), Record("end", 7, {"reason": "asked", "exit_code": 75})])
    before = read(run)[2]
    sit(["wandb"], [begins(5), *steps(6, 12), END])
    rows, _, after = read(run)
    assert after == before
    assert column(rows, "train/loss") == [(step, round(1 / step, 6)) for step in range(1, 13)]


def test_no_key_comes_into_the_run_folder(run, sit, monkeypatch):
    key = "4" * 40
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_API_KEY", key)
    sit(["wandb"], [begins(), *steps(1, 4), END])
    files = [path for path in Path(run.path).rglob("*") if path.is_file()]
    assert files and not [path for path in files if key.encode() in path.read_bytes()]

"""The log: strict JSON lines, half lines, steps that were run again, clocks that jump."""

import errno
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from striate.errors import ResourceError, UserError
from striate.run import log
from striate.run.log import Log, Record


def write(path: Path, *records: Record) -> Path:
    opened = Log(path)
    for record in records:
        opened.append(record)
    opened.close()
    return path


def seen(path: Path) -> list[tuple[str, int]]:
    return [(record["kind"], record["step"]) for record in log.read(path)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.jsonl"


def test_records_come_back_in_order_with_their_values(path: Path):
    write(path, Record("start", 0, {"images": 4}), Record("step", 1, {"loss": 0.5, "losses": {"main": 0.5}}))
    first, second = log.read(path)
    assert (first["kind"], first["images"]) == ("start", 4)
    assert second["losses"] == {"main": 0.5} and abs(second["time"] - time.time()) < 60


def test_a_log_that_is_not_there_is_empty(path: Path):
    assert log.read(path) == []


def test_e12_nan_and_infinity_are_null_in_the_log(path: Path):
    write(path, Record("step", 1, {"loss": float("nan"), "norms": {"fc": {"weight": float("inf")}}}))
    line = path.read_text()
    json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is not strict JSON"))
    assert log.read(path)[0]["loss"] is None


def test_e12_a_half_last_line_is_passed_over_and_does_not_spoil_the_next(path: Path):
    write(path, Record("start", 0), Record("step", 1), Record("step", 2))
    whole = path.read_bytes()
    last = len(whole.splitlines(keepends=True)[-1])
    for cut in range(1, last):
        path.write_bytes(whole[:-cut])
        assert seen(path)[:2] == [("start", 0), ("step", 1)]
        write(path, Record("step", 3))
        assert seen(path)[-1] == ("step", 3)
        assert len(seen(path)) == (4 if cut == 1 else 3)


@pytest.mark.parametrize("junk", [b"\x00\x00\x00", b"\xff\xfe", b"123", b"null", b"[]", b'{"step": 4}', b'{"kind": "step"}',
                                  b'{"kind": "step", "step": "4"}', b"{"])  # fmt: skip
def test_e12_lines_that_are_no_records_are_passed_over(path: Path, junk: bytes):
    write(path, Record("start", 0), Record("step", 4))
    path.write_bytes(path.read_bytes() + junk + b"\n")
    write(path, Record("resume", 3), Record("step", 4))
    assert seen(path) == [("start", 0), ("resume", 3), ("step", 4)]


def test_steps_that_were_run_again_count_once(path: Path):
    write(
        path,
        Record("start", 0),
        *(Record("step", step, {"loss": 1.0}) for step in (1, 10, 20, 30)),
        Record("checkpoint", 20),
        Record("evaluation", 30),
        Record("resume", 20),
        Record("step", 30, {"loss": 2.0}),
        Record("resume", 10),
        Record("step", 20, {"loss": 3.0}),
    )
    assert seen(path) == [("start", 0), ("step", 1), ("step", 10), ("resume", 10), ("step", 20)]
    assert log.read(path)[-1]["loss"] == 3.0
    assert len(path.read_bytes().splitlines()) == 11  # superseded, not deleted


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_again(path: Path):
    write(path, Record("start", 0), Record("step", 1), Record("step", 2), Record("start", 0), Record("step", 1))
    assert seen(path) == [("start", 0), ("start", 0), ("step", 1)]


@pytest.mark.parametrize("shift_s", [-3600.0, 86_400.0])
def test_t15_records_are_ordered_by_step_whatever_the_clock_does(path: Path, monkeypatch: pytest.MonkeyPatch, shift_s: float):
    now = time.time()
    write(path, Record("start", 0), Record("step", 10))
    monkeypatch.setattr(time, "time", lambda: now + shift_s)
    write(path, Record("resume", 10), Record("step", 20))
    assert seen(path) == [("start", 0), ("step", 10), ("resume", 10), ("step", 20)]


def test_d26_a_key_that_is_not_utf8_can_be_logged(path: Path):
    odd = os.fsdecode(b"class/\xff\xfe.jpg")
    write(path, Record("bad", 1, {"key": odd, "reason": "cut"}))
    assert log.read(path)[0]["key"] == odd


def test_e12_a_line_is_one_write(path: Path, monkeypatch: pytest.MonkeyPatch):
    sizes: list[int] = []
    real = os.write
    opened = Log(path)
    monkeypatch.setattr(os, "write", lambda handle, data: (sizes.append(len(data)), real(handle, data))[1])
    opened.append(Record("note", 3, {"text": "x" * 10_000 + "\nsecond line"}))
    opened.close()
    assert len(sizes) == 1 and len(path.read_bytes().splitlines()) == 1


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [(errno.ENOSPC, ResourceError, "no room left while writing the log"), (errno.EIO, ResourceError, "while writing the log")],
)
def test_c01_a_disk_that_takes_no_line_stops_the_run_with_a_reason(path, monkeypatch, number, kind, words):
    def fail(*_: Any) -> int:
        raise OSError(number, os.strerror(number))

    opened = Log(path)
    monkeypatch.setattr(os, "write", fail)
    with pytest.raises(kind, match=words):
        opened.append(Record("note", 0))
    monkeypatch.setattr(os, "write", lambda *_: 3)
    with pytest.raises(ResourceError, match="no room left"):
        opened.append(Record("note", 0))
    monkeypatch.undo()
    opened.close()


def test_a_log_without_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: Any) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(UserError, match="no permission while opening the log"):
        Log(tmp_path / "log.jsonl")

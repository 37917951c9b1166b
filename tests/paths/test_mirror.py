"""A machine that does not come back: the run goes on from its mirror, and ends as if nothing had happened."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import striate
from striate import cli
from striate.run import checkpoint
from striate.run.log import Record
from striate.train.budget import Stop

HALF = {"budget__evaluate_epochs": 0.5}  # evaluations and checkpoints at steps 2, 4, 6 and 8


def stop_after(step: int) -> dict[str, Any]:
    stop = Stop()

    def on(record: Record) -> None:
        if record.kind == "step" and record.step == step:
            stop.request("SIGTERM")

    return {"stop": stop, "on": on}


def test_c19_a_lost_machine_ends_as_one_that_was_not(sit: Any, tmp_path: Path) -> None:
    whole = sit("whole", **HALF)
    drive = tmp_path / "drive"
    sit("x", mirror=drive, **stop_after(5), **HALF)
    assert checkpoint.steps_in(drive / "x" / "checkpoints")[0] == 5
    shutil.rmtree(tmp_path / "runs" / "x")
    rest = sit("x", mirror=drive, workers="2", **HALF)
    assert (rest.records[0].kind, rest.records[0].step) == ("resume", 5)
    assert rest.differences(whole) == []
    there = striate.open_run(drive / "x")
    assert rest.last.step == there.checkpoint("last").step == 8  # the last save waits for its copy
    assert there.best == rest.run.best and there.checkpoint("best").step == rest.run.checkpoint("best").step


def test_c19_lost_again_and_again_with_a_mirror_that_lags(sit: Any, tmp_path: Path) -> None:
    whole = sit("whole", **HALF)
    drive = tmp_path / "drive"
    for step, newest in ((3, 0), (5, 2), (7, 4)):  # a mirror that is busy misses a checkpoint, and then has an older one
        cut = sit("x", mirror=drive, **stop_after(step), **HALF)
        assert cut.records[0].step <= newest
        shutil.rmtree(tmp_path / "runs" / "x")
        # The last copy did not get there whole.
        (drive / "x" / "checkpoints" / f"step-{step}" / "model.safetensors").write_bytes(b"half")
    rest = sit("x", mirror=drive, **HALF)
    assert 0 < rest.records[0].step <= 6
    assert rest.differences(whole) == []


def test_c19_a_mirror_that_fails_changes_nothing_and_is_noted(sit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sit("whole", **HALF)
    drive = tmp_path / "drive"

    def unplug(record: Record) -> None:
        if record.kind == "step" and record.step == 3:
            drive.rename(tmp_path / "unplugged")
        if record.kind == "step" and record.step == 7:
            (tmp_path / "unplugged").rename(drive)

    end = sit("x", mirror=drive, on=unplug, **HALF)
    notes = [record.values["text"] for record in end.records if record.kind == "note" and str(drive) in record.values["text"]]
    assert len(notes) == 2
    # Copies are made beside the training: which checkpoint meets the missing drive depends on the disk's speed.
    assert "was not copied: it is gone; unmounted?" in notes[0] and "takes checkpoints again, from step-" in notes[1]
    assert end.exit_code == 0 and end.differences(whole) == []
    assert checkpoint.steps_in(drive / "x" / "checkpoints")[0] == 8


def test_c19_the_command_goes_on_from_its_mirror(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", str(images), "--model", "path_networks:small", "--img-size", "32", "--batch-size", "12", "--steps", "4"]
    command += ["--device", "cpu", "--workers", "0", "--name", "x", "--json"]
    command += ["--out", str(tmp_path / "runs"), "--mirror", str(tmp_path / "drive")]
    assert cli.run(command) == 0
    first = striate.open_run(tmp_path / "runs" / "x")
    weights, log = first.checkpoint("last").model, first.log()
    shutil.rmtree(tmp_path / "runs")
    capsys.readouterr()
    assert cli.run(command) == 0  # nothing to train: it is scored again, and the report written
    said = capsys.readouterr()
    assert "step 4 taken from the mirror" in said.err
    assert json.loads(said.out.splitlines()[-1])["status"]["state"] == "done"
    second = striate.open_run(tmp_path / "runs" / "x")
    assert all(bool((second.checkpoint("last").model[name] == weights[name]).all()) for name in weights)
    assert [record for record in second.log() if record["kind"] == "step"] == [
        record for record in log if record["kind"] == "step"
    ]
    assert (second.path / "report.html").is_file() and list(second.path.glob("evaluation/*/summary.json"))


def test_g5_a_mirror_that_is_the_run_is_refused_before_training(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", str(images), "--model", "path_networks:small", "--img-size", "32", "--batch-size", "12", "--steps", "4"]
    command += ["--device", "cpu", "--workers", "0", "--name", "x", "--out", str(tmp_path / "runs")]
    for folder, words in ((tmp_path / "runs", "is the run itself"), (tmp_path / "a" / "b", "a does not exist. Mount the drive")):
        assert cli.run([*command, "--mirror", str(folder)]) == 2
        assert words in capsys.readouterr().err
        assert not (tmp_path / "runs" / "x" / "checkpoints").exists() or not checkpoint.steps_in(
            tmp_path / "runs" / "x" / "checkpoints"
        )

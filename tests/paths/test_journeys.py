"""From the command to what it leaves on the disk, on 64 photos."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import striate
from striate import cli, predictions
from striate.errors import DataError, UserError

SMALL = ("--model", "path_networks:small", "--img-size", "32", "--data.shrink-px", "40", "--batch-size", "12", "--device", "cpu")


def _json(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_train_evaluate_predict_report(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = ["train", str(images), *SMALL, "--epochs", "2", "--out", str(tmp_path / "runs"), "--name", "x", "--json"]
    assert cli.run(train) == 0
    said = _json(capsys)
    run = tmp_path / "runs" / "x"
    assert (said["run"], said["status"]["state"], said["status"]["step"]) == (str(run), "done", 8)
    assert {entry.name for entry in run.iterdir()} >= {
        "recipe.json",
        "classes.json",
        "view.json",
        "environment.json",
        "log.jsonl",
        "checkpoints",
        "best.json",
        "evaluation",
        "report.html",
    }
    summaries = list(run.glob("evaluation/*/summary.json"))
    assert len(summaries) == 1
    at_the_end = json.loads(summaries[0].read_text())

    # The same command again: finished, nothing done.
    log = (run / "log.jsonl").read_bytes()
    assert cli.run(train) == 0
    assert (run / "log.jsonl").read_bytes() == log
    capsys.readouterr()

    # evaluate finds what train found, and its predictions say the same.
    assert cli.run(["evaluate", str(run), "--device", "cpu", "--json"]) == 0
    summary = _json(capsys)
    for name in ("top1", "top5", "loss", "expected", "used", "bad", "protocol", "top1_interval"):
        assert summary[name] == at_the_end[name]
    assert (summary["expected"], summary["used"], summary["bad"]) == (16, 16, 0)
    found = predictions.read(Path(summary["folder"]) / "predictions.parquet")
    assert np.mean(found.scores.argmax(1) == found.labels) == summary["top1"]
    best = json.loads((run / "best.json").read_text())
    assert best["weights"] == "raw"
    assert best["top1"] == summary["top1"]

    # One file, by its name, gets the class that its row in the predictions has.
    photo = images / "val" / found.keys[3].removeprefix("val/")
    assert (
        cli.run(["predict", str(run), str(photo), "--top", "2", "--device", "cpu", "--csv", str(tmp_path / "out.csv"), "--json"])
        == 0
    )
    out = _json(capsys)
    assert (out["expected"], out["bad"]) == (1, 0)
    row = out["rows"][0]
    assert (row["key"], len(row["ranks"])) == (str(photo), 2)
    assert row["ranks"][0]["class_id"] == found.classes.ids[int(found.scores[3].argmax())]
    assert str(photo) in (tmp_path / "out.csv").read_text()

    (run / "report.html").unlink()
    assert cli.run(["report", str(run)]) == 0
    assert "<html" in (run / "report.html").read_text()


def test_one_step(images: Path, tmp_path: Path) -> None:
    assert cli.run(["train", str(images), *SMALL, "--steps", "1", "--out", str(tmp_path), "--name", "one"]) == 0
    run = striate.open_run(tmp_path / "one")
    assert run.status["state"] == "done"
    assert [path.name for path in run.checkpoints.iterdir()] == ["step-1"]
    assert [record["step"] for record in run.log() if record["kind"] == "step"] == [1]


def test_python_does_what_the_command_does(images: Path, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"model": "path_networks:small", "img_size": 32, "batch_size": 12, "quiet": True, "device": "cpu"}
    run = striate.train(images, changes={"data.shrink_px": 40}, epochs=1, out=tmp_path, name="python", **arguments)
    assert run.status["state"] == "done"
    assert cli.run(["train", str(images), *SMALL, "--epochs", "1", "--out", str(tmp_path), "--name", "command"]) == 0
    ours, theirs = run.checkpoint("last"), striate.open_run(tmp_path / "command").checkpoint("last")
    assert all(bool((ours.model[name] == theirs.model[name]).all()) for name in theirs.model)
    summary, _ = striate.evaluate(run, device="cpu")
    rows = striate.predict(run, [images / "val"], device="cpu")
    assert len(rows) == 16
    assert run.best is not None
    assert summary["top1"] == run.best["top1"]
    with pytest.raises(UserError, match="no field 'epochz'"):
        striate.train(images, epochz=1, out=tmp_path)


def test_t05_stop_after_saves_exits_75_and_the_same_command_goes_on(images: Path, tmp_path: Path) -> None:
    train = ["train", str(images), *SMALL, "--steps", "6", "--out", str(tmp_path)]
    assert cli.run([*train, "--stop-after", "1s"]) == 75  # the reserve alone is more: it saves before its first step
    (folder,) = tmp_path.iterdir()
    status = striate.open_run(folder).status
    assert (status["state"], status["step"], status["reason"]) == ("saved", 0, "--stop-after 1s")
    assert cli.run(train) == 0
    assert [entry.name for entry in tmp_path.iterdir()] == [folder.name]
    assert striate.open_run(folder).status["step"] == 6


def test_a_longer_budget_continues_a_finished_run(sit: Any) -> None:
    sit("longer", budget__epochs=1.0)
    more = sit("longer", budget__epochs=2.0, override=("budget.epochs",))
    assert (more.exit_code, more.last.step) == (0, 8)
    assert [record.step for record in more.records if record.kind == "step"] == [5, 6, 7, 8]
    assert any("laid anew over 8 steps" in record.values["text"] for record in more.records if record.kind == "note")


def test_d01_an_image_that_is_alone_in_its_batch_and_bad_stops_the_run(images: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(images, photos)
    key = sorted(path for path in (photos / "train").rglob("*") if path.is_file())[0]
    key.write_bytes(b"\xff\xd8\xff\xe0 no photo")
    asked = {
        "model": "path_networks:plain",
        "img_size": 32,
        "batch_size": 1,
        "epochs": 1,
        "out": tmp_path / "runs",
        "quiet": True,
    }
    with pytest.raises(DataError, match=key.name):
        striate.train(photos, changes={"data.resident": "no"}, workers="0", device="cpu", **asked)

"""What is said of a run: before and after joined, what was outlived, and damage named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import striate
from striate import consultation
from striate.classes import Classes
from striate.data import synthetic
from striate.doctor import diagnosis
from striate.doctor.examination import Examination
from striate.doctor.finding import Cause, Finding
from striate.errors import CheckpointError
from striate.predictions import Predictions
from striate.run.folder import Run

CHANGES = {"model": "resnet20", "img_size": 32, "batch_size": 16, "lr": 0.05, "steps": 30, "budget.log_every": 5}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("diagnosis")
    synthetic.make(folder / "photos", classes=4, per_class=24, val_per_class=6)
    return striate.train(folder / "photos", changes=CHANGES, out=folder, name="run", quiet=True)


@pytest.fixture
def run(finished: Run, tmp_path: Path) -> Run:
    import shutil

    shutil.copytree(finished.path, tmp_path / "run")
    return Run(tmp_path / "run")


def finding(code: str = "constant-function") -> Finding:
    return Finding(code, "error", "It is constant.", {}, (Cause("initialisation", 0.9, "small"),), (), "here")


def test_a_finished_run_has_a_diagnosis_without_failures(run):
    found = diagnosis.of_run(run)
    assert "divergence" in found.checked and "label-noise" in {**found.checked, **found.unchecked}
    assert not [why for why in found.unchecked.values() if why.startswith("failed")], found.unchecked


def test_what_was_found_before_is_kept_and_outlived(run):
    before = Examination((finding(),), {"constant-function": "x"}, {}, 1.0)
    diagnosis.write(run, before, before)
    found = diagnosis.of_run(run)
    assert next(one for one in found if one.code == "constant-function").severity == "error"
    records = [json.loads(line) for line in (run.path / "log.jsonl").read_text().splitlines()]
    for record in records:
        if record["kind"] == "evaluation":
            record["top1"] = 0.9
    (run.path / "log.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    outlived = next(one for one in diagnosis.of_run(run) if one.code == "constant-function")
    assert outlived.severity == "note" and "learnt all the same" in outlived.sentence


def test_predictions_are_read_and_judged(run):
    """Classes 0 and 1 are taken for each other throughout."""
    place = sorted((run.path / "evaluation").iterdir())[0]
    classes = Classes(tuple(f"c{i}" for i in range(6)), tuple(f"c{i}" for i in range(6)))
    labels = np.repeat(np.arange(6), 60)
    said = labels.copy()
    draw = np.random.default_rng(0)
    said[labels == 0] = np.where(draw.random(60) < 0.5, 1, 0)
    said[labels == 1] = np.where(draw.random(60) < 0.5, 0, 1)
    scores = np.full((360, 6), -2.0, np.float32)
    scores[np.arange(360), said] = 2.0
    said = Predictions([f"k{i}" for i in range(360)], labels.astype(np.int64), scores, "logits", classes)
    said.write(place / "predictions.parquet")
    assert "confusable-classes" in {one.code for one in diagnosis.of_run(run)}


def test_damaged_files_are_named(run):
    (run.path / "findings.json").write_text('{"before": {"findings": [{"code": 3}]}}')
    with pytest.raises(CheckpointError, match=r"findings\.json"):
        diagnosis.of_run(run)
    (run.path / "findings.json").write_text("[]")
    with pytest.raises(CheckpointError, match="damaged"):
        diagnosis.before(run)


def test_a_run_that_nobody_looked_at_is_looked_at_where_its_data_is(run):
    (run.path / "findings.json").unlink(missing_ok=True)
    found = consultation.of_run(run.path, 15.0, quiet=True)
    assert "forward-pass" in found.checked and "divergence" in found.checked
    assert diagnosis.before(run) is not None


def test_a_run_whose_data_has_gone_is_told_from_its_log(run):
    (run.path / "findings.json").unlink(missing_ok=True)
    data = json.loads((run.path / "data.json").read_text())
    (run.path / "data.json").write_text(json.dumps(data | {"path": str(run.path / "gone")}))
    found = consultation.of_run(run.path, 15.0, quiet=True)
    assert "forward-pass" not in found.checked and "divergence" in found.checked


def test_a_log_of_nothing_is_no_crash(run):
    (run.path / "log.jsonl").write_text("")
    found = diagnosis.of_run(run)
    assert not [why for why in found.unchecked.values() if why.startswith("failed")], found.unchecked

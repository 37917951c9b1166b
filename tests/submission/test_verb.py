"""The verb `submit`: writes, checks, scores; exit codes, and one object for machines on the last line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from striate import cli
from striate.classes import Classes
from striate.data import synthetic
from striate.predictions import Predictions
from tests.submission.makers import WNIDS


@pytest.fixture(name="saved")
def _saved(tmp_path: Path) -> Path:
    """Predictions of the four photos: red, blue, green, blue, as they are."""
    keys = [f"ILSVRC2012_test_{n:08d}.JPEG" for n in (1, 2, 3, 4)]
    scores = np.eye(3, dtype=np.float32)[[2, 0, 1, 0]]
    Predictions(keys, np.full(4, -1), scores, "logits", Classes(WNIDS, ("", "", ""))).write(tmp_path / "p.parquet")
    return tmp_path / "p.parquet"


def test_written_checked_and_scored(saved, kaggle_set, tmp_path, capsys):
    out = tmp_path / "s.csv"
    assert cli.run(["submit", str(saved), str(kaggle_set), "--out", str(out), "--json"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"{out}: 4 rows"
    assert json.loads(said[-1])["images"] == 4
    assert cli.run(["submit", "--check", str(out), "--data", str(kaggle_set), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["errors"] == 0
    solution = tmp_path / "set" / "solution.csv"
    rows = zip((1, 2, 3, 4), (WNIDS[2], WNIDS[0], WNIDS[1], WNIDS[1]), strict=True)
    lines = "".join(f"ILSVRC2012_test_{n:08d},{wnid} 0 0 5 5 \n" for n, wnid in rows)
    solution.write_text("ImageId,PredictionString\n" + lines)
    assert cli.run(["submit", "--score", str(out), "--solution", str(solution), "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (found["top1_error"], found["top5_error"], found["images"]) == (0.25, 0.0, 4)


def test_an_error_in_a_file_is_exit_code_3(kaggle_set, put, capsys):
    path = put("ImageId,PredictionString\nILSVRC2012_test_00000001,0 0 0 9 9\n")
    assert cli.run(["submit", "--check", str(path), "--data", str(kaggle_set), "--json"]) == 3
    said = capsys.readouterr().out.splitlines()
    assert any(line.startswith("error: line 2: prediction 1: labels count from 1 to 3, found 0") for line in said)
    assert json.loads(said[-1])["exit_code"] == 3


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "give a run and test images"),
        (["runs/x"], "say which test images"),
        (["runs/x", "photos", "--check", "s.csv"], "one of them"),
        (["--check", "s.csv", "--score", "t.csv"], "one of them"),
        (["runs/x", "photos", "--data", "photos"], "goes with --check"),
        (["--score", "s.csv"], "go together"),
        (["runs/x", "photos", "--solution", "s.csv"], "go together"),
        (["--score", "s.csv", "--solution", "t.csv", "--format", "tiny"], "only Kaggle's form"),
        (["--check", "nowhere.csv"], "no such file"),
        (["runs/x", ".", "--method", "cam"], "add --task localization"),
        (["p.parquet", ".", "--task", "localization"], "saved predictions hold classes and no boxes"),
    ],
)
def test_wrong_usage_is_exit_code_2_with_the_way_out(argv, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.run(["submit", *argv]) == 2
    assert said in capsys.readouterr().err


@pytest.fixture
def same_threads() -> Iterator[None]:
    """A sitting sets torch's threads; afterwards they are what they were."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("same_threads")
def test_a_trained_run_gets_the_error_that_evaluate_gives(tmp_path, capsys, monkeypatch):
    """The validation images of a set in ILSVRC's layout, whose solution is shipped with it: written, checked and scored."""
    monkeypatch.chdir(tmp_path)
    synthetic.make(Path("set"), layout="ilsvrc", classes=7, per_class=4, val_per_class=6)
    small = ["--model", "resnet18", "--model.options.width", "8", "--model.options.stem", "small", "--img-size", "16"]
    once = ["--batch-size", "14", "--epochs", "2", "--precision", "fp32", "--data.resident", "no", "--no-doctor"]
    assert cli.run(["train", "set", "--name", "x", "--workers", "0", "--device", "cpu", *small, *once]) == 0
    assert cli.run(["evaluate", "runs/x", "--workers", "0", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    val = "set/ILSVRC/Data/CLS-LOC/val"
    for answers in ("runs/x", f"{summary['folder']}/predictions.parquet"):
        assert cli.run(["submit", answers, val, "--workers", "0"]) == 0
        assert cli.run(["submit", "--check", "submission.csv", "--data", val]) == 0
        capsys.readouterr()
        assert cli.run(["submit", "--score", "submission.csv", "--solution", "set/LOC_val_solution.csv", "--json"]) == 0
        found = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert found["images"] == summary["used"] == 42 and found["notes"] == []
        assert found["top1_error"] == pytest.approx(1 - summary["top1"], abs=1e-12)
        assert found["top5_error"] == pytest.approx(1 - summary["top5"], abs=1e-12)
    assert cli.run(["submit", "runs/x", "set", "--workers", "0", "--out", "test.csv"]) == 0
    assert cli.run(["submit", "--check", "test.csv", "--data", "set"]) == 0


@pytest.mark.usefixtures("same_threads")
def test_a_run_with_a_box_head_from_training_to_its_error(tmp_path, capsys, monkeypatch):
    """Boxes of the head, and boxes of heatmaps that are cut as `localize` found best; both written, checked and scored."""
    monkeypatch.chdir(tmp_path)
    synthetic.make(Path("set"), layout="ilsvrc", classes=3, per_class=6, val_per_class=7)
    small = ["--model", "resnet18", "--model.options.width", "8", "--model.options.stem", "small", "--img-size", "32"]
    once = ["--batch-size", "9", "--epochs", "1", "--precision", "fp32", "--data.resident", "no", "--no-doctor"]
    assert cli.run(["train", "set", "--name", "x", "--workers", "0", "--device", "cpu", "--boxes", "shared", *small, *once]) == 0
    val = "set/ILSVRC/Data/CLS-LOC/val"
    write = ["submit", "runs/x", val, "--task", "localization", "--workers", "0"]
    assert cli.run([*write, "--method", "grad-cam"]) == 2
    assert "nobody has fitted a threshold for grad-cam" in capsys.readouterr().err
    assert cli.run([*write, "--method", "grad-cam", "--layer", "layer1", "--checkpoint", "last", "--raw"]) == 2
    said = capsys.readouterr().err
    assert "striate localize runs/x --method grad-cam --layer layer1 --checkpoint last --raw;" in said
    assert not Path("submission.csv").exists()
    assert cli.run(["localize", "runs/x", "--method", "grad-cam", "--workers", "0"]) == 0
    assert "kept for submit: grad-cam of layer" in capsys.readouterr().out
    for options, how in (([], "boxes: box head"), (["--method", "grad-cam"], "boxes: grad-cam of layer")):
        capsys.readouterr()
        assert cli.run([*write, *options, "--json"]) == 0
        written = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert written["images"] == 21 and how in written["answered_by"]
        assert cli.run(["submit", "--check", "submission.csv", "--data", val, "--json"]) == 0
        assert json.loads(capsys.readouterr().out.splitlines()[-1])["defects"] == []
        assert cli.run(["submit", "--score", "submission.csv", "--solution", "set/LOC_val_solution.csv", "--json"]) == 0
        found = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert found["images"] == 21 and found["notes"] == []
        assert found["top1_error"] <= found["top1_localisation_error"] <= 1
        assert found["top5_error"] <= found["top5_localisation_error"] <= found["top1_localisation_error"]

"""Protocols through the command: sets of views, other labels, comparison, several together, calibration, a submission."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import striate
from striate import cli, predictions
from striate.classes import Classes
from striate.data import synthetic
from striate.files import read_json
from striate.run.folder import open_run

CODE = '''
from torch import nn


def averaged(num_classes):
    """A grid of features that is averaged, so that it can be slid over photos."""
    body = nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU()
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes))
'''


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny ImageNet's layout: 5 classes, 40 photos to train on, 30 to validate, 30 unlabelled."""
    folder = tmp_path_factory.mktemp("tiny") / "tiny-imagenet-200"
    synthetic.make(folder, layout="tiny", classes=5, per_class=8, val_per_class=6)
    return folder


@pytest.fixture(scope="module")
def trained(photos: Path, networks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs that differ by their seed, and one of a network that cannot be slid at its size."""
    (networks / "slid_networks.py").write_text(CODE)
    out = tmp_path_factory.mktemp("trained")
    for name, seed, model in (("one", 0, "slid_networks:averaged"), ("two", 1, "slid_networks:averaged"), ("flat", 0, "plain")):
        changes = {
            "model.name": model if ":" in model else f"path_networks:{model}",
            "data.size_px": 32,
            "data.fit": "crop",
            "optim.batch_size": 20,
            "optim.lr": 0.05,
            "budget.steps": 4,
            "seed": seed,
        }
        striate.train(photos, out=out, name=name, changes=changes, quiet=True, device="cpu")
    return out


@pytest.fixture
def runs(trained: Path, tmp_path: Path) -> Path:
    """The runs, to write in."""
    return Path(shutil.copytree(trained, tmp_path / "runs"))


def answer(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    """What a command says to machines, where it ends well."""
    options = ["--device", "cpu", "--json"] if words[0] != "submit" or "--check" not in words else ["--json"]
    code = cli.run([*map(str, words), *options])
    said = capsys.readouterr()
    assert code == 0, said.err
    found: dict[str, Any] = json.loads(said.out.splitlines()[-1])
    return found


# ---------------------------------------------------------------- views


@pytest.mark.parametrize(("views", "words"), [("10crop", "10 crops at shorter side"), ("dense", "dense at shorter side")])
@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_a_set_of_views_is_an_evaluation_of_its_own(
    runs: Path, capsys: pytest.CaptureFixture[str], views: str, words: str, average: str
) -> None:
    center = answer(capsys, "evaluate", runs / "one")
    found = answer(capsys, "evaluate", runs / "one", "--views", views, "--average", average)
    assert (found["used"], found["expected"], found["bad"], found["views"]) == (30, 30, 0, views)
    assert words in found["protocol"] and f"{average} averaged" in found["protocol"]
    assert Path(found["folder"]).name.startswith(f"val-{views}-")
    assert Path(found["folder"]).parent == Path(center["folder"]).parent
    kept = predictions.read(Path(found["folder"]) / "predictions.parquet")
    assert found["top1"] == (kept.scores.argmax(1) == kept.labels).mean()
    assert found["scale"] == kept.scale == "log-probabilities"
    assert "1 view" in center["protocol"]


def test_a_file_of_views(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    center = answer(capsys, "evaluate", runs / "one")
    path = tmp_path / "mine.json"
    folders = set()
    for shorter_px in (center["view"]["resize_px"], 40):
        path.write_text(json.dumps({"crops": [{"shorter_px": shorter_px, "square": "whole"}]}))
        found = answer(capsys, "evaluate", runs / "one", "--views", path)
        folders.add(found["folder"])
        if shorter_px != 40:
            assert found["top1"] == center["top1"]
            assert found["loss"] == pytest.approx(center["loss"], abs=1e-5)
            assert found["views"] == "mine" and "1 crop of mine.json (" in found["protocol"]
    assert len(folders) == 2  # another content, another evaluation


# ---------------------------------------------------------------- several


def test_compare_and_combine_and_what_they_leave(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair = runs / "one", runs / "two"
    one, two = (answer(capsys, "evaluate", run, "--views", "flip") for run in pair)
    saved = [path.read_bytes() for run in (one, two) for path in sorted(Path(run["folder"]).iterdir())]
    compared = answer(capsys, "evaluate", *pair, "--views", "flip", "--compare")
    top1, _, loss = compared["comparisons"]
    assert (top1["first"], top1["second"], loss["images"]) == (one["top1"], two["top1"], 30)
    assert [found["folder"] for found in compared["evaluations"]] == [one["folder"], two["folder"]]

    # From what was saved, without a network: runs and evaluations may be mixed.
    from_saved = answer(capsys, "evaluate", one["folder"], two["folder"], "--compare", "--combine", "arithmetic")
    assert from_saved["comparisons"] == compared["comparisons"]
    folder = Path(from_saved["combination"]["folder"])
    kept = [predictions.read(Path(run["folder"]) / "predictions.parquet") for run in (one, two)]
    mean = np.mean([np.exp(found.scores.astype(np.float64)) for found in kept], axis=0)
    mean /= mean.sum(1, keepdims=True)
    assert np.allclose(np.exp(predictions.read(folder / "predictions.parquet").scores), mean, atol=1e-5)
    assert from_saved["combination"]["top1"] == (mean.argmax(1) == kept[0].labels).mean()
    assert "mean probability of 2 members: one (the view and its mirror image" in from_saved["combination"]["protocol"]
    assert saved == [path.read_bytes() for run in (one, two) for path in sorted(Path(run["folder"]).iterdir())]

    # Members that looked otherwise; weights chosen on one half and scored on the other.
    dense = answer(capsys, "evaluate", runs / "one", "--views", "dense")
    weighted = answer(capsys, "evaluate", one["folder"], dense["folder"], two["folder"], "--combine", "weighted")
    joint = weighted["combination"]
    assert joint["used"] == joint["expected"] == 15
    assert "chosen on 15 images, scored on the other 15" in joint["protocol"]
    assert "dense at shorter side" in joint["protocol"]


def test_saved_evaluations_are_scored_again_by_other_labels(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = answer(capsys, "evaluate", runs / "one", "--views", "10crop")
    again = answer(capsys, "evaluate", first["folder"])
    assert {name: again[name] for name in ("top1", "top5", "loss", "protocol", "folder")} == {
        name: first[name] for name in ("top1", "top5", "loss", "protocol", "folder")
    }
    kept = predictions.read(Path(first["folder"]) / "predictions.parquet")
    path = tmp_path / "out.txt"
    path.write_text("\n".join(kept.keys[row] for row in range(0, 30, 10)))
    less = answer(capsys, "evaluate", first["folder"], "--labels", path)
    rows = np.flatnonzero(np.arange(30) % 10)
    assert less["top1"] == pytest.approx((kept.scores.argmax(1) == kept.labels)[rows].mean())
    assert (less["used"], less["left_out"], less["expected"]) == (27, 3, 30)
    at_once = answer(capsys, "evaluate", runs / "one", "--views", "10crop", "--labels", path)
    assert (at_once["top1"], at_once["protocol"]) == (less["top1"], less["protocol"])


# ---------------------------------------------------------------- calibration, prediction, submission


def test_a_calibrated_run_predicts_with_its_temperature(
    runs: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = sorted((photos / "test").rglob("*.JPEG"))[0]
    before = answer(capsys, "predict", runs / "one", photo)["rows"][0]
    center = answer(capsys, "evaluate", runs / "one")
    monkeypatch.chdir(Path(center["folder"]).parent)  # a relative name finds the run above all the same
    found = answer(capsys, "evaluate", Path(center["folder"]).name, "--calibrate")
    kept = read_json(runs / "one" / "calibration.json")
    assert found["calibration"]["temperature"] == kept["temperature"]
    temperature = kept["temperature"]["value"]
    assert cli.run(["predict", str(runs / "one"), str(photo), "--device", "cpu", "--json"]) == 0
    said = capsys.readouterr()
    assert f"temperature {temperature:.4g}" in said.err
    after = json.loads(said.out.splitlines()[-1])["rows"][0]
    assert [rank["class_id"] for rank in after["ranks"]] == [rank["class_id"] for rank in before["ranks"]]
    chances = np.array([rank["probability"] for rank in before["ranks"]]) ** (1 / temperature)
    assert [rank["probability"] for rank in after["ranks"]] == pytest.approx((chances / chances.sum()).tolist(), abs=1e-4)


def test_a_temperature_is_of_one_view(runs: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.run(["evaluate", str(runs / "one"), "--views", "flip", "--calibrate", "--device", "cpu"])
    said = capsys.readouterr().err
    assert code == 2 and "Calibrate the evaluation with --views center" in said
    assert not (runs / "one" / "calibration.json").exists()


def test_a_submission_by_ten_crops(runs: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "submission.txt"
    words = ("submit", runs / "one", photos, "--format", "tiny", "--views", "10crop", "--out", out)
    found = answer(capsys, *words)
    assert found["images"] == 30
    assert "10 crops at shorter side" in found["answered_by"]
    lines = [line.split() for line in out.read_text().splitlines()]
    assert len(lines) == 30
    assert {wnid for _, wnid in lines} <= set(open_run(runs / "one").classes.ids)
    assert len({name for name, _ in lines}) == 30
    assert answer(capsys, "submit", "--check", out, "--format", "tiny", "--data", photos)["errors"] == 0


# ---------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["one", "--views", "10crops"], 2, "Did you mean '10crop'"),
        (["one", "--views", "dense:16"], 2, "Give 32 px or more"),
        (["one", "--views", "absent.json"], 2, "absent.json: No such file"),
        (["one", "--views", "broken.json"], 2, "broken.json: not JSON"),
        (["one", "--views", "unknown.json"], 2, "crop 1: unknown key 'left'"),
        (["flat", "--views", "dense"], 2, "--views 10crop or 144crop"),
        (["one", "--views", "dense", "--compile"], 2, "--compile: dense views look inside the network"),
        (["one", "--compare"], 2, "two or more runs or evaluations"),
        (["one", "--combine", "arithmetic"], 2, "two or more runs or evaluations"),
        (["one", "one", "--compare"], 2, "the same predictions twice"),
        (["one", "one", "--combine", "arithmetic"], 2, "are the same predictions twice"),
        (["one", "two", "--calibrate"], 2, "give one run or evaluation"),
        (["one", "--labels", "absent.json"], 2, "absent.json"),
        (["one", "--labels", "list.txt"], 3, "no image is called 'nobody.jpg'"),
        (["one", "--labels", "labels.doc"], 2, "expected original, a .json or .csv"),
        (["lone.parquet"], 2, "Give the folder, or evaluate again"),
        (["lone.parquet", "one", "--combine", "arithmetic"], 2, "does not have the classes of"),
    ],
)
def test_bad_input_is_told_with_a_way_out(
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: Any,
    code: int,
    said: str,
) -> None:
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "unknown.json").write_text('{"crops": [{"shorter_px": 40, "left": 1}]}')
    (tmp_path / "list.txt").write_text("nobody.jpg\n")
    (tmp_path / "labels.doc").write_text("")
    lone(tmp_path / "lone.parquet")
    monkeypatch.chdir(tmp_path)
    given = [str(trained / word) if word in ("one", "two", "flat") else word for word in words]
    assert cli.run(["evaluate", *given, "--device", "cpu", "--json"]) == code
    printed = capsys.readouterr()
    assert said in printed.err
    assert json.loads(printed.out.splitlines()[-1])["exit_code"] == code


def lone(path: Path) -> None:
    """Predictions of two images by a network of two classes."""
    scores = np.eye(2, dtype=np.float32)
    predictions.Predictions(["a.jpg", "b.jpg"], np.arange(2), scores, "logits", Classes(("x", "y"), ("", ""))).write(path)


@pytest.mark.parametrize(("views", "said"), [("10crops", "Did you mean '10crop'"), ("dense:8", "Give 32 px or more")])
def test_a_submission_by_views_that_do_not_exist(
    trained: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], views: str, said: str
) -> None:
    out = tmp_path / "s.txt"
    words = [
        "submit",
        str(trained / "one"),
        str(photos),
        "--format",
        "tiny",
        "--views",
        views,
        "--out",
        str(out),
        "--device",
        "cpu",
    ]
    assert cli.run(words) == 2
    assert said in capsys.readouterr().err
    assert not out.exists()

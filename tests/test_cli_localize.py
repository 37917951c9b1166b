"""`striate localize`: what it prints, where it writes, its gallery, its exit codes, and one object for machines."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from striate import cli

SMALL = ["--model", "resnet18", "--model.options.width", "8", "--model.options.stem", "small", "--img-size", "16",
         "--batch-size", "4", "--precision", "fp32", "--data.resident", "no", "--workers", "0", "--device", "cpu",
         "--epochs", "1", "--no-doctor"]  # fmt: skip
OURS = ["--device", "cpu", "--workers", "0"]


@pytest.fixture(scope="module", name="trained")
def _trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos/ of two classes, a square in each and its box, and a run of one epoch on them with a box head."""
    place = tmp_path_factory.mktemp("localize")
    numbers = np.random.default_rng(0)
    rows = []
    for split, count in (("train", 4), ("val", 3)):
        for name, colour in {"cat": (200, 40, 40), "dog": (40, 40, 200)}.items():
            (place / "photos" / split / name).mkdir(parents=True)
            for i in range(count):
                left, top = numbers.integers(0, 12, 2).tolist()
                pixels = np.full((22, 24, 3), 120, np.uint8)
                pixels[top : top + 10, left : left + 12] = colour
                path = f"{split}/{name}/{i}.png"
                Image.fromarray(pixels).save(place / "photos" / path)
                rows.append((path, name, left, top, left + 12, top + 10))
    with open(place / "photos" / "boxes.csv", "w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "x_min", "y_min", "x_max", "y_max"), *rows])
    threads = torch.get_num_threads()
    assert (
        cli.run(["train", str(place / "photos"), "--out", str(place / "runs"), "--name", "x", "--boxes", "shared", *SMALL]) == 0
    )
    torch.set_num_threads(threads)
    return place


@pytest.fixture(name="place")
def _place(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run in the current folder, which is otherwise empty; the photos stay where the run found them."""
    shutil.copytree(trained / "runs" / "x", tmp_path / "here" / "runs" / "x")
    monkeypatch.chdir(tmp_path / "here")
    return trained


def answer(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


@pytest.mark.parametrize(("method", "made"), [("auto", "head"), ("grad-cam++", "grad-cam++")])
def test_it_leaves_numbers_boxes_and_a_gallery(place: Path, capsys: pytest.CaptureFixture[str], method: str, made: str) -> None:
    before = sorted(place.rglob("*"))
    capsys.readouterr()
    assert cli.run(["localize", "runs/x", "--method", method, *OURS, "--json"]) == 0
    printed = capsys.readouterr().out
    found = json.loads(printed.splitlines()[-1])
    folder, page = Path(found["folder"]), Path(found["gallery"])
    assert page == folder / "index.html" and f"Gallery: {page}" in printed.splitlines()
    assert folder.name.startswith(f"val-{made}-") and folder.parent.resolve() == Path("runs/x/localization").resolve()
    assert {path.name for path in folder.iterdir()} == {"summary.json", "boxes.csv", "index.html"}
    said = page.read_text(encoding="utf-8")
    low, high = found["gt_known_accuracy"]["interval"]
    assert f"{100 * low:.1f} to {100 * high:.1f}" in said and found["protocol"].split(" · ")[1] in said
    # The group of the middle has room for all six images, each with the box that the list has.
    with open(place / "photos" / "boxes.csv", newline="") as file:
        for row in csv.DictReader(file):
            if row["path"].startswith("val/"):
                assert f'x="{float(row["x_min"])}" y="{float(row["y_min"])}" width="12.0" height="10.0"' in said
    assert ("threshold, as a share of the map" in said) is (made != "head")
    assert sorted(place.rglob("*")) == before
    # Again: the same folder, the same page.
    assert cli.run(["localize", "runs/x", "--method", method, *OURS, "--json"]) == 0
    assert answer(capsys) == found and page.read_text(encoding="utf-8") == said


def test_a_photo_that_cannot_be_read_is_listed(place: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(place / "photos", photos)
    (photos / "val/cat/1.png").write_bytes(b"no picture")
    assert cli.run(["localize", "runs/x", str(photos), *OURS, "--json"]) == 0
    found = answer(capsys)
    assert (found["expected"], found["used"]) == (6, 5) and found["bad"][0]["key"].endswith("cat/1.png")
    said = Path(found["gallery"]).read_text(encoding="utf-8")
    assert "Not readable" in said and "1 of 6 images could not be read" in said


def test_a_folder_that_cannot_be_written(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("runs/x/localization").write_text("a file")
    assert cli.run(["localize", "runs/x", *OURS, "--json"]) in {2, 6}
    heard = capsys.readouterr()
    assert "localization" in heard.err and "Traceback" not in heard.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--method", "grad-camm"], "Did you mean 'grad-cam'"),
        (["--method", "head", "--threshold", "0.2"], "--threshold and --layer are of heatmaps"),
        (["--method", "cam", "--threshold", "1"], "--threshold 1.0: expected a share"),
        (["--method", "grad-cam", "--layer", "layer5"], "Did you mean 'layer"),
    ],
)
def test_wrong_words_have_a_way_out(place: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str) -> None:
    assert cli.run(["localize", "runs/x", *OURS, *options, "--json"]) == 2
    heard = capsys.readouterr()
    assert said in heard.err and "Traceback" not in heard.err
    assert json.loads(heard.out.splitlines()[-1])["exit_code"] == 2
    assert not Path("runs/x/localization").exists()

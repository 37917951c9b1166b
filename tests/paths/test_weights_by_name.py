"""Evaluate and predict without a run: a network's name and weights from somewhere, ImageNet's classes, the weights' own view."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision.models
from PIL import Image

from striate import classes, cli, files
from striate.data import decode, views
from striate.evaluate import open as opened
from striate.models import catalog, foreign, pretrained

SQUEEZE = "torchvision/squeezenet1_1"
SETS = torchvision.models.SqueezeNet1_1_Weights
WNIDS = ("n02012849", "n01440764", "n15075141")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Class folders that are wnids: two photos in each."""
    generator = np.random.default_rng(0)
    for wnid in WNIDS:
        (tmp_path / "val" / wnid).mkdir(parents=True)
        for number in range(2):
            pixels = generator.integers(0, 256, (60, 80, 3), np.uint8)
            Image.fromarray(pixels).resize((320, 240)).save(tmp_path / "val" / wnid / f"{number}.jpg", quality=95)
    return tmp_path / "val"


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> torch.nn.Module:
    """torchvision's SqueezeNet with random weights, which lie in torch.hub's folder as its published ones would."""
    torch.manual_seed(0)
    model = torchvision.models.squeezenet1_1()
    torch.nn.init.normal_(model.classifier[1].weight, std=0.2)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(foreign, "read", lambda path: (torch.load(path, weights_only=True), None))
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(model.state_dict(), folder / "w.pth")
    digest = files.sha256_file(folder / "w.pth")
    (folder / "w.pth").rename(folder / f"w-{digest[:8]}.pth")
    monkeypatch.setattr(SETS.DEFAULT.value, "url", f"https://download.pytorch.org/models/w-{digest[:8]}.pth")
    monkeypatch.chdir(tmp_path)
    return model.eval()


def said(theirs: torch.nn.Module, path: Path) -> str:
    """What torchvision says a photo shows, by its own preprocessing."""
    with Image.open(path) as photo, torch.inference_mode():
        scores = theirs(SETS.DEFAULT.transforms()(photo.convert("RGB"))[None])[0]
    return classes.imagenet().title(int(scores.argmax()))


def test_predict_names_photos_with_the_published_weights_and_says_how_it_saw_them(
    theirs: torch.nn.Module, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = photos / WNIDS[0] / "0.jpg"
    assert cli.run(["predict", SQUEEZE, str(photo), "--device", "cpu", "--json", "--top", "2"]) == 0
    out, err = capsys.readouterr()
    answer = json.loads(out.splitlines()[-1])
    assert answer["rows"][0]["ranks"][0]["name"] == said(theirs, photo)
    assert "torchvision SqueezeNet1_1_Weights.IMAGENET1K_V1" in err and "shorter side 256, centre 224x224, bilinear, RGB" in err


def test_evaluate_matches_wnids_and_scores_a_part_only_when_told(
    theirs: torch.nn.Module, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", SQUEEZE, "--weights", "default", "--data", str(photos), "--device", "cpu", "--json"]
    assert cli.run(command) == 2
    assert "Missing, 997" in capsys.readouterr().err
    assert cli.run([*command, "--subset"]) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    names = {wnid: classes.imagenet().title(classes.imagenet().index[wnid]) for wnid in WNIDS}
    right = sum(said(theirs, path) == names[path.parent.name] for path in photos.rglob("*.jpg"))
    assert summary["top1"] == right / 6 and summary["used"] == 6
    assert "raw weights of torchvision SqueezeNet1_1_Weights.IMAGENET1K_V1" in summary["protocol"]
    assert Path(summary["folder"]).is_relative_to("runs/evaluated-torchvision-squeezenet1_1/evaluation")


def test_a_file_with_1000_outputs_is_imagenets_and_one_without_a_head_is_refused(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = catalog.build("resnet18", 1000, {})
    safetensors.torch.save_file(model.state_dict(), tmp_path / "w.safetensors")
    arguments: list[str] = [
        "predict",
        "resnet18",
        "--weights",
        str(tmp_path / "w.safetensors"),
        "--img-size",
        "32",
        "--device",
        "cpu",
    ]
    assert cli.run([*arguments, str(photos)]) == 0
    assert "1,000 outputs, taken as ImageNet's classes" in capsys.readouterr().err
    safetensors.torch.save_file(catalog.build("resnet18", 7, {}).state_dict(), tmp_path / "w.safetensors")
    assert cli.run([*arguments, str(photos)]) == 2
    assert "tell 7 classes apart, and nobody says which" in capsys.readouterr().err


def test_a_file_of_another_class_count_has_the_classes_of_the_data_in_order(photos: Path, tmp_path: Path) -> None:
    safetensors.torch.save_file(catalog.build("resnet18", 3, {}).state_dict(), tmp_path / "w.safetensors")
    summary, _ = opened.evaluate(
        "resnet18", photos, weights=str(tmp_path / "w.safetensors"), size_px=32, device="cpu", out=tmp_path / "out"
    )
    assert summary["classes"] == 3 and summary["view"]["size_px"] == 32 and summary["view"]["resize_px"] == 37


def test_an_input_that_is_too_small_is_refused_by_its_option(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    safetensors.torch.save_file(catalog.build("all-cnn-a", 3, {}).state_dict(), tmp_path / "a.safetensors")
    command = ["evaluate", "all-cnn-a", "--weights", str(tmp_path / "a.safetensors"), "--data", str(photos), "--device", "cpu"]
    assert cli.run([*command, "--img-size", "5"]) == 2
    assert "all-cnn-a: an input of 5x5 px is too small; the smallest is 9x9. Use --img-size 9 or more." in capsys.readouterr().err
    assert cli.run([*command, "--img-size", "0"]) == 2
    assert "--img-size 0: expected 1 px or more." in capsys.readouterr().err


def test_weights_of_caffe_are_shown_blue_first(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way: Caffe's names, its view, and what enters the first layer."""
    shapes = {"conv1/7x7_s2.weight": (8, 3, 7, 7)}
    held = {name: torch.zeros(shape) for name, shape in shapes.items()} | {"inception_3a/5x5_reduce.bias": torch.zeros(1)}
    safetensors.torch.save_file(held, tmp_path / "w.safetensors")
    view = pretrained.view_of("googlenet", tmp_path / "w.safetensors")
    assert view is not None and "BGR, mean 0.4078,0.4588,0.4824" in view.describe()
    path = photos / WNIDS[1] / "1.jpg"
    pixels = views.apply(decode.load(path, view.exif), view)
    x = view.normalise(torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None], torch.float32)[0]
    expected = pixels[..., ::-1].astype(np.float32) - np.array([104, 117, 123], np.float32)
    assert np.abs(x.permute(1, 2, 0).numpy() - expected).max() < 1e-3


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["evaluate", "resnet18", "--data", "builtin"], 2, "needs --weights FILE, or --weights default"),
        (["predict", "resnet51", "photo.jpg"], 2, "'resnet51' is no network"),
        (["evaluate", "resnet51", "--weights", "default", "--data", "nowhere"], 2, "'resnet51' is no network"),
        (["predict", "zfnet", "photo.jpg"], 2, "nobody publishes weights for it"),
        (["predict", "resnet18", "photo.jpg", "--weights", ""], 2, "no such weight file"),
        (["predict", "resnet18", "photo.jpg", "--weights", "none.pth"], 2, "no such weight file"),
    ],
)
def test_what_cannot_be_scored_by_name(words: list[str], code: int, message: str, capsys: Any) -> None:
    assert cli.run(words) == code
    assert message in capsys.readouterr().err

"""`striate explain`: what it prints, where it writes, its exit codes, and one object for machines on the last line."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from striate import cli

SMALL = ["--model", "resnet18", "--model.options.width", "8", "--model.options.stem", "small", "--img-size", "16",
         "--batch-size", "4", "--precision", "fp32", "--data.resident", "no", "--workers", "0", "--device", "cpu",
         "--epochs", "1", "--no-doctor"]  # fmt: skip
OURS = ["--device", "cpu", "--workers", "0"]


@pytest.fixture(scope="module", name="trained")
def _trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos/ of two classes, and a run of one epoch on them."""
    place = tmp_path_factory.mktemp("explain")
    numbers = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for name, colour in {"cat": (200, 40, 40), "dog": (40, 40, 200)}.items():
            (place / "photos" / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = np.clip(colour + numbers.integers(-30, 30, (18, 20, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(place / "photos" / split / name / f"{i}.png")
    threads = torch.get_num_threads()
    assert cli.run(["train", str(place / "photos"), "--out", str(place / "runs"), "--name", "x", *SMALL]) == 0
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


def test_photos(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cats = place / "photos/val/cat"
    before = sorted(place.rglob("*"))
    capsys.readouterr()
    assert cli.run(["explain", "runs/x", str(cats), "gone.png", *OURS, "--class", "dog", "--json"]) == 0
    printed = capsys.readouterr().out
    found = json.loads(printed.splitlines()[-1])
    folder = Path(found["folder"])
    assert folder.parent == Path("runs/x/explanations").resolve() or folder.parent == Path("runs/x/explanations")
    assert folder.name.startswith("grad-cam-") and len(folder.name) == len("grad-cam-") + 6
    assert str(folder / "index.html") in printed.splitlines()
    assert [one["key"] for one in found["photos"]] == [str(cats / "0.png"), str(cats / "1.png")]
    assert [one["maps"][0]["class"] for one in found["photos"]] == ["dog", "dog"]
    assert found["bad"][0]["key"] == "gone.png" and "Could not be read: gone.png" in printed
    assert {path.name for path in folder.iterdir()} == {"index.html", "heatmaps.json", "cat-0.png", "cat-1.png"}
    assert sorted(place.rglob("*")) == before


def test_the_runs_own_validation_set_and_the_insides(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--kernels", "--features", "layer1", "--no-sanity", "--method", "gradient", "--out", "said"]
    assert cli.run(["explain", "runs/x", *OURS, *options, "--json"]) == 0
    found = answer(capsys)
    assert len(found["photos"]) == 4 and {one["true"] for one in found["photos"]} == {"cat", "dog"}
    assert all((one["group"] == "Right answers") is (one["true"] == one["predicted"]) for one in found["photos"])
    assert all(one["maps"][0]["sanity"] == {} and one["maps"][0]["layer"] == "" for one in found["photos"])
    assert Path("said/kernels.png").is_file() and len(list(Path("said").glob("features-layer1-*.png"))) >= 1
    # The folder of the data says the same as no folder at all.
    assert cli.run(["explain", "runs/x", str(place / "photos"), *OURS, *options, "--json"]) == 0
    assert answer(capsys)["photos"] == found["photos"]


def test_names_on_standard_input(place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{place}/photos/val/dog/1.png\n"))
    assert cli.run(["explain", "runs/x", "-", *OURS, "--no-sanity", "--json"]) == 0
    assert [one["key"] for one in answer(capsys)["photos"]] == [f"{place}/photos/val/dog/1.png"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    assert cli.run(["explain", "runs/x", "-", *OURS]) == 3
    assert "no name on standard input" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--class", "dgo"], 2, "none of the 2 classes that the network knows, neither by id nor by name. Did you mean 'dog'?"),
        (["--layer", "layer5"], 2, "Did you mean 'layer"),
        (["--method", "grad-cam", "--layer", "fc"], 2, "no grid of features"),
        (["--method", "cams"], 2, "Did you mean 'cam'"),
        (["--method", "occlusion", "--layer", "layer4"], 2, "has no layer"),
        (["--features", "layers1"], 2, "Did you mean 'layer1"),
        (["--layer", ""], 2, "--layer '': expected a layer's name"),
        (
            ["--img-size", "64"],
            2,
            "runs/x: --img-size goes with a network by name; a run looks at photos as it was trained, at 16 px",
        ),
        (["--weights", "default"], 2, "runs/x: a run has its own weights, so --weights does not go with its folder."),
        (["--images", "0"], 2, "--images 0: expected 1 or more"),
        (["--checkpoint", "step-77"], 4, "step-77"),
    ],
)
def test_wrong_words_have_a_way_out(
    place: Path, capsys: pytest.CaptureFixture[str], options: list[str], code: int, said: str
) -> None:
    assert cli.run(["explain", "runs/x", str(place / "photos/val/cat"), *OURS, *options, "--json"]) == code
    heard = capsys.readouterr()
    assert said in heard.err and "Traceback" not in heard.err
    assert json.loads(heard.out.splitlines()[-1])["exit_code"] == code
    assert not Path("runs/x/explanations").exists()


def test_nothing_to_look_at(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty").mkdir()
    Path("broken.png").write_bytes(b"no picture")
    assert cli.run(["explain"]) == 2
    assert "give a run folder" in capsys.readouterr().err
    assert cli.run(["explain", "runs/x", "empty", *OURS]) == 3
    assert cli.run(["explain", "runs/x", "broken.png", *OURS]) == 3
    assert "None of the 1 photos could be read: 'broken.png (" in capsys.readouterr().err


def test_a_network_by_name_without_a_grid(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("plain_net.py").write_text(
        "from torch import nn\n\n\ndef flat(num_classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, num_classes))\n"
    )
    torch.manual_seed(0)
    weights = {"1.weight": torch.randn(1000, 192), "1.bias": torch.zeros(1000)}
    safetensors.torch.save_file(weights, "flat.safetensors")
    named = [
        "explain",
        "plain_net:flat",
        str(place / "photos/val/cat/0.png"),
        "--weights",
        "flat.safetensors",
        "--img-size",
        "8",
        *OURS,
    ]
    assert cli.run([*named, "--method", "cam"]) == 2
    assert "no grid of features" in capsys.readouterr().err
    assert cli.run([*named, "--method", "gradient", "--class", "tench", "--json"]) == 0
    found = answer(capsys)
    assert Path(found["folder"]).name.startswith("explanations-plain_net-flat-gradient-")
    assert found["photos"][0]["maps"][0]["class"] == "n01440764"
    assert cli.run(["explain", "plain_net:flat", "--weights", "flat.safetensors", "--img-size", "8", *OURS]) == 2
    assert "say which photos to explain" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["explain", "predict", "evaluate"])
def test_options_of_a_network_by_name_do_not_go_with_a_run(place: Path, capsys: pytest.CaptureFixture[str], verb: str) -> None:
    photos = [] if verb == "evaluate" else [str(place / "photos/val/cat/0.png")]
    for options, said in (
        (["--img-size", "64"], "--img-size goes with a network by name"),
        (["--weights", "default"], "a run has its own weights, so --weights does not go with its folder"),
    ):
        assert cli.run([verb, "runs/x", *photos, *OURS, *options]) == 2
        assert said in capsys.readouterr().err
    Path("holiday").mkdir()  # a folder that is no run, and one that is not there
    for name in ("holiday", "runs/y"):
        assert cli.run([verb, name, *photos, *OURS, "--weights", "default"]) == 2
        assert f"'{name}' is no network" in capsys.readouterr().err


def test_a_name_with_a_line_feed_is_one_line_of_the_screen(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, bad = Path("a\nb.png"), Path("c\nd.png")
    shutil.copy(place / "photos/val/cat/0.png", path)
    bad.write_bytes(b"no picture")
    assert cli.run(["predict", "runs/x", str(path), str(bad), *OURS, "--csv", "out.csv", "--json"]) == 0
    printed = capsys.readouterr().out
    assert "a\\nb.png" in printed and "c\\nd.png" in printed and len(printed.splitlines()) == 4
    assert [row["key"] for row in json.loads(printed.splitlines()[-1])["rows"]] == [str(path), str(bad)]
    assert cli.run(["explain", "runs/x", str(path), str(bad), *OURS, "--no-sanity", "--method", "gradient", "--json"]) == 0
    printed = capsys.readouterr().out
    assert "a\\nb.png: " in printed and "c\\nd.png: " in printed and len(printed.splitlines()) == 4
    assert json.loads(printed.splitlines()[-1])["photos"][0]["key"] == str(path)


@pytest.mark.parametrize(
    ("ends", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "interrupted before there was anything to save"),
        (ZeroDivisionError("by\nnothing"), 1, "a bug in striate, ZeroDivisionError: by\nnothing"),
    ],
)
def test_the_last_line_is_an_object_also_after_an_interrupt_and_a_bug(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, ends: BaseException, code: int, said: str
) -> None:
    def stop(argv: list[str]) -> int:
        print("some lines")
        raise ends

    monkeypatch.setitem(cli.VERBS, "explain", stop)
    assert cli.run(["explain", "runs/x", "--json"]) == code
    assert answer(capsys) == {"error": said, "exit_code": code}
    assert cli.run(["explain", "runs/x"]) == code
    assert capsys.readouterr().out == "some lines\n"
    monkeypatch.setenv("RANK", "1")  # one process answers
    assert cli.run(["explain", "runs/x", "--json"]) == code
    assert capsys.readouterr().out == "some lines\n"


def test_a_reader_that_has_gone_is_no_bug() -> None:
    """Ctrl-C ends both sides of a pipe."""
    program = (
        "import os, sys\nfrom striate import cli\n\n\ndef stop(argv):\n    raise KeyboardInterrupt\n\n\n"
        "cli.VERBS['explain'] = stop\nread, write = os.pipe()\nos.close(read)\nos.dup2(write, 1)\n"
        "sys.exit(cli.run(['explain', '--json']))\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 130 and "Traceback" not in ended.stderr and "BrokenPipe" not in ended.stderr

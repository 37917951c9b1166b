"""`striate measure`: its tables, its JSON, and what it says to a mistake."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from striate import cli
from striate.models import catalog

Said = tuple[int, str, str]


@pytest.fixture
def striate(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Said]:
    """Runs a command line in this process, in an empty folder; returns exit code, standard output and error."""
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()

    def run(*argv: object) -> Said:
        code = cli.run([str(word) for word in argv])
        torch.set_num_threads(threads)
        return code, *capsys.readouterr()

    return run


def networks(out: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(out.splitlines()[-1])["networks"]
    return found


def test_a_table_of_all_networks(striate, monkeypatch):
    monkeypatch.setattr(catalog, "NETWORKS", {name: catalog.NETWORKS[name] for name in ("lenet5", "resnet18", "kth-f")})
    code, out, _ = striate("measure", "--json", "--csv", "all.csv")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[:-1]] == ["network", "lenet5", "resnet18", "kth-f"]
    assert [one["name"] for one in networks(out)] == ["lenet5", "resnet18", "kth-f"]
    assert [row["macs"] for row in csv.DictReader(Path("all.csv").read_text().splitlines())][1] == "1814073344"


def test_layers_of_two_networks_and_whose_numbers_were_printed(striate):
    code, out, _ = striate("measure", "googlenet-bn", "se-googlenet-paths", "--layers", "--json")
    assert code == 0
    for line in ("Total params: 13,004,888", "Input size (MB): 0.57", "Forward/backward pass size (MB): 94.26",
                 "Params size (MB): 49.61", "Estimated Total Size (MB): 144.44", "Total params: 13,531,919"):  # fmt: skip
        assert f"  {line}\n" in out
    assert "torchsummary" in out
    assert [len(one["layers"]) > 100 for one in networks(out)] == [True, True]


def test_size_classes_and_options_reach_the_builder(striate):
    code, out, _ = striate(
        "measure",
        "resnet18",
        "--img-size",
        64,
        "--classes",
        10,
        "--model.options.width",
        16,
        "--model.options.stem=small",
        "--json",
    )
    assert code == 0
    one = networks(out)[0]
    assert (one["input"], one["classes"], one["parameters"]) == (64, 10, 701_466)
    assert one["published_top1"] is None


def test_latency(striate):
    code, out, _ = striate(
        "measure",
        "resnet18",
        "lenet5",
        "--img-size",
        32,
        "--classes",
        4,
        "--latency",
        "--batch-size",
        2,
        "--device",
        "cpu",
        "--json",
    )
    assert code == 0
    for one in networks(out):
        assert [row["batch"] for row in one["latency"]["rows"]] == [1, 2]
        assert one["latency"]["precision"] == "fp32" and one["latency"]["rows"][0]["median_s"] > 0
    assert "passes in turns" in out


def test_the_effective_field_over_a_photo(striate):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)).save("photo.png")
    code, out, _ = striate(
        "measure",
        "resnet18",
        "--img-size",
        64,
        "--model.options.width",
        8,
        "--field",
        "photo.png",
        "--layer",
        "layer1.1.conv2",
        "--json",
    )
    assert code == 0
    (field,) = networks(out)[0]["effective_fields"]
    assert field["layer"] == "layer1.1.conv2" and field["theoretical_px"] == [43, 43] and 3 < field["side_px"] <= 43
    assert "untrained weights" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("resnet19",), "'resnet19' is no network. Did you mean 'resnet18'"),
        (("torchvision/resnet19",), "torchvision has no classification network"),
        (("nowhere:network",), "the module 'nowhere' cannot be imported"),
        (("resnet18", "--classes", 0), "--classes 0: expected 1 or more"),
        (("resnet18", "--img-size", 0), "--img-size 0: expected 1 or more"),
        (("resnet18", "--model.options.widht", 3), "has no option 'widht'"),
        (("torchvision/alexnet", "--img-size", 40), "the smallest is 63x63"),
        (("--latency",), "--latency: name the networks"),
        (("--layers",), "--layers: name the networks"),
        (("resnet18", "--weights", "w.pth"), "--weights: goes with --field PHOTO"),
        (("runs/none",), "is no network"),
        (("resnet18", "--img-size", 64, "--latency", "--batch-size", 0), "--batch-size 0: expected 1 or more"),
        (("resnet18", "--latency", "--device", "gpu"), "not a device name"),
    ],
)
def test_a_mistake_is_named(striate, arguments, words):
    code, out, err = striate("measure", *arguments, "--json")
    assert code == 2
    assert words in err and "Traceback" not in err
    assert json.loads(out.splitlines()[-1])["exit_code"] == 2


def test_a_photo_that_is_none(striate):
    Path("bad.jpg").write_bytes(b"no photo")
    code, _, err = striate("measure", "resnet18", "--img-size", 32, "--field", "bad.jpg")
    assert code == 3 and "bad.jpg" in err

"""Networks by name and from runs, and what is said of them."""

import csv
import io
import json
import sys

import pytest
import torch

import striate
from striate.classes import Classes
from striate.errors import UserError
from striate.files import write_json
from striate.measure import listing, table
from striate.models import catalog
from striate.recipe import Recipe, change, to_plain
from striate.view import IMAGENET_GREY_MEAN, IMAGENET_GREY_STD, View

KEYS = ["name", "year", "parameters", "parameters_without_aux", "macs", "input", "published_top1", "published_top5"]


def test_the_keys_that_scripts_rely_on():
    one = listing.measure("googlenet-bn")[0].to_json(layers=True)
    assert list(one)[:8] == KEYS
    assert [one[key] for key in KEYS[:6]] == ["googlenet-bn", 2014, 13_004_888, 6_624_904, 1_498_376_192, 224]
    assert (one["published_top1"], one["published_top5"]) == pytest.approx((0.69778, 0.8953))
    assert one["published_protocol"] == "single crop 224 of 256, ImageNet val"
    assert round(one["torchsummary"]["total_mib"], 2) == 144.44
    assert sum(line["parameters"] for line in one["layers"]) == 13_004_888
    assert one["layers"][0]["field"] == {"sizes_px": (7, 7), "strides_px": (2, 2), "offsets_px": (-3, -3)}
    json.dumps(one)


def test_without_a_name_every_network_counts_alone(monkeypatch):
    few = {name: catalog.NETWORKS[name] for name in ("lenet5", "all-cnn-c", "kth-d", "resnet18")}
    monkeypatch.setattr(catalog, "NETWORKS", few)
    found = {one.subject.name: one.to_json() for one in listing.measure()}
    assert list(found) == list(few)
    assert "torchsummary" not in found["resnet18"]
    # Each at its own size, with its own classes and channels.
    assert (found["kth-d"]["input"], found["kth-d"]["classes"], found["kth-d"]["parameters"]) == (64, 200, 10_998_760)
    assert (found["lenet5"]["input"], found["lenet5"]["channels"]) == (32, 1)
    assert found["resnet18"]["macs"] == 1_814_073_344
    lines = table.all_lines(listing.measure())
    assert len(lines) == 5 and "11,689,512" in lines[4] and "1,814.1 M" in lines[4] and "69.8%" in lines[4]


def test_published_figures_go_with_the_published_network_only():
    assert listing.subject("resnet18").published is not None
    for changed in ({"classes": 10}, {"size_px": 64}, {"options": {"width": "32"}}):
        assert listing.subject("resnet18", **changed).published is None
    assert listing.subject("resnet18", size_px=224, classes=1000).published is not None


def test_networks_of_libraries_and_of_yours(tmp_path, monkeypatch):
    assert listing.subject("torchvision/resnet18").size_px == 224
    timm = listing.subject("timm/inception_v4")
    assert (timm.size_px, timm.channels, timm.year, timm.published) == (299, 3, None, None)
    assert listing.subject("timm/resnet18", options={"in_chans": "1"}).channels == 1
    (tmp_path / "yours.py").write_text(
        "import torch\n"
        "def tiny(num_classes):\n"
        "    start = float(torch.linspace(0, 1, 3)[1])  # numbers, which a network without them cannot have\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, num_classes), torch.nn.Dropout(start))\n"
    )
    monkeypatch.chdir(tmp_path)
    one = listing.measure("yours:tiny", size_px=8, classes=5)[0].to_json()
    assert (one["parameters"], one["macs"], one["receptive_field_px"]) == (965, 960, None)
    sys.modules.pop("yours")


def test_a_run_is_measured_as_it_trains(tmp_path):
    recipe = change(Recipe(), {"model.name": "resnet18", "model.options": {"width": 16}, "data.colour": "grey"})
    write_json(tmp_path / "recipe.json", to_plain(recipe))
    Classes(("a", "b", "c"), ("a", "b", "c")).write(tmp_path / "classes.json")
    view = View(48, "crop", 56, "bilinear", True, IMAGENET_GREY_MEAN, IMAGENET_GREY_STD, "grey")
    write_json(tmp_path / "view.json", view.to_json())
    one = listing.measure(tmp_path)[0].to_json()
    assert (one["input"], one["channels"], one["classes"], one["year"], one["published_top1"]) == (48, 1, 3, 2015, None)
    first = one["receptive_field_px"]
    assert first == 435
    assert listing.measure(str(tmp_path), size_px=64)[0].to_json()["input"] == 64
    with pytest.raises(UserError, match="a run has its own classes and options"):
        listing.measure(tmp_path, classes=5)


def test_what_is_refused():
    with pytest.raises(UserError, match=r"'resnet19' is no network\. Did you mean 'resnet18'"):
        listing.measure("resnet19")
    with pytest.raises(UserError, match="--classes 0: expected 1 or more"):
        listing.measure("resnet18", classes=0)
    with pytest.raises(UserError, match="resnet18 has no option 'widht'"):
        listing.measure("resnet18", options={"widht": 3})
    with pytest.raises(UserError, match=r"torchvision/alexnet: an input of 40x40 px is too small; the smallest is 63x63"):
        listing.measure("torchvision/alexnet", size_px=40)


def test_global_randomness_stays_as_it_is():
    before = torch.get_rng_state()
    listing.measure("resnet18", size_px=32, options={"width": 8})
    assert torch.equal(torch.get_rng_state(), before)


def test_csv_has_the_keys_of_json():
    found = listing.measure("resnet18", "torchvision/alexnet")
    rows = list(csv.DictReader(io.StringIO(listing.to_csv(found))))
    assert list(rows[0])[:8] == KEYS
    assert rows[1]["parameters"] == "61100840" and rows[1]["published_top1"] == "" and len(rows) == 2


def test_tables_say_whose_numbers_they_are():
    found = listing.measure("googlenet-bn", "torchvision/inception_v3", size_px=150)
    beside = table.beside_lines(found)
    assert beside[0].split() == ["googlenet-bn", "torchvision/inception_v3"]
    assert any(line.startswith("kept for a training step") and line.endswith("does not train so small") for line in beside)
    one = listing.measure("googlenet-bn")[0]
    lines = table.layer_lines(one)
    assert lines[-5:] == [
        "  Total params: 13,004,888",
        "  Input size (MB): 0.57",
        "  Forward/backward pass size (MB): 94.26",
        "  Params size (MB): 49.61",
        "  Estimated Total Size (MB): 144.44",
    ]
    assert any("as the package torchsummary counts" in line for line in lines)
    assert sum("(training only)" in line for line in lines) >= 8
    assert max(map(len, lines)) <= 130


def test_the_public_name_is_the_function():
    assert striate.measure is listing.measure

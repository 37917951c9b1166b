"""A grey network is the colour network, on grey photos; and neither takes the other's weights."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from striate.errors import CheckpointError, UserError
from striate.models import catalog, weights
from striate.models.grey import are_one_channel, one_channel

NETWORKS = [
    ("resnet18", {"stem": "small", "width": 8}, "conv1"),
    ("kth-d", {"size_px": 32}, "block1.conv1"),
    ("se-googlenet-bn-paths", {}, "conv1.conv"),  # has gates whose inner layer has three channels
    ("torchvision/mobilenet_v3_small", {}, "features.0.0"),
    ("torchvision/squeezenet1_1", {}, "features.0"),
    ("timm/convnext_atto", {}, "stem.0"),
    ("timm/tf_mobilenetv3_small_075", {}, "conv_stem"),
]


@pytest.mark.parametrize(("name", "options", "layer"), NETWORKS, ids=[name for name, _, _ in NETWORKS])
def test_on_three_equal_channels_it_is_the_same_function(name: str, options: dict[str, Any], layer: str) -> None:
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    torch.manual_seed(0)
    colour = catalog.build(name, 5, options).eval()
    grey = catalog.build(name, 5, options).eval()
    grey.load_state_dict(colour.state_dict())
    kind = type(grey.get_submodule(layer))
    assert one_channel(grey, name) is grey
    first = grey.get_submodule(layer)
    assert type(first) is kind
    assert first.in_channels == 1
    assert [key for key in grey.state_dict() if grey.state_dict()[key].shape != colour.state_dict()[key].shape] == [
        f"{layer}.weight"
    ]
    assert list(grey.state_dict()) == list(colour.state_dict())
    side = options.get("size_px", 64)
    images = torch.randn(2, 1, side, side)
    with torch.no_grad():
        expected, found = colour(images.expand(2, 3, side, side)), grey(images)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert expected.std() > 0


@pytest.mark.parametrize("name", ["fan_in", "fan_out"])
def test_a_fresh_layer_keeps_the_size_of_its_output(name: str) -> None:
    """By fan-in: as drawn for one channel, 2 / 9. By fan-out: what a colour network gives for grey photos, 3 * 2 / (9 * 512)."""
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 512, 3, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_in" if name == "fan_in" else "fan_out", nonlinearity="relu")
    grey = one_channel(nn.Sequential(layer), name)
    expected = 2 / 9 if name == "fan_in" else 3 * 2 / (9 * 512)
    assert grey[0].weight.var().item() == pytest.approx(expected, rel=0.1)
    images = torch.randn(8, 1, 16, 16)
    with torch.no_grad():
        assert grey(images).var().item() == pytest.approx(9 * expected, rel=0.1)


def test_torchs_own_start_is_that_of_one_channel() -> None:
    torch.manual_seed(0)
    summed = one_channel(nn.Sequential(nn.Conv2d(3, 512, 5)), "x")[0].weight
    drawn = nn.Conv2d(1, 512, 5).weight
    assert summed.std().item() == pytest.approx(drawn.std().item(), rel=0.05)
    assert drawn.std().item() == pytest.approx(1 / math.sqrt(3 * 25), rel=0.05)


def test_a_frozen_layer_stays_frozen() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3))
    network[0].weight.requires_grad_(False)
    assert not one_channel(network, "x")[0].weight.requires_grad


def test_a_network_of_one_channel_stays_as_it_is() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 2, 1))
    before = network[0].weight
    assert one_channel(network, "x")[0].weight is before


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), "x cannot be made grey: it has no convolution"),
        (nn.Sequential(nn.Conv2d(4, 8, 3)), "the first, '0', takes 4"),
        (
            nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 3, 1), nn.Conv2d(3, 8, 3)),
            r"2 convolutions take three channels \(0, 2\)",
        ),
        (nn.Sequential(nn.Conv2d(3, 3, 3, groups=3)), "the first, '0', takes 3 in 3 groups"),
    ],
)
def test_a_network_without_such_a_layer_is_named_with_what_was_found(network: nn.Module, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        one_channel(network, "x")
    assert caught.value.exit_code == 2
    assert "in_chans 1" in str(caught.value)


def test_two_parallel_stems_of_timm_take_its_own_way() -> None:
    pytest.importorskip("timm")
    with pytest.raises(UserError, match="2 convolutions"):
        one_channel(catalog.build("timm/repvgg_a0", 3, {}), "timm/repvgg_a0")
    grey = one_channel(catalog.build("timm/repvgg_a0", 3, {"in_chans": "1"}), "timm/repvgg_a0").eval()
    assert grey(torch.randn(1, 1, 64, 64)).shape == (1, 3)


def test_grey_and_colour_weights_never_load_into_each_other(tmp_path: Path) -> None:
    colour = catalog.build("resnet18", 3, {"stem": "small", "width": 8})
    grey = one_channel(catalog.build("resnet18", 3, {"stem": "small", "width": 8}), "resnet18")
    for network, name in ((colour, "colour"), (grey, "grey")):
        save_file(network.state_dict(), tmp_path / f"{name}.safetensors")
    read = {name: weights.read(tmp_path / f"{name}.safetensors")[0] for name in ("colour", "grey")}
    with pytest.raises(CheckpointError, match=r"conv1.weight \[8, 1, 3, 3\] for \[8, 3, 3, 3\]"):
        weights.put(colour, read["grey"], "grey.safetensors")
    with pytest.raises(CheckpointError, match=r"conv1.weight \[8, 3, 3, 3\] for \[8, 1, 3, 3\]"):
        weights.put(grey, read["colour"], "colour.safetensors")
    weights.put(grey, read["grey"], "grey.safetensors")
    shapes = {name: {key: tuple(tensor.shape) for key, tensor in tensors.items()} for name, tensors in read.items()}
    assert are_one_channel(shapes["grey"], colour)
    assert not are_one_channel(shapes["colour"], colour)
    assert not are_one_channel({}, colour)

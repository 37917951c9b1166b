"""Outlines against what is known of the networks: their convolutions, branches, shortcuts and repetitions."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import pytest
import torch
from torch import nn
from torch.nn import functional

from striate.errors import UserError
from striate.measure import listing
from striate.measure.outline import Block, Fork, Item, Layer, Outline, boxes, common_name, outline


@functools.cache
def outlined(name: str) -> tuple[nn.Module, Outline]:
    subject = listing.subject(name)
    model = subject.outlined()
    return model, outline(model, name, subject.size_px, subject.channels)


def words(items: Sequence[Item]) -> list[str]:
    return [item.words if isinstance(item, Layer) else type(item).__name__ for item in items]


def drawn_names(items: Sequence[Item]) -> list[str]:
    """The names of all layers, those of repetitions included, as many times as they are drawn."""
    found: list[str] = []
    for item in items:
        if isinstance(item, Layer):
            found += item.names
        elif isinstance(item, Block):
            inside = drawn_names(item.items)
            first = item.names[0] + "."
            assert all(name.startswith(first) for name in inside) or item.kind == ""
            found += [other + "." + name.removeprefix(first) for other in item.names for name in inside]
        else:
            found += [name for branch in item.branches for name in drawn_names(branch)]
    return found


NETWORKS = ("alexnet", "all-cnn-c", "googlenet-bn", "resnet50", "xception", "densenet121", "torchvision/mobilenet_v3_small")


@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_with_weights_is_in_the_outline_once(name):
    model, found = outlined(name)
    weighted = sorted(place for place, layer in model.named_modules() if any(True for _ in layer.parameters(recurse=False)))
    drawn = drawn_names([*found.items, *(item for head in found.heads for item in head.items)])
    assert sorted(set(drawn) & set(weighted)) == weighted
    assert len(set(drawn)) == len(drawn)
    assert found.items[-1].shape == (10 if name == "all-cnn-c" else 1000,)


def test_vgg_is_a_chain_with_its_equal_neighbours_folded():
    _, found = outlined("vgg16")
    seen = [(item.words, item.count, item.shape[-1]) for item in found.items]
    pool = "max pool 2×2, /2"
    assert seen == [
        ("3×3 conv, 64", 2, 224), (pool, 1, 112), ("3×3 conv, 128", 2, 112), (pool, 1, 56), ("3×3 conv, 256", 3, 56),
        (pool, 1, 28), ("3×3 conv, 512", 3, 28), (pool, 1, 14), ("3×3 conv, 512", 3, 14), (pool, 1, 7),
        ("linear, 4,096", 2, 4096), ("linear, 1,000", 1, 1000),
    ]  # fmt: skip
    assert found.items[0].after == ("ReLU",)
    assert found.items[0].called == ("features.0", "features.2")


def test_resnet_has_projections_shortcuts_and_repetitions():
    _, found = outlined("resnet50")
    blocks = [item for item in found.items if isinstance(item, Block)]
    assert [common_name(block.names) for block in blocks] == [
        "layer1.0", "layer1.1–2", "layer2.0", "layer2.1–3", "layer3.0", "layer3.1–5", "layer4.0", "layer4.1–2",
    ]  # fmt: skip
    assert [block.shape for block in blocks[::2]] == [(256, 56, 56), (512, 28, 28), (1024, 14, 14), (2048, 7, 7)]
    fork, join = blocks[2].items
    assert isinstance(fork, Fork) and not fork.shortcut
    assert [words(branch) for branch in fork.branches] == [
        ["1×1 conv, 128", "3×3 conv, 128, /2", "1×1 conv, 512"],
        ["1×1 conv, 512, /2"],
    ]
    assert (join.words, join.after) == ("+", ("ReLU",))
    fork, _ = blocks[3].items
    assert fork.shortcut and len(fork.branches) == 1


def test_inception_modules_have_four_branches_and_googlenet_two_heads():
    _, found = outlined("googlenet-bn")
    blocks = [item for item in found.items if isinstance(item, Block)]
    assert [block.names[0].removeprefix("inception") for block in blocks] == [
        "3a",
        "3b",
        "4a",
        "4b",
        "4c",
        "4d",
        "4e",
        "5a",
        "5b",
    ]
    assert all(len(block.items[0].branches) == 4 and block.items[1].words == "concat" for block in blocks)
    assert [words(branch) for branch in blocks[0].items[0].branches] == [
        ["1×1 conv, 64"], ["1×1 conv, 96", "3×3 conv, 128"], ["1×1 conv, 16", "3×3 conv, 32"], ["max pool 3×3", "1×1 conv, 32"],
    ]  # fmt: skip
    assert [found.items[head.behind].names for head in found.heads] == [("inception4a",), ("inception4d",)]
    assert [words(head.items)[-1] for head in found.heads] == ["linear, 1,000"] * 2


def test_dense_layers_are_folded_with_the_concatenation_that_each_adds():
    _, found = outlined("densenet121")
    assert [item.count for item in found.items if isinstance(item, Block)] == [6, 12, 24, 16]


def test_a_gate_is_one_box_that_says_its_reduction():
    _, found = outlined("se-resnet50")
    gates = [box for box in boxes(found.items) if isinstance(box, Layer) and box.kind == "gate"]
    assert len(gates) == 8
    assert {gate.words for gate in gates} == {"SE, r 16"}


class Odd(nn.Module):
    """An in-place activation before a shortcut, an identity, a shared layer, a branch in two, a stray computation."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.active = nn.ReLU(inplace=True)
        self.nothing = nn.Identity()
        self.left, self.right, self.back = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1, groups=8), nn.Conv2d(16, 8, 1)
        self.fc = nn.Linear(8, 5)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.nothing(self.active(self.first(images)))
        wide = torch.cat([self.left(x), functional.gelu(self.right(x))], 1)
        self.left(wide[:, :8])  # leads nowhere
        x = self.back(wide) + x
        return {"features": x, "logits": self.fc(x.amax((2, 3)))}


def test_what_an_odd_network_does_is_found_without_its_names():
    found = outline(Odd(), "odd", 16)
    assert words(found.items) == ["3×3 conv, 8", "Fork", "+", "global maximum", "linear, 5"]
    assert found.items[0].after == ("ReLU",)
    fork = found.items[1]
    assert fork.shortcut and words(fork.branches[0]) == ["Fork", "concat", "1×1 conv, 8"]
    inner = fork.branches[0][0]
    assert [words(branch) for branch in inner.branches] == [["1×1 conv, 8"], ["1×1 conv, 8"]]
    assert [branch[0].after for branch in inner.branches] == [(), ("depthwise", "GELU")]
    assert not found.heads  # the features are on the way to the logits


class Tangled(nn.Module):
    """Each layer takes all before it: neither a chain nor branches."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(3 + place, 1, 2 * place + 1, padding=place) for place in range(4))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        known = [images]
        for layer in self.layers[:3]:
            known.append(layer(torch.cat(known, 1)))
        return self.layers[3](torch.cat(known, 1)).mean((2, 3)) + known[1].mean((2, 3))


def test_connections_that_are_no_branches_are_said_and_nothing_is_lost():
    model = Tangled()
    found = outline(model, "tangled", 16)
    forks = [item for item in found.items if isinstance(item, Fork)]
    assert any(fork.is_tangled for fork in forks)
    assert sorted(drawn_names(found.items)) == sorted(f"layers.{place}" for place in range(4))


def test_the_network_is_left_as_it_was():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    model.eval()
    model[1].train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    outline(model, "small", 8)
    assert [layer.training for layer in model] == [False, True, False, False, False, False]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in model.modules())


def test_an_input_that_is_too_small_is_named():
    with pytest.raises(UserError, match=r"alexnet.*too small"):
        outline(listing.subject("alexnet").outlined(), "alexnet", 16)


@pytest.mark.parametrize(
    ("names", "expected"),
    [(("conv1",), "conv1"), (("a.1", "a.2", "a.3"), "a.1–3"), (("6c", "6d"), "6c, 6d"), (("x", "y", "z"), "x … z")],
)
def test_names_of_neighbours(names, expected):
    assert common_name(names) == expected

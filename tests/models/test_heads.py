"""A box head beside any network: the network stays what it was, under the names that it has."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from striate.errors import UserError
from striate.models import catalog, heads
from striate.models.heads import Localizer


def _hooks(model: nn.Module) -> int:
    return sum(len(layer._forward_hooks) + len(layer._forward_pre_hooks) for layer in model.modules())


def _boxed(network: nn.Module, boxes: heads.Boxes = "shared") -> Localizer:
    return heads.with_boxes(network, boxes, 10, 64, 3, "it")


@pytest.mark.parametrize("name", ["resnet18", "vgg11", "squeezenet1_0", "densenet121"])
def test_in_evaluation_it_is_the_network_and_its_names_are_the_network_s(name: str) -> None:
    torch.manual_seed(0)
    network = torchvision.models.get_model(name, num_classes=10).eval()
    names, images = list(network.state_dict()), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        before = network(images)
        model = _boxed(network).eval()
        torch.testing.assert_close(model(images), before, rtol=0, atol=0)
        outputs, boxes_B14 = model.localize(images)
    torch.testing.assert_close(outputs, before, rtol=0, atol=0)
    found = list(model.state_dict())
    assert found[: len(names)] == names
    assert all(key.startswith("box_head.") for key in found[len(names) :])
    assert boxes_B14.shape == (2, 1, 4)
    assert ((boxes_B14 > 0.3) & (boxes_B14 < 0.7)).all()  # nearly the middle half, whatever is in it
    assert _hooks(model) == 0


def test_training_gives_all_heads_and_follows_the_mode_of_the_whole() -> None:
    network = catalog.build("googlenet", 10, {})
    model = heads.with_boxes(network, "per-class", 10, 64, 3, "googlenet").train()
    outputs = model(torch.randn(3, 3, 64, 64))
    assert {name: tuple(one.shape) for name, one in outputs.items()}["boxes"] == (3, 10, 4)
    assert len(outputs) == 4  # with two auxiliary heads, which GoogLeNet has in training only
    model.eval()
    assert isinstance(model(torch.randn(1, 3, 64, 64)), torch.Tensor)
    model.train()
    assert "boxes" in model(torch.randn(2, 3, 64, 64))
    with pytest.raises(RuntimeError), torch.no_grad():
        model(torch.randn(2, 5, 64, 64))
    assert _hooks(model) == 0


def test_a_copy_and_a_move_take_the_network_along() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))
            self.register_buffer("shift", torch.zeros(1))
            self.classifier = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))

        def forward(self, images: torch.Tensor) -> Any:
            return self.classifier(images * self.scale + self.shift)

    model = heads.with_boxes(Scaled(), "shared", 2, 16, 3, "it")
    other = copy.deepcopy(model).double().eval()
    images = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        other.get_parameter("scale").fill_(2.0)
        other.get_buffer("shift").fill_(3.0)
        expected = model.eval().get_submodule("classifier")(images * 2 + 3)
        torch.testing.assert_close(other(images.double()).float(), expected)
    assert model.get_parameter("scale").item() == 1.0


def test_the_box_depends_on_where_the_feature_is() -> None:
    torch.manual_seed(1)
    model = _boxed(torchvision.models.resnet18(num_classes=10)).eval()
    images = torch.zeros(2, 3, 64, 64)
    images[0, :, :20, :20] = images[1, :, 44:, 44:] = 3.0
    with torch.no_grad():
        _, boxes_B14 = model.localize(images)
    assert (boxes_B14[0] - boxes_B14[1]).abs().max() > 1e-4


@pytest.mark.parametrize("side", [2, 5, 7, 8, 10, 13, 14, 17, 28])
def test_pools_cover_the_grid_and_leave_few_places(side: int) -> None:
    head = heads.BoxHead(heads.grid.Grid("it", 4, side, side), 1)
    marked = torch.zeros(side * side, 4, side, side)
    for place, (row, column) in enumerate(itertools.product(range(side), repeat=2)):
        marked[place, :, row, column] = 1.0
    pooled = head.pool(marked)
    assert pooled.shape[-1] <= 7
    assert (pooled.flatten(1).sum(1) > 0).all()  # no cell is passed over
    assert head(marked[:2]).shape == (2, 1, 4)


def test_a_network_without_a_grid_is_refused() -> None:
    with pytest.raises(UserError, match=r"model\.boxes shared: it has no grid of features at 64 px.*such as resnet18"):
        _boxed(nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 10)))


def test_the_classifier_of_it_is_the_network() -> None:
    network = torchvision.models.resnet18(num_classes=10)
    assert heads.classifier_of(_boxed(network)) is network
    assert heads.classifier_of(network) is network

"""The grids of a network: by hand where they can be counted, and the names that one expects of known networks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from striate.models import catalog
from striate.models.grid import Grid, grids, last


def small() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
        *(nn.Sequential(nn.Conv2d(4, 5, 3), nn.ReLU(), nn.MaxPool2d(2)), nn.Dropout2d(), nn.AdaptiveAvgPool2d(1)),
        *(nn.Flatten(), nn.Linear(5, 3)),
    )


def hooks(model: nn.Module) -> int:
    return sum(len(layer._forward_hooks) + len(layer._forward_pre_hooks) for layer in model.modules())


def test_the_grids_in_the_order_in_which_they_end():
    expected = [
        *(Grid("0", 4, 16, 16), Grid("1", 4, 16, 16), Grid("2", 4, 16, 16), Grid("3", 4, 8, 8)),
        *(Grid("4.0", 5, 6, 6), Grid("4.1", 5, 6, 6), Grid("4.2", 5, 3, 3), Grid("4", 5, 3, 3), Grid("5", 5, 3, 3)),
    ]
    assert grids(small(), 16, 3) == expected


def test_pools_and_dropout_at_the_end_are_stepped_over_also_where_a_stage_ends_in_one():
    assert last(small(), 16, 3) == Grid("4.1", 5, 6, 6)
    assert last(small()[:1], 16, 3) == Grid("0", 4, 16, 16)
    assert last(nn.Sequential(nn.MaxPool2d(2), nn.Flatten()), 16, 3) == Grid("0", 3, 8, 8)  # nothing but a pool


class Shared(nn.Module):
    """One ReLU in three places: two grids and a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, stride=2), nn.Conv2d(4, 5, 3)
        self.relu, self.fc = nn.ReLU(inplace=True), nn.Linear(5, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.second(self.relu(self.first(images))))
        return self.relu(self.fc(x.mean((2, 3))))


def test_a_layer_that_runs_several_times_stands_for_its_last_grid():
    assert grids(Shared(), 17, 3) == [Grid("first", 4, 8, 8), Grid("relu", 5, 6, 6), Grid("second", 5, 6, 6)]
    assert last(Shared(), 17, 3) == Grid("relu", 5, 6, 6)


@pytest.mark.parametrize(
    ("name", "options", "size_px", "channels", "expected"),
    [
        ("resnet18", {}, 64, 3, Grid("layer4", 512, 2, 2)),
        ("alexnet", {"width": 24}, 64, 3, Grid("relu5", 64, 3, 3)),  # its pool to the paper's 6 x 6 cells enlarges this grid
        ("vgg-a", {}, 64, 3, Grid("features.19", 512, 4, 4)),
        ("resnet20", {}, 32, 3, Grid("layer3", 64, 8, 8)),
        ("densenet121", {}, 64, 3, Grid("features", 1024, 2, 2)),
        ("googlenet", {}, 64, 3, Grid("inception5b", 1024, 2, 2)),
        ("alexnet", {"width": 24}, 227, 3, Grid("relu5", 64, 13, 13)),
        ("all-cnn-c", {}, 32, 3, Grid("relu9", 10, 6, 6)),
        ("kth-a", {"size_px": 32}, 32, 3, Grid("block3.relu3", 80, 8, 8)),
        ("lenet5", {}, 32, 1, Grid("tanh4", 16, 5, 5)),
        ("torchvision/mobilenet_v2", {}, 64, 3, Grid("features", 1280, 2, 2)),
        ("torchvision/squeezenet1_0", {}, 64, 3, Grid("classifier.2", 10, 3, 3)),
    ],
)
def test_of_known_networks_the_last_grid_is_the_one_that_one_expects(name, options, size_px, channels, expected):
    assert last(catalog.build(name, 10, options), size_px, channels) == expected


def test_the_convolutions_of_vgg_are_the_grid_though_a_pool_to_a_fixed_size_stands_behind_them():
    from torchvision.models import vgg

    model = nn.Sequential(vgg.make_layers(vgg.cfgs["A"]), nn.AdaptiveAvgPool2d(7), nn.Flatten(), nn.Linear(512 * 49, 3))
    assert last(model, 64, 3) == Grid("0.19", 512, 4, 4)


class Tokens(nn.Module):
    """Patches that go on as words: their grid is none of features that classes are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.mix, self.fc = nn.Conv2d(3, 6, 4, 4), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.mix(self.patches(images).flatten(2).transpose(1, 2)).mean(1))


def test_networks_of_vectors_and_tokens_have_none():
    linear = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 5))
    assert grids(linear, 16, 3) == [] and last(linear, 16, 3) is None
    assert grids(Tokens(), 16, 3) == [Grid("patches", 6, 4, 4)] and last(Tokens(), 16, 3) is None


@pytest.mark.parametrize("find", [grids, last])
def test_the_network_is_left_as_it_was(find):
    model = small().train()
    model[1].eval()
    modes = [layer.training for layer in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    find(model, 16, 3)
    assert [layer.training for layer in model.modules()] == modes and hooks(model) == 0
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    with pytest.raises(RuntimeError):
        find(model, 16, 2)  # the network takes three channels
    assert [layer.training for layer in model.modules()] == modes and hooks(model) == 0

"""First-layer kernels: what was drawn into them by hand comes out again."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from striate.errors import UserError
from striate.explain import kernels
from striate.models import catalog
from tests.explain.makers import hooks, noise


def gabor(side: int, degrees: float, frequency: float, colour: tuple[float, ...]) -> torch.Tensor:
    """A wave in the direction of `degrees` (anticlockwise as seen) under a Gaussian, [C, side, side]."""
    at = torch.arange(side) - (side - 1) / 2
    right, up = at[None, :], -at[:, None]
    along = right * math.cos(math.radians(degrees)) + up * math.sin(math.radians(degrees))
    wave = torch.cos(2 * math.pi * frequency * along) * torch.exp(-(right**2 + up**2) / (2 * (side / 4) ** 2))
    return torch.tensor(colour).view(-1, 1, 1) * wave


@pytest.mark.parametrize("degrees", [0, 30, 45, 90, 120, 160])
@pytest.mark.parametrize("frequency", [0.15, 0.25, 0.35])
def test_orientation_and_frequency_of_a_wave_come_out(degrees, frequency):
    (found,) = kernels.facts(gabor(11, degrees, frequency, (1.0, 1.0, 1.0))[None])
    apart = (found.orientation - degrees + 90) % 180 - 90
    assert abs(apart) < 4 and abs(found.frequency - frequency) < 0.02
    assert 0 <= found.orientation < 180 and found.colour == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("colour", "share"),
    [((1, 1, 1), 0.0), ((1, 0, 0), 2 / 3), ((1, -1, 0), 1.0), ((1, 1, 0), 1 / 3), ((2.0,), 0.0), ((1, -1), 1.0)],
)
def test_colour_is_the_share_that_is_not_the_same_in_all_channels(colour, share):
    (found,) = kernels.facts(gabor(7, 0, 0.25, tuple(map(float, colour)))[None])
    assert found.colour == pytest.approx(share, abs=1e-6)


def test_contrast_is_the_deviation_and_an_even_kernel_has_none():
    stripes = torch.tensor([[1.0, -1.0], [1.0, -1.0]]).expand(3, 2, 2)
    found = kernels.facts(torch.stack([stripes, 3 * stripes + 7, torch.full((3, 2, 2), 5.0), torch.zeros(3, 2, 2)]))
    assert [one.contrast for one in found] == pytest.approx([1, 3, 0, 0])
    assert (found[0].orientation, found[0].frequency) == (0, 0.5)
    assert (found[2].frequency, found[2].colour, found[3].colour) == (0, 0, 0)
    assert [one.number for one in found] == [0, 1, 2, 3]


# ---------------------------------------------------------------- which layer, which group


def test_the_two_halves_of_alexnet_are_those_that_its_second_convolution_sees():
    model = catalog.build("alexnet", 10, {"width": 24})
    name, weights = kernels.first_layer(model)
    assert name == "conv1" and torch.equal(weights, model.conv1.weight) and weights.data_ptr() != model.conv1.weight.data_ptr()
    assert kernels.groups(model).tolist() == [0] * 12 + [1] * 12
    entered = noise(1, 24, 5, 5)
    with torch.no_grad():  # the channels of a group reach one half of the channels behind them, and no other
        for group, half in enumerate((slice(0, 32), slice(32, 64))):
            of_group = entered * torch.from_numpy(kernels.groups(model) == group).view(1, -1, 1, 1)
            reached = (model.conv2(of_group) - model.conv2(0 * entered)).abs().amax((0, 2, 3)) > 0
            assert reached[half].all() and int(reached.sum()) == 32
    assert kernels.groups(catalog.build("alexnet", 10, {"width": 24, "groups": 1})).tolist() == [0] * 24


def depthwise() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3, groups=6))


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (depthwise, [0] * 6),
        (lambda: nn.Sequential(nn.Conv2d(4, 6, 3, groups=2)), [0, 0, 0, 1, 1, 1]),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3)), [0] * 4),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, groups=2)), [0, 0, 1, 1]),
    ],
)
def test_groups_of_other_networks(build, expected):
    assert kernels.groups(build()).tolist() == expected


class DefinedBackwards(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last, self.second, self.first = nn.Conv2d(4, 5, 1), nn.Conv2d(6, 4, 3, groups=2), nn.Conv2d(3, 6, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.last(self.second(self.first(images))).mean((2, 3))


def test_the_first_layer_is_the_first_that_runs_where_images_are_given(unchanged):
    model, images = DefinedBackwards().train(), noise(1, 3, 8, 8)
    assert kernels.first_layer(model)[0] == "last"
    with unchanged(model, images):
        name, weights = kernels.first_layer(model, images)
        assert kernels.groups(model, images).tolist() == [0, 0, 0, 1, 1, 1]
    assert name == "first" and weights.shape == (6, 3, 3, 3) and hooks(model) == 0


def test_a_network_without_a_convolution_is_told_so():
    with pytest.raises(UserError, match="Linear has no 2-d convolution"):
        kernels.first_layer(nn.Linear(3, 2))


# ---------------------------------------------------------------- the picture


def test_each_kernel_is_scaled_by_itself_in_its_colours():
    red = torch.zeros(3, 2, 2)
    red[0] = torch.tensor([[1.0, 0.5], [0.0, 0.25]])
    weights = torch.stack([red, 100 * red, red, red])
    seen = kernels.picture(weights, weight_px=3)
    assert seen.shape == (13, 13, 3) and seen.dtype == np.uint8
    tile = seen[:6, :6]
    assert tile[0, 0].tolist() == [255, 0, 0] and tile[0, 3].tolist() == [128, 0, 0] and tile[3, 0].tolist() == [0, 0, 0]
    assert np.array_equal(tile[:3, :3], np.broadcast_to(tile[0, 0], (3, 3, 3)))
    assert np.array_equal(tile, seen[:6, 7:]) and (seen[6] == 255).all() and (seen[:, 6] == 255).all()
    assert kernels.picture(weights, weight_px=3, colour="bgr")[0, 0].tolist() == [0, 0, 255]


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_other_numbers_of_channels_are_grey(channels):
    seen = kernels.picture(noise(5, channels, 3, 3), weight_px=1)
    assert seen.shape == (7, 11, 3) and np.array_equal(seen[..., 0], seen[..., 2])
    assert (seen[4:7, 8:] == 255).all()  # the sixth place is empty


def test_groups_stand_side_by_side_and_are_sorted_from_grey_to_coloured():
    coloured, grey = gabor(5, 0, 0.3, (1.0, -1.0, 0.0)), gabor(5, 0, 0.3, (1.0, 1.0, 1.0))
    weights, groups = torch.stack([coloured, grey, coloured, grey]), np.array([0, 0, 1, 1])
    plain, ordered = (kernels.picture(weights, groups, is_sorted, 1) for is_sorted in (False, True))
    assert plain.shape == ordered.shape == (5, 2 * 11 + 8, 3)
    one, other = plain[:, :11], plain[:, 19:]
    assert np.array_equal(one, other) and (plain[:, 11:19] == 255).all()
    assert np.array_equal(ordered[:5, :5], plain[:5, 6:11]) and np.ptp(ordered[:5, :5], axis=2).max() == 0


def test_kernels_of_no_size_are_refused():
    with pytest.raises(UserError, match="kernels: expected weights of 1 px or more"):
        kernels.picture(noise(2, 3, 3, 3), weight_px=0)
    with pytest.raises(UserError, match="kernels: expected shape"):
        kernels.facts(noise(3, 3, 3))

"""Feature maps: what the layers give by hand, and every other layer refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from striate.errors import UserError
from striate.explain import features
from tests.explain.makers import hooks, noise


def test_the_maps_are_the_layers_output_before_others_write_into_it(small, unchanged):
    images = noise(2, 3, 16, 16)
    small.train()
    with unchanged(small, images):
        found = features.feature_maps(small, images, "1")
    with torch.no_grad():
        expected = small.eval()[1](small[0](images))
    assert found.min() < 0 and torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ("12", "'12' is no layer of this Small"),
        ("7", r"layer '7' gives \[1, 8, 1, 1\], which is no grid .* near it that give one: 6, 5, 4\."),
        ("9", r"layer '9' gives \[1, 4\]"),
    ],
)
def test_layers_without_a_grid_are_refused(small, layer, words):
    with pytest.raises(UserError, match=words):
        features.feature_maps(small, noise(1, 3, 16, 16), layer)
    assert hooks(small) == 0


class Pair(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x, x


class Both(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pair = nn.Conv2d(3, 4, 3), Pair()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.pair(self.conv(images))[0].mean((2, 3))


def test_a_layer_that_gives_no_tensor_is_refused():
    with pytest.raises(UserError, match=r"feature maps: layer 'pair' gives a tuple, .* give one: conv"):
        features.feature_maps(Both(), noise(1, 3, 8, 8), "pair")


def test_the_strongest_maps_stand_first_each_scaled_by_itself():
    maps_Chw = torch.zeros(4, 2, 2)
    maps_Chw[1] = torch.tensor([[0.0, 1.0], [2.0, 4.0]])
    maps_Chw[3] = torch.tensor([[-30.0, 0.0], [0.0, 0.0]])
    seen, channels = features.picture(maps_Chw, most=3, cell_px=1)
    assert channels == (3, 1, 0) and seen.shape == (5, 5, 3) and seen.dtype == np.uint8
    assert seen[:2, :2, 0].tolist() == [[0, 255], [255, 255]]
    assert seen[:2, 3:, 0].tolist() == [[0, 64], [128, 255]]
    assert (seen[3:, :2] == 128).all() and (seen[3:, 3:] == 255).all()
    assert features.picture(maps_Chw, most=99, cell_px=3)[0].shape == (13, 13, 3)
    with pytest.raises(UserError, match="one map and cells of 1 px or more"):
        features.picture(maps_Chw, most=0)

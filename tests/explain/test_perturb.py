"""Occlusion: against captum on three networks, and against a network whose answer is known."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from striate.errors import UserError
from striate.explain.perturb import occlusion
from tests.explain.makers import itself, noise


@pytest.mark.parametrize("network", ["resnet18", "alexnet", "googlenet"])
@pytest.mark.parametrize(("window", "stride"), [(24, 16), (40, 20)])
def test_the_map_is_that_of_captum(networks, network, window, stride):
    """64 px, so that the last window of a row hangs over the border in both cases."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own dependencies warn when they are imported
        captum = pytest.importorskip("captum.attr")
    model, images, labels_B = networks[network], noise(2, 3, 64, 64), torch.tensor([4, 1])
    with torch.no_grad():
        expected = captum.Occlusion(model).attribute(
            images, (3, window, window), strides=(3, stride, stride), baselines=0.5, target=labels_B
        )
    found = occlusion(model, images, labels_B, itself, window, stride, baseline=0.5, images_at_once=5)
    assert torch.equal(expected[:, 0], expected[:, 2])
    assert (found - expected[:, 0]).abs().max() < 1e-4 * expected.abs().max()


class Weighed(nn.Module):
    """Logits 0 and the sum of w x over all pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(noise(3, 6, 6))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        sums_B = (self.weight * images).sum((1, 2, 3))
        return torch.stack([torch.zeros_like(sums_B), sums_B], 1)


def test_single_pixels_of_a_sum_lose_their_own_part():
    model, images, labels_B = Weighed(), noise(2, 3, 6, 6, seed=2), torch.tensor([1, 0])
    found = occlusion(model, images, labels_B, itself, 1, 1, baseline=torch.tensor([0.1, 0.2, 0.3]))
    away = images - torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1)
    assert torch.allclose(found[0], (model.weight * away).sum(1)[0], atol=1e-5)
    assert torch.equal(found[1], torch.zeros(6, 6))


def test_a_pixel_under_several_windows_gets_their_mean():
    model, images = Weighed(), noise(1, 3, 6, 6, seed=2)
    found = occlusion(model, images, torch.tensor([1]), itself, 4, 2)
    part = (model.weight * images).sum(1)[0].detach()
    corners = [part[:4, :4], part[:4, 2:], part[2:, :4], part[2:, 2:]]
    assert torch.allclose(found[0, 0, 0], corners[0].sum(), atol=1e-5)
    assert torch.allclose(found[0, 3, 3], torch.stack([one.sum() for one in corners]).mean(), atol=1e-5)


def test_of_the_probability_the_drop_lies_within_it(small):
    images, labels_B = noise(2, 3, 16, 16), torch.tensor([0, 3])
    found = occlusion(small, images, labels_B, itself, 16, 16, of="probability")
    with torch.no_grad():
        drop_B = (small(images).softmax(1) - small(torch.zeros_like(images)).softmax(1))[[0, 1], [0, 3]]
    assert torch.allclose(found, drop_B[:, None, None].expand(2, 16, 16), atol=1e-6)


def test_batches_of_any_size_give_one_map_and_leave_everything(small, unchanged):
    images, labels_B = noise(3, 3, 16, 16), torch.tensor([0, 3, 1])
    small.train()
    with unchanged(small, images):
        found = occlusion(small, images, labels_B, itself)
        assert torch.allclose(found, occlusion(small, images, labels_B, itself, images_at_once=1), atol=1e-6)
    assert found.shape == (3, 16, 16) and found.std() > 0
    with unchanged(small, images), pytest.raises(UserError, match="4 classes"):
        occlusion(small, images, torch.tensor([0, 9, 1]), itself)


@pytest.mark.parametrize(("window", "stride"), [(17, 4), (0, 1), (4, 5), (4, 0)])
def test_windows_that_do_not_fit_are_refused(small, window, stride):
    with pytest.raises(UserError, match="a window from 1 to 16 px and a stride from 1 px to the window"):
        occlusion(small, noise(1, 3, 16, 16), torch.tensor([0]), itself, window, stride)


def test_a_baseline_of_another_number_of_channels_is_refused(small):
    with pytest.raises(UserError, match="baseline: expected one number or 3, found 2"):
        occlusion(small, noise(1, 3, 16, 16), torch.tensor([0]), itself, baseline=torch.zeros(2))

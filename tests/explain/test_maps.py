"""The table of methods: every name does what its own function does, and everything else is refused with the way out."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from striate.errors import UserError
from striate.explain import cam, perturb, saliency
from striate.explain.maps import METHODS, maps
from tests.explain.makers import itself, noise

GRIDS = ("cam", "grad-cam", "grad-cam++")
PIXELS = ("gradient", "smoothgrad", "integrated-gradients", "occlusion")
IMAGES, LABELS = noise(2, 3, 16, 16), torch.tensor([0, 3])


def test_the_names_are_those_of_the_option():
    assert (*GRIDS, *PIXELS) == tuple(METHODS)
    assert tuple(name for name, one in METHODS.items() if one.has_layer) == GRIDS


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_maps_in_any_mode_and_leaves_everything(small, unchanged, method):
    small.train()
    with unchanged(small, IMAGES):
        found, layer = maps(small, IMAGES, LABELS, method, None, itself)
    side = 8 if method in GRIDS else 16
    assert found.shape == (2, side, side) and found.dtype == torch.float32 and not found.requires_grad
    assert layer == ("5" if method in GRIDS else "") and found.isfinite().all() and found.std() > 0
    if method not in ("cam", "occlusion"):
        assert found.min() >= 0


def test_the_table_hands_over_to_the_functions(small):
    def of(method: str) -> torch.Tensor:
        return maps(small, IMAGES, LABELS, method, None, itself)[0]

    plain = saliency.gradient(small, IMAGES, LABELS, itself)
    integrated = saliency.integrated_gradients(small, IMAGES, LABELS, itself).attributions_BCSS
    assert torch.equal(of("cam"), cam.cam(small, IMAGES, LABELS, "5", itself)[0])
    assert torch.equal(of("grad-cam"), cam.grad_cam(small, IMAGES, LABELS, "5", itself)[0])
    assert torch.equal(of("grad-cam++"), cam.grad_cam_plus_plus(small, IMAGES, LABELS, "5", itself)[0])
    assert torch.equal(of("gradient"), plain.abs().amax(1))
    assert torch.equal(of("smoothgrad"), saliency.smoothgrad(small, IMAGES, LABELS, itself).abs().amax(1))
    assert torch.equal(of("integrated-gradients"), integrated.sum(1).abs())
    assert torch.equal(of("occlusion"), perturb.occlusion(small, IMAGES, LABELS, itself))


@pytest.mark.parametrize("method", GRIDS)
def test_a_layer_is_handed_over(method):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    found, layer = maps(model, IMAGES, LABELS, method, "1", itself)
    assert layer == "1" and found.shape == (2, 12, 12)


@pytest.mark.parametrize("method", PIXELS)
def test_methods_of_pixels_take_no_layer_and_any_network(small, method):
    with pytest.raises(UserError, match=re.escape(f"--layer 5: {method} looks at pixels and has no layer.")):
        maps(small, IMAGES, LABELS, method, "5", itself)
    torch.manual_seed(0)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 5))
    assert maps(linear, IMAGES, LABELS, method, None, itself)[0].std() > 0


class FrontWithoutGradient(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.front, self.body, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            front = self.front(images)
        return self.fc(self.body(front).mean((2, 3)))


@pytest.mark.parametrize("method", METHODS)
def test_the_trial_of_a_method_is_refused_where_the_method_is(method):
    torch.manual_seed(0)
    model = FrontWithoutGradient()
    one, trial = METHODS[method], METHODS[method].trial
    asked = [(method, "front"), (trial, "front")] if one.has_layer else [(method, None)] + ([(trial, None)] if trial else [])
    for name, layer in asked:
        if method == "occlusion":
            assert not trial and maps(model, IMAGES, LABELS, name, layer, itself)[0].std() > 0
        else:
            with pytest.raises(UserError, match="through autograd"):
                maps(model, IMAGES, LABELS, name, layer, itself)
    if one.has_layer:  # the advice holds: behind that part there is a map
        assert maps(model, IMAGES, LABELS, method, "body", itself)[0].abs().max() > 0


@pytest.mark.parametrize("method", METHODS)
def test_an_empty_name_is_no_layer(small, method):
    with pytest.raises(UserError, match="--layer '': expected a layer's name"):
        maps(small, IMAGES, LABELS, method, "", itself)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("label", [-1, 4])
def test_a_label_that_is_none_is_refused(small, method, label):
    with pytest.raises(UserError, match=f"label {label}: the network has 4 classes, so labels are 0 to 3"):
        maps(small, IMAGES, torch.tensor([0, label]), method, None, itself)


def test_an_unknown_method_is_answered_with_the_nearest(small):
    with pytest.raises(UserError, match=r"--method gradcam: expected one of cam, grad-cam, .* Did you mean 'grad-cam'"):
        maps(small, IMAGES, LABELS, "gradcam", None, itself)

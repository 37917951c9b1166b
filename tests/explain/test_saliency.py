"""Gradients of pixels: against captum on three networks, and against integrals that are known."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from striate.errors import NonFiniteError, UserError
from striate.explain import saliency
from tests.explain.makers import hooks, itself, noise

NETWORKS = ("resnet18", "alexnet", "googlenet")
LABELS = torch.tensor([4, 1])


@pytest.fixture(scope="module")
def captum() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own dependencies warn when they are imported
        return pytest.importorskip("captum.attr")


def asking(images: torch.Tensor) -> torch.Tensor:
    """A copy that requires a gradient: captum warns where it has to set that itself."""
    return images.clone().requires_grad_()


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("network", NETWORKS)
def test_the_gradient_is_that_of_captum(networks, captum, network):
    model, images = networks[network], noise(2, 3, 64, 64)
    expected = captum.Saliency(model).attribute(asking(images), target=LABELS, abs=False)
    found = saliency.gradient(model, images, LABELS, itself)
    assert relative(found, expected) < 1e-4
    assert torch.equal(saliency.strongest(found), found.abs().max(1).values)
    assert torch.equal(saliency.summed(found), found.sum(1))


@pytest.mark.parametrize("network", NETWORKS)
def test_smoothgrad_is_that_of_captum(networks, captum, network):
    """Without noise its noise tunnel is the same; with noise, the mean of its gradients over the same noisy copies."""
    model, images = networks[network], noise(2, 3, 64, 64)
    peer = captum.Saliency(model)
    none = captum.NoiseTunnel(peer).attribute(asking(images), nt_samples=2, stdevs=0.0, target=LABELS, abs=False)
    assert relative(saliency.smoothgrad(model, images, LABELS, itself, copies=2, noise=0.0), none) < 1e-4
    copies = [images + saliency.noise_of(images, copy, 0.2, 3) for copy in range(3)]
    expected = torch.stack([peer.attribute(asking(one), target=LABELS, abs=False) for one in copies]).mean(0)
    found = saliency.smoothgrad(model, images, LABELS, itself, copies=3, noise=0.2, seed=3)
    assert relative(found, expected) < 1e-4
    assert relative(found, none) > 0.05


def test_noise_is_a_share_of_each_images_range_and_the_same_in_any_batch():
    images = torch.cat([noise(1, 3, 64, 64), 5 * noise(1, 3, 64, 64, seed=8)])
    one = saliency.noise_of(images, 0, 0.1, 0)
    spans = images.amax((1, 2, 3)) - images.amin((1, 2, 3))
    assert torch.allclose(one.std((1, 2, 3)), 0.1 * spans, rtol=0.03)
    assert torch.equal(one[1:], saliency.noise_of(images[1:], 0, 0.1, 0))
    assert not torch.allclose(one, saliency.noise_of(images, 1, 0.1, 0))
    assert not torch.allclose(one, saliency.noise_of(images, 0, 0.1, 1))


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(("rule", "theirs"), [("gauss-legendre", "gausslegendre"), ("midpoint", "riemann_middle")])
def test_integrated_gradients_are_those_of_captum(networks, captum, network, rule, theirs):
    """Four steps, whose midpoints both sides hold exactly: a gradient jumps where a ReLU turns, however short the way."""
    model, images, baseline = networks[network], noise(2, 3, 64, 64), 0.3 * noise(3, 64, 64, seed=9)
    peer = captum.IntegratedGradients(model)
    expected, gap_B = peer.attribute(
        images, baseline.expand_as(images), target=LABELS, n_steps=4, method=theirs, return_convergence_delta=True
    )
    found = saliency.integrated_gradients(model, images, LABELS, itself, baseline, steps=4, rule=rule)
    assert relative(found.attributions_BCSS, expected.float()) < 1e-4
    assert torch.allclose(found.gap_B, gap_B.float(), atol=1e-4 * float(expected.abs().sum((1, 2, 3)).max()))
    whole = saliency.integrated_gradients(model, images, LABELS, itself, baseline.expand_as(images), steps=4, rule=rule)
    assert torch.equal(whole.attributions_BCSS, found.attributions_BCSS)


class Cubic(nn.Module):
    """Logits 0, and the sum of w x³ over all pixels: its integrals are known."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(noise(3, 4, 4))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        cubes_B = (self.weight * images**3).sum((1, 2, 3))
        return torch.stack([torch.zeros_like(cubes_B), cubes_B], 1)


def test_the_parts_of_a_sum_are_found_and_the_gap_is_that_of_the_rule():
    model, images, labels_B = Cubic(), noise(2, 3, 4, 4, seed=1), torch.tensor([1, 1])
    exact = (model.weight * images**3).detach()
    found = saliency.integrated_gradients(model, images, labels_B, itself, steps=2)  # exact for polynomials to the third degree
    assert torch.allclose(found.attributions_BCSS, exact, atol=1e-5)
    assert found.gap_B.abs().max() < 1e-4
    # The mean of 3 a² at 1/4 and 3/4 is 15/16, and the integral is 1.
    rough = saliency.integrated_gradients(model, images, labels_B, itself, steps=2, rule="midpoint")
    assert torch.allclose(rough.attributions_BCSS, exact * 15 / 16, atol=1e-5)
    assert torch.allclose(rough.gap_B, -exact.sum((1, 2, 3)) / 16, atol=1e-4)
    flat = saliency.gradient(model, images, torch.tensor([0, 0]), itself)
    assert torch.equal(flat, torch.zeros_like(images))


class Deaf(nn.Module):
    """Logits that depend on the pixels, but not through autograd. has_other: whether something else asks for a gradient."""

    def __init__(self, has_other: bool) -> None:
        super().__init__()
        self.has_other, self.fc = has_other, nn.Linear(3, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            means_B3 = images.mean((2, 3))
        other = torch.zeros(1, requires_grad=True) if self.has_other else torch.zeros(1)
        return self.fc(means_B3) + other


@pytest.mark.parametrize("has_other", [False, True])
@pytest.mark.parametrize("method", [saliency.gradient, saliency.smoothgrad, saliency.integrated_gradients])
def test_pixels_that_autograd_does_not_reach_are_no_map_of_zeros(unchanged, method, has_other):
    model, images = Deaf(has_other).eval(), noise(1, 3, 8, 8)
    assert not torch.equal(model(images), model(images + 1))
    with (
        unchanged(model, images),
        pytest.raises(
            UserError,
            match=r"this Deaf do not depend on the pixels through autograd.*no_grad.*--method occlusion.*--layer behind",
        ),
    ):
        method(model, images, torch.tensor([1]), itself)


def test_everything_is_as_before(small, unchanged):
    small.train()
    small[0].weight.requires_grad_(False)
    images, labels_B = noise(2, 3, 16, 16), torch.tensor([0, 3])
    with unchanged(small, images):
        for method in (saliency.gradient, saliency.smoothgrad, saliency.integrated_gradients):
            method(small, images, labels_B, itself)
    for method in (saliency.gradient, saliency.smoothgrad, saliency.integrated_gradients):
        with unchanged(small, images), pytest.raises(UserError, match=r"label 4: the network has 4 classes"):
            method(small, images, torch.tensor([4, 0]), itself)
    small.requires_grad_(False)
    with torch.inference_mode():
        found = saliency.gradient(small, images * 1, labels_B, itself)
    assert found.abs().max() > 0 and torch.equal(found, saliency.gradient(small, images, labels_B, itself))


def test_a_first_layer_that_works_in_place_leaves_the_image(small, unchanged):
    model, images = nn.Sequential(nn.ReLU(inplace=True), small), noise(2, 3, 16, 16)
    with unchanged(model, images):
        found = saliency.gradient(model, images, torch.tensor([0, 3]), itself)
        saliency.integrated_gradients(model, images, torch.tensor([0, 3]), itself, steps=2)
    assert torch.equal(found[images < 0], torch.zeros(int((images < 0).sum())))


def test_bad_wishes_are_refused(small):
    images, labels_B = noise(2, 3, 16, 16), torch.tensor([0, 3])
    with pytest.raises(UserError, match="one copy or more"):
        saliency.smoothgrad(small, images, labels_B, itself, copies=0)
    with pytest.raises(UserError, match="one step or more"):
        saliency.integrated_gradients(small, images, labels_B, itself, steps=0)
    with pytest.raises(UserError, match=r"baseline: expected shape \[3, 16, 16\] or \[2, 3, 16, 16\], found \[1, 16, 16\]"):
        saliency.integrated_gradients(small, images, labels_B, itself, torch.zeros(1, 16, 16))
    with torch.no_grad():
        small[9].bias[0] = np.inf
    with pytest.raises(NonFiniteError):
        saliency.gradient(small, images, labels_B, itself)
    assert hooks(small) == 0

"""What the tests of networks share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from striate.taps import taps


@pytest.fixture
def as_after_training() -> Callable[[nn.Module], nn.Module]:
    """A function that gives a network's batch norms statistics and scales as a training leaves them, and returns it in evaluation
    mode.

    The statistics are those of random images, then moved at random. Statistics that are random from the start will not do: in a
    deep network nothing of an image comes through to the logits then, and logits that are equal say nothing.
    """

    def prepare(model: nn.Module) -> nn.Module:
        generator = torch.Generator().manual_seed(0)
        norms = [layer for layer in model.eval().modules() if isinstance(layer, nn.BatchNorm2d)]
        for norm in norms:
            nn.init.uniform_(norm.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(norm.bias, 0, 0.2, generator=generator)
            norm.train()
            norm.momentum = 1.0
        with torch.no_grad():
            model(torch.randn(4, 3, 96, 96, generator=generator))
        for norm in norms:
            assert norm.running_mean is not None and norm.running_var is not None
            norm.momentum = 0.1
            norm.running_mean += 0.2 * torch.randn(norm.num_features, generator=generator) * norm.running_var.sqrt()
            norm.running_var *= torch.empty(norm.num_features).uniform_(0.5, 2, generator=generator)
        return model.eval()

    return prepare


@pytest.fixture
def same_logits() -> Callable[..., None]:
    """A function that asserts that two networks in evaluation mode give the same logits, within 1e-5 of the largest.

    And that the logits of two images differ by a hundredth of it or more: where they hardly do, wrong networks are equal too.
    """

    def compare(ours: nn.Module, theirs: Callable[[torch.Tensor], torch.Tensor], *sizes_px: int) -> None:
        for size_px in sizes_px:
            images = torch.randn(2, 3, size_px, size_px, generator=torch.Generator().manual_seed(1))
            with torch.inference_mode():
                expected, found = theirs(images), ours.eval()(images)
            largest = expected.abs().max()
            assert (expected[0] - expected[1]).abs().max() > 0.01 * largest
            assert (found - expected).abs().max() <= 1e-5 * largest

    return compare


@pytest.fixture
def shares_dropped() -> Callable[[nn.Module, torch.Tensor], list[float]]:
    """A function that gives the share of the features that the layer `dropout` sets to zero in training, and in evaluation."""

    def measure(model: nn.Module, images: torch.Tensor) -> list[float]:
        shares: list[float] = []

        def look(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            shares.append((output[inputs[0] != 0] == 0).float().mean().item())

        with taps(model, {"dropout": look}), torch.no_grad():
            model.train()(images)
            model.eval()(images)
        return shares

    return measure

"""Fixtures of this room: networks as a training leaves them, and a watch over everything that must come back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.explain.makers import Small, from_torchvision, hooks, trained


@pytest.fixture(scope="session")
def networks() -> dict[str, nn.Module]:
    """Three networks of torchvision for 64 px and 6 classes, with weights at random. Not to be changed."""
    return {name: from_torchvision(name) for name in ("resnet18", "alexnet", "googlenet")}


@pytest.fixture
def small() -> nn.Module:
    torch.manual_seed(1)
    return trained(Small(), 16)


@pytest.fixture
def unchanged() -> Callable[..., Any]:
    """A context that asserts that a model, an input and the random generators are after it what they were before."""

    @contextmanager
    def watch(model: nn.Module, images: torch.Tensor) -> Iterator[None]:
        def state() -> list[Any]:
            gradients = [None if one.grad is None else one.grad.clone() for one in model.parameters()]
            return [
                [layer.training for layer in model.modules()],
                [one.requires_grad for one in model.parameters()],
                hooks(model),
                gradients,
                [one.clone() for one in model.state_dict().values()],
                images.clone(),
                torch.get_rng_state(),
                np.random.get_state()[1].tolist(),  # noqa: NPY002 - the global generator is what is watched
                torch.is_grad_enabled(),
            ]

        def same(one: Any, other: Any) -> bool:
            if isinstance(one, list):
                return len(one) == len(other) and all(map(same, one, other))
            return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other

        before = state()
        try:
            yield
        finally:
            assert all(same(*pair) for pair in zip(before, state(), strict=True))

    return watch

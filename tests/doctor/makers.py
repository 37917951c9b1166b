"""Patients for tests: small networks, and images whose classes can be seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from striate.doctor import passes
from striate.doctor.patient import Patient
from striate.models import catalog
from striate.recipe import Recipe, change

CLASSES = 12


def images(count: int = 32, size_px: int = 32, classes: int = CLASSES, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalised images [count, 3, S, S], smooth as photos are, each class a pattern of its own under others; their labels."""
    draw, fixed = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(99)
    labels = torch.arange(count) % classes
    pattern, other = torch.randn(classes, 3, 6, 6, generator=fixed), torch.randn(count, 3, 8, 8, generator=draw)
    return _smooth(pattern, size_px)[labels] + _smooth(other, size_px), labels


def _smooth(coarse: torch.Tensor, size_px: int) -> torch.Tensor:
    return nn.functional.interpolate(coarse, size=(size_px, size_px), mode="bicubic")


def patient(
    model: nn.Module,
    size_px: int = 32,
    *,
    batch: int = 32,
    recipe: Recipe | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    loss: passes.Loss | None = None,
    **parts: Any,
) -> Patient:
    """A network with batches of `images`; parts: fields of Patient."""
    shown, labels = images(batch, size_px)

    def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for number in range(4):
            yield images(batch, size_px, seed=number)

    parts = {"classes": CLASSES, "seconds": 600.0} | parts
    return Patient(model, shown, labels, batches, loss or passes.summed(0.3), recipe=recipe, optimizer=optimizer, **parts)


def network(name: str, seed: int = 0, classes: int = CLASSES, **options: Any) -> nn.Module:
    """A network of the catalog with the same weights each time."""
    torch.manual_seed(seed)
    return catalog.build(name, classes, options).train()


def recipe(**changes: Any) -> Recipe:
    """The default recipe with changes, "optim__lr" for optim.lr."""
    return change(Recipe(), {name.replace("__", "."): value for name, value in changes.items()})


def sgd(model: nn.Module, lr: float = 0.05, **options: Any) -> torch.optim.SGD:
    """SGD with momentum."""
    return torch.optim.SGD(model.parameters(), lr, **({"momentum": 0.9} | options))


def small(*extra: nn.Module) -> nn.Module:
    """A network of two normalised convolutions that learns `images` in a few steps."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU(),
        *extra, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(512, CLASSES),
    )  # fmt: skip


Check = Callable[[Patient], Any]

"""Small networks, noise, and a count of hooks for the tests of this room."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def noise(*shape: int, seed: int = 7) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def trained(model: nn.Module, size_px: int = 64) -> nn.Module:
    """In evaluation mode, its batch norms with the statistics of noise, moved at random, and its biases no longer zero."""
    generator = torch.Generator().manual_seed(0)
    norms = [layer for layer in model.eval().modules() if isinstance(layer, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5, generator=generator)
        nn.init.normal_(norm.bias, 0, 0.2, generator=generator)
        norm.train()
        norm.momentum = 1.0
    with torch.no_grad():
        model(torch.randn(4, 3, size_px, size_px, generator=generator))
    for norm in norms:
        norm.running_mean += 0.2 * torch.randn(norm.num_features, generator=generator) * norm.running_var.sqrt()
        norm.running_var *= torch.empty(norm.num_features).uniform_(0.5, 2, generator=generator)
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(weight, 0, 0.1, generator=generator)
    return model.eval()


def from_torchvision(name: str) -> nn.Module:
    from torchvision import models

    torch.manual_seed(0)
    options = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    model = getattr(models, name)(num_classes=6, **options)
    if name == "alexnet":  # its linear layers of 4,096 are most of its time, and nothing of what is tested
        model.classifier = nn.Sequential(nn.Flatten(), nn.Linear(9216, 40), nn.ReLU(inplace=True), nn.Linear(40, 6))
    return trained(model)


class Small(nn.Sequential):
    """A quick network for 16 px with everything that may be disturbed: batch norm, dropout, layers that work in place."""

    def __init__(self) -> None:
        super().__init__(
            *(nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
            *(nn.Conv2d(5, 8, 3, padding=1), nn.ReLU(inplace=True), nn.Dropout(0.5)),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)),
        )


def itself(output: Any) -> torch.Tensor:
    return output if isinstance(output, torch.Tensor) else output[0]


def hooks(model: nn.Module) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(layer, kind)) for layer in model.modules() for kind in kinds)

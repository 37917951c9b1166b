"""Averages of weights along the training."""

from __future__ import annotations

import copy

import torch
from torch import nn


class Average:
    """Exponential moving average of a model's weights and buffers (EMA), with a warmed-up decay.

    After `updates` updates the decay is min(decay, (1 + updates) / (10 + updates)), so that the random start
    is forgotten quickly. Whole-number buffers (BatchNorm's counter) are copied, not averaged.
    Source: Szegedy et al. 2016, section 8 (use); the warm-up is TensorFlow's ExponentialMovingAverage.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Moves the average towards `model`; call after each step that was taken."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        mine, theirs = [], []
        for own, other in zip(self._tensors(self.model), self._tensors(model), strict=True):
            if own.is_floating_point():
                mine.append(own)
                theirs.append(other)
            else:
                own.copy_(other)
        torch._foreach_lerp_(mine, theirs, 1 - decay)

    @staticmethod
    def _tensors(model: nn.Module) -> list[torch.Tensor]:
        return [*(parameter.data for parameter in model.parameters()), *model.buffers()]

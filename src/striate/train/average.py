"""Averages of weights along the training: the moving one (EMA), and the plain mean of its last part (SWA)."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


class Average:
    """Average of a model's weights and buffers: exponential moving (EMA) with a decay, or plain (SWA) without.

    EMA: after `updates` updates the decay is min(decay, (1 + updates) / (10 + updates)), so that the random start
    is forgotten quickly. SWA: every update counts the same; until the first one it is what `follow` made it. Batch norm's
    running statistics belong to no mean of weights, so they are to be measured anew (`measure_statistics`).
    Whole-number buffers (BatchNorm's counter) are copied, not averaged.
    Source: Szegedy et al. 2016, section 8 (EMA); the warm-up is TensorFlow's ExponentialMovingAverage. Izmailov et al. 2018,
    section 3, algorithm 1 (SWA).
    """

    def __init__(self, model: nn.Module, decay: float | None) -> None:
        self.decay = decay
        self.updates = 0
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Moves the average towards `model`; call after each step that was taken."""
        self.updates += 1
        share = 1 / self.updates if self.decay is None else 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        mine, theirs = [], []
        for own, other in zip(self._tensors(self.model), self._tensors(model), strict=True):
            if own.is_floating_point():
                mine.append(own)
                theirs.append(other)
            else:
                own.copy_(other)
        torch._foreach_lerp_(mine, theirs, share)

    @torch.no_grad()
    def follow(self, model: nn.Module) -> None:
        """Takes over the weights and buffers of `model`: what stands for a mean that has not begun."""
        for own, other in zip(self._tensors(self.model), self._tensors(model), strict=True):
            own.copy_(other)

    @staticmethod
    def _tensors(model: nn.Module) -> list[torch.Tensor]:
        return [*(parameter.data for parameter in model.parameters()), *model.buffers()]


@torch.no_grad()
def measure_statistics(model: nn.Module, images: Iterable[torch.Tensor]) -> None:
    """Sets batch norm's running means and variances to those of the images, each batch counting the same.

    model: in evaluation mode, which it keeps; nothing but these statistics changes. images: [B, C, S, S] batches, normalised,
    on the model's device, of 2 images or more each.
    Source: Izmailov et al. 2018, section 3.2.
    """
    norms = [layer for layer in model.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats]
    if not norms:
        return
    before = [(layer, layer.momentum) for layer in norms]
    try:
        for layer in norms:
            layer.reset_running_stats()
            layer.momentum = None  # the plain mean over batches
            layer.training = True
        for batch_BCSS in images:
            model(batch_BCSS)
    finally:
        for layer, momentum in before:
            layer.momentum, layer.training = momentum, False

"""Evidence of single pixels from gradients of the logit: plain, averaged over noise, integrated along a path.

Two steps: attributions [B, C, S, S] with their sign, then a map [B, S, S] of them (`strongest` or `summed`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import nn

from striate import machine
from striate.errors import UserError, expect
from striate.explain import passes
from striate.explain.passes import LogitsOf

Rule = Literal["gauss-legendre", "midpoint"]


@dataclass(frozen=True, eq=False)
class Integrated:
    """Integrated gradients. attributions_BCSS: float32; over each image they add up to the rise of the logit from the baseline.

    gap_B: [B] float32, by how much the sum exceeds that rise. It is the error of the finite number of steps: zero in the limit.
    """

    attributions_BCSS: torch.Tensor
    gap_B: torch.Tensor


def gradient(model: nn.Module, images: torch.Tensor, labels_B: torch.Tensor, logits_of: LogitsOf) -> torch.Tensor:
    """The gradient of each image's logit by its pixels.

    images: [B, C, S, S] float32, normalised. labels_B: [B] int64 in 0..K-1. logits_of: the main logits [B, K] of what the model
    returns.
    Returns [B, C, S, S] float32, with its sign.
    Raises UserError for a label outside of 0..K-1, and where the pixels cannot be differentiated by: a part of the network runs
    under no_grad, or is detached. NonFiniteError for logits that are NaN or infinite.
    Source: Simonyan et al. 2014, section 3.
    """
    passes.check(images, labels_B[:, None])
    with passes.still(model, images):
        return _gradient(model, images, labels_B, logits_of)


def smoothgrad(
    model: nn.Module,
    images: torch.Tensor,
    labels_B: torch.Tensor,
    logits_of: LogitsOf,
    copies: int = 25,
    noise: float = 0.15,
    seed: int = 0,
) -> torch.Tensor:
    """The mean of `gradient` over noisy copies of each image, which takes out what changes from pixel to pixel.

    copies: n. noise: standard deviation over the range (largest less smallest value) of the image.
    Returns [B, C, S, S] float32, with its sign. The noise is a function of the seed and the copy alone, so that an image's map is
    the same in any batch.
    Source: Smilkov et al. 2017, section 2; 10 to 20 % noise, and little change beyond 50 copies (section 3.1, 3.2).
    """
    passes.check(images, labels_B[:, None])
    if copies < 1 or noise < 0:
        raise UserError(f"smoothgrad: expected one copy or more and noise of 0 or more, found {copies} and {noise:g}.")
    with passes.still(model, images):
        total = torch.zeros_like(images)
        for copy in range(copies):
            total += _gradient(model, images + noise_of(images, copy, noise, seed), labels_B, logits_of)
        return total / copies


def noise_of(images: torch.Tensor, copy: int, noise: float, seed: int) -> torch.Tensor:
    """What `smoothgrad` adds to its copy of this number: normal, of `noise` times each image's range. [B, C, S, S]."""
    numbers = torch.Generator().manual_seed(machine.stream_seed(seed, "smoothgrad", copy))
    normal_CSS = torch.randn(images.shape[1:], generator=numbers).to(images)
    return normal_CSS * (noise * (images.amax((1, 2, 3), keepdim=True) - images.amin((1, 2, 3), keepdim=True)))


def integrated_gradients(
    model: nn.Module,
    images: torch.Tensor,
    labels_B: torch.Tensor,
    logits_of: LogitsOf,
    baseline: torch.Tensor | None = None,
    steps: int = 50,
    rule: Rule = "gauss-legendre",
) -> Integrated:
    """The gradient integrated along the straight line from a baseline to the image, times the way that each pixel goes.

    baseline: an image without evidence, [C, S, S] or [B, C, S, S], normalised; None is zeros, which is the mean colour.
    steps: points on the line. rule: where they stand and what they weigh.
    Source: Sundararajan et al. 2017, section 3, equations 1 and 3; 20 to 300 steps (section 5).
    """
    passes.check(images, labels_B[:, None])
    if steps < 1:
        raise UserError(f"integrated-gradients: expected one step or more, found {steps}.")
    start = torch.zeros_like(images) if baseline is None else baseline.to(images).expand_as(_fits(baseline, images))
    shares, weights = _points(steps, rule)
    with passes.still(model, images):
        way = images.detach() - start
        total = torch.zeros_like(way)
        for share, weight in zip(shares, weights, strict=True):
            total += float(weight) * _gradient(model, start + float(share) * way, labels_B, logits_of)
        attributions = total * way
        rise_B = passes.scores(model, images, labels_B, logits_of, False) - passes.scores(
            model, start, labels_B, logits_of, False
        )
        return Integrated(attributions, attributions.sum((1, 2, 3)) - rise_B)


def strongest(attributions: torch.Tensor) -> torch.Tensor:
    """The largest magnitude over the channels of each pixel: [B, C, S, S] to [B, S, S], zero or more.

    Source: Simonyan et al. 2014, section 3.1.
    """
    expect(attributions, "B C S S", "attributions")
    return attributions.abs().amax(1)


def summed(attributions: torch.Tensor) -> torch.Tensor:
    """The sum over the channels of each pixel, with its sign: [B, C, S, S] to [B, S, S]."""
    expect(attributions, "B C S S", "attributions")
    return attributions.sum(1)


def _gradient(model: nn.Module, images: torch.Tensor, labels_B: torch.Tensor, logits_of: LogitsOf) -> torch.Tensor:
    x = images.detach().clone().requires_grad_()
    total = passes.chosen(passes.logits(model, x, logits_of), labels_B[:, None]).sum()
    found = torch.autograd.grad(total, x, allow_unused=True)[0] if total.requires_grad else None
    if found is None:  # zeros would be a map that says that no pixel counts
        raise UserError(
            f"The logits of this {passes.kind(model)} do not depend on the pixels through autograd: a part of it runs under "
            "torch.no_grad, or its output is detached. Use --method occlusion, which needs no gradient; or cam, grad-cam or "
            "grad-cam++ with a --layer behind that part."
        )
    return found.float()


def _points(steps: int, rule: Rule) -> tuple[np.ndarray, np.ndarray]:
    """Places on the line in 0..1, and their weights, which add up to 1."""
    if rule == "midpoint":
        return (np.arange(steps) + 0.5) / steps, np.full(steps, 1 / steps)
    at, weight = np.polynomial.legendre.leggauss(steps)  # for -1..1
    return (at + 1) / 2, weight / 2


def _fits(baseline: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    if baseline.shape not in (images.shape, images.shape[1:]):
        raise UserError(
            f"baseline: expected shape {list(images.shape[1:])} or {list(images.shape)}, found {list(baseline.shape)}."
        )
    return images

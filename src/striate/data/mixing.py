"""MixUp and CutMix: two images of a batch made into one, with both labels. A pure function of (seed, step).

Neighbours 0 and 1, 2 and 3, … of a batch are paired, each the other's partner, so that a process that holds a part of the
batch needs no image of another one. One share holds for the whole batch.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
import torch

from striate import machine
from striate.errors import expect


class Mix(NamedTuple):
    """What is done to a batch.

    own_share: weight of each image's own label, 0..1. box: (x_min, y_min, x_max, y_max) of the partner's pixels that
    are pasted, in pixel edges, for "cutmix"; own_share is what the box leaves of the image.
    """

    kind: Literal["mixup", "cutmix"]
    own_share: float
    box: tuple[int, int, int, int]


def choose(seed: int, step: int, *, mixup: float, cutmix: float, share: float, side: int) -> Mix | None:
    """What is done to the batch of a step; None where it stays as it is.

    mixup, cutmix: alpha of the Beta distribution, 0 for none; with both, each takes half of the mixed batches.
    share: of the batches that are mixed. side: of the images, in pixels.
    Source: Zhang et al. 2018, section 2; Yun et al. 2019, section 3.1, its box in whole pixels as torchvision's CutMix.
    """
    if mixup == 0 and cutmix == 0:
        return None
    mixes, which, radius, angle, x, y = machine.uniforms(seed, "mixing", step, np.zeros(1, dtype=np.int64), 6)[0].tolist()
    if mixes >= share:
        return None
    if cutmix == 0 or (mixup > 0 and which < 0.5):
        return Mix("mixup", symmetric_beta(mixup, radius, angle), (0, 0, 0, 0))
    half = int(0.5 * math.sqrt(1 - symmetric_beta(cutmix, radius, angle)) * side)
    centre_x, centre_y = int(x * side), int(y * side)
    left, top = max(centre_x - half, 0), max(centre_y - half, 0)
    right, bottom = min(centre_x + half, side), min(centre_y + half, side)
    return Mix("cutmix", 1 - (right - left) * (bottom - top) / side**2, (left, top, right, bottom))


def symmetric_beta(alpha: float, radius: float, angle: float) -> float:
    """A number with distribution Beta(alpha, alpha) from two uniforms in [0, 1), for any alpha above 0.

    A Student t with 2 alpha degrees of freedom by the polar method, brought to 0..1; written so that nothing overflows.
    Source: Bailey 1994, section 2; Devroye 1996, section 3.
    """
    power, cos = radius ** (1 / alpha), math.cos(2 * math.pi * angle)
    return 0.5 + 0.5 * cos * math.sqrt((1 - power) / (power + cos**2 * (1 - power)))


def apply(images: torch.Tensor, labels: torch.Tensor, mix: Mix) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The mixed batch. An odd last image stays as it is.

    images: [B, C, S, S] float. labels: [B] int64. Returns new images in the same memory format, the partner's labels
    [B], and the weight of each image's own label [B] float32: loss = weight * CE(label) + (1 - weight) * CE(partner's).
    """
    expect(images, "B C S S", "images")
    count = len(images)
    paired = count - count % 2
    partners = torch.arange(count, device=images.device)
    partners[:paired] ^= 1
    weights = torch.ones(count, device=images.device)
    weights[:paired] = mix.own_share
    if mix.kind == "mixup":
        mixed = torch.lerp(images[partners], images, mix.own_share)
    else:
        left, top, right, bottom = mix.box
        mixed = images.clone()
        mixed[:, :, top:bottom, left:right] = images[partners, :, top:bottom, left:right]
    return mixed, labels[partners], weights

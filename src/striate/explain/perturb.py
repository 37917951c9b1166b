"""Evidence by hiding: what the class loses when a window of the image is covered."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from striate.errors import UserError
from striate.explain import passes
from striate.explain.passes import LogitsOf

Score = Literal["logit", "probability"]


def occlusion(
    model: nn.Module,
    images: torch.Tensor,
    labels_B: torch.Tensor,
    logits_of: LogitsOf,
    window_px: int | None = None,
    stride_px: int | None = None,
    baseline: float | torch.Tensor = 0.0,
    of: Score = "logit",
    images_at_once: int = 64,
) -> torch.Tensor:
    """How much the class's score drops when a square window hides a pixel, on average over the windows that do.

    images: [B, C, S, S] float32, normalised. labels_B: [B] int64 in 0..K-1. window_px: side of the window; None is a seventh of
    S. stride_px: from one window to the next, at most the window; None is half of it. The last window of a row is cut at the
    border. baseline: what hides, a number or one for each channel [C], normalised; 0 is the mean colour. of: the logit, or the
    probability. images_at_once: how many covered images go through the network together.
    Returns [B, S, S] float32: negative where hiding helps the class.
    Raises UserError for a window or stride that does not fit, and a label outside of 0..K-1; NonFiniteError as every method.
    Source: Zeiler and Fergus 2014, section 4.2.
    """
    passes.check(images, labels_B[:, None])
    count, channels, _, side = images.shape
    window = max(1, side // 7) if window_px is None else window_px
    stride = max(1, window // 2) if stride_px is None else stride_px
    if not 1 <= window <= side or not 1 <= stride <= window:
        raise UserError(
            f"occlusion: expected a window from 1 to {side} px and a stride from 1 px to the window, found {window} and {stride}."
        )
    if isinstance(baseline, torch.Tensor) and baseline.numel() not in (1, channels):
        raise UserError(f"baseline: expected one number or {channels}, found {baseline.numel()}.")
    cover = torch.as_tensor(baseline, dtype=images.dtype, device=images.device).reshape(-1, 1, 1)
    begins = [min(step * stride, side) for step in range(-(-(side - window) // stride) + 1)]
    places = [(slice(top, top + window), slice(left, left + window)) for top in begins for left in begins]
    at_once = max(1, images_at_once // max(1, count))
    total_BSS = images.new_zeros((count, side, side), dtype=torch.float32)
    hidden_SS = images.new_zeros((side, side), dtype=torch.float32)
    with passes.still(model, images), torch.no_grad():
        whole_B = passes.scores(model, images, labels_B, logits_of, of == "probability")
        for first in range(0, len(places), at_once):
            some = places[first : first + at_once]
            covered = images.detach().repeat(len(some), 1, 1, 1)
            for number, (rows, columns) in enumerate(some):
                covered[number * count : (number + 1) * count, :, rows, columns] = cover
            seen_B = passes.scores(model, covered, labels_B.repeat(len(some)), logits_of, of == "probability")
            for (rows, columns), drop_B in zip(some, whole_B - seen_B.reshape(len(some), count), strict=True):
                total_BSS[:, rows, columns] += drop_B[:, None, None]
                hidden_SS[rows, columns] += 1
    return total_BSS / hidden_SS

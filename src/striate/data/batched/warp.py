"""Warps of a batch of square images, each by a matrix of its own, with Pillow's coordinates.

matrix_b6: [b, 6] float64, where each point comes from: x = a x' + b y' + c, y = d x' + e y' + f in pixel edges, as
`augment.geometry.inverse_matrix` has it. Where nothing comes from is black. Levels are float32 [b, 3, S, S], whole
numbers in 0..255.
"""

from __future__ import annotations

from typing import Final

import torch

_FIXED: Final = 65536  # Pillow picks nearest pixels in 16.16 fixed point


def bilinear(levels: torch.Tensor, matrix_b6: torch.Tensor) -> torch.Tensor:
    """Each pixel a mean of four, cut off to whole levels; at the border the outermost pixels stand for those outside."""
    side = levels.shape[-1]
    pixel_S = torch.arange(side, device=levels.device, dtype=torch.float64) + 0.5
    x_bSS, y_bSS = _mapped(matrix_b6, pixel_S)
    is_inside = (x_bSS >= 0) & (x_bSS < side) & (y_bSS >= 0) & (y_bSS < side)
    column, row = (x_bSS - 0.5).floor(), (y_bSS - 0.5).floor()
    right, down = (x_bSS - 0.5 - column)[:, None], (y_bSS - 0.5 - row)[:, None]
    left_place, right_place = ((column.long() + step).clamp(0, side - 1) for step in (0, 1))
    upper, lower = (
        _between(_at(levels, place, left_place).double(), _at(levels, place, right_place).double(), right)
        for place in ((row.long() + step).clamp(0, side - 1) for step in (0, 1))
    )
    return _between(upper, lower, down).floor_().float() * is_inside[:, None]


def _between(start: torch.Tensor, end: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """In the order in which Pillow computes it, which the cutting off to whole levels shows."""
    return start + (end - start) * share


def nearest(levels: torch.Tensor, matrix_b6: torch.Tensor) -> torch.Tensor:
    """Each pixel the one that its centre comes from."""
    side = levels.shape[-1]
    a, b, c, d, e, f = matrix_b6.unbind(1)
    halves = torch.stack([a, b, c + 0.5 * (a + b), d, e, f + 0.5 * (d + e)], 1)
    pixel_S = torch.arange(side, device=levels.device)
    x_bSS, y_bSS = (place >> 16 for place in _mapped((halves * _FIXED + 0.5).floor().long(), pixel_S))
    is_inside = (x_bSS >= 0) & (x_bSS < side) & (y_bSS >= 0) & (y_bSS < side)
    return _at(levels, y_bSS.clamp(0, side - 1), x_bSS.clamp(0, side - 1)) * is_inside[:, None]


def _mapped(matrix_b6: torch.Tensor, pixel_S: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Where the pixels of each row and column come from: x and y, [b, S, S] each."""
    a, b, c, d, e, f = (value[:, None, None] for value in matrix_b6.unbind(1))
    x_S, y_S1 = pixel_S, pixel_S[:, None]
    return a * x_S + b * y_S1 + c, d * x_S + e * y_S1 + f


def _at(levels: torch.Tensor, y_bSS: torch.Tensor, x_bSS: torch.Tensor) -> torch.Tensor:
    """Pixels at whole places: [b, 3, S, S]."""
    place_bP = (y_bSS * levels.shape[-1] + x_bSS).flatten(1)
    return levels.flatten(2).gather(2, place_bP[:, None].expand(-1, levels.shape[1], -1)).view(levels.shape)

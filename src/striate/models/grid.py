"""Where a network's last grid of features is: what heatmaps are made of, and what a box head reads.

Found by running the network once, not by its name or its source, so it serves networks by anybody. A grid is an output
[B, C, h, w] with h = w above 1, as a square photo leaves it. Pools at the end are stepped over: the layer before them holds the
same features on a finer grid, and is the one that Grad-CAM's authors took (the last convolution of VGG, with its ReLU).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from striate.models.blocks import GridPool
from striate.taps import taps

_POOLS = (
    nn.modules.pooling._MaxPoolNd,
    nn.modules.pooling._AvgPoolNd,
    nn.modules.pooling._AdaptiveAvgPoolNd,
    nn.modules.pooling._AdaptiveMaxPoolNd,
    nn.modules.pooling._LPPoolNd,
    GridPool,
)
_NOTHING = (nn.modules.dropout._DropoutNd, nn.Identity)


@dataclass(frozen=True)
class Grid:
    """A layer whose output is a grid of features, [B, channels, height, width] for the input it was found with."""

    name: str
    channels: int
    height: int
    width: int


@dataclass(frozen=True, eq=False)
class _Call:
    name: str
    is_pool: bool
    entered: Any
    left: torch.Tensor


def grids(model: nn.Module, size_px: int, channels: int) -> list[Grid]:
    """The layers whose output is a grid, in the order in which they end; a layer that runs twice by its last call.

    The model is run once in evaluation mode on a grey photo of `size_px` by `size_px`; its modes come back as they were.
    channels: C of its input.
    """
    found = {call.name: call for call in _calls(model, size_px, channels) if _is_grid(call.left)}
    return [_grid(call) for call in found.values()]


def last(model: nn.Module, size_px: int, channels: int) -> Grid | None:
    """The grid that the classes are made of, in front of the pools at the network's end; None where there is none.

    None as well where the network goes on from its last grid with tokens (a vision transformer), which are no grid.
    """
    calls = _calls(model, size_px, channels)
    places = [place for place, call in enumerate(calls) if _is_grid(call.left)]
    if not places or any(_is_tokens(call.left) for call in calls[places[-1] :]):
        return None
    pooled = [call.left for call in calls if call.is_pool and call.left is not call.entered]
    for place in reversed(places):
        call = calls[place]
        is_at_its_end = any(call.left is one for one in pooled)  # a stage that ends in a pool gives the pool's very output
        if not (call.is_pool or is_at_its_end or isinstance(model.get_submodule(call.name), _NOTHING)):
            return _grid(call)
    return _grid(calls[places[-1]])


def _calls(model: nn.Module, size_px: int, channels: int) -> list[_Call]:
    calls: list[_Call] = []

    def watching(name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def look(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if isinstance(output, torch.Tensor):
                calls.append(_Call(name, isinstance(layer, _POOLS), inputs[0] if inputs else None, output))

        return look

    like = next(model.parameters(), torch.empty(0))
    grey = torch.zeros(1, channels, size_px, size_px, device=like.device, dtype=like.dtype)
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad(), taps(model, {name: watching(name) for name, _ in model.named_modules() if name}):
            model(grey)
    finally:
        for module, mode in modes:
            module.training = mode
    return calls


def _grid(call: _Call) -> Grid:
    _, channels, height, width = call.left.shape
    return Grid(call.name, channels, height, width)


def _is_grid(x: torch.Tensor) -> bool:
    return x.ndim == 4 and x.shape[2] == x.shape[3] > 1


def _is_tokens(x: torch.Tensor) -> bool:
    """[B, N, C], or [B, h, w, C] with the channels last."""
    return (x.ndim == 3 and x.shape[1] > 1) or (x.ndim == 4 and x.shape[2] != x.shape[3])

"""What a layer gives for an image: its feature maps, and a picture of the strongest."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from striate.errors import UserError, expect
from striate.explain import cam, kernels, passes
from striate.models import heads
from striate.taps import taps


def feature_maps(model: nn.Module, images: torch.Tensor, layer: str) -> torch.Tensor:
    """The layer's output for each image: [B, C, h, w] float32, from its last call that gives a grid.

    model: in any mode; it comes back as it was. images: [B, C, S, S] float32, normalised. layer: as `named_modules` has it.
    Raises UserError for an unknown layer (with the nearest names) and for one that gives no grid (with those near it that do).
    """
    expect(images, "B C S S", "images")
    passes.expect_name("--features", layer)
    found: list[torch.Tensor] = []
    given = "nothing: it does not run in evaluation mode"

    def look(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal given
        if cam.is_grid(output):
            found[:] = [output.detach().float().clone()]  # a layer behind it may write into it
        else:
            given = cam.shape_of(output)

    with passes.still(model, images), torch.no_grad(), taps(heads.classifier_of(model), {layer: look}):
        model(images.clone())
    if not found:
        raise UserError(cam.without_grid("feature maps", model, layer, given, images))
    return found[0]


def picture(maps_Chw: torch.Tensor, most: int = 16, cell_px: int = 4) -> tuple[NDArray[np.uint8], tuple[int, ...]]:
    """The strongest feature maps of one image in tiles, and the numbers of their channels, the strongest first.

    maps_Chw: [C, h, w]. most: how many. cell_px: side of each cell. Strength is the mean magnitude over the grid; each map is
    scaled by itself, its least value black and its largest white.
    Returns [H, W, 3] uint8, and the channels row by row.
    """
    expect(maps_Chw, "C h w", "feature maps")
    if most < 1 or cell_px < 1:
        raise UserError(f"feature maps: expected one map and cells of 1 px or more, found {most} and {cell_px}.")
    strength_C = maps_Chw.abs().mean((1, 2))
    channels = strength_C.argsort(descending=True, stable=True)[:most]
    tiles_N1hw = maps_Chw[channels].detach().cpu().float().numpy()[:, None]
    tiles = kernels.levels(tiles_N1hw).repeat(3, axis=3)
    return kernels.tiled(tiles, cell_px), tuple(int(channel) for channel in channels.tolist())

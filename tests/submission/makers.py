"""Photos, and networks that are right about them by construction: of their colour, and of where it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from striate.models.heads import Localizer
from striate.view import View

VIEW = View(16, "squash", 16, "bilinear", False, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
WNIDS = ("n00000001", "n00000002", "n00000003")  # of what is blue, green and red
COLOURS = ((0, 0, 255), (0, 255, 0), (255, 0, 0))


class Colourist(nn.Module):
    """Says blue, green or red by the mean of the channels: right for every plainly coloured image."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((2, 3)).flip(1)


class Pointer(Localizer):
    """A colourist with a box head. boxes_of(images): [B, 1 or K, 4], centre x and y, width and height, over the view's side."""

    def __init__(self, boxes_of: Callable[[torch.Tensor], torch.Tensor]) -> None:
        nn.Module.__init__(self)
        self.boxes_of = boxes_of

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((2, 3)).flip(1)

    def localize(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self(images), self.boxes_of(images)


def at_bright_pixels(images: torch.Tensor) -> torch.Tensor:
    """The box around all pixels above zero, of images that have some: [B, 1, 4] as a box head gives them."""
    found = []
    for is_bright_SS in (images > 0).any(dim=1):
        y, x = (is_bright_SS.any(dim=axis).nonzero().flatten() for axis in (1, 0))
        left, top, right, bottom = (int(edge) for edge in (x[0], y[0], x[-1] + 1, y[-1] + 1))
        found.append([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top])
    return torch.tensor(found)[:, None] / images.shape[-1]


def photo(path: Path, colour: tuple[int, int, int], width: int = 24, height: int = 20) -> Path:
    """A plainly coloured photo."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), colour, np.uint8)).save(path, format="JPEG")
    return path

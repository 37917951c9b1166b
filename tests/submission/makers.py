"""Photos, and a network that is right about them by construction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from striate.view import View

VIEW = View(16, "squash", 16, "bilinear", False, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
WNIDS = ("n00000001", "n00000002", "n00000003")  # of what is blue, green and red
COLOURS = ((0, 0, 255), (0, 255, 0), (255, 0, 0))


class Colourist(nn.Module):
    """Says blue, green or red by the mean of the channels: right for every plainly coloured image."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((2, 3)).flip(1)


def photo(path: Path, colour: tuple[int, int, int], width: int = 24, height: int = 20) -> Path:
    """A plainly coloured photo."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), colour, np.uint8)).save(path, format="JPEG")
    return path

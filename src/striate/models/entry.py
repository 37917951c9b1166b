"""One line of the table of networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

Builder = Callable[..., nn.Module]


@dataclass(frozen=True)
class Entry:
    """A network that striate builds itself.

    builder: takes the number of classes and the network's options. paper: authors and year as one cites them, with what the
    network is called there. year: of the first publication. size_px: side S of the input that the paper's numbers are for.
    classes, channels: of the data that it was published for.
    """

    builder: Builder
    paper: str
    year: int
    size_px: int = 224
    classes: int = 1000
    channels: int = 3

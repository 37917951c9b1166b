"""Operations on the finished crops of a batch, to each image its own: which there are, in which order, and what they do.

Round by round, every image takes its next operation; those that take the same one are done together. Brightness, contrast
and saturation count as the same, so that most batches stay whole.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import torch

from striate.data.augment import geometry, policy
from striate.data.augment.draw import Drawn
from striate.data.batched import colour, warp

_NUMBERS: Final = 6  # of an operation, at most: a matrix
_CACHE_BYTES: Final = 1 << 20  # of levels that a processor works on at a time: they stay in its cache from pass to pass

# What an operation does to levels, float32 [b, 3, S, S]; its numbers come as [b, 6] float64.
OPERATIONS: Final[dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]]] = {
    "nearest": warp.nearest,
    "bilinear": warp.bilinear,
    "blend": lambda levels, numbers: colour.blend(levels, numbers[:, 0], numbers[:, 1], numbers[:, 2]),
    "hue": lambda levels, numbers: colour.hue(levels, numbers[:, 0]),
    "lighting": lambda levels, numbers: colour.lighten(levels, numbers[:, :3]),
    "Sharpness": lambda levels, numbers: colour.sharpness(levels, 1 + numbers[:, 0]),
    "Posterize": lambda levels, numbers: colour.posterize(levels, numbers[:, 0]),
    "Solarize": lambda levels, numbers: colour.solarize(levels, numbers[:, 0]),
    "AutoContrast": lambda levels, _: colour.autocontrast(levels),
    "Equalize": lambda levels, _: colour.equalize(levels),
}
# Where `colour.blend` starts from: whether at the luminance, whether at its mean.
_STARTS: Final[dict[str, tuple[float, float]]] = {"brightness": (0.0, 0.0), "saturation": (1.0, 0.0), "contrast": (0.0, 1.0)}
_BLENDS: Final = {"Brightness": "brightness", "Color": "saturation", "Contrast": "contrast"}  # the policies' names


class Operation(NamedTuple):
    """One of OPERATIONS, or "Identity", with its numbers."""

    name: str
    numbers: tuple[float, ...]


class Group(NamedTuple):
    """One operation on some images of the batch: columns first to last - 1 of round `round`."""

    name: str
    round: int
    first: int
    last: int


@dataclass(frozen=True, eq=False)
class Changes:
    """The operations of B images.

    groups: in order. rows_RB: [R, B] int64, in each round the images sorted by their operation. numbers_RB6: [R, B, 6]
    float64, in the same order.
    """

    groups: tuple[Group, ...]
    rows_RB: torch.Tensor
    numbers_RB6: torch.Tensor

    def to(self, device: torch.device) -> Changes:
        """The same on a device."""
        rows_RB, numbers_RB6 = (value.to(device, non_blocking=True) for value in (self.rows_RB, self.numbers_RB6))
        return dataclasses.replace(self, rows_RB=rows_RB, numbers_RB6=numbers_RB6)


def shapes(drawn: Drawn, size_px: int) -> list[Operation]:
    """What the policy and the warp do to a crop; of one length for all images of an augmentation."""
    found = []
    for operation in drawn.operations:
        matrix = policy.inverse_matrix(operation, size_px)
        if matrix is not None:
            found.append(Operation("nearest", matrix))
        elif operation.name in _BLENDS:
            found.append(_blend(_BLENDS[operation.name], 1 + operation.magnitude))
        else:
            found.append(Operation(operation.name, (operation.magnitude,)))
    if drawn.affine is not None:
        found.append(Operation("bilinear", geometry.inverse_matrix(drawn.affine, size_px)))
    return found


def colours(drawn: Drawn) -> list[Operation]:
    """What is done to the colours of a crop; of one length for all images of an augmentation."""
    found = [Operation(name, (factor,)) if name == "hue" else _blend(name, factor) for name, factor in drawn.colour]
    if drawn.lighting is not None:
        found.append(Operation("lighting", drawn.lighting))
    return found


def _blend(name: str, factor: float) -> Operation:
    return Operation("blend", (factor, *_STARTS[name]))


def collected(operations: Sequence[Sequence[Operation]]) -> Changes:
    """The changes of a batch, from the operations of each of its images, which are equally many."""
    count = len(operations)
    rounds = list(zip(*operations, strict=True))
    groups: list[Group] = []
    rows_RB = np.empty((len(rounds), count), dtype=np.int64)
    numbers_RB6 = np.zeros((len(rounds), count, _NUMBERS))
    for number, ones in enumerate(rounds):
        order = sorted(range(count), key=lambda row: ones[row].name)
        rows_RB[number] = order
        first = 0
        for place, row in enumerate(order):
            name, numbers = ones[row]
            numbers_RB6[number, place, : len(numbers)] = numbers
            if place + 1 == count or ones[order[place + 1]].name != name:
                if name != "Identity":
                    groups.append(Group(name, number, first, place + 1))
                first = place + 1
    return Changes(tuple(groups), torch.from_numpy(rows_RB), torch.from_numpy(numbers_RB6))


def apply(levels: torch.Tensor, changes: Changes) -> torch.Tensor:
    """The levels after their changes: whole numbers 0..255, float32 [B, 3, S, S] in and out. Overwrites the given ones."""
    is_cpu = levels.device.type == "cpu"
    step = max(1, _CACHE_BYTES // max(1, 4 * levels[:1].numel())) if is_cpu else max(1, len(levels))
    for name, number, start, end in changes.groups:
        for first in range(start, end, step):
            last = min(first + step, end)
            rows_b, numbers_b6 = changes.rows_RB[number, first:last], changes.numbers_RB6[number, first:last]
            if end - start == len(levels):  # sorting kept their order
                levels[first:last] = OPERATIONS[name](levels[first:last], numbers_b6)
            else:
                levels.index_copy_(0, rows_b, OPERATIONS[name](levels.index_select(0, rows_b), numbers_b6))
    return levels

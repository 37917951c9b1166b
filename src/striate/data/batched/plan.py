"""What is still to be done to the stored photos of a batch: the parameters of `augment.draw`, as few tensors as will do.

Made in the loader's threads, ahead of time. What the host must know to sort the work (which operation, for how many images)
stays in plain values, so that the device is never waited for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import torch

from striate.data.augment import geometry, policy
from striate.data.augment.draw import Drawn
from striate.data.batched import resampling

_NUMBERS: Final = 6  # of an operation, at most: a matrix
_NOWHERE: Final = (0, 0, 0, 0)


class Group(NamedTuple):
    """One operation on some images of the batch: columns first to last - 1 of round `round` of the plan."""

    name: str
    round: int
    first: int
    last: int


@dataclass(frozen=True, eq=False)
class Plan:
    """The parameters of B views.

    photos_B: [B] int64, where the photos stand in the block that holds them; None where the block is these photos.
    place_26B: [2, 6, B] int64, along x and along y what `resampling.Axis` names. longest_px: the larger side of any resized
    photo. columns_first_b, rows_first_b: rows of the batch, by `resampling.is_rows_first`.
    groups: the operations on the finished crops, in order; rows_RB: [R, B] int64, in each round the images sorted by their
    operation; numbers_RB6: [R, B, 6] float64, in the same order.
    erased_B4, cutout_B4: rectangles, or None where no image has one. noise_B: what the erased ones' noise is made from.
    erased_px: area of the largest.
    """

    photos_B: torch.Tensor | None
    place_26B: torch.Tensor
    longest_px: int
    columns_first_b: torch.Tensor
    rows_first_b: torch.Tensor
    groups: tuple[Group, ...]
    rows_RB: torch.Tensor
    numbers_RB6: torch.Tensor
    erased_B4: torch.Tensor | None
    noise_B: torch.Tensor | None
    erased_px: int
    cutout_B4: torch.Tensor | None

    def to(self, device: torch.device) -> Plan:
        """The same on a device."""
        moved: dict[str, Any] = {
            field.name: value.to(device, non_blocking=True)
            for field in dataclasses.fields(self)
            if isinstance(value := getattr(self, field.name), torch.Tensor)
        }
        return dataclasses.replace(self, **moved)


def planned(drawn: Sequence[Drawn], size_px: int, photos_B: torch.Tensor | None = None) -> Plan:
    """The plan for a batch, from the parameters of each of its images."""
    count = len(drawn)
    place_2B6 = np.array(
        [
            [(one.left, one.width, one.resized_width, one.offset_x, one.shift_x, one.flipped) for one in drawn],
            [(one.top, one.height, one.resized_height, one.offset_y, one.shift_y, False) for one in drawn],
        ],
        dtype=np.int64,
    ).reshape(2, count, 6)
    rows_first = [
        row
        for row, one in enumerate(drawn)
        if resampling.is_rows_first(one.width, one.height, one.resized_width, one.resized_height)
    ]
    groups: list[Group] = []
    rounds = list(zip(*(_operations(one, size_px) for one in drawn), strict=True))
    rows_RB = np.empty((len(rounds), count), dtype=np.int64)
    numbers_RB6 = np.zeros((len(rounds), count, _NUMBERS))
    for number, operations in enumerate(rounds):
        order = sorted(range(count), key=lambda row: operations[row][0])
        rows_RB[number] = order
        first = 0
        for place, row in enumerate(order):
            name, values = operations[row]
            numbers_RB6[number, place, : len(values)] = values
            if place + 1 == count or operations[order[place + 1]][0] != name:
                if name != "Identity":
                    groups.append(Group(name, number, first, place + 1))
                first = place + 1
    erased = [one.erased or _NOWHERE for one in drawn]
    areas = [width * height for _, _, width, height in erased]
    some_erased, some_cut = any(areas), any(one.cutout for one in drawn)
    return Plan(
        photos_B,
        torch.from_numpy(place_2B6.transpose(0, 2, 1).copy()),
        max((max(one.resized_width, one.resized_height) for one in drawn), default=0),
        torch.tensor(sorted({*range(count)} - {*rows_first}), dtype=torch.int64),
        torch.tensor(rows_first, dtype=torch.int64),
        tuple(groups),
        torch.from_numpy(rows_RB),
        torch.from_numpy(numbers_RB6),
        torch.tensor(erased) if some_erased else None,
        torch.tensor([one.noise for one in drawn]) if some_erased else None,
        max(areas, default=0),
        torch.tensor([one.cutout or _NOWHERE for one in drawn]) if some_cut else None,
    )


def _operations(drawn: Drawn, size_px: int) -> list[tuple[str, tuple[float, ...]]]:
    """What happens to a finished crop, as names of `apply.OPERATIONS` with their numbers; of one length for all images."""
    found: list[tuple[str, tuple[float, ...]]] = []
    for operation in drawn.operations:
        matrix = policy.inverse_matrix(operation, size_px)
        found.append((operation.name, (operation.magnitude,)) if matrix is None else ("nearest", matrix))
    if drawn.affine is not None:
        found.append(("bilinear", geometry.inverse_matrix(drawn.affine, size_px)))
    found += [(name, (factor,)) for name, factor in drawn.colour]
    if drawn.lighting is not None:
        found.append(("lighting", drawn.lighting))
    return found

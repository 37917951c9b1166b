"""What is still to be done to the stored photos of a batch: the parameters of `augment.draw`, as few tensors as will do.

Made in the loader's threads, ahead of time. What the host must know to sort the work (which operation, for how many images)
stays in plain values, so that the device is never waited for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch

from striate.data.augment.draw import Drawn
from striate.data.batched import changes, resampling
from striate.data.batched.changes import Changes

_NOWHERE: Final = (0, 0, 0, 0)


@dataclass(frozen=True, eq=False)
class Plan:
    """The parameters of B views.

    photos_B: [B] int64, where the photos stand in the block that holds them; None where the block is these photos.
    place_26B: [2, 6, B] int64, along x and along y what `resampling.Axis` names. longest_px: the larger side of any resized
    photo. columns_first_b, rows_first_b: rows of the batch, by `resampling.is_rows_first`.
    changes: what is then done to the crops.
    erased_B4, cutout_B4: rectangles, or None where no image has one. noise_B: what the erased ones' noise is made from.
    erased_px: area of the largest.
    """

    photos_B: torch.Tensor | None
    place_26B: torch.Tensor
    longest_px: int
    columns_first_b: torch.Tensor
    rows_first_b: torch.Tensor
    changes: Changes
    erased_B4: torch.Tensor | None
    noise_B: torch.Tensor | None
    erased_px: int
    cutout_B4: torch.Tensor | None

    def to(self, device: torch.device) -> Plan:
        """The same on a device."""
        moved: dict[str, Any] = {
            field.name: value.to(device) if isinstance(value, Changes) else value.to(device, non_blocking=True)
            for field in dataclasses.fields(self)
            if isinstance(value := getattr(self, field.name), torch.Tensor | Changes)
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
    erased = [one.erased or _NOWHERE for one in drawn]
    areas = [width * height for _, _, width, height in erased]
    some_erased, some_cut = any(areas), any(one.cutout for one in drawn)
    return Plan(
        photos_B,
        torch.from_numpy(place_2B6.transpose(0, 2, 1).copy()),
        max((max(one.resized_width, one.resized_height) for one in drawn), default=0),
        torch.tensor(sorted({*range(count)} - {*rows_first}), dtype=torch.int64),
        torch.tensor(rows_first, dtype=torch.int64),
        changes.collected([changes.shapes(one, size_px) + changes.colours(one) for one in drawn]),
        torch.tensor(erased) if some_erased else None,
        torch.tensor([one.noise for one in drawn]) if some_erased else None,
        max(areas, default=0),
        torch.tensor([one.cutout or _NOWHERE for one in drawn]) if some_cut else None,
    )

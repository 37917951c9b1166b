"""The gradients of several processes, added up in a few flat buffers.

torch's DistributedDataParallel lays its buckets anew after the first step of every sitting, in the order in which gradients
happen to be ready; with three processes or more the sums then have other bits after a resume than without one. Here the
layout follows the parameters alone, so a resumed training is the uninterrupted one bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import nn

from striate.ranks import Ranks

_BYTES: Final = 25_000_000  # of a bucket: large enough to cost few messages, small enough that they overlap


class Buckets:
    """Flat buffers that the gradients of `parameters` are views of, so that nothing is copied for adding them up.

    A parameter without a gradient counts as one of zeros, in every process alike.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self._parameters = list(parameters)
        self._flat: list[torch.Tensor] = []
        self._views: list[torch.Tensor] = []
        group: list[nn.Parameter] = []
        for parameter in self._parameters:
            if group and (not _alike(group[0], parameter) or sum(one.nbytes for one in group) + parameter.nbytes > _BYTES):
                self._lay(group)
                group = []
            group.append(parameter)
        if group:
            self._lay(group)

    def _lay(self, group: list[nn.Parameter]) -> None:
        flat = group[0].new_zeros(sum(parameter.numel() for parameter in group))
        self._flat.append(flat)
        place = 0
        for parameter in group:
            # In the parameter's own memory order (channels last), or each backward pass would copy.
            self._views.append(flat[place : place + parameter.numel()].as_strided(parameter.shape, parameter.stride(), place))
            place += parameter.numel()

    def clear(self) -> None:
        """Zero gradients, as views of the buffers."""
        torch._foreach_zero_(self._flat)
        for parameter, view in zip(self._parameters, self._views, strict=True):
            parameter.grad = view

    def add_up(self, ranks: Ranks, more: Sequence[torch.Tensor]) -> None:
        """Adds up the gradients over the processes, and the tensors of `more` with them."""
        ranks.add_([*self._flat, *more])


def _alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.dtype == other.dtype and one.device == other.device

"""The gradients of several processes, added up in flat buffers while the backward pass goes on.

torch's DistributedDataParallel lays its buckets anew after the first step of every sitting, in the order in which gradients
happen to be ready; with three processes or more the sums then have other bits after a resume than without one. Here layout
and order follow the parameters alone, so a resumed training is the uninterrupted one bit for bit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Final

import torch
from torch import nn

from striate.ranks import Ranks, Waiting

_BYTES: Final = 4_000_000  # of a bucket: few messages, and yet most are on their way before the backward pass ends


class Buckets:
    """Flat buffers that the gradients of `parameters` are views of, so that nothing is copied for adding them up.

    A parameter without a gradient counts as one of zeros, in every process alike. The last parameters, whose gradients
    come first, have the first bucket; buckets leave in this order in every process, whatever is ready.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self._parameters = list(reversed(parameters))
        self._flat: list[torch.Tensor] = []
        self._views: list[torch.Tensor] = []
        self._bucket: list[int] = []  # of each parameter
        group: list[nn.Parameter] = []
        for parameter in self._parameters:
            if group and (not _alike(group[0], parameter) or sum(one.nbytes for one in group) + parameter.nbytes > _BYTES):
                self._lay(group)
                group = []
            group.append(parameter)
        if group:
            self._lay(group)
        self._missing: list[int] = []
        self._leaving: list[Waiting] = []

    def _lay(self, group: list[nn.Parameter]) -> None:
        flat = group[0].new_zeros(sum(parameter.numel() for parameter in group))
        place = 0
        for parameter in group:
            # In the parameter's own memory order (channels last), or each backward pass would copy.
            self._views.append(flat[place : place + parameter.numel()].as_strided(parameter.shape, parameter.stride(), place))
            self._bucket.append(len(self._flat))
            place += parameter.numel()
        self._flat.append(flat)

    def clear(self) -> None:
        """Zero gradients, as views of the buffers."""
        torch._foreach_zero_(self._flat)
        for parameter, view in zip(self._parameters, self._views, strict=True):
            parameter.grad = view

    @contextlib.contextmanager
    def leaving(self, ranks: Ranks) -> Iterator[None]:
        """Around the last backward pass of a step: a bucket leaves for the other processes as soon as it is complete."""
        self._missing = [self._bucket.count(number) for number in range(len(self._flat))]
        hooks = []
        for parameter, bucket in zip(self._parameters, self._bucket, strict=True):

            def ready(_: torch.Tensor, bucket: int = bucket) -> None:
                self._missing[bucket] -= 1
                while len(self._leaving) < len(self._flat) and self._missing[len(self._leaving)] == 0:
                    self._leave(ranks)

            hooks.append(parameter.register_post_accumulate_grad_hook(ready))  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def add_up(self, ranks: Ranks, more: torch.Tensor) -> None:
        """Waits until the gradients are those of all processes, and adds up `more` with them."""
        while len(self._leaving) < len(self._flat):
            self._leave(ranks)
        for waiting in (*self._leaving, ranks.begin_add_(more)):
            ranks.end(waiting)
        self._leaving = []

    def _leave(self, ranks: Ranks) -> None:
        self._leaving.append(ranks.begin_add_(self._flat[len(self._leaving)]))


def _alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.dtype == other.dtype and one.device == other.device

"""The processes of one training, as torchrun starts them: who is who, and what they tell each other.

A process alone is `Ranks()`, for which every method is the identity, so that the training is written once. Two rules
keep several from waiting for each other for ever: each collective call is reached by all of them in the same order,
and an error of one becomes an error of all (`together`).

torch.distributed neither authenticates nor encrypts: its ports belong on a private network.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch.distributed.rendezvous import rendezvous

from striate.errors import CheckpointError, DataError, Interrupted, NonFiniteError, ResourceError, StriateError, UserError

_JOIN_S: Final = 30  # for all processes to come together
_TALK_S: Final = 6 * 3600  # for an answer; while one process decodes images into memory the others wait
_SHARED: Final[dict[str, type[Exception]]] = {
    kind.__name__: kind for kind in (UserError, DataError, CheckpointError, NonFiniteError, ResourceError, Interrupted)
}


Waiting = dist.Work | None  # a sum that is under way


@dataclass(frozen=True)
class Ranks:
    """This process among those of the training. rank: its number, from 0. world: how many there are. group: torch's."""

    rank: int = 0
    world: int = 1
    group: dist.ProcessGroup | None = None

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files and speaks."""
        return self.rank == 0

    def begin_add_(self, tensor: torch.Tensor) -> Waiting:
        """Begins to add up a tensor over the processes, in place; `end` waits for it. The same layout gives the same bits."""
        if self.world == 1:
            return None
        with _gone():
            return dist.all_reduce(tensor, group=self.group, async_op=True)

    def end(self, waiting: Waiting) -> None:
        """Waits until a tensor is added up. Raises ResourceError when another process has gone."""
        if waiting is not None:
            with _gone():
                waiting.wait()

    def most(self, numbers: Sequence[int]) -> list[int]:
        """The largest of each number over the processes."""
        return self._reduced(numbers, dist.ReduceOp.MAX)

    def total(self, numbers: Sequence[int]) -> list[int]:
        """The sum of each number over the processes."""
        return self._reduced(numbers, dist.ReduceOp.SUM)

    def _reduced(self, numbers: Sequence[int], operation: Any) -> list[int]:
        if self.world == 1:
            return list(numbers)
        found = torch.tensor(numbers, dtype=torch.int64)
        with _gone():
            dist.all_reduce(found, op=operation, group=self.group)
        return [int(number) for number in found.tolist()]

    def collect(self, rows: NDArray[Any]) -> NDArray[Any]:
        """The rows of all processes, in the order of their ranks: [n, …] each, any n; returns [N, …] in each process."""
        if self.world == 1:
            return rows
        counts = self._gathered(torch.tensor([len(rows)]))
        most = max(int(count) for count in counts)
        padded = np.zeros((most, *rows.shape[1:]), rows.dtype)
        padded[: len(rows)] = rows
        found = self._gathered(torch.from_numpy(padded))
        return np.concatenate([part.numpy()[: int(count)] for part, count in zip(found, counts, strict=True)])

    def _gathered(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        found = [torch.empty_like(tensor) for _ in range(self.world)]
        with _gone():
            dist.all_gather(found, tensor, group=self.group)
        return found

    def exchange(self, value: Any) -> list[Any]:
        """The JSON value of every process, by rank."""
        if self.world == 1:
            return [value]
        text = np.frombuffer(json.dumps(value).encode(), np.uint8)
        lengths = [int(length) for length in self._gathered(torch.tensor([len(text)]))]
        whole = self.collect(text).tobytes()
        ends = np.cumsum(lengths).tolist()
        return [json.loads(whole[end - length : end]) for end, length in zip(ends, lengths, strict=True)]

    def any_of(self, reason: str | None) -> str | None:
        """The reason of the first process that has one."""
        return next((found for found in self.exchange(reason) if found is not None), None)

    def share(self, value: Any) -> Any:
        """The JSON value of the first process, in all of them."""
        return self.exchange(value if self.is_first else None)[0]

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """A block that succeeds in all processes or in none: an error in one is raised in every one of them."""
        error: Exception | None = None
        try:
            yield
        except Exception as caught:
            error = caught
            if self.world == 1:
                raise
        if self.world > 1:
            self.raise_any(error)

    def raise_any(self, error: Exception | None) -> None:
        """Raises the same error in every process: that of the first one that has any, interruptions last."""
        found = self.exchange(None if error is None else [type(error).__name__, str(error)])
        troubled = [rank for rank, one in enumerate(found) if one is not None]
        if not troubled:
            return
        chosen = min(troubled, key=lambda rank: (found[rank][0] == Interrupted.__name__, rank))
        if chosen == self.rank and error is not None:
            raised = error
        else:
            kind, text = found[chosen]
            raised = _SHARED.get(kind, ResourceError)(f"Process {chosen}: {text}")
        if isinstance(raised, StriateError):
            raised.is_shared = True
        raise raised


@contextlib.contextmanager
def _gone() -> Iterator[None]:
    """Says in words what torch says when a process does not answer any more."""
    try:
        yield
    except RuntimeError as error:
        raise ResourceError(
            "Another process of this training ended or does not answer. The last checkpoint is untouched: run the same command "
            "again, or let torchrun do it (--max-restarts 3)."
        ) from error


def local_rank() -> int:
    """This process' number on its machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", "0"))


@contextlib.contextmanager
def joined() -> Iterator[Ranks]:
    """Joins the processes that torchrun started, within the block; a process that was started by hand is alone.

    Raises ResourceError when they do not come together within half a minute.
    """
    world = _number("WORLD_SIZE", 1)
    if world <= 1 or dist.is_initialized():
        yield Ranks(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else Ranks()
        return
    rank = _number("RANK", 0)
    place = f"{os.environ.get('MASTER_ADDR', '?')}:{os.environ.get('MASTER_PORT', '?')}"
    soon = timedelta(seconds=_JOIN_S)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    try:
        store, rank, world = next(rendezvous("env://", rank, world, timeout=soon))
        # torchrun keeps its store when it starts the processes anew: addresses of those that are gone must not be found.
        store = dist.PrefixStore(  # type: ignore[attr-defined]
            f"striate/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store
        )
        store.set_timeout(soon)
        dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=soon)
        group = dist.new_group(backend=backend, timeout=timedelta(seconds=_TALK_S))
        assert isinstance(group, dist.ProcessGroup)  # every process is a member
    except (RuntimeError, ValueError) as error:
        raise ResourceError(
            f"Process {rank} of {world} could not join the others at {place} within {_JOIN_S} s "
            f"({str(error).splitlines()[0][:200]}). Is the port in use, or is a process missing? "
            "Start them with torchrun, and with another --master-port where this one is taken."
        ) from error
    try:
        yield Ranks(rank, world, group)
    finally:
        dist.destroy_process_group()


def _number(name: str, otherwise: int) -> int:
    text = os.environ.get(name, "")
    if not text:
        return otherwise
    if not text.isdigit():
        raise UserError(f"${name} is '{text}', expected a number as torchrun sets it. Start with torchrun, or unset it.")
    return int(text)

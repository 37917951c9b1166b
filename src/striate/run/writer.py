"""Checkpoints written beside the training: a snapshot in memory now, the disk while the next steps run.

What is written is the state at the moment of `begin`, whatever the training does afterwards. One checkpoint is under way at
a time. After it is on the disk, and only then, best.json names the best one, older ones go, and the mirror gets its copy.
A mirror slower than the checkpoints come misses some: it gets the newest when it is done with the one before.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from striate import machine
from striate.errors import NonFiniteError
from striate.files import write_json
from striate.run import checkpoint
from striate.run.checkpoint import Saved, Tensors

# How many tensors are checked for finite numbers at once, in elements.
_CHECKED = 1 << 20


@dataclass(frozen=True)
class Written:
    """A checkpoint that is on the disk.

    alone_s: what it would have taken without a training that goes first. complaints: what went wrong beside it, in words.
    """

    step: int
    saved: Saved
    alone_s: float
    complaints: tuple[str, ...]


# Copies a finished checkpoint elsewhere: (its folder, last step, how many to keep, steps that stay besides) to complaints.
Copy = Callable[[Path, int, int, tuple[int, ...]], list[str]]


class Writer:
    """Writes the checkpoints of one training into a folder.

    keep: how many of the newest stay, beside those that `begin` names. copy: called with those on the disk, one at a time.
    The snapshot's memory, as large as the state, is taken once and used again. has_failed: whether a checkpoint did not come
    to the disk. copy_s: what the last copy took.
    """

    def __init__(self, folder: Path, keep: int, copy: Copy | None = None) -> None:
        self._folder, self._keep, self._copy = folder, keep, copy
        self._thread, self._copier = (
            ThreadPoolExecutor(1, name, initializer=machine.step_back) for name in ("checkpoint", "mirror")
        )
        self._copying: tuple[list[int], Future[list[str]]] | None = None
        self._to_copy: tuple[Path, int, tuple[int, ...]] | None = None
        self._handing_over = threading.Lock()  # of the two above, which the writing thread sees as well
        self._error: Exception | None = None
        self._said: list[str] = []
        self.copy_s = 0.0
        self._current: Future[Written] | None = None
        self._ended: deque[Written] = deque()  # on the disk, not yet told
        self.has_failed = False
        self._room: dict[str, Tensors] = {}

    def reserve(self, parts: dict[str, Tensors]) -> None:
        """Takes the memory of a snapshot now, so that the first one is as quick as the others."""
        self._snapshot(parts)

    def begin(
        self,
        step: int,
        parts: dict[str, Tensors],
        facts: dict[str, Any],
        variant: str | None,
        best: dict[str, Any] | None,
        kept: tuple[int, ...] = (),
    ) -> None:
        """Takes the snapshot and returns when training may go on; a checkpoint that is under way is waited for first.

        parts, variant: see `checkpoint.save`. facts: likewise, not changed any more by the caller. best: what best.json says
        once this checkpoint is on the disk. kept: steps whose checkpoints stay besides. Whatever goes wrong is raised by `poll`.
        """
        snapshot = self._snapshot(parts)
        if not self.has_failed:  # where one did not come to the disk, the next would not either
            self._current = self._thread.submit(self._write, step, snapshot, facts, variant, best, kept)

    def poll(self, wait: bool = False) -> Written | None:
        """The next checkpoint that came to the disk and was not told yet, or None; `wait` for the one under way and its copy.

        Raises ResourceError when the disk does not take it, NonFiniteError when it held a number that is none.
        """
        if self._current is not None and (wait or self._current.done()):
            self._end()
        self._copy_newest(wait)
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        if not self._ended:
            return None
        written, said, self._said = self._ended.popleft(), self._said, []
        return replace(written, complaints=(*written.complaints, *said))

    def _end(self) -> None:
        """Waits for the checkpoint under way."""
        current, self._current = self._current, None
        if current is not None:
            try:
                self._ended.append(current.result())
            except Exception as error:  # raised by the next poll
                self.has_failed, self._error = True, error

    def close(self) -> None:
        """Waits for the checkpoint under way and its copy, which are good whatever ended the training."""
        self._thread.shutdown(wait=True)
        self._copy_newest(wait=True)
        self._copier.shutdown(wait=True)

    def _snapshot(self, parts: dict[str, Tensors]) -> dict[str, Tensors]:
        """Copies on the CPU, in each tensor's own memory order; standard order is made later, by the writing thread.

        Waits for the checkpoint under way, whose snapshot lies in the same memory.
        """
        self._end()
        mine: list[torch.Tensor] = []
        theirs: list[torch.Tensor] = []
        for part, tensors in parts.items():
            room = self._room.setdefault(part, {})
            for name in room.keys() - tensors.keys():
                del room[name]
            for name, tensor in tensors.items():
                place = room.get(name)
                if place is None or place.shape != tensor.shape or place.dtype != tensor.dtype:
                    is_pinned = tensor.device.type == "cuda"
                    place = room[name] = torch.empty_like(tensor, device="cpu", pin_memory=is_pinned, requires_grad=False)
                mine.append(place)
                theirs.append(tensor.detach())
        gpus = {tensor.device for tensor in theirs if tensor.device.type == "cuda"}
        torch._foreach_copy_(mine, theirs, non_blocking=bool(gpus))
        for gpu in gpus:
            torch.cuda.synchronize(gpu)
        return {part: {name: self._room[part][name] for name in tensors} for part, tensors in parts.items()}

    def _write(
        self,
        step: int,
        parts: dict[str, Tensors],
        facts: dict[str, Any],
        variant: str | None,
        best: dict[str, Any] | None,
        kept: tuple[int, ...],
    ) -> Written:
        queued_s = machine.queued_s()
        refuse_non_finite(step, parts)
        saved = checkpoint.save(self._folder, step, parts, facts, variant)
        queued_s = machine.queued_s() - queued_s
        if best is not None:
            write_json(self._folder.parent / "best.json", best)
        spared = (*kept, *([best["step"]] if best is not None else []))
        with self._handing_over:
            copied = self._copying[0] if self._copying is not None else []
            complaints = checkpoint.rotate(self._folder, step, self._keep, [*spared, *copied])
            self._to_copy = (saved.path, step, spared)
        return Written(step, saved, max(0.0, saved.seconds - queued_s), tuple(complaints))

    def _copy_newest(self, wait: bool) -> None:
        """Gives the newest checkpoint to the mirror, unless it is still busy with one; `wait` until all is copied."""
        while self._copy is not None:
            if self._copying is not None and (wait or self._copying[1].done()):
                self._said += self._copying[1].result()
                self._copying = None
            with self._handing_over:
                if self._copying is None and self._to_copy is not None:
                    (path, step, spared), self._to_copy = self._to_copy, None
                    self._copying = ([step, *spared], self._copier.submit(self._copied, self._copy, path, step, spared))
                is_idle = self._copying is None
            if not wait or is_idle:
                return

    def _copied(self, copy: Copy, path: Path, step: int, spared: tuple[int, ...]) -> list[str]:
        began = time.monotonic()
        said = copy(path, step, self._keep, spared)
        self.copy_s = time.monotonic() - began
        return said


def refuse_non_finite(step: int, parts: dict[str, Tensors]) -> None:
    """Raises NonFiniteError when a weight, buffer or average is NaN or infinite: such a state is never saved."""
    for part, tensors in parts.items():
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and not _is_finite(tensor):
                raise NonFiniteError(
                    f"Step {step}: {part} '{name}' is not finite, so nothing was saved. "
                    "The last checkpoint is the one before. "
                    "The learning rate is probably too high: try a tenth of --lr, or --optim.clip-norm 1."
                )


def _is_finite(tensor: torch.Tensor) -> bool:
    """In pieces, so that the check takes little memory and little of the training's caches."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return all(bool(torch.isfinite(piece).all()) for piece in torch.split(flat, _CHECKED))

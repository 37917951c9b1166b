"""Which images make up a training batch: arithmetic on (seed, step), so a resume needs no state of the loader.

A last batch that would be short is dropped; its images come again in the next epoch's other order.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from striate import machine
from striate.errors import UserError


@dataclass(frozen=True, eq=False)
class Rows:
    """The images of one step, or the part of them that one process takes.

    rows_b: [b] int64, rows of the index. counters_b: [b] int64, what their augmentation is drawn for: the row, and
    another number for each further time that the row comes within the epoch.
    """

    epoch: int
    rows_b: NDArray[np.int64]
    counters_b: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Order:
    """The order in which a training sees `count` images, `batch_size` at a time.

    labels: [count] int32 for batches that are balanced over the classes, None where each image comes once an epoch.
    process, processes: which consecutive part of each batch is taken, of how many; the whole order is the same for
    any number of processes.
    """

    seed: int
    count: int
    batch_size: int
    labels: NDArray[np.int32] | None = None
    process: int = 0
    processes: int = 1

    @property
    def part_size(self) -> int:
        """Images of a step that this process takes."""
        first, last = bounds(self.batch_size, self.processes)[self.process]
        return last - first

    def step(self, step: int) -> Rows:
        """The images of one step, counted from 0 over the whole training."""
        epoch, within = divmod(step, steps_per_epoch(self.count, self.batch_size))
        order_N = _remembered(self.seed, epoch, self.count)
        rows_B = order_N[within * self.batch_size : (within + 1) * self.batch_size]
        first, last = bounds(self.batch_size, self.processes)[self.process]
        rows_b = rows_B[first:last].copy()
        return Rows(epoch, rows_b, rows_b)


def bounds(count: int, pieces: int) -> list[tuple[int, int]]:
    """Where `count` images are cut into consecutive pieces of about one size: [(first, after last)], `pieces` of them.

    Neighbours 0 and 1, 2 and 3, … stay together where there are enough for it, as MixUp and CutMix pair them.
    """
    unit = 2 if count >= 2 * pieces else 1
    units = -(-count // unit)
    edges = [min(count, unit * (units * piece // pieces)) for piece in range(pieces + 1)]
    return list(itertools.pairwise(edges))


def epoch_order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """The order of one epoch: a permutation of 0..count-1, a pure function of (seed, epoch). Returns [count] int64."""
    return machine.permutation(seed, "order", epoch, count)


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Batches in an epoch, without the short last one.

    Raises UserError when the images do not fill one batch.
    """
    if batch_size < 1:
        raise UserError(f"--batch-size {batch_size}: expected at least 1.")
    if count < batch_size:
        raise UserError(f"--batch-size {batch_size}: there are only {count} training images. Use {max(count, 1)} or less.")
    return count // batch_size


@functools.lru_cache(maxsize=2)  # the look-ahead of the loader stands in two epochs at most
def _remembered(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    return epoch_order(seed, epoch, count)

"""Which images make up a training batch: arithmetic on (seed, step), so a resume needs no state of the loader.

A last batch that would be short is dropped; its images come again in the next epoch's other order.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from striate import machine
from striate.errors import UserError


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


def batch_indices(seed: int, step: int, count: int, batch_size: int) -> tuple[int, NDArray[np.int64]]:
    """The images of one step, counted from 0 over the whole training: (epoch, [batch_size] int64)."""
    epoch, within = divmod(step, steps_per_epoch(count, batch_size))
    order_N = _remembered(seed, epoch, count)
    return epoch, order_N[within * batch_size : (within + 1) * batch_size].copy()


@functools.lru_cache(maxsize=2)  # the look-ahead of the loader stands in two epochs at most
def _remembered(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    return epoch_order(seed, epoch, count)

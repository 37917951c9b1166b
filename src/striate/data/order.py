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

# Of the order by blocks. A block of 64 JPEGs of a pack is 1.3 MB in one place, which a disk reads in about the time of a seek.
# A window of 256 blocks is 16,384 images from 256 places: in a set that lies class by class, batches of many classes.
BLOCK_ROWS = 64
WINDOW_BLOCKS = 256


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

    labels: [count] int32, 0 or more, for epochs in which every class comes equally often (to within one image), None
    where each image comes once an epoch.
    process, processes: which consecutive part of each batch is taken, of how many; the whole order is the same for
    any number of processes.
    in_blocks: whether neighbours on disk stay near each other, see `block_order`; not together with labels.
    is_bootstrap: whether the images of all epochs are a `bootstrap` sample; not together with labels or in_blocks.
    """

    seed: int
    count: int
    batch_size: int
    labels: NDArray[np.int32] | None = None
    process: int = 0
    processes: int = 1
    in_blocks: bool = False
    is_bootstrap: bool = False

    @property
    def part_size(self) -> int:
        """Images of a step that this process takes."""
        first, last = bounds(self.batch_size, self.processes)[self.process]
        return last - first

    def step(self, step: int) -> Rows:
        """The images of one step, counted from 0 over the whole training."""
        epoch, within = divmod(step, steps_per_epoch(self.count, self.batch_size))
        if self.is_bootstrap:
            order_N, counters_N = _remembered_bootstrap(self.seed, epoch, self.count)
        elif self.labels is None:
            order_N = counters_N = _remembered(self.seed, epoch, self.count, self.in_blocks)
        else:
            order_N, counters_N = _remembered_balance(self, epoch)
        first, last = bounds(self.batch_size, self.processes)[self.process]
        part = slice(within * self.batch_size + first, within * self.batch_size + last)
        return Rows(epoch, order_N[part].copy(), counters_N[part].copy())


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


def block_order(
    seed: int, epoch: int, count: int, block_rows: int = BLOCK_ROWS, window_blocks: int = WINDOW_BLOCKS
) -> NDArray[np.int64]:
    """An order for sets larger than memory on slow disks: every image once, and what is read at a time lies in few places.

    Blocks of consecutive rows come in random order, and the images of each `window_blocks` of them are shuffled together.
    Returns [count] int64, a pure function of its arguments.
    """
    starts = machine.permutation(seed, "blocks", epoch, -(-count // block_rows)) * block_rows
    row_N = (starts[:, None] + np.arange(block_rows)).ravel()
    row_N = row_N[row_N < count]  # one block, wherever it comes, is a short one
    window_N = np.arange(count) // (block_rows * window_blocks)
    word_N = machine.bits(seed, "within windows", epoch, np.arange(count), 1)[:, 0]
    order_N: NDArray[np.int64] = row_N[np.lexsort((word_N, window_N))]
    return order_N


def balanced_order(seed: int, epoch: int, labels_N: NDArray[np.int32], length: int) -> NDArray[np.int64]:
    """The order of one epoch of `length` images in which every class comes equally often, to within one image.

    Of a class with too few images all are used before one comes again, each time in another order. One with more than
    it takes is dealt out over the epochs that it lasts for, and then shuffled; a remainder that fills no epoch is left
    over, as a short last batch is. Classes without images take no part. Returns [length] int64, rows of the index, a
    pure function of its arguments.
    """
    present_K, class_N, size_K = np.unique(labels_N, return_inverse=True, return_counts=True)
    classes, count = len(present_K), len(labels_N)
    most = -(-length // classes)
    # The shares are whole numbers and differ by one; over the epochs, each class has the larger one equally often.
    turn_K = machine.permutation(seed, "class turns", 0, classes)
    share_K = ((epoch + 1) * length + turn_K) // classes - (epoch * length + turn_K) // classes
    copies_K = -(-most // size_K)
    lasts_K = np.maximum(1, size_K // most)
    # Every image as often as an epoch may need it, by class, then copy, then at random.
    row_M = np.repeat(np.arange(count), copies_K[class_N])
    class_M = class_N[row_M]
    copy_M = np.arange(len(row_M)) - np.repeat(np.cumsum(copies_K[class_N]) - copies_K[class_N], copies_K[class_N])
    shuffle_M = epoch // lasts_K[class_M] * copies_K[class_M] + copy_M
    word_M = machine.bits(seed, "class order", 0, row_M + count * shuffle_M, 1)[:, 0]
    row_M = row_M[np.lexsort((word_M, copy_M, class_M))]
    # Of each class's block, the part that is this epoch's.
    block_K = np.cumsum(size_K * copies_K) - size_K * copies_K
    from_K = block_K + epoch % lasts_K * most
    places_N = np.arange(length) + np.repeat(from_K - (np.cumsum(share_K) - share_K), share_K)
    order_N: NDArray[np.int64] = row_M[places_N[machine.permutation(seed, "order", epoch, length)]]
    return order_N


def bootstrap(seed: int, count: int) -> NDArray[np.int64]:
    """A bootstrap sample: `count` rows of 0..count-1 drawn with replacement. Returns [count] int64, a pure function.

    Source: Breiman 1996 (bagging predictors), section 1.
    """
    word_N = machine.bits(seed, "bootstrap", 0, np.arange(count), 1)[:, 0]
    # The upper half of each word, scaled to the count: as even as a draw among 2^32 can be.
    drawn_N: NDArray[np.int64] = ((word_N >> np.uint64(32)) * np.uint64(count) >> np.uint64(32)).astype(np.int64)
    return drawn_N


def _times_before(rows_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """How often each entry came earlier in the list. Returns [N] int64."""
    sorted_N = np.argsort(rows_N, kind="stable")
    _, first_K, size_K = np.unique(rows_N[sorted_N], return_index=True, return_counts=True)
    times_N = np.empty(len(rows_N), dtype=np.int64)
    times_N[sorted_N] = np.arange(len(rows_N)) - np.repeat(first_K, size_K)
    return times_N


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
def _remembered(seed: int, epoch: int, count: int, in_blocks: bool) -> NDArray[np.int64]:
    return block_order(seed, epoch, count) if in_blocks else epoch_order(seed, epoch, count)


@functools.lru_cache(maxsize=2)
def _remembered_bootstrap(seed: int, epoch: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and counters of an epoch over the bootstrap sample, in the order of that epoch."""
    rows_N = bootstrap(seed, count)[epoch_order(seed, epoch, count)]
    return rows_N, rows_N + count * _times_before(rows_N)


@functools.lru_cache(maxsize=2)
def _remembered_balance(order: Order, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and counters of an epoch that is balanced over the classes, without the short last batch."""
    assert order.labels is not None
    length = steps_per_epoch(order.count, order.batch_size) * order.batch_size
    rows_N = balanced_order(order.seed, epoch, order.labels, length)
    return rows_N, rows_N + order.count * _times_before(rows_N)

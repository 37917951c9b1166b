"""The order of training images is arithmetic on (seed, step)."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from striate.data import order
from striate.data.order import Order
from striate.errors import UserError


def test_an_epoch_is_a_permutation_of_its_own() -> None:
    orders = [order.epoch_order(seed, epoch, 100) for seed in (0, 1) for epoch in (0, 1, 2)]
    for order_N in orders:
        assert order_N.dtype == np.int64
        assert sorted(order_N.tolist()) == list(range(100))
    assert len({tuple(order_N.tolist()) for order_N in orders}) == 6
    np.testing.assert_array_equal(order.epoch_order(1, 2, 100), orders[5])


def test_steps_cut_the_epochs_and_drop_the_short_last_batch() -> None:
    assert order.steps_per_epoch(23, 5) == 4
    seen = [Order(3, 23, 5).step(step) for step in range(9)]
    assert [rows.epoch for rows in seen] == [0, 0, 0, 0, 1, 1, 1, 1, 2]
    np.testing.assert_array_equal(np.concatenate([rows.rows_b for rows in seen[:4]]), order.epoch_order(3, 0, 23)[:20])
    np.testing.assert_array_equal(seen[5].rows_b, order.epoch_order(3, 1, 23)[5:10])


def test_p03_any_step_can_be_asked_for_first() -> None:
    rows = Order(3, 23, 5).step(1_000_003)
    assert rows.epoch == 250_000
    np.testing.assert_array_equal(rows.rows_b, order.epoch_order(3, 250_000, 23)[15:20])


def test_what_is_given_out_may_be_changed() -> None:
    rows = Order(0, 10, 5).step(0).rows_b
    expected = rows.copy()
    rows[:] = 0
    np.testing.assert_array_equal(Order(0, 10, 5).step(0).rows_b, expected)


@pytest.mark.parametrize(
    ("count", "block_rows", "window_blocks"), [(1, 4, 2), (3, 4, 2), (100, 4, 5), (103, 8, 3), (50_000, 64, 256)]
)
def test_blocks_bring_every_image_once(count: int, block_rows: int, window_blocks: int) -> None:
    order_N = order.block_order(3, 2, count, block_rows, window_blocks)
    assert order_N.dtype == np.int64
    np.testing.assert_array_equal(np.sort(order_N), np.arange(count))
    np.testing.assert_array_equal(order.block_order(3, 2, count, block_rows, window_blocks), order_N)
    if count > 3:
        assert (order.block_order(3, 1, count, block_rows, window_blocks) != order_N).any()
        assert (order.block_order(4, 2, count, block_rows, window_blocks) != order_N).any()


def test_a_window_lies_in_few_places_and_is_shuffled() -> None:
    order_N = order.block_order(0, 0, 1024, 8, 16)
    windows_WN = order_N.reshape(8, 128)
    blocks = [sorted(set((window // 8).tolist())) for window in windows_WN]
    assert all(len(block) == 16 for block in blocks)
    assert sorted(itertools.chain(*blocks)) == list(range(128))
    assert all(np.ptp(block) > 32 for block in blocks)  # from all over the set
    neighbours = np.abs(np.diff(order_N)) == 1
    assert neighbours.mean() < 0.05


def test_p03_steps_by_blocks_are_arithmetic_too() -> None:
    blocks = Order(3, 1000, 7, in_blocks=True)
    assert blocks.step(1_000_003).epoch == 1_000_003 // 142
    whole = np.concatenate([blocks.step(step).rows_b for step in range(142)])
    np.testing.assert_array_equal(whole, order.block_order(3, 0, 1000)[: 142 * 7])
    np.testing.assert_array_equal(blocks.step(5).counters_b, blocks.step(5).rows_b)
    for step in (0, 141, 142, 300):
        parts = [Order(3, 1000, 7, None, process, 3, True).step(step).rows_b for process in range(3)]
        np.testing.assert_array_equal(np.concatenate(parts), blocks.step(step).rows_b)


def test_every_place_is_equally_likely() -> None:
    first = np.array([order.epoch_order(0, epoch, 8)[0] for epoch in range(4000)])
    counts = np.bincount(first, minlength=8)
    assert ((counts - 500) ** 2 / 500).sum() < 24.3  # chi-square, 7 degrees of freedom, p = 0.001


def test_too_few_images_for_a_batch() -> None:
    with pytest.raises(UserError, match="Use 3 or less"):
        order.steps_per_epoch(3, 4)
    with pytest.raises(UserError, match="at least 1"):
        Order(0, 3, 0).step(0)


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_p04_the_whole_order_is_the_same_for_any_number_of_processes(processes: int) -> None:
    alone = Order(7, 50, 8)
    for step in range(20):
        parts = [Order(7, 50, 8, None, process, processes).step(step).rows_b for process in range(processes)]
        assert all(len(part) for part in parts)
        np.testing.assert_array_equal(np.concatenate(parts), alone.step(step).rows_b)


def test_p05_pieces_cover_every_image_once_and_keep_pairs_together() -> None:
    for count in range(1, 40):
        for pieces in range(1, count + 1):
            found = order.bounds(count, pieces)
            assert len(found) == pieces
            assert [place for first, last in found for place in range(first, last)] == list(range(count))
            assert all(last > first for first, last in found)
            if count >= 2 * pieces:
                assert all(first % 2 == 0 for first, _ in found)
    assert order.bounds(8, 3) == [(0, 2), (2, 4), (4, 8)]


# ---------------------------------------------------------------- balanced over the classes

LABELS = np.repeat(np.arange(5, dtype=np.int32), [1, 3, 40, 7, 2])[np.random.default_rng(0).permutation(53)]


def _epoch(balanced: Order, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and counters of all steps of an epoch."""
    steps = order.steps_per_epoch(balanced.count, balanced.batch_size)
    parts = [balanced.step(step) for step in range(epoch * steps, (epoch + 1) * steps)]
    assert {rows.epoch for rows in parts} == {epoch}
    return np.concatenate([rows.rows_b for rows in parts]), np.concatenate([rows.counters_b for rows in parts])


@pytest.mark.parametrize("batch_size", [4, 10, 53])
def test_every_class_comes_equally_often_in_an_epoch_of_the_same_length(batch_size: int) -> None:
    balanced, plain = Order(1, 53, batch_size, LABELS), Order(1, 53, batch_size)
    total_K = np.zeros(5, dtype=np.int64)
    for epoch in range(15):
        rows_N, _ = _epoch(balanced, epoch)
        assert len(rows_N) == len(_epoch(plain, epoch)[0])
        count_K = np.bincount(LABELS[rows_N], minlength=5)
        assert count_K.max() - count_K.min() <= 1
        total_K += count_K
        assert total_K.max() - total_K.min() <= 1  # the odd ones out take turns


def test_every_image_of_a_class_is_used_before_one_comes_again() -> None:
    for seed in range(20):
        for epoch in range(8):
            rows_N = order.balanced_order(seed, epoch, LABELS, 50)
            for label in range(5):
                times = np.bincount(rows_N, minlength=53)[label == LABELS]
                assert times.max() - times.min() <= 1


def test_a_large_class_is_dealt_out_over_epochs() -> None:
    """40 images, 10 or 11 of 53 an epoch: three epochs share no image, and nobody is left out for ever."""
    large = np.flatnonzero(LABELS == 2)
    seen = [set(order.balanced_order(0, epoch, LABELS, 53)) & set(large) for epoch in range(60)]
    for first in range(0, 60, 3):
        assert len(seen[first] | seen[first + 1] | seen[first + 2]) == sum(map(len, seen[first : first + 3]))
    times = np.bincount([row for rows in seen for row in rows], minlength=53)[large]
    assert times.min() >= 10
    assert len({frozenset(rows) for rows in seen}) == 60


def test_with_equal_classes_each_image_comes_once_an_epoch() -> None:
    labels_N = np.tile(np.arange(6, dtype=np.int32), 8)
    for epoch in range(3):
        rows_N, counters_N = _epoch(Order(0, 48, 16, labels_N), epoch)
        assert sorted(rows_N.tolist()) == list(range(48))
        np.testing.assert_array_equal(counters_N, rows_N)


def test_a_repeated_image_has_another_counter_each_time() -> None:
    rows_N, counters_N = _epoch(Order(2, 53, 10, LABELS), 4)
    came: dict[int, int] = {}
    for row, counter in zip(rows_N.tolist(), counters_N.tolist(), strict=True):
        assert counter == row + 53 * came.get(row, 0)
        came[row] = came.get(row, 0) + 1
    assert max(came.values()) == 10  # the class of one image, in 50 places for five classes
    assert len(set(counters_N.tolist())) == 50


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_p04_a_balanced_order_is_the_same_for_any_number_of_processes(processes: int) -> None:
    alone = Order(7, 53, 8, LABELS)
    for step in range(15):
        parts = [Order(7, 53, 8, LABELS, process, processes).step(step) for process in range(processes)]
        np.testing.assert_array_equal(np.concatenate([part.rows_b for part in parts]), alone.step(step).rows_b)
        np.testing.assert_array_equal(np.concatenate([part.counters_b for part in parts]), alone.step(step).counters_b)


def test_a_balanced_epoch_is_a_pure_function_of_seed_and_epoch() -> None:
    orders = [tuple(order.balanced_order(seed, epoch, LABELS, 50)) for seed in (0, 1) for epoch in (0, 1, 1000)]
    assert len(set(orders)) == 6
    assert tuple(order.balanced_order(1, 1000, LABELS.copy(), 50)) == orders[5]
    rows = Order(1, 53, 10, LABELS).step(5002)
    assert rows.epoch == 1000
    assert tuple(rows.rows_b) == orders[5][20:30]


def test_classes_without_images_and_epochs_shorter_than_the_classes() -> None:
    gaps_N = np.array([3, 3, 9, 9, 9, 4], dtype=np.int32)
    assert np.bincount(gaps_N[order.balanced_order(0, 0, gaps_N, 6)]).tolist() == [0, 0, 0, 2, 2, 0, 0, 0, 0, 2]
    seen = {int(gaps_N[order.balanced_order(0, epoch, gaps_N, 1)[0]]) for epoch in range(3)}
    assert seen == {3, 4, 9}


# ---------------------------------------------------------------- bootstrap samples


def test_a_bootstrap_sample_is_drawn_once_and_evenly() -> None:
    drawn = order.bootstrap(5, 20_000)
    np.testing.assert_array_equal(drawn, order.bootstrap(5, 20_000))
    assert drawn.min() >= 0 and drawn.max() < 20_000
    assert not np.array_equal(drawn, order.bootstrap(6, 20_000))
    times = np.bincount(np.bincount(drawn, minlength=20_000), minlength=6)[:6] / 20_000
    poisson = np.exp(-1) / np.array([1, 1, 2, 6, 24, 120])
    np.testing.assert_allclose(times, poisson, atol=0.01)


def test_every_epoch_goes_over_the_same_sample_in_its_own_order() -> None:
    one = Order(3, 50, 10, is_bootstrap=True)
    epochs = [np.concatenate([one.step(5 * epoch + step).rows_b for step in range(5)]) for epoch in (0, 1)]
    assert sorted(epochs[0].tolist()) == sorted(epochs[1].tolist()) == sorted(order.bootstrap(3, 50).tolist())
    assert epochs[0].tolist() != epochs[1].tolist()


def test_an_image_that_comes_twice_is_augmented_otherwise() -> None:
    rows = [Order(3, 50, 10, is_bootstrap=True).step(step) for step in range(5)]
    counters = np.concatenate([one.counters_b for one in rows])
    assert len(set(counters.tolist())) == 50
    np.testing.assert_array_equal(counters % 50, np.concatenate([one.rows_b for one in rows]))


def test_processes_share_a_bootstrap_sample() -> None:
    whole = Order(3, 50, 10, is_bootstrap=True).step(7).rows_b
    parts = [Order(3, 50, 10, None, rank, 2, is_bootstrap=True).step(7).rows_b for rank in (0, 1)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)

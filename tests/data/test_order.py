"""The order of training images is arithmetic on (seed, step)."""

from __future__ import annotations

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

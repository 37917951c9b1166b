"""Boxes that look at no pixel, worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from striate.data.index import Boxes
from striate.errors import DataError, UserError
from striate.localize import baselines
from striate.localize.baselines import Shares

SIDES = np.array([[100, 50], [40, 40], [10, 20]])
# Shares of width and height: (0.5, 0.4), (0.1, 1); (0.75, 0.25); none.
TRUTH = Boxes.of_images(3, np.array([0, 0, 1]), np.array([[0, 0, 50, 20], [90, 0, 100, 50], [0, 0, 30, 10]]))


def test_the_whole_photo() -> None:
    assert baselines.whole(SIDES).tolist() == [[0, 0, 100, 50], [0, 0, 40, 40], [0, 0, 10, 20]]


def test_mean_shares_count_every_box_alike() -> None:
    shares = baselines.mean_shares(TRUTH, SIDES)
    np.testing.assert_allclose([shares.width, shares.height], [(0.5 + 0.1 + 0.75) / 3, (0.4 + 1 + 0.25) / 3])


def test_mean_shares_look_at_the_given_rows_only() -> None:
    assert baselines.mean_shares(TRUTH, SIDES, np.array([False, True, True])) == Shares(0.75, 0.25)


def test_photos_of_unknown_sides_do_not_count() -> None:
    assert baselines.mean_shares(TRUTH, np.array([[0, 0], [40, 40], [10, 20]])) == Shares(0.75, 0.25)


def test_the_centre_box() -> None:
    assert baselines.centre(SIDES, Shares(0.5, 0.2)).tolist() == [[25, 20, 75, 30], [10, 16, 30, 24], [2.5, 8, 7.5, 12]]


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(DataError, match="found none"):
        baselines.mean_shares(TRUTH, SIDES, np.array([False, False, True]))
    with pytest.raises(UserError, match=r"above 0 and at most 1, found 0\.5 and 1\.5"):
        baselines.centre(SIDES, Shares(0.5, 1.5))

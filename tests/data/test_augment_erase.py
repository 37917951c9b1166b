"""Erased rectangles lie within the image, and are filled with noise that depends on one number alone."""

from __future__ import annotations

import numpy as np
import pytest

from striate import machine
from striate.data.augment import erase
from striate.data.augment.erase import Rectangle


def test_noise_is_a_function_of_its_number() -> None:
    first = erase.noise(5, 11, 7)
    assert first.shape == (7, 11, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, erase.noise(5, 11, 7))
    assert (first != erase.noise(6, 11, 7)).mean() > 0.95
    np.testing.assert_array_equal(erase.noise(5, 11, 9)[:7], first)  # bytes row by row, of one stream
    words = machine.bits(0, "erase", 0, np.array([5]), 2)[0]
    expected = [int(words[k // 8]) >> (8 * (k % 8)) & 255 for k in range(12)]
    assert first.reshape(-1)[:12].tolist() == expected
    assert erase.noise(5, 0, 4).shape == (4, 0, 3)


def test_noise_takes_every_level_alike() -> None:
    values = erase.noise(2**53 - 1, 200, 200)
    counts = np.bincount(values.reshape(-1), minlength=256)
    assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 330.5  # 255 degrees of freedom, probability 0.001
    flat = values.reshape(-1, 3).astype(np.float64)
    assert np.abs(np.corrcoef(flat.T) - np.eye(3)).max() < 0.02


def test_fill_writes_the_rectangle_and_nothing_else() -> None:
    image = np.full((9, 9, 3), 50, dtype=np.uint8)
    erase.fill(image, Rectangle(2, 3, 4, 5), (1, 2, 3))
    assert (image[3:8, 2:6] == (1, 2, 3)).all()
    assert (image == 50).sum() == (81 - 20) * 3


@pytest.mark.parametrize(
    ("x", "y", "size", "expected"),
    [
        (5, 5, 4, Rectangle(3, 3, 4, 4)),
        (5, 5, 3, Rectangle(4, 4, 3, 3)),
        (0, 9, 4, Rectangle(0, 7, 2, 3)),
        (9, 0, 1, Rectangle(9, 0, 1, 1)),
        (4, 4, 50, Rectangle(0, 0, 10, 10)),
    ],
)
def test_a_square_is_cut_off_at_the_border(x: int, y: int, size: int, expected: Rectangle) -> None:
    assert erase.square_about(x, y, size, 10) == expected


def test_no_rectangle_where_none_is_smaller_than_the_image() -> None:
    assert erase.random_rectangle(8, (1.0, 1.0), (1.0, 1.0), [0.5] * 22) is None
    assert erase.random_rectangle(1, (0.1, 0.1), (1.0, 1.0), [0.5] * 22) == Rectangle(1, 1, 0, 0)
    # Height over width is 4, the area a quarter of 16 x 16: 4 wide, 16 tall does not fit; with 3.9 it does.
    assert erase.random_rectangle(16, (0.25, 0.25), (4.0, 4.0), [0.0] * 22) is None
    assert erase.random_rectangle(16, (0.2, 0.2), (4.0, 4.0), [0.999] * 22) == Rectangle(12, 2, 4, 14)

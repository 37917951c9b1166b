"""Warps are torchvision's, pixel by pixel; moves are Pillow's crops beyond the edge."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import InterpolationMode, functional

from striate.data.augment import geometry
from striate.data.augment.geometry import Affine

WARPS = [
    Affine(0.0, 0, 0, 0.0),
    Affine(30.0, 0, 0, 0.0),
    Affine(-7.3, 5, -3, 0.0),
    Affine(0.0, 0, 0, 12.5),
    Affine(90.0, 0, 0, 0.0),
    Affine(180.0, 4, 4, -60.0),
    Affine(141.7, -30, 11, 33.3),
    Affine(2.0, 400, 0, 0.0),
]


def noise(width: int, height: int) -> np.ndarray:
    return np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("affine", WARPS)
@pytest.mark.parametrize("side", [32, 45])
def test_a_warp_is_torchvisions_affine(affine: Affine, side: int) -> None:
    image = Image.fromarray(noise(side, side))
    expected = functional.affine(
        image, affine.angle, [affine.right, affine.down], 1.0, [affine.shear, 0.0], InterpolationMode.BILINEAR
    )
    np.testing.assert_array_equal(np.asarray(geometry.warp(image, affine)), np.asarray(expected))


def test_a_shifting_warp_is_a_shift_with_black_behind_it() -> None:
    image_SS3 = noise(20, 20)
    moved = np.asarray(geometry.warp(Image.fromarray(image_SS3), Affine(0.0, 3, -2, 0.0)))
    np.testing.assert_array_equal(moved[:18, 3:], image_SS3[2:, :17])
    assert not moved[:, :3].any()
    assert not moved[18:].any()


def test_a_quarter_turn_is_clockwise() -> None:
    image_SS3 = noise(16, 16)
    turned = np.asarray(geometry.warp(Image.fromarray(image_SS3), Affine(90.0, 0, 0, 0.0)))
    np.testing.assert_allclose(turned, np.rot90(image_SS3, -1), atol=1)  # Pillow rounds its bilinear weights


@pytest.mark.parametrize("shift", [(0, 0), (3, -2), (-5, 0), (40, 1), (0, -20), (19, 19)])
def test_what_moves_leaves_black_behind(shift: tuple[int, int]) -> None:
    image_SS3 = noise(20, 20)
    right, down = shift
    expected = np.asarray(Image.fromarray(image_SS3).crop((-right, -down, 20 - right, 20 - down)))
    geometry.move(image_SS3, right, down)
    np.testing.assert_array_equal(image_SS3, expected)

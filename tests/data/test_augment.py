"""Augmentation is a pure function of uniforms, distributed as torchvision's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from striate.data import augment, views
from striate.data.augment import Augmentation
from striate.errors import UserError
from striate.view import View

RANDOM = Augmentation("random-resized", (0.08, 1.0), (3 / 4, 4 / 3), 0, 0.5, 32, "bilinear", "crop")
SHIFT = Augmentation("shift", (1.0, 1.0), (1.0, 1.0), 4, 0.5, 32, "bilinear", "crop")
PLAIN = Augmentation("resize", (1.0, 1.0), (1.0, 1.0), 0, 0.5, 32, "bilinear", "crop")


def noise(width: int, height: int) -> np.ndarray:
    return np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_t13_streams_differ_by_index_and_epoch_and_seed_and_not_by_batch() -> None:
    rows_BD = augment.draw(0, 0, np.arange(50))
    assert len({tuple(row) for row in rows_BD}) == 50
    assert not np.isin(augment.draw(0, 1, np.arange(50)), rows_BD).any()
    assert not np.isin(augment.draw(1, 0, np.arange(50)), rows_BD).any()
    np.testing.assert_array_equal(augment.draw(0, 0, np.array([49, 7])), rows_BD[[49, 7]])


def test_the_same_uniforms_give_the_same_pixels() -> None:
    image_HW3 = noise(90, 70)
    before = image_HW3.copy()
    for augmentation in (RANDOM, SHIFT, PLAIN):
        for row in augment.draw(0, 0, np.arange(10)):
            first, drawn = augment.apply(image_HW3, augmentation, row)
            second, drawn_again = augment.apply(image_HW3, augmentation, row)
            np.testing.assert_array_equal(first, second)
            assert drawn == drawn_again
            assert first.shape == (32, 32, 3)
            assert first.dtype == np.uint8
    np.testing.assert_array_equal(image_HW3, before)


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_random_resized_pixels_are_torchvisions_for_the_same_box(flip: float) -> None:
    image_HW3 = noise(120, 90)
    for row in augment.draw(0, 0, np.arange(30)):
        ours, drawn = augment.apply(image_HW3, replace(RANDOM, flip=flip), row)
        reference = v2.functional.resized_crop(
            Image.fromarray(image_HW3), drawn.top, drawn.left, drawn.height, drawn.width, [32, 32]
        )
        expected = np.asarray(reference)
        np.testing.assert_array_equal(ours, expected[:, ::-1] if flip else expected)
        assert drawn.flipped == bool(flip)


@pytest.mark.parametrize(("width", "height", "scale"), [(400, 300, (0.08, 1.0)), (64, 64, (0.35, 1.0)), (100, 300, (0.6, 1.0))])
def test_boxes_are_distributed_as_torchvisions(width: int, height: int, scale: tuple[float, float]) -> None:
    augmentation = replace(RANDOM, scale=scale)
    ours = np.array([augment.choose(width, height, augmentation, row)[:4] for row in augment.draw(0, 0, np.arange(2000))])
    torch.manual_seed(0)
    image = torch.empty(3, height, width)
    drawn = [v2.RandomResizedCrop.make_params(v2.RandomResizedCrop(32, scale), [image]) for _ in range(2000)]
    theirs = np.array([[p["left"], p["top"], p["width"], p["height"]] for p in drawn])
    assert (ours[:, 0] + ours[:, 2]).max() <= width
    assert (ours[:, 1] + ours[:, 3]).max() <= height
    assert ours[:, :2].min() >= 0
    for name, a, b in [
        *zip(("left", "top", "width", "height"), ours.T, theirs.T, strict=True),
        ("area", ours[:, 2] * ours[:, 3], theirs[:, 2] * theirs[:, 3]),
        ("ratio", ours[:, 2] / ours[:, 3], theirs[:, 2] / theirs[:, 3]),
    ]:
        # Kolmogorov-Smirnov, two samples of 2,000: 0.0616 is exceeded with probability 0.001.
        grid = np.unique(np.concatenate([a, b]))
        gap = np.abs(np.searchsorted(np.sort(a), grid, "right") - np.searchsorted(np.sort(b), grid, "right")).max() / 2000
        assert gap < 0.0616, f"{name}: {gap}"


def test_the_fallback_is_the_largest_centred_box() -> None:
    # No box of ratio 3/4 or more and the full area fits into 10 x 100.
    drawn = augment.choose(10, 100, replace(RANDOM, scale=(1.0, 1.0)), np.full(augment.DRAWS, 0.5))
    assert drawn[:4] == (0, 43, 10, 13)
    wide = augment.choose(100, 10, replace(RANDOM, scale=(1.0, 1.0)), np.full(augment.DRAWS, 0.5))
    assert wide[:4] == (43, 0, 13, 10)


@pytest.mark.parametrize("side", [1, 2, 3])
def test_tiny_photos_and_extreme_uniforms_stay_inside(side: int) -> None:
    for value in (0.0, 0.5, np.nextafter(1.0, 0.0)):
        for width, height in ((side, 1), (1, side), (side, side)):
            row = np.full(augment.DRAWS, value)
            drawn = augment.choose(width, height, RANDOM, row)
            assert drawn.left + drawn.width <= width
            assert drawn.top + drawn.height <= height
            assert min(drawn.width, drawn.height) >= 1
            assert augment.apply(noise(width, height), RANDOM, row)[0].shape == (32, 32, 3)


def test_flips_come_with_their_probability() -> None:
    rows_BD = augment.draw(0, 0, np.arange(4000))
    for flip in (0.0, 0.3, 1.0):
        augmentation = replace(PLAIN, flip=flip)
        flipped_B = np.array([augment.choose(9, 9, augmentation, row).flipped for row in rows_BD])
        np.testing.assert_array_equal(flipped_B, augment.is_flipped(augmentation, rows_BD))
        assert abs(flipped_B.mean() - flip) < 0.03


def test_mirrored_exchanges_left_and_right() -> None:
    image_HW3 = noise(7, 5)
    np.testing.assert_array_equal(augment.mirrored(image_HW3), image_HW3[:, ::-1])
    batch_BHW3 = np.stack([noise(7, 5), noise(7, 5)[::-1]])
    np.testing.assert_array_equal(augment.mirrored(batch_BHW3), batch_BHW3[:, :, ::-1])
    part_HW3 = noise(20, 20)[3:9, 2:15]
    np.testing.assert_array_equal(augment.mirrored(part_HW3), part_HW3[:, ::-1])


def test_resize_squashes_the_whole_photo() -> None:
    image_HW3 = noise(90, 70)
    pixels, drawn = augment.apply(image_HW3, replace(PLAIN, flip=0.0), augment.draw(0, 0, np.arange(1))[0])
    np.testing.assert_array_equal(pixels, np.asarray(Image.fromarray(image_HW3).resize((32, 32), Image.Resampling.BILINEAR)))
    assert drawn == (0, 0, 90, 70, 0, 0, False)


def test_shift_moves_the_evaluated_view_and_fills_with_black() -> None:
    image_HW3 = noise(90, 70) // 2 + 1  # no black of its own
    view = View(32, "crop", 32, "bilinear", False, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    padded = np.pad(views.apply(image_HW3, view), ((4, 4), (4, 4), (0, 0)))
    places = set()
    for row in augment.draw(0, 0, np.arange(400)):
        pixels, drawn = augment.apply(image_HW3, replace(SHIFT, flip=0.0), row)
        np.testing.assert_array_equal(pixels, padded[4 - drawn.shift_y :, 4 - drawn.shift_x :][:32, :32])
        places.add((drawn.shift_x, drawn.shift_y))
    assert {x for x, _ in places} == {y for _, y in places} == set(range(-4, 5))


def test_a_shift_beyond_the_view_is_black() -> None:
    row = np.zeros(augment.DRAWS)
    assert not augment.apply(noise(32, 32), replace(SHIFT, shift_px=40), row)[0].any()


def test_fields_out_of_range_are_named() -> None:
    for change, word in [
        ({"scale": (0.0, 1.0)}, "scale"),
        ({"scale": (0.5, 1.5)}, "scale"),
        ({"ratio": (2.0, 1.0)}, "ratio"),
        ({"flip": 1.5}, "flip"),
        ({"flip": float("nan")}, "flip"),
        ({"size_px": 0}, "size_px"),
        ({"shift_px": -1}, "shift_px"),
        ({"crop": "zoom"}, "crop"),
    ]:
        with pytest.raises(UserError, match=word):
            replace(RANDOM, **change)

"""One training view is torchvision's operations with the drawn parameters, one after another in the stated order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import InterpolationMode, autoaugment, functional, v2

from striate.data import decode, views
from striate.data.augment import colour, draw, erase
from striate.data.augment.apply import apply
from striate.data.augment.draw import Augmentation, Drawn
from striate.view import View

RANDOM = Augmentation("random-resized", (0.08, 1.0), (3 / 4, 4 / 3), 0, 0.5, 32, "bilinear", "crop")
SQUARE = replace(RANDOM, crop="random", shorter_px=(34, 50))
SHIFT = Augmentation("shift", (1.0, 1.0), (1.0, 1.0), 4, 0.5, 32, "bilinear", "crop")
PLAIN = Augmentation("resize", (1.0, 1.0), (1.0, 1.0), 0, 0.5, 32, "bilinear", "crop")
WARPED = replace(RANDOM, rotate=20.0, translate=0.2, shear=10.0)
COLOURED = replace(RANDOM, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
LIT = replace(SQUARE, lighting=0.5)
OPERATED = replace(SQUARE, policy="randaugment", policy_operations=2, policy_magnitude=14)
TRIVIAL = replace(SHIFT, policy="trivialaugment")
ERASED = replace(PLAIN, erase=0.7, erase_area=(0.02, 0.33), erase_ratio=(0.3, 3.3))
CUT = replace(RANDOM, cutout_px=13, cutout_colour=(124, 116, 104))
EVERYTHING = replace(
    WARPED,
    brightness=0.4,
    contrast=0.4,
    saturation=0.4,
    hue=0.1,
    lighting=0.1,
    policy="randaugment",
    policy_operations=3,
    policy_magnitude=9,
    erase=0.5,
    erase_area=(0.02, 0.33),
    erase_ratio=(0.3, 3.3),
    cutout_px=9,
    cutout_colour=(124, 116, 104),
)
ALL = {
    "random": RANDOM,
    "square": SQUARE,
    "shift": SHIFT,
    "plain": PLAIN,
    "warped": WARPED,
    "coloured": COLOURED,
    "lit": LIT,
    "operated": OPERATED,
    "trivial": TRIVIAL,
    "erased": ERASED,
    "cut": CUT,
    "everything": EVERYTHING,
}


def noise(width: int, height: int) -> np.ndarray:
    return np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def by_torchvision(image_HW3: np.ndarray, one: Drawn, augmentation: Augmentation) -> np.ndarray:
    """The same parameters through torchvision's functions; lighting and erasing as their papers have them."""
    side = augmentation.size_px
    image = functional.crop(Image.fromarray(image_HW3), one.top, one.left, one.height, one.width)
    image = functional.resize(image, [one.resized_height, one.resized_width], InterpolationMode.BILINEAR)
    image = functional.crop(image, one.offset_y, one.offset_x, side, side)
    image = functional.affine(image, 0.0, [one.shift_x, one.shift_y], 1.0, [0.0, 0.0])
    if one.flipped:
        image = functional.hflip(image)
    for name, magnitude in one.operations:
        image = autoaugment._apply_op(image, name, magnitude, InterpolationMode.NEAREST, None)
    if one.affine:
        angle, right, down, shear = one.affine
        image = functional.affine(image, angle, [right, down], 1.0, [shear, 0.0], InterpolationMode.BILINEAR)
    for name, factor in one.colour:
        image = getattr(functional, f"adjust_{name}")(image, factor)
    pixels = np.array(image)
    if one.lighting:
        pixels = np.clip(np.rint(pixels + 255 * np.array(one.lighting)), 0, 255).astype(np.uint8)
    if one.erased:
        left, top, width, height = one.erased
        pixels[top : top + height, left : left + width] = erase.noise(one.noise, width, height)
    if one.cutout:
        left, top, width, height = one.cutout
        pixels[top : top + height, left : left + width] = augmentation.cutout_colour
    return pixels


@pytest.mark.parametrize("name", ALL)
def test_pixels_are_torchvisions_for_the_same_parameters(name: str) -> None:
    augmentation = ALL[name]
    for image_HW3 in (noise(120, 90), noise(32, 32), noise(40, 61)):
        for row in draw.draw(0, 0, np.arange(12)):
            ours, one = apply(image_HW3, augmentation, row)
            np.testing.assert_array_equal(ours, by_torchvision(image_HW3, one, augmentation))


@pytest.mark.parametrize("name", ALL)
def test_real_photos_too(name: str, real_data: Path) -> None:
    augmentation = replace(ALL[name], size_px=96, shorter_px=(96, 128))
    for number, path in enumerate(sorted((real_data / "imagenet-samples").glob("*.JPEG"))[::40]):
        image_HW3 = decode.load(path, False)
        ours, one = apply(image_HW3, augmentation, draw.draw(0, 0, np.array([number]))[0])
        np.testing.assert_array_equal(ours, by_torchvision(image_HW3, one, augmentation))


@pytest.mark.parametrize("name", ALL)
def test_t13_the_same_counters_give_the_same_pixels_and_another_epoch_others(name: str) -> None:
    augmentation, image_HW3 = ALL[name], noise(90, 70)
    before = image_HW3.copy()
    changed = 0
    for counter in range(8):
        row, later = (draw.draw(0, epoch, np.array([counter]))[0] for epoch in (0, 1))
        first, one = apply(image_HW3, augmentation, row)
        second, again = apply(image_HW3, augmentation, row)
        np.testing.assert_array_equal(first, second)
        assert one == again
        assert first.shape == (32, 32, 3)
        assert first.dtype == np.uint8
        changed += not np.array_equal(first, apply(image_HW3, augmentation, later)[0])
    assert changed >= (2 if name == "plain" else 5)
    np.testing.assert_array_equal(image_HW3, before)


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_random_resized_is_torchvisions_resized_crop(flip: float) -> None:
    image_HW3 = noise(120, 90)
    for row in draw.draw(0, 0, np.arange(30)):
        ours, one = apply(image_HW3, replace(RANDOM, flip=flip), row)
        reference = v2.functional.resized_crop(Image.fromarray(image_HW3), one.top, one.left, one.height, one.width, [32, 32])
        expected = np.asarray(reference)
        np.testing.assert_array_equal(ours, expected[:, ::-1] if flip else expected)
        assert one.flipped == bool(flip)


def test_random_is_torchvisions_resize_and_a_square_of_it() -> None:
    image_HW3 = noise(120, 91)
    sizes = set()
    for row in draw.draw(0, 0, np.arange(30)):
        ours, one = apply(image_HW3, replace(SQUARE, flip=0.0), row)
        shorter = min(one.resized_width, one.resized_height)
        resized = v2.Resize(shorter)(Image.fromarray(image_HW3))
        assert resized.size == (one.resized_width, one.resized_height)
        square = resized.crop((one.offset_x, one.offset_y, one.offset_x + 32, one.offset_y + 32))
        np.testing.assert_array_equal(ours, np.asarray(square))
        sizes.add(shorter)
    assert len(sizes) > 8
    assert min(sizes) >= 34
    assert max(sizes) <= 50


def test_resize_squashes_the_whole_photo() -> None:
    image_HW3 = noise(90, 70)
    pixels, one = apply(image_HW3, replace(PLAIN, flip=0.0), draw.draw(0, 0, np.arange(1))[0])
    np.testing.assert_array_equal(pixels, np.asarray(Image.fromarray(image_HW3).resize((32, 32), Image.Resampling.BILINEAR)))
    assert one[:4] == (0, 0, 90, 70)


@pytest.mark.parametrize("fit", ["crop", "squash"])
def test_shift_moves_the_evaluated_view_and_fills_with_black(fit: str) -> None:
    image_HW3 = noise(90, 70) // 2 + 1  # no black of its own
    view = View(32, fit, 32, "bilinear", False, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    padded = np.pad(views.apply(image_HW3, view), ((4, 4), (4, 4), (0, 0)))
    places = set()
    for row in draw.draw(0, 0, np.arange(400)):
        pixels, one = apply(image_HW3, replace(SHIFT, flip=0.0, fit=fit), row)
        np.testing.assert_array_equal(pixels, padded[4 - one.shift_y :, 4 - one.shift_x :][:32, :32])
        places.add((one.shift_x, one.shift_y))
    assert {x for x, _ in places} == {y for _, y in places} == set(range(-4, 5))


def test_a_shift_beyond_the_view_is_black() -> None:
    assert not apply(noise(32, 32), replace(SHIFT, shift_px=40), np.zeros(draw.DRAWS))[0].any()


@pytest.mark.parametrize("name", [name for name in ALL if name not in ("lit", "erased", "cut", "everything")])
def test_grey_photos_stay_grey(name: str) -> None:
    grey_HW3 = np.repeat(noise(90, 70)[:, :, :1], 3, axis=2)
    for row in draw.draw(0, 0, np.arange(15)):
        pixels, _ = apply(grey_HW3, ALL[name], row)
        assert (pixels == pixels[:, :, :1]).all()


def test_lighting_and_noise_colour_a_grey_photo() -> None:
    grey_HW3 = np.repeat(noise(90, 70)[:, :, :1] // 2 + 60, 3, axis=2)
    for augmentation in (LIT, replace(ERASED, erase=1.0)):
        pixels, _ = apply(grey_HW3, augmentation, draw.draw(0, 0, np.arange(1))[0])
        assert not (pixels == pixels[:, :, :1]).all()


def test_lighting_moves_the_whole_view_by_one_colour() -> None:
    flat_HW3 = np.full((50, 50, 3), 120, dtype=np.uint8)
    for row in draw.draw(0, 0, np.arange(20)):
        pixels, one = apply(flat_HW3, LIT, row)
        assert one.lighting is not None
        assert (pixels == pixels[0, 0]).all()
        np.testing.assert_array_equal(pixels[0, 0], 120 + np.rint(255 * np.array(one.lighting)))
    assert len(colour.IMAGENET_AXES) == 9


@pytest.mark.parametrize("side", [1, 2, 3])
def test_tiny_photos_become_views(side: int) -> None:
    for value in (0.0, 0.5, np.nextafter(1.0, 0.0)):
        for width, height in ((side, 1), (1, side), (side, side)):
            for augmentation in (RANDOM, EVERYTHING):
                pixels = apply(noise(width, height), augmentation, np.full(draw.DRAWS, value))[0]
                assert pixels.shape == (32, 32, 3)


def test_a_strip_that_would_become_too_large_is_a_bad_image() -> None:
    with pytest.raises(decode.BadImage, match="too long and thin"):
        apply(noise(1, 3000), replace(SQUARE, size_px=224, shorter_px=(256, 256)), draw.draw(0, 0, np.arange(1))[0])

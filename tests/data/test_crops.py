"""Crops of one photo, against torchvision's on the same Pillow image, and windows worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from PIL import Image
from torchvision import transforms

from striate.data import crops, views
from striate.data.crops import Crop
from striate.data.decode import BadImage, Pixels
from striate.view import View

CORNERS_AND_MIDDLE = ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (0.5, 0.5))
# (height, width): square, landscape and portrait, with even and odd margins.
SHAPES = ((64, 64), (48, 80), (80, 48), (51, 77), (77, 52), (49, 49))


def photo(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def theirs(photo_HW3: Pixels, *steps: Callable[[Image.Image], Image.Image]) -> Pixels:
    image = Image.fromarray(photo_HW3)
    for step in steps:
        image = step(image)
    return np.asarray(image)


# ---------------------------------------------------------------- against torchvision


@pytest.mark.parametrize(("height", "width"), SHAPES)
@pytest.mark.parametrize("size_px", [31, 32])
def test_five_windows_of_the_whole_photo_are_those_of_five_crop(height: int, width: int, size_px: int) -> None:
    image_HW3 = photo(height, width)
    found = crops.cut(image_HW3, [Crop(40, "whole", x, y) for x, y in CORNERS_AND_MIDDLE], size_px, "bilinear")
    resized = transforms.Resize(40)(Image.fromarray(image_HW3))
    expected = [np.asarray(one) for one in transforms.FiveCrop(size_px)(resized)]
    assert np.array_equal(found, np.stack(expected))
    assert (found.shape, found.dtype) == ((5, size_px, size_px, 3), np.uint8)


@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_ten_crops_of_the_middle_square_are_those_of_ten_crop(height: int, width: int) -> None:
    image_HW3 = photo(height, width)
    ten = [Crop(40, "middle", x, y, is_mirrored) for is_mirrored in (False, True) for x, y in CORNERS_AND_MIDDLE]
    square = transforms.CenterCrop(40)(transforms.Resize(40)(Image.fromarray(image_HW3)))
    mirrored = square.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    found = crops.cut(image_HW3, ten, 32, "bilinear")
    assert np.array_equal(found[:5], [np.asarray(one) for one in transforms.FiveCrop(32)(square)])
    assert np.array_equal(found[5:], [np.asarray(one)[:, ::-1] for one in transforms.FiveCrop(32)(square)])
    # TenCrop mirrors the photo before it cuts, so its left corners are our right ones, mirrored.
    of_ten_crop = [np.asarray(one) for one in transforms.TenCrop(32)(square)]
    assert np.array_equal(found[[6, 5, 8, 7, 9]], of_ten_crop[5:])
    assert np.array_equal(of_ten_crop[9], np.asarray(transforms.CenterCrop(32)(mirrored)))


@pytest.mark.parametrize(("height", "width"), SHAPES)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_the_centre_is_the_own_view_and_torchvisions_center_crop(height: int, width: int, interpolation: str) -> None:
    view = View(32, "crop", 37, interpolation, False, (0.5,) * 3, (0.5,) * 3)  # type: ignore[arg-type]
    image_HW3 = photo(height, width)
    (found,) = crops.cut(image_HW3, [crops.centre(view)], 32, view.interpolation)
    assert np.array_equal(found, views.apply(image_HW3, view))
    mode = transforms.InterpolationMode(interpolation)
    assert np.array_equal(found, theirs(image_HW3, transforms.Resize(37, mode), transforms.CenterCrop(32)))


@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_a_squashed_photo_is_resized_once(height: int, width: int) -> None:
    view = View(32, "squash", 32, "bilinear", False, (0.5,) * 3, (0.5,) * 3)
    image_HW3 = photo(height, width)
    plain, mirrored = crops.cut(image_HW3, [Crop(32, "whole", None, None, way) for way in (False, True)], 32, "bilinear")
    assert np.array_equal(plain, views.apply(image_HW3, view))
    assert np.array_equal(plain, theirs(image_HW3, transforms.Resize((32, 32))))
    assert np.array_equal(mirrored, plain[:, ::-1])


# ---------------------------------------------------------------- by hand


@pytest.mark.parametrize(
    ("height", "width", "first", "middle", "last"),
    [
        (4, 4, (slice(0, 4), slice(0, 4)), (slice(0, 4), slice(0, 4)), (slice(0, 4), slice(0, 4))),
        (4, 10, (slice(0, 4), slice(0, 4)), (slice(0, 4), slice(3, 7)), (slice(0, 4), slice(6, 10))),
        (10, 4, (slice(0, 4), slice(0, 4)), (slice(3, 7), slice(0, 4)), (slice(6, 10), slice(0, 4))),
        # A margin of 3 is halved to 1.5, and to the even number beside it; one of 5 to 2.5, and so to 2.
        (4, 7, (slice(0, 4), slice(0, 4)), (slice(0, 4), slice(2, 6)), (slice(0, 4), slice(3, 7))),
        (9, 4, (slice(0, 4), slice(0, 4)), (slice(2, 6), slice(0, 4)), (slice(5, 9), slice(0, 4))),
    ],
)
def test_squares_of_a_photo(height: int, width: int, first: object, middle: object, last: object) -> None:
    image_HW3 = photo(height, width)
    found = crops.cut(image_HW3, [Crop(4, square) for square in ("first", "middle", "last")], 4, "bilinear")
    assert np.array_equal(found, np.stack([image_HW3[part] for part in (first, middle, last)]))


def test_the_144_windows_of_a_photo_of_300_by_400() -> None:
    """Four sizes: 256 x 341, 288 x 384, 320 x 426, 352 x 469; of each three squares; of each four corners, the middle, itself."""
    image_HW3 = photo(300, 400)
    squares = ("first", "middle", "last")
    places = (*CORNERS_AND_MIDDLE, (None, None))
    sides = (256, 288, 320, 352)
    all_crops = [Crop(px, square, x, y, way) for way in (False, True) for px, square, (x, y) in product(sides, squares, places)]
    found = crops.cut(image_HW3, all_crops, 224, "bilinear")
    assert found.shape == (144, 224, 224, 3)
    # Height, width, where the squares begin (the middle ones at 85 / 2, 96 / 2, 106 / 2 and 117 / 2, to the even number).
    by_hand = {256: (341, (0, 42, 85)), 288: (384, (0, 48, 96)), 320: (426, (0, 53, 106)), 352: (469, (0, 58, 117))}
    number = 0
    for px, (width, lefts) in by_hand.items():
        resized = Image.fromarray(image_HW3).resize((width, px), Image.Resampling.BILINEAR)
        for left in lefts:
            square = resized.crop((left, 0, left + px, px))
            spare = px - 224
            for x, y in ((0, 0), (spare, 0), (0, spare), (spare, spare), (spare // 2, spare // 2)):
                assert np.array_equal(found[number], np.asarray(square.crop((x, y, x + 224, y + 224)))), (px, left, x, y)
                number += 1
            assert np.array_equal(found[number], np.asarray(square.resize((224, 224), Image.Resampling.BILINEAR))), (px, left)
            number += 1
    assert number == 72
    assert np.array_equal(found[72:], found[:72, :, ::-1])


# ---------------------------------------------------------------- work and limits


def test_each_size_is_resized_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[int, int]] = []
    original = views.resize

    def counted(image_HW3: Pixels, width: int, height: int, interpolation: str) -> Pixels:
        made.append((width, height))
        return original(image_HW3, width, height, interpolation)  # type: ignore[arg-type]

    monkeypatch.setattr(views, "resize", counted)
    crops.cut(photo(60, 90), [Crop(px, "middle", x, y) for px in (40, 50) for x, y in CORNERS_AND_MIDDLE], 32, "bilinear")
    assert made == [(60, 40), (75, 50)]


def test_no_crops_are_an_empty_array() -> None:
    assert crops.cut(photo(8, 8), [], 4, "bilinear").shape == (0, 4, 4, 3)


def test_the_photo_is_not_written_to() -> None:
    image_HW3 = photo(32, 32)
    before = image_HW3.copy()
    image_HW3.flags.writeable = False
    found = crops.cut(image_HW3, [Crop(32), Crop(32, is_mirrored=True)], 32, "bilinear")
    found[:] = 0
    assert np.array_equal(image_HW3, before)


def test_a_long_thin_photo_is_bad_where_it_would_be_enlarged() -> None:
    with pytest.raises(BadImage, match=r"too long and thin: resizing 1000 x 1 pixels to 256000 x 256"):
        crops.cut(photo(1, 1000), [Crop(256)], 224, "bilinear")
    assert crops.at_shorter_side(photo(2, 1000), 4, "bilinear").shape == (4, 2000, 3)

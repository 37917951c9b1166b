"""Pixels of a View are torchvision's on PIL images, bit for bit; long thin photos do not fill the memory."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from striate.data import decode, views
from striate.data.decode import BadImage
from striate.view import Interpolation, View

NONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
SIZES = [(500, 375), (375, 500), (256, 256), (300, 256), (256, 301), (64, 64), (97, 31), (20, 400), (1, 3), (640, 479)]


def noise(width: int, height: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest", "lanczos"])
@pytest.mark.parametrize(("resize_px", "size_px"), [(256, 224), (64, 64), (73, 64)])
def test_crop_is_torchvisions_resize_and_centre_crop(interpolation: Interpolation, resize_px: int, size_px: int) -> None:
    view = View(size_px, "crop", resize_px, interpolation, False, *NONE)
    reference = v2.Compose([v2.Resize(resize_px, InterpolationMode(interpolation)), v2.CenterCrop(size_px)])
    for width, height in SIZES:
        image_HW3 = noise(width, height)
        ours = views.apply(image_HW3, view)
        assert ours.flags.c_contiguous
        np.testing.assert_array_equal(ours, np.asarray(reference(Image.fromarray(image_HW3))), err_msg=f"{width} x {height}")


def test_squash_is_torchvisions_resize_to_two_sides() -> None:
    view = View(48, "squash", 48, "bilinear", False, *NONE)
    for width, height in SIZES:
        image_HW3 = noise(width, height)
        reference = v2.Resize((48, 48), InterpolationMode.BILINEAR)(Image.fromarray(image_HW3))
        np.testing.assert_array_equal(views.apply(image_HW3, view), np.asarray(reference))


def test_nothing_to_do_is_nothing_done() -> None:
    image_HW3 = noise(64, 64)
    assert np.shares_memory(views.apply(image_HW3, View(64, "crop", 64, "bilinear", False, *NONE)), image_HW3)
    assert views.shrink(image_HW3, 0) is image_HW3
    assert views.shrink(image_HW3, 64) is image_HW3
    assert views.shrink(image_HW3, 100) is image_HW3


def test_a_part_of_a_wider_image_is_resized_rightly() -> None:
    whole_HW3 = noise(100, 80)
    part_HW3 = whole_HW3[10:60, 20:90]
    np.testing.assert_array_equal(views.resize(part_HW3, 32, 32, "bilinear"), views.resize(part_HW3.copy(), 32, 32, "bilinear"))


def test_shrink_keeps_the_aspect() -> None:
    assert views.shrink(noise(400, 300), 150).shape == (150, 200, 3)
    assert views.shrink(noise(300, 401), 150).shape == (200, 150, 3)
    for width, height in SIZES:
        shrunk_HW3 = views.shrink(noise(width, height), 50)
        assert shrunk_HW3.shape[1::-1] == views.shrunk_sides(width, height, 50)


@pytest.mark.parametrize(("width", "height"), [(1, 1000), (1000, 1), (2, 30_000)])
def test_d11_a_strip_is_refused_before_it_is_resized(width: int, height: int) -> None:
    image_HW3 = noise(width, height)
    begin = time.monotonic()
    with pytest.raises(BadImage, match="long and thin"):
        views.apply(image_HW3, View(224, "crop", 256, "bilinear", False, *NONE))
    assert time.monotonic() - begin < 0.5


def test_d11_the_half_way_image_counts_too() -> None:
    strip_HW3 = np.zeros((200_000, 1, 3), dtype=np.uint8)  # 224 x 200,000 between Pillow's two passes
    with pytest.raises(BadImage, match="long and thin"):
        views.apply(strip_HW3, View(224, "squash", 224, "bilinear", False, *NONE))


def test_a_large_photo_may_be_shrunk_a_little() -> None:
    assert views.shrink(np.zeros((5000, 6000, 3), dtype=np.uint8), 4500).shape == (4500, 5400, 3)


def test_real_photographs(real_data: Path) -> None:
    view = View(224, "crop", 256, "bicubic", False, *NONE)
    reference = v2.Compose([v2.Resize(256, InterpolationMode.BICUBIC), v2.CenterCrop(224)])
    for path in sorted((real_data / "imagenet-samples").rglob("*.JPEG"))[::20]:
        with Image.open(path) as image:
            expected = np.asarray(reference(image.convert("RGB")))
        np.testing.assert_array_equal(views.apply(decode.load(path, exif=False), view), expected)


# ---------------------------------------------------------------- grey


def test_d7_grey_is_told_by_pixels() -> None:
    shade_BHW1 = noise(40, 30)[None, :, :, :1]
    grey = np.repeat(shade_BHW1, 3, axis=3)
    colour, spot, tinted = noise(40, 30, 1)[None], grey.copy(), grey.copy()
    tinted[..., 0] = np.minimum(grey[..., 0], 247) + 8
    spot[0, 29, 39] = (10, 17, 10)
    barely = grey.copy()
    barely[0, 29, 39] = (10, 16, 10)
    together = np.concatenate([grey, colour, spot, barely, tinted])
    assert views.is_grey(together).tolist() == [True, False, False, True, False]
    assert views.is_grey(together[:0]).tolist() == []


@pytest.mark.parametrize("quality", [50, 75, 90, 95, 100])
@pytest.mark.parametrize("subsampling", [0, 2])
def test_d7_a_grey_photo_in_a_colour_jpeg_is_grey_and_a_tinted_one_is_not(tmp_path: Path, quality: int, subsampling: int) -> None:
    smooth = Image.fromarray(noise(12, 9)[:, :, 0]).resize((300, 200), Image.Resampling.BICUBIC)
    warm = Image.merge("RGB", (smooth.point(lambda level: min(255, level + 20)), smooth, smooth))
    view = View(128, "crop", 146, "bilinear", False, *NONE)
    found = []
    for photo in (smooth.convert("RGB"), smooth, warm):
        photo.save(tmp_path / "x.jpg", quality=quality, **({} if photo.mode == "L" else {"subsampling": subsampling}))
        found.append(bool(views.is_grey(views.apply(decode.load(tmp_path / "x.jpg", False), view)[None])[0]))
    assert found == [True, True, False]


_GREY_SAMPLES = [
    "n02692877_airship",
    "n03532672_hook",
    "n03908714_pencil_sharpener",
    "n04254680_soccer_ball",
    "n04487394_trombone",
]


def test_d7_grey_photos_of_real_sets(real_data: Path) -> None:
    """3 of the 200 samples are files of one channel; two more, colour JPEGs, show no colour to the eye."""
    view = View(224, "crop", 256, "bilinear", False, *NONE)
    files = sorted((real_data / "imagenet-samples").rglob("*.JPEG"))
    grey = [file.name for file in files if views.is_grey(views.apply(decode.load(file, False), view)[None])[0]]
    assert len(files) == 200
    assert grey == [f"{name}.JPEG" for name in _GREY_SAMPLES]

"""Likeness: copies are near whatever was done to them, others are far, and the pixels decide."""

from __future__ import annotations

import io
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from striate.data import decode
from striate.data.audit import likeness


def blurred_noise(seed: int, height: int = 375, width: int = 500) -> Image.Image:
    """A picture with large and small structure, another for each seed."""
    random = np.random.default_rng(seed)
    layers = [
        np.asarray(
            Image.fromarray(random.integers(0, 256, (side, side, 3), dtype=np.uint8)).resize((width, height), Image.BICUBIC),
            float,
        )
        for side in (4, 9, 20, 60)
    ]
    return Image.fromarray((0.4 * layers[0] + 0.25 * layers[1] + 0.2 * layers[2] + 0.15 * layers[3]).astype(np.uint8))


def bits_apart(a: Image.Image, b: Image.Image) -> int:
    return (likeness.likeness(np.asarray(a)) ^ likeness.likeness(np.asarray(b))).bit_count()


def saved(picture: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(io.BytesIO(file.getvalue())).convert("RGB")


def copies(picture: Image.Image) -> dict[str, Image.Image]:
    width, height = picture.size
    return {
        "quality 20": saved(picture, 20),
        "a quarter": picture.resize((width // 4, height // 4), Image.BOX),
        "64 x 64": picture.resize((64, 64), Image.BICUBIC),
        "twice": picture.resize((2 * width, 2 * height), Image.BILINEAR),
        "brighter": ImageEnhance.Brightness(picture).enhance(1.15),
        "contrast": ImageEnhance.Contrast(picture).enhance(1.2),
        "grey": picture.convert("L").convert("RGB"),
    }


def test_bits_are_the_signs_of_a_cosine_transform_written_out() -> None:
    grey_HW = np.asarray(blurred_noise(1, 60, 80).convert("L"), dtype=np.float64)
    image_HW3 = np.repeat(grey_HW[:, :, None].astype(np.uint8), 3, axis=2)
    frequencies = sorted(((y, x) for y in range(11) for x in range(11)), key=lambda pair: (sum(pair), pair))[1:65]
    wanted = 0
    for y, x in frequencies:
        down = np.cos(np.pi * y * (np.arange(60) + 0.5) / 60)
        across = np.cos(np.pi * x * (np.arange(80) + 0.5) / 80)
        wanted = wanted << 1 | int((grey_HW * down[:, None] * across[None]).sum() > 0)
    assert likeness.likeness(image_HW3) == wanted


def test_many_at_once_are_as_one_by_one() -> None:
    sides = [(60, 80), (375, 500), (60, 80), (131, 97), (500, 375), (96, 96), (1, 1)]
    images = [np.asarray(blurred_noise(seed, *side)) for seed, side in enumerate(sides)]
    found_M = likeness.likenesses([likeness.sampled(image_HW3) for image_HW3 in images], sides)
    assert found_M.tolist() == [likeness.likeness(image_HW3) for image_HW3 in images]
    assert len(set(found_M.tolist())) == len(sides)
    assert likeness.likenesses([], []).shape == (0,)


def test_copies_are_near_and_others_far() -> None:
    pictures = [blurred_noise(seed) for seed in range(8)]
    for picture in pictures:
        for name, copy in copies(picture).items():
            assert bits_apart(picture, copy) <= likeness.RADIUS, name
    others = [bits_apart(a, b) for at, a in enumerate(pictures) for b in pictures[:at]]
    assert min(others) > likeness.RADIUS
    assert 26 < np.mean(others) < 38


def test_the_pixels_keep_copies_and_nothing_else() -> None:
    smalls, others = [], []
    for seed in range(6):
        picture = blurred_noise(seed)
        smalls.append(likeness.small(np.asarray(picture)))
        of_copies = np.stack([likeness.small(np.asarray(copy)) for copy in copies(picture).values()])
        assert likeness.are_copies(np.repeat(smalls[-1][None], len(of_copies), axis=0), of_copies).all()
        others.append(likeness.small(np.asarray(blurred_noise(100 + seed))))
    assert not likeness.are_copies(np.stack(smalls), np.stack(others)).any()


def test_the_same_frame_or_backdrop_is_no_copy() -> None:
    """Two things on one backdrop: near as a whole, and the detail tells them apart."""
    sky_HW3 = np.repeat(np.linspace(230, 60, 200)[:, None, None], 3, axis=2) * np.ones((1, 200, 1))
    first, second = sky_HW3.astype(np.uint8), sky_HW3.astype(np.uint8)
    first[120:150, 60:90], second[120:150, 110:130] = (90, 20, 20), (20, 20, 90)
    assert not likeness.are_copies(likeness.small(first)[None], likeness.small(second)[None])[0]


def test_the_same_frame_around_other_pictures_is_no_copy() -> None:
    """Instant photos: the detail agrees, for it is the frame's edge, and the whole tells them apart."""
    ramp_HW3 = np.repeat(np.linspace(0, 120, 200)[None, :, None], 3, axis=2) * np.ones((200, 1, 1))
    framed = np.full((2, 224, 224, 3), 255, dtype=np.uint8)
    framed[0, 12:212, 12:212], framed[1, 12:212, 12:212] = ramp_HW3, ramp_HW3[:, ::-1]
    first, second = (likeness.small(image_HW3)[None] for image_HW3 in framed)
    (_, detail_a), (_, detail_b) = likeness._described(first), likeness._described(second)
    assert (detail_a * detail_b).sum() > likeness._LEAST_DETAIL
    assert not likeness.are_copies(first, second)[0]


@pytest.mark.parametrize(("share", "is_copy"), [(0.3, True), (0.75, False)])
def test_how_much_of_the_whole_must_agree(share: float, is_copy: bool) -> None:
    """Equal detail over another backdrop, whose share is the angle that the whole is turned by: 0.9 lies between."""
    random = np.random.default_rng(0)
    slope_HW = np.linspace(-1, 1, 32)[:, None] * np.ones((1, 32))
    detail_HW = random.choice([-1.0, 1.0], (32, 32)) * 0.25
    first = (128 + 60 * (slope_HW + detail_HW)).astype(np.uint8)
    second = (128 + 60 * (np.cos(share) * slope_HW + np.sin(share) * slope_HW.T + detail_HW)).astype(np.uint8)
    (whole_a, detail_a), (whole_b, detail_b) = likeness._described(first[None]), likeness._described(second[None])
    assert (detail_a * detail_b).sum() > 0.9
    assert 0.7 < (whole_a * whole_b).sum() < 0.99
    assert bool(likeness.are_copies(first[None], second[None])[0]) is is_copy


@pytest.mark.parametrize("level", [0, 17, 255])
def test_a_plain_picture_has_no_likeness(level: int) -> None:
    image_HW3 = np.full((50, 70, 3), level, dtype=np.uint8)
    assert likeness.likeness(image_HW3) == likeness.PLAIN
    black = likeness.small(image_HW3)[None]
    assert not likeness.are_copies(black, black)[0]


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 300), (300, 1), (3, 2), (97, 96)])
def test_any_size_has_an_answer(height: int, width: int) -> None:
    image_HW3 = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    assert 0 <= likeness.likeness(image_HW3) < 2**64
    assert likeness.small(image_HW3).shape == (32, 32)


def test_brightness_alone_changes_nothing_where_samples_lie_unevenly() -> None:
    """131 rows give 96 samples that are not evenly spread; a cosine with a mean there would take brightness for shape."""
    picture = np.asarray(blurred_noise(3, 131, 131)) // 2
    assert (likeness.likeness(picture) ^ likeness.likeness(picture + np.uint8(100))).bit_count() <= 1


def test_it_costs_a_small_part_of_decoding() -> None:
    file = io.BytesIO()
    blurred_noise(0).save(file, "JPEG", quality=90)
    data = file.getvalue()
    image_HW3 = decode.decode(data, exif=False)
    times = {"decode": [0.0], "likeness": [0.0]}
    for _ in range(20):
        for name, work in (
            ("decode", lambda: decode.decode(data, exif=False)),
            ("likeness", lambda: likeness.likenesses([likeness.sampled(image_HW3)] * 8, [image_HW3.shape[:2]] * 8)),
        ):
            began = time.process_time()
            work()
            times[name].append(time.process_time() - began)
    assert min(times["likeness"][1:]) / 8 < 0.3 * min(times["decode"][1:])


def test_real_photos_and_their_copies(real_data: Path) -> None:
    pictures = [
        Image.fromarray(decode.load(path, exif=False)) for path in sorted((real_data / "imagenet-samples").glob("*"))[::20]
    ]
    apart = [bits_apart(picture, copy) for picture in pictures for copy in copies(picture).values()]
    assert np.mean(np.asarray(apart) <= likeness.RADIUS) > 0.98

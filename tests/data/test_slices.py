"""Windows of JPEGs with restart markers against the same part of the whole decoded image."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from striate.data import decode
from striate.data.decode import BadImage, Pixels
from striate.data.pack import slices


def _photo(width: int, height: int, seed: int = 0) -> Pixels:
    """Soft shapes with noise: neighbouring pixels differ, so that a wrong place or a missing neighbour shows."""
    random_part = np.random.default_rng(seed).integers(0, 30, (height, width, 3))
    ramp = np.add.outer(np.arange(height) * 3, np.arange(width) * 2)[:, :, None] * np.array([1, 2, 3])
    return ((ramp % 166) + random_part).astype(np.uint8)


def _jpeg(photo: Pixels, sampling: int | str, units: int | None = None, **options: object) -> bytes:
    """As a pack writes it. sampling: Pillow's 0 (4:4:4), 1 (4:2:2) or 2 (4:2:0), or "grey"."""
    image = Image.fromarray(photo) if sampling != "grey" else Image.fromarray(photo).convert("L")
    unit = 16 if sampling in (1, 2) else 8
    blocks = slices.interval(-(-image.width // unit)) if units is None else units
    more = {} if sampling == "grey" else {"subsampling": sampling}
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85, optimize=True, restart_marker_blocks=blocks, **more, **options)
    return file.getvalue()


def _whole(jpeg: bytes) -> Pixels:
    return simplejpeg.decode_jpeg(jpeg, "RGB", fastdct=False, fastupsample=False, strict=True)


def test_interval_divides_a_row() -> None:
    assert [slices.interval(units) for units in (1, 2, 3, 4, 5, 7, 8, 16, 18, 22, 25)] == [1, 2, 3, 4, 1, 1, 4, 4, 3, 2, 1]


@pytest.mark.parametrize("sampling", [0, 1, 2, "grey"])
def test_windows_equal_the_same_part_of_the_whole(sampling: int | str) -> None:
    draw = random.Random(str(sampling))
    sizes = [
        (1, 1),
        (3, 2),
        (8, 8),
        (16, 16),
        (17, 16),
        (16, 17),
        (64, 64),
        (257, 260),
        (65, 129),
        (340, 256),
        (33, 500),
        (500, 33),
    ]
    for width, height in sizes + [(draw.randint(1, 120), draw.randint(1, 120)) for _ in range(30)]:
        jpeg = _jpeg(_photo(width, height, width), sampling)
        restarts, whole = slices.lengths(jpeg), _whole(jpeg)
        assert restarts
        boxes = [(0, 0, width, height), (width - 1, height - 1, 1, 1), (width // 2, 0, 1, height), (0, height // 2, width, 1)]
        for _ in range(12):
            wide, tall = draw.randint(1, width), draw.randint(1, height)
            boxes.append((draw.randint(0, width - wide), draw.randint(0, height - tall), wide, tall))
        for left, top, wide, tall in boxes:
            part = slices.pixels(jpeg, restarts, left, top, wide, tall)
            assert np.array_equal(part, whole[top : top + tall, left : left + wide]), (width, height, left, top, wide, tall)


def test_every_narrow_window_at_the_right_edge() -> None:
    for width in range(33, 50):
        jpeg = _jpeg(_photo(width, 20), 2, units=1)
        restarts, whole = slices.lengths(jpeg), _whole(jpeg)
        for left in range(width - 6, width):
            assert np.array_equal(slices.pixels(jpeg, restarts, left, 5, width - left, 9), whole[5:14, left:])


def test_a_window_is_a_jpeg_for_any_decoder() -> None:
    jpeg = _jpeg(_photo(320, 256), 2, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0")
    small, left, top = slices.window(jpeg, slices.lengths(jpeg), 100, 90, 60, 50)
    assert len(small) < 0.35 * len(jpeg)
    for pixels in (decode.decode(small, exif=True), np.asarray(Image.open(io.BytesIO(small)))):
        assert np.array_equal(pixels[top : top + 50, left : left + 60], _whole(jpeg)[90:140, 100:160])


def test_photos(real_data) -> None:
    for path in sorted((real_data / "imagenet-samples").glob("*.JPEG"))[:12]:
        with Image.open(path) as image:
            photo = np.asarray(image.convert("RGB").reduce(2))
        jpeg = _jpeg(photo, 2)
        height, width, _ = photo.shape
        box = (width // 3, height // 5, width // 2, height // 2)
        whole = _whole(jpeg)[box[1] : box[1] + box[3], box[0] : box[0] + box[2]]
        assert np.array_equal(slices.pixels(jpeg, slices.lengths(jpeg), *box), whole)


def test_what_is_no_grid_has_no_lengths() -> None:
    photo = _photo(80, 48)
    jpeg = _jpeg(photo, 2)
    damaged = jpeg.replace(b"\xff\xd1", b"\xff\xd5", 1)
    png = io.BytesIO()
    Image.fromarray(photo).save(png, "PNG")
    for other in (
        _jpeg(photo, 2, progressive=True),
        _jpeg(photo, 2, units=0),
        _jpeg(photo, 2, units=3),
        damaged,
        jpeg[:-1],
        jpeg + b"\0",
        jpeg[:100],
        b"",
        png.getvalue(),
    ):
        assert slices.lengths(other) == b""


def test_wrong_restarts_are_refused() -> None:
    jpeg = _jpeg(_photo(160, 96), 2)
    right = slices.lengths(jpeg)
    wrong = np.frombuffer(right, "<u2").copy()
    wrong[3], wrong[4] = wrong[4], wrong[3]
    assert wrong[3] != wrong[4]
    for restarts in (b"", right[:-1], right[:-2], right + b"\0\0", wrong.tobytes(), b"\0" * len(right), b"\xff" * len(right)):
        with pytest.raises(BadImage):
            slices.window(jpeg, restarts, 10, 10, 30, 30)
    for box in ((-1, 0, 5, 5), (0, 0, 161, 5), (0, 92, 5, 5), (0, 0, 0, 5), (1 << 40, 0, 1, 1)):
        with pytest.raises(BadImage):
            slices.window(jpeg, right, *box)


def test_hostile_bytes_raise_nothing_but_bad_image() -> None:
    draw = random.Random(5)
    files = [(jpeg, slices.lengths(jpeg)) for jpeg in (_jpeg(_photo(90, 70), 2), _jpeg(_photo(90, 70), "grey"))]
    refused = 0
    for number in range(600):
        jpeg, restarts = (bytearray(part) for part in files[number % 2])
        for _ in range(draw.randint(1, 4)):
            part = restarts if draw.random() < 0.3 else jpeg
            part[draw.randrange(len(part) if draw.random() < 0.5 else min(len(part), 700))] = draw.randrange(256)
        if draw.random() < 0.1:
            del jpeg[draw.randrange(len(jpeg)) :]
        try:
            part = slices.pixels(bytes(jpeg), bytes(restarts), 20, 10, 40, 30)
        except BadImage:
            refused += 1
        else:
            assert part.shape == (30, 40, 3)
    assert 200 < refused < 600  # a flipped bit within coded data often gives other pixels, which no decoder can know

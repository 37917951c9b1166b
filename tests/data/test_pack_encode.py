"""What a pack stores of one image: the pixels that `decode` gives, at their size, and the boxes that go with them."""

from __future__ import annotations

import hashlib
import io
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from striate.data import decode, views
from striate.data.decode import BadImage
from striate.data.pack import encode, slices
from striate.data.pack.format import Jpeg, Keep, Raw, chosen
from striate.errors import UserError


def photo(width: int, height: int, seed: int = 0) -> np.ndarray:
    """A smooth colour photo, uint8 [height, width, 3]."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def file_of(image: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **options)
    return file.getvalue()


def orientation_exif(value: int) -> bytes:
    exif = Image.Exif()
    exif[0x112] = value
    exif[0x10E] = "a secret"
    return exif.tobytes()


def test_jpeg_is_the_shrunk_photo_in_pillows_encoding() -> None:
    image_HW3 = photo(400, 300)
    stored = encode.stored(file_of(image_HW3), None, Jpeg(128, 90, "4:4:4"), Counter())
    assert (stored.width, stored.height, stored.orientation) == (170, 128, 1)
    assert stored.sha256 == hashlib.sha256(stored.data).digest()
    small = Image.fromarray(image_HW3).resize((170, 128), Image.Resampling.BICUBIC)
    expected = file_of(np.asarray(small), "JPEG", quality=90, subsampling="4:4:4")
    np.testing.assert_array_equal(decode.decode(stored.data, exif=False), decode.decode(expected, exif=False))


@pytest.mark.parametrize(("subsampling", "code"), [("4:4:4", 0), ("4:2:2", 1), ("4:2:0", 2)])
def test_colours_are_stored_as_asked_for_with_markers_for_windows(subsampling: str, code: int) -> None:
    stored = encode.stored(file_of(photo(301, 203)), None, Jpeg(128, 85, subsampling), Counter())
    with Image.open(io.BytesIO(stored.data)) as image:
        from PIL import JpegImagePlugin

        assert JpegImagePlugin.get_sampling(image) == code
    whole_HW3 = decode.decode(stored.data, exif=False)
    assert stored.restarts is not None
    window_HW3 = slices.pixels(stored.data, stored.restarts, 40, 30, 50, 60)
    np.testing.assert_array_equal(window_HW3, whole_HW3[30:90, 40:90])


def test_nothing_is_enlarged() -> None:
    stored = encode.stored(file_of(photo(60, 40)), None, Jpeg(128), Counter())
    assert (stored.width, stored.height) == (60, 40)


def test_grey_is_stored_as_grey() -> None:
    odd: Counter[str] = Counter()
    grey = np.repeat(photo(100, 80)[:, :, :1], 3, axis=2)
    stored = encode.stored(file_of(grey[:, :, 0]), None, Jpeg(128), odd)
    with Image.open(io.BytesIO(stored.data)) as image:
        assert image.mode == "L"
    assert odd["grey"] == 1
    assert np.abs(decode.decode(stored.data, exif=False).astype(int) - grey).mean() < 2
    # The same photo in a colour file decodes to three equal channels, too.
    assert encode.stored(file_of(grey), None, Jpeg(128), Counter()).data == stored.data


def test_orientation_is_the_only_metadata_that_is_kept() -> None:
    odd: Counter[str] = Counter()
    data = file_of(photo(90, 60), "JPEG", exif=orientation_exif(6), comment=b"a secret")
    stored = encode.stored(data, None, Jpeg(128), odd)
    assert (stored.width, stored.height, stored.orientation) == (90, 60, 6) and odd["exif-rotated"] == 1
    assert b"secret" in data and b"secret" not in stored.data
    with Image.open(io.BytesIO(stored.data)) as image:
        assert dict(image.getexif()) == {0x112: 6}
    assert decode.decode(stored.data, exif=True).shape == (90, 60, 3)


def test_odd_files_follow_the_rules_of_decode() -> None:
    rng = np.random.default_rng(3)
    alpha = np.dstack([photo(64, 48), rng.integers(0, 256, (48, 64), dtype=np.uint8)])
    deep = rng.integers(0, 65536, (48, 64)).astype(np.uint16)
    cmyk = io.BytesIO()
    Image.fromarray(photo(64, 48)).convert("CMYK").save(cmyk, "JPEG")
    for data in (file_of(alpha), file_of(deep), cmyk.getvalue()):
        expected = decode.decode(data, exif=False)
        np.testing.assert_array_equal(encode.exact(data, Jpeg(128)), expected)
        raw = encode.stored(data, None, Raw(32, "squash", True), Counter()).data
        small = Image.fromarray(expected).resize((32, 32), Image.Resampling.BICUBIC)
        assert raw == np.asarray(small).tobytes()
        assert encode.stored(data, None, Keep(), Counter()).data == data


@pytest.mark.parametrize("how", [Keep(), Jpeg(), Raw(16, "crop", True)])
def test_d2_a_truncated_file_is_not_stored(how: Keep | Jpeg | Raw) -> None:
    data = file_of(photo(200, 150), "JPEG")
    with pytest.raises(BadImage, match="truncated"):
        encode.stored(data[: len(data) // 2], None, how, Counter())


def test_a_strip_too_long_for_a_jpeg() -> None:
    with pytest.raises(BadImage, match="at most 65,500"):
        encode.stored(file_of(np.zeros((2, 65_501, 3), dtype=np.uint8)), None, Jpeg(), Counter())


def test_pixels_without_a_file_are_kept_as_png() -> None:
    image_HW3 = photo(32, 32)
    stored = encode.stored(image_HW3, None, Keep(), Counter())
    assert decode.header(stored.data).format == "PNG"
    np.testing.assert_array_equal(decode.decode(stored.data, exif=False), image_HW3)


def test_boxes_are_scaled_with_the_photo() -> None:
    boxes_M4 = np.array([[10, 20, 110, 220], [0, 0, 400, 300]], dtype=np.float32)
    stored = encode.stored(file_of(photo(400, 300)), boxes_M4, Jpeg(150), Counter())
    np.testing.assert_allclose(stored.boxes, boxes_M4 / 2)
    np.testing.assert_array_equal(encode.stored(file_of(photo(400, 300)), boxes_M4, Keep(), Counter()).boxes, boxes_M4)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_d8_boxes_turn_with_the_pixels(orientation: int) -> None:
    image_HW3 = np.zeros((40, 70, 3), dtype=np.uint8)
    image_HW3[5:15, 20:50] = 255
    data = file_of(image_HW3, "JPEG", quality=100, exif=orientation_exif(orientation))
    stored = encode.stored(data, np.array([[20, 5, 50, 15]], dtype=np.float32), Raw(40, "squash", True), Counter())
    assert stored.orientation == 1 and stored.boxes is not None
    pixels_SS3 = np.frombuffer(stored.data, dtype=np.uint8).reshape(40, 40, 3)
    left, top, right, bottom = stored.boxes[0].round().astype(int)
    assert pixels_SS3[top:bottom, left:right].mean() > 200 > 3 * pixels_SS3.mean()


def test_raw_crop_is_the_centre_of_the_resized_photo() -> None:
    image_HW3 = photo(80, 40)
    stored = encode.stored(file_of(image_HW3), np.array([[0, 0, 10, 40], [30, 10, 70, 30]]), Raw(20, "crop", True), Counter())
    resized = np.asarray(Image.fromarray(image_HW3).resize((40, 20), Image.Resampling.BICUBIC))
    assert stored.data == resized[:, 10:30].tobytes()
    np.testing.assert_allclose(stored.boxes, [[5, 5, 20, 15]])  # the first one lies outside


def test_raw_without_exif_keeps_what_is_still_to_be_said() -> None:
    data = file_of(photo(60, 60), "JPEG", exif=orientation_exif(3))
    stored = encode.stored(data, None, Raw(60, "crop", False), Counter())
    assert stored.orientation == 3
    assert stored.data == views.resize(decode.decode(data, exif=False), 60, 60, "bicubic").tobytes()


def test_options_that_contradict_each_other() -> None:
    assert chosen(False, None, None, None, None, None, None) == Jpeg(256, 85, "4:2:0")
    assert chosen(False, 128, 70, "4:4:4", None, None, None) == Jpeg(128, 70, "4:4:4")
    assert chosen(True, None, None, None, None, None, None) == Keep()
    assert chosen(False, None, None, None, 64, None, "off") == Raw(64, "crop", False)
    with pytest.raises(UserError, match="leave out --quality"):
        chosen(True, None, 85, None, None, None, None)
    with pytest.raises(UserError, match="leave out --shorter-px"):
        chosen(False, 256, None, None, 224, None, None)
    with pytest.raises(UserError, match="goes with --raw"):
        chosen(False, None, None, None, None, "squash", None)
    for how in (lambda: Jpeg(0), lambda: Jpeg(256, 0), lambda: Jpeg(256, 101), lambda: Raw(0)):
        with pytest.raises(UserError, match="expected 1 to"):
            how()

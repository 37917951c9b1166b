"""Every kind of file has one rule, and nothing but BadImage comes out of a bad one."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import socket
import stat
import struct
import subprocess
import sys
import time
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageFile, ImageOps

from striate.data import decode
from striate.data.decode import BadImage


def noise(width: int, height: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


def smooth(width: int, height: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // max(width - 1, 1), y * 255 // max(height - 1, 1), (x + y) * 3 % 256], axis=2).astype(np.uint8)


def saved(image: Image.Image | np.ndarray, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()


def by_pillow(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def png(width: int, height: int, bits: int, colour: int, rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG by hand: `rows` are the filtered rows before compression."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    middle = b"".join(chunk(name, body) for name, body in chunks)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + middle + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


# ---------------------------------------------------------------- the two decoders


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_both_jpeg_decoders_give_the_same_pixels(subsampling: int, progressive: bool) -> None:
    for width, height in [(160, 120), (33, 17), (1, 1), (8, 300)]:
        for quality in (30, 95):
            data = saved(smooth(width, height), "JPEG", quality=quality, subsampling=subsampling, progressive=progressive)
            ours = decode.decode(data, exif=False)
            np.testing.assert_array_equal(ours, by_pillow(data))
            assert ours.dtype == np.uint8
            assert ours.flags.c_contiguous
            assert ours.flags.writeable


def test_a_jpeg_that_stores_rgb_is_the_same_both_ways() -> None:
    data = saved(smooth(40, 30), "JPEG", keep_rgb=True)
    assert simplejpeg.decode_jpeg_header(data)[2] == "RGB"
    np.testing.assert_array_equal(decode.decode(data, exif=False), by_pillow(data))


def test_real_photographs_are_the_same_both_ways(real_data: Path) -> None:
    paths = sorted((real_data / "imagenet-samples").rglob("*.JPEG"))[::10]
    paths += sorted((real_data / "tiny-imagenet-200" / "val").rglob("*.JPEG"))[::100]
    for path in paths:
        data = decode.read(path)
        np.testing.assert_array_equal(decode.decode(data, exif=False), by_pillow(data), err_msg=str(path))


def test_what_only_the_lenient_decoder_accepts_is_counted() -> None:
    data = bytearray(saved(noise(64, 64), "JPEG", quality=90))
    data[-40:-38] = b"\xff\xd5"  # a restart marker where none belongs
    seen: Counter[str] = Counter()
    ours = decode.decode(bytes(data), exif=False, seen=seen)
    np.testing.assert_array_equal(ours, by_pillow(bytes(data)))
    assert seen == {"damaged": 1}


# ---------------------------------------------------------------- files that are no images


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "HTML"),
        (b"\n\n<HTML>", "HTML"),
        (bytes(5000), "5,000 NUL bytes"),
        (saved(noise(64, 64), "JPEG")[:20], "ends within its header"),
        (saved(noise(64, 64), "PNG")[:20], "ends within its header"),
        (b"\xff\xd8\xff", "ends within its header"),
        (b"GIF89a", "ends within its header"),
        (b"BM" + bytes(30), "header says 0 x 0"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull"),
        (b"hello", "not an image"),
    ],
)
def test_d01_what_is_no_image_says_so(data: bytes, reason: str) -> None:
    with pytest.raises(BadImage, match=reason) as caught:
        decode.decode(data, exif=True)
    assert caught.value.lasting


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
@pytest.mark.parametrize("share", [0.5, 0.99])
def test_d02_truncated_files_are_refused(kind: str, share: float) -> None:
    data = saved(noise(100, 80), kind)
    decode.decode(data, exif=False)
    with pytest.raises(BadImage):
        decode.decode(data[: int(len(data) * share)], exif=False)
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


def test_d02_truncated_progressive_and_cmyk_jpegs_are_refused() -> None:
    for data in (saved(noise(100, 80), "JPEG", progressive=True), saved(Image.fromarray(noise(100, 80)).convert("CMYK"), "JPEG")):
        for share in (0.3, 0.5, 0.9, 0.99):
            with pytest.raises(BadImage):
                decode.decode(data[: int(len(data) * share)], exif=False)


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        ("TIFF", "TIFF"),
        ("PDF", "PDF"),
        ("EPS", "EPS"),
        ("JPEG2000", "JPEG 2000"),
        ("AVIF", "AVIF"),
        ("ICO", "ICO"),
        ("PPM", "Netpbm"),
    ],
)
def test_d12_other_formats_are_named(kind: str, word: str) -> None:
    try:
        data = saved(noise(32, 32), kind)
    except (OSError, KeyError) as error:
        pytest.skip(f"this Pillow does not write {kind}: {error}")
    with pytest.raises(BadImage, match=f"unsupported: {word}"):
        decode.decode(data, exif=False)


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"8BPS\0\1", "Photoshop"),
        (b"\xff\x0a\0\0", "JPEG XL"),
    ],
)
def test_d12_formats_that_pillow_cannot_write_are_named_too(data: bytes, word: str) -> None:
    with pytest.raises(BadImage, match=f"unsupported: {word}"):
        decode.decode(data, exif=False)


# ---------------------------------------------------------------- one rule for each odd kind


def test_d04_content_counts_and_not_the_name(tmp_path: Path) -> None:
    image_HW3 = noise(30, 20)
    path = tmp_path / "n02105855_2933.JPEG"
    path.write_bytes(saved(image_HW3, "PNG"))
    seen: Counter[str] = Counter()
    np.testing.assert_array_equal(decode.load(path, exif=False, seen=seen), image_HW3)
    assert seen == {"wrong extension": 1}
    assert not decode.has_wrong_extension("a.PNG", path.read_bytes())
    assert decode.has_wrong_extension("a.txt", path.read_bytes())
    assert not decode.has_wrong_extension("train.parquet/12", path.read_bytes())
    assert not decode.has_wrong_extension("a.jpg", b"no image")


def test_d05_cmyk_is_converted() -> None:
    image = Image.fromarray(noise(64, 48)).convert("CMYK")
    data = saved(image, "JPEG", quality=95)
    seen: Counter[str] = Counter()
    ours = decode.decode(data, exif=False, seen=seen)
    np.testing.assert_array_equal(ours, by_pillow(data))
    assert np.abs(ours.astype(int) - np.asarray(image.convert("RGB"))).mean() < 7.5
    assert seen == {"cmyk": 1}


def test_d05_ycck_is_converted() -> None:
    # Pillow writes CMYK with Adobe's marker, transform 0; with 2 the same data mean YCCK.
    data = bytearray(saved(Image.fromarray(smooth(64, 48)).convert("CMYK"), "JPEG"))
    at = data.index(b"Adobe") + 11
    assert data[at] == 0
    data[at] = 2
    assert simplejpeg.decode_jpeg_header(bytes(data))[2] == "YCCK"
    np.testing.assert_array_equal(decode.decode(bytes(data), exif=False), by_pillow(bytes(data)))


def test_d06_16_bit_png_is_scaled() -> None:
    values_HW = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    seen: Counter[str] = Counter()
    ours = decode.decode(saved(Image.fromarray(values_HW), "PNG"), exif=False, seen=seen)
    expected_HW = np.round(values_HW / 257).astype(np.uint8)
    for channel in range(3):
        np.testing.assert_array_equal(ours[:, :, channel], expected_HW)
    assert seen == {"16-bit": 1, "grey": 1}


def test_d06_16_bit_colour_is_within_one_level() -> None:
    values_HW3 = np.random.default_rng(0).integers(0, 65536, (8, 8, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values_HW3)
    ours = decode.decode(png(8, 8, 16, 2, rows), exif=False)
    assert np.abs(ours.astype(int) - values_HW3.astype(int) / 257).max() <= 1


def test_d06_transparent_grey_of_16_bits_is_white() -> None:
    values_HW = np.array([[0, 1000], [1000, 65535]], dtype=">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values_HW)
    ours = decode.decode(png(2, 2, 16, 0, rows, (b"tRNS", struct.pack(">H", 1000))), exif=False)
    assert ours[:, :, 0].tolist() == [[0, 255], [255, 255]]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP"])
def test_d07_grey_becomes_three_equal_channels(kind: str) -> None:
    grey_HW = noise(40, 30, 1)[:, :, 0]
    data = saved(grey_HW, kind)
    seen: Counter[str] = Counter()
    ours = decode.decode(data, exif=False, seen=seen)
    assert ours.shape == (30, 40, 3)
    assert seen == {"grey": 1}
    np.testing.assert_array_equal(ours, by_pillow(data))
    for channel in range(3):
        np.testing.assert_array_equal(ours[:, :, channel], ours[:, :, 0])
        if kind != "JPEG":
            np.testing.assert_array_equal(ours[:, :, channel], grey_HW)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF"])
def test_d07_one_bit_is_black_and_white(kind: str) -> None:
    dots_HW = noise(24, 16, 1)[:, :, 0] > 127
    ours = decode.decode(saved(Image.fromarray(dots_HW), kind), exif=False)
    np.testing.assert_array_equal(ours, np.repeat(dots_HW[:, :, None] * np.uint8(255), 3, axis=2))


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP"])
def test_d07_palettes_are_looked_up(kind: str) -> None:
    image = Image.fromarray(smooth(40, 30)).quantize(16)
    ours = decode.decode(saved(image, kind), exif=False)
    np.testing.assert_array_equal(ours, np.asarray(image.convert("RGB")))


def on_white(rgba_HW4: np.ndarray) -> np.ndarray:
    alpha = rgba_HW4[:, :, 3:].astype(float) / 255
    return rgba_HW4[:, :, :3] * alpha + 255 * (1 - alpha)


def test_d07_alpha_is_composited_on_white() -> None:
    rgba_HW4 = noise(40, 30, 4)
    seen: Counter[str] = Counter()
    ours = decode.decode(saved(Image.fromarray(rgba_HW4, "RGBA"), "PNG"), exif=False, seen=seen)
    np.testing.assert_allclose(ours, on_white(rgba_HW4), rtol=0, atol=0.51)
    assert seen == {"alpha": 1}


def test_d07_hidden_colours_stay_hidden_and_opaque_ones_unchanged() -> None:
    rgba_HW4 = noise(40, 30, 4)
    rgba_HW4[:, :20, 3] = 0
    rgba_HW4[:, 20:, 3] = 255
    for kind, options in [("PNG", {}), ("WEBP", {"lossless": True, "exact": True})]:
        ours = decode.decode(saved(Image.fromarray(rgba_HW4, "RGBA"), kind, **options), exif=False)
        assert (ours[:, :20] == 255).all()
        np.testing.assert_array_equal(ours[:, 20:], rgba_HW4[:, 20:, :3])


def test_d07_grey_with_alpha() -> None:
    la_HW2 = noise(40, 30, 2)
    ours = decode.decode(saved(Image.fromarray(la_HW2, "LA"), "PNG"), exif=False)
    expected = on_white(np.dstack([la_HW2[:, :, :1]] * 3 + [la_HW2[:, :, 1:]]))
    np.testing.assert_allclose(ours, expected, rtol=0, atol=0.51)


def test_d07_palette_with_transparency() -> None:
    image = Image.fromarray(np.array([[0, 1], [2, 1]], dtype=np.uint8), "P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    expected = [[[10, 20, 30], [255, 255, 255]], [[70, 80, 90], [255, 255, 255]]]
    assert decode.decode(saved(image, "GIF", transparency=1), exif=False).tolist() == expected
    assert decode.decode(saved(image, "PNG", transparency=1), exif=False).tolist() == expected
    half = decode.decode(saved(image, "PNG", transparency=bytes([255, 128, 255])), exif=False)
    assert half[0, 1].tolist() == [round(value * 128 / 255 + 127) for value in (40, 50, 60)]


def test_d07_one_colour_declared_transparent() -> None:
    rows = b"\0" + bytes([1, 2, 3, 4, 5, 6])
    ours = decode.decode(png(2, 1, 8, 2, rows, (b"tRNS", struct.pack(">HHH", 1, 2, 3))), exif=False)
    assert ours.tolist() == [[[255, 255, 255], [4, 5, 6]]]


# ---------------------------------------------------------------- EXIF


def exif_block(orientation: int, order: str = ">", kind: int = 3, before: int = 2) -> bytes:
    """A TIFF structure whose first directory holds `before` other entries and the orientation."""
    entries = b"".join(struct.pack(f"{order}HHII", 0x100 + number, 4, 1, 77) for number in range(before))
    entries += struct.pack(f"{order}HHIHH", 0x112, kind, 1, orientation, 0)
    head = (b"MM" if order == ">" else b"II") + struct.pack(f"{order}HI", 42, 8)
    return b"Exif\0\0" + head + struct.pack(f"{order}H", before + 1) + entries + bytes(4)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_d08_exif_orientation(orientation: int, kind: str) -> None:
    for order in "<>":
        data = saved(smooth(24, 16), kind, exif=exif_block(orientation, order))
        with Image.open(io.BytesIO(data)) as image:
            expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        seen: Counter[str] = Counter()
        ours = decode.decode(data, exif=True, seen=seen)
        np.testing.assert_array_equal(ours, expected)
        assert ours.flags.c_contiguous
        assert seen["exif-rotated"] == (orientation != 1)
        np.testing.assert_array_equal(decode.decode(data, exif=False), by_pillow(data))


def test_d08_orientation_with_the_slow_decoder_too() -> None:
    data = saved(Image.fromarray(smooth(24, 16)).convert("CMYK"), "JPEG", exif=exif_block(6))
    assert decode.decode(data, exif=True).shape == (24, 16, 3)
    np.testing.assert_array_equal(decode.decode(data, exif=True), np.rot90(decode.decode(data, exif=False), -1))


@pytest.mark.parametrize(
    "block",
    [
        b"Exif\0\0",
        b"Exif\0\0MM\0*\xff\xff\xff\xff",
        exif_block(6)[:-20],
        exif_block(0),
        exif_block(9),
        exif_block(6, kind=2),
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff",
        b"Exif\0\0garbage" * 50,
    ],
)
def test_d08_a_broken_tag_counts_as_upright(block: bytes) -> None:
    data = saved(smooth(24, 16), "JPEG", exif=block)
    np.testing.assert_array_equal(decode.decode(data, exif=True), decode.decode(data, exif=False))


# ---------------------------------------------------------------- animations and bombs


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_d09_the_first_frame_counts(kind: str) -> None:
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "lime", "blue")]
    data = saved(frames[0], kind, save_all=True, append_images=frames[1:], **({"lossless": True} if kind == "WEBP" else {}))
    seen: Counter[str] = Counter()
    ours = decode.decode(data, exif=False, seen=seen)
    assert seen["animated"] == 1
    assert (ours == [255, 0, 0]).all()
    assert decode.decode(saved(frames[0], kind), exif=False, seen=(still := Counter())).shape == (10, 20, 3)
    assert not still["animated"]


def test_d09_ten_thousand_frames_take_no_longer() -> None:
    image = io.BytesIO()
    frames = [Image.new("L", (8, 8), value) for value in (0, 255)]
    frames[0].save(image, "GIF", save_all=True, append_images=frames[1:])
    gif = image.getvalue()
    body = gif[gif.index(b"\x21\xf9") : -1]
    data = gif[: gif.index(b"\x21\xf9")] + body * 5000 + b";"
    begin = time.monotonic()
    assert decode.decode(data, exif=False).shape == (8, 8, 3)
    assert time.monotonic() - begin < 0.5


def test_d10_the_limit_holds_before_decoding() -> None:
    bomb = png(20_000, 20_000, 1, 0, bytes(10))
    begin = time.monotonic()
    with pytest.raises(BadImage, match="20000 x 20000 pixels are more than the limit of 50,000,000"):
        decode.decode(bomb, exif=False)
    assert time.monotonic() - begin < 0.1
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP"):
        data = saved(smooth(40, 30), kind)
        assert decode.header(data) == (40, 30, kind)
        decode.decode(data, exif=False, max_pixels=1200)
        with pytest.raises(BadImage, match="limit of 1,199"):
            decode.decode(data, exif=False, max_pixels=1199)


def test_d10_sizes_that_pillow_warns_of_give_no_warning() -> None:
    # Warnings are errors here: 100 Mpx would be a DecompressionBombWarning, were Pillow asked.
    with pytest.raises(BadImage, match="limit"):
        decode.decode(png(10_000, 10_000, 1, 0, bytes(10)), exif=False)
    gif = bytearray(saved(Image.new("L", (10, 10)), "GIF"))
    at = gif.index(b",", 13)
    gif[at + 5 : at + 9] = struct.pack("<HH", 60_000, 2000)  # a frame beyond the canvas, which Pillow would enlarge
    with pytest.raises(BadImage, match="60000 x 2000"):
        decode.decode(bytes(gif), exif=False)


@pytest.mark.parametrize("lossless", [False, True])
def test_header_reads_every_kind_of_webp(lossless: bool) -> None:
    for mode in ("RGB", "RGBA"):
        data = saved(Image.new(mode, (300, 17)), "WEBP", lossless=lossless)
        assert decode.header(data) == (300, 17, "WEBP")


def test_d10_a_progressive_jpeg_of_endless_scans_is_refused() -> None:
    data = saved(noise(64, 64), "JPEG", progressive=True)
    start = data.rindex(b"\xff\xda")
    bomb = data[:start] + data[start:-2] * 200 + data[-2:]
    with pytest.raises(BadImage, match="scans"):
        decode.decode(bomb, exif=False)


def test_d10_scans_are_not_hidden_from_the_count() -> None:
    """Behind a stuffed zero decoders search for the next marker; who took it for a segment would see another header."""
    progressive = saved(Image.new("RGB", (64, 64)), "JPEG", progressive=True)
    sequential = saved(noise(64, 64), "JPEG")
    start = progressive.rindex(b"\xff\xda")
    hidden = progressive[2:start] + progressive[start:-2] * 200
    for length in (len(hidden) + 2, 2):
        bomb = b"\xff\xd8\xff\0" + struct.pack(">H", length) + hidden + sequential[2:]
        with pytest.raises(BadImage, match="scans"):
            decode.decode(bomb, exif=False)
    harmless = sequential[:2] + b"\xff\0\x12\x34" + sequential[2:]
    assert decode.header(harmless) == (64, 64, "JPEG")
    np.testing.assert_array_equal(decode.decode(harmless, exif=False), by_pillow(sequential))


def test_d10_a_sequential_jpeg_of_endless_scans_costs_one() -> None:
    data = saved(noise(64, 64), "JPEG")
    scan = data[data.rindex(b"\xff\xda") : -2]
    began = time.process_time()
    with contextlib.suppress(BadImage):  # decoders differ in what they say of what follows the image
        decode.decode(data[:-2] + scan * 2000 + data[-2:], exif=False)
    assert time.process_time() - began < 0.5


def test_d10_metadata_bombs_never_reach_a_decoder() -> None:
    text = zlib.compress(bytes(4 * 1024**2))
    rows = b"\0" + bytes([1, 2, 3])
    data = png(1, 1, 8, 2, rows, (b"zTXt", b"Comment\0\0" + text), (b"acTL", bytes(8)))
    with pytest.raises(ValueError, match="too large"):
        by_pillow(data)
    assert decode.decode(data, exif=True).tolist() == [[[1, 2, 3]]]


# ---------------------------------------------------------------- hostile bytes

_SEEDS = [
    saved(smooth(24, 16), "JPEG", exif=exif_block(6)),
    saved(smooth(24, 16), "JPEG", progressive=True),
    saved(Image.fromarray(smooth(24, 16)).convert("CMYK"), "JPEG"),
    saved(smooth(24, 16), "PNG"),
    saved(Image.fromarray(noise(24, 16, 4), "RGBA"), "PNG"),
    saved(Image.fromarray(smooth(24, 16)).quantize(16), "PNG", transparency=3),
    saved(Image.fromarray(np.arange(384, dtype=np.uint16).reshape(16, 24)), "PNG"),
    saved(smooth(24, 16), "WEBP"),
    saved(Image.fromarray(noise(24, 16, 4), "RGBA"), "WEBP", lossless=True),
    saved(smooth(24, 16), "GIF"),
    saved(Image.new("L", (9, 9)), "GIF", save_all=True, append_images=[Image.new("L", (9, 9), 99)]),
    saved(smooth(24, 16), "BMP"),
    saved(Image.fromarray(smooth(24, 16)).quantize(16), "BMP"),
]


def mutated(rng: np.random.Generator, data: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        at = int(rng.integers(0, len(out)))
        match int(rng.integers(0, 6)):
            case 0:
                out[at] ^= 1 << int(rng.integers(0, 8))
            case 1:
                out[at] = int(rng.choice([0, 1, 0x7F, 0x80, 0xFF]))
            case 2:
                del out[at : at + int(rng.integers(1, 20))]
            case 3:
                out[at:at] = out[at : at + int(rng.integers(1, 20))]
            case 4:
                out[at : at + 4] = struct.pack(">I", int(rng.choice([0, 1, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF])))
            case _:
                out = out[: max(1, at)]
        if not out:
            out = bytearray(b"\0")
    return bytes(out)


def test_f1_hostile_bytes_give_pixels_or_a_reason() -> None:
    rng = np.random.default_rng(0)
    refused = 0
    slowest = 0.0
    for number in range(2000):
        data = mutated(rng, _SEEDS[number % len(_SEEDS)])
        begin = time.monotonic()
        try:
            image_HW3 = decode.decode(data, exif=True)
            assert image_HW3.dtype == np.uint8
            assert image_HW3.ndim == 3
            assert image_HW3.shape[2] == 3
        except BadImage as error:
            refused += 1
            assert error.reason
            assert "\n" not in error.reason
        slowest = max(slowest, time.monotonic() - begin)
    assert 200 < refused < 1950
    assert slowest < 2.0


# ---------------------------------------------------------------- reading


def test_d26_a_fifo_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    begin = time.monotonic()
    with pytest.raises(BadImage, match="FIFO") as caught:
        decode.read(tmp_path / "pipe.jpg")
    assert time.monotonic() - begin < 0.5
    assert not caught.value.lasting


def test_d26_what_is_no_regular_file_has_a_reason(tmp_path: Path) -> None:
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "dangling.jpg").symlink_to("nowhere.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        for path, reason in [
            (tmp_path, "folder"),
            (tmp_path / "loop.jpg", "loop of symbolic links"),
            (tmp_path / "dangling.jpg", "no such file"),
            (tmp_path / "absent.jpg", "no such file"),
            (tmp_path / ("x" * 300), "cannot be read"),
            (tmp_path / "s", "socket"),
            (Path("/dev/null"), "device"),
            (Path("a\0b.jpg"), "cannot be opened"),
        ]:
            with pytest.raises(BadImage, match=reason):
                decode.read(path)


def test_d26_odd_names_are_names(tmp_path: Path) -> None:
    data = saved(smooth(8, 8), "PNG")
    for name in [b"new\nline.png", b"\xff\xfe.png", b"y" * 251 + b".png"]:
        path = tmp_path / os.fsdecode(name)
        path.write_bytes(data)
        assert decode.load(path, exif=False).shape == (8, 8, 3)


def test_d26_no_permission_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(BadImage, match="no permission"):
        decode.read(tmp_path / "a.png")


@pytest.mark.parametrize(("failures", "succeeds"), [(1, True), (2, True), (3, False)])
def test_d27_an_input_output_error_is_tried_three_times(
    failures: int, succeeds: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"content")
    plain_read = os.read
    calls = 0

    def failing(handle: int, count: int) -> bytes:
        nonlocal calls
        calls += 1
        if calls <= failures:
            raise OSError(errno.EIO, "Input/output error")
        return plain_read(handle, count)

    monkeypatch.setattr(os, "read", failing)
    monkeypatch.setattr(decode, "_PAUSES_S", (0.0, 0.0))
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    if succeeds:
        assert decode.read(path) == b"content"
    else:
        with pytest.raises(BadImage, match="Input/output error") as caught:
            decode.read(path)
        assert not caught.value.lasting
    if before:
        assert len(os.listdir("/proc/self/fd")) == before


def test_d10_a_file_over_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.jpg"
    with open(path, "wb") as file:
        file.truncate(10**12)
    with pytest.raises(BadImage, match="1,000,000,000,000 bytes"):
        decode.read(path)
    path.write_bytes(b"12345")
    assert decode.read(path, max_bytes=5) == b"12345"
    with pytest.raises(BadImage, match="limit of 4"):
        decode.read(path, max_bytes=4)


def test_d28_a_read_only_file_is_enough(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(saved(smooth(8, 8), "PNG"))
    path.chmod(stat.S_IRUSR)
    assert decode.load(path, exif=False).shape == (8, 8, 3)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak memory from Linux")
def test_d11_memory_stays_bounded() -> None:
    program = """
import resource, numpy as np
from striate.data import decode, views
from striate.view import View
view = View(224, "squash", 224, "bilinear", False, (0, 0, 0), (1, 1, 1))
crop = View(224, "crop", 256, "bilinear", False, (0, 0, 0), (1, 1, 1))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for height in (1000, 50_000, 1_000_000):
    strip = np.zeros((height, 1, 3), dtype=np.uint8)
    for one in (view, crop):
        try:
            views.apply(strip, one)
        except decode.BadImage:
            pass
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 300

"""Boxes turned and scaled with their photos: a box is drawn, the pixels are turned by `decode`, and the box is found again."""

from __future__ import annotations

import io
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from striate.classes import Classes
from striate.data import boxes, decode
from striate.data.decode import BadImage
from striate.data.index import Boxes, Gathering, Index
from striate.data.resident import Prepare, prepared
from striate.errors import DataError, UserError

ORIENTATIONS = range(1, 9)


def drawn(width: int, height: int, box: tuple[int, int, int, int]) -> np.ndarray:
    """A black photo with one white box."""
    photo_HW3 = np.zeros((height, width, 3), np.uint8)
    photo_HW3[box[1] : box[3], box[0] : box[2]] = 255
    return photo_HW3


def found(photo_HW3: np.ndarray) -> list[int]:
    """The white box: xyxy."""
    rows, columns = np.nonzero(photo_HW3[:, :, 0] > 127)
    return [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]


def exif(orientation: int) -> bytes:
    return b"Exif\0\0MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x112, 3, 1, orientation, 0, 0)


def saved(photo_HW3: np.ndarray, kind: str, orientation: int) -> bytes:
    file = io.BytesIO()
    options = {"exif": exif(orientation)} if orientation > 1 else {}
    Image.fromarray(photo_HW3).save(file, kind, **options)
    return file.getvalue()


def index_of(root: Path, photos: list[bytes], truth: list[list[tuple[float, ...]]] | None) -> Index:
    gathering = Gathering()
    for number, content in enumerate(photos):
        (root / f"{number}.png").write_bytes(content)
        gathering.add(f"{number}.png".encode(), 0, len(content), 0)
    if truth is None:
        return gathering.index(root, "val", "a folder", Classes(("a",), ("",)))
    image_M = np.repeat(np.arange(len(photos)), [len(each) for each in truth])
    xyxy_M4 = np.array([box for each in truth for box in each], np.float32).reshape(-1, 4)
    return gathering.index(root, "val", "a folder", Classes(("a",), ("",)), boxes=Boxes.of_images(len(photos), image_M, xyxy_M4))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_boxes_turn_as_pixels_do(orientation: int) -> None:
    box = (3, 2, 10, 6)
    turned = decode.turned(drawn(20, 13, box), orientation)
    ours = boxes.turned(np.array([box], np.float32), orientation, 20, 13)
    assert ours.dtype == np.float32 and ours.tolist() == [found(turned)]
    assert boxes.turned_sides(20, 13, orientation) == (turned.shape[1], turned.shape[0])


def test_turning_leaves_the_given_boxes_alone_and_refuses_other_orientations() -> None:
    given = np.array([[3.0, 2.0, 10.0, 6.0]])
    boxes.turned(given, 3, 20, 13)
    assert given.tolist() == [[3.0, 2.0, 10.0, 6.0]]
    with pytest.raises(UserError, match="expected 1 to 8, found 9"):
        boxes.turned(given, 9, 20, 13)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_orientation_is_what_decoding_finds(kind: str, orientation: int) -> None:
    data = saved(drawn(20, 13, (3, 2, 10, 6)), kind, orientation)
    assert decode.orientation(data) == decode.as_stored(data, decode.MAX_PIXELS, Counter())[1] == orientation


@pytest.mark.parametrize("kind", ["GIF", "BMP"])
def test_formats_without_exif_are_upright_as_stored_pixels_are(kind: str) -> None:
    assert decode.orientation(saved(drawn(20, 13, (3, 2, 10, 6)), kind, 1)) == 1
    assert decode.orientation(drawn(20, 13, (3, 2, 10, 6))) == 1


def test_orientation_of_a_png_whose_exif_stands_behind_its_pixels() -> None:
    data = saved(drawn(20, 13, (3, 2, 10, 6)), "PNG", 6)
    start = data.index(b"eXIf") - 4
    (length,) = struct.unpack_from(">I", data, start)
    chunk, end = data[start : start + 12 + length], data.index(b"IEND") - 4
    moved = data[:start] + data[start + len(chunk) : end] + chunk + data[end:]
    assert decode.orientation(moved) == 6
    assert decode.decode(moved, exif=True).shape == (20, 13, 3)


def test_orientation_of_what_is_no_image() -> None:
    with pytest.raises(BadImage, match="empty"):
        decode.orientation(b"")
    with pytest.raises(BadImage, match="WEBP"):
        decode.orientation(b"RIFF\0\0\0\0WEBPVP8X" + bytes(20))


@pytest.mark.parametrize("with_exif", [False, True])
@pytest.mark.parametrize("shrink_px", [0, 40])
def test_seen_boxes_lie_where_prepared_photos_show_them(tmp_path: Path, with_exif: bool, shrink_px: int) -> None:
    # Edges at multiples of the shrinking factor stay sharp: 120 by 80 to 60 by 40.
    truth = [[(24, 16, 72, 48)], [], [(24, 16, 72, 48)]]
    photos = [saved(drawn(120, 80, (24, 16, 72, 48)), "PNG", orientation) for orientation in (1, 3, 6)]
    index = index_of(tmp_path, photos, truth)
    seen = boxes.seen(index, with_exif, shrink_px)
    for row in (0, 2):
        photo = prepared(index.content(row), Prepare(with_exif, shrink_px))
        assert seen.of(row).tolist() == [found(photo)]
    assert len(seen.of(1)) == 0 and seen.xyxy.dtype == np.float32


def test_each_axis_is_scaled_by_its_own_rounded_side(tmp_path: Path) -> None:
    index = index_of(tmp_path, [saved(drawn(101, 67, (0, 0, 101, 67)), "PNG", 1)], [[(0, 0, 101, 67)]])
    height, width, _ = prepared(index.content(0), Prepare(False, 32)).shape
    np.testing.assert_allclose(boxes.seen(index, False, 32).of(0), [[0, 0, width, height]], rtol=1e-6)


def test_a_smaller_photo_is_not_enlarged(tmp_path: Path) -> None:
    index = index_of(tmp_path, [saved(drawn(30, 20, (3, 2, 10, 6)), "PNG", 1)], [[(3, 2, 10, 6)]])
    assert boxes.seen(index, True, 40).of(0).tolist() == [[3, 2, 10, 6]]


def test_nothing_is_read_where_nothing_changes(tmp_path: Path) -> None:
    index = index_of(tmp_path, [b"no image"], [[(3, 2, 10, 6)]])
    (tmp_path / "0.png").unlink()
    assert boxes.seen(index, exif=False).of(0).tolist() == [[3, 2, 10, 6]]


def test_boxes_of_a_photo_that_cannot_be_read_stay(tmp_path: Path) -> None:
    index = index_of(tmp_path, [b"no image"], [[(3, 2, 10, 6)]])
    assert boxes.seen(index, exif=True).of(0).tolist() == [[3, 2, 10, 6]]


@pytest.mark.parametrize("truth", [None, [[]]])
def test_a_set_without_boxes_is_told_who_has_some(tmp_path: Path, truth: list[list[tuple[float, ...]]] | None) -> None:
    index = index_of(tmp_path, [saved(drawn(30, 20, (3, 2, 10, 6)), "PNG", 1)], truth)
    with pytest.raises(DataError, match=r"'val' \(a folder\) has no boxes.*Tiny ImageNet.*LOC_\*_solution.csv.*x_min.*builtin"):
        boxes.seen(index, exif=False)

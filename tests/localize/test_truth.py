"""True boxes checked against their photos: each kind of wrong box is refused with its file, small overhang is clipped."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from striate.classes import Classes
from striate.data.index import Boxes, Gathering, Index
from striate.errors import DataError
from striate.localize import truth


def png(width: int, height: int, orientation: int = 1) -> bytes:
    file = io.BytesIO()
    block = b"Exif\0\0MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x112, 3, 1, orientation, 0, 0)
    Image.new("RGB", (width, height)).save(file, "PNG", exif=block)
    return file.getvalue()


def index_of(root: Path, photos: list[bytes], boxes: list[list[list[float]]]) -> Index:
    gathering = Gathering()
    for number, content in enumerate(photos):
        (root / f"{number}.png").write_bytes(content)
        gathering.add(f"{number}.png".encode(), 0, len(content), 0)
    image_M = np.repeat(np.arange(len(photos)), [len(each) for each in boxes])
    xyxy_M4 = np.array([box for each in boxes for box in each], np.float32).reshape(-1, 4)
    found = Boxes.of_images(len(photos), image_M, xyxy_M4)
    return gathering.index(root, "val", "a list", Classes(("a",), ("",)), boxes=found)


GOOD = [2.0, 3.0, 10.0, 12.0]


@pytest.mark.parametrize(
    ("box", "words"),
    [
        ([10, 3, 2, 12], r"\(10, 3, 2, 12\) is inside out.*swap x_min and x_max"),
        ([2, 3, 2, 12], r"\(2, 3, 2, 12\) has no area.*Remove the row"),
        ([2, 3, np.nan, 12], r"\(2, 3, nan, 12\) is not four finite numbers"),
        ([2, 3, np.inf, 12], r"\(2, 3, inf, 12\) is not four finite numbers"),
        ([40, 3, 50, 12], r"\(40, 3, 50, 12\) lies outside of its photo"),
        ([-9, 3, 0, 12], r"\(-9, 3, 0, 12\) lies outside of its photo"),
        ([2, 3, 10, 31.5], r"\(2, 3, 10, 31.5\) stands out of its photo by more than 1 pixel"),
        ([-1.5, 3, 10, 12], r"\(-1.5, 3, 10, 12\) stands out of its photo by more than 1 pixel"),
    ],
)
def test_a_wrong_box_is_named_with_its_file(tmp_path: Path, box: list[float], words: str) -> None:
    index = index_of(tmp_path, [png(40, 30)] * 2, [[GOOD], [GOOD, box]])
    with pytest.raises(DataError, match=r"1\.png of 40 x 30 pixels: the box " + words):
        truth.read(index, exif=False)


def test_more_of_a_kind_are_counted(tmp_path: Path) -> None:
    index = index_of(tmp_path, [png(40, 30)], [[[5, 5, 5, 9], GOOD, [6, 6, 9, 6], [7, 7, 7, 7]]])
    with pytest.raises(DataError, match="The same is wrong with 2 more of 'val'"):
        truth.read(index, exif=False)


def test_up_to_a_pixel_outside_is_clipped_and_counted(tmp_path: Path) -> None:
    index = index_of(tmp_path, [png(40, 30), png(40, 30)], [[GOOD, [-1, 0, 41, 31]], []])
    found = truth.read(index, exif=False)
    assert found.boxes.of(0).tolist() == [GOOD, [0, 0, 40, 30]]
    assert found.clipped == 1
    assert found.has_boxes_N.tolist() == [True, False]
    assert found.sides_N2.tolist() == [[40, 30], [0, 0]]


def test_boxes_and_sides_are_turned_and_shrunk_after_the_check(tmp_path: Path) -> None:
    # Stored 40 x 30, seen 30 x 40: a box of 41 px would stand out of the turned photo, and is only clipped in the stored one.
    index = index_of(tmp_path, [png(40, 30, orientation=6)], [[[0, 0, 41, 15]]])
    turned = truth.read(index, exif=True)
    assert turned.boxes.of(0).tolist() == [[15, 0, 30, 40]] and turned.sides_N2.tolist() == [[30, 40]]
    small = truth.read(index, exif=True, shrink_px=15)
    assert small.boxes.of(0).tolist() == [[7.5, 0, 15, 20]] and small.sides_N2.tolist() == [[15, 20]]
    ignored = truth.read(index, exif=False)
    assert ignored.boxes.of(0).tolist() == [[0, 0, 40, 15]] and ignored.sides_N2.tolist() == [[40, 30]]


def test_a_photo_that_cannot_be_read_has_its_numbers_checked_only(tmp_path: Path) -> None:
    index = index_of(tmp_path, [b"rubbish"], [[[2, 3, 1000, 12]]])
    found = truth.read(index, exif=True, shrink_px=15)
    assert found.boxes.of(0).tolist() == [[2, 3, 1000, 12]] and found.sides_N2.tolist() == [[0, 0]]
    with pytest.raises(DataError, match=r"0\.png: the box .* is inside out"):
        truth.read(index_of(tmp_path, [b"rubbish"], [[[9, 3, 2, 12]]]), exif=False)


def test_no_boxes_at_all(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no boxes"):
        truth.read(index_of(tmp_path, [png(4, 3)], [[]]), exif=False)


def test_a_box_of_a_list_is_named_with_its_row(tmp_path: Path) -> None:
    """The second box of the second image, whose edges are no round numbers in float32."""
    wrong = [35.1, 3.3, 50.7, 12.9]
    index = index_of(tmp_path, [png(40, 30)] * 2, [[GOOD], [GOOD, wrong]])
    (tmp_path / "list.csv").write_text(
        "path,label,x_min,y_min,x_max,y_max\n0.png,a,35.1,3.3,50.7,12.9\n1.png,a,2,3,10,12\n./1.png,a,35.1,3.3,50.7,12.9\n"
    )
    rows = [dict(path="1.png", label="a"), dict(path="1.png", label="a", x_min=35.1, y_min=3.3, x_max=50.7, y_max=12.9)]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "other.csv").write_text("path,label,x_min,y_min,x_max,y_max\n1.png,a,2,3,10,12\n")
    for name, row in (("list.csv", ", row 4"), ("list.jsonl", ", row 2"), ("other.csv", ""), ("nowhere.csv", "")):
        with pytest.raises(DataError) as error:
            truth.read(index, exif=False, listed=tmp_path / name)
        text = str(error.value)
        assert text.startswith(f"{tmp_path / '1.png'} of 40 x 30 pixels: the box (35.1, 3.3, 50.7, 12.9) stands out")
        assert f" It is from {tmp_path / name}{row}. Boxes count in pixels" in text

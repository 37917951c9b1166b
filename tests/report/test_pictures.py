"""Pictures: what the network sees, spread over the classes; and a matrix as a picture."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from striate.data import decode, views
from striate.report import pictures
from striate.report.gather import Facts, Split
from striate.view import View

VIEW = View(96, "crop", 110, "bilinear", True, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def _open(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))


def _photo(path: Path) -> Path:
    x_HW = np.linspace(0, 255, 200)[None, :] * np.ones((150, 1))
    Image.fromarray(np.stack([x_HW, x_HW.T.copy().reshape(150, 200), 255 - x_HW], axis=-1).astype(np.uint8)).save(
        path, quality=95
    )
    return path


def test_picture_is_the_view_of_the_photo(tmp_path: Path) -> None:
    path = _photo(tmp_path / "photo.jpg")
    uri = pictures.seen_by_network(path.read_bytes(), VIEW, shrink_px=0, most_px=128)
    assert uri is not None
    expected_SS3 = views.apply(decode.load(path, exif=True), VIEW)
    found_SS3 = np.asarray(_open(uri))
    assert found_SS3.shape == (96, 96, 3)
    assert np.abs(found_SS3.astype(int) - expected_SS3).mean() < 12


def test_d7_a_grey_view_is_shown_grey(tmp_path: Path) -> None:
    grey = replace(VIEW, mean=(0.459,), std=(0.218,), colour="grey")
    uri = pictures.seen_by_network(_photo(tmp_path / "photo.jpg").read_bytes(), grey, shrink_px=0, most_px=128)
    assert uri is not None
    expected_SS = np.asarray(Image.fromarray(views.apply(decode.load(tmp_path / "photo.jpg", exif=True), VIEW)).convert("L"))
    assert _open(uri).mode == "L"
    assert np.abs(np.asarray(_open(uri)).astype(int) - expected_SS).mean() < 3


def test_large_view_is_reduced_for_the_page(tmp_path: Path) -> None:
    uri = pictures.seen_by_network(
        _photo(tmp_path / "photo.jpg").read_bytes(), replace(VIEW, size_px=300, resize_px=300), shrink_px=64, most_px=128
    )
    assert uri is not None
    assert _open(uri).size == (128, 128)
    assert len(uri) < 20_000


def test_unreadable_photo_has_no_picture(tmp_path: Path) -> None:
    assert pictures.seen_by_network(b"\xff\xd8\xff\xe0 not much", VIEW, 0, 128) is None
    split, facts = Split("val", {"root": str(tmp_path)}, None), Facts(tmp_path)
    (tmp_path / "there.jpg").write_bytes(b"x")
    assert facts.content(split, "there.jpg") == b"x"
    assert facts.content(split, "absent.jpg") is None and facts.content(split, ".") is None


def test_stored_pixels_are_a_picture_too() -> None:
    pixels_HW3 = np.repeat(np.linspace(0, 255, 50)[None, :, None] * np.ones((40, 1, 1)), 3, axis=2).astype(np.uint8)
    uri = pictures.seen_by_network(pixels_HW3, VIEW, 0, 128)
    assert uri is not None
    assert np.abs(np.asarray(_open(uri)).astype(int) - views.apply(pixels_HW3, VIEW)).mean() < 12


def test_rows_are_spread_over_classes() -> None:
    labels_N = np.repeat(np.arange(6), 50)
    rows = pictures.spread(labels_N, 24)
    assert labels_N[rows].tolist() == sorted([*range(6)] * 4)
    assert len(set(rows)) == 24
    assert len(pictures.spread(np.repeat(np.arange(200), 50), 24)) == 24
    assert pictures.spread(np.full(3, -1), 24) == [0, 1, 2]
    assert pictures.spread(np.zeros(0, int), 24) == []


def test_heat_map_keeps_each_cell() -> None:
    shares_KK = np.array([[1.0, 0.25], [0.0, 0.04]])
    picture_KK4 = np.asarray(_open(pictures.heat_map(shares_KK)).convert("RGBA"))
    assert picture_KK4[..., 3].tolist() == [[255, 128], [0, 51]]
    assert picture_KK4[0, 0, :3].tolist() == [0, 114, 178]

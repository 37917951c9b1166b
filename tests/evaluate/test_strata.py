"""Accuracy by strata: cases worked by hand, boxes against a drawn mask, colourfulness against the formula pixel by pixel."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from striate.classes import Classes
from striate.data.index import Boxes, Index, Keys
from striate.errors import DataError, UserError
from striate.evaluate import metrics, strata

# ---------------------------------------------------------------- bins


def test_bins_by_hand() -> None:
    """The lower edge belongs to a bin, the upper one to the next; the last bin has both; the unknown come last."""
    values = np.array([0.0, 0.5, 0.5, 0.999, 2.0, 2.0, np.nan, 1.0])
    right = np.array([1, 0, 1, 1, 0, 1, 0, 0], bool)
    near = right | np.array([0, 1, 0, 0, 0, 0, 1, 0], bool)
    found = strata.by_bins(right, near, values, (0.0, 0.5, 1.0, 2.0))
    assert [(one.low, one.high, one.images) for one in found[:-1]] == [(0, 0.5, 1), (0.5, 1, 3), (1, 2, 3)]
    assert math.isnan(found[-1].low) and math.isnan(found[-1].high) and found[-1].images == 1
    assert [one.top1 for one in found] == pytest.approx([1, 2 / 3, 1 / 3, 0])
    assert [one.top5 for one in found] == pytest.approx([1, 1, 1 / 3, 1])
    assert found[1].top1_interval == metrics.wilson(2, 3)
    assert found[1].top5_interval == metrics.wilson(3, 3)


def test_empty_bins_are_left_out_and_no_image_is_lost() -> None:
    numbers = np.random.default_rng(0)
    values = numbers.normal(size=500)
    values[::50] = np.nan
    right = numbers.random(500) < 0.5
    edges = (-math.inf, -8, -1, 0, 1, math.inf)
    found = strata.by_bins(right, right, values, edges)
    assert sum(one.images for one in found) == 500
    assert sum(round(one.top1 * one.images) for one in found) == right.sum()
    assert [one.low for one in found[:-1]] == [-8, -1, 0, 1]
    known = values[~np.isnan(values)]
    assert [one.images for one in found[:-1]] == np.histogram(known, bins=[-8, -1, 0, 1, 8])[0].tolist()
    assert strata.by_bins(right[:0], right[:0], values[:0], edges) == []


def test_what_cannot_be_binned() -> None:
    right = np.ones(2, bool)
    with pytest.raises(DataError, match=r"Image 1 has the value 1\.5, which no bin of 0 to 1 holds"):
        strata.by_bins(right, right, np.array([0.5, 1.5]), (0.0, 1.0))
    for edges in ((), (0.0,), (0.0, 0.0), (1.0, 0.0), (0.0, math.nan)):
        with pytest.raises(UserError, match="increasing"):
            strata.by_bins(right, right, np.zeros(2), edges)
    with pytest.raises(UserError, match="is_near_N"):
        strata.by_bins(right, np.ones(3, bool), np.zeros(2), (0.0, 1.0))


def test_quartiles() -> None:
    values = np.random.default_rng(0).random(1000)
    edges = strata.quartiles(np.append(values, np.nan))
    assert edges[1:-1] == pytest.approx(np.quantile(values, [0.25, 0.5, 0.75]))
    right = np.ones(1000, bool)
    assert [one.images for one in strata.by_bins(right, right, values, edges)] == [250] * 4
    assert strata.quartiles(np.full(4, 7.0)) == (-math.inf, 7.0, math.inf)
    with pytest.raises(UserError, match="none of the 2 values"):
        strata.quartiles(np.full(2, np.nan))


# ---------------------------------------------------------------- boxes


@pytest.mark.parametrize("count", [1, 2, 3, 9])
def test_covered_area_equals_a_drawn_mask(count: int) -> None:
    numbers = np.random.default_rng(count)
    for _ in range(20):
        corners = numbers.integers(0, 40, (count, 2, 2))
        boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1).astype(np.float32)
        mask = np.zeros((40, 40), bool)
        for x_min, y_min, x_max, y_max in boxes.astype(int):
            mask[y_min:y_max, x_min:x_max] = True
        assert strata.covered_area(boxes) == mask.sum()


def test_covered_area_of_no_box() -> None:
    assert strata.covered_area(np.zeros((0, 4), np.float32)) == 0
    assert strata.covered_area(np.array([[5, 5, 2, 2], [0, 0, np.nan, 1]], np.float32)) == 0


def indexed(root: Path, boxes: Boxes | None) -> Index:
    for name, size in (("a.png", (10, 20)), ("b.png", (8, 8)), ("c.png", (4, 4)), ("d.png", (6, 5))):
        Image.new("RGB", size).save(root / name)
    (root / "e.png").write_bytes(b"no image")
    keys = Keys.of(["a.png", "b.png", "c.png", "d.png", "e.png"])
    zeros = np.zeros(5, np.int64)
    return Index(root, "val", "made up", keys, np.zeros(5, np.int32), Classes(("x",), ("",)), boxes, zeros, zeros)


def test_box_share_of_an_index(tmp_path: Path) -> None:
    xyxy = [[0, 0, 5, 10], [0, 0, 4, 4], [2, 2, 6, 6], [-3, -3, 99, 2], [9, 9, 12, 12], [0, 0, 1, 1]]
    boxes = Boxes.of_images(5, np.array([0, 1, 1, 3, 2, 4]), np.array(xyxy, np.float32))
    share = strata.box_share_N(indexed(tmp_path, boxes))
    assert share[[0, 1, 3]] == pytest.approx([50 / 200, (16 + 16 - 4) / 64, 2 / 5])
    assert np.isnan(share[[2, 4]]).all()  # its box is beside the photo; the photo cannot be read
    assert np.isnan(strata.box_share_N(indexed(tmp_path, None))).all()
    right = np.ones(5, bool)
    assert sum(one.images for one in strata.by_bins(right, right, share, strata.BOX_SHARES)) == 5


# ---------------------------------------------------------------- look


def test_brightness_is_the_mean_of_pillows_grey() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 24, 3), np.uint8)
    theirs = [np.asarray(Image.fromarray(image).convert("L")).mean() / 255 for image in images]
    assert strata.brightness_B(images) == pytest.approx(theirs, abs=1 / 255)
    ends = np.stack([np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8)])
    assert strata.brightness_B(ends) == pytest.approx([0, 1])


def test_colourfulness_by_the_formula() -> None:
    images = np.random.default_rng(1).integers(0, 256, (2, 5, 4, 3), np.uint8)
    for image, found in zip(images, strata.colourfulness_B(images), strict=True):
        red_green = [float(r) - float(g) for r, g, _ in image.reshape(-1, 3)]
        yellow_blue = [0.5 * (float(r) + float(g)) - float(b) for r, g, b in image.reshape(-1, 3)]
        spread = math.sqrt(np.var(red_green) + np.var(yellow_blue))
        assert found == pytest.approx(spread + 0.3 * math.sqrt(np.mean(red_green) ** 2 + np.mean(yellow_blue) ** 2))
    grey = np.repeat(np.arange(16, dtype=np.uint8).reshape(1, 4, 4, 1), 3, axis=3)
    assert strata.colourfulness_B(grey).tolist() == [0.0]


def test_what_is_no_picture() -> None:
    for measure in (strata.brightness_B, strata.colourfulness_B):
        with pytest.raises(UserError, match="uint8"):
            measure(np.zeros((1, 2, 2, 3), np.float32))
        with pytest.raises(UserError, match="expected shape"):
            measure(np.zeros((1, 3, 2, 2), np.uint8))
        with pytest.raises(UserError, match="at least one pixel"):
            measure(np.zeros((1, 0, 2, 3), np.uint8))
        assert len(measure(np.zeros((0, 2, 2, 3), np.uint8))) == 0

"""Boxes from maps: against scipy's components, and against squares whose place in the photo is known to the pixel."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from striate.data.index import Boxes
from striate.errors import DataError, UserError
from striate.evaluate.held_out import held_out
from striate.explain.heatmap import Heatmap
from striate.localize import boxes, metrics
from striate.view import View


def view_of(size_px: int, fit: str, resize_px: int) -> View:
    return View(size_px, fit, resize_px, "bilinear", False, (0.5,) * 3, (0.5,) * 3)


def spread(map_HW: np.ndarray, threshold: float) -> list[list[float]]:
    """scipy's components above a threshold, largest first, then the upper and the left one."""
    labels, _ = ndimage.label(map_HW > np.float32(threshold), structure=np.ones((3, 3)))
    found = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        area = int((labels == number).sum())
        found.append((-area, rows.start, columns.start, [columns.start, rows.start, columns.stop, rows.stop]))
    return [box for *_, box in sorted(found)]


# ---------------------------------------------------------------- boxes of a map


@pytest.mark.parametrize("seed", range(4))
def test_components_are_those_of_scipy(seed: int) -> None:
    map_HW = ndimage.gaussian_filter(np.random.default_rng(seed).random((37, 53)), 1.5 * seed).astype(np.float32)
    map_HW = (map_HW - map_HW.min()) / (map_HW.max() - map_HW.min())
    for threshold, ours in zip(boxes.THRESHOLDS, boxes.components_at(map_HW, boxes.THRESHOLDS), strict=True):
        expected = spread(map_HW, threshold)
        assert ours.tolist() == expected
        assert boxes.box_of(map_HW, threshold).tolist() == expected[:1]
        rows, columns = np.nonzero(map_HW > np.float32(threshold))
        around = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert boxes.box_of(map_HW, threshold, "all").tolist() == [around]


def test_many_thresholds_at_once_in_any_order_are_those_one_by_one() -> None:
    map_HW = np.random.default_rng(1).random((9, 7)).round(1)
    thresholds = np.array([0.5, 0.1, 0.99, 0.1, 0.55])
    for way in boxes.WAYS:
        together = boxes.boxes_at(map_HW, thresholds, way)
        assert together.tolist() == [boxes.box_of(map_HW, threshold, way)[0].tolist() for threshold in thresholds]


def test_corners_hang_together_and_equal_components_go_from_the_top() -> None:
    map_HW = np.zeros((6, 8))
    map_HW[[3, 4], [0, 1]] = 1  # two pixels by a corner
    map_HW[0, 6:8] = 1
    map_HW[5, 7] = 1
    assert boxes.components(map_HW, 0.5).tolist() == [[6, 0, 8, 1], [0, 3, 2, 5], [7, 5, 8, 6]]
    assert boxes.box_of(map_HW, 0.5).tolist() == [[6, 0, 8, 1]]
    assert boxes.box_of(map_HW, 0.5, "all").tolist() == [[0, 0, 8, 6]]


def test_the_threshold_itself_is_not_above_it() -> None:
    map_HW = np.array([[0.0, 0.3, 0.6, 1.0]], np.float32)
    assert boxes.box_of(map_HW, 0.3).tolist() == [[2, 0, 4, 1]]
    assert boxes.box_of(map_HW, 0.29).tolist() == [[1, 0, 4, 1]]
    assert boxes.box_of(map_HW, 0.0).tolist() == [[1, 0, 4, 1]]


@pytest.mark.parametrize("way", boxes.WAYS)
def test_where_nothing_is_above_the_largest_value_counts(way: boxes.Which) -> None:
    map_HW = np.zeros((4, 5))
    map_HW[2, 3] = 1
    assert boxes.box_of(map_HW, 1.0, way).tolist() == [[3, 2, 4, 3]]
    assert boxes.box_of(np.zeros((4, 5)), 0.5, way).tolist() == [[0, 0, 5, 4]]


def test_what_is_no_map_is_refused() -> None:
    with pytest.raises(UserError, match="which is 'best'; expected largest or all"):
        boxes.box_of(np.zeros((3, 3)), 0.5, "best")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="finite"):
        boxes.box_of(np.full((3, 3), np.nan), 0.5)
    with pytest.raises(UserError, match=r"map: expected shape \[H, W\]"):
        boxes.box_of(np.zeros((1, 3, 3)), 0.5)


# ---------------------------------------------------------------- boxes of a photo


@pytest.mark.parametrize(
    ("view", "sides", "expected"),
    [
        # The square covers the pixels 4..12 by 8..24 of a view of 32 by 32.
        (view_of(32, "squash", 32), (64, 96), [8, 24, 24, 72]),
        (view_of(32, "squash", 32), (96, 64), [12, 16, 36, 48]),
        # Resized to 40 by 60 (portrait) of 80 by 120, of which the crop begins at 4, 14: half a view pixel is one of the photo.
        (view_of(32, "crop", 40), (80, 120), [16, 44, 32, 76]),
        # Resized to 60 by 40 (landscape), the crop begins at 14, 4.
        (view_of(32, "crop", 40), (120, 80), [36, 24, 52, 56]),
        (view_of(32, "crop", 32), (32, 32), [4, 8, 12, 24]),
        # Enlarged four times: 64 by 32 of 16 by 8, the crop begins at 16, 0.
        (view_of(32, "crop", 32), (16, 8), [5, 2, 7, 6]),
    ],
)
def test_a_square_in_the_view_lands_on_its_pixels_of_the_photo(view: View, sides: tuple[int, int], expected: list[int]) -> None:
    values = np.full((32, 32), -3.0, np.float32)
    values[8:24, 4:12] = 5.0  # scaled to 0 and 1 before it is cut
    heatmap = Heatmap(values, view, *sides, "grad-cam", "", 0)
    for way in boxes.WAYS:
        np.testing.assert_allclose(boxes.from_heatmap(heatmap, 0.5, way), [expected], rtol=1e-12)


def test_a_coarse_grid_is_cut_between_its_cells() -> None:
    # Centres of the cells of an 8 px grid lie at 4, 12, 20 and 28; half of the value is reached midway.
    values = np.zeros((4, 4), np.float32)
    values[1:3, 1:3] = 1
    heatmap = Heatmap(values, view_of(32, "squash", 32), 64, 32, "cam", "", 0)
    row = heatmap.on_view()[16]
    inside = np.flatnonzero(row > 0.5)
    assert (inside[0], inside[-1]) == (8, 23)
    np.testing.assert_allclose(boxes.from_heatmap(heatmap, 0.4999), [[16, 8, 48, 24]])


def test_boxes_do_not_leave_the_photo() -> None:
    values = np.ones((8, 8), np.float32)
    heatmap = Heatmap(values, view_of(8, "squash", 8), 21, 13, "cam", "", 0)
    np.testing.assert_allclose(boxes.from_heatmap(heatmap, 0.5), [[0, 0, 21, 13]])


# ---------------------------------------------------------------- the threshold


SIDE = 20
VIEW = view_of(SIDE, "squash", SIDE)


def cone(strength: float, key: str, label: int = 0) -> Heatmap:
    """A map that falls from the middle by columns; `strength` bends it, so that other thresholds give the same box."""
    across = 1 - np.abs(np.arange(SIDE) - (SIDE - 1) / 2) / ((SIDE - 1) / 2)
    return Heatmap(np.tile(across**strength, (SIDE, 1)).astype(np.float32), VIEW, SIDE, SIDE, "cam", "", label, key)


def middle(width: int) -> list[float]:
    return [(SIDE - width) / 2, 0, (SIDE + width) / 2, SIDE]


def truth_of(*each: list[list[float]]) -> Boxes:
    image_M = np.repeat(np.arange(len(each)), [len(one) for one in each])
    return Boxes.of_images(len(each), image_M, np.array([box for one in each for box in one]).reshape(-1, 4))


def test_the_middle_of_the_best_stretch_is_fitted() -> None:
    # Bands of 2, 4 … 20 columns; with a truth of 10, bands of 5 to 20 columns are right: 6, 8, … 20.
    heatmap = cone(1, "a")
    found = boxes.fit_threshold([heatmap], truth_of([middle(10)]))
    right = [t for t in boxes.THRESHOLDS if 5 <= int((boxes.on_view(heatmap)[0] > np.float32(t)).sum()) <= 20]
    assert found.accuracy == 1.0 and found.images == 1 and found.which == "largest"
    assert found.threshold == right[(len(right) - 1) // 2]
    assert found.curve_WT.shape == (2, 100)
    assert np.flatnonzero(found.curve_WT[0] == 1).tolist() == [round(100 * t) for t in right]


def test_a_longer_stretch_wins_over_one_that_comes_first() -> None:
    swept = boxes.sweep([cone(1, "a")], truth_of([middle(10)]))
    right = np.zeros((1, 2, 100))
    right[0, 0, [10, 11, 12, 50, 51, 52, 53, 54]] = 1
    right[0, 1, 70:74] = 1
    altered = boxes.Sweep(swept.keys, swept.labels_N, swept.thresholds_T, swept.boxes_NWT4, right, swept.has_truth_N)
    found = boxes.fit(altered)
    assert (found.threshold, found.which) == (0.52, "largest")
    right[0, 1, 70:80] = 1
    found = boxes.fit(altered)
    assert (found.threshold, found.which) == (0.74, "all")


def test_two_parts_of_one_object_are_boxed_together_when_that_is_better() -> None:
    values = np.zeros((SIDE, SIDE), np.float32)
    values[2:6, 2:6] = values[14:18, 14:18] = 1
    heatmap = Heatmap(values, VIEW, SIDE, SIDE, "cam", "", 0, "a")
    found = boxes.fit_threshold([heatmap], truth_of([[2.0, 2, 18, 18]]))
    assert found.which == "all" and found.accuracy == 1.0 and not found.curve_WT[0].any()


def test_images_without_boxes_do_not_count_and_any_true_box_does() -> None:
    maps = [cone(1, "a"), cone(1, "b"), cone(1, "c")]
    found = boxes.fit_threshold(iter(maps), truth_of([[0.0, 0, 1, 1], middle(10)], [], [[0.0, 0, 1, 1]]))
    assert (found.images, found.accuracy) == (2, 0.5)
    with pytest.raises(DataError, match="found none"):
        boxes.fit_threshold(maps, truth_of([], [], []))


def test_maps_and_truths_are_paired() -> None:
    for maps in ([cone(1, "a")], [cone(1, "a")] * 3):
        with pytest.raises(UserError, match="one map for each of 2 images"):
            boxes.fit_threshold(maps, truth_of([middle(10)], [middle(10)]))
    for thresholds in (np.array([]), np.array([0.5, 0.5]), np.array([-0.1, 0.5])):
        with pytest.raises(UserError, match=r"rising numbers in 0\.\.1"):
            boxes.sweep([], truth_of(), thresholds)


def test_no_image_is_scored_by_a_threshold_that_it_chose() -> None:
    # The images of one half need a wide box and those of the other a narrow one, so each half's threshold fails on the other.
    keys = [f"{number}.jpg" for number in range(40)]
    labels = np.zeros(40, np.int64)
    is_first = held_out(keys, labels)
    maps = [cone(1, key) for key in keys]
    truths = truth_of(*([middle(20 if first else 2)] for first in is_first))
    found = boxes.cross_fitted(iter(maps), truths)
    assert [half.accuracy for half in found.halves] == [1.0, 1.0]
    assert [half.images for half in found.halves] == [20, 20]
    assert not (found.iou_N >= 0.5).any()
    assert found.is_second_N.tolist() == is_first.tolist()
    for i, heatmap in enumerate(maps):
        fit = found.halves[1 if is_first[i] else 0]
        assert found.fit_of(i) is fit
        np.testing.assert_allclose(found.boxes_N4[i], boxes.from_heatmap(heatmap, fit.threshold, fit.which)[0], rtol=1e-6)
    np.testing.assert_array_equal(metrics.best_iou(found.boxes_N4, truths), found.iou_N)
    assert found.halves[0].threshold == boxes.fit_threshold([maps[i] for i in np.flatnonzero(is_first)],
                                                            truths.select(np.flatnonzero(is_first))).threshold  # fmt: skip


def test_cross_fitting_does_not_hang_on_the_order_of_the_images() -> None:
    rng = np.random.default_rng(3)
    maps = [cone(rng.uniform(0.3, 3), f"{number}.jpg", number % 3) for number in range(30)]
    truths = truth_of(*([middle(int(width))] if width else [] for width in rng.integers(0, 20, 30)))
    order = rng.permutation(30)
    one, other = boxes.cross_fitted(maps, truths), boxes.cross_fitted([maps[i] for i in order], truths.select(order))
    np.testing.assert_array_equal(one.boxes_N4[order], other.boxes_N4)
    np.testing.assert_array_equal(one.iou_N[order], other.iou_N)
    assert np.isnan(one.iou_N).tolist() == (np.diff(truths.rows) == 0).tolist()
    assert np.isfinite(one.boxes_N4).all()


def test_the_fit_is_told_in_a_line() -> None:
    text = boxes.fit_threshold([cone(1, "a")], truth_of([middle(10)])).describe()
    assert text.startswith("largest component above 0.") and "fitted on 1 images (100.00% right there)" in text

"""Measures of localisation, worked by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from striate import geometry
from striate.data.index import Boxes
from striate.errors import DataError, UserError
from striate.evaluate.metrics import wilson
from striate.explain.heatmap import Heatmap
from striate.localize import metrics
from striate.localize.metrics import BoxAccuracy, Share
from striate.view import View

NONE = [np.nan] * 4
UNIT = [0.0, 0.0, 10.0, 10.0]
FAR = [50.0, 50.0, 60.0, 60.0]
HALF = [0.0, 0.0, 10.0, 5.0]  # IoU with UNIT: 0.5 exactly
LESS = [0.0, 0.0, 10.0, 4.99]


def ragged(*boxes: list[list[float]]) -> Boxes:
    image_M = np.repeat(np.arange(len(boxes)), [len(each) for each in boxes])
    return Boxes.of_images(len(boxes), image_M, np.array([box for each in boxes for box in each]).reshape(-1, 4))


# ---------------------------------------------------------------- ILSVRC


# One image each: labels, boxes, true label, true boxes, right among the first, right among the first five.
CASES = {
    "first answer, on the box": ([7, 1, 2, 3, 4], [UNIT, FAR, FAR, FAR, FAR], 7, [UNIT], True, True),
    "label only": ([7, 1, 2, 3, 4], [FAR, UNIT, UNIT, UNIT, UNIT], 7, [UNIT], False, False),
    "box only": ([1, 2, 3, 4, 5], [UNIT] * 5, 7, [UNIT], False, False),
    "fifth answer": ([1, 2, 3, 4, 7], [FAR, FAR, FAR, FAR, UNIT], 7, [UNIT], False, True),
    "second true box": ([7, 1, 2, 3, 4], [UNIT, FAR, FAR, FAR, FAR], 7, [FAR, UNIT], True, True),
    "IoU of exactly a half": ([7, 1, 2, 3, 4], [HALF, FAR, FAR, FAR, FAR], 7, [UNIT], True, True),
    "IoU just below": ([7, 1, 2, 3, 4], [LESS, FAR, FAR, FAR, FAR], 7, [UNIT], False, False),
    "same label twice, the second box hits": ([7, 7, 2, 3, 4], [FAR, UNIT, FAR, FAR, FAR], 7, [UNIT], False, True),
    "no box": ([7, 1, 2, 3, 4], [NONE] * 5, 7, [UNIT], False, False),
    "fewer answers": ([1, 7, -1, -1, -1], [UNIT, UNIT, NONE, NONE, NONE], 7, [UNIT], False, True),
}


@pytest.mark.parametrize("case", CASES)
def test_localisation_of_one_image(case: str) -> None:
    labels, boxes, label, truth, first, near = CASES[case]
    given = np.array([labels]), np.array([boxes]), np.array([label]), ragged(truth)
    assert metrics.is_localised(*given, first=1).tolist() == [first]
    assert metrics.is_localised(*given, first=5).tolist() == [near]


def test_localisation_error_counts_images_with_boxes_and_labels_only() -> None:
    rows = [*CASES.values(), ([7] * 5, [UNIT] * 5, 7, [], None, None), ([-1] * 5, [UNIT] * 5, -1, [UNIT], None, None)]
    labels, boxes, label, truth = (np.array([row[0] for row in rows]), np.array([row[1] for row in rows]),
                                   np.array([row[2] for row in rows]), ragged(*(row[3] for row in rows)))  # fmt: skip
    first = metrics.localisation_error(labels, boxes, label, truth, first=1)
    near = metrics.localisation_error(labels, boxes, label, truth, first=5)
    assert (first.count, first.total) == (7, 10)
    assert (near.count, near.total) == (4, 10)
    assert near.interval == wilson(4, 10)
    assert near.value == 0.4


def test_answers_beyond_the_first_five_are_ignored() -> None:
    labels, boxes = np.array([[1, 2, 3, 4, 5, 7]]), np.array([[FAR] * 5 + [UNIT]])
    assert not metrics.is_localised(labels, boxes, np.array([7]), ragged([UNIT])).any()
    assert metrics.is_localised(labels, boxes, np.array([7]), ragged([UNIT]), first=6).all()


def test_zero_stands_for_none_where_classes_begin_at_one() -> None:
    labels, boxes = np.array([[3, 0, 0, 0, 0]]), np.array([[UNIT, *[NONE] * 4]])
    assert metrics.is_localised(labels, boxes, np.array([3]), ragged([UNIT])).all()
    assert not metrics.is_localised(labels, boxes, np.array([4]), ragged([UNIT])).any()


def test_nothing_to_score_is_an_error() -> None:
    labels, boxes = np.zeros((1, 5), int), np.zeros((1, 5, 4))
    with pytest.raises(DataError, match="none of 1 images has a true box and a label"):
        metrics.localisation_error(labels, boxes, np.array([0]), ragged([]))
    with pytest.raises(UserError, match="first 1 answer or more, found 0"):
        metrics.is_localised(labels, boxes, np.array([0]), ragged([UNIT]), first=0)
    with pytest.raises(UserError, match=r"predicted boxes: expected shape \[1, 5, 4\]"):
        metrics.is_localised(labels, boxes[:, :3], np.array([0]), ragged([UNIT]))


def counted_pixels(a: list[int], b: list[int]) -> float:
    """IoU of two boxes whose last pixels count in, by colouring them in."""
    canvas = np.zeros((2, 40, 40), bool)
    for place, (x_min, y_min, x_max, y_max) in enumerate((a, b)):
        canvas[place, y_min : y_max + 1, x_min : x_max + 1] = True
    return float((canvas[0] & canvas[1]).sum() / (canvas[0] | canvas[1]).sum())


@pytest.mark.parametrize(
    ("said", "true"),
    [([0, 0, 9, 9], [0, 0, 9, 4]), ([0, 0, 9, 9], [0, 0, 9, 9]), ([3, 4, 20, 9], [8, 0, 30, 7]), ([5, 5, 5, 5], [5, 5, 6, 6]),
     ([0, 0, 4, 4], [5, 0, 9, 4])],
)  # fmt: skip
def test_edges_of_pixels_measure_as_the_development_kit_does(said: list[int], true: list[int]) -> None:
    ours = geometry.iou(metrics.edges(np.array([said])), metrics.edges(np.array([true])))[0, 0]
    assert ours == pytest.approx(counted_pixels(said, true))


def test_a_pixel_decides_between_the_two_conventions() -> None:
    # 10 x 10 and 10 x 5 pixels share exactly a half; as edges they are 9 x 9 and 9 x 4, which is less.
    said, true = np.array([[0, 0, 9, 4]]), np.array([[0, 0, 9, 9]])
    assert geometry.iou(metrics.edges(said), metrics.edges(true))[0, 0] == 0.5
    assert geometry.iou(said.astype(float), true.astype(float))[0, 0] < 0.5


# ---------------------------------------------------------------- the box for the true class


def test_best_iou_by_hand() -> None:
    boxes = np.array([UNIT, UNIT, NONE, UNIT, [10, 10, 0, 0]])
    found = metrics.best_iou(boxes, ragged([FAR, HALF], [FAR], [UNIT], [], [UNIT]))
    np.testing.assert_allclose(found, [0.5, 0, 0, np.nan, 0])


def test_best_iou_equals_the_table_of_all_pairs() -> None:
    rng = np.random.default_rng(0)

    def random(count: int) -> np.ndarray:
        corners = rng.uniform(0, 20, (count, 2, 2))
        return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)

    truth = ragged(*(random(count).tolist() for count in rng.integers(1, 4, 30)))
    boxes = random(30)
    expected = [geometry.iou(boxes[i : i + 1], truth.of(i)).max() for i in range(30)]
    np.testing.assert_allclose(metrics.best_iou(boxes, truth), expected, rtol=1e-12)


def test_gt_known_accuracy_leaves_out_images_without_boxes() -> None:
    truth = ragged([UNIT], [FAR, UNIT], [FAR], [])
    share = metrics.gt_known_accuracy(np.array([HALF, UNIT, UNIT, UNIT]), truth)
    assert share == Share(2, 3)
    assert metrics.gt_known_accuracy(np.array([HALF, UNIT, UNIT, UNIT]), truth, at_least=0.6) == Share(1, 3)
    with pytest.raises(DataError, match="no image has a true box"):
        metrics.gt_known_accuracy(np.array([UNIT]), ragged([]))


def test_mean_iou_and_its_interval() -> None:
    boxes = np.array([UNIT, HALF] * 100)
    mean, (low, high) = metrics.mean_box_iou(boxes, ragged(*[[UNIT]] * 200))
    assert mean == 0.75
    # A mean of 200 numbers of standard deviation 0.25: 1.96 * 0.25 / sqrt(200).
    np.testing.assert_allclose([mean - low, high - mean], 1.96 * 0.25 / np.sqrt(200), rtol=0.15)
    assert metrics.mean_box_iou(boxes[::2], ragged(*[[UNIT]] * 100)) == (1.0, (1.0, 1.0))


# ---------------------------------------------------------------- MaxBoxAcc


def at(*boxes: list[list[float]]) -> list[np.ndarray]:
    return [np.array(each, dtype=float) for each in boxes]


def test_max_box_accuracy_by_hand() -> None:
    third = [0.0, 0.0, 10.0, 3.0]  # IoU 0.3 with UNIT
    accuracy = BoxAccuracy(np.array([0.2, 0.5, 0.8]))
    # The largest component comes first; V2 takes any, V1 only that one.
    accuracy.add_boxes(at([UNIT], [FAR, UNIT], [FAR]), np.array([UNIT]))
    accuracy.add_boxes(at([FAR], [HALF], [HALF]), np.array([FAR, UNIT])[1:])
    accuracy.add_boxes(at([FAR], [third, FAR], [FAR]), np.array([[40.0, 0, 50, 10], UNIT]))
    accuracy.add_boxes([], np.zeros((0, 4)))
    found = accuracy.result()
    assert (found.images, found.without_boxes) == (3, 1)
    # V1 by threshold: image 1 at 0.2, image 2 at 0.5 and 0.8.
    assert found.v1 == Share(1, 3) and found.v1_threshold == 0.2
    np.testing.assert_allclose(found.v1_curve_T, np.array([1, 1, 1]) / 3)
    # V2 at IoU 0.3: 1, 3, 1 of 3; at 0.5: 1, 2, 1; at 0.7: 1, 1, 0.
    np.testing.assert_allclose(found.v2_curves_JT, np.array([[1, 3, 1], [1, 2, 1], [1, 1, 0]]) / 3)
    assert [share.count for share in found.v2_by_iou] == [3, 2, 1]
    assert found.v2 == pytest.approx((3 + 2 + 1) / 9)
    assert found.v2_thresholds == (0.5, 0.5, 0.2)


def test_max_box_accuracy_of_maps() -> None:
    view = View(16, "squash", 16, "bilinear", False, (0.5,) * 3, (0.5,) * 3)
    values = np.zeros((16, 16), np.float32)
    values[0:8, 0:8] = 0.6  # 64 pixels
    values[12:16, 8:16] = 1.0  # 32 pixels, the surer ones
    heatmap = Heatmap(values, view, 32, 16, "grad-cam", "", 0)
    accuracy = BoxAccuracy(np.array([0.3, 0.7]))
    accuracy.add(heatmap, np.array([[16.0, 12.0, 32.0, 16.0]]))
    found = accuracy.result()
    assert found.v1_curve_T.tolist() == [0, 1]  # below 0.6 the other component is larger
    assert found.v2_curves_JT.tolist() == [[1, 1]] * 3
    accuracy.add(heatmap, np.zeros((0, 4)))
    assert accuracy.result().without_boxes == 1


def test_max_box_accuracy_without_images() -> None:
    with pytest.raises(DataError, match="no image has a true box"):
        BoxAccuracy().result()
    with pytest.raises(UserError, match="expected boxes at 100 thresholds, found 2"):
        BoxAccuracy().add_boxes(at([UNIT], [UNIT]), np.array([UNIT]))
    with pytest.raises(UserError, match="one threshold or more"):
        BoxAccuracy(np.array([]))


# ---------------------------------------------------------------- all together


def test_everything_in_one_value() -> None:
    labels = np.array([[7, 1], [1, 7], [7, 1], [7, 1], [7, 1]])
    boxes = np.array([[UNIT, FAR], [FAR, UNIT], [FAR, FAR], [UNIT, UNIT], [UNIT, UNIT]])
    truth = ragged([UNIT], [UNIT], [UNIT], [], [UNIT])
    accuracy = BoxAccuracy(np.array([0.5]))
    accuracy.add_boxes(at([UNIT]), np.array([UNIT]))
    found = metrics.localisation(labels, boxes, boxes[:, 0], np.array([7, 7, 7, 7, -1]), truth, accuracy.result())
    assert (found.images, found.counted, found.without_boxes, found.unlabelled) == (5, 3, 1, 1)
    assert found.top1_error == Share(2, 3) and found.top5_error == Share(1, 3) and found.top5_k == 2
    assert found.gt_known_accuracy == Share(1, 3) and found.mean_box_iou == pytest.approx(1 / 3)
    text = "\n".join(found.lines())
    for words in (
        "top-1 localisation error 66.67%",
        "top-2 localisation error 33.33%",
        "GT-known localisation accuracy 33.33%",
        "mean box IoU 0.3333",
        "MaxBoxAccV1 100.00%",
        "MaxBoxAccV2 100.00%",
        "3 of 5 images counted; 1 without a true box",
    ):
        assert words in text
    plain = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert plain["top1_localisation_error"]["interval"] == list(wilson(2, 3))
    assert plain["max_box_accuracy"]["v2_by_iou"]["0.7"]["value"] == 1.0


def test_without_maps_there_is_no_max_box_accuracy() -> None:
    found = metrics.localisation(np.array([[7]]), np.array([[UNIT]]), np.array([UNIT]), np.array([7]), ragged([UNIT]))
    assert found.to_json()["max_box_accuracy"] is None
    assert not any("MaxBoxAcc" in line for line in found.lines())

"""Average precision by three rules: worked by hand, against scikit-learn, and against pycocotools where it is installed."""

from __future__ import annotations

import contextlib
import io
import json

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from striate.errors import DataError, UserError
from striate.localize import average_precision
from striate.localize.average_precision import Detections, Truths

UNIT = [0.0, 0.0, 100.0, 100.0]


def spot(number: int) -> list[float]:
    """One of many boxes that do not touch each other."""
    return [200.0 * number, 0.0, 200.0 * number + 100, 100.0]


def detections(*rows: tuple[int, int, float, list[float]]) -> Detections:
    images, labels, scores, boxes = zip(*rows, strict=True) if rows else ((), (), (), ())
    boxes_D4 = np.array(boxes, float).reshape(-1, 4)
    return Detections(np.array(images, np.int64), np.array(labels, np.int64), np.array(scores, float), boxes_D4)


def truths(*rows: tuple[int, int, list[float]], ignored: list[bool] | None = None, areas: list[float] | None = None) -> Truths:
    images, labels, boxes = zip(*rows, strict=True)
    return Truths(np.array(images), np.array(labels), np.array(boxes, float), None if ignored is None else np.array(ignored),
                  None if areas is None else np.array(areas))  # fmt: skip


def scene(
    label: int, hits: str, objects: int
) -> tuple[list[tuple[int, int, float, list[float]]], list[tuple[int, int, list[float]]]]:
    """Detections by falling score, "+" on an object of its own and "-" on nothing; and the objects, some perhaps not found."""
    said, found = [], 0
    for place, mark in enumerate(hits):
        said.append((0, label, 1 - place / 100, spot(found) if mark == "+" else spot(50 + place)))
        found += mark == "+"
    return said, [(0, label, spot(number)) for number in range(objects)]


# ---------------------------------------------------------------- all points


@pytest.mark.parametrize(
    ("hits", "objects", "expected"),
    [
        ("+", 1, 1.0),
        ("-", 1, 0.0),
        ("", 1, 0.0),
        ("+", 2, 0.5),
        ("--+", 1, 1 / 3),
        ("+---+", 2, 0.7),
        ("++-+", 3, 11 / 12),
        ("+-+", 2, (1 + 2 / 3) / 2),
        ("-+-+", 2, (1 / 2 + 2 / 4) / 2),
    ],
)
def test_all_points_by_hand(hits: str, objects: int, expected: float) -> None:
    said, there = scene(0, hits, objects)
    assert average_precision.all_points(detections(*said), truths(*there)).mean == pytest.approx(expected)


@pytest.mark.parametrize(
    ("classes", "shown", "mean"),
    [
        # The figures of the lecture's three detectors, by class, to one decimal. It shows no scores, so the order of hits and
        # misses is ours: one that gives each figure.
        ((("+", 1), ("+", 1), ("++", 2), ("+", 1)), [1.0, 1.0, 1.0, 1.0], 1.0),
        ((("-", 1), ("+", 2), ("+", 1), ("--+", 1)), [0.0, 0.5, 1.0, 0.3], 0.45),
        ((("+", 1), ("+---+", 2), ("+", 2), ("++-+", 3)), [1.0, 0.7, 0.5, 0.9], 0.775),
    ],
)
def test_the_lectures_figures(classes: tuple[tuple[str, int], ...], shown: list[float], mean: float) -> None:
    said, there = [], []
    for label, (hits, objects) in enumerate(classes):
        of_class = scene(label, hits, objects)
        said += of_class[0]
        there += of_class[1]
    found = average_precision.all_points(detections(*said), truths(*there))
    assert [round(value, 1) for value in found.by_class().values()] == shown
    assert found.mean == pytest.approx(mean, abs=0.02)


@pytest.mark.parametrize("seed", range(5))
def test_all_points_equals_scikit_learn_where_every_object_is_found(seed: int) -> None:
    rng = np.random.default_rng(seed)
    is_right, scores = rng.random(40) < 0.4, rng.permutation(40) / 40
    said = [(place, 0, float(scores[place]), UNIT if is_right[place] else spot(9)) for place in range(40)]
    there = [(place, 0, UNIT) for place in np.flatnonzero(is_right).tolist()]
    found = average_precision.all_points(detections(*said), truths(*there))
    assert found.mean == pytest.approx(average_precision_score(is_right, scores))


def test_a_curve_tells_precision_and_recall() -> None:
    said, there = scene(3, "+-+", 4)
    (curve,) = average_precision.all_points(detections(*said), truths(*there)).curves
    assert (curve.label, curve.objects) == (3, 4)
    assert curve.recall_D.tolist() == [0.25, 0.25, 0.5]
    np.testing.assert_allclose(curve.precision_D, [1, 1 / 2, 2 / 3])


def test_an_object_is_found_once_by_the_surest_and_only_in_its_image_and_class() -> None:
    there = truths((0, 0, UNIT), (1, 0, UNIT), (0, 1, UNIT))
    said = detections((0, 0, 0.5, UNIT), (0, 0, 0.9, UNIT), (2, 0, 0.8, UNIT), (1, 1, 0.9, UNIT))
    first, second = average_precision.all_points(said, there).curves
    assert first.recall_D.tolist() == [0.5, 0.5, 0.5]  # then a box in another image, then the same object again
    assert second.recall_D.tolist() == [0]


def test_each_detection_takes_the_box_that_it_overlaps_most_of_those_that_are_free() -> None:
    wide, narrow = [0.0, 0, 100, 100], [0.0, 0, 80, 100]
    # The surest is nearer to the narrow one; the next overlaps both and takes what is left.
    said = detections((0, 0, 0.9, [0, 0, 82, 100]), (0, 0, 0.8, [0, 0, 85, 100]))
    assert average_precision.all_points(said, truths((0, 0, wide), (0, 0, narrow))).mean == 1.0


def test_ignored_boxes_need_not_be_found_and_finding_them_is_no_mistake() -> None:
    there = truths((0, 0, UNIT), (0, 0, spot(1)), ignored=[False, True])
    said = detections((0, 0, 0.9, spot(1)), (0, 0, 0.8, spot(1)), (0, 0, 0.7, UNIT))
    for rule in (average_precision.all_points, average_precision.ilsvrc):
        (curve,) = rule(said, there).curves
        assert (curve.objects, curve.average_precision, len(curve.recall_D)) == (1, 1.0, 1)
    # A box that counts is preferred, though the ignored one is overlapped more.
    close = truths((0, 0, [0, 0, 100, 90]), (0, 0, UNIT), ignored=[False, True])
    assert average_precision.all_points(detections((0, 0, 0.9, UNIT)), close).mean == 1.0


# ---------------------------------------------------------------- ILSVRC


def test_ilsvrc_integrates_the_envelope() -> None:
    # Precision 1/2 at recall 1/2, then 2/3 at recall 1: the envelope is 2/3 throughout.
    said, there = scene(0, "-++", 2)
    assert average_precision.ilsvrc(detections(*said), truths(*there)).mean == pytest.approx(2 / 3)
    assert average_precision.all_points(detections(*said), truths(*there)).mean == pytest.approx((1 / 2 + 2 / 3) / 2)


@pytest.mark.parametrize(
    ("true_px", "said_px", "is_right"),
    [
        # 10 by 10 needs 100 / 400 = 0.25: a box of 20 by 20 around it just does, one of 21 by 20 does not.
        ((10, 10), (20, 20), True),
        ((10, 10), (21, 20), False),
        # 30 by 30 would need 900 / 1600, more than a half: a half is enough.
        ((30, 30), (30, 15), True),
        ((30, 30), (30, 14.9), False),
        # 5 by 100 needs 500 / (15 * 110) = 0.303.
        ((5, 100), (15, 110), True),
        ((5, 100), (16.6, 100), False),
    ],
)
def test_small_boxes_are_forgiven_five_pixels(true_px: tuple[float, float], said_px: tuple[float, float], is_right: bool) -> None:
    found = average_precision.ilsvrc(detections((0, 0, 0.9, [0, 0, *said_px])), truths((0, 0, [0, 0, *true_px])))
    assert found.mean == float(is_right)


# ---------------------------------------------------------------- COCO


def test_coco_averages_over_overlaps() -> None:
    # IoU 0.8: right at 0.50 to 0.80, seven of ten.
    found = average_precision.coco(detections((0, 0, 0.9, [0, 0, 100, 80])), truths((0, 0, UNIT)))
    assert found.average_precision == pytest.approx(0.7)
    assert (found.at_50, found.at_75) == (1.0, 1.0)
    assert (found.large, found.by_class) == (pytest.approx(0.7), {0: pytest.approx(0.7)})
    assert np.isnan(found.small) and np.isnan(found.medium)
    plain = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert plain["small"] is None and plain["average_precision"] == pytest.approx(0.7)
    assert "AP75 1.0000" in found.describe()


def test_coco_reads_precision_at_101_recalls() -> None:
    # One of two objects found: precision 1 at the recalls 0.00 to 0.50, which are 51.
    said, there = scene(0, "+", 2)
    assert average_precision.coco(detections(*said), truths(*there)).average_precision == pytest.approx(51 / 101)


def test_coco_sizes_are_of_the_true_objects() -> None:
    small, medium = [0.0, 0, 20, 20], [200.0, 0, 250, 50]
    there = truths((0, 0, small), (0, 0, medium), (0, 0, [400, 0, 600, 200]))
    # The medium one is missed; a small false box of high score is a mistake among the small only.
    said = detections((0, 0, 0.9, [700, 0, 710, 10]), (0, 0, 0.8, small), (0, 0, 0.7, [400, 0, 600, 200]))
    found = average_precision.coco(said, there)
    assert found.small == pytest.approx(0.5)
    assert found.medium == 0.0
    assert found.large == 1.0


def test_coco_takes_areas_where_they_are_given() -> None:
    found = average_precision.coco(detections((0, 0, 0.9, UNIT)), truths((0, 0, UNIT), areas=[900.0]))
    assert found.small == 1.0 and np.isnan(found.large)


def test_a_crowd_takes_any_number_of_detections() -> None:
    crowd = [0.0, 0, 1000, 100]
    there = truths((0, 0, [0, 200, 100, 300]), (0, 0, crowd), ignored=[False, True])
    # Two boxes in the crowd, a tenth of it each; then the object.
    said = detections((0, 0, 0.9, spot(0)), (0, 0, 0.8, spot(1)), (0, 0, 0.7, [0, 200, 100, 300]))
    assert average_precision.coco(said, there).average_precision == 1.0
    # As a plain ignored box it is met by an IoU of a tenth only, so both are mistakes.
    assert average_precision.all_points(said, there).mean == pytest.approx(1 / 3)


def test_only_a_hundred_detections_of_an_image_count() -> None:
    misses = [(0, 0, 0.9 - place / 1000, spot(5)) for place in range(99)]
    there = truths((0, 0, UNIT))
    inside = average_precision.coco(detections(*misses, (0, 0, 0.1, UNIT)), there)
    assert inside.average_precision == pytest.approx(0.01)
    beyond = average_precision.coco(detections(*misses, (0, 0, 0.2, spot(5)), (0, 0, 0.1, UNIT)), there)
    assert beyond.average_precision == 0.0


@pytest.mark.parametrize("seed", range(6))
def test_coco_equals_pycocotools(seed: int) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    evaluation = pytest.importorskip("pycocotools.cocoeval")
    rng = np.random.default_rng(seed)
    there = [(image, label, box(rng)) for image in range(8) for label in range(3) for _ in range(rng.integers(0, 5))]
    said = []
    for image, label, edges in there:
        said += [(image, label, float(round(rng.random(), 2)), shaken(rng, edges)) for _ in range(rng.integers(0, 3))]
    said += [(int(rng.integers(8)), int(rng.integers(3)), float(rng.random()), box(rng)) for _ in range(150)]
    crowds = rng.random(len(there)) < 0.15
    areas = rng.uniform(100, 20000, len(there)).tolist()
    ours = average_precision.coco(detections(*said), truths(*there, ignored=crowds.tolist(), areas=areas))

    with contextlib.redirect_stdout(io.StringIO()):
        theirs = coco.COCO()
        theirs.dataset = {
            "info": {},
            "images": [{"id": image} for image in range(8)],
            "categories": [{"id": label} for label in range(3)],
            "annotations": [
                {"id": number, "image_id": image, "category_id": label, "bbox": sides(edges), "area": areas[number - 1],
                 "iscrowd": int(crowds[number - 1])}
                for number, (image, label, edges) in enumerate(there, start=1)
            ],
        }  # fmt: skip
        theirs.createIndex()
        results = theirs.loadRes(
            [
                {"image_id": image, "category_id": label, "bbox": sides(edges), "score": score}
                for image, label, score, edges in said
            ]
        )
        judge = evaluation.COCOeval(theirs, results, "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    figures = [ours.average_precision, ours.at_50, ours.at_75, ours.small, ours.medium, ours.large]
    np.testing.assert_allclose(figures, judge.stats[:6], atol=1e-9)


def box(rng: np.random.Generator) -> list[float]:
    corner, size = rng.uniform(0, 300, 2), rng.uniform(5, 150, 2)
    return [*corner, *(corner + size)]


def shaken(rng: np.random.Generator, edges: list[float]) -> list[float]:
    corner, size = np.array(edges[:2]), np.subtract(edges[2:], edges[:2])
    corner, size = corner + rng.normal(0, 0.08, 2) * size, size * rng.uniform(0.85, 1.15, 2)
    return [*corner, *(corner + size)]


def sides(edges: list[float]) -> list[float]:
    return [edges[0], edges[1], edges[2] - edges[0], edges[3] - edges[1]]


# ---------------------------------------------------------------- doors


@pytest.mark.parametrize("rule", [average_precision.all_points, average_precision.ilsvrc, average_precision.coco])
def test_no_detections_and_nothing_to_find(rule) -> None:  # type: ignore[no-untyped-def]
    result = rule(detections(), truths((0, 0, UNIT)))
    assert (result.average_precision if rule is average_precision.coco else result.mean) == 0.0
    with pytest.raises(DataError, match="no true box to find"):
        rule(detections((0, 0, 0.9, UNIT)), truths((0, 0, UNIT), ignored=[True]))


def test_classes_without_objects_are_in_no_mean() -> None:
    said = detections((0, 0, 0.9, UNIT), (0, 5, 0.9, UNIT))
    found = average_precision.all_points(said, truths((0, 0, UNIT)))
    assert found.mean == 1.0 and list(found.by_class()) == [0]
    assert found.to_json() == {"rule": "all points, IoU 0.5", "mean": 1.0, "by_class": {"0": 1.0}}
    assert found.describe() == "mean average precision (all points, IoU 0.5) 1.0000 over 1 classes"


def test_shapes_and_scores_are_checked() -> None:
    with pytest.raises(UserError, match="scores contain NaN"):
        detections((0, 0, float("nan"), UNIT))
    with pytest.raises(UserError, match=r"Truths.is_ignored_M: expected shape \[1\], found \[2\]"):
        truths((0, 0, UNIT), ignored=[True, False])

"""Calibration against torchmetrics, scikit-learn, scipy and cases worked by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from scipy import optimize, special

from striate import files
from striate.classes import Classes
from striate.errors import CheckpointError, DataError, UserError
from striate.evaluate import calibrate, metrics
from striate.evaluate.calibrate import Temperature
from striate.predictions import Predictions


def drawn(images: int, classes: int, seed: int = 0, right: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    numbers = np.random.default_rng(seed)
    labels = numbers.integers(0, classes, images)
    scores = numbers.normal(size=(images, classes)).astype(np.float32)
    scores[np.arange(images), labels] += right * numbers.random(images).astype(np.float32)
    return scores, labels


def honest(images: int, classes: int, temperature: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores, and labels drawn from their softmax at this temperature: it is the right one, up to chance."""
    numbers = np.random.default_rng(seed)
    scores = (3 * numbers.normal(size=(images, classes))).astype(np.float32)
    chance = special.softmax(scores.astype(np.float64) / temperature, axis=1)
    labels = (chance.cumsum(axis=1) < numbers.random((images, 1))).sum(axis=1).clip(0, classes - 1)
    return scores, labels


def told(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return metrics.best_probabilities(scores), metrics.hits(scores, labels, 1)


def predicted(scores: np.ndarray, labels: np.ndarray, scale: str = "logits") -> Predictions:
    classes = Classes(tuple(f"c{i:03}" for i in range(scores.shape[1])), ("",) * scores.shape[1])
    return Predictions([f"{i}.jpg" for i in range(len(labels))], labels, scores, scale, classes, "made up")


# ---------------------------------------------------------------- calibration error


@pytest.mark.parametrize("bins", [1, 10, 15, 40])
def test_errors_equal_torchmetrics(bins: int) -> None:
    classification = pytest.importorskip("torchmetrics.functional.classification")
    scores, labels = drawn(700, 8)
    probabilities = torch.from_numpy(scores).double().softmax(1)
    table = calibrate.reliability(*told(scores, labels), bins)
    for norm, ours in (("l1", calibrate.expected_error(table)), ("max", calibrate.greatest_error(table))):
        theirs = classification.multiclass_calibration_error(
            probabilities, torch.from_numpy(labels), num_classes=8, n_bins=bins, norm=norm
        )
        assert ours == pytest.approx(float(theirs), abs=1e-6)


def test_reliability_by_hand() -> None:
    """An edge belongs to the bin below it, 0 and 1 to the first and the last; an empty bin has no accuracy."""
    confidence = np.array([0.0, 0.25, 0.26, 0.5, 1.0, 0.9])
    table = calibrate.reliability(confidence, np.array([0, 1, 1, 0, 1, 1], bool), bins=4)
    assert table.edges.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert table.images.tolist() == [2, 2, 0, 2]
    assert table.confidence[[0, 1, 3]] == pytest.approx([0.125, 0.38, 0.95])
    assert table.accuracy[[0, 1, 3]].tolist() == [0.5, 0.5, 1]
    assert math.isnan(table.accuracy[2]) and math.isnan(table.confidence[2])
    assert calibrate.expected_error(table) == pytest.approx((2 * 0.375 + 2 * 0.12 + 2 * 0.05) / 6)
    assert calibrate.greatest_error(table) == pytest.approx(0.375)
    assert json.loads(files.to_json(table.to_json()))["accuracy"][2] is None


def test_what_is_no_confidence_is_refused() -> None:
    right = np.ones(3, bool)
    with pytest.raises(DataError, match=r"image 1: expected 0\.\.1, found 1\.5"):
        calibrate.reliability(np.array([0.2, 1.5, 0.1]), right)
    with pytest.raises(DataError, match="image 2"):
        calibrate.reliability(np.array([0.2, 0.5, np.nan]), right)
    with pytest.raises(UserError, match=r"is_right_N: expected shape \[2\]"):
        calibrate.reliability(np.array([0.2, 0.5]), right)
    with pytest.raises(UserError, match="at least one image"):
        calibrate.reliability(np.empty(0), np.empty(0, bool))
    with pytest.raises(UserError, match="1 or more, found 0"):
        calibrate.reliability(np.full(3, 0.5), right, bins=0)
    with pytest.raises(UserError, match="100 resamples"):
        calibrate.error_interval(np.full(3, 0.5), right, resamples=10)


@pytest.mark.parametrize("excess", [0.0, 0.02, 0.1])
def test_the_interval_covers_the_true_error(excess: float) -> None:
    """Networks that are right in `confidence - excess` of the cases: their error is `excess`."""
    numbers = np.random.default_rng(3)
    covered = 0
    for seed in range(60):
        confidence = numbers.uniform(0.4, 1.0, 800)
        low, high = calibrate.error_interval(confidence, numbers.random(800) < confidence - excess, resamples=200, seed=seed)
        covered += low - 1e-12 <= excess <= high
    assert covered >= 51  # of 60: over 150 draws it was 89 to 99 %


def test_an_error_of_zero_by_luck_has_an_interval_all_the_same() -> None:
    """By chance 400 images of a calibrated network are off by 0.8 sqrt(c (1 - c) / 400) on average, in each of three bins."""
    confidence = np.repeat([0.25, 0.5, 0.75], 400)
    right = np.concatenate([np.arange(400) < 400 * value for value in (0.25, 0.5, 0.75)])
    assert calibrate.expected_error(calibrate.reliability(confidence, right)) == 0
    low, high = calibrate.error_interval(confidence, right)
    usual = 0.8 * (2 * math.sqrt(0.1875 / 400) + math.sqrt(0.25 / 400)) / 3
    assert low == 0 and 1.2 * usual < high < 3 * usual


def test_the_interval_is_always_the_same_and_another_seed_moves_it_little() -> None:
    confidence, right = told(*drawn(500, 5))
    first = calibrate.error_interval(confidence, right)
    assert first == calibrate.error_interval(confidence, right)
    assert first != calibrate.error_interval(confidence, right, seed=1)
    assert first == pytest.approx(calibrate.error_interval(confidence, right, seed=1), abs=0.01)


def test_brier_equals_the_sum_of_squares() -> None:
    scores, labels = drawn(300, 6)
    chance = special.softmax(scores.astype(np.float64), axis=1)
    assert calibrate.brier(scores, labels) == pytest.approx(((chance - np.eye(6)[labels]) ** 2).sum(axis=1).mean(), rel=1e-12)
    theirs = pytest.importorskip("sklearn.metrics")
    two, which = drawn(200, 2)
    chance = special.softmax(two.astype(np.float64), axis=1)
    assert calibrate.brier(two, which) == pytest.approx(2 * theirs.brier_score_loss(which, chance[:, 1]), rel=1e-12)


# ---------------------------------------------------------------- temperature


def test_the_temperature_equals_that_of_scipy() -> None:
    for seed, size in enumerate((0.3, 1.0, 8.0)):
        scores, labels = drawn(600, 7, seed)
        scores *= np.float32(size)

        def loss(log_temperature: float, scores=scores, labels=labels) -> float:
            scaled = special.log_softmax(scores.astype(np.float64) / math.exp(log_temperature), axis=1)
            return float(-scaled[np.arange(len(labels)), labels].mean())

        theirs = optimize.minimize_scalar(loss, bounds=(-4, 4), method="bounded", options={"xatol": 1e-10})
        found = calibrate.fit_temperature(scores, labels, "these")
        assert found.value == pytest.approx(math.exp(theirs.x), rel=1e-5)
        assert found.nll_after == pytest.approx(theirs.fun, rel=1e-12)
        assert found.nll_before == pytest.approx(metrics.cross_entropy(scores, labels, "logits"), rel=1e-12)
        assert (found.images, found.fitted_on, found.doubt) == (600, "these", "")


def test_the_temperature_that_made_the_labels_is_found_again() -> None:
    for temperature in (0.5, 1.0, 2.5):
        scores, labels = honest(20_000, 10, temperature)  # more than tell it nearly
        found = calibrate.fit_temperature(scores, labels)
        assert found.value == pytest.approx(temperature, rel=0.05)
        slope = calibrate._slopes(scores, labels, 1 / found.value)[1]
        assert abs(slope) < 1e-7


def test_log_probabilities_have_the_temperature_of_their_logits() -> None:
    scores, labels = drawn(400, 9)
    log_probabilities = metrics.log_probabilities(scores).astype(np.float32)
    assert calibrate.fit_temperature(log_probabilities, labels).value == pytest.approx(
        calibrate.fit_temperature(scores, labels).value, rel=1e-5
    )


def test_every_image_recognised_ends_at_the_lowest() -> None:
    labels = np.arange(50) % 5
    for size in (0.5, 3.0, 20.0):
        found = calibrate.fit_temperature(size * np.eye(5, dtype=np.float32)[labels], labels)
        assert found.value == calibrate.LOWEST
        assert found.nll_after <= found.nll_before
        assert "recognises (nearly) all of these 50 images" in found.doubt


def test_worse_than_chance_ends_at_the_highest() -> None:
    labels = np.arange(5000) % 5
    found = calibrate.fit_temperature(-np.eye(5, dtype=np.float32)[labels], labels)
    assert found.value == calibrate.HIGHEST
    assert found.nll_after == pytest.approx(math.log(5), abs=0.01)
    assert "say nothing about the labels" in found.doubt


def test_a_best_temperature_beyond_the_limits_is_cut_and_said() -> None:
    scores, labels = drawn(300, 4)
    tiny, enormous = (calibrate.fit_temperature(scores * np.float32(size), labels) for size in (1e-4, 1e4))
    assert (tiny.value, enormous.value) == (calibrate.LOWEST, calibrate.HIGHEST)
    assert "hardly differ" in tiny.doubt and "enormous" in enormous.doubt
    assert enormous.nll_after < enormous.nll_before


def test_scores_without_a_difference_leave_it_at_one() -> None:
    found = calibrate.fit_temperature(np.zeros((9, 3), np.float32), np.arange(9) % 3)
    assert (found.value, found.doubt) == (1.0, "")
    assert found.nll_before == found.nll_after == pytest.approx(math.log(3))


def test_huge_scores_and_a_probability_of_zero_stay_numbers() -> None:
    scores, labels = drawn(200, 4)
    huge = calibrate.fit_temperature(scores * np.float32(50), labels)
    assert huge.value == pytest.approx(50 * calibrate.fit_temperature(scores, labels).value, rel=1e-5)
    log_probabilities = metrics.log_probabilities(scores).astype(np.float32)
    log_probabilities[3, labels[3]] = -np.inf
    found = calibrate.fit_temperature(log_probabilities, labels)
    assert math.isfinite(found.nll_before) and found.value > calibrate.fit_temperature(scores, labels).value
    told_again = calibrate.scaled(predicted(log_probabilities, labels, "log-probabilities"), found.value)
    assert metrics.cross_entropy(told_again.scores, labels, told_again.scale) == pytest.approx(found.nll_after, rel=1e-6)


def test_what_cannot_be_fitted() -> None:
    with pytest.raises(UserError, match="at least one image"):
        calibrate.fit_temperature(np.zeros((0, 3), np.float32), np.zeros(0, np.int64))
    with pytest.raises(UserError, match="Leave unlabelled images out"):
        calibrate.fit_temperature(np.zeros((2, 3), np.float32), np.array([0, -1]))


def test_scaled_equals_torch_and_says_so() -> None:
    scores, labels = drawn(300, 6)
    found = calibrate.scaled(predicted(scores, labels), 1.7)
    theirs = torch.log_softmax(torch.from_numpy(scores).double() / 1.7, 1)
    assert np.allclose(found.scores, theirs, atol=1e-6)
    assert (found.scale, found.protocol) == ("log-probabilities", "made up · temperature 1.7")
    assert np.array_equal(metrics.ranks(found.scores, labels), metrics.ranks(scores, labels))
    for temperature in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(UserError, match="above 0"):
            calibrate.scaled(predicted(scores, labels), temperature)


def test_a_temperature_comes_back_from_its_file() -> None:
    made = calibrate.fit_temperature(*drawn(100, 4), fitted_on="half of val")
    assert Temperature.from_json(json.loads(files.to_json(made.to_json()))) == made
    with pytest.raises(CheckpointError, match=r"runs/x/calibration.json: not a temperature .*nll_after"):
        Temperature.from_json({"value": 1.0, "images": 3, "nll_before": 1.0}, "runs/x/calibration.json")
    with pytest.raises(CheckpointError, match="must be numbers"):
        Temperature.from_json(made.to_json() | {"value": "hot"})
    with pytest.raises(CheckpointError, match="not a temperature"):
        Temperature.from_json([1.0])
    with pytest.raises(CheckpointError, match="found 0"):
        Temperature.from_json(made.to_json() | {"value": 0})


def test_calibration_is_judged_by_images_that_did_not_choose() -> None:
    scores, labels = honest(6000, 10, 2.0)
    labels[:5] = -1
    found = calibrate.calibration(predicted(scores, labels))
    assert found.temperature.images + found.before.images == 5995
    assert found.temperature.fitted_on == f"{found.temperature.images:,} of 5,995 labelled images, chosen by key"
    assert found.after.error < 0.03 < 0.1 < found.before.error
    assert found.after.nll < found.before.nll
    assert found.before.error_interval[0] < found.before.error < found.before.error_interval[1]
    assert found.before.images == found.after.table.images.sum()


# ---------------------------------------------------------------- accuracy and coverage


def test_coverage_by_hand_with_a_block_of_equals() -> None:
    """0.9 right; then three at 0.8 of which one is right; then 0.1 wrong."""
    confidence = np.array([0.8, 0.9, 0.8, 0.1, 0.8])
    right = np.array([1, 1, 0, 0, 0], bool)
    curve = calibrate.coverage(confidence, right)
    expected = [1, (1 + 1 / 3) / 2, (1 + 2 / 3) / 3, 2 / 4, 2 / 5]
    assert curve.share.tolist() == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert curve.accuracy == pytest.approx(expected)
    assert curve.area == pytest.approx(1 - np.mean(expected))
    assert curve.at(0.4) == pytest.approx((2 / 3, 0.8))
    assert curve.at(0.41) == pytest.approx((5 / 9, 0.8))
    assert curve.at(1.0) == pytest.approx((0.4, 0.1))
    assert curve.at(0.001) == (1.0, 0.9)


def test_coverage_is_the_mean_over_all_orders_of_equals() -> None:
    numbers = np.random.default_rng(0)
    confidence, right = numbers.integers(0, 4, 60) / 4, numbers.random(60) < 0.6
    curves = []
    for _ in range(4000):
        mixed = numbers.permutation(60)
        order = mixed[np.argsort(-confidence[mixed], kind="stable")]
        curves.append(np.cumsum(right[order]) / np.arange(1, 61))
    curve = calibrate.coverage(confidence, right)
    assert curve.accuracy == pytest.approx(np.mean(curves, axis=0), abs=0.03)
    turned = calibrate.coverage(confidence[::-1], right[::-1])
    assert np.array_equal(curve.accuracy, turned.accuracy) and curve.area == turned.area


def test_coverage_without_equals_is_the_sorted_mean() -> None:
    scores, labels = drawn(400, 6)
    confidence, right = told(scores, labels)
    order = np.argsort(-confidence)
    curve = calibrate.coverage(confidence, right)
    for share in calibrate.COVERAGES:
        assert curve.at(share)[0] == pytest.approx(right[order[: round(share * 400)]].mean())
    assert curve.accuracy[-1] == pytest.approx(right.mean())


def test_what_has_no_coverage() -> None:
    with pytest.raises(DataError, match="image 1 is NaN"):
        calibrate.coverage(np.array([0.1, np.nan]), np.ones(2, bool))
    with pytest.raises(UserError, match="at least one image"):
        calibrate.coverage(np.empty(0), np.empty(0, bool))
    for share in (0.0, 1.1):
        with pytest.raises(UserError, match="above 0 and at most 1"):
            calibrate.coverage(np.array([0.1]), np.ones(1, bool)).at(share)

"""Tests of differences against published cases and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from striate.classes import Classes
from striate.errors import DataError, UserError
from striate.evaluate import metrics
from striate.evaluate.compare import _outcome_interval, difference, holm, mcnemar, two_proportions
from striate.predictions import Predictions


def hits(both: int, only_first: int, only_second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    first = [True] * (both + only_first) + [False] * (only_second + neither)
    second = [True] * both + [False] * only_first + [True] * only_second + [False] * neither
    return np.array(first), np.array(second)


@pytest.mark.parametrize(("only_first", "only_second"), [(0, 1), (1, 9), (4, 4), (12, 30), (150, 97), (4000, 4210), (0, 40)])
def test_mcnemar_is_the_exact_binomial_test_of_the_images_that_differ(only_first, only_second):
    expected = stats.binomtest(only_first, only_first + only_second, 0.5).pvalue
    for both, neither in ((0, 0), (500, 70)):  # the others have no say
        assert mcnemar(*hits(both, only_first, only_second, neither)) == pytest.approx(expected, rel=1e-9)
        assert mcnemar(*hits(both, only_second, only_first, neither)) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_of_networks_that_never_differ():
    assert mcnemar(*hits(10, 0, 0, 5)) == 1.0


def test_mcnemar_wants_the_same_images():
    with pytest.raises(UserError, match=r"second_N: expected shape \[3\]"):
        mcnemar(np.ones(3, bool), np.ones(4, bool))


@pytest.mark.parametrize("counts", [(30, 100, 45, 100), (1, 50, 9, 70), (480, 500, 460, 500), (29, 97, 41, 480)])
def test_two_proportions_is_the_chi_square_test_without_correction(counts):
    count, total, other, other_total = counts
    table = [[count, total - count], [other, other_total - other]]
    expected = stats.chi2_contingency(table, correction=False).pvalue
    assert two_proportions(*counts) == pytest.approx(expected, rel=1e-9)


def test_two_proportions_at_the_ends():
    assert two_proportions(0, 10, 0, 20) == two_proportions(10, 10, 20, 20) == 1.0
    for counts in ((1, 0, 1, 2), (3, 2, 1, 2), (-1, 2, 1, 2)):
        with pytest.raises(UserError, match="cannot be compared"):
            two_proportions(*counts)


def test_holm_by_hand():
    """0.01 * 4; then 0.02 * 3; then 0.03 * 2, no less than the one before; then 0.04."""
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.7, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def test_networks_that_are_alike_are_told_apart_as_seldom_as_promised():
    numbers = np.random.default_rng(0)
    found = [mcnemar(numbers.random(300) < 0.7, numbers.random(300) < 0.7) < 0.05 for _ in range(600)]
    assert 0.015 < np.mean(found) < 0.06  # the exact test errs on the safe side


# ---------------------------------------------------------------- two networks on the same images

CLASSES = Classes(tuple("abcdefgh"), ("",) * 8)


def said(images: int, seed: int, right: float) -> Predictions:
    numbers = np.random.default_rng(seed)
    labels = np.arange(images) % 8
    scores = numbers.normal(size=(images, 8)).astype(np.float32)
    scores[np.arange(images), labels] += np.float32(right)
    return Predictions([f"{i}.jpg" for i in range(images)], labels, scores, "logits", CLASSES)


def exactly(both: int, only_first: int, only_second: int, neither: int) -> tuple[Predictions, Predictions]:
    """Predictions with exactly these counts of recognised images."""
    pair = []
    for right in hits(both, only_first, only_second, neither):
        labels = np.zeros(len(right), np.int64)
        scores = np.eye(8, dtype=np.float32)[np.where(right, 0, 1)]
        pair.append(Predictions([str(i) for i in range(len(right))], labels, scores, "logits", CLASSES))
    return pair[0], pair[1]


def turned(predictions: Predictions) -> Predictions:
    """The same with the images in another order and the classes too."""
    order = np.arange(len(predictions))[::-1]
    mixed = predictions.select(order)
    classes = Classes(CLASSES.ids[::-1], CLASSES.names)
    return Predictions(mixed.keys, 7 - mixed.labels, mixed.scores[:, ::-1].copy(), "logits", classes)


@pytest.mark.parametrize("counts", [(30, 12, 270), (500, 430, 5000), (1, 0, 40), (0, 0, 10), (7, 7, 14)])
def test_the_exact_bootstrap_is_what_drawing_converges_to(counts):
    only_first, only_second, images = counts
    chance = [only_first / images, only_second / images, 1 - (only_first + only_second) / images]
    drawn = np.random.default_rng(0).multinomial(images, chance, 400_000)
    expected = np.quantile((drawn[:, 0] - drawn[:, 1]) / images, [0.025, 0.975])
    assert _outcome_interval(*counts) == pytest.approx(expected, abs=1.5 / images)


def test_the_interval_covers_as_it_says():
    numbers = np.random.default_rng(0)
    covered = []
    for only_first, only_second, _ in numbers.multinomial(400, [0.12, 0.07, 0.81], 400):
        low, high = _outcome_interval(int(only_first), int(only_second), 400)
        covered.append(low <= 0.05 <= high)
    assert 0.92 < np.mean(covered) < 0.98


@pytest.mark.parametrize(("measure", "k"), [("top-1", 1), ("top-5", 5)])
def test_difference_of_shares(measure, k):
    first, second = said(900, 0, 1.5), said(900, 1, 0.8)
    right = [metrics.hits(side.scores, side.labels, k) for side in (first, second)]
    found = difference(first, second, measure)
    assert (found.first, found.second) == pytest.approx((right[0].mean(), right[1].mean()))
    assert found.difference == pytest.approx(right[0].mean() - right[1].mean())
    assert (found.only_first, found.only_second) == ((right[0] & ~right[1]).sum(), (~right[0] & right[1]).sum())
    assert found.chance == mcnemar(*right)
    assert found.interval[0] < found.difference < found.interval[1]
    assert (found.images, found.left_out) == (900, 0)


def test_difference_of_losses_equals_scipy():
    first, second = said(700, 0, 1.5), said(700, 1, 1.3)
    gap = metrics.losses(first.scores, first.labels, "logits") - metrics.losses(second.scores, second.labels, "logits")
    found = difference(first, second, "loss")
    theirs = stats.bootstrap((gap,), np.mean, n_resamples=4000, method="percentile", rng=0).confidence_interval
    assert found.interval == pytest.approx(tuple(theirs), abs=0.01)
    assert found.chance == pytest.approx(stats.ttest_1samp(gap, 0).pvalue, abs=2e-3)
    assert (found.only_first, found.only_second) == ((gap < 0).sum(), (gap > 0).sum())
    assert found == difference(first, second, "loss")
    assert found.interval != difference(first, second, "loss", seed=1).interval


@pytest.mark.parametrize("measure", ["top-1", "top-5", "loss"])
def test_images_are_joined_by_key_and_classes_by_id(measure):
    first, second = said(300, 0, 1.5), said(300, 1, 1.0)
    straight, joined = difference(first, second, measure), difference(first, turned(second), measure)
    assert (joined.first, joined.only_first, joined.only_second) == (straight.first, straight.only_first, straight.only_second)
    assert joined.second == pytest.approx(straight.second, rel=1e-12)


def test_what_only_one_scored_or_nobody_labelled_is_left_out_and_said():
    first, second = said(300, 0, 1.5), said(300, 1, 1.0)
    labels = first.labels.copy()
    labels[[5, 250]] = -1
    first = Predictions(first.keys, labels, first.scores, "logits", CLASSES)
    found = difference(first.select(np.arange(290)), second.select(np.arange(10, 300)))
    assert (found.images, found.left_out) == (279, 21)
    assert "Left out: 21 images" in found.sentence()
    rows = np.setdiff1d(np.arange(10, 290), [250])
    whole = difference(first.select(rows), second.select(rows))
    assert (found.first, found.second, found.interval) == (whole.first, whole.second, whole.interval)


def test_what_cannot_be_compared():
    first, second = said(30, 0, 1.5), said(30, 1, 1.0)
    named = {"names": ("old", "new")}
    with pytest.raises(UserError, match="classes do not match"):
        other = Classes(tuple("abcdefgz"), ("",) * 8)
        difference(first, Predictions(second.keys, second.labels, second.scores, "logits", other))
    with pytest.raises(DataError, match=r"disagree about the labels of 30 images: '0.jpg' is a in old and b in new"):
        moved = (second.labels + 1) % 8
        difference(first, Predictions(second.keys, moved, second.scores, "logits", CLASSES), **named)
    with pytest.raises(DataError, match=r"no labelled image is in both \(old: '0.jpg', '1.jpg' and 28 more"):
        far = [f"x{key}" for key in second.keys]
        difference(first, Predictions(far, second.labels, second.scores, "logits", CLASSES), **named)
    with pytest.raises(DataError, match=r"found more than once: '3.jpg'"):
        difference(first.select(np.array([3, 3, 4])), second)
    with pytest.raises(DataError, match=r"true class of 1 images has probability zero, as of '4.jpg'"):
        scores = metrics.log_probabilities(first.scores).astype(np.float32)
        scores[4, first.labels[4]] = -np.inf
        difference(Predictions(first.keys, first.labels, scores, "log-probabilities", CLASSES), second, "loss")
    with pytest.raises(UserError, match="100 resamples or more, found 1"):
        difference(first, second, "loss", resamples=1)


def test_sentences():
    found = difference(*exactly(500, 60, 20, 420), names=("wide", "slim"))
    low, high = found.interval
    assert found.sentence() == (
        f"wide is better in top-1 by 4.00 points ({100 * low:.2f} to {100 * high:.2f}) on 1,000 images: wide 56.00%, "
        "slim 52.00%. With equally good networks a difference this large would be found in fewer than 0.1% of cases."
    )
    back = difference(*exactly(500, 20, 60, 420), names=("slim", "wide"))
    assert back.sentence() == found.sentence().replace("wide 56.00%, slim 52.00%", "slim 52.00%, wide 56.00%")
    near = difference(*exactly(500, 45, 40, 415), names=("wide", "slim"))
    assert near.sentence().startswith("No difference in top-1 that 1,000 images can show: wide 54.50%, slim 54.00% (-")
    assert f"would take about {near.needed:,} images" in near.sentence()
    same = difference(*exactly(5, 0, 0, 5), names=("wide", "slim"))
    assert (same.interval, same.chance, same.needed) == ((0, 0), 1.0, None)
    assert "would take" not in same.sentence()
    losses = difference(said(900, 0, 1.5), said(900, 1, 0.8), "loss", ("wide", "slim"))
    assert losses.sentence().startswith(f"wide is better in loss by {-losses.difference:.4f} nats ({-losses.interval[1]:.4f} to ")
    turned_round = difference(said(900, 1, 0.8), said(900, 0, 1.5), "loss", ("slim", "wide"))
    assert turned_round.sentence().startswith(f"wide is better in loss by {-losses.difference:.4f} nats (")


def test_the_needed_images_show_the_difference_in_four_of_five_attempts():
    chance = [0.06, 0.04, 0.9]
    needed = difference(*exactly(400, 60, 40, 500)).needed
    assert needed is not None
    numbers = np.random.default_rng(0)
    shown = [mcnemar(*hits(0, int(a), int(b), 0)) < 0.05 for a, b, _ in numbers.multinomial(needed, chance, 800)]
    assert 0.75 < np.mean(shown) < 0.84  # the exact test errs on the safe side

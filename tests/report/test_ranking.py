"""Classes and mistakes, against a table small enough to check by eye."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import poisson
from sklearn.metrics import f1_score

from striate.classes import Classes
from striate.doctor.rules import confusable_classes
from striate.predictions import Predictions
from striate.report import ranking

COUNTS_KK = np.array([[8, 2, 0, 0], [0, 4, 0, 0], [3, 1, 6, 0], [0, 0, 0, 0]])


def test_classes_best_first_without_empty_ones() -> None:
    scores = ranking.class_scores(COUNTS_KK)
    assert [(one.label, one.images, one.top1) for one in scores] == [(1, 4, 1.0), (0, 10, 0.8), (2, 10, 0.6)]
    assert [(one.taken_for, one.taken_for_images) for one in scores] == [(None, 0), (1, 2), (0, 3)]
    assert all(one.interval[0] <= one.top1 <= one.interval[1] for one in scores)


def test_f1_equals_scikit_learns() -> None:
    labels_N = np.repeat(np.repeat(np.arange(4), 4), COUNTS_KK.ravel())
    said_N = np.repeat(np.tile(np.arange(4), 4), COUNTS_KK.ravel())
    expected_K = f1_score(labels_N, said_N, labels=range(4), average=None, zero_division=0)
    assert {one.label: one.f1 for one in ranking.class_scores(COUNTS_KK)} == pytest.approx(dict(enumerate(expected_K[:3])))


def test_pairs_by_share_of_the_true_class() -> None:
    pairs = ranking.confused_pairs(COUNTS_KK, 2)
    assert [(pair.label, pair.predicted, pair.images, pair.of) for pair in pairs] == [(2, 0, 3, 10), (0, 1, 2, 10)]


def _said(scores_NK: list[list[float]], labels_N: list[int], scale: str = "logits") -> Predictions:
    classes = Classes(("a", "b", "c"), ("", "", ""))
    keys = [f"{row}.jpg" for row in range(len(labels_N))]
    return Predictions(keys, np.array(labels_N), np.array(scores_NK, np.float32), scale, classes)  # type: ignore[arg-type]


def test_surest_mistakes_equal_torch_softmax() -> None:
    scores_NK = [[5.0, 1, 0], [0, 9, 1], [2, 0, 7], [0, 3, 0], [4, 0, 0]]
    mistakes = ranking.surest_mistakes(_said(scores_NK, [0, 0, 1, 2, -1]), 2)
    shares_NK = torch.softmax(torch.tensor(scores_NK, dtype=torch.float64), dim=1).numpy()
    assert [one.key for one in mistakes] == ["1.jpg", "2.jpg"]  # the unlabelled image is no mistake, however sure
    np.testing.assert_allclose([one.probability for one in mistakes], [shares_NK[1, 1], shares_NK[2, 2]])
    np.testing.assert_allclose([one.probability_of_label for one in mistakes], [shares_NK[1, 0], shares_NK[2, 1]])


def test_log_probabilities_may_be_minus_infinity() -> None:
    (mistake,) = ranking.surest_mistakes(_said([[0.0, -np.inf, -np.inf]], [1], "log-probabilities"), 5)
    assert (mistake.predicted, mistake.probability, mistake.probability_of_label) == (0, 1.0, 0.0)


def test_no_mistakes() -> None:
    assert ranking.surest_mistakes(_said([[1.0, 0, 0]], [0]), 5) == []
    assert ranking.confused_pairs(np.diag([3, 4]), 5) == []


def _counts() -> np.ndarray:
    """Eight classes of 50 images: 0 and 1 are taken for each other, 2 for 3 now and then, all else is even."""
    counts_KK = np.full((8, 8), 2) + 34 * np.eye(8, dtype=np.int64)
    counts_KK[0, :2], counts_KK[1, :2] = (26, 12), (8, 30)
    return counts_KK


def test_a_pair_stands_out_of_what_the_other_mistakes_explain() -> None:
    (pair,) = ranking.mutual_pairs(_counts(), 5)
    assert (pair.first, pair.second, pair.first_as_second, pair.second_as_first) == (0, 1, 12, 8)
    assert (pair.mistakes, pair.images, pair.share) == (20, 100, 0.2)
    # By hand: 24 mistakes of class 0 over 1 (24 - 12 + 1) and six others (14 or 24 said of each, less 2, and 1 more).
    said = _counts().sum(axis=0) - np.diag(_counts())
    of_first = 24 * (said[1] - 12 + 1) / (said[1] - 12 + 1 + (said[2:] - 2 + 1).sum())
    of_second = 20 * (said[0] - 8 + 1) / (said[0] - 8 + 1 + (said[2:] - 2 + 1).sum())
    assert pair.expected == pytest.approx(of_first + of_second)
    assert poisson.sf(pair.mistakes - 1, pair.expected) * 28 < ranking.BY_CHANCE


def test_the_pair_and_what_is_expected_of_it_are_the_doctors() -> None:
    counts_KK = _counts()
    labels_N = np.repeat(np.repeat(np.arange(8), 8), counts_KK.ravel())
    said_N = np.repeat(np.tile(np.arange(8), 8), counts_KK.ravel())
    scores_NK = np.eye(8, dtype=np.float32)[said_N]
    classes = Classes(tuple("abcdefgh"), ("",) * 8)
    said = Predictions([str(row) for row in range(len(labels_N))], labels_N, scores_NK, "logits", classes)
    finding = confusable_classes.check(said, None)
    assert finding is not None
    (pair,) = ranking.mutual_pairs(counts_KK, 5)
    words = f"{pair.mistakes} mistakes, {pair.share:.0%} of their images, {pair.expected:.1f} expected"
    assert finding.evidence["pairs"] == {"a / b": words}


@pytest.mark.parametrize(
    "counts_KK",
    [
        np.full((6, 6), 4),  # a network that guesses
        np.array([[5, 5], [5, 5]]),  # of two classes every mistake is for the other one
        np.diag([3, 4, 5]),
        np.zeros((3, 3), np.int64),
        np.array([[10, 0, 0, 9], [0, 10, 0, 9], [0, 0, 10, 9], [0, 0, 0, 19]]),  # one class is said for all: no pair
    ],
)
def test_what_chance_explains_is_no_pair(counts_KK: np.ndarray) -> None:
    assert ranking.mutual_pairs(counts_KK, 5) == []


def test_pairs_by_chance_are_rare() -> None:
    random = np.random.default_rng(0)
    found = 0
    for _ in range(100):
        counts_KK = np.stack([random.multinomial(50, np.where(np.arange(20) == label, 0.62, 0.02)) for label in range(20)])
        found += bool(ranking.mutual_pairs(counts_KK, 5))
    assert found <= 10


def test_mistakes_of_a_pair_come_from_both_directions() -> None:
    scores_NK = [[1.0, 5, 0], [0, 2, 0], [0, 9, 0], [3.0, 0, 0], [4, 0, 0], [9, 0, 0], [0, 0, 9]]
    said = _said(scores_NK, [0, 0, 0, 1, 1, 0, 0])
    pair = ranking.MutualPair(0, 1, 3, 2, 7, 1.0)
    assert [one.key for one in ranking.mistakes_between(said, pair, 4)] == ["2.jpg", "0.jpg", "4.jpg", "3.jpg"]
    assert [one.key for one in ranking.mistakes_between(said, pair, 2)] == ["2.jpg", "4.jpg"]
    one_way = _said(scores_NK[:3], [0, 0, 0])
    assert [one.key for one in ranking.mistakes_between(one_way, pair, 4)] == ["2.jpg", "0.jpg", "1.jpg"]
    assert {(one.label, one.predicted) for one in ranking.mistakes_between(one_way, pair, 4)} == {(0, 1)}

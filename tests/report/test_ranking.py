"""Classes and mistakes, against a table small enough to check by eye."""

from __future__ import annotations

import numpy as np
import torch

from striate.classes import Classes
from striate.predictions import Predictions
from striate.report import ranking

COUNTS_KK = np.array([[8, 2, 0, 0], [0, 4, 0, 0], [3, 1, 6, 0], [0, 0, 0, 0]])


def test_classes_best_first_without_empty_ones() -> None:
    scores = ranking.class_scores(COUNTS_KK)
    assert [(one.label, one.images, one.top1) for one in scores] == [(1, 4, 1.0), (0, 10, 0.8), (2, 10, 0.6)]
    assert [(one.taken_for, one.taken_for_images) for one in scores] == [(None, 0), (1, 2), (0, 3)]
    assert all(one.interval[0] <= one.top1 <= one.interval[1] for one in scores)


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

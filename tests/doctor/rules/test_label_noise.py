"""Fires on wrong labels and estimates their share; silent on good, bad, overconfident and untrained networks."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from striate.doctor.finding import NotJudged
from striate.doctor.rules import label_noise
from tests.doctor.rules import data_makers as made


@pytest.mark.parametrize("temperature", [1.0, 0.3, 3.0], ids=["calibrated", "overconfident", "unsure"])
@pytest.mark.parametrize(("classes", "wrong"), [(10, 0.05), (10, 0.2), (100, 0.1)])
def test_the_share_is_estimated(classes, wrong, temperature):
    found = label_noise.check(made.predictions(2000, classes, wrong=wrong, temperature=temperature), None)
    assert found is not None
    assert (found.severity, found.cause) == ("warning", "label-noise")
    low, high = found.evidence["interval"]
    assert low - 0.02 <= wrong <= high + 0.02
    assert found.evidence["share of wrong labels"] == pytest.approx(wrong, abs=0.04)


@pytest.mark.parametrize("temperature", [1.0, 0.3, 3.0])
@pytest.mark.parametrize("sharpness", [1.5, 3.0, 10.0], ids=["bad", "middling", "good"])
@pytest.mark.parametrize("classes", [4, 10, 200])
def test_right_labels_are_silent_whatever_the_network(classes, sharpness, temperature):
    try:
        assert label_noise.check(made.predictions(2000, classes, sharpness, 0.0, temperature), None) is None
    except NotJudged as outcome:
        assert str(outcome) == "the network knows too little"
        assert sharpness < 3 or classes == 4


def test_most_of_the_listed_images_have_wrong_labels():
    right = made.predictions(2000, 10, 5.0)
    noisy = made.predictions(2000, 10, 5.0, wrong=0.1)
    moved = {key for key, a, b in zip(right.keys, right.labels, noisy.labels, strict=True) if a != b}
    found = label_noise.check(noisy, None)
    assert found is not None
    worst = list(found.evidence["worst"])
    assert sum(key in moved for key in worst) >= 0.9 * len(worst)


def test_networks_that_know_too_little_are_silent():
    draw = np.random.default_rng(0)
    scores = draw.normal(size=(1000, 10)) * 20
    with pytest.raises(NotJudged):
        label_noise.check(made.of_scores(scores, draw.integers(0, 10, 1000)), None)
    constant = np.zeros((1000, 10))
    constant[:, 3] = 20
    with pytest.raises(NotJudged):
        label_noise.check(made.of_scores(constant, draw.integers(0, 10, 1000)), None)


def test_missing_facts():
    noisy = made.predictions(2000, 10, wrong=0.2)
    for lacking in (
        noisy.select(np.arange(100)),
        dataclasses.replace(noisy, protocol="train-sample split, 2000 images"),
        dataclasses.replace(noisy, labels=np.full(2000, -1)),
        made.predictions(2000, 3),
    ):
        with pytest.raises(NotJudged):
            label_noise.check(lacking, None)


def test_confusable_classes_are_not_noise():
    """Two classes that the network cannot tell apart make errors that its probabilities explain."""
    draw = np.random.default_rng(0)
    true = draw.integers(0, 10, 2000)
    scores = draw.normal(size=(2000, 10))
    scores[np.arange(2000), true] += 6
    scores[np.arange(2000), np.where(true < 2, 1 - true, true)] += np.where(true < 2, 6 + draw.normal(size=2000), 0)
    assert label_noise.check(made.of_scores(scores, true), None) is None


def test_log_probabilities_with_minus_infinity():
    noisy = made.predictions(2000, 10, wrong=0.2)
    shares = noisy.scores - np.log(np.exp(noisy.scores).sum(axis=1, keepdims=True))
    shares[shares < -12] = -np.inf
    logs = dataclasses.replace(noisy, scores=shares.astype(np.float32), scale="log-probabilities")
    found = label_noise.check(logs, None)
    assert found is not None
    assert found.evidence["share of wrong labels"] == pytest.approx(0.2, abs=0.05)

"""The probe: closed-form predictions against fitting anew, chance against shuffling, the best renaming against trying all."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from striate.doctor import neighbours, thumbnails
from striate.doctor.neighbours import Probe
from tests.doctor.rules import data_makers as made


def _random_features(count: int = 30, dimensions: int = 5) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, dimensions)).astype(np.float32)


def test_left_out_scores_are_those_of_a_regression_without_the_image():
    features, classes = _random_features(), 3
    labels = np.arange(30) % classes
    probe = Probe(features)
    left_out = probe.left_out(labels, classes)
    targets = np.eye(classes)[labels] - np.eye(classes)[labels].mean(axis=0)
    squared = np.square(features[:, None] - features[None]).sum(axis=2, dtype=np.float64)
    kernel = np.exp(-squared / np.median(squared))
    for out in (0, 7, 29):
        kept = np.arange(30) != out
        weights = np.linalg.solve(kernel[np.ix_(kept, kept)] + 0.1 * np.eye(29), targets[kept])
        assert left_out[out] == pytest.approx(kernel[out, kept] @ weights, abs=1e-3)


def test_scale_shift_and_normalisation_of_pixels_do_not_matter():
    labels = made.labels(4, 10)
    pixels = made.pictures(labels, side=32).astype(np.float32)
    assert neighbours.features(pixels) == pytest.approx(neighbours.features(pixels / 255 * 4.4 - 2), abs=2e-2)


def test_right_labels_are_far_above_chance_and_shuffled_ones_are_not():
    labels = made.labels(10, 30)
    probe = Probe(neighbours.features(made.pictures(labels, side=32).astype(np.float32)))
    assert neighbours.agreement(probe, labels, 10).above > 20
    shuffled = [np.random.default_rng(seed).permutation(labels) for seed in range(20)]
    above = [neighbours.agreement(probe, one, 10).above for one in shuffled]
    assert abs(float(np.mean(above))) < 0.8
    assert max(above) < 4


def test_chance_of_unequal_classes_is_that_of_shuffling():
    labels = np.repeat([0, 1], [180, 20])
    probe = Probe(_random_features(200))
    assert abs(neighbours.agreement(probe, labels, 2).above) < 3


def test_constant_images_are_no_numbers_that_are_not_finite():
    features = neighbours.features(np.zeros((6, 32, 32, 3), np.float32))
    assert np.isfinite(features).all()
    assert np.isfinite(Probe(features).left_out(np.arange(6) % 2, 2)).all()


@pytest.mark.parametrize("count", [1, 2, 5, 6])
def test_the_best_assignment_is_the_best_of_all(count):
    for seed in range(5):
        worth = np.random.default_rng(seed).normal(size=(count, count))
        best = max(worth[np.arange(count), list(order)].sum() for order in itertools.permutations(range(count)))
        found = neighbours.best_assignment(worth)
        assert sorted(found.tolist()) == list(range(count))
        assert worth[np.arange(count), found].sum() == pytest.approx(best)


def test_labels_are_counted_without_gaps():
    numbers, meaning = neighbours.numbered(np.array([7, 2, 7, 900]))
    assert numbers.tolist() == [1, 0, 1, 2]
    assert meaning.tolist() == [2, 7, 900]


def test_one_class_or_too_few_images_are_not_judged():
    one = np.zeros(50, np.int64)
    assert neighbours.of(made.ours(made.index(made.pictures(one), one)), "train") is None
    few = made.labels(10, 2)
    assert neighbours.of(made.ours(made.index(made.pictures(few), few)), "train") is None


def test_two_to_two_hundred_classes_of_tiny_imagenet_are_above_chance(real_data):
    for classes in (2, 12, 200):
        train = made.tiny(real_data, classes).train
        found = thumbnails.of_index(train, 20.0)
        labels, present = neighbours.numbered(found.labels_N)
        probe = Probe(neighbours.features(found.pixels_NSS3))
        assert neighbours.agreement(probe, labels, len(present)).above > 7
        shuffled = np.random.default_rng(0).permutation(labels)
        assert abs(neighbours.agreement(probe, shuffled, len(present)).above) < 3

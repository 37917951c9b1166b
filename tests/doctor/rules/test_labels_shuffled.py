"""Fires on labels that do not belong to their images, with the proof beside it; silent on right, noisy, few and hard ones."""

from __future__ import annotations

import numpy as np
import pytest

from striate.doctor.finding import NotJudged
from striate.doctor.rules import labels_shuffled
from tests.doctor.rules import data_makers as made


def _shuffled(labels, seed=3):
    return np.random.default_rng(seed).permutation(labels)


def _strangers_keys(count):
    return [f"{row:06d}.jpg" for row in range(count)]


@pytest.mark.parametrize(("classes", "per_class"), [(2, 250), (10, 50), (60, 12)])
def test_shuffled_labels_alone_are_a_warning(classes, per_class):
    labels = made.labels(classes, per_class)
    found = labels_shuffled.check(made.ours(made.index(made.pictures(labels), _shuffled(labels))))
    assert found is not None
    assert (found.severity, found.cause) == ("warning", "labels-shuffled")


def test_words_in_the_names_are_a_proof():
    labels = made.labels(6, 40)
    keys = [f"n0000000{label}_{row}.jpg" for row, label in enumerate(labels)]
    found = labels_shuffled.check(made.ours(made.index(made.pictures(labels), _shuffled(labels), keys=keys)))
    assert found is not None
    assert found.severity == "error"
    assert "n00000000" in found.evidence["words in names"]


@pytest.mark.parametrize("move", [1, -2])
def test_a_lost_row_is_a_proof(move):
    labels = made.labels(6, 40)
    patient = made.ours(made.index(made.pictures(labels), np.roll(labels, move)))
    found = labels_shuffled.check(patient)
    assert found is not None
    assert (found.severity, found.cause) == ("error", "labels-shuffled")
    assert found.evidence["labels moved by rows"] == move
    stranger = made.stranger(made.loader(made.pictures(labels), np.roll(labels, move)))
    assert labels_shuffled.check(stranger).evidence["labels moved by rows"] == move


def test_images_in_order_of_classes_are_a_proof():
    labels = np.sort(made.labels(6, 40))
    found = labels_shuffled.check(made.ours(made.index(made.pictures(labels), _shuffled(labels))))
    assert found is not None
    assert found.severity == "error"
    assert "deviations above chance of blocks of rows" in found.evidence


def test_copies_under_other_labels_are_a_proof():
    labels = made.labels(6, 30)
    pixels = made.pictures(labels)
    pixels = np.concatenate([pixels, pixels[:60]])
    found = labels_shuffled.check(made.ours(made.index(pixels, _shuffled(np.concatenate([labels, labels[:60]])))))
    assert found is not None
    assert found.evidence["pairs of the same picture"] >= 50


def test_the_other_split_is_a_proof_in_both_directions():
    labels = made.labels(6, 40)
    right = made.index(made.pictures(labels), labels)
    wrong = made.relabelled(right, _shuffled(labels))
    for train, val, name in ((wrong, right, "training"), (right, wrong, "validation")):
        found = labels_shuffled.check(made.ours(train, val))
        assert found is not None
        assert (found.severity, found.evidence["split"]) == ("error", name)


def test_a_strangers_loader():
    labels = made.labels(10, 50)
    found = labels_shuffled.check(made.stranger(made.loader(made.pictures(labels), _shuffled(labels))))
    assert found is not None
    assert found.cause == "labels-shuffled"


@pytest.mark.parametrize("wrong", [0.0, 0.2, 0.5])
@pytest.mark.parametrize("signal", [0.3, 0.5])
def test_right_and_noisy_labels_are_silent(wrong, signal):
    labels = made.labels(10, 50)
    noisy = np.where(np.random.default_rng(0).random(500) < wrong, _shuffled(labels), labels)
    assert labels_shuffled.check(made.ours(made.index(made.pictures(labels, signal=signal), noisy))) is None


def test_few_images_are_silent_even_when_shuffled():
    labels = made.labels(4, 25)
    with pytest.raises(NotJudged, match="too few labelled images"):
        labels_shuffled.check(made.ours(made.index(made.pictures(labels), _shuffled(labels))))
    labels = made.labels(6, 50)  # 300 images without a proof
    keys = _strangers_keys(300)
    with pytest.raises(NotJudged):
        labels_shuffled.check(made.ours(made.index(made.pictures(labels), _shuffled(labels), keys=keys)))


def test_hard_images_are_at_most_a_warning_that_says_so():
    labels = made.labels(4, 150)
    found = labels_shuffled.check(made.ours(made.index(made.pictures(labels, signal=0.0), labels)))
    assert found is not None
    assert found.severity == "warning"
    assert found.causes[0].weight < 0.7


def test_names_that_say_nothing_are_no_proof():
    labels = made.labels(10, 50)
    keys = [f"photos/{'IMG' if row % 3 else 'DSC'}_{row}.jpg" for row in range(500)]
    found = labels_shuffled.check(made.ours(made.index(made.pictures(labels), _shuffled(labels), keys=keys)))
    assert found is not None
    assert found.severity == "warning"


def test_missing_facts():
    with pytest.raises(NotJudged):
        labels_shuffled.check(made.stranger(made.loader(made.pictures(made.labels(2, 8)), made.labels(2, 8))))


def test_the_built_in_set():
    splits = made.built_in()
    assert labels_shuffled.check(made.ours(splits.train, splits.val)) is None
    wrong = made.relabelled(splits.train, _shuffled(splits.train.labels))
    found = labels_shuffled.check(made.ours(wrong, splits.val))
    assert found is not None
    assert found.severity == "error"


@pytest.mark.parametrize("classes", [2, 20, 200])
def test_tiny_imagenet(real_data, classes):
    splits = made.tiny(real_data, classes)
    assert labels_shuffled.check(made.ours(splits.train, splits.val)) is None
    wrong = made.relabelled(splits.train, _shuffled(splits.train.labels))
    found = labels_shuffled.check(made.ours(wrong, splits.val))
    assert found is not None
    assert (found.severity, found.cause) == ("error", "labels-shuffled")


def _partly(labels, wrong):
    """Labels of which so many are drawn anew."""
    return np.where(np.random.default_rng(0).random(len(labels)) < wrong, _shuffled(labels), labels)


@pytest.mark.parametrize(("train", "val", "fires"), [(0.5, 0.0, True), (0.5, 0.5, False), (0.0, 0.5, False), (0.1, 0.0, False)])
def test_training_labels_that_fit_far_less_than_those_of_validation_are_a_note(train, val, fires):
    labels, others = made.labels(10, 50), made.labels(10, 20, seed=1)
    patient = made.ours(
        made.index(made.pictures(labels), _partly(labels, train)),
        made.index(made.pictures(others, seed=1), _partly(others, val), "val"),
    )
    found = labels_shuffled.check(patient)
    assert (found is not None) == fires
    if found is not None:
        assert (found.code, found.severity, found.cause) == ("labels-partly-wrong", "note", "label-noise")
        assert found.evidence["agreement in training"] == pytest.approx(0.5 * found.evidence["agreement in validation"], abs=0.1)


@pytest.mark.parametrize(("share", "fires"), [(0.7, True), (0.85, False)])
def test_where_nearly_all_images_have_one_label_the_others_are_too_few_to_look_alike(share, fires):
    labels = made.labels(10, 50)
    others = round(500 * (1 - share))
    unequal = _shuffled(np.concatenate([1 + np.arange(others) % 5, np.zeros(500 - others, dtype=np.int64)]), seed=5)
    patient = made.stranger(made.loader(made.pictures(labels), unequal))
    if fires:
        assert labels_shuffled.check(patient).cause == "labels-shuffled"
    else:
        with pytest.raises(NotJudged, match="of one class"):
            labels_shuffled.check(patient)

"""Fires on copies of training images in the validation set, byte for byte or by looks; silent on one, and on none."""

from __future__ import annotations

import numpy as np
import pytest

from striate.doctor.finding import NotJudged
from striate.doctor.rules import train_in_val
from tests.doctor.rules import data_makers as made


def _patient(share=0.0, change=lambda x: x, count=200):
    labels, val_labels = made.labels(5, 60), made.labels(5, count // 5, seed=1)
    train, val = made.pictures(labels), made.pictures(val_labels, seed=1)
    copied = round(share * count)
    val[:copied] = change(train[:copied])
    return made.ours(made.index(train, labels), made.index(val, val_labels, "val"))


@pytest.mark.parametrize(("share", "severity"), [(0.03, "warning"), (0.3, "error"), (1.0, "error")])
def test_copies_byte_for_byte(share, severity):
    found = train_in_val.check(_patient(share))
    assert found is not None
    assert (found.severity, found.cause) == (severity, "train-in-val")
    assert found.evidence["of them also in training"] == round(share * 200)
    assert found.evidence["examples"]


def test_copies_that_were_saved_again():
    def again(pixels):
        noise = np.random.default_rng(0).integers(-3, 4, pixels.shape)
        return np.clip(pixels.astype(int) + noise, 0, 255).astype(np.uint8)

    found = train_in_val.check(_patient(0.5, again))
    assert found is not None
    assert found.cause == "train-in-val"
    assert found.evidence["of them also in training"] == 0
    assert found.evidence["of them the same picture as one in training"] >= 90


def test_one_copy_is_a_note():
    found = train_in_val.check(_patient(0.005))
    assert found is not None
    assert found.severity == "note"


def test_healthy_and_missing_facts():
    assert train_in_val.check(_patient()) is None
    labels = made.labels(5, 20)
    for patient in (
        made.ours(made.index(made.pictures(labels), labels)),
        made.stranger(made.loader(made.pictures(labels), labels)),
    ):
        with pytest.raises(NotJudged, match="no validation images"):
            train_in_val.check(patient)


def test_a_stranger_who_scores_on_the_training_set():
    labels = made.labels(5, 40)
    train = made.loader(made.pictures(labels), labels)
    found = train_in_val.check(made.stranger(train, train))
    assert found is not None
    assert found.severity == "error"


def test_files_of_the_built_in_set():
    splits = made.built_in()
    assert train_in_val.check(made.ours(splits.train, splits.val)) is None
    found = train_in_val.check(made.ours(splits.train, splits.train.select(np.arange(100))))
    assert found is not None
    assert found.severity == "error"


@pytest.mark.parametrize("classes", [12, 200])
def test_tiny_imagenet_as_shipped_is_at_most_a_note(real_data, classes):
    splits = made.tiny(real_data, classes)
    found = train_in_val.check(made.ours(splits.train, splits.val))
    assert found is None or found.severity == "note"

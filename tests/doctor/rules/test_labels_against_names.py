"""Fires where file names say another class; silent on names that agree, and on names that say nothing of classes."""

from __future__ import annotations

import numpy as np
import pytest

from striate.doctor.finding import NotJudged
from striate.doctor.rules import labels_against_names
from tests.doctor.rules import data_makers as made

WORDS = ["cat", "dog", "fire_engine", "n01440764", "zebra", "yurt"]


def _patient(share, keys=None, per_class=50):
    labels = made.labels(6, per_class)
    names = keys or [f"all/{WORDS[label]}_{row:04d}.jpg" for row, label in enumerate(labels)]
    moved = np.random.default_rng(0).random(len(labels)) < share
    given = np.where(moved, (labels + 1 + np.arange(len(labels)) % 5) % 6, labels)
    return made.ours(made.index(np.zeros((len(labels), 4, 4, 3), np.uint8), given, keys=names))


@pytest.mark.parametrize("share", [0.02, 0.2, 0.4])
def test_some_images_under_another_label(share):
    found = labels_against_names.check(_patient(share))
    assert found is not None
    assert (found.severity, found.cause) == ("warning", "label-noise")
    assert found.evidence["share"] == pytest.approx(share, abs=0.08)


def test_names_that_agree():
    assert labels_against_names.check(_patient(0.0)) is None


@pytest.mark.parametrize(
    "keys",
    [
        [f"all/{row:06d}.jpg" for row in range(300)],
        [f"all/{'IMG' if row % 3 else 'DSC'}_{row}.jpg" for row in range(300)],
        [f"all/person{chr(97 + row % 26)}{chr(97 + row // 26)}_{row}.jpg" for row in range(300)],
    ],
    ids=["numbers", "cameras", "people"],
)
def test_names_that_say_nothing(keys):
    with pytest.raises(NotJudged, match="file names say nothing"):
        labels_against_names.check(_patient(0.0, keys))


def test_shuffled_labels_fit_no_name_and_are_another_rules_affair():
    with pytest.raises(NotJudged):
        labels_against_names.check(_patient(1.0))


def test_missing_facts():
    labels = made.labels(3, 20)
    with pytest.raises(NotJudged, match="no file names"):
        labels_against_names.check(made.stranger(made.loader(made.pictures(labels), labels)))
    with pytest.raises(NotJudged):
        labels_against_names.check(_patient(0.2, per_class=2))


def test_the_built_in_set_and_tiny_imagenet(real_data):
    for splits in (made.built_in(), made.tiny(real_data, 200)):
        assert labels_against_names.check(made.ours(splits.train, splits.val)) is None

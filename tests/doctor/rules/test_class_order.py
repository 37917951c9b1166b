"""Fires where validation labels are renamed, and says how; silent on right, few, shuffled and otherwise prepared ones."""

from __future__ import annotations

import numpy as np
import pytest

from striate.doctor.finding import NotJudged
from striate.doctor.rules import class_order
from tests.doctor.rules import data_makers as made

CLASSES = 12


def _splits(rename=None, val_per_class=20, signal=0.35):
    labels, val_labels = made.labels(CLASSES, 40), made.labels(CLASSES, val_per_class, seed=1)
    train = made.index(made.pictures(labels, signal=signal), labels)
    val = made.index(made.pictures(val_labels, signal=signal, seed=1), val_labels, "val")
    return train, val if rename is None else made.relabelled(val, rename[val_labels])


def _as_text():
    return np.argsort(sorted(range(CLASSES), key=str))


RENAMED = {
    "any": (np.random.default_rng(4).permutation(CLASSES), "class-order", "another order"),
    "reversed": (np.arange(CLASSES)[::-1].copy(), "class-order", "the other way round"),
    "as text": (_as_text(), "class-order", "numbers sorted as text"),
    "from one": (np.arange(CLASSES) + 1, "labels-off-by-one", "one too high"),
    "from minus one": ((np.arange(CLASSES) - 1) % CLASSES, "labels-off-by-one", "one too low"),
}


@pytest.mark.parametrize("name", RENAMED)
def test_renamed(name):
    rename, cause, order = RENAMED[name]
    found = class_order.check(made.ours(*_splits(rename)))
    assert found is not None
    assert (found.severity, found.cause) == ("error", cause)
    assert found.evidence["order"] == order
    assert found.evidence["agree renamed"] > 2 * found.evidence["agree as numbered"]


def test_two_classes_exchanged_are_found():
    rename = np.arange(CLASSES)
    rename[[2, 7]] = rename[[7, 2]]
    found = class_order.check(made.ours(*_splits(rename, val_per_class=40)))
    assert found is not None
    assert found.evidence["classes renamed"] == 2


def test_a_strangers_loaders_under_any_normalisation():
    labels, val_labels = made.labels(CLASSES, 40), made.labels(CLASSES, 20, seed=1)
    train = made.loader(made.pictures(labels, signal=0.4), labels, made.imagenet)
    val = made.pictures(val_labels, signal=0.4, seed=1)
    assert class_order.check(made.stranger(train, made.loader(val, val_labels, made.as_is))) is None
    rename = RENAMED["any"][0]
    found = class_order.check(made.stranger(train, made.loader(val, rename[val_labels], made.as_is)))
    assert found is not None
    assert found.cause == "class-order"


@pytest.mark.parametrize("signal", [0.2, 0.35, 0.6])
def test_healthy(signal):
    assert class_order.check(made.ours(*_splits(signal=signal))) is None


def test_silent_on_missing_facts():
    train, val = _splits(RENAMED["any"][0])
    with pytest.raises(NotJudged, match="no validation images"):
        class_order.check(made.ours(train))
    with pytest.raises(NotJudged, match="too few"):
        class_order.check(made.ours(train, val.select(np.arange(20))))


def test_shuffled_labels_are_another_rules_affair():
    train, val = _splits()
    shuffle = np.random.default_rng(0).permutation
    with pytest.raises(NotJudged):
        class_order.check(made.ours(made.relabelled(train, shuffle(train.labels)), val))
    with pytest.raises(NotJudged):
        class_order.check(made.ours(train, made.relabelled(val, shuffle(val.labels))))


def test_hard_images_are_silent():
    labels, val_labels = made.labels(4, 100), made.labels(4, 40, seed=1)
    train = made.index(made.pictures(labels, signal=0.0), labels)
    val = made.index(made.pictures(val_labels, signal=0.0, seed=1), (val_labels + 1) % 4, "val")
    with pytest.raises(NotJudged, match="looks do not"):
        class_order.check(made.ours(train, val))


def test_the_built_in_set():
    splits = made.built_in()
    assert class_order.check(made.ours(splits.train, splits.val)) is None
    rename = np.random.default_rng(1).permutation(12)
    found = class_order.check(made.ours(splits.train, made.relabelled(splits.val, rename[splits.val.labels])))
    assert found is not None
    assert found.cause == "class-order"


@pytest.mark.parametrize("classes", [12, 20, 200])
def test_tiny_imagenet(real_data, classes):
    splits = made.tiny(real_data, classes)
    assert class_order.check(made.ours(splits.train, splits.val)) is None
    moved = made.relabelled(splits.val, (splits.val.labels + 1) % classes)
    found = class_order.check(made.ours(splits.train, moved))
    assert found is not None
    assert found.cause == "labels-off-by-one"

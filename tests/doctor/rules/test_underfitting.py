"""Training images are known no better than new ones, and it stays so."""

from __future__ import annotations

import math

import pytest

from striate.doctor.rules import underfitting


def small(makers, sample=0.42, **more):
    scores = {"val": makers.Scores(lambda t: 1.62, lambda t: 0.4), "sample": makers.Scores(lambda t: 1.6, lambda t: sample)}
    more = {"lr": lambda t: 0.05, "changes": {"optim.schedule": "constant"}, **scores, **more}
    return makers.training(lambda t: 1.6 + 0.7 * math.exp(-30 * t), top1=lambda t: 0.41, **more)


def test_too_small(makers):
    found = underfitting.check(small(makers))
    assert found.severity == "warning"
    assert found.cause == "underfitting"
    assert found.remedies[1].changes == {"budget.epochs": 90.0}


def test_a_table(makers):
    history = makers.table_of(loss=lambda t: 1.6, top1=lambda t: 0.4, val_loss=lambda t: 1.65, val_top1=lambda t: 0.39, epochs=20)
    assert underfitting.check(history).cause == "underfitting"


def test_a_rate_too_low_is_named_where_the_updates_say_so(makers):
    assert underfitting.check(small(makers, groups={"conv1": (0.3, 2e-5), "fc": (0.5, 3e-5)})).cause == "learning-rate-low"


def test_training_images_known_far_better_are_another_matter(makers):
    assert underfitting.check(small(makers, sample=0.68)) is None


def test_regularisation_is_another_matter(makers):
    changes = {"model.options.dropout": 0.9, "optim.schedule": "constant"}
    assert underfitting.check(small(makers, changes=changes)) is None


def test_learnt_by_heart_from_wrong_labels_is_another_matter(makers):
    assert underfitting.check(small(makers, val=makers.Scores(lambda t: 2.5, lambda t: 0.1), sample=0.13)) is None


def test_silent_on_healthy_trainings(makers, healthy):
    assert makers.asked(underfitting, healthy) is None


def test_an_ended_training_that_hardly_knows_its_own_images(makers):
    """The rate has fallen to nothing, the loss is still moving a little, and one image in five is known."""
    scores = {"val": makers.Scores(lambda t: 2.3, lambda t: 0.2), "sample": makers.Scores(lambda t: 2.25, lambda t: 0.24)}
    history = makers.training(lambda t: 2.6 - 0.4 * t, top1=lambda t: 0.1 + 0.12 * t, lr=lambda t: 0.1 * (1 - t), **scores)
    found = underfitting.check(history)
    assert found is not None and found.cause == "underfitting" and "ends at" in found.sentence


def ended(makers, train, val, images=5000):
    """A training whose rate has fallen to nothing, with a loss that moves to the end."""
    scores = {
        "val": makers.Scores(lambda t: 1.4, lambda t: val, images=images),
        "sample": makers.Scores(lambda t: 1.3, lambda t: train, images=images),
    }
    return makers.training(lambda t: 2.6 - 1.2 * t, top1=lambda t: 0.1 + 0.4 * t, lr=lambda t: 0.1 * (1 - t), **scores)


@pytest.mark.parametrize(("train", "severity"), [(0.34, "warning"), (0.41, "note"), (0.6, "note"), (0.67, None)])
def test_what_an_ended_training_knows_of_its_own_images(makers, train, severity):
    """Of the way from 0.1 to 1: below 0.3 (an accuracy of 0.37) a warning, below 0.6 (of 0.64) worth knowing."""
    found = underfitting.check(ended(makers, train, train - 0.02))
    assert (found and found.severity) == severity
    assert found is None or found.cause == "underfitting"


@pytest.mark.parametrize(("images", "fires"), [(600, True), (5000, False)])
def test_a_gap_that_so_few_images_explain_is_none(makers, images, fires):
    """Accuracies of 600 images that differ by 0.1 differ by 0.05 more than chance explains, those of 5,000 by 0.08."""
    assert (underfitting.check(ended(makers, 0.34, 0.24, images)) is not None) == fires

"""Held down by dropout, L2 or augmentation."""

from __future__ import annotations

import math

import pytest

from striate.doctor.rules import regularisation


def held(makers, **more):
    usual = {
        "top1": lambda t: 0.24,
        "val": makers.Scores(lambda t: 1.9, lambda t: 0.3),
        "sample": makers.Scores(lambda t: 1.85, lambda t: 0.31),
    }
    return makers.training(lambda t: 2.0 + 0.3 * math.exp(-30 * t), lr=lambda t: 0.02, **{**usual, **more})


@pytest.mark.parametrize(
    "changes",
    [
        {"model.options.dropout": 0.9},
        {"augment.mixup": 0.8, "augment.cutmix": 1.0, "augment.policy": "randaugment", "loss.smoothing": 0.4},
        {"augment.scale": (0.08, 1.0), "augment.policy": "trivialaugment"},
    ],
)
def test_set_too_strong(makers, changes):
    found = regularisation.check(held(makers, changes=changes))
    assert found.cause == "regularisation-strong"
    assert found.remedies[0].changes


def test_weight_decay(makers):
    found = regularisation.check(held(makers, changes={"optim.weight_decay": 0.1, "optim.lr": 0.1}))
    assert found.cause == "weight-decay-high"


def test_more_known_than_training_shows(makers):
    sample = makers.Scores(lambda t: 1.2, lambda t: 0.6)
    found = regularisation.check(held(makers, sample=sample, changes={"model.options.dropout": 0.8}))
    assert found.severity == "warning"
    assert "points higher" in found.sentence


def test_most_of_the_loss_is_the_l2_term(makers):
    history = held(makers, penalty=lambda t: 6.0, changes={"loss.l2": 1e-3, "loss.l2_layers": ("fc",)})
    found = regularisation.check(history)
    assert found.severity == "warning"
    assert "75% of the loss is the L2 term" in found.sentence
    assert found.remedies[0].changes == {"loss.l2": 1e-5}


def test_the_high_losses_of_the_report_of_kth(makers):
    """Document 003, figure 5: dropout of 70 % and L2 in each layer; losses far above ln 200 at an accuracy above guessing."""
    history = makers.table_of(
        loss=lambda t: 9.0 - t, val_loss=lambda t: 8.9 - t, top1=lambda t: 0.05 + 0.05 * t, val_top1=lambda t: 0.08, classes=200
    )
    assert regularisation.check(history).cause == "regularisation-strong"


def test_model_c_of_that_report(makers):
    """6 % top-1 for validation and less for training, and both stand still."""
    history = makers.table_of(
        loss=lambda t: 5.0, val_loss=lambda t: 4.8, top1=lambda t: 0.025, val_top1=lambda t: 0.06, classes=200, epochs=20
    )
    assert regularisation.check(history).cause == "regularisation-strong"


def test_a_plateau_with_nothing_strong_set_is_another_matter(makers):
    assert regularisation.check(held(makers, top1=lambda t: 0.3)) is None


def test_overfitting_is_another_matter(makers):
    history = held(makers, top1=lambda t: 0.7, changes={"model.options.dropout": 0.9})
    assert regularisation.check(history) is None


def test_silent_on_healthy_trainings(makers, healthy):
    assert makers.asked(regularisation, healthy) is None


def test_a_loss_far_above_guessing_that_the_same_images_do_not_have(makers):
    scores = {"val": makers.Scores(lambda t: 2.4, lambda t: 0.18), "sample": makers.Scores(lambda t: 2.4, lambda t: 0.18)}
    found = regularisation.check(makers.training(lambda t: 14 - 2 * t, top1=lambda t: 0.1, classes=12, **scores))
    assert found is not None and found.cause == "regularisation-strong" and found.severity == "warning"

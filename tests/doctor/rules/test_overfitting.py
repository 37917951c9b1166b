"""Validation turns while training goes on."""

from __future__ import annotations

import pytest

from striate.doctor.rules import overfitting


def turning(makers, top1, rise=1.0, **more):
    val = makers.Scores(lambda t: 2.2 - 4 * t if t < 0.3 else 1.0 + rise * (t - 0.3), top1, **more)
    return makers.training(
        makers.falling(2.4, 0.01, 6), val=val, sample=makers.scored(2.3, 0.02, 0.1, 1.0, evaluations=val.evaluations)
    )


def test_loss_and_accuracy_turn(makers):
    found = overfitting.check(turning(makers, lambda t: 0.6 if t < 0.4 else 0.5))
    assert found.severity == "warning"
    assert found.cause == "overfitting"
    assert found.evidence["lowest validation loss"] == pytest.approx(1.0)
    assert found.curve.mark == (pytest.approx(3.0), "validation at its best")
    assert found.remedies[0].changes["loss.smoothing"] == 0.1


def test_far_apart_it_is_a_warning_though_accuracy_holds(makers):
    assert overfitting.check(turning(makers, lambda t: 0.5)).severity == "warning"


def test_only_too_sure_is_a_note(makers):
    assert overfitting.check(turning(makers, lambda t: min(0.85, 0.5 + t), rise=0.4)).severity == "note"


def test_the_curves_of_the_report_of_kth(makers):
    """Document 003, figure 4: 20 epochs, validation loss turns after five to ten of them."""
    history = makers.table_of(
        loss=makers.falling(5.0, 0.3, 4), val_loss=lambda t: 5 - 4 * t if t < 0.35 else 3.6 + 4 * (t - 0.35), classes=200
    )
    found = overfitting.check(history)
    assert found.severity == "warning"
    assert "(epoch 6)" in found.sentence


def test_a_gap_alone_is_none(makers):
    val = makers.scored(2.2, 1.0, 0.1, 0.65)
    assert (
        overfitting.check(makers.training(makers.falling(2.4, 0.02), val=val, sample=makers.scored(2.2, 0.05, 0.1, 1.0))) is None
    )


def test_one_bad_evaluation_is_none(makers):
    val = makers.Scores(lambda t: 3.0 if 0.45 < t < 0.55 else 2.2 - t, lambda t: 0.5)
    assert overfitting.check(makers.training(makers.falling(2.4, 0.1), val=val)) is None


def test_a_training_that_bursts_is_none(makers):
    val = makers.Scores(lambda t: 1.5 + 3 * t, lambda t: 0.3)
    assert overfitting.check(makers.training(lambda t: 1.5 + 3 * t, val=val)) is None


def test_silent_on_healthy_trainings(makers, healthy):
    assert makers.asked(overfitting, healthy) is None

"""Slow, straight, and far from done."""

from __future__ import annotations

import math

import pytest

from striate.doctor.rules import rate_too_low

LOW = {"conv1": (0.3, 1e-5), "layer1": (0.1, 6e-6), "fc": (0.5, 3e-5)}


def test_tiny_updates_and_little_learnt(makers):
    found = rate_too_low.check(
        makers.training(lambda t: 2.6 - 0.2 * t, groups=LOW, steps=100, every=5, noise=0.02, changes={"optim.lr": 1e-5})
    )
    assert found.severity == "warning"
    assert found.cause == "learning-rate-low"
    assert found.remedies[0].changes["optim.lr"] == pytest.approx(3e-4)


def test_small_ones_are_a_note(makers):
    groups = {name: (gradient, 1.5e-4) for name, (gradient, _) in makers.GROUPS.items()}
    assert rate_too_low.check(makers.training(lambda t: 2.3 - 0.1 * t, groups=groups)).severity == "note"


def test_a_straight_line_in_a_table(makers):
    history = makers.table_of(loss=lambda t: 2.3 - 0.3 * t, top1=lambda t: 0.1 + 0.1 * t, epochs=20, noise=0.002)
    found = rate_too_low.check(history)
    assert found.cause == "learning-rate-low"
    assert "straight line" in found.sentence


def test_falling_fast_and_then_slowly_is_well(makers):
    assert rate_too_low.check(makers.table_of(loss=makers.falling(2.3, 1.9, 6), epochs=20)) is None


def test_a_loss_without_gradient_is_another_matter(makers):
    groups = {"conv1": (1e-9, 1e-9), "layer1": (1e-9, 1e-9), "fc": (0.5, 1e-4)}
    assert rate_too_low.check(makers.training(lambda t: 2.3, groups=groups)) is None


def test_silent_on_healthy_trainings(makers, healthy):
    assert makers.asked(rate_too_low, healthy) is None


@pytest.mark.parametrize("classes", [10, None])
def test_a_table_that_crawls(makers, classes):
    """It falls in every epoch, ever more slowly, and is next to where it began: by the classes, or by its first loss."""
    history = makers.table_of(loss=lambda t: 2.3 - 0.1 * (1 - math.exp(-3 * t)), epochs=20, classes=classes)
    found = rate_too_low.check(history)
    assert (found.severity, found.cause) == ("warning", "learning-rate-low")
    assert "in nearly every epoch" in found.sentence
    assert found.evidence["second half fell by"] < 0.6 * found.evidence["first half fell by"]


@pytest.mark.parametrize(
    "loss",
    [lambda t: 2.3 - 0.1 * (1 - math.exp(-3 * t)) + 0.02 * (-1) ** round(20 * t), lambda t: 2.3 - 0.4 * (1 - math.exp(-3 * t))],
    ids=["up and down", "away from guessing"],
)
def test_no_table_that_crawls(makers, loss):
    assert rate_too_low.check(makers.table_of(loss=loss, epochs=20)) is None

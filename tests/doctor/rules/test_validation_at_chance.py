"""Training learns and validation guesses."""

from __future__ import annotations

from striate.doctor.rules import validation_at_chance


def guessing(makers, first, **more):
    """first: training accuracy in the first epoch (of ten)."""
    usual = {
        "top1": lambda t: first if t <= 0.1 else 0.2 + 0.6 * t,
        "val": makers.Scores(lambda t: 2.5 + 3 * t, lambda t: 0.1),
        "sample": makers.scored(2.2, 0.5, 0.1, 0.85),
    }
    return makers.training(makers.falling(2.4, 0.5), **{**usual, **more})


def test_new_images_are_right_in_training_only(makers):
    found = validation_at_chance.check(guessing(makers, 0.3))
    assert found.severity == "error"
    assert found.cause == "class-order"
    assert "guessing among 10 classes has 10.0%" in found.sentence


def test_only_images_that_came_again_are_right(makers):
    assert validation_at_chance.check(guessing(makers, 0.1)).cause == "labels-shuffled"


def test_below_guessing_is_an_order_of_classes(makers):
    val = makers.Scores(lambda t: 4.0, lambda t: 0.03)
    assert validation_at_chance.check(guessing(makers, 0.3, val=val)).cause == "class-order"


def test_a_table(makers):
    history = makers.table_of(
        loss=makers.falling(2.3, 0.3), top1=lambda t: 0.3 + 0.6 * t, val_loss=lambda t: 4.0 + t, val_top1=lambda t: 0.1
    )
    assert validation_at_chance.check(history).cause == "class-order"


def test_training_images_that_score_as_badly_are_another_matter(makers):
    assert validation_at_chance.check(guessing(makers, 0.3, sample=makers.Scores(lambda t: 3.0, lambda t: 0.11))) is None


def test_a_validation_above_guessing_is_well(makers):
    assert validation_at_chance.check(guessing(makers, 0.3, val=makers.Scores(lambda t: 2.2, lambda t: 0.16))) is None


def test_silent_on_healthy_trainings(makers, healthy):
    assert makers.asked(validation_at_chance, healthy) is None

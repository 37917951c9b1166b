"""Too few validation images for what is read from them."""

from __future__ import annotations

import pytest

from striate.doctor.rules import evaluation_size


def few(makers, images=100, **more):
    return makers.training(makers.falling(2.4, 0.5), val=makers.scored(2.2, 0.9, images=images, evaluations=12), **more)


def test_a_note_where_nothing_else_goes_by_it(makers):
    found = evaluation_size.check(few(makers))
    assert found.severity == "note"
    assert found.cause == "evaluation-small"
    assert found.evidence["half of the 95 % interval"] == pytest.approx(0.08, abs=0.02)


@pytest.mark.parametrize("changes", [{"budget.patience": 3}, {"optim.schedule": "plateau"}])
def test_a_warning_where_a_decision_goes_by_it(makers, changes):
    found = evaluation_size.check(few(makers, changes=changes))
    assert found.severity == "warning"
    assert "goes by it" in found.sentence


def test_many_images_are_enough(makers):
    assert evaluation_size.check(few(makers, images=20_000)) is None
    assert evaluation_size.check(few(makers, images=5_000, changes={"budget.patience": 3})) is None


def test_a_best_that_stands_out_is_surely_best(makers):
    val = makers.Scores(lambda t: 1.0, lambda t: 0.1 if t < 1 else 0.8, evaluations=4, images=300)
    assert evaluation_size.check(makers.training(makers.falling(2.4, 0.5), val=val)) is None


def test_silent_on_healthy_trainings(makers, healthy):
    found = makers.asked(evaluation_size, healthy)
    assert found is None or found.severity == "note", found.sentence

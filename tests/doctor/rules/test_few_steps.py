"""A large batch and few steps, as the records tell them."""

from __future__ import annotations

import pytest

from striate.doctor.finding import NotJudged
from striate.doctor.rules import few_steps


def _trained(makers, batch_size=256, steps=40, steps_per_epoch=2, **more):
    return makers.training(
        makers.falling(2.4, 2.0), batch_size=batch_size, steps=steps, every=5, steps_per_epoch=steps_per_epoch, **more
    )


def test_two_steps_an_epoch(makers):
    found = few_steps.check(_trained(makers))
    assert (found.cause, found.severity) == ("batch-too-large", "warning")
    assert "Batches of 256 make 2 steps an epoch and 40 in all" in found.sentence
    assert found.remedies[0].changes == {"optim.batch_size": 32}


def test_while_it_goes_on_it_is_a_note(makers):
    assert few_steps.check(_trained(makers, until=0.5)).severity == "note"


@pytest.mark.parametrize(
    "more",
    [{"batch_size": 64}, {"steps": 150}, {"steps_per_epoch": 6}],
    ids=["a usual batch", "steps enough", "steps enough in an epoch"],
)
def test_silent_for_usual_ones(makers, more):
    assert few_steps.check(_trained(makers, **more)) is None


def test_a_table_does_not_tell_its_batch(makers):
    with pytest.raises(NotJudged):
        few_steps.check(makers.table_of(loss=makers.falling(2.3, 0.5)))


def test_silent_on_healthy_trainings(makers, healthy):
    assert makers.asked(few_steps, healthy) is None

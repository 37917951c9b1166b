from __future__ import annotations

import pytest

from striate.doctor.finding import NotJudged
from striate.doctor.rules import batch_size
from tests.doctor import makers


def _check(total, per_epoch, **changes):
    recipe = makers.recipe(**changes)
    return batch_size.check(makers.patient(makers.small(), recipe=recipe, total_steps=total, steps_per_epoch=per_epoch))


def test_an_epoch_of_two_steps():
    found = _check(40, 2, optim__batch_size=512, optim__lr=0.1)
    assert found.cause == "batch-too-large"
    changes = found.remedies[0].changes
    assert changes["optim.batch_size"] < 512 and changes["optim.lr"] < 0.1


def test_a_batch_of_two_at_the_rate_of_a_large_one():
    found = _check(5000, 600, optim__batch_size=2, optim__lr=0.1)
    assert found.cause == "batch-too-small"
    assert {"optim.lr": pytest.approx(0.1 * 2 / 256, rel=0.1)} in [dict(one.changes) for one in found.remedies]


@pytest.mark.parametrize(
    ("total", "per_epoch", "changes"),
    [
        (5000, 100, {"optim__batch_size": 128}),
        (100, 18, {"optim__batch_size": 64}),
        (5000, 100, {"optim__batch_size": 8, "optim__lr": 0.005}),
        (None, 3, {"optim__batch_size": 256}),
    ],
)
def test_silent_for_usual_ones(total, per_epoch, changes):
    assert _check(total, per_epoch, **changes) is None


def test_nothing_is_known_of_a_stranger():
    with pytest.raises(NotJudged):
        batch_size.check(makers.patient(makers.small()))

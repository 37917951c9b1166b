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


@pytest.mark.parametrize(("size", "severity"), [(64, "note"), (128, "warning")])
def test_few_steps_of_a_usual_batch_are_a_note_for_there_are_few_images(size, severity):
    found = _check(40, 2, optim__batch_size=size)
    assert (found.cause, found.severity) == ("batch-too-large", severity)
    weights = {cause.name: cause.weight for cause in found.causes}
    assert weights["time"] == (0.5 if size == 64 else 0.3)


@pytest.mark.parametrize(
    ("size", "per_epoch", "cause"),
    [(128, 3, "batch-too-large"), (128, 1, "batch-too-large"), (3, 2, "batch-too-small"), (3, None, "batch-too-small")],
)
def test_a_strangers_loader_at_the_far_ends(size, per_epoch, cause):
    found = batch_size.check(makers.patient(makers.small(), 8, batch=size, steps_per_epoch=per_epoch))
    assert (found.cause, found.severity) == (cause, "note")
    assert found.evidence == {"batch": size, "steps in an epoch": per_epoch}
    assert ("1 step in" in found.sentence) == (per_epoch == 1)


@pytest.mark.parametrize(("size", "per_epoch"), [(128, 4), (127, 1), (4, 1000), (3, 1)])
def test_silent_for_a_strangers_usual_loader(size, per_epoch):
    assert batch_size.check(makers.patient(makers.small(), 8, batch=size, steps_per_epoch=per_epoch)) is None


def test_a_strangers_loader_without_a_length():
    with pytest.raises(NotJudged, match="length"):
        batch_size.check(makers.patient(makers.small()))

from __future__ import annotations

import pytest
from torch import nn

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


def test_a_batch_that_memory_does_not_hold(monkeypatch):
    model = makers.network("resnet18", width=16)
    recipe = makers.recipe(optim__batch_size=256)
    patient = makers.patient(model, 64, recipe=recipe, total_steps=5000, steps_per_epoch=100)
    for_each = patient.signals.kept_bytes / patient.signals.images
    assert 1e5 < for_each < 1e8
    monkeypatch.setattr(batch_size.machine, "free_memory_bytes", lambda: int(20 * for_each))
    found = batch_size.check(patient)
    assert found.cause == "memory" and found.severity == "error"
    parts = found.remedies[0].changes["optim.accumulate"]
    assert 256 % parts == 0 and 256 // parts < 40
    monkeypatch.setattr(batch_size.machine, "free_memory_bytes", lambda: int(2000 * for_each))
    assert batch_size.check(patient) is None


def test_what_a_pass_keeps_is_what_torch_keeps():
    """One convolution and its ReLU: the input, the output that the ReLU needs, and what the head takes."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 32 * 32, 12)).train()
    patient = makers.patient(model, batch=4)
    kept = patient.signals.kept_bytes / patient.signals.images
    assert 4 * (3 + 8) * 32 * 32 <= kept <= 4 * (3 + 3 * 8) * 32 * 32 + 10_000

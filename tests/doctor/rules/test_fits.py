"""Fires on what is far beyond memory or time, reckoned by hand beside it; silent where it is near."""

from __future__ import annotations

import pytest
from torch import nn

from striate.doctor.finding import NotJudged
from striate.doctor.rules import fits
from tests.doctor import makers

WEIGHTS = sum(one.numel() for one in makers.small().parameters()) * 4


def _patient(**changes):
    recipe = makers.recipe(**{"optim__batch_size": 256, "optim__precision": "fp32"} | changes)
    return makers.patient(makers.small(), batch=8, recipe=recipe)


def _free(monkeypatch, free):
    monkeypatch.setattr(fits.machine, "free_memory_bytes", lambda: int(free))


def test_a_batch_that_memory_does_not_hold(monkeypatch):
    patient = _patient()
    for_each = fits._kept_bytes(patient)
    needed = 256 * for_each + 3 * WEIGHTS
    _free(monkeypatch, needed / 1.31)
    found = fits.check(patient)
    assert (found.cause, found.severity) == ("memory", "error")
    assert found.evidence["memory needed"] == pytest.approx(needed)
    parts = found.remedies[0].changes["optim.accumulate"]
    assert 256 % parts == 0 and 256 / parts * for_each + 3 * WEIGHTS <= 0.8 * needed / 1.31
    assert 256 / parts < found.remedies[1].changes["optim.batch_size"] + 1
    _free(monkeypatch, needed / 1.29)
    assert fits.check(patient) is None


def test_parts_of_a_batch_and_16_bits_take_less(monkeypatch):
    for_each = fits._kept_bytes(_patient())
    _free(monkeypatch, (256 * for_each + 3 * WEIGHTS) / 2)
    assert fits.check(_patient()).cause == "memory"
    assert fits.check(_patient(optim__accumulate=4)) is None
    assert fits.check(_patient(optim__precision="bf16")) is None


def test_what_a_pass_keeps_is_what_torch_keeps():
    """One convolution and its ReLU: the input, the output that the ReLU needs, and what the head takes."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 32 * 32, 12)).train()
    kept = fits._kept_bytes(makers.patient(model, batch=4))
    assert 4 * (3 + 8) * 32 * 32 <= kept <= 4 * (3 + 3 * 8) * 32 * 32 + 10_000


@pytest.mark.parametrize(("given", "epochs"), [("60s", 0.12), ("4m", 0.48), ("5m", None), ("2h", None)])
def test_a_time_that_half_an_epoch_does_not_fit_into(monkeypatch, given, epochs):
    """A pass of 8 images takes 0.8 s, so 5,000 images take 500 s."""
    _free(monkeypatch, 1e15)
    patient = _patient(budget__epochs=None, budget__time=given)
    patient.train_index = range(5000)
    assert patient.signals.images == 8
    patient.pass_s = 0.8
    found = fits.check(patient)
    assert (found is None) == (epochs is None)
    if found is not None:
        assert (found.cause, found.severity) == ("time", "warning")
        assert found.evidence["seconds for an epoch"] == pytest.approx(500.0)
        assert f"about {epochs} epochs" in found.sentence


def test_silent_for_a_usual_training():
    assert fits.check(_patient()) is None


def test_not_judged_without_a_recipe():
    with pytest.raises(NotJudged):
        fits.check(makers.patient(makers.small(), batch=8))

"""Fires on smoothing that leaves little of the label, told by the recipe or by a stranger's gradient; silent on usual ones."""

from __future__ import annotations

import functools

import pytest
from torch import nn
from torch.nn import functional

from striate.doctor.finding import NotJudged
from striate.doctor.rules import label_smoothing
from tests.doctor import makers


def _new():
    """A network that guesses, as most new ones do."""
    model = makers.small()
    nn.init.normal_(model[-1].weight, std=1e-3)
    return model


def _stranger(smoothing, factor=1.0):
    smoothed = functools.partial(functional.cross_entropy, label_smoothing=smoothing)
    return makers.patient(_new(), batch=8, loss=lambda outputs, labels: factor * smoothed(outputs, labels))


@pytest.mark.parametrize("smoothing", [0.5, 0.9])
def test_a_recipe(smoothing):
    found = label_smoothing.check(makers.patient(makers.small(), batch=4, recipe=makers.recipe(loss__smoothing=smoothing)))
    assert (found.cause, found.severity) == ("regularisation-strong", "warning")
    assert found.evidence["smoothing"] == smoothing and f"{1 - smoothing:.0%}" in found.sentence
    assert found.remedies[0].changes == {"loss.smoothing": 0.1}


@pytest.mark.parametrize("smoothing", [0.6, 0.9])
def test_a_strangers_loss_shows_it_in_its_gradient(smoothing):
    found = label_smoothing.check(_stranger(smoothing))
    assert found.cause == "regularisation-strong" and found.evidence["smoothing"] == pytest.approx(smoothing, abs=0.02)
    assert not found.remedies[0].changes


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.2])
def test_silent_for_usual_ones(smoothing):
    assert label_smoothing.check(_stranger(smoothing)) is None
    assert label_smoothing.check(makers.patient(makers.small(), recipe=makers.recipe(loss__smoothing=smoothing))) is None


def test_a_loss_that_is_scaled_as_a_whole_is_not_judged():
    with pytest.raises(NotJudged):
        label_smoothing.check(_stranger(0.0, factor=0.2))


def test_a_network_that_has_learnt_is_not_judged():
    """Its gradient is small because it is right."""
    patient = _stranger(0.0)
    patient.model[-1].bias.data[patient.labels[0]] = 20.0
    patient.labels = patient.labels[:1].expand(8)
    with pytest.raises(NotJudged):
        label_smoothing.check(patient)

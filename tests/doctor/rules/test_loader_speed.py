"""Fires on batches that come slower than the network takes them, with times by hand; silent on fast and on short ones."""

from __future__ import annotations

import time

import pytest
import torch

from striate.doctor import examine
from striate.doctor.finding import NotJudged
from striate.doctor.rules import loader_speed
from tests.doctor import makers


def _check(loading_s, pass_s, batch=8):
    patient = makers.patient(makers.small(), batch=batch, loading_s=loading_s)
    assert patient.signals.images == min(batch, 32)
    patient.pass_s = pass_s
    return loader_speed.check(patient)


def test_a_slow_loader_without_the_time_in_which_its_workers_start():
    found = _check([9.0, 9.0, 0.3, 0.3, 0.3], 0.1)
    assert (found.cause, found.severity) == ("waiting-for-data", "warning")
    assert found.evidence["seconds to load a batch"] == pytest.approx(0.3)
    assert "75% of the time" in found.sentence


def test_the_network_is_given_the_time_of_the_whole_batch():
    """A pass looks at 32 of 64 images: their batch takes 0.4 s, and 0.5 s to load is no more than half as much again."""
    assert _check([0.0, 0.0, 0.5, 0.5, 0.5], 0.2, batch=64) is None
    assert _check([0.0, 0.0, 0.7, 0.7, 0.7], 0.2, batch=64).evidence["seconds of a pass over it"] == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("loading_s", "pass_s"),
    [([9.0, 9.0, 0.14, 0.14, 0.14], 0.1), ([0.04] * 5, 0.001), ([0.0, 0.0, 0.01, 0.01, 3.0], 0.1)],
    ids=["nearly as fast", "short", "one late"],
)
def test_silent(loading_s, pass_s):
    assert _check(loading_s, pass_s) is None


class Slow:
    """Three batches; each but the first two takes 0.1 s."""

    def __iter__(self):
        for number in range(5):
            time.sleep(0.1 if number > 1 else 0.0)
            yield makers.images(8, seed=number)


def test_batches_are_timed_while_they_are_loaded():
    loading = examine._Loading(Slow(), torch.device("cpu"), "the loader")
    first = next(loading())
    model = makers.small()
    patient = makers.patient(model, batch=8, loading_s=loading.seconds)
    patient.images, patient.labels, patient.train = *first, loading
    patient.signals  # noqa: B018  measures the time of a pass
    patient.pass_s = 0.01
    found = loader_speed.check(patient)
    assert found.evidence["seconds to load a batch"] == pytest.approx(0.1, abs=0.05)


def test_not_judged_with_a_recipe_or_few_batches():
    with pytest.raises(NotJudged, match="plan"):
        loader_speed.check(makers.patient(makers.small(), recipe=makers.recipe()))
    with pytest.raises(NotJudged, match="too few"):
        _check([3.0, 3.0], 0.1)

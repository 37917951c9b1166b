"""Isolated jumps of the loss."""

from __future__ import annotations

import math

import pytest

from striate.doctor.rules import spikes


def jumping(makers, places, height=3.0, **more):
    return makers.training(lambda t: (2.4 - 1.6 * t) * (height if any(abs(t - one) < 0.013 for one in places) else 1), **more)


def test_jumps_that_go_on_are_a_warning(makers):
    found = spikes.check(jumping(makers, (0.3, 0.5, 0.7, 0.9)))
    assert found.severity == "warning"
    assert found.cause == "learning-rate-high"
    assert found.evidence["jumps"] == 4
    assert "clip-norm" in found.remedies[0].flags


def test_one_that_healed_is_a_note(makers):
    found = spikes.check(jumping(makers, (0.4,)))
    assert found.severity == "note"
    assert "jumped 1 time," in found.sentence


def test_known_bad_images_are_to_blame(makers):
    history = jumping(makers, (0.3, 0.6, 0.9))
    history.bad["a.jpg"] = "cut short"
    assert spikes.check(history).cause == "bad-batch"


def test_tiny_batches_are_to_blame(makers):
    assert spikes.check(jumping(makers, (0.3, 0.6, 0.9), batch_size=4)).cause == "batch-too-small"


def test_noise_is_no_jump(makers):
    for seed in range(10):
        assert spikes.check(makers.training(makers.falling(2.4, 0.5), noise=0.25, seed=seed)) is None


def test_the_fall_at_the_start_is_no_jump(makers):
    assert spikes.check(makers.training(makers.falling(40.0, 1.0, 60))) is None


@pytest.mark.parametrize("pace", [-0.3, -0.2, -0.05, 0.1])
def test_a_smooth_curve_has_no_jump(makers, pace):
    history = makers.table_of(loss=lambda t: 2.3 * math.exp(pace * 30 * t) + 0.2, epochs=30)
    assert spikes.check(history) is None


def test_silent_on_healthy_trainings(makers, healthy):
    assert makers.asked(spikes, healthy) is None

"""The network waits for images."""

from __future__ import annotations

import pytest

from striate.doctor.rules import waiting


def test_it_waits(makers):
    found = waiting.check(makers.training(makers.falling(2.4, 0.3), wait_share=lambda t: 0.6, images_per_s=lambda t: 200.0))
    assert found.severity == "warning"
    assert found.cause == "waiting-for-data"
    assert found.evidence["images per second without waiting"] == pytest.approx(500, rel=0.05)
    assert found.remedies[0].changes == {"data.resident": "yes", "data.shrink_px": 73}


def test_most_of_the_time_counts(makers):
    assert waiting.check(makers.training(makers.falling(2.4, 0.3), wait_share=lambda t: 0.5 if t > 0.3 else 0.1)) is not None
    assert waiting.check(makers.training(makers.falling(2.4, 0.3), wait_share=lambda t: 0.5 if t > 0.8 else 0.1)) is None


def test_the_start_of_the_loader_is_left_out(makers):
    assert (
        waiting.check(makers.training(makers.falling(2.4, 0.3), steps=500, wait_share=lambda t: 0.9 if t < 0.15 else 0.05))
        is None
    )


def test_silent_on_healthy_trainings(makers, healthy):
    assert makers.asked(waiting, healthy) is None

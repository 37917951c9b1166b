"""Fewer images per second as time goes on."""

from __future__ import annotations

import pytest

from striate.doctor.finding import NotJudged
from striate.doctor.rules import slowing


def test_it_slows_down(makers):
    found = slowing.check(makers.training(makers.falling(2.4, 0.3), images_per_s=lambda t: 1000 * (1 - 0.6 * t)))
    assert found.severity == "warning"
    assert found.cause == "throughput-falling"
    assert "slower" in found.sentence


def test_because_it_waits_more(makers):
    history = makers.training(makers.falling(2.4, 0.3), images_per_s=lambda t: 1000 * (1 - 0.6 * t), wait_share=lambda t: 0.7 * t)
    assert slowing.check(history).cause == "waiting-for-data"


@pytest.mark.parametrize(
    "speed",
    [
        lambda t: 1000 - 100 * t,
        lambda t: 1000 if t < 0.5 else 600,
        lambda t: 600 if 0.3 < t < 0.6 else 1000,
        lambda t: 3000 if t < 0.03 else 1000,
    ],
    ids=["by a tenth", "another program came", "and went", "a fast start"],
)
def test_other_courses_are_none(makers, speed):
    assert slowing.check(makers.training(makers.falling(2.4, 0.3), images_per_s=speed)) is None


def test_some_seconds_are_too_short(makers):
    history = makers.training(makers.falling(2.4, 0.3), steps=50, every=1, images_per_s=lambda t: 1000 * (1 - 0.6 * t))
    with pytest.raises(NotJudged, match="less than two minutes"):
        slowing.check(history)


def test_silent_on_healthy_trainings(makers, healthy):
    assert makers.asked(slowing, healthy) is None

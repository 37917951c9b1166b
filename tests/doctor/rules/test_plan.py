from __future__ import annotations

import dataclasses

import pytest

from striate.doctor.finding import NotJudged
from striate.doctor.rules import plan as rule
from striate.measure import plan
from tests.doctor import makers

SETTING = plan.Setting(
    "resnet18", "cpu", "bf16", True, True, False, 2, 1, 2, "files", 1000, 224, 32, 32, 32, False, 10**8, 0, 0, 10**9
)  # fmt: skip
SPEED = plan.Speed(400.0, 420.0, 800.0, 100.0, 95.0, 300.0)
MEMORY = plan.Memory({"activations": 10**9}, 10**8, 10**9, 32, 20 * 10**9)
DISK = plan.Disk(10**8, 3, 1, 0, 10**6, 10**11)
DURATION = plan.Duration(1000, 10.0, 0.3, 10, 1.0, 0.0, False)


def _check(speed=SPEED, memory=MEMORY, disk=DISK, duration=DURATION):
    forecast = plan.forecast(SETTING, speed, memory, disk, duration)
    return rule.check(makers.patient(makers.small(), recipe=makers.recipe(), forecast=lambda: forecast))


@pytest.mark.parametrize(
    ("parts", "cause", "severity"),
    [
        ({"memory": dataclasses.replace(MEMORY, free=10**9)}, "memory", "error"),
        ({"disk": dataclasses.replace(DISK, free=10**8)}, "disk", "error"),
        ({"duration": dataclasses.replace(DURATION, epochs=0.3, is_limited=True)}, "time", "warning"),
        ({"speed": dataclasses.replace(SPEED, loader=40.0, loader_again=42.0, together=38.0)}, "waiting-for-data", "warning"),
    ],
)
def test_what_does_not_fit(parts, cause, severity):
    found = _check(**parts)
    assert (found.cause, found.severity) == (cause, severity)
    assert found.remedies


def test_slow_images_are_kept_in_memory():
    found = _check(speed=dataclasses.replace(SPEED, loader=40.0, loader_again=42.0, together=38.0))
    assert found.remedies[0].changes == {"data.resident": "yes"}


def test_silent_when_all_fits():
    assert _check() is None


def test_not_judged_where_nobody_can_measure_it():
    with pytest.raises(NotJudged):
        rule.check(makers.patient(makers.small()))

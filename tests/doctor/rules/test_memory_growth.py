"""Memory that never settles."""

from __future__ import annotations

import math

import pytest

from striate.doctor import table
from striate.doctor.finding import NotJudged
from striate.doctor.rules import memory_growth
from striate.run.log import Record


def test_it_grows(makers):
    found = memory_growth.check(makers.training(makers.falling(2.4, 0.3), memory_bytes=lambda t: 2e9 + 6e9 * t, until=0.5))
    assert found.severity == "warning"
    assert found.cause == "memory-growing"
    assert found.evidence["memory at the end [bytes]"] == pytest.approx(8e9, rel=0.02)


@pytest.mark.parametrize(
    "memory",
    [
        lambda t: 2e9 + 4e9 * min(t, 0.08),
        lambda t: 2e9 if t < 0.5 else 4e9,
        lambda t: 2e9 + 2e9 * (1 - math.exp(-12 * t)),
        lambda t: 2e9 + 1e8 * t,
    ],
    ids=["in the first epoch", "once", "and settles", "by little"],
)
def test_other_courses_are_none(makers, memory):
    assert memory_growth.check(makers.training(makers.falling(2.4, 0.3), memory_bytes=memory)) is None


def test_another_process_has_its_own_memory(makers):
    history = makers.training(makers.falling(2.4, 0.3), memory_bytes=lambda t: 2e9 + 6e9 * t, until=0.5)
    history.observe(Record("resume", 1000, {}))
    with pytest.raises(NotJudged, match="too few records"):
        memory_growth.check(history)


def test_silent_on_healthy_trainings(makers, healthy):
    assert makers.asked(memory_growth, healthy) is None


@pytest.mark.parametrize(("steps", "rows"), [(300, 10), (290, 9)])
def test_ten_records_behind_the_first_epoch_are_enough(makers, steps, rows):
    history = makers.training(
        makers.falling(2.4, 0.3), steps=steps, every=20 if rows == 10 else 21, steps_per_epoch=100,
        memory_bytes=lambda t: 2e9 + 6e9 * t,
    )  # fmt: skip
    assert (history.steps["step"] > 100).sum() == rows
    if rows == 10:
        assert memory_growth.check(history).cause == "memory-growing"
    else:
        with pytest.raises(NotJudged, match="too few"):
            memory_growth.check(history)


@pytest.mark.parametrize(("grows", "fires"), [(1e9, True), (0.01e9, False)])
def test_seven_epochs_of_a_table(tmp_path, grows, fires):
    rows = "".join(f"{epoch},{2.3 - 0.1 * epoch:.2f},{2e9 + grows * epoch:.0f}\n" for epoch in range(1, 8))
    (tmp_path / "log.csv").write_text("epoch,loss,memory\n" + rows)
    found = memory_growth.check(table.read(tmp_path / "log.csv", 10))
    assert (found is not None) == fires
    assert found is None or found.cause == "memory-growing"

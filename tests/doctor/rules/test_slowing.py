"""Fewer images per second as time goes on."""

from __future__ import annotations

import pytest

from striate.doctor import table
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


@pytest.mark.parametrize(("slower", "severity"), [(0.6, "note"), (0.8, "warning")])
def test_less_than_two_minutes_are_a_note_unless_it_is_slower_by_far(makers, slower, severity):
    history = makers.training(makers.falling(2.4, 0.3), steps=50, every=1, images_per_s=lambda t: 1000 * (1 - slower * t))
    found = slowing.check(history)
    assert (found.severity, found.cause) == (severity, "throughput-falling")


@pytest.mark.parametrize(("slower", "fires"), [(0.85, True), (0.5, False)])
def test_a_dozen_records_are_enough_where_it_is_slower_by_far(makers, slower, fires):
    history = makers.training(makers.falling(2.4, 0.3), steps=600, images_per_s=lambda t: 1000 * (1 - slower * t))
    if fires:
        assert slowing.check(history).severity == "warning"
    else:
        with pytest.raises(NotJudged, match="too few records"):
            slowing.check(history)


def _timed(folder, seconds):
    """A table of 30 epochs that says how long each of them took."""
    rows = "".join(f"{epoch},{2.3 - 0.05 * epoch:.3f},{seconds(epoch)}\n" for epoch in range(30))
    (folder / "log.csv").write_text("epoch,loss,epoch_time\n" + rows)
    return table.read(folder / "log.csv", 10)


def test_epochs_of_a_table_that_take_longer_and_longer(tmp_path):
    found = slowing.check(_timed(tmp_path, lambda epoch: 30.0 + 2 * epoch))
    assert (found.severity, found.cause) == ("warning", "throughput-falling")
    assert "epochs per second" in found.sentence and found.evidence["epochs per second now"] == pytest.approx(1 / 83, rel=0.1)
    assert slowing.check(_timed(tmp_path, lambda epoch: 30.0 + epoch % 3)) is None


def test_silent_on_healthy_trainings(makers, healthy):
    assert makers.asked(slowing, healthy) is None

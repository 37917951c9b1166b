"""Beside a training: what is found anew is told once, and the rules take a small share of its time."""

from __future__ import annotations

import contextlib
import math
import time

import pytest

import striate
from striate.data import synthetic
from striate.doctor import live
from striate.doctor.live import Live
from striate.errors import NonFiniteError
from striate.recipe import Recipe, change
from striate.run.log import Record


def step(number: int, loss: float, **values) -> Record:
    facts = {
        "epoch": number / 50, "loss": loss, "losses": {"main": loss}, "lr": 0.1, "top1": 0.1, "images_per_s": 100.0,
        "wait_share": 0.0,
        "gradient_norm": 1.0, "norms": {}, "dead_share": {}, "memory_bytes": 10**9, "loss_scale": None, "elapsed_s": number * 0.1,
    }  # fmt: skip
    return Record("step", number, facts | values)


START = Record("start", 0, {"classes": 12, "images": 1200, "batch_size": 32, "steps_per_epoch": 37, "val_images": 300})


@pytest.fixture
def patient_clock(monkeypatch):
    """The share is not looked at: a test's records come faster than a training's."""
    monkeypatch.setattr(live, "SHARE", math.inf)


def test_waiting_for_images_is_told_once(patient_clock):
    doctor = Live(Recipe())
    told = doctor.observe(START)
    for number in range(1, 400):
        told += doctor.observe(step(number * 5, 2.4 - number * 1e-3, wait_share=0.9))
    assert [one.code for one in told].count("waiting") == 1


def test_a_healthy_training_is_left_alone(patient_clock):
    doctor = Live(change(Recipe(), {"optim.schedule": "cosine"}))
    told = doctor.observe(START)
    for number in range(1, 300):
        told += doctor.observe(step(number * 5, 2.4 * math.exp(-number / 80), top1=1 - math.exp(-number / 80)))
    assert told == []


def test_rules_wait_until_they_have_earned_their_time():
    doctor = Live(Recipe())
    doctor.observe(START)
    for number in range(1, 2000):
        doctor.observe(step(number, 2.4))
    # Two thousand records in no time at all: the rules ran once, before they had taken anything.
    assert doctor.spent_s < 2.0


def test_the_share_of_a_real_training(tmp_path, monkeypatch):
    synthetic.make(tmp_path / "photos", classes=4, per_class=32, val_per_class=8)
    spent = []
    observe = Live.observe

    def watched(self, record):
        found = observe(self, record)
        spent.append(self.spent_s)
        return found

    monkeypatch.setattr(Live, "observe", watched)
    began = time.monotonic()
    changes = {"model": "resnet20", "img_size": 32, "batch_size": 32, "steps": 60, "budget.log_every": 5}
    run = striate.train(tmp_path / "photos", changes=changes, out=tmp_path, name="run", quiet=True)
    # One round of the rules may come before it is earned: that is some milliseconds, whatever the training takes.
    assert spent and max(spent) < 0.01 * (time.monotonic() - began) + 0.05
    assert [record["step"] for record in run.log() if record["kind"] == "step"] == [1, *range(5, 61, 5)]


def test_what_was_told_in_an_earlier_sitting_is_not_told_again(patient_clock):
    earlier = [{"kind": "finding", "step": 50, "code": "waiting"}]
    doctor = Live(Recipe(), earlier)
    told = doctor.observe(START)
    for number in range(1, 400):
        told += doctor.observe(step(number * 5, 2.4 - number * 1e-3, wait_share=0.9))
    assert "waiting" not in [one.code for one in told]


def test_a_finding_stands_in_the_log(tmp_path):
    synthetic.make(tmp_path / "photos", classes=4, per_class=32, val_per_class=8)
    changes = {"model": "resnet20", "img_size": 32, "batch_size": 32, "steps": 80, "budget.log_every": 2, "lr": 8.0}
    with contextlib.suppress(NonFiniteError):  # at such a rate it may burst before its end, or not
        striate.train(tmp_path / "photos", changes=changes, out=tmp_path, name="run", quiet=True)
    found = [record for record in striate.open_run(tmp_path / "run").log() if record["kind"] == "finding"]
    assert found and found[0]["causes"][0]["name"] == "learning-rate-high"

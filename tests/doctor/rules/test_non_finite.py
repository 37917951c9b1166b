"""Skipped steps and losses of NaN: images, rate, or 16 bits."""

from __future__ import annotations

import math

import pytest

from striate.doctor import table
from striate.doctor.rules import non_finite
from striate.run.log import Record


def skipped(history, steps, reason="loss is nan", keys=(), layer=None):
    for step in steps:
        history.observe(Record("skip", step, {"reason": reason, "keys": list(keys), "first_bad_layer": layer}))
    return history


def test_the_same_image_again_and_again(makers):
    history = skipped(makers.training(makers.falling(2.4, 1.0)), (210, 410, 610), keys=["dog/7.jpg"], layer="conv1")
    found = non_finite.check(history)
    assert found.cause == "bad-batch"
    assert found.severity == "error"
    assert found.layer == "conv1"
    assert "dog/7.jpg (3×)" in found.evidence["images"]
    assert "dog/7.jpg" in found.remedies[0].advice


def test_one_image_once_is_a_warning(makers):
    found = non_finite.check(skipped(makers.training(makers.falling(2.4, 1.0)), (210,), keys=["dog/7.jpg"]))
    assert (found.severity, found.cause) == ("warning", "bad-batch")
    assert found.sentence.startswith("1 step was skipped")


def test_a_loss_that_rose_before(makers):
    history = skipped(
        makers.training(lambda t: 2.3 * math.exp(8 * t), until=0.5), range(1000, 1010), keys=[f"{n}" for n in range(8)]
    )
    found = non_finite.check(history)
    assert found.cause == "learning-rate-high"
    assert found.remedies[0].changes["optim.lr"] == pytest.approx(0.01)


def test_sixteen_bits(makers):
    history = makers.training(makers.falling(2.4, 1.0), loss_scale=1.0)
    found = non_finite.check(skipped(history, range(500, 560), "gradient norm is inf"))
    assert found.cause == "precision"
    assert found.remedies[0].changes == {"optim.precision": "fp32"}


def test_the_search_for_a_loss_scale_is_none(makers):
    history = makers.training(makers.falling(2.4, 1.0), loss_scale=8192.0)
    assert non_finite.check(skipped(history, (1, 2, 3, 4, 1900), "gradient norm is inf")) is None


def test_a_table_that_says_nan(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("epoch,loss,lr\n0,2.3,1\n1,40.0,1\n2,nan,1\n3,nan,1\n")
    found = non_finite.check(table.read(path))
    assert found.severity == "error"
    assert found.cause == "learning-rate-high"
    assert "from step 2 on" in found.sentence


def test_steps_without_readable_images_are_another_matter(makers):
    assert non_finite.check(skipped(makers.training(makers.falling(2.4, 1.0)), (5,), "0 readable images in the batch")) is None


def test_silent_on_healthy_trainings(makers, healthy):
    assert makers.asked(non_finite, healthy) is None

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from striate.data import synthetic
from striate.data.layouts.detect import open_data
from striate.doctor.finding import NotJudged
from striate.doctor.rules import validation_size
from tests.doctor import makers


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    folder = tmp_path_factory.mktemp("size") / "photos"
    synthetic.make(folder, classes=4, per_class=2, val_per_class=30)
    return open_data(str(folder), 0.1).val


def test_two_images_of_a_class(index):
    few = index.select(np.arange(0, len(index), 15))
    found = validation_size.check(makers.patient(makers.small(), val_index=few))
    assert found.cause == "evaluation-small" and found.severity == "warning"


def test_silent_for_a_hundred(index):
    assert len(index) == 120
    assert validation_size.check(makers.patient(makers.small(), val_index=index)) is None


def test_not_judged_without(index):
    with pytest.raises(NotJudged):
        validation_size.check(makers.patient(makers.small()))
    assert dataclasses.is_dataclass(index)


def _of_loader(images):
    """A stranger's validation loader of so many images."""
    patient = makers.patient(makers.small(), batch=10)
    patient.scored = lambda: iter([makers.images(10, seed=number) for number in range(images // 10)])
    return patient


@pytest.mark.parametrize(("images", "severity"), [(30, "warning"), (40, "note"), (90, "note"), (100, None)])
def test_a_strangers_loader_is_counted_and_may_be_a_part(images, severity):
    found = validation_size.check(_of_loader(images))
    assert (found and found.severity) == severity
    if found is not None:
        assert found.cause == "evaluation-small" and found.evidence["validation images"] == images
        assert all(not one.changes for one in found.remedies)


def test_a_loader_that_does_not_end_soon_is_not_judged():
    with pytest.raises(NotJudged, match="unknown"):
        validation_size.check(_of_loader(1000))

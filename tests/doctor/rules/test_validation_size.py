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

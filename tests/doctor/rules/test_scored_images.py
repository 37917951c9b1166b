from __future__ import annotations

import pytest
import torch

from striate.doctor.finding import NotJudged
from striate.doctor.rules import scored_images
from tests.doctor import makers


def _patient(change):
    patient = makers.patient(makers.small())
    patient.scored = lambda: ((change(images), labels) for images, labels in patient.train())
    return patient


@pytest.mark.parametrize(
    "change",
    [lambda x: x * 0.22 + 0.45, lambda x: x * 58 + 115, lambda x: (x - 0.45) / 0.22, lambda x: x + 2.0],
    ids=["not normalised", "bytes", "twice", "shifted"],
)
def test_another_preparation(change):
    found = scored_images.check(_patient(change))
    assert found.cause == "preprocessing-mismatch" and found.severity == "error"


@pytest.mark.parametrize("change", [lambda x: x, lambda x: x * 1.2, lambda x: x.flip(3)], ids=["same", "contrast", "mirrored"])
def test_silent_for_what_augmentation_does(change):
    assert scored_images.check(_patient(change)) is None


def test_not_judged_without_validation_images_or_with_few():
    with pytest.raises(NotJudged, match="no validation"):
        scored_images.check(makers.patient(makers.small()))
    patient = makers.patient(makers.small())
    patient.scored = lambda: iter([(patient.images[:4], patient.labels[:4])])
    with pytest.raises(NotJudged, match="too few"):
        scored_images.check(patient)


def test_images_that_are_not_finite_are_left_to_another_rule():
    patient = _patient(lambda x: torch.full_like(x, float("nan")))
    with pytest.raises(NotJudged):
        scored_images.check(patient)


@pytest.mark.parametrize(
    ("changes", "larger"), [({"data__crop_share": 0.4}, True), ({"augment__crop": "resize"}, False), ({}, False)]
)
def test_crops_of_training_and_scoring(changes, larger):
    patient = _patient(lambda x: x)
    patient.recipe = makers.recipe(**changes)
    found = scored_images.check(patient)
    assert (found is not None and found.cause == "augmentation-mismatch") == larger

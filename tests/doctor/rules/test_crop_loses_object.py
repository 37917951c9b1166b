"""Fires on crops that miss the boxes; silent on the usual crops, without boxes, and for strangers."""

from __future__ import annotations

import dataclasses

import pytest

from striate import recipe as recipes
from striate.data.augment.draw import Drawn
from striate.doctor.finding import NotJudged
from striate.doctor.rules import crop_loses_object
from tests.doctor.rules import data_makers as made

SMALL = (10, 10, 30, 34)


def _patient(changes=None, xyxy=SMALL, side=64):
    labels = made.labels(4, 10)
    index = made.index(made.pictures(labels, side=side), labels, boxes=made.boxes(len(labels), xyxy))
    return made.ours(index, **(changes or {}))


ILL = {
    "tiny crops": {"augment.scale": (0.02, 0.1)},
    "small crops": {"augment.scale": (0.05, 0.2)},
    "far enlarged": {"augment.crop": "random", "augment.shorter_px": (256, 256)},
    "a corner": {"augment.crop": "shift", "augment.shift_px": 40},
}


@pytest.mark.parametrize("name", ILL)
def test_ill(name):
    patient = _patient(ILL[name])
    found = crop_loses_object.check(patient)
    assert found is not None
    assert (found.severity, found.cause) == ("warning", "crop-loses-object")
    better = recipes.change(patient.recipe, dict(found.remedies[0].changes))
    again = crop_loses_object.check(dataclasses.replace(patient, recipe=better))
    assert again is None or again.severity == "note"


@pytest.mark.parametrize(
    "changes",
    [
        {"augment.scale": (0.35, 1.0)},
        {"augment.scale": (0.08, 1.0)},
        {"augment.crop": "random"},
        {"augment.crop": "resize"},
        {"augment.crop": "shift"},
    ],
)
def test_usual_crops(changes):
    assert crop_loses_object.check(_patient(changes, xyxy=(12, 12, 52, 52))) is None


def test_missing_facts():
    labels = made.labels(4, 10)
    pixels = made.pictures(labels)
    with pytest.raises(NotJudged, match="no boxes"):
        crop_loses_object.check(made.ours(made.index(pixels, labels)))
    with pytest.raises(NotJudged, match="no boxes"):
        crop_loses_object.check(made.stranger(made.loader(pixels, labels)))
    few = made.index(pixels[:8], labels[:8], boxes=made.boxes(8, SMALL))
    with pytest.raises(NotJudged):
        crop_loses_object.check(made.ours(few, **{"augment.scale": (0.02, 0.1)}))


def test_what_a_crop_sees_by_hand():
    # The left half of a photo of 100 x 50, enlarged to 96 x 96, of which the lower right quarter is seen.
    drawn = Drawn(0, 0, 50, 50, 96, 96, 48, 48, 0, 0, False)
    assert crop_loses_object.seen_window(drawn, 48) == (25, 25, 50, 50)


def test_the_recipe_of_tiny_imagenet_is_silent(real_data):
    train = made.tiny(real_data, 12).train
    assert crop_loses_object.check(made.ours(train, **{"data.size_px": 56})) is None
    found = crop_loses_object.check(made.ours(train, **{"data.size_px": 56, "augment.scale": (0.02, 0.1)}))
    assert found is not None
    assert found.severity == "warning"

from __future__ import annotations

import pytest
import torch

from striate.doctor import thumbnails
from striate.doctor.finding import NotJudged
from striate.doctor.rules import scored_images
from tests.doctor import makers
from tests.doctor.rules import data_makers as made


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
def test_pixels_are_silent_for_what_augmentation_does(change):
    """Of photos made up from a dozen patterns the looks tell a contrast; of real ones they do not, see below."""
    assert scored_images._pixels_apart(_patient(change)) is None


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


def _half(images):
    return (images - 0.5) / 0.5


def _splits(change, count=100, seed=1):
    """A stranger's loaders of pictures of the same kind; change: of the images of validation, 0..1."""
    train, scored = made.labels(10, count // 10), made.labels(10, count // 10, seed=1)
    return made.stranger(
        made.loader(made.pictures(train), train, _half),
        made.loader(made.pictures(scored, seed=seed), scored, lambda images: _half(change(images))),
    )


def _as_spread(images, like):
    """With the mean and the deviation of other images, so that these do not tell them apart."""
    return (images - images.mean()) / images.std() * like.std() + like.mean()


def _grey(images):
    return _as_spread(images.mean(1, keepdim=True).expand(-1, 3, -1, -1), images)


def _blurred(images):
    return _as_spread(torch.nn.functional.avg_pool2d(images, 5, 1, 2), images)


def test_a_split_without_colours_is_told_by_its_looks():
    found = scored_images.check(_splits(_grey))
    assert (found.code, found.cause, found.severity) == ("scored-images", "preprocessing-mismatch", "warning")
    assert found.evidence["told apart"] > 0.95 and found.evidence["images"] == 200
    assert "only one split has colours" in found.causes[0].because


def test_a_split_that_is_blurred_is_told_by_its_looks():
    found = scored_images.check(_splits(_blurred))
    assert (found.cause, found.severity) == ("augmentation-mismatch", "warning")


def test_silent_for_other_images_of_the_same_kind():
    assert scored_images.check(_splits(lambda images: images)) is None


def test_looks_are_left_alone_with_few_images_and_with_a_recipe():
    assert scored_images.check(_splits(_grey, count=50)) is None
    patient = _splits(_grey)
    patient.recipe = makers.recipe()
    assert scored_images.check(patient) is None


@pytest.mark.parametrize("change", [lambda x: x.flip(3), lambda x: (x - 0.45) * 1.2 + 0.45], ids=["mirrored", "contrast"])
def test_silent_for_real_photos_as_augmentation_changes_them(real_data, change):
    splits = made.tiny(real_data, 12)
    train, scored = (thumbnails.of_index(one, 10.0, 200) for one in (splits.train, splits.val))
    patient = made.stranger(
        made.loader(train.pixels_NSS3, train.labels_N, lambda images: made.imagenet(change(images))),
        made.loader(scored.pixels_NSS3, scored.labels_N),
    )
    assert scored_images.check(patient) is None

"""Fires on images without content, on one image given again and again, and on NaN; grey, dark and plain photos are healthy."""

from __future__ import annotations

import pytest
import torch

from striate.doctor.rules import constant_images
from tests.doctor.rules import data_makers as made


def _patient(change, per_class=8):
    labels = made.labels(4, per_class)
    return made.stranger(made.loader(made.pictures(labels), labels, change))


def _black(share):
    def change(images):
        images = images.clone()
        images[: round(share * len(images))] = 0
        return made.imagenet(images)

    return change


@pytest.mark.parametrize("share", [0.1, 0.4])
def test_some_black_images_are_a_warning(share):
    found = constant_images.check(_patient(_black(share)))
    assert found is not None
    assert (found.severity, found.cause) == ("warning", "constant-images")
    assert found.evidence["images without content"] == round(share * 32)


@pytest.mark.parametrize("change", [_black(1.0), torch.zeros_like, lambda x: made.imagenet(torch.full_like(x, 0.5))])
def test_all_images_empty_is_an_error(change):
    found = constant_images.check(_patient(change))
    assert found is not None
    assert (found.severity, found.cause) == ("error", "constant-images")


def test_images_of_one_colour_each_are_empty():
    found = constant_images.check(_patient(lambda images: images.mean(dim=(1, 2, 3), keepdim=True).expand_as(images)))
    assert found is not None
    assert found.cause == "constant-images"


def test_the_same_image_again_and_again_is_an_error():
    found = constant_images.check(_patient(lambda images: made.imagenet(images[:1]).expand_as(images)))
    assert found is not None
    assert (found.severity, found.cause) == ("error", "constant-images")
    assert "same image" in found.sentence


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_a_bad_batch(value):
    def change(images):
        images = made.imagenet(images)
        images[3, 0, 2, 2] = value
        return images

    found = constant_images.check(_patient(change))
    assert found is not None
    assert (found.severity, found.cause) == ("error", "bad-batch")
    assert found.evidence["places in the batch"] == [3]


@pytest.mark.parametrize(
    "change",
    [
        made.imagenet,
        made.as_is,
        lambda images: made.imagenet(0.05 * images),  # dark
        lambda images: made.imagenet(images.mean(1, keepdim=True).expand(-1, 3, -1, -1)),  # grey
        lambda images: made.imagenet(images / 255),  # another rule's fault
        lambda images: images * 255,
        lambda images: made.imagenet(images)[:1],  # a batch of one
    ],
)
def test_healthy_look_alikes(change):
    assert constant_images.check(_patient(change)) is None


def test_a_single_plain_photo_is_healthy():
    assert constant_images.check(_patient(_black(0.03))) is None


def test_pictures_whose_numbers_were_squeezed_together_have_content():
    """Divided by 255 once more: nothing differs by more than 0.004, and every picture is there. Their scale is another rule's."""
    assert constant_images.check(_patient(lambda images: made.imagenet(images) / 255 - 2)) is None


def test_nan_in_a_later_batch():
    """Each image over its own deviation, which is 0 for a black one."""
    labels = made.labels(4, 24)
    pixels = made.pictures(labels)
    pixels[70] = 0

    def change(images):
        return (images - images.mean((1, 2, 3), keepdim=True)) / images.std((1, 2, 3), keepdim=True)

    found = constant_images.check(made.stranger(made.loader(pixels, labels, change)))
    assert found is not None and found.cause == "bad-batch" and found.severity == "error"

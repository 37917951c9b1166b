"""Fires on pixels in 0..1, normalised twice, in 0..255 or divided twice; silent on usual normalisations and dark photos."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from striate import recipe as recipes
from striate.doctor.finding import NotJudged
from striate.doctor.rules import input_scale
from tests.doctor import makers
from tests.doctor.rules import data_makers as made


def _patient(change, **network):
    labels = made.labels(4, 8)
    return made.stranger(made.loader(made.pictures(labels), labels, change), model=made.network(**network))


def _half(images):
    return (images - 0.5) / 0.5


def _cifar(images):
    return (images - torch.tensor([0.4914, 0.4822, 0.4465]).view(3, 1, 1)) / torch.tensor([0.247, 0.2435, 0.2616]).view(3, 1, 1)


def _own(images):
    return (images - images.mean(dim=(0, 2, 3), keepdim=True)) / images.std(dim=(0, 2, 3), keepdim=True)


ILL = {
    "plain": (made.as_is, "not-normalised", "warning"),
    "twice": (lambda x: made.imagenet(made.imagenet(x)), "normalised-twice", "warning"),
    "half twice": (lambda x: _half(_half(_stretched(x))), "normalised-twice", "warning"),
    "cifar twice": (lambda x: _cifar(_cifar(x)), "normalised-twice", "warning"),
    "255": (lambda x: 255 * x, "pixel-range", "error"),
    "255, normalised": (lambda x: made.imagenet(255 * x), "pixel-range", "error"),
    "255 less the mean": (lambda x: 255 * (x - 0.45), "pixel-range", "error"),
    "divided twice": (lambda x: x / 255, "pixel-range", "error"),
    "divided twice, normalised": (lambda x: made.imagenet(x / 255), "pixel-range", "error"),
}


def _stretched(images):
    """With black and white in it, as a batch of photos has."""
    return (images - images.min()) / (images.max() - images.min())


@pytest.mark.parametrize("name", ILL)
def test_ill(name):
    change, cause, severity = ILL[name]
    found = input_scale.check(_patient(change))
    assert found is not None
    assert (found.cause, found.severity) == (cause, severity)


@pytest.mark.parametrize("name", ILL)
def test_a_normalisation_in_the_network_makes_it_milder(name):
    change, cause, _ = ILL[name]
    found = input_scale.check(_patient(change, has_norm=True))
    assert found is not None
    assert found.cause == cause
    assert found.severity == {"not-normalised": "note"}.get(cause, "warning")


@pytest.mark.parametrize("change", [made.imagenet, _half, _cifar, _own], ids=["imagenet", "half", "cifar", "own"])
@pytest.mark.parametrize("photo", ["usual", "grey", "dark", "bright", "flat"])
def test_healthy(change, photo):
    of = {
        "usual": made.as_is,
        "grey": lambda x: x.mean(1, keepdim=True).expand(-1, 3, -1, -1),
        "dark": lambda x: 0.1 * x,
        "bright": lambda x: 1 - 0.2 * x,
        "flat": lambda x: 0.4 + 0.1 * x,
    }[photo]
    assert input_scale.check(_patient(lambda x: change(of(x)))) is None


def test_pen_strokes_on_black_need_no_shift():
    assert input_scale.check(_patient(lambda x: (x > 0.75).float())) is None


def test_the_levels_tell_what_pixels_were_divided_by():
    found = input_scale.check(_patient(lambda x: made.imagenet(made.imagenet(x))))
    assert found is not None
    assert found.evidence["divided by, of 0..1"] == pytest.approx([0.229**2, 0.224**2, 0.225**2], rel=0.02)


def test_what_the_recipe_says_is_expected():
    labels = made.labels(4, 4)
    pixels = made.pictures(labels)
    patient = made.ours(made.index(pixels, labels))
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
    caffe = made.view_of(patient.recipe, (0.4, 0.4, 0.4), (1 / 255,) * 3)
    assert input_scale.check(dataclasses.replace(patient, images=images - 102, view=caffe)) is None
    assert input_scale.check(dataclasses.replace(patient, images=made.imagenet(images / 255))) is None
    divide = made.view_of(patient.recipe, (0.0,) * 3, (1.0,) * 3)
    found = input_scale.check(dataclasses.replace(patient, images=images / 255, view=divide))
    assert found is not None
    assert (found.severity, found.cause) == ("note", "not-normalised")
    assert recipes.change(patient.recipe, dict(found.remedies[0].changes)).data.normalise == "imagenet"


def test_empty_or_constant_images_are_others_affair():
    for change in (torch.zeros_like, lambda x: x * float("nan"), lambda x: x[:, 0]):
        with pytest.raises(NotJudged):
            input_scale.check(_patient(change))


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16, torch.int64])
def test_any_type(kind):
    patient = _patient(lambda x: 255 * x)
    patient.images = patient.images.to(kind)
    assert input_scale.check(patient).cause == "pixel-range"


class Normalises(torch.nn.Module):
    """A network that normalises by itself."""

    def __init__(self):
        super().__init__()
        self.inner = makers.small()

    def forward(self, x):
        return self.inner((x - 0.45) / 0.22)


def test_a_network_that_normalises_what_comes_normalised():
    found = input_scale.check(makers.patient(Normalises()))
    assert found.cause == "normalised-twice" and found.layer == "inner.0"


def test_silent_for_a_network_that_normalises_plain_pixels():
    patient = makers.patient(Normalises())
    patient.images = (patient.images * 0.12 + 0.45).clamp(0, 1)
    found = input_scale.check(patient)
    assert found is None or found.cause != "normalised-twice"


@pytest.mark.parametrize(
    ("name", "side", "cause"), [("lenet5", 32, "pixel-range"), ("caffenet", 67, None), ("resnet20", 32, None)]
)
def test_what_the_recipe_says_is_right_for_networks_that_bear_it(name, side, cause):
    """0..255 less a mean: CaffeNet's small weights and batch norm bear it, LeNet's sigmoids are at their limits."""
    labels = made.labels(4, 4)
    pixels = made.pictures(labels, side)
    patient = made.ours(made.index(pixels, labels))
    options = {"in_channels": 3} if name == "lenet5" else {}
    patient.images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() - 102
    patient.view = made.view_of(patient.recipe, (0.4, 0.4, 0.4), (1 / 255,) * 3)
    patient.model = makers.network(name, classes=4, **options)
    found = input_scale.check(patient)
    assert (found and found.cause) == cause
    assert found is None or found.severity == "error"


def test_a_norm_that_takes_the_bytes_first_is_meant():
    patient = _patient(lambda x: 255 * x)
    patient.model = torch.nn.Sequential(torch.nn.BatchNorm2d(3), made.network())
    found = input_scale.check(patient)
    assert (found.cause, found.severity) == ("pixel-range", "note")

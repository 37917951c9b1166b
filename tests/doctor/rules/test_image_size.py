"""Fires where weights never meet a pixel, channels do not fit, or photos are enlarged; silent on usual sizes."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

import striate
from striate.doctor.finding import NotJudged
from striate.doctor.rules import image_size
from tests.doctor.rules import data_makers as made


def _patient(name, side, channels=3):
    model = striate.create_model(name, num_classes=12)
    images = torch.zeros(2, channels, side, side)
    labels = torch.zeros(2, dtype=torch.int64)
    return made.stranger(lambda: iter([(images, labels)]), model=model)


@pytest.mark.parametrize(("name", "side"), [("resnet18", 32), ("resnet18", 24)])
def test_a_network_for_large_images_on_small_ones(name, side):
    found = image_size.check(_patient(name, side))
    assert found is not None
    assert (found.severity, found.cause) == ("warning", "image-size")
    assert found.evidence["unused weights"] > 0.5
    assert found.layer is not None


def test_one_cell_is_a_note():
    shrinking = [nn.Conv2d(3 if number == 0 else 8, 8, 3, stride=2, padding=1) for number in range(5)]
    model = nn.Sequential(*shrinking, nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, padding=1), nn.Flatten(), nn.Linear(8, 10))
    images = torch.zeros(2, 3, 64, 64)
    found = image_size.check(made.stranger(lambda: iter([(images, torch.zeros(2).long())]), model=model))
    assert found is not None
    assert found.severity == "note"


@pytest.mark.parametrize(
    ("name", "side"), [("resnet18", 224), ("resnet18", 128), ("resnet18", 64), ("resnet20", 32), ("googlenet-bn", 96)]
)
def test_healthy(name, side):
    assert image_size.check(_patient(name, side)) is None


def test_a_kernel_as_large_as_its_grid_is_meant():
    lenet = nn.Sequential(nn.Conv2d(3, 6, 5), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.MaxPool2d(2), nn.Conv2d(16, 120, 5))
    model = nn.Sequential(lenet, nn.Flatten(), nn.Linear(120, 10))
    images = torch.zeros(2, 3, 32, 32)
    assert image_size.check(made.stranger(lambda: iter([(images, torch.zeros(2).long())]), model=model)) is None


@pytest.mark.parametrize(
    ("side", "kernel", "stride", "padding", "met"),
    [(1, 3, 1, 1, 1 / 3), (2, 3, 1, 1, 1.0), (8, 3, 2, 1, 1.0), (1, 1, 1, 0, 1.0), (2, 3, 2, 1, 2 / 3), (2, 5, 1, 2, 3 / 5)],
)
def test_places_of_a_kernel_that_meet_pixels_by_hand(side, kernel, stride, padding, met):
    assert image_size._met(side, kernel, stride, 1, padding) == pytest.approx(met)


@pytest.mark.parametrize("channels", [1, 3])
def test_another_number_of_channels(channels):
    patient = dataclasses.replace(_patient("resnet20", 32, channels), model=made.network(channels=4 - channels))
    found = image_size.check(patient)
    assert found is not None
    assert (found.severity, found.cause) == ("error", "image-size")


def test_enlarged_photos_are_a_note_but_not_with_trained_weights():
    labels = made.labels(3, 4)
    index = made.index(made.pictures(labels, side=24), labels)
    images = torch.zeros(2, 3, 96, 96)
    found = image_size.check(dataclasses.replace(made.ours(index), images=images))
    assert found is not None
    assert (found.severity, found.evidence["times"]) == ("note", 4.0)
    patient = made.ours(index, **{"model.weights": "default"})
    assert image_size.check(dataclasses.replace(patient, images=images)) is None


def test_the_network_is_left_as_it_was():
    patient = _patient("resnet18", 32)
    patient.model.train()
    patient.model.layer1.eval()
    before = {name: value.clone() for name, value in patient.model.state_dict().items()}
    image_size.check(patient)
    assert patient.model.training and not patient.model.layer1.training
    assert all(torch.equal(before[name], value) for name, value in patient.model.state_dict().items())


def test_a_network_that_always_trains_is_left_as_it_was():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 12)

        def forward(self, x):
            x = self.conv(x)
            x = nn.functional.batch_norm(x, self.norm.running_mean, self.norm.running_var, training=True)
            return self.head(nn.functional.dropout(x.mean(dim=(2, 3)), 0.5, training=True))

    model = Odd()
    patient = dataclasses.replace(_patient("resnet20", 32), model=model)
    patient.images = torch.randn(2, 3, 32, 32)
    before, generator = model.norm.running_mean.clone(), torch.random.get_rng_state()
    image_size.check(patient)
    assert torch.equal(before, model.norm.running_mean)
    assert torch.equal(generator, torch.random.get_rng_state())


def test_a_network_that_refuses_the_images_is_others_affair():
    images = torch.zeros(2, 3, 4, 4)
    patient = made.stranger(
        lambda: iter([(images, torch.zeros(2).long())]), model=nn.Sequential(nn.Conv2d(3, 4, 7), nn.Flatten())
    )
    with pytest.raises(NotJudged):
        image_size.check(patient)

"""Fires on channels at the end, on a reshape instead of a permutation, and on exchanged colours; silent on photos of any kind."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from striate.data import decode
from striate.doctor.rules import channel_order
from tests.doctor.rules import data_makers as made


def _patient(change, scored=None, side=48, per_class=40, seed=0):
    labels = made.labels(6, per_class, seed)
    pixels = made.pictures(labels, side=side, seed=seed)
    of_val = None if scored is None else made.loader(made.pictures(labels, side=side, seed=seed + 1), labels, scored)
    return made.stranger(made.loader(pixels, labels, change), of_val)


def _reshaped(images):
    return images.permute(0, 2, 3, 1).reshape(images.shape)


@pytest.mark.parametrize("side", [48, 32, 50])
@pytest.mark.parametrize("before", [made.imagenet, made.as_is])
def test_reshape_instead_of_permute(side, before):
    found = channel_order.check(_patient(lambda x: _reshaped(before(x)), side=side))
    assert found is not None
    assert (found.severity, found.cause) == ("error", "channels-last")


def test_grey_photos_reshaped():
    found = channel_order.check(_patient(lambda x: _reshaped(x.mean(1, keepdim=True).expand(-1, 3, -1, -1))))
    assert found is not None
    assert found.cause == "channels-last"


@pytest.mark.parametrize("order", [(0, 2, 3, 1), (0, 2, 1, 3)])
def test_channels_in_another_place(order):
    found = channel_order.check(_patient(lambda x: made.imagenet(x).permute(*order)))
    assert found is not None
    assert (found.severity, found.cause) == ("error", "channels-last")


def test_noise_is_a_warning():
    found = channel_order.check(_patient(lambda x: torch.randn(x.shape, generator=torch.Generator().manual_seed(0))))
    assert found is not None
    assert (found.severity, found.cause) == ("warning", "channels-last")


@pytest.mark.parametrize("normalised", [made.imagenet, made.as_is])
def test_validation_images_with_blue_and_red_exchanged(normalised):
    warm = torch.tensor([1.0, 0.9, 0.7]).view(3, 1, 1)
    found = channel_order.check(_patient(lambda x: normalised(warm * x), lambda x: normalised((warm * x).flip(1))))
    assert found is not None
    assert (found.severity, found.cause) == ("error", "colour-order")


def test_bluer_images_than_photos_are_a_note():
    found = channel_order.check(_patient(lambda x: torch.tensor([0.7, 0.9, 1.0]).view(3, 1, 1) * x))
    assert found is not None
    assert (found.severity, found.cause) == ("note", "colour-order")
    assert found.causes[0].weight < 0.5


@pytest.mark.parametrize(
    "change",
    [
        made.imagenet,
        made.as_is,
        lambda x: made.imagenet(x.mean(1, keepdim=True).expand(-1, 3, -1, -1)),
        lambda x: made.imagenet(x + 0.05 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))),
        lambda x: (x.mean(1, keepdim=True) - 0.45) / 0.225,
        lambda x: made.imagenet(0.1 * x),
    ],
    ids=["photos", "0..1", "grey", "noisy", "one channel", "dark"],
)
def test_healthy(change):
    assert channel_order.check(_patient(change, change)) is None


def test_brighter_validation_images_are_not_exchanged():
    assert channel_order.check(_patient(made.imagenet, lambda x: made.imagenet(0.7 * x + 0.2))) is None


def test_photos_are_healthy(real_data):
    train = made.tiny(real_data, 20).train
    rows = np.random.default_rng(0).choice(len(train), 320, replace=False)
    pixels = np.stack([decode.pixels(train.content(int(row)), exif=False) for row in rows])
    labels = train.labels[rows].astype(np.int64)
    for change in (made.imagenet, made.as_is):
        assert channel_order.check(made.stranger(made.loader(pixels, labels, change))) is None
    turned = channel_order.check(made.stranger(made.loader(pixels[..., ::-1].copy(), labels, made.as_is)))
    assert turned is not None
    assert turned.cause == "colour-order"

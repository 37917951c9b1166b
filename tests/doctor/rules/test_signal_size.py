from __future__ import annotations

import pytest
from torch import nn

from striate.doctor.rules import signal_size
from tests.doctor import makers


def test_vgg_as_printed_explodes():
    found = signal_size.check(makers.patient(makers.network("vgg-a"), batch=8))
    assert found.code == "signal-size" and found.severity == "error" and found.cause == "initialisation"
    assert found.layer.startswith("features.")
    assert "no-normalisation" in {cause.name for cause in found.causes}


def test_a_head_alone_that_is_too_large():
    model = makers.network("resnet18")
    nn.init.normal_(model.fc.weight, std=20.0)
    found = signal_size.check(makers.patient(model))
    assert found.cause == "head-scale"


def test_numbers_that_overflow():
    model = makers.network("alexnet-one-tower", init="he")
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            layer.weight.data *= 1e20
    found = signal_size.check(makers.patient(model, 64, batch=8))
    assert found is not None and "not finite" in found.sentence


@pytest.mark.parametrize("name", ["alexnet", "googlenet", "vgg16-bn", "resnet18", "kth-d"])
def test_silent_for_networks_as_their_papers_start_them(name):
    options = {"size_px": 64} if name == "kth-d" else {}
    assert signal_size.check(makers.patient(makers.network(name, **options), 64, batch=8)) is None

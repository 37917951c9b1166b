from __future__ import annotations

import pytest
from torch import nn

from striate.doctor.finding import NotJudged
from striate.doctor.rules import dropout
from tests.doctor import makers


def _with(share, kind=nn.Dropout2d):
    """A small network with so much dropout behind each of three convolutions."""
    layers = []
    seen = 3
    for width in (16, 32, 32):
        layers += [nn.Conv2d(seen, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU(), kind(share)]
        seen = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 12)).train()


def test_a_share_that_is_kept_given_as_the_share_that_is_dropped():
    found = dropout.check(makers.patient(_with(0.95)))
    assert found.cause == "regularisation-strong" and found.severity == "warning"
    assert found.evidence["agreement of two passes"] < 0.1 and len(found.evidence["layers that drop"]) == 3


def test_the_recipe_gets_a_share_back():
    model = makers.network("kth-d", dropout=0.98, size_px=32)
    recipe = makers.recipe(model__name="kth-d", model__options={"dropout": 0.98})
    found = dropout.check(makers.patient(model, recipe=recipe))
    assert found.remedies[0].changes == {"model.options.dropout": 0.5}


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_silent_for_usual_shares(share):
    assert dropout.check(makers.patient(_with(share, nn.Dropout))) is None


@pytest.mark.parametrize("name", ["alexnet", "vgg-a-bn", "googlenet", "googlenet-bn"])
def test_silent_for_networks_as_their_papers_have_it(name):
    assert dropout.check(makers.patient(makers.network(name), 64, batch=8)) is None


def test_nothing_to_judge_without_dropout():
    with pytest.raises(NotJudged):
        dropout.check(makers.patient(makers.small()))

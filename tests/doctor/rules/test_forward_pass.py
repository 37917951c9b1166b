from __future__ import annotations

import pytest
import torch
from torch import nn

from striate.doctor.rules import forward_pass
from tests.doctor import makers


class Two(nn.Module):
    def forward(self, images, boxes):
        return images


def _patient(model, shown=None):
    patient = makers.patient(model)
    if shown is not None:
        patient.images = shown
    return patient


@pytest.mark.parametrize(
    ("model", "shown", "cause", "words"),
    [
        (Two(), None, None, "TypeError"),
        (nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8, 12)), None, "image-size", "RuntimeError"),
        (makers.small(), torch.rand(32, 32, 32, 3), "channels-last", "channels"),
        (nn.Conv2d(3, 12, 3), None, None, "logits"),
        (nn.Sequential(nn.Flatten(), nn.Linear(3072, 12)), torch.rand(32, 3, 20, 20), "image-size", "mat1"),
    ],
    ids=["two inputs", "linear layer", "channels last", "no logits", "another size"],
)
def test_networks_that_cannot_be_run(model, shown, cause, words):
    found = forward_pass.check(_patient(model, shown))
    assert found.severity == "error" and found.cause == cause and words in found.sentence


def test_a_network_that_returns_nothing_of_use():
    class Odd(nn.Module):
        def forward(self, x):
            return "logits"

    found = forward_pass.check(_patient(Odd()))
    assert "str" in found.sentence and "Return the logits" in found.remedies[0].advice


def test_values_that_are_not_finite():
    model = makers.small()
    model[0].weight.data.fill_(float("nan"))
    assert "not finite" in forward_pass.check(_patient(model)).sentence


def test_silent_for_a_network_that_runs():
    assert forward_pass.check(_patient(makers.small())) is None

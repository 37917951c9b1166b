from __future__ import annotations

import math

import pytest
from torch import nn

from striate.doctor.rules import initial_loss
from tests.doctor import makers


def test_a_head_with_large_weights():
    model = makers.network("resnet18")
    nn.init.normal_(model.fc.weight, std=2.0)
    found = initial_loss.check(makers.patient(model))
    assert found.cause == "head-scale" and found.evidence["ln K"] == pytest.approx(math.log(12))
    assert "ln 12 = 2.48" in found.sentence


def test_an_auxiliary_head_is_named():
    model = makers.network("googlenet-bn")
    nn.init.normal_(model.aux2.fc2.weight, std=5.0)
    found = initial_loss.check(makers.patient(model, 64, batch=8))
    assert "aux_logits2" in found.sentence
    assert found.evidence["(1 + 0.3 + 0.3) ln K"] == pytest.approx(1.6 * math.log(12), rel=1e-3)


@pytest.mark.parametrize("name", ["resnet18", "kth-f", "googlenet", "alexnet"])
def test_silent_for_a_new_network(name):
    options = {"size_px": 64} if name == "kth-f" else {}
    assert initial_loss.check(makers.patient(makers.network(name, **options), 64, batch=8)) is None


def test_silent_for_a_network_that_knows_something_already():
    model = makers.small()
    patient = makers.patient(model)
    optimizer = makers.sgd(model)
    for _ in range(20):
        loss = patient.loss(model(patient.images), patient.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert initial_loss.check(patient) is None

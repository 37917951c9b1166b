from __future__ import annotations

import pytest
from torch import nn

from striate.doctor.rules import batch_norm_mode
from tests.doctor import makers


def test_norms_in_evaluation_mode_within_a_network_in_training_mode():
    model = makers.network("resnet18")
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eval()
    found = batch_norm_mode.check(makers.patient(model))
    assert found.cause == "batch-norm-mode" and found.severity == "warning"


def test_frozen_norms_may_rest():
    model = makers.network("resnet18")
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eval().requires_grad_(False)
    assert batch_norm_mode.check(makers.patient(model)) is None


def test_a_network_as_a_whole_in_evaluation_mode_is_a_note():
    assert batch_norm_mode.check(makers.patient(makers.small().eval())).severity == "note"


@pytest.mark.parametrize(("batch", "cause", "severity"), [(1, "batch-norm-single", "error"), (2, "batch-too-small", "warning")])
def test_batches_that_are_too_small(batch, cause, severity):
    found = batch_norm_mode.check(makers.patient(makers.small(), batch=batch))
    assert (found.cause, found.severity) == (cause, severity)


@pytest.mark.parametrize("name", ["resnet18", "alexnet"])
def test_silent_with_a_batch_and_without_norms(name):
    assert batch_norm_mode.check(makers.patient(makers.network(name), 64, batch=8)) is None


def test_norms_that_forward_itself_puts_into_evaluation_mode():
    class Thawing(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = makers.network("resnet20")

        def forward(self, images):
            return self.network.eval()(images)

    found = batch_norm_mode.check(makers.patient(Thawing().train()))
    assert found.cause == "batch-norm-mode" and found.severity == "warning"


def test_statistics_that_hardly_move():
    model = makers.network("resnet20")
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1e-4
    found = batch_norm_mode.check(makers.patient(model))
    assert (found.code, found.cause, found.severity) == ("batch-norm-statistics", "batch-norm-statistics", "warning")
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 0.01  # as EfficientNet has it
    assert batch_norm_mode.check(makers.patient(model)) is None

from __future__ import annotations

import itertools

import pytest
import torch
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


def _trained(steps=12):
    """A network whose features have a mean far from 0 before they are normalised, and some steps of training."""
    model = makers.small()
    with torch.no_grad():
        model[3].bias -= 20.0
    patient = makers.patient(model)
    optimizer = makers.sgd(model, 0.05)
    for images, labels in itertools.islice(itertools.cycle(patient.train()), steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    return model


def test_trained_weights_beside_fresh_statistics():
    model = _trained()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
    found = batch_norm_mode.check(makers.patient(model))
    assert (found.code, found.severity, found.cause) == ("batch-norm-statistics", "error", "batch-norm-statistics")
    assert found.layer == "1" and found.evidence["batch norms with statistics"] == 2
    assert found.evidence["loss in training mode"] < 0.7 * 2.485 < 2.23 < found.evidence["loss in evaluation mode"]


def test_silent_where_statistics_are_those_of_the_data_and_where_nothing_is_learnt():
    assert batch_norm_mode.check(makers.patient(_trained(0))) is None  # guesses in both modes
    model = _trained()
    with torch.no_grad():
        for _ in range(60):
            model(makers.patient(model).images)
    assert batch_norm_mode.check(makers.patient(model)) is None
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.track_running_stats, layer.running_mean, layer.running_var = False, None, None
    assert batch_norm_mode.check(makers.patient(model)) is None

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from striate.doctor.rules import constant_function
from tests.doctor import makers

PAPER = {"model__name": "se-googlenet-paths", "optim__lr": 0.1}


def test_the_source_papers_network_is_named_with_place_causes_and_its_loss():
    patient = makers.patient(makers.network("se-googlenet-paths"), 64, batch=8, recipe=makers.recipe(**PAPER))
    found = constant_function.check(patient)
    assert found.code == "constant-function" and found.severity == "error"
    assert found.layer.startswith("inception")
    assert "1.6 ln 12 = 3.976" in found.sentence
    assert found.evidence["the same with 1,000 classes"] == "1.6 ln 1000 = 11.05"
    assert {cause.name for cause in found.causes} == {"initialisation", "gates", "no-normalisation"}
    assert found.causes[0].name == "initialisation" and found.causes[0].weight > 0.5
    assert found.evidence["factor of all gates"] == pytest.approx(0.5**9, rel=0.3)
    spread = found.curve.lines["spread"]
    assert spread[0] > 0.5 and spread[-1] < 1e-7 and found.curve.is_log


def test_every_remedy_is_a_recipe_override_that_exists():
    patient = makers.patient(makers.network("se-googlenet-paths"), 64, batch=8, recipe=makers.recipe(**PAPER))
    changes = [dict(remedy.changes) for remedy in constant_function.check(patient).remedies]
    assert {"model.options.init": "he"} in changes and {"model.options.gate_bias": 4.0} in changes
    assert {"model.name": "se-googlenet-bn-paths"} in changes
    assert {"optim.lr": pytest.approx(0.01), "optim.warmup_epochs": 1.0} in changes


def test_the_remedies_do_what_they_say():
    open_gates = makers.network("se-googlenet-paths", init="he", gate_bias=4.0)
    assert constant_function.check(makers.patient(open_gates, 64, batch=8)) is None
    assert constant_function.check(makers.patient(makers.network("se-googlenet-bn-paths"), 64, batch=8)) is None


def test_gates_alone_make_a_weak_signal():
    found = constant_function.check(makers.patient(makers.network("se-googlenet-paths", init="he"), 64, batch=8))
    assert found.code == "weak-signal" and found.severity == "warning" and found.cause == "gates"


def test_uniform_weights_without_normalisation():
    found = constant_function.check(makers.patient(makers.network("kth-a", size_px=32), 32))
    assert found.code == "constant-function" and found.cause == "initialisation"


@pytest.mark.parametrize("name", ["alexnet", "zfnet", "googlenet", "googlenet-bn", "resnet18", "lenet5", "se-resnet50"])
def test_silent_for_networks_as_their_papers_start_them(name):
    options = {"in_channels": 3} if name == "lenet5" else {}
    size = 32 if name == "lenet5" else 64
    assert constant_function.check(makers.patient(makers.network(name, **options), size, batch=16)) is None


def test_silent_for_a_head_that_starts_at_zero():
    model = makers.network("resnet18")
    nn.init.zeros_(model.fc.weight)
    nn.init.zeros_(model.fc.bias)
    assert constant_function.check(makers.patient(model)) is None


def test_silent_for_batch_norm_that_was_left_in_evaluation_mode_as_a_whole():
    """Googlenet-bn in evaluation mode is nearly constant before its first step, and not ill."""
    model = makers.network("googlenet-bn").eval()
    shown, _ = makers.images(8, 64)
    with torch.no_grad():
        logits = model(shown)
    assert float(logits.std(0).max()) < 1e-2  # looks ill by its logits
    assert constant_function.check(makers.patient(model, 64, batch=8)) is None


def test_silent_where_the_images_are_all_the_same():
    patient = makers.patient(makers.small())
    patient.images = torch.zeros_like(patient.images)
    assert constant_function.check(patient) is None
    assert math.isclose(patient.signals.image_spread, 0.0)


def test_gates_that_are_parts_of_the_network_themselves():
    """Each part is a gate as a whole, as in a plain Sequential."""

    class Gate(nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.inner = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels, 1), nn.Sigmoid())

        def forward(self, x):
            return x * self.inner(x) * self.inner(x)

    layers = []
    seen = 3
    for width in (16, 16, 32, 32, 32, 32):
        layers += [nn.Conv2d(seen, width, 3, padding=1), Gate(width), nn.ReLU()]
        seen = width
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(seen, 12)).train()
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3):
            nn.init.kaiming_normal_(layer.weight)
    found = constant_function.check(makers.patient(model))
    assert found is not None and found.cause == "gates"


def test_norms_in_evaluation_mode_are_named_before_the_weights():
    class Thawing(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = makers.network("torchvision/mobilenet_v2")

        def forward(self, images):
            return self.network.eval()(images)

    found = constant_function.check(makers.patient(Thawing().train(), 48, batch=8))
    assert found is not None and found.cause == "batch-norm-mode"


def test_sigmoids_at_their_limits_are_named():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3, 2), nn.Sigmoid(), nn.Conv2d(16, 16, 3, 2), nn.Sigmoid(), nn.Flatten())
    model.append(nn.Linear(16 * 7 * 7, 12))
    nn.init.constant_(model[0].bias, 40.0)
    found = constant_function.check(makers.patient(model.train(), batch=8))
    assert found.code == "constant-function" and found.cause == "saturated-units"
    assert found.causes[0].because.startswith("1 is at the limits")
    nn.init.zeros_(model[0].bias)
    assert constant_function.check(makers.patient(model, batch=8)) is None

from __future__ import annotations

import pytest
import torch
from torch import nn

from striate.doctor.rules import untrained_parameters
from tests.doctor import makers


def test_frozen_layers_that_are_untrained():
    model = makers.network("resnet18")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith("layer"))
    found = untrained_parameters.check(makers.patient(model))
    assert found.cause == "frozen-parameters" and found.severity == "warning" and "layer1.0.conv1.weight" in found.sentence


def test_everything_frozen():
    model = makers.small().requires_grad_(False)
    assert untrained_parameters.check(makers.patient(model)).severity == "error"


def test_frozen_on_purpose_is_no_finding():
    model = makers.network("resnet18")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("fc"))
    recipe = makers.recipe(model__name="resnet18", model__weights="default", optim__freeze="backbone")
    assert untrained_parameters.check(makers.patient(model, recipe=recipe)) is None


def test_a_frozen_backbone_that_has_seen_data_is_a_note():
    model = makers.network("resnet18")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("fc"))
    model.bn1.num_batches_tracked += 5000
    assert untrained_parameters.check(makers.patient(model)).severity == "note"


def test_an_optimiser_of_another_network():
    model, other = makers.small(), makers.small()
    found = untrained_parameters.check(makers.patient(model, optimizer=makers.sgd(other)))
    assert found.severity == "error" and found.cause == "unused-parameters"


def test_an_optimiser_of_a_part():
    model = makers.small()
    found = untrained_parameters.check(makers.patient(model, optimizer=torch.optim.SGD(model[-1].parameters(), 0.1)))
    assert found.cause == "unused-parameters" and "not given to the optimiser" in found.sentence


class Detached(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.rest, self.unused = nn.Conv2d(3, 8, 3), nn.Linear(8, 12), nn.Linear(500, 50)

    def forward(self, x):
        return self.rest(self.stem(x).mean((2, 3)).detach())


def test_parameters_without_a_way_to_the_loss():
    found = untrained_parameters.check(makers.patient(Detached()))
    assert found.cause == "unused-parameters" and "unused.weight" in found.evidence["names"]
    assert "stem.weight" in found.evidence["names"]


def test_a_network_without_parameters():
    model = nn.Sequential(nn.AvgPool2d(8), nn.Flatten())
    assert "no parameters" in untrained_parameters.check(makers.patient(model, 32)).sentence


@pytest.mark.parametrize("closed", ["blocks", "head"])
def test_silent_for_weights_that_begin_at_zero(closed):
    model = makers.network("resnet18", init="zero-gamma" if closed == "blocks" else "paper")
    if closed == "head":
        nn.init.zeros_(model.fc.weight)
    assert untrained_parameters.check(makers.patient(model)) is None


def test_silent_when_all_learn():
    model = makers.network("googlenet-bn")
    assert untrained_parameters.check(makers.patient(model, 64, batch=8, optimizer=makers.sgd(model))) is None


def test_a_backbone_under_no_grad_is_frozen_and_not_unused():
    class FineTuned(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone, self.head = makers.network("resnet20", classes=32), nn.Linear(32, 12)

        def forward(self, images):
            with torch.no_grad():
                features = self.backbone(images)
            return self.head(features)

    found = untrained_parameters.check(makers.patient(FineTuned().train()))
    assert found.cause == "frozen-parameters" and "no_grad" in found.sentence


def test_frozen_by_the_recipe_without_trained_weights():
    model = makers.network("resnet20")
    for parameter in model.layer1.parameters():
        parameter.requires_grad_(False)
    frozen = {"optim__freeze": "until:layer1"}
    assert untrained_parameters.check(makers.patient(model, recipe=makers.recipe(**frozen))).cause == "frozen-parameters"
    meant = makers.recipe(**frozen, model__weights="default")
    assert untrained_parameters.check(makers.patient(model, recipe=meant)) is None


class Listed(nn.Module):
    """Its blocks are in a list that torch does not look into, or that it does."""

    def __init__(self, kept, width):
        super().__init__()
        self.stem, self.classes = nn.Conv2d(3, 64, 3), nn.Linear(64, 12)
        self.blocks = kept([nn.Linear(64, width), nn.Linear(width, 64)])

    def forward(self, x):
        x = self.stem(x).mean((2, 3))
        for block in self.blocks:
            x = block(x)
        return self.classes(x)


def test_layers_in_a_plain_list_are_no_parameters():
    model = Listed(list, 64)
    found = untrained_parameters.check(makers.patient(model, batch=8, optimizer=makers.sgd(model)))
    assert (found.cause, found.severity) == ("unused-parameters", "error")
    assert f"{2 * (64 * 64 + 64):,} numbers" in found.sentence and "plain list" in found.sentence


def test_silent_for_layers_in_a_module_list_and_for_a_number_or_two():
    assert untrained_parameters.check(makers.patient(Listed(nn.ModuleList, 64), batch=8)) is None

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.scale = makers.small(), torch.ones(2, requires_grad=True)

        def forward(self, x):
            return self.inner(x) * self.scale.sum()

    assert untrained_parameters.check(makers.patient(Scaled().train(), batch=8)) is None

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from striate.doctor.finding import NotJudged
from striate.doctor.rules import one_batch
from tests.doctor import makers


class Blind(nn.Module):
    """A network that does not look at its images."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 12)

    def forward(self, x):
        return self.fc(torch.ones(len(x), 4))


def test_a_network_that_does_not_look_cannot_learn_a_batch():
    found = one_batch.check(makers.patient(Blind()))
    assert found.code == "one-batch" and found.severity == "error" and "wrong labels" in found.evidence["excluded"]


def test_what_trains_is_too_little():
    model = makers.network("resnet18")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name == "fc.bias")
    assert one_batch.check(makers.patient(model)).cause == "frozen-parameters"


def test_silent_for_a_network_that_learns_even_with_labels_that_are_wrong():
    patient = makers.patient(makers.small())
    patient.labels = patient.labels[torch.randperm(len(patient.labels), generator=torch.Generator().manual_seed(0))]
    assert one_batch.check(patient) is None
    assert patient.learnt.is_learnt and len(patient.learnt.losses) < 60


@pytest.mark.parametrize("name", ["resnet18", "googlenet-bn"])
def test_silent_for_networks_as_their_papers_start_them(name):
    assert one_batch.check(makers.patient(makers.network(name), 64, batch=16)) is None


def test_without_time_it_is_not_judged():
    with pytest.raises(NotJudged, match="no time"):
        one_batch.check(makers.patient(Blind(), seconds=0.001))


def test_the_network_is_put_back():
    model = makers.small()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert makers.patient(model).learnt.is_learnt
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_loss_that_falls_and_then_is_no_number_is_a_matter_of_precision():
    """Below 1.8 it takes the root of a negative number."""
    found = one_batch.check(
        makers.patient(makers.small(), loss=lambda outputs, labels: (functional.cross_entropy(outputs, labels) - 1.8).sqrt())
    )
    assert (found.cause, found.severity) == ("precision", "error")
    assert "no number" in found.causes[0].because


def test_a_loss_that_grows_out_of_the_numbers_is_none():
    """Each pass multiplies the logits."""

    class Grows(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.factor = makers.small(), 1.0

        def forward(self, x):
            self.factor *= 1e4
            return self.inner(x) * self.factor

    found = one_batch.check(makers.patient(Grows().train()))
    assert found is not None and "precision" not in {cause.name for cause in found.causes}

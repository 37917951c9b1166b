from __future__ import annotations

import torch

from striate.doctor import examination
from striate.doctor.rules import head_size
from tests.doctor import makers


def test_the_head_of_imagenet_is_too_large():
    found = head_size.check(makers.patient(makers.network("resnet18", classes=1000)))
    assert found.cause == "head-size" and found.severity == "warning"


def test_without_a_list_of_classes_many_labels_decide():
    wide = makers.patient(makers.network("resnet18", classes=1000), batch=128, classes=None)
    assert head_size.check(wide).cause == "head-size"
    few = makers.patient(makers.network("resnet18", classes=20), batch=32, classes=None)
    assert head_size.check(few) is None


def test_labels_that_begin_with_one():
    patient = makers.patient(makers.small(), classes=None)
    patient.labels = patient.labels + 1
    patient.train = lambda: iter([(patient.images, patient.labels)])
    found = head_size.check(patient)
    assert found.cause == "labels-off-by-one" and found.severity == "error"


def test_too_few_outputs_stop_the_rules_that_need_a_loss():
    patient = makers.patient(makers.network("resnet18", classes=5))
    found = examination.before(patient)
    assert found[0].cause == "head-size" and found[0].severity == "error"
    assert found.unchecked["constant-function"] == "labels lie outside the network's outputs"


def test_silent_when_they_agree():
    assert head_size.check(makers.patient(makers.small())) is None


def test_labels_below_zero():
    patient = makers.patient(makers.small())
    patient.labels = torch.full_like(patient.labels, -1)
    assert head_size.check(patient).cause == "head-size"

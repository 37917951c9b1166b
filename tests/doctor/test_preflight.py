"""Before a training: the very network that trains, its first images, the time it may take; and the training is not changed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

import striate
from striate import machine
from striate.data import synthetic
from striate.doctor import diagnosis, examination, preflight
from striate.errors import UserError
from striate.files import read_json
from striate.run.folder import Run, build_model

CHANGES = {"model": "resnet20", "img_size": 32, "batch_size": 16, "lr": 0.05, "budget.log_every": 10}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("doctor") / "photos"
    synthetic.make(folder, classes=4, per_class=32, val_per_class=8)
    return folder


def weights(run: Run) -> str:
    found = run.checkpoint("last")
    return hashlib.sha256(b"".join(found.model[name].numpy().tobytes() for name in sorted(found.model))).hexdigest()


@pytest.mark.parametrize(
    "extra", [{}, {"optim.ema": 0.9, "model": "kth-d", "optim.name": "adam", "lr": 0.001}], ids=["plain", "dropout and average"]
)
def test_the_training_is_the_same_with_and_without(photos, tmp_path, extra):
    changes = CHANGES | {"steps": preflight.FEWEST_STEPS} | extra
    with_it = striate.train(photos, changes=changes, out=tmp_path, name="with", quiet=True)
    without = striate.train(photos, changes=changes, out=tmp_path, name="without", quiet=True, doctor=False)
    assert weights(with_it) == weights(without)
    assert (with_it.path / "findings.json").is_file() and not (without.path / "findings.json").exists()
    before = diagnosis.before(with_it)
    assert before is not None and "forward-pass" in before.checked


def test_a_training_of_a_few_steps_is_not_examined(photos, tmp_path):
    run = striate.train(photos, changes=CHANGES | {"steps": 6}, out=tmp_path, name="short", quiet=True)
    assert diagnosis.before(run) is None


def rehearse(photos, tmp_path, seconds=60.0, **changes):
    from striate import progress, sitting

    request = sitting.Request(str(photos), None, CHANGES | changes, out=tmp_path)
    with progress.Display(True) as display, sitting.rehearsed(request, "test", display) as rehearsal:
        yield (
            preflight.patient(rehearsal.recipe, rehearsal.run, rehearsal.splits, rehearsal.device, rehearsal.workers, seconds),
            rehearsal,
        )


def test_the_network_is_the_one_that_trains(photos, tmp_path):
    for patient, rehearsal in rehearse(photos, tmp_path):
        machine.forget_global_randomness(machine.stream_seed(0, "initial weights"))
        own = build_model(rehearsal.recipe, 4).state_dict()
        assert all(torch.equal(tensor, own[name]) for name, tensor in patient.model.state_dict().items())
        assert patient.classes == 4 and patient.images.shape[1:] == (3, 32, 32)
        assert abs(float(patient.images.mean())) < 2 and patient.steps_per_epoch == 8


def test_batches_are_kept_and_begin_anew(photos, tmp_path):
    for patient, _ in rehearse(photos, tmp_path):
        first, again = [labels for _, labels in patient.train()], [labels for _, labels in patient.train()]
        assert len(first) == preflight.BATCHES
        assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
        assert sum(len(labels) for _, labels in patient.scored()) == 32


def test_the_limit_is_a_share_of_the_training(photos, tmp_path):
    for patient, rehearsal in rehearse(photos, tmp_path):
        assert preflight.limit_s(patient, rehearsal.recipe, 100.0) == 5.0
        assert preflight.limit_s(patient, rehearsal.recipe, 7200.0) == preflight.LIMIT_S
        patient.total_steps = 10**7
        assert preflight.limit_s(patient, rehearsal.recipe, None) == preflight.LIMIT_S
        patient.total_steps = 1
        assert preflight.limit_s(patient, rehearsal.recipe, None) < 1.0


def test_rules_stop_when_time_is_up_and_when_asked_to(photos, tmp_path):
    for patient, _ in rehearse(photos, tmp_path):
        patient.seconds = 0.0
        found = examination.before(patient)
        assert set(found.unchecked.values()) == {"no time left"} and not found.checked
    for patient, _ in rehearse(photos, tmp_path):
        found = examination.before(patient, stopped=lambda: "SIGTERM")
        assert set(found.unchecked.values()) == {"SIGTERM"}


def test_wrong_recipes_are_refused_as_by_training(photos, tmp_path):
    with pytest.raises(UserError, match="resnet20"):
        list(rehearse(photos, tmp_path, model="resnet200"))


def test_an_ill_training_is_told_and_goes_on(photos, tmp_path, capsys):
    changes = CHANGES | {"model": "kth-a", "optimizer": "sgd", "steps": preflight.FEWEST_STEPS}
    run = striate.train(photos, changes=changes, out=tmp_path, name="ill")
    shown = capsys.readouterr().err
    assert "constant function" in shown and "--model.options.init he" in shown
    assert run.status["state"] == "done"
    findings = read_json(run.path / "findings.json")
    assert findings["before"]["findings"][0]["code"] == "constant-function"

"""From trained weights to other classes: what goes in, what stays as it was, and that a resume needs no file."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import striate
from striate import sitting
from striate.data import resident
from striate.errors import CheckpointError, UserError
from striate.files import sha256_file
from striate.models import catalog
from striate.recipe import Recipe
from striate.train import trial
from striate.train.budget import Stop

# The convolution and its batch norm, of the network with dropout and a head.
FRONT = {"0.weight", "1.weight", "1.bias"}
STATISTICS = {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
TUNED: dict[str, Any] = {"optim__freeze": "until:1", "optim__head_lr": 10.0, "optim__layer_decay": 0.5}


def save(path: Path, classes: int, network: str = "small") -> dict[str, torch.Tensor]:
    """Weights of a network of that many classes, its batch norm's statistics not those of the start."""
    torch.manual_seed(5)
    tensors = catalog.build(f"path_networks:{network}", classes, {}).state_dict()
    for name, tensor in tensors.items():
        if name.endswith(("running_mean", "running_var")):
            tensor.uniform_(0.5, 1.5)
    save_file(tensors, path)
    return tensors


def notes(end: Any) -> str:
    return "\n".join(record.values["text"] for record in end.records if record.kind == "note")


@pytest.mark.parametrize("freeze", ["until:1", "backbone"])
def test_stopped_anywhere_it_ends_the_same_and_needs_no_file(sit: Any, tmp_path: Path, freeze: str) -> None:
    file = tmp_path / "theirs.safetensors"
    theirs = save(file, classes=7)
    changes = {"model__weights": str(file), **TUNED, "optim__freeze": freeze}
    whole = sit("whole", **changes)
    parts = [whole.last.model, whole.last.ema]
    for name in FRONT | STATISTICS:
        assert all(torch.equal(part[name], theirs[name]) for part in parts), name
    assert {key.partition("/")[0] for key in whole.last.optimizer} == {"6.weight", "6.bias"}
    start = next(record for record in whole.records if record.kind == "start")
    assert start.values["weights_digest"] == sha256_file(file)
    assert start.values["trained_parameters"] == 4 * 129
    assert "The head is new and starts untrained: 6.weight, 6.bias." in notes(whole)
    assert f"--freeze {freeze}: 516 of 748 parameters train, in 6." in notes(whole)
    assert "Rates over --lr, by group of layers: 6 10." in notes(whole)
    cuts = (1, 4, 6) if freeze == "until:1" else (3,)
    for step in cuts:
        save(file, classes=7)
        stop = Stop()
        on = lambda record, step=step, stop=stop: record.kind == "step" and record.step == step and stop.request("SIGTERM")  # noqa: E731
        assert sit(f"cut-{step}", stop, on=on, **changes).exit_code == 75
        file.unlink()
        assert sit(f"cut-{step}", **changes).differences(whole) == []


def test_a_run_without_a_checkpoint_begins_with_the_weights_again(sit: Any, tmp_path: Path) -> None:
    file = tmp_path / "theirs.safetensors"
    save(file, classes=4)
    whole = sit("whole", model__weights=str(file), budget__steps=2, budget__epochs=None)
    cut = sit("cut", model__weights=str(file), budget__steps=2, budget__epochs=None)
    shutil.rmtree(cut.run.checkpoints)
    cut.run.checkpoints.mkdir()
    (cut.run.path / "best.json").unlink()
    cut.run.write_status("running", 1)
    assert sit("cut", model__weights=str(file), budget__steps=2, budget__epochs=None).differences(whole) == []
    shutil.rmtree(cut.run.checkpoints)
    file.unlink()
    with pytest.raises(UserError, match=r"theirs.safetensors: no such weight file"):
        sit("cut", model__weights=str(file), budget__steps=2, budget__epochs=None)


def test_without_frozen_layers_all_of_them_move_and_the_front_moves_least(sit: Any, tmp_path: Path) -> None:
    """AdamW moves each weight by about its rate: 0.25 of it in the convolution, 10 in the head."""
    file = tmp_path / "theirs.safetensors"
    theirs = save(file, classes=4)
    changes = {"model__weights": str(file), "optim__head_lr": 10.0, "optim__layer_decay": 0.25, "budget__epochs": 0.25}
    end = sit("run", **changes, optim__warmup_epochs=0.0, optim__lr=1e-3, optim__weight_decay=0.0)
    moved = {name: float((end.last.model[name] - theirs[name]).abs().max()) for name in (*FRONT, "6.weight", "6.bias")}
    assert {name: round(distance / 1e-3, 2) for name, distance in moved.items()} == {
        **dict.fromkeys(FRONT, 0.25),
        **dict.fromkeys(("6.weight", "6.bias"), 10.0),
    }
    assert "Rates over --lr, by group of layers: 0 0.25, 1 0.25, 6 10." in notes(end)
    assert "The head is that of the weights: they have 4 outputs too, and do not say what these mean." in notes(end)


def test_the_weights_of_a_run_bring_their_view_and_keep_their_head_only_for_the_same_classes(
    sit: Any, images: Path, tmp_path: Path
) -> None:
    first = sit("first", data__normalise="dataset", data__size_px=40)
    weights = {"model__weights": str(first.run.path), "data__size_px": 0, "budget__epochs": 0.25}
    same = sit("same", **weights)
    assert (same.run.view.mean, same.run.view.std, same.run.view.size_px) == (first.run.view.mean, first.run.view.std, 40)
    assert same.run.recipe.data.normalise == "weights"
    assert "The head is new" not in notes(same)
    other = tmp_path / "other"
    shutil.copytree(images, other)
    for split in ("train", "val"):  # as many classes, of which one is another
        first_class = min((other / split).iterdir())
        first_class.rename(first_class.with_name("a-new-one"))
    run = striate.train(
        other,
        out=tmp_path / "runs",
        name="other",
        changes={"model": "path_networks:small", "weights": str(first.run.path), "steps": 1, "batch-size": 12, "lr": 1e-9},
        device="cpu",
        workers="0",
        quiet=True,
    )
    best = first.run.checkpoint("best").ema
    assert best is not None
    begun = run.checkpoint("last").model
    torch.testing.assert_close(begun["0.weight"], best["0.weight"])
    assert not torch.allclose(begun["6.weight"], best["6.weight"], atol=1e-3)


def test_a_grey_network_takes_the_weights_of_a_colour_network_and_of_a_grey_one(sit: Any, tmp_path: Path) -> None:
    file = tmp_path / "theirs.safetensors"
    theirs = save(file, classes=4)
    changes = {"data__colour": "grey", "optim__freeze": "until:1", "budget__epochs": 0.25}
    first = sit("grey", model__weights=str(file), **changes)
    assert torch.equal(first.last.model["0.weight"], theirs["0.weight"].sum(1, keepdim=True))
    assert "summed over the three channels" in notes(first)
    second = sit("again", model__weights=str(first.run.path / "checkpoints" / "step-1"), **changes)
    assert torch.equal(second.last.model["0.weight"], first.last.model["0.weight"])
    assert "summed" not in notes(second)
    assert second.run.recipe.data.normalise == "weights"


def test_what_does_not_fit_is_told_before_an_image_is_decoded(sit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(*_: Any, **__: Any) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(resident, "build", decode)
    file = tmp_path / "theirs.safetensors"
    save(file, classes=4, network="plain")
    for kind, words, changes in (
        (CheckpointError, "theirs.safetensors", {"model__weights": str(file)}),
        (UserError, "nowhere.pth: no such weight file", {"model__weights": "nowhere.pth"}),
        (
            UserError,
            r"data.normalise weights: --weights .*theirs.safetensors do not say how they see photos",
            {"model__weights": str(file), "data__normalise": "weights"},
        ),
        (UserError, "data.normalise weights: there are no --weights", {"data__normalise": "weights"}),
        (UserError, r"until:nine: this Sequential has no such layer", {"optim__freeze": "until:nine"}),
        (UserError, r"until:6: nothing is left to train", {"optim__freeze": "until:6"}),
        (
            UserError,
            r"path_networks:plain: an input of 2x2 px is too small; the smallest is 3x3",
            {"model__name": "path_networks:plain", "data__size_px": 2},
        ),
    ):
        with pytest.raises(kind, match=words):
            sit("run", data__resident="yes", **changes)


def test_an_image_too_small_for_a_head_that_only_training_has_is_a_mistake_of_the_user_s(sit: Any) -> None:
    with pytest.raises(UserError, match=r"torchvision/inception_v3: an input of 76x76 px is too small; the smallest is 299x299"):
        sit("run", model__name="torchvision/inception_v3", data__size_px=76, data__shrink_px=90)


def test_freezing_cannot_change_within_a_run(sit: Any, tmp_path: Path) -> None:
    sit("run", budget__epochs=0.25)
    with pytest.raises(UserError, match=r"optim.freeze cannot change within a run"):
        sit("run", budget__epochs=0.25, optim__freeze="until:1", override=("optim.freeze",))


def test_plan_and_picture_of_a_request_take_the_weights(
    sit: Any, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = sit("first", data__normalise="divide", budget__epochs=0.25)
    changes = {"model.name": "path_networks:small", "model.weights": str(first.run.path), "optim.batch_size": 12}
    request = sitting.Request(str(images), Recipe(), changes | {"optim.freeze": "backbone"}, tmp_path / "other", device="cpu")
    assert sitting.show(request, 1, tmp_path / "picture.png", quiet=True).path.is_file()
    monkeypatch.setattr(trial, "LOOK_S", 0.05)
    forecast = sitting.plan(request, quiet=True)
    assert forecast.memory.parts["gradients"] == 4 * 516 < forecast.memory.parts["parameters"]
    assert not (tmp_path / "other").exists()

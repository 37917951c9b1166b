"""The plan of a real training on a few generated images, against what training then does; and that nothing is left."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from striate import cli, sitting
from striate.data import resident, synthetic
from striate.data.loader import Streaming
from striate.errors import DataError, ResourceError
from striate.measure import plan
from striate.recipe import Recipe
from striate.run import checkpoint
from striate.train import trial

CHANGES = {
    "model.name": "trial_networks:small",
    "data.size_px": 32,
    "optim.name": "adamw",
    "optim.lr": 0.001,
    "optim.batch_size": 8,
    "optim.ema": 0.9,
    "optim.precision": "fp32",
    "budget.epochs": 2.0,
    "budget.log_every": 1,
}


def small(num_classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(256, 64),
        nn.ReLU(),
        nn.Linear(64, num_classes),
    )


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3 classes of 16 and 4 photos."""
    folder = tmp_path_factory.mktemp("photos") / "photos"
    synthetic.make(folder, layout="folder", classes=3, per_class=16, val_per_class=4)
    return folder


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A network by name, one thread, and looks of an instant."""
    monkeypatch.setitem(sys.modules, "trial_networks", sys.modules[__name__])
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(trial, "LOOK_S", 0.15)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def request(images: Path, out: Path, **changes) -> sitting.Request:
    named = {key.replace("__", "."): value for key, value in changes.items()}
    return sitting.Request(str(images), Recipe(), {**CHANGES, **named}, out, "x", workers="1", device="cpu")


def files_under(*folders: Path) -> set[Path]:
    return {path for folder in folders for path in folder.rglob("*")}


@pytest.mark.parametrize("resident_or_not", ["yes", "no"])
def test_the_facts_are_those_of_the_training_itself(images, tmp_path, monkeypatch, resident_or_not):
    monkeypatch.setenv("STRIATE_CACHE", str(tmp_path / "cache"))
    asked = request(images, tmp_path / "runs", data__resident=resident_or_not)
    found = sitting.plan(asked, quiet=True)
    run, _ = sitting.sit(asked, quiet=True)
    saved = checkpoint.newest(run.checkpoints)[0]
    size = sum(file.stat().st_size for file in saved.path.iterdir())
    assert found.disk.checkpoint == pytest.approx(size, rel=0.05)
    assert found.disk.checkpoints >= len(checkpoint.steps_in(run.checkpoints))
    assert found.disk.log == pytest.approx((run.path / "log.jsonl").stat().st_size, rel=0.5)
    assert found.duration.steps == run.status["step"] == 12
    assert found.duration.evaluations == len({record["step"] for record in run.log() if record["kind"] == "evaluation"}) == 2
    weights = plan.size_bytes(saved.model.values())
    assert found.memory.parts["parameters"] == found.memory.parts["average"] == weights
    assert found.memory.parts["optimiser"] == plan.size_bytes(saved.optimizer.values())
    assert found.memory.parts["copy for saving"] == 2 * weights + found.memory.parts["optimiser"]
    # By hand, for 8 images of float32: pixels, what batch norm and what the ReLU's and pooling's backward need, pooled, hidden.
    by_hand = 4 * 8 * (3 * 32 * 32 + 2 * 16 * 16 * 16 + 256 + 64)
    assert found.memory.parts["activations"] == pytest.approx(by_hand, rel=0.01)
    assert found.duration.step_s == pytest.approx(8 / found.speed.together)
    assert found.duration.evaluation_s == pytest.approx((2 * 12 + 12) / found.speed.scoring)
    assert found.duration.total_s == pytest.approx(12 * found.duration.step_s + 2 * found.duration.evaluation_s)
    if resident_or_not == "yes":
        blocks = list((tmp_path / "cache" / "images").rglob("pixels.bin"))
        assert found.disk.cache == found.memory.parts["images"] == sum(block.stat().st_size for block in blocks)
        assert found.duration.decoding_s > 0 and found.setting.source == "memory"
        assert found.speed.loader_again is None and found.speed.decoding is None
        assert sitting.plan(asked, quiet=True).duration.decoding_s == 0, "the cache has them now"
    else:
        assert found.disk.cache == 0 and found.setting.source == "files"
        assert found.speed.loader_again > 0 and found.speed.decoding > 0


def test_nothing_is_left(images, tmp_path, monkeypatch):
    temporary, cache, out = tmp_path / "temporary", tmp_path / "cache", tmp_path / "runs"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    monkeypatch.setenv("STRIATE_CACHE", str(cache))
    monkeypatch.chdir(temporary)
    environment, before = dict(os.environ), files_under(tmp_path, images)
    numbers = np.random.default_rng(0).random()
    torch.manual_seed(5)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    sitting.plan(request(images, out, data__resident="yes"), quiet=True)
    assert files_under(tmp_path, images) == before
    assert {key: value for key, value in os.environ.items() if key.startswith("STRIATE")} == {
        key: value for key, value in environment.items() if key.startswith("STRIATE")
    }
    assert torch.equal(torch.get_rng_state(), state) and torch.get_num_threads() == threads
    assert numbers == np.random.default_rng(0).random()
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_slow_network_is_measured_on_fewer_images(images, tmp_path, monkeypatch):
    monkeypatch.setattr(trial, "STEP_S", 0.0)
    whole = request(images, tmp_path, optim__batch_size=32)
    found = sitting.plan(whole, quiet=True)
    assert (found.setting.measured_batch, found.setting.batch_size, found.memory.peak_images) == (8, 32, 8)
    monkeypatch.setattr(trial, "STEP_S", 60.0)
    activations = sitting.plan(whole, quiet=True).memory.parts["activations"]
    assert found.memory.parts["activations"] == pytest.approx(activations, rel=0.02), "four times those of 8 images"


def test_a_slow_decoder_is_named_with_its_way_out(tmp_path, monkeypatch):
    """4 ms for each photo, and one worker: at most 250 images/s, whatever the machine."""
    dice = np.random.default_rng(0)
    for number in range(32):
        folder = tmp_path / "photos" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(dice.integers(0, 256, (400, 400, 3), dtype=np.uint8)).save(folder / f"{number}.jpg", quality=10)
    real = Streaming.image

    def slow(source: Streaming, row: int) -> np.ndarray:
        time.sleep(0.004)
        return real(source, row)

    monkeypatch.setattr(Streaming, "image", slow)
    monkeypatch.setattr(resident, "MEMORY_SHARE", 0.0)
    asked = request(tmp_path / "photos", tmp_path / "runs", data__resident="no", optim__batch_size=16)
    monkeypatch.setattr(trial, "STEP_S", 0.0)  # the step is measured on half a batch, the loader on whole ones all the same
    found = sitting.plan(asked, quiet=True)
    assert found.bottleneck == "loader" and found.speed.network > 2 * found.speed.loader
    assert found.speed.together <= found.speed.loader * 1.2 and max(found.speed.loader, found.speed.decoding) <= 250
    assert found.setting.source == "files" and found.speed.decoding_share > 0.5
    assert any(line.startswith("striate data pack DATA PACK") for line in found.advice)


def test_a_time_gives_epochs(images, tmp_path):
    found = sitting.plan(request(images, tmp_path, budget__epochs=None, budget__time="20s"), quiet=True)
    assert found.duration.is_limited and found.duration.total_s <= 20.0
    assert found.duration.epochs == pytest.approx(found.duration.steps / 6)


def test_a_part_has_every_class(images):
    splits = sitting.open_data(str(images), 0.1)
    few = trial._part(splits).train
    assert len(few) <= trial.DECODED and len(np.unique(few.labels)) == len(splits.train.classes.ids)


def test_the_command_prints_the_plan_and_its_json(images, tmp_path, capsys):
    words = ["train", str(images), "--model", "trial_networks:small", "--img-size", "32", "--batch-size", "8", "--epochs", "1"]
    place = ["--out", str(tmp_path / "runs"), "--workers", "1", "--device", "cpu"]
    assert cli.run([*words, *place, "--plan", "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[:6]] == ["Plan", "speed", "bottleneck", "time", "memory", "disk"]
    assert lines[6].startswith("to change:")
    assert json.loads(lines[-1])["plan"]["duration"]["steps"] == 6
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["nowhere"], 2, "nowhere"),
        (["DATA", "--batch-size", "4096"], 2, "4096"),
        (["DATA", "--model", "resnet81", "--batch-size", "8"], 2, "resnet18"),
        (["DATA", "--epochs", "0.001"], 2, "less than one step"),
        (["DATA", "--workers", "many"], 2, "--workers"),
    ],
)
def test_bad_input_has_the_exit_code_that_training_has(images, tmp_path, capsys, words, code, said):
    named = [str(images) if word == "DATA" else word for word in words]
    assert cli.run(["train", *named, "--out", str(tmp_path / "runs"), "--device", "cpu", "--plan"]) == code
    assert said in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_step_that_finds_no_memory_says_what_to_do(images, tmp_path, monkeypatch):
    def greedy(*_: object) -> None:
        raise torch.OutOfMemoryError("tried to allocate 1 TiB of memory")

    monkeypatch.setattr(trial, "_step", greedy)
    with pytest.raises(ResourceError, match=r"--optim\.accumulate"):
        sitting.plan(request(images, tmp_path), quiet=True)


def test_images_that_cannot_be_read_are_an_error(images, tmp_path):
    folder = tmp_path / "broken"
    shutil.copytree(images, folder)
    for photo in (folder / "train").rglob("*.jpg"):
        photo.write_bytes(photo.read_bytes()[:300])  # the header is whole, the pixels are not
    with pytest.raises(DataError, match="can be read"):
        sitting.plan(request(folder, tmp_path, data__resident="no"), quiet=True)


def test_a_rate_of_zero_leaves_the_weights_as_they_are(images, tmp_path, monkeypatch):
    """A recipe whose first steps would diverge is measured all the same."""
    found = []
    real = trial.build
    monkeypatch.setattr(trial, "build", lambda *words: found.append(real(*words)) or found[-1])
    sitting.plan(request(images, tmp_path, optim__lr=1e9, optim__ema=0.0, optim__weight_decay=0.0), quiet=True)
    assert found[0].state.step > 5 and found[0].state.skipped == 0
    weights = found[0].state.model.state_dict()
    assert all(float(weights[name].abs().max()) < 10 for name in ("0.weight", "5.weight", "7.weight"))


def test_the_cache_is_on_again_afterwards(monkeypatch):
    monkeypatch.setenv("STRIATE_CACHE_GB", "3")
    with trial._nothing_cached():
        assert resident.cap_bytes() == 0
    assert resident.cap_bytes() == 3_000_000_000

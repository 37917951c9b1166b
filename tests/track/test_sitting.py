"""Trainings with trackers: the same bits as without, and to the end whatever a tracker does."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from striate import cli, sitting
from striate.run.folder import Run
from striate.track import trackers

CHANGES = {
    "model.name": "resnet18",
    "model.options.width": "8",
    "model.options.stem": "small",
    "data.size_px": 16,
    "data.resident": "no",
    "optim.batch_size": 4,
    "optim.precision": "fp32",
    "optim.ema": 0.9,
    "budget.steps": 4,
    "budget.log_every": 1,
}


@pytest.fixture
def train(tmp_path: Path):
    """train("name", track): a training of four steps on twelve images. Returns its run."""
    numbers = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for label in ("blue", "red"):
            (tmp_path / "photos" / split / label).mkdir(parents=True)
            for i in range(count):
                pixels = numbers.integers(0, 255, (18, 20, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(tmp_path / "photos" / split / label / f"{i}.png")
    threads = torch.get_num_threads()

    def train(name: str, track: tuple[str, ...] = ()) -> Run:
        options = {"workers": "0", "device": "cpu", "quiet": True}
        return sitting.train(tmp_path / "photos", changes=CHANGES, out=tmp_path / "runs", name=name, track=track, **options)

    yield train
    torch.set_num_threads(threads)


def weights(run: Run) -> dict[str, bytes]:
    return {name: (run.checkpoints / "step-4" / f"{name}.safetensors").read_bytes() for name in ("model", "optimizer", "ema")}


def test_a_tracked_training_has_the_same_bits(train):
    pytest.importorskip("tensorboard", reason="needs the extra track: pip install 'striate[track]'")
    from .test_tensorboard import read, scalars

    plain, tracked = train("plain"), train("tracked", ("tensorboard",))
    assert weights(tracked) == weights(plain)
    found = read(tracked)
    logged = [(line["step"], pytest.approx(line["loss"])) for line in tracked.log() if line["kind"] == "step"]  # kept as float32
    assert scalars(found, "train/loss") == logged and len(logged) == 4
    assert {"val/raw/top1", "val/EMA/top1", "train/lr", "speed/wait_share"} <= set(found.Tags()["scalars"])
    assert not (plain.path / "track").exists()


def test_a_tracker_that_fails_leaves_one_warning_in_the_log_and_the_training_is_done(train, monkeypatch):
    @contextlib.contextmanager
    def failing(story):
        def write(entry):
            raise OSError("No space left on device")

        yield write

    monkeypatch.setattr(trackers, "TRACKERS", {"failing": (failing, ())})
    run = train("x", ("failing",))
    told = [line["text"] for line in run.log() if line["kind"] == "note" and "failing" in line["text"]]
    assert told == [
        "failing: tracking failed and is off for this sitting (No space left on device). The training goes on; its log has all."
    ]
    assert run.status["state"] == "done" and "step-4" in {path.name for path in run.checkpoints.iterdir()}


def test_the_command_refuses_an_unknown_tracker_first(tmp_path, capsys):
    assert cli.run(["train", str(tmp_path / "no data"), "--track", "tensorbord", "--out", str(tmp_path / "runs")]) == 2
    assert "--track tensorbord: no such tracker. Did you mean 'tensorboard'?" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()

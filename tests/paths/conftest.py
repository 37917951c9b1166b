"""Whole journeys on 64 generated photos: the photos, a network with everything that has state, and sittings in process."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from striate import sitting
from striate.data import synthetic
from striate.progress import Display
from striate.recipe import Recipe
from striate.run import checkpoint
from striate.run.folder import Run
from striate.run.log import Record
from striate.run.mirror import open_mirror
from striate.train import loop
from striate.train.budget import Stop

NETWORKS = '''
import torch
from torch import nn


def small(num_classes):
    """Batch normalisation has buffers, dropout draws at random: what a resume has to get right."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(8 * 4 * 4, num_classes),
    )


def plain(num_classes):
    """Nothing but its weights: what they do not change stays as it is."""
    first = nn.Conv2d(3, 8, 3, stride=2)
    return nn.Sequential(first, nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, num_classes))


def spoilt(num_classes):
    """Sends out infinity after the first layer for a white image."""
    model = small(num_classes)
    model[0].register_forward_hook(spoil)
    return model


def spoil(module, inputs, output):
    white = inputs[0].amin(dim=(1, 2, 3)) >= 2.2
    return torch.where(white[:, None, None, None], torch.inf, output)
'''

CHANGES: dict[str, Any] = {
    "model.name": "path_networks:small",
    "data.size_px": 32,
    "data.shrink_px": 40,
    "data.resident": "no",
    "loss.smoothing": 0.1,
    "optim.name": "adamw",
    "optim.lr": 0.01,
    "optim.batch_size": 12,
    "optim.accumulate": 2,
    "optim.clip_norm": 1.0,
    "optim.ema": 0.9,
    "optim.warmup_epochs": 0.5,
    "optim.precision": "fp32",
    "budget.epochs": 2.0,
    "budget.log_every": 1,
}


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 4 classes: 48 photos to train on, 16 to validate."""
    folder = tmp_path_factory.mktemp("photos") / "photos"
    synthetic.make(folder, layout="folder", classes=4, per_class=12, val_per_class=4)
    return folder


@pytest.fixture(scope="session", autouse=True)
def networks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Makes `path_networks:small` a network's name."""
    folder = tmp_path_factory.mktemp("networks")
    (folder / "path_networks.py").write_text(NETWORKS)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Sittings set torch's threads; afterwards they are what they were."""
    before = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here is about power cuts, and waiting for the disk takes most of the time of so many small saves."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@dataclass(frozen=True)
class End:
    """How a sitting ended: its run, the records it yielded, its newest checkpoint."""

    run: Run
    records: list[Record]
    exit_code: int
    last: checkpoint.Checkpoint

    def differences(self, other: End) -> list[str]:
        """What is not equal, bit for bit, in the newest checkpoints of two runs, and in their best.json; the clock apart."""
        found = []
        for part in ("model", "optimizer", "ema"):
            ours, theirs = getattr(self.last, part) or {}, getattr(other.last, part) or {}
            found += [f"{part} {name}" for name in ours.keys() ^ theirs.keys()]
            found += [f"{part} {name}" for name in ours.keys() & theirs.keys() if not torch.equal(ours[name], theirs[name])]
        for name in self.last.state.keys() | other.last.state.keys():
            if name not in {"elapsed_s", "pace"} and self.last.state.get(name) != other.last.state.get(name):
                found.append(f"state {name}: {self.last.state.get(name)} and {other.last.state.get(name)}")
        if self.run.best != other.run.best:
            found.append("best.json")
        return found


Sit = Callable[..., End]


@pytest.fixture
def sit(images: Path, tmp_path: Path) -> Sit:
    """sit(name, stop=…, workers=…, on=…, mirror=…, recipe=…, **changes): one sitting of a run, up to the end of the loop.

    on: called with each record as it comes. Changes are named with "__" for ".": budget__epochs=3. recipe: the name of one
    to start from, in the place of CHANGES.
    """

    def one(
        name: str,
        stop: Stop | None = None,
        workers: str = "0",
        on: Callable[[Record], None] | None = None,
        override: tuple[str, ...] = (),
        mirror: Path | None = None,
        recipe: str | None = None,
        **changes: Any,
    ) -> End:
        named = {key.replace("__", "."): value for key, value in changes.items()}
        request = sitting.Request(
            str(images),
            recipe or Recipe(),
            named if recipe else {**CHANGES, **named},
            tmp_path / "runs",
            name,
            workers=workers,
            device="cpu",
            override=override,
            mirror=mirror,
        )
        records = []
        with contextlib.ExitStack() as stack:
            prepared = sitting.prepare(request, Display(quiet=True), stack)
            arguments: dict[str, Any] = {"splits": prepared.splits, "device": "cpu", "workers": workers, "stop": stop}
            if mirror is not None:
                arguments["copy"] = open_mirror(mirror, prepared.run).copy
            with contextlib.closing(loop.steps(prepared.recipe, prepared.run, **arguments)) as found:
                for record in found:
                    records.append(record)
                    if on is not None:
                        on(record)
        last = checkpoint.newest(prepared.run.checkpoints)[0]
        assert last is not None
        return End(prepared.run, records, records[-1].values["exit_code"], last)

    return one

"""A tiny data set and trainings on it: three classes of noisy colours, a ResNet-18 of width 8 at 16 px."""

import contextlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from striate import machine, progress, sitting
from striate.recipe import Recipe
from striate.run.folder import Run
from striate.run.log import Record
from striate.train import loop
from striate.train.budget import Stop

CHANGES = {
    "model.name": "resnet18",
    "model.options.width": "8",
    "model.options.stem": "small",
    "data.size_px": 16,
    "data.resident": "no",
    "optim.batch_size": 6,
    "optim.precision": "fp32",
    "optim.lr": 0.02,
    "optim.ema": 0.9,
    "budget.steps": 8,
    "budget.evaluate_epochs": 1,  # 4 steps
    "budget.log_every": 1,
}


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 training and 12 validation images; not to be written to."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    numbers = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 4)):
        for name, colour in {"blue": (40, 40, 200), "green": (40, 200, 40), "red": (200, 40, 40)}.items():
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                noise = numbers.integers(-60, 60, (20, 24, 3))
                Image.fromarray(np.clip(colour + noise, 0, 255).astype(np.uint8)).save(folder / split / name / f"{i}.jpg")
    return folder


@dataclass
class Sittings:
    """Trainings in this process, without the report: `prepare` and `run` of one sitting after the other."""

    photos: Path
    out: Path

    def request(self, **changes: Any) -> sitting.Request:
        options = {key: changes.pop(key) for key in list(changes) if key in sitting.Request.__dataclass_fields__}
        named = {key.replace("__", "."): value for key, value in changes.items()}
        fields = {"data": str(self.photos), "recipe": Recipe(), "out": self.out, "name": "x", "workers": "0"} | options
        return sitting.Request(changes=CHANGES | named, **fields)  # type: ignore[arg-type]

    @contextlib.contextmanager
    def prepared(self, said: io.StringIO | None = None, **changes: Any) -> Iterator[sitting.Prepared]:
        console = Console(file=said or io.StringIO(), width=400, soft_wrap=True)
        with progress.Display(console=console) as display, contextlib.ExitStack() as stack:
            yield sitting.prepare(self.request(**changes), display, stack)

    def train(self, until: int | None = None, watch: Callable[[Record], None] | None = None, **changes: Any) -> list[Record]:
        """The records of one sitting, which is asked to stop at step `until`."""
        records = []
        machine.use_threads(1)
        stop = Stop()
        with self.prepared(**changes) as ready:
            loops = loop.steps(ready.recipe, ready.run, splits=ready.splits, device="cpu", workers="0", stop=stop)
            with contextlib.closing(loops):
                for record in loops:
                    records.append(record)
                    if watch is not None:
                        watch(record)
                    if until is not None and record.step >= until:
                        stop.request("asked")
        return records

    def sit(self, **changes: Any) -> tuple[list[Record], int]:
        """A whole sitting with its log; without the report. Returns the records of the log and the exit code."""
        run, code = sitting.sit(self.request(**changes), quiet=True)
        return [Record(one["kind"], one["step"], one) for one in run.log()], code

    @property
    def run(self) -> Run:
        return Run(self.out / "x")


@pytest.fixture
def sittings(photos: Path, tmp_path: Path) -> Iterator[Sittings]:
    import torch

    threads = torch.get_num_threads()
    yield Sittings(photos, tmp_path / "runs")
    torch.set_num_threads(threads)

"""A run folder without a training: its recipe, and the log of sittings whose records a test makes up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from striate.recipe import Recipe, change
from striate.run.folder import Run, Typed
from striate.run.log import Log, Record
from striate.track import trackers
from striate.track.trackers import Trackers

FACTS = {"images": 24, "val_images": 12, "classes": 3, "parameters": 176_000, "device": "cpu", "precision": "fp32", "threads": 1}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run with a recipe and an empty log; no tracker's variable and no login of this machine counts."""
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_PROJECT", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(trackers, "STOP_S", 60.0)  # this machine may be busy
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    run = Run(tmp_path / "runs" / "x")
    run.path.mkdir(parents=True)
    recipe = change(Recipe(), {"model": "resnet18", "model.options.stem": "small", "lr": 0.25, "steps": 12})
    run.write(Typed("chosen", recipe, {}), recipe)
    return run


def begins(step: int = 0) -> Record:
    return Record("resume" if step else "start", step, FACTS)


def steps(first: int, last: int) -> list[Record]:
    """Steps first to last, evaluated with raw and averaged weights after every fourth."""
    made = []
    for step in range(first, last + 1):
        norms = {"conv1": {"weight": 2.0 * step, "gradient": 0.5, "update": 0.01}}
        facts = {"epoch": step / 4, "loss": 1 / step, "losses": {"main": 1 / step}, "lr": 0.1, "top1": step / 100}
        facts |= {"images_per_s": 90.0, "wait_share": 0.25, "norms": norms, "dead_share": {"relu": 0.125}, "loss_scale": None}
        made.append(Record("step", step, facts))
        if step % 4 == 0:
            scores = {"split": "val", "top1_interval": [step / 100, step / 10], "top5": 0.9, "top5_k": 3, "loss": 0.5, "bad": 0}
            made += [Record("evaluation", step, scores | {"weights": name, "top1": top1}) for name, top1 in
                     (("raw", step / 20), ("EMA", step / 25))]  # fmt: skip
    return made


@pytest.fixture
def sit(run: Run) -> Callable[..., list[str]]:
    """One sitting: each record into the log, then to the trackers. Returns what they said."""

    def sit(names: Sequence[str], records: Sequence[Record]) -> list[str]:
        log, told, said = Log(run.path / "log.jsonl"), Trackers(run, names), []
        for record in records:
            log.append(record)
            said += told.write(record)
        log.close()
        return said + told.close()

    return sit

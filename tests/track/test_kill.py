"""A process that is killed in the middle of tracking, and the one that goes on: all three trackers at once."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from striate.run.log import Record
from striate.track.trackers import TRACKERS

from . import test_mlflow, test_tensorboard, test_wandb
from .conftest import begins, steps

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of theirs

KILLED = """
import os, signal, sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from conftest import begins, steps
from striate.run.folder import Run
from striate.run.log import Log
from striate.track.trackers import Trackers
run = Run(Path({run!r}))
log, trackers = Log(run.path / "log.jsonl"), Trackers(run, {names!r})
for record in [begins(), *steps(1, 7)]:
    log.append(record)
    trackers.write(record)
    time.sleep(0.4)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_after_a_kill_each_tracker_holds_each_step_once(run, sit):
    """Killed at step 7, with more or less of it written, and on from the checkpoint of step 5."""
    names = list(TRACKERS)
    code = KILLED.format(tests=str(__file__).rpartition("/")[0], run=str(run.path), names=names)
    said = run.path / "said.txt"  # a file: W&B's own process lives on for seconds, and would keep a pipe open
    with said.open("w") as file:
        done = subprocess.run([sys.executable, "-c", code], stdout=file, stderr=file, timeout=60)
    assert done.returncode == -signal.SIGKILL, said.read_text()
    sit(names, [begins(5), *steps(6, 12), Record("end", 12, {"reason": "done", "exit_code": 0})])
    wanted = [(step, round(1 / step, 6)) for step in range(1, 13)]
    assert test_tensorboard.scalars(test_tensorboard.read(run), "train/loss") == wanted
    assert test_wandb.column(test_wandb.read(run)[0], "train/loss") == wanted
    assert test_mlflow.history(*test_mlflow.read(run), "train/loss") == wanted

"""`striate.train` as a notebook calls it: again, in a thread, and without a trace in the process that calls it."""

from __future__ import annotations

import random
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import striate
from striate import machine
from striate.run.folder import Run

SETTINGS: dict[str, Any] = {
    "model": "path_networks:small",
    "img_size": 32,
    "batch_size": 12,
    "steps": 3,
    "precision": "fp32",
    "device": "cpu",
    "workers": "0",
    "quiet": True,
}


def train(images: Path, out: Path, **more: Any) -> Run:
    return striate.train(images, out=out, name="x", **{**SETTINGS, **more})


def test_the_same_call_again_finds_its_run_finished(images, tmp_path):
    run = train(images, tmp_path)
    written = (run.path / "log.jsonl").read_bytes()
    again = train(images, tmp_path)
    assert again == run and (run.path / "log.jsonl").read_bytes() == written
    assert train(images, tmp_path, steps=5, override=("budget.steps",)).status["step"] == 5


def state() -> dict[str, Any]:
    """What other cells of a notebook would notice."""
    return {
        "handlers": [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)],
        "threads": torch.get_num_threads(),
        "threads running": threading.active_count(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "benchmark": torch.backends.cudnn.benchmark,
        "filled": torch.utils.deterministic.fill_uninitialized_memory,
        "gradients": torch.is_grad_enabled(),
        "default dtype": torch.get_default_dtype(),
        "torch": torch.get_rng_state().tolist(),
        "numpy": np.random.get_state()[1].tolist(),  # noqa: NPY002 - the user's global generator is what is meant
        "python": random.getstate(),
    }


@pytest.mark.parametrize("ending", ["done", "stopped", "refused"])
def test_the_process_is_afterwards_as_it_was(images, tmp_path, monkeypatch, ending):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    torch.set_num_threads(2)
    random.seed(3)
    before = state()
    if ending == "refused":
        with pytest.raises(striate.UserError):
            train(images, tmp_path, batch_size=4096)
    else:
        train(images, tmp_path, **({"stop_after": "0s"} if ending == "stopped" else {}))
    after = state()
    assert [name for name in before if before[name] != after[name]] == []


def test_the_generators_are_left_alone_even_where_the_block_fails():
    torch.manual_seed(1)
    expected = torch.get_rng_state().clone()
    with pytest.raises(ValueError, match="inside"), machine.as_found():
        machine.forget_global_randomness(7)
        torch.set_num_threads(2)
        raise ValueError("inside")
    assert torch.equal(torch.get_rng_state(), expected) and torch.get_num_threads() == 1


def test_a_thread_that_is_not_the_main_one_can_train(images, tmp_path):
    """Signals belong to the main thread; elsewhere there are no handlers, and the training is the same."""
    runs: list[Run] = []
    thread = threading.Thread(target=lambda: runs.append(train(images, tmp_path / "thread")))
    thread.start()
    thread.join()
    here = train(images, tmp_path / "here")
    ours, theirs = here.checkpoint("last"), runs[0].checkpoint("last")
    assert all(torch.equal(ours.model[name], theirs.model[name]) for name in ours.model)


def test_a_run_shows_itself_in_one_line(images, tmp_path):
    run = train(images, tmp_path)
    best = run.best
    assert best is not None
    assert repr(run) == f"Run('{run.path}': done at step 3, best top-1 {best['top1']:.2%} (raw, step {best['step']}))"
    (run.path / "best.json").unlink()
    assert repr(run) == f"Run('{run.path}': done at step 3)"
    (run.path / "status.json").write_text("{")
    assert repr(run).startswith(f"Run('{run.path}': ") and "status.json" in repr(run)

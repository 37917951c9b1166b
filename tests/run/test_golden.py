"""C14: runs that releases wrote (`scripts/golden` keeps them in tests/golden/): this version reads, resumes and scores them."""

import contextlib
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import striate
from striate import predictions, progress, sitting
from striate.errors import CheckpointError
from striate.run import checkpoint
from striate.run.checkpoint import Tensors
from striate.run.folder import Run, open_run
from striate.train.state import State

ROOT = Path(__file__).resolve().parents[2]
RELEASES = sorted(path.name for path in (ROOT / "tests" / "golden").iterdir() if path.is_dir())
STOPPED_AT, STEPS, BEST_AT = 5, 6, 3  # see `scripts/golden`


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    make: Callable[[Path], Path] = runpy.run_path(str(ROOT / "scripts" / "golden"))["images"]
    return make(tmp_path_factory.mktemp("golden") / "photos")


@pytest.fixture(params=RELEASES)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    """A copy of what a release wrote."""
    shutil.copytree(ROOT / "tests" / "golden" / request.param, tmp_path / "runs" / "golden")
    return open_run(tmp_path / "runs" / "golden")


def equal(first: Tensors | None, second: Tensors | None) -> bool:
    assert first is not None and second is not None
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_c14_there_is_a_small_run_of_a_release():
    assert "0.1.0" in RELEASES
    for release in RELEASES:
        files = [path for path in (ROOT / "tests" / "golden" / release).rglob("*") if path.is_file()]
        assert sum(path.stat().st_size for path in files) < 200_000


def test_c14_the_files_of_a_release_are_read(run: Run):
    assert [checkpoint.read(run.checkpoints / f"step-{step}").step for step in (BEST_AT, STOPPED_AT)] == [BEST_AT, STOPPED_AT]
    assert run.recipe.model.options == {"width": "1", "stem": "small"} and run.recipe.optim.ema == 0.9
    assert run.classes.ids == ("across", "down", "rings") and run.view.size_px == 32
    assert run.best is not None and run.best["step"] == BEST_AT
    assert run.index("train") is not None and len(run.log()) > STOPPED_AT
    for raw, weights in ((False, "EMA"), (True, "raw")):
        model, held, found = run.model("best", raw=raw)
        stored = found.ema if weights == "EMA" else found.model
        assert held == weights and found.step == BEST_AT
        assert equal(dict(model.state_dict()), stored)


def test_c14_the_predictions_of_a_release_come_out_again(run: Run, photos: Path):
    stored = predictions.read(run.path / "predictions.parquet")
    summary, folder = striate.evaluate(run, photos, device="cpu", workers="0")
    found = predictions.read(folder / "predictions.parquet")
    assert found.keys == stored.keys and found.classes == stored.classes and np.array_equal(found.labels, stored.labels)
    assert np.abs(found.scores - stored.scores).max() <= 1e-5
    assert np.ptp(stored.scores) > 0.01  # a network that says the same of everything would prove nothing
    assert run.best is not None and (summary["used"], summary["top1"]) == (6, run.best["top1"])


def test_c14_a_run_of_a_release_is_gone_on_with(run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch):
    saved = run.checkpoint("last")
    complete, taken = State.restore, []

    def restore(state: State, found: checkpoint.Checkpoint, *more: Any) -> None:
        complete(state, found, *more)
        taken.append({part: {name: one.clone() for name, one in tensors.items()} for part, tensors in state.tensors().items()})

    monkeypatch.setattr(State, "restore", restore)
    typed = run.typed
    request = sitting.Request(
        str(photos), typed.start, typed.changes, run.path.parent, run.name, workers="0", device="cpu", accept_data_change=False
    )
    threads = torch.get_num_threads()
    with contextlib.ExitStack() as stack:
        stack.callback(torch.set_num_threads, threads)
        monkeypatch.setattr(progress.Display, "show", lambda *_: None)
        again, code = sitting.sit(request, quiet=True)
    (state,) = taken  # all of it, bit for bit
    assert equal(state["model"], saved.model) and equal(state["optimizer"], saved.optimizer) and equal(state["ema"], saved.ema)
    assert (code, again.status["state"], again.status["step"]) == (0, "done", STEPS)
    records = [(record["kind"], record["step"]) for record in again.log()]
    assert ("resume", STOPPED_AT) in records and records.count(("step", STEPS)) == 1
    assert not any("Passed over" in record["text"] for record in again.log() if record["kind"] == "note")


def test_c14_an_older_format_says_which_version_reads_it(run: Run):
    manifest = run.checkpoints / f"step-{STOPPED_AT}" / "manifest.json"
    manifest.write_text(manifest.read_text().replace(f'"format": {checkpoint.FORMAT}', '"format": 0'))
    with pytest.raises(CheckpointError, match=r"of format 0, older than .* in the run's environment\.json"):
        checkpoint.read(manifest.parent)

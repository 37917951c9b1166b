"""In a notebook: the one in docs/ runs from top to bottom, and the stop button saves."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from striate.data import synthetic
from striate.run.folder import open_run

DOCS = Path(__file__).parents[1] / "docs"
pytestmark = [
    pytest.mark.slow,
    # Of the kernel's client, not of ours.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:(jupyter_client|nbclient|zmq|tornado|asyncio).*"),
]


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The kernels of these tests use one thread, and leave nothing in the home folder."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "jupyter"))
    yield


def text_of(cell) -> str:
    """Everything that a cell shows as text."""
    shown = []
    for output in cell.outputs:
        assert output.output_type != "error", output
        if output.output_type == "stream":
            assert output.name == "stdout", f"on standard error: {output.text}"
        shown.append(output.text if output.output_type == "stream" else output.data["text/plain"])
    return "\n".join(shown)


def test_the_notebook_of_the_documentation(tmp_path):
    notebook = nbformat.read(DOCS / "first-run.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert all(not cell.outputs for cell in notebook.cells if cell.cell_type == "code"), "it is kept without outputs"
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    data, stopped, ended, scored, named, link = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert "3000 images to train on, 480 to validate, 12 classes" in text_of(data)
    if "Run this cell again to go on." in text_of(stopped):  # a fast machine is done before the time is up
        assert "saved at step" in text_of(stopped)
        first_step = int(text_of(stopped).rpartition("saved at step ")[2].split(")")[0])
        assert (f"Going on at step {first_step}:" if first_step else "Training resnet18") in text_of(ended)
    assert "done at step 40, best top-1" in text_of(ended)
    lines = [output for output in ended.outputs if output.output_type == "display_data"]
    assert len(lines) <= 1, "one line that is rewritten"
    assert "480 images · 12 classes" in text_of(scored)
    assert any("image/png" in output.data or "image/jpeg" in output.data for output in named.outputs if "data" in output)
    assert len([line for line in text_of(named).splitlines() if line.endswith("%")]) == 3
    assert "report.html" in text_of(link)
    assert (tmp_path / "runs" / "first-run" / "report.html").is_file()


TRAINING = """
import os, signal, striate
handlers = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
run = striate.train(
    {photos!r}, name="stopped", model="resnet18", img_size=32, batch_size=8, steps=150,
    changes={{"budget.log_every": 1, "model.options.width": 8}},
)
assert handlers == [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
run
"""


def interrupt(log: Path, group: int) -> None:
    """Presses the stop button, as Jupyter does, once some steps are logged."""
    give_up = time.monotonic() + 90
    while time.monotonic() < give_up:
        if log.exists() and log.read_text().count('"kind": "step"') >= 3:
            os.killpg(group, signal.SIGINT)
            return
        time.sleep(0.02)


def test_the_stop_button_saves_and_the_same_cell_goes_on(tmp_path):
    photos = tmp_path / "photos"
    synthetic.make(photos, layout="folder", classes=3, per_class=8, val_per_class=2)
    sources = ["import os; print(os.getpgrp())", *[TRAINING.format(photos=str(photos))] * 3]
    notebook = new_notebook(cells=[new_code_cell(source) for source in sources])
    first, stopped, ended, done = notebook.cells
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    with client.setup_kernel():
        client.execute_cell(first, 0)
        group = int(text_of(first))
        assert group != os.getpgrp()
        button = threading.Thread(target=interrupt, args=(tmp_path / "runs" / "stopped" / "log.jsonl", group))
        button.start()
        client.execute_cell(stopped, 1)
        button.join()
        run = open_run(tmp_path / "runs" / "stopped")
        step = run.status["step"]
        assert run.status["state"] == "saved" and 3 <= step < 150
        assert run.checkpoint("last").step == step
        assert f"Saved at step {step} (SIGINT). Run this cell again to go on." in text_of(stopped)
        assert f"saved at step {step}" in text_of(stopped).splitlines()[-1]
        client.execute_cell(ended, 2)
        assert f"Going on at step {step}" in text_of(ended) and run.status["state"] == "done"
        client.execute_cell(done, 3)
        assert "this run is finished (step 150)" in text_of(done)
    steps = [record["step"] for record in run.log() if record["kind"] == "step"]
    assert steps == list(range(1, 151)), "no step was lost, none was taken twice"

"""SIGTERM to a real process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from striate.run import checkpoint


def _wait_for(holds: Any, process: subprocess.Popen[bytes], out: Path) -> None:
    deadline = time.monotonic() + 240
    while not holds():
        assert process.poll() is None, out.read_text()
        assert time.monotonic() < deadline, out.read_text()
        time.sleep(0.01)


def test_t03_t04_sigterm_saves_and_exits_75_and_the_same_command_goes_on(images: Path, networks: Path, tmp_path: Path) -> None:
    source = Path(__file__).resolve().parents[2] / "src"
    environment = os.environ | {"PYTHONPATH": f"{networks}{os.pathsep}{source}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "striate", "train", str(images), "--model", "path_networks:small", "--img-size", "32"]
    command += ["--data.resident", "yes", "--batch-size", "12", "--budget.log-every", "1", "--device", "cpu"]
    command += ["--out", str(tmp_path), "--name", "run", "--workers", "0", "--budget.evaluate-epochs", "1000"]
    log, status = tmp_path / "run" / "log.jsonl", tmp_path / "run" / "status.json"
    steps = 0
    for signals in (1, 3):  # the second and the third at once after the first change nothing
        out = tmp_path / f"{signals}.out"
        began = log.stat().st_size if log.exists() else 0
        with open(out, "wb") as file:
            process = subprocess.Popen([*command, "--steps", "100000"], env=environment, stdout=file, stderr=file)
            try:
                _wait_for(lambda began=began: log.exists() and b'"kind": "step"' in log.read_bytes()[began:], process, out)
                for _ in range(signals):
                    process.send_signal(signal.SIGTERM)
                assert process.wait(60) == 75, out.read_text()
            finally:
                process.kill()
                process.wait()
        found = json.loads(status.read_text())
        last = checkpoint.newest(tmp_path / "run" / "checkpoints")[0]
        assert last is not None
        assert (found["state"], found["reason"], found["step"]) == ("saved", "SIGTERM", last.step)
        assert last.step > steps  # it went on where it was
        assert "Run the same command again to go on" in out.read_text()
        steps = last.step
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    logged = [line["step"] for line in lines if line["kind"] == "step"]
    assert logged == list(range(1, steps + 1))  # each step once: none was lost, none was run again

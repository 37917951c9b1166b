"""T14: a training takes no more memory after thousands of steps than after hundreds, and opens no more files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

# Trains within a process of its own, whose memory is nobody else's, and writes what it held at each record of a step.
TRAINING = """
import json, os, sys
from pathlib import Path
from striate import sitting
from striate.progress import Display

seen = []

def look(record):
    if record.kind == "step" and record.step % 25 == 0:
        resident_kb = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
        seen.append((record.step, resident_kb, len(os.listdir("/proc/self/fd"))))

Display.show = lambda display, record: look(record)
sitting.train(
    sys.argv[1], changes=json.loads(sys.argv[2]), out=sys.argv[3], name="x", workers="1", device="cpu", quiet=True
)
print(json.dumps(seen))
"""

CHANGES = {
    "model.name": "path_networks:small",
    "data.size_px": 16,
    "data.shrink_px": 16,
    "data.resident": "yes",
    "optim.name": "adamw",
    "optim.batch_size": 2,
    "optim.ema": 0.9,
    "optim.precision": "fp32",
    "budget.steps": 2000,
    "budget.log_every": 25,
    "budget.evaluate_epochs": 10,  # every 240 steps, each with a checkpoint
}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads memory from Linux")
def test_t14_2000_steps_take_no_more_memory_and_no_more_files(images: Path, networks: Path, tmp_path: Path) -> None:
    source = Path(__file__).resolve().parents[2] / "src"
    environment = os.environ | {"PYTHONPATH": f"{networks}{os.pathsep}{source}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", TRAINING, str(images), json.dumps(CHANGES), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    steps, resident_kb, files = np.array(json.loads(done.stdout.splitlines()[-1])).T
    counted = steps > 500  # until then the first evaluations and saves take what they keep
    assert steps[-1] == 2000 and counted.sum() == 60
    kb_per_1000_steps = np.polyfit(steps[counted], resident_kb[counted], 1)[0] * 1000
    assert kb_per_1000_steps < 1000, resident_kb
    assert files[counted].max() <= files[:5].max() + 2, files  # a file of the checkpoint under way may be open

"""Two processes of one thread against one process of two: the same training, the same global batch, on two cores.

    python benchmarks/processes.py [--rounds 5] [--steps 40] [--batch 128] [--write benchmarks/results/processes.json]

ResNet-18 at 64 px on images in memory. Each round runs both in turn as real commands (`striate train`, and the same under
torchrun); the speed of each is that of its steps after the first ten, by the log's clock. The ratio of a round is the
images per second of two processes over those of one. Limit: a median of 0.85. Exits 1 below.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

LIMIT = 0.85
WARM_UP = 10


def speed(home: Path, data: Path, processes: int, steps: int, batch_size: int, name: str) -> float:
    """Images per second of one training."""
    command = [sys.executable, "-m"]
    if processes > 1:
        command += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]
    command += ["striate", "train", str(data), "--model", "resnet18", "--img-size", "64", "--data.resident", "yes"]
    command += ["--batch-size", str(batch_size), "--steps", str(steps), "--budget.log-every", str(WARM_UP)]
    command += ["--budget.evaluate-epochs", "1000000", "--budget.save-every-s", "3600", "--device", "cpu", "--workers", "1"]
    command += ["--out", str(home / "runs"), "--name", name]
    source = Path(__file__).resolve().parent.parent / "src"
    variables = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    variables |= {
        "PYTHONPATH": os.pathsep.join(filter(None, (str(source), os.environ.get("PYTHONPATH")))),
        "STRIATE_CACHE": str(home / "cache"),
    }
    subprocess.run(command, env=variables, check=True, capture_output=True)
    lines = [json.loads(line) for line in (home / "runs" / name / "log.jsonl").read_text().splitlines()]
    marks = [(line["step"], line["elapsed_s"]) for line in lines if line["kind"] == "step" and line["step"] >= WARM_UP]
    (first, began), (last, ended) = marks[0], marks[-1]
    return float((last - first) * batch_size / (ended - began))


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch", type=int, default=128, help="images of a step, over all processes")
    parser.add_argument("--write", type=Path, help="a JSON file for the result")
    given = parser.parse_args()
    from striate.data import synthetic

    with tempfile.TemporaryDirectory(prefix="processes-") as temporary:
        home = Path(temporary)
        synthetic.make(home / "photos", layout="tiny", classes=8, per_class=max(40, given.batch // 4), val_per_class=4)
        speeds: dict[int, list[float]] = {1: [], 2: []}
        for number in range(given.rounds):
            for processes in (1, 2) if number % 2 == 0 else (2, 1):
                name = f"{processes}-{number}"
                speeds[processes].append(speed(home, home / "photos", processes, given.steps, given.batch, name))
    ratios = [two / one for one, two in zip(speeds[1], speeds[2], strict=True)]
    numbers: dict[str, Any] = {
        "images_per_s_one_process_two_threads": [round(one, 1) for one in speeds[1]],
        "images_per_s_two_processes": [round(two, 1) for two in speeds[2]],
        "ratio_median": round(statistics.median(ratios), 3),
        "ratio_min": round(min(ratios), 3),
        "ratio_max": round(max(ratios), 3),
        "limit": LIMIT,
        "holds": statistics.median(ratios) >= LIMIT,
    }
    print(json.dumps(numbers, indent=2))
    if given.write:
        import torch

        from striate import machine

        facts = {
            "command": " ".join(["python", *sys.argv]),
            "date": datetime.date.today().isoformat(),
            "environment": machine.describe(torch.device("cpu")),
            **numbers,
        }
        given.write.parent.mkdir(parents=True, exist_ok=True)
        given.write.write_text(json.dumps(facts, indent=2) + "\n")
    return 0 if numbers["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())

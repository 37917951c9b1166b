"""How well `--for TIME` keeps its time: `striate train builtin --recipe small --for 2m`, several times.

    python benchmarks/for_budget.py [--runs 5] [--time 2m] [--write benchmarks/results/for_budget.json]

Prints for each run the share of the time that was used, from the first batch to the final save, and the last learning
rate over the peak. Limits: 85 to 100 % of the time, below 2 % of the peak. Exits 1 when a run misses one.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

LEAST, MOST, LAST_RATE = 0.85, 1.0, 0.02


def one_run(out: Path, name: str, time: str, seed: int) -> dict[str, Any]:
    """One training in a process of its own, and what its log says."""
    from striate.recipe import seconds

    command = [sys.executable, "-m", "striate", "train", "builtin", "--recipe", "small", "--for", time, "--seed", str(seed)]
    command += ["--out", str(out), "--name", name]
    source = str(Path(__file__).resolve().parent.parent / "src")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (source, os.environ.get("PYTHONPATH"))))}
    subprocess.run(command, check=True, env=environment, stderr=subprocess.DEVNULL)
    records = [json.loads(line) for line in (out / name / "log.jsonl").read_text().splitlines()]
    end = [record for record in records if record["kind"] == "end"][-1]
    rates = [record["lr"] for record in records if record["kind"] == "step"]
    peak = json.loads((out / name / "recipe.json").read_text())["optim"]["lr"]
    top1 = [record["top1"] for record in records if record["kind"] == "evaluation" and record["split"] == "val"]
    return {
        "share_of_time": round(end["elapsed_s"] / seconds(time), 4),
        "last_rate_share": round(end.get("lr", rates[-1]) / peak, 5),
        "steps": end["step"],
        "plans": sum(record["kind"] == "plan" for record in records),
        "evaluations": len({record["step"] for record in records if record["kind"] == "evaluation"}),
        "last_top1": round(top1[-1], 4),
    }


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--time", default="2m", help="as --for takes it")
    parser.add_argument("--write", type=Path, help="a JSON file for the result")
    given = parser.parse_args()
    runs = []
    with tempfile.TemporaryDirectory(prefix="for-budget-") as out:
        for number in range(given.runs):
            one = one_run(Path(out), f"run-{number}", given.time, number)
            runs.append(one)
            print(
                f"run {number}: {one['share_of_time']:.1%} of the time, last rate {one['last_rate_share']:.2%} of the peak, "
                f"{one['steps']} steps, {one['plans']} plans, {one['evaluations']} evaluations, top-1 {one['last_top1']:.1%}"
            )
    good = all(LEAST <= run["share_of_time"] <= MOST and run["last_rate_share"] < LAST_RATE for run in runs)
    print("all within the limits" if good else "A LIMIT IS MISSED")
    if given.write:
        import torch

        from striate import machine

        facts = {
            "command": " ".join(["python", *sys.argv]),
            "date": datetime.date.today().isoformat(),
            "data": "builtin, recipe small",
            "limits": {"share_of_time": [LEAST, MOST], "last_rate_share": LAST_RATE},
            "good": good,
            "runs": runs,
            "environment": machine.describe(torch.device("cpu")),
        }
        given.write.parent.mkdir(parents=True, exist_ok=True)
        given.write.write_text(json.dumps(facts, indent=2) + "\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

"""Does it cost accuracy that training crops are not resized by Pillow? The same trainings with each `augment.resampler`.

    python benchmarks/resampling.py [--seeds 3] [--epochs 10] [--write FILE.json]

A slim ResNet-18 (width 32, 64 px, recipe "small") on the built-in set, random resized crops, each seed once with each
resampler; everything else is equal, and evaluation is Pillow's in all of them. Scored is the end of each training (averaged
weights) on all 480 validation images. What counts: exit code 0 only when over all seeds neither "torch" nor "opencv" is
below "pillow" by more than the 95 % interval of the difference, the seeds' differences taken as a sample (Student's t).
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import torch

import striate
from striate import machine

RESAMPLERS: Final = ("pillow", "torch", "opencv")
SMALL: Final[dict[str, Any]] = {"model.options.width": 32, "budget.log_every": 1000, "augment.execution": "per-image"}
_T_95: Final = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571}  # by degrees of freedom, two-sided


def top1(home: Path, seed: int, resampler: str, epochs: float) -> float:
    """Top-1 at the end of one training, 0..1."""
    changes = SMALL | {
        "augment.crop": "random-resized", "augment.resampler": resampler, "optim.seed": seed,
        "budget.epochs": epochs, "budget.evaluate_epochs": epochs,
    }  # fmt: skip
    run = striate.train(
        "builtin", "small", changes=changes, out=home, name=f"{resampler}-{seed}", device="cpu", workers="1", quiet=True
    )
    scores = [one for one in run.log() if one["kind"] == "evaluation" and one["split"] == "val" and one["weights"] == "EMA"]
    return float(scores[-1]["top1"])


def compared(pillow: list[float], other: list[float]) -> dict[str, Any]:
    """Mean difference over the seeds with its 95 % interval (None for a single seed)."""
    differences = [b - a for a, b in zip(pillow, other, strict=True)]
    mean, half = statistics.mean(differences), None
    if len(differences) > 1:
        half = _T_95.get(len(differences) - 1, 2.0) * statistics.stdev(differences) / len(differences) ** 0.5
    return {
        "top1": statistics.mean(other),
        "difference": mean,
        "difference_interval": None if half is None else [mean - half, mean + half],
    }


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--epochs", type=float, default=10.0)
    parser.add_argument("--write", type=Path, help="a JSON file for the result")
    given = parser.parse_args()
    began = time.monotonic()
    found: dict[str, list[float]] = {resampler: [] for resampler in RESAMPLERS}
    with tempfile.TemporaryDirectory(prefix="resampling-") as home:
        for seed in range(given.seeds):
            for resampler in RESAMPLERS:
                found[resampler].append(top1(Path(home), seed, resampler, given.epochs))
            print(f"seed {seed}  " + "  ".join(f"{name} {scores[-1]:.1%}" for name, scores in found.items()), flush=True)
    results = {name: compared(found["pillow"], found[name]) for name in RESAMPLERS[1:]}
    is_good = True
    for name, result in results.items():
        interval = result["difference_interval"]
        is_good = is_good and interval is not None and interval[1] >= 0
        shown = "" if interval is None else f" ({100 * interval[0]:+.2f} to {100 * interval[1]:+.2f})"
        print(f"{name:<7} top-1 {result['top1']:.2%}, {100 * result['difference']:+.2f} points from pillow{shown}")
    if given.write:
        facts = {
            "command": " ".join(["python", *sys.argv]),
            "date": datetime.date.today().isoformat(),
            "data": "builtin, 3,000 training and 480 validation images of 12 classes",
            "environment": machine.describe(torch.device("cpu")),
            "epochs": given.epochs,
            "top1": found,
            "against_pillow": results,
            "seconds": round(time.monotonic() - began, 1),
        }
        given.write.parent.mkdir(parents=True, exist_ok=True)
        given.write.write_text(json.dumps(facts, indent=2) + "\n")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())

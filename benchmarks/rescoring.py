"""Time and memory of every number that follows from saved predictions: 50,000 images, 1,000 classes.

    python benchmarks/rescoring.py [--images 50000] [--classes 1000] [--repeats 3] [--keep DIR] [--write FILE.json]

Makes logits of a plausible network once (right in about two thirds, too sure of itself), writes them as predictions are
written, and then, in a fresh process each time, reads the file and computes what an evaluation prints, the files by class,
the calibration with a temperature, and the curve of accuracy against coverage. Prints the seconds of each part, median and
range, and the peak resident memory, all imports included. Processor seconds are those of the whole process: on a busy
machine they are what to compare. Limits: 10 s of work, 2 GB. Exits 1 when one is passed.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import torch

from striate import machine, predictions
from striate.classes import Classes
from striate.evaluate import calibrate, metrics, score
from striate.predictions import Predictions
from striate.view import View

LIMIT_S: Final = 10.0
LIMIT_BYTES: Final = 2_000_000_000
_PROTOCOL = score.Protocol("val", View(224, "crop", 256, "bilinear", False, (0.5,) * 3, (0.5,) * 3), "EMA", "fp32")
_Found = TypeVar("_Found")


def made(images: int, classes: int) -> Predictions:
    """Predictions of a network that never was: normal logits, the true class ahead by a margin that differs by image."""
    numbers = np.random.default_rng(0)
    labels = np.arange(images) % classes
    scores = numbers.standard_normal((images, classes), dtype=np.float32)
    scores[np.arange(images), labels] += numbers.normal(5, 4, images).astype(np.float32)
    scores *= np.float32(1.5)
    ids = tuple(f"n{position:08d}" for position in range(classes))
    keys = [f"val/ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, images + 1)]
    return Predictions(keys, labels, scores, "logits", Classes(ids, ids), "made up")


def measure(path: Path) -> dict[str, Any]:
    """Reads the file and computes everything; seconds by part, seconds of the processor, memory, and a few of the numbers."""
    seconds: dict[str, float] = {}

    def timed(part: str, work: Callable[[], _Found]) -> _Found:
        before = time.perf_counter()
        found = work()
        seconds[part] = time.perf_counter() - before
        return found

    before = time.process_time()
    said = timed("read", lambda: predictions.read(path))
    summary = timed("summary", lambda: score.score(said, len(said), [], _PROTOCOL))
    by_class = timed("per class", lambda: score.per_class_csv(said))
    confidence_N = timed("confidence", lambda: metrics.best_probabilities(said.scores))
    is_right_N = metrics.hits(said.scores, said.labels, 1)
    table = timed("calibration error", lambda: calibrate.reliability(confidence_N, is_right_N))
    interval = timed("interval of the calibration error", lambda: calibrate.error_interval(confidence_N, is_right_N))
    temperature = timed("temperature", lambda: calibrate.fit_temperature(said.scores, said.labels))
    curve = timed("coverage", lambda: calibrate.coverage(confidence_N, is_right_N))
    return {
        "seconds": seconds,
        "total_seconds": sum(seconds.values()),
        "cpu_seconds": time.process_time() - before,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "found": {
            "top1": summary["top1"],
            "top1_interval": summary["top1_interval"],
            "top5": summary["top5"],
            "loss": summary["loss"],
            "warnings": summary["warnings"],
            "rows_by_class": by_class.count("\n") - 1,
            "calibration_error": calibrate.expected_error(table),
            "calibration_error_interval": interval,
            "temperature": temperature.value,
            "loss_with_temperature": temperature.nll_after,
            "area_risk_coverage": curve.area,
            "top1_at_coverage": {str(share): curve.at(share)[0] for share in calibrate.COVERAGES},
        },
    }


def main() -> int:
    """Makes, measures, prints; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="folder for the predictions, kept and used again")
    parser.add_argument("--write", type=Path, help="a JSON file for the result")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)  # what the fresh process does
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given.measure)))
        return 0
    with tempfile.TemporaryDirectory(prefix="striate-rescoring-") as temporary:
        folder = given.keep or Path(temporary)
        path = folder / f"predictions-{given.images}-{given.classes}.parquet"
        if not path.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            made(given.images, given.classes).write(path)
        command = [sys.executable, __file__, "--measure", str(path)]
        runs = [
            json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout) for _ in range(given.repeats)
        ]
        size_bytes = path.stat().st_size
    totals = [run["total_seconds"] for run in runs]
    peak_bytes = max(run["peak_rss_bytes"] for run in runs)
    facts = {
        "command": f"python benchmarks/rescoring.py --images {given.images} --classes {given.classes} --repeats {given.repeats}",
        "date": datetime.date.today().isoformat(),
        "data": f"made-up logits of {given.images:,} images over {given.classes:,} classes",
        "environment": machine.describe(torch.device("cpu")),
        "load_average": os.getloadavg(),
        "file_bytes": size_bytes,
        "seconds_median": {
            part: round(statistics.median(run["seconds"][part] for run in runs), 3) for part in runs[0]["seconds"]
        },
        "total_seconds_median": round(statistics.median(totals), 2),
        "total_seconds_min": round(min(totals), 2),
        "total_seconds_max": round(max(totals), 2),
        "cpu_seconds_median": round(statistics.median(run["cpu_seconds"] for run in runs), 2),
        "limit_seconds": LIMIT_S,
        "peak_rss_gb": round(peak_bytes / 1e9, 2),
        "limit_rss_gb": LIMIT_BYTES / 1e9,
        "found": runs[0]["found"],
    }
    print(json.dumps(facts, indent=2))
    if given.write:
        given.write.parent.mkdir(parents=True, exist_ok=True)
        given.write.write_text(json.dumps(facts, indent=2) + "\n")
    return 0 if statistics.median(totals) <= LIMIT_S and peak_bytes <= LIMIT_BYTES else 1


if __name__ == "__main__":
    sys.exit(main())

"""Time and memory of indexing 1.3 million files: 1,000 class folders of empty .JPEG files, from the page cache.

    python benchmarks/index.py [--images 1300000] [--keep DIR] [--write]

Makes the tree in a temporary folder (or in --keep DIR, which is then used again the next time), indexes it once to
warm the page cache and then, in a fresh process, `--repeats` times. Prints the median seconds from the call to the
splits, the held-out validation part and the fingerprint included, and the peak resident memory of the process, all
imports included. Processor seconds are those of the whole process: on a busy machine they are what to compare.
Limits: 20 s, 400 MB. Exits 1 when one is passed.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

CLASSES = 1000
LIMIT_S, LIMIT_BYTES = 20.0, 400_000_000

CHILD = """
import json, resource, sys, time
import numpy
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
from striate.data.layouts.detect import open_data
start = time.perf_counter()
splits = open_data(sys.argv[1])
opened = time.perf_counter()
fingerprint = splits.train.fingerprint
end = time.perf_counter()
print(json.dumps({
    "images": len(splits.train) + len(splits.val), "classes": len(splits.train.classes), "fingerprint": fingerprint,
    "seconds": end - start, "cpu_seconds": time.process_time(), "fingerprint_seconds": end - opened,
    "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, "rss_before_bytes": before * 1024,
    "torch_imported": "torch" in sys.modules, "numpy": numpy.__version__,
}))
"""


def make_tree(root: Path, images: int) -> None:
    """Empty files named as ImageNet's training images are."""
    for number in range(CLASSES):
        wnid = f"n{10_000_000 + number}"
        folder = root / wnid
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
        for image in range(number, images, CLASSES):
            os.close(os.open(f"{wnid}_{image}.JPEG", os.O_CREAT | os.O_WRONLY, dir_fd=handle))
        os.close(handle)


def measure(root: Path) -> dict[str, object]:
    """One indexing in a process of its own."""
    done = subprocess.run([sys.executable, "-c", CHILD, str(root)], check=True, capture_output=True, text=True)
    result: dict[str, object] = json.loads(done.stdout)
    return result


def main() -> int:
    """Makes, measures, prints; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_300_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="folder for the tree, kept and used again")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/index.json")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="striate-index-") as temporary:
        root = wanted.keep or Path(temporary)
        if not (root / f"n{10_000_000 + CLASSES - 1}").is_dir():
            make_tree(root, wanted.images)
        measure(root)  # fills the page cache
        runs = [measure(root) for _ in range(wanted.repeats)]
    seconds = [float(str(run["seconds"])) for run in runs]
    peak_bytes = max(int(str(run["peak_rss_bytes"])) for run in runs)
    result = {
        "command": f"python benchmarks/index.py --images {wanted.images} --repeats {wanted.repeats}",
        "date": datetime.date.today().isoformat(),
        "images": runs[0]["images"],
        "classes": runs[0]["classes"],
        "seconds_median": statistics.median(seconds),
        "seconds_min": min(seconds),
        "seconds_max": max(seconds),
        "cpu_seconds_median": statistics.median(float(str(run["cpu_seconds"])) for run in runs),
        "limit_seconds": LIMIT_S,
        "peak_rss_bytes": peak_bytes,
        "limit_rss_bytes": LIMIT_BYTES,
        "torch_imported": any(run["torch_imported"] for run in runs),
        "hardware": {"processor": _processor(), "cores": len(os.sched_getaffinity(0)), "load_average": os.getloadavg()},
        "versions": {"python": platform.python_version(), "numpy": runs[0]["numpy"], "system": platform.platform()},
    }
    print(
        f"{result['images']:,} files in {result['classes']:,} folders: {result['seconds_median']:.1f} s "
        f"({min(seconds):.1f} to {max(seconds):.1f}; limit {LIMIT_S:.0f} s; "
        f"processor {result['cpu_seconds_median']:.1f} s), peak {peak_bytes / 1e6:.0f} MB (limit {LIMIT_BYTES / 1e6:.0f} MB)"
    )
    if wanted.write:
        path = Path(__file__).parent / "results" / "index.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        print(f"written: {path}")
    is_within = statistics.median(seconds) < LIMIT_S and peak_bytes < LIMIT_BYTES and not result["torch_imported"]
    return 0 if is_within else 1


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())


if __name__ == "__main__":
    sys.exit(main())

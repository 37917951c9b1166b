"""How fast batches come from a small set that lies decoded in memory, and how long the first decoding takes.

    python benchmarks/resident.py [--data DIR] [--rounds 5] [--seconds 2] [--cores 2 1] [--json] [--write FILE.json]

The loader alone, batches of 256: no network takes the images. Tiny ImageNet at 64 pixels (DIR, or the one under
$STRIATE_TEST_DATA), and generated sets of the sizes of CIFAR and MNIST. Each case is made three ways: image by image, as
`--augment.execution auto` does on a processor, with the resampler of `auto` and with Pillow's; and batched, which is what a
GPU does, on the processor. A process for each number of cores is bound to so many; the loader has a thread for each of them
where it works image by image, and torch has where it works in batches.
Rounds go through all cases, each for some seconds of wall time; medians with least and most. The first decoding reads every
file, makes the pixels and keeps them on disk, in the process with the most cores, the page cache warm from opening the set;
a process with fewer cores finds them in the cache. Run it on a quiet machine.
Exits 1 below the limits, which hold for `auto` on Tiny ImageNet and the most cores.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from striate import machine
from striate.classes import Classes
from striate.data import resample, resident
from striate.data.augment.draw import Augmentation
from striate.data.batched import apply as batched
from striate.data.decode import Pixels
from striate.data.index import Index, Keys
from striate.data.layouts.detect import open_data
from striate.data.loader import Batch, Workers, train_batches
from striate.data.order import Order
from striate.data.resident import Prepare, Resident

BATCH = 256
LEAST_IMAGES_PER_S = {"Tiny ImageNet, crop, flip, brightness, contrast, saturation": 5000, "Tiny ImageNet, and hue": 1500}
MOST_DECODE_S = 30.0
CROP = Augmentation("random-resized", (0.08, 1.0), (3 / 4, 4 / 3), 4, 0.5, 64, "bilinear", "crop")
SHIFT = replace(CROP, crop="shift")
COLOURS = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4}
WAYS = ("auto", "pillow", "batched")


@dataclass(frozen=True)
class Case:
    """A set and what is done to its images."""

    name: str
    images: str
    augmentation: Augmentation


CASES = [
    Case("Tiny ImageNet, crop, flip", "tiny", CROP),
    Case("Tiny ImageNet, crop, flip, brightness, contrast, saturation", "tiny", replace(CROP, **COLOURS)),
    Case("Tiny ImageNet, and hue", "tiny", replace(CROP, **COLOURS, hue=0.1)),
    Case("32 px (CIFAR), shift, flip", "32", replace(SHIFT, size_px=32)),
    Case("32 px (CIFAR), crop, flip, brightness, contrast, saturation", "32", replace(CROP, size_px=32, **COLOURS)),
    Case("28 px (MNIST), shift", "28", replace(SHIFT, size_px=28, flip=0.0)),
]


class Memory:
    """A store of generated photos: smooth noise, each another part of it."""

    def __init__(self, side_px: int) -> None:
        self._side_px = side_px
        self._noise_HW3 = np.random.default_rng(0).integers(0, 256, (4096, side_px, 3), dtype=np.uint8)

    def read(self, place: int) -> Pixels:
        """Photo number `place`."""
        first = place % (len(self._noise_HW3) - self._side_px)
        return self._noise_HW3[first : first + self._side_px]

    def where(self, place: int) -> str:
        """What to call it."""
        return f"generated photo {place}"


def generated(side_px: int, count: int = 50_000) -> Index:
    """As many photos as CIFAR has, of one class."""
    numbers = np.arange(count)
    return Index(
        Path("generated"),
        "train",
        "generated",
        Keys.of(f"{number:05}" for number in range(count)),
        np.zeros(count, dtype=np.int32),
        Classes(("one",), ("one",)),
        None,
        numbers * 0 + 3 * side_px**2,
        numbers,
        store=Memory(side_px),
        places=numbers,
    )


def batches(case: Case, way: str, index: Index, source: Resident, cores: int) -> Iterator[Batch | torch.Tensor]:
    """Without end."""
    by_batch = way == "batched"
    resampler = resample.chosen("auto" if way == "auto" else "pillow", case.augmentation.interpolation, by_batch)
    augmentation = replace(case.augmentation, resampler=resampler)
    workers = Workers("threads", 1 if by_batch else cores)
    order = Order(0, len(index), BATCH)
    with contextlib.closing(train_batches(source, index, augmentation, order, 0, None, workers, batched=by_batch)) as found:
        for batch in found:
            yield batched.apply(batch, augmentation, torch.device("cpu")) if by_batch else batch


def child(data: Path, cores: int, rounds: int, seconds: float) -> dict[str, Any]:
    """What one process measures on so many cores."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    machine.use_threads(cores)
    began = time.perf_counter()
    tiny = open_data(data).train
    opened_s = time.perf_counter() - began
    began = time.perf_counter()
    sets = {"tiny": (tiny, resident.build(tiny, Prepare(exif=False, shrink_px=0), cores))}
    built_s = time.perf_counter() - began
    for side_px in (32, 28):
        index = generated(side_px)
        sets[str(side_px)] = index, resident.build(index, Prepare(exif=False, shrink_px=0), cores)
    speeds: dict[tuple[str, str], list[float]] = {(case.name, way): [] for case in CASES for way in WAYS}
    for number in range(rounds + 1):
        for case in CASES:
            for way in WAYS:
                with contextlib.closing(batches(case, way, *sets[case.images], cores)) as found:
                    next(found)  # starts the threads
                    count, start = 0, time.perf_counter()
                    while (spent := time.perf_counter() - start) < (seconds if number else seconds / 4):
                        count += len(next(found))
                if number:  # the first round warms up
                    speeds[case.name, way].append(count / spent)
    rows: dict[str, dict[str, Any]] = {}
    for (name, way), found_R in speeds.items():
        low, middle, high = min(found_R), statistics.median(found_R), max(found_R)
        rows.setdefault(name, {})[way] = {"images_per_s": round(middle), "min": round(low), "max": round(high)}
    return {
        "cores": cores,
        "images": len(tiny),
        "open_s": round(opened_s, 1),
        "build_s": round(built_s, 1),
        "is_from_cache": sets["tiny"][1].is_from_cache,
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000),
        "resampler_of_auto": resample.chosen("auto", "bilinear", False),
        "cases": rows,
    }


def measure(given: argparse.Namespace, data: Path) -> list[dict[str, Any]]:
    """A process for each number of cores, the largest first, with a cache of their own."""
    found = []
    with tempfile.TemporaryDirectory(prefix="resident-") as cache:
        for cores in sorted(given.cores, reverse=True):
            options = ["--data", str(data), "--rounds", str(given.rounds), "--seconds", str(given.seconds), "--child", str(cores)]
            command = [sys.executable, __file__, *options]
            done = subprocess.run(
                command, env={**os.environ, "STRIATE_CACHE": cache}, stdout=subprocess.PIPE, text=True, check=True
            )
            found.append(json.loads(done.stdout.splitlines()[-1]))
    return found


def lacking(result: dict[str, Any]) -> list[str]:
    """Which limits are missed by the process with the most cores."""
    words = []
    for name, least in LEAST_IMAGES_PER_S.items():
        if (speed := result["cases"][name]["auto"]["images_per_s"]) < least:
            words.append(f"{name}: {speed:,} images/s, fewer than {least:,}")
    if result["build_s"] >= MOST_DECODE_S:
        words.append(f"first decoding: {result['build_s']} s, not under {MOST_DECODE_S:g} s")
    return words


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="Tiny ImageNet as it comes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each case in each round")
    parser.add_argument("--cores", type=int, nargs="+", default=[2, 1])
    parser.add_argument("--json", action="store_true", help="the result as one JSON object on the last line")
    parser.add_argument("--write", type=Path, help="a JSON file for the result")
    parser.add_argument("--child", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    samples = os.environ.get("STRIATE_TEST_DATA")
    data = given.data or (Path(samples) / "tiny-imagenet-200" if samples else None)
    if data is None:
        sys.exit("needs Tiny ImageNet: --data DIR, or $STRIATE_TEST_DATA with tiny-imagenet-200 in it")
    if given.child:
        print(json.dumps(child(data, given.child, given.rounds, given.seconds)))
        return 0
    load_before = os.getloadavg()
    found = measure(given, data)
    for one in found:
        source = "from the cache" if one["is_from_cache"] else "decoded"
        print(f"{one['cores']} cores: {one['images']:,} images {source} in {one['build_s']} s, {one['peak_rss_mb']:,} MB at most")
        for name, row in one["cases"].items():
            ways = "; ".join(
                f"{way} {speed['images_per_s']:6,} ({speed['min']:,} to {speed['max']:,})" for way, speed in row.items()
            )
            print(f"  {name:62} {ways}")
    missed = lacking(found[0])
    result = {
        "command": " ".join(["python", *sys.argv]),
        "date": datetime.date.today().isoformat(),
        "batch_size": BATCH,
        "rounds": given.rounds,
        "seconds": given.seconds,
        "limits": {"images_per_s": LEAST_IMAGES_PER_S, "first_decode_s": MOST_DECODE_S},
        "missed": missed,
        "results": found,
        "augmentations": {case.name: dataclasses.asdict(case.augmentation) for case in CASES},
        "load_average": {"before": load_before, "after": os.getloadavg()},
        "environment": machine.describe(torch.device("cpu")),
    }
    print("\n".join(missed) if missed else "Within the limits.")
    if given.write:
        given.write.parent.mkdir(parents=True, exist_ok=True)
        given.write.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if given.json:
        print(json.dumps(result))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

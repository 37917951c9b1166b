"""Memory of a whole epoch over an index of 1.3 million images with two workers, all processes and imports included.

    python benchmarks/loader_memory.py [--images 1300000] [--workers 2] [--size-px 224] [--write FILE.json] [--json]

Makes 1,000 class folders of hard links to 1,000 small JPEGs in a temporary folder, which is removed at the end, opens it as any
other data, and runs through one epoch of training batches of 256 in a fresh process. What is measured is the sum of the resident
sets of that process and its workers, twice a second, and the sum of their peaks; shared pages are counted in each. The photos are
small (32 pixels) so that it ends in minutes; batches have their full size. A larger photo adds its own pixels for each worker.
Limit: 1.5 GB. Exits 1 above it.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loader import augmentation_of, processes
from PIL import Image

from striate import machine
from striate.data.layouts.detect import open_data
from striate.data.loader import Streaming, Workers, train_batches
from striate.data.order import Order, steps_per_epoch

CLASSES, PHOTO_PX, BATCH_SIZE = 1000, 32, 256
LIMIT_BYTES = 1_500_000_000


def make_tree(root: Path, images: int) -> None:
    """`images` names in class folders; each class has one file, linked as often as it has images."""
    noise = np.random.default_rng(0)
    for number in range(CLASSES):
        folder = root / f"n{10_000_000 + number}"
        folder.mkdir(parents=True)
        names = [f"{folder.name}_{image}.JPEG" for image in range(number, images, CLASSES)]
        if not names:
            continue
        photo = Image.fromarray(noise.integers(0, 256, (PHOTO_PX, PHOTO_PX, 3), dtype=np.uint8))
        photo.save(folder / names[0], "JPEG", quality=50)
        handle = os.open(folder, os.O_RDONLY)
        for name in names[1:]:
            os.link(names[0], name, src_dir_fd=handle, dst_dir_fd=handle)
        os.close(handle)


def epoch(task: dict[str, Any]) -> dict[str, Any]:
    """Opens the data as training does and takes every batch of one epoch."""
    machine.keep_freed_memory()
    machine.use_threads(machine.threads_wanted())
    began = time.perf_counter()
    index = open_data(task["root"]).train
    opened = time.perf_counter()
    order = Order(0, len(index), BATCH_SIZE)
    steps = steps_per_epoch(len(index), BATCH_SIZE)
    augmentation = augmentation_of("auto", task["size_px"])
    workers = Workers.parse(task["workers"])
    images = 0
    for batch in train_batches(Streaming(index, exif=False), index, augmentation, order, 0, steps, workers):
        images += len(batch)
    return {
        "index_images": len(index),
        "images": images,
        "steps": steps,
        "open_s": round(opened - began, 1),
        "epoch_s": round(time.perf_counter() - opened, 1),
    }


def resident(root: int, line: str) -> int:
    """Sum over a process and its descendants of a line of /proc/PID/status, in bytes."""
    total = 0
    for pid in processes(root):
        try:
            status = Path(f"/proc/{pid}/status").read_text().splitlines()
        except OSError:
            continue  # it ended meanwhile
        total += sum(1024 * int(one.split()[1]) for one in status if one.startswith(line))
    return total


def watch(task: dict[str, Any]) -> dict[str, Any]:
    """Runs `epoch` in a fresh process and looks at its memory twice a second."""
    command = [sys.executable, str(Path(__file__).resolve()), "--child"]
    with tempfile.TemporaryFile("w+") as output:
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, text=True)
        assert child.stdin is not None
        child.stdin.write(json.dumps(task))
        child.stdin.close()
        seen, peaks = [0], [0]
        while child.poll() is None:
            seen.append(resident(child.pid, "VmRSS:"))
            peaks.append(resident(child.pid, "VmHWM:"))
            time.sleep(0.5)
        if child.returncode:
            sys.exit(f"The epoch ended with exit code {child.returncode}.")
        output.seek(0)
        found: dict[str, Any] = json.loads(output.read().splitlines()[-1])
    return {**found, "peak_bytes": max(seen), "sum_of_peaks_bytes": max(peaks)}


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_300_000)
    parser.add_argument("--workers", default="2", help="2: threads; processes:2")
    parser.add_argument("--size-px", type=int, default=224)
    parser.add_argument("--json", action="store_true", help="the result as one JSON object on the last line")
    parser.add_argument("--write", type=Path, help="a JSON file for the result")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print("\n" + json.dumps(epoch(json.load(sys.stdin))))
        return 0
    with tempfile.TemporaryDirectory(prefix="striate-memory-") as temporary:
        began = time.perf_counter()
        make_tree(Path(temporary), given.images)
        made_s = time.perf_counter() - began
        found = watch({"root": temporary, "workers": given.workers, "size_px": given.size_px})
    is_within = max(found["peak_bytes"], found["sum_of_peaks_bytes"]) < LIMIT_BYTES
    print(
        f"{found['images']:,} of {given.images:,} images in {found['epoch_s']:.0f} s, --workers {given.workers}: peak "
        f"{found['peak_bytes'] / 1e6:.0f} MB (sum of the processes' peaks {found['sum_of_peaks_bytes'] / 1e6:.0f} MB, "
        f"limit {LIMIT_BYTES / 1e6:.0f} MB)"
    )
    result = {
        "command": " ".join(["python", *sys.argv]),
        "date": datetime.date.today().isoformat(),
        "entries": given.images,
        "workers": given.workers,
        "batch_size": BATCH_SIZE,
        "size_px": given.size_px,
        "photo_px": PHOTO_PX,
        "tree_s": round(made_s, 1),
        **found,
        "limit_bytes": LIMIT_BYTES,
        "is_within": is_within,
        "environment": machine.describe(torch.device("cpu")),
    }
    if given.write:
        given.write.parent.mkdir(parents=True, exist_ok=True)
        given.write.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if given.json:
        print(json.dumps(result))
    return 0 if is_within else 1


if __name__ == "__main__":
    sys.exit(main())

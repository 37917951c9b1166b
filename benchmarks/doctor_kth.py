"""Models A, C and E of the KTH report on a part of Tiny ImageNet: does the doctor agree with what its authors concluded?

    python benchmarks/doctor_kth.py --tiny DIR [--epochs 10] [--write FILE.json]

20 classes of Tiny ImageNet, 100 training images of each and all validation images there are (25), each recipe as it stands but
for the epochs and the batch. The authors: A overfits after 5 to 10 epochs (17 % of 200 classes); C reached 6 % and counts among
models that dropout regularises; E "proved a steady learning the 20 first epochs, then it stagnates and begin to overfit" (25 %).
Beside A and C the same with Keras' default start, since their random_uniform makes a constant function.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RUNS = {
    "kth-a": ("kth-a", {}),
    "kth-a, Glorot's start": ("kth-a", {"model.options.init": "glorot"}),
    "kth-c": ("kth-c", {}),
    "kth-c, Glorot's start": ("kth-c", {"model.options.init": "glorot"}),
    "kth-e": ("kth-e", {}),
}


def subset(tiny: Path, place: Path, classes: int = 20, per_class: int = 100) -> None:
    """Class folders of some classes, evenly spread."""
    wnids = sorted(path.name for path in (tiny / "train").iterdir())[:: 200 // classes][:classes]
    photos: dict[str, list[str]] = {}
    for line in (tiny / "val" / "val_annotations.txt").read_text().splitlines():
        name, wnid = line.split("\t")[:2]
        photos.setdefault(wnid, []).append(name)
    for wnid in wnids:
        for split, files in (
            ("train", sorted((tiny / "train" / wnid / "images").iterdir())[:per_class]),
            ("val", [tiny / "val" / "images" / name for name in sorted(photos[wnid])]),
        ):
            (place / split / wnid).mkdir(parents=True)
            for file in files:
                shutil.copy(file, place / split / wnid / file.name)


def main() -> int:
    """Trains, asks the doctor, and writes what it says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", type=Path, default=Path(os.environ.get("STRIATE_TEST_DATA", "")) / "tiny-imagenet-200")
    parser.add_argument("--epochs", type=float, default=10.0)
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    import striate
    from striate import consultation, machine
    from striate.errors import NonFiniteError

    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="doctor-kth-") as folder:
        data = Path(folder) / "data"
        subset(given.tiny, data)
        for number, (name, (recipe, changes)) in enumerate(RUNS.items()):
            began = time.monotonic()
            changes = {"epochs": given.epochs, "batch_size": 64, "budget.log_every": 10, **changes}
            try:
                run = striate.train(data, recipe, changes=changes, out=folder, name=f"run-{number}", quiet=True)
            except NonFiniteError as error:
                print(name, error)
                run = striate.open_run(Path(folder) / f"run-{number}")
            found = consultation.of_run(run.path, quiet=True)
            log = run.log()
            curves = {
                split: [
                    [round(one["epoch"], 2), one["loss"], one["top1"]]
                    for one in log
                    if one["kind"] == "evaluation" and one["split"] == split
                ]
                for split in ("val", "train-sample")
            }
            results[name] = {
                "recipe": recipe,
                "changes": changes,
                "seconds": round(time.monotonic() - began, 1),
                "evaluations (epoch, loss, top-1)": curves,
                "doctor": found.to_json()["findings"],
            }
            print(f"\n===== {name}: top-1 {curves['val'][-1][2]:.1%} ({results[name]['seconds']:.0f} s)\n{found}", flush=True)
    if given.write is not None:
        whole = {
            "command": "python benchmarks/doctor_kth.py --tiny tiny-imagenet-200",
            "date": datetime.date.today().isoformat(),
            "environment": machine.describe(machine.choose_device("cpu")),
            "data": "20 classes of Tiny ImageNet, 100 training and 25 validation images each",
            "runs": results,
        }
        given.write.write_text(json.dumps(whole, indent=1, default=str) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

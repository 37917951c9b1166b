"""Is the built-in data set a toy? What cannot see shape must fail on it.

    python benchmarks/builtin_difficulty.py [--write]

Three answers that need no understanding, on the set that `striate train builtin` uses: multinomial logistic regression on
8x8 colour thumbnails (the best of several strengths of L2, chosen on the validation set itself, so an upper bound), and
the fixed boxes "whole image" and "centre, half the sides" judged by IoU 0.5. Prints one JSON object; --write keeps it in
benchmarks/results/builtin_difficulty.json. Exit code 1 when a limit is broken.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
import platform
import time
from pathlib import Path

import numpy as np
import PIL
import sklearn
from PIL import Image
from sklearn.linear_model import LogisticRegression

from striate import files, geometry, machine
from striate.data import synthetic

MOST_THUMBNAIL_TOP1 = 0.45
MOST_FIXED_BOX_HITS = 0.15
THUMBNAIL_SIDE_PX = 8


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="keep the result in benchmarks/results/")
    options = parser.parse_args()

    begun = time.perf_counter()
    folder = synthetic.builtin_folder()
    seconds = time.perf_counter() - begun

    thumbnails: dict[str, list[np.ndarray]] = {"train": [], "val": []}
    labels: dict[str, list[str]] = {"train": [], "val": []}
    areas, whole, centre, sizes, grey = [], [], [], [], 0
    with open(folder / "boxes.csv", newline="") as file:
        for row in csv.DictReader(file):
            split = row["path"].split("/")[0]
            with Image.open(folder / row["path"]) as image:
                width, height = image.size
                grey += image.mode == "L"
                small = image.convert("RGB").resize((THUMBNAIL_SIDE_PX, THUMBNAIL_SIDE_PX), Image.Resampling.BOX)
            thumbnails[split].append(np.asarray(small, dtype=np.float32).ravel() / 255)
            labels[split].append(row["label"])
            box = np.array([[float(row[side]) for side in ("x_min", "y_min", "x_max", "y_max")]])
            fixed = np.array([[0, 0, width, height], [width / 4, height / 4, width * 0.75, height * 0.75]])
            overlap = geometry.iou(fixed, box)[:, 0]
            whole.append(overlap[0] >= 0.5)
            centre.append(overlap[1] >= 0.5)
            areas.append((box[0, 2] - box[0, 0]) * (box[0, 3] - box[0, 1]) / (width * height))
            sizes.append((width, height))

    top1 = {}
    for strength in (0.001, 0.01, 0.1, 1.0):
        model = LogisticRegression(C=strength, max_iter=1000).fit(np.stack(thumbnails["train"]), labels["train"])
        top1[str(strength)] = float(model.score(np.stack(thumbnails["val"]), labels["val"]))

    count = len(areas)
    result = {
        "command": "python benchmarks/builtin_difficulty.py",
        "data": {
            "folder": folder.name,
            "train": len(labels["train"]),
            "val": len(labels["val"]),
            "classes": len(set(labels["val"])),
        },
        "thumbnail_logistic_regression_top1": max(top1.values()),
        "by_inverse_strength_of_l2": top1,
        "chance_top1": 1 / len(set(labels["val"])),
        "whole_image_hits": float(np.mean(whole)),
        "centre_box_hits": float(np.mean(centre)),
        "box_area": {"least": min(areas), "median": float(np.median(areas)), "most": max(areas)},
        "side_px": {"least": int(np.min(sizes)), "most": int(np.max(sizes))},
        "grey": grey / count,
        "bytes_per_image": sum(path.stat().st_size for path in folder.glob("*/*/*.jpg")) / count,
        "seconds_to_make": round(seconds, 1),  # near zero when it lay in the cache already
        "hardware": f"{platform.processor() or platform.machine()}, {machine.cores()} cores",
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "pillow": PIL.__version__,
            "sklearn": sklearn.__version__,
        },
        "date": datetime.date.today().isoformat(),
    }
    print(json.dumps(result, indent=2))
    if options.write:
        files.write_json(Path(__file__).parent / "results" / "builtin_difficulty.json", result)
    easy = max(top1.values()) > MOST_THUMBNAIL_TOP1 or max(np.mean(whole), np.mean(centre)) > MOST_FIXED_BOX_HITS
    return 1 if easy else 0


if __name__ == "__main__":
    raise SystemExit(main())

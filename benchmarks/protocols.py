"""A run scored by several sets of test-time views, and its snapshots alone and together, each against its own single view.

    python benchmarks/protocols.py RUN [--views center flip 10crop 3scale dense] [--write FILE.json]

Differences are paired over the images, with 95 % intervals; the gains that the papers published for ImageNet stand beside.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import time
from pathlib import Path
from typing import Any

# Points of top-1 gained over a single crop on ILSVRC's validation set, by paper and network.
PUBLISHED = {
    "10crop": "ResNet-50 +1.85 (24.7 to 22.85 % error; He et al. 2016, table 4), DenseNet-121 +1.41 (Huang et al. 2017)",
    "144crop": "BN-Inception +3.2 (25.2 to 21.99; Ioffe, Szegedy 2015), Inception-v3 +2.4 (21.2 to 18.77; Szegedy et al. 2016)",
    "dense": "ResNet-50 multi-scale dense +4.0 (24.7 to 20.74; He et al. 2016), VGG-16 multi-scale dense +2.2 (27.0 to 24.8)",
    "snapshots": "ResNet-50, 2 snapshots, +0.8 (24.01 to 23.33 % error; Huang et al. 2017, section 4.2)",
}


def main() -> int:
    """Scores, compares, prints a table, and writes it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--views", nargs="+", default=["center", "flip", "10crop", "3scale", "dense"])
    parser.add_argument("--snapshot-views", nargs="+", default=["center", "flip"])
    parser.add_argument("--checkpoint", default="last")
    parser.add_argument("--workers", default="1")
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    import striate
    from striate import machine
    from striate.evaluate import saved, together

    run = striate.open_run(given.run)
    rows: dict[str, dict[str, Any]] = {}
    members: dict[str, saved.Saved] = {}

    def note(name: str, summary: Any, folder: Path, seconds: float) -> None:
        members[name] = saved.open_saved(folder)
        rows[name] = {
            "top1": summary["top1"],
            "top1_interval": summary["top1_interval"],
            "top5": summary["top5"],
            "loss": summary["loss"],
            "calibration_error": summary["calibration_error"],
            "seconds": round(seconds, 1),
            "protocol": summary["protocol"],
        }
        if name != "center" and "center" in members:
            found = together.difference(members["center"].predictions, members[name].predictions, "top-1", ("center", name))
            low, high = found.interval
            rows[name]["gain"] = -found.difference
            rows[name]["gain_interval"] = [-high, -low]
            rows[name]["chance"] = found.chance
        print(json.dumps({name: {key: value for key, value in rows[name].items() if key != "protocol"}}), flush=True)

    for views in given.views:
        began = time.monotonic()
        summary, folder = striate.evaluate(run, views=views, checkpoint=given.checkpoint, workers=given.workers)
        note(views, summary, folder, time.monotonic() - began)
    for views in given.snapshot_views if run.snapshots else ():
        began = time.monotonic()
        parts = [striate.evaluate(run, views=views, checkpoint=f"step-{step}", workers=given.workers) for step in run.snapshots]
        for step, (summary, folder) in zip(run.snapshots, parts, strict=True):
            if views == "center":
                note(f"snapshot step-{step}", summary, folder, 0.0)
        for count in range(2, len(parts) + 1):
            chosen = [saved.open_saved(folder) for _, folder in parts[-count:]]
            joint = together.combined(chosen, "arithmetic")
            note(f"last {count} snapshots, {views}", joint.summary, joint.folder, time.monotonic() - began)
    if given.write is not None:
        facts = {
            "command": f"python benchmarks/protocols.py RUN --views {' '.join(given.views)} --checkpoint {given.checkpoint}",
            "training": run.typed.changes | {"recipe": run.typed.base},
            "steps": run.status["step"],
            "date": datetime.date.today().isoformat(),
            "environment": machine.describe(machine.choose_device("cpu")),
            "published": PUBLISHED,
            "scores": rows,
        }
        given.write.write_text(json.dumps(facts, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What the doctor costs: seconds before the first step, and its share of the time beside the steps.

    python benchmarks/doctor_cost.py [--write FILE.json]

Before: the examination that `striate train` begins with, on the built-in set, for networks from small to large (limit 20 s, and
5 % of a training). Beside: a training of ResNet-20 at 32 px, which is fast and so the worst case, with a record every 5 steps
(limit 1 % of the time). Also whether the weights are the same bit for bit without the doctor.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

NETWORKS = (("resnet20", 32), ("resnet18", 64), ("googlenet-bn", 64), ("alexnet", 224), ("resnet50", 224), ("vgg16", 224))


def before(data: Path, name: str, size_px: int) -> dict[str, Any]:
    """Seconds of the examination before a long training of a network, and what there was time for."""
    from striate import progress, sitting
    from striate.doctor import examination, preflight

    request = sitting.Request(str(data), None, {"model": name, "img_size": size_px, "batch_size": 32, "lr": 0.01, "epochs": 90})
    began = time.monotonic()
    with progress.Display(True) as display, sitting.rehearsed(request, "benchmark", display) as one:
        patient = preflight.patient(one.recipe, one.run, one.splits, one.device, one.workers, preflight.LIMIT_S)
        patient.seconds = preflight.limit_s(patient, one.recipe, None)
        found = examination.before(patient)
    return {
        "network": name,
        "size_px": size_px,
        "seconds": round(time.monotonic() - began, 2),
        "limit_s": round(patient.seconds, 2),
        "images": patient.signals.images,
        "checked": list(found.checked),
        "unchecked": dict(found.unchecked),
        "findings": [[one.severity, one.code] for one in found],
    }


def beside(data: Path, out: Path) -> dict[str, Any]:
    """The share of a training's time that the rules on its way take, and whether the weights are the same without."""
    import striate
    from striate.doctor.live import Live

    spent = [0.0]
    observe = Live.observe

    def watched(self: Live, record: Any) -> Any:
        found = observe(self, record)
        spent[0] = self.spent_s
        return found

    mock.patch.object(Live, "observe", watched).start()  # to the end of the process
    changes = {"model": "resnet20", "img_size": 32, "batch_size": 64, "lr": 0.05, "epochs": 20, "budget.log_every": 5}
    hashes, seconds = {}, {}
    for name in ("with", "without"):
        began = time.monotonic()
        run = striate.train(data, changes=changes, out=out, name=name, quiet=True, doctor=name == "with")
        seconds[name] = round(time.monotonic() - began, 1)
        model = run.checkpoint("last").model
        hashes[name] = hashlib.sha256(b"".join(model[key].numpy().tobytes() for key in sorted(model))).hexdigest()
    elapsed_s = next(one["elapsed_s"] for one in run.log() if one["kind"] == "end")
    return {
        "steps": run.status["step"],
        "training_s": round(elapsed_s, 2),
        "rules_s": round(spent[0], 4),
        "share": spent[0] / elapsed_s,
        "seconds": seconds,
        "same_weights": hashes["with"] == hashes["without"],
    }


def main() -> int:
    """Measures both and prints them. Exit code 0 only within the limits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    from striate import machine
    from striate.data import synthetic

    with tempfile.TemporaryDirectory(prefix="doctor-cost-") as folder:
        data = Path(folder) / "data"
        synthetic.make(data, classes=12, per_class=100, val_per_class=25)
        found = []
        for name, size_px in NETWORKS:
            found.append(before(data, name, size_px))
            print(found[-1], flush=True)
        live = beside(data, Path(folder))
        print(live)
    if given.write is not None:
        whole = {
            "command": "python " + " ".join(sys.argv),
            "date": datetime.date.today().isoformat(),
            "environment": machine.describe(machine.choose_device("cpu")),
            "before": found,
            "beside": live,
        }
        given.write.write_text(json.dumps(whole, indent=1) + "\n")
    return 0 if max(one["seconds"] for one in found) <= 21 and live["share"] < 0.01 and live["same_weights"] else 1


if __name__ == "__main__":
    sys.exit(main())

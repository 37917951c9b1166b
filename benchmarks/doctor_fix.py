"""The source paper, mended by the doctor: its network and recipe, `--fix`, and GoogLeNet with batch norm under the same budget.

    python benchmarks/doctor_fix.py [--seeds 3] [--epochs 6] [--out DIR] [--plot FILE.png] [--write FILE.json]

The recipe se-googlenet-paths-2024 at 64 px with batches of 64 and its rate in proportion (0.025), on a rendered set of 3,000
training and 2,040 validation images of 12 classes. For each seed: what `striate doctor --fix` makes of it, and googlenet-bn; and
once the same where no remedy may change the network, so without batch norm, and the paper's own.
Exit code 0 only when the doctor named the constant function and 1.6 ln K, and the mended network's top-1 is on average at most
3 points below googlenet-bn's.
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
from typing import Any

CHANGES = {"img_size": 64, "batch_size": 64, "lr": 0.025, "budget.evaluate_epochs": 1.5, "budget.log_every": 10}
CLASSES, PER_CLASS, VAL_PER_CLASS = 12, 250, 170
POINTS = 0.03


def curve(run: Any) -> dict[str, list[list[float]]]:
    """Loss of each logged step, and top-1 on the validation set, by epoch."""
    log = run.log()
    return {
        "loss_curve": [[round(one["epoch"], 3), round(one["loss"], 4)] for one in log if one["kind"] == "step"],
        "top1_curve": [
            [round(one["epoch"], 3), one["top1"]] for one in log if one["kind"] == "evaluation" and one["split"] == "val"
        ],
    }


def mended(out: Path, name: str, keeps_network: bool) -> list[tuple[Path, dict[str, Any]]]:
    """The runs of a fix that an interrupted benchmark made already, the trained one last; empty where there is none."""
    found: list[tuple[Path, dict[str, Any]]] = []
    for path in sorted(out.glob(f"{name}-fix-*")):
        what = json.loads((path / "fix.json").read_text())
        if ("model.name" in what["changes"]) == keeps_network:
            continue
        found.append((path, what))
        if what["trained"] and (path / "report.html").is_file():
            return found
    return []


def facts(run: Any, seconds: float) -> dict[str, Any]:
    """The result of a run: the last evaluation of the validation set."""
    scored = [one for one in run.log() if one["kind"] == "evaluation" and one["split"] == "val"]
    last = scored[-1]
    return {
        "name": run.name,
        "model": run.recipe.model.name,
        "options": dict(run.recipe.model.options),
        "lr": run.recipe.optim.lr,
        "warmup_epochs": run.recipe.optim.warmup_epochs,
        "schedule": run.recipe.optim.schedule,
        "top1": last["top1"],
        "best_top1": max(one["top1"] for one in scored),
        "top1_interval": last["top1_interval"],
        "images": last["used"],
        "seconds": round(seconds, 1),
        **curve(run),
    }


def plot(results: dict[str, list[dict[str, Any]]], classes: int, path: Path) -> None:
    """Training loss and validation top-1 of the paper's network, the mended one and the reference, in one picture."""
    import math

    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    looks = {
        "paper": ("#d55e00", "as the paper has it"),
        "fixed": ("#0072b2", "after --fix"),
        "fixed without batch norm": ("#00805d", "after --fix, the network kept"),
        "googlenet-bn": ("#59626d", "googlenet-bn"),
    }
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 3.8), constrained_layout=True)
    for kind, (colour, words) in looks.items():
        for number, one in enumerate(results[kind]):
            label = words if number == 0 else None
            left.plot(*zip(*one["loss_curve"], strict=True), color=colour, alpha=0.8, linewidth=1.2, label=label)
            epochs, shares = zip(*one["top1_curve"], strict=True)
            right.plot(
                epochs, [100 * share for share in shares], color=colour, marker="o", markersize=3, linewidth=1.4, label=label
            )
    level = 1.6 * math.log(classes)
    left.axhline(level, color="#a3acb6", linestyle="--", linewidth=1)
    left.text(
        0.99,
        level + 0.08,
        f"1.6 ln {classes} = {level:.2f}",
        fontsize=9,
        color="#59626d",
        ha="right",
        transform=left.get_yaxis_transform(),
    )
    left.set(xlabel="epoch", ylabel="training loss, three heads", ylim=(0, 1.25 * level))
    right.axhline(100 / classes, color="#a3acb6", linestyle="--", linewidth=1)
    right.set(xlabel="epoch", ylabel="top-1 on 2,040 images, %", ylim=(0, 100))
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=9)
    figure.savefig(path, dpi=130)


def main() -> int:
    """Runs all of it and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=float, default=6.0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    import striate
    from striate import consultation, machine, sitting
    from striate.data import synthetic
    from striate.run.folder import open_run

    with tempfile.TemporaryDirectory(prefix="doctor-fix-") as folder:
        out = given.out or Path(folder)
        data = out / "data"
        if not data.exists():
            synthetic.make(data, classes=CLASSES, per_class=PER_CLASS, val_per_class=VAL_PER_CLASS)
        results: dict[str, list[dict[str, Any]]] = {"paper": [], "fixed": [], "fixed without batch norm": [], "googlenet-bn": []}
        fixes: list[Any] = []
        diagnosis, diagnosis_s = "", 0.0
        for seed in range(given.seeds):
            changes = CHANGES | {"epochs": given.epochs, "seed": seed}
            request = sitting.Request(str(data), "se-googlenet-paths-2024", dict(changes), out=out / "runs", name=f"paper-{seed}")
            began = time.monotonic()
            found = consultation.of_data(request, quiet=True)
            if seed == 0:
                diagnosis, diagnosis_s = str(found), time.monotonic() - began
                print(found, f"\n{diagnosis_s:.1f} s", flush=True)
            ways = {"fixed": frozenset(), "fixed without batch norm": frozenset({"model.name"})}
            for kind, keep in list(ways.items())[: 2 if seed == 0 else 1]:
                began = time.monotonic()
                done = mended(out / "runs", f"paper-{seed}", bool(keep))
                if not done:
                    done = [(made.run, made.to_json()) for made in consultation.fix(request, found, quiet=True, keep=keep)]
                for path, what in done:
                    fixes.append({"seed": seed, "kind": kind, "run": path.name, **what})
                    print(fixes[-1], flush=True)
                results[kind].append(facts(open_run(done[-1][0]), time.monotonic() - began))
            began = time.monotonic()
            run = striate.train(
                data,
                "se-googlenet-paths-2024",
                changes=changes | {"model": "googlenet-bn"},
                out=out / "runs",
                name=f"googlenet-bn-{seed}",
                quiet=True,
                doctor=False,
            )
            results["googlenet-bn"].append(facts(run, time.monotonic() - began))
            if seed == 0:
                began = time.monotonic()
                run = striate.train(
                    data, "se-googlenet-paths-2024", changes=changes, out=out / "runs", name="paper-0", quiet=True, doctor=False
                )
                results["paper"].append(facts(run, time.monotonic() - began))
            for kind, ones in results.items():
                print(seed, kind, [round(one["top1"], 4) for one in ones], flush=True)
        means = {kind: statistics.fmean(one["top1"] for one in ones) for kind, ones in results.items()}
        difference = means["fixed"] - means["googlenet-bn"]
        is_good = difference >= -POINTS and "constant function" in diagnosis and "1.6 ln 12" in " ".join(diagnosis.split())
        print(means, f"difference {100 * difference:+.1f} points")
        if given.plot is not None:
            plot(results, CLASSES, given.plot)
        if given.write is not None:
            whole = {
                "command": "python " + " ".join(sys.argv),
                "date": datetime.date.today().isoformat(),
                "environment": machine.describe(machine.choose_device("cpu")),
                "data": f"synthetic.make(classes={CLASSES}, per_class={PER_CLASS}, val_per_class={VAL_PER_CLASS})",
                "mean_top1": means,
                "difference_to_googlenet_bn": difference,
                "limit": -POINTS,
                "diagnosis_seconds": round(diagnosis_s, 1),
                "diagnosis": diagnosis.splitlines(),
                "fixes": fixes,
                "runs": results,
            }
            given.write.write_text(json.dumps(whole, indent=1, default=str) + "\n")
        return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())

"""Boxes from heatmaps and from trained heads, beside boxes that look at nothing: the built-in set and a part of Tiny ImageNet.

    python benchmarks/localization.py builtin --out RUNS --write results/builtin-localization.json
    python benchmarks/localization.py TINY --out RUNS --write results/tiny-imagenet-20-localization.json

TINY is the folder tiny-imagenet-200; every tenth of its classes is taken, with links to its photos and lines of its lists. The
trainings are the command's own, one after another: a classifier alone, a box head on it frozen, and both together.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

BUILTIN = ["--recipe", "small", "--img-size", "112", "--data.shrink-px", "140", "--epochs", "16"]
TINY = [
    *["--recipe", "tiny-imagenet-resnet18", "--model.options.stem", "small", "--model.options.width", "16"],
    *["--epochs", "20", "--budget.evaluate-epochs", "2"],
]
# Name of the training, its options beside those of the set, and the ways to localise with it. CLASSIFIER stands for weights.
TRAININGS: dict[str, tuple[list[str], list[list[str]]]] = {
    "classifier": (
        [],
        [
            ["--method", "cam"],
            ["--method", "grad-cam"],
            ["--method", "grad-cam++"],
            ["--method", "grad-cam", "--layer", "layer3"],
            ["--method", "grad-cam++", "--layer", "layer3"],
        ],
    ),
    "frozen": (["--weights", "CLASSIFIER", "--freeze", "classifier", "--boxes", "shared"], [["--method", "head"]]),
    "joint": (["--boxes", "shared"], [["--method", "head"], ["--method", "cam"]]),
    "joint-per-class": (["--boxes", "per-class"], [["--method", "head"]]),
}


def main() -> int:
    """Trains, localises, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=[*TRAININGS], default=[*TRAININGS])
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    from striate import machine

    is_builtin = given.data == "builtin"
    options, shown = (BUILTIN, "builtin") if is_builtin else (TINY, "TINY20")
    data = given.data if is_builtin else str(part(Path(given.data), given.out / "tiny-20"))
    found: dict[str, Any] = {}
    for name in given.only:
        more, ways = TRAININGS[name]
        weights = best(given.out / "classifier")
        typed = [weights if word == "CLASSIFIER" else word for word in more]
        words = ["train", data, *options, *typed, "--name", name, "--out", str(given.out)]
        striate([*words, "--no-doctor", "--device", "cpu"])
        rows = []
        for way in ways:
            words = ["localize", str(given.out / name), *way, "--device", "cpu"]
            rows.append({"command": shlex.join(["striate", "localize", name, *way]), **striate(words)})
            print(name, *way, rows[-1]["gt_known_accuracy"], rows[-1]["top1_localisation_error"], flush=True)
        for row in rows:
            for place in ("folder", "gallery"):
                row.pop(place)
        found[name] = {
            "command": shlex.join(["striate", "train", shown, *options, *more]),
            "seconds": round(trained_s(given.out / name)),
            "best": json.loads((given.out / name / "best.json").read_text()),
            "localizations": rows,
        }
        if given.write is not None:
            facts = {
                "command": f"python benchmarks/localization.py {'builtin' if is_builtin else 'TINY'} --out RUNS",
                "date": datetime.date.today().isoformat(),
                "environment": machine.describe(machine.choose_device("cpu")),
                "trainings": found,
            }
            given.write.write_text(json.dumps(facts, indent=1) + "\n")
    return 0


def best(run: Path) -> str:
    """The weights of a run's best checkpoint, averaged where they are; "none" before there are any."""
    file = run / "best.json"
    if not file.exists():
        return "none"
    checkpoint = run / "checkpoints" / str(json.loads(file.read_text())["checkpoint"])
    averaged = checkpoint / "ema.safetensors"
    return str(averaged if averaged.exists() else checkpoint / "model.safetensors")


def trained_s(run: Path) -> float:
    """Seconds of training, over all sittings of a run."""
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return float([one for one in records if one["kind"] == "end"][-1]["elapsed_s"])


def striate(words: list[str]) -> Any:
    """One command; what it says for machines."""
    done = subprocess.run([sys.executable, "-m", "striate", *words, "--json"], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"striate {shlex.join(words)}: exit code {done.returncode}\n{done.stdout[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def part(tiny: Path, to: Path) -> Path:
    """Every tenth class of Tiny ImageNet as a set of its own, in its own layout."""
    wnids = sorted((tiny / "wnids.txt").read_text().split())[::10]
    if to.exists():
        return to
    (to / "val" / "images").mkdir(parents=True)
    (to / "train").mkdir()
    (to / "wnids.txt").write_text("\n".join(wnids) + "\n")
    (to / "words.txt").write_text((tiny / "words.txt").read_text())
    for wnid in wnids:
        (to / "train" / wnid).symlink_to((tiny / "train" / wnid).resolve())
    lines = [line for line in (tiny / "val" / "val_annotations.txt").read_text().splitlines() if line.split("\t")[1] in wnids]
    (to / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    for line in lines:
        photo = line.split("\t")[0]
        (to / "val" / "images" / photo).symlink_to((tiny / "val" / "images" / photo).resolve())
    return to


if __name__ == "__main__":
    sys.exit(main())

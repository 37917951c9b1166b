"""Does fine-tuning help? From weights trained on 8 classes of the built-in set to its other 4, with 20 images per class.

    python benchmarks/fine_tuning.py [--seeds 3] [--pretrain-epochs 12] [--epochs 30] [--write FILE.json]

Seed s holds out the classes s, s + 3, s + 6 and s + 9 of the 12, so that three seeds hold out each class once. A slim
ResNet-18 (width 32, 64 px, recipe "small") is trained on the other 8 with all their images; then, with 20 training images
of each held-out class and the same number of steps and images in every arm:

- scratch: no weights, at the recipe's rate and at a quarter of it; the better of the two on the validation images counts
- fine-tuned: the weights, all layers at a quarter of the recipe's rate
- layer decay: as fine-tuned, each layer at 0.8 of the rate of the one behind it, the head at four times the rate
- frozen: the backbone keeps its weights, the head alone trains

Scored is the end of each training (averaged weights), on all 160 validation images of the four classes. What counts: exit
code 0 only when "fine-tuned" has a higher top-1 than "scratch" in every seed. Shown beside it: the 95 % interval of each
arm over the images of all seeds, and whether the two intervals are apart.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import striate
from striate import machine
from striate.data import synthetic
from striate.evaluate import metrics

PER_CLASS = 20
SMALL: dict[str, Any] = {"model.options.width": 32, "budget.log_every": 1000}
RATE = 0.002  # of the recipe "small"
TUNED: dict[str, Any] = {"data.normalise": "weights", "optim.lr": RATE / 4}
ARMS: dict[str, dict[str, Any]] = {
    "scratch": {},
    "scratch, slow": {"optim.lr": RATE / 4},
    "fine-tuned": TUNED,
    "layer decay": TUNED | {"optim.layer_decay": 0.8, "optim.head_lr": 4.0},
    "frozen": TUNED | {"optim.lr": RATE, "optim.freeze": "backbone"},
}
SCRATCH = ("scratch", "scratch, slow")


def lay_out(home: Path, seed: int) -> tuple[Path, Path]:
    """Class folders for a seed: of the 8 classes to pre-train on, and of the 4 others with few training images."""
    builtin = synthetic.builtin_folder()
    known = sorted(folder.name for folder in (builtin / "train").iterdir())
    held = known[seed % 3 :: 3]
    pretrain, target = home / "pretrain", home / "target"
    for split in ("train", "val"):
        for name in known:
            files = sorted((builtin / split / name).iterdir())
            if name in held and split == "train":
                files = [
                    files[place] for place in machine.permutation(seed, "few images", known.index(name), len(files))[:PER_CLASS]
                ]
            folder = (target if name in held else pretrain) / split / name
            folder.mkdir(parents=True)
            for file in files:
                shutil.copyfile(file, folder / file.name)
    return pretrain, target


def trained(data: Path, home: Path, name: str, epochs: float, changes: dict[str, Any]) -> tuple[Path, int, int]:
    """Trains from the recipe "small". Returns the run's folder, and of its last validation: images right, images used."""
    budget = {"budget.epochs": epochs, "budget.evaluate_epochs": epochs}
    run = striate.train(
        data, "small", changes=SMALL | budget | changes, out=home / "runs", name=name, device="cpu", workers="2", quiet=True
    )
    scores = [record for record in run.log() if record["kind"] == "evaluation" and record["split"] == "val"]
    last = next(record for record in reversed(scores) if record["weights"] == "EMA")
    return run.path, round(last["top1"] * last["used"]), last["used"]


def one_seed(home: Path, seed: int, pretrain_epochs: float, epochs: float) -> dict[str, Any]:
    """Everything of one seed: the score on the 8 classes, and of each arm images right of images used."""
    pretrain, target = lay_out(home, seed)
    run, right, used = trained(pretrain, home, "pretrained", pretrain_epochs, {"optim.seed": seed})
    found: dict[str, Any] = {"seed": seed, "pretrained_top1": right / used, "arms": {}}
    for arm, changes in ARMS.items():
        begun: dict[str, Any] = {"optim.seed": seed, "optim.batch_size": PER_CLASS}
        if arm not in SCRATCH:
            begun["model.weights"] = str(run)
        _, right, used = trained(target, home, arm.replace(", ", "-").replace(" ", "-"), epochs, begun | changes)
        found["arms"][arm] = {"right": right, "used": used, "top1": right / used}
    return found


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--pretrain-epochs", type=float, default=12.0, help="on the 8 classes")
    parser.add_argument("--epochs", type=float, default=30.0, help="on the 4 classes, in every arm")
    parser.add_argument("--write", type=Path, help="a JSON file for the result")
    given = parser.parse_args()
    began = time.monotonic()
    each = []
    for seed in range(given.seeds):
        with tempfile.TemporaryDirectory(prefix="fine-tuning-") as home:
            each.append(one_seed(Path(home), seed, given.pretrain_epochs, given.epochs))
        arms = each[-1]["arms"]
        print(
            f"seed {seed}  8 classes {each[-1]['pretrained_top1']:.1%}  " + "  ".join(f"{a} {arms[a]['top1']:.1%}" for a in ARMS)
        )
        sys.stdout.flush()

    def over_seeds(arm: str) -> dict[str, Any]:
        right, used = (sum(one["arms"][arm][name] for one in each) for name in ("right", "used"))
        return {"top1": right / used, "top1_interval": list(metrics.wilson(right, used)), "images": used}

    pooled = {arm: over_seeds(arm) for arm in ARMS}
    scratch = max(SCRATCH, key=lambda arm: pooled[arm]["top1"])
    for arm, score in pooled.items():
        low, high = score["top1_interval"]
        print(f"{arm:<14} top-1 {score['top1']:.1%} ({low:.1%} to {high:.1%}), {score['images']} images")
    is_better = all(one["arms"]["fine-tuned"]["right"] > max(one["arms"][arm]["right"] for arm in SCRATCH) for one in each)
    are_apart = pooled["fine-tuned"]["top1_interval"][0] > pooled[scratch]["top1_interval"][1]
    print(
        f"fine-tuned is {'better than' if is_better else 'NOT better than'} scratch in every seed; "
        f"the intervals {'are apart' if are_apart else 'overlap'}"
    )
    if given.write:
        facts = {
            "command": " ".join(["python", *sys.argv]),
            "date": datetime.date.today().isoformat(),
            "data": f"builtin, 8 classes to 4, {PER_CLASS} training images per class",
            "environment": machine.describe(torch.device("cpu")),
            "pretrain_epochs": given.pretrain_epochs,
            "epochs": given.epochs,
            "better_in_every_seed": is_better,
            "intervals_apart": are_apart,
            "over_seeds": pooled,
            "seconds": round(time.monotonic() - began, 1),
            "each": each,
        }
        given.write.parent.mkdir(parents=True, exist_ok=True)
        given.write.write_text(json.dumps(facts, indent=2) + "\n")
    return 0 if is_better else 1


if __name__ == "__main__":
    sys.exit(main())

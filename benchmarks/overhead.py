"""What the loop costs beside the training itself: `train.loop` against a loop written by hand.

    python benchmarks/overhead.py [--rounds 5] [--seconds 30] [--write benchmarks/results/overhead.json]

Both train a ResNet-18 with 1,000 classes (a model of 45 MB) on the same batches, which lie in memory; same threads,
precision, memory order, deterministic kernels and kept memory. Ours also writes log.jsonl with all vital signs every
50 steps, feeds the display, and saves a checkpoint every 30 s of its own time. The two take turns, a few steps each,
in one process. The ratio of a round is our time over theirs for the same number of steps. Limit: 1.05. Exits 1 above.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import datetime
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

LIMIT = 1.05
BATCHES, STEPS_A_TURN = 8, 5

NETWORK = """
from striate.models.resnet import resnet18


def network(num_classes):
    return resnet18(1000)
"""


def by_hand(model: Any, recipe: Any, view: Any, device: Any) -> Callable[[list[Any]], None]:
    """A plain loop over batches: forward, loss, backward, step, and nothing else."""
    import torch

    from striate import machine

    o = recipe.optim
    optimizer = torch.optim.SGD(model.parameters(), lr=o.lr, momentum=o.momentum, weight_decay=o.weight_decay)
    mean, std = (torch.tensor(values, device=device).view(1, 3, 1, 1) * 255 for values in (view.mean, view.std))
    criterion = torch.nn.CrossEntropyLoss()

    def train(batches: list[Any]) -> None:
        for batch in batches:
            images, labels = batch.images.to(device, non_blocking=True), batch.labels.to(device, non_blocking=True)
            pixels = ((images.float() - mean) / std).contiguous(memory_format=torch.channels_last)
            optimizer.zero_grad(set_to_none=True)
            with machine.autocast(device, o.precision):
                scores = model(pixels)
            criterion(scores.float(), labels).backward()
            optimizer.step()

    return train


def measure(home: Path, rounds: int, seconds: float, size_px: int, batch_size: int, device_name: str) -> dict[str, Any]:
    """Takes turns until `rounds` times `seconds` of our loop have passed."""
    import torch
    from rich.console import Console

    from striate import machine, progress, sitting
    from striate.data import synthetic
    from striate.recipe import Recipe
    from striate.run.log import Log
    from striate.train import loop

    (home / "overhead_network.py").write_text(NETWORK)
    sys.path.insert(0, str(home))
    machine.keep_freed_memory()
    machine.use_threads(machine.threads_wanted())
    device = machine.choose_device(device_name)
    synthetic.make(home / "images", layout="tiny", classes=4, per_class=batch_size // 2, val_per_class=4)
    changes = {
        "model.name": "overhead_network:network",
        "data.size_px": size_px,
        "data.resident": "yes",
        "optim.batch_size": batch_size,
        "budget.epochs": 1e6,
        "budget.evaluate_epochs": 1e6,
        "budget.save_every_s": 60.0,  # half of the time is theirs
        "budget.log_every": 50,
    }
    request = sitting.Request(str(home / "images"), Recipe(), changes, home / "runs", "overhead", device=device_name)
    ours, theirs, saves = [0.0], [0.0], [0]
    real, built = loop.train_batches, loop.build
    trainings: list[Any] = []

    def build(*arguments: Any) -> Any:
        trainings.append(built(*arguments))
        return trainings[-1]

    def turns(*arguments: Any, **named: Any) -> Iterator[Any]:
        training = trainings[-1]
        with contextlib.closing(real(*arguments, **named)) as made:
            batches = [next(made) for _ in range(BATCHES)]
        other = by_hand(copy.deepcopy(training.state.model), training.recipe, training.view, device)
        place = 0

        def turn() -> list[Any]:
            nonlocal place
            place += STEPS_A_TURN
            return [batches[number % BATCHES] for number in range(place, place + STEPS_A_TURN)]

        other(turn())
        yield from turn()  # neither warm-up counts
        while True:
            chosen = turn()
            wait(device)
            began = time.monotonic()
            yield from chosen
            wait(device)
            ours[-1] += time.monotonic() - began
            began = time.monotonic()
            other(chosen)
            wait(device)
            theirs[-1] += time.monotonic() - began
            if ours[-1] >= seconds:
                if len(ours) == rounds:
                    return
                for totals in (ours, theirs, saves):
                    totals.append(0)

    def wait(device: torch.device) -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    loop.build, loop.train_batches = build, turns  # type: ignore[assignment]
    with contextlib.ExitStack() as stack, open(os.devnull, "w") as nowhere:
        display = stack.enter_context(progress.Display(console=Console(file=nowhere)))
        prepared = sitting.prepare(request, display, stack)
        log = Log(prepared.run.path / "log.jsonl")
        try:
            for record in loop.steps(prepared.recipe, prepared.run, splits=prepared.splits, device=device_name, workers="1"):
                log.append(record)
                display.show(record)
                saves[-1] += record.kind == "checkpoint"
        except (StopIteration, RuntimeError) as error:
            if not isinstance(error, StopIteration) and not isinstance(error.__cause__, StopIteration):
                raise  # only the end of `turns` ends the loop
        log.close()
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    return {
        "ratio": round(statistics.median(ratios), 4),
        "ratio_min": round(min(ratios), 4),
        "ratio_max": round(max(ratios), 4),
        "limit": LIMIT,
        "rounds": [
            {"ours_s": round(one, 2), "by_hand_s": round(other, 2), "checkpoints": count}
            for one, other, count in zip(ours, theirs, saves, strict=True)
        ],
        "size_px": size_px,
        "batch_size": batch_size,
        "precision": prepared.recipe.optim.precision,
        "environment": machine.describe(device),
    }


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=30.0, help="of our loop in a round")
    parser.add_argument("--img-size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--write", type=Path, help="a JSON file for the result")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="overhead-") as home:
        found = measure(Path(home), given.rounds, given.seconds, given.img_size, given.batch_size, given.device)
    for number, one in enumerate(found["rounds"]):
        print(f"round {number}: ours {one['ours_s']} s, by hand {one['by_hand_s']} s, {one['checkpoints']} checkpoints")
    print(f"ratio {found['ratio']} (median; {found['ratio_min']} to {found['ratio_max']}), limit {LIMIT}")
    if given.write:
        facts = {"command": " ".join(["python", *sys.argv]), "date": datetime.date.today().isoformat(), **found}
        given.write.parent.mkdir(parents=True, exist_ok=True)
        given.write.write_text(json.dumps(facts, indent=2) + "\n")
    return 0 if found["ratio"] <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())

"""How long a training stands still for a checkpoint: ResNet-50 with momentum and EMA, saved while it trains.

    python benchmarks/checkpoint_stall.py [--saves 12] [--size 64] [--batch 8] [--write benchmarks/results/checkpoint_stall.json]

A real loop of steps; every few steps a checkpoint begins as the loop begins it. The stall is the time from the decision
until the next step may start: gathering the tensors, and the snapshot in memory. Beside it: the time until the checkpoint
is on the disk, how much longer the steps take meanwhile, and what a save took when the training waited for all of it.
Limit: 40 ms for the median stall. Exits 1 above.
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

LIMIT_S = 0.040
STEPS_BETWEEN = 4


def spread(values: list[float]) -> dict[str, float]:
    """Median, least and most, in milliseconds."""
    named = {"median_ms": statistics.median(values), "min_ms": min(values), "max_ms": max(values)}
    return {name: round(1000 * value, 1) for name, value in named.items()}


def measure(folder: Path, saves: int, size_px: int, batch_size: int) -> dict[str, Any]:
    """Trains on one random batch and saves every few steps."""
    from striate import machine

    machine.keep_freed_memory()
    import torch

    from striate.models import catalog
    from striate.run import checkpoint
    from striate.run.writer import Writer
    from striate.train import optim
    from striate.train.average import Average

    machine.use_threads(machine.threads_wanted())
    model = catalog.build("resnet50", 1000, {}).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.01, 0.9)
    average = Average(model, 0.999)
    images = torch.randn(batch_size, 3, size_px, size_px).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 1000, (batch_size,))

    def step() -> float:
        began = time.monotonic()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16):
            loss = torch.nn.functional.cross_entropy(model(images).float(), labels)
        loss.backward()
        optimizer.step()
        average.update(model)
        return time.monotonic() - began

    def parts() -> dict[str, Any]:
        return {
            "model": dict(model.state_dict()),
            "optimizer": optim.named_state(model, optimizer),
            "ema": dict(average.model.state_dict()),
        }

    writer = Writer(folder, 2)
    step()
    writer.reserve(parts())
    alone = [step() for _ in range(STEPS_BETWEEN * 2)]
    stalls, durable, beside, size = [], [], [], 0
    for number in range(saves):
        began = time.monotonic()
        writer.begin(number, parts(), {}, None, None)
        stalls.append(time.monotonic() - began)
        while (written := writer.poll()) is None:
            beside.append(step())
        durable.append(time.monotonic() - began)
        size = written.saved.size_bytes
        alone += [step() for _ in range(STEPS_BETWEEN)]
    writer.close()
    waited = [checkpoint.save(folder, 1000 + number, parts(), {}).seconds for number in range(3)]
    return {
        "stall": spread(stalls),
        "first_stall_ms": round(1000 * stalls[0], 1),
        "until_on_the_disk": spread(durable),
        "step_alone": spread(alone),
        "step_beside_a_save": spread(beside),
        "save_that_is_waited_for": spread(waited),
        "checkpoint_bytes": size,
        "saves": saves,
        "limit_ms": 1000 * LIMIT_S,
        "holds": statistics.median(stalls) <= LIMIT_S,
    }


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--saves", type=int, default=12)
    parser.add_argument("--size", type=int, default=64, help="side of the images, in pixels")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--write", type=Path, help="a JSON file for the result")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="checkpoint-stall-") as temporary:
        folder = Path(temporary) / "run" / "checkpoints"
        folder.mkdir(parents=True)
        numbers = measure(folder, given.saves, given.size, given.batch)
    print(json.dumps(numbers, indent=2))
    if given.write:
        import torch

        from striate import machine

        facts = {
            "command": " ".join(["python", *sys.argv]),
            "date": datetime.date.today().isoformat(),
            "environment": machine.describe(torch.device("cpu")),
            **numbers,
        }
        given.write.parent.mkdir(parents=True, exist_ok=True)
        given.write.write_text(json.dumps(facts, indent=2) + "\n")
    return 0 if numbers["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())

"""Our networks against torchvision's and timm's of the same paper and the same weights, on the CPU.

    python benchmarks/zoo_speed.py [--pairs 15] [--networks vgg16 resnet50 …] [--batch 8] [--compile] [--quick]
                                   [--write benchmarks/results/zoo_speed.json]

For each network: how many aten operations a forward pass in evaluation mode and a training step (forward, backward, SGD with
momentum) are made of, ours at most theirs; and how long they take, in interleaved pairs whose order alternates, both in
channels_last float32, the median of ours over theirs at most 1.05. Auxiliary heads count 0.3 on both sides.
--compile: inference of resnet50, compiled and frozen in bf16 (`models.compiled`), against the same network eager in float32:
at least 2.5 times as fast where the processor multiplies bf16. --quick: 3 pairs of 2 images of 64 px, to see that it runs.
Exits 0 only when every limit holds.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from striate import machine
from striate.models import catalog
from striate.models.compiled import for_inference

SAME = {
    "alexnet-one-tower": "torchvision/alexnet",
    "vgg16": "torchvision/vgg16",
    "googlenet-bn": "torchvision/googlenet",
    "resnet50": "torchvision/resnet50",
    "densenet121": "torchvision/densenet121",
    "senet154": "timm/legacy_senet154",
}
SLOWEST, FASTEST_COMPILED = 1.05, 2.5
TOLERANCE = 1e-5  # of the largest logit
AUX_WEIGHT = 0.3
CLASSES = 1000


# ---------------------------------------------------------------- what is run


def forward(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Logits in evaluation mode."""
    with torch.inference_mode():
        logits: torch.Tensor = model(images)
    return logits


def training_step(model: nn.Module, optimizer: torch.optim.Optimizer, images: torch.Tensor, labels: torch.Tensor) -> None:
    """One step: forward, backward, update. All heads of a network that has auxiliary ones."""
    optimizer.zero_grad(set_to_none=True)
    output = model(images)
    heads = (output,) if isinstance(output, torch.Tensor) else tuple(output)
    losses = [functional.cross_entropy(logits, labels) for logits in heads]
    sum((AUX_WEIGHT * loss for loss in losses[1:]), losses[0]).backward()
    optimizer.step()


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    """So slow that the weights stay what they are."""
    return torch.optim.SGD(model.parameters(), lr=1e-6, momentum=0.9, weight_decay=1e-4)


# ---------------------------------------------------------------- operations


class Operations(TorchDispatchMode):
    """Within the block, counts the aten operations that torch is asked for, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.by_name: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.by_name[str(func)] += 1
        return func(*args, **(kwargs or {}))


def operations(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> dict[str, Counter[str]]:
    """Of a forward pass in evaluation mode, and of a training step, the first one, which makes SGD's momentum."""
    with Operations() as of_forward:
        forward(model.eval(), images)
    optimizer = sgd(model.train())
    with Operations() as of_step:
        training_step(model, optimizer, images, labels)
    return {"forward": of_forward.by_name, "training_step": of_step.by_name}


# ---------------------------------------------------------------- time


def interleaved(ours: Callable[[], object], theirs: Callable[[], object], pairs: int) -> dict[str, Any]:
    """Times of both in turn, in seconds, and their ratios: ours over theirs. One of each goes before, to warm up."""
    times: dict[Callable[[], object], list[float]] = {ours: [], theirs: []}
    ours()
    theirs()
    for number in range(pairs):
        for run in (ours, theirs) if number % 2 == 0 else (theirs, ours):
            began = time.perf_counter()
            run()
            times[run].append(time.perf_counter() - began)
    ratios = [one / other for one, other in zip(times[ours], times[theirs], strict=True)]
    medians = [statistics.median(times[run]) for run in (ours, theirs)]
    return {
        "ours_s": round(medians[0], 5),
        "theirs_s": round(medians[1], 5),
        "ratio_of_medians": round(medians[0] / medians[1], 4),
        "ratio": round(statistics.median(ratios), 4),
        "ratio_min": round(min(ratios), 4),
        "ratio_max": round(max(ratios), 4),
        "pairs": pairs,
    }


def compare(name: str, batch: int, size_px: int, pairs: int) -> dict[str, Any]:
    """One network of ours and its twin: logits, operations, times."""
    torch.manual_seed(0)
    ours = catalog.build(name, CLASSES, {}).to(memory_format=torch.channels_last)
    theirs = catalog.build(SAME[name], CLASSES, {}).to(memory_format=torch.channels_last)
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(batch, 3, size_px, size_px).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(batch) % CLASSES
    expected = forward(theirs.eval(), images)
    difference = float((forward(ours.eval(), images) - expected).abs().max() / expected.abs().max())
    found: dict[str, Any] = {"theirs": SAME[name], "largest_difference": difference, "operations": {}}
    counts = [operations(model, images, labels) for model in (ours, theirs)]
    for what in counts[0]:
        found["operations"][what] = {"ours": counts[0][what].total(), "theirs": counts[1][what].total()}
    ours.eval()
    theirs.eval()
    found["forward"] = interleaved(lambda: forward(ours, images), lambda: forward(theirs, images), pairs)
    steps = [(model.train(), sgd(model), images, labels) for model in (ours, theirs)]
    found["training_step"] = interleaved(lambda: training_step(*steps[0]), lambda: training_step(*steps[1]), pairs)
    found["holds"] = (
        difference <= TOLERANCE
        and all(one["ours"] <= one["theirs"] for one in found["operations"].values())
        and all(found[what]["ratio"] <= SLOWEST for what in ("forward", "training_step"))
    )
    return found


def compare_compiled(batch: int, size_px: int, pairs: int) -> dict[str, Any]:
    """resnet50 eager in float32 over itself compiled, frozen and in bf16; the first call of which compiles and is not counted."""
    torch.manual_seed(0)
    eager = catalog.build("resnet50", CLASSES, {}).to(memory_format=torch.channels_last).eval()
    images = torch.randn(batch, 3, size_px, size_px).contiguous(memory_format=torch.channels_last)
    compiled = for_inference(eager, "bf16")
    found = interleaved(lambda: forward(eager, images), lambda: compiled(images), pairs)
    has_bf16 = bool(machine.cpu_flags() & {"amx_bf16", "avx512_bf16"})
    times = {"eager_fp32_s": found["ours_s"], "compiled_bf16_s": found["theirs_s"], "multiplies_bf16": has_bf16}
    ratios = {key: value for key, value in found.items() if not key.endswith("_s")}
    return {**times, **ratios, "holds": not has_bf16 or found["ratio"] >= FASTEST_COMPILED}


# ---------------------------------------------------------------- the command


def line(name: str, found: dict[str, Any]) -> str:
    """What is printed of one network."""
    parts = [f"{name} ({found['theirs']}), logits differ by {found['largest_difference']:.1e}"]
    for what in ("forward", "training_step"):
        counts, times = found["operations"][what], found[what]
        parts.append(
            f"  {what}: {counts['ours']} operations of {counts['theirs']}; {times['ours_s']:.4f} s of {times['theirs_s']:.4f} s, "
            f"ratio {times['ratio']} ({times['ratio_min']} to {times['ratio_max']}), of medians {times['ratio_of_medians']}"
        )
    return "\n".join([*parts, "  holds" if found["holds"] else "  DOES NOT HOLD"])


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--networks", nargs="+", choices=list(SAME), default=list(SAME), metavar="NAME")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--img-size", type=int, default=224)
    parser.add_argument("--compile", action="store_true", help="inference of resnet50, compiled in bf16 against eager float32")
    parser.add_argument("--quick", action="store_true", help="3 pairs of 2 images of 64 px")
    parser.add_argument("--write", type=Path, help="a JSON file for the result")
    given = parser.parse_args()
    sizes = (2, 64, 3) if given.quick else (given.batch, given.img_size, given.pairs)
    machine.keep_freed_memory()
    machine.use_threads(machine.threads_wanted())
    networks: dict[str, Any] = {}
    for name in given.networks:
        networks[name] = compare(name, *sizes)
        print(line(name, networks[name]), flush=True)
    holds = all(found["holds"] for found in networks.values())
    numbers: dict[str, Any] = {"limit": SLOWEST, "networks": networks}
    if given.compile:
        found = compare_compiled(*sizes)
        holds = holds and found["holds"]
        numbers |= {"limit_compiled": FASTEST_COMPILED, "compiled_resnet50": found}
        print(
            f"resnet50 compiled in bf16: {found['compiled_bf16_s']:.4f} s, eager in float32 {found['eager_fp32_s']:.4f} s, "
            f"ratio {found['ratio']} ({found['ratio_min']} to {found['ratio_max']}), at least {FASTEST_COMPILED}"
            + ("" if found["multiplies_bf16"] else " where the processor multiplies bf16, which this one does not")
        )
    if given.write:
        facts = {
            "command": " ".join(["python", *sys.argv]),
            "date": datetime.date.today().isoformat(),
            "environment": {**machine.describe(torch.device("cpu")), "timm": metadata.version("timm")},
            "batch_size": sizes[0],
            "size_px": sizes[1],
            **numbers,
            "holds": holds,
        }
        given.write.parent.mkdir(parents=True, exist_ok=True)
        given.write.write_text(json.dumps(facts, indent=2) + "\n")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())

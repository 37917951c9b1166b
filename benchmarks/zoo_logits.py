"""Weights of torchvision and timm in our networks: the logits are theirs.

    python benchmarks/zoo_logits.py [--only NAME …] [--write benchmarks/results/zoo_logits.json]

For every network of ours that one of the two libraries has as well (the tables of `models/published.py`): theirs with random
weights, batch norms as a training leaves them, saved as their file is saved (a pickle), loaded into ours through the door that
a user's file takes, the child process included. Then both see the same images in float32 and evaluation mode at two sizes, the
paper's and a smaller odd one. The error is the largest difference of a logit over the largest logit; `spread` is the largest
difference between the logits of two images over the same, because equal logits that depend on no image would say nothing.
As a control torchvision's ResNet-50 goes into our v1 network, which has the same names and computes something else: that must
not hold. Exits 0 only when every network holds (error at most 1e-5, spread at least 0.01, nothing left out) and the control
does not.
"""

from __future__ import annotations

import argparse
import datetime
import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

LIMIT, LEAST_SPREAD = 1e-5, 0.01


def as_after_training(model: Any, size_px: int) -> None:
    """Batch norms with statistics of random images, then moved at random, and random scales; evaluation mode."""
    import torch
    from torch import nn

    norms = [layer for layer in model.eval().modules() if isinstance(layer, nn.BatchNorm2d)]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, 0, 0.2)
        norm.momentum = 1.0
        norm.train()
    with torch.inference_mode():
        model(torch.randn(4, 3, size_px, size_px))
    for norm, momentum in zip(norms, before, strict=True):
        norm.running_mean += 0.2 * torch.randn_like(norm.running_mean) * norm.running_var.sqrt()
        norm.running_var *= torch.empty_like(norm.running_var).uniform_(0.5, 2)
        norm.momentum = momentum
    model.eval()


def compare(name: str, theirs_name: str, home: Path) -> dict[str, Any]:
    """One network of ours against theirs; what is not equal is in the result, not raised."""
    import torch

    from striate.models import catalog, pretrained

    began = time.monotonic()
    torch.manual_seed(0)
    size_px = catalog.NETWORKS[name].size_px
    theirs = catalog.build(theirs_name, 1000, {})
    as_after_training(theirs, 128)
    torch.save(theirs.state_dict(), home / "theirs.pth")
    ours = catalog.build(name, 1000, {})
    loaded = pretrained.load_into(ours, name, home / "theirs.pth", fresh_head=False)
    ours.eval()
    errors, spreads = {}, []
    for side in (size_px, size_px // 2 + 17):
        images = torch.randn(2, 3, side, side)
        with torch.inference_mode():
            expected, found = theirs(images), ours(images)
        largest = expected.abs().max()
        errors[str(side)] = float((found - expected).abs().max() / largest)
        spreads.append(float((expected[0] - expected[1]).abs().max() / largest))
    return {
        "network": name,
        "theirs": theirs_name,
        "error": errors,
        "spread": round(min(spreads), 4),
        "tensors": len(theirs.state_dict()),
        "notes": [note.replace(str(home), "HOME") for note in loaded.notes],
        "seconds": round(time.monotonic() - began, 1),
        "holds": max(errors.values()) <= LIMIT and min(spreads) >= LEAST_SPREAD,
    }


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these networks of ours")
    parser.add_argument("--write", type=Path, help="a JSON file for the result")
    given = parser.parse_args()

    from striate import machine
    from striate.errors import StriateError
    from striate.models import published

    pairs = {ours: f"torchvision/{theirs}" for ours, theirs in published.TORCHVISION.items()}
    pairs |= {ours: f"timm/{theirs}" for ours, theirs in published.TIMM.items()}
    if unknown := sorted(set(given.only or ()) - set(pairs)):
        parser.error(f"neither library has {', '.join(unknown)}; there are {', '.join(pairs)}")
    results = []
    for name, theirs in pairs.items():
        if given.only and name not in given.only:
            continue
        with tempfile.TemporaryDirectory(prefix="zoo-logits-") as home:
            try:
                one = compare(name, theirs, Path(home))
            except StriateError as error:
                one = {"network": name, "theirs": theirs, "reason": str(error), "holds": False}
        results.append(one)
        shown = ", ".join(f"{side} px {error:.1e}" for side, error in one.get("error", {}).items()) or one["reason"]
        print(f"{'holds' if one['holds'] else 'FAILS'}  {name:18} {theirs:36} {shown}", flush=True)
    holding = sum(one["holds"] for one in results)
    with tempfile.TemporaryDirectory(prefix="zoo-logits-") as home:
        control = compare("resnet50-v1", "torchvision/resnet50", Path(home))
    worst = max(control["error"].values())
    print(f"{holding} of {len(results)} networks hold; the control, v1.5 weights in v1, differs by {worst:.1e}")
    if given.write:
        facts = {
            "command": " ".join(["python", *sys.argv]),
            "date": datetime.date.today().isoformat(),
            "limit": LIMIT,
            "holding": holding,
            "networks": results,
            "control": control,
            "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "environment": machine.describe(machine.choose_device("cpu")),
        }
        given.write.parent.mkdir(parents=True, exist_ok=True)
        given.write.write_text(json.dumps(facts, indent=2) + "\n")
    return 0 if holding == len(results) and not control["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())

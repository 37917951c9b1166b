"""Grad-CAM of a batch of photos: ours against pytorch-grad-cam, one image at a time and in its batches.

    python benchmarks/heatmaps.py [--networks resnet50 resnet18] [--images 16] [--size 224] [--rounds 7] [--json FILE]

Both sides start from normalised images and a class for each, and end with maps of the images' own size, scaled to 0..1. In each
round every way makes the maps of all images once, in an order that turns from round to round; a round before them does not
count. Prints seconds per image, median with least and most, and how many times faster ours is than each other way (medians).
The networks are torchvision's with weights at random, whose speed is that of any weights. Needs the package grad-cam. Exits 1
when the maps differ by more than 1e-3.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn
from torchvision import models

from striate import machine
from striate.explain import cam
from striate.explain.heatmap import bilinear, scaled

TOLERANCE: Final = 1e-3
_LAYER: Final = "layer4"
Way = Callable[[], np.ndarray]


def ways(model: nn.Module, images: torch.Tensor, labels_B: torch.Tensor) -> dict[str, Way]:
    """Each way to make the maps of all images: [B, S, S] float32."""
    side = images.shape[-1]
    at_S = (np.arange(side) + 0.5) / side

    def ours(layer: str | None) -> np.ndarray:
        found_Bhw, _ = cam.grad_cam(model, images, labels_B, layer, lambda output: output)
        maps_Bhw = scaled(found_Bhw.cpu().numpy())
        # Scaled once more when enlarged, as the peer does it: the largest cell may lie between pixels.
        return scaled(np.stack([bilinear(one, at_S * one.shape[1], at_S * one.shape[0]) for one in maps_Bhw]))

    def theirs(at_once: int) -> np.ndarray:
        with GradCAM(model, [model.get_submodule(_LAYER)]) as peer:
            return np.concatenate(
                [
                    peer(some, [ClassifierOutputTarget(label) for label in labels.tolist()])
                    for some, labels in zip(images.split(at_once), labels_B.split(at_once), strict=True)
                ]
            )

    return {
        "ours": lambda: ours(_LAYER),
        "ours, layer not named": lambda: ours(None),
        "pytorch-grad-cam, one by one": lambda: theirs(1),
        "pytorch-grad-cam, batched": lambda: theirs(len(images)),
    }


def measure(name: str, count: int, side: int, rounds: int, device: torch.device) -> dict[str, Any]:
    """The seconds per image of each way, and how far the maps are apart."""
    torch.manual_seed(0)
    model = getattr(models, name)(weights=None).eval().to(device)
    images = torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1)).to(device)
    labels_B = (torch.arange(count) * 37 % 1000).to(device)
    each = ways(model, images, labels_B)
    first = {way: make() for way, make in each.items()}
    seconds: dict[str, list[float]] = {way: [] for way in each}
    for number in range(rounds):
        order = [*each][number % len(each) :] + [*each][: number % len(each)]
        for way in order:
            before = time.perf_counter()
            each[way]()  # ends with an array of numpy, so a GPU has done its work
            seconds[way].append((time.perf_counter() - before) / count)
    median = {way: statistics.median(some) for way, some in seconds.items()}
    return {
        "network": name,
        "seconds_per_image": {
            way: {"median": round(median[way], 5), "min": round(min(some), 5), "max": round(max(some), 5)}
            for way, some in seconds.items()
        },
        "times_faster": {way: round(median[way] / median["ours"], 2) for way in each if way != "ours"},
        "largest_difference": max(float(np.abs(first[way] - first["ours"]).max()) for way in each),
    }


def main() -> int:
    """Measures and prints; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["resnet50", "resnet18"], help="names of torchvision's ResNets")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--size", type=int, default=224, help="side of the images in pixels")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="a file for the result")
    given = parser.parse_args()
    device = machine.choose_device(given.device)
    machine.use_threads(machine.threads_wanted())
    found = [measure(name, given.images, given.size, given.rounds, device) for name in given.networks]
    facts = {
        "command": f"python benchmarks/heatmaps.py --networks {' '.join(given.networks)} --images {given.images} "
        f"--size {given.size} --rounds {given.rounds} --device {given.device}",
        "date": datetime.date.today().isoformat(),
        "data": f"{given.images} images of noise, {given.size} px, float32",
        "environment": {**machine.describe(device), "grad-cam": metadata.version("grad-cam")},
        "load_average": os.getloadavg(),
        "rounds": given.rounds,
        "networks": found,
    }
    print(json.dumps(facts, indent=2))
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(facts, indent=2) + "\n")
    return 0 if all(one["largest_difference"] <= TOLERANCE for one in found) else 1


if __name__ == "__main__":
    sys.exit(main())

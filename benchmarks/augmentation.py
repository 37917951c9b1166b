"""What each augmentation costs per image, against its torchvision twin.

    python benchmarks/augmentation.py [--data DIR] [--photos 60] [--rounds 9] [--json] [--write FILE.json]

Each one is measured twice: within a training view, from a decoded photo to the network's pixels (ours gets an array, torchvision
a PIL image, as its decoder makes them; both give uint8 pixels), and alone, on pixels that have the network's size already;
MixUp and CutMix on a batch of float images. Decoding and normalising are left out. The two take turns photo by photo, in
one thread, in changing order; a round is one pass over all photos. What is compared is the processor time of the thread, so
other programs on the machine disturb both alike and little. The ratio of a round is our time over torchvision's. Limit of
the median: 1.10, where there is a twin.
Photos: DIR, or the ImageNet samples under $STRIATE_TEST_DATA, or rendered scenes. Exits 1 above the limit.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import v2

from striate import machine
from striate.data import decode, mixing, synthetic
from striate.data.augment import draw
from striate.data.augment.apply import apply
from striate.data.augment.draw import Augmentation
from striate.data.decode import Pixels

LIMIT = 1.10
SIDE = 224
VIEW = Augmentation("random-resized", (0.08, 1.0), (3 / 4, 4 / 3), 4, 0.5, SIDE, "bilinear", "crop")
ALONE = Augmentation("resize", (1.0, 1.0), (1.0, 1.0), 0, 0.0, SIDE, "bilinear", "crop")
BILINEAR = v2.InterpolationMode.BILINEAR


@dataclass(frozen=True)
class Case:
    """An augmentation as fields of ours that differ from the plain view, and the torchvision transforms that do the same.

    crop: torchvision's crop, before the mirror image. change: what follows; none for a crop, None where torchvision has
    nothing like it. on_tensor: whether that takes no PIL image.
    """

    name: str
    fields: dict[str, Any]
    change: tuple[torch.nn.Module, ...] | None = ()
    crop: tuple[torch.nn.Module, ...] = (v2.RandomResizedCrop(SIDE),)
    on_tensor: bool = False


CASES = [
    Case("random box", {}),
    Case("random 224 of 256", {"crop": "random", "shorter_px": (256, 256)}, crop=(v2.Resize(256), v2.RandomCrop(SIDE))),
    Case(
        "random 224 of 256 to 480",
        {"crop": "random", "shorter_px": (256, 480)},
        crop=(v2.RandomShortestSize(list(range(256, 481))), v2.RandomCrop(SIDE)),
    ),
    Case("shift", {"crop": "shift"}, crop=(v2.Resize(SIDE), v2.CenterCrop(SIDE), v2.RandomCrop(SIDE, 4))),
    Case("rotation", {"rotate": 15.0}, (v2.RandomAffine(15, interpolation=BILINEAR),)),
    Case("translation", {"translate": 0.1}, (v2.RandomAffine(0, translate=(0.1, 0.1), interpolation=BILINEAR),)),
    Case("shear", {"shear": 10.0}, (v2.RandomAffine(0, shear=10, interpolation=BILINEAR),)),
    Case("brightness", {"brightness": 0.4}, (v2.ColorJitter(brightness=0.4),)),
    Case("contrast", {"contrast": 0.4}, (v2.ColorJitter(contrast=0.4),)),
    Case("saturation", {"saturation": 0.4}, (v2.ColorJitter(saturation=0.4),)),
    Case("hue", {"hue": 0.1}, (v2.ColorJitter(hue=0.1),)),
    Case(
        "colour jitter",
        {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1},
        (v2.ColorJitter(0.4, 0.4, 0.4, 0.1),),
    ),
    Case("lighting", {"lighting": 0.1}, None),
    Case(
        "RandAugment",
        {"policy": "randaugment", "policy_operations": 2, "policy_magnitude": 9},
        (v2.RandAugment(2, 9),),
    ),
    Case("TrivialAugment", {"policy": "trivialaugment"}, (v2.TrivialAugmentWide(),)),
    Case(
        "random erasing",
        {"erase": 1.0, "erase_area": (0.02, 0.33), "erase_ratio": (0.3, 3.3)},
        (v2.RandomErasing(1.0, value="random"),),
        on_tensor=True,
    ),
    Case("cutout", {"cutout_px": 112}, None),
]


def twin_of(case: Case, within_view: bool) -> Callable[[Any], Any] | None:
    """Torchvision's way to uint8 pixels: from a PIL image within a view, from an array alone."""
    if case.change is None:
        return None
    if within_view:
        to_tensor = (v2.PILToTensor(),) if case.on_tensor else ()
        made = v2.Compose([*case.crop, v2.RandomHorizontalFlip(), *to_tensor, *case.change])
        return made if case.on_tensor else lambda image: np.asarray(made(image))
    made = v2.Compose(list(case.change))
    if case.on_tensor:
        return lambda pixels: made(torch.from_numpy(pixels).permute(2, 0, 1))
    return lambda pixels: np.asarray(made(Image.fromarray(pixels)))


def measure(case: Case, within_view: bool, photos: list[Pixels], rounds: int) -> dict[str, Any]:
    """Microseconds per image, ours and theirs, and the ratio: median, least and most of the rounds."""
    augmentation = replace(VIEW if within_view else ALONE, **case.fields)
    theirs = twin_of(case, within_view)
    inputs: list[Any] = [Image.fromarray(one) for one in photos] if within_view else photos
    times: list[tuple[float, float]] = []
    for number in range(rounds + 1):
        spent = {"ours": 0, "theirs": 0}
        for place, (photo, one) in enumerate(zip(photos, inputs, strict=True)):
            for turn in ("ours", "theirs") if (place + number) % 2 else ("theirs", "ours"):
                if turn == "ours":
                    began = time.thread_time_ns()
                    apply(photo, augmentation, draw.draw(0, number, np.array([place]))[0])
                elif theirs is not None:
                    began = time.thread_time_ns()
                    theirs(one)
                else:
                    continue
                spent[turn] += time.thread_time_ns() - began
        if number > 0:  # the first warms up
            times.append((spent["ours"] / 1000 / len(photos), spent["theirs"] / 1000 / len(photos)))
    found: dict[str, Any] = {"ours_us": round(statistics.median(ours for ours, _ in times), 1)}
    if theirs is not None:
        ratios = [ours / twin for ours, twin in times]
        found["torchvision_us"] = round(statistics.median(twin for _, twin in times), 1)
        found["ratio"] = round(statistics.median(ratios), 3)
        found["ratio_min"], found["ratio_max"] = round(min(ratios), 3), round(max(ratios), 3)
    return found


MIXING = {"MixUp": ({"mixup": 0.2, "cutmix": 0.0}, v2.MixUp(alpha=0.2, num_classes=1000)),
          "CutMix": ({"mixup": 0.0, "cutmix": 1.0}, v2.CutMix(alpha=1.0, num_classes=1000))}  # fmt: skip


def measure_mixing(name: str, pixels_NSS3: list[Pixels], rounds: int) -> dict[str, Any]:
    """Microseconds per image of a batch of all photos, float32 as the network gets it; the two take turns batch by batch."""
    alphas, theirs = MIXING[name]
    images = torch.from_numpy(np.stack(pixels_NSS3)).permute(0, 3, 1, 2).float().div_(255)
    labels = torch.arange(len(images))
    times: list[tuple[float, float]] = []
    for number in range(10 * (rounds + 1)):
        spent = {"ours": 0, "theirs": 0}
        for turn in ("ours", "theirs") if number % 2 else ("theirs", "ours"):
            began = time.thread_time_ns()
            if turn == "theirs":
                theirs(images, labels)
            elif (mix := mixing.choose(0, number, share=1.0, side=SIDE, **alphas)) is not None:
                mixing.apply(images, labels, mix)
            spent[turn] = time.thread_time_ns() - began
        times.append((spent["ours"] / 1000 / len(images), spent["theirs"] / 1000 / len(images)))
    ratios = [ours / twin for ours, twin in times[10:]]
    return {
        "ours_us": round(statistics.median(ours for ours, _ in times[10:]), 1),
        "torchvision_us": round(statistics.median(twin for _, twin in times[10:]), 1),
        "ratio": round(statistics.median(ratios), 3),
        "ratio_min": round(min(ratios), 3),
        "ratio_max": round(max(ratios), 3),
    }


def load(data: Path | None, count: int) -> tuple[str, list[Pixels]]:
    """What the photos are, and `count` of them."""
    samples = Path(os.environ["STRIATE_TEST_DATA"]) / "imagenet-samples" if "STRIATE_TEST_DATA" in os.environ else None
    with tempfile.TemporaryDirectory(prefix="augmentation-") as temporary:
        folder = data or samples
        if folder is None:
            folder = Path(temporary) / "rendered"
            synthetic.make(folder, classes=4, per_class=-(-count // 4), val_per_class=4)
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
        if not paths:
            sys.exit(f"{folder}: no JPEG files")
        chosen = paths[:: max(1, len(paths) // count)][:count]
        name = f"{len(chosen)} of {folder.name}" if data or samples else f"{len(chosen)} rendered scenes"
        return name, [decode.load(path, False) for path in chosen]


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="a folder with JPEG photos")
    parser.add_argument("--photos", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", action="store_true", help="the result as one JSON object on the last line")
    parser.add_argument("--write", type=Path, help="a JSON file for the result")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    data, photos = load(given.data, given.photos)
    squares = [apply(photo, ALONE, np.zeros(draw.DRAWS))[0] for photo in photos]
    rows, is_within = {}, True
    for case in CASES:
        row = {"view": measure(case, True, photos, given.rounds)}
        if case.change != ():
            row["alone"] = measure(case, False, [np.array(one) for one in squares], given.rounds)
        rows[case.name] = row
    for name in MIXING:
        rows[name] = {"batch": measure_mixing(name, squares, given.rounds)}
    for name, row in rows.items():
        words = []
        for kind, one in row.items():
            is_within &= one.get("ratio", 0) <= LIMIT
            beside = f"torchvision {one['torchvision_us']:7.1f}, ratio {one['ratio']:.3f}" if "ratio" in one else "no twin"
            words.append(f"{kind}: {one['ours_us']:7.1f} us, {beside}")
        print(f"{name:25} {'; '.join(words)}", flush=True)
    result = {
        "command": " ".join(["python", *sys.argv]),
        "date": datetime.date.today().isoformat(),
        "data": data,
        "photos": len(photos),
        "rounds": given.rounds,
        "size_px": SIDE,
        "clock": "processor time of the one thread that does both, photo by photo in turns; medians of the rounds",
        "limit": LIMIT,
        "is_within": is_within,
        "augmentations": rows,
        "load_average": os.getloadavg(),
        "environment": machine.describe(torch.device("cpu")),
    }
    print(f"{'Within' if is_within else 'Above'} the limit of {LIMIT:.2f}.")
    if given.write:
        given.write.parent.mkdir(parents=True, exist_ok=True)
        given.write.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if given.json:
        print(json.dumps(result))
    return 0 if is_within else 1


if __name__ == "__main__":
    sys.exit(main())

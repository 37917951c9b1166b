"""What is left open in a recipe, decided once from the data and the machine, and then stored in the run."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from striate import machine
from striate.data import decode, resident, views
from striate.data.index import Index
from striate.data.layouts.splits import Splits
from striate.errors import DataError
from striate.recipe import Recipe, change
from striate.view import IMAGENET_MEAN, IMAGENET_STD, View

# Images that the set's mean and deviation are measured on, evenly spread over the training set.
STATISTICS_IMAGES = 4096


@dataclass(frozen=True)
class Resolved:
    """A recipe without "auto", the View that goes with it, and what was decided, in words."""

    recipe: Recipe
    view: View
    notes: tuple[str, ...]


def resolve(recipe: Recipe, splits: Splits, device: torch.device, keeps_orientation: bool) -> Resolved:
    """Decides what the recipe leaves open.

    keeps_orientation: whether the layout's images are taken as they lie (ILSVRC, Tiny ImageNet), EXIF ignored.
    Raises DataError when none of a sample of the images can be read.
    """
    changes: dict[str, object] = {}
    notes: list[str] = []
    if recipe.data.size_px == 0:
        side = median_side_px(splits.train)
        size = 224 if side >= 160 else max(32, 8 * round(side / 8))
        changes["data.size_px"] = size
        notes.append(f"--img-size {size}: the images' shorter side is about {side} px.")
    if recipe.data.exif == "auto":
        changes["data.exif"] = "off" if keeps_orientation else "on"
    precision = machine.choose_precision(recipe.optim.precision, device)
    if recipe.optim.precision == "auto":
        changes["optim.precision"] = precision
        notes.append(f"--precision {precision}: what {device} multiplies fast.")
    recipe = change(recipe, changes)
    if recipe.data.resident == "auto":
        needed = resident.estimate_bytes(
            splits.train, resident.Prepare(exif=recipe.data.exif == "on", shrink_px=recipe.data.shrink_px)
        )
        recipe = change(recipe, {"data.resident": "yes" if resident.fits(needed) else "no"})
        notes.append(
            f"--data.resident {recipe.data.resident}: decoded, the training images take about {needed / 1e9:.2f} GB; "
            f"up to {resident.MEMORY_SHARE:.0%} of the free memory is used for that."
        )
    view = View(
        size_px=recipe.data.size_px,
        fit=recipe.data.fit,
        resize_px=recipe.data.size_px if recipe.data.fit == "squash" else round(recipe.data.size_px / recipe.data.crop_share),
        interpolation=recipe.data.interpolation,
        exif=recipe.data.exif == "on",
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    )
    mean, std = _normalisation(recipe, splits.train, view)
    return Resolved(recipe, View.from_json({**view.to_json(), "mean": list(mean), "std": list(std)}), tuple(notes))


def _normalisation(recipe: Recipe, train: Index, view: View) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if recipe.data.normalise == "imagenet":
        return IMAGENET_MEAN, IMAGENET_STD
    if recipe.data.normalise == "divide":
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    mean, std = pixel_statistics(train, view)
    if recipe.data.normalise == "dataset-mean":
        return mean, (1 / 255, 1 / 255, 1 / 255)  # pixels stay in 0..255, only the mean goes
    return mean, std


def pixel_statistics(index: Index, view: View) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel in 0..1, over up to STATISTICS_IMAGES images as the View cuts them.

    Unreadable images are left out (the bad-image policy meets them later).
    """
    rows = np.unique(np.linspace(0, len(index) - 1, min(STATISTICS_IMAGES, len(index))).astype(np.int64))

    def sums(row: int) -> np.ndarray | None:
        try:
            pixels = views.apply(decode.load(index.path(row), view.exif), view).astype(np.float64) / 255
        except decode.BadImage:
            return None
        return np.stack([pixels.sum((0, 1)), np.square(pixels).sum((0, 1)), np.full(3, pixels.shape[0] * pixels.shape[1])])

    with ThreadPoolExecutor(machine.cores()) as pool:
        found = [one for one in pool.map(sums, rows.tolist()) if one is not None]
    if not found:
        raise DataError(f"{index.root}: none of {len(rows)} training images could be read, so their mean is unknown.")
    total = np.sum(found, axis=0)
    mean = total[0] / total[2]
    std = np.sqrt(np.maximum(total[1] / total[2] - mean**2, 1e-12))
    return tuple(float(round(value, 6)) for value in mean), tuple(float(max(round(value, 6), 1e-3)) for value in std)


def median_side_px(index: Index) -> int:
    """Median shorter side of a sample of the images, from their headers. Raises DataError when none can be read."""
    rows = np.unique(np.linspace(0, len(index) - 1, min(64, len(index))).astype(np.int64))
    sides = []
    for row in rows.tolist():
        try:
            found = decode.header(decode.read(index.path(row)))
        except decode.BadImage:
            continue
        sides.append(min(found.width, found.height))
    if not sides:
        raise DataError(f"{index.root}: none of {len(rows)} sampled training images could be read.")
    return int(np.median(sides))

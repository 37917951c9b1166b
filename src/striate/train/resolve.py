"""What is left open in a recipe, decided once from the data and the machine, and then stored in the run."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from striate import machine
from striate.data import decode, resample, resident, views
from striate.data.augment import colour
from striate.data.index import Index
from striate.data.layouts.splits import Splits
from striate.errors import DataError, UserError
from striate.models import pretrained
from striate.recipe import Recipe, change
from striate.view import IMAGENET_GREY_MEAN, IMAGENET_GREY_STD, IMAGENET_MEAN, IMAGENET_STD, View

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
    Raises DataError when none of a sample of the images can be read; UserError for weights that cannot be found, and where
    data.normalise asks for what weights were trained with and none say it.
    """
    changes: dict[str, Any] = {}
    notes: list[str] = []
    m = recipe.model
    theirs = pretrained.view_of(m.name, m.weights, m.options) if m.weights is not None else None
    if recipe.data.size_px == 0 and theirs is not None:
        changes["data.size_px"] = theirs.size_px
        notes.append(f"--img-size {theirs.size_px}: what the weights were made for.")
    elif recipe.data.size_px == 0:
        side = median_side_px(splits.train)
        size = 224 if side >= 160 else max(32, 8 * round(side / 8))
        changes["data.size_px"] = size
        notes.append(f"--img-size {size}: the images' shorter side is about {side} px.")
    changes["data.normalise"], more = _whose_normalisation(recipe, theirs)
    notes += more
    if recipe.data.exif == "auto":
        changes["data.exif"] = "off" if keeps_orientation else "on"
    size_px = changes.get("data.size_px", recipe.data.size_px)
    if 0 < recipe.data.shrink_px < size_px:  # a recipe for smaller images: training would see them blurred, and scoring sharp
        changes["data.shrink_px"] = round(1.25 * size_px)
        notes.append(f"--data.shrink-px {changes['data.shrink_px']}: {recipe.data.shrink_px} is less than --img-size {size_px}.")
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
    if recipe.augment.execution == "batched" and device.type == "mps":
        raise UserError("--augment.execution batched: needs 64-bit numbers, which this device has not. Leave it out.")
    if recipe.augment.execution == "auto":
        # On a processor image by image is faster: 76 µs for a crop at 64 px against 249, with changes of colour 181 against 312.
        on_device = device.type == "cuda" and recipe.data.resident == "yes"
        recipe = change(recipe, {"augment.execution": "batched" if on_device else "per-image"})
    resampler = resample.chosen(recipe.augment.resampler, recipe.data.interpolation, recipe.augment.execution == "batched")
    if recipe.augment.resampler == "auto" and resampler != "pillow":
        notes.append(f"--augment.resampler {resampler}: faster than Pillow's on this machine; scoring resizes with Pillow.")
    recipe = change(recipe, {"augment.resampler": resampler})
    is_grey = recipe.data.colour == "grey"
    view = View(
        size_px=recipe.data.size_px,
        fit=recipe.data.fit,
        resize_px=recipe.data.size_px if recipe.data.fit == "squash" else round(recipe.data.size_px / recipe.data.crop_share),
        interpolation=recipe.data.interpolation,
        exif=recipe.data.exif == "on",
        mean=IMAGENET_GREY_MEAN if is_grey else IMAGENET_MEAN,
        std=IMAGENET_GREY_STD if is_grey else IMAGENET_STD,
        colour=recipe.data.colour,
    )
    a = recipe.augment
    wants_axes = a.lighting > 0 and a.lighting_from == "dataset" and not a.lighting_axes
    wants_moments = wants_axes or recipe.data.normalise in ("dataset", "dataset-mean")
    moments = pixel_moments(splits.train, view) if wants_moments else None
    if wants_axes and moments is not None:
        recipe = change(recipe, {"augment.lighting_axes": colour.principal_axes(moments.covariance_CC)})
        notes.append(
            f"--augment.lighting_axes: the principal axes of pixel colours, from {moments.images:,} training images; "
            f"the first carries {moments.first_share:.0%} of the variance."
        )
    if recipe.data.normalise == "weights" and theirs is not None:
        view = replace(view, mean=theirs.mean, std=theirs.std, colour=theirs.colour)
    else:
        mean, std = _normalisation(recipe, view, moments)
        view = replace(view, mean=mean, std=std)
    return Resolved(recipe, view, tuple(notes))


def _whose_normalisation(recipe: Recipe, theirs: View | None) -> tuple[str, list[str]]:
    """Which normalisation to take, and why where weights have a say in it. theirs: how the weights see photos, if that is known.

    Raises UserError for "weights" where there is nothing to take.
    """
    wanted, weights = recipe.data.normalise, recipe.model.weights
    channels = 1 if recipe.data.colour == "grey" else 3
    if weights is None:
        lacking = "there are no --weights"
    elif theirs is None:
        lacking = f"--weights {weights} do not say how they see photos"
    elif theirs.channels != channels:
        lacking = f"--weights {weights} see {theirs.channels} channels, and data.colour {recipe.data.colour} has {channels}"
    elif wanted in ("auto", "weights"):
        return "weights", [
            f"--data.normalise weights: mean and deviation of the weights, which see photos as {theirs.describe()}."
        ]
    else:
        return wanted, [f"--data.normalise {wanted}, as asked for; the weights see photos as {theirs.describe()}."]
    if wanted == "weights":
        raise UserError(f"data.normalise weights: {lacking}. Say it yourself: imagenet, dataset, dataset-mean or divide.")
    if wanted != "auto":
        return wanted, []
    return "imagenet", [f"--data.normalise imagenet: {lacking}."] if weights is not None else []


def _normalisation(recipe: Recipe, view: View, moments: Moments | None) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if recipe.data.normalise == "imagenet":
        return view.mean, view.std
    if recipe.data.normalise == "divide":
        return (0.0,) * view.channels, (1.0,) * view.channels
    assert moments is not None
    mean = tuple(float(round(value, 6)) for value in moments.mean_C)
    std = tuple(float(max(round(value, 6), 1e-3)) for value in np.sqrt(np.maximum(np.diag(moments.covariance_CC), 0)))
    if recipe.data.normalise == "dataset-mean":
        return mean, (1 / 255,) * view.channels  # pixels stay in 0..255, only the mean goes
    return mean, std


@dataclass(frozen=True, eq=False)
class Moments:
    """Pixel colours of a sample of images, in 0..1 by the network's channels: mean [C], covariance [C, C], how many images."""

    mean_C: NDArray[np.float64]
    covariance_CC: NDArray[np.float64]
    images: int

    @property
    def first_share(self) -> float:
        """Share of the variance along the first principal axis."""
        variances_C = np.linalg.eigvalsh(self.covariance_CC)
        return float(variances_C[-1] / max(variances_C.sum(), 1e-12))


def pixel_moments(index: Index, view: View) -> Moments:
    """Measured over up to STATISTICS_IMAGES images as the View cuts them.

    Unreadable ones are left out (the bad-image policy meets them later). Raises DataError when none can be read.
    """
    rows = np.unique(np.linspace(0, len(index) - 1, min(STATISTICS_IMAGES, len(index))).astype(np.int64))

    def sums(row: int) -> NDArray[np.float64] | None:
        """Sums of 1, of the colours and of their products: with 1 as a channel before the others, one matrix."""
        try:
            pixels_SS3 = views.apply(decode.pixels(index.content(row), view.exif), view)
        except decode.BadImage:
            return None
        levels_CSS = view.levels(torch.from_numpy(pixels_SS3.copy()).permute(2, 0, 1)[None])[0].numpy()
        colours_CP = levels_CSS.reshape(view.channels, -1).astype(np.float64) / 255
        with_one = np.concatenate([np.ones_like(colours_CP[:1]), colours_CP])
        return np.asarray(with_one @ with_one.T)

    with ThreadPoolExecutor(machine.cores()) as pool:
        found = [one for one in pool.map(sums, rows.tolist()) if one is not None]
    if not found:
        raise DataError(f"{index.root}: none of {len(rows)} training images could be read, so their mean is unknown.")
    total = np.sum(found, axis=0)
    mean_C = total[0, 1:] / total[0, 0]
    return Moments(mean_C, total[1:, 1:] / total[0, 0] - np.outer(mean_C, mean_C), len(found))


def median_side_px(index: Index) -> int:
    """Median shorter side of a sample of the images, from their headers. Raises DataError when none can be read."""
    rows = np.unique(np.linspace(0, len(index) - 1, min(64, len(index))).astype(np.int64))
    sides = []
    for row in rows.tolist():
        try:
            sides.append(min(decode.sides(index.content(row))))
        except decode.BadImage:
            continue
    if not sides:
        raise DataError(f"{index.root}: none of {len(rows)} sampled training images could be read.")
    return int(np.median(sides))

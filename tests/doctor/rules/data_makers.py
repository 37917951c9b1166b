"""Images, labels, indexes, loaders and predictions for the rules over data: pictures with a spectrum like that of photos."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from striate import files
from striate import recipe as recipes
from striate.classes import Classes
from striate.data import synthetic
from striate.data.decode import Pixels
from striate.data.index import Boxes, Index, Keys
from striate.data.layouts import detect
from striate.data.layouts.splits import Splits
from striate.doctor.patient import Batches, Patient
from striate.predictions import Predictions
from striate.recipe import Recipe
from striate.view import IMAGENET_MEAN, IMAGENET_STD, View

MEAN = torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
STD = torch.tensor(IMAGENET_STD).view(3, 1, 1)
Change = Callable[[torch.Tensor], torch.Tensor]


def pictures(labels_N: np.ndarray, side: int = 48, signal: float = 0.5, seed: int = 0) -> np.ndarray:
    """Smooth random pictures, uint8 [N, side, side, 3]; `signal` of them are stripes and a tint of their class, 0..1."""
    draw = np.random.default_rng(seed)
    count, classes = len(labels_N), int(labels_N.max()) + 1
    frequency = np.fft.fftfreq(side)
    size = np.sqrt(frequency[:, None] ** 2 + frequency[None, :] ** 2)
    size[0, 0] = 1 / side
    noise = draw.normal(size=(count, 3, side, side)) + 1j * draw.normal(size=(count, 3, side, side))
    smooth = np.fft.ifft2(noise / size).real
    smooth = 0.8 * smooth[:, :1] + 0.4 * smooth  # channels go together, as in photos
    smooth /= smooth.std(axis=(1, 2, 3), keepdims=True)
    y, x = np.mgrid[:side, :side] / side
    angle = np.pi * labels_N / classes
    phase = draw.uniform(0, 2 * np.pi, count)
    along = np.cos(angle)[:, None, None] * x + np.sin(angle)[:, None, None] * y
    stripes = np.sin(2 * np.pi * 4 * along + phase[:, None, None])[:, None]
    turn = 2 * np.pi * labels_N[:, None] / classes + np.array([0, 2.1, 4.2])
    tint = np.cos(turn)[:, :, None, None]
    mixed = (1 - signal) * smooth + signal * (stripes + 0.7 * tint)
    return np.clip(115 + 60 * mixed + np.array([12, 0, -12])[:, None, None], 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)


def labels(classes: int, per_class: int, seed: int = 0) -> np.ndarray:
    """So many labels of each class, in random order."""
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(classes), per_class)).astype(np.int64)


@dataclass(frozen=True)
class Held:
    """A store of pixels in memory."""

    pixels_NHW3: Any

    def read(self, place: int) -> bytes | Pixels:
        return self.pixels_NHW3[place]

    def where(self, place: int) -> str:
        return f"image {place}"


def index(pixels: Any, labels_N: np.ndarray, split: str = "train", keys: Sequence[str] | None = None, **more: Any) -> Index:
    """An index over pixels in memory. more: further fields of Index, as boxes."""
    count = len(labels_N)
    classes = int(labels_N.max()) + 1
    return Index(
        root=Path("/nowhere"),
        split=split,
        layout="made",
        keys=Keys.of(keys if keys is not None else [f"{split}/{row:05d}.jpg" for row in range(count)]),
        labels=labels_N.astype(np.int32),
        classes=Classes(tuple(f"class{k:03d}" for k in range(classes)), ("",) * classes),
        boxes=more.pop("boxes", None),
        sizes_bytes=np.asarray([np.asarray(one).nbytes for one in pixels], dtype=np.int64),
        mtimes_ns=np.zeros(count, dtype=np.int64),
        store=Held(pixels),
        places=np.arange(count),
        **more,
    )


def relabelled(of: Index, labels_N: np.ndarray) -> Index:
    """The same images under other labels."""
    return replace(of, labels=labels_N.astype(np.int32))


def boxes(count: int, xyxy: Sequence[float]) -> Boxes:
    """The same box in every image."""
    return Boxes(np.arange(count + 1), np.tile(np.array(xyxy, dtype=np.float32), (count, 1)))


def imagenet(images: torch.Tensor) -> torch.Tensor:
    """Normalised as for ImageNet. images: [B, 3, S, S] in 0..1."""
    return (images - MEAN) / STD


def as_is(images: torch.Tensor) -> torch.Tensor:
    return images


def loader(pixels: np.ndarray, labels_N: np.ndarray, change: Change = imagenet, batch: int = 32) -> Batches:
    """A stranger's loader. change: what is done to images [B, 3, S, S] in 0..1."""

    def batches() -> Any:
        for start in range(0, len(labels_N), batch):
            part = torch.from_numpy(pixels[start : start + batch].astype(np.float32) / 255).permute(0, 3, 1, 2)
            yield change(part), torch.from_numpy(np.asarray(labels_N[start : start + batch], dtype=np.int64))

    return batches


def network(outputs: int = 10, channels: int = 3, has_norm: bool = False) -> nn.Module:
    """Two convolutions and a head."""
    torch.manual_seed(0)
    norm: list[nn.Module] = [nn.BatchNorm2d(8)] if has_norm else []
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, padding=1),
        *norm,
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, outputs),
    )


def nothing() -> Any:
    """A loader without batches."""
    return iter(())


def stranger(train: Batches, scored: Batches | None = None, model: nn.Module | None = None, **more: Any) -> Patient:
    """A network with a loader, and nothing else known."""
    images, labels_B = next(iter(train()))
    model = model or network()
    return Patient(model, images, labels_B, train, functional.cross_entropy, scored=scored, **more)


def ours(train: Index, val: Index | None = None, model: nn.Module | None = None, **changes: Any) -> Patient:
    """A training with striate. changes: of the recipe, as {"augment.scale": …}."""
    recipe = recipes.change(Recipe(), {"model.name": "resnet20", "data.size_px": 48, "data.normalise": "imagenet", **changes})
    images = imagenet(torch.rand(16, 3, 48, 48))
    return Patient(
        model or network(len(train.classes)),
        images,
        torch.from_numpy(train.labels[:16].astype(np.int64)),
        nothing,
        functional.cross_entropy,
        classes=len(train.classes),
        recipe=recipe,
        view=view_of(recipe),
        train_index=train,
        val_index=val,
    )


def view_of(recipe: Recipe, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD) -> View:
    """How the recipe's images are prepared."""
    size = recipe.data.size_px
    return View(size, "crop", round(size / recipe.data.crop_share), "bilinear", False, tuple(mean), tuple(std))


@functools.cache
def built_in() -> Splits:
    """A part of the built-in set: 12 classes, 50 and 20 images of each."""
    folder = files.cache_folder() / f"doctor-{os.getpid()}"
    synthetic.make(folder, "folder", 12, 50, 20, 0)
    return detect.open_data(folder)


@functools.cache
def tiny(folder: Path, classes: int, seed: int = 0) -> Splits:
    """So many classes of Tiny ImageNet, numbered from 0."""
    whole = detect.open_data(folder / "tiny-imagenet-200")
    assert whole.val is not None
    chosen = np.sort(np.random.default_rng(seed).choice(200, classes, replace=False))
    number_of = np.full(200, -1)
    number_of[chosen] = np.arange(classes)
    ids = Classes(tuple(whole.train.classes.ids[k] for k in chosen), tuple(whole.train.classes.names[k] for k in chosen))

    def part(of: Index) -> Index:
        kept = of.select(np.isin(of.labels, chosen))
        return replace(kept, labels=number_of[kept.labels].astype(np.int32), classes=ids)

    return Splits(part(whole.train), part(whole.val), None, whole.layout)


def predictions(
    count: int = 2000,
    classes: int = 10,
    sharpness: float = 3.0,
    wrong: float = 0.0,
    temperature: float = 1.0,
    seed: int = 0,
    protocol: str = "val split",
) -> Predictions:
    """Scores whose honest errors are those of their probabilities, and a share of wrong labels.

    sharpness: how much the network knows. temperature: by how much it overstates (below 1) or understates that.
    """
    draw = np.random.default_rng(seed)
    scores = sharpness * draw.normal(size=(count, classes))
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    true = (shares.cumsum(axis=1) < draw.random(count)[:, None]).sum(axis=1)
    moved = (true + draw.integers(1, classes, count)) % classes
    given = np.where(draw.random(count) < wrong, moved, true)
    return of_scores((scores / temperature).astype(np.float32), given, protocol)


def of_scores(scores: np.ndarray, labels_N: np.ndarray, protocol: str = "val split") -> Predictions:
    """Predictions of these scores, with names class000 and so on."""
    classes = scores.shape[1]
    ids = Classes(tuple(f"class{k:03d}" for k in range(classes)), ("",) * classes)
    keys = [f"val/{row:05d}.jpg" for row in range(len(labels_N))]
    return Predictions(keys, np.asarray(labels_N, dtype=np.int64), scores.astype(np.float32), "logits", ids, protocol)

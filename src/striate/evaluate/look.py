"""From a model and photos to Predictions, with many views of each: cut from one decode, averaged, every image once.

photo ─┬─ crops of all parts [V, S, S] ──── network ──── logits [V, K] ─────────────┬─ mean of each part ── mean of the parts
       └─ whole, at each dense size, twice ─ slid network ─ map [K, h, w] ─ its mean ┘
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from striate.classes import Classes
from striate.data import crops, views
from striate.data.decode import BadImage, Pixels
from striate.data.index import Index
from striate.data.loader import Streaming, Workers, ordered_photos
from striate.errors import UserError
from striate.evaluate.predict import (
    evaluation_mode,
    logits,
    main_logits,
    refuse_non_finite,
    refuse_other_classes,
    renumber,
    scoring_batch_size,
)
from striate.evaluate.view_sets import ViewSet
from striate.models import dense
from striate.predictions import Predictions
from striate.view import View

# Photos that are looked at together: enough to fill batches of equal sizes, and no more than memory likes at 640 px.
_TOGETHER = 32
# Of views that wait for the network.
_AHEAD_BYTES = 256_000_000


@dataclass(frozen=True, eq=False)
class Photo:
    """What is looked at of one photo, all from one decode.

    crops_VSS3: of all parts of the set. whole: [H, W, 3] at each dense size. own_SS3: the network's own view, which decides what
    is grey. All uint8.
    """

    crops_VSS3: Pixels
    whole: tuple[Pixels, ...]
    own_SS3: Pixels


def photos(
    source: Streaming, index: Index, rows: NDArray[np.int64] | None, view_set: ViewSet, view: View, workers: Workers
) -> Generator[tuple[int, Photo | BadImage]]:
    """(row, what is looked at) of every photo, in order. Raises as `loader.ordered_photos`."""

    def make(photo_HW3: Pixels) -> Photo:
        cut = crops.cut(photo_HW3, view_set.crops, view.size_px, view.interpolation)
        whole = tuple(crops.at_shorter_side(photo_HW3, px, view.interpolation) for px in view_set.dense_px)
        return Photo(cut, whole, views.apply(photo_HW3, view))

    views_bytes = 3 * max(1, len(view_set.crops)) * view.size_px**2 + sum(6 * px**2 for px in view_set.dense_px)
    ahead = min(4 * max(1, workers.count), max(2, _AHEAD_BYTES // views_bytes))
    return ordered_photos(source, index, rows, make, workers, ahead=ahead)


def predict_views(
    model: nn.Module,
    seen: Iterable[tuple[int, Photo | BadImage]],
    index: Index,
    view_set: ViewSet,
    view: View,
    device: torch.device,
    precision: Literal["bf16", "fp16", "fp32"],
    classes: Classes,
    channels_last: bool,
    class_map: np.ndarray | None = None,
) -> tuple[Predictions, list[tuple[str, str]]]:
    """What the network says about every photo of `seen`, averaged over its views; the counterpart of `predict.predict`.

    seen: what `photos` gives. Returns Predictions of scale "log-probabilities" and [(key, reason)] of bad images.
    Raises as `predict.predict`, and UserError where a dense view is asked of a network that cannot be slid.
    """
    keys: list[str] = []
    bad: list[tuple[str, str]] = []
    rows: list[int] = []
    scores: list[np.ndarray] = []
    with evaluation_mode(model):
        slid = dense.slide(model, view.size_px, view.channels, main_logits) if view_set.is_dense else None
        look = _Look(model, slid, view_set, view, device, precision, channels_last)
        for part in _grouped(seen, max(1, min(_TOGETHER, 4 * scoring_batch_size(view) // max(1, len(view_set.crops))))):
            bad += [(index.keys[row], found.reason) for row, found in part if isinstance(found, BadImage)]
            good = [(row, found) for row, found in part if isinstance(found, Photo)]
            if not good:
                continue
            names = tuple(index.keys[row] for row, _ in good)
            scores_BK = look([found for _, found in good]).numpy()
            refuse_other_classes(scores_BK, len(names), classes)
            refuse_non_finite(scores_BK, names, precision)
            keys += names
            rows += [row for row, _ in good]
            scores.append(scores_BK)
    labels_N = index.labels[np.array(rows, np.int64)].astype(np.int64)
    if class_map is not None:
        labels_N = renumber(labels_N, class_map)
    scores_NK = np.concatenate(scores) if scores else np.empty((0, len(classes)), np.float32)
    return Predictions(keys, labels_N, scores_NK, "log-probabilities", classes), bad


def _grouped(seen: Iterable[tuple[int, Photo | BadImage]], size: int) -> Iterator[tuple[tuple[int, Photo | BadImage], ...]]:
    stream = iter(seen)
    while group := tuple(itertools.islice(stream, size)):
        yield group


@dataclass(frozen=True, eq=False)
class _Look:
    """The network, and all that decides how it looks at photos."""

    model: nn.Module
    slid: dense.Dense | None
    view_set: ViewSet
    view: View
    device: torch.device
    precision: Literal["bf16", "fp16", "fp32"]
    channels_last: bool

    def __call__(self, found: list[Photo]) -> torch.Tensor:
        """Log-probabilities [B, K] float32 of B photos, in main memory."""
        of_crops, of_dense = self._crops(found), self._dense(found)  # [B, V, K] logits, [B, D, K] logits
        means = []
        first_crop = first_dense = 0
        for part in self.view_set.parts:
            last_crop, last_dense = first_crop + len(part.crops), first_dense + len(part.dense_px)
            own = [
                one
                for one in (
                    None if of_crops is None else of_crops[:, first_crop:last_crop],
                    None if of_dense is None else of_dense[:, 2 * first_dense : 2 * last_dense],
                )
                if one is not None and one.shape[1]
            ]
            means.append(self._mean(torch.cat(own, 1)))
            first_crop, first_dense = last_crop, last_dense
        return self._mean(torch.stack(means, 1)).log_softmax(-1).float()

    def _mean(self, of_views_BVK: torch.Tensor) -> torch.Tensor:
        """Over the views: of logits, or the log of the mean probability. float64."""
        if self.view_set.average == "logits":
            return of_views_BVK.double().mean(1)
        return of_views_BVK.double().log_softmax(-1).logsumexp(1) - math.log(of_views_BVK.shape[1])

    def _crops(self, found: list[Photo]) -> torch.Tensor | None:
        count = len(self.view_set.crops)
        if not count:
            return None
        images = torch.from_numpy(np.concatenate([one.crops_VSS3 for one in found])).permute(0, 3, 1, 2)
        said = [self._logits(self.model, part) for part in torch.split(images, scoring_batch_size(self.view))]
        return torch.cat(said).reshape(len(found), count, -1)

    def _dense(self, found: list[Photo]) -> torch.Tensor | None:
        """Photos of equal size go together, each beside its mirror image."""
        if self.slid is None:
            return None
        most_pixels = scoring_batch_size(self.view) * self.view.size_px**2
        said: list[list[torch.Tensor]] = [[] for _ in found]
        for scale in range(len(self.view_set.dense_px)):
            by_shape: dict[tuple[int, ...], list[int]] = defaultdict(list)
            for place, one in enumerate(found):
                by_shape[one.whole[scale].shape].append(place)
            for shape, places in by_shape.items():
                at_once = max(1, most_pixels // (2 * shape[0] * shape[1]))
                for first in range(0, len(places), at_once):
                    chosen = places[first : first + at_once]
                    plain = torch.from_numpy(np.stack([found[place].whole[scale] for place in chosen])).permute(0, 3, 1, 2)
                    maps = self._logits(self.slid, torch.cat([plain, plain.flip(3)]))
                    means = maps.flatten(2).mean(2)
                    for number, place in enumerate(chosen):
                        said[place] += [means[number], means[len(chosen) + number]]
        return torch.stack([torch.stack(one) for one in said])

    def _logits(self, network: nn.Module, images: torch.Tensor) -> torch.Tensor:
        said = logits(network, images, self.view, self.device, self.precision, self.channels_last).cpu()
        # Minus infinity in one view would vanish in a mean of probabilities; NaN stays to be seen.
        return said.masked_fill_(~said.isfinite(), math.nan)


def refuse_compiled(view_set: ViewSet, compiled: bool) -> None:
    """Raises UserError where a compiled network would have to be slid."""
    if compiled and view_set.is_dense:
        raise UserError(f"--views {view_set.name} --compile: dense views look inside the network, which a compiled one hides.")

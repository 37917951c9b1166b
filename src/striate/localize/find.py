"""What a network says of photos, and where: its first answers, and for each a box or the map that a box is cut from.

photo ── view ──> network ─┬─ logits ── the first five answers, and the true class
                           └─ grid ──── a map for each of these classes, or the box head's boxes
Each photo is decoded once, and its sides are those of its pixels, so that boxes come back to it exactly. Maps are kept on the
layer's own grid, which is small; they are enlarged one at a time, when they are boxed or drawn.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Generator
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from striate.classes import Classes
from striate.data import views
from striate.data.decode import BadImage, Pixels
from striate.data.index import Index
from striate.data.loader import Streaming, Workers, ordered_photos
from striate.errors import DataError, UserError, nearest
from striate.evaluate import metrics
from striate.evaluate.network import Network
from striate.evaluate.predict import (
    evaluation_mode,
    main_logits,
    refuse_non_finite,
    refuse_other_classes,
    renumber,
    scoring_batch_size,
)
from striate.evaluate.route import Watch
from striate.explain import cam
from striate.explain.heatmap import Heatmap
from striate.localize import boxes
from striate.localize.boxes import Which
from striate.machine import copied
from striate.models import grid
from striate.models.heads import Localizer, classifier_of
from striate.view import View

Method = Literal["head", "cam", "grad-cam", "grad-cam++"]
METHODS: Final[tuple[Method, ...]] = ("head", "cam", "grad-cam", "grad-cam++")
# Answers of each image, as the challenge counts them.
ANSWERS: Final = 5


@dataclass(frozen=True, eq=False)
class Found:
    """What a network said of the N images of an index that could be read.

    rows_N: [N] int64, their rows in the index. keys, labels_N: of these; labels in the network's numbering, -1 for none.
    sides_N2: [N, 2] int64, width and height of the photos after the view's EXIF rule.
    answers_NA, probabilities_NA: [N, A] the first answers, A = 5 or K if that is less.
    maps_NMhw: [N, A + 1, h, w] float32, maps of the answers and then of the true class (the first answer's where there is none);
    None where boxes_NM4 [N, A + 1, 4] float64 has boxes at once, xyxy in pixels of the view.
    bad: (key, reason) of the images that could not be read.
    """

    rows_N: NDArray[np.int64]
    keys: tuple[str, ...]
    labels_N: NDArray[np.int64]
    sides_N2: NDArray[np.int64]
    answers_NA: NDArray[np.int64]
    probabilities_NA: NDArray[np.float32]
    maps_NMhw: NDArray[np.float32] | None
    boxes_NM4: NDArray[np.float64] | None
    bad: tuple[tuple[str, str], ...]
    view: View
    method: Method
    layer: str

    def __len__(self) -> int:
        return len(self.keys)

    def heatmap(self, i: int, place: int) -> Heatmap:
        """The map of image i for its answer number `place`, from 0; -1 is the true class. Raises UserError for a box head."""
        if self.maps_NMhw is None:
            raise UserError("A box head makes no maps. Ask for one with --method grad-cam.")
        label = self.labels_N[i] if place == -1 and self.labels_N[i] >= 0 else self.answers_NA[i, max(place, 0)]
        width, height = self.sides_N2[i].tolist()
        values_hw = self.maps_NMhw[i, place]
        return Heatmap(values_hw, self.view, width, height, self.method, self.layer, int(label), self.keys[i])

    def box(self, i: int, place: int, threshold: float, which: Which) -> NDArray[np.float64]:
        """The box of image i for an answer, as `heatmap`: [4] float64 in pixels of the photo, within it.

        threshold, which: how maps are cut, see `boxes`; a box head needs neither.
        """
        if self.boxes_NM4 is None:
            return np.asarray(boxes.from_heatmap(self.heatmap(i, place), threshold, which)[0])
        width, height = self.sides_N2[i].tolist()
        placed_14 = self.view.placement(width, height).box_to_photo(self.boxes_NM4[i, place][None])
        return np.asarray(np.clip(placed_14[0], 0, [width, height, width, height]))


def method_of(model: nn.Module, wanted: str) -> Method:
    """The method for a network: "auto" is its box head if it has one, else grad-cam.

    Raises UserError for an unknown method, with the nearest names, and for "head" without a box head.
    """
    has_head = isinstance(model, Localizer)
    if wanted == "auto":
        return "head" if has_head else "grad-cam"
    if wanted not in METHODS:
        raise UserError(f"--method {wanted}: expected auto or one of {', '.join(METHODS)}.{nearest(wanted, METHODS)}")
    if wanted == "head" and not has_head:
        raise UserError(
            "--method head: this network has no box head. Train one with --boxes shared (or per-class), on data with boxes; or "
            "take boxes from heatmaps: --method grad-cam."
        )
    return next(one for one in METHODS if one == wanted)


def refuse(network: Network, method: Method, layer: str | None) -> None:
    """Raises what there is to say against the method and the layer for this network, by trying them on one grey image.

    For use before any photo is read. Raises UserError where the network has no grid of features, for an unknown layer or one
    without a grid, and where `cam` does not fit; NonFiniteError for a network that has diverged.
    """
    if method == "head":
        return
    model, view = network.model, network.view
    last = grid.last(model, view.size_px, view.channels)
    # A layer that is named may come before the tokens of a network that has no last grid.
    if last is None and (layer is None or not grid.grids(model, view.size_px, view.channels)):
        raise UserError(
            f"--method {method}: boxes are cut from a grid of features [B, C, h, w], and {type(classifier_of(model)).__name__} "
            "has none that its classes are made of (it goes on with vectors or tokens). Take a convolutional network. What a "
            "method of pixels shows of this one, without boxes: striate explain --method occlusion."
        )
    layer = last.name if layer is None and last is not None else layer
    like = next(model.parameters(), torch.empty(0))
    grey = torch.zeros(1, view.channels, view.size_px, view.size_px, device=like.device)
    _MAPS[method](model, grey, torch.zeros(1, 1, dtype=torch.int64, device=like.device), layer, main_logits)


def find(
    network: Network,
    index: Index,
    method: Method,
    layer: str | None,
    device: torch.device,
    workers: Workers,
    class_map: NDArray[np.int64] | None = None,
    watch: Watch = None,
) -> Found:
    """Looks at every image of an index once, in order, in float32.

    method: as `method_of` gave it. layer: whose grid the maps are made of; None for the last one. class_map: as in
    `evaluate.predict`. watch: called with (images done, images) now and then; it may raise to stop.
    Raises UserError as `explain.cam`, NonFiniteError as `predict`, DataError where no image can be read.
    """
    assert network.classes is not None
    view, classes = network.view, network.classes
    model = network.model.to(device).to(memory_format=torch.channels_last)
    labels_all = index.labels.astype(np.int64) if class_map is None else renumber(index.labels, class_map)
    look = _Look(model, view, method, layer, device, classes)
    rows: list[int] = []
    sides: list[tuple[int, int]] = []
    bad: list[tuple[str, str]] = []
    answers: list[NDArray[np.int64]] = []
    probabilities: list[NDArray[np.float32]] = []
    places: list[NDArray[np.float32]] = []
    with evaluation_mode(model), contextlib.closing(_photos(index, view, workers)) as photos:
        done = 0
        while part := list(itertools.islice(photos, scoring_batch_size(view))):
            if watch is not None:
                watch(done, len(index))
            done += len(part)
            bad += [(index.keys[row], seen.reason) for row, seen in part if isinstance(seen, BadImage)]
            good = [(row, seen) for row, seen in part if not isinstance(seen, BadImage)]
            if not good:
                continue
            keys = tuple(index.keys[row] for row, _ in good)
            labels_B = labels_all[[row for row, _ in good]]
            said_BK, answers_BA, places_BM = look(np.stack([seen.pixels_SS3 for _, seen in good]), labels_B, keys)
            rows += [row for row, _ in good]
            sides += [(seen.width, seen.height) for _, seen in good]
            answers.append(answers_BA)
            probabilities.append(np.exp(np.take_along_axis(metrics.log_probabilities(said_BK), answers_BA, 1)).astype(np.float32))
            places.append(places_BM)
    if not rows:
        reasons = "; ".join(f"{key}: {reason}" for key, reason in bad[:3])
        raise DataError(f"{index.root}: none of the {len(index):,} images can be read ({reasons}).")
    rows_N, where = np.array(rows, np.int64), np.concatenate(places)
    return Found(
        rows_N,
        tuple(index.keys[row] for row in rows),
        labels_all[rows_N],
        np.array(sides, np.int64),
        np.concatenate(answers),
        np.concatenate(probabilities),
        None if method == "head" else where,
        where.astype(np.float64) if method == "head" else None,
        tuple(bad),
        view,
        method,
        look.layer or "",
    )


# ---------------------------------------------------------------- inside

_MAPS: Final = {"cam": cam.cam_of, "grad-cam": cam.grad_cam_of, "grad-cam++": cam.grad_cam_plus_plus_of}


@dataclass(frozen=True, eq=False)
class _Seen:
    """A photo through the view: [S, S, 3] uint8, and the sides of the photo itself."""

    pixels_SS3: Pixels
    width: int
    height: int


def _photos(index: Index, view: View, workers: Workers) -> Generator[tuple[int, _Seen | BadImage]]:
    def make(photo_HW3: Pixels) -> _Seen:
        height, width, _ = photo_HW3.shape
        return _Seen(views.apply(photo_HW3, view), width, height)

    ahead = 2 * scoring_batch_size(view)
    return ordered_photos(Streaming(index, view.exif, 0), index, None, make, workers, ahead=ahead)


@dataclass(eq=False)
class _Look:
    """The network, and how it is asked. layer: found by the first batch where it was not named."""

    model: nn.Module
    view: View
    method: Method
    layer: str | None
    device: torch.device
    classes: Classes

    def __call__(
        self, images_BSS3: Pixels, labels_B: NDArray[np.int64], keys: tuple[str, ...]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]:
        """Logits [B, K], the first answers [B, A]; for these and the true class maps [B, A + 1, h, w], or boxes [B, A + 1, 4]."""
        pixels = copied(torch.from_numpy(images_BSS3).permute(0, 3, 1, 2), self.device)
        images = self.view.normalise(pixels, torch.float32).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            if isinstance(self.model, Localizer) and self.method == "head":
                outputs, boxes_BJ4 = self.model.localize(images)
            else:
                outputs, boxes_BJ4 = self.model(images), None
        said_BK = main_logits(outputs).float().cpu().numpy()
        refuse_other_classes(said_BK, len(keys), self.classes)
        refuse_non_finite(said_BK, keys, "fp32")
        answers_BA = metrics.top_k(said_BK, ANSWERS)
        asked_BM = np.concatenate([answers_BA, np.where(labels_B >= 0, labels_B, answers_BA[:, 0])[:, None]], axis=1)
        if boxes_BJ4 is not None:
            return said_BK, answers_BA, self._boxes(boxes_BJ4.cpu().numpy(), asked_BM)
        maps_BMhw, self.layer = _MAPS[self.method](
            self.model, images, torch.from_numpy(asked_BM).to(self.device), self.layer, main_logits
        )
        return said_BK, answers_BA, maps_BMhw.detach().float().cpu().numpy()

    def _boxes(self, said_BJ4: NDArray[np.float32], asked_BM: NDArray[np.int64]) -> NDArray[np.float32]:
        """Boxes of the classes asked for, xyxy in pixels of the view; a head with one box gives it for all classes."""
        of_class_BM = asked_BM if said_BJ4.shape[1] > 1 else np.zeros_like(asked_BM)
        chosen_BM4 = np.take_along_axis(said_BJ4, of_class_BM[..., None], axis=1)
        centre_BM2, half_BM2 = chosen_BM4[..., :2], chosen_BM4[..., 2:] / 2
        edges_BM4 = np.concatenate([centre_BM2 - half_BM2, centre_BM2 + half_BM2], axis=-1)
        return np.asarray(edges_BM4.clip(0, 1) * self.view.size_px, np.float32)

"""Which network looks at which image: one at all, or one at those with colour and another at the grey ones.

Logits of two networks have no common scale, so what two of them say together is kept as log-probabilities.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from striate.classes import listed
from striate.data import views
from striate.data.decode import BadImage, Pixels
from striate.data.index import Index
from striate.data.loader import Batch, Source, Streaming, Workers, ordered_batches
from striate.errors import UserError
from striate.evaluate import look, metrics, strata, view_sets
from striate.evaluate.network import Network
from striate.evaluate.predict import predict, scoring_batch_size
from striate.evaluate.view_sets import Averaging
from striate.files import sha256_bytes, to_json
from striate.models.compiled import for_inference
from striate.predictions import Predictions

Watch = Callable[[int, int], None] | None


@dataclass(frozen=True)
class Route:
    """The networks that answer together; `grey` is None where one answers for all.

    Raises UserError unless the first sees colour, the second grey, and both know the same classes in the same order.
    """

    colour: Network
    grey: Network | None = None

    def __post_init__(self) -> None:
        if self.grey is None:
            return
        if self.colour.view.colour == "grey":
            raise UserError(
                f"{self.colour.home}: sees grey only. Give the run that sees colour first, and the grey one with --grey."
            )
        if self.grey.view.colour != "grey":
            raise UserError(f"--grey {self.grey.home}: this run sees colour. Give one that was trained with --data.colour grey.")
        known, found = self.colour.classes, self.grey.classes
        assert known is not None and found is not None
        if known.hash != found.hash:
            apart = sorted({*known.ids} ^ {*found.ids})
            what = f"in one of them only: {listed(apart)}" if apart else "the same ones in another order"
            raise UserError(
                f"--grey {self.grey.home}: its classes are not those of {self.colour.home} ({what}). "
                "Two networks answer together only for the same classes."
            )

    @property
    def digest(self) -> str:
        """SHA-256 of all that is scored: the weights, and the second network's weights and view as well."""
        if self.grey is None:
            return self.colour.digest
        view = to_json(self.grey.view.to_json(), indent=None)
        return sha256_bytes(f"{self.colour.digest}\n{self.grey.digest}\n{view}".encode())

    def describe(self, is_grey_N: NDArray[np.bool_]) -> str:
        """The part of the protocol that says which network saw which images; empty where one saw all."""
        if self.grey is None:
            return ""
        grey, count = self.grey, int(is_grey_N.sum())
        how = f"{grey.weights} weights of {grey.checkpoint}, {grey.view.describe()}"
        return (
            f"{count:,} grey images (channels at most {views.GREY_TOLERANCE} levels apart) by {grey.home.name} ({how}), "
            f"the other {len(is_grey_N) - count:,} by {self.colour.home.name}"
        )


@dataclass(frozen=True, eq=False)
class Answers:
    """What was said about the images of an index: `found` and `bad` as `predict` gives them.

    is_grey_N: [N] bool, of `found`. brightness_N: [N] float64, the mean level of the network's own view, 0..1.
    rows_N: [N] int64, in the index.
    """

    found: Predictions
    bad: list[tuple[str, str]]
    is_grey_N: NDArray[np.bool_]
    brightness_N: NDArray[np.float64]
    rows_N: NDArray[np.int64]


def ask(
    route: Route,
    source: Source,
    index: Index,
    device: torch.device,
    precision: Literal["bf16", "fp16", "fp32"],
    workers: Workers,
    class_map: NDArray[np.int64] | None = None,
    watch: Watch = None,
    compiled: bool = False,
    looking: str = "center",
    average: Averaging = "probabilities",
) -> Answers:
    """Every image of an index, once and in order.

    source: of the pixels for the colour network's view, which decide what is grey. With a second network the grey images
    are read again and looked at by that one, through its own view, and its word counts.
    class_map: as in `predict`. watch: called with (images done, images) now and then; it may raise to stop.
    compiled: each network as `models.compiled` makes it; ResourceError where that cannot be.
    looking, average: the set of views of each image, as `view_sets.named` takes them; for more than the network's own view the
    source must be `Streaming`.
    """
    for network in filter(None, (route.colour, route.grey)):  # what is wrong with the second is told before the first looks
        look.refuse_compiled(view_sets.named(looking, network.view, average), compiled)
    seen = _Seen([], [], [], watch, len(index))

    def say(network: Network, source: Source, rows: NDArray[np.int64] | None, seen: _Seen) -> _Said:
        assert network.classes is not None
        view, view_set = network.view, view_sets.named(looking, network.view, average)
        model = network.model.to(device).to(memory_format=torch.channels_last)
        model = for_inference(model, precision) if compiled else model
        given = (view, device, precision, network.classes, True, class_map)
        if view_set.is_center:
            size, on_gpu = scoring_batch_size(view), device.type == "cuda"
            batches = ordered_batches(source, index, view, rows, size, workers, pin_memory=on_gpu)
            with contextlib.closing(batches):
                return predict(model, seen.batches(batches), *given)
        assert isinstance(source, Streaming), "views are cut from whole photos"
        photos = look.photos(source, index, rows, view_set, view, workers)
        with contextlib.closing(photos):
            return look.predict_views(model, seen.photos(photos), index, view_set, *given)

    colour, grey = route.colour, route.grey
    found, bad = say(colour, source, None, seen)
    is_grey_N, brightness_N = seen.together(seen.greys, np.bool_), seen.together(seen.brightnesses, np.float64)
    rows_N = seen.together(seen.rows, np.int64)
    if grey is None:
        return Answers(found, bad, is_grey_N, brightness_N, rows_N)
    chosen = rows_N[is_grey_N]
    said, more_bad = say(grey, Streaming(index, grey.view.exif, 0), chosen, _Seen([], [], [], None, 0))
    lost = {key for key, _ in more_bad}  # could be read a moment ago, or fits the other view only
    is_kept_N = np.array([key not in lost for key in found.keys], np.bool_)
    scores_NK = _log_probabilities(found.scores)
    scores_NK[is_grey_N & is_kept_N] = _log_probabilities(said.scores)
    merged = replace(found, scores=scores_NK, scale="log-probabilities")
    kept = is_grey_N[is_kept_N], brightness_N[is_kept_N], rows_N[is_kept_N]
    return Answers(merged.select(is_kept_N), bad + more_bad, *kept)


@dataclass(frozen=True, eq=False)
class _Seen:
    """Looks at the pixels that pass by on their way to a network: which rows, what is grey, how bright. Tells `watch`."""

    rows: list[NDArray[np.int64]]
    greys: list[NDArray[np.bool_]]
    brightnesses: list[NDArray[np.float64]]
    watch: Watch
    count: int

    def batches(self, batches: Generator[Batch]) -> Generator[Batch]:
        done = 0
        for batch in batches:
            self._tell(done)
            done += len(batch) + len(batch.bad)
            self._note(batch.indices.numpy(), batch.images.permute(0, 2, 3, 1).numpy())
            yield batch

    def photos(self, photos: Iterable[tuple[int, look.Photo | BadImage]]) -> Generator[tuple[int, look.Photo | BadImage]]:
        for done, (row, found) in enumerate(photos):
            if done % 32 == 0:
                self._tell(done)
            if isinstance(found, look.Photo):
                self._note(np.array([row], np.int64), found.own_SS3[None])
            yield row, found

    @staticmethod
    def together(parts: list[NDArray[Any]], dtype: type) -> NDArray[Any]:
        """The parts as one array, also where there are none."""
        return np.concatenate([np.empty(0, dtype), *parts])

    def _tell(self, done: int) -> None:
        if self.watch is not None:
            self.watch(done, self.count)

    def _note(self, rows: NDArray[np.int64], images_BSS3: Pixels) -> None:
        self.rows.append(rows)
        self.greys.append(views.is_grey(images_BSS3))
        self.brightnesses.append(strata.brightness_B(images_BSS3))


_Said = tuple[Predictions, list[tuple[str, str]]]


def _log_probabilities(scores_NK: np.ndarray) -> np.ndarray:
    """Log of the softmax in float32, a few thousand rows at a time, because it is computed in float64."""
    parts = np.array_split(scores_NK, max(1, len(scores_NK) // 4096))
    return np.concatenate([metrics.log_probabilities(part).astype(np.float32) for part in parts])

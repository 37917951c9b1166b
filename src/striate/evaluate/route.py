"""Which network looks at which image: one at all, or one at those with colour and another at the grey ones.

Logits of two networks have no common scale, so what two of them say together is kept as log-probabilities.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from striate.classes import listed
from striate.data import views
from striate.data.index import Index
from striate.data.loader import Batch, Source, Streaming, Workers, ordered_batches
from striate.errors import UserError
from striate.evaluate import metrics
from striate.evaluate.network import Network
from striate.evaluate.predict import predict, scoring_batch_size
from striate.files import sha256_bytes, to_json
from striate.models.compiled import for_inference
from striate.predictions import Predictions
from striate.view import View

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
    """What was said about the images of an index: `found` and `bad` as `predict` gives them; is_grey_N: [N], of `found`."""

    found: Predictions
    bad: list[tuple[str, str]]
    is_grey_N: NDArray[np.bool_]


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
) -> Answers:
    """Every image of an index, once and in order.

    source: of the pixels for the colour network's view, which decide what is grey. With a second network the grey images
    are read again and looked at by that one, through its own view, and its word counts.
    class_map: as in `predict`. watch: called with (images done, images) now and then; it may raise to stop.
    compiled: each network as `models.compiled` makes it; ResourceError where that cannot be.
    """

    def read(source: Source, view: View, rows: NDArray[np.int64] | None) -> Generator[Batch]:
        size, on_gpu = scoring_batch_size(view), device.type == "cuda"
        return ordered_batches(source, index, view, rows, size, workers, pin_memory=on_gpu)

    def say(network: Network, batches: Generator[Batch]) -> tuple[Predictions, list[tuple[str, str]]]:
        assert network.classes is not None
        model = network.model.to(device).to(memory_format=torch.channels_last)
        model = for_inference(model, precision) if compiled else model
        with contextlib.closing(batches):
            return predict(model, batches, network.view, device, precision, network.classes, True, class_map)

    rows: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    greys: list[NDArray[np.bool_]] = [np.empty(0, np.bool_)]

    def watched(batches: Generator[Batch]) -> Generator[Batch]:
        done = 0
        with contextlib.closing(batches):
            for batch in batches:
                if watch is not None:
                    watch(done, len(index))
                done += len(batch) + len(batch.bad)
                rows.append(batch.indices.numpy())
                greys.append(views.is_grey(batch.images.permute(0, 2, 3, 1).numpy()))
                yield batch

    colour, grey = route.colour, route.grey
    found, bad = say(colour, watched(read(source, colour.view, None)))
    is_grey_N = np.concatenate(greys)
    if grey is None:
        return Answers(found, bad, is_grey_N)
    chosen = np.concatenate(rows)[is_grey_N]
    again = Streaming(index, grey.view.exif, 0)
    said, more_bad = say(grey, read(again, grey.view, chosen))
    lost = {key for key, _ in more_bad}  # could be read a moment ago, or fits the other view only
    is_kept_N = np.array([key not in lost for key in found.keys], np.bool_)
    scores_NK = _log_probabilities(found.scores)
    scores_NK[is_grey_N & is_kept_N] = _log_probabilities(said.scores)
    merged = replace(found, scores=scores_NK, scale="log-probabilities")
    return Answers(merged.select(is_kept_N), bad + more_bad, is_grey_N[is_kept_N])


def _log_probabilities(scores_NK: np.ndarray) -> np.ndarray:
    """Log of the softmax in float32, a few thousand rows at a time, because it is computed in float64."""
    parts = np.array_split(scores_NK, max(1, len(scores_NK) // 4096))
    return np.concatenate([metrics.log_probabilities(part).astype(np.float32) for part in parts])

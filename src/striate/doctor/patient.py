"""Patient: what is examined before a training, as plain parts, and the measurements that several rules share.

The doors are `preflight` (a recipe and data of striate) and `examine` (any network with any loader). Measurements are made
when a rule asks for one, and once.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from striate import machine
from striate.data.index import Index
from striate.doctor import passes, trials
from striate.doctor.passes import Loss, Signals
from striate.measure.plan import Forecast
from striate.models import init
from striate.recipe import Recipe
from striate.train import rate
from striate.view import View

# A pass over images as a network gets them, [B, C, S, S] float32, with labels [B] int64; each call begins a new one.
Batches = Callable[[], Iterator[tuple[torch.Tensor, torch.Tensor]]]
# Most images of the batch that is looked at.
MOST_IMAGES = 32
# And fewest, where 32 would take longer than this many seconds; a pass that looks takes as long as so many forward passes.
FEWEST_IMAGES, PASS_S, PASSES_LIKE = 8, 2.0, 5.0
# Images on which another start is tried.
DRAWN_IMAGES = 16
# Of a stranger's loader: so many batches or labels tell which labels there are.
MOST_BATCHES, MOST_LABELS = 50, 1024


@dataclass(eq=False)
class Patient:
    """A network with the images it will be trained on.

    images, labels: the first training batch, [B, C, S, S] float32 as the network gets it and [B] int64, on the device.
    train, scored: training batches, and those of the validation set; None where there are none to be had.
    classes: how many the data has, None where nobody knows. loss: what is minimised, of (outputs, labels).
    recipe, view, train_index, val_index, total_steps: of a training with striate; None for a stranger's.
    optimizer: a stranger's. loading_s: seconds in which each batch of a stranger's loader came. seconds: how long the
    measurements may take altogether. kept: what rules keep for each other. forecast: measures what the whole training would take;
    takes 20 seconds. pass_s: seconds of a forward and backward pass that looks; image_s: of one image in a forward pass.
    """

    model: nn.Module
    images: torch.Tensor
    labels: torch.Tensor
    train: Batches
    loss: Loss
    scored: Batches | None = None
    classes: int | None = None
    recipe: Recipe | None = None
    view: View | None = None
    train_index: Index | None = None
    val_index: Index | None = None
    total_steps: int | None = None
    steps_per_epoch: int | None = None
    optimizer: torch.optim.Optimizer | None = None
    seconds: float = 60.0
    began: float = field(default_factory=time.monotonic)
    kept: dict[str, Any] = field(default_factory=dict)
    forecast: Callable[[], Forecast] | None = None
    loading_s: Sequence[float] = ()
    pass_s: float = 0.0
    image_s: float = 0.0
    _drawn: dict[str, Signals] = field(default_factory=dict)

    @property
    def left_s(self) -> float:
        """Seconds that are left for measurements."""
        return self.seconds - (time.monotonic() - self.began)

    @property
    def peak_rate(self) -> float:
        """The highest learning rate of the recipe, its scaling with the batch counted in."""
        assert self.recipe is not None
        return rate.peak(self.recipe.optim)

    @property
    def precision(self) -> Literal["bf16", "fp16", "fp32"]:
        """Of short trainings: the recipe's, but never fp16, which wants its scaler; for strangers fp32."""
        if self.recipe is None:
            return "fp32"
        chosen = machine.choose_precision(self.recipe.optim.precision, self.device)
        return "fp32" if chosen == "fp16" else chosen

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.images.device

    @functools.cached_property
    def outputs(self) -> int:
        """K of the main head's logits; 0 where they are not [B, K]."""
        images = self.images[:2] if len(self.images) > 1 else torch.cat([self.images, self.images])
        with torch.no_grad(), passes.preserved(self.model), passes.as_trained(self.model):
            self.model(images)  # the first run of a shape prepares what the next ones use
            began = time.monotonic()
            logits = next(iter(passes.heads_of(self.model(images)).values()))
            self.image_s = (time.monotonic() - began) / len(images)
        return int(logits.shape[1]) if logits.dim() == 2 else 0

    @property
    def looked_at(self) -> int:
        """Images of a pass: 32, or as few as 8 where the network is slow."""
        _ = self.outputs
        fitting = int(PASS_S / (PASSES_LIKE * max(self.image_s, 1e-9)))
        return min(len(self.images), MOST_IMAGES, max(FEWEST_IMAGES, fitting))

    @functools.cached_property
    def seen_labels(self) -> torch.Tensor:
        """Labels of the training set, where there is an index of it; else those of the first batches. int64."""
        if self.train_index is not None:
            return torch.from_numpy(self.train_index.labels.astype("int64"))
        found, count = [self.labels.cpu()], len(self.labels)
        for _, labels in itertools.islice(self.train(), MOST_BATCHES):
            found.append(labels.cpu())
            count += len(labels)
            if count >= MOST_LABELS:
                break
        return torch.cat(found)

    @functools.cached_property
    def signals(self) -> Signals:
        """What one forward and backward pass shows."""
        began = time.monotonic()
        count = self.looked_at
        seen = passes.look(self.model, self.images[:count], self.labels[:count], self.loss)
        self.pass_s = time.monotonic() - began
        return seen

    def drawn_again(self, way: Literal["he", "sigmoid"]) -> Signals:
        """What a pass shows when the weights are drawn again, and put back afterwards: He's, or four times Glorot's, which keep a
        signal's size through ReLUs and through sigmoids (Glorot and Bengio 2010, section 4.2.1; a sigmoid's slope is 1/4)."""
        if way not in self._drawn:
            count = min(DRAWN_IMAGES, self.looked_at)
            with passes.preserved(self.model):
                init.apply(self.model, "he" if way == "he" else "glorot")
                if way == "sigmoid":
                    with torch.no_grad():
                        for parameter in self.model.parameters():
                            parameter.mul_(4.0 if parameter.dim() >= 2 else 1.0)
                self._drawn[way] = passes.look(self.model, self.images[:count], self.labels[:count], self.loss)
        return self._drawn[way]

    @property
    def batch_size(self) -> int:
        """Images of a training step that are normalised together."""
        return self.recipe.optim.batch_size // self.recipe.optim.accumulate if self.recipe is not None else len(self.images)

    @functools.cached_property
    def plan(self) -> Forecast:
        """What the whole training would take."""
        assert self.forecast is not None
        return self.forecast()

    @functools.cached_property
    def learnt(self) -> trials.Learnt:
        """What some steps on one batch of at most 32 images bring; the weights are put back."""
        return trials.one_batch(self)

    @functools.cached_property
    def rates(self) -> trials.RateCurve:
        """Loss by learning rate, from a few steps each from the same start; the weights are put back."""
        return trials.range_test(self)

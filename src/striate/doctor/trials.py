"""Short trainings on the network itself, which is put back afterwards: can it learn one batch, and which rates does it bear?"""

from __future__ import annotations

import functools
import inspect
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

import torch

from striate import machine
from striate.doctor import passes
from striate.doctor.finding import NotJudged
from striate.train.build import optimizer_of

if TYPE_CHECKING:
    from striate.doctor.patient import Patient

Batch = tuple[torch.Tensor, torch.Tensor]

# Steps on one batch, and their rate: Adam's steps have one size whatever the size of the gradients, so that a network that
# starts with small gradients is not taken for one that has none. Source: Kingma and Ba 2015, section 2.1.
BATCH_STEPS, BATCH_RATE = 60, 1e-3
# A batch counts as learnt when its loss fell to this share of ln K.
LEARNT_SHARE = 0.5
# Steps of a duel between the rate and a tenth of it, over so many batches: where steps are leaps, or where the rate does not
# learn in few steps and another one lowers the loss by this share.
DUEL_STEPS, DUEL_BATCHES, DOUBT = 60, 24, 0.1
# Steps at each rate, images of each step, and the rates, as multiples of the recipe's, in the order in which they are tried.
RATE_STEPS, RATE_IMAGES = 10, 16
MULTIPLES = (1.0, 0.1, 10.0, 0.01, 100.0, 0.001)
# Where no rate up to there moved the loss by this share, higher ones are tried, until one does.
HIGHER, MOVED = (1e3, 1e4, 1e5), 0.03
# Where none of them learns, lower ones.
LOWER = (1e-4, 1e-5)
# A rate learns when its steps lower the loss by this share: where the recipe's does, no other is tried.
LEARNS = 0.04
# A step of Adam that moves weights by a third of their size throws away what they were.
LEAP = 0.3
# Batches that the steps at a rate take in turn, and those of them that the loss is measured on at the end.
RATE_BATCHES, SCORED_BATCHES = 6, 2


@dataclass(frozen=True)
class Learnt:
    """What steps on one batch brought. losses: of the main head before each step, in nats; images, classes in the batch."""

    losses: tuple[float, ...]
    top1: float
    images: int
    classes: int
    wanted_steps: int

    @property
    def is_learnt(self) -> bool:
        """Whether the loss fell to half of what guessing among the classes of the batch gives, or all images are right."""
        chance = math.log(max(2, self.classes))
        return self.top1 > 0.95 or (math.isfinite(self.losses[-1]) and min(self.losses) < LEARNT_SHARE * chance)

    @property
    def is_finished(self) -> bool:
        """Whether there was time for enough steps to judge by."""
        return self.is_learnt or len(self.losses) >= self.wanted_steps or not math.isfinite(self.losses[-1])


@dataclass(frozen=True)
class RateCurve:
    """Loss after some steps by learning rate. rates rising; before: the loss without any step; losses: inf where it burst.

    rate: the one that is asked about. duel: the loss after more steps at that rate, and at a tenth of it, where it was looked at.
    """

    rate: float
    rates: tuple[float, ...]
    losses: tuple[float, ...]
    before: float
    steps: int
    duel: tuple[float, float] | None = None

    def at(self, multiple: float) -> float | None:
        """The loss at a multiple of the rate; None where it was not tried."""
        for rate, loss in zip(self.rates, self.losses, strict=True):
            if math.isclose(rate, self.rate * multiple, rel_tol=1e-6):
                return loss
        return None

    @property
    def best(self) -> float:
        """The rate that lowered the loss most."""
        return min(zip(self.losses, self.rates, strict=True))[1]


def one_batch(patient: Patient) -> Learnt:
    """Trains on the first images alone, without dropout, until they are learnt or steps or time are used up."""
    found = _learnt(patient, BATCH_RATE)
    if found.is_learnt or not found.is_finished or not math.isfinite(found.losses[-1]):
        return found
    # A small network, or one whose weights are bound, wants larger steps than most.
    again = _learnt(patient, 10 * BATCH_RATE)
    return again if min(again.losses) < min(found.losses) else found


def _learnt(patient: Patient, rate: float) -> Learnt:
    """Steps of one rate on the first images."""
    count = patient.looked_at
    model, images, labels = patient.model, patient.images[:count], patient.labels[:count]
    losses: list[float] = []
    top1 = 0.0
    began, limit_s = time.monotonic(), 0.5 * patient.left_s
    with passes.preserved(model), passes.as_trained(model):
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.Adam(trained, lr=rate, betas=(0.9, 0.99))
        for _ in range(BATCH_STEPS):
            main, top1 = _step(patient, optimizer, images, labels)
            losses.append(main)
            found = Learnt(tuple(losses), top1, len(images), len(set(labels.tolist())), BATCH_STEPS)
            if (found.is_learnt and len(losses) > 1) or not math.isfinite(main) or time.monotonic() - began > limit_s:
                break
    return found


def range_test(patient: Patient) -> RateCurve:
    """Takes the same few steps from the same start at several rates, with the recipe's own optimiser.

    Every rate sees the same batches, so the differences between the rates are not those between batches. Where the recipe's own
    rate learns, it is the only one.
    Source: Smith 2017, section 3.3 (range test), with a fresh start for each rate in place of one rising ramp.
    """
    rate, make = rate_of(patient)
    batches = _first(patient, RATE_BATCHES)
    found: dict[float, float] = {}
    began, limit_s = time.monotonic(), 0.7 * patient.left_s
    before = _scored(patient, batches[:SCORED_BATCHES])
    is_leap = moves(patient, rate) > LEAP
    for multiple in (*MULTIPLES, *HIGHER, *LOWER):
        if multiple in HIGHER and any(abs(loss - before) > MOVED * before for loss in found.values()):
            continue
        if multiple in LOWER and any(before - loss >= LEARNS * before for loss in found.values()):
            break
        if found and (time.monotonic() - began) * (len(found) + 1) / len(found) > limit_s:
            break
        found[rate * multiple] = _trained(patient, functools.partial(make, rate * multiple), batches, RATE_STEPS)
        if multiple == 1.0 and before - found[rate] >= LEARNS * before and not is_leap:
            break
    step_s = (time.monotonic() - began) / (RATE_STEPS * len(found))
    rates = tuple(sorted(found))
    curve = RateCurve(rate, rates, tuple(found[one] for one in rates), before, RATE_STEPS)
    is_doubtful = is_leap or (before - found[rate] < LEARNS * before and before - min(curve.losses) > DOUBT * before)
    if not is_doubtful or not math.isfinite(found[rate]) or 2.5 * DUEL_STEPS * step_s > patient.left_s:
        return curve
    many = _first(patient, DUEL_BATCHES)
    return replace(
        curve,
        duel=(
            _trained(patient, functools.partial(make, rate), many, DUEL_STEPS),
            _trained(patient, functools.partial(make, rate * 0.1), many, DUEL_STEPS),
        ),
    )


def _first(patient: Patient, count: int) -> list[Batch]:
    """The first training batches, each as small as the network's speed wants it."""
    return [(images[: patient.looked_at], labels[: patient.looked_at]) for images, labels in islice(patient.train(), count)]


def _trained(patient: Patient, make: Callable[[], torch.optim.Optimizer], batches: list[Batch], steps: int) -> float:
    """The loss of some of the batches after so many steps on all of them; infinite where it burst. Weights are put back."""
    with passes.preserved(patient.model), passes.as_trained(patient.model, dropout=True):
        optimizer = make()
        for step, (images, labels) in enumerate(islice(cycle(batches), steps)):
            machine.reseed_torch(0, step, 0)
            loss, _ = _step(patient, optimizer, images, labels)
            if not math.isfinite(loss):
                return math.inf
        return _scored(patient, batches[:SCORED_BATCHES])


def moves(patient: Patient, rate: float) -> float:
    """By how much of their own size the weights of a middle layer move with each step, where the optimiser's steps have one size
    whatever the gradient (Adam and its kin); 0 for others."""
    kind = patient.recipe.optim.name if patient.recipe is not None else type(patient.optimizer).__name__.lower()
    if not kind.startswith(("adam", "nadam", "radam", "rmsprop", "lion")):
        return 0.0
    scales = [one.scale for one in passes.weighted(patient.signals) if one.is_trained and one.scale > 0]
    return rate / statistics.median(scales) if scales else 0.0


def rate_of(patient: Patient) -> tuple[float, Callable[[float], torch.optim.Optimizer]]:
    """The peak learning rate of the training, and what makes its optimiser with another one."""
    if patient.recipe is not None:
        return patient.peak_rate, functools.partial(optimizer_of, patient.recipe, patient.model, rates={})
    given = patient.optimizer
    assert given is not None
    if not isinstance(given, torch.optim.Optimizer) or isinstance(given, torch.optim.LBFGS):
        raise NotJudged(f"{type(given).__name__} takes no steps of its own")
    # A scheduler that warms up has set the rate to 0 already, and keeps where it will rise to.
    rates = [float(group.get("initial_lr", 0.0)) or float(group["lr"]) for group in given.param_groups]
    peak = max(rates)
    if peak <= 0:
        raise NotJudged("the optimiser's rate is 0")

    def theirs(lr: float) -> torch.optim.Optimizer:
        groups = [
            {name: value for name, value in group.items() if name != "params"}
            | {"params": list(group["params"]), "lr": lr * rate / peak}
            for group, rate in zip(given.param_groups, rates, strict=True)
        ]
        kind: Any = type(given)
        # Defaults hold what a kind of optimiser takes, and what it keeps for itself besides (AdamW: decoupled_weight_decay).
        known = inspect.signature(kind).parameters
        try:
            again: torch.optim.Optimizer = kind(
                groups, **{name: value for name, value in given.defaults.items() if name in known}
            )
        except (TypeError, ValueError) as error:
            raise NotJudged(f"{kind.__name__} cannot be built a second time") from error
        return again

    return peak, theirs


def _step(patient: Patient, optimizer: torch.optim.Optimizer, images: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    """One step. Returns the main head's loss before it, in nats, and the share of images that were right."""
    with torch.enable_grad():
        with machine.autocast(patient.device, patient.precision):
            outputs = patient.model(images)
        loss = patient.loss(outputs, labels)
        optimizer.zero_grad(set_to_none=True)
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    logits = next(iter(passes.heads_of(outputs).values())).detach().float()
    main = float(torch.nn.functional.cross_entropy(logits, labels))
    return main, float((logits.argmax(1) == labels).float().mean())


def _scored(patient: Patient, batches: list[Batch]) -> float:
    """Mean loss of the main head over some batches in training mode, without dropout; infinite where it is not finite."""
    total = 0.0
    with torch.no_grad(), passes.preserved(patient.model), passes.as_trained(patient.model):
        for images, labels in batches:
            with machine.autocast(patient.device, patient.precision):
                outputs = patient.model(images)
            logits = next(iter(passes.heads_of(outputs).values())).float()
            total += float(torch.nn.functional.cross_entropy(logits, labels)) / len(batches)
    return total if math.isfinite(total) else math.inf

"""Made-up trainings for the rules over a history: ill ones by what is asked for, and healthy ones, some of which look ill."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from striate import recipe as recipes
from striate.doctor.finding import Finding, NotJudged
from striate.doctor.history import History
from striate.recipe import Recipe
from striate.run.log import Record
from striate.train import schedule

Curve = Callable[[float], float]
# Gradient over weight and update over weight by layer group, about as a small ResNet has them with SGD at 0.1.
GROUPS = {"conv1": (0.3, 6e-3), "layer1": (0.05, 2e-3), "layer2": (0.02, 1e-3), "layer3": (0.02, 1e-3), "fc": (0.5, 2e-2)}


def falling(first: float, last: float, pace: float = 5.0) -> Curve:
    """A loss that falls fast and then slowly, from `first` to about `last`, over a progress of 0..1."""
    return lambda t: last + (first - last) * math.exp(-pace * t)


def cosine(peak: float) -> Curve:
    return lambda t: peak * schedule.cosine(t, 0.0)


@dataclasses.dataclass(frozen=True)
class Scores:
    """What evaluations find: loss and accuracy by progress, how many evaluations, of how many images."""

    loss: Curve
    top1: Curve
    evaluations: int = 10
    images: int = 5000


def training(
    loss: Curve,
    *,
    classes: int = 10,
    steps: int = 2000,
    every: int = 50,
    steps_per_epoch: int = 200,
    batch_size: int = 128,
    noise: float = 0.03,
    top1: Curve | None = None,
    lr: Curve | None = None,
    val: Scores | None = None,
    sample: Scores | None = None,
    average: Scores | None = None,
    groups: Mapping[str, tuple[float, float]] | None = None,
    weight: Curve = lambda t: 1.0,
    dead: Mapping[str, Curve] | None = None,
    aux: int = 0,
    penalty: Curve = lambda t: 0.0,
    wait_share: Curve = lambda t: 0.02,
    images_per_s: Curve = lambda t: 1000.0,
    memory_bytes: Curve = lambda t: 3e9,
    loss_scale: float | None = None,
    changes: Mapping[str, Any] | None = None,
    until: float = 1.0,
    seed: int = 0,
) -> History:
    """A training's records, as the loop of striate would tell them.

    loss: of the main head. top1: of training; by default what goes with the loss. noise: of the loss, relative.
    until: how far it has come, 0..1; at 1 it is done.
    """
    recipe = recipes.change(
        Recipe(), {"model.name": "resnet18", "data.size_px": 64, "augment.scale": (0.35, 1.0), **(changes or {})}
    )
    rate = lr or cosine(recipe.optim.lr)
    groups = GROUPS if groups is None else groups
    draw = np.random.default_rng(seed)
    history = History(recipe)
    facts = {"images": steps_per_epoch * batch_size, "classes": classes, "batch_size": batch_size}
    history.observe(Record("start", 0, {**facts, "steps_per_epoch": steps_per_epoch, "total_steps": steps, "processes": 1}))
    for step in [1, *range(every, int(steps * until) + 1, every)]:
        t = step / steps
        main = loss(t) * math.exp(noise * draw.standard_normal())
        share = top1(t) if top1 is not None else max(1 / classes, min(0.999, math.exp(-loss(t))))
        share_of_peak = rate(t) / max(rate(0.01), 1e-12)
        others = {f"aux{place + 1}": main for place in range(aux)}
        values = {
            "epoch": step / steps_per_epoch,
            "loss": main + recipe.loss.aux_weight * main * aux + penalty(t),
            "losses": {"main": main, **others},
            "lr": rate(t),
            "top1": draw.binomial(batch_size, share) / batch_size,
            "gradient_norm": math.hypot(*(gradient * 10 for gradient, _ in groups.values())) if groups else None,
            "norms": {
                name: {
                    "weight": 10.0 * weight(t),
                    "gradient": 10.0 * weight(t) * gradient,
                    "update": 10.0 * weight(t) * update * share_of_peak,
                }
                for name, (gradient, update) in groups.items()
            },
            "dead_share": {name: curve(t) for name, curve in (dead or {"relu1": lambda t: 0.05}).items()},
            "memory_bytes": memory_bytes(t),
            "loss_scale": loss_scale,
            "images_per_s": images_per_s(t) * math.exp(0.03 * draw.standard_normal()),
            "wait_share": wait_share(t),
            "elapsed_s": step * 2.0,
        }
        history.observe(Record("step", step, values))
    for split, weights, scores in (("val", "raw", val), ("val", "EMA", average), ("train-sample", "raw", sample)):
        for number in range(1, scores.evaluations + 1) if scores is not None else ():
            t = number / scores.evaluations
            if t <= until:
                _evaluate(history, round(t * steps), steps_per_epoch, split, weights, scores, t, draw)
    if until >= 1:
        history.observe(Record("end", steps, {"reason": "done", "exit_code": 0}))
    return history


def _evaluate(
    history: History, step: int, steps_per_epoch: int, split: str, weights: str, scores: Scores, t: float, draw: Any
) -> None:
    right = draw.binomial(scores.images, min(1.0, max(0.0, scores.top1(t))))
    facts = {"split": split, "weights": weights, "epoch": step / steps_per_epoch, "used": scores.images}
    history.observe(Record("evaluation", step, {**facts, "loss": scores.loss(t), "top1": right / scores.images}))


def scored(first: float, last: float, lowest: float = 0.1, highest: float = 0.8, **more: Any) -> Scores:
    """Evaluations of a training that learns: loss from first to last, accuracy from lowest to highest."""
    return Scores(falling(first, last), lambda t: highest - (highest - lowest) * math.exp(-4 * t), **more)


# ---------------------------------------------------------------- healthy trainings


def _plain() -> History:
    return training(falling(2.4, 0.3), val=scored(2.2, 0.7), sample=scored(2.2, 0.35, 0.1, 0.9))


def _first_hundred_steps() -> History:
    return training(falling(2.6, 1.7, 3), steps=100, every=5, steps_per_epoch=50, noise=0.05)


def _slow_start() -> History:
    """A thousand classes: the first tenth of the time next to ln K, the accuracy above guessing all the same."""
    return training(
        lambda t: 6.95 - 0.9 * t**1.5, classes=1000, steps=1000, every=20, steps_per_epoch=5000, batch_size=256,
        noise=0.01, top1=lambda t: 0.002 + 0.02 * t, until=0.4,
    )  # fmt: skip


def _steps_of_the_rate() -> History:
    def loss(t: float) -> float:
        return 1.0 + 1.6 * math.exp(-14 * t) if t < 0.5 else 0.55 + 0.05 * math.exp(-14 * (t - 0.5)) if t < 0.75 else 0.45

    return training(
        loss, lr=lambda t: 0.1 if t < 0.5 else 0.01 if t < 0.75 else 0.001, noise=0.05, steps_per_epoch=50,
        changes={"optim.schedule": "step", "optim.drop_epochs": (20.0, 30.0)},
        val=Scores(lambda t: 1.2 if t < 0.5 else 0.85, lambda t: 0.6 if t < 0.5 else 0.75, 40),
    )  # fmt: skip


def _small_validation_set() -> History:
    return training(falling(2.4, 0.5), val=scored(2.2, 0.9, images=120, evaluations=12))


def _strong_augmentation() -> History:
    """Training runs below validation all the time, and all three get better."""
    return training(
        falling(2.4, 1.3), top1=lambda t: 0.1 + 0.4 * (1 - math.exp(-4 * t)), noise=0.08,
        changes={"augment.mixup": 0.2, "augment.cutmix": 1.0, "loss.smoothing": 0.1, "augment.policy": "randaugment"},
        val=scored(2.2, 0.8, 0.12, 0.78), sample=scored(2.1, 0.6, 0.15, 0.85),
    )  # fmt: skip


def _many_classes() -> History:
    return training(falling(5.4, 3.6, 2), classes=200, val=scored(5.2, 3.7, 0.01, 0.2), noise=0.02)


def _fine_tuning() -> History:
    """Tiny updates and a loss that falls at once."""
    groups = {name: (gradient, 2e-5) for name, (gradient, _) in GROUPS.items()}
    return training(
        falling(2.3, 0.2, 12), groups=groups, lr=cosine(0.001), changes={"optim.lr": 0.001}, val=scored(1.5, 0.4, 0.5, 0.9),
    )  # fmt: skip


def _constant_rate_still_falling() -> History:
    return training(
        falling(2.4, 0.4, 2.5), lr=lambda t: 0.05, changes={"optim.schedule": "constant"}, val=scored(2.2, 0.8), noise=0.06
    )


def _warm_up() -> History:
    return training(
        lambda t: 2.45 if t < 0.1 else falling(2.45, 0.6)(t - 0.1), changes={"optim.warmup_epochs": 1.0},
        lr=lambda t: 0.1 * min(1.0, t / 0.1) * schedule.cosine(t, 0), until=0.3, val=scored(2.4, 1.2, evaluations=30),
    )  # fmt: skip


def _learnt_by_heart_and_well() -> History:
    """Training ends at 100 %, validation at 92 %, its loss a little above its lowest: a usual end on CIFAR-10."""
    return training(
        falling(2.4, 0.005, 9), val=Scores(lambda t: 0.32 if t > 0.5 else 1.5 - 2.3 * t, lambda t: min(0.92, 0.5 + 0.8 * t), 20),
        sample=scored(2.0, 0.01, 0.3, 1.0, evaluations=20),
    )  # fmt: skip


def _averaged() -> History:
    return training(
        falling(2.4, 0.3), changes={"optim.ema": 0.999}, val=scored(2.2, 0.7), average=scored(2.4, 0.65, 0.05, 0.81),
    )  # fmt: skip


def _sixteen_bits() -> History:
    history = training(falling(2.4, 0.3), loss_scale=16384.0, val=scored(2.2, 0.7))
    for step in (1, 2, 3, 1800):
        history.observe(Record("skip", step, {"reason": "gradient norm is inf", "keys": [], "in_row": 1}))
    return history


def _smooth() -> History:
    """Without noise: a made-up curve in a table."""
    return table_of(loss=lambda t: 2.3 * 0.8 ** (20 * t - 1) + 0.2, top1=lambda t: 0.1 + 0.6 * t)


def _by_epoch() -> History:
    return table_of(
        loss=falling(2.2, 0.4), val_loss=falling(2.1, 0.8), top1=lambda t: 0.3 + 0.5 * t, val_top1=lambda t: 0.3 + 0.4 * t
    )


HEALTHY: dict[str, Callable[[], History]] = {
    one.__name__.strip("_"): one
    for one in (
        _plain, _first_hundred_steps, _slow_start, _steps_of_the_rate, _small_validation_set, _strong_augmentation,
        _many_classes, _fine_tuning, _constant_rate_still_falling, _warm_up, _learnt_by_heart_and_well, _averaged, _sixteen_bits,
        _smooth, _by_epoch,
    )
}  # fmt: skip


# ---------------------------------------------------------------- tables, and histories of next to nothing


def table_of(
    *,
    loss: Curve | None = None,
    val_loss: Curve | None = None,
    top1: Curve | None = None,
    val_top1: Curve | None = None,
    lr: Curve | None = None,
    epochs: int = 20,
    classes: int | None = 10,
    noise: float = 0.0,
) -> History:
    """A stranger's table, a row for each epoch."""
    history = History(None, classes, is_by_epoch=True)
    draw = np.random.default_rng(0)
    for epoch in range(epochs):
        t = (epoch + 1) / epochs

        def told(curve: Curve | None, place: float = t) -> float | None:
            return curve(place) * math.exp(noise * draw.standard_normal()) if curve is not None else None

        row = {"epoch": epoch, "loss": told(loss), "top1": told(top1), "lr": lr(t) if lr is not None else None}
        history.observe(Record("step", epoch, row))
        if val_loss is not None or val_top1 is not None:
            scores = {"split": "val", "weights": "raw", "epoch": epoch, "loss": told(val_loss), "top1": told(val_top1)}
            history.observe(Record("evaluation", epoch, scores))
    return history


def _few_steps() -> History:
    return training(falling(2.4, 2.0), steps=10, every=5)


def _losses_alone() -> History:
    history = History()
    for step in range(0, 2000, 50):
        history.observe(Record("step", step, {"loss": 2.4 * math.exp(-step / 500) + 0.1}))
    return history


def _rates_alone() -> History:
    history = History()
    for step in range(0, 2000, 50):
        history.observe(Record("step", step, {"lr": 0.1}))
    return history


BARE: dict[str, Callable[[], History]] = {
    "nothing": History,
    "few steps": _few_steps,
    "losses alone": _losses_alone,
    "rates alone": _rates_alone,
}


def asked(rule: Any, history: History) -> Finding | None:
    """What a rule finds; None also where it cannot judge."""
    try:
        found: Finding | None = rule.check(history)
    except NotJudged:
        return None
    return found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`healthy` stands for each of the healthy histories."""
    if "healthy" in metafunc.fixturenames:
        metafunc.parametrize("healthy", [pytest.param(make(), id=label) for label, make in HEALTHY.items()])


@pytest.fixture
def makers() -> Any:
    """This module: `makers.training(…)`, `makers.falling(…)`, `makers.scored(…)`, `makers.table_of(…)`, `makers.asked(…)`."""
    import sys

    return sys.modules[__name__]

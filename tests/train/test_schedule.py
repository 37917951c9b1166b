from __future__ import annotations

import dataclasses
import json
import math
import random
from typing import get_args

import pytest
import torch

from striate.train import schedule
from striate.train.schedule import Plateau

REST = {
    "drop_epochs": (2.0, 3.0),
    "drop_factor": 0.1,
    "drops": 0,
    "decay_factor": 0.94,
    "decay_epochs": 2.0,
    "power": 1.0,
    "restart_epochs": 10.0,
    "restart_factor": 2.0,
    "cycles": 4,
    "inverse_decay": 0.5,
    "final": 0.0,
}


def _share(
    shape: schedule.Shape, step: int, total: int = 8, warmup_steps: int = 0, per_epoch: int = 2, **changes: float
) -> float:
    arguments = {**REST, **changes}
    return schedule.share(
        shape,
        step=step,
        epoch=step / per_epoch,
        progress=step / total,
        warmup_steps=warmup_steps,
        **arguments,  # type: ignore[arg-type]
    )


def _torch_rates(make: object, steps: int) -> list[float]:
    """Rates of a torch scheduler on a peak of 1, one for each step."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer)  # type: ignore[operator]
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_cosine_by_hand() -> None:
    assert [schedule.cosine(progress, 0.0) for progress in (0.0, 0.5, 1.0)] == pytest.approx([1.0, 0.5, 0.0])
    assert schedule.cosine(1 / 3, 0.0) == pytest.approx(0.75)  # cos 60° = 1/2
    assert [schedule.cosine(progress, 0.2) for progress in (0.0, 0.5, 1.0)] == pytest.approx([1.0, 0.6, 0.2])
    assert schedule.cosine(1.5, 0.1) == pytest.approx(0.1)


@pytest.mark.parametrize("final", [0.0, 0.05])
def test_cosine_is_torchs(final: float) -> None:
    theirs = _torch_rates(lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 8, eta_min=final), 9)
    assert [_share("cosine", step, final=final) for step in range(9)] == pytest.approx(theirs)


def test_step_is_torchs() -> None:
    theirs = _torch_rates(lambda optimizer: torch.optim.lr_scheduler.MultiStepLR(optimizer, [4, 6], gamma=0.1), 9)
    assert [_share("step", step) for step in range(9)] == pytest.approx(theirs)
    theirs = _torch_rates(lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 4, gamma=0.5), 12)
    drops = (2.0, 4.0)
    assert [_share("step", step, drop_epochs=drops, drop_factor=0.5) for step in range(12)] == pytest.approx(theirs)  # type: ignore[arg-type]


def test_inverse_time_by_hand() -> None:
    assert [_share("inverse-time", step) for step in (0, 1, 2, 8)] == pytest.approx([1.0, 2 / 3, 0.5, 0.2])


def test_warmup_is_torchs_linear_and_multiplies_the_schedule() -> None:
    theirs = _torch_rates(
        lambda optimizer: torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.25, end_factor=1.0, total_iters=3), 6
    )
    assert [_share("constant", step, warmup_steps=4) for step in range(6)] == pytest.approx(theirs)
    assert [schedule.warmed(step, 0) for step in (0, 5)] == [1.0, 1.0]
    assert _share("cosine", 1, warmup_steps=4) == pytest.approx(0.5 * 0.5 * (1 + math.cos(math.pi / 8)))


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_polynomial_is_torchs(power: float) -> None:
    theirs = _torch_rates(lambda optimizer: torch.optim.lr_scheduler.PolynomialLR(optimizer, 8, power), 11)
    assert [_share("polynomial", step, power=power) for step in range(11)] == pytest.approx(theirs, abs=1e-12)
    assert [_share("polynomial", step, final=0.2) for step in (0, 4, 8, 9)] == pytest.approx([1.0, 0.6, 0.2, 0.2])
    assert _share("polynomial", 1, warmup_steps=4) == pytest.approx(0.5 * 7 / 8)


def test_exponential_is_torchs() -> None:
    """0.94 every two epochs of two steps is the fourth root of 0.94 each step."""
    theirs = _torch_rates(lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.94**0.25), 30)
    assert [_share("exponential", step) for step in range(30)] == pytest.approx(theirs)
    assert _share("exponential", 4) == pytest.approx(0.94)


@pytest.mark.parametrize(("cycle", "factor"), [(5, 1), (3, 2), (2, 3)])
@pytest.mark.parametrize("final", [0.0, 0.05])
def test_cosine_restarts_is_torchs(cycle: int, factor: int, final: float) -> None:
    theirs = _torch_rates(
        lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, cycle, factor, eta_min=final), 60
    )
    changes = {"restart_epochs": cycle / 2, "restart_factor": float(factor), "final": final}
    assert [_share("cosine-restarts", step, **changes) for step in range(60)] == pytest.approx(theirs)


@pytest.mark.parametrize(("cycles", "length"), [(4, 10), (1, 40), (5, 8)])
@pytest.mark.parametrize("final", [0.0, 0.05])
def test_cosine_cycles_is_torchs_restarts_over_the_plan(cycles: int, length: int, final: float) -> None:
    theirs = _torch_rates(
        lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, length, 1, eta_min=final), 40
    )
    found = [_share("cosine-cycles", step, total=40, cycles=cycles, final=final) for step in range(40)]
    assert found == pytest.approx(theirs)
    assert _share("cosine-cycles", 40, total=40, cycles=cycles, final=final) == final  # where the plan ends


def test_a_cycle_is_done_where_its_share_of_the_plan_is() -> None:
    assert [schedule.cycles_done(step / 10, 5) for step in range(11)] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5]
    assert schedule.cycles_done(3 * (1 / 3), 3) == 3 and schedule.cycles_done(1.0, 1) == 1
    assert [schedule.cycles_done(step / 7, 3) for step in range(8)] == [0, 0, 0, 1, 1, 2, 2, 3]
    assert all(schedule.cycles_done(done / 9, 9) == done for done in range(10))


def test_restarts_come_at_their_step_though_epochs_are_rounded() -> None:
    """100 steps an epoch, cycles of 0.1 epochs: 0.3 / 0.1 is less than 3 in floating point."""
    found = [schedule.cosine_restarts(step / 100, 0.1, 1.0, 0.0) for step in range(1000)]
    assert [step for step, share in enumerate(found) if share > 0.999] == list(range(0, 1000, 10))
    found = [schedule.cosine_restarts(step / 100, 0.1, 2.0, 0.0) for step in range(400)]
    assert [step for step in range(1, 400) if found[step] > found[step - 1]] == [10, 30, 70, 150, 310]
    assert [found[step] for step in (10, 30, 70, 150, 310)] == pytest.approx([1.0] * 5)


def test_plateau_is_torchs_one_evaluation_earlier() -> None:
    generator = random.Random(0)
    drops = 0
    for _ in range(200):
        patience = generator.randint(1, 4)
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, mode="max", factor=0.5, patience=patience - 1, threshold=0.0, eps=0.0
        )
        ours = Plateau()
        for _ in range(40):
            top1 = generator.randint(0, 20) / 20  # ties are frequent
            theirs.step(top1)
            ours = ours.seen(top1, patience)
            assert _share("plateau", 7, drops=ours.drops, drop_factor=0.5) == optimizer.param_groups[0]["lr"]
            assert ours.best == theirs.best
        drops += ours.drops
    assert drops > 1000


def test_plateau_by_hand_and_as_json() -> None:
    state = Plateau()
    found = []
    for top1 in (0.0, 0.3, 0.3, 0.2, 0.4, 0.1, 0.1, 0.1, 0.1):
        state = state.seen(top1, 2)
        found.append((state.stale, state.drops))
    assert found == [(0, 0), (0, 0), (1, 0), (0, 1), (0, 1), (1, 1), (0, 2), (1, 2), (0, 3)]
    assert state.best == 0.4
    for one in (Plateau(), state):
        assert Plateau(**json.loads(json.dumps(dataclasses.asdict(one), allow_nan=False))) == one


def test_a_plateau_that_stops_at_its_first_drop_is_early_stopping() -> None:
    stop, ended = Plateau(), None
    for evaluation, top1 in enumerate([0.1, 0.2, 0.2, 0.3, 0.1, 0.1, 0.1, 0.4]):
        stop = stop.seen(top1, 3)
        if stop.drops and ended is None:
            ended = evaluation
    assert ended == 6


def test_every_schedule_starts_at_the_peak_and_never_leaves_0_to_1() -> None:
    for shape in get_args(schedule.Shape):
        found = [_share(shape, step) for step in range(12)]
        assert found[0] == 1.0
        assert all(0.0 <= share <= 1.0 for share in found)
        assert _share(shape, 0, warmup_steps=5) == pytest.approx(0.2)


def test_only_cosine_its_cycles_and_polynomial_end_with_the_budget() -> None:
    assert [shape for shape in get_args(schedule.Shape) if schedule.ends(shape)] == ["polynomial", "cosine", "cosine-cycles"]
    for shape in get_args(schedule.Shape):
        assert (_share(shape, 8) == 0.0) == schedule.ends(shape)


def test_peak_by_hand_and_in_words() -> None:
    assert schedule.peak(0.1, "none", 128, 256) == 0.1
    assert schedule.peak(0.1, "linear", 8192, 256) == pytest.approx(3.2)  # Goyal et al. 2017, section 5
    assert schedule.peak(0.1, "square-root", 1024, 256) == pytest.approx(0.2)
    assert schedule.peak_in_words(0.1, "linear", 128, 256) == "--lr 0.1 stated for a batch of 256, linear scaling: 0.05 for 128."
    assert schedule.peak_in_words(0.1, "square-root", 64, 256).endswith("square-root scaling: 0.05 for 64.")
    assert schedule.peak_in_words(0.1, "none", 64, 256) == "--lr 0.1 for a batch of 64, not scaled."

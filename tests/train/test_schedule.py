from __future__ import annotations

import math

import pytest
import torch

from striate.train import schedule

REST = {"drop_epochs": (2.0, 3.0), "drop_factor": 0.1, "inverse_decay": 0.5, "final": 0.0}


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


def test_only_cosine_ends_with_the_budget() -> None:
    shapes: tuple[schedule.Shape, ...] = ("constant", "step", "cosine", "inverse-time")
    assert [shape for shape in shapes if schedule.ends(shape)] == ["cosine"]

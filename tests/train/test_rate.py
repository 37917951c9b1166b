"""The rate of a recipe beside hand-worked numbers: 8 steps, 2 to an epoch."""

from __future__ import annotations

import pytest

from striate.recipe import OptimGroup
from striate.train import rate


def _shares(o: OptimGroup, steps: tuple[int, ...], warmup_steps: int = 0, drops: int = 0) -> list[float]:
    return [rate.share(o, step=step, epoch=step / 2, progress=step / 8, warmup_steps=warmup_steps, drops=drops) for step in steps]


def test_a_cosine_is_half_way_at_half_of_the_plan() -> None:
    assert _shares(OptimGroup(schedule="cosine"), (0, 4, 8)) == pytest.approx([1.0, 0.5, 0.0])
    assert _shares(OptimGroup(schedule="cosine", final_lr=0.2), (0, 4, 8)) == pytest.approx([1.0, 0.6, 0.2])


def test_drops_count_in_epochs() -> None:
    o = OptimGroup(schedule="step", drop_epochs=(2.0, 3.0), drop_factor=0.5)
    assert _shares(o, (0, 3, 4, 5, 6, 8)) == pytest.approx([1.0, 1.0, 0.5, 0.5, 0.25, 0.25])


def test_drops_of_a_plateau_are_told() -> None:
    assert _shares(OptimGroup(schedule="plateau", drop_factor=0.3), (7,), drops=2) == pytest.approx([0.09])


def test_a_warm_up_multiplies_what_the_schedule_has() -> None:
    assert _shares(OptimGroup(schedule="constant"), (0, 1, 3, 4), warmup_steps=4) == pytest.approx([0.25, 0.5, 1.0, 1.0])
    o = OptimGroup(schedule="polynomial", power=1.0)
    assert _shares(o, (0, 1, 4), warmup_steps=2) == pytest.approx([0.5, 0.875, 0.5])


def test_other_schedules_get_their_own_fields() -> None:
    o = OptimGroup(schedule="exponential", decay_factor=0.5, decay_epochs=1.0)
    assert _shares(o, (0, 2, 4)) == pytest.approx([1.0, 0.5, 0.25])
    assert _shares(OptimGroup(schedule="inverse-time", inverse_decay=0.5), (0, 2, 8)) == pytest.approx([1.0, 0.5, 0.2])
    assert _shares(OptimGroup(schedule="cosine-cycles", cycles=2), (0, 2, 4, 6)) == pytest.approx([1.0, 0.5, 1.0, 0.5])
    o = OptimGroup(schedule="cosine-restarts", restart_epochs=1.0, restart_factor=2.0)
    assert _shares(o, (0, 1, 2, 4)) == pytest.approx([1.0, 0.5, 1.0, 0.5])


def test_a_schedule_ends_where_the_averaging_begins() -> None:
    """With swa_from at half, the cosine is half way down to swa_lr at a quarter of the plan, and stays there from half on."""
    o = OptimGroup(schedule="cosine", swa_from=0.5, swa_lr=0.2, final_lr=0.9)
    assert _shares(o, (0, 2, 4, 6, 8)) == pytest.approx([1.0, 0.6, 0.2, 0.2, 0.2])
    o = OptimGroup(schedule="constant", swa_from=0.75, swa_lr=0.3)
    assert _shares(o, (0, 5, 6, 8)) == pytest.approx([1.0, 1.0, 0.3, 0.3])


@pytest.mark.parametrize(("scaling", "peak"), [("none", 0.1), ("linear", 0.4), ("square-root", 0.2)])
def test_the_peak_counts_the_scaling_in(scaling: str, peak: float) -> None:
    o = OptimGroup(lr=0.1, lr_scaling=scaling, batch_size=1024, lr_batch_size=256)  # type: ignore[arg-type]
    assert rate.peak(o) == pytest.approx(peak)

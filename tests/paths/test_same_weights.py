"""What must not change the weights: who reads the images, whether they stay in memory, how often they are scored."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def one_epoch(sit: Any) -> Any:
    """A training of one epoch, scored only at its end."""
    return lambda name, **changes: sit(name, **{"budget__epochs": 1.0, "budget__evaluate_epochs": 100.0, **changes})


def test_t13_worker_counts_and_kinds_give_the_same_weights(one_epoch: Any) -> None:
    alone = one_epoch("alone")
    for workers in ("2", "processes:2"):
        other = one_epoch(f"with-{workers.replace(':', '-')}", workers=workers)
        assert other.differences(alone) == []


def test_images_in_memory_give_the_same_weights(one_epoch: Any) -> None:
    found = one_epoch("memory", data__resident="yes").differences(one_epoch("files"))
    assert [what for what in found if not what.startswith("state recipe")] == []


def test_e04_evaluating_at_every_step_gives_the_same_weights_as_never(one_epoch: Any) -> None:
    often, seldom = one_epoch("often", budget__evaluate_epochs=0.01), one_epoch("seldom")
    assert [record.step for record in often.records if record.kind == "evaluation"] == [1] * 3 + [2] * 3 + [3] * 3 + [4] * 3
    found = often.differences(seldom)
    assert not [what for what in found if what.startswith(("model", "optimizer", "ema"))]


def test_another_seed_gives_other_weights(one_epoch: Any) -> None:
    assert one_epoch("first").differences(one_epoch("second", optim__seed=1)) != []


def test_saving_often_gives_the_same_weights(one_epoch: Any) -> None:
    often = one_epoch("often", budget__save_every_s=1e-6)
    assert [record.step for record in often.records if record.kind == "checkpoint"] == [0, 1, 2, 3, 4]
    found = often.differences(one_epoch("once"))
    assert [what for what in found if not what.startswith("state recipe")] == []

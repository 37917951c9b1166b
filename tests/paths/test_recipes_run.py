"""Published recipes start, run 20 steps at reduced size, and go on where they were stopped.

Three small ones; all of them: benchmarks/recipes.py.
"""

from __future__ import annotations

import math
import runpy
from pathlib import Path
from typing import Any

import pytest

from striate import recipe as recipes
from striate.recipes import catalog
from striate.run.log import Record
from striate.train.budget import Stop

CAMPAIGN = runpy.run_path(str(Path(__file__).resolve().parents[2] / "benchmarks" / "recipes.py"))


def reduced(name: str, **more: Any) -> dict[str, Any]:
    """The campaign's changes, smaller still, as `sit` takes them."""
    changes = {field.replace(".", "__"): value for field, value in CAMPAIGN["reduced"](name).items()}
    changes |= {"optim__batch_size": 2, "optim__precision": "fp32", "budget__log_every": 10, "budget__evaluate_epochs": 9.0}
    return changes | more


@pytest.mark.parametrize(
    ("name", "heads", "more"),
    [
        ("kth-f", ["main"], {}),
        ("all-cnn-2014", ["main"], {}),
        ("googlenet-2014", ["main", "aux_logits2", "aux_logits1"], {"data__size_px": 32}),
    ],
)
def test_a_recipe_runs_and_resumes(sit: Any, name: str, heads: list[str], more: dict[str, Any]) -> None:
    changes = reduced(name, **more)
    stop = Stop()

    def stop_half_way(record: Record) -> None:
        if record.kind == "step" and record.step == 10:
            stop.request("SIGTERM")

    whole = sit("whole", recipe=name, **changes)
    cut = sit("cut", stop, on=stop_half_way, recipe=name, **changes)
    assert (whole.exit_code, whole.last.step, cut.exit_code, cut.last.step) == (0, 20, 75, 10)
    assert sit("cut", recipe=name, **changes).differences(whole) == []
    losses = [record.values["losses"] for record in whole.records if record.kind == "step"]
    assert len(losses) == 3 and all(list(one) == heads for one in losses)
    assert all(math.isfinite(loss) for one in losses for loss in one.values())


@pytest.mark.parametrize("name", list(catalog.RECIPES))
def test_the_campaign_can_make_every_recipe_small(name: str) -> None:
    small = recipes.check(recipes.change(catalog.find(name), CAMPAIGN["reduced"](name)))
    assert (small.budget.steps, small.optim.batch_size, small.data.size_px <= 64) == (20, 8, True)

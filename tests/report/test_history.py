"""Curves from the log: what counts, where it stands, and what is missing."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from striate.report.history import Curve, binned, history
from striate.run import log


def _steps(*values: tuple[int, float | None]) -> list[dict[str, object]]:
    return [{"kind": "step", "step": step, "epoch": step / 10, "loss": loss} for step, loss in values]


def test_resume_replaces_what_was_run_again(tmp_path: Path) -> None:
    lines = [*_steps((10, 3.0), (20, 2.0), (30, 9.0)), {"kind": "resume", "step": 20}, *_steps((30, 1.0))]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, lines)) + '\n{"kind": "st')
    past = history(log.read(tmp_path / "log.jsonl"))
    curve = past.curve("step", "loss")
    assert curve.y_N.tolist() == [3.0, 2.0, 1.0]
    assert curve.x_N.tolist() == [1.0, 2.0, 3.0]
    assert past.places("resume") == [2.0]


def test_evaluation_stands_at_its_step_in_epochs() -> None:
    past = history(
        [*_steps((10, 1.0), (20, 1.0)), {"kind": "evaluation", "step": 15, "split": "val", "weights": "raw", "top1": 0.5}]
    )
    assert past.unit == "epochs"
    assert past.curve("evaluation", "top1", split="val", weights="raw").x_N.tolist() == [1.5]
    assert not past.curve("evaluation", "top1", split="val", weights="EMA")
    assert past.place(40) == 4.0  # beyond the last line the pace goes on


def test_without_epochs_the_axis_counts_steps() -> None:
    past = history([{"kind": "step", "step": 7, "loss": 1.0}])
    assert (past.unit, past.place(7)) == ("steps", 7)


def test_missing_value_is_a_gap_and_no_zero() -> None:
    curve = history(_steps((10, 1.0), (20, None), (30, 2.0))).curve("step", "loss")
    assert math.isnan(curve.y_N[1])


def test_heads_have_curves_of_their_own() -> None:
    steps = _steps((10, 1.6), (20, 1.3))
    for line, main in zip(steps, (1.0, 0.7), strict=True):
        line["losses"] = {"main": main, "aux1": 2.0}
    past = history(steps)
    assert past.heads == ("main", "aux1")
    assert past.curve("step", "losses/main").y_N.tolist() == [1.0, 0.7]
    assert history([line | {"losses": {"main": 1.0}} for line in steps]).heads == ()


def test_bins_keep_mean_and_extremes() -> None:
    y_N = np.arange(300.0) % 3
    none_N = np.full(300, np.nan)
    short = binned(Curve(np.arange(300.0), y_N, none_N, none_N), most=100)
    assert len(short.y_N) == 100
    np.testing.assert_allclose(short.y_N.mean(), 1.0)
    assert (short.low_N.min(), short.high_N.max()) == (0.0, 2.0)


def test_few_points_stay_as_they_are() -> None:
    curve = history(_steps(*((step, 1.0) for step in range(1, 20)))).curve("step", "loss")
    assert binned(curve) is curve


def test_example_log_reads_as_one_story(tmp_path: Path, make_run: Callable[..., Path]) -> None:
    past = history(log.read(make_run(tmp_path / "run") / "log.jsonl"))
    steps = [line["step"] for line in past.of("step")]
    assert steps == sorted(set(steps)) == list(range(2, 601, 2))

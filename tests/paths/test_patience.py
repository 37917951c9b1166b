"""Evaluations that bring nothing better: the rate that falls on a plateau, and the end that comes early."""

from __future__ import annotations

from typing import Any

from striate.files import read_json
from striate.run.log import Record
from striate.train.budget import Stop

# So slow that no evaluation differs from the first; one evaluation for each of the four steps of an epoch.
STILL: dict[str, Any] = {
    "model__name": "path_networks:plain",
    "optim__lr": 1e-12,
    "optim__ema": 0.0,
    "optim__warmup_epochs": 0.0,
    "budget__evaluate_epochs": 0.25,
}


def rates(records: list[Record]) -> list[float]:
    return [record.values["lr"] / 1e-12 for record in records if record.kind == "step"]


def test_patience_ends_the_training_after_so_many_evaluations_without_a_better_one(sit: Any) -> None:
    end = sit("x", budget__patience=3, budget__epochs=5.0, **STILL)
    last = end.records[-1]
    assert (last.kind, last.step, last.values["exit_code"]) == ("end", 4, 0)  # the first is the best, and three more
    assert last.values["reason"] == "no better top-1 in 3 evaluations (--patience)"
    assert [record.step for record in end.records if record.kind == "evaluation" and record.values["split"] == "val"] == [
        1,
        2,
        3,
        4,
    ]
    assert end.last.step == 4 and read_json(end.run.path / "best.json")["step"] == 1
    again = sit("x", budget__patience=3, budget__epochs=5.0, **STILL)
    assert [record.kind for record in again.records if record.kind in {"step", "evaluation", "end"}] == ["end"]


def test_patience_counts_on_over_sittings(sit: Any) -> None:
    def at(step: int) -> dict[str, Any]:
        stop = Stop()

        def watch(record: Record) -> None:
            if record.kind == "step" and record.step == step:
                stop.request("asked")

        return {"stop": stop, "on": watch}

    whole = sit("whole", budget__patience=4, budget__epochs=5.0, **STILL)
    for step in (1, 2, 4):
        assert sit("parts", budget__patience=4, budget__epochs=5.0, **at(step), **STILL).exit_code == 75
    parts = sit("parts", budget__patience=4, budget__epochs=5.0, **STILL)
    assert parts.records[-1].step == whole.records[-1].step == 5
    assert parts.differences(whole) == []


def test_a_better_evaluation_starts_the_count_anew(sit: Any) -> None:
    end = sit("x", budget__patience=2, budget__epochs=3.0, budget__evaluate_epochs=0.25, optim__ema=0.0)
    top1 = [record.values["top1"] for record in end.records if record.kind == "evaluation" and record.values["split"] == "val"]
    best = max(range(len(top1)), key=lambda place: (top1[place], -place))
    waited = [place for place in range(2, len(top1)) if max(top1[: place - 1]) >= max(top1[place - 1 : place + 1])]
    expected = waited[0] if waited else len(top1) - 1
    assert len(top1) - 1 == expected
    assert best <= expected


def test_the_rate_falls_on_a_plateau_and_goes_on_falling_after_a_resume(sit: Any) -> None:
    plateau: dict[str, Any] = {
        "optim__schedule": "plateau",
        "optim__plateau": 2,
        "optim__drop_factor": 0.1,
        "budget__epochs": 2.0,
    }
    whole = sit("whole", **plateau, **STILL)
    # Evaluation 1 is the best; 2 and 3 are not better, so step 4 is the first of the lower rate; then after 5.
    assert [round(rate, 6) for rate in rates(whole.records)] == [1.0, 1.0, 1.0, 0.1, 0.1, 0.01, 0.01, 0.001]
    stop = Stop()

    def watch(record: Record) -> None:
        if record.kind == "step" and record.step == 4:
            stop.request("asked")

    first = sit("parts", stop=stop, on=watch, **plateau, **STILL)
    second = sit("parts", **plateau, **STILL)
    assert [round(rate, 6) for rate in rates(first.records) + rates(second.records)] == [
        round(rate, 6) for rate in rates(whole.records)
    ]
    assert second.differences(whole) == []


def test_a_training_that_ended_early_goes_on_with_a_longer_budget(sit: Any) -> None:
    first = sit("x", budget__patience=2, budget__epochs=3.0, **STILL)
    assert first.records[-1].step == 3
    longer = sit("x", budget__patience=2, budget__epochs=5.0, override=("budget.epochs",), **STILL)
    assert longer.records[-1].step == 5  # two more evaluations without a better one
    assert longer.records[-1].values["reason"] == "no better top-1 in 2 evaluations (--patience)"
    again = sit("x", budget__patience=2, budget__epochs=5.0, **STILL)
    assert not [record for record in again.records if record.kind == "step" or "laid anew" in str(record.values.get("text"))]

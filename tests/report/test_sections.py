"""What the page says: result, state, recipe and commands, in words and numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from striate.files import write_json
from striate.report import sections
from striate.report.charts import lay_out
from striate.report.gather import gather
from striate.run import log


@pytest.fixture
def run(tmp_path: Path, make_run: Callable[..., Path]) -> Path:
    return make_run(tmp_path / "run", images=12)


def _end(run: Path, **values: Any) -> None:
    lines = [line for line in (run / "log.jsonl").read_text().splitlines() if '"kind": "end"' not in line]
    (run / "log.jsonl").write_text("\n".join([*lines, *([json.dumps({"kind": "end", "step": 300, **values})] if values else [])]))


def test_recipe_fields_say_where_they_come_from(run: Path) -> None:
    facts = gather(run)
    origin = {f"{group}.{one.name}": one.origin for group, settings in sections.recipe_groups(facts) for one in settings}
    assert {name for name, where in origin.items() if where == "typed"} == {"optim.lr", "budget.epochs", "optim.ema"}
    assert {name for name, where in origin.items() if where == "recipe"} == {"model.name", "model.options.stem", "loss.smoothing"}
    assert origin["optim.momentum"] == "default"
    assert "budget.steps" not in origin  # it has no value
    assert sections.recipe_base(facts) == "small"


def test_recipe_without_what_was_typed(run: Path) -> None:
    recipe = json.loads((run / "recipe.json").read_text())
    del recipe["_typed"]
    write_json(run / "recipe.json", recipe)
    origins = {one.origin for _, settings in sections.recipe_groups(gather(run)) for one in settings}
    assert origins == {"recipe", "default"}


def test_remarks_of_the_training_are_kept(run: Path) -> None:
    assert sections.notes(gather(run)) == ["6 of 12,000 training images are grey; they become three equal channels."]


@pytest.mark.parametrize(
    ("end", "kind", "words"),
    [
        ({"reason": "done", "exit_code": 0}, "done", "The training is done."),
        (
            {"reason": "no better top-1 in 2 evaluations (--patience)", "exit_code": 0},
            "done",
            "The training ended early: no better top-1 in 2 evaluations (--patience).",
        ),
        ({"reason": "SIGTERM", "exit_code": 75}, "saved", "Saved, to be continued (SIGTERM). The same command goes on."),
        ({"reason": "10 non-finite steps in a row", "exit_code": 5}, "stopped", "Stopped: 10 non-finite steps in a row."),
        ({}, "open", "The log has no end: the training is running, or was killed. The same command goes on."),
    ],
)
def test_state(run: Path, end: dict[str, Any], kind: str, words: str) -> None:
    _end(run, **end)
    state = sections.state(gather(run))
    assert (state.kind, state.words) == (kind, words)


def test_headline_is_the_summary(run: Path) -> None:
    summary = json.loads(next(run.glob("evaluation/*/summary.json")).read_text())
    headline = sections.headline(gather(run))
    assert (headline.top1, headline.interval, headline.protocol) == (
        summary["top1"],
        tuple(summary["top1_interval"]),
        summary["protocol"],
    )
    assert headline.chance == 1 / 12


def test_headline_prefers_one_view_of_the_validation_set(run: Path) -> None:
    for name, top1 in (("val-10crop-ffffff", 0.99), ("test-center-ffffff", 0.98)):
        (run / "evaluation" / name).mkdir()
        write_json(run / "evaluation" / name / "summary.json", {"top1": top1})
    main = gather(run).main
    assert main is not None
    assert main.folder.name == "val-center-0a1b2c"


def test_top5_of_five_classes_is_left_out(tmp_path: Path, make_run: Callable[..., Path]) -> None:
    charts = sections.curves(gather(make_run(tmp_path / "five", classes=5, images=12)))
    assert [chart.slug for chart in charts] == ["loss", "top1", "learning-rate", "images-per-s", "waiting"]


def test_of_several_heads_the_main_one_stands_beside_validation(run: Path) -> None:
    lines = log.read(run / "log.jsonl")
    for line in lines:
        if line["kind"] == "step":
            line["losses"] = {"main": (line["loss"] or 8.0) / 2, "aux2": 3.0, "aux1": 4.0}
    (run / "log.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    facts = gather(run)
    charts = {chart.slug: chart for chart in sections.curves(facts)}
    assert list(charts)[:2] == ["loss", "heads"]
    assert [one.name for one in charts["heads"].series] == ["main", "aux2", "aux1"]
    main, aux2, aux1 = (one.curve.y_N for one in charts["heads"].series)
    assert set(aux2) == {3.0} and set(aux1) == {4.0}
    assert charts["loss"].series[0].name == "train batches" and (charts["loss"].series[0].curve.y_N == main).all()
    drawn = [lay_out(chart) for chart in charts.values()]
    assert any("what is minimised adds 0.3 times that of each other head" in note for note in sections.curve_notes(facts, drawn))


def test_raw_and_ema_are_told_apart(run: Path) -> None:
    top1 = next(chart for chart in sections.curves(gather(run)) if chart.slug == "top1")
    assert [(one.name, one.look) for one in top1.series] == [
        ("train batches", "train"),
        ("train sample", "sample"),
        ("val", "val"),
        ("val, EMA", "ema"),
    ]


@pytest.mark.parametrize(("value_s", "words"), [(None, ""), (8.25, "8.25 s"), (252.3, "4 min 12 s"), (7500, "2 h 05 min")])
def test_duration(value_s: float | None, words: str) -> None:
    assert sections.duration(value_s) == words


def test_commands_are_quoted(tmp_path: Path, make_run: Callable[..., Path]) -> None:
    run = make_run(tmp_path / "my run", images=12)
    commands = [command for _, command in sections.commands(gather(run))]
    assert commands[0].startswith("striate train 'my photos' --recipe small")
    assert f"striate evaluate '{run}'" in commands


def test_steps_are_told_with_their_plan(run: Path) -> None:
    assert ("Steps", "600 of 600") in sections.state(gather(run)).facts

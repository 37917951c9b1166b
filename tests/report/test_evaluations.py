"""The table of all evaluations, and which of them the page is about."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from striate.files import write_json
from striate.report import evaluations, sections
from striate.report.gather import gather
from striate.report.write import write_report

MAIN = "val-center-0a1b2c"
MEMBERS = "run (1 view, EMA weights of step-570), other <b> (center, raw weights of step-9)"


@pytest.fixture
def run(tmp_path: Path, make_run: Callable[..., Path]) -> Path:
    folder = make_run(tmp_path / "run", images=12)
    write_json(folder / "best.json", {"step": 570, "checkpoint": "step-570", "weights": "EMA", "top1": 0.9})
    _change(folder, MAIN, checkpoint="step-570", data_fingerprint="f" * 64)
    data = json.loads((folder / "data.json").read_text())
    data["splits"]["val"]["fingerprint"] = "f" * 64
    write_json(folder / "data.json", data)
    os.utime(folder / "evaluation" / MAIN / "summary.json", (1_000_000, 1_000_000))  # the oldest of all
    return folder


def _change(run: Path, name: str, **values: Any) -> None:
    path = run / "evaluation" / name / "summary.json"
    write_json(path, {**json.loads(path.read_text()), **values})


def _add(run: Path, name: str, **values: Any) -> None:
    """Another evaluation, newer than the main one, with other values in its summary."""
    (run / "evaluation" / name).mkdir()
    summary = json.loads((run / "evaluation" / MAIN / "summary.json").read_text())
    write_json(run / "evaluation" / name / "summary.json", {**summary, **values})


@pytest.mark.parametrize(
    "values",
    [
        {"views": "10crop", "looking": "10 crops"},
        {"labels": "ReaL"},
        {"answered_by": f"mean probability of 2 members: {MEMBERS}", "views": "arithmetic"},
        {"answered_by": f"mean probability of 2 members: {MEMBERS}"},  # whatever its views are called
        {"routing": "grey images by another", "routed": {"grey": 3, "colour": 5}},
        {"data_fingerprint": "e" * 64},
        {"split": "test"},
        {"checkpoint": "step-600"},
        {"weights": "raw"},
    ],
    ids=str,
)
def test_a_newer_evaluation_of_another_kind_does_not_take_the_headline(run: Path, values: dict[str, Any]) -> None:
    _add(run, "val-other-ffffff", top1=0.999, **values)
    facts = gather(run)
    assert facts.main is not None and facts.main.folder.name == MAIN
    assert sections.headline(facts).top1 != 0.999


def test_of_equal_evaluations_the_newest_has_the_headline(run: Path) -> None:
    _add(run, "val-center-ffffff", top1=0.5)
    assert sections.headline(gather(run)).top1 == 0.5


def test_without_the_best_checkpoint_any_one_network_goes_before_an_ensemble(run: Path) -> None:
    _change(run, MAIN, checkpoint="step-30", weights="raw")
    _add(run, "val-arithmetic-ffffff", answered_by=f"mean probability of 2 members: {MEMBERS}", checkpoint="", weights="raw")
    main = gather(run).main
    assert main is not None and main.folder.name == MAIN


def test_lines_stand_side_by_side(run: Path) -> None:
    _add(run, "test-center-ffffff", split="test")
    _add(run, "val-arithmetic-ffffff", answered_by=f"mean probability of 2 members: {MEMBERS}", views="arithmetic", weights="raw")
    _add(run, "val-center-aaaaaa", checkpoint="step-1000")
    _add(run, "val-center-bbbbbb", checkpoint="step-90")
    _add(
        run, "val-10crop-cccccc", views="10crop", looking="10 crops, probabilities averaged", top1=0.75, top1_interval=[0.7, 0.8]
    )
    _add(run, "val-center-0a1b2c-by-dddddd", labels="ReaL")
    rows = evaluations.rows(gather(run))
    assert [row.name for row in rows] == [
        MAIN,
        "val-center-bbbbbb",
        "val-10crop-cccccc",
        "val-center-aaaaaa",
        "val-center-0a1b2c-by-dddddd",
        "val-arithmetic-ffffff",
        "test-center-ffffff",
    ]
    assert [row.is_main for row in rows] == [True] + 6 * [False]
    crops = rows[2]
    assert (crops.looking, crops.top1, crops.interval) == ("10 crops, probabilities averaged", 0.75, (0.7, 0.8))
    assert (rows[0].looking, rows[0].labels, rows[0].weights, rows[0].checkpoint) == ("1 view", "original", "EMA", "step-570")
    assert rows[4].labels == "ReaL"
    # An ensemble has members; weights and checkpoint would be those of one network.
    together = rows[5]
    assert (together.looking, together.members) == ("mean probability of 2 members", MEMBERS)
    assert (together.weights, together.checkpoint) == ("", "")


def test_what_forbids_a_comparison_is_said(run: Path) -> None:
    assert evaluations.notes(gather(run)) == []
    _add(run, "val-flip-ffffff", views="flip")
    assert evaluations.notes(gather(run)) == []
    _add(run, "val-center-eeeeee", data_fingerprint="e" * 64, used=7)
    _add(run, "val-center-dddddd", labels="ReaL")
    images, sets, labels = evaluations.notes(gather(run))
    assert "scored the same images" in images
    assert "Two data sets have a split of the same name" in sets
    assert "by the same labels" in labels


def test_page_shows_members_intervals_and_protocols(run: Path) -> None:
    _add(
        run,
        "val-arithmetic-ffffff",
        answered_by=f"mean probability of 2 members: {MEMBERS}",
        labels="<i>ReaL</i>",
        top1=0.875,
        top1_interval=[0.8, 0.95],
        protocol="val split, <u>all</u> of it",
    )
    section = write_report(run).read_text().split('<section id="evaluations">')[1].split("</section>")[0]
    assert "mean probability of 2 members" in section and "other &lt;b&gt; (center" in section
    assert "87.5\u202f%" in section and "80.0 to 95.0\u202f%" in section
    assert "&lt;i&gt;ReaL&lt;/i&gt;" in section and "val split, &lt;u&gt;all&lt;/u&gt; of it" in section
    assert "<i>" not in section and "<u>" not in section and "<b>" not in section
    assert section.count("this page") == 1


def test_by_other_labels_no_mistake_is_shown_by_the_data_sets_own(run: Path) -> None:
    _change(run, MAIN, labels="ReaL")
    page = write_report(run).read_text()
    assert "was scored by ReaL labels" in page
    assert '<ul class="mistakes">' not in page
    assert "Confusion matrix" in page  # of confusion.csv, which counts by the labels that were scored


@pytest.mark.parametrize("value", [None, [], {}, "text", -1, [1], ["a", "b"], float("nan"), True])
def test_odd_values_leave_a_cell_empty(run: Path, value: Any) -> None:
    names = ("top1", "top1_interval", "top5", "top5_k", "loss", "used", "expected", "checkpoint", "weights", "labels", "looking")
    _add(run, "val-flip-ffffff", **dict.fromkeys((*names, "answered_by", "protocol", "data_fingerprint", "split"), value))
    facts = gather(run)
    row = next(row for row in evaluations.rows(facts) if row.name == "val-flip-ffffff")
    assert row.interval is None and row.top1 in (None, -1)
    assert "All evaluations" in write_report(run).read_text()

"""The findings on the page: geometry of the small plots, and what a reader finds there."""

from __future__ import annotations

import json
import math

import pytest

from striate.doctor.finding import Cause, Curve, Finding, Remedy
from striate.report import diagnosis
from striate.report.gather import Facts


def curve(**parts) -> Curve:
    values = {"x": [1.0, 10.0, 100.0], "lines": {"loss": [1.0, 0.1, 0.01]}} | parts
    return Curve("Loss", "rate", "nats", **values)


def test_points_lie_where_their_values_are():
    drawn = diagnosis.plot(curve(is_log=True, is_log_x=True, mark=(10.0, "here")))
    (_, _, path, dots) = drawn.lines[0]
    assert [x for x, _ in dots] == [drawn.left, (drawn.left + drawn.right) / 2, drawn.right]
    assert dots[0][1] < dots[1][1] < dots[2][1]
    assert dots[1][1] == pytest.approx((dots[0][1] + dots[2][1]) / 2, abs=0.2)
    assert path.startswith("M") and path.count("L") == 2
    assert drawn.mark == (dots[1][0], "here")


def test_missing_values_are_gaps_and_text_for_infinite_is_no_number():
    drawn = diagnosis.plot(curve(lines={"loss": [1.0, None, 3.0]}))
    assert drawn.lines[0][2].count("M") == 2
    assert diagnosis.plot(curve(lines={"loss": ["inf", math.nan, 3.0]})) is not None
    assert diagnosis.plot(curve(lines={"loss": [None, None, None]})) is None
    assert diagnosis.plot(curve(x=["a"], lines={"loss": [1.0]})) is None


def test_names_stand_under_a_plot_by_depth():
    names, values = [f"layer{i}" for i in range(30)], [10.0**-i for i in range(30)]
    drawn = diagnosis.plot(curve(x=names, lines={"spread": values}, is_log=True))
    assert (drawn.x_ticks[0][1], drawn.x_ticks[-1][1]) == ("layer0", "layer29")
    assert len(drawn.x_ticks) == 4


def test_findings_of_another_form_are_shown_as_they_stand(tmp_path):
    causes, remedies = (Cause("gates", 0.5, "half"),), (Remedy("Open.", {"optim.lr": 0.1}),)
    one = Finding("x", "error", "It is.", {"a": 1.0}, causes, remedies, "here", curve=curve())
    plain = json.loads(json.dumps(one.to_json()))
    facts = Facts(tmp_path, findings=[plain, {"odd_name": 3}, "text"], checked={"x": "a", "y": "b"})
    shown = diagnosis.diagnosis(facts)
    assert shown.findings[0].causes[0][1:] == (50, "half") and shown.findings[0].remedies == [("Open.", "--optim.lr 0.1")]
    assert shown.foreign == [[("odd name", "3")], [("finding", "text")]]
    assert shown.in_order == ["b"]

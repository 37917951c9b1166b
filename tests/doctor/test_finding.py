"""Findings: order, consequences, flags, and the way through JSON."""

from __future__ import annotations

import json
import math

import pytest

from striate import recipe as recipes
from striate.doctor import catalog, page
from striate.doctor.finding import CAUSES, EXPLAINS, Cause, Curve, Finding, Remedy, ranked
from striate.errors import CheckpointError


def finding(code: str, severity: str = "warning", **parts) -> Finding:
    values = {
        "sentence": f"{code} it is.",
        "evidence": {"loss": 1.5},
        "causes": (Cause("learning-rate-low", 0.2, "slow"), Cause("initialisation", 0.8, "small")),
        "remedies": (Remedy("Do it.", {"optim.lr": 0.01, "optim.nesterov": False, "augment.scale": [0.3, 1.0]}),),
        "source": "here",
    }
    return Finding(code, severity, **(values | parts))


def test_the_likeliest_cause_is_first():
    assert finding("x").cause == "initialisation"


def test_errors_come_before_warnings_and_causes_before_consequences():
    found = ranked([finding("a", "note"), finding("one-batch", "error"), finding("b"), finding("constant-function", "error")])
    assert [one.code for one in found] == ["constant-function", "b", "a", "one-batch"]
    follower = next(one for one in found if one.code == "one-batch")
    assert follower.severity == "note" and follower.follows == "constant-function"


def test_a_consequence_alone_keeps_its_severity():
    assert ranked([finding("one-batch", "error")])[0].severity == "error"


def test_what_explains_and_is_explained_are_rules():
    known = {*catalog.BEFORE, *catalog.DURING, *catalog.PREDICTED, "weak-signal", "exploding-gradient", "saturated-units"}
    known |= {"batch-norm-batch"}
    assert set(EXPLAINS) <= known
    assert {code for codes in EXPLAINS.values() for code in codes} <= known


def test_flags_are_what_the_command_line_takes():
    flags = finding("x").remedies[0].flags
    assert flags == "--optim.lr 0.01 --optim.no-nesterov --augment.scale 0.3 1"
    assert Remedy("", {"model.options.gate_bias": 4.0}).flags == "--model.options.gate_bias 4"
    assert Remedy("", {"data.size_px": 64}).flags == "--data.size-px 64"


def test_through_json_and_back():
    curve = Curve("t", "x", "y", [1.0, 2.0], {"a": [1.0, None]}, is_log=True, mark=(2.0, "here"))
    one = finding("x", curve=curve, layer="conv1", evidence={"a": math.inf, "b": [1, 2], "c": {"d": math.nan}})
    plain = json.loads(json.dumps(one.to_json(), allow_nan=False))
    again = Finding.from_json(plain, "file")
    assert again.to_json() == plain
    assert again.curve.mark == (2.0, "here") and again.cause == "initialisation"


@pytest.mark.parametrize("spoil", [{"causes": 3}, {"causes": [{"name": "unheard", "weight": 1, "because": ""}]}, {"extra": 1}])
def test_a_damaged_finding_names_the_file(spoil):
    with pytest.raises(CheckpointError, match=r"findings\.json"):
        Finding.from_json(finding("x").to_json() | spoil, "findings.json")


def test_every_cause_has_words_and_the_page_shows_them():
    text = "\n".join(page.lines([finding("x", "error")], ["the first loss"], {"plan": "no time left"}))
    assert CAUSES["initialisation"] in text.replace("\n           ", " ")
    assert "Checked and in order: the first loss." in text and "Not checked: plan (no time left)." in text
    assert "--optim.lr 0.01" in text


def test_silence_is_an_answer():
    assert list(page.lines([], ["a", "b"], {})) == ["Nothing found.", "Checked: a, b."]


def test_sparklines():
    assert page.sparkline([0.0, 1.0, None, 7.0], False) == "▁▂·█"
    assert page.sparkline([1e-3, 1.0, 0.0, math.nan], True) == "▁█··"
    assert len(page.sparkline([float(x) for x in range(1000)], False)) == 40
    assert page.sparkline([None], False) == ""


def test_changes_of_remedies_are_recipe_fields():
    changed = recipes.change(recipes.Recipe(), dict(finding("x").remedies[0].changes))
    assert changed.optim.lr == 0.01

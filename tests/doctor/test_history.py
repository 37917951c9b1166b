"""Histories: columns from records, what a resume supersedes, robust measures, and no alarm over healthy trainings."""

from __future__ import annotations

import importlib
import math
import random
import time

import numpy as np
import pytest
from PIL import Image

import striate
from striate import recipe as recipes
from striate.doctor import examination, table
from striate.doctor.finding import NotJudged, ranked
from striate.doctor.history import Columns, History, curve, fall, finite, jitter, level, parts, slope
from striate.recipe import Recipe
from striate.run.log import Record

RULES = (
    "plateau_at_chance", "plateau", "divergence", "spikes", "non_finite", "gradient_flow", "update_ratio", "dying_units",
    "validation_at_chance", "overfitting", "underfitting", "regularisation", "rate_too_high", "rate_too_low", "decayed_early",
    "never_decayed", "batch_norm_statistics", "ema_lag", "augmentation_gap", "preprocessing_gap", "waiting", "slowing",
    "memory_growth", "evaluation_size",
)  # fmt: skip


def step(number, **values):
    return {"kind": "step", "step": number, **values}


# Healthy trainings of which there is something to note, and rules that can judge by next to nothing.
NOTES = {
    "slow_start": {"plateau"},
    "small_validation_set": {"evaluation-size"},
    "fine_tuning": {"update-ratio"},
}
JUDGED = {
    "nothing": set(),
    "few steps": {"non_finite", "update_ratio"},
    "losses alone": {
        "non_finite", "divergence", "plateau_at_chance", "plateau", "regularisation", "rate_too_high", "rate_too_low", "spikes"
    },
    "rates alone": set(),
}  # fmt: skip


def rule(name):
    return importlib.import_module(f"striate.doctor.rules.{name}")


def findings(makers, history):
    return [found for name in RULES if (found := makers.asked(rule(name), history)) is not None]


def test_columns_keep_rows_together_and_fill_with_nan():
    columns = Columns()
    columns.append({"step": 1, "loss": 2.0})
    columns.append({"step": 2, "lr": 0.1, "loss": None, "text": "x", "flag": True})
    assert len(columns) == 2
    assert columns.names() == ["step", "loss", "lr"]
    np.testing.assert_array_equal(columns["loss"], [2.0, math.nan])
    np.testing.assert_array_equal(columns["lr"], [math.nan, 0.1])
    np.testing.assert_array_equal(columns["never told"], [math.nan, math.nan])
    columns.cut(1)
    columns.append({"step": 5, "lr": 0.2})
    np.testing.assert_array_equal(columns["step"], [1, 5])
    np.testing.assert_array_equal(columns["lr"], [math.nan, 0.2])


def test_a_number_that_is_not_finite_counts_as_missing():
    columns = Columns()
    columns.append({"loss": math.inf})
    columns.append({"loss": math.nan})
    assert np.isnan(columns["loss"]).all()


def test_records_become_columns_by_group_layer_and_head():
    norms = {"conv1": {"weight": 2.0, "gradient": 1.0, "update": 0.1}, "bn1": {"weight": 1.0, "gradient": 1.0, "update": 0.5}}
    records = [
        {"kind": "start", "step": 0, "classes": 12, "batch_size": 64, "steps_per_epoch": 46, "total_steps": 100},
        step(5, epoch=0.1, loss=4.0, losses={"main": 2.5, "aux1": 2.5, "aux2": 2.5}, norms=norms, dead_share={"relu": 0.5}),
        {"kind": "evaluation", "step": 46, "split": "val", "weights": "raw", "top1": 0.2, "loss": 2.2, "used": 480},
        {"kind": "skip", "step": 50, "reason": "loss is nan", "keys": ["a.jpg"], "first_bad_layer": "fc"},
        {"kind": "bad", "step": 51, "key": "b.jpg", "reason": "cut short"},
        {"kind": "end", "step": 100, "exit_code": 0},
    ]
    history = History.of_records(records, Recipe())
    assert (history.classes, history.batch_size, history.steps_per_epoch, history.total_steps) == (12, 64, 46, 100)
    assert history.chance == pytest.approx(math.log(12))
    assert history.head_weight == pytest.approx(1.6)
    assert history.loss.tolist() == [2.5], "the main head, not the sum"
    assert list(history.losses) == ["main", "aux1", "aux2"]
    assert {name: norm.tolist() for name, norm in history.norms("weight").items()} == {"conv1": [2.0], "bn1": [1.0]}
    assert {name: ratio.tolist() for name, ratio in history.update_ratios.items()} == {"conv1": [0.05]}
    assert history.dead_share["relu"].tolist() == [0.5]
    assert history.scores("val")["top1"].tolist() == [0.2]
    assert history.skips[0].keys == ("a.jpg",)
    assert history.bad == {"b.jpg": "cut short"}
    assert history.is_done


def test_live_and_from_the_log_are_the_same(makers):
    live = makers.training(makers.falling(2.4, 0.3), val=makers.scored(2.2, 0.7))
    records = [{"kind": "start", "step": 0, **live.start}]
    for row in range(len(live.steps)):
        told = {name: live.steps[name][row] for name in live.steps.names() if "/" not in name}
        records.append(step(int(told.pop("step")), **told))
    again = History.of_records(records, live.recipe)
    np.testing.assert_array_equal(again.steps["lr"], live.steps["lr"])
    assert again.total_steps == live.total_steps


def test_a_resume_supersedes_what_came_after_its_step():
    history = History(Recipe())
    for number in (10, 20, 30):
        history.observe(Record("step", number, {"loss": float(number)}))
        history.observe(Record("evaluation", number, {"split": "val", "weights": "raw", "top1": 0.1}))
    history.observe(Record("skip", 25, {"reason": "loss is nan"}))
    history.observe(Record("end", 30, {"exit_code": 75}))
    history.observe(Record("resume", 20, {}))
    history.observe(Record("step", 30, {"loss": -30.0}))
    assert history.steps["step"].tolist() == [10, 20, 30]
    assert history.steps["loss"].tolist() == [10, 20, -30]
    assert history.scores("val")["step"].tolist() == [10, 20]
    assert not history.skips
    assert history.end is None
    assert history.resumed_at == [20]


def test_averaged_weights_are_scored_first_where_there_are_any(makers):
    history = makers.training(
        makers.falling(2.4, 0.3), val=makers.scored(2, 1, images=50), average=makers.scored(2, 1, images=70)
    )
    assert history.scores("val")["used"][0] == 70
    assert history.scores("val", "raw")["used"][0] == 50
    assert history.scores("test") is None


@pytest.mark.parametrize(
    ("name", "has_it"),
    [
        ("resnet50", True), ("vgg16", False), ("vgg16-bn", True), ("torchvision/vgg16_bn", True), ("googlenet-bn", True),
        ("kth-a", False), ("kth-d", True), ("se-googlenet-paths", False), ("mine.py:net", None), ("timm/resnet26", True),
    ],
)  # fmt: skip
def test_batch_norm_by_name(name, has_it):
    assert History(recipes.change(Recipe(), {"model.name": name})).has_batch_norm is has_it


def test_near_the_peak_leaves_warm_up_and_end_out(makers):
    history = makers.training(
        makers.falling(2.4, 1.0), changes={"optim.warmup_epochs": 2.0}, lr=lambda t: min(1.0, t / 0.2) * (1 - t)
    )
    steps = history.steps["step"][history.is_near_peak(0.5)]
    assert steps.min() > 400
    assert steps.max() < 1700
    assert History().is_near_peak(0.5).tolist() == []


def test_overrides_are_computed_from_the_recipe_and_can_be_applied():
    history = History(recipes.change(Recipe(), {"optim.lr": 0.03, "budget.epochs": 12.0}))
    changes = {
        **history.scaled("optim.lr", 0.1),
        **history.set(optim_schedule="constant", loss_smoothing=0.0),
        **history.longer(2.5),
    }
    assert changes == {"optim.lr": 0.003, "optim.schedule": "constant", "budget.epochs": 30.0}
    recipes.check(recipes.change(history.recipe, changes))
    assert History(recipes.change(Recipe(), {"budget.steps": 100})).longer(3) == {"budget.steps": 300}
    assert History(recipes.change(Recipe(), {"budget.time": "1h"})).longer(3) == {"budget.time": "180m"}
    assert History().scaled("optim.lr", 0.1) == History().longer(2) == History().set(optim_lr=1.0) == {}


def test_measures_are_robust():
    x = np.arange(100.0)
    y = 3.0 - 0.02 * x + np.random.default_rng(1).normal(0, 0.05, 100)
    y[[10, 50]] = 100.0
    steepness, error = slope(x, y)
    assert steepness == pytest.approx(-0.02, abs=4 * error)
    assert error < 0.001
    assert fall(y)[0] == pytest.approx(1.98, abs=0.1)
    assert jitter(y) == pytest.approx(0.05, rel=0.3)
    assert math.isnan(slope(x[:3], y[:3])[0])
    assert math.isnan(slope(np.zeros(9), np.ones(9))[0])
    assert math.isnan(level(np.array([math.nan])))
    assert parts(np.arange(10.0), 2) == [2.0, 7.0]
    kept = finite(np.array([1.0, math.nan, 3.0]), np.array([1.0, 2.0, math.nan]))
    assert [one.tolist() for one in kept] == [[1.0], [1.0]]


def test_the_standard_error_of_a_slope_is_that_of_repeated_draws():
    x = np.arange(40.0)
    draws = np.random.default_rng(0).normal(0, 1, (300, 40))
    found = np.array([slope(x, row) for row in draws])
    assert np.median(found[:, 1]) == pytest.approx(found[:, 0].std(), rel=0.35)


def test_curves_join_lines_of_different_places():
    x, y = np.arange(1000.0), np.ones(1000)
    drawn = curve("Loss", "epoch", "loss", {"long": (x, y), "short": (np.array([3.5, math.nan]), np.array([2.0, 1.0]))})
    assert set(drawn.lines) == {"long", "short"}
    assert len(drawn.x) <= 201
    assert drawn.lines["short"][list(drawn.x).index(3.5)] == 2.0


def test_observing_takes_a_small_part_of_a_step(makers):
    values = {
        "loss": 1.0, "lr": 0.1, "epoch": 1.0, "losses": {"main": 1.0},
        "norms": {f"layer{place}": {"weight": 1.0, "gradient": 1.0, "update": 0.1} for place in range(20)},
        "dead_share": {f"relu{place}": 0.1 for place in range(50)},
    }  # fmt: skip
    history = History(Recipe())
    began = time.perf_counter()
    for number in range(1000):
        history.observe(Record("step", number, values))
    assert time.perf_counter() - began < 1.0, "a millisecond each, where a step takes tens of them and more"


def test_rules_over_a_long_history_take_no_time_worth_mentioning(makers):
    history = makers.training(makers.falling(2.4, 0.3), steps=200_000, every=50, val=makers.scored(2.2, 0.7, evaluations=90))
    began = time.perf_counter()
    findings(makers, history)
    assert time.perf_counter() - began < 2.0


def test_healthy_trainings_raise_no_alarm(makers):
    for name, make in makers.HEALTHY.items():
        found = findings(makers, make())
        assert {one.code for one in found} == NOTES.get(name, set()), name
        assert {one.severity for one in found} <= {"note"}


def test_a_training_that_tells_all_is_judged_by_all(makers):
    history = makers.HEALTHY["plain"]()
    with pytest.raises(NotJudged, match="no averaged weights"):
        rule("ema_lag").check(history)
    assert [rule(name).check(history) for name in RULES if name != "ema_lag"] == [None] * (len(RULES) - 1)


@pytest.mark.parametrize("name", RULES)
def test_what_is_not_told_is_not_judged(makers, name):
    for told, make in makers.BARE.items():
        if name in JUDGED[told]:
            assert rule(name).check(make()) is None, told
        else:
            with pytest.raises(NotJudged):
                rule(name).check(make())


def test_of_one_row_or_nothing_next_to_nothing_is_checked(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("epoch,loss,acc,val_loss,val_acc\n0,2.3,0.1,2.3,0.1\n")
    one_row = examination.after(table.read(path))
    assert set(one_row.checked) == {"non-finite"}
    nothing = examination.after(History.of_records([], Recipe()))
    assert not nothing.checked
    assert not any(why.startswith("failed") for why in [*one_row.unchecked.values(), *nothing.unchecked.values()])


@pytest.mark.parametrize(
    "values",
    [
        {"losses": 5}, {"losses": {"main": {"a": 1}}}, {"norms": [1, 2]}, {"norms": {"conv1": 5}}, {"dead_share": "all"},
        {"top1": "37%"}, {"top1": 37.0}, {"loss": 10**400}, {"loss": True}, {"lr": -1}, {"epoch": {}}, {"memory_bytes": None},
    ],
    ids=str,
)  # fmt: skip
def test_values_of_another_type_are_left_out(makers, values):
    history = History.of_records([step(number, **{"loss": 2.3, **values}) for number in range(60)], Recipe())
    assert len(history.steps) == 60
    assert (history.records, history.unreadable) == (60, 0)
    findings(makers, history)


@pytest.mark.parametrize(
    "line", [{"kind": ["step"], "step": 1}, {"kind": "step", "step": "1"}, {"kind": "step", "step": 10**400}, 5]
)
def test_lines_that_are_no_records_are_counted(line):
    history = History.of_records([step(1, loss=2.0), line], Recipe())
    assert (history.records, history.unreadable) == (1, 1)


def test_nothing_in_a_log_makes_it_crash():
    draw = random.Random(0)
    odd = [
        5,
        -1,
        0,
        1e300,
        10**400,
        "x",
        None,
        True,
        [],
        [1, 2],
        {},
        {"main": 1.0},
        {"conv1": {"weight": 1, "update": "x"}},
        ["a", 5],
    ]
    kinds = ["start", "resume", "step", "evaluation", "skip", "bad", "end", "plan", "finding", 7]
    names = [
        "loss",
        "losses",
        "norms",
        "dead_share",
        "top1",
        "lr",
        "epoch",
        "keys",
        "split",
        "weights",
        "used",
        "classes",
        "processes",
    ]
    for _ in range(150):
        records = []
        for number in range(draw.randrange(40)):
            kind = draw.choice(kinds) if draw.random() < 0.4 else "step"
            usual = {"loss": 2.3, "top1": 0.1, "lr": 0.1, "epoch": number / 9, "split": "val", "weights": "raw", "used": 500}
            records.append(
                step(number, **{**usual, **{name: draw.choice(odd) for name in draw.sample(names, 4)}}) | {"kind": kind}
            )
        examined = examination.after(History.of_records(records, Recipe()))
        assert not [why for why in examined.unchecked.values() if why.startswith("failed")]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("steps", [60, 100, 200])
def test_short_noisy_trainings_that_learn_raise_no_alarm(makers, seed, steps):
    history = makers.training(
        makers.falling(2.6, 1.9, 2.5), classes=12, steps=steps, every=5, steps_per_epoch=46, batch_size=64, noise=0.06, seed=seed,
        val=makers.scored(2.5, 2.0, 0.1, 0.3, evaluations=4, images=480),
    )  # fmt: skip
    assert [(found.severity, found.code) for found in findings(makers, history) if found.severity != "note"] == []


def test_every_finding_has_what_it_takes(makers):
    ill = [
        makers.training(lambda t: math.log(10), noise=0.003, top1=lambda t: 0.1),
        makers.training(lambda t: 2.3 + 30 * t),
        makers.training(makers.falling(2.4, 0.01), val=makers.Scores(lambda t: 1.0 + 2 * t, lambda t: 0.6 - 0.2 * t)),
    ]
    for history in ill:
        for found in findings(makers, history):
            assert found.code == found.code.lower().replace("_", "-")
            assert found.sentence[0].isupper() or found.sentence[0].isdigit()
            assert found.sentence.endswith(".")
            assert found.causes
            assert found.remedies
            assert found.source
            assert found.to_json()
            for remedy in found.remedies:
                recipes.check(recipes.change(history.recipe, dict(remedy.changes)))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Four classes that a network tells apart at once, by colour; 128 images of 32 px to train on and 64 to validate."""
    folder = tmp_path_factory.mktemp("photos")
    draw = np.random.default_rng(0)
    for split, count in (("train", 32), ("val", 16)):
        for label, colour in enumerate(((200, 60, 60), (60, 200, 60), (60, 60, 200), (200, 200, 60))):
            (folder / split / f"class{label}").mkdir(parents=True)
            for number in range(count):
                pixels = np.clip(draw.normal(colour, 40, (32, 32, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / f"class{label}" / f"{number}.png")
    return folder


def trained(photos, out, **changes):
    fixed = {
        "model.name": "resnet20", "data.size_px": 16, "optim.batch_size": 32, "budget.steps": 60, "budget.log_every": 3,
        "budget.evaluate_epochs": 5.0, "augment.scale": (0.5, 1.0), "optim.precision": "fp32",
    }  # fmt: skip
    run = striate.train(photos, changes={**fixed, **changes}, out=out, quiet=True, device="cpu", workers="1")
    return History.of_records(run.log(), run.recipe)


@pytest.mark.slow
def test_a_real_training_that_learns(makers, photos, tmp_path):
    history = trained(photos, tmp_path, **{"optim.lr": 0.02})
    assert [(found.severity, found.code) for found in findings(makers, history) if found.severity != "note"] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"model.name": "lenet5", "data.size_px": 32, "data.colour": "grey", "optim.lr": 20.0}, "learning-rate-high"),
        (
            {"model.name": "lenet5", "data.size_px": 32, "data.colour": "grey", "optim.name": "adam", "optim.lr": 1.0},
            "learning-rate-high",
        ),
        ({"optim.lr": 1e-6}, "learning-rate-low"),
    ],
)
def test_a_real_training_that_does_not(makers, photos, tmp_path, changes, cause):
    found = ranked(findings(makers, trained(photos, tmp_path, **changes)))
    assert found[0].severity in ("error", "warning")
    assert found[0].cause == cause

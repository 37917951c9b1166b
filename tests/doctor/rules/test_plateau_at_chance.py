"""A loss at ln K: told by its height, with the arithmetic; why, as far as the norms say."""

from __future__ import annotations

import math

import pytest

from striate.doctor.finding import NotJudged
from striate.doctor.rules import plateau_at_chance


def flat(makers, **more):
    return makers.training(lambda t: math.log(more.get("classes", 10)), **{"noise": 0.002, "top1": lambda t: 1 / 10, **more})


def test_told_by_the_number(makers):
    found = plateau_at_chance.check(flat(makers))
    assert found.severity == "error"
    assert "ln 10 = 2.303" in found.sentence
    assert found.evidence["loss of guessing"] == pytest.approx(math.log(10))


def test_with_two_auxiliary_heads_it_is_11_05(makers):
    history = flat(makers, classes=1000, aux=2, top1=lambda t: 0.001)
    found = plateau_at_chance.check(history)
    assert "1.6 ln 1000 = 11.05" in found.sentence
    assert found.evidence["loss"] == pytest.approx(11.05, abs=0.02)


def test_six_epochs_of_a_table_at_11_05(makers):
    history = makers.table_of(loss=lambda t: 11.0525, top1=lambda t: 0.001, epochs=6, classes=None)
    found = plateau_at_chance.check(history)
    assert "1.6 ln 1000 = 11.05" in found.sentence
    assert found.cause == "initialisation"


def test_a_table_without_accuracies(makers):
    assert plateau_at_chance.check(makers.table_of(loss=lambda t: 5.298, epochs=5, classes=None)).sentence.count("ln 200 = 5.298")


@pytest.mark.parametrize(
    ("more", "cause"),
    [
        ({"groups": {"conv1": (1e-9, 1e-10), "layer1": (1e-8, 1e-9), "fc": (0.3, 1e-3)}}, "initialisation"),
        (
            {"groups": {"conv1": (1e-9, 1e-3), "fc": (0.3, 1e-3)}, "changes": {"model.name": "se-googlenet-paths"}},
            "gates",
        ),
        ({"groups": {"conv1": (0.3, 0.9), "fc": (0.5, 2.0)}}, "learning-rate-high"),
        ({"weight": lambda t: 1 + 30 * t}, "learning-rate-high"),
        ({"groups": {"conv1": (0.3, 3e-6), "fc": (0.5, 6e-6)}}, "learning-rate-low"),
        ({"dead": {"relu1": lambda t: 0.3, "relu2": lambda t: 1.0}}, "dead-units"),
        ({"weight": lambda t: 0.02**t}, "weight-decay-high"),
        ({"changes": {"model.options.dropout": 0.95}}, "regularisation-strong"),
        ({}, "labels-shuffled"),
    ],
)
def test_why(makers, more, cause):
    found = plateau_at_chance.check(flat(makers, **more))
    assert found.cause == cause
    assert found.severity == "error"


def test_early_and_with_nothing_proved_it_is_a_note(makers):
    found = plateau_at_chance.check(flat(makers, steps=100, every=5, steps_per_epoch=50))
    assert found.severity == "note"
    assert "so far" in found.sentence


def test_a_plateau_elsewhere_is_another_one(makers):
    assert plateau_at_chance.check(flat(makers, classes=12, top1=lambda t: 1 / 12)) is not None
    assert plateau_at_chance.check(makers.training(lambda t: 2.1, noise=0.002, top1=lambda t: 0.2)) is None


def test_an_accuracy_above_guessing_is_a_slow_start(makers):
    assert plateau_at_chance.check(flat(makers, top1=lambda t: 0.16)) is None
    val = makers.Scores(lambda t: 2.29, lambda t: 0.14, images=2000)
    assert plateau_at_chance.check(flat(makers, val=val)) is None


def test_a_warm_up_is_waited_for(makers):
    history = flat(makers, steps=100, every=5, steps_per_epoch=20, changes={"optim.warmup_epochs": 4.5})
    with pytest.raises(NotJudged, match="too few records"):
        plateau_at_chance.check(history)


@pytest.mark.parametrize(
    ("loss", "words"),
    [(11.05, "1.6 ln 1000 = 11.05"), (6.908, "ln 1000 = 6.908"), (5.298, "ln 200 = 5.298"), (6.888, "1.3 ln 200")],
)
@pytest.mark.parametrize("accuracy", [0.0, None])
def test_an_accuracy_of_nothing_is_that_of_many_classes(makers, loss, words, accuracy):
    top1 = (lambda t: accuracy) if accuracy is not None else (lambda t: 0.005 if "200" in words else 0.001)
    found = plateau_at_chance.check(makers.table_of(loss=lambda t: loss, top1=top1, epochs=6, classes=None))
    assert found.severity == "error"
    assert words in found.sentence or (accuracy == 0 and "ln 1000" in found.sentence)


@pytest.mark.parametrize("split", ["top1", "val_top1"])
def test_accuracies_alone(makers, split):
    found = plateau_at_chance.check(makers.table_of(**{split: lambda t: 0.1}))
    assert found.sentence.startswith("The accuracy stays at 10.00%: guessing among 10 classes")
    assert found.to_json()
    assert plateau_at_chance.check(makers.table_of(**{split: lambda t: 0.1 + 0.3 * t})) is None
    assert plateau_at_chance.check(makers.table_of(**{split: lambda t: 0.02})) is None, "never right is no guess"
    with pytest.raises(NotJudged):
        plateau_at_chance.check(makers.table_of(**{split: lambda t: 0.1}, classes=None))
    with pytest.raises(NotJudged):
        plateau_at_chance.check(makers.table_of(**{split: lambda t: 0.1}, epochs=3))


def test_silent_on_healthy_trainings(makers, healthy):
    assert makers.asked(plateau_at_chance, healthy) is None

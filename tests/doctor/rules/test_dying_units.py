"""ReLUs that die along the way."""

from __future__ import annotations

from striate.doctor.rules import dying_units


def chance(makers, dead, **more):
    return makers.training(lambda t: 2.3, **{"noise": 0.01, "top1": lambda t: 0.1, "dead": dead, **more})


def test_they_die(makers):
    found = dying_units.check(chance(makers, {"relu1": lambda t: 0.05, "relu2": lambda t: min(1.0, 0.1 + 2 * t)}))
    assert found.severity == "error"
    assert found.cause == "learning-rate-high"
    assert found.layer == "relu2"
    assert "1 more" not in found.sentence


def test_half_of_them(makers):
    assert dying_units.check(chance(makers, {"relu": lambda t: 0.1 + 0.5 * t})).severity == "warning"


def test_dead_before_anything_was_learnt(makers):
    assert dying_units.check(chance(makers, {"relu": lambda t: 0.95})).cause == "initialisation"


def test_killed_by_the_first_step(makers):
    history = chance(makers, {"relu": lambda t: 0.0 if t < 0.06 else 1.0}, groups={"conv1": (0.3, 1.5), "fc": (0.3, 2.0)})
    assert dying_units.check(history).causes[0].weight > 0.8


def test_weight_decay_kills_them_too(makers):
    history = chance(makers, {"relu": lambda t: t}, changes={"optim.weight_decay": 0.5})
    assert dying_units.check(history).cause == "weight-decay-high"


def test_superfluous_units_of_a_network_that_learns_are_a_note(makers):
    history = makers.training(makers.falling(2.4, 0.1), dead={"relu": lambda t: 0.1 + 0.6 * t})
    assert dying_units.check(history).severity == "note"


def test_a_third_at_a_steady_level_is_usual(makers):
    assert dying_units.check(chance(makers, {"relu": lambda t: 0.35})) is None


def test_silent_on_healthy_trainings(makers, healthy):
    assert makers.asked(dying_units, healthy) is None

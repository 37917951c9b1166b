"""Signs of a rate above the best one."""

from __future__ import annotations

from striate.doctor.rules import rate_too_high


def test_the_loss_rises_and_takes_long_to_come_back(makers):
    found = rate_too_high.check(makers.training(lambda t: 2.3 + 8 * t if t < 0.3 else max(1.9, 4.7 - 5 * (t - 0.3))))
    assert found.cause == "learning-rate-high"
    assert found.severity == "warning"
    assert found.remedies[0].changes == {"optim.lr": 0.01}


def test_a_first_step_as_large_as_the_weights(makers):
    groups = {"conv1": (0.3, 0.9), "fc": (0.5, 3.0)}
    assert rate_too_high.check(makers.training(lambda t: 2.2, groups=groups, changes={"optim.lr": 2.0})).severity == "warning"
    assert rate_too_high.check(makers.training(makers.falling(2.4, 0.2), groups=groups)).severity == "note"


def test_adam_at_a_rate_for_sgd_that_stands_still(makers):
    history = makers.training(lambda t: 2.3, noise=0.003, top1=lambda t: 0.1, changes={"optim.name": "adam", "optim.lr": 0.1})
    assert rate_too_high.check(history).cause == "learning-rate-high"


def test_tiny_batches_are_named(makers):
    history = makers.training(lambda t: 2.3 + 8 * t if t < 0.3 else 2.2, batch_size=4)
    assert "batch-too-small" in [cause.name for cause in rate_too_high.check(history).causes]


def test_what_the_first_drop_gains_is_usual(makers):
    history = makers.training(
        lambda t: 1.5 if t < 0.5 else 0.9, lr=lambda t: 0.1 if t < 0.5 else 0.01, changes={"optim.schedule": "step"}
    )
    assert rate_too_high.check(history) is None


def test_a_large_head_that_comes_down_is_none(makers):
    assert rate_too_high.check(makers.training(makers.falling(12.0, 0.5, 10))) is None


def test_silent_on_healthy_trainings(makers, healthy):
    assert makers.asked(rate_too_high, healthy) is None

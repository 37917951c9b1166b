"""Training sees images unlike those that are scored, and validation suffers."""

from __future__ import annotations

from striate.doctor.rules import augmentation_gap

STRONG = {"augment.scale": (0.08, 1.0), "augment.policy": "trivialaugment", "augment.erase": 0.5}


def distorted(makers, val=None, **more):
    val = val or makers.Scores(lambda t: 1.6, lambda t: 0.45 if t < 0.5 else 0.43, 20)
    return makers.training(
        makers.falling(2.4, 1.9), top1=lambda t: 0.25, sample=makers.Scores(lambda t: 1.2, lambda t: 0.62), val=val,
        **{"changes": STRONG, **more},
    )  # fmt: skip


def test_validation_suffers(makers):
    found = augmentation_gap.check(distorted(makers))
    assert found.severity == "warning"
    assert found.cause == "augmentation-mismatch"
    assert found.remedies[0].changes["augment.scale"] == (0.35, 1.0)


def test_with_nothing_strong_set_it_is_a_note(makers):
    assert augmentation_gap.check(distorted(makers, changes={})).severity == "note"


def test_a_validation_that_gets_better_does_not_mind(makers):
    assert augmentation_gap.check(distorted(makers, val=makers.Scores(lambda t: 1.5, lambda t: 0.3 + 0.3 * t, 20))) is None


def test_mixed_images_cost_as_much_again(makers):
    assert augmentation_gap.check(distorted(makers, changes={**STRONG, "augment.mixup": 0.2})) is None


def test_silent_on_healthy_trainings(makers, healthy):
    assert makers.asked(augmentation_gap, healthy) is None

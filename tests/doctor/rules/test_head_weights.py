from __future__ import annotations

import pytest
from torch.nn import functional

from striate.doctor import passes
from striate.doctor.rules import head_weights
from tests.doctor import makers


def _loss(main, second, first):
    def loss(outputs, labels):
        weights = zip((main, second, first), outputs, strict=True)
        return sum(weight * functional.cross_entropy(one, labels) for weight, one in weights)

    return loss


@pytest.mark.parametrize(
    ("weights", "cause"),
    [
        ((1, 0.3, 0), "heads-forgotten"),
        ((1, 0, 0), "heads-forgotten"),
        ((0.4, 0.6, 0.6), "head-weights"),
        ((0, 1, 1), "heads-forgotten"),
    ],
)
def test_heads_that_are_forgotten_or_weigh_too_much(weights, cause):
    found = head_weights.check(makers.patient(makers.network("googlenet-bn"), 64, batch=8, loss=_loss(*weights)))
    assert found.cause == cause
    assert list(found.evidence["weight in the loss, by head"].values()) == pytest.approx(list(weights), abs=1e-3)


def test_the_recipe_that_leaves_them_out_gets_the_override():
    recipe = makers.recipe(model__name="googlenet-bn", loss__aux_weight=0.0)
    patient = makers.patient(makers.network("googlenet-bn"), 64, batch=8, recipe=recipe, loss=passes.summed(0.0))
    found = head_weights.check(patient)
    assert found.cause == "heads-forgotten" and found.remedies[0].changes == {"loss.aux_weight": 0.3}


@pytest.mark.parametrize("name", ["googlenet-bn", "resnet18"])
def test_silent_for_the_papers_weights_and_for_one_head(name):
    assert head_weights.check(makers.patient(makers.network(name), 64, batch=8)) is None


def test_a_main_head_that_is_forgotten_is_an_error_of_both_names():
    found = head_weights.check(makers.patient(makers.network("googlenet-bn"), 64, batch=4, loss=_loss(0, 1, 1)))
    assert found.severity == "error" and [cause.name for cause in found.causes] == ["heads-forgotten", "head-weights"]
    heavy = head_weights.check(makers.patient(makers.network("googlenet-bn"), 64, batch=4, loss=_loss(0.4, 0.6, 0.6)))
    assert heavy.severity == "warning" and [cause.name for cause in heavy.causes] == ["head-weights"]

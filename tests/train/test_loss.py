from __future__ import annotations

import math
from collections import namedtuple

import pytest
import torch
from torch import nn

from striate.errors import UserError
from striate.train import loss

Two = namedtuple("Two", ["logits", "aux_logits"])


def test_heads_of_tensor_tuple_named_tuple_and_dict() -> None:
    main, aux = torch.zeros(2, 3), torch.ones(2, 3)
    assert loss.heads(main) == {"main": main}
    for outputs, name in (((main, aux), "aux1"), (Two(main, aux), "aux_logits"), ({"aux": aux, "logits": main}, "aux")):
        found = loss.heads(outputs)
        assert list(found) == ["main", name]
        assert found["main"] is main
        assert found[name] is aux
    assert list(loss.heads(Two(main, None))) == ["main"]
    with pytest.raises(UserError, match="returned list"):
        loss.heads([main])


def test_smoothing_by_hand_and_as_torch() -> None:
    logits_BK = torch.tensor([[math.log(6.0), math.log(3.0), math.log(1.0)]])  # probabilities 0.6, 0.3, 0.1
    labels = torch.tensor([0])
    smooth = loss.per_head({"main": logits_BK}, labels, 0.3)["main"].item()
    assert smooth == pytest.approx(-(0.8 * math.log(0.6) + 0.1 * math.log(0.3) + 0.1 * math.log(0.1)))
    assert loss.per_head({"main": logits_BK}, labels, 0.0)["main"].item() == pytest.approx(-math.log(0.6))
    torch.manual_seed(0)
    scores, labels = torch.randn(7, 5), torch.randint(5, (7,))
    assert torch.equal(
        loss.per_head({"main": scores}, labels, 0.1)["main"], nn.CrossEntropyLoss(label_smoothing=0.1)(scores, labels)
    )


def test_half_precision_logits_are_summed_in_float32() -> None:
    value = loss.per_head({"main": torch.zeros(4, 1000, dtype=torch.bfloat16)}, torch.zeros(4, dtype=torch.int64), 0.0)["main"]
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(math.log(1000))


def test_total_weighs_the_auxiliary_heads() -> None:
    losses = {"main": torch.tensor(1.0), "aux1": torch.tensor(2.0), "aux2": torch.tensor(4.0)}
    assert loss.total(losses, 0.3, 0.0, []).item() == pytest.approx(1 + 0.3 * 6)


def test_l2_is_keras_regulariser_by_hand() -> None:
    """Keras adds l2 * sum(w²) to the loss, without a half: 0.01 * (1 + 4 + 9 + 16), gradient 2 * 0.01 * w."""
    model = nn.Sequential()
    model.add_module("fc1", nn.Linear(2, 2))
    model.add_module("fc2", nn.Linear(2, 2))
    with torch.no_grad():
        model.fc1.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    total = loss.total({"main": torch.tensor(0.5)}, 0.3, 0.01, loss.penalised(model, ("fc1",)))
    assert total.item() == pytest.approx(0.5 + 0.3)
    total.backward()
    torch.testing.assert_close(model.fc1.weight.grad, torch.tensor([[0.02, 0.04], [0.06, 0.08]]))
    assert model.fc1.bias.grad is None
    assert model.fc2.weight.grad is None


def test_a_layer_that_does_not_exist_is_named_with_the_nearest() -> None:
    model = nn.Sequential()
    model.add_module("block1", nn.Linear(2, 2))
    model.add_module("relu", nn.ReLU())
    with pytest.raises(UserError, match=r"no layer 'blok1'.*block1"):
        loss.penalised(model, ("blok1",))
    with pytest.raises(UserError, match="no layer 'relu' with a weight"):
        loss.penalised(model, ("relu",))

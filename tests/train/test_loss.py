from __future__ import annotations

import itertools
import math
from collections import namedtuple
from typing import Literal

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import nn
from torch.nn import functional
from torchvision.ops import generalized_box_iou_loss

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


def _drawn(count: int = 12, classes: int = 5) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits [B, K], labels and partners' labels [B]."""
    generator = torch.Generator().manual_seed(3)
    labels, partners = torch.randint(classes, (2, count), generator=generator)
    return torch.randn(count, classes, generator=generator), labels, partners


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_class_weights_are_torchs_but_for_the_divisor(smoothing: float) -> None:
    """torch divides by the weights of the batch, we by its images."""
    logits, labels, _ = _drawn()
    weights = torch.tensor([0.5, 1.0, 0.0, 2.0, 1.5])
    theirs = functional.cross_entropy(logits, labels, weights, label_smoothing=smoothing) * weights[labels].sum() / 12
    ours = loss.per_head({"main": logits, "aux": logits}, labels, smoothing, weights)
    torch.testing.assert_close(ours["main"], theirs)
    torch.testing.assert_close(ours["aux"], theirs)
    ones = loss.per_head({"main": logits}, labels, smoothing, torch.ones(5))["main"]
    torch.testing.assert_close(ones, loss.per_head({"main": logits}, labels, smoothing)["main"])


@pytest.mark.parametrize("mixed", [False, True])
def test_a_weighted_loss_does_not_depend_on_how_the_batch_is_cut(mixed: bool) -> None:
    """Parts weighed by their images, as micro-batches and processes are, give the loss and the gradient of the whole."""
    weights = torch.tensor([0.1, 0.2, 3.0, 0.5, 7.0])
    logits, labels, partners = _drawn()
    share = torch.linspace(0.0, 1.0, 12)
    found = []
    for cuts in ((0, 12), (0, 4, 8, 12), (0, 1, 12)):
        whole = logits.clone().requires_grad_()
        value = torch.zeros(())
        for first, last in itertools.pairwise(cuts):
            part = slice(first, last)
            more = (partners[part], share[part]) if mixed else ()
            one = loss.per_head({"main": whole[part]}, labels[part], 0.1, weights, *more)["main"]
            value = value + one * (last - first) / 12
        value.backward()
        found.append((value.detach(), whole.grad))
    for value, gradient in found[1:]:
        torch.testing.assert_close(value, found[0][0])
        torch.testing.assert_close(gradient, found[0][1])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("share", [0.3, 1.0, torch.linspace(0.0, 1.0, 12)])
def test_a_mixed_batch_is_torchs_loss_of_soft_targets(share: torch.Tensor | float, smoothing: float) -> None:
    logits, labels, partners = _drawn()
    share_B1 = torch.as_tensor(share).reshape(-1, 1)
    targets_BK = share_B1 * functional.one_hot(labels, 5) + (1 - share_B1) * functional.one_hot(partners, 5)
    theirs = functional.cross_entropy(logits, targets_BK, label_smoothing=smoothing)
    found = loss.per_head({"main": logits}, labels, smoothing, None, partners, share)["main"]
    torch.testing.assert_close(found, theirs)
    weights = torch.tensor([0.5, 1.0, 0.2, 2.0, 1.5])  # with soft targets torch divides by the number of images, too
    theirs = functional.cross_entropy(logits, targets_BK, weights, label_smoothing=smoothing)
    torch.testing.assert_close(loss.per_head({"main": logits}, labels, smoothing, weights, partners, share)["main"], theirs)


def test_balanced_weights_are_scikit_learns() -> None:
    labels_N = np.repeat(np.arange(4, dtype=np.int32), [1, 10, 100, 9])
    found = loss.balanced_weights(labels_N, 4)
    np.testing.assert_allclose(found, compute_class_weight("balanced", classes=np.arange(4), y=labels_N), rtol=1e-6)
    assert found.dtype == torch.float32
    assert found.tolist() == pytest.approx([30.0, 3.0, 0.3, 120 / 36])
    with_empty = loss.balanced_weights(labels_N, 6)
    assert with_empty.tolist() == pytest.approx([30.0, 3.0, 0.3, 120 / 36, 0.0, 0.0])
    assert with_empty[labels_N].mean().item() == pytest.approx(1.0)


def test_given_weights_count_by_their_ratios() -> None:
    labels_N = np.array([0, 0, 0, 1], dtype=np.int32)
    assert loss.given_weights((1.0, 5.0), labels_N, 2).tolist() == pytest.approx([0.5, 2.5])
    assert loss.given_weights((100.0, 500.0), labels_N, 2).tolist() == pytest.approx([0.5, 2.5])
    assert loss.given_weights((3.0, 3.0), labels_N, 2).tolist() == [1.0, 1.0]


def test_given_weights_of_wrong_length_or_without_effect() -> None:
    labels_N = np.array([0, 0, 1], dtype=np.int32)
    with pytest.raises(UserError, match=r"loss.class_weights: found 2 numbers, expected 3: .* order of classes.json"):
        loss.given_weights((1.0, 2.0), labels_N, 3)
    with pytest.raises(UserError, match="every class that has training images has weight 0"):
        loss.given_weights((0.0, 0.0, 1.0), labels_N, 3)


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


# ---------------------------------------------------------------- boxes


def _edges(boxes_B4: torch.Tensor) -> torch.Tensor:
    """xyxy of centre and sides."""
    return torch.cat([boxes_B4[:, :2] - boxes_B4[:, 2:] / 2, boxes_B4[:, :2] + boxes_B4[:, 2:] / 2], 1)


def test_generalised_iou_is_torchvisions() -> None:
    torch.manual_seed(0)
    ours, theirs = _edges(torch.rand(2000, 4)), _edges(torch.rand(2000, 4))
    reference = 1 - generalized_box_iou_loss(ours, theirs, eps=0.0)
    torch.testing.assert_close(loss.generalised_iou(ours, theirs), reference, rtol=1e-4, atol=1e-5)


def test_box_loss_by_hand() -> None:
    """Of three images one has no box: it counts among the images and adds nothing."""
    said = torch.tensor([[[0.5, 0.5, 0.5, 0.5]], [[0.5, 0.5, 1.0, 1.0]], [[0.1, 0.1, 0.1, 0.1]]], requires_grad=True)
    targets = torch.tensor([[25.0, 25.0, 75.0, 75.0], [0.0, 0.0, 50.0, 100.0], [math.nan] * 4])
    labels = torch.zeros(3, dtype=torch.int64)
    # The first is right. Of the second the centre is 0.25 too far right, the width 0.5 too large; IoU is 0.5, and so is GIoU.
    l2 = loss.boxes(said, targets, labels, 100, "l2")
    assert l2.item() == pytest.approx((0.25**2 + 0.5**2) / 3)
    giou = loss.boxes(said, targets, labels, 100, "giou")
    assert giou.item() == pytest.approx((5 * 0.5 + 2 * 0.5) / 3)
    (l2 + giou).backward()
    assert said.grad is not None
    assert said.grad.isfinite().all()
    assert (said.grad[2] == 0).all()
    assert loss.boxes(said[2:], targets[2:], labels[2:], 100, "giou").item() == 0.0


@pytest.mark.parametrize("kind", ["l2", "giou"])
def test_of_a_box_for_each_class_that_of_the_label_is_judged(kind: Literal["giou", "l2"]) -> None:
    torch.manual_seed(1)
    said, labels = torch.rand(4, 5, 4), torch.tensor([3, 0, 4, 3])
    targets = 32 * _edges(torch.rand(4, 4).clamp(0.3, 0.6))
    chosen = said[torch.arange(4), labels][:, None]
    torch.testing.assert_close(loss.boxes(said, targets, labels, 32, kind), loss.boxes(chosen, targets, labels, 32, kind))
    parts = [loss.boxes(said[half], targets[half], labels[half], 32, kind) for half in (slice(2), slice(2, 4))]
    torch.testing.assert_close(loss.boxes(said, targets, labels, 32, kind), sum(parts) / 2)


def test_boxes_are_no_head_of_classes_and_have_a_weight_of_their_own() -> None:
    outputs = {"boxes": torch.zeros(2, 1, 4), "logits": torch.zeros(2, 3), "aux": torch.zeros(2, 3)}
    assert list(loss.heads(outputs)) == ["main", "aux"]
    losses = {"main": torch.tensor(1.0), "aux": torch.tensor(10.0), "boxes": torch.tensor(100.0)}
    assert loss.total(losses, 0.3, 0.0, [], 2.0).item() == pytest.approx(1 + 3 + 200)

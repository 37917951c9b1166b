"""One step: what it computes, and that a step which is not taken leaves everything as it was."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from striate.data.loader import Batch
from striate.models import heads
from striate.ranks import Ranks
from striate.train import layers, optim
from striate.train import loss as losses
from striate.train.step import Mixing, Outcome, Step
from striate.view import View

VIEW = View(8, "crop", 8, "bilinear", False, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def _model(dropout: float = 0.0) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(dropout), nn.Linear(4 * 36, 3)
    )


def _step(model: nn.Module, **changes: Any) -> Step:
    optimizer = optim.build(
        model,
        "sgd",
        lr=0.1,
        momentum=0.9,
        nesterov=False,
        betas=(0.9, 0.99),
        eps=1e-8,
        rms_decay=0.9,
        trust=0.001,
        weight_decay=0.0,
        decay_all=True,
        rates={},
    )
    arguments: dict[str, Any] = {
        "view": VIEW,
        "device": torch.device("cpu"),
        "precision": "fp32",
        "channels_last": False,
        "compiled": False,
        "accumulate": 1,
        "clip_norm": 0.0,
        "filter_rms": 0.0,
        "smoothing": 0.0,
        "aux_weight": 0.3,
        "l2": 0.0,
        "l2_layers": (),
        "box": "giou",
        "box_weight": 1.0,
        "class_weights": None,
        "augmentation": None,
        "mixing": Mixing(0.0, 0.0, 1.0),
        "seed": 0,
        "ranks": Ranks(),
    }
    return Step(model, optimizer, **(arguments | changes))


def _take(step: Step, batch: Batch, number: int, lr: float, look: bool) -> Outcome:
    return step(batch, number, lr, look, len(batch))


def _batch(size: int = 8, seed: int = 0, white: int | None = None) -> Batch:
    images = torch.randint(0, 255, (size, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    if white is not None:
        images[white] = 255
    labels = torch.arange(size) % 3
    return Batch(images, labels, torch.arange(size), tuple(f"{number}.jpg" for number in range(size)), ())


def test_a_step_is_a_plain_loops_step() -> None:
    ours, reference = _model(), _model()
    step = _step(ours)
    plain = torch.optim.SGD(reference.parameters(), lr=0.05, momentum=0.9)
    for number in range(3):
        batch = _batch(seed=number)
        outcome = _take(step, batch, number, 0.05, look=False)
        plain.zero_grad()
        loss = nn.functional.cross_entropy(reference((batch.images / 255 - 0.5) / 0.25), batch.labels)
        loss.backward()
        norm = torch.sqrt(sum((parameter.grad**2).sum() for parameter in reference.parameters()))  # type: ignore[arg-type, misc, operator]
        plain.step()
        assert outcome.loss == pytest.approx(loss.item(), rel=1e-5)
        assert outcome.gradient_norm == pytest.approx(norm.item(), rel=1e-4)
        assert outcome.skipped is None
    for name, tensor in reference.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], tensor)


def test_clipping_is_torchs() -> None:
    ours, reference = _model(), _model()
    batch = _batch()
    outcome = _take(_step(ours, clip_norm=0.01), batch, 0, 0.05, look=False)
    plain = torch.optim.SGD(reference.parameters(), lr=0.05, momentum=0.9)
    nn.functional.cross_entropy(reference((batch.images / 255 - 0.5) / 0.25), batch.labels).backward()
    norm = nn.utils.clip_grad_norm_(reference.parameters(), 0.01)
    plain.step()
    assert outcome.gradient_norm == pytest.approx(norm.item(), rel=1e-4)  # before clipping
    for name, tensor in reference.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], tensor)


def test_accumulated_gradients_are_those_of_the_whole_batch() -> None:
    def plain() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))

    whole, parts = plain(), plain()
    for size in (8, 7):  # the second after a bad image was left out
        first = _take(_step(whole), _batch(size), 0, 0.1, look=True)
        second = _take(_step(parts, accumulate=4), _batch(size), 0, 0.1, look=True)
        assert second.loss == pytest.approx(first.loss, rel=1e-5)
        assert second.losses["main"] == pytest.approx(first.losses["main"], rel=1e-5)
        assert second.hits == first.hits
        for name, tensor in whole.state_dict().items():
            torch.testing.assert_close(parts.state_dict()[name], tensor)


def test_dropout_is_a_function_of_seed_step_and_micro_batch() -> None:
    losses = {}
    for seed, number, accumulate in ((0, 0, 1), (0, 1, 1), (1, 0, 1), (0, 0, 2)):
        torch.manual_seed(number + seed)  # must not matter
        losses[seed, number, accumulate] = _take(
            _step(_model(0.5), seed=seed, accumulate=accumulate), _batch(), number, 0.1, False
        ).loss
        torch.rand(3)
        again = _take(_step(_model(0.5), seed=seed, accumulate=accumulate), _batch(), number, 0.1, False).loss
        assert again == losses[seed, number, accumulate]
    assert len(set(losses.values())) == 4


def test_looking_changes_no_weight_and_measures() -> None:
    looked, not_looked = _model(0.3), _model(0.3)
    outcome = _take(_step(looked), _batch(), 0, 0.1, look=True)
    _take(_step(not_looked), _batch(), 0, 0.1, look=False)
    for name, tensor in looked.state_dict().items():
        assert torch.equal(not_looked.state_dict()[name], tensor)
    assert outcome.norms is not None and set(outcome.norms) == {"0", "1", "5"}
    assert outcome.dead_share is not None and set(outcome.dead_share) == {"2"}


def test_frozen_layers_keep_weights_and_statistics_also_after_a_call_of_train() -> None:
    """And the step is that of a plain loop over a frozen front, whose batch norm uses the statistics that it has."""
    ours, reference = _model(), _model()
    for model in (ours, reference):
        model[1].running_mean += 0.2
        layers.freeze(model, "until:1", ())
    before = copy.deepcopy(ours[:2].state_dict())
    step = _step(ours)
    plain = torch.optim.SGD(reference[5].parameters(), lr=0.05, momentum=0.9)
    for number in range(3):
        ours.train()
        batch = _batch(seed=number)
        assert _take(step, batch, number, 0.05, look=number == 1).skipped is None
        plain.zero_grad()
        nn.functional.cross_entropy(reference((batch.images / 255 - 0.5) / 0.25), batch.labels).backward()
        plain.step()
    assert all(torch.equal(before[name], tensor) for name, tensor in ours[:2].state_dict().items())
    for name, tensor in reference.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], tensor)


def test_with_all_batch_norms_frozen_one_image_is_enough() -> None:
    model = _model()
    assert _take(_step(model), _batch(1), 0, 0.1, False).skipped == "1 readable images in the batch"
    layers.freeze(model, "until:1", ())
    assert _take(_step(model), _batch(1), 0, 0.1, False).skipped is None


@pytest.mark.parametrize("accumulate", [1, 2])
def test_t06_a_step_on_an_infinite_image_leaves_everything_as_it_was(accumulate: int) -> None:
    model = _model(0.3)
    step = _step(model, accumulate=accumulate)
    _take(step, _batch(), 0, 0.1, look=False)
    before = copy.deepcopy(model.state_dict())
    momentum = {name: tensor.clone() for name, tensor in optim.named_state(model, step.optimizer).items()}

    model[0].register_forward_hook(lambda module, inputs, output: _spoil(inputs[0], output))
    outcome = _take(step, _batch(white=5), 1, 0.1, look=True)

    assert outcome.skipped is not None and outcome.skipped.startswith("loss is")
    assert outcome.first_bad_layer == "0"
    assert "5.jpg" in outcome.bad_keys
    for name, tensor in before.items():
        assert torch.equal(model.state_dict()[name], tensor), name  # running statistics and the counter as well
    for name, tensor in optim.named_state(model, step.optimizer).items():
        assert torch.equal(momentum[name], tensor)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert _take(step, _batch(seed=2), 2, 0.1, look=False).skipped is None


def _spoil(images: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
    """Infinity for white images, after the layer."""
    white = images.amin(dim=(1, 2, 3)) >= 1.99
    return torch.where(white[:, None, None, None], torch.inf, output)


def test_without_batch_norm_the_bad_image_alone_is_named() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))
    model[0].register_forward_hook(lambda module, inputs, output: _spoil(inputs[0], output))
    outcome = _take(_step(model), _batch(white=5), 0, 0.1, look=False)
    assert outcome.bad_keys == ("5.jpg",)
    assert outcome.first_bad_layer == "0"


def test_an_infinite_gradient_of_a_finite_loss_is_skipped_too() -> None:
    class Steep(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
            return gradient * torch.inf

    model = _model()
    before = copy.deepcopy(model.state_dict())
    model[0].register_forward_hook(lambda module, inputs, output: Steep.apply(output))
    outcome = _take(_step(model), _batch(), 0, 0.1, look=False)
    assert outcome.skipped is not None and outcome.skipped.startswith("gradient norm is")
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())


def test_a_batch_with_fewer_than_two_images_is_skipped() -> None:
    assert _take(_step(_model()), _batch(1), 0, 0.1, look=False).skipped == "1 readable images in the batch"


def test_t07_an_infinite_loss_halves_the_loss_scale_and_leaves_the_weights() -> None:
    model = _model()
    model[0].register_forward_hook(lambda module, inputs, output: _spoil(inputs[0], output))
    step = _step(model, precision="fp16")
    before = copy.deepcopy(model.state_dict())
    scales = []
    for number in range(3):
        assert _take(step, _batch(white=0), number, 0.1, look=False).skipped is not None
        scales.append(step.scaler.get_scale())
    assert scales == [2.0**15, 2.0**14, 2.0**13]
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize("count", range(9))
def test_d01_a_batch_that_bad_images_made_smaller_is_computed_in_parts_of_two_or_more(count: int) -> None:
    model = _model()
    outcome = _take(_step(model, accumulate=4), _batch(count), 0, 0.05, look=False)
    assert (outcome.skipped is None) == (count >= 2)
    assert outcome.images == count


def test_finite_gradients_with_an_infinite_norm_move_nothing_in_half_precision_either() -> None:
    model = _model()
    step = _step(model, precision="fp16")
    for parameter in model.parameters():
        parameter.register_hook(lambda gradient: torch.full_like(gradient, 3e24))
    before = copy.deepcopy(model.state_dict())
    outcome = _take(step, _batch(), 0, 0.1, look=False)
    assert outcome.skipped == "gradient norm is inf"
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())


def test_a_single_image_is_not_counted_where_batch_norm_cannot_use_it() -> None:
    assert [_step(_model()).usable(count) for count in (0, 1, 2, 5)] == [0, 0, 2, 5]
    plain = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    assert [_step(plain).usable(count) for count in (0, 1, 2)] == [0, 1, 2]


def test_a_box_head_learns_with_its_weight_and_alike_in_micro_batches() -> None:
    """The gradient of classes plus twice that of the boxes, whether the batch is computed at once or in two parts."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))
    reference = heads.with_boxes(network, "per-class", 3, 8, 3, "it").train()
    batch = _batch()
    batch.boxes = torch.tensor([[1.0, 2.0, 6.0, 7.0]] * 6 + [[float("nan")] * 4] * 2)
    said = reference((batch.images / 255 - 0.5) / 0.25)
    classes = nn.functional.cross_entropy(said["logits"], batch.labels)
    boxes = losses.boxes(said["boxes"], batch.boxes, batch.labels, 8, "giou")
    (classes + 2 * boxes).backward()
    for accumulate in (1, 2):
        ours = copy.deepcopy(reference)
        ours.zero_grad()
        outcome = _take(_step(ours, accumulate=accumulate, box_weight=2.0), batch, 0, 0.0, look=True)
        assert outcome.losses == pytest.approx({"main": classes.item(), "boxes": boxes.item()}, rel=1e-5)
        assert outcome.loss == pytest.approx((classes + 2 * boxes).item(), rel=1e-5)
        for (name, one), other in zip(ours.named_parameters(), reference.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6, msg=name)

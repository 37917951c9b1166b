from __future__ import annotations

import copy
from typing import Any, get_args

import pytest
import timm.optim
import torch
from safetensors.torch import load, save
from torch import nn

from striate.errors import CheckpointError, UserError
from striate.train import optim

NAMES = get_args(optim.Name)

DEFAULTS: dict[str, Any] = {
    "lr": 0.05,
    "momentum": 0.9,
    "nesterov": False,
    "betas": (0.9, 0.99),
    "eps": 1e-8,
    "rms_decay": 0.9,
    "trust": 0.02,
    "weight_decay": 0.1,
    "decay_all": True,
    "rates": {},
}
# Of the parameters of `_model`: the convolution slower, the head's bias faster.
RATES = {"0.weight": 0.25, "0.bias": 0.25, "4.bias": 10.0}


def _model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5))


def _train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, first: int = 0) -> None:
    for step in range(first, first + steps):
        images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), torch.arange(4)).backward()
        optimizer.step()


def _push(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    """Steps with drawn gradients: those of a bias before a batch norm are rounding alone, which Adam's step blows up."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()


@pytest.mark.parametrize(
    ("name", "changes", "theirs"),
    [
        ("sgd", {}, lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.1)),
        ("sgd", {"nesterov": True}, lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.1, nesterov=True)),
        ("adam", {}, lambda p: torch.optim.Adam(p, lr=0.05, betas=(0.9, 0.99), weight_decay=0.1)),
        ("adamw", {}, lambda p: torch.optim.AdamW(p, lr=0.05, betas=(0.9, 0.99), weight_decay=0.1)),
        ("rmsprop", {"eps": 1.0}, lambda p: torch.optim.RMSprop(p, 0.05, 0.9, 1.0, weight_decay=0.1, momentum=0.9)),
        # The learning rate does not change here: AlexNet's formula and torch's are one.
        ("sgd-alexnet", {}, lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.1)),
        ("lars", {}, lambda p: timm.optim.Lars(p, 0.05, momentum=0.9, weight_decay=0.1, trust_coeff=0.02, eps=0.0)),
        ("lamb", {}, lambda p: timm.optim.Lamb(p, 0.05, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.1, max_grad_norm=None)),
    ],
)
def test_steps_are_those_of_torch_and_timm(name: Any, changes: dict[str, Any], theirs: Any) -> None:
    ours, reference = _model(), _model()
    _push(ours, optim.build(ours, name, **{**DEFAULTS, **changes}), 4)
    _push(reference, theirs(reference.parameters()), 4)
    for name_, tensor in reference.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name_], tensor)


def test_sgd_by_hand() -> None:
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, 2.0)
    optimizer = optim.build(layer, "sgd", **{**DEFAULTS, "lr": 0.5, "weight_decay": 0.1})
    for expected in (2.0 - 0.5 * (1 + 0.2), 1.4 - 0.5 * (0.9 * 1.2 + 1 + 0.14)):
        optimizer.zero_grad()
        layer(torch.ones(1, 1)).sum().backward()
        optimizer.step()
        assert layer.weight.item() == pytest.approx(expected)


def _one_weight(name: Any, gradients: list[float], rates: list[float], start: float = 2.0, **changes: Any) -> list[float]:
    """The weight of a network of one weight after each step."""
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, start)
    optimizer = optim.build(layer, name, **{**DEFAULTS, **changes})
    found = []
    for gradient, rate in zip(gradients, rates, strict=True):
        optim.set_rate(optimizer, rate)
        layer.weight.grad = torch.full((1, 1), gradient)
        optimizer.step()
        found.append(layer.weight.item())
    return found


def test_alexnets_velocity_keeps_the_rate_of_each_gradient() -> None:
    """Krizhevsky et al. 2012, section 5, with momentum 0.9 and decay 0.0005, the rate divided by 10 after one step.

    v1 = -0.0005 * 0.1 * 2 - 0.1 * 1 = -0.1001, w1 = 1.8999;
    v2 = 0.9 * -0.1001 - 0.0005 * 0.01 * 1.8999 - 0.01 * 3 = -0.1200994995, w2 = 1.7798005005.
    """
    ours = _one_weight("sgd-alexnet", [1.0, 3.0], [0.1, 0.01], weight_decay=5e-4)
    assert ours == pytest.approx([1.8999, 1.7798005005], rel=1e-6)
    # torch multiplies all of what is in motion by the new rate: 1.8999 - 0.01 * (0.9 * 1.001 + 3 + 0.0005 * 1.8999)
    theirs = _one_weight("sgd", [1.0, 3.0], [0.1, 0.01], weight_decay=5e-4)
    assert theirs == pytest.approx([1.8999, 1.8608815005], rel=1e-6)


def test_lars_by_hand_with_a_change_of_the_rate() -> None:
    """You et al. 2017, algorithm 1, trust 0.02 and decay 0.1.

    local rate 0.02 * 2 / (1 + 0.1 * 2) = 1/30, v1 = 0.5 / 30 * (1 + 0.2) = 0.02, w1 = 1.98;
    local rate 0.02 * 1.98 / (3 + 0.198), v2 = 0.9 * 0.02 + 0.05 * 0.02 * 1.98 = 0.01998, w2 = 1.96002.
    """
    assert _one_weight("lars", [1.0, 3.0], [0.5, 0.05]) == pytest.approx([1.98, 1.96002], rel=1e-6)


def test_lamb_by_hand() -> None:
    """You et al. 2020, algorithm 2: one weight's step has the length lr * |w| whatever its gradient."""
    assert _one_weight("lamb", [1.0, 1000.0], [0.5, 0.05]) == pytest.approx([1.0, 0.95], rel=1e-6)
    # Without the trust ratio: 0.5 * (1 + 0.1 * 2) at first.
    layer = nn.BatchNorm1d(1)
    nn.init.constant_(layer.weight, 2.0)
    optimizer = optim.build(layer, "lamb", **{**DEFAULTS, "lr": 0.5, "decay_all": False})
    layer.weight.grad = torch.ones(1)
    optimizer.step()
    assert layer.weight.item() == pytest.approx(2.0 - 0.5)


def test_rmsprop_adds_eps_outside_the_root_unlike_tensorflow() -> None:
    """0.5 * 3 / (sqrt(0.1 * 9) + 1) here; TensorFlow's first step would be 0.5 * 3 / sqrt(0.9 * 1 + 0.1 * 9 + 1)."""
    ours = _one_weight("rmsprop", [3.0], [0.5], eps=1.0, weight_decay=0.0)[0]
    assert ours == pytest.approx(2.0 - 1.5 / (0.9**0.5 + 1), rel=1e-6)
    weight = nn.Parameter(torch.full((1,), 2.0))
    theirs = timm.optim.RMSpropTF([weight], lr=0.5, alpha=0.9, eps=1.0, momentum=0.9)
    weight.grad = torch.full((1,), 3.0)
    theirs.step()
    assert weight.item() == pytest.approx(2.0 - 1.5 / 2.8**0.5, rel=1e-6)


@pytest.mark.parametrize("name", ["lars", "lamb"])
def test_where_weights_or_gradients_are_zero_the_ratio_is_one(name: Any) -> None:
    assert _one_weight(name, [0.0], [0.5], weight_decay=0.0) == [2.0]
    assert _one_weight(name, [1.0], [0.5], start=0.0, weight_decay=0.0) == pytest.approx([-0.5])


@pytest.mark.parametrize("name", ["lars", "lamb"])
def test_without_decay_all_biases_and_norms_have_the_common_rate(name: Any) -> None:
    """A network of biases and scales alone then steps as AlexNet's SGD, or as Adam, without decay."""
    plain = "sgd-alexnet" if name == "lars" else "adam"
    models = [nn.Sequential(nn.Flatten(), nn.BatchNorm1d(192)) for _ in range(2)]
    spared = optim.build(models[0], name, **{**DEFAULTS, "decay_all": False})
    _train(models[0], spared, 3)
    _train(models[1], optim.build(models[1], plain, **{**DEFAULTS, "weight_decay": 0.0}), 3)
    torch.testing.assert_close(models[0][1].weight, models[1][1].weight)
    torch.testing.assert_close(models[0][1].bias, models[1][1].bias)
    adapted = [group.get("trust", group.get("adapted")) for group in spared.param_groups]
    assert adapted == [None if name == "lars" else False]


@pytest.mark.parametrize("name", ["sgd-alexnet", "lars", "lamb"])
def test_a_parameter_without_gradient_stays_and_has_no_state(name: Any) -> None:
    model = _model()
    optimizer = optim.build(model, name, **{**DEFAULTS, "decay_all": False})
    optimizer.step()  # no gradient anywhere
    before = model[4].weight.clone()
    model[0].weight.grad = torch.ones_like(model[0].weight)
    optimizer.step()
    assert torch.equal(model[4].weight, before)
    assert {key.rpartition("/")[0] for key in optim.named_state(model, optimizer)} == {"0.weight"}


@pytest.mark.parametrize("name", [name for name in NAMES if name != "sgd"])
def test_nesterov_is_for_sgd(name: Any) -> None:
    with pytest.raises(UserError, match=rf"sgd's momentum and does nothing for {name}: add --optim.no-nesterov"):
        optim.build(_model(), name, **{**DEFAULTS, "nesterov": True})


def test_without_decay_all_biases_and_norms_are_spared() -> None:
    model = _model()
    names = {parameter: name for name, parameter in model.named_parameters()}
    optimizer = optim.build(model, "adamw", **{**DEFAULTS, "decay_all": False})
    found = {names[parameter]: group["weight_decay"] for group in optimizer.param_groups for parameter in group["params"]}
    assert found == {"0.weight": 0.1, "4.weight": 0.1, "0.bias": 0.0, "4.bias": 0.0, "1.weight": 0.0, "1.bias": 0.0}
    assert [group["weight_decay"] for group in optim.build(model, "sgd", **DEFAULTS).param_groups] == [0.1]


def test_set_rate_sets_every_group_by_its_factor() -> None:
    optimizer = optim.build(_model(), "sgd", **{**DEFAULTS, "decay_all": False})
    optim.set_rate(optimizer, 0.7)
    assert [group["lr"] for group in optimizer.param_groups] == [0.7, 0.7]
    scaled = optim.build(_model(), "sgd", **{**DEFAULTS, "decay_all": False, "rates": RATES})
    assert [(group["lr"], group["weight_decay"]) for group in scaled.param_groups] == [
        (0.05 * 0.25, 0.1),
        (0.05, 0.1),
        (0.05 * 0.25, 0.0),
        (0.05, 0.0),
        (0.05 * 10, 0.0),
    ]
    optim.set_rate(scaled, 2.0)
    assert [group["lr"] for group in scaled.param_groups] == [0.5, 2.0, 0.5, 2.0, 20.0]


@pytest.mark.parametrize("decay_all", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_a_parameter_moves_as_in_a_training_at_its_own_rate(name: Any, decay_all: bool) -> None:
    """With the same gradients, each parameter is where one optimiser at its rate alone would have brought it."""
    arguments = {**DEFAULTS, "decay_all": decay_all}
    ours = _model()
    optimizer = optim.build(ours, name, **{**arguments, "rates": RATES})
    optim.set_rate(optimizer, 0.02)
    _push(ours, optimizer, 3)
    moved = dict(ours.named_parameters())
    for factor in (0.25, 1.0, 10.0):
        reference = _model()
        plain = optim.build(reference, name, **arguments)
        optim.set_rate(plain, 0.02 * factor)
        _push(reference, plain, 3)
        for key, parameter in reference.named_parameters():
            if RATES.get(key, 1.0) == factor:
                torch.testing.assert_close(moved[key], parameter, msg=key)


@pytest.mark.parametrize("name", NAMES)
def test_frozen_parameters_have_no_state_and_do_not_decay(name: Any) -> None:
    model = _model()
    model[0].requires_grad_(False)
    before = copy.deepcopy(model[0].state_dict())
    optimizer = optim.build(model, name, **DEFAULTS)
    _train(model, optimizer, 2)
    assert all(torch.equal(before[key], tensor) for key, tensor in model[0].state_dict().items())
    assert {key.partition(".")[0] for key in optim.named_state(model, optimizer)} == {"1", "4"}


@pytest.mark.parametrize("rates", [{}, RATES])
@pytest.mark.parametrize("decay_all", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_three_steps_a_file_and_two_steps_are_five(name: Any, decay_all: bool, rates: dict[str, float]) -> None:
    arguments = {**DEFAULTS, "decay_all": decay_all, "rates": rates}
    model = _model().to(memory_format=torch.channels_last)
    optimizer = optim.build(model, name, **arguments)
    _train(model, optimizer, 3)
    weights = copy.deepcopy(model.state_dict())
    state = load(save({key: value.contiguous() for key, value in optim.named_state(model, optimizer).items()}))
    assert all("/" in key for key in state)
    other = _model().to(memory_format=torch.channels_last)
    other.load_state_dict(weights)
    restored = optim.build(other, name, **arguments)
    optim.restore_state(other, restored, state, "here")
    for each, its in ((model, optimizer), (other, restored)):
        optim.set_rate(its, 0.01)
        _train(each, its, 2, first=3)
    for key, tensor in model.state_dict().items():
        assert torch.equal(other.state_dict()[key], tensor), key
    after = optim.named_state(other, restored)
    assert after.keys() == state.keys()
    for key, tensor in optim.named_state(model, optimizer).items():
        assert torch.equal(after[key], tensor), key


@pytest.mark.parametrize("name", ["sgd-alexnet", "lars", "lamb"])
def test_the_loss_scaler_takes_our_optimisers(name: Any) -> None:
    """Scaled by a power of two and unscaled, the gradients are the same bits; an infinite one changes nothing."""
    models = [_model(), _model()]
    optimizers = [optim.build(model, name, **DEFAULTS) for model in models]
    _train(models[0], optimizers[0], 1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for factor in (1.0, float("inf")):
        optimizers[1].zero_grad()
        loss = nn.functional.cross_entropy(models[1](images), torch.arange(4))
        scaler.scale(loss * factor).backward()
        scaler.step(optimizers[1])
        scaler.update()
        for (key, ours), theirs in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, msg=key)


def test_state_that_does_not_fit_is_refused() -> None:
    model = _model()
    optimizer = optim.build(model, "sgd", **DEFAULTS)
    _train(model, optimizer, 1)
    saved = optim.named_state(model, optimizer)
    for wrong, words in (
        ({**saved, "9.weight/momentum_buffer": torch.zeros(3)}, "'9.weight/momentum_buffer' .* fits no parameter"),
        ({**saved, "4.bias/momentum_buffer": torch.zeros(6)}, "'4.bias/momentum_buffer' .* fits no parameter"),
    ):
        with pytest.raises(CheckpointError, match=words):
            optim.restore_state(model, optim.build(model, "sgd", **DEFAULTS), wrong, "here")

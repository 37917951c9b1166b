"""One pass, looked at: numbers beside hand-worked ones, gates, head weights; and the network is left as it was."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from striate.doctor import passes
from striate.models.blocks import SqueezeExcite
from tests.doctor import makers


def test_scale_and_spread_are_root_mean_squares_by_hand():
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[2.0, 0.0], [0.0, 0.0]]))
    images = torch.tensor([[[[1.0, 5.0]]], [[[3.0, 5.0]]]])
    seen = passes.look(model, images, torch.tensor([0, 1]), passes.summed(0.3))
    assert seen.image_scale == pytest.approx(math.sqrt((1 + 25 + 9 + 25) / 4))
    assert seen.image_spread == pytest.approx(math.sqrt((1 + 0 + 1 + 0) / 4))
    last = seen.layers[-1]
    assert (last.scale, last.spread) == (pytest.approx(math.sqrt((4 + 36) / 4)), pytest.approx(math.sqrt((4 + 4) / 4)))


def test_gradients_are_torchs_own():
    model = makers.small()
    shown, labels = makers.images(16)
    seen = passes.look(model, shown, labels, passes.summed(0.3))
    functional.cross_entropy(model(shown), labels).backward()
    for weight in seen.weights:
        own = model.get_parameter(weight.name).grad
        assert weight.gradient == pytest.approx(float(own.square().mean().sqrt()), rel=1e-4), weight.name


@pytest.mark.parametrize(("weights", "name"), [((1.0, 0.3, 0.3), "striate"), ((0.4, 1.0, 0.0), "wrong")])
def test_the_weight_of_each_head_is_found_in_whatever_loss(weights, name):
    model = makers.network("googlenet-bn")
    shown, labels = makers.images(8)

    def loss(outputs, labels):
        return sum(weight * functional.cross_entropy(one, labels) for weight, one in zip(weights, outputs, strict=True))

    seen = passes.look(model, shown, labels, loss)
    assert [head.weight for head in seen.heads.values()] == pytest.approx(list(weights), abs=1e-4)


def test_a_gate_is_told_from_other_layers_by_what_it_does():
    model = nn.Sequential(nn.Conv2d(3, 32, 3), nn.Sequential(nn.BatchNorm2d(32), nn.ReLU()), SqueezeExcite(32, 16), nn.Flatten())
    model.append(nn.Linear(32 * 30 * 30, 12))
    seen = passes.look(model, *makers.images(8), passes.summed(0.3))
    gates = {layer.name: layer.gate for layer in seen.layers if layer.gate is not None}
    assert list(gates) == ["2"] and 0.4 < gates["2"] < 0.6
    nn.init.constant_(model[2].fc2.bias, 4.0)
    seen = passes.look(model, *makers.images(8), passes.summed(0.3))
    assert next(layer.gate for layer in seen.layers if layer.gate is not None) == pytest.approx(0.98, abs=0.02)


def test_dead_and_saturated_shares_by_hand():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.Sigmoid(), nn.Flatten(), nn.Linear(64, 12))
    with torch.no_grad():
        model[0].bias.copy_(torch.tensor([100.0, -100.0, 100.0, -100.0]))
        model[2].weight.zero_()
        model[2].bias.copy_(torch.tensor([9.0, -9.0, 0.0, 0.0]))
    seen = passes.look(model, *makers.images(4, 4), passes.summed(0.3))
    by_name = {layer.name: layer for layer in seen.layers}
    assert by_name["1"].dead == pytest.approx(0.5) and by_name["3"].saturated == pytest.approx(0.5)


class Names(nn.Module):
    """Returns what a test wants."""

    def __init__(self, wrap):
        super().__init__()
        self.inner, self.wrap = makers.small(), wrap

    def forward(self, x):
        return self.wrap(self.inner(x))


@pytest.mark.parametrize(
    "wrap",
    [lambda y: (y, y), lambda y: [y, y], lambda y: {"logits": y, "aux": y}, lambda y: type("Out", (), {"logits": y})()],
    ids=["tuple", "list", "dict", "attribute"],
)
def test_whatever_a_network_returns(wrap):
    seen = passes.look(Names(wrap), *makers.images(8), passes.summed(0.3))
    assert seen.main.outputs == 12
    # Where both heads are one tensor, what comes back to it is the sum of their weights.
    assert seen.main.weight == pytest.approx(1.3 if len(seen.heads) == 2 else 1.0, abs=1e-3)


def _state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_the_network_is_left_as_it_was_and_every_hook_is_gone():
    model = makers.network("googlenet-bn")
    model.inception3a.eval()
    own = model.conv1.register_forward_hook(lambda *_: None)
    model.fc.weight.requires_grad_(False)
    model.conv2.conv.weight.grad = torch.ones_like(model.conv2.conv.weight)
    before, modes = _state(model), [module.training for module in model.modules()]
    state = torch.get_rng_state()
    passes.look(model, *makers.images(8), passes.summed(0.3))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.fc.weight.requires_grad and float(model.conv2.conv.weight.grad.sum()) == model.conv2.conv.weight.numel()
    assert model.conv1.conv.weight.grad is None
    hooks = [
        len(module._forward_hooks) + len(module._forward_pre_hooks) + len(module._backward_hooks) for module in model.modules()
    ]
    assert sum(hooks) == 1
    own.remove()


def test_the_network_is_left_as_it_was_when_it_raises():
    class Raises(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(3)

        def forward(self, x):
            self.norm(x)
            raise ValueError("inside")

    model = Raises()
    before = _state(model)
    with pytest.raises(ValueError, match="inside"):
        passes.look(model, *makers.images(8), passes.summed(0.3))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not model.norm._forward_hooks


def test_dropout_is_off_and_batch_norm_uses_the_batch():
    model = nn.Sequential(nn.Dropout(0.9), makers.small())
    first = passes.look(model, *makers.images(8), passes.summed(0.3))
    assert passes.look(model, *makers.images(8), passes.summed(0.3)).main == first.main
    norm = next(layer for layer in first.layers if layer.kind == "BatchNorm2d")
    assert norm.scale == pytest.approx(1.0, abs=0.01)


def test_parts_of_a_network_are_its_own():
    assert passes.stage_names(makers.network("resnet18"))[:3] == ["conv1", "bn1", "layer1"]
    assert "features.0" in passes.stage_names(makers.network("vgg-a"))


class Gated(nn.Module):
    """A gate that is written in `forward` and is no module of its own."""

    def __init__(self, multiply):
        super().__init__()
        self.stem, self.squeeze, self.classes = nn.Conv2d(3, 8, 3), nn.Linear(8, 8), nn.Linear(8, 12)
        self.multiply = multiply
        nn.init.zeros_(self.squeeze.weight)
        nn.init.constant_(self.squeeze.bias, -1.0)

    def forward(self, images):
        x = self.stem(images)
        return self.classes(self.multiply(x, self.squeeze(x.mean((2, 3)))).mean((2, 3)))


FACTOR = 1 / (1 + math.e)  # sigmoid of -1


@pytest.mark.parametrize(
    "multiply",
    [
        lambda x, y: x * torch.sigmoid(y)[:, :, None, None],
        lambda x, y: y.sigmoid().view(len(y), 8, 1, 1) * x,
        lambda x, y: torch.mul(x, torch.sigmoid(y).unsqueeze(-1).unsqueeze(-1).expand_as(x)),
    ],
    ids=["indexed", "viewed", "expanded"],
)
def test_gates_by_multiplication_whoever_writes_them(multiply):
    seen = passes.look(Gated(multiply), *makers.images(8), passes.summed(0.3))
    assert {layer.name: layer.gate for layer in seen.layers if layer.gate is not None} == {
        "squeeze": pytest.approx(FACTOR, abs=1e-5)
    }


@pytest.mark.parametrize(
    "multiply",
    [
        lambda x, y: x * torch.sigmoid(x),
        lambda x, y: torch.sigmoid(x) * x,
        lambda x, y: functional.silu(x),
        lambda x, y: x + torch.sigmoid(y)[:, :, None, None],
        lambda x, y: x * torch.tanh(y)[:, :, None, None],
    ],
    ids=["swish", "swish turned round", "silu", "added", "tanh"],
)
def test_what_is_no_gate(multiply):
    seen = passes.look(Gated(multiply), *makers.images(8), passes.summed(0.3))
    assert [layer.name for layer in seen.layers if layer.gate is not None] == []


def test_a_gate_that_is_a_module_is_not_told_twice():
    model = nn.Sequential(nn.Conv2d(3, 32, 3), SqueezeExcite(32, 16), nn.Flatten(), nn.Linear(32 * 30 * 30, 12))
    seen = passes.look(model, *makers.images(8), passes.summed(0.3))
    assert [layer.name for layer in seen.layers if layer.gate is not None] == ["1"]


class Listed(nn.Module):
    """Layers in a plain list, and a tensor that is no parameter."""

    def __init__(self, kept):
        super().__init__()
        self.stem, self.classes = nn.Conv2d(3, 8, 3), nn.Linear(8, 12)
        self.layers = kept([nn.Linear(8, 8), nn.Linear(8, 8, bias=False)])
        self.scale = torch.ones(8, requires_grad=kept is list)

    def forward(self, images):
        x = self.stem(images).mean((2, 3))
        for layer in self.layers:
            x = layer(x) * self.scale
        return self.classes(x)


@pytest.mark.parametrize(("kept", "numbers"), [(list, 8 * 8 + 8 + 8 * 8 + 8), (nn.ModuleList, 0)])
def test_numbers_that_could_learn_and_are_no_parameters(kept, numbers):
    assert passes.look(Listed(kept), *makers.images(8), passes.summed(0.3)).strays == numbers


def test_tanhs_of_another_height_are_saturated_at_their_own():
    class Tanh(nn.Module):
        def forward(self, x):
            return 1.7159 * torch.tanh(x)

    model = nn.Sequential(nn.Conv2d(3, 4, 1), Tanh(), nn.Flatten(), nn.Linear(64, 12))
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].bias.copy_(torch.tensor([9.0, -9.0, 9.0, 0.0]))
    seen = passes.look(model, *makers.images(4, 4), passes.summed(0.3))
    assert next(layer.saturated for layer in seen.layers if layer.name == "1") == pytest.approx(0.75)


def test_parameters_of_the_loss_are_no_strays():
    model, weight = makers.small(), torch.ones(1, requires_grad=True)
    images, labels = makers.images(8)

    def weighed(outputs, labels):
        return weight * torch.nn.functional.cross_entropy(outputs, labels)

    assert passes.look(model, images, labels, weighed).strays == 0

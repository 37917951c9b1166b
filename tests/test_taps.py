"""Hooks exist only inside the block: they are counted before, within and after."""

import pytest
import torch
from torch import nn

from striate.errors import UserError
from striate.taps import layer_names, taps


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Sequential(nn.Linear(4, 2), nn.ReLU()))


def hooks(model: nn.Module) -> int:
    return sum(len(layer._forward_hooks) for layer in model.modules())


def test_the_function_sees_layer_inputs_and_output():
    model, seen = network(), []
    x = torch.randn(5, 3)
    with taps(model, {"2.0": lambda layer, inputs, output: seen.append((layer, inputs[0], output))}):
        model(x)
        model(x)
    layer, given, output = seen[0]
    assert len(seen) == 2 and layer is model[2][0]
    assert torch.equal(output, layer(given))


def test_hooks_are_gone_after_the_block():
    model = network()
    look = {"0": lambda *_: None, "2": lambda *_: None, "": lambda *_: None}
    with taps(model, look):
        assert hooks(model) == 3
        with taps(model, {"0": lambda *_: None}):
            assert hooks(model) == 4
        assert hooks(model) == 3
    assert hooks(model) == 0


def test_hooks_are_gone_after_an_exception():
    model = network()

    def fail(*_):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"), taps(model, {"0": fail, "1": fail}):
        model(torch.randn(1, 3))
    assert hooks(model) == 0


def test_what_the_function_returns_does_not_reach_the_network():
    model, x = network(), torch.randn(2, 3)
    expected = model(x)
    with taps(model, {"0": lambda layer, inputs, output: output * 0}):
        assert torch.equal(model(x), expected)


def test_an_unknown_layer_is_answered_with_the_nearest_and_leaves_no_hook():
    model = nn.Sequential()
    model.add_module("conv1", nn.Conv2d(3, 4, 1))
    look = {"conv1": lambda *_: None, "conv2": lambda *_: None}
    with pytest.raises(UserError, match=r"'conv2' is no layer of this Sequential\. Did you mean 'conv1'\?"), taps(model, look):
        pass
    assert hooks(model) == 0


def test_layer_names_of_a_kind():
    assert layer_names(network(), nn.ReLU) == ("1", "2.1")
    assert layer_names(network(), (nn.ReLU, nn.Linear)) == ("0", "1", "2.0", "2.1")


def test_functions_before_a_pass_are_called_before_those_after_it_and_go_as_well():
    model, order = network(), []
    with taps(model, {"2.0": lambda *_: order.append("after")}, before={"2": lambda *_: order.append("before")}):
        model(torch.randn(5, 3))
    model(torch.randn(5, 3))
    assert order == ["before", "after"]
    assert not any(layer._forward_pre_hooks for layer in model.modules())
    with pytest.raises(UserError, match=r"'2\.1\.0' is no layer"), taps(model, {}, before={"2.1.0": lambda *_: None}):
        pass


def test_what_a_function_instead_returns_goes_on_through_the_network():
    torch.manual_seed(2)
    model, x = network(), torch.randn(2, 3)
    seen = []
    with taps(model, {"1": lambda layer, inputs, output: seen.append(inputs[0])}, instead={"0": lambda *all_: all_[2] * 0 + 2}):
        found = model(x)
    assert torch.equal(seen[0], torch.full((2, 4), 2.0))
    assert torch.equal(found, model[2](torch.full((2, 4), 2.0)))
    assert not torch.equal(model(x), found) and hooks(model) == 0


def test_a_copy_that_asks_for_a_gradient_is_the_start_of_the_graph():
    model, x = network(), torch.randn(2, 3)
    leaves = []

    def cut(layer, inputs, output):
        leaves.append(output.detach().requires_grad_())
        return leaves[0].clone()

    with taps(model, {}, instead={"0": cut}):
        model(x).sum().backward()
    assert model[0].weight.grad is None and model[2][0].weight.grad is not None
    leaf = model[0](x).detach().requires_grad_()
    model[2](model[1](leaf)).sum().backward()
    assert torch.equal(leaves[0].grad, leaf.grad)


def test_functions_that_replace_are_gone_after_an_exception_and_unknown_layers_leave_none():
    model = network()

    def fail(*_):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"), taps(model, {}, instead={"0": fail, "1": fail}):
        assert hooks(model) == 2
        model(torch.randn(1, 3))
    assert hooks(model) == 0
    with pytest.raises(UserError, match=r"'3' is no layer"), taps(model, {}, instead={"0": fail, "3": fail}):
        pass
    assert hooks(model) == 0

"""C13: weights go into a network whatever wrapped it when they were saved, all of them or none."""

import pytest
import torch
from torch import nn

from striate.errors import CheckpointError
from striate.models import weights


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.BatchNorm2d(4), nn.Linear(4, 2)))


class Wrapped(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.module = inner


@pytest.mark.parametrize("change", ["module.{}", "_orig_mod.{}", "module._orig_mod.module.{}", "nested"])
def test_c13_wrappers_names_are_passed_over_at_any_depth(change):
    source, target = network(), network()
    tensors = {
        name.replace("1.", "1._orig_mod.", 1) if change == "nested" else change.format(name): tensor
        for name, tensor in source.state_dict().items()
    }
    weights.put(target, tensors, "here")
    assert all(torch.equal(tensor, target.state_dict()[name]) for name, tensor in source.state_dict().items())


def test_c13_a_wrapped_network_takes_the_weights_of_a_plain_one():
    source, target = network(), Wrapped(network())
    weights.put(target, source.state_dict(), "here")
    assert torch.equal(target.module[0].weight, source[0].weight)


def test_c13_nothing_is_copied_unless_everything_fits():
    source, target = network(), network()
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    tensors = dict(source.state_dict())
    tensors["module.0.weight"] = tensors["0.weight"]
    tensors["more"] = tensors.pop("0.bias")
    tensors["1.1.bias"] = torch.zeros(9)
    with pytest.raises(CheckpointError) as caught:
        weights.put(target, tensors, "file")
    for words in ("file: not weights of this Sequential", "1 missing: 0.bias", "1 unknown: more", "1.1.bias [9] for [2]",
                  "1 twice: module.0.weight"):  # fmt: skip
        assert words in str(caught.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in target.state_dict().items())


def test_a_variant_is_compared_only_where_both_sides_have_one():
    model = network()
    weights.put(model, network().state_dict(), "here", "v1")
    model.variant = "v1.5"
    weights.put(model, network().state_dict(), "here")
    with pytest.raises(CheckpointError, match=r"of variant 'v1', the network is 'v1\.5'"):
        weights.put(model, network().state_dict(), "here", "v1")
    assert weights.variant_of(model) == "v1.5" and weights.variant_of(network()) is None

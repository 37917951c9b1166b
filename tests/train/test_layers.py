"""Which layers train and how fast: freezing by name, rates by distance from the head."""

from __future__ import annotations

import copy

import pytest
import torch
import torchvision.models
from torch import nn

from striate.errors import UserError
from striate.evaluate.predict import evaluation_mode
from striate.models import catalog, heads
from striate.train import layers


def _trained(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def _all(model: nn.Module) -> set[str]:
    return {name for name, _ in model.named_parameters()}


def _resting(model: nn.Module) -> set[str]:
    return {name for name, layer in model.named_modules() if not layer.training}


def _resnet() -> tuple[nn.Module, tuple[str, ...]]:
    options = {"width": 8}
    return catalog.build("resnet18", 3, options), heads.of("resnet18", options)


def _googlenet() -> nn.Module:
    """torchvision's, on the meta device: two auxiliary heads are registered between the last block and the head."""
    with torch.device("meta"):
        return torchvision.models.googlenet(weights=None, num_classes=7, init_weights=False)


GOOGLENET_HEADS = tuple(f"{head}.{kind}" for head in ("aux1.fc2", "aux2.fc2", "fc") for kind in ("weight", "bias"))


# ---------------------------------------------------------------- freeze


def test_none_leaves_the_network_as_it_is() -> None:
    model, head = _resnet()
    layers.freeze(model, "none", head)
    assert _trained(model) == _all(model) and _resting(model) == set()


def test_of_a_frozen_backbone_the_head_alone_trains_and_every_batch_norm_rests() -> None:
    model, head = _resnet()
    layers.freeze(model, "backbone", head)
    assert _trained(model) == {"fc.weight", "fc.bias"} == set(head)
    norms = {name for name, layer in model.named_modules() if isinstance(layer, nn.BatchNorm2d)}
    assert _resting(model) == norms and len(norms) == 20


def test_until_a_layer_is_that_layer_and_all_before_it() -> None:
    model, head = _resnet()
    layers.freeze(model, "until:layer2.0", head)
    assert _all(model) - _trained(model) == {
        name for name in _all(model) if name.startswith(("conv1.", "bn1.", "layer1.", "layer2.0."))
    }
    assert "layer2.0.downsample.1" in _resting(model) and "layer2.1.bn1" not in _resting(model)


def test_until_a_layer_without_weights_is_all_before_it() -> None:
    model, head = _resnet()
    layers.freeze(model, "until:maxpool", head)
    assert _all(model) - _trained(model) == {"conv1.weight", "bn1.weight", "bn1.bias"}


def test_a_name_that_begins_alike_is_another_layer() -> None:
    model = nn.Sequential()
    for name in ("conv1", "conv10", "conv11"):
        model.add_module(name, nn.Conv2d(3, 3, 1))
    layers.freeze(model, "until:conv1", ("conv11.weight",))
    assert _all(model) - _trained(model) == {"conv1.weight", "conv1.bias"}


def test_auxiliary_heads_train_with_a_frozen_backbone() -> None:
    model = _googlenet()
    layers.freeze(model, "backbone", GOOGLENET_HEADS)
    assert _trained(model) == set(GOOGLENET_HEADS)


def test_batch_norms_without_weights_rest_too_and_dropout_does_not() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, affine=False), nn.Dropout(0.5), nn.Flatten(), nn.Linear(4, 2))
    layers.freeze(model, "until:2", ("4.weight", "4.bias"))
    assert _resting(model) == {"1"}


def test_an_unknown_layer_is_told_with_the_nearest() -> None:
    model, head = _resnet()
    with pytest.raises(UserError, match=r"until:layer5: this ResNet has no such layer. .*layer4"):
        layers.freeze(model, "until:layer5", head)


@pytest.mark.parametrize("layer", ["fc", "layer4"])
def test_when_nothing_is_left_to_train_it_says_so(layer: str) -> None:
    model, head = _resnet()
    if layer == "fc":
        with pytest.raises(UserError, match=r"until:fc: nothing is left to train"):
            layers.freeze(model, "until:fc", head)
    else:
        layers.freeze(model, "until:layer4", head)
        assert _trained(model) == set(head)


def test_scoring_gives_frozen_layers_their_mode_back() -> None:
    model, head = _resnet()
    layers.freeze(model, "until:layer1", head)
    before = _resting(model)
    with evaluation_mode(model):
        assert not any(layer.training for layer in model.modules())
    assert _resting(model) == before


def test_how_much_trains_is_said() -> None:
    model, head = _resnet()
    layers.freeze(model, "backbone", head)
    assert layers.frozen_in_words(model, "backbone") == "--freeze backbone: 195 of 176,907 parameters train, in fc."


# ---------------------------------------------------------------- rates


def test_rates_of_a_resnet_fall_from_block_to_block() -> None:
    """Ten layers: conv1 with its norm, eight blocks, the head."""
    model, head = _resnet()
    found = layers.rates(model, head, 10.0, 0.5)
    assert found.keys() == _all(model)
    expected = {"fc": 10.0, "layer4.1": 2**-1, "layer4.0": 2**-2, "layer3.1": 2**-3, "layer3.0": 2**-4, "layer2.1": 2**-5}
    expected |= {"layer2.0": 2**-6, "layer1.1": 2**-7, "layer1.0": 2**-8, "bn1": 2**-9, "conv1": 2**-9}
    for layer, rate in expected.items():
        assert {found[name] for name in found if name.startswith(f"{layer}.")} == {rate}, layer


def test_a_batch_norm_beside_its_convolution_is_no_layer_of_its_own() -> None:
    """As in VGG's `features`; a subclass of Sequential is a block."""

    class Block(nn.Sequential):
        pass

    features = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), Block(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)))
    model = nn.Sequential(features, nn.Flatten(), nn.Linear(4, 2))
    found = layers.rates(model, ("2.weight", "2.bias"), 1.0, 0.1)
    assert {name: round(rate, 9) for name, rate in found.items()} == {
        **dict.fromkeys(("0.0.weight", "0.0.bias", "0.1.weight", "0.1.bias"), 0.01),
        **dict.fromkeys(("0.3.0.weight", "0.3.0.bias", "0.3.1.weight", "0.3.1.bias"), 0.1),
        **dict.fromkeys(("2.weight", "2.bias"), 1.0),
    }


def test_auxiliary_heads_are_heads_and_no_layers_on_the_way() -> None:
    model = _googlenet()
    found = layers.rates(model, GOOGLENET_HEADS, 4.0, 0.9)
    assert {found[name] for name in GOOGLENET_HEADS} == {4.0}
    assert found["aux1.conv.conv.weight"] == found["aux2.fc1.bias"] == 0.9
    assert {found[name] for name in found if name.startswith("inception5b.")} == {0.9}
    assert found["conv1.conv.weight"] == pytest.approx(0.9**12)  # three convolutions and nine inception blocks


def test_what_belongs_to_the_network_itself_goes_with_the_first_layer() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token = nn.Parameter(torch.zeros(1))
            self.blocks = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
            self.head = nn.Linear(2, 3)

    found = layers.rates(Tokens(), ("head.weight", "head.bias"), 1.0, 0.5)
    assert (found["token"], found["blocks.0.weight"], found["blocks.1.weight"], found["head.bias"]) == (0.25, 0.25, 0.5, 1.0)


def test_rates_are_said_by_group_for_what_trains() -> None:
    model, head = _resnet()
    found = layers.rates(model, head, 10.0, 0.5)
    frozen = copy.deepcopy(model)
    layers.freeze(frozen, "until:layer3.0", head)
    assert layers.rates_in_words(frozen, found) == (
        "Rates over --lr, by group of layers: layer3 0.125, layer4 0.25 to 0.5, fc 10."
    )
    assert "conv1 0.00195, bn1 0.00195, layer1 0.00391 to 0.00781" in layers.rates_in_words(model, found)

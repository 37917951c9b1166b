"""Initial weights: the deviation, the bounds and the biases that each way promises, layer by layer."""

import math
import typing

import pytest
import torch
from torch import nn

from striate.errors import UserError
from striate.models import catalog, init


def network() -> nn.Sequential:
    """Layers large enough that a deviation is within 1 % of its expectation, with batch norm that is not at its start."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(64, 128, 5, groups=2), nn.BatchNorm2d(128), nn.ReLU(), nn.Conv2d(128, 256, 3), nn.Flatten(), nn.Linear(512, 300)
    )
    model[1].weight.data.fill_(0.7)
    model[1].running_mean.fill_(3)
    return model


def weighted(model: nn.Module) -> list[nn.Module]:
    return [layer for layer in model.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]


# name: deviation of a layer from its inputs and outputs, which are counted as torch does, for each group; largest value allowed
DEVIATIONS = {
    "gaussian": (lambda inputs, outputs: 0.01, math.inf),
    "vgg": (lambda inputs, outputs: math.sqrt(1e-2), math.inf),
    "glorot": (lambda inputs, outputs: math.sqrt(2 / (inputs + outputs)), math.sqrt(3)),
    "he": (lambda inputs, outputs: math.sqrt(2 / inputs), math.inf),
    "uniform": (lambda inputs, outputs: 0.05 / math.sqrt(3), math.sqrt(3)),
    "rui": (lambda inputs, outputs: 0.05 / math.sqrt(3), math.sqrt(3)),
    "truncated-normal": (lambda inputs, outputs: 0.1, math.inf),
    "torch": (lambda inputs, outputs: 1 / math.sqrt(3 * inputs), math.sqrt(3)),
}


@pytest.mark.parametrize("name", DEVIATIONS)
def test_weights_have_the_deviation_and_the_bounds_of_their_distribution(name):
    model = network()
    for layer in weighted(model):
        nn.init.constant_(layer.weight, 9)
        nn.init.constant_(layer.bias, 9)
    init.apply(model, name)
    expected, most = DEVIATIONS[name]
    for layer in weighted(model):
        inputs, outputs = nn.init._calculate_fan_in_and_fan_out(layer.weight)
        std = expected(inputs, outputs)
        assert layer.weight.std().item() == pytest.approx(std, rel=0.02)
        assert abs(layer.weight.mean().item()) < 5 * std / math.sqrt(layer.weight.numel())
        largest = layer.weight.abs().max().item() / std
        if most < math.inf:
            assert 0.99 * most < largest <= most * (1 + 1e-6)
        else:
            assert largest > 3.5  # a normal one has tails
        if name == "torch":
            assert 0 < layer.bias.abs().max() <= 1 / math.sqrt(inputs)
        else:
            assert layer.bias.count_nonzero() == 0


@pytest.mark.parametrize("name", [name for name in DEVIATIONS if name != "torch"])
def test_batch_norm_stays_as_it_is(name):
    model = network()
    init.apply(model, name)
    assert model[1].weight.unique().tolist() == pytest.approx([0.7]) and model[1].running_mean.unique().tolist() == [3]


def test_torchs_own_start_is_that_of_new_layers():
    def layers():
        torch.manual_seed(5)
        return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 4))

    new, old = layers(), layers()
    init.vgg(old)
    torch.manual_seed(5)
    init.apply(old, "torch")
    for key, value in new.state_dict().items():
        assert torch.equal(value, old.state_dict()[key])
    model = network()
    init.apply(model, "torch")
    assert model[1].weight.unique().tolist() == [1] and model[1].running_mean.count_nonzero() == 0


def test_paper_leaves_everything():
    model = network()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    init.apply(model, "paper")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_every_name_can_be_applied_and_reaches_the_network_as_an_option():
    names = typing.get_args(init.Name)
    assert set(names) == {*DEVIATIONS, "paper", "alexnet", "zero-gamma"}
    for name in names:
        init.apply(catalog.build("resnet18" if name == "zero-gamma" else "alexnet", 3, {"width": "6"}), name)
    model = catalog.build("alexnet", 3, {"width": "6", "init": "uniform"})
    assert model.get_parameter("fc8.weight").abs().max() <= 0.05
    with pytest.raises(UserError, match=r"option 'init': expected 'paper' or 'gaussian' or .* found 'xavier'"):
        catalog.build("alexnet", 3, {"width": "6", "init": "xavier"})


def test_alexnets_biases_are_1_where_the_paper_says():
    for name in ("alexnet", "zfnet"):
        layers = weighted(catalog.build(name, 10, {"width": "24", "init": "alexnet"}))
        assert [layer.bias.unique().tolist() for layer in layers] == [[0], [1], [0], [1], [1], [1], [1], [0]]
        assert [layer.weight.std().item() for layer in layers] == pytest.approx([0.01] * 8, rel=0.03)


@pytest.mark.parametrize(("name", "found"), [("resnet18", "20 convolutions and 1 linear"), ("all-cnn-c", "9 convolutions and 0")])
def test_alexnets_biases_on_another_network_are_refused_with_the_way_out(name, found):
    with pytest.raises(UserError, match=rf"init alexnet: .* found {found}.* Take gaussian"):
        catalog.build(name, 10, {"init": "alexnet"})


def test_a_layer_may_carry_its_own_deviation_as_torchvisions_inception_does():
    model = network()
    model[3].stddev = 0.01
    init.truncated_normal(model)
    assert [layer.weight.std().item() for layer in weighted(model)] == pytest.approx([0.1, 0.01, 0.1], rel=0.02)
    wide = nn.Sequential(nn.Linear(300, 300))
    init.truncated_normal(wide, std=2.0)
    assert 1.99 < wide[0].weight.abs().max() <= 2  # cut by value


def test_he_by_outputs_is_torchvisions_for_convolutions():
    model = network()
    init.he_normal_fan_out(model)
    assert model[3].weight.std().item() == pytest.approx(math.sqrt(2 / (256 * 9)), rel=0.02)
    assert model[3].bias.count_nonzero() == 0 and model[1].weight.unique().tolist() == [1]


def last_norms(model: nn.Module) -> list[str]:
    """Batch norms whose scale is 0 throughout."""
    found = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.BatchNorm2d)]
    return [name for name, layer in found if layer.weight.count_nonzero() == 0]


BLOCKS = {  # network: residual blocks, name of the last batch norm of each
    "resnet18": (8, "bn2"),
    "resnet50": (16, "bn3"),
    "resnext50": (16, "bn3"),
    "se-resnet50": (16, "bn3"),
    "resnet20": (9, "bn2"),
    "torchvision/resnet18": (8, "bn2"),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_zero_gamma_finds_the_last_batch_norm_of_every_block(name):
    blocks, last = BLOCKS[name]
    model = catalog.build(name, 3, {} if "/" in name else {"width": 16})
    before = {key: value.clone() for key, value in model.state_dict().items()}
    init.apply(model, "zero-gamma")
    # Where the shortcut pads zeros, the branch's own channels keep scale 1.
    padded = {
        f"{place}.{last}": block.downsample.missing
        for place, block in model.named_modules()
        if getattr(getattr(block, "downsample", None), "missing", 0)
    }
    for place, missing in padded.items():
        scale = model.get_submodule(place).weight
        assert torch.equal(scale != 0, torch.arange(len(scale)) >= len(scale) - missing)
    found = {*last_norms(model), *padded}
    assert len(found) == blocks and all(name.endswith(f".{last}") for name in found)
    assert bool(padded) == (name == "resnet20")
    untouched = {key for key, value in model.state_dict().items() if torch.equal(value, before[key])}
    assert set(before) - untouched == {f"{name}.weight" for name in found}


def test_zero_gamma_makes_a_residual_block_its_shortcut():
    model = catalog.build("resnet18", 3, {"width": "8", "init": "zero-gamma"})
    same = catalog.build("resnet18", 3, {"width": "8", "zero_gamma": "true"})
    assert last_norms(model) == last_norms(same)
    block = model.get_submodule("layer1.1").eval()
    image = torch.rand(1, 8, 4, 4)
    assert torch.equal(block(image), image)


def test_zero_gamma_of_xception_leaves_the_shortcuts_and_the_ends():
    found = last_norms(catalog.build("xception", 3, {"init": "zero-gamma"}))
    assert len(found) == 12 and all(name.startswith("block") and ".rep." in name for name in found)


@pytest.mark.parametrize("name", ["alexnet", "plain18", "densenet121", "bn-inception"])
def test_zero_gamma_without_residual_blocks_is_refused(name):
    with torch.device("meta"), pytest.raises(UserError, match=r"init zero-gamma: .* has no residual block"):
        catalog.build(name, 10, {"init": "zero-gamma"})

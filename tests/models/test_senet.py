"""SE-ResNet, SE-ResNeXt, SENet-154 against timm's, SE-BN-Inception against its trunk: names, logits, grids, gates, options."""

from functools import partial

import pytest
import timm
import timm.models.senet as theirs_module
import torch
from torch import nn

from striate.errors import UserError
from striate.models import catalog, senet
from striate.models.blocks import SqueezeExcite
from striate.models.bn_inception import BNInception
from striate.taps import taps

THEIRS = {
    "se-resnet50": "legacy_seresnet50",
    "se-resnet101": "legacy_seresnet101",
    "se-resnet152": "legacy_seresnet152",
    "se-resnext50": "legacy_seresnext50_32x4d",
    "se-resnext101": "legacy_seresnext101_32x4d",
    "senet154": "legacy_senet154",
}


@pytest.fixture
def with_gates(as_after_training):
    """A function that prepares a network as `as_after_training`, the gates' biases drawn too."""

    def prepare(model: nn.Module) -> nn.Module:
        generator = torch.Generator().manual_seed(0)
        for name, layer in model.named_modules():
            if name.endswith(("fc1", "fc2")) and isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.bias, 0, 0.3, generator=generator)
        return as_after_training(model)

    return prepare


@pytest.mark.parametrize(
    ("block", "their_block", "groups", "is_154"),
    [
        (senet._RESNET, theirs_module.SEResNetBottleneck, 1, False),
        (senet._RESNEXT, theirs_module.SEResNeXtBottleneck, 32, False),
        (senet._154, theirs_module.SEBottleneck, 64, True),
    ],
)
def test_logits_equal_timms_with_two_blocks_in_each_stage(block, their_block, groups, is_154, with_gates, same_logits):
    deep = {"inplanes": 128, "input_3x3": True, "downsample_kernel_size": 3, "downsample_padding": 1} if is_154 else {}
    theirs = with_gates(theirs_module.SENet(their_block, (2, 2, 2, 2), groups, 16, num_classes=20, **deep))
    ours = senet.SENet(20, partial(block, reduction=16, bias=True), (2, 2, 2, 2), 64, is_154, 0.2 if is_154 else 0)
    ours.load_state_dict(theirs.state_dict())
    same_logits(ours, theirs, 64, 97)


@pytest.mark.parametrize("name", THEIRS)
def test_names_shapes_strides_and_pools_are_timms(name):
    with torch.device("meta"):
        ours, theirs = catalog.build(name, 1000, {}), timm.create_model(THEIRS[name])
    expected = {key: value.shape for key, value in theirs.state_dict().items()}
    assert {key: value.shape for key, value in ours.state_dict().items()} == expected
    assert list(ours.state_dict()) == list(expected)

    def geometry(model):
        return {
            key: (layer.stride, layer.padding, layer.groups) if isinstance(layer, nn.Conv2d) else repr(layer)
            for key, layer in model.named_modules()
            if isinstance(layer, (nn.Conv2d, nn.MaxPool2d))
        }

    assert geometry(ours) == geometry(theirs)


@pytest.mark.parametrize("name", ["se-resnet50", "se-resnext50", "senet154"])
def test_grids(name):
    with torch.device("meta"):
        model = catalog.build(name, 1000, {}).eval()
    found = []
    stages = ["layer0", "pool0", "layer1", "layer2", "layer3", "layer4"]
    with taps(model, dict.fromkeys(stages, lambda layer, inputs, output: found.append(tuple(output.shape[1:3])))):
        model(torch.empty(1, 3, 224, 224, device="meta"))
    stem = 128 if name == "senet154" else 64
    assert found == [(stem, 112), (stem, 56), (256, 56), (512, 28), (1024, 14), (2048, 7)]


def test_se_bn_inception_is_bn_inception_with_a_gate_behind_each_module(with_gates):
    """With gates wide open (a bias of 40 in float32 is exactly 1) it computes what its trunk computes."""
    ours = with_gates(catalog.build("se-bn-inception", 20, {}))
    trunk = BNInception(20).eval()
    state = ours.state_dict()
    gates = [name for name, layer in ours.named_modules() if isinstance(layer, SqueezeExcite)]
    assert gates == [f"inception_{module}_se" for module in ("3a", "3b", "3c", "4a", "4b", "4c", "4d", "4e", "5a", "5b")]
    trunk.load_state_dict({name: value for name, value in state.items() if "_se." not in name})
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        gated = ours(images)
        for name in gates:
            ours.get_submodule(name).fc2.weight.zero_()
            ours.get_submodule(name).fc2.bias.fill_(40)
        opened, expected = ours(images), trunk(images)
    assert torch.equal(opened, expected)
    assert (expected[0] - expected[1]).abs().max() > 0.01 * expected.abs().max()
    assert not torch.allclose(gated, expected, rtol=1e-2)


def test_a_gate_scales_the_residual_and_not_the_shortcut(with_gates):
    block = with_gates(senet.se_resnet50(10, width=16)).layer3[1]
    x = torch.rand(1, block.conv1.in_channels, 4, 4)
    with torch.inference_mode():
        block.se_module.fc2.weight.zero_()
        block.se_module.fc2.bias.fill_(-200)
        assert torch.equal(block(x), x)


@pytest.mark.parametrize("build", [senet.se_resnext50, senet.se_bn_inception])
def test_initialisation_is_hes(build):
    torch.manual_seed(0)
    for layer in build(10).modules():
        if isinstance(layer, nn.Conv2d):
            expected = (2 / (layer.kernel_size[0] ** 2 * layer.out_channels)) ** 0.5
            assert layer.weight.std().item() == pytest.approx(expected, rel=0.1)
            assert layer.bias is None or not layer.bias.any()


def test_gates_start_half_open():
    torch.manual_seed(0)
    model = senet.se_resnext50(10)
    gates = []
    names = [f"{name}.fc2" for name, layer in model.named_modules() if isinstance(layer, SqueezeExcite)]
    with torch.inference_mode(), taps(model, dict.fromkeys(names, lambda layer, _, output: gates.append(output.sigmoid()))):
        model(torch.randn(2, 3, 64, 64))
    assert len(gates) == 16
    assert all(0.2 < gate.mean() < 0.8 for gate in gates)


@pytest.mark.parametrize("name", ["se-resnet50", "se-resnext50", "se-bn-inception", "senet154"])
def test_options_of_the_gates(name):
    with torch.device("meta"):
        model = catalog.build(name, 7, {"r": "4", "bias": "false"})
    for gate in [layer for layer in model.modules() if isinstance(layer, SqueezeExcite)]:
        assert gate.fc1.in_channels == 4 * gate.fc1.out_channels == gate.fc2.out_channels
        assert gate.fc1.bias is None and gate.fc2.bias is None


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("se-resnet50", {"r": 7}, "r: expected a divisor of 256, the channels of a block, found 7"),
        ("se-bn-inception", {"r": 0}, "r: expected a divisor of 256, the channels of a block, found 0"),
        ("se-resnext50", {"width": 24}, "width: 32 groups need a multiple of 16 channels, found 24"),
        ("senet154", {"width": 48}, "width: 64 groups need a multiple of 32 channels, found 48"),
        ("se-resnet101", {"width": 0}, "width: expected 1 channel or more, found 0"),
        ("se-resnet50", {"reduction": 4}, "se-resnet50 has no option 'reduction'"),
    ],
)
def test_options_that_do_not_fit(name, options, message):
    with torch.device("meta"), pytest.raises(UserError, match=message):
        catalog.build(name, 7, options)


@pytest.mark.parametrize("name", ["se-resnet50", "se-resnext50", "se-bn-inception", "senet154"])
def test_the_smallest_input(name):
    with torch.device("meta"):
        model = catalog.build(name, 7, {}).eval()
        smallest = model.smallest_px
        assert model(torch.empty(1, 3, smallest, smallest)).shape == (1, 7)
        with pytest.raises(UserError, match=f"the smallest is {smallest}x{smallest}"):
            model(torch.empty(1, 3, smallest, smallest - 1))
    if name in THEIRS:  # what the check forestalls
        model.smallest_px = 0
        with torch.device("meta"), pytest.raises(RuntimeError, match="Output size is too small"):
            model(torch.empty(1, 3, smallest - 1, smallest - 1))


def test_senet154_alone_drops_a_fifth_of_the_features_in_training_only(shares_dropped):
    with torch.device("meta"):
        assert senet.senet154(7).dropout.p == 0.2
        assert type(senet.se_resnet50(7).dropout) is nn.Identity
    torch.manual_seed(0)
    shallow = senet.SENet(7, partial(senet._154, reduction=16, bias=True), (1, 1, 1, 1), 32, True, 0.2)
    assert shares_dropped(shallow, torch.randn(2, 3, 64, 64)) == [pytest.approx(0.2, abs=0.05), 0]

"""ResNet against torchvision's: names, logits, shortcuts, variants, initialisation, and the layers that hooks rely on."""

import inspect
from functools import partial

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional

from striate.errors import CheckpointError, UserError
from striate.models import catalog, resnet, weights
from striate.taps import layer_names, taps

OURS = {
    "resnet18": resnet.resnet18,
    "resnet34": resnet.resnet34,
    "resnet50": resnet.resnet50,
    "resnet101": resnet.resnet101,
    "resnet152": resnet.resnet152,
}
# Two blocks in each stage, so that there is one with and one without a change of shape: (block of ours, of torchvision).
SMALL = {
    "basic": (resnet.BasicBlock, torchvision.models.resnet.BasicBlock),
    "bottleneck": (resnet.Bottleneck, torchvision.models.resnet.Bottleneck),
}
DEPTHS = (2, 2, 2, 2)


@pytest.fixture
def has_their_logits(as_after_training, same_logits):
    """A function that asserts that their weights as after a training, loaded by name, give their logits."""

    def compare(ours, theirs, *sizes_px):
        as_after_training(theirs)
        ours.load_state_dict(theirs.state_dict())
        same_logits(ours, theirs, *sizes_px)

    return compare


@pytest.mark.parametrize("name", ["resnet34", "resnet50"])
def test_logits_equal_torchvisions_with_its_weights(name, has_their_logits):
    has_their_logits(OURS[name](20), torchvision.models.get_model(name, weights=None, num_classes=20), 64, 97)


class Instead(nn.Module):
    """A shortcut that torchvision has not, for a block of theirs."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def with_shortcuts(kind, make):
    """torchvision's network with other shortcuts: make(input channels, output channels, stride, whether the shape changes)."""
    theirs = torchvision.models.ResNet(SMALL[kind][1], list(DEPTHS), num_classes=20)
    for block in [layer for layer in theirs.modules() if isinstance(layer, SMALL[kind][1])]:
        channels = block.conv1.in_channels, block.conv2.out_channels * block.expansion
        block.downsample = make(*channels, block.stride, block.downsample is not None)
    return theirs


@pytest.mark.parametrize("kind", SMALL)
def test_option_a_is_every_second_pixel_and_zeros_where_the_shape_changes(kind, has_their_logits):
    def shortcut(channels, out_channels, stride, needed):
        def subsampled(x):
            zeros = x.new_zeros(len(x), out_channels - channels, 1, 1)
            small = functional.avg_pool2d(x, 1, stride)
            return torch.cat([small, zeros.expand(-1, -1, *small.shape[2:])], 1)

        return Instead(subsampled) if needed else None

    theirs = with_shortcuts(kind, shortcut)
    block = partial(SMALL[kind][0], option="A")
    ours = resnet.ResNet(20, block, DEPTHS, "option-a", "imagenet", 64)
    assert not any("downsample" in name for name in ours.state_dict())
    has_their_logits(ours, theirs, 64, 97)


@pytest.mark.parametrize("kind", SMALL)
def test_option_c_is_a_projection_in_every_block(kind, has_their_logits):
    def shortcut(channels, out_channels, stride, needed):
        return nn.Sequential(nn.Conv2d(channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))

    theirs = with_shortcuts(kind, shortcut)
    ours = resnet.ResNet(20, partial(SMALL[kind][0], option="C"), DEPTHS, "basic", "imagenet", 64)
    has_their_logits(ours, theirs, 64, 97)


def test_a_plain_network_is_a_resnet_whose_shortcuts_are_deleted(has_their_logits):
    theirs = with_shortcuts("basic", lambda *_: Instead(lambda x: x.new_zeros(())))
    has_their_logits(resnet.plain18(20), theirs, 64, 97)


@pytest.mark.parametrize("kind", SMALL)
def test_caffes_stem_pools_without_padding_and_rounds_up(kind, has_their_logits):
    """Its windows begin at the first pixel, torchvision's one before it."""
    theirs = torchvision.models.ResNet(SMALL[kind][1], list(DEPTHS), num_classes=20)
    theirs.maxpool = nn.MaxPool2d(3, 2, ceil_mode=True)
    ours = resnet.ResNet(20, SMALL[kind][0], DEPTHS, "v1.5", "caffe", 64)
    has_their_logits(ours, theirs, 64, 97)
    ours.maxpool = nn.MaxPool2d(3, 2, padding=1)
    with pytest.raises(AssertionError):
        has_their_logits(ours, theirs, 64)


def test_the_networks_of_the_table_have_the_shortcuts_and_strides_of_their_names():
    for name, entry in resnet.NETWORKS.items():
        with torch.device("meta"):
            model = entry.builder(10, width=8)
        blocks = [block for number in range(1, 5) for block in model.get_submodule(f"layer{number}")]
        layers = 2 + sum(2 if isinstance(block, (resnet.BasicBlock, resnet.PlainBlock)) else 3 for block in blocks)
        assert f"{layers}" in name, name
        kinds = {type(getattr(block, "downsample", None)) for block in blocks}
        expected = {
            "plain": {type(None)},
            "-a": {type(None), resnet.ZeroPadded},
            "-c": {nn.Sequential},
        }
        ending = "plain" if name.startswith("plain") else name[-2:]
        assert kinds == expected.get(ending, {type(None), nn.Sequential}), name
        if isinstance(blocks[0], resnet.Bottleneck):
            first = model.layer3[0].conv1.stride == (2, 2)
            assert first == name.endswith("-v1") and first != (model.layer3[0].conv2.stride == (2, 2)), name


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("resnet18", "basic"),
        ("resnet34-v1", "basic"),
        ("resnet34-a", "option-a"),
        ("resnet34-c", "basic"),
        ("plain34", "plain"),
        ("resnet101", "v1.5"),
        ("resnet152-v1", "v1"),
        ("resnet50-a", "option-a"),
        ("resnet50-c", "v1.5"),
    ],
)
def test_variants(name, variant):
    assert catalog.build(name, 10, {"width": 4}).variant == variant
    assert catalog.build(name, 10, {"width": 4, "stem": "small"}).variant == variant  # its kernels have another shape
    assert catalog.build(name, 10, {"width": 4, "stem": "caffe"}).variant == f"{variant}, stem caffe"


def test_plain_and_option_a_have_the_same_weights_and_refuse_each_others():
    plain, option_a = resnet.plain18(10, width=4), resnet.resnet18_a(10, width=4)
    shapes = {name: value.shape for name, value in plain.state_dict().items()}
    assert shapes == {name: value.shape for name, value in option_a.state_dict().items()}
    for model, other in ((plain, option_a), (option_a, plain)):
        with pytest.raises(CheckpointError, match=f"of variant '{other.variant}', the network is '{model.variant}'"):
            weights.put(model, other.state_dict(), "file", other.variant)
    with pytest.raises(CheckpointError, match=r"missing: layer2\.0\.downsample\.0\.weight"):
        weights.put(resnet.resnet18(10, width=4), plain.state_dict(), "file")


def test_every_builder_says_what_it_is_and_lists_its_options():
    for name, entry in resnet.NETWORKS.items():
        text = inspect.getdoc(entry.builder) or ""
        options = set(inspect.signature(entry.builder, eval_str=True).parameters) - {"num_classes"}
        assert "parameters" in text.splitlines()[0] or "G MACs" in text.splitlines()[0], name
        assert all(option in text for option in options) or "Options as" in text, name
        assert options == ({"stem", "width"} | (set() if "plain" in name else {"zero_gamma", "stochastic_depth"})), name


def test_state_dict_names_and_their_order_are_torchvisions():
    for name, build in OURS.items():
        with torch.device("meta"):
            theirs = torchvision.models.get_model(name, weights=None).state_dict()
            ours = build(1000).state_dict()
        assert [(key, value.shape) for key, value in ours.items()] == [(key, value.shape) for key, value in theirs.items()]


def test_v1_strides_in_the_first_1x1_and_has_the_same_weights_but_other_logits(as_after_training):
    v15, v1 = as_after_training(resnet.resnet50(10, width=16)), resnet.resnet50_v1(10, width=16).eval()
    v1.load_state_dict(v15.state_dict())
    assert (v15.variant, v1.variant) == ("v1.5", "v1")
    assert v15.layer2[0].conv1.stride == (1, 1) and v15.layer2[0].conv2.stride == (2, 2)
    assert v1.layer2[0].conv1.stride == (2, 2) and v1.layer2[0].conv2.stride == (1, 1)
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert not torch.allclose(v15(images), v1(images), rtol=1e-2)


@pytest.mark.parametrize(("build", "expected"), [(resnet.resnet18, 17), (resnet.resnet50, 49)])
def test_every_relu_is_called_once_so_its_name_means_one_place(build, expected):
    model = build(10, width=8).eval()
    calls: list[nn.Module] = []
    relus = layer_names(model, nn.ReLU)
    with taps(model, dict.fromkeys(relus, lambda layer, inputs, output: calls.append(layer))):
        model(torch.randn(1, 3, 64, 64))
    assert len(relus) == len(calls) == len(set(calls)) == expected


def test_small_stem_keeps_the_side_and_has_no_pool():
    model = resnet.resnet18(10, stem="small", width=16).eval()
    stem = model.maxpool(model.relu(model.bn1(model.conv1(torch.randn(1, 3, 32, 32)))))
    assert stem.shape == (1, 16, 32, 32)
    assert model.fc.in_features == 128
    assert model(torch.randn(2, 3, 33, 40)).shape == (2, 10)


def test_initialisation_follows_he_by_outputs_and_zero_gamma_makes_blocks_the_identity():
    torch.manual_seed(0)
    model = resnet.resnet18(10, zero_gamma=True)
    weight = model.layer3[1].conv1.weight
    assert weight.std().item() == pytest.approx((2 / (9 * 256)) ** 0.5, rel=0.01)
    block = model.layer3[1].eval()
    x = torch.rand(1, 256, 4, 4)
    assert torch.equal(block(x), x)
    assert torch.equal(resnet.resnet18(10).layer3[1].bn2.weight, torch.ones(256))


def test_initialisation_of_every_convolution_is_hes_and_of_every_norm_the_identity():
    """He et al. 2015, equation 14: variance 2 / (kernel area x output channels); deviations within 5 % where weights are many."""
    torch.manual_seed(0)
    for layer in [*resnet.resnet50_c(10).modules(), *resnet.plain18(10).modules()]:
        if isinstance(layer, nn.Conv2d):
            expected = (2 / (layer.kernel_size[0] ** 2 * layer.out_channels)) ** 0.5
            assert layer.weight.std().item() == pytest.approx(expected, rel=0.05)
            assert abs(layer.weight.mean().item()) < 0.05 * expected
        elif isinstance(layer, nn.BatchNorm2d):
            assert torch.equal(layer.weight, torch.ones_like(layer.weight)) and not layer.bias.any()


@pytest.mark.parametrize("name", ["resnet18", "resnet50-v1", "resnet34-a", "resnet18-c", "plain18"])
def test_any_size_down_to_one_pixel_goes_in(name):
    with torch.device("meta"):
        model = catalog.build(name, 7, {"width": 8}).eval()
        for size in ((1, 1), (2, 3), (31, 57)):
            assert model(torch.empty(2, 3, *size)).shape == (2, 7)


@pytest.mark.parametrize("name", ["resnet18", "resnet50-v1", "plain34"])
def test_caffes_stem_takes_3_px(name):
    with torch.device("meta"):
        model = catalog.build(name, 7, {"width": 8, "stem": "caffe"}).eval()
        for size in ((3, 3), (4, 3), (31, 57)):
            assert model(torch.empty(2, 3, *size)).shape == (2, 7)
        with pytest.raises(UserError, match="ResNet: an input of 2x9 px is too small; the smallest is 3x3"):
            model(torch.empty(1, 3, 2, 9))
        model.smallest_px = 1
        with pytest.raises(RuntimeError, match="Output size is too small"):  # it is the true smallest
            model(torch.empty(1, 3, 2, 2))


@pytest.mark.parametrize("build", [resnet.resnet18, resnet.plain18])
def test_width_zero_is_refused(build):
    with pytest.raises(UserError, match="width: expected 1 channel or more, found 0"):
        build(10, width=0)


def test_stochastic_depth_changes_neither_names_nor_evaluation_nor_the_start():
    torch.manual_seed(0)
    plain = resnet.resnet50(10, width=8)
    torch.manual_seed(0)
    deep = resnet.resnet50(10, width=8, stochastic_depth=0.5)
    assert list(deep.state_dict()) == list(plain.state_dict())
    assert [name for name, _ in deep.named_modules()] == [name for name, _ in plain.named_modules()]
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(deep.eval()(images), plain.eval()(images))
        assert not torch.equal(deep.train()(images), plain.train()(images))


@pytest.mark.parametrize(("build", "last"), [(resnet.resnet18, 8), (resnet.resnet50, 16)])
def test_the_chance_to_be_left_out_grows_linearly_with_the_block(build, last):
    """Huang et al. 2016, equation 4: block l survives with 1 - l / L (1 - p_L)."""
    model = build(10, width=4, stochastic_depth=0.4)
    found = [layer.drop for layer in model.modules() if isinstance(layer, (resnet.BasicBlock, resnet.Bottleneck))]
    assert found == pytest.approx([0.4 * place / last for place in range(1, last + 1)])
    assert all(layer.drop == 0 for layer in build(10, width=4).modules() if hasattr(layer, "drop"))


@pytest.mark.parametrize(("build", "last_relu"), [(resnet.resnet18, "relu2"), (resnet.resnet50, "relu3")])
def test_an_image_keeps_the_shortcut_alone_or_a_residual_made_larger(build, last_relu):
    """The last block leaves out the residual of a quarter of the images; the others' is divided by 3/4."""
    block = build(10, width=4, stochastic_depth=0.25).layer4[-1].eval()
    setattr(block, last_relu, nn.Identity())
    image = torch.rand(1, block.conv1.in_channels, 2, 2, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        residual = block(image) - image
        block.training = True  # the block itself; its batch norms go on with their running statistics
        torch.manual_seed(0)
        added = block(image.expand(4000, -1, -1, -1).contiguous()) - image
    left_out = (added == 0).flatten(1).all(1)
    assert left_out.float().mean().item() == pytest.approx(0.25, abs=0.025)  # 3.6 deviations
    kept = added[~left_out]
    torch.testing.assert_close(kept, (residual / 0.75).expand_as(kept), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("value", [-0.1, 1.0, 2.0, float("nan")])
def test_stochastic_depth_outside_0_to_1_is_refused(value):
    with pytest.raises(UserError, match="stochastic_depth: expected a probability of 0 or more and below 1, found"):
        resnet.resnet18(10, stochastic_depth=value)


def test_stochastic_depth_is_an_option_of_the_command_line():
    assert catalog.build("resnet18", 10, {"width": "4", "stochastic_depth": "0.2"}).layer4[1].drop == pytest.approx(0.2)

"""AlexNet against torchvision's, against torch's own parts put together by hand, and the ablations of the paper."""

import math

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional

from striate.errors import UserError
from striate.models import alexnet, catalog
from striate.models.blocks import LocalResponseNorm


def meta(name: str, **options) -> nn.Module:
    with torch.device("meta"):
        return catalog.build(name, 1000, options).eval()


def parameters(model: nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())


def kinds(model: nn.Module, *wanted: type[nn.Module]) -> list[str]:
    return [name for name, layer in model.named_modules() if isinstance(layer, wanted)]


# ---------------------------------------------------------------- the parts


@pytest.mark.parametrize("size_px", [227, 226, 225, 224, 221, 64])
def test_windows_hang_over_the_right_and_bottom_edge_as_the_authors_do(size_px):
    """224 px give 55 with three columns of zeros; 227 px need none, which is Caffe's."""
    layer = alexnet.OverhangingConv2d(3, 2, 11, stride=4)
    images = torch.randn(1, 3, size_px, size_px)
    found = layer(images)
    side = math.ceil((size_px - 11) / 4) + 1
    assert found.shape[2:] == (side, side)
    padded = torch.zeros(1, 3, 4 * (side - 1) + 11, 4 * (side - 1) + 11)
    padded[:, :, :size_px, :size_px] = images
    assert torch.equal(found, functional.conv2d(padded, layer.weight, layer.bias, stride=4))
    assert (side == 55) == (size_px >= 224)


@pytest.mark.parametrize("size", [1, 4, 5])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_response_normalisation_is_torchs(size, layout):
    images = (30 * torch.randn(2, 7, 5, 4)).contiguous(memory_format=layout).requires_grad_()
    ours, theirs = LocalResponseNorm(size, 0.1, 0.75, 2.0), nn.LocalResponseNorm(size, 0.1, 0.75, 2.0)
    found, expected = ours(images), theirs(images)
    torch.testing.assert_close(found, expected)
    assert found.is_contiguous(memory_format=layout)
    gradients = [torch.autograd.grad((output * torch.arange(4)).sum(), images)[0] for output in (found, expected)]
    torch.testing.assert_close(*gradients)


def test_response_normalisation_by_hand_and_in_half_precision():
    """One channel of 3 with neighbours 1 and 2: (k + alpha / 5 x 14) to the power of 3/4 divides it."""
    values = torch.tensor([1.0, 3.0, 2.0]).view(1, 3, 1, 1)
    found = LocalResponseNorm(5, 1e-4, 0.75, 2.0)(values)
    assert found[0, 1].item() == pytest.approx(3 / (2 + 1e-4 / 5 * 14) ** 0.75)
    half = LocalResponseNorm(5, 1e-4, 0.75, 2.0)(torch.full((1, 5, 1, 1), 300.0, dtype=torch.float16))
    assert half.dtype == torch.float16  # 300 squared is more than float16 holds
    assert half[0, 2].item() == pytest.approx(300 / (2 + 1e-4 * 90_000) ** 0.75, rel=1e-3)


# ---------------------------------------------------------------- the paper's


def test_layers_have_caffes_names_and_stand_in_the_papers_order():
    layers = list(dict(meta("alexnet").named_children()))
    assert layers[:8] == ["conv1", "relu1", "norm1", "pool1", "conv2", "relu2", "norm2", "pool2"]
    assert layers[8:16] == ["conv3", "relu3", "conv4", "relu4", "conv5", "relu5", "pool5", "grid"]
    assert layers[16:] == ["flatten", "fc6", "relu6", "drop6", "fc7", "relu7", "drop7", "fc8"]
    caffe = list(dict(meta("caffenet").named_children()))
    assert caffe[:8] == ["conv1", "relu1", "pool1", "norm1", "conv2", "relu2", "pool2", "norm2"] and caffe[8:] == layers[8:]
    shapes = {name: tuple(weight.shape) for name, weight in meta("alexnet").named_parameters()}
    assert [shapes[f"conv{number}.weight"] for number in range(1, 6)] == [
        (96, 3, 11, 11),
        (256, 48, 5, 5),
        (384, 256, 3, 3),
        (384, 192, 3, 3),
        (256, 192, 3, 3),
    ]
    assert [shapes[f"fc{number}.weight"] for number in (6, 7, 8)] == [(4096, 9216), (4096, 4096), (1000, 4096)]


@pytest.mark.parametrize("name", ["alexnet", "caffenet"])
@pytest.mark.parametrize("size_px", [227, 224])
def test_logits_are_those_of_torchs_parts(name, size_px):
    """Written out once more with functions of torch, each GPU's half of a convolution by itself."""
    torch.manual_seed(0)
    model = catalog.build(name, 5, {"width": "6"}).eval()
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.3)
    w = dict(model.named_parameters())
    k = 2.0 if name == "alexnet" else 1.0

    def halves(x, layer, padding):
        parts = zip(x.chunk(2, 1), w[f"{layer}.weight"].chunk(2), w[f"{layer}.bias"].chunk(2), strict=True)
        return torch.cat([functional.conv2d(*part, padding=padding) for part in parts], 1).relu()

    def norm_and_pool(x):
        if name == "alexnet":
            return functional.max_pool2d(functional.local_response_norm(x, 5, 1e-4, 0.75, k), 3, 2)
        return functional.local_response_norm(functional.max_pool2d(x, 3, 2), 5, 1e-4, 0.75, k)

    images = torch.randn(2, 3, size_px, size_px)
    with torch.inference_mode():
        filled = functional.pad(images, (0, 227 - size_px, 0, 227 - size_px))
        x = norm_and_pool(functional.conv2d(filled, w["conv1.weight"], w["conv1.bias"], stride=4).relu())
        x = norm_and_pool(halves(x, "conv2", 2))
        x = functional.conv2d(x, w["conv3.weight"], w["conv3.bias"], padding=1).relu()
        x = functional.max_pool2d(halves(halves(x, "conv4", 1), "conv5", 1), 3, 2).flatten(1)
        for layer in ("fc6", "fc7"):
            x = functional.linear(x, w[f"{layer}.weight"], w[f"{layer}.bias"]).relu()
        expected = functional.linear(x, w["fc8.weight"], w["fc8.bias"])
        found = model(images)
    assert (expected[0] - expected[1]).abs().max() > 0.01 * expected.abs().max()
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_caffenet_starts_its_hidden_linear_layers_with_half_the_deviation():
    torch.manual_seed(0)
    model = catalog.build("caffenet", 10, {"width": "24"})
    std = {name: weight.std().item() for name, weight in model.named_parameters() if name.endswith("weight")}
    assert std.pop("fc6.weight") == pytest.approx(0.005, rel=0.03) and std.pop("fc7.weight") == pytest.approx(0.005, rel=0.03)
    assert list(std.values()) == pytest.approx([0.01] * 6, rel=0.03)
    assert model.get_parameter("fc6.bias").unique().tolist() == [1]


# ---------------------------------------------------------------- the ablations


def test_groups_give_the_papers_sizes():
    assert parameters(meta("alexnet")) == 60_965_224
    assert parameters(meta("alexnet", groups="1")) == 62_378_344
    # For one GPU: 48, 128, 192, 192 and 256 kernels, each over all maps; the linear layers stay.
    kernels = 48 * 3 * 121 + 128 * 48 * 25 + 192 * 128 * 9 + 192 * 192 * 9 + 256 * 192 * 9
    linear = 9216 * 4096 + 4096 * 4096 + 4096 * 1000
    assert parameters(meta("alexnet", groups="half")) == kernels + linear + (48 + 128 + 192 + 192 + 256 + 4096 + 4096 + 1000)


def test_pools_that_do_not_overlap_give_the_same_grids():
    for name in catalog.NETWORKS.keys() & {"alexnet", "caffenet", "alexnet-one-tower"}:
        for overlapping, window in ((True, 3), (False, 2)):
            model = meta(name, overlapping=overlapping)
            pools = kinds(model, nn.MaxPool2d)
            assert [model.get_submodule(pool).kernel_size for pool in pools] == [window] * 3
            assert model(torch.empty(1, 3, 227, 227, device="meta")).shape == (1, 1000)
            assert parameters(model) == parameters(meta(name))


def test_normalisation_dropout_and_activation_can_be_changed():
    model = meta("alexnet", lrn=False, dropout=0.25, activation="tanh")
    assert not kinds(model, nn.LocalResponseNorm, nn.ReLU)
    assert len(kinds(meta("alexnet"), LocalResponseNorm)) == 2
    assert kinds(model, nn.Tanh) == [f"tanh{number}" for number in range(1, 8)]
    assert [model.get_submodule(name).p for name in kinds(model, nn.Dropout)] == [0.25, 0.25]
    assert len(kinds(meta("alexnet-one-tower", activation="tanh"), nn.Tanh)) == 7


def test_networks_that_share_names_and_compute_something_else_have_variants():
    variants = [
        meta(name, **options).variant
        for name in ("alexnet", "caffenet", "alexnet-one-tower")
        for options in ({}, {"overlapping": False}, {"activation": "tanh"})
    ]
    assert len(set(variants)) == 9
    assert variants[6:] == ["basic", "basic, 2x2 pools", "basic, tanh"]
    assert meta("alexnet", lrn=False).variant == meta("caffenet", lrn=False).variant  # the order of nothing


# ---------------------------------------------------------------- torchvision's


def test_one_tower_is_torchvisions(same_logits):
    torch.manual_seed(0)
    theirs = torchvision.models.alexnet(num_classes=7).eval()
    torch.manual_seed(0)
    ours = catalog.build("alexnet-one-tower", 7, {}).eval()
    state = theirs.state_dict()
    assert list(ours.state_dict()) == list(state)
    assert all(torch.equal(value, state[key]) for key, value in ours.state_dict().items())  # the initial weights too
    same_logits(ours, theirs, 224, 160)


# ---------------------------------------------------------------- inputs and options


@pytest.mark.parametrize("name", ["alexnet", "caffenet", "alexnet-one-tower"])
@pytest.mark.parametrize("overlapping", [True, False])
def test_the_smallest_input_is_the_smallest(name, overlapping):
    model = meta(name, overlapping=overlapping)
    smallest = model.smallest_px
    assert model(torch.empty(2, 3, smallest, smallest + 90, device="meta")).shape == (2, 1000)
    with pytest.raises(UserError, match=rf"{smallest - 1}x{smallest} px is too small; the smallest is {smallest}x{smallest}"):
        model(torch.empty(2, 3, smallest - 1, smallest, device="meta"))
    model.smallest_px = 1
    with pytest.raises(RuntimeError, match=r"too small|greater than"):
        model(torch.empty(2, 3, smallest - 1, smallest - 1, device="meta"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": "3"}, r"option 'groups': expected 2 or 1 or 'half', found '3'"),
        ({"width": "20"}, r"width: expected a multiple of 6, .* found 20"),
        ({"width": "0"}, r"width: expected a multiple of 6"),
        ({"dropout": "1"}, r"dropout: expected a share from 0 to below 1, found 1"),
        ({"dropout": "nan"}, r"dropout: expected a share from 0 to below 1, found nan"),
        ({"activation": "sigmoid"}, r"option 'activation': expected 'relu' or 'tanh'"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with torch.device("meta"), pytest.raises(UserError, match=message):
        catalog.build("alexnet", 10, options)


def test_a_step_of_training_reaches_every_layer():
    torch.manual_seed(0)
    model = catalog.build("alexnet", 4, {"width": "6", "init": "he"}).train()
    model(torch.randn(2, 3, 67, 64)).logsumexp(1).sum().backward()
    assert all(weight.grad.abs().max() > 0 for weight in model.parameters())

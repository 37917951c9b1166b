"""GoogLeNet: torchvision's form against torchvision's, the paper's against its table, the module without reductions by hand."""

import math

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional

from striate.errors import CheckpointError, UserError
from striate.models import blocks, catalog, googlenet, weights
from striate.taps import taps
from striate.train import loss

PAPER_FORMS = ["googlenet", "googlenet-separable-stem"]


def meta(name, num_classes=1000, **options):
    with torch.device("meta"):
        return catalog.build(name, num_classes, options)


def torchvisions(**options):
    return torchvision.models.googlenet(weights=None, init_weights=False, aux_logits=True, **options)


def randomised(model):
    """Batch norm's statistics and scales drawn at random, as after a training, and weights that keep what passes large.

    With torch's own the logits would be the last biases, whatever the image, and everything would seem equal.
    """
    generator = torch.Generator().manual_seed(0)
    for layer in model.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, generator=generator)
        elif isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.3, generator=generator)
            layer.running_var.uniform_(0.5, 2, generator=generator)
            nn.init.uniform_(layer.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(layer.bias, 0, 0.1, generator=generator)
        elif isinstance(layer, nn.Dropout):
            layer.p = 0.0
    return model


def two_images(height, width):
    """One dark and flat, one bright and full of contrast, so that a network tells them apart."""
    noise = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))
    return noise * torch.tensor([0.2, 2.0])[:, None, None, None] + torch.tensor([-1.0, 1.0])[:, None, None, None]


@pytest.fixture(scope="module")
def pair():
    """torchvision's network and ours with its weights, 20 classes, no dropout."""
    torch.manual_seed(0)
    theirs = randomised(torchvisions(num_classes=20))
    ours = randomised(googlenet.googlenet_bn(20))
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def close(found, expected):
    return bool((found - expected).abs().max() <= 1e-5 * expected.abs().max())


# ---------------------------------------------------------------- torchvision's form


def test_state_dict_names_and_their_order_are_torchvisions():
    with torch.device("meta"):
        theirs = torchvisions().state_dict()
    for aux in (True, False):
        expected = [(key, value.shape) for key, value in theirs.items() if aux or not key.startswith("aux")]
        assert [(key, value.shape) for key, value in meta("googlenet-bn", aux=aux).state_dict().items()] == expected


@pytest.mark.parametrize("size_px", [64, 97])
def test_logits_equal_torchvisions_with_its_weights(pair, size_px):
    images = two_images(size_px, size_px)
    with torch.inference_mode():
        expected = pair[0].eval()(images)
        assert close(pair[1].eval()(images), expected)
    assert (expected[0] - expected[1]).abs().max() > 0.1 * expected.abs().max()


def test_all_heads_equal_torchvisions_in_training(pair):
    images = two_images(80, 96)
    with torch.no_grad():
        expected, found = pair[0].train()(images), pair[1].train()(images)
    pair[1].load_state_dict(pair[0].state_dict())  # the running statistics too moved alike, but for rounding
    assert found._fields == expected._fields == ("logits", "aux_logits2", "aux_logits1")
    assert all(close(ours, theirs) for ours, theirs in zip(found, expected, strict=True))


def test_transformed_input_equals_torchvisions(pair):
    ours = googlenet.googlenet_bn(20, transform_input=True).eval()
    ours.load_state_dict(pair[1].state_dict())
    images = two_images(64, 64)
    theirs = pair[0].eval()
    theirs.transform_input = True
    with torch.inference_mode():
        expected = theirs(images)
        theirs.transform_input = False
        assert close(ours(images), expected)
        assert not torch.allclose(theirs(images), expected, rtol=0.01)
        with pytest.raises(UserError, match=r"expected shape \[B, 3, H, W\], found \[2, 1, 64, 64\]"):
            ours(images[:, :1])
    assert (ours.variant, pair[1].variant) == ("transform-input", "plain")


def test_starts_as_torchvisions():
    torch.manual_seed(0)
    model = googlenet.googlenet_bn(100)
    for layer in model.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            assert layer.weight.std().item() == pytest.approx(0.01, rel=6 / (2 * layer.weight.numel()) ** 0.5)
        elif isinstance(layer, nn.BatchNorm2d):
            assert layer.eps == 1e-3


def summary(model):
    """What torchsummary prints for one image of 224 px: (parameters, input, outputs, weights, total) in MB of 1024 x 1024.

    Its rule: the outputs of every module that is called, save Sequential, ModuleList and the network itself, each counted
    twice (forward and backward) with four bytes a number, in training mode.
    """
    counted = [name for name, layer in model.named_modules() if name and not isinstance(layer, (nn.Sequential, nn.ModuleList))]
    numbers = []
    with taps(model, dict.fromkeys(counted, lambda layer, inputs, output: numbers.append(output.numel()))):
        model.train()(torch.empty(1, 3, 224, 224, device="meta"))
    parameters = sum(weight.numel() for weight in model.parameters())
    megabytes = [3 * 224 * 224 * 4 / 2**20, 2 * sum(numbers) * 4 / 2**20, parameters * 4 / 2**20]
    return (parameters, *(round(value, 2) for value in (*megabytes, sum(megabytes))))


def test_torchsummary_prints_of_it_what_the_source_paper_printed():
    """13,004,888 parameters, which the source paper took for its own network's."""
    printed = (13_004_888, 0.57, 94.26, 49.61, 144.44)
    with torch.device("meta"):
        assert summary(torchvisions()) == printed
    assert summary(meta("googlenet-bn")) == printed
    assert summary(meta("se-googlenet-paths"))[0] == 13_531_919


# ---------------------------------------------------------------- the paper's form


@pytest.mark.parametrize("name", [*PAPER_FORMS, "googlenet-bn"])
def test_channels_and_sides_of_table_1(name):
    model = meta(name, 10).eval()
    rows = {
        "conv1": (64, 112),
        "maxpool1": (64, 56),
        "conv3": (192, 56),
        "maxpool2": (192, 28),
        "inception3a": (256, 28),
        "inception3b": (480, 28),
        "maxpool3": (480, 14),
        "inception4a": (512, 14),
        "inception4b": (512, 14),
        "inception4c": (512, 14),
        "inception4d": (528, 14),
        "inception4e": (832, 14),
        "maxpool4": (832, 7),
        "inception5a": (832, 7),
        "inception5b": (1024, 7),
    }
    found = []
    with taps(model, dict.fromkeys(rows, lambda layer, inputs, output: found.append(tuple(output.shape[1:3])))):
        assert model(torch.empty(1, 3, 224, 224, device="meta")).shape == (1, 10)
    assert found == list(rows.values())


def test_weights_of_each_row_of_table_1():
    """In units of 1,024 as the paper counts; rows 4a and 4c to 5b are what its channels give, not what it prints."""
    expected = {
        "conv1": 9.2,
        "conv2": 4.0,
        "conv3": 108.0,
        "inception3a": 159.5,
        "inception3b": 379.0,
        "inception4a": 366.8,
        "inception4b": 438.0,
        "inception4c": 497.5,
        "inception4d": 590.5,
        "inception4e": 847.0,
        "inception5a": 1018.0,
        "inception5b": 1409.0,
        "fc": 1000.0,
    }
    model = meta("googlenet")
    for row, thousands in expected.items():
        found = sum(value.numel() for key, value in model.get_submodule(row).named_parameters() if key.endswith("weight"))
        assert round(found / 1024, 1) == thousands, row


def test_the_papers_form_has_biases_5x5_kernels_and_two_normalisations():
    model = meta("googlenet")
    assert model.inception3a.branch3[1].conv.kernel_size == (5, 5)
    assert all(layer.bias is not None for layer in model.modules() if isinstance(layer, nn.Conv2d))
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in model.modules())
    norms = [
        (layer.size, layer.alpha, layer.beta, layer.k) for layer in model.modules() if isinstance(layer, nn.LocalResponseNorm)
    ]
    assert norms == [(5, 1e-4, 0.75, 1.0)] * 2
    assert (model.dropout.p, model.aux1.dropout.p) == (0.4, 0.7)
    pools = [layer for layer in model.children() if isinstance(layer, nn.MaxPool2d)]
    assert [(layer.kernel_size, layer.stride, layer.padding, layer.ceil_mode) for layer in pools] == [(3, 2, 0, True)] * 4


def test_the_papers_form_normalises_after_the_first_pool_and_before_the_second():
    torch.manual_seed(0)
    model = googlenet.googlenet(10, aux=False).eval()
    images = torch.randn(1, 3, 64, 64)
    seen = []
    with torch.inference_mode(), taps(model, {"inception3a": lambda layer, inputs, output: seen.append(inputs[0])}):
        model(images)
        x = functional.max_pool2d(model.conv1(images), 3, 2, ceil_mode=True)
        x = model.conv3(model.conv2(functional.local_response_norm(x, 5, alpha=1e-4, beta=0.75, k=1.0)))
        x = functional.max_pool2d(functional.local_response_norm(x, 5, alpha=1e-4, beta=0.75, k=1.0), 3, 2, ceil_mode=True)
    torch.testing.assert_close(seen[0], x, rtol=1e-5, atol=1e-6)


def test_the_separable_stem_is_the_first_row_of_table_1():
    stem = meta("googlenet-separable-stem").conv1
    kernels = {key: value for key, value in stem.named_parameters() if key.endswith("weight")}
    assert {key: tuple(value.shape) for key, value in kernels.items()} == {
        "depthwise.weight": (24, 1, 7, 7),
        "conv.weight": (64, 24, 1, 1),
    }
    assert sum(value.numel() for value in kernels.values()) == 2_712  # "2.7K"
    assert round((3 * 8 * 49 + 24 * 64) * 112**2 / 1e6) == 34  # "34M"


@pytest.mark.parametrize("name", PAPER_FORMS)
def test_starts_as_caffes_replica(name):
    torch.manual_seed(0)
    model = catalog.build(name, 100, {})
    last = {model.fc, model.aux1.fc2, model.aux2.fc2}
    for layer in model.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            bound = math.sqrt(3 / layer.weight[0].numel())
            assert layer.weight.abs().max() <= bound
            assert layer.weight.std().item() == pytest.approx(bound / 3**0.5, rel=5 / layer.weight.numel() ** 0.5)
            if layer.bias is not None:
                assert torch.equal(layer.bias, torch.full_like(layer.bias, 0.0 if layer in last else 0.2))


# ---------------------------------------------------------------- heads, sizes, options


@pytest.mark.parametrize("name", [*PAPER_FORMS, "googlenet-bn"])
def test_heads_in_training_and_in_evaluation(name):
    model = meta(name, 7)
    images = torch.empty(2, 3, 70, 90, device="meta")
    heads = loss.heads(model.train()(images))
    assert {head: tuple(logits.shape) for head, logits in heads.items()} == dict.fromkeys(
        ("main", "aux_logits2", "aux_logits1"), (2, 7)
    )
    assert model.eval()(images).shape == (2, 7)
    without = meta(name, 7, aux=False)
    assert without.train()(images).shape == (2, 7)
    assert not any(key.startswith("aux") for key in without.state_dict())


def test_every_head_trains_what_is_below_it_and_nothing_above():
    """The auxiliary heads are there for the gradient that they send down (section 5)."""
    torch.manual_seed(0)
    model = googlenet.googlenet(5).train()
    heads = model(torch.randn(2, 3, 64, 64))
    reached = {"logits": "5b", "aux_logits2": "4d", "aux_logits1": "4a"}
    for head, last in reached.items():
        loss_of_head = getattr(heads, head).square().sum()
        names = [name for name, _ in model.named_children() if name.startswith("inception")]
        kernels = [model.get_submodule(f"{name}.branch1.conv").weight for name in names]
        gradients = torch.autograd.grad(loss_of_head, kernels, retain_graph=True, allow_unused=True)
        found = [name[-2:] for name, gradient in zip(names, gradients, strict=True) if gradient is not None and gradient.any()]
        assert found == [name[-2:] for name in names if name[-2:] <= last]


def test_the_loss_at_chance_is_1_6_times_the_logarithm_of_the_classes():
    """The 11.05 of the source paper: main head and 0.3 of each auxiliary one."""
    model = googlenet.googlenet(1000).train()
    for layer in (model.fc, model.aux1.fc2, model.aux2.fc2):
        nn.init.zeros_(layer.weight)
    losses = loss.per_head(loss.heads(model(torch.randn(2, 3, 64, 64))), torch.tensor([3, 900]), 0.0)
    assert loss.total(losses, 0.3, 0.0, []).item() == pytest.approx(1.6 * math.log(1000), rel=1e-6)


def test_the_papers_auxiliary_heads_pool_with_a_5x5_window_where_that_gives_a_4x4_grid():
    head = googlenet.AuxiliaryHead(6, 5, googlenet.PAPER, 1024).eval()
    seen = []
    with torch.inference_mode(), taps(head, {"conv": lambda layer, inputs, output: seen.append(inputs[0])}):
        for side in range(1, 31):
            x = torch.randn(2, 6, side, 15)
            assert head(x).shape == (2, 5)
            window = functional.avg_pool2d(x, 5, 3) if side >= 5 else None
            is_4x4 = window is not None and window.shape[2:] == (4, 4)
            assert is_4x4 == (side in (14, 15, 16))
            torch.testing.assert_close(seen[-1], window if is_4x4 else functional.adaptive_avg_pool2d(x, 4))


@pytest.mark.parametrize(("height", "width", "side"), [(14, 14, 4), (13, 30, 4), (2, 3, 7), (9, 14, 7), (1, 1, 4)])
def test_means_by_products_are_the_adaptive_pool(height, width, side):
    """What runs on CUDA with deterministic algorithms."""
    x = torch.randn(2, 3, height, width, dtype=torch.float64, requires_grad=True)
    found, expected = blocks._means_by_products(x, side), functional.adaptive_avg_pool2d(x, side)
    torch.testing.assert_close(found, expected)
    weigh = torch.randn_like(expected)
    torch.testing.assert_close(torch.autograd.grad((found * weigh).sum(), x), torch.autograd.grad((expected * weigh).sum(), x))


@pytest.mark.parametrize(("name", "smallest"), [("googlenet", 31), ("googlenet-separable-stem", 31), ("googlenet-bn", 15)])
def test_smallest_input(name, smallest):
    model = meta(name, 7).eval()
    assert model(torch.empty(1, 3, smallest, smallest + 50, device="meta")).shape == (1, 7)
    too_small = torch.empty(1, 3, smallest + 50, smallest - 1, device="meta")
    with pytest.raises(UserError, match=f"GoogLeNet: an input of .* is too small; the smallest is {smallest}x{smallest}"):
        model(too_small)
    model.smallest_px = 0
    with pytest.raises(RuntimeError, match="Output size is too small"):  # it is the true smallest
        model(too_small)


@pytest.mark.parametrize(("name", "side", "bias"), [("googlenet", 5, 1), ("googlenet-bn", 3, 0)])
def test_naive_modules_by_hand(name, side, bias):
    """Figure 2 (a): 1x1, 3x3 and 5x5 on all channels that come in, and those channels once more behind the pool."""
    modules = [  # 1x1, 3x3, 5x5, grid, and batch norm's two numbers a channel where there is no bias
        (64, 128, 32, 28),
        (128, 192, 96, 28),
        (192, 208, 48, 14),
        (160, 224, 64, 14),
        (128, 256, 64, 14),
        (112, 288, 64, 14),
        (256, 320, 128, 14),
        (256, 320, 128, 7),
        (384, 384, 128, 7),
    ]
    extra = bias or 2
    channels, parameters = 192, (3 * 49 + extra) * 64 + (64 + extra) * 64 + (9 * 64 + extra) * 192
    macs = 3 * 49 * 64 * 112**2 + 64 * 64 * 56**2 + 9 * 64 * 192 * 56**2
    for ones, threes, fives, grid in modules:
        kernels = channels * (ones + 9 * threes + side**2 * fives)
        parameters += kernels + extra * (ones + threes + fives)
        macs += kernels * grid**2
        channels += ones + threes + fives
    assert channels == 4944
    parameters += 1000 * (channels + 1)
    macs += 1000 * channels
    model = meta(name, inception="naive", aux=False).eval()
    assert sum(weight.numel() for weight in model.parameters()) == parameters == {1: 97_526_008, 0: 70_300_872}[bias]
    counted = []
    kinds = (nn.Conv2d, nn.Linear)
    layers = [key for key, layer in model.named_modules() if isinstance(layer, kinds)]
    with taps(model, dict.fromkeys(layers, lambda layer, _, output: counted.append(layer.weight[0].numel() * output.numel()))):
        model(torch.empty(1, 3, 224, 224, device="meta"))
    assert sum(counted) == macs == {1: 12_568_061_056, 0: 9_022_825_600}[bias]


def test_naive_keeps_the_names_of_the_paths():
    model = meta("googlenet", inception="naive")
    assert model.aux1.conv.conv.in_channels == 1280  # 480 and 4a's 448, and 3b's 832 handed on: 832 + 192 + 208 + 48
    assert isinstance(model.inception3a.branch4, nn.MaxPool2d)
    assert tuple(model.inception3a.branch2.conv.weight.shape) == (128, 192, 3, 3)


def test_weights_of_one_form_are_refused_by_another():
    with pytest.raises(CheckpointError, match="not weights of this GoogLeNet"):
        weights.put(meta("googlenet"), meta("googlenet-bn").state_dict(), "file")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inception": "wide"}, "option 'inception': expected 'reduced' or 'naive', found 'wide'"),
        ({"aux": "maybe"}, "option 'aux': expected true or false"),
        ({"aux_features": "0"}, "aux_features: expected 1 or more, found 0"),
        ({"dropot": "1"}, "has no option 'dropot'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(UserError, match=message):
        meta("googlenet", 10, **options)

"""Squeeze-and-excitation in GoogLeNet: where the blocks are, what they cost, whose weights fit, and how it starts."""

import pytest
import torch
from torch import nn

from striate.errors import UserError
from striate.models import catalog, googlenet, se_googlenet
from striate.models.blocks import SqueezeExcite
from striate.models.googlenet import PAPER, Widths

# Table 1 of GoogLeNet: channels into each module, and at the end of each path.
PLACES = [
    (192, (64, 128, 32, 32)),
    (256, (128, 192, 96, 64)),
    (480, (192, 208, 48, 64)),
    (512, (160, 224, 64, 64)),
    (512, (128, 256, 64, 64)),
    (512, (112, 288, 64, 64)),
    (528, (256, 320, 128, 128)),
    (832, (256, 320, 128, 128)),
    (832, (384, 384, 128, 128)),
]
NAMES = {"se-googlenet-paths": "googlenet", "se-googlenet-bn-paths": "googlenet-bn"}


def meta(name, num_classes=1000, **options):
    with torch.device("meta"):
        return catalog.build(name, num_classes, options)


def parameters(model):
    return sum(weight.numel() for weight in model.parameters())


def gated(block, x):
    """Equations 2 to 4 of the paper with matrices."""
    squeezed = x.mean((2, 3))
    inner = torch.relu(squeezed @ block.fc1.weight[:, :, 0, 0].T + block.fc1.bias)
    return x * torch.sigmoid(inner @ block.fc2.weight[:, :, 0, 0].T + block.fc2.bias)[:, :, None, None]


def small_module(placement):
    torch.manual_seed(0)
    module, channels = se_googlenet._with_blocks(placement, 2, True)(6, Widths(4, 2, 8, 2, 6, 2), PAPER)
    assert channels == 20
    return module.eval(), torch.randn(2, 6, 5, 7)


def paths(module):
    return module.branch1, module.branch2, module.branch3, module.branch4


def blocks(module):
    return module.se1, module.se2, module.se3, module.se4


def test_blocks_after_each_path():
    module, x = small_module("paths")
    with torch.inference_mode():
        ends = [gated(block, path(x)) for path, block in zip(paths(module), blocks(module), strict=True)]
        torch.testing.assert_close(module(x), torch.cat(ends, 1))


def test_blocks_before_each_path():
    module, x = small_module("inputs")
    with torch.inference_mode():
        ends = [path(gated(block, x)) for path, block in zip(paths(module), blocks(module), strict=True)]
        torch.testing.assert_close(module(x), torch.cat(ends, 1))


def test_one_block_after_the_module():
    module, x = small_module("concat")
    with torch.inference_mode():
        torch.testing.assert_close(module(x), gated(module.se, torch.cat([path(x) for path in paths(module)], 1)))


@pytest.mark.parametrize(
    ("placement", "r", "bias"), [("paths", 4, True), ("concat", 16, False), ("inputs", 8, True), ("paths", 16, True)]
)
def test_what_the_blocks_add(placement, r, bias):
    """A block of C channels has 2 C^2 / r weights and C + C / r biases."""
    channels = {
        "paths": [end for _, ends in PLACES for end in ends],
        "concat": [sum(ends) for _, ends in PLACES],
        "inputs": [into for into, _ in PLACES for _ in range(4)],
    }[placement]
    added = sum(2 * c * c // r + (c + c // r if bias else 0) for c in channels)
    model = meta("se-googlenet-paths", placement=placement, r=r, bias=bias)
    assert parameters(model) - parameters(meta("googlenet")) == added
    assert sum(type(layer).__name__ == "SqueezeExcite" for layer in model.modules()) == len(channels)


@pytest.mark.parametrize(("name", "of"), NAMES.items())
@pytest.mark.parametrize("placement", ["paths", "concat", "inputs"])
def test_weights_of_googlenet_fit_with_only_the_blocks_missing(name, of, placement):
    model = meta(name, 10, placement=placement)
    fitting = model.load_state_dict(meta(of, 10).state_dict(), strict=False, assign=True)
    assert fitting.unexpected_keys == []
    assert fitting.missing_keys and all(key.split(".")[1].startswith("se") for key in fitting.missing_keys)
    assert not any(".se" in key for key in meta(of, 10).state_dict())


@pytest.mark.parametrize("placement", ["paths", "concat", "inputs"])
def test_with_open_gates_it_is_googlenet(placement):
    torch.manual_seed(0)
    plain = googlenet.googlenet(10).eval()
    model = se_googlenet.se_googlenet_paths(10, placement).eval()
    model.load_state_dict(plain.state_dict(), strict=False)
    for layer in model.modules():
        if type(layer).__name__ == "SqueezeExcite":
            nn.init.zeros_(layer.fc2.weight)
            nn.init.constant_(layer.fc2.bias, 40.0)  # sigmoid(40) is 1 in float32
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(model(images), plain(images))


def test_with_batch_norm_it_starts_as_torchvisions_googlenet():
    torch.manual_seed(0)
    for layer in se_googlenet.se_googlenet_bn_paths(100).modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            assert layer.weight.std().item() == pytest.approx(0.01, rel=6 / (2 * layer.weight.numel()) ** 0.5)
            assert layer.bias is None or not layer.bias.any()


def difference_between_images(model):
    """Largest difference of a logit between two images of 224 px, in double precision: float32's grain is as coarse."""
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0)).double()
    with torch.inference_mode():
        first, second = model.eval().double()(images)
    return (first - second).abs().max().item()


def test_it_starts_as_a_constant_function_and_googlenet_does_not():
    """7e-10 between two images; torch's own weights, and every gate near a half."""
    torch.manual_seed(0)
    assert 1e-10 < difference_between_images(se_googlenet.se_googlenet_paths(1000, aux=False)) < 5e-9
    torch.manual_seed(0)
    assert difference_between_images(googlenet.googlenet(1000, aux=False)) > 1e-3


def steps(name, count):
    """Losses of the main head while a network learns four noisy images by heart; no dropout."""
    torch.manual_seed(0)
    model = catalog.build(name, 4, {}).train()
    for layer in model.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    images, labels = torch.randn(4, 3, 40, 40, generator=torch.Generator().manual_seed(0)), torch.arange(4)
    optimiser = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    losses = []
    for _ in range(count):
        each = [nn.functional.cross_entropy(logits, labels) for logits in model(images)]
        losses.append(each[0].item())
        optimiser.zero_grad()
        (each[0] + 0.3 * each[1] + 0.3 * each[2]).backward()
        optimiser.step()
    return losses


def test_without_batch_norm_it_does_not_learn_four_images_and_with_it_it_does():
    """The labels are balanced, so a constant function can do no better than ln 4 = 1.386."""
    assert min(steps("se-googlenet-paths", 10)) > 1.38
    assert steps("se-googlenet-bn-paths", 10)[-1] < 0.5


@pytest.mark.parametrize("name", NAMES)
def test_gate_bias_opens_the_gates_whatever_the_start(name):
    for start in ("paper", "he"):
        model = catalog.build(name, 4, {"gate_bias": 4.0, "init": start})
        biases = [block.fc2.bias for block in model.modules() if isinstance(block, SqueezeExcite)]
        assert len(biases) == 36 and all(torch.equal(bias, torch.full_like(bias, 4.0)) for bias in biases)
    assert not torch.equal(catalog.build(name, 4, {}).inception3a.se1.fc2.bias, torch.full((64,), 4.0))


@pytest.mark.parametrize("name", NAMES)
def test_heads_and_smallest_input_are_googlenets(name):
    model, plain = meta(name, 7), meta(NAMES[name], 7)
    assert model.smallest_px == plain.smallest_px
    images = torch.empty(2, 3, 70, 90, device="meta")
    assert model.train()(images)._fields == ("logits", "aux_logits2", "aux_logits1")
    assert model.eval()(images).shape == (2, 7)
    with pytest.raises(UserError, match=f"the smallest is {plain.smallest_px}x"):
        model(torch.empty(1, 3, plain.smallest_px - 1, 40, device="meta"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"r": 24}, "r: expected a divisor of 64, the channels of a block, found 24"),
        ({"r": 0}, "r: expected a divisor of 64, the channels of a block, found 0"),
        ({"placement": "path"}, "option 'placement': expected 'paths' or 'concat' or 'inputs', found 'path'"),
        ({"bias": False, "gate_bias": 4.0}, "gate_bias 4: the blocks have no biases"),
        ({"bias": "perhaps"}, "option 'bias': expected true or false"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(UserError, match=message):
        meta("se-googlenet-paths", 10, **options)

"""ResNet for CIFAR against the description of section 4.2: layers, grids, counts by hand, and torchvision's blocks."""

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from striate.errors import CheckpointError, UserError
from striate.models import catalog, resnet_cifar, weights
from striate.models.resnet import BasicBlock, PlainBlock
from striate.taps import taps

NAMES = list(resnet_cifar.NETWORKS)
# Blocks of each stage: 6n + 2 layers.
BLOCKS = {"resnet20": 3, "resnet56": 9, "plain20": 3, "plain56": 9}


def by_hand(n: int) -> tuple[int, int]:
    """Parameters and MACs of 6n + 2 layers: a stem, 2n convolutions in each stage, each with its batch norm, and 10 classes."""
    weights = [3 * 16 * 9, *[16 * 16 * 9] * (2 * n)]  # on 32 x 32
    weights_16px = [16 * 32 * 9, *[32 * 32 * 9] * (2 * n - 1)]
    weights_8px = [32 * 64 * 9, *[64 * 64 * 9] * (2 * n - 1)]
    norms = 2 * (16 * (2 * n + 1) + 32 * 2 * n + 64 * 2 * n)
    parameters = sum(weights) + sum(weights_16px) + sum(weights_8px) + norms + 64 * 10 + 10
    return parameters, sum(weights) * 32**2 + sum(weights_16px) * 16**2 + sum(weights_8px) * 8**2 + 640


@pytest.mark.parametrize(("name", "millions"), [("resnet20", 0.27), ("resnet56", 0.85), ("plain20", 0.27), ("plain56", 0.85)])
def test_parameters_and_macs(name, millions):
    """Table 6 has them rounded."""
    with torch.device("meta"):
        model = catalog.build(name, 10, {}).eval()
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(1, 3, 32, 32))
    parameters, macs = by_hand(BLOCKS[name])
    assert (parameters, macs) == ((269_722, 40_551_040) if name.endswith("20") else (853_018, 125_485_696))
    assert sum(weight.numel() for weight in model.parameters()) == parameters
    assert counter.get_total_flops() // 2 == macs
    assert round(parameters / 1e6, 2) == millions


@pytest.mark.parametrize("name", NAMES)
def test_layers_and_grids(name):
    with torch.device("meta"):
        model = catalog.build(name, 10, {}).eval()
    found = {}
    stages = ["conv1", "maxpool", "layer1", "layer2", "layer3"]
    with taps(model, {stage: lambda layer, inputs, output, stage=stage: found.update({stage: output.shape}) for stage in stages}):
        model(torch.empty(1, 3, 32, 32, device="meta"))
    assert [found[stage] for stage in stages] == [
        (1, 16, 32, 32),
        (1, 16, 32, 32),
        (1, 16, 32, 32),
        (1, 32, 16, 16),
        (1, 64, 8, 8),
    ]
    assert sum(isinstance(layer, (nn.Conv2d, nn.Linear)) for layer in model.modules()) == int(name[-2:])
    kind = BasicBlock if name.startswith("resnet") else PlainBlock
    assert sum(isinstance(layer, kind) for layer in model.modules()) == 3 * BLOCKS[name]


@pytest.mark.parametrize("size_px", [32, 45])
def test_logits_equal_those_of_torchvisions_blocks(size_px):
    """Three stages put together of torchvision's blocks, their projection replaced by the definition of option A."""

    class Padded(nn.Module):
        def forward(self, x):
            half = functional.avg_pool2d(x, 1, 2)
            return torch.cat([half, torch.zeros_like(half)], 1)

    def stage(channels, width):
        first = torchvision.models.resnet.BasicBlock(channels, width, width // channels, None if channels == width else Padded())
        return nn.Sequential(first, *(torchvision.models.resnet.BasicBlock(width, width) for _ in range(2)))

    ours = resnet_cifar.resnet20(10).eval()
    for layer in ours.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean, 0, 0.3)
            nn.init.uniform_(layer.running_var, 0.5, 2)
            nn.init.uniform_(layer.weight, 0.3, 1.2)
            nn.init.normal_(layer.bias, 0, 0.1)
    stages = [stage(16, 16), stage(16, 32), stage(32, 64)]
    stem = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    theirs = nn.Sequential(*stem, *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)).eval()
    places = {"conv1": "0", "bn1": "1", "layer1": "3", "layer2": "4", "layer3": "5", "fc": "8"}
    state = {".".join([places[name.split(".")[0]], *name.split(".")[1:]]): value for name, value in ours.state_dict().items()}
    theirs.load_state_dict(state)
    images = torch.randn(2, 3, size_px, size_px)
    with torch.inference_mode():
        found, expected = ours(images), theirs(images)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_residual_and_plain_have_the_same_weights_and_refuse_each_others():
    residual, plain = resnet_cifar.resnet20(10), resnet_cifar.plain20(10)
    assert list(residual.state_dict()) == list(plain.state_dict())
    with pytest.raises(CheckpointError, match="of variant 'plain', the network is 'option-a'"):
        weights.put(residual, plain.state_dict(), "file", plain.variant)


def test_initialisation_is_hes():
    torch.manual_seed(0)
    for layer in resnet_cifar.resnet56(10).layer3.modules():
        if isinstance(layer, nn.Conv2d):
            assert layer.weight.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.03)


def test_options():
    model = resnet_cifar.resnet20(10, width=4, zero_gamma=True, stochastic_depth=0.4)
    assert model.conv1.out_channels == 4 and model.fc.in_features == 16
    assert not model.layer2[1].bn2.weight.any()
    assert model.layer3[2].drop == pytest.approx(0.4)
    with pytest.raises(UserError, match="plain20 has no option 'zero_gamma'"):
        catalog.build("plain20", 10, {"zero_gamma": True})
    with pytest.raises(UserError, match="width: expected 1 channel or more, found -1"):
        catalog.build("plain56", 10, {"width": "-1"})


@pytest.mark.parametrize("name", NAMES)
def test_any_size_down_to_one_pixel_goes_in(name):
    with torch.device("meta"):
        model = catalog.build(name, 7, {}).eval()
        for size in ((1, 1), (2, 3), (33, 64)):
            assert model(torch.empty(2, 3, *size)).shape == (2, 7)

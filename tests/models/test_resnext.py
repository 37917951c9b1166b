"""ResNeXt against torchvision's and timm's: names, logits, grids, options."""

import pytest
import timm
import torch
import torchvision
from torch import nn

from striate.errors import UserError
from striate.models import catalog, resnext
from striate.models.resnet import ResNet
from striate.taps import taps

# Groups, channels of each group in the first stage.
CARDINALITY = {"resnext50": (32, 4), "resnext101": (32, 4), "resnext101-64x4d": (64, 4)}


@pytest.mark.parametrize("name", ["resnext50", "resnext101-64x4d"])
def test_logits_equal_torchvisions_with_two_blocks_in_each_stage(name, as_after_training, same_logits):
    groups, width = CARDINALITY[name]
    block = torchvision.models.resnet.Bottleneck
    theirs = as_after_training(torchvision.models.ResNet(block, [2, 2, 2, 2], 20, groups=groups, width_per_group=width))
    small = {"resnext50": resnext._32X4D, "resnext101-64x4d": resnext._64X4D}
    ours = ResNet(20, small[name], (2, 2, 2, 2), "v1.5", "imagenet", 64)
    ours.load_state_dict(theirs.state_dict())
    same_logits(ours, theirs, 64, 97)


@pytest.mark.parametrize(
    ("name", "theirs"),
    [("resnext50", "resnext50_32x4d"), ("resnext101", "resnext101_32x4d"), ("resnext101-64x4d", "resnext101_64x4d")],
)
def test_names_shapes_strides_and_groups_are_those_of_both_libraries(name, theirs):
    with torch.device("meta"):
        ours = catalog.build(name, 1000, {})
        others = [timm.create_model(theirs)]
        if theirs in torchvision.models.list_models():
            others.append(torchvision.models.get_model(theirs, weights=None))
    convolutions = [(key, layer.stride, layer.groups) for key, layer in ours.named_modules() if isinstance(layer, nn.Conv2d)]
    for other in others:
        expected = {key: value.shape for key, value in other.state_dict().items()}
        assert {key: value.shape for key, value in ours.state_dict().items()} == expected
        assert convolutions == [
            (key, layer.stride, layer.groups) for key, layer in other.named_modules() if isinstance(layer, nn.Conv2d)
        ]


def test_widths_and_grids_of_the_papers_table():
    """Table 1, right: 32x4d."""
    with torch.device("meta"):
        model = catalog.build("resnext50", 1000, {}).eval()
    found = []
    stages = ["conv1", "maxpool", "layer1", "layer2", "layer3", "layer4"]
    with taps(model, dict.fromkeys(stages, lambda layer, inputs, output: found.append((output.shape[1], output.shape[2])))):
        model(torch.empty(1, 3, 224, 224, device="meta"))
    assert found == [(64, 112), (64, 56), (256, 56), (512, 28), (1024, 14), (2048, 7)]
    inner = [model.get_submodule(f"layer{number}")[0].conv2 for number in range(1, 5)]
    assert [layer.out_channels for layer in inner] == [128, 256, 512, 1024]
    assert [layer.weight.shape[1] for layer in inner] == [4, 8, 16, 32]
    assert [len(model.get_submodule(f"layer{number}")) for number in range(1, 5)] == [3, 4, 6, 3]
    assert model.variant == "v1.5"


def test_initialisation_is_hes():
    """Variance 2 / (9 x output channels) of the grouped convolutions too, as the authors' code and torchvision draw them."""
    torch.manual_seed(0)
    layer = resnext.resnext50(10).layer3[2].conv2
    assert layer.weight.std().item() == pytest.approx((2 / (9 * 512)) ** 0.5, rel=0.02)


def test_options():
    model = catalog.build("resnext50", 7, {"width": "16", "stem": "small", "zero_gamma": "yes", "stochastic_depth": "0.2"})
    assert model.layer1[0].conv2.weight.shape == (32, 1, 3, 3)
    assert not model.layer4[2].bn3.weight.any() and model.layer4[2].drop == pytest.approx(0.2)
    assert model.eval()(torch.randn(2, 3, 9, 12)).shape == (2, 7)
    with pytest.raises(UserError, match="width: 32 groups need a multiple of 16 channels, found 24"):
        catalog.build("resnext50", 7, {"width": 24})
    with pytest.raises(UserError, match="width: expected 1 channel or more, found 0"):
        catalog.build("resnext101-64x4d", 7, {"width": 0})


def test_any_size_down_to_one_pixel_goes_in():
    with torch.device("meta"):
        model = catalog.build("resnext50", 7, {"width": 16}).eval()
        for size in ((1, 1), (2, 3), (31, 57)):
            assert model(torch.empty(2, 3, *size)).shape == (2, 7)

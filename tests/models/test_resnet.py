"""ResNet against torchvision's: names, logits, initialisation, and the layers that hooks rely on."""

import pytest
import torch
import torchvision
from torch import nn

from striate.errors import UserError
from striate.models import resnet
from striate.taps import layer_names, taps

OURS = {
    "resnet18": resnet.resnet18,
    "resnet34": resnet.resnet34,
    "resnet50": resnet.resnet50,
}


def randomised(model: nn.Module) -> nn.Module:
    """The network in evaluation mode, batch norm's statistics and scales drawn at random as after a training."""
    generator = torch.Generator().manual_seed(0)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.3, generator=generator)
            layer.running_var.uniform_(0.5, 2, generator=generator)
            nn.init.uniform_(layer.weight, 0.3, 1.2, generator=generator)
            nn.init.normal_(layer.bias, 0, 0.1, generator=generator)
    return model.eval()


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("size_px", [64, 97])
def test_logits_equal_torchvisions_with_its_weights(name, size_px):
    theirs = randomised(torchvision.models.get_model(name, weights=None, num_classes=20))
    ours = OURS[name](20).eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, size_px, size_px, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected, found = theirs(images), ours(images)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_state_dict_names_and_their_order_are_torchvisions():
    for name, build in OURS.items():
        with torch.device("meta"):
            theirs = torchvision.models.get_model(name, weights=None).state_dict()
            ours = build(1000).state_dict()
        assert [(key, value.shape) for key, value in ours.items()] == [(key, value.shape) for key, value in theirs.items()]


def test_v1_strides_in_the_first_1x1_and_has_the_same_weights_but_other_logits():
    v15, v1 = randomised(resnet.resnet50(10)), resnet.resnet50_v1(10).eval()
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


def test_width_zero_is_refused():
    with pytest.raises(UserError, match="width: expected 1 channel or more, found 0"):
        resnet.resnet18(10, width=0)

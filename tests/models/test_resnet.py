"""ResNet against torchvision's: names, logits, initialisation, and the layers that hooks rely on."""

import pytest
import torch
import torchvision
from torch import nn

from striate.errors import UserError
from striate.models import catalog, resnet
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

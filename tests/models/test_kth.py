"""The report's networks against torch's own "same" padding and Keras' rules, worked by hand."""

import math
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional

from striate.errors import UserError
from striate.models import kth


@pytest.mark.parametrize("kernel", [(2, 2), (2, 1), (1, 2)])
def test_padding_is_torchs_same(kernel):
    layer = kth.SameConv2d(3, 4, kernel)
    images = torch.randn(2, 3, 9, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = functional.conv2d(images, layer.weight, layer.bias, padding="same")
    assert torch.equal(layer(images), expected)


def test_padding_is_at_the_bottom_and_right_only():
    layer = kth.SameConv2d(1, 1, (2, 2), bias=False)
    nn.init.ones_(layer.weight)
    image = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    assert layer(image).tolist() == [[[[10.0, 6.0], [7.0, 4.0]]]]


def test_layers_stand_in_the_tables_order_with_batch_norm_after_relu():
    names = [name for name, layer in kth.kth_d(200).named_modules() if not list(layer.children())]
    first = ["conv1", "relu1", "bn1", "conv2", "relu2", "bn2", "conv3", "relu3", "bn3", "pool"]
    assert names[:10] == [f"block1.{name}" for name in first]
    assert names[30:] == ["flatten", "fc1", "relu1", "bn1", "dropout", "fc"]
    assert [name for name, _ in kth.kth_f(200).named_children()] == ["block1", "block2", "block3", "flatten", "fc"]


def test_letters_differ_as_the_tables_say():
    def facts(model):
        drops = [layer.p for layer in model.modules() if isinstance(layer, nn.Dropout)]
        hidden = [layer.out_features for layer in model.modules() if isinstance(layer, nn.Linear)][:-1]
        norms = sum(isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)) for layer in model.modules())
        return norms, drops, hidden

    assert facts(kth.kth_a(10)) == (0, [], [2048])
    assert facts(kth.kth_b(10)) == (10, [], [2048])
    assert facts(kth.kth_c(10)) == (0, [0.3], [2048])
    assert facts(kth.kth_d(10)) == (10, [0.3], [2048])
    with torch.device("meta"):
        assert facts(kth.kth_e(10)) == (12, [], [4096, 4096, 4096])
    assert facts(kth.kth_f(10)) == (9, [], [])


def test_rui_is_uniform_and_he_a_cut_normal_of_the_stated_deviation():
    torch.manual_seed(0)
    uniform = kth.kth_a(200).fc1
    assert uniform.weight.abs().max() <= 0.05
    assert uniform.weight.std().item() == pytest.approx(0.05 / math.sqrt(3), rel=0.01)
    glorot = kth.kth_a(200, init="glorot").fc1
    assert glorot.weight.std().item() == pytest.approx(math.sqrt(2 / (5120 + 2048)), rel=0.01)
    assert glorot.weight.abs().max() <= math.sqrt(6 / (5120 + 2048))
    he = kth.kth_d(200)
    assert he.fc1.weight.std().item() == pytest.approx(math.sqrt(2 / 5120), rel=0.01)
    assert he.fc1.weight.abs().max() <= 2 * math.sqrt(2 / 5120) / 0.8796
    assert he.block3.conv2.weight.std().item() == pytest.approx(math.sqrt(2 / (80 * 4)), rel=0.02)
    assert all(layer.bias.count_nonzero() == 0 for layer in he.modules() if isinstance(layer, (nn.Conv2d, nn.Linear)))
    bn = he.block1.bn1
    assert (bn.eps, bn.momentum) == (1e-3, 0.01)


@pytest.mark.parametrize(("size_px", "num_classes"), [(8, 1), (32, 12), (96, 5)])
def test_any_side_that_is_a_multiple_of_8(size_px, num_classes):
    model = kth.kth_f(num_classes, size_px=size_px)
    assert model(torch.randn(2, 3, size_px, size_px)).shape == (2, num_classes)


def test_other_sides_and_dropout_of_everything_are_refused():
    with pytest.raises(UserError, match="multiple of 8, found 60"):
        kth.kth_a(10, size_px=60)
    with pytest.raises(UserError, match="dropout: expected a share"):
        kth.kth_d(10, dropout=1.0)
    with pytest.raises(UserError, match="dropout: expected a share"):
        kth.kth_d(10, dropout=float("nan"))


def test_rui_without_batch_norm_starts_as_a_constant_function():
    torch.manual_seed(0)
    images = torch.rand(8, 3, 64, 64)
    spread = {}
    with torch.inference_mode():
        for start in ("rui", "glorot", "he"):
            spread[start] = kth.kth_a(200, init=start)(images).std(0).mean().item()
    assert spread["rui"] < 1e-5 < 1e-3 < spread["glorot"] < spread["he"]

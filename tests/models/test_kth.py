"""The report's networks against torch's own "same" padding and Keras' rules, worked by hand."""

import math
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional

from striate.errors import UserError
from striate.models import catalog, kth


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
    with torch.device("meta"):
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

    with torch.device("meta"):
        assert facts(kth.kth_a(10)) == (0, [], [2048])
        assert facts(kth.kth_b(10)) == (10, [], [2048])
        assert facts(kth.kth_c(10)) == (0, [0.3], [2048])
        assert facts(kth.kth_d(10)) == (10, [0.3], [2048])
        assert facts(kth.kth_e(10)) == (12, [], [4096, 4096, 4096])
        assert facts(kth.kth_f(10)) == (9, [], [])


def test_rui_is_uniform_and_he_a_cut_normal_of_the_stated_deviation():
    torch.manual_seed(0)
    uniform = kth.kth_a(200).fc1
    assert uniform.weight.abs().max() <= 0.05
    assert uniform.weight.std().item() == pytest.approx(0.05 / math.sqrt(3), rel=0.01)
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
            spread[start] = catalog.build("kth-a", 200, {"init": start})(images).std(0).mean().item()
    assert spread["rui"] < 1e-5 < 1e-3 < spread["glorot"] < spread["he"]


def test_the_option_init_paper_keeps_each_letters_own_start():
    torch.manual_seed(0)
    paper = catalog.build("kth-f", 10, {"init": "paper"})
    torch.manual_seed(0)
    own = kth.kth_f(10)
    assert all(torch.equal(one, other) for one, other in zip(paper.parameters(), own.parameters(), strict=True))
    he = catalog.build("kth-f", 10, {"init": "he"})  # not cut, as Keras' is
    edge = 2 * math.sqrt(2 / 320) / 0.8796
    assert own.get_parameter("block3.conv2.weight").abs().max() <= edge < he.get_parameter("block3.conv2.weight").abs().max()


def test_padding_valid_is_torchs_plain_convolution_and_leaves_a_grid_of_5():
    """64 - 62 - 31 - 28 - 14 - 11 - 5: the first block loses two pixels, the others three each."""
    model = kth.kth_f(200, padding="valid")
    assert model.get_submodule("fc").in_features == 5 * 5 * 80
    assert model(torch.randn(2, 3, 64, 64)).shape == (2, 200)
    kinds = {type(layer) for layer in model.modules() if isinstance(layer, nn.Conv2d)}
    assert kinds == {nn.Conv2d}
    assert kth.kth_f(7, size_px=28, padding="valid")(torch.randn(2, 3, 28, 28)).shape == (2, 7)
    with pytest.raises(UserError, match="padding valid the input side must be 28 or more, found 27"):
        kth.kth_f(7, size_px=27, padding="valid")

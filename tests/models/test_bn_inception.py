"""BN-Inception against Caffe's pooling and figure 5, worked by hand, and against itself written out module by module."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from striate.errors import UserError
from striate.models import catalog
from striate.models.bn_inception import BNInception, HalvingMaxPool, bn_inception
from striate.taps import taps


def written_out(weights: dict[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    """The logits from the weights alone, by their names: the network of the Caffe prototxt as plain operations."""

    def conv(name: str, x: torch.Tensor, stride: int = 1) -> torch.Tensor:
        weight = weights[f"{name}.weight"]
        x = functional.conv2d(x, weight, weights[f"{name}.bias"], stride, padding=weight.shape[-1] // 2)
        mean, var = weights[f"{name}_bn.running_mean"], weights[f"{name}_bn.running_var"]
        return functional.batch_norm(x, mean, var, weights[f"{name}_bn.weight"], weights[f"{name}_bn.bias"], eps=1e-5).relu()

    x = functional.max_pool2d(conv("conv1_7x7_s2", images, 2), 3, 2, ceil_mode=True)
    x = functional.max_pool2d(conv("conv2_3x3", conv("conv2_3x3_reduce", x)), 3, 2, ceil_mode=True)
    for module in ("3a", "3b", "3c", "4a", "4b", "4c", "4d", "4e", "5a", "5b"):
        at = f"inception_{module}"
        stride = 2 if module in ("3c", "4e") else 1
        three = conv(f"{at}_3x3", conv(f"{at}_3x3_reduce", x), stride)
        double = conv(f"{at}_double_3x3_1", conv(f"{at}_double_3x3_reduce", x))
        double = conv(f"{at}_double_3x3_2", double, stride)
        if stride == 2:
            x = torch.cat([three, double, functional.max_pool2d(x, 3, 2, ceil_mode=True)], 1)
            continue
        if module == "5b":
            pooled = functional.max_pool2d(x, 3, 1, padding=1)
        else:
            pooled = functional.conv2d(x, torch.full((x.shape[1], 1, 3, 3), 1 / 9), padding=1, groups=x.shape[1])
        x = torch.cat([conv(f"{at}_1x1", x), three, double, conv(f"{at}_pool_proj", pooled)], 1)
    return functional.linear(x.mean((2, 3)), weights["last_linear.weight"], weights["last_linear.bias"])


def test_logits_equal_the_network_written_out_by_the_names_of_caffes_port(as_after_training, same_logits):
    model = as_after_training(bn_inception(20, bias=True))
    same_logits(model, lambda images: written_out(model.state_dict(), images), 64, 96)


def test_the_names_are_those_of_cadenes_file():
    with torch.device("meta"):
        keys = list(bn_inception(1000, bias=True).state_dict())
    norm = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    assert keys[:7] == ["conv1_7x7_s2.weight", "conv1_7x7_s2.bias", *(f"conv1_7x7_s2_bn.{name}" for name in norm)]
    layers = list(dict.fromkeys(key.rpartition(".")[0] for key in keys))
    paths = ["1x1", "3x3_reduce", "3x3", "double_3x3_reduce", "double_3x3_1", "double_3x3_2", "pool_proj"]
    assert layers[6:20] == [f"inception_3a_{path}{norm}" for path in paths for norm in ("", "_bn")]
    assert layers[34:44] == [f"inception_3c_{path}{norm}" for path in paths[1:6] for norm in ("", "_bn")]
    assert layers[-1] == "last_linear"
    assert len(keys) == 7 * 69 + 2  # 69 convolutions: 3, 8 modules of 7, 2 of 5


@pytest.mark.parametrize(("table", "wide", "widest"), [("caffe", 608, 1056), ("tf", 576, 1024)])
def test_channels_and_grids_are_those_of_figure_5(table, wide, widest):
    with torch.device("meta"):
        model = bn_inception(1000, table=table).eval()
    shapes: dict[str, tuple[int, ...]] = {}
    names = ["conv1_7x7_s2", "pool1_3x3_s2", "pool2_3x3_s2"]
    names += [name for name, _ in model.named_children() if name.endswith("_output")]
    looks = {name: lambda layer, inputs, output, name=name: shapes.update({name: tuple(output.shape[1:3])}) for name in names}
    with taps(model, looks):
        model(torch.empty(1, 3, 224, 224, device="meta"))
    assert list(shapes.values()) == [
        *[(64, 112), (64, 56), (192, 28)],  # the first convolution, two pools
        *[(256, 28), (320, 28), (576, 14)],
        *[(576, 14), (576, 14), (wide, 14), (wide, 14), (widest, 7)],
        *[(1024, 7), (1024, 7)],
    ]
    assert {layer.eps for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)} == {1e-5 if table == "caffe" else 1e-3}


def test_a_halving_pool_is_caffes_and_goes_on_where_caffe_has_a_column_too_few():
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert HalvingMaxPool()(image).tolist() == [[[[10, 11], [14, 15]]]]  # windows begin at 0 and 2, nothing is padded before
    assert HalvingMaxPool()(-image[..., :3]).tolist() == [[[[0, -2], [-8, -10]]]]  # the last window has one column
    assert HalvingMaxPool()(torch.full((1, 1, 1, 1), -3.0)).tolist() == [[[[-3.0]]]]


def test_an_average_pool_counts_the_padding():
    model = bn_inception(5)
    pools = [layer for layer in model.modules() if isinstance(layer, nn.AvgPool2d)]
    assert len(pools) == 7
    assert pools[0](torch.ones(1, 1, 3, 3))[0, 0].tolist() == [
        pytest.approx([4 / 9, 6 / 9, 4 / 9]),
        pytest.approx([6 / 9, 1, 6 / 9]),
        pytest.approx([4 / 9, 6 / 9, 4 / 9]),
    ]


def test_a_separable_stem_is_eight_filters_a_colour_and_no_more_than_linear():
    model = bn_inception(5, table="tf", stem="separable").eval()
    stem = model.conv1_7x7_s2
    assert (stem.depthwise.weight.shape, stem.pointwise.weight.shape) == ((24, 1, 7, 7), (64, 24, 1, 1))
    images = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(stem(-2 * images), -2 * stem(images))
        red = stem.depthwise(images * torch.tensor([1.0, 0, 0]).reshape(1, 3, 1, 1))
    assert red[:, :8].abs().min() > 0 and red[:, 8:].abs().max() == 0


def test_dropout_acts_in_training_only(shares_dropped):
    torch.manual_seed(0)
    assert shares_dropped(bn_inception(5, dropout=0.3), torch.randn(2, 3, 32, 32)) == [pytest.approx(0.3, abs=0.05), 0]


def test_squeeze_and_excitation_stands_beside_the_plain_networks_layers_behind_all_ten_modules():
    with torch.device("meta"):
        plain, excited = bn_inception(1000), BNInception(1000, reduction=16).eval()
        no_bias = BNInception(1000, reduction=16, se_bias=False)
    assert {key for key in excited.state_dict() if "_se." not in key} == set(plain.state_dict())
    found = [name for name, _ in excited.named_children() if name.endswith("_se")]
    assert found == [f"inception_{name}_se" for name in ("3a", "3b", "3c", "4a", "4b", "4c", "4d", "4e", "5a", "5b")]
    assert excited.inception_4e_se.fc1.weight.shape == (66, 1056, 1, 1)
    added = {model: sum(weight.numel() for weight in model.parameters()) - 11_285_224 for model in (excited, no_bias)}
    assert list(added.values()) == [639_360 + 7_038, 639_360]
    calls: list[str] = []
    looks = {name: lambda layer, inputs, output, name=name: calls.append(name) for name in found}
    with taps(excited, looks):
        assert excited(torch.empty(2, 3, 64, 64, device="meta")).shape == (2, 1000)
    assert calls == found


def test_an_excited_module_is_the_plain_one_times_its_gate(as_after_training):
    torch.manual_seed(0)
    model = as_after_training(BNInception(5, reduction=16))
    seen: dict[str, torch.Tensor] = {}
    with taps(
        model,
        {
            "inception_3a_output": lambda layer, inputs, output: seen.update(plain=output.clone()),
            "inception_3a_se": lambda layer, inputs, output: seen.update(gated=output.clone()),
            "inception_3b_1x1": lambda layer, inputs, output: seen.update(next=inputs[0].clone()),
        },
    ):
        model(torch.randn(1, 3, 64, 64))
    se = model.inception_3a_se
    gate = torch.sigmoid(se.fc2(se.fc1(seen["plain"].mean((2, 3), keepdim=True)).relu()))
    torch.testing.assert_close(seen["gated"], seen["plain"] * gate)
    assert torch.equal(seen["next"], seen["gated"])


def test_every_relu_is_called_once():
    model = bn_inception(5).eval()
    relus = [name for name, layer in model.named_modules() if isinstance(layer, nn.ReLU)]
    calls: list[str] = []
    with taps(model, {name: lambda layer, inputs, output, name=name: calls.append(name) for name in relus}):
        model(torch.randn(1, 3, 32, 32))
    assert len(relus) == 69 and sorted(calls) == sorted(relus)


def test_initial_weights_are_glorots():
    torch.manual_seed(0)
    model = bn_inception(1000, bias=True)
    for weight in (model.inception_4e_double_3x3_1.weight, model.inception_5b_1x1.weight, model.last_linear.weight):
        area = weight[0, 0].numel()
        bound = math.sqrt(6 / (area * (weight.shape[0] + weight.shape[1])))
        assert weight.abs().max() <= bound
        assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.01)
    assert model.conv1_7x7_s2.bias.count_nonzero() == model.last_linear.bias.count_nonzero() == 0


@pytest.mark.parametrize("size_px", [7, 8, 75, 299])
def test_any_input_of_7_px_or_more(size_px):
    with torch.device("meta"):
        model = bn_inception(3).eval()
    assert model(torch.empty(2, 3, size_px, size_px + 5, device="meta")).shape == (2, 3)


def test_6_px_are_too_few_indeed():
    with torch.device("meta"):
        model = bn_inception(3).eval()
    with pytest.raises(UserError, match="bn-inception: an input of 6x9 px is too small; the smallest is 7x7"):
        model(torch.empty(1, 3, 6, 9, device="meta"))
    model.smallest_px = 1
    with pytest.raises(RuntimeError, match="Output size is too small"):
        model(torch.empty(1, 3, 6, 6, device="meta"))


def test_options_from_the_command_line_and_bad_ones():
    with torch.device("meta"):
        model = catalog.build("bn-inception", 3, {"table": "tf", "stem": "separable", "bias": "true", "dropout": "0.1"})
        assert model.dropout.p == 0.1
        with pytest.raises(UserError, match="expected 'caffe' or 'tf'"):
            catalog.build("bn-inception", 3, {"table": "keras"})
        with pytest.raises(UserError, match="dropout: expected a share"):
            bn_inception(3, dropout=1.0)
        with pytest.raises(UserError, match="r: expected a divisor of 256"):
            BNInception(3, reduction=7)

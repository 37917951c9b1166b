"""LeNet-5 against the numbers that its paper prints, and against its equations written out."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from striate.errors import UserError
from striate.models import catalog, lenet
from striate.recipe import Recipe, change
from striate.run.folder import build_model

# Maps of S2 that each of C3's 16 maps sees, as the rows of the paper's table I: for each of S2's six, the C3 maps marked with X.
TABLE = (
    (0, 4, 5, 6, 9, 10, 11, 12, 14, 15),
    (0, 1, 5, 6, 7, 10, 11, 12, 13, 15),
    (0, 1, 2, 6, 7, 8, 11, 13, 14, 15),
    (1, 2, 3, 6, 7, 8, 9, 12, 14, 15),
    (2, 3, 4, 7, 8, 9, 10, 12, 13, 15),
    (3, 4, 5, 8, 9, 10, 11, 13, 14, 15),
)


def parameters(model: nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())


def test_every_layer_has_the_papers_count():
    """Section II.B names them one by one, and the sum: 60,000."""
    model = catalog.build("lenet5", 10, {})
    counts = {name: parameters(layer) for name, layer in model.named_children() if parameters(layer)}
    assert counts == {"c1": 156, "s2": 12, "c3": 1516, "s4": 32, "c5": 48_120, "f6": 10_164, "output": 850}
    assert parameters(model) - 850 == 60_000


def test_connections_are_the_papers_340_908():
    """Each unit's inputs and its bias, and the 840 connections of the output; section II.B, where they are added up."""
    model = catalog.build("lenet5", 10, {}).eval()
    connections = 840
    x = torch.zeros(1, 1, 32, 32)
    for name, layer in model.named_children():
        x = layer(x)
        units = x[0].numel()
        if name == "c3":
            connections += sum(
                x[0, 0].numel() * (part.weight.numel() + len(part.bias)) for part in (layer.three, layer.four, layer.six)
            )
        elif name in ("s2", "s4"):
            connections += units * 5
        elif name in ("c1", "c5", "f6"):
            connections += units * (layer.weight[0].numel() + 1)
    assert connections == 340_908


def test_layer_c3_sees_the_maps_of_the_table_only():
    layer = lenet.TableConv2d()
    for place, expected in enumerate(TABLE):
        images = torch.zeros(1, 6, 5, 5)
        images[:, place] = torch.rand(5, 5)
        with torch.inference_mode():
            seen = (layer(images) != layer(torch.zeros(1, 6, 5, 5)))[0, :, 0, 0]
        assert tuple(seen.nonzero()[:, 0].tolist()) == expected


def test_layer_c3_is_one_convolution_with_zeros_where_nothing_is_connected():
    torch.manual_seed(0)
    layer, images = lenet.TableConv2d(), torch.randn(2, 6, 14, 14)
    kernels, biases = torch.zeros(16, 6, 5, 5), torch.cat([part.bias for part in (layer.three, layer.four, layer.six)])
    rows = [row for part in (layer.three, layer.four, layer.six) for row in part.weight]
    for output, row in enumerate(rows):
        for place, kernel in zip(lenet._SEEN_BY_C3[output], row, strict=True):
            kernels[output, place] = kernel
    torch.testing.assert_close(layer(images), functional.conv2d(images, kernels, biases))


def test_subsampling_adds_four_and_takes_its_weight_and_bias():
    layer = lenet.Subsample(2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([0.5, -1.0]).view(2, 1, 1))
        layer.bias.copy_(torch.tensor([10.0, 20.0]).view(2, 1, 1))
    images = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).expand(1, 2, 2, 2)
    assert layer(images).flatten().tolist() == [15.0, 10.0]


def test_the_squashing_function_keeps_1_and_minus_1():
    found = lenet.ScaledTanh()(torch.tensor([-1.0, 0.0, 1.0, 100.0]))
    assert found.tolist() == pytest.approx([-1, 0, 1, 1.7159], abs=1e-4)


def test_weights_start_within_2_4_over_the_inputs_of_a_unit():
    torch.manual_seed(0)
    model = catalog.build("lenet5", 10, {})
    inputs = {"c1": 25, "s2": 4, "c3.three": 75, "c3.four": 100, "c3.six": 150, "s4": 4, "c5": 400, "f6": 120, "output": 84}
    for name, count in inputs.items():
        layer = model.get_submodule(name)
        bound = 2.4 / count
        assert 0.6 * bound < layer.weight.abs().max().item() <= bound and layer.bias.count_nonzero() == 0
    assert model.get_parameter("c5.weight").std().item() == pytest.approx(2.4 / 400 / math.sqrt(3), rel=0.02)


def test_a_larger_input_is_seen_in_many_places_whose_mean_counts():
    """C5 at 64 px is 9x9 networks side by side, four pixels apart, on an image that repeats every four pixels: all the same."""
    torch.manual_seed(0)
    model = catalog.build("lenet5", 10, {"init": "glorot"}).eval()
    tile = torch.randn(1, 1, 4, 4)
    with torch.inference_mode():
        small, large = model(tile.repeat(1, 1, 8, 8)), model(tile.repeat(1, 1, 16, 16))
    torch.testing.assert_close(small, large)
    assert model(torch.randn(2, 1, 32, 47)).shape == (2, 10)


def test_too_small_an_input_is_refused():
    model = catalog.build("lenet5", 10, {})
    with pytest.raises(UserError, match="lenet5: an input of 31x32 px is too small; the smallest is 32x32"):
        model(torch.zeros(1, 1, 31, 32))
    model.smallest_px = 1
    with pytest.raises(RuntimeError, match="Kernel size can't be greater than"):
        model(torch.zeros(1, 1, 31, 31))


@pytest.mark.parametrize(("colour", "channels"), [("rgb", 3), ("grey", 1)])
def test_a_run_gives_it_the_channels_of_its_data(colour, channels):
    recipe = change(Recipe(), {"model.name": "lenet5", "data.colour": colour, "data.size_px": 32})
    model = build_model(recipe, 5)
    assert model.get_submodule("c1").in_channels == channels
    assert model(torch.zeros(2, channels, 32, 32)).shape == (2, 5)

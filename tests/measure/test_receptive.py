"""Receptive fields against gradients: a unit's gradient is nonzero in just the window that is said."""

import random

import pytest
import torch
from torch import nn
from torch.nn import functional

from striate.errors import UserError
from striate.measure.receptive import Field, fields, last_conv
from striate.models import catalog

WHOLE = Field(None, None, None)


def reached(model: nn.Module, layer: str, size_px: int, unit: tuple[int, int]) -> tuple[int, ...] | None:
    """Top, left, bottom, right (the last two outside) of the pixels that have a gradient; nothing where none has.

    Weights are made positive, so that no two paths cancel each other.
    """
    values = {}
    module = model.get_submodule(layer)
    hook = module.register_forward_hook(lambda module, inputs, output: values.update(output=output))
    with torch.no_grad():
        for weight in model.parameters():
            weight.abs_().add_(0.01)
    pixels = torch.rand(1, 3, size_px, size_px, dtype=torch.float64, requires_grad=True)
    model.double().eval()(pixels)
    hook.remove()
    (gradient,) = torch.autograd.grad(values["output"][0, :, unit[0], unit[1]].sum(), pixels)
    rows = gradient[0].abs().sum((0, 2)).nonzero().flatten().tolist()
    columns = gradient[0].abs().sum((0, 1)).nonzero().flatten().tolist()
    return (rows[0], columns[0], rows[-1] + 1, columns[-1] + 1) if rows else None


def clipped(window: tuple[int, int, int, int], size_px: int) -> tuple[int, int, int, int]:
    return max(0, window[0]), max(0, window[1]), min(size_px, window[2]), min(size_px, window[3])


def inside(box: tuple[int, ...], window: tuple[int, int, int, int]) -> tuple[int, ...]:
    """The part of a box that lies in a window."""
    return (
        *(max(pair) for pair in zip(box[:2], window[:2], strict=True)),
        *(min(pair) for pair in zip(box[2:], window[2:], strict=True)),
    )


class Paths(nn.Module):
    """Two paths of one stride and grid, added up or side by side."""

    def __init__(self, one: nn.Module, other: nn.Module, is_sum: bool) -> None:
        super().__init__()
        self.one, self.other, self.is_sum = one, other, is_sum

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one, other = self.one(x), self.other(x)
        return one + other if self.is_sum else torch.cat((one, other), 1)


def drawn(seed: int) -> nn.Sequential:
    """A small network of random layers. Mean pools stand for maximum pools: they reach as far, and their gradient shows it."""
    draw = random.Random(seed)
    layers: list[nn.Module] = []
    channels = 4
    layers.append(nn.Conv2d(3, channels, draw.choice([3, (1, 5), (4, 2)]), draw.choice([1, 2]), padding=draw.choice([0, 1])))
    for _ in range(5):
        # A stride of 16 at most, so that the window of the unit in the middle lies within 160 pixels.
        strided = (
            ["pool", "sum", "cat", "slice"]
            if sum(isinstance(layer, (nn.AvgPool2d, Paths, Sliced)) for layer in layers) < 3
            else []
        )
        kind = draw.choice(["conv", "norm", "pad", *strided])
        if kind == "conv":
            kernel, dilation = draw.choice([1, 2, 3, 5, (1, 3), (3, 1)]), draw.choice([1, 1, 2])
            layers.append(
                nn.Conv2d(channels, channels, kernel, 1, draw.choice([0, 2]), dilation, groups=draw.choice([1, channels]))
            )
        elif kind == "pool":
            layers.append(
                nn.AvgPool2d(draw.choice([2, 3, (3, 2)]), 2, padding=draw.choice([0, 1]), ceil_mode=draw.choice([True, False]))
            )
        elif kind in ("sum", "cat"):
            stride = draw.choice([1, 2])
            other = nn.Conv2d(channels, channels, 1, stride)
            layers.append(Paths(nn.Conv2d(channels, channels, 3, stride, padding=1), other, kind == "sum"))
            channels *= 1 + (kind == "cat")
        elif kind == "norm":
            layers += [nn.BatchNorm2d(channels), nn.Hardswish(), nn.LocalResponseNorm(3)]
        elif kind == "slice":
            layers.append(Sliced())
        else:
            layers.append(nn.ZeroPad2d((1, 0, 2, 1)))
    return nn.Sequential(*layers)


class Sliced(nn.Module):
    """Every second row and column, without the first ones, as in a shortcut without parameters."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :, 1:, 1:][:, :, ::2, ::2]


@pytest.mark.parametrize("seed", range(30))
def test_the_gradient_of_a_unit_is_nonzero_in_its_window_and_nowhere_else(seed):
    torch.manual_seed(seed)
    model = drawn(seed)
    found = fields(model, 160)
    layer = str(len(model) - 1)
    with torch.no_grad():
        height, width = model(torch.zeros(1, 3, 160, 160)).shape[-2:]
    middle = (height // 2, width // 2)
    window = found[layer].window(*middle)
    assert reached(model, layer, 160, middle) == window
    for unit in ((0, 0), (height - 1, width - 1)):  # here a part of the window may be padding that a layer in the middle added
        reach, window = reached(model, layer, 160, unit), clipped(found[layer].window(*unit), 160)
        assert reach is None or reach == inside(reach, window)


def test_a_maximum_pool_reaches_as_far_as_its_window():
    pool = nn.MaxPool2d((3, 2), (2, 3), padding=1, dilation=(2, 1), ceil_mode=True)
    assert fields(nn.Sequential(pool), 32)["0"] == Field((5, 2), (2, 3), (-1, -1))
    seen = torch.zeros(32, 32)
    for _ in range(200):  # a maximum has a gradient at one place only
        pixels = torch.rand(1, 3, 32, 32, requires_grad=True)
        (gradient,) = torch.autograd.grad(pool(pixels)[0, :, 4, 4].sum(), pixels)
        seen += gradient[0].abs().sum(0)
    rows, columns = seen.nonzero().T
    assert (int(rows.min()), int(rows.max()), int(columns.min()), int(columns.max())) == (7, 11, 11, 12)


class ChannelsLast(nn.Module):
    """Places moved into rows and back, linear layers and layer norms on the channels; channels shuffled between groups."""

    def __init__(self) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(3, 3, 7, 4, groups=3)
        self.norm = nn.LayerNorm(3)
        self.wide, self.narrow = nn.Linear(3, 6), nn.Linear(6, 4)
        self.last = nn.Conv2d(4, 4, 3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.depthwise(x).permute(0, 2, 3, 1)
        x = self.narrow(functional.gelu(self.wide(self.norm(x)))).permute(0, 3, 1, 2)
        x = x.view(1, 2, 2, *x.shape[2:]).transpose(1, 2).flatten(1, 2)
        return self.last(torch.cat(x.split(2, 1)[::-1], 1))


def test_channels_last_and_shuffled_channels_keep_their_grid():
    model = ChannelsLast()
    found = fields(model, 64)
    assert found["narrow"] == Field((7, 7), (4, 4), (0, 0))
    assert found["last"] == Field((15, 15), (8, 8), (0, 0))
    assert reached(model, "last", 64, (3, 2)) == found["last"].window(3, 2)


class Gated(nn.Module):
    """A squeeze-and-excitation gate between two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.gate, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return self.second(x * self.gate(x.mean((2, 3), keepdim=True)).sigmoid())


def test_a_gate_is_left_out_and_sees_the_whole_image_itself():
    model = Gated()
    found = fields(model, 32)
    assert found == {"first": Field((3, 3), (1, 1), (0, 0)), "gate": WHOLE, "second": Field((5, 5), (1, 1), (0, 0))}
    assert reached(model, "gate", 32, (0, 0)) == (0, 0, 32, 32)
    assert last_conv(model, found) == "second"
    assert found["gate"].is_whole and found["gate"].window(0, 0) is None


class Attention(nn.Module):
    """Every place looks at every other, and at a token of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.look, self.head = nn.Conv2d(3, 8, 8, 8), nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        return self.head(self.look(tokens, tokens, tokens, need_weights=False)[0])


def test_attention_and_flattened_grids_see_the_whole_image():
    found = fields(Attention(), 32)
    assert found["patches"].size_px == 8
    assert found["head"] == WHOLE
    flat = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 14 * 14, 5))
    assert fields(flat, 16)["2"] == WHOLE
    assert fields(nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1)), 16)["1"] == WHOLE
    # An adaptive pool whose sides divide is a plain one.
    assert fields(nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(7)), 16)["1"] == Field((4, 4), (2, 2), (0, 0))


class Mixed(nn.Module):
    """Mixes places in ways that are not followed."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.roll(x, 3, -1) if x.shape[-1] % 2 else functional.interpolate(x, scale_factor=2)


@pytest.mark.parametrize("size_px", [16, 17])
def test_what_is_not_followed_counts_as_the_whole_image(size_px):
    assert fields(nn.Sequential(Mixed(), nn.Conv2d(3, 2, 1)), size_px) == {"0": WHOLE, "1": WHOLE}


@pytest.mark.parametrize(
    ("name", "size_px", "field_px"),
    [
        ("torchvision/googlenet", 224, 379),
        ("torchvision/inception_v3", 299, 1311),
        ("torchvision/densenet121", 224, 2071),
        ("torchvision/alexnet", 224, 163),
        ("torchvision/shufflenet_v2_x1_0", 224, 527),
        ("torchvision/mobilenet_v3_small", 224, 639),
    ],
)
def test_fields_of_networks_of_others(name, size_px, field_px):
    with torch.device("meta"):
        model = catalog.build(name, 1000, {})
    found = fields(model, size_px)
    assert found[last_conv(model, found)].size_px == field_px


def test_channels_picked_by_a_table_keep_their_grid():
    model = catalog.build("lenet5", 10, {})
    found = fields(model, 32, 1)
    assert last_conv(model, found) == "c5"
    assert [found[name].size_px for name in ("c1", "c3.three", "c3", "c5")] == [5, 14, 14, 32]
    picked = nn.Sequential(nn.Conv2d(3, 4, 3), Shuffled())
    assert fields(picked, 8)["1"].is_whole  # rows in another order: nothing is known of places


class Shuffled(nn.Module):
    """The rows of an image in another order."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :, torch.arange(x.shape[2] - 1, -1, -1)]


def test_a_network_that_no_table_says_by_its_gradients():
    """Grouped convolutions, channels in halves and shuffled."""
    torch.manual_seed(0)
    model = catalog.build("torchvision/shufflenet_v2_x1_0", 10, {})
    window = fields(model, 96)["stage2.2"].window(6, 6)
    assert window == (25, 25, 72, 72)
    assert reached(model, "stage2.2", 96, (6, 6)) == window


def test_the_network_is_as_before():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))
    model[1].eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    fields(model, 16)
    assert [layer.training for layer in model] == [True, False, True]
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(layer._forward_hooks for layer in model.modules())


def test_a_layer_used_twice_has_the_field_of_its_last_use():
    relu = nn.ReLU()
    assert fields(nn.Sequential(nn.Conv2d(3, 4, 3), relu, nn.Conv2d(4, 4, 3), relu), 16)["1"].size_px == 5


def test_an_input_that_is_too_small_names_the_smallest():
    with pytest.raises(UserError, match="tiny: an input of 5x5 px is too small; the smallest is 7x7"):
        fields(nn.Sequential(nn.Conv2d(3, 4, 7)), 5, name="tiny")


def test_a_network_without_convolutions_has_no_last_one():
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16, 2))
    assert last_conv(model, fields(model, 4)) is None

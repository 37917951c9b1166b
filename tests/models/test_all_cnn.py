"""All-CNN against the tables of its paper: what stands where, grids, and counts worked out by hand."""

import math

import pytest
import torch
from torch import nn

from striate.errors import UserError
from striate.models import catalog
from striate.taps import taps

FORMS = ("base", "strided", "convpool", "all")


def meta(name: str, **options) -> nn.Module:
    with torch.device("meta"):
        return catalog.build(name, 1000 if name == "all-cnn-imagenet" else 10, options).eval()


def table(model: nn.Module) -> list[str]:
    """The network in the words of the paper's tables: kernel, maps, stride where it is not 1."""
    found = []
    for layer in model.children():
        if isinstance(layer, nn.Conv2d):
            found.append(f"{layer.kernel_size[0]} {layer.out_channels}" + (f" s{layer.stride[0]}" if layer.stride[0] > 1 else ""))
        elif isinstance(layer, nn.MaxPool2d):
            found.append(f"pool {layer.kernel_size} s{layer.stride}")
        elif isinstance(layer, nn.Dropout):
            found.append(f"drop {layer.p}")
    return found


def test_base_networks_are_table_1():
    end = ["3 192", "1 192", "1 10"]
    pool = ["pool 3 s2", "drop 0.5"]
    assert table(meta("all-cnn-a", form="base")) == ["drop 0.2", "5 96", *pool, "5 192", *pool, *end]
    assert table(meta("all-cnn-b", form="base")) == ["drop 0.2", "5 96", "1 96", *pool, "5 192", "1 192", *pool, *end]
    assert table(meta("all-cnn-c", form="base")) == ["drop 0.2", "3 96", "3 96", *pool, "3 192", "3 192", *pool, *end]


def test_forms_of_c_are_table_2():
    end = ["3 192", "1 192", "1 10"]
    drop, pool = ["drop 0.5"], ["pool 3 s2", "drop 0.5"]
    assert table(meta("all-cnn-c", form="strided")) == ["drop 0.2", "3 96", "3 96 s2", *drop, "3 192", "3 192 s2", *drop, *end]
    convpool = ["drop 0.2", "3 96", "3 96", "3 96", *pool, "3 192", "3 192", "3 192", *pool, *end]
    assert table(meta("all-cnn-c", form="convpool")) == convpool
    every = ["drop 0.2", "3 96", "3 96", "3 96 s2", *drop, "3 192", "3 192", "3 192 s2", *drop, *end]
    assert table(meta("all-cnn-c")) == every  # the default


@pytest.mark.parametrize("letter", "abc")
@pytest.mark.parametrize("form", FORMS)
def test_grids_go_from_32_to_6_and_a_relu_follows_every_convolution(letter, form):
    model = meta(f"all-cnn-{letter}", form=form)
    sides: list[int] = []
    with taps(model, {"grid": lambda layer, inputs, output: sides.append(inputs[0].shape[-1])}):
        assert model(torch.empty(1, 3, 32, 32, device="meta")).shape == (1, 10)
    assert sides == [6]
    layers = list(model.children())
    followers = [layers[place + 1] for place, layer in enumerate(layers) if isinstance(layer, nn.Conv2d)]
    assert all(isinstance(follower, nn.ReLU) for follower in followers) and len(followers) >= 5
    assert isinstance(layers[-3], nn.ReLU) and isinstance(layers[-2], nn.AdaptiveAvgPool2d)  # after the classes' layer too


def test_what_stands_for_the_pools_has_the_same_count_in_every_letter():
    """3x3 convolutions from 96 to 96 and from 192 to 192 maps, with their biases."""
    added = 96 * 96 * 9 + 96 + 192 * 192 * 9 + 192
    assert added == 415_008
    for letter in "abc":
        counts = {form: sum(weight.numel() for weight in meta(f"all-cnn-{letter}", form=form).parameters()) for form in FORMS}
        assert counts["strided"] == counts["base"] and counts["all"] == counts["convpool"] == counts["base"] + added


def test_logits_are_means_of_the_last_grid_and_never_below_0():
    torch.manual_seed(0)
    model = catalog.build("all-cnn-c", 10, {}).eval()
    images = torch.randn(4, 3, 32, 32)
    grids: list[torch.Tensor] = []
    with torch.inference_mode(), taps(model, {"conv9": lambda layer, inputs, output: grids.append(output.clone())}):
        logits = model(images)
    torch.testing.assert_close(logits, grids[0].relu().mean((2, 3)))
    assert logits.min() >= 0 and logits.max() > 0


def test_the_image_is_dropped_in_training_only():
    torch.manual_seed(0)
    model = catalog.build("all-cnn-c", 10, {})
    assert model.get_submodule("drop0")(torch.ones(100_000)).eq(0).float().mean().item() == pytest.approx(0.2, abs=0.01)
    assert torch.equal(model.eval().get_submodule("drop0")(torch.ones(9)), torch.ones(9))


def test_weights_start_as_glorots():
    torch.manual_seed(0)
    layer = catalog.build("all-cnn-c", 10, {}).get_submodule("conv5")
    assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / (9 * (192 + 192))), rel=0.01)
    assert layer.bias.count_nonzero() == 0


def test_imagenet_network_is_table_6_with_either_padding():
    rows = ["11 96 s4", "1 96", "3 96 s2", "5 256", "1 256", "3 256 s2", "3 384", "1 384", "3 384 s2", "drop 0.5"]
    rows += ["3 1024", "1 1024", "1 1000"]
    for pad, expected in (
        ("neon", [54, 54, 27, 23, 23, 12, 12, 12, 6, 6, 6, 6]),
        ("same", [55, 55, 28, 28, 28, 14, 14, 14, 7, 7, 7, 7]),
    ):
        model = meta("all-cnn-imagenet", pad=pad)
        assert table(model) == rows
        sides: list[int] = []
        layers = [name for name, layer in model.named_children() if isinstance(layer, nn.Conv2d)]
        with taps(model, dict.fromkeys(layers, lambda layer, inputs, output, sides=sides: sides.append(output.shape[-1]))):
            model(torch.empty(1, 3, 224, 224, device="meta"))
        assert sides == expected


def test_networks_that_share_names_and_compute_something_else_have_variants():
    for letter in "abc":
        assert len({meta(f"all-cnn-{letter}", form=form).variant for form in FORMS}) == 4
    assert meta("all-cnn-imagenet").variant != meta("all-cnn-imagenet", pad="same").variant


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((f"all-cnn-{letter}", {"form": form}) for letter in "abc" for form in FORMS),
        *(("all-cnn-imagenet", {"pad": pad}) for pad in ("neon", "same")),
    ],
)
def test_the_smallest_input_is_the_smallest(name, options):
    model = meta(name, **options)
    smallest = model.smallest_px
    assert model(torch.empty(2, 3, smallest, 50, device="meta")).shape[0] == 2
    with pytest.raises(UserError, match=rf"{name}: an input of .* the smallest is {smallest}x{smallest}"):
        model(torch.empty(2, 3, 50, smallest - 1, device="meta"))
    model.smallest_px = 1
    with pytest.raises(RuntimeError, match=r"too small|greater than"):
        model(torch.empty(2, 3, smallest - 1, smallest - 1, device="meta"))


def test_another_form_is_refused():
    with pytest.raises(UserError, match="option 'form': expected 'base' or 'strided' or 'convpool' or 'all', found 'pool'"):
        catalog.build("all-cnn-a", 10, {"form": "pool"})

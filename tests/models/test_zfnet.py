"""ZFNet against its figure, and against torch's parts put together by hand."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from striate.errors import UserError
from striate.models import catalog
from striate.taps import taps


def meta(name: str, **options) -> nn.Module:
    with torch.device("meta"):
        return catalog.build(name, 1000, options).eval()


def test_grids_and_channels_are_those_of_the_figure():
    """224-110-55-26-13-13-13-6, with 96, 256, 384, 384 and 256 maps; (b) has 512, 1,024 and 512."""
    for name, maps in (("zfnet", (96, 256, 384, 384, 256)), ("zfnet-b", (96, 256, 512, 1024, 512))):
        model = meta(name)
        found: dict[str, tuple[int, ...]] = {}

        def note(layer_name, found=found):
            return lambda layer, inputs, output: found.setdefault(layer_name, tuple(output.shape[1:]))

        layers = [layer for layer, _ in model.named_children() if layer.startswith(("conv", "pool", "norm", "fc"))]
        with taps(model, {layer: note(layer) for layer in layers}):
            model(torch.empty(1, 3, 224, 224, device="meta"))
        sides = {
            "conv1": 110,
            "pool1": 55,
            "norm1": 55,
            "conv2": 26,
            "pool2": 13,
            "norm2": 13,
            "conv3": 13,
            "conv4": 13,
            "conv5": 13,
        }
        assert list(found) == [*sides, "pool5", "fc6", "fc7", "fc8"]  # pooled before it is normalised
        assert {layer: found[layer][1] for layer in sides} == sides and found["pool5"][1] == 6
        assert tuple(found[f"conv{number}"][0] for number in range(1, 6)) == maps
        assert [found[f"fc{number}"] for number in (6, 7, 8)] == [(4096,), (4096,), (1000,)]


@pytest.mark.parametrize("lrn", [True, False])
def test_logits_are_those_of_torchs_parts(lrn):
    torch.manual_seed(0)
    model = catalog.build("zfnet", 5, {"width": "6", "lrn": lrn}).eval()
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.3)
    w = dict(model.named_parameters())
    images = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        x = images
        for number, (stride, padding) in enumerate(((2, 1), (2, 0), (1, 1), (1, 1), (1, 1)), start=1):
            x = functional.conv2d(x, w[f"conv{number}.weight"], w[f"conv{number}.bias"], stride, padding).relu()
            if number in (1, 2, 5):
                low = nn.functional.pad(x, (0, 1, 0, 1), value=-1) if x.shape[-1] % 2 == 0 else x  # a last window of two
                x = functional.max_pool2d(low, 3, 2)
            if number in (1, 2) and lrn:
                x = functional.local_response_norm(x, 5, 1e-4, 0.75, 2.0)
        x = x.flatten(1)
        for layer in ("fc6", "fc7"):
            x = functional.linear(x, w[f"{layer}.weight"], w[f"{layer}.bias"]).relu()
        expected = functional.linear(x, w["fc8.weight"], w["fc8.bias"])
        assert (model(images) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_weights_start_at_deviation_0_01_and_biases_at_0():
    torch.manual_seed(0)
    for name, weight in catalog.build("zfnet", 10, {"width": "24"}).named_parameters():
        if name.endswith("bias"):
            assert weight.count_nonzero() == 0
        else:
            assert weight.std().item() == pytest.approx(0.01, rel=0.03)


def test_dropout_follows_the_two_hidden_layers():
    model = meta("zfnet", dropout=0.3)
    assert list(dict(model.named_children()))[-8:] == ["flatten", "fc6", "relu6", "drop6", "fc7", "relu7", "drop7", "fc8"]
    assert [layer.p for layer in model.modules() if isinstance(layer, nn.Dropout)] == [0.3, 0.3]


def test_the_smallest_input_is_the_smallest():
    model = meta("zfnet")
    smallest = model.smallest_px
    assert model(torch.empty(2, 3, smallest, 300, device="meta")).shape == (2, 1000)
    with pytest.raises(UserError, match=rf"too small; the smallest is {smallest}x{smallest}"):
        model(torch.empty(2, 3, 300, smallest - 1, device="meta"))
    model.smallest_px = 1
    with pytest.raises(RuntimeError, match=r"too small|greater than"):
        model(torch.empty(2, 3, smallest - 1, smallest - 1, device="meta"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": "10"}, "width: expected a multiple of 3"),
        ({"dropout": "-1"}, "dropout: expected a share"),
        ({"groups": "2"}, "zfnet has no option 'groups'"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with torch.device("meta"), pytest.raises(UserError, match=message):
        catalog.build("zfnet", 10, options)

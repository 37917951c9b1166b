"""Xception against timm's `legacy_xception`: names, logits, and figure 5."""

import math

import pytest
import timm
import torch
from torch import nn

from striate.errors import UserError
from striate.models import catalog
from striate.models.xception import Block, SeparableConv2d, xception
from striate.taps import taps


def test_logits_equal_timms_with_its_weights(as_after_training, same_logits):
    torch.manual_seed(0)
    theirs = as_after_training(timm.create_model("legacy_xception", num_classes=20))
    with torch.device("meta"):
        ours = xception(20)
    ours.load_state_dict(theirs.state_dict(), assign=True)
    same_logits(ours, theirs, 64, 75)


def test_state_dict_names_and_their_order_are_timms():
    with torch.device("meta"):
        theirs = timm.create_model("legacy_xception").state_dict()
        ours = xception(1000).state_dict()
    assert [(key, value.shape) for key, value in ours.items()] == [(key, value.shape) for key, value in theirs.items()]


def test_grids_and_widths_are_figure_5s():
    with torch.device("meta"):
        model = xception(1000).eval()
    shapes: list[tuple[int, ...]] = []
    names = ["act1", "act2", *(f"block{place}" for place in range(1, 13)), "act3", "act4", "global_pool"]
    with taps(model, dict.fromkeys(names, lambda layer, inputs, output: shapes.append(tuple(output.shape[1:3])))):
        model(torch.empty(1, 3, 299, 299, device="meta"))
    assert shapes == [
        *[(32, 149), (64, 147), (128, 74), (256, 37), (728, 19)],
        *[(728, 19)] * 8,
        *[(1024, 10), (1536, 10), (2048, 10), (2048, 1)],
    ]


def test_nothing_stands_between_a_depthwise_and_its_pointwise_convolution():
    """Section 4.7: two convolutions one behind the other are one, of the product of their weights."""
    torch.manual_seed(0)
    layer = SeparableConv2d(3, 5)
    weight = layer.pointwise.weight * layer.conv1.weight.reshape(1, 3, 3, 3)
    x = torch.randn(2, 3, 6, 6)
    torch.testing.assert_close(layer(x), nn.functional.conv2d(x, weight, padding=1))


def test_a_block_leaves_its_input_alone_and_the_first_has_no_relu_before_it():
    torch.manual_seed(0)
    x = torch.randn(2, 8, 5, 5)
    before = x.clone()
    for block in (Block(8, (8, 8, 8), 1), Block(8, (8, 12), 2), Block(8, (12, 12), 2, relu_first=False)):
        block(x)
        assert torch.equal(x, before)
    kinds = [type(layer).__name__ for layer in xception(5, width=4).block1.rep]
    assert kinds == ["SeparableConv2d", "BatchNorm2d", "ReLU", "SeparableConv2d", "BatchNorm2d", "MaxPool2d"]


def test_a_block_of_the_middle_flow_is_the_identity_plus_three_layers():
    torch.manual_seed(0)
    block = Block(8, (8, 8, 8), 1).eval()
    x = torch.randn(2, 8, 5, 5)
    y = x
    for place in (1, 4, 7):
        y = block.rep[place + 1](block.rep[place](y.relu()))
    torch.testing.assert_close(block(x), x + y)
    assert block.skip is None


def test_initial_weights_are_glorots():
    torch.manual_seed(0)
    model = xception(1000)
    for layer in (model.block4.rep[1].pointwise, model.block12.skip, model.fc, model.conv4.conv1):
        weight = layer.weight
        area = math.prod(weight.shape[2:])
        bound = math.sqrt(6 / (area * (weight.shape[0] + weight.shape[1])))
        assert weight.abs().max() <= bound
        assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.01)
    assert model.fc.bias.count_nonzero() == 0


def test_dropout_is_the_papers_half_and_acts_in_training_only(shares_dropped):
    torch.manual_seed(0)
    assert shares_dropped(xception(5, width=4), torch.randn(4, 3, 32, 32)) == [pytest.approx(0.5, abs=0.05), 0]


def test_6_px_are_too_few_indeed():
    with torch.device("meta"):
        model = xception(3, width=4).eval()
    for size_px in (7, 8, 75, 224):
        assert model(torch.empty(1, 3, size_px, size_px + 1, device="meta")).shape == (1, 3)
    with pytest.raises(UserError, match="xception: an input of 6x6 px is too small; the smallest is 7x7"):
        model(torch.empty(1, 3, 6, 6, device="meta"))
    model.smallest_px = 1
    with pytest.raises(RuntimeError, match="Kernel size can't be greater"):
        model(torch.empty(1, 3, 6, 6, device="meta"))


def test_options_from_the_command_line_and_bad_ones():
    with torch.device("meta"):
        assert catalog.build("xception", 3, {"width": "8", "dropout": "0"}).block7.rep[1].pointwise.out_channels == 8
        with pytest.raises(UserError, match="width: expected 1 channel or more, found 0"):
            xception(3, width=0)
        with pytest.raises(UserError, match="dropout: expected a share"):
            xception(3, dropout=1.0)

"""DenseNet against torchvision's: names, logits, initialisation; and training with less memory."""

import pytest
import torch
import torchvision
from torch import nn

from striate.errors import UserError
from striate.models import catalog, densenet
from striate.models.densenet import DenseNet
from striate.taps import taps

OURS = {"densenet121": densenet.densenet121, "densenet169": densenet.densenet169, "densenet201": densenet.densenet201}


def test_logits_equal_torchvisions_with_its_weights(as_after_training, same_logits):
    torch.manual_seed(0)
    theirs = as_after_training(torchvision.models.densenet121(weights=None, num_classes=20))
    with torch.device("meta"):
        ours = densenet.densenet121(20)
    ours.load_state_dict(theirs.state_dict(), assign=True)
    same_logits(ours, theirs, 64, 97)


@pytest.mark.parametrize("name", OURS)
def test_state_dict_names_and_their_order_are_torchvisions(name):
    with torch.device("meta"):
        theirs = torchvision.models.get_model(name, weights=None).state_dict()
        ours = OURS[name](1000).state_dict()
    assert [(key, value.shape) for key, value in ours.items()] == [(key, value.shape) for key, value in theirs.items()]


def test_grids_and_channels_are_table_1s():
    with torch.device("meta"):
        model = densenet.densenet121(1000).eval()
    shapes: list[tuple[int, ...]] = []
    names = [f"features.{name}" for name, _ in model.features.named_children() if not name.startswith(("norm", "relu"))]
    with taps(model, dict.fromkeys(names, lambda layer, inputs, output: shapes.append(tuple(output.shape[1:3])))):
        model(torch.empty(1, 3, 224, 224, device="meta"))
    assert shapes == [
        *[(64, 112), (64, 56)],
        *[(256, 56), (128, 28), (512, 28), (256, 14), (1024, 14), (512, 7), (1024, 7)],
    ]


def test_each_layer_sees_all_before_it():
    torch.manual_seed(0)
    block = densenet.DenseBlock(3, 4, 2, 0.0, memory_efficient=False).eval()
    x = torch.randn(1, 4, 5, 5)
    first = block["denselayer1"](x)
    second = block["denselayer2"](torch.cat([x, first], 1))
    third = block["denselayer3"](torch.cat([x, first, second], 1))
    assert torch.equal(block(x), torch.cat([x, first, second, third], 1))
    assert [layer.conv1.in_channels for layer in block.values()] == [4, 6, 8]


@pytest.mark.parametrize("drop_rate", [0.0, 0.3])
def test_memory_efficient_training_has_the_same_numbers_gradients_and_moving_statistics(drop_rate):
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    results = []
    for memory_efficient in (False, True):
        torch.manual_seed(0)
        model = DenseNet(5, (3, 3, 2, 2), 8, drop_rate, memory_efficient)
        logits = model(images)
        logits.square().sum().backward()
        results.append((logits, dict(model.named_buffers()), [parameter.grad for parameter in model.parameters()]))
    (logits, buffers, gradients), (found_logits, found_buffers, found_gradients) = results
    assert torch.equal(found_logits, logits)
    assert all(torch.equal(found_buffers[name], buffer) for name, buffer in buffers.items())
    assert buffers["features.denseblock1.denselayer1.norm1.num_batches_tracked"] == 1
    for found, expected in zip(found_gradients, gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


def test_memory_efficient_training_runs_each_layer_again_and_evaluation_does_not():
    model = DenseNet(5, (2, 2, 2, 2), 4, 0.0, memory_efficient=True)
    calls: list[str] = []
    name = "features.denseblock2.denselayer2.conv1"
    with taps(model, {name: lambda layer, inputs, output: calls.append(name)}):
        loss = model(torch.randn(2, 3, 64, 64)).sum()
        assert len(calls) == 1
        loss.backward()
        assert len(calls) == 2
        with torch.no_grad():
            model.eval()(torch.randn(2, 3, 64, 64))
        assert len(calls) == 3
    norm = model.features.denseblock2.denselayer2.norm1
    assert norm.momentum == 0.1 and norm.num_batches_tracked == 1


def test_initialisation_is_hes_by_inputs():
    torch.manual_seed(0)
    model = densenet.densenet121(1000)
    for layer in (model.features.denseblock3.denselayer20.conv1, model.features.denseblock4.denselayer3.conv2):
        assert layer.weight.std().item() == pytest.approx((2 / layer.weight[0].numel()) ** 0.5, rel=0.02)
    assert model.classifier.bias.count_nonzero() == 0
    assert model.classifier.weight.abs().max().item() == pytest.approx(1024**-0.5, rel=0.01)


def test_dropout_stands_behind_each_layer_in_training():
    torch.manual_seed(0)
    model = DenseNet(5, (2, 2, 2, 2), 16, 0.25, memory_efficient=False)
    zeros: list[float] = []
    names = [name for name, layer in model.named_modules() if isinstance(layer, nn.Dropout)]
    with taps(model, dict.fromkeys(names, lambda layer, inputs, output: zeros.append((output == 0).float().mean().item()))):
        model(torch.randn(8, 3, 128, 128))
        model.eval()(torch.randn(8, 3, 128, 128))
    assert len(names) == 8 and zeros[0] == pytest.approx(0.25, abs=0.02) and max(zeros[8:]) == 0


def test_28_px_are_too_few_indeed():
    with torch.device("meta"):
        model = densenet.densenet121(3).eval()
    for size_px in (29, 30, 75, 299):
        assert model(torch.empty(1, 3, size_px, size_px + 1, device="meta")).shape == (1, 3)
    with pytest.raises(UserError, match="densenet: an input of 28x40 px is too small; the smallest is 29x29"):
        model(torch.empty(1, 3, 28, 40, device="meta"))
    model.smallest_px = 1
    with pytest.raises(RuntimeError, match="Output size is too small"):
        model(torch.empty(1, 3, 28, 28, device="meta"))


def test_options_from_the_command_line_and_bad_ones():
    with torch.device("meta"):
        model = catalog.build("densenet169", 3, {"growth": "4", "drop_rate": "0.2", "memory_efficient": "true"})
        assert model.classifier.in_features == 208
        with pytest.raises(UserError, match="growth: expected 1 channel or more, found 0"):
            densenet.densenet121(3, growth=0)
        with pytest.raises(UserError, match="drop_rate: expected a share"):
            densenet.densenet121(3, drop_rate=1.0)

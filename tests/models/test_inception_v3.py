"""Inception-v3 against torchvision's: names, logits of both heads, initialisation; and sizes that torchvision's cannot train."""

import pytest
import torch
import torchvision
from torch import nn

from striate.errors import CheckpointError, UserError
from striate.models import catalog, weights
from striate.models.inception_v3 import InceptionAux, InceptionOutputs, inception_v3
from striate.taps import taps
from striate.train import loss


def theirs(num_classes: int, **options: object) -> nn.Module:
    """torchvision's, without dropout."""
    torch.manual_seed(0)
    return torchvision.models.inception_v3(weights=None, init_weights=False, num_classes=num_classes, dropout=0.0, **options)


def ours(reference: nn.Module, **options: object) -> nn.Module:
    """Ours with the reference's weights."""
    with torch.device("meta"):
        model = inception_v3(reference.fc.out_features, dropout=0.0, **options)
    model.load_state_dict(reference.state_dict(), assign=True)
    return model


def test_logits_equal_torchvisions_with_its_weights(as_after_training, same_logits):
    reference = as_after_training(theirs(20))
    same_logits(ours(reference), reference, 75, 90)


def test_both_heads_equal_torchvisions_in_training(as_after_training):
    reference = as_after_training(theirs(6)).train()
    model = ours(reference).train()
    images = torch.randn(2, 3, 299, 299, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, found = reference(images), model(images)
    assert isinstance(found, InceptionOutputs) and found._fields == expected._fields
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * other.abs().max().item())
    assert list(loss.heads(found)) == ["main", "aux_logits"]


def test_transform_input_is_torchvisions_and_adds_nothing_to_the_weights(as_after_training):
    reference = as_after_training(theirs(5, transform_input=True))
    model = inception_v3(5, transform_input=True)
    assert list(model.state_dict()) == list(reference.state_dict())
    model.load_state_dict(reference.state_dict())
    reference.double(), model.double()  # in float32 the rounding of some processors is more than 1e-5 of the logits
    images = torch.randn(1, 3, 80, 80, dtype=torch.float64)
    with torch.inference_mode():
        expected, found = reference(images), model.eval()(images)
        model.transform_input = False
        plain = model(images)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert (plain - expected).abs().max() > 1e-2 * expected.abs().max()
    with pytest.raises(CheckpointError, match="of variant 'transform-input', the network is 'plain'"):
        weights.put(inception_v3(5), model.state_dict(), "file", model.variant)


def test_state_dict_names_and_their_order_are_torchvisions():
    with torch.device("meta"):
        reference = torchvision.models.inception_v3(weights=None, init_weights=False).state_dict()
        found = inception_v3(1000).state_dict()
        without = inception_v3(1000, aux=False).state_dict()
    assert [(key, value.shape) for key, value in found.items()] == [(key, value.shape) for key, value in reference.items()]
    assert (len(found), len(without)) == (580, 566)
    assert list(without) == [key for key in found if not key.startswith("AuxLogits")]


def test_grids_are_the_papers():
    with torch.device("meta"):
        model = inception_v3(1000).eval()
    names = [name for name, layer in model.named_children() if name.startswith(("Conv2d", "maxpool", "Mixed"))]
    shapes: list[tuple[int, ...]] = []
    with taps(model, dict.fromkeys(names, lambda layer, inputs, output: shapes.append(tuple(output.shape[1:3])))):
        model(torch.empty(1, 3, 299, 299, device="meta"))
    assert shapes == [
        *[(32, 149), (32, 147), (64, 147), (64, 73), (80, 73), (192, 71), (192, 35)],
        *[(256, 35), (288, 35), (288, 35)],
        *[(768, 17)] * 5,
        *[(1280, 8), (2048, 8), (2048, 8)],
    ]


def test_heads_in_training_and_in_evaluation():
    with torch.device("meta"):
        model, without = inception_v3(7), inception_v3(7, aux=False)
    images = torch.empty(2, 3, 128, 128, device="meta")
    assert [head.shape for head in model.train()(images)] == [(2, 7), (2, 7)]
    assert model.eval()(images).shape == without.train()(images).shape == (2, 7)


@pytest.mark.parametrize("size_px", [75, 340])
def test_both_heads_train_at_any_size(size_px):
    with torch.device("meta"):
        model = inception_v3(3)
    heads = model(torch.empty(2, 3, size_px, size_px + 20, device="meta"))
    assert [head.shape for head in heads] == [(2, 3), (2, 3)]


def test_the_auxiliary_head_pads_small_grids_and_leaves_17_and_more_alone():
    torch.manual_seed(0)
    head = InceptionAux(4, 3).eval()
    grid = torch.randn(2, 4, 3, 17)
    padded = torch.zeros(2, 4, 17, 17)
    padded[:, :, 7:10] = grid
    assert torch.equal(head(grid), head(padded))
    larger = torch.randn(2, 4, 20, 23)
    pooled = head.avgpool(head.conv1(head.conv0(torch.nn.functional.avg_pool2d(larger, 5, 3)))).flatten(1)
    assert torch.equal(head(larger), head.fc(pooled))


def test_initial_weights_have_the_authors_deviations():
    torch.manual_seed(0)
    model = inception_v3(1000)
    expected = {"AuxLogits.conv1.conv": 0.01, "AuxLogits.fc": 0.001}
    for name, layer in model.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            few = layer.weight.numel() < 30_000
            assert layer.weight.std().item() == pytest.approx(expected.get(name, 0.1), rel=0.05 if few else 0.01), name
        elif isinstance(layer, nn.BatchNorm2d):
            assert layer.eps == 1e-3 and layer.weight.min() == layer.weight.max() == 1


def test_dropout_is_half_and_acts_in_training_only(shares_dropped):
    torch.manual_seed(0)
    assert shares_dropped(inception_v3(5, aux=False), torch.randn(2, 3, 75, 75)) == [pytest.approx(0.5, abs=0.05), 0]


def test_every_relu_is_called_once():
    with torch.device("meta"):
        model = inception_v3(5)
    relus = [name for name, layer in model.named_modules() if isinstance(layer, nn.ReLU)]
    calls: list[str] = []
    with taps(model, {name: lambda layer, inputs, output, name=name: calls.append(name) for name in relus}):
        model(torch.empty(2, 3, 75, 75, device="meta"))
    assert len(relus) == 96 and sorted(calls) == sorted(relus)


def test_74_px_are_too_few_indeed():
    with torch.device("meta"):
        model = inception_v3(3).eval()
    assert model(torch.empty(1, 3, 75, 75, device="meta")).shape == (1, 3)
    with pytest.raises(UserError, match="inception-v3: an input of 80x74 px is too small; the smallest is 75x75"):
        model(torch.empty(1, 3, 80, 74, device="meta"))
    model.smallest_px = 1
    with pytest.raises(RuntimeError, match="Kernel size can't be greater"):
        model(torch.empty(1, 3, 74, 74, device="meta"))


def test_options_from_the_command_line_and_bad_ones():
    with torch.device("meta"):
        model = catalog.build("inception-v3", 3, {"aux": "no", "transform_input": "yes", "dropout": "0"})
        assert (model.AuxLogits, model.transform_input, model.dropout.p) == (None, True, 0.0)
        with pytest.raises(UserError, match="dropout: expected a share"):
            inception_v3(3, dropout=float("nan"))

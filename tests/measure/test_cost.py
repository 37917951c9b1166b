"""Counts against torch's own counter, against autograd on real tensors, and by hand."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode
from torchvision.ops import Permute

from striate.errors import UserError
from striate.measure import plan
from striate.measure.cost import cost, totals
from striate.models import catalog


def meta(name: str) -> nn.Module:
    with torch.device("meta"):
        return catalog.build(name, 1000, {})


@pytest.mark.parametrize(
    "name",
    ["resnet18", "torchvision/googlenet", "torchvision/vit_b_16", "timm/nfnet_l0", "timm/swin_s3_tiny_224"],
)
def test_macs_are_half_of_what_torch_counts_and_the_lines_add_up(name):
    model = meta(name)
    found = cost(model, 224)
    with FlopCounterMode(display=False) as counter:
        model.eval()(torch.empty(1, 3, 224, 224, device="meta"))
    assert found.macs == counter.get_total_flops() / 2
    assert found.macs == sum(line.macs for line in found.layers if not line.is_auxiliary)
    assert found.parameters == sum(weight.numel() for weight in model.parameters())
    assert found.parameters == sum(line.parameters for line in found.layers)
    with FlopCounterMode(display=False) as counter:
        model.train()(torch.empty(2, 3, 224, 224, device="meta"))
    assert found.macs_with_aux == counter.get_total_flops() / 4
    counted = totals(model, 224)
    assert (counted.parameters, counted.parameters_without_aux, counted.macs) == (
        found.parameters,
        found.parameters_without_aux,
        found.macs,
    )


def test_auxiliary_heads_are_what_runs_in_training_only():
    found = cost(meta("torchvision/googlenet"), 224)
    assert (found.parameters, found.parameters_without_aux) == (13_004_888, 6_624_904)
    assert (found.macs, found.macs_with_aux) == (1_498_376_192, 1_506_748_416)
    assert {line.name.split(".")[0] for line in found.layers if line.is_auxiliary} == {"aux1", "aux2"}
    found = cost(meta("torchvision/inception_v3"), 150)  # a size that its head cannot take
    assert (found.parameters, found.parameters_without_aux) == (27_161_264, 23_834_568)
    assert found.macs_with_aux is None and found.training_bytes is None
    # Weights that another module uses belong to no head: the projection of an attention is never called.
    found = cost(meta("torchvision/vit_b_16"), 224)
    assert found.parameters_without_aux == found.parameters == 86_567_656


class Odd(nn.Module):
    """A layer used twice, a convolution and a product outside of modules, a shared weight, a branch for training alone."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.again = nn.Conv2d(4, 4, 1, bias=False)
        self.kernel = nn.Parameter(torch.ones(2, 4, 1, 1))
        self.tied = nn.Conv2d(4, 4, 1, bias=False)
        self.tied.weight = self.again.weight
        self.head = nn.Linear(4, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        x = self.tied(self.again(self.again(self.first(x))))
        x = functional.conv2d(x, self.kernel)
        logits = x.flatten(2) @ x.flatten(2).transpose(1, 2)
        return (logits, self.head(self.first.bias[None])) if self.training else logits


def test_layers_used_twice_shared_weights_and_operations_outside_of_modules():
    found = cost(Odd(), 10)
    lines = [(line.name, line.parameters, line.macs) for line in found.layers]
    assert lines == [
        ("first", 3 * 4 * 9 + 4, 3 * 4 * 9 * 100),
        ("again", 16, 1600),
        ("again", 0, 1600),
        ("tied", 0, 1600),
        ("", 8, 2 * 4 * 100 + 2 * 2 * 100),
        ("head", 35, 14),  # for one image of the two that the training pass has: its one row serves both
    ]
    assert found.macs == 10_800 + 3 * 1600 + 1200
    assert found.parameters - found.parameters_without_aux == 35


def test_memory_by_hand():
    """Four bytes a number, for an image of 8x8."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 10))
    found = cost(model, 8)
    images, maps, pooled = 4 * 3 * 64, 4 * 4 * 64, 4 * 4 * 16
    assert [line.output_bytes for line in found.layers] == [maps, maps, pooled, pooled, 40]
    assert found.forward_bytes == images + 2 * maps  # the images, the maps before the ReLU and behind it
    # Autograd keeps the images for the first weights, the ReLU's result, places of maxima as int64, the linear layer's input.
    assert found.training_bytes == images + maps + (pooled + 8 * 64)
    assert found.weight_bytes == 4 * (3 * 4 * 9 + 4 + 650)
    model[1].inplace = True
    assert cost(model, 8).forward_bytes == images + maps + pooled + 8 * 64  # the pool's result with its places


@pytest.mark.parametrize("name", ["resnet18", "torchvision/googlenet", "torchvision/alexnet"])
def test_training_memory_is_what_autograd_keeps_of_real_tensors(name):
    model = catalog.build(name, 10, {}).train()
    images = torch.rand(2, 3, 64, 64)
    kept = []
    held = plan.held_bytes(lambda: kept.append(model(images)), [*model.parameters(), *model.buffers()])
    assert cost(model, 64).training_bytes == pytest.approx(held / 2, rel=1e-3)


def test_the_network_is_as_before_and_may_be_without_numbers():
    model = catalog.build("torchvision/googlenet", 10, {})
    model.inception3a.eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    modes = [layer.training for layer in model.modules()]
    found = cost(model, 64)
    assert modes == [layer.training for layer in model.modules()]
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in model.modules())
    assert all(weight.grad is None for weight in model.parameters())
    with torch.device("meta"):
        assert cost(catalog.build("torchvision/googlenet", 10, {}), 64) == found


def test_double_precision_takes_twice_the_memory():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    single, double = cost(model, 8), cost(model.double(), 8)
    assert (double.forward_bytes, double.weight_bytes) == (2 * single.forward_bytes, 2 * single.weight_bytes)


def test_the_last_convolution_is_the_one_that_sees_most():
    found = cost(meta("torchvision/googlenet"), 224)
    assert found.last_conv is not None and found.last_conv.field is not None
    assert found.last_conv.field.size_px == 379
    # A linear layer on the channels of each place sees as much, and is no convolution.
    on_places = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), Permute([0, 2, 3, 1]), nn.Linear(4, 2))
    assert cost(on_places, 8).last_conv.name == "1"
    assert cost(nn.Sequential(nn.Flatten(), nn.Linear(48, 2)), 4).last_conv is None


def test_an_input_that_is_too_small_names_the_smallest():
    with pytest.raises(UserError, match=r"alexnet: an input of 40x40 px is too small; the smallest is 63x63\."):
        cost(meta("torchvision/alexnet"), 40, name="alexnet")
    with pytest.raises(UserError, match=r"alexnet: it cannot take images of 5 channels and 224x224 px \(RuntimeError"):
        totals(meta("torchvision/alexnet"), 224, 5, name="alexnet")

"""Parameters and multiply-accumulates of every network against its paper's table, to the digit."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from striate.models import catalog
from striate.taps import taps

# name: (classes, input side, trainable parameters, the same with moving statistics, MACs of convolutions and linear layers)
COUNTS = {
    "resnet18": (1000, 224, 11_689_512, None, 1_814_073_344),
    "resnet34": (1000, 224, 21_797_672, None, 3_663_761_408),
    "resnet50": (1000, 224, 25_557_032, None, 4_089_184_256),
    "resnet50-v1": (1000, 224, 25_557_032, None, 3_857_973_248),
    "kth-a": (200, 64, 10_993_704, 10_993_704, 71_450_624),
    "kth-b": (200, 64, 10_998_760, 11_003_816, 71_450_624),
    "kth-c": (200, 64, 10_993_704, 10_993_704, 71_450_624),
    "kth-d": (200, 64, 10_998_760, 11_003_816, 71_450_624),
    "kth-e": (200, 64, 55_479_272, 55_504_808, 115_900_416),
    "kth-f": (200, 64, 1_121_256, 1_122_216, 61_579_264),
}


def macs(model: nn.Module, size_px: int) -> int:
    """Multiply-accumulates of one image, counted by torch from the shapes alone."""
    with FlopCounterMode(display=False) as counter:
        model.eval()(torch.empty(1, 3, size_px, size_px, device="meta"))
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_and_macs(name):
    classes, size_px, parameters, with_statistics, expected_macs = COUNTS[name]
    with torch.device("meta"):
        model = catalog.build(name, classes, {})
    assert sum(weight.numel() for weight in model.parameters()) == parameters
    if with_statistics is not None:  # what Keras prints as the total
        moving = [value for key, value in model.named_buffers() if not key.endswith("num_batches_tracked")]
        assert parameters + sum(value.numel() for value in moving) == with_statistics
    assert macs(model, size_px) == expected_macs


def test_every_listed_network_is_counted():
    same = {"resnet18-v1": "resnet18", "resnet34-v1": "resnet34"}
    assert {same.get(name, name) for name in catalog.NETWORKS} == set(COUNTS)


@pytest.mark.parametrize(
    ("name", "size_px", "sides"),
    [("resnet50", 224, [56, 28, 14, 7]), ("resnet18", 224, [56, 28, 14, 7]), ("kth-d", 64, [32, 16, 8])],
)
def test_spatial_trace(name, size_px, sides):
    with torch.device("meta"):
        model = catalog.build(name, 200, {}).eval()
    found: list[int] = []
    stages = [name for name, _ in model.named_children() if name.startswith(("layer", "block"))]
    with taps(model, dict.fromkeys(stages, lambda layer, inputs, output: found.append(output.shape[-1]))):
        model(torch.empty(1, 3, size_px, size_px, device="meta"))
    assert found == sides

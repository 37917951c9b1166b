"""Our networks ask torch for no more operations than torchvision's and timm's of the same paper: forward and training step."""

import runpy
from pathlib import Path

import pytest
import torch

from striate.models import catalog

BENCHMARK = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "zoo_speed.py"))


@pytest.mark.parametrize("name", BENCHMARK["SAME"])
def test_no_more_operations_than_the_same_network_elsewhere(name):
    """On the meta device, where shapes are all there is: torch is asked for the same operations as on another."""
    with torch.device("meta"):
        both = [catalog.build(one, 10, {}) for one in (name, BENCHMARK["SAME"][name])]
        images, labels = torch.empty(2, 3, 64, 64), torch.zeros(2, dtype=torch.int64)
    ours, theirs = (BENCHMARK["operations"](model.to(memory_format=torch.channels_last), images, labels) for model in both)
    assert ours["forward"].total() > 10 and ours["training_step"].total() > 3 * ours["forward"].total()
    for what in ours:
        assert ours[what].total() <= theirs[what].total(), f"{what}: more of {ours[what] - theirs[what]}"


def test_operations_are_counted():
    """A linear layer and a ReLU are two in inference mode; a copy of the input adds one."""

    class Copying(torch.nn.Sequential):
        def forward(self, x):
            return super().forward(x.clone())

    layers = [torch.nn.Linear(4, 3), torch.nn.ReLU()]
    images, labels = torch.randn(2, 4), torch.zeros(2, dtype=torch.int64)
    plain = BENCHMARK["operations"](torch.nn.Sequential(*layers), images, labels)
    copying = BENCHMARK["operations"](Copying(*layers), images, labels)
    assert plain["forward"] == {"aten.linear.default": 1, "aten.relu.default": 1}
    assert copying["forward"] - plain["forward"] == {"aten.clone.default": 1}
    assert copying["training_step"] - plain["training_step"] == {"aten.clone.default": 1}

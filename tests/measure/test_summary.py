"""The rule of the package torchsummary, by hand and against what one paper printed."""

import torch
from torch import nn

from striate.measure.summary import summary
from striate.models import catalog


def printed(name: str) -> tuple[int, str, str, str, str]:
    with torch.device("meta"):
        found = summary(catalog.build(name, 1000, {}), 224)
    sizes = (found.input_mib, found.passes_mib, found.parameters_mib, found.total_mib)
    return found.parameters, *(f"{size:.2f}" for size in sizes)


def test_torchvision_s_googlenet_is_what_a_paper_printed_for_its_own_network():
    """Total params, input size, forward/backward pass size, params size, estimated total size (MB)."""
    expected = (13_004_888, "0.57", "94.26", "49.61", "144.44")
    assert printed("torchvision/googlenet") == expected
    assert printed("googlenet-bn") == expected
    # The network that the paper describes is another one.
    assert printed("se-googlenet-paths") == (13_531_919, "0.57", "85.21", "51.62", "137.41")


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.layers = nn.ModuleList([nn.ReLU()])
        self.aux = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layers[0](self.layers[0](self.conv(x)))
        return x + self.aux(x.mean((2, 3))).sum() if self.training else x


def test_the_rule_by_hand():
    """A layer used twice counts twice, a block counts beside its layers, containers and the network itself do not."""
    model = nn.Sequential(Block(), nn.Sequential(nn.Flatten()))
    found = summary(model, 8)
    maps = 4 * 64
    assert found.passes_mib == 2 * 4 * (maps + 2 * maps + 2 + maps + maps) / 2**20  # conv, ReLU twice, aux, block, flatten
    assert found.parameters == 3 * 4 * 9 + 4 + 10
    assert (found.input_mib, found.parameters_mib) == (4 * 3 * 64 / 2**20, 4 * 122 / 2**20)

"""LeNet-5: LeCun, Bottou, Bengio, Haffner, "Gradient-Based Learning Applied to Document Recognition", 1998, section II.B.

As printed up to F6: the connection table of C3, subsampling with a weight and a bias for each map, and the scaled tanh behind
every layer. The output is not: the paper has a unit for each class that measures the distance to a drawing of the
character of 7x12 pixels, which exists for printed characters and for nothing else; here a linear layer gives logits.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn

from striate.models.blocks import GridPool, at_least
from striate.models.entry import Entry

# Maps of S2 that each map of C3 sees: neighbours by threes and fours, fours with a gap, and all. Source: table I.
_SEEN_BY_C3 = (
    *(tuple((first + step) % 6 for step in range(3)) for first in range(6)),
    *(tuple((first + step) % 6 for step in range(4)) for first in range(6)),
    *(tuple((first + step) % 6 for step in (0, 1, 3, 4)) for first in range(3)),
    (0, 1, 2, 3, 4, 5),
)


class ScaledTanh(nn.Module):
    """1.7159 tanh(2/3 x), which maps 1 to 1 and -1 to -1. Source: appendix A."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the shape of x, within -1.7159..1.7159."""
        return 1.7159 * torch.tanh(2 / 3 * x)


class Subsample(nn.Module):
    """The sum of each 2x2 square times a trainable weight, plus a trainable bias; one of both for each map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(2, divisor_override=1)
        self.weight = nn.Parameter(torch.empty(channels, 1, 1))
        self.bias = nn.Parameter(torch.empty(channels, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [B, C, H, W]. Returns [B, C, H // 2, W // 2]."""
        return torch.addcmul(self.bias, self.pool(x), self.weight)


class PickingConv2d(nn.Conv2d):
    """5x5 convolution whose every output map sees maps of its own choice. seen: for each output, as many maps for all."""

    seen: torch.Tensor

    def __init__(self, seen: Sequence[tuple[int, ...]]) -> None:
        super().__init__(sum(map(len, seen)), len(seen), 5, groups=len(seen))
        self.register_buffer("seen", torch.tensor(seen).flatten(), persistent=False)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """input: [B, C, H, W]. Returns [B, len(seen), H - 4, W - 4]."""
        return super().forward(input[:, self.seen])


class TableConv2d(nn.Module):
    """C3: from 6 maps to 16, each of which sees the maps of the table only; 1,516 parameters.

    As three convolutions, one for each number of maps that are seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.three, self.four, self.six = (
            PickingConv2d([row for row in _SEEN_BY_C3 if len(row) == count]) for count in (3, 4, 6)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [B, 6, H, W]. Returns [B, 16, H - 4, W - 4]."""
        return torch.cat([self.three(x), self.four(x), self.six(x)], 1)


class LeNet5(nn.Sequential):
    """C1, S2, C3, S4, C5, F6 and the output, a scaled tanh behind each but the last.

    C5 is a convolution, as in the paper, for the case that the input is larger: the mean over its grid goes on to F6.
    """

    smallest_px = 32

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(
            OrderedDict(
                c1=nn.Conv2d(in_channels, 6, 5),
                tanh1=ScaledTanh(),
                s2=Subsample(6),
                tanh2=ScaledTanh(),
                c3=TableConv2d(),
                tanh3=ScaledTanh(),
                s4=Subsample(16),
                tanh4=ScaledTanh(),
                c5=nn.Conv2d(16, 120, 5),
                tanh5=ScaledTanh(),
                grid=GridPool(1),
                flatten=nn.Flatten(),
                f6=nn.Linear(120, 84),
                tanh6=ScaledTanh(),
                output=nn.Linear(84, num_classes),
            )
        )
        _draw(self)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """input: [B, in_channels, H, W], mean about 0 and deviation about 1. Returns logits [B, K]."""
        at_least(input, self.smallest_px, "lenet5")
        for layer in self:
            input = layer(input)
        return input


def _draw(model: nn.Module) -> None:
    """Weights uniform within 2.4 / inputs of a unit; biases, of which the paper does not speak, 0. Source: appendix A."""
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        else:
            inputs = 4 if parameter.dim() == 3 else parameter[0].numel()  # subsampling adds up four
            nn.init.uniform_(parameter, -2.4 / inputs, 2.4 / inputs)


def lenet5(num_classes: int, in_channels: int = 1) -> LeNet5:
    """LeNet-5 for grey images of 32 px: 60,000 parameters before the output, which has 85 for each class.

    in_channels: 1 as in the paper; a run sets 3 for data in colour.
    The paper's initial weights are small: the logits of different images differ by some 5e-5 at first, and training takes a
    few hundred steps to leave that; with `init="glorot"` they differ by 0.3.
    """
    return LeNet5(num_classes, in_channels)


NETWORKS: dict[str, Entry] = {
    "lenet5": Entry(lenet5, "LeCun, Bottou, Bengio, Haffner 1998", 1998, 32, 10, 1),
}

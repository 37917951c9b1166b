"""All-CNN: Springenberg, Dosovitskiy, Brox, Riedmiller, "Striving for Simplicity: The All Convolutional Net", ICLR 2015 workshop.

Three base networks A, B and C for CIFAR (table 1), each in the four forms of table 2 that answer one question: does it need
pooling? And one network for ImageNet (table 6), B enlarged. Every convolution has a ReLU behind it, that of the classes
too, and the logits are means over the last grid. Layers have the names of the Caffe replica where it has them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import nn

from striate.models import init
from striate.models.blocks import at_least
from striate.models.entry import Entry

Form = Literal["base", "strided", "convpool", "all"]
Letter = Literal["a", "b", "c"]
Pad = Literal["neon", "same"]

# Kernels of the convolutions before each of the two pools. Source: table 1.
_KERNELS: dict[Letter, tuple[int, ...]] = {"a": (5,), "b": (5, 1), "c": (3, 3)}


class Convolution(NamedTuple):
    """Maps, side of the kernel, stride and padding; drop: share of the output's values dropped."""

    maps: int
    kernel: int
    stride: int
    padding: int
    drop: float = 0.0


class Pool(NamedTuple):
    """Max-pool of 3 with stride 2, rounded up; drop: share of its output's values dropped."""

    drop: float


class AllCNN(nn.Sequential):
    """Convolutions (and pools, in two of the forms), and the mean over what grid is left.

    Layers: drop0 (on the image), conv1, relu1, …, pool1 and drop1 where there are any, grid and flatten.
    parts: of the body, in order; the layer of the classes is the last one. variant: what tells the networks apart whose
    weights have the same names and shapes.
    """

    def __init__(self, parts: Sequence[Convolution | Pool], input_drop: float, smallest_px: int, name: str, variant: str) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if input_drop:
            layers["drop0"] = nn.Dropout(input_drop)
        seen, number, pools, drops = 3, 0, 0, 0
        for part in parts:
            if isinstance(part, Pool):
                pools += 1
                layers[f"pool{pools}"] = nn.MaxPool2d(3, 2, ceil_mode=True)
            else:
                number += 1
                layers[f"conv{number}"] = nn.Conv2d(seen, part.maps, part.kernel, part.stride, part.padding)
                layers[f"relu{number}"] = nn.ReLU(inplace=True)
                seen = part.maps
            if part.drop:
                drops += 1
                layers[f"drop{drops}"] = nn.Dropout(part.drop)
        layers["grid"] = nn.AdaptiveAvgPool2d(1)
        layers["flatten"] = nn.Flatten()
        super().__init__(layers)
        self.smallest_px, self.variant, self._called = smallest_px, variant, name
        init.glorot_uniform(self)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """input: [B, 3, H, W] normalised. Returns logits [B, K], zero or more."""
        at_least(input, self.smallest_px, self._called)
        for layer in self:
            input = layer(input)
        return input


def _cifar(num_classes: int, letter: Letter, form: Form) -> AllCNN:
    """A network of tables 1 and 2: two stages, each ending in a pool or in what stands for it, and the common end."""
    parts: list[Convolution | Pool] = []
    for maps in (96, 192):
        stage = [Convolution(maps, kernel, 1, kernel // 2) for kernel in _KERNELS[letter]]
        if form == "strided":
            stage[-1] = stage[-1]._replace(stride=2, drop=0.5)
        elif form == "convpool":
            stage.append(Convolution(maps, 3, 1, 1))
        elif form == "all":
            stage.append(Convolution(maps, 3, 2, 1, drop=0.5))
        parts += stage
        if form in ("base", "convpool"):
            parts.append(Pool(drop=0.5))
    parts += [Convolution(192, 3, 1, 0), Convolution(192, 1, 1, 0), Convolution(num_classes, 1, 1, 0)]
    smallest_px = 12 if form in ("base", "convpool") else 9
    return AllCNN(parts, 0.2, smallest_px, f"all-cnn-{letter}", form)


def all_cnn_a(num_classes: int, form: Form = "all") -> AllCNN:
    """A: 5x5 convolutions. Parameters at 10 classes: 839,242 (base, strided), 1,254,250 (convpool, all).

    form: base has 3x3 max-pools of stride 2; strided leaves them out and gives the convolution before each its stride;
    all has a 3x3 convolution of stride 2 in each one's place; convpool keeps them and adds that convolution without the
    stride, for a fair comparison (table 2). At 32 px 138.7, 44.7, 181.1 and 308.5 million MACs.
    The paper does not say how weights start: Glorot's, as in the Caffe replica.
    """
    return _cifar(num_classes, "a", form)


def all_cnn_b(num_classes: int, form: Form = "all") -> AllCNN:
    """B: 5x5 and 1x1 convolutions. Parameters at 10 classes: 885,610 (base, strided), 1,300,618 (convpool, all).

    At 32 px 157.6 (base), 143.4 (strided), 200.0 (all) and 327.4 (convpool) million MACs. form: as `all_cnn_a`.
    """
    return _cifar(num_classes, "b", form)


def all_cnn_c(num_classes: int, form: Form = "all") -> AllCNN:
    """C: 3x3 convolutions, two by two. Parameters at 10 classes: 954,730 (base, strided), 1,369,738 (convpool, all).

    At 32 px 228.3 (base), 100.9 (strided), 270.8 (all) and 398.2 (convpool) million MACs. form: as `all_cnn_a`.
    """
    return _cifar(num_classes, "c", form)


def all_cnn_imagenet(num_classes: int, pad: Pad = "neon") -> AllCNN:
    """All-CNN-B for ImageNet: 9,372,840 parameters and 1,032,003,712 MACs at 224 px with 1,000 classes.

    pad: table 6 gives none. neon: those of the neon replica, one zero around 11x11 and 3x3 and none around 5x5, which
    gives grids of 54, 27, 23, 12 and 6; same: AlexNet's two around 11x11, and around the others what keeps the grid, which
    gives 55, 28, 14 and 7 (1,389,299,232 MACs).
    Initial weights are Glorot's, as for CIFAR.
    """
    first, second = (1, 0) if pad == "neon" else (2, 2)
    parts = [
        Convolution(96, 11, 4, first),
        Convolution(96, 1, 1, 0),
        Convolution(96, 3, 2, 1),
        Convolution(256, 5, 1, second),
        Convolution(256, 1, 1, 0),
        Convolution(256, 3, 2, 1),
        Convolution(384, 3, 1, 1),
        Convolution(384, 1, 1, 0),
        Convolution(384, 3, 2, 1, drop=0.5),
        Convolution(1024, 3, 1, 1),
        Convolution(1024, 1, 1, 0),
        Convolution(num_classes, 1, 1, 0),
    ]
    return AllCNN(parts, 0.0, 41 if pad == "neon" else 7, "all-cnn-imagenet", pad)


_PAPER = "Springenberg, Dosovitskiy, Brox, Riedmiller 2015"

NETWORKS: dict[str, Entry] = {
    "all-cnn-a": Entry(all_cnn_a, _PAPER, 2014, 32, 10),
    "all-cnn-b": Entry(all_cnn_b, _PAPER, 2014, 32, 10),
    "all-cnn-c": Entry(all_cnn_c, _PAPER, 2014, 32, 10),
    "all-cnn-imagenet": Entry(all_cnn_imagenet, _PAPER, 2014),
}

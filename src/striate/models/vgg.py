"""VGG A to E: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015, table 1.

State-dict names are torchvision's (vgg11 is A, vgg13 B, vgg16 D, vgg19 E), so its weight files load with no key map. A-LRN has
the numbers of A, its normalisation standing between them under a name of its own: A's weights fit it too, and give other
results, so the two carry their `variant`. C and A-LRN have no published weights. The -bn forms are torchvision's; the paper has
no batch norm, and its initial weights are not theirs (see `VGG`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn

from striate.models import init
from striate.models.blocks import GridPool, LocalResponseNorm, at_least, check_share
from striate.models.entry import Entry

_WIDTHS = (64, 128, 256, 512, 512)
# Kernels of each stage's convolutions. Source: table 1.
_A = ((3,), (3,), (3, 3), (3, 3), (3, 3))
_B = ((3, 3), (3, 3), (3, 3), (3, 3), (3, 3))
_C = ((3, 3), (3, 3), (3, 3, 1), (3, 3, 1), (3, 3, 1))
_D = ((3, 3), (3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3))
_E = ((3, 3), (3, 3), (3, 3, 3, 3), (3, 3, 3, 3), (3, 3, 3, 3))


class VGG(nn.Module):
    """Five stages of convolutions, each with a 2x2 max-pool of stride 2 behind it, and three linear layers.

    stages: kernels of each stage's convolutions. lrn: AlexNet's normalisation after the first one (A-LRN).
    batch_norm: between each convolution and its ReLU.
    dropout: share of the outputs of the first two linear layers that is dropped.

    Initial weights are the paper's, normal with variance 0.01 whatever a layer's size (section 3.1). A ReLU layer then
    multiplies the deviation of its input by sqrt(inputs x 0.01 / 2), 4.8 at 4,608 inputs. On noise of 224 px the last
    convolution's outputs have a deviation of 8e3 in A and 1e8 in E, the logits 2e6 and 3e10, and the loss is 6e6 and 1e11.
    Were 0.01 the deviation, as Caffe's replicas have it, the logits of A would have one of 2e-5 and those of E 3e-9: a
    constant function. Glorot's weights, which the paper's authors found to work as well, lie between (logits 0.03 and 0.002)
    and start all of them: `init="glorot"`, recipe vgg-2014.
    With batch_norm the start is torchvision's: He's by outputs for convolutions, a deviation of 0.01 for linear layers.
    """

    smallest_px = 32

    def __init__(
        self,
        num_classes: int,
        stages: Sequence[Sequence[int]],
        dropout: float,
        lrn: bool = False,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        check_share("dropout", dropout)
        self.variant = "lrn" if lrn else "basic"
        self.features = _features(stages, lrn, batch_norm)
        self.avgpool = GridPool(7)
        self.classifier = nn.Sequential(
            nn.Linear(_WIDTHS[-1] * 7 * 7, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(4096, num_classes),
        )
        if batch_norm:
            init.he_normal_fan_out(self.features)
            init.gaussian(self.classifier)
        else:
            init.vgg(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """images: [B, 3, H, W] normalised, H and W of 32 px or more. Returns logits [B, K]."""
        at_least(images, self.smallest_px, "VGG")
        features = self.avgpool(self.features(images))
        logits: torch.Tensor = self.classifier(torch.flatten(features, 1))
        return logits


def _features(stages: Sequence[Sequence[int]], lrn: bool, batch_norm: bool) -> nn.Sequential:
    """Layers numbered as torchvision's are; the normalisation of A-LRN is called `lrn` and has no number."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    number = 0

    def add(layer: nn.Module) -> None:
        nonlocal number
        layers[str(number)] = layer
        number += 1

    channels = 3
    for kernels, width in zip(stages, _WIDTHS, strict=True):
        for kernel in kernels:
            add(nn.Conv2d(channels, width, kernel, padding=kernel // 2))
            if batch_norm:
                add(nn.BatchNorm2d(width))
            add(nn.ReLU(inplace=True))
            if lrn and channels == 3:
                layers["lrn"] = LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2.0)  # AlexNet's constants: section 2.1
            channels = width
        add(nn.MaxPool2d(2, 2))
    return nn.Sequential(layers)


def vgg_a(num_classes: int, dropout: float = 0.5) -> VGG:
    """VGG A (vgg11): 132,863,336 parameters and 7,609,090,048 MACs at 224 px with 1,000 classes.

    dropout: share of the outputs of the first two linear layers that is dropped in training; the paper's is 0.5.
    """
    return VGG(num_classes, _A, dropout)


def vgg_a_lrn(num_classes: int, dropout: float = 0.5) -> VGG:
    """VGG A with AlexNet's normalisation after the first convolution: A's counts and weights' names. Options as `vgg_a`."""
    return VGG(num_classes, _A, dropout, lrn=True)


def vgg_b(num_classes: int, dropout: float = 0.5) -> VGG:
    """VGG B (vgg13): 133,047,848 parameters and 11,308,466,176 MACs at 224 px. Options as `vgg_a`."""
    return VGG(num_classes, _B, dropout)


def vgg_c(num_classes: int, dropout: float = 0.5) -> VGG:
    """VGG C, with three 1x1 convolutions: 133,638,952 parameters and 11,770,888,192 MACs at 224 px. Options as `vgg_a`."""
    return VGG(num_classes, _C, dropout)


def vgg16(num_classes: int, dropout: float = 0.5) -> VGG:
    """VGG D: 138,357,544 parameters and 15,470,264,320 MACs at 224 px. Options as `vgg_a`."""
    return VGG(num_classes, _D, dropout)


def vgg19(num_classes: int, dropout: float = 0.5) -> VGG:
    """VGG E: 143,667,240 parameters and 19,632,062,464 MACs at 224 px. Options as `vgg_a`."""
    return VGG(num_classes, _E, dropout)


def vgg_a_bn(num_classes: int, dropout: float = 0.5) -> VGG:
    """VGG A with batch norm (vgg11_bn): 132,868,840 parameters, A's MACs. Options as `vgg_a`."""
    return VGG(num_classes, _A, dropout, batch_norm=True)


def vgg_b_bn(num_classes: int, dropout: float = 0.5) -> VGG:
    """VGG B with batch norm (vgg13_bn): 133,053,736 parameters, B's MACs. Options as `vgg_a`."""
    return VGG(num_classes, _B, dropout, batch_norm=True)


def vgg16_bn(num_classes: int, dropout: float = 0.5) -> VGG:
    """VGG D with batch norm: 138,365,992 parameters, D's MACs. Options as `vgg_a`."""
    return VGG(num_classes, _D, dropout, batch_norm=True)


def vgg19_bn(num_classes: int, dropout: float = 0.5) -> VGG:
    """VGG E with batch norm: 143,678,248 parameters, E's MACs. Options as `vgg_a`."""
    return VGG(num_classes, _E, dropout, batch_norm=True)


_PAPER = "Simonyan and Zisserman 2015"

NETWORKS = {
    "vgg-a": Entry(vgg_a, f"{_PAPER}, A", 2014),
    "vgg-a-lrn": Entry(vgg_a_lrn, f"{_PAPER}, A-LRN", 2014),
    "vgg-b": Entry(vgg_b, f"{_PAPER}, B", 2014),
    "vgg-c": Entry(vgg_c, f"{_PAPER}, C", 2014),
    "vgg16": Entry(vgg16, f"{_PAPER}, D", 2014),
    "vgg19": Entry(vgg19, f"{_PAPER}, E", 2014),
    "vgg-a-bn": Entry(vgg_a_bn, f"{_PAPER}, A, with batch norm", 2014),
    "vgg-b-bn": Entry(vgg_b_bn, f"{_PAPER}, B, with batch norm", 2014),
    "vgg16-bn": Entry(vgg16_bn, f"{_PAPER}, D, with batch norm", 2014),
    "vgg19-bn": Entry(vgg19_bn, f"{_PAPER}, E, with batch norm", 2014),
}

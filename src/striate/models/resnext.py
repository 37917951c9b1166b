"""ResNeXt-50 and -101: Xie, Girshick, Dollár, Tu, He, "Aggregated Residual Transformations for Deep Neural Networks", CVPR 2017.

ResNet's bottleneck with a wider 3x3 in groups, the paper's form C (figure 3): 32x4d is 32 groups of 4 channels in the first
stage, twice the width of ResNet, at the same cost. As in the authors' code and torchvision the 3x3 strides (v1.5); weights
are named as torchvision's.
"""

from __future__ import annotations

from functools import partial

from striate.models.entry import Entry
from striate.models.resnet import Bottleneck, builder

_32X4D = partial(Bottleneck, inner=2, groups=32)
_64X4D = partial(Bottleneck, inner=4, groups=64)

# Tables 1 and 4. Counts are for 1,000 classes and 224 px.
resnext50 = builder(_32X4D, (3, 4, 6, 3), "v1.5", "ResNeXt-50 32x4d: 25,028,904 parameters, 4.230 G MACs.")
resnext101 = builder(_32X4D, (3, 4, 23, 3), "v1.5", "ResNeXt-101 32x4d: 44,177,704 parameters, 7.970 G MACs.")
resnext101_64x4d = builder(_64X4D, (3, 4, 23, 3), "v1.5", "ResNeXt-101 64x4d: 83,455,272 parameters, 15.460 G MACs.")

_PAPER = "Xie, Girshick, Dollár, Tu, He 2017"

NETWORKS = {
    "resnext50": Entry(resnext50, _PAPER, 2016),
    "resnext101": Entry(resnext101, _PAPER, 2016),
    "resnext101-64x4d": Entry(resnext101_64x4d, _PAPER, 2016),
}

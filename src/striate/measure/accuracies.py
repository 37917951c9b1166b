"""Published accuracies of the networks, each with how it was measured and who says so: one line for a network.

Chosen in this order: one network and one crop before several views, dense evaluation or ensembles; both numbers from
one source before one number; the paper before others who trained the same network. So most lines can be compared with each
other; one that cannot says so in its protocol. None of them was measured here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """Accuracies in 0..1, None where only the other one is published; how they were measured; where they stand."""

    top1: float | None
    top5: float | None
    protocol: str
    source: str


def _errors(top1: float | None, top5: float | None, protocol: str, source: str) -> Published:
    """From errors in per cent, as papers print them."""
    return Published(_accuracy(top1), _accuracy(top5), protocol, source)


def _accuracy(error: float | None) -> float | None:
    return None if error is None else round(1 - error / 100, 6)


_CROP = "single crop 224 of 256, ImageNet val"
_CROP_227 = "single crop 227 of 256, ImageNet val"
_CROP_299 = "single crop 299, ImageNet val"
_TEN = "10 crops, ImageNet val"
_DENSE = "dense at shorter side 256, ImageNet val"
_CIFAR = "CIFAR-10 test, no augmentation"
_CIFAR_FLIPS = "CIFAR-10 test, flips and shifts in training"
_TINY = "Tiny ImageNet val, 64 px"

_TORCHVISION = "torchvision's weights IMAGENET1K_V1"
_CAFFE = "Caffe model zoo, reimplementation"
_ALL_CNN = "Springenberg et al. 2015, table 3, form all"
_VGG = "Simonyan and Zisserman 2015, table 3"
_RESNET = "He et al. 2016, tables 2 and 3"
_MSRA = "authors' released weights (Caffe)"
_RESNEXT = "Xie et al. 2017, tables 3 to 5"
_DENSENET = "Huang et al. 2017, table 3"
_SE = "Hu et al. 2018, table 2"
_KTH = "Skagerström et al. 2018, table 3"

# The squeeze-and-excitation GoogLeNets have no line: their paper printed a validation accuracy of 0.11 %, which is chance,
# beside the size of another network.
PUBLISHED: dict[str, Published] = {
    "lenet5": _errors(0.95, None, "MNIST test, no distortions in training", "LeCun et al. 1998, section III"),
    "alexnet": _errors(42.9, 19.8, _CROP_227, _CAFFE),
    "caffenet": _errors(42.6, 19.6, _CROP_227, "Caffe model zoo"),
    "alexnet-one-tower": _errors(43.478, 20.934, _CROP, _TORCHVISION),
    "zfnet": _errors(38.4, 16.5, _TEN, "Zeiler and Fergus 2014, table 2"),
    "zfnet-b": _errors(37.5, 16.0, _TEN, "Zeiler and Fergus 2014, table 2"),
    "all-cnn-a": _errors(10.30, None, _CIFAR, _ALL_CNN),
    "all-cnn-b": _errors(9.10, None, _CIFAR, _ALL_CNN),
    "all-cnn-c": _errors(9.08, None, _CIFAR, _ALL_CNN),
    "all-cnn-imagenet": _errors(41.2, None, _CROP, "Springenberg et al. 2015, section 3.3"),
    "vgg-a": _errors(30.98, 11.372, _CROP, _TORCHVISION),
    "vgg-a-bn": _errors(29.63, 10.19, _CROP, _TORCHVISION),
    "vgg-a-lrn": _errors(29.7, 10.5, _DENSE, _VGG),
    "vgg-b": _errors(30.072, 10.754, _CROP, _TORCHVISION),
    "vgg-b-bn": _errors(28.414, 9.626, _CROP, _TORCHVISION),
    "vgg-c": _errors(28.1, 9.4, _DENSE, _VGG),
    "vgg16": _errors(28.408, 9.618, _CROP, _TORCHVISION),
    "vgg16-bn": _errors(26.64, 8.484, _CROP, _TORCHVISION),
    "vgg19": _errors(27.624, 9.124, _CROP, _TORCHVISION),
    "vgg19-bn": _errors(25.782, 8.158, _CROP, _TORCHVISION),
    "googlenet": _errors(31.3, 11.1, _CROP, _CAFFE),
    "googlenet-bn": _errors(30.222, 10.47, _CROP, _TORCHVISION),
    "bn-inception": _errors(25.2, 7.82, "single crop 224, ImageNet val", "Ioffe and Szegedy 2015, figure 4"),
    "inception-v3": _errors(21.2, 5.6, _CROP_299, "Szegedy et al. 2016, table 3"),
    "resnet18": _errors(30.242, 10.922, _CROP, _TORCHVISION),
    "resnet18-v1": _errors(30.242, 10.922, _CROP, _TORCHVISION),
    "resnet34": _errors(26.686, 8.58, _CROP, _TORCHVISION),
    "resnet34-v1": _errors(26.686, 8.58, _CROP, _TORCHVISION),
    "resnet50": _errors(23.87, 7.138, _CROP, _TORCHVISION),
    "resnet101": _errors(22.626, 6.454, _CROP, _TORCHVISION),
    "resnet152": _errors(21.688, 5.954, _CROP, _TORCHVISION),
    "resnet50-v1": _errors(24.7, 7.8, _CROP, _MSRA),
    "resnet101-v1": _errors(23.6, 7.1, _CROP, _MSRA),
    "resnet152-v1": _errors(23.0, 6.7, _CROP, _MSRA),
    "resnet18-a": _errors(27.88, None, _TEN, _RESNET),
    "resnet34-a": _errors(25.03, 7.76, _TEN, _RESNET),
    "resnet34-c": _errors(24.19, 7.40, _TEN, _RESNET),
    "plain18": _errors(27.94, None, _TEN, _RESNET),
    "plain34": _errors(28.54, 10.02, _TEN, _RESNET),
    "resnet20": _errors(8.75, None, _CIFAR_FLIPS, "He et al. 2016, table 6"),
    "resnet56": _errors(6.97, None, _CIFAR_FLIPS, "He et al. 2016, table 6"),
    "xception": _errors(21.0, 5.5, _CROP_299, "Chollet 2017, table 1"),
    "resnext50": _errors(22.2, None, _CROP, _RESNEXT),
    "resnext101": _errors(21.2, 5.6, _CROP, _RESNEXT),
    "resnext101-64x4d": _errors(20.4, 5.3, _CROP, _RESNEXT),
    "densenet121": _errors(25.02, 7.71, _CROP, _DENSENET),
    "densenet169": _errors(23.80, 6.85, _CROP, _DENSENET),
    "densenet201": _errors(22.58, 6.34, _CROP, _DENSENET),
    "se-resnet50": _errors(23.29, 6.62, _CROP, _SE),
    "se-resnet101": _errors(22.38, 6.07, _CROP, _SE),
    "se-resnet152": _errors(21.57, 5.73, _CROP, _SE),
    "se-resnext50": _errors(21.10, 5.49, _CROP, _SE),
    "se-resnext101": _errors(20.70, 5.01, _CROP, _SE),
    "se-bn-inception": _errors(24.23, 7.14, _CROP, _SE),
    "senet154": _errors(18.68, 4.47, _CROP, "Hu et al. 2018, table 8"),
    "kth-a": _errors(83, 63, _TINY, _KTH),
    "kth-b": _errors(78, 55, _TINY, _KTH),
    "kth-c": _errors(94, 80, _TINY, _KTH),
    "kth-d": _errors(71, 45, _TINY, _KTH),
    "kth-e": _errors(75, 50, _TINY, _KTH),
    "kth-f": _errors(76, 52, _TINY, _KTH),
}

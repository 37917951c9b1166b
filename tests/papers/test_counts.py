"""Parameters, multiply-accumulates, receptive fields and grids of every network against its paper's table, to the digit."""

import functools
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from striate.measure.receptive import fields
from striate.models import catalog, sizes
from striate.taps import taps


@dataclass(frozen=True)
class Row:
    """What a network has: with its auxiliary heads and without them; MACs of convolutions and linear layers, without."""

    name: str
    parameters: int
    macs: int | None = None
    options: dict[str, Any] = field(default_factory=dict)
    without_aux: int | None = None
    macs_with_aux: int | None = None
    field_px: int | None = None
    size_px: int = 224
    classes: int = 1000
    statistics: int | None = None  # what Keras prints as the total: moving statistics as well

    def __str__(self) -> str:
        return "-".join([self.name, *(f"{key}={value}" for key, value in self.options.items())])


IMAGENET = [
    Row("alexnet", 60_965_224, 724_406_816, size_px=227, field_px=163),
    Row("alexnet", 60_965_224, 724_406_816, size_px=224, field_px=163),
    Row("caffenet", 60_965_224, 724_406_816, size_px=227, field_px=163),
    Row("alexnet-one-tower", 61_100_840, 714_188_480, field_px=163),
    Row("alexnet", 62_378_344, 1_135_256_096, {"groups": 1}, size_px=227, field_px=163),
    Row("zfnet", 62_357_608, 1_168_032_896, field_px=139),
    Row("zfnet-b", 107_627_624, 2_476_704_896, field_px=139),
    Row("all-cnn-imagenet", 9_372_840, 1_032_003_712, field_px=195),
    Row("vgg-a", 132_863_336, 7_609_090_048, field_px=134),
    Row("vgg-a-lrn", 132_863_336, 7_609_090_048, field_px=134),
    Row("vgg-b", 133_047_848, 11_308_466_176, field_px=140),
    Row("vgg-c", 133_638_952, 11_770_888_192, field_px=140),
    Row("vgg16", 138_357_544, 15_470_264_320, field_px=196),
    Row("vgg19", 143_667_240, 19_632_062_464, field_px=252),
    # Batch norm adds two numbers for each channel: 2,752 channels in A, 2,944 in B, 4,224 in D, 5,504 in E.
    Row("vgg-a-bn", 132_863_336 + 2 * 2_752, 7_609_090_048, field_px=134),
    Row("vgg-b-bn", 133_047_848 + 2 * 2_944, 11_308_466_176, field_px=140),
    Row("vgg16-bn", 138_357_544 + 2 * 4_224, 15_470_264_320, field_px=196),
    Row("vgg19-bn", 143_667_240 + 2 * 5_504, 19_632_062_464, field_px=252),
    Row("googlenet", 13_378_280, 1_582_671_872, {}, 6_998_552, 1_591_044_096, field_px=715),
    Row("googlenet-separable-stem", 13_371_584, 1_498_677_248, {}, 6_991_856, field_px=715),
    Row("googlenet-bn", 13_004_888, 1_498_376_192, {}, 6_624_904, field_px=379),
    # The template that the source paper names: a wider layer in the auxiliary heads (maciejbalawejder's GoogLeNet).
    Row("googlenet", 19_622_632, None, {"aux_features": 2048}, 6_998_552, 1_597_286_400),
    Row("bn-inception", 11_285_224, 2_032_600_064, field_px=699),
    Row("bn-inception", 11_295_240, 2_032_600_064, {"bias": True}),
    Row("bn-inception", 11_194_984, 2_018_851_840, {"table": "tf"}, field_px=699),
    Row("bn-inception", 11_188_288, 1_934_857_216, {"table": "tf", "stem": "separable"}, field_px=699),
    Row("se-bn-inception", 11_931_622, 2_033_239_424, field_px=699),
    Row("inception-v3", 27_161_264, 5_713_216_096, {}, 23_834_568, size_px=299, field_px=1311),
    Row("xception", 22_855_952, 8_357_403_496, size_px=299, field_px=1083),
    Row("resnet18-a", 11_515_688, field_px=435),
    Row("plain18", 11_515_688, field_px=435),
    Row("resnet18", 11_689_512, 1_814_073_344, field_px=435),
    Row("resnet18-c", 12_043_816, field_px=435),
    Row("resnet34-a", 21_623_848, field_px=899),
    Row("plain34", 21_623_848, field_px=899),
    Row("resnet34", 21_797_672, 3_663_761_408, field_px=899),
    Row("resnet34-c", 22_716_840, field_px=899),
    Row("resnet50", 25_557_032, 4_089_184_256, field_px=427),
    Row("resnet50-v1", 25_557_032, 3_857_973_248, field_px=483),
    Row("resnet101", 44_549_160, 7_801_405_440, field_px=971),
    Row("resnet101-v1", 44_549_160, 7_570_194_432, field_px=1027),
    Row("resnet152", 60_192_808, 11_513_626_624, field_px=1451),
    Row("resnet152-v1", 60_192_808, 11_282_415_616, field_px=1507),
    Row("resnext50", 25_028_904, 4_230_479_872, field_px=427),
    Row("resnext101", 44_177_704, field_px=971),
    Row("resnext101-64x4d", 83_455_272, field_px=971),
    Row("torchvision/resnext101_32x8d", 88_791_336),
    Row("densenet121", 7_978_856, 2_834_161_664, field_px=2071),
    Row("densenet169", 14_149_480, 3_359_843_328, field_px=3351),
    Row("densenet201", 20_013_928, 4_291_365_888, field_px=3863),
    Row("se-resnet50", 28_088_024, 3_860_488_192, field_px=483),
    Row("se-resnet101", 49_326_872, 7_574_937_600, field_px=1027),
    Row("se-resnet152", 66_821_848, 11_288_993_792, field_px=1507),
    Row("se-resnet50", 28_071_976, 3_860_488_192, {"bias": False}),
    Row("se-resnet101", 49_292_328, None, {"bias": False}),
    Row("se-resnet152", 66_770_984, None, {"bias": False}),
    Row("se-resnext50", 27_559_896, 4_232_994_816, field_px=427),
    Row("se-resnext101", 48_955_416, 7_974_739_968, field_px=971),
    Row("senet154", 115_088_984, 20_688_363_520, field_px=1455),
]
# Squeeze-and-excitation in GoogLeNet: what it adds without and with biases, by where the blocks are.
_ADDED = {"paths": (147_808, 153_639), "concat": (474_272, 480_103), "inputs": (1_391_232, 1_411_020)}
SE_GOOGLENET = [
    Row(name, parameters + _ADDED[placement][bias], None, {"placement": placement, "bias": bias}, plain + _ADDED[placement][bias])
    for name, parameters, plain in (
        ("se-googlenet-paths", 13_378_280, 6_998_552),
        ("se-googlenet-bn-paths", 13_004_888, 6_624_904),
    )
    for placement in _ADDED
    for bias in (False, True)
]
SE_GOOGLENET += [
    Row("se-googlenet-paths", 19_622_632 + added, None, {"placement": placement, "bias": bool(bias), "aux_features": 2048})
    for placement, both in _ADDED.items()
    for bias, added in enumerate(both)
]
# The same as they are printed in words: with the source paper's choice, biases and r 16.
PRINTED = [
    Row("se-googlenet-paths", 13_531_919, None, {}, 7_152_191, field_px=715),
    Row("se-googlenet-bn-paths", 13_158_527, None, {}, 6_778_543, field_px=379),
]
SMALL = [
    Row("all-cnn-a", 839_242, None, {"form": "base"}, size_px=32, classes=10, field_px=27),
    Row("all-cnn-a", 839_242, None, {"form": "strided"}, size_px=32, classes=10),
    Row("all-cnn-a", 1_254_250, None, {"form": "convpool"}, size_px=32, classes=10),
    Row("all-cnn-a", 1_254_250, None, {"form": "all"}, size_px=32, classes=10, field_px=27),
    Row("all-cnn-b", 885_610, None, {"form": "base"}, size_px=32, classes=10, field_px=27),
    Row("all-cnn-b", 885_610, None, {"form": "strided"}, size_px=32, classes=10),
    Row("all-cnn-b", 1_300_618, None, {"form": "convpool"}, size_px=32, classes=10),
    Row("all-cnn-b", 1_300_618, None, {"form": "all"}, size_px=32, classes=10, field_px=27),
    Row("all-cnn-c", 954_730, None, {"form": "base"}, size_px=32, classes=10, field_px=27),
    Row("all-cnn-c", 954_730, None, {"form": "strided"}, size_px=32, classes=10, field_px=21),
    Row("all-cnn-c", 1_369_738, None, {"form": "convpool"}, size_px=32, classes=10, field_px=33),
    Row("all-cnn-c", 1_369_738, None, {"form": "all"}, size_px=32, classes=10, field_px=27),
    Row("all-cnn-c", 1_387_108, 271_420_416, {"form": "all"}, size_px=32, classes=100, field_px=27),
    Row("kth-a", 10_993_704, 71_450_624, size_px=64, classes=200, statistics=10_993_704, field_px=24),
    Row("kth-b", 10_998_760, 71_450_624, size_px=64, classes=200, statistics=11_003_816, field_px=24),
    Row("kth-c", 10_993_704, 71_450_624, size_px=64, classes=200, statistics=10_993_704, field_px=24),
    Row("kth-d", 10_998_760, 71_450_624, size_px=64, classes=200, statistics=11_003_816, field_px=24),
    Row("kth-e", 55_479_272, 115_900_416, size_px=64, classes=200, statistics=55_504_808, field_px=24),
    Row("kth-f", 1_121_256, 61_579_264, size_px=64, classes=200, statistics=1_122_216, field_px=24),
]
SMALL += [  # with padding "valid", the other reading of the report: (name, parameters, MACs)
    Row(name, parameters, macs, {"padding": "valid"}, size_px=64, classes=200)
    for name, parameters, macs in (
        ("kth-a", 4_603_944, 51_787_136),
        ("kth-b", 4_609_000, 51_787_136),
        ("kth-c", 4_603_944, 51_787_136),
        ("kth-d", 4_609_000, 51_787_136),
        ("kth-e", 42_699_752, 89_847_168),
        ("kth-f", 497_256, 47_681_536),
    )
]
ROWS = [*IMAGENET, *SE_GOOGLENET, *PRINTED, *SMALL]

# Where the sources print MACs in millions, with the digits that they print: (name, options, size, classes, unit, MACs in it).
ROUNDED = [
    ("resnet18-a", {}, 224, 1000, 1e9, 1.7948),
    ("plain18", {}, 224, 1000, 1e9, 1.7948),
    ("resnet18-c", {}, 224, 1000, 1e9, 1.8783),
    ("resnet34-a", {}, 224, 1000, 1e9, 3.6445),
    ("plain34", {}, 224, 1000, 1e9, 3.6445),
    ("resnet34-c", {}, 224, 1000, 1e9, 3.8307),
    ("resnext101", {}, 224, 1000, 1e9, 7.970),
    ("resnext101-64x4d", {}, 224, 1000, 1e9, 15.460),
    ("torchvision/resnext101_32x8d", {}, 224, 1000, 1e9, 16.414),
    *(
        (f"all-cnn-{letter}", {"form": form}, 32, 10, 1e6, macs)
        for letter, row in {
            "a": {"base": 138.7, "strided": 44.7, "convpool": 308.5, "all": 181.1},
            "b": {"base": 157.6, "strided": 143.4, "convpool": 327.4, "all": 200.0},
            "c": {"base": 228.3, "strided": 100.9, "convpool": 398.2, "all": 270.8},
        }.items()
        for form, macs in row.items()
    ),
]
# The small ones that no table of the sources counts have their counts worked out in their own tests.
ELSEWHERE = {"lenet5", "resnet20", "resnet56", "plain20", "plain56", "resnet18-v1", "resnet34-v1"}
ELSEWHERE |= {f"resnet{depth}-{option}" for depth in (50, 101, 152) for option in "ac"}


def meta(name: str, classes: int, options: dict[str, Any]) -> nn.Module:
    return _built(name, classes, tuple(options.items()))


@functools.cache
def _built(name: str, classes: int, options: tuple[tuple[str, Any], ...]) -> nn.Module:
    """Built once for all the tests here, none of which changes it."""
    with torch.device("meta"):
        return catalog.build(name, classes, dict(options))


def macs(model: nn.Module, size_px: int, *, training: bool = False) -> int:
    """Multiply-accumulates of one image, counted by torch from the shapes alone; in training mode with auxiliary heads."""
    with FlopCounterMode(display=False) as counter:
        sizes.outline(model, sizes.blank(model, size_px), training=training)
    return counter.get_total_flops() // 2


def parameters(model: nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_parameters_and_macs(row):
    model = meta(row.name, row.classes, row.options)
    assert parameters(model) == row.parameters
    if row.statistics is not None:
        moving = [value for key, value in model.named_buffers() if not key.endswith("num_batches_tracked")]
        assert row.parameters + sum(value.numel() for value in moving) == row.statistics
    if row.macs is not None:
        assert macs(model, row.size_px) == row.macs
    if row.without_aux is not None:
        assert parameters(meta(row.name, row.classes, {**row.options, "aux": False})) == row.without_aux
    if row.macs_with_aux is not None:
        assert macs(model, row.size_px, training=True) == row.macs_with_aux


@pytest.mark.parametrize("row", [row for row in ROWS if row.field_px is not None], ids=str)
def test_receptive_field_of_the_last_convolution(row):
    model = meta(row.name, row.classes, row.options)
    found = fields(model, row.size_px)
    # Convolutions that see the whole image (a gate of squeeze-and-excitation) have no field that could be counted.
    convolutions = [name for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d) and name in found]
    sizes = [found[name].size_px for name in convolutions]
    assert max(size for size in sizes if size is not None) == row.field_px


# The field behind the last max-pool, where the sources print it: (name, input side, pixels).
POOLED = [
    ("alexnet", 227, 195),
    ("caffenet", 227, 195),
    ("alexnet-one-tower", 224, 195),
    ("zfnet", 224, 171),
    ("zfnet-b", 224, 171),
    ("vgg-a", 224, 150),
    ("vgg-b", 224, 156),
    ("vgg-c", 224, 156),
    ("vgg16", 224, 212),
    ("vgg19", 224, 268),
    ("kth-d", 64, 28),
]


@pytest.mark.parametrize(("name", "size_px", "field_px"), POOLED)
def test_receptive_field_of_the_last_pool(name, size_px, field_px):
    model = meta(name, 1000, {})
    pools = [name for name, layer in model.named_modules() if isinstance(layer, nn.MaxPool2d)]
    assert fields(model, size_px)[pools[-1]].size_px == field_px


@pytest.mark.parametrize(("name", "options", "size_px", "classes", "unit", "printed"), ROUNDED)
def test_macs_as_the_sources_round_them(name, options, size_px, classes, unit, printed):
    digits = len(str(printed).partition(".")[2])
    assert round(macs(meta(name, classes, options), size_px) / unit, digits) == printed


def test_all_cnn_for_imagenet_with_all_convolutions_padded():
    assert macs(meta("all-cnn-imagenet", 1000, {"pad": "same"}), 224) == 1_389_299_232


def test_every_listed_network_is_counted():
    assert set(catalog.NETWORKS) == {row.name for row in ROWS if "/" not in row.name} | ELSEWHERE


# Every side of a grid that a convolution or a pool gives, largest first: (name, options, input side, sides).
TRACES = [
    ("lenet5", {}, 32, [28, 14, 10, 5]),
    ("alexnet", {}, 227, [55, 27, 13, 6]),
    ("alexnet", {}, 224, [55, 27, 13, 6]),
    ("caffenet", {}, 227, [55, 27, 13, 6]),
    ("alexnet-one-tower", {}, 224, [55, 27, 13, 6]),
    ("zfnet", {}, 224, [110, 55, 26, 13, 6]),
    *((f"all-cnn-{letter}", {"form": form}, 32, [32, 16, 8, 6]) for letter in "abc" for form in ("base", "convpool", "all")),
    ("all-cnn-imagenet", {}, 224, [54, 27, 23, 12, 6]),
    *((name, {}, 224, [224, 112, 56, 28, 14, 7]) for name in ("vgg-a", "vgg-a-lrn", "vgg-c", "vgg19-bn")),
    *((name, {}, 224, [112, 56, 28, 14, 7]) for name in ("googlenet", "googlenet-bn", "bn-inception", "se-bn-inception")),
    *((name, {}, 224, [112, 56, 28, 14, 7]) for name in ("resnet18", "resnet50", "resnet50-v1", "plain34", "resnext50")),
    *((name, {}, 224, [112, 56, 28, 14, 7]) for name in ("densenet121", "se-resnet50", "se-resnext50", "senet154")),
    ("inception-v3", {}, 299, [149, 147, 73, 71, 35, 17, 8]),
    ("xception", {}, 299, [149, 147, 74, 37, 19, 10]),
    ("kth-d", {}, 64, [64, 32, 16, 8]),
]


@pytest.mark.parametrize(("name", "options", "size_px", "sides"), TRACES)
def test_spatial_trace(name, options, size_px, sides):
    model = meta(name, 200, options)
    found: set[int] = set()
    kinds = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
    layers = [name for name, layer in model.named_modules() if isinstance(layer, kinds)]
    with taps(model, dict.fromkeys(layers, lambda layer, inputs, output: found.add(output.shape[-1]))):
        sizes.outline(model, sizes.blank(model, size_px, catalog.NETWORKS[name].channels))
    assert sorted(found - {1}, reverse=True) == sides

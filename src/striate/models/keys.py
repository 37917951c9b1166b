"""Names of weights as other programs write them, turned into a network's own.

A family is one way of naming, with what goes with it: how its weights see photos, and which variant they are. Caffe's layers are
written with "/" or "_", as the program that converted them liked; its BatchNorm holds the statistics and a Scale layer behind it
the weight and the bias, which are one layer here. Sources: the prototxts and files of the projects that the families name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from striate.models.weights import plain
from striate.view import View

Tensors = dict[str, torch.Tensor]
Shapes = Mapping[str, torch.Size]
Rules = tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]

# What programs put before every name of the network that they hold.
_PREFIXES = ("model", "backbone", "network", "net", "encoder")
# Layers of the classes, as the zoos call the main one; and the heads beside it.
_HEADS = ("fc", "last_linear", "classifier", "head.fc", "head")
_AUX = ("aux1.", "aux2.", "AuxLogits.")


def caffe_view(blue: float, green: float, red: float, size_px: int = 224) -> View:
    """Pixels 0..255 in blue, green, red, less a mean. Caffe's own images were squashed to 256 x 256 before the centre crop."""
    mean = (blue / 255, green / 255, red / 255)
    return View(size_px, "crop", 256, "bilinear", False, mean, (1 / 255, 1 / 255, 1 / 255), "bgr")


_CAFFE = caffe_view(104, 117, 123)
_HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Family:
    """One way of naming.

    title: as in "Names are …"; empty where they are the network's own. mark: a file with such a name is of this family (regular
    expression, with "_" for "/"). rules: what becomes of a layer, the first that matches; a layer that none matches stays.
    view, variant: of weights with such names. note: what else must be known of them.
    """

    title: str
    mark: str
    rules: Rules = ()
    view: View | None = None
    variant: str | None = None
    note: str = ""


@dataclass(frozen=True)
class Fitted:
    """Tensors by a network's names. notes: what was changed, for people. kept: names that stay as they are in the network."""

    tensors: Tensors
    notes: tuple[str, ...]
    kept: tuple[str, ...]


# ---------------------------------------------------------------- families


def _msra(found: re.Match[str]) -> str:
    """res4b3_branch2a: the fourth block of what is layer3 here, its first convolution. Letters count the blocks, or b1, b2, …"""
    kind, stage, block, branch = found.groups()
    number = int(block[1:]) if len(block) > 1 else ord(block) - ord("a")
    place = "downsample" if branch == "1" else ("conv" if kind == "res" else "bn") + str(" abc".index(branch[1]))
    suffix = "" if branch != "1" else ".0" if kind == "res" else ".1"
    return f"layer{int(stage) - 1}.{number}.{place}{suffix}"


def _se_block(found: re.Match[str]) -> str:
    """conv3_2_1x1_reduce_bn: the batch norm behind the first convolution of the second block of what is layer2 here."""
    stage, block, part, norm = found.groups()
    places = {"1x1_reduce": "1", "3x3": "2", "1x1_increase": "3"}
    if part == "1x1_proj":
        inner = "downsample.1" if norm else "downsample.0"
    elif part in ("1x1_down", "1x1_up"):
        inner = "se_module.fc1" if part == "1x1_down" else "se_module.fc2"
    else:
        inner = ("bn" if norm else "conv") + places[part]
    return f"layer{int(stage) - 1}.{int(block) - 1}.{inner}"


_PATHS = {"1x1": "1", "3x3_reduce": "2.0", "3x3": "2.1", "5x5_reduce": "3.0", "5x5": "3.1", "pool_proj": "4.1"}
_DOUBLE = {"double3x3_reduce": "double_3x3_reduce", "double3x3a": "double_3x3_1", "double3x3b": "double_3x3_2"}
_MODULES = ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")
_BLOCK_PATHS = {"p1.0": "1", "p2.0": "2.0", "p2.2": "2.1", "p3.0": "3.0", "p3.2": "3.1", "p4.1": "4.1"}

FAMILIES = (
    Family(
        "those of torchvision's hosted DenseNets",
        r".*denselayer\d+\.(norm|conv)\.[12]\..*",
        ((r"(.*denselayer\d+\.(?:norm|conv))\.([12])", r"\1\2"),),
    ),
    Family(
        "timm's for VGG",
        r"pre_logits\.fc1\..*",
        ((r"pre_logits\.fc1", "classifier.0"), (r"pre_logits\.fc2", "classifier.3"), (r"head\.fc", "classifier.6")),
    ),
    Family(
        "Caffe's, as of the ResNets of Microsoft Research",
        r"res2a_branch2a\..*",
        (
            (r"(res|bn|scale)(\d)(b\d+|[a-z])_branch(1|2[abc])", _msra),
            (r"(?:bn|scale)_conv1", "bn1"),
            (r"fc1000", "fc"),
        ),
        caffe_view(103, 116, 123),
        "v1, stem caffe",
        "Their mean image is taken as one colour.",
    ),
    Family(
        "Caffe's, as of the SENets",
        r"conv2_1_1x1_down\..*",
        (
            (r"conv([2-5])_(\d+)_(1x1_(?:reduce|increase|proj|down|up)|3x3)((?:_bn(?:_scale)?)?)", _se_block),
            (r"conv1_7x7_s2", "layer0.conv1"),
            (r"conv1_7x7_s2_bn(?:_scale)?", "layer0.bn1"),
            (r"conv1_(\d)_3x3(?:_s2)?", r"layer0.conv\1"),
            (r"conv1_(\d)_3x3(?:_s2)?_bn(?:_scale)?", r"layer0.bn\1"),
            (r"classifier", "last_linear"),
        ),
        _CAFFE,
    ),
    Family(
        "Caffe's, as of BN-Inception",
        r"inception_3a_double3x3a\..*",
        (
            (r"(inception_..)_1x1_down", r"\1_se.fc1"),
            (r"(inception_..)_1x1_up", r"\1_se.fc2"),
            (
                r"(inception_..)_(double3x3_reduce|double3x3a|double3x3b)((?:_bn)?)(?:_scale)?",
                lambda found: f"{found[1]}_{_DOUBLE[found[2]]}{found[3]}",
            ),
            (r"(.*_bn)_scale", r"\1"),
            (r"classifier|fc", "last_linear"),
        ),
        _CAFFE,
    ),
    Family(
        "Cadene's for BN-Inception",
        r"inception_3a_double_3x3_1\.bias",
        view=caffe_view(104, 117, 128),
    ),
    Family(
        "Caffe's, as of GoogLeNet",
        r"inception_3a_5x5_reduce\..*",
        (
            (r"conv1_7x7_s2", "conv1.conv"),
            (r"conv2_3x3_reduce", "conv2.conv"),
            (r"conv2_3x3", "conv3.conv"),
            (
                r"inception_(\d[a-e])_(1x1|3x3_reduce|3x3|5x5_reduce|5x5|pool_proj)",
                lambda found: f"inception{found[1]}.branch{_PATHS[found[2]]}.conv",
            ),
            (r"loss([12])_conv", r"aux\1.conv.conv"),
            (r"loss([12])_fc", r"aux\1.fc1"),
            (r"loss([12])_classifier", r"aux\1.fc2"),
            (r"loss3_classifier", "fc"),
        ),
        _CAFFE,
    ),
    Family(
        "those of maciejbalawejder's GoogLeNet",
        r"Blocks\.0\.p1\.0\..*",
        (
            (r"Conv7k", "conv1.conv"),
            (r"Conv1k", "conv2.conv"),
            (r"Conv3k", "conv3.conv"),
            (
                r"Blocks\.([0-8])\.(p[1-4]\.[012])",
                lambda found: f"inception{_MODULES[int(found[1])]}.branch{_BLOCK_PATHS.get(found[2], found[2])}.conv",
            ),
            (r"AuxClass([12])\.conv1x1", r"aux\1.conv.conv"),
            (r"AuxClass([12])\.(fc[12])", r"aux\1.\2"),
            (r"FC", "fc"),
        ),
        note="That network has no ReLU behind the pool projections and a border around its max-pools; here they compute "
        "something else. Its auxiliary heads have 2,048 features: --model.options.aux_features 2048.",
    ),
    # The names of these are the network's own; they are here for how their weights see photos.
    Family("", r"Mixed_7c\.branch3x3dbl_3b\.conv\.weight", view=View(299, "crop", 342, "bilinear", False, _HALF, _HALF)),
    Family("", r"block12\.rep\.1\.pointwise\.weight", view=View(299, "crop", 333, "bicubic", False, _HALF, _HALF)),
)


def family_of(names: Mapping[str, object]) -> Family | None:
    """The family that a file's names are of; None for names that are a network's own, or of no program known here."""
    written = "\n".join(_layer_names(name) for name in names)
    return next((family for family in FAMILIES if re.search(rf"^(?:.*\.)?{family.mark}$", written, re.MULTILINE)), None)


# ---------------------------------------------------------------- fitting


def fit(tensors: Mapping[str, torch.Tensor], shapes: Shapes, heads: tuple[str, ...] = ()) -> Fitted:
    """The file's tensors under the names, and in the shapes, of a network, as far as that is certain; the rest stays as it is.

    shapes: of the network's state dict, by its names. heads: names that keep their start, whatever the file holds of them.
    """
    notes: list[str] = []
    found = _without_prefix({plain(name): tensor for name, tensor in tensors.items()}, shapes, notes)
    family = family_of(found)
    if family is not None and family.rules:
        found = _translated(found, family)
        notes.append(f"Names are {family.title}; they were translated.")
    if family is not None and family.note:
        notes.append(family.note)
    found = _folded(_main_head(found, shapes, notes), shapes, notes)
    found = _one_channel(_reshaped(found, shapes, notes), shapes, notes)
    found, kept = _aux(found, shapes, heads, notes)
    return Fitted({name: tensor for name, tensor in found.items() if name not in heads}, tuple(notes), kept)


def _layer_names(name: str) -> str:
    return name.replace("/", "_")


def _translated(found: Tensors, family: Family) -> Tensors:
    translated = {}
    for name, tensor in found.items():
        layer, _, what = _layer_names(name).rpartition(".")
        for pattern, replacement in family.rules:
            matched = re.fullmatch(pattern, layer)
            if matched:
                layer = matched.expand(replacement) if isinstance(replacement, str) else replacement(matched)
                break
        translated[f"{layer}.{what}"] = tensor
    return translated


def _without_prefix(found: Tensors, shapes: Shapes, notes: list[str]) -> Tensors:
    """Takes "model." and its like away where every name of the file begins with it and no name of the network does."""
    for _ in range(2):  # "model.backbone."
        for prefix in _PREFIXES:
            start = prefix + "."
            if found and all(name.startswith(start) for name in found) and not any(name.startswith(start) for name in shapes):
                found = {name.removeprefix(start): tensor for name, tensor in found.items()}
                notes.append(f"'{start}' was taken from the beginning of every name.")
    return found


def _main_head(found: Tensors, shapes: Shapes, notes: list[str]) -> Tensors:
    """The layer of the classes under the network's name: "last_linear" and "fc" are one thing in different zoos."""
    ours = [head for head in _HEADS if f"{head}.weight" in shapes]
    theirs = [head for head in _HEADS if f"{head}.weight" in found]
    if len(ours) != 1 or len(theirs) != 1 or ours == theirs:
        return found
    notes.append(f"The layer of the classes is '{theirs[0]}' in the file and '{ours[0]}' here.")
    start = theirs[0] + "."
    return {f"{ours[0]}.{name.removeprefix(start)}" if name.startswith(start) else name: t for name, t in found.items()}


def _folded(found: Tensors, shapes: Shapes, notes: list[str]) -> Tensors:
    """A convolution's bias, where the network has none, goes into the mean of the batch norm behind it: that changes nothing."""
    folded = []
    for name in list(found):
        layer, _, what = name.rpartition(".")
        if what != "bias" or name in shapes or f"{layer}.weight" not in shapes:
            continue
        mean = next((key for key in (f"{layer}_bn.running_mean", _norm_behind(layer)) if key in found and key in shapes), None)
        if mean is not None and found[mean].numel() == found[name].numel():
            bias = found.pop(name)
            found[mean] = found[mean] - bias.reshape(found[mean].shape)
            folded.append(name)
    if folded:
        notes.append(f"{len(folded)} biases before a batch norm were subtracted from its mean ({folded[0]} first).")
    return found


def _norm_behind(layer: str) -> str:
    """layer1.0.conv2 has layer1.0.bn2 behind it."""
    return re.sub(r"(^|\.)conv(\d)$", r"\1bn\2", layer) + ".running_mean"


def _reshaped(found: Tensors, shapes: Shapes, notes: list[str]) -> Tensors:
    """Linear weights where the network has a 1x1 convolution, flattened ones where it has a grid, and the reverse."""
    changed = []
    for name, tensor in list(found.items()):
        wanted = shapes.get(name)
        if wanted is None or tensor.shape == wanted or tensor.ndim == len(wanted) or tensor.numel() != math.prod(wanted):
            continue
        is_same_but_for_ones = [side for side in tensor.shape if side > 1] == [side for side in wanted if side > 1]
        if is_same_but_for_ones or tensor.shape[:1] == wanted[:1]:
            found[name] = tensor.reshape(wanted)
            changed.append(name)
    if changed:
        notes.append(f"{len(changed)} weights were reshaped, the numbers in their order ({changed[0]} first).")
    return found


def _one_channel(found: Tensors, shapes: Shapes, notes: list[str]) -> Tensors:
    """Kernels for three colours added up for a network that sees one grey channel, as `grey.one_channel` does."""
    for name, tensor in found.items():
        wanted = shapes.get(name, ())
        if tensor.ndim == 4 and len(wanted) == 4 and (tensor.shape[1], wanted[1]) == (3, 1) and tensor.shape[2:] == wanted[2:]:
            notes.append(f"{name}: its kernels for three colours were added up, because the network sees one grey channel.")
            return {**found, name: tensor.sum(1, keepdim=True)}
    return found


def _aux(found: Tensors, shapes: Shapes, heads: tuple[str, ...], notes: list[str]) -> tuple[Tensors, tuple[str, ...]]:
    """Auxiliary heads that one side lacks: the file's are left out, the network's keep their start."""
    in_file = {name for name in found if name.startswith(_AUX)}
    in_network = [name for name in shapes if name.startswith(_AUX)]
    if in_file and not in_network:
        notes.append(f"{len(in_file)} tensors of auxiliary heads were left out: the network was built without.")
        return {name: tensor for name, tensor in found.items() if name not in in_file}, ()
    if in_network and not in_file:
        notes.append("The file has no auxiliary heads: the network's keep their start. They matter in training only.")
        return found, tuple(name for name in in_network if name not in heads)
    return found, ()

"""Recipe: everything that decides a training, in six groups of plain values.

The defaults live here and nowhere else. The command line is made from these fields by tyro (each is
`--group.field`; the names after `typed` below are what most people know). Every field's comment is its
help text and ends with its unit in brackets.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import re
import sys
import types
import typing
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Suppress, arg

from striate.errors import UserError, nearest
from striate.files import read_json, sha256_bytes, to_json

# Most of a recipe file: a weight for each of 20,000 classes, which a run's own file holds three times, makes half. [bytes]
MOST_BYTES = 4_000_000
# Most levels of nesting: groups, fields, and what a network's own options hold.
MOST_LEVELS = 12


def typed(*names: str, metavar: str | None = None) -> Any:
    """Marks a field with the names that its users know, beside `--group.field`; metavar: what help shows for its value."""
    return arg(aliases=names, metavar=metavar)


@dataclass(frozen=True)
class ModelGroup:
    """The network."""

    # A name of ours, torchvision/NAME, timm/NAME or package.module:function; auto chooses from the data. [name]
    name: Annotated[str, typed("--model")] = "auto"
    # Trained weights to begin with: a file, default (the published set of the network) or the name of a published set. [name]
    weights: Annotated[str | None, typed("--weights", metavar="FILE|default|NAME")] = None
    # A second head that says where the object is, for data with boxes: one box for all classes, or a box for each.
    # Source: Sermanet et al. 2014, section 4.1; Simonyan and Zisserman 2015, appendix A. [name]
    boxes: Annotated[Literal["none", "shared", "per-class"], typed("--boxes")] = "none"
    # Arguments of the network's builder, typed as --model.options.KEY VALUE. [names and values]
    options: Suppress[dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class DataGroup:
    """The images: how they are read and what the network sees of them."""

    # Side of the square that the network sees; 0 chooses from the images. [px]
    size_px: Annotated[int, typed("--img-size")] = 0
    # In evaluation: centre crop of the resized image, or both sides forced to size_px. [name]
    fit: Literal["crop", "squash"] = "crop"
    # size_px over the shorter side before the centre crop; 0.875 is 224 of 256.
    # Source: Krizhevsky et al. 2012, section 4.1. [share 0..1]
    crop_share: float = 0.875
    # Antialiased filter for every resize; in evaluation Pillow's, in training as augment.resampler says. [name]
    interpolation: Literal["bilinear", "bicubic", "lanczos", "nearest"] = "bilinear"
    # Pixels minus ImageNet's or this set's mean over its deviation; minus its mean only (0..255); divided by 255; or as the
    # weights of --weights were trained with. auto: as the weights, without any as imagenet. [name]
    normalise: Literal["auto", "imagenet", "dataset", "dataset-mean", "divide", "weights"] = "auto"
    # Images are first reduced so that the shorter side is at most this, in memory and in every path; 0 keeps them. [px]
    shrink_px: int = 0
    # Decode once and keep the pixels in memory and in the cache; auto does so for a set that fits. Changes no number. [name]
    resident: Literal["auto", "yes", "no"] = "auto"
    # Whether EXIF orientation is applied; auto: off for ILSVRC and Tiny ImageNet, on for other photos. [name]
    exif: Literal["auto", "on", "off"] = "auto"
    # What an undecodable image does: stop the run, or drop out of its batch. [name]
    on_bad: Literal["fail", "skip"] = "fail"
    # With on_bad skip: how many images of a split may be bad before the run stops. [share 0..1]
    bad_share: float = 0.001
    # Share of each class that is held out where the data has no validation set. [share 0..1]
    val_share: float = 0.1
    # Three channels, a grey photo as three equal ones; or one grey channel, for a network that sees no colour. [name]
    colour: Literal["rgb", "grey"] = "rgb"
    # Every image once an epoch; every class equally often, the images of small classes repeated; or a bootstrap sample, drawn
    # once with replacement by the seed, which leaves out about 37 % of the images. Source: Breiman 1996, section 1. [name]
    sampling: Literal["images", "classes", "bootstrap"] = "images"
    # All images shuffled; or by blocks of neighbours, shuffled within a window, for sets larger than memory on slow disks. [name]
    order: Literal["images", "blocks"] = "images"


@dataclass(frozen=True)
class AugmentGroup:
    """What training does to each image, as a pure function of seed, epoch and image."""

    # Random area and aspect; a random square of the resized photo; both sides forced to size_px; or a random shift. [name]
    crop: Literal["random-resized", "random", "resize", "shift"] = "random-resized"
    # Area of the random crop, least and most. Source: Szegedy et al. 2015, section 6. [share 0..1]
    scale: tuple[float, float] = (0.08, 1.0)
    # Width over height of the random crop, least and most. Source: Szegedy et al. 2015, section 6. [1]
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    # With crop random: the shorter side before the crop, drawn from least to most each time; 0 0: size_px / data.crop_share.
    # Source: Krizhevsky et al. 2012, section 4.1 (256 256); Simonyan and Zisserman 2015, section 3.1 (256 512). [px]
    shorter_px: tuple[int, int] = (0, 0)
    # With crop shift: most pixels moved in each direction, the border repeated black. Source: He et al. 2016, section 4.2. [px]
    shift_px: int = 4
    # Probability of a left-right mirror image. Source: Krizhevsky et al. 2012, section 4.1. [share 0..1]
    flip: float = 0.5
    # Most degrees turned in either direction. [degrees]
    rotate: float = 0.0
    # Most that the image moves, as a share of its side, in each direction. [share 0..1]
    translate: float = 0.0
    # Most degrees of horizontal shear in either direction. [degrees]
    shear: float = 0.0
    # Factors of brightness, contrast and saturation are drawn from 1 - this to 1 + this. [1]
    brightness: float = 0.0
    # As brightness. [1]
    contrast: float = 0.0
    # As brightness. [1]
    saturation: float = 0.0
    # Most that the hue turns in either direction, as a share of the full circle. [share 0..0.5]
    hue: float = 0.0
    # Deviation of the colour shift along the principal axes of pixel colours; 0.1 in the paper.
    # Source: Krizhevsky et al. 2012, section 4.1. [1]
    lighting: float = 0.0
    # Whose pixel colours the axes are of. [name]
    lighting_from: Literal["imagenet", "dataset"] = "imagenet"
    # With lighting_from dataset, measured at the start: each axis times its variance, nine numbers, axis by axis. [0..1 squared]
    lighting_axes: tuple[float, ...] = ()
    # Random operations on top, torchvision's set. Source: Cubuk et al. 2020; Mueller and Hutter 2021. [name]
    policy: Literal["none", "randaugment", "trivialaugment"] = "none"
    # With policy randaugment: operations for each image. Source: Cubuk et al. 2020, section 3. [operations]
    policy_operations: int = 2
    # With policy randaugment: strength of each operation, of 30. Source: Cubuk et al. 2020, section 3. [0..30]
    policy_magnitude: int = 9
    # Probability that a random rectangle is erased, to noise. Source: Zhong et al. 2020, section 3. [share 0..1]
    erase: float = 0.0
    # Area of the erased rectangle, least and most. Source: Zhong et al. 2020, section 3. [share 0..1]
    erase_area: tuple[float, float] = (0.02, 0.33)
    # Height over width of the erased rectangle, least and most. Source: Zhong et al. 2020, section 3. [1]
    erase_ratio: tuple[float, float] = (0.3, 3.3)
    # Side of a square set to the mean colour at a random place; 0 for none. Source: DeVries and Taylor 2017, section 3. [px]
    cutout_px: int = 0
    # Two images blended: alpha of the Beta distribution of the share; 0 for none. Source: Zhang et al. 2018, section 2. [1]
    mixup: float = 0.0
    # A rectangle of one image pasted into another: alpha of the Beta distribution. Source: Yun et al. 2019, section 3. [1]
    cutmix: float = 0.0
    # Share of the batches that mixup or cutmix is applied to; with both set, each takes half of them. [share 0..1]
    mix_share: float = 1.0
    # Image by image, the reference; or in batches on the device, for images in memory: with resampler pillow the same pixels.
    # auto: in batches on a GPU, else image by image. [name]
    execution: Literal["auto", "per-image", "batched"] = "auto"
    # Who resizes training images; evaluation is always Pillow's. torch and opencv take a fraction of its time, on average less
    # than a level of 255 away.
    # auto: the fastest there is; pillow in batches. [name]
    resampler: Literal["auto", "pillow", "torch", "opencv"] = "auto"


@dataclass(frozen=True)
class LossGroup:
    """What is minimised."""

    # Label smoothing: weight of the uniform distribution in the target. Source: Szegedy et al. 2016, section 7. [share 0..1]
    smoothing: float = 0.0
    # Weight of each auxiliary head's loss beside the main one. Source: Szegedy et al. 2015, section 5. [1]
    aux_weight: float = 0.3
    # Added to the loss: this times the sum of squares of the weights of l2_layers (Keras' kernel_regularizer). [1]
    l2: float = 0.0
    # Layers whose weight the l2 term counts, by name. [layer names]
    l2_layers: tuple[str, ...] = ()
    # Weight of each class in the cross-entropy, in the order of classes.json; none: all equal. [1]
    class_weights: tuple[float, ...] = ()
    # Weighs each class by images / (classes * its images), so that small classes count as much as large ones. [yes or no]
    balance: bool = False
    # With model.boxes: what a box is judged by. l2: squared differences of centre and sides, as VGG; giou: 5 times their absolute
    # differences of the edges plus 2 times 1 - generalised IoU. Source: Simonyan and Zisserman 2015, appendix A;
    # Rezatofighi et al. 2019, section 3; Carion et al. 2020, appendix A.4 (the two weights). [name]
    box: Literal["giou", "l2"] = "giou"
    # With model.boxes: weight of the box loss beside that of the classes. [1]
    box_weight: float = 1.0


@dataclass(frozen=True)
class OptimGroup:
    """How it is minimised."""

    # The optimiser. [name]
    name: Annotated[Literal["sgd", "sgd-alexnet", "rmsprop", "adam", "adamw", "lars", "lamb"], typed("--optimizer")] = "sgd"
    # Peak learning rate for the whole batch. [1/step]
    lr: Annotated[float, typed("--lr")] = 0.1
    # Whether lr grows with the batch: times batch_size / lr_batch_size, or its square root; the result is printed.
    # Source: Goyal et al. 2017, section 2.1 (linear); Krizhevsky 2014, section 5 (square root). [name]
    lr_scaling: Literal["none", "linear", "square-root"] = "none"
    # With lr_scaling: the batch that lr is stated for. [images]
    lr_batch_size: int = 256
    # Images per optimiser step, over all processes and micro-batches. [images]
    batch_size: Annotated[int, typed("--batch-size", "-b")] = 128
    # Micro-batches that a batch is computed in; their gradients are added before the step. [micro-batches]
    accumulate: int = 1
    # Of SGD, RMSprop and LARS. Source: Krizhevsky et al. 2012, section 5. [share 0..1]
    momentum: float = 0.9
    # Nesterov's form of SGD's momentum. [yes or no]
    nesterov: bool = False
    # Of Adam, AdamW and LAMB. Source: Kingma and Ba 2015, algorithm 1. [share 0..1]
    betas: tuple[float, float] = (0.9, 0.999)
    # Of RMSprop, Adam, AdamW and LAMB. Source: Kingma and Ba 2015, algorithm 1. [1]
    eps: float = 1e-8
    # Of RMSprop: decay of the mean square of the gradient. Source: Szegedy et al. 2016, section 8. [share 0..1]
    rms_decay: float = 0.9
    # Of LARS: size of a layer's step over the norm of its weights. Source: You et al. 2017, section 4. [1]
    trust: float = 0.001
    # Added to the gradient (sgd, rmsprop, adam), inside the update (sgd-alexnet, lars, lamb), or applied apart (adamw). [1]
    weight_decay: Annotated[float, typed("--weight-decay", "--wd")] = 1e-4
    # Whether biases and normalisation layers decay too. [yes or no]
    decay_all: bool = True
    # How the learning rate falls; cosine, cosine-cycles and polynomial end with the budget, the others keep their rule. [name]
    schedule: Annotated[
        Literal[
            "constant",
            "step",
            "plateau",
            "exponential",
            "inverse-time",
            "polynomial",
            "cosine",
            "cosine-restarts",
            "cosine-cycles",
        ],
        typed("--schedule"),
    ] = "cosine"
    # Linear rise to the peak; with --for at most a tenth of the plan. Source: Goyal et al. 2017, section 2.2. [epochs]
    warmup_epochs: Annotated[float, typed("--warmup-epochs")] = 0.0
    # With schedule step: when the rate is multiplied by drop_factor. [epochs]
    drop_epochs: tuple[float, ...] = (30.0, 60.0, 80.0)
    # With schedule step and plateau: what each drop multiplies the rate by. [share 0..1]
    drop_factor: float = 0.1
    # With schedule plateau: evaluations without a better top-1 before the rate drops. [evaluations]
    plateau: int = 3
    # With schedule exponential: what the rate is multiplied by every decay_epochs.
    # Source: Szegedy et al. 2016, section 8. [share 0..1]
    decay_factor: float = 0.94
    # With schedule exponential: see decay_factor. [epochs]
    decay_epochs: float = 2.0
    # With schedule polynomial: rate = lr * (1 - progress) ** power; 1 is a straight line. [1]
    power: float = 1.0
    # With schedule cosine-restarts: length of the first cycle. Source: Loshchilov and Hutter 2017, section 3. [epochs]
    restart_epochs: float = 10.0
    # With schedule cosine-restarts: length of each cycle over the one before. Source: Loshchilov and Hutter 2017, section 3. [1]
    restart_factor: float = 2.0
    # With schedule cosine-cycles: equal cycles that the budget is cut into; the network at the end of each is kept as a snapshot,
    # and they answer together. Source: Huang et al. 2017 (snapshot ensembles), section 3, equation 2. [cycles]
    cycles: Annotated[int, typed("--cycles")] = 5
    # With schedule inverse-time: rate = lr / (1 + inverse_decay * step), Keras' `decay`. [1/step]
    inverse_decay: float = 0.0
    # With the schedules cosine, cosine-restarts, cosine-cycles and polynomial: the last rate over the peak.
    # Source: Loshchilov and Hutter 2017, equation 5. [share 0..1]
    final_lr: float = 0.0
    # Gradients are scaled down to this norm; 0 leaves them. [1]
    clip_norm: float = 0.0
    # After each step, filters of a convolution with a larger root mean square are scaled down to it; 0 leaves them.
    # Source: Zeiler and Fergus 2014, section 3.1. [1]
    filter_rms: float = 0.0
    # What keeps its weights: none; the backbone, which is all but the heads; the classifier, which is all but the box head; or
    # until:LAYER, that layer and all before it. [name]
    freeze: Annotated[str, typed("--freeze", metavar="none|backbone|classifier|until:LAYER")] = "none"
    # Rate of the head, the layer that the classes come from, over lr. [1]
    head_lr: Annotated[float, typed("--head-lr")] = 1.0
    # Rate of each layer over that of the layer behind it, from the head to the first one; 1 gives all the same.
    # Source: Howard and Ruder 2018, section 3.2 (with 1 / 2.6). [share 0..1]
    layer_decay: Annotated[float, typed("--layer-decay")] = 1.0
    # Decay of the moving average of the weights, warmed up; 0 keeps none. [share 0..1]
    ema: Annotated[float, typed("--ema")] = 0.0
    # Share of the budget after which the plain mean of the weights is kept (SWA), batch norm's statistics measured anew; 0 never.
    # Until there the schedule runs from lr to swa_lr, and stays. Source: Izmailov et al. 2018, section 3. [share 0..1]
    swa_from: float = 0.0
    # With swa_from: how often the weights enter the mean. [epochs]
    swa_epochs: float = 1.0
    # With swa_from: the rate from there on, over the peak. Source: Izmailov et al. 2018, appendix A.1. [share 0..1]
    swa_lr: float = 0.5
    # Of the forward and backward pass; auto takes what this machine multiplies fast. [name]
    precision: Annotated[Literal["auto", "bf16", "fp16", "fp32"], typed("--precision")] = "auto"
    # Memory order of images and weights; faster on most machines. [yes or no]
    channels_last: bool = True
    # torch.compile of the training step; slower at the start, and on CPUs often throughout. [yes or no]
    compile: Annotated[bool, typed("--compile")] = False
    # Same command, same machine, same bits; off may be faster and says so. [yes or no]
    deterministic: Annotated[bool, typed("--deterministic")] = True
    # Of initial weights, order, augmentation and dropout. [1]
    seed: Annotated[int, typed("--seed")] = 0
    # Non-finite steps in a row that are skipped before the run stops with exit code 5. [steps]
    max_skips: int = 10


@dataclass(frozen=True)
class BudgetGroup:
    """How long: exactly one of epochs, steps and time."""

    # Passes over the training set. [epochs]
    epochs: Annotated[float | None, typed("--epochs", metavar="N")] = 30.0
    # Optimiser steps. [steps]
    steps: Annotated[int | None, typed("--steps", metavar="N")] = None
    # Training time over all sittings, as 90s, 15m, 2h or 1h30m: from the first batch to the final save. [s, m, h]
    time: Annotated[str | None, typed("--for", metavar="TIME")] = None
    # Ends the training after this many evaluations without a better top-1; 0 never. [evaluations]
    patience: Annotated[int, typed("--patience")] = 0
    # How often the validation set is scored; with --for seldom enough to take at most a tenth of the time. [epochs]
    evaluate_epochs: float = 1.0
    # Time between checkpoints; there is one at each evaluation as well. [s]
    save_every_s: float = 600.0
    # Steps between two records of loss, norms and speed. [steps]
    log_every: int = 50


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training. Two recipes that are equal give the same bits on the same machine."""

    model: ModelGroup = field(default_factory=ModelGroup)
    data: DataGroup = field(default_factory=DataGroup)
    augment: AugmentGroup = field(default_factory=AugmentGroup)
    loss: LossGroup = field(default_factory=LossGroup)
    optim: OptimGroup = field(default_factory=OptimGroup)
    budget: BudgetGroup = field(default_factory=BudgetGroup)

    @property
    def hash(self) -> str:
        """SHA-256 of the recipe's JSON, 64 hex digits."""
        return sha256_bytes(json.dumps(to_plain(self), sort_keys=True).encode())


GROUPS: dict[str, type] = {
    "model": ModelGroup,
    "data": DataGroup,
    "augment": AugmentGroup,
    "loss": LossGroup,
    "optim": OptimGroup,
    "budget": BudgetGroup,
}


def field_names() -> list[str]:
    """Every field as "group.field", in order."""
    return [f"{group}.{one.name}" for group, kind in GROUPS.items() for one in fields(kind)]


def short_names() -> dict[str, str]:
    """The names that users know, without dashes, to "group.field": {"lr": "optim.lr", …}."""
    short = {}
    for group, kind in GROUPS.items():
        hints = typing.get_type_hints(kind, include_extras=True)
        for one in fields(kind):
            for note in getattr(hints[one.name], "__metadata__", ()):
                for alias in getattr(note, "aliases", None) or ():
                    short[alias.lstrip("-")] = f"{group}.{one.name}"
    return short


def full_name(name: str) -> str:
    """ "group.field" for any way to name a field: "lr", "batch_size", "optim.lr".

    Raises UserError naming the nearest fields when there is none.
    """
    plain = name.lstrip("-").replace("-", "_")
    short = {key.replace("-", "_"): value for key, value in short_names().items()}
    if plain in short:
        return short[plain]
    known = field_names()
    if plain in known or plain.startswith("model.options."):
        return plain
    raise UserError(f"Recipe has no field '{name}'.{nearest(plain, [*known, *short])}")


def get(recipe: Recipe, name: str) -> Any:
    """The value of the field "group.field"."""
    group, _, inner = name.partition(".")
    if name.startswith("model.options."):
        return recipe.model.options.get(name.removeprefix("model.options."))
    return getattr(getattr(recipe, group), inner)


def change(recipe: Recipe, changes: dict[str, Any]) -> Recipe:
    """A copy with some fields changed: {"optim.lr": 0.1, "epochs": 3}.

    A budget (epochs, steps or time) replaces the recipe's own. Values are converted to the field's type.
    Raises UserError for an unknown field or a value of the wrong type.
    """
    named = {full_name(name): value for name, value in changes.items()}
    limits = [name for name in ("budget.epochs", "budget.steps", "budget.time") if named.get(name) is not None]
    if len(limits) > 1:
        raise UserError(f"{' and '.join(limits)} contradict each other: give one of --epochs, --steps and --for.")
    if limits:
        named |= {name: None for name in ("budget.epochs", "budget.steps", "budget.time") if name not in limits}
    groups: dict[str, dict[str, Any]] = {}
    for name, value in named.items():
        group, _, inner = name.partition(".")
        if inner.startswith("options."):
            options = groups.setdefault("model", {}).setdefault("options", dict(recipe.model.options))
            options[inner.removeprefix("options.")] = value
        else:
            groups.setdefault(group, {})[inner] = _converted(value, GROUPS[group], inner)
    parts: dict[str, Any] = {group: replace(getattr(recipe, group), **inner) for group, inner in groups.items()}
    return replace(recipe, **parts)


def _converted(value: Any, kind: type, name: str) -> Any:
    """`value` as the type of field `name` of group `kind`; JSON lists become tuples, whole numbers become floats."""
    hint = _hints(kind)[name]
    where = f"{next(group for group, one in GROUPS.items() if one is kind)}.{name}"
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    for option in options:
        origin = typing.get_origin(option)
        if option is types.NoneType and value is None:
            return None
        if origin is Literal and value in typing.get_args(option):
            return value
        if origin is tuple and isinstance(value, (list, tuple)):
            inner = [part for part in typing.get_args(option) if part is not Ellipsis]
            if Ellipsis not in typing.get_args(option) and len(value) != len(inner):
                break
            if inner[0] is float and all(_is_number(part) for part in value):
                return tuple(float(part) for part in value)
            if inner[0] is int and all(_is_number(part) and float(part).is_integer() for part in value):
                return tuple(int(part) for part in value)
            if inner[0] is str and all(isinstance(part, str) for part in value):
                return tuple(value)
        if origin is dict and isinstance(value, dict):
            return dict(value)
        if option is bool and isinstance(value, bool):
            return value
        if option is float and _is_number(value):
            return float(value)
        if option is int and _is_number(value) and float(value).is_integer():
            return int(value)
        if option is str and isinstance(value, str):
            return value
    wanted = " or ".join(_type_words(option) for option in options)
    choices = [str(choice) for option in options if typing.get_origin(option) is Literal for choice in typing.get_args(option)]
    hint_text = nearest(value, choices) if isinstance(value, str) and choices else ""
    raise UserError(f"{where}: expected {wanted}, found {_short(repr(value))}.{hint_text}")


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _is_number(value: Any) -> bool:
    """Whether it is a number that a float can hold (a file may say 1 with 400 zeros), not true or false."""
    if isinstance(value, bool) or (isinstance(value, int) and abs(value) > sys.float_info.max):
        return False
    return isinstance(value, (int, float))


def _type_words(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, typing.get_args(hint)))
    if typing.get_origin(hint) is tuple:
        return "a list of " + ("texts" if typing.get_args(hint)[0] is str else "numbers")
    return {int: "a whole number", float: "a number", str: "a text", bool: "true or false", dict: "a table"}.get(hint, "null")


# ---------------------------------------------------------------- checks


def check(recipe: Recipe) -> Recipe:
    """Returns the recipe if its values make sense. Raises UserError naming the field, the value and what is allowed."""
    optim, data, loss, budget = recipe.optim, recipe.data, recipe.loss, recipe.budget
    for name in field_names():
        for value in _numbers(get(recipe, name)):
            if not math.isfinite(value):
                raise UserError(f"{name}: {value} is not a finite number.")
    _require(optim.lr > 0, "optim.lr", optim.lr, "more than 0")
    _require(optim.batch_size >= 1, "optim.batch_size", optim.batch_size, "1 or more")
    _require(optim.accumulate >= 1, "optim.accumulate", optim.accumulate, "1 or more")
    _require(
        optim.batch_size % optim.accumulate == 0,
        "optim.accumulate",
        optim.accumulate,
        f"a divisor of the batch size {optim.batch_size}",
    )
    _require(0 <= optim.momentum < 1, "optim.momentum", optim.momentum, "at least 0 and below 1")
    _require(not optim.nesterov or optim.momentum > 0, "optim.nesterov", True, "used with a momentum above 0")
    _require(all(0 <= beta < 1 for beta in optim.betas), "optim.betas", optim.betas, "at least 0 and below 1")
    _require(optim.eps > 0, "optim.eps", optim.eps, "more than 0")
    _require(optim.weight_decay >= 0, "optim.weight_decay", optim.weight_decay, "0 or more")
    _require(optim.warmup_epochs >= 0, "optim.warmup_epochs", optim.warmup_epochs, "0 or more")
    _require(optim.lr_batch_size >= 1, "optim.lr_batch_size", optim.lr_batch_size, "1 or more")
    _require(0 <= optim.rms_decay < 1, "optim.rms_decay", optim.rms_decay, "at least 0 and below 1")
    _require(optim.trust > 0, "optim.trust", optim.trust, "more than 0")
    _require(0 < optim.drop_factor <= 1, "optim.drop_factor", optim.drop_factor, "above 0 and at most 1")
    _require(optim.plateau >= 1, "optim.plateau", optim.plateau, "1 or more")
    _require(0 < optim.decay_factor <= 1, "optim.decay_factor", optim.decay_factor, "above 0 and at most 1")
    _require(optim.decay_epochs > 0, "optim.decay_epochs", optim.decay_epochs, "more than 0")
    _require(optim.power > 0, "optim.power", optim.power, "more than 0")
    _require(optim.restart_epochs > 0, "optim.restart_epochs", optim.restart_epochs, "more than 0")
    _require(optim.restart_factor >= 1, "optim.restart_factor", optim.restart_factor, "1 or more")
    _require(list(optim.drop_epochs) == sorted(optim.drop_epochs), "optim.drop_epochs", optim.drop_epochs, "in rising order")
    _require(optim.inverse_decay >= 0, "optim.inverse_decay", optim.inverse_decay, "0 or more")
    _require(0 <= optim.final_lr <= 1, "optim.final_lr", optim.final_lr, "between 0 and 1")
    _require(optim.clip_norm >= 0, "optim.clip_norm", optim.clip_norm, "0 or more")
    _require(optim.filter_rms >= 0, "optim.filter_rms", optim.filter_rms, "0 or more")
    freezes = optim.freeze in ("none", "backbone", "classifier") or optim.freeze.removeprefix("until:") not in ("", optim.freeze)
    _require(freezes, "optim.freeze", optim.freeze, "none, backbone, classifier or until:LAYER")
    _check_boxes(recipe)
    _require(optim.head_lr > 0, "optim.head_lr", optim.head_lr, "more than 0")
    _require(0 < optim.layer_decay <= 1, "optim.layer_decay", optim.layer_decay, "above 0 and at most 1")
    _require(0 <= optim.ema < 1, "optim.ema", optim.ema, "at least 0 and below 1")
    _require(1 <= optim.cycles <= 100, "optim.cycles", optim.cycles, "between 1 and 100")
    _require(0 <= optim.swa_from < 1, "optim.swa_from", optim.swa_from, "at least 0 and below 1")
    _require(optim.swa_from == 0 or optim.ema == 0, "optim.swa_from", optim.swa_from, "0 where optim.ema keeps another average")
    _require(
        optim.swa_from == 0 or optim.schedule in ("constant", "cosine", "polynomial"),
        "optim.swa_from",
        optim.swa_from,
        f"0 with schedule {optim.schedule}: only constant, cosine and polynomial can end before the budget does",
    )
    _require(optim.swa_epochs > 0, "optim.swa_epochs", optim.swa_epochs, "more than 0")
    _require(0 < optim.swa_lr <= 1, "optim.swa_lr", optim.swa_lr, "above 0 and at most 1")
    _require(optim.max_skips >= 1, "optim.max_skips", optim.max_skips, "1 or more")
    _require(0 <= optim.seed < 2**63, "optim.seed", optim.seed, "between 0 and 2^63 - 1")
    _require(0 <= loss.smoothing < 1, "loss.smoothing", loss.smoothing, "at least 0 and below 1")
    _require(loss.aux_weight >= 0, "loss.aux_weight", loss.aux_weight, "0 or more")
    _require(loss.l2 >= 0, "loss.l2", loss.l2, "0 or more")
    _require(loss.l2 == 0 or bool(loss.l2_layers), "loss.l2_layers", loss.l2_layers, "named when loss.l2 is above 0")
    _require(all(weight >= 0 for weight in loss.class_weights), "loss.class_weights", loss.class_weights, "0 or more, each")
    _require(
        not loss.class_weights or sum(loss.class_weights) > 0, "loss.class_weights", loss.class_weights, "above 0 for some class"
    )
    _require(not (loss.balance and loss.class_weights), "loss.balance", True, "left out where loss.class_weights are given")
    _require(
        not (loss.balance and data.sampling == "classes"),
        "loss.balance",
        True,
        "left out with data.sampling classes, or small classes count twice",
    )
    _require(
        not (data.order == "blocks" and data.sampling != "images"),
        "data.order",
        "blocks",
        f"images with data.sampling {data.sampling}, which takes images from everywhere",
    )
    _require(data.size_px >= 0, "data.size_px", data.size_px, "0 (chosen from the images) or more")
    _require(0 < data.crop_share <= 1, "data.crop_share", data.crop_share, "above 0 and at most 1")
    _require(data.shrink_px >= 0, "data.shrink_px", data.shrink_px, "0 (kept) or more")
    _require(0 <= data.bad_share < 1, "data.bad_share", data.bad_share, "at least 0 and below 1")
    _require(0 < data.val_share < 1, "data.val_share", data.val_share, "above 0 and below 1")
    _check_augment(recipe)
    given = [value for value in (budget.epochs, budget.steps, budget.time) if value is not None]
    _require(len(given) == 1, "budget", given or "nothing", "exactly one of epochs, steps and time")
    _require(budget.epochs is None or budget.epochs > 0, "budget.epochs", budget.epochs, "more than 0")
    _require(budget.steps is None or budget.steps >= 1, "budget.steps", budget.steps, "1 or more")
    _require(budget.time is None or seconds(budget.time) >= 1, "budget.time", budget.time, "at least one second")
    _require(budget.patience >= 0, "budget.patience", budget.patience, "0 (never) or more")
    _require(budget.evaluate_epochs > 0, "budget.evaluate_epochs", budget.evaluate_epochs, "more than 0")
    _require(budget.save_every_s > 0, "budget.save_every_s", budget.save_every_s, "more than 0")
    _require(budget.log_every >= 1, "budget.log_every", budget.log_every, "1 or more")
    return recipe


def _check_boxes(recipe: Recipe) -> None:
    has_boxes = recipe.model.boxes != "none"
    _require(recipe.loss.box_weight > 0, "loss.box_weight", recipe.loss.box_weight, "more than 0")
    _require(
        has_boxes or recipe.optim.freeze != "classifier",
        "optim.freeze",
        "classifier",
        "used with --boxes shared or per-class: without a box head nothing would be left to train",
    )
    _require(
        recipe.optim.freeze != "classifier" or (recipe.budget.patience == 0 and recipe.optim.schedule != "plateau"),
        "optim.freeze",
        "classifier",
        "used without --patience and --schedule plateau: they wait for a better top-1, which a frozen classifier cannot have",
    )
    if has_boxes:
        for name in ("mixup", "cutmix"):
            value = getattr(recipe.augment, name)
            _require(value == 0, f"augment.{name}", value, "0 with model.boxes: a blend of two photos has no one object")
        _require(not recipe.optim.compile, "optim.compile", True, "off with model.boxes, whose head looks inside the network")


def _check_augment(recipe: Recipe) -> None:
    augment = recipe.augment
    _require(0 < augment.scale[0] <= augment.scale[1] <= 1, "augment.scale", augment.scale, "rising, above 0 and at most 1")
    _require(0 < augment.ratio[0] <= augment.ratio[1], "augment.ratio", augment.ratio, "rising and above 0")
    _require(0 <= augment.shorter_px[0] <= augment.shorter_px[1], "augment.shorter_px", augment.shorter_px, "rising, 0 or more")
    _require(
        augment.shorter_px == (0, 0) or augment.shorter_px[0] >= max(1, recipe.data.size_px),
        "augment.shorter_px",
        augment.shorter_px,
        f"0 0, or at least data.size_px ({recipe.data.size_px})",
    )
    _require(augment.shift_px >= 0, "augment.shift_px", augment.shift_px, "0 or more")
    _require(0 <= augment.rotate <= 180, "augment.rotate", augment.rotate, "between 0 and 180 degrees")
    _require(0 <= augment.shear < 90, "augment.shear", augment.shear, "at least 0 and below 90 degrees")
    _require(0 <= augment.hue <= 0.5, "augment.hue", augment.hue, "between 0 and 0.5")
    _require(0 <= augment.policy_magnitude <= 30, "augment.policy_magnitude", augment.policy_magnitude, "between 0 and 30")
    _require(1 <= augment.policy_operations <= 8, "augment.policy_operations", augment.policy_operations, "between 1 and 8")
    _require(len(augment.lighting_axes) in (0, 9), "augment.lighting_axes", augment.lighting_axes, "nine numbers, or none")
    for name in ("flip", "translate", "erase", "mix_share"):
        _require(0 <= getattr(augment, name) <= 1, f"augment.{name}", getattr(augment, name), "between 0 and 1")
    for name in ("brightness", "contrast", "saturation", "lighting", "cutout_px", "mixup", "cutmix"):
        _require(getattr(augment, name) >= 0, f"augment.{name}", getattr(augment, name), "0 or more")
    if augment.mixup > 0 or augment.cutmix > 0:
        _require(augment.mix_share > 0, "augment.mix_share", augment.mix_share, "above 0 with mixup or cutmix")
    low, high = augment.erase_area
    _require(0 < low <= high <= 1, "augment.erase_area", augment.erase_area, "rising, above 0 and at most 1")
    _require(
        0 < augment.erase_ratio[0] <= augment.erase_ratio[1], "augment.erase_ratio", augment.erase_ratio, "rising and above 0"
    )
    if recipe.data.colour == "grey":
        for name in ("saturation", "hue", "lighting"):
            _require(getattr(augment, name) == 0, f"augment.{name}", getattr(augment, name), "0 with data.colour grey")


def _require(holds: bool, name: str, value: Any, wanted: str) -> None:
    if not holds:
        raise UserError(f"{name}: found {value}, but it must be {wanted}.")


def _numbers(value: Any) -> list[float]:
    if isinstance(value, tuple):
        return [part for part in value if isinstance(part, float)]
    if isinstance(value, (dict, list)):
        return [number for part in (value.values() if isinstance(value, dict) else value) for number in _numbers(part)]
    return [value] if isinstance(value, float) else []


def seconds(text: str) -> float:
    """A duration as "90s", "15m", "2h" or "1h30m", in seconds. Raises UserError when it is none."""
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?", text.strip())
    if not text.strip() or match is None:
        raise UserError(f"'{text}' is no duration: write it as 90s, 15m, 2h or 1h30m.")
    hours, minutes, rest = (float(part) if part else 0.0 for part in match.groups())
    return hours * 3600 + minutes * 60 + rest


# ---------------------------------------------------------------- reading and writing


def to_plain(recipe: Recipe) -> dict[str, Any]:
    """The recipe as nested dicts of JSON values, every field present."""
    return dataclasses.asdict(recipe)


def from_plain(plain: dict[str, Any], where: str = "recipe") -> Recipe:
    """The recipe of nested dicts; absent fields take their defaults, keys that start with "_" are comments.

    Raises UserError naming an unknown group or field with the nearest names, or a value of the wrong type.
    """
    if not isinstance(plain, dict):
        raise UserError(f"{where}: expected a table of groups ({', '.join(GROUPS)}), found {type(plain).__name__}.")
    parts: dict[str, Any] = {}
    for group, values in plain.items():
        if group.startswith("_"):
            continue
        if group not in GROUPS:
            raise UserError(f"{where}: no group '{_short(group)}'.{nearest(group, GROUPS)} The groups are {', '.join(GROUPS)}.")
        if not isinstance(values, dict):
            raise UserError(f"{where}: group '{group}' must be a table of fields.")
        known = [one.name for one in fields(GROUPS[group])]
        for name in values:
            if name not in known:
                raise UserError(f"{where}: group '{group}' has no field '{_short(name)}'.{nearest(name, known)}")
        if group == "budget" and any(values.get(name) is not None for name in ("steps", "time")):
            values = {"epochs": None, **values}
        parts[group] = GROUPS[group](**{name: _converted(value, GROUPS[group], name) for name, value in values.items()})
    return Recipe(**parts)


def read(path: Path) -> Recipe:
    """Reads a recipe file, such as the resolved `recipe.json` of a run.

    Raises UserError for a mistake in it, and for a file that is larger or nested deeper than any recipe.
    """
    if path.is_file() and path.stat().st_size > MOST_BYTES:
        raise UserError(f"{path}: {path.stat().st_size / 1e6:.0f} MB are no recipe; one has some kB.")
    plain = read_json(path)
    if _is_deeper(plain, MOST_LEVELS):
        raise UserError(f"{path}: nested deeper than {MOST_LEVELS} levels; a recipe is a table of groups of fields.")
    return check(from_plain(plain, where=str(path)))


def _is_deeper(value: Any, levels: int) -> bool:
    """Whether lists and tables in it are nested deeper than so many levels."""
    if not isinstance(value, (dict, list)):
        return False
    return levels == 0 or any(_is_deeper(one, levels - 1) for one in (value.values() if isinstance(value, dict) else value))


def _short(text: str) -> str:
    """Text of a stranger's file for a message."""
    return text if len(text) <= 200 else text[:200] + "…"


def to_text(recipe: Recipe) -> str:
    """The recipe as the text of `recipe.json`."""
    return to_json(to_plain(recipe))


def differences(old: Recipe, new: Recipe) -> dict[str, tuple[Any, Any]]:
    """Fields that differ, as {"group.field": (old, new)}; builder options one by one."""
    names = [name for name in field_names() if name != "model.options"]
    names += [f"model.options.{key}" for key in sorted({*old.model.options, *new.model.options})]
    return {name: (get(old, name), get(new, name)) for name in names if get(old, name) != get(new, name)}

"""More cases that were planted by somebody who knew the list of illnesses and none of the rules, and that have been read since.

The third set; see `doctor_cases_seen`. Every ill case is sane but for the one thing that its `why` names; the healthy ones
look ill and learn. `doctor_logs/seen_3/README.md` says how the recorded runs were made.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from doctor_bench import LOGS, Before, Bench, Case, During, Examined, Recorded
from doctor_setups import (
    QUICK,
    SGD,
    K,
    Normalising,
    PlainNet,
    adam_for,
    batches,
    built,
    centred,
    classes,
    normalised_pixels,
    photos,
    scored,
    sgd_for,
    shuffled,
    train_briefly,
    usual,
)
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

SEEN = LOGS / "seen_3"
# A network of another name takes none of the options of the quick one.
PLAIN: dict[str, Any] = {"model.options": {}}


# ---------------------------------------------------------------- networks and loaders of a stranger


class TwoTowers(nn.Module):
    """A deep tower and a narrow one whose features are meant to be joined; forward() returns those of the narrow one."""

    def __init__(self) -> None:
        super().__init__()
        self.deep = nn.Sequential(*list(PlainNet((32, 32, 64, 64, 128), nn.BatchNorm2d))[:-1])
        self.narrow = nn.Sequential(*list(PlainNet((4, 8), nn.BatchNorm2d))[:-1])
        self.classes = nn.Linear(8, K)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """images: [B, 3, H, W] normalised. Returns logits [B, K]."""
        logits: torch.Tensor = self.classes(self.narrow(images))
        return logits


class OwnStandardising(nn.Module):
    """Each channel of each image less its mean over its deviation, written by hand, with an epsilon of 1e-8.

    half: in 16 bits, where this epsilon is 0.
    """

    def __init__(self, half: bool) -> None:
        super().__init__()
        self.half_numbers = half

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [B, C, H, W]. Returns the same shape."""
        values = x.half() if self.half_numbers else x
        mean = values.mean((2, 3), keepdim=True)
        variance = (values - mean).pow(2).mean((2, 3), keepdim=True)
        return ((values - mean) / (variance + 1e-8).sqrt()).float()


class FirstAlways(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Each label with the first image: the index was forgotten where the image is read."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.images[0], self.labels[index]


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    os.symlink(source.resolve(), target)


def _files(folder: Path, split: str, name: str) -> list[Path]:
    return sorted((folder / split / name).iterdir())


# ---------------------------------------------------------------- examined: what enters the network


def normalised_in_the_loop_as_well(bench: Bench) -> Examined:
    """The transform of the data set normalises, and the training loop and the scoring loop do so again."""
    images, labels = photos(bench.builtin, "train", 32, 40)
    val_images, val_labels = photos(bench.builtin, "val", 32, 10)
    torch.manual_seed(0)
    model = PlainNet((24, 24, 48, 48, 64))
    options = {
        "val_loader": batches(centred(normalised_pixels(val_images)), val_labels),
        "optimizer": sgd_for(model, 0.02),
    }
    return Examined(model, shuffled(centred(normalised_pixels(images)), labels), options)


def bytes_for_a_wrapped_network(bench: Bench) -> Examined:
    """The network wants 0..1 and normalises for itself; the loader turns bytes into floats without dividing."""
    model = Normalising(built("alexnet", {"width": 48, "init": "he"}))
    images, labels = photos(bench.tiny, "train", 64, 40)
    val_images, val_labels = photos(bench.tiny, "val", 64, 10)
    options = {"val_loader": batches(val_images.float(), val_labels), "optimizer": sgd_for(model, 0.01)}
    return Examined(model, shuffled(images.float(), labels), options)


def scored_by_another_reader(bench: Bench) -> Examined:
    """A trained network; validation images are read by a library that puts blue first, and are normalised as if red was."""
    model = built("resnet18", {"width": 24})
    loader = usual(bench.tiny, 48, 100)
    train_briefly(model, loader, 150, 0.002)
    images, labels = photos(bench.tiny, "val", 48, 25)
    options = {"val_loader": batches(normalised_pixels(images.flip(1)), labels), "optimizer": adam_for(model, 3e-4)}
    return Examined(model, loader, options)


def first_image_always(bench: Bench) -> Examined:
    """The data set reads its first image for every index, with the label of the index."""
    model = built("resnet34", {"width": 16})
    images, labels = photos(bench.builtin, "train", 48, 40)
    loader = DataLoader(
        FirstAlways(normalised_pixels(images), labels),
        32,
        shuffle=True,
        drop_last=True,
        generator=torch.Generator().manual_seed(1),
    )
    return Examined(model, loader, {"val_loader": scored(bench.builtin, 48), "optimizer": adam_for(model)})


def counted_from_one(bench: Bench) -> Examined:
    """Labels out of a table that counts from 1, in training and in validation, for a network of twelve outputs."""
    model = built("torchvision/shufflenet_v2_x0_5")
    images, labels = photos(bench.tiny, "train", 48, 40)
    val_images, val_labels = photos(bench.tiny, "val", 48, 10)
    options = {"val_loader": batches(normalised_pixels(val_images), val_labels + 1), "optimizer": adam_for(model)}
    return Examined(model, shuffled(normalised_pixels(images), labels + 1), options)


def no_data_stripes(bench: Bench) -> Examined:
    """Three images of 480 have a stripe of -9999, as tiles from a satellite have where nothing was measured."""
    model = built("torchvision/mobilenet_v2")
    images, labels = photos(bench.tiny, "train", 48, 40)
    pixels = normalised_pixels(images)
    pixels[[37, 190, 402], :, :, 30:] = -9999.0
    return Examined(model, batches(pixels, labels), {"val_loader": scored(bench.tiny, 48), "optimizer": adam_for(model)})


# ---------------------------------------------------------------- examined: the network


def biases_of_a_gate(bench: Bench) -> Examined:
    """Tanh without normalisation; biases of 5, which somebody wants for the gates of a recurrent network, in every layer."""
    torch.manual_seed(0)
    model = PlainNet((24, 24, 48, 64), None, nn.Tanh)
    for layer in model:
        if isinstance(layer, nn.Conv2d):
            nn.init.xavier_normal_(layer.weight)
            assert layer.bias is not None
            nn.init.constant_(layer.bias, 5.0)
    options = {"val_loader": scored(bench.tiny, 32), "optimizer": adam_for(model)}
    return Examined(model, usual(bench.tiny, 32), options)


def standard_normal_weights(bench: Bench) -> Examined:
    """All weights of a network without normalisation drawn by `normal_` with its default deviation of 1."""
    model = built("torchvision/squeezenet1_1")
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight)
    options = {"val_loader": scored(bench.builtin, 64), "optimizer": adam_for(model, 3e-4)}
    return Examined(model, usual(bench.builtin, 64), options)


def forgotten_tower(bench: Bench) -> Examined:
    """The deep one of two towers is built and given to the optimiser, and forward() never calls it."""
    torch.manual_seed(0)
    model = TwoTowers()
    options = {"val_loader": scored(bench.builtin, 32), "optimizer": adam_for(model)}
    return Examined(model, usual(bench.builtin, 32), options)


def averaged_without_buffers(bench: Bench) -> Examined:
    """Trained weights were copied into a fresh network parameter by parameter, so the batch norms' statistics stayed behind."""
    model = built("resnet18", {"width": 16})
    fresh = copy.deepcopy(model)
    loader = usual(bench.builtin, 48, 80)
    train_briefly(model, loader, 240, 0.002)
    for target, source in zip(fresh.parameters(), model.parameters(), strict=True):
        target.data.copy_(source.data)
    options = {"val_loader": scored(bench.builtin, 48, 25), "optimizer": adam_for(fresh, 1e-4)}
    return Examined(fresh, loader, options)


def epsilon_of_zero(bench: Bench) -> Examined:
    """Channels are standardised in 16 bits with an epsilon of 1e-8, which is 0 there: a channel of zeros is 0 / 0."""
    torch.manual_seed(0)
    model = nn.Sequential(*list(PlainNet((24, 24, 48, 48, 64), nn.BatchNorm2d))[:-3])
    model.extend([OwnStandardising(half=True), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU()])
    model.extend([nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, K)])
    options = {"val_loader": scored(bench.tiny, 32), "optimizer": adam_for(model)}
    return Examined(model, usual(bench.tiny, 32), options)


# ---------------------------------------------------------------- before the training


def stamps(bench: Bench) -> Before:
    """MobileNetV3 on photos of 16 px, of which its five strides leave one value a channel for most of its layers."""
    changes = {"model.name": "torchvision/mobilenet_v3_small", "data.size_px": 16, "data.shrink_px": 20}
    return Before(bench.builtin, "small", {**QUICK, **PLAIN, **changes, "budget.epochs": 30.0})


def rate_of_sgd_for_rmsprop(bench: Bench) -> Before:
    """RMSprop, whose step does not depend on the size of the gradient, with SGD's rate of 0.1."""
    changes = {
        "model.name": "timm/regnetx_002",
        "data.size_px": 64,
        "data.shrink_px": 0,
        "optim.name": "rmsprop",
        "optim.lr": 0.1,
        "optim.weight_decay": 1e-5,
        "budget.epochs": 30.0,
    }
    return Before(bench.tiny, "small", {**QUICK, **PLAIN, **changes})


def posters(bench: Bench) -> Before:
    """ResNeXt-50 with batches of 256 images of 640 px in one piece."""
    changes = {
        "model.name": "resnext50",
        "data.size_px": 640,
        "data.shrink_px": 720,
        "optim.batch_size": 256,
        "budget.epochs": 90.0,
    }
    return Before(bench.builtin, "small", {**QUICK, **PLAIN, **changes})


def copied_not_moved(bench: Bench) -> Before:
    """The validation images were copied out of the training folders instead of moved."""
    for name in classes(bench.builtin):
        for number, path in enumerate(_files(bench.builtin, "train", name)):
            _link(path, bench.work / "train" / name / path.name)
            if number % 5 == 2:
                _link(path, bench.work / "val" / name / path.name)
    return Before(bench.work, "small", {**QUICK, "budget.epochs": 30.0})


def shifted_out(bench: Bench) -> Before:
    """The shift of up to 4 px in each direction was typed as 44, with images of 48 px."""
    changes = {"model.name": "resnet20", "augment.crop": "shift", "augment.shift_px": 44, "data.fit": "squash"}
    return Before(bench.builtin, "small", {**QUICK, **PLAIN, **changes, "budget.epochs": 30.0})


def shares_for_epochs(bench: Bench) -> Before:
    """The drops of the rate are given as shares of the training, where epochs are expected: three drops in the first epoch."""
    changes = {
        "model.options.width": 24,
        "optim.schedule": "step",
        "optim.drop_epochs": (0.3, 0.6, 0.8),
        "optim.warmup_epochs": 0.0,
        "optim.lr": 0.05,
        "budget.epochs": 40.0,
    }
    return Before(bench.tiny, "small", {**QUICK, **SGD, **changes})


def share_kept_in_the_head(bench: Bench) -> Before:
    """The share of features to keep, 0.99, was given as the share to drop, in front of the layer of the classes."""
    changes = {"model.name": "torchvision/mobilenet_v2", "data.size_px": 64, "data.shrink_px": 0, "budget.epochs": 40.0}
    return Before(bench.tiny, "small", {**QUICK, **changes, "model.options": {"dropout": 0.99}})


def left_from_debugging(bench: Bench) -> Before:
    """A batch of two images, left over from looking for a mistake, with the rate for 128 of them."""
    changes = {"model.name": "densenet121", "optim.batch_size": 2, "optim.lr": 0.1, "budget.epochs": 30.0}
    return Before(bench.builtin, "small", {**QUICK, **PLAIN, **SGD, **changes})


def few_defects(bench: Bench) -> Before:
    """Two classes, as in the inspection of parts: 900 training images are good, and 12 have a defect."""
    for number, name in enumerate(classes(bench.tiny)[:10]):
        for split, most in (("train", 12 if number == 4 else 100), ("val", 25)):
            for path in _files(bench.tiny, split, name)[:most]:
                _link(path, bench.work / split / ("defect" if number == 4 else "good") / path.name)
    return Before(bench.work, "small", {**QUICK, "optim.batch_size": 32, "budget.epochs": 30.0})


# ---------------------------------------------------------------- during the training


def _few_steps(steps: int) -> dict[str, Any]:
    return {"budget.steps": steps, "budget.log_every": 5, "budget.evaluate_epochs": 2.0}


def rate_of_sgd_for_lars(bench: Bench) -> During:
    """LARS with a rate of 0.02 that would do for SGD: each step moves a layer by some hundred-thousandths of its size."""
    changes = {
        "model.options.width": 24,
        "optim.name": "lars",
        "optim.lr": 0.02,
        "optim.weight_decay": 1e-4,
    }
    return During(bench.tiny, "small", {**QUICK, **changes, **_few_steps(90)})


def exponent_mistyped(bench: Bench) -> During:
    """A weight decay of 5e-1 where 5e-4 was meant, on a network without normalisation: the weights go to zero."""
    changes = {
        "model.name": "alexnet",
        "model.options": {"width": 48, "init": "he"},
        "data.size_px": 64,
        "data.shrink_px": 0,
        "optim.lr": 0.01,
        "optim.weight_decay": 0.5,
    }
    return During(bench.tiny, "small", {**QUICK, **SGD, **changes, **_few_steps(90)})


def dealt_out_at_random(bench: Bench) -> During:
    """The training images were dealt out to the class folders in the wrong order; the validation folders are right."""
    names = classes(bench.tiny)
    paths = [path for name in names for path in _files(bench.tiny, "train", name)]
    order = torch.randperm(len(paths), generator=torch.Generator().manual_seed(5)).tolist()
    for place, number in enumerate(order):
        _link(paths[number], bench.work / "train" / names[place % K] / f"{place:04d}.jpg")
    for name in names:
        for number, path in enumerate(_files(bench.tiny, "val", name)):
            _link(path, bench.work / "val" / name / f"{number:04d}.jpg")
    return During(bench.work, "small", {**QUICK, **_few_steps(96)})


def mean_only(bench: Bench) -> During:
    """Bytes less their mean, never divided, for a network without normalisation whose weights start as He's."""
    changes = {
        "model.name": "alexnet",
        "model.options": {"width": 48, "init": "he"},
        "data.size_px": 64,
        "data.shrink_px": 0,
        "data.normalise": "dataset-mean",
        "optim.lr": 0.01,
    }
    return During(bench.tiny, "small", {**QUICK, **SGD, **changes, **_few_steps(90)})


# ---------------------------------------------------------------- recorded


def _recorded(name: str) -> Callable[[Bench], Recorded]:
    """A case that reads a folder or a table of `doctor_logs/seen_3`."""
    return lambda bench: Recorded(SEEN / name)


# ---------------------------------------------------------------- healthy


def self_normalising(bench: Bench) -> Examined:
    """Six convolutions with SELU and weights whose variance is one over their inputs, as self-normalising networks have."""
    torch.manual_seed(0)
    model = PlainNet((32, 32, 64, 64, 96, 96), None, nn.SELU)
    for layer in model:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
    options = {"val_loader": scored(bench.builtin, 32, 25), "optimizer": adam_for(model, 5e-4)}
    return Examined(model, usual(bench.builtin, 32, 100), options)


def gates_that_help(bench: Bench) -> Examined:
    """RegNetY, with a gate in each of its blocks, under AdamW."""
    model = built("timm/regnety_002")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.02)
    return Examined(model, usual(bench.builtin, 64, 100), {"val_loader": scored(bench.builtin, 64, 25), "optimizer": optimizer})


def three_narrow_layers(bench: Bench) -> Examined:
    """Three narrow convolutions without normalisation on photos that are hard for them, with dropout before the classes."""
    torch.manual_seed(0)
    model = PlainNet((24, 48, 96))
    model.insert(len(model) - 1, nn.Dropout(0.2))
    options = {"val_loader": scored(bench.tiny, 32, 25), "optimizer": adam_for(model)}
    return Examined(model, usual(bench.tiny, 32, 100), options)


def three_heads(bench: Bench) -> Examined:
    """GoogLeNet with batch normalisation and its auxiliary heads at the weight of the paper."""
    model = built("googlenet-bn")

    def loss(outputs: Any, labels: torch.Tensor) -> torch.Tensor:
        if not isinstance(outputs, tuple):
            return functional.cross_entropy(outputs, labels)
        main, *others = (functional.cross_entropy(logits, labels) for logits in outputs)
        return main + 0.3 * torch.stack(others).sum()

    options = {"val_loader": scored(bench.builtin, 64, 20), "optimizer": sgd_for(model, 0.02), "loss": loss}
    return Examined(model, usual(bench.builtin, 64, 80), options)


def fifty_layers(bench: Bench) -> Examined:
    """A narrow ResNet-50 whose residual branches start at zero, with smoothed labels, on photos."""
    model = built("resnet50", {"width": 16, "zero_gamma": True})
    options = {
        "val_loader": scored(bench.tiny, 64, 25),
        "optimizer": sgd_for(model),
        "loss": nn.CrossEntropyLoss(label_smoothing=0.1),
    }
    return Examined(model, usual(bench.tiny, 64, 100), options)


def densely_connected(bench: Bench) -> Before:
    """DenseNet-121 under SGD with MixUp and smoothed labels, for 60 epochs."""
    changes = {
        "model.name": "densenet121",
        "data.size_px": 64,
        "data.shrink_px": 0,
        "optim.lr": 0.05,
        "optim.nesterov": True,
        "augment.mixup": 0.2,
        "loss.smoothing": 0.1,
        "budget.epochs": 60.0,
    }
    return Before(bench.tiny, "small", {**QUICK, **PLAIN, **SGD, **changes})


def auxiliary_heads(bench: Bench) -> Before:
    """GoogLeNet with batch normalisation, its auxiliary heads at 0.3."""
    changes = {
        "model.name": "googlenet-bn",
        "data.size_px": 64,
        "data.shrink_px": 80,
        "optim.lr": 0.05,
        "optim.weight_decay": 2e-4,
        "budget.epochs": 40.0,
    }
    return Before(bench.builtin, "small", {**QUICK, **PLAIN, **SGD, **changes})


def in_four_pieces(bench: Bench) -> Before:
    """A narrow ResNet-50 whose batches of 64 are computed in four pieces."""
    changes = {"model.name": "resnet50", "model.options.width": 24, "optim.accumulate": 4, "budget.epochs": 40.0}
    return Before(bench.builtin, "small", {**QUICK, **changes, "data.size_px": 64, "data.shrink_px": 80})


def eight_channels(bench: Bench) -> Before:
    """A ResNet-20 of half the width, with mild crops and no smoothing, for 60 epochs."""
    changes = {
        "model.name": "resnet20",
        "model.options": {"width": 8},
        "data.size_px": 32,
        "data.shrink_px": 40,
        "augment.scale": (0.6, 1.0),
        "loss.smoothing": 0.0,
        "budget.epochs": 60.0,
    }
    return Before(bench.builtin, "small", {**QUICK, **changes})


def no_batch_norm_at_all(bench: Bench) -> Before:
    """A small ConvNeXt under AdamW, with a long rise of the rate, averaged weights and the decay of its paper."""
    changes = {
        "model.name": "timm/convnext_atto",
        "data.size_px": 64,
        "data.shrink_px": 0,
        "optim.lr": 0.001,
        "optim.warmup_epochs": 5.0,
        "optim.batch_size": 32,
        "optim.ema": 0.99,
        "budget.epochs": 60.0,
    }
    return Before(bench.tiny, "small", {**QUICK, **PLAIN, **changes})


def blended_photos(bench: Bench) -> During:
    """MixUp in every batch and smoothed labels on hard photos: the training loss falls slowly."""
    changes = {"augment.mixup": 0.4, "loss.smoothing": 0.1}
    return During(bench.tiny, "small", {**QUICK, **changes, **_few_steps(96)})


def slow_rise(bench: Bench) -> During:
    """Residual branches that start at zero and a rate that rises for two epochs."""
    changes = {
        "model.name": "resnet34",
        "model.options": {"width": 16, "zero_gamma": True},
        "optim.lr": 0.05,
        "optim.warmup_epochs": 2.0,
    }
    return During(bench.tiny, "small", {**QUICK, **SGD, **changes, **_few_steps(96)})


# ---------------------------------------------------------------- the cases

CASES: list[Case] = [
    # What enters the network.
    Case(
        "normalised-in-the-loop",
        "normalised-twice",
        "plain convolutions",
        "builtin",
        normalised_in_the_loop_as_well,
        "images that were normalised are normalised again: a mean near -2 and a deviation near 4",
    ),
    Case(
        "bytes-for-a-wrapped-network",
        "pixel-range",
        "alexnet",
        "tiny",
        bytes_for_a_wrapped_network,
        "a network that wants 0..1 and normalises for itself gets 0..255",
    ),
    Case(
        "scored-by-another-reader",
        "colour-order",
        "resnet18",
        "tiny",
        scored_by_another_reader,
        "validation images come in blue, green, red, training images in red, green, blue",
        ("preprocessing-mismatch",),
    ),
    Case(
        "first-image-always",
        "constant-images",
        "resnet34",
        "builtin",
        first_image_always,
        "all training images are the same one, under all labels",
    ),
    Case(
        "counted-from-one",
        "labels-off-by-one",
        "torchvision/shufflenet_v2_x0_5",
        "tiny",
        counted_from_one,
        "labels run from 1 to 12, outputs from 0 to 11",
    ),
    Case(
        "no-data-stripes",
        "bad-batch",
        "torchvision/mobilenet_v2",
        "tiny",
        no_data_stripes,
        "three of 480 images hold values of -9999",
    ),
    # The network.
    Case(
        "biases-of-a-gate",
        "saturated-units",
        "plain convolutions with tanh",
        "tiny",
        biases_of_a_gate,
        "biases of 5 hold every tanh at 1, where nothing comes back",
    ),
    Case(
        "standard-normal-weights",
        "initialisation",
        "torchvision/squeezenet1_1",
        "builtin",
        standard_normal_weights,
        "weights of deviation 1 in 26 layers without normalisation: the signal grows several times at each",
    ),
    Case(
        "forgotten-tower",
        "unused-parameters",
        "plain convolutions in two towers",
        "builtin",
        forgotten_tower,
        "nearly all parameters are in a tower that forward() does not call",
    ),
    Case(
        "averaged-without-buffers",
        "batch-norm-statistics",
        "resnet18",
        "builtin",
        averaged_without_buffers,
        "trained weights beside running statistics that are still 0 and 1",
    ),
    Case(
        "epsilon-of-zero",
        "precision",
        "plain convolutions, 16-bit standardising",
        "tiny",
        epsilon_of_zero,
        "an epsilon of 1e-8 is 0 in 16 bits, so a channel without signal becomes not a number",
    ),
    # Before the training.
    Case(
        "stamps",
        "image-size",
        "torchvision/mobilenet_v3_small",
        "builtin",
        stamps,
        "images of 16 px for a network that divides the side by 32",
    ),
    Case(
        "rate-of-sgd-for-rmsprop",
        "learning-rate-high",
        "timm/regnetx_002",
        "tiny",
        rate_of_sgd_for_rmsprop,
        "RMSprop at 0.1, a hundred times what suits it",
    ),
    Case("posters", "memory", "resnext50", "builtin", posters, "256 images of 640 px at once keep hundreds of gigabytes"),
    Case(
        "copied-not-moved",
        "train-in-val",
        "resnet18",
        "builtin",
        copied_not_moved,
        "every validation image is a training image too",
    ),
    Case(
        "shifted-out",
        "crop-loses-object",
        "resnet20",
        "builtin",
        shifted_out,
        "images of 48 px are shifted by up to 44 px in each direction, and what comes in is black",
    ),
    Case(
        "shares-for-epochs",
        "schedule-early",
        "resnet18",
        "tiny",
        shares_for_epochs,
        "the rate is divided by a thousand within the first of 40 epochs",
    ),
    Case(
        "share-kept-in-the-head",
        "regularisation-strong",
        "torchvision/mobilenet_v2",
        "tiny",
        share_kept_in_the_head,
        "dropout takes 99 % of the features in front of the last layer",
    ),
    Case(
        "left-from-debugging",
        "batch-too-small",
        "densenet121",
        "builtin",
        left_from_debugging,
        "two images a step, with batch normalisation and SGD at 0.1",
    ),
    Case(
        "few-defects",
        "unequal-classes",
        "resnet18",
        "tiny",
        few_defects,
        "900 images of one class, 12 of the other",
    ),
    # During the training.
    Case(
        "rate-of-sgd-for-lars",
        "learning-rate-low",
        "resnet18",
        "tiny",
        rate_of_sgd_for_lars,
        "LARS multiplies the rate of 0.02 by its trust of 0.001",
    ),
    Case(
        "exponent-mistyped",
        "weight-decay-high",
        "alexnet",
        "tiny",
        exponent_mistyped,
        "a weight decay of 0.5 under SGD is a thousand times what suits it",
    ),
    Case(
        "dealt-out-at-random",
        "labels-shuffled",
        "resnet18",
        "tiny",
        dealt_out_at_random,
        "training images lie in class folders at random",
    ),
    Case(
        "mean-only",
        "not-normalised",
        "alexnet",
        "tiny",
        mean_only,
        "pixels with a deviation of 60 for a network without normalisation that wants 1",
        ("pixel-range",),
    ),
    # Recorded.
    Case(
        "run-underfitting",
        "underfitting",
        "resnet20",
        "tiny",
        _recorded("underfitting"),
        "two, four and eight channels in the three stages: training and validation stop low, close together",
    ),
    Case(
        "run-class-order",
        "class-order",
        "resnet18",
        "builtin",
        _recorded("class-order"),
        "validation folders were named by class numbers that had been sorted as text",
    ),
    Case(
        "run-memory",
        "memory-growing",
        "resnet18",
        "builtin",
        _recorded("memory-growing"),
        "each step leaves 26 MB behind, as where outputs are kept in a list",
    ),
    Case(
        "run-throughput",
        "throughput-falling",
        "resnet18",
        "tiny",
        _recorded("throughput-falling"),
        "images per second fall to a fifth from the first quarter of the run to its end",
    ),
    Case(
        "table-overfitting",
        "overfitting",
        "plain convolutions",
        "tiny",
        _recorded("table-overfitting.csv"),
        "all training images are known by heart, validation loss rises for most of the epochs",
    ),
    Case(
        "table-learning-rate-low",
        "learning-rate-low",
        "plain convolutions",
        "builtin",
        _recorded("table-learning-rate-low.csv"),
        "SGD at 0.00001: in 18 epochs the loss falls steadily and by next to nothing",
    ),
    # Healthy ones that look ill.
    Case(
        "self-normalising",
        None,
        "plain convolutions with SELU",
        "builtin",
        self_normalising,
        "no normalisation, and weights smaller than He's, for SELU wants both",
    ),
    Case(
        "gates-that-help",
        None,
        "timm/regnety_002",
        "builtin",
        gates_that_help,
        "a gate between 0 and 1 in each of thirteen blocks, with batch norms between",
    ),
    Case(
        "three-narrow-layers",
        None,
        "plain convolutions",
        "tiny",
        three_narrow_layers,
        "a small network without normalisation on hard photos: slow, and it learns",
    ),
    Case(
        "three-heads",
        None,
        "googlenet-bn",
        "builtin",
        three_heads,
        "three heads, all of them in the loss, so that it is larger than ln 12",
    ),
    Case(
        "fifty-layers",
        None,
        "resnet50",
        "tiny",
        fifty_layers,
        "most layers get no gradient in the first step, as intended, and labels are smoothed",
    ),
    Case(
        "densely-connected",
        None,
        "densenet121",
        "tiny",
        densely_connected,
        "121 layers for 1,200 photos, with MixUp and smoothed labels",
    ),
    Case("auxiliary-heads", None, "googlenet-bn", "builtin", auxiliary_heads, "auxiliary heads at the weight of the paper"),
    Case("in-four-pieces", None, "resnet50", "builtin", in_four_pieces, "batch norms see 16 images at a time"),
    Case("eight-channels", None, "resnet20", "builtin", eight_channels, "a network of 70,000 parameters, for enough epochs"),
    Case(
        "no-batch-norm-at-all",
        None,
        "timm/convnext_atto",
        "tiny",
        no_batch_norm_at_all,
        "residuals that start near zero, a low rate with a long rise, averaged weights",
    ),
    Case(
        "blended-photos",
        None,
        "resnet18",
        "tiny",
        blended_photos,
        "training loss stays high, for images are blended, labels smoothed and photos hard",
    ),
    Case(
        "slow-rise",
        None,
        "resnet34",
        "tiny",
        slow_rise,
        "hardly anything happens in the first steps, for the rate rises and the branches start at zero",
    ),
    Case(
        "run-healthy-slim",
        None,
        "resnet18",
        "builtin",
        _recorded("healthy-slim"),
        "validation runs ahead of training, which sees crops and smoothed labels",
    ),
    Case(
        "run-healthy-mixup",
        None,
        "resnet18",
        "tiny",
        _recorded("healthy-mixup"),
        "hard photos under MixUp and smoothing: a training loss that stays high, and accuracy that rises",
    ),
    Case(
        "table-healthy",
        None,
        "plain convolutions",
        "tiny",
        _recorded("table-healthy.csv"),
        "hard photos and a small network: accuracy stays moderate, training and validation close together",
    ),
]

"""Cases that were planted by somebody who knew the list of illnesses and none of the rules, and that have been read since.

They were the first blind half; after its run the rules were mended with it, so it counts with the building half now.
Every case is sane but for the one thing that its `why` names: a rate that suits the network, normalised pixels, shuffled
batches. `doctor_logs/seen/README.md` says how the recorded runs were made.
"""

from __future__ import annotations

import csv
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from doctor_bench import LOGS, Before, Bench, Case, During, Examined, Recorded
from doctor_setups import (
    QUICK,
    SGD,
    Attention,
    FineTuned,
    HalfPooled,
    K,
    Normalising,
    PlainNet,
    StillNorms,
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
from PIL import Image
from torch import nn
from torch.nn import functional

SEEN = LOGS / "seen"


# ---------------------------------------------------------------- examined: what enters the network


def floats_to_tensor(bench: Bench) -> Examined:
    """Images read as float32 arrays, which torchvision's ToTensor does not divide by 255, and then Normalize."""
    images, labels = photos(bench.tiny, "train", 48, 40)
    model = built("googlenet-bn", {"aux": False})
    return Examined(model, shuffled(centred(images.float()), labels), {"optimizer": sgd_for(model, 0.02)})


def normalised_inside_as_well(bench: Bench) -> Examined:
    """The network normalises by itself, and the images come normalised."""
    model = Normalising(built("resnet18", {"width": 32}))
    options = {"val_loader": scored(bench.tiny, 64), "optimizer": sgd_for(model)}
    return Examined(model, usual(bench.tiny, 64), options)


def viewed_instead_of_permuted(bench: Bench) -> Examined:
    """Rows of interleaved colours read as if each colour were a plane of its own."""
    images, labels = photos(bench.builtin, "train", 32, 40)
    scrambled = images.permute(0, 2, 3, 1).contiguous().view(-1, 3, 32, 32)
    model = built("resnet20")
    return Examined(model, shuffled(normalised_pixels(scrambled), labels), {"optimizer": sgd_for(model)})


def blue_first_in_training(bench: Bench) -> Examined:
    """Training images as OpenCV reads them, validation images as Pillow does."""
    images, labels = photos(bench.tiny, "train", 64, 60)
    model = built("timm/mobilenetv3_small_050")
    options = {"val_loader": scored(bench.tiny, 64, 25), "optimizer": sgd_for(model)}
    return Examined(model, shuffled(normalised_pixels(images.flip(1)), labels), options)


def scored_without_normalising(bench: Bench) -> Examined:
    """The validation transform ends with ToTensor."""
    images, labels = photos(bench.builtin, "val", 64, 25)
    model = built("torchvision/shufflenet_v2_x0_5")
    options = {"val_loader": batches(images.float() / 255, labels), "optimizer": sgd_for(model)}
    return Examined(model, usual(bench.builtin, 64), options)


def photos_of_16_bits(bench: Bench) -> Examined:
    """Four PNGs of 16 bits a channel, divided by 255 like the rest."""
    images, labels = photos(bench.builtin, "train", 48, 40)
    pixels = images.float()
    pixels[[37, 101, 230, 377]] *= 257
    model = built("resnet18", {"width": 32})
    return Examined(model, batches(normalised_pixels(pixels), labels), {"optimizer": sgd_for(model)})


def labels_from_one(bench: Bench) -> Examined:
    """Training labels by the place of the folder, validation labels from a ground-truth file that counts from 1."""
    images, labels = photos(bench.tiny, "val", 48, 25)
    model = built("se-googlenet-bn-paths", {"aux": False})
    options = {"val_loader": batches(normalised_pixels(images), labels + 1), "optimizer": sgd_for(model, 0.02)}
    return Examined(model, usual(bench.tiny, 48), options)


# ---------------------------------------------------------------- examined: the network as it starts


def ten_outputs(bench: Bench) -> Examined:
    """ResNet-20 for CIFAR as it comes, with ten outputs, for twelve classes."""
    model = built("resnet20", outputs=10)
    return Examined(model, usual(bench.builtin, 32), {"optimizer": sgd_for(model)})


def wide_head(bench: Bench) -> Examined:
    """The new layer of the classes drawn with a deviation of 1."""
    model = built("densenet121")
    nn.init.normal_(model.get_parameter("classifier.weight"), std=1.0)
    return Examined(model, usual(bench.tiny, 32), {"optimizer": sgd_for(model)})


def attention_everywhere(bench: Bench) -> Examined:
    """Gates for channels and for pixels behind each of eight convolutions; without them it learns at the same rate."""
    torch.manual_seed(0)
    model = PlainNet((16, 16, 32, 32, 64, 64, 96, 96), Attention)
    return Examined(model, usual(bench.tiny, 32), {"optimizer": adam_for(model)})


def forty_bare_layers(bench: Bench) -> Examined:
    """Forty convolutions with He's start and nothing between them but ReLUs and two pools."""
    torch.manual_seed(0)
    model = PlainNet((16,) * 14 + (32,) * 13 + (64,) * 13)
    return Examined(model, usual(bench.tiny, 32), {"optimizer": adam_for(model)})


def saturated_tanh(bench: Bench) -> Examined:
    """Six layers of tanh whose weights were drawn from a standard normal distribution."""
    torch.manual_seed(0)
    model = PlainNet((24, 24, 48, 48, 64, 64), active=nn.Tanh)
    for layer in model:
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight)
    return Examined(model, usual(bench.tiny, 32), {"optimizer": sgd_for(model, 0.02)})


def biases_below_zero(bench: Bench) -> Examined:
    """AlexNet's start with a slip of the sign: biases of -1 where the paper has 1, beside weights of 0.01."""
    model = built("alexnet", {"width": 48})
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.neg_()
    return Examined(model, usual(bench.builtin, 64), {"optimizer": sgd_for(model, 0.01)})


def still_norms(bench: Bench) -> Examined:
    """An untrained network whose batch norms never see a batch."""
    model = StillNorms(built("resnet18", {"width": 32}))
    return Examined(model, usual(bench.builtin, 48), {"optimizer": sgd_for(model)})


def overflowing_sum(bench: Bench) -> Examined:
    """A sum of squares beyond 65,504, the largest number of 16 bits."""
    torch.manual_seed(0)
    model = HalfPooled(half=True)
    return Examined(model, usual(bench.builtin, 48), {"optimizer": sgd_for(model)})


# ---------------------------------------------------------------- examined: what is minimised, and by what


def main_head_alone(bench: Bench) -> Examined:
    """GoogLeNet's auxiliary heads are computed and not minimised."""
    model = built("googlenet")

    def loss(outputs: Any, labels: torch.Tensor) -> torch.Tensor:
        logits = outputs[0] if isinstance(outputs, tuple) else outputs
        return functional.cross_entropy(logits, labels)

    return Examined(model, usual(bench.builtin, 64, 30), {"optimizer": sgd_for(model, 0.01), "loss": loss})


def backbone_without_gradient(bench: Bench) -> Examined:
    """A fine-tuning script whose backbone lost its trained weights: random features, and only the last layer learns."""
    backbone: Any = built("timm/regnetx_002")
    backbone.reset_classifier(0)
    model = FineTuned(backbone, 368)
    options = {"val_loader": scored(bench.tiny, 48), "optimizer": sgd_for(model)}
    return Examined(model, usual(bench.tiny, 48), options)


def head_replaced_too_late(bench: Bench) -> Examined:
    """The optimiser was made first, then the layer of the classes was replaced: it is not among what the optimiser has."""
    model = built("torchvision/mobilenet_v2", outputs=1000)
    optimizer = sgd_for(model)
    classifier = model.get_submodule("classifier")
    assert isinstance(classifier, nn.Sequential)
    classifier[1] = nn.Linear(1280, K)
    return Examined(model, usual(bench.builtin, 48), {"optimizer": optimizer})


# ---------------------------------------------------------------- before the training


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    os.symlink(source.resolve(), target)


def _each(folder: Path, split: str) -> list[tuple[str, Path]]:
    """(class, file) of a split, in order."""
    return [(name, path) for name in classes(folder) for path in sorted((folder / split / name).iterdir())]


def sorted_apart(bench: Bench) -> Before:
    """A list whose paths were shuffled and whose labels were not, as two columns of a sheet that are sorted apart."""
    rows = [
        (f"images/{split}/{name}/{path.name}", name, split, path)
        for split in ("train", "val")
        for name, path in _each(bench.tiny, split)
    ]
    for place, _, _, path in rows:
        _link(path, bench.work / place)
    training = [row for row in rows if row[2] == "train"]
    places = [row[0] for row in training]
    random.Random(3).shuffle(places)
    with open(bench.work / "photos.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label", "split"))
        writer.writerows((place, row[1], "train") for place, row in zip(places, training, strict=True))
        writer.writerows((place, name, split) for place, name, split, _ in rows if split == "val")
    return Before(bench.work / "photos.csv", "small", QUICK)


def long_tail(bench: Bench) -> Before:
    """100 images of the first class, 65 of the second, and so on to 3 of the last four; the validation set is even."""
    for number, name in enumerate(classes(bench.tiny)):
        for path in sorted((bench.tiny / "train" / name).iterdir())[: max(3, round(100 * 0.65**number))]:
            _link(path, bench.work / "train" / name / path.name)
    for name, path in _each(bench.tiny, "val"):
        _link(path, bench.work / "val" / name / path.name)
    return Before(bench.work, "small", {**QUICK, "optim.batch_size": 16})


def saved_again_in_val(bench: Bench) -> Before:
    """Of each class 12 training images are in the validation set as well, saved again under other names."""
    for split in ("train", "val"):
        for name, path in _each(bench.builtin, split):
            _link(path, bench.work / split / name / path.name)
    for name in classes(bench.builtin):
        for number, path in enumerate(sorted((bench.builtin / "train" / name).iterdir())[::8][:12]):
            with Image.open(path) as photo:
                photo.convert("RGB").save(bench.work / "val" / name / f"export-{number:03}.jpg", quality=88)
    return Before(bench.work, "small", QUICK)


def photo_not_available(bench: Bench) -> Before:
    """Every fourth training image is the plain grey picture that a server sends for a photo that is gone."""
    for number, (name, path) in enumerate(_each(bench.tiny, "train")):
        target = bench.work / "train" / name / path.name
        if number % 4:
            _link(path, target)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (64, 64), (128, 128, 128)).save(target, quality=90)
    for name, path in _each(bench.tiny, "val"):
        _link(path, bench.work / "val" / name / path.name)
    return Before(bench.work, "small", QUICK)


def two_a_class(bench: Bench) -> Before:
    """24 validation images decide which checkpoint is the best and when to stop."""
    for name, path in _each(bench.builtin, "train"):
        _link(path, bench.work / "train" / name / path.name)
    for name in classes(bench.builtin):
        for path in sorted((bench.builtin / "val" / name).iterdir())[:2]:
            _link(path, bench.work / "val" / name / path.name)
    changes = {**QUICK, "budget.evaluate_epochs": 1.0, "budget.patience": 4, "budget.epochs": 20.0}
    return Before(bench.work, "small", changes)


def tiny_crops(bench: Bench) -> Before:
    """Random crops of 1 to 8 % of the photo, where a part of it lies at random."""
    return Before(bench.builtin, "small", {**QUICK, "augment.scale": (0.01, 0.08)})


def narrow_scoring(bench: Bench) -> Before:
    """Training squeezes whole photos into the square, scoring looks at the middle third of each side."""
    changes = {"augment.crop": "resize", "data.crop_share": 0.33, "data.shrink_px": 0}
    return Before(bench.builtin, "small", {**QUICK, **changes})


def thumbnails(bench: Bench) -> Before:
    """16 px for a network that divides each side by 32."""
    changes = {"model.name": "torchvision/resnet18", "model.options": {}, "data.size_px": 16, "data.shrink_px": 20}
    return Before(bench.tiny, "small", {**QUICK, **changes})


def half_the_set_at_once(bench: Bench) -> Before:
    """Batches of 600 of 1,200 images for six epochs: twelve steps."""
    return Before(bench.builtin, "small", {**QUICK, "optim.batch_size": 600, "budget.epochs": 6.0})


def sgd_rate_for_adamw(bench: Bench) -> Before:
    """The optimiser was changed from SGD to AdamW, its rate of 0.1 was not."""
    changes = {"model.name": "densenet121", "model.options": {}, "data.size_px": 32, "data.shrink_px": 40, "optim.lr": 0.1}
    return Before(bench.tiny, "small", {**QUICK, **changes})


def gaussian_googlenet(bench: Bench) -> Before:
    """GoogLeNet without batch normalisation, all weights with a deviation of 0.01 and all biases 0."""
    changes = {"model.name": "googlenet", "model.options": {"init": "gaussian"}, "optim.lr": 0.01, "optim.weight_decay": 2e-4}
    return Before(bench.builtin, "small", {**QUICK, **SGD, **changes, "optim.batch_size": 32})


def auxiliary_threefold(bench: Bench) -> Before:
    """A point was lost in the weight of the auxiliary heads: 3 where the paper has 0.3."""
    changes = {"model.name": "googlenet-bn", "model.options": {}, "loss.aux_weight": 3.0, "optim.lr": 0.02}
    return Before(bench.tiny, "small", {**QUICK, **SGD, **changes})


def seconds_for_resnet50(bench: Bench) -> Before:
    """Fifteen seconds for ResNet-50 at 160 px, in which two processor cores do not see every image once."""
    changes = {
        "model.name": "resnet50",
        "model.options": {},
        "data.size_px": 160,
        "data.shrink_px": 200,
        "optim.batch_size": 16,
        "optim.lr": 0.0005,
        "budget.time": "15s",
    }
    return Before(bench.builtin, "small", {**QUICK, **changes})


# ---------------------------------------------------------------- during the training


def _few_steps(steps: int) -> dict[str, Any]:
    return {"budget.steps": steps, "budget.log_every": 5, "budget.evaluate_epochs": 2.0}


def scaled_from_a_batch_of_four(bench: Bench) -> During:
    """A rate of 0.4 for batches of 256 that was said to be for batches of 4: 6.4 for the 64 here."""
    changes = {"optim.lr": 0.4, "optim.lr_scaling": "linear", "optim.lr_batch_size": 4, "optim.warmup_epochs": 0.5}
    return During(bench.tiny, "small", {**QUICK, **SGD, **changes, **_few_steps(72)})


def fine_tuning_rate(bench: Bench) -> During:
    """AdamW at 0.00001, which suits trained weights, on a network that starts from nothing."""
    return During(bench.builtin, "small", {**QUICK, "optim.lr": 1e-5, **_few_steps(90)})


def decay_of_adamw_for_sgd(bench: Bench) -> During:
    """The weight decay of 0.3 that goes with AdamW, under SGD at 0.1, where momentum multiplies it by ten."""
    return During(bench.tiny, "small", {**QUICK, **SGD, "optim.weight_decay": 0.3, **_few_steps(90)})


def batches_of_two(bench: Bench) -> During:
    """Two images at a time, to save memory, at the rate of batches of 64, with batch normalisation."""
    changes = {**SGD, "optim.batch_size": 2, "budget.evaluate_epochs": 1.0}
    return During(bench.tiny, "small", {**QUICK, **changes, "budget.steps": 100, "budget.log_every": 5})


def hardly_any_unit_left(bench: Bench) -> During:
    """Dropout of 0.98 behind the hidden layer: 41 of 2,048 units are left, others each time."""
    changes = {
        "model.name": "kth-d",
        "model.options": {"dropout": 0.98},
        "data.size_px": 32,
        "data.shrink_px": 40,
        "optim.name": "adam",
        "optim.lr": 0.001,
        "optim.weight_decay": 0.0,
    }
    return During(bench.tiny, "small", {**QUICK, **changes, **_few_steps(90)})


def large_png(bench: Bench) -> During:
    """PNGs of 1,024 px, decoded anew in each epoch for a network of 32 px that takes a millisecond an image."""
    for split, count in (("train", 8), ("val", 2)):
        for name in classes(bench.builtin):
            for path in sorted((bench.builtin / split / name).iterdir())[:count]:
                target = bench.work / split / name / f"{path.stem}.png"
                target.parent.mkdir(parents=True, exist_ok=True)
                with Image.open(path) as photo:
                    photo.convert("RGB").resize((1024, 1024), Image.Resampling.BILINEAR).save(target, compress_level=1)
    changes = {
        "model.options.width": 16,
        "data.size_px": 32,
        "data.shrink_px": 0,
        "data.resident": "no",
        "optim.batch_size": 16,
    }
    return During(bench.work, "small", {**QUICK, **changes, "budget.steps": 18, "budget.log_every": 2})


# ---------------------------------------------------------------- recorded


def _recorded(name: str) -> Callable[[Bench], Recorded]:
    """A case that reads a folder or a table of `doctor_logs/blind`."""
    return lambda bench: Recorded(SEEN / name)


# ---------------------------------------------------------------- healthy


def starts_at_zero(bench: Bench) -> Examined:
    """Residual blocks that start as their shortcut and a layer of the classes that starts at zero."""
    model = built("resnet18", {"width": 32, "zero_gamma": True})
    nn.init.zeros_(model.get_parameter("fc.weight"))
    nn.init.zeros_(model.get_parameter("fc.bias"))
    options = {"val_loader": scored(bench.tiny, 64), "optimizer": sgd_for(model)}
    return Examined(model, usual(bench.tiny, 64), options)


def constant_when_evaluated(bench: Bench) -> Examined:
    """torchvision's GoogLeNet: small weights that batch normalisation makes good, in training only at first."""
    model = built("googlenet-bn", {"aux": False})
    options = {"val_loader": scored(bench.builtin, 48), "optimizer": sgd_for(model, 0.02)}
    return Examined(model, usual(bench.builtin, 48), options)


def grey_photos(bench: Bench) -> Examined:
    """All images grey, as three equal channels, in training and validation."""

    def grey(split: Literal["train", "val"], per_class: int) -> tuple[torch.Tensor, torch.Tensor]:
        images, labels = photos(bench.tiny, split, 32, per_class)
        return images.float().mean(1, keepdim=True).expand(-1, 3, -1, -1), labels

    model = built("resnet20")
    options = {"val_loader": batches(*_with(normalised_pixels, grey("val", 10))), "optimizer": sgd_for(model)}
    return Examined(model, shuffled(*_with(normalised_pixels, grey("train", 40))), options)


def _with(
    change: Callable[[torch.Tensor], torch.Tensor], pair: tuple[torch.Tensor, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    return change(pair[0]), pair[1]


def already_trained(bench: Bench) -> Examined:
    """A network that has been trained on these images, and goes on at a low rate: its first loss is far below ln K."""
    model = built("resnet18", {"width": 16})
    loader = usual(bench.builtin, 48)
    train_briefly(model, loader, 90, 0.003)
    options = {"val_loader": scored(bench.builtin, 48), "optimizer": sgd_for(model, 0.005)}
    return Examined(model, loader, options)


def layer_scale(bench: Bench) -> Examined:
    """ConvNeXt: no batch norm, GELU, and residuals that start a million times smaller than their shortcuts."""
    model = built("timm/convnext_atto")
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4, weight_decay=0.05)
    return Examined(model, usual(bench.tiny, 64, 30), {"val_loader": scored(bench.tiny, 64), "optimizer": optimizer})


def twenty_a_class(bench: Bench) -> Before:
    """Real photos of twelve classes, 20 of each: hard, not ill."""
    for name in classes(bench.tiny):
        for path in sorted((bench.tiny / "train" / name).iterdir())[:20]:
            _link(path, bench.work / "train" / name / path.name)
        for path in sorted((bench.tiny / "val" / name).iterdir()):
            _link(path, bench.work / "val" / name / path.name)
    changes = {"optim.batch_size": 16, "optim.lr": 0.001, "budget.epochs": 40.0, "budget.evaluate_epochs": 4.0}
    return Before(bench.work, "small", {**QUICK, **changes})


def head_on_trained_features(bench: Bench) -> Before:
    """A backbone that was trained on eight of the classes is frozen on purpose; the head learns the other four."""
    images, labels = photos(bench.builtin, "train", 48, 60)
    known = labels < 8
    model = built("resnet18", {"width": 32}, outputs=8)
    train_briefly(model, shuffled(normalised_pixels(images[known]), labels[known]), 70, 0.002)
    torch.save(model.state_dict(), bench.work / "eight-classes.pth")
    for name in classes(bench.builtin)[8:]:
        for split in ("train", "val"):
            for path in sorted((bench.builtin / split / name).iterdir()):
                _link(path, bench.work / "photos" / split / name / path.name)
    changes = {
        "model.weights": str(bench.work / "eight-classes.pth"),
        "data.normalise": "imagenet",
        "optim.freeze": "backbone",
        "optim.batch_size": 32,
    }
    return Before(bench.work / "photos", "small", {**QUICK, **changes})


def long_warm_up(bench: Bench) -> During:
    """DenseNet-121 whose rate takes 45 of the 90 steps to rise: hardly anything happens at first."""
    changes = {
        "model.name": "densenet121",
        "model.options": {},
        "data.size_px": 32,
        "data.shrink_px": 40,
        "optim.batch_size": 16,
        "optim.lr": 0.03,
        "optim.warmup_epochs": 0.6,
        "budget.steps": 90,
        "budget.log_every": 5,
    }
    return During(bench.tiny, "small", {**QUICK, **SGD, **changes})


def mixed_and_smoothed(bench: Bench) -> During:
    """Mixup, random operations and smoothed labels: in training it looks worse than it is."""
    changes = {
        "augment.policy": "randaugment",
        "augment.policy_magnitude": 7,
        "augment.mixup": 0.2,
        "loss.smoothing": 0.1,
        **_few_steps(90),
    }
    return During(bench.builtin, "small", {**QUICK, **changes})


# ---------------------------------------------------------------- the cases

PAIR = ("preprocessing-mismatch",)  # what "blue first in training only" is as well

CASES: list[Case] = [
    # What enters the network.
    Case(
        "floats-to-tensor",
        "pixel-range",
        "googlenet-bn",
        "tiny",
        floats_to_tensor,
        "float images of 0..255 went through ToTensor, which divides whole numbers only, and then through Normalize",
    ),
    Case(
        "normalised-inside",
        "normalised-twice",
        "resnet18",
        "tiny",
        normalised_inside_as_well,
        "the wrapped network subtracts ImageNet's mean and divides by its deviation, and the loader has done so already",
    ),
    Case(
        "viewed-not-permuted",
        "channels-last",
        "resnet20",
        "builtin",
        viewed_instead_of_permuted,
        "images of height, width, channels were viewed as channels, height, width instead of permuted",
    ),
    Case(
        "blue-first-in-training",
        "colour-order",
        "timm/mobilenetv3_small_050",
        "tiny",
        blue_first_in_training,
        "the training loader delivers blue, green, red and the validation loader red, green, blue",
        PAIR,
    ),
    Case(
        "scored-without-normalising",
        "preprocessing-mismatch",
        "torchvision/shufflenet_v2_x0_5",
        "builtin",
        scored_without_normalising,
        "training images are normalised, validation images are left in 0..1",
    ),
    Case(
        "photos-of-16-bits",
        "bad-batch",
        "resnet18",
        "builtin",
        photos_of_16_bits,
        "four of 480 images are 257 times as bright as the others, for they were read as 16 bits and divided by 255",
    ),
    Case(
        "labels-from-one",
        "labels-off-by-one",
        "se-googlenet-bn-paths",
        "tiny",
        labels_from_one,
        "validation labels run from 1 to 12, training labels from 0 to 11",
    ),
    # The network as it starts.
    Case(
        "ten-outputs",
        "head-size",
        "resnet20",
        "builtin",
        ten_outputs,
        "the network has ten outputs and the labels twelve classes",
    ),
    Case(
        "wide-head",
        "head-scale",
        "densenet121",
        "tiny",
        wide_head,
        "the layer of the classes starts with a deviation of 1, so the first loss is many times ln 12",
    ),
    Case(
        "attention-everywhere",
        "gates",
        "plain convolutions with attention",
        "tiny",
        attention_everywhere,
        "sixteen gates near 1/2 in a row leave about a sixty-thousandth of the signal",
    ),
    Case(
        "forty-bare-layers",
        "no-normalisation",
        "40 plain convolutions",
        "tiny",
        forty_bare_layers,
        "forty layers of the right scale without normalisation or shortcuts: the outputs no longer tell images apart",
    ),
    Case(
        "saturated-tanh",
        "saturated-units",
        "plain convolutions with tanh",
        "tiny",
        saturated_tanh,
        "standard normal weights drive every tanh to its limits, where no gradient comes back",
        ("initialisation",),
    ),
    Case(
        "biases-below-zero",
        "dead-units",
        "alexnet",
        "builtin",
        biases_below_zero,
        "biases of -1 beside weights of 0.01 keep the ReLUs behind them at zero for every image",
    ),
    Case(
        "still-norms",
        "batch-norm-mode",
        "resnet18",
        "builtin",
        still_norms,
        "train() puts the batch norms of an untrained network back into evaluation mode",
    ),
    Case(
        "overflowing-sum",
        "precision",
        "plain convolutions, 16-bit pooling",
        "builtin",
        overflowing_sum,
        "a sum of squares in 16-bit numbers overflows, the features become zeros and the gradients not a number",
    ),
    # What is minimised, and by what.
    Case(
        "main-head-alone",
        "heads-forgotten",
        "googlenet",
        "builtin",
        main_head_alone,
        "the loss takes the first of three heads, so the auxiliary heads of a deep network without normalisation do nothing",
    ),
    Case(
        "backbone-without-gradient",
        "frozen-parameters",
        "timm/regnetx_002",
        "tiny",
        backbone_without_gradient,
        "an untrained backbone runs under no_grad, so only the last layer learns",
    ),
    Case(
        "head-replaced-too-late",
        "unused-parameters",
        "torchvision/mobilenet_v2",
        "builtin",
        head_replaced_too_late,
        "the optimiser holds the old layer of the classes and not the new one",
    ),
    # Before the training.
    Case(
        "sorted-apart",
        "labels-shuffled",
        "resnet18",
        "tiny",
        sorted_apart,
        "the paths of the training rows were shuffled against their labels",
    ),
    Case(
        "long-tail",
        "unequal-classes",
        "resnet18",
        "tiny",
        long_tail,
        "the largest class has 33 times the training images of the smallest",
    ),
    Case(
        "saved-again-in-val",
        "train-in-val",
        "resnet18",
        "builtin",
        saved_again_in_val,
        "144 of 444 validation images are training images that were saved again as JPEG",
    ),
    Case(
        "photo-not-available",
        "constant-images",
        "resnet18",
        "tiny",
        photo_not_available,
        "a quarter of the training images are one plain grey",
    ),
    Case(
        "two-a-class",
        "evaluation-small",
        "resnet18",
        "builtin",
        two_a_class,
        "24 validation images choose the best checkpoint and stop the training",
    ),
    Case("tiny-crops", "crop-loses-object", "resnet18", "builtin", tiny_crops, "random crops take 1 to 8 % of each photo"),
    Case(
        "narrow-scoring",
        "augmentation-mismatch",
        "resnet18",
        "builtin",
        narrow_scoring,
        "training sees whole photos squeezed into the square, scoring the middle third of each side",
    ),
    Case(
        "thumbnails",
        "image-size",
        "torchvision/resnet18",
        "tiny",
        thumbnails,
        "images of 16 px leave a grid of 1x1 after the third of four stages",
    ),
    Case(
        "half-the-set-at-once",
        "batch-too-large",
        "resnet18",
        "builtin",
        half_the_set_at_once,
        "a batch of half the training set for six epochs makes twelve steps",
    ),
    Case("sgd-rate-for-adamw", "learning-rate-high", "densenet121", "tiny", sgd_rate_for_adamw, "AdamW has SGD's rate of 0.1"),
    Case(
        "gaussian-googlenet",
        "initialisation",
        "googlenet",
        "builtin",
        gaussian_googlenet,
        "weights of deviation 0.01 without normalisation shrink the signal through 22 layers",
    ),
    Case(
        "auxiliary-threefold",
        "head-weights",
        "googlenet-bn",
        "tiny",
        auxiliary_threefold,
        "each auxiliary head counts three times the main head, where the paper has 0.3",
    ),
    Case(
        "seconds-for-resnet50",
        "time",
        "resnet50",
        "builtin",
        seconds_for_resnet50,
        "the time given is less than one pass over the training images takes",
    ),
    # During the training.
    Case(
        "scaled-from-four",
        "learning-rate-high",
        "resnet18",
        "tiny",
        scaled_from_a_batch_of_four,
        "linear scaling from a batch of 4 makes a rate of 6.4 of 0.4",
    ),
    Case(
        "fine-tuning-rate", "learning-rate-low", "resnet18", "builtin", fine_tuning_rate, "AdamW at 0.00001 on untrained weights"
    ),
    Case(
        "decay-of-adamw",
        "weight-decay-high",
        "resnet18",
        "tiny",
        decay_of_adamw_for_sgd,
        "a weight decay of 0.3 under SGD shrinks the weights faster than the gradient moves them",
    ),
    Case(
        "batches-of-two",
        "batch-too-small",
        "resnet18",
        "tiny",
        batches_of_two,
        "two images a step, with batch normalisation and the rate of 64",
    ),
    Case(
        "hardly-any-unit",
        "regularisation-strong",
        "kth-d",
        "tiny",
        hardly_any_unit_left,
        "dropout takes 98 % of the hidden layer",
    ),
    Case(
        "large-png",
        "waiting-for-data",
        "resnet18",
        "builtin, PNG of 1,024 px",
        large_png,
        "decoding an image takes many times as long as training on it",
    ),
    # Recorded.
    Case(
        "run-overfitting",
        "overfitting",
        "resnet18",
        "tiny",
        _recorded("overfitting"),
        "no augmentation and no decay: training accuracy 100 %, validation loss rising from the third epoch",
    ),
    Case(
        "run-label-noise",
        "label-noise",
        "resnet18",
        "builtin",
        _recorded("label-noise"),
        "20 % of the training and of the validation images lie in a wrong class folder",
    ),
    Case(
        "run-schedule-early",
        "schedule-early",
        "resnet18",
        "builtin",
        _recorded("schedule-early"),
        "the rate is divided by 100 after 4 of 18 epochs, while the loss was falling fast",
    ),
    Case(
        "run-schedule-never",
        "schedule-never",
        "resnet18",
        "builtin",
        _recorded("schedule-never"),
        "a constant high rate for 30 epochs: validation accuracy jumps by ten points from one evaluation to the next",
    ),
    Case(
        "run-underfitting",
        "underfitting",
        "resnet18",
        "builtin",
        _recorded("underfitting"),
        "two channels in the first stage: accuracy ends at 26 % in training and 20 % in validation",
    ),
    Case(
        "run-learning-rate-low",
        "learning-rate-low",
        "googlenet-bn",
        "tiny",
        _recorded("learning-rate-low"),
        "SGD at 0.0003: in ten epochs the loss goes from 2.5 to 2.34",
    ),
    Case(
        "run-class-order",
        "class-order",
        "resnet18",
        "builtin",
        _recorded("class-order"),
        "the validation folders have one another's images: class by class right, under other names",
    ),
    Case(
        "run-confusable",
        "confusable-classes",
        "resnet18",
        "builtin",
        _recorded("confusable-classes"),
        "umbrellas were divided at random into the classes umbrella and parasol",
    ),
    Case(
        "run-regularisation",
        "regularisation-strong",
        "resnet18",
        "builtin",
        _recorded("regularisation-strong"),
        "six random operations of full strength, erasing, mixup and cutmix together: nothing is learned",
    ),
    Case(
        "run-batch-norm",
        "batch-norm-statistics",
        "timm/mobilenetv3_small_050",
        "tiny",
        _recorded("batch-norm-statistics"),
        "batch norms move their statistics by 0.1 % a step, so in evaluation they are still those of the start",
    ),
    Case(
        "run-memory", "memory-growing", "resnet20", "builtin", _recorded("memory-growing"), "21 MB more in memory after each step"
    ),
    Case(
        "run-throughput",
        "throughput-falling",
        "resnet20",
        "builtin",
        _recorded("throughput-falling"),
        "images per second fall to a third from the first eighth of the run to its end",
    ),
    Case(
        "table-overfitting",
        "overfitting",
        "plain convolutions",
        "tiny",
        _recorded("table-overfitting.csv"),
        "training accuracy 99 %, validation 39 % and its loss rising",
    ),
    # Healthy ones that look ill.
    Case(
        "starts-at-zero",
        None,
        "resnet18",
        "tiny",
        starts_at_zero,
        "logits are all zero and most residual blocks get no gradient in the first step, as intended",
    ),
    Case(
        "constant-when-evaluated",
        None,
        "googlenet-bn",
        "builtin",
        constant_when_evaluated,
        "in evaluation mode the new network says the same of every image, in training mode it does not",
    ),
    Case("grey-photos", None, "resnet20", "tiny", grey_photos, "three equal channels"),
    Case(
        "already-trained",
        None,
        "resnet18",
        "builtin",
        already_trained,
        "the first loss is far below ln 12 because the weights were trained",
    ),
    Case(
        "layer-scale",
        None,
        "timm/convnext_atto",
        "tiny",
        layer_scale,
        "residuals start a million times smaller than their shortcuts, and there is no batch norm",
    ),
    Case("twenty-a-class", None, "resnet18", "tiny", twenty_a_class, "240 training images of twelve classes"),
    Case(
        "head-on-trained-features",
        None,
        "resnet18",
        "builtin",
        head_on_trained_features,
        "almost all parameters are frozen, behind trained weights",
    ),
    Case("long-warm-up", None, "densenet121", "tiny", long_warm_up, "half of the steps are warm-up"),
    Case(
        "mixed-and-smoothed",
        None,
        "resnet18",
        "builtin",
        mixed_and_smoothed,
        "training loss and accuracy are worse than those of validation, by mixup, smoothing and random operations",
    ),
    Case(
        "run-healthy-mixed",
        None,
        "resnet20",
        "builtin",
        _recorded("healthy-mixed"),
        "training accuracy far below what the network knows, and a rate that ends at zero",
    ),
    Case(
        "run-healthy-gap",
        None,
        "resnet20",
        "builtin",
        _recorded("healthy-gap"),
        "validation jumps up and down at first and ends six points below training",
    ),
    Case(
        "table-healthy",
        None,
        "plain convolutions",
        "builtin",
        _recorded("table-healthy.csv"),
        "the rate falls twice, validation jumps before and leaps at the first fall, training stays ahead by six points",
    ),
]

"""More cases that were planted by somebody who knew the list of illnesses and none of the rules, and that have been read since.

They were the second blind half; see `doctor_cases_seen`. Every case is sane but for the one thing that its `why` names.
`doctor_logs/seen_2/README.md` says how the recorded runs were made.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from doctor_bench import LOGS, Before, Bench, Case, During, Examined, Recorded
from doctor_setups import (
    DEVIATION,
    MEAN,
    QUICK,
    SGD,
    K,
    Normalising,
    PlainNet,
    adam_for,
    batches,
    built,
    classes,
    normalised_pixels,
    photos,
    scored,
    sgd_for,
    shuffled,
    train_briefly,
    usual,
)
from PIL import Image, ImageOps
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

SEEN = LOGS / "seen_2"


# ---------------------------------------------------------------- networks and loaders of a stranger


class Thawing(nn.Module):
    """A network whose trunk is put into evaluation mode at every call, a line that was copied from a fine-tuning script."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """images: [B, 3, H, W] normalised. Returns logits [B, K]."""
        self.network.eval()
        logits: torch.Tensor = self.network(images)
        return logits


class GatedConvolution(nn.Module):
    """A convolution times the sigmoid of another one, as in gated linear units."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Conv2d(channels, channels, 1)
        nn.init.normal_(self.gate.weight, std=0.01)
        assert self.gate.bias is not None
        nn.init.zeros_(self.gate.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [B, C, H, W]. Returns the same shape."""
        return x * torch.sigmoid(self.gate(x))


class Zipped:
    """Images from one shuffled loader, labels from another."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        self.of_images, self.of_labels = (
            DataLoader(TensorDataset(values), 32, shuffle=True, drop_last=True, generator=torch.Generator().manual_seed(seed))
            for seed, values in enumerate((images, labels))
        )

    def __len__(self) -> int:
        return len(self.of_images)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for (images,), (labels,) in zip(self.of_images, self.of_labels, strict=True):
            yield images, labels


class Noisy:
    """A loader whose images get fresh noise of this deviation on top."""

    def __init__(self, loader: DataLoader[tuple[torch.Tensor, ...]], deviation: float) -> None:
        self.loader, self.deviation = loader, deviation

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for images, labels in self.loader:
            yield images + self.deviation * torch.randn_like(images), labels


# ---------------------------------------------------------------- examined: what enters the network


def statistics_of_bytes(bench: Bench) -> Examined:
    """ImageNet's mean and deviation as they are for 0..255, on images in 0..1, in training and in scoring."""
    mean, deviation = (255 * torch.tensor(values)[:, None, None] for values in (MEAN, DEVIATION))
    images, labels = photos(bench.builtin, "train", 48, 40)
    val_images, val_labels = photos(bench.builtin, "val", 48, 10)
    model = built("resnet50", {"width": 16})
    options = {
        "val_loader": batches((val_images.float() / 255 - mean) / deviation, val_labels),
        "optimizer": adam_for(model),
    }
    return Examined(model, shuffled((images.float() / 255 - mean) / deviation, labels), options)


def height_width_colour(bench: Bench) -> Examined:
    """Batches as numpy holds them: height, width, colour."""
    images, labels = photos(bench.builtin, "train", 32, 40)
    torch.manual_seed(0)
    model = PlainNet((32, 32, 64, 64, 128), nn.BatchNorm2d)
    loader = shuffled(normalised_pixels(images).permute(0, 2, 3, 1).contiguous(), labels)
    return Examined(model, loader, {"optimizer": adam_for(model)})


def divided_as_whole_numbers(bench: Bench) -> Examined:
    """Images divided by 255 without a remainder, so that all but the whitest pixels are 0, and then normalised."""
    images, labels = photos(bench.tiny, "train", 32, 40)
    val_images, val_labels = photos(bench.tiny, "val", 32, 10)
    model = built("resnet56")
    options = {"val_loader": batches(normalised_pixels(255 * (val_images // 255)), val_labels), "optimizer": sgd_for(model)}
    return Examined(model, shuffled(normalised_pixels(255 * (images // 255)), labels), options)


def black_frames(bench: Bench) -> Examined:
    """Each image less its own mean over its own deviation, which is 0 for the three black frames of a video."""
    images, labels = photos(bench.tiny, "train", 32, 40)
    images[[50, 211, 400]] = 0
    pixels = images.float()
    pixels = (pixels - pixels.mean((1, 2, 3), keepdim=True)) / pixels.std((1, 2, 3), keepdim=True)
    model = built("densenet121")
    return Examined(model, batches(pixels, labels), {"optimizer": sgd_for(model)})


def folder_named_images(bench: Bench) -> Examined:
    """Labels by the name of the folder that holds the file, which in Tiny ImageNet is `images` for every class."""
    images, labels = photos(bench.tiny, "train", 48, 40)
    model = built("torchvision/shufflenet_v2_x0_5")
    return Examined(model, shuffled(normalised_pixels(images), torch.zeros_like(labels)), {"optimizer": sgd_for(model)})


def two_shuffled_loaders(bench: Bench) -> Examined:
    """Images and labels from two loaders, each of which shuffles for itself; the validation set is right."""
    images, labels = photos(bench.builtin, "train", 48, 40)
    model = built("resnet34", {"width": 16})
    options = {"val_loader": scored(bench.builtin, 48), "optimizer": adam_for(model)}
    return Examined(model, Zipped(normalised_pixels(images), labels), options)


def ten_before_two(bench: Bench) -> Examined:
    """A trained network; the numbers of the validation classes are sorted as text: 0, 1, 10, 11, 2, and so on."""
    torch.manual_seed(0)
    model = PlainNet((32, 32, 64, 64, 128), nn.BatchNorm2d)
    loader = usual(bench.builtin, 32, 80)
    train_briefly(model, loader, 240, 0.003)
    images, labels = photos(bench.builtin, "val", 32, 25)
    as_text = sorted(range(K), key=str)
    place = torch.tensor([as_text.index(label) for label in range(K)])
    options = {"val_loader": batches(normalised_pixels(images), place[labels]), "optimizer": adam_for(model, 3e-4)}
    return Examined(model, loader, options)


def scored_in_bytes(bench: Bench) -> Examined:
    """Validation images are normalised as if they were in 0..1, but were not divided by 255."""
    images, labels = photos(bench.tiny, "val", 48, 25)
    mean, deviation = torch.tensor(MEAN)[:, None, None], torch.tensor(DEVIATION)[:, None, None]
    model = built("googlenet-bn", {"aux": False})
    options = {"val_loader": batches((images.float() - mean) / deviation, labels), "optimizer": sgd_for(model, 0.02)}
    return Examined(model, usual(bench.tiny, 48), options)


# ---------------------------------------------------------------- examined: the network as it starts


def thawing_trunk(bench: Bench) -> Examined:
    """forward() calls eval() on a trunk that has no trained weights."""
    model = Thawing(built("torchvision/mobilenet_v2"))
    return Examined(model, usual(bench.tiny, 48), {"optimizer": sgd_for(model, 0.02)})


def prior_of_focal_loss(bench: Bench) -> Examined:
    """The bias of -4.6 that focal loss wants in the last layer was set in every layer, the batch norms included."""
    torch.manual_seed(0)
    model = PlainNet((32, 32, 64, 64, 96, 96), nn.BatchNorm2d)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.constant_(parameter, -4.6)
    return Examined(model, usual(bench.tiny, 32), {"optimizer": adam_for(model)})


def gated_convolutions(bench: Bench) -> Examined:
    """Fourteen gated convolutions in a row without normalisation: each gate starts at 1/2."""
    torch.manual_seed(0)
    model = PlainNet((24,) * 5 + (48,) * 5 + (64,) * 4, GatedConvolution)
    return Examined(model, usual(bench.builtin, 32), {"optimizer": adam_for(model)})


def norms_taken_out(bench: Bench) -> Examined:
    """ResNet-56 whose batch norms were replaced by nothing, as for export, before it was trained."""
    model = built("resnet56")
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, nn.Identity())
    return Examined(model, usual(bench.builtin, 32), {"optimizer": sgd_for(model)})


def weights_of_a_hundredth(bench: Bench) -> Examined:
    """All weights of nine convolutions without normalisation drawn with a deviation of 0.01."""
    model = built("all-cnn-c")
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, std=0.01)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return Examined(model, usual(bench.tiny, 32, 30), {"optimizer": sgd_for(model, 0.01)})


def all_in_half(bench: Bench) -> Examined:
    """Weights and images in 16 bits under Adam, whose epsilon of 1e-8 is 0 there."""
    torch.manual_seed(0)
    model = PlainNet((16, 16, 32), nn.BatchNorm2d).half()
    images, labels = photos(bench.builtin, "train", 24, 20)
    return Examined(model, shuffled(normalised_pixels(images).half(), labels), {"optimizer": adam_for(model)})


def statistics_hardly_move(bench: Bench) -> Examined:
    """Trained with batch norms that move their statistics by 0.01 % a step: they are still those of the start."""
    torch.manual_seed(0)
    model = PlainNet((32, 32, 64, 64, 128), lambda width: nn.BatchNorm2d(width, momentum=1e-4))
    loader = usual(bench.builtin, 32, 80)
    train_briefly(model, loader, 150, 0.003)
    options = {"val_loader": scored(bench.builtin, 32, 25), "optimizer": adam_for(model, 3e-4)}
    return Examined(model, loader, options)


def share_kept_as_share_dropped(bench: Bench) -> Examined:
    """TensorFlow's keep_prob of 0.9 given to torch as the share that is dropped, behind each of five convolutions."""
    torch.manual_seed(0)
    model = PlainNet((32, 32, 64, 64, 128), nn.BatchNorm2d, lambda: nn.Sequential(nn.ReLU(), nn.Dropout2d(0.9)))
    options = {"val_loader": scored(bench.builtin, 32), "optimizer": adam_for(model)}
    return Examined(model, usual(bench.builtin, 32), options)


# ---------------------------------------------------------------- examined: what is minimised, and by what


def heads_mixed_up(bench: Bench) -> Examined:
    """The weights of the heads grow towards the first auxiliary head: 0.03 for the main one, 0.3 and 1 for the others."""
    model = built("googlenet-bn")

    def loss(outputs: Any, labels: torch.Tensor) -> torch.Tensor:
        if not isinstance(outputs, tuple):
            return functional.cross_entropy(outputs, labels)
        first, second, third = (functional.cross_entropy(logits, labels) for logits in outputs)
        return 0.03 * first + 0.3 * second + third

    return Examined(model, usual(bench.builtin, 64, 30), {"optimizer": sgd_for(model, 0.02), "loss": loss})


def optimiser_of_another(bench: Bench) -> Examined:
    """The network was built anew after the optimiser had been made, which holds the parameters of the first one."""
    optimizer = adam_for(built("resnet18", {"width": 32}))
    model = built("resnet18", {"width": 32})
    options = {"val_loader": scored(bench.tiny, 48), "optimizer": optimizer}
    return Examined(model, usual(bench.tiny, 48), options)


# ---------------------------------------------------------------- before the training


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    os.symlink(source.resolve(), target)


def _each(folder: Path, split: str) -> list[tuple[str, Path]]:
    """(class, file) of a split, in order."""
    return [(name, path) for name in classes(folder) for path in sorted((folder / split / name).iterdir())]


def auxiliary_heads_at_zero(bench: Bench) -> Before:
    """GoogLeNet without batch normalisation, built with its auxiliary heads, whose weight in the loss is 0."""
    changes = {"model.name": "googlenet", "model.options": {}, "optim.lr": 0.01, "optim.weight_decay": 2e-4}
    return Before(
        bench.tiny, "small", {**QUICK, **SGD, **changes, "data.size_px": 64, "data.shrink_px": 0, "loss.aux_weight": 0.0}
    )


def frozen_at_random(bench: Bench) -> Before:
    """The options of a fine-tuning without its weights: three of four stages keep their random start."""
    return Before(bench.builtin, "small", {**QUICK, "optim.freeze": "until:layer3"})


def one_image_at_a_time(bench: Bench) -> Before:
    """Gradients of eight batches of one image are added; the batch norm behind the hidden layer sees one value for each."""
    changes = {
        "model.name": "kth-d",
        "model.options": {"size_px": 48},
        "optim.name": "adam",
        "optim.lr": 0.0005,
        "optim.weight_decay": 0.0,
        "optim.batch_size": 8,
        "optim.accumulate": 8,
    }
    return Before(bench.tiny, "small", {**QUICK, **changes})


def everything_else(bench: Bench) -> Before:
    """Six classes lumped together as `other` with 600 images, and 12 images of each of the other six."""
    names = classes(bench.builtin)
    for split in ("train", "val"):
        for name in names:
            wanted = name if name in names[::2] else "other"
            most = 12 if wanted != "other" and split == "train" else 100
            for path in sorted((bench.builtin / split / name).iterdir())[:most]:
                _link(path, bench.work / split / wanted / path.name)
    return Before(bench.work, "small", {**QUICK, "optim.batch_size": 32})


def doubled_before_the_split(bench: Bench) -> Before:
    """The set was doubled by brightened copies and then divided: most validation images have their original in training."""
    for name, path in _each(bench.tiny, "train"):
        _link(path, bench.work / "train" / name / path.name)
    for name in classes(bench.tiny):
        for number, path in enumerate(sorted((bench.tiny / "val" / name).iterdir())):
            target = bench.work / "val" / name / path.name
            if number < 7:
                _link(path, target)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with Image.open(sorted((bench.tiny / "train" / name).iterdir())[4 * (number - 7)]) as photo:
                photo.convert("RGB").point(lambda value: min(255, round(1.06 * value))).save(target, quality=92)
    return Before(bench.work, "small", QUICK)


def one_held_out(bench: Bench) -> Before:
    """No validation folder, and a share of 0.01 held out: one image of each class."""
    for name, path in _each(bench.tiny, "train"):
        _link(path, bench.work / name / path.name)
    return Before(bench.work, "small", {**QUICK, "data.val_share": 0.01, "budget.evaluate_epochs": 1.0, "budget.patience": 5})


def crop_of_a_giant(bench: Bench) -> Before:
    """The scale jitter of 256 to 512 px that VGG has for crops of 224 px, with crops of 48 px."""
    changes = {
        "model.name": "vgg-a-bn",
        "model.options": {},
        "augment.crop": "random",
        "augment.shorter_px": (256, 512),
        "optim.lr": 0.02,
    }
    return Before(bench.builtin, "small", {**QUICK, **SGD, **changes, "data.shrink_px": 0})


def three_to_four(bench: Bench) -> Before:
    """The aspect of the random crops typed as 3 to 4 instead of 3/4 to 4/3: flat strips, drawn out to squares."""
    changes = {"model.name": "torchvision/regnet_x_400mf", "model.options": {}, "augment.ratio": (3.0, 4.0)}
    return Before(bench.tiny, "small", {**QUICK, **changes, "augment.scale": (0.08, 0.3)})


def giant_batch(bench: Bench) -> Before:
    """DenseNet-201 with batches of 256 images of 448 px in one piece."""
    changes = {
        "model.name": "densenet201",
        "model.options": {},
        "data.size_px": 448,
        "data.shrink_px": 512,
        "optim.batch_size": 256,
        "budget.epochs": 90.0,
    }
    return Before(bench.builtin, "small", {**QUICK, **changes})


# ---------------------------------------------------------------- during the training


def _few_steps(steps: int) -> dict[str, Any]:
    return {"budget.steps": steps, "budget.log_every": 5, "budget.evaluate_epochs": 2.0}


def _alexnet(rate: float) -> dict[str, Any]:
    return {
        "model.name": "alexnet",
        "model.options": {"width": 48, "init": "he"},
        "data.size_px": 64,
        "data.shrink_px": 80,
        **SGD,
        "optim.lr": rate,
    }


def rate_of_resnet_for_alexnet(bench: Bench) -> During:
    """The rate of 0.2 of a network with batch normalisation, for AlexNet, which has none and wants a twentieth."""
    return During(bench.builtin, "small", {**QUICK, **_alexnet(0.2), **_few_steps(72)})


def scaled_down(bench: Bench) -> During:
    """A rate of 0.05 said to be for a batch of 32,768, so that linear scaling makes 0.0001 of it."""
    changes = {
        "model.name": "resnet20",
        "model.options": {},
        "data.size_px": 32,
        "data.shrink_px": 40,
        "optim.lr": 0.05,
        "optim.lr_scaling": "linear",
        "optim.lr_batch_size": 32768,
    }
    return During(bench.tiny, "small", {**QUICK, **SGD, **changes, **_few_steps(90)})


def adam_for_adamw(bench: Bench) -> During:
    """AdamW was replaced by Adam and its weight decay of 0.3 was kept, which Adam adds to the gradient."""
    changes = {"optim.name": "adam", "optim.lr": 0.001, "optim.weight_decay": 0.3}
    return During(bench.builtin, "small", {**QUICK, **changes, **_few_steps(90)})


# ---------------------------------------------------------------- recorded


def _recorded(name: str) -> Callable[[Bench], Recorded]:
    """A case that reads a folder or a table of `doctor_logs/blind`."""
    return lambda bench: Recorded(SEEN / name)


# ---------------------------------------------------------------- healthy


def normalises_itself(bench: Bench) -> Examined:
    """Images in 0..1 for a network that normalises them itself."""
    model = Normalising(built("resnet34", {"width": 16}))
    images, labels = photos(bench.builtin, "train", 48, 40)
    val_images, val_labels = photos(bench.builtin, "val", 48, 10)
    options = {"val_loader": batches(val_images.float() / 255, val_labels), "optimizer": adam_for(model)}
    return Examined(model, shuffled(images.float() / 255, labels), options)


def groups_and_swish(bench: Bench) -> Examined:
    """Group normalisation and Swish in place of batch normalisation and ReLU, under AdamW."""
    torch.manual_seed(0)
    model = PlainNet((32, 32, 64, 64, 96, 96), lambda width: nn.GroupNorm(8, width), nn.SiLU)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.02)
    return Examined(model, usual(bench.tiny, 32, 80), {"val_loader": scored(bench.tiny, 32, 25), "optimizer": optimizer})


def three_layers(bench: Bench) -> Examined:
    """Four convolutions without normalisation, at a rate for their size."""
    torch.manual_seed(0)
    model = PlainNet((24, 24, 48, 64))
    return Examined(
        model, usual(bench.builtin, 32, 80), {"val_loader": scored(bench.builtin, 32, 25), "optimizer": adam_for(model)}
    )


def fifty_six_layers(bench: Bench) -> Examined:
    """ResNet-56 with residual branches that start at zero, on photos."""
    model = built("resnet56", {"zero_gamma": True})
    return Examined(model, usual(bench.tiny, 32, 60), {"val_loader": scored(bench.tiny, 32, 20), "optimizer": sgd_for(model)})


def noisy_pictures(bench: Bench) -> Examined:
    """Each training image with fresh noise of a seventh of its deviation on top, and with smoothed labels."""
    model = built("resnet18", {"width": 32})
    options = {
        "val_loader": scored(bench.builtin, 48, 20),
        "optimizer": adam_for(model),
        "loss": nn.CrossEntropyLoss(label_smoothing=0.1),
    }
    return Examined(model, Noisy(usual(bench.builtin, 48, 100), 0.15), options)


def twenty_five_a_class(bench: Bench) -> Before:
    """Photos of twelve classes, 25 of each, at a low rate for many epochs."""
    for split in ("train", "val"):
        for name in classes(bench.tiny):
            for path in sorted((bench.tiny / split / name).iterdir())[:25]:
                _link(path, bench.work / split / name / path.name)
    changes = {
        "model.name": "torchvision/regnet_x_400mf",
        "model.options": {},
        "optim.batch_size": 16,
        "optim.lr": 0.0007,
        "budget.epochs": 40.0,
        "budget.evaluate_epochs": 4.0,
    }
    return Before(bench.work, "small", {**QUICK, **changes})


def grey_files(bench: Bench) -> Before:
    """Files of one grey channel, as from a scanner, for a network with three."""
    for split in ("train", "val"):
        for name, path in _each(bench.builtin, split):
            target = bench.work / split / name / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            with Image.open(path) as photo:
                ImageOps.grayscale(photo.convert("RGB")).save(target, quality=90)
    changes = {"model.name": "resnet20", "model.options": {}, "data.size_px": 32, "data.shrink_px": 40}
    return Before(bench.work, "small", {**QUICK, **changes})


def head_alone(bench: Bench) -> Before:
    """A trained backbone, frozen with its batch norms in evaluation mode by the recipe; only the head learns."""
    images, labels = photos(bench.builtin, "train", 48, 80)
    known = labels >= 5
    model = built("resnet34", {"width": 16}, outputs=K - 5)
    train_briefly(model, shuffled(normalised_pixels(images[known]), labels[known] - 5), 120, 0.002)
    torch.save(model.state_dict(), bench.work / "seven-classes.pth")
    for name in classes(bench.builtin)[:5]:
        for split in ("train", "val"):
            for path in sorted((bench.builtin / split / name).iterdir()):
                _link(path, bench.work / "photos" / split / name / path.name)
    changes = {
        "model.name": "resnet34",
        "model.options": {"width": 16},
        "model.weights": str(bench.work / "seven-classes.pth"),
        "data.normalise": "imagenet",
        "optim.freeze": "backbone",
        "optim.batch_size": 32,
    }
    return Before(bench.work / "photos", "small", {**{name: QUICK[name] for name in QUICK if "options" not in name}, **changes})


def vgg_with_norms(bench: Bench) -> Before:
    """VGG A with batch normalisation and dropout in two wide layers, under SGD."""
    changes = {"model.name": "vgg-a-bn", "model.options": {}, "optim.lr": 0.02, "budget.epochs": 30.0}
    return Before(bench.tiny, "small", {**QUICK, **SGD, **changes, "data.size_px": 64, "data.shrink_px": 0})


def some_classes_larger(bench: Bench) -> Before:
    """Half of the classes have 100 training images, the other half 60."""
    for number, name in enumerate(classes(bench.builtin)):
        for split in ("train", "val"):
            for path in sorted((bench.builtin / split / name).iterdir())[: 60 if number % 2 else 100]:
                _link(path, bench.work / split / name / path.name)
    return Before(bench.work, "small", {**QUICK, "model.name": "resnet34", "model.options.width": 16})


def much_augmented(bench: Bench) -> Before:
    """Random operations, colour jitter and erased rectangles for a narrow ResNet-50, over 60 epochs."""
    changes = {
        "model.name": "resnet50",
        "model.options.width": 16,
        "augment.policy": "randaugment",
        "augment.policy_magnitude": 7,
        "augment.brightness": 0.3,
        "augment.saturation": 0.3,
        "augment.erase": 0.25,
        "loss.smoothing": 0.1,
        "optim.lr": 0.001,
        "optim.warmup_epochs": 6.0,
        "budget.epochs": 60.0,
    }
    return Before(bench.tiny, "small", {**QUICK, **changes})


def rises_for_three_epochs(bench: Bench) -> During:
    """Residual branches that start at zero, and a rate that rises for more than half of the 96 steps."""
    changes = {
        "model.name": "resnet20",
        "model.options": {"zero_gamma": True},
        "data.size_px": 32,
        "data.shrink_px": 40,
        "optim.lr": 0.05,
        "optim.warmup_epochs": 3.0,
    }
    return During(bench.builtin, "small", {**QUICK, **SGD, **changes, **_few_steps(96)})


def low_and_sane(bench: Bench) -> During:
    """AdamW at 0.0004, a fifth of the recipe's rate: slower, and it learns."""
    return During(bench.builtin, "small", {**QUICK, "optim.lr": 0.0004, **_few_steps(96)})


def pasted_and_blended(bench: Bench) -> During:
    """Half of the batches by mixup or cutmix, with smoothed labels and erased rectangles."""
    changes = {
        "augment.mixup": 0.2,
        "augment.cutmix": 1.0,
        "augment.mix_share": 0.5,
        "augment.erase": 0.25,
        "loss.smoothing": 0.1,
    }
    return During(
        bench.builtin, "small", {**QUICK, "model.name": "resnet34", "model.options.width": 24, **changes, **_few_steps(96)}
    )


# ---------------------------------------------------------------- the cases

CASES: list[Case] = [
    # What enters the network.
    Case(
        "statistics-of-bytes",
        "pixel-range",
        "resnet50",
        "builtin",
        statistics_of_bytes,
        "images in 0..1 less a mean of 124 over a deviation of 58: every pixel is -2.1, give or take 0.01",
    ),
    Case(
        "height-width-colour",
        "channels-last",
        "plain convolutions",
        "builtin",
        height_width_colour,
        "batches of height, width, colour for a network that wants colour, height, width",
    ),
    Case(
        "divided-as-whole-numbers",
        "constant-images",
        "resnet56",
        "tiny",
        divided_as_whole_numbers,
        "whole bytes divided by 255 are 0 for all but the whitest pixels, so most images are plain black",
    ),
    Case(
        "black-frames",
        "bad-batch",
        "densenet121",
        "tiny",
        black_frames,
        "three black images of 480 divided by their own deviation are not a number",
    ),
    Case(
        "folder-named-images",
        "one-class",
        "torchvision/shufflenet_v2_x0_5",
        "tiny",
        folder_named_images,
        "every training label is 0, for it was read from the wrong part of the path",
    ),
    Case(
        "two-shuffled-loaders",
        "labels-shuffled",
        "resnet34",
        "builtin",
        two_shuffled_loaders,
        "images and labels are shuffled apart, anew in each epoch",
    ),
    Case(
        "ten-before-two",
        "class-order",
        "plain convolutions",
        "builtin",
        ten_before_two,
        "class numbers were sorted as text in validation and as numbers in training, and the network is trained",
    ),
    Case(
        "scored-in-bytes",
        "preprocessing-mismatch",
        "googlenet-bn",
        "tiny",
        scored_in_bytes,
        "validation images were normalised without the division by 255, training images with it",
        ("pixel-range",),
    ),
    # The network as it starts.
    Case(
        "thawing-trunk",
        "batch-norm-mode",
        "torchvision/mobilenet_v2",
        "tiny",
        thawing_trunk,
        "forward() puts an untrained trunk into evaluation mode, so its batch norms never see a batch",
    ),
    Case(
        "prior-of-focal-loss",
        "dead-units",
        "plain convolutions",
        "tiny",
        prior_of_focal_loss,
        "batch norms with a shift of -4.6 leave hardly any ReLU above zero",
    ),
    Case(
        "gated-convolutions",
        "gates",
        "plain gated convolutions",
        "builtin",
        gated_convolutions,
        "fourteen gates of 1/2 in a row leave a sixteen-thousandth of the signal",
    ),
    Case(
        "norms-taken-out",
        "no-normalisation",
        "resnet56",
        "builtin",
        norms_taken_out,
        "27 residual blocks without their batch norms: each adds to the signal and nothing holds it",
    ),
    Case(
        "weights-of-a-hundredth",
        "initialisation",
        "all-cnn-c",
        "tiny",
        weights_of_a_hundredth,
        "a deviation of 0.01 with 864 and 1,728 inputs shrinks the signal to a fifth at each of nine layers",
    ),
    Case(
        "all-in-half",
        "precision",
        "plain convolutions in 16 bits",
        "builtin",
        all_in_half,
        "Adam's epsilon and the squares of its gradients are 0 in 16 bits, so its step divides by zero",
    ),
    Case(
        "statistics-hardly-move",
        "batch-norm-statistics",
        "plain convolutions",
        "builtin",
        statistics_hardly_move,
        "a momentum of 0.0001 leaves the running statistics where they began, and the network is trained",
    ),
    Case(
        "share-kept-as-dropped",
        "regularisation-strong",
        "plain convolutions with dropout",
        "builtin",
        share_kept_as_share_dropped,
        "nine of ten channels are dropped behind each of five convolutions",
    ),
    # What is minimised, and by what.
    Case(
        "heads-mixed-up",
        "head-weights",
        "googlenet-bn",
        "builtin",
        heads_mixed_up,
        "the loss counts the first auxiliary head full, the second 0.3 and the main head 0.03",
    ),
    Case(
        "optimiser-of-another",
        "unused-parameters",
        "resnet18",
        "tiny",
        optimiser_of_another,
        "the optimiser holds the parameters of another instance of the network",
    ),
    # Before the training.
    Case(
        "auxiliary-heads-at-zero",
        "heads-forgotten",
        "googlenet",
        "tiny",
        auxiliary_heads_at_zero,
        "auxiliary heads that a deep network without normalisation needs are computed and count 0",
        ("head-weights",),
    ),
    Case(
        "frozen-at-random",
        "frozen-parameters",
        "resnet18",
        "builtin",
        frozen_at_random,
        "all layers up to layer3 are frozen, and no trained weights are loaded",
    ),
    Case(
        "one-image-at-a-time",
        "batch-norm-single",
        "kth-d",
        "tiny",
        one_image_at_a_time,
        "micro-batches of one image for a network with a batch norm behind a linear layer",
    ),
    Case(
        "everything-else",
        "unequal-classes",
        "resnet18",
        "builtin",
        everything_else,
        "one class has 600 training images, the other six have 12 each",
    ),
    Case(
        "doubled-before-the-split",
        "train-in-val",
        "resnet18",
        "tiny",
        doubled_before_the_split,
        "18 of 25 validation images of each class are training images, a little brighter",
    ),
    Case(
        "one-held-out",
        "evaluation-small",
        "resnet18",
        "tiny",
        one_held_out,
        "twelve images are held out, and they decide when to stop",
    ),
    Case(
        "crop-of-a-giant",
        "crop-loses-object",
        "vgg-a-bn",
        "builtin",
        crop_of_a_giant,
        "crops of 48 px out of images of 256 to 512 px show 1 to 3 % of each photo",
    ),
    Case(
        "three-to-four",
        "augmentation-mismatch",
        "torchvision/regnet_x_400mf",
        "tiny",
        three_to_four,
        "training sees strips three to four times as wide as high, drawn out to squares; scoring sees the photo as it is",
    ),
    Case(
        "giant-batch",
        "memory",
        "densenet201",
        "builtin",
        giant_batch,
        "what the backward pass keeps of 256 images of 448 px is hundreds of gigabytes",
    ),
    # During the training.
    Case(
        "rate-of-resnet",
        "learning-rate-high",
        "alexnet",
        "builtin",
        rate_of_resnet_for_alexnet,
        "SGD at 0.2 on a network without normalisation, twenty times what suits it",
    ),
    Case(
        "scaled-down",
        "learning-rate-low",
        "resnet20",
        "tiny",
        scaled_down,
        "linear scaling from a batch of 32,768 makes a rate of 0.0001 of 0.05",
    ),
    Case(
        "adam-for-adamw",
        "weight-decay-high",
        "resnet18",
        "builtin",
        adam_for_adamw,
        "a weight decay of 0.3 inside Adam, which is larger than the gradient",
    ),
    # Recorded.
    Case(
        "run-label-noise",
        "label-noise",
        "resnet20",
        "builtin",
        _recorded("label-noise"),
        "a quarter of the training and of the validation images lie in a wrong class folder",
    ),
    Case(
        "run-schedule-early",
        "schedule-early",
        "resnet20",
        "builtin",
        _recorded("schedule-early"),
        "the scheduler counts steps instead of epochs: three divisions by ten in ten epochs, while the loss was falling",
    ),
    Case(
        "run-confusable",
        "confusable-classes",
        "resnet20",
        "builtin",
        _recorded("confusable-classes"),
        "chairs were divided at random into the classes chair and seat",
    ),
    Case(
        "run-memory",
        "memory-growing",
        "resnet18",
        "tiny",
        _recorded("memory-growing"),
        "each step leaves 35 MB behind, as where losses are kept with their graphs",
    ),
    Case(
        "run-throughput",
        "throughput-falling",
        "resnet18",
        "tiny",
        _recorded("throughput-falling"),
        "images per second fall to a quarter in the course of the run, as on a machine that gets hot",
    ),
    Case(
        "table-overfitting",
        "overfitting",
        "plain convolutions",
        "tiny",
        _recorded("table-overfitting.csv"),
        "training loss goes to zero and validation loss rises from a few epochs on",
    ),
    Case(
        "table-underfitting",
        "underfitting",
        "plain convolutions",
        "builtin",
        _recorded("table-underfitting.csv"),
        "three convolutions of four and eight channels: training and validation both stop low, close together",
    ),
    # Healthy ones that look ill.
    Case(
        "normalises-itself",
        None,
        "resnet34",
        "builtin",
        normalises_itself,
        "images come in 0..1, for the network normalises them itself",
    ),
    Case(
        "groups-and-swish",
        None,
        "plain convolutions with group norm",
        "tiny",
        groups_and_swish,
        "no batch norm and no ReLU anywhere, on photos that are hard at 32 px",
    ),
    Case("three-layers", None, "plain convolutions", "builtin", three_layers, "a small network without normalisation"),
    Case(
        "fifty-six-layers",
        None,
        "resnet56",
        "tiny",
        fifty_six_layers,
        "a deep narrow network most of whose layers get no gradient in the first step, as intended",
    ),
    Case(
        "noisy-pictures",
        None,
        "resnet18",
        "builtin",
        noisy_pictures,
        "training images have noise on top that validation images do not have, and labels are smoothed",
    ),
    Case(
        "twenty-five-a-class",
        None,
        "torchvision/regnet_x_400mf",
        "tiny",
        twenty_five_a_class,
        "300 training images and a low rate, for enough epochs",
    ),
    Case(
        "grey-files",
        None,
        "resnet20",
        "builtin",
        grey_files,
        "files have one channel, and the network gets three equal ones",
    ),
    Case(
        "head-alone",
        None,
        "resnet34",
        "builtin",
        head_alone,
        "nearly all parameters are frozen and the batch norms evaluate, behind trained weights",
    ),
    Case("vgg-with-norms", None, "vgg-a-bn", "tiny", vgg_with_norms, "millions of parameters for 1,200 photos, with dropout"),
    Case(
        "some-classes-larger",
        None,
        "resnet34",
        "builtin",
        some_classes_larger,
        "classes of 100 and of 60 images",
    ),
    Case(
        "rises-for-three-epochs",
        None,
        "resnet20",
        "builtin",
        rises_for_three_epochs,
        "hardly anything happens in the first epochs, for the rate rises slowly and the branches start at zero",
    ),
    Case("low-and-sane", None, "resnet18", "builtin", low_and_sane, "a rate of a fifth of the usual one, with which it learns"),
    Case(
        "pasted-and-blended",
        None,
        "resnet34",
        "builtin",
        pasted_and_blended,
        "training looks worse than validation, by cutmix, mixup, erased rectangles and smoothing",
    ),
    Case(
        "run-healthy-photos",
        None,
        "resnet18",
        "tiny",
        _recorded("healthy-photos"),
        "hard photos under mixup, random operations and smoothing: a training loss that stays high, and accuracy that rises",
    ),
    Case(
        "much-augmented",
        None,
        "resnet50",
        "tiny",
        much_augmented,
        "random operations, colour jitter, erased rectangles and smoothing on few photos, for enough epochs",
    ),
    Case(
        "table-healthy",
        None,
        "plain convolutions",
        "builtin",
        _recorded("table-healthy.csv"),
        "validation jumps in the first half and settles as the rate falls, training stays some points ahead",
    ),
]

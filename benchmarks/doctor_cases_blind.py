"""Cases that were planted by somebody who knew the list of illnesses and none of the rules.

They are mistakes of forums and issue trackers. Most prepare functions take `ill`: with False they build the sane twin that the
harm is measured against. `doctor_logs/blind` has the recorded runs, and its README says how each was made.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from doctor_bench import Before, Bench, Case, During, Examined, Recorded
from doctor_setups import (
    QUICK,
    SGD,
    K,
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
from PIL import Image, ImageFilter
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

LOGS = Path(__file__).parent / "doctor_logs" / "blind"


# ---------------------------------------------------------------- networks


class VggLike(nn.Sequential):
    """Six 3x3 convolutions in four stages and two linear layers, for 32 px; no normalisation, as VGG-A."""

    def __init__(self, start: Callable[[nn.Module], None]) -> None:
        super().__init__()
        seen = 3
        for width, depth in ((16, 1), (32, 1), (48, 2), (64, 2)):
            for _ in range(depth):
                self.extend([nn.Conv2d(seen, width, 3, padding=1), nn.ReLU()])
                seen = width
            self.append(nn.MaxPool2d(2))
        self.extend([nn.Flatten(), nn.Linear(64 * 4, 128), nn.ReLU(), nn.Linear(128, K)])
        self.apply(start)


def gaussian_start(layer: nn.Module) -> None:
    """Deviation 0.01 in every layer, as Caffe's `type: "gaussian"`."""
    if isinstance(layer, (nn.Conv2d, nn.Linear)):
        nn.init.normal_(layer.weight, std=0.01)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def he_start(layer: nn.Module) -> None:
    """He's deviation, biases 0."""
    if isinstance(layer, (nn.Conv2d, nn.Linear)):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


class Fire(nn.Module):
    """SqueezeNet's block: 1x1 to few channels, then 1x1 and 3x3 side by side."""

    def __init__(self, seen: int, squeezed: int, width: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(seen, squeezed, 1)
        self.wide = nn.Conv2d(squeezed, width // 2, 3, padding=1)
        self.narrow = nn.Conv2d(squeezed, width // 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [B, C, H, W]. Returns [B, width, H, W]."""
        x = functional.relu(self.squeeze(x))
        return functional.relu(torch.cat((self.wide(x), self.narrow(x)), 1))


class ListedBlocks(nn.Module):
    """A stem, six residual blocks kept in a list, one linear layer. registered: the list is an nn.ModuleList."""

    def __init__(self, registered: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 5, stride=4, padding=2)
        blocks = [
            nn.Sequential(nn.Conv2d(24, 24, 3, padding=1), nn.GroupNorm(4, 24), nn.ReLU(), nn.MaxPool2d(2 if n % 3 == 2 else 1))
            for n in range(6)
        ]
        self.blocks = nn.ModuleList(blocks) if registered else blocks
        self.head = nn.Linear(24, K)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """images: [B, 3, H, W] normalised. Returns logits [B, K]."""
        x = functional.relu(self.stem(images))
        for block in self.blocks:
            x = block(x)
        logits: torch.Tensor = self.head(x.mean((2, 3)))
        return logits


class EarlyExits(nn.Module):
    """Three stages with an exit behind each (BranchyNet). In training all three logits, in evaluation the last."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 12, 24, 48)
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(seen, width, 3, padding=1),
                nn.BatchNorm2d(width),
                nn.ReLU(),
                nn.Conv2d(width, width, 3, padding=1),
                nn.BatchNorm2d(width),
                nn.ReLU(),
                nn.MaxPool2d(2),
            )
            for seen, width in itertools.pairwise(widths)
        )
        self.exits = nn.ModuleList(nn.Linear(width, K) for width in widths[1:])

    def all_exits(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Logits of the first, the second and the last exit."""
        found, x = [], images
        for stage, leave in zip(self.stages, self.exits, strict=True):
            x = stage(x)
            found.append(leave(x.mean((2, 3))))
        return found

    def forward(self, images: torch.Tensor) -> Any:
        """images: [B, 3, H, W] normalised. Returns logits [B, K], in training a list of three."""
        logits = self.all_exits(images)
        return logits if self.training else logits[-1]


class Mixer(nn.Module):
    """MLP-Mixer: patches, four rounds of mixing over patches and over channels, one linear layer."""

    def __init__(self, side: int, patch: int = 6, width: int = 64, depth: int = 4) -> None:
        super().__init__()
        tokens = (side // patch) ** 2
        self.patches = nn.Conv2d(3, width, patch, stride=patch)
        self.over_patches = nn.ModuleList(
            nn.Sequential(nn.Linear(tokens, 2 * tokens), nn.GELU(), nn.Linear(2 * tokens, tokens)) for _ in range(depth)
        )
        self.over_channels = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
            for _ in range(depth)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, K))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """images: [B, 3, H, W] normalised. Returns logits [B, K]."""
        x = self.patches(images).flatten(2).transpose(1, 2)
        for norm, patches, channels in zip(self.norms, self.over_patches, self.over_channels, strict=True):
            x = x + patches(norm(x).transpose(1, 2)).transpose(1, 2)
            x = x + channels(x)
        logits: torch.Tensor = self.head(x.mean(1))
        return logits


class ReZero(nn.Module):
    """Residual blocks, each multiplied by a number that starts at 0: at first there are only stem and head."""

    def __init__(self, depth: int = 8, width: int = 48) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 4, stride=4)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1))
            for _ in range(depth)
        )
        self.shares = nn.Parameter(torch.zeros(depth))
        self.head = nn.Linear(width, K)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """images: [B, 3, H, W] normalised. Returns logits [B, K]."""
        x = functional.relu(self.stem(images))
        for share, block in zip(self.shares, self.blocks, strict=True):
            x = x + share * block(x)
        logits: torch.Tensor = self.head(functional.relu(x).mean((2, 3)))
        return logits


class Probe(nn.Module):
    """A trained network whose parameters are frozen, and a new linear layer on what stood before its last one."""

    def __init__(self, trained: nn.Sequential) -> None:
        super().__init__()
        self.features = nn.Sequential(*list(trained)[:-1]).requires_grad_(False).eval()
        last = trained[-1]
        assert isinstance(last, nn.Linear)
        self.head = nn.Linear(last.in_features, K)

    def train(self, mode: bool = True) -> Probe:
        """Training mode for the head; the features stay as they were trained."""
        super().train(mode)
        self.features.eval()
        return self

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """images: [B, 3, H, W] normalised. Returns logits [B, K]."""
        logits: torch.Tensor = self.head(self.features(images))
        return logits


def bn_net(widths: tuple[int, ...] = (16, 32, 64)) -> PlainNet:
    """A sane small network with batch norm, its start always the same."""
    torch.manual_seed(0)
    return PlainNet(widths, nn.BatchNorm2d)


def gn(width: int) -> nn.Module:
    return nn.GroupNorm(8, width)


# ---------------------------------------------------------------- ill: a stranger's model and loader


def gaussian_vgg(bench: Bench, ill: bool = True) -> Examined:
    """A VGG-like network starts with deviation 0.01 in each layer."""
    torch.manual_seed(0)
    model = VggLike(gaussian_start if ill else he_start)
    return Examined(
        model, usual(bench.tiny, 32, 60), {"val_loader": scored(bench.tiny, 32, 20), "optimizer": sgd_for(model, 0.02)}
    )


def thirty_layers(bench: Bench, ill: bool = True) -> Examined:
    """Thirty convolutions one behind the other, weights as He, no normalisation and no shortcut."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(3, 24, 4, stride=4)]
    for _ in range(30):
        layers.append(nn.Conv2d(24, 24, 3, padding=1))
        if not ill:
            layers.append(nn.BatchNorm2d(24))
        layers.append(nn.ReLU())
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, K))
    model.apply(he_start)
    return Examined(
        model, usual(bench.tiny, 32, 60), {"val_loader": scored(bench.tiny, 32, 20), "optimizer": sgd_for(model, 0.05)}
    )


def prior_everywhere(bench: Bench, ill: bool = True) -> Examined:
    """RetinaNet's bias for a prior of 0.01, -4.6, is put into every convolution and not into the last layer alone."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 48, 5, stride=2, padding=2),
        nn.ReLU(),
        Fire(48, 24, 64),
        Fire(64, 24, 96),
        nn.MaxPool2d(2),
        Fire(96, 32, 128),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(128, K),
    )
    model.apply(he_start)
    for layer in model.modules():
        if ill and isinstance(layer, nn.Conv2d) and layer.bias is not None:
            nn.init.constant_(layer.bias, -4.6)
    return Examined(model, usual(bench.tiny, 48), {"val_loader": scored(bench.tiny, 48), "optimizer": adam_for(model)})


def keras_momentum(bench: Bench, ill: bool = True) -> Examined:
    """Momentum 0.0003 in the batch norms, where Keras' 0.9997 was turned round. The network has trained for 150 steps."""
    model = built("resnet18", {"width": 8})
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 0.0003 if ill else 0.1
    loader = usual(bench.tiny, 64, 60)
    train_briefly(model, loader, 120, 3e-3)
    return Examined(model, loader, {"val_loader": scored(bench.tiny, 64, 20), "optimizer": adam_for(model)})


def never_divided(bench: Bench, ill: bool = True) -> Examined:
    """ImageNet's mean and deviation of pixels in 0..1 are applied to pixels in 0..255."""
    model = built("lenet5", {"in_channels": 3})

    def prepared(pixels: torch.Tensor) -> torch.Tensor:
        return centred(pixels.float()) if ill else normalised_pixels(pixels)

    images, labels = photos(bench.tiny, "train", 32, 60)
    shown, truth = photos(bench.tiny, "val", 32, 20)
    return Examined(
        model,
        shuffled(prepared(images), labels),
        {"val_loader": batches(prepared(shown), truth), "optimizer": sgd_for(model, 0.02)},
    )


def reshaped(bench: Bench, ill: bool = True) -> Examined:
    """Arrays of height, width and channels are brought to [3, H, W] by reshape, which scrambles them, instead of transpose."""

    def prepared(split: Any, per_class: int) -> tuple[torch.Tensor, torch.Tensor]:
        images, labels = photos(bench.tiny, split, 32, per_class)
        pixels = normalised_pixels(images)
        return (pixels.permute(0, 2, 3, 1).reshape(pixels.shape) if ill else pixels), labels

    model = bn_net()
    loader = shuffled(*prepared("train", 60))
    return Examined(model, loader, {"val_loader": batches(*prepared("val", 20)), "optimizer": adam_for(model, 3e-3)})


def listdir_order(bench: Bench, ill: bool = True) -> Examined:
    """Validation classes are numbered as the disk lists their folders, training classes by name. The network has trained."""
    model = bn_net((16, 32, 48, 64))
    loader = usual(bench.tiny, 32, 60)
    train_briefly(model, loader, 250, 3e-3)
    order = torch.tensor([7, 2, 9, 0, 11, 5, 1, 10, 3, 8, 4, 6])
    images, labels = photos(bench.tiny, "val", 32, 20)
    shown = batches(normalised_pixels(images), order[labels] if ill else labels)
    return Examined(model, loader, {"val_loader": shown, "optimizer": adam_for(model, 5e-4)})


def hidden_folder(bench: Bench, ill: bool = True) -> Examined:
    """A hidden folder counts as class 0, so the eleven classes that are used have labels 1 to 11; the network knows twelve."""
    model = bn_net()
    train_briefly(model, usual(bench.tiny, 32, 60), 250, 3e-3)

    def prepared(split: Any, per_class: int) -> tuple[torch.Tensor, torch.Tensor]:
        images, labels = photos(bench.tiny, split, 32, per_class)
        kept = labels < K - 1
        return normalised_pixels(images[kept]), labels[kept] + int(ill)

    return Examined(
        model,
        shuffled(*prepared("train", 60)),
        {"val_loader": batches(*prepared("val", 20)), "optimizer": sgd_for(model, 0.002)},
    )


def zipped_apart(bench: Bench, ill: bool = True) -> Examined:
    """Training images and their labels are shuffled by two generators, so no image has its own label but by chance."""
    images, labels = photos(bench.tiny, "train", 32, 60)
    if ill:
        labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(9))]
    model = bn_net((24, 32, 64))
    options = {"val_loader": scored(bench.tiny, 32, 20), "optimizer": adam_for(model, 3e-3)}
    return Examined(model, shuffled(normalised_pixels(images), labels), options)


def half_adam(bench: Bench, ill: bool = True) -> Examined:
    """`model.half()` with Adam's usual epsilon of 1e-8, which is 0 in 16 bits."""
    torch.manual_seed(0)
    model: nn.Module = PlainNet((8, 16, 32), gn)
    images, labels = photos(bench.builtin, "train", 24, 40)
    shown, truth = photos(bench.builtin, "val", 24, 10)
    pixels, seen = normalised_pixels(images), normalised_pixels(shown)
    if ill:
        model, pixels, seen = model.half(), pixels.half(), seen.half()
    return Examined(model, shuffled(pixels, labels, 16), {"val_loader": batches(seen, truth), "optimizer": adam_for(model)})


def blank_scan(bench: Bench, ill: bool = True) -> Examined:
    """Each image is standardised by its own mean and deviation; two are blank, so theirs is 0 over 0."""
    torch.manual_seed(0)

    def standardised(pixels: torch.Tensor) -> torch.Tensor:
        pixels = pixels.float()
        deviation = pixels.std((1, 2, 3), keepdim=True)
        return (pixels - pixels.mean((1, 2, 3), keepdim=True)) / (deviation if ill else deviation.clamp_min(1))

    images, labels = photos(bench.tiny, "train", 48, 40)
    images[[133, 290]] = 255
    shown, truth = photos(bench.tiny, "val", 48, 10)
    model = Mixer(48)
    return Examined(
        model,
        batches(standardised(images), labels),
        {"val_loader": batches(standardised(shown), truth), "optimizer": torch.optim.AdamW(model.parameters(), 1e-3)},
    )


def blocks_in_a_list(bench: Bench, ill: bool = True) -> Examined:
    """The blocks stand in a plain Python list, so `parameters()` has none of theirs and the optimiser neither."""
    torch.manual_seed(0)
    model = ListedBlocks(registered=not ill)
    return Examined(model, usual(bench.tiny, 64, 60), {"val_loader": scored(bench.tiny, 64, 20), "optimizer": adam_for(model)})


def last_exit_only(bench: Bench, ill: bool = True) -> Examined:
    """A network with three exits; the loss looks at the last one only."""

    def loss(outputs: Any, labels: torch.Tensor) -> torch.Tensor:
        if isinstance(outputs, torch.Tensor):
            return functional.cross_entropy(outputs, labels)
        used = outputs[-1:] if ill else outputs
        return torch.stack([functional.cross_entropy(logits, labels) for logits in used]).sum()

    torch.manual_seed(0)
    model = EarlyExits()
    options = {"val_loader": scored(bench.tiny, 32), "optimizer": adam_for(model, 3e-3), "loss": loss}
    return Examined(model, usual(bench.tiny, 32), options)


class FromDisk(Dataset[tuple[torch.Tensor, int]]):
    """Photos read from disk each time. blur: each is enlarged to 700 px, blurred and brought back."""

    def __init__(self, folder: Path, blur: bool) -> None:
        self.files = [
            (path, label)
            for label, name in enumerate(classes(folder))
            for path in sorted((folder / "train" / name).iterdir())[:40]
        ]
        self.blur = blur

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, place: int) -> tuple[torch.Tensor, int]:
        path, label = self.files[place]
        with Image.open(path) as opened:
            photo = opened.convert("RGB")
        if self.blur:
            photo = photo.resize((700, 700), Image.Resampling.LANCZOS).filter(ImageFilter.GaussianBlur(4))
        pixels = np.asarray(photo.resize((32, 32), Image.Resampling.BILINEAR))
        return normalised_pixels(torch.from_numpy(pixels.copy()).permute(2, 0, 1)), label


def blurred_each_time(bench: Bench, ill: bool = True) -> Examined:
    """Every image is enlarged to 700 px and blurred anew whenever it is read, in the process of the training."""
    model = bn_net((16, 32, 48))
    loader = DataLoader(FromDisk(bench.tiny, ill), 32, shuffle=True, drop_last=True, generator=torch.Generator().manual_seed(1))
    return Examined(model, loader, {"val_loader": scored(bench.tiny, 32), "optimizer": adam_for(model)})


def val_as_it_comes(bench: Bench, ill: bool = True) -> Examined:
    """Validation images are divided by 255 and not normalised, as training images are. The network has trained."""
    torch.manual_seed(0)
    model = PlainNet((16, 32, 64), gn)
    loader = usual(bench.tiny, 32, 60)
    train_briefly(model, loader, 250, 3e-3)
    images, labels = photos(bench.tiny, "val", 32, 20)
    shown = images.float() / 255 if ill else normalised_pixels(images)
    return Examined(model, loader, {"val_loader": batches(shown, labels), "optimizer": adam_for(model, 5e-4)})


# ---------------------------------------------------------------- ill: before a training


# The recipe `small`, its network half as wide as in QUICK.
SLIM: Mapping[str, Any] = {**QUICK, "model.options.width": 16}


def changed(base: Mapping[str, Any], **groups: Mapping[str, Any]) -> dict[str, Any]:
    """The changes of a recipe, with more of them by group: optim={"lr": 1}."""
    return {**base, **{f"{group}.{name}": value for group, fields in groups.items() for name, value in fields.items()}}


def keyhole(bench: Bench) -> Before:
    """Random crops of 1 to 4 % of the photo."""
    return Before(bench.builtin, "small", changed(SLIM, augment={"scale": (0.01, 0.04)}))


def long_tail(bench: Bench, ill: bool = True) -> Before:
    """Each class has little more than half of the images of the class before it: 100 down to 2."""
    for name in ("train", "val"):
        shutil.copytree(bench.builtin / name, bench.work / "long" / name)
    for place, name in enumerate(classes(bench.builtin)):
        kept = max(2, round(100 * 0.6**place)) if ill else 21
        for path in sorted((bench.work / "long" / "train" / name).iterdir())[kept:]:
            path.unlink()
    return Before(bench.work / "long", "small", {**SLIM, "budget.epochs": 40.0})


def saved_again(bench: Bench, ill: bool = True) -> Before:
    """Fifteen of the 25 validation images of each class are training images under other names, saved once more as PNG."""
    shutil.copytree(bench.tiny / "train", bench.work / "leak" / "train")
    shutil.copytree(bench.tiny / "val", bench.work / "leak" / "val")
    for name in classes(bench.tiny):
        place = bench.work / "leak" / "val" / name
        for old, path in zip(sorted(place.iterdir())[:15], sorted((bench.tiny / "train" / name).iterdir())[40:55], strict=True):
            if ill:
                old.unlink()
                with Image.open(path) as photo:
                    photo.convert("RGB").save(place / f"{old.stem}.png")
    return Before(bench.work / "leak", "small", SLIM)


def whole_set(bench: Bench) -> Before:
    """A batch of all 1,200 images: ten epochs are ten steps."""
    return Before(bench.builtin, "small", changed(SLIM, optim={"batch_size": 1200}, budget={"epochs": 10.0}))


def too_big_to_hold(bench: Bench) -> Before:
    """DenseNet-201 at 224 px with 320 images in one piece."""
    changes = {
        **SGD,
        "model.name": "densenet201",
        "data.size_px": 224,
        "optim.batch_size": 320,
        "optim.precision": "fp32",
        "budget.epochs": 200.0,
    }
    return Before(bench.tiny, None, changes)


def one_minute(bench: Bench) -> Before:
    """ResNet-101 at 224 px is given one minute."""
    changes = {
        **SGD,
        "model.name": "resnet101",
        "data.size_px": 224,
        "optim.lr": 0.02,
        "optim.batch_size": 32,
        "budget.time": "1m",
    }
    return Before(bench.tiny, None, changes)


def frozen_from_scratch(bench: Bench, ill: bool = True) -> Before:
    """All but the last layer is frozen, as for fine-tuning, and no trained weights are given."""
    return Before(bench.builtin, "small", changed(SLIM, optim={"freeze": "backbone" if ill else "none"}))


# ---------------------------------------------------------------- ill: a hundred steps


def heavy_decay(bench: Bench, ill: bool = True) -> During:
    """SGD with a weight decay of 0.1, which belongs to AdamW, at a rate of 0.1."""
    changes = {
        **SLIM,
        **SGD,
        "optim.lr": 0.1,
        "optim.weight_decay": 0.1 if ill else 5e-4,
        "optim.decay_all": True,
        "budget.steps": 100,
    }
    return During(bench.builtin, "small", changes)


def timid_rate(bench: Bench, ill: bool = True) -> During:
    """AdamW at 2e-6 from scratch: the rate of somebody's fine-tuning."""
    changes = {**SLIM, "optim.lr": 2e-6 if ill else 2e-3, "budget.steps": 100}
    return During(bench.builtin, "small", changes)


def dropped_out(bench: Bench, ill: bool = True) -> During:
    """DenseNet with a dropout of 0.8 behind each of its layers."""
    changes = {
        **SLIM,
        "model.name": "densenet121",
        "model.options.growth": 6,
        "model.options.drop_rate": 0.8 if ill else 0.0,
        "budget.steps": 100,
    }
    changes.pop("model.options.width")
    return During(bench.builtin, "small", changes)


# ---------------------------------------------------------------- recorded


def recorded(name: str) -> Callable[[Bench], Recorded]:
    """The folder or table of that name."""

    def prepare(_bench: Bench) -> Recorded:
        return Recorded(LOGS / name)

    return prepare


# ---------------------------------------------------------------- healthy


def selu_without_norms(bench: Bench) -> Examined:
    """Ten convolutions with SELU and LeCun's start: no normalisation, and none is needed."""
    torch.manual_seed(0)
    model = PlainNet((8,) * 3 + (16,) * 3 + (32,) * 4, None, nn.SELU)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
    return Examined(
        model, usual(bench.tiny, 32, 60), {"val_loader": scored(bench.tiny, 32, 20), "optimizer": sgd_for(model, 0.01)}
    )


def rezero(bench: Bench) -> Examined:
    """Residual blocks that start at a factor of 0: at the first step their convolutions have no gradient."""
    torch.manual_seed(0)
    model = ReZero()
    return Examined(
        model, usual(bench.tiny, 32, 60), {"val_loader": scored(bench.tiny, 32, 20), "optimizer": adam_for(model, 2e-3)}
    )


def probe(bench: Bench) -> Examined:
    """A frozen network that has learned these images, and a new last layer that is all the optimiser has."""
    trained = bn_net((16, 32, 48, 64))
    train_briefly(trained, usual(bench.tiny, 32, 60), 250, 3e-3)
    torch.manual_seed(1)
    model = Probe(trained)
    optimizer = torch.optim.Adam(model.head.parameters(), 0.01)
    return Examined(model, usual(bench.tiny, 32, 60), {"val_loader": scored(bench.tiny, 32, 20), "optimizer": optimizer})


def four_at_a_time(bench: Bench) -> Examined:
    """Batches of four, with group normalisation and a rate to match."""
    torch.manual_seed(0)
    model = PlainNet((16, 32, 64), gn)
    images, labels = photos(bench.tiny, "train", 32, 40)
    return Examined(
        model,
        shuffled(normalised_pixels(images), labels, 4),
        {"val_loader": scored(bench.tiny, 32, 20), "optimizer": sgd_for(model, 0.003)},
    )


def slow_mixer(bench: Bench) -> Examined:
    """An MLP-Mixer with AdamW at 3e-4 on photos: slow, and it does learn."""
    torch.manual_seed(0)
    model = Mixer(48, 6, 64)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-4, weight_decay=0.05)
    return Examined(model, usual(bench.tiny, 48), {"val_loader": scored(bench.tiny, 48), "optimizer": optimizer})


def one_against_all(bench: Bench) -> Examined:
    """Twelve sigmoids with binary cross-entropy: the first loss is 0.69 and not ln 12."""

    def loss(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return functional.binary_cross_entropy_with_logits(outputs, functional.one_hot(labels, K).float())

    model = bn_net()
    options = {"val_loader": scored(bench.tiny, 32, 20), "optimizer": adam_for(model, 3e-3), "loss": loss}
    return Examined(model, usual(bench.tiny, 32, 60), options)


def grey_between_ones(bench: Bench) -> Examined:
    """Grey photos as three equal channels, brought to -1..1 as for Inception."""

    def prepared(split: Any, per_class: int) -> tuple[torch.Tensor, torch.Tensor]:
        images, labels = photos(bench.builtin, split, 48, per_class)
        return images.float().mean(1, keepdim=True).expand(-1, 3, -1, -1).contiguous() / 127.5 - 1, labels

    torch.manual_seed(0)
    model = built("resnet18", {"width": 12})
    return Examined(
        model, shuffled(*prepared("train", 40)), {"val_loader": batches(*prepared("val", 10)), "optimizer": adam_for(model)}
    )


def zero_gamma(bench: Bench) -> Before:
    """ResNet-18 whose blocks start as nothing but their shortcuts."""
    return Before(bench.builtin, "small", {**SLIM, "model.options.zero_gamma": True})


def heavy_augmentation(bench: Bench) -> Before:
    """RandAugment, mixup and erasing together, with epochs enough."""
    changes = changed(
        SLIM,
        augment={"policy": "randaugment", "mixup": 0.2, "erase": 0.25, "brightness": 0.3, "contrast": 0.3},
        budget={"epochs": 30.0},
    )
    return Before(bench.builtin, "small", changes)


def mild_tail(bench: Bench) -> Before:
    """Classes of 67 to 100 images."""
    for name in ("train", "val"):
        shutil.copytree(bench.builtin / name, bench.work / "mild" / name)
    for place, name in enumerate(classes(bench.builtin)):
        for path in sorted((bench.work / "mild" / "train" / name).iterdir())[100 - 3 * place :]:
            path.unlink()
    return Before(bench.work / "mild", "small", SLIM)


def smoothed(bench: Bench) -> During:
    """Label smoothing of 0.3: the loss cannot fall below 1.4, whatever is learned."""
    return During(bench.builtin, "small", changed(SLIM, loss={"smoothing": 0.3}, budget={"steps": 100}))


# ---------------------------------------------------------------- the list


def case(
    name: str,
    illness: str | None,
    network: str,
    data: str,
    prepare: Callable[[Bench], Before | During | Examined | Recorded],
    also: tuple[str, ...] = (),
    why: str = "",
) -> Case:
    """A case whose reason is the first words of its prepare function, unless it is told."""
    return Case(name, illness, network, data, prepare, why or (prepare.__doc__ or "").strip(), also)


CASES: list[Case] = [
    case("gaussian-vgg", "initialisation", "VGG-like", "tiny", gaussian_vgg),
    case("thirty-layers", "no-normalisation", "plain, 30 layers", "tiny", thirty_layers),
    case("prior-everywhere", "dead-units", "SqueezeNet-like", "tiny", prior_everywhere),
    case("keras-momentum", "batch-norm-statistics", "resnet18", "tiny", keras_momentum),
    case("never-divided", "pixel-range", "lenet5", "tiny", never_divided),
    case("reshaped", "channels-last", "small plain net", "tiny", reshaped),
    case("listdir-order", "class-order", "small plain net", "tiny", listdir_order),
    case("hidden-folder", "labels-off-by-one", "small plain net", "tiny", hidden_folder),
    case("zipped-apart", "labels-shuffled", "small plain net", "tiny", zipped_apart),
    case("half-adam", "precision", "small plain net", "builtin", half_adam),
    case("blank-scan", "bad-batch", "MLP-Mixer", "tiny", blank_scan),
    case("blocks-in-a-list", "unused-parameters", "listed blocks", "tiny", blocks_in_a_list),
    case("last-exit-only", "heads-forgotten", "BranchyNet-like", "tiny", last_exit_only),
    case("blurred-each-time", "waiting-for-data", "small plain net", "tiny", blurred_each_time),
    case("val-as-it-comes", "preprocessing-mismatch", "small plain net", "tiny", val_as_it_comes),
    case("keyhole", "crop-loses-object", "resnet18", "builtin", keyhole),
    case("long-tail", "unequal-classes", "resnet18", "builtin", long_tail),
    case("saved-again", "train-in-val", "resnet18", "tiny", saved_again),
    case("whole-set", "batch-too-large", "resnet18", "builtin", whole_set),
    case("too-big-to-hold", "memory", "densenet201", "tiny", too_big_to_hold),
    case("one-minute", "time", "resnet101", "tiny", one_minute),
    case("frozen-from-scratch", "frozen-parameters", "resnet18", "builtin", frozen_from_scratch),
    case("heavy-decay", "weight-decay-high", "resnet18", "builtin", heavy_decay),
    case("timid-rate", "learning-rate-low", "resnet18", "builtin", timid_rate),
    case("dropped-out", "regularisation-strong", "densenet121", "builtin", dropped_out),
    case("rate-too-high", "learning-rate-high", "small plain net", "tiny", recorded("rate-too-high.csv"), why="SGD at 1."),
    case("average-lags", "ema-slow", "small plain net", "tiny", recorded("average-lags.csv"), why="EMA of 0.9999, 222 steps."),
    case(
        "drops-at-once",
        "schedule-early",
        "small plain net",
        "tiny",
        recorded("drops-at-once.csv"),
        why="Drops at epochs 1, 2, 3.",
    ),
    case("by-heart", "overfitting", "small plain net", "tiny", recorded("by-heart.csv"), why="360 images, 36 epochs."),
    case("keeps-the-graph", "memory-growing", "small plain net", "tiny", recorded("keeps-the-graph.csv"), why="`total += loss`."),
    case("selu-without-norms", None, "SELU net", "tiny", selu_without_norms),
    case("rezero", None, "ReZero", "tiny", rezero),
    case("probe", None, "frozen features", "tiny", probe),
    case("four-at-a-time", None, "small plain net", "tiny", four_at_a_time),
    case("slow-mixer", None, "MLP-Mixer", "tiny", slow_mixer),
    case("one-against-all", None, "small plain net", "tiny", one_against_all),
    case("grey-between-ones", None, "resnet18", "builtin", grey_between_ones),
    case("zero-gamma", None, "resnet18", "builtin", zero_gamma),
    case("heavy-augmentation", None, "resnet18", "builtin", heavy_augmentation),
    case("mild-tail", None, "resnet18", "builtin", mild_tail),
    case("smoothed", None, "resnet18", "builtin", smoothed),
    case("restarts", None, "small plain net", "tiny", recorded("restarts.csv"), why="The loss rises at each restart."),
]

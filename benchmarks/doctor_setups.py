"""What the cases of the doctor's benchmark are made of: quick sane recipes, images as tensors, a stranger's networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from striate.models.catalog import build

K = 12

# Mean and deviation of ImageNet's pixels in 0..1.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# Sane and quick on two cores: a narrow ResNet-18 at 48 px on the recipe `small`. Cases change one thing of it, or the network.
QUICK: Mapping[str, Any] = {
    "model.name": "resnet18",
    "model.options.width": 32,
    "data.size_px": 48,
    "data.shrink_px": 60,
    "optim.ema": 0.0,
}
# SGD for ResNets with batch normalisation.
SGD: Mapping[str, Any] = {"optim.name": "sgd", "optim.lr": 0.1, "optim.weight_decay": 5e-4}


# ---------------------------------------------------------------- images


def classes(folder: Path) -> list[str]:
    return sorted(one.name for one in (folder / "train").iterdir() if one.is_dir())


def photos(
    folder: Path, split: Literal["train", "val"], side: int, per_class: int, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """The first images of each class, resized to a square and shuffled: [N, 3, side, side] uint8, and [N] int64."""
    images, labels = [], []
    for label, name in enumerate(classes(folder)):
        for path in sorted((folder / split / name).iterdir())[:per_class]:
            with Image.open(path) as photo:
                images.append(np.asarray(photo.convert("RGB").resize((side, side), Image.Resampling.BILINEAR)))
            labels.append(label)
    order = np.random.default_rng(seed).permutation(len(labels))
    pixels = torch.from_numpy(np.stack(images)[order]).permute(0, 3, 1, 2).contiguous()
    return pixels, torch.tensor(labels)[torch.from_numpy(order)]


def normalised_pixels(pixels: torch.Tensor) -> torch.Tensor:
    """Pixels in 0..255 as networks want them: less ImageNet's mean, over its deviation."""
    return centred(pixels.float() / 255)


def centred(pixels: torch.Tensor) -> torch.Tensor:
    return (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(DEVIATION)[:, None, None]


def shuffled(images: torch.Tensor, labels: torch.Tensor, batch: int = 32) -> DataLoader[tuple[torch.Tensor, ...]]:
    """A loader that shuffles, in the same way each time the case is built."""
    return DataLoader(
        TensorDataset(images, labels), batch, shuffle=True, drop_last=True, generator=torch.Generator().manual_seed(1)
    )


def batches(images: torch.Tensor, labels: torch.Tensor, batch: int = 32) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The same as a plain list: the images are shuffled already."""
    return list(zip(images.split(batch), labels.split(batch), strict=True))


def usual(folder: Path, side: int, per_class: int = 40) -> DataLoader[tuple[torch.Tensor, ...]]:
    images, labels = photos(folder, "train", side, per_class)
    return shuffled(normalised_pixels(images), labels)


def scored(folder: Path, side: int, per_class: int = 10) -> list[tuple[torch.Tensor, torch.Tensor]]:
    images, labels = photos(folder, "val", side, per_class)
    return batches(normalised_pixels(images), labels)


def built(name: str, options: Mapping[str, Any] | None = None, outputs: int = K) -> nn.Module:
    torch.manual_seed(0)
    return build(name, outputs, options or {})


def sgd_for(model: nn.Module, lr: float = 0.05) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=1e-4)


def adam_for(model: nn.Module, lr: float = 1e-3) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=lr)


def train_briefly(model: nn.Module, loader: DataLoader[tuple[torch.Tensor, ...]], steps: int, lr: float) -> None:
    """So many steps of Adam, in place."""
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    model.train()
    taken = 0
    while taken < steps:
        for images, labels in loader:
            optimizer.zero_grad()
            functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
            taken += 1
            if taken == steps:
                break


# ---------------------------------------------------------------- networks of a stranger


class PlainNet(nn.Sequential):
    """3x3 convolutions, a pool wherever the width changes, the mean over the grid, one linear layer; He's start.

    norm: builds what stands behind each convolution from its channels, or None. active: what stands behind that.
    """

    def __init__(
        self,
        widths: Sequence[int],
        norm: Callable[[int], nn.Module] | None = None,
        active: Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        seen = 3
        for number, width in enumerate(widths):
            if number and width != seen:
                self.append(nn.MaxPool2d(2))
            convolution = nn.Conv2d(seen, width, 3, padding=1)
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            assert convolution.bias is not None
            nn.init.zeros_(convolution.bias)
            self.append(convolution)
            if norm is not None:
                self.append(norm(width))
            self.append(active())
            seen = width
        self.extend([nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(seen, K)])


class Attention(nn.Module):
    """A gate for each channel, then one for each pixel, both between 0 and 1 (as in CBAM, without its residual)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, channels // 4, 1),
            nn.ReLU(),
            nn.Conv2d(channels // 4, channels, 1),
            nn.Sigmoid(),
        )
        self.pixels = nn.Sequential(nn.Conv2d(channels, 1, 7, padding=3), nn.Sigmoid())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [B, C, H, W]. Returns the same shape."""
        x = x * self.channels(x)
        gated: torch.Tensor = x * self.pixels(x)
        return gated


class Normalising(nn.Module):
    """A network that takes images in 0..1 and normalises them itself, as many published ones are wrapped for use."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None])
        self.register_buffer("deviation", torch.tensor(DEVIATION)[:, None, None])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """images: [B, 3, H, W] in 0..1. Returns logits [B, K]."""
        logits: torch.Tensor = self.network((images - self.mean) / self.deviation)
        return logits


class FineTuned(nn.Module):
    """Features of a network without their gradient, and a new layer of the classes."""

    def __init__(self, backbone: nn.Module, features: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(features, K)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """images: [B, 3, H, W] normalised. Returns logits [B, K]."""
        with torch.no_grad():
            features = self.backbone(images)
        logits: torch.Tensor = self.head(features)
        return logits


class StillNorms(nn.Module):
    """A network whose batch norms stay in evaluation mode, as detection code does for trained backbones."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def train(self, mode: bool = True) -> StillNorms:
        """Training mode for all but the batch norms."""
        super().train(mode)
        for layer in self.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.eval()
        return self

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """images: [B, 3, H, W] normalised. Returns logits [B, K]."""
        logits: torch.Tensor = self.network(images)
        return logits


class HalfPooled(nn.Module):
    """Convolutions, the sum over the grid brought to length 1, and one linear layer. half: the sum is held in 16 bits."""

    def __init__(self, half: bool) -> None:
        super().__init__()
        self.features = nn.Sequential(*list(PlainNet((48, 48, 96, 96, 128), nn.BatchNorm2d))[:-3])
        self.classes = nn.Linear(128, K)
        self.half_sum = half

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """images: [B, 3, H, W] normalised. Returns logits [B, K]."""
        summed = self.features(images).flatten(2).sum(2)
        summed = summed.half() if self.half_sum else summed
        length = summed.pow(2).sum(1, keepdim=True).sqrt()
        logits: torch.Tensor = self.classes((summed / length).float() * 10)
        return logits

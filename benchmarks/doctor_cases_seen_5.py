"""More cases that were planted by somebody who knew the list of illnesses and none of the rules, and that have been read since.

The fifth set; see `doctor_cases_seen`. Every ill case is sane but for the one thing that its `why` names; the healthy ones
look ill and learn. The harm of each ill one was measured
beside a sane twin. `doctor_logs/seen_5/README.md` says how the recorded runs were made.
"""

from __future__ import annotations

import csv
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
    usual,
)
from PIL import Image, ImageFilter
from torch import nn
from torch.utils.data import DataLoader, Dataset

LOGS = Path(__file__).parent / "doctor_logs" / "seen_5"

Sample = tuple[torch.Tensor, torch.Tensor]


# ---------------------------------------------------------------- networks


class Residual(nn.Module):
    """Two 3x3 convolutions with their norms beside a shortcut."""

    def __init__(self, seen: int, width: int, stride: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(seen, width, 3, stride, 1, bias=False),
            norm(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, 1, 1, bias=False),
            norm(width),
        )
        same = seen == width and stride == 1
        self.shortcut = nn.Identity() if same else nn.Sequential(nn.Conv2d(seen, width, 1, stride, bias=False), norm(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [B, C, H, W]. Returns [B, width, H / stride, W / stride]."""
        added: torch.Tensor = torch.relu(self.body(x) + self.shortcut(x))
        return added


def little_resnet(widths: tuple[int, ...] = (32, 64, 128), norm: Callable[[int], nn.Module] = nn.BatchNorm2d) -> nn.Sequential:
    """A residual network with one block for each width and a linear layer behind the mean over the grid."""
    seen = widths[0]
    layers: list[nn.Module] = [nn.Conv2d(3, seen, 3, 2, 1, bias=False), norm(seen), nn.ReLU()]
    for number, width in enumerate(widths):
        layers.append(Residual(seen, width, 1 if number == 0 else 2, norm))
        seen = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(seen, K))


def depthwise(seen: int, width: int, stride: int, momentum: float) -> nn.Sequential:
    """A depthwise and a pointwise convolution as in MobileNet, each with batch norm and ReLU6."""
    return nn.Sequential(
        nn.Conv2d(seen, seen, 3, stride, 1, groups=seen, bias=False),
        nn.BatchNorm2d(seen, momentum=momentum),
        nn.ReLU6(),
        nn.Conv2d(seen, width, 1, bias=False),
        nn.BatchNorm2d(width, momentum=momentum),
        nn.ReLU6(),
    )


def mobile_net(momentum: float = 0.1) -> nn.Sequential:
    """A small MobileNet. momentum: of its batch norms."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, 1, 1, bias=False),
        nn.BatchNorm2d(32, momentum=momentum),
        nn.ReLU6(),
        depthwise(32, 64, 2, momentum),
        depthwise(64, 64, 1, momentum),
        depthwise(64, 128, 2, momentum),
        depthwise(128, 128, 1, momentum),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(128, K),
    )


# ---------------------------------------------------------------- examined, ill


class PhotoFiles(Dataset[Sample]):
    """Photos read from their files each time. large: enlarged and blurred in full before they are made small."""

    def __init__(self, folder: Path, split: str, per_class: int, side: int, large: int) -> None:
        self.items = [
            (path, label)
            for label, name in enumerate(classes(folder))
            for path in sorted((folder / split / name).iterdir())[:per_class]
        ]
        self.side, self.large = side, large

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, number: int) -> Sample:
        path, label = self.items[number]
        with Image.open(path) as photo:
            image = photo.convert("RGB")
        if self.large:
            image = image.resize((self.large, self.large), Image.Resampling.LANCZOS).filter(ImageFilter.GaussianBlur(3))
        image = image.resize((self.side, self.side), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        return normalised_pixels(pixels), torch.tensor(label)


def blurred_at_full_size(bench: Bench, ill: bool = True) -> Examined:
    """Each photo is enlarged to 640 px and blurred there, in the training process, before it becomes 40 px."""
    torch.manual_seed(0)
    model = PlainNet((16, 32, 64), nn.BatchNorm2d)
    files = PhotoFiles(bench.tiny, "train", 40, 40, 640 if ill else 0)
    loader = DataLoader(files, 32, shuffle=True, drop_last=True, generator=torch.Generator().manual_seed(1))
    return Examined(model, loader, {"val_loader": scored(bench.tiny, 40), "optimizer": adam_for(model)})


def scored_without_normalise(bench: Bench, ill: bool = True) -> Examined:
    """The transform of the validation set ends at 0..1: its Normalize is forgotten, that of the training set is not."""
    torch.manual_seed(0)
    model = little_resnet()
    images, labels = photos(bench.builtin, "val", 40, 15)
    pixels = images.float() / 255 if ill else normalised_pixels(images)
    options = {"val_loader": batches(pixels, labels), "optimizer": adam_for(model)}
    return Examined(model, usual(bench.builtin, 40, 60), options)


class InvertedOften(Dataset[Sample]):
    """Normalised images, of which a share is shown as its negative, drawn anew each time."""

    def __init__(self, pixels: torch.Tensor, labels: torch.Tensor, share: float) -> None:
        self.pixels, self.labels, self.share = pixels, labels, share
        self.random = np.random.default_rng(0)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, number: int) -> Sample:
        image = self.pixels[number].float() / 255
        if self.random.random() < self.share:
            image = 1 - image
        return centred(image), self.labels[number]


def mostly_negatives(bench: Bench, ill: bool = True) -> Examined:
    """RandomInvert has p = 0.95 where 0.05 is meant: most training images are negatives, no scored one is."""
    torch.manual_seed(0)
    model = built("resnet20", {"width": 8})
    data = InvertedOften(*photos(bench.tiny, "train", 32, 80), 0.95 if ill else 0.05)
    loader = DataLoader(data, 32, shuffle=True, drop_last=True, generator=torch.Generator().manual_seed(1))
    return Examined(model, loader, {"val_loader": scored(bench.tiny, 32, 25), "optimizer": adam_for(model)})


def tensorflow_momentum(bench: Bench, ill: bool = True) -> Examined:
    """A MobileNet whose batch norms keep 0.9997 of their statistics, as TF-Slim's do for millions of steps: here they lag."""
    torch.manual_seed(0)
    model = mobile_net(0.0003 if ill else 0.1)
    options = {"val_loader": scored(bench.tiny, 40, 20), "optimizer": adam_for(model, 2e-3)}
    return Examined(model, usual(bench.tiny, 40, 60), options)


def black_photos_standardised(bench: Bench, ill: bool = True) -> Examined:
    """Each image is divided by its own deviation, and four photos of the set are all black: theirs is 0."""
    torch.manual_seed(0)
    model = PlainNet((16, 32, 64), nn.BatchNorm2d)
    images, labels = photos(bench.builtin, "train", 40, 40)
    if ill:
        images[[70, 171, 272, 373]] = 0

    def standardised(pixels: torch.Tensor) -> torch.Tensor:
        values = pixels.float()
        return (values - values.mean((1, 2, 3), keepdim=True)) / values.std((1, 2, 3), keepdim=True)

    val_images, val_labels = photos(bench.builtin, "val", 40, 10)
    options = {"val_loader": batches(standardised(val_images), val_labels), "optimizer": sgd_for(model)}
    return Examined(model, shuffled(standardised(images), labels), options)


class InHalf(nn.Module):
    """A network that is held and computed in 16 bits; its logits come back in 32."""

    def __init__(self, network: nn.Module, kind: torch.dtype) -> None:
        super().__init__()
        self.network = network.to(kind)
        self.kind = kind

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """images: [B, 3, H, W] normalised. Returns logits [B, K]."""
        logits: torch.Tensor = self.network(images.to(self.kind)).float()
        return logits


def adam_in_half(bench: Bench, ill: bool = True) -> Examined:
    """The whole network is turned to half with `model.half()`, so Adam's 1e-8 under the root is 0 in 16 bits."""
    torch.manual_seed(0)
    model = InHalf(PlainNet((8, 16, 32), lambda width: nn.GroupNorm(4, width)), torch.float16 if ill else torch.float32)
    return Examined(model, usual(bench.tiny, 24, 40), {"val_loader": scored(bench.tiny, 24), "optimizer": adam_for(model, 3e-3)})


def two_at_a_time(bench: Bench, ill: bool = True) -> Examined:
    """Batches of 2 since the graphics card is full, with batch norm and the rate of a batch of 32."""
    torch.manual_seed(0)
    model = PlainNet((16, 32, 64), nn.BatchNorm2d)
    images, labels = photos(bench.tiny, "train", 32, 40)
    loader = shuffled(normalised_pixels(images), labels, 2 if ill else 32)
    return Examined(model, loader, {"val_loader": scored(bench.tiny, 32), "optimizer": sgd_for(model, 0.1)})


def decay_of_a_transformer(bench: Bench, ill: bool = True) -> Examined:
    """The weight decay of 0.3 from a recipe for vision transformers is given to SGD, whose steps all pull at the weights."""
    torch.manual_seed(0)
    model = PlainNet((16, 32, 64), nn.BatchNorm2d)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=0.3 if ill else 3e-4)
    return Examined(model, usual(bench.tiny, 32, 60), {"val_loader": scored(bench.tiny, 32), "optimizer": optimizer})


def rate_of_fine_tuning(bench: Bench, ill: bool = True) -> Examined:
    """Adam with 1e-6, a rate for the last touches to a trained network, on one that starts from nothing."""
    torch.manual_seed(0)
    model = built("densenet121", {"growth": 4})
    optimizer = adam_for(model, 1e-6 if ill else 1e-3)
    return Examined(model, usual(bench.tiny, 64, 30), {"val_loader": scored(bench.tiny, 64), "optimizer": optimizer})


def careless_annotators(bench: Bench, ill: bool = True) -> Examined:
    """Of the training labels 45 % are drawn at random among all classes; the validation labels are right."""
    torch.manual_seed(0)
    model = little_resnet()
    images, labels = photos(bench.builtin, "train", 40, 60)
    if ill:
        random = np.random.default_rng(3)
        wrong = torch.from_numpy(random.random(len(labels)) < 0.45)
        labels = torch.where(wrong, torch.from_numpy(random.integers(0, K, len(labels))), labels)
    options = {"val_loader": scored(bench.builtin, 40, 25), "optimizer": adam_for(model)}
    return Examined(model, shuffled(normalised_pixels(images), labels), options)


def listed_unsorted(bench: Bench, ill: bool = True) -> Examined:
    """The classes of the validation set are numbered as the disk lists its folders, those of the training set by name."""
    torch.manual_seed(0)
    model = PlainNet((24, 48, 96), nn.BatchNorm2d)
    images, labels = photos(bench.builtin, "val", 32, 15)
    order = torch.from_numpy(np.random.default_rng(4).permutation(K)) if ill else torch.arange(K)
    options = {"val_loader": batches(normalised_pixels(images), order[labels]), "optimizer": adam_for(model, 3e-3)}
    return Examined(model, usual(bench.builtin, 32, 80), options)


def row_before(bench: Bench, ill: bool = True) -> Examined:
    """The validation labels count from 0 already, and 1 is taken off again: np.eye(K)[label - 1] turns 0 into the last."""
    torch.manual_seed(0)
    model = little_resnet()
    images, labels = photos(bench.tiny, "val", 32, 25)
    rows = np.eye(K)[labels.numpy() - (1 if ill else 0)]
    counted = torch.from_numpy(rows.argmax(1))
    options = {"val_loader": batches(normalised_pixels(images), counted), "optimizer": adam_for(model)}
    return Examined(model, usual(bench.tiny, 32, 80), options)


def whole_division(bench: Bench, ill: bool = True) -> Examined:
    """Pixels are divided by 255 as whole numbers: all but the whitest become 0, and a photo is an empty plane."""
    torch.manual_seed(0)
    model = PlainNet((24, 48, 96), nn.BatchNorm2d)

    def scaled(pixels: torch.Tensor) -> torch.Tensor:
        return centred((pixels // 255).float() if ill else pixels.float() / 255)

    images, labels = photos(bench.builtin, "train", 40, 60)
    val_images, val_labels = photos(bench.builtin, "val", 40, 15)
    options = {"val_loader": batches(scaled(val_images), val_labels), "optimizer": adam_for(model)}
    return Examined(model, shuffled(scaled(images), labels), options)


def reshaped(bench: Bench, ill: bool = True) -> Examined:
    """Arrays of height, width and channels are brought to channels first by reshape where permute is meant."""
    torch.manual_seed(0)
    model = PlainNet((24, 48, 96), nn.BatchNorm2d)

    def turned(pixels: torch.Tensor) -> torch.Tensor:
        arrays = pixels.permute(0, 2, 3, 1).contiguous()
        count, high, wide, channels = arrays.shape
        return arrays.reshape(count, channels, high, wide) if ill else arrays.permute(0, 3, 1, 2)

    images, labels = photos(bench.builtin, "train", 32, 80)
    val_images, val_labels = photos(bench.builtin, "val", 32, 15)
    options = {"val_loader": batches(normalised_pixels(turned(val_images)), val_labels), "optimizer": adam_for(model, 3e-3)}
    return Examined(model, shuffled(normalised_pixels(turned(images)), labels), options)


# ---------------------------------------------------------------- before and during training, ill

# A narrow ResNet-18 for seconds of training, on the recipe `small`.
SLIM: Mapping[str, Any] = {**QUICK, "model.options.width": 24}


def copied(source: Path, target: Path, train: Callable[[int], int], val: Callable[[int], int]) -> Path:
    """A class folder with the first train(number) and val(number) images of each class."""
    for split, count in (("train", train), ("val", val)):
        for number, name in enumerate(classes(source)):
            place = target / split / name
            place.mkdir(parents=True)
            for path in sorted((source / split / name).iterdir())[: count(number)]:
                shutil.copy(path, place / path.name)
    return target


def forty_seconds(bench: Bench, ill: bool = True) -> Before:
    """A training at 224 px is given 40 seconds, in which a processor does not see half of the images once."""
    sizes = {"data.size_px": 224, "data.shrink_px": 256} if ill else {"data.size_px": 32, "data.shrink_px": 40}
    changes = {"model.name": "resnet34", "optim.batch_size": 16, "optim.ema": 0.0, "budget.time": "40s"}
    return Before(bench.builtin, "small", changes | sizes)


def batch_of_a_cluster(bench: Bench, ill: bool = True) -> Before:
    """A DenseNet-121 at 320 px with the batch of 256 of its paper, on one machine and in one piece."""
    changes = {
        "model.name": "densenet121",
        "data.size_px": 320 if ill else 32,
        "data.shrink_px": 0 if ill else 40,
        "optim.batch_size": 256,
        "optim.ema": 0.0,
        "budget.epochs": 90,
    }
    return Before(bench.builtin, "small", changes)


def one_photo_each(bench: Bench, ill: bool = True) -> Before:
    """One photo of each class is kept for validation, 12 in all, and the training is to stop by what they say."""
    data = copied(bench.tiny, bench.work / "photos", lambda _: 100, lambda _: 1 if ill else 25)
    return Before(data, "small", {**SLIM, "budget.evaluate_epochs": 1.0, "budget.patience": 4})


def half_the_set_at_once(bench: Bench, ill: bool = True) -> Before:
    """The batch is 600 of 1,200 images, and the epochs stay 13: 26 steps are taken in all."""
    return Before(bench.builtin, "small", {**SLIM, "optim.batch_size": 600 if ill else 32})


def long_tail(bench: Bench, ill: bool = True) -> Before:
    """Two classes have 100 photos each, the other ten have 4, and nothing in the recipe makes up for it."""
    counts: Callable[[int], int] = (lambda number: 100 if number in (3, 8) else 4) if ill else (lambda _: 20)
    return Before(copied(bench.builtin, bench.work / "photos", counts, lambda _: 25), "small", SLIM)


def slipped_decimal(bench: Bench, ill: bool = True) -> Before:
    """Random crops take 1 to 4 % of the photo: 0.01 and 0.04 are typed for 0.1 and 0.4 times ten."""
    return Before(bench.builtin, "small", {**SLIM, "augment.scale": (0.01, 0.04) if ill else (0.4, 1.0)})


def rate_for_each_image(bench: Bench, ill: bool = True) -> During:
    """The rate of a batch is taken for that of an image, and linear scaling makes it 64 times as large: AdamW at 0.128."""
    changes = {
        "model.name": "resnet20",
        "model.options.width": 8,
        "data.size_px": 32,
        "data.shrink_px": 40,
        "optim.ema": 0.0,
        "optim.lr_scaling": "linear",
        "optim.lr_batch_size": 1 if ill else 64,
        "budget.steps": 80,
    }
    return During(bench.tiny, "small", changes)


def sorted_table(bench: Bench, ill: bool = True) -> During:
    """A table of paths and labels whose label column alone is put into another order, for the training rows."""
    names = classes(bench.builtin)
    rows = []
    for split in ("train", "val"):
        (bench.work / split).symlink_to((bench.builtin / split).resolve())  # paths of a table stay below its folder
        for name in names:
            rows += [[f"{split}/{name}/{path.name}", name, split] for path in sorted((bench.builtin / split / name).iterdir())]
    train = [number for number, row in enumerate(rows) if row[2] == "train"]
    if ill:
        order = np.random.default_rng(5).permutation(len(train))
        labels = [rows[train[place]][1] for place in order]
        for number, label in zip(train, labels, strict=True):
            rows[number][1] = label
    table = bench.work / "photos.csv"
    with open(table, "w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "split"], *rows])
    return During(table, "small", {**SLIM, "budget.steps": 80})


# ---------------------------------------------------------------- recorded


def recorded(name: str) -> Callable[[Bench], Recorded]:
    """A run or a table that lies beside this file."""

    def prepare(bench: Bench) -> Recorded:
        return Recorded(LOGS / name)

    return prepare


# ---------------------------------------------------------------- healthy


class ScaledCosine(nn.Module):
    """Logits are 16 times the cosine between the features and a direction for each class, as in face recognition."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.directions = nn.Parameter(torch.randn(K, features) * 0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [B, features]. Returns logits [B, K]."""
        return 16 * nn.functional.normalize(x, dim=1) @ nn.functional.normalize(self.directions, dim=1).T


def head_of_zeros(bench: Bench) -> Examined:
    """The layer of the classes starts with zeros, so the first loss is ln K to the last digit and the body gets no gradient."""
    torch.manual_seed(0)
    model = little_resnet()
    head = model[-1]
    assert isinstance(head, nn.Linear)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return Examined(model, usual(bench.tiny, 32, 80), {"val_loader": scored(bench.tiny, 32, 25), "optimizer": adam_for(model)})


def cosine_head(bench: Bench) -> Examined:
    """Features and directions are brought to length 1, and logits are cosines times 16: bounded, and well spread at once."""
    torch.manual_seed(0)
    body = list(mobile_net())[:-2]
    model = nn.Sequential(*body, ScaledCosine(128))
    options = {"val_loader": scored(bench.tiny, 40, 20), "optimizer": adam_for(model, 2e-3)}
    return Examined(model, usual(bench.tiny, 40, 60), options)


class Bytes(nn.Module):
    """A network that takes bytes and brings them to mean 0 itself: batch norm of the three colours stands first."""

    def __init__(self) -> None:
        super().__init__()
        self.colours = nn.BatchNorm2d(3, affine=False)
        self.network = PlainNet((24, 48, 96), nn.BatchNorm2d)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """images: [B, 3, H, W] in 0..255. Returns logits [B, K]."""
        logits: torch.Tensor = self.network(self.colours(images))
        return logits


def bytes_and_a_norm(bench: Bench) -> Examined:
    """Images come in 0..255, and a batch norm of the colours is the first layer, as many Keras networks have it."""
    torch.manual_seed(0)
    model = Bytes()
    images, labels = photos(bench.tiny, "train", 32, 80)
    val_images, val_labels = photos(bench.tiny, "val", 32, 25)
    options = {"val_loader": batches(val_images.float(), val_labels), "optimizer": adam_for(model)}
    return Examined(model, shuffled(images.float(), labels), options)


def no_norm_but_small(bench: Bench) -> Examined:
    """Three convolutions without any normalisation, with tanh and Glorot's start, on SGD: they learn at their own pace."""
    torch.manual_seed(0)
    model = PlainNet((16, 32, 64), None, nn.Tanh)
    for layer in model:
        if isinstance(layer, nn.Conv2d):
            nn.init.xavier_normal_(layer.weight)
    return Examined(
        model, usual(bench.tiny, 32, 80), {"val_loader": scored(bench.tiny, 32, 25), "optimizer": sgd_for(model, 0.05)}
    )


def small_and_narrow(bench: Bench) -> Before:
    """A narrow network, batches of 32 at the rate of 64, smoothed labels, crops that cut the object: 63 % all the same."""
    return Before(bench.builtin, "small", {**SLIM, "optim.batch_size": 32})


def long_warm_up(bench: Bench) -> During:
    """Residual branches start at zero and the rate rises over three epochs, so the first steps hardly move the loss."""
    changes = {
        **SLIM,
        **SGD,
        "model.options.zero_gamma": True,
        "optim.warmup_epochs": 3.0,
        "budget.steps": 100,
    }
    return During(bench.tiny, "small", changes)


CASES: list[Case] = [
    Case(
        "blurred_at_full_size",
        "waiting-for-data",
        "plain with batch norm",
        "tiny",
        blurred_at_full_size,
        "each photo is enlarged to 640 px and blurred before it becomes 40 px",
    ),
    Case(
        "scored_without_normalise",
        "preprocessing-mismatch",
        "small residual",
        "builtin",
        scored_without_normalise,
        "the validation set is left at 0..1, the training set is normalised",
    ),
    Case(
        "mostly_negatives",
        "augmentation-mismatch",
        "resnet20",
        "tiny",
        mostly_negatives,
        "95 % of the training images are shown as negatives",
        ("preprocessing-mismatch",),
    ),
    Case(
        "tensorflow_momentum",
        "batch-norm-statistics",
        "mobilenet",
        "tiny",
        tensorflow_momentum,
        "batch norm moves its statistics by 0.0003 a step",
    ),
    Case(
        "black_photos_standardised",
        "bad-batch",
        "plain with batch norm",
        "builtin",
        black_photos_standardised,
        "four black photos are divided by their deviation of 0",
    ),
    Case("adam_in_half", "precision", "plain with group norm", "tiny", adam_in_half, "model.half() with Adam's 1e-8"),
    Case(
        "two_at_a_time",
        "batch-too-small",
        "plain with batch norm",
        "tiny",
        two_at_a_time,
        "batches of 2 with the rate of 32",
        ("learning-rate-high",),
    ),
    Case(
        "decay_of_a_transformer",
        "weight-decay-high",
        "plain with batch norm",
        "tiny",
        decay_of_a_transformer,
        "SGD at 0.05 with a weight decay of 0.3",
    ),
    Case("rate_of_fine_tuning", "learning-rate-low", "densenet121", "tiny", rate_of_fine_tuning, "Adam at 1e-6 on a new network"),
    Case(
        "careless_annotators",
        "label-noise",
        "small residual",
        "builtin",
        careless_annotators,
        "45 % of the training labels are drawn at random",
    ),
    Case(
        "listed_unsorted",
        "class-order",
        "plain with batch norm",
        "builtin",
        listed_unsorted,
        "validation classes are numbered in the order of os.listdir",
    ),
    Case(
        "row_before",
        "labels-off-by-one",
        "small residual",
        "tiny",
        row_before,
        "one is taken off validation labels that count from 0",
        ("class-order",),
    ),
    Case("whole_division", "constant-images", "plain with batch norm", "builtin", whole_division, "pixels // 255"),
    Case("reshaped", "channels-last", "plain with batch norm", "builtin", reshaped, "reshape in the place of permute"),
    Case("forty_seconds", "time", "resnet34", "builtin", forty_seconds, "40 s for a training at 224 px on a processor"),
    Case(
        "batch_of_a_cluster",
        "memory",
        "densenet121",
        "builtin",
        batch_of_a_cluster,
        "256 images of 320 px at once in a DenseNet-121",
    ),
    Case("one_photo_each", "evaluation-small", "resnet18", "tiny", one_photo_each, "12 validation images decide when to stop"),
    Case(
        "half_the_set_at_once",
        "batch-too-large",
        "resnet18",
        "builtin",
        half_the_set_at_once,
        "batch 600 of 1,200 images, 26 steps",
    ),
    Case("long_tail", "unequal-classes", "resnet18", "builtin", long_tail, "two classes with 100 photos, ten with 4"),
    Case("slipped_decimal", "crop-loses-object", "resnet18", "builtin", slipped_decimal, "crops of 1 to 4 % of the photo"),
    Case(
        "rate_for_each_image",
        "learning-rate-high",
        "resnet20",
        "tiny",
        rate_for_each_image,
        "linear scaling from a batch of 1: AdamW at 0.128",
    ),
    Case(
        "sorted_table",
        "labels-shuffled",
        "resnet18",
        "builtin",
        sorted_table,
        "the label column of the training rows is ordered anew",
    ),
    Case(
        "hook_that_keeps",
        "memory-growing",
        "plain with batch norm",
        "builtin",
        recorded("hook_that_keeps.csv"),
        "a hook puts each output of a layer into a list that nobody empties",
    ),
    Case(
        "hook_in_the_loop",
        "throughput-falling",
        "plain with batch norm",
        "tiny",
        recorded("hook_in_the_loop.csv"),
        "three more hooks are registered in every step",
    ),
    Case(
        "scheduler_in_the_batch_loop",
        "schedule-early",
        "plain with batch norm",
        "tiny",
        recorded("scheduler_in_the_batch_loop.csv"),
        "StepLR(8) is stepped for each batch, not for each epoch",
    ),
    Case(
        "average_of_a_long_training",
        "ema-slow",
        "plain with batch norm",
        "builtin",
        recorded("average_of_a_long_training.csv"),
        "an average that keeps 0.9999 over 308 steps",
    ),
    Case(
        "few_photos_no_augmentation",
        "overfitting",
        "resnet18",
        "tiny",
        recorded("few_photos_no_augmentation"),
        "25 photos a class, no augmentation, 24 epochs",
    ),
    Case(
        "two_channels",
        "underfitting",
        "plain with batch norm",
        "tiny",
        recorded("two_channels.csv"),
        "three convolutions of 2, 2 and 4 channels",
    ),
    Case(
        "never_lowered",
        "schedule-never",
        "plain with batch norm",
        "tiny",
        recorded("never_lowered.csv"),
        "SGD at 0.2 to the end",
    ),
    Case("small_disk", "disk", "resnet18", "builtin", recorded("small_disk"), "runs are written to a disk of 40 MB"),
    Case(
        "head_of_zeros",
        None,
        "small residual",
        "tiny",
        head_of_zeros,
        "the first loss is ln K exactly, and the body gets no gradient in the first step",
    ),
    Case("cosine_head", None, "mobilenet", "tiny", cosine_head, "logits are cosines times 16"),
    Case(
        "bytes_and_a_norm",
        None,
        "plain with batch norm",
        "tiny",
        bytes_and_a_norm,
        "images in 0..255, which the first layer brings to mean 0",
    ),
    Case("no_norm_but_small", None, "plain with tanh", "tiny", no_norm_but_small, "no normalisation anywhere, tanh, slow"),
    Case(
        "small_and_narrow",
        None,
        "resnet18",
        "builtin",
        small_and_narrow,
        "batch 32 at the rate of 64, width 24, crops from 40 %",
    ),
    Case(
        "long_warm_up",
        None,
        "resnet18 with zero gamma",
        "tiny",
        long_warm_up,
        "the rate rises over three epochs and the branches start at zero",
    ),
    Case(
        "mixed_to_the_end",
        None,
        "plain with batch norm",
        "tiny",
        recorded("mixed_to_the_end.csv"),
        "MixUp: the training loss stays far above that of the validation set",
    ),
    Case(
        "cosine_with_restarts",
        None,
        "plain with batch norm",
        "tiny",
        recorded("cosine_with_restarts.csv"),
        "the loss jumps where the rate is restarted",
    ),
]

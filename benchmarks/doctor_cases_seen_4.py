"""More cases that were planted by somebody who knew the list of illnesses and none of the rules, and that have been read since.

The fourth set; see `doctor_cases_seen`. Every ill case is sane but for the one thing that its `why` names; the healthy ones
look ill and learn. The harm of each ill one was measured
beside a sane twin. `doctor_logs/seen_4/README.md` says how the recorded runs were made.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, TypeVar

import torch
from doctor_bench import Before, Bench, Case, During, Examined, Recorded
from doctor_setups import (
    MEAN,
    QUICK,
    SGD,
    K,
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
    usual,
)
from torch import nn
from torch.nn import functional

LOGS = Path(__file__).parent / "doctor_logs" / "seen_4"

# The prior of RetinaNet's last layer: -ln((1 - 0.01) / 0.01).
PRIOR = -4.595

Batch = tuple[torch.Tensor, torch.Tensor]
Network = TypeVar("Network", bound=nn.Module)


def groups(channels: int) -> nn.Module:
    """Group normalisation of eight groups."""
    return nn.GroupNorm(8, channels)


def seeded(make: Callable[[], Network]) -> Network:
    """A network that starts with the same weights each time."""
    torch.manual_seed(0)
    return make()


# ---------------------------------------------------------------- networks of a stranger


class Separable(nn.Sequential):
    """Depthwise and pointwise convolutions in turn, without normalisation. mode: of He's rule for all of them."""

    def __init__(self, mode: Literal["fan_in", "fan_out"], width: int = 64, blocks: int = 8) -> None:
        super().__init__(nn.Conv2d(3, width, 3, padding=1), nn.ReLU())
        for number in range(blocks):
            if number in (2, 5):
                self.append(nn.MaxPool2d(2))
            self.extend([nn.Conv2d(width, width, 3, padding=1, groups=width), nn.Conv2d(width, width, 1), nn.ReLU()])
        self.extend([nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, K)])
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                last = layer.groups == 1  # no ReLU stands behind a depthwise one
                nn.init.kaiming_normal_(layer.weight, mode=mode, nonlinearity="relu" if last else "linear")
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)


class GatedConvolution(nn.Module):
    """Features times a gate of the same input, as inpainting networks have them. open_by: bias of the gate at the start."""

    def __init__(self, inputs: int, outputs: int, open_by: float) -> None:
        super().__init__()
        self.features = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.gate = nn.Conv2d(inputs, outputs, 3, padding=1)
        for layer in (self.features, self.gate):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu" if layer is self.features else "linear")
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
        nn.init.normal_(self.gate.weight, std=0.01)
        assert self.gate.bias is not None
        nn.init.constant_(self.gate.bias, open_by)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [B, C, H, W]. Returns the same grid."""
        gated: torch.Tensor = functional.relu(self.features(x)) * torch.sigmoid(self.gate(x))
        return gated


def gated_net(open_by: float, depth: int = 10) -> nn.Module:
    """Ten gated convolutions in a row, two pools between them, the mean, and one linear layer."""
    layers: list[nn.Module] = [GatedConvolution(3, 32, open_by)]
    for number in range(1, depth):
        if number in (3, 6):
            layers.append(nn.MaxPool2d(2))
        layers.append(GatedConvolution(32, 32, open_by))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, K))


class TwoHeads(nn.Module):
    """A main head at the end and a helping one halfway: both in training, the main one alone in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.lower = nn.Sequential(*list(PlainNet((32, 32, 64), nn.BatchNorm2d))[:-3])
        self.upper = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(64, 96, 3, padding=1, bias=False), nn.BatchNorm2d(96), nn.ReLU())
        self.helper = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, K))
        self.main = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, K))

    def forward(self, images: torch.Tensor) -> torch.Tensor | Batch:
        """images: [B, 3, H, W]. Returns logits of the main head, in training those of the helper too."""
        halfway = self.lower(images)
        logits: torch.Tensor = self.main(self.upper(halfway))
        return (logits, self.helper(halfway)) if self.training else logits


class Extractor(nn.Module):
    """A backbone and a linear layer, as code that extracts features has it. still: the backbone is set to evaluation first."""

    def __init__(self, backbone: nn.Module, features: int, still: bool) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(features, K)
        self.still = still

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """images: [B, 3, H, W]. Returns logits [B, K]."""
        if self.still:
            self.backbone.eval()
        logits: torch.Tensor = self.head(self.backbone(images))
        return logits


class TanhNet(nn.Sequential):
    """LeNet's layers on three channels with tanh."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 16, 5),
            nn.Tanh(),
            nn.AvgPool2d(2),
            nn.Conv2d(16, 32, 5),
            nn.Tanh(),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(32 * 25, 96),
            nn.Tanh(),
            nn.Linear(96, K),
        )


class Transformer(nn.Module):
    """A small vision transformer: patches of 4 px, three layers of width 64, the mean over the patches."""

    def __init__(self, side: int = 32, patch: int = 4, width: int = 64, depth: int = 3) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, stride=patch)
        self.places = nn.Parameter(torch.randn(1, (side // patch) ** 2, width) * 0.02)
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, K)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """images: [B, 3, side, side]. Returns logits [B, K]."""
        tokens = self.patches(images).flatten(2).transpose(1, 2) + self.places
        logits: torch.Tensor = self.head(self.norm(self.layers(tokens)).mean(1))
        return logits


class OwnAttention(nn.Module):
    """Two layers of attention over patches of 4 px, written by hand. precision: of its softmax."""

    def __init__(self, precision: torch.dtype, width: int = 64, depth: int = 2) -> None:
        super().__init__()
        self.precision = precision
        self.patches = nn.Conv2d(3, width, 4, stride=4)
        self.places = nn.Parameter(torch.randn(1, 64, width) * 0.02)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))
        self.queries = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(depth))
        self.hidden = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
            for _ in range(depth)
        )
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, K))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """images: [B, 3, 32, 32]. Returns logits [B, K]."""
        x = self.patches(images).flatten(2).transpose(1, 2) + self.places
        for norm, queries, hidden in zip(self.norms, self.queries, self.hidden, strict=True):
            query, key, value = queries(norm(x)).chunk(3, dim=-1)
            weights = (query @ key.transpose(1, 2)).to(self.precision).exp()
            weights = weights / weights.sum(-1, keepdim=True)
            x = x + weights.float() @ value
            x = x + hidden(x)
        logits: torch.Tensor = self.head(x.mean(1))
        return logits


class Mixer(nn.Module):
    """An MLP-Mixer: one linear layer over the patches, one over the channels, in turn."""

    def __init__(self, side: int = 32, patch: int = 4, width: int = 64, depth: int = 4) -> None:
        super().__init__()
        count = (side // patch) ** 2
        self.patches = nn.Conv2d(3, width, patch, stride=patch)
        self.over_patches = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(count), nn.Linear(count, 64), nn.GELU(), nn.Linear(64, count)) for _ in range(depth)
        )
        self.over_channels = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, K)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """images: [B, 3, side, side]. Returns logits [B, K]."""
        x = self.patches(images).flatten(2).transpose(1, 2)
        for across, along in zip(self.over_patches, self.over_channels, strict=True):
            x = x + across(x.transpose(1, 2)).transpose(1, 2)
            x = x + along(x)
        logits: torch.Tensor = self.head(self.norm(x).mean(1))
        return logits


# ---------------------------------------------------------------- examined: a stranger's model and loader


def wrong_fan(bench: Bench) -> Examined:
    """He's rule with fan_out, which counts all channels of a depthwise convolution: each of them shrinks the signal by eight."""
    model = seeded(lambda: Separable("fan_out"))
    return Examined(
        model,
        usual(bench.tiny, 32),
        {"optimizer": adam_for(model), "val_loader": scored(bench.tiny, 32), "loss": functional.cross_entropy},
    )


def half_open(bench: Bench) -> Examined:
    """Ten gated convolutions in a row start with gates at one half."""
    model = seeded(lambda: gated_net(0.0))
    return Examined(
        model,
        usual(bench.tiny, 32),
        {"optimizer": sgd_for(model, 0.02), "val_loader": scored(bench.tiny, 32), "loss": functional.cross_entropy},
    )


def wide_head(bench: Bench) -> Examined:
    """The new layer of the classes is drawn by normal_ with its default deviation, 1."""
    model = built("torchvision/shufflenet_v2_x0_5")
    assert isinstance(model.fc, nn.Linear)
    nn.init.normal_(model.fc.weight)
    return Examined(
        model,
        usual(bench.tiny, 64),
        {"optimizer": sgd_for(model), "val_loader": scored(bench.tiny, 64), "loss": functional.cross_entropy},
    )


def helper_only(outputs: torch.Tensor | Batch, labels: torch.Tensor) -> torch.Tensor:
    """Cross entropy of the last output, which is the helper's in training."""
    return functional.cross_entropy(outputs if isinstance(outputs, torch.Tensor) else outputs[-1], labels)


def wrong_output(bench: Bench) -> Examined:
    """The loss takes the last of two outputs, and that is the helping head; the main one, which is scored, is never in it."""
    model = seeded(TwoHeads)
    return Examined(
        model,
        usual(bench.tiny, 32),
        {"optimizer": adam_for(model), "val_loader": scored(bench.tiny, 32), "loss": helper_only},
    )


def frozen_from_scratch(bench: Bench) -> Examined:
    """All but the last layer is frozen as a tutorial of fine-tuning does, but the backbone has random weights."""
    model = built("resnet18", {"width": 32})
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.startswith("fc.")
    optimizer = torch.optim.SGD([one for one in model.parameters() if one.requires_grad], lr=0.05, momentum=0.9)
    return Examined(
        model,
        usual(bench.tiny, 48),
        {"optimizer": optimizer, "val_loader": scored(bench.tiny, 48), "loss": functional.cross_entropy},
    )


def one_group(bench: Bench) -> Examined:
    """Parameters are sorted into two groups, with weight decay and without, and only the one without gets to the optimiser."""
    model = seeded(Transformer)
    spared = [one for one in model.parameters() if one.dim() == 1]
    optimizer = torch.optim.AdamW([{"params": spared, "weight_decay": 0.0}], lr=1e-3)
    return Examined(
        model,
        usual(bench.tiny, 32),
        {"optimizer": optimizer, "val_loader": scored(bench.tiny, 32), "loss": functional.cross_entropy},
    )


def still_backbone(bench: Bench) -> Examined:
    """forward() sets the backbone to evaluation each time, a left-over of code that extracts features."""
    backbone = built("resnet20")
    backbone.fc = nn.Identity()
    torch.manual_seed(0)
    model = Extractor(backbone, 64, still=True)
    return Examined(
        model,
        usual(bench.tiny, 32),
        {"optimizer": sgd_for(model, 0.02), "val_loader": scored(bench.tiny, 32), "loss": functional.cross_entropy},
    )


def mean_only(bench: Bench) -> Examined:
    """Pixels of 0..255 less their mean, as Caffe has them: their deviation is about 60."""
    model = seeded(lambda: PlainNet((24, 24, 48, 48)))
    images, labels = photos(bench.tiny, "train", 32, 40)
    val_images, val_labels = photos(bench.tiny, "val", 32, 10)
    mean = torch.tensor(MEAN)[:, None, None] * 255
    return Examined(
        model,
        shuffled(images.float() - mean, labels),
        {
            "optimizer": sgd_for(model, 0.02),
            "val_loader": batches(val_images.float() - mean, val_labels),
            "loss": functional.cross_entropy,
        },
    )


def prior_everywhere(bench: Bench) -> Examined:
    """The bias of a detector's last layer, -4.6, is set in every convolution."""
    model = seeded(lambda: PlainNet((32, 32, 64, 64, 96)))
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            assert layer.bias is not None
            nn.init.constant_(layer.bias, PRIOR)
    return Examined(
        model,
        usual(bench.builtin, 32),
        {"optimizer": adam_for(model), "val_loader": scored(bench.builtin, 32), "loss": functional.cross_entropy},
    )


def saturated(bench: Bench) -> Examined:
    """Hidden layers of a tanh network are drawn by normal_ with its default deviation, 1."""
    model = seeded(TanhNet)
    for layer in list(model)[:-1]:
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.normal_(layer.weight)
    return Examined(
        model,
        usual(bench.tiny, 32),
        {"optimizer": adam_for(model), "val_loader": scored(bench.tiny, 32), "loss": functional.cross_entropy},
    )


def reshaped(pixels: torch.Tensor) -> torch.Tensor:
    """Images as a decoder gives them, [N, H, W, 3], brought to [N, 3, H, W] by reshape."""
    count, channels, height, width = pixels.shape
    decoded = pixels.permute(0, 2, 3, 1).contiguous()
    images: torch.Tensor = normalised_pixels(decoded.reshape(count, channels, height, width))
    return images


def reshaped_images(bench: Bench) -> Examined:
    """Height, width and channels are put in order by reshape and not by permute, in training and validation alike."""
    model = seeded(lambda: PlainNet((32, 32, 64, 64, 96, 96), nn.BatchNorm2d))
    images, labels = photos(bench.tiny, "train", 32, 40)
    val_images, val_labels = photos(bench.tiny, "val", 32, 10)
    return Examined(
        model,
        shuffled(reshaped(images), labels),
        {
            "optimizer": adam_for(model, 2e-3),
            "val_loader": batches(reshaped(val_images), val_labels),
            "loss": functional.cross_entropy,
        },
    )


class OneBuffer:
    """A loader that reads each image into the same buffer, and keeps references to it where it should keep copies."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor, batch: int = 32) -> None:
        self.images, self.labels, self.batch = images, labels, batch

    def __len__(self) -> int:
        return len(self.labels) // self.batch

    def __iter__(self) -> Iterator[Batch]:
        order = torch.randperm(len(self.labels), generator=torch.Generator().manual_seed(1))
        buffer = torch.empty_like(self.images[0])
        for start in range(0, len(self) * self.batch, self.batch):
            chosen = order[start : start + self.batch]
            kept = []
            for number in chosen:
                buffer.copy_(self.images[number])
                kept.append(buffer)
            yield torch.stack(kept), self.labels[chosen]


def one_buffer(bench: Bench) -> Examined:
    """All images of a batch are its last one, because they are read into one buffer."""
    model = built("resnet20")
    images, labels = photos(bench.tiny, "train", 32, 40)
    return Examined(
        model,
        OneBuffer(normalised_pixels(images), labels),
        {"optimizer": sgd_for(model), "val_loader": scored(bench.tiny, 32), "loss": functional.cross_entropy},
    )


def text_order(bench: Bench) -> Examined:
    """The validation set numbers its classes in the order of their numbers as text: 0, 1, 10, 11, 2 and so on."""
    model = seeded(lambda: PlainNet((32, 32, 64, 64, 96), nn.BatchNorm2d))
    place = sorted(range(K), key=str)
    images, labels = photos(bench.builtin, "val", 48, 20)
    renumbered = torch.tensor([place.index(int(label)) for label in labels])
    return Examined(
        model,
        usual(bench.builtin, 48, 100),
        {
            "optimizer": adam_for(model, 2e-3),
            "val_loader": batches(normalised_pixels(images), renumbered),
            "loss": functional.cross_entropy,
        },
    )


def fast_transformer(bench: Bench) -> Examined:
    """A vision transformer has Adam with the rate of SGD, 0.05."""
    model = seeded(Transformer)
    return Examined(
        model,
        usual(bench.tiny, 32),
        {"optimizer": adam_for(model, 0.05), "val_loader": scored(bench.tiny, 32), "loss": functional.cross_entropy},
    )


def slow_statistics(bench: Bench) -> Examined:
    """Batch norms have a momentum of 0.0005, so the running statistics are those of the start for thousands of steps."""
    model = seeded(lambda: PlainNet((32, 32, 64, 64, 96, 96), lambda channels: nn.BatchNorm2d(channels, momentum=0.0005)))
    return Examined(
        model,
        usual(bench.tiny, 32),
        {"optimizer": adam_for(model, 2e-3), "val_loader": scored(bench.tiny, 32), "loss": functional.cross_entropy},
    )


def half_attention(bench: Bench) -> Examined:
    """Attention takes exp() in half precision and does not subtract the largest score: beyond 65,504 it is infinite."""
    model = seeded(lambda: OwnAttention(torch.float16))
    return Examined(
        model,
        usual(bench.tiny, 32),
        {"optimizer": adam_for(model), "val_loader": scored(bench.tiny, 32), "loss": functional.cross_entropy},
    )


def standardised(pixels: torch.Tensor) -> torch.Tensor:
    """Each image less its own mean over its own deviation."""
    values = pixels.float() / 255
    return (values - values.mean((1, 2, 3), keepdim=True)) / values.std((1, 2, 3), keepdim=True)


def black_image(bench: Bench) -> Examined:
    """Each image is divided by its own deviation, and one of them is black: 0 / 0 in one batch of each epoch."""
    model = built("resnet20")
    images, labels = photos(bench.tiny, "train", 32, 40)
    images[5 * 32 + 7] = 0
    val_images, val_labels = photos(bench.tiny, "val", 32, 10)
    return Examined(
        model,
        batches(standardised(images), labels),
        {
            "optimizer": sgd_for(model),
            "val_loader": batches(standardised(val_images), val_labels),
            "loss": functional.cross_entropy,
        },
    )


# ---------------------------------------------------------------- before a training


def linked(folder: Path, source: Path, keep: Callable[[str, int, int], bool]) -> Path:
    """A copy of a class folder. keep: whether an image of a split goes in, by the place of its class and its own."""
    for split in ("train", "val"):
        for place, name in enumerate(classes(source)):
            (folder / split / name).mkdir(parents=True)
            for number, path in enumerate(sorted((source / split / name).iterdir())):
                if keep(split, place, number):
                    shutil.copy(path, folder / split / name / path.name)
    return folder


def tiny_input(bench: Bench) -> Before:
    """A ResNet-18 with the stem of ImageNet gets 12 px: its grid is one pixel from the third stage on."""
    return Before(bench.tiny, "small", {**QUICK, "data.size_px": 12, "data.shrink_px": 14})


def small_crops(bench: Bench) -> Before:
    """Random crops take 1 to 5 percent of the photo: a slip of scale, (0.01, 0.05)."""
    return Before(bench.builtin, "small", {**QUICK, "augment.scale": (0.01, 0.05)})


def few_of_some(bench: Bench) -> Before:
    """Eight of twelve classes have 4 training images, the others 100."""
    data = linked(bench.work / "set", bench.builtin, lambda split, place, number: split == "val" or place % 3 == 0 or number < 4)
    return Before(data, "small", QUICK)


def copied_val(bench: Bench) -> Before:
    """Most of the validation set are copies of training images under other names."""
    data = linked(bench.work / "set", bench.tiny, lambda split, place, number: split == "train" or number < 5)
    for name in classes(data):
        for path in sorted((data / "train" / name).iterdir())[:20]:
            shutil.copy(path, data / "val" / name / f"extra_{path.name}")
    return Before(data, "small", QUICK)


def too_large(bench: Bench) -> Before:
    """VGG-16 at 512 px with batches of 1,024 in one piece."""
    return Before(
        bench.tiny,
        "vgg-2014",
        {
            "data.size_px": 512,
            "augment.shorter_px": (0, 0),
            "optim.batch_size": 1024,
            "optim.accumulate": 1,
            "budget.epochs": 10.0,
        },
    )


def too_long(bench: Bench) -> Before:
    """One minute is given to Xception at 299 px, which does not see each image once in it."""
    return Before(bench.tiny, "small", {"model.name": "xception", "data.size_px": 299, "data.shrink_px": 0, "budget.time": "60s"})


def single_images(bench: Bench) -> Before:
    """A batch of 32 is computed one image at a time, and the last stage of a ResNet-18 at 32 px has one pixel."""
    return Before(
        bench.builtin,
        "small",
        {**QUICK, "data.size_px": 32, "data.shrink_px": 40, "optim.batch_size": 32, "optim.accumulate": 32},
    )


# ---------------------------------------------------------------- during

# ResNet-20 at 32 px for at most 100 steps.
SHORT = {
    "model.name": "resnet20",
    "data.size_px": 32,
    "data.shrink_px": 40,
    "optim.ema": 0.0,
    "budget.steps": 100,
    "budget.log_every": 5,
}


def strong_decay(bench: Bench) -> During:
    """SGD at 0.1 with a weight decay of 0.5, a value for AdamW: weights lose a twentieth in each step."""
    return During(bench.tiny, "small", {**SHORT, **SGD, "optim.weight_decay": 0.5, "optim.decay_all": True})


def keep_for_drop(bench: Bench) -> During:
    """A dropout of 0.98, because 0.98 was meant to be the share that is kept."""
    return During(
        bench.tiny,
        "small",
        {**SHORT, "model.name": "kth-f", "model.options.size_px": 32, "model.options.dropout": 0.98, "optim.lr": 0.001},
    )


def mixed_pairs(bench: Bench) -> During:
    """MixUp, CutMix and label smoothing: the training loss stays high, and the network learns."""
    return During(bench.tiny, "small", {**SHORT, "augment.mixup": 0.2, "augment.cutmix": 1.0, "loss.smoothing": 0.1})


# ---------------------------------------------------------------- recorded


def recorded(name: str) -> Callable[[Bench], Recorded]:
    """A case that is a file or a folder of `LOGS`; README.md there says what is planted."""

    def prepare(bench: Bench) -> Recorded:
        return Recorded(LOGS / name)

    return prepare


# ---------------------------------------------------------------- healthy ones, before


def heavy_but_right(bench: Bench) -> Before:
    """TrivialAugment, erasing and wide crops on a small network: the first losses fall slowly, and it learns."""
    return Before(
        bench.builtin,
        "small",
        {**QUICK, "augment.policy": "trivialaugment", "augment.erase": 0.25, "budget.epochs": 30.0},
    )


def high_rate_with_norm(bench: Bench) -> Before:
    """ResNet-20 with SGD at 0.2, Nesterov's momentum, two epochs of warm-up: high for a plain network, usual for this one."""
    return Before(
        bench.tiny,
        "small",
        {
            **SGD,
            "model.name": "resnet20",
            "data.size_px": 32,
            "data.shrink_px": 40,
            "optim.lr": 0.2,
            "optim.nesterov": True,
            "optim.warmup_epochs": 2.0,
            "optim.ema": 0.0,
            "budget.epochs": 20.0,
        },
    )


# ---------------------------------------------------------------- healthy ones, examined


def zero_head(bench: Bench) -> Examined:
    """The layer of the classes and the last scale of each block start at zero: a constant function at first, on purpose."""
    model = built("resnet18", {"width": 32, "zero_gamma": True})
    assert isinstance(model.fc, nn.Linear)
    nn.init.zeros_(model.fc.weight)
    assert model.fc.bias is not None
    nn.init.zeros_(model.fc.bias)
    return Examined(
        model,
        usual(bench.tiny, 48, 100),
        {"optimizer": sgd_for(model, 0.02), "val_loader": scored(bench.tiny, 48), "loss": functional.cross_entropy},
    )


def one_against_rest(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Binary cross entropy of each class, summed over the classes."""
    targets = functional.one_hot(labels, K).float()
    return functional.binary_cross_entropy_with_logits(outputs, targets, reduction="none").sum(1).mean()


def binary_losses(bench: Bench) -> Examined:
    """A sigmoid for each class, with the prior of 1 in 12 as the bias: the first loss is not ln 12, and that is right."""
    model = seeded(lambda: PlainNet((32, 32, 64, 64, 96), nn.BatchNorm2d))
    head = list(model)[-1]
    assert isinstance(head, nn.Linear) and head.bias is not None
    nn.init.constant_(head.bias, -2.4)
    return Examined(
        model,
        usual(bench.tiny, 32, 100),
        {"optimizer": adam_for(model, 2e-3), "val_loader": scored(bench.tiny, 32), "loss": one_against_rest},
    )


def mixer(bench: Bench) -> Examined:
    """An MLP-Mixer, with no convolution but the patches and no batch norm, on 1,200 photos: a slow learner that learns."""
    model = seeded(Mixer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    return Examined(
        model,
        usual(bench.tiny, 32, 100),
        {"optimizer": optimizer, "val_loader": scored(bench.tiny, 32), "loss": functional.cross_entropy},
    )


def batches_of_four(bench: Bench) -> Examined:
    """Batches of four, as for large images, with group normalisation and a rate to suit."""
    model = seeded(lambda: PlainNet((32, 32, 64, 64, 96), groups))
    images, labels = photos(bench.tiny, "train", 32, 100)
    return Examined(
        model,
        shuffled(normalised_pixels(images), labels, batch=4),
        {
            "optimizer": adam_for(model, 3e-4),
            "val_loader": scored(bench.tiny, 32),
            "loss": functional.cross_entropy,
        },
    )


_BUILTIN, _TINY = "builtin", "tiny"

CASES: list[Case] = [
    Case("s4-wrong-fan", "initialisation", "depthwise separable net", _TINY, wrong_fan, "fan_out of depthwise convolutions"),
    Case("s4-half-open", "gates", "gated convolutions", _TINY, half_open, "gates at one half, ten in a row"),
    Case("s4-wide-head", "head-scale", "torchvision/shufflenet_v2_x0_5", _TINY, wide_head, "normal_ of deviation 1 on the head"),
    Case("s4-wrong-output", "heads-forgotten", "two heads", _TINY, wrong_output, "the loss takes the helping head only"),
    Case("s4-frozen-from-scratch", "frozen-parameters", "resnet18", _TINY, frozen_from_scratch, "random backbone frozen"),
    Case("s4-one-group", "unused-parameters", "vision transformer", _TINY, one_group, "only biases and norms optimised"),
    Case("s4-still-backbone", "batch-norm-mode", "resnet20", _TINY, still_backbone, "eval() within forward()"),
    Case("s4-prior-everywhere", "dead-units", "plain net", _BUILTIN, prior_everywhere, "bias -4.6 in every convolution"),
    Case(
        "s4-saturated", "saturated-units", "LeNet with tanh", _TINY, saturated, "weights of deviation 1", also=("initialisation",)
    ),
    Case("s4-reshaped", "channels-last", "plain net with BN", _TINY, reshaped_images, "reshape instead of permute"),
    Case("s4-one-buffer", "constant-images", "resnet20", _TINY, one_buffer, "all images of a batch are its last"),
    Case("s4-text-order", "class-order", "plain net with BN", _BUILTIN, text_order, "classes of val sorted as text"),
    Case("s4-fast-transformer", "learning-rate-high", "vision transformer", _TINY, fast_transformer, "Adam at 0.05"),
    Case("s4-slow-statistics", "batch-norm-statistics", "plain net with BN", _TINY, slow_statistics, "momentum of 0.0005"),
    Case("s4-half-attention", "precision", "attention by hand", _TINY, half_attention, "exp() in half precision"),
    Case("s4-black-image", "bad-batch", "resnet20", _TINY, black_image, "0 / 0 in one image"),
    Case(
        "s4-mean-only", "not-normalised", "plain net", _TINY, mean_only, "only the mean taken off 0..255", also=("pixel-range",)
    ),
    Case("s4-tiny-input", "image-size", "resnet18", _TINY, tiny_input, "12 px for the stem of ImageNet"),
    Case("s4-small-crops", "crop-loses-object", "resnet18", _BUILTIN, small_crops, "crops of 1 to 5 percent"),
    Case("s4-few-of-some", "unequal-classes", "resnet18", _BUILTIN, few_of_some, "4 images against 100"),
    Case("s4-copied-val", "train-in-val", "resnet18", _TINY, copied_val, "copies of training images in val"),
    Case("s4-too-large", "memory", "vgg16", _TINY, too_large, "512 px times 1,024"),
    Case("s4-too-long", "time", "xception", _TINY, too_long, "one minute for 299 px"),
    Case("s4-single-images", "batch-norm-single", "resnet18", _BUILTIN, single_images, "micro-batches of one, grid of one"),
    Case("s4-strong-decay", "weight-decay-high", "resnet20", _TINY, strong_decay, "SGD with weight decay 0.5"),
    Case("s4-keep-for-drop", "regularisation-strong", "kth-f", _TINY, keep_for_drop, "dropout of 0.98"),
    Case("s4-by-heart", "overfitting", "LeNet with tanh", _TINY, recorded("by-heart.csv"), "480 images, 40 epochs"),
    Case("s4-few-steps", "batch-too-large", "resnet20", _TINY, recorded("few-steps"), "batches of 600, 24 steps"),
    Case("s4-split-class", "confusable-classes", "resnet18", _TINY, recorded("split-class"), "one class under two names"),
    Case("s4-growing-search", "throughput-falling", "plain net", _TINY, recorded("growing-search.csv"), "search in all seen"),
    Case("s4-mixed-pairs", None, "resnet20", _TINY, mixed_pairs, "high loss of mixed images, and it learns"),
    Case("s4-val-above-train", None, "plain net with BN", _TINY, recorded("val-above-train.csv"), "train below val, rightly"),
    Case("s4-heavy-but-right", None, "resnet18", _BUILTIN, heavy_but_right, "much augmentation, and it learns"),
    Case("s4-high-rate-with-norm", None, "resnet20", _TINY, high_rate_with_norm, "SGD at 0.2, and it learns"),
    Case("s4-zero-head", None, "resnet18", _TINY, zero_head, "constant function at the start, on purpose"),
    Case("s4-binary-losses", None, "plain net with BN", _TINY, binary_losses, "first loss is not ln 12"),
    Case("s4-mixer", None, "MLP-Mixer", _TINY, mixer, "slow learner without convolutions"),
    Case("s4-batches-of-four", None, "plain net with GroupNorm", _TINY, batches_of_four, "small batches with GroupNorm"),
]

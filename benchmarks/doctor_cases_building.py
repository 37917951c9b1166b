"""The building half of the doctor's benchmark: the cases that its rules were tuned on."""

from __future__ import annotations

import csv
import functools
import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from doctor_bench import LOGS, Before, Bench, Case, During, Examined, Recorded
from PIL import Image
from torch import nn
from torch.nn import functional

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RECORDED = LOGS / "building"


# ---------------------------------------------------------------- images for strangers


@functools.cache
def _pixels(folder: Path, split: str, size_px: int) -> tuple[torch.Tensor, torch.Tensor]:
    """All images of a split, [N, 3, S, S] in 0..1, shuffled once, with their labels."""
    files = sorted((folder / split).glob("*/*"))
    names = sorted({file.parent.name for file in files})
    order = np.random.default_rng(0).permutation(len(files))
    arrays = [
        np.asarray(Image.open(files[i]).convert("RGB").resize((size_px, size_px), Image.Resampling.BILINEAR)) for i in order
    ]
    images = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 255
    return images, torch.tensor([names.index(files[i].parent.name) for i in order])


def _normalised(images: torch.Tensor) -> torch.Tensor:
    return (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def _loader(
    folder: Path,
    split: str = "train",
    size_px: int = 32,
    batch: int = 32,
    change: Callable[[torch.Tensor], torch.Tensor] = _normalised,
    labels: Callable[[torch.Tensor], torch.Tensor] = lambda labels: labels,
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    images, numbers = _pixels(folder, split, size_px)
    images, numbers = change(images), labels(numbers)
    return [(images[i : i + batch], numbers[i : i + batch]) for i in range(0, len(images) - batch + 1, batch)]


def _ours(name: str, classes: int = 12, **options: Any) -> nn.Module:
    from striate.models import catalog

    return catalog.build(name, classes, options)


def _sgd(model: nn.Module, lr: float = 0.05, **options: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=1e-4, **options)


class SigmoidNet(nn.Module):
    """Eight convolutions with sigmoids behind them, torch's own start."""

    def __init__(self, classes: int = 12) -> None:
        super().__init__()
        widths = [3, 32, 32, 32, 64, 64, 64, 64, 64]
        layers: list[nn.Module] = []
        for i, o in itertools.pairwise(widths):
            layers += [nn.Conv2d(i, o, 3, padding=1), nn.Sigmoid()]
        self.features = nn.Sequential(*layers)
        self.fc = nn.Linear(64, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.features(x).mean((2, 3)))


class DeepPlain(nn.Module):
    """Forty convolutions without normalisation, torch's own start."""

    def __init__(self, classes: int = 12) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, 2, 1)
        self.body = nn.ModuleList(nn.Conv2d(32, 32, 3, padding=1) for _ in range(40))
        self.head = nn.Linear(32, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.stem(x))
        for conv in self.body:
            x = functional.relu(conv(x))
        return self.head(x.mean((2, 3)))


# ---------------------------------------------------------------- ill: strangers


def _pixel_case(
    change: Callable[[torch.Tensor], torch.Tensor], data: str = "tiny", size_px: int = 32
) -> Callable[[Bench], Examined]:
    def prepare(bench: Bench) -> Examined:
        model = _ours("resnet20")
        return Examined(model, _loader(getattr(bench, data), size_px=size_px, change=change), {"optimizer": _sgd(model)})

    return prepare


def _model_case(
    make: Callable[[], nn.Module], lr: float = 0.05, size_px: int = 32, data: str = "builtin"
) -> Callable[[Bench], Examined]:
    def prepare(bench: Bench) -> Examined:
        model = make()
        return Examined(model, _loader(getattr(bench, data), size_px=size_px), {"optimizer": _sgd(model, lr)})

    return prepare


def _head_of_imagenet(bench: Bench) -> Examined:
    model = _ours("resnet18", 1000)
    return Examined(model, _loader(bench.builtin), {"optimizer": _sgd(model)})


def _from_one(bench: Bench) -> Examined:
    model = _ours("resnet20")
    return Examined(model, _loader(bench.tiny, labels=lambda labels: labels + 1), {"optimizer": _sgd(model)})


def _frozen(bench: Bench) -> Examined:
    model = _ours("resnet18")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(("layer4", "fc")))
    return Examined(
        model, _loader(bench.builtin), {"optimizer": torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.05)}
    )


def _optimizer_of_head(bench: Bench) -> Examined:
    model = _ours("resnet18")
    return Examined(model, _loader(bench.tiny), {"optimizer": torch.optim.Adam(model.get_submodule("fc").parameters(), 1e-3)})


def _resting_norms(bench: Bench) -> Examined:
    model = _ours("resnet18").train()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eval()
    return Examined(model, _loader(bench.builtin), {"optimizer": _sgd(model)})


def _forgotten_head(bench: Bench) -> Examined:
    model = _ours("googlenet-bn")

    def loss(outputs: Any, labels: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(outputs.logits, labels) + 0.3 * functional.cross_entropy(outputs.aux_logits2, labels)

    return Examined(model, _loader(bench.builtin, size_px=64), {"optimizer": _sgd(model, 0.02), "loss": loss})


def _heavy_heads(bench: Bench) -> Examined:
    model = _ours("googlenet-bn")

    def loss(outputs: Any, labels: torch.Tensor) -> torch.Tensor:
        main, second, first = (functional.cross_entropy(one, labels) for one in outputs)
        return 0.4 * main + second + first

    return Examined(model, _loader(bench.tiny, size_px=64), {"optimizer": _sgd(model, 0.02), "loss": loss})


def _dead() -> nn.Module:
    model = _ours("alexnet-one-tower")
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.constant_(layer.bias, -4.0)
    return model


def _saturated() -> nn.Module:
    model = SigmoidNet()
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, std=2.0)
    return model


def _large_head() -> nn.Module:
    model = _ours("resnet18")
    nn.init.normal_(model.get_parameter("fc.weight"), std=2.0)
    return model


def _single(bench: Bench) -> Examined:
    model = _ours("resnet18")
    return Examined(model, _loader(bench.builtin, batch=1), {"optimizer": _sgd(model, 0.001)})


# ---------------------------------------------------------------- ill: before and during a training


def _before(data: str, recipe: str | None = None, **changes: Any) -> Callable[[Bench], Before]:
    named = {name.replace("__", "."): value for name, value in changes.items()}
    return lambda bench: Before(getattr(bench, data), recipe, named)


def _during(data: str, recipe: str | None = None, **changes: Any) -> Callable[[Bench], During]:
    named = {"budget.log_every": 5, "steps": 100} | {name.replace("__", "."): value for name, value in changes.items()}
    return lambda bench: During(getattr(bench, data), recipe, named)


def _copied(folder: Path, work: Path, split: str) -> Path:
    place = work / "data" / split
    shutil.copytree(folder / split, place)
    return place


def _shuffled(bench: Bench) -> Before:
    files = sorted(path for path in (bench.builtin / "train").rglob("*") if path.is_file())
    labels = np.random.default_rng(1).permutation([file.parent.name for file in files])
    table = bench.work / "train.csv"
    with open(table, "w", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(["path", "label"])
        for number, (file, label) in enumerate(zip(files, labels, strict=True)):
            place = bench.work / "images" / f"{number:05d}{file.suffix}"
            place.parent.mkdir(exist_ok=True)
            shutil.copy(file, place)
            rows.writerow([f"images/{place.name}", label])
    return Before(table, None, {"model": "resnet20", "img_size": 32, "lr": 0.05, "batch_size": 64, "epochs": 10})


def _other_order(bench: Bench) -> Before:
    """Validation folders renamed as if their classes had been numbered in another order."""
    for split in ("train", "val"):
        place = _copied(bench.builtin, bench.work, split)
        names = sorted(path.name for path in place.iterdir())
        for number, name in enumerate(names):
            other = number if split == "train" else (number * 5 + 3) % len(names)
            (place / name).rename(place / f"class_{other:02d}")
    return Before(bench.work / "data", None, {"model": "resnet20", "img_size": 32, "lr": 0.05, "batch_size": 64, "epochs": 10})


def _leaked(bench: Bench) -> Before:
    train, val = _copied(bench.tiny, bench.work, "train"), _copied(bench.tiny, bench.work, "val")
    for folder in train.iterdir():
        for file in sorted(folder.iterdir())[:15]:
            shutil.copy(file, val / folder.name / f"x{file.name}")
    return Before(bench.work / "data", None, {"model": "resnet20", "img_size": 32, "lr": 0.05, "batch_size": 64, "epochs": 10})


def _unequal(bench: Bench) -> Before:
    train = _copied(bench.builtin, bench.work, "train")
    _copied(bench.builtin, bench.work, "val")
    for folder in sorted(train.iterdir())[2:]:
        for file in sorted(folder.iterdir())[4:]:
            file.unlink()
    return Before(bench.work / "data", None, {"model": "resnet20", "img_size": 32, "lr": 0.05, "batch_size": 32, "epochs": 20})


def _one_class(bench: Bench) -> Examined:
    model = _ours("resnet20")
    return Examined(model, _loader(bench.builtin, labels=torch.zeros_like), {"optimizer": _sgd(model)})


# ---------------------------------------------------------------- recorded runs

STILL = {"augment.crop": "resize", "augment.flip": 0.0, "data.crop_share": 1.0}
SMALL_NET = {"model": "resnet20", "img_size": 32, "batch_size": 32}
# What the recorded runs are: the data, and what is changed in the default recipe.
SLOW: dict[str, tuple[str, dict[str, Any]]] = {
    "overfitting": (
        "tiny-few",
        {"model": "kth-d", "img_size": 32, "epochs": 30, "batch_size": 32, "optimizer": "adam", "lr": 1e-3, "weight_decay": 0.0}
        | {"schedule": "constant"}
        | STILL,
    ),
    "label-noise": ("tiny-noisy", SMALL_NET | {"epochs": 25, "lr": 0.05}),
    "schedule-early": ("tiny", SMALL_NET | {"epochs": 16, "lr": 0.05, "schedule": "step", "optim.drop_epochs": [1.0, 2.0, 3.0]}),
    "schedule-never": ("tiny", SMALL_NET | {"epochs": 24, "lr": 0.1, "schedule": "constant"}),
    "healthy": ("builtin", SMALL_NET | {"epochs": 24, "lr": 0.05}),
    "healthy-tiny": ("tiny", {"model": "resnet18", "img_size": 64, "epochs": 10, "batch_size": 32, "lr": 0.02}),
}


def record(bench: Bench, place: Path) -> None:
    """Trains the recorded runs anew, and keeps of each what the doctor reads."""
    import striate

    bench.work.mkdir(parents=True, exist_ok=True)
    for name, (data, changes) in SLOW.items():
        if (place / name).exists():  # delete a record to make it anew
            continue
        folder = _ill_data(bench, data)
        run = striate.train(
            folder, changes={"budget.log_every": 5, **changes}, out=bench.work, name=name, quiet=True, doctor=False
        )
        slim(run.path, place / name)


def _ill_data(bench: Bench, data: str) -> Path:
    if data in ("builtin", "tiny"):
        return Path(getattr(bench, data))
    place = bench.work / data
    if place.exists():
        return place
    shutil.copytree(bench.tiny, place)
    if data == "tiny-few":
        for folder in (place / "train").iterdir():
            for file in sorted(folder.iterdir())[40:]:
                file.unlink()
    else:  # a fifth of all labels, in both splits, moved to another class
        draw = np.random.default_rng(5)
        for split in ("train", "val"):
            names = sorted(path.name for path in (place / split).iterdir())
            for file in sorted((place / split).glob("*/*")):
                if draw.random() < 0.2:
                    other = draw.choice([name for name in names if name != file.parent.name])
                    file.rename(place / split / other / f"{file.parent.name}-{file.name}")
    return place


def slim(run: Path, place: Path) -> None:
    """Copies what the doctor reads of a run: no weights, no images, no paths of the machine."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    for name in ("recipe.json", "classes.json", "view.json", "status.json", "best.json", "log.jsonl"):
        shutil.copy(run / name, place / name)
    data = json.loads((run / "data.json").read_text())
    data["path"] = "data"
    for facts in data["splits"].values():
        facts["root"] = "data"
    (place / "data.json").write_text(json.dumps(data))
    log = [json.loads(line) for line in (place / "log.jsonl").read_text().splitlines()]
    kept = [one for one in log if one["kind"] not in ("note", "checkpoint", "plan")]
    (place / "log.jsonl").write_text("".join(json.dumps(_rounded(one)) + "\n" for one in kept))
    for folder in (run / "evaluation").iterdir():
        (place / "evaluation" / folder.name).mkdir(parents=True)
        shutil.copy(folder / "predictions.parquet", place / "evaluation" / folder.name / "predictions.parquet")


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items() if name != "time"}
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _growing(bench: Bench) -> Recorded:
    """The healthy record with memory that grows by 3 MB a step."""
    return _edited(bench, "memory_bytes", lambda value, place: value + 3_000_000 * 5 * place)


def _falling(bench: Bench) -> Recorded:
    """The healthy record with a speed that falls to a fifth, and the clock that goes with it, of a training ten times as long."""
    slower = _edited(bench, "images_per_s", lambda value, place: value / (1 + place / 40))
    log = slower.path / "log.jsonl"
    records, clock = [json.loads(line) for line in log.read_text().splitlines()], 0.0
    for one in records:
        if one["kind"] == "step":
            clock += 10 * 5 * 32 / one["images_per_s"]
            one["elapsed_s"] = clock
    log.write_text("".join(json.dumps(one) + "\n" for one in records))
    return slower


def _edited(bench: Bench, field: str, change: Callable[[float, int], float]) -> Recorded:
    place = bench.work / "edited"
    shutil.copytree(RECORDED / "healthy", place)
    records = [json.loads(line) for line in (place / "log.jsonl").read_text().splitlines()]
    steps: Iterator[int] = iter(range(len(records)))
    for one in records:
        if one["kind"] == "step":
            one[field] = change(one[field], next(steps))
    (place / "log.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    return Recorded(place)


def _table(bench: Bench) -> Recorded:
    """Epochs of the overfitting record as a stranger's CSV."""
    path = bench.work / "training.csv"
    records = [json.loads(line) for line in (RECORDED / "overfitting" / "log.jsonl").read_text().splitlines()]
    train = {one["step"]: one for one in records if one["kind"] == "evaluation" and one["split"] == "train-sample"}
    with open(path, "w", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(["epoch", "loss", "val_loss", "accuracy", "val_accuracy"])
        for one in records:
            if one["kind"] == "evaluation" and one["split"] == "val" and one["step"] in train:
                other = train[one["step"]]
                rows.writerow([round(one["epoch"]), other["loss"], one["loss"], other["top1"], one["top1"]])
    return Recorded(path)


# ---------------------------------------------------------------- healthy ones


def _zero_head() -> nn.Module:
    model = _ours("resnet18")
    nn.init.zeros_(model.get_parameter("fc.weight"))
    nn.init.zeros_(model.get_parameter("fc.bias"))
    return model


def _evaluated_network(bench: Bench) -> Examined:
    """GoogLeNet with batch norm, whose output is nearly constant at the start in evaluation mode."""
    model = _ours("googlenet-bn").train()
    return Examined(model, _loader(bench.builtin, size_px=64), {"optimizer": _sgd(model, 0.02)})


SMALL = {"img_size": 32, "batch_size": 32, "epochs": 10}
CASES: list[Case] = [
    Case(
        "source-paper",
        "initialisation",
        "se-googlenet-paths",
        "builtin",
        _before("builtin", "se-googlenet-paths-2024", img_size=64, batch_size=64),
        "the source paper's network and recipe",
        ("gates",),
    ),
    Case("kth-a", "initialisation", "kth-a", "tiny", _before("tiny", "kth-a"), "random_uniform without normalisation"),
    Case(
        "vgg-as-printed",
        "initialisation",
        "vgg-a",
        "builtin",
        _before("builtin", None, model="vgg-a", lr=0.01, **SMALL),
        "VGG's variance of 0.01 taken at its word",
    ),
    Case(
        "deep-plain",
        "initialisation",
        "own",
        "builtin",
        _model_case(DeepPlain),
        "forty convolutions, torch's start",
        ("no-normalisation",),
    ),
    Case(
        "sigmoids", "initialisation", "own", "builtin", _model_case(SigmoidNet), "eight sigmoids in a row", ("saturated-units",)
    ),
    Case(
        "saturated",
        "saturated-units",
        "own",
        "tiny",
        _model_case(_saturated, data="tiny"),
        "weights of deviation 2 before sigmoids",
        ("initialisation",),
    ),
    Case("dead", "dead-units", "alexnet-one-tower", "builtin", _model_case(_dead, 0.01, 64), "biases of -4 before every ReLU"),
    Case(
        "large-head",
        "head-scale",
        "resnet18",
        "tiny",
        _model_case(_large_head, data="tiny", size_px=64),
        "head drawn with deviation 2",
    ),
    Case("imagenet-head", "head-size", "resnet18", "builtin", _head_of_imagenet, "1,000 outputs for 12 classes"),
    Case("labels-from-one", "labels-off-by-one", "resnet20", "tiny", _from_one, "labels 1 to 12 for 12 outputs"),
    Case("frozen-backbone", "frozen-parameters", "resnet18", "builtin", _frozen, "all but layer4 frozen, untrained"),
    Case("optimizer-of-head", "unused-parameters", "resnet18", "tiny", _optimizer_of_head, "the optimiser holds the head alone"),
    Case("norms-resting", "batch-norm-mode", "resnet18", "builtin", _resting_norms, "batch norms in evaluation mode"),
    Case("aux-forgotten", "heads-forgotten", "googlenet-bn", "builtin", _forgotten_head, "one auxiliary head not in the loss"),
    Case("aux-heavy", "head-weights", "googlenet-bn", "tiny", _heavy_heads, "0.4 main + 1 + 1"),
    Case("batch-of-one", "batch-norm-single", "resnet18", "builtin", _single, "batches of one image", ("batch-too-small",)),
    Case("bytes", "pixel-range", "resnet20", "tiny", _pixel_case(lambda x: x * 255), "0..255 into the network"),
    Case(
        "twice",
        "normalised-twice",
        "resnet20",
        "builtin",
        _pixel_case(lambda x: _normalised(_normalised(x)), "builtin"),
        "normalised in the data set and in the step",
    ),
    Case("divided-twice", "pixel-range", "resnet20", "tiny", _pixel_case(lambda x: x / 255), "divided by 255 twice"),
    Case("plain-pixels", "not-normalised", "resnet20", "tiny", _pixel_case(lambda x: x), "0..1 as they are"),
    Case(
        "reshaped",
        "channels-last",
        "resnet20",
        "tiny",
        _pixel_case(lambda x: _normalised(x.permute(0, 2, 3, 1).reshape(x.shape))),
        "view instead of permute",
    ),
    Case(
        "black",
        "constant-images",
        "resnet20",
        "builtin",
        _pixel_case(lambda x: torch.zeros_like(x), "builtin"),
        "every image black",
    ),
    Case("one-label", "one-class", "resnet20", "builtin", _one_class, "all labels 0"),
    Case("shuffled", "labels-shuffled", "resnet20", "builtin", _shuffled, "labels of a CSV permuted"),
    Case("val-order", "class-order", "resnet20", "builtin", _other_order, "validation classes numbered otherwise"),
    Case("leak", "train-in-val", "resnet20", "tiny", _leaked, "15 of 40 validation images of each class from the training set"),
    Case("unequal", "unequal-classes", "resnet20", "builtin", _unequal, "two classes of 100, ten of 4"),
    Case(
        "rate-high",
        "learning-rate-high",
        "resnet18",
        "builtin",
        _before("builtin", None, model="resnet18", lr=30.0, img_size=64, batch_size=32, epochs=10),
        "SGD at 30",
    ),
    Case(
        "rate-low",
        "learning-rate-low",
        "resnet20",
        "tiny",
        _before("tiny", None, model="resnet20", lr=1e-6, **SMALL),
        "SGD at 1e-6",
    ),
    Case(
        "decay",
        "weight-decay-high",
        "resnet20",
        "builtin",
        _before("builtin", None, model="resnet20", lr=0.05, weight_decay=0.5, **SMALL),
        "weight decay 0.5",
    ),
    Case(
        "few-steps",
        "batch-too-large",
        "resnet20",
        "builtin",
        _before("builtin", None, model="resnet20", lr=0.05, img_size=32, batch_size=512, epochs=8),
        "two steps in an epoch",
    ),
    Case(
        "rate-high-during",
        "learning-rate-high",
        "resnet20",
        "builtin",
        _during("builtin", None, model="resnet20", img_size=32, batch_size=32, lr=20.0),
        "SGD at 20, 100 steps",
    ),
    Case(
        "rate-low-during",
        "learning-rate-low",
        "resnet18",
        "tiny",
        _during("tiny", None, model="resnet18", img_size=32, batch_size=32, lr=1e-6),
        "SGD at 1e-6, 100 steps",
    ),
    Case(
        "overfitting",
        "overfitting",
        "kth-d",
        "builtin",
        lambda bench: Recorded(RECORDED / "overfitting"),
        "40 images a class, no augmentation",
    ),
    Case("overfitting-table", "overfitting", "kth-d", "builtin", _table, "the same as a CSV"),
    Case(
        "label-noise",
        "label-noise",
        "resnet20",
        "builtin",
        lambda bench: Recorded(RECORDED / "label-noise"),
        "a fifth of the labels wrong",
    ),
    Case(
        "schedule-early",
        "schedule-early",
        "resnet20",
        "builtin",
        lambda bench: Recorded(RECORDED / "schedule-early"),
        "drops at epochs 1, 2, 3 of 16",
    ),
    Case(
        "schedule-never",
        "schedule-never",
        "resnet20",
        "builtin",
        lambda bench: Recorded(RECORDED / "schedule-never"),
        "0.1 to the end",
        ("learning-rate-high",),
    ),
    Case("memory-growing", "memory-growing", "resnet20", "builtin", _growing, "3 MB a step"),
    Case("throughput-falling", "throughput-falling", "resnet20", "builtin", _falling, "to a third"),
    # healthy
    Case(
        "healthy-resnet",
        None,
        "resnet18",
        "builtin",
        _before("builtin", None, model="resnet18", lr=0.05, img_size=64, batch_size=32, epochs=10),
        "nothing",
    ),
    Case(
        "healthy-googlenet",
        None,
        "googlenet",
        "tiny",
        _before("tiny", None, model="googlenet", lr=0.01, img_size=64, batch_size=32, epochs=30),
        "no normalisation, small signal",
    ),
    Case(
        "healthy-alexnet",
        None,
        "alexnet",
        "builtin",
        _before("builtin", None, model="alexnet", lr=0.01, img_size=64, batch_size=32, epochs=30),
        "a slow starter: deviation 0.01, logits that hardly differ",
    ),
    Case(
        "healthy-zero-head",
        None,
        "resnet18",
        "tiny",
        _model_case(_zero_head, data="tiny", size_px=64),
        "constant logits, features that differ",
    ),
    Case("healthy-googlenet-bn", None, "googlenet-bn", "builtin", _evaluated_network, "a constant function in evaluation mode"),
    Case(
        "healthy-zero-gamma",
        None,
        "resnet18",
        "builtin",
        _before(
            "builtin",
            None,
            model="resnet18",
            lr=0.05,
            img_size=64,
            batch_size=32,
            epochs=10,
            **{"model.options.init": "zero-gamma"},
        ),
        "blocks that start as nothing",
    ),
    Case(
        "healthy-warm-up",
        None,
        "resnet20",
        "builtin",
        _during("builtin", None, model="resnet20", img_size=32, batch_size=64, lr=0.1, warmup_epochs=3.0),
        "a slow start by warm-up",
    ),
    Case("healthy-record", None, "resnet20", "builtin", lambda bench: Recorded(RECORDED / "healthy"), "24 epochs"),
    Case(
        "healthy-tiny",
        None,
        "resnet18",
        "tiny",
        lambda bench: Recorded(RECORDED / "healthy-tiny"),
        "hard data, 100 images a class",
    ),
]

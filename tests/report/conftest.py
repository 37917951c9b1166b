"""A run folder made by hand, as a training of a few hundred log lines leaves it: what the report is tested on."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from striate.classes import Classes
from striate.data.index import Index, Keys
from striate.evaluate.score import Protocol, score, write_evaluation
from striate.files import write_json
from striate.predictions import Predictions
from striate.recipe import Recipe, change, to_plain
from striate.view import View

NAMES = (
    "anchor",
    "bell",
    "candle",
    "drum",
    "envelope",
    "fish",
    "goblet",
    "hammer",
    "<script>alert(1)</script>",
    "jug & cup",
    "key",
    "ladder",
)
VIEW = View(96, "crop", 110, "bilinear", True, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
STEPS_PER_EPOCH = 30


@pytest.fixture(scope="session", name="make_run")
def _make_run() -> Callable[..., Path]:
    """The function that writes a run folder: make_run(folder, classes=12, images=100, resumes=(330,))."""
    return make_run


def make_run(folder: Path, classes: int = 12, images: int = 100, resumes: tuple[int, ...] = (330,)) -> Path:
    """Writes a run folder `folder`, and its few images beside it in `photos/`. Returns the folder."""
    folder.mkdir(parents=True)
    names = NAMES[:classes] + tuple(f"thing {number}" for number in range(len(NAMES), classes))
    ids = tuple(f"n{number:08d}" for number in range(classes))
    known = Classes(ids, names)
    recipe = change(
        Recipe(),
        {"model": "resnet18", "model.options.stem": "small", "epochs": 20, "lr": 0.05, "ema": 0.998, "loss.smoothing": 0.1},
    )
    known.write(folder / "classes.json")
    typed = {"base": "small", "changes": {"optim.lr": 0.05, "budget.epochs": 20.0, "optim.ema": 0.998}}
    write_json(folder / "recipe.json", {**to_plain(recipe), "_typed": typed})
    write_json(folder / "view.json", VIEW.to_json())
    write_json(folder / "best.json", {"step": 570, "top1": 0.9})
    write_json(
        folder / "environment.json",
        {
            "command": "striate train 'my photos' --recipe small --lr 0.05 --epochs 20 --ema 0.998",
            "striate": "0.1.0",
            "torch": "2.15.0",
            "processor": "Intel(R) Xeon(R) Processor",
            "cores": 2,
            "memory_bytes": 8 * 2**30,
            "device": "cpu",
        },
    )
    (folder / "log.jsonl").write_text(_log(classes, resumes))
    train, val = _index(folder, "train", 3 * classes, known), _index(folder, "val", images * classes // 4, known)
    for index in (train, val):
        index.write(folder / f"index-{index.split}.parquet")
    write_json(
        folder / "data.json",
        {
            "path": str(folder.parent / "photos"),
            "layout": "folder",
            "notes": ["No val/ folder: 10 % of each class are held out, chosen by a hash of the file's path."],
            "splits": {
                index.split: {"images": len(index), "root": str(index.root), "fingerprint": index.fingerprint}
                for index in (train, val)
            },
        },
    )
    keys = list(val.keys)
    bad = [(keys[-1], "truncated JPEG"), (keys[-2], "empty file <b>")]
    said = Predictions(keys[:-2], val.labels[:-2].astype(np.int64), _scores(val.labels[:-2], classes), "logits", known)
    protocol = Protocol("val", VIEW, "EMA", "fp32")
    random = np.random.default_rng(11)
    numbers = {
        "brightness": random.uniform(0, 1, len(said)),
        "box share": np.where(np.arange(len(said)) % 9 == 0, np.nan, random.uniform(0, 1, len(said))),
    }
    summary = score(said, len(val), bad, protocol, numbers=numbers)
    write_evaluation(folder / "evaluation" / "val-center-0a1b2c", summary, said, bad, numbers=numbers)
    return folder


def _index(folder: Path, split: str, count: int, classes: Classes) -> Index:
    """An index of a split, its first images there as files: a shape per class, one file with a name to be escaped."""
    root = folder.parent / "photos" / split
    labels_N = np.sort(np.arange(count) % len(classes))
    keys = [
        f"{classes.ids[label]}/{'<img onerror=x>' if row == 0 else 'photo'} {row:05d}.jpg" for row, label in enumerate(labels_N)
    ]
    drawn = np.random.default_rng(5).permutation(count)[:60] if len(classes) > 60 else np.arange(count)
    for row in drawn if split == "val" else ():
        (root / keys[row]).parent.mkdir(parents=True, exist_ok=True)
        _photo(int(labels_N[row]), int(row)).save(root / keys[row], quality=85)
    zeros = np.zeros(count, np.int64)
    return Index(root, split, "folder", Keys.of(keys), labels_N.astype(np.int32), classes, None, zeros, zeros)


def _photo(label: int, row: int) -> Image.Image:
    """A star with label + 3 points on a ground that shades off, its place and colours by row."""
    random = np.random.default_rng([label, row])
    low, high = random.integers(0, 255, (2, 3))
    shade_HW1 = np.linspace(0, 1, 150)[:, None, None] * np.ones((1, 200, 1))
    picture = Image.fromarray((low + (high - low) * shade_HW1).astype(np.uint8))
    x, y, size = random.integers(70, 130), random.integers(55, 95), random.integers(30, 50)
    points, turn = label % 12 + 3, random.random() * 6.28
    star = [
        (x + r * math.cos(turn + a * math.pi / points), y + r * math.sin(turn + a * math.pi / points))
        for a in range(2 * points)
        for r in [size if a % 2 else size * 0.45]
    ]
    ImageDraw.Draw(picture).polygon(star, fill=tuple(int(part) for part in 255 - low))
    return picture


def _scores(labels_N: np.ndarray, classes: int) -> np.ndarray:
    """Logits of a network that is mostly right, worse on some classes, and takes some for their neighbour."""
    random = np.random.default_rng(7)
    scores_NK = random.normal(0, 1, (len(labels_N), classes))
    rows_N = np.arange(len(labels_N))
    scores_NK[rows_N, labels_N] += 4.6 - 2.2 * (labels_N % 5 == 3)
    scores_NK[rows_N, (labels_N + 1) % classes] += 2.4 * (random.random(len(labels_N)) < 0.4)
    return scores_NK.astype(np.float32)


def _log(classes: int, resumes: tuple[int, ...]) -> str:
    """log.jsonl of 20 epochs: an interruption repeats some steps, and the last line is half written."""
    random = np.random.default_rng(3)
    start = {
        "images": 12000,
        "classes": classes,
        "parameters": 11_173_962,
        "device": "cpu",
        "precision": "bf16",
        "batch_size": 128,
    }
    note = "6 of 12,000 training images are grey; they become three equal channels."
    lines = [
        {"kind": "note", "step": 0, "text": note},
        {"kind": "start", "step": 0, "time": 1_790_000_000, **start},
        {"kind": "plan", "step": 0, "total_steps": 600},
    ]
    step, waiting = 0, list(resumes)
    while step < 600:
        step += 2
        epoch = step / STEPS_PER_EPOCH
        loss = math.log(classes) * math.exp(-epoch / 6) + 0.55 + random.normal(0, 0.06)
        top1 = 1 - math.exp(-epoch / 5) * (1 - 1 / classes) - 0.06
        values = {
            "epoch": epoch,
            "loss": None if step == 200 else round(loss, 4),
            "lr": 0.05 * min(1, step / 60) * (1 + math.cos(math.pi * step / 600)) / 2,
            "images_per_s": 900 + random.normal(0, 40) - 500 * (step < 8),
            "wait_share": abs(random.normal(0.03, 0.02)),
            "top1": min(1, max(0, top1 + random.normal(0, 0.03))),
            "elapsed_s": step * 0.42,
        }
        lines.append({"kind": "step", "step": step, "time": 1_790_000_000 + step * 0.42, **values})
        if step % STEPS_PER_EPOCH == 0:
            for split, weights, lead in (("val", "raw", -0.04), ("val", "EMA", 0.0), ("train-sample", "raw", 0.02)):
                share = max(0.05, top1 + lead + random.normal(0, 0.012))
                half = 1.96 * math.sqrt(share * (1 - share) / 298)
                scores = {
                    "top1": share,
                    "top5": 1 - (1 - share) * 0.3,
                    "loss": loss - 0.45 - lead,
                    "top1_interval": [share - half, share + half],
                }
                lines.append(
                    {
                        "kind": "evaluation",
                        "step": step,
                        "split": split,
                        "weights": weights,
                        "expected": 300,
                        "used": 298,
                        "bad": 2,
                        **scores,
                    }
                )
        if waiting and step >= waiting[0]:
            at = waiting.pop(0)
            step = at - at % STEPS_PER_EPOCH
            lines.append({"kind": "resume", "step": step, "time": 1_790_000_100, **start})
    lines.append({"kind": "bad", "step": 12, "key": "n00000003/photo 7.jpg", "reason": "empty file"})
    lines.append({"kind": "end", "step": 600, "reason": "done", "exit_code": 0, "elapsed_s": 252.3, "time": 1_790_000_300})
    return "".join(json.dumps(line) + "\n" for line in lines) + '{"kind": "step", "st'

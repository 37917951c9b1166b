"""From image files to the files of an evaluation, with the real loader: every image counted, whatever the batch size."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from striate.classes import Classes
from striate.data.layouts.detect import open_split
from striate.data.loader import Streaming, Workers, ordered_batches
from striate.evaluate.predict import predict
from striate.evaluate.rows import prediction_rows
from striate.evaluate.score import Protocol, account, score, write_evaluation
from striate.files import read_json
from striate.view import View

VIEW = View(16, "crop", 16, "bilinear", False, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
COLOURS = {"blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0)}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three classes of seven plainly coloured images, and one file cut in the middle."""
    numbers = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(7):
            noise = numbers.integers(-40, 40, (24, 32, 3))
            Image.fromarray(np.clip(colour + noise, 0, 255).astype(np.uint8)).save(tmp_path / "photos" / name / f"{i}.png")
    cut = tmp_path / "photos" / "green" / "3.png"
    cut.write_bytes(cut.read_bytes()[:200])
    return tmp_path / "photos"


class Colourist(nn.Module):
    """Says red, green or blue by the mean of the channels: right for every image by construction."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((2, 3))


RGB = Classes(("red", "green", "blue"), ("", "", ""))  # the network's order, which is not the folders'


@pytest.mark.parametrize("size", [1, 4, 64])
def test_e9_e13_all_images_are_counted_and_classes_joined_by_id(photos: Path, tmp_path: Path, size: int) -> None:
    index = open_split(photos)
    batches = ordered_batches(Streaming(index, exif=False), index, VIEW, None, size, Workers("threads", 2))
    said, bad = predict(Colourist(), batches, VIEW, torch.device("cpu"), "fp32", RGB, True, RGB.match(index.classes))
    account(list(index.keys), said, bad)
    summary = score(said, len(index), bad, Protocol("val", VIEW, "raw", "fp32"))
    assert (summary["expected"], summary["used"], summary["bad"], summary["top1"]) == (21, 20, 1, 1.0)
    assert [key for key, _ in bad] == ["green/3.png"]
    folder = write_evaluation(tmp_path / "evaluation", summary, said, bad)
    assert read_json(folder / "summary.json")["protocol"] == summary["protocol"]
    rows = prediction_rows(said, bad, list(index.keys), top=1)
    assert [row.status for row in rows].index("bad") == list(index.keys).index("green/3.png")
    assert all(row.ranks[0].class_id == row.key.split("/")[0] for row in rows if row.status == "ok")

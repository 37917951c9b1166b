"""Scoring a compiled network: it is compiled where it is asked for, and the protocol says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from striate import cli
from striate.classes import Classes
from striate.evaluate import open as opened
from striate.evaluate import route
from striate.evaluate.network import Network
from striate.view import View

VIEW = View(16, "crop", 16, "bilinear", False, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
CLASSES = Classes(("blue", "green", "red"), ("", "", ""))


class Colourist(nn.Module):
    """Says blue, green or red by the mean of the channels."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((2, 3)).flip(1)


@pytest.fixture(name="photos")
def _photos(tmp_path: Path) -> Path:
    for name, colour in zip(CLASSES.ids, ((0, 0, 255), (0, 255, 0), (255, 0, 0)), strict=True):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(3):
            pixels = np.full((20, 20, 3), colour, np.uint8) // (number + 1)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    return tmp_path / "photos"


@pytest.fixture(name="compiled")
def _compiled(monkeypatch, tmp_path: Path) -> list[tuple[nn.Module, str]]:
    """What was compiled, and for which precision; a network by any name is the one above."""
    seen: list[tuple[nn.Module, str]] = []

    def record(model: nn.Module, precision: str) -> nn.Module:
        seen.append((model, precision))
        return model

    network = Network(Colourist(), CLASSES, VIEW, "raw", "0" * 64, tmp_path / "home", "weights")
    monkeypatch.setattr(route, "for_inference", record)
    monkeypatch.setattr(opened, "from_weights", lambda *given: network)
    return seen


def test_the_network_is_compiled_for_the_precision_and_the_protocol_says_so(photos, compiled):
    plain, _ = opened.evaluate("resnet18", photos, weights="file")
    assert (plain["precision"], compiled) == ("fp32", [])
    summary, _ = opened.evaluate("resnet18", photos, weights="file", compiled=True, precision="bf16")
    assert [(type(model), precision) for model, precision in compiled] == [(Colourist, "bf16")]
    assert summary["precision"] == "bf16, compiled"
    assert summary["protocol"].endswith("bf16, compiled")
    assert summary["top1"] == plain["top1"] == 1.0


def test_it_is_an_option_of_the_command(photos, compiled, capsys):
    assert cli.run(["evaluate", "resnet18", "--weights", "file", "--data", str(photos), "--compile"]) == 0
    assert "fp32, compiled" in capsys.readouterr().out
    assert len(compiled) == 1

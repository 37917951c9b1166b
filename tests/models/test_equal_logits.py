"""Weights of torchvision and timm, loaded through the one door, give their logits: three of the small ones.

The whole list, at the sizes of the papers, is benchmarks/zoo_logits.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision.models
from safetensors.torch import save_file
from torch import nn

from striate.models import catalog, pretrained, published


@pytest.mark.parametrize("name", ["resnet18", "googlenet-bn", "se-resnet50"])
def test_logits_equal_theirs_within_1e_5_of_the_largest(
    name: str, tmp_path: Path, as_after_training: Callable[[nn.Module], nn.Module]
) -> None:
    torch.manual_seed(0)
    if name in published.TORCHVISION:
        theirs = catalog.build(f"torchvision/{published.TORCHVISION[name]}", 1000, {})
    else:
        theirs = pytest.importorskip("timm", reason="the extra [timm] is not installed").create_model(published.TIMM[name])
    save_file(as_after_training(theirs).state_dict(), tmp_path / "w.safetensors")
    ours = catalog.build(name, 1000, {})
    pretrained.load_into(ours, name, tmp_path / "w.safetensors", fresh_head=False)
    for size_px in (64, 97):
        images = torch.randn(2, 3, size_px, size_px)
        with torch.inference_mode():
            expected, found = theirs.eval()(images), ours.eval()(images)
        largest = expected.abs().max()
        assert (found - expected).abs().max() <= 1e-5 * largest
        # Logits that are the same for all images would be equal in many a wrong network.
        assert (expected[0] - expected[1]).abs().max() > 0.01 * largest


def test_old_densenet_names_go_through_the_door(tmp_path: Path) -> None:
    theirs = torchvision.models.densenet121()
    old = {}
    for key, tensor in theirs.state_dict().items():
        for kind in ("norm", "conv"):
            for number in "12":
                key = key.replace(f".{kind}{number}.", f".{kind}.{number}.") if "denselayer" in key else key
        old[key] = tensor
    save_file(old, tmp_path / "w.safetensors")
    ours = catalog.build("densenet121", 1000, {})
    loaded = pretrained.load_into(ours, "densenet121", tmp_path / "w.safetensors", fresh_head=False)
    expected = theirs.state_dict()
    assert all(torch.equal(tensor, expected[key]) for key, tensor in ours.state_dict().items())
    assert loaded.notes == ("Names are those of torchvision's hosted DenseNets; they were translated.",)

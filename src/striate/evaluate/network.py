"""A network ready to score, from a run's checkpoint or from a name and a weight file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from striate.classes import Classes
from striate.errors import UserError
from striate.files import sha256_file
from striate.models import catalog
from striate.models import weights as weight_files
from striate.models.grey import are_one_channel, one_channel
from striate.run.folder import Run
from striate.view import IMAGENET_GREY_MEAN, IMAGENET_GREY_STD, IMAGENET_MEAN, IMAGENET_STD, View


@dataclass(frozen=True)
class Network:
    """A network ready to score: with its classes (None where nobody knows them), its View, and what it is.

    digest: SHA-256 of the weights that were loaded. weights: "raw" or "EMA".
    """

    model: torch.nn.Module
    classes: Classes | None
    view: View
    weights: Literal["raw", "EMA"]
    digest: str
    home: Path
    checkpoint: str


def from_run(run: Run, which: str, raw: bool) -> Network:
    """The network of a run's checkpoint ("best", "last" or "step-N"), averaged weights if there are any and not `raw`."""
    model, weights, found = run.model(which, raw)
    file = found.path / ("ema.safetensors" if weights == "EMA" else "model.safetensors")
    return Network(
        model, run.classes, run.view, "EMA" if weights == "EMA" else "raw", sha256_file(file), run.path, found.path.name
    )


def from_weights(name: str, weights: str, classes: Classes, size_px: int, home: Path) -> Network:
    """A network by name with a weight file, for data whose classes are the network's, in order.

    Where the file holds a grey network (one channel where the network has three), that is what is built.
    Raises UserError for a checkpoint of a run, whose classes and view stand in the run and must not be guessed.
    """
    path = Path(weights)
    run = next((folder for folder in (path, *path.absolute().parents) if (folder / "recipe.json").is_file()), None)
    if run is not None:
        raise UserError(
            f"{weights}: belongs to a run, which knows its classes and its preprocessing. Give the run: "
            f"striate evaluate {run} --data DATA (--checkpoint best, last or step-N)"
        )
    options = {"size_px": size_px} if "size_px" in catalog.option_names(name) else {}
    model = catalog.build(name, len(classes), options)
    view = View(size_px, "crop", round(size_px * 256 / 224), "bilinear", False, IMAGENET_MEAN, IMAGENET_STD)
    if are_one_channel(path, model):
        model = one_channel(model, name)
        view = replace(view, mean=IMAGENET_GREY_MEAN, std=IMAGENET_GREY_STD, colour="grey")
    weight_files.load(model, path)
    digest = sha256_file(path / "model.safetensors" if path.is_dir() else path)
    return Network(model.eval(), classes, view, "raw", digest, home, path.name)

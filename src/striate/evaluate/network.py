"""A network ready to score, from a run's checkpoint or from a name and a weight file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from striate.classes import Classes, imagenet
from striate.errors import UserError
from striate.evaluate.calibrate import Temperature
from striate.files import read_json, sha256_file
from striate.models import catalog, pretrained, sizes
from striate.models.grey import are_one_channel, one_channel
from striate.run.folder import Run, WeightsName
from striate.view import IMAGENET_GREY_MEAN, IMAGENET_GREY_STD, IMAGENET_MEAN, IMAGENET_STD, View


@dataclass(frozen=True)
class Network:
    """A network ready to score: with its classes (None where nobody knows them), its View, and what it is.

    digest: SHA-256 of the weights that were loaded. weights: as they are, or averaged. checkpoint: its name, that of a file, or
    of a published set. notes: what had to be done to the weights, for people. temperature: what logits are divided by before they
    are told as probabilities, fitted by `evaluate --calibrate`; 1 where it was not.
    """

    model: torch.nn.Module
    classes: Classes | None
    view: View
    weights: WeightsName
    digest: str
    home: Path
    checkpoint: str
    notes: tuple[str, ...] = ()
    temperature: float = 1.0


def from_run(run: Run, which: str, raw: bool) -> Network:
    """The network of a run's checkpoint ("best", "last" or "step-N"), averaged weights if there are any and not `raw`."""
    model, weights, found = run.model(which, raw)
    file = found.path / ("model.safetensors" if weights == "raw" else "ema.safetensors")
    kept = run.path / "calibration.json"
    fitted = read_json(kept) if kept.is_file() else {}
    is_of_these = (fitted.get("checkpoint"), fitted.get("weights"), fitted.get("views")) == (found.path.name, weights, "center")
    temperature = Temperature.from_json(fitted["temperature"], str(kept)).value if is_of_these else 1.0
    return Network(model, run.classes, run.view, weights, sha256_file(file), run.path, found.path.name, temperature=temperature)


def from_weights(name: str, weights: str, data: Classes | None, size_px: int | None, home: Path) -> Network:
    """A network by name with trained weights: a file, "default", or the name of a published set.

    data: classes of the images, in order; None where they have none. What the outputs mean is, in this order: what the weights
    say; ImageNet's classes, for 1,000 outputs and data whose ids are wnids, or that has none; the classes of the data.
    size_px: side of the input; None for that of the weights. Where the file holds a grey network (one channel where the network
    has three), that is what is built.
    Raises UserError for a checkpoint of a run, which is scored as a run, and where nobody knows what the outputs mean.
    """
    run = next(
        (folder for folder in (Path(weights), *Path(weights).absolute().parents) if (folder / "recipe.json").is_file()), None
    )
    if run is not None:
        raise UserError(
            f"{weights}: belongs to a run, which knows its classes and its preprocessing. Give the run: "
            f"striate evaluate {run} --data DATA (--checkpoint best, last or step-N)"
        )
    if size_px is not None and size_px < 1:
        raise UserError(f"--img-size {size_px}: expected 1 px or more.")
    opened = pretrained.read(name, weights)
    view = opened.view or _usual_view(catalog.NETWORKS[name].size_px if name in catalog.NETWORKS else 224)
    view = view if size_px is None else view.for_size(size_px)
    options = {"size_px": view.size_px} if "size_px" in catalog.option_names(name) else {}
    classes, notes = _classes_of(opened, pretrained.outputs_of(opened, name, options), data)
    model = catalog.build(name, len(classes), options)
    if are_one_channel({key: list(tensor.shape) for key, tensor in opened.tensors.items()}, model):
        model = one_channel(model, name)
        view = replace(view, mean=IMAGENET_GREY_MEAN, std=IMAGENET_GREY_STD, colour="grey")
    loaded = pretrained.put_into(model, name, opened, fresh_head=False, options=options)
    sizes.check_input(model.eval(), name, view.size_px, view.channels)
    said = loaded.where if pretrained.is_published(weights) else Path(weights).name
    return Network(model.eval(), classes, view, "raw", loaded.digest, home, said, (*loaded.notes, *notes))


def _usual_view(size_px: int) -> View:
    """What most ImageNet weights were made for, where nobody says more: 224 of 256, ImageNet's mean and deviation."""
    return View(size_px, "crop", round(size_px * 256 / 224), "bilinear", False, IMAGENET_MEAN, IMAGENET_STD)


def _classes_of(opened: pretrained.Weights, outputs: int | None, data: Classes | None) -> tuple[Classes, tuple[str, ...]]:
    """What the outputs of weights mean, and a note where that was concluded. See `from_weights`."""
    if opened.classes is not None:
        return opened.classes, ()
    known = imagenet()
    if outputs == len(known) and (data is None or all(one in known.index for one in data.ids)):
        return known, (f"{opened.where}: 1,000 outputs, taken as ImageNet's classes in the order of their wnids.",)
    if data is None:
        raise UserError(
            f"{opened.where}: these weights tell {outputs or 'some'} classes apart, and nobody says which. Classes are known for "
            "runs, for published sets and for 1,000 outputs (ImageNet's)."
        )
    return data, ()

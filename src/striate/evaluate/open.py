"""Evaluating and predicting from a run folder, or from a network's name and a weight file."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from striate import machine
from striate.classes import Classes
from striate.data import resident
from striate.data.index import Index, Keys
from striate.data.layouts import detect
from striate.data.loader import Batch, Source, Streaming, Workers, ordered_batches
from striate.errors import DataError, UserError
from striate.evaluate import score
from striate.evaluate.predict import predict as network_predictions
from striate.evaluate.predict import scoring_batch_size
from striate.evaluate.rows import Row, prediction_rows
from striate.files import sha256_file
from striate.models import catalog
from striate.run.folder import Run, open_run
from striate.view import IMAGENET_MEAN, IMAGENET_STD, View

SplitName = Literal["train", "val", "test"]
Watch = Callable[[int, int], None] | None


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
    model = catalog.create_model(name, len(classes), weights, **options).eval()
    view = View(size_px, "crop", round(size_px * 256 / 224), "bilinear", False, IMAGENET_MEAN, IMAGENET_STD)
    digest = sha256_file(path / "model.safetensors" if path.is_dir() else path)
    return Network(model, classes, view, "raw", digest, home, path.name)


def evaluate(
    network: str | Path | Run,
    data: str | Path | None = None,
    *,
    split: SplitName | None = None,
    weights: str | None = None,
    views: str = "center",
    checkpoint: str = "best",
    raw: bool = False,
    subset: bool = False,
    size_px: int = 224,
    precision: machine.Precision = "fp32",
    device: str = "auto",
    workers: str = "auto",
    out: str | Path | None = None,
) -> tuple[score.Summary, Path]:
    """Scores a network on labelled images and writes `evaluation/SPLIT-VIEWS-HASH6/`; what `striate evaluate` does.

    network: a run or its folder, or a network's name with `weights` (a .safetensors file or a checkpoint folder).
    data: a data set or "builtin"; a run without it is scored on its own validation set.
    Returns the summary and the folder of its files. Raises UserError, DataError, CheckpointError, NonFiniteError.
    """
    if views != "center":
        raise UserError(f"--views {views}: this version has 'center' (one centre crop).")
    if isinstance(network, Run) or (weights is None and _is_folder(network)):
        run = network if isinstance(network, Run) else open_run(network)
        if data is None and split in {None, "val"}:
            index = _own_validation(run)
        else:
            index = detect.open_split(data if data is not None else run.data["path"], split, run.recipe.data.val_share)
        return evaluate_run(
            run, index=index, checkpoint=checkpoint, raw=raw, subset=subset, precision=precision, device=device, workers=workers
        )
    if weights is None:
        catalog.option_names(str(network))  # an unknown name is named as such
        raise UserError(f"{network}: a network by name needs --weights FILE; to score a training, give its run folder.")
    if data is None:
        raise UserError(f"{network}: say which images to score: --data DATA.")
    index = detect.open_split(data, split)
    home = Path(out) if out is not None else Path("runs") / f"evaluated-{str(network).replace('/', '-').replace(':', '-')}"
    opened = from_weights(str(network), weights, index.classes, size_px, home)
    return _evaluate(opened, index, subset, precision, device, workers)


def evaluate_run(
    run: Run,
    *,
    index: Index,
    checkpoint: str = "best",
    raw: bool = False,
    subset: bool = False,
    precision: machine.Precision = "fp32",
    device: str = "auto",
    workers: str = "auto",
    watch: Watch = None,
) -> tuple[score.Summary, Path]:
    """Scores a run's checkpoint on an index, in float32 unless told otherwise; writes and returns as `evaluate`.

    watch: called with (images done, images) now and then; it may raise to stop.
    """
    return _evaluate(from_run(run, checkpoint, raw), index, subset, precision, device, workers, watch)


def _evaluate(
    network: Network,
    index: Index,
    subset: bool,
    precision: machine.Precision,
    device: str,
    workers: str,
    watch: Watch = None,
) -> tuple[score.Summary, Path]:
    assert network.classes is not None
    where = machine.choose_device(device)
    exact = machine.choose_precision(precision, where)
    if not (index.labels >= 0).any():
        raise DataError(
            f"{index.root}: none of the {len(index):,} images has a label, so there is no score. "
            "`striate predict` names their classes."
        )
    class_map = network.classes.match(index.classes, subset=subset)
    model = network.model.to(where).to(memory_format=torch.channels_last)
    crew = Workers.parse(workers)
    source: Source = Streaming(index, network.view.exif, 0)
    if resident.fits(resident.estimate_bytes(index, network.view)):  # then the next evaluation need not decode
        source = resident.build(index, network.view, max(machine.cores(), crew.count), progress=watch)
    batches = ordered_batches(source, index, network.view, None, scoring_batch_size(network.view), crew)
    watched = _watched(batches, len(index), watch)
    found, bad = network_predictions(model, watched, network.view, where, exact, network.classes, True, class_map)
    protocol = score.Protocol(
        index.split,
        network.view,
        network.weights,
        exact,
        subset=subset,
        checkpoint=network.checkpoint,
        data_fingerprint=index.fingerprint,
    )
    score.account(list(index.keys), found, bad)
    summary = score.score(found, len(index), bad, protocol)
    name = score.evaluation_name(protocol, index.fingerprint, network.digest)
    return summary, score.write_evaluation(network.home / "evaluation" / name, summary, found, bad)


def predict(
    network: str | Path | Run,
    photos: Sequence[str | Path],
    *,
    top: int = 5,
    checkpoint: str = "best",
    raw: bool = False,
    precision: machine.Precision = "fp32",
    device: str = "auto",
    workers: str = "auto",
) -> list[Row]:
    """The most probable classes of each photo, in the order given; what `striate predict` does.

    photos: files and folders (searched for images). A photo that cannot be read keeps its row, with the reason.
    """
    run = network if isinstance(network, Run) else open_run(network)
    opened = from_run(run, checkpoint, raw)
    assert opened.classes is not None
    where = machine.choose_device(device)
    index = photos_index([str(photo) for photo in photos], opened.classes)
    model = opened.model.to(where).to(memory_format=torch.channels_last)
    batches = ordered_batches(
        Streaming(index, opened.view.exif, 0),
        index,
        opened.view,
        np.arange(len(index)),
        scoring_batch_size(opened.view),
        Workers.parse(workers),
    )
    found, bad = network_predictions(
        model, batches, opened.view, where, machine.choose_precision(precision, where), opened.classes, True
    )
    return prediction_rows(found, bad, list(index.keys), top)


def photos_index(names: Sequence[str], classes: Classes) -> Index:
    """Files and folders (searched for images) as an index without labels, in the order given; a file is not looked at.

    Keys are the names as typed. Raises UserError for a folder that cannot be read, DataError for one without images.
    """
    found: list[str] = []
    for name in names:
        if Path(name).is_dir():
            inside = detect.open_photos(name)
            found += [str(Path(name) / key) for key in inside.keys]
        else:
            found.append(name)
    count = len(found)
    return Index(
        root=Path(),
        split="photos",
        layout="photos",
        keys=Keys.of(os.fsencode(name) for name in found),
        labels=np.full(count, -1, np.int32),
        classes=classes,
        boxes=None,
        sizes_bytes=np.zeros(count, np.int64),
        mtimes_ns=np.zeros(count, np.int64),
    )


def names_from(lines: Iterable[str] | None = None) -> list[str]:
    """File names, one a line, from `lines` or standard input; empty lines are passed over."""
    return [line.rstrip("\n") for line in (sys.stdin if lines is None else lines) if line.strip()]


def _is_folder(network: str | Path | Run) -> bool:
    return not isinstance(network, Run) and (
        Path(network).exists() or ("/" in str(network).rstrip("/") and not str(network).startswith(("torchvision/", "timm/")))
    )


def _own_validation(run: Run) -> Index:
    """The validation images of the run, as they lie now."""
    recipe = run.recipe
    splits = detect.open_data(run.data["path"], recipe.data.val_share)
    if splits.val is None:
        raise UserError(f"{run.path}: its data has no validation images. Give a labelled set with --data.")
    return splits.val


def _watched(batches: Generator[Batch], total: int, watch: Watch) -> Iterator[Batch]:
    """The batches, with `watch` told of each; they are closed when it raises."""
    done = 0
    with contextlib.closing(batches):
        for batch in batches:
            if watch is not None:
                watch(done, total)
            done += len(batch) + len(batch.bad)
            yield batch

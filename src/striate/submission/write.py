"""From a network, or from saved predictions, to the file that a challenge's server takes: one row for every test image.

For classification every label has the whole photo as its box; for localisation a box of its own, as `places` makes them.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from striate import files, machine, predictions
from striate.classes import Classes, listed
from striate.data.index import Index
from striate.data.layouts.detect import place_of
from striate.data.loader import Streaming, Workers
from striate.errors import DataError, UserError, nearest
from striate.evaluate import metrics, view_sets
from striate.evaluate.open import ready
from striate.evaluate.route import Route, Watch, ask
from striate.localize import kept
from striate.predictions import Predictions
from striate.run.folder import Run
from striate.submission import images, kaggle, labels, places, tiny
from striate.submission.check import Format
from striate.submission.images import Box

Task = Literal["classification", "localization"]
DEFAULT_OUT: Mapping[Format, str] = {"kaggle": "submission.csv", "tiny": "submission.txt"}


@dataclass(frozen=True)
class Submission:
    """What was written. filled: (key, reason) of images that nobody could look at; their row is `stand_in`, a class id.

    answered_by: the weights and the view, or the file of predictions; and how boxes were made. numbering: where the labels
    stand; empty for wnids.
    """

    path: Path
    format: Format
    images: int
    filled: tuple[tuple[str, str], ...]
    stand_in: str
    answered_by: str
    numbering: str
    notes: tuple[str, ...]

    def describe(self) -> list[str]:
        """Lines for people; at most ten of the filled images."""
        said = [f"{self.path}: {self.images:,} rows", self.answered_by]
        said += [f"labels as in {self.numbering}"] if self.numbering else []
        said += self.notes
        if self.filled:
            said.append(
                f"{len(self.filled):,} of {self.images:,} images could not be looked at; their rows say {self.stand_in}, "
                "the most frequent first guess of the others:"
            )
            said += [f"  {key}: {reason}" for key, reason in self.filled[:10]]
            said += [f"  and {len(self.filled) - 10:,} more"] if len(self.filled) > 10 else []
        return said

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        filled = [{"key": key, "reason": reason} for key, reason in self.filled]
        return vars(self) | {"path": str(self.path), "filled": filled, "notes": list(self.notes)}


def submit(
    network: str | Path | Run | Route,
    data: str | Path,
    out: str | Path | None = None,
    *,
    task: Task = "classification",
    method: str = "auto",
    layer: str | None = None,
    threshold: float | None = None,
    format: Format = "kaggle",
    mapping: str | Path | None = None,
    views: str = "center",
    checkpoint: str = "best",
    raw: bool = False,
    precision: machine.Precision = "fp32",
    device: str = "auto",
    workers: str = "auto",
    watch: Watch = None,
) -> Submission:
    """Writes a submission, one row for every test image; what `striate submit` does.

    network: as for `predict`, or a predictions.parquet, whose rows are joined to the images by file name.
    data: the test images: their folder, or the whole of ILSVRC or Tiny ImageNet. mapping: LOC_synset_mapping.txt, if it does not
    lie beside or above them; without any, labels are the order of the network's sorted class ids, and a note says so.
    task: for "classification" each of the five labels has the whole photo as its box; for "localization" each has its own, in
    pixels of the photo as stored: from a box head or cut from a heatmap. method, layer, threshold: how, as `places.planned` takes
    them; without a threshold maps are cut as `striate localize` found best for this run.
    An image that cannot be read gets a row with one label, the most frequent first guess of the others, and the whole photo,
    because a file that lacks a row is refused as a whole.
    views: how each image is looked at, a name of `view_sets`.
    watch: called with (images done, images) now and then; it may raise to stop.
    Raises UserError, DataError (no image could be looked at; two have one name), CheckpointError, NonFiniteError.
    """
    if task not in get_args(Task):
        raise UserError(f"--task {task}: expected {' or '.join(get_args(Task))}.{nearest(task, get_args(Task))}")
    # All that can be refused is refused before the first photo is looked at.
    if task == "localization":
        _expect_one_view_of_one_network(network, format, views, precision)
    elif (method, layer, threshold) != ("auto", None, None):
        raise UserError("--method, --layer and --threshold are of boxes: add --task localization, or leave them out.")
    place = place_of(data)
    path = _writable(Path(DEFAULT_OUT[format] if out is None else out), place)
    source = _opened(network, checkpoint, raw)
    classes = source.classes if isinstance(source, Predictions) else source.colour.classes
    assert classes is not None
    plan = None
    if task == "localization" and isinstance(source, Route):
        if isinstance(network, Route):  # loaded by somebody else, who knows what was asked for
            checkpoint, raw = source.colour.checkpoint, source.colour.weights == "raw"
        plan = places.planned(source, method, layer, threshold, checkpoint, raw)
    notes: list[str] = []
    numbering = _numbering(classes, None if mapping is None else Path(mapping), place, notes) if format == "kaggle" else None
    label_K = None if numbering is None else numbering.labels_of(classes)
    if format == "tiny":
        _expect_wnids(classes, tiny.known_wnids(place), place)
    index = images.open_test(data)
    named, forbidden = (images.stem, kaggle.FORBIDDEN) if format == "kaggle" else (images.file_name, tiny.FORBIDDEN)
    names = images.names(index, named, forbidden)
    if index.stored and format == "kaggle":
        notes.append(f"the images are packed as {index.stored}: boxes are in pixels of these, not of the photos")

    boxes: list[list[Box]] | None = None
    if isinstance(source, Predictions):
        found, filled = _joined(source, index, str(network))
        answered_by = f"predictions of {network}" + (f" ({source.protocol})" if source.protocol else "")
        keys, best_MA = found.keys, metrics.top_k(found.scores, kaggle.MOST)
    elif plan is not None:
        said = places.placed(source.colour, plan, index, device, workers, watch)
        keys, best_MA, boxes, filled = list(said.found.keys), said.found.answers_NA, said.boxes, list(said.found.bad)
        answered_by = f"{_who(source, views)}, {plan.describe(said.found.layer)}"
        notes += [*source.colour.notes, *_of_boxes(plan, said, source)]
    else:
        found, filled = _asked(source, index, views, precision, device, workers, watch)
        answered_by = _who(source, views)
        notes += source.colour.notes
        keys, best_MA = found.keys, metrics.top_k(found.scores, kaggle.MOST)
    if not len(keys):
        reasons = listed([f"{key} ({reason})" for key, reason in filled], 3)
        raise DataError(f"{place}: none of the {len(index):,} images could be looked at: {reasons}. Nothing is written.")
    stand_in = int(np.bincount(best_MA[:, 0]).argmax())  # of several the lowest class number, as everywhere
    row_of = {key: row for row, key in enumerate(keys)}
    guesses = [best_MA[row_of[key]] if key in row_of else np.asarray([stand_in]) for key in index.keys]
    if label_K is not None:
        rows = []
        for row, (key, name, guess) in enumerate(zip(index.keys, names, guesses, strict=True)):
            if boxes is not None and key in row_of:
                of_each = boxes[row_of[key]]
            else:
                of_each = [images.whole(images.sides(index, row))] * len(guess)
            rows.append((name, label_K[guess].tolist(), of_each))
        text = kaggle.text(rows)
    else:
        text = tiny.text((name, classes.ids[guess[0]]) for name, guess in zip(names, guesses, strict=True))
    if path.exists():
        notes.append(f"{path.name} was there before, and is replaced")
    files.write_whole(path, text)
    where = "" if numbering is None else numbering.source
    return Submission(path, format, len(index), tuple(filled), classes.title(stand_in), answered_by, where, tuple(notes))


# ---------------------------------------------------------------- inside

_Filled = list[tuple[str, str]]


def _writable(path: Path, place: Path) -> Path:
    """The file to write. Raises UserError where it cannot be, before hours are spent on what would go into it."""
    folder = path.absolute().parent
    if path.is_dir():
        raise UserError(f"--out {path}: is a folder; give the name of a file, such as {path / DEFAULT_OUT['kaggle']}.")
    if not folder.is_dir():
        raise UserError(f"--out {path}: there is no folder {folder}. Make it first, or choose another.")
    if not os.access(folder, os.W_OK):
        raise UserError(f"--out {path}: no permission to write in {folder}. Choose another folder.")
    if place.is_dir() and folder.resolve().is_relative_to(place.resolve()):
        raise UserError(f"--out {path}: lies in the data folder, which is never written to. Choose a place outside of {place}.")
    return path


def _opened(network: str | Path | Run | Route, checkpoint: str, raw: bool) -> Predictions | Route:
    """What answers: predictions from a file, or a network."""
    if isinstance(network, (Route, Run)):
        return network if isinstance(network, Route) else ready(network, checkpoint=checkpoint, raw=raw)
    if Path(network).suffix == ".parquet":
        return predictions.read(Path(network))
    return ready(network, checkpoint=checkpoint, raw=raw)


def _expect_one_view_of_one_network(
    network: str | Path | Run | Route, format: Format, views: str, precision: machine.Precision
) -> None:
    """Raises UserError for whatever has no boxes, or no single one for an answer."""
    if format != "kaggle":
        raise UserError(f"--task localization --format {format}: only Kaggle's form has boxes. Leave --format out, or --task.")
    if isinstance(network, (str, Path)) and Path(network).suffix == ".parquet":
        raise UserError(
            f"{network}: saved predictions hold classes and no boxes; boxes need the network and the photos. Give the run: "
            "striate submit RUN TESTDIR --task localization"
        )
    if views != "center":
        raise UserError(f"--views {views}: boxes are of one view of a photo. With --task localization leave --views out.")
    if precision not in ("fp32", "auto"):
        raise UserError(f"--precision {precision}: boxes are made in fp32. With --task localization leave --precision out.")


def _who(route: Route, views: str) -> str:
    network = route.colour
    looking = "" if views == "center" else f"{view_sets.named(views, network.view).describe()}, "
    return f"{network.weights} weights of {network.checkpoint}, {looking}{network.view.describe()}"


def _of_boxes(plan: places.Plan, said: places.Placed, route: Route) -> list[str]:
    """What is said of boxes beside how they were made."""
    notes = []
    if plan.cut is not None:
        fitted = "as given, not fitted"
        if plan.fit is not None:
            fitted = f"of {route.colour.home / kept.NAME}, fitted on {plan.fit.origin()}"
        notes.append(f"the threshold is {fitted}")
    if said.turned:
        notes.append(
            f"{said.turned:,} photos were seen turned by their EXIF orientation; their boxes are of the photos as stored"
        )
    return notes


def _numbering(classes: Classes, given: Path | None, place: Path, notes: list[str]) -> labels.Numbering:
    found = labels.find_mapping(given, place)
    if found is None:
        found = labels.by_order(classes.ids, "the network's classes")
        notes.append(labels.assumed(found))
    return found


def _expect_wnids(classes: Classes, known: Collection[str] | None, place: Path) -> None:
    """Raises UserError unless the network's classes are those of Tiny ImageNet (or wnids at least, where nobody lists them)."""
    strange = [name for name in classes.ids if (name not in known if known is not None else not labels.WNID.fullmatch(name))]
    if strange:
        where = "in the wnids.txt of the data" if known is not None else "wnids"
        raise UserError(
            f"--format tiny: {len(strange):,} of the network's {len(classes):,} classes are not {where}: {listed(strange)}. "
            f"Give a network that was trained on Tiny ImageNet; {place} is answered for with its classes."
        )


def _asked(
    route: Route, index: Index, views: str, precision: machine.Precision, device: str, workers: str, watch: Watch
) -> tuple[Predictions, _Filled]:
    where = machine.choose_device(device)
    exact = machine.choose_precision(precision, where)
    source = Streaming(index, route.colour.view.exif, 0)
    answers = ask(route, source, index, where, exact, Workers.parse(workers), watch=watch, looking=views)
    return answers.found, answers.bad


def _joined(saved: Predictions, index: Index, source: str) -> tuple[Predictions, _Filled]:
    """The predictions for the images of an index, under its keys: joined by file name, as both may have been found elsewhere.

    Raises DataError where two predictions have one file name, or where none is for an image of the index.
    """
    place: dict[str, int] = {}
    for row, key in enumerate(saved.keys):
        earlier = place.setdefault(images.stem(key), row)
        if earlier != row:
            raise DataError(f"{source}: {saved.keys[earlier]!r} and {key!r} have one file name, by which images are found.")
    keys = list(index.keys)
    rows = [place.get(images.stem(key), -1) for key in keys]
    found = [(key, row) for key, row in zip(keys, rows, strict=True) if row >= 0]
    if not found:
        raise DataError(
            f"{source}: none of its {len(saved):,} predictions is for one of the {len(keys):,} test images; it has "
            f"{listed([images.stem(key) for key in saved.keys[:3]])}, they are {listed([images.stem(key) for key in keys[:3]])}. "
            "Give predictions of these images."
        )
    chosen = saved.select(np.asarray([row for _, row in found], dtype=np.int64))
    missing = [(key, "not in the predictions") for key, row in zip(keys, rows, strict=True) if row < 0]
    return replace(chosen, keys=[key for key, _ in found]), missing

"""Evaluating and predicting from a run folder, or from a network's name and a weight file.

Two runs can answer together: `grey` names a run that was trained with data.colour grey, and the images that show no colour
go to it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from striate import machine
from striate.classes import Classes
from striate.data import resident
from striate.data.index import Index, Keys
from striate.data.layouts import detect
from striate.data.layouts.joined import joined
from striate.data.loader import Source, Streaming, Workers
from striate.errors import DataError, UserError
from striate.evaluate import score, strata, view_sets
from striate.evaluate.calibrate import Calibration, calibration, scaled
from striate.evaluate.labels import refuse_unreadable
from striate.evaluate.network import from_run, from_weights
from striate.evaluate.route import Route, Watch, ask
from striate.evaluate.rows import Row, prediction_rows
from striate.evaluate.saved import open_saved, rescore
from striate.evaluate.together import Combined, combined
from striate.evaluate.view_sets import Averaging
from striate.files import write_json
from striate.models import catalog
from striate.run.folder import Run, open_run

SplitName = Literal["train", "val", "test"]


def evaluate(
    network: str | Path | Run,
    data: str | Path | None = None,
    *,
    split: SplitName | None = None,
    grey: str | Path | Run | None = None,
    weights: str | None = None,
    views: str = "center",
    average: Averaging = "probabilities",
    labels: Sequence[str] = (),
    checkpoint: str = "best",
    raw: bool = False,
    subset: bool = False,
    compiled: bool = False,
    size_px: int | None = None,
    precision: machine.Precision = "fp32",
    device: str = "auto",
    workers: str = "auto",
    out: str | Path | None = None,
) -> tuple[score.Summary, Path]:
    """Scores a network on labelled images and writes `evaluation/SPLIT-VIEWS-HASH6/`; what `striate evaluate` does.

    network: a run or its folder, or a network's name with `weights`: a file, "default", or the name of a published set.
    data: a data set or "builtin"; a run without it is scored on its own validation set.
    size_px: side of the input of a network by name; None for what its weights were made for.
    views: how each image is looked at: a name of `view_sets`, two joined by +, or a JSON file; all views of an image are cut from
    one decode. average: of what over the views, probabilities or logits.
    labels: other labels to score by, and lists of images to leave out, as `labels.judged` takes them; the evaluation by the data
    set's own labels is written too, beside.
    compiled: the network as `models.compiled` makes it; the protocol says so, and logits differ by rounding.
    grey: a second run, trained with data.colour grey on the same classes, that the grey images go to; `checkpoint` and `raw`
    hold for both. The files are written beside the first run's.
    Returns the summary and the folder of its files. Raises UserError, DataError, CheckpointError, NonFiniteError.
    """
    if isinstance(network, Run) or (weights is None and _is_folder(network)):
        run = _as_run(network)
        _refuse_for_run(run, weights, size_px)
        if data is None and split in {None, "val"}:
            index = _own_validation(run)
        else:
            index = detect.open_split(data if data is not None else run.data["path"], split, run.recipe.data.val_share)
        route = _route(run, grey, checkpoint, raw)
    else:
        index = _named_data(str(network), grey, weights, data, split)
        home = Path(out) if out is not None else _home(str(network))
        route = Route(from_weights(str(network), str(weights), index.classes, size_px, home))
    if labels:  # before anything is looked at
        assert route.colour.classes is not None
        refuse_unreadable(labels, route.colour.classes, list(index.keys))
    summary, folder = _evaluate(route, index, subset, precision, device, workers, None, compiled, views, average)
    return rescore(open_saved(folder), labels) if labels else (summary, folder)


def evaluate_snapshots(
    run: Run,
    *,
    index: Index,
    precision: machine.Precision = "fp32",
    device: str = "auto",
    workers: str = "auto",
    views: str = "center",
    average: Averaging = "probabilities",
    watch: Watch = None,
) -> tuple[list[tuple[score.Summary, Path]], Combined | None]:
    """Scores every snapshot of a run with cycles, and the mean of their probabilities; None for the latter with one snapshot.

    Source: Huang et al. 2017, section 3 (snapshot ensembles).
    """
    found = []
    for step in run.snapshots:
        route = _route(run, None, f"step-{step}", False)
        found.append(_evaluate(route, index, False, precision, device, workers, watch, views=views, average=average))
    members = [open_saved(folder) for _, folder in found]
    return found, combined(members, "arithmetic") if len(members) > 1 else None


def snapshots(network: str | Path) -> tuple[str, ...]:
    """The names of a run's snapshots, in their order. Raises UserError where it has none."""
    run = _as_run(network)
    if not run.snapshots:
        raise UserError(
            f"{run.path}: has no snapshots. A training with --schedule cosine-cycles keeps one at the end of each cycle."
        )
    return tuple(f"step-{step}" for step in run.snapshots)


def calibrate(place: str | Path) -> tuple[Calibration, Path]:
    """Fits a temperature on half of the images of a saved evaluation, judges it on the other half, and keeps it with the run.

    place: the evaluation's folder. calibration.json is written beside the run's weights, where `predict` finds it.
    Raises UserError for predictions without their evaluation, and for those of several networks together.
    """
    saved = open_saved(place)
    if saved.summary is None or saved.summary.get("answered_by"):
        raise UserError(f"{place}: a temperature is of one network; give the folder of an evaluation of one.")
    if saved.summary["views"] != "center":
        raise UserError(
            f"{place}: a temperature is of the scores of one view, and these are a mean ({saved.summary['views']}). "
            "Calibrate the evaluation with --views center."
        )
    found = calibration(saved.predictions)
    path = saved.folder.parent.parent / "calibration.json"
    if not (path.parent / "recipe.json").is_file():
        raise UserError(f"{place}: belongs to no run, so nobody would find its temperature. Calibrate the evaluation of a run.")
    kept = {
        "temperature": found.temperature.to_json(),
        **{name: saved.summary[name] for name in ("checkpoint", "weights", "views")},
        "evaluation": saved.folder.name,
        "calibration_error_before": found.before.error,
        "calibration_error_after": found.after.error,
    }
    write_json(path, kept)
    return found, path


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
    return _evaluate(_route(run, None, checkpoint, raw), index, subset, precision, device, workers, watch)


def _evaluate(
    route: Route,
    index: Index,
    subset: bool,
    precision: machine.Precision,
    device: str,
    workers: str,
    watch: Watch = None,
    compiled: bool = False,
    views: str = "center",
    average: Averaging = "probabilities",
) -> tuple[score.Summary, Path]:
    network = route.colour
    assert network.classes is not None
    view_set = view_sets.named(views, network.view, average)
    where = machine.choose_device(device)
    exact = machine.choose_precision(precision, where)
    if not (index.labels >= 0).any():
        raise DataError(
            f"{index.root}: none of the {len(index):,} images has a label, so there is no score. "
            "`striate predict` names their classes."
        )
    class_map = network.classes.match(index.classes, subset=subset)
    crew = Workers.parse(workers)
    source: Source = Streaming(index, network.view.exif, 0)
    if view_set.is_center and resident.fits(
        resident.estimate_bytes(index, network.view)
    ):  # then the next evaluation need not decode
        source = resident.build(index, network.view, max(machine.cores(), crew.count), progress=watch)
    answers = ask(route, source, index, where, exact, crew, class_map, watch, compiled, views, average)
    numbers = {"brightness": answers.brightness_N}
    if index.boxes is not None:
        numbers["box share"] = strata.box_share_N(index)[answers.rows_N]
    protocol = score.Protocol(
        index.split,
        network.view,
        network.weights,
        exact + (", compiled" if compiled else ""),
        views=view_set.name,
        looking=view_set.describe(),
        subset=subset,
        checkpoint=network.checkpoint,
        data_fingerprint=index.fingerprint,
        stored=index.stored,
        routing=route.describe(answers.is_grey_N),
    )
    score.account(list(index.keys), answers.found, answers.bad)
    summary = score.score(answers.found, len(index), answers.bad, protocol, answers.is_grey_N, numbers)
    if network.notes:
        summary["notes"] = list(network.notes)
    folder = network.home / "evaluation" / score.evaluation_name(protocol, index.fingerprint, route.digest)
    return summary, score.write_evaluation(folder, summary, answers.found, answers.bad, None, numbers)


def ready(
    network: str | Path | Run,
    *,
    weights: str | None = None,
    grey: str | Path | Run | None = None,
    checkpoint: str = "best",
    raw: bool = False,
    size_px: int | None = None,
) -> Route:
    """The network, or the two, that will answer for photos: loaded once, for any number of calls of `predict`.

    network: a run or its folder, or a network's name; weights, size_px: as in `evaluate`, "default" where none are given.
    Raises UserError for an unknown name, and for weights or size_px with a run, which has its own.
    """
    if isinstance(network, Run) or (weights is None and _is_folder(network)):
        run = _as_run(network)
        _refuse_for_run(run, weights, size_px)
        return _route(run, grey, checkpoint, raw)
    if grey is not None:
        raise UserError(f"{network}: --grey goes with a run as the network for colour; give the folder of a run.")
    _refuse_unknown(str(network))
    return Route(from_weights(str(network), "default" if weights is None else weights, None, size_px, _home(str(network))))


def predict(
    network: str | Path | Run | Route,
    photos: Sequence[str | Path],
    *,
    top: int = 5,
    weights: str | None = None,
    grey: str | Path | Run | None = None,
    checkpoint: str = "best",
    raw: bool = False,
    size_px: int | None = None,
    precision: machine.Precision = "fp32",
    device: str = "auto",
    workers: str = "auto",
) -> list[Row]:
    """The most probable classes of each photo, in the order given; what `striate predict` does.

    network: a run or its folder, a network's name (with `weights`, else the published ones), or what `ready` gave.
    photos: files, folders (searched for images) and data sets. A photo that cannot be read keeps its row, with the reason.
    grey: a run that the grey photos go to, as in `evaluate`.
    """
    route = network
    if not isinstance(route, Route):
        route = ready(route, weights=weights, grey=grey, checkpoint=checkpoint, raw=raw, size_px=size_px)
    opened = route.colour
    assert opened.classes is not None
    where = machine.choose_device(device)
    index = photos_index([str(photo) for photo in photos], opened.classes)
    exact = machine.choose_precision(precision, where)
    source = Streaming(index, opened.view.exif, 0)
    answers = ask(route, source, index, where, exact, Workers.parse(workers))
    found = answers.found
    if (
        opened.temperature != 1 and route.grey is None
    ):  # order and classes stay, probabilities are told as they are right on average
        found = scaled(found, opened.temperature)
    return prediction_rows(found, answers.bad, list(index.keys), top)


def photos_index(names: Sequence[str], classes: Classes) -> Index:
    """Files, folders (searched for images) and data sets kept in few files (tar, parquet, pack, CIFAR, MNIST) as an index without
    labels, in the order given; a photo's file is not looked at.

    Keys are the names as typed. Raises UserError for a folder that cannot be read, DataError for one without images.
    """
    found: list[str] = []
    parts: list[Index] = []
    first = 0  # of the names since the last set that is kept in few files
    for name in names:
        if detect.is_stored(name):
            inside = detect.open_photos(name)
            parts += [_photos(found[first:], classes), inside]
            above = Path(name) if Path(name).is_dir() else Path(name).parent
            found += [str(above / key) for key in inside.keys]
            first = len(found)
        elif Path(name).is_dir():
            found += [str(Path(name) / key) for key in detect.open_photos(name).keys]
        else:
            found.append(name)
    if not parts:
        return _photos(found, classes)
    return joined([*parts, _photos(found[first:], classes)], Keys.of(found), Path(), "photos", classes)


def names_from(lines: Iterable[str] | None = None) -> list[str]:
    """File names, one a line, from `lines` or standard input; empty lines are passed over."""
    return [line.rstrip("\n") for line in (sys.stdin if lines is None else lines) if line.strip()]


# ---------------------------------------------------------------- inside


def _named_data(
    network: str, grey: str | Path | Run | None, weights: str | None, data: str | Path | None, split: SplitName | None
) -> Index:
    """The images that a network of a name is scored on. Raises UserError where something is missing."""
    if grey is not None:
        raise UserError(f"{network}: --grey goes with a run as the network for colour; give the folder of a run.")
    _refuse_unknown(network)
    if weights is None:
        raise UserError(
            f"{network}: a network by name needs --weights FILE, or --weights default for the published ones; to score a "
            "training, give its run folder."
        )
    if data is None:
        raise UserError(f"{network}: say which images to score: --data DATA.")
    return detect.open_split(data, split)


def _photos(names: Sequence[str], classes: Classes) -> Index:
    """Files as an index without labels."""
    count = len(names)
    return Index(
        root=Path(),
        split="photos",
        layout="photos",
        keys=Keys.of(names),
        labels=np.full(count, -1, np.int32),
        classes=classes,
        boxes=None,
        sizes_bytes=np.zeros(count, np.int64),
        mtimes_ns=np.zeros(count, np.int64),
    )


def _as_run(run: str | Path | Run) -> Run:
    return run if isinstance(run, Run) else open_run(run)


def _route(network: str | Path | Run, grey: str | Path | Run | None, checkpoint: str, raw: bool) -> Route:
    second = None if grey is None else from_run(_as_run(grey), checkpoint, raw)
    return Route(from_run(_as_run(network), checkpoint, raw), second)


def _refuse_for_run(run: Run, weights: str | None, size_px: int | None) -> None:
    """Raises UserError for what goes with a network by name only."""
    if weights is not None:
        raise _weights_of_run(run.path)
    if size_px is not None:
        raise UserError(
            f"{run.path}: --img-size goes with a network by name; a run looks at photos as it was trained, at "
            f"{run.view.size_px} px. Leave it out."
        )


def _refuse_unknown(name: str) -> None:
    """Raises UserError for what is no network's name; where it is that of a run's folder, with the way out."""
    try:
        catalog.option_names(name)
    except UserError as error:
        if (Path(name) / "recipe.json").is_file():
            raise _weights_of_run(name) from error
        raise


def _weights_of_run(name: str | Path) -> UserError:
    return UserError(
        f"{name}: a run has its own weights, so --weights does not go with its folder. Leave it out: --checkpoint best, last or "
        "step-N says which ones, --raw takes them without averaging."
    )


def _home(name: str) -> Path:
    """Where the files of an evaluation go that belongs to no run."""
    return Path("runs") / f"evaluated-{name.replace('/', '-').replace(':', '-')}"


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

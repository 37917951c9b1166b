"""What `striate localize` does: boxes for every image, all measures beside the boxes that look at nothing, written down.

A threshold is never chosen on the images that it is scored on: each half of the set is boxed with the one that the other half
chose. What the whole set would choose is `kept` beside the run for photos that have no boxes, as the test images of a challenge.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from striate import files, machine
from striate.data.index import Boxes, Index
from striate.data.layouts import detect, listing
from striate.data.layouts.folder import BOXES
from striate.data.loader import Workers
from striate.errors import DataError, UserError
from striate.evaluate.held_out import held_out
from striate.evaluate.network import Network
from striate.evaluate.open import SplitName, ready
from striate.evaluate.route import Watch
from striate.localize import baselines, boxes, kept, metrics, truth
from striate.localize.boxes import WAYS, Fitted, Which
from striate.localize.find import Found, find, method_of, refuse
from striate.localize.metrics import BoxAccuracy, Localisation
from striate.predictions import UNLABELLED
from striate.run.folder import Run, open_run

FOLDER = "localization"
"""Of all that is measured, beside evaluation/."""


@dataclass(frozen=True)
class Cut:
    """How maps are cut into boxes: the share of a map's range, and which of what lies above."""

    threshold: float
    which: Which


@dataclass(frozen=True, eq=False)
class Localised:
    """All of one localisation: what was found, and how right it is.

    truth: the drawn boxes of the images in `found`. answers_NA4, known_N4: boxes of the answers, [N, A, 4], and of the true
    class, [N, 4], float64 in pixels of the photos after the view's EXIF rule. iou_N: of known_N4 with the best drawn box, NaN
    without one. cut_N: by which of `cuts` each image was cut. measured: of the network; by_nothing: of the whole photo, and of a
    box in its middle. titles: of the classes, as they are shown. index: the images of `found`, row by row.
    """

    folder: Path
    found: Found
    truth: Boxes
    answers_NA4: NDArray[np.float64]
    known_N4: NDArray[np.float64]
    iou_N: NDArray[np.float64]
    cuts: tuple[Cut, ...]
    cut_N: NDArray[np.int64]
    measured: Localisation
    by_nothing: Mapping[str, Localisation]
    summary: dict[str, Any]
    titles: tuple[str, ...]
    index: Index

    def lines(self) -> list[str]:
        """Lines for people."""
        said = [*self.measured.lines()]
        for name, one in self.by_nothing.items():
            said.append(f"{name}: GT-known {one.gt_known_accuracy.describe()}, mean box IoU {one.mean_box_iou:.4f}")
        return [*said, self.summary["protocol"], *self.summary["notes"], str(self.folder)]

    def to_json(self) -> dict[str, Any]:
        """Plain values: what summary.json holds, and the folder."""
        return {"folder": str(self.folder), **self.summary}


def localize(
    network: str | Path | Run,
    data: str | Path | None = None,
    *,
    split: SplitName | None = None,
    method: str = "auto",
    layer: str | None = None,
    threshold: float | None = None,
    which: Which | Literal["auto"] = "auto",
    weights: str | None = None,
    checkpoint: str = "best",
    raw: bool = False,
    subset: bool = False,
    device: str = "auto",
    workers: str = "auto",
    watch: Watch = None,
) -> Localised:
    """Says where the object is in every image of a set with boxes, and how often that is right; what `striate localize` does.

    network: a run or its folder, or a network's name with `weights`, as for `evaluate`. data: a set with boxes; None for the
    run's own. split: of the data; None for its validation images. method: "head", the box head of a network that was trained
    with one; "cam", "grad-cam" or "grad-cam++", boxes from its heatmaps; "auto", the head where there is one, else grad-cam.
    layer: whose grid the maps are made of. threshold, which: how maps are cut; None and "auto": fitted, each half of the images
    for the other. With a threshold alone, the largest component above it is taken.
    Writes `localization/SPLIT-METHOD-HASH6/{summary.json, boxes.csv}` into the run; and keeps the threshold for photos without
    boxes, in localization.json beside the run's weights, where `kept.reason_against` has no reason. The notes say which it was.
    Raises UserError, DataError (no boxes; a box that cannot be), CheckpointError, NonFiniteError.
    Source: Russakovsky et al. 2015 (ILSVRC), section 4.2 (the error); Choe et al. 2020 (GT-known, MaxBoxAcc).
    """
    if threshold is not None and not 0 <= threshold < 1:
        raise UserError(f"--threshold {threshold}: expected a share of the map's range, 0 or more and less than 1.")
    if which != "auto" and which not in WAYS:
        raise UserError(f"--which {which}: expected auto or {' or '.join(WAYS)}.")
    if threshold is None and which != "auto":
        raise UserError(f"--which {which}: goes with --threshold; without one, both ways are tried.")
    opened = ready(network, weights=weights, checkpoint=checkpoint, raw=raw).colour
    assert opened.classes is not None
    chosen = method_of(opened.model, method)
    if chosen == "head" and (threshold is not None or layer is not None):
        raise UserError(
            "--threshold and --layer are of heatmaps, and this is a box head: add --method grad-cam, or leave them out."
        )
    # All that can be refused is refused before the first photo is looked at.
    refuse(opened, chosen, layer)
    index = _index(network, data, split)
    of_all = truth.read(index, opened.view.exif, listed=_list_of(opened, data, index))
    class_map = opened.classes.match(index.classes, subset=subset)
    run = open_run(opened.home) if (opened.home / "recipe.json").is_file() else None
    trained = 0 if run is None or chosen == "head" or threshold is not None else kept.trained_on(run, index)
    found = find(opened, index, chosen, layer, machine.choose_device(device), Workers.parse(workers), class_map, watch)
    drawn = truth.Truth(of_all.boxes.select(found.rows_N), of_all.sides_N2[found.rows_N], of_all.clipped)
    notes = [f"{drawn.clipped:,} boxes stood out of their photo by a pixel and were clipped"] if drawn.clipped else []
    notes += [f"{len(found.bad):,} of {len(index):,} images could not be read"] if found.bad else []
    # A photo without a label has no true class that a box could be of.
    counted_N = drawn.has_boxes_N & (found.labels_N != UNLABELLED)
    fits = None if chosen == "head" or threshold is not None else _fitted(found, drawn.boxes, counted_N)
    if fits is not None:
        cuts, cut_N = tuple(Cut(one.threshold, one.which) for one in fits.halves), fits.cut_N
    else:
        cuts = (Cut(0.0 if threshold is None else threshold, "largest" if which == "auto" else which),)
        cut_N = np.zeros(len(found), np.int64)
    places_NM4 = boxes_of(found, cuts, cut_N)
    answers_NA4, known_N4 = places_NM4[:, :-1], places_NM4[:, -1]
    accuracy = None
    if chosen != "head":
        each = BoxAccuracy()
        for i in np.flatnonzero(counted_N).tolist():
            each.add(found.heatmap(i, -1), drawn.boxes.of(i))
        accuracy = each.result()
    measured = metrics.localisation(found.answers_NA, answers_NA4, known_N4, found.labels_N, drawn.boxes, accuracy)
    folder = opened.home / FOLDER / _name(index, opened, chosen, found.layer, threshold, which, subset)
    if run is not None and fits is not None:
        notes += _kept(opened, index, found, fits.together, trained, folder)
    by_nothing = _by_nothing(found, drawn, counted_N)
    summary: dict[str, Any] = {
        **measured.to_json(),
        "baselines": {name: one.to_json() for name, one in by_nothing.items()},
        "protocol": _protocol(opened, index, found, fits, cuts),
        "method": chosen,
        "layer": found.layer,
        "split": index.split,
        "checkpoint": opened.checkpoint,
        "weights": opened.weights,
        "cuts": [vars(cut) for cut in cuts] if chosen != "head" else [],
        "expected": len(index),
        "used": len(found),
        "bad": [{"key": key, "reason": reason} for key, reason in found.bad],
        "notes": notes,
    }
    done = Localised(
        folder,
        found,
        drawn.boxes,
        answers_NA4,
        known_N4,
        metrics.best_iou(known_N4, drawn.boxes),
        cuts,
        cut_N,
        measured,
        by_nothing,
        summary,
        tuple(opened.classes.title(label) for label in range(len(opened.classes))),
        index.select(found.rows_N),
    )
    _write(done)
    return done


def boxes_of(found: Found, cuts: tuple[Cut, ...], cut_N: NDArray[np.int64]) -> NDArray[np.float64]:
    """The boxes of each image's answers and of its true class: [N, A + 1, 4] float64, in pixels of the photos, within them."""
    places = found.answers_NA.shape[1] + 1
    of_all = []
    for i, cut in enumerate(cuts[number] for number in cut_N.tolist()):
        made = [found.box(i, place, cut.threshold, cut.which) for place in range(places - 1)]
        of_all.append([*made, found.box(i, -1, cut.threshold, cut.which)])
    return np.array(of_all, np.float64).reshape(len(found), places, 4)


# ---------------------------------------------------------------- inside


@dataclass(frozen=True, eq=False)
class _Fits:
    """What each half chose, by which of them each image is cut, and what all images together would choose."""

    halves: tuple[Fitted, Fitted]
    cut_N: NDArray[np.int64]
    together: Fitted


def _index(network: str | Path | Run, data: str | Path | None, split: SplitName | None) -> Index:
    """The images to look at; those of the run's own data where none are named."""
    if data is not None:
        return detect.open_split(data, split)
    if not isinstance(network, Run) and not Path(network).is_dir():
        raise UserError(f"{network}: say which images to look at, a set with boxes: striate localize {network} DATA")
    run = network if isinstance(network, Run) else open_run(network)
    splits = detect.open_data(run.data["path"], run.recipe.data.val_share)
    found = {"train": splits.train, "val": splits.val, "test": None}["val" if split is None else split]
    if found is None:
        raise UserError(f"{run.path}: its data has no {'validation' if split is None else split} images. Name a set with boxes.")
    return found


def _list_of(network: Network, data: str | Path | None, index: Index) -> Path | None:
    """The file whose rows the boxes are, for messages; None where they lie in other files, or in many."""
    place = detect.place_of(open_run(network.home).data["path"] if data is None else data)
    if place.is_file():
        return place if place.suffix.lower() in listing.EXTENSIONS else None
    beside = index.root / BOXES
    return beside if index.store is None and beside.is_file() else None


def _fitted(found: Found, drawn: Boxes, counted_N: NDArray[np.bool_]) -> _Fits:
    rows = np.flatnonzero(counted_N)
    if len(rows) < 2:
        raise DataError(
            f"A threshold is fitted on half of the images and scored on the other: expected two images with a label and a box or "
            f"more, found {len(rows)}. Give a larger set, or --threshold 0.2."
        )
    swept = boxes.sweep((found.heatmap(i, -1) for i in rows.tolist()), drawn.select(rows))
    crossed = boxes.crossed(swept)
    cut_N = np.zeros(len(found), np.int64)  # images that chose nothing are cut by the first fit
    cut_N[rows] = crossed.is_second_N
    return _Fits(crossed.halves, cut_N, boxes.fit(swept))


def _by_nothing(found: Found, drawn: truth.Truth, counted_N: NDArray[np.bool_]) -> dict[str, Localisation]:
    """What boxes that look at nothing score with the same answers; the size of the middle one is the other half's mean."""
    whole_N4 = baselines.whole(found.sides_N2)
    middle_N4 = whole_N4
    if counted_N.sum() >= 2:
        is_first_N = held_out(found.keys, np.where(counted_N, found.labels_N, UNLABELLED))
        for scored_N, chosen_N in ((is_first_N, counted_N & ~is_first_N), (~is_first_N, is_first_N)):
            shares = baselines.mean_shares(drawn.boxes, found.sides_N2, chosen_N)
            middle_N4 = np.where(scored_N[:, None], baselines.centre(found.sides_N2, shares), middle_N4)
    answers = found.answers_NA.shape[1]
    return {
        name: metrics.localisation(found.answers_NA, boxes_N4[:, None].repeat(answers, 1), boxes_N4, found.labels_N, drawn.boxes)
        for name, boxes_N4 in (("whole image", whole_N4), ("centre box", middle_N4))
    }


def _protocol(network: Network, index: Index, found: Found, fits: _Fits | None, cuts: tuple[Cut, ...]) -> str:
    """One line that says what was done, to stand beside the numbers."""
    if found.method == "head":
        how = "box head"
    elif fits is not None:
        first, second = fits.halves
        how = f"{found.method} of {found.layer}, each half cut as the other chose: {first.describe()}; {second.describe()}"
    else:
        how = f"{found.method} of {found.layer}, {cuts[0].which} above {cuts[0].threshold:g} of the map's range, as given"
    parts = (
        f"{index.split} split, {len(found):,} images",
        f"first {found.answers_NA.shape[1]} answers, IoU 0.5 with any true box",
        how,
        network.view.describe(),
        f"{network.weights} weights of {network.checkpoint}",
        "fp32",
    )
    return " · ".join(parts)


def _name(index: Index, network: Network, method: str, layer: str, threshold: float | None, which: str, subset: bool) -> str:
    """Differs where anything differs that the numbers depend on: also the drawn boxes, which a fingerprint does not know."""
    assert index.boxes is not None
    drawn = [files.sha256_bytes(np.ascontiguousarray(part).tobytes()) for part in (index.boxes.rows, index.boxes.xyxy)]
    facts = [index.fingerprint, drawn, network.digest, network.view.to_json(), method, layer, threshold, which, subset]
    return f"{index.split}-{method}-{files.sha256_bytes(files.to_json(facts).encode())[:6]}"


def _kept(network: Network, index: Index, found: Found, fitted: Fitted, trained: int, folder: Path) -> list[str]:
    """Keeps what all images together chose, where it is of use for others. Returns notes for people, which say so."""
    reason = kept.reason_against(fitted, trained, len(index))
    if reason is not None:
        return [f"not kept for submit: {reason}"]
    facts = found.method, found.layer, network.checkpoint, network.weights, fitted.threshold, fitted.which
    return kept.keep(network, kept.Fit(*facts, index.split, fitted.images, fitted.accuracy, folder.name))


def _write(done: Localised) -> None:
    try:
        done.folder.mkdir(parents=True, exist_ok=True)
        files.write_json(done.folder / "summary.json", done.summary)
        files.write_whole(done.folder / "boxes.csv", _table(done).encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise files.refuse(error, done.folder, "writing the boxes") from error


def _table(done: Localised) -> str:
    """boxes.csv: a row for each answer of each image, and one, with rank 0, for its true class."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["key", "true_class", "rank", "class", "probability", "x_min", "y_min", "x_max", "y_max", "iou"])
    of_answers = [metrics.best_iou(done.answers_NA4[:, place], done.truth) for place in range(done.answers_NA4.shape[1])]
    found = done.found

    def shown(value: float) -> str:
        return "" if np.isnan(value) else f"{value:.4f}"

    for i, key in enumerate(found.keys):
        label = int(found.labels_N[i])
        true = done.titles[label] if label >= 0 else ""
        for rank, answer in enumerate(found.answers_NA[i].tolist()):
            edges = [f"{edge:.2f}" for edge in done.answers_NA4[i, rank]]
            sure = f"{found.probabilities_NA[i, rank]:.6f}"
            rows.writerow([key, true, rank + 1, done.titles[answer], sure, *edges, shown(of_answers[rank][i])])
        if label >= 0:
            edges = [f"{edge:.2f}" for edge in done.known_N4[i]]
            rows.writerow([key, true, 0, true, "", *edges, shown(done.iou_N[i])])
    return text.getvalue()

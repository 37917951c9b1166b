"""The summary of an evaluation, its protocol, and its files: no number without how it was measured."""

from __future__ import annotations

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np

from striate import files
from striate.classes import Classes, listed
from striate.errors import DataError
from striate.evaluate import calibrate, metrics, strata
from striate.predictions import UNLABELLED, Predictions
from striate.run.folder import WeightsName
from striate.view import View

Bad = Sequence[tuple[str, str]]
"""[(key, reason)] of images that could not be read."""


class Part(TypedDict):
    """The score of a part of the images."""

    images: int
    top1: float
    top1_interval: list[float]


class Stratum(TypedDict):
    """The score of the images whose number is from `low` on and below `high`; both None where nobody knows it."""

    low: float | None
    high: float | None
    images: int
    top1: float
    top1_interval: list[float]


class Routed(TypedDict):
    """How many of the images that could be read went to which network."""

    grey: int
    colour: int


class Summary(TypedDict):
    """What `summary.json` says. Shares are 0..1; loss is in nats. Intervals are [low, high] at 95 %: of shares of the images
    Wilson's, of all else by bootstrap over the images.

    expected = used + bad + unlabelled + left_out, always. left_out: images that a list says not to count. loss: of the label that
    counts; where an image has several, of the likeliest. macro_f1: mean F1 over the classes that have images.
    calibration_error: ECE over 15 bins, with its interval. coverage: top-1 of the surest 50, 80, 90 and 95 % of the images, by
    share. strata: top-1 by a number of the images ("brightness", 0..1, by quarters; "box share", of the photo's area).
    answered_by: how, where several networks did. parts: "grey" and "colour" images apart (`data.views.is_grey`), each where
    there are any; empty where no image is grey. routed: where the grey images had a network of their own. notes: what had to be
    done to weights from elsewhere, where anything had.
    """

    top1: float
    top1_interval: list[float]
    top5: float
    top5_k: int
    top5_interval: list[float]
    loss: float
    loss_interval: list[float]
    mean_class_top1: float
    mean_class_top1_interval: list[float]
    macro_f1: float
    macro_f1_interval: list[float]
    calibration_error: float
    calibration_error_interval: list[float]
    coverage: dict[str, float]
    strata: dict[str, list[Stratum]]
    expected: int
    used: int
    bad: int
    unlabelled: int
    left_out: int
    labels: str
    classes: int
    classes_hash: str
    classes_scored: int
    split: str
    data_fingerprint: str
    views: str
    looking: str
    view: dict[str, Any]
    weights: str
    checkpoint: str
    precision: str
    scale: str
    stored: str
    routing: str
    answered_by: str
    tied_first: int
    parts: dict[str, Part]
    routed: NotRequired[Routed]
    notes: NotRequired[list[str]]
    warnings: list[str]
    protocol: str


@dataclass(frozen=True)
class Protocol:
    """How a score was made: all that must agree before two numbers may be compared.

    split: "val", "train", "test" or "train-sample". views: "center" or the name of a set of test-time views; looking: that set in
    words, with what is averaged.
    weights: which of a checkpoint's two sets. checkpoint: its name, as "step-1200" (empty for a weight file).
    labels: whose labels ("original" is as the data set ships them).
    subset: a part of the network's classes is scored on purpose (all of them still compete).
    data_fingerprint: of the index that was scored, which tells two sets apart that are both called "val".
    stored: how the images had been changed by packing, in words; empty where they are the originals.
    routing: in words, which network saw which images, where there were two; view, weights and checkpoint are then of the
    network for colour.
    answered_by: in words, where no network alone answered but several together; it stands for views, view and weights.
    left_out: images that do not count, by the list that `labels` names.
    """

    split: str
    view: View
    weights: WeightsName
    precision: str
    views: str = "center"
    looking: str = "1 view"
    labels: str = "original"
    subset: bool = False
    checkpoint: str = ""
    data_fingerprint: str = ""
    stored: str = ""
    routing: str = ""
    answered_by: str = ""
    left_out: int = 0


# ---------------------------------------------------------------- summary


def score(
    predictions: Predictions,
    expected: int,
    bad: Bad,
    protocol: Protocol,
    is_grey_N: np.ndarray | None = None,
    numbers: Mapping[str, np.ndarray] | None = None,
) -> Summary:
    """The numbers of an evaluation, every image accounted for.

    expected: images in the set; each is in `predictions` or in `bad`, once. is_grey_N: [N] bool, which images of
    `predictions` are grey; None where nobody looked. numbers: {"brightness" or "box share": [N] float64} of the images, NaN where
    unknown; top-1 is told by them.
    Raises DataError when the count does not come out, when no image could be read, when none has a label, or (unless
    the protocol says subset) when a class of the network has no image.
    """
    _account(predictions, expected, bad)
    scored, unlabelled = labelled(predictions, bad)
    unlabelled -= protocol.left_out
    is_known_N = predictions.labels != UNLABELLED
    classes = scored.classes
    images_K = np.bincount(scored.labels, minlength=len(classes))
    if not protocol.subset:
        _refuse_empty_classes(classes, images_K, bad)

    places = metrics.ranks(scored.scores, scored.labels)
    used, k = len(places), min(5, len(classes))
    first, near = int((places < 1).sum()), int((places < k).sum())
    right_K = np.bincount(scored.labels[places < 1], minlength=len(classes))
    present_K = images_K > 0
    table = metrics.per_class(scored.scores, scored.labels)
    confidence_N = metrics.best_probabilities(scored.scores)
    losses_N = metrics.losses(scored.scores, scored.labels, scored.scale)
    around = metrics.bootstrap(losses_N, scored.labels, scored.scores.argmax(axis=1), len(classes))
    reliability = calibrate.reliability(confidence_N, places < 1)
    covered = calibrate.coverage(confidence_N, places < 1)
    summary = Summary(
        top1=first / used,
        top1_interval=list(metrics.wilson(first, used)),
        top5=near / used,
        top5_k=k,
        top5_interval=list(metrics.wilson(near, used)),
        loss=float(losses_N.sum()) / used,
        loss_interval=list(around.loss),
        mean_class_top1=float((right_K[present_K] / images_K[present_K]).mean()),
        mean_class_top1_interval=list(around.mean_class_top1),
        macro_f1=metrics.macro_f1(table),
        macro_f1_interval=list(around.macro_f1),
        calibration_error=calibrate.expected_error(reliability),
        calibration_error_interval=list(calibrate.error_interval(confidence_N, places < 1)),
        coverage={f"{share:g}": covered.at(share)[0] for share in calibrate.COVERAGES},
        strata={
            name: _strata(name, places < 1, places < k, number_N[is_known_N])
            for name, number_N in (numbers or {}).items()
            if np.isfinite(number_N[is_known_N]).any()
        },
        expected=expected,
        used=used,
        bad=len(bad),
        unlabelled=unlabelled,
        left_out=protocol.left_out,
        labels=protocol.labels,
        classes=len(classes),
        classes_hash=classes.hash,
        classes_scored=int(present_K.sum()),
        split=protocol.split,
        data_fingerprint=protocol.data_fingerprint,
        views=protocol.views,
        looking=protocol.looking,
        view=protocol.view.to_json(),
        weights=protocol.weights,
        checkpoint=protocol.checkpoint,
        precision=protocol.precision,
        scale=scored.scale,
        stored=protocol.stored,
        routing=protocol.routing,
        answered_by=protocol.answered_by,
        tied_first=metrics.tied_first(scored.scores),
        parts={} if is_grey_N is None else _parts(places < 1, is_grey_N[is_known_N]),
        warnings=warnings_of(scored),
        protocol=protocol_line(protocol, used, expected, len(bad), classes, int(present_K.sum())),
    )
    if protocol.routing and is_grey_N is not None:
        summary["routed"] = Routed(grey=int(is_grey_N.sum()), colour=int((~is_grey_N).sum()))
    return summary


def _strata(name: str, is_right_N: np.ndarray, is_near_N: np.ndarray, number_N: np.ndarray) -> list[Stratum]:
    edges = strata.BOX_SHARES if name == "box share" else strata.quartiles(number_N)
    return [
        Stratum(
            low=None if math.isnan(one.low) else one.low,
            high=None if math.isnan(one.high) else one.high,
            images=one.images,
            top1=one.top1,
            top1_interval=list(one.top1_interval),
        )
        for one in strata.by_bins(is_right_N, is_near_N, number_N, edges)
    ]


def _parts(is_right_N: np.ndarray, is_grey_N: np.ndarray) -> dict[str, Part]:
    """The scores of the grey images and of the others; nothing where no image is grey."""
    found = {}
    for name, chosen_N in (("grey", is_grey_N), ("colour", ~is_grey_N)):
        images, right = int(chosen_N.sum()), int(is_right_N[chosen_N].sum())
        if images and is_grey_N.any():
            found[name] = Part(images=images, top1=right / images, top1_interval=list(metrics.wilson(right, images)))
    return found


def protocol_line(protocol: Protocol, used: int, expected: int, bad: int, classes: Classes, classes_scored: int) -> str:
    """One line that belongs beside every accuracy: split, images, classes, labels, views, preprocessing, weights, precision."""
    missing = {"bad": bad, "left out": protocol.left_out, "unlabelled": expected - used - bad - protocol.left_out}
    why = ", ".join(f"{count:,} {what}" for what, count in missing.items() if count or what == "bad")
    counted = f"{used:,} images" if used == expected else f"{used:,} of {expected:,} images ({why})"
    known = len(classes)
    which = f"{known:,} classes"
    if protocol.subset:
        which = f"subset: {classes_scored:,} of {known:,} classes present, all compete"
    parts = [
        f"{protocol.split} split, {counted}",
        f"{which} ({classes.hash[:6]})",
        f"{protocol.labels} labels",
        *([f"images packed as {protocol.stored}"] if protocol.stored else []),
    ]
    if protocol.answered_by:
        return " · ".join([*parts, protocol.answered_by])
    parts += [
        protocol.looking,
        protocol.view.describe(),
        f"{protocol.weights} weights" + (f" of {protocol.checkpoint}" if protocol.checkpoint else ""),
        protocol.precision,
    ]
    parts += [protocol.routing] if protocol.routing else []
    return " · ".join(parts)


def headline(summary: Summary) -> str:
    """Top-1, top-5 and loss in one line, with the interval: 'top-1 61.2 % (59.8 to 62.5), top-5 …'."""
    low, high = summary["top1_interval"]
    loss = f"{summary['loss']:.4f}" if math.isfinite(summary["loss"]) else "infinite (a true class has probability zero)"
    return f"top-1 {summary['top1']:.2%} ({low:.2%} to {high:.2%}), top-{summary['top5_k']} {summary['top5']:.2%}, loss {loss}"


def parts_line(summary: Summary) -> str:
    """The parts in one line: 'grey images: 96, top-1 30.2 % (21.9 to 40.0); colour images: …'; empty without grey images."""
    said = []
    for name, part in summary["parts"].items():
        low, high = part["top1_interval"]
        said.append(f"{name} images: {part['images']:,}, top-1 {part['top1']:.2%} ({low:.2%} to {high:.2%})")
    return "; ".join(said)


def warnings_of(scored: Predictions) -> list[str]:
    """What makes these numbers suspect, in sentences: constant output, ties, labels in another order than the network's."""
    said = []
    constant = metrics.constant_output(scored.scores)
    if constant:
        said.append(constant)
    tied = metrics.tied_first(scored.scores)
    if not constant and tied > 0.01 * len(scored):
        said.append(
            f"For {tied:,} of {len(scored):,} images several classes share the best score, and the lowest class number decided. "
            "Precision bf16 or fp16 rounds scores: fp32 would tell them apart."
        )
    better = metrics.better_permutation(metrics.confusion(scored.scores, scored.labels))
    if better:
        classes = scored.classes
        pairs = [f"{classes.title(i)} → {classes.title(int(better.said_for[i]))}" for i in better.moved.tolist()]
        said.append(
            f"The labels look permuted: with {len(pairs):,} classes renamed ({listed(pairs, most=3)}) top-1 would be "
            f"{better.top1_renamed:.1%} instead of {better.top1:.1%}. Compare the class list of the data with the network's."
        )
    return said


def account(keys: Sequence[str], predictions: Predictions, bad: Bad) -> None:
    """Checks that exactly the images `keys` are in `predictions` or `bad`, each once and in this order.

    Raises DataError naming the first images that are missing, extra, counted twice or out of order.
    """
    _account(predictions, len(keys), bad)
    wanted, seen = set(keys), set(predictions.keys).union(key for key, _ in bad)
    if wanted != seen:
        missing, extra = sorted(wanted - seen), sorted(seen - wanted)
        raise DataError(
            f"Images evaluated are not those of the set: missing {listed(missing) or 'none'}; extra {listed(extra) or 'none'}."
        )
    unreadable = {key for key, _ in bad}
    for due, found in zip((key for key in keys if key not in unreadable), predictions.keys, strict=True):
        if due != found:
            raise DataError(f"Images evaluated are in another order than the set: {found!r} stands where {due!r} belongs.")


def _account(predictions: Predictions, expected: int, bad: Bad) -> None:
    keys = [*predictions.keys, *(key for key, _ in bad)]
    if len(set(keys)) != len(keys):
        twice = sorted(key for key, count in Counter(keys).items() if count > 1)
        raise DataError(f"Images counted more than once: {listed(twice)}. Each image may stand once in the list.")
    if len(keys) != expected:
        raise DataError(
            f"{expected:,} images expected, but {len(predictions):,} scored and {len(bad):,} bad make {len(keys):,}: no score."
        )


def labelled(predictions: Predictions, bad: Bad) -> tuple[Predictions, int]:
    """The rows that have a label, and how many have none."""
    if not len(predictions):
        if not bad:
            raise DataError("There is nothing to score: the set has no images.")
        reasons = listed([f"{key} ({reason})" for key, reason in bad])
        raise DataError(f"There is nothing to score: none of {len(bad):,} images could be read: {reasons}.")
    known = predictions.labels != UNLABELLED
    if not known.any():
        raise DataError(
            f"None of the {len(predictions):,} images has a label, so there is no score. `striate predict` names their classes."
        )
    if known.all():
        return predictions, 0
    return predictions.select(known), int((~known).sum())


def _refuse_empty_classes(classes: Classes, images_K: np.ndarray, bad: Bad) -> None:
    empty = np.flatnonzero(images_K == 0).tolist()
    if empty:
        raise DataError(
            f"{len(empty):,} of {len(classes):,} classes have no image that could be read ({len(bad):,} bad images): "
            f"{listed([classes.ids[i] for i in empty])}. A score over a part of the classes needs --subset."
        )


# ---------------------------------------------------------------- files

_SHARES = ("top1", "top5", "precision", "f1", "mean_confidence")
_PER_CLASS = ("class_id", "name", "images", *_SHARES, "most_confused_with", "mistakes")


def evaluation_name(protocol: Protocol, data_fingerprint: str, checkpoint_digest: str) -> str:
    """Folder name SPLIT-VIEWS-HASH6: another data set, weights file or preprocessing gets another folder.

    checkpoint_digest: SHA-256 of the weights file that was scored, so that raw and EMA weights differ.
    """
    view = files.to_json(protocol.view.to_json(), indent=None)
    looking = "".join(
        f"\n{words}"
        for words in (
            protocol.looking if protocol.views != "center" else "",
            protocol.labels if protocol.labels != "original" else "",
            protocol.answered_by,
        )
        if words
    )
    digest = files.sha256_bytes(f"{data_fingerprint}\n{checkpoint_digest}\n{view}{looking}".encode())
    views = re.sub(r"[^\w.+]+", "-", protocol.views)
    return f"{protocol.split}-{views}-{digest[:6]}"


def relabelled_name(name: str, protocol: Protocol) -> str:
    """The folder beside an evaluation's for its score by other labels."""
    return f"{name}-by-{files.sha256_bytes(protocol.labels.encode())[:6]}"


def write_evaluation(
    folder: Path,
    summary: Summary,
    predictions: Predictions,
    bad: Bad,
    judged: Predictions | None = None,
    numbers: Mapping[str, np.ndarray] | None = None,
    tables: Mapping[str, str] | None = None,
) -> Path:
    """Writes predictions.parquet, the tables, and, last, summary.json into `folder`.

    The tables: per_class.csv, confusion.csv, reliability.csv, coverage.csv, bad_files.csv, and images.csv with the `numbers` of
    the images. judged: the predictions with the labels that were scored by, where these are not the data set's own; the parquet
    file keeps the latter. tables: more files, by name, with their text.
    Whoever finds a summary finds the files it was made from: an old summary goes first, the new one comes last.
    Returns `folder`. Raises ResourceError or UserError when the disk refuses.
    """
    summary_path = folder / "summary.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        summary_path.unlink(missing_ok=True)
        files.sync_folder(folder)
        replace(predictions, protocol=summary["protocol"]).write(folder / "predictions.parquet")
        scored, _ = labelled(predictions if judged is None else judged, bad)
        files.write_whole(folder / "per_class.csv", per_class_csv(scored))
        files.write_whole(folder / "confusion.csv", confusion_csv(scored))
        files.write_whole(folder / "reliability.csv", reliability_csv(scored))
        files.write_whole(folder / "coverage.csv", coverage_csv(scored))
        if numbers:
            files.write_whole(folder / "images.csv", images_csv(predictions.keys, numbers))
        for name, text in (tables or {}).items():
            files.write_whole(folder / name, text)
        files.write_whole(folder / "bad_files.csv", csv_text([("key", "reason"), *bad]))
        files.write_json(summary_path, summary)
    except OSError as error:
        raise files.refuse(error, folder, "writing the evaluation") from error
    return folder


def per_class_csv(scored: Predictions) -> str:
    """One row for each class in the network's order; an empty cell where there is nothing to divide by."""
    classes, table = scored.classes, metrics.per_class(scored.scores, scored.labels)
    rows: list[Sequence[object]] = [_PER_CLASS]
    for i, class_id in enumerate(classes.ids):
        other = int(table.mistaken_for[i])
        shares = map(_share, (table.top1[i], table.top5[i], table.precision[i], table.f1[i], table.confidence[i]))
        mistake = (classes.ids[other] if other >= 0 else "", table.mistakes[i])
        rows.append((class_id, classes.names[i], table.images[i], *shares, *mistake))
    return csv_text(rows)


def confusion_csv(scored: Predictions) -> str:
    """Counts of true class (row) by said class (column), class ids along both sides."""
    table = metrics.confusion(scored.scores, scored.labels).tolist()
    ids = scored.classes.ids
    return csv_text([("true \\ said", *ids), *((class_id, *counts) for class_id, counts in zip(ids, table, strict=True))])


def reliability_csv(scored: Predictions) -> str:
    """A row for each of 15 bins of confidence: its edges, images, mean confidence and top-1 (empty where it has no image)."""
    confidence_N, is_right_N = metrics.best_probabilities(scored.scores), metrics.hits(scored.scores, scored.labels, 1)
    table = calibrate.reliability(confidence_N, is_right_N)
    rows: list[Sequence[object]] = [("from", "to", "images", "confidence", "top1")]
    for place, count in enumerate(table.images.tolist()):
        low, high = table.edges[place : place + 2]
        rows.append((f"{low:.4f}", f"{high:.4f}", count, _share(table.confidence[place]), _share(table.accuracy[place])))
    return csv_text(rows)


def coverage_csv(scored: Predictions) -> str:
    """The curve of top-1 against the share of images that are answered, the surest first, at each hundredth."""
    confidence_N, is_right_N = metrics.best_probabilities(scored.scores), metrics.hits(scored.scores, scored.labels, 1)
    curve = calibrate.coverage(confidence_N, is_right_N)
    rows: list[Sequence[object]] = [("coverage", "top1", "confidence")]
    for hundredth in range(1, 101):
        top1, confidence = curve.at(hundredth / 100)
        rows.append((f"{hundredth / 100:.2f}", _share(top1), _share(confidence)))
    return csv_text(rows)


def images_csv(keys: Sequence[str], numbers: Mapping[str, np.ndarray]) -> str:
    """A row for each image with its numbers, in the order of the predictions."""
    columns = [[repr(value) if math.isfinite(value) else "" for value in number_N.tolist()] for number_N in numbers.values()]
    return csv_text([("key", *numbers), *zip(map(shown, keys), *columns, strict=True)])


def shown(key: str) -> str:
    """A key as tables show it: bytes of file names that are no text appear as \\udcNN."""
    return key.encode("utf-8", "backslashreplace").decode()


def csv_text(rows: Sequence[Sequence[object]]) -> str:
    """CSV as RFC 4180 quotes it, with plain newlines; undecodable bytes of file names appear as \\udcNN."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue().encode("utf-8", "backslashreplace").decode()


def _share(value: float) -> str:
    return f"{value:.6f}" if math.isfinite(value) else ""

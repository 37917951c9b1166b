"""The page's parts as plain values: what the templates show, decided here and only drawn there."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np

from striate import recipe as recipes
from striate.errors import DONE, TO_BE_CONTINUED
from striate.evaluate import metrics
from striate.predictions import Predictions
from striate.report import charts, pictures, ranking
from striate.report.charts import Chart, Series
from striate.report.gather import Evaluation, Facts, Split, predictions_of
from striate.report.history import Line, binned, interval, number

MOSAIC_IMAGES, MISTAKE_IMAGES = 24, 12
MOSAIC_PX, MISTAKE_PX = 128, 224
LABELLED_CLASSES = 30  # the largest matrix whose rows carry names
RANKED, PAIRS, BAD_SHOWN = 10, 15, 50

# ---------------------------------------------------------------- the result


@dataclass(frozen=True)
class Headline:
    """The result in one place. Shares 0..1; None where nothing was scored. `source` says in words what was scored."""

    top1: float | None
    interval: tuple[float, float] | None
    top5: float | None
    top5_k: int
    loss: float | None
    macro_f1: float | None
    protocol: str
    source: str
    chance: float | None
    warnings: Sequence[str]


def headline(facts: Facts) -> Headline:
    """The main evaluation's numbers; without one, the best of the scores that the log kept."""
    main = facts.main
    values: Mapping[str, Any] = main.summary if main else best_line(facts)
    known = len(facts.classes) if facts.classes else 0
    protocol = values.get("protocol") or (
        f"val split · {facts.view.describe()} · {values.get('weights', 'raw')} weights" if facts.view and values else ""
    )
    said = values.get("warnings")
    return Headline(
        top1=number(values.get("top1")),
        interval=interval(values.get("top1_interval")),
        top5=number(values.get("top5")),
        top5_k=int(number(values.get("top5_k")) or min(5, known or 5)),
        loss=number(values.get("loss")),
        macro_f1=number(values.get("macro_f1")),
        protocol=str(protocol),
        source=_source(facts, main, values),
        chance=1 / known if known else None,
        warnings=[str(one) for one in said] if isinstance(said, list) else [],
    )


def best_line(facts: Facts) -> Line:
    """The line of the log with the highest top-1 on the validation set; empty when there is none."""
    return max(facts.history.of("evaluation", split="val"), key=lambda line: number(line.get("top1")) or -1.0, default={})


def _source(facts: Facts, main: Evaluation | None, values: Mapping[str, Any]) -> str:
    if not values:
        return "Nothing has been scored yet."
    if main is None:
        return "The best score in the log. Picked because it is the best, it is a little too high for new images."
    if main.split == "val" and facts.best:
        return (
            "The best checkpoint was chosen by its score on these same images, so the number is a little too high for new ones."
        )
    return ""


@dataclass(frozen=True)
class State:
    """How far the training came. `kind` is "done", "saved", "stopped" or "open"; `facts` are name and value."""

    kind: str
    words: str
    facts: list[tuple[str, str]]


def state(facts: Facts) -> State:
    """Done, saved, stopped or without an end; and the training's size, time and machine."""
    log, last = facts.history, facts.history.last("end", "start", "resume")
    kind, words = "open", "The log has no end: the training is running, or was killed. The same command goes on."
    if not log.lines:
        kind, words = "open", "No training is logged here."
    elif last.get("kind") == "end":
        code, reason = last.get("exit_code"), str(last.get("reason") or "done")
        kind = "saved" if code == TO_BE_CONTINUED else "done" if code == DONE or reason == "done" else "stopped"
        words = {
            "done": "The training is done." if reason == "done" else f"The training ended early: {reason}.",
            "saved": f"Saved, to be continued ({reason}). The same command goes on.",
            "stopped": f"Stopped: {reason}.",
        }[kind]
    start, step = log.last("start", "resume"), log.last("step", "evaluation", "end")
    total = next((count for line in reversed(log.lines) if (count := number(line.get("total_steps"))) is not None), None)
    rows = [
        ("Steps", (f"{step['step']:,.0f}" + (f" of {total:,.0f}" if total else "")) if step else ""),
        ("Epochs", f"{log.place(step['step']):.3g}" if step and log.unit == "epochs" else ""),
        ("Training time", duration(number(log.last("end", "step").get("elapsed_s")))),
        ("Network", str(_group(facts, "model").get("name") or "")),
        ("Parameters", f"{value:,.0f}" if (value := number(start.get("parameters"))) is not None else ""),
        ("Device", ", ".join(str(start[name]) for name in ("device", "precision") if start.get(name))),
        ("Interruptions", f"{len(log.of('resume')):,}" if log.of("resume") else ""),
        ("Skipped steps", f"{len(log.of('skip')):,}" if log.of("skip") else ""),
        ("Last entry", _date(number(log.lines[-1].get("time"))) if log.lines else ""),
    ]
    return State(kind, words, [(name, value) for name, value in rows if value])


def notes(facts: Facts) -> list[str]:
    """What the training had to remark (such as where bits may differ), each sentence once."""
    return list(dict.fromkeys(str(line["text"]) for line in facts.history.of("note") if line.get("text")))


def duration(value_s: float | None) -> str:
    """A time in the two units that suit it: "3 min 20 s", "2 h 05 min"; empty for None."""
    if value_s is None:
        return ""
    whole = round(value_s)
    hours, minutes, seconds = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {seconds:02d} s" if minutes else f"{value_s:.3g} s"


def _date(time_s: float | None) -> str:
    if time_s is None or not 0 <= time_s < 1e11:
        return ""
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M UTC")


# ---------------------------------------------------------------- recipe, environment, commands


@dataclass(frozen=True)
class Setting:
    """One field of the recipe, as text.

    origin: "typed" on the command line; of the named "recipe", or chosen from data and machine; or striate's "default".
    """

    name: str
    value: str
    origin: Literal["typed", "recipe", "default"]


def recipe_base(facts: Facts) -> str:
    """Name of the recipe that the training started from, or empty where the file does not say."""
    told = facts.recipe.get("_typed")
    return str(told.get("base") or "") if isinstance(told, dict) else ""


def recipe_groups(facts: Facts) -> list[tuple[str, list[Setting]]]:
    """The resolved recipe by group; fields without a value are left out."""
    defaults = recipes.to_plain(recipes.Recipe())
    told = facts.recipe.get("_typed")
    changes = told.get("changes") if isinstance(told, dict) else None
    typed = set(changes) if isinstance(changes, dict) else set()
    groups = []
    for group in recipes.GROUPS:
        values = facts.recipe.get(group)
        if not isinstance(values, dict):
            continue
        settings = []
        usual = flattened(defaults[group])
        for name, value in flattened(values).items():
            is_usual = canonical(value) == canonical(usual.get(name))
            if value is not None and value != {}:
                origin: Literal["typed", "recipe", "default"] = "default" if is_usual else "recipe"
                settings.append(Setting(name, shown(value), "typed" if f"{group}.{name}" in typed else origin))
        groups.append((group, settings))
    return groups


def canonical(value: Any) -> str:
    """JSON of a value, in which a tuple equals a list and 20 equals 20.0."""
    return json.dumps(
        float(value) if isinstance(value, int) and not isinstance(value, bool) else value, sort_keys=True, default=str
    )


def flattened(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested tables as one, keys joined by points; empty tables stay."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            flat |= flattened(value, f"{before}{key}.")
        else:
            flat[f"{before}{key}"] = value
    return flat


def shown(value: Any) -> str:
    """A JSON value as people write it: "yes", "0.08, 1", "resnet18"."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "—"
    if isinstance(value, (list, tuple)):
        return ", ".join(shown(part) for part in value) or "none"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {shown(part)}" for key, part in value.items()) or "none"
    return str(value)


def environment(facts: Facts) -> list[tuple[str, str]]:
    """What the numbers depend on besides the recipe: name and value."""
    rows = []
    for name, value in flattened(facts.environment).items():
        if name.split(".")[0] == "command" or value in (None, "", {}, []):
            continue
        size = number(value) if name.endswith("_bytes") else None
        rows.append((name.removesuffix("_bytes").replace("_", " "), shown(value) if size is None else f"{size / 2**30:.3g} GiB"))
    return rows


def commands(facts: Facts) -> list[tuple[str, str]]:
    """The commands that make this again: what each does, and the command."""
    typed = str(facts.environment.get("command") or "")
    run = shlex.quote(str(facts.folder))
    rows = [
        ("Train it, or go on where it stopped (the same command does both)", typed),
        ("Score the best checkpoint again", f"striate evaluate {run}"),
        ("Name the classes of other photos", f"striate predict {run} PHOTOS/"),
        ("Write this page again", f"striate report {run}"),
    ]
    return [(what, command) for what, command in rows if command]


def _group(facts: Facts, name: str) -> Mapping[str, Any]:
    group = facts.recipe.get(name)
    return group if isinstance(group, dict) else {}


# ---------------------------------------------------------------- data


@dataclass(frozen=True)
class SplitRow:
    """One split in the table of the data."""

    name: str
    images: str
    per_class: str
    bad: str
    fingerprint: str
    root: str


def split_rows(facts: Facts) -> list[SplitRow]:
    """Images, balance, bad files, fingerprint (12 digits) and folder of each split."""
    rows = []
    for name, split in facts.splits.items():
        images = number(split.facts.get("images"))
        count = images if images is not None else len(split.index) if split.index is not None else None
        balance = ""
        if split.index is not None and len(split.index.classes) and (split.index.labels >= 0).any():
            least, most = int(split.index.counts().min()), int(split.index.counts().max())
            balance = f"{least:,}" if least == most else f"{least:,} to {most:,}"
        bad = number(split.facts.get("bad"))
        if bad is None and (main := facts.main) is not None and main.split == name:
            bad = number(main.summary.get("bad"))
        if bad is None and name == "train" and facts.history.lines:
            bad = float(len({line.get("key") for line in facts.history.of("bad")}))
        rows.append(
            SplitRow(
                name,
                "" if count is None else f"{count:,.0f}",
                balance,
                "" if bad is None else f"{bad:,.0f}",
                str(split.facts.get("fingerprint") or "")[:12],
                str(split.facts.get("root") or ""),
            )
        )
    return rows


def data_notes(facts: Facts) -> list[str]:
    """What the reader of the data had to say, each sentence once."""
    notes: dict[str, None] = {}
    sources = [facts.data, *(split.facts for split in facts.splits.values())]
    for source in sources:
        told = source.get("notes")
        notes |= dict.fromkeys(map(str, told if isinstance(told, list) else []))
    for split in facts.splits.values():
        notes |= dict.fromkeys(split.index.notes if split.index is not None else ())
    return list(notes)


@dataclass(frozen=True)
class Picture:
    """One image of the page: its data URI, what stands below it, and its key."""

    uri: str
    title: str
    key: str


def mosaic(facts: Facts) -> tuple[str, list[Picture]]:
    """Some images of the validation set (else of the training set) as the network sees them, and the split's name."""
    for name in ("val", "train", "test"):
        split = facts.splits.get(name)
        if facts.view is None or split is None or split.index is None:
            continue
        found = []
        for row in pictures.spread(split.index.labels, MOSAIC_IMAGES):
            key, label = split.index.keys[row], int(split.index.labels[row])
            uri = picture(facts, split, key, MOSAIC_PX)
            if uri:
                found.append(Picture(uri, facts.title(label) if label >= 0 else "unlabelled", key))
        if found:
            return name, found
    return "", []


def picture(facts: Facts, split: Split | None, key: str, most_px: int) -> str | None:
    """An image of a split as the network saw it, as a data URI; None where it cannot be read here."""
    if split is None or facts.view is None or (content := facts.content(split, key)) is None:
        return None
    shrink_px = int(number(_group(facts, "data").get("shrink_px")) or 0)
    return pictures.seen_by_network(content, facts.view, shrink_px, most_px)


# ---------------------------------------------------------------- curves


def curves(facts: Facts) -> list[Chart]:
    """The charts of a training; one without values is left out.

    The training loss beside the validation loss is the main head's, which is what validation scores; where there are
    several heads, each is drawn in a chart of its own.
    """
    log, known = facts.history, len(facts.classes) if facts.classes else 0
    marks = tuple(log.places("resume"))
    x_end = max((log.place(line["step"]) for line in log.lines), default=0.0)

    def series(key: str, train: bool) -> list[Series]:
        logged = "losses/main" if key == "loss" and log.heads else key
        batches = [Series("train batches", "train", binned(log.curve("step", logged)))] if train else []
        return [
            one
            for one in (
                *batches,
                Series("train sample", "sample", log.curve("evaluation", key, split="train-sample")),
                Series("val", "val", log.curve("evaluation", key, split="val", weights="raw")),
                Series("val, EMA", "ema", log.curve("evaluation", key, split="val", weights="EMA")),
            )
            if one.curve
        ]

    def steps(key: str) -> list[Series]:
        return [one for one in [Series("", "train", log.curve("step", key))] if one.curve]

    def speed(key: str) -> list[Series]:
        return [replace(one, curve=binned(one.curve)) for one in steps(key)]

    best = best_line(facts)
    at_best = (log.place(best["step"]), float(best["top1"])) if number(best.get("top1")) is not None else None
    chance_loss = (math.log(known), f"guessing: ln {known:,}") if known > 1 else None
    chance = (1 / known, f"guessing: 1 in {known:,}") if known > 1 else None
    every = [
        Chart("loss", "Loss", "nats", series("loss", True), log.unit, x_end, charts.plain, marks, reference=chance_loss),
        Chart(
            "top1",
            "Top-1",
            "",
            series("top1", True),
            log.unit,
            x_end,
            charts.percent,
            marks,
            reference=chance,
            best=at_best,
            whole=1.0,
        ),
        Chart("learning-rate", "Learning rate", "", steps("lr"), log.unit, x_end, charts.plain, marks),
        Chart("images-per-s", "Speed", "images per second", speed("images_per_s"), log.unit, x_end, charts.plain, marks),
        Chart(
            "waiting", "Waiting for data", "share of time", speed("wait_share"), log.unit, x_end, charts.percent, marks, whole=1.0
        ),
    ]
    if known > 5 or not known:
        top5_chance = (5 / known, f"guessing: 5 in {known:,}") if known else None
        every.insert(
            2,
            Chart(
                "top5",
                "Top-5",
                "",
                series("top5", False),
                log.unit,
                x_end,
                charts.percent,
                marks,
                reference=top5_chance,
                whole=1.0,
            ),
        )
    if log.heads:
        looks: tuple[charts.Look, ...] = ("train", "val", "ema", "sample")
        heads = [
            Series(head, look, replace(curve, low_N=curve.low_N * np.nan, high_N=curve.high_N * np.nan), is_dotted=False)
            for head, look in zip(log.heads, looks, strict=False)
            if (curve := binned(log.curve("step", f"losses/{head}")))
        ]
        every.insert(
            1, Chart("heads", "Loss of each head", "nats", heads, log.unit, x_end, charts.plain, marks, reference=chance_loss)
        )
    return [chart for chart in every if chart.series]


def curve_notes(facts: Facts, drawn: Sequence[charts.Drawn]) -> list[str]:
    """What a reader must know to read the curves rightly."""
    log, notes = facts.history, []
    batches = [series for one in drawn for series in one.chart.series if series.look == "train" and series.name]
    if batches:
        shaded = (
            "; mean, with least and greatest shaded" if any(np.isfinite(series.curve.low_N).any() for series in batches) else ""
        )
        notes.append(f"“train batches”: augmented images, scored while the network learns from them{shaded}.")
    if log.of("evaluation", split="train-sample"):
        notes.append(
            "“train sample”: some training images, scored as the validation set is; its distance from “val” is overfitting."
        )
    if log.heads and batches:
        weight = number(_group(facts, "loss").get("aux_weight"))
        added = f" {weight:g} times" if weight is not None else ""
        notes.append(f"The loss of “train batches” is the main head's; what is minimised adds{added} that of each other head.")
    smoothing = number(_group(facts, "loss").get("smoothing"))
    if smoothing and batches:
        notes.append(
            f"The training loss includes label smoothing ({smoothing:g}) and cannot be compared with the validation loss."
        )
    if any(
        np.isfinite(series.curve.low_N).any() for one in drawn for series in one.chart.series if series.look in {"val", "ema"}
    ):
        notes.append("The band around “val” is its 95 % interval.")
    if any(not series.name and np.isfinite(series.curve.low_N).any() for one in drawn for series in one.chart.series):
        notes.append("Speed and waiting: mean of neighbouring log lines, with least and greatest shaded.")
    if any(one.chart.best for one in drawn):
        notes.append("The ring marks the best top-1.")
    if resumes := log.of("resume"):
        words = "once" if len(resumes) == 1 else f"{len(resumes)} times"
        notes.append(f"The training was interrupted and resumed {words} (dotted upright lines).")
    notes += [f"{one.chart.title}: {one.beyond}" for one in drawn if one.beyond]
    return notes


# ---------------------------------------------------------------- classes and mistakes


@dataclass(frozen=True)
class Scored:
    """What the main evaluation says about classes. Few: all in `best`; many: both ends of the ranking in `best` and `worst`.

    without_images: classes that none of the scored images is of, so that nothing can be said of them.
    """

    best: list[ranking.ClassScore]
    worst: list[ranking.ClassScore]
    pairs: list[ranking.Pair]
    matrix: charts.Matrix | None
    heat_map: str
    class_count: int
    without_images: list[int]


def scored(facts: Facts, counts_KK: np.ndarray) -> Scored:
    """Ranking, most confused pairs and the confusion matrix, drawn to suit the number of classes."""
    count = len(counts_KK)
    ranked = ranking.class_scores(counts_KK)
    few = len(ranked) <= 2 * RANKED
    matrix, heat_map = None, ""
    if count <= LABELLED_CLASSES:
        matrix = charts.lay_out_matrix(counts_KK, [facts.title(label) for label in range(count)])
    else:
        heat_map = pictures.heat_map(counts_KK / np.maximum(counts_KK.sum(axis=1, keepdims=True), 1))
    return Scored(
        best=ranked if few else ranked[:RANKED],
        worst=[] if few else ranked[: -RANKED - 1 : -1],
        pairs=ranking.confused_pairs(counts_KK, PAIRS),
        matrix=matrix,
        heat_map=heat_map,
        class_count=count,
        without_images=np.flatnonzero(counts_KK.sum(axis=1) == 0).tolist(),
    )


def judged(facts: Facts) -> Predictions | None:
    """The saved predictions of the main evaluation, where it was scored by the labels that they keep: the data set's own.

    None where they are missing, broken or of other labels, which leaves a sentence.
    """
    main = facts.main
    if main is None:
        return None
    if main.labels != "original":
        facts.gaps.append(
            f"evaluation/{main.folder.name} was scored by {main.labels} labels, and its saved predictions keep the data set's "
            "own: single mistakes are not shown. Evaluate without --labels to see them."
        )
        return None
    return predictions_of(facts, main)


def counts_of(main: Evaluation | None, said: Predictions | None) -> np.ndarray | None:
    """The confusion counts int64 [K, K] of an evaluation: of its saved predictions (None where these do not serve), else of
    confusion.csv."""
    if said is not None and (said.labels >= 0).any():
        labelled = said.select(said.labels >= 0)
        return metrics.confusion(labelled.scores, labelled.labels)
    return main.confusion_KK if main is not None else None


@dataclass(frozen=True)
class ShownMistake:
    """A mistake with its picture (None where the image cannot be read)."""

    uri: str | None
    mistake: ranking.Mistake


def mistakes(facts: Facts, said: Predictions | None) -> list[ShownMistake]:
    """The surest mistakes of the main evaluation, as the network saw them."""
    split = facts.splits.get(facts.main.split) if facts.main else None
    found = ranking.surest_mistakes(said, MISTAKE_IMAGES) if said is not None else []
    return [ShownMistake(picture(facts, split, one.key, MISTAKE_PX), one) for one in found]


# ---------------------------------------------------------------- bad files


@dataclass(frozen=True)
class BadFile:
    """A file that could not be read: where it was met, its key, and the reason."""

    where: str
    key: str
    reason: str


def bad_files(facts: Facts) -> list[BadFile]:
    """Every unreadable file that training and evaluations met, once per place."""
    rows = [BadFile("training", str(line.get("key") or ""), str(line.get("reason") or "")) for line in facts.history.of("bad")]
    rows += [BadFile(one.split, bad.get("key", ""), bad.get("reason", "")) for one in facts.evaluations for bad in one.bad]
    return list(dict.fromkeys(rows))

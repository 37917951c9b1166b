"""Several runs on one offline page: curves over each other, results with their intervals, and where the recipes differ."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from striate import files
from striate import recipe as recipes
from striate.errors import UserError
from striate.evaluate import compare, metrics
from striate.report import charts, sections, templates
from striate.report.charts import Chart, Series
from striate.report.gather import Facts, gather, predictions_of
from striate.report.history import History, binned, number

COLOURS, DASHES = 6, 3  # of compare.css
CHANCE = 0.05  # below it two runs are told apart
_MACHINE = ("striate", "torch", "device", "gpu", "processor", "cores")


def write_comparison(run_folders: Sequence[Path], out: Path | None = None) -> Path:
    """Writes one page about two to eighteen runs: `out`, or compare-A-B.html in the folder that the first run lies in.

    Complete in itself, as `report.html` is. The same folders give the same bytes. Returns the path of the page.
    Raises UserError for a run named twice, too many runs, a folder that is no run, or a place that cannot be written.
    """
    places = [folder.resolve() for folder in run_folders]
    twice = [str(folder) for folder, count in Counter(places).items() if count > 1]
    if twice:
        raise UserError(f"{twice[0]}: named twice; a run is not compared with itself.")
    if not 2 <= len(places) <= COLOURS * DASHES:
        raise UserError(f"{len(places)} runs: a page compares 2 to {COLOURS * DASHES}, more cannot be told apart in one chart.")
    runs = [_compared(folder, name, index) for index, (folder, name) in enumerate(zip(run_folders, _names(places), strict=True))]
    path = out if out is not None else places[0].parent / _file_name([run.name for run in runs])
    pages = templates.templates()
    drawn = [charts.lay_out(chart) for chart in _curves(runs)]
    low, high = _scale(runs)
    values = {
        "runs": runs,
        "low": low,
        "high": high,
        "verdicts": verdicts(runs),
        "cautions": cautions(runs),
        "charts": [templates.svg(pages, one) for one in drawn],
        "chart_notes": _curve_notes(runs, drawn),
        "differences": differences([run.facts for run in runs]),
        "machines": _machines([run.facts for run in runs]),
        "processes": _processes([run.facts for run in runs]),
        "gaps": [f"{run.name}: {gap}" for run in runs for gap in run.facts.gaps],
    }
    page = templates.page(pages, "compare.html.jinja", templates.style("chart.css", "report.css", "compare.css"), values)
    try:
        files.write_whole(path, page.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise files.refuse(error, path, "writing the page") from error
    return path


# ---------------------------------------------------------------- the runs


@dataclass(frozen=True)
class Compared:
    """One run of the page. look: its class names in the style sheet. scored: images behind its accuracy, 0 if none.

    hits: whether each image of its main evaluation was recognised, by key; None where predictions are not saved.
    rows: name and text of the facts in the table.
    """

    name: str
    look: str
    facts: Facts
    headline: sections.Headline
    state: sections.State
    scored: int
    hits: dict[str, bool] | None
    rows: dict[str, str]

    @property
    def task(self) -> tuple[str, str, str]:
        """What its accuracy is of: two runs with the same task can be compared."""
        main = self.facts.main
        classes = self.facts.classes.hash if self.facts.classes else ""
        told = self.facts.splits.get(main.split if main else "val")
        images = (main.summary.get("data_fingerprint") if main else None) or (told.facts.get("fingerprint") if told else None)
        return classes, str(images or ""), main.split if main else "val"


def _compared(folder: Path, name: str, index: int) -> Compared:
    facts = gather(folder)
    state, head, main = sections.state(facts), sections.headline(facts), facts.main
    values = main.summary if main else sections.best_line(facts)
    speeds_N = facts.history.curve("step", "images_per_s").y_N
    speeds_N = speeds_N[np.isfinite(speeds_N)]
    told = dict(state.facts)
    rows = {key: told.get(key, "") for key in ("Network", "Parameters", "Training time", "Epochs", "Steps", "Device")}
    rows["Images/s"] = f"{np.median(speeds_N):,.0f}" if len(speeds_N) else ""
    return Compared(
        name=name,
        look=f"run-{index % COLOURS + 1} dash-{index // COLOURS}",
        facts=facts,
        headline=head,
        state=state,
        scored=int(number(values.get("used")) or 0),
        hits=_hits(facts),
        rows=rows,
    )


def _hits(facts: Facts) -> dict[str, bool] | None:
    said = predictions_of(facts, facts.main) if facts.main else None
    if said is None or not len(said) or (said.labels < 0).any():
        return None
    return dict(zip(said.keys, metrics.hits(said.scores, said.labels, 1).tolist(), strict=True))


def _names(places: Sequence[Path]) -> list[str]:
    """A run's folder name, with its parent's where two runs have the same."""
    count = Counter(place.name for place in places)
    return [place.name if count[place.name] == 1 else f"{place.parent.name}/{place.name}" for place in places]


def _file_name(names: Sequence[str]) -> str:
    plain = [name.replace("/", "-") for name in names]
    whole = "-".join(plain)
    if len(whole.encode()) > 120:
        whole = f"{plain[0][:60]}-and-{len(plain) - 1}-more-{files.sha256_bytes(whole.encode())[:6]}"
    return f"compare-{whole}.html"


def _scale(runs: Sequence[Compared]) -> tuple[float, float]:
    """Ends of the axis that all intervals are drawn on, shares 0..1."""
    ends = [end for run in runs for end in run.headline.interval or ()]
    low, high = (math.floor(20 * min(ends)) / 20, math.ceil(20 * max(ends)) / 20) if ends else (0.0, 1.0)
    return low, max(high, low + 0.05)


# ---------------------------------------------------------------- in words


def verdicts(runs: Sequence[Compared]) -> list[str]:
    """Which runs can be told apart by their accuracy, for each set of images that several were scored on."""
    said = []
    for task in dict.fromkeys(run.task for run in runs):
        group = [run for run in runs if run.task == task and run.headline.top1 is not None and run.scored]
        if len(group) > 1:
            said += _verdict(sorted(group, key=lambda run: -(run.headline.top1 or 0.0)))
    return said


def _verdict(group: Sequence[Compared]) -> list[str]:
    """group: best first."""
    first, rest = group[0], group[1:]
    paired = all(run.hits is not None and first.hits is not None and run.hits.keys() == first.hits.keys() for run in rest)
    chances = compare.holm([_chance(first, run, paired) for run in rest])
    test = "McNemar’s exact test, image by image" if paired else "two-proportion z-test"
    on = f"the same {first.scored:,} images" if paired else "the same set of images"
    if len(rest) == 1:
        other, words = rest[0], f"on {on}; {test}, {_p(chances[0])}"
        shares = f"{_share(first)} and {_share(other)} top-1"
        if chances[0] >= CHANCE:
            return [f"{first.name} and {other.name} are not distinguishable at 95\u202f%: {shares} {words}."]
        return [f"{first.name} is better than {other.name} at 95\u202f%: {shares} {words}."]
    listed = [f"{run.name} ({_share(run)}, {_p(chance)})" for run, chance in zip(rest, chances, strict=True)]
    alike = [words for words, chance in zip(listed, chances, strict=True) if chance >= CHANCE]
    worse = [words for words, chance in zip(listed, chances, strict=True) if chance < CHANCE]
    said = [f"{first.name} has the highest top-1, {_share(first)}, of {len(group)} runs scored on {on}."]
    said += [f"Not distinguishable from it at 95\u202f%: {', '.join(alike)}."] if alike else []
    said += [f"Worse than it at 95\u202f%: {', '.join(worse)}."] if worse else []
    return [*said, f"Each against {first.name}: {test}; p adjusted for {len(rest)} comparisons (Holm)."]


def _chance(first: Compared, other: Compared, paired: bool) -> float:
    if paired and first.hits is not None and other.hits is not None:
        keys = list(first.hits)
        return compare.mcnemar(np.array([first.hits[key] for key in keys]), np.array([other.hits[key] for key in keys]))
    counts = [(round((run.headline.top1 or 0.0) * run.scored), run.scored) for run in (first, other)]
    return compare.two_proportions(*counts[0], *counts[1])


def _share(run: Compared) -> str:
    return f"{100 * (run.headline.top1 or 0.0):.1f}\u202f%"


def _p(chance: float) -> str:
    words = "p < 0.001" if chance < 0.001 else f"p = {chance:.2g}"
    return words.replace(" ", "\u00a0")


def cautions(runs: Sequence[Compared]) -> list[str]:
    """Why numbers that stand side by side may not be compared."""
    said = []
    classes = {run.task[0] for run in runs}
    if len(classes) > 1:
        said.append("The runs know different classes: their accuracies are of different tasks and cannot be compared.")
    elif len({run.task[1:] for run in runs}) > 1:
        said.append("The runs were scored on different images: their accuracies cannot be compared one to one.")
    trained = {str(run.facts.splits["train"].facts.get("fingerprint")) for run in runs if "train" in run.facts.splits}
    if len(trained) > 1:
        said.append("The runs were trained on different images.")
    unscored = [run.name for run in runs if run.headline.top1 is None]
    if unscored:
        said.append(f"Nothing has been scored yet: {', '.join(unscored)}.")
    unfinished = [run.name for run in runs if run.state.kind != "done"]
    if unfinished:
        said.append(f"Not trained to the end: {', '.join(unfinished)}.")
    views = {run.facts.main.views for run in runs if run.facts.main}
    if len(views) > 1:
        said.append("The accuracies are of different numbers of views an image: see the protocols.")
    return said


def differences(facts: Sequence[Facts]) -> list[tuple[str, list[str]]]:
    """The recipe's fields that are not the same in all runs, with each run's value; a field that a file lacks has its default."""
    tables = [sections.flattened(_whole_recipe(one)) for one in facts]
    groups = list(recipes.GROUPS)
    names = sorted(dict.fromkeys(name for table in tables for name in table), key=lambda name: groups.index(name.split(".")[0]))
    rows = []
    for name in names:
        values = [table.get(name) for table in tables]
        if len({sections.canonical(value) for value in values}) > 1:
            rows.append((name, [sections.shown(value) for value in values]))
    return rows


def _whole_recipe(facts: Facts) -> dict[str, Any]:
    defaults = recipes.to_plain(recipes.Recipe())
    groups = {name: facts.recipe.get(name) for name in recipes.GROUPS}
    whole = {name: defaults[name] | (given if isinstance(given, dict) else {}) for name, given in groups.items()}
    whole["model"]["options"] = whole["model"]["options"] or None  # no options are no field of their own
    return whole


def _machines(facts: Sequence[Facts]) -> list[tuple[str, list[str]]]:
    """What differs between the machines and versions; which GPU of a machine it was is no difference."""
    tables = [one.environment | {"device": str(one.environment.get("device")).partition(":")[0]} for one in facts]
    rows = [(name, [sections.shown(table.get(name)) for table in tables]) for name in _MACHINE]
    return [(name, values) for name, values in rows if len(set(values)) > 1]


def _processes(facts: Sequence[Facts]) -> list[tuple[str, list[str]]]:
    """What differs in how the machines were used: processes of the last sitting, threads of each."""
    counts = [number(one.history.last("start", "resume").get("processes")) or 1 for one in facts]
    rows = [
        ("processes", [f"{count:,.0f}" for count in counts]),
        ("threads of each", [sections.shown(one.environment.get("threads")) for one in facts]),
    ]
    return [(name, values) for name, values in rows if len(set(values)) > 1]


# ---------------------------------------------------------------- curves


def _curves(runs: Sequence[Compared]) -> list[Chart]:
    """Six charts of all runs; one without values is left out."""
    has_epochs = all(run.facts.history.unit == "epochs" for run in runs)
    none = np.zeros(0)
    shared = [run.facts.history if has_epochs else replace(run.facts.history, steps_N=none, epochs_N=none) for run in runs]
    unit, timed = _timed([run.facts.history for run in runs])
    by = "epochs" if has_epochs else "steps"

    def drawn(slug: str, title: str, y_unit: str, axis: Sequence[History], x_unit: str, written: Callable[[float], str],
              key: str, kind: str = "evaluation", whole: float | None = None) -> Chart:  # fmt: skip
        series = []
        for run, history in zip(runs, axis, strict=True):
            where = {"split": "val", "weights": _weights(history)} if kind == "evaluation" else {}
            curve = history.curve(kind, key, **where)
            curve = curve if kind == "evaluation" or key == "lr" else binned(curve, most=60)
            if curve:
                bare = np.full(len(curve.y_N), math.nan)  # bands of several runs would hide each other
                look = run.look if kind == "evaluation" else f"{run.look} thin"
                series.append(Series(run.name, look, replace(curve, low_N=bare, high_N=bare), kind == "evaluation"))
        x_end = max((history.place(line["step"]) for history in axis for line in history.lines), default=0.0)
        return Chart(slug, title, y_unit, series, x_unit, x_end, written, whole=whole, has_keys=False)

    every = [
        drawn("top1", "Validation top-1", "", shared, by, charts.percent, "top1", whole=1.0),
        drawn("top1-time", "Validation top-1 over time", "", timed, f"{unit} of training", charts.percent, "top1", whole=1.0),
        drawn("val-loss", "Validation loss", "nats", shared, by, charts.plain, "loss"),
        drawn("loss", "Training loss", "nats", shared, by, charts.plain, "loss", "step"),
        drawn("learning-rate", "Learning rate", "", shared, by, charts.plain, "lr", "step"),
        drawn("images-per-s", "Speed", "images per second", shared, by, charts.plain, "images_per_s", "step"),
    ]
    return [chart for chart in every if chart.series]


def _weights(history: History) -> str:
    """Which weights `evaluate` takes: the averaged ones where there are any."""
    return "EMA" if history.of("evaluation", split="val", weights="EMA") else "raw"


def _timed(histories: Sequence[History]) -> tuple[str, list[History]]:
    """The histories over training time, in the unit that suits the longest, and that unit."""
    clocks = []
    for history in histories:
        at = {float(line["step"]): time_s for line in history.lines if (time_s := number(line.get("elapsed_s"))) is not None}
        steps = sorted(at)
        clocks.append((np.array(steps), np.array([at[step] for step in steps])))
    longest_s = max((float(times_N.max()) for _, times_N in clocks if len(times_N)), default=0.0)
    unit, of = next(
        (unit, of) for unit, of in (("hours", 3600), ("minutes", 60), ("seconds", 1)) if longest_s >= 2 * of or of == 1
    )
    return unit, [
        replace(history, steps_N=steps_N, epochs_N=times_N / of)
        for history, (steps_N, times_N) in zip(histories, clocks, strict=True)
    ]


def _curve_notes(runs: Sequence[Compared], drawn: Sequence[charts.Drawn]) -> list[str]:
    notes = []
    averaged = [run.name for run in runs if _weights(run.facts.history) == "EMA"]
    if averaged:
        which = "all runs" if len(averaged) == len(runs) else ", ".join(averaged)
        notes.append(
            f"Validation: of the averaged weights (EMA) in {which}"
            + ("." if len(averaged) == len(runs) else "; raw in the others.")
        )
    terms = [name for name, _ in differences([run.facts for run in runs]) if name.startswith(("loss.", "augment."))]
    if terms:
        notes.append(f"The training losses are of different tasks ({', '.join(terms)} differ): compare the validation losses.")
    if _machines([run.facts for run in runs]):
        notes.append("Times and speeds come from different machines or versions.")
    if _processes([run.facts for run in runs]):
        notes.append("Times and speeds come from different numbers of processes or threads.")
    return notes + [f"{one.chart.title}: {one.beyond}" for one in drawn if one.beyond]

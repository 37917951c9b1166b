"""History: what a training told on its way, as columns: from the records of a run, or from a stranger's table.

`History` holds the facts and nothing is judged here; a training feeds it record by record, and rules read it at any time.
Below it stand the few robust measures that several rules take of a column: level, slope, jitter.
"""

from __future__ import annotations

import math
import warnings
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from striate import recipe as recipes
from striate.doctor.finding import Curve
from striate.recipe import Recipe
from striate.run.log import Record

Numbers = NDArray[np.float64]

# Of a step's record, the tables within it whose numbers become columns "losses/main", "norms/layer1/update" …
_TABLES = ("losses", "norms", "dead_share")
# What a number of this name can be; one outside counts as missing.
_RANGES = {
    "top1": (0.0, 1.0),
    "top5": (0.0, 1.0),
    "used": (1.0, math.inf),
    "lr": (0.0, math.inf),
    "memory_bytes": (0.0, math.inf),
}
# Beyond it 32-bit floats are infinite: such a number counts as not finite, and no arithmetic of the rules overflows.
_LARGEST = 3.5e38
# Steps of a training are counted up to here.
_MOST_STEPS = 10**15
# Most points of a curve: a plot in a terminal or a page shows no more.
_MOST_POINTS = 200
# Names of networks without batch normalisation, as their first letters; with "bn" in the name they have it.
_WITHOUT_BATCH_NORM = ("alexnet", "caffenet", "zfnet", "vgg", "lenet", "googlenet", "all-cnn", "se-googlenet", "kth-a", "kth-c")
_WITH_BATCH_NORM = ("resnet", "resnext", "densenet", "se-res", "senet", "xception", "inception", "plain", "kth-", "efficientnet")


class Columns:
    """Numbers by name, a row for each moment of a training; what a row lacks is NaN. Rows come at the end."""

    def __init__(self) -> None:
        self.rows = 0
        self._columns: dict[str, array[float]] = {}

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, name: str) -> Numbers:
        """A copy of a column, float64 [rows]; all NaN where no row has it."""
        column = self._columns.get(name)
        if column is None:
            return np.full(self.rows, np.nan)
        self._fill(column)
        return np.array(column, dtype=np.float64)

    def names(self, prefix: str = "") -> list[str]:
        """Columns in the order in which they first came; those below "norms/" with prefix "norms/"."""
        return [name for name in self._columns if name.startswith(prefix)]

    def append(self, row: Mapping[str, Any]) -> None:
        """Adds a row. Values that are no finite numbers count as missing."""
        for name, value in row.items():
            if _is_number(value):
                column = self._columns.setdefault(name, array("d"))
                self._fill(column)
                column.append(value)
        self.rows += 1

    def cut(self, last_step: float) -> None:
        """Drops the rows after a step: they were run again."""
        kept = int(np.sum(~(self["step"] > last_step)))
        for column in self._columns.values():
            del column[kept:]
        self.rows = kept

    def _fill(self, column: array[float]) -> None:
        if len(column) < self.rows:
            column.extend([math.nan] * (self.rows - len(column)))


@dataclass(frozen=True)
class Skip:
    """A step that was not taken, for a number in it was not finite. keys: of images whose own loss was not."""

    step: int
    reason: str
    keys: tuple[str, ...] = ()
    first_bad_layer: str | None = None


class History:
    """What is known of a training so far; everything may be missing.

    recipe: of a run of striate. classes: how many. steps: a row for each record of a step, with the columns step, epoch, loss,
    top1, lr, gradient_norm, images_per_s, wait_share, memory_bytes, loss_scale, and below "losses/", "norms/", "dead_share/".
    evaluations: by (split, weights): step, epoch, top1, top5, loss, used. start: facts of the start, see `run.log.Record`.
    end: how the last sitting ended. broken: (step, column) where a table says that a loss is NaN or infinite.
    records, unreadable: lines of a log that were taken in, and lines without a kind or a step.
    is_by_epoch: whether loss and top1 of `steps` are means over an epoch, not of single batches.
    """

    def __init__(self, recipe: Recipe | None = None, classes: int | None = None, is_by_epoch: bool = False) -> None:
        self.recipe = recipe
        self.is_by_epoch = is_by_epoch
        self.steps = Columns()
        self.evaluations: dict[tuple[str, str], Columns] = {}
        self.start: dict[str, Any] = {}
        self.skips: list[Skip] = []
        self.bad: dict[str, str] = {}
        self.broken: list[tuple[int, str]] = []
        self.resumed_at: list[int] = []
        self.end: dict[str, Any] | None = None
        self.records = self.unreadable = 0
        self._classes = classes

    @classmethod
    def of_records(cls, records: Iterable[Mapping[str, Any]], recipe: Recipe | None) -> History:
        """The history of a run. records: as `Run.log()` has them, kind, step and values in one table each.

        Values of another type than they should have are left out, and so are lines without a kind or a step.
        """
        history = cls(recipe)
        for one in records:
            kind, step = (one.get("kind"), one.get("step", 0)) if isinstance(one, Mapping) else (None, None)
            if not isinstance(kind, str) or not _is_number(step) or not 0 <= step <= _MOST_STEPS:
                history.unreadable += 1
                continue
            values = {name: value for name, value in one.items() if name not in ("kind", "step")}
            history.observe(Record(kind, int(step), values))
        return history

    def observe(self, record: Record) -> None:
        """Takes in one more record of the training."""
        values, step = record.values, record.step
        self.records += 1
        if record.kind in ("start", "resume"):
            self._go_back(step)
            self.start |= values
            if record.kind == "resume":
                self.resumed_at.append(step)
        elif record.kind == "step":
            self.steps.append({**_fitting(_flat(values)), "step": step})
        elif record.kind == "evaluation":
            place = (str(values.get("split")), str(values.get("weights")))
            self.evaluations.setdefault(place, Columns()).append({**_fitting(values), "step": step})
        elif record.kind == "skip":
            keys, layer = values.get("keys"), values.get("first_bad_layer")
            known = tuple(map(str, keys)) if isinstance(keys, (list, tuple)) else ()
            self.skips.append(Skip(step, str(values.get("reason")), known, layer if isinstance(layer, str) else None))
        elif record.kind == "bad":
            self.bad[str(values.get("key"))] = str(values.get("reason"))
        elif record.kind == "end":
            self.end = dict(values)

    def _go_back(self, step: int) -> None:
        """What was told of later steps counts no more: they are run again."""
        self.end = None
        for columns in (self.steps, *self.evaluations.values()):
            if len(columns):
                columns.cut(step)
        self.skips = [skip for skip in self.skips if skip.step <= step]

    # ------------------------------------------------ facts

    @property
    def classes(self) -> int | None:
        """How many classes there are."""
        return self._classes or _whole(self.start.get("classes"))

    @property
    def processes(self) -> int:
        """Processes that share a batch."""
        return _whole(self.start.get("processes")) or 1

    @property
    def batch_size(self) -> int | None:
        """Images of a step."""
        return _whole(self.start.get("batch_size")) or (self.recipe.optim.batch_size if self.recipe else None)

    @property
    def steps_per_epoch(self) -> int | None:
        """Steps of a pass over the training images."""
        return _whole(self.start.get("steps_per_epoch"))

    @property
    def total_steps(self) -> int | None:
        """Steps that are planned; None where nobody knows."""
        planned = self.steps["total_steps"]
        known = planned[np.isfinite(planned)]
        return int(known[-1]) if len(known) else _whole(self.start.get("total_steps"))

    @property
    def is_done(self) -> bool:
        """Whether the training has come to its end, or to the end of what is told of it."""
        return self.recipe is None or (self.end is not None and self.end.get("exit_code") == 0)

    @property
    def last_step(self) -> int:
        """The last step that is told of."""
        steps = self.steps["step"]
        return int(steps[-1]) if len(steps) else 0

    @property
    def loss(self) -> Numbers:
        """Cross-entropy of the main head; the whole loss where heads are not told apart."""
        main = self.steps["losses/main"]
        return main if np.isfinite(main).any() else self.steps["loss"]

    @property
    def losses(self) -> dict[str, Numbers]:
        """Cross-entropy by head, before weighing."""
        return {name.removeprefix("losses/"): self.steps[name] for name in self.steps.names("losses/")}

    @property
    def chance(self) -> float | None:
        """Loss of an answer that gives all classes the same probability: ln K."""
        return math.log(self.classes) if self.classes and self.classes > 1 else None

    @property
    def chance_or_first(self) -> float:
        """The same; where nobody says how many classes there are, the first loss: about ln K before anything is learnt."""
        if self.chance is not None:
            return self.chance
        first = self.loss[np.isfinite(self.loss)][:1]
        return float(first[0]) if len(first) else math.nan

    @property
    def head_weight(self) -> float:
        """Sum of the weights of all heads in the loss, the main one's being 1."""
        others = sum(head != "main" for head in self.losses)
        return 1.0 + others * (self.recipe.loss.aux_weight if self.recipe else 0.0)

    def norms(self, kind: str) -> dict[str, Numbers]:
        """Norms by layer group, in the order of the network. kind: weight, gradient or update."""
        suffix = f"/{kind}"
        names = [name for name in self.steps.names("norms/") if name.endswith(suffix)]
        return {name.removeprefix("norms/").removesuffix(suffix): self.steps[name] for name in names}

    @property
    def dead_share(self) -> dict[str, Numbers]:
        """Share of dead units by layer, in the order of the network."""
        return {name.removeprefix("dead_share/"): self.steps[name] for name in self.steps.names("dead_share/")}

    def scores(self, split: str, weights: str | None = None) -> Columns | None:
        """The evaluations of a split; of the averaged weights where there are any, unless `weights` says which."""
        for name in (weights,) if weights else ("EMA", "raw"):
            found = self.evaluations.get((split, name))
            if found is not None and len(found):
                return found
        return None

    @property
    def has_batch_norm(self) -> bool | None:
        """Whether the network normalises batches, by the names of its layers and its own; None where these do not say."""
        if any(group.startswith(("bn", "norm")) for group in self.norms("weight")):
            return True
        name = self.recipe.model.name if self.recipe else str(self.start.get("model", ""))
        name = name.rpartition("/")[2].replace("_", "-")
        if "bn" in name.split("-"):
            return True
        if name.startswith(_WITHOUT_BATCH_NORM):
            return False
        return True if name.startswith(_WITH_BATCH_NORM) else None

    @property
    def update_ratios(self) -> dict[str, Numbers]:
        """Norm of a step's update over the norm of the weights, by layer group; without groups of normalisation only.

        These start at 1 and at 0, and move by other rules.
        """
        updates, weights = self.norms("update"), self.norms("weight")
        names = [name for name in updates if name in weights and not name.startswith(("bn", "norm"))]
        with np.errstate(divide="ignore", invalid="ignore"):
            return {name: np.where(weights[name] > 0, updates[name] / weights[name], np.nan) for name in names}

    def typical_update_ratio(self) -> Numbers:
        """Of each row, the median over the layer groups of `update_ratios`; NaN where no norms are told."""
        ratios = list(self.update_ratios.values())
        if not ratios:
            return np.full(len(self.steps), np.nan)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # rows of which nothing is told
            return np.asarray(np.nanmedian(np.stack(ratios), axis=0))

    @property
    def is_mixed(self) -> bool:
        """Whether training images are blends of two, whose accuracy cannot be held against that of whole ones."""
        return self.recipe is not None and (self.recipe.augment.mixup > 0 or self.recipe.augment.cutmix > 0)

    @property
    def warmup_steps(self) -> int:
        """Steps until the learning rate is at its peak: as the recipe has it, else as the column `lr` rises."""
        if self.recipe is not None and self.steps_per_epoch:
            return round(self.recipe.optim.warmup_epochs * self.steps_per_epoch)
        lr, step = finite(self.steps["lr"], self.steps["step"])
        return int(step[int(np.argmax(lr))]) if len(lr) and lr[0] < 0.9 * lr.max() else 0

    def is_near_peak(self, share: float) -> NDArray[np.bool_]:
        """Rows of `steps` past the warm-up whose learning rate is at least `share` of the highest; all where none is told."""
        lr, step = self.steps["lr"], self.steps["step"]
        if not np.isfinite(lr).any():
            return np.ones(len(self.steps), dtype=bool)
        return (lr >= share * np.nanmax(lr)) & (step > self.warmup_steps)

    # ------------------------------------------------ ways out

    def scaled(self, field: str, factor: float) -> dict[str, Any]:
        """A recipe override: a number of the recipe times a factor, to two digits. Empty without a recipe, and for 0."""
        value = recipes.get(self.recipe, field) if self.recipe is not None else 0
        return {field: float(f"{value * factor:.2g}")} if value else {}

    def set(self, **fields: Any) -> dict[str, Any]:
        """Recipe overrides, "optim.lr" spelled optim_lr; empty without a recipe, and without those that hold already."""
        if self.recipe is None:
            return {}
        named = {name.replace("_", ".", 1): value for name, value in fields.items()}
        return {name: value for name, value in named.items() if recipes.get(self.recipe, name) != value}

    def longer(self, factor: float) -> dict[str, Any]:
        """A recipe override: so many times the budget."""
        if self.recipe is None:
            return {}
        b = self.recipe.budget
        if b.time is not None:
            return {"budget.time": f"{math.ceil(recipes.seconds(b.time) * factor / 60)}m"}
        if b.steps is not None:
            return {"budget.steps": round(b.steps * factor)}
        return {"budget.epochs": float(round((b.epochs or 0.0) * factor))}

    # ------------------------------------------------ curves

    def loss_curve(self, mark: tuple[float | str, str] | None = None) -> Curve:
        """Training and validation loss over the epochs (over the steps where epochs are not told)."""
        by = "epoch" if np.isfinite(self.steps["epoch"]).any() else "step"
        lines = {"training": (self.steps[by], self.loss)}
        for split, name in (("val", "validation"), ("train-sample", "training images, scored")):
            if (scores := self.scores(split)) is not None:
                lines[name] = (scores[by], scores["loss"])
        return curve("Loss", by, "loss [nats]", lines, mark=mark)

    def column_curve(self, title: str, name: str, y_label: str, is_log: bool = False) -> Curve:
        """A column of `steps` over the steps."""
        return curve(title, "step", y_label, {title: (self.steps["step"], self.steps[name])}, is_log)


# ---------------------------------------------------------------- measures of a column


def finite(*columns: Numbers) -> tuple[Numbers, ...]:
    """The rows that every column has, in all of them."""
    has_all = np.logical_and.reduce([np.isfinite(column) for column in columns])
    return tuple(column[has_all] for column in columns)


def level(values: Numbers) -> float:
    """The median of what there is; NaN where there is nothing."""
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else math.nan


def parts(values: Numbers, count: int) -> list[float]:
    """Medians of `count` pieces of the same length, in order."""
    return [level(piece) for piece in np.array_split(values, count)]


def jitter(values: Numbers) -> float:
    """Deviation of a value from its neighbours, whatever the slope: as of a normal one with their median second difference."""
    values = values[np.isfinite(values)]
    if len(values) < 4:
        return math.nan
    bends = values[2:] - 2 * values[1:-1] + values[:-2]
    return float(1.4826 * np.median(np.abs(bends)) / math.sqrt(6))


def slope(x: Numbers, y: Numbers) -> tuple[float, float]:
    """Slope by Theil and Sen (the median of all pairs') and its standard error; NaN for fewer than four points.

    Long columns are thinned to medians of pieces first. Source: Sen 1968, section 2.
    """
    x, y = finite(x, y)
    if len(x) < 4:
        return math.nan, math.nan
    if len(x) > 60:
        x, y = np.array(parts(x, 60)), np.array(parts(y, 60))
    first, second = np.triu_indices(len(x), 1)
    apart = x[second] != x[first]
    if not apart.any():
        return math.nan, math.nan
    steepness = float(np.median((y[second] - y[first])[apart] / (x[second] - x[first])[apart]))
    rest = y - steepness * x
    deviation = 1.4826 * float(np.median(np.abs(rest - np.median(rest))))
    # The factor is the price of a median: it needs pi/2 times the points of a mean.
    error = math.sqrt(math.pi / 2) * deviation / max(float(np.sqrt(np.sum((x - x.mean()) ** 2))), 1e-300)
    return steepness, error


def fall(values: Numbers) -> tuple[float, float]:
    """By how much a column falls from its first row to its last along its slope, and the standard error of that."""
    values = values[np.isfinite(values)]
    steepness, error = slope(np.arange(len(values), dtype=np.float64), values)
    length = len(values) - 1
    return -steepness * length, error * length


def curve(
    title: str,
    x_label: str,
    y_label: str,
    lines: Mapping[str, tuple[Numbers, Numbers]],
    is_log: bool = False,
    mark: tuple[float | str, str] | None = None,
) -> Curve:
    """A plot of lines that need not have the same x; long ones are thinned to medians of pieces."""
    thinned: dict[str, dict[float, float]] = {}
    for name, (x, y) in lines.items():
        x, y = finite(x, y)
        if len(x) > _MOST_POINTS:
            x, y = np.array(parts(x, _MOST_POINTS)), np.array(parts(y, _MOST_POINTS))
        if len(x):
            thinned[name] = dict(zip(x.tolist(), y.tolist(), strict=True))
    places: Sequence[float] = sorted({place for line in thinned.values() for place in line})
    shown = {name: [line.get(place) for place in places] for name, line in thinned.items()}
    return Curve(title, x_label, y_label, list(places), shown, is_log=is_log, mark=mark)


# ---------------------------------------------------------------- values


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """A step's values with the tables within them as "table/…/name"."""
    row = {name: value for name, value in values.items() if name not in _TABLES}
    for table in _TABLES:
        inside = values.get(table)
        for name, value in inside.items() if isinstance(inside, Mapping) else ():
            if table != "norms":
                row[f"{table}/{name}"] = value
            elif isinstance(value, Mapping):
                row |= {f"{table}/{name}/{inner}": number for inner, number in value.items()}
    return row


def _fitting(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that can be what their name says."""
    return {name: value for name, value in values.items() if name not in _RANGES or _is_within(value, *_RANGES[name])}


def _is_within(value: Any, least: float, most: float) -> bool:
    return _is_number(value) and least <= value <= most


def _is_number(value: Any) -> bool:
    """Whether it is a number that 32-bit floats hold; integers may have any length."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _LARGEST


def _whole(value: Any) -> int | None:
    return int(value) if _is_number(value) and value > 0 else None

"""A stranger's table of a training, as a History: the CSV that Keras, Lightning, timm, Ultralytics and others write.

One row for each epoch or step. Which column is what is told by the words of its name, and percent from the size of its numbers.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from striate.doctor.history import Columns, History, Numbers, level
from striate.errors import DataError, UserError, printable

# Most of a table: a row for each step of a long training is some tens of megabytes. [bytes]
_MOST_BYTES = 200_000_000
_SCORED = {"val", "valid", "validation", "eval", "evaluation", "test", "testing", "dev", "holdout", "metrics"}
_TRAINED = {"train", "training", "trn", "tr"}
_LOSS = {"loss", "losses", "nll", "xent", "crossentropy", "objective"}
_TOP1 = {"acc", "accuracy", "top1", "acc1", "prec1", "accuracy1", "precision1"}
_TOP5 = {"top5", "acc5", "prec5", "accuracy5", "precision5", "topk"}
_WRONG = {"err", "error", "err1", "error1", "err5", "error5"}
_EPOCH = {"epoch", "epochs"}
_STEP = {"step", "steps", "iter", "iters", "iteration", "iterations", "batch", "batches", "update", "updates"}
# Words that say nothing about what a column is.
_FILLING = {"sparse", "categorical", "multiclass", "avg", "average", "mean", "total", "cross", "entropy", "global", "current"}
_FILLING |= {"model", "cls", "classification", "percent", "running", "learning", "pg0", "0", "sgd", "adam", "adamw", "nr", "num"}
# Words of what a machine tells: memory with its unit, pieces per second, waiting.
_MEMORY = {"memory", "mem", "ram", "rss", "vram", "gpumem", "allocated", "reserved", "mb", "gb", "mib", "gib"}
_PIECES = {"images", "image", "imgs", "img", "samples", "sample", "it", "its", "batches", "examples"}
_SECONDS = {"s", "sec", "second", "seconds"}
_WAITED = {"wait", "waiting", "waited", "stall"}
_UNITS = {
    "gb": 1e9,
    "gib": 2.0**30,
    "g": 1e9,
    "mb": 1e6,
    "mib": 2.0**20,
    "m": 1e6,
    "kb": 1e3,
    "kib": 2.0**10,
    "bytes": 1.0,
    "b": 1.0,
}
# Words of averaged weights in names of scores.
_AVERAGED = {"ema", "averaged", "swa", "polyak"}
_PERHAPS_AVERAGED = {"avg", "average", "mean", "teacher", "shadow"}
# Words of losses that are not those of a classifier, and of a second network.
_OTHER = {"box", "dfl", "obj", "mask", "seg", "pose", "l1", "l2", "reg", "penalty", "aux", "kl", "ema"}
_MISSING = {"", "-", "none", "null", "n/a", "na"}
# Columns that are none of ours whatever else their name says.
_NEVER = {"best", "max", "min", "time", "seconds"}
_SCORES = ("loss", "top1", "top5")
_SEPARATORS = ",;\t"
# Beyond it 32-bit floats are infinite, and so is a number of a table.
_LARGEST = 3.5e38
# Accuracies may lie outside 0..100 by so much, from rounding.
_ROUNDED = 1e-3
# With more rows than this for each epoch, they are rows of steps.
_ROWS_OF_AN_EPOCH = 1.5


# A row's line in the file, and its cells.
_Row = tuple[int, list[str]]


@dataclass(frozen=True)
class _Column:
    """What a column is. quantity: "train loss", "val top1", "lr", "epoch", "step". oddity: how unusual its name is."""

    place: int
    name: str
    quantity: str
    is_error: bool
    oddity: int


def read(path: Path, classes: int | None = None) -> History:
    """The history in a table: columns for epoch or step, for losses and accuracies of training and validation, for the rate.

    Separators are commas, semicolons or tabs; accuracies are 0..1 or percent. After a resume, which repeats epochs, the later
    rows count. classes: how many the data has, where that is known.
    Raises UserError for a file that is no such table, saying what was found and what is needed, and for accuracies outside
    0..100; DataError naming the row of a value that is no number.
    """
    header, rows = _rows(path)
    columns = _columns(header, rows)
    if not {"epoch", "step"} & columns.keys():
        raise UserError(f"{path}: {_found(header)} None of them is the epoch or the step; name one 'epoch'.")
    if not {"train loss", "val loss", "train top1", "val top1"} & columns.keys():
        raise UserError(
            f"{path}: {_found(header)} None of them is a loss or an accuracy: loss, val_loss, accuracy, val_accuracy."
        )
    if not rows:
        raise UserError(f"{path}: a header and no row below it. A row for each epoch (or step) is needed.")
    written = {name: _numbers(path, column, rows) for name, column in columns.items()}
    if not any(np.isfinite(written[name].values).any() for name in ("epoch", "step") if name in written):
        raise UserError(f"{path}: {len(rows)} rows, and none of them says its epoch or step.")
    told = [one for name, one in written.items() if name.endswith(_SCORES)]
    if not any(np.isfinite(one.values).any() or one.is_nan.any() for one in told):
        raise UserError(f"{path}: {len(rows)} rows, and none of them has a loss or an accuracy.")
    return _history(written, columns, classes)


# ---------------------------------------------------------------- the file


def _rows(path: Path) -> tuple[list[str], list[_Row]]:
    """The names of the columns, and the rows that hold something, each with its line number."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise UserError(f"{path}: {path.stat().st_size / 1e6:.0f} MB; a log of a training has some MB at most.")
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}. A CSV file with the log of a training is needed.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text, so no CSV file. Save it as CSV, UTF-8.") from error
    if "\0" in text:
        raise UserError(f"{path}: not a text file, so no CSV file. Save it as CSV, UTF-8.")
    lines = text.splitlines()
    first = next((line for line in lines if line.strip()), "")
    separator = max(_SEPARATORS, key=first.count)
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=True)
    found: list[_Row] = []
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                found.append((reader.line_num, cells))
    except csv.Error as error:
        raise UserError(f"{path}: line {reader.line_num} is no row of a CSV file ({error}).") from error
    if not found:
        raise UserError(f"{path}: empty. A header and a row for each epoch (or step) are needed.")
    header = [cell.lstrip("#").strip() for cell in found[0][1]]
    if all(_is_written_number(cell) for cell in header if cell):
        raise UserError(
            f"{path}: the first row has numbers only. Names of the columns are needed above them: epoch, loss, val_loss …"
        )
    # Some programs write their header again when they go on.
    return header, [(line, cells) for line, cells in found[1:] if cells != found[0][1]]


def _is_written_number(cell: str) -> bool:
    try:
        _number(cell)
    except ValueError:
        return False
    return True


def _number(cell: str) -> float:
    """A number as tables have them: Python's float, but without its underscores. Raises ValueError."""
    if "_" in cell:
        raise ValueError(cell)
    return float(cell)


def _found(header: Sequence[str]) -> str:
    names = ", ".join(name for name in header[:12] if name) or "no names"
    return f"the columns are {printable(names)[:300]}{' …' if len(header) > 12 else ''}."


@dataclass(frozen=True)
class _Written:
    """The numbers of a column, NaN where a cell is empty; is_nan: where NaN or infinity is written."""

    values: Numbers
    is_nan: NDArray[np.bool_]


def _numbers(path: Path, column: _Column, rows: Sequence[_Row]) -> _Written:
    values = np.full(len(rows), np.nan)
    is_nan = np.zeros(len(rows), dtype=bool)
    for place, (line, cells) in enumerate(rows):
        cell = cells[column.place] if column.place < len(cells) else ""
        if cell.lower() in _MISSING:
            continue
        where = f"{path}: line {line}, column '{printable(column.name)[:80]}'"
        try:
            number = _number(_first(cell) if column.quantity in ("epoch", "step") else _plain(cell))
        except ValueError as error:
            raise DataError(f"{where}: '{printable(cell)[:80]}' is no number.") from error
        is_nan[place] = not abs(number) < _LARGEST
        if is_nan[place]:
            continue
        if column.quantity.endswith(("top1", "top5")):
            if not -_ROUNDED <= number <= 100 + _ROUNDED:
                raise UserError(
                    f"{where}: {printable(cell)[:80]} is no accuracy. Accuracies are 0..1 or 0..100 %; give a column of "
                    f"something else another name."
                )
            number = min(100.0, max(0.0, number))
        values[place] = number
    return _Written(values, is_nan)


def _plain(cell: str) -> str:
    """A number without the percent sign, "tensor(…)" around it, or a decimal comma (where semicolons separate)."""
    cell = cell.removesuffix("%").strip()
    if match := re.fullmatch(r"tensor\(([^,()]+).*\)", cell):
        cell = match[1]
    return cell.replace(",", ".") if cell.count(",") == 1 and "." not in cell else cell


def _first(cell: str) -> str:
    """The first number of "0/20" or "[0/20]", as programs print an epoch or a step."""
    match = re.fullmatch(r"\[?\s*([^\s/]+)\s*/\s*\d+\s*\]?", cell)
    return _plain(match[1] if match else cell)


# ---------------------------------------------------------------- which column is what


def _columns(header: Sequence[str], rows: Sequence[_Row]) -> dict[str, _Column]:
    """The column of each quantity; of several that could be it, the one with the plainest name, then with the most cells."""
    best: dict[str, tuple[tuple[int, int], _Column]] = {}
    for place, name in enumerate(header):
        column = _column(place, name)
        if column is None:
            continue
        cells = sum(place < len(row) and row[place].lower() not in _MISSING for _, row in rows)
        worth = (-column.oddity, cells)
        if column.quantity not in best or worth > best[column.quantity][0]:
            best[column.quantity] = (worth, column)
    found = {quantity: column for quantity, (_, column) in best.items()}
    for place, name in enumerate(header):  # "val_acc_avg" is of averaged weights where there is a "val_acc" beside it
        column = _column(place, name)
        if column is None or column == found.get(column.quantity) or not set(_words(name)) & _PERHAPS_AVERAGED:
            continue
        split, _, score = column.quantity.partition(" ")
        if split == "val" and score in _SCORES:
            found.setdefault(f"averaged {score}", replace(column, quantity=f"averaged {score}"))
    return found


def _words(name: str) -> list[str]:
    """The words of a column's name: "train/lossEpoch" is train, loss, epoch; "Acc@1" is acc1, "top_5_acc" is top5, acc."""
    name = re.sub(r"(?<![A-Za-z])[KMG]i?B(?![A-Za-z])", lambda unit: unit[0].lower(), name.strip())
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()
    name = re.sub(r"(top|acc|accuracy|prec|precision|err|error)[@_\- ]*([15k])(?![a-z0-9])", r"\1\2", name)
    return [word for word in re.split(r"[^a-z0-9]+", name) if word]


def _column(place: int, name: str) -> _Column | None:
    words = _words(name)
    known = set(words)
    strange = len(known - _SCORED - _TRAINED - _LOSS - _TOP1 - _TOP5 - _WRONG - _FILLING - _EPOCH - _STEP - {"lr", "rate"})
    oddity = 2 * strange + len(known & (_FILLING | {"test", "testing"})) + 3 * len(known & _OTHER)
    split = "val" if known & _SCORED else "train"
    if (machine := _machine_quantity(known)) is not None:
        return _Column(place, name, machine, False, oddity)
    if split == "val" and known & _AVERAGED:  # scores of averaged weights, beside those of the raw ones
        split, oddity = "averaged", oddity - (3 if "ema" in known else 2)
    others = known & _OTHER - (_AVERAGED if split == "averaged" else set())
    if known & _NEVER or (others and not known & (_TOP1 | _TOP5)):
        return None
    if known & _TOP5:
        return _Column(place, name, f"{split} top5", bool(known & _WRONG), oddity)
    if known & _WRONG and strange and not known & _TOP1:
        return None  # "mean squared error" is no share of wrong answers
    if known & (_TOP1 | _WRONG):
        return _Column(place, name, f"{split} top1", bool(known & _WRONG), oddity)
    if known & _LOSS or {"cross", "entropy"} <= known:
        return _Column(place, name, f"{split} loss", False, oddity)
    if "lr" in known or {"learning", "rate"} <= known or "learningrate" in known:
        return _Column(place, name, "lr", False, oddity)
    for quantity, names in (("epoch", _EPOCH), ("step", _STEP)):
        if known & names and not strange and not known & _SCORED:
            return _Column(place, name, quantity, False, oddity)
    return None


def _machine_quantity(known: Set[str]) -> str | None:
    """What a column says of the machine, by the words of its name; None for one that says nothing of it."""
    if known & _MEMORY and not known & {"loss", "total", "free", "available", "limit", "disk", "file", "size"}:
        return "memory"
    if known & {"throughput", "ips", "fps"} or (known & _PIECES and known & _SECONDS and not known & _LOSS):
        return "images_per_s"
    if known & _WAITED or ("data" in known and known & {"time", "wait", "waiting"}):
        return "data seconds" if known & {"time", "seconds", "s"} else "wait_share"
    if known & {"elapsed", "walltime", "wall", "relative"}:
        return "elapsed_s"
    if known & {"time", "seconds", "duration", "secs", "sec"} and not known & (
        _LOSS | _TOP1 | {"eta", "left", "remaining", "stamp"}
    ):
        return "seconds"
    return None


# ---------------------------------------------------------------- the history


def _history(written: Mapping[str, _Written], columns: Mapping[str, _Column], classes: int | None) -> History:
    kept = _not_repeated(next(written[name].values for name in ("step", "epoch") if _is_told(written, name)))
    numbers = {name: one.values[kept] for name, one in written.items()}
    count = len(kept)
    epoch = _carried(numbers.get("epoch", np.full(count, np.nan)))
    step = _carried(numbers["step"]) if _is_told(written, "step") else epoch
    shares = _shares(numbers, columns)
    history = History(None, classes, is_by_epoch=_is_by_epoch(epoch, numbers))
    scored, averaged = Columns(), Columns()
    machine = _machine(numbers, columns, step, history.is_by_epoch)
    for place in range(count):
        row = {"step": step[place], "epoch": epoch[place], "lr": numbers["lr"][place] if "lr" in numbers else math.nan}
        train, val = (_of_split(shares, split, place) for split in ("train", "val"))
        is_scored = any(map(math.isfinite, val.values()))
        if is_scored:
            scored.append(row | val)
        if any(map(math.isfinite, (mean := _of_split(shares, "averaged", place)).values())):
            averaged.append(row | mean)
        if not is_scored or not train or any(map(math.isfinite, train.values())):
            history.steps.append(row | train | {name: float(values[place]) for name, values in machine.items()})
    if len(scored):
        history.evaluations[("val", "raw")] = scored
    if len(averaged) and len(scored):
        history.evaluations[("val", "EMA")] = averaged
    for name in ("train loss", "val loss"):
        if name in written:
            rows = _broken(numbers[name], written[name].is_nan[kept])
            history.broken += [(int(step[row]) if math.isfinite(step[row]) else 0, columns[name].name) for row in rows]
    return history


def _of_split(shares: Mapping[str, Numbers], split: str, place: int) -> dict[str, float]:
    return {name: float(shares[f"{split} {name}"][place]) for name in _SCORES if f"{split} {name}" in shares}


def _machine(
    numbers: Mapping[str, Numbers], columns: Mapping[str, _Column], step: Numbers, is_by_epoch: bool
) -> dict[str, Numbers]:
    """What the table tells of the machine, under the names that records of striate have."""
    found = {name: numbers[name] for name in ("images_per_s", "elapsed_s", "wait_share") if name in numbers}
    if "memory" in numbers:
        found["memory_bytes"] = numbers["memory"] * _unit(columns["memory"], numbers["memory"])
    if "seconds" in numbers:
        seconds = numbers["seconds"]
        known = seconds[np.isfinite(seconds)]
        is_running = len(known) > 2 and bool((np.diff(known) > 0).all()) and known[-1] > 2 * known[0]
        # A clock that runs on, or the length of each row: a row that lasts longer than all before it together is no clock.
        if is_running and known[-1] - known[-2] < 0.7 * known[-1] and _is_even(known):
            found.setdefault("elapsed_s", seconds)
        else:
            with np.errstate(divide="ignore", invalid="ignore"):
                pace = np.where(seconds > 0, 1 / seconds, np.nan)
                if is_by_epoch:
                    found["epochs_per_s"] = pace
                if "data seconds" in numbers:
                    found["wait_share"] = numbers["data seconds"] * pace
    return found


def _is_even(clock: Numbers) -> bool:
    """Whether the first row took about as long as the next ones: a clock starts near 0, lengths of epochs start at a length."""
    steps = np.diff(clock)
    return bool(clock[0] < 4 * float(np.median(steps)))


def _unit(column: _Column, values: Numbers) -> float:
    """Bytes of one, by the name's unit; without one, by the size of the numbers: gigabytes, megabytes or bytes."""
    named = [_UNITS[word] for word in _words(column.name) if word in _UNITS]
    middle = level(values)
    return named[0] if named else 1e9 if middle < 512 else 1e6 if middle < 1e7 else 1.0


def _is_told(written: Mapping[str, _Written], name: str) -> bool:
    return name in written and bool(np.isfinite(written[name].values).any())


def _is_by_epoch(epoch: Numbers, numbers: Mapping[str, Numbers]) -> bool:
    """Whether a row stands for an epoch: there are not many more rows with a training loss than epochs."""
    if not np.isfinite(epoch).any():
        return False
    for name in ("train loss", "train top1"):
        if name in numbers and (has_one := np.isfinite(numbers[name])).any():
            return int(has_one.sum()) < _ROWS_OF_AN_EPOCH * len(np.unique(epoch[has_one]))
    return True


def _not_repeated(moments: Numbers) -> list[int]:
    """The rows that count: when the epoch (or step) goes back, what came at or after that before is superseded."""
    kept: list[int] = []
    last = -math.inf
    for place, moment in enumerate(moments.tolist()):
        if moment < last:
            kept = [row for row in kept if not moments[row] >= moment]
        if math.isfinite(moment):
            last = moment
        kept.append(place)
    return kept


def _carried(values: Numbers) -> Numbers:
    """Where a row does not say its epoch or step, it is that of the row before."""
    carried, last = values.copy(), math.nan
    for place, value in enumerate(values.tolist()):
        last = value if math.isfinite(value) else last
        carried[place] = last
    return carried


def _broken(values: Numbers, is_nan: NDArray[np.bool_]) -> list[int]:
    """Rows from which on a loss is written as NaN or infinite to the end.

    Between numbers, NaN is how some tables write a cell that is empty: what comes at the end must be longer than such a gap.
    """
    known = np.flatnonzero(np.isfinite(values))
    if not is_nan.any():
        return []
    if not len(known):
        return np.flatnonzero(is_nan).tolist()
    inside = [int(is_nan[first + 1 : second].sum()) for first, second in pairwise(known)]
    tail = np.flatnonzero(is_nan[known[-1] + 1 :]) + known[-1] + 1
    return tail.tolist() if len(tail) > max(inside, default=0) else []


def _shares(numbers: Mapping[str, Numbers], columns: Mapping[str, _Column]) -> dict[str, Numbers]:
    """Losses as they are, and accuracies as shares 0..1: those of a split are percent when one of them is."""
    result = {name: values for name, values in numbers.items() if name.endswith("loss")}
    for split in ("train", "val", "averaged"):
        names = [name for name in (f"{split} top1", f"{split} top5") if name in numbers]
        is_percent = any(_is_percent(numbers[name], numbers.get(f"{split} loss"), columns[name]) for name in names)
        for name in names:
            share = numbers[name] / 100 if is_percent else numbers[name]
            result[name] = 1 - share if columns[name].is_error else share
    return result


def _is_percent(values: Numbers, loss: Numbers | None, column: _Column) -> bool:
    """Whether accuracies are percent: above 1; or below it, where the loss says that guessing gives so much.

    0.5 at a loss of 5.3 is half a percent of 200 classes: with half of the images right the loss would be far lower.
    """
    values = values[np.isfinite(values)]
    if len(values) and (float(values.max()) > 1 or "%" in column.name or "percent" in column.name.lower()):
        return True
    middle = level(values)
    if loss is None or not middle > 0 or column.is_error:
        return False
    return abs(level(loss) - math.log(100 / middle)) < 0.02 * level(loss)

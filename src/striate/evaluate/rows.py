"""The table of the `predict` verb: one row for each image in the order it was given, the bad ones with their reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from striate.errors import DataError
from striate.evaluate import metrics
from striate.evaluate.score import Bad, csv_text
from striate.predictions import Predictions


@dataclass(frozen=True)
class Rank:
    """One guess: the class's id, the name to show, and its probability in 0..1."""

    class_id: str
    name: str
    probability: float


@dataclass(frozen=True)
class Row:
    """What is said about one image: its best classes, best first, or the reason why it could not be read."""

    key: str
    ranks: tuple[Rank, ...]
    reason: str = ""

    @property
    def status(self) -> str:
        return "bad" if self.reason else "ok"


def prediction_rows(predictions: Predictions, bad: Bad, keys: Sequence[str], top: int = 5) -> list[Row]:
    """The `top` best classes (at most K) of each image.

    keys: all images in the order of the input; one named twice has two rows.
    Raises DataError when an image is neither in `predictions` nor in `bad`.
    """
    reasons = dict(bad)
    place = {key: row for row, key in enumerate(predictions.keys)}
    best = metrics.top_k(predictions.scores, top)
    rows = []
    for key in keys:
        if key in place:
            i = place[key]
            rows.append(Row(key, _ranks(predictions, i, best[i])))
        elif key in reasons:
            rows.append(Row(key, (), reasons[key] or "cannot be read"))
        else:
            raise DataError(f"{key}: neither scored nor reported as bad; the predictions belong to other images.")
    return rows


def _ranks(predictions: Predictions, row: int, best: np.ndarray) -> tuple[Rank, ...]:
    probabilities = np.exp(metrics.log_probabilities(predictions.scores[row : row + 1]))[0]
    classes = predictions.classes
    return tuple(Rank(classes.ids[i], classes.title(i), float(probabilities[i])) for i in best.tolist())


def rows_csv(rows: Sequence[Row], top: int = 5) -> str:
    """CSV with the columns key, status, reason, then rank1_id, rank1_name, rank1_probability, and so on.

    top: ranks to give columns when every image is bad; otherwise as many as the rows have.
    """
    ranked = range(max((len(row.ranks) for row in rows), default=0) or top)
    header = ["key", "status", "reason", *(f"rank{i + 1}_{what}" for i in ranked for what in ("id", "name", "probability"))]
    table: list[Sequence[object]] = [header]
    for row in rows:
        cells = [cell for rank in row.ranks for cell in (rank.class_id, rank.name, f"{rank.probability:.6f}")]
        table.append([row.key, row.status, row.reason, *cells, *[""] * (3 * len(ranked) - len(cells))])
    return csv_text(table)

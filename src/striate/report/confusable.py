"""Pairs of classes that are mistaken for each other, with pictures of the mistakes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from striate.predictions import Predictions
from striate.report import ranking, sections
from striate.report.gather import Facts

PAIRS, PICTURES = 6, 4
_PICTURE_PX = 160


@dataclass(frozen=True)
class ShownPair:
    """A pair, and some of the images that were taken for the other class (none without saved predictions)."""

    pair: ranking.MutualPair
    mistakes: list[sections.ShownMistake]


def pairs(facts: Facts, counts_KK: np.ndarray, said: Predictions | None) -> list[ShownPair]:
    """The pairs of the main evaluation that stand out, the worst first, each with up to four mistakes, the surest first."""
    split = facts.splits.get(facts.main.split) if facts.main else None
    shown = []
    for pair in ranking.mutual_pairs(counts_KK, PAIRS):
        found = ranking.mistakes_between(said, pair, PICTURES) if said is not None else []
        shown.append(
            ShownPair(pair, [sections.ShownMistake(sections.picture(facts, split, one.key, _PICTURE_PX), one) for one in found])
        )
    return shown

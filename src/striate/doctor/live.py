"""The doctor beside a training: each record goes into the history, and the rules are asked again when there is something new.

Costs a small share of the training's time, and never more than that: rules are not asked while they have taken more.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Mapping
from typing import Any

from striate.doctor import examination
from striate.doctor.finding import Finding
from striate.doctor.history import History
from striate.recipe import Recipe
from striate.run.log import Record

# Most of the training's time; the limit that is promised is 0.01.
SHARE = 0.005
# Rules are asked after so many records of steps, after twice as many, and so on by this factor, and at each evaluation.
FIRST, FACTOR = 8, 1.3
# Findings that say something about the end are not told while the training goes on.
AT_THE_END = ("evaluation-size", "never-decayed", "rate-too-low", "plateau")


class Live:
    """What the doctor knows of a training that runs. earlier: records of former sittings."""

    def __init__(self, recipe: Recipe, earlier: Iterable[Mapping[str, Any]] = ()) -> None:
        earlier = list(earlier)
        self._history = History.of_records(earlier, recipe)
        self._told = {str(one.get("code")) for one in earlier if one.get("kind") == "finding"}
        self._since, self._next = 0, FIRST
        self._began = time.monotonic()
        self._spent_s = 0.0

    def observe(self, record: Record) -> list[Finding]:
        """Takes in a record; returns what is found anew, of severity warning or error."""
        began = time.monotonic()
        self._history.observe(record)
        self._since += record.kind == "step"
        is_due = record.kind in ("evaluation", "skip") or self._since >= self._next
        found: list[Finding] = []
        if is_due and self._spent_s <= SHARE * (began - self._began):
            if self._since >= self._next:
                self._since, self._next = 0, int(self._next * FACTOR) + 1
            with contextlib.suppress(Exception):  # the training goes on; the whole log is judged at its end, where it is said
                found = self._news()
        self._spent_s += time.monotonic() - began
        return found

    @property
    def spent_s(self) -> float:
        """Seconds that the doctor took so far."""
        return self._spent_s

    def _news(self) -> list[Finding]:
        news = []
        for finding in examination.after(self._history):
            if finding.severity != "note" and finding.code not in self._told and finding.code not in AT_THE_END:
                self._told.add(finding.code)
                news.append(finding)
        return news

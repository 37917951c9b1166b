"""Examination: rules run one after the other until time is up; what was found, what was in order, what was not looked at."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

from striate.data.index import Index
from striate.doctor import page
from striate.doctor.catalog import BEFORE, DURING, PREDICTED, Rule
from striate.doctor.finding import EXPLAINS, Finding, NotJudged, ranked
from striate.doctor.history import History
from striate.doctor.patient import Patient
from striate.errors import CheckpointError
from striate.predictions import Predictions

# Rules before a training that clear a cause when they find nothing, and what is left of its weight then.
CLEARS = {"labels-shuffled": "labels-shuffled", "input-scale": "not-normalised"}
CLEARED = 0.3


@dataclass(frozen=True)
class Examination:
    """What the doctor says. A sequence of its findings, the most important first.

    checked: rules that ran, by code, with what is in order where they found nothing. unchecked: rules that did not run, with the
    reason. seconds: what it took.
    """

    findings: tuple[Finding, ...]
    checked: Mapping[str, str]
    unchecked: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __len__(self) -> int:
        return len(self.findings)

    def __getitem__(self, place: int) -> Finding:
        return self.findings[place]

    def __str__(self) -> str:
        return "\n".join(page.lines(self.findings, self.in_order, self.unchecked))

    __repr__ = __str__

    @property
    def is_ill(self) -> bool:
        """Whether there is a finding of severity warning or error."""
        return any(finding.severity != "note" for finding in self.findings)

    @property
    def in_order(self) -> list[str]:
        """What was checked and is in order, in words."""
        found = {finding.rule or finding.code for finding in self.findings}
        return [words for code, words in self.checked.items() if code not in found]

    def to_json(self) -> dict[str, Any]:
        """As `findings.json` holds it: findings, checked, unchecked, seconds."""
        return {
            "findings": [finding.to_json() for finding in self.findings],
            "checked": dict(self.checked),
            "unchecked": dict(self.unchecked),
            "seconds": round(self.seconds, 3),
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any], where: str) -> Examination:
        """The examination of `to_json`. Raises CheckpointError when the file holds none."""
        try:
            findings = tuple(Finding.from_json(one, where) for one in plain["findings"])
            return cls(findings, dict(plain["checked"]), dict(plain["unchecked"]), float(plain["seconds"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(
                f"{where}: not an examination of striate ({error!r}). Delete it: it is written anew."
            ) from error

    def joined(self, other: Examination) -> Examination:
        """Both in one, ranked anew; of two findings of one rule the other's counts."""
        codes = {finding.code for finding in other.findings}
        found = {finding.rule for finding in self.findings}
        cleared = {cause for code, cause in CLEARS.items() if code in self.checked and code not in found}
        later = [_without(finding, cleared) for finding in other.findings]
        kept = [dataclasses.replace(one, follows=None) for one in self.findings if one.code not in codes]
        checked = {**self.checked, **other.checked}
        unchecked = {code: why for code, why in {**self.unchecked, **other.unchecked}.items() if code not in checked}
        return Examination(tuple(ranked([*kept, *later])), checked, unchecked, self.seconds + other.seconds)


def before(patient: Patient, rules: Mapping[str, Rule] = BEFORE, stopped: Callable[[], str | None] = lambda: None) -> Examination:
    """Examines a network before its training: rules in the order of their worth, until `patient.seconds` are used up.

    stopped: asked between two rules; a reason ends the examination. A rule that fails is named with its error among the
    unchecked ones: the doctor never ends a training.
    """
    findings: list[Finding] = []
    checked: dict[str, str] = {}
    unchecked: dict[str, str] = {}
    for code, rule in rules.items():
        why = stopped() or _hindrance(code, rule, findings, patient)
        if why is not None:
            unchecked[code] = why
            continue
        try:
            finding = rule.check(patient)
        except NotJudged as outcome:
            unchecked[code] = str(outcome)
            continue
        except Exception as error:  # told, not raised: see above
            unchecked[code] = _failure(error)
            continue
        checked[code] = rule.checks
        if finding is not None:
            findings.append(dataclasses.replace(finding, rule=code))
    return Examination(tuple(ranked(findings)), checked, unchecked, time.monotonic() - patient.began)


def refused(finding: Finding) -> Examination:
    """Of a training that cannot begin: the one finding that says why, and nothing else was looked at."""
    unchecked = {code: "the training would not begin" for code in BEFORE}
    return Examination((dataclasses.replace(finding, rule=finding.code),), {finding.code: "the training begins"}, unchecked)


def after(history: History, predictions: Predictions | None = None, index: Index | None = None) -> Examination:
    """Examines what a training told, and what its network said about held-out images where that is given with their index."""
    began = time.monotonic()
    findings: list[Finding] = []
    checked: dict[str, str] = {}
    unchecked: dict[str, str] = {}

    def run(code: str, words: str, check: Callable[[], Finding | None]) -> None:
        try:
            finding = check()
        except NotJudged as outcome:
            unchecked[code] = str(outcome)
            return
        except Exception as error:  # told, not raised, as before a training
            unchecked[code] = _failure(error)
            return
        checked[code] = words
        if finding is not None:
            findings.append(dataclasses.replace(finding, rule=code))

    for code, (check, words) in DURING.items():
        run(code, words, functools.partial(check, history))
    for code, (look, words) in PREDICTED.items():
        if predictions is None:
            unchecked[code] = "no saved predictions"
        else:
            run(code, words, functools.partial(look, predictions, index))
    return Examination(tuple(ranked(findings)), checked, unchecked, time.monotonic() - began)


def _without(finding: Finding, cleared: Set[str]) -> Finding:
    """The finding with less weight on causes that were looked at before the training and are in order."""
    causes = [
        dataclasses.replace(cause, weight=CLEARED * cause.weight) if cause.name in cleared else cause for cause in finding.causes
    ]
    return dataclasses.replace(finding, causes=tuple(causes))


def _failure(error: Exception) -> str:
    return f"{page.FAILED}{type(error).__name__}: {(str(error) or '-').splitlines()[0]}"


def _hindrance(code: str, rule: Rule, findings: list[Finding], patient: Patient) -> str | None:
    """Why a rule cannot run; None where it can. One that takes steps does not where its answer would follow from an error."""
    by_code = {finding.code: finding for finding in findings}
    if rule.needs != "data" and "forward-pass" in by_code:
        return "the network does not run, or its loss"
    if rule.needs == "loss" and "head-size" in by_code and by_code["head-size"].severity == "error":
        return "labels lie outside the network's outputs"
    explained = [one.code for one in findings if one.severity == "error" and code in EXPLAINS.get(one.code, ())]
    if rule.passes > 1 and explained:
        return f"it would follow from {explained[0]}"
    if patient.left_s <= rule.passes * patient.pass_s + rule.seconds:
        return "no time left"
    return None

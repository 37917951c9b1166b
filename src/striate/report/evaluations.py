"""All evaluations of a run beside each other: what each of them scored, in columns, so that like is compared with like."""

from __future__ import annotations

import re
from dataclasses import dataclass

from striate.report.gather import Evaluation, Facts
from striate.report.history import interval, number


@dataclass(frozen=True)
class Row:
    """One evaluation. Shares 0..1, loss in nats; None where the summary does not say.

    looking: how the images were looked at, or how several networks answered together; members: which those were.
    is_main: whether the rest of the page is about it.
    """

    name: str
    is_main: bool
    split: str
    images: str
    looking: str
    members: str
    labels: str
    weights: str
    checkpoint: str
    top1: float | None
    interval: tuple[float, float] | None
    top5: float | None
    top5_k: int
    loss: float | None
    protocol: str


def rows(facts: Facts) -> list[Row]:
    """The main evaluation first; then those of the same images, one network before several, by labels, checkpoint and views."""
    main = facts.main

    def order(one: Evaluation) -> tuple[bool, bool, str, bool, bool, str, float, str, str]:
        return (
            one is not main,
            main is not None and _scored(one) != _scored(main),
            f"{one.split} {_fingerprint(one)}",
            bool(one.answered_by),
            one.labels != "original",
            one.labels,
            _step(str(one.summary.get("checkpoint") or "")),
            str(one.summary.get("weights") or ""),
            one.folder.name,
        )

    return [_row(one, one is main) for one in sorted(facts.evaluations, key=order)]


def notes(facts: Facts) -> list[str]:
    """What forbids to compare all lines with each other: other images, or other labels."""
    sets = {(one.split, _fingerprint(one)) for one in facts.evaluations if _fingerprint(one)}
    said = []
    if len({_scored(one) for one in facts.evaluations}) > 1:
        said.append("Not all of these scored the same images: compare lines whose split and number of images agree.")
    if len(sets) > len({split for split, _ in sets}):
        said.append("Two data sets have a split of the same name; the lines of the run's own come first.")
    if len({one.labels for one in facts.evaluations}) > 1:
        said.append("Not all of these were scored by the same labels.")
    return said


def _row(one: Evaluation, is_main: bool) -> Row:
    summary = one.summary
    used, expected, k = (number(summary.get(name)) for name in ("used", "expected", "top5_k"))
    how, _, members = one.answered_by.partition(": ")
    routing = str(summary.get("routing") or "")
    return Row(
        name=one.folder.name,
        is_main=is_main,
        split=one.split,
        images="" if used is None else f"{used:,.0f}" + (f" of {expected:,.0f}" if expected and expected != used else ""),
        looking=how or str(summary.get("looking") or {"center": "1 view"}.get(one.views, one.views)),
        members=members or routing,
        labels=one.labels,
        weights="" if how else str(summary.get("weights") or ""),
        checkpoint="" if how else str(summary.get("checkpoint") or ""),
        top1=number(summary.get("top1")),
        interval=interval(summary.get("top1_interval")),
        top5=number(summary.get("top5")),
        top5_k=int(k) if k else 5,
        loss=number(summary.get("loss")),
        protocol=str(summary.get("protocol") or ""),
    )


def _fingerprint(one: Evaluation) -> str:
    return str(one.summary.get("data_fingerprint") or "")


def _scored(one: Evaluation) -> tuple[str, str, object]:
    """What tells the images of two evaluations apart, as far as their summaries say."""
    return one.split, _fingerprint(one), number(one.summary.get("used"))


def _step(checkpoint: str) -> float:
    """The step in a checkpoint's name, for sorting: step-90 goes before step-1000."""
    found = re.search(r"\d+$", checkpoint)
    return float(found[0]) if found else -1.0

"""Findings as a short calm page of text: what is wrong, the evidence, the likely causes, what to do; and what was in order."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from striate.doctor.finding import CAUSES, Curve, Finding
from striate.errors import printable

WIDTH = 110
# How the reason begins for which a rule that broke is not checked.
FAILED = "failed: "
# Of a list of numbers by layer in the evidence, so many are shown.
MOST_SHOWN = 6
_BARS = "▁▂▃▄▅▆▇█"


def lines(findings: Sequence[Finding], in_order: Sequence[str], unchecked: Mapping[str, str]) -> Iterator[str]:
    """The page, line by line. in_order: what was checked and is well; unchecked: rules that did not run, with the reason.

    Names of files, classes and columns come from strangers: what a terminal would obey is escaped.
    """
    yield from map(printable, _lines(findings, in_order, unchecked))


def _lines(findings: Sequence[Finding], in_order: Sequence[str], unchecked: Mapping[str, str]) -> Iterator[str]:
    has_failed = any(why.startswith(FAILED) for why in unchecked.values())
    if not findings:
        yield "Nothing found, but some rules failed: see below." if has_failed else "Nothing found."
    for number, finding in enumerate(findings):
        if number:
            yield ""
        yield from in_full(finding)
    if findings:
        yield ""
    yield from _wrapped("Checked and in order: " if findings else "Checked: ", f"{', '.join(in_order) or 'nothing'}.")
    by_reason: dict[str, list[str]] = {}
    for code, why in unchecked.items():
        by_reason.setdefault(why, []).append(code)
    for why, codes in by_reason.items():
        yield from _wrapped("Not checked: ", f"{', '.join(codes)} ({why}).")


def in_full(finding: Finding, causes: int = 3, remedies: int = 4) -> Iterator[str]:
    """A finding with its evidence, plot, likeliest causes and first remedies; one that follows from another in two lines."""
    head = f"{finding.severity}  {finding.code}" + (f"  (follows from {finding.follows})" if finding.follows else "")
    yield head
    yield from _wrapped("  ", finding.sentence)
    if finding.follows:
        return
    for name, value in finding.evidence.items():
        shown = value_in_words(value)
        if shown:
            yield from _wrapped(f"  {name}: ", shown)
    if finding.curve is not None:
        yield from _curve(finding.curve)
    for number, cause in enumerate(finding.causes[:causes], start=1):
        yield from _wrapped(
            f"  {'likely' if number == 1 else 'or    '} {cause.name}: ", f"{CAUSES[cause.name]} ({cause.because})"
        )
    for remedy in finding.remedies[:remedies]:
        yield from _wrapped("  try    ", remedy.advice)
        if remedy.changes:
            yield f"         {remedy.flags}"


def in_short(finding: Finding) -> str:
    """A finding in one line: what is wrong, the likeliest cause, and the first remedy as it is typed."""
    cause = f" Likely: {CAUSES[finding.cause]}." if finding.cause else ""
    flags = next((remedy.flags for remedy in finding.remedies if remedy.changes), "")
    return printable(f"Doctor: {finding.sentence}{cause}" + (f" Try {flags}" if flags else ""))


def value_in_words(value: Any) -> str:
    """A value of the evidence for people; empty where it is too long to be read in a line."""
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Mapping):
        items = [f"{name} {value_in_words(one)}" for name, one in value.items()]
        if len(items) > MOST_SHOWN:
            items = [*items[: MOST_SHOWN // 2], "…", *items[-(MOST_SHOWN // 2) :]]
        return ", ".join(items)
    if isinstance(value, (list, tuple)):
        items = [value_in_words(one) for one in value[:MOST_SHOWN]]
        return ", ".join([*items, f"… ({len(value):,} in all)"] if len(value) > MOST_SHOWN else items)
    return str(value)


def _curve(curve: Curve) -> Iterator[str]:
    """Each line of a small plot as a row of bars."""
    for name, values in curve.lines.items():
        bars = sparkline(values, curve.is_log)
        if bars:
            mark = f"; {curve.mark[1]}: {value_in_words(curve.mark[0])}" if curve.mark else ""
            yield from _wrapped(f"  {bars}  ", f"{name}{' (log)' if curve.is_log else ''} by {curve.x_label}{mark}")


def sparkline(values: Sequence[float | None], is_log: bool, most: int = 40) -> str:
    """Values as a row of bars, low to high; a point where one is missing. Longer rows are thinned out."""
    if len(values) > most:
        values = [values[round(place * (len(values) - 1) / (most - 1))] for place in range(most)]
    scaled = [_scaled(value, is_log) for value in values]
    known = [value for value in scaled if value is not None]
    if not known:
        return ""
    low, high = min(known), max(known)
    step = (high - low) / (len(_BARS) - 1) or 1.0
    return "".join("·" if value is None else _BARS[round((value - low) / step)] for value in scaled)


def _scaled(value: float | None, is_log: bool) -> float | None:
    if value is None or not math.isfinite(value) or (is_log and value <= 0):
        return None
    return math.log10(value) if is_log else value


def _wrapped(head: str, text: str) -> list[str]:
    indent = " " * min(len(head), 11)
    return textwrap.wrap(head + text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False) or [head]

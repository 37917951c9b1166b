"""Several networks on the same images: whether one is better, and how good they are together. Reads saved evaluations only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from striate.errors import UserError
from striate.evaluate import combine, score, stack
from striate.evaluate.combine import Members
from striate.evaluate.compare import Comparison, Measure, difference
from striate.evaluate.held_out import held_out
from striate.evaluate.saved import Saved
from striate.files import sha256_bytes
from striate.predictions import UNLABELLED, Predictions
from striate.view import View

How = Literal["arithmetic", "geometric", "weighted", "stacking", "greedy"]
_MEASURES: tuple[Measure, ...] = ("top-1", "top-5", "loss")
# Members that a greedy selection takes at most, counted with repetition.
_GREEDY_STEPS = 20


def compared(members: Sequence[Saved]) -> list[Comparison]:
    """Every further member against the first: top-1, top-5 and loss. Raises as `compare.difference`; UserError for one alone."""
    if len(members) < 2:
        raise UserError("--compare: give two or more runs or evaluations.")
    names = names_of(members)
    first = members[0]
    found: list[Comparison] = []
    for name, other in zip(names[1:], members[1:], strict=True):
        _refuse_same(names[0], first, name, other)
        pair = first.predictions, other.predictions
        found += [difference(*pair, measure, (names[0], name)) for measure in _MEASURES]
    return found


def _refuse_same(name: str, first: Saved, other_name: str, other: Saved) -> None:
    same = first.predictions.scores.shape == other.predictions.scores.shape
    if same and np.array_equal(first.predictions.scores, other.predictions.scores):
        raise UserError(f"{name} and {other_name}: the same predictions twice; there is nothing to compare.")


@dataclass(frozen=True, eq=False)
class Combined:
    """Members that answer together.

    summary, folder: as of any evaluation. of_members: (name, top-1) of each, on the images that the score is of.
    gains: top-1 by number of members. correlation: [M, M] of their errors. words: what was chosen, where anything was.
    """

    summary: score.Summary
    folder: Path
    of_members: tuple[tuple[str, float], ...]
    gains: tuple[combine.Gain, ...]
    correlation: np.ndarray
    words: str

    def lines(self) -> list[str]:
        """For people: each member, the gain with their number, how alike their errors are, what was chosen."""
        said = [f"  {name}: top-1 {top1:.2%}" for name, top1 in self.of_members]
        curve = ", ".join(f"{gain.members}: {gain.mean:.2%}" for gain in self.gains)
        said.append(f"  mean top-1 by number of members: {curve}")
        pairs = self.correlation[np.triu_indices(len(self.correlation), 1)]
        known = pairs[np.isfinite(pairs)]  # none beside a member that is never wrong, or always
        if len(known):
            said.append(f"  correlation of errors between members: {known.mean():.2f} on average (1: the same images are wrong)")
        return said + ([f"  {self.words}"] if self.words else [])


def combined(members: Sequence[Saved], how: How, common: bool = False, out: Path | None = None) -> Combined:
    """Scores several evaluations as one network, and writes it as an evaluation beside that of the first member.

    how: the mean of probabilities or of logits; with weights, by stacking or by greedy selection, which are chosen on half of the
    images and scored on the other. common: keep the images that all members have. out: where the evaluation's folder goes, by
    default beside that of the first member, and for a file of predictions alone beside the file.
    Raises UserError and DataError as `combine.aligned` and `stack`.
    """
    if how not in get_args(How):
        raise UserError(f"--combine {how}: expected one of {', '.join(get_args(How))}.")
    if len(members) < 2:
        raise UserError("--combine: give two or more runs or evaluations.")
    names = names_of(members)
    joined = combine.aligned([one.predictions for one in members], names, common)
    judged, answers, words = _answers(joined, how)
    first = members[0].summary or {}
    view = View.from_json(first["view"]) if "view" in first else View(1, "squash", 1, "bilinear", False, (0.5,) * 3, (0.5,) * 3)
    listing = ", ".join(f"{name} ({_looking(one)})" for name, one in zip(names, members, strict=True))
    answered_by = f"{_WORDS[how]} of {len(members)} members: {listing}"
    if joined.dropped:
        answered_by += f"; {joined.dropped:,} images left out that not all have"
    protocol = score.Protocol(
        split=str(first.get("split", "val")),
        view=view,
        weights="raw",
        precision=str(first.get("precision", "")),
        views=how,
        labels="original",  # an evaluation's predictions keep the data set's own labels, whatever it was scored by
        subset=bool(first.get("classes_scored", 0) < first.get("classes", 0)) or len(judged.keys) < len(joined.keys),
        data_fingerprint=str(first.get("data_fingerprint", "")),
        stored=str(first.get("stored", "")),
        answered_by=answered_by + (f"; {words}" if words else ""),
    )
    # Of images that chose weights none counts, and neither do those that could not be read.
    answered = set(answers.keys)
    kept = [one for one in members[0].bad if one[0] not in answered] if len(judged.keys) == len(joined.keys) else []
    numbers = _numbers(members[0], answers)
    summary = score.score(answers, len(answers) + len(kept), kept, protocol, None, numbers)
    digest = sha256_bytes("\n".join([how, *(_digest(one) for one in members)]).encode())
    beside = members[0].folder if members[0].summary is None else members[0].folder.parent
    home = out if out is not None else beside
    folder = home / score.evaluation_name(protocol, protocol.data_fingerprint, digest)
    rows = judged.with_label()
    of_members = tuple(
        (name, float((scores_NK[rows].argmax(1) == judged.labels[rows]).mean()))
        for name, scores_NK in zip(judged.names, judged.scores, strict=True)
    )
    gains = tuple(combine.gain_curve(judged))
    correlation = combine.error_correlation(judged)
    tables = {"members.csv": _members_csv(of_members, correlation), "gains.csv": _gains_csv(gains)}
    score.write_evaluation(folder, summary, answers, kept, None, numbers, tables)
    return Combined(summary, folder, of_members, gains, correlation, words)


def _members_csv(of_members: Sequence[tuple[str, float]], correlation: np.ndarray) -> str:
    """Each member with its top-1 and the correlation of its errors with those of each (empty where one is never wrong)."""
    rows: list[Sequence[object]] = [("member", "top1", *(f"errors with {name}" for name, _ in of_members))]
    for (name, top1), with_each in zip(of_members, correlation.tolist(), strict=True):
        rows.append((name, f"{top1:.6f}", *("" if np.isnan(one) else f"{one:.6f}" for one in with_each)))
    return score.csv_text(rows)


def _gains_csv(gains: Sequence[combine.Gain]) -> str:
    """Top-1 of the mean of so many members: its mean, least and most over the choices of them that were scored."""
    rows: list[Sequence[object]] = [("members", "choices", "mean", "lowest", "highest")]
    rows += [(one.members, one.subsets, f"{one.mean:.6f}", f"{one.lowest:.6f}", f"{one.highest:.6f}") for one in gains]
    return score.csv_text(rows)


_WORDS: dict[How, str] = {
    "arithmetic": "mean probability",
    "geometric": "mean of logits",
    "weighted": "weighted mean probability",
    "stacking": "linear stack",
    "greedy": "greedy selection",
}


def _answers(joined: Members, how: How) -> tuple[Members, Predictions, str]:
    """The members on the images that are scored, what they say together, and in words what was chosen."""
    if how == "arithmetic":
        return joined, combine.arithmetic(joined), ""
    if how == "geometric":
        return joined, combine.geometric(joined), ""
    for_fit_N = held_out(joined.keys, joined.labels)
    judged = joined.select(~for_fit_N & (joined.labels != UNLABELLED))
    chosen = f"chosen on {int(for_fit_N.sum()):,} images, scored on the other {len(judged.keys):,}"
    if how == "stacking":
        return judged, stack.stacked(judged, stack.stacking(joined, for_fit_N)), chosen
    weights_M = (
        stack.mixture(joined, for_fit_N) if how == "weighted" else stack.greedy(joined, for_fit_N, _GREEDY_STEPS)
    ).weights
    shown = ", ".join(f"{name} {weight:.3g}" for name, weight in zip(joined.names, weights_M.tolist(), strict=True))
    return judged, combine.weighted(judged, weights_M, int(for_fit_N.sum())), f"weights {shown}, {chosen}"


def names_of(members: Sequence[Saved]) -> list[str]:
    """A short name of each member: that of its run where these differ, else with its checkpoint, else with its evaluation."""
    runs = [(one.folder.parent.parent.name if one.summary is not None else "") or one.name for one in members]
    checkpoints = [f"{run}/{(one.summary or {}).get('checkpoint', '')}" for run, one in zip(runs, members, strict=True)]
    for names in (runs, checkpoints):
        if len(set(names)) == len(names):
            return names
    names = [f"{run}/{one.name}" for run, one in zip(runs, members, strict=True)]
    return names if len(set(names)) == len(names) else [f"{name} ({place})" for place, name in enumerate(names, start=1)]


def _looking(member: Saved) -> str:
    """How a member came to its answers, for the protocol."""
    known = member.summary
    if known is None:
        return "predictions alone"
    if known.get("answered_by"):
        return str(known["answered_by"])
    looking = known.get("looking", known.get("views", "1 view"))
    routing = f", {known['routing']}" if known.get("routing") else ""
    return f"{looking}, {known.get('weights', '')} weights of {known.get('checkpoint', '')}{routing}"


def _digest(member: Saved) -> str:
    return sha256_bytes(member.predictions.scores.tobytes())


def _numbers(member: Saved, answers: Predictions) -> dict[str, np.ndarray]:
    """The numbers of the first member's images, in the order of the answers."""
    place = {key: row for row, key in enumerate(member.predictions.keys)}
    rows = [place.get(key, -1) for key in answers.keys]
    return {name: np.where(np.array(rows) < 0, np.nan, number_N[rows]) for name, number_N in member.numbers.items()}

"""One answer from several networks: saved Predictions joined by image and class, averaged, routed, and how much they differ.

Nothing is learned here and no network is run; weights that are chosen on held-out images are in `stack`. Every entry of
the challenge was such an average, as Krizhevsky et al. 2012, section 6, and Szegedy et al. 2015, section 7, describe.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from striate import machine
from striate.classes import Classes, listed
from striate.errors import DataError, UserError, expect
from striate.evaluate import metrics
from striate.predictions import UNLABELLED, Predictions

_NUMBERS = 1 << 17  # worked on at once: in float64 they take 1 MiB, which stays in the cache; the whole is never copied

# ---------------------------------------------------------------- members


@dataclass(frozen=True, eq=False)
class Members:
    """What M networks said about the same N images, in the same order of images and of K classes.

    names: M, how messages and protocols call them. labels: [N] int64, -1 where no member has one.
    scores: M arrays of [N, K] float32, log-probabilities; minus infinity is allowed. protocols: M lines.
    dropped: images left out because not all members had them.
    Raises UserError when the parts do not fit together.
    """

    names: tuple[str, ...]
    keys: Sequence[str]
    labels: np.ndarray
    scores: tuple[np.ndarray, ...]
    classes: Classes
    protocols: tuple[str, ...]
    dropped: int = 0

    def __post_init__(self) -> None:
        if not len(self.names) == len(self.scores) == len(self.protocols) >= 2:
            counts = f"{len(self.names)} names, {len(self.scores)} scores, {len(self.protocols)} protocols"
            raise UserError(f"Members: expected two or more of each, found {counts}.")
        expect(self.labels, str(len(self.keys)), "labels")
        for name, scores_NK in zip(self.names, self.scores, strict=True):
            expect(scores_NK, f"{len(self.keys)} {len(self.classes)}", f"scores of {name}")

    def __len__(self) -> int:
        return len(self.names)

    def select(self, rows: np.ndarray) -> Members:
        """The same members on some images. rows: [L] positions or [N] bool."""
        positions = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        keys = [self.keys[int(row)] for row in positions]
        return replace(self, keys=keys, labels=self.labels[positions], scores=tuple(one[positions] for one in self.scores))

    def listing(self) -> str:
        """Which members, with their protocols: said once where all have the same."""
        if len(set(self.protocols)) == 1:
            shared = self.protocols[0]
            return ", ".join(self.names) + (f", each [{shared}]" if shared else "")
        return ", ".join(f"{name} [{line}]" for name, line in zip(self.names, self.protocols, strict=True))

    def with_label(self) -> np.ndarray:
        """Positions of the images that have a label. Returns [L] int64. Raises DataError when none has."""
        rows = np.flatnonzero(self.labels != UNLABELLED)
        if not len(rows):
            raise DataError(f"None of the {len(self.keys):,} images has a label, so nobody can tell which answers are right.")
        return rows

    def answers(self) -> np.ndarray:
        """The best class of each member for each image, ties by lower number. Returns [M, N] int64."""
        return np.stack([scores_NK.argmax(axis=1) for scores_NK in self.scores])


def aligned(members: Sequence[Predictions], names: Sequence[str] | None = None, common: bool = False) -> Members:
    """Joins saved predictions: images by key and classes by id, in the order of the first member, all as log-probabilities.

    A member may have been made with other views, in another order, as logits or as log-probabilities. A label that one
    member lacks is taken from the others. Scores that need no change are shared with the member, not copied.
    names: how to call the members, by default "member 1" and so on. common: keep the images that all members have,
    and count the others in `dropped`, where otherwise a missing image is an error.
    Raises UserError naming the member when there are fewer than two, classes or labels differ, images are missing, or two
    are the same predictions; DataError when a key stands twice or scores are no probabilities.
    """
    names = tuple(names) if names is not None else tuple(f"member {number + 1}" for number in range(len(members)))
    _check_names(names, len(members))
    first = members[0]
    for name, member in zip(names, members, strict=True):
        _check_classes(names[0], first.classes, name, member.classes)
    keys, dropped = _shared_keys(names, members, common)
    labels_N = np.full(len(keys), UNLABELLED, np.int64)
    scores: list[np.ndarray] = []
    for name, member in zip(names, members, strict=True):
        rows = _rows_of(member, keys)
        own_N = _renumbered(member.labels if rows is None else member.labels[rows], member.classes, first.classes)
        _check_labels(name, keys, labels_N, own_N, first.classes)
        labels_N = np.where(labels_N == UNLABELLED, own_N, labels_N)
        scores.append(_log_probabilities(member, rows, first.classes, name, keys))
    for one, other in itertools.combinations(range(len(names)), 2):
        if _is_same(scores[one], scores[other]):
            raise UserError(
                f"{names[one]} and {names[other]} are the same predictions twice: every score is equal. "
                "An average of a network with itself is that network: leave one out, or train it with another seed."
            )
    return Members(names, keys, labels_N, tuple(scores), first.classes, tuple(one.protocol for one in members), dropped)


# ---------------------------------------------------------------- averages


def arithmetic(members: Members) -> Predictions:
    """The mean of the members' probabilities, as its log.

    Source: Krizhevsky et al. 2012, section 6; Szegedy et al. 2015, section 7; He et al. 2016, section 4.1.
    """
    equal_M = np.full(len(members), 1 / len(members))
    return _mixed(members, equal_M, f"mean probability of {len(members)} members: {members.listing()}")


def weighted(members: Members, weights_M: np.ndarray, chosen_on: int = 0) -> Predictions:
    """A mixture: the members' probabilities times their weights, summed, as its log.

    weights_M: [M] zero or more, with sum 1. chosen_on: images whose labels chose the weights, for the protocol; a score
    counts on other images only (`held_out`).
    Raises UserError when the weights are not of this kind.
    """
    expect(weights_M, str(len(members)), "weights_M")
    if not (np.isfinite(weights_M).all() and (weights_M >= 0).all() and abs(float(weights_M.sum()) - 1) < 1e-6):
        raise UserError(
            f"Weights of members: expected numbers of zero or more with sum 1, found {np.round(weights_M, 6).tolist()}."
        )
    shares = ", ".join(f"{weight:.3f} {name}" for name, weight in zip(members.names, weights_M.tolist(), strict=True))
    source = f" chosen on {chosen_on:,} images" if chosen_on else ""
    return _mixed(members, weights_M, f"weighted mean probability ({shares}{source}): {members.listing()}")


def geometric(members: Members) -> Predictions:
    """The product of the members' probabilities to the power 1/M, made to sum to 1: the softmax of their mean logits.

    A class to which one member gives probability zero is out.
    Raises DataError when no class is left for an image.
    Source: Hinton 2002, section 1 (a product of experts).
    """
    scores_NK = np.empty_like(members.scores[0])
    for rows in row_slices(*scores_NK.shape):
        total = sum((one[rows].astype(np.float64) for one in members.scores), start=np.zeros(1)) / len(members)
        is_out = np.isneginf(total.max(axis=1))
        if is_out.any():
            key = members.keys[rows.start + int(is_out.argmax())]
            raise DataError(
                f"{key}: every class has probability zero with one member or another, so their product is no probability. "
                "Take the arithmetic mean."
            )
        scores_NK[rows] = metrics.log_probabilities(total)
    return combined(members, scores_NK, f"geometric mean of the probabilities of {len(members)} members: {members.listing()}")


def combined(members: Members, scores_NK: np.ndarray, protocol: str) -> Predictions:
    """Predictions for the members' images, from new log-probabilities [N, K] float32 and a line that says how they were made."""
    left_out = f" · {members.dropped:,} images left out that not all have" if members.dropped else ""
    return Predictions(members.keys, members.labels, scores_NK, "log-probabilities", members.classes, protocol + left_out)


# ---------------------------------------------------------------- routing


def routed(colour: Predictions, grey: Predictions, is_grey_N: np.ndarray) -> Predictions:
    """Grey images answered by one network (or average of networks), the others by another. In the order of `colour`.

    is_grey_N: [N] bool, of the images of `colour`. grey: must have the grey images, and may have more.
    Returns log-probabilities.
    Raises UserError when the classes or labels differ or `grey` lacks an image; DataError when a key stands twice.
    """
    expect(is_grey_N, str(len(colour)), "is_grey_N")
    if is_grey_N.dtype != np.bool_:
        raise UserError(f"is_grey_N: expected bool, found {is_grey_N.dtype}.")
    _check_classes("colour", colour.classes, "grey", grey.classes)
    for name, member in (("colour", colour), ("grey", grey)):
        _check_keys(name, member.keys)
    keys = [colour.keys[int(row)] for row in np.flatnonzero(is_grey_N)]
    known = set(grey.keys)
    missing = [key for key in keys if key not in known]
    if missing:
        raise UserError(
            f"The network for grey images has not seen {len(missing):,} of {len(keys):,} grey images: {listed(missing)}. "
            "Predict them with it."
        )
    rows = _rows_of(grey, keys)
    labels_G = _renumbered(grey.labels if rows is None else grey.labels[rows], grey.classes, colour.classes)
    _check_labels("grey", keys, colour.labels[is_grey_N], labels_G, colour.classes)
    scores_NK = _log_probabilities(colour, None, colour.classes, "colour", colour.keys)
    if scores_NK is colour.scores:
        scores_NK = scores_NK.copy()  # it is written to below
    scores_NK[is_grey_N] = _log_probabilities(grey, rows, colour.classes, "grey", keys)
    said = f"{len(keys):,} grey images by [{grey.protocol or 'grey'}], the {len(colour) - len(keys):,} others by "
    said += f"[{colour.protocol or 'colour'}]"
    return Predictions(colour.keys, colour.labels, scores_NK, "log-probabilities", colour.classes, said)


# ---------------------------------------------------------------- how much members differ


def error_correlation(members: Members) -> np.ndarray:
    """Correlation of being wrong, over the labelled images: 1 for mistakes on the same images, 0 for independent ones.

    Returns [M, M] float64 in -1..1; NaN beside a member that is never wrong, or always.
    Raises DataError without a label.
    """
    rows = members.with_label()
    wrong_ML = (members.answers()[:, rows] != members.labels[rows]).astype(np.float64)
    off_ML = wrong_ML - wrong_ML.mean(axis=1, keepdims=True)
    size_M = np.sqrt((off_ML * off_ML).sum(axis=1))
    with np.errstate(invalid="ignore"):
        return np.asarray(np.clip((off_ML @ off_ML.T) / np.outer(size_M, size_M), -1, 1))


def agreement(members: Members) -> np.ndarray:
    """Share of the images for which two members say the same, labelled or not. Returns [M, M] float64 in 0..1, 1 with itself."""
    answers_MN = members.answers()
    if not answers_MN.shape[1]:
        raise DataError("A share of the images on which members agree needs at least one image.")
    return np.stack([(answers_MN == own_N).mean(axis=1) for own_N in answers_MN])


@dataclass(frozen=True)
class Disagreement:
    """Two members on the labelled images: five counts that add up to them.

    same_mistake: both wrong, with one answer. other_mistakes: both wrong, with two answers.
    """

    first: str
    second: str
    both_right: int
    only_first: int
    only_second: int
    same_mistake: int
    other_mistakes: int


def disagreements(members: Members) -> list[Disagreement]:
    """One line for each pair of members, in their order. Raises DataError without a label."""
    rows = members.with_label()
    answers_ML, labels_L = members.answers()[:, rows], members.labels[rows]
    table = []
    for one, other in itertools.combinations(range(len(members)), 2):
        said, also = answers_ML[one], answers_ML[other]
        right, also_right = said == labels_L, also == labels_L
        neither = ~right & ~also_right
        counts = (
            right & also_right,
            right & ~also_right,
            ~right & also_right,
            neither & (said == also),
            neither & (said != also),
        )
        table.append(Disagreement(members.names[one], members.names[other], *(int(count.sum()) for count in counts)))
    return table


@dataclass(frozen=True)
class Gain:
    """Top-1 of the mean probability of `members` members: mean, lowest and highest over `subsets` choices of them.

    interval: Wilson, 95 %, of the one choice that has all members; None for fewer.
    """

    members: int
    subsets: int
    mean: float
    lowest: float
    highest: float
    interval: tuple[float, float] | None


def gain_curve(members: Members, most_subsets: int = 20) -> list[Gain]:
    """What each further member brings: top-1 of averages of 1, 2, … M members, on the labelled images.

    most_subsets: all choices of a size are scored where there are no more than this; else a sample of so many, always the same.
    Raises UserError unless most_subsets is 1 or more, DataError without a label.
    """
    if most_subsets < 1:
        raise UserError(f"most_subsets: expected 1 or more, found {most_subsets}.")
    labelled = members.with_label()
    of_size = [_subsets(len(members), size, most_subsets) for size in range(1, len(members) + 1)]
    right = [np.zeros(len(subsets), np.int64) for subsets in of_size]
    chosen = [
        np.stack([np.isin(np.arange(len(members)), subset) for subset in subsets]).astype(np.float64) for subsets in of_size
    ]
    width = (len(members) + most_subsets) * len(members.classes)
    for part in row_slices(len(labelled), width):
        rows = labelled[part]
        chances_MnK = np.exp(np.stack([one[rows] for one in members.scores]).astype(np.float64))
        for right_S, chosen_SM in zip(right, chosen, strict=True):
            said_Sn = np.tensordot(chosen_SM, chances_MnK, axes=1).argmax(axis=2)
            right_S += (said_Sn == members.labels[rows]).sum(axis=1)
    curve = []
    for size, right_S in enumerate(right, 1):
        top1_S = right_S / len(labelled)
        interval = metrics.wilson(int(right_S[0]), len(labelled)) if size == len(members) else None
        curve.append(Gain(size, len(top1_S), float(top1_S.mean()), float(top1_S.min()), float(top1_S.max()), interval))
    return curve


def _subsets(count: int, size: int, most: int) -> list[tuple[int, ...]]:
    """Choices of `size` of `count` members: all, or the first `most` different ones of a fixed stream."""
    if math.comb(count, size) <= most:
        return list(itertools.combinations(range(count), size))
    found: dict[tuple[int, ...], None] = {}
    for draw in itertools.count():
        shuffled = machine.permutation(0, f"subsets of {size}", draw, count)
        found[tuple(sorted(shuffled[:size].tolist()))] = None
        if len(found) == most:
            return list(found)
    raise AssertionError("an endless stream has ended")


# ---------------------------------------------------------------- inside


def row_slices(count: int, width: int) -> Iterator[slice]:
    """Slices of `count` rows, so many at a time that `width` float64 numbers for each row take 1 MiB or less together."""
    step = max(1, _NUMBERS // max(width, 1))
    return (slice(first, min(first + step, count)) for first in range(0, count, step))


def _mixed(members: Members, weights_M: np.ndarray, protocol: str) -> Predictions:
    """The log of a weighted sum of probabilities, with the largest taken out first, so that nothing underflows."""
    used = [(one, math.log(weight)) for one, weight in zip(members.scores, weights_M.tolist(), strict=True) if weight > 0]
    scores_NK = np.empty_like(members.scores[0])
    for rows in row_slices(*scores_NK.shape):
        highest = np.maximum.reduce([one[rows] for one, _ in used])
        # Where all say zero there is nothing to take out, and -inf - -inf would be NaN.
        highest = np.where(np.isneginf(highest), 0, highest).astype(np.float64)
        total = sum((np.exp(one[rows] - highest + log_weight) for one, log_weight in used), start=np.zeros(1))
        with np.errstate(divide="ignore"):
            scores_NK[rows] = np.log(total) + highest
    return combined(members, scores_NK, protocol)


def _check_names(names: tuple[str, ...], members: int) -> None:
    if members < 2:
        raise UserError(f"Combining takes two members or more, found {members}: name the predictions of another network too.")
    if len(names) != members or len(set(names)) != members:
        raise UserError(f"Combining {members} members takes a name of its own for each, found {listed(names)}.")


def _check_classes(first_name: str, first: Classes, name: str, other: Classes) -> None:
    extra = [one for one in other.ids if one not in first.index]
    missing = [one for one in first.ids if one not in other.index]
    if extra or missing:
        raise UserError(
            f"{name} does not have the classes of {first_name} (expected {len(first):,}, found {len(other):,}; matched by id): "
            f"missing {listed(missing) or 'none'}; unknown {listed(extra) or 'none'}. "
            "Combine networks that were trained on the same classes."
        )


def _check_keys(name: str, keys: Sequence[str]) -> None:
    twice = [key for key, count in Counter(keys).items() if count > 1]
    if twice:
        raise DataError(f"{name}: images that stand there more than once: {listed(twice)}. Evaluate each image once.")


def _shared_keys(names: tuple[str, ...], members: Sequence[Predictions], common: bool) -> tuple[Sequence[str], int]:
    """The images that all members have, in the order of the first, and how many images only some have."""
    for name, member in zip(names, members, strict=True):
        _check_keys(name, member.keys)
    known = [set(member.keys) for member in members]
    anywhere = dict.fromkeys(itertools.chain.from_iterable(member.keys for member in members))
    everywhere = set.intersection(*known)
    if not everywhere:
        shown = "; ".join(f"{name} has {listed(list(one.keys)[:1]) or 'none'}" for name, one in zip(names, members, strict=True))
        raise UserError(
            f"The members have no image in common: {shown}. Predict the same images, from the same folder, with each."
        )
    if not common:
        for name, own in zip(names, known, strict=True):
            missing = [key for key in anywhere if key not in own]
            if missing:
                raise UserError(
                    f"{name}: {len(missing):,} images are missing that other members have: {listed(missing)}. Predict them, or "
                    f"keep the {len(everywhere):,} images that all have (common)."
                )
    return [key for key in members[0].keys if key in everywhere], len(anywhere) - len(everywhere)


def _rows_of(member: Predictions, keys: Sequence[str]) -> np.ndarray | None:
    """Where the member has these images: [N] int64, or None when they are its rows as they stand."""
    if list(member.keys) == list(keys):
        return None
    places = {key: row for row, key in enumerate(member.keys)}
    return np.array([places[key] for key in keys], np.int64)


def _renumbered(labels_N: np.ndarray, own: Classes, wanted: Classes) -> np.ndarray:
    """Labels as positions in `wanted` instead of `own`, which has the same classes; -1 stays."""
    places = wanted.match(own)
    return np.where(labels_N == UNLABELLED, UNLABELLED, places[labels_N])


def _check_labels(name: str, keys: Sequence[str], labels_N: np.ndarray, own_N: np.ndarray, classes: Classes) -> None:
    differs = np.flatnonzero((labels_N != own_N) & (labels_N != UNLABELLED) & (own_N != UNLABELLED))
    if len(differs):
        few = [f"{keys[row]!r} ({classes.ids[own_N[row]]}, others {classes.ids[labels_N[row]]})" for row in differs[:10].tolist()]
        raise UserError(
            f"{name}: {len(differs):,} of {len(keys):,} labels differ from those of the other members: {', '.join(few)}. "
            "Score all members on one set of labels."
        )


def _log_probabilities(
    member: Predictions, rows: np.ndarray | None, classes: Classes, name: str, keys: Sequence[str]
) -> np.ndarray:
    """The member's scores as log-probabilities, [N, K] float32: rows and columns as wanted, the member's own array if it fits."""
    columns = None if member.classes.ids == classes.ids else member.classes.match(classes)
    fits = rows is None and columns is None and member.scale == "log-probabilities"
    scores_NK = member.scores if fits else np.empty((len(keys), len(classes)), np.float32)
    for part in row_slices(*scores_NK.shape):
        found = member.scores[part] if rows is None else member.scores[rows[part]]
        found = found if columns is None else found[:, columns]
        if member.scale == "logits":
            found = metrics.log_probabilities(found).astype(np.float32)
        total = np.exp(found).sum(axis=1, dtype=np.float64)
        is_right = np.abs(total - 1) < 0.01  # false for NaN too
        if not is_right.all():
            row = int(is_right.argmin())
            raise DataError(
                f"{name}: expected {member.scale} of probabilities with sum 1, found the sum {total[row]:.4g} for "
                f"'{keys[part.start + row]}'. The scores are damaged or of another scale: evaluate again."
            )
        if not fits:
            scores_NK[part] = found
    return scores_NK


def _is_same(one_NK: np.ndarray, other_NK: np.ndarray) -> bool:
    """Whether all scores are equal; different arrays are told apart by their first part."""
    return all(np.array_equal(one_NK[rows], other_NK[rows]) for rows in row_slices(*one_NK.shape))

"""Whether one network is better than another, or the difference may be chance."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from striate.classes import listed
from striate.errors import DataError, UserError, expect
from striate.evaluate import metrics
from striate.predictions import UNLABELLED, Predictions

Measure = Literal["top-1", "top-5", "loss"]

_Z_80 = 0.8416212335729143  # the normal distribution's 80 % point

# ---------------------------------------------------------------- tests


def mcnemar(first_N: np.ndarray, second_N: np.ndarray) -> float:
    """How probable a difference at least this large is between two equally good networks, on the same images (exact, two-sided).

    first_N, second_N: [N] bool, whether each image was recognised. Only images that one of the two recognised count.
    Source: McNemar 1947; the exact binomial form.
    """
    expect(second_N, str(len(first_N)), "second_N")
    only_first, only_second = int((first_N & ~second_N).sum()), int((~first_N & second_N).sum())
    differing = only_first + only_second
    if not differing:
        return 1.0
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, differing + 1)))])
    fewer = np.arange(min(only_first, only_second) + 1)
    log_ways = log_factorial[differing] - log_factorial[fewer] - log_factorial[differing - fewer]
    return min(1.0, 2 * float(np.exp(log_ways - differing * math.log(2)).sum()))


def two_proportions(count: int, total: int, other_count: int, other_total: int) -> float:
    """The same for networks that were scored on different images: `count` of `total` against another (pooled z, two-sided).

    Raises UserError when a total is 0 or a count is not in 0..total.
    Source: Fleiss, Levin and Paik 2003, section 3.1, without the correction for continuity.
    """
    if not (0 <= count <= total and 0 <= other_count <= other_total and total and other_total):
        raise UserError(f"Two shares cannot be compared: found {count} of {total} and {other_count} of {other_total}.")
    pooled = (count + other_count) / (total + other_total)
    deviation = math.sqrt(pooled * (1 - pooled) * (1 / total + 1 / other_total))
    if not deviation:
        return 1.0
    return math.erfc(abs(count / total - other_count / other_total) / deviation / math.sqrt(2))


def holm(chances: Sequence[float]) -> list[float]:
    """p-values of several tests, adjusted so that together they are wrong as seldom as one alone.

    Source: Holm 1979, section 2.
    """
    adjusted = [0.0] * len(chances)
    greatest = 0.0
    for rank, place in enumerate(sorted(range(len(chances)), key=lambda place: chances[place])):
        greatest = max(greatest, min(1.0, (len(chances) - rank) * chances[place]))
        adjusted[place] = greatest
    return adjusted


# ---------------------------------------------------------------- two networks on the same images


@dataclass(frozen=True)
class Comparison:
    """Two networks on the same images.

    names: of the first and the second. images: that both scored. left_out: images that only one of them scored, or that have
    no label. first, second: the measure of each, shares 0..1 for "top-1" and "top-5", nats for "loss" (lower is better).
    difference: first - second; interval: of it, 95 %, over images.
    chance: how probable a difference at least this large is between equally good networks: `mcnemar`; for the loss a z-test
    of the paired differences. only_first, only_second: images that only one of them recognised; for the loss, images where
    its loss is the lower one.
    needed: images it would take to show a difference of this size in four of five attempts; None where there is no
    difference.
    """

    names: tuple[str, str]
    measure: Measure
    images: int
    left_out: int
    first: float
    second: float
    difference: float
    interval: tuple[float, float]
    chance: float
    only_first: int
    only_second: int
    needed: int | None

    def sentence(self) -> str:
        """Whether the difference means anything, in plain words."""
        is_loss = self.measure == "loss"
        scale, digits, unit = (1, 4, "nats") if is_loss else (100, 2, "points")
        first, second = (f"{value:.4f}" if is_loss else f"{value:.2%}" for value in (self.first, self.second))
        told = f"{self.names[0]} {first}, {self.names[1]} {second}"
        low, high = (scale * end for end in self.interval)
        if self.chance < 0.05:
            better = self.names[0] if (self.difference < 0) == is_loss else self.names[1]
            if self.difference < 0:
                low, high = -high, -low  # of the distance, which is told without its sign
            distance = f"{scale * abs(self.difference):.{digits}f} {unit} ({low:.{digits}f} to {high:.{digits}f})"
            often = f"{self.chance:.1%}" if self.chance >= 0.001 else "fewer than 0.1%"
            said = (
                f"{better} is better in {self.measure} by {distance} on {self.images:,} images: {told}. With equally good "
                f"networks a difference this large would be found in {often} of cases."
            )
        else:
            said = (
                f"No difference in {self.measure} that {self.images:,} images can show: {told} ({low:+.{digits}f} to "
                f"{high:+.{digits}f} {unit})."
            )
            if self.needed is not None:
                said += f" If the networks differ by what was seen, it would take about {self.needed:,} images to show it."
        if self.left_out:
            said += f" Left out: {self.left_out:,} images that only one of them scored, or that have no label."
        return said


def difference(
    first: Predictions,
    second: Predictions,
    measure: Measure = "top-1",
    names: tuple[str, str] = ("the first", "the second"),
    resamples: int = 1000,
    seed: int = 0,
) -> Comparison:
    """Compares two networks on the images that both scored, joined by key, with classes matched by id.

    The interval is the percentile interval of the paired bootstrap over images. For top-1 and top-5 its distribution is
    computed exactly, as with infinitely many resamples; `resamples` and `seed` are for the loss.
    Raises UserError when the classes are not the same; DataError when a key occurs twice, when the two have no labelled image
    in common, when they disagree about a label, or (for the loss) when a true class has probability zero.
    Source: Efron and Tibshirani 1993, section 13.3 (percentile interval); Connor 1987, equation 1 (needed images).
    """
    place_K = first.classes.match(second.classes)
    first_M, second_M = _common(first, second)
    label_M = first.labels[first_M]
    has_labels_M = (label_M != UNLABELLED) & (second.labels[second_M] != UNLABELLED)
    first_M, second_M, label_M = first_M[has_labels_M], second_M[has_labels_M], label_M[has_labels_M]
    if not len(label_M):
        raise DataError(
            f"Nothing to compare: no labelled image is in both ({names[0]}: {listed(first.keys, 2)}; {names[1]}: "
            f"{listed(second.keys, 2)}). Images are joined by key: evaluate both on the same data."
        )
    other_M = place_K[second.labels[second_M]]
    if (other_M != label_M).any():
        wrong = np.flatnonzero(other_M != label_M)
        key, ids = first.keys[int(first_M[wrong[0]])], first.classes.ids
        raise DataError(
            f"The two disagree about the labels of {len(wrong):,} images: '{key}' is {ids[label_M[wrong[0]]]} in {names[0]} and "
            f"{ids[other_M[wrong[0]]]} in {names[1]}. Evaluate both with the same labels."
        )
    values = [_values(first, first_M, measure), _values(second, second_M, measure)]
    gap_M = values[0] - values[1]
    images, only_first, only_second = len(gap_M), int((gap_M > 0).sum()), int((gap_M < 0).sum())
    if measure == "loss":  # the lower one is the better one
        only_first, only_second = only_second, only_first
        interval, chance = _mean_interval(gap_M, resamples, seed), _paired_z(gap_M)
    else:
        interval = _outcome_interval(only_first, only_second, images)
        chance = mcnemar(values[0] > 0, values[1] > 0)
    return Comparison(
        names=names,
        measure=measure,
        images=images,
        left_out=len(set(first.keys) | set(second.keys)) - images,
        first=float(values[0].mean()),
        second=float(values[1].mean()),
        difference=float(gap_M.mean()),
        interval=interval,
        chance=chance,
        only_first=only_first,
        only_second=only_second,
        needed=_needed(gap_M),
    )


def _common(first: Predictions, second: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """The rows of both that hold the same image, in the order of the first: two of [M] int64."""
    for side in (first, second):
        twice = [key for key, count in Counter(side.keys).items() if count > 1]
        if twice:
            raise DataError(f"A key stands for one image, found more than once: {listed(twice)}. Evaluate each image once.")
    row_of = {key: row for row, key in enumerate(second.keys)}
    found_N = np.array([row_of.get(key, -1) for key in first.keys], np.int64)
    first_M = np.flatnonzero(found_N >= 0)
    return first_M, found_N[first_M]


def _values(predictions: Predictions, rows_M: np.ndarray, measure: Measure) -> np.ndarray:
    """What the measure is the mean of: 1 or 0 for an image that was recognised or not, or its loss. Returns [M] float64."""
    is_whole = np.array_equal(rows_M, np.arange(len(predictions)))
    part = predictions if is_whole else predictions.select(rows_M)  # a copy of the scores, where some are not needed
    if measure != "loss":
        return metrics.hits(part.scores, part.labels, {"top-1": 1, "top-5": 5}[measure]).astype(np.float64)
    loss_M = metrics.losses(part.scores, part.labels, part.scale)
    endless = np.flatnonzero(np.isinf(loss_M))
    if len(endless):
        raise DataError(
            f"The mean loss is infinite: the true class of {len(endless):,} images has probability zero, as of "
            f"'{part.keys[int(endless[0])]}'. Compare top-1, or predictions with a temperature."
        )
    return loss_M


def _outcome_interval(only_first: int, only_second: int, images: int) -> tuple[float, float]:
    """95 % percentile interval of the bootstrapped difference of two shares, without drawing a resample.

    Each image of a resample adds 1 (only the first was right), -1 or 0, so the distribution of the sum is that of one image
    convolved with itself, once for each image: a power of its Fourier transform.
    """
    size = 1 << (2 * images).bit_length()  # sums of -images..images, modulo size
    turn = np.exp(-2j * np.pi * np.arange(size // 2 + 1) / size)
    one = (images - only_first - only_second + only_first * turn + only_second * turn.conj()) / images
    chance = np.fft.fftshift(np.fft.irfft(one**images, size))  # of the sums -size/2..size/2 - 1
    low, high = np.searchsorted(np.cumsum(chance), [0.025, 0.975]) - size // 2
    return float(low / images), float(high / images)


def _mean_interval(gap_M: np.ndarray, resamples: int, seed: int) -> tuple[float, float]:
    """95 % percentile interval of the bootstrapped mean of numbers."""
    if resamples < 100:
        raise UserError(f"A 95 % interval: expected 100 resamples or more, found {resamples}.")
    means = [float(gap_M[metrics.drawn_again(len(gap_M), seed, "loss", place)].mean()) for place in range(resamples)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def _paired_z(gap_M: np.ndarray) -> float:
    """Two-sided p-value of a mean that is zero, by the normal distribution."""
    mean, deviation = abs(float(gap_M.mean())), float(gap_M.std()) / math.sqrt(len(gap_M))
    if not deviation:
        return 1.0 if not mean else 0.0
    return math.erfc(mean / deviation / math.sqrt(2))


def _needed(gap_M: np.ndarray) -> int | None:
    """Images with which a difference of this mean and spread is found at 5 % in four of five attempts."""
    mean, square = float(gap_M.mean()), float((gap_M * gap_M).mean())
    if not mean:
        return None
    reach = metrics.Z_95 * math.sqrt(square) + _Z_80 * math.sqrt(max(square - mean * mean, 0.0))
    return math.ceil((reach / mean) ** 2)

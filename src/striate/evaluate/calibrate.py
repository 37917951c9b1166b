"""What a network's confidence is worth: calibration, temperature scaling, and accuracy when it may stay silent.

The confidence of an image is the probability of its best class, `metrics.best_probabilities`. A calibrated network is right
in 80 % of the images for which it says 80 %. Start reading at `reliability`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from striate import machine
from striate.errors import CheckpointError, DataError, UserError, expect
from striate.evaluate import metrics
from striate.evaluate.held_out import held_out
from striate.predictions import UNLABELLED, Predictions

BINS = 15
"""Of the calibration error. Source: Guo et al. 2017, section 5."""
COVERAGES = (0.5, 0.8, 0.9, 0.95)
"""Shares of the images answered that are worth a line."""
LOWEST, HIGHEST = 0.01, 100.0
"""Temperatures that are searched. Beyond them the best class has all the probability, or all classes have the same."""

_ROWS = 128  # rows worked on at once: two float64 copies for 1000 classes, 2 MB, stay in the cache of a core
_FEW = 4096  # images that tell nearly where the best temperature is
# A probability that float32 rounded to zero is taken as the smallest one above zero: its logarithm can be divided.
_LEAST_LOG = math.log(np.finfo(np.float32).smallest_subnormal)

# ---------------------------------------------------------------- calibration error


@dataclass(frozen=True, eq=False)
class Reliability:
    """The images sorted into M bins of equal width by confidence, and how often they were right there.

    edges: [M + 1] float64, 0 to 1; bin m holds confidences above edges[m] up to and including edges[m + 1].
    images: [M] int64. confidence, accuracy: [M] float64, means over the bin's images, NaN where it has none.
    """

    edges: np.ndarray
    images: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    def to_json(self) -> dict[str, list[float]]:
        """Plain lists; NaN stays NaN (`files.to_json` makes it null)."""
        return {name: values.tolist() for name, values in vars(self).items()}


def reliability(confidence_N: np.ndarray, is_right_N: np.ndarray, bins: int = BINS) -> Reliability:
    """The table behind a reliability diagram.

    confidence_N: [N] float in 0..1. is_right_N: [N] bool.
    Raises UserError without images or bins, DataError naming the first confidence outside of 0..1.
    Source: Guo et al. 2017, section 2.
    """
    edges, bin_N = _binned(confidence_N, is_right_N, bins)
    images_M = np.bincount(bin_N, minlength=bins)
    with np.errstate(invalid="ignore"):
        return Reliability(
            edges=edges,
            images=images_M,
            confidence=np.bincount(bin_N, weights=confidence_N, minlength=bins) / images_M,
            accuracy=np.bincount(bin_N, weights=is_right_N, minlength=bins) / images_M,
        )


def expected_error(table: Reliability) -> float:
    """Expected calibration error (ECE), 0..1: mean distance of accuracy from confidence, bins weighted by their images.

    A finite sample of a calibrated network has an error above zero, the more so the fewer images a bin has.
    Source: Guo et al. 2017, equation 3.
    """
    distance_M = np.abs(table.accuracy - table.confidence)
    return float(np.nansum(table.images * distance_M) / table.images.sum())


def greatest_error(table: Reliability) -> float:
    """Maximum calibration error (MCE), 0..1: the largest distance of accuracy from confidence in a bin that has images.

    Source: Guo et al. 2017, equation 5.
    """
    return float(np.nanmax(np.abs(table.accuracy - table.confidence)))


def error_interval(
    confidence_N: np.ndarray, is_right_N: np.ndarray, bins: int = BINS, resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of the expected calibration error over images, within 0..1.

    The error of a resample is above that of its sample by about as much as that of a sample is above the truth, because
    every bin's chance deviation counts as error. So the bootstrap's quantiles are reflected at the estimate (the basic
    interval), which takes this out. Where a calibrated network with these confidences would show an error as large in 2.5 %
    of cases or more, the sample cannot tell it from one: the low end is 0, and the high end no less than what such a network
    may show.
    Arguments as for `reliability`.
    Source: Davison and Hinkley 1997, section 5.2 (basic interval); Broecker and Smith 2007 (the calibrated network).
    """
    _, bin_N = _binned(confidence_N, is_right_N, bins)
    if resamples < 100:
        raise UserError(f"A 95 % interval: expected 100 resamples or more, found {resamples}.")
    gap_N = is_right_N - confidence_N
    images = len(gap_N)

    def error(rows_N: np.ndarray | slice) -> float:
        return float(np.abs(np.bincount(bin_N[rows_N], weights=gap_N[rows_N], minlength=bins)).sum()) / images

    estimate = error(slice(None))
    found_R = [error(metrics.drawn_again(images, seed, "calibration error", resample)) for resample in range(resamples)]
    low, high = 2 * estimate - np.quantile(found_R, [0.975, 0.025])
    # Of a calibrated network the gaps of a bin add up to nearly a normal number around zero.
    spread_M = np.sqrt(np.bincount(bin_N, weights=confidence_N * (1 - confidence_N), minlength=bins))
    calibrated_R = np.abs(_normals(resamples, bins, seed) * spread_M).sum(axis=1) / images
    by_chance = np.quantile(calibrated_R, 0.975)
    if estimate <= by_chance:
        low, high = 0.0, max(high, by_chance)
    return float(np.clip(low, 0, 1)), float(np.clip(high, 0, 1))


def _normals(rows: int, columns: int, seed: int) -> np.ndarray:
    """Random numbers of the standard normal distribution, [rows, columns] float64. Source: Box and Muller 1958."""
    uniform_RC2 = machine.uniforms(seed, "calibrated network", 0, np.arange(rows), 2 * columns).reshape(rows, columns, 2)
    radius_RC = np.sqrt(-2 * np.log(1 - uniform_RC2[..., 0]))
    return np.asarray(radius_RC * np.cos(2 * np.pi * uniform_RC2[..., 1]))


def brier(scores: np.ndarray, labels: np.ndarray) -> float:
    """Brier score, 0..2, lower is better: squared distance of the probabilities from the truth, summed over classes.

    scores, labels: as for `metrics`. Raises UserError without images.
    Source: Brier 1950, equation 2.
    """
    _some(len(labels))
    total = 0.0
    own_N = metrics.losses(scores, labels, "logits")
    for rows in _parts(len(labels)):
        probability_nK = np.exp(metrics.log_probabilities(scores[rows]))
        total += float(np.vdot(probability_nK, probability_nK))
    return (total - 2 * float(np.exp(-own_N).sum())) / len(labels) + 1


def _binned(confidence_N: np.ndarray, is_right_N: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """The edges of the bins, [bins + 1], and the bin of each image, [N] int64; checks what came in."""
    expect(confidence_N, "N", "confidence_N")
    expect(is_right_N, str(len(confidence_N)), "is_right_N")
    _some(len(confidence_N))
    if bins < 1:
        raise UserError(f"Bins of confidence: expected 1 or more, found {bins}.")
    is_share_N = (confidence_N >= 0) & (confidence_N <= 1)
    if not is_share_N.all():
        row = int(np.argmin(is_share_N))
        raise DataError(f"Confidence of image {row}: expected 0..1, found {confidence_N[row]}. Give probabilities, not scores.")
    edges = np.linspace(0, 1, bins + 1)
    return edges, np.maximum(np.searchsorted(edges, confidence_N, side="left") - 1, 0)


# ---------------------------------------------------------------- temperature


@dataclass(frozen=True)
class Temperature:
    """What the scores of a network are divided by so that its confidence is right on average; the best class stays.

    value: in LOWEST..HIGHEST; above 1 the network is too sure of itself, below too modest. images: that chose it.
    nll_before, nll_after: their mean -log p(true class) in nats with temperature 1 and `value`.
    fitted_on: in words, which images those were.
    """

    value: float
    images: int
    nll_before: float
    nll_after: float
    fitted_on: str = ""

    @property
    def doubt(self) -> str:
        """A sentence where the search ended at its limit, so that the value says little; else empty."""
        if self.value == LOWEST:
            return (
                f"The loss still falls at temperature {LOWEST}, the lowest searched: the network recognises (nearly) all of "
                f"these {self.images:,} images, as when it was trained on them, or its scores hardly differ. Fit on images that "
                "it has not seen."
            )
        if self.value == HIGHEST:
            return (
                f"The loss still falls at temperature {HIGHEST:g}, the highest searched: the scores say nothing about the labels "
                f"of these {self.images:,} images, or the reverse, or they are enormous. Look at the accuracy and the order of "
                "classes first."
            )
        return ""

    def to_json(self) -> dict[str, Any]:
        """Plain values for calibration.json."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any, where: str = "calibration.json") -> Temperature:
        """The inverse of `to_json`. Raises CheckpointError, naming `where`, when a field is missing or not as written."""
        numbers = ("value", "nll_before", "nll_after")
        try:
            if any(isinstance(value[name], bool) or not isinstance(value[name], (int, float)) for name in (*numbers, "images")):
                raise TypeError("value, images, nll_before and nll_after must be numbers")
            found = cls(*(value[name] for name in ("value", "images", "nll_before", "nll_after", "fitted_on")))
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"{where}: not a temperature as striate writes it ({error}). Calibrate again.") from error
        if not LOWEST <= found.value <= HIGHEST:
            raise CheckpointError(f"{where}: expected a temperature in {LOWEST}..{HIGHEST:g}, found {found.value}.")
        return found


def fit_temperature(scores: np.ndarray, labels: np.ndarray, fitted_on: str = "") -> Temperature:
    """The temperature with the smallest mean loss on these images, which should not be those of the training.

    scores: [N, K] float32, logits or log-probabilities: the softmax of scores / temperature renormalises either. A
    log-probability of minus infinity counts as that of float32's smallest number. labels: [N] integers in 0..K-1.
    The loss is convex in the inverse of the temperature, so that there is one answer, found to about eight digits. It is LOWEST
    when every image is recognised and HIGHEST when the scores are no better than chance (`Temperature.doubt` says so);
    scores that are the same for all classes leave it at 1.
    Raises UserError without images, or where labels do not fit.
    Source: Guo et al. 2017, section 4.2.
    """
    _some(len(labels))
    metrics.check(scores, labels)
    nll_before = _slopes(scores, labels, 1.0)[0]
    start, every = 1.0, -(-len(labels) // _FEW)
    if every > 1:
        start, _ = _best_inverse(scores[::every], labels[::every], start)
    inverse, nll_after = _best_inverse(scores, labels, start)
    value = min(max(1 / inverse, LOWEST), HIGHEST)  # 1 / (1 / x) need not be x
    return Temperature(value, len(labels), nll_before, nll_after, fitted_on)


def _best_inverse(scores: np.ndarray, labels: np.ndarray, start: float) -> tuple[float, float]:
    """Where the mean loss is least, as 1 / temperature, and the loss there.

    Newton's steps from `start`, kept within a bracket that always shrinks. Where the loss falls towards infinity Newton's
    steps do not shrink: then the end of the range is looked at, which may be the answer, and after it the middle of the
    bracket (of its logarithm).
    """
    low, high = ends = (1 / HIGHEST, 1 / LOWEST)
    untried = set(ends)
    inverse, last_step = start, math.inf
    for _ in range(100):
        loss, slope, curvature = _slopes(scores, labels, inverse)
        if slope == 0 or (inverse == low and slope > 0) or (inverse == high and slope < 0):
            break
        low, high = (low, inverse) if slope > 0 else (inverse, high)
        step = -slope / curvature if curvature > 0 else math.copysign(math.inf, -slope)
        if abs(step) <= 1e-4 * inverse:
            # One more step squares the error, to about 1e-8, and the parabola through this place has the loss there.
            return inverse + step, loss + slope * step / 2
        if low < inverse + step < high and abs(step) <= abs(last_step) / 2:
            inverse, last_step = inverse + step, step
            continue
        end = low if slope > 0 else high
        target = end if end in untried else math.sqrt(low * high)
        untried.discard(end)
        inverse, last_step = target, target - inverse
    return inverse, loss


def _slopes(scores: np.ndarray, labels: np.ndarray, inverse: float) -> tuple[float, float, float]:
    """Mean loss of scores * inverse, and its first and second derivative by `inverse`, in float64.

    With z the scores below their best and p the probabilities: log Σ exp(z · inverse) - z_true · inverse; Σ p z - z_true;
    and the variance of z under p.
    """
    loss = slope = curvature = 0.0
    for rows in _parts(len(labels)):
        below_nK = _below_best(scores[rows])
        own_n = np.take_along_axis(below_nK, labels[rows, None], axis=1)[:, 0]
        weight_nK = below_nK * inverse
        np.exp(weight_nK, out=weight_nK)
        total_n = weight_nK.sum(axis=1)
        loss += float((np.log(total_n) - own_n * inverse).sum())
        mean_n = np.vecdot(weight_nK, below_nK) / total_n
        slope += float((mean_n - own_n).sum())
        weight_nK *= below_nK
        square_n = np.vecdot(weight_nK, below_nK) / total_n
        curvature += float(np.maximum(square_n - mean_n * mean_n, 0).sum())
    return loss / len(labels), slope / len(labels), curvature / len(labels)


def scaled(predictions: Predictions, temperature: float) -> Predictions:
    """The same predictions with the temperature applied, as log-probabilities; the protocol says so.

    Raises UserError when the temperature is not a finite number above 0.
    """
    if not 0 < temperature < math.inf:
        raise UserError(f"A temperature: expected a finite number above 0, found {temperature}.")
    log_probability_NK = np.empty_like(predictions.scores)
    for rows in _parts(len(predictions)):
        below_nK = _below_best(predictions.scores[rows]) / temperature
        log_probability_NK[rows] = metrics.log_probabilities(below_nK)
    protocol = " · ".join(part for part in (predictions.protocol, f"temperature {temperature:.4g}") if part)
    return replace(predictions, scores=log_probability_NK, scale="log-probabilities", protocol=protocol)


def _below_best(scores: np.ndarray) -> np.ndarray:
    """Scores less the best one of their image, in float64: the same softmax, no overflow; minus infinity becomes finite."""
    if np.isneginf(scores.min(initial=0)):
        scores = np.where(np.isneginf(scores), _LEAST_LOG, scores)
    return np.asarray(np.subtract(scores, scores.max(axis=1, keepdims=True), dtype=np.float64))


# ---------------------------------------------------------------- before and after


@dataclass(frozen=True, eq=False)
class Judgement:
    """Calibration of a network on some images: `expected_error` with its 95 % interval, mean loss in nats, and the table."""

    images: int
    error: float
    error_interval: tuple[float, float]
    nll: float
    table: Reliability


@dataclass(frozen=True, eq=False)
class Calibration:
    """A temperature, and what it does to images that did not choose it: before with temperature 1, after with its value."""

    temperature: Temperature
    before: Judgement
    after: Judgement

    def lines(self) -> list[str]:
        """For people: the temperature, and the calibration error with and without it."""
        said = [f"Temperature {self.temperature.value:.4g}, fitted on {self.temperature.fitted_on}. On the others:"]
        for words, one in (("without", self.before), ("with", self.after)):
            low, high = one.error_interval
            said.append(f"  {words} it: calibration error {one.error:.2%} ({low:.2%} to {high:.2%}), loss {one.nll:.4f}")
        return said + ([self.temperature.doubt] if self.temperature.doubt else [])

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        judged = {
            name: {"images": one.images, "error": one.error, "error_interval": list(one.error_interval), "loss": one.nll}
            for name, one in (("before", self.before), ("after", self.after))
        }
        return {"temperature": self.temperature.to_json(), **judged}


def calibration(predictions: Predictions, share: float = 0.5, bins: int = BINS) -> Calibration:
    """Fits a temperature on one part of the labelled images (`held_out`) and judges it on the other.

    share: of the labelled images that choose the temperature. Raises as `held_out` does.
    """
    for_fit_N = held_out(predictions.keys, predictions.labels, share)
    fitting = predictions.select(for_fit_N)
    judging = predictions.select(~for_fit_N & (predictions.labels != UNLABELLED))
    fitted_on = f"{len(fitting):,} of {len(fitting) + len(judging):,} labelled images, chosen by key"
    temperature = fit_temperature(fitting.scores, fitting.labels, fitted_on)
    before, after = _judged(judging, 1.0, bins), _judged(judging, temperature.value, bins)
    return Calibration(temperature, before, after)


def _judged(predictions: Predictions, temperature: float, bins: int) -> Judgement:
    told = scaled(predictions, temperature)
    confidence_N, is_right_N = metrics.best_probabilities(told.scores), metrics.hits(told.scores, told.labels, 1)
    table = reliability(confidence_N, is_right_N, bins)
    return Judgement(
        images=len(told),
        error=expected_error(table),
        error_interval=error_interval(confidence_N, is_right_N, bins),
        nll=metrics.cross_entropy(told.scores, told.labels, told.scale),
        table=table,
    )


# ---------------------------------------------------------------- accuracy and coverage


@dataclass(frozen=True, eq=False)
class Coverage:
    """Accuracy of a network that answers only where it is sure: the most confident image first, then ever more of them.

    share: [N] float64, share of the images answered, 1/N to 1. accuracy: [N] float64, of those answered. confidence:
    [N] float64, of the last one answered, falling. Where several images have one confidence, their order is chance, and
    accuracy is its mean over all orders.
    """

    share: np.ndarray
    accuracy: np.ndarray
    confidence: np.ndarray

    @property
    def area(self) -> float:
        """Area under the risk-coverage curve (AURC), 0..1, lower is better: mean share of errors over all coverages.

        Source: Geifman, Uziel and El-Yaniv 2019, section 2.
        """
        return float(1 - self.accuracy.mean())

    def at(self, share: float) -> tuple[float, float]:
        """Accuracy when at least this share of the images is answered, and the confidence from which on to answer.

        Raises UserError when the share is not above 0 and at most 1.
        """
        if not 0 < share <= 1:
            raise UserError(f"Coverage: expected a share above 0 and at most 1, found {share}.")
        place = max(0, math.ceil(share * len(self.share) - 1e-9) - 1)
        return float(self.accuracy[place]), float(self.confidence[place])


def coverage(confidence_N: np.ndarray, is_right_N: np.ndarray) -> Coverage:
    """The curve of accuracy against coverage. Independent of the order of the images.

    confidence_N: [N] float, any measure that grows with certainty. is_right_N: [N] bool.
    Raises UserError without images, DataError where a confidence is NaN.
    Source: Geifman and El-Yaniv 2017, section 2.
    """
    expect(confidence_N, "N", "confidence_N")
    expect(is_right_N, str(len(confidence_N)), "is_right_N")
    _some(len(confidence_N))
    if np.isnan(confidence_N).any():
        raise DataError(f"Confidence of image {int(np.isnan(confidence_N).argmax())} is NaN: it has no place in the order.")
    order_N = np.argsort(-confidence_N, kind="stable")
    falling_N = confidence_N[order_N].astype(np.float64)
    right_N = np.cumsum(is_right_N[order_N], dtype=np.float64)
    answered_N = np.arange(1, len(falling_N) + 1)
    ends = np.append(np.flatnonzero(np.diff(falling_N)), len(falling_N) - 1)  # last image of each block of equals
    expected_N = np.interp(answered_N, [0, *answered_N[ends]], [0, *right_N[ends]])
    return Coverage(answered_N / len(falling_N), expected_N / answered_N, falling_N)


# ---------------------------------------------------------------- inside


def _some(images: int) -> None:
    if not images:
        raise UserError("Calibration needs at least one image with a label.")


def _parts(count: int) -> Iterator[slice]:
    return (slice(first, first + _ROWS) for first in range(0, count, _ROWS))

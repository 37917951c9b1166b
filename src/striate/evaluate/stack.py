"""Weights of members that are chosen on held-out images: a mixture, a greedy selection, a linear model.

All three see the labels of the images `for_fit_N` only (`held_out` names them); a score counts on the other images:
`members.select(~for_fit_N)`. Averages that learn nothing are in `combine`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from striate.classes import listed
from striate.errors import DataError, UserError, expect
from striate.evaluate import metrics
from striate.evaluate.combine import Members, combined, row_slices
from striate.evaluate.held_out import held_out
from striate.predictions import UNLABELLED, Predictions

# ---------------------------------------------------------------- mixture


@dataclass(frozen=True, eq=False)
class Mixture:
    """Weights for `combine.weighted`, and what choosing them brought on the images that chose them.

    weights: [M] float64, zero or more, with sum 1. images: how many chose. loss_equal, loss: mean of -log p(true class) in
    nats with equal weights and with these, over the images to whose true class at least one member gives a probability.
    impossible: the other images; no weights can help them, and the loss over all is infinite where there are any.
    losses: after each round, never rising.
    """

    weights: np.ndarray
    images: int
    impossible: int
    loss_equal: float
    loss: float
    losses: tuple[float, ...]


def mixture(members: Members, for_fit_N: np.ndarray, tolerance: float = 1e-6, most_rounds: int = 20_000) -> Mixture:
    """Weights of the mixture of probabilities under which the labels of some images are most probable.

    Found by expectation maximisation, which never makes the loss worse and, as the loss is convex in the weights, ends
    at the best ones: each round gives a member the mean share that it has in the mixture's probability of the truth.
    for_fit_N: [N] bool, images to choose on. tolerance: rounds end when the loss is within so many nats of the least possible.
    Raises UserError when for_fit_N is not of this kind or names an image without a label; DataError when no member gives
    any true class a probability.
    Source: Dempster, Laird and Rubin 1977, section 4.3 (finite mixtures), with the components fixed.
    """
    rows = _rows_to_fit(members, for_fit_N)
    true_LM = np.stack([one[rows, members.labels[rows]].astype(np.float64) for one in members.scores], axis=1)
    highest_L = true_LM.max(axis=1)
    is_possible_L = highest_L > -np.inf
    if not is_possible_L.any():
        raise DataError(f"No member gives the true class of any of {len(rows):,} images a probability: check the class order.")
    highest_L = highest_L[is_possible_L]
    likely_LM = np.exp(true_LM[is_possible_L] - highest_L[:, None])
    weights_M = np.full(len(members), 1 / len(members))
    losses: list[float] = []
    while True:
        mixed_L = likely_LM @ weights_M
        losses.append(-float((np.log(mixed_L) + highest_L).mean()))
        gain_M = (1 / mixed_L) @ likely_LM / len(mixed_L)
        # The loss is convex and falls by gain - 1 towards a member alone, so no weights can be better by more than this.
        if gain_M.max() - 1 <= tolerance or len(losses) > most_rounds:
            break
        weights_M = weights_M * gain_M
        weights_M /= weights_M.sum()
    impossible = len(rows) - len(highest_L)
    return Mixture(weights_M, len(rows), impossible, losses[0], losses[-1], tuple(losses))


# ---------------------------------------------------------------- greedy selection


@dataclass(frozen=True, eq=False)
class Selection:
    """Members in the order in which they were taken, with replacement, and how good their mean was after each.

    order: positions of members. top1: shares 0..1, loss: nats, both on the images that chose, after each step.
    kept: the first so many steps are worth taking. weights: [M] float64, what the kept steps weigh, for `combine.weighted`.
    images: how many chose.
    """

    order: tuple[int, ...]
    top1: tuple[float, ...]
    loss: tuple[float, ...]
    kept: int
    weights: np.ndarray
    images: int


def greedy(members: Members, for_fit_N: np.ndarray, most: int) -> Selection:
    """Adds to the mean probability, step by step, the member that makes top-1 highest; one may be taken again.

    Among equals the lowest loss wins, then the first member. All `most` steps are made, as top-1 may fall and rise again; the
    best of them is kept, and the shortest among equals.
    for_fit_N: [N] bool, images to choose on.
    Raises UserError when `most` is less than 1, or for_fit_N is not of this kind or names an image without a label.
    Source: Caruana et al. 2004, sections 2 and 2.1 (selection with replacement).
    """
    if most < 1:
        raise UserError(f"A greedy selection takes one step or more, found {most}.")
    rows = _rows_to_fit(members, for_fit_N)
    labels_L = members.labels[rows]
    true_LM = np.stack([np.exp(one[rows, labels_L].astype(np.float64)) for one in members.scores], axis=1)
    counts_M = np.zeros(len(members))
    order: list[int] = []
    reached: list[tuple[int, float]] = []
    for step in range(1, most + 1):
        right_M = _right_with_one_more(members, rows, counts_M)
        with np.errstate(divide="ignore"):
            loss_M = -np.log((true_LM @ counts_M)[:, None] + true_LM).mean(axis=0) + math.log(step)
        loss_M = loss_M.round(9)  # so that the last bits of a sum do not choose among equals
        best = min(range(len(members)), key=lambda one: (-right_M[one], loss_M[one]))
        counts_M[best] += 1
        order.append(best)
        reached.append((int(right_M[best]), float(loss_M[best])))
    kept = 1 + min(range(most), key=lambda step: (-reached[step][0], reached[step][1]))
    weights_M = np.bincount(order[:kept], minlength=len(members)) / kept
    top1 = tuple(right / len(rows) for right, _ in reached)
    return Selection(tuple(order), top1, tuple(loss for _, loss in reached), kept, weights_M, len(rows))


def _right_with_one_more(members: Members, rows: np.ndarray, counts_M: np.ndarray) -> np.ndarray:
    """Right answers when one more of each member joins a sum of probabilities. Returns [M] int64."""
    right_M = np.zeros(len(members), np.int64)
    for part in row_slices(len(rows), (len(members) + 2) * len(members.classes)):
        chosen = rows[part]
        chances = [np.exp(one[chosen].astype(np.float64)) for one in members.scores]
        total_nK = np.zeros_like(chances[0])
        for count, chance_nK in zip(counts_M.tolist(), chances, strict=True):
            total_nK += count * chance_nK
        for one, chance_nK in enumerate(chances):
            right_M[one] += int(((total_nK + chance_nK).argmax(axis=1) == members.labels[chosen]).sum())
    return right_M


# ---------------------------------------------------------------- linear model

SPREADS = (0.0, 0.01, 0.03, 0.1, 0.3)  # the last is as large as the weights themselves, which are 1/M
_NEAR = 1e-6  # nats for each image, within which the end of a fit is sought
_FLOOR = -104.0  # nats; float32 holds no smaller probability, and minus infinity times a weight is no number
_FOLDS = 3
_LEAST_IMAGES = 4 * _FOLDS


@dataclass(frozen=True, eq=False)
class Stack:
    """A linear model on the members' log-probabilities: logit of class k = bias[k] + sum over m of weights[m, k] log p_m[k].

    weights: [M, K], bias: [K], both float64. names, classes_hash: of the members that it is for.
    spread: the standard deviation of the prior around the geometric mean; 0 is that mean itself. images: how many chose.
    losses: mean of -log p(true class) in nats for each spread that was tried, on images that did not choose that model.
    """

    weights: np.ndarray
    bias: np.ndarray
    names: tuple[str, ...]
    classes_hash: str
    spread: float
    images: int
    losses: dict[float, float]


def stacking(members: Members, for_fit_N: np.ndarray, spreads: Sequence[float] = SPREADS) -> Stack:
    """A multinomial logistic regression with a weight for each class and member, drawn towards the geometric mean.

    Weights start at 1/M and biases at 0; leaving costs (distance / spread)² / 2 nats, a ridge that weighs the less the more
    images there are. The spread is chosen by cross-validation in three parts within the images to fit on: the smallest
    whose loss is within one standard error of the best, so that with little data the answer is the mean. With one spread
    nothing is chosen.
    for_fit_N: [N] bool, images to choose on. spreads: zero or more, rising.
    Raises UserError when arguments are not of this kind or an image has no label; DataError with fewer than 12 images.
    Source: Wolpert 1992 and Breiman 1996 (stacking); Breiman et al. 1984, section 3.4.3 (the one-standard-error rule).
    """
    if not spreads or list(spreads) != sorted(set(spreads)) or not (spreads[0] >= 0 and math.isfinite(spreads[-1])):
        raise UserError(f"Spreads around the mean: expected rising finite numbers of zero or more, found {list(spreads)}.")
    rows = _rows_to_fit(members, for_fit_N)
    if len(rows) < _LEAST_IMAGES:
        raise DataError(
            f"A stack takes {_LEAST_IMAGES} images to fit on or more, found {len(rows)}. Take the mean, or predict more images."
        )
    losses = _cross_validated(members, rows, spreads) if len(spreads) > 1 else {}
    spread = _smallest_as_good(losses) if losses else spreads[0]
    weights_MK, bias_K = _parameters(_fit(members, rows, spread, _at_the_mean(members)))
    means = {spread: float(loss_L.mean()) for spread, loss_L in losses.items()}
    return Stack(weights_MK, bias_K, members.names, members.classes.hash, spread, len(rows), means)


def stacked(members: Members, stack: Stack) -> Predictions:
    """What a fitted stack says about images, those that it was fitted on or others.

    Raises UserError when the members or classes are not those that it was fitted to.
    """
    if members.names != stack.names:
        raise UserError(
            f"The stack was fitted to the members {listed(stack.names)}, found {listed(members.names)}: "
            "give the same, in this order."
        )
    if members.classes.hash != stack.classes_hash:
        raise UserError(
            f"The stack was fitted to other classes or another order of them (hash {stack.classes_hash[:6]}, "
            f"found {members.classes.hash[:6]}): fit it again."
        )
    scores_NK = np.empty_like(members.scores[0])
    for part in row_slices(*scores_NK.shape):
        said_MnK = _floored(members, part)
        scores_NK[part] = metrics.log_probabilities(_logits(said_MnK, stack.weights, stack.bias))
    how = f"linear model on {len(members)} members (fitted on {stack.images:,} images, spread {stack.spread:g})"
    return combined(members, scores_NK, f"{how}: {members.listing()}")


def _cross_validated(members: Members, rows: np.ndarray, spreads: Sequence[float]) -> dict[float, np.ndarray]:
    """Losses [L] of the images by spread, each from a model fitted on the parts that the image is not in.

    Ends at the first spread that is worse than the one before it.
    """
    part_L = _folds(members, rows)
    # Each fit begins where the one with the smaller spread ended.
    reached = [_at_the_mean(members) for _ in range(_FOLDS)]
    losses: dict[float, np.ndarray] = {}
    least = math.inf
    for spread in spreads:
        loss_L = np.empty(len(rows))
        for fold in range(_FOLDS):
            reached[fold] = _fit(members, rows[part_L != fold], spread, reached[fold])
            loss_L[part_L == fold] = _losses(members, rows[part_L == fold], *_parameters(reached[fold]))
        losses[spread] = loss_L
        if loss_L.mean() > least:
            break
        least = float(loss_L.mean())
    return losses


def _folds(members: Members, rows: np.ndarray) -> np.ndarray:
    """Three parts of equal size, every class in each as evenly as can be. Returns [L] int64 in 0..2."""
    keys, labels_L = [members.keys[int(row)] for row in rows], members.labels[rows]
    part_L = np.where(held_out(keys, labels_L, 1 / _FOLDS), 0, 1)
    rest = np.flatnonzero(part_L)
    part_L[rest[held_out([keys[int(row)] for row in rest], labels_L[rest])]] = 2
    return part_L


def _smallest_as_good(losses: dict[float, np.ndarray]) -> float:
    """The first spread whose mean loss is within one standard error (of the paired difference) of the least."""
    best_L = min(losses.values(), key=lambda loss_L: float(loss_L.mean()))
    for spread, loss_L in losses.items():
        worse_L = loss_L - best_L
        if worse_L.mean() <= worse_L.std(ddof=1) / math.sqrt(len(worse_L)):
            return spread
    raise AssertionError("the best is as good as itself")


def _at_the_mean(members: Members) -> np.ndarray:
    """No distance from the geometric mean: [M + 1, K] float64 zeros, for the weights of M members and the bias."""
    return np.zeros((len(members) + 1, len(members.classes)))


def _parameters(distance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights [M, K] and bias [K] from their distance [M + 1, K] from the geometric mean."""
    return 1 / (len(distance) - 1) + distance[:-1], distance[-1]


def _fit(members: Members, rows: np.ndarray, spread: float, start: np.ndarray) -> np.ndarray:
    """The most probable distance from the geometric mean, [M + 1, K] float64; `start` is one to search from.

    Searched in units of the spread: there the summed loss is convex with curvature 1 or more, so that where its slope has
    length g it is within g² / 2 nats of the least.
    """
    if spread == 0:
        return start
    units = torch.from_numpy(start / spread).requires_grad_()
    steepest = math.sqrt(2 * _NEAR * len(rows) / start.size)
    search = torch.optim.LBFGS(
        [units], max_iter=200, tolerance_grad=steepest, tolerance_change=1e-9, line_search_fn="strong_wolfe"
    )

    def summed_loss() -> torch.Tensor:
        place = units.detach().numpy()
        loss, slope = _loss_and_slope(members, rows, *_parameters(place * spread))
        units.grad = torch.from_numpy(slope * spread + place)
        return torch.tensor(loss + float((place * place).sum()) / 2, dtype=torch.float64)

    search.step(summed_loss)  # type: ignore[no-untyped-call]
    return np.asarray(units.detach().numpy() * spread)


def _loss_and_slope(members: Members, rows: np.ndarray, weights_MK: np.ndarray, bias_K: np.ndarray) -> tuple[float, np.ndarray]:
    """Sum of -log p(true class) over the images, and its slope for weights and bias: [M + 1, K] float64.

    Nearly all the time of a fit is spent here, so images are worked on in float32 and in place, a few at a time, and only
    these parts are added up in float64: the relative error is some 1e-6.
    """
    weights_MK, bias_K = weights_MK.astype(np.float32), bias_K.astype(np.float32)
    total, slope = 0.0, np.zeros((len(weights_MK) + 1, len(bias_K)))
    for part in row_slices(len(rows), (len(members) + 4) * len(bias_K)):
        said_MnK, labels_n = _floored(members, rows[part]), members.labels[rows[part]]
        residual_nK = _logits(said_MnK, weights_MK, bias_K)
        residual_nK -= residual_nK.max(axis=1, keepdims=True)
        number_n = np.arange(len(labels_n))
        true_n = residual_nK[number_n, labels_n]
        np.exp(residual_nK, out=residual_nK)
        sum_n = residual_nK.sum(axis=1)
        total += float((np.log(sum_n) - true_n).sum(dtype=np.float64))
        residual_nK /= sum_n[:, None]
        residual_nK[number_n, labels_n] -= 1
        for slope_K, said_nK in zip(slope[:-1], said_MnK, strict=True):
            slope_K += (residual_nK * said_nK).sum(axis=0)
        slope[-1] += residual_nK.sum(axis=0)
    return total, slope


def _losses(members: Members, rows: np.ndarray, weights_MK: np.ndarray, bias_K: np.ndarray) -> np.ndarray:
    """-log p(true class) of each image under a linear model. Returns [L] float64."""
    loss_L = np.empty(len(rows))
    for part in row_slices(len(rows), (len(members) + 3) * len(bias_K)):
        log_nK = metrics.log_probabilities(_logits(_floored(members, rows[part]), weights_MK, bias_K))
        loss_L[part] = -np.take_along_axis(log_nK, members.labels[rows[part], None], axis=1)[:, 0]
    return loss_L


def _logits(said_MnK: list[np.ndarray], weights_MK: np.ndarray, bias_K: np.ndarray) -> np.ndarray:
    """Logits [n, K], in the precision of the weights."""
    logits_nK = np.tile(bias_K, (len(said_MnK[0]), 1))
    for weight_K, said_nK in zip(weights_MK, said_MnK, strict=True):
        logits_nK += weight_K * said_nK
    return logits_nK


def _floored(members: Members, rows: np.ndarray | slice) -> list[np.ndarray]:
    """Log-probabilities of some images by member, [n, K] float32, none below the floor."""
    return [np.maximum(one[rows], np.float32(_FLOOR)) for one in members.scores]


# ---------------------------------------------------------------- inside


def _rows_to_fit(members: Members, for_fit_N: np.ndarray) -> np.ndarray:
    """Positions [L] of the images to fit on, checked."""
    expect(for_fit_N, str(len(members.keys)), "for_fit_N")
    if for_fit_N.dtype != np.bool_:
        raise UserError(f"for_fit_N: expected bool, found {for_fit_N.dtype}.")
    rows = np.flatnonzero(for_fit_N)
    if not len(rows):
        raise UserError("for_fit_N names no image: there is nothing to fit on.")
    unknown = rows[members.labels[rows] == UNLABELLED]
    if len(unknown):
        few = listed([members.keys[int(row)] for row in unknown])
        raise UserError(f"for_fit_N names {len(unknown):,} images without a label: {few}. Fit on labelled images.")
    return rows

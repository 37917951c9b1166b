"""Neighbours: whether images that look alike have the same label, without training a network.

Each thumbnail is described by its edges (directions by place) and its colours (by place, and how often), and a kernel ridge
regression says for every image which label those that look like it have. All of it is closed form: predictions for left-out
images cost nothing more, and the same matrix serves any other labels, so chance is measured by shuffling them.

With right labels 200 to 1,000 thumbnails of every set tried are far above chance (two to twenty classes of Tiny ImageNet: Cohen's
kappa 0.3 to 0.7, 8 to 90 standard deviations). That says nothing of how good a network will be, only whether labels and images
belong together.
Source: Dalal and Triggs 2005, section 6 (histograms of directions); Rifkin and Lippert 2007, section 4 (left-out predictions of
ridge regression in closed form); Ojala and Garriga 2010, section 3 (permutation tests of classifiers).
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from striate import machine
from striate.doctor import thumbnails
from striate.doctor.patient import Patient
from striate.doctor.thumbnails import Split, Thumbnails

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]

_DIRECTIONS: Final = 8
_CELLS: Final = 4  # along each side
# Strength of the ridge. Between 0.03 and 0.3 the accuracies of all sets tried differ by less than a tenth of themselves.
_RIDGE: Final = 0.1
_SHUFFLES: Final = 20  # of the labels: the mean and deviation of chance to a fifth


# ---------------------------------------------------------------- what an image looks like


def features(pixels_NSS3: Floats) -> Floats:
    """What thumbnails look like: [N, D] float32. pixels_NSS3: [N, 32, 32, 3] in any scale, the same for all of them.

    Four descriptions, each with the same weight: directions of edges in 4 x 4 cells; mean colours in them; their deviations in
    quarters; and how often colours occur. Colours are a sum and two differences of the channels. Nothing changes when all pixels
    are scaled or shifted, so normalisation does not matter.
    """
    count, side = len(pixels_NSS3), pixels_NSS3.shape[1]
    centred = pixels_NSS3 - pixels_NSS3.mean(axis=(0, 1, 2))
    centred = (centred / max(float(centred.std()), 1e-12)).astype(np.float32)
    red, green, blue = centred[..., 0], centred[..., 1], centred[..., 2]
    grey = (red + green + blue) / 3
    opponent = np.stack([grey, red - blue, green - (red + blue) / 2], axis=1)
    quarters = opponent.reshape(count, 3, 2, side // 2, 2, side // 2)
    parts = [
        _edges(grey),
        _cells(opponent).reshape(count, -1),
        quarters.std(axis=(3, 5)).reshape(count, -1),
        _frequencies(opponent),
    ]
    return np.concatenate([_evened(part) for part in parts], axis=1)


def _edges(grey_NSS: Floats) -> Floats:
    """Square roots of the shares of the directions of edges in each cell: [N, 8 * 4 * 4]."""
    across, down = np.zeros_like(grey_NSS), np.zeros_like(grey_NSS)
    across[:, :, 1:-1] = grey_NSS[:, :, 2:] - grey_NSS[:, :, :-2]
    down[:, 1:-1] = grey_NSS[:, 2:] - grey_NSS[:, :-2]
    strength = np.hypot(across, down)
    direction = np.arctan2(down, across) * np.float32(_DIRECTIONS / math.pi)  # light to dark is as dark to light
    shares = []
    for wanted in range(_DIRECTIONS):
        away = np.abs((direction - wanted + _DIRECTIONS / 2) % _DIRECTIONS - _DIRECTIONS / 2)
        shares.append(_cells((strength * np.maximum(0, 1 - away))[:, None]))
    flat = np.concatenate(shares, axis=1).reshape(len(grey_NSS), -1)
    return np.asarray(np.sqrt(flat / (flat.sum(axis=1, keepdims=True) + 1e-6)), dtype=np.float32)


def _cells(maps_NCSS: Floats) -> Floats:
    """Means over 4 x 4 cells."""
    count, channels, side, _ = maps_NCSS.shape
    cell = side // _CELLS
    return np.asarray(maps_NCSS.reshape(count, channels, _CELLS, cell, _CELLS, cell).mean(axis=(3, 5)), dtype=np.float32)


def _frequencies(opponent_N3SS: Floats) -> Floats:
    """Square roots of how often each of 64 colours occurs: [N, 64]."""
    count = len(opponent_N3SS)
    steps = np.array([1.0, 0.5, 0.3], dtype=np.float32)[:, None, None]
    bins = np.clip(np.floor(opponent_N3SS / steps) + 2, 0, 3).astype(np.int64)
    colour = (16 * bins[:, 0] + 4 * bins[:, 1] + bins[:, 2]).reshape(count, -1)
    counts = np.bincount((colour + 64 * np.arange(count)[:, None]).ravel(), minlength=64 * count).reshape(count, 64)
    return np.asarray(np.sqrt(counts / colour.shape[1]), dtype=np.float32)


def _evened(part_ND: Floats) -> Floats:
    """Centred, and as large as every other part."""
    centred = part_ND - part_ND.mean(axis=0)
    length = math.sqrt(float(np.square(centred).sum(axis=1).mean()))
    return np.asarray(centred / max(length, 1e-12), dtype=np.float32)


# ---------------------------------------------------------------- what those that look alike are called


@dataclass(frozen=True, eq=False)
class Probe:
    """Images by what they look like: `left_out` says of each which labels the others call for, `said` of other images.

    features_ND: of the images that it knows.
    """

    features_ND: Floats

    @functools.cached_property
    def _scale(self) -> float:
        """The median squared distance: a kernel of that width knows near from far whatever the features are."""
        return max(float(np.median(_distances(self.features_ND[:500], self.features_ND))), 1e-12)

    @functools.cached_property
    def _inverse_NN(self) -> Floats:
        kernel = np.exp(-_distances(self.features_ND, self.features_ND) / self._scale)
        kernel[np.diag_indices_from(kernel)] += _RIDGE
        return np.asarray(np.linalg.inv(kernel), dtype=np.float32)

    def left_out(self, labels_N: Labels, classes: int) -> Floats:
        """Scores of every image's classes from all others and their labels: [N, K] float32."""
        known = self._inverse_NN @ _targets(labels_N, classes)
        targets = _targets(labels_N, classes)
        # Left-out residual of ridge regression: (K + r)^-1 y over the diagonal of the inverse.
        return np.asarray(targets - known / np.diagonal(self._inverse_NN)[:, None], dtype=np.float32)

    def said(self, labels_N: Labels, classes: int, features_MD: Floats) -> Floats:
        """Scores of other images' classes: [M, K] float32. features_MD: made together with those that it knows."""
        kernel = np.exp(-_distances(features_MD, self.features_ND) / self._scale)
        return np.asarray(kernel @ (self._inverse_NN @ _targets(labels_N, classes)), dtype=np.float32)


def _targets(labels_N: Labels, classes: int) -> Floats:
    """One for the label's class, less the share of the class: so rare and frequent classes start equal. [N, K]."""
    targets = np.eye(classes, dtype=np.float32)[labels_N]
    return np.asarray(targets - targets.mean(axis=0), dtype=np.float32)


def _distances(a_MD: Floats, b_ND: Floats) -> Floats:
    squared = np.square(a_MD).sum(axis=1)[:, None] + np.square(b_ND).sum(axis=1) - 2 * a_MD @ b_ND.T
    return np.asarray(np.maximum(squared, 0), dtype=np.float32)


@dataclass(frozen=True)
class Agreement:
    """How often images have the label that those that look alike call for, against the same with shuffled labels.

    share: of `images`. chance, deviation: of that share when labels are shuffled.
    """

    share: float
    chance: float
    deviation: float
    images: int

    @property
    def above(self) -> float:
        """How far it is above chance, in standard deviations."""
        return (self.share - self.chance) / self.deviation

    @property
    def kappa(self) -> float:
        """0 for chance, 1 where all agree (Cohen's kappa)."""
        return (self.share - self.chance) / max(1 - self.chance, 1e-12)


def agreement(probe: Probe, labels_N: Labels, classes: int) -> Agreement:
    """How well labels go with what images look like, each image judged by the others."""
    share = float((probe.left_out(labels_N, classes).argmax(axis=1) == labels_N).mean())
    chances = []
    for shuffle in range(_SHUFFLES):
        shuffled = labels_N[machine.permutation(shuffle, "doctor shuffle", 0, len(labels_N))]
        chances.append(float((probe.left_out(shuffled, classes).argmax(axis=1) == shuffled).mean()))
    chance = float(np.mean(chances))
    # Of a few shuffles the deviation is not well known; that of counting is its least.
    least = math.sqrt(max(chance * (1 - chance), 1 / len(labels_N)) / len(labels_N))
    return Agreement(share, chance, max(float(np.std(chances)), least), len(labels_N))


def numbered(labels_N: Labels) -> tuple[Labels, Labels]:
    """Labels counted from 0 without gaps, and what each stands for: so that classes without images cost nothing."""
    present, numbers = np.unique(labels_N, return_inverse=True)
    return numbers.astype(np.int64), present.astype(np.int64)


# ---------------------------------------------------------------- which renaming fits best


def best_assignment(worth_KK: NDArray[np.float64]) -> Labels:
    """The one-to-one renaming with the largest sum: [K] int64, row i goes to column result[i].

    Source: Jonker and Volgenant 1987 (shortest augmenting paths), without its initial reductions.
    """
    cost = -np.asarray(worth_KK, dtype=np.float64)
    count = len(cost)
    rows_of, u, v = np.full(count + 1, -1), np.zeros(count + 1), np.zeros(count + 1)
    for row in range(count):
        rows_of[count] = row
        column = count
        shortest, before = np.full(count, np.inf), np.full(count, count)
        is_used = np.zeros(count + 1, dtype=bool)
        while rows_of[column] >= 0:
            is_used[column] = True
            here = rows_of[column]
            free = ~is_used[:count]
            reached = cost[here] - u[here] - v[:count]
            is_shorter = free & (reached < shortest)
            shortest[is_shorter] = reached[is_shorter]
            before[is_shorter] = column
            following = int(np.where(free, shortest, np.inf).argmin())
            step = shortest[following]
            used = np.flatnonzero(is_used)
            u[rows_of[used]] += step
            v[used] -= step
            shortest[free] -= step
            column = following
        while column != count:
            rows_of[column] = rows_of[before[column]]
            column = int(before[column])
    result = np.empty(count, dtype=np.int64)
    result[rows_of[:count]] = np.arange(count)
    return result


# ---------------------------------------------------------------- of a patient


@dataclass(frozen=True, eq=False)
class Known:
    """A split's thumbnails, its labels counted from 0 without gaps, the probe of them, and how well they go together.

    numbers_K: the label that each number stands for.
    """

    thumbnails: Thumbnails
    labels_N: Labels
    numbers_K: Labels
    probe: Probe
    agreement: Agreement

    @property
    def classes(self) -> int:
        """Classes with images among the thumbnails."""
        return len(self.numbers_K)


def of(patient: Patient, split: Split) -> Known | None:
    """What is known of a split's labels and looks, measured once; None without labelled images of two classes or more."""
    name = f"neighbours {split}"
    if name not in patient.kept:
        patient.kept[name] = _known(thumbnails.of(patient, split))
    kept = patient.kept[name]
    assert kept is None or isinstance(kept, Known)
    return kept


def _known(found: Thumbnails | None) -> Known | None:
    if found is None:
        return None
    found = found.select(found.labels_N >= 0)
    labels_N, numbers_K = numbered(found.labels_N)
    if len(found) < 3 * max(2, len(numbers_K)) or len(numbers_K) < 2:
        return None
    probe = Probe(features(found.pixels_NSS3))
    return Known(found, labels_N, numbers_K, probe, agreement(probe, labels_N, len(numbers_K)))

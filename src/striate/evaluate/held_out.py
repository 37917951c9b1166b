"""Which labelled images may choose a number (a temperature, weights), so that the others can judge it."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence

import numpy as np

from striate.classes import listed
from striate.errors import DataError, UserError, expect
from striate.predictions import UNLABELLED


def held_out(keys: Sequence[str], labels: np.ndarray, share: float = 0.5) -> np.ndarray:
    """Splits images into those for fitting (True) and those for judging (False), by their keys alone.

    The order of the images does not matter: two sets of predictions for the same images are split alike, today and later.
    Every class is split as evenly as its count permits, by the hash of its keys; what one class has too many the next has
    too few, so that classes of a single image do not all fall on one side.

    labels: [N] int64, -1 where there is none; such an image can do neither and is False.
    share: of the labelled images that go to the fit, above 0 and below 1.
    Returns [N] bool.
    Raises UserError when the share leaves one side without an image, DataError when a key stands for several images or
    fewer than two images have a label.
    """
    expect(labels, str(len(keys)), "labels")
    if not 0 < share < 1:
        raise UserError(f"A part to fit on: expected a share above 0 and below 1, found {share}.")
    twice = [key for key, count in Counter(keys).items() if count > 1]
    if twice:
        raise DataError(f"A key stands for one image, found more than once: {listed(twice)}. Evaluate each image once.")
    labelled = np.flatnonzero(labels != UNLABELLED)
    if len(labelled) < 2:
        raise DataError(f"A part to fit on and a part to judge: expected two labelled images or more, found {len(labelled)}.")
    hash_M = np.array([_hash(keys[row]) for row in labelled.tolist()], np.uint64)
    by_class = labelled[np.lexsort((hash_M, labels[labelled]))]
    # Of any n neighbours in this row, floor(n * share) or one more step over a whole number: every class its share.
    steps = np.floor(np.arange(len(by_class) + 1) * share + 1e-9)
    for_fit_N = np.zeros(len(keys), bool)
    for_fit_N[by_class[np.diff(steps) > 0]] = True
    fitted = int(for_fit_N.sum())
    if not 0 < fitted < len(labelled):
        raise UserError(
            f"A share of {share} of {len(labelled):,} labelled images leaves {fitted:,} to fit on and {len(labelled) - fitted:,} "
            "to judge: choose a share nearer to 0.5, or predict more images."
        )
    return for_fit_N


def _hash(key: str) -> int:
    """64 bits of a key's bytes, the same on every machine (the bytes of a file name need not be text)."""
    return int.from_bytes(hashlib.blake2b(os.fsencode(key), digest_size=8).digest(), "little")

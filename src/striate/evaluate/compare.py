"""Whether one network is better than another, or the difference may be chance."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from striate.errors import UserError, expect


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

"""Tests of differences against published cases and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from striate.errors import UserError
from striate.evaluate.compare import holm, mcnemar, two_proportions


def hits(both: int, only_first: int, only_second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    first = [True] * (both + only_first) + [False] * (only_second + neither)
    second = [True] * both + [False] * only_first + [True] * only_second + [False] * neither
    return np.array(first), np.array(second)


@pytest.mark.parametrize(("only_first", "only_second"), [(0, 1), (1, 9), (4, 4), (12, 30), (150, 97), (4000, 4210), (0, 40)])
def test_mcnemar_is_the_exact_binomial_test_of_the_images_that_differ(only_first, only_second):
    expected = stats.binomtest(only_first, only_first + only_second, 0.5).pvalue
    for both, neither in ((0, 0), (500, 70)):  # the others have no say
        assert mcnemar(*hits(both, only_first, only_second, neither)) == pytest.approx(expected, rel=1e-9)
        assert mcnemar(*hits(both, only_second, only_first, neither)) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_of_networks_that_never_differ():
    assert mcnemar(*hits(10, 0, 0, 5)) == 1.0


def test_mcnemar_wants_the_same_images():
    with pytest.raises(UserError, match=r"second_N: expected shape \[3\]"):
        mcnemar(np.ones(3, bool), np.ones(4, bool))


@pytest.mark.parametrize("counts", [(30, 100, 45, 100), (1, 50, 9, 70), (480, 500, 460, 500), (29, 97, 41, 480)])
def test_two_proportions_is_the_chi_square_test_without_correction(counts):
    count, total, other, other_total = counts
    table = [[count, total - count], [other, other_total - other]]
    expected = stats.chi2_contingency(table, correction=False).pvalue
    assert two_proportions(*counts) == pytest.approx(expected, rel=1e-9)


def test_two_proportions_at_the_ends():
    assert two_proportions(0, 10, 0, 20) == two_proportions(10, 10, 20, 20) == 1.0
    for counts in ((1, 0, 1, 2), (3, 2, 1, 2), (-1, 2, 1, 2)):
        with pytest.raises(UserError, match="cannot be compared"):
            two_proportions(*counts)


def test_holm_by_hand():
    """0.01 * 4; then 0.02 * 3; then 0.03 * 2, no less than the one before; then 0.04."""
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.7, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def test_networks_that_are_alike_are_told_apart_as_seldom_as_promised():
    numbers = np.random.default_rng(0)
    found = [mcnemar(numbers.random(300) < 0.7, numbers.random(300) < 0.7) < 0.05 for _ in range(600)]
    assert 0.015 < np.mean(found) < 0.06  # the exact test errs on the safe side

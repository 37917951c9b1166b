"""Axes, curves and matrix, against values worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from striate.report import charts
from striate.report.charts import Chart, Series
from striate.report.history import Curve

NAN = math.nan


def _curve(*values: float) -> Curve:
    nothing_N = np.full(len(values), NAN)
    return Curve(np.arange(len(values), dtype=float), np.array(values), nothing_N, nothing_N)


def _chart(*series: Series, whole: float | None = None, reference: tuple[float, str] | None = None) -> Chart:
    return Chart("loss", "Loss", "nats", series, "epochs", 3.0, charts.plain, whole=whole, reference=reference)


@pytest.mark.parametrize(
    ("low", "high", "most", "expected"),
    [
        (0, 10, 5, [0, 2, 4, 6, 8, 10]),
        (0, 1, 5, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 0.05, 5, [0, 0.01, 0.02, 0.03, 0.04, 0.05]),
        (0, 90, 6, [0, 20, 40, 60, 80]),
    ],
)
def test_ticks_are_round(low: float, high: float, most: int, expected: list[float]) -> None:
    assert charts.ticks(low, high, most) == pytest.approx(expected)


def test_numbers_of_an_axis() -> None:
    assert [charts.plain(value) for value in (0, 0.05, 1200.0, 0.00003, 0.0004, 2.5)] == [
        "0",
        "0.05",
        "1\u202f200",
        "3e\u22125",
        "4e\u22124",
        "2.5",
    ]
    assert [charts.percent(value) for value in (0, 0.2, 0.125)] == ["0\u202f%", "20\u202f%", "12.5\u202f%"]


def test_axis_starts_at_zero_and_holds_every_value() -> None:
    drawn = charts.lay_out(_chart(Series("val", "val", _curve(2.0, 1.0, 4.0))))
    heights = [y for _, _, y in drawn.points]
    assert min(heights) > drawn.top
    assert drawn.y_ticks[0] == (drawn.bottom, "0")
    assert drawn.bottom - heights[0] == pytest.approx(2 * (drawn.bottom - heights[1]), abs=0.2)
    assert drawn.beyond == ""


def test_rings_and_written_axis() -> None:
    chart = Chart(
        "coverage",
        "Top-1",
        "",
        [Series("", "val", _curve(1.0, 0.5))],
        "share",
        1.0,
        charts.percent,
        x_written=charts.percent,
        rings=[(0.5, 0.75), (1.0, 0.5)],
        whole=1.0,
    )
    drawn = charts.lay_out(chart)
    middle, end = drawn.rings
    assert middle[0] == pytest.approx((drawn.left + drawn.right) / 2, abs=0.1)
    assert end == drawn.points[-1][1:]  # on the curve
    assert [name for _, name in drawn.x_ticks] == [f"{share}\u202f%" for share in (0, 20, 40, 60, 80, 100)]


def test_shares_in_text() -> None:
    assert charts.rounded(0.4) == "40.0\u202f%" and charts.rounded(0.5, 0) == "50\u202f%"
    assert charts.span((0.381, 0.42)) == "38.1 to 42.0\u202f%"


def test_share_ends_at_one() -> None:
    drawn = charts.lay_out(_chart(Series("val", "val", _curve(0.2, 0.5, 1.0)), whole=1.0))
    assert drawn.points[-1][2] == drawn.top


def test_missing_value_breaks_the_line() -> None:
    drawn = charts.lay_out(_chart(Series("val", "val", _curve(1.0, 1.0, NAN, 1.0))))
    assert len(drawn.lines) == 2
    assert len(drawn.points) == 3


def test_value_far_above_is_cut_off_and_said() -> None:
    drawn = charts.lay_out(_chart(Series("train", "train", _curve(*[1.0] * 80, 500.0))))
    assert drawn.beyond == "1 values lie above the axis, up to 500."
    assert drawn.y_ticks[-1][1] == "1.5"


def test_level_of_guessing_is_drawn_within_the_axis() -> None:
    drawn = charts.lay_out(_chart(Series("val", "val", _curve(1.0, 0.5)), reference=(2.5, "guessing")))
    assert drawn.reference is not None
    assert drawn.top < drawn.reference[0] < drawn.bottom


def test_matrix_has_a_cell_for_each_count() -> None:
    matrix = charts.lay_out_matrix(np.array([[3, 1], [0, 4]]), ["cat", "a name of more than fifteen letters"])
    assert [(cell.row, cell.column, cell.count, cell.share, cell.strength) for cell in matrix.cells] == [
        (0, 0, 3, "75\u202f%", 0.866),
        (0, 1, 1, "25\u202f%", 0.5),
        (1, 1, 4, "100\u202f%", 1.0),
    ]
    assert matrix.names == ["cat", "a name of more…"]

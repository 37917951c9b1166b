"""Reliability, coverage and kinds of images on the page, against scikit-learn, scipy and cases worked by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.calibration import calibration_curve
from sklearn.metrics import f1_score

from striate import predictions
from striate.evaluate import metrics
from striate.evaluate.score import Protocol, score, write_evaluation
from striate.files import write_json
from striate.report import charts, confidence
from striate.report.confidence import lay_out
from striate.report.gather import gather
from striate.report.write import write_report
from striate.view import View

FOLDER = "evaluation/val-center-0a1b2c"
NAN = math.nan


@pytest.fixture
def run(tmp_path: Path, make_run: Callable[..., Path]) -> Path:
    return make_run(tmp_path / "run", images=40)


def _summary(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / FOLDER / "summary.json").read_text())
    return found


def _change(run: Path, **values: Any) -> None:
    write_json(run / FOLDER / "summary.json", {**_summary(run), **values})


def _calibrated(run: Path, **values: Any) -> None:
    temperature = {"value": 1.25, "images": 60, "nll_before": 1.0, "nll_after": 0.9, "fitted_on": "60 of 118 labelled images"}
    written = {"temperature": temperature, "checkpoint": "", "weights": "EMA", "views": "center", **values}
    write_json(run / "calibration.json", {**written, "calibration_error_before": 0.08, "calibration_error_after": 0.031})


# ---------------------------------------------------------------- the diagram


def test_bins_stand_where_they_belong() -> None:
    drawn = lay_out(np.array([[0.0, 0.5, 0, NAN, NAN], [0.5, 0.75, 30, 0.6, 0.5], [0.75, 1.0, 10, 0.95, 1.0]]))
    low, high = drawn.bins  # a bin without images is not drawn
    wide, tall = drawn.right - drawn.left, drawn.bottom - drawn.top
    assert (low.x, low.width) == (drawn.left + wide / 2, wide / 4)
    assert low.accuracy_y == drawn.bottom - tall / 2 and high.accuracy_y == drawn.top
    # Three images of four are in the first bin, whose bar is the highest one.
    assert low.share_y == drawn.share_top
    assert drawn.share_bottom - high.share_y == pytest.approx((drawn.share_bottom - drawn.share_top) / 3, abs=0.1)
    assert drawn.most == "75\u202f%"
    x, y_low, y_high = low.whisker
    interval = binomtest(15, 30).proportion_ci(method="wilson")
    assert x == pytest.approx(drawn.left + 0.6 * wide, abs=0.1)
    assert [y_low, y_high] == pytest.approx([drawn.bottom - tall * end for end in interval], abs=0.1)
    assert low.words == "says 60.0\u202f%, right 50.0\u202f%: 30 images (75\u202f%)"


def test_the_diagonal_joins_the_corners() -> None:
    drawn = lay_out(np.array([[0.0, 1.0, 4, 0.5, 0.5]]))
    assert drawn.ticks[0] == (drawn.left, drawn.bottom, "0\u202f%")
    assert drawn.ticks[-1] == (drawn.right, drawn.top, "100\u202f%")


def test_bins_are_scikit_learns(run: Path) -> None:
    said = predictions.read(run / FOLDER / "predictions.parquet")
    shares_NK = np.exp(metrics.log_probabilities(said.scores))
    confidence_N, is_right_N = shares_NK.max(axis=1), shares_NK.argmax(axis=1) == said.labels
    accuracy_M, mean_M = calibration_curve(is_right_N, confidence_N, n_bins=15)
    drawn = confidence.confidence(gather(run)).diagram
    assert drawn is not None
    assert [one.whisker[0] for one in drawn.bins] == pytest.approx(drawn.left + (drawn.right - drawn.left) * mean_M, abs=0.1)
    tall = drawn.bottom - drawn.top
    assert [one.accuracy_y for one in drawn.bins] == pytest.approx(drawn.bottom - tall * accuracy_M, abs=0.1)


def test_page_draws_the_diagram(run: Path) -> None:
    page = write_report(run).read_text()
    drawn = confidence.confidence(gather(run)).diagram
    assert drawn is not None
    svg = page.split('<svg class="chart reliability"')[1].split("</svg>")[0]
    assert svg.count('<rect class="bin"') == svg.count('<rect class="bin share"') == len(drawn.bins) > 3
    assert f'd="M{drawn.left} {drawn.bottom}L{drawn.right} {drawn.top}"' in svg
    assert "nan" not in svg


# ---------------------------------------------------------------- sentences


def test_error_is_the_summarys_with_its_interval(run: Path) -> None:
    _change(run, calibration_error=0.0712, calibration_error_interval=[0.051, 0.0934])
    (sentence,) = confidence.confidence(gather(run)).sentences
    assert sentence.startswith("Calibration error 7.1\u202f% (95\u202f% interval 5.1 to 9.3\u202f%). It says ")
    assert "cannot tell" not in sentence
    _change(run, calibration_error_interval=[0, 0.0934])
    assert "These images cannot tell the network from a calibrated one." in confidence.confidence(gather(run)).sentences[0]


@pytest.mark.parametrize(
    ("top1", "low", "words"),
    [
        ("0.5", 0.2, ": too sure of itself"),
        ("0.9", 0.05, ": too modest"),
        ("0.801", 0.01, ""),
        ("0.9", 0, ""),  # chance may have done it
    ],
)
def test_side_of_the_error(run: Path, top1: str, low: float, words: str) -> None:
    rows = f"from,to,images,confidence,top1\n0.0,0.5,0,,\n0.5,1.0,40,0.8,{top1}\n"
    (run / FOLDER / "reliability.csv").write_text(rows)
    _change(run, calibration_error_interval=[low, 0.5])
    (sentence,) = confidence.confidence(gather(run)).sentences
    right = f"{100 * float(top1):.1f}\u202f%"
    assert sentence.endswith(f"It says 80.0\u202f% on average and is right for {right} of the images{words}.")


def test_temperature_of_the_scored_weights(run: Path) -> None:
    _calibrated(run)
    sentence = confidence.confidence(gather(run)).sentences[-1]
    assert sentence.startswith("Temperature 1.25, fitted on 60 of 118 labelled images. On the others the calibration error goes ")
    assert "from 8.0\u202f% to 3.1\u202f%" in sentence and "“striate predict” applies it" in sentence


def test_temperature_of_other_weights_is_said(run: Path) -> None:
    _calibrated(run, checkpoint="step-9")
    assert "It is of other scores than these: EMA weights, step-9, center." in confidence.confidence(gather(run)).sentences[-1]


def test_temperature_at_its_limit_is_doubted(run: Path) -> None:
    _calibrated(run, temperature={"value": 0.01, "images": 9, "nll_before": 1, "nll_after": 0.1, "fitted_on": "9 images"})
    assert "the lowest searched" in confidence.confidence(gather(run)).sentences[-1]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"temperature": 3}', '{"temperature": {"value": 1e9}}', "{"])
def test_broken_temperature_never_stops_the_report(run: Path, content: str) -> None:
    (run / "calibration.json").write_text(content)
    facts = gather(run)
    assert not any("Temperature" in sentence for sentence in confidence.confidence(facts).sentences)
    assert content == "{}" or any("calibration.json" in gap for gap in facts.gaps)


# ---------------------------------------------------------------- coverage


def test_marked_shares_lie_on_the_curve(run: Path) -> None:
    found = confidence.confidence(gather(run))
    assert [share for share, _ in found.marked] == [0.5, 0.8, 0.9, 0.95]
    assert dict(found.marked) == {float(share): top1 for share, top1 in _summary(run)["coverage"].items()}
    assert found.coverage is not None
    curve = found.coverage.series[0].curve
    for share, top1 in found.marked:
        assert curve.y_N[np.argmin(np.abs(curve.x_N - share))] == pytest.approx(top1, abs=1e-5)
    # All images answered is top-1 itself.
    assert curve.y_N[-1] == pytest.approx(_summary(run)["top1"], abs=1e-5)
    drawn = charts.lay_out(found.coverage)
    assert len(drawn.rings) == 4 and drawn.x_ticks[-1] == (drawn.right, "100\u202f%")
    page = write_report(run).read_text()
    for share, top1 in found.marked:
        assert f'<th scope="row">{100 * share:.0f}\u202f%</th><td class="number">{100 * top1:.1f}\u202f%</td>' in page


# ---------------------------------------------------------------- kinds of images


def test_strata_in_words() -> None:
    def part(low: float | None, high: float | None, images: int) -> dict[str, Any]:
        return {"low": low, "high": high, "images": images, "top1": 0.5, "top1_interval": [0.25, 0.75]}

    tables = confidence.strata(
        {
            "strata": {
                "brightness": [part(None, 0.3612, 3), part(0.3612, 0.5, 4), part(0.5, None, 5)],
                "box share": [part(0.0, 0.05, 6), part(0.6, 1.0, 7), part(None, None, 8)],
            },
            "parts": {"grey": part(None, None, 2), "colour": part(None, None, 9)},
        }
    )
    assert [(title, [(row.words, row.images) for row in rows]) for title, rows in tables] == [
        ("Brightness, from 0 to 1", [("below 0.36", 3), ("0.36 to 0.50", 4), ("0.50 and more", 5)]),
        (
            "Share of the photo that the box covers",
            [("0\u202f% to 5\u202f%", 6), ("60\u202f% to 100\u202f%", 7), ("unknown", 8)],
        ),
        ("Grey and colour images", [("grey", 2), ("colour", 9)]),
    ]
    assert tables[0][1][0].interval == (0.25, 0.75)


@pytest.mark.parametrize("odd", [None, [], "text", {"brightness": 3}, {"brightness": [3, {}, {"images": "x", "top1": 1}]}])
def test_odd_strata_are_left_out(odd: Any) -> None:
    assert confidence.strata({"strata": odd, "parts": odd}) == []


def test_page_tells_strata_of_the_images(run: Path) -> None:
    page = write_report(run).read_text()
    rows = confidence.confidence(gather(run)).strata
    assert [title for title, _ in rows] == ["Brightness, from 0 to 1", "Share of the photo that the box covers"]
    assert sum(row.images for row in rows[0][1]) == sum(row.images for row in rows[1][1]) == _summary(run)["used"]
    for _, table in rows:
        for row in table:
            low, high = row.interval or (NAN, NAN)
            cells = [f"{row.images:,}", f"{100 * row.top1:.1f}\u202f%", f"{100 * low:.1f} to {100 * high:.1f}\u202f%"]
            line = "".join(f'<td class="number">{cell}</td>' for cell in cells)
            assert f'<th scope="row">{row.words}</th>{line}' in page


# ---------------------------------------------------------------- what is missing


@pytest.mark.parametrize("name", ["reliability.csv", "coverage.csv"])
def test_a_missing_table_is_said_and_the_rest_stays(run: Path, name: str) -> None:
    (run / FOLDER / name).unlink()
    facts = gather(run)
    found = confidence.confidence(facts)
    assert (found.diagram is None, found.coverage is None) == (name == "reliability.csv", name == "coverage.csv")
    assert found.sentences and found.marked and found.strata
    assert [gap for gap in facts.gaps if f"{FOLDER} has no {name}" in gap and "Evaluate again" in gap]
    page = write_report(run).read_text()
    assert ('<svg class="chart reliability"' in page) == (name != "reliability.csv")
    assert f"has no {name}" in page


@pytest.mark.parametrize(
    "content",
    ["", "from,to\n0,1\n", "from,to,images,confidence,top1\n0,1,inf,0.5,0.5\n", "from,to,images,confidence,top1\n0,1,4,x,0\n"],
)
def test_a_broken_table_is_said(run: Path, content: str) -> None:
    (run / FOLDER / "reliability.csv").write_text(content)
    facts = gather(run)
    assert confidence.confidence(facts).diagram is None
    assert any(f"{FOLDER}/reliability.csv could not be used" in gap for gap in facts.gaps)


def test_a_run_without_evaluation_has_no_section(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text("")
    assert not confidence.confidence(gather(tmp_path))
    assert 'id="confidence"' not in write_report(tmp_path).read_text()


def test_a_class_without_images_is_named_and_not_counted(run: Path) -> None:
    said = predictions.read(run / FOLDER / "predictions.parquet")
    part = said.select(said.labels != 9)  # "jug & cup"
    protocol = Protocol("val", View.from_json(json.loads((run / "view.json").read_text())), "EMA", "fp32", subset=True)
    write_evaluation(run / FOLDER, score(part, len(part), [], protocol), part, [])
    page = write_report(run).read_text()
    assert "Without an image here, so without a line: jug &amp; cup." in page
    expected = f1_score(part.labels, part.scores.argmax(axis=1), labels=[k for k in range(12) if k != 9], average="macro")
    assert f'Macro-F1</p><p class="medium">{expected:.3f}</p>' in page
    assert page.split("<caption>All classes, best first</caption>")[1].split("</table>")[0].count('<th scope="row">') == 11

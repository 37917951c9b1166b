"""The chart of accuracy and cost: every network once, areas and places true to the numbers, nothing dropped in silence."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from striate import cli
from striate.errors import UserError
from striate.measure import listing
from striate.measure.latency import Latency, Timing
from striate.report import cost_chart
from striate.report.cost_chart import Drawn, Mark, Point
from striate.report.letters import width

CROP, TEN = "single crop 224 of 256, ImageNet val", "10 crops, ImageNet val"
SVG = "{http://www.w3.org/2000/svg}"


def point(name: str, top1: float | None, macs: float, parameters: float, protocol: str = CROP, latency_s=None) -> Point:
    return Point(name, 2015, int(parameters), int(macs), top1, None, protocol if top1 is not None else "", "a paper", latency_s)


FEW = [
    point("alpha", 0.60, 1e9, 4e6, latency_s=(0.009, 0.010, 0.012)),
    point("beta", 0.70, 1e10, 16e6, latency_s=(0.09, 0.10, 0.15)),
    point("gamma", 0.75, 1e11, 64e6, TEN, latency_s=(0.9, 1.0, 1.1)),
    point("delta", None, 1e9, 1e6),
    point("small", 0.91, 1e8, 1e6, "CIFAR-10 test, no augmentation"),
]


def circles(drawn: Drawn) -> list[Mark]:
    return [mark for mark in drawn.marks if mark.kind == "circle" and mark.look.startswith("network")]


def texts(drawn: Drawn) -> str:
    return "\n".join(mark.text for mark in drawn.marks if mark.kind == "text")


def test_one_circle_for_each_network_and_panel_its_area_by_parameters():
    found = circles(cost_chart.lay_out(FEW, "a machine"))
    assert sorted(mark.text.split(":")[0] for mark in found) == sorted(["alpha", "beta", "gamma"] * 2)
    sizes = {mark.text.split(":")[0]: mark.size for mark in found}
    areas = {name: math.pi * size**2 for name, size in sizes.items()}
    assert areas["beta"] / areas["alpha"] == pytest.approx(4, rel=0.01)
    assert areas["gamma"] / areas["beta"] == pytest.approx(4, rel=0.01)


def test_places_are_true_to_the_numbers():
    """MACs and latency by logarithm, accuracy linear: 0.60, 0.70, 0.75 lie two thirds and all of the way up."""
    found = circles(cost_chart.lay_out(FEW, "a machine"))
    for panel in (found[:3], found[3:]):
        places = {mark.text.split(":")[0]: mark for mark in panel}
        a, b, c = (places[name] for name in ("alpha", "beta", "gamma"))
        assert b.x - a.x == pytest.approx(c.x - b.x, abs=0.3) and b.x > a.x
        assert (a.y - b.y) / (a.y - c.y) == pytest.approx(10 / 15, abs=0.01)
        assert [mark.look for mark in (a, b, c)] == ["network", "network", "network apart"]


def test_ticks_stand_where_their_numbers_are():
    drawn = cost_chart.lay_out(FEW[:3], "")
    marks = {mark.text: mark for mark in drawn.marks if mark.kind == "text"}
    placed = {mark.text.split(":")[0]: mark for mark in circles(drawn)[:3]}
    assert marks["10\u202fG"].x == pytest.approx(placed["beta"].x, abs=0.2)
    assert marks["70"].y - 4 == pytest.approx(placed["beta"].y, abs=0.2)


def test_without_latency_there_is_one_panel():
    plain = [Point(**{**vars(one), "latency_s": None}) for one in FEW]
    drawn = cost_chart.lay_out(plain, "")
    assert len(circles(drawn)) == 3
    assert "latency" not in texts(drawn).lower()


def test_what_is_not_drawn_is_said():
    said = texts(cost_chart.lay_out(FEW, "this machine")).replace("\n", " ")
    assert "Not drawn, without a published accuracy: delta." in said
    assert "Not drawn, their accuracy is of other data: CIFAR-10: small." in said
    assert f"Dashed, of another protocol: {TEN}: gamma." in said
    assert f"Protocol: {CROP}." in said
    assert "Latency here: this machine." in said


def test_labels_hide_no_other_label_and_stay_in_the_picture():
    """All networks that striate has a published accuracy for."""
    shown = cost_chart.points(listing_of_all(), None)
    drawn = cost_chart.lay_out(shown, "")
    labels = [mark for mark in drawn.marks if mark.look == "label middle"]
    assert sorted(mark.text for mark in labels) == sorted(mark.text.split(":")[0] for mark in circles(drawn))
    assert len(labels) > 40
    rects = [(m.x - width(m.text, 13) / 2, m.y - 11, m.x + width(m.text, 13) / 2, m.y + 1) for m in labels]
    for one, other in itertools.combinations(rects, 2):
        assert not (one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3])
    assert all(left >= 0 and right <= drawn.width for left, _, right, _ in rects)
    for mark in drawn.marks:
        assert -1 <= mark.x <= drawn.width + 1 and 0 <= mark.y <= drawn.height


def listing_of_all() -> list[listing.Measured]:
    """Cheap: only names and published numbers are real here; costs are made up from the name's place."""
    found = []
    for place, name in enumerate(listing.catalog.NETWORKS):
        count = listing.Totals(10**6 * (1 + place), 10**6 * (1 + place), 10**8 * (1 + place * 7 % 50))
        found.append(listing.Measured(listing.subject(name), count))
    return found


def test_points_are_the_measured_numbers():
    found = listing.measure("alexnet", "se-googlenet-paths")
    row = Latency("alexnet", 227, 1, 0.02, 0.01, 0.03, 9, None)
    other = Latency("alexnet", 227, 8, 0.2, 0.1, 0.3, 9, None)
    one, two = cost_chart.points(found, Timing((row, other), "cpu", "fp32", False, 2))
    assert (one.parameters, one.macs, one.top1, one.latency_s) == (60_965_224, 724_406_816, 0.571, (0.01, 0.02, 0.03))
    assert (two.parameters, two.top1, two.latency_s) == (7_152_191, None, None)  # without its auxiliary heads


TIMING = Timing((), "cpu (<b>a processor</b>)", "bf16", True, 2)


def test_svg_is_well_formed_and_stands_alone(tmp_path: Path):
    path = cost_chart.write_chart(tmp_path / "c.svg", [*FEW, point("<evil> & co", 0.65, 5e9, 1e7)], TIMING)
    root = ElementTree.parse(path).getroot()
    assert len([one for one in root.iter(f"{SVG}circle") if one.get("class").startswith("network")]) == 3 * 2 + 1
    assert "<evil> & co" in [text.text for text in root.iter(f"{SVG}text")]
    assert root.find(f"{SVG}style") is not None
    assert TIMING.conditions in "".join(root.itertext())


def test_html_is_one_page_with_a_table_and_needs_nothing_else(tmp_path: Path):
    path = cost_chart.write_chart(tmp_path / "c.html", [*FEW, point("<evil>", 0.65, 5e9, 1e7)], TIMING)
    page = path.read_text(encoding="utf-8")
    assert page.count("<tr>") == 1 + len(FEW) + 1
    assert '<svg class="cost"' in page and "default-src 'none'" in page
    assert "<evil>" not in page and "&lt;evil&gt;" in page
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")
    assert "10.0&#8239;ms" in page


def test_png_shows_the_circles(tmp_path: Path):
    path = cost_chart.write_chart(tmp_path / "c.png", FEW, TIMING)
    drawn = cost_chart.lay_out(FEW, TIMING.conditions)
    with Image.open(path) as picture:
        assert picture.size == (2 * drawn.width, 2 * drawn.height)
        pixels_HW3 = np.asarray(picture.convert("RGB")).astype(int)
    for mark in circles(drawn):
        within = pixels_HW3[round(2 * (mark.y + mark.size * 0.6)), round(2 * (mark.x + mark.size * 0.3))]  # off the grid
        colour = np.array([int(mark.colour[place : place + 2], 16) for place in (1, 3, 5)])
        assert np.abs(within - (255 + 0.32 * (colour - 255))).max() <= 3


def test_another_ending_is_refused_and_so_is_an_empty_chart(tmp_path: Path):
    with pytest.raises(UserError, match=r"c\.pdf: expected a name that ends in \.png, \.svg or \.html"):
        cost_chart.write_chart(tmp_path / "c.pdf", FEW, None)
    with pytest.raises(UserError, match="nobody published an accuracy of delta"):
        cost_chart.write_chart(tmp_path / "c.svg", [FEW[3]], None)
    assert not list(tmp_path.iterdir())


def test_a_single_network_has_axes():
    drawn = cost_chart.lay_out(FEW[:1], "a machine")
    assert len(circles(drawn)) == 2
    assert all(math.isfinite(mark.x) and math.isfinite(mark.y) for mark in drawn.marks)


def test_the_command_draws_a_chart_and_times_one_image_for_it(tmp_path: Path, capsys):
    assert cli.run(["measure", "lenet5", "--chart", str(tmp_path / "timed.svg")]) == 0
    assert "batch   1" in capsys.readouterr().out
    assert "against latency" in (tmp_path / "timed.svg").read_text(encoding="utf-8")
    assert cli.run(["measure", "lenet5", "--no-latency", "--chart", str(tmp_path / "plain.svg")]) == 0
    assert "batch" not in capsys.readouterr().out
    assert "against latency" not in (tmp_path / "plain.svg").read_text(encoding="utf-8")
    assert cli.run(["measure", "lenet5", "--chart", str(tmp_path / "chart.gif")]) == 2
    assert ".png, .svg or .html" in capsys.readouterr().err

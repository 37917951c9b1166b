"""The page of a localisation: boxes at the edges that were scored, groups by what went right, complete and escaped."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from striate.classes import Classes
from striate.data.index import Boxes, Index, Keys
from striate.localize import baselines, metrics
from striate.localize.find import Found
from striate.localize.metrics import BoxAccuracy
from striate.localize.score import Cut, Localised
from striate.report import localised
from striate.view import View

CROP = View(32, "crop", 32, "bilinear", False, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
SQUASH = replace(CROP, fit="squash")
EVIL = "<script>alert(1)<'\">"
WIDE, HIGH = 60, 40
TRUE = (10.0, 5.0, 40.0, 35.0)  # of every photo: 30 by 30 pixels


class Page(HTMLParser):
    """The tags of a page with their attributes, and its text, as a browser sees them."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))
        self.words = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += data

    def of(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def boxes(self, role: str) -> list[tuple[float, ...]]:
        """Edges of the boxes drawn for a role, in the order of the page."""
        found = [one for one in self.of("rect") if one.get("class") == f"box {role}"]
        return [
            (x, y, x + float(one["width"]), y + float(one["height"]))
            for one in found
            for x, y in [(float(one["x"]), float(one["y"]))]
        ]


def shifted(iou: float) -> tuple[float, ...]:
    """A box of the true one's size, moved to the right until its IoU is this: with 30 px, (30 - d) / (30 + d)."""
    by = 30 * (1 - iou) / (1 + iou)
    return TRUE[0] + by, TRUE[1], TRUE[2] + by, TRUE[3]


def localisation(
    folder: Path,
    cases: list[tuple[int, int, float, float]],
    *,
    view: View = SQUASH,
    maps: bool = False,
    titles: tuple[str, ...] = ("cat", "dog", "cow"),
    keys: list[str] | None = None,
    truths: list[list[tuple[float, ...]]] | None = None,
) -> Localised:
    """A localisation with a photo for each case: true class, answer, IoU of the answer's box, IoU of the true class's."""
    count = len(cases)
    keys = keys or [f"{i}.png" for i in range(count)]
    for i, key in enumerate(keys):
        Image.new("RGB", (WIDE, HIGH), (40, 90, 20 * i)).save(folder / key, "PNG")
    truths = truths or [[TRUE]] * count
    truth = Boxes.of_images(
        count,
        np.repeat(np.arange(count), [len(some) for some in truths]),
        np.array([b for some in truths for b in some], float).reshape(-1, 4),
    )
    labels_N = np.array([true for true, _, _, _ in cases])
    answers_NA = np.array([[answer, (answer + 1) % 3] for _, answer, _, _ in cases])
    answers_NA4 = np.array([[shifted(first), shifted(known)] for _, _, first, known in cases])
    known_N4 = np.array([shifted(known) for _, _, _, known in cases])
    sides_N2 = np.tile([WIDE, HIGH], (count, 1))
    rising = np.linspace(0.9, 0.5, count).astype(np.float32)
    values = np.zeros((count, 3, 4, 4), np.float32)
    values[:, :, 1, 2] = 1.0
    found = Found(
        np.arange(count), tuple(keys), labels_N, sides_N2, answers_NA, np.stack([rising, 1 - rising], axis=1),
        values if maps else None, None if maps else np.zeros((count, 3, 4)), (("gone.png", EVIL),), view,
        "grad-cam" if maps else "head", "layer4" if maps else "",
    )  # fmt: skip
    accuracy = None
    if maps:
        each = BoxAccuracy()
        for i in range(count):
            each.add(found.heatmap(i, -1), truth.of(i))
        accuracy = each.result()
    measured = metrics.localisation(answers_NA, answers_NA4, known_N4, labels_N, truth, accuracy)
    whole_N4 = baselines.whole(sides_N2)
    by_nothing = {
        name: metrics.localisation(answers_NA, whole_N4[:, None].repeat(2, 1), whole_N4, labels_N, truth)
        for name in ("whole image", "centre box")
    }
    summary: dict[str, Any] = {
        "protocol": "val split · by hand", "notes": ["a note"], "split": "val", "weights": "raw", "checkpoint": "step-3",
    }  # fmt: skip
    index = Index(
        folder, "val", "folder", Keys.of(keys), labels_N.astype(np.int32), Classes(("a", "b", "c"), ("", "", "")), truth,
        np.zeros(count, np.int64), np.zeros(count, np.int64),
    )  # fmt: skip
    home = folder / "run" / "localization" / "val-x"
    home.mkdir(parents=True)
    return Localised(
        home, found, truth, answers_NA4, known_N4, metrics.best_iou(known_N4, truth), (Cut(0.2, "largest"), Cut(0.3, "largest")),
        np.zeros(count, np.int64), measured, by_nothing, summary, titles, index,
    )  # fmt: skip


def rows(done: Localised, most: int = 8) -> dict[str, list[int]]:
    return {choice.title: choice.rows_M.tolist() for choice in localised.choices(done, most)}


# ---------------------------------------------------------------- which photos


def test_photos_are_grouped_by_what_went_right(tmp_path: Path) -> None:
    cases = [
        (0, 0, 0.6, 0.6),  # right
        (0, 0, 0.9, 0.9),  # right, tighter
        (1, 1, 0.7, 0.7),  # right, of another class
        (1, 1, 0.3, 0.3),  # right class, loose
        (2, 2, 0.1, 0.1),  # right class, looser
        (0, 1, 0.8, 0.2),  # right box, wrong class
        (2, 1, 0.6, 0.6),  # right box, wrong class, less sure
        (2, 0, 0.2, 0.8),  # wrong, both; only the true class's box would fit
    ]
    found = rows(localisation(tmp_path, cases))
    assert found["Right and tight"] == [1, 2, 0]  # of each class one before a second
    assert found["Right class, wrong box"] == [4, 3]
    assert found["Right box, wrong class"] == [5, 6]
    # IoU .6 .9 .7 .3 .1 .2 .6 .8, whose median is .6: all are near enough for eight places, the best first.
    assert found["In the middle"] == [1, 7, 2, 0, 6, 3, 5, 4]


def test_a_group_has_at_most_so_many_and_the_middle_those_nearest_to_the_median(tmp_path: Path) -> None:
    done = localisation(tmp_path, [(0, 0, iou, iou) for iou in (0.95, 0.9, 0.55, 0.5, 0.45, 0.1, 0.05)])
    found = rows(done, 3)
    assert found["In the middle"] == [2, 3, 4]
    assert found["Right and tight"] == [0, 1, 2]
    assert found["Right class, wrong box"] == [6, 5, 4]
    assert "median IoU, 0.50" in localised.choices(done)[1].intro


def test_images_without_a_box_or_a_label_are_in_no_group(tmp_path: Path) -> None:
    done = localisation(tmp_path, [(0, 0, 0.9, 0.9), (1, 1, 0.9, 0.9), (-1, 2, 0.9, 0.9)], truths=[[TRUE], [], [TRUE]])
    assert {row for some in rows(done).values() for row in some} == {0}
    assert localised.counted_iou(done) == pytest.approx([0.9])
    assert "1 of 1 images" in localised.choices(done)[0].intro


# ---------------------------------------------------------------- a photo


def test_boxes_stand_at_the_edges_that_were_scored(tmp_path: Path) -> None:
    second = (0.0, 0.0, 60.0, 4.0)
    done = localisation(tmp_path, [(0, 1, 0.8, 0.2)], truths=[[TRUE, second]])
    page = Page(localised.write(done))
    # The photo stands in two groups: in the middle, and as a right box of a wrong class.
    assert page.boxes("truth") == [TRUE, second] * 2
    np.testing.assert_allclose(page.boxes("answer"), [done.answers_NA4[0, 0]] * 2, atol=0.011)
    np.testing.assert_allclose(page.boxes("known"), [done.known_N4[0]] * 2, atol=0.011)
    assert [one["viewbox"] for one in page.of("svg") if one.get("class") == "seen"] == ["0 0 60 40"] * 2
    assert "dog 90.0" in page.words and "in truth cat" in page.words
    assert "IoU 0.80" in page.words and "IoU 0.20" in page.words and "2 boxes drawn by people" in page.words


def test_a_right_answer_has_one_box_and_no_probability_is_made_up(tmp_path: Path) -> None:
    right = localised.item(localisation(tmp_path, [(0, 0, 0.9, 0.9)]), 0, np.zeros((HIGH, WIDE, 3), np.uint8))
    assert [box.role for box in right.pictures[0].boxes] == ["truth", "answer"]
    (only,) = right.lines
    assert (only.role, only.title) == ("answer", "cat") and only.iou == pytest.approx(0.9)
    folder = tmp_path / "other"
    folder.mkdir()
    # Of three classes the first answers are 1 and 2, so nobody kept what class 0 had; of the second case it is the second answer.
    done = localisation(folder, [(0, 1, 0.8, 0.2), (2, 1, 0.8, 0.2)])
    lines = [localised.item(done, i, np.zeros((HIGH, WIDE, 3), np.uint8)).lines[1] for i in range(2)]
    assert lines[0].probability is None and lines[1].probability == pytest.approx(0.5)


def test_maps_stand_beside_the_photo_each_with_its_own_box(tmp_path: Path) -> None:
    done = localisation(tmp_path, [(0, 1, 0.8, 0.2)], maps=True)
    shown = localised.item(done, 0, np.full((HIGH, WIDE, 3), 120, np.uint8))
    roles = [[box.role for box in picture.boxes] for picture in shown.pictures]
    assert roles == [["truth", "answer", "known"], ["truth", "answer"], ["truth", "known"]]
    assert [picture.words for picture in shown.pictures] == ["the photo", "heat of its answer", "heat of the true class"]
    pixels = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(one.uri.partition(",")[2])))).astype(int) for one in shown.pictures
    ]
    colour = [np.ptp(one, axis=2) for one in pixels]
    assert colour[0].max() < 4 and all(one.max() > 60 for one in colour[1:])  # heat on grey
    hottest = np.argwhere(colour[1] == colour[1].max()).mean(axis=0) / colour[1].shape
    np.testing.assert_allclose(hottest, (1.5 / 4, 2.5 / 4), atol=0.05)  # the middle of cell (1, 2)


@pytest.mark.parametrize(("view", "edges"), [(CROP, (10, 0, 50, 40)), (SQUASH, None)])
def test_what_the_view_cuts_off_is_darker(tmp_path: Path, view: View, edges: tuple[int, ...] | None) -> None:
    done = localisation(tmp_path, [(0, 0, 0.9, 0.9)], view=view)
    assert localised.item(done, 0, np.zeros((HIGH, WIDE, 3), np.uint8)).pictures[0].seen == edges
    page = Page(localised.write(done))
    assert ("What is darker the network did not see" in page.words) is (edges is not None)
    beside = [one["d"] for one in page.of("path") if one.get("class") == "beside"]
    assert beside == ([] if edges is None else ["M0 0H60V40H0ZM10.0 0.0H50.0V40.0H10.0Z"] * 2)


def test_a_photo_is_shown_as_its_boxes_are_turned(tmp_path: Path) -> None:
    done = localisation(tmp_path, [(0, 0, 0.9, 0.9)], view=replace(SQUASH, exif=True))
    stored = np.full((WIDE, HIGH, 3), 120, np.uint8)
    stored[:20, :20] = (250, 0, 0)  # in the upper left as stored, in the upper right when turned by orientation 6
    tags = Image.Exif()
    tags[0x0112] = 6
    Image.fromarray(stored).save(tmp_path / "0.png", exif=tags)
    (image, *_) = Page(localised.write(done)).of("image")
    assert (image["width"], image["height"]) == ("60", "40")
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(image["href"].partition(",")[2])))).astype(int)
    red = np.argwhere(shown[..., 0] - shown[..., 1] > 100).mean(axis=0) / shown.shape[:2]
    np.testing.assert_allclose(red, (10 / 40, 50 / 60), atol=0.02)


def test_photos_that_are_gone_or_have_changed_are_left_out_with_a_note(tmp_path: Path) -> None:
    done = localisation(tmp_path, [(0, 0, 0.9, 0.9), (0, 0, 0.8, 0.8), (0, 0, 0.7, 0.7)])
    (tmp_path / "0.png").unlink()
    Image.new("RGB", (HIGH, WIDE)).save(tmp_path / "1.png")
    page = Page(localised.write(done))
    assert {one["aria-label"] for one in page.of("svg") if one.get("class") == "seen"} == {"2.png"}
    assert page.words.count("0.png: not shown, as it can no longer be read") == 1
    assert page.words.count("1.png: not shown, as it has changed") == 1


# ---------------------------------------------------------------- the page


def test_the_page_says_all_numbers_and_needs_nothing_else(tmp_path: Path) -> None:
    done = localisation(tmp_path, [(0, 0, 0.9, 0.9), (1, 1, 0.3, 0.3), (2, 1, 0.6, 0.6), (0, 1, 0.8, 0.2)], maps=True)
    path = localised.write(done)
    page = Page(path)
    assert path == done.folder / "index.html"
    assert "Where run finds the object" in page.words and "val split · by hand" in page.words and "a note" in page.words
    measured = done.measured
    low, high = measured.gt_known_accuracy.interval
    # Two of four boxes for the true class are right; one answer of four is, with its box.
    assert measured.gt_known_accuracy.count == 2 and measured.top1_error.count == 3
    for said in ("50.0 %", "75.0 %", f"{100 * low:.1f} to {100 * high:.1f} %", "0.500"):
        assert said in page.words, said
    assert "whole image" in page.words and "centre box" in page.words and "MaxBoxAccV2" in page.words
    assert "largest part above 0.20 and 0.30" in page.words and "gone.png" in page.words
    names = [name for name, _ in page.tags]
    assert "script" not in names and "link" not in names
    assert not any("style" in attributes for _, attributes in page.tags)  # the content policy would drop them
    sources = [one["href"] for one in page.of("image")] + [one["src"] for one in page.of("img")]
    assert sources and all(source.startswith("data:image/") for source in sources)
    policy = next(one["content"] for one in page.of("meta") if "default-src" in one.get("content", ""))
    assert "default-src 'none'" in policy and "img-src data:" in policy


def test_a_box_head_has_no_maps_and_no_threshold(tmp_path: Path) -> None:
    page = Page(localised.write(localisation(tmp_path, [(0, 0, 0.9, 0.9)])))
    assert "box head" in page.words and "MaxBoxAcc" not in page.words and "threshold" not in page.words
    assert not page.of("img") and "Cut" not in page.text.split()


def test_hostile_names_are_text(tmp_path: Path) -> None:
    odd = "bad\udcff<b>.png"
    done = localisation(tmp_path, [(0, 1, 0.8, 0.2)], titles=(EVIL, EVIL, "cow"), keys=[odd])
    page = Page(localised.write(done))
    names = [name for name, _ in page.tags]
    assert "script" not in names and names.count("b") == 4  # the two classes, in two groups
    assert page.text.count(EVIL) >= 5 and "bad\\udcff<b>.png" in page.text


# ---------------------------------------------------------------- the charts


def test_the_histogram_counts_each_image_once_and_a_half_is_right() -> None:
    iou_M = np.array([0.0, 0.04, 0.49, 0.5, 0.5, 0.99, 1.0])
    drawn = localised.lay_out(iou_M)
    assert [bar.words for bar in drawn.bars] == [
        "IoU 0.00 to 0.05: 2 images",
        "IoU 0.45 to 0.50: 1 images",
        "IoU 0.50 to 0.55: 2 images",
        "IoU 0.95 to 1.00: 2 images",
    ]
    assert [bar.is_right for bar in drawn.bars] == [False, False, True, True]
    assert drawn.bars[0].height == pytest.approx(2 * drawn.bars[1].height, abs=0.2)
    assert drawn.bars[2].x == pytest.approx(drawn.limit + 0.5, abs=0.01)
    assert all(bar.y + bar.height == pytest.approx(drawn.bottom) for bar in drawn.bars)
    assert drawn.words == "4 of 7 boxes have an IoU of 0.5 or more; the median is 0.50."


def test_the_curve_is_that_of_the_measure_with_its_cuts(tmp_path: Path) -> None:
    done = localisation(tmp_path, [(0, 0, 0.9, 0.9), (1, 1, 0.3, 0.3)], maps=True)
    accuracy = done.measured.max_box_accuracy
    assert accuracy is not None
    chart = localised.threshold_chart(done, accuracy)
    curve = chart.series[0].curve
    np.testing.assert_array_equal(curve.y_N, accuracy.v1_curve_T)
    assert ((curve.low_N <= curve.y_N) & (curve.y_N <= curve.high_N)).all()
    assert chart.marks == (0.2, 0.3) and chart.best == (accuracy.v1_threshold, accuracy.v1.value)
    assert chart.reference == (done.by_nothing["centre box"].gt_known_accuracy.value, "centre box")

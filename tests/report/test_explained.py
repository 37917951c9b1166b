"""The page of an explanation: heat where the map is, in the photo's pixels; complete, escaped, of bounded size."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from striate.classes import Classes
from striate.errors import UserError
from striate.explain.heatmap import Heatmap
from striate.report import explained
from striate.report.explained import Group, Item, Map, Page, Picture
from striate.view import View

CROP = View(32, "crop", 32, "bilinear", False, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
SQUASH = View(32, "squash", 32, "bilinear", False, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
EVIL = "<script>alert(1)<'\">"


def heatmap(
    view: View = CROP, width: int = 96, height: int = 64, at: tuple[int, int] = (1, 2), method: str = "grad-cam"
) -> Heatmap:
    """A map of 4 by 4 cells with evidence in one of them."""
    values = np.zeros((4, 4), np.float32)
    values[at] = 3.0
    return Heatmap(values, view, width, height, method, "layer4", 0, "a.png")


def grey(width: int = 96, height: int = 64, level: int = 120) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


# ---------------------------------------------------------------- drawing


@pytest.mark.parametrize("level", [0, 120, 255])
def test_heat_is_seen_on_grey_photos_where_the_map_is_and_nowhere_else(level: int) -> None:
    one = heatmap()
    drawn = explained.overlay(grey(level=level), one).astype(int)
    heat = one.on_photo() / 3.0
    colour = np.ptp(drawn, axis=2)
    # Half a cell's width from the frame, which is grey.
    inside = (slice(3, 61), slice(19, 77))
    assert not colour[heat < 1 / 512].any()
    assert colour[inside][heat[inside] > 0.9].min() > 60
    # The photo's level remains where there is no heat within the view, and less of it beside the view.
    assert (drawn[3:61, 19:77][heat[inside] == 0] == level).all()
    assert (drawn[:, :16] <= level * 0.6).all()
    hottest = np.argwhere(heat == heat.max()).mean(axis=0)
    assert hottest.tolist() == [23.5, 55.5]  # cell (1, 2) of a view that is the middle 64 of 96 columns


def test_the_frame_is_the_view_in_pixels_of_the_photo() -> None:
    flat = replace(heatmap(), values_hw=np.zeros((4, 4), np.float32))
    drawn = explained.overlay(grey(), flat)
    white = (drawn == 255).all(axis=2)
    rows, columns = np.flatnonzero(white.any(axis=1)), np.flatnonzero(white.any(axis=0))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (0, 63, 16, 79)
    assert explained.seen_of(CROP, 96, 64) == (16, 0, 80, 64)
    large = explained.overlay(grey(), flat, times=3)
    columns = np.flatnonzero((large == 255).all(axis=2).any(axis=0))
    assert large.shape == (192, 288, 3) and (columns.min(), columns.max()) == (48, 239)


def test_a_view_of_the_whole_photo_needs_no_frame() -> None:
    flat = replace(heatmap(SQUASH), values_hw=np.ones((4, 4), np.float32))
    assert explained.seen_of(SQUASH, 96, 64) == (0, 0, 96, 64)
    assert (explained.overlay(grey(), flat) == 120).all()  # a map of one value marks nothing


def test_a_photo_of_one_pixel_and_one_much_larger_than_the_page() -> None:
    assert explained.overlay(grey(1, 1), heatmap(width=1, height=1)).shape == (1, 1, 3)
    for width, height, shown in ((1, 1, (224, 224)), (900, 600, (440, 293)), (64, 64, (256, 256)), (300, 200, (300, 200))):
        for one in (None, heatmap(width=width, height=height)):
            uri = explained.on_page(grey(width, height), one)
            kind, _, data = uri.partition(";base64,")
            assert kind == "data:image/jpeg"
            with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
                assert picture.size == shown


@pytest.mark.parametrize(("width", "height"), [(100, 1), (1, 100), (1, 1), (2, 1), (1000, 1)])
@pytest.mark.parametrize("view", [CROP, replace(CROP, resize_px=40), SQUASH])
def test_the_frame_of_a_photo_of_a_pixel_is_a_pixel_wide_or_more(view: View, width: int, height: int) -> None:
    flat = replace(heatmap(view, width, height), values_hw=np.zeros((4, 4), np.float32))
    drawn = explained.overlay(grey(width, height), flat)
    assert drawn.shape == (height, width, 3)
    left, top, right, bottom = explained.seen_of(view, width, height)
    if (left, top, right, bottom) == (0, 0, width, height):
        assert (drawn == 120).all()
    else:
        rows, columns = np.nonzero((drawn == 255).all(axis=2))
        assert len(rows) in {1, 2}  # of an edge in the middle of a pixel, either side
        assert abs(columns.mean() + 0.5 - (left + right) / 2) <= 0.5 and abs(rows.mean() + 0.5 - (top + bottom) / 2) <= 0.5
    assert explained.on_page(grey(width, height), flat).startswith("data:image/jpeg")


def test_a_map_of_another_photo_is_refused() -> None:
    with pytest.raises(UserError, match=r"photo a.png: expected shape \[64, 96, 3\], found \[96, 64, 3\]"):
        explained.overlay(grey(64, 96), heatmap())


def test_maps_of_pixels_are_drawn_up_to_their_99th_percentile() -> None:
    values = np.arange(200, dtype=np.float32).reshape(10, 20) + 5
    values[0, 0] = 1e6
    pixels = replace(heatmap(), values_hw=values, method="smoothgrad")
    grid = replace(heatmap(), values_hw=values)
    top = np.percentile(values, 99)
    np.testing.assert_allclose(explained.drawn_values(pixels), (values.clip(None, top) - 6) / (top - 6), atol=1e-6)
    np.testing.assert_allclose(explained.drawn_values(grid), (values - 6) / (1e6 - 6), atol=1e-6)
    # One bright pixel among a thousand of nothing is no outlier: it is all that there is.
    lonely = np.zeros((40, 40), np.float32)
    lonely[3, 4] = 1
    assert explained.drawn_values(replace(pixels, values_hw=lonely))[3, 4] == 1


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("n01/cat 1.jpg", "n01-cat-1.png"),
        ("/home/me/pets/tom.JPEG", "pets-tom.png"),
        ("tom", "tom.png"),
        ("../..", "photo.png"),
        ("..\\..\\evil\n.png", "evil.png"),
        ("Ünï/猫.jpg", "n.png"),
        ("a" * 300 + ".jpg", "a" * 80 + ".png"),
    ],
)
def test_names_of_pictures_are_plain(key: str, name: str) -> None:
    assert explained.file_name(key, "", ()) == name


def test_names_of_pictures_that_are_taken_get_a_number() -> None:
    assert explained.file_name("a/B.jpg", "-truth", {"a-b-truth.png", "a-b-truth-2.png"}) == "a-B-truth-3.png"


# ---------------------------------------------------------------- the page


class Elements(HTMLParser):
    """The names, attributes and text of a page as a browser sees them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data

    def of(self, name: str) -> list[str]:
        return [value for attribute, value in self.attributes if attribute == name]


def item(number: int = 0, true: int = -1, labels: tuple[int, ...] = (0,), key: str = "a.png") -> Item:
    photo = grey()
    maps = tuple(
        Map(
            replace(heatmap(), label=label, key=key),
            0.75,
            "evidence for",
            "Removing it changes much.",
            {},
            f"{number}.png",
            explained.on_page(photo, heatmap()),
        )
        for label in labels
    )
    return Item(key, labels[0], 0.75, true, maps, ("enlarged from 6 x 10 px",), explained.on_page(photo))


def page(*groups: Group, classes: Classes | None = None, **more: object) -> Page:
    values = {"facts": (("Photos", "1"),), "view": CROP.describe(), "method": "grad-cam", "groups": groups} | more
    return Page("Where demo looked", classes or Classes(("n1", "n2"), ("cat", "dog")), **values)  # type: ignore[arg-type]


def written(what: Page, folder: Path) -> Elements:
    explained.write(what, folder / "index.html")
    return Elements((folder / "index.html").read_text(encoding="utf-8"))


def test_the_page_says_all_of_a_photo_and_needs_nothing_else(tmp_path: Path) -> None:
    groups = (Group("Mistakes", "Two of them.", (item(true=1, labels=(0, 1)),)), Group("Right answers", "", (item(true=0),)))
    shown = written(page(*groups, bad=[("gone.png", "no such file")], notes=("a note",)), tmp_path)
    words = " ".join(shown.text.split())
    for said in (
        "wrong", "right", "cat", "dog", "75.0", "in truth dog", "evidence for dog", "grad-cam at layer4",
        "Removing it changes much.", "enlarged from 6 x 10 px", "a.png", "Two of them.", "gone.png", "no such file", "a note",
        "shorter side 32", "Selvaraju et al. 2017",
    ):  # fmt: skip
        assert said in words, said
    assert "script" not in shown.tags and "link" not in shown.tags
    assert not shown.of("style")  # the content policy would drop them
    assert len(shown.of("src")) == 1 + 3 + 2 and all(source.startswith("data:image/") for source in shown.of("src"))
    assert shown.tags.count("img") == len([text for text in shown.of("alt") if text])
    policy = next(value for value in shown.of("content") if "default-src" in value)
    assert "default-src 'none'" in policy and "img-src data:" in policy


def test_how_to_read_the_checks_is_said_where_there_are_any(tmp_path: Path) -> None:
    checked = item()
    plain = replace(checked, maps=tuple(replace(one, sanity="") for one in checked.maps))
    for one, is_said in ((checked, True), (plain, False)):
        words = " ".join(written(page(Group("Photos", "", (one,))), tmp_path).text.split())
        assert ("does not show what was learnt" in words) is ("Adebayo et al. 2018" in words) is is_said


def test_photos_without_labels_are_neither_right_nor_wrong(tmp_path: Path) -> None:
    shown = written(page(Group("Photos", "", (item(),))), tmp_path)
    assert "badge" not in " ".join(shown.of("class")) and "in truth" not in shown.text


@pytest.mark.parametrize(
    ("method", "said"), [("integrated-gradients", "drawn by magnitude"), ("gradient", "brightest hundredth")]
)
def test_what_drawing_did_to_the_map_is_said(tmp_path: Path, method: str, said: str) -> None:
    assert said in " ".join(written(page(method=method), tmp_path).text.split())
    assert said not in " ".join(written(page(), tmp_path).text.split())


def test_hostile_names_are_text(tmp_path: Path) -> None:
    hostile = page(
        Group(EVIL, EVIL, (item(true=1, key=EVIL),)),
        classes=Classes((EVIL, "b\udcff"), (EVIL, "")),
        notes=(EVIL,),
        bad=[("bad\udcff.png", EVIL)],
        pictures=(Picture(EVIL, EVIL, "kernels.png", grey(8, 8)),),
    )
    shown = written(hostile, tmp_path)
    assert "script" not in shown.tags
    assert not any(name.startswith("on") for name, _ in shown.attributes)
    assert shown.text.count(EVIL) >= 6 and "bad\\udcff.png" in shown.text


def test_a_page_has_at_most_so_many_photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explained, "MOST", 3)
    groups = Group("Mistakes", "", (item(1, 1), item(2, 1))), Group("Right answers", "", (item(3, 0), item(4, 0)))
    shown = written(page(*groups, bad=[(f"{n}.png", "empty") for n in range(5)]), tmp_path)
    assert shown.of("class").count("card look maps-1") == 3
    assert "Photos that are not on this page: 1." in shown.text and "2 more stand in heatmaps.json" in shown.text


def test_pictures_of_the_inside_stand_on_the_page(tmp_path: Path) -> None:
    shown = written(page(pictures=(Picture("conv1: 64 kernels", "From grey to coloured.", "kernels.png", grey(9, 7)),)), tmp_path)
    source = next(source for source in shown.of("src") if source.startswith("data:image/png") and source != shown.of("src")[0])
    with Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) as picture:
        assert picture.size == (9, 7)
    assert "conv1: 64 kernels" in shown.text and "From grey to coloured." in shown.text


def test_the_legend_goes_from_clear_to_the_colour_of_most(tmp_path: Path) -> None:
    first = written(page(), tmp_path).of("src")[0]
    with Image.open(io.BytesIO(base64.b64decode(first.partition(",")[2]))) as picture:
        strip = np.asarray(picture).astype(int)[0]
    assert strip[0].tolist() == [128, 128, 128]
    drawn = explained.overlay(grey(level=128), heatmap(SQUASH, at=(3, 3))).astype(int)
    assert np.abs(drawn[-1, -1] - strip[-1]).max() <= 1  # beyond the last centre the value stays
    light = strip @ (0.299, 0.587, 0.114)
    assert light[-1] > 150 and (light[144:] > light[128:-16]).all()

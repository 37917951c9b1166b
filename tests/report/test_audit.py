"""The page of an audit: complete, escaped, of bounded size, and the same words for a terminal."""

from __future__ import annotations

import base64
import io
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from striate.data.audit.audit import Audit, audit
from striate.errors import UserError
from striate.report import audit as page


def picture(seed: int, width: int = 60, height: int = 48) -> Image.Image:
    rough = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(rough).resize((width, height), Image.BICUBIC)


def folder_of(place: Path, classes: tuple[str, ...] = ("cat", "dog"), count: int = 10) -> Path:
    for number, name in enumerate(classes):
        for split, images in (("train", count), ("val", 3)):
            (place / split / name).mkdir(parents=True)
            for i in range(images):
                picture(1000 * number + i + (500 if split == "val" else 0)).save(place / split / name / f"{i}.png")
    return place


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


def written(found: Audit, path: Path) -> Elements:
    page.write(found, path)
    return Elements(path.read_text(encoding="utf-8"))


def test_a_set_without_defects(tmp_path: Path) -> None:
    found = audit(folder_of(tmp_path / "data"), tmp_path / "out", workers=0)
    shown = written(found, tmp_path / "out" / "audit.html")
    assert found.defects == ()
    assert "Nothing: every image decodes" in shown.text
    assert "img" not in shown.tags
    assert page.verdict(found) == "Nothing is wrong with these data."


def test_the_page_needs_nothing_else_and_its_links_arrive(tmp_path: Path) -> None:
    data = folder_of(tmp_path / "data")
    (data / "train" / "cat" / "empty.png").write_bytes(b"")
    picture(0).save(data / "val" / "dog" / "copy.png")
    found = audit(data, tmp_path / "out", workers=0)
    shown = written(found, tmp_path / "out" / "audit.html")
    assert "script" not in shown.tags
    assert all(source.startswith("data:image/jpeg;base64,") for source in shown.of("src"))
    assert all(link.startswith("#") and link[1:] in shown.of("id") for link in shown.of("href"))
    assert not shown.of("style")  # the content policy would drop them
    for defect in found.defects:
        assert defect.text in shown.text
        assert defect.remedy in shown.text
    first = io.BytesIO(base64.b64decode(shown.of("src")[0].partition(",")[2]))
    assert Image.open(first).size == (60, 48)


def test_hostile_names_are_text(tmp_path: Path) -> None:
    evil = "<script>alert(1)<'\">"
    data = folder_of(tmp_path / "data", (evil, "dog"))
    for name in (b'"><script>alert(2)</b>.png'.replace(b"/", b"_"), b"bad\xff&lt;.png"):
        picture(9).save(path := data / "train" / "dog" / "x.png")
        os.rename(path, os.path.join(os.fsencode(data), b"train/dog", name))
    (data / "train" / "dog" / "<img src=x onerror=alert(3)>.png").write_bytes(b"no image")
    shown = written(audit(data, tmp_path / "out", workers=0), tmp_path / "out" / "audit.html")
    assert "script" not in shown.tags
    assert not any(name.startswith("on") for name, _ in shown.attributes)
    assert all(source.startswith("data:image/jpeg") for source in shown.of("src"))
    for name in (evil, '"><script>alert(2)<_b>.png', "bad\\udcff&lt;.png", "<img src=x onerror=alert(3)>.png"):
        assert name in shown.text


def test_many_defects_make_a_page_of_bounded_size(tmp_path: Path) -> None:
    data = folder_of(tmp_path / "data", count=40)
    for i in range(80):
        (data / "train" / "cat" / f"bad{i}.png").write_bytes(b"")
        picture(i).convert("L").save(data / "train" / "dog" / f"grey{i}.png")
    for i in range(9):
        picture(5).save(data / "train" / "cat" / f"again{i}.png")
    found = audit(data, tmp_path / "out", workers=0)
    shown = written(found, tmp_path / "out" / "audit.html")
    assert f"{80 - page.LINES:,} more stand in defects.csv" in shown.text
    assert f"{80 - page.PICTURES:,} more stand in defects.csv" in shown.text
    assert "and 6 more of this picture" in shown.text  # ten copies, four shown
    defects = len(found.defects)
    assert len(shown.of("src")) <= defects * max(page.PICTURES, page.GROUPS * page.OF_GROUP)


def test_groups_show_every_split_first(tmp_path: Path) -> None:
    data = folder_of(tmp_path / "data")
    for i in range(6):
        picture(3).save(data / "train" / "cat" / f"again{i}.png")
    picture(3).save(data / "val" / "dog" / "leak.png")
    found = audit(data, tmp_path / "out", workers=0)
    leak = next(defect for defect in found.defects if defect.kind == "duplicates across splits")
    assert [split for split, _ in page._told_apart(leak.groups[0])] == ["train", "val", "train", "train"]
    assert page.examples(found, leak, 1) == ["train/cat/3.png = train/cat/again0.png = train/cat/again1.png = …"]
    shown = written(found, tmp_path / "out" / "audit.html")
    assert "val/dog/leak.png" in shown.text


def test_wrong_boxes_are_drawn_where_they_are() -> None:
    """An image of 100 x 100 with a box within and one that leaves it on the right, by a quarter of its side."""
    boxes_M4 = np.array([[10, 10, 50, 50], [60, 60, 125, 90], [np.nan, 0, 1, 1]], dtype=np.float32)
    drawn = page._with_boxes(Image.new("RGB", (100, 100), (255, 255, 255)), boxes_M4)
    scale = page._BOXED_PX / 125
    assert drawn.size == (page._BOXED_PX, round(100 * scale))
    assert drawn.getpixel((round(10 * scale), round(30 * scale))) == page._RIGHT
    assert drawn.getpixel((round(60 * scale), round(75 * scale))) == page._WRONG
    assert drawn.getpixel((drawn.width - 1, round(75 * scale))) == page._WRONG
    assert drawn.getpixel((round(112 * scale), round(20 * scale))) == page._BESIDE
    assert drawn.getpixel((round(80 * scale), round(20 * scale))) == (255, 255, 255)


@pytest.mark.parametrize("box", [(-1e9, -1e9, 1e9, 1e9), (90, 90, 10, 10), (500, 500, 600, 600), (np.inf, 0, 1, 1)])
def test_any_box_can_be_drawn(box: tuple[float, ...]) -> None:
    drawn = page._with_boxes(Image.new("RGB", (100, 40)), np.array([box], dtype=np.float32))
    assert max(drawn.size) == page._BOXED_PX


def test_boxes_of_a_list_on_the_page(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    rows = ["path,label,x_min,y_min,x_max,y_max"]
    for i in range(20):
        picture(i).save(tmp_path / "data" / f"{i}.png")
        rows.append(f"{i}.png,{'ab'[i % 2]},5,5,{90 if i == 7 else 40},40")
    (tmp_path / "data" / "list.csv").write_text("\n".join(rows))
    found = audit(tmp_path / "data" / "list.csv", tmp_path / "out", workers=0)
    shown = written(found, tmp_path / "out" / "audit.html")
    assert [defect.kind for defect in found.defects] == ["box beyond the edge"]
    assert "(5, 5, 90, 40) in 60 x 48" in shown.text
    assert len(shown.of("src")) == 1


def test_classes_as_bars(tmp_path: Path) -> None:
    data = folder_of(tmp_path / "data")
    for i in range(5):
        picture(70 + i).save(data / "train" / "dog" / f"more{i}.png")
    found = audit(data, tmp_path / "out", workers=0)
    train, val = page._class_bars(found)
    assert (train.most, train.least, train.middle, train.first, train.last) == (15, 10, 12.5, "dog", "cat")
    heights = [page._BARS_HEIGHT - float(top) for top in re.findall(r"120V([\d.]+)h", train.path)]
    assert heights == [120, 80]
    assert (val.most, val.least) == (3, 3)
    assert "val: 3 of each of 2 classes" in written(found, tmp_path / "out" / "audit.html").text


def test_a_second_audit_says_what_it_knew(tmp_path: Path) -> None:
    data = folder_of(tmp_path / "data")
    assert "26 looked at in" in page.headline(audit(data, tmp_path / "out", workers=0))
    again = audit(data, tmp_path / "out", workers=0)
    assert page.headline(again).endswith("26 were known from an earlier audit.")
    assert "all known from before" in written(again, tmp_path / "out" / "audit.html").text


def test_in_short_has_no_lists_of_images(tmp_path: Path) -> None:
    data = folder_of(tmp_path / "data")
    (data / "train" / "cat" / "empty.png").write_bytes(b"")
    plain = page.in_short(audit(data, tmp_path / "out", workers=0))
    assert plain["severities"]["error"] == 1
    assert [set(defect) for defect in plain["defects"]] == [{"kind", "severity", "split", "count", "text", "remedy"}]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    found = audit(folder_of(tmp_path / "data"), tmp_path / "out", workers=0)
    with pytest.raises(UserError, match=r"audit\.html"):
        page.write(found, tmp_path / "nowhere" / "audit.html")

"""Sets of test-time views: the numbers and sizes that the papers state, and every wrong name and file."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from striate.data.crops import Crop
from striate.errors import UserError
from striate.evaluate import view_sets
from striate.evaluate.view_sets import margin_px, named, read_file
from striate.view import View

VIEW = View(224, "crop", 256, "bilinear", False, (0.5,) * 3, (0.5,) * 3)
SQUASH = View(64, "squash", 64, "bilinear", False, (0.5,) * 3, (0.5,) * 3)


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("name", "views", "sides"),
    [
        ("flip", 2, {256}),
        ("10crop", 10, {256}),
        ("3scale", 6, {224, 256, 288}),  # VGG's Q, section 3.2 and table 4: {S - 32, S, S + 32}
        ("50crop", 50, {256}),
        ("150crop", 150, {224, 256, 288}),
        ("144crop", 144, {256, 288, 320, 352}),  # GoogLeNet, section 7
    ],
)
def test_each_set_has_its_papers_number_of_views(name: str, views: int, sides: set[int]) -> None:
    found = named(name, VIEW)
    assert len(found.crops) == len(set(found.crops)) == views
    assert {crop.shorter_px for crop in found.crops} == sides
    plain, mirrored = found.crops[: views // 2], found.crops[views // 2 :]
    assert [replace(crop, is_mirrored=True) for crop in plain] == list(mirrored)
    assert (found.name, found.dense_px, found.is_dense, found.is_center) == (name, (), False, False)
    assert str(views) in found.describe() or name == "flip"


def test_center_is_the_own_view_and_has_nothing_to_average() -> None:
    found = named("center", VIEW)
    assert (found.is_center, found.crops, found.dense_px, found.describe()) == (True, (), (), "1 view")


def test_the_ten_crops_are_four_corners_and_the_middle_of_the_central_square() -> None:
    found = named("10crop", VIEW).crops[:5]
    assert {(crop.x, crop.y) for crop in found} == {(0, 0), (1, 0), (0, 1), (1, 1), (0.5, 0.5)}
    assert {crop.square for crop in found} == {"middle"}


def test_the_fifty_crops_are_a_grid_of_five_by_five() -> None:
    steps = (0, 0.25, 0.5, 0.75, 1)
    for name, times in (("50crop", 1), ("150crop", 3)):
        places = Counter((crop.x, crop.y) for crop in named(name, VIEW).crops if not crop.is_mirrored)
        assert places == {(x, y): times for x in steps for y in steps}


def test_the_144_crops_are_sizes_by_squares_by_places_by_mirrorings() -> None:
    found = named("144crop", VIEW).crops
    assert Counter(crop.square for crop in found) == {"first": 48, "middle": 48, "last": 48}
    assert Counter((crop.x, crop.y) for crop in found)[None, None] == 24
    assert set(Counter(crop.shorter_px for crop in found).values()) == {36}
    of_half = named("144crop", View(112, "crop", 128, "bilinear", False, (0.5,) * 3, (0.5,) * 3)).crops
    assert {crop.shorter_px for crop in of_half} == {128, 144, 160, 176}


def test_dense_is_at_the_margin_size_or_at_those_named() -> None:
    assert (named("dense", VIEW).dense_px, named("dense", VIEW).crops) == ((256,), ())
    found = named("dense:224,256,384,480,640", VIEW)
    assert found.is_dense
    assert found.dense_px == (224, 256, 384, 480, 640)
    assert found.describe() == "dense at shorter sides 224, 256, 384, 480, 640, mirrored too, probabilities averaged"


def test_plus_joins_parts_of_equal_weight() -> None:
    found = named("50crop+dense:256,288", VIEW, "logits")
    assert [(len(part.crops), part.dense_px) for part in found.parts] == [(50, ()), (0, (256, 288))]
    assert (len(found.crops), found.dense_px, found.name) == (50, (256, 288), "50crop+dense:256,288")
    assert found.describe().endswith(", logits averaged")


@pytest.mark.parametrize(
    ("size_px", "resize_px", "margin"),
    [(224, 256, 256), (224, 224, 256), (224, 240, 256), (224, 288, 288), (64, 64, 73), (32, 40, 40), (8, 8, 9)],
)
def test_without_a_margin_there_is_one_of_an_eighth(size_px: int, resize_px: int, margin: int) -> None:
    view = View(size_px, "crop", resize_px, "bilinear", False, (0.5,) * 3, (0.5,) * 3)
    assert margin_px(view) == margin
    for name in view_sets.NAMES:
        found = named(name, view)
        windows = [crop for crop in found.crops if crop.x is not None]
        assert all(side >= size_px for side in (*found.dense_px, *(crop.shorter_px for crop in windows)))


def test_a_squashed_view_can_be_mirrored_and_no_more() -> None:
    assert named("center", SQUASH).is_center
    assert named("flip", SQUASH).crops == (Crop(64, "whole", None, None), Crop(64, "whole", None, None, True))
    for name in ("10crop", "3scale", "50crop", "150crop", "144crop", "dense", "flip+10crop"):
        with pytest.raises(UserError, match=r"squashed photos.* Use center or flip"):
            named(name, SQUASH)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("10crops", r"no such set of views\. Did you mean '10crop'"),
        ("", "no such set of views"),
        ("10crop+", "no such set of views"),
        ("flip:256", "no such set of views"),
        ("center+flip", "'center' is one view"),
        ("flip+center", "'center' is one view"),
        ("flip+flip", "given twice"),
        ("dense:", "expected shorter sides in pixels, as in dense:224,256,288"),
        ("dense:big", "expected shorter sides in pixels"),
        ("dense:256,", "expected shorter sides in pixels"),
        ("dense:224.5", "expected shorter sides in pixels"),
        ("dense:200,256", "200 px is less than the 224 px.* Give 224 px or more"),
        ("dense:-256", "-256 px is less than"),
        ("dense:256,256", "a size is given twice"),
        ("dense:100000", "100000 px is more than photos may have here. Give 4472 px or less"),
    ],
)
def test_wrong_names_say_what_to_give(name: str, words: str) -> None:
    with pytest.raises(UserError, match=f"--views .*{words}") as caught:
        named(name, VIEW)
    assert caught.value.exit_code == 2


def test_only_probabilities_and_logits_are_averaged() -> None:
    with pytest.raises(UserError, match="--average ranks: expected one of probabilities, logits"):
        named("flip", VIEW, "ranks")  # type: ignore[arg-type]


def test_a_file_called_as_a_set_does_not_stand_in_its_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "10crop").write_text("no JSON")
    assert len(named("10crop", VIEW).crops) == 10


# ---------------------------------------------------------------- files


def written(folder: Path, content: Any, name: str = "views.json") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_file_of_crops(tmp_path: Path) -> None:
    full = {"shorter_px": 300, "square": "first", "x": None, "y": None, "is_mirrored": True}
    path = written(tmp_path, {"crops": [{"shorter_px": 256}, full, {"shorter_px": 256, "x": 0, "y": 1}], "dense_px": [256, 320]})
    found = named(str(path), VIEW, "logits")
    assert found.name == "views"
    assert found.crops == (Crop(256), Crop(300, "first", None, None, True), Crop(256, "middle", 0, 1))
    assert found.dense_px == (256, 320)
    assert found.describe().startswith("3 crops and dense at shorter sides 256, 320, mirrored too of views.json (")


def test_another_content_is_another_protocol(tmp_path: Path) -> None:
    words = set()
    for shorter_px in (256, 288):
        path = written(tmp_path, {"crops": [{"shorter_px": shorter_px}]})
        words.add(named(str(path), VIEW).describe())
    assert len(words) == 2
    assert all(one.startswith("1 crop of views.json (") for one in words)


def test_a_file_without_an_ending_is_read_too(tmp_path: Path) -> None:
    part, stem = read_file(written(tmp_path, {"dense_px": [224]}, "mine"), VIEW)
    assert (part.dense_px, stem) == ((224,), "mine")
    assert named(str(tmp_path / "mine"), VIEW).is_dense


@pytest.mark.parametrize("name", ["center.json", "10crop.json", "dense.json"])
def test_a_file_may_not_be_called_as_a_set(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=f"is the name of a set. Call the file something else, as my-{name}"):
        named(str(written(tmp_path, {"crops": [{"shorter_px": 256}]}, name)), VIEW)


CROP = {"shorter_px": 256}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{not json", r"not JSON \("),
        ("\udcff", r"not JSON \("),
        ([], 'expected an object with "crops" or "dense_px"'),
        ("3", 'expected an object with "crops" or "dense_px"'),
        ({}, "that is not empty"),
        ({"crops": []}, "that is not empty"),
        ({"crops": {"shorter_px": 256}}, "expected a list of crops"),
        ({"dense_px": 256}, "expected a list of crops, or of sizes"),
        ({"crop": [CROP]}, r"unknown key 'crop'\. Did you mean 'crops'\? Keys: crops, dense_px"),
        ({"crops": [CROP, 256]}, "crop 2: expected an object with shorter_px, found 256"),
        ({"crops": [{"x": 0, "y": 0}]}, "crop 1: shorter_px: expected a whole number of pixels from 1 to 4472, found None"),
        ({"crops": [{"shorter_px": 256.0}]}, "shorter_px: expected a whole number"),
        ({"crops": [{"shorter_px": True}]}, "shorter_px: expected a whole number"),
        ({"crops": [{"shorter_px": 0}]}, "shorter_px: expected a whole number"),
        ({"crops": [{"shorter_px": 10**6}]}, "from 1 to 4472, found 1000000"),
        ({"crops": [{"shorter_px": 200}]}, "a window of 224 px does not fit into a shorter side of 200 px"),
        ({"crops": [CROP | {"square": "left"}]}, "square: expected one of whole, first, middle, last, found 'left'"),
        ({"crops": [CROP | {"square": ["first"]}]}, "square: expected one of"),
        ({"crops": [CROP | {"x": None}]}, "x and y: give both, or null for both"),
        ({"crops": [CROP | {"square": "whole", "x": None, "y": None}]}, "would change its aspect"),
        ({"crops": [CROP | {"x": 1.5}]}, r"x: expected a number from 0 \(left, top\) to 1"),
        ({"crops": [CROP | {"y": -0.1}]}, "y: expected a number from 0"),
        ({"crops": [CROP | {"y": "0"}]}, "y: expected a number from 0"),
        ({"crops": [CROP | {"x": True}]}, "x: expected a number from 0"),
        ('{"crops": [{"shorter_px": 256, "x": NaN}]}', "x: expected a number from 0"),
        ({"crops": [CROP | {"is_mirrored": 1}]}, "is_mirrored: expected true or false, found 1"),
        ({"crops": [CROP | {"mirrored": True}]}, r"crop 1: unknown key 'mirrored'\. Did you mean 'is_mirrored'"),
        ({"crops": [CROP] * 1025}, "1025 crops of each image; 1024 at most"),
        ({"dense_px": [256.5]}, "dense_px: expected whole numbers of pixels, found 256.5"),
        ({"dense_px": [True]}, "dense_px: expected whole numbers"),
        ({"dense_px": ["256"]}, "dense_px: expected whole numbers"),
        ({"dense_px": [200]}, "dense_px: 200 px is less than the 224 px"),
        ({"dense_px": [256, 256]}, "dense_px: a size is given twice"),
        ({"dense_px": [9999]}, "dense_px: a shorter side of 9999 px is more than"),
    ],
)
def test_wrong_files_name_the_file_and_the_crop(tmp_path: Path, content: Any, words: str) -> None:
    path = tmp_path / "views.json"
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=words) as caught:
        named(str(path), VIEW)
    assert str(path) in str(caught.value)


def test_a_missing_file_and_a_folder_are_told_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.json: No such file"):
        named(str(tmp_path / "absent.json"), VIEW)
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(UserError, match=r"folder\.json: Is a directory"):
        named(str(tmp_path / "folder.json"), VIEW)


def test_a_file_is_no_way_around_a_squashed_view(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"squashed photos\. Use center or flip"):
        named(str(written(tmp_path, {"crops": [{"shorter_px": 64}]})), SQUASH)

"""Boxes of a submission: from the view to the numbers of the stored photo, by hand, by Pillow, and there and back."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from striate import geometry
from striate.classes import Classes
from striate.data import boxes as stored_boxes
from striate.data import decode, synthetic
from striate.data.index import Boxes, Index
from striate.data.layouts import detect, ilsvrc
from striate.data.loader import Workers
from striate.data.pack import format, write
from striate.errors import CheckpointError, DataError, NonFiniteError, UserError
from striate.evaluate.network import Network
from striate.evaluate.route import Route
from striate.localize import boxes, kept, metrics
from striate.localize.find import find
from striate.localize.score import Cut, boxes_of
from striate.submission import images, places
from striate.submission.check import check
from striate.submission.score import score
from striate.submission.write import submit
from striate.view import View
from tests.submission.makers import COLOURS, VIEW, WNIDS, Pointer, at_bright_pixels, photo

CLASSES = Classes(WNIDS, ("blue", "green", "red"))


def route_of(model: nn.Module, home: Path, view: View = VIEW, classes: Classes = CLASSES) -> Route:
    return Route(Network(model.eval(), classes, view, "raw", "0" * 64, home, "step-7"))


def always(edges_16: tuple[float, float, float, float]) -> Pointer:
    """A network that says one box, given in sixteenths of the view, for every image and class."""
    x_min, y_min, x_max, y_max = edges_16
    box = torch.tensor([(x_min + x_max) / 2, (y_min + y_max) / 2, x_max - x_min, y_max - y_min]) / 16
    return Pointer(lambda batch: box.expand(len(batch), 1, 4))


def answers(path: Path) -> dict[str, list[list[int]]]:
    """The predictions of each image: label, x_min, y_min, x_max, y_max."""
    rows = [line.split(",") for line in path.read_text().splitlines()[1:]]
    return {name: np.array(said.split(), int).reshape(-1, 5).tolist() for name, said in rows}


# ---------------------------------------------------------------- edges and pixels


def test_edges_become_pixels_of_the_photo():
    given = {
        (0, 0, 40, 30): (0, 0, 39, 29),  # the whole photo
        (2.4, 2.5, 10.6, 12.4): (2, 3, 10, 11),  # the nearest, halves up
        (7, 7, 8, 8): (7, 7, 7, 7),  # the one pixel
        (7.1, 7.2, 7.3, 7.4): (7, 7, 7, 7),  # at least a pixel
        (39.8, 29.9, 40, 30): (39, 29, 39, 29),  # and within the photo
        (-3, -2, 99, 99): (0, 0, 39, 29),
    }
    assert places.pixels(np.array(list(given)), 40, 30) == list(given.values())


def test_whole_photos_are_called_as_in_classification():
    for sides in ((500, 375), (1, 1), (3, 700)):
        assert places.pixels(np.array([[0, 0, *sides]]), *sides) == [images.whole(sides)]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turning_back_undoes_turning(orientation: int):
    drawn = np.array([[3.0, 4.0, 11.0, 25.0], [0.0, 0.0, 48.0, 32.0]])
    seen = stored_boxes.turned(drawn, orientation, 48, 32)
    sides = stored_boxes.turned_sides(48, 32, orientation)
    found, width, height = places.as_stored(seen, orientation, *sides)
    assert (found.tolist(), width, height) == (drawn.tolist(), 48, 32)


# ---------------------------------------------------------------- from the view to the file


@pytest.mark.parametrize(
    ("view", "sides", "expected"),
    [
        (VIEW, (48, 32), [12, 8, 35, 15]),  # squashed: 3 and 2 pixels for each of the view
        (VIEW, (32, 48), [8, 12, 23, 23]),
        (VIEW, (16, 16), [4, 4, 11, 7]),
        (replace(VIEW, fit="crop"), (48, 32), [16, 8, 31, 15]),  # landscape: 24 x 16, from column 4
        (replace(VIEW, fit="crop"), (32, 48), [8, 16, 23, 23]),  # portrait: 16 x 24, from row 4
        (replace(VIEW, fit="crop", resize_px=20), (48, 32), [18, 10, 29, 15]),  # 17.6, 9.6, 30.4, 16
    ],
)
def test_a_box_of_the_view_by_hand(tmp_path: Path, view: View, sides: tuple[int, int], expected: list[int]):
    photo(tmp_path / "test" / "a.JPEG", COLOURS[2], *sides)
    done = submit(
        route_of(always((4, 4, 12, 8)), tmp_path, view), tmp_path / "test", tmp_path / "s.csv", task="localization", workers="0"
    )
    said = answers(done.path)["a"]
    assert said[0][0] == 3 and [box for _, *box in said] == [expected] * 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photo_gets_its_box_as_stored(tmp_path: Path, orientation: int):
    """The network finds the bright pixels in the photo the right way up; where they lie in the file is known."""
    (tmp_path / "test").mkdir()
    stored_HW3 = np.zeros((32, 48, 3), np.uint8)
    stored_HW3[5:14, 20:41] = 255
    exif = Image.Exif()
    exif[0x112] = orientation
    Image.fromarray(stored_HW3).save(tmp_path / "test" / "a.png", exif=exif)
    Image.fromarray(stored_HW3).save(tmp_path / "test" / "1.png")
    (tmp_path / "test" / "0.png").write_bytes(b"nothing")
    # 96 is 2 and 3 times either side, so that no pixel is lost or blurred.
    view = replace(VIEW, size_px=96, resize_px=96, interpolation="nearest")
    for applied in (True, False):
        route = route_of(Pointer(at_bright_pixels), tmp_path, replace(view, exif=applied))
        done = submit(route, tmp_path / "test", tmp_path / "s.csv", task="localization", workers="0")
        found = answers(done.path)
        assert {tuple(box) for name in "1a" for _, *box in found[name]} == {(20, 5, 40, 13)}
        is_said = any("1 photos were seen turned by their EXIF orientation" in note for note in done.notes)
        assert is_said == (applied and orientation != 1)


def test_every_answer_has_its_own_box(kaggle_set: Path, tmp_path: Path):
    by_class_K4 = torch.tensor([[0.25, 0.5, 0.5, 1], [0.75, 0.5, 0.5, 1], [0.5, 0.5, 0.5, 0.5]])  # left, right, middle
    model = Pointer(lambda batch: by_class_K4.expand(len(batch), 3, 4))
    done = submit(route_of(model, tmp_path), kaggle_set, tmp_path / "s.csv", task="localization", workers="0")
    found = answers(done.path)
    assert {name: said[0][0] for name, said in found.items()} == {
        f"ILSVRC2012_test_{n:08d}": label for n, label in ((1, 3), (2, 1), (3, 2), (4, 1))
    }
    # 24 pixels wide, 20 to 23 high.
    for high, said in zip((20, 21, 22, 23), found.values(), strict=True):
        middle = [6, int(high / 4 + 0.5), 17, int(high * 0.75 + 0.5) - 1]
        assert {label: box for label, *box in said} == {1: [0, 0, 11, high - 1], 2: [12, 0, 23, high - 1], 3: middle}
    assert done.answered_by.endswith("EXIF ignored, boxes: box head") and done.notes == ()
    assert check(done.path, data=kaggle_set).defects == ()


def test_an_image_that_cannot_be_read_has_one_label_and_the_whole_photo(kaggle_set: Path, tmp_path: Path):
    cut = photo(kaggle_set / "ILSVRC2012_test_00000002.JPEG", COLOURS[2], 30, 40)
    cut.write_bytes(cut.read_bytes()[:-30])
    (kaggle_set / "ILSVRC2012_test_00000005.JPEG").write_bytes(b"nothing at all")
    route = route_of(always((4, 4, 12, 8)), tmp_path, replace(VIEW, exif=True))
    done = submit(route, kaggle_set, tmp_path / "s.csv", task="localization", workers="0")
    found = answers(done.path)
    assert [len(said) for said in found.values()] == [3, 1, 3, 3, 1]
    assert found["ILSVRC2012_test_00000002"] == [[1, 0, 0, 29, 39]] and found["ILSVRC2012_test_00000005"] == [[1, 0, 0, 0, 0]]
    assert found["ILSVRC2012_test_00000003"][0][1:] == [6, 6, 17, 10]  # 22 pixels high: 5.5 to 11
    assert [Path(key).stem[-1] for key, _ in done.filled] == ["2", "5"]
    for path in kaggle_set.iterdir():
        path.write_bytes(b"nothing")
    with pytest.raises(DataError, match="none of the 5 images can be read"):
        submit(route, kaggle_set, tmp_path / "again.csv", task="localization", workers="0")
    assert not (tmp_path / "again.csv").exists()


def test_a_pack_is_answered_for_in_its_own_pixels(tmp_path: Path):
    """Photos that were shrunk to a shorter side of 32: the middle half of each, whatever it was before."""
    made = synthetic.make(tmp_path / "set", layout="ilsvrc", classes=2, per_class=1, val_per_class=1)
    write.pack(str(tmp_path / "set"), tmp_path / "pack", format.chosen(False, 32, None, None, None, None, None), "fail", 1)
    route = route_of(
        always((4, 4, 12, 12)), tmp_path, replace(VIEW, exif=True), Classes((*made.classes, "n99999999"), ("", "", ""))
    )
    mapping = tmp_path / "mapping.txt"
    mapping.write_text("".join(f"{wnid} word\n" for wnid in (*made.classes, "n99999999")))
    done = submit(route, tmp_path / "pack", tmp_path / "s.csv", task="localization", mapping=mapping, workers="0")
    assert any("boxes are in pixels of these, not of the photos" in note for note in done.notes)
    index = images.open_test(tmp_path / "pack")
    for row, said in enumerate(answers(done.path).values()):
        width, height = decode.sides(index.content(row))
        assert min(width, height) == 32
        assert said[0][1:] == [
            int(width / 4 + 0.5),
            int(height / 4 + 0.5),
            int(width * 0.75 + 0.5) - 1,
            int(height * 0.75 + 0.5) - 1,
        ]
    assert check(done.path, data=tmp_path / "pack", mapping=mapping).errors == 0


def test_a_box_of_nan_is_never_written(kaggle_set: Path, tmp_path: Path):
    model = Pointer(lambda batch: torch.full((len(batch), 1, 4), torch.nan))
    with pytest.raises(NonFiniteError, match=r"_00000001\.JPEG: the network gave a box that is NaN"):
        submit(route_of(model, tmp_path), kaggle_set, tmp_path / "s.csv", task="localization", workers="0")
    assert not (tmp_path / "s.csv").exists()


# ---------------------------------------------------------------- heatmaps


def convolutions() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU(), Pooled(), nn.Linear(6, 3))


class Pooled(nn.Module):
    """The mean over the grid."""

    def forward(self, grid_BChw: torch.Tensor) -> torch.Tensor:
        return grid_BChw.mean((2, 3))


def scenes(folder: Path) -> Path:
    """Three photos with something in them."""
    numbers = np.random.default_rng(0)
    folder.mkdir()
    for number, (width, height) in enumerate(((40, 24), (24, 40), (30, 30))):
        pixels_HW3 = np.kron(numbers.integers(0, 256, (height // 2, width // 2, 3)), np.ones((2, 2, 1))).astype(np.uint8)
        Image.fromarray(pixels_HW3).save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize("method", ["cam", "grad-cam"])
def test_boxes_are_those_of_the_heatmaps_cut_as_was_said(tmp_path: Path, method: str):
    test, route = scenes(tmp_path / "test"), route_of(convolutions(), tmp_path, replace(VIEW, size_px=32, resize_px=32))
    index = images.open_test(test)
    seen = find(route.colour, index, method, None, torch.device("cpu"), Workers.parse("0"))
    for threshold in (0.2, 0.7):
        done = submit(route, test, tmp_path / "s.csv", task="localization", method=method, threshold=threshold, workers="0")
        for i, said in enumerate(answers(done.path).values()):
            width, height = seen.sides_N2[i].tolist()
            for place, (label, *box) in enumerate(said):
                assert label == seen.answers_NA[i, place] + 1
                edges_14 = boxes.from_heatmap(seen.heatmap(i, place), threshold, "largest")
                apart = np.abs(metrics.edges(np.array(box)) - geometry.clip(edges_14, width, height)[0])
                assert apart.max() <= 0.5
        assert done.answered_by.endswith(
            f"boxes: {method} of {seen.layer}, largest component above {threshold:g} of the map's range"
        )
        assert any("as given, not fitted" in note for note in done.notes)


def test_maps_are_cut_as_localize_kept_it(tmp_path: Path):
    test, route = scenes(tmp_path / "test"), route_of(convolutions(), tmp_path, replace(VIEW, size_px=32, resize_px=32))
    fit = kept.Fit("grad-cam", "1", "step-7", "raw", 0.35, "all", "val", 480, 0.75, "val-grad-cam-000000")
    assert kept.keep(route.colour, fit) == [
        "kept for submit: grad-cam of 1, raw weights of step-7, all above 0.35 of the map's range, fitted on 480 images of val "
        "(75.0% right there)"
    ]
    done = submit(route, test, tmp_path / "s.csv", task="localization", workers="0")
    assert done.answered_by.endswith("boxes: grad-cam of 1, all above 0.35 of the map's range")
    assert f"the threshold is of {tmp_path / kept.NAME}, fitted on 480 images of val (75.0% right there)" in done.notes
    seen = find(route.colour, images.open_test(test), "grad-cam", "1", torch.device("cpu"), Workers.parse("0"))
    where_NM4 = boxes_of(seen, (Cut(0.35, "all"),), np.zeros(3, np.int64))
    for i, said in enumerate(answers(done.path).values()):
        expected = places.pixels(where_NM4[i, :3], *seen.sides_N2[i].tolist())
        assert [tuple(box) for _, *box in said] == expected


@pytest.mark.parametrize(
    ("asked", "wanted", "command"),
    [
        ({"method": "cam", "layer": "3"}, "cam of 3, raw weights of step-7", "--method cam --layer 3 --checkpoint last --raw;"),
        ({"layer": "0"}, "grad-cam of 0, raw weights of step-7", "--method grad-cam --layer 0 --checkpoint last --raw;"),
    ],
)
def test_where_nothing_that_fits_is_kept_it_says_what_is_and_how_to_fit(
    tmp_path: Path, asked: dict[str, str], wanted: str, command: str
):
    route = route_of(convolutions(), tmp_path, replace(VIEW, size_px=32, resize_px=32))
    for layer, checkpoint in (("1", "step-7"), ("3", "step-8")):
        kept.keep(route.colour, kept.Fit("grad-cam", layer, checkpoint, "raw", 0.35, "all", "val", 480, 0.75, "x"))
    with pytest.raises(UserError) as error:
        places.planned(route, asked.get("method", "auto"), asked.get("layer"), None, "last", True)
    text = str(error.value)
    assert f"nobody has fitted a threshold for {wanted} (localization.json has grad-cam of 1, raw weights of step-7; " in text
    assert "grad-cam of 3, raw weights of step-8)" in text
    assert f"striate localize {tmp_path} {command}" in text


def test_of_several_layers_one_has_to_be_said(tmp_path: Path):
    route = route_of(convolutions(), tmp_path, replace(VIEW, size_px=32, resize_px=32))
    for layer, accuracy in (("1", 0.75), ("3", 0.5)):
        kept.keep(route.colour, kept.Fit("grad-cam", layer, "step-7", "raw", 0.35, "all", "val", 480, accuracy, "x"))
    with pytest.raises(UserError, match=r"--layer 1 \(75\.0% of 480 right\), --layer 3 \(50\.0% of 480 right\)"):
        places.planned(route, "auto", None, None)
    plan = places.planned(route, "auto", "3", None)
    assert (plan.layer, plan.fit.accuracy) == ("3", 0.5)


def test_a_kept_layer_that_is_no_grid_is_damage(tmp_path: Path):
    route = route_of(convolutions(), tmp_path, replace(VIEW, size_px=32, resize_px=32))
    kept.keep(route.colour, kept.Fit("grad-cam", "4", "step-7", "raw", 0.35, "all", "val", 480, 0.75, "x"))
    with pytest.raises(CheckpointError, match=r"localization\.json: damaged: .*layer '?4.*Run striate localize"):
        places.planned(route, "auto", None, None)


class Flat(nn.Module):
    """A network of pixels, without a grid."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(3 * 16 * 16, 3)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return self.last(batch.flatten(1))


@pytest.mark.parametrize(
    ("model", "options", "said"),
    [
        (Flat(), {"threshold": 0.2}, "and Flat has none.*Take a convolutional network.*striate explain --method occlusion"),
        (Flat(), {"threshold": 0.2, "layer": "last"}, "and Flat has none.*Take a convolutional network"),
        (None, {"threshold": 0.2, "layer": "4"}, "layer '4'"),
        (None, {"threshold": 0.2, "layer": "nowhere"}, "nowhere"),
        (
            nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 3)),
            {"threshold": 0.2, "method": "cam"},
            "Use --method grad-cam",
        ),
    ],
)
def test_what_does_not_fit_the_network_is_refused_before_a_photo_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: nn.Module | None, options: dict[str, object], said: str
):
    test, route = scenes(tmp_path / "test"), route_of(model or convolutions(), tmp_path)
    monkeypatch.setattr(decode, "decode", None)
    monkeypatch.setattr(decode, "sides", None)
    with pytest.raises(UserError, match=said) as error:
        submit(route, test, tmp_path / "s.csv", task="localization", workers="0", **options)
    assert not any(method in str(error.value) for method in ("gradient,", "smoothgrad", "integrated"))


def test_a_name_that_is_not_utf_8_is_refused_before_the_network_looks(tmp_path: Path):
    test, route = scenes(tmp_path / "test"), route_of(always((4, 4, 12, 8)), tmp_path)
    try:
        os.rename(test / "1.png", os.fsencode(test) + b"/caf\xe9.png")
    except OSError:
        pytest.skip("this file system has no such names")
    told: list[int] = []
    for task in ("localization", "classification"):
        with pytest.raises(DataError, match=r"this name cannot stand in a row.*Rename the file"):
            submit(route, test, tmp_path / "s.csv", task=task, workers="0", watch=lambda done, total: told.append(done))
    assert told == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"format": "tiny"}, "only Kaggle's form has boxes"),
        ({"views": "flip"}, "boxes are of one view of a photo"),
        ({"precision": "bf16"}, "boxes are made in fp32"),
        ({"method": "gradcam"}, "Did you mean 'grad-cam'"),
        ({"method": "head"}, "this network has no box head"),
        ({}, "no threshold is kept for a network that is no run"),
        ({"threshold": 1.0}, "expected a share of the map's range"),
        ({"threshold": -0.1}, "expected a share of the map's range"),
        ({"threshold": 0.2, "layer": "nowhere"}, "nowhere"),
    ],
)
def test_what_cannot_be(options: dict[str, object], said: str, tmp_path: Path):
    test, route = scenes(tmp_path / "test"), route_of(convolutions(), tmp_path)
    with pytest.raises(UserError, match=said):
        submit(route, test, tmp_path / "s.csv", task="localization", workers="0", **options)
    assert not (tmp_path / "s.csv").exists()


def test_neither_saved_predictions_nor_two_networks_nor_a_cut_for_a_head(route: Route, kaggle_set: Path, tmp_path: Path):
    with pytest.raises(UserError, match="saved predictions hold classes and no boxes; boxes need the network"):
        submit(tmp_path / "p.parquet", kaggle_set, tmp_path / "s.csv", task="localization")
    grey = replace(route.colour, view=replace(VIEW, colour="grey", mean=(0.5,), std=(0.25,)))
    with pytest.raises(UserError, match="boxes are made by one network"):
        submit(Route(route.colour, grey), kaggle_set, tmp_path / "s.csv", task="localization")
    for options in ({"threshold": 0.2}, {"layer": "0"}):
        with pytest.raises(UserError, match="this is a box head: add --method grad-cam"):
            submit(route_of(always((0, 0, 9, 9)), tmp_path), kaggle_set, tmp_path / "s.csv", task="localization", **options)


def test_no_photo_is_looked_at_where_no_threshold_is_kept(tmp_path: Path):
    told: list[tuple[int, int]] = []
    (tmp_path / "recipe.json").write_text("{}")  # as a run's home
    with pytest.raises(UserError, match=r"there is no localization\.json.*striate localize .* --method grad-cam"):
        submit(
            route_of(convolutions(), tmp_path),
            scenes(tmp_path / "test"),
            tmp_path / "s.csv",
            task="localization",
            watch=lambda done, total: told.append((done, total)),
        )
    assert told == []


# ---------------------------------------------------------------- there and back


@pytest.fixture(scope="module", name="generated")
def _generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set in ILSVRC's layout, whose solution of the validation images is shipped with it."""
    folder = tmp_path_factory.mktemp("made") / "set"
    synthetic.make(folder, layout="ilsvrc", classes=3, per_class=1, val_per_class=10)
    return folder


class Oracle(Pointer):
    """Knows the classes and boxes of the images of an index, in their order. edges_N4: of their photos."""

    def __init__(self, index: Index, edges_N4: np.ndarray, labels_N: np.ndarray) -> None:
        view_N4 = []
        for i, edges_4 in enumerate(edges_N4):
            width, height = decode.sides(index.content(i))
            x_min, y_min, x_max, y_max = VIEW.placement(width, height).box_to_view(edges_4[None])[0] / VIEW.size_px
            view_N4.append([(x_min + x_max) / 2, (y_min + y_max) / 2, x_max - x_min, y_max - y_min])
        self.boxes_N4, self.labels_N, self.at = torch.tensor(view_N4, dtype=torch.float32), torch.from_numpy(labels_N), 0
        super().__init__(lambda batch: self.boxes_N4[self.at - len(batch) : self.at, None])

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        self.at += len(batch)
        return nn.functional.one_hot(self.labels_N[self.at - len(batch) : self.at].long(), 3).float()


def test_whoever_knows_the_solution_has_no_error(generated: Path, tmp_path: Path):
    val, solution = generated / "ILSVRC/Data/CLS-LOC/val", generated / "LOC_val_solution.csv"
    index = detect.open_split(generated, "val")
    truth = ilsvrc.read_table(solution)
    known = dict(zip(truth.stems, truth.xyxy_M4, strict=True))  # one box for each image
    stems = [images.stem(key) for key in index.keys]
    # The last pixel of a photo is as far as a box of a submission goes; a solution may say one more.
    sides = [decode.sides(index.content(i)) for i in range(len(index))]
    pixels_N4 = np.array([np.minimum(known[stem], [w - 1, h - 1] * 2) for stem, (w, h) in zip(stems, sides, strict=True)])
    model = Oracle(index, metrics.edges(pixels_N4), index.labels)
    route = route_of(model, tmp_path, classes=index.classes)
    done = submit(route, val, tmp_path / "s.csv", task="localization", workers="0")
    assert [said[0][1:] for said in answers(done.path).values()] == pixels_N4.astype(int).tolist()  # to the pixel
    assert check(done.path, data=val).defects == ()
    found = score(done.path, solution)
    assert (found.images, found.top1_localisation_error, found.top5_localisation_error, found.notes) == (30, 0, 0, ())


def test_the_error_is_that_of_the_same_boxes_rounded(generated: Path, tmp_path: Path):
    """Boxes that are shifted by up to half of their side, labels of which every third is wrong at first."""
    index = detect.open_split(generated, "val")
    numbers = np.random.default_rng(2)
    assert index.boxes is not None
    truth_N4 = metrics.edges(index.boxes.xyxy)
    sides_N2 = truth_N4[:, 2:] - truth_N4[:, :2]
    shifted_N4 = truth_N4 + np.tile(numbers.uniform(-0.5, 0.5, (len(index), 2)) * sides_N2, 2)
    labels_N = np.where(np.arange(len(index)) % 3 == 0, (index.labels + 1) % 3, index.labels).astype(np.int64)
    route = route_of(Oracle(index, shifted_N4, labels_N), tmp_path, classes=index.classes)
    done = submit(route, generated / "ILSVRC/Data/CLS-LOC/val", tmp_path / "s.csv", task="localization", workers="0")
    found = score(done.path, generated / "LOC_val_solution.csv")
    limits = np.array([decode.sides(index.content(i)) * 2 for i in range(len(index))])
    rounded_N4 = np.clip(np.round(np.clip(shifted_N4, 0, limits)), 0, limits)
    answers_N3 = np.stack([labels_N, (labels_N + 1) % 3, (labels_N + 2) % 3], axis=1)
    expected = metrics.localisation(
        answers_N3,
        rounded_N4[:, None].repeat(3, axis=1),
        rounded_N4,
        index.labels.astype(np.int64),
        Boxes(index.boxes.rows, truth_N4),
    )
    assert 0 < expected.top5_error.count < expected.top1_error.count < 30
    assert found.top1_localisation_error == pytest.approx(expected.top1_error.value)
    assert found.top5_localisation_error == pytest.approx(expected.top5_error.value)
    assert json.loads(json.dumps(found.to_json()))["top1_error"] == pytest.approx(1 / 3)

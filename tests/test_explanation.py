"""Where a network looked: the right photos are chosen, the maps lie where the evidence is, and nothing else is touched."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from striate import explanation
from striate.classes import Classes
from striate.errors import DataError, UserError
from striate.evaluate import open as opened
from striate.evaluate.network import Network
from striate.evaluate.route import Route
from striate.explanation import Explanation, class_of, labelled
from striate.models import heads
from striate.view import View

VIEW = View(16, "crop", 16, "nearest", False, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
CLASSES = Classes(("n1", "n2", "n3"), ("blue", "green", "red"))
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


class Places(nn.Module):
    """Says blue, green or red by the mean of the channels, through a grid of 4 by 4 cells: evidence is where the colour is."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.Conv2d(3, 3, 4, stride=4, bias=False)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(3, 3, bias=False)
        with torch.no_grad():
            self.cells.weight.copy_(torch.eye(3)[:, :, None, None].expand(3, 3, 4, 4) / 16)
            self.head.weight.copy_(8 * torch.eye(3).flip(0))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.pool(self.cells(images)).flatten(1))


@pytest.fixture(name="route")
def _route(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Route:
    """The network for three colours; the current folder is empty."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return Route(Network(Places().eval(), CLASSES, VIEW, "raw", "0" * 64, Path("runs/evaluated-places"), "places.safetensors"))


def photo(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (32, 32), box: tuple[int, ...] = ()) -> Path:
    """A black photo with a box (left, top, right, bottom) of one colour; all of that colour without a box."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    left, top, right, bottom = box or (0, 0, *size)
    pixels[top:bottom, left:right] = colour
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(name="pets")
def _pets(tmp_path: Path) -> Path:
    """A folder of class folders: two of red that are blue, one of them plainly; the others as they should be."""
    pets = tmp_path / "pets"
    for name, colours in {
        "n1": {"a": BLUE, "b": (0, 0, 200)},
        "n2": {"c": (0, 100, 0)},
        "n3": {"d": (220, 0, 0), "e": (0, 0, 90), "f": (0, 0, 240), "g": (190, 0, 0)},
    }.items():
        for key, colour in colours.items():
            photo(pets / name / f"{key}.png", colour)
    return pets


def pixels_of(path: str | Path) -> np.ndarray:
    """A picture that was written, [H, W, 3] uint8."""
    with Image.open(path) as picture:
        assert (picture.format, picture.mode) == ("PNG", "RGB")
        return np.asarray(picture)


def listing(folder: Path) -> list[tuple[str, bytes]]:
    return [(str(path.relative_to(folder)), path.read_bytes()) for path in sorted(folder.rglob("*")) if path.is_file()]


def keys(found: Explanation, group: int = 0) -> list[str]:
    return [item.key for item in found.groups[group].items]


# ---------------------------------------------------------------- photos


def test_the_map_lies_where_the_evidence_is(route: Route, tmp_path: Path) -> None:
    # At half size the view is the middle 16 of 24 columns, and the box is exactly the cell in row 1, column 2 of the grid.
    wide = photo(tmp_path / "photos/wide.png", RED, (48, 32), (24, 8, 32, 16))
    found = explanation.explain(route, wide, out=tmp_path / "out")
    (item,) = found.items
    (one,) = item.maps
    assert (found.layer, one.heatmap.layer, one.heatmap.method) == ("cells", "cells", "grad-cam")
    assert (CLASSES.names[one.heatmap.label], item.predicted, item.true) == ("red", 2, -1)
    # Grad-CAM by hand: the weight is the mean gradient 8 / 16 cells, the features are the mean levels of the cells.
    expected = np.zeros((4, 4), np.float32)
    expected[1, 2] = 8 / 16
    np.testing.assert_allclose(one.heatmap.values_hw, expected, atol=1e-6)
    on_photo = one.heatmap.on_photo()
    assert np.argwhere(on_photo == on_photo.max()).mean(axis=0).tolist() == [11.5, 27.5]  # the middle of the box
    assert not on_photo[:, :8].any() and not on_photo[:, 40:].any()  # beside the view
    drawn = pixels_of(tmp_path / "out" / one.file)
    assert drawn.shape == (32, 48, 3)
    colourful = np.ptp(drawn.astype(int), axis=2)[1:-1, 9:39]  # within the frame
    assert np.unravel_index(colourful.argmax(), colourful.shape)[0] in range(7, 15)
    assert np.unravel_index(colourful.argmax(), colourful.shape)[1] in range(15, 23)


def test_the_class_is_the_most_probable_or_the_one_asked_for(route: Route, tmp_path: Path) -> None:
    two = np.zeros((32, 32, 3), np.uint8)
    two[:8, :8], two[24:, 16:] = GREEN, BLUE
    Image.fromarray(two).save(tmp_path / "two.png")
    plain = explanation.explain(route, tmp_path / "two.png", checked=False, out=tmp_path / "a").items[0]
    asked = explanation.explain(route, tmp_path / "two.png", of_class="green", checked=False, out=tmp_path / "b").items[0]
    assert (plain.maps[0].heatmap.label, asked.maps[0].heatmap.label) == (0, 1)
    assert np.flatnonzero(plain.maps[0].heatmap.values_hw).tolist() == [14, 15]
    assert np.flatnonzero(asked.maps[0].heatmap.values_hw).tolist() == [0]
    rows = opened.predict(route, [tmp_path / "two.png"], top=3)[0].ranks
    told = {rank.class_id: rank.probability for rank in rows}
    assert plain.probability == plain.maps[0].probability == pytest.approx(told["n1"], abs=1e-9)
    assert (asked.predicted, asked.maps[0].probability) == (0, pytest.approx(told["n2"], abs=1e-9))


def test_probabilities_are_those_of_predict_also_with_a_temperature(route: Route, tmp_path: Path) -> None:
    warm = Route(replace(route.colour, temperature=3.0))
    path = photo(tmp_path / "r.png", RED)
    item = explanation.explain(warm, path, out="out").items[0]
    assert item.probability == pytest.approx(opened.predict(warm, [path])[0].ranks[0].probability, abs=1e-9)
    assert item.probability < opened.predict(route, [path])[0].ranks[0].probability - 0.1
    assert item.maps[0].numbers["deletion"]["probabilities"][0] == pytest.approx(item.probability, abs=1e-6)


def test_classes_by_id_and_by_name() -> None:
    classes = Classes(("n1", "n2", "n3"), ("crane", "crane", "Sea lion"))
    assert [class_of(classes, text) for text in ("n2", "sea lion", "n3")] == [1, 2, 2]
    with pytest.raises(UserError, match=r"several classes have this name. Give an id: 'n1', 'n2'"):
        class_of(classes, "crane")
    with pytest.raises(UserError, match=r"none of the 3 classes that the network knows.*Did you mean 'Sea lion'\?"):
        class_of(classes, "sea-lion")


def test_many_photos_are_made_in_batches_as_one_by_one(route: Route, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(7):
        photo(tmp_path / f"photos/{number}.png", RED, (32, 32), (4 * number, 0, 4 * number + 8, 32))
    together = explanation.explain(route, tmp_path / "photos", checked=False, out="a")
    monkeypatch.setattr(explanation, "_TOGETHER", 1)
    alone = explanation.explain(route, tmp_path / "photos", checked=False, out="b")
    assert keys(together) == keys(alone) == [str(tmp_path / f"photos/{number}.png") for number in range(7)]
    for one, other in zip(together.items, alone.items, strict=True):
        np.testing.assert_allclose(one.maps[0].heatmap.values_hw, other.maps[0].heatmap.values_hw, atol=1e-6)
        assert one.probability == pytest.approx(other.probability, abs=1e-6)
    assert len({one.maps[0].heatmap.values_hw.tobytes() for one in together.items}) > 1


@pytest.mark.parametrize("size", [(100, 1), (1, 100), (1, 1)])
def test_a_photo_of_one_pixel_in_height_or_width(route: Route, tmp_path: Path, size: tuple[int, int]) -> None:
    found = explanation.explain(route, photo(tmp_path / "thin.png", RED, size), checked=False, out="out")
    assert pixels_of(Path("out") / found.items[0].maps[0].file).shape == (size[1], size[0], 3)
    assert found.items[0].predicted == 2


def test_a_photo_smaller_than_the_view_is_enlarged_and_this_is_said(route: Route, tmp_path: Path) -> None:
    found = explanation.explain(route, photo(tmp_path / "tiny.png", RED, (6, 10), (0, 0, 6, 2)), out="out")
    assert found.items[0].notes == ("enlarged from 6 x 10 px",)
    assert "enlarged from 6 x 10 px" in found.page.read_text()
    assert found.items[0].maps[0].heatmap.on_photo().shape == (10, 6)
    assert pixels_of(Path("out") / found.items[0].maps[0].file).shape == (10, 6, 3)
    large = explanation.explain(route, photo(tmp_path / "large.png", RED), out="large")
    assert large.items[0].notes == ()


def test_a_bad_photo_is_listed_and_the_others_go_on(route: Route, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    good = photo(tmp_path / "good.png", BLUE)
    found = explanation.explain(route, [tmp_path / "broken.png", good, tmp_path / "gone.png"], out="out")
    assert keys(found) == [str(good)]
    assert [key for key, _ in found.bad] == [str(tmp_path / "broken.png"), str(tmp_path / "gone.png")]
    assert all(reason for _, reason in found.bad)
    assert str(tmp_path / "gone.png") in found.page.read_text()
    with pytest.raises(DataError, match=r"None of the 1 photos could be read: '.*broken\.png \("):
        explanation.explain(route, tmp_path / "broken.png", out="other")


def test_a_name_with_a_line_feed_is_one_line(route: Route, tmp_path: Path) -> None:
    (tmp_path / "bad\nname.png").write_bytes(b"no picture")
    path = photo(tmp_path / "a\nb\x1b[1m.png", RED)
    found = explanation.explain(route, [path, tmp_path / "bad\nname.png"], checked=False, out="out")
    assert keys(found) == [str(path)]  # as it is
    told = found.describe()
    assert len(told) == 3 and not any("\n" in line or "\x1b" in line for line in told)
    assert told[0].startswith(f"  {tmp_path}/a\\nb\\x1b[1m.png: red") and "bad\\nname.png: " in told[1]


def test_a_photo_named_twice_is_shown_twice(route: Route, tmp_path: Path) -> None:
    path = photo(tmp_path / "a.png", BLUE)
    found = explanation.explain(route, [path, path], checked=False, out="out")
    assert keys(found) == [str(path)] * 2
    names = [item.maps[0].file for item in found.items]
    assert len(set(names)) == 2 and all((Path("out") / name).is_file() for name in names)


# ---------------------------------------------------------------- a labelled set


def test_a_labelled_set_gives_confident_mistakes_and_right_answers(route: Route, pets: Path) -> None:
    before = listing(pets)
    found = explanation.explain(route, pets, images=4)
    assert [group.title for group in found.groups] == ["Mistakes", "Right answers"]
    assert keys(found) == ["n3/f.png", "n3/e.png"]  # the more confident first
    # Of each class the most confident; only then a second of any.
    assert keys(found, 1) == ["n1/a.png", "n3/d.png", "n2/c.png", "n1/b.png"]
    wrong = found.groups[0].items[0]
    assert (wrong.predicted, wrong.true) == (0, 2)
    assert [(one.heatmap.label, one.role) for one in wrong.maps] == [(0, "for its answer"), (2, "for the truth")]
    assert wrong.maps[0].probability > 0.9 > 0.1 > wrong.maps[1].probability
    assert wrong.maps[0].heatmap.values_hw.max() > 0 == wrong.maps[1].heatmap.values_hw.max()  # nothing there speaks for red
    assert all(len(item.maps) == 1 for item in found.groups[1].items)
    assert found.groups[0].intro.startswith("2 of 7 labelled images named wrongly.")
    assert found.folder.name.startswith("explanations-evaluated-places-grad-cam-")
    assert listing(pets) == before


def test_the_number_of_images_and_a_set_without_mistakes(route: Route, pets: Path) -> None:
    found = explanation.explain(route, pets, images=1, checked=False)
    assert (len(found.groups[0].items), len(found.groups[1].items)) == (1, 1)
    whole = explanation.explain(route, pets, checked=False)
    for name in ("e", "f"):
        (pets / "n3" / f"{name}.png").unlink()
    healthy = explanation.explain(route, pets, checked=False)
    assert healthy.folder != whole.folder  # other images, another folder
    assert healthy.groups[0].items == () and healthy.groups[0].intro == "0 of 5 labelled images named wrongly."
    assert "0 of 5 labelled images named wrongly." in healthy.page.read_text()
    with pytest.raises(UserError, match="--images 0: expected 1 or more"):
        explanation.explain(route, pets, images=0)


def test_what_is_a_labelled_set_and_what_are_photos(pets: Path, tmp_path: Path) -> None:
    flat = photo(tmp_path / "flat/a.png", RED).parent
    (pets.parent / "list.csv").write_text("path,label\npets/n1/a.png,n1\npets/n2/c.png,n2\n")
    assert [labelled(str(place)) is not None for place in (pets, tmp_path / "list.csv", flat, flat / "a.png", pets / "n1")] == [
        *[True] * 2,
        *[False] * 3,
    ]
    assert labelled("no such folder") is None  # a photo that is not there has a bad row
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no image set that striate knows"):
        labelled(str(tmp_path / "empty"))


def test_a_folder_that_holds_photos_itself_is_photos_whatever_lies_beside_them(route: Route, pets: Path) -> None:
    """As predict sees it; whether the subfolders are called as classes makes no difference."""
    assert labelled(str(pets)) is not None
    (pets / "notes.txt").touch()
    (pets / ".hidden.png").touch()
    assert labelled(str(pets)) is not None
    photo(pets / "loose.png", RED)
    assert labelled(str(pets)) is None
    photo(pets / "sea/b.png", BLUE)
    assert labelled(str(pets)) is None
    found = explanation.explain(route, pets, checked=False)
    assert {item.true for item in found.items} == {-1}
    assert keys(found) == [row.key for row in opened.predict(route, [pets])]
    whole = pets.parent / "whole"
    for split in ("train", "val"):
        (whole / split).mkdir(parents=True)
        for name in ("n1", "n2"):
            photo(whole / split / name / "a.png", BLUE)
    assert labelled(str(whole)) is not None
    photo(whole / "loose.png", RED)
    assert labelled(str(whole)) is not None  # train and val make it a set


def test_a_known_set_stays_one_though_its_folder_holds_photos(tmp_path: Path) -> None:
    tiny = tmp_path / "tiny"
    for wnid in ("n01443537", "n01629819"):
        photo(tiny / "train" / wnid / "images" / f"{wnid}_0.JPEG", RED)
        photo(tiny / "val/images" / f"val_{wnid}.JPEG", RED)
    (tiny / "val/val_annotations.txt").write_text(
        "".join(f"val_{wnid}.JPEG\t{wnid}\t0\t0\t9\t9\n" for wnid in ("n01443537", "n01629819"))
    )
    photo(tiny / "preview.png", RED)
    index = labelled(str(tiny))
    assert index is not None and index.layout == "Tiny ImageNet"
    assert labelled(str(tiny / "val")) is not None  # its labels lie beside it


def test_several_places_are_photos_whatever_they_are(route: Route, pets: Path) -> None:
    found = explanation.explain(route, [pets, pets / "n1" / "a.png"], checked=False)
    assert len(found.items) == 8 and {item.true for item in found.items} == {-1}


def test_a_set_of_other_classes_names_the_way_out(route: Route, tmp_path: Path) -> None:
    photo(tmp_path / "trip/sea/a.png", BLUE)
    photo(tmp_path / "trip/town/b.png", RED)
    with pytest.raises(
        UserError, match=r"(?s)a labelled set \(class folder\).*Unknown, 2: 'sea', 'town'.*name them, or the folders"
    ):
        explanation.explain(route, tmp_path / "trip")
    assert len(explanation.explain(route, [tmp_path / "trip/sea"], checked=False).items) == 1


def test_a_class_goes_with_photos_and_a_network_by_name_needs_some(route: Route, pets: Path) -> None:
    with pytest.raises(UserError, match="--class red: goes with photos"):
        explanation.explain(route, pets, of_class="red")
    with pytest.raises(UserError, match="say which photos to explain"):
        explanation.explain(route)


# ---------------------------------------------------------------- what is refused, and what is written


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"method": "gradcam"}, "Did you mean 'grad-cam'"),
        ({"layer": "cels"}, "Did you mean 'cells'"),
        ({"layer": "head"}, "no grid"),
        ({"method": "gradient", "layer": "cells"}, "has no layer"),
        ({"features_of": "cels"}, "Did you mean 'cells'"),
        ({"layer": ""}, "--layer '': expected a layer's name"),
        ({"method": "gradient", "layer": ""}, "--layer '': expected a layer's name"),
        ({"features_of": ""}, "--features '': expected a layer's name"),
        ({"of_class": "rod"}, "Did you mean 'red'"),
    ],
)
def test_what_is_wrong_is_said_before_a_photo_is_looked_at(
    route: Route, pets: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, str], said: str
) -> None:
    monkeypatch.setattr(explanation, "ask", lambda *given: pytest.fail("photos were looked at"))
    with pytest.raises(UserError, match=said):
        explanation.explain(route, pets / "n1", **options)
    assert not list(Path().iterdir())  # and no folder was made


class FrontWithoutGradient(Places):
    """The same, its grid made without autograd."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            grid = self.cells(images)
        return self.head(self.pool(grid * 1).flatten(1))


@pytest.mark.parametrize("method", ["gradient", "smoothgrad", "integrated-gradients"])
def test_a_network_without_a_gradient_by_its_pixels_is_refused_at_once(
    route: Route, pets: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    deaf = Route(replace(route.colour, model=FrontWithoutGradient().eval()))
    assert explanation.explain(deaf, pets / "n1", method="occlusion", checked=False, out="out").items[0].predicted == 0
    monkeypatch.setattr(explanation, "ask", lambda *given: pytest.fail("photos were looked at"))
    with pytest.raises(UserError, match="do not depend on the pixels through autograd"):
        explanation.explain(deaf, pets / "n1", method=method, out="other")
    assert not Path("other").exists()


def test_a_network_with_a_box_head_is_explained_as_without(route: Route, pets: Path) -> None:
    model = heads.with_boxes(Places().eval(), "shared", 3, 16, 3, "places").eval()
    boxes = Route(replace(route.colour, model=model))
    one, other = (explanation.explain(each, pets / "n3", out=f"out{n}") for n, each in enumerate((boxes, route)))
    assert [(item.predicted, item.maps[0].sanity) for item in one.items] == [
        (item.predicted, item.maps[0].sanity) for item in other.items
    ]
    with pytest.raises(UserError, match="is no layer of this Places"):
        explanation.explain(boxes, pets / "n3", layer="cels")


def test_a_network_without_a_grid_or_a_convolution(route: Route, pets: Path) -> None:
    plain = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 3))
    mlp = Route(replace(route.colour, model=plain))
    with pytest.raises(UserError, match=r"(?s)no grid of features.*gradient"):
        explanation.explain(mlp, pets / "n1", method="cam")
    with pytest.raises(UserError, match="no 2-d convolution"):
        explanation.explain(mlp, pets / "n1", method="gradient", with_kernels=True)
    found = explanation.explain(mlp, pets / "n1", method="gradient")
    assert found.layer == "" and found.items[0].maps[0].heatmap.values_hw.shape == (16, 16)


@pytest.mark.parametrize("method", ["cam", "grad-cam++", "gradient", "smoothgrad", "integrated-gradients", "occlusion"])
def test_every_method_gives_a_page(route: Route, tmp_path: Path, method: str) -> None:
    path = photo(tmp_path / "a.png", RED, (32, 32), (16, 8, 24, 16))
    found = explanation.explain(route, path, method=method)
    values_hw = found.items[0].maps[0].heatmap.values_hw
    assert len(found.items[0].maps[0].numbers["correlations"]) == (1 if method in {"smoothgrad", "integrated-gradients"} else 3)
    if method in {"gradient", "smoothgrad"}:  # the network is linear: each pixel counts as much
        np.testing.assert_allclose(values_hw, 8 / 256, rtol=1e-5)
    else:
        row, column = np.unravel_index(values_hw.argmax(), values_hw.shape)
        assert (row * 4 // values_hw.shape[0], column * 4 // values_hw.shape[1]) == (1, 2)
    assert method in found.page.read_text() and f"explanations-evaluated-places-{method}-" in str(found.folder)


def test_the_numbers_are_written_for_machines(route: Route, pets: Path) -> None:
    found = explanation.explain(route, pets, images=1, out="out")
    written = json.loads(Path("out/heatmaps.json").read_text())
    wrong, right = written["photos"]
    assert (wrong["key"], wrong["predicted"], wrong["true"], wrong["group"]) == ("n3/f.png", "n1", "n3", "Mistakes")
    assert [one["class"] for one in wrong["maps"]] == ["n1", "n3"]
    assert (right["maps"][0]["method"], right["maps"][0]["layer"], right["width"]) == ("grad-cam", "cells", 32)
    assert right["maps"][0]["sanity"]["sentence"] == found.groups[1].items[0].maps[0].sanity
    assert right["maps"][0]["sanity"]["sentence"] == "The map has one value everywhere: no place stands out."
    assert wrong["maps"][1]["sanity"]["sentence"].endswith("no place speaks for the class.")
    assert {path.name for path in Path("out").iterdir()} == {"index.html", "heatmaps.json", *written["pictures"]}
    told = "\n".join(found.describe())
    assert "n3/f.png: blue" in told and ", in truth red" in told and told.endswith("index.html")


def test_a_photo_has_the_same_checks_whatever_stands_beside_it(
    route: Route, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copies with random weights are made once, not of the photos, also where they come in several batches."""
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    for number, path in enumerate(paths):
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (16, 16, 3), np.uint8)).save(path)
    made: list[torch.Tensor] = []
    normed = nn.Sequential(nn.BatchNorm2d(3, affine=False), Places()).eval()
    normed[0].running_var.fill_(0.1)
    normed = Route(replace(route.colour, model=normed))
    usual = explanation.sanity.random_copies

    def watched(model: nn.Module, images: torch.Tensor, *more: int) -> tuple[nn.Module, ...]:
        made.append(images)
        return usual(model, images, *more)

    monkeypatch.setattr(explanation.sanity, "random_copies", watched)
    together = explanation.explain(normed, paths, method="cam", out="a")
    assert len(made) == 1 and made[0].shape == (16, 3, 16, 16)
    monkeypatch.setattr(explanation, "_TOGETHER", 2)
    for one, other in zip(
        together.items, explanation.explain(normed, paths[::-1], method="cam", out="b").items[::-1], strict=True
    ):
        numbers, others = one.maps[0].numbers, other.maps[0].numbers
        assert numbers["correlations"] == pytest.approx(others["correlations"], abs=1e-6)
        assert numbers["deletion"]["shuffled"] == pytest.approx(others["deletion"]["shuffled"], abs=1e-6)
        assert len({value if value is None else round(value, 6) for value in numbers["correlations"]}) > 1
    assert len(made) == 2 and torch.equal(*made)
    assert len({one.maps[0].numbers["correlation"] for one in together.items}) > 1


def test_without_checks_nothing_is_said_of_trust(route: Route, pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explanation.sanity, "check", lambda *given: pytest.fail("checked"))
    found = explanation.explain(route, pets, images=1, checked=False, out="out")
    assert {one.sanity for item in found.items for one in item.maps} == {""}
    assert "Removing" not in found.page.read_text()


def test_kernels_and_feature_maps_are_drawn(route: Route, pets: Path) -> None:
    found = explanation.explain(route, pets / "n3", with_kernels=True, features_of="cells", checked=False, out="out")
    written = json.loads(Path("out/heatmaps.json").read_text())["pictures"]
    assert {"kernels.png", *(f"features-cells-{number}.png" for number in (1, 2, 3, 4))} < {*written}
    text = found.page.read_text()
    assert "cells: 3 kernels of 4 x 4 weights" in text and "cells: 3 of 3 channels" in text
    assert pixels_of("out/features-cells-4.png").shape[2] == 3


def test_the_same_command_writes_the_same_folder_again_without_old_pictures(route: Route, pets: Path) -> None:
    first = explanation.explain(route, pets, checked=False)
    again = explanation.explain(route, pets, checked=False)
    assert first.folder == again.folder
    assert explanation.explain(route, pets, checked=False, images=2).folder != first.folder
    assert explanation.explain(route, pets / "n1", checked=False).folder != first.folder
    before = {path.name for path in first.folder.iterdir()}
    (first.folder / "mine.png").write_bytes(b"kept")
    numbers = first.folder / "heatmaps.json"
    kept = photo(Path("kept.png"), RED)
    told = json.loads(numbers.read_text())
    numbers.write_text(json.dumps(told | {"pictures": [*told["pictures"], "../kept.png", str(kept.resolve())]}))
    explanation.explain(route, pets, images=1, checked=False, out=first.folder)
    after = {path.name for path in first.folder.iterdir()}
    assert (
        after < before | {"mine.png"}
        and "mine.png" in after
        and len(after) == len({"index.html", "heatmaps.json", "mine.png"}) + 3
    )
    assert kept.is_file()


def test_no_place_among_the_photos_and_none_that_holds_something_else(
    route: Route, pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="never written to"):
        explanation.explain(route, pets, out=pets / "out")
    monkeypatch.chdir(pets)
    with pytest.raises(UserError, match=r"explanations-evaluated-places-grad-cam-.*never written to. Name another: --out DIR"):
        explanation.explain(route, ".")
    assert {path.name for path in pets.iterdir()} == {"n1", "n2", "n3"}
    elsewhere = pets.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "thesis.txt").touch()
    with pytest.raises(UserError, match="holds files that are no explanation"):
        explanation.explain(route, pets, out=elsewhere)
    with pytest.raises(UserError, match="is a file"):
        explanation.explain(route, pets, out=elsewhere / "thesis.txt")


def test_the_network_is_left_as_it_was(route: Route, pets: Path) -> None:
    model = route.colour.model.train()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    explanation.explain(route, pets, images=1)
    assert model.training and all(weight.requires_grad and weight.grad is None for weight in model.parameters())
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_progress_is_told(route: Route, pets: Path) -> None:
    told: list[tuple[int, int]] = []
    explanation.explain(route, pets, images=2, checked=False, watch=lambda done, of: told.append((done, of)))
    assert (0, 7) in told and told[-1] == (2, 2)


def test_a_folder_that_was_not_finished_is_written_again(route: Route, pets: Path, tmp_path: Path) -> None:
    def stop(done: int, of: int) -> None:
        if of == 2:  # the mistakes have been drawn, the right answers not
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        explanation.explain(route, pets, checked=False, out="out", watch=stop)
    left = {path.name for path in Path("out").iterdir()}
    assert "n3-f-truth.png" in left and "index.html" not in left
    found = explanation.explain(route, photo(tmp_path / "other/a.png", RED), checked=False, out="out")
    assert {path.name for path in Path("out").iterdir()} == {"index.html", "heatmaps.json", found.items[0].maps[0].file}


@pytest.mark.parametrize("ends", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("where", ["looking", "drawing", "writing"])
def test_where_nothing_was_drawn_nothing_is_left(
    route: Route, pets: Path, monkeypatch: pytest.MonkeyPatch, where: str, ends: type[BaseException]
) -> None:
    def stop(*given: object) -> None:
        raise ends

    whole = explanation.explain(route, pets, checked=False, out="whole")
    before = listing(whole.folder)
    Path("empty").mkdir()
    if where == "drawing":
        monkeypatch.setattr(explanation.explained, "overlay", stop)
    elif where == "writing":
        monkeypatch.setattr(explanation.explained, "write_picture", stop)
    for out in ("made/for/it", "empty", None, "whole"):
        with pytest.raises(ends):
            explanation.explain(route, pets, checked=False, out=out, watch=stop if where == "looking" else None)
    assert {path.name for path in Path().iterdir()} == {"empty", "whole"} and not list(Path("empty").iterdir())
    if where == "looking":  # an earlier explanation is as it was
        assert listing(whole.folder) == before


def test_photos_that_cannot_be_read_leave_no_folder(route: Route, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="None of the 1 photos"):
        explanation.explain(route, tmp_path / "broken.png")
    assert not list(Path().iterdir())


def test_a_turned_photo_is_drawn_as_the_network_sees_it(route: Route, tmp_path: Path) -> None:
    turning = Route(replace(route.colour, view=replace(VIEW, exif=True)))
    picture = Image.fromarray(np.zeros((32, 48, 3), np.uint8))
    picture.paste(RED, (0, 0, 48, 8))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter clockwise: its upper edge is the right one
    picture.save(tmp_path / "a.png", exif=exif)
    (item,) = explanation.explain(turning, tmp_path / "a.png", checked=False, out="out").items
    heatmap = item.maps[0].heatmap
    assert (heatmap.width, heatmap.height) == (32, 48) and pixels_of(Path("out") / item.maps[0].file).shape == (48, 32, 3)
    assert (heatmap.values_hw[:, 3] > 0).all() and not heatmap.values_hw[:, :3].any()


def test_a_network_that_sees_grey(route: Route, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 4, stride=4, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3))
    view = replace(VIEW, colour="grey", mean=(0.5,), std=(0.25,))
    grey = Route(replace(route.colour, model=model.eval(), view=view))
    found = explanation.explain(grey, photo(tmp_path / "a.png", GREEN), with_kernels=True, out="out")
    assert found.items[0].maps[0].heatmap.values_hw.shape == (4, 4)
    assert Path("out/kernels.png").is_file()


def test_a_map_of_few_cells_comes_with_a_warning(route: Route, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coarse = Route(replace(route.colour, view=replace(VIEW, size_px=8, resize_px=8)))
    path = photo(tmp_path / "a.png", RED, (32, 32), (0, 0, 16, 16))
    monkeypatch.setattr(explanation.sanity, "random_copies", lambda *given: pytest.fail("copies for nothing"))
    found = explanation.explain(coarse, path, out="a")
    assert found.notes[0].startswith("The maps have 2 x 2 cells only")
    said = found.items[0].maps[0]
    assert said.sanity.startswith("Removing the brightest") and said.numbers["correlation"] is None
    assert said.sanity.endswith("its 2 x 2 cells are too few to compare it with a map of random weights.")
    assert "what was learnt" not in said.sanity
    assert explanation.explain(route, path, checked=False, out="b").notes == ()

"""The built-in set: deterministic, exact boxes, three layouts, odd files, and no toy."""

from __future__ import annotations

import csv
import threading
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from striate import files, geometry
from striate.data import synthetic, synthetic_scene
from striate.data.synthetic_scene import Scene, jpeg, render
from striate.data.synthetic_shapes import THINGS, Dice
from striate.errors import ResourceError, UserError


def _all_files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def scenes() -> list[tuple[int, Scene]]:
    """Two dozen pictures of each of the twelve classes."""
    return [(label, render(thing, 0, "train", i)) for label, thing in enumerate(THINGS[:12]) for i in range(24)]


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Tiny products are quicker without a second thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_picture_is_a_pure_function_of_seed_class_split_and_number() -> None:
    fish = THINGS[6]
    assert jpeg(render(fish, 0, "train", 7).image) == jpeg(render(fish, 0, "train", 7).image)
    others = [
        render(fish, 1, "train", 7),
        render(fish, 0, "val", 7),
        render(fish, 0, "train", 8),
        render(THINGS[5], 0, "train", 7),
    ]
    assert len({jpeg(scene.image) for scene in [render(fish, 0, "train", 7), *others]}) == 5


def test_same_bytes_whatever_the_number_of_threads_and_of_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synthetic.make(tmp_path / "small", "folder", classes=2, per_class=2, val_per_class=1)
    monkeypatch.setattr(synthetic.machine, "cores", lambda: 5)
    synthetic.make(tmp_path / "large", "folder", classes=3, per_class=4, val_per_class=1)
    small, large = _all_files(tmp_path / "small"), _all_files(tmp_path / "large")
    pictures = [name for name in small if name.endswith(".jpg")]
    assert len(pictures) == 6
    assert all(small[name] == large[name] for name in pictures)


def test_dice_is_even_and_repeats() -> None:
    dice, again = Dice(3, "a", 5), Dice(3, "a", 5)
    numbers = [dice.unit() for _ in range(2000)]
    assert numbers == [again.unit() for _ in range(2000)]
    assert abs(np.mean(numbers) - 0.5) < 0.03
    assert {Dice(0, "b", i).whole(2, 4) for i in range(60)} == {2, 3, 4}
    assert dice.grid(5, 7).shape == (5, 7)
    assert abs(dice.grid(200, 200).mean() - 127.5) < 2


def test_sides_and_areas_are_as_promised(scenes: list[tuple[int, Scene]]) -> None:
    for _, scene in scenes:
        width, height = scene.image.size
        x_min, y_min, x_max, y_max = scene.box
        assert 160 <= min(width, height) <= max(width, height) <= 400
        assert 0 <= x_min < x_max <= width
        assert 0 <= y_min < y_max <= height
        assert 0.05 <= (x_max - x_min) * (y_max - y_min) / (width * height) <= 0.35
    assert len({scene.image.size for _, scene in scenes}) > 150


def test_two_in_a_hundred_are_grey(scenes: list[tuple[int, Scene]]) -> None:
    for thing in THINGS:
        assert sum(synthetic_scene.is_grey(thing, 0, "train", i) for i in range(100)) == 2
    expected = [synthetic_scene.is_grey(THINGS[label], 0, "train", i % 24) for i, (label, _) in enumerate(scenes)]
    assert [scene.image.mode == "L" for _, scene in scenes] == expected
    assert any(expected)


@pytest.mark.parametrize("thing", THINGS, ids=lambda thing: thing.name)
def test_the_box_is_tight_around_the_pixels_of_the_thing(thing: synthetic.Thing, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found without the renderer's mask: the thing painted white upon black, with nothing else in the picture."""

    def white(dice: Dice, width: int, height: int, first: object, second: object) -> Image.Image:
        return Image.new("RGB", (width, height), (255, 255, 255))

    for index in range(3):
        dice = Dice(0, thing.name, index)
        image = Image.new("RGB", (240, 200))
        with monkeypatch.context() as patch:
            patch.setattr(synthetic_scene, "filled", white)
            patch.setattr(synthetic_scene, "colour_apart", lambda *rest: (255, 255, 255))
            patch.setattr(synthetic_scene, "add_occluder", lambda *rest: None)
            patch.setattr(synthetic_scene, "shifted", lambda *rest: (255, 255, 255))
            box = synthetic_scene.add_thing(dice, image, thing, ((0, 0, 0), (0, 0, 0)))
        seen = np.asarray(image)[..., 0] > 127
        rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
        assert box == (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)


def test_an_occluder_hides_a_part_and_never_much() -> None:
    hidden = []
    for index in range(40):
        image = Image.new("RGB", (120, 100))
        shape = Image.new("L", (60, 40), 255)
        synthetic_scene.add_occluder(Dice(1, "occluder", index), image, shape, (30, 30))
        hidden.append((np.asarray(image)[30:70, 30:90].max(axis=2) > 20).mean())
    assert max(hidden) <= synthetic_scene.MOST_HIDDEN + 0.02
    assert np.mean(np.array(hidden) > 0.02) > 0.6


def test_it_is_no_toy_for_thumbnails(scenes: list[tuple[int, Scene]], one_thread: None) -> None:
    """Multinomial logistic regression on 8x8 colour thumbnails (benchmarks/builtin_difficulty.py does the whole set)."""
    pixels = np.stack([np.asarray(scene.image.convert("RGB").resize((8, 8), Image.Resampling.BOX)) for _, scene in scenes])
    images_ND = torch.from_numpy(pixels.reshape(len(scenes), -1).astype(np.float32)) / 255
    labels_N = torch.tensor([label for label, _ in scenes])
    held_out = torch.arange(len(scenes)) % 5 == 0
    layer = torch.nn.Linear(192, 12)
    torch.nn.init.zeros_(layer.weight)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.02, weight_decay=1e-3)
    best = 0.0
    for _ in range(150):
        loss = torch.nn.functional.cross_entropy(layer(images_ND[~held_out]), labels_N[~held_out])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        best = max(best, (layer(images_ND[held_out]).argmax(1) == labels_N[held_out]).float().mean().item())
    assert loss.item() < 2.3  # it did fit
    assert best < 0.45


def test_it_is_no_toy_for_fixed_boxes(scenes: list[tuple[int, Scene]]) -> None:
    whole_hits, centre_hits = [], []
    for _, scene in scenes:
        width, height = scene.image.size
        fixed = np.array([[0, 0, width, height], [width / 4, height / 4, width * 3 / 4, height * 3 / 4]])
        overlap = geometry.iou(fixed, np.array([scene.box], dtype=np.float64))[:, 0]
        whole_hits.append(overlap[0] >= 0.5)
        centre_hits.append(overlap[1] >= 0.5)
    assert np.mean(whole_hits) <= 0.15
    assert np.mean(centre_hits) <= 0.15


def test_folder_layout(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    made = synthetic.make(tmp_path / "set", "folder", classes=3, per_class=4, progress=lambda *so_far: seen.append(so_far))
    assert (made.train, made.val, made.test) == (12, 3, 0)
    assert made.classes == ("chair", "key", "mug")
    assert seen[-1] == (15, 15)
    assert sorted(path.name for path in (tmp_path / "set" / "train").iterdir()) == ["chair", "key", "mug"]
    with open(tmp_path / "set" / "boxes.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 15
    for row in rows:
        assert (tmp_path / "set" / row["path"]).is_file()
        assert Path(row["path"]).parts[1] == row["label"]
        assert float(row["x_max"]) > float(row["x_min"])


def test_ilsvrc_layout(tmp_path: Path) -> None:
    made = synthetic.make(tmp_path / "set", "ilsvrc", classes=3, per_class=10, val_per_class=4)
    root = tmp_path / "set"
    assert (made.train, made.val, made.test) == (30, 12, 12)
    images = root / "ILSVRC/Data/CLS-LOC"
    assert sorted(path.name for path in (images / "train").iterdir()) == list(made.classes) == sorted(t.wnid for t in THINGS[:3])
    assert (images / "val/ILSVRC2012_val_00000001.JPEG").is_file()
    assert (images / "test/ILSVRC2012_test_00000012.JPEG").is_file()
    with open(root / "LOC_val_solution.csv", newline="") as file:
        val = {row["ImageId"]: row["PredictionString"].split() for row in csv.DictReader(file)}
    assert len(val) == 12
    in_order = [words[0] for _, words in sorted(val.items())]
    assert in_order != sorted(in_order)  # a flat folder does not lie sorted by class
    with open(root / "LOC_train_solution.csv", newline="") as file:
        train = {row["ImageId"]: row["PredictionString"].split() for row in csv.DictReader(file)}
    assert 5 <= len(train) <= 25  # only some of the training images have boxes
    for split, rows in (("train", train), ("val", val)):
        for name, words in rows.items():
            inner = f"{words[0]}/{name}" if split == "train" else name
            tree = ElementTree.parse(root / f"ILSVRC/Annotations/CLS-LOC/{split}/{inner}.xml")
            with Image.open(images / split / f"{inner}.JPEG") as image:
                assert (int(tree.findtext("size/width") or 0), int(tree.findtext("size/height") or 0)) == image.size
            assert tree.findtext("object/name") == words[0]
            assert [tree.findtext(f"object/bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")] == words[1:]
    sets = root / "ILSVRC/ImageSets/CLS-LOC"
    assert len((sets / "train_cls.txt").read_text().splitlines()) == 30
    assert len((sets / "train_loc.txt").read_text().splitlines()) == len(train)
    assert (sets / "val.txt").read_text().splitlines()[0] == "ILSVRC2012_val_00000001 1"
    assert len((sets / "test.txt").read_text().splitlines()) == 12
    mapping = [line.split(" ", 1) for line in (root / "LOC_synset_mapping.txt").read_text().splitlines()]
    assert [wnid for wnid, _ in mapping] == list(made.classes)
    assert {name for _, name in mapping} == {"mug", "key", "chair"}


def test_tiny_layout(tmp_path: Path) -> None:
    made = synthetic.make(tmp_path / "set", "tiny", classes=5, per_class=4, val_per_class=2)
    root = tmp_path / "set"
    assert (made.train, made.val, made.test) == (20, 10, 10)
    wnids = (root / "wnids.txt").read_text().split()
    assert sorted(wnids) == list(made.classes)
    assert wnids != sorted(wnids)
    words = dict(line.split("\t") for line in (root / "words.txt").read_text().splitlines())
    assert len(words) > 5
    assert {words[wnid] for wnid in wnids} == {thing.name for thing in THINGS[:5]}
    val = [line.split("\t") for line in (root / "val/val_annotations.txt").read_text().splitlines()]
    assert [row[0] for row in val] == [f"val_{i}.JPEG" for i in range(10)]
    for wnid in wnids:
        rows = [line.split("\t") for line in (root / f"train/{wnid}/{wnid}_boxes.txt").read_text().splitlines()]
        assert [row[0] for row in rows] == [f"{wnid}_{i}.JPEG" for i in range(4)]
        for row in rows:
            with Image.open(root / "train" / wnid / "images" / row[0]) as image:
                assert image.size == (64, 64)
            x_min, y_min, x_max, y_max = map(int, row[1:])
            assert 0 <= x_min < x_max <= 64
            assert 0 <= y_min < y_max <= 64
    assert len(list((root / "test/images").iterdir())) == 10


@pytest.mark.parametrize("layout", synthetic.LAYOUTS)
def test_defects_are_what_they_say(tmp_path: Path, layout: synthetic.Layout) -> None:
    made = synthetic.make(tmp_path / "set", layout, classes=2, per_class=2, val_per_class=1, defects=True)
    assert sorted(made.defects.values()) == sorted(2 * synthetic.DEFECTS)
    with open(tmp_path / "set" / "defects.csv", newline="") as file:
        assert {row["path"]: row["defect"] for row in csv.DictReader(file)} == made.defects
    for name, defect in made.defects.items():
        path = tmp_path / "set" / name
        with Image.open(path) as image:
            if defect == "truncated":
                with pytest.raises(OSError, match="truncated"):
                    image.load()
                continue
            image.load()
            found = (image.format, image.mode, image.getexif().get(0x0112))
        expected = {
            "cmyk": ("JPEG", "CMYK", None),
            "grey": ("JPEG", "L", None),
            "png-named-jpeg": ("PNG", "RGB", None),
            "16-bit": ("PNG", "I;16", None),
            "exif-rotated": ("JPEG", "RGB", 6),
            "alpha": ("PNG", "RGBA", None),
        }[defect]
        assert found == expected, name
        assert defect != "png-named-jpeg" or path.suffix in (".jpg", ".JPEG")


def test_the_box_of_a_rotated_file_counts_in_its_stored_pixels() -> None:
    image = Image.new("RGB", (60, 40))
    image.paste((255, 255, 255), (8, 4, 30, 12))
    data, box = synthetic.spoiled(Scene(image, (8, 4, 30, 12)), "exif-rotated")
    with Image.open(synthetic.io.BytesIO(data)) as stored:
        assert stored.size == (40, 60)
        assert Image.fromarray((np.asarray(stored)[..., 0] > 127).astype(np.uint8) * 255).getbbox() == box


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(UserError, match="not empty"):
        synthetic.make(tmp_path, classes=1, per_class=1)
    assert (tmp_path / "mine.txt").read_text() == "keep"
    with pytest.raises(UserError, match="is a file"):
        synthetic.make(tmp_path / "mine.txt", classes=1, per_class=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "tinny"}, "Did you mean 'tiny'"),
        ({"classes": 21}, "choose 1 to 20"),
        ({"classes": 0}, "choose 1 to 20"),
        ({"per_class": 0}, "at least one training image"),
        ({"defects": ["cymk"]}, "Did you mean 'cmyk'"),
    ],
)
def test_wrong_wishes_are_refused_with_advice(tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        synthetic.make(tmp_path / "set", **options)
    assert not (tmp_path / "set").exists()


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ResourceError, match="no room left"):
        synthetic.make(tmp_path / "set", classes=1, per_class=3)
    assert not (tmp_path / "set").exists()


@pytest.fixture
def small_builtin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STRIATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(synthetic, "BUILTIN_PER_CLASS", 2)
    monkeypatch.setattr(synthetic, "BUILTIN_VAL_PER_CLASS", 1)
    return tmp_path / "cache"


def test_builtin_is_made_once_and_whole(small_builtin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = synthetic.builtin_folder()
    assert folder.parent == files.cache_folder() == small_builtin
    assert len(list(folder.glob("train/*/*.jpg"))) == 24
    monkeypatch.setattr(synthetic, "make", None)  # a second call makes nothing
    assert synthetic.builtin_folder() == folder
    assert [path.name for path in small_builtin.iterdir()] == [folder.name]


def test_builtin_made_by_several_at_once(small_builtin: Path) -> None:
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(synthetic.builtin_folder())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert len(set(found)) == 1
    assert [path.name for path in small_builtin.iterdir()] == [found[0].name]


def test_builtin_that_was_interrupted_is_not_used(small_builtin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*rest: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(synthetic, "_folder_lists", killed)
        with pytest.raises(KeyboardInterrupt):
            synthetic.builtin_folder()
    assert list(small_builtin.iterdir()) == []
    assert (synthetic.builtin_folder() / "boxes.csv").is_file()


def test_builtin_without_a_writable_cache_says_which_variable_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STRIATE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises((UserError, ResourceError), match="STRIATE_CACHE"):
        synthetic.builtin_folder()

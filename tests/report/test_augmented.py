"""The views that are shown are those that training gets, told from the loader and the mixing that training uses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from striate.classes import Classes
from striate.data import mixing
from striate.data.index import Gathering, Index
from striate.data.loader import Streaming, Workers, ordered_batches, train_batches
from striate.data.order import Order
from striate.errors import DataError, UserError
from striate.recipe import Recipe, change
from striate.report import augmented
from striate.train.build import augmentation_of
from striate.view import View

VIEW = View(16, "crop", 18, "bilinear", False, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
GREY = replace(VIEW, mean=(0.5,), std=(0.5,), colour="grey")
CHANGES = {"data.size_px": 16, "batch_size": 5, "seed": 3, "data.shrink_px": 30}


def made(folder: Path, count: int = 21, bad: tuple[int, ...] = ()) -> Index:
    """Photos of three classes, one after the other in turn, with 21 in no batch of five left over."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    gathering = Gathering()
    for number in range(count):
        path = folder / f"{number:02}.png"
        width, height = rng.integers(20, 50, 2).tolist()
        Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize((width, height)).save(path)
        if number in bad:
            path.write_bytes(path.read_bytes()[:60])
        facts = path.stat()
        gathering.add(path.name.encode(), number % 3, facts.st_size, facts.st_mtime_ns)
    return gathering.index(folder, "train", "class folder", Classes(("a", "b", "c"), ("ant", "bee", "")))


def trained(index: Index, recipe: Recipe, view: View, row: int) -> list[np.ndarray]:
    """The first seven images that the network gets of a row, by the way of the loader."""
    order = Order(3, len(index), 5, index.labels if recipe.data.sampling == "classes" else None)
    stored = Streaming(index, False, recipe.data.shrink_px)
    found: list[np.ndarray] = []
    batches = train_batches(stored, index, augmentation_of(recipe, view), order, 0, None, Workers("threads", 0))
    a = recipe.augment
    for step, batch in enumerate(batches):
        levels = view.levels(batch.images)
        mix = mixing.choose(3, step, mixup=a.mixup, cutmix=a.cutmix, share=a.mix_share, side=16)
        if mix is not None:
            levels, _, _ = mixing.apply(levels, batch.labels, mix)
        images_BSSC = levels.round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        found += list(images_BSSC[batch.indices.numpy() == row])
        if len(found) >= augmented.TIMES:
            return found[: augmented.TIMES]
    raise AssertionError("the batches never end")


@pytest.mark.parametrize(
    ("changes", "view"),
    [
        ({}, VIEW),
        ({"augment.mixup": 0.4, "augment.cutmix": 1.0, "augment.mix_share": 0.8, "augment.policy": "randaugment"}, VIEW),
        ({"data.colour": "grey", "augment.crop": "shift", "augment.mixup": 0.4, "augment.rotate": 20.0}, GREY),
        ({"data.sampling": "classes", "augment.erase": 0.5, "augment.cutout_px": 5, "augment.crop": "random"}, VIEW),
    ],
)
def test_the_pixels_are_those_that_training_gets(changes: dict[str, object], view: View, tmp_path: Path) -> None:
    index = made(tmp_path / "photos")
    recipe = change(Recipe(), CHANGES | changes)
    photos, bad = augmented.photos(index, recipe, view, 4)
    assert bad == []
    evaluated = {}
    for batch in ordered_batches(Streaming(index, False), index, view, None, 7, Workers("threads", 0)):
        evaluated |= dict(zip(batch.keys, view.levels(batch.images), strict=True))
    for photo in photos:
        assert photo.evaluated.pixels_SSC.shape == (16, 16, view.channels)
        np.testing.assert_array_equal(photo.evaluated.pixels_SSC, evaluated[photo.key].permute(1, 2, 0).numpy())
        expected = trained(index, recipe, view, list(index.keys).index(photo.key))
        assert len(photo.trained) == augmented.TIMES
        for cell, pixels in zip(photo.trained, expected, strict=True):
            np.testing.assert_array_equal(cell.pixels_SSC, pixels)


def test_photos_are_spread_over_the_classes_and_bad_ones_are_named(tmp_path: Path) -> None:
    index = made(tmp_path / "photos", bad=(0, 3, 1))
    recipe = change(Recipe(), CHANGES)
    photos, bad = augmented.photos(index, recipe, VIEW, 3)
    assert [photo.key for photo in photos] == ["06.png", "04.png", "02.png"]
    assert [photo.title for photo in photos] == ["ant · 06.png", "bee · 04.png", "c · 02.png"]
    assert [key for key, _ in bad] == ["00.png", "03.png", "01.png"]
    assert all(reason for _, reason in bad)
    assert len(augmented.photos(index, recipe, VIEW, 40)[0]) == 18


def test_no_photo_at_all_is_an_error(tmp_path: Path) -> None:
    index = made(tmp_path / "photos", 6, bad=tuple(range(6)))
    with pytest.raises(DataError, match=r"none of 6 training images could be read\. 00\.png: "):
        augmented.photos(index, change(Recipe(), CHANGES), VIEW, 6)
    with pytest.raises(UserError, match="--batch-size 7"):
        augmented.photos(index, change(Recipe(), CHANGES | {"batch_size": 7}), VIEW, 6)


def test_the_words_say_what_was_drawn(tmp_path: Path) -> None:
    index = made(tmp_path / "photos")
    everything = {
        "augment.flip": 1.0, "augment.policy": "trivialaugment", "augment.rotate": 20.0, "augment.translate": 0.2,
        "augment.shear": 5.0, "augment.brightness": 0.4, "augment.hue": 0.1, "augment.lighting": 0.1, "augment.erase": 1.0,
        "augment.cutout_px": 4, "augment.cutmix": 1.0,
    }  # fmt: skip
    for crop, word in (("random-resized", "×"), ("random", "of "), ("shift", "moved "), ("resize", "mirrored")):
        (photo, *_), _ = augmented.photos(index, change(Recipe(), CHANGES | everything | {"augment.crop": crop}), VIEW, 1)
        paired = 0
        for cell in photo.trained:
            assert cell.words.startswith(word) or word in cell.words.split(",")[0]
            for said in ("mirrored", "turned ", "moved ", "sheared ", "brightness ×", "hue ", "light ", "erased", "cut out"):
                assert said in cell.words
            paired += "cutmix with " in cell.words
        assert paired >= 4  # the last of a batch of five has no partner
    (photo, *_), _ = augmented.photos(index, change(Recipe(), CHANGES | {"augment.crop": "resize", "augment.flip": 0.0}), VIEW, 1)
    assert {cell.words for cell in photo.trained} == {"as it is"}


def test_a_recipe_is_described_by_what_it_does() -> None:
    said = augmented.described(change(Recipe(), {"augment.policy": "randaugment", "augment.cutmix": 1.0, "augment.erase": 0.25}))
    assert said == "crop random-resized, of 0.08 to 1 of the area, mirrored 50%, randaugment 2×9, erase 0.25, cutmix 1"
    said = augmented.described(change(Recipe(), {"augment.crop": "random", "augment.shorter_px": [256, 480], "augment.flip": 0}))
    assert said == "crop random, shorter side 256 to 480"

"""The recipe reaches the leaves: every field of a group arrives where it is used."""

from __future__ import annotations

from dataclasses import fields

import pytest

from striate.data.augment import colour
from striate.data.augment.draw import Augmentation
from striate.models import catalog
from striate.recipe import AugmentGroup, Recipe, change
from striate.train.build import augmentation_of, is_narrow
from striate.view import View

VIEW = View(64, "crop", 73, "bilinear", False, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SHARED = {one.name for one in fields(AugmentGroup)} & {one.name for one in fields(Augmentation)}
OTHER = {
    "crop": "random",
    "scale": [0.2, 0.9],
    "ratio": [0.5, 2.0],
    "shorter_px": [70, 90],
    "lighting_axes": [0.1] * 9,
    "policy": "randaugment",
    "erase_area": [0.1, 0.2],
    "erase_ratio": [0.5, 2.0],
    "resampler": "torch",
}


def test_every_field_that_acts_on_one_image_is_there() -> None:
    elsewhere = {"lighting_from", "mixup", "cutmix", "mix_share", "execution"}
    assert {one.name for one in fields(AugmentGroup)} - SHARED == elsewhere


def test_a_run_from_before_there_was_a_choice_keeps_pillow() -> None:
    assert augmentation_of(change(Recipe(), {"data.size_px": 64}), VIEW).resampler == "pillow"


@pytest.mark.parametrize("name", sorted(SHARED))
def test_augment_fields_are_handed_over(name: str) -> None:
    default = getattr(AugmentGroup(), name)
    other = OTHER.get(name, default + 1 if isinstance(default, int) else 0.25)
    changes = {f"augment.{name}": other, "data.size_px": 64, "augment.lighting_from": "dataset"}
    made = augmentation_of(change(Recipe(), changes), VIEW)
    assert getattr(made, name) == (tuple(other) if isinstance(other, list) else other) != default


def test_what_the_recipe_says_elsewhere_is_put_in() -> None:
    recipe = change(
        Recipe(), {"data.size_px": 224, "augment.crop": "random", "data.interpolation": "bicubic", "data.fit": "squash"}
    )
    made = augmentation_of(recipe, VIEW)
    assert (made.size_px, made.interpolation, made.fit) == (224, "bicubic", "squash")
    assert made.shorter_px == (256, 256)  # 224 of 256 is the default crop_share
    assert made.lighting_axes == colour.IMAGENET_AXES
    assert made.cutout_colour == (124, 116, 104)  # the mean colour: what the network sees as zero
    turned = View(64, "crop", 73, "bilinear", False, (0.406, 0.456, 0.485), (0.225, 0.224, 0.229), "bgr")
    assert augmentation_of(recipe, turned).cutout_colour == (124, 116, 104)
    grey = View(64, "crop", 73, "bilinear", False, (0.459,), (0.218,), "grey")
    assert augmentation_of(recipe, grey).cutout_colour == (117, 117, 117)


def test_a_default_recipe_does_nothing_beyond_crop_and_mirror() -> None:
    assert augmentation_of(change(Recipe(), {"data.size_px": 64}), VIEW).is_plain


@pytest.mark.parametrize("width, narrow", [(4, True), (7, True), (8, False), (64, False)])
def test_convolutions_of_few_outputs_are_narrow(width, narrow):
    assert is_narrow(catalog.build("resnet18", 3, {"width": width})) is narrow

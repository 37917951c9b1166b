"""What a recipe leaves open is measured on the training images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from striate.data import resample
from striate.data.augment import colour
from striate.data.layouts.detect import open_data
from striate.data.layouts.splits import Splits
from striate.errors import UserError
from striate.models import pretrained
from striate.recipe import Recipe, change
from striate.train.resolve import Resolved, resolve
from striate.view import View

AXIS = np.array([0.6, 0.64, 0.48])  # a unit vector


@pytest.fixture
def splits(tmp_path: Path) -> Splits:
    """24 pictures whose colours vary along one axis, and a little beside it."""
    rng = np.random.default_rng(0)
    for number in range(24):
        levels = 120 + 60 * rng.standard_normal((32, 32, 1)).clip(-2, 2) * AXIS + rng.normal(0, 3, (32, 32, 3))
        path = tmp_path / "data" / "train" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(levels.clip(0, 255).astype(np.uint8)).save(path)
    return open_data(str(tmp_path / "data"))


def resolved(splits: Splits, **changes: object) -> tuple[Recipe, tuple[str, ...], tuple[float, ...]]:
    named = {"data.size_px": 32, "data.crop_share": 1.0, **{name.replace("__", "."): value for name, value in changes.items()}}
    found = resolve(change(Recipe(), named), splits, torch.device("cpu"), keeps_orientation=True)
    return found.recipe, found.notes, (*found.view.mean, *found.view.std)


def test_moments_and_axes_are_those_of_all_pixels(splits: Splits) -> None:
    recipe, notes, statistics = resolved(
        splits, augment__lighting=0.1, augment__lighting_from="dataset", data__normalise="dataset"
    )
    pixels_N3 = np.concatenate(
        [np.asarray(Image.open(splits.train.path(row))).reshape(-1, 3) / 255 for row in range(len(splits.train))]
    )
    np.testing.assert_allclose(statistics, [*pixels_N3.mean(0), *pixels_N3.std(0)], atol=2e-6)
    expected = colour.principal_axes(np.cov(pixels_N3.T, ddof=0))
    np.testing.assert_allclose(recipe.augment.lighting_axes, expected, atol=1e-9)
    first = np.array(recipe.augment.lighting_axes[:3])
    np.testing.assert_allclose(first / np.linalg.norm(first), AXIS, atol=0.02)
    assert any("--augment.lighting_axes" in note and f"from {len(splits.train)} training images" in note for note in notes)


@pytest.mark.parametrize("changes", [{}, {"augment__lighting": 0.1}, {"augment__lighting_from": "dataset"}])
def test_axes_are_measured_only_where_they_are_used(splits: Splits, changes: dict[str, object]) -> None:
    recipe, notes, _ = resolved(splits, **changes)
    assert recipe.augment.lighting_axes == ()
    assert not any("lighting" in note for note in notes)


def test_axes_that_are_given_stay(splits: Splits) -> None:
    given = tuple(number / 10 for number in range(9))
    recipe, _, _ = resolved(splits, augment__lighting=0.1, augment__lighting_from="dataset", augment__lighting_axes=given)
    assert recipe.augment.lighting_axes == given


def test_photos_are_not_stored_smaller_than_the_network_sees_them(splits: Splits) -> None:
    """A recipe for 64 px keeps photos at 80; with a larger --img-size training would see them blurred, and scoring sharp."""
    recipe, notes, _ = resolved(splits, data__size_px=96, data__shrink_px=80)
    assert recipe.data.shrink_px == 120
    assert "--data.shrink-px 120: 80 is less than --img-size 96." in notes
    for kept in ({"data__shrink_px": 40}, {"data__shrink_px": 0}):
        recipe, notes, _ = resolved(splits, **kept)
        assert recipe.data.shrink_px == kept["data__shrink_px"]
        assert not any("shrink" in note for note in notes)


@pytest.mark.parametrize("resident", ["yes", "no"])
def test_batches_are_augmented_on_a_gpu_only(splits: Splits, resident: str) -> None:
    assert resolved(splits, data__resident=resident)[0].augment.execution == "per-image"
    assert resolved(splits, data__resident=resident, augment__execution="batched")[0].augment.execution == "batched"


def test_the_resampler_is_chosen_once(splits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resample, "has_opencv", lambda: False)
    recipe, notes, _ = resolved(splits)
    assert recipe.augment.resampler == "torch"
    assert any("--augment.resampler torch" in note for note in notes)
    again, notes, _ = resolved(splits, augment__resampler="pillow")
    assert again.augment.resampler == "pillow"
    assert not any("resampler" in note for note in notes)
    assert resolved(splits, augment__execution="batched")[0].augment.resampler == "pillow"
    with pytest.raises(UserError, match=r"--augment\.resampler torch"):
        resolved(splits, augment__resampler="torch", augment__execution="batched")


# ---------------------------------------------------------------- weights

CAFFE = View(96, "crop", 110, "bilinear", False, (0.4, 0.46, 0.48), (1 / 255,) * 3, "bgr")


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch) -> Callable[[View | None], None]:
    """weights(view): from then on all weights bring this view."""

    def bring(view: View | None) -> None:
        monkeypatch.setattr(pretrained, "view_of", lambda name, source, options: view)

    return bring


def of_weights(splits: Splits, **changes: object) -> Resolved:
    named = {"model.name": "resnet18", "model.weights": "theirs.pth"}
    named |= {name.replace("__", "."): value for name, value in changes.items()}
    return resolve(change(Recipe(), named), splits, torch.device("cpu"), keeps_orientation=True)


@pytest.mark.parametrize("wanted", ["auto", "weights"])
def test_size_mean_deviation_and_order_of_channels_are_those_of_the_weights(
    splits: Splits, weights: Callable[[View | None], None], wanted: str
) -> None:
    weights(CAFFE)
    found = of_weights(splits, data__normalise=wanted)
    assert (found.recipe.data.size_px, found.recipe.data.normalise) == (96, "weights")
    assert (found.view.mean, found.view.std, found.view.colour, found.view.size_px) == (CAFFE.mean, CAFFE.std, "bgr", 96)
    assert "--img-size 96: what the weights were made for." in found.notes
    assert any(note.startswith("--data.normalise weights: ") and "BGR" in note for note in found.notes)


def test_what_the_user_says_goes_before_the_weights(splits: Splits, weights: Callable[[View | None], None]) -> None:
    weights(CAFFE)
    found = of_weights(splits, data__normalise="divide", data__size_px=64)
    assert (found.view.mean, found.view.colour, found.view.size_px) == ((0.0, 0.0, 0.0), "rgb", 64)
    assert any("--data.normalise divide, as asked for; the weights see photos as" in note for note in found.notes)


def test_axes_of_the_colour_shift_stay_red_green_blue(splits: Splits, weights: Callable[[View | None], None]) -> None:
    weights(CAFFE)
    found = of_weights(splits, augment__lighting=0.1, augment__lighting_from="dataset", data__size_px=32, data__crop_share=1.0)
    first = np.array(found.recipe.augment.lighting_axes[:3])
    np.testing.assert_allclose(first / np.linalg.norm(first), AXIS, atol=0.02)
    assert found.view.colour == "bgr"


@pytest.mark.parametrize("view", [None, CAFFE])
def test_weights_that_say_nothing_for_these_channels_leave_imagenets(
    splits: Splits, weights: Callable[[View | None], None], view: View | None
) -> None:
    weights(view)
    changes = {"data__colour": "grey"} if view else {}
    found = of_weights(splits, **changes)
    assert found.recipe.data.normalise == "imagenet"
    assert any(note.startswith("--data.normalise imagenet: --weights theirs.pth ") for note in found.notes)
    with pytest.raises(UserError, match=r"data.normalise weights: --weights theirs.pth (do not say|see 3 channels, and)"):
        of_weights(splits, data__normalise="weights", **changes)


def test_to_ask_for_the_normalisation_of_no_weights_is_refused(splits: Splits) -> None:
    with pytest.raises(UserError, match=r"data.normalise weights: there are no --weights. Say it yourself: imagenet"):
        resolved(splits, data__normalise="weights")

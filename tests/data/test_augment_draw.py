"""What is drawn is a pure function of (seed, epoch, counter), distributed as torchvision's own draws."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from striate.data.augment import draw
from striate.data.augment.draw import Augmentation
from striate.errors import UserError

RANDOM = Augmentation("random-resized", (0.08, 1.0), (3 / 4, 4 / 3), 0, 0.5, 32, "bilinear", "crop")
SHIFT = Augmentation("shift", (1.0, 1.0), (1.0, 1.0), 4, 0.5, 32, "bilinear", "crop")
PLAIN = Augmentation("resize", (1.0, 1.0), (1.0, 1.0), 0, 0.5, 32, "bilinear", "crop")
EVERYTHING = replace(
    RANDOM,
    rotate=20.0,
    translate=0.2,
    shear=10.0,
    brightness=0.4,
    contrast=0.4,
    saturation=0.4,
    hue=0.1,
    lighting=0.1,
    policy="randaugment",
    policy_operations=2,
    policy_magnitude=9,
    erase=0.5,
    erase_area=(0.02, 0.33),
    erase_ratio=(0.3, 3.3),
    cutout_px=8,
)
LAST = np.nextafter(1.0, 0.0)


def drawn(augmentation: Augmentation, count: int, width: int = 60, height: int = 40) -> list[draw.Drawn]:
    return [draw.choose(width, height, augmentation, row) for row in draw.draw(0, 0, np.arange(count))]


def assert_same_distribution(name: str, ours: np.ndarray, theirs: np.ndarray) -> None:
    """Kolmogorov-Smirnov, two samples of 2,000: 0.0616 is exceeded with probability 0.001."""
    assert len(ours) == len(theirs) == 2000
    grid = np.unique(np.concatenate([ours, theirs]))
    below = [np.searchsorted(np.sort(sample), grid, "right") for sample in (ours, theirs)]
    gap = np.abs(below[0] - below[1]).max() / 2000
    assert gap < 0.0616, f"{name}: {gap}"


def chi_square(counts: list[int]) -> float:
    expected = sum(counts) / len(counts)
    return sum((count - expected) ** 2 for count in counts) / expected


# ---------------------------------------------------------------- streams


def test_t13_streams_differ_by_counter_and_epoch_and_seed_and_not_by_batch() -> None:
    rows_BD = draw.draw(0, 0, np.arange(50))
    assert rows_BD.shape == (50, draw.DRAWS)
    assert len({tuple(row) for row in rows_BD}) == 50
    assert not np.isin(draw.draw(0, 1, np.arange(50)), rows_BD).any()
    assert not np.isin(draw.draw(1, 0, np.arange(50)), rows_BD).any()
    np.testing.assert_array_equal(draw.draw(0, 0, np.array([49, 7])), rows_BD[[49, 7]])


def test_t13_the_same_counters_give_the_same_parameters_and_another_epoch_others() -> None:
    first = [draw.choose(60, 40, EVERYTHING, row) for row in draw.draw(0, 0, np.arange(20))]
    again = [draw.choose(60, 40, EVERYTHING, row) for row in draw.draw(0, 0, np.arange(20))]
    later = [draw.choose(60, 40, EVERYTHING, row) for row in draw.draw(0, 1, np.arange(20))]
    assert first == again
    assert not {str(one) for one in first} & {str(one) for one in later}


@pytest.mark.parametrize("off", ["rotate", "brightness", "lighting", "erase", "cutout_px"])
def test_switching_one_off_leaves_what_the_others_draw(off: str) -> None:
    fields = {"rotate": "affine", "brightness": "colour", "lighting": "lighting", "erase": "erased", "cutout_px": "cutout"}
    fewer = drawn(replace(EVERYTHING, **{off: 0}), 20)
    for with_all, without in zip(drawn(EVERYTHING, 20), fewer, strict=True):
        for name in draw.Drawn._fields:
            if name not in (fields[off], "noise", "affine", "colour"):
                assert getattr(with_all, name) == getattr(without, name), name
        assert dict(without.colour).items() <= dict(with_all.colour).items()


def test_every_column_is_read_by_one_parameter_alone() -> None:
    columns = [range(at.start, at.stop) for at in draw._AT.values()]
    assert sorted(column for one in columns for column in one) == list(range(draw.DRAWS))


def test_what_is_off_is_not_drawn() -> None:
    for augmentation in (RANDOM, SHIFT, PLAIN):
        assert augmentation.is_plain
        assert all(one[11:] == ((), None, (), None, None, 0, None) for one in drawn(augmentation, 20))
    for field in ("rotate", "translate", "shear", "brightness", "contrast", "saturation", "hue", "lighting"):
        assert not replace(RANDOM, **{field: 0.1}).is_plain
    assert not replace(RANDOM, cutout_px=1).is_plain
    assert not replace(RANDOM, policy="trivialaugment").is_plain
    assert not replace(EVERYTHING, policy="none").is_plain


# ---------------------------------------------------------------- crops and mirror images


@pytest.mark.parametrize(("width", "height", "scale"), [(400, 300, (0.08, 1.0)), (64, 64, (0.35, 1.0)), (100, 300, (0.6, 1.0))])
def test_boxes_are_distributed_as_torchvisions(width: int, height: int, scale: tuple[float, float]) -> None:
    ours = np.array([one[:4] for one in drawn(replace(RANDOM, scale=scale), 2000, width, height)])
    torch.manual_seed(0)
    image = torch.empty(3, height, width)
    params = [v2.RandomResizedCrop.make_params(v2.RandomResizedCrop(32, scale), [image]) for _ in range(2000)]
    theirs = np.array([[p["left"], p["top"], p["width"], p["height"]] for p in params])
    assert (ours[:, 0] + ours[:, 2]).max() <= width
    assert (ours[:, 1] + ours[:, 3]).max() <= height
    assert ours[:, :2].min() >= 0
    for name, a, b in zip(("left", "top", "width", "height"), ours.T, theirs.T, strict=True):
        assert_same_distribution(name, a, b)
    assert_same_distribution("area", ours[:, 2] * ours[:, 3], theirs[:, 2] * theirs[:, 3])
    assert_same_distribution("ratio", ours[:, 2] / ours[:, 3], theirs[:, 2] / theirs[:, 3])


def test_the_fallback_is_the_largest_centred_box() -> None:
    # No box of ratio 3/4 or more and the full area fits into 10 x 100.
    whole = replace(RANDOM, scale=(1.0, 1.0))
    assert draw.choose(10, 100, whole, np.full(draw.DRAWS, 0.5))[:4] == (0, 43, 10, 13)
    assert draw.choose(100, 10, whole, np.full(draw.DRAWS, 0.5))[:4] == (43, 0, 13, 10)


@pytest.mark.parametrize("side", [1, 2, 3])
def test_tiny_photos_and_extreme_uniforms_stay_inside(side: int) -> None:
    for value in (0.0, 0.5, LAST):
        for width, height in ((side, 1), (1, side), (side, side)):
            one = draw.choose(width, height, EVERYTHING, np.full(draw.DRAWS, value))
            assert min(one.left, one.top) >= 0
            assert one.left + one.width <= width
            assert one.top + one.height <= height
            assert min(one.width, one.height) >= 1


def test_random_squares_are_placed_as_torchvisions_random_crop() -> None:
    augmentation = replace(RANDOM, crop="random", shorter_px=(40, 40))
    ones = drawn(augmentation, 2000, 90, 60)
    assert {(one.resized_width, one.resized_height) for one in ones} == {(60, 40)}
    torch.manual_seed(0)
    params = [v2.RandomCrop(32).make_params([torch.empty(3, 40, 60)]) for _ in range(2000)]
    for ours, theirs in (("offset_x", "left"), ("offset_y", "top")):
        taken = np.array([getattr(one, ours) for one in ones])
        assert_same_distribution(ours, taken, np.array([one[theirs] for one in params]))


def test_scale_jitter_draws_each_shorter_side_equally_often() -> None:
    ones = drawn(replace(RANDOM, crop="random", shorter_px=(32, 41)), 4000, 60, 80)
    counts = Counter(one.resized_width for one in ones)
    assert sorted(counts) == list(range(32, 42))
    assert chi_square(list(counts.values())) < 27.9  # 9 degrees of freedom, probability 0.001
    assert all(one.resized_height == int(one.resized_width * 80 / 60) for one in ones)
    assert all(0 <= one.offset_x <= one.resized_width - 32 and 0 <= one.offset_y <= one.resized_height - 32 for one in ones)


def test_flips_come_with_their_probability() -> None:
    rows_BD = draw.draw(0, 0, np.arange(4000))
    for flip in (0.0, 0.3, 1.0):
        augmentation = replace(PLAIN, flip=flip)
        flipped_B = np.array([draw.choose(9, 9, augmentation, row).flipped for row in rows_BD])
        np.testing.assert_array_equal(flipped_B, draw.is_flipped(augmentation, rows_BD))
        assert abs(flipped_B.mean() - flip) < 0.03


# ---------------------------------------------------------------- warp, colours, operations, erasing


def test_warps_are_distributed_as_torchvisions_random_affine() -> None:
    ones = [one.affine for one in drawn(replace(RANDOM, rotate=30.0, translate=0.25, shear=12.0), 2000)]
    ours = np.array(ones)
    torch.manual_seed(0)
    reference = v2.RandomAffine(30, translate=(0.25, 0.25), shear=12)
    params = [reference.make_params([torch.empty(3, 32, 32)]) for _ in range(2000)]
    theirs = np.array([[one["angle"], *one["translate"], one["shear"][0]] for one in params])
    for name, a, b in zip(("angle", "right", "down", "shear"), ours.T, theirs.T, strict=True):
        assert_same_distribution(name, a, b)
    assert {one["shear"][1] for one in params} == {0.0}
    assert set(ours[:, 1]) == set(range(-8, 9))
    assert np.abs(np.corrcoef(ours.T) - np.eye(4)).max() < 0.08


def test_colour_factors_are_distributed_as_torchvisions_colour_jitter() -> None:
    ones = drawn(replace(RANDOM, brightness=0.4, contrast=1.5, saturation=0.2, hue=0.1), 2000)
    torch.manual_seed(0)
    reference = v2.ColorJitter(0.4, 1.5, 0.2, 0.1)
    params = [reference.make_params([]) for _ in range(2000)]
    for name in ("brightness", "contrast", "saturation", "hue"):
        ours = np.array([dict(one.colour)[name] for one in ones])
        assert_same_distribution(name, ours, np.array([float(one[f"{name}_factor"]) for one in params]))
    assert min(dict(one.colour)["contrast"] for one in ones) >= 0
    counts = Counter(tuple(name for name, _ in one.colour) for one in ones)
    assert len(counts) == 24
    assert chi_square(list(counts.values())) < 49.7  # 23 degrees of freedom, probability 0.001


def test_colour_changes_that_are_off_do_not_run() -> None:
    for one in drawn(replace(RANDOM, brightness=0.4, hue=0.1), 20):
        assert {name for name, _ in one.colour} == {"brightness", "hue"}


def test_lighting_is_normal_along_the_axes() -> None:
    axes = (0.2, 0.0, 0.0, 0.0, 0.1, 0.0, 0.0, 0.0, 0.05)
    offsets = np.array([one.lighting for one in drawn(replace(RANDOM, lighting=0.1, lighting_axes=axes), 4000)])
    scaled = offsets / np.array([0.2, 0.1, 0.05]) / 0.1
    assert np.abs(scaled.mean(0)).max() < 0.053  # 3.3 standard errors
    assert np.abs(scaled.std(0) - 1).max() < 0.037
    assert np.abs(np.corrcoef(scaled.T) - np.eye(3)).max() < 0.053
    for column in scaled.T:  # share within one, two and three deviations
        within = [(np.abs(column) < limit).mean() for limit in (1, 2, 3)]
        np.testing.assert_allclose(within, [0.6827, 0.9545, 0.9973], atol=0.025)


@pytest.mark.parametrize("value", [0.0, 0.5, LAST])
def test_extreme_uniforms_give_finite_parameters(value: float) -> None:
    one = draw.choose(50, 40, replace(EVERYTHING, erase=1.0), np.full(draw.DRAWS, value))
    assert one.affine is not None
    assert one.lighting is not None
    assert np.isfinite([*one.affine, *one.lighting, *(factor for _, factor in one.colour)]).all()


def test_rectangles_are_distributed_as_torchvisions_random_erasing() -> None:
    augmentation = replace(RANDOM, erase=1.0, erase_area=(0.02, 0.33), erase_ratio=(0.3, 3.3), size_px=48)
    ones = drawn(augmentation, 2000)
    assert all(one.erased is not None for one in ones)
    ours = np.array([one.erased for one in ones])
    torch.manual_seed(0)
    reference = v2.RandomErasing(1.0)
    params = [reference.make_params([torch.empty(3, 48, 48)]) for _ in range(2000)]
    theirs = np.array([[one["j"], one["i"], one["w"], one["h"]] for one in params])
    for name, a, b in zip(("left", "top", "width", "height"), ours.T, theirs.T, strict=True):
        assert_same_distribution(name, a, b)
    assert_same_distribution("area", ours[:, 2] * ours[:, 3], theirs[:, 2] * theirs[:, 3])
    assert len({one.noise for one in ones}) == 2000


def test_erasing_comes_with_its_probability() -> None:
    augmentation = replace(RANDOM, erase=0.25, erase_area=(0.02, 0.33), erase_ratio=(0.3, 3.3))
    assert abs(np.mean([one.erased is not None for one in drawn(augmentation, 4000)]) - 0.25) < 0.021  # three deviations


def test_cutouts_are_centred_on_every_pixel_alike() -> None:
    ones = drawn(replace(RANDOM, size_px=8, cutout_px=1), 6400)
    counts = Counter((one.cutout.left, one.cutout.top) for one in ones if one.cutout)
    assert len(counts) == 64
    assert chi_square(list(counts.values())) < 103.4  # 63 degrees of freedom, probability 0.001


# ---------------------------------------------------------------- fields


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"scale": (0.0, 1.0)}, "scale"),
        ({"scale": (0.5, 1.5)}, "scale"),
        ({"ratio": (2.0, 1.0)}, "ratio"),
        ({"flip": 1.5}, "flip"),
        ({"flip": float("nan")}, "flip"),
        ({"size_px": 0}, "size_px"),
        ({"shift_px": -1}, "shift_px"),
        ({"crop": "zoom"}, "crop"),
        ({"crop": "random"}, "shorter_px"),
        ({"crop": "random", "shorter_px": (31, 40)}, "shorter_px"),
        ({"crop": "random", "shorter_px": (50, 40)}, "shorter_px"),
        ({"rotate": 181.0}, "rotate"),
        ({"translate": -0.1}, "translate"),
        ({"shear": 90.0}, "shear"),
        ({"brightness": float("inf")}, "brightness"),
        ({"contrast": -1.0}, "contrast"),
        ({"saturation": float("nan")}, "saturation"),
        ({"hue": 0.6}, "hue"),
        ({"lighting": -0.1}, "lighting"),
        ({"lighting_axes": (1.0,) * 8}, "lighting_axes"),
        ({"policy": "autoaugment"}, "policy"),
        ({"policy_operations": 9}, "policy_operations"),
        ({"policy_magnitude": 31}, "policy_magnitude"),
        ({"erase": 2.0}, "erase"),
        ({"erase": 0.5}, "erase_area"),
        ({"erase": 0.5, "erase_area": (0.1, 0.2), "erase_ratio": (0.0, 1.0)}, "erase_ratio"),
        ({"cutout_px": -1}, "cutout_px"),
    ],
)
def test_fields_out_of_range_are_named(change: dict[str, object], word: str) -> None:
    with pytest.raises(UserError, match=f"augment: {word} is"):
        replace(RANDOM, **change)

"""The policies' operations, strengths and pixels are torchvision's."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, autoaugment

from striate.data.augment import policy
from striate.data.augment.policy import Kind, Operation

RNG = np.random.default_rng(1)
SMOOTH = np.asarray(Image.fromarray(RNG.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize((48, 48), Image.Resampling.BICUBIC))
IMAGES = {
    "noise": Image.fromarray(RNG.integers(0, 256, (45, 45, 3), dtype=np.uint8)),
    "smooth": Image.fromarray(SMOOTH // 2 + 40),
    "few levels": Image.fromarray(RNG.choice(np.array([0, 7, 130, 255], dtype=np.uint8), (40, 40, 3))),
    "plain": Image.new("RGB", (40, 40), (7, 100, 255)),
}
REFERENCES = {"randaugment": autoaugment.RandAugment(), "trivialaugment": autoaugment.TrivialAugmentWide()}


def space(kind: Kind, side: int) -> dict[str, tuple[torch.Tensor, bool]]:
    if kind == "randaugment":
        return autoaugment.RandAugment()._augmentation_space(31, (side, side))
    return autoaugment.TrivialAugmentWide()._augmentation_space(31)


@pytest.mark.parametrize("side", [32, 224])
@pytest.mark.parametrize("kind", ["randaugment", "trivialaugment"])
def test_the_set_and_its_magnitudes_are_torchvisions(kind: Kind, side: int) -> None:
    expected = space(kind, side)
    ours = policy.ranges(kind, side)
    assert [one.name for one in ours] == list(expected)
    for one in ours:
        magnitudes, signed = expected[one.name]
        assert one.signed == signed
        assert list(one.magnitudes) == [float(value) for value in magnitudes.reshape(-1)]


@pytest.mark.parametrize("name", [one.name for one in policy.ranges("trivialaugment", 45)])
@pytest.mark.parametrize("picture", IMAGES)
def test_every_operation_gives_torchvisions_pixels(name: str, picture: str) -> None:
    image = IMAGES[picture]
    for kind in ("randaugment", "trivialaugment"):
        one = next(one for one in policy.ranges(kind, image.width) if one.name == name)
        for magnitude in {*one.magnitudes, *(-value for value in one.magnitudes if one.signed)}:
            expected = autoaugment._apply_op(image, name, magnitude, InterpolationMode.NEAREST, None)
            ours = policy.apply(image, [Operation(name, magnitude)])
            np.testing.assert_array_equal(np.asarray(ours), np.asarray(expected), err_msg=f"{name} {magnitude}")


def test_rotations_are_by_the_matrix() -> None:
    image = IMAGES["smooth"]
    for degrees in (0.0, 13.5, -90.0, 90.0, 121.5):
        matrix = policy.inverse_matrix(Operation("Rotate", degrees), image.width)
        assert matrix is not None
        by_matrix = image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST, fillcolor=(0, 0, 0))
        np.testing.assert_array_equal(np.asarray(policy.apply(image, [Operation("Rotate", degrees)])), np.asarray(by_matrix))
    assert policy.inverse_matrix(Operation("Invert", 0.0), 8) is None


def test_operations_follow_one_another() -> None:
    image = IMAGES["noise"]
    both = policy.apply(image, [Operation("Posterize", 4.0), Operation("Rotate", 9.0)])
    one = policy.apply(policy.apply(image, [Operation("Posterize", 4.0)]), [Operation("Rotate", 9.0)])
    np.testing.assert_array_equal(np.asarray(both), np.asarray(one))
    assert policy.apply(image, []) is image


def test_randaugment_draws_operations_and_signs_evenly_at_one_strength() -> None:
    uniforms = np.random.default_rng(0).random(14_000).tolist()
    chosen = policy.choose("randaugment", 9, 64, uniforms)
    counts = Counter(one.name for one in chosen)
    assert len(counts) == 14
    assert sum((count - 1000) ** 2 / 1000 for count in counts.values()) < 34.5  # 13 degrees of freedom, probability 0.001
    for one in policy.ranges("randaugment", 64):
        found = {operation.magnitude for operation in chosen if operation.name == one.name}
        level = one.magnitudes[9] if len(one.magnitudes) > 1 else 0.0
        assert found == ({level, -level} if one.signed else {level})
    negative = np.mean([one.magnitude < 0 for one in chosen if one.name == "Rotate"])
    assert abs(negative - 0.5) < 0.05


def test_trivialaugment_draws_every_strength_evenly() -> None:
    uniforms = np.random.default_rng(0).random(62_000).tolist()
    chosen = policy.choose("trivialaugment", 0, 64, uniforms)
    turns = Counter(one.magnitude for one in chosen if one.name == "Rotate")
    assert len(turns) == 61  # 30 either way, and none
    levels = Counter(abs(one.magnitude) for one in chosen if one.name == "Rotate")
    expected = sum(levels.values()) / 31
    assert sum((count - expected) ** 2 / expected for count in levels.values()) < 59.7  # 30 degrees of freedom
    assert set(Counter(one.magnitude for one in chosen if one.name == "Posterize")) == {2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0}


def test_what_a_histogram_without_spread_gives_is_the_image_itself() -> None:
    counts = [0] * 256
    counts[9] = 100
    assert policy.autocontrast_table(counts) == policy.equalize_table(counts) == bytes(range(256))

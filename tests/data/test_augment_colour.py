"""Changes of colour are torchvision's on PIL images, pixel by pixel; lighting is the paper's formula."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import functional

from striate.data import decode
from striate.data.augment import colour

RNG = np.random.default_rng(0)
NOISE = Image.fromarray(RNG.integers(0, 256, (37, 53, 3), dtype=np.uint8))
# Every level of each channel beside many of the others, and smooth ramps as photographs have them.
RAMPS = Image.fromarray(
    np.stack(
        [np.tile(np.arange(256), (64, 1)), np.tile(np.arange(0, 256, 4)[:, None], (1, 256)), np.full((64, 256), 90)], -1
    ).astype(np.uint8)
)
DARK = Image.fromarray(RNG.integers(0, 9, (20, 20, 3), dtype=np.uint8))
PLAIN = Image.new("RGB", (8, 8), (10, 200, 90))


@pytest.mark.parametrize("image", [NOISE, RAMPS, DARK, PLAIN])
@pytest.mark.parametrize("factor", [0.0, 0.3, 0.99, 1.0, 1.01, 1.7, 5.0])
@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_factors_give_torchvisions_pixels(name: str, factor: float, image: Image.Image) -> None:
    expected = getattr(functional, f"adjust_{name}")(image, factor)
    np.testing.assert_array_equal(np.asarray(getattr(colour, name)(image, factor)), np.asarray(expected))


@pytest.mark.parametrize("image", [NOISE, RAMPS, DARK, PLAIN])
@pytest.mark.parametrize("turn", [-0.5, -0.1, -0.003, 0.0, 0.004, 0.1, 0.5])
def test_turns_of_hue_give_torchvisions_pixels(turn: float, image: Image.Image) -> None:
    np.testing.assert_array_equal(np.asarray(colour.hue(image, turn)), np.asarray(functional.adjust_hue(image, turn)))


def test_jitter_runs_its_changes_in_their_order() -> None:
    changes: list[tuple[colour.Name, float]] = [("hue", 0.1), ("contrast", 1.8), ("saturation", 0.5), ("brightness", 0.6)]
    expected = NOISE
    for name, factor in changes:
        expected = getattr(functional, f"adjust_{name}")(expected, factor)
    np.testing.assert_array_equal(np.asarray(colour.jitter(NOISE, changes)), np.asarray(expected))
    assert np.asarray(colour.jitter(NOISE, changes[::-1])).tolist() != np.asarray(expected).tolist()


# ---------------------------------------------------------------- lighting


def test_lighting_adds_the_hand_worked_offset() -> None:
    # alphas (0.1, -0.2, 0.3): of each axis, its part times its variance times alpha, summed by hand.
    red = 0.2175 * -0.5675 * 0.1 + 0.0188 * 0.7192 * -0.2 + 0.0045 * 0.4009 * 0.3
    green = 0.2175 * -0.5808 * 0.1 + 0.0188 * -0.0045 * -0.2 + 0.0045 * -0.8140 * 0.3
    blue = 0.2175 * -0.5836 * 0.1 + 0.0188 * -0.6948 * -0.2 + 0.0045 * 0.4203 * 0.3
    offset = colour.lighting_offset(colour.IMAGENET_AXES, (0.1, -0.2, 0.3))
    np.testing.assert_allclose(offset, (red, green, blue), rtol=1e-12)
    np.testing.assert_allclose(255 * np.array(offset), (-3.699, -3.497, -2.426), atol=1e-3)
    lit = np.asarray(colour.lighten(Image.fromarray(np.array([[[100, 100, 100], [2, 255, 0]]], dtype=np.uint8)), offset))
    assert lit.tolist() == [[[96, 97, 98], [0, 252, 0]]]


def test_lighting_rounds_and_stays_within_the_levels() -> None:
    for offset in ((0.0, 0.0, 0.0), (0.4 / 255, 0.6 / 255, -0.6 / 255), (2.0, -2.0, 0.1)):
        expected = np.clip(np.rint(np.asarray(NOISE) + 255 * np.array(offset)), 0, 255)
        np.testing.assert_array_equal(np.asarray(colour.lighten(NOISE, offset)), expected)


def test_the_published_axes_are_orthogonal_unit_vectors_to_their_four_digits() -> None:
    vectors = np.array(colour._IMAGENET_VECTORS)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(3), atol=2e-4)


def test_principal_axes_are_those_the_colours_were_made_with() -> None:
    vectors = np.linalg.qr(RNG.normal(size=(3, 3)))[0].T
    vectors *= np.where(vectors.sum(1, keepdims=True) < 0, -1, 1)
    variances = np.array([0.05, 0.004, 0.0007])
    axes = np.array(colour.principal_axes(vectors.T @ np.diag(variances) @ vectors)).reshape(3, 3)
    np.testing.assert_allclose(axes, vectors * variances[:, None], atol=1e-12)


def test_normals_are_made_of_all_four_uniforms() -> None:
    # u1 = 1 - exp(-2): radius 2; a quarter turn: cosine 0, sine 1.
    first, second, third = colour.normals((1 - math.exp(-2), 0.25, 1 - math.exp(-0.5), 0.5))
    np.testing.assert_allclose((first, second, third), (0.0, 2.0, -1.0), atol=1e-12)


def test_axes_of_real_photos_are_about_the_published_ones(real_data: Path) -> None:
    """The published variances are those of pixels in 0..1, and the vectors are in the order red, green, blue."""
    sums_44 = np.zeros((4, 4))
    for path in sorted((real_data / "imagenet-samples").glob("*.JPEG")):
        colours_N3 = decode.load(path, False)[::16, ::16].reshape(-1, 3) / 255
        with_one = np.concatenate([np.ones((len(colours_N3), 1)), colours_N3], axis=1)
        sums_44 += with_one.T @ with_one / len(colours_N3)
    sums_44 /= sums_44[0, 0]
    axes = np.array(colour.principal_axes(sums_44[1:, 1:] - np.outer(sums_44[0, 1:], sums_44[0, 1:]))).reshape(3, 3)
    published = np.array(colour.IMAGENET_AXES).reshape(3, 3)
    for ours, theirs in zip(axes, published, strict=True):
        lengths = np.linalg.norm(ours), np.linalg.norm(theirs)
        assert 0.75 < lengths[0] / lengths[1] < 1.25
        assert abs(ours @ theirs) / (lengths[0] * lengths[1]) > 0.99

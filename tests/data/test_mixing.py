"""Mixing is a pure function of (seed, step), in torchvision's arithmetic, with both labels weighed as the pixels are."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from striate.data import mixing
from striate.data.mixing import Mix
from striate.data.order import bounds


def batch(count: int, side: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    return torch.rand(count, 3, side, side, generator=generator), torch.arange(count)


def drawn(count: int, *, mixup: float, cutmix: float, share: float = 1.0, side: int = 64, seed: int = 0) -> list[Mix | None]:
    return [mixing.choose(seed, step, mixup=mixup, cutmix=cutmix, share=share, side=side) for step in range(count)]


def beta_cdf(alpha: float, grid: np.ndarray) -> np.ndarray:
    """Distribution function of Beta(alpha, alpha), by the midpoint rule after x = sin² t, which tames both ends."""
    t = (np.arange(200_000) + 0.5) / 200_000 * math.pi / 2
    density = (np.sin(t) * np.cos(t)) ** (2 * alpha - 1)
    return np.interp(np.arcsin(np.sqrt(grid)), t, np.cumsum(density) / density.sum())


@pytest.mark.parametrize("alpha", [0.2, 0.5, 1.0, 4.0])
def test_shares_are_beta_distributed(alpha: float) -> None:
    shares = np.sort([mix.own_share for mix in drawn(2000, mixup=alpha, cutmix=0) if mix is not None])
    gap = np.abs(beta_cdf(alpha, shares) - (np.arange(2000) + 0.5) / 2000).max()
    assert gap < 0.0436, gap  # Kolmogorov-Smirnov, one sample of 2,000: exceeded with probability 0.001
    assert abs(shares.var() - 1 / (4 * (2 * alpha + 1))) < 0.01  # the textbook's variance


@pytest.mark.parametrize("alpha", [1e-3, 1.0, 1e6])
def test_extreme_alphas_and_uniforms_give_shares(alpha: float) -> None:
    last = np.nextafter(1.0, 0.0)
    for radius in (0.0, 1e-300, 0.5, last):
        for angle in (0.0, 0.25, 0.5, 0.75, last):
            assert 0 <= mixing.symmetric_beta(alpha, radius, angle) <= 1


def test_the_same_step_mixes_the_same_and_another_otherwise() -> None:
    first, again = drawn(50, mixup=1.0, cutmix=1.0), drawn(50, mixup=1.0, cutmix=1.0)
    assert first == again
    assert len(set(first)) == 50
    assert drawn(50, mixup=1.0, cutmix=1.0, seed=1) != first


def test_both_set_take_half_each_and_the_share_decides_how_many_are_mixed() -> None:
    kinds = Counter(mix.kind if mix else "none" for mix in drawn(4000, mixup=0.2, cutmix=1.0, share=0.6))
    # Three standard deviations of a binomial of 4,000.
    assert abs(kinds["none"] - 1600) < 93
    assert abs(kinds["mixup"] - 1200) < 87
    assert abs(kinds["cutmix"] - 1200) < 87
    assert {mix.kind for mix in drawn(50, mixup=0.2, cutmix=0) if mix} == {"mixup"}
    assert {mix.kind for mix in drawn(50, mixup=0, cutmix=0.2) if mix} == {"cutmix"}
    assert drawn(20, mixup=0, cutmix=0) == drawn(20, mixup=1.0, cutmix=1.0, share=0.0) == [None] * 20


def test_pixels_and_labels_are_torchvisions_for_the_same_share(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = batch(2)  # a batch of two, rolled by one, is a batch of neighbours exchanged
    mix = Mix("mixup", 0.3, (0, 0, 0, 0))
    reference = v2.MixUp(num_classes=2)
    monkeypatch.setattr(reference, "make_params", lambda _: {"lam": mix.own_share})
    expected, expected_labels = reference(images, labels)
    mixed, partners, weights = mixing.apply(images, labels, mix)
    torch.testing.assert_close(mixed, expected, rtol=1e-6, atol=1e-7)
    ours = weights[:, None] * torch.eye(2)[labels] + (1 - weights)[:, None] * torch.eye(2)[partners]
    torch.testing.assert_close(ours, expected_labels)


def test_boxes_are_torchvisions_for_the_same_share_and_place() -> None:
    images, labels = batch(2, 24)
    sizes = set()
    for step in range(40):
        mix = mixing.choose(3, step, mixup=0, cutmix=1.0, share=1.0, side=24)
        assert mix is not None
        left, top, right, bottom = mix.box
        sizes.add((right - left, bottom - top))
        reference = v2.CutMix(num_classes=2)
        reference.make_params = lambda _, mix=mix: {"box": mix.box, "lam_adjusted": mix.own_share}  # type: ignore[method-assign]
        expected, expected_labels = reference(images, labels)
        mixed, partners, weights = mixing.apply(images, labels, mix)
        assert torch.equal(mixed, expected)
        ours = weights[:, None] * torch.eye(2)[labels] + (1 - weights)[:, None] * torch.eye(2)[partners]
        torch.testing.assert_close(ours, expected_labels)
        own = (mixed == images).all(1).float().mean((1, 2))
        torch.testing.assert_close(own, weights)  # the weight is the share of the pixels that stayed
    assert len(sizes) > 10


def test_boxes_are_distributed_as_torchvisions() -> None:
    mixes = drawn(2000, mixup=0, cutmix=1.0, side=64)
    ours = np.array([[*mix.box, mix.own_share] for mix in mixes if mix])
    torch.manual_seed(0)
    image = torch.empty(2, 3, 64, 64)
    reference = v2.CutMix(num_classes=2)
    params = [reference.make_params([image]) for _ in range(2000)]
    theirs = np.array([[*one["box"], one["lam_adjusted"]] for one in params])
    for name, a, b in zip(("left", "top", "right", "bottom", "share"), ours.T, theirs.T, strict=True):
        grid = np.unique(np.concatenate([a, b]))
        gap = np.abs(np.searchsorted(np.sort(a), grid, "right") - np.searchsorted(np.sort(b), grid, "right")).max() / 2000
        assert gap < 0.0616, f"{name}: {gap}"  # two samples of 2,000: exceeded with probability 0.001


@pytest.mark.parametrize("mix", [Mix("mixup", 0.25, (0, 0, 0, 0)), Mix("cutmix", 0.75, (0, 0, 8, 8))])
def test_neighbours_are_partners_and_an_odd_last_image_stays(mix: Mix) -> None:
    images, labels = batch(5)
    before = images.clone()
    mixed, partners, weights = mixing.apply(images, labels, mix)
    assert partners.tolist() == [1, 0, 3, 2, 4]
    assert weights.tolist() == [mix.own_share] * 4 + [1.0]
    assert torch.equal(mixed[4], images[4])
    assert not torch.equal(mixed[0], images[0])
    assert torch.equal(images, before)
    one, itself, weight = mixing.apply(images[:1], labels[:1], mix)
    assert torch.equal(one, images[:1])
    assert (itself.tolist(), weight.tolist()) == ([0], [1.0])


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_p_parts_of_a_batch_are_mixed_as_the_whole(processes: int) -> None:
    images, labels = batch(14)
    for step in range(6):
        mix = mixing.choose(0, step, mixup=0.4, cutmix=1.0, share=1.0, side=16)
        assert mix is not None
        whole = mixing.apply(images, labels, mix)
        parts = [mixing.apply(images[first:last], labels[first:last], mix) for first, last in bounds(14, processes)]
        for expected, pieces in zip(whole, zip(*parts, strict=True), strict=True):
            assert torch.equal(torch.cat(pieces), expected)


def test_memory_format_and_dtype_are_kept() -> None:
    images, labels = batch(4)
    images = images.to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
    for mix in (Mix("mixup", 0.5, (0, 0, 0, 0)), Mix("cutmix", 0.75, (0, 0, 8, 8))):
        mixed = mixing.apply(images, labels, mix)[0]
        assert mixed.dtype == torch.bfloat16
        assert mixed.is_contiguous(memory_format=torch.channels_last)

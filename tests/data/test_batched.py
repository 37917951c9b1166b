"""The batched path makes the pixels of the per-image path from the same draws, bit for bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from striate import machine
from striate.data import decode, views
from striate.data.augment import apply as per_image
from striate.data.augment import draw, erase, policy
from striate.data.augment.draw import Augmentation, Drawn
from striate.data.augment.policy import Operation
from striate.data.batched import apply as batched
from striate.data.batched import changes, colour, resampling, warp
from striate.data.batched import erase as batched_erase
from striate.data.batched.plan import planned

PLAIN = Augmentation("resize", (1.0, 1.0), (1.0, 1.0), 0, 0.0, 32, "bilinear", "crop")
CROPPED = Augmentation("random-resized", (0.08, 1.0), (3 / 4, 4 / 3), 0, 0.5, 32, "bilinear", "crop")


def noise(count: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(count * height + width).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def photos(count: int, least: int = 20, most: int = 90) -> list[np.ndarray]:
    """Smooth pictures of many sizes, with edges: noise of few pixels, enlarged, and a dark bar."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(count):
        height, width = rng.integers(least, most, 2).tolist()
        small = Image.fromarray(rng.integers(0, 256, (7, 7, 3), dtype=np.uint8))
        image = np.array(small.resize((width, height), Image.Resampling.BICUBIC))
        image[height // 3 : height // 2] //= 3
        found.append(image)
    return found


def padded(images: list[np.ndarray], filler: int = 255) -> torch.Tensor:
    """All in one block; what lies beside a smaller one must not matter, so it is glaring."""
    sides = np.array([image.shape[:2] for image in images])
    block = np.full((len(images), *sides.max(0), 3), filler, dtype=np.uint8)
    for place, image in zip(block, images, strict=True):
        place[: image.shape[0], : image.shape[1]] = image
    return torch.from_numpy(block)


def assert_same(augmentation: Augmentation, images: list[np.ndarray], seed: int = 0) -> None:
    """The per-image path beside the batched one, for the same draws: no pixel differs by a single level."""
    uniforms_BD = draw.draw(seed, 0, np.arange(len(images)))
    expected, drawn = [], []
    for image, row in zip(images, uniforms_BD, strict=True):
        pixels, parameters = per_image.apply(image, augmentation, row)
        expected.append(pixels)
        drawn.append(parameters)
    made = batched.views(padded(images), planned(drawn, augmentation.size_px), augmentation)
    assert made.dtype == torch.uint8
    assert made.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_array_equal(made.permute(0, 2, 3, 1).numpy(), np.stack(expected))


# ---------------------------------------------------------------- the crop


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos", "nearest"])
@pytest.mark.parametrize(
    "crop",
    [
        {"crop": "random-resized", "ratio": (0.2, 5.0)},  # boxes so long that Pillow turns the passes round
        {"crop": "random", "shorter_px": (34, 70)},
        {"crop": "resize"},
        {"crop": "shift", "shift_px": 5},
        {"crop": "shift", "shift_px": 5, "fit": "squash"},
        {"crop": "shift", "shift_px": 40},
    ],
    ids=lambda crop: "-".join(map(str, crop.values())),
)
def test_crops_are_pillows_bit_for_bit(crop: dict[str, object], interpolation: str) -> None:
    assert_same(replace(CROPPED, interpolation=interpolation, **crop), photos(96))


def test_crops_of_noise_are_pillows_bit_for_bit() -> None:
    """Noise has the sums that fall right between two levels, and those that leave 0..255."""
    images = [image for side in (33, 64, 80) for image in noise(40, side, 64)]
    for interpolation in ("bilinear", "bicubic", "lanczos"):
        for size_px in (24, 64, 71):
            assert_same(replace(CROPPED, size_px=size_px, interpolation=interpolation), images)


def test_crops_in_single_precision_as_on_a_gpu_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processors multiply in double precision; here they take the other way too."""
    monkeypatch.setattr(resampling, "_DOUBLE_DEVICES", ())
    for interpolation in ("bilinear", "bicubic", "lanczos"):
        assert_same(replace(CROPPED, interpolation=interpolation, ratio=(0.2, 5.0)), [*photos(48), *noise(40, 33, 64)])


@pytest.mark.parametrize("module", [resampling, changes])
def test_parts_that_fit_a_cache_do_not_show(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CACHE_BYTES", 100_000)
    augmentation = replace(CROPPED, ratio=(0.2, 5.0), brightness=0.4, contrast=0.4, hue=0.1, policy="trivialaugment")
    assert_same(augmentation, photos(50))


def test_a_set_of_one_size_that_is_only_mirrored_keeps_its_pixels() -> None:
    images = list(noise(20, 32, 32))
    for crop in ({"crop": "resize"}, {"crop": "shift", "shift_px": 4}):
        for interpolation in ("bilinear", "bicubic", "lanczos", "nearest"):
            assert_same(replace(PLAIN, flip=0.5, interpolation=interpolation, **crop), images)


@pytest.mark.parametrize("side", [1, 2, 3])
def test_tiny_photos(side: int) -> None:
    images = [*noise(9, side, 1), *noise(9, 1, side), *noise(9, side, side)]
    for interpolation in ("bilinear", "bicubic", "lanczos", "nearest"):
        assert_same(replace(CROPPED, interpolation=interpolation), images)


def test_a_network_of_another_size_and_real_photographs(real_data: Path) -> None:
    files = sorted((real_data / "imagenet-samples").glob("*.JPEG"))[::20]
    images = [views.shrink(decode.load(path, False), 256) for path in files]
    for interpolation in ("bilinear", "bicubic", "lanczos"):
        for size_px in (64, 224):
            assert_same(replace(CROPPED, size_px=size_px, interpolation=interpolation), images)


# ---------------------------------------------------------------- what is done to the crop


@pytest.mark.parametrize(
    "change",
    [
        {"brightness": 0.9},
        {"contrast": 0.9},
        {"saturation": 0.9},
        {"hue": 0.5},
        {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1},
        {"lighting": 0.1},
        {"rotate": 30.0, "translate": 0.2, "shear": 20.0},
        {"erase": 0.7, "erase_area": (0.02, 0.33), "erase_ratio": (0.3, 3.3)},
        {"cutout_px": 11, "cutout_colour": (124, 116, 104)},
        {"policy": "randaugment", "policy_operations": 3, "policy_magnitude": 9},
        {"policy": "trivialaugment"},
    ],
    ids="-".join,
)
def test_changes_are_the_per_image_ones(change: dict[str, object]) -> None:
    images = [*noise(60, 32, 32), *(np.asarray(Image.fromarray(image).resize((32, 32))) for image in photos(60))]
    assert_same(replace(PLAIN, flip=0.5, **change), images)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["randaugment", "trivialaugment"])
def test_everything_together_is_the_per_image_path(kind: str) -> None:
    augmentation = replace(
        CROPPED, policy=kind, policy_operations=2, policy_magnitude=9, rotate=10.0, translate=0.1, shear=5.0, brightness=0.4,
        contrast=0.4, saturation=0.4, hue=0.1, lighting=0.1, erase=0.25, erase_area=(0.02, 0.33), erase_ratio=(0.3, 3.3),
        cutout_px=8, cutout_colour=(124, 116, 104),
    )  # fmt: skip
    assert_same(augmentation, photos(300))


def test_each_operation_of_the_policies_alone() -> None:
    """Every operation at many magnitudes, on images where histograms are hard: plain, nearly plain, two values, noise."""
    plain = np.full((1, 24, 24, 3), 77, np.uint8)
    narrow = np.random.default_rng(0).integers(100, 103, (1, 24, 24, 3), dtype=np.uint8)
    stripes = np.zeros((1, 24, 24, 3), np.uint8)
    stripes[:, ::3] = 200
    images = np.concatenate([plain, narrow, stripes, noise(3, 24, 24)])
    for kind in ("randaugment", "trivialaugment"):
        for name, magnitudes, signed in policy.ranges(kind, 24):
            for magnitude in {*magnitudes[::5], magnitudes[-1]}:
                for sign in (1, -1) if signed else (1,):
                    operation = Operation(name, sign * magnitude)
                    drawn = [Drawn(0, 0, 24, 24, 24, 24, 0, 0, 0, 0, False, (operation,))] * len(images)
                    augmentation = replace(PLAIN, size_px=24)
                    made = batched.views(torch.from_numpy(images), planned(drawn, 24), augmentation)
                    expected = [np.asarray(policy.apply(Image.fromarray(image), [operation])) for image in images]
                    np.testing.assert_array_equal(made.permute(0, 2, 3, 1).numpy(), np.stack(expected), err_msg=str(operation))


def levels(images: np.ndarray) -> torch.Tensor:
    """As the operations get them: float32 [b, 3, S, S]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().contiguous()


def assert_levels(made: torch.Tensor, expected: list[np.ndarray], name: str = "") -> None:
    assert made.dtype == torch.float32
    np.testing.assert_array_equal(made.permute(0, 2, 3, 1).numpy(), np.stack(expected), err_msg=name)


def test_colours_are_pillows() -> None:
    """Against Pillow itself rather than the per-image path."""
    images = np.concatenate([noise(10, 17, 17), np.stack([np.full((17, 17, 3), level, np.uint8) for level in (0, 90, 255)])])
    pictures = [Image.fromarray(image) for image in images]
    factors = np.linspace(0, 2.2, len(images))
    some, none = torch.ones(len(images)).double(), torch.zeros(len(images)).double()
    for name, ours, theirs in (
        ("brightness", lambda images, factor: colour.blend(images, factor, none, none), ImageEnhance.Brightness),
        ("contrast", lambda images, factor: colour.blend(images, factor, none, some), ImageEnhance.Contrast),
        ("saturation", lambda images, factor: colour.blend(images, factor, some, none), ImageEnhance.Color),
        ("sharpness", colour.sharpness, ImageEnhance.Sharpness),
    ):
        expected = [np.asarray(theirs(picture).enhance(factor)) for picture, factor in zip(pictures, factors, strict=True)]
        assert_levels(ours(levels(images), torch.from_numpy(factors)), expected, name)
    for name, ours, theirs in (
        ("autocontrast", colour.autocontrast, ImageOps.autocontrast),
        ("equalize", colour.equalize, ImageOps.equalize),
    ):
        assert_levels(ours(levels(images)), [np.asarray(theirs(picture)) for picture in pictures], name)


def test_contrast_of_an_image_whose_sum_leaves_single_precision() -> None:
    """520 x 520 white pixels but one: a mean in float32 would be off by a level."""
    image = np.full((1, 520, 520, 3), 255, np.uint8)
    image[0, 0, 0] = 0
    image[0, :, :260] = np.random.default_rng(0).integers(200, 256, (520, 260, 3), dtype=np.uint8)
    one, zero = torch.ones(1).double(), torch.zeros(1).double()
    expected = [np.asarray(ImageEnhance.Contrast(Image.fromarray(image[0])).enhance(0.3))]
    assert_levels(colour.blend(levels(image), 0.3 * one, zero, one), expected)


def test_hue_is_pillows_over_the_whole_cube() -> None:
    """Every fifth level of each channel, both ends included, at several turns."""
    some = np.arange(0, 256, 5, dtype=np.uint8)
    cube = np.stack(np.meshgrid(some, some, some, indexing="ij"), -1).reshape(1, -1, len(some), 3)
    for turn in (-0.5, -0.2, 0.004, 0.31, 0.5):
        expected = np.asarray(functional.adjust_hue(Image.fromarray(cube[0]), turn))
        assert_levels(colour.hue(levels(cube), torch.tensor([turn]).double()), [expected])


@pytest.mark.parametrize("resample", [Image.Resampling.NEAREST, Image.Resampling.BILINEAR])
def test_warps_are_pillows(resample: Image.Resampling) -> None:
    images = noise(40, 21, 21)
    matrices = np.random.default_rng(1).normal(size=(40, 6)) * [0.5, 0.5, 6, 0.5, 0.5, 6] + [1, 0, 0, 0, 1, 0]
    matrices[0] = (1, 0, 0, 0, 1, 0)
    matrices[1] = (0, 1, 0, -1, 0, 21)
    expected = [
        np.asarray(Image.fromarray(image).transform((21, 21), Image.Transform.AFFINE, tuple(matrix), resample))
        for image, matrix in zip(images, matrices, strict=True)
    ]
    ours = warp.nearest if resample == Image.Resampling.NEAREST else warp.bilinear
    made = ours(levels(images), torch.from_numpy(matrices))
    assert_levels(made, expected)
    assert_levels(made[:1], [images[0]])


def test_noise_is_the_counter_streams_on_the_device_too() -> None:
    numbers = [0, 12345, 2**53 - 1]
    rectangles = [(0, 0, 8, 8), (3, 1, 5, 2), (0, 0, 0, 0)]
    images = noise(3, 8, 8)
    made = batched_erase.fill_noise(torch.from_numpy(images), torch.tensor(rectangles), torch.tensor(numbers), 64).numpy()
    for image, ours, number, (left, top, width, height) in zip(images, made, numbers, rectangles, strict=True):
        expected = image.copy()
        expected[top : top + height, left : left + width] = erase.noise(number, width, height)
        np.testing.assert_array_equal(ours, expected)
    words = machine.bits(7, "x", 3, np.arange(5), 4)
    np.testing.assert_array_equal(machine.bits_torch(7, "x", 3, torch.arange(5), 4).numpy().view(np.uint64), words)


# ---------------------------------------------------------------- batches


def test_an_image_does_not_depend_on_its_batch() -> None:
    images = photos(24)
    augmentation = replace(CROPPED, policy="trivialaugment", brightness=0.4, hue=0.1, erase=0.5, erase_area=(0.1, 0.3))
    drawn = [
        draw.choose(image.shape[1], image.shape[0], augmentation, row)
        for image, row in zip(images, draw.draw(0, 0, np.arange(24)), strict=True)
    ]
    together = batched.views(padded(images), planned(drawn, 32), augmentation)
    for number in range(24):
        alone = batched.views(padded(images[number : number + 1]), planned(drawn[number : number + 1], 32), augmentation)
        assert torch.equal(alone[0], together[number])


def test_no_images_give_no_views() -> None:
    made = batched.views(torch.empty((0, 0, 0, 3), dtype=torch.uint8), planned([], 32), CROPPED)
    assert made.shape == (0, 3, 32, 32)


def test_the_photos_stay_as_they_are() -> None:
    images = torch.from_numpy(noise(8, 32, 32))
    before = images.clone()
    augmentation = replace(PLAIN, policy="randaugment", erase=1.0, erase_area=(0.1, 0.2), cutout_px=5)
    drawn = [draw.choose(32, 32, augmentation, row) for row in draw.draw(0, 0, np.arange(8))]
    batched.views(images, planned(drawn, 32), augmentation)
    assert torch.equal(images, before)


# ---------------------------------------------------------------- distributions


def distance(ours_N: np.ndarray, theirs_N: np.ndarray) -> float:
    """Kolmogorov and Smirnov's: the largest gap between the two distribution functions, times the root of N / 2.

    Above 2.23 in one of 10,000 comparisons of equal distributions; in fewer where values repeat.
    """
    both = np.concatenate([ours_N, theirs_N])
    shares = [np.searchsorted(np.sort(one), both, side="right") / len(one) for one in (ours_N, theirs_N)]
    return float(np.abs(shares[0] - shares[1]).max() * np.sqrt(len(ours_N) / 2))


def made(photo: np.ndarray, augmentation: Augmentation, count: int, seed: int = 0) -> np.ndarray:
    """That many batched views of one photo: [N, S, S, 3]."""
    height, width, _ = photo.shape
    drawn = [draw.choose(width, height, augmentation, row) for row in draw.draw(seed, 0, np.arange(count))]
    photos_NHW3 = torch.from_numpy(photo).expand(count, -1, -1, -1)
    return batched.views(photos_NHW3, planned(drawn, augmentation.size_px), augmentation).permute(0, 2, 3, 1).numpy()


def torchvisions(photo: np.ndarray, transform: torch.nn.Module, count: int) -> np.ndarray:
    picture = Image.fromarray(photo)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return np.stack([np.asarray(transform(picture)) for _ in range(count)])


def boxes(views_NSS3: np.ndarray) -> dict[str, np.ndarray]:
    """What was cut from `RAMPS`, read from the views: red tells the column, green the row."""
    levels = views_NSS3.astype(np.float64)
    across, down = levels[:, 16, 24, 0] - levels[:, 16, 8, 0], levels[:, 24, 16, 1] - levels[:, 8, 16, 1]
    return {
        "area": np.abs(across) * down,
        "ratio": np.abs(across) / down,
        "column": levels[:, 16, 15:17, 0].mean(1),
        "row": levels[:, 15:17, 16, 1].mean(1),
        "mirrored": np.sign(across),
    }


RAMPS = np.zeros((64, 64, 3), dtype=np.uint8)
RAMPS[..., 0], RAMPS[..., 1] = 4 * np.arange(64), 4 * np.arange(64)[:, None]
VIEWS = 1500


def test_crops_and_mirror_images_are_distributed_as_torchvisions() -> None:
    theirs = boxes(torchvisions(RAMPS, v2.Compose([v2.RandomResizedCrop(32), v2.RandomHorizontalFlip()]), VIEWS))
    ours = boxes(made(RAMPS, CROPPED, VIEWS))
    for name, values_N in ours.items():
        assert distance(values_N, theirs[name]) < 2.23, name
    others = boxes(made(RAMPS, replace(CROPPED, scale=(0.2, 1.0), ratio=(0.6, 5 / 3), flip=0.3), VIEWS))
    for name in ("area", "ratio", "mirrored"):
        assert distance(others[name], theirs[name]) > 2.23, name


# One colour and two halves, on which each change leaves a number that grows with its factor.
TWO_TONE = np.full((8, 8, 3), (150, 90, 60), dtype=np.uint8)
TWO_TONE[:, 4:] = (110, 70, 30)


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
def test_colours_are_distributed_as_torchvisions(name: str) -> None:
    def numbers(views_NSS3: np.ndarray) -> np.ndarray:
        levels = views_NSS3.astype(np.float64)
        if name == "brightness":
            return levels.mean((1, 2, 3))
        if name == "contrast":
            return levels[:, 0, 0].sum(1) - levels[:, 0, 7].sum(1)
        if name == "saturation":
            return levels[:, 0, 0, 0] - levels[:, 0, 0, 2]
        return np.array([np.asarray(Image.fromarray(view).convert("HSV"))[0, 0, 0] for view in views_NSS3]).astype(np.int8)

    most = 0.1 if name == "hue" else 0.4
    theirs = numbers(torchvisions(TWO_TONE, v2.ColorJitter(**{name: most}), VIEWS))
    plain = replace(PLAIN, size_px=8)
    assert distance(numbers(made(TWO_TONE, replace(plain, **{name: most}), VIEWS)), theirs) < 2.23
    assert distance(numbers(made(TWO_TONE, replace(plain, **{name: 0.8 * most}), VIEWS)), theirs) > 2.23


def test_all_colours_together_are_distributed_as_torchvisions() -> None:
    """In their random order, which shows in every channel of the result."""
    theirs = torchvisions(TWO_TONE, v2.ColorJitter(0.4, 0.4, 0.4, 0.1), VIEWS)
    augmentation = replace(PLAIN, size_px=8, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
    ours = made(TWO_TONE, augmentation, VIEWS)
    for column in (0, 7):
        for channel in range(3):
            assert distance(ours[:, 0, column, channel], theirs[:, 0, column, channel]) < 2.23, (column, channel)


@pytest.mark.gpu
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
def test_a_gpu_makes_the_same_pixels(interpolation: str) -> None:
    images = photos(64)
    augmentation = replace(
        CROPPED, interpolation=interpolation, policy="trivialaugment", rotate=20.0, hue=0.1, contrast=0.4, lighting=0.1,
        erase=0.5, erase_area=(0.1, 0.3), cutout_px=5,
    )  # fmt: skip
    drawn = [
        draw.choose(image.shape[1], image.shape[0], augmentation, row)
        for image, row in zip(images, draw.draw(0, 0, np.arange(64)), strict=True)
    ]
    plan, device = planned(drawn, 32), torch.device("cuda")
    there = batched.views(padded(images).to(device), plan.to(device), augmentation)
    assert torch.equal(there.cpu(), batched.views(padded(images), plan, augmentation))

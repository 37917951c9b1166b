"""A View: its file, its map between photo and view, its normalisation."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as reference

from striate.errors import UserError
from striate.view import IMAGENET_GREY_MEAN, IMAGENET_GREY_STD, IMAGENET_MEAN, IMAGENET_STD, View

VIEW = View(224, "crop", 256, "bilinear", False, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
GREY = View(224, "crop", 256, "bilinear", False, (0.459,), (0.218,), "grey")
SQUASHED = View(64, "squash", 64, "bicubic", True, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@pytest.mark.parametrize("view", [VIEW, SQUASHED, GREY])
def test_json_round_trip(view: View) -> None:
    again = View.from_json(json.loads(json.dumps(view.to_json())))
    assert again == view
    assert again.hash == view.hash
    assert len(view.hash) >= 6


def test_hash_sees_every_field() -> None:
    changed = [
        replace(VIEW, size_px=200),
        replace(VIEW, resize_px=257),
        replace(VIEW, interpolation="bicubic"),
        replace(VIEW, exif=True),
        replace(VIEW, mean=(0.5, 0.456, 0.406)),
        replace(VIEW, std=(0.5, 0.224, 0.225)),
        replace(VIEW, fit="squash", resize_px=224),
        GREY,
    ]
    assert len({view.hash for view in [VIEW, *changed]}) == len(changed) + 1


@pytest.mark.parametrize(
    ("field", "value", "word"),
    [
        ("size_px", 0, "size_px"),
        ("resize_px", 100, "shorter side"),
        ("fit", "stretch", "fit"),
        ("interpolation", "cubic", "interpolation"),
        ("std", (0.0, 1.0, 1.0), "std"),
        ("mean", (float("nan"), 0.0, 0.0), "mean"),
        ("colour", "gbr", "colour"),
        ("colour", "grey", "1 finite number each for colour 'grey'"),
        ("mean", (0.5,), "3 finite numbers"),
    ],
)
def test_a_field_out_of_range_is_named(field: str, value: object, word: str) -> None:
    with pytest.raises(UserError, match=word):
        View.from_json(VIEW.to_json() | {field: value})


def test_a_file_of_another_kind_is_refused() -> None:
    with pytest.raises(UserError, match="unknown field sharpness"):
        View.from_json(VIEW.to_json() | {"sharpness": 1})
    with pytest.raises(UserError, match="std is missing"):
        View.from_json({name: value for name, value in VIEW.to_json().items() if name != "std"})
    with pytest.raises(UserError, match="wrong type"):
        View.from_json(VIEW.to_json() | {"mean": 3})


def test_describe_says_what_matters() -> None:
    assert "256" in VIEW.describe()
    assert "224x224" in VIEW.describe()
    assert "bilinear" in VIEW.describe()
    assert "EXIF ignored" in VIEW.describe()
    assert "squashed to 64x64" in SQUASHED.describe()
    assert "\n" not in VIEW.describe()


def test_placement_by_hand() -> None:
    # 512 x 384 -> 341 x 256 (341.33 rounded down); the crop begins at (341 - 224) / 2 = 58.5, rounded to even 58, and at 16.
    placement = VIEW.placement(512, 384)
    assert (placement.left_px, placement.top_px) == (58, 16)
    assert placement.scale_x == 341 / 512
    assert placement.scale_y == 256 / 384
    box = placement.box_to_view([[0, 0, 512, 384], [96, 96, 192, 192]])
    np.testing.assert_allclose(box[0], [-58, -16, 283, 240])
    np.testing.assert_allclose(box[1], [96 * 341 / 512 - 58, 48, 192 * 341 / 512 - 58, 112])


def test_placement_of_a_squashed_view() -> None:
    placement = SQUASHED.placement(128, 32)
    np.testing.assert_allclose(placement.box_to_view([[0, 0, 128, 32], [64, 8, 128, 16]]), [[0, 0, 64, 64], [32, 16, 64, 32]])


def test_boxes_come_back_exactly() -> None:
    rng = np.random.default_rng(0)
    for width, height in [(500, 375), (375, 500), (64, 64), (33, 1000), (1, 3)]:
        for view in (VIEW, SQUASHED):
            placement = view.placement(width, height)
            boxes_M4 = rng.uniform(-10, 600, (20, 4))
            np.testing.assert_allclose(placement.box_to_photo(placement.box_to_view(boxes_M4)), boxes_M4, rtol=0, atol=1e-9)
    assert placement.box_to_view(np.zeros((0, 4))).shape == (0, 4)
    with pytest.raises(UserError, match="boxes"):
        placement.box_to_view(np.zeros(4))


def test_a_mark_in_the_photo_lands_where_its_box_does() -> None:
    from striate.data import views

    photo_HW3 = np.zeros((300, 400, 3), dtype=np.uint8)
    photo_HW3[120:180, 160:220] = 255
    pixels_SS3 = views.apply(photo_HW3, VIEW)
    rows, columns = np.nonzero(pixels_SS3[:, :, 0] > 127)
    found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_allclose(VIEW.placement(400, 300).box_to_view([[160, 120, 220, 180]])[0], found, atol=1.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_normalise_is_torchvisions(dtype: torch.dtype) -> None:
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    before = images.clone()
    x = VIEW.normalise(images, dtype)
    expected = reference.normalize(images.float() / 255, list(VIEW.mean), list(VIEW.std))
    torch.testing.assert_close(x.float(), expected, rtol=0, atol=2e-6 if dtype == torch.float32 else 2e-2)
    assert x.dtype == dtype
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, before)


def test_divided_by_255_and_nothing_else() -> None:
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    torch.testing.assert_close(SQUASHED.normalise(images, torch.float32), images.float() / 255)


# ---------------------------------------------------------------- grey


def test_d7_grey_is_pillows_to_the_bit() -> None:
    numbers = np.random.default_rng(0)
    corners = np.array([[r, g, b] for r in (0, 1, 127, 255) for g in (0, 2, 128, 255) for b in (0, 3, 129, 255)], np.uint8)
    for photo_HW3 in (numbers.integers(0, 256, (64, 64, 3), np.uint8), corners.reshape(8, 8, 3)):
        images = torch.from_numpy(photo_HW3).permute(2, 0, 1)[None]
        pillow_HW = np.asarray(Image.fromarray(photo_HW3).convert("L"))
        assert GREY.levels(images).shape == (1, 1, *pillow_HW.shape)
        assert np.array_equal(GREY.levels(images)[0, 0].numpy(), pillow_HW)
    x = GREY.normalise(images, torch.float32)
    torch.testing.assert_close(x[0, 0], (torch.from_numpy(pillow_HW / 255).float() - 0.459) / 0.218, rtol=0, atol=2e-6)


def test_three_equal_channels_are_their_own_grey() -> None:
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    assert torch.equal(GREY.levels(images)[0, 0], images[0, 0].float())


def test_a_view_of_before_reads_as_colour() -> None:
    old = {name: value for name, value in VIEW.to_json().items() if name != "colour"}
    assert View.from_json(old) == VIEW
    assert "RGB" in VIEW.describe()
    assert "grey" in GREY.describe()
    assert (VIEW.channels, GREY.channels) == (3, 1)


def test_imagenets_grey_follows_from_its_colours() -> None:
    weights = np.array([0.299, 0.587, 0.114])
    axes = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
    covariance = axes @ np.diag([0.2175, 0.0188, 0.0045]) @ axes.T
    own = np.sqrt(np.diag(covariance))
    correlation = covariance / np.outer(own, own)
    deviation = np.sqrt(weights @ (correlation * np.outer(IMAGENET_STD, IMAGENET_STD)) @ weights)
    assert round(float(weights @ IMAGENET_MEAN), 3) == IMAGENET_GREY_MEAN[0]
    assert round(float(deviation), 3) == IMAGENET_GREY_STD[0]


CAFFE = View(2, "crop", 2, "bilinear", False, (104 / 255, 117 / 255, 123 / 255), (1 / 255,) * 3, "bgr")


def test_caffes_pixels_by_hand() -> None:
    """Blue, green, red in 0..255 less their means: red (255, 0, 0) is -104, -117, 132."""
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (104, 117, 123)]
    images = torch.tensor(colours, dtype=torch.uint8).T.reshape(1, 3, 2, 2)
    expected = [(-104, -117, 132), (-104, 138, -123), (151, -117, -123), (19, 0, -19)]
    for layout in (torch.contiguous_format, torch.channels_last):
        x = CAFFE.normalise(images.contiguous(memory_format=layout), torch.float32)
        torch.testing.assert_close(x, torch.tensor(expected, dtype=torch.float32).T.reshape(1, 3, 2, 2), rtol=0, atol=1e-4)
        assert x.is_contiguous(memory_format=layout)
    assert CAFFE.levels(images)[0, :, 0, 0].tolist() == [0, 0, 255]
    assert images[0, :, 0, 0].tolist() == [255, 0, 0]  # the pixels themselves stay as they were


def test_a_view_of_caffes_is_written_read_and_described() -> None:
    assert View.from_json(json.loads(json.dumps(CAFFE.to_json()))) == CAFFE
    assert "BGR, mean 0.4078,0.4588,0.4824" in CAFFE.describe()
    assert CAFFE.channels == 3 and CAFFE.hash != replace(CAFFE, colour="rgb").hash


def test_the_mean_as_a_colour() -> None:
    assert VIEW.mean_rgb == IMAGENET_MEAN
    assert CAFFE.mean_rgb == (123 / 255, 117 / 255, 104 / 255)
    assert GREY.mean_rgb == IMAGENET_GREY_MEAN * 3


def test_the_same_share_of_the_photo_at_another_side() -> None:
    published = View(224, "crop", 256, "bicubic", False, IMAGENET_MEAN, IMAGENET_STD)
    assert published.for_size(112) == replace(published, size_px=112, resize_px=128)
    assert published.for_size(224) is published

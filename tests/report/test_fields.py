"""Fields over a photo: frames and heat lie where the numbers say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from striate.errors import UserError
from striate.measure.effective import Effective, Looked, effective
from striate.measure.receptive import Field
from striate.report import fields

SIDE = 60
BLUE, ORANGE = (0, 114, 178), (213, 94, 0)


def looked(field: Field, side_px: int = 21, layer: str = "conv1", at: tuple[int, int] = (30, 30)) -> Looked:
    """A Gaussian around `at` over a grey photo."""
    rows, columns = np.indices((SIDE, SIDE))
    map_SS = np.exp(-((rows - at[0]) ** 2 + (columns - at[1]) ** 2) / 50.0)
    found = Effective(layer, (0, 0), map_SS / map_SS.sum(), field, side_px, (5.0, 5.0), 1)
    return Looked(found, np.full((SIDE, SIDE, 3), 128, np.uint8), ("untrained weights",))


def times(one: Looked) -> int:
    return fields._panel(one).width // SIDE


def test_frames_lie_where_the_numbers_say():
    one = looked(Field((41, 31), (1, 1), (10, 15)))
    panel = np.asarray(fields._panel(one))
    scale = times(one)
    # The blue frame begins at the window's first pixel and ends at its last; the orange one is 21 px around row 30, column 30.
    for row, column, colour in [
        (10 * scale, 30 * scale, BLUE), (51 * scale - 1, 30 * scale, BLUE), (30 * scale, 15 * scale, BLUE),
        (30 * scale, 46 * scale - 1, BLUE), (20 * scale, 30 * scale, ORANGE), (41 * scale - 1, 30 * scale, ORANGE),
    ]:  # fmt: skip
        assert tuple(panel[row, column]) == colour, (row, column)


def test_heat_is_strongest_in_the_middle_and_absent_far_away():
    one = looked(Field(None, None, None), at=(20, 40))
    panel = np.asarray(fields._panel(one)).astype(int)
    scale = times(one)
    redness_HW = panel[..., 0] - panel[..., 2]
    assert redness_HW[20 * scale + scale // 2, 40 * scale + scale // 2] > 40
    assert abs(redness_HW[55 * scale, 5 * scale]) <= 1


def test_a_unit_that_sees_everything_has_no_blue_frame():
    panel = np.asarray(fields._panel(looked(Field(None, None, None))))
    assert not (panel == BLUE).all(-1).any()
    assert (panel == ORANGE).all(-1).any()


def test_a_frame_beyond_the_photo_is_said():
    said = " ".join(
        fields._notes([looked(Field((41, 41), (1, 1), (10, 10))), looked(Field((200, 200), (1, 1), (-70, -70)), layer="deep")])
    )
    assert "outside the photo, wholly or in part: deep." in said
    assert "untrained weights" in said


def test_layers_of_a_network_side_by_side(tmp_path: Path):
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3, padding=1)).eval()
    torch.manual_seed(0)
    images = torch.randn(2, 3, 32, 32)
    photo = np.random.default_rng(0).integers(0, 255, (32, 32, 3)).astype(np.uint8)
    found = [Looked(effective(model, images, layer), photo, ()) for layer in ("0", "3")]
    path = fields.write_fields(tmp_path / "f.png", "small", found)
    with Image.open(path) as picture:
        picture.load()
        alone = fields.drawn("small", found[:1])
        assert picture.width > alone.width and picture.format == "PNG"
    panel = np.asarray(fields._panel(found[0]))
    assert (panel == BLUE).all(-1).any()  # the 3 px that a unit of the first layer sees


def test_another_ending_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match=r"f\.jpg.*ends in \.png"):
        fields.write_fields(tmp_path / "f.jpg", "small", [looked(Field(None, None, None))])

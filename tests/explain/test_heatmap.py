"""Heatmaps: interpolation against torch and OpenCV, and marks that land on the pixels of the photo that they were made of."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional

from striate.errors import UserError
from striate.explain.heatmap import Heatmap, bilinear, scaled
from striate.view import View

VIEW = View(32, "crop", 40, "bilinear", False, (0.5,) * 3, (0.5,) * 3)
SQUASH = replace(VIEW, fit="squash", resize_px=32)


def heatmap(values_hw: np.ndarray, view: View = VIEW, width: int = 80, height: int = 60) -> Heatmap:
    return Heatmap(values_hw.astype(np.float32), view, width, height, "grad-cam", "layer4", 3)


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(7, 7), (2, 2), (1, 1), (4, 6), (32, 32)])
def test_on_the_view_the_map_is_resized_as_torch_and_opencv_do(shape):
    values_hw = random(*shape)
    found = heatmap(values_hw).on_view()
    by_torch = functional.interpolate(torch.from_numpy(values_hw)[None, None], (32, 32), mode="bilinear", align_corners=False)
    assert found.shape == (32, 32) and found.dtype == np.float32
    assert np.abs(found - by_torch[0, 0].numpy()).max() < 1e-5
    assert np.abs(found - cv2.resize(values_hw, (32, 32), interpolation=cv2.INTER_LINEAR)).max() < 1e-5


def test_between_centres_and_beyond_them_by_hand():
    found = bilinear(np.array([[0.0, 4.0]]), np.array([-1.0, 0.5, 0.75, 1.0, 1.5, 2.0]), np.array([0.5]))
    assert found.tolist() == [[0, 0, 1, 2, 4, 4]]


@pytest.mark.parametrize(("width", "height"), [(80, 60), (60, 80), (40, 40)])
@pytest.mark.parametrize("view", [VIEW, SQUASH])
def test_each_pixel_of_the_photo_has_the_value_at_its_place_in_the_view(view, width, height):
    """A map that counts columns (rows) says for each pixel where its centre lies in the view, up to the edge of the grid."""
    place = view.placement(width, height)
    x_W = (np.arange(width) + 0.5) * place.scale_x - place.left_px
    y_H = (np.arange(height) + 0.5) * place.scale_y - place.top_px
    columns, rows = np.meshgrid(np.arange(32) + 0.5, np.arange(32) + 0.5)
    is_seen_HW = ((x_W >= 0) & (x_W < 32))[None, :] & ((y_H >= 0) & (y_H < 32))[:, None]
    for values, at_HW in (
        (columns, np.broadcast_to(x_W[None, :], (height, width))),
        (rows, np.broadcast_to(y_H[:, None], (height, width))),
    ):
        found = heatmap(values, view, width, height).on_photo(outside=-7)
        assert found.shape == (height, width) and found.dtype == np.float32
        assert np.allclose(found[is_seen_HW], np.clip(at_HW, 0.5, 31.5)[is_seen_HW], atol=1e-4)
        assert (found[~is_seen_HW] == -7).all()


def test_a_photo_that_is_the_view_has_the_map_of_the_view():
    same = View(32, "crop", 32, "bilinear", False, (0.5,) * 3, (0.5,) * 3)
    one = heatmap(random(5, 5), same, 32, 32)
    assert np.array_equal(one.on_photo(), one.on_view())


def test_a_bright_square_of_the_view_is_a_box_of_the_photo():
    """The photo of 80 x 60 becomes one of 53 x 40, of which the view is 32 x 32 from (10, 4)."""
    values = np.zeros((32, 32))
    values[8:16, 4:20] = 1
    rows, columns = np.nonzero(heatmap(values).on_photo() > 0.5)
    found = np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]])
    expected = VIEW.placement(80, 60).box_to_photo([[4, 8, 20, 16]])
    assert expected[0].tolist() == pytest.approx([14 * 80 / 53, 12 * 1.5, 30 * 80 / 53, 20 * 1.5])
    assert np.abs(found - expected).max() <= 0.5  # whole pixels


def test_scaled_goes_from_0_to_1_map_by_map_and_an_even_map_is_zero():
    maps_BHW = np.stack([np.array([[-3.0, 1.0], [0.0, 5.0]]), np.full((2, 2), 9.0), np.zeros((2, 2))])
    found = scaled(maps_BHW)
    assert found.dtype == np.float32
    assert found[0].tolist() == [[0, 0.5], [0.375, 1]] and not found[1:].any()
    assert np.array_equal(scaled(maps_BHW.astype(np.float32) * 4), found)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_numbers_are_refused(value):
    with pytest.raises(UserError, match="heatmap: grad-cam gave values that are NaN or infinite"):
        heatmap(np.array([[0.0, value]]))


def test_maps_of_another_shape_are_refused():
    with pytest.raises(UserError, match="heatmap: expected shape"):
        heatmap(np.zeros((1, 2, 2)))
    with pytest.raises(UserError, match="maps: expected shape"):
        scaled(np.zeros((2, 2)))

"""Boxes against torchvision's and against cases worked by hand."""

import numpy as np
import pytest
import torch
from torchvision.ops import box_area, box_iou, clip_boxes_to_image

from striate import geometry
from striate.errors import UserError


def boxes(seed, count):
    corners = np.random.default_rng(seed).uniform(0, 100, (count, 2, 2))
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)


def test_iou_and_area_equal_torchvision():
    a, b = boxes(0, 30), boxes(1, 20)
    np.testing.assert_allclose(geometry.iou(a, b), box_iou(torch.from_numpy(a), torch.from_numpy(b)).numpy(), atol=1e-12)
    np.testing.assert_allclose(geometry.area(a), box_area(torch.from_numpy(a)).numpy())


def test_clip_equals_torchvision_and_keeps_the_dtype():
    a = (boxes(2, 30) * 2 - 50).astype(np.float32)
    np.testing.assert_array_equal(geometry.clip(a, 64, 48), clip_boxes_to_image(torch.from_numpy(a), (48, 64)).numpy())
    assert geometry.clip(a, 64, 48).dtype == np.float32


def test_iou_by_hand():
    a = np.array([[0, 0, 2, 2]], dtype=float)
    others = np.array([[0, 0, 2, 2], [1, 1, 3, 3], [2, 0, 4, 2], [5, 5, 6, 6], [0, 0, 1, 2]], dtype=float)
    np.testing.assert_allclose(geometry.iou(a, others), [[1, 1 / 7, 0, 0, 0.5]])


def test_boxes_without_area_share_nothing_and_divide_by_nothing():
    point = np.array([[1, 1, 1, 1]], dtype=float)
    assert geometry.iou(point, point).tolist() == [[0.0]]
    assert geometry.area(np.array([[3.0, 3.0, 1.0, 5.0]])).tolist() == [0.0]
    assert geometry.iou(np.zeros((0, 4)), point).shape == (0, 1)


def test_valid_boxes_are_finite_and_have_area():
    cases = np.array([[0, 0, 1, 1], [0, 0, 0, 1], [2, 0, 1, 1], [0, 0, np.inf, 1], [np.nan, 0, 1, 1], [-1, -1, 1, 1]])
    assert geometry.is_valid(cases).tolist() == [True, False, False, False, False, True]


def test_a_wrong_shape_is_named():
    with pytest.raises(UserError, match=r"boxes: expected shape \[N, 4\], found \[3, 5\]"):
        geometry.area(np.zeros((3, 5)))

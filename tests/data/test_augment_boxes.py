"""Boxes move as the pixels do: drawn into a photo, augmented, and found again."""

import numpy as np
import pytest

from striate.data.augment import boxes
from striate.data.augment.apply import apply
from striate.data.augment.draw import DRAWS, Augmentation, Drawn
from striate.data.augment.erase import Rectangle
from striate.data.augment.geometry import Affine
from striate.data.augment.policy import Operation

SIDE = 96
BOX = (70, 40, 110, 100)  # in a photo of 160 x 120


def augmentation(**changes):
    given = {"crop": "random-resized", "scale": (0.5, 1.0), "ratio": (0.75, 1.33), "shift_px": 0, "flip": 0.5, "size_px": SIDE}
    return Augmentation(**{**given, "interpolation": "bilinear", "fit": "crop", **changes})


def photo():
    image_HW3 = np.zeros((120, 160, 3), np.uint8)
    x_min, y_min, x_max, y_max = BOX
    image_HW3[y_min:y_max, x_min:x_max] = 255
    return image_HW3


def bright(view_SS3, level=127):
    """The box around what is bright."""
    y, x = np.nonzero(view_SS3[..., 0] > level)
    return np.array([x.min(), y.min(), x.max() + 1, y.max() + 1], np.float64)


CHANGES = {
    "random-resized": {},
    "random": {"crop": "random", "shorter_px": (100, 120)},
    "resize": {"crop": "resize"},
    "shift": {"crop": "shift", "shift_px": 8},
    "squash": {"crop": "shift", "shift_px": 8, "fit": "squash"},
    "translate": {"translate": 0.1},
}


@pytest.mark.parametrize("name", CHANGES)
def test_the_moved_box_is_where_the_pixels_are(name):
    made = augmentation(**CHANGES[name])
    flips, compared = set(), 0
    for uniforms in np.random.default_rng(3).random((40, DRAWS)):
        view_SS3, drawn = apply(photo(), made, uniforms)
        (seen_4,), _ = boxes.seen(np.array([BOX], np.float32), drawn, SIDE)
        if (seen_4[2:] - seen_4[:2]).min() < 8:
            continue
        np.testing.assert_allclose(bright(view_SS3), seen_4, atol=1.01)  # within the pixel that an edge falls into
        flips.add(drawn.flipped)
        compared += 1
    assert flips == {False, True}
    assert compared >= 20


@pytest.mark.parametrize("changes", [{"rotate": 25.0}, {"shear": 15.0}, {"rotate": 10.0, "translate": 0.05, "shear": 5.0}])
def test_a_warped_box_encloses_the_warped_pixels_as_tightly_as_its_corners_do(changes):
    made, compared = augmentation(crop="resize", **changes), 0
    for uniforms in np.random.default_rng(4).random((20, DRAWS)):
        view_SS3, drawn = apply(photo(), made, uniforms)
        (seen_4,), (share,) = boxes.seen(np.array([BOX]), drawn, SIDE)
        if share == 1:  # else a corner lies outside, and the part within is smaller than the corners' box
            # A corner is a point, and the pixels around it are dim: half a pixel on each side and a little more.
            np.testing.assert_allclose(bright(view_SS3, 60), seen_4, atol=2.0)
            compared += 1
    assert compared >= 10


@pytest.mark.parametrize("policy", ["randaugment", "trivialaugment"])
def test_operations_of_a_policy_move_boxes(policy):
    made = augmentation(crop="resize", policy=policy, policy_operations=2, policy_magnitude=9)
    moving = 0
    for uniforms in np.random.default_rng(5).random((200, DRAWS)):
        view_SS3, drawn = apply(photo(), made, uniforms)
        names = {operation.name for operation in drawn.operations}
        if not names <= {"ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Identity"}:
            continue
        (seen_4,), (share,) = boxes.seen(np.array([BOX]), drawn, SIDE)
        if share == 1:
            np.testing.assert_allclose(bright(view_SS3), seen_4, atol=2.0)
            moving += names != {"Identity"}
    assert moving >= 10


def test_the_target_is_the_box_that_shows_most_of_those_that_show_half():
    made = augmentation(crop="resize", flip=0.0)
    _, drawn = apply(np.zeros((100, 100, 3), np.uint8), made, np.full(DRAWS, 0.5))
    cut = drawn._replace(left=0, top=0, width=50, height=100)  # the left half of the photo, stretched to the view
    large_but_outside, half_inside, small_inside = (30, 0, 100, 100), (40, 10, 60, 90), (0, 0, 20, 20)
    both = np.array([large_but_outside, half_inside, small_inside], np.float32)
    expected = np.array([40 * SIDE / 50, 10 * SIDE / 100, SIDE, 90 * SIDE / 100], np.float32)
    np.testing.assert_allclose(boxes.target(both, cut, SIDE), expected, rtol=1e-6)  # half of it is seen, cut off at the edge
    np.testing.assert_allclose(boxes.target(both[[0, 2]], cut, SIDE), [0, 0, 20 * SIDE / 50, 20 * SIDE / 100], rtol=1e-6)
    assert np.isnan(boxes.target(both[:1], cut, SIDE)).all()
    assert np.isnan(boxes.target(np.empty((0, 4), np.float32), cut, SIDE)).all()


PLAIN = Drawn(0, 0, 64, 64, 64, 64, 0, 0, 0, 0, False)


def test_what_one_operation_moves_out_the_next_does_not_bring_back():
    box = np.array([[40, 20, 64, 44]], np.float32)
    there_and_back = PLAIN._replace(operations=(Operation("TranslateX", 26.0), Operation("TranslateX", -26.0)))
    assert boxes.seen(box, there_and_back, 64)[1] == 0
    assert np.isnan(boxes.target(box, there_and_back, 64)).all()
    half = PLAIN._replace(operations=(Operation("TranslateX", 12.0), Operation("TranslateX", -12.0)))
    seen_14, share_1 = boxes.seen(box, half, 64)
    np.testing.assert_allclose(seen_14, [[40, 20, 52, 44]])
    np.testing.assert_allclose(share_1, [0.5])
    and_back = PLAIN._replace(operations=(Operation("TranslateX", 26.0),), affine=Affine(0.0, -26, 0, 0.0))
    assert boxes.seen(box, and_back, 64)[1] == 0


def test_what_turns_there_and_back_is_enclosed_once():
    """Two enclosings would add to the box; together the turns are none."""
    box = np.array([[20, 24, 40, 44]], np.float32)
    turned = PLAIN._replace(operations=(Operation("Rotate", 20.0), Operation("Rotate", -20.0)))
    np.testing.assert_allclose(boxes.seen(box, turned, 64)[0], box, atol=1e-9)


@pytest.mark.parametrize("name", ["erased", "cutout"])
def test_what_is_taken_away_of_a_box_does_not_show(name):
    box = np.array([[40, 20, 64, 44]], np.float32)
    all_of_it, quarter = Rectangle(38, 18, 28, 28), Rectangle(40, 20, 12, 12)
    assert boxes.seen(box, PLAIN._replace(**{name: all_of_it}), 64)[1] == 0
    seen_14, share_1 = boxes.seen(box, PLAIN._replace(**{name: quarter}), 64)
    np.testing.assert_allclose(seen_14, box)
    np.testing.assert_allclose(share_1, [0.75])
    assert np.isnan(boxes.target(box, PLAIN._replace(**{name: all_of_it}), 64)).all()
    np.testing.assert_allclose(boxes.target(box, PLAIN._replace(**{name: quarter}), 64), box[0])

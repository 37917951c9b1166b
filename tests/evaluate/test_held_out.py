"""Tests of the split into images that choose a number and images that judge it."""

from __future__ import annotations

import numpy as np
import pytest

from striate.errors import DataError, UserError
from striate.evaluate.held_out import held_out


def images(counts: list[int]) -> tuple[list[str], np.ndarray]:
    labels = np.repeat(np.arange(len(counts)), counts)
    return [f"val/{label}/{row}.jpg" for row, label in enumerate(labels)], labels


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.7, 1 / 3])
def test_every_class_gives_its_share_to_within_one_image(share):
    counts = [50, 7, 1, 1, 1, 20, 33, 2]
    keys, labels = images(counts)
    for_fit_N = held_out(keys, labels, share)
    for label, count in enumerate(counts):
        assert abs(int(for_fit_N[labels == label].sum()) - count * share) < 1
    assert abs(int(for_fit_N.sum()) - len(keys) * share) < 1


def test_classes_of_one_image_do_not_all_fall_on_one_side():
    keys, labels = images([1] * 100)
    assert held_out(keys, labels).sum() == 50


def test_the_order_of_the_images_does_not_matter():
    keys, labels = images([9, 12, 5])
    for_fit_N = held_out(keys, labels, 0.4)
    order = np.random.default_rng(3).permutation(len(keys))
    assert np.array_equal(held_out([keys[row] for row in order], labels[order], 0.4), for_fit_N[order])


def test_the_split_is_not_that_of_the_order_and_depends_on_the_keys():
    keys, labels = images([200])
    for_fit_N = held_out(keys, labels)
    other_N = held_out([f"other/{key}" for key in keys], labels)
    assert 20 < (for_fit_N != other_N).sum() < 180  # as two independent splits differ: in 100 of 200
    assert 20 < (for_fit_N != (np.arange(200) % 2 == 1)).sum() < 180


def test_images_without_a_label_are_in_neither_part_of_use():
    keys, labels = images([6, 6])
    labels = np.where(np.arange(12) % 3 == 0, -1, labels)
    for_fit_N = held_out(keys, labels)
    assert not for_fit_N[labels == -1].any() and for_fit_N.sum() == 4
    known = labels != -1
    assert np.array_equal(held_out([key for key, has in zip(keys, known, strict=True) if has], labels[known]), for_fit_N[known])


def test_keys_that_are_not_text_are_taken():
    keys = [f"caf\udce9{row}.jpg" for row in range(10)]
    assert held_out(keys, np.zeros(10, np.int64)).sum() == 5


@pytest.mark.parametrize("share", [0, 1, -0.1, float("nan"), 2])
def test_a_share_outside_of_0_and_1_is_a_usage_error(share):
    with pytest.raises(UserError, match="expected a share above 0 and below 1"):
        held_out(*images([4]), share)


def test_a_share_that_leaves_nothing_to_fit_on_is_a_usage_error():
    with pytest.raises(UserError, match=r"10 labelled images leaves 0 to fit on and 10 to judge: choose a share nearer to 0.5"):
        held_out(*images([5, 5]), 0.01)


def test_too_few_labelled_images_are_a_data_error():
    with pytest.raises(DataError, match="expected two labelled images or more, found 1"):
        held_out(["a", "b", "c"], np.array([0, -1, -1]))


def test_a_key_for_two_images_is_a_data_error():
    with pytest.raises(DataError, match=r"found more than once: 'b'\. Evaluate each image once"):
        held_out(["a", "b", "b"], np.array([0, 1, 1]))


def test_labels_of_another_length_are_a_usage_error():
    with pytest.raises(UserError, match=r"labels: expected shape \[3\], found \[2\]"):
        held_out(["a", "b", "c"], np.array([0, 1]))

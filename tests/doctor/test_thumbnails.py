"""Thumbnails: which images are chosen, from where, and that they do not depend on what cannot be read."""

from __future__ import annotations

import numpy as np
import torch

from striate.doctor import thumbnails
from tests.doctor.rules import data_makers as made


def test_the_same_number_of_each_class_in_any_first_part():
    labels = np.concatenate([np.zeros(500), np.ones(50), np.full(50, 2)]).astype(np.int64)
    chosen = thumbnails.chosen(labels, 90)
    assert np.bincount(labels[chosen]).tolist() == [30, 30, 30]
    assert np.bincount(labels[chosen[:9]]).tolist() == [3, 3, 3]
    assert len(np.unique(chosen)) == 90


def test_of_many_classes_the_first_and_the_last_are_taken():
    labels = np.repeat(np.arange(1000), 3)
    present = np.unique(labels[thumbnails.chosen(labels, 600)])
    half = thumbnails.MOST_CLASSES // 2
    assert present.tolist() == [*range(half), *range(1000 - half, 1000)]


def test_images_without_a_label_are_not_chosen():
    labels = np.array([-1, 0, 1, -1, 1])
    assert sorted(thumbnails.chosen(labels, 10).tolist()) == [1, 2, 4]
    assert len(thumbnails.chosen(np.full(4, -1), 10)) == 0


def test_an_index_gives_small_pictures_labels_and_keys():
    labels = made.labels(3, 10)
    index = made.index(made.pictures(labels, side=40), labels)
    found = thumbnails.of_index(index, 10.0)
    assert found.pixels_NSS3.shape == (30, 32, 32, 3)
    assert found.is_whole
    assert found.labels_N.tolist() == index.labels[found.rows_N].tolist()
    assert found.keys[0] == index.keys[int(found.rows_N[0])]
    assert found.sides_N2.tolist() == [[40, 40]] * 30


def test_files_are_decoded_at_a_fraction_of_their_size_and_look_the_same():
    train = made.built_in().train
    picture, sides = thumbnails.reduced(train.content(0))
    assert min(picture.shape[:2]) >= min(96, *sides)
    found = thumbnails.of_index(train, 10.0, most=24)
    assert len(found) == 24


def test_an_unreadable_image_is_left_out(tmp_path):
    labels = made.labels(2, 4)
    pixels = [b"no image" if row == 3 else picture for row, picture in enumerate(made.pictures(labels))]
    found = thumbnails.of_index(made.index(pixels, labels), 10.0)
    assert len(found) == 7
    assert 3 not in found.rows_N


def test_a_loader_gives_its_first_images_and_one_channel_three_times():
    labels = made.labels(3, 20)
    pixels = made.pictures(labels)
    found = thumbnails.of_batches(made.loader(pixels, labels, lambda images: images.mean(1, keepdim=True)), 10.0, most=40)
    assert found is not None
    assert (len(found), found.total) == (60, None)  # the second batch crosses the limit; whether there are more nobody asked
    assert np.array_equal(found.pixels_NSS3[..., 0], found.pixels_NSS3[..., 2])
    assert found.labels_N.tolist() == labels[: len(found)].tolist()


def test_a_loader_without_images_or_with_sides_in_the_wrong_place_gives_none():
    labels = made.labels(3, 20)
    pixels = made.pictures(labels)
    assert thumbnails.of_batches(made.nothing, 1.0) is None
    assert thumbnails.of_batches(made.loader(pixels, labels, lambda images: images.permute(0, 2, 3, 1)), 1.0) is None


def test_numbers_that_are_not_finite_do_no_harm():
    labels = made.labels(2, 8)
    found = thumbnails.of_batches(made.loader(made.pictures(labels), labels, lambda x: torch.full_like(x, float("nan"))), 1.0)
    assert found is not None
    assert np.isfinite(found.pixels_NSS3).all()


def test_a_patient_keeps_what_was_measured():
    labels = made.labels(3, 10)
    index = made.index(made.pictures(labels), labels)
    patient = made.ours(index)
    assert thumbnails.of(patient, "train") is thumbnails.of(patient, "train")
    assert thumbnails.of(patient, "scored") is None

"""Every layout, detected by content; and what must not get past it."""

import csv
import json
import os
import random
import subprocess
import sys

import numpy as np
import pytest

from striate.data import synthetic
from striate.data.layouts import ilsvrc, walk
from striate.data.layouts.detect import open_data, open_photos, open_split
from striate.data.layouts.splits import by_hash
from striate.errors import DataError, StriateError, UserError


def put(root, *paths, data=b"x"):
    """Writes small files; the index never looks inside."""
    for path in paths:
        place = os.path.join(os.fsencode(root), os.fsencode(path))
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with open(place, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)


def class_folders(root, classes=("ape", "bee", "cat"), count=4, split=""):
    put(root, *(f"{split}{name}/{n}.jpg" for name in classes for n in range(count)))


def labels_of(index):
    """key → class id."""
    return {
        key: index.classes.ids[label] if label >= 0 else None
        for key, label in zip(index.keys, index.labels.tolist(), strict=True)
    }


def said(notes):
    return "\n".join(notes)


# ---------------------------------------------------------------- class folders


def test_class_folder_with_train_and_val(tmp_path):
    class_folders(tmp_path, split="train/")
    class_folders(tmp_path, split="val/", count=2)
    put(tmp_path, "test/ape/9.png", "test/bee/9.webp", "test/cat/9.BMP")
    splits = open_data(tmp_path)
    assert splits.layout == "class folder" and splits.train.classes.ids == ("ape", "bee", "cat")
    assert (len(splits.train), len(splits.val), len(splits.test)) == (12, 6, 3)
    assert labels_of(splits.val)["val/bee/1.jpg"] == "bee" and splits.val.path(0).is_file()
    assert splits.train.sizes_bytes.tolist() == [1] * 12 and (splits.train.mtimes_ns > 10**18).all()
    assert (splits.train.split, splits.val.split, splits.test.split) == ("train", "val", "test")


@pytest.mark.parametrize("name", ["valid", "validation", "Val"])
def test_other_words_for_val(tmp_path, name):
    class_folders(tmp_path, split="train/")
    class_folders(tmp_path, split=f"{name}/", count=2)
    assert len(open_data(tmp_path).val) == 6


def test_two_folders_for_one_split_are_refused(tmp_path):
    for name in ("train/", "val/", "valid/"):
        class_folders(tmp_path, split=name)
    with pytest.raises(DataError, match="Both 'val' and 'valid'"):
        open_data(tmp_path)


def test_without_val_a_stratified_part_is_held_out_and_said(tmp_path):
    class_folders(tmp_path, count=20)
    class_folders(tmp_path, ("rare",), count=2)
    class_folders(tmp_path, ("single",), count=1)
    splits = open_data(tmp_path, val_share=0.2)
    assert dict(zip(splits.val.classes.ids, splits.val.counts().tolist(), strict=True)) == {
        "ape": 4,
        "bee": 4,
        "cat": 4,
        "rare": 1,
        "single": 0,
    }
    assert not set(splits.train.keys) & set(splits.val.keys) and len(splits.train) + len(splits.val) == 63
    assert splits.train.classes == splits.val.classes
    assert "13 of 63 images (20% of each class" in said(splits.notes) and "'single'" in said(splits.notes)


def test_a_part_of_single_images_is_said_as_such(tmp_path):
    class_folders(tmp_path, count=35)
    assert "3 of 105 images (one of each class, chosen" in said(open_data(tmp_path, val_share=0.001).notes)


def test_a_share_below_one_percent_is_said_as_it_is(tmp_path):
    class_folders(tmp_path, ("ape", "bee"), count=300)
    assert "4 of 600 images (0.6% of each class, chosen" in said(open_data(tmp_path, val_share=0.006).notes)


def test_the_held_out_part_is_a_function_of_key_and_seed(tmp_path):
    class_folders(tmp_path / "a", count=30)
    class_folders(tmp_path / "b", count=30)
    first, copy = open_data(tmp_path / "a"), open_data(tmp_path / "b")
    assert first.val.fingerprint == copy.val.fingerprint
    assert open_data(tmp_path / "a", seed_of_split=1).val.fingerprint != first.val.fingerprint
    put(tmp_path / "b", "ape/new.jpg")
    moved = set(first.val.keys) ^ set(open_data(tmp_path / "b").val.keys)
    assert len(moved) <= 2 and all(key.startswith("ape/") for key in moved)


@pytest.mark.parametrize("share", [0.0, 1.0, -1, float("nan")])
def test_a_share_that_is_none(tmp_path, share):
    class_folders(tmp_path)
    with pytest.raises(DataError, match="more than 0 and less than 1"):
        open_data(tmp_path, val_share=share)


def test_images_may_lie_deeper_within_a_class(tmp_path):
    put(tmp_path, "ape/2.jpg", "ape/b/1.jpg", "ape/a/deep/1.jpg", "bee/1.jpg", "bee/2.jpg")
    index = open_split(tmp_path)
    assert list(index.keys) == ["ape/2.jpg", "ape/a/deep/1.jpg", "ape/b/1.jpg", "bee/1.jpg", "bee/2.jpg"]


def test_boxes_beside_class_folders(tmp_path):
    class_folders(tmp_path, split="train/")
    class_folders(tmp_path, split="val/")
    put(
        tmp_path,
        "boxes.csv",
        data="path,label,x_min,y_min,x_max,y_max\ntrain/bee/1.jpg,bee,1,2,3,4\ntrain/bee/1.jpg,bee,5,6,7,8\nval/ape/0.jpg,ape,0,0,9,9\n",
    )
    splits = open_data(tmp_path)
    row = list(splits.train.keys).index("train/bee/1.jpg")
    assert splits.train.boxes.of(row).tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]] and len(splits.train.boxes.xyxy) == 2
    assert splits.val.boxes.of(0).tolist() == [[0, 0, 9, 9]] and "csv" not in said(splits.notes)


def test_d13_hidden_and_junk_entries_are_ignored_and_counted(tmp_path):
    class_folders(tmp_path)
    put(tmp_path, ".ipynb_checkpoints/1.jpg", "__MACOSX/ape/1.jpg", ".DS_Store", "Thumbs.db", "ape/desktop.ini", "ape/._1.jpg")
    put(tmp_path, "bee/.ipynb_checkpoints/1.jpg", "bee/labels.txt", "bee/noextension", "cat/old.TIF", "cat/new.avif")
    splits = open_data(tmp_path)
    assert splits.train.classes.ids == ("ape", "bee", "cat") and len(splits.train) + len(splits.val) == 12
    notes = said(splits.notes)
    assert "hidden or junk entries" in notes and ".ipynb_checkpoints" in notes
    assert "ignored 2 files that are not named as images (.txt 1, no extension 1)" in notes
    assert "not read: 2 images of unsupported types (.avif 1, .tif 1)" in notes


def test_d14_the_order_of_the_directory_does_not_matter(tmp_path, monkeypatch):
    class_folders(tmp_path, count=9)
    put(tmp_path, "ape/x/1.jpg", "ape/y/1.jpg")
    before = open_data(tmp_path)
    real = os.scandir

    class Shuffled:
        def __init__(self, path):
            with real(path) as entries:
                self.entries = sorted(entries, key=lambda entry: hash((entry.name, 7)))

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(os, "scandir", Shuffled)
    after = open_data(tmp_path)
    assert (after.train.fingerprint, after.val.fingerprint) == (before.train.fingerprint, before.val.fingerprint)
    assert after.train.classes == before.train.classes


def test_d15_class_folders_are_ordered_as_text_with_a_warning(tmp_path):
    class_folders(tmp_path, ("class2", "class10"))
    splits = open_data(tmp_path)
    assert splits.train.classes.ids == ("class10", "class2")
    assert "'class10' comes before 'class2'" in said(splits.notes)
    class_folders(tmp_path / "numbers", ("1", "2", "10"))
    splits = open_data(tmp_path / "numbers")
    assert splits.train.classes.ids == ("1", "10", "2") and "are all numbers" in said(splits.notes)
    class_folders(tmp_path / "padded", ("01", "02", "10", "a-1", "a1", "a1b", "a10", "b2"))
    assert "ordered as text" not in said(open_data(tmp_path / "padded").notes)


def test_d16_classes_of_val_must_be_those_of_train(tmp_path):
    class_folders(tmp_path, split="train/")
    class_folders(tmp_path, ("ape", "cat", "dog"), split="val/")
    with pytest.raises(DataError, match=r"Only here, 1: 'dog'\. Without images here, 1: 'bee'"):
        open_data(tmp_path)


def test_d16_accents_that_differ_only_in_encoding_are_explained(tmp_path):
    class_folders(tmp_path, ("caf\u00e9", "bar"), split="train/")
    class_folders(tmp_path, ("cafe\u0301", "bar"), split="val/")
    with pytest.raises(DataError, match="NFC and NFD"):
        open_data(tmp_path)


def test_e10_a_class_without_validation_images(tmp_path):
    class_folders(tmp_path, split="train/")
    class_folders(tmp_path, ("ape", "cat"), split="val/")
    with pytest.raises(DataError, match=r"Without images here, 1: 'bee'"):
        open_data(tmp_path)
    os.mkdir(tmp_path / "val/bee")
    with pytest.raises(DataError, match=r"1 class folders have no images: 'bee'"):
        open_data(tmp_path)


def test_e10_an_empty_val_folder(tmp_path):
    class_folders(tmp_path, split="train/")
    os.mkdir(tmp_path / "val")
    with pytest.raises(DataError, match="val: its classes are not those"):
        open_data(tmp_path)


def test_d16_an_empty_class_and_a_single_class(tmp_path):
    class_folders(tmp_path)
    os.mkdir(tmp_path / "dog")
    put(tmp_path, "eel/1.tif")
    with pytest.raises(DataError, match=r"2 class folders have no images \(1 images of types that are not read\): 'dog', 'eel'"):
        open_data(tmp_path)
    class_folders(tmp_path / "one", ("ape",))
    with pytest.raises(DataError, match="only one class, 'ape'"):
        open_data(tmp_path / "one")
    class_folders(tmp_path / "two", ("ape",), split="train/")
    with pytest.raises(DataError, match="only one class, 'ape'"):
        open_data(tmp_path / "two")


@pytest.mark.parametrize("inside", ["", "images/"])
def test_d17_a_flat_val_is_detected_and_the_way_out_told(tmp_path, inside):
    class_folders(tmp_path, split="train/")
    put(tmp_path, *(f"val/{inside}{n}.jpg" for n in range(3)))
    with pytest.raises(
        DataError, match=r"(?s)flat folder of images without labels.*Sort the images into.*list file.*LOC_val_solution"
    ):
        open_data(tmp_path)


def test_d17_a_flat_folder_is_no_training_set(tmp_path):
    put(tmp_path, "1.jpg", "2.jpg")
    with pytest.raises(DataError, match=r"(?s)flat folder of images.*2 files \(2 \.jpg\)"):
        open_data(tmp_path)
    assert list(open_photos(tmp_path).keys) == ["1.jpg", "2.jpg"]


def test_a_flat_test_folder_is_unlabelled(tmp_path):
    class_folders(tmp_path, split="train/")
    put(tmp_path, "test/1.jpg", "test/2.jpg")
    splits = open_data(tmp_path)
    assert splits.test.labels.tolist() == [-1, -1] and splits.test.classes == splits.train.classes
    assert splits.val is not None and "held out" in said(splits.notes)


# ---------------------------------------------------------------- odd entries


def test_d26_odd_names_are_images_like_others(tmp_path):
    odd = [
        b"ape/two\nlines.jpg",
        b"ape/\xff\xfe.jpg",
        b"ape/" + b"x" * 251 + b".jpg",
        b"b\xff/1.jpg",
        b"b\xff/ .jpg",
        "bée/ü.jpg".encode(),
    ]
    put(tmp_path, *odd)
    index = open_split(tmp_path)
    assert sorted(map(os.fsencode, index.keys)) == sorted(odd)
    assert all(index.path(i).read_bytes() == b"x" for i in range(len(index)))
    assert len(index.classes) == 3
    splits = open_data(tmp_path)
    assert all(note.isprintable() for note in splits.notes)


def test_d26_pipes_links_and_loops_neither_hang_nor_count_as_images(tmp_path):
    class_folders(tmp_path)
    os.mkfifo(tmp_path / "ape/pipe.jpg")
    os.symlink("nowhere.jpg", tmp_path / "ape/lost.jpg")
    os.symlink("circle.jpg", tmp_path / "ape/circle.jpg")
    os.symlink(tmp_path, tmp_path / "ape/up")
    os.symlink(tmp_path, tmp_path / "again")
    os.symlink(".", tmp_path / "self")
    os.symlink("/", tmp_path / "bee/everything")
    os.symlink(tmp_path / "bee/1.jpg", tmp_path / "bee/link.jpg")
    splits = open_data(tmp_path)
    assert splits.train.classes.ids == ("ape", "bee", "cat") and len(splits.train) + len(splits.val) == 13
    notes = said(splits.notes)
    for words in (
        "1 named pipes",
        "1 links to nothing",
        "1 links that lead round in a circle",
        "2 links to folders within a class",
        "2 links that lead back",
    ):
        assert words in notes, words


def test_a_linked_class_folder_is_followed(tmp_path):
    class_folders(tmp_path / "elsewhere")
    class_folders(tmp_path / "here", ("dog",))
    os.symlink(tmp_path / "elsewhere/ape", tmp_path / "here/ape")
    assert open_split(tmp_path / "here").classes.ids == ("ape", "dog")


def test_d26_a_folder_without_permission_is_a_usage_error(tmp_path, monkeypatch):
    class_folders(tmp_path)
    real = os.scandir

    def scandir(path):
        if os.fspath(path).endswith(b"bee"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)  # the tests may run as root, who may read everything
    with pytest.raises(UserError, match=r"bee': no permission to read it") as caught:
        open_data(tmp_path)
    assert caught.value.exit_code == 2


def test_d26_a_folder_that_may_be_listed_and_not_entered(tmp_path, monkeypatch):
    class_folders(tmp_path)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UserError, match="no permission to read it"):
        open_data(tmp_path)


def test_images_beside_class_folders_are_counted(tmp_path):
    class_folders(tmp_path, split="train/")
    class_folders(tmp_path, split="val/")
    put(tmp_path, "1.jpg", "val/2.jpg", "val/3.jpg", "train/.DS_Store")
    notes = said(open_data(tmp_path).notes)
    assert "ignored 1 images that lie in" in notes and "ignored 2 images" in notes and ".DS_Store 1" in notes


def test_d28_nothing_is_written_into_the_data_folder(tmp_path):
    class_folders(tmp_path)
    before = {folder: (sorted(names), os.stat(folder).st_mtime_ns) for folder, _, names in os.walk(tmp_path)}
    open_data(tmp_path).train.fingerprint  # noqa: B018
    assert before == {folder: (sorted(names), os.stat(folder).st_mtime_ns) for folder, _, names in os.walk(tmp_path)}


# ---------------------------------------------------------------- what is no data set


def test_a_path_that_does_not_exist_names_the_nearest(tmp_path):
    class_folders(tmp_path / "flowers")
    with pytest.raises(UserError, match=r"no such file or folder\. Did you mean 'flowers'") as caught:
        open_data(tmp_path / "flower")
    assert caught.value.exit_code == 2
    with pytest.raises(UserError, match="not a path"):
        open_data("a\0b")
    with pytest.raises(UserError, match="No data named"):
        open_data("")
    with pytest.raises(UserError, match="not a path"):
        open_data("~nobody-of-this-name/data")
    with pytest.raises(UserError, match="cannot be opened"):
        open_data(tmp_path / ("x" * 300))


@pytest.mark.parametrize(
    ("name", "words"), [("photo.jpg", "Name the folder"), ("set.tar.gz", "Unpack it"), ("notes", "Known layouts")]
)
def test_a_file_instead_of_a_folder(tmp_path, name, words):
    put(tmp_path, name)
    with pytest.raises(UserError, match=r"(?s)a file, where a folder of images is expected.*" + words):
        open_data(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.tar", "no readable tar file"),
        ("a.parquet", "no readable parquet file"),
        ("data_batch_1.bin", "expected a multiple of 3,073 bytes"),
        ("train-images-idx3-ubyte", "its labels are missing"),
        ("set.tgz", "compressed as a whole"),
        ("packing.json", "pack"),
    ],
)
def test_a_folder_is_told_by_its_files(tmp_path, name, words):
    put(tmp_path, name)
    with pytest.raises((DataError, UserError), match=words):
        open_data(tmp_path)
    class_folders(tmp_path / "tiny", split="train/")
    put(tmp_path / "tiny", "wnids.txt", data="ape\nbee\ncat\n")
    put(tmp_path / "tiny", "a.tar", "a.parquet")  # beside a set that is told by something more particular
    assert open_data(tmp_path / "tiny").layout == "Tiny ImageNet" and len(open_photos(tmp_path / "tiny")) == 12


def test_an_empty_folder_says_what_each_layout_looks_like(tmp_path):
    with pytest.raises(
        DataError, match=r"(?s)Seen: 0 folders with 0 folders in them, and 0 files.*class folder.*ILSVRC.*Tiny.*list.*builtin"
    ):
        open_data(tmp_path)


def test_an_unknown_folder_says_what_was_seen(tmp_path):
    put(tmp_path, "docs/a.txt", "docs/b.txt", "docs/deep/c.md", "data.sqlite")
    with pytest.raises(
        DataError, match=r"Seen: 1 folders \('docs'\) with 1 folders in them, and 3 files \(2 \.txt, 1 \.sqlite\)"
    ):
        open_data(tmp_path)


def test_a_set_one_level_too_deep_is_named(tmp_path):
    class_folders(tmp_path / "outer/flowers", split="train/")
    with pytest.raises(DataError, match=r"Did you mean '.*outer/flowers'"):
        open_data(tmp_path / "outer")


def test_val_without_train(tmp_path):
    class_folders(tmp_path, split="val/")
    with pytest.raises(DataError, match="there is 'val', but no train folder"):
        open_data(tmp_path)
    assert len(open_split(tmp_path)) == 12


# ---------------------------------------------------------------- Tiny ImageNet

TINY = ("n01", "n02", "n03")


@pytest.fixture
def tiny_set(tmp_path):
    for wnid in TINY:
        put(tmp_path, *(f"train/{wnid}/images/{wnid}_{n}.JPEG" for n in (0, 1, 10, 2)))
        put(
            tmp_path, f"train/{wnid}/{wnid}_boxes.txt", data="".join(f"{wnid}_{n}.JPEG\t0\t{n}\t63\t{n}\n" for n in (0, 1, 2, 10))
        )
    put(tmp_path, *(f"val/images/val_{n}.JPEG" for n in range(6)), "test/images/test_0.JPEG")
    put(
        tmp_path,
        "val/val_annotations.txt",
        data="".join(f"val_{n}.JPEG\t{TINY[n % 3]}\t1\t2\t{n + 3}\t9\n" for n in (5, 1, 3, 0, 4, 2)),
    )
    put(tmp_path, "wnids.txt", data="n02\nn03\nn01\n")
    put(tmp_path, "words.txt", data="n00\tthing\nn01\tcrane, bird\nn02\tcrane\nn03\tmaillot, tank suit\n")
    return tmp_path


def test_tiny_imagenet_as_shipped(tiny_set):
    splits = open_data(tiny_set)
    assert splits.layout == "Tiny ImageNet" and splits.notes == ()
    assert (
        splits.train.classes.ids == TINY
        and splits.train.classes.title(0) == "crane (n01)"
        and splits.train.classes.title(2) == "maillot"
    )
    assert labels_of(splits.val) == {f"val/images/val_{n}.JPEG": TINY[n % 3] for n in range(6)}
    assert list(splits.train.keys)[:4] == [f"train/n01/images/n01_{n}.JPEG" for n in (0, 1, 10, 2)]
    # The files number pixels and include the last one; boxes are edges.
    assert splits.train.boxes.of(2).tolist() == [[0, 10, 64, 11]] and splits.val.boxes.of(5).tolist() == [[1, 2, 9, 10]]
    assert splits.test.labels.tolist() == [-1]


def test_d19_the_order_of_wnids_does_not_matter(tiny_set):
    before = open_data(tiny_set)
    put(tiny_set, "wnids.txt", data="n03\r\nn01\r\nn02\r\n")
    after = open_data(tiny_set)
    assert after.train.classes == before.train.classes and after.val.fingerprint == before.val.fingerprint


@pytest.mark.parametrize("change", ["image lost", "image extra", "row lost", "row extra"])
def test_d20_val_is_joined_by_name_and_counts_must_agree(tiny_set, change):
    rows = (tiny_set / "val/val_annotations.txt").read_text()
    if change == "image lost":
        (tiny_set / "val/images/val_3.JPEG").unlink()
    elif change == "image extra":
        put(tiny_set, "val/images/val_9.JPEG")
    elif change == "row lost":
        put(tiny_set, "val/val_annotations.txt", data="".join(row for row in rows.splitlines(True) if "val_3" not in row))
    else:
        put(tiny_set, "val/val_annotations.txt", data=rows + "val_9.JPEG\tn01\t0\t0\t1\t1\n")
    with pytest.raises(DataError, match=r"expected one label for each image, found . labels .* and . images.*val_[39]\.JPEG"):
        open_data(tiny_set)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("val_9.JPEG\tn99\t0\t0\t1\t1", "row 7: unknown class"),
        ("val_0.JPEG\tn02\t0\t0\t1\t1", "row 7: 'val_0.JPEG' is n02"),
        ("val_0.JPEG", "row 7: expected at least 2"),
    ],
)
def test_tiny_rows_that_are_wrong_are_named(tiny_set, row, words):
    rows = (tiny_set / "val/val_annotations.txt").read_text()
    put(tiny_set, "val/val_annotations.txt", data=rows + row + "\n")
    with pytest.raises(DataError, match=words):
        open_data(tiny_set)


def test_tiny_faults_of_training_folders(tiny_set):
    put(tiny_set, "wnids.txt", data="n01\nn02\nn03\nn04\n")
    with pytest.raises(DataError, match=r"Only in wnids.txt: 'n04'"):
        open_data(tiny_set)
    os.makedirs(tiny_set / "train/n04/images")
    with pytest.raises(DataError, match=r"1 class folders have no images: 'n04'"):
        open_data(tiny_set)


def test_d20_tiny_val_images_in_a_subfolder_have_no_label(tiny_set):
    put(tiny_set, "val/images/sub/val_0.JPEG")
    with pytest.raises(DataError, match="expected one label for each image"):
        open_data(tiny_set)


def test_d17_tiny_without_annotations(tiny_set):
    (tiny_set / "val/val_annotations.txt").unlink()
    with pytest.raises(DataError, match="flat folder of images without labels"):
        open_data(tiny_set)


def test_tiny_boxes_that_fit_nothing_are_counted(tiny_set):
    put(tiny_set, "train/n01/n01_boxes.txt", data="n01_0.JPEG\t9\t9\t3\t3\nn01_77.JPEG\t0\t0\t1\t1\n")
    notes = said(open_data(tiny_set).notes)
    assert "1 rows of box files name images that are not there" in notes and "1 boxes without area" in notes


def test_a_part_of_a_set_is_read_with_the_labels_beside_it(tiny_set):
    whole = open_split(tiny_set)
    part = open_split(tiny_set / "val")
    assert part.fingerprint == whole.fingerprint and part.split == "val"
    assert open_split(tiny_set, "test").labels.tolist() == [-1] and len(open_split(tiny_set, "train")) == 12


# ---------------------------------------------------------------- ILSVRC

WNIDS = ("n01440764", "n02012849", "n03126707")


@pytest.fixture
def ilsvrc_set(tmp_path):
    images = "ILSVRC/Data/CLS-LOC"
    for k, wnid in enumerate(WNIDS):
        put(tmp_path, *(f"{images}/train/{wnid}/{wnid}_{n}.JPEG" for n in range(k + 2)))
    put(tmp_path, *(f"{images}/val/ILSVRC2012_val_0000000{n}.JPEG" for n in range(1, 7)), f"{images}/test/ILSVRC2012_test_1.JPEG")
    put(tmp_path, "LOC_synset_mapping.txt", data="n01440764 tench, Tinca tinca\nn02012849 crane\nn03126707 crane\n")
    put(
        tmp_path,
        "LOC_train_solution.csv",
        data="ImageId,PredictionString\nn02012849_1,n02012849 1 2 3 4 n02012849 5 6 7 8 \nn01440764_0,n01440764 9 9 10 10 \n",
    )
    put(tmp_path, "LOC_val_solution.csv", data="ImageId,PredictionString\n" + "".join(val_row(n) for n in (4, 1, 6, 2, 3, 5)))
    put(tmp_path, "ILSVRC/ImageSets/CLS-LOC/train_cls.txt", data="".join(f"x {n}\n" for n in range(9)))
    return tmp_path


def val_row(n):
    return f"ILSVRC2012_val_0000000{n},{WNIDS[n % 3]} {n} 0 20 20 \n"


VAL_LABELS = {f"val/ILSVRC2012_val_0000000{n}.JPEG": WNIDS[n % 3] for n in range(1, 7)}


@pytest.mark.parametrize("where", ["", "ILSVRC", "ILSVRC/Data/CLS-LOC"])
def test_ilsvrc_as_kaggle_ships_it(ilsvrc_set, where):
    splits = open_data(ilsvrc_set / where)
    assert splits.layout == "ILSVRC (Kaggle)" and splits.notes == ()
    assert splits.train.classes.ids == WNIDS
    assert [splits.train.classes.title(k) for k in range(3)] == ["tench", "crane (n02012849)", "crane (n03126707)"]
    assert (
        splits.train.counts().tolist() == [2, 3, 4]
        and labels_of(splits.val) == VAL_LABELS
        and splits.test.labels.tolist() == [-1]
    )
    rows = {key: splits.train.boxes.of(i).tolist() for i, key in enumerate(splits.train.keys) if len(splits.train.boxes.of(i))}
    assert rows == {
        "train/n01440764/n01440764_0.JPEG": [[9, 9, 10, 10]],
        "train/n02012849/n02012849_1.JPEG": [[1, 2, 3, 4], [5, 6, 7, 8]],
    }
    assert splits.val.boxes.of(2).tolist() == [[3, 0, 20, 20]]


def test_d18_numbers_of_the_development_kit_are_not_used(ilsvrc_set):
    before = open_data(ilsvrc_set)
    put(
        ilsvrc_set,
        "ILSVRC/ImageSets/CLS-LOC/val.txt",
        data="".join(f"ILSVRC2012_val_0000000{n} {490 + n}\n" for n in range(1, 7)),
    )
    put(ilsvrc_set, "LOC_synset_mapping.txt", data="n03126707 crane\nn01440764 tench, Tinca tinca\nn02012849 crane\n")
    after = open_data(ilsvrc_set)
    assert after.val.fingerprint == before.val.fingerprint and after.train.classes == before.train.classes


def test_d18_another_thousand_classes_are_noticed(tmp_path):
    for n in range(1000):
        os.makedirs(tmp_path / f"ILSVRC/Data/CLS-LOC/train/n{n:08}")
    notes = []
    ilsvrc._classes(ilsvrc.find(tmp_path), walk.Tally(), notes)
    assert "not the 1,000 of ILSVRC 2012" in said(notes)


def test_d21_mark_crlf_blanks_and_repeated_rows(ilsvrc_set):
    rows = (
        "ImageId,PredictionString\n"
        + "".join(val_row(n) for n in (4, 1, 6, 2, 3, 5))
        + "\n"
        + val_row(4).replace("20 20", "20 30 ")
    )
    put(ilsvrc_set, "LOC_val_solution.csv", data=b"\xef\xbb\xbf" + rows.replace("\n", "\r\n").encode())
    splits = open_data(ilsvrc_set)
    assert labels_of(splits.val) == VAL_LABELS and len(splits.val.boxes.xyxy) == 6
    assert "val: 1 repeated rows (the first counts) in LOC_val_solution.csv" in said(splits.notes)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("ILSVRC2012_val_00000001,n01440764 1 2 3 4 n02012849 1 2 3 4", r"row 2: boxes of one image must be of one class"),
        ("ILSVRC2012_val_00000001,n01440764 1 2 3", r"row 2: expected an ImageId and groups"),
        ("ILSVRC2012_val_00000001,", r"row 2: expected an ImageId and groups"),
        ("ILSVRC2012_val_00000001,n01440764 1 2 3 x", r"row 2: a box must be four numbers"),
        ("ILSVRC2012_val_00000001,n01440764 1 2 3 4,more", r"row 2: expected an ImageId and groups"),
    ],
)
def test_d21_rows_that_are_wrong_are_named(ilsvrc_set, row, words):
    put(ilsvrc_set, "LOC_val_solution.csv", data=f"ImageId,PredictionString\n{row}\n")
    with pytest.raises(DataError, match=r"LOC_val_solution\.csv, " + words):
        open_data(ilsvrc_set)


def test_d21_train_rows_only_bring_boxes(ilsvrc_set):
    put(
        ilsvrc_set,
        "LOC_train_solution.csv",
        data="ImageId,PredictionString\nn01440764_0,n01440764 9 9 3 3\nn01440764_77,n01440764 1 1 2 2\n"
        "n99999999_1,n99999999 1 1 2 2\n",
    )
    splits = open_data(ilsvrc_set)
    assert len(splits.train) == 9 and len(splits.train.boxes.xyxy) == 0
    assert "2 rows of LOC_train_solution.csv name images that are not there" in said(splits.notes) and "1 boxes" in said(
        splits.notes
    )


def test_d20_two_images_of_one_id_are_refused(ilsvrc_set):
    put(ilsvrc_set, "ILSVRC/Data/CLS-LOC/val/ILSVRC2012_val_00000002.png")
    with pytest.raises(DataError, match=r"occur more than once: 'ILSVRC2012_val_00000002'"):
        open_data(ilsvrc_set)


@pytest.mark.parametrize("change", ["image lost", "row lost"])
def test_d20_flat_val_is_joined_by_name(ilsvrc_set, change):
    if change == "image lost":
        (ilsvrc_set / "ILSVRC/Data/CLS-LOC/val/ILSVRC2012_val_00000002.JPEG").unlink()
    else:
        put(ilsvrc_set, "LOC_val_solution.csv", data="ImageId,PredictionString\n" + "".join(val_row(n) for n in (4, 1, 6, 3, 5)))
    with pytest.raises(DataError, match=r"expected one label for each image.*ILSVRC2012_val_00000002"):
        open_data(ilsvrc_set)


def voc(wnid, *boxes):
    corners = ("xmin", "ymin", "xmax", "ymax")
    inner = [f"<bndbox>{''.join(f'<{c}>{v}</{c}>' for c, v in zip(corners, box, strict=True))}</bndbox>" for box in boxes]
    objects = [f"<object><name>{wnid}</name>{box}</object>" for box in inner]
    return f"<annotation><size><width>500</width></size>{''.join(objects)}</annotation>"


def test_xml_is_read_where_the_tables_are_missing(ilsvrc_set):
    (ilsvrc_set / "LOC_train_solution.csv").unlink()
    (ilsvrc_set / "LOC_val_solution.csv").unlink()
    about = "ILSVRC/Annotations/CLS-LOC"
    put(ilsvrc_set, f"{about}/train/n03126707/n03126707_2.xml", data=voc("n03126707", (1, 2, 3, 4), (5, 6, 7, 8)))
    put(ilsvrc_set, f"{about}/train/n03126707/n03126707_1.xml", data="<annotation>")
    put(ilsvrc_set, f"{about}/train/n03126707/n03126707_0.xml", data='<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>')
    for n in range(1, 7):
        put(ilsvrc_set, f"{about}/val/ILSVRC2012_val_0000000{n}.xml", data=voc(WNIDS[n % 3], (n, 0, 20, 20)))
    splits = open_data(ilsvrc_set)
    assert labels_of(splits.val) == VAL_LABELS and splits.val.boxes.of(2).tolist() == [[3, 0, 20, 20]]
    row = list(splits.train.keys).index("train/n03126707/n03126707_2.JPEG")
    assert splits.train.boxes.of(row).tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]] and len(splits.train.boxes.xyxy) == 2
    assert "2 unreadable XML files" in said(splits.notes) and "read from the XML files" in said(splits.notes)


def test_d17_flat_ilsvrc_val_without_labels(ilsvrc_set):
    (ilsvrc_set / "LOC_val_solution.csv").unlink()
    with pytest.raises(DataError, match=r"flat folder of images without labels.*LOC_val_solution\.csv beside ILSVRC"):
        open_data(ilsvrc_set)


def test_d17_ilsvrc_unpacked_by_hand_without_labels(tmp_path):
    put(tmp_path, *(f"train/{wnid}/{wnid}_1.JPEG" for wnid in WNIDS), "val/ILSVRC2012_val_00000001.JPEG")
    with pytest.raises(DataError, match="flat folder of images without labels"):
        open_data(tmp_path)


def test_ilsvrc_val_sorted_into_folders(ilsvrc_set):
    val = ilsvrc_set / "ILSVRC/Data/CLS-LOC/val"
    for n in range(1, 7):
        (val / WNIDS[n % 3]).mkdir(exist_ok=True)
        name = f"ILSVRC2012_val_0000000{n}.JPEG"
        (val / name).rename(val / WNIDS[n % 3] / name)
    index = open_data(ilsvrc_set).val
    assert labels_of(index) == {f"val/{WNIDS[n % 3]}/ILSVRC2012_val_0000000{n}.JPEG": WNIDS[n % 3] for n in range(1, 7)}
    assert len(index.boxes.xyxy) == 6


def test_ilsvrc_lists_and_folders_that_differ_are_noted(ilsvrc_set):
    put(ilsvrc_set, "ILSVRC/ImageSets/CLS-LOC/train_cls.txt", data="x 1\ny 2\n")
    assert "train_cls.txt lists 2 images, the folders hold 9" in said(open_data(ilsvrc_set).notes)


def test_a_part_of_ilsvrc_needs_no_training_images(ilsvrc_set, monkeypatch):
    looked = []
    real = walk.below
    monkeypatch.setattr("striate.data.layouts.folder.below", lambda folder, *rest: looked.append(folder) or real(folder, *rest))
    assert labels_of(open_split(ilsvrc_set / "ILSVRC/Data/CLS-LOC/val")) == VAL_LABELS and not looked


# ---------------------------------------------------------------- lists

GOOD = ["a/1.jpg,ape", "a/2.jpg,ape", "a/3.jpg,bee", "a/4.jpg,bee"]


def listed(tmp_path, rows, header="path,label", name="list.csv"):
    put(tmp_path, *(f"a/{n}.jpg" for n in range(1, 9)))
    put(tmp_path, name, data="\n".join([header, *rows]) + "\n")
    return tmp_path / name


def test_csv_list_with_boxes_and_splits(tmp_path):
    rows = [
        "a/2.jpg,bee,train,1,2,3,4",
        "a/1.jpg,ape,train,,,,",
        "a/2.jpg,bee,train,5,6,7.5,8",
        "a/3.jpg,ape,val,,,,",
        "./a/4.jpg,bee,VALID,0,0,9,9",
        "a/5.jpg,,test,,,,",
    ]
    splits = open_data(listed(tmp_path, rows, "path,label,split,x_min,y_min,x_max,y_max"))
    assert splits.layout == "CSV list" and splits.train.classes.ids == ("ape", "bee")
    assert labels_of(splits.train) == {"a/2.jpg": "bee", "a/1.jpg": "ape"} and labels_of(splits.val) == {
        "a/3.jpg": "ape",
        "a/4.jpg": "bee",
    }
    assert splits.train.boxes.of(0).tolist() == [[1, 2, 3, 4], [5, 6, 7.5, 8]] and splits.train.boxes.of(1).shape == (0, 4)
    assert splits.val.boxes.of(1).tolist() == [[0, 0, 9, 9]] and labels_of(splits.test) == {"a/5.jpg": None}


def test_jsonl_list(tmp_path):
    put(tmp_path, *(f"a/{n}.jpg" for n in range(1, 5)))
    rows = [
        {"path": f"a/{n}.jpg", "label": 12 - n % 2, "x_min": 0, "y_min": 0, "x_max": n, "y_max": 1.5, "who": "me"}
        for n in range(1, 5)
    ]
    rows += [{"path": f"a/{n}.jpg", "label": n} for n in range(11)]
    put(tmp_path, *(f"a/{n}.jpg" for n in range(11)))
    put(tmp_path, "list.jsonl", data="\n".join(json.dumps(row) for row in rows[4:]) + "\n\n")
    index = open_split(tmp_path / "list.jsonl")
    assert index.layout == "JSONL list" and index.classes.ids == tuple(map(str, range(11)))
    put(tmp_path, "boxes.jsonl", data="\n".join(json.dumps(row) for row in rows[:4]))
    part = open_split(tmp_path / "boxes.jsonl")
    assert part.classes.ids == ("11", "12") and part.boxes.of(2).tolist() == [[0, 0, 3, 1.5]]


def test_d15_integer_labels_of_lists_sort_as_integers(tmp_path):
    put(tmp_path, *(f"{n}.jpg" for n in range(24)))
    put(tmp_path, "list.csv", data="path,label\n" + "".join(f"{n}.jpg,{n % 12}\n" for n in range(24)))
    splits = open_data(tmp_path / "list.csv")
    assert splits.train.classes.ids == tuple(map(str, range(12))) and len(splits.val) == 12


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ("0 1 -1 1", r"row 4: label '-1' is no class number"),
        ("0 1 1.0 1", r"row 4: label '1\.0' is no class number"),
        ("0 1 nan 1", r"row 4: label 'nan' is no class number"),
        pytest.param(f"0 1 {'9' * 5000} 1", r"row 4: label '9+' is no class number", id="5,000 digits"),
        ("0 1  1", r"row 4: the label is missing"),
        ("0 1 cat 1", r"row 4: label 'cat' is a word where the other labels are numbers"),
        ("ape bee 7 ape", r"row 4: label '7' is a number where the other labels are words"),
        ("0 1 1000 1", r"row 4: label '1000' is out of range.*no image has 2"),
        ("1 2 4 2", r"row 4: label '4' is out of range.*no image has 3"),
        ("3 4 5 4", r"row 2: label '3' is out of range.*no image has 0"),
    ],
)
def test_d29_labels_that_are_wrong_are_named_with_their_row(tmp_path, labels, words):
    path = listed(tmp_path, [f"a/{n}.jpg,{label}" for n, label in enumerate(labels.split(" "), start=1)])
    with pytest.raises(DataError, match=r"list\.csv, " + words) as caught:
        open_data(path)
    assert caught.value.exit_code == 3


def test_d29_before_anything_else(tmp_path):
    path = listed(tmp_path, ["lost.jpg,0", "a/1.jpg,1", "a/2.jpg,-5"])
    with pytest.raises(DataError, match=r"row 4: label '-5'"):
        open_data(path)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("../a.jpg,ape", "leads out of"),
        ("a/../../b.jpg,ape", "leads out of"),
        ("/etc/passwd,ape", "leads out of"),
        ("a/\0.jpg,ape", "NUL"),
        (",ape", "the path is missing"),
        ("a/5.jpg", "expected 2 values as in the header, found 1"),
        ("a/5.jpg,ape,3", "expected 2 values as in the header, found 3"),
        ("a/1.jpg,bee", r"has label 'bee' and split train here, but 'ape' and train in row 2"),
        ("lost.jpg,ape", r"row 6 'lost\.jpg' \(No such file"),
        ("a,ape", r"row 6 'a' \(no file\)"),
    ],
)
def test_rows_that_are_wrong_are_named(tmp_path, row, words):
    with pytest.raises(DataError, match=r"(?s)row 6.*" + words if "row 6" not in words else words):
        open_data(listed(tmp_path, [*GOOD, row]))


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("a/1.jpg,ape,train,1,2,3,", "row 2: a box needs four numbers"),
        ("a/1.jpg,ape,train,1,2,x,4", "row 2: a box needs four numbers"),
        ("a/1.jpg,ape,train,3,2,1,4", "row 2: the box .* is inside out.*swap x_min and x_max"),
        ("a/1.jpg,ape,train,1,4,3,2", "row 2: the box .* is inside out"),
        ("a/1.jpg,ape,train,1,2,1,4", "row 2: the box .* has no area.*x_max = x_min"),
        ("a/1.jpg,ape,train,3,2,1,2", "row 2: the box .* is inside out"),
        ("a/1.jpg,ape,train,0,0,inf,4", "row 2: the box .* is not four finite numbers.*leave the four empty"),
        ("a/1.jpg,ape,train,nan,0,3,4", "row 2: the box .* is not four finite numbers"),
        ("a/1.jpg,ape,dev,,,,", "row 2: unknown split 'dev'"),
    ],
)
def test_boxes_and_splits_that_are_wrong_are_named(tmp_path, row, words):
    with pytest.raises(DataError, match=words):
        open_data(listed(tmp_path, [row], "path,label,split,x_min,y_min,x_max,y_max"))


def test_lists_without_header_or_rows(tmp_path):
    with pytest.raises(DataError, match="Is the header missing"):
        open_data(listed(tmp_path, GOOD[1:], GOOD[0]))
    with pytest.raises(DataError, match=r"Did you mean 'labels'"):
        open_data(listed(tmp_path, GOOD, "path,labels"))
    with pytest.raises(DataError, match="the list has no rows"):
        open_data(listed(tmp_path, []))
    with pytest.raises(DataError, match="only one class, 'ape'"):
        open_data(listed(tmp_path, GOOD[:2]))
    put(tmp_path, "list.jsonl", data='{"path": "a/1.jpg", "label": "ape"}\n{"path": \n')
    with pytest.raises(DataError, match="row 2: not valid JSON"):
        open_data(tmp_path / "list.jsonl")
    put(tmp_path, "list.jsonl", data='{"path": "a/1.jpg", "label": true}\n')
    with pytest.raises(DataError, match="row 1: the label must be text or an integer, found true"):
        open_data(tmp_path / "list.jsonl")


def test_d16_a_list_whose_val_differs(tmp_path):
    rows = [row + ",train" for row in GOOD]
    with pytest.raises(DataError, match=r"row 6: label 'cat' does not occur in split train"):
        open_data(listed(tmp_path, [*rows, "a/5.jpg,cat,val"], "path,label,split"))
    with pytest.raises(DataError, match=r"rows of split val: its classes are not those.*Without images here, 1: 'bee'"):
        open_data(listed(tmp_path, [*rows, "a/5.jpg,ape,val"], "path,label,split"))


def test_d26_a_list_of_odd_names(tmp_path):
    put(tmp_path, b"a/two\nlines.jpg", b"a/\xff.jpg")
    rows = [*GOOD, '"a/two\nlines.jpg",ape']
    path = listed(tmp_path, rows)
    path.write_bytes(
        b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n").replace(b"two\r\n", b"two\n") + b"a/\xff.jpg,bee\r\n"
    )
    assert {"a/two\nlines.jpg", "a/\udcff.jpg"} < set(open_split(path).keys)


# ---------------------------------------------------------------- one split, and what it costs


def damaged(text: str, dice: random.Random) -> bytes:
    """A list with one to three mistakes in its cells, its rows or its bytes."""
    rows = [row.split(",") for row in text.splitlines()]
    for _ in range(dice.randint(1, 3)):
        row = dice.choice(rows)
        match dice.randrange(5):
            case 0 | 1:
                odd = [
                    "",
                    "-1",
                    "7",
                    "ape",
                    "nan",
                    "a/9.jpg",
                    "../a/1.jpg",
                    "/etc/hostname",
                    "\0",
                    "val",
                    "é",
                    '"',
                    "x" * 5000,
                    " bee ",
                ]
                row[dice.randrange(len(row))] = dice.choice(odd)
            case 2:
                row.append(dice.choice(["", "more"]))
            case 3:
                rows.remove(row) if len(rows) > 1 else None
            case 4:
                rows.insert(dice.randrange(len(rows) + 1), list(row))
    data = bytearray("\n".join(map(",".join, rows)).encode())
    if dice.random() < 0.3 and data:
        place = dice.randrange(len(data))
        if dice.random() < 0.5:
            data[place] ^= 1 << dice.randrange(8)
        else:
            del data[place : place + dice.randrange(1, 30)]
    return bytes(data)


def test_f5_2000_damaged_lists_are_refused_or_come_back_equal(tmp_path):
    dice = random.Random(0)
    rows = [f"a/{n}.jpg,{('ape', 'bee')[n % 2]},{'val' if n > 6 else 'train'}" for n in range(1, 9)]
    listed(tmp_path, rows)
    texts = ["\n".join(["path,label,split", *rows]), "\n".join(["path,label", *(row.rpartition(",")[0] for row in rows)])]
    accepted = 0
    for number in range(2000):
        (tmp_path / "list.csv").write_bytes(damaged(texts[number % 2], dice))
        try:
            found = open_data(tmp_path / "list.csv")
        except StriateError as error:
            assert error.exit_code in {2, 3} and "list.csv" in str(error), (tmp_path / "list.csv").read_bytes()
            continue
        labels = {key: label for part in (found.train, found.val) if part is not None for key, label in labels_of(part).items()}
        assert all((tmp_path / key).resolve().is_relative_to(tmp_path) for key in labels)
        with open(tmp_path / "again.csv", "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            csv.writer(file).writerows([("path", "label"), *labels.items()])
        again = open_data(tmp_path / "again.csv")
        parts = [part for part in (again.train, again.val) if part is not None]
        assert {key: label for part in parts for key, label in labels_of(part).items()} == labels
        accepted += 1
    assert 100 < accepted < 1500  # both ways are walked


def test_one_split_of_class_folders(tmp_path):
    class_folders(tmp_path / "plain", count=10)
    assert len(open_split(tmp_path / "plain")) == 30
    assert open_split(tmp_path / "plain", "val").fingerprint == open_data(tmp_path / "plain").val.fingerprint
    assert open_split(tmp_path / "plain", "train").fingerprint == open_data(tmp_path / "plain").train.fingerprint
    with pytest.raises(DataError, match="no images of the split 'test'"):
        open_split(tmp_path / "plain", "test")
    class_folders(tmp_path / "one", ("ape",))
    assert open_split(tmp_path / "one").classes.ids == ("ape",)


def test_a_split_by_hash_needs_no_order_of_rows(tmp_path):
    class_folders(tmp_path, count=10)
    index = open_split(tmp_path)
    shuffled = index.select(np.random.default_rng(0).permutation(len(index)))
    assert set(by_hash(index, 0.3, 5)[1].keys) == set(by_hash(shuffled, 0.3, 5)[1].keys)


def test_the_word_builtin_and_a_folder_of_that_name(tmp_path, monkeypatch):
    class_folders(tmp_path / "made", split="train/")
    class_folders(tmp_path / "made", split="val/")
    class_folders(tmp_path / "builtin", ("here", "there"))
    monkeypatch.setattr("striate.data.synthetic.builtin_folder", lambda: tmp_path / "made")
    monkeypatch.chdir(tmp_path)
    splits = open_data("builtin")
    assert splits.layout == splits.train.layout == "builtin (class folder)" and len(splits.val) == 12
    assert open_split("builtin").fingerprint == splits.val.fingerprint
    assert open_data("./builtin").train.classes.ids == ("here", "there")
    assert open_data("./builtin").train.root.is_absolute()


@pytest.mark.parametrize("layout", ["folder", "ilsvrc", "tiny"])
def test_the_generated_set_in_each_layout_is_the_same_set(tmp_path, layout):
    synthetic.make(tmp_path / "set", layout=layout, classes=2, per_class=4, val_per_class=2, seed=1)
    splits = open_data(tmp_path / "set")
    assert splits.layout == {"folder": "class folder", "ilsvrc": "ILSVRC (Kaggle)", "tiny": "Tiny ImageNet"}[layout]
    assert (splits.train.counts().tolist(), splits.val.counts().tolist()) == ([4, 4], [2, 2])
    assert (
        splits.val.boxes is not None and len(splits.val.boxes.xyxy) == 4 and not any("left out" in note for note in splits.notes)
    )


def test_photos_are_any_images_below_a_folder(tmp_path):
    put(tmp_path, "a.jpg", "x/b.PNG", "x/y/c.gif", "notes.txt")
    index = open_photos(tmp_path)
    assert list(index.keys) == ["a.jpg", "x/b.PNG", "x/y/c.gif"] and index.labels.tolist() == [-1] * 3
    assert "(.txt 1)" in said(index.notes)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DataError, match="no image in it"):
        open_photos(tmp_path / "nothing")


def test_indexing_needs_neither_torch_nor_pyarrow(tmp_path):
    class_folders(tmp_path)
    code = (
        "import sys; from striate.data.layouts.detect import open_data; open_data(sys.argv[1]).train.fingerprint;"
        "sys.exit(' '.join(sys.modules.keys() & {'torch', 'pyarrow'}) or 0)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)


def test_a_message_stays_one_line(tmp_path):
    assert walk.shown("a\nb\udcff\x1b[31m") == r"'a\nb\xff\x1b[31m'"


# ---------------------------------------------------------------- the real thing


def test_the_real_tiny_imagenet(real_data):
    splits = open_data(real_data / "tiny-imagenet-200")
    assert splits.layout == "Tiny ImageNet" and splits.notes == ()
    assert (len(splits.train), len(splits.val), len(splits.test), len(splits.train.classes)) == (100_000, 5_000, 200, 200)
    assert set(splits.train.counts().tolist()) == {500} and set(splits.val.counts().tolist()) == {25}
    assert len(splits.train.boxes.xyxy) == 100_000 and splits.train.boxes.xyxy.min() == 0 and splits.train.boxes.xyxy.max() == 64
    assert splits.train.classes.title(splits.train.classes.index["n02085620"]) == "Chihuahua"
    assert labels_of(splits.val)["val/images/val_0.JPEG"] == "n03444034"


def test_the_real_originals_are_photos_without_labels(real_data):
    assert len(open_photos(real_data / "imagenet-samples")) == 200
    with pytest.raises(DataError, match="flat folder"):
        open_data(real_data / "imagenet-samples")

"""MNIST's files, compared with torchvision's reader; and files that must not get past ours."""

import gzip
import os
import pickle
import random
import struct

import numpy as np
import pytest
from torchvision.datasets import MNIST

from striate import cli
from striate.data.decode import BadImage
from striate.data.layouts import idx
from striate.data.layouts.detect import open_data, open_photos, open_split
from striate.errors import DataError


def planes(count, seed):
    return np.random.default_rng(seed).integers(0, 256, (count, 28, 28)).astype(np.uint8)


def put(folder, stem, pixels_NHW, labels_N, end=""):
    folder.mkdir(parents=True, exist_ok=True)
    opened = gzip.open if end == ".gz" else open
    with opened(folder / f"{stem}-images-idx3-ubyte{end}", "wb") as file:
        file.write(struct.pack(">4I", 0x803, *pixels_NHW.shape) + pixels_NHW.tobytes())
    with opened(folder / f"{stem}-labels-idx1-ubyte{end}", "wb") as file:
        file.write(struct.pack(">2I", 0x801, len(labels_N)) + bytes(labels_N))


def mnist(folder, end=""):
    put(folder, "train", planes(20, 0), [n % 10 for n in range(20)], end)
    put(folder, "t10k", planes(10, 1), range(10), end)
    return folder


@pytest.mark.parametrize("end", ["", ".gz"])
def test_mnist_is_read_as_torchvision_does(tmp_path, end):
    mnist(tmp_path / "MNIST/raw", end)
    if end:
        mnist(tmp_path / "plain/MNIST/raw")
    splits = open_data(tmp_path)
    assert splits.layout == "MNIST (idx)" and splits.train.classes.ids == tuple("0123456789")
    assert any("test images serve as the validation split" in note for note in splits.notes) and splits.test is None
    for index, is_train in ((splits.train, True), (splits.val, False)):
        theirs = MNIST(tmp_path / ("plain" if end else ""), train=is_train)
        assert index.labels.tolist() == theirs.targets.tolist() and len(index) == len(theirs)
        for row in range(len(theirs)):
            np.testing.assert_array_equal(index.content(row), np.asarray(theirs[row][0].convert("RGB")))
    assert splits.train.keys[7] == "train-images/7" and "train-images-idx3-ubyte" in splits.train.where(7)
    store = pickle.loads(pickle.dumps(splits.train.store))
    np.testing.assert_array_equal(store.read(19), splits.train.content(19))


def test_packed_or_not_is_the_same_set(tmp_path):
    plain, zipped = mnist(tmp_path / "a"), mnist(tmp_path / "b", ".gz")
    for name in os.listdir(plain):
        dotted = plain / name.replace("-idx", ".idx")  # as some mirrors have it
        (plain / name).rename(dotted)
    assert open_data(plain).train.fingerprint == open_data(zipped).train.fingerprint
    assert open_split(plain).fingerprint == open_split(zipped).fingerprint
    photos = open_photos(zipped)
    assert len(photos) == 30 and photos.labels.tolist() == [-1] * 30


def test_without_test_images_a_part_is_held_out(tmp_path):
    put(tmp_path, "train", planes(40, 0), [n % 2 for n in range(40)])
    assert len(open_data(tmp_path).val) == 4


def spoil(path, change):
    end = path.name.endswith(".gz")
    data = bytearray(gzip.decompress(path.read_bytes()) if end else path.read_bytes())
    data = change(data)
    path.write_bytes(gzip.compress(data) if end else data)


def _with(position, value):
    def change(data):
        data[position : position + 4] = struct.pack(">I", value)
        return data

    return change


@pytest.mark.parametrize("end", ["", ".gz"])
@pytest.mark.parametrize(
    ("kind", "change", "words"),
    [
        ("images-idx3", _with(0, 0x801), "expected an idx file of images, which begins with the bytes 00 00 08 03"),
        ("images-idx3", _with(0, 0xD03), "found 00 00 0d 03"),
        ("images-idx3", _with(4, 19), "14,912 bytes"),
        ("images-idx3", _with(4, 21), "expected 16,480 bytes"),
        ("images-idx3", _with(4, 0), "no set of images"),
        ("images-idx3", _with(4, 0xFFFFFFFF), r"3,367\.3 GB|expected 3,367,254,359,296 bytes"),
        ("images-idx3", lambda data: (_with(8, 0xFFFFFFFF)(data), _with(12, 0xFFFFFFFF)(data))[1], "no set of images"),
        ("images-idx3", lambda data: data[:-1], "expected 15,696 bytes"),
        ("images-idx3", lambda data: data + b"x", "15,696 bytes"),
        ("images-idx3", lambda data: data[:10], "expected an idx file of images"),
        ("images-idx3", lambda data: b"", "found nothing"),
        ("labels-idx1", _with(4, 19), "27 bytes"),
        ("labels-idx1", lambda data: (_with(4, 19)(data), data)[1][:-1], "20 images, but 19 labels"),
    ],
)
def test_files_that_are_wrong_are_named(tmp_path, end, kind, change, words):
    mnist(tmp_path, end)
    spoil(tmp_path / f"train-{kind}-ubyte{end}", change)
    with pytest.raises(DataError, match=words):
        open_data(tmp_path)


def test_a_file_of_wrong_length_ends_the_command_with_3(tmp_path, capsys):
    mnist(tmp_path)
    spoil(tmp_path / "train-images-idx3-ubyte", lambda data: data[:-1])
    assert cli.run(["data", "show", str(tmp_path), "--out", str(tmp_path.parent / "out.png")]) == 3
    assert "expected 15,696 bytes" in capsys.readouterr().err


def test_labels_that_are_missing(tmp_path):
    mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="t10k-images-idx3-ubyte: its labels are missing"):
        open_data(tmp_path)


def test_a_gzip_bomb_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    mnist(tmp_path, ".gz")
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(struct.pack(">4I", 0x803, 20, 28, 28) + bytes(100_000_000), 9))  # 100 kB of file
    with pytest.raises(DataError, match="holds more than the 15,696 bytes"):
        open_data(tmp_path)
    path.write_bytes(gzip.compress(struct.pack(">4I", 0x803, 2_000_000, 28, 28) + bytes(1000)))
    with pytest.raises(DataError, match=r"1\.6 GB; at most 1 GB are unpacked into memory"):
        open_data(tmp_path)


def test_gzip_that_is_cut_off_or_damaged(tmp_path):
    mnist(tmp_path, ".gz")
    path = tmp_path / "train-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    for data in (whole[:1000], whole[:-4], b"", b"x" * 50, whole[:-8] + bytes(8)):
        path.write_bytes(data)
        os.utime(path, ns=(0, random.Random(len(data)).randrange(10**18)))
        with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz"):
            open_data(tmp_path)


def test_a_file_that_changes_after_it_was_indexed_is_a_bad_image(tmp_path):
    index, zipped = open_split(mnist(tmp_path / "a")), open_split(mnist(tmp_path / "b", ".gz"))
    with open(tmp_path / "a/t10k-images-idx3-ubyte", "r+b") as file:
        file.truncate(100)
    with pytest.raises(BadImage, match="too early"):
        index.content(5)
    (tmp_path / "b/t10k-images-idx3-ubyte.gz").write_bytes(b"")
    idx._unpacked.cache_clear()
    with pytest.raises(BadImage, match="found nothing"):
        zipped.content(5)

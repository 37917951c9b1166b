"""CIFAR's binary files, by their published layout; and files that must not get past the reader."""

import pickle

import numpy as np
import pytest

from striate import cli
from striate.data.decode import BadImage
from striate.data.layouts.detect import open_data, open_photos, open_split
from striate.errors import DataError

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def images(count, seed):
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3)).astype(np.uint8)


def batch(path, pixels_NHW3, *labels_of):
    """Records: one byte of each kind of label, then 1,024 bytes of red, of green and of blue, row by row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        b"".join(
            bytes(labels) + image.transpose(2, 0, 1).tobytes() for *labels, image in zip(*labels_of, pixels_NHW3, strict=True)
        )
    )


@pytest.fixture
def cifar10(tmp_path):
    for number in range(5):
        batch(tmp_path / f"data_batch_{number + 1}.bin", images(10, number), [(n + number) % 10 for n in range(10)])
    batch(tmp_path / "test_batch.bin", images(10, 9), range(10))
    (tmp_path / "batches.meta.txt").write_text("\n".join(NAMES) + "\n\n")
    return tmp_path


def test_cifar_10(cifar10):
    splits = open_data(cifar10)
    assert splits.layout == "CIFAR-10 (binary)" and splits.train.classes.ids == tuple(NAMES)
    assert (len(splits.train), len(splits.val), splits.test) == (50, 10, None)
    assert any("test images serve as the validation split" in note for note in splits.notes)
    for row in (0, 9, 10, 37, 49):
        np.testing.assert_array_equal(splits.train.content(row), images(10, row // 10)[row % 10])
    assert splits.train.labels.tolist() == [(n + number) % 10 for number in range(5) for n in range(10)]
    assert splits.train.keys[37] == "data_batch_4.bin/7" and splits.train.where(37) == f"{cifar10}/data_batch_4.bin, image 7"
    assert splits.val.labels.tolist() == list(range(10)) and splits.val.content(3).flags.c_contiguous
    store = pickle.loads(pickle.dumps(splits.val.store))
    np.testing.assert_array_equal(store.read(9), images(10, 9)[9])
    assert len(open_split(cifar10)) == 10 and len(open_split(cifar10, "train")) == 50
    photos = open_photos(cifar10)
    assert len(photos) == 60 and photos.labels.tolist() == [-1] * 60
    np.testing.assert_array_equal(photos.content(55), images(10, 9)[5])


def test_names_decide_the_order_and_without_names_numbers_do(cifar10, tmp_path):
    (cifar10 / "batches.meta.txt").write_text("\n".join(reversed(NAMES)))
    index = open_split(cifar10)
    assert index.classes.ids == tuple(NAMES) and index.labels.tolist() == list(range(9, -1, -1))
    (cifar10 / "batches.meta.txt").unlink()
    assert open_split(cifar10).classes.ids == tuple(map(str, range(10)))


def test_cifar_100_has_fine_labels_in_its_second_byte(tmp_path):
    root = tmp_path / "cifar-100-binary"
    fine = [(7 * n) % 100 for n in range(100)]
    batch(root / "train.bin", images(100, 0), [n % 20 for n in range(100)], fine)
    batch(root / "test.bin", images(100, 1), [0] * 100, range(100))
    splits = open_data(tmp_path)  # the folder above, as the archive unpacks
    assert splits.layout == "CIFAR-100 (binary)" and splits.train.labels.tolist() == fine
    assert splits.train.classes.ids == tuple(map(str, range(100)))
    np.testing.assert_array_equal(splits.train.content(42), images(100, 0)[42])
    (root / "fine_label_names.txt").write_text("\n".join(f"name{n:02d}" for n in range(100)) + "\n")
    assert open_split(root).classes.ids[99] == "name99"


def test_lost_batches_are_said(cifar10):
    (cifar10 / "data_batch_3.bin").unlink()
    assert any("only 4 of the 5 files" in note for note in open_data(cifar10).notes)
    (cifar10 / "test_batch.bin").unlink()
    (cifar10 / "data_batch_1.bin").unlink()
    assert len(open_data(cifar10).val) == 10  # held out


@pytest.mark.parametrize("length", [0, 1, 3073 * 10 - 1, 3073 * 10 + 1, 3074 * 10])
def test_a_file_of_wrong_length_names_the_multiple(cifar10, length, capsys):
    data = (cifar10 / "data_batch_2.bin").read_bytes() + bytes(10)
    (cifar10 / "data_batch_2.bin").write_bytes(data[:length])
    with pytest.raises(DataError, match=rf"data_batch_2\.bin: expected a multiple of 3,073 bytes.*found {length:,}\."):
        open_data(cifar10)


def test_a_file_of_wrong_length_ends_the_command_with_3(cifar10, capsys, tmp_path):
    (cifar10 / "test_batch.bin").write_bytes(bytes(3072))
    assert cli.run(["data", "show", str(cifar10), "--out", str(tmp_path.parent / "out.png")]) == 3
    assert "expected a multiple of 3,073 bytes" in capsys.readouterr().err


def test_labels_and_names_that_are_wrong(cifar10):
    good = (cifar10 / "data_batch_2.bin").read_bytes()
    (cifar10 / "data_batch_2.bin").write_bytes(good[: 3073 * 4] + b"\x0b" + good[3073 * 4 + 1 :])
    with pytest.raises(DataError, match=r"data_batch_2\.bin, image 4: label 11, but classes count from 0 to 9"):
        open_data(cifar10)
    (cifar10 / "data_batch_2.bin").write_bytes(good)
    for text in ("a\nb", "\n".join(["x", *NAMES[1:9], "x"])):
        (cifar10 / "batches.meta.txt").write_text(text)
        with pytest.raises(DataError, match="expected the names of 10 classes"):
            open_data(cifar10)
    (cifar10 / "batches.meta.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="found no text"):
        open_data(cifar10)


@pytest.mark.parametrize(
    ("names", "archive"),
    [
        (["cifar-10-batches-py/batches.meta", "cifar-10-batches-py/data_batch_1"], "cifar-10-binary"),
        (["batches.meta", "data_batch_1"], "cifar-10-binary"),
        (["cifar-100-python/meta", "cifar-100-python/train", "cifar-100-python/test"], "cifar-100-binary"),
    ],
)
def test_the_version_for_python_is_never_read(tmp_path, names, archive):
    class Hostile:
        def __reduce__(self):
            return (pytest.fail, ("the pickle was read",))

    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(DataError, match=rf"pickles.*Take the binary version: {archive}"):
        open_data(tmp_path)


def test_a_file_that_shrinks_after_it_was_indexed_is_a_bad_image(cifar10):
    index = open_split(cifar10)
    with open(cifar10 / "test_batch.bin", "r+b") as file:
        file.truncate(3073 * 5)
    with pytest.raises(BadImage, match="too early"):
        index.content(5)


def test_a_name_of_five_thousand_digits_is_a_name(cifar10):
    (cifar10 / "batches.meta.txt").write_text("\n".join([*NAMES[:8], "2" * 5000, "1" * 5001]) + "\n")
    splits = open_data(cifar10)
    assert splits.train.classes.ids[:2] == ("1" * 5001, "2" * 5000)
    assert any("ordered as text" in note for note in splits.notes)

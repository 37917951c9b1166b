"""Tables with images, as Hugging Face writes them and as others do; and tables that must not get past the reader."""

import io
import json
import os
import pickle
import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from striate import cli
from striate.data.decode import BadImage
from striate.data.index import compare
from striate.data.layouts import parquet
from striate.data.layouts.detect import open_data, open_photos, open_split
from striate.errors import DataError


def jpeg(number):
    """A small JPEG whose content tells its number."""
    file = io.BytesIO()
    Image.new("RGB", (8 + number % 5, 6), (number * 7 % 256, number * 31 % 256, 90)).save(file, "JPEG")
    return file.getvalue()


def structs(numbers):
    """The storage of Hugging Face's Image."""
    return pa.array(
        [{"bytes": jpeg(n), "path": f"{n}.jpg"} for n in numbers], pa.struct({"bytes": pa.binary(), "path": pa.string()})
    )


def features(names=None, **more):
    about = {"image": {"_type": "Image"}, **more}
    if names:
        about["label"] = {"names": names, "_type": "ClassLabel"}
    return {"huggingface": json.dumps({"info": {"features": about}})}


def table(path, columns, metadata=None, rows=4):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), path, row_group_size=rows)
    return path


def ids_of(index):
    return [index.classes.ids[label] if label >= 0 else None for label in index.labels.tolist()]


def said(notes):
    return "\n".join(notes)


# ---------------------------------------------------------------- what is read


def test_a_set_of_hugging_face(tmp_path):
    names = ["zebra", "ape", "cat"]
    about = features(names)
    table(tmp_path / "data/train-00000-of-00002.parquet", {"image": structs(range(6)), "label": [0, 1, 2, 0, 1, 2]}, about)
    table(tmp_path / "data/train-00001-of-00002.parquet", {"image": structs(range(6, 9)), "label": [2, 2, 0]}, about)
    table(tmp_path / "data/validation-00000-of-00001.parquet", {"image": structs(range(9, 12)), "label": [1, 0, 2]}, about)
    table(tmp_path / "data/test-00000-of-00001.parquet", {"image": structs([12]), "label": [-1]}, about)
    splits = open_data(tmp_path)
    assert splits.layout == "parquet" and splits.train.classes.ids == ("ape", "cat", "zebra") and splits.notes == ()
    assert ids_of(splits.train) == ["zebra", "ape", "cat", "zebra", "ape", "cat", "cat", "cat", "zebra"]
    assert ids_of(splits.val) == ["ape", "zebra", "cat"] and ids_of(splits.test) == [None]
    assert splits.train.keys[7] == "data/train-00001-of-00002.parquet/1"
    assert splits.train.where(7) == f"{tmp_path}/data/train-00001-of-00002.parquet, row 1"
    assert [splits.train.content(n) for n in range(9)] == [jpeg(n) for n in range(9)] and splits.test.content(0) == jpeg(12)
    assert (splits.train.sizes_bytes > 100).all() and open_split(tmp_path).fingerprint == splits.val.fingerprint


def test_labels_may_differ_in_number_from_file_to_file(tmp_path):
    table(tmp_path / "train.parquet", {"image": structs(range(2)), "label": [0, 1]}, features(["b", "a"]))
    table(tmp_path / "val.parquet", {"image": structs(range(2)), "label": [0, 1]}, features(["a", "b"]))
    splits = open_data(tmp_path)
    assert ids_of(splits.train) == ["b", "a"] and ids_of(splits.val) == ["a", "b"] and splits.val.labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("images", "labels", "ids"),
    [
        (lambda rows: pa.array(rows, pa.binary()), pa.array([10, 2, 2, 10]), ("2", "10")),
        (lambda rows: pa.array(rows, pa.large_binary()), pa.array(["b", "a", "b", "a"]), ("a", "b")),
        (lambda rows: pa.array(rows, pa.binary()), pa.array(["b", "a", "b", "a"]).dictionary_encode(), ("a", "b")),
        (lambda rows: pa.array(rows, pa.binary()), pa.array([3, 1, 1, 3], pa.uint8()), ("1", "3")),
        (
            lambda rows: pa.array([{"bytes": row} for row in rows]),
            pa.array(["10", "9", "9", "10"], pa.large_string()),
            ("9", "10"),
        ),
    ],
)
def test_plain_tables(tmp_path, images, labels, ids):
    table(tmp_path / "a.parquet", {"id": ["x"] * 4, "jpg": images([jpeg(n) for n in range(4)]), "label": labels})
    index = open_split(tmp_path / "a.parquet")
    assert index.classes.ids == ids and [index.content(n) for n in range(4)] == [jpeg(n) for n in range(4)]
    assert ids_of(index) == [str(word) for word in labels.to_pylist()]


def test_text_labels_may_say_that_there_is_none(tmp_path):
    table(tmp_path / "train.parquet", {"image": structs(range(4)), "label": ["ape", "bee", "ape", "bee"]})
    table(tmp_path / "test.parquet", {"image": structs(range(4)), "label": ["-1", " -1", "ape", None]})
    splits = open_data(tmp_path)
    assert splits.train.classes.ids == ("ape", "bee") and splits.test.labels.tolist() == [-1, -1, 0, -1]


def test_names_that_are_numbers_sort_as_numbers_and_shared_names_are_no_ids(tmp_path):
    names = [str(n) for n in range(12)]
    table(tmp_path / "a.parquet", {"image": structs(range(12)), "label": list(range(12))}, features(names))
    assert open_split(tmp_path / "a.parquet").classes.ids == tuple(names)
    table(tmp_path / "b.parquet", {"image": structs(range(3)), "label": [2, 1, 0]}, features(["crane", "crane", "ape"]))
    assert open_split(tmp_path / "b.parquet").classes.ids == ("0", "1", "2")


def test_of_several_columns_the_likeliest_are_taken_and_it_is_said(tmp_path):
    table(
        tmp_path / "a.parquet",
        {"mask": structs(range(4, 8)), "image": structs(range(4)), "coarse_label": [0, 0, 0, 0], "fine_label": [0, 1, 0, 1]},
        features(
            mask={"_type": "Image"},
            coarse_label={"_type": "ClassLabel", "names": ["x"]},
            fine_label={"_type": "ClassLabel", "names": ["a", "b"]},
        ),
    )
    splits = open_data(tmp_path)
    assert splits.train.classes.ids == ("a", "b") and splits.train.content(0) in {jpeg(n) for n in range(4)}
    assert "images are the column 'image', labels 'fine_label'; not used: 'mask', 'coarse_label'" in said(splits.notes)


def test_photos_need_no_labels(tmp_path):
    table(tmp_path / "b.parquet", {"image": structs([5, 6])})
    table(tmp_path / "a.parquet", {"image": structs([7]), "label": ["x"]})
    index = open_photos(tmp_path)
    assert list(index.keys) == ["a.parquet/0", "b.parquet/0", "b.parquet/1"] and index.labels.tolist() == [-1] * 3
    assert [index.content(n) for n in range(3)] == [jpeg(7), jpeg(5), jpeg(6)]


def test_folders_of_images_win_over_a_table_beside_them(tmp_path):
    table(tmp_path / "metadata.parquet", {"caption": ["x"]})
    for name in ("ape/1.jpg", "ape/2.jpg", "bee/1.jpg", "bee/2.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(jpeg(1))
    assert open_data(tmp_path).layout == "class folder"


def test_what_datasets_writes(tmp_path):
    datasets = pytest.importorskip("datasets")
    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["b", "a"])})
    rows = {"image": [{"bytes": jpeg(n), "path": None} for n in range(6)], "label": [0, 1, 1, 0, 1, 0]}
    datasets.Dataset.from_dict(rows, features=kinds).to_parquet(str(tmp_path / "train.parquet"))
    index = open_split(tmp_path)
    assert ids_of(index) == ["b", "a", "a", "b", "a", "b"] and [index.content(n) for n in range(6)] == [jpeg(n) for n in range(6)]


# ---------------------------------------------------------------- the store


def test_row_groups_are_read_once_while_they_fit_and_memory_is_bounded(tmp_path, monkeypatch):
    path = table(tmp_path / "a.parquet", {"image": structs(range(80)), "label": [n % 2 for n in range(80)]}, rows=8)
    index, loads = open_split(path), Counter()
    load = parquet.Tables._load
    monkeypatch.setattr(parquet.Tables, "_load", lambda self, group: loads.update([group]) or load(self, group))
    order = random.Random(0).sample(range(80), 80) * 2
    ready = threading.Barrier(4)
    with ThreadPoolExecutor(4, initializer=ready.wait) as threads:
        assert list(threads.map(index.content, order)) == [jpeg(n) for n in order]
    assert loads == Counter(range(10))  # each once, though four asked at once
    size = sum(held.result().nbytes for held in index.store._kept.values())
    assert index.store._kept_bytes == size

    monkeypatch.setattr(parquet, "MOST_KEPT_BYTES", size // 4)
    store = pickle.loads(pickle.dumps(index.store))
    assert not store._kept
    loads.clear()
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(store.read, order)) == [jpeg(n) for n in order]
    assert store._kept_bytes <= size // 4 + size // 10 and loads.total() > 10


def test_a_set_larger_than_the_kept_groups_says_that_packing_helps(tmp_path, monkeypatch):
    path = table(tmp_path / "a.parquet", {"image": structs(range(8)), "label": [0, 1] * 4})
    assert not any("pack" in note for note in open_data(path).notes)
    monkeypatch.setattr(parquet, "MOST_KEPT_BYTES", 100)
    assert "up to 4 images" in said(open_data(path).notes) and "`striate data pack`" in said(open_data(path).notes)


def test_a_table_that_changes_after_it_was_indexed_is_bad_images(tmp_path):
    path = table(tmp_path / "a.parquet", {"image": structs(range(8)), "label": [0, 1] * 4})
    index = open_split(path)
    table(path, {"image": structs(range(3)), "label": [0, 1, 0]})
    with pytest.raises(BadImage, match="has 3 rows, not 4"):
        index.content(0)
    path.write_bytes(b"x" * 100)
    with pytest.raises(BadImage, match="cannot be read"):
        index.content(5)


def test_d25_a_changed_table_is_noticed(tmp_path):
    table(tmp_path / "a.parquet", {"image": structs(range(4)), "label": [0, 1] * 2})
    path = table(tmp_path / "b.parquet", {"image": structs(range(4, 8)), "label": [0, 1] * 2})
    before = open_split(tmp_path)
    os.utime(path, ns=(0, 1_700_000_000_000_000_001))
    assert len(compare(before, open_split(tmp_path)).edited) == 4
    table(path, {"image": structs(range(4, 8)), "label": [0, 1, 1, 1]})
    assert compare(before, open_split(tmp_path)).relabelled == ("b.parquet/2",)


# ---------------------------------------------------------------- what is wrong


def test_a_table_without_images_lists_its_columns_and_ends_the_command_with_3(tmp_path, capsys):
    path = table(tmp_path / "a.parquet", {"text": ["a"], "label": [1]})
    with pytest.raises(DataError, match=r"no image column.*it has 'text' \(string\), 'label' \(int64\)"):
        open_data(path)
    assert cli.run(["data", "show", str(path), "--out", str(tmp_path / "out.png")]) == 3
    assert "no image column" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("columns", "metadata", "words"),
    [
        ({"image": structs(range(2))}, None, "no label column.*striate predict"),
        ({"image": structs(range(2)), "label": [0.5, 1]}, None, "no label column"),
        ({"image": structs(range(2)), "label": [0, None]}, None, r"1 of the 2 images of train have no label: 'a\.parquet/1'"),
        ({"image": structs(range(2)), "label": [-1, -1]}, None, "none of the 2 images of train has a label"),
        (
            {"image": structs(range(3)), "label": [0, 1, 2]},
            features(["a", "b"]),
            r"row 2: label 2, where the table names 2 classes",
        ),
        ({"image": structs(range(3)), "label": [0, 1, -7]}, features(["a", "b"]), r"row 2: label -7"),
        ({"image": structs(range(2)), "label": ["a", "1"]}, None, "Numbers: '1'; words: 'a'"),
        ({"image": structs(range(2)), "label": ["a", " "]}, None, "labels must be one line of text"),
        (
            {"image": pa.array([{"bytes": None, "path": "1.jpg"}] * 2, structs([0]).type), "label": [0, 1]},
            None,
            "has no bytes of images, at most paths",
        ),
    ],
)
def test_tables_that_are_wrong(tmp_path, columns, metadata, words):
    table(tmp_path / "a.parquet", columns, metadata)
    with pytest.raises(DataError, match=words):
        open_data(tmp_path)


def test_d16_classes_of_val_must_be_those_of_train(tmp_path):
    table(tmp_path / "train.parquet", {"image": structs(range(2)), "label": ["a", "b"]})
    table(tmp_path / "val.parquet", {"image": structs(range(2)), "label": ["a", "c"]})
    with pytest.raises(DataError, match=r"Only here, 1: 'c'\. Without images here, 1: 'b'"):
        open_data(tmp_path)


def test_one_image_without_bytes_is_a_bad_image(tmp_path):
    rows = [{"bytes": jpeg(1), "path": None}, {"bytes": None, "path": "x.jpg"}, None]
    table(tmp_path / "a.parquet", {"image": pa.array(rows, structs([0]).type), "label": [0, 1, 1]})
    index = open_split(tmp_path)
    assert index.content(0) == jpeg(1)
    for row in (1, 2):
        with pytest.raises(BadImage, match="no bytes of it"):
            index.content(row)


def test_row_groups_too_large_to_be_read_for_one_image(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "MOST_GROUP_BYTES", 1000)
    table(tmp_path / "a.parquet", {"image": structs(range(8)), "label": [0, 1] * 4}, rows=8)
    with pytest.raises(DataError, match="row_group_size=100"):
        open_data(tmp_path)


def test_400_damaged_tables_are_refused_or_read(tmp_path):
    columns = {"image": structs(range(8)), "label": [0, 1] * 4}
    sound = table(tmp_path / "sound.parquet", columns, features(["a", "b"])).read_bytes()
    path = tmp_path / "a.parquet"
    chance, accepted = random.Random(5), 0
    for _ in range(400):
        data = bytearray(sound)
        for _ in range(chance.randint(1, 3)):
            data[chance.randrange(len(data))] = chance.choice([0, 255, chance.randrange(256)])
        if chance.random() < 0.2:
            del data[chance.randrange(len(data)) :]
        path.write_bytes(data)
        try:
            index = open_split(path)
            for row in np.linspace(0, len(index) - 1, 4).astype(int).tolist():
                assert isinstance(index.content(row), bytes)
            accepted += 1
        except (DataError, BadImage):
            pass
    assert 20 < accepted < 380  # both ways are walked

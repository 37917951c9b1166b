"""Keys, boxes, the fingerprint, the parquet file, and what changed between two readings."""

import copy
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from striate.classes import Classes
from striate.data.index import Boxes, Gathering, Index, Keys, compare
from striate.errors import CheckpointError, UserError

ODD = ["a/1.jpg", "a/two\nlines.jpg", "b/caf\u00e9.jpg", "b/\udcff\udcfe.png", "c/" + "x" * 255]
SECOND = 1_000_000_000


def small(
    keys=("a/1.jpg", "a/2.jpg", "b/3.jpg"), labels=(0, 0, 1), sizes=(10, 20, 30), times=(1, 2, 3), ids=("a", "b"), boxes=None
):
    gathering = Gathering()
    for key, label, size, time in zip(keys, labels, sizes, times, strict=True):
        gathering.add(os.fsencode(key), label, size, time)
    return gathering.index(Path("/data"), "train", "class folder", Classes(ids, ids), notes=("a note",), boxes=boxes)


def test_keys_are_the_strings_they_were_made_of():
    keys = Keys.of(ODD)
    assert list(keys) == ODD and [keys[i] for i in range(-5, 5)] == ODD + ODD
    assert list(keys[1:4]) == ODD[1:4] and list(keys.select(np.array([4, 0, 0]))) == [ODD[4], ODD[0], ODD[0]]
    assert keys == Keys.of(ODD) and keys != Keys.of(ODD[:-1]) and "b/caf\u00e9.jpg" in keys
    assert list(copy.deepcopy(keys)) == ODD  # as worker processes get them
    assert len(Keys.of([])) == 0 and list(Keys.of([])) == [] and repr(Keys.of([])) == "Keys()"
    with pytest.raises(IndexError):
        keys[5]


def test_keys_of_many_images_are_compact():
    keys = Keys.of(f"train/n{n % 1000:08}/n{n % 1000:08}_{n}.JPEG" for n in range(20_000))
    assert (keys.blob.nbytes + keys.offsets.nbytes) / len(keys) * 1_300_000 < 120e6
    rows = np.arange(0, 20_000, 7)
    assert list(keys.select(rows)) == [keys[int(row)] for row in rows]


def test_boxes_follow_their_images():
    boxes = Boxes.of_images(4, np.array([2, 0, 2]), np.array([[0, 0, 1, 1], [0, 0, 2, 2], [0, 0, 3, 3]]))
    assert [boxes.of(i)[:, 2].tolist() for i in range(4)] == [[2.0], [], [1.0, 3.0], []]
    assert boxes.xyxy.dtype == np.float32 and boxes.of(1).shape == (0, 4)
    chosen = boxes.select(np.array([3, 2, 2, 0]))
    assert [chosen.of(i)[:, 2].tolist() for i in range(4)] == [[], [1.0, 3.0], [1.0, 3.0], [2.0]]


def test_select_by_rows_and_by_mask():
    boxes = Boxes.of_images(3, np.array([2]), np.array([[0, 0, 5, 5]]))
    index = small(boxes=boxes)
    part = index.select(np.array([2, 0]), "val")
    assert (list(part.keys), part.labels.tolist(), part.sizes_bytes.tolist(), part.split) == (
        ["b/3.jpg", "a/1.jpg"],
        [1, 0],
        [30, 10],
        "val",
    )
    assert part.boxes.of(0).tolist() == [[0, 0, 5, 5]]
    assert list(index.select(np.array([False, True, False])).keys) == ["a/2.jpg"]
    assert index.path(2) == Path("/data/b/3.jpg") and index.counts().tolist() == [2, 1]


def test_lengths_must_agree():
    with pytest.raises(UserError, match=r"Index\.labels: expected shape \[3\], found \[2\]"):
        replace(small(), labels=np.zeros(2, dtype=np.int32))


def test_d25_fingerprint_is_of_keys_sizes_labels_and_not_of_time_or_place():
    index = small()
    assert (
        index.fingerprint
        == small(times=(7, 8, 9)).fingerprint
        == replace(index, root=Path("/elsewhere"), split="val").fingerprint
    )
    others = [
        small(keys=("a/1.jpg", "a/2.jpg", "b/4.jpg")),
        small(keys=("a/1.jpg", "a/2.jp", "gb/3.jpg")),  # the same bytes, cut elsewhere
        small(labels=(0, 1, 1)),
        small(sizes=(10, 20, 31)),
        small(ids=("a", "c")),
        small(keys=("a/2.jpg", "a/1.jpg", "b/3.jpg")),
    ]
    assert len({index.fingerprint, *(other.fingerprint for other in others)}) == 7


@pytest.mark.parametrize("boxes", [None, Boxes.of_images(5, np.array([4, 1, 4]), np.arange(12).reshape(3, 4))])
def test_d26_written_and_read_again(tmp_path, boxes):
    index = small(ODD, (0, 0, 1, 1, -1), (0, 1, 2, 3, 2**40), (5, 4, 3, 2, 2**60), ("b\udcff", "z"), boxes)
    index.write(tmp_path / "index.parquet")
    again = Index.read(tmp_path / "index.parquet", Path("/data"))
    assert again.keys == index.keys and list(again.keys) == ODD and again.classes == index.classes
    for name in ("labels", "sizes_bytes", "mtimes_ns"):
        np.testing.assert_array_equal(getattr(again, name), getattr(index, name))
        assert getattr(again, name).dtype == getattr(index, name).dtype
    assert (again.split, again.layout, again.notes, again.fingerprint) == (
        index.split,
        index.layout,
        index.notes,
        index.fingerprint,
    )
    assert (again.boxes is None) == (boxes is None)
    if boxes is not None:
        np.testing.assert_array_equal(again.boxes.xyxy, boxes.xyxy)
        np.testing.assert_array_equal(again.boxes.rows, boxes.rows)
    assert os.listdir(tmp_path) == ["index.parquet"]
    assert not compare(index, again)


def test_an_empty_index_can_be_kept(tmp_path):
    small((), (), (), ()).write(tmp_path / "index.parquet")
    assert len(Index.read(tmp_path / "index.parquet", Path("/data"))) == 0


def test_a_broken_index_file_is_named(tmp_path):
    path = tmp_path / "index.parquet"
    with pytest.raises(CheckpointError, match=r"index\.parquet: the index is missing"):
        Index.read(path, Path("/data"))
    small().write(path)
    whole = path.read_bytes()
    for damaged in (b"", b"nonsense", whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"index\.parquet: not a readable index"):
            Index.read(path, Path("/data"))


def test_d25_add_remove_relabel_and_edit_are_told_apart():
    old = small()
    new = small(keys=("a/0.jpg", "a/1.jpg", "b/3.jpg"), labels=(0, 1, 1), sizes=(5, 10, 31), times=(9, 1, 3))
    found = compare(old, new)
    assert (found.added, found.removed, found.relabelled, found.edited) == (
        ("a/0.jpg",),
        ("a/2.jpg",),
        ("a/1.jpg",),
        ("b/3.jpg",),
    )
    assert found and not found.remounted and not found.reordered
    assert "added, 1: 'a/0.jpg'" in found.describe() and "edited, 1: 'b/3.jpg'" in found.describe()


def test_d25_a_rename_is_one_added_and_one_removed():
    found = compare(small(), small(keys=("a/1.jpg", "a/2x.jpg", "b/3.jpg")))
    assert (found.added, found.removed, found.edited) == (("a/2x.jpg",), ("a/2.jpg",), ())


def test_d25_an_edit_of_equal_size_is_seen_by_its_time():
    assert compare(small(), small(times=(1, 99, 3))).edited == ("a/2.jpg",)


def test_d25_a_copy_elsewhere_is_no_edit():
    found = compare(small(), small(times=(100, 200, 300)))
    assert not found and found.remounted and found.describe() == "no difference"
    found = compare(small(), small(times=(100, 200, 300), sizes=(10, 21, 30)))
    assert found.edited == ("a/2.jpg",) and not found.remounted


def test_d25_times_cut_to_whole_seconds_are_no_edit():
    fine, cut = (3 * SECOND + 5, 4 * SECOND, 5 * SECOND + 7), (3 * SECOND, 4 * SECOND, 5 * SECOND)
    assert not compare(small(times=fine), small(times=cut)) and not compare(small(times=cut), small(times=fine))
    assert compare(small(times=fine), small(times=(3 * SECOND + 6, *fine[1:]))).edited == ("a/1.jpg",)


def test_d25_labels_are_compared_by_class_id():
    assert not compare(small(), small(labels=(1, 1, 2), ids=("A", "a", "b")))
    assert compare(small(), small(ids=("a", "c"))).relabelled == ("b/3.jpg",)
    assert compare(small(labels=(0, 0, -1)), small()).relabelled == ("b/3.jpg",)


def test_d25_another_order_is_said():
    found = compare(small(), small(("a/2.jpg", "a/1.jpg", "b/3.jpg"), (0, 0, 1), (20, 10, 30), (2, 1, 3)))
    assert found and found.reordered and not (found.added or found.removed or found.edited)

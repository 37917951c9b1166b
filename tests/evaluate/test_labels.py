"""Other labels: against timm's scoring of the published ReaL list, and small files written by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from striate.classes import Classes, imagenet
from striate.errors import DataError, UserError
from striate.evaluate import labels, metrics
from striate.predictions import Predictions

FOUR = Classes(("cat", "dog", "elk", "fox"), ("",) * 4)


def predicted(keys: list[str], scores: object, classes: Classes = FOUR) -> Predictions:
    return Predictions(keys, np.zeros(len(keys), np.int64), np.asarray(scores, np.float32), "logits", classes)


def written(path: Path, value: object) -> Path:
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def validation(number: int) -> str:
    return f"val/ILSVRC2012_val_{number:08d}.JPEG"


# ---------------------------------------------------------------- the published list


def test_real_equals_timm(tmp_path: Path) -> None:
    data = pytest.importorskip("timm.data.real_labels")
    torch = pytest.importorskip("torch")
    judge = data.RealLabelsImagenet([Path(validation(number)).name for number in range(1, 50_001)])
    published = [judge.real_labels[Path(validation(number)).name] for number in range(1, 50_001)]
    path = written(tmp_path / "real.json", published)
    numbers = np.random.default_rng(0)
    order = numbers.permutation(50_000)[:3000]  # a part of the set, in any order
    scores = numbers.normal(size=(3000, 1000)).astype(np.float32)
    for row, image in enumerate(order.tolist()):
        scores[row, published[image][:2]] += 3
    predictions = predicted([validation(image + 1) for image in order.tolist()], scores, imagenet())
    found = labels.relabelled(predictions, labels.read(path, imagenet()))
    judge.filenames = [Path(key).name for key in predictions.keys]
    judge.add_result(torch.from_numpy(scores))
    for k in (1, 5):
        assert (found.ranks < k).mean() * 100 == pytest.approx(judge.get_accuracy(k), abs=1e-9)
    assert found.empty == sum(not published[image] for image in order.tolist()) > 0
    assert len(found.rows) + found.empty == 3000
    assert found.unused == 47_000


def test_published_positions_are_in_the_order_of_wnids(tmp_path: Path) -> None:
    """A network with its classes in another order is joined by id; one with other classes is refused."""
    path = written(tmp_path / "real.json", [[1, 0], [], [999]])
    turned = Classes(imagenet().ids[::-1], imagenet().names[::-1])
    sets = labels.read(path, turned)
    assert sets.labels == {"1": (998, 999), "2": (), "3": (0,)}
    assert (sets.name, sets.source, sets.by_number) == ("ReaL", "real.json", True)
    with pytest.raises(UserError, match=r"real.json: its labels are no ids .* this network has 4 others.*'cat', 'dog'"):
        labels.read(path, FOUR)


def test_the_published_list_goes_by_number(tmp_path: Path) -> None:
    sets = labels.read(written(tmp_path / "real.json", [[0], [1, 2]]), imagenet())
    scores = np.zeros((2, 1000))
    scores[:, 2] = 1
    found = labels.relabelled(predicted([validation(2), validation(1)], scores, imagenet()), sets)
    assert (found.labels, found.best.tolist(), found.ranks.tolist()) == ([(1, 2), (0,)], [2, 0], [0, 1])
    for key in (validation(3), "ILSVRC2012_val_1.JPEG", "cat.jpg"):
        with pytest.raises(DataError, match=r"no labels for 1 of 1 images.*goes by the number"):
            labels.relabelled(predicted([key], scores[:1], imagenet()), sets)


# ---------------------------------------------------------------- one's own


@pytest.mark.parametrize("form", ["json", "csv"])
def test_own_labels_by_key_file_name_or_stem(tmp_path: Path, form: str) -> None:
    if form == "json":
        value = {"a/1.jpg": ["cat", "dog"], "2.jpg": ["fox"], "3": [], "4": ["elk"], "elsewhere": ["cat"]}
        path = written(tmp_path / "own.json", value)
    else:
        path = written(tmp_path / "own.csv", "\ufeffkey,labels\na/1.jpg, dog;cat\n2.jpg,fox;fox\n\n3,\n4,elk\nelsewhere,cat\n")
    sets = labels.read(path, FOUR)
    assert sets.name == path.name
    predictions = predicted(["b/4.png", "a/1.jpg", "b/2.jpg", "b/3.jpg"], [[4, 3, 2, 1]] * 4)
    found = labels.relabelled(predictions, sets)
    assert found.rows.tolist() == [0, 1, 2]
    assert found.labels == [(2,), (0, 1), (3,)]
    assert found.ranks.tolist() == [2, 0, 3]
    assert (found.empty, found.unused) == (1, 1)


def test_the_rank_is_the_best_of_all_labels() -> None:
    numbers = np.random.default_rng(0)
    scores = numbers.integers(0, 3, (300, 4))  # many ties
    chosen = [tuple(np.flatnonzero(numbers.random(4) < 0.4).tolist()) for _ in range(300)]
    keys = [f"{i}.jpg" for i in range(300)]
    sets = labels.LabelSets(dict(zip(keys, chosen, strict=True)), FOUR, "drawn", "drawn.json")
    found = labels.relabelled(predicted(keys, scores), sets)
    expected = [
        min(int(metrics.ranks(scores[row : row + 1].astype(np.float32), np.array([label]))[0]) for label in chosen[row])
        for row in range(300)
        if chosen[row]
    ]
    assert found.ranks.tolist() == expected
    assert all(best in own for best, own in zip(found.best.tolist(), found.labels, strict=True))


def test_class_ids_that_are_numbers_are_ids(tmp_path: Path) -> None:
    digits = Classes(("7", "8", "9"), ("",) * 3)
    assert labels.read(written(tmp_path / "a.csv", "x.png,9;7\n"), digits).labels == {"x.png": (0, 2)}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.json",
            {"x": ["cat", "dgo"]},
            "label 'dgo' of image 'x': expected an id of the network's classes. Did you mean 'dog'",
        ),
        ("a.json", {"x": "cat"}, "image 'x': expected a list of class ids or positions, found cat"),
        ("a.json", {"x": [1.5]}, "expected a list of class ids"),
        ("a.json", {"x": [True]}, "expected a list of class ids"),
        ("a.json", "7", "expected a list of lists or an object of lists, found int"),
        ("a.json", {"x": []}, r"expected labels of images, found none \(1 images\)"),
        ("a.json", [], "found none"),
        ("a.csv", "x,cat\nx,dog\n", "row 2: image 'x' has labels already"),
        ("a.csv", "x,cat\ny,dog,elk\n", "row 2: expected key,label;label, found 'y,dog,elk'"),
        ("a.csv", ",cat\n", "row 1: expected key"),
        ("a.csv", "key,label\n", "found none"),
        ("a.csv", "x,cat;9\n", "label '9' of image 'x'"),
    ],
)
def test_files_that_are_wrong_say_where(tmp_path: Path, name: str, content: object, message: str) -> None:
    with pytest.raises(DataError, match=message) as told:
        labels.read(written(tmp_path / name, content), FOUR)
    assert str(tmp_path / name) in str(told.value)


def test_a_position_beyond_the_thousand_is_refused(tmp_path: Path) -> None:
    for wrong in (1000, -1):
        with pytest.raises(DataError, match=rf"label {wrong} of image '2': expected a position in 0\.\.999"):
            labels.read(written(tmp_path / "real.json", [[1], [wrong]]), imagenet())


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for name in ("none.json", "none.csv"):
        with pytest.raises(UserError, match="cannot be read"):
            labels.read(tmp_path / name, FOUR)
    (tmp_path / "bytes.csv").write_bytes(b"x,\xff\n")
    with pytest.raises(DataError, match="expected UTF-8 text"):
        labels.read(tmp_path / "bytes.csv", FOUR)


def test_images_without_an_entry_or_with_a_shared_one_are_named(tmp_path: Path) -> None:
    sets = labels.read(written(tmp_path / "own.json", {"1": ["cat"], "a/2.jpg": []}), FOUR)
    with pytest.raises(DataError, match=r"own.json: no labels for 1 of 2 images: 'a/3.jpg'. Give them an empty list"):
        labels.relabelled(predicted(["a/1.jpg", "a/3.jpg"], np.zeros((2, 4))), sets)
    with pytest.raises(DataError, match=r"'1' stands for several images: 'a/1.jpg', 'b/1.jpg'"):
        labels.relabelled(predicted(["a/1.jpg", "b/1.jpg"], np.zeros((2, 4))), sets)
    with pytest.raises(DataError, match="none of the 1 images has a label that counts"):
        labels.relabelled(predicted(["a/2.jpg"], np.zeros((1, 4))), sets)
    others = Classes(("dog", "cat", "elk", "fox"), ("",) * 4)
    with pytest.raises(UserError, match="read for other classes"):
        labels.relabelled(predicted(["a/1.jpg"], np.zeros((1, 4)), others), sets)


# ---------------------------------------------------------------- images left out


def test_numbers_and_names_are_left_out(tmp_path: Path) -> None:
    path = written(tmp_path / "out.txt", "# blurred\n2\n49999  # not here\n\nval/odd.jpg\nother\n2\n")
    keys = [validation(1), validation(2), "val/odd.jpg", "val/other.png", "val/3.jpg"]
    found = labels.left_out(keys, path)
    assert found.is_out.tolist() == [False, True, True, True, False]
    assert (found.images, found.unmatched, found.source) == (3, 1, "out.txt")


def test_a_name_that_is_a_number(tmp_path: Path) -> None:
    """The test images of CIFAR, say, are called 00001.png: a name goes before a number."""
    found = labels.left_out(["00001.png", "00002.png"], written(tmp_path / "out.txt", "00002\n"))
    assert (found.is_out.tolist(), found.unmatched) == ([False, True], 0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1\n50001\n", r"line 2: expected a name, or a number in 1\.\.50000, found 50001"),
        ("0\n", r"line 1: expected a name, or a number"),
        ("1\n# x\nvla/a.jpg\n", r"line 3: no image is called 'vla/a.jpg'. Images are called as 'val/ILSVRC"),
        ("7\n8\n", "none of its 2 entries is among the 3 images"),
        ("# nothing\n\n", "expected names or numbers of images, one in a line, found none"),
        ("same\n", r"'same' stands for several images: 'a/same.jpg', 'b/same.jpg'"),
    ],
)
def test_lists_that_are_wrong_say_where(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        labels.left_out([validation(1), "a/same.jpg", "b/same.jpg"], written(tmp_path / "out.txt", content))


def test_a_list_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        labels.left_out([validation(1)], tmp_path / "none.txt")

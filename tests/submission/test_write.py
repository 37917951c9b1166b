"""From a network or saved predictions to a file: a row for every image, the numbers of the mapping, and the way back."""

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from striate import machine
from striate.classes import Classes, ordered
from striate.data import synthetic
from striate.data.layouts import detect
from striate.data.loader import Streaming, Workers, ordered_batches
from striate.data.pack import format, write
from striate.errors import CheckpointError, DataError, UserError
from striate.evaluate import metrics
from striate.evaluate.network import Network
from striate.evaluate.predict import predict
from striate.evaluate.route import Route
from striate.predictions import Predictions
from striate.submission.check import check
from striate.submission.score import score
from striate.submission.write import submit
from tests.submission.makers import COLOURS, VIEW, WNIDS, photo


def table(path: Path) -> dict[str, str]:
    with path.open(newline="") as file:
        return {row["ImageId"]: row["PredictionString"] for row in csv.DictReader(file)}


def untrained(classes: Classes, home: Path) -> Route:
    """A small network as it begins, for any classes."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, len(classes))
    )
    return Route(Network(model, classes, VIEW, "raw", "0" * 64, home, "step-0"))


# ---------------------------------------------------------------- what is written


def test_each_image_has_its_labels_and_the_whole_photo(route, kaggle_set, tmp_path):
    done = submit(route, kaggle_set, tmp_path / "s.csv", workers="0")
    first = {key: value.split()[0] for key, value in table(done.path).items()}
    assert first == {f"ILSVRC2012_test_{n:08d}": label for n, label in ((1, "3"), (2, "1"), (3, "2"), (4, "1"))}
    words = table(done.path)["ILSVRC2012_test_00000003"].split()
    assert sorted(words[::5]) == ["1", "2", "3"]  # as many predictions as there are classes
    assert words[1:5] == words[6:10] == ["0", "0", "23", "21"]
    assert (done.images, done.filled) == (4, ())
    assert done.numbering == str(kaggle_set.parents[3] / "LOC_synset_mapping.txt")
    assert done.answered_by.startswith("raw weights of step-7")
    assert check(done.path, data=kaggle_set).defects == ()


def test_labels_are_lines_whatever_the_order_of_the_mapping(route, kaggle_set, tmp_path, put):
    mapping = put("n00000009 more\nn00000003 red\nn00000001 blue\nn00000002 green\n")
    done = submit(route, kaggle_set, tmp_path / "s.csv", mapping=mapping, workers="0")
    assert [value.split()[0] for value in table(done.path).values()] == ["2", "3", "4", "3"]


def test_without_a_mapping_the_order_of_ids_is_taken_and_said(route, kaggle_set, tmp_path):
    shutil.copytree(kaggle_set, tmp_path / "loose")
    done = submit(route, tmp_path / "loose", tmp_path / "s.csv", workers="0")
    assert [value.split()[0] for value in table(done.path).values()] == ["3", "1", "2", "1"]
    assert any("No LOC_synset_mapping.txt was found" in line for line in done.describe())


def test_a_network_of_other_classes_is_refused(kaggle_set, tmp_path):
    with pytest.raises(UserError, match=r"no line for 1 of the network's 2 classes: 'cat'"):
        submit(untrained(Classes(("cat", WNIDS[0]), ("", "")), tmp_path), kaggle_set, tmp_path / "s.csv")
    assert not (tmp_path / "s.csv").exists()


def test_a_bad_image_has_a_row_with_the_most_frequent_guess(route, kaggle_set, tmp_path):
    cut = photo(kaggle_set / "ILSVRC2012_test_00000005.JPEG", COLOURS[2], 30, 40)
    cut.write_bytes(cut.read_bytes()[:-30])
    (kaggle_set / "ILSVRC2012_test_00000006.JPEG").write_bytes(b"nothing at all")
    done = submit(route, kaggle_set, tmp_path / "s.csv", workers="0")
    rows = table(done.path)
    assert len(rows) == done.images == 6
    assert rows["ILSVRC2012_test_00000005"] == "1 0 0 29 39"  # blue, as two of the four others; the header gives its sides
    assert rows["ILSVRC2012_test_00000006"] == "1 0 0 0 0"
    assert [Path(key).stem[-1] for key, _ in done.filled] == ["5", "6"] and done.stand_in == "blue"
    said = "\n".join(done.describe())
    assert "2 of 6 images could not be looked at; their rows say blue" in said and "00000006.JPEG" in said
    assert check(done.path, data=kaggle_set).errors == 0


def test_nothing_is_written_where_no_image_can_be_read(route, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.JPEG").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"none of the 1 images could be looked at: .*a\.JPEG.*Nothing is written"):
        submit(route, tmp_path / "photos", tmp_path / "s.csv", workers="0")
    assert not (tmp_path / "s.csv").exists()


def test_where_the_file_goes(route, kaggle_set, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert submit(route, kaggle_set, workers="0").path == Path("submission.csv")
    again = submit(route, kaggle_set, workers="0")
    assert "submission.csv was there before, and is replaced" in again.notes
    with pytest.raises(UserError, match=r"lies in the data folder, which is never written to"):
        submit(route, kaggle_set, kaggle_set / "s.csv")
    with pytest.raises(UserError, match=r"is a folder; give the name of a file"):
        submit(route, kaggle_set, tmp_path)
    with pytest.raises(UserError, match=r"there is no folder .*nowhere\. Make it first"):
        submit(route, kaggle_set, tmp_path / "nowhere" / "s.csv")


def test_a_task_or_views_that_there_are_not(route, kaggle_set, tmp_path):
    with pytest.raises(UserError, match=r"--task localisation: expected classification or localization\. Did you mean 'localiz"):
        submit(route, kaggle_set, tmp_path / "s.csv", task="localisation")
    with pytest.raises(UserError, match="--views 10crop"):
        submit(route, kaggle_set, tmp_path / "s.csv", views="10crop")
    for options in ({"method": "cam"}, {"layer": "0"}, {"threshold": 0.2}):
        with pytest.raises(UserError, match="are of boxes: add --task localization"):
            submit(route, kaggle_set, tmp_path / "s.csv", **options)
    assert not (tmp_path / "s.csv").exists()


def test_a_pack_is_answered_for_in_its_own_pixels(tmp_path):
    made = synthetic.make(tmp_path / "set", layout="ilsvrc", classes=2, per_class=1, val_per_class=2)
    how = format.chosen(False, 32, None, None, None, None, None)
    write.pack(str(tmp_path / "set"), tmp_path / "pack", how, "fail", 1)
    route = untrained(Classes(made.classes, ("", "")), tmp_path)
    done = submit(route, tmp_path / "pack", tmp_path / "s.csv", workers="0")
    assert any("boxes are in pixels of these, not of the photos" in note for note in done.notes)
    rows = table(done.path)
    assert list(rows) == [f"ILSVRC2012_test_{n:08d}" for n in (1, 2, 3, 4)]  # the test split alone
    assert all(min(int(word) for word in value.split()[3:5]) == 31 for value in rows.values())
    assert check(done.path, data=tmp_path / "pack").errors == 0


def test_progress_is_told(route, kaggle_set, tmp_path):
    told = []
    submit(route, kaggle_set, tmp_path / "s.csv", workers="0", watch=lambda done, total: told.append((done, total)))
    assert told == [(0, 4)]


# ---------------------------------------------------------------- saved predictions


@pytest.fixture(name="saved")
def _saved(tmp_path: Path) -> Predictions:
    """Predictions of the four photos, found under another folder and in another order: green, blue, red, red is said."""
    keys = [f"elsewhere/ILSVRC2012_test_{n:08d}.JPEG" for n in (4, 3, 2, 1)]
    scores = np.eye(3, dtype=np.float32)[[2, 2, 0, 1]]
    return Predictions(keys, np.full(4, -1), scores, "logits", Classes(WNIDS, ("", "", "")), "how it was done")


def test_predictions_in_the_place_of_a_run(saved, kaggle_set, tmp_path):
    saved.write(tmp_path / "p.parquet")
    done = submit(tmp_path / "p.parquet", kaggle_set, tmp_path / "s.csv")
    assert [value.split()[0] for value in table(done.path).values()] == ["2", "1", "3", "3"]
    assert "how it was done" in done.answered_by
    assert check(done.path, data=kaggle_set).defects == ()


def test_predictions_that_lack_an_image_and_those_of_another_set(saved, kaggle_set, tmp_path):
    saved.select(np.array([0, 1, 2])).write(tmp_path / "p.parquet")
    done = submit(str(tmp_path / "p.parquet"), kaggle_set, tmp_path / "s.csv")
    assert [reason for _, reason in done.filled] == ["not in the predictions"]
    assert table(done.path)["ILSVRC2012_test_00000001"] == "3 0 0 23 19"
    replace(saved, keys=[f"val_{n}.JPEG" for n in range(4)]).write(tmp_path / "p.parquet")
    with pytest.raises(DataError, match=r"none of its 4 predictions is for one of the 4 test images; it has 'val_0'"):
        submit(tmp_path / "p.parquet", kaggle_set, tmp_path / "s.csv")
    replace(saved, keys=["a/1.jpg", "b/1.jpg", "c", "d"]).write(tmp_path / "p.parquet")
    with pytest.raises(DataError, match=r"'a/1\.jpg' and 'b/1\.jpg' have one file name"):
        submit(tmp_path / "p.parquet", kaggle_set, tmp_path / "s.csv")
    with pytest.raises(CheckpointError, match=r"none\.parquet"):
        submit(tmp_path / "none.parquet", kaggle_set, tmp_path / "s.csv")


# ---------------------------------------------------------------- Tiny ImageNet


def test_tiny_imagenets_form(tmp_path):
    made = synthetic.make(tmp_path / "tiny", layout="tiny", classes=3, per_class=1, val_per_class=2)
    route = untrained(Classes(made.classes, ("", "", "")), tmp_path)
    done = submit(route, tmp_path / "tiny" / "test", tmp_path / "s.txt", format="tiny", workers="0")
    lines = done.path.read_text().splitlines()
    assert [line.split(" ")[0] for line in lines] == [f"test_{n}.JPEG" for n in range(6)]
    assert {line.split(" ")[1] for line in lines} <= set(made.classes)
    assert check(done.path, "tiny", tmp_path / "tiny").defects == ()
    with pytest.raises(
        UserError, match=r"--format tiny: 1 of the network's 1 classes are not in the wnids.txt of the data: 'cat'"
    ):
        submit(untrained(Classes(("cat",), ("",)), tmp_path), tmp_path / "tiny", tmp_path / "s.txt", format="tiny")


def test_the_test_images_of_the_real_tiny_imagenet(real_data, tmp_path):
    root = real_data / "tiny-imagenet-200"
    ids = ordered((path.name for path in (root / "train").iterdir()), "text")
    route = untrained(Classes(ids, ids), tmp_path)
    done = submit(route, root, tmp_path / "s.txt", format="tiny", workers="0")
    lines = done.path.read_text().splitlines()
    shipped = {path.name for path in (root / "test" / "images").iterdir()}
    assert done.images == len(lines) == len(shipped)
    assert {line.split(" ")[0] for line in lines} == shipped
    assert done.filled == ()
    assert check(done.path, "tiny", root / "test").defects == ()


# ---------------------------------------------------------------- there and back


@pytest.mark.slow
def test_a_thousand_images_there_and_back(tmp_path):
    """Written, checked, and scored against the known labels: the error is that of `metrics.hits` on the same predictions."""
    classes, images, copies = 12, 8, 11
    count = classes * images
    synthetic.make(tmp_path / "set", layout="ilsvrc", classes=classes, per_class=1, val_per_class=images)
    test = tmp_path / "set/ILSVRC/Data/CLS-LOC/test"
    rendered = sorted(test.iterdir())
    assert len(rendered) == count
    for number in range(count, count * copies):
        shutil.copy(rendered[number % count], test / f"ILSVRC2012_test_{number + 1:08d}.JPEG")
    ids = [line.split()[0] for line in (tmp_path / "set" / "LOC_synset_mapping.txt").read_text().splitlines()]
    # The set keeps the labels of its test images to itself; this is the order in which it numbers them.
    wnid_of_thing = np.array([thing.wnid for thing in synthetic.THINGS[:classes]])
    order = machine.permutation(0, "builtin/order/test", 0, count)
    wnids = np.tile(np.repeat(wnid_of_thing, images)[order], copies)
    boxes = "{0} 0 0 5 5 {0} 1 1 9 9 "
    rows = [f"ILSVRC2012_test_{number + 1:08d},{boxes.format(wnid)}" for number, wnid in enumerate(wnids)]
    solution = tmp_path / "solution.csv"
    solution.write_bytes(("\ufeffImageId,PredictionString\r\n" + "\r\n".join(rows) + "\r\n").encode())

    shuffled = tuple(np.random.default_rng(1).permutation(ids).tolist())  # a network whose order is not the mapping's
    route = untrained(Classes(shuffled, shuffled), tmp_path)
    done = submit(route, test, tmp_path / "s.csv", workers="2")
    checked = check(done.path, data=test)
    assert (done.images, checked.rows, checked.defects) == (count * copies, count * copies, ())

    mapping = tmp_path / "set" / "LOC_synset_mapping.txt"
    found = score(done.path, solution, mapping)
    scores = _scores(route, test)
    truth = np.array([shuffled.index(wnid) for wnid in wnids])
    assert found.images == count * copies > 1000 and found.notes == ()
    assert found.top1_error == (~metrics.hits(scores, truth, 1)).mean()
    assert found.top5_error == (~metrics.hits(scores, truth, 5)).mean()
    assert 0 < found.top5_error < found.top1_error < 1


def _scores(route: Route, test: Path) -> np.ndarray:
    """What the network says of the photos of a folder, sorted by path."""
    index, colour = detect.open_photos(test), route.colour
    assert colour.classes is not None
    batches = ordered_batches(Streaming(index, False), index, colour.view, None, 256, Workers("threads", 2))
    said, bad = predict(colour.model, batches, colour.view, torch.device("cpu"), "fp32", colour.classes, True)
    assert bad == [] and list(said.keys) == sorted(said.keys)
    return said.scores

"""Evaluations that lie on the disk: read back, scored again to the same numbers, judged by other labels, refused when damaged."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, top_k_accuracy_score

from striate import files
from striate.classes import Classes
from striate.errors import CheckpointError, DataError, UserError
from striate.evaluate import saved, score
from striate.evaluate.saved import Saved, is_saved, open_saved, rescore
from striate.predictions import Predictions
from striate.view import View

VIEW = View(32, "crop", 36, "bilinear", False, (0.5,) * 3, (0.25,) * 3)
IMAGES, K = 60, 6


def classes_of(count: int = K, first: int = 0) -> Classes:
    return Classes(tuple(f"n{number + first:03}" for number in range(count)), ("",) * count)


def said(seed: int, images: int = IMAGES, classes: int = K, right: float = 1.0) -> Predictions:
    """Logits of a network that favours the true class by `right`, of the same images whatever the seed."""
    labels = np.arange(images) % classes
    scores = np.random.default_rng(seed).normal(size=(images, classes)).astype(np.float32)
    scores[np.arange(images), labels] += np.float32(right)
    return Predictions([f"val/{row:03}.jpg" for row in range(images)], labels, scores, "logits", classes_of(classes))


def written(
    run: Path,
    predictions: Predictions,
    bad: Sequence[tuple[str, str]] = (),
    numbers: Mapping[str, np.ndarray] | None = None,
    **protocol: Any,
) -> Path:
    """The folder of an evaluation in `run`, as `evaluate` writes it."""
    told = score.Protocol("val", VIEW, "raw", "fp32", data_fingerprint="f" * 12, **{"checkpoint": "step-9", **protocol})
    summary = score.score(predictions, len(predictions) + len(bad), bad, told, None, numbers)
    name = score.evaluation_name(told, told.data_fingerprint, str(run))
    return score.write_evaluation(run / "evaluation" / name, summary, predictions, bad, None, numbers)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An evaluation by ten crops with one bad image; its images' numbers have the six digits that images.csv keeps."""
    numbers = np.random.default_rng(9)
    brightness = {"brightness": numbers.uniform(size=IMAGES).round(6), "box share": numbers.uniform(0.01, 1, IMAGES).round(6)}
    brightness["box share"][::7] = np.nan
    return written(
        tmp_path / "run", said(0), [("val/bad, one.jpg", 'cut "short"')], brightness, looking="10 crops", views="10crop"
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# ---------------------------------------------------------------- reading


def test_a_folder_is_read_as_it_was_written(folder: Path) -> None:
    found = open_saved(folder)
    assert found.name == folder.name
    assert found.folder == folder
    assert np.array_equal(found.predictions.scores, said(0).scores)
    assert found.bad == (("val/bad, one.jpg", 'cut "short"'),)
    assert found.summary is not None and found.summary["views"] == "10crop"
    assert set(found.numbers) == {"brightness", "box share"}
    assert np.isnan(found.numbers["box share"][::7]).all()
    assert len(found.numbers["brightness"]) == IMAGES


def test_what_is_saved_and_what_is_not(folder: Path, tmp_path: Path) -> None:
    lone = tmp_path / "lone.parquet"
    said(0).write(lone)
    assert is_saved(folder) and is_saved(str(folder)) and is_saved(folder / "predictions.parquet") and is_saved(lone)
    for other in (tmp_path / "run", tmp_path / "absent.parquet", "resnet18", tmp_path / "run" / "evaluation"):
        assert not is_saved(other)


def test_a_file_alone_has_no_evaluation(folder: Path, tmp_path: Path) -> None:
    lone = tmp_path / "lone.parquet"
    said(3).write(lone)
    found = open_saved(lone)
    assert (found.name, found.summary, found.bad, found.numbers, found.folder) == ("lone", None, (), {}, tmp_path)
    with pytest.raises(UserError, match=r"lone\.parquet: predictions without the folder.* Give the folder, or evaluate again"):
        rescore(found)
    whole = open_saved(folder / "predictions.parquet")
    assert whole.summary is not None and whole.name == folder.name


def test_a_relative_name_finds_the_run_above(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    found = open_saved(folder.name)
    assert found.folder.parent.parent.name == "run"
    monkeypatch.chdir(folder)
    assert open_saved(".").name == folder.name
    assert open_saved("predictions.parquet").folder == folder


def test_keys_that_are_no_text_and_have_commas_keep_their_numbers(tmp_path: Path) -> None:
    keys = ["val/a,b.jpg", 'val/"c".jpg', "val/\udcff.jpg", "val/line\nbreak.jpg", "val/ä.jpg", "val/f.jpg"]
    predictions = replace(said(0, 6), keys=keys)
    folder = written(tmp_path / "run", predictions, [("val/\udcfe.jpg", "cut")], {"brightness": np.arange(6) / 10})
    found = open_saved(folder)
    assert list(found.predictions.keys) == keys
    assert np.array_equal(found.numbers["brightness"], np.arange(6) / 10)
    assert rescore(found)[0]["bad"] == 1


# ---------------------------------------------------------------- scoring again


def test_scoring_again_equals_the_first_score(folder: Path) -> None:
    before = contents(folder)
    summary, where = rescore(open_saved(folder))
    assert where == folder
    assert json.loads(before["summary.json"]) == json.loads(files.to_json(summary))
    assert contents(folder) == before


def test_what_only_the_first_score_knew_is_kept(folder: Path) -> None:
    path = folder / "summary.json"
    parts = {"grey": {"images": 6, "top1": 0.5, "top1_interval": [0.2, 0.8]}}
    known = json.loads(path.read_text()) | {"parts": parts, "routed": {"grey": 6, "colour": 54}, "notes": ["a head was made"]}
    path.write_text(json.dumps(known))
    summary, _ = rescore(open_saved(folder))
    assert (summary["parts"], summary["routed"], summary["notes"]) == (parts, {"grey": 6, "colour": 54}, ["a head was made"])


def test_numbers_of_other_images_are_not_taken(folder: Path) -> None:
    path = folder / "images.csv"
    head, *rows = path.read_text().splitlines()
    path.write_text("\n".join([head, *rows[::-1]]) + "\n")
    assert open_saved(folder).numbers == {}
    path.unlink()
    assert open_saved(folder).numbers == {}


# ---------------------------------------------------------------- other labels


def test_labels_of_json_are_those_of_scikit_learn(folder: Path, tmp_path: Path) -> None:
    predictions = said(0)
    others = (predictions.labels + (np.arange(IMAGES) % 3 == 0)) % K
    names = {key: [predictions.classes.ids[label]] for key, label in zip(predictions.keys, others.tolist(), strict=True)}
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(names))
    before = contents(folder)
    summary, where = rescore(open_saved(folder), [str(path)])
    assert summary["top1"] == pytest.approx(accuracy_score(others, predictions.scores.argmax(1)))
    assert summary["top5"] == pytest.approx(top_k_accuracy_score(others, predictions.scores, k=5, labels=range(K)))
    assert (summary["used"], summary["bad"], summary["expected"]) == (IMAGES, 1, IMAGES + 1)
    assert (summary["classes_scored"], "subset: 4 of 6 classes present, all compete" in summary["protocol"]) == (4, True)
    assert "labels.json labels" in summary["protocol"] and "10 crops" in summary["protocol"]
    assert where.parent == folder.parent and where != folder and where.name.startswith(f"{folder.name}-by-")
    assert contents(folder) == before
    # The file keeps the data set's own labels, so that it can be judged by others again.
    assert np.array_equal(open_saved(where).predictions.labels, predictions.labels)


def test_several_labels_and_none_in_csv(folder: Path, tmp_path: Path) -> None:
    predictions = said(0)
    first, second = (predictions.labels + 1) % K, predictions.labels
    is_out = np.arange(IMAGES) % 10 == 0
    lines = ["key,labels"]
    for row, key in enumerate(predictions.keys):
        ids = "" if is_out[row] else f"{predictions.classes.ids[first[row]]};{predictions.classes.ids[second[row]]}"
        lines.append(f"{key},{ids}")
    path = tmp_path / "labels.csv"
    path.write_text("\n".join(lines))
    summary, _ = rescore(open_saved(folder), [str(path)])
    answers = predictions.scores.argmax(1)
    is_right = (answers == first) | (answers == second)
    assert summary["top1"] == pytest.approx(is_right[~is_out].mean())
    assert (summary["used"], summary["left_out"], summary["unlabelled"]) == (54, 6, 0)
    assert summary["expected"] == summary["used"] + summary["bad"] + summary["unlabelled"] + summary["left_out"]
    assert "54 of 61 images (1 bad, 6 left out)" in summary["protocol"]


def test_a_list_leaves_images_out(folder: Path, tmp_path: Path) -> None:
    predictions = said(0)
    path = tmp_path / "blacklist.txt"
    path.write_text("003\nval/017.jpg  # seen twice\n059.jpg\n")
    summary, where = rescore(open_saved(folder), [str(path)])
    kept = np.setdiff1d(np.arange(IMAGES), [3, 17, 59])
    assert summary["top1"] == pytest.approx(accuracy_score(predictions.labels[kept], predictions.scores.argmax(1)[kept]))
    assert (summary["used"], summary["left_out"]) == (57, 3)
    assert "original less 3 of blacklist.txt labels" in summary["protocol"]
    assert len(open_saved(where).predictions) == IMAGES


def test_the_labels_of_a_judged_folder_have_to_be_named_again(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "blacklist.txt"
    path.write_text("003\n")
    summary, where = rescore(open_saved(folder), [str(path)])
    before = contents(where)
    with pytest.raises(UserError, match=r"was scored by the labels original less 1 of blacklist\.txt.* with --labels"):
        rescore(open_saved(where))
    assert contents(where) == before
    again, same = rescore(open_saved(where), [str(path)])
    assert (same, again) == (where, summary)


@pytest.mark.parametrize(
    ("name", "text", "kind", "words"),
    [
        ("labels.json", "{", UserError, "not valid JSON"),
        ("labels.json", '{"val/000.jpg": ["n000"]}', DataError, "no labels for 59 of 60 images"),
        ("labels.csv", "val/000.jpg,n999\n", UserError, "no ids of the network's classes"),
        ("labels.csv", "val/000.jpg,n000\nval/001.jpg,n00l\n", DataError, r"label 'n00l' of image 'val/001\.jpg'"),
        ("list.txt", "val/999.jpg\n", DataError, r"line 1: no image is called 'val/999\.jpg'"),
        ("list.txt", "", DataError, "expected names or numbers of images"),
        ("labels.xml", "", UserError, "expected original, a .json or .csv of labels"),
    ],
)
def test_wrong_labels_leave_no_evaluation(
    folder: Path, tmp_path: Path, name: str, text: str, kind: type[Exception], words: str
) -> None:
    path = tmp_path / name
    path.write_text(text)
    before = contents(folder.parent)
    with pytest.raises(kind, match=words):
        rescore(open_saved(folder), [str(path)])
    assert contents(folder.parent) == before


# ---------------------------------------------------------------- damaged


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("summary.json", "[]", r"summary\.json: not a summary of striate"),
        ("bad_files.csv", "name\nval/x.jpg\n", r"bad_files\.csv: row 2 is damaged"),
        ("bad_files.csv", "key,reason\nval/x.jpg\n", r"bad_files\.csv: row 2 is damaged"),
        ("bad_files.csv", "key,reason\nval/x.jpg,cut,twice\n", r"bad_files\.csv: row 2 is damaged"),
        ("images.csv", "brightness\n0.5\n", r"images\.csv: row 2 is damaged"),
        ("bad_files.csv", b"key,reason\n\xff,x\n", r"bad_files\.csv: cannot be read"),
    ],
)
def test_damaged_files_are_named(folder: Path, name: str, text: str | bytes, words: str) -> None:
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(CheckpointError, match=f"{words}.*[Ee]valuate again"):
        open_saved(folder)


def test_numbers_that_are_none_are_named(folder: Path) -> None:
    path = folder / "images.csv"
    head, first, *rows = path.read_text().splitlines()
    path.write_text("\n".join([head, f"{first.split(',')[0]},bright,0.1", *rows]))
    with pytest.raises(CheckpointError, match=r"images\.csv: expected numbers .*bright.* Evaluate again"):
        open_saved(folder)


@pytest.mark.parametrize("field", ["split", "view", "weights", "precision", "views", "classes", "checkpoint", "data_fingerprint"])
def test_a_summary_without_a_field_is_damaged(folder: Path, field: str) -> None:
    path = folder / "summary.json"
    known = json.loads(path.read_text())
    del known[field]
    path.write_text(json.dumps(known))
    with pytest.raises(CheckpointError, match=rf"summary\.json: not a summary of striate .*{field}.* Evaluate again"):
        rescore(open_saved(folder))


def test_a_summary_of_an_older_version_is_scored(folder: Path) -> None:
    path = folder / "summary.json"
    known = json.loads(path.read_text())
    for field in ("looking", "stored", "routing", "answered_by", "labels", "parts"):
        del known[field]
    path.write_text(json.dumps(known))
    summary, _ = rescore(open_saved(folder))
    assert (summary["labels"], summary["looking"], summary["parts"]) == ("original", "1 view", {})


def test_a_truncated_parquet_file_is_named(folder: Path) -> None:
    path = folder / saved.PREDICTIONS
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"predictions\.parquet: cannot be read"):
        open_saved(folder)


def test_an_image_that_is_bad_and_scored_is_refused(folder: Path) -> None:
    found: Saved = replace(open_saved(folder), bad=(("val/000.jpg", "cut"),))
    with pytest.raises(DataError, match=r"counted more than once: 'val/000\.jpg"):
        rescore(found)

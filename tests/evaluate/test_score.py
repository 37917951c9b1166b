"""score: exact counts, the protocol beside the number, and files that are complete when the summary is there."""

import csv
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from striate import files, predictions
from striate.classes import Classes
from striate.errors import DataError, ResourceError, UserError
from striate.evaluate import metrics
from striate.evaluate.predict import renumber
from striate.evaluate.score import Protocol, account, evaluation_name, headline, parts_line, score, write_evaluation
from striate.predictions import Predictions
from striate.view import View

VIEW = View(64, "crop", 72, "bilinear", False, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
PROTOCOL = Protocol("val", VIEW, "EMA", "bf16")
CLASSES = Classes(tuple(f"n{i}" for i in range(8)), ("crane", "crane", "bee", "cat", "dog", "elk", "fox", ""))


def said(images: int = 80, seed: int = 0, classes: Classes = CLASSES, right: float = 1.5) -> Predictions:
    numbers = np.random.default_rng(seed)
    labels = np.arange(images) % len(classes)
    scores = numbers.normal(size=(images, len(classes))).astype(np.float32)
    scores[np.arange(images), labels] += right
    return Predictions([f"{i}.jpg" for i in range(images)], labels, scores, "logits", classes)


def strict_json(path: Path) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} in {path}")

    return json.loads(path.read_text(), parse_constant=refuse)


# ---------------------------------------------------------------- numbers and counts


def test_summary_is_sums_over_images() -> None:
    data = said()
    summary = score(data, 82, [("x.jpg", "empty"), ("y.jpg", "cut")], PROTOCOL)
    assert summary["top1"] == np.mean(data.scores.argmax(1) == data.labels)
    assert summary["top5"] == metrics.hits(data.scores, data.labels, 5).mean()
    assert summary["top1_interval"] == list(metrics.wilson(round(summary["top1"] * 80), 80))
    assert (summary["expected"], summary["used"], summary["bad"]) == (82, 80, 2)
    assert summary["top5_k"] == 5
    assert summary["mean_class_top1"] == pytest.approx(summary["top1"])  # ten images in every class
    assert summary["warnings"] == []


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("images", [12, 13, 14, 15, 16])
def test_e1_e2_a_short_last_batch_changes_no_number(images: int, size: int) -> None:
    data = said(images)
    parts = [data.select(np.arange(first, min(first + size, images))) for first in range(0, images, size)]
    whole = score(data, images, [], PROTOCOL)
    by_hand = sum(float(metrics.hits(part.scores, part.labels, 1).sum()) for part in parts) / images
    loss = sum(metrics.cross_entropy(part.scores, part.labels, "logits") * len(part) for part in parts) / images
    assert whole["top1"] == by_hand
    assert whole["loss"] == pytest.approx(loss, rel=1e-12)


def test_e1_counts_must_come_out() -> None:
    data = said()
    with pytest.raises(DataError, match="81 images expected, but 80 scored and 0 bad"):
        score(data, 81, [], PROTOCOL)
    with pytest.raises(DataError, match="79 images expected"):
        score(data, 79, [], PROTOCOL)
    with pytest.raises(DataError, match=r"more than once: '3\.jpg'"):
        score(data, 81, [("3.jpg", "empty")], PROTOCOL)
    doubled = replace(data, keys=["0.jpg", "0.jpg", *data.keys[2:]])
    with pytest.raises(DataError, match=r"more than once: '0\.jpg'"):
        score(doubled, 80, [], PROTOCOL)


def test_e1_the_images_must_be_those_of_the_set() -> None:
    data = said(8)
    account(data.keys, data, [])
    account([*data.keys, "x.jpg"], data, [("x.jpg", "empty")])
    with pytest.raises(DataError, match=r"missing 'new\.jpg'; extra '7\.jpg'"):
        account([*data.keys[:7], "new.jpg"], data, [])


def test_e3_a_dropped_last_batch_or_a_shuffled_order_is_refused() -> None:
    data = said(24)
    with pytest.raises(DataError, match="24 images expected, but 16 scored"):
        account(data.keys, data.select(np.arange(16)), [])
    with pytest.raises(DataError, match=r"another order.*'5\.jpg' stands where '4\.jpg'"):
        account(data.keys, data.select(np.array([0, 1, 2, 3, 5, 4, *range(6, 24)])), [])
    account(data.keys, data.select(np.arange(1, 24)), [("0.jpg", "empty")])


def test_e6_few_classes_say_which_k_top_5_is() -> None:
    three = Classes(("a", "b", "c"), ("", "", ""))
    summary = score(said(30, classes=three), 30, [], PROTOCOL)
    assert (summary["top5"], summary["top5_k"]) == (1.0, 3)
    assert "top-3 100.00%" in headline(summary)


def test_e6_a_constant_network_is_reported_as_such() -> None:
    data = replace(said(), scores=np.zeros((80, 8), np.float32))
    summary = score(data, 80, [], PROTOCOL)
    assert summary["top1"] == 1 / 8
    assert summary["tied_first"] == 80
    assert "same score for all classes" in summary["warnings"][0]
    assert len(summary["warnings"]) == 1


def test_ties_from_rounding_are_reported() -> None:
    data = said()
    summary = score(replace(data, scores=np.round(data.scores)), 80, [], PROTOCOL)
    assert any("share the best score" in warning for warning in summary["warnings"])


def test_e8_permuted_labels_are_warned_of_by_name() -> None:
    data = said(800, right=3)
    shifted = replace(data, labels=(data.labels + 1) % 8)
    (warning,) = score(shifted, 800, [], PROTOCOL)["warnings"]
    assert "labels look permuted" in warning
    assert "crane (n0)" in warning
    assert score(data, 800, [], PROTOCOL)["warnings"] == []


def test_e10_nothing_to_score_is_a_data_error() -> None:
    data = said()
    nobody = data.select(np.array([], np.int64))
    with pytest.raises(DataError, match="no images"):
        score(nobody, 0, [], PROTOCOL)
    with pytest.raises(DataError, match=r"none of 1 images could be read: 'x\.jpg \(empty\)'") as caught:
        score(nobody, 1, [("x.jpg", "empty")], PROTOCOL)
    assert caught.value.exit_code == 3
    with pytest.raises(DataError, match="has a label"):
        score(replace(data, labels=np.full(80, -1)), 80, [], PROTOCOL)


def test_e10_a_class_without_an_image_is_a_data_error_unless_a_part_is_wanted() -> None:
    data = said()
    part = data.select(data.labels != 3)
    with pytest.raises(DataError, match=r"1 of 8 classes .*'n3'.*--subset"):
        score(part, len(part), [], PROTOCOL)
    summary = score(part, len(part), [], replace(PROTOCOL, subset=True))
    assert "subset: 7 of 8 classes present, all compete" in summary["protocol"]
    assert summary["classes_scored"] == 7


def test_unlabelled_images_have_predictions_and_no_score() -> None:
    data = said()
    labels = data.labels.copy()
    labels[64:] = -1
    summary = score(replace(data, labels=labels), 81, [("x.jpg", "empty")], PROTOCOL)
    assert (summary["used"], summary["unlabelled"], summary["bad"], summary["expected"]) == (64, 16, 1, 81)
    assert "64 of 81 images (1 bad, 16 unlabelled)" in summary["protocol"]


def test_e13_a_permuted_class_list_gives_the_same_score() -> None:
    data = said()
    order = np.random.default_rng(1).permutation(8)
    listed = Classes(tuple(CLASSES.ids[i] for i in order), tuple(CLASSES.names[i] for i in order))
    labels_as_listed = np.argsort(order)[data.labels]
    joined = renumber(labels_as_listed, CLASSES.match(listed))
    assert score(replace(data, labels=joined), 80, [], PROTOCOL) == score(data, 80, [], PROTOCOL)


def test_e13_more_classes_in_the_weights_than_in_the_data() -> None:
    data_classes = Classes(("n1", "n4"), ("", ""))
    with pytest.raises(UserError, match=r"n0.*--subset"):
        CLASSES.match(data_classes)
    labels = renumber(np.array([0, 1]), CLASSES.match(data_classes, subset=True))
    assert [CLASSES.ids[label] for label in labels] == ["n1", "n4"]
    with pytest.raises(UserError, match="unicorn"):
        CLASSES.match(Classes(("n1", "unicorn"), ("", "")), subset=True)


# ---------------------------------------------------------------- grey and colour apart


def test_d7_parts_are_counts_of_their_own_and_add_up() -> None:
    data = said()
    is_grey = np.arange(80) % 5 == 0
    summary = score(data, 80, [], PROTOCOL, is_grey)
    right = data.scores.argmax(1) == data.labels
    grey, colour = summary["parts"]["grey"], summary["parts"]["colour"]
    assert (grey["images"], colour["images"]) == (16, 64)
    assert (grey["top1"], colour["top1"]) == (right[is_grey].mean(), right[~is_grey].mean())
    assert grey["top1_interval"] == list(metrics.wilson(int(right[is_grey].sum()), 16))
    assert 16 * grey["top1"] + 64 * colour["top1"] == pytest.approx(80 * summary["top1"])
    assert parts_line(summary).startswith(f"grey images: 16, top-1 {grey['top1']:.2%} (")
    assert "routed" not in summary


def test_d7_parts_leave_unlabelled_images_out_and_are_empty_without_grey() -> None:
    data = said()
    labels = data.labels.copy()
    labels[64:] = -1
    is_grey = np.arange(80) >= 60
    summary = score(replace(data, labels=labels), 80, [], replace(PROTOCOL, routing="two networks"), is_grey)
    assert {name: part["images"] for name, part in summary["parts"].items()} == {"grey": 4, "colour": 60}
    assert summary["routed"] == {"grey": 20, "colour": 60}
    assert summary["protocol"].endswith("two networks")
    assert score(data, 80, [], PROTOCOL, np.zeros(80, bool))["parts"] == {}
    assert list(score(data, 80, [], PROTOCOL, np.ones(80, bool))["parts"]) == ["grey"]


# ---------------------------------------------------------------- protocol


def test_d24_e11_the_protocol_says_all_that_decides_a_number() -> None:
    line = score(said(), 81, [("x.jpg", "empty")], PROTOCOL)["protocol"]
    for part in (
        "val split",
        "80 of 81 images (1 bad)",
        "8 classes",
        "original labels",
        "1 view",
        VIEW.describe(),
        "EMA weights",
        "bf16",
    ):
        assert part in line
    assert "\n" not in line
    assert "raw weights" in score(said(), 80, [], replace(PROTOCOL, weights="raw"))["protocol"]
    assert "EMA weights of step-120" in score(said(), 80, [], replace(PROTOCOL, checkpoint="step-120"))["protocol"]
    packed = replace(PROTOCOL, stored="JPEG, quality 85")
    assert "images packed as JPEG, quality 85" in score(said(), 80, [], packed)["protocol"] and "packed" not in line
    assert "ReaL labels" in score(said(), 80, [], replace(PROTOCOL, labels="ReaL"))["protocol"]


def test_folder_name_tells_data_weights_and_view_apart() -> None:
    name = evaluation_name(PROTOCOL, "data", "weights")
    assert name.startswith("val-center-")
    assert len(name.rsplit("-", 1)[1]) == 6
    other_view = replace(PROTOCOL, view=replace(VIEW, resize_px=80))
    others = {
        evaluation_name(PROTOCOL, "other", "weights"),
        evaluation_name(PROTOCOL, "data", "other"),
        evaluation_name(other_view, "data", "weights"),
    }
    assert len(others | {name}) == 4
    assert name == evaluation_name(PROTOCOL, "data", "weights")


# ---------------------------------------------------------------- files


def test_files_of_an_evaluation(tmp_path: Path) -> None:
    data, bad = said(), [("odd, \udcff name.jpg", "cut, at byte 20")]
    summary = score(data, 81, bad, PROTOCOL)
    folder = write_evaluation(tmp_path / "evaluation" / "val-center-123456", summary, data, bad)
    assert {file.name for file in folder.iterdir()} == {
        "summary.json",
        "per_class.csv",
        "confusion.csv",
        "predictions.parquet",
        "bad_files.csv",
        "reliability.csv",
        "coverage.csv",
    }
    assert strict_json(folder / "summary.json") == summary
    kept = predictions.read(folder / "predictions.parquet")
    assert np.array_equal(kept.scores, data.scores)
    assert kept.protocol == summary["protocol"]
    with open(folder / "per_class.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class_id"] for row in rows] == list(CLASSES.ids)
    assert sum(float(row["top1"]) * int(row["images"]) for row in rows) / 80 == pytest.approx(summary["top1"], abs=1e-5)
    with open(folder / "confusion.csv", encoding="utf-8", newline="") as file:
        table = list(csv.reader(file))
    assert table[0][1:] == list(CLASSES.ids)
    assert np.array_equal(np.array([row[1:] for row in table[1:]], int), metrics.confusion(data.scores, data.labels))
    with open(folder / "bad_files.csv", encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [["key", "reason"], ["odd, \\udcff name.jpg", "cut, at byte 20"]]


def test_tables_of_confidence_and_of_the_images(tmp_path: Path) -> None:
    data = said()
    brightness_N = np.linspace(0.1, 0.9, 80)
    brightness_N[3] = np.nan
    numbers = {"brightness": brightness_N}
    summary = score(data, 80, [], PROTOCOL, None, numbers)
    folder = write_evaluation(tmp_path / "e", summary, data, [], None, numbers)
    with open(folder / "reliability.csv", encoding="utf-8", newline="") as file:
        bins = list(csv.DictReader(file))
    assert len(bins) == 15 and sum(int(row["images"]) for row in bins) == 80
    right = sum(float(row["top1"]) * int(row["images"]) for row in bins if row["top1"])
    assert right / 80 == pytest.approx(summary["top1"], abs=1e-5)
    gaps = [abs(float(row["top1"]) - float(row["confidence"])) * int(row["images"]) for row in bins if row["top1"]]
    assert sum(gaps) / 80 == pytest.approx(summary["calibration_error"], abs=1e-5)
    with open(folder / "coverage.csv", encoding="utf-8", newline="") as file:
        curve = {row["coverage"]: float(row["top1"]) for row in csv.DictReader(file)}
    assert curve["1.00"] == pytest.approx(summary["top1"], abs=1e-6)
    assert {share: curve[f"{float(share):.2f}"] for share in summary["coverage"]} == pytest.approx(summary["coverage"], abs=1e-6)
    with open(folder / "images.csv", encoding="utf-8", newline="") as file:
        images = list(csv.DictReader(file))
    assert [row["key"] for row in images] == list(data.keys)
    assert [float(row["brightness"]) if row["brightness"] else None for row in images] == [
        None if np.isnan(value) else value for value in brightness_N.tolist()
    ]
    strata = summary["strata"]["brightness"]
    assert sum(one["images"] for one in strata) == 80 and strata[-1]["low"] is None and strata[-1]["images"] == 1
    right = sum(one["top1"] * one["images"] for one in strata)
    assert right / 80 == pytest.approx(summary["top1"])


def test_images_that_do_not_count_are_accounted_for() -> None:
    data = said()
    labels_N = data.labels.copy()
    labels_N[:5] = -1
    protocol = replace(PROTOCOL, labels="original less 5 of list.txt", left_out=5)
    summary = score(replace(data, labels=labels_N), 80, [], protocol)
    assert (summary["expected"], summary["used"], summary["left_out"], summary["unlabelled"]) == (80, 75, 5, 0)
    assert (
        "75 of 80 images (0 bad, 5 left out)" in summary["protocol"]
        and "original less 5 of list.txt labels" in summary["protocol"]
    )


def test_e12_an_infinite_loss_is_null_in_the_file(tmp_path: Path) -> None:
    scores = np.where(np.eye(8, dtype=bool)[np.arange(80) % 8], -np.inf, np.log(1 / 7)).astype(np.float32)
    data = replace(said(), scores=scores, scale="log-probabilities")
    summary = score(data, 80, [], PROTOCOL)
    assert summary["loss"] == math.inf
    assert strict_json(write_evaluation(tmp_path / "e", summary, data, []) / "summary.json")["loss"] is None
    assert "infinite" in headline(summary)


def test_e12_killed_while_writing_never_leaves_a_summary_without_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    data = said()
    summary = score(data, 80, [], PROTOCOL)
    folder = write_evaluation(tmp_path / "e", summary, data, [])
    everything = {file.name for file in folder.iterdir()}
    really, died = files.sync_folder, 0
    for at in range(20):
        left = [at]

        def sync(place: Path, left: list[int] = left) -> None:
            really(place)
            if left[0] == 0:
                raise Killed
            left[0] -= 1

        monkeypatch.setattr(files, "sync_folder", sync)
        try:
            write_evaluation(folder, summary, data, [])
        except Killed:
            died += 1
            names = {file.name for file in folder.iterdir()}
            assert "summary.json" not in names or names == everything
        else:
            break
    assert died == 8
    assert {file.name for file in folder.iterdir()} == everything


def test_e12_a_full_disk_is_a_resource_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    data = said()
    monkeypatch.setattr(files, "write_synced", full)
    with pytest.raises(ResourceError, match="no room"):
        write_evaluation(tmp_path / "e", score(data, 80, [], PROTOCOL), data, [])
    assert not (tmp_path / "e" / "summary.json").exists()


def test_odd_class_names_reach_the_files(tmp_path: Path) -> None:
    odd = Classes(('a,"b"', "\udcff", "日"), ('comma, "quote"', "", "new\nline"))
    data = said(30, classes=odd, right=3)
    shifted = replace(data, labels=(data.labels + 1) % 3)
    folder = write_evaluation(tmp_path / "e", score(shifted, 30, [], PROTOCOL), shifted, [])
    with open(folder / "per_class.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class_id"] for row in rows] == ['a,"b"', "\\udcff", "日"]
    assert rows[2]["name"] == "new\nline"
    assert predictions.read(folder / "predictions.parquet").classes == odd

"""The challenge's error, compared with torchmetrics and with a case by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassAccuracy

from striate import geometry
from striate.data.layouts import ilsvrc
from striate.errors import DataError, UserError
from striate.evaluate import metrics
from striate.submission import kaggle
from striate.submission.score import score

IDS = tuple(f"n{number:08d}" for number in range(1, 13))
HEADER = "ImageId,PredictionString\n"


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    """A mapping that is not sorted: labels of n00000012 to n00000001 are 1 to 12."""
    (tmp_path / "LOC_synset_mapping.txt").write_text("".join(f"{wnid} word\n" for wnid in reversed(IDS)))
    return tmp_path


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def test_equals_torchmetrics_and_our_own_hits(folder: Path):
    numbers = np.random.default_rng(3)
    scores_NK = numbers.normal(size=(400, 12)).astype(np.float32)
    truth_N = numbers.integers(0, 12, 400)
    label_K = np.arange(12, 0, -1)
    best_N5 = metrics.top_k(scores_NK, 5)
    text = kaggle.text((f"v{n}", label_K[best_N5[n]].tolist(), [(0, 0, 9, 9)] * 5) for n in range(400))
    solution = HEADER + "".join(f"v{n},{IDS[truth_N[n]]} 0 0 5 5 {IDS[truth_N[n]]} 1 1 9 9 \n" for n in numbers.permutation(400))
    found = score(write(folder / "s.csv", text), write(folder / "LOC_val_solution.csv", solution))
    assert found.images == 400 and found.notes == ()
    for k, error in ((1, found.top1_error), (5, found.top5_error)):
        theirs = MulticlassAccuracy(num_classes=12, top_k=k, average="micro")
        accuracy = theirs(torch.from_numpy(scores_NK), torch.from_numpy(truth_N))
        assert error == pytest.approx(1 - float(accuracy), abs=1e-6)
        assert error == pytest.approx(1 - metrics.hits(scores_NK, truth_N, k).mean(), abs=1e-12)
    assert found.top5_error_interval == metrics.wilson(round(found.top5_error * 400), 400)


def test_a_case_by_hand_with_every_kind_of_defect(folder: Path):
    """Five images: right at once, right in fifth place, right only in sixth place, without a row, with a row that is broken."""
    text = (
        "\ufeff" + HEADER + "a,12 0 0 9 9\n"
        "b,1 0 0 9 9 2 0 0 9 9 3 0 0 9 9 4 0 0 9 9 11 0 0 9 9\n"
        "c,1 0 0 9 9 2 0 0 9 9 3 0 0 9 9 4 0 0 9 9 5 0 0 9 9 10 0 0 9 9\n"
        "e,n00000005 0 0 9 9\n"
        "a,1 0 0 9 9\n"
        "stranger,1 0 0 9 9\n"
    ).replace("\n", "\r\n")
    solution = (
        HEADER + "a,n00000001 0 0 5 5\nb,n00000002 0 0 5 5 n00000002 6 6 9 9 \nc,n00000003 0 0 5 5\n"
        "d,n00000004 0 0 5 5\ne,n00000005 0 0 5 5\nb,n00000002 0 0 5 5\n"
    ).replace("\n", "\r\n")
    found = score(write(folder / "s.csv", text), write(folder / "LOC_val_solution.csv", solution, "utf-8-sig"))
    assert (found.images, found.top1_error, found.top5_error) == (5, 4 / 5, 3 / 5)
    assert (found.without_row, found.without_label, found.extra_rows, found.errors) == (1, 1, 1, 2)
    said = "\n".join(found.describe())
    assert "top-5 error 60.00%" in said and "top-1 error 80.00%" in said
    assert "LOC_val_solution.csv: 1 repeated rows (the first counts)" in said
    assert "1 images have no row, and count as wrong" in said and "--check" in said


def test_without_a_mapping_the_order_of_ids_is_taken_and_said(tmp_path: Path):
    solution = write(tmp_path / "solution.csv", HEADER + "a,n00000007 0 0 5 5\nb,n00000003 0 0 5 5\n")
    submission = write(tmp_path / "s.csv", HEADER + "a,2 0 0 9 9\nb,1 0 0 9 9\n")
    found = score(submission, solution)
    assert found.top1_error == 0
    assert any("No LOC_synset_mapping.txt was found" in note for note in found.notes)
    mapping = write(tmp_path / "m.txt", "n00000007 x\nn00000003 y\n")
    assert score(submission, solution, mapping).top1_error == 1


@pytest.mark.parametrize(
    ("submission", "solution", "error", "said"),
    [
        ("x,1 0 0 9 9\n", "a,n00000001 0 0 5 5\n", DataError, r"names none of the 1 images.*'a'"),
        ("a,1 0 0 9 9\n", "a,n00000099 0 0 5 5\n", DataError, r"1 of its classes have no line in .*n00000099"),
        (
            "a,1 0 0 9 9\n",
            "a,n00000001 0 0 5 5 n00000002 0 0 5 5\n",
            DataError,
            r"row 2: boxes of one image must be of one class",
        ),
        ("a,1 0 0 9 9\n", "a,n00000001 0 0 5\n", DataError, r"row 2: expected an ImageId and groups"),
        ("a,1 0 0 9 9\n", "", DataError, r"has no row"),
    ],
)
def test_what_cannot_be_scored(folder: Path, submission, solution, error, said):
    with pytest.raises(error, match=said):
        score(write(folder / "s.csv", HEADER + submission), write(folder / "LOC_val_solution.csv", HEADER + solution))


def test_files_that_are_not_there(folder: Path):
    there = write(folder / "there.csv", HEADER + "a,n00000001 0 0 5 5\n")
    with pytest.raises(UserError, match=r"--solution .*none\.csv: no such file"):
        score(there, folder / "none.csv")
    with pytest.raises(UserError, match=r"none\.csv: expected a text file"):
        score(folder / "none.csv", there)


def test_rows_and_the_truth_are_all_that_a_scorer_of_boxes_needs(folder: Path):
    """By hand: 25 of 100 square pixels, and the box itself; a row without a box overlaps nothing."""
    (row,) = kaggle.read(write(folder / "s.csv", HEADER + "a,12 0 0 10 10 12 0 0 5 5\n")).rows
    truth = ilsvrc.read_table(write(folder / "LOC_val_solution.csv", HEADER + "a,n00000001 0 0 5 5\n"))
    has_label_5 = row.labels_5 == 12
    assert geometry.iou(row.boxes_54[has_label_5], truth.xyxy_M4).tolist() == [[0.25], [1.0]]
    assert geometry.is_valid(row.boxes_54).tolist() == [True, True, False, False, False]


# ---------------------------------------------------------------- boxes


def test_localisation_by_hand(folder: Path):
    """Of a label 12, each image with what it is called: errors counted by hand, boxes in pixels that count."""
    truth = {
        "right": "0 0 9 9",
        "second box": "0 0 9 9 n00000001 20 20 29 29",  # any of the image's boxes will do
        "exactly half": "0 0 9 9",  # 50 of 100 pixels
        "below half": "0 0 9 9",  # 40 of 100 pixels
        "wrong box": "0 0 9 9",
        "wrong label": "0 0 9 9",
        "apart": "0 0 9 9",  # right label and right box, in two predictions
        "third": "0 0 9 9",
        "not finite": "0 0 9 9",
        "one pixel": "5 5 5 5",
        "no row": "0 0 9 9",
    }
    said = {
        "right": "12 0 0 9 9",
        "second box": "12 20 20 29 29",
        "exactly half": "12 0 0 9 4",
        "below half": "12 0 0 9 3",
        "wrong box": "12 50 50 59 59",
        "wrong label": "3 0 0 9 9",
        "apart": "12 50 50 59 59 3 0 0 9 9",
        "third": "3 0 0 9 9 12 50 50 59 59 12 1 0 9 9",
        "not finite": "12 nan nan nan nan",
        "one pixel": "12 5 5 5 5",
    }
    submission = write(folder / "s.csv", HEADER + "".join(f"{name},{row}\n" for name, row in said.items()))
    solution = write(folder / "truth.csv", HEADER + "".join(f"{name},n00000001 {row} \n" for name, row in truth.items()))
    found = score(submission, solution)
    assert found.images == 11
    # Right at once: right, second box, exactly half, one pixel; and with one of the first five: third.
    assert found.top1_localisation_error == pytest.approx(7 / 11)
    assert found.top5_localisation_error == pytest.approx(6 / 11)
    assert found.top1_localisation_error_interval == metrics.wilson(7, 11)
    assert found.top5_localisation_error_interval == metrics.wilson(6, 11)
    # Of the classes only: wrong label and no row; third is right in third place.
    assert (found.top1_error, found.top5_error) == (pytest.approx(3 / 11), pytest.approx(2 / 11))
    assert found.without_box == 1 and any("1 images have a row without a box" in note for note in found.notes)
    assert "top-5 localisation error 54.55%" in found.describe()[1] and "top-1 localisation error 63.64%" in found.describe()[1]
    assert found.to_json()["top5_localisation_error"] == found.top5_localisation_error


def test_true_boxes_that_nothing_can_match_are_counted(folder: Path):
    rows = {"a": "9 9 0 0", "b": "5 0 4 9 n00000001 0 0 9 9", "c": "-9 -9 -1 -1", "d": "nan 0 9 9", "e": "4 4 4 4"}
    solution = write(folder / "truth.csv", HEADER + "".join(f"{name},n00000001 {row}\n" for name, row in rows.items()))
    submission = write(folder / "s.csv", HEADER + "".join(f"{name},12 0 0 9 9 12 4 4 4 4\n" for name in rows))
    found = score(submission, solution)
    assert (found.top1_error, found.top1_localisation_error, found.top5_localisation_error) == (0, 4 / 5, 3 / 5)
    said = "4 boxes are not finite, inside out or outside of any photo, and match nothing; 3 images have no other"
    assert any(said in note for note in found.notes)


def test_localisation_equals_that_of_the_same_boxes_as_edges(folder: Path):
    """Random answers: the share that a loop over single boxes with torchvision's IoU calls wrong."""
    boxes_of = pytest.importorskip("torchvision.ops").box_iou
    numbers = np.random.default_rng(5)
    count = 60
    truth_N = numbers.integers(0, 3, count)
    true_N24 = numbers.integers(0, 40, (count, 2, 4))
    true_N24[..., 2:] = true_N24[..., :2] + numbers.integers(8, 40, (count, 2, 2))
    near_N54 = true_N24[:, [0, 1, 0, 1, 0]] + numbers.integers(-5, 6, (count, 5, 4))
    near_N54 = np.maximum(near_N54, 0)
    near_N54[..., 2:] = np.maximum(near_N54[..., 2:], near_N54[..., :2])
    labels_N5 = numbers.integers(0, 3, (count, 5))
    said = "".join(
        f"v{n}," + " ".join(f"{label + 1} {' '.join(map(str, box))}" for label, box in zip(*one, strict=True)) + "\n"
        for n, one in enumerate(zip(labels_N5.tolist(), near_N54.tolist(), strict=True))
    )
    wnids = [IDS[-1 - label] for label in truth_N]
    solution = "".join(
        f"v{n}," + " ".join(f"{wnid} {' '.join(map(str, box))}" for box in boxes) + "\n"
        for n, (wnid, boxes) in enumerate(zip(wnids, true_N24.tolist(), strict=True))
    )
    found = score(write(folder / "s.csv", HEADER + said), write(folder / "truth.csv", HEADER + solution))
    wrong = [0, 0]
    for label, labels_5, near_54, true_24 in zip(truth_N, labels_N5, near_N54, true_N24, strict=True):
        end = torch.tensor([0, 0, 1, 1])
        hits = boxes_of(torch.from_numpy(near_54) + end, torch.from_numpy(true_24) + end).amax(dim=1).numpy() >= 0.5
        right_5 = hits & (labels_5 == label)
        wrong[0] += not right_5[0]
        wrong[1] += not right_5.any()
    assert 0 < wrong[1] < wrong[0] < count
    assert found.top1_localisation_error == pytest.approx(wrong[0] / count)
    assert found.top5_localisation_error == pytest.approx(wrong[1] / count)

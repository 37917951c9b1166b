"""Labels against files: every thing that does not fit is named, in each layout, and the rest is read all the same."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from striate.data import synthetic
from striate.data.audit import labels
from striate.data.audit.checks import Defect
from striate.data.layouts.splits import Found
from striate.errors import DataError, UserError


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets")
    for layout in synthetic.LAYOUTS:
        synthetic.make(folder / layout, layout, 3, 4, 2)
    return folder


@pytest.fixture
def sets(originals: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(originals, tmp_path / "sets"))


def read(data: Path) -> tuple[Found, dict[str, Defect]]:
    found, defects = labels.read(data)
    assert len({defect.kind for defect in defects}) == len(defects)
    return found, {defect.kind: defect for defect in defects}


def sizes(found: Found) -> dict[str, int]:
    return {split: len(index) for split, index in found.indexes.items()}


def list_of(folder: Path, *rows: str, header: str = "path,label") -> Path:
    path = folder / "list.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


# ---------------------------------------------------------------- sound sets


def test_a_sound_set_has_no_defect(sets: Path) -> None:
    found, defects = read(sets / "folder")
    assert sizes(found) == {"train": 12, "val": 6} and not defects
    found, defects = read(sets / "ilsvrc")
    assert sizes(found) == {"train": 12, "val": 6, "test": 6} and not defects
    found, defects = read(sets / "tiny")
    assert sizes(found) == {"train": 12, "val": 6, "test": 6} and not defects


def test_nothing_is_held_out_of_a_set_without_a_validation_split(sets: Path) -> None:
    found, _ = read(sets / "folder" / "train")
    assert sizes(found) == {"train": 12}


def test_what_is_no_data_stays_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        labels.read(tmp_path / "nothing")
    with pytest.raises(DataError):
        labels.read(tmp_path)


# ---------------------------------------------------------------- lists


def test_a_list_names_all_missing_and_all_unlisted_images(sets: Path) -> None:
    folder = sets / "folder" / "train"
    every = sorted(f"{path.parent.name}/{path.name},{path.parent.name}" for path in folder.glob("*/*.jpg"))
    unlisted = [every.pop(0).split(",")[0], every.pop(5).split(",")[0]]
    path = list_of(folder, *every)
    _, defects = read(path)
    assert list(defects) == ["file without label"] and sorted(defects["file without label"].details) == sorted(unlisted)
    gone = [every[1].split(",")[0], every[7].split(",")[0]]
    for name in gone:
        (folder / name).unlink()
    found, defects = read(path)
    assert defects["missing file"].severity == "error" and len(defects["missing file"]) == 2
    assert all(name in line for name, line in zip(gone, defects["missing file"].details, strict=True))
    assert defects["missing file"].details[0].startswith("row 3 ")
    assert "refused" in defects and sizes(found) == {"train": 8} and (found.indexes["train"].labels >= 0).all()


def test_d29_each_wrong_row_of_a_list_is_named_and_costs_only_itself(sets: Path) -> None:
    folder = sets / "folder" / "train"
    keys = sorted(f"{path.parent.name}/{path.name}" for path in folder.glob("*/*.jpg"))
    path = list_of(
        folder,
        f"{keys[0]},chair,1,2,3,4",
        f"{keys[4]},key,9,2,3,4",  # inside out
        f"{keys[8]},mug,1,2,x,4",  # no number
        f"{keys[1]},,,,,",  # no label
        "../../../etc/passwd,key,,,,",  # leads out
        f"{keys[0]},key,,,,",  # two classes
        f"{keys[2]},chair",  # too short
        header="path,label,x_min,y_min,x_max,y_max",
    )
    found, defects = read(path)
    assert [line.split(":")[0] for line in defects["inverted box"].details] == ["row 3", "row 4"]
    assert [line.split(":")[0].split(",")[0] for line in defects["wrong row"].details] == ["row 5", "row 6", "row 7", "row 8"]
    assert sizes(found) == {"train": 3} and found.indexes["train"].classes.ids == ("chair", "key", "mug")
    boxes = found.indexes["train"].boxes
    assert boxes is not None and boxes.of(0).tolist() == [[1, 2, 3, 4]] and not len(boxes.of(1))


def test_broken_lines_of_jsonl_are_named(sets: Path) -> None:
    folder = sets / "folder" / "train"
    keys = sorted(f"{path.parent.name}/{path.name}" for path in folder.glob("*/*.jpg"))
    path = folder / "list.jsonl"
    path.write_text(f'{{"path": "{keys[0]}", "label": "chair"}}\n{{"path": \n[1]\n{{"path": "{keys[4]}", "label": "key"}}\n')
    found, defects = read(path)
    assert [line.split(":")[0] for line in defects["wrong row"].details] == ["row 2", "row 3"]
    assert sizes(found) == {"train": 2}


# ---------------------------------------------------------------- folders and the sets that ship


def test_d16_all_differences_between_the_classes_of_splits(sets: Path) -> None:
    root = sets / "folder"
    (root / "val" / "key").rename(root / "val" / "stranger")
    (root / "train" / "nobody").mkdir()
    found, defects = labels.read(root)
    assert [defect.kind for defect in defects] == ["refused", "missing class", "missing class", "label without file"]
    assert {defect.split: defect.details for defect in defects[1:3]} == {"train": ("stranger",), "val": ("key", "nobody")}
    assert sizes(found) == {"train": 12, "val": 6}
    assert found.indexes["train"].counts().tolist() == [4, 4, 4, 0, 0]  # the empty class is there to be counted
    assert found.indexes["train"].classes == found.indexes["val"].classes


def test_all_wrong_rows_of_a_table_of_boxes_and_the_sound_ones_kept(sets: Path) -> None:
    table = sets / "folder" / "boxes.csv"
    lines = table.read_text().splitlines()
    for row in (2, 5):
        path, label, *_ = lines[row].split(",")
        lines[row] = f"{path},{label},50,0,10,20"
    table.write_text("\n".join(lines) + "\n")
    found, defects = read(sets / "folder")
    assert [line.split(":")[0] for line in defects["inverted box"].details] == ["row 3", "row 6"]
    boxes = found.indexes["train"].boxes
    assert boxes is not None and len(boxes.xyxy) == 10


def test_boxes_of_images_that_are_not_there(sets: Path) -> None:
    with open(sets / "folder" / "boxes.csv", "a") as table:
        table.write("train/key/gone.jpg,key,1,2,30,40\n")
    _, defects = read(sets / "folder")
    assert list(defects) == ["label without file"]
    assert defects["label without file"].details == ("train/key/gone.jpg",)


def test_d26_a_refused_set_says_what_was_left_out(sets: Path) -> None:
    train = sets / "folder" / "train"
    (train / "nobody").mkdir()
    os.mkfifo(train / "key" / "pipe.jpg")
    (train / "key" / "gone.jpg").symlink_to(sets / "nowhere")
    found, defects = read(sets / "folder")
    assert "refused" in defects
    assert any("1 named pipes" in note for note in found.notes)
    assert any("gone.jpg" in note for note in found.notes)
    assert not any(".csv" in note for note in found.notes)  # the boxes were read


def test_a_sentence_ends_with_one_full_stop(sets: Path) -> None:
    table = sets / "folder" / "boxes.csv"
    table.write_text(table.read_text() + "train/key/gone.jpg,key,50,0,10,20\n")
    _, defects = read(sets / "folder")
    assert defects["inverted box"].text.endswith("not x, y, width, height.")


def test_d17_a_flat_validation_folder_is_refused_and_its_images_are_looked_at(sets: Path) -> None:
    val = sets / "folder" / "val"
    for path in list(val.glob("*/*.jpg")):
        path.rename(val / path.name)
    for folder in [path for path in val.iterdir() if path.is_dir()]:
        folder.rmdir()
    found, defects = read(sets / "folder")
    assert list(defects) == ["refused", "label without file"] and "flat folder" in defects["refused"].text
    assert sizes(found) == {"train": 12, "val": 6} and set(found.indexes["val"].labels.tolist()) == {-1}


@pytest.mark.parametrize("layout", ["tiny", "ilsvrc"])
def test_d20_all_images_without_a_label_and_labels_without_an_image(sets: Path, layout: str) -> None:
    root = sets / layout
    flat = root / ("val/images" if layout == "tiny" else "ILSVRC/Data/CLS-LOC/val")
    images = sorted(flat.iterdir())
    shutil.copy(images[0], flat / "stranger_1.JPEG")
    shutil.copy(images[0], flat / "stranger_2.JPEG")
    gone = [images[1].stem, images[3].stem]
    for path in (images[1], images[3]):
        path.unlink()
    found, defects = read(root)
    assert [Path(key).stem for key in defects["file without label"].details] == ["stranger_1", "stranger_2"]
    assert sorted(defects["label without file"].details) == sorted(gone)
    assert len(found.indexes["val"]) == 6 and (found.indexes["val"].labels == -1).sum() == 2
    assert found.indexes["train"].classes.ids == found.indexes["val"].classes.ids and len(found.indexes["train"].classes) == 3


def test_boxes_that_readers_leave_out_are_named(sets: Path) -> None:
    table = sorted((sets / "tiny" / "train").glob("*/*_boxes.txt"))[0]
    lines = table.read_text().splitlines()
    name = lines[0].split("\t")[0]
    lines[0] = f"{name}\t30\t0\t10\t20"
    lines.append("nobody.JPEG\t1\t1\t5\t5")
    table.write_text("\n".join(lines) + "\n")
    _, defects = read(sets / "tiny")
    assert defects["inverted box"].details == (f"{table.name} row 1: {name} 30 0 10 20",)
    assert defects["label without file"].details == (f"{table.name} row 5: nobody.JPEG",)
    solution = sets / "ilsvrc" / "LOC_val_solution.csv"
    first, second, *rest = solution.read_text().splitlines()
    image, words = second.split(",")
    wnid = words.split()[0]
    solution.write_text("\n".join([first, f"{image},{wnid} 30 0 10 20 ", *rest]) + "\n")
    _, defects = read(sets / "ilsvrc")
    assert defects["inverted box"].details == (f"LOC_val_solution.csv: {image}",)


# ---------------------------------------------------------------- orders that are not striate's


def test_d18_numbers_of_the_development_kit_are_named_as_a_trap(sets: Path) -> None:
    (sets / "ilsvrc" / "ILSVRC2012_devkit_t12").mkdir()
    _, defects = read(sets / "ilsvrc")
    assert defects["class order"].severity == "warning" and "development kit" in defects["class order"].text


def test_d19_the_order_of_wnids_txt_changes_no_label_and_is_noted(sets: Path) -> None:
    wnids = sets / "tiny" / "wnids.txt"
    wnids.write_text("\n".join(sorted(wnids.read_text().split())) + "\n")
    in_order, defects = read(sets / "tiny")
    assert not defects
    wnids.write_text("\n".join(sorted(wnids.read_text().split(), reverse=True)) + "\n")
    reversed_, defects = read(sets / "tiny")
    assert list(defects) == ["class order"] and defects["class order"].severity == "note"
    assert in_order.indexes["train"].fingerprint == reversed_.indexes["train"].fingerprint

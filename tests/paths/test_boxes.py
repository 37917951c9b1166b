"""A box head from training to boxes in photos: joint or on a frozen classifier, stopped and gone on with, or refused."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from striate import cli, consultation, sitting
from striate.data import decode, synthetic
from striate.data.layouts import detect
from striate.errors import DataError, UserError
from striate.evaluate.open import SplitName
from striate.localize import kept, score
from striate.recipe import Recipe
from tests.paths.conftest import CHANGES
from tests.paths.test_resume import stop_after

BOXED: dict[str, Any] = {"model__boxes": "shared", "augment__rotate": 5.0}


@pytest.mark.parametrize("boxes", ["shared", "per-class"])
def test_stopped_on_the_way_a_training_with_boxes_ends_the_same(sit: Any, boxes: str) -> None:
    changes = {**BOXED, "model__boxes": boxes}
    whole = sit("whole", **changes)
    steps = [record for record in whole.records if record.kind == "step"]
    assert all("boxes" in record.values["losses"] for record in steps)
    stop, on = stop_after(3)
    assert sit("cut", stop, on=on, **changes).exit_code == 75
    assert not whole.differences(sit("cut", workers="2", **changes))


def test_the_network_begins_and_its_classes_learn_as_without_a_box_head(sit: Any) -> None:
    """The head's draws are its own; with nearly no weight its loss leaves the classes as they were."""
    alone, boxed = sit("alone"), sit("boxed", model__boxes="shared", loss__box_weight=1e-9, optim__clip_norm=0.0)
    first = [next(one for one in end.records if one.kind == "step").values["losses"]["main"] for end in (alone, boxed)]
    assert first[0] == first[1]
    assert {name for name in boxed.last.model if not name.startswith("box_head.")} == set(alone.last.model)


def test_a_head_on_a_frozen_classifier_changes_no_class(sit: Any, tmp_path: Path) -> None:
    plain = sit("plain")
    weights = str(plain.last.path / "model.safetensors")
    boxed = sit("boxed", model__weights=weights, optim__freeze="classifier", model__boxes="per-class")
    for name, tensor in plain.last.model.items():
        assert torch.equal(boxed.last.model[name], tensor), name
    assert boxed.run.best["step"] == boxed.last.step  # its top-1 stays what it was, while the boxes get better
    with pytest.raises(UserError, match="only the box head is trained"):
        consultation.of_run(boxed.run.path)
    start = next(record for record in boxed.records if record.kind == "start")
    head = {name for name in boxed.last.model if name.startswith("box_head.")}
    assert start.values["trained_parameters"] == sum(boxed.last.model[name].numel() for name in head)
    losses = [one.values["losses"]["boxes"] for one in boxed.records if one.kind == "step"]
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    images = torch.rand(4, 3, 32, 32)
    one, _, _ = plain.run.model("last", raw=True)
    other, _, _ = boxed.run.model("last", raw=True)
    with torch.no_grad():
        assert torch.equal(one(images), other(images))
    # And the weights of a network with a box head go into one without.
    again = sit("again", model__weights=str(boxed.last.path / "model.safetensors"), budget__epochs=1.0)
    notes = [record.values["text"] for record in again.records if record.kind == "note"]
    assert any("box head" in note and "left out" in note for note in notes)


def test_localize_scores_every_image_and_writes_what_it_says(sit: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run = sit("run", **BOXED).run
    for method in ("auto", "grad-cam"):
        assert cli.run(["localize", str(run.path), "--method", method, "--workers", "0", "--device", "cpu", "--json"]) == 0
        said = capsys.readouterr().out
        plain = json.loads(said.splitlines()[-1])
        folder = Path(plain["folder"])
        assert json.loads((folder / "summary.json").read_text()) == {
            name: plain[name] for name in plain.keys() - {"folder", "gallery"}
        }
        assert plain["counted"] == plain["used"] == 16
        assert plain["method"] == {"auto": "head"}.get(method, method)
        rows = list(csv.DictReader((folder / "boxes.csv").read_text().splitlines()))
        assert len(rows) == 16 * (4 + 1)  # four answers, as there are four classes, and the true class
        known = [float(row["iou"]) for row in rows if row["rank"] == "0"]
        assert plain["gt_known_accuracy"]["value"] == pytest.approx(np.mean(np.array(known) >= 0.5))
        assert plain["mean_box_iou"]["value"] == pytest.approx(np.mean(known), abs=1e-4)
        assert {"whole image", "centre box"} == set(plain["baselines"])
        assert "GT-known localisation accuracy" in said
    assert plain["notes"][-1] == "not kept for submit: fitted on 16 images with a box, expected 20 or more"
    assert not (run.path / "localization.json").exists()


@pytest.fixture(scope="module", name="more")
def _more(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 other photos of the same classes, as validation images."""
    folder = tmp_path_factory.mktemp("more") / "more"
    synthetic.make(folder, layout="folder", classes=4, per_class=1, val_per_class=6, seed=1)
    return folder


def test_a_threshold_is_kept_for_photos_that_nobody_trained_on(sit: Any, images: Path, more: Path, tmp_path: Path) -> None:
    run = sit("run").run

    def fit(data: Path | None, split: SplitName, layer: str | None = None) -> str:
        done = score.localize(run, data, split=split, layer=layer, device="cpu", workers="0")
        assert json.loads((done.folder / "summary.json").read_text())["notes"] == done.summary["notes"]
        return str(done.summary["notes"][-1])

    shutil.copytree(images, tmp_path / "copy")
    for trained in (None, tmp_path / "copy"):
        assert fit(trained, "train").startswith("not kept for submit: the network was trained on these images")
    assert not (run.path / "localization.json").exists()
    assert fit(more, "val").startswith("kept for submit: grad-cam of 2, EMA weights of step-")
    first = (run.path / "localization.json").read_text()
    assert fit(more, "val", "0").startswith("kept for submit: grad-cam of 0, ")
    assert fit(None, "train").startswith("not kept")  # and what is kept stays
    assert json.loads(first)["fits"][0] in json.loads((run.path / "localization.json").read_text())["fits"]
    again = fit(more, "val")
    assert again.startswith("kept for submit: ") and "; it replaces a fit on 24 images of val (" in again
    fits = json.loads((run.path / "localization.json").read_text())["fits"]
    assert [one["layer"] for one in fits] == ["0", "2"] and fits[1] == json.loads(first)["fits"][0]


def test_images_of_the_training_set_are_known_again(sit: Any, images: Path, more: Path, tmp_path: Path) -> None:
    run = sit("run").run
    train, val = detect.open_split(images, "train"), detect.open_split(images, "val")
    assert kept.trained_on(run, train) == len(train)
    assert kept.trained_on(run, train.select(np.arange(5))) == 5
    assert kept.trained_on(run, replace(train, sizes_bytes=train.sizes_bytes + 1, root=tmp_path)) == len(train)  # as packed
    assert kept.trained_on(run, val) == kept.trained_on(run, detect.open_split(more, "val")) == 0
    # A folder of it by itself, through a link: other keys, the same files.
    (tmp_path / "link").symlink_to(images / "train")
    assert kept.trained_on(run, detect.open_split(tmp_path / "link")) == len(train)


def test_results_of_other_boxes_and_of_a_subset_stay_apart(sit: Any, more: Path, tmp_path: Path) -> None:
    run = sit("run").run

    def folder(data: Path, **options: Any) -> str:
        return score.localize(run, data, method="grad-cam", threshold=0.3, device="cpu", workers="0", **options).folder.name

    shutil.copytree(more, tmp_path / "mended")
    table = tmp_path / "mended" / "boxes.csv"
    rows = table.read_text().splitlines()
    path, label, *edges = next(row for row in rows if row.startswith("val/")).split(",")
    at = next(n for n, row in enumerate(rows) if row.startswith("val/"))
    table.write_text(
        "\n".join([*rows[:at], ",".join([path, label, *edges[:2], str(float(edges[2]) - 1), edges[3]]), *rows[at + 1 :]])
    )
    assert len({folder(more), folder(tmp_path / "mended"), folder(more, subset=True)}) == 3
    assert folder(more) == folder(more)
    # A box outside of its photo names its row.
    table.write_text("\n".join([*rows[:at], ",".join([path, label, "5000", "10", "5010", "20"]), *rows[at + 1 :]]))
    with pytest.raises(DataError, match=rf"lies outside of its photo.* It is from .*boxes\.csv, row {at + 1}\."):
        folder(tmp_path / "mended")
    (tmp_path / "mended" / "list.csv").write_text(f"path,label,x_min,y_min,x_max,y_max\n{path},{label},5000,10,5010,20\n")
    with pytest.raises(DataError, match=r"lies outside of its photo.* It is from .*list\.csv, row 2\."):
        folder(tmp_path / "mended" / "list.csv")


FLAT = """
from torch import nn


def flat(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 8), nn.ReLU(), nn.Linear(8, num_classes))
"""


def test_what_does_not_fit_the_network_is_refused_before_any_photo(
    sit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "flat_networks.py").write_text(FLAT)
    monkeypatch.syspath_prepend(tmp_path)
    flat, run = sit("flat", model__name="flat_networks:flat").run, sit("run").run
    monkeypatch.setattr(decode, "decode", None)
    monkeypatch.setattr(decode, "sides", None)
    for of, options, message in (
        (flat, {}, r"Sequential has none.*Take a convolutional network.*without boxes: striate explain --method occlusion"),
        (flat, {"layer": "1"}, "Take a convolutional network"),
        (run, {"layer": "22"}, "no layer"),
        (run, {"layer": "4"}, "'4'"),
        (run, {"method": "cam"}, "Use --method grad-cam"),
    ):
        with pytest.raises(UserError, match=message):
            score.localize(of, device="cpu", workers="0", **options)


def test_a_threshold_that_is_given_is_not_fitted(sit: Any) -> None:
    run = sit("run").run
    done = score.localize(run, method="grad-cam", threshold=0.3, which="all", device="cpu", workers="0")
    assert done.cuts == (score.Cut(0.3, "all"),)
    assert "all above 0.3 of the map's range, as given" in done.summary["protocol"]
    assert not (run.path / "localization.json").exists()
    heatmap = done.found.heatmap(2, -1)
    assert heatmap.label == done.found.labels_N[2]
    np.testing.assert_allclose(done.known_N4[2], score.boxes.from_heatmap(heatmap, 0.3, "all")[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__boxes": "shared", "augment__mixup": 0.2}, r"augment\.mixup.*no one object"),
        ({"model__boxes": "shared", "augment__cutmix": 1.0}, r"augment\.cutmix"),
        ({"model__boxes": "shared", "optim__compile": True}, r"optim\.compile"),
        ({"model__boxes": "shared", "loss__box_weight": 0.0}, r"loss\.box_weight"),
        ({"optim__freeze": "classifier"}, r"optim\.freeze.*--boxes"),
        ({"optim__freeze": "classifier", "model__boxes": "shared", "budget__patience": 2}, r"optim\.freeze.*--patience"),
    ],
)
def test_what_contradicts_a_box_head_is_refused(sit: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        sit("it", **changes)


def test_data_without_boxes_is_refused_before_anything_is_decoded(sit: Any, images: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    for name in ("train", "val"):
        for photo in sorted((images / name).rglob("*.jp*g")):
            target = bare / photo.relative_to(images)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(photo)
    request = sitting.Request(
        str(bare),
        Recipe(),
        CHANGES | {"model.boxes": "shared"},
        tmp_path / "r",
        "x",
    )
    with pytest.raises(DataError, match="box"):
        sitting.sit(request)
    plain = sit("plain").run
    with pytest.raises(DataError, match=r"no boxes.*Tiny ImageNet"):
        score.localize(plain, bare, device="cpu", workers="0")


def test_wrong_options_of_localize(sit: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = sit("run").run
    for words, message in (
        (["--method", "head"], "has no box head"),
        (["--method", "grad-cmm"], "Did you mean 'grad-cam'"),
        (["--layer", "22"], "no layer"),
        (["--threshold", "1.5"], "--threshold 1.5"),
        (["--which", "all"], "goes with --threshold"),
        (["--split", "test"], "has no test images"),
    ):
        assert cli.run(["localize", str(run.path), "--device", "cpu", *words]) == 2
        assert message in capsys.readouterr().err, words
    assert cli.run(["localize"]) == 2
    assert cli.run(["localize", str(tmp_path / "nothing")]) == 2

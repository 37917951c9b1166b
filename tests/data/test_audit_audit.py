"""A whole audit: every defect of a generated set and no other, its files, and that it leaves the data as they were."""

from __future__ import annotations

import csv
import json
import shutil
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from striate.data import synthetic
from striate.data.audit import audit, checksums
from striate.data.audit.audit import Audit
from striate.data.layouts import detect
from striate.data.pack import write
from striate.data.pack.format import Keep
from striate.errors import DataError, UserError


def run(data: Path, out: Path, manifest: bool = False) -> Audit:
    return audit.audit(data, out, 2, near=False, manifest=manifest)


def kinds(found: Audit) -> dict[str, set[str]]:
    """The keys of each kind of defect that concerns images."""
    keys: dict[str, set[str]] = defaultdict(set)
    for defect in found.defects:
        for row in defect.rows.tolist():
            keys[defect.kind].add(found.facts[defect.split].index.keys[row])
    return dict(keys)


def as_it_lies(folder: Path) -> dict[str, tuple[int, int, int]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns, path.stat().st_mode)
        for path in [folder, *folder.rglob("*")]
    }


@pytest.mark.parametrize("layout", synthetic.LAYOUTS)
def test_every_defect_of_a_generated_set_is_found_and_no_other(layout: synthetic.Layout, tmp_path: Path) -> None:
    made = synthetic.make(tmp_path / "set", layout, 3, 10, 4, defects=True)
    before = as_it_lies(made.folder)
    found = run(made.folder, tmp_path / "out", manifest=True)
    assert as_it_lies(made.folder) == before
    of_kind: dict[str, set[str]] = defaultdict(set)
    root = found.facts["train"].index.root
    for path, kind in made.defects.items():
        of_kind[kind].add(str((made.folder / path).relative_to(root)))
    names_lie = of_kind["png-named-jpeg"] | ({*of_kind["16-bit"], *of_kind["alpha"]} if layout != "folder" else set())
    grey = {key for facts in found.facts.values() for key, odd in zip(facts.index.keys, facts.odd, strict=True) if "grey" in odd}
    expected = {
        "truncated": of_kind["truncated"], "wrong extension": names_lie, "cmyk": of_kind["cmyk"], "alpha": of_kind["alpha"],
        "16-bit": of_kind["16-bit"], "exif-rotated": of_kind["exif-rotated"], "grey": grey,
    }  # fmt: skip
    assert kinds(found) == expected and of_kind["grey"] | of_kind["16-bit"] <= grey
    without_rows = {defect.kind for defect in found.defects if not len(defect.rows)}
    assert without_rows <= {"class order"}  # wnids.txt of the Tiny layout is in no order
    assert found.has_errors and found.defects[0].severity == "error"


@pytest.mark.parametrize("layout", synthetic.LAYOUTS)
def test_a_clean_set_has_no_defect_but_grey_photos(layout: synthetic.Layout, tmp_path: Path) -> None:
    data = synthetic.make(tmp_path / "set", layout, 3, 10, 4).folder
    found = run(data, tmp_path / "out")
    assert {defect.kind for defect in found.defects} <= {"grey", "class order"} and not found.has_errors


def test_the_written_files_say_what_was_found(tmp_path: Path) -> None:
    made = synthetic.make(tmp_path / "set", "folder", 3, 10, 4, defects=True)
    shutil.copy(made.folder / "train/mug/mug_0000.jpg", made.folder / "val/mug/copy.jpg")
    found = run(made.folder, tmp_path / "out", manifest=True)
    written = json.loads((tmp_path / "out/audit.json").read_text())
    assert written["splits"]["train"]["images"] == made.train and written["splits"]["train"]["usable"] == made.train - 1
    assert written["splits"]["val"]["fingerprint"] == found.facts["val"].index.fingerprint
    assert [defect["kind"] for defect in written["defects"]] == [defect.kind for defect in found.defects]
    assert [defect["count"] for defect in written["defects"]] == [len(defect) for defect in found.defects]
    truncated = next(defect for defect in written["defects"] if defect["kind"] == "truncated" and defect["split"] == "train")
    assert [made.defects[key] for key in truncated["images"]] == ["truncated"]
    with open(tmp_path / "out/defects.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["key"] for row in rows if row["kind"] == "cmyk"} == {key for key, kind in made.defects.items() if kind == "cmyk"}
    assert "val/mug/copy.jpg" in {row["key"] for row in rows if "duplicate" in row["kind"]}
    images = pq.read_table(tmp_path / "out/images.parquet").to_pylist()
    assert [image["key"].decode() for image in images] == [*found.facts["train"].index.keys, *found.facts["val"].index.keys]
    for image in images:
        path = made.folder / image["key"].decode()
        assert image["label"] == path.parent.name and (image["reason"] is None) == (
            made.defects.get(image["key"].decode()) != "truncated"
        )
        with Image.open(path) as opened:
            assert (image["format"], image["width"], image["height"]) == (opened.format, *opened.size)
    assert checksums.verify(tmp_path / "out" / audit.SUMS, made.folder, 0) == []


def test_a_second_audit_knows_all_images_and_writes_the_same(tmp_path: Path) -> None:
    data = synthetic.make(tmp_path / "set", "folder", 2, 10, 2, defects=True).folder
    first = run(data, tmp_path / "out")
    table = (tmp_path / "out/defects.csv").read_bytes()
    second = run(data, tmp_path / "out")
    assert first.known == 0 and second.known == sum(map(len, second.facts.values())) and second.images_per_s == 0
    assert (tmp_path / "out/defects.csv").read_bytes() == table


def test_d28_nothing_is_written_into_the_data(tmp_path: Path) -> None:
    data = synthetic.make(tmp_path / "set", "folder", 2, 10, 2).folder
    (tmp_path / "link").symlink_to(data)
    before = as_it_lies(data)
    for out in (data, data / "audit", data / "train" / "mug" / "deep" / "audit", tmp_path / "link" / "audit"):
        with pytest.raises(UserError, match="lies within"):
            run(data, out)
    with pytest.raises(UserError, match="lies within"):
        run(tmp_path / "link", data / "audit")
    assert as_it_lies(data) == before


def test_a_read_only_set_is_audited(tmp_path: Path) -> None:
    data = synthetic.make(tmp_path / "set", "tiny", 2, 10, 2).folder
    folders = [data, *(path for path in data.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        assert len(run(data, tmp_path / "out", manifest=True).facts["train"]) == 20
    finally:
        for folder in folders:
            folder.chmod(0o755)


def test_an_audit_goes_into_no_folder_of_something_else(tmp_path: Path) -> None:
    data = synthetic.make(tmp_path / "set", "folder", 2, 10, 2).folder
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="holds something"):
        run(data, tmp_path / "runs")
    with pytest.raises(UserError, match="is a file"):
        run(data, tmp_path / "runs" / "thesis.txt")
    with pytest.raises(UserError, match="no such file"):
        run(tmp_path / "sett", tmp_path / "out")
    with pytest.raises(DataError, match="no image"):
        run(tmp_path / "runs", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_refused_set_is_audited_as_far_as_it_can_be_read(tmp_path: Path) -> None:
    made = synthetic.make(tmp_path / "set", "folder", 3, 10, 4, defects=["truncated"])
    shutil.rmtree(made.folder / "val" / "mug")
    found = run(made.folder, tmp_path / "out", manifest=True)
    assert [defect.kind for defect in found.defects if defect.severity == "error"].count("refused") == 1
    assert {"refused", "missing class", "empty class", "truncated"} <= {defect.kind for defect in found.defects}
    with pytest.raises(DataError):
        detect.open_data(made.folder)


def test_names_that_are_no_utf8_are_written(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        pixels = np.random.default_rng(ord(name)).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name / "1.png")
    (folder / "a" / "caf\udce9\n.jpg").write_bytes(b"")
    found = run(folder, tmp_path / "out", manifest=True)
    assert kinds(found)["empty"] == {"a/caf\udce9\n.jpg"}
    assert "a/caf\\udce9\n.jpg" in (tmp_path / "out/defects.csv").read_text()
    assert b"a/caf\xe9\n.jpg" in pq.read_table(tmp_path / "out/images.parquet")["key"].to_pylist()
    assert "a/caf\udce9\n.jpg" in json.loads((tmp_path / "out/audit.json").read_text())["defects"][0]["images"]


def test_a_pack_is_audited_and_a_flipped_bit_in_it_is_named(tmp_path: Path) -> None:
    data = synthetic.make(tmp_path / "set", "folder", 2, 10, 4).folder
    write.pack(data, tmp_path / "pack", Keep())
    sound = run(tmp_path / "pack", tmp_path / "sound", manifest=True)
    assert {defect.kind for defect in sound.defects} <= {"grey"} and len(sound.facts["train"]) == 20
    shard = next((tmp_path / "pack").glob("train-*.arrow"))
    content = bytearray(shard.read_bytes())
    original = (data / sound.facts["train"].index.keys[3]).read_bytes()
    content[content.index(original) + len(original) // 2] ^= 1
    shard.write_bytes(content)
    found = run(tmp_path / "pack", tmp_path / "out")
    (damaged,) = [defect for defect in found.defects if defect.kind == "damaged shard"]
    assert shard.name in damaged.details[0] and sound.facts["train"].index.keys[3] in damaged.details[0]
    differences = checksums.verify(tmp_path / "sound" / audit.SUMS, tmp_path / "pack", 1)
    assert differences == [checksums.Difference(shard.name, "changed")]


def test_a_file_called_as_a_manifest_makes_no_pack_of_class_folders(tmp_path: Path) -> None:
    data = synthetic.make(tmp_path / "set", "folder", 2, 4, 2).folder
    (data / "manifest.json").write_text("{}")
    assert not {defect.severity for defect in run(data, tmp_path / "out").defects} & {"error"}

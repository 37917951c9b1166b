"""One set of photos in every format that keeps several images in a file: pixels, labels and training as from a folder."""

from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import striate
from striate import cli
from striate.data.index import Index
from striate.data.layouts.detect import open_data
from striate.data.layouts.splits import Splits
from striate.data.loader import Streaming, Workers, ordered_batches
from striate.evaluate.open import photos_index
from striate.files import read_json
from striate.report.gather import gather
from striate.report.sections import mosaic
from striate.view import View

FIELDS: dict[str, Any] = {"model": "path_networks:small", "img-size": 32, "steps": 2, "batch-size": 12}
LOSSLESS = ["webdataset", "parquet", "cifar", "idx"]


def _classes(splits: Splits) -> list[str]:
    return list(splits.train.classes.ids)


def _both(splits: Splits) -> list[tuple[str, Index]]:
    assert splits.val is not None
    return [("train", splits.train), ("val", splits.val)]


def as_webdataset(source: Splits, folder: Path) -> None:
    for split, index in _both(source):
        with tarfile.open(folder / f"photos-{split}-000000.tar", "w") as archive:
            for row in range(len(index)):
                name = index.classes.ids[index.labels[row]].encode()
                for kind, content in (("cls", name), ("png", index.path(row).read_bytes())):
                    member = tarfile.TarInfo(f"{row:06d}.{kind}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))


def as_parquet(source: Splits, folder: Path) -> None:
    names = _classes(source)[::-1]
    about = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
    for split, index in _both(source):
        images = [{"bytes": index.path(row).read_bytes(), "path": None} for row in range(len(index))]
        labels = [names.index(index.classes.ids[label]) for label in index.labels]
        kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
        table = pa.table({"image": pa.array(images, kind), "label": labels})
        metadata = {"huggingface": json.dumps({"info": {"features": about}})}
        (folder / "data").mkdir(exist_ok=True)
        word = "validation" if split == "val" else split
        path = folder / "data" / f"{word}-00000-of-00001.parquet"
        pq.write_table(table.replace_schema_metadata(metadata), path, row_group_size=7)


def as_cifar(source: Splits, folder: Path) -> None:
    names = _classes(source) + [f"zzz{n}" for n in range(10 - len(_classes(source)))]
    (folder / "batches.meta.txt").write_text("\n".join(names))
    for split, index in _both(source):
        records = [
            bytes([int(index.labels[row])]) + np.asarray(Image.open(index.path(row))).transpose(2, 0, 1).tobytes()
            for row in range(len(index))
        ]
        (folder / ("data_batch_1.bin" if split == "train" else "test_batch.bin")).write_bytes(b"".join(records))


def as_idx(source: Splits, folder: Path) -> None:
    for split, index in _both(source):
        stem = "train" if split == "train" else "t10k"
        planes = np.stack([np.asarray(Image.open(index.path(row)))[..., 0] for row in range(len(index))])
        with gzip.open(folder / f"{stem}-images-idx3-ubyte.gz", "wb") as file:
            file.write(struct.pack(">4I", 0x803, *planes.shape) + planes.tobytes())
        (folder / f"{stem}-labels-idx1-ubyte").write_bytes(
            struct.pack(">2I", 0x801, len(index)) + bytes(index.labels.astype(np.uint8))
        )


@pytest.fixture(scope="module")
def photos(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Splits:
    """The 64 generated photos as PNG of 32 by 32, in class folders."""
    folder = tmp_path_factory.mktemp("png")
    for path in sorted(images.rglob("*.jpg")):
        place = folder / path.relative_to(images).with_suffix(".png")
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).convert("RGB").resize((32, 32)).save(place)
    return open_data(folder)


@pytest.fixture(scope="module", params=LOSSLESS)
def foreign(request: pytest.FixtureRequest, photos: Splits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same photos in one of the formats."""
    folder = tmp_path_factory.mktemp(request.param) / "set"
    folder.mkdir()
    {"webdataset": as_webdataset, "parquet": as_parquet, "cifar": as_cifar, "idx": as_idx}[request.param](photos, folder)
    return folder


def _batches(index: Index) -> tuple[torch.Tensor, list[int]]:
    view = View(32, "crop", 32, "bilinear", True, (0.5,) * 3, (0.5,) * 3, "rgb")
    batches = list(ordered_batches(Streaming(index, True), index, view, None, 16, Workers("threads", 2)))
    assert not any(batch.bad for batch in batches)
    return torch.cat([batch.images for batch in batches]), [int(label) for batch in batches for label in batch.labels]


def test_pixels_and_labels_are_those_of_the_folder(photos: Splits, foreign: Path) -> None:
    splits = open_data(foreign)
    is_idx = splits.layout.startswith("MNIST")
    for (_, expected), (_, found) in zip(_both(photos), _both(splits), strict=True):
        expected_images, expected_labels = _batches(expected)
        found_images, found_labels = _batches(found)
        if is_idx:
            expected_images = expected_images[:, :1].expand(-1, 3, -1, -1)
        assert torch.equal(found_images, expected_images)
        ids = [str(label) if is_idx else expected.classes.ids[label] for label in expected_labels]
        assert [found.classes.ids[label] for label in found_labels] == ids


def test_trained_evaluated_reported_and_gone_on_with(
    foreign: Path, networks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = striate.train(foreign, out=tmp_path, name="run", changes=FIELDS, quiet=True, device="cpu")
    summary, _ = striate.evaluate(run, foreign, device="cpu")
    assert summary["used"] == summary["expected"] == len(open_data(foreign).val or ()) and not summary["bad"]
    rows = striate.predict(run, [foreign], top=1, device="cpu")
    assert len(rows) == sum(len(index) for _, index in _both(open_data(foreign)))
    split, pictures = mosaic(gather(run.path))
    assert split == "val" and len(pictures) >= 8
    assert read_json(run.path / "data.json")["layout"] == open_data(foreign).layout
    argv = ["train", str(foreign), "--name", "run", "--out", str(tmp_path), "--model", "path_networks:small", "--steps", "2"]
    assert cli.run([*argv, "--img-size", "32", "--batch-size", "12", "--device", "cpu"]) == 0
    assert "To train it longer" in capsys.readouterr().err  # its own run, and the same images


def test_a_set_that_is_gone_is_a_gap_in_the_report(photos: Splits, networks: Path, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    as_webdataset(photos, folder)
    run = striate.train(folder, out=tmp_path, name="run", changes=FIELDS, quiet=True, device="cpu")
    (folder / "photos-val-000000.tar").write_bytes(b"x" * 600)
    facts = gather(run.path)
    assert mosaic(facts) == ("", []) and any("photos-val-000000.tar: no readable tar" in gap for gap in facts.gaps)
    folder.rename(tmp_path / "elsewhere")
    facts = gather(run.path)
    assert mosaic(facts) == ("", [])


def test_photos_of_folders_files_and_sets_in_one_call(photos: Splits, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    as_webdataset(photos, folder)
    single, tar = photos.train.path(3), folder / "photos-val-000000.tar"
    index = photos_index([str(single), str(tar), str(single), str(photos.train.root / "val"), str(single)], photos.train.classes)
    assert photos.val is not None
    count = len(photos.val)
    assert len(index) == 3 + 2 * count and index.keys[0] == index.keys[count + 1] == index.keys[-1] == str(single)
    assert index.keys[1] == f"{tar}/000000.png" and (index.labels == -1).all()
    expected = [photos.val.path(row).read_bytes() for row in range(count)]
    assert [index.content(1 + row) for row in range(count)] == expected
    assert [index.content(2 + count + row) for row in range(count)] == expected
    assert index.content(0) == index.content(len(index) - 1) == single.read_bytes()

"""Packing: what is in a pack, and that whatever ends it costs nothing."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from striate import cli, files
from striate.data import decode, synthetic, views
from striate.data.layouts.detect import open_data, open_split, open_whole
from striate.data.pack import format, plan, read, shard, write
from striate.data.pack.format import Jpeg, Keep, Manifest, Raw
from striate.errors import CheckpointError, DataError, Interrupted, ResourceError, UserError

JPEG = Jpeg(48)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny ImageNet's layout: 36 training images in 3 classes, boxes, 12 validation and 12 test images."""
    folder = tmp_path_factory.mktemp("source") / "set"
    synthetic.make(folder, layout="tiny", classes=3, per_class=12, val_per_class=4, seed=1)
    return folder


@pytest.fixture(scope="module")
def odd_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders with two truncated files and the odd ones."""
    folder = tmp_path_factory.mktemp("odd") / "set"
    synthetic.make(folder, layout="folder", classes=3, per_class=4, val_per_class=2, seed=1, defects=True)
    return folder


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of about 14 kB and record batches of 5 rows, so that a small set has several."""
    monkeypatch.setattr(plan, "_SHARD_BYTES", 14_000)
    monkeypatch.setattr(shard, "BATCH_ROWS", 5)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != ".lock"}


def rows_of(folder: Path) -> list[dict]:
    names = [shard.name for shard in Manifest.read(folder).shards]
    return [row for name in names for row in pa.ipc.open_file(folder / name).read_all().to_pylist()]


# ---------------------------------------------------------------- what is in a pack


@pytest.mark.parametrize("how", [Keep(), JPEG, Raw(32)])
def test_a_pack_is_its_source(source: Path, tmp_path: Path, how: format.How) -> None:
    packed = write.pack(source, tmp_path / "pack", how, workers=2)
    original, again = open_data(source), open_data(tmp_path / "pack")
    assert again.layout == "Tiny ImageNet, packed"
    for split in ("train", "val", "test"):
        ours, theirs = getattr(again, split), getattr(original, split)
        assert ours.keys == theirs.keys and ours.classes == theirs.classes and ours.split == split
        np.testing.assert_array_equal(ours.labels, theirs.labels)
        for row in range(len(ours)):
            exact_HW3 = decode.load(theirs.path(row), exif=False)
            if isinstance(how, Keep):
                assert ours.content(row) == theirs.path(row).read_bytes()
            elif isinstance(how, Raw):
                np.testing.assert_array_equal(ours.content(row), views.resize(exact_HW3, 32, 32, "bicubic"))
            else:
                pixels_HW3 = decode.pixels(ours.content(row), exif=False)
                assert np.abs(pixels_HW3.astype(int) - views.shrink(exact_HW3, 48)).mean() < 10
    assert again.train.boxes is not None and original.train.boxes is not None
    scale = {"Keep": 1.0, "Jpeg": 48 / 64, "Raw": 32 / 64}[type(how).__name__]
    np.testing.assert_allclose(again.train.boxes.xyxy, original.train.boxes.xyxy * scale, rtol=1e-6)
    assert packed.images == packed.written == 60
    assert packed.bytes_after == sum(path.stat().st_size for path in (tmp_path / "pack").glob("*.arrow"))
    assert packed.bytes_before == sum(int(index.sizes_bytes.sum()) for index in open_whole(source).indexes.values())


def test_held_out_images_are_the_same(tmp_path: Path) -> None:
    for name in ("ape", "bee"):
        for number in range(20):
            path = tmp_path / "photos" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
    write.pack(tmp_path / "photos", tmp_path / "pack", Keep())
    original, again = open_data(tmp_path / "photos", val_share=0.2), open_data(tmp_path / "pack", val_share=0.2)
    assert again.val is not None and original.val is not None and len(again.val) == 8
    assert again.val.keys == original.val.keys and again.train.keys == original.train.keys
    assert again.train.where(0).startswith(str(tmp_path / "pack" / "train-00000-of-"))


def test_the_measured_difference_is_that_of_the_pixels(source: Path, tmp_path: Path) -> None:
    packed = write.pack(source, tmp_path / "pack", JPEG)
    levels = {}
    for split, index in open_whole(source).indexes.items():
        again = open_split(tmp_path / "pack", split)
        for row, key in enumerate(index.keys):
            exact_HW3 = views.shrink(decode.load(index.path(row), exif=False), 48).astype(float)
            levels[key] = float(np.abs(decode.pixels(again.content(row), exif=False) - exact_HW3).mean())
    lost = packed.manifest.difference
    assert lost["images"] == 60 and lost["key"] == max(levels, key=lambda key: levels[key])
    assert lost["mean"] == pytest.approx(np.mean(list(levels.values())), abs=1e-3)
    assert lost["worst"] == pytest.approx(max(levels.values()), abs=1e-3)
    assert write.pack(source, tmp_path / "exact", Keep()).manifest.difference["worst"] == 0


def test_d26_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    for name in (b"ape/\xff\xfe.png", "ape/ä.png".encode(), b"bee/b.png"):
        path = os.path.join(os.fsencode(tmp_path), b"photos", name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            Image.new("RGB", (8, 8)).save(file, "PNG")
    write.pack(tmp_path / "photos", tmp_path / "pack", Keep())
    keys = read.open_pack(tmp_path / "pack")[1]["train"].keys
    assert set(keys.raws()) == {b"ape/\xff\xfe.png", "ape/ä.png".encode(), b"bee/b.png"}
    shown = {row["key"]: row["key_bytes"] for row in rows_of(tmp_path / "pack")}
    assert shown == {"ape/\\xff\\xfe.png": b"ape/\xff\xfe.png", "ape/ä.png": None, "bee/b.png": None}


def test_exif_of_raw_packs_follows_the_layout(source: Path, odd_source: Path, tmp_path: Path) -> None:
    assert write.pack(source, tmp_path / "tiny", Raw(32)).manifest.how == Raw(32, "crop", False)
    assert write.pack(odd_source, tmp_path / "photos", Raw(32), on_bad="skip").manifest.how == Raw(32, "crop", True)
    assert write.pack(source, tmp_path / "on", Raw(32, exif=True)).manifest.how == Raw(32, "crop", True)


def test_a_pack_can_be_packed(source: Path, tmp_path: Path) -> None:
    write.pack(source, tmp_path / "first", Keep())
    write.pack(tmp_path / "first", tmp_path / "second", JPEG)
    write.pack(source, tmp_path / "direct", JPEG)
    assert open_data(tmp_path / "second").layout == "Tiny ImageNet, packed"
    images = [[row["image"] for row in rows_of(tmp_path / name)] for name in ("second", "direct")]
    assert images[0] == images[1]


# ---------------------------------------------------------------- bad images


def test_d1_bad_images_stop_the_packing_or_are_listed(odd_source: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"mug_0005\.jpg: JPEG: .*truncated.*--on-bad skip"):
        write.pack(odd_source, tmp_path / "pack", JPEG)
    assert not (tmp_path / "pack" / format.MANIFEST).exists()
    packed = write.pack(odd_source, tmp_path / "pack", JPEG, on_bad="skip")  # goes on with what there is
    bad = packed.manifest.bad
    assert [(one["split"], one["key"]) for one in bad] == [("train", "train/mug/mug_0005.jpg"), ("val", "val/mug/mug_0003.jpg")]
    index = open_data(tmp_path / "pack").train
    assert "train/mug/mug_0005.jpg" not in set(index.keys) and "packed without 1 bad images" in index.notes[0]
    assert packed.manifest.odd == {
        "16-bit": 2, "alpha": 2, "cmyk": 2, "exif-rotated": 2, "grey": packed.manifest.odd["grey"], "wrong extension": 2
    }  # fmt: skip
    assert write.pack(odd_source, tmp_path / "fresh", JPEG, on_bad="skip").manifest.bad == bad
    assert contents(tmp_path / "fresh") == contents(tmp_path / "pack")


# ---------------------------------------------------------------- interrupted


def stopping_after(count: int):
    def progress(done: int, total: int) -> None:
        assert total == 60
        if done >= count:
            raise Interrupted("SIGTERM")

    return progress


def test_an_interrupted_pack_goes_on_and_is_equal_bit_for_bit(source: Path, tmp_path: Path) -> None:
    whole = write.pack(source, tmp_path / "whole", JPEG)
    assert len(whole.manifest.shards) > 4
    written = 0
    for count in (3, 7, 8, 22, 41, 59):
        with pytest.raises(Interrupted):
            write.pack(source, tmp_path / "cut", JPEG, progress=stopping_after(count))
        assert not (tmp_path / "cut" / format.MANIFEST).exists()
    told = []
    packed = write.pack(source, tmp_path / "cut", JPEG, progress=lambda done, total: told.append(done))
    written = packed.written
    assert 0 < written <= 6 and told[0] > 0 and told[-1] == 60
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


@pytest.mark.parametrize("cut", ["bytes", "flip", "zeros", "twice", "unnoted"])
def test_what_a_crash_left_behind(source: Path, tmp_path: Path, cut: str) -> None:
    write.pack(source, tmp_path / "whole", Keep())
    with pytest.raises(Interrupted):
        write.pack(source, tmp_path / "cut", Keep(), progress=stopping_after(12))
    (part,) = (tmp_path / "cut").glob(".*.part")
    data = bytearray(part.read_bytes())
    if cut == "bytes":
        part.write_bytes(data[: len(data) // 2])
    elif cut == "flip":
        data[len(data) // 3] ^= 4
        part.write_bytes(data)
    elif cut == "zeros":  # a file system that gave length and not content
        part.write_bytes(data[: len(data) // 2] + bytes(len(data) // 2))
    elif cut == "twice":  # ended while an earlier part was being copied
        part.with_suffix(".before").write_bytes(data)
        part.write_bytes(data[:1000])
    else:  # ended between the renaming of a shard and its entry in the plan
        begun = json.loads((tmp_path / "cut" / format.PLAN).read_text())
        begun["done"].popitem()
        del begun["seal"]
        (tmp_path / "cut" / format.PLAN).write_text(json.dumps({**begun, "seal": format.seal(begun)}))
    write.pack(source, tmp_path / "cut", Keep())
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_a_finished_shard_that_was_damaged_is_packed_again(source: Path, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        write.pack(source, tmp_path / "pack", Keep(), progress=stopping_after(30))
    first = sorted((tmp_path / "pack").glob("*.arrow"))[0]
    data = bytearray(first.read_bytes())
    data[len(data) // 2] ^= 1
    first.write_bytes(data)
    packed = write.pack(source, tmp_path / "pack", Keep())
    assert packed.notes == (f"{first}: not as it was written; packed again",)
    assert read.verify(tmp_path / "pack") == []


_PACKING = """
import sys
from pathlib import Path
from striate.data.pack import plan, shard, write, format
plan._SHARD_BYTES, shard.BATCH_ROWS = 14_000, 5
write.pack(sys.argv[1], Path(sys.argv[2]), format.Jpeg(48), workers=2, progress=lambda done, total: print(done, flush=True))
"""


def test_t1_killed_and_gone_on_with(source: Path, tmp_path: Path) -> None:
    write.pack(source, tmp_path / "whole", JPEG)
    command = [sys.executable, "-c", _PACKING, str(source), str(tmp_path / "cut")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= 33:
                process.kill()
    assert process.returncode == -signal.SIGKILL
    packed = write.pack(source, tmp_path / "cut", JPEG)
    assert packed.written < 60 - 20
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_a_finished_pack_says_so(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["data", "pack", str(source), str(tmp_path / "pack"), "--shorter-px", "48", "--workers", "1"]
    assert cli.run([*arguments, "--json"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert "60 images, JPEG, shorter side at most 48, quality 85, 4:2:0, in" in told[0] and "images/s" in told[0]
    assert "before" in told[1] and "after" in told[1] and "levels" in told[2] and "60 images compared" in told[2]
    assert json.loads(told[-1])["images"] == 60
    before = contents(tmp_path / "pack")
    assert cli.run(arguments) == 0
    assert "it was finished before" in capsys.readouterr().out
    assert contents(tmp_path / "pack") == before


def test_t3_a_signal_ends_with_75(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    stored = write.encode.stored

    def slowly(*arguments):
        if (tmp_path / "pack" / format.PLAN).exists():
            os.kill(os.getpid(), signal.SIGTERM)
        return stored(*arguments)

    monkeypatch.setattr(write.encode, "stored", slowly)
    arguments = ["data", "pack", str(source), str(tmp_path / "pack"), "--shorter-px", "48"]
    assert cli.run([*arguments, "--json"]) == 75
    captured = capsys.readouterr()
    assert "Stopped (SIGTERM). What is packed is kept: run the same command again to go on." in captured.err
    assert json.loads(captured.out.splitlines()[-1])["exit_code"] == 75
    with pytest.raises(DataError, match=r"not finished\. Go on with it: striate data pack .* --shorter-px 48"):
        open_data(tmp_path / "pack")
    monkeypatch.undo()
    assert cli.run(arguments) == 0


# ---------------------------------------------------------------- refused


def test_other_options_are_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        write.pack(source, tmp_path / "pack", JPEG, progress=stopping_after(20))
    for _ in range(2):
        with pytest.raises(UserError, match=r"There: JPEG, shorter side at most 48, .*Asked for: original files"):
            write.pack(source, tmp_path / "pack", Keep())
        write.pack(source, tmp_path / "pack", JPEG)


def test_d25_a_changed_source_is_refused_with_the_difference(tmp_path: Path) -> None:
    source = tmp_path / "set"
    synthetic.make(source, layout="folder", classes=2, per_class=6, val_per_class=2, seed=1)
    with pytest.raises(Interrupted):
        write.pack(source, tmp_path / "cut", Keep(), progress=lambda done, total: stopping_after(6)(done, 60))
    write.pack(source, tmp_path / "whole", Keep())
    gone = sorted((source / "train").rglob("*.jpg"))[2]
    gone.rename(gone.with_name("another.jpg"))
    for name in ("cut", "whole"):
        with pytest.raises(CheckpointError, match=r"train: added, 1: '.*another\.jpg'\nremoved, 1:"):
            write.pack(source, tmp_path / name, Keep())
    assert CheckpointError.exit_code == 4


def test_a_part_of_a_set_is_packed_with_the_labels_beside_it(source: Path, tmp_path: Path) -> None:
    write.pack(source / "val", tmp_path / "pack", JPEG)
    whole, part = open_whole(source).indexes["val"], open_whole(tmp_path / "pack").indexes
    assert list(part) == ["val"]
    assert part["val"].keys == whole.keys and part["val"].labels.tolist() == whole.labels.tolist()


def test_d17_a_part_of_a_set_is_not_packed_without_its_labels(source: Path, tmp_path: Path) -> None:
    shutil.copytree(source / "val" / "images", tmp_path / "heap" / "images")
    with pytest.raises(DataError, match="only one class, 'images'"):
        write.pack(tmp_path / "heap", tmp_path / "pack", JPEG)
    assert not (tmp_path / "pack").exists()


@pytest.mark.parametrize("lost", ["shard", "all shards", "half a shard"])
def test_a_finished_pack_that_lost_something_is_not_called_finished(source: Path, tmp_path: Path, lost: str) -> None:
    write.pack(source, tmp_path / "pack", JPEG)
    shards = sorted((tmp_path / "pack").glob("*.arrow"))
    if lost == "half a shard":
        os.truncate(shards[1], shards[1].stat().st_size // 2)
    for path in {"shard": shards[1:2], "all shards": shards}.get(lost, []):
        path.unlink()
    with pytest.raises(DataError, match=r"\.arrow: .*(missing|the manifest says)"):
        write.pack(source, tmp_path / "pack", JPEG)
    with pytest.raises(DataError, match=r"\.arrow: .*(missing|the manifest says)"):
        open_data(tmp_path / "pack")


def test_a_pack_without_its_manifest_is_named_as_such(source: Path, tmp_path: Path) -> None:
    write.pack(source, tmp_path / "pack", JPEG)
    (tmp_path / "pack" / "manifest.json").unlink()
    with pytest.raises(DataError, match=r"manifest\.json: not a readable manifest"):
        open_data(tmp_path / "pack")


def test_places_where_no_pack_can_be(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="lies in the data"):
        write.pack(source, source / "pack", JPEG)
    with pytest.raises(UserError, match="lies in the data"):
        write.pack(source, source, JPEG)
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="a file"):
        write.pack(source, tmp_path / "file", JPEG)
    with pytest.raises(UserError, match=r"holds something else \(file\)"):
        write.pack(source, tmp_path, JPEG)
    (tmp_path / "link").symlink_to(source)
    with pytest.raises(UserError, match="lies in the data"):
        write.pack(source, tmp_path / "link" / "pack", JPEG)


def test_t16_two_packers(source: Path, tmp_path: Path) -> None:
    def progress(done: int, total: int) -> None:
        with pytest.raises(UserError, match=f"being packed by process {os.getpid()} on "):
            write.pack(source, tmp_path / "pack", JPEG)
        raise Interrupted("seen")

    with pytest.raises(Interrupted):
        write.pack(source, tmp_path / "pack", JPEG, progress=progress)
    assert write.pack(source, tmp_path / "pack", JPEG).images == 60


@contextlib.contextmanager
def most_bytes(size: int) -> Iterator[None]:
    """No file may grow beyond that; Python ignores SIGXFSZ, so a write fails with EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_c1_disk_full(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "_SHARD_BYTES", 1_000_000)
    with most_bytes(30_000), pytest.raises(ResourceError, match=r"no room left.*or choose another folder\.$"):
        write.pack(source, tmp_path / "pack", Keep())
    assert not list((tmp_path / "pack").glob("*.arrow")) and not (tmp_path / "pack" / format.MANIFEST).exists()
    packed = write.pack(source, tmp_path / "pack", Keep())
    assert 0 < packed.written < 60
    write.pack(source, tmp_path / "whole", Keep())
    assert contents(tmp_path / "pack") == contents(tmp_path / "whole")


def test_no_room_is_seen_beforehand(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "free_bytes", lambda path: 1_000_000)
    with pytest.raises(ResourceError, match=r"needs about 0\.00 GB, and 0\.00 GB are free"):
        write.pack(source, tmp_path / "pack", Keep())
    assert not (tmp_path / "pack" / format.PLAN).exists()
    monkeypatch.undo()
    assert write.pack(source, tmp_path / "pack", Keep()).images == 60


def test_a_broken_plan(source: Path, tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / format.PLAN).write_text("{}")
    with pytest.raises(CheckpointError, match="not readable"):
        write.pack(source, tmp_path / "pack", Keep())
    with pytest.raises(DataError, match="the command that began it"):
        open_data(tmp_path / "pack")


def test_the_source_is_not_touched(source: Path, tmp_path: Path) -> None:
    shutil.copytree(source, tmp_path / "set")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "set").rglob("*")}
    time.sleep(0.01)
    write.pack(tmp_path / "set", tmp_path / "pack", JPEG)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "set").rglob("*")} == before

"""Reading packs: the same images as the source's, by many readers, and an error for every pack that is not whole."""

from __future__ import annotations

import contextlib
import json
import pickle
import random
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from striate import machine, sitting
from striate.data import decode, resident, synthetic
from striate.data.augment.draw import Augmentation
from striate.data.decode import BadImage
from striate.data.index import compare
from striate.data.layouts.detect import open_data, open_split
from striate.data.loader import Streaming, Workers, train_batches
from striate.data.order import BLOCK_ROWS, Order
from striate.data.pack import format, plan, read, shard, slices, store, write
from striate.data.pack.format import Jpeg, Keep, Manifest, Raw
from striate.data.resident import Prepare
from striate.errors import DataError
from striate.recipe import Recipe
from striate.train.resolve import resolve

RANDOM = Augmentation("random-resized", (0.2, 1.0), (3 / 4, 4 / 3), 0, 0.5, 16, "bilinear", "crop")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source") / "set"
    synthetic.make(folder, layout="tiny", classes=3, per_class=12, val_per_class=4, seed=1)
    return folder


@pytest.fixture(scope="module")
def packs(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packs by kind: keep, jpeg, raw; several shards and record batches in each."""
    folder = tmp_path_factory.mktemp("packs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "_SHARD_BYTES", 40_000)
        patch.setattr(shard, "BATCH_ROWS", 5)
        for name, how in {"keep": Keep(), "jpeg": Jpeg(48), "raw": Raw(32)}.items():
            write.pack(source, folder / name, how)
    return folder


@pytest.fixture
def pack(packs: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(packs / "jpeg", tmp_path / "pack"))


def first_shard(folder: Path) -> Path:
    return folder / Manifest.read(folder).shards[0].name


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize("kind", ["keep", "jpeg", "raw"])
def test_rows_are_where_arrow_has_them(packs: Path, kind: str) -> None:
    manifest, indexes = read.open_pack(packs / kind)
    assert len(manifest.of("train")) > 1
    for split, index in indexes.items():
        tables = [pa.ipc.open_file(packs / kind / one.name).read_all() for one in manifest.of(split)]
        rows = pa.concat_tables(tables).to_pylist()
        assert [row["key"] for row in rows] == list(index.keys)
        assert [row["label"] for row in rows] == index.labels.tolist()
        for i, row in enumerate(rows):
            content = index.content(i)
            stored = row["pixels"] if kind == "raw" else row["image"]["bytes"]
            assert stored == (content.tobytes() if isinstance(content, np.ndarray) else content)
            assert decode.sides(content) == (row["width"], row["height"])
            assert index.sizes_bytes[i] == len(stored)
            if kind == "jpeg":
                assert index.store.restarts(i) == (row["restarts"] or b"") == slices.lengths(content)
            if index.boxes is not None:
                np.testing.assert_array_equal(index.boxes.of(i), np.float32(row["boxes"]).reshape(-1, 4))
            else:
                assert row["boxes"] is None
    first = manifest.of("train")[0]
    assert indexes["train"].where(first.rows + 1) == f"{packs / kind / manifest.of('train')[1].name}, row 1"


@pytest.mark.parametrize("kind", ["jpeg", "raw"])
def test_a_store_travels_and_serves_many(packs: Path, kind: str) -> None:
    index = read.open_pack(packs / kind)[1]["train"]
    expected = [index.content(i) for i in range(len(index))]
    again = pickle.loads(pickle.dumps(index))
    with ThreadPoolExecutor(8) as threads:
        for contents in threads.map(lambda _: [again.content(i) for i in range(len(index))], range(16)):
            assert all(np.array_equal(a, b) for a, b in zip(contents, expected, strict=True))
    part = index.select(np.array([30, 2, 2]))
    assert [np.array_equal(part.content(i), expected[row]) for i, row in enumerate((30, 2, 2))] == [True] * 3
    assert part.where(1) == index.where(2)


def test_files_are_closed_with_the_last_reader(packs: Path) -> None:
    index = read.open_pack(packs / "jpeg")[1]["train"]
    [index.content(i) for i in range(len(index))]
    handles = dict(index.store._handles)
    assert len(handles) > 1
    names = [Path(f"/proc/self/fd/{handle}") for handle in handles.values()]
    assert all(name.exists() for name in names)
    del index
    assert not any(name.exists() and name.readlink().suffix == ".arrow" for name in names)


def test_evaluation_sees_the_same_images_in_both(source: Path, packs: Path) -> None:
    original, again = open_split(source), open_split(packs / "keep")
    np.testing.assert_array_equal(original.classes.match(again.classes), np.arange(3))
    assert original.keys == again.keys and again.split == "val"
    pixels = [[decode.pixels(index.content(i), exif=False) for i in range(len(index))] for index in (original, again)]
    assert all(np.array_equal(a, b) for a, b in zip(*pixels, strict=True))


def test_a_pack_is_taken_as_its_source_lies(source: Path, packs: Path) -> None:
    for data in (source, packs / "jpeg"):
        splits = open_data(data)
        keeps = splits.layout.startswith(sitting.AS_THEY_LIE)
        resolved = resolve(Recipe(), splits, machine.choose_device("cpu"), keeps)
        assert resolved.recipe.data.exif == "off"


def test_d25_another_pack_of_the_same_images_is_another_set(source: Path, packs: Path, tmp_path: Path) -> None:
    write.pack(source, tmp_path / "pack", Raw(32, "crop", True))
    write.pack(source, tmp_path / "again", Raw(32))
    old, same = read.open_pack(packs / "raw")[1]["train"], read.open_pack(tmp_path / "again")[1]["train"]
    assert not compare(old, same) and (old.mtimes_ns == same.mtimes_ns).all() and (old.mtimes_ns < 0).all()
    write.pack(packs / "jpeg", tmp_path / "other", Raw(32))
    assert len(compare(old, read.open_pack(tmp_path / "other")[1]["train"]).edited) == 36
    # Sizes and keys are equal, pixels are not: an evaluation of one must not replace that of the other.
    write.pack(source, tmp_path / "squashed", Raw(32, "squash"))
    squashed = read.open_pack(tmp_path / "squashed")[1]["train"]
    assert squashed.fingerprint != old.fingerprint == same.fingerprint
    assert squashed.stored == "pixels, 32 x 32, squashed, EXIF ignored" and not open_data(packs / "keep").train.stored


# ---------------------------------------------------------------- several ranks, order by blocks


@pytest.mark.parametrize("in_blocks", [False, True])
@pytest.mark.parametrize("batch_size", [6, 7])
def test_p5_every_image_once_an_epoch_for_any_number_of_ranks(packs: Path, in_blocks: bool, batch_size: int) -> None:
    index = store.in_blocks(read.open_pack(packs / "jpeg")[1]["train"], BLOCK_ROWS)
    steps = len(index) // batch_size
    whole = [Order(3, len(index), batch_size, in_blocks=in_blocks).step(step).rows_b.tolist() for step in range(2 * steps)]
    for world in (1, 2, 3):
        seen: list[list[str]] = [[] for _ in range(2 * steps)]
        for rank in range(world):
            order = Order(3, len(index), batch_size, None, rank, world, in_blocks)
            batches = train_batches(Streaming(index, False), index, RANDOM, order, 0, 2 * steps, Workers("threads", 0))
            for step, batch in enumerate(batches):
                assert not batch.bad
                seen[step] += batch.keys
        assert seen == [[index.keys[row] for row in rows] for rows in whole]
        for epoch in (seen[:steps], seen[steps:]):
            keys = [key for step in epoch for key in step]
            assert len(keys) == len(set(keys)) == steps * batch_size  # all but a short last batch
    assert seen[:steps] != seen[steps:]


@pytest.mark.parametrize("in_blocks", [False, True])
def test_p4_the_world_may_change_in_the_middle(packs: Path, in_blocks: bool) -> None:
    index = read.open_pack(packs / "raw")[1]["train"]
    whole = [Order(3, len(index), 7, in_blocks=in_blocks).step(step).rows_b.tolist() for step in range(10)]
    seen = []
    for step, world in enumerate((1, 1, 2, 2, 3, 3, 3, 1, 2, 3)):
        parts = [Order(3, len(index), 7, None, rank, world, in_blocks).step(step).rows_b.tolist() for rank in range(world)]
        seen.append([row for part in parts for row in part])
    assert seen == whole


def test_reading_ahead_changes_nothing(packs: Path) -> None:
    index = read.open_pack(packs / "jpeg")[1]["train"]
    ahead = store.in_blocks(index, 7)
    assert ahead.store.block_rows == 7
    assert [ahead.content(i) for i in range(len(index))] == [index.content(i) for i in range(len(index))]
    assert list(ahead.store._asked) == list(range(0, 36, 7))


_READING = """
import resource, sys
from pathlib import Path
from striate.data.pack import read
def rss():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
before = rss()
index = read.open_pack(Path(sys.argv[1]))[1]["train"]
after, total, most = rss(), 0, 0
for _ in range(2):
    for row in range(len(index)):
        total += int(index.content(row)[0, 0, 0])
        if row % 100 == 0:
            most = max(most, rss())
print(after - before, most - after, total)
"""


def test_memory_stays_flat_for_a_large_pack(tmp_path: Path) -> None:
    """300 MB of pixels, read twice; written here as `pack` would, but from one image."""
    folder = tmp_path / "pack"
    _repeated(tmp_path, folder, rows=2000, side_px=224)
    assert sum(path.stat().st_size for path in folder.glob("*.arrow")) > 300e6
    found = subprocess.run([sys.executable, "-c", _READING, str(folder)], capture_output=True, text=True, check=True)
    opened, grown, total = map(int, found.stdout.split())
    assert total == 2 * 2000 * 7
    assert opened < 60e6 and grown < 20e6


def _repeated(tmp_path: Path, folder: Path, rows: int, side_px: int) -> None:
    pixels = np.full((side_px, side_px, 3), 7, dtype=np.uint8)

    class Same:
        def read(self, place: int):
            return pixels

        def where(self, place: int) -> str:
            return f"image {place}"

    synthetic.make(tmp_path / "small", layout="folder", classes=2, per_class=1, val_per_class=1, seed=0)
    small = open_split(tmp_path / "small", "train")
    index = small.select(np.zeros(rows, dtype=np.int64))
    object.__setattr__(index, "store", Same())
    object.__setattr__(index, "places", np.arange(rows))
    object.__setattr__(index, "boxes", None)
    folder.mkdir()
    begun = plan.begin(folder, Raw(side_px, "crop", False), {"train": index}, "class folder", "")
    write._finish(folder, begun, {"train": index}, "fail", write._Threads(1, 60.0), None)


# ---------------------------------------------------------------- damage


def test_a_truncated_shard(pack: Path) -> None:
    path = first_shard(pack)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=rf"{path.name}: [\d,]+ bytes, the manifest says"):
        open_data(pack)


def test_a_missing_shard(pack: Path) -> None:
    first_shard(pack).unlink()
    with pytest.raises(DataError, match="this shard of the pack is missing"):
        open_data(pack)


def test_shards_of_another_pack(pack: Path, packs: Path, source: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "_SHARD_BYTES", 40_000)
        write.pack(source, tmp_path / "other", Jpeg(48, 86))
    ours, theirs = Manifest.read(pack), Manifest.read(tmp_path / "other")
    name, other = ours.shards[0].name, theirs.shards[0].name
    (pack / name).write_bytes((tmp_path / "other" / other).read_bytes())
    values = json.loads((pack / format.MANIFEST).read_text())
    values["shards"][0]["size_bytes"] = (pack / name).stat().st_size
    values.pop("seal")
    (pack / format.MANIFEST).write_text(json.dumps({**values, "seal": format.seal(values)}))
    with pytest.raises(DataError, match="not a shard of this pack"):
        open_data(pack)


def test_c15_a_newer_pack(pack: Path) -> None:
    values = json.loads((pack / format.MANIFEST).read_text())
    (pack / format.MANIFEST).write_text(json.dumps({**values, "format": 2}))
    with pytest.raises(DataError, match=r"format 2, this striate reads up to 1\. Install a newer striate"):
        open_data(pack)


@pytest.mark.parametrize("change", ["rows", "name", "cut", "list", "nan", "empty", "binary"])
def test_a_manifest_that_was_changed(pack: Path, change: str) -> None:
    path = pack / format.MANIFEST
    text = path.read_text()
    values = json.loads(text)
    if change == "rows":
        values["shards"][0]["rows"] += 1
    elif change == "name":
        values["shards"][0]["name"] = "../../etc/passwd"
        values.pop("seal")
        values["seal"] = format.seal(values)
    data = {"cut": text[:100], "list": "[]", "nan": "NaN", "empty": "", "binary": "\0\1"}.get(change, json.dumps(values))
    path.write_text(data)
    with pytest.raises(DataError, match="not a readable manifest"):
        open_data(pack)


def test_d3_flipped_bits_in_images_are_found_and_named(packs: Path, tmp_path: Path) -> None:
    rng = random.Random(5)
    for kind in ("keep", "jpeg", "raw"):
        folder = Path(shutil.copytree(packs / kind, tmp_path / kind))
        told: list[tuple[int, int]] = []
        assert read.verify(folder, lambda done, total, told=told: told.append((done, total))) == []
        assert told[-1][0] == told[-1][1] == sum(one.stat().st_size for one in folder.glob("*.arrow"))
        index = read.open_pack(folder)[1]["train"]
        for _ in range(10):
            row = rng.randrange(len(index))
            place = int(index.store.starts_N[row]) + rng.randrange(int(index.store.lengths_N[row]))
            name, number = index.where(row).split(", row ")
            data = bytearray(Path(name).read_bytes())
            data[place] ^= 1 << rng.randrange(8)
            Path(name).write_bytes(data)
            open_data(folder)  # offsets are whole: opens, as nothing reads all images here
            (damage,) = read.verify(folder)
            assert damage.path == Path(name) and damage.rows == (int(number),) and damage.keys == (index.keys[row],)
            shutil.copy(packs / kind / Path(name).name, name)


@pytest.mark.parametrize("kind", ["keep", "jpeg"])
def test_d3_a_file_that_changed_is_bad_in_every_mode_and_epoch(kind: str, packs: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(packs / kind, tmp_path / kind))
    index = read.open_pack(folder)[1]["train"]
    row = 5
    place = int(index.store.starts_N[row]) + int(index.store.lengths_N[row]) - 30  # coded data at the lower edge
    path = Path(index.where(row).split(", row ")[0])
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    index = read.open_pack(folder)[1]["train"]
    count = len(index)
    expected = [(index.keys[row], f"{index.where(row)}: damaged, its bytes have changed since it was packed")]
    memory = resident.build(index, Prepare(False, 0), 1)
    for source in (Streaming(index, False), memory):
        for workers in (Workers("threads", 0), Workers("threads", 2)):
            batches = list(train_batches(source, index, RANDOM, Order(1, count, count), 0, 3, workers))
            assert [list(batch.bad) for batch in batches] == [expected] * 3
    assert any("not cached" in note for note in memory.notes)  # the pack may be mended, and is then the same set
    path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    assert not resident.build(index, Prepare(False, 0), 1).bad


def test_flipped_bits_anywhere_else_are_an_error_or_are_found(pack: Path) -> None:
    """Around images, in offsets, lengths, keys and Arrow's own tables: never anything but DataError and BadImage."""
    path = first_shard(pack)
    whole = path.read_bytes()
    index = read.open_pack(pack)[1]["train"]
    inside = np.zeros(len(whole), dtype=bool)
    for start, length in zip(index.store.starts_N[:5].tolist(), index.store.lengths_N[:5].tolist(), strict=True):
        inside[start : start + length] = True
    places = np.flatnonzero(~inside)
    rng, refused = random.Random(7), 0
    for _ in range(120):
        data = bytearray(whole)
        data[rng.choice(places)] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        try:
            found = read.open_pack(pack)[1]["train"]
            for i in range(8):
                with contextlib.suppress(BadImage):
                    decode.decode(found.content(i), exif=False)
        except DataError:
            refused += 1
        assert read.verify(pack)
    assert refused > 10


def test_a_file_that_shrinks_while_it_is_read(pack: Path) -> None:
    index = read.open_pack(pack)[1]["train"]
    index.content(0)
    with open(first_shard(pack), "r+b") as file:
        file.truncate(100)
    with pytest.raises(BadImage, match="shorter since it was opened") as found:
        index.content(0)
    assert not found.value.lasting
    first_shard(pack).unlink()
    fresh = pickle.loads(pickle.dumps(index))
    with pytest.raises(BadImage, match="cannot be read: No such file"):
        fresh.content(0)


# ---------------------------------------------------------------- other tools


def test_polars_opens_a_pack(packs: Path) -> None:
    polars = pytest.importorskip("polars")
    index = read.open_pack(packs / "jpeg")[1]["train"]
    frame = polars.read_ipc(packs / "jpeg" / "train-*.arrow")
    assert frame["key"].to_list() == list(index.keys) and frame["label"].to_list() == index.labels.tolist()
    assert [image["bytes"] for image in frame["image"]] == [index.content(i) for i in range(len(index))]


def test_pyarrow_datasets_open_a_pack(packs: Path) -> None:
    import pyarrow.dataset as datasets

    index = read.open_pack(packs / "raw")[1]["train"]
    table = datasets.dataset(sorted(map(str, (packs / "raw").glob("train-*.arrow"))), format="arrow").to_table()
    assert table["key"].to_pylist() == list(index.keys)
    about = json.loads(table.schema.metadata[b"striate.pack"])
    assert about["classes"]["ids"] == list(index.classes.ids) and about["view"]["resize_px"] == 32


def test_duckdb_opens_a_pack(packs: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    import pyarrow.dataset as datasets

    train = datasets.dataset(sorted(map(str, (packs / "jpeg").glob("train-*.arrow"))), format="arrow")
    counts = duckdb.from_arrow(train).aggregate("label, count(*) as n", "label").order("label").fetchall()
    assert counts == [(0, 12), (1, 12), (2, 12)]


def test_hugging_face_datasets_show_pictures_and_names(packs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    found = datasets.load_dataset("arrow", data_dir=str(packs / "jpeg"), cache_dir=str(tmp_path / "cache"))
    index = read.open_pack(packs / "jpeg")[1]["train"]
    assert {name: len(part) for name, part in found.items()} == {"train": 36, "validation": 12, "test": 12}
    row = found["train"][20]
    assert row["key"] == index.keys[20]
    np.testing.assert_array_equal(np.asarray(row["image"].convert("RGB")), decode.decode(index.content(20), exif=False))
    names = [index.classes.title(i) for i in range(3)]
    assert found["train"].features["label"].int2str(row["label"]) == names[int(index.labels[20])]

"""Decoded once: the same pixels as streaming, and a cache that is whole or not there."""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from striate import files
from striate.classes import Classes
from striate.data import decode, resident, views
from striate.data.decode import BadImage
from striate.data.index import Gathering, Index
from striate.data.loader import Streaming
from striate.data.resident import Prepare
from striate.errors import DataError, ResourceError, UserError
from striate.view import View

VIEW = View(16, "crop", 20, "bilinear", False, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
PHOTO = Prepare(exif=False, shrink_px=0)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own for each test."""
    monkeypatch.setenv("STRIATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("STRIATE_CACHE_GB", raising=False)
    return tmp_path / "cache" / "images"


def made(folder: Path, count: int = 12, side: int | None = None, bad: tuple[int, ...] = ()) -> Index:
    """An index over small pictures of many sizes (or one), some of them broken."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    gathering = Gathering()
    for number in range(count):
        width, height = (side, side) if side else rng.integers(18, 60, 2).tolist()
        path = folder / f"{number:03}.{'png' if number % 2 else 'jpg'}"
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
        if number in bad:
            path.write_bytes(path.read_bytes()[:100])
        facts = path.stat()
        gathering.add(path.name.encode(), number % 3, facts.st_size, facts.st_mtime_ns)
    return gathering.index(folder, "train", "class folder", Classes(("a", "b", "c"), ("a", "b", "c")))


def build(index: Index, prepare: Prepare | View = PHOTO, workers: int = 0) -> resident.Resident:
    return resident.build(index, prepare, workers, None, None)


# ---------------------------------------------------------------- pixels


@pytest.mark.parametrize("prepare", [PHOTO, Prepare(False, 25), Prepare(True, 0)])
@pytest.mark.parametrize("workers", [0, 2])
def test_pixels_are_those_of_streaming(prepare: Prepare, workers: int, tmp_path: Path) -> None:
    index = made(tmp_path / "photos", bad=(4,))
    streaming = Streaming(index, prepare.exif, prepare.shrink_px)
    for images in (build(index, prepare, workers), build(index, prepare, workers)):
        for row in range(len(index)):
            if row == 4:
                with pytest.raises(BadImage) as streamed:
                    streaming.image(row)
                with pytest.raises(BadImage) as stored:
                    images.image(row)
                assert streamed.value.reason == stored.value.reason == images.bad[4]
            else:
                np.testing.assert_array_equal(images.image(row), streaming.image(row))
    assert images.is_from_cache
    assert set(images.bad) == {4}


def test_a_view_is_stored_ready_for_the_network(tmp_path: Path) -> None:
    index = made(tmp_path / "photos")
    images = build(index, VIEW)
    all_NSS3 = images.all_of(16)
    assert all_NSS3 is not None
    for row in range(len(index)):
        expected = views.apply(decode.load(index.path(row), False), VIEW)
        np.testing.assert_array_equal(images.image(row), expected)
        np.testing.assert_array_equal(all_NSS3[row], expected)
    assert images.all_of(17) is None
    assert images.size_bytes == len(index) * 16 * 16 * 3 == resident.estimate_bytes(index, VIEW)


def test_the_estimate_is_near_for_photos(tmp_path: Path) -> None:
    index = made(tmp_path / "photos", bad=(2,))
    assert 0.7 < resident.estimate_bytes(index, PHOTO) / build(index).size_bytes < 1.4
    assert resident.estimate_bytes(index, Prepare(False, 20)) < resident.estimate_bytes(index, PHOTO)
    assert resident.estimate_bytes(made(tmp_path / "none", 0), PHOTO) == 0


def test_an_estimate_far_too_low_only_costs_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = made(tmp_path / "photos")
    expected = build(index)
    monkeypatch.setenv("STRIATE_CACHE", str(tmp_path / "other"))
    monkeypatch.setattr(resident, "estimate_bytes", lambda *_: 10)
    np.testing.assert_array_equal(build(index).blob, expected.blob)


def test_empty_and_all_bad_sets(tmp_path: Path) -> None:
    assert len(build(made(tmp_path / "none", 0))) == 0
    for _ in range(2):
        images = build(made(tmp_path / "bad", 3, bad=(0, 1, 2)))
        assert set(images.bad) == {0, 1, 2}
        assert images.size_bytes == 0


def test_bad_images_are_told_in_order_and_may_stop_the_building(tmp_path: Path) -> None:
    index = made(tmp_path / "photos", bad=(1, 8))
    told: list[int] = []
    done: list[tuple[int, int]] = []
    for _ in range(2):  # decoded, then from the cache
        resident.build(index, PHOTO, 2, lambda row, _: told.append(row), lambda *state: done.append(state))
        assert done[-1] == (12, 12)
    assert told == [1, 8, 1, 8]

    def stop(row: int, reason: str) -> None:
        raise DataError(f"{index.keys[row]}: {reason}")

    with pytest.raises(DataError, match=r"001\.png"):
        resident.build(index, PHOTO, 2, stop, None)
    with pytest.raises(DataError, match=r"001\.png"):
        resident.build(index, Prepare(True, 0), 2, stop, None)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("loader")]


def test_oddities_are_noted_again_from_the_cache(tmp_path: Path) -> None:
    index = made(tmp_path / "photos", 3)
    Image.new("L", (30, 30)).save(tmp_path / "photos" / "000.jpg")
    Image.new("CMYK", (30, 30)).save(tmp_path / "photos" / "002.jpg")
    for _ in range(2):
        notes = build(index).notes
        assert "1 images: grey" in notes
        assert "1 images: cmyk" in notes


# ---------------------------------------------------------------- the cache


def entries(cache: Path) -> list[str]:
    return sorted(folder.name for folder in cache.iterdir()) if cache.exists() else []


def test_what_changes_pixels_changes_the_key(tmp_path: Path) -> None:
    index = made(tmp_path / "photos")
    keys = [
        resident.cache_key(index, prepare)
        for prepare in (PHOTO, Prepare(True, 0), Prepare(False, 20), VIEW, replace(VIEW, size_px=15), replace(VIEW, exif=True))
    ]
    assert len(set(keys)) == len(keys)
    assert resident.cache_key(index, VIEW) == resident.cache_key(index, replace(VIEW, mean=(0.1, 0.1, 0.1)))
    edited = replace(index, mtimes_ns=index.mtimes_ns + (np.arange(len(index)) == 3))
    assert resident.cache_key(edited, PHOTO) != keys[0]
    moved = replace(index, root=Path("/elsewhere"))
    assert resident.cache_key(moved, PHOTO) == keys[0]


@pytest.mark.parametrize("name", ["pixels.bin", "sides.bin", "manifest.json"])
@pytest.mark.parametrize("damage", ["cut", "flip", "zeros", "gone"])
def test_a_damaged_cache_is_made_again(name: str, damage: str, tmp_path: Path, cache: Path) -> None:
    index = made(tmp_path / "photos", bad=(2,))
    expected = build(index)
    path = cache / entries(cache)[0] / name
    data = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(data[:-1])
    elif damage == "flip":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif damage == "zeros":
        path.write_bytes(bytes(len(data)))
    else:
        path.unlink()
    again = build(index)
    assert not again.is_from_cache
    np.testing.assert_array_equal(again.blob, expected.blob)
    assert again.bad == expected.bad
    assert build(index).is_from_cache
    assert len(entries(cache)) == 1


def test_the_manifest_is_strict_json(tmp_path: Path, cache: Path) -> None:
    build(made(tmp_path / "photos"))
    manifest = json.loads((cache / entries(cache)[0] / "manifest.json").read_text())
    assert manifest["format"] == 1


def test_d28_a_cache_that_cannot_be_written_costs_only_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = made(tmp_path / "photos")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STRIATE_CACHE", str(tmp_path / "file" / "below"))
    images = build(index)
    assert len(images) == 12
    assert any("not cached on disk" in note for note in images.notes)


def test_a_full_disk_costs_only_time(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = made(tmp_path / "photos")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_synced", full)
    images = build(index)
    assert any("No space left" in note for note in images.notes)
    assert entries(cache) == []
    monkeypatch.undo()
    monkeypatch.setenv("STRIATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(files, "free_bytes", lambda _: 1000)
    assert any("are needed" in note for note in build(index).notes)


def test_the_cap_holds_and_the_least_used_goes_first(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    indices = [made(tmp_path / f"photos-{number}", 10 + number, side=20) for number in range(3)]
    for number, index in enumerate(indices[:2]):
        build(index)
        (entry,) = [name for name in entries(cache) if name == resident.cache_key(index, PHOTO)]
        os.utime(cache / entry / "manifest.json", (1000 + number, 1000 + number))
    assert build(indices[0]).is_from_cache  # used again: now the second is the oldest
    monkeypatch.setenv("STRIATE_CACHE_GB", str(29_000 / 1e9))  # 12,000 + 13,200 + 14,400 bytes and the manifests do not fit
    build(indices[2])
    kept = entries(cache)
    assert kept == sorted(resident.cache_key(index, PHOTO) for index in (indices[0], indices[2]))
    monkeypatch.setenv("STRIATE_CACHE_GB", "0")
    note = build(made(tmp_path / "photos-9", 9)).notes[-1]
    assert "more than the cap" in note
    assert entries(cache) == kept


@pytest.mark.parametrize("text", ["many", "-1", "nan", "inf"])
def test_a_cap_that_is_no_number_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRIATE_CACHE_GB", text)
    with pytest.raises(UserError, match="STRIATE_CACHE_GB"):
        resident.cap_bytes()


def test_what_could_not_be_read_today_is_not_remembered(tmp_path: Path, cache: Path) -> None:
    index = made(tmp_path / "photos")
    path = index.path(5)
    data = path.read_bytes()
    path.unlink()
    images = build(index)
    assert images.bad == {5: "no such file (vanished, or a dangling link)"}
    assert entries(cache) == []
    path.write_bytes(data)
    assert build(index).bad == {}


def test_two_builders_at_once_do_not_disturb_each_other(tmp_path: Path, cache: Path) -> None:
    index = made(tmp_path / "photos", 40)
    found: list[resident.Resident] = []
    hands = [threading.Thread(target=lambda: found.append(build(index))) for _ in range(4)]
    for hand in hands:
        hand.start()
    for hand in hands:
        hand.join()
    assert len(found) == 4
    for images in found:
        np.testing.assert_array_equal(images.blob, found[0].blob)
    assert entries(cache) == [resident.cache_key(index, PHOTO)]


def test_t02_what_a_killed_builder_left_is_swept(tmp_path: Path, cache: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=os.getpid)
    process.start()
    process.join()
    import socket

    dead = cache / f"tmp-{socket.gethostname()}-{process.pid}-0123"
    other = cache / "tmp-otherhost-1-0123"
    for folder in (dead, other):
        folder.mkdir(parents=True)
        (folder / "pixels.bin").write_bytes(b"part")
    build(made(tmp_path / "photos"))
    assert not dead.exists()
    assert other.exists()


def test_a_mapped_cache_survives_its_removal(tmp_path: Path, cache: Path) -> None:
    index = made(tmp_path / "photos")
    expected = build(index).blob.copy()
    images = build(index)
    resident._forget(cache / entries(cache)[0])
    assert entries(cache) == []
    np.testing.assert_array_equal(images.blob, expected)


# ---------------------------------------------------------------- trouble while building


def test_t10_a_hang_while_building_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = made(tmp_path / "photos")
    plain = decode.read
    release = threading.Event()

    def hanging(path: Path, *rest: int) -> bytes:
        if path.name == "007.png":
            release.wait(20)
        return plain(path, *rest)

    monkeypatch.setattr(decode, "read", hanging)
    with pytest.raises(ResourceError, match=r"007\.png"):
        resident.build(index, PHOTO, 2, None, None, timeout_s=0.2)
    release.set()


def test_t12_an_odd_exception_while_building_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = made(tmp_path / "photos")

    class Odd(Exception):
        def __init__(self, first: int, second: int) -> None:
            super().__init__(f"odd {first} {second}")

    def raising(data: bytes, *_: object) -> None:
        raise Odd(1, 2)

    monkeypatch.setattr(resident, "prepared", raising)
    with pytest.raises(DataError, match=r"000\.jpg.*Odd: odd 1 2"):
        resident.build(index, PHOTO, 2, None, None)


def test_tiny_imagenet(real_data: Path) -> None:
    root = real_data / "tiny-imagenet-200" / "val" / "images"
    gathering = Gathering()
    for path in sorted(root.glob("*.JPEG"))[:300]:
        facts = path.stat()
        gathering.add(path.name.encode(), 0, facts.st_size, facts.st_mtime_ns)
    index = gathering.index(root, "val", "tiny", Classes(("a",), ("a",)))
    images = build(index, workers=2)
    assert images.bad == {}
    assert images.all_of(64) is not None
    for row in range(0, 300, 10):
        with Image.open(index.path(row)) as image:
            np.testing.assert_array_equal(images.image(row), np.asarray(image.convert("RGB")))

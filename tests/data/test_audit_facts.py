"""Facts of an audit: against Pillow and hashlib, and the journal against kills, torn ends and changed files."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import io
import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from striate.data import decode, synthetic
from striate.data.audit import facts, likeness
from striate.data.audit.facts import JOURNAL, Facts, gather
from striate.data.decode import BadImage
from striate.data.index import Index
from striate.data.layouts import detect
from striate.errors import Interrupted, ResourceError, UserError


@pytest.fixture(scope="module")
def odd_set(tmp_path_factory: pytest.TempPathFactory) -> synthetic.Made:
    return synthetic.make(tmp_path_factory.mktemp("odd") / "set", "folder", 3, 6, 3, defects=True)


def photos(folder: Path, count: int = 6) -> Index:
    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, (20 + i, 30, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return detect.open_photos(folder)


def of(index: Index, out: Path, workers: int = 0) -> tuple[Facts, int]:
    out.mkdir(exist_ok=True)
    found = gather({"train": index}, out, workers)
    return found.facts["train"], found.known


def kinds_of(found: Facts) -> dict[str, set[str]]:
    return {key: set(odd) for key, odd in zip(found.index.keys, found.odd, strict=True) if odd}


@pytest.mark.parametrize("workers", [0, 2])
def test_facts_agree_with_pillow_and_hashlib(odd_set: synthetic.Made, tmp_path: Path, workers: int) -> None:
    index = detect.open_whole(odd_set.folder).indexes["train"]
    found, known = of(index, tmp_path, workers)
    assert known == 0
    for row, key in enumerate(index.keys):
        data = (odd_set.folder / key).read_bytes()
        assert found.sha256_N32[row].tobytes() == hashlib.sha256(data).digest()
        with Image.open(io.BytesIO(data)) as image:
            assert (found.format[row], tuple(found.sides_N2[row])) == (image.format, image.size)
        if odd_set.defects.get(key) != "truncated":
            assert int(found.likeness_N[row]) == likeness.likeness(decode.decode(data, exif=True)) != 0


def test_every_odd_kind_is_named_and_no_other(odd_set: synthetic.Made, tmp_path: Path) -> None:
    found, _ = of(detect.open_whole(odd_set.folder).indexes["train"], tmp_path)
    expected = {
        "cmyk": {"cmyk"}, "grey": {"grey"}, "png-named-jpeg": {"wrong extension"}, "16-bit": {"16-bit", "grey"},
        "exif-rotated": {"exif-rotated"}, "alpha": {"alpha"},
    }  # fmt: skip
    by_kind = {odd_set.defects[key]: odd for key, odd in kinds_of(found).items() if key in odd_set.defects}
    assert by_kind == expected
    assert all(odd == {"grey"} for key, odd in kinds_of(found).items() if key not in odd_set.defects)
    bad = {key: reason for key, reason in zip(found.index.keys, found.reason, strict=True) if reason}
    (truncated,) = [key for key, kind in odd_set.defects.items() if kind == "truncated" and key.startswith("train")]
    assert list(bad) == [truncated] and "truncated" in bad[truncated]


def test_a_grey_photo_stored_in_colour_looks_grey(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    ramp = np.linspace(0, 255, 40 * 50).reshape(40, 50).astype(np.uint8)
    Image.fromarray(np.stack([ramp] * 3, axis=2)).save(folder / "grey.png")
    corner = np.stack([ramp] * 3, axis=2)
    corner[-1, -1] = 255, 0, 0
    Image.fromarray(corner).save(folder / "red-corner.png")
    Image.fromarray(ramp).save(folder / "stored-grey.png")
    found, _ = of(detect.open_photos(folder), tmp_path / "out")
    assert kinds_of(found) == {"grey.png": {"looks grey"}, "stored-grey.png": {"grey"}}


def png_of(width: int, height: int) -> bytes:
    """A PNG that says these sides and has next to nothing in it."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def test_d1_d2_d10_d12_bad_files_have_their_reason_and_what_the_header_says(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    photos(folder, 1)
    whole = (folder / "0.png").read_bytes()
    tiff = io.BytesIO()
    Image.new("RGB", (4, 4)).save(tiff, "TIFF")
    content = {
        "bomb.png": png_of(20_000, 20_000), "cut.png": whole[: len(whole) // 2], "empty.jpg": b"",
        "html.jpg": b"<!DOCTYPE html><p>404", "nul.jpg": b"\0" * 50, "tiff.jpg": tiff.getvalue(),
    }  # fmt: skip
    for name, data in content.items():
        (folder / name).write_bytes(data)
    found, _ = of(detect.open_photos(folder), tmp_path / "out")
    about = dict(zip(found.index.keys, zip(found.reason, found.format, found.sides_N2.tolist(), strict=True), strict=True))
    assert about["0.png"] == (None, "PNG", [30, 20])
    assert "limit of 50,000,000" in str(about["bomb.png"][0]) and about["bomb.png"][1:] == ("PNG", [20_000, 20_000])
    assert "truncated" in str(about["cut.png"][0]) and about["cut.png"][1:] == ("PNG", [30, 20])
    assert about["empty.jpg"] == ("empty file", "", [0, 0])
    assert "HTML" in str(about["html.jpg"][0]) and "NUL" in str(about["nul.jpg"][0]) and "TIFF" in str(about["tiff.jpg"][0])
    assert found.likeness_N[1:].tolist() == [0] * 6 and found.sha256_N32.any(axis=1).all()


def test_a_store_of_pixels_has_facts_too(tmp_path: Path) -> None:
    images_N = np.random.default_rng(0).integers(0, 256, (3, 8, 10, 3), dtype=np.uint8)

    class Raw:
        def read(self, place: int) -> np.ndarray:
            return images_N[place]

        def where(self, place: int) -> str:
            return f"raw {place}"

    index = dataclasses.replace(photos(tmp_path / "set", 3), store=Raw(), places=np.asarray([2, 0, 1]))
    found, _ = of(index, tmp_path / "out")
    assert found.format == ["pixels"] * 3 and found.sides_N2.tolist() == [[10, 8]] * 3
    assert [sha.tobytes() for sha in found.sha256_N32] == [hashlib.sha256(images_N[i].tobytes()).digest() for i in (2, 0, 1)]


# ---------------------------------------------------------------- the journal


def are_equal(a: Facts, b: Facts) -> bool:
    words = (a.reason, a.format, a.odd) == (b.reason, b.format, b.odd)
    return words and all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("sides_N2", "sha256_N32", "likeness_N"))


def test_a_second_audit_decodes_nothing_and_says_the_same(
    odd_set: synthetic.Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    indexes = detect.open_whole(odd_set.folder).indexes
    first = gather(indexes, tmp_path, 0)

    def never(*_: object) -> None:
        raise AssertionError("an image was looked at again")

    monkeypatch.setattr(facts, "_look", never)
    second = gather(indexes, tmp_path, 0)
    assert (first.known, second.known) == (0, sum(map(len, indexes.values())))
    assert all(are_equal(first.facts[split], second.facts[split]) for split in indexes)


def test_a_changed_file_is_looked_at_again_and_rows_may_move(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    of(photos(folder), tmp_path / "out")
    (folder / "3.png").write_bytes((folder / "3.png").read_bytes()[:-30])
    (folder / "+.png").write_bytes((folder / "1.png").read_bytes())  # sorts first: every row moves by one
    found, known = of(detect.open_photos(folder), tmp_path / "out")
    assert known == 5 and [reason is not None for reason in found.reason] == [False] * 4 + [True] + [False] * 2
    assert found.sides_N2[:, 1].tolist() == [21, 20, 21, 22, 23, 24, 25]
    same_time = (folder / "2.png").stat()
    (folder / "2.png").write_bytes(bytes(same_time.st_size))  # same size, another time of change
    os.utime(folder / "2.png", ns=(same_time.st_atime_ns, same_time.st_mtime_ns + 1))
    found, known = of(detect.open_photos(folder), tmp_path / "out")
    assert known == 6 and "NUL" in str(found.reason[list(found.index.keys).index("2.png")])


def test_what_cannot_be_read_today_is_tried_again_another_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = photos(tmp_path / "set")
    original = Index.content

    def content(self: Index, i: int) -> object:
        if i == 2:
            raise BadImage("no permission to read it", lasting=False)
        return original(self, i)

    with monkeypatch.context() as patched:
        patched.setattr(Index, "content", content)
        found, _ = of(index, tmp_path / "out")
    assert found.reason[2] == "no permission to read it" and not found.sha256_N32[2].any()
    found, known = of(index, tmp_path / "out")
    assert known == 5 and found.reason[2] is None


@pytest.mark.parametrize("damage", ["cut by one byte", "cut within the length", "one bit flipped", "rubbish behind"])
def test_a_torn_end_costs_its_frame_and_nothing_else(tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "_CHUNK", 2)
    monkeypatch.setattr(facts, "_BATCH", 1)
    index = photos(tmp_path / "set")
    whole, _ = of(index, tmp_path / "out")
    journal = tmp_path / "out" / JOURNAL
    data = journal.read_bytes()
    (length,) = struct.unpack_from("<I", data)
    assert len(data) == 3 * (8 + length)  # three frames of two images each
    if damage == "cut by one byte":
        data = data[:-1]
    elif damage == "cut within the length":
        data = data[: 2 * (8 + length) + 3]
    elif damage == "one bit flipped":
        data = data[:-40] + bytes([data[-40] ^ 1]) + data[-39:]
    else:
        data += b"\xff" * 100
    journal.write_bytes(data)
    for wanted in (6 if damage == "rubbish behind" else 4, 6):  # what is found again stands in the journal again
        found, known = of(index, tmp_path / "out")
        assert known == wanted and are_equal(found, whole)


def test_an_interruption_keeps_what_was_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "_CHUNK", 2)
    index = photos(tmp_path / "set")

    def stop(done: int, total: int) -> None:
        if done >= 4:
            raise Interrupted("SIGTERM")

    with pytest.raises(Interrupted):
        gather({"train": index}, tmp_path, 1, stop)
    calls: list[tuple[int, int]] = []
    found = gather({"train": index}, tmp_path, 0, lambda done, total: calls.append((done, total)))
    assert found.known == 4 and calls == [(4, 6), (6, 6)]


def test_one_process_at_a_time_writes_a_journal(tmp_path: Path) -> None:
    index = photos(tmp_path / "set")

    def another(done: int, total: int) -> None:
        with pytest.raises(UserError, match="another audit"):
            gather({"train": index}, tmp_path, 0)

    assert gather({"train": index}, tmp_path, 0, another).known == 0


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = photos(tmp_path / "set")

    def full(handle: int, data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.write", full)
        with pytest.raises(ResourceError, match="no room left"):
            gather({"train": index}, tmp_path, 0)
    assert gather({"train": index}, tmp_path, 0).known == 0


_SCRIPT = """
import sys, time
from pathlib import Path
from striate.data.audit import facts
from striate.data.layouts import detect
facts._CHUNK, facts._BATCH = 2, 1
facts.gather({"train": detect.open_photos(sys.argv[1])}, Path(sys.argv[2]), 2, lambda done, total: time.sleep(0.05))
"""


def test_sigkill_costs_at_most_a_batch(tmp_path: Path) -> None:
    index = photos(tmp_path / "set", 60)
    (tmp_path / "killed").mkdir()
    process = subprocess.Popen([sys.executable, "-c", _SCRIPT, str(tmp_path / "set"), str(tmp_path / "killed")])
    journal = tmp_path / "killed" / JOURNAL
    try:
        until = time.monotonic() + 60
        while not (journal.exists() and journal.stat().st_size > 10_000):
            assert time.monotonic() < until and process.poll() is None
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    found, known = of(index, tmp_path / "killed")
    whole, _ = of(index, tmp_path / "whole")
    assert 0 < known < 60 and known % 2 == 0 and are_equal(found, whole)

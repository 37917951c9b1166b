"""Checksums of a data set: what `sha256sum` reads and writes, and every flipped bit found."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from striate.data import synthetic
from striate.data.audit import checksums
from striate.data.audit.checksums import Difference
from striate.data.audit.facts import Facts, gather
from striate.data.layouts import detect
from striate.errors import CheckpointError, Interrupted, UserError

SHA256SUM = shutil.which("sha256sum")


def facts_of(data: Path, out: Path) -> dict[str, Facts]:
    out.mkdir(exist_ok=True)
    return gather(detect.open_whole(data).indexes, out, 2).facts


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic.make(tmp_path_factory.mktemp("sums") / "tiny", "tiny", 3, 90, 15).folder


def sums_of(data: Path, tmp_path: Path) -> Path:
    path = tmp_path / "SHA256SUMS"
    checksums.write(data, facts_of(data, tmp_path / "out"), path, 2)
    return path


def test_d3_each_of_300_flipped_bits_is_found_and_one_missing_and_one_extra_file(tiny: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(tiny, tmp_path / "data"))
    path = sums_of(data, tmp_path)
    assert checksums.verify(path, data, 2) == []
    every = sorted(file for file in data.rglob("*") if file.is_file())
    flipped, lost = every[:300], every[-1]
    assert {file.suffix for file in flipped} == {".JPEG", ".txt"}  # lists count like images
    rng = np.random.default_rng(0)
    for file in flipped:
        before = file.stat()
        content = bytearray(file.read_bytes())
        content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
        file.write_bytes(content)
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    lost.unlink()
    (data / "train" / "new.txt").write_text("more")
    expected = [Difference(str(file.relative_to(data)), "changed") for file in flipped]
    expected += [Difference(str(lost.relative_to(data)), "missing"), Difference("train/new.txt", "extra")]
    assert checksums.verify(path, data, 2) == sorted(expected, key=lambda difference: difference.name)


@pytest.mark.skipif(SHA256SUM is None, reason="needs sha256sum")
@pytest.mark.parametrize("layout", synthetic.LAYOUTS)
def test_sha256sum_accepts_what_is_written_and_wrote_the_same(layout: synthetic.Layout, tmp_path: Path) -> None:
    data = synthetic.make(tmp_path / "data", layout, 2, 3, 2).folder
    path = sums_of(data, tmp_path)
    assert SHA256SUM is not None
    subprocess.run([SHA256SUM, "--check", "--strict", "--quiet", str(path)], cwd=data, check=True)
    names = sorted(str(file.relative_to(data)) for file in data.rglob("*") if file.is_file())
    theirs = subprocess.run([SHA256SUM, *names], cwd=data, check=True, capture_output=True).stdout
    assert sorted(path.read_bytes().splitlines()) == sorted(theirs.splitlines())


@pytest.mark.skipif(SHA256SUM is None, reason="needs sha256sum")
def test_d26_odd_names_are_escaped_as_sha256sum_does(tmp_path: Path) -> None:
    data = synthetic.make(tmp_path / "data", "folder", 2, 3, 2).folder
    image = sorted((data / "train" / "mug").iterdir())[0]
    folder = os.fsencode(image.parent)
    for name in (b"line\nfeed.jpg", b"back\\slash.jpg", b"caf\xe9.jpg", b" blank .jpg", b"back\\nslash.jpg"):
        shutil.copy(os.fsencode(image), os.path.join(folder, name))
    path = sums_of(data, tmp_path)
    assert SHA256SUM is not None
    subprocess.run([SHA256SUM, "--check", "--strict", "--quiet", str(path)], cwd=data, check=True)
    assert checksums.verify(path, data, 0) == []
    # The other way round: what sha256sum writes, in binary mode and with another spelling of the names, is read.
    theirs = tmp_path / "theirs"
    theirs.write_bytes(
        subprocess.run("find . -type f -exec sha256sum -b {} +", cwd=data, shell=True, check=True, stdout=-1).stdout
    )
    assert checksums.verify(theirs, data, 0) == []
    os.remove(os.path.join(folder, b"line\nfeed.jpg"))
    assert checksums.verify(path, data, 0) == [Difference("train/mug/line\nfeed.jpg", "missing")]


def test_a_list_covers_itself_and_its_images_only(tmp_path: Path) -> None:
    data = synthetic.make(tmp_path / "data", "folder", 2, 3, 2).folder
    keys = sorted(f"{file.parent.name}/{file.name}" for file in (data / "train").glob("*/*.jpg"))
    table = data / "train" / "list.csv"
    table.write_text("path,label\n" + "".join(f"{key},{key.split('/')[0]}\n" for key in keys[:-1]))
    path = sums_of(table, tmp_path)
    assert sorted(line.split("  ")[1] for line in path.read_text().splitlines()) == sorted([*keys[:-1], "list.csv"])
    assert checksums.verify(path, table, 0) == []
    table.write_text(table.read_text() + "\n")
    assert checksums.verify(path, table, 0) == [Difference("list.csv", "changed")]


def test_the_sums_may_lie_in_the_data_and_junk_is_no_difference(tiny: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(tiny / "test", tmp_path / "data" / "test")).parent
    path = data / "SHA256SUMS"
    checksums.write(data, {}, path, 0)  # without facts every file is hashed here
    (data / ".DS_Store").write_text("")
    (data / "__MACOSX").mkdir()
    (data / "__MACOSX" / "x").write_text("")
    assert checksums.verify(path, data, 0) == []


def test_a_pipe_and_a_folder_in_the_place_of_a_file_do_not_stop_it(tiny: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(tiny / "test", tmp_path / "data"))
    path = tmp_path / "SHA256SUMS"
    checksums.write(data, {}, path, 0)
    first, second = sorted((data / "images").iterdir())[:2]
    for file in (first, second):
        file.unlink()
    os.mkfifo(first)
    second.mkdir()
    assert checksums.verify(path, data, 1) == [Difference(f"images/{file.name}", "unreadable") for file in (first, second)]


@pytest.mark.parametrize(
    "line",
    ["no checksum", "ab  short", "0" * 64 + "  ../outside", "0" * 64 + "  /etc/passwd", "0" * 64 + "  a/../../b", "0" * 64, ""],
)
def test_broken_checksums_are_refused_with_their_row(tmp_path: Path, line: str) -> None:
    path = tmp_path / "sums"
    path.write_text(f"{'1' * 64}  good\n{line}\n" if line else "")
    with pytest.raises(CheckpointError, match="row 2" if line else "no checksums"):
        checksums.verify(path, tmp_path, 0)


def test_missing_checksums_are_a_mistake_of_the_command(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        checksums.verify(tmp_path / "nothing", tmp_path, 0)


def test_progress_counts_and_may_stop(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "sums"
    checksums.write(tiny, {}, path, 2)
    calls: list[tuple[int, int]] = []
    checksums.verify(path, tiny, 2, lambda done, total: calls.append((done, total)))
    count = len(path.read_text().splitlines())
    assert calls[-1] == (count, count) and len(calls) == -(-count // 64)

    def stop(done: int, total: int) -> None:
        raise Interrupted("SIGINT")

    with pytest.raises(Interrupted):
        checksums.verify(path, tiny, 2, stop)


def test_the_list_may_be_stopped_while_it_is_made(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for number in range(3):
        (data / f"{number}.txt").write_text(str(number))
    seen: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> None:
        seen.append((done, total))
        if done == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        checksums.write(data, {}, tmp_path / "SHA256SUMS", 0, stop)
    assert seen == [(1, 1), (2, 2)] and not (tmp_path / "SHA256SUMS").exists()


def test_what_could_not_be_listed_is_not_extra(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "whole.txt").write_text("whole")
    os.mkfifo(data / "pipe.jpg")
    (data / "dangling.jpg").symlink_to(tmp_path / "nowhere")
    (data / "loop").symlink_to("loop")
    assert checksums.write(data, {}, tmp_path / "SHA256SUMS", 0) == 1
    assert checksums.verify(tmp_path / "SHA256SUMS", data, 0) == []

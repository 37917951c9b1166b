"""`striate data audit`: what it prints, its exit codes, its answer for machines, and stopping."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from striate import cli
from striate.data.index import Index


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A healthy set of two classes; the current folder is the one that it lies in."""
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("cat", "dog")):
        for split, images in (("train", 10), ("val", 2)):
            (tmp_path / "pets" / split / name).mkdir(parents=True)
            for i in range(images):
                rough = np.random.default_rng(100 * number + i + (50 if split == "val" else 0)).integers(
                    0, 256, (5, 6, 3), np.uint8
                )
                Image.fromarray(rough).resize((64, 48), Image.BICUBIC).save(tmp_path / "pets" / split / name / f"{i}.png")
    return tmp_path / "pets"


def listing(folder: Path) -> list[tuple[str, bytes]]:
    return [(str(path), path.read_bytes()) for path in sorted(folder.rglob("*")) if path.is_file()]


def last_line(text: str) -> dict[str, object]:
    return json.loads(text.splitlines()[-1])


def test_a_healthy_set(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = listing(data)
    assert cli.run(["data", "audit", "pets", "--json"]) == 0
    printed = capsys.readouterr().out
    assert "pets (class folder): 24 images (train 20, val 4) of 2 classes" in printed
    assert "Nothing is wrong with these data." in printed
    answer = last_line(printed)
    assert (answer["folder"], answer["exit_code"], answer["defects"]) == ("pets-audit", 0, [])
    assert {path.name for path in Path("pets-audit").iterdir()} >= {"audit.html", "audit.json", "defects.csv", "images.parquet"}
    assert listing(data) == before


def test_errors_exit_with_3_and_warnings_with_0(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(data / "train/cat/3.png", data / "train/cat/again.png")
    assert cli.run(["data", "audit", "pets"]) == 0
    printed = capsys.readouterr().out
    assert "duplicates within a class" in printed
    assert "train/cat/3.png = train/cat/again.png" in printed
    assert "No errors; 1 warning" in printed
    (data / "train" / "dog" / "cut.png").write_bytes((data / "train/dog/0.png").read_bytes()[:200])
    assert cli.run(["data", "audit", "pets", "--json"]) == 3
    answer = last_line(capsys.readouterr().out)
    assert answer["exit_code"] == 3
    assert [(one["kind"], one["count"]) for one in answer["defects"] if one["severity"] == "error"] == [("truncated", 1)]


def test_near_duplicates_can_be_left_out(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.open(data / "train/dog/1.png").save(data / "val/dog/near.jpg", quality=85)
    assert cli.run(["data", "audit", "pets", "--out", "with"]) == 0
    assert "near-duplicates across splits" in capsys.readouterr().out
    assert cli.run(["data", "audit", "pets", "--out", "without", "--no-near", "--workers", "1"]) == 0
    assert "near-duplicates" not in capsys.readouterr().out


def test_d3_a_manifest_finds_one_flipped_bit(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["data", "audit", "pets", "--manifest"]) == 0
    sums = "pets-audit/SHA256SUMS"
    capsys.readouterr()
    assert cli.run(["data", "audit", "pets", "--verify", sums]) == 0
    assert "All files are as pets-audit/SHA256SUMS says." in capsys.readouterr().out
    path = data / "train" / "cat" / "5.png"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    (data / "val" / "dog" / "0.png").unlink()
    assert cli.run(["data", "audit", "pets", "--verify", sums, "--json"]) == 4
    printed = capsys.readouterr().out
    assert "1 changed, 1 missing: not as pets-audit/SHA256SUMS says." in printed
    answer = last_line(printed)
    assert answer["differences"] == [
        {"name": "train/cat/5.png", "what": "changed"},
        {"name": "val/dog/0.png", "what": "missing"},
    ]


def test_a_place_within_the_data_is_refused(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = listing(data)
    assert cli.run(["data", "audit", "pets", "--out", "pets/audit"]) == 2
    assert "never written to" in capsys.readouterr().err
    assert listing(data) == before


def test_what_is_no_data(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["data", "audit", "nowhere"]) == 2
    assert cli.run(["data", "audit", "pets", "--workers", "0"]) == 2
    assert "--workers 0" in capsys.readouterr().err
    assert cli.run(["data", "audit", "pets", "--verify", "absent"]) == 2


def test_a_signal_stops_it_and_the_same_command_goes_on(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(10, 210):
        shutil.copy(data / "train" / "cat" / "0.png", data / "train" / "cat" / f"{i}.png")
    content, looked, stopped = Index.content, [], []

    def signalled(index: Index, row: int) -> object:
        looked.append(row)
        if len(looked) == 70 and not stopped:
            os.kill(os.getpid(), signal.SIGTERM)
        return content(index, row)

    monkeypatch.setattr(Index, "content", signalled)
    assert cli.run(["data", "audit", "pets", "--no-near", "--workers", "1", "--json"]) == 75
    captured = capsys.readouterr()
    assert "run the same command again" in captured.err
    assert last_line(captured.out) == {"exit_code": 75, "reason": "SIGTERM"}
    assert not Path("pets-audit/audit.html").exists()
    looked.clear()
    stopped.append("SIGTERM")
    assert cli.run(["data", "audit", "pets", "--no-near", "--workers", "1", "--json"]) == 0
    answer = last_line(capsys.readouterr().out)
    assert 0 < answer["known"] < 224
    assert len(looked) == 224 - answer["known"] + 4  # four of the copies are on the page


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.run(["data", "audit", "--help"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    for option in ("--out", "--workers", "--near", "--no-near", "--manifest", "--verify", "--json"):
        assert option in printed

"""The picture of augmented photos: exact pixels in their places, never among the data, never over something else."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from striate import cli
from striate.errors import UserError
from striate.report import mosaic
from striate.report.augmented import Cell, Photo

OPTIONS = ["--recipe", "small", "--img-size", "16", "--batch-size", "4", "--device", "cpu", "--rows", "3"]


@dataclass
class Said:
    """What one command line left: its exit code and what it wrote."""

    code: int
    out: str
    err: str


@pytest.fixture
def striate(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Said]:
    """Runs a command line in this process, in an empty folder. A traceback fails the test at once."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def run(*argv: str | Path) -> Said:
        try:
            code = cli.run([str(word) for word in argv])
        except SystemExit as error:  # how the parser of options ends
            code = int(error.code or 0)
        said = Said(code, *capfd.readouterr())
        assert "Traceback" not in said.err
        return said

    return run


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two class folders of six photos each."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos"
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for number in range(6):
            Image.fromarray(rng.integers(0, 256, (24, 30, 3), dtype=np.uint8)).save(folder / name / f"{number}.png")
    return folder


def noise(seed: int, side: int = 16, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, channels), dtype=np.uint8)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# ---------------------------------------------------------------- the drawing


@pytest.mark.parametrize("channels", [1, 3])
def test_every_view_stands_in_the_picture_pixel_for_pixel(channels: int) -> None:
    cells = [Cell(noise(seed, 16, channels), "some words that go over more than one line") for seed in range(6)]
    rows = [Photo("k", "a title", cells[0], cells[1:3]), Photo("k", "a title", cells[3], cells[4:])]
    picture = np.asarray(mosaic.drawn(rows, ["a caption that is bold", "and another line"])).astype(np.int64)
    times = 128 // 16
    for cell in cells:
        sought = np.broadcast_to(cell.pixels_SSC, (16, 16, 3)).repeat(times, 0).repeat(times, 1)
        # Found by its first line of pixels, then compared whole.
        windows = np.lib.stride_tricks.sliding_window_view(picture[..., 0], times * 16, axis=1)
        places = np.argwhere((windows == sought[0, :, 0]).all(-1))
        assert len(places) >= 1
        top, left = places[0]
        np.testing.assert_array_equal(picture[top : top + times * 16, left : left + times * 16], sought)


def test_large_views_are_not_enlarged_and_long_or_odd_words_are_cut() -> None:
    cell = Cell(noise(0, 224), "x" * 200)
    picture = mosaic.drawn([Photo("k", "title \x1b[31m " + "y" * 4000, cell, [cell] * 7)], ["z" * 4000, ""])
    assert picture.width == 2 * 16 + 8 * 224 + 8 * 8
    assert picture.height < 400


def test_a_photo_may_have_fewer_views_than_the_others() -> None:
    cell = Cell(noise(0), "as it is")
    few, many = Photo("k", "few", cell, []), Photo("k", "many", cell, [cell] * 3)
    assert mosaic.drawn([few, many], ["c"]).width == mosaic.drawn([many], ["c"]).width


# ---------------------------------------------------------------- where it stands


def test_the_picture_is_written_again_but_over_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "some.png"
    photo = Photo("k", "title", Cell(noise(0), ""), [])
    mosaic.write(path, [photo], ["one"])
    before = path.read_bytes()
    mosaic.check_place(path, "builtin")
    mosaic.write(path, [photo], ["two"])
    assert path.read_bytes() != before
    Image.fromarray(noise(1)).save(path)
    with pytest.raises(UserError, match="is no picture of striate data show"):
        mosaic.check_place(path, "builtin")
    path.write_bytes(b"text")
    with pytest.raises(UserError, match="is no picture of striate data show"):
        mosaic.check_place(path, "builtin")
    with pytest.raises(UserError, match=r"--out .*some\.jpg.*some\.png"):
        mosaic.check_place(tmp_path / "some.jpg", "builtin")


# ---------------------------------------------------------------- the command


def test_data_show_writes_one_picture_and_nothing_else(striate: Callable[..., Said], photos: Path, tmp_path: Path) -> None:
    before = contents(photos)
    said = striate("data", "show", photos, *OPTIONS, "--seed", "5", "--augment.policy", "trivialaugment", "--json")
    assert said.code == 0, said.err
    plain = json.loads(said.out.splitlines()[-1])
    assert said.out.splitlines()[-2] == plain["picture"] == "photos-small-augmented.png"
    assert len(plain["photos"]) == 3
    assert plain["bad"] == []
    assert "trivialaugment" in plain["augment"]
    assert list(contents(tmp_path / "here")) == ["photos-small-augmented.png"]
    assert contents(photos) == before
    first = (tmp_path / "here" / "photos-small-augmented.png").read_bytes()
    again = striate("data", "show", photos, *OPTIONS, "--seed", "5", "--augment.policy", "trivialaugment", "--out", "b.png")
    assert again.out.splitlines()[-1] == "b.png"
    assert (tmp_path / "here" / "b.png").read_bytes() == first
    assert striate("data", "show", photos, *OPTIONS, "--seed", "6", "--out", "b.png").code == 0
    assert (tmp_path / "here" / "b.png").read_bytes() != first


def test_a_bad_photo_is_named(striate: Callable[..., Said], photos: Path) -> None:
    (photos / "cat" / "0.png").write_bytes(b"no image")
    for path in (photos / "dog").iterdir():
        path.write_bytes(b"no image")
    said = striate("data", "show", photos, *OPTIONS, "--batch-size", "2", "--json")
    assert said.code == 0, said.err
    plain = json.loads(said.out.splitlines()[-1])
    assert plain["photos"]
    assert all(key.startswith("cat") for key in plain["photos"])
    assert any("dog/" in one["key"] for one in plain["bad"])
    assert "Bad, passed over: dog/" in said.out + said.err


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["{photos}", "--rows", "0"], 2, "--rows 0: expected 1 to"),
        (["{photos}", "--rows", "1000"], 2, "--rows 1000: expected 1 to"),
        (["{photos}", "--rows", "many"], 2, "rows"),
        (["{photos}", "--recipe", "smal"], 2, "Did you mean 'small'"),
        (["{photos}", "--augment.crop", "zoom"], 2, "crop"),
        (["{photos}", "--augment.flip", "3"], 2, "augment.flip: found 3.0"),
        (["{photos}", "--batch-size", "400"], 2, "--batch-size 400"),
        (["{photos}", "--out", "{photos}/cat/new.png"], 2, "never written to"),
        (["{photos}", "--out", "picture.jpg"], 2, "expected the name of a PNG file"),
        (["{photos}", "--out", "absent/picture.png"], 2, "absent"),
        (["absent"], 2, "absent"),
        (["{empty}"], 3, "empty"),
        ([], 2, "DATA"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else None,
)
def test_what_is_wrong_is_said(
    argv: list[str], code: int, words: str, striate: Callable[..., Said], photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    before = contents(tmp_path)
    said = striate("data", "show", *(word.format(photos=photos, empty=tmp_path / "empty") for word in argv), "--device", "cpu")
    assert said.code == code
    assert words in said.err + said.out
    assert contents(tmp_path) == before


def test_data_lists_its_verbs(striate: Callable[..., Said]) -> None:
    assert "striate data show DATA" in striate("data", "--help").out
    assert "show" in striate("data", "shw").err

"""The comparison of loaders runs, says what it promises, and leaves alone what is not its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def make_photos(folder: Path, count: int) -> None:
    """Flat photos, named as ImageNet's: a smooth picture with some noise."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(count):
        small = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((400, 300), Image.Resampling.BICUBIC)
        small.save(folder / f"n{number % 4:08d}_{number}.JPEG", quality=90)


@pytest.mark.slow
def test_a_quick_run_ends_with_ratios_and_leaves_the_data_alone(tmp_path: Path, request: pytest.FixtureRequest):
    pytest.importorskip("torchvision")
    make_photos(tmp_path / "photos", 12)
    # What a careless writer would clear: folders of these names in the temporary folder, whose own name must be short.
    others = Path(tempfile.mkdtemp(prefix="loader-"))
    request.addfinalizer(lambda: shutil.rmtree(others))
    for name in ("data", "chunks"):
        (others / name).mkdir(parents=True)
        (others / name / "of-somebody-else").write_text("keep")
    before = {path.name: path.read_bytes() for path in (tmp_path / "photos").iterdir()}
    options = ["--peers", "torchvision", "--quick", "--rounds", "1", "--cores", "1", "--json"]
    options += ["--images", "96", "--batch-size", "8", "--seconds", "0.1"]
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "loader.py"), "--data", str(tmp_path / "photos"), *options],
        capture_output=True,
        text=True,
        env={**os.environ, "TMPDIR": str(others), "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["originals_ratio"] > 0 and result["pack_ratio"] > 0
    assert not result["failed"]
    checked = {name: pair for name, pair in result["equality"].items() if name != "limit_levels"}
    assert {name.partition(":")[0] for name in checked} == {"originals", "repacked", "raw"}
    assert all(pair["worst_levels"] <= 2 for pair in checked.values())
    assert {path.name: path.read_bytes() for path in (tmp_path / "photos").iterdir()} == before
    assert sorted(path.name for path in others.rglob("of-somebody-else")) == ["of-somebody-else"] * 2
    assert sorted(path.name for path in others.iterdir() if path.name.startswith("striate-loader-")) == []


def test_a_photo_that_changes_meanwhile_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import loader

    make_photos(tmp_path / "photos", 2)
    before = loader.state_of(tmp_path / "photos")
    loader.expect_untouched(tmp_path / "photos", before)
    next((tmp_path / "photos").iterdir()).unlink()
    with pytest.raises(SystemExit, match="the photos changed"):
        loader.expect_untouched(tmp_path / "photos", before)


def test_litdata_is_told_which_folders_to_clear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("litdata")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import litdata
    import loader_peers

    for name in ("DATA_OPTIMIZER_CACHE_FOLDER", "DATA_OPTIMIZER_DATA_CACHE_FOLDER"):
        monkeypatch.setenv(name, str(tmp_path / "somebody-else"))
    told = []

    def optimize(*arguments: object, **named: object) -> None:
        told.extend(os.environ[f"DATA_OPTIMIZER_{name}"] for name in ("CACHE_FOLDER", "DATA_CACHE_FOLDER"))

    monkeypatch.setattr(litdata, "optimize", optimize)
    loader_peers.write_litdata([], tmp_path / "home" / "form", 1)
    assert len(told) == 2 and all(Path(folder).is_relative_to(tmp_path / "home") for folder in told)


def test_aliased_pictures_are_noticed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import loader

    wanted = {"level": 110.0, "roughness": 7.5}
    found = {
        "equality": {"limit_levels": 2.0, "originals: striate": {"traits": wanted}},
        "outputs": {
            "originals: good": {"pictures": 1024, "level": 112.0, "roughness": 7.4},
            "originals: aliased": {"pictures": 1024, "level": 112.0, "roughness": 8.6},
            "originals: too few to tell": {"pictures": 32, "level": 90.0, "roughness": 8.6},
        },
    }
    assert [line.split(": ")[1] for line in loader.odd_outputs(found)] == ["aliased"]


def test_ratios_are_the_least_over_the_numbers_of_cores(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import loader

    def ran(per_s: float) -> dict[str, object]:
        return {"images_per_s": {"median": per_s}}

    one = {
        "originals": {"striate": ran(400), "torchvision": ran(200), "webdataset": ran(160)},
        "repacked": {"striate": ran(1500), "torchvision": ran(600), "webdataset": ran(500)},
    }
    two = {
        "originals": {"striate": ran(700), "torchvision": ran(400), "webdataset": ran(300)},
        "repacked": {"striate": ran(2800), "torchvision": ran(1200), "webdataset": ran(1000)},
    }
    heads = loader.headline({"1": one, "2": two}, ["torchvision", "webdataset"])
    assert heads["originals_ratio"] == 1.75  # over torchvision, with two cores
    assert heads["pack_ratio"] == 2.8  # over webdataset's own repacked form, the fastest of what the two offer
    assert loader.headline({"1": one, "2": two}, ["torchvision"])["pack_ratio"] == 7.0  # torchvision has no form of its own
    assert heads["ratios"]["pack_over_repacked"]["torchvision"] == 2.333

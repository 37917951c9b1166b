"""Fast resizes of training crops against Pillow's, and that they keep to the thread that calls them."""

from __future__ import annotations

import builtins
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from striate.data import decode, resample, views
from striate.data.augment import apply, draw
from striate.data.augment.draw import Augmentation
from striate.data.decode import Pixels
from striate.data.resample import Resampler
from striate.errors import UserError
from striate.view import Interpolation

FAST: list[Resampler] = ["torch", "opencv"]


@pytest.fixture(autouse=True)
def wants_opencv(request: pytest.FixtureRequest) -> None:
    if "opencv" in request.node.name:
        pytest.importorskip("cv2")


def _scene(width: int, height: int) -> Pixels:
    """Edges, fine stripes and noise: what resizes differ at."""
    y, x = np.mgrid[0:height, 0:width]
    stripes = 60 * (np.sin(x / 2.1) + np.sin((x + 2 * y) / 5)) + 80 * ((x // 17 + y // 11) % 2)
    noise = np.random.default_rng(width).normal(0, 8, (height, width, 3))
    return np.clip(stripes[:, :, None] * np.array([1, 0.7, -0.5]) + 100 + noise, 0, 255).astype(np.uint8)


def _resized(image_HW3: Pixels, width: int, height: int, interpolation: Interpolation, resampler: Resampler) -> Pixels:
    view_HW3 = np.full((height, width, 3), 7, dtype=np.uint8)
    resample.into(view_HW3, image_HW3, interpolation, resampler)
    return view_HW3


def _difference(a: Pixels, b: Pixels) -> float:
    return float(np.abs(a.astype(np.int16) - b).mean())


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest", "lanczos"])
def test_pillow_is_pillow(interpolation: Interpolation) -> None:
    for image_HW3 in (_scene(90, 70), _scene(200, 40)[3:30, 5:150]):
        for width, height in ((64, 64), (300, 20), (90, 70)):
            expected = views.resize(image_HW3, width, height, interpolation)
            np.testing.assert_array_equal(_resized(image_HW3, width, height, interpolation, "pillow"), expected)


@pytest.mark.parametrize(("resampler", "interpolation"), [("torch", "bilinear"), ("torch", "bicubic"), ("opencv", "bilinear")])
def test_the_fast_ones_are_within_two_levels_of_pillow(resampler: Resampler, interpolation: Interpolation) -> None:
    sides = ((1, 1), (1, 40), (300, 2), (97, 61), (224, 224), (500, 375), (120, 400), (30, 31))
    for width_before, height_before in sides:
        image_HW3 = _scene(width_before, height_before)
        for width, height in ((64, 64), (224, 224), (90, 200)):
            ours = _resized(image_HW3, width, height, interpolation, resampler)
            assert _difference(ours, views.resize(image_HW3, width, height, interpolation)) <= 2


@pytest.mark.parametrize("resampler", FAST)
def test_any_memory_will_do(resampler: Resampler) -> None:
    image_HW3 = _scene(120, 110)
    fixed_HW3 = image_HW3[5:95, 9:99].copy()
    fixed_HW3.flags.writeable = False
    for side in (60, 90, 128):
        expected = _resized(image_HW3[5:95, 9:99].copy(), side, side, "bilinear", resampler)
        for same_HW3 in (image_HW3[5:95, 9:99], fixed_HW3, np.asfortranarray(fixed_HW3), image_HW3[94:4:-1, 98:8:-1][::-1, ::-1]):
            np.testing.assert_array_equal(_resized(same_HW3, side, side, "bilinear", resampler), expected)


@pytest.mark.parametrize("resampler", ["pillow", *FAST])
def test_mirror_exchanges_left_and_right(resampler: Resampler) -> None:
    for shape in ((5, 7, 3), (224, 224, 3), (1, 1, 3), (3, 64, 64, 3), (2, 12_000, 3), (0, 8, 8, 3)):
        images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        expected = images[..., ::-1, :].copy()
        resample.mirror(images, resampler)
        np.testing.assert_array_equal(images, expected)


def test_every_photo_is_within_two_levels_of_the_reference_also_with_opencv(real_data: Path) -> None:
    paths = sorted((real_data / "imagenet-samples").glob("*.JPEG"))
    assert len(paths) == 200
    whole = Augmentation("random-resized", (0.08, 1.0), (3 / 4, 4 / 3), 0, 0.5, 224, "bilinear", "crop")
    square = replace(whole, crop="random", shorter_px=(256, 480))
    rows = draw.draw(3, 0, np.arange(200))
    for number, path in enumerate(paths):
        image_HW3 = decode.load(path, False)
        for augmentation in (whole, square):
            expected, one = apply.apply(image_HW3, augmentation, rows[number])
            for resampler in FAST:
                ours, same = apply.apply(image_HW3, replace(augmentation, resampler=resampler), rows[number])
                assert one == same
                assert _difference(ours, expected) <= 2, (path.name, resampler, augmentation.crop)


# ---------------------------------------------------------------- choosing


def test_auto_is_the_fastest_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resample, "has_opencv", lambda: True)
    assert resample.chosen("auto", "bilinear", False) == "opencv"
    assert resample.chosen("auto", "bicubic", False) == "torch"
    assert resample.chosen("auto", "lanczos", False) == "pillow"
    assert resample.chosen("auto", "bilinear", True) == "pillow"
    monkeypatch.setattr(resample, "has_opencv", lambda: False)
    assert resample.chosen("auto", "bilinear", False) == "torch"
    assert resample.chosen("torch", "bilinear", False) == "torch"
    assert resample.chosen("pillow", "bilinear", True) == "pillow"
    with pytest.raises(UserError, match=r"augment\.resampler torch.*augment\.execution per-image"):
        resample.chosen("torch", "bilinear", True)
    with pytest.raises(UserError, match="bilinear and bicubic, not nearest"):
        resample.chosen("torch", "nearest", False)


def test_without_its_package_the_install_line_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: object) -> object:
        if name == "cv2":
            raise ImportError("no cv2 here")
        return real(name, *rest)  # type: ignore[arg-type]

    resample._opencv.cache_clear()
    monkeypatch.setattr(builtins, "__import__", without)
    assert not resample.has_opencv()
    with pytest.raises(UserError, match="pip install opencv-python-headless"):
        Augmentation("resize", (1, 1), (1, 1), 0, 0.5, 16, "bilinear", "crop", resampler="opencv")
    monkeypatch.undo()
    resample._opencv.cache_clear()


# ---------------------------------------------------------------- threads

_COUNTS = """
import os, sys, threading
import numpy as np, torch
from striate.data import resample

torch.set_num_threads(4)
views = [np.zeros((side, side, 3), dtype=np.uint8) for side in (224, 300)]
large = np.random.default_rng(0).integers(0, 256, (1400, 1300, 3), dtype=np.uint8)
small = large[100:300, 200:400]

def tasks():
    return len(os.listdir("/proc/self/task"))

inside = []

def work(resampler):
    for view in views:
        for image in (large, small, large[3:-3, 5:-5]):
            for interpolation in ("bilinear", "bicubic") if resampler == "torch" else ("bilinear",):
                resample.into(view, image, interpolation, resampler)
                inside.append(tasks())
        resample.mirror(view, resampler)
        inside.append(tasks())

for resampler in sys.argv[1:]:
    with resample.one_thread(resampler):
        before = tasks()
        thread = threading.Thread(target=work, args=(resampler,))
        thread.start()
        thread.join()
        assert len(inside) > 5
        assert max(inside) <= before + 1, (resampler, before, inside)
assert torch.get_num_threads() == 4
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads by /proc")
def test_no_thread_is_started_also_with_opencv() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "MKL_"))}
    done = subprocess.run([sys.executable, "-c", _COUNTS, *FAST], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_opencv_gets_its_threads_back() -> None:
    import cv2

    before = cv2.getNumThreads()
    with resample.one_thread("opencv"):
        assert cv2.getNumThreads() == 1
    assert cv2.getNumThreads() == before
    with resample.one_thread("torch"):
        assert cv2.getNumThreads() == before

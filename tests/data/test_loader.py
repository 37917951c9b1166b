"""Batches are a pure function of the step, whoever makes them; trouble is named and nobody waits for ever."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from striate.classes import Classes
from striate.data import decode, loader, resident, views
from striate.data.augment import apply, draw
from striate.data.augment.draw import Augmentation
from striate.data.batched import apply as batched
from striate.data.decode import Pixels
from striate.data.index import Boxes, Gathering, Index
from striate.data.loader import Batch, Source, Streaming, Workers, ordered_batches, train_batches
from striate.data.order import Order
from striate.data.pack import slices
from striate.data.resample import Resampler
from striate.data.resident import Prepare
from striate.errors import DataError, ResourceError, UserError
from striate.view import View

VIEW = View(16, "crop", 20, "bilinear", False, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
RANDOM = Augmentation("random-resized", (0.2, 1.0), (3 / 4, 4 / 3), 0, 0.5, 16, "bilinear", "crop")
PLAIN = Augmentation("resize", (1.0, 1.0), (1.0, 1.0), 0, 0.5, 16, "bilinear", "crop")
SHIFT = Augmentation("shift", (1.0, 1.0), (1.0, 1.0), 3, 0.5, 16, "bilinear", "crop")
EVERYTHING = replace(RANDOM, policy="randaugment", policy_operations=2, policy_magnitude=9, rotate=10.0, hue=0.1, lighting=0.1,
                     erase=0.5, erase_area=(0.1, 0.3), cutout_px=4)  # fmt: skip
ORDER = Order(5, 23, 5)
HERE, ONE, TWO = Workers("threads", 0), Workers("threads", 1), Workers("threads", 2)
APART = Workers("processes", 2)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRIATE_CACHE", str(tmp_path / "cache"))


def made(folder: Path, count: int = 23, bad: tuple[int, ...] = (), side: int | None = None) -> Index:
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    gathering = Gathering()
    for number in range(count):
        width, height = (side, side) if side else rng.integers(18, 60, 2).tolist()
        path = folder / f"{number:03}.png"
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
        if number in bad:
            path.write_bytes(path.read_bytes()[:100])
        facts = path.stat()
        gathering.add(path.name.encode(), number % 3, facts.st_size, facts.st_mtime_ns)
    return gathering.index(folder, "train", "class folder", Classes(("a", "b", "c"), ("a", "b", "c")))


def taken(
    source: Source, index: Index, workers: Workers, augmentation: Augmentation = RANDOM, first: int = 0, last: int = 9
) -> list[Batch]:
    return list(train_batches(source, index, augmentation, Order(5, len(index), 5), first, last, workers))


def assert_equal(ours: list[Batch], theirs: list[Batch]) -> None:
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.labels, b.labels)
        assert torch.equal(a.indices, b.indices)
        assert a.keys == b.keys
        assert a.bad == b.bad


def hands() -> list[threading.Thread]:
    """Loader threads that have not ended within a second."""
    until = time.monotonic() + 1.0
    while found := [thread for thread in threading.enumerate() if thread.name.startswith("loader")]:
        if time.monotonic() > until:
            return found
        time.sleep(0.01)
    return []


# ---------------------------------------------------------------- what is in a batch


def test_a_training_batch_by_hand(tmp_path: Path) -> None:
    index = made(tmp_path / "photos")
    for step, batch in enumerate(taken(Streaming(index, False), index, ONE)):
        planned = ORDER.step(step)
        epoch, rows = planned.epoch, planned.rows_b
        np.testing.assert_array_equal(batch.indices.numpy(), rows)
        np.testing.assert_array_equal(batch.labels.numpy(), index.labels[rows])
        assert batch.keys == tuple(index.keys[int(row)] for row in rows)
        assert batch.bad == ()
        assert batch.images.dtype == torch.uint8
        assert batch.labels.dtype == batch.indices.dtype == torch.int64
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        for position, row in enumerate(rows):
            uniforms = draw.draw(5, epoch, np.array([row]))[0]
            expected = apply.apply(decode.load(index.path(int(row)), False), RANDOM, uniforms)[0]
            np.testing.assert_array_equal(batch.images[position].permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("augmentation", [RANDOM, PLAIN, SHIFT])
def test_t13_batches_do_not_depend_on_who_makes_them(augmentation: Augmentation, tmp_path: Path) -> None:
    index = made(tmp_path / "photos", bad=(3, 11))
    expected = taken(Streaming(index, False), index, HERE, augmentation)
    stored = resident.build(index, Prepare(False, 0), 1, None, None)
    for source in (Streaming(index, False), stored):
        for workers in (HERE, ONE, TWO):
            assert_equal(taken(source, index, workers, augmentation), expected)
    if augmentation is RANDOM:
        assert_equal(taken(Streaming(index, False), index, APART, augmentation), expected)


def test_t13_epochs_differ(tmp_path: Path) -> None:
    index = made(tmp_path / "photos", 20)
    batches = taken(Streaming(index, False), index, ONE, last=8)
    epochs = [
        {int(row): image for batch in part for row, image in zip(batch.indices, batch.images, strict=True)}
        for part in (batches[:4], batches[4:])
    ]
    assert set(epochs[0]) == set(epochs[1]) == set(range(20))
    assert sum(torch.equal(epochs[0][row], epochs[1][row]) for row in range(20)) <= 1


def test_any_step_may_be_the_first(tmp_path: Path) -> None:
    index = made(tmp_path / "photos")
    source = Streaming(index, False)
    assert_equal(taken(source, index, TWO, first=6), taken(source, index, TWO)[6:])
    assert taken(source, index, TWO, first=9) == []


def test_without_a_last_step_it_does_not_end(tmp_path: Path) -> None:
    index = made(tmp_path / "photos")
    batches = train_batches(Streaming(index, False), index, RANDOM, Order(5, len(index), 5), 0, None, TWO)
    assert [len(next(batches)) for _ in range(30)] == [5] * 30
    batches.close()
    assert not hands()


@pytest.mark.parametrize("augmentation", [PLAIN, SHIFT, RANDOM])
def test_a_set_of_the_networks_size_takes_the_short_way_to_the_same_pixels(augmentation: Augmentation, tmp_path: Path) -> None:
    index = made(tmp_path / "photos", side=16)
    stored = resident.build(index, Prepare(False, 0), 1, None, None)
    assert stored.all_of(16) is not None
    expected = taken(Streaming(index, False), index, HERE, augmentation)
    assert_equal(taken(stored, index, HERE, augmentation), expected)
    assert_equal(taken(stored, index, TWO, augmentation), expected)


def test_evaluation_sees_every_image_once_in_order(tmp_path: Path) -> None:
    index = made(tmp_path / "photos")
    source = Streaming(index, False)
    batches = list(ordered_batches(source, index, VIEW, None, 5, TWO))
    assert [len(batch) for batch in batches] == [5, 5, 5, 5, 3]
    assert [key for batch in batches for key in batch.keys] == list(index.keys)
    for batch in batches:
        for row, image in zip(batch.indices.tolist(), batch.images, strict=True):
            expected = views.apply(decode.load(index.path(row), False), VIEW)
            np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), expected)
    assert_equal(list(ordered_batches(source, index, VIEW, None, 5, HERE)), batches)
    assert_equal(list(ordered_batches(resident.build(index, VIEW, 1), index, VIEW, None, 5, ONE)), batches)
    assert_equal(list(ordered_batches(resident.build(index, Prepare(False, 0), 1), index, VIEW, None, 5, ONE)), batches)
    assert_equal(list(ordered_batches(source, index, VIEW, np.array([22, 3]), 5, TWO)), [
        loader.Batch(
            torch.stack([batches[4].images[2], batches[0].images[3]]).contiguous(memory_format=torch.channels_last),
            torch.tensor([22 % 3, 0]),
            torch.tensor([22, 3]),
            ("022.png", "003.png"),
            (),
        )
    ])  # fmt: skip
    assert list(ordered_batches(source, index, VIEW, np.array([], dtype=np.int64), 5, ONE)) == []


def test_e07_train_and_evaluation_share_their_pixels(tmp_path: Path) -> None:
    index = made(tmp_path / "photos")
    still = Augmentation("shift", (1.0, 1.0), (1.0, 1.0), 0, 0.0, 16, "bilinear", "crop")
    view = View(16, "crop", 16, "bilinear", False, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    evaluated = {}
    for batch in ordered_batches(Streaming(index, False), index, view, None, 7, ONE):
        evaluated |= dict(zip(batch.keys, batch.images, strict=True))
    for batch in taken(Streaming(index, False), index, ONE, still):
        for key, image in zip(batch.keys, batch.images, strict=True):
            assert torch.equal(image, evaluated[key])


def test_a_source_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    index = made(tmp_path / "photos")
    with pytest.raises(ValueError, match="exif"):
        next(ordered_batches(Streaming(index, True), index, VIEW, None, 5, HERE))
    other = View(16, "squash", 16, "bilinear", False, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    with pytest.raises(ValueError, match="another view"):
        next(ordered_batches(resident.build(index, other, 0), index, VIEW, None, 5, HERE))
    with pytest.raises(ValueError, match="same index"):
        next(ordered_batches(Streaming(index.select(np.arange(5)), False), index, VIEW, None, 5, HERE))
    with pytest.raises(UserError, match=r"augment\.resampler torch"):
        fast = replace(RANDOM, resampler="torch")
        train_batches(resident.build(index, Prepare(False, 0), 0), index, fast, ORDER, 0, 1, HERE, batched=True)
    with pytest.raises(UserError, match="batch-size"):
        train_batches(Streaming(index, False), index, RANDOM, Order(5, 23, 24), 0, 1, HERE)


# ---------------------------------------------------------------- memory


@pytest.mark.parametrize(("size_px", "threads"), [(16, 1), (97, 3)])
def test_small_views_of_images_in_memory_take_one_thread(size_px: int, threads: int, tmp_path: Path) -> None:
    index = made(tmp_path / "photos")
    stored = resident.build(index, Prepare(False, 0), 1, None, None)
    augmentation = replace(RANDOM, size_px=size_px)
    with contextlib.closing(train_batches(stored, index, augmentation, ORDER, 0, None, Workers("threads", 3))) as some:
        next(some)
        assert len(hands()) == threads


def test_memory_is_taken_again_when_nobody_sees_it() -> None:
    memory = loader._Rooms(is_pinned=False)
    shape = (2, 2600, 2600, 3)  # so large that fresh memory would come from the system, as zeros
    first = memory.take(shape)
    first[:] = 7
    seen = first.permute(0, 3, 1, 2)[1:, :, 5]
    del first
    second = memory.take(shape)
    second[:] = 9
    assert (seen == 7).all()
    array = seen.numpy()[..., 3]
    del seen
    third = memory.take((1, 2, 2, 3))
    third[:] = 11
    assert (array == 7).all()
    assert (second == 9).all()
    del second
    assert (memory.take(shape) == 9).all()
    del array
    assert (memory.take(shape)[1, 5] == 7).all()
    assert third.tolist() == [[[[11] * 3] * 2] * 2]


@pytest.mark.parametrize("workers", [HERE, TWO, APART])
def test_batches_that_are_kept_keep_their_images(workers: Workers, tmp_path: Path) -> None:
    index = made(tmp_path / "photos")
    fresh = [batch.images.clone() for batch in train_batches(Streaming(index, False), index, RANDOM, ORDER, 0, 30, workers)]
    kept, parts = [], []
    batches = train_batches(Streaming(index, False), index, RANDOM, ORDER, 0, 30, workers)
    for number, batch in enumerate(batches):
        if number % 3 == 0:
            kept.append((number, batch))
        elif number % 3 == 1:
            parts.append((number, batch.images.permute(0, 2, 3, 1).numpy()[2:3, 4:]))
        del batch
    assert len(kept) == len(parts) == 10
    for number, batch in kept:
        assert torch.equal(batch.images, fresh[number])
    for number, part_1HW3 in parts:
        np.testing.assert_array_equal(part_1HW3, fresh[number].permute(0, 2, 3, 1).numpy()[2:3, 4:])
    assert len({batch.images.data_ptr() for _, batch in kept}) == 10


@pytest.mark.parametrize("workers", [HERE, TWO])
def test_memory_does_not_grow_where_batches_are_dropped(workers: Workers, tmp_path: Path) -> None:
    index = made(tmp_path / "photos")
    places = [b.images.data_ptr() for b in train_batches(Streaming(index, False), index, RANDOM, ORDER, 0, 30, workers)]
    assert len(set(places)) <= loader._AHEAD + 2  # those made ahead, and the one in the consumer's hands


# ---------------------------------------------------------------- resamplers and windows


@pytest.mark.parametrize("resampler", ["torch", "opencv"])
def test_a_resampler_gives_the_same_pixels_from_files_and_from_memory(resampler: Resampler, tmp_path: Path) -> None:
    if resampler == "opencv":
        pytest.importorskip("cv2")
    index = made(tmp_path / "photos", bad=(3, 11))
    stored = resident.build(index, Prepare(False, 0), 1, None, None)
    for augmentation in (RANDOM, SHIFT, replace(RANDOM, crop="random", shorter_px=(17, 40)), EVERYTHING):
        fast = replace(augmentation, resampler=resampler)
        expected = taken(Streaming(index, False), index, HERE, fast)
        reference = taken(Streaming(index, False), index, HERE, augmentation)
        assert not all(torch.equal(a.images, b.images) for a, b in zip(expected, reference, strict=True))
        assert [batch.bad for batch in expected] == [batch.bad for batch in reference]
        for source in (Streaming(index, False), stored):
            for workers in (ONE, TWO):
                assert_equal(taken(source, index, workers, fast), expected)
    if resampler == "opencv":
        assert_equal(taken(Streaming(index, False), index, APART, fast), expected)


class Jpegs:
    """A store that counts what it decodes: whole images, or windows of those whose number is not in `uncut`."""

    def __init__(self, files: list[bytes], uncut: tuple[int, ...] = (), damaged: tuple[int, ...] = ()) -> None:
        self.files, self.uncut = files, uncut
        self.restarts = [slices.lengths(file) if i not in damaged else bytes(4) for i, file in enumerate(files)]
        self.wholes: list[int] = []
        self.windows: list[int] = []

    def read(self, place: int) -> bytes:
        self.wholes.append(place)
        return self.files[place]

    def where(self, place: int) -> str:
        return f"file {place}"

    def sides(self, place: int, exif: bool) -> tuple[int, int] | None:
        return None if place in self.uncut else decode.header(self.files[place])[:2]

    def window(self, place: int, left: int, top: int, width: int, height: int) -> Pixels:
        self.windows.append(place)
        return slices.pixels(self.files[place], self.restarts[place], left, top, width, height)


def in_store(tmp_path: Path, uncut: tuple[int, ...] = (), damaged: tuple[int, ...] = ()) -> tuple[Index, Jpegs]:
    index = made(tmp_path / "photos")
    files = []
    for row in range(len(index)):
        with Image.open(index.path(row)) as image:
            file = io.BytesIO()
            image.resize((3 * image.width, 3 * image.height)).save(file, "JPEG", restart_marker_blocks=1)
            files.append(file.getvalue())
    store = Jpegs(files, uncut, damaged)
    return replace(index, store=store, places=np.arange(len(index))[::-1].copy()), store


@pytest.mark.parametrize("augmentation", [RANDOM, SHIFT, PLAIN])
def test_windows_of_a_store_are_the_same_pixels(augmentation: Augmentation, tmp_path: Path) -> None:
    index, store = in_store(tmp_path, uncut=(4, 5), damaged=(7,))
    found = taken(Streaming(index, False), index, HERE, augmentation)
    assert set(store.windows) == set(range(23)) - {4, 5}
    assert set(store.wholes) == {4, 5, 7}
    stored = resident.build(index, Prepare(False, 0), 1, None, None)
    assert_equal(found, taken(stored, index, HERE, augmentation))
    assert_equal(taken(Streaming(index, False), index, TWO, augmentation), found)


def test_what_is_shrunk_first_is_decoded_whole(tmp_path: Path) -> None:
    index, store = in_store(tmp_path)
    found = taken(Streaming(index, False, 100), index, HERE)
    small = {place for place in range(23) if min(decode.header(store.files[place])[:2]) <= 100}
    assert 0 < len(small) < 23
    assert set(store.windows) == small
    assert set(store.wholes) == set(range(23)) - small
    assert_equal(found, taken(resident.build(index, Prepare(False, 100), 1, None, None), index, HERE))


def test_sides_that_are_not_the_images_make_it_bad(tmp_path: Path) -> None:
    index, store = in_store(tmp_path, damaged=(7,))
    store.files[7] = store.files[6]
    known = dict(enumerate(map(decode.header, store.files)))
    known[7] = decode.Header(999, 20, "JPEG")
    store.sides = lambda place, exif: known[place][:2]  # type: ignore[method-assign]
    bad = [one for batch in taken(Streaming(index, False), index, HERE) for one in batch.bad]
    assert bad
    assert all(reason.startswith("stored as 999 x 20 pixels, decoded were") for _, reason in bad)


# ---------------------------------------------------------------- bad images


def test_d01_a_bad_image_is_dropped_and_listed(tmp_path: Path) -> None:
    index = made(tmp_path / "photos", bad=(3, 4, 22))
    batches = list(ordered_batches(Streaming(index, False), index, VIEW, None, 5, TWO))
    assert [len(batch) for batch in batches] == [3, 5, 5, 5, 2]
    assert [key for batch in batches for key, _ in batch.bad] == ["003.png", "004.png", "022.png"]
    for batch in batches:
        assert all(reason for _, reason in batch.bad)
        assert len(batch.images) == len(batch.labels) == len(batch.indices) == len(batch.keys)
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert not {key for key, _ in batch.bad} & set(batch.keys)


def test_d01_a_batch_of_bad_images_only(tmp_path: Path) -> None:
    index = made(tmp_path / "photos", 5, bad=(0, 1, 2, 3, 4))
    (batch,) = ordered_batches(Streaming(index, False), index, VIEW, None, 5, ONE)
    assert batch.images.shape == (0, 3, 16, 16)
    assert len(batch.bad) == 5


def test_d27_a_file_that_vanishes_in_an_epoch(tmp_path: Path) -> None:
    index = made(tmp_path / "photos")
    batches = ordered_batches(Streaming(index, False), index, VIEW, None, 5, HERE)
    next(batches)
    index.path(7).unlink()
    assert next(batches).bad == (("007.png", "no such file (vanished, or a dangling link)"),)


def test_d11_a_strip_is_a_bad_image(tmp_path: Path) -> None:
    index = made(tmp_path / "photos", 5)
    Image.new("RGB", (1, 65_000)).save(index.path(2))
    view = View(224, "crop", 400, "bilinear", False, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    (batch,) = ordered_batches(Streaming(index, False), index, view, None, 5, ONE)
    assert [key for key, _ in batch.bad] == ["002.png"]


# ---------------------------------------------------------------- trouble, threads

_TROUBLE = """
import os, signal, threading
from striate.data.loader import Streaming

RELEASE = threading.Event()

class Odd(Exception):
    def __init__(self, first, second):
        super().__init__(f"odd {first} {second}")

class Hangs(Streaming):
    def image(self, i):
        if i == 7:
            RELEASE.wait(1000)
        return super().image(i)

class Raises(Streaming):
    def image(self, i):
        if i == 7:
            raise Odd("text", i)
        return super().image(i)

class Dies(Streaming):
    def image(self, i):
        if i == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().image(i)

class Exhausts(Streaming):
    def image(self, i):
        raise MemoryError
"""


@pytest.fixture
def trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Index], Streaming]:
    """Sources that misbehave at row 7; in a module that worker processes can import."""
    (tmp_path / "striate_trouble.py").write_text(_TROUBLE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "striate_trouble", raising=False)

    def source(name: str, index: Index) -> Streaming:
        import striate_trouble  # type: ignore[import-not-found]

        chosen: Streaming = getattr(striate_trouble, name)(index, False)
        return chosen

    return source


def test_t10_a_hanging_thread_is_named(trouble: Callable[[str, Index], Streaming], tmp_path: Path) -> None:
    index = made(tmp_path / "photos")
    batches = ordered_batches(trouble("Hangs", index), index, VIEW, None, 5, ONE, timeout_s=0.3)
    assert len(next(batches)) == 5
    begin = time.monotonic()
    with pytest.raises(ResourceError, match=r"no image was finished for 0\.3 s while reading '.*007\.png'"):
        next(batches)
    assert time.monotonic() - begin < 5
    sys.modules["striate_trouble"].RELEASE.set()


@pytest.mark.parametrize("workers", [HERE, TWO])
def test_t12_an_odd_exception_keeps_its_text_and_names_the_file(
    workers: Workers, trouble: Callable[[str, Index], Streaming], tmp_path: Path
) -> None:
    index = made(tmp_path / "photos")
    with pytest.raises(DataError, match=r"007\.png.*Odd: odd text 7"):
        list(ordered_batches(trouble("Raises", index), index, VIEW, None, 5, workers))
    assert not hands()


def test_memory_that_ends_is_a_resource(trouble: Callable[[str, Index], Streaming], tmp_path: Path) -> None:
    index = made(tmp_path / "photos")
    with pytest.raises(ResourceError, match="batch-size"):
        next(ordered_batches(trouble("Exhausts", index), index, VIEW, None, 5, ONE))


@pytest.mark.parametrize("end", ["close", "raise", "forget"])
def test_threads_end_with_their_generator(end: str, tmp_path: Path) -> None:
    index = made(tmp_path / "photos")
    batches = train_batches(Streaming(index, False), index, RANDOM, Order(5, len(index), 5), 0, None, TWO)
    next(batches)
    assert sum(thread.name.startswith("loader") for thread in threading.enumerate()) == 2
    if end == "close":
        batches.close()
    elif end == "raise":
        with pytest.raises(KeyboardInterrupt):
            batches.throw(KeyboardInterrupt)
    else:
        del batches
    assert not hands()


def test_the_look_ahead_is_bounded(tmp_path: Path) -> None:
    index = made(tmp_path / "photos")
    read: list[int] = []

    class Counting(Streaming):
        def image(self, i: int) -> decode.Pixels:
            read.append(i)
            return super().image(i)

    batches = train_batches(Counting(index, False), index, RANDOM, Order(5, len(index), 5), 0, None, TWO)
    next(batches)
    time.sleep(0.3)
    assert len(read) <= 5 * 3
    batches.close()


def test_t14_memory_and_open_files_stay_constant(tmp_path: Path) -> None:
    index = made(tmp_path / "photos")
    batches = train_batches(Streaming(index, False), index, RANDOM, Order(5, len(index), 5), 0, None, ONE)

    def resident_kb() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))

    def open_files() -> int:
        """The fewest of some looks, as the loader's thread may stand in the middle of reading an image."""
        counts = []
        for _ in range(10):
            time.sleep(0.03)
            counts.append(len(os.listdir("/proc/self/fd")))
        return min(counts)

    if not Path("/proc/self/status").exists():
        pytest.skip("reads memory from Linux")
    for _ in range(300):
        next(batches)
    before, files_before = resident_kb(), open_files()
    for _ in range(1000):
        next(batches)
    assert resident_kb() - before < 1500
    assert open_files() == files_before
    batches.close()


# ---------------------------------------------------------------- trouble, processes


def test_t09_a_dead_worker_is_named_with_its_file(trouble: Callable[[str, Index], Streaming], tmp_path: Path) -> None:
    index = made(tmp_path / "photos")
    batches = ordered_batches(trouble("Dies", index), index, VIEW, None, 5, Workers("processes", 1))
    assert len(next(batches)) == 5
    begin = time.monotonic()
    with pytest.raises(ResourceError, match=r"worker 0 \(process \d+\) was killed by SIGKILL.* while reading '.*007\.png'"):
        next(batches)
    assert time.monotonic() - begin < 5


def test_t11_too_little_memory_is_said_at_the_start(tmp_path: Path) -> None:
    index = made(tmp_path / "photos", 64)
    view = View(200_000, "crop", 200_000, "bilinear", False, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    with pytest.raises(ResourceError, match=r"shared memory.*Use threads"):
        next(ordered_batches(Streaming(index, False), index, view, None, 64, APART))


# ---------------------------------------------------------------- workers


def test_workers_are_parsed() -> None:
    assert Workers.parse("4") == Workers("threads", 4)
    assert Workers.parse("0") == Workers("threads", 0)
    assert Workers.parse("processes:4") == Workers("processes", 4)
    assert Workers.parse("threads:2") == Workers("threads", 2)
    assert Workers.parse("auto").kind == "threads"
    assert Workers.parse("auto").count >= 1
    for text in ("4", "processes:4"):
        assert str(Workers.parse(text)) == text
    for text in ("", "-1", "two", "processes:", "processes:x", "forks:2", "1.5", "99999", "٣"):
        with pytest.raises(UserError, match="--workers"):
            Workers.parse(text)


# ---------------------------------------------------------------- batched


def finished(batches: list[Batch], augmentation: Augmentation) -> list[Batch]:
    return [replace(batch, images=batched.apply(batch, augmentation, torch.device("cpu")), plan=None) for batch in batches]


@pytest.mark.parametrize("augmentation", [RANDOM, PLAIN, SHIFT, EVERYTHING])
def test_t13_batched_images_are_the_per_image_ones_and_bad_ones_are_dropped_alike(
    augmentation: Augmentation, tmp_path: Path
) -> None:
    index = made(tmp_path / "photos", bad=(3, 11))
    stored = resident.build(index, Prepare(False, 0), 1, None, None)
    expected = taken(stored, index, HERE, augmentation)
    assert sum(len(batch.bad) for batch in expected) > 0
    for workers in (HERE, ONE, TWO, APART):
        batches = train_batches(stored, index, augmentation, ORDER, 0, 9, workers, batched=True)
        assert_equal(finished(list(batches), augmentation), expected)


def test_photos_that_are_on_the_device_are_not_sent(tmp_path: Path) -> None:
    index = made(tmp_path / "photos", side=20)
    stored = resident.build(index, Prepare(False, 0), 1, None, None)
    there = stored.on(torch.device("cpu"))
    assert there is not None
    batches = list(train_batches(stored, index, EVERYTHING, ORDER, 0, 9, TWO, batched=True, on_device=there))
    assert all(batch.images is there for batch in batches)
    assert_equal(finished(batches, EVERYTHING), taken(stored, index, HERE, EVERYTHING))


def test_a_strip_is_a_bad_image_in_batches_too(tmp_path: Path) -> None:
    index = made(tmp_path / "photos", 5)
    Image.new("RGB", (1, 65_000)).save(index.path(2))
    stored = resident.build(index, Prepare(False, 0), 1, None, None)
    augmentation = replace(PLAIN, crop="random", shorter_px=(400, 400))
    order = Order(5, 5, 5)
    (expected,) = train_batches(stored, index, augmentation, order, 0, 1, ONE)
    (batch,) = train_batches(stored, index, augmentation, order, 0, 1, ONE, batched=True)
    assert [key for key, _ in batch.bad] == ["002.png"]
    assert_equal(finished([batch], augmentation), [expected])


def test_batched_work_needs_images_in_memory(tmp_path: Path) -> None:
    index = made(tmp_path / "photos")
    with pytest.raises(UserError, match=r"--augment\.execution batched.*--data\.resident yes"):
        train_batches(Streaming(index, False), index, RANDOM, ORDER, 0, 1, HERE, batched=True)


def test_only_good_images_of_one_size_that_fit_go_to_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cpu")
    index = made(tmp_path / "photos", side=20)
    stored = resident.build(index, Prepare(False, 0), 1, None, None)
    there = stored.on(device)
    assert there is not None
    for row in range(len(index)):
        np.testing.assert_array_equal(there[row].numpy(), stored.image(row))
    cached = resident.build(index, Prepare(False, 0), 1, None, None)
    assert cached.is_from_cache
    assert torch.equal(cached.on(device), there)  # type: ignore[arg-type]
    monkeypatch.setattr(resident.machine, "free_memory_bytes", lambda: 4 * stored.size_bytes - 1)
    assert stored.on(device) is None
    monkeypatch.undo()
    monkeypatch.setenv("STRIATE_CACHE", str(tmp_path / "cache"))
    assert resident.build(made(tmp_path / "sizes"), Prepare(False, 0), 1, None, None).on(device) is None
    assert resident.build(made(tmp_path / "bad", side=20, bad=(3,)), Prepare(False, 0), 1, None, None).on(device) is None


@pytest.mark.parametrize(
    "augmentation", [RANDOM, replace(RANDOM, rotate=10.0), PLAIN, SHIFT], ids=["random", "warp", "plain", "shift"]
)
def test_boxes_come_with_the_views_whoever_makes_them(tmp_path: Path, augmentation: Augmentation) -> None:
    """Each image's box is that of its own view; a bad image takes its box along; the pixels are those without boxes."""
    index = made(tmp_path, bad=(4,))
    corners = np.random.default_rng(1).integers(0, 9, (len(index), 2))
    rows = np.flatnonzero(np.arange(len(index)) % 5)  # every fifth image has no box
    index = replace(index, boxes=Boxes.of_images(len(index), rows, np.concatenate([corners, corners + 9], 1)[rows]))
    order, streaming = Order(5, len(index), 5), Streaming(index, False)
    stored = resident.build(index, Prepare(False, 0), 0)
    plain = list(train_batches(streaming, index, augmentation, order, 0, 9, HERE))
    expected: list[Batch] | None = None
    ways: list[tuple[Source, Workers, bool]] = [(streaming, HERE, False), (streaming, TWO, False), (streaming, APART, False)]
    for source, workers, is_batched in [*ways, (stored, TWO, False), (stored, ONE, True)]:
        found = list(train_batches(source, index, augmentation, order, 0, 9, workers, batched=is_batched, boxes=index.boxes))
        if not is_batched:
            assert_equal(found, plain)
        for batch, other in zip(found, expected or found, strict=True):
            assert batch.boxes is not None
            assert other.boxes is not None
            assert batch.boxes.shape == (len(batch), 4)
            torch.testing.assert_close(batch.boxes, other.boxes, rtol=0, atol=0, equal_nan=True)
        expected = found
    assert expected is not None
    assert all(batch.boxes is None for batch in plain)
    all_boxes = torch.cat([batch.boxes for batch in expected if batch.boxes is not None])
    without = torch.cat([batch.indices % 5 == 0 for batch in expected])
    assert all_boxes[without].isnan().all()
    has_box = all_boxes.isfinite().all(1)
    assert has_box.sum() > 8
    assert ((all_boxes[has_box] >= 0) & (all_boxes[has_box] <= 16)).all()

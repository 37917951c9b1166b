"""From rows of an index to batches of network pixels, ahead of time and always the same ones.

What a batch holds is a pure function: of (seed, step) in training, of the rows in evaluation. Workers (threads, processes, or
none) change only when it is ready. So the loader has no state, and a resume is `first_step`.

Threads are the default: decoders, resamplers and numpy release the interpreter while they work. Processes help where foreign
code does not. A resident set is gathered by threads in either case, as there is nothing to decode.
An image that cannot be used is dropped from its batch and listed there; what to do about it is decided in the loop.

Training asks a photo for its sides first and then for the part it crops, so a pack need not decode the rest. The memory of a
batch is taken again when nobody holds it any more: the first touch of fresh memory costs as much as writing it again.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Final, Literal, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from striate import machine
from striate.data import photo, resample, views
from striate.data.augment import apply, draw
from striate.data.augment import boxes as boxes_of
from striate.data.augment.draw import Augmentation, Drawn
from striate.data.batched.plan import Plan, planned
from striate.data.crew import Failed, Note, Slab, Stuck, notes_bytes, processes_in_order, threads_in_order
from striate.data.decode import BadImage, Pixels
from striate.data.index import Boxes, Index
from striate.data.order import Order, Rows, steps_per_epoch
from striate.data.photo import Photo, Windowed
from striate.data.resample import Resampler
from striate.data.resident import Prepare, Resident, failed_error, prepared, stuck_error
from striate.errors import ResourceError, UserError
from striate.view import View

Made = TypeVar("Made")

_AHEAD: Final = 2  # whole batches made before they are asked for
_CHUNKS: Final = 4  # jobs of a batch for each worker: few enough to cost nothing, many enough to end together
_CHUNK_LEAST: Final = 4  # images of a job
_MOST_AUTO: Final = 16
# Views of images in memory that are so small take little time outside the interpreter, so threads only wait for each other.
# Tiny ImageNet (64 px), 2 cores of a Xeon (Sapphire Rapids), one thread against two: crop and mirror 41,900 images/s against
# 26,800, with brightness, contrast and saturation 7,000 against 4,200, with hue 2,600 against 2,700.
_ONE_THREAD_PX: Final = 96


@dataclass(frozen=True)
class Workers:
    """Who makes batches: `count` threads or processes beside the training; 0 means the training's own thread."""

    kind: Literal["threads", "processes"]
    count: int

    @classmethod
    def parse(cls, text: str) -> Workers:
        """From "4", "0", "processes:4" or "auto" (threads, one fewer than the cores, at least 1). Raises UserError."""
        if text == "auto":
            return cls("threads", min(max(1, machine.cores() - 1), _MOST_AUTO))
        kind, _, number = text.rpartition(":")
        if kind in ("", "threads", "processes") and number.isascii() and number.isdigit() and int(number) <= 1024:
            return cls("processes" if kind == "processes" else "threads", int(number))
        raise UserError(f"--workers {text}: expected a number of threads (4), 'processes:4', 'auto', or 0 for none.")

    def __str__(self) -> str:
        return f"processes:{self.count}" if self.kind == "processes" else str(self.count)


@dataclass(eq=False)
class Batch:
    """Images for one step of a network.

    images: [B, 3, S, S] uint8 in channels_last memory. labels, indices (rows of the index): [B] int64. keys: B of them.
    bad: (key, reason) of images that were meant to be here and cannot be used; B counts only the others.
    boxes: None; or where the object is in each view, [B, 4] float32 xyxy in its pixels, four NaN where it is not known.
    plan: None; or what `batched.apply` makes the images of. Then `images` are photos as stored, uint8 [B, H, W, 3] with
    smaller ones padded, or every photo of the set, [N, H, W, 3], already on the device.
    """

    images: torch.Tensor
    labels: torch.Tensor
    indices: torch.Tensor
    keys: tuple[str, ...]
    bad: tuple[tuple[str, str], ...]
    plan: Plan | None = None
    boxes: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True, eq=False)
class Streaming:
    """Images decoded from their files each time they are needed; the same pixels as `Resident`."""

    index: Index
    exif: bool
    shrink_px: int = 0

    @property
    def prepare(self) -> Prepare:
        """What `image` gives, as `Resident` says it."""
        return Prepare(self.exif, self.shrink_px)

    def image(self, i: int) -> Pixels:
        """Image i: uint8 [H, W, 3]. Raises BadImage."""
        return prepared(self.index.content(i), self.prepare)

    def photo(self, i: int) -> Photo:
        """Image i, of which only a part is decoded where the index's store can do that: the same pixels. Raises BadImage."""
        if (windowed := self._windowed) is not None and self.index.places is not None:
            place = int(self.index.places[i])
            sides = windowed.sides(place, self.exif)
            if sides is not None and (self.shrink_px == 0 or min(sides) <= self.shrink_px):
                return photo.stored(windowed, place, sides, functools.partial(self.image, i))
        return photo.whole(self.image(i))

    @functools.cached_property
    def _windowed(self) -> Windowed | None:
        return photo.windowed(self.index.store)


Source = Streaming | Resident


def _photo(source: Source, i: int) -> Photo:
    return source.photo(i) if isinstance(source, Streaming) else photo.whole(source.image(i))


# ---------------------------------------------------------------- what a worker does


class _Filled(NamedTuple):
    """What a job left: (position, reason) of its bad images, and of the others what the batch brings beside pixels.

    drawn: their parameters, where the device does the work. boxes: where their objects are, where that is asked for.
    """

    bad: list[tuple[int, str]]
    drawn: list[Drawn]
    boxes: list[NDArray[np.float32]]


class _Rooms:
    """Memory for batches, given out again when nobody sees it any more.

    is_pinned: for copies to a GPU that go on beside the work. That memory comes from torch, which keeps it itself and waits for
    the copies.
    """

    def __init__(self, is_pinned: bool) -> None:
        self._is_pinned = is_pinned
        self._leases: list[tuple[NDArray[np.uint8], weakref.ref[NDArray[np.uint8]]]] = []

    def take(self, shape: tuple[int, ...]) -> torch.Tensor:
        """uint8 of that shape, its values undefined."""
        if self._is_pinned:
            return torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        needed = int(np.prod(shape))
        self._leases = [(block, seen) for block, seen in self._leases if block.size >= needed]
        free = next((number for number, (_, seen) in enumerate(self._leases) if seen() is None), None)
        block = np.empty(needed, dtype=np.uint8) if free is None else self._leases.pop(free)[0]
        # A tensor holds the very array it was made from, as long as any other tensor or array sees the same memory.
        lease = block[:needed].reshape(shape)
        self._leases.append((block, weakref.ref(lease)))
        return torch.from_numpy(lease)


@dataclass(frozen=True, eq=False)
class _Training:
    """Fills rows of a training batch."""

    source: Source
    augmentation: Augmentation
    seed: int
    boxes: Boxes | None

    @property
    def size_px(self) -> int:
        return self.augmentation.size_px

    @property
    def resampler(self) -> Resampler:
        return self.augmentation.resampler

    def shape(self, indices_B: NDArray[np.int64]) -> tuple[int, ...]:
        return len(indices_B), self.size_px, self.size_px, 3

    def fill(self, rows: Rows, pixels_nSS3: Pixels, note: Note) -> _Filled:
        """Writes the images."""
        indices_n = rows.rows_b
        uniforms_nD = draw.draw(self.seed, rows.epoch, rows.counters_b)
        is_still = self.augmentation.crop == "resize" and self.augmentation.is_plain and self.boxes is None
        if is_still and (all_NSS3 := _all_of(self.source, self.size_px)) is not None:
            np.take(all_NSS3, indices_n, axis=0, out=pixels_nSS3, mode="clip")
            is_flipped_n = draw.is_flipped(self.augmentation, uniforms_nD)
            flipped_mSS3 = pixels_nSS3[is_flipped_n]
            resample.mirror(flipped_mSS3, self.resampler)
            pixels_nSS3[is_flipped_n] = flipped_mSS3
            return _Filled([], [], [])
        filled = _Filled([], [], [])
        for position, row in enumerate(indices_n.tolist()):
            note(row)
            try:
                drawn = apply.fill(pixels_nSS3[position], _photo(self.source, row), self.augmentation, uniforms_nD[position])
            except BadImage as error:
                filled.bad.append((position, error.reason))
                continue
            if self.boxes is not None:
                filled.boxes.append(boxes_of.target(self.boxes.of(row), drawn, self.size_px))
        return filled


@dataclass(frozen=True, eq=False)
class _Planning:
    """Copies stored photos of a training batch, and draws what the device then does to them.

    on_device: every photo of the set, if the device has them, so that nothing is copied.
    """

    source: Resident
    augmentation: Augmentation
    seed: int
    boxes: Boxes | None
    on_device: torch.Tensor | None
    resampler: ClassVar[Resampler] = "pillow"

    @property
    def size_px(self) -> int:
        return self.augmentation.size_px

    def shape(self, indices_B: NDArray[np.int64]) -> tuple[int, ...]:
        """As large as the largest photo."""
        height, width = (0, 0) if self.on_device is not None else self.source.sides_N2[indices_B].max(0).tolist()
        return len(indices_B), height, width, 3

    def fill(self, rows: Rows, pixels_nHW3: Pixels, note: Note) -> _Filled:
        """Writes the photos, each into its upper left corner."""
        filled = _Filled([], [], [])
        uniforms_nD = draw.draw(self.seed, rows.epoch, rows.counters_b)
        for position, row in enumerate(rows.rows_b.tolist()):
            note(row)
            try:
                photo_HW3 = self.source.image(row)
                height, width, _ = photo_HW3.shape
                drawn = draw.choose(width, height, self.augmentation, uniforms_nD[position])
                views.refuse_strip(drawn.width, drawn.height, drawn.resized_width, drawn.resized_height)
            except BadImage as error:
                filled.bad.append((position, error.reason))
                continue
            filled.drawn.append(drawn)
            if self.boxes is not None:
                filled.boxes.append(boxes_of.target(self.boxes.of(row), drawn, self.size_px))
            if self.on_device is None:
                pixels_nHW3[position, :height, :width] = photo_HW3
        return filled


@dataclass(frozen=True, eq=False)
class _Viewing:
    """Fills rows of an evaluation batch."""

    source: Source
    view: View
    resampler: ClassVar[Resampler] = "pillow"

    @property
    def size_px(self) -> int:
        return self.view.size_px

    def shape(self, indices_B: NDArray[np.int64]) -> tuple[int, ...]:
        return len(indices_B), self.size_px, self.size_px, 3

    def fill(self, rows: Rows, pixels_nSS3: Pixels, note: Note) -> _Filled:
        """Writes the images. The epoch does not matter."""
        indices_n = rows.rows_b
        is_final = isinstance(self.source.prepare, View)
        if is_final and (all_NSS3 := _all_of(self.source, self.size_px)) is not None:
            np.take(all_NSS3, indices_n, axis=0, out=pixels_nSS3, mode="clip")
            return _Filled([], [], [])
        bad = []
        for position, row in enumerate(indices_n.tolist()):
            note(row)
            try:
                stored = self.source.image(row)
                pixels_nSS3[position] = stored if is_final else views.apply(stored, self.view)
            except BadImage as error:
                bad.append((position, error.reason))
        return _Filled(bad, [], [])


def _all_of(source: Source, size_px: int) -> Pixels | None:
    return source.all_of(size_px) if isinstance(source, Resident) else None


_Filler = _Training | _Planning | _Viewing


@dataclass(frozen=True, eq=False)
class _Part:
    """A job: some rows of one batch. batch: its number, counted from 0; first: position of its first row in the batch."""

    batch: int
    first: int
    rows: Rows

    def __len__(self) -> int:
        return len(self.rows.rows_b)


@dataclass(eq=False)
class _InSlab:
    """The work of a process: the same filling, into a slab of `slots` batches behind the workers' notes."""

    filler: _Filler
    slab: Slab
    start: int
    slots: int
    batch_size: int

    def slot_BSS3(self, batch: int) -> Pixels:
        """The room of a batch; batches share a slot in turn."""
        side = self.filler.size_px
        shape = (self.batch_size, side, side, 3)
        return self.slab.array(self.start + (batch % self.slots) * int(np.prod(shape)), shape, np.uint8)

    def __call__(self, part: _Part, note: Note) -> _Filled:
        torch.set_num_threads(1)
        room = self.slot_BSS3(part.batch)[part.first : part.first + len(part)]
        with resample.one_thread(self.filler.resampler):
            return self.filler.fill(part.rows, room, note)


# ---------------------------------------------------------------- batches


@dataclass(eq=False)
class _Open:
    """A batch being filled."""

    indices_B: NDArray[np.int64]
    images_BHW3: torch.Tensor
    parts_left: int
    bad: list[tuple[int, str]]
    drawn: list[Drawn]
    boxes: list[NDArray[np.float32]]


def _batches(
    filler: _Filler,
    index: Index,
    plans: Iterable[Rows],
    batch_size: int,
    workers: Workers,
    timeout_s: float,
    pin_memory: bool,
) -> Generator[Batch]:
    """Batches of the planned rows, in order. batch_size: of the largest."""
    side = filler.size_px
    chunk = max(_CHUNK_LEAST, -(-batch_size // (_CHUNKS * max(1, workers.count))))
    parts_per_batch = -(-batch_size // chunk)
    ahead = _AHEAD * parts_per_batch
    in_processes = workers.kind == "processes" and workers.count > 0 and isinstance(filler.source, Streaming)
    is_open: deque[_Open] = deque()
    memory = _Rooms(pin_memory)

    def parts() -> Iterator[_Part]:
        for number, rows in enumerate(plans):
            indices_B = rows.rows_b
            firsts = range(0, len(indices_B), chunk)
            # Images of processes arrive in the slab and are copied at the end.
            images = torch.empty(0, dtype=torch.uint8) if in_processes else memory.take(filler.shape(indices_B))
            is_open.append(_Open(indices_B, images, len(firsts), [], [], []))
            rooms[number] = images.numpy()
            for first in firsts:
                counters_n = rows.counters_b[first : first + chunk]
                yield _Part(number, first, Rows(rows.epoch, indices_B[first : first + chunk], counters_n))

    rooms: dict[int, Pixels] = {}

    def work(part: _Part, note: Note) -> _Filled:
        room = rooms[part.batch][part.first : part.first + len(part)]
        return filler.fill(part.rows, room, note)

    with contextlib.ExitStack() as ending:
        in_slab: _InSlab | None = None
        results: Generator[_Filled]
        if in_processes:
            start = -(-notes_bytes(workers.count) // 4096) * 4096
            slots = _AHEAD + 1  # a part is given out at most _AHEAD batches before its batch is copied
            slab = _slab(start + slots * batch_size * side * side * 3)
            ending.callback(slab.close)
            in_slab = _InSlab(filler, slab, start, slots, batch_size)
            results = processes_in_order(in_slab, parts(), workers.count, ahead, timeout_s)
        else:
            ending.enter_context(resample.one_thread(filler.resampler))
            results = threads_in_order(work, parts(), workers.count, ahead, timeout_s)
        ending.callback(results.close)
        first = number = 0
        while True:
            try:
                filled = next(results, None)
            except Stuck as error:
                raise stuck_error(error, index) from error
            except Failed as error:
                raise failed_error(error, index) from error
            if filled is None:
                return
            current = is_open[0]
            current.bad += [(first + position, reason) for position, reason in filled.bad]
            current.drawn += filled.drawn
            current.boxes += filled.boxes
            current.parts_left -= 1
            first += chunk
            if current.parts_left == 0:
                if in_slab is not None:
                    current.images_BHW3 = memory.take(filler.shape(current.indices_B))
                    np.copyto(current.images_BHW3.numpy(), in_slab.slot_BSS3(number)[: len(current.indices_B)])
                del rooms[number], current  # from here on the batch is the consumer's alone
                first, number = 0, number + 1
                yield _closed(is_open.popleft(), index, filler)


def _slab(size_bytes: int) -> Slab:
    if size_bytes > (free_bytes := machine.free_memory_bytes()):
        raise ResourceError(
            f"The loader needs {size_bytes / 1e6:,.0f} MB of shared memory for its processes; {free_bytes / 1e6:,.0f} MB of "
            "memory are free. Use threads (--workers 4), fewer processes, or a smaller --batch-size."
        )
    return Slab(size_bytes)


def _closed(filled: _Open, index: Index, filler: _Filler) -> Batch:
    """The batch, without its bad images."""
    images_BHW3, indices_B = filled.images_BHW3, filled.indices_B
    bad = tuple((index.keys[int(indices_B[position])], reason) for position, reason in filled.bad)
    if bad:
        is_good_B = np.ones(len(indices_B), dtype=bool)
        is_good_B[[position for position, _ in filled.bad]] = False
        images_BHW3, indices_B = images_BHW3[torch.from_numpy(is_good_B)], indices_B[is_good_B]
    indices = torch.from_numpy(indices_B.copy())
    images, plan = images_BHW3.permute(0, 3, 1, 2), None
    if isinstance(filler, _Planning):
        there = filler.on_device
        plan = planned(filled.drawn, filler.size_px, None if there is None else indices)
        images = images_BHW3 if there is None else there
    has_boxes = isinstance(filler, _Training | _Planning) and filler.boxes is not None
    return Batch(
        images=images,
        labels=torch.from_numpy(index.labels[indices_B].astype(np.int64)),
        indices=indices,
        keys=tuple(index.keys[i] for i in indices_B.tolist()),
        bad=bad,
        plan=plan,
        boxes=torch.from_numpy(np.array(filled.boxes, np.float32).reshape(-1, 4)) if has_boxes else None,
    )


def train_batches(
    source: Source,
    index: Index,
    augmentation: Augmentation,
    order: Order,
    first_step: int,
    last_step: int | None,
    workers: Workers,
    timeout_s: float = 120.0,
    batched: bool = False,
    on_device: torch.Tensor | None = None,
    pin_memory: bool = False,
    boxes: Boxes | None = None,
) -> Generator[Batch]:
    """One batch for each step from first_step to last_step - 1 (None: without end), a pure function of (order, step).

    A bad image makes its batch smaller, never another one. Close the generator to end its workers at once.
    batched: with photos as stored and a plan, of which `batched.apply` makes the same images. on_device: every photo of the
    source, as `Resident.on` gives them; then a batch brings its plan only. pin_memory: for a GPU, see `_Rooms`.
    boxes: of the photos as the source gives them (`data.boxes.seen`); each batch then brings where its views have them.
    Raises ResourceError when a worker dies, or when no image is finished for timeout_s; DataError naming the file for
    an exception that nobody expected; UserError when there are fewer images than the order's batch_size, or where batched
    has no images in memory or another resampler than Pillow's.
    """
    steps_per_epoch(order.count, order.batch_size)  # raises now rather than at the first batch
    _check_rows(source, index)
    steps = itertools.count(first_step) if last_step is None else range(first_step, last_step)
    plans = (order.step(step) for step in steps)
    if isinstance(source, Resident) and augmentation.size_px <= _ONE_THREAD_PX:
        workers = Workers("threads", min(1, workers.count))
    filler: _Filler = _Training(source, augmentation, order.seed, boxes)
    if batched:
        if not isinstance(source, Resident):
            raise UserError("--augment.execution batched: needs the images in memory; add --data.resident yes, or leave it out.")
        resample.chosen(augmentation.resampler, augmentation.interpolation, batched=True)
        filler = _Planning(source, augmentation, order.seed, boxes, on_device)
    return _batches(filler, index, plans, order.part_size, workers, timeout_s, pin_memory)


def ordered_batches(
    source: Source,
    index: Index,
    view: View,
    rows: NDArray[np.int64] | None,
    batch_size: int,
    workers: Workers,
    timeout_s: float = 120.0,
    pin_memory: bool = False,
) -> Generator[Batch]:
    """Every image of `rows` (None: all of the index) once, in order; the last batch may be short.

    The source holds photos with the view's EXIF rule, or images already prepared with this very view.
    Raises as `train_batches`; ValueError when source and view do not fit together.
    """
    _check_rows(source, index)
    if isinstance(source.prepare, View):
        if source.prepare.to_json() | {"mean": 0, "std": 0} != view.to_json() | {"mean": 0, "std": 0}:
            raise ValueError(f"images were prepared with another view: {source.prepare.describe()}, wanted {view.describe()}")
    elif source.prepare.exif != view.exif:
        raise ValueError(f"images were prepared with exif={source.prepare.exif}, the view wants exif={view.exif}")
    chosen = np.arange(len(index)) if rows is None else np.asarray(rows, dtype=np.int64)
    size = max(1, batch_size)
    plans = (Rows(0, rows_b, rows_b) for rows_b in np.split(chosen, range(size, len(chosen), size)) if len(rows_b))
    return _batches(_Viewing(source, view), index, plans, size, workers, timeout_s, pin_memory)


def ordered_photos(
    source: Streaming,
    index: Index,
    rows: NDArray[np.int64] | None,
    make: Callable[[Pixels], Made],
    workers: Workers,
    timeout_s: float = 120.0,
    ahead: int | None = None,
) -> Generator[tuple[int, Made | BadImage]]:
    """What `make` makes of every photo of `rows` (None: all of the index), in order, with its row; each is decoded once.

    A photo that cannot be used, by the decoder or by `make`, comes as the BadImage. ahead: how many are made before their turn,
    four for each worker if None. Always in threads, as what is made has no
    size that is known before. Raises as `train_batches`.
    """
    _check_rows(source, index)
    chosen = np.arange(len(index)) if rows is None else np.asarray(rows, dtype=np.int64)

    def work(row: int, note: Note) -> Made | BadImage:
        note(row)
        try:
            return make(source.image(row))
        except BadImage as error:
            return error

    ahead = 4 * max(1, workers.count) if ahead is None else max(1, ahead)
    results = threads_in_order(work, iter(chosen.tolist()), workers.count, ahead, timeout_s)
    with contextlib.closing(results), resample.one_thread("pillow"):
        try:
            yield from zip(chosen.tolist(), results, strict=True)
        except Stuck as error:
            raise stuck_error(error, index) from error
        except Failed as error:
            raise failed_error(error, index) from error


def _check_rows(source: Source, index: Index) -> None:
    count = len(source.index) if isinstance(source, Streaming) else len(source)
    if count != len(index):
        raise ValueError(f"the source has {count} images, the index {len(index)}: they must be of the same index")

"""What a training will take: speed of its parts, memory, disk and hours, what holds it up, and what to change.

The measuring functions take a batch iterator or a step as a callable; `forecast` puts measured and counted numbers
together. Whoever gives a callable that works on a GPU synchronises inside it: a clock is read as soon as it returns.
"""

from __future__ import annotations

import dataclasses
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass

import torch

from striate.errors import DataError

Tensors = Mapping[str, torch.Tensor]

# Batches and steps that come before the clock is started: workers start, kernels are chosen, memory is taken.
SETTLING = 3
# Checkpoints on the disk at one time: the last two, the best, and the one being written.
CHECKPOINTS = 4
# state.json and manifest.json of a checkpoint, and what its safetensors headers say of each tensor beside its name.
_JSON_BYTES, _HEADER_BYTES = 4096, 80
# A part that reaches this share of what it reaches alone is not held up by the other.
_UNHINDERED = 0.85
# Share of the free memory or disk that a plan may need without a warning.
_ROOM = 0.9
# Share of the time that evaluations may take without a remark.
_EVALUATIONS = 0.2
# From this share of the loader's time on, decoding is what a pack would spare.
_DECODING = 0.5
# Pixels of an image in a pack: shorter side 256, and as wide as photos are. Images need more than that for a pack to pay.
_PACKED_PIXELS = 256 * 341


# ---------------------------------------------------------------- measuring


def drain(batches: Iterator[Sized], limit_s: float, now: Callable[[], float] = time.perf_counter) -> float:
    """Images per second of a loader that nothing holds up. The first batches are not counted.

    Takes about twice `limit_s` at most, and longer only where a single batch does.
    Raises DataError when the batches end at once.
    """
    return _paced(lambda: len(next(batches, ())), limit_s, now)


def repeat(step: Callable[[], int], limit_s: float, now: Callable[[], float] = time.perf_counter) -> float:
    """Images per second of a step that is taken again and again; it returns how many images it used."""
    return _paced(step, limit_s, now)


def _paced(take: Callable[[], int], limit_s: float, now: Callable[[], float]) -> float:
    """Images per second of `take`: the images of all calls after the settling ones, over their time."""
    began = now()
    for _ in range(SETTLING):
        if take() == 0:
            raise DataError("The plan could measure nothing: no image of the first batches can be read.")
        if now() - began > limit_s:
            break
    images, began = 0, now()
    while True:
        count = take()
        images += count
        elapsed_s = now() - began
        if elapsed_s >= limit_s or count == 0:
            return images / max(elapsed_s, 1e-9)


def of_larger(images_per_s: float, fixed_s: float, batch: int, larger: int) -> float:
    """Images per second with a larger batch, from those with `batch`; fixed_s: what a step of any size pays."""
    return 1 / max(1 / images_per_s - fixed_s / batch + fixed_s / larger, 1e-9)


def held_bytes(step: Callable[[], object], apart: Iterable[torch.Tensor]) -> int:
    """Most bytes that autograd holds at one time for the backward passes of `step`; those of `apart` do not count.

    apart: the parameters, which are there in any case. Memory that an operation takes and gives back at once is
    not seen.
    """
    known = {tensor.untyped_storage().data_ptr() for tensor in apart}
    holders: Counter[int] = Counter()
    held = most = 0

    def release(place: int, size: int) -> None:
        nonlocal held
        holders[place] -= 1
        held -= size if holders[place] == 0 else 0

    def pack(tensor: torch.Tensor) -> _Held:
        nonlocal held, most
        kept = _Held(tensor.detach())
        storage = tensor.untyped_storage()
        place, size = storage.data_ptr(), storage.nbytes()
        if place not in known:
            holders[place] += 1
            held += size if holders[place] == 1 else 0
            most = max(most, held)
            weakref.finalize(kept, release, place, size)
        return kept

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept.tensor):
        step()
    return most


@dataclass(eq=False)
class _Held:
    """A tensor that autograd keeps; it is let go when this object is."""

    tensor: torch.Tensor


def size_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes of the numbers in all tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def checkpoint_bytes(parts: Mapping[str, Tensors]) -> int:
    """About the size of a checkpoint on disk. parts: tensors by name, by file."""
    headers = sum(len(name) + _HEADER_BYTES for tensors in parts.values() for name in tensors)
    return sum(size_bytes(tensors.values()) for tensors in parts.values()) + headers + _JSON_BYTES


# ---------------------------------------------------------------- facts


@dataclass(frozen=True)
class Speed:
    """Images per second.

    loader: batches alone, and again from files that were just read, None for images in memory. decoding: those files read
    and decoded by as many threads, and nothing else; None for images in memory or in a pack. network: steps on one batch
    alone. together: as a training goes. scoring: in evaluation mode, with its loader.
    """

    loader: float
    loader_again: float | None
    decoding: float | None
    network: float
    together: float
    scoring: float

    @property
    def decoding_share(self) -> float:
        """Of the loader's time, what reading and decoding take, 0..1; the rest is cropping, resizing and the like."""
        if self.decoding is None or self.loader_again is None:
            return 0.0
        return min(1.0, self.loader_again / self.decoding)


@dataclass(frozen=True)
class Memory:
    """Bytes.

    parts: what is held at the peak of a step, by name. before: the process before anything was built. peak: measured, of the
    process or of the GPU's allocator, with `peak_images` at once. free: before anything was built.
    """

    parts: dict[str, int]
    before: int
    peak: int
    peak_images: int
    free: int

    @property
    def needed(self) -> int:
        """Bytes of all parts."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class Disk:
    """Bytes. checkpoint: each. checkpoints: how many there are at most. copies: 2 with a mirror. cache: decoded images."""

    checkpoint: int
    checkpoints: int
    copies: int
    cache: int
    log: int
    free: int

    @property
    def needed(self) -> int:
        """Bytes beside the run: checkpoints and log; the cache may be elsewhere."""
        return self.checkpoint * self.checkpoints + self.log


@dataclass(frozen=True)
class Duration:
    """Seconds, from the first batch to the last save. decoding comes before, where the cache does not hold the images yet.

    steps, evaluations: how many. epochs: what they amount to. is_limited: the time was given, and the epochs follow from it.
    """

    steps: int
    epochs: float
    step_s: float
    evaluations: int
    evaluation_s: float
    decoding_s: float
    is_limited: bool

    @property
    def total_s(self) -> float:
        """All steps and evaluations."""
        return self.steps * self.step_s + self.evaluations * self.evaluation_s


@dataclass(frozen=True)
class Setting:
    """What was planned, in plain values.

    source: where the loader finds images: "files", "pack" or "memory". at_once: images of one forward pass. decoded: bytes of
    all training images in memory. shrunk_px, shrunk: a shorter side at which they would take fewer bytes, 0 where that is no
    use. may_keep: bytes that decoded images may take. fast_bf16: whether the device multiplies bf16 fast. measured_batch:
    images of the steps that were measured.
    """

    model: str
    device: str
    precision: str
    fast_bf16: bool
    channels_last: bool
    compiled: bool
    threads: int
    workers: int
    cores: int
    source: str
    images: int
    size_px: int
    batch_size: int
    at_once: int
    measured_batch: int
    resident: bool
    decoded: int
    shrunk_px: int
    shrunk: int
    may_keep: int


@dataclass(frozen=True)
class Forecast:
    """The facts of a plan. bottleneck: loader, network or cores. advice: what to change, with the flag; perhaps nothing."""

    setting: Setting
    speed: Speed
    memory: Memory
    disk: Disk
    duration: Duration
    bottleneck: str
    advice: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """Every fact as JSON values, with sums."""
        sums = {"total_s": self.duration.total_s, "memory_needed": self.memory.needed, "disk_needed": self.disk.needed}
        return dataclasses.asdict(self) | sums

    def describe(self) -> list[str]:
        """The plan in words, a line for each subject."""
        s, v, m, d = self.setting, self.speed, self.memory, self.disk
        measured = f", measured with {s.measured_batch} at once" if s.measured_batch != s.batch_size else ""
        again = " (from memory)"
        if v.loader_again is not None:
            place = "a pack" if s.source == "pack" else "files"
            share = f", {v.decoding_share:.0%} of that time decoding" if v.decoding is not None else ""
            again = f" ({v.loader_again:,.0f} from {place} just read{share})"
        parts = ", ".join(f"{name} {_size(size)}" for name, size in m.parts.items() if size)
        mirror = ", and as much in the mirror" if d.copies > 1 else ""
        cache = f"; decoded images {_size(d.cache)} in the cache" if d.cache else ""
        lines = [
            f"Plan: {s.model} at {s.size_px} px on {s.images:,} images, batch {s.batch_size}; {s.device}, {s.precision}, "
            f"{_counted(s.threads, 'thread')}, {_counted(s.workers, 'worker')}. Nothing was trained, nothing is kept.",
            f"speed: loader alone {v.loader:,.0f} images/s{again}, network alone {v.network:,.0f}{measured}, "
            f"together {v.together:,.0f}; scoring {v.scoring:,.0f}",
            f"bottleneck: {bottleneck_words(self.bottleneck, v)}",
            f"time: {duration_words(self.duration)}",
            f"memory: {_size(m.needed)} ({parts}) beside {_size(m.before)} of the process itself; "
            f"measured {_size(m.peak)} with {m.peak_images} images at once; {_size(m.free)} free",
            f"disk: {d.checkpoints} checkpoints of {_size(d.checkpoint)}, log {_size(d.log)}{mirror}{cache}; "
            f"{_size(d.free)} free",
        ]
        return lines + [f"to change: {line}" for line in self.advice or ("nothing that a flag could do",)]


def forecast(setting: Setting, speed: Speed, memory: Memory, disk: Disk, duration: Duration) -> Forecast:
    """Judges the facts: what holds the training up, and what to change."""
    where = bottleneck(speed)
    return Forecast(setting, speed, memory, disk, duration, where, tuple(_advice(setting, speed, memory, disk, duration, where)))


def needed_s(steps: int, per_epoch: int, step_s: float, every: int, evaluation_s: float, decoding_s: float = 0.0) -> Duration:
    """How long so many steps take, with an evaluation every `every` steps and at the end."""
    evaluations = steps // every + (steps % every > 0)
    return Duration(steps, steps / per_epoch, step_s, evaluations, evaluation_s, decoding_s, False)


def fitting(
    limit_s: float, share: float, per_epoch: int, step_s: float, every: int, evaluation_s: float, decoding_s: float = 0.0
) -> Duration:
    """How many steps fit into a time. share: of the time that evaluations may take; one of them there is in any case."""
    steps, evaluations = int(limit_s / step_s), 1
    for _ in range(8):  # fewer steps need fewer evaluations, which leave room for more steps: it settles at once
        affordable = max(1, int(share * limit_s / max(evaluation_s, 1e-9)))
        evaluations = max(1, min(affordable, steps // every + (steps % every > 0)))
        steps = max(0, int((limit_s - evaluations * evaluation_s) / step_s))
    return Duration(steps, steps / per_epoch, step_s, evaluations, evaluation_s, decoding_s, True)


# ---------------------------------------------------------------- judging


def bottleneck(speed: Speed) -> str:
    """What holds the training up: "loader", "network", or "cores" that the two share."""
    if speed.together >= _UNHINDERED * speed.network:
        return "network"
    return "loader" if speed.together >= _UNHINDERED * speed.loader else "cores"


def bottleneck_words(where: str, speed: Speed) -> str:
    """The bottleneck with the numbers that show it."""
    if where == "network":
        return f"the network: {speed.together:,.0f} images/s of the {speed.loader:,.0f} that the loader can make"
    if where == "loader":
        return f"the loader: {speed.together:,.0f} images/s of the {speed.network:,.0f} that the network could take"
    return (
        f"the cores that loader and network share: {speed.loader:,.0f} and {speed.network:,.0f} images/s alone, "
        f"{speed.together:,.0f} together"
    )


def duration_words(duration: Duration) -> str:
    """The time with what it is made of."""
    made = (
        f"{duration.steps:,} steps of {duration.step_s:.3g} s and {_counted(duration.evaluations, 'evaluation')} of "
        f"{duration.evaluation_s:.3g} s, from the first batch to the last save"
    )
    before = f"; before that, once, {_time(duration.decoding_s)} to decode the images" if duration.decoding_s >= 1 else ""
    if duration.is_limited:
        return f"{duration.epochs:.2f} epochs fit into the time: {made}{before}"
    return f"{_time(duration.total_s)} for {duration.epochs:.4g} epochs: {made}{before}"


def _advice(setting: Setting, speed: Speed, memory: Memory, disk: Disk, duration: Duration, where: str) -> Iterator[str]:
    is_cpu = setting.device == "cpu"
    if memory.needed > _ROOM * memory.free:
        yield (
            f"a smaller --batch-size, or --optim.accumulate: a step needs {_size(memory.needed)} of memory, "
            f"{_size(memory.free)} are free"
        )
    if disk.needed > _ROOM * disk.free:
        yield f"--out on another disk: the run needs {_size(disk.needed)}, {_size(disk.free)} are free"
    if duration.evaluations > 1 and duration.evaluations * duration.evaluation_s > _EVALUATIONS * duration.total_s:
        share = duration.evaluations * duration.evaluation_s / duration.total_s
        yield f"a larger --budget.evaluate-epochs: evaluations take {share:.0%} of the time"
    if duration.is_limited and duration.epochs < 1:
        yield "a longer --for, or less work an image: not one epoch fits"
    if where in {"loader", "cores"} and not setting.resident:
        if 0 < setting.decoded <= setting.may_keep:
            yield f"--data.resident yes: decoded once, the images take {_size(setting.decoded)} of memory"
        elif setting.shrunk_px:
            yield (
                f"--data.shrink-px {setting.shrunk_px} --data.resident yes: with shorter sides of {setting.shrunk_px} px the "
                f"decoded images take {_size(setting.shrunk)} instead of {_size(setting.decoded)}, and fit into memory"
            )
        if setting.source == "files" and _would_pack(setting, speed):
            yield (
                "striate data pack DATA PACK, then striate train PACK: reading and decoding take "
                f"{speed.decoding_share:.0%} of the loader's time, and images of shorter side 256 take less"
            )
        if setting.workers < setting.cores - is_cpu:
            yield f"--workers {setting.cores - is_cpu}: {setting.cores} cores are there, {setting.workers} make batches"
    if where in {"network", "cores"}:
        if setting.precision == "fp32" and setting.fast_bf16:
            yield f"--precision bf16: {setting.device} multiplies it faster than fp32"
        if not setting.channels_last:
            yield "--optim.channels-last: convolutions are faster in this memory order"
        if not is_cpu and not setting.compiled:
            yield "--compile: fewer and larger kernels, after a slow start"
        if not is_cpu and memory.needed < memory.free / 3:
            yield f"--batch-size {2 * setting.batch_size}: a step uses {_size(memory.needed)} of {_size(memory.free)}"
        if setting.size_px > 64:
            smaller = max(32, round(setting.size_px * 0.75 / 32) * 32)
            yield (
                f"--img-size {smaller}: the work falls with the square of the side, here to about "
                f"{(smaller / setting.size_px) ** 2:.0%}; the accuracy may fall too"
            )


def _would_pack(setting: Setting, speed: Speed) -> bool:
    """Whether a pack is the way out: the images do not fit into memory, are larger than a pack's, and decoding holds up."""
    is_large = setting.decoded > 3 * _PACKED_PIXELS * setting.images
    return setting.decoded > setting.may_keep and is_large and speed.decoding_share >= _DECODING


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("s" if count != 1 else "")


def _size(size: float) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size / 1e3:.3g} kB"


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 5400 else f"{seconds / 3600:.3g} hours"

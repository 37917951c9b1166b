"""How long networks take on this machine: measured in turns, so that what disturbs one disturbs all.

A pass is the network alone, on random images that lie on the device already, without gradients: no decoding, no loading.
Peak memory is what a pass takes beside the weights, once kernels are chosen and code is compiled: on a GPU the most that
torch's allocator held less what it held before; on the CPU by how much the process's resident size grew, after unused
memory was given back (Linux only).
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from striate import machine
from striate.errors import ResourceError, UserError
from striate.models import compiled as compiling

Exact = Literal["fp32", "bf16", "fp16"]
_TAKES = (21, 5)  # passes of each network and batch: as many as fit into the time, between these
_SETTLING = 2


@dataclass(frozen=True)
class Latency:
    """Passes of one network with `batch` images: seconds of each pass (median, least, most) over `passes` of them.

    peak_bytes: see the module; None where the system does not tell.
    """

    name: str
    size_px: int
    batch: int
    median_s: float
    least_s: float
    most_s: float
    passes: int
    peak_bytes: int | None

    @property
    def images_per_s(self) -> float:
        """From the median."""
        return self.batch / self.median_s


@dataclass(frozen=True)
class Timing:
    """All measurements, in the order asked for, and what they depend on: device, precision, whether compiled, threads."""

    rows: tuple[Latency, ...]
    device: str
    precision: Exact
    compiled: bool
    threads: int

    @property
    def conditions(self) -> str:
        """In words, what the numbers depend on."""
        threads = f"{self.threads} thread" + ("s" if self.threads != 1 else "")
        return f"{self.device}, {self.precision}{', compiled' if self.compiled else ''}, {threads}, channels last"

    def to_json(self, name: str) -> dict[str, Any]:
        """The measurements of one network, and what they depend on."""
        rows = [dataclasses.asdict(row) | {"images_per_s": row.images_per_s} for row in self.rows if row.name == name]
        facts = {"device": self.device, "precision": self.precision, "compiled": self.compiled, "threads": self.threads}
        return facts | {"rows": rows}

    def lines(self) -> list[str]:
        """A table in words."""
        lines = [f"On {self.conditions}; passes in turns, median (least to most):"]
        width = max(len(row.name) for row in self.rows)
        for row in self.rows:
            peak = f", {row.peak_bytes / 1e6:,.0f} MB beside the weights" if row.peak_bytes is not None else ""
            lines.append(
                f"{row.name:<{width}}  batch {row.batch:>3}: {row.median_s * 1e3:8.2f} ms ({row.least_s * 1e3:.2f} to "
                f"{row.most_s * 1e3:.2f}, {row.passes} passes), {row.images_per_s:,.1f} images/s{peak}"
            )
        return lines


@dataclass(eq=False)
class _Runner:
    """One network with one batch, ready to be called."""

    name: str
    network: nn.Module
    images: torch.Tensor
    seconds: list[float]
    peak_bytes: int | None = None


def latency(
    networks: Mapping[str, Callable[[], nn.Module]],
    inputs: Mapping[str, tuple[int, int]],
    batches: Sequence[int] = (1, 8),
    *,
    device: str = "auto",
    precision: machine.Precision = "fp32",
    compiled: bool = False,
    limit_s: float = 30.0,
) -> Timing:
    """Times the networks in turns (A, B, A, B, …), each with every batch.

    networks: builders by name; inputs: (channels, side in pixels) of each. limit_s: about how long the passes of one batch size
    may take together; each network has at least 5 and at most 21 of them. On the CPU with one thread per core, as a training.
    Raises UserError for a batch below 1, ResourceError where the memory does not suffice.
    """
    if not batches or min(batches) < 1:
        raise UserError(f"--batch-size {min(batches, default=0)}: expected 1 or more.")
    where = machine.choose_device(device)
    exact = machine.choose_precision(precision, where)
    with _threads(machine.threads_wanted()):
        ready = {name: _prepared(build(), where, exact, compiled) for name, build in networks.items()}
        rows: list[Latency] = []
        for batch in sorted(set(batches)):
            runners = [_runner(name, network, batch, *inputs[name], where) for name, network in ready.items()]
            rows += _timed(runners, where, batch, limit_s)
        order = {name: place for place, name in enumerate(networks)}
        rows.sort(key=lambda row: (order[row.name], row.batch))
        return Timing(tuple(rows), _device_name(where), exact, compiled, torch.get_num_threads())


def _prepared(network: nn.Module, where: torch.device, exact: Exact, compiled: bool) -> nn.Module:
    """On the device, in the memory order that is fast there, in evaluation mode."""
    network = network.eval().to(where).to(memory_format=torch.channels_last)
    return compiling.for_inference(network, exact) if compiled else _Autocast(network, exact)


class _Autocast(nn.Module):
    """A network whose passes run in a precision."""

    def __init__(self, network: nn.Module, exact: Exact) -> None:
        super().__init__()
        self.network = network
        self.exact = exact

    def forward(self, images: torch.Tensor) -> object:
        """images: [B, C, H, W]. Returns what the network does."""
        with machine.autocast(images.device, self.exact):
            return self.network(images)


def _runner(name: str, network: nn.Module, batch: int, channels: int, size_px: int, where: torch.device) -> _Runner:
    images = torch.rand(batch, channels, size_px, size_px, generator=torch.Generator().manual_seed(0))
    return _Runner(name, network, images.to(where, memory_format=torch.channels_last), [])


def _timed(runners: list[_Runner], where: torch.device, batch: int, limit_s: float) -> list[Latency]:
    most, least = _TAKES
    for runner in runners:
        for _ in range(_SETTLING):  # kernels are chosen, memory is taken, compiled networks are compiled
            _pass_s(runner, where)
        runner.peak_bytes = _peak_bytes(partial(_pass_s, runner, where), where)
    began = time.perf_counter()
    for turn in range(most):
        if turn >= least and time.perf_counter() - began > limit_s:
            break
        for runner in runners:
            runner.seconds.append(_pass_s(runner, where))
    return [
        Latency(
            runner.name,
            runner.images.shape[-1],
            batch,
            statistics.median(runner.seconds),
            min(runner.seconds),
            max(runner.seconds),
            len(runner.seconds),
            runner.peak_bytes,
        )
        for runner in runners
    ]


def _pass_s(runner: _Runner, where: torch.device) -> float:
    """Seconds of one pass, until its result is there."""
    began = time.perf_counter()
    try:
        with torch.inference_mode():
            runner.network(runner.images)
            _wait(where)
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise ResourceError(
            f"{runner.name}: a pass of {len(runner.images)} images does not fit into the memory. Give a smaller --batch-size."
        ) from error
    return time.perf_counter() - began


def _wait(where: torch.device) -> None:
    if where.type == "cuda":
        torch.cuda.synchronize(where)
    elif where.type == "mps":
        torch.mps.synchronize()


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    machine.use_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _peak_bytes(run: Callable[[], object], where: torch.device) -> int | None:
    """The most memory that `run` holds beside what is held before it."""
    if where.type == "cuda":
        torch.cuda.reset_peak_memory_stats(where)
        before = torch.cuda.memory_allocated(where)
        run()
        return torch.cuda.max_memory_allocated(where) - before
    if where.type != "cpu" or not sys.platform.startswith("linux"):
        return None
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # what is free goes back, or the pass would live on it unseen
        Path("/proc/self/clear_refs").write_text("5")  # the largest resident size so far is forgotten
        before = _resident("VmRSS")
        run()
        return max(0, _resident("VmHWM") - before)
    except (OSError, AttributeError, StopIteration):
        return None  # another C library, or a system that does not tell


def _resident(word: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(word))


def _device_name(where: torch.device) -> str:
    facts = machine.describe(where)
    return f"{where} ({facts.get('gpu', facts['processor'])})"
